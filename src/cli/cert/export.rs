//! `waxwing cert export` and `waxwing cert purge`.

/// Everybody's keys, for device management.
mod devices;
/// What Apple's devices install.
mod mobileconfig;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use zeroize::Zeroizing;

use super::super::{CommandResult, Failure, PasswordArgs, read_file, shown};
use super::{known, parse_owner};
use crate::keys::{KeyId, SoftwareKey};
use crate::pki::pkcs12::{Bundle, export, import};
use crate::store::embedded::EmbeddedStore;
use crate::store::{CertStore, CertificateRecord, Identity, Owner, StoreError};

/// Arguments of `waxwing cert export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// A mailbox, or @domain.
    #[arg(required_unless_present = "all_users")]
    address: Option<String>,
    /// The PKCS#12 file to make (mode 0600), with every generation; an existing one is left as it is.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["mobileconfig", "all_users"])]
    output: Option<PathBuf>,
    /// A configuration profile for Apple's devices to make in its place: an identity for each generation, and an account with S/MIME where
    /// --mail-server is given.
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    mobileconfig: Option<PathBuf>,
    #[command(flatten)]
    mail: mobileconfig::Mail,
    /// A folder to fill with a PKCS#12 file for each generation of each user's keys, and import.csv, which names file, user, password and
    /// thumbprint of each. Again on the same folder: what is missing is added.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "mobileconfig", "address"])]
    all_users: Option<PathBuf>,
    #[command(flatten)]
    password: PasswordArgs,
    /// Print JSON; for --all-users.
    #[arg(long, requires = "all_users")]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &ExportArgs, store: &EmbeddedStore) -> CommandResult {
    if let Some(folder) = &args.all_users {
        return devices::run(store, folder, args.password.read()?.filter(|text| !text.is_empty()), args.json);
    }
    let owner = parse_owner(args.address.as_deref().unwrap_or_default())?;
    let password = needed(&args.password)?;
    match (&args.mobileconfig, &args.output) {
        (Some(file), _) => mobileconfig::run(store, &owner, file, &password, &args.mail),
        (None, Some(file)) => to_file(store, &owner, file, &password, false),
        (None, None) => Err(Failure::new("nothing to write", "give --output FILE")),
    }
}

/// Makes a file of mode 0600 that was not there.
fn write_new(file: &Path, octets: &[u8]) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()), "name a file that does not exist");
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    out.write_all(octets).and_then(|()| out.sync_all()).map_err(failed)
}

/// The password, which must be given.
pub(super) fn needed(password: &PasswordArgs) -> Result<Zeroizing<String>, Failure> {
    password
        .read()?
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Failure::new("a password is needed", "give --password-file FILE"))
}

/// Writes all generations of an owner, and reads the file back; says so, but where that is left to who called.
pub(super) fn to_file(
    store: &EmbeddedStore,
    owner: &Owner,
    output: &Path,
    password: &str,
    silent: bool,
) -> CommandResult {
    let identity = known(store, owner)?;
    let mut bundle = Bundle::default();
    let mut ids: Vec<KeyId> = Vec::new();
    // The newest first: programs that take one take the first.
    for record in identity.certificates.iter().rev() {
        bundle.certificates.push(record.certificate.clone());
        if let Some(key) = record.key.filter(|key| !ids.contains(key)) {
            ids.push(key);
            bundle.keys.push(store.export_key(key)?);
        }
    }
    let file = Zeroizing::new(
        export(&bundle, password, &identity.owner.to_string()).map_err(|error| Failure::new(error.to_string(), ""))?,
    );
    missing(&identity, &file, password)
        .map_err(|why| Failure::new(format!("the export is not whole: {why}"), "nothing was written"))?;
    write_new(output, &file)?;
    if silent {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{}: {} certificates, {} private keys of {}",
        output.display(),
        bundle.certificates.len(),
        bundle.keys.len(),
        shown(&identity.owner.to_string())
    );
    Ok(ExitCode::SUCCESS)
}

/// One certificate with its key as PKCS#12, read back.
fn single(
    store: &EmbeddedStore,
    record: &CertificateRecord,
    password: &str,
    name: &str,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bundle = Bundle { certificates: vec![record.certificate.clone()], ..Bundle::default() };
    if let Some(key) = record.key {
        bundle.keys.push(store.export_key(key)?);
    }
    let failed = |why: String| Failure::new(format!("the export is not whole: {why}"), "nothing was written");
    let file = Zeroizing::new(export(&bundle, password, name).map_err(|error| failed(error.to_string()))?);
    let read = import(&file, password).map_err(|error| failed(error.to_string()))?;
    if read.keys != bundle.keys || read.certificates != bundle.certificates {
        return Err(failed("it does not hold what was put into it".to_owned()));
    }
    Ok(file)
}

/// Why the file does not hold all that the identity has.
fn missing(identity: &Identity, file: &[u8], password: &str) -> Result<(), String> {
    let bundle = import(file, password).map_err(|error| error.to_string())?;
    let keys = bundle
        .keys
        .iter()
        .map(|pkcs8| SoftwareKey::from_pkcs8(pkcs8).map(|key| key.id()))
        .collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(|error| error.to_string())?;
    for record in &identity.certificates {
        let name = super::short(&record.certificate);
        if !bundle.certificates.contains(&record.certificate) {
            return Err(format!("the certificate {name} is not in it"));
        }
        if record.key.is_some_and(|key| !keys.contains(&key)) {
            return Err(format!("the private key of {name} is not in it"));
        }
    }
    Ok(())
}

/// Removes an owner, after the export (file and password) was seen to hold everything; without one the keys are lost.
pub(super) fn purge(
    store: &EmbeddedStore,
    owner: &Owner,
    exported: Option<(&Path, &str)>,
    json: bool,
) -> CommandResult {
    let owner = store.owner_of(owner)?;
    let name = shown(&owner.to_string());
    match exported {
        Some((file, password)) => {
            let identity = known(store, &owner)?;
            let octets = read_file(file)?;
            missing(&identity, &octets, password).map_err(|why| {
                Failure::new(
                    format!("{} does not hold all that {name} has: {why}; nothing was removed", file.display()),
                    "export again with `waxwing cert export`",
                )
            })?;
            store.purge_as_seen(&owner, identity.generation)?;
        }
        None => {
            let keys = match store.identity_of(&owner) {
                Ok(identity) => identity.certificates.iter().filter(|record| record.key.is_some()).count(),
                Err(StoreError::NotAuthentic(_)) => 0,
                Err(error) => return Err(error.into()),
            };
            eprintln!(
                "waxwing: warning: {keys} private keys of {name} are removed without an export; mail encrypted to them is lost for good"
            );
            store.purge(&owner)?;
        }
    }
    if json {
        let behind = crate::cli::store::not_acknowledged(store)?;
        let behind: Vec<_> =
            behind.iter().map(|node| json!({"name": node.name, "seen": node.seen.to_string()})).collect();
        let file = exported.map(|(file, _)| file.display().to_string());
        println!("{}", json!({"purged": owner.to_string(), "export": file, "not_yet_at": behind}));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{name} is purged; nothing was revoked at the CA");
    crate::cli::store::tell_acknowledged(store)?;
    Ok(ExitCode::SUCCESS)
}

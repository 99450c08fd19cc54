//! `waxwing cert export` and `waxwing cert purge`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::super::{CommandResult, Failure, PasswordArgs, read_file, shown};
use super::known;
use crate::keys::{KeyId, SoftwareKey};
use crate::pki::pkcs12::{Bundle, export, import};
use crate::store::embedded::EmbeddedStore;
use crate::store::{CertStore, Identity, Owner, StoreError};

/// The password, which must be given.
pub(super) fn needed(password: &PasswordArgs) -> Result<Zeroizing<String>, Failure> {
    password
        .read()?
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Failure::new("a password is needed", "give --password-file FILE"))
}

/// Writes all generations of an owner, and reads the file back.
pub(super) fn run(store: &EmbeddedStore, owner: &Owner, output: &Path, password: &str) -> CommandResult {
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
    let failed = |error: std::io::Error| {
        Failure::new(format!("{}: {error}", output.display()), "name a file that does not exist")
    };
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(output).map_err(failed)?;
    out.write_all(&file).and_then(|()| out.sync_all()).map_err(failed)?;
    println!(
        "{}: {} certificates, {} private keys of {}",
        output.display(),
        bundle.certificates.len(),
        bundle.keys.len(),
        shown(&identity.owner.to_string())
    );
    Ok(ExitCode::SUCCESS)
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
pub(super) fn purge(store: &EmbeddedStore, owner: &Owner, exported: Option<(&Path, &str)>) -> CommandResult {
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
        }
    }
    store.purge(&owner)?;
    println!("{name} is purged; nothing was revoked at the CA");
    Ok(ExitCode::SUCCESS)
}

//! Everybody's keys for device management: a PKCS#12 file for each generation, since what imports them takes one identity a file, and a CSV
//! that says what each is. The same encryption key so comes to every device of a user.

use std::collections::HashSet;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use aws_lc_rs::{digest, rand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use zeroize::Zeroizing;

use super::super::super::{CommandResult, Failure, NOT_GOOD, shown};
use super::single;
use crate::pki::certificate::{Certificate, Purpose};
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::hex;
use crate::store::{CertStore, CertificateRecord, Owner};

const LIST: &str = "import.csv";
/// As Microsoft Graph's userPFXCertificate calls them, where it has a word.
const HEADING: [&str; 8] = [
    "userPrincipalName",
    "file",
    "password",
    "thumbprint",
    "intendedPurpose",
    "startDateTime",
    "expirationDateTime",
    "sha256",
];
/// Letters and digits that are not taken for each other.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 5 bits each.
const PASSWORD_LENGTH: usize = 26;

type Row = [String; 8];
/// User and SHA-256 of each certificate whose file is there.
type Done = HashSet<(String, String)>;

/// Fills the folder; what its list has already stays.
pub(super) fn run(
    store: &EmbeddedStore,
    folder: &Path,
    password: Option<Zeroizing<String>>,
    json: bool,
) -> CommandResult {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {error}", folder.display()), "run it again: what is there is not made again")
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(&error))?;
    let (mut list, done) = begin(folder).map_err(|error| failed(&error))?;
    let owners: Vec<Owner> = store.owners()?.into_iter().filter(|owner| matches!(owner, Owner::Mailbox(_))).collect();
    let bar = ProgressBar::new(owners.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    let (next, workers) = (AtomicUsize::new(0), std::thread::available_parallelism().map_or(2, usize::from));
    let (put, get) = sync_channel::<(Owner, Result<Vec<Row>, Failure>)>(4 * workers);
    let (mut files, mut refused) = (0usize, 0usize);
    let written = std::thread::scope(|scope| {
        for _ in 0..workers {
            let (put, next, owners, done, password) = (put.clone(), &next, &owners, &done, password.as_ref());
            scope.spawn(move || {
                while let Some(owner) = owners.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let rows = user(store, owner, folder, done, password.map(|text| text.as_str()));
                    if put.send((owner.clone(), rows)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(put);
        for (owner, rows) in get {
            bar.inc(1);
            match rows {
                Ok(rows) => {
                    files += rows.len();
                    rows.iter().try_for_each(|row| list.write_record(row))?;
                    list.flush()?;
                }
                Err(failure) => {
                    refused += 1;
                    bar.suspend(|| eprintln!("waxwing: {}: {failure}", shown(&owner.to_string())));
                }
            }
        }
        list.into_inner().map_err(|error| csv::Error::from(error.into_error()))?.sync_all().map_err(csv::Error::from)
    });
    bar.finish_and_clear();
    written.map_err(|error| failed(&error))?;
    if json {
        println!(
            "{}",
            json!({"made": files, "there": done.len(), "users_refused": refused, "list": folder.join(LIST)})
        );
        return Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) });
    }
    println!(
        "{}: {files} files made, {} there already, {refused} users refused; {LIST} has their passwords",
        folder.display(),
        done.len()
    );
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

/// The list, with the rows whose files are there, and these.
fn begin(folder: &Path) -> Result<(csv::Writer<std::fs::File>, Done), csv::Error> {
    let (place, draft) = (folder.join(LIST), folder.join(format!("{LIST}.new")));
    let mut rows: Vec<csv::StringRecord> = Vec::new();
    if place.exists() {
        // A row that was cut off is none, and its file is made again.
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(&place)?;
        let whole = |row: &csv::StringRecord| {
            row.len() == HEADING.len() && row.get(1).is_some_and(|file| folder.join(file).exists())
        };
        rows = reader.records().filter_map(Result::ok).filter(whole).collect();
    }
    let out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let mut list = csv::Writer::from_writer(out);
    list.write_record(HEADING)?;
    let mut done = HashSet::new();
    for row in &rows {
        list.write_record(row)?;
        if let (Some(user), Some(name)) = (row.get(0), row.get(7)) {
            done.insert((user.to_owned(), name.to_owned()));
        }
    }
    list.flush()?;
    std::fs::rename(&draft, &place)?;
    Ok((list, done))
}

/// Makes what is missing of a user's files, newest first.
fn user(
    store: &EmbeddedStore,
    owner: &Owner,
    folder: &Path,
    done: &Done,
    given: Option<&str>,
) -> Result<Vec<Row>, Failure> {
    let identity = store.identity_of(owner)?;
    let name = owner.to_string();
    let mut rows = Vec::new();
    for record in identity.certificates.iter().rev().filter(|record| record.key.is_some()) {
        let sha256 = hex(&record.certificate.fingerprint()).to_string();
        if done.contains(&(name.clone(), sha256.clone())) {
            continue;
        }
        let password = given.map_or_else(random_password, |text| Ok(Zeroizing::new(text.to_owned())))?;
        let octets = single(store, record, &password, &name)?;
        let file = format!("{}-{}.p12", file_name(&name), super::super::short(&record.certificate));
        write(&folder.join(&file), &octets)?;
        rows.push(row(&name, file, &password, record, sha256));
    }
    Ok(rows)
}

fn row(name: &str, file: String, password: &str, record: &CertificateRecord, sha256: String) -> Row {
    let certificate = &record.certificate;
    let purpose = if certificate.fits(Purpose::Encryption).is_ok() { "smimeEncryption" } else { "smimeSigning" };
    [
        name.to_owned(),
        file,
        password.to_owned(),
        thumbprint(certificate),
        purpose.to_owned(),
        certificate.not_before().to_string(),
        certificate.not_after().to_string(),
        sha256,
    ]
}

/// SHA-1, as Windows names certificates.
fn thumbprint(certificate: &Certificate) -> String {
    hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate.der()).as_ref()).to_ascii_uppercase()
}

/// A file without a row is of a run that ended early: it is made again.
fn write(file: &Path, octets: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()), "");
    let draft = file.with_extension("p12.new");
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
    out.write_all(octets).and_then(|()| out.sync_all()).and_then(|()| std::fs::rename(&draft, file)).map_err(failed)
}

/// What a path may hold of an address as it is; the rest by its octets.
fn file_name(address: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'@' | b'.' | b'_' | b'-' | b'+');
    let one = |octet: u8| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") };
    let name: String = address.bytes().take(100).map(one).collect();
    name.strip_prefix('.').map_or(name.clone(), |rest| format!("%2E{rest}"))
}

fn random_password() -> Result<Zeroizing<String>, Failure> {
    let mut octets = Zeroizing::new([0u8; PASSWORD_LENGTH]);
    rand::fill(octets.as_mut()).map_err(|_| Failure::new("no randomness from the operating system", ""))?;
    let letter = |octet: &u8| LETTERS.get(usize::from(octet % 32)).map_or('x', |letter| char::from(*letter));
    Ok(Zeroizing::new(octets.iter().map(letter).collect()))
}

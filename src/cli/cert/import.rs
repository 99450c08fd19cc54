//! `waxwing cert import`: whole files, and whole values of directories' dumps, or nothing of them; thousands in one transaction.

/// Reading and checking on every core, storing in large transactions.
mod flow;
/// What became of each, in a file that a later run goes on from.
mod report;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::super::{Failure, shown};
use super::short;
use crate::cms::signed::SignedData;
use crate::keys::{KeyId, SoftwareKey};
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::pkcs12::{Bundle, read_any};
use crate::policy::TrustState;
use crate::store::embedded::{CheckedParcel, EmbeddedStore, ImportOutcome, Parcel};
use crate::store::{NewCertificate, Owner, Provenance, Stored};

pub(super) use flow::run;

const EXTENSIONS: [&str; 7] = ["p12", "pfx", "pem", "crt", "cer", "der", "ldif"];
/// Attributes of a directory that hold certificates (RFC 4523, RFC 2798).
const ATTRIBUTES: [&str; 3] = [USER_CERTIFICATE, USER_SMIME_CERTIFICATE, USER_PKCS12];
const USER_CERTIFICATE: &str = "usercertificate";
const USER_SMIME_CERTIFICATE: &str = "usersmimecertificate";
const USER_PKCS12: &str = "userpkcs12";

/// What is the same for everything that is imported.
pub(super) struct Settings<'a> {
    pub store: &'a EmbeddedStore,
    pub password: Option<&'a str>,
    pub owner: Option<Owner>,
    pub trust: TrustState,
    /// Where it is said what became of each.
    pub report: Option<&'a Path>,
    /// What the report says is stored is left out.
    pub resume: bool,
    pub json: bool,
}

/// Something that is stored whole or not at all.
enum Job {
    File(PathBuf),
    /// A value of a directory's entry.
    Value {
        /// File, line and distinguished name.
        name: String,
        attribute: String,
        octets: Vec<u8>,
    },
}

/// A job that was read and may be stored.
struct Ready {
    parcel: CheckedParcel,
    notes: Vec<String>,
    /// Of each owner: fingerprint of each certificate, and whether its key came along.
    named: Vec<(Owner, Vec<(String, bool)>)>,
}

/// What there is to import.
pub(super) struct Found {
    files: Vec<PathBuf>,
    /// Files in folders whose ending is not known.
    left_out: usize,
}

impl Found {
    /// Octets of all files.
    fn octets(&self) -> u64 {
        self.files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|metadata| metadata.len()).sum()
    }
}

/// The files named and, of folders, those with a known ending; none is a failure.
pub(super) fn collect(paths: &[PathBuf]) -> Result<Found, Failure> {
    let mut found = Found { files: Vec::new(), left_out: 0 };
    for path in paths {
        let metadata = std::fs::metadata(path)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display()), "name a file or a folder"))?;
        if metadata.is_dir() {
            walk(path, &mut found)?;
        } else {
            found.files.push(path.clone());
        }
    }
    if found.files.is_empty() {
        return Err(Failure::new(
            "there is no file to import",
            format!("in folders, files that end in .{} are read", EXTENSIONS.join(" .")),
        ));
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut Found) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", folder.display()), "");
    let mut entries = std::fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // Links to folders are not followed: no loops.
        let kind = entry.file_type().map_err(failed)?;
        let known =
            path.extension().is_some_and(|ending| EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known)));
        if kind.is_dir() {
            walk(&path, found)?;
        } else if known {
            found.files.push(path);
        } else {
            found.left_out += 1;
        }
    }
    Ok(())
}

/// Whether a file is a directory's dump.
fn is_ldif(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("ldif"))
}

/// What a directory's value holds.
fn value_bundle(attribute: &str, octets: &[u8], password: Option<&str>) -> Result<Bundle, String> {
    let mut bundle = Bundle::default();
    match attribute {
        USER_PKCS12 => return read_any(octets, password).map_err(|error| error.to_string()),
        USER_SMIME_CERTIFICATE => {
            let octets = bytes::Bytes::copy_from_slice(octets);
            bundle.certificates = SignedData::parse(&octets).map_err(|error| error.to_string())?.certificates;
        }
        _ => {
            let octets = bytes::Bytes::copy_from_slice(octets);
            bundle.certificates.push(Certificate::from_der(octets).map_err(|error| error.to_string())?);
        }
    }
    Ok(bundle)
}

impl Settings<'_> {
    /// Reads and checks a job's octets.
    fn ready(&self, job: &Job, octets: &[u8]) -> Result<Ready, String> {
        let (bundle, detail) = match job {
            Job::File(file) => {
                (read_any(octets, self.password).map_err(|error| error.to_string())?, file.display().to_string())
            }
            Job::Value { name, attribute, .. } => (value_bundle(attribute, octets, self.password)?, name.clone()),
        };
        let (leaves, authorities) = split(bundle.certificates.clone());
        if leaves.is_empty() {
            return Err(match (authorities.is_empty(), bundle.keys.is_empty()) {
                (false, _) => "holds CA certificates only; `waxwing trust add` takes those".to_owned(),
                (true, false) => "holds a private key without its certificate; put both in one file".to_owned(),
                (true, true) if bundle.skipped.is_empty() => "holds no certificate".to_owned(),
                (true, true) => format!("holds nothing that can be used: {}", bundle.skipped.join(", ")),
            });
        }
        let keys = match_keys(&bundle, &leaves)?;
        let mut new: Vec<(Owner, Vec<NewCertificate>)> = Vec::new();
        let mut notes: Vec<String> =
            bundle.skipped.iter().map(|what| format!("passed over: {}", shown(what))).collect();
        for leaf in &leaves {
            let key =
                keys.iter().find(|(id, _)| *id == KeyId::of_spki(leaf.public_key().spki())).map(|(_, pkcs8)| pkcs8);
            for owner in self.owners(leaf, &mut notes)? {
                let provenance =
                    Provenance { source: "import".to_owned(), detail: detail.clone(), at: Timestamp::now() };
                let one = NewCertificate {
                    certificate: leaf.clone(),
                    provenance,
                    trust: self.trust,
                    key: key.map(|pkcs8| Zeroizing::new(pkcs8.to_vec())),
                };
                match new.iter_mut().find(|(known, _)| *known == owner) {
                    Some((_, ones)) => ones.push(one),
                    None => new.push((owner, vec![one])),
                }
            }
        }
        let tell = |one: &NewCertificate| (short(&one.certificate), one.key.is_some());
        let named = new.iter().map(|(owner, ones)| (owner.clone(), ones.iter().map(tell).collect())).collect();
        // Roots are no business of an import: trusting one is a decision of its own.
        let intermediates = authorities.into_iter().filter(|authority| !authority.is_self_issued()).collect();
        let parcel = Parcel { owners: new, intermediates }.check().map_err(|error| error.to_string())?;
        Ok(Ready { parcel, notes, named })
    }

    /// Whose certificate it is.
    fn owners(&self, leaf: &Certificate, notes: &mut Vec<String>) -> Result<Vec<Owner>, String> {
        if let Some(owner) = &self.owner {
            let names = match owner {
                Owner::Mailbox(mailbox) => leaf.is_for(mailbox),
                Owner::Domain(domain) => {
                    [Purpose::Encryption, Purpose::Signature].iter().any(|purpose| leaf.is_for_domain(domain, *purpose))
                }
            };
            let in_subject = matches!(owner, Owner::Mailbox(mailbox) if leaf.names(mailbox, true));
            if !names && in_subject {
                notes.push(format!("warning: the certificate names {} in its subject alone: it is used to encrypt or sign with email_in_subject = true in [certificates]", shown(&owner.to_string())));
            } else if !names {
                let addresses: Vec<String> = leaf.mailboxes().iter().map(ToString::to_string).collect();
                let addresses =
                    if addresses.is_empty() { "no address".to_owned() } else { shown(&addresses.join(", ")) };
                notes.push(format!("warning: the certificate names {addresses}, not {}: it will decrypt, but is not used to encrypt or sign", shown(&owner.to_string())));
            }
            return Ok(vec![self.store.owner_of(owner).map_err(|error| error.to_string())?]);
        }
        let mut owners: Vec<Owner> = Vec::new();
        for mailbox in leaf.mailboxes() {
            let owner = self.store.owner_of(&Owner::Mailbox(mailbox.key())).map_err(|error| error.to_string())?;
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        if owners.is_empty() {
            return Err(format!("{} names no mail address; say whose it is with --address", leaf.subject_text()));
        }
        Ok(owners)
    }
}

/// What became of it, a line a certificate, and whether anything was changed.
fn lines(notes: Vec<String>, named: &[(Owner, Vec<(String, bool)>)], outcome: &ImportOutcome) -> (Vec<String>, bool) {
    let (mut lines, mut changed) = (notes, false);
    for ((owner, ones), (_, stored)) in named.iter().zip(outcome) {
        for ((fingerprint, has_key), stored) in ones.iter().zip(stored) {
            changed |= *stored != Stored::Unchanged;
            lines.push(format!("{} {fingerprint}: {}", shown(&owner.to_string()), told(*stored, *has_key)));
        }
    }
    (lines, changed)
}

fn told(stored: Stored, has_key: bool) -> &'static str {
    match (stored, has_key) {
        (Stored::New, true) => "stored certificate and private key",
        (Stored::New, false) => "stored certificate",
        (Stored::KeyAdded, _) => "stored private key, the certificate was there",
        (Stored::Approved, _) => "approved, it was pending",
        (Stored::Unchanged, _) => "no change, it is there already",
    }
}

/// Those of mailboxes, and those of CAs; each once.
fn split(certificates: Vec<Certificate>) -> (Vec<Certificate>, Vec<Certificate>) {
    let mut once: Vec<Certificate> = Vec::new();
    for certificate in certificates {
        if !once.contains(&certificate) {
            once.push(certificate);
        }
    }
    once.into_iter().partition(|certificate| !certificate.is_ca())
}

/// Every key with its name; one that belongs to no certificate refuses the file.
fn match_keys<'a>(bundle: &'a Bundle, leaves: &[Certificate]) -> Result<Vec<(KeyId, &'a [u8])>, String> {
    let mut keys = Vec::new();
    for pkcs8 in &bundle.keys {
        let id = SoftwareKey::from_pkcs8(pkcs8).map_err(|error| format!("private key: {error}"))?.id();
        if !leaves.iter().any(|leaf| KeyId::of_spki(leaf.public_key().spki()) == id) {
            return Err("a private key in it belongs to none of its certificates; put both in one file".to_owned());
        }
        keys.push((id, pkcs8.as_slice()));
    }
    Ok(keys)
}

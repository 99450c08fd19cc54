//! `waxwing cert capabilities`: what an owner can read, as mail said it, and by hand.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::json;

use super::{known, parse_owner, short};
use crate::cli::{CommandResult, Failure, print_table, shown};
use crate::cms::algorithm::{Capabilities, ContentEncryption};
use crate::config::TRANSPORTS;
use crate::policy::TrustState;
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::hex;
use crate::store::{BY_HAND, CertStore, CertificateRecord, Edit, Identity, Provenance, Revision};

/// Arguments of `cert capabilities`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A mailbox, or @domain.
    address: String,
    /// What its owner can read, best first, instead of what mails say: AES-256-GCM, AES-128-GCM, AES-256-CBC, AES-192-CBC, AES-128-CBC,
    /// 3DES-CBC; and for RSA keys pkcs1, oaep-sha1, oaep-sha256, oaep-sha384, oaep-sha512.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "clear")]
    set: Vec<String>,
    /// Forget what is known; mails may say it again.
    #[arg(long)]
    clear: bool,
    /// Only of this certificate: 8 or more digits of its SHA-256 fingerprint; default: all that are not blocked.
    #[arg(long)]
    fingerprint: Option<String>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

fn parse(words: &[String]) -> Result<Capabilities, Failure> {
    use ContentEncryption::{Aes128Cbc, Aes128Gcm, Aes192Cbc, Aes192Gcm, Aes256Cbc, Aes256Gcm, TripleDesCbc};
    let ciphers = [Aes256Gcm, Aes192Gcm, Aes128Gcm, Aes256Cbc, Aes192Cbc, Aes128Cbc, TripleDesCbc];
    let mut known = Capabilities::default();
    for word in words.iter().map(|word| word.trim()) {
        let cipher = ciphers.into_iter().find(|cipher| cipher.name().eq_ignore_ascii_case(word));
        let transport = TRANSPORTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        match (cipher, transport) {
            (Some(cipher), _) if !known.content.contains(&cipher) => known.content.push(cipher),
            (_, Some((_, how))) if !known.transport.contains(how) => known.transport.push(*how),
            (None, None) => {
                let names: Vec<&str> = ciphers
                    .iter()
                    .map(|cipher| cipher.name())
                    .chain(TRANSPORTS.iter().map(|(name, _)| *name))
                    .collect();
                let what = format!("{:?} is no cipher and no key transport", shown(word));
                return Err(Failure::new(what, format!("give some of {}", names.join(", "))));
            }
            _ => {}
        }
    }
    if known.content.is_empty() {
        return Err(Failure::new("no cipher is named", "name at least one, such as AES-256-CBC"));
    }
    Ok(known)
}

/// Runs the command.
pub fn run(args: &Args, store: &EmbeddedStore) -> CommandResult {
    let mut identity = known(store, &parse_owner(&args.address)?)?;
    let only = match &args.fingerprint {
        Some(digits) => {
            let all = identity.certificates.iter().map(|record| &record.certificate);
            Some(super::super::trust::find(all, digits)?.fingerprint())
        }
        None => None,
    };
    if args.clear || !args.set.is_empty() {
        let said = match args.clear {
            true => None,
            false => {
                let (source, detail) = (BY_HAND.to_owned(), "waxwing cert capabilities".to_owned());
                Some((parse(&args.set)?, Provenance { source, detail, at: Timestamp::now() }))
            }
        };
        let edit = |record: &CertificateRecord| Edit {
            fingerprint: record.certificate.fingerprint(),
            capabilities: Some(said.clone()),
            ..Edit::default()
        };
        store.revise(&identity.owner, &mut |identity| Revision {
            edit: chosen(identity, only).map(edit).collect(),
            ..Revision::default()
        })?;
        identity = store.identity_of(&identity.owner)?;
    }
    let rows = chosen(&identity, only);
    if args.json {
        let each = rows.map(|record| {
            let (reads, by) = told(record);
            json!({
                "fingerprint": *hex(&record.certificate.fingerprint()), "trust": record.trust.word(), "reads": reads,
                "said_by": by.as_ref().map(|by| json!({ "source": by.source, "detail": by.detail, "at": by.at.to_string() })),
                "preferred": record.preferred,
            })
        });
        println!("{:#}", json!({ "owner": identity.owner.to_string(), "certificates": each.collect::<Vec<_>>() }));
    } else {
        let rows: Vec<Vec<String>> = rows
            .map(|record| {
                let (reads, by) = told(record);
                let by = by.map_or_else(String::new, |by| format!("{} {}, {}", by.source, by.detail, by.at));
                let reads = reads.map_or_else(|| "not known".to_owned(), |names| names.join(", "));
                vec![short(&record.certificate), record.trust.word().to_owned(), reads, shown(&by)]
            })
            .collect();
        println!("{}", shown(&identity.owner.to_string()));
        print_table(&["FINGERPRINT", "TRUST", "READS", "SAID BY"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(identity: &Identity, only: Option<[u8; 32]>) -> impl Iterator<Item = &CertificateRecord> {
    identity.certificates.iter().filter(move |record| match only {
        Some(only) => record.certificate.fingerprint() == only,
        None => record.trust != TrustState::Blocked,
    })
}

/// What the owner of a certificate reads, and who said so.
pub fn told(record: &CertificateRecord) -> (Option<Vec<String>>, Option<Provenance>) {
    let by = record.learned.clone().or_else(|| {
        record.certificate.capabilities().filter(|_| record.capabilities.is_none()).map(|_| Provenance {
            source: "certificate".to_owned(),
            detail: "smimeCapabilities".to_owned(),
            at: record.certificate.not_before(),
        })
    });
    (record.reads().map(|known| known.names()), by)
}

//! `waxwing cert pending`: certificates that signed mail brought and nobody approved yet (A10).

use std::collections::HashMap;
use std::process::ExitCode;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{known, parse_owner, short};
use crate::cli::{CommandResult, Failure, NOT_GOOD, print_table, shown};
use crate::pki::certificate::{Certificate, Purpose};
use crate::policy::TrustState;
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::hex;
use crate::store::{CertStore, CertificateRecord, Edit, Identity, Note, Owner, Revision};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List what waits to be approved: all, or one owner's with all that is known.
    #[command(
        after_help = "Example:\n  waxwing cert pending list\n  waxwing cert pending list bert@example.com --json"
    )]
    List {
        /// A mailbox, or @domain: with details.
        address: Option<String>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Trust a pending certificate: new mail is encrypted to it. Compare its fingerprint with its owner first, over another way than mail.
    #[command(
        after_help = "Example:\n  waxwing cert pending approve bert@example.com\n  waxwing cert pending approve bert@example.com --fingerprint 3b1f02c4"
    )]
    Approve(Choice),
    /// Never use a pending certificate, nor another with the same key that comes later. `waxwing cert approve --fingerprint` takes it back.
    #[command(after_help = "Example:\n  waxwing cert pending reject bert@example.com --fingerprint 3b1f02c4")]
    Reject(Choice),
}

/// Which pending certificates.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// A mailbox, or @domain.
    address: String,
    /// Only this one: 8 or more digits of its SHA-256 fingerprint. Needed where several with different keys are pending.
    #[arg(long)]
    fingerprint: Option<String>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(command: Command, store: &EmbeddedStore) -> CommandResult {
    match command {
        Command::List { address, json } => list(store, address.as_deref(), json),
        Command::Approve(choice) => settle(store, &choice, TrustState::Trusted),
        Command::Reject(choice) => settle(store, &choice, TrustState::Blocked),
    }
}

/// A pending certificate, its owner, and what it would take the place of.
struct Waiting<'i> {
    identity: &'i Identity,
    record: &'i CertificateRecord,
    old: Option<&'i CertificateRecord>,
}

fn waiting(identity: &Identity) -> impl Iterator<Item = Waiting<'_>> {
    let pending = identity.certificates.iter().filter(|record| record.trust == TrustState::Pending);
    pending.map(move |record| {
        let named = record.note.as_ref().and_then(|note| note.instead_of);
        let is_old = |one: &&CertificateRecord| Some(one.certificate.fingerprint()) == named;
        Waiting { identity, record, old: identity.certificates.iter().find(is_old) }
    })
}

fn list(store: &EmbeddedStore, address: Option<&str>, as_json: bool) -> CommandResult {
    let mut identities = Vec::new();
    match address {
        Some(address) => identities.push(known(store, &parse_owner(address)?)?.as_ref().clone()),
        None => store.each_identity(&mut |identity| {
            if waiting(&identity).next().is_some() {
                identities.push(identity);
            }
        })?,
    }
    let mut all: Vec<Waiting<'_>> = identities.iter().flat_map(waiting).collect();
    all.sort_by_key(|one| (one.record.provenance.at, one.identity.owner.clone()));
    if as_json {
        println!("{:#}", json!(all.iter().map(as_value).collect::<Vec<_>>()));
    } else if address.is_some() {
        all.iter().for_each(details);
        if all.is_empty() {
            println!("nothing is pending");
        }
    } else {
        print_table(
            &["OWNER", "NEW", "TRUSTED NOW", "ISSUER OF THE NEW ONE", "FIRST SEEN", "FROM MAIL", "WHY"],
            &all.iter().map(row).collect::<Vec<_>>(),
        );
    }
    Ok(if store.alerts() > 0 { ExitCode::from(NOT_GOOD) } else { ExitCode::SUCCESS })
}

fn why(record: &CertificateRecord) -> &str {
    record.note.as_ref().map_or("imported as pending", |note: &Note| note.why.as_str())
}

fn row(one: &Waiting<'_>) -> Vec<String> {
    let Waiting { identity, record, old } = one;
    vec![
        shown(&identity.owner.to_string()),
        short(&record.certificate),
        old.map_or_else(|| "none".to_owned(), |old| short(&old.certificate)),
        shown(&record.certificate.issuer_text()),
        record.provenance.at.to_string(),
        shown(&record.provenance.detail),
        shown(why(record)),
    ]
}

fn details(one: &Waiting<'_>) {
    let Waiting { identity, record, old } = one;
    println!("{}", shown(&identity.owner.to_string()));
    let line = |name: &str, text: &str| println!("  {name:<12} {}", shown(text));
    line("why", why(record));
    line("first seen", &format!("{}, {} {}", record.provenance.at, record.provenance.source, record.provenance.detail));
    if let Some(seen) = record.last_seen {
        line("last seen", &day(seen));
    }
    compared("new", &record.certificate);
    match old {
        Some(old) => compared("trusted now", &old.certificate),
        None => line("trusted now", "none"),
    }
}

fn compared(name: &str, certificate: &Certificate) {
    println!("  {name}");
    let line = |name: &str, text: &str| println!("    {name:<12} {}", shown(text));
    line("fingerprint", &hex(&certificate.fingerprint()));
    line("subject", &certificate.subject_text());
    line("issuer", &certificate.issuer_text());
    line("valid", &format!("{} to {}", certificate.not_before(), certificate.not_after()));
    line("key", &format!("{}, to {}", certificate.public_key().kind().name(), uses(certificate)));
}

fn uses(certificate: &Certificate) -> String {
    let uses = [("sign", Purpose::Signature), ("encrypt to", Purpose::Encryption)];
    let fit: Vec<&str> =
        uses.into_iter().filter(|(_, purpose)| certificate.fits(*purpose).is_ok()).map(|(name, _)| name).collect();
    if fit.is_empty() { "nothing".to_owned() } else { fit.join(" and ") }
}

/// The day of a time.
pub fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

fn as_value(one: &Waiting<'_>) -> Value {
    let Waiting { identity, record, old } = one;
    let of = |certificate: &Certificate| {
        json!({
            "fingerprint": *hex(&certificate.fingerprint()), "subject": certificate.subject_text(), "issuer": certificate.issuer_text(),
            "not_before": certificate.not_before().to_string(), "not_after": certificate.not_after().to_string(),
            "key_type": certificate.public_key().kind().name(), "uses": uses(certificate),
        })
    };
    json!({
        "owner": identity.owner.to_string(), "new": of(&record.certificate), "trusted_now": old.map(|old| of(&old.certificate)),
        "why": why(record), "source": record.provenance.source, "from_mail": record.provenance.detail,
        "first_seen": record.provenance.at.to_string(), "last_seen": record.last_seen.map(day),
    })
}

/// Approves or rejects.
fn settle(store: &EmbeddedStore, choice: &Choice, trust: TrustState) -> CommandResult {
    let identity = known(store, &parse_owner(&choice.address)?)?;
    let name = shown(&identity.owner.to_string());
    let pending: Vec<&Certificate> = waiting(&identity).map(|one| &one.record.certificate).collect();
    let chosen: Vec<&Certificate> = match &choice.fingerprint {
        Some(digits) => vec![super::super::trust::find(pending.iter().copied(), digits)?],
        None => pending,
    };
    if chosen.is_empty() {
        return Err(Failure::new(
            format!("nothing is pending for {name}"),
            "`waxwing cert pending list` shows what is",
        ));
    }
    // Which of several is right nobody can tell but who compared them: one is named, or they belong together.
    let mut uses: HashMap<bool, usize> = HashMap::new();
    for certificate in &chosen {
        *uses.entry(certificate.fits(Purpose::Encryption).is_ok()).or_default() += 1;
    }
    if trust == TrustState::Trusted && uses.values().any(|count| *count > 1) {
        return Err(Failure::new(
            format!("{} certificates are pending for {name}", chosen.len()),
            "name the one to approve with --fingerprint; `waxwing cert pending list ADDRESS` shows them",
        ));
    }
    let fingerprints: Vec<[u8; 32]> = chosen.iter().map(|one| one.fingerprint()).collect();
    approve_or_reject(store, &identity.owner, &fingerprints, trust)?;
    if choice.json {
        let names: Vec<String> = fingerprints.iter().map(|one| hex(one).to_string()).collect();
        println!("{:#}", json!({ "owner": identity.owner.to_string(), "fingerprints": names, "trust": trust.word() }));
    } else {
        chosen.iter().for_each(|one| println!("{name} {} {}", short(one), trust.word()));
    }
    let pinned = |record: &CertificateRecord| record.trust == TrustState::Pinned;
    if trust == TrustState::Trusted && identity.certificates.iter().any(pinned) {
        eprintln!("waxwing: another certificate of {name} is pinned and stays first while it is valid");
    }
    Ok(ExitCode::SUCCESS)
}

/// One change: an approved one to encrypt to is preferred from now on.
fn approve_or_reject(
    store: &EmbeddedStore,
    owner: &Owner,
    fingerprints: &[[u8; 32]],
    trust: TrustState,
) -> Result<(), Failure> {
    store.revise(owner, &mut |identity| {
        let still = identity.certificates.iter().filter(|record| record.trust == TrustState::Pending);
        let edit = still.filter(|record| fingerprints.contains(&record.certificate.fingerprint())).map(|record| Edit {
            fingerprint: record.certificate.fingerprint(),
            trust: Some(trust),
            prefer: trust == TrustState::Trusted && record.certificate.fits(Purpose::Encryption).is_ok(),
            ..Edit::default()
        });
        Revision { edit: edit.collect(), ..Revision::default() }
    })?;
    Ok(())
}

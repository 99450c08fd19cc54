//! `waxwing trust`: trust anchors and intermediate certificates.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{CommandResult, Context, Failure, NOT_GOOD, StoreArgs, print_table, read_file, shown};
use crate::address::Domain;
use crate::pki::certificate::Certificate;
use crate::pki::path::{AnchorScope, TrustSet};
use crate::store::CertStore;
use crate::store::keyring::hex;

/// Arguments of `waxwing trust`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trust the certificates of a file (PEM or DER) as anchors, or keep them as intermediates.
    #[command(
        after_help = "Example:\n  waxwing trust add ca.pem --domain example.org\n  waxwing trust add --intermediate issuing-ca.pem"
    )]
    Add {
        /// The file.
        file: PathBuf,
        /// The anchor may vouch for addresses of this domain only; may be given several times.
        #[arg(long, value_name = "DOMAIN", conflicts_with = "intermediate")]
        domain: Vec<String>,
        /// Not an anchor: helps to find the way to one.
        #[arg(long)]
        intermediate: bool,
    },
    /// List anchors and intermediates.
    #[command(after_help = "Example:\n  waxwing trust list --json")]
    List {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Remove an anchor or an intermediate.
    #[command(after_help = "Example:\n  waxwing trust remove 3b1f02c4")]
    Remove {
        /// Its SHA-256 fingerprint, or the first 8 or more digits of it.
        fingerprint: String,
    },
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    match args.command {
        Command::Add { file, domain, intermediate } => add(&args.store, context, &file, &domain, intermediate),
        Command::List { json } => {
            let store = args.store.open(context)?;
            list(&*store.trust()?, json);
            Ok(if store.alerts() == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
        }
        Command::Remove { fingerprint } => {
            let store = args.store.open(context)?;
            let trust = store.trust()?;
            let all = trust.anchors.iter().map(|anchor| &anchor.certificate).chain(&trust.intermediates);
            let found = find(all, &fingerprint)?;
            store.remove_trust(found.fingerprint())?;
            println!("removed {}", shown(&found.subject_text()));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The one certificate whose fingerprint begins so; colons and case do not matter.
pub(super) fn find<'a>(all: impl Iterator<Item = &'a Certificate>, wanted: &str) -> Result<&'a Certificate, Failure> {
    let digits = wanted.replace(':', "").to_ascii_lowercase();
    if digits.len() < 8 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Failure::new(
            format!("{wanted:?} is not a fingerprint"),
            "give 8 or more hexadecimal digits of it",
        ));
    }
    let mut found: Vec<&Certificate> =
        all.filter(|certificate| hex(&certificate.fingerprint()).starts_with(&digits)).collect();
    found.dedup_by_key(|certificate| certificate.fingerprint());
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            Err(Failure::new(format!("no certificate has the fingerprint {digits}"), "the list shows which there are"))
        }
        _ => Err(Failure::new(
            format!("several certificates have fingerprints that begin with {digits}"),
            "give more digits",
        )),
    }
}

fn add(store: &StoreArgs, context: &Context, file: &Path, domains: &[String], intermediate: bool) -> CommandResult {
    let parsed = domains.iter().map(|domain| Domain::parse(domain)).collect::<Result<Vec<_>, _>>();
    let domains = parsed.map_err(|error| Failure::new(error.to_string(), ""))?;
    let scope = match (intermediate, domains.is_empty()) {
        (true, _) => None,
        (false, true) => Some(AnchorScope::Global),
        (false, false) => Some(AnchorScope::Domains(domains)),
    };
    let certificates = Certificate::from_pem_or_der(&read_file(file)?)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display()), "give a certificate as PEM or DER"))?;
    if certificates.is_empty() {
        return Err(Failure::new(
            format!("{}: there is no certificate in it", file.display()),
            "give a certificate as PEM or DER",
        ));
    }
    if let Some(leaf) =
        certificates.iter().find(|certificate| !certificate.is_ca() && (intermediate || !certificate.is_self_issued()))
    {
        return Err(Failure::new(
            format!("{}: {} is no CA certificate", file.display(), shown(&leaf.subject_text())),
            "import certificates of mailboxes with `waxwing cert import`",
        ));
    }
    store.open_or_create(context)?.add_trust_all(&certificates, scope.as_ref())?;
    for certificate in &certificates {
        println!(
            "{} {} ({})",
            role(scope.as_ref()),
            shown(&certificate.subject_text()),
            &*hex(&certificate.fingerprint())
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn role(scope: Option<&AnchorScope>) -> String {
    match scope {
        None => "intermediate".to_owned(),
        Some(AnchorScope::Global) => "anchor".to_owned(),
        Some(AnchorScope::Domains(domains)) => {
            let names: Vec<&str> = domains.iter().map(Domain::as_str).collect();
            format!("anchor for {}", names.join(", "))
        }
    }
}

fn list(trust: &TrustSet, as_json: bool) {
    let anchors = trust.anchors.iter().map(|anchor| (&anchor.certificate, Some(&anchor.scope)));
    let all = anchors.chain(trust.intermediates.iter().map(|certificate| (certificate, None)));
    if as_json {
        let rows: Vec<_> = all
            .map(|(certificate, scope)| {
                let domains = match scope {
                    Some(AnchorScope::Domains(domains)) => {
                        json!(domains.iter().map(Domain::as_str).collect::<Vec<_>>())
                    }
                    _ => json!(null),
                };
                json!({
                    "fingerprint": *hex(&certificate.fingerprint()), "subject": certificate.subject_text(),
                    "kind": if scope.is_some() { "anchor" } else { "intermediate" }, "domains": domains,
                    "not_after": certificate.not_after().to_string(),
                })
            })
            .collect();
        println!("{:#}", json!(rows));
        return;
    }
    let rows: Vec<_> = all
        .map(|(certificate, scope)| {
            let fingerprint: String = hex(&certificate.fingerprint()).chars().take(16).collect();
            vec![fingerprint, role(scope), certificate.not_after().to_string(), shown(&certificate.subject_text())]
        })
        .collect();
    print_table(&["FINGERPRINT", "KIND", "NOT AFTER", "SUBJECT"], &rows);
}

//! `waxwing smimea`: records that tell others which certificates our users have.

use std::process::ExitCode;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::{CommandResult, Context, Failure, StoreArgs, shown};
use crate::address::Mailbox;
use crate::discovery::smimea::{Association, Matching, Selector, Usage, name_of};
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::path::{PathLimits, validate};
use crate::policy::TrustState;
use crate::store::{CertStore, Owner};

/// Arguments of `waxwing smimea`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the SMIMEA records (RFC 8162) of a mailbox of ours, as lines of a zone file: one for each certificate that mail may be encrypted
    /// to now. They count where the zone is signed (DNSSEC).
    ///
    /// Exit status: 0 there is a record, 1 there is none, 2 could not be read.
    #[command(
        after_help = "Examples:\n  waxwing smimea publish anna@example.org\n  waxwing smimea publish anna@example.org --usage 3 --selector 1 --matching 1 --json"
    )]
    Publish(PublishArgs),
}

/// Arguments of `smimea publish`.
#[derive(Debug, clap::Args)]
struct PublishArgs {
    /// The mailbox, or an alias of it.
    address: String,
    /// 3: the certificate itself, and nothing else is needed; 1: the same, beside a path to a trust anchor; 2 and 0: the CA that issued it,
    /// likewise.
    #[arg(long, value_name = "0-3", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=3))]
    usage: u8,
    /// 0: the whole certificate; 1: its public key.
    #[arg(long, value_name = "0-1", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    selector: u8,
    /// 0: all of it, so that others can encrypt to it; 1: its SHA-256; 2: its SHA-512.
    #[arg(long, value_name = "0-2", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    matching: u8,
    /// How long others may keep the record, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    ttl: u32,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    let Command::Publish(publish) = args.command;
    let store = args.store.open(context)?;
    let mailbox = Mailbox::parse(&publish.address).map_err(|error| Failure::new(error.to_string(), ""))?;
    let identity = store.identity(&mailbox)?;
    let wrong = || Failure::new("usage, selector or matching type is not known", "see --help");
    let usage = Usage::from_code(publish.usage).ok_or_else(wrong)?;
    let selector = Selector::from_code(publish.selector).ok_or_else(wrong)?;
    let matching = Matching::from_code(publish.matching).ok_or_else(wrong)?;
    let (now, trust) = (Timestamp::now(), store.trust()?);
    let (mut records, mut left_out) = (Vec::new(), Vec::new());
    // The newest first.
    for record in identity.certificates.iter().rev().filter(|record| record.key.is_some()) {
        let certificate = &record.certificate;
        let usable = matches!(record.trust, TrustState::Trusted | TrustState::Pinned) && !identity.disabled;
        let in_time = (certificate.not_before()..=certificate.not_after()).contains(&now);
        let named = certificate.is_for(&mailbox.key());
        let path = || {
            validate(certificate, &[], &trust, Purpose::Encryption, Some(mailbox.domain()), now, &PathLimits::default())
        };
        let why = match (usable, in_time, certificate.fits(Purpose::Encryption), named) {
            (false, ..) => Err("it is not to be used, or its owner is disabled".to_owned()),
            (_, false, ..) => Err("it is not valid now".to_owned()),
            (.., Err(why), _) => Err(why.to_string()),
            (.., false) => Err("its subjectAltName does not hold the address".to_owned()),
            _ if usage.is_end_entity() => Ok(certificate.clone()),
            _ => issuer(path().map(|path| path.chain().to_vec()).map_err(|error| error.to_string())),
        };
        match why {
            Ok(about) => {
                let association = Association::of(&about, usage, selector, matching);
                if !records.contains(&association) {
                    records.push(association);
                }
            }
            Err(why) => left_out.push((certificate.subject_text(), why)),
        }
    }
    let name = name_of(&mailbox.key());
    if publish.json {
        let list = records.iter().map(|one| {
            let (usage, selector, matching) = one.codes();
            let data: String = one.data.iter().map(|octet| format!("{octet:02x}")).collect();
            json!({"usage": usage, "selector": selector, "matching": matching, "data": data})
        });
        let left = left_out.iter().map(|(subject, why)| json!({"subject": subject, "why": why}));
        println!(
            "{:#}",
            json!({"address": mailbox.to_string(), "name": format!("{name}."), "ttl": publish.ttl,
                "records": list.collect::<Vec<_>>(), "left_out": left.collect::<Vec<_>>()})
        );
    } else {
        records.iter().for_each(|one| println!("{}", line(&name, publish.ttl, one)));
    }
    for (subject, why) in &left_out {
        eprintln!("waxwing: left out: {}: {}", shown(subject), shown(why));
    }
    if records.is_empty() {
        let who = match &identity.owner {
            Owner::Mailbox(owner) => owner.to_string(),
            Owner::Domain(domain) => domain.to_string(),
        };
        eprintln!(
            "waxwing: no certificate of {} to publish; `waxwing cert list {}` shows what there is",
            shown(&publish.address),
            shown(&who)
        );
        return Ok(ExitCode::from(super::NOT_GOOD));
    }
    Ok(ExitCode::SUCCESS)
}

/// The CA that issued the first of a path.
fn issuer(path: Result<Vec<Certificate>, String>) -> Result<Certificate, String> {
    path?.into_iter().nth(1).ok_or_else(|| "no CA issued it".to_owned())
}

/// A record in a zone file: its data in lines of 64 digits.
fn line(name: &str, ttl: u32, association: &Association) -> String {
    let (usage, selector, matching) = association.codes();
    let data: String = association
        .data
        .chunks(32)
        .map(|octets| octets.iter().fold("\n    ".to_owned(), |line, octet| line + &format!("{octet:02x}")))
        .collect();
    format!("{name}. {ttl} IN SMIMEA {usage} {selector} {matching} ({data}\n    )")
}

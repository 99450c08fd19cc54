//! `waxwing cert expiring`.

use std::process::ExitCode;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::{CommandResult, NOT_GOOD, print_table, shown};
use super::short;
use crate::pki::certificate::Purpose;
use crate::store::CertStore;
use crate::store::embedded::EmbeddedStore;
use crate::store::expiry::{Expiring, expiring};
use crate::store::keyring::hex;

const DAY: i64 = 86_400;

/// Arguments of `waxwing cert expiring`.
#[derive(Debug, clap::Args)]
pub(super) struct ExpiringArgs {
    /// How far ahead: days (30d) or weeks (4w).
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = ahead)]
    within: SignedDuration,
    /// Those of others too: mail to them can then no longer be encrypted.
    #[arg(long)]
    partners: bool,
    /// Those that have run out already too.
    #[arg(long)]
    expired: bool,
    /// As it will be at this time (RFC 3339); default: now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

fn ahead(text: &str) -> Result<SignedDuration, String> {
    let (number, days) = match (text.strip_suffix('d'), text.strip_suffix('w')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 7),
        (None, None) => return Err("expected days or weeks, as 30d or 4w".to_owned()),
    };
    let number = number.parse::<i64>().ok().filter(|number| (0..=36_500).contains(number));
    number
        .map(|number| SignedDuration::from_hours(24 * days * number))
        .ok_or_else(|| "expected 0d to 36500d".to_owned())
}

fn word(purpose: &Purpose) -> &'static str {
    match purpose {
        Purpose::Signature => "signing",
        _ => "encryption",
    }
}

/// Runs the command.
pub(super) fn run(args: &ExpiringArgs, store: &EmbeddedStore) -> CommandResult {
    let now = args.at.unwrap_or_else(Timestamp::now);
    let mut found: Vec<Expiring> = Vec::new();
    store.each_identity(&mut |identity| {
        let wanted = |one: &Expiring| (one.ours || args.partners) && (!one.expired || args.expired);
        found.extend(expiring(&identity, now, args.within).into_iter().filter(wanted));
    })?;
    found.sort_by_key(|one| one.certificate.not_after());
    let days =
        |one: &Expiring| (one.certificate.not_after().as_second().saturating_sub(now.as_second())).div_euclid(DAY);
    let uses = |one: &Expiring| one.purposes.iter().map(word).collect::<Vec<_>>();
    if args.json {
        let one = |one: &Expiring| {
            json!({
                "owner": one.owner.to_string(), "days_left": days(one), "not_after": one.certificate.not_after().to_string(),
                "expired": one.expired, "fingerprint": *hex(&one.certificate.fingerprint()), "for": uses(one), "ours": one.ours,
            })
        };
        println!("{:#}", json!({"at": now.to_string(), "expiring": found.iter().map(one).collect::<Vec<_>>()}));
    } else {
        let row = |one: &Expiring| {
            vec![
                shown(&one.owner.to_string()),
                days(one).to_string(),
                one.certificate.not_after().to_string(),
                short(&one.certificate),
                uses(one).join(", "),
                if one.ours { "ours" } else { "partner" }.to_owned(),
            ]
        };
        print_table(
            &["OWNER", "DAYS", "NOT AFTER", "FINGERPRINT", "LAST FOR", "WHOSE"],
            &found.iter().map(row).collect::<Vec<_>>(),
        );
    }
    Ok(if found.is_empty() && store.alerts() == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

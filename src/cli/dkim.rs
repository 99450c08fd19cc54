//! `waxwing dkim`: keys with which our domains vouch for mail, and the records that tell others of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::{CommandResult, Context, Failure, NOT_GOOD, read_config};
use crate::address::Domain;
use crate::authentication::key::{Key, NewKey};
use crate::config::selector;

/// Arguments of `waxwing dkim`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// RSA of 2048 bits: every verifier knows it.
    Rsa2048,
    /// RSA of 4096 bits.
    Rsa4096,
    /// Ed25519: short, and not known to every verifier; use it beside an RSA key.
    Ed25519,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key in a file that only its owner may read, and print its record for the DNS and its lines for the configuration.
    ///
    /// Publish the record first, put the lines into the configuration when the DNS tells it.
    #[command(
        after_help = "Examples:\n  waxwing dkim generate /etc/waxwing/dkim.pem --domain example.org --selector s2026\n  waxwing dkim generate ed.pem --domain example.org --selector e2026 --kind ed25519 --json"
    )]
    Generate {
        /// The file to make; an existing one is left as it is.
        file: PathBuf,
        /// The domain that vouches.
        #[arg(long, value_name = "DOMAIN")]
        domain: String,
        /// The key's name: another one for each key.
        #[arg(long, value_name = "NAME")]
        selector: String,
        /// What key.
        #[arg(long, value_enum, default_value = "rsa2048")]
        kind: Kind,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Print the records of the configuration's keys ([[dkim]]), as lines of a zone file.
    ///
    /// Exit status: 0 all of them, 1 there is none, or one cannot be read, 2 the configuration cannot be read.
    #[command(after_help = "Example:\n  waxwing dkim show --json")]
    Show {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    match args.command {
        Command::Generate { file, domain, selector, kind, json } => generate(&file, &domain, &selector, kind, json),
        Command::Show { json } => show(context, json),
    }
}

fn generate(file: &Path, domain: &str, name: &str, kind: Kind, json: bool) -> CommandResult {
    let domain = Domain::parse(domain).map_err(|error| Failure::new(error.to_string(), ""))?;
    let name = selector(name).map_err(|expected| Failure::new(format!("--selector {name:?}: {expected}"), ""))?;
    let kind = match kind {
        Kind::Rsa2048 => NewKey::Rsa2048,
        Kind::Rsa4096 => NewKey::Rsa4096,
        Kind::Ed25519 => NewKey::Ed25519,
    };
    let key = Key::generate(kind).map_err(|why| Failure::new(why, ""))?;
    key.write_new(file)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display()), "nothing was overwritten"))?;
    if json {
        println!("{:#}", told(&domain, &name, file, &key));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", key.zone_line(domain.as_str(), &name));
    println!("\n[[dkim]]\ndomain = \"{domain}\"\nselector = \"{name}\"\nkey = {:?}", file.display().to_string());
    Ok(ExitCode::SUCCESS)
}

fn show(context: &Context, json: bool) -> CommandResult {
    let config = read_config(&context.config)?;
    let mut all = Vec::new();
    let mut good = !config.dkim.is_empty();
    if config.dkim.is_empty() {
        eprintln!("waxwing: no [[dkim]] in {}; `waxwing dkim generate` makes a key", context.config.display());
    }
    for one in &config.dkim {
        match Key::read(&one.key) {
            Ok(key) if json => all.push(told(&one.domain, &one.selector, &one.key, &key)),
            Ok(key) => println!("{}", key.zone_line(one.domain.as_str(), &one.selector)),
            Err(why) => {
                good = false;
                eprintln!("waxwing: {}: {why}", one.key.display());
            }
        }
    }
    if json {
        println!("{:#}", json!(all));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

fn told(domain: &Domain, selector: &str, file: &Path, key: &Key) -> serde_json::Value {
    json!({
        "domain": domain.as_str(), "selector": selector, "key": file.display().to_string(), "algorithm": key.algorithm(),
        "name": format!("{selector}._domainkey.{domain}."), "record": key.record(),
    })
}

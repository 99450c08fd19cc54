//! `waxwing alias`: further addresses of a mailbox.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{CommandResult, Context, Failure, StoreArgs, print_table, shown};
use crate::address::MailboxKey;
use crate::store::CertStore;

/// Arguments of `waxwing alias`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an address one of a mailbox: mail for it uses the mailbox's certificates and keys.
    #[command(after_help = "Example:\n  waxwing alias add info@example.org anna@example.org")]
    Add {
        /// The further address.
        alias: String,
        /// The mailbox; not an alias itself.
        mailbox: String,
    },
    /// List every alias.
    #[command(after_help = "Example:\n  waxwing alias list --json")]
    List {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Remove an alias.
    #[command(after_help = "Example:\n  waxwing alias remove info@example.org")]
    Remove {
        /// The further address.
        alias: String,
    },
}

fn address(text: &str) -> Result<MailboxKey, Failure> {
    MailboxKey::parse(text).map_err(|error| Failure::new(error.to_string(), ""))
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    match args.command {
        Command::Add { alias, mailbox } => {
            let (alias, mailbox) = (address(&alias)?, address(&mailbox)?);
            args.store.open_or_create(context)?.add_alias(&alias, &mailbox)?;
            println!("{} is an address of {}", shown(alias.as_str()), shown(mailbox.as_str()));
        }
        Command::Remove { alias } => {
            let alias = address(&alias)?;
            args.store.open(context)?.remove_alias(&alias)?;
            println!("{} is no alias any more", shown(alias.as_str()));
        }
        Command::List { json } => {
            let aliases = args.store.open(context)?.aliases()?;
            if json {
                let rows: Vec<_> = aliases
                    .iter()
                    .map(|(alias, mailbox)| json!({"alias": alias.as_str(), "mailbox": mailbox.as_str()}))
                    .collect();
                println!("{:#}", json!(rows));
            } else {
                let rows: Vec<_> = aliases
                    .iter()
                    .map(|(alias, mailbox)| vec![shown(alias.as_str()), shown(mailbox.as_str())])
                    .collect();
                print_table(&["ALIAS", "MAILBOX"], &rows);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

//! `waxwing store`: the store as a whole.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{CommandResult, Context, NOT_GOOD, StoreArgs, shown};

/// Arguments of `waxwing store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every record: whether one is missing, forged, swapped or named by nothing.
    ///
    /// Exit status: 0 all good, 1 not, 2 the store cannot be read.
    #[command(after_help = "Example:\n  waxwing store verify --json")]
    Verify {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    match args.command {
        Command::Verify { json } => verify(&args.store, context, json),
    }
}

fn verify(store: &StoreArgs, context: &Context, json: bool) -> CommandResult {
    let bad = store.open(context)?.verify()?;
    if json {
        println!("{}", json!({"bad": bad}));
    } else if bad.is_empty() {
        println!("every record is authentic");
    } else {
        bad.iter().for_each(|path| println!("missing, not authentic, or named by nothing: {}", shown(path)));
    }
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

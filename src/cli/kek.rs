//! `waxwing kek`: the key-encryption key, which wraps the store's keys.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::{CommandResult, Context, Failure};
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::Kek;

/// Arguments of `waxwing kek`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new key-encryption key in a file that only its owner may read.
    ///
    /// Keep a copy apart from the store: without it no private key in the store can be read again.
    #[command(after_help = "Example:\n  waxwing kek init /etc/waxwing/kek --store /var/lib/waxwing/store")]
    Init {
        /// The file to make; an existing one is left as it is.
        file: PathBuf,
        /// Make a store in this folder too.
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
}

/// Runs the command.
pub fn run(args: Args, _context: &Context) -> CommandResult {
    let Command::Init { file, store } = args.command;
    if let Some(folder) = &store
        && EmbeddedStore::exists(folder)
    {
        return Err(Failure::new(
            format!("there is a store in {}, which a new key-encryption key cannot open", folder.display()),
            "name another folder",
        ));
    }
    Kek::create(&file)?;
    println!("made the key-encryption key {} (mode 0600); keep a copy apart from the store", file.display());
    store.map_or(Ok(ExitCode::SUCCESS), |folder| make_store(&folder, &file))
}

fn make_store(folder: &Path, kek: &Path) -> CommandResult {
    EmbeddedStore::create(folder, kek)?;
    println!("made a store in {}", folder.display());
    Ok(ExitCode::SUCCESS)
}

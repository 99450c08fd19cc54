//! `waxwing generate`: manual pages and completions, for packages.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use clap_complete::Shell;

use super::{CommandResult, Failure};

/// Arguments of `waxwing generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a manual page for each command into a folder.
    #[command(after_help = "Example:\n  waxwing generate man target/man")]
    Man {
        /// The folder; it is made where it is not there.
        folder: PathBuf,
    },
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  waxwing generate completions bash > /etc/bash_completion.d/waxwing")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Runs the command, for the whole command line.
pub fn run(args: Args, whole: &mut clap::Command) -> CommandResult {
    match args.command {
        Command::Man { folder } => man(&folder, whole),
        Command::Completions { shell } => {
            let mut octets = Vec::new();
            clap_complete::generate(shell, whole, "waxwing", &mut octets);
            print!("{}", String::from_utf8_lossy(&octets));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn man(folder: &Path, whole: &clap::Command) -> CommandResult {
    let failed =
        |error: io::Error| Failure::new(format!("{}: {error}", folder.display()), "name a folder that may be written");
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(whole.clone(), folder).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

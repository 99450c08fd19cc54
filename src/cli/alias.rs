//! `waxwing alias`.

use super::{CommandResult, Context, Failure};

/// Arguments of `waxwing alias`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args, _context: &Context) -> CommandResult {
    Err(Failure::new("`waxwing alias` is not built in this version", ""))
}

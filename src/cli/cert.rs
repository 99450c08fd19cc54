//! `waxwing cert`.

use super::{CommandResult, Context, Failure};

/// Arguments of `waxwing cert`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args, _context: &Context) -> CommandResult {
    Err(Failure::new("`waxwing cert` is not built in this version", ""))
}

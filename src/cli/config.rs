//! `waxwing config`.

use super::{CommandResult, Context, Failure};

/// Arguments of `waxwing config`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args, _context: &Context) -> CommandResult {
    Err(Failure::new("`waxwing config` is not built in this version", ""))
}

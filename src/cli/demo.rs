//! `waxwing demo`.

use super::{CommandResult, Context, Failure};

/// Arguments of `waxwing demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args, _context: &Context) -> CommandResult {
    Err(Failure::new("`waxwing demo` is not built in this version", ""))
}

//! Standard output and standard error, whose readers may go away: `waxwing cert list | head -1`.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// The first failure that was not a reader's going away.
static FAILED: Mutex<Option<String>> = Mutex::new(None);

/// Text for standard output.
pub fn out(text: Arguments<'_>) {
    keep(io::stdout().lock().write_fmt(text));
}

/// Text for standard error. Where that is closed there is nobody to tell.
pub fn err(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Octets for standard output.
pub fn octets(octets: &[u8]) {
    keep(io::stdout().lock().write_all(octets));
}

/// Writes what is buffered; gives the first failure of all, if any. A reader that went away is none: it has what it wanted.
pub fn finish() -> Option<String> {
    keep(io::stdout().lock().flush());
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn keep(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
    }
}

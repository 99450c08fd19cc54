//! Sends by the pace of a scenario.

use std::time::Instant;

use super::ledger::Answered;
use super::mails::Mail;

/// Where the mails of a run come from.
pub trait Source: Send + Sync + 'static {
    /// The mail of this number, from 0; asked by many threads, each number once.
    fn mail(&self, number: u64) -> Mail;
}

/// Who hears what becomes of them; asked by many threads.
pub trait Witness: Send + Sync + 'static {
    /// Before the first octet of a mail is sent: it can arrive from now on.
    fn begun(&self, mail: &Mail);
    /// A mail was answered, or given up.
    fn ended(&self, mail: &Mail, sending: &Sending);
    /// Mails that fell due at this time were not begun by the end of the run: their latency is at least the time since.
    fn overdue(&self, due: Instant, end: Instant);
}

/// How one mail went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// When it was to be sent; in a closed loop when its connection was free.
    pub due: Instant,
    /// When its sending began, a connection being there.
    pub began: Instant,
    /// When the last answer came, or it was given up.
    pub ended: Instant,
    /// How long its connection took to be ready, where it was made for it.
    pub connect: Option<std::time::Duration>,
    /// For each recipient of the envelope in turn.
    pub answers: Vec<Answered>,
}

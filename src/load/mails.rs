//! The mails of a run and what is expected of each.

use std::fmt;

use bytes::Bytes;

use super::scenario::Kind;
use crate::smtp::command::Envelope;

/// A mail's name in a run: in its Message-ID, in `X-Load-Id`, and in its body so that it is found after sealing and opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailId {
    /// Of the run: mails of another run are strangers.
    pub run: u64,
    /// In the run.
    pub number: u64,
}

impl fmt::Display for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.run, self.number)
    }
}

/// A digest of what has to arrive unchanged (the body's decoded parts; sealed or not).
pub type Fingerprint = [u8; 32];

/// A mail ready to be sent.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its name.
    pub id: MailId,
    /// Its kind.
    pub kind: Kind,
    /// Who, to whom.
    pub envelope: Envelope,
    /// The octets, CRLF, not dot-stuffed.
    pub content: Bytes,
    /// What has to arrive.
    pub fingerprint: Fingerprint,
}

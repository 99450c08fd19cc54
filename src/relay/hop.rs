//! Connections to next hops, kept and pipelined.

use std::sync::Arc;
use std::time::Duration;

use crate::config::NextHop;
use crate::mime::rope::Rope;
use crate::smtp::command::{Envelope, MailParameters, Recipient, Reply};
use crate::address::{Domain, ReversePath};

/// Where a transaction with a next hop stands after a failure: decides between "refuse" and "spool" (R5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// No connection, no TLS, or lost before the final dot was written: the mail was surely not taken.
    #[error("next hop {hop}: {why}")]
    NotTaken { hop: String, why: String },
    /// Lost or silent after the final dot: unknown.
    #[error("next hop {hop} did not answer after the final dot: {why}")]
    Unknown { hop: String, why: String },
}

/// Connections to next hops. Cheap to clone.
#[derive(Clone)]
pub struct Hops {
    _rest: Arc<()>,
}

/// A transaction with a next hop that is being built up RCPT by RCPT (cut-through).
pub struct HopTransaction {
    _rest: (),
}

impl Hops {
    /// `hostname` is our EHLO name; `timeout` bounds each wait.
    pub fn new(_hostname: Domain, _timeout: Duration) -> Self {
        todo!()
    }
    /// Takes an idle connection or makes one; MAIL is sent together with the first RCPT.
    pub async fn begin(&self, _hop: &NextHop, _reverse_path: ReversePath, _parameters: MailParameters) -> Result<HopTransaction, HopError> {
        todo!()
    }
    /// A whole transaction in one go, pipelined: a reply per recipient (refused at RCPT, or the final one).
    pub async fn deliver(&self, _hop: &NextHop, _envelope: &Envelope, _content: &Rope) -> Result<Vec<Reply>, HopError> {
        todo!()
    }
}

impl HopTransaction {
    /// The next hop's answer to RCPT (or to MAIL, when it refuses that).
    pub async fn rcpt(&mut self, _recipient: &Recipient) -> Result<Reply, HopError> {
        todo!()
    }
    /// The content and the final dot: a reply per recipient accepted before (SMTP: the same for all). The connection goes
    /// back to the pool. Dropping the transaction instead resets or closes it.
    pub async fn data(self, _content: &Rope) -> Result<Vec<Reply>, HopError> {
        todo!()
    }
    /// Whether the next hop takes 8-bit content, and SMTPUTF8.
    pub fn offers(&self) -> Offers {
        todo!()
    }
}

/// What a next hop said in EHLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offers {
    pub eight_bit_mime: bool,
    pub smtputf8: bool,
    pub dsn: bool,
    pub size: Option<u64>,
}

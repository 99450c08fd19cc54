//! Listeners: sockets, TLS, one session each; the `Relay` is asked at each step.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::ReversePath;
use crate::config::Listener;
use crate::smtp::command::{MailParameters, Recipient, Reply};

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// The name given in EHLO, HELO or LHLO.
    pub helo: String,
    /// ESMTP rather than SMTP.
    pub extended: bool,
    pub tls: bool,
    pub listener: Arc<Listener>,
    /// In `trusted_networks` of its listener.
    pub trusted: bool,
    /// The authenticated user, once there is AUTH.
    pub user: Option<String>,
}

/// A message's fate at the final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One reply for all (SMTP).
    All(Reply),
    /// One per accepted recipient, in order (LMTP, R4).
    Each(Vec<Reply>),
}

/// What the listener asks at each step of a transaction. Dropping the transaction is RSET or a lost connection.
pub trait Relay: Send + Sync + 'static {
    type Transaction: Send;
    /// MAIL: `Err` is the refusal.
    fn mail(
        &self,
        peer: &Arc<Peer>,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> impl Future<Output = Result<Self::Transaction, Reply>> + Send;
    /// RCPT: the reply; 2xx counts the recipient in.
    fn rcpt(&self, transaction: &mut Self::Transaction, recipient: Recipient) -> impl Future<Output = Reply> + Send;
    /// Called with the total so far as content arrives, so that the budget can grow; `Err` refuses the message.
    fn growing(&self, transaction: &mut Self::Transaction, octets: u64) -> Result<(), Reply>;
    /// The final dot: the whole content, dots undone, as received, without a Received field of ours yet.
    fn message(&self, transaction: Self::Transaction, content: Bytes) -> impl Future<Output = Answer> + Send;
}

//! A mail server that keeps what it gets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::address::{Domain, Mailbox, ReversePath};
use crate::config::{Direction, Limits, Listener};
use crate::relay::listen::{self, Answer, Handle, ListenError, Peer, Relay};
use crate::smtp::command::{Enhanced, MailParameters, Recipient, Reply};

/// How long a mail may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// A sink on a free loopback port.
pub struct Sink {
    handle: Handle,
    mails: mpsc::UnboundedReceiver<Arrived>,
}

/// A mail that arrived.
pub struct Arrived {
    pub to: Vec<Mailbox>,
    pub message: Bytes,
}

struct Keep {
    mails: mpsc::UnboundedSender<Arrived>,
}

impl Sink {
    pub async fn start(name: &str, hostname: Domain, postmaster: Mailbox) -> Result<Self, ListenError> {
        let listener = Listener::new(name, SocketAddr::from(([127, 0, 0, 1], 0)), Direction::Inbound);
        let (sender, mails) = mpsc::unbounded_channel();
        let bound = listen::bind(Arc::new(listener), hostname, postmaster, &Limits::default()).await?;
        Ok(Self { handle: bound.serve(Arc::new(Keep { mails: sender })), mails })
    }

    pub fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    /// The next mail.
    pub async fn next(&mut self) -> Result<Arrived, String> {
        match tokio::time::timeout(PATIENCE, self.mails.recv()).await {
            Ok(Some(mail)) => Ok(mail),
            _ => Err("no mail arrived within a minute".into()),
        }
    }

    /// The next mail, however long it takes.
    pub async fn wait(&mut self) -> Option<Arrived> {
        self.mails.recv().await
    }
}

impl Relay for Keep {
    type Transaction = Vec<Mailbox>;

    async fn mail(
        &self,
        _peer: &Arc<Peer>,
        _from: ReversePath,
        _parameters: MailParameters,
    ) -> Result<Vec<Mailbox>, Reply> {
        Ok(Vec::new())
    }

    async fn rcpt(&self, to: &mut Vec<Mailbox>, recipient: Recipient) -> Reply {
        to.push(recipient.mailbox);
        Reply::new(250, Enhanced(2, 1, 5), "ok")
    }

    fn growing(&self, _to: &mut Vec<Mailbox>, _octets: u64) -> Result<(), Reply> {
        Ok(())
    }

    async fn message(&self, to: Vec<Mailbox>, message: Bytes) -> Answer {
        // Nobody listens any more only when the demo is over.
        let _ = self.mails.send(Arrived { to, message });
        Answer::All(Reply::new(250, Enhanced(2, 0, 0), "taken"))
    }
}

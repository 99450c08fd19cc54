//! Our side of the stream to a session of the gateway: lines out, replies in. Any runtime may poll it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use samotop_core::common::poll_fn;
use samotop_core::smtp::SmtpPath;
use samotop_core::smtp::command::SmtpMail;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::lines;
use crate::smtp::client::ReplyReader;
use crate::smtp::command::{Enhanced, Reply};
use crate::smtp::session::passable;

/// A transaction with the gateway. Dropping it is a lost connection: nothing of it is taken.
pub(super) struct Talk {
    stream: DuplexStream,
    input: BytesMut,
    reader: ReplyReader,
    /// What samotop says that it began with.
    mail: SmtpMail,
    /// Who was accepted, in order.
    recipients: Vec<SmtpPath>,
}

/// What is said where no session answers any more.
pub(super) fn gone() -> Reply {
    Reply::new(451, Enhanced(4, 3, 0), "internal error; try again later")
}

impl Talk {
    /// Greeted, introduced as `hello` says, and begun with MAIL.
    ///
    /// # Errors
    /// The reply that refuses.
    pub(super) async fn begin(stream: DuplexStream, hello: &str, mail: SmtpMail) -> Result<Self, Reply> {
        let line = lines::mail(&mail)?;
        let (input, reader) = (BytesMut::new(), ReplyReader::default());
        let mut talk = Self { stream, input, reader, mail, recipients: Vec::new() };
        good(poll_fn(|context| talk.poll_hear(context)).await)?;
        good(talk.say(hello).await)?;
        good(talk.say(&line).await)?;
        Ok(talk)
    }

    /// RCPT.
    ///
    /// # Errors
    /// The reply that refuses.
    pub(super) async fn rcpt(&mut self, path: &SmtpPath) -> Result<Reply, Reply> {
        let reply = good(self.say(&lines::rcpt(path)?).await)?;
        self.recipients.push(path.clone());
        Ok(reply)
    }

    /// DATA; content may follow.
    ///
    /// # Errors
    /// The reply that refuses.
    pub(super) async fn data(&mut self) -> Result<(), Reply> {
        match self.say("DATA").await {
            Reply { code: 354, .. } => Ok(()),
            reply if reply.is_positive() => Err(gone()),
            reply => Err(passable(&reply)),
        }
    }

    /// Whether it has this envelope, all of it and nothing else.
    pub(super) fn is_for<'p>(&self, mail: &SmtpMail, recipients: impl Iterator<Item = &'p SmtpPath>) -> bool {
        self.mail == *mail && self.recipients.iter().eq(recipients)
    }

    /// How many were accepted.
    pub(super) fn recipients(&self) -> usize {
        self.recipients.len()
    }

    async fn say(&mut self, line: &str) -> Reply {
        let mut octets = Bytes::from(format!("{line}\r\n"));
        match poll_fn(|context| self.poll_write(context, &mut octets)).await {
            // Where it is closed, the reply that says why may be there to read.
            Ok(()) | Err(Closed) => poll_fn(|context| self.poll_hear(context)).await,
        }
    }

    /// Writes all of it.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, octets: &mut Bytes) -> Poll<Result<(), Closed>> {
        while !octets.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, octets)) {
                Ok(written) if written > 0 => octets.advance(written),
                _ => return Poll::Ready(Err(Closed)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The next reply, as it is; [`gone`] where none comes.
    pub(super) fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Reply> {
        loop {
            match self.reader.read(&mut self.input) {
                Ok(Some(reply)) => return Poll::Ready(reply),
                Ok(None) => {}
                Err(_) => return Poll::Ready(gone()),
            }
            let mut room = [0; 512];
            let mut read = ReadBuf::new(&mut room);
            let done = ready!(Pin::new(&mut self.stream).poll_read(context, &mut read));
            if done.is_err() || read.filled().is_empty() {
                return Poll::Ready(gone());
            }
            self.input.extend_from_slice(read.filled());
        }
    }
}

/// The session has ended.
pub(super) struct Closed;

/// A refusal is one that samotop's session, which goes on, may say.
fn good(reply: Reply) -> Result<Reply, Reply> {
    if reply.is_positive() { Ok(reply) } else { Err(passable(&reply)) }
}

//! Where samotop writes a mail.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use samotop_core::common::io::Write;

use super::client::Client;
use super::talk::Talk;
use crate::smtp::client::DotStuffer;
use crate::smtp::command::Reply;
use crate::smtp::session::passable;

/// Octets that are taken at a time.
const CHUNK: usize = 16 * 1024;

/// Content of a mail, on its way to a session of the gateway. Closing it is the final dot, and succeeds once the mail is taken.
pub(super) struct Sink {
    talk: Talk,
    /// `None`: the final dot is on its way.
    stuffer: Option<DotStuffer>,
    pending: Bytes,
    /// The session hears no more: it has refused the mail already.
    closed: bool,
    answer: Option<Reply>,
    /// Who is told the answer as it is.
    client: Option<Arc<Client>>,
}

impl Sink {
    /// After DATA was answered; `fields` go before the content.
    pub(super) fn new(talk: Talk, fields: &str, client: Option<Arc<Client>>) -> Self {
        let mut stuffer = DotStuffer::new();
        let end = if fields.is_empty() || fields.ends_with("\r\n") { "" } else { "\r\n" };
        let pending = stuffer.stuff(Bytes::from(format!("{fields}{end}")));
        Self { talk, stuffer: Some(stuffer), pending, closed: false, answer: None, client }
    }

    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.closed && ready!(self.talk.poll_write(context, &mut self.pending)).is_err() {
            self.closed = true;
        }
        Poll::Ready(())
    }
}

impl Write for Sink {
    /// Never fails before the end: samotop would read the rest of the mail as commands.
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_pending(context));
        let Some(stuffer) = &mut this.stuffer else {
            return Poll::Ready(Err(io::Error::other("the mail has ended")));
        };
        if this.closed {
            return Poll::Ready(Ok(octets.len()));
        }
        let chunk = octets.get(..CHUNK).unwrap_or(octets);
        this.pending = stuffer.stuff(Bytes::copy_from_slice(chunk));
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_pending(context).map(Ok)
    }

    /// The error is never `NotConnected`, which samotop takes for success.
    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let answer = match &this.answer {
            Some(answer) => answer,
            None => {
                ready!(this.poll_pending(context));
                if let Some(stuffer) = this.stuffer.take() {
                    this.pending = stuffer.end();
                }
                ready!(this.poll_pending(context));
                let answer = passable(&ready!(this.talk.poll_hear(context)));
                if let Some(client) = &this.client {
                    client.answer_mail(answer.clone(), this.talk.recipients());
                }
                this.answer.insert(answer)
            }
        };
        let taken = if answer.is_positive() { Ok(()) } else { Err(io::Error::other(answer.to_string())) };
        Poll::Ready(taken)
    }
}

#[cfg(test)]
mod tests {
    use samotop_core::common::poll_fn;
    use samotop_core::smtp::SmtpPath;
    use samotop_core::smtp::command::SmtpMail;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A sink whose session is at the other end, and is past DATA.
    async fn begun() -> (Sink, DuplexStream) {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b"220 gw\r\n250 gw\r\n250 ok\r\n").await.unwrap();
        let talk = Talk::begin(ours, "EHLO c", SmtpMail::Mail(SmtpPath::Null, Vec::new())).await.unwrap();
        (Sink::new(talk, "", None), theirs)
    }

    async fn write(sink: &mut Sink, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            let written = poll_fn(|context| Pin::new(&mut *sink).poll_write(context, octets)).await?;
            assert!(written > 0, "samotop would try for ever");
            octets = &octets[written..];
        }
        Ok(())
    }

    async fn close(sink: &mut Sink) -> io::Result<()> {
        poll_fn(|context| Pin::new(&mut *sink).poll_close(context)).await
    }

    #[tokio::test]
    async fn a20_a_session_that_ends_early_is_told_at_the_end_and_never_as_success() {
        for (last, told) in
            [("421 4.4.2 gw waited too long\r\n", "451 4.4.2"), ("", "451 4.3.0"), ("250 ", "451 4.3.0")]
        {
            let (mut sink, mut session) = begun().await;
            session.write_all(last.as_bytes()).await.unwrap();
            drop(session);
            write(&mut sink, &b"QUIT\r\n".repeat(10_000)).await.unwrap();
            for _ in 0..2 {
                let error = close(&mut sink).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::Other, "samotop takes NotConnected for success");
                assert!(error.to_string().starts_with(told), "{error}");
            }
            assert!(write(&mut sink, b"more").await.is_err());
        }
    }

    #[tokio::test]
    async fn r1_only_a_whole_positive_reply_is_success() {
        for (reply, taken) in
            [("250 2.0.0 ok\r\n", true), ("354 go on\r\n", false), ("550 5.7.1 no\r\n", false), ("25", false)]
        {
            let (mut sink, mut session) = begun().await;
            session.write_all(reply.as_bytes()).await.unwrap();
            session.shutdown().await.unwrap();
            assert_eq!(close(&mut sink).await.is_ok(), taken, "{reply}");
        }
    }
}

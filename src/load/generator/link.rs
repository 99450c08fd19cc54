//! One connection to the target: the socket under the client's machine.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::Domain;
use crate::load::ledger::Answered;
use crate::load::mails::Mail;
use crate::load::scenario::TlsMode;
use crate::smtp::client::{Client, DotStuffer, Event, StartTls};
use crate::smtp::command::{Body, MailParameters, Recipient, Reply};

/// RCPTs on the wire before their replies are read, so that neither side's buffers fill.
const GROUP: usize = 100;
/// Wait for the words of a server that stopped reading the content, and for its farewell.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How connections are made.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) hello: Domain,
    pub(super) mode: TlsMode,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Longest wait for an answer.
    pub(super) patience: Duration,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// During the handshake.
    Gone,
}

pub(super) struct Link {
    stream: Stream,
    client: Client,
    patience: Duration,
    /// Transactions begun on it.
    pub(super) mails: u32,
    needs_reset: bool,
    /// An octet of the final dot of the mail at hand was handed to the system.
    pub(super) dotted: bool,
}

/// Why a transaction has no answer.
pub(super) struct Lost(pub(super) String);

impl Link {
    /// Connects, does TLS, says EHLO.
    pub(super) async fn open(way: &Way) -> Result<Self, String> {
        let socket = connect(way).await?;
        let starttls = if way.mode == TlsMode::StartTls { StartTls::Required } else { StartTls::Off };
        let client = Client::new(way.hello.clone(), false, starttls, way.mode == TlsMode::Implicit);
        let stream = Stream::Plain(socket);
        let mut link = Self { stream, client, patience: way.patience, mails: 0, needs_reset: false, dotted: false };
        if way.mode == TlsMode::Implicit {
            link.handshake(way).await?;
        }
        loop {
            match link.event().await? {
                Event::Ready => return Ok(link),
                Event::StartTls => {
                    link.handshake(way).await?;
                    link.client.tls_started();
                }
                Event::Closed => return Err(link.closing_words()),
                other => return Err(format!("unexpected {other:?}")),
            }
        }
    }

    async fn handshake(&mut self, way: &Way) -> Result<(), String> {
        let Some((config, name)) = &way.tls else { return Err("TLS is not set up".into()) };
        let Stream::Plain(socket) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err("TLS within TLS".into());
        };
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name.clone(), socket);
        let stream = timeout(self.patience, connecting).await.map_err(|_| "no TLS handshake in time".to_owned())?;
        self.stream = Stream::Tls(Box::new(stream.map_err(|error| format!("TLS handshake: {error}"))?));
        Ok(())
    }

    /// One mail: an answer for each recipient. `Lost`: no answer, and the connection is of no use any more; `dotted` tells what that means.
    pub(super) async fn send(&mut self, mail: &Mail) -> Result<Vec<Answered>, Lost> {
        self.mails = self.mails.saturating_add(1);
        self.dotted = false;
        if std::mem::take(&mut self.needs_reset) {
            self.client.rset();
        }
        let recipients = &mail.envelope.recipients;
        let parameters = MailParameters {
            size: Some(u64::try_from(mail.content.len()).unwrap_or(u64::MAX)),
            body: if mail.content.is_ascii() { Body::SevenBit } else { Body::EightBitMime },
            ..mail.envelope.parameters.clone()
        };
        if let Err(refusal) = self.client.mail(&mail.envelope.reverse_path, &parameters) {
            return Ok(vec![judged(&refusal); recipients.len()]);
        }
        let mut talk = Talk { mail: None, answers: vec![None; recipients.len()], data: None };
        let groups = recipients.len().div_ceil(GROUP);
        for (number, group) in recipients.chunks(GROUP).enumerate() {
            let last = number + 1 == groups;
            talk.say(&mut self.client, number.saturating_mul(GROUP), group, last);
            self.hear(&mut talk, last).await?;
        }
        let someone = talk.answers.iter().flatten().any(Reply::is_positive);
        let refused = talk.mail.clone().filter(|reply| !reply.is_positive());
        let last = match talk.data.take() {
            Some(None) if someone && refused.is_none() => Some(self.content(&mail.content).await?),
            // 354 without a recipient: a lone dot, which nobody can get.
            Some(None) => {
                let _ = self.content(&Bytes::new()).await;
                self.dotted = false;
                None
            }
            Some(Some(refusal)) => Some(refusal),
            None => None,
        };
        self.needs_reset = last.as_ref().is_none_or(|reply| !reply.is_positive());
        talk.judged(refused.as_ref(), last.as_ref()).ok_or_else(|| Lost(self.closing_words()))
    }

    /// Whether the server said 421: no mail can follow.
    pub(super) fn is_closing(&self) -> bool {
        self.client.closing().is_some() || !self.client.is_idle()
    }

    async fn hear(&mut self, talk: &mut Talk, last: bool) -> Result<(), Lost> {
        let mut data_said = last && self.client.offers().pipelining;
        loop {
            if self.client.is_idle() {
                let someone = talk.answers.iter().flatten().any(Reply::is_positive);
                if !last || data_said || !someone || talk.mail.as_ref().is_none_or(|reply| !reply.is_positive()) {
                    return Ok(());
                }
                self.client.data();
                data_said = true;
            }
            match self.event().await.map_err(Lost)? {
                Event::Reset => {}
                Event::Mail(reply) => talk.mail = Some(reply),
                Event::Rcpt(reply) => {
                    if let Some(answer) = talk.answers.iter_mut().find(|answer| answer.is_none()) {
                        *answer = Some(reply);
                    }
                }
                Event::DataRefused(reply) => talk.data = Some(Some(reply)),
                Event::GoAhead => talk.data = Some(None),
                Event::Closed => return Ok(()),
                other => return Err(Lost(format!("unexpected {other:?}"))),
            }
        }
    }

    /// The content, dot-stuffed, and the final dot; the answer to it.
    async fn content(&mut self, content: &Bytes) -> Result<Reply, Lost> {
        let mut stuffer = DotStuffer::new();
        let content = stuffer.stuff(content.clone());
        let end = stuffer.end();
        if let Err(why) = self.write(content, end).await {
            // A server may say 552 and close while we write: its words are worth more than "broken pipe".
            if !self.dotted {
                self.client.content_sent(1);
                if let Ok(Ok(Event::Final(reply))) = timeout(LAST_WORDS, self.event()).await
                    && !reply.is_positive()
                {
                    return Ok(reply);
                }
            }
            return Err(Lost(why));
        }
        self.client.content_sent(1);
        match self.event().await.map_err(Lost)? {
            Event::Final(reply) => Ok(reply),
            other => Err(Lost(format!("unexpected {other:?}"))),
        }
    }

    async fn write(&mut self, mut content: Bytes, mut end: Bytes) -> Result<(), String> {
        let stalled = || "the server does not read the content".to_owned();
        while !content.is_empty() || !end.is_empty() {
            let slices = [IoSlice::new(&content), IoSlice::new(&end)];
            let slices = if content.is_empty() { slices.get(1..).unwrap_or_default() } else { &slices };
            let written = timeout(self.patience, self.stream.write_vectored(slices)).await;
            let count = written.map_err(|_| stalled())?.map_err(|error| error.to_string())?;
            if count == 0 {
                return Err("the connection was closed".into());
            }
            let of_content = count.min(content.len());
            content.advance(of_content);
            end.advance(count.saturating_sub(of_content).min(end.len()));
            // What is left is less than ".\r\n": the dot is out.
            self.dotted = content.is_empty() && end.len() < 3;
        }
        timeout(self.patience, self.stream.flush()).await.map_err(|_| stalled())?.map_err(|error| error.to_string())
    }

    /// Writes what there is to write and waits for the next event.
    async fn event(&mut self) -> Result<Event, String> {
        let until = Instant::now() + self.patience;
        loop {
            if let Some(event) = self.client.next_event().map_err(|error| error.to_string())? {
                return Ok(event);
            }
            let exchange = async {
                let output = self.client.take_output();
                if !output.is_empty() {
                    self.stream.write_all(&output).await?;
                    self.stream.flush().await?;
                }
                self.client.input().reserve(2048);
                self.stream.read_buf(self.client.input()).await
            };
            match timeout_at(until, exchange).await {
                Err(_) => return Err("no answer in time".into()),
                Ok(Err(error)) => return Err(error.to_string()),
                Ok(Ok(0)) => return Err("the connection was closed".into()),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Says QUIT, waits a little for the answer, and goes.
    pub(super) async fn quit(mut self) {
        self.client.quit();
        let _ = timeout(LAST_WORDS, async {
            while !matches!(self.event().await, Ok(Event::Closed) | Err(_)) {}
            let _ = self.stream.shutdown().await;
        })
        .await;
    }

    fn closing_words(&self) -> String {
        self.client.closing().map_or_else(|| "the server closed the session".into(), ToString::to_string)
    }
}

/// What was answered so far in a pipelined transaction.
struct Talk {
    mail: Option<Reply>,
    answers: Vec<Option<Reply>>,
    /// `Some(None)` is 354.
    data: Option<Option<Reply>>,
}

impl Talk {
    /// Says a group of RCPTs; the last group with DATA behind it, where the server takes it so.
    fn say(&mut self, client: &mut Client, offset: usize, group: &[Recipient], last: bool) {
        for (recipient, answer) in group.iter().zip(self.answers.iter_mut().skip(offset)) {
            *answer = client.rcpt(recipient).err();
        }
        if last && client.offers().pipelining {
            client.data();
        }
    }

    /// For each recipient: MAIL's refusal, the refusal at RCPT, or the last answer. `None`: the session ended before one.
    fn judged(self, refused: Option<&Reply>, last: Option<&Reply>) -> Option<Vec<Answered>> {
        let one = |answer: Option<Reply>| match (refused, answer) {
            (Some(refusal), _) => Some(judged(refusal)),
            (None, Some(answer)) if !answer.is_positive() => Some(judged(&answer)),
            (None, _) => last.map(judged),
        };
        self.answers.into_iter().map(one).collect()
    }
}

fn judged(reply: &Reply) -> Answered {
    match reply.code / 100 {
        2 => Answered::Taken,
        4 => Answered::Deferred(reply.to_string()),
        _ => Answered::Refused(reply.to_string()),
    }
}

/// Tries each address in turn.
async fn connect(way: &Way) -> Result<TcpStream, String> {
    let mut why = "the target has no address".to_owned();
    for address in &way.addresses {
        match timeout(way.patience, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Ok(Err(error)) => why = format!("{address}: {error}"),
            Err(_) => why = format!("{address}: no connection in time"),
        }
    }
    Err(why)
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Gone => gone(),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, octets),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
            Stream::Gone => gone(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Gone => gone(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Gone => gone(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Gone => gone(),
        }
    }
}

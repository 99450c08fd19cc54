//! One connection to a next hop: the socket under the client's machine.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::Tls;
use crate::address::Domain;
use crate::config::{HopTls, HopWaits, NextHop};
use crate::metrics::{FoundBy, Metrics, Opened, Protection};
use crate::mime::rope::Rope;
use crate::relay::direct::Exchangers;
use crate::relay::polls::Turn;
use crate::smtp::client::{Client, ClientError, DotStuffer, Event, StartTls};
use crate::smtp::command::Reply;

/// Octets handed to the socket at once.
const CHUNK: usize = 64 * 1024;
/// Pieces handed to the socket at once.
const SLICES: usize = 16;
/// Wait for the words of a server that stopped reading the content.
const LAST_WORDS: Duration = Duration::from_secs(2);

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// During the handshake.
    Gone,
}

/// How long may be waited: for each step, and in all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    waits: HopWaits,
    each: Duration,
    until: Instant,
    /// The end of waiting where some is known already: a little earlier.
    partial: Instant,
}

impl Patience {
    /// For commands; in all it takes at most `times` the whole.
    pub(super) fn new(waits: HopWaits, times: u32) -> Self {
        let until = Instant::now() + waits.all.saturating_mul(times);
        let partial = until.checked_sub(waits.all / 10).unwrap_or(until);
        Self { waits, each: waits.command, until, partial }
    }

    /// For greeting, EHLO, STARTTLS and handshake.
    fn for_greeting(self) -> Self {
        Self { each: self.waits.greeting, ..self }
    }

    /// For each piece of the content.
    fn for_content(self) -> Self {
        Self { each: self.waits.all, ..self }
    }

    /// For the answer to the final dot: of 4 minutes it makes the 10 of RFC 5321 section 4.5.3.2.6. A server that is slow, and not waited for,
    /// would get the mail again and again.
    pub(super) fn for_final(self) -> Self {
        Self { each: self.waits.all.saturating_mul(5) / 2, ..self }
    }

    /// For an owner that ends the wait itself, so that its end is never taken for another.
    pub(super) fn ended_by_owner(self) -> Self {
        Self { until: self.until + self.waits.all, ..self }
    }

    /// What is known already is told before the owner ends the wait.
    pub(super) fn for_the_rest(self) -> Self {
        Self { until: self.partial, ..self }
    }

    fn at_most(self, each: Duration) -> Self {
        Self { each, until: self.until.max(Instant::now() + each), ..self }
    }

    fn step(&self) -> Instant {
        self.until.min(Instant::now() + self.each)
    }
}

/// Why content did not get through.
pub(super) enum ContentError {
    /// The final dot was not begun; with the server's refusal if it said one.
    BeforeDot(String, Option<Reply>),
    /// An octet of the final dot was handed to the system.
    AfterDot(String),
}

/// All that a connection is made with.
pub(super) struct Opener<'o> {
    pub(super) hop: &'o NextHop,
    /// Our name in EHLO.
    pub(super) hostname: &'o Domain,
    pub(super) tls: &'o Tls,
    pub(super) exchangers: Option<&'o Exchangers>,
    pub(super) metrics: &'o Metrics,
    pub(super) patience: Patience,
}

impl Opener<'_> {
    /// Connects, does TLS as the next hop wants it, and says EHLO.
    pub(super) async fn open(&self) -> Result<Connection, String> {
        let wanted = match self.hop.tls {
            HopTls::Off => StartTls::Off,
            HopTls::Opportunistic => StartTls::IfOffered,
            HopTls::Required | HopTls::Verified => StartTls::Required,
        };
        match self.counted(wanted).await {
            // RFC 7435: opportunistic means that mail goes in clear where TLS cannot be had.
            Err(Opening::Handshake(why)) if self.hop.tls == HopTls::Opportunistic => {
                tracing::warn!(hop = %self.hop.host, %why, "TLS handshake failed, going on without");
                self.counted(StartTls::Off).await.map_err(Opening::why)
            }
            other => other.map_err(Opening::why),
        }
    }

    /// What was to protect it is counted where it did not come about, else what does.
    async fn counted(&self, wanted: StartTls) -> Result<Connection, Opening> {
        let opened = self.open_with(wanted).await;
        let (within, outcome) = match &opened {
            Ok(connection) => (matches!(connection.stream, Stream::Tls(_)), Opened::Opened),
            Err(Opening::Handshake(_) | Opening::NotOffered(_)) => (true, Opened::NoTls),
            Err(Opening::Other(_)) => (wanted != StartTls::Off, Opened::Unreachable),
        };
        let (by, protection) = (FoundBy::of(self.hop), Protection::of(self.hop, within));
        self.metrics.hop_connections.one((by, (protection, outcome)));
        opened
    }

    async fn open_with(&self, wanted: StartTls) -> Result<Connection, Opening> {
        let Self { hop, patience, .. } = *self;
        let socket = connect(hop, self.exchangers, patience).await.map_err(Opening::Other)?;
        let now = Instant::now();
        let client = Client::new(self.hostname.clone(), hop.lmtp, wanted, false);
        let mut connection = Connection {
            stream: Stream::Plain(socket),
            client,
            born: now,
            last_used: now,
            reused: false,
            needs_reset: false,
        };
        loop {
            match connection.next(patience.for_greeting()).await {
                Ok(Event::Ready) => return Ok(connection),
                Ok(Event::StartTls) => {
                    connection.handshake(hop, self.tls, patience).await.map_err(Opening::Handshake)?;
                }
                Ok(Event::Closed) => return Err(Opening::Other(connection.closing_words())),
                Ok(other) => return Err(Opening::Other(format!("unexpected {other:?}"))),
                Err(Lost::Said(error)) if error.is_about_tls() => return Err(Opening::NotOffered(error.to_string())),
                Err(lost) => return Err(Opening::Other(lost.why())),
            }
        }
    }
}

pub(super) struct Connection {
    stream: Stream,
    pub(super) client: Client,
    pub(super) born: Instant,
    pub(super) last_used: Instant,
    /// It lay idle in the pool before this transaction.
    pub(super) reused: bool,
    /// A transaction was left open: RSET before the next.
    pub(super) needs_reset: bool,
}

impl Connection {
    async fn handshake(&mut self, hop: &NextHop, tls: &Tls, patience: Patience) -> Result<(), String> {
        let name = ServerName::try_from(hop.host.clone())
            .map_err(|_| format!("{:?} is no host name that a certificate can hold", hop.host))?;
        let connector = TlsConnector::from(tls.config(hop)?);
        let Stream::Plain(socket) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err("TLS within TLS".into());
        };
        let stream = timeout_at(patience.for_greeting().step(), connector.connect(name, socket)).await;
        let stream = stream
            .map_err(|_| "no TLS handshake in time".to_string())?
            .map_err(|error| format!("TLS handshake: {error}"))?;
        self.stream = Stream::Tls(Box::new(stream));
        self.client.tls_started();
        Ok(())
    }

    /// Writes what there is to write and waits for the next event.
    pub(super) async fn event(&mut self, patience: Patience) -> Result<Event, String> {
        self.next(patience).await.map_err(Lost::why)
    }

    async fn next(&mut self, patience: Patience) -> Result<Event, Lost> {
        let until = patience.step();
        let lost = |why: &str| Err(Lost::Wire(why.to_owned()));
        loop {
            if let Some(event) = self.client.next_event().map_err(Lost::Said)? {
                return Ok(event);
            }
            let exchange = async {
                self.flush().await?;
                self.client.input().reserve(2048);
                self.stream.read_buf(self.client.input()).await
            };
            match timeout_at(until, exchange).await {
                Err(_) => return lost("no answer in time"),
                Ok(Err(error)) => return lost(&error.to_string()),
                Ok(Ok(0)) => return lost("the connection was closed"),
                Ok(Ok(_)) => {}
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let output = self.client.take_output();
        if !output.is_empty() {
            self.stream.write_all(&output).await?;
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// Writes the content, dot-stuffed, and the final dot: small content in one write, the last chunk and the dot in one.
    pub(super) async fn content(&mut self, content: &Rope, patience: Patience) -> Result<(), ContentError> {
        let patience = patience.for_content();
        let mut stuffer = DotStuffer::new();
        let (mut pieces, mut held) = (VecDeque::new(), 0_usize);
        let mut turn = Turn::default();
        for chunk in content.chunks(CHUNK) {
            let chunk = stuffer.stuff(chunk);
            if held.saturating_add(chunk.len()) > CHUNK {
                if let Err(why) = self.write_pieces(&mut pieces, &mut 0, patience).await {
                    return Err(self.last_words(why, patience).await);
                }
                if turn.over(held) {
                    yield_now().await;
                }
                held = 0;
            }
            held = held.saturating_add(chunk.len());
            pieces.push_back(chunk);
        }
        let end = stuffer.end();
        let before_dot = held.saturating_add(end.len().saturating_sub(3));
        pieces.push_back(end);
        let mut written = 0;
        match self.write_pieces(&mut pieces, &mut written, patience).await {
            Ok(()) => Ok(()),
            Err(why) if written > before_dot => Err(ContentError::AfterDot(why)),
            Err(why) => Err(self.last_words(why, patience).await),
        }
    }

    /// A server may say 552 and close while we write: its words are worth more than "broken pipe".
    async fn last_words(&mut self, why: String, patience: Patience) -> ContentError {
        self.client.content_sent(1);
        let refusal = match self.event(patience.at_most(LAST_WORDS)).await {
            Ok(Event::Final(reply)) if !reply.is_positive() => Some(reply),
            _ => None,
        };
        ContentError::BeforeDot(why, refusal)
    }

    /// Writes all pieces, as many at once as there are. `written` counts what the system took, also when the wait ends it.
    async fn write_pieces(
        &mut self,
        pieces: &mut VecDeque<Bytes>,
        written: &mut usize,
        patience: Patience,
    ) -> Result<(), String> {
        pieces.retain(|piece| !piece.is_empty());
        if pieces.is_empty() {
            return Ok(());
        }
        while !pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = slices.iter_mut().zip(pieces.iter()).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            let slices = slices.get(..count).unwrap_or_default();
            let write = timeout_at(patience.step(), self.stream.write_vectored(slices)).await;
            let mut count = match write {
                Err(_) => return Err("the server does not read the content".into()),
                Ok(Err(error)) => return Err(error.to_string()),
                Ok(Ok(0)) => return Err("the connection was closed".into()),
                Ok(Ok(count)) => count,
            };
            *written = written.saturating_add(count);
            while let Some(piece) = pieces.front_mut() {
                let taken = count.min(piece.len());
                piece.advance(taken);
                count -= taken;
                if !piece.is_empty() {
                    break;
                }
                pieces.pop_front();
            }
        }
        let flush = timeout_at(patience.step(), self.stream.flush()).await;
        flush.map_err(|_| "the server does not read the content".to_string())?.map_err(|error| error.to_string())
    }

    /// Whether an idle connection still looks alive: nothing came, and it was not closed.
    pub(super) async fn is_alive(&self) -> bool {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.get_ref().0,
            Stream::Gone => return false,
        };
        let mut octet = [0; 1];
        let readable = poll_fn(|cx| Poll::Ready(socket.poll_peek(cx, &mut ReadBuf::new(&mut octet)).is_ready())).await;
        !readable && self.client.is_idle()
    }

    /// Says QUIT and goes, waiting little.
    pub(super) async fn quit(mut self) {
        self.client.quit();
        let _ = timeout(LAST_WORDS, async {
            let _ = self.flush().await;
            let _ = self.stream.shutdown().await;
        })
        .await;
    }

    /// What the server said when it ended the session.
    pub(super) fn closing_words(&self) -> String {
        self.client.closing().map_or_else(|| "the server closed the session".into(), ToString::to_string)
    }
}

/// Why there is no next event.
enum Lost {
    /// By what the server said.
    Said(ClientError),
    Wire(String),
}

impl Lost {
    fn why(self) -> String {
        match self {
            Lost::Said(error) => error.to_string(),
            Lost::Wire(why) => why,
        }
    }
}

enum Opening {
    Handshake(String),
    /// STARTTLS, which has to be.
    NotOffered(String),
    Other(String),
}

impl Opening {
    fn why(self) -> String {
        match self {
            Opening::Handshake(why) | Opening::NotOffered(why) | Opening::Other(why) => why,
        }
    }
}

/// Tries each address of the host in turn.
async fn connect(hop: &NextHop, exchangers: Option<&Exchangers>, patience: Patience) -> Result<TcpStream, String> {
    let patience = Patience { each: patience.waits.connect, ..patience };
    let lookup = timeout_at(patience.step(), addresses(hop, exchangers)).await;
    let addresses = lookup.map_err(|_| "no answer from DNS in time".to_string())??;
    let mut why = "the host name has no address".to_string();
    for address in addresses {
        if !hop.source.reaches(address.ip()) {
            why = format!("{address}: no address of its family in `source`");
            continue;
        }
        match timeout_at(patience.step(), connect_to(hop, address)).await {
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

/// A host in somebody's MX has the addresses that the DNS gives it, and no others.
async fn addresses(hop: &NextHop, exchangers: Option<&Exchangers>) -> Result<Vec<SocketAddr>, String> {
    match (&hop.exchanger, exchangers) {
        (Some(_), Some(exchangers)) => {
            let found = exchangers.addresses(&hop.host, hop.source).await?;
            Ok(found.into_iter().map(|address| SocketAddr::new(address, hop.port)).collect())
        }
        (Some(_), None) => Err("no delivery by MX is configured any more".into()),
        (None, _) => {
            let found = tokio::net::lookup_host((hop.host.as_str(), hop.port)).await;
            found.map(Iterator::collect).map_err(|error| format!("look-up: {error}"))
        }
    }
}

async fn connect_to(hop: &NextHop, address: SocketAddr) -> io::Result<TcpStream> {
    let Some(source) = hop.source.toward(address.ip()) else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let own = |error: io::Error| io::Error::new(error.kind(), format!("from {source}: {error}"));
    socket.bind(SocketAddr::new(source, 0)).map_err(own)?;
    socket.connect(address).await
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

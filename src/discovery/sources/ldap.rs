//! Directories over LDAP (RFC 4511): one connection a look-up, one server after the other until one answers.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::{Found, Stalled};
use crate::address::Mailbox;
use crate::config::{Ldap, LdapServer, LdapTls, Source};
use crate::discovery::ldap::{self, Entry, Outcome, Response};
use crate::relay::hop::Roots;

/// Octets of an answer to a bind or to StartTLS.
const SHORT: u64 = 16 << 10;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Why there is no answer.
pub(super) enum Trouble {
    /// The server is not to be had: the next one may be.
    Server(String),
    /// The directory answered, and it is no answer: the next server has the same.
    Answer(String),
}

impl Trouble {
    pub(super) fn server(error: impl std::fmt::Display) -> Self {
        Self::Server(error.to_string())
    }
}

/// The servers of one directory.
pub(super) struct Directory {
    settings: Ldap,
    tls: Option<Arc<ClientConfig>>,
    /// The one that answered last.
    first: AtomicUsize,
    /// The one that is asked now, for those that find it too slow.
    asked: AtomicUsize,
    stalled: Stalled,
}

impl Directory {
    pub(super) fn new(settings: &Ldap) -> Result<Self, String> {
        let secure = settings.servers.iter().any(|server| server.tls != LdapTls::Off);
        let tls = secure.then(|| {
            let roots = match &settings.ca {
                Some(file) => Roots::file(file).map_err(|error| format!("ca {}: {error}", file.display()))?,
                None => Roots::system(),
            };
            roots.verifying()
        });
        Ok(Self {
            tls: tls.transpose()?,
            settings: settings.clone(),
            first: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            stalled: Stalled::default(),
        })
    }

    /// The look-up took too long: the server that was asked last is to blame.
    pub(super) fn stalls(&self) {
        if let Some(server) = self.settings.servers.get(self.asked.load(Ordering::Acquire)) {
            self.stalled.note(&server.to_string());
        }
    }

    pub(super) async fn ask(&self, mailbox: &Mailbox, source: &Source) -> Result<Found, String> {
        let mut turns = self.turns(source.timeout);
        while let Some((server, time)) = turns.next_one() {
            let asked = tokio::time::timeout(time, self.one(server, mailbox, source, time)).await;
            if let ControlFlow::Break(answer) = turns.heard(asked.map_err(|_| time)) {
                return answer;
            }
        }
        Err(turns.why)
    }

    /// The servers that are not known to be silent, one after the other, within the time for all of them.
    pub(super) fn turns(&self, time: Duration) -> Turns<'_> {
        let servers = &self.settings.servers;
        let first = self.first.load(Ordering::Acquire);
        let order = (0..servers.len()).map(|at| (first.saturating_add(at)) % servers.len().max(1));
        let order: Vec<usize> = order
            .filter(|at| servers.get(*at).is_some_and(|server| !self.stalled.holds(&server.to_string())))
            .collect();
        let why = "its servers did not answer just now".to_owned();
        Turns { directory: self, order: order.into(), asked: None, began: Instant::now(), time, why }
    }

    /// One look-up at one server.
    async fn one(
        &self,
        server: &LdapServer,
        mailbox: &Mailbox,
        source: &Source,
        time: Duration,
    ) -> Result<Found, Trouble> {
        let mut connection = self.connection(server).await?;
        self.introduce(&mut connection).await?;
        let seconds = seconds(time);
        let base = self.settings.base_for(mailbox.domain());
        let id = connection.next();
        connection.send(&ldap::search(id, &base, &self.settings.filter, mailbox, seconds)).await?;
        let entries = connection.entries(id, source.size).await?;
        // No answer to it, and none is needed.
        let _ = connection.send(&ldap::unbind(connection.next())).await;
        Ok(found(&entries, mailbox, server, source.certificates))
    }

    pub(super) async fn connection(&self, server: &LdapServer) -> Result<Connection, Trouble> {
        Ok(Connection { stream: self.connect(server).await?, id: AtomicU32::new(10) })
    }

    /// Says who asks, where that is configured.
    pub(super) async fn introduce(&self, connection: &mut Connection) -> Result<(), Trouble> {
        if let Some((name, file)) = &self.settings.bind {
            let password = tokio::fs::read_to_string(file).await.map(Zeroizing::new);
            let password = password.map_err(|error| Trouble::Answer(format!("{}: {error}", file.display())))?;
            let password = password.lines().next().unwrap_or_default();
            // An empty password would be anonymous, and succeed (RFC 4513 section 5.1.2).
            if password.is_empty() {
                return Err(Trouble::Answer(format!("{} has no password", file.display())));
            }
            good(&connection.bind(name, password.as_bytes()).await?, "bind")?;
        }
        Ok(())
    }

    async fn connect(&self, server: &LdapServer) -> Result<Box<dyn Stream>, Trouble> {
        let mut stream = TcpStream::connect((server.host.as_str(), server.port)).await.map_err(Trouble::server)?;
        if server.tls == LdapTls::Off {
            return Ok(Box::new(stream));
        }
        let config = self.tls.clone().ok_or_else(|| Trouble::server("TLS is not set up"))?;
        if server.tls == LdapTls::StartTls {
            stream.write_all(&ldap::start_tls(1)).await.map_err(Trouble::server)?;
            let mut left = SHORT;
            // Octet for octet up to its end: what follows in clear is read by TLS, and ends it.
            match receive(&mut stream, &mut left).await? {
                (1, Response::Extended(outcome)) => good(&outcome, "StartTLS").map_err(|trouble| match trouble {
                    Trouble::Answer(why) | Trouble::Server(why) => Trouble::Server(why),
                })?,
                _ => return Err(Trouble::server("answered StartTLS with something else")),
            }
        }
        let name = ServerName::try_from(server.host.clone()).map_err(Trouble::server)?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(Trouble::server)?;
        Ok(Box::new(stream))
    }
}

/// The servers of a directory in turn.
pub(super) struct Turns<'d> {
    directory: &'d Directory,
    order: VecDeque<usize>,
    /// The one whose turn it is.
    asked: Option<usize>,
    began: Instant,
    time: Duration,
    /// Why there is no answer so far.
    pub(super) why: String,
}

impl<'d> Turns<'d> {
    /// The next server, and how long it may take.
    pub(super) fn next_one(&mut self) -> Option<(&'d LdapServer, Duration)> {
        let left = u32::try_from(self.order.len()).unwrap_or(1).max(1);
        let at = self.order.pop_front()?;
        self.asked = Some(at);
        self.directory.asked.store(at, Ordering::Release);
        let time = self.time.saturating_sub(self.began.elapsed()) / left;
        self.directory.settings.servers.get(at).map(|server| (server, time))
    }

    /// What came of it; `Err` outside: nothing within that time. `Break`: that is the directory's answer.
    pub(super) fn heard<T>(&mut self, asked: Result<Result<T, Trouble>, Duration>) -> ControlFlow<Result<T, String>> {
        let at = self.asked.unwrap_or_default();
        let Some(server) = self.directory.settings.servers.get(at) else { return ControlFlow::Continue(()) };
        match asked.unwrap_or_else(|time| Err(Trouble::Server(format!("no answer within {time:?}")))) {
            Ok(answer) => {
                self.directory.first.store(at, Ordering::Release);
                ControlFlow::Break(Ok(answer))
            }
            Err(Trouble::Answer(why)) => ControlFlow::Break(Err(format!("{server}: {why}"))),
            Err(Trouble::Server(trouble)) => {
                self.directory.stalled.note(&server.to_string());
                self.why = format!("{server}: {trouble}");
                tracing::warn!(%server, why = trouble, "a directory server is not to be had");
                ControlFlow::Continue(())
            }
        }
    }
}

/// As a server wants it.
pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(1).max(1)
}

/// A connection to a server.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    id: AtomicU32,
}

impl Connection {
    pub(super) fn next(&self) -> u32 {
        self.id.fetch_add(1, Ordering::AcqRel)
    }

    /// A simple bind: what the server says to it.
    pub(super) async fn bind(&mut self, name: &str, password: &[u8]) -> Result<Outcome, Trouble> {
        let id = self.next();
        match self.short(id, &Zeroizing::new(ldap::bind(id, name, password))).await? {
            Response::Bound(outcome) => Ok(outcome),
            _ => Err(Trouble::server("answered a bind with something else")),
        }
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), Trouble> {
        self.stream.write_all(message).await.map_err(Trouble::server)?;
        self.stream.flush().await.map_err(Trouble::server)
    }

    /// A request with one short response.
    async fn short(&mut self, id: u32, request: &[u8]) -> Result<Response, Trouble> {
        self.send(request).await?;
        let mut left = SHORT;
        match receive(&mut self.stream, &mut left).await? {
            (answers, response) if answers == id => Ok(response),
            _ => Err(Trouble::server("answered another request")),
        }
    }

    /// The entries of a search, all of them within so many octets.
    pub(super) async fn entries(&mut self, id: u32, size: u64) -> Result<Vec<Entry>, Trouble> {
        let (mut left, mut entries) = (size, Vec::new());
        loop {
            match receive(&mut self.stream, &mut left).await? {
                (answers, Response::Entry(entry)) if answers == id => {
                    entries.push(entry);
                    if entries.len() > ldap::MAX_ENTRIES as usize {
                        return Err(Trouble::Answer(format!("more than {} entries of it", ldap::MAX_ENTRIES)));
                    }
                }
                // Searches at the top of a forest always get some; where they lead is not asked.
                (answers, Response::Reference) if answers == id => {}
                (answers, Response::Done(outcome)) if answers == id => {
                    good(&outcome, "search")?;
                    return Ok(entries);
                }
                (_, Response::Extended(outcome)) => return Err(Trouble::Server(said(&outcome, "disconnected"))),
                _ => return Err(Trouble::server("answered another request")),
            }
        }
    }
}

/// The next message, which may have so many octets.
async fn receive(stream: &mut (impl AsyncRead + Unpin), left: &mut u64) -> Result<(u32, Response), Trouble> {
    let mut octets = Vec::with_capacity(64);
    let length = loop {
        if let Some(length) = ldap::length(&octets).map_err(Trouble::server)? {
            break length;
        }
        octets.push(stream.read_u8().await.map_err(Trouble::server)?);
    };
    *left = u64::try_from(length)
        .ok()
        .and_then(|length| left.checked_sub(length))
        .ok_or_else(|| Trouble::Answer("the answer is larger than `size` allows".to_owned()))?;
    let read = octets.len();
    octets.resize(length.max(read), 0);
    if let Some(rest) = octets.get_mut(read..) {
        stream.read_exact(rest).await.map_err(Trouble::server)?;
    }
    ldap::read(&Bytes::from(octets)).map_err(|error| Trouble::Answer(format!("an answer that cannot be read: {error}")))
}

pub(super) fn good(outcome: &Outcome, what: &str) -> Result<(), Trouble> {
    // busy, unavailable, unwillingToPerform: another server may.
    match outcome.code {
        0 => Ok(()),
        51..=53 => Err(Trouble::Server(said(outcome, what))),
        _ => Err(Trouble::Answer(said(outcome, what))),
    }
}

fn said(outcome: &Outcome, what: &str) -> String {
    let name = match outcome.code {
        3 => " (timeLimitExceeded)",
        4 => " (sizeLimitExceeded)",
        10 => " (referral)",
        32 => " (noSuchObject)",
        49 => " (invalidCredentials)",
        50 => " (insufficientAccessRights)",
        51 => " (busy)",
        52 => " (unavailable)",
        53 => " (unwillingToPerform)",
        _ => "",
    };
    format!("{what}: result {}{name} {}", outcome.code, outcome.text).trim_end().to_owned()
}

/// What entries say of a mailbox.
fn found(entries: &[Entry], mailbox: &Mailbox, server: &LdapServer, most: usize) -> Found {
    let (mut found, key) = (Found::default(), mailbox.key());
    let mut unreadable = 0_usize;
    let mut owners: Vec<Mailbox> = Vec::new();
    for entry in entries {
        let place = format!("{server}/{}", entry.name);
        let held = entry.certificates();
        unreadable = unreadable.saturating_add(held.unreadable);
        found.certificates.extend(held.certificates.into_iter().map(|one| (one, place.clone())));
        if entry.has_alias(&key) {
            owners.extend(entry.mailboxes());
        }
    }
    if found.certificates.len() > most {
        let left_out = found.certificates.len().saturating_sub(most);
        tracing::warn!(%server, %mailbox, left_out, "more certificates than are looked at");
        found.certificates.truncate(most);
    }
    // Nothing that can be read, and something that cannot: it is not known that there is none.
    if unreadable > 0 && found.certificates.is_empty() {
        found.unreadable = Some(format!("{unreadable} values that are no certificates"));
    }
    owners.dedup_by_key(|owner| owner.key());
    found.belongs_to = match owners.as_slice() {
        [one] if one.key() != key => Some(one.clone()),
        _ => None,
    };
    found
}

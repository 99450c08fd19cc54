//! Listeners: sockets, TLS, one session each; the `Relay` is asked at each step.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use crate::address::{Domain, Mailbox, ReversePath};
use crate::config::{Limits, ListenTls, Listener};
use crate::discovery::sources::login::Logins;
use crate::metrics::{Connected, LoggedIn, Refused, Sums};
use crate::relay::polls::watched;
use crate::smtp::command::{MailParameters, Recipient, Reply};
use crate::smtp::session::{AuthOffer, Settings};
use crate::smtp::xforward::{Forwarded, Source};
use connection::Context;

mod auth;
mod connection;
mod proxied;
mod tls;

pub use auth::{hash as password_hash, verifier as password_verifier};

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address, or what a proxy says that it is; an IPv4 address even where it came in over an IPv6 socket.
    pub address: SocketAddr,
    /// The name given in EHLO, HELO or LHLO: up to 255 printable ASCII characters, otherwise not judged.
    pub helo: String,
    /// ESMTP rather than SMTP.
    pub extended: bool,
    /// Over TLS.
    pub tls: bool,
    /// Where it came in.
    pub listener: Arc<Listener>,
    /// In `trusted_networks` of its listener.
    pub trusted: bool,
    /// Who authenticated: by AUTH, or by a proxy's word (XCLIENT LOGIN).
    pub user: Option<String>,
    /// Addresses of his that a directory tells, beside those that the store knows.
    pub sends_as: Arc<[Mailbox]>,
    /// Its TLS certificate is one of the tenant that the listener is for.
    pub certified: bool,
}

impl Peer {
    /// Whether it may send to anywhere: from a trusted network, or authenticated.
    pub fn may_relay(&self) -> bool {
        self.trusted || self.user.is_some()
    }

    /// As a next hop is told of it.
    pub fn as_client(&self) -> Forwarded {
        Forwarded {
            name: None,
            address: Some(self.address.ip()),
            port: Some(self.address.port()).filter(|port| *port != 0),
            protocol: Some(if self.extended { "ESMTP" } else { "SMTP" }.to_owned()),
            helo: Some(self.helo.clone()).filter(|helo| !helo.is_empty()),
            ident: None,
            source: Some(Source::Remote),
        }
    }
}

/// A message's fate at the final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One reply for all (SMTP).
    All(Reply),
    /// One per accepted recipient, in order (LMTP, R4).
    Each(Vec<Reply>),
    /// None: the connection is closed, the message not taken. No server does so by itself: it is for tests of clients.
    Closed,
}

/// What the listener asks at each step of a transaction. Dropping the transaction is RSET or a lost connection.
pub trait Relay: Send + Sync + 'static {
    /// What is kept from MAIL on.
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
    /// RCPTs that a client pipelined: a reply to each, in their order, as if they had come one by one.
    fn rcpts(
        &self,
        transaction: &mut Self::Transaction,
        recipients: Vec<Recipient>,
    ) -> impl Future<Output = Vec<Reply>> + Send {
        async move {
            let mut replies = Vec::with_capacity(recipients.len());
            for recipient in recipients {
                replies.push(self.rcpt(transaction, recipient).await);
            }
            replies
        }
    }
    /// Called with the total so far as content arrives, so that the budget can grow; `Err` refuses the message.
    fn growing(&self, transaction: &mut Self::Transaction, octets: u64) -> Result<(), Reply>;
    /// The final dot: it runs in a task of its own and is never cancelled; a panic is answered with 451. The whole content, dots undone, as received, without a Received field of ours yet.
    fn message(&self, transaction: Self::Transaction, content: Bytes) -> impl Future<Output = Answer> + Send;
}

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
/// The wait after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a listener cannot start. Nothing of it is open then.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("listener {name}: cannot listen on {address}: {why}")]
    Bind {
        /// The listener's name.
        name: String,
        /// The address in its configuration.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
    /// The certificate or the key cannot be used.
    #[error("listener {name}: {file}: {why}")]
    Tls {
        /// The listener's name.
        name: String,
        /// The file that is at fault.
        file: PathBuf,
        /// What was found, and what to do.
        why: String,
    },
    /// The directory of its users cannot be asked.
    #[error("listener {name}: ldap_users: {why}")]
    Directory {
        /// The listener's name.
        name: String,
        /// What was found.
        why: String,
    },
}

/// What a listener offers its clients: settings, limits, TLS. No address is taken yet.
pub struct Offer {
    listener: Arc<Listener>,
    settings: Arc<Settings>,
    limits: Limits,
    tls: Option<tokio_rustls::TlsAcceptor>,
    directory: Option<Arc<Logins>>,
}

/// What connections get that are accepted from now on.
pub struct Terms<R>(Arc<Context<R>>);

/// A listener that has its address and accepts nothing yet; the kernel lets clients wait.
pub struct Bound {
    socket: TcpListener,
    address: SocketAddr,
    offer: Offer,
}

/// Takes a listener's address and reads its TLS files. Port 0 takes a free port: see [`Bound::address`].
pub async fn bind(
    listener: Arc<Listener>,
    hostname: Domain,
    postmaster: Mailbox,
    limits: &Limits,
) -> Result<Bound, ListenError> {
    bind_on(None, listener, hostname, postmaster, limits).await
}

/// As [`bind`], on a socket that has the address already.
///
/// # Errors
/// See [`ListenError`].
pub async fn bind_on(
    socket: Option<std::net::TcpListener>,
    listener: Arc<Listener>,
    hostname: Domain,
    postmaster: Mailbox,
    limits: &Limits,
) -> Result<Bound, ListenError> {
    let offer = offer(Arc::clone(&listener), hostname, postmaster, limits)?;
    let error = |why| ListenError::Bind { name: listener.name.clone(), address: listener.address, why };
    let socket = match socket {
        Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
        None => open(listener.address),
    };
    let socket = socket.map_err(error)?;
    let address = socket.local_addr().map_err(error)?;
    Ok(Bound { socket, address, offer })
}

/// Reads a listener's TLS files.
pub fn offer(
    listener: Arc<Listener>,
    hostname: Domain,
    postmaster: Mailbox,
    limits: &Limits,
) -> Result<Offer, ListenError> {
    let tls = tls::acceptor(&listener)?;
    let directory = listener.ldap_users.as_ref().map(|users| Logins::new(users).map(Arc::new)).transpose();
    let directory = directory.map_err(|why| ListenError::Directory { name: listener.name.clone(), why })?;
    let settings = Arc::new(Settings {
        hostname,
        postmaster,
        lmtp: listener.lmtp,
        starttls: matches!(listener.tls, ListenTls::StartTls { .. }),
        tls_required: matches!(listener.tls, ListenTls::StartTls { required: true, .. }),
        auth: match (listener.has_users(), listener.auth_without_tls) {
            (false, _) => AuthOffer::Off,
            (true, false) => AuthOffer::WithinTls,
            (true, true) => AuthOffer::Always,
        },
        scram: listener.users.is_some(),
        message_size: limits.message_size,
        recipients: limits.recipients,
    });
    Ok(Offer { listener, settings, limits: limits.clone(), tls, directory })
}

impl Offer {
    /// With who is asked at each step.
    pub fn with<R: Relay>(self, relay: Arc<R>) -> Terms<R> {
        let Offer { listener, settings, limits, tls, directory } = self;
        Terms(Arc::new(Context { relay, listener, settings, limits, tls, directory }))
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Bound {
    /// The address that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until [`Handle::shut_down`], or until the handle is dropped.
    pub fn serve<R: Relay>(self, relay: Arc<R>) -> Handle {
        self.serve_on_terms(relay).0
    }

    /// As [`Bound::serve`]; what is sent holds for connections that are accepted from then on, and the others keep what they have.
    pub fn serve_on_terms<R: Relay>(self, relay: Arc<R>) -> (Handle, watch::Sender<Terms<R>>) {
        let (stop, stopping) = watch::channel(false);
        let (retire, retiring) = watch::channel(false);
        let (change, terms) = watch::channel(self.offer.with(relay));
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(accept(self.socket, terms, stopping, retiring, counts.clone()));
        (Handle { address: self.address, stop, retire, task, counts }, change)
    }
}

/// A listener at work. Dropping it stops accepting and asks the sessions to end.
#[derive(Debug)]
#[must_use = "dropping the handle stops the listener"]
pub struct Handle {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    retire: watch::Sender<bool>,
    task: JoinHandle<()>,
    counts: Arc<Counts>,
}

/// What a listener has seen since it began.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections: those accepted, and what else became of some.
    pub connections: Sums<Connected>,
    /// Of those that were accepted, ended.
    pub ended: AtomicU64,
    /// Replies that took nothing, whoever refused.
    pub refused: Sums<Refused>,
    /// Those who said who they are.
    pub logins: Sums<LoggedIn>,
}

impl Handle {
    /// What it has seen so far.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// The address that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it accepts no more and its last session has ended.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops accepting and gives the address up; sessions go on as they began.
    pub fn retire(&self) {
        let _ = self.retire.send(true);
    }

    /// Stops accepting at once, ends idle sessions with 421, lets open transactions finish for up to `grace`, then cuts the rest off. A
    /// [`Relay::message`] that is under way is not stopped even then. Says whether all sessions ended by themselves.
    pub async fn shut_down(mut self, grace: Duration) -> bool {
        let _ = self.stop.send(true);
        let ended = tokio::time::timeout(grace, &mut self.task).await.is_ok();
        if !ended {
            self.task.abort();
            let _ = (&mut self.task).await;
        }
        ended
    }
}

async fn accept<R: Relay>(
    socket: TcpListener,
    terms: watch::Receiver<Terms<R>>,
    mut stopping: watch::Receiver<bool>,
    mut retiring: watch::Receiver<bool>,
    counts: Arc<Counts>,
) {
    let clients = Arc::new(Clients::default());
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.changed() => break,
            _ = retiring.changed() => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
            accepted = socket.accept() => accepted,
        };
        let context = Arc::clone(&terms.borrow().0);
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, SocketAddr::new(address.ip().to_canonical(), address.port())),
            Err(error) => {
                // One connection's failure (reset before it was accepted), or no descriptors: neither ends the listener.
                warn!(listener = %context.listener.name, %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if sessions.len() >= context.limits.connections {
            warn!(listener = %context.listener.name, %address, "too many connections");
            counts.connections.one(Connected::TurnedAway);
            turn_away(stream, &context);
            continue;
        }
        counts.connections.one(Connected::Accepted);
        let counted = Counted(Arc::clone(&counts));
        let session = attend(stream, address, context, Arc::clone(&clients), stopping.clone(), counted);
        sessions.spawn(watched("session", session));
    }
    drop(socket);
    while sessions.join_next().await.is_some() {}
}

/// One connection to its end: who it is, whether it may have one more, the session.
async fn attend<R: Relay>(
    mut stream: TcpStream,
    mut address: SocketAddr,
    context: Arc<Context<R>>,
    clients: Arc<Clients>,
    stopping: watch::Receiver<bool>,
    counted: Counted,
) {
    if context.listener.is_proxy(address.ip()) {
        match proxied::client(&mut stream, address).await {
            Ok(client) => address = client,
            Err(error) => {
                warn!(listener = %context.listener.name, proxy = %address, %error, "a proxy's connection is closed");
                counted.0.connections.one(Connected::Unproxied);
                return;
            }
        }
    }
    let Some(_place) = clients.enter(address.ip(), context.limits.connections_per_client) else {
        warn!(listener = %context.listener.name, %address, "too many connections of this client");
        counted.0.connections.one(Connected::TurnedAway);
        turn_away(stream, &context);
        return;
    };
    let _ = stream.set_nodelay(true);
    let delay = context.listener.greeting_delay;
    let mut early = context.tls_from_start().is_none() && talks_already(&stream);
    if !early && !delay.is_zero() && context.tls_from_start().is_none() && !context.listener.trusts(address.ip()) {
        early = talks_within(delay, &stream, stopping.clone()).await;
    }
    if early {
        counted.0.connections.one(Connected::Early);
        info!(listener = %context.listener.name, %address, "refused: it talked before the greeting");
    }
    if let Err(error) = connection::serve(stream, address, early, context, counted.0.clone(), stopping).await {
        debug!(%address, %error, "connection lost");
    }
}

/// One client that a program brings on a stream of its own, to the end of it. `tls`: it came to that program over TLS.
#[cfg(feature = "samotop")]
pub(super) async fn attend_given<R: Relay>(
    stream: tokio::io::DuplexStream,
    address: SocketAddr,
    tls: bool,
    terms: Terms<R>,
    stopping: watch::Receiver<bool>,
) {
    let session = connection::serve_given(stream, address, tls, terms.0, stopping);
    if let Err(error) = watched("session", session).await {
        debug!(%address, %error, "connection lost");
    }
}

/// Whether the client sent something before it was greeted. A first read by the runtime would not tell: it does not know yet
/// whether the socket is readable.
fn talks_already(stream: &TcpStream) -> bool {
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit(); 1]).is_ok_and(|octets| octets > 0)
}

/// Whether the client sends something within the delay. One that goes away, and a server that stops, end the wait.
async fn talks_within(delay: Duration, stream: &TcpStream, mut stopping: watch::Receiver<bool>) -> bool {
    let mut octet = [0; 1];
    tokio::select! {
        biased;
        peeked = stream.peek(&mut octet) => peeked.is_ok_and(|octets| octets > 0),
        _ = stopping.wait_for(|stops| *stops) => false,
        () = tokio::time::sleep(delay) => false,
    }
}

/// 421 without waiting for the client, whose socket buffer is empty yet.
fn turn_away<R>(stream: TcpStream, context: &Context<R>) {
    if context.tls_from_start().is_some() {
        return;
    }
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write_all(
            format!("421 4.7.0 {} too many connections; try again later\r\n", context.settings.hostname).as_bytes(),
        );
    }
}

/// A connection that is open; counted as ended when dropped.
struct Counted(Arc<Counts>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connections per client.
#[derive(Debug, Default)]
struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// A connection's place; given back when dropped.
struct Place {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Place> {
        let client = client_of(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place { clients: Arc::clone(self), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// One client is an IPv4 address or an IPv6 /64, which is what one customer is given.
pub(super) fn client_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests;

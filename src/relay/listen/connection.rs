//! One connection: a `Session` driven over a stream, the `Relay` asked at each step.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error};
use zeroize::Zeroizing;

use super::auth::{Later, NotIn};
use super::{Answer, Counts, Peer, Relay, auth, tls};
use crate::address::{Mailbox, ReversePath};
use crate::config::{Limits, ListenTls, Listener};
use crate::discovery::sources::login::Logins;
use crate::metrics::{Connected, LoggedIn, Refused};
use crate::relay::heavy::HEAVY;
use crate::relay::polls::{Turn, watched};
use crate::smtp::command::{Enhanced, MailParameters, Recipient, Reply};
use crate::smtp::data::LineEnds;
use crate::smtp::session::{Event, Session, Settings, Verdict};
use crate::smtp::xclient::ClientAttributes;

/// Room for input while nothing is under way: all that an idle connection keeps.
const IDLE_ROOM: usize = 1024;
/// Room for input inside a transaction and for the first octets of content.
const ROOM: usize = 16 * 1024;
/// Room for input once content is known to be long.
const CONTENT_ROOM: usize = 64 * 1024;
/// Octets of content for which room is made on the word of SIZE alone.
const DECLARED_ROOM: u64 = 4 << 20;
/// Octets of content between two calls of `Relay::growing`.
const GROWING_STEP: u64 = 64 * 1024;
/// Before the minimum rate of content is looked at.
const RATE_GRACE: Duration = Duration::from_secs(30);
/// Longest silence inside content (RFC 5321 section 4.5.3.2.5).
const CONTENT_SILENCE: Duration = Duration::from_secs(180);
/// For the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// How long, and how many octets, a closed connection is still read so that its last reply is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_OCTETS: usize = 256 * 1024;

/// What all connections of a listener share.
pub(super) struct Context<R> {
    pub(super) relay: Arc<R>,
    pub(super) listener: Arc<Listener>,
    pub(super) settings: Arc<Settings>,
    pub(super) limits: Limits,
    pub(super) tls: Option<TlsAcceptor>,
    /// Who may authenticate, where a directory says it.
    pub(super) directory: Option<Arc<Logins>>,
}

impl<R> Context<R> {
    /// The acceptor, where TLS starts with the first octet.
    pub(super) fn tls_from_start(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref().filter(|_| matches!(self.listener.tls, ListenTls::Implicit { .. }))
    }
}

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    StartTls,
}

/// Serves a connection to its end. `early`: the client talked before it was greeted (A19). An error is a connection that was lost.
pub(super) async fn serve<S, R>(
    mut stream: S,
    address: SocketAddr,
    early: bool,
    context: Arc<Context<R>>,
    counts: Arc<Counts>,
    stopping: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    R: Relay,
{
    if context.tls_from_start().is_some() {
        let mut conversation = Conversation::new(address, true, context, counts, stopping);
        conversation.session.greet();
        return Box::pin(conversation.over_tls(stream)).await;
    }
    let mut conversation = Conversation::new(address, false, context, counts, stopping);
    if early {
        conversation.refuse_early_talker(&mut stream).await?;
        return close(&mut stream).await;
    }
    conversation.session.greet();
    match conversation.run(&mut stream).await? {
        End::Closed => close(&mut stream).await,
        End::StartTls => Box::pin(conversation.over_tls(stream)).await,
    }
}

/// Serves a stream to its end whose TLS, if any, is somebody else's.
#[cfg(feature = "samotop")]
pub(super) async fn serve_given<S, R>(
    mut stream: S,
    address: SocketAddr,
    tls: bool,
    context: Arc<Context<R>>,
    stopping: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    R: Relay,
{
    // Those of a listener are told by its name; this has none that takes connections.
    let mut conversation = Conversation::new(address, tls, context, Arc::default(), stopping);
    conversation.session.greet();
    conversation.run(&mut stream).await.map(|_| ())
}

/// The last octets are written; what the client still sends is read and dropped, since closing with input unread resets the connection.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let drain = async {
        stream.shutdown().await?;
        let mut room = BytesMut::with_capacity(IDLE_ROOM);
        let mut total = 0;
        while total < LINGER_OCTETS {
            room.clear();
            match stream.read_buf(&mut room).await? {
                0 => break,
                octets => total += octets,
            }
        }
        Ok(())
    };
    timeout(LINGER, drain).await.unwrap_or(Ok(()))
}

struct Conversation<R: Relay> {
    session: Session,
    context: Arc<Context<R>>,
    counts: Arc<Counts>,
    address: SocketAddr,
    /// Who authenticated.
    user: Option<Box<str>>,
    /// His addresses, by a directory.
    sends_as: Option<Arc<[Mailbox]>>,
    trusted: bool,
    tls: bool,
    /// The client's certificate is the tenant's.
    certified: bool,
    peer: Option<Arc<Peer>>,
    transaction: Option<R::Transaction>,
    content: Content,
    /// By when the command has to be complete.
    deadline: Instant,
    stopping: watch::Receiver<bool>,
    /// The input has more room than an idle connection may keep.
    roomy: bool,
}

/// Content as it comes in.
struct Content {
    octets: BytesMut,
    /// What `Relay::growing` heard last.
    told: u64,
    started: Instant,
    /// Octets read from the wire.
    received: u64,
}

impl Content {
    fn new(room: usize) -> Self {
        Content { octets: BytesMut::with_capacity(room), told: 0, started: Instant::now(), received: 0 }
    }

    fn len(&self) -> u64 {
        self.octets.len() as u64
    }

    /// Room for what the next read brings. The system may copy all that came to find it: where that is much, elsewhere.
    async fn make_room(&mut self) -> io::Result<()> {
        let (len, capacity) = (self.octets.len(), self.octets.capacity());
        if len > HEAVY && capacity - len < 2 * CONTENT_ROOM {
            let mut octets = std::mem::take(&mut self.octets);
            let growing = spawn_blocking(move || {
                octets.reserve(len);
                octets
            });
            self.octets = growing.await.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// By when more content has to be there: the whole, the minimum rate so far, and the longest silence.
fn content_deadline(started: Instant, now: Instant, received: u64, limits: &Limits) -> Instant {
    let paid = Duration::from_secs(received / limits.data_rate.max(1));
    let budget = limits.data_timeout.min(paid.max(RATE_GRACE));
    (started + budget).min(now + limits.command_timeout.min(CONTENT_SILENCE))
}

/// Whether it is trusted, and what becomes of its line ends.
fn terms_of(listener: &Listener, address: SocketAddr) -> (bool, LineEnds) {
    let trusted = listener.trusts(address.ip());
    (trusted, if trusted && listener.repair_line_ends { LineEnds::Repair } else { LineEnds::Refuse })
}

impl<R: Relay> Conversation<R> {
    fn new(
        address: SocketAddr,
        tls: bool,
        context: Arc<Context<R>>,
        counts: Arc<Counts>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let (trusted, line_ends) = terms_of(&context.listener, address);
        let mut session = Session::new(Arc::clone(&context.settings), line_ends, tls);
        if context.listener.believes(address.ip()) {
            session.allow_xclient();
        }
        if context.listener.hears_of_clients_from(address.ip()) {
            session.allow_xforward();
        }
        let deadline = Instant::now() + context.limits.command_timeout;
        Conversation {
            session,
            context,
            counts,
            address,
            user: None,
            sends_as: None,
            trusted,
            tls,
            certified: false,
            peer: None,
            transaction: None,
            content: Content::new(0),
            deadline,
            stopping,
            roomy: false,
        }
    }

    async fn refuse_early_talker<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        let _ = self.session.step(b"\r\n");
        self.flush(stream).await
    }

    /// The handshake, and the session over it. The future is kept in a box by its callers, so that connections without TLS stay small.
    async fn over_tls<S: AsyncRead + AsyncWrite + Unpin + Send>(mut self, stream: S) -> io::Result<()> {
        let acceptor = self.context.tls.clone().ok_or_else(|| io::Error::other("TLS without a certificate"))?;
        let limit = HANDSHAKE.min(self.context.limits.command_timeout);
        let accepted = timeout(limit, acceptor.accept(stream)).await;
        let accepted = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut stream = accepted.inspect_err(|_| self.counts.connections.one(Connected::TlsFailed))?;
        self.tls = true;
        self.certified = tls::is_tenants(&self.context.listener, stream.get_ref().1.peer_certificates());
        self.peer = None;
        (self.user, self.sends_as) = (None, None);
        self.session.tls_established();
        self.run(&mut stream).await?;
        close(&mut stream).await
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(&mut self, stream: &mut S) -> io::Result<End> {
        let mut input = BytesMut::new();
        let mut turn = Turn::default();
        self.deadline = Instant::now() + self.context.limits.command_timeout;
        loop {
            let end = self.eat(&mut input).await;
            if self.session.has_output() {
                self.flush(stream).await?;
            }
            if let Some(end) = end {
                return Ok(end);
            }
            self.content.make_room().await?;
            match self.read(stream, &mut input).await? {
                Some(0) => return Ok(End::Closed),
                Some(octets) => {
                    self.content.received = self.content.received.saturating_add(octets as u64);
                    if turn.over(octets) {
                        yield_now().await;
                    }
                }
                None => {
                    self.drop_transaction();
                    self.flush(stream).await?;
                    return Ok(End::Closed);
                }
            }
        }
    }

    /// All that the session makes of the input. Replies wait for the end of it, so that pipelined commands are answered in one write.
    async fn eat(&mut self, input: &mut BytesMut) -> Option<End> {
        loop {
            let step = self.session.step(input);
            let mut eaten = step.eaten;
            let Some(event) = step.event else {
                input.advance(eaten);
                if self.session.has_output() {
                    self.deadline = Instant::now() + self.context.limits.command_timeout;
                }
                return None;
            };
            let then = match event {
                Event::Content(octets) => {
                    take_content(
                        &*self.context.relay,
                        &mut self.session,
                        &mut self.transaction,
                        &mut self.content,
                        octets,
                    );
                    None
                }
                Event::Mail(reverse_path, parameters) => self.mail(reverse_path, parameters).await,
                Event::Rcpt(recipient) => {
                    let (octets, close) = self.rcpts(recipient, input.get(eaten..).unwrap_or_default()).await;
                    eaten += octets;
                    close
                }
                Event::Message => self.message().await,
                Event::Hello { name, extended } => {
                    self.hello(name, extended);
                    None
                }
                Event::Password(user, password) => {
                    self.password(user, password).await;
                    None
                }
                Event::Verifier(user) => {
                    let users = self.context.listener.users.clone().unwrap_or_default();
                    let kept = auth::kept(&users, self.address.ip(), &user);
                    self.session.answer_verifier(kept.map_err(|why| self.not_in(&why)));
                    None
                }
                Event::Authenticated(user) => {
                    self.counts.logins.one(LoggedIn::Done);
                    self.authenticated(user);
                    None
                }
                Event::NotAuthenticated(user) => {
                    self.counts.logins.one(LoggedIn::Wrong);
                    auth::failed(self.address.ip(), &user);
                    None
                }
                Event::Client(attributes) => {
                    self.client(*attributes);
                    None
                }
                Event::ContentStart(size) => {
                    let room = size.unwrap_or(0).min(self.context.limits.message_size).min(DECLARED_ROOM);
                    self.content = Content::new(usize::try_from(room).unwrap_or(0));
                    None
                }
                Event::Reset => {
                    self.drop_transaction();
                    None
                }
                other @ (Event::StartTls | Event::Close) => Some(matches!(other, Event::StartTls)),
            };
            input.advance(eaten);
            if let Some(starttls) = then {
                self.drop_transaction();
                // A17: octets behind STARTTLS make the session close without a word.
                if !starttls || !input.is_empty() {
                    let _ = self.session.step(input);
                    return Some(End::Closed);
                }
                return Some(End::StartTls);
            }
        }
    }

    fn drop_transaction(&mut self) {
        self.transaction = None;
        self.content.octets = BytesMut::new();
    }

    fn hello(&mut self, helo: String, extended: bool) {
        self.drop_transaction();
        self.peer = Some(Arc::new(Peer {
            address: self.address,
            helo,
            extended,
            tls: self.tls,
            listener: Arc::clone(&self.context.listener),
            trusted: self.trusted,
            user: self.user.as_deref().map(str::to_owned),
            sends_as: self.sends_as.clone().unwrap_or_default(),
            certified: self.certified,
        }));
    }

    async fn password(&mut self, user: String, password: Zeroizing<String>) {
        let client = self.address.ip();
        let judged = match &self.context.directory {
            Some(directory) => Box::pin(auth::judge_by(directory, client, &user, password)).await,
            None => {
                let users = self.context.listener.users.clone().unwrap_or_default();
                Box::pin(auth::judge(&users, client, &user, password)).await.map(|()| (user, None))
            }
        };
        match judged {
            Ok((user, sends_as)) => {
                self.counts.logins.one(LoggedIn::Done);
                self.session.answer_password(&Verdict::Right);
                self.sends_as = sends_as;
                self.authenticated(user);
            }
            Err(NotIn::Wrong) => {
                self.counts.logins.one(LoggedIn::Wrong);
                self.session.answer_password(&Verdict::Wrong);
            }
            Err(NotIn::Later(why)) => {
                let reply = self.not_in(&why);
                self.session.answer_password(&Verdict::Later(reply));
            }
        }
    }

    /// It is not said who he is: the reply.
    fn not_in(&self, why: &Later) -> Reply {
        self.counts.logins.one(match why {
            Later::Barred => LoggedIn::Barred,
            Later::Unjudged => LoggedIn::Unjudged,
        });
        why.reply()
    }

    /// Holds until the connection ends: what EHLO said stays.
    fn authenticated(&mut self, user: String) {
        if let Some(peer) = &self.peer {
            let sends_as = self.sends_as.clone().unwrap_or_default();
            self.peer = Some(Arc::new(Peer { user: Some(user.clone()), sends_as, ..Peer::clone(peer) }));
        }
        self.user = Some(user.into_boxed_str());
    }

    /// A trusted proxy says who its client is: trust is judged anew by the client's address.
    fn client(&mut self, attributes: ClientAttributes) {
        self.drop_transaction();
        self.peer = None;
        if let Some(address) = attributes.address {
            self.address = SocketAddr::new(address, attributes.port.unwrap_or(0));
            let (trusted, line_ends) = terms_of(&self.context.listener, self.address);
            self.trusted = trusted;
            self.session.set_line_ends(line_ends);
        }
        if let Some(login) = attributes.login {
            self.session.set_authenticated(login.is_some());
            self.sends_as = None;
            self.user = login.map(String::into_boxed_str);
        }
    }

    /// `Some(false)`: close.
    async fn mail(&mut self, reverse_path: ReversePath, parameters: MailParameters) -> Option<bool> {
        let reply = match &self.peer {
            // In a box, here and below: what the relay needs must not make idle connections bigger.
            Some(peer) => match Box::pin(self.context.relay.mail(peer, reverse_path, parameters)).await {
                Ok(transaction) => {
                    self.transaction = Some(transaction);
                    Reply::new(250, Enhanced(2, 1, 0), "sender ok")
                }
                Err(reply) if reply.is_positive() => internal(),
                Err(reply) => reply,
            },
            None => internal(),
        };
        self.session.answer(&reply).map(|_| false)
    }

    /// A recipient and those behind him in the input, octets of which are dealt with: what a client pipelines is asked about together.
    /// `Some(false)`: close.
    async fn rcpts(&mut self, first: Recipient, input: &[u8]) -> (usize, Option<bool>) {
        let (mut recipients, mut eaten) = (vec![first], 0);
        while let Some((octets, recipient)) = self.session.further_rcpt(input.get(eaten..).unwrap_or_default()) {
            eaten += octets;
            recipients.push(recipient);
        }
        let replies = match &mut self.transaction {
            Some(transaction) => Box::pin(self.context.relay.rcpts(transaction, recipients)).await,
            None => vec![internal(); recipients.len()],
        };
        (eaten, replies.iter().find_map(|reply| self.session.answer(reply)).map(|_| false))
    }

    /// From the final dot on the mail may be taken, so nothing that happens to the connection stops the relay: it has a task of its own.
    /// `Some(false)`: close.
    async fn message(&mut self) -> Option<bool> {
        let content = std::mem::replace(&mut self.content, Content::new(0));
        let Some(mut transaction) = self.transaction.take() else {
            self.session.answer_message(&[internal()]);
            return None;
        };
        if content.len() > content.told
            && let Err(reply) = self.context.relay.growing(&mut transaction, content.len())
        {
            self.session.answer_message(&[reply]);
            return None;
        }
        let relay = Arc::clone(&self.context.relay);
        let octets = content.octets.freeze();
        let task = tokio::spawn(watched("message", async move { relay.message(transaction, octets).await }));
        match task.await {
            Ok(Answer::All(reply)) => self.session.answer_message(&[reply]),
            Ok(Answer::Each(replies)) => self.session.answer_message(&replies),
            Ok(Answer::Closed) => return Some(false),
            Err(failure) => {
                error!(address = %self.address, %failure, "a message's work was broken off");
                self.session.answer_message(&[internal()]);
            }
        }
        None
    }

    /// `Some(0)`: the client closed; `None`: out of time, or the server stops; the session has its last reply ready.
    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S, input: &mut BytesMut) -> io::Result<Option<usize>> {
        let in_content = self.session.in_content();
        let idle = !self.session.in_transaction();
        if idle && *self.stopping.borrow() {
            self.session.shut_down();
            return Ok(None);
        }
        let deadline = if in_content {
            content_deadline(self.content.started, Instant::now(), self.content.received, &self.context.limits)
        } else {
            self.deadline
        };
        make_room(input, &mut self.roomy, idle, in_content && self.content.received >= ROOM as u64);
        let read = tokio::select! {
            biased;
            read = timeout_at(deadline, stream.read_buf(input)) => read,
            _ = self.stopping.changed(), if idle => {
                self.session.shut_down();
                return Ok(None);
            }
        };
        match read {
            Ok(read) => read.map(Some),
            Err(_) => {
                debug!(address = %self.address, in_content, "too slow");
                self.session.time_out();
                Ok(None)
            }
        }
    }

    async fn flush<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        let output = self.session.take_output();
        let lines = output.as_ref().split(|octet| *octet == b'\n');
        lines.filter_map(Refused::of).for_each(|code| self.counts.refused.one(code));
        let write = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        timeout(self.context.limits.command_timeout, write)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// Adds to the content, and tells the relay now and then; when it refuses, the transaction is given up and the rest eaten.
fn take_content<R: Relay>(
    relay: &R,
    session: &mut Session,
    transaction: &mut Option<R::Transaction>,
    content: &mut Content,
    octets: &[u8],
) {
    let Some(open) = transaction else { return };
    let total = content.len().saturating_add(octets.len() as u64);
    if total - content.told >= GROWING_STEP {
        content.told = total;
        if let Err(reply) = relay.growing(open, total) {
            session.refuse_content(&reply);
            *transaction = None;
            content.octets = BytesMut::new();
            return;
        }
    }
    content.octets.extend_from_slice(octets);
}

/// Room for the next read: little while nothing is under way, so that idle connections cost little.
fn make_room(input: &mut BytesMut, roomy: &mut bool, idle: bool, long: bool) {
    if idle && *roomy {
        *input = BytesMut::from(input.as_ref());
    }
    *roomy = !idle;
    let room = match (idle, long) {
        (true, _) => IDLE_ROOM,
        (false, false) => ROOM,
        (false, true) => CONTENT_ROOM,
    };
    if input.capacity() - input.len() < room / 2 {
        input.reserve(room);
    }
}

fn internal() -> Reply {
    Reply::new(451, Enhanced(4, 3, 0), "internal error; try again later")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_for_much_content_is_made_before_it_comes_and_keeps_what_came() {
        let mut content = Content::new(0);
        for octets in 0..64_u8 {
            content.make_room().await.unwrap();
            let room = content.octets.capacity() - content.octets.len();
            assert!(content.octets.len() <= HEAVY || room >= 2 * CONTENT_ROOM, "{room}");
            content.octets.extend_from_slice(&[octets; CONTENT_ROOM]);
        }
        assert_eq!(content.len(), 64 * CONTENT_ROOM as u64);
        let kept = content.octets.chunks(CONTENT_ROOM).zip(0..);
        assert!(kept.into_iter().all(|(chunk, octets)| chunk.iter().all(|one| *one == octets)));
    }

    #[test]
    fn a20_room_is_given_back_and_what_was_read_is_kept() {
        let (mut input, mut roomy) = (BytesMut::new(), false);
        make_room(&mut input, &mut roomy, true, false);
        assert!((IDLE_ROOM / 2..=2 * IDLE_ROOM).contains(&input.capacity()));
        make_room(&mut input, &mut roomy, false, true);
        assert!(input.capacity() >= CONTENT_ROOM);
        input.extend_from_slice(&vec![b'x'; CONTENT_ROOM - 10]);
        input.advance(CONTENT_ROOM - 14);
        make_room(&mut input, &mut roomy, true, false);
        assert_eq!(input.as_ref(), b"xxxx");
        assert!(input.capacity() <= 2 * IDLE_ROOM);
    }

    #[test]
    fn a20_content_has_to_come_at_the_minimum_rate() {
        let limits = Limits {
            data_rate: 1000,
            data_timeout: Duration::from_secs(600),
            command_timeout: Duration::from_secs(300),
            ..Limits::default()
        };
        let start = Instant::now();
        let due = |now: u64, received| {
            content_deadline(start, start + Duration::from_secs(now), received, &limits).duration_since(start).as_secs()
        };
        assert_eq!(due(0, 0), 30);
        assert_eq!(due(29, 29), 30, "a trickle gets the grace and no more");
        assert_eq!(due(10, 60_000), 60);
        assert_eq!(due(10, 100_000_000), 190, "what was fast may pause, but not for long");
        assert_eq!(due(590, 100_000_000), 600);
    }
}

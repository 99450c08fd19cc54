use super::*;
use crate::config::Direction;
use crate::metrics::Connected;
use crate::smtp::command::Enhanced;
use crate::smtp::session::{AuthOffer, Settings};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;

/// Takes what it is told to take and keeps it.
#[derive(Default)]
struct Kept {
    messages: Mutex<Vec<(Transaction, Bytes)>>,
    dropped: Arc<AtomicUsize>,
    peers: Mutex<Vec<Arc<Peer>>>,
    grown: Mutex<Vec<u64>>,
    /// `message` says when it has begun, and waits to be let on.
    hold: Option<(Notify, Notify)>,
    growth_limit: Option<u64>,
    panics: bool,
}

struct Transaction {
    recipients: Vec<Recipient>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Relay for Kept {
    type Transaction = Transaction;
    async fn mail(&self, peer: &Arc<Peer>, reverse_path: ReversePath, _: MailParameters) -> Result<Transaction, Reply> {
        self.peers.lock().unwrap().push(Arc::clone(peer));
        if reverse_path.to_string().starts_with("refuse") {
            return Err(Reply::new(550, Enhanced(5, 7, 1), "no"));
        }
        Ok(Transaction { recipients: vec![], dropped: Arc::clone(&self.dropped) })
    }
    async fn rcpt(&self, transaction: &mut Transaction, recipient: Recipient) -> Reply {
        tokio::task::yield_now().await;
        transaction.recipients.push(recipient);
        Reply::new(250, Enhanced(2, 1, 5), "ok")
    }
    fn growing(&self, _: &mut Transaction, octets: u64) -> Result<(), Reply> {
        self.grown.lock().unwrap().push(octets);
        if self.growth_limit.is_some_and(|limit| octets > limit) {
            Err(Reply::new(452, Enhanced(4, 3, 1), "full"))
        } else {
            Ok(())
        }
    }
    async fn message(&self, transaction: Transaction, content: Bytes) -> Answer {
        assert!(!self.panics, "on purpose");
        if let Some((begun, go_on)) = &self.hold {
            begun.notify_one();
            go_on.notified().await;
        }
        self.messages.lock().unwrap().push((transaction, content));
        Answer::All(Reply::new(250, Enhanced(2, 0, 0), "taken"))
    }
}

fn listener() -> Listener {
    Listener::new("test", "127.0.0.1:0".parse().unwrap(), Direction::Outbound)
}

fn context(relay: &Arc<Kept>, listener: Listener, limits: Limits) -> Arc<Context<Kept>> {
    let settings = Settings {
        hostname: Domain::parse("mx.example.org").unwrap(),
        postmaster: Mailbox::parse("postmaster@example.org").unwrap(),
        lmtp: listener.lmtp,
        starttls: false,
        tls_required: false,
        auth: if listener.users.is_some() { AuthOffer::Always } else { AuthOffer::Off },
        scram: true,
        message_size: limits.message_size,
        recipients: limits.recipients,
    };
    Arc::new(Context {
        relay: Arc::clone(relay),
        listener: Arc::new(listener),
        settings: Arc::new(settings),
        limits,
        tls: None,
        directory: None,
    })
}

/// A session in memory: the client's end, and the watch that stops it.
fn in_memory(relay: &Arc<Kept>, listener: Listener, limits: Limits) -> (DuplexStream, watch::Sender<bool>) {
    let (client, server) = duplex(1 << 16);
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(connection::serve(
        server,
        "192.0.2.1:25".parse().unwrap(),
        false,
        context(relay, listener, limits),
        Arc::default(),
        stopping,
    ));
    (client, stop)
}

/// Reads until the octets read end with the line that begins with `last`.
async fn read_to<S: AsyncRead + Unpin>(client: &mut S, last: &str) -> String {
    let mut text = String::new();
    loop {
        let mut octets = [0; 4096];
        let count = client.read(&mut octets).await.unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&octets[..count]).unwrap());
        if text.ends_with("\r\n") && text.lines().last().unwrap().starts_with(last) {
            return text;
        }
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(client: &mut S, octets: &[u8], last: &str) -> String {
    client.write_all(octets).await.unwrap();
    read_to(client, last).await
}

const ENVELOPE: &[u8] = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n";

async fn to_content<S: AsyncRead + AsyncWrite + Unpin>(client: &mut S) {
    read_to(client, "220 ").await;
    say(client, b"EHLO client\r\n", "250 ").await;
    say(client, ENVELOPE, "354 ").await;
}

#[tokio::test]
async fn a_pipelined_mail_is_answered_in_batches_and_handed_on_whole() {
    let relay = Arc::new(Kept::default());
    let (mut client, _stop) = in_memory(&relay, listener(), Limits::default());
    assert_eq!(read_to(&mut client, "220 ").await, "220 mx.example.org ESMTP\r\n");
    say(&mut client, b"EHLO client\r\n", "250 ").await;
    client.write_all(ENVELOPE).await.unwrap();
    // Replies that were written in one go are read in one go.
    let mut octets = [0; 4096];
    let count = client.read(&mut octets).await.unwrap();
    assert_eq!(octets[..count].split(|octet| *octet == b'\n').count(), 5);
    let body = b"line\r\n".repeat(100_000);
    let content = async {
        client.write_all(&body).await.unwrap();
        say(&mut client, b".\r\n", "250 ").await
    };
    assert_eq!(content.await, "250 2.0.0 taken\r\n");
    let messages = relay.messages.lock().unwrap();
    assert_eq!(messages[0].1, body);
    assert_eq!(messages[0].0.recipients.len(), 2);
    let peer = relay.peers.lock().unwrap()[0].clone();
    assert_eq!((peer.helo.as_str(), peer.extended, peer.tls, peer.trusted), ("client", true, false, false));
    let grown = relay.grown.lock().unwrap();
    assert_eq!(grown.last(), Some(&(body.len() as u64)));
    assert!(grown.is_sorted() && (5..30).contains(&grown.len()), "{grown:?}");
}

#[tokio::test]
async fn content_is_refused_while_it_grows() {
    let relay = Arc::new(Kept { growth_limit: Some(100_000), ..Kept::default() });
    let (mut client, _stop) = in_memory(&relay, listener(), Limits::default());
    to_content(&mut client).await;
    client.write_all(&b"line\r\n".repeat(100_000)).await.unwrap();
    assert_eq!(say(&mut client, b".\r\n", "452 ").await, "452 4.3.1 full\r\n");
    assert_eq!(relay.dropped.load(Ordering::SeqCst), 1);
    say(&mut client, ENVELOPE, "354 ").await;
    say(&mut client, b".\r\n", "250 ").await;
}

const TO_ONE: &[u8] = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n";

/// Chunks are handed on as DATA is, and what is refused while it grows, or cut off, brings nothing.
#[tokio::test]
async fn a18_chunks_are_handed_on_whole_or_not_at_all() {
    let relay = Arc::new(Kept { growth_limit: Some(216_000), ..Kept::default() });
    let (mut client, _stop) = in_memory(&relay, listener(), Limits::default());
    read_to(&mut client, "220 ").await;
    say(&mut client, b"EHLO client\r\n", "250 ").await;
    // The fourth is refused however it is read: what is told lags by less than a chunk.
    let chunk = b"line\r\n".repeat(12_000);
    let (mut reader, mut writer) = tokio::io::split(client);
    for (number, expected) in
        [(3, ["250"; 6].to_vec()), (5, ["250", "250", "250", "250", "250", "452", "452", "452"].to_vec())]
    {
        let chunks = [format!("BDAT {}\r\n", chunk.len()).as_bytes(), &chunk].concat().repeat(number);
        let wire = [TO_ONE, &chunks, b"BDAT 0 LAST\r\n"].concat();
        let read = async {
            let mut said = String::new();
            while said.lines().count() < expected.len() {
                said.push_str(&read_to(&mut reader, "").await);
            }
            said.lines().map(|line| line.split([' ', '-']).next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let (_, codes) = tokio::join!(writer.write_all(&wire), read);
        assert_eq!(codes, expected);
    }
    let mut client = reader.unsplit(writer);
    client.write_all(TO_ONE).await.unwrap();
    client.write_all(b"BDAT 9 LAST\r\nhalf\r\n").await.unwrap();
    drop(client);
    while relay.dropped.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let messages = relay.messages.lock().unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].1, chunk.repeat(3));
}

#[tokio::test]
async fn a_lost_connection_drops_the_transaction() {
    let relay = Arc::new(Kept::default());
    let (client, server) = duplex(1 << 16);
    let (_stop, stopping) = watch::channel(false);
    let session = tokio::spawn(connection::serve(
        server,
        "192.0.2.1:25".parse().unwrap(),
        false,
        context(&relay, listener(), Limits::default()),
        Arc::default(),
        stopping,
    ));
    let mut client = client;
    to_content(&mut client).await;
    client.write_all(b"half").await.unwrap();
    drop(client);
    let _ = session.await.unwrap();
    assert_eq!((relay.dropped.load(Ordering::SeqCst), relay.messages.lock().unwrap().len()), (1, 0));
}

#[tokio::test]
async fn a_message_goes_on_when_the_client_is_gone() {
    let relay = Arc::new(Kept { hold: Some(Default::default()), ..Kept::default() });
    let (client, server) = duplex(1 << 16);
    let (_stop, stopping) = watch::channel(false);
    let session = tokio::spawn(connection::serve(
        server,
        "192.0.2.1:25".parse().unwrap(),
        false,
        context(&relay, listener(), Limits::default()),
        Arc::default(),
        stopping,
    ));
    let mut client = client;
    to_content(&mut client).await;
    client.write_all(b"x\r\n.\r\n").await.unwrap();
    let (begun, go_on) = relay.hold.as_ref().unwrap();
    begun.notified().await;
    drop(client);
    // Not even the end of the session stops it.
    session.abort();
    let _ = session.await;
    go_on.notify_one();
    while relay.messages.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_panic_is_451_for_that_message_alone() {
    let relay = Arc::new(Kept { panics: true, ..Kept::default() });
    let (mut client, _stop) = in_memory(&relay, listener(), Limits::default());
    to_content(&mut client).await;
    say(&mut client, b".\r\n", "451 4.3.0").await;
    say(&mut client, ENVELOPE, "354 ").await;
}

#[tokio::test]
async fn trusted_peers_have_their_line_ends_repaired() {
    for (network, repair, expected) in
        [("192.0.2.0/24", true, "250 "), ("192.0.2.0/24", false, "550 "), ("198.51.100.0/24", true, "550 ")]
    {
        let relay = Arc::new(Kept::default());
        let listener =
            Listener { trusted_networks: vec![network.parse().unwrap()], repair_line_ends: repair, ..listener() };
        let (mut client, _stop) = in_memory(&relay, listener, Limits::default());
        to_content(&mut client).await;
        say(&mut client, b"a\nb\r\n.\r\n", expected).await;
        assert_eq!(relay.peers.lock().unwrap()[0].trusted, network.starts_with("192"));
        assert!(relay.messages.lock().unwrap().iter().all(|(_, content)| content == "a\r\nb\r\n"));
    }
}

#[tokio::test]
async fn xclient_makes_the_client_another_and_trust_goes_by_him() {
    let networks = |networks: &[&str]| networks.iter().map(|network| network.parse().unwrap()).collect();
    for (address, trusted) in [("198.51.100.7", true), ("203.0.113.9", false)] {
        let relay = Arc::new(Kept::default());
        let listener = Listener {
            trusted_networks: networks(&["192.0.2.0/24", "198.51.100.0/24"]),
            xclient: networks(&["192.0.2.1/32"]),
            ..listener()
        };
        let (mut client, _stop) = in_memory(&relay, listener, Limits::default());
        read_to(&mut client, "220 ").await;
        say(&mut client, b"EHLO proxy\r\n", "250 ").await;
        let line = format!("XCLIENT ADDR={address} PORT=4711 LOGIN=anna@example.org\r\n");
        say(&mut client, line.as_bytes(), "220 ").await;
        say(&mut client, b"EHLO client.example\r\n", "250 ").await;
        say(&mut client, ENVELOPE, "354 ").await;
        let peers = relay.peers.lock().unwrap();
        assert_eq!(peers[0].address, format!("{address}:4711").parse().unwrap());
        assert_eq!((peers[0].trusted, peers[0].user.as_deref()), (trusted, Some("anna@example.org")));
        assert_eq!(peers[0].helo, "client.example");
    }
}

#[tokio::test]
async fn who_authenticates_is_known_and_may_relay() {
    let mut users = crate::config::Users::default();
    let argon2 = password_hash(b"correct horse").unwrap();
    users.set("anna@example.org", crate::config::User { argon2, scram: None }).unwrap();
    for (password, code) in [("correct horse", "235 "), ("wrong horse", "535 ")] {
        let relay = Arc::new(Kept::default());
        let listener = Listener { users: Some(Arc::new(users.clone())), auth_without_tls: true, ..listener() };
        let (mut client, _stop) = in_memory(&relay, listener, Limits::default());
        read_to(&mut client, "220 ").await;
        say(&mut client, b"EHLO client.example\r\n", "250 ").await;
        let response = format!("\0Anna@example.org\0{password}");
        let response = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, response);
        say(&mut client, format!("AUTH PLAIN {response}\r\n").as_bytes(), code).await;
        say(&mut client, ENVELOPE, "354 ").await;
        let peers = relay.peers.lock().unwrap();
        let right = code == "235 ";
        assert_eq!(peers[0].user.as_deref(), right.then_some("Anna@example.org"));
        assert_eq!((peers[0].trusted, peers[0].may_relay()), (false, right));
        assert_eq!(peers[0].helo, "client.example");
    }
}

/// Over sockets: the header is read before the greeting, and what is behind it at once is a client that talks too early.
#[tokio::test]
async fn the_address_behind_a_proxy_is_the_clients() {
    const FIRST: &[u8] = b"PROXY TCP4 198.51.100.7 192.0.2.5 4711 25\r\n";
    const SECOND: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\xc0\x00\x02\x05\x12\x67\0\x19";
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let relay = Arc::new(Kept::default());
    let listener = Listener {
        trusted_networks: vec!["198.51.100.0/24".parse().unwrap()],
        proxies: vec!["127.0.0.1/32".parse().unwrap()],
        ..listener()
    };
    let handle = start(listener, Limits::default(), &relay).await.serve(Arc::clone(&relay));
    for (header, expected) in [(FIRST, Some("198.51.100.7:4711")), (SECOND, Some("198.51.100.7:4711")), (LOCAL, None)] {
        let mut client = TcpStream::connect(handle.address()).await.unwrap();
        // In two pieces: a header may come in parts.
        client.write_all(&header[..13]).await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(&header[13..]).await.unwrap();
        read_to(&mut client, "220 ").await;
        say(&mut client, b"EHLO client.example\r\n", "250 ").await;
        say(&mut client, ENVELOPE, "354 ").await;
        let peer = relay.peers.lock().unwrap().pop().unwrap();
        assert_eq!(peer.trusted, expected.is_some());
        match expected {
            Some(expected) => assert_eq!(peer.address, expected.parse().unwrap()),
            None => assert!(peer.address.ip().is_loopback()),
        }
    }
    // No header: closed without a word, and nothing was taken.
    for wrong in [&b"EHLO client.example\r\n"[..], b"PROXY TCP4 nonsense\r\n"] {
        let mut client = TcpStream::connect(handle.address()).await.unwrap();
        client.write_all(wrong).await.unwrap();
        let mut rest = Vec::new();
        // What was not read makes it a reset.
        let _ = client.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    }
    assert!(relay.peers.lock().unwrap().is_empty());
    assert!(handle.shut_down(Duration::from_secs(10)).await);
}

/// A header of the PROXY protocol from who is no proxy is talk before the greeting.
#[tokio::test]
async fn a_header_from_elsewhere_is_refused() {
    let relay = Arc::new(Kept::default());
    let listener = Listener { proxies: vec!["192.0.2.1/32".parse().unwrap()], ..listener() };
    let handle = start(listener, Limits::default(), &relay).await.serve(Arc::clone(&relay));
    let mut client = TcpStream::connect(handle.address()).await.unwrap();
    client.write_all(b"PROXY TCP4 198.51.100.7 192.0.2.5 4711 25\r\nQUIT\r\n").await.unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("554 5.5.1 you talked") || said.contains("\r\n554 5.5.1 you talked"), "{said:?}");
    assert!(handle.shut_down(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a20_a_slow_writer_is_cut() {
    let short = Duration::from_millis(30);
    let command = Limits { command_timeout: short, ..Limits::default() };
    let data = Limits { data_timeout: short, ..Limits::default() };
    // An octet comes now and then: of a command, of a line that is too long already, of content.
    for (limits, first, in_content) in [(command.clone(), 1, false), (command, 5000, false), (data, 1, true)] {
        let relay = Arc::new(Kept::default());
        let (mut client, _stop) = in_memory(&relay, listener(), limits);
        if in_content {
            to_content(&mut client).await;
        } else {
            read_to(&mut client, "220 ").await;
        }
        let (mut reader, mut writer) = tokio::io::split(client);
        let trickle = tokio::spawn(async move {
            writer.write_all(&vec![b'x'; first]).await.unwrap();
            while writer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let mut rest = String::new();
        let cut = tokio::time::timeout(Duration::from_secs(60), reader.read_to_string(&mut rest));
        cut.await.expect("never cut").unwrap();
        assert_eq!(rest, "421 4.4.2 mx.example.org waited too long\r\n");
        assert_eq!(relay.messages.lock().unwrap().len(), 0);
        assert_eq!(relay.dropped.load(Ordering::SeqCst), usize::from(in_content));
        trickle.abort();
    }
}

/// The task of an idle connection, its input included. TLS adds what rustls keeps.
#[test]
fn a20_an_idle_connection_is_small() {
    let relay = Arc::new(Kept::default());
    let (_client, server) = duplex(1);
    let (_stop, stopping) = watch::channel(false);
    let session = connection::serve(
        server,
        "192.0.2.1:25".parse().unwrap(),
        false,
        context(&relay, listener(), Limits::default()),
        Arc::default(),
        stopping,
    );
    let size = size_of_val(&session);
    assert!(size <= 2048, "{size}");
}

async fn start(listener: Listener, limits: Limits, relay: &Arc<Kept>) -> Bound {
    let _ = relay;
    bind(
        Arc::new(listener),
        Domain::parse("mx.example.org").unwrap(),
        Mailbox::parse("postmaster@example.org").unwrap(),
        &limits,
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn a19_an_early_talker_is_refused() {
    let relay = Arc::new(Kept::default());
    let bound = start(listener(), Limits::default(), &relay).await;
    let mut client = TcpStream::connect(bound.address()).await.unwrap();
    client.write_all(b"EHLO early\r\nMAIL FROM:<a@b>\r\n").await.unwrap();
    let _handle = bound.serve(Arc::clone(&relay));
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "554 5.5.1 you talked before the greeting\r\n");
    assert!(relay.peers.lock().unwrap().is_empty());
}

/// With a delay before the greeting, who does not wait is refused at once; who waits is greeted, and so is who is trusted, without a delay.
#[tokio::test]
async fn a19_who_does_not_wait_for_a_delayed_greeting_is_refused() {
    let relay = Arc::new(Kept::default());
    let slow = Listener { greeting_delay: Duration::from_secs(3600), ..listener() };
    let handle = start(slow.clone(), Limits::default(), &relay).await.serve(Arc::clone(&relay));
    let mut client = TcpStream::connect(handle.address()).await.unwrap();
    client.set_nodelay(true).unwrap();
    // The server waits already.
    while handle.counts().connections.get(Connected::Accepted) == 0 {
        tokio::task::yield_now().await;
    }
    client.write_all(b"EHLO early\r\n").await.unwrap();
    let mut rest = String::new();
    let heard = tokio::time::timeout(Duration::from_secs(60), client.read_to_string(&mut rest)).await;
    heard.expect("who talks early waits for the whole delay").unwrap();
    assert_eq!(rest, "554 5.5.1 you talked before the greeting\r\n");
    assert_eq!(handle.counts().connections.get(Connected::Early), 1);
    // One that waits for its greeting does not hold up the end.
    let waits = TcpStream::connect(handle.address()).await.unwrap();
    while handle.counts().connections.get(Connected::Accepted) == 1 {
        tokio::task::yield_now().await;
    }
    assert!(handle.shut_down(Duration::from_secs(60)).await);
    drop(waits);
    let trusted = Listener { trusted_networks: vec!["127.0.0.0/8".parse().unwrap()], ..slow };
    let short = Listener { greeting_delay: Duration::from_millis(20), ..listener() };
    for listener in [trusted, short] {
        let handle = start(listener, Limits::default(), &relay).await.serve(Arc::clone(&relay));
        let mut client = TcpStream::connect(handle.address()).await.unwrap();
        to_content(&mut client).await;
        say(&mut client, b"x\r\n.\r\n", "250 ").await;
        assert_eq!(handle.counts().connections.get(Connected::Early), 0);
    }
}

#[tokio::test]
async fn connections_are_bounded_and_given_back() {
    for limits in
        [Limits { connections: 1, ..Limits::default() }, Limits { connections_per_client: 1, ..Limits::default() }]
    {
        let relay = Arc::new(Kept::default());
        let handle = start(listener(), limits, &relay).await.serve(Arc::clone(&relay));
        let mut first = TcpStream::connect(handle.address()).await.unwrap();
        read_to(&mut first, "220 ").await;
        let mut second = TcpStream::connect(handle.address()).await.unwrap();
        let mut rest = String::new();
        second.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("421 4.7.0 "), "{rest}");
        say(&mut first, b"QUIT\r\n", "221 ").await;
        drop(first);
        // The place is free once the server has seen the end.
        loop {
            let mut third = TcpStream::connect(handle.address()).await.unwrap();
            let mut greeting = [0; 4];
            third.read_exact(&mut greeting).await.unwrap();
            if &greeting == b"220 " {
                break;
            }
        }
    }
}

#[test]
fn one_client_is_an_ipv4_address_or_an_ipv6_64() {
    let clients = Arc::new(Clients::default());
    let enter = |text: &str| clients.enter(text.parse().unwrap(), 1);
    let first = (enter("2001:db8::1"), enter("192.0.2.1"));
    assert!(first.0.is_some() && first.1.is_some());
    assert!(enter("2001:db8::ffff:2").is_none() && enter("192.0.2.1").is_none());
    assert!(enter("2001:db8:0:1::1").is_some() && enter("192.0.2.2").is_some());
    drop(first);
    assert!(clients.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn shut_down_ends_idle_sessions_and_lets_a_transaction_finish() {
    let relay = Arc::new(Kept { hold: Some(Default::default()), ..Kept::default() });
    let handle = start(listener(), Limits::default(), &relay).await.serve(Arc::clone(&relay));
    let address = handle.address();
    let mut idle = TcpStream::connect(address).await.unwrap();
    read_to(&mut idle, "220 ").await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    to_content(&mut busy).await;
    busy.write_all(b"x\r\n.\r\n").await.unwrap();
    let (begun, go_on) = relay.hold.as_ref().unwrap();
    begun.notified().await;
    let stopped = tokio::spawn(handle.shut_down(Duration::from_secs(60)));
    read_to(&mut idle, "421 4.3.2").await;
    drop(idle);
    go_on.notify_one();
    assert_eq!(
        read_to(&mut busy, "421 4.3.2").await,
        "250 2.0.0 taken\r\n421 4.3.2 mx.example.org is shutting down\r\n"
    );
    drop(busy);
    assert!(stopped.await.unwrap());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn shut_down_is_bounded() {
    let relay = Arc::new(Kept::default());
    let handle = start(listener(), Limits::default(), &relay).await.serve(Arc::clone(&relay));
    let mut client = TcpStream::connect(handle.address()).await.unwrap();
    to_content(&mut client).await;
    assert!(!handle.shut_down(Duration::from_millis(20)).await);
    assert_eq!(relay.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a20_many_idle_connections_do_not_stop_a_mail() {
    let relay = Arc::new(Kept::default());
    let limits = Limits { connections_per_client: 3000, connections: 3000, ..Limits::default() };
    let handle = start(listener(), limits, &relay).await.serve(Arc::clone(&relay));
    let mut idle = Vec::new();
    for _ in 0..400 {
        let mut client = TcpStream::connect(handle.address()).await.unwrap();
        read_to(&mut client, "220 ").await;
        idle.push(client);
    }
    let mut client = TcpStream::connect(handle.address()).await.unwrap();
    to_content(&mut client).await;
    say(&mut client, b"x\r\n.\r\n", "250 ").await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener { address: taken.local_addr().unwrap(), ..listener() };
    let error = bind(
        Arc::new(listener.clone()),
        Domain::parse("x").unwrap(),
        Mailbox::parse("p@x").unwrap(),
        &Limits::default(),
    )
    .await
    .err()
    .unwrap();
    assert!(error.to_string().contains(&listener.address.to_string()), "{error}");
}

mod over_tls;

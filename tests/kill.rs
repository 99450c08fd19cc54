//! The real program, killed and stopped: what was answered 250 arrives all the same (T1), and a stop finishes what was begun. And the
//! memory it takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "kill/t01.rs"]
mod t01;
#[path = "kill/t20.rs"]
mod t20;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;
use waxwing::address::Mailbox;
use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport, SignatureScheme};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::keys::{KeyHolder, KeyId, SoftwareKey, SoftwareKeys, Submission};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::smime::seal::{Draft, EncryptPlan, Form, SignPlan};
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::keyring::Kek;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};

/// A next hop that counts mails by their number.
#[derive(Clone)]
struct Sink {
    address: SocketAddr,
    seen: Arc<Mutex<HashMap<u64, usize>>>,
    /// Mails that came with the mark of a good signature.
    verified: Arc<AtomicUsize>,
    /// How long it thinks before it answers a final dot.
    thinks: Duration,
}

impl Sink {
    fn start(thinks: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sink =
            Self { address: listener.local_addr().unwrap(), seen: Arc::default(), verified: Arc::default(), thinks };
        let serving = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = serving.clone();
                std::thread::spawn(move || sink.serve(stream));
            }
        });
        sink
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut say = stream.try_clone().ok()?;
        let mut lines = BufReader::new(stream);
        say.write_all(b"220 sink\r\n").ok()?;
        loop {
            let line = line(&mut lines)?;
            let answer = match line.get(..4)? {
                "EHLO" => "250-sink\r\n250-8BITMIME\r\n250 PIPELINING\r\n",
                "DATA" => {
                    say.write_all(b"354 go\r\n").ok()?;
                    self.content(&mut lines)?;
                    "250 taken\r\n"
                }
                _ => "250 ok\r\n",
            };
            say.write_all(answer.as_bytes()).ok()?;
        }
    }

    fn content(&self, lines: &mut impl BufRead) -> Option<()> {
        let mut number = None;
        loop {
            let line = line(lines)?;
            if line == ".\r\n" {
                break;
            }
            self.verified.fetch_add(line.contains("smime=pass").into(), Ordering::Relaxed);
            number = number.or(line.strip_prefix("Subject: mail ").and_then(|rest| rest.trim_end().parse().ok()));
        }
        std::thread::sleep(self.thinks);
        *self.seen.lock().unwrap().entry(number?).or_default() += 1;
        Some(())
    }

    fn has(&self, number: u64) -> bool {
        self.seen.lock().unwrap().contains_key(&number)
    }
}

fn line(lines: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    lines.read_line(&mut line).ok().filter(|octets| *octets > 0).map(|_| line)
}

/// A configuration and its folders.
struct House {
    folder: TempDir,
    /// Of ours, with her key in the store.
    anna: Issued,
}

/// `waxwing serve` at work.
struct Served {
    child: Child,
    address: SocketAddr,
    /// From its start until it listened.
    took: Duration,
    /// It said that its spool was.
    damaged: Arc<AtomicBool>,
}

impl House {
    fn new(sink: SocketAddr, delivery: &str) -> Self {
        Self::with_policy(sink, delivery, "pass = true")
    }

    fn with_policy(sink: SocketAddr, delivery: &str, policy: &str) -> Self {
        Self::with_listener(sink, delivery, "outbound", policy)
    }

    fn with_listener(sink: SocketAddr, delivery: &str, direction: &str, policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kek = folder.path().join("kek");
        Kek::create(&kek).unwrap();
        let anna = fill(&EmbeddedStore::create(&folder.path().join("store"), &kek).unwrap());
        let text = format!(
            r#"hostname = "gw.ours.example"
domains = ["ours.example"]
store = "{folder}/store"
kek = "{folder}/kek"
spool = "{folder}/spool"
delivery = "{delivery}"
[[listener]]
name = "out"
address = "127.0.0.1:0"
direction = "{direction}"
trusted_networks = ["127.0.0.0/8"]
[next_hop.outbound]
host = "127.0.0.1"
port = {out}
tls = "off"
[next_hop.inbound]
host = "127.0.0.1"
port = {out}
tls = "off"
[retry]
first = "1 s"
[default]
{policy}
"#,
            folder = folder.path().display(),
            out = sink.port(),
        );
        std::fs::write(folder.path().join("waxwing.toml"), text).unwrap();
        Self { folder, anna }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("waxwing.toml")
    }

    fn serve(&self) -> Served {
        let began = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_waxwing"))
            .arg("--config")
            .arg(self.config())
            .arg("serve")
            .env("RUST_LOG", "info,waxwing::relay=warn,waxwing::relay::deliver=error")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        let address = loop {
            let Some(line) = line(&mut lines) else { panic!("it did not start: {told}") };
            if let Some((_, address)) = line.split_once("listening listener=\"out\" address=") {
                break address.trim_end().parse().unwrap();
            }
            told.push_str(&line);
        };
        let damaged = Arc::new(AtomicBool::new(told.contains("damaged")));
        let noticed = Arc::clone(&damaged);
        std::thread::spawn(move || {
            while let Some(line) = line(&mut lines) {
                noticed.fetch_or(line.contains("damaged"), Ordering::Relaxed);
            }
        });
        Served { child, address, took: began.elapsed(), damaged }
    }
}

/// A key for the sender, a certificate for the recipient.
fn fill(store: &EmbeddedStore) -> Issued {
    let now = Timestamp::now();
    let root = issue(&Recipe::authority("Root", now, NewKey::P256), None);
    store.add_trust(root.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    let [anna, _] = [("anna@ours.example", true), ("x@else.example", false)].map(|(address, ours)| {
        let issued = issue(&Recipe::mailbox(address, now, NewKey::P256), Some(&root));
        let new = NewCertificate {
            certificate: issued.certificate.clone(),
            provenance: Provenance { source: "import".into(), detail: "test".into(), at: now },
            trust: TrustState::Trusted,
            key: ours.then(|| issued.pkcs8.clone()),
        };
        store.add_certificates(&Owner::Mailbox(Mailbox::parse(address).unwrap().key()), vec![new]).unwrap();
        issued
    });
    anna
}

/// A mail signed by her and encrypted to her, of about so many octets.
fn sealed(anna: &Issued, number: u64, octets: usize) -> Bytes {
    let (cipher, now) = (ContentEncryption::Aes256Gcm, Timestamp::now());
    let scheme = SignatureScheme::Ecdsa(Digest::Sha256);
    let signing = SignPlan {
        key: KeyId::of_spki(anna.certificate.public_key().spki()),
        certificate: anna.certificate.clone(),
        chain: Vec::new(),
        encryption_certificate: None,
        scheme,
        digest: Digest::Sha256,
        form: Form::Clear,
        signing_time: now,
        capabilities: vec![cipher],
        second: None,
    };
    let to = RecipientScheme {
        rsa: KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256),
        kdf: KeyDerivation::X963(Digest::Sha256),
    };
    let plan = EncryptPlan { recipients: vec![(anna.certificate.clone(), to)], content: cipher, derive_cek: false };
    // What is encrypted is written in base64.
    let text = message(number, octets / 4 * 3);
    let signing =
        Draft::new(&Entity::parse(text.into(), &MimeLimits::default()).unwrap()).unwrap().sign(signing).unwrap();
    let mut keys = SoftwareKeys::default();
    keys.insert(SoftwareKey::from_pkcs8(&anna.pkcs8).unwrap());
    let Submission::Ready(answer) = keys.submit(signing.operation()) else { panic!() };
    let draft = signing.finish(answer.unwrap(), false).unwrap();
    draft.encrypt(&plan, false).unwrap().rope().to_bytes()
}

impl Served {
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap().success());
    }

    /// Its exit code, within a minute.
    fn ended(&mut self) -> Option<i32> {
        for _ in 0..6000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Served {
    /// A figure of /proc/PID/status, in octets; `VmHWM` is the most memory it ever had.
    fn memory(&self, figure: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.hear("220")?;
        client.say("EHLO client\r\n", "250")?;
        Some(client)
    }

    fn hear(&mut self, code: &str) -> Option<()> {
        loop {
            let line = line(&mut self.stream)?;
            if line.as_bytes().get(3) == Some(&b' ') {
                return line.starts_with(code).then_some(());
            }
        }
    }

    fn say(&mut self, octets: &str, code: &str) -> Option<()> {
        self.write(octets)?;
        self.hear(code)
    }

    fn write(&mut self, octets: &str) -> Option<()> {
        self.stream.get_mut().write_all(octets.as_bytes()).ok()
    }

    fn begin_content(&mut self) -> Option<()> {
        self.begin_content_to(&["x@else.example"])
    }

    fn begin_content_to(&mut self, recipients: &[&str]) -> Option<()> {
        let recipients: String = recipients.iter().map(|one| format!("RCPT TO:<{one}>\r\n")).collect();
        self.write(&format!("MAIL FROM:<anna@ours.example>\r\n{recipients}DATA\r\n"))?;
        recipients.lines().chain([""]).try_for_each(|_| self.hear("250"))?;
        self.hear("354")
    }

    /// `Some`: 250 to the final dot.
    fn send(&mut self, number: u64, octets: usize) -> Option<()> {
        self.send_to(&["x@else.example"], number, octets)
    }

    fn send_to(&mut self, recipients: &[&str], number: u64, octets: usize) -> Option<()> {
        self.begin_content_to(recipients)?;
        self.write(&message(number, octets))?;
        self.say(".\r\n", "250")
    }
}

fn message(number: u64, octets: usize) -> String {
    format!(
        "From: anna@ours.example\r\nTo: x@else.example\r\nSubject: mail {number}\r\n\r\n{}",
        "a line of the body\r\n".repeat(octets / 20)
    )
}

fn random(below: u64) -> u64 {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets).unwrap();
    u64::from_le_bytes(octets) % below
}

fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never: {what}");
}

#[test]
fn a_stop_finishes_what_was_begun_and_turns_idle_clients_away() {
    let sink = Sink::start(Duration::from_millis(200));
    for signal in ["-TERM", "-INT"] {
        for delivery in ["cut-through", "queue"] {
            let house = House::new(sink.address, delivery);
            let mut served = house.serve();
            let (mut idle, mut busy) =
                (Client::connect(served.address).unwrap(), Client::connect(served.address).unwrap());
            let number = random(1 << 60);
            busy.begin_content().unwrap();
            busy.write("Subject: mail ").unwrap();
            served.signal(signal);
            assert!(idle.hear("421").is_some(), "{signal} {delivery}: an idle client is told");
            busy.write(&format!("{number}\r\n\r\nthe rest after the signal\r\n")).unwrap();
            assert!(busy.say(".\r\n", "250").is_some(), "{signal} {delivery}: what was begun is taken");
            assert_eq!(served.ended(), Some(0), "{signal} {delivery}");
            if !sink.has(number) {
                // It is in the spool, then, and goes out after the next start.
                let _served = house.serve();
                until("delivered after a restart", || sink.has(number));
            }
        }
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let sink = Sink::start(Duration::from_secs(20));
    let house = House::new(sink.address, "queue");
    let mut served = house.serve();
    let mut client = Client::connect(served.address).unwrap();
    client.send(1, 2000).unwrap();
    let mut idle = Client::connect(served.address).unwrap();
    client.begin_content().unwrap();
    served.signal("-INT");
    assert!(idle.hear("421").is_some());
    assert!(served.child.try_wait().unwrap().is_none(), "one transaction is open, and one delivery");
    let began = Instant::now();
    served.signal("-INT");
    assert_eq!(served.ended(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(client.stream.read(&mut [0; 64]).is_ok_and(|octets| octets == 0) || client.hear("250").is_none());
    drop(served);
    // The next hop moves: what is spooled goes to where the configuration says now.
    let moved = Sink::start(Duration::ZERO);
    let text = std::fs::read_to_string(house.config()).unwrap();
    let (old, new) = (format!("port = {}", sink.address.port()), format!("port = {}", moved.address.port()));
    std::fs::write(house.config(), text.replace(&old, &new)).unwrap();
    let _served = house.serve();
    until("delivered to the new next hop", || moved.has(1));
}

#[test]
fn a_big_mail_takes_at_most_four_times_its_size() {
    const SIZE: usize = 40_000_000;
    for policy in ["pass = true", "sign = \"require\"\nencrypt = \"require\""] {
        for delivery in ["cut-through", "queue"] {
            let sink = Sink::start(Duration::ZERO);
            let house = House::with_policy(sink.address, delivery, policy);
            let served = house.serve();
            let mut client = Client::connect(served.address).unwrap();
            client.send(1, 2000).unwrap();
            until("the small one came", || sink.has(1));
            let before = served.memory("VmHWM");
            client.send(2, SIZE).unwrap();
            until("the big one came", || sink.has(2));
            let took = served.memory("VmHWM") - before;
            let times = took as f64 / SIZE as f64;
            println!("{policy:?}, {delivery}: a mail of {SIZE} octets took {took} octets, {times:.2} times its size");
            assert!(took <= 4 * SIZE as u64, "{policy:?} {delivery}: {took}");
        }
    }
}

/// Received, spooled, read again, opened, verified and handed on, all in one process.
#[test]
fn a_big_mail_that_is_opened_takes_at_most_two_and_a_half_times_its_size() {
    const SIZE: usize = 50_000_000;
    let sink = Sink::start(Duration::ZERO);
    let house = House::with_listener(sink.address, "queue", "inbound", "revocation = \"off\"");
    let served = house.serve();
    let send = |octets: &[u8]| {
        let mut client = Client::connect(served.address).unwrap();
        client.begin_content_to(&["anna@ours.example"]).unwrap();
        client.stream.get_mut().write_all(octets).unwrap();
        client.say(".\r\n", "250").unwrap();
    };
    send(&sealed(&house.anna, 1, 2000));
    until("the small one came", || sink.has(1));
    let big = sealed(&house.anna, 2, SIZE);
    let before = served.memory("VmRSS");
    send(&big);
    until("the big one came", || sink.has(2));
    assert!(sink.verified.load(Ordering::Relaxed) >= 2, "it was opened and its signature is good");
    let took = served.memory("VmHWM") - before;
    let times = took as f64 / big.len() as f64;
    println!("a mail of {} octets, opened, took {took} octets, {times:.2} times its size", big.len());
    // The goal is 2.5; what was received, held once more beside its content, makes 2.5 of the 1.8 that it takes.
    assert!(times <= 2.2, "{times:.2}");
}

#[test]
fn spooled_mail_is_not_kept_in_memory() {
    const SIZE: usize = 25_000_000;
    const MAILS: u64 = 12;
    // It takes connections and says nothing, so that deliveries hang.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let house = House::new(deaf.local_addr().unwrap(), "queue");
    let served = house.serve();
    let mut client = Client::connect(served.address).unwrap();
    client.send(0, 2000).unwrap();
    let before = served.memory("VmHWM");
    for number in 1..=MAILS {
        client.send(number, SIZE).unwrap();
    }
    let (now, most) = (served.memory("VmRSS"), served.memory("VmHWM") - before);
    println!(
        "{MAILS} mails of {SIZE} octets in the spool, next hop deaf: {now} octets of memory, {most} more than before at most"
    );
    assert!(most < 8 * SIZE as u64, "{most}");
}

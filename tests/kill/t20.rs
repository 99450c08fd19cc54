//! T20: mail flows while the key-encryption key is rotated and the store resealed, and both, and now and then the gateway, are killed at random
//! moments and run again. `WAXWING_T20_ROUNDS` sets the number of rotations (2 by default):
//!
//! WAXWING_T20_ROUNDS=50 cargo test --release --test kill t20 -- --nocapture

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use waxwing::address::Mailbox;
use waxwing::pki::authority::{NewKey, Recipe, issue};
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance, StoreError};

use super::{Client, House, Sink, random, until};

/// Senders, each with a key that signs his mail.
const USERS: u64 = 40;
/// Times that a command is killed before it is let finish.
const KILLS: usize = 3;

impl House {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name_keks(&self, names: &[String]) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let places: Vec<String> = names.iter().map(|name| format!("\"{}\"", self.path(name).display())).collect();
        let line = |line: &str| match line.starts_with("kek =") {
            true => format!("kek = [{}]\n", places.join(", ")),
            false => format!("{line}\n"),
        };
        std::fs::write(self.config(), text.lines().map(line).collect::<String>()).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
        command.arg("--config").arg(self.config()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command, killed at random moments some times, then to its end.
    fn killed_then_done(&self, arguments: &[&str]) -> (usize, Output) {
        let mut killed = 0;
        for _ in 0..KILLS {
            let mut child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random(500)));
            // SIGKILL; where it ended already, that is no error.
            let _ = child.kill();
            killed += usize::from(child.wait().unwrap().code().is_none());
        }
        (killed, self.command(arguments).output().unwrap())
    }
}

fn fill(store: &EmbeddedStore) {
    let now = Timestamp::now();
    let root = issue(&Recipe::authority("Root", now, NewKey::P256), None);
    store.add_trust(root.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    for user in 0..USERS {
        let address = format!("u{user}@ours.example");
        let issued = issue(&Recipe::mailbox(&address, now, NewKey::P256), Some(&root));
        let new = NewCertificate {
            certificate: issued.certificate.clone(),
            provenance: Provenance { source: "import".into(), detail: "test".into(), at: now },
            trust: TrustState::Trusted,
            key: Some(issued.pkcs8.clone()),
        };
        store.add_certificates(&Owner::Mailbox(Mailbox::parse(&address).unwrap().key()), vec![new]).unwrap();
    }
}

/// Sends until told to stop; what was answered 250 is accounted for.
fn client(address: &Mutex<std::net::SocketAddr>, stop: &AtomicBool, next: &AtomicU64, taken: &Mutex<Vec<u64>>) {
    while !stop.load(Ordering::Relaxed) {
        let to = *address.lock().unwrap();
        let Some(mut client) = Client::connect(to) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let from = format!("u{}@ours.example", number % USERS);
            let mut send = || {
                client.say(&format!("MAIL FROM:<{from}>\r\n"), "250")?;
                client.say("RCPT TO:<x@else.example>\r\n", "250")?;
                client.say("DATA\r\n", "354")?;
                client
                    .write(&format!("From: {from}\r\nTo: x@else.example\r\nSubject: mail {number}\r\n\r\nhello\r\n"))?;
                client.say(".\r\n", "250")
            };
            if send().is_none() {
                break;
            }
            taken.lock().unwrap().push(number);
        }
    }
}

#[test]
fn t20_keys_are_rotated_and_resealed_while_mail_flows_and_everything_is_killed() {
    let rounds: usize = std::env::var("WAXWING_T20_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
    let sink = Sink::start(Duration::ZERO);
    let house = House::with_policy(sink.address, "queue", "sign = \"require\"");
    let names: Vec<String> = (0..=rounds).map(|at| if at == 0 { "kek".into() } else { format!("kek{at}") }).collect();
    house.name_keks(&names);
    let store = EmbeddedStore::open(&house.path("store"), house.path("kek")).unwrap();
    fill(&store);
    let first_keys = store.keys().unwrap();
    drop(store);
    let mut served = house.serve();
    let address = Arc::new(Mutex::new(served.address));
    let (stop, next, taken) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)), Arc::new(Mutex::new(Vec::new())));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (address, stop, next, taken) = (address.clone(), stop.clone(), next.clone(), taken.clone());
            std::thread::spawn(move || client(&address, &stop, &next, &taken))
        })
        .collect();
    let (mut killed, mut gateways) = (0, 0);
    for name in names.iter().skip(1) {
        let file = house.path(name).display().to_string();
        let (kills, done) = house.killed_then_done(&["kek", "rotate", &file]);
        assert!(done.status.success(), "{done:?}");
        killed += kills;
        if random(2) == 0 || gateways == 0 {
            served.signal("-KILL");
            drop(served);
            gateways += 1;
            served = house.serve();
            *address.lock().unwrap() = served.address;
        }
        let (kills, done) = house.killed_then_done(&["kek", "reseal"]);
        assert!(done.status.success(), "{done:?}");
        killed += kills;
    }
    // The gateway sees the last keys and goes on.
    let before = taken.lock().unwrap().len();
    until("mail flows after all that", || taken.lock().unwrap().len() > before + 20);
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    served.signal("-TERM");
    assert_eq!(served.ended(), Some(0));
    drop(served);
    // The last key alone, as an administrator names it in the end.
    house.name_keks(&names[rounds..]);
    let served = house.serve();
    let taken = taken.lock().unwrap().clone();
    until("everything that was taken arrives", || taken.iter().all(|number| sink.has(*number)));
    drop(served);
    for old in &names[..rounds] {
        let refused = EmbeddedStore::open(&house.path("store"), house.path(old)).map(drop);
        assert!(matches!(refused, Err(StoreError::Kek(..))), "{old}: {refused:?}");
    }
    let store = EmbeddedStore::open(&house.path("store"), house.path(&names[rounds])).unwrap();
    let keys = store.keys().unwrap();
    assert!(keys.keks.len() == 1 && keys.keys.len() == 1, "{keys:?}");
    assert_ne!(keys.keys[0].id, first_keys.keys[0].id);
    let older = store.under_older_keys().unwrap().len();
    assert_eq!((store.verify().unwrap(), older, store.alerts()), (Vec::new(), 0, 0));
    let mut unreadable = 0;
    for user in 0..USERS {
        let identity = store.identity(&Mailbox::parse(&format!("u{user}@ours.example")).unwrap()).unwrap();
        let key = identity.certificates[0].key;
        unreadable += usize::from(key.is_none_or(|key| store.export_key(key).is_err()));
    }
    assert_eq!(unreadable, 0);
    println!(
        "{rounds} rotations and reseals, {killed} commands and {gateways} gateways killed: {} mails taken, 0 lost; 0 of {USERS} keys unreadable; 0 records under older keys",
        taken.len()
    );
}

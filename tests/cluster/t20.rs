//! T20, of a store that gateways share: its key-encryption key is rotated and all of it resealed, while mail flows through two gateways, a third
//! process changes the store all the time, and commands on either node and the gateways are killed. `WAXWING_T20_ROUNDS` sets the number of
//! rotations (2 by default):
//!
//! WAXWING_T20_ROUNDS=20 cargo test --release --test cluster t20 -- --nocapture

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use waxwing::config::{Etcd, KekSources};
use waxwing::pki::authority::{NewKey, Recipe, issue};
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::store::embedded::{EmbeddedStore, StoreKeys};
use waxwing::store::etcd::Role;
use waxwing::store::keyring::Kek;
use waxwing::store::{CertStore, NewCertificate, Provenance, StoreError};

use super::support::etcd::{Members, installed};
use super::{SOON, Site, certificate, identity, mailbox, owner, until};

/// Senders, each with a key that signs his mail.
const USERS: u64 = 24;
/// Times that a command is killed before it is let finish.
const KILLS: usize = 3;
const LONG: Duration = Duration::from_secs(120);

fn random(below: u64) -> u64 {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets).unwrap();
    u64::from_be_bytes(octets) % below
}

fn private(store: &EmbeddedStore, address: &str) -> Vec<u8> {
    let key = identity(store, address).certificates[0].key.expect("with its key");
    store.export_key(key).unwrap().to_vec()
}

/// Thirty mailboxes, a key that two have (given back), an alias, one who is gone, an anchor.
fn filled([a, b]: [&EmbeddedStore; 2], addresses: &[String]) -> NewCertificate {
    for address in addresses {
        a.add_certificates(&owner(address), vec![certificate(address, true)]).unwrap();
    }
    let both = certificate("both@ours.example", true);
    let shared = || NewCertificate {
        certificate: both.certificate.clone(),
        provenance: both.provenance.clone(),
        trust: both.trust,
        key: both.key.clone(),
    };
    a.add_certificates(&owner("both@ours.example"), vec![shared()]).unwrap();
    b.add_certificates(&owner("second@ours.example"), vec![shared()]).unwrap();
    a.add_alias(&mailbox("info@ours.example").key(), &mailbox(&addresses[0]).key()).unwrap();
    a.purge(&owner(&addresses[29])).unwrap();
    let root = issue(&Recipe::authority("Root", Timestamp::now(), NewKey::P256), None);
    a.add_trust(root.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    both
}

#[test]
fn t20_who_shares_a_store_follows_its_keys_and_none_goes_back() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let (a, b) = (site.gateway("a"), site.gateway("b"));
    let addresses: Vec<String> = (0..30).map(|at| format!("user{at}@ours.example")).collect();
    let both = filled([&a, &b], &addresses);
    let keys: Vec<Vec<u8>> = addresses[..29].iter().map(|address| private(&a, address)).collect();
    for name in ["away", "lost"] {
        let gone = site.gateway(name);
        until("it says that it is there", SOON, || {
            gone.shared().unwrap().gateways().unwrap().0.iter().any(|node| node.name == name)
        });
    }
    let (header, record) = (members.get("waxwing/h"), members.get("waxwing/o/user0@ours.example"));
    let first = a.keys().unwrap();

    // Rotated: who has not read the new key is named, and so is who is gone.
    let file = site.folder.path().join("kek2");
    let new = Kek::create(&file).unwrap();
    a.introduce_kek(&new).unwrap();
    a.use_keks(&KekSources::new(vec![site.kek(), file.clone()]));
    let names = |store: &EmbeddedStore| {
        let missing = store.without_kek(&new.fingerprint()).unwrap();
        let name = |line: &String| line.split(' ').nth(1).unwrap().to_owned();
        missing.iter().filter(|line| line.starts_with("gateway ")).map(name).collect::<Vec<_>>()
    };
    until("its own gateway has it", SOON, || names(&a) == ["away", "b", "lost"]);
    assert!(a.retire_keks(new.fingerprint()).is_err(), "it is not the one in use");
    b.use_keks(&KekSources::new(vec![site.kek(), file.clone()]));
    for gone in ["away", "lost"] {
        assert!(a.shared().unwrap().forget_node(gone).unwrap());
    }
    until("everybody has it", SOON, || names(&a).is_empty());
    a.activate_kek(new.fingerprint()).unwrap();
    a.retire_keks(new.fingerprint()).unwrap();
    until("the other one goes by it", SOON, || b.keys().unwrap().revision == a.keys().unwrap().revision);
    assert_eq!(a.keys().unwrap().keys, first.keys, "the store key is the same");

    // Resealed.
    let rotated = members.get("waxwing/h");
    let resealed = b.reseal(LONG, |_| ()).unwrap();
    assert_eq!((resealed.bad, resealed.waits), (Vec::new(), Vec::new()));
    assert!(resealed.written >= 33, "{} records", resealed.written);
    let now = b.keys().unwrap();
    assert!(now.keys.len() == 1 && now.keys[0].id != first.keys[0].id, "{now:?}");
    until("the other one has dropped it too", SOON, || a.keys().unwrap().keys == now.keys);
    let whole = |store: &EmbeddedStore, what: &str| {
        for (address, key) in addresses[..29].iter().zip(&keys) {
            assert_eq!(private(store, address), *key, "{what}: {address}");
        }
        assert_eq!(private(store, "both@ours.example"), both.key.clone().unwrap().to_vec(), "{what}");
        assert_eq!(identity(store, "info@ours.example").owner, owner(&addresses[0]), "{what}");
        assert_eq!(identity(store, &addresses[29]).certificates.len(), 0, "{what}");
        assert_eq!(store.trust().unwrap().anchors.len(), 1, "{what}");
        assert_eq!(store.under_older_keys().unwrap(), Vec::<String>::new(), "{what}");
        assert_eq!(store.verify().unwrap(), Vec::<String>::new(), "{what}");
    };
    for (store, what) in [(&a, "a"), (&b, "b")] {
        whole(store, what);
        assert_eq!(store.alerts(), 0, "{what}");
    }
    let open = |node: &str, keks: &[&Path]| {
        let sources = KekSources::new(keks.iter().map(|kek| kek.to_path_buf()).collect());
        EmbeddedStore::open_shared(&site.store(node), sources, &site.etcd(node), Role::Command)
    };
    let fresh = open("fresh", &[&file]).unwrap();
    whole(&fresh, "a new node, with the last key alone");
    assert_eq!((fresh.alerts(), fresh.digest().unwrap().0), (0, a.digest().unwrap().0));

    // Who was away all the time gets along with both keys at hand, and says what to do with the new one alone.
    let late = open("away", &[&site.kek(), &file]).unwrap();
    whole(&late, "who was away");
    assert_eq!((late.alerts(), late.digest().unwrap().0), (0, a.digest().unwrap().0));
    let says = open("lost", &[&file]).map(drop).unwrap_err().to_string();
    assert!(says.contains("move") && says.contains("read anew"), "{says}");

    let older = [("of the retired key-encryption key", &header), ("of the old store key", &rotated)];
    none_goes_back(&members, [&a, &b], older, &record);
    for store in [&a, &b] {
        until("changes are made again", SOON, || store.set_disabled(&owner(&addresses[1]), true).is_ok());
        store.set_disabled(&owner(&addresses[1]), false).unwrap();
        whole(store, "after all that");
    }
}

/// An older header, an older record and no header at all are put right.
fn none_goes_back(members: &Members, [a, b]: [&EmbeddedStore; 2], older: [(&str, &Vec<u8>); 2], record: &Vec<u8>) {
    let now = a.keys().unwrap().keys;
    // An older header is not taken, by whom it may have been wrapped, and the true one is put back; nor is a record from before.
    for (what, octets) in older {
        let before = (a.alerts(), b.alerts());
        members.put("waxwing/h", octets);
        until(what, SOON, || a.alerts() > before.0 && b.alerts() > before.1);
        until("it is put back", SOON, || members.get("waxwing/h") != *octets);
        assert_eq!(a.keys().unwrap().keys, now, "{what}");
    }
    members.put("waxwing/o/user0@ours.example", record);
    until("a record under the old store key is not taken", SOON, || {
        members.get("waxwing/o/user0@ours.example") != *record
    });
    members.ctl(&["del", "waxwing/h"]);
    until("a header that was deleted is put back", SOON, || {
        !members.ctl(&["get", "--keys-only", "waxwing/h"]).is_empty()
    });
}

#[test]
fn a_rotation_that_is_refused_makes_no_key_and_a_lost_key_is_recovered() {
    if !installed() {
        return;
    }
    let mut members = Members::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config = folder.path().join("waxwing.toml");
    let endpoints = members.endpoints();
    let configure = |kek: &str| {
        let text = super::toml(folder.path(), &endpoints);
        std::fs::write(&config, text.replace("/kek'", &format!("/{kek}'"))).unwrap();
    };
    configure("kek");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
        let output = command.arg("--config").arg(&config).args(arguments).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let good = |arguments: &[&str]| {
        let (code, said) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    };
    good(&["kek", "init", &path("kek")]);
    good(&["store", "init"]);
    // Another node has a copy of the time before.
    let etcd = Etcd { node: "other".into(), ..Site::settings(&endpoints) };
    let other =
        EmbeddedStore::open_shared(&folder.path().join("other"), folder.path().join("kek"), &etcd, Role::Command);
    other.unwrap().add_certificates(&owner("anna@ours.example"), vec![certificate("anna@ours.example", true)]).unwrap();
    // The copy's keys are not changed behind etcd's back, nor while etcd is away.
    let (code, said) = run(&["kek", "rotate", &path("kek2"), "--store", &path("store"), "--kek", &path("kek")]);
    assert!(code == Some(2) && said.contains("changed there alone"), "{said}");
    assert!(!folder.path().join("kek2").exists());
    (0..3).for_each(|at| members.kill(at));
    let (code, said) = run(&["kek", "rotate", &path("kek2")]);
    assert!(code == Some(2) && said.contains("etcd"), "{said}");
    assert!(!folder.path().join("kek2").exists());
    (0..3).for_each(|at| members.restart(at));
    members.wait();

    good(&["kek", "init", "--recovery", &path("recovery")]);
    std::fs::remove_file(folder.path().join("kek")).unwrap();
    assert_eq!(run(&["kek", "status"]).0, Some(2), "it is lost");
    good(&["kek", "recover", "--recovery", &path("recovery"), &path("kek2")]);
    configure("kek2");
    let status: serde_json::Value = serde_json::from_str(&good(&["kek", "status", "--json"])).unwrap();
    let states: Vec<&str> =
        status["keks"].as_array().unwrap().iter().map(|kek| kek["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["recovery", "active"], "{status}");
    // The other node is given the new key alone, and goes on.
    let other =
        EmbeddedStore::open_shared(&folder.path().join("other"), folder.path().join("kek2"), &etcd, Role::Command)
            .unwrap();
    assert_eq!((private(&other, "anna@ours.example").is_empty(), other.alerts()), (false, 0));
    let said: serde_json::Value = serde_json::from_str(&good(&["kek", "reseal", "--json"])).unwrap();
    assert_eq!((said["written"].as_u64(), said["waits"].as_array().map(Vec::len)), (Some(1), Some(0)), "{said}");
    other.shared().unwrap().catch_up().unwrap();
    assert_eq!((private(&other, "anna@ours.example").is_empty(), other.alerts()), (false, 0));
}

/// A next hop that counts mails by their number.
#[derive(Clone, Default)]
struct Counter(Arc<Mutex<HashSet<u64>>>);

impl Counter {
    fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counter = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = counter.clone();
                std::thread::spawn(move || counter.serve(&stream));
            }
        });
        address
    }

    fn serve(&self, mut say: &TcpStream) -> Option<()> {
        let mut lines = BufReader::new(say);
        say.write_all(b"220 counter\r\n").ok()?;
        loop {
            let line = line(&mut lines)?;
            if !line.starts_with("DATA") {
                say.write_all(if line.starts_with("EHLO") {
                    b"250-counter\r\n250 8BITMIME\r\n"
                } else {
                    b"250 ok\r\n"
                })
                .ok()?;
                continue;
            }
            say.write_all(b"354 go\r\n").ok()?;
            let mut number = None;
            loop {
                let line = self::line(&mut lines)?;
                if line == ".\r\n" {
                    break;
                }
                number = number.or(line.strip_prefix("Subject: mail ").and_then(|rest| rest.trim_end().parse().ok()));
            }
            self.0.lock().unwrap().insert(number?);
            say.write_all(b"250 taken\r\n").ok()?;
        }
    }
}

fn line(lines: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    lines.read_line(&mut line).ok().filter(|octets| *octets > 0).map(|_| line)
}

/// Two nodes that run the program, and one in this process, each with its folder and its KEK files.
struct Nodes {
    folder: TempDir,
    names: Vec<String>,
    etcd: Vec<String>,
    sink: SocketAddr,
}

impl Nodes {
    fn path(&self, node: &str, name: &str) -> PathBuf {
        self.folder.path().join(node).join(name)
    }

    fn config(&self, node: &str, names: &[String]) {
        let quoted = |all: Vec<String>| all.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ");
        let folder = self.folder.path().join(node);
        let keks = quoted(names.iter().map(|name| self.path(node, name).display().to_string()).collect());
        let mut text = format!(
            "hostname = \"{node}.ours.example\"\ndomains = [\"ours.example\"]\nstore = \"{0}/store\"\nspool = \"{0}/spool\"\nkek = [{keks}]\ndelivery = \"queue\"\n\
             [[listener]]\nname = \"out\"\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\ntrusted_networks = [\"127.0.0.0/8\"]\n",
            folder.display()
        );
        for way in ["outbound", "inbound"] {
            let _ =
                writeln!(text, "[next_hop.{way}]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"", self.sink.port());
        }
        let _ = writeln!(
            text,
            "[etcd]\nendpoints = [{}]\nnode = \"{node}\"\n[retry]\nfirst = \"1 s\"\n[default]\nsign = \"require\"",
            quoted(self.etcd.clone())
        );
        std::fs::write(self.path(node, "waxwing.toml"), text).unwrap();
    }

    fn command(&self, node: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
        command.arg("--config").arg(self.path(node, "waxwing.toml")).args(arguments).stdin(Stdio::null());
        command
    }

    fn serve(&self, node: &str) -> Served {
        let mut child = self
            .command(node, &["serve"])
            .env("RUST_LOG", "info,waxwing::relay=warn")
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
        let alarms = Arc::new(Mutex::new(Vec::new()));
        let heard = alarms.clone();
        std::thread::spawn(move || {
            while let Some(line) = line(&mut lines) {
                if line.contains("not authentic") || line.contains("is not as this node knows it") {
                    heard.lock().unwrap().push(line);
                }
            }
        });
        Served { child, address, alarms }
    }

    /// Runs a command, killed at random moments on either node some times, then to its end.
    fn killed_then_done(&self, arguments: &dyn Fn(&str) -> Vec<String>) -> (usize, Output) {
        let mut killed = 0;
        let command = |node: &str| {
            let arguments = arguments(node);
            self.command(node, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
        };
        for _ in 0..KILLS {
            let node = ["a", "b"][random(2) as usize];
            let mut child = command(node).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random(2_500)));
            // SIGKILL; where it ended already, that is no error.
            let _ = child.kill();
            killed += usize::from(child.wait().unwrap().code().is_none());
        }
        (killed, command(["a", "b"][random(2) as usize]).output().unwrap())
    }

    /// Brings KEK files to the nodes that lack them, as an administrator does.
    fn carry(&self) {
        for name in &self.names {
            let have = ["a", "b", "c"]
                .map(|node| std::fs::read(self.path(node, name)).ok().filter(|text| text.ends_with(b"\n")));
            let Some(text) = have.iter().flatten().next() else { continue };
            for (node, _) in ["a", "b", "c"].iter().zip(&have).filter(|(_, have)| have.is_none()) {
                let draft = self.path(node, "draft");
                std::fs::write(&draft, text).unwrap();
                std::fs::set_permissions(&draft, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                std::fs::rename(&draft, self.path(node, name)).unwrap();
            }
        }
    }

    fn sources(&self, node: &str) -> KekSources {
        KekSources::new(self.names.iter().map(|name| self.path(node, name)).collect())
    }

    fn etcd(&self, node: &str) -> Etcd {
        let timeout = Duration::from_secs(10);
        Etcd { node: node.into(), timeout, ..Site::settings(&self.etcd) }
    }
}

struct Served {
    child: Child,
    address: SocketAddr,
    alarms: Arc<Mutex<Vec<String>>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends until told to stop; what was answered 250 is accounted for.
fn send(address: &Mutex<SocketAddr>, stop: &AtomicBool, next: &AtomicU64, taken: &Mutex<Vec<u64>>) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        let Ok(stream) = TcpStream::connect(*address.lock().unwrap()) else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let mut lines = BufReader::new(&stream);
        let mut say = |text: &str, code: &str| {
            (&stream).write_all(text.as_bytes()).ok()?;
            loop {
                let line = line(&mut lines)?;
                if line.as_bytes().get(3) == Some(&b' ') {
                    return line.starts_with(code).then_some(());
                }
            }
        };
        if say("", "220").and_then(|()| say("EHLO client\r\n", "250")).is_none() {
            continue;
        }
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let from = format!("u{}@ours.example", number % USERS);
            let mut mail = || {
                say(&format!("MAIL FROM:<{from}>\r\n"), "250")?;
                say("RCPT TO:<x@else.example>\r\n", "250")?;
                say("DATA\r\n", "354")?;
                say(
                    &format!("From: {from}\r\nTo: x@else.example\r\nSubject: mail {number}\r\n\r\nhello\r\n.\r\n"),
                    "250",
                )
            };
            if mail().is_none() {
                break;
            }
            taken.lock().unwrap().push(number);
            std::thread::sleep(Duration::from_millis(30));
        }
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
        store.add_certificates(&owner(&address), vec![new]).unwrap();
    }
}

/// Three nodes with their folders and one store, and the store as the third one has it.
fn founded(nodes: &Nodes) -> EmbeddedStore {
    for node in ["a", "b", "c"] {
        std::fs::create_dir(nodes.folder.path().join(node)).unwrap();
        nodes.config(node, &nodes.names);
    }
    Kek::create(&nodes.path("a", "kek")).unwrap();
    nodes.carry();
    let store = EmbeddedStore::create(&nodes.path("c", "store"), nodes.sources("c")).unwrap();
    assert!(store.found(&nodes.etcd("c")).unwrap());
    drop(store);
    EmbeddedStore::open_shared(&nodes.path("c", "store"), nodes.sources("c"), &nodes.etcd("c"), Role::Gateway).unwrap()
}

#[test]
fn t20_keys_of_a_shared_store_are_renewed_while_mail_flows_and_everything_is_killed() {
    if !installed() {
        return;
    }
    let rounds: usize = std::env::var("WAXWING_T20_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
    let members = Members::start();
    let counter = Counter::default();
    let names: Vec<String> = (0..=rounds).map(|at| if at == 0 { "kek".into() } else { format!("kek{at}") }).collect();
    let folder = tempfile::tempdir().unwrap();
    let nodes = Nodes { folder, names: names.clone(), etcd: members.endpoints(), sink: counter.start() };
    let c = founded(&nodes);
    fill(&c);
    let first = c.keys().unwrap();
    let mut served = vec![nodes.serve("a"), nodes.serve("b")];
    let addresses: Vec<_> = served.iter().map(|one| Arc::new(Mutex::new(one.address))).collect();
    let (stop, next, taken) = (AtomicBool::new(false), AtomicU64::new(1), Mutex::new(Vec::new()));
    let (changes, mut killed, mut gateways, mut alarms) = (AtomicU64::new(0), 0, 0, Vec::new());
    std::thread::scope(|scope| {
        // Whatever fails here, the others end.
        let _ends = Ends(&stop);
        for address in &addresses {
            scope.spawn(|| send(address, &stop, &next, &taken));
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                nodes.carry();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let number = changes.fetch_add(1, Ordering::Relaxed);
                let address = format!("new{}@ours.example", number % 40);
                c.add_certificates(&owner(&address), vec![certificate(&address, true)]).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for name in names.iter().skip(1) {
            let rotate = |node: &str| -> Vec<String> {
                ["kek", "rotate", &nodes.path(node, name).display().to_string(), "--wait", "90"]
                    .map(str::to_owned)
                    .to_vec()
            };
            let (kills, done) = nodes.killed_then_done(&rotate);
            assert!(done.status.success(), "{done:?}");
            killed += kills;
            let one = random(2) as usize;
            alarms.extend(served[one].alarms.lock().unwrap().drain(..));
            // SIGKILL, and again.
            let _ = served[one].child.kill();
            let _ = served[one].child.wait();
            served[one] = nodes.serve(["a", "b"][one]);
            *addresses[one].lock().unwrap() = served[one].address;
            gateways += 1;
            let (kills, done) =
                nodes.killed_then_done(&|_| ["kek", "reseal", "--wait", "90"].map(str::to_owned).to_vec());
            assert!(done.status.success(), "{done:?}");
            killed += kills;
        }
        let before = taken.lock().unwrap().len();
        until("mail flows after all that", LONG, || taken.lock().unwrap().len() > before + 20);
        stop.store(true, Ordering::Relaxed);
    });
    what_each_gateway_has_is_shown(&nodes);
    let taken = taken.into_inner().unwrap();
    until("everything that was taken arrives", LONG, || {
        let seen = counter.0.lock().unwrap();
        taken.iter().all(|number| seen.contains(number))
    });
    served.iter().for_each(|one| alarms.extend(one.alarms.lock().unwrap().drain(..)));
    drop(served);
    assert_eq!(alarms, Vec::<String>::new(), "nothing was forged");
    let users = 40.min(changes.load(Ordering::Relaxed));
    judge(&nodes, &names, &c, &first, users);
    println!(
        "{rounds} rotations and reseals, {killed} commands and {gateways} gateways killed: {} mails taken, 0 lost; {} changes; 0 keys unreadable; 0 records under older keys on 3 nodes and in etcd",
        taken.len(),
        changes.load(Ordering::Relaxed)
    );
}

fn what_each_gateway_has_is_shown(nodes: &Nodes) {
    let shown = nodes.command("b", &["kek", "status", "--json"]).output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let newest = &shown["store_keys"][0]["id"];
    let said: Vec<&str> =
        shown["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(said, ["a", "b", "c"], "{shown}");
    for node in shown["nodes"].as_array().unwrap() {
        assert_eq!(&node["all_under"], newest, "{shown}");
        assert!(node["keks"].as_array().unwrap().contains(&shown["keks"][0]["kek"]), "{shown}");
    }
}

/// Every key can be read on every node, and nothing is under an older key.
fn judge(nodes: &Nodes, names: &[String], c: &EmbeddedStore, first: &StoreKeys, users: u64) {
    let rounds = names.len() - 1;
    let last = |node: &str| nodes.path(node, &names[rounds]);
    let unreadable = |store: &EmbeddedStore| {
        let mine = (0..USERS).map(|user| format!("u{user}@ours.example"));
        let new = (0..users).map(|at| format!("new{at}@ours.example"));
        let bad = mine.chain(new).filter(|address| {
            let identity = identity(store, address);
            identity.certificates.is_empty()
                || identity.certificates.iter().any(|one| one.key.is_none_or(|key| store.export_key(key).is_err()))
        });
        bad.count()
    };
    let (mut older, mut bad) = (0, 0);
    c.shared().unwrap().catch_up().unwrap();
    for node in ["a", "b"] {
        let folder = nodes.path(node, "store");
        for old in &names[..rounds] {
            let refused = EmbeddedStore::open(&folder, nodes.path(node, old)).map(drop);
            assert!(matches!(refused, Err(StoreError::Kek(..))), "{node} {old}: {refused:?}");
        }
        let store = EmbeddedStore::open_shared(&folder, last(node), &nodes.etcd(node), Role::Command).unwrap();
        let keys = store.keys().unwrap();
        assert!(keys.keks.len() == 1 && keys.keys.len() == 1, "{keys:?}");
        assert_ne!(keys.keys[0].id, first.keys[0].id);
        assert_eq!((store.verify().unwrap(), store.alerts()), (Vec::new(), 0), "{node}");
        older += store.under_older_keys().unwrap().len();
        bad += unreadable(&store);
    }
    // A new node has the last keys alone: what etcd holds under any other is not authentic to it.
    let fresh =
        EmbeddedStore::open_shared(&nodes.path("a", "fresh"), last("a"), &nodes.etcd("fresh"), Role::Command).unwrap();
    bad += unreadable(&fresh);
    let foreign = fresh.shared().unwrap().status().unwrap().divergent.len();
    assert_eq!((older, foreign, fresh.alerts(), bad), (0, 0, 0, 0));
    assert_eq!(fresh.digest().unwrap(), c.digest().unwrap());
}

/// Says that it is over when it goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

//! The store on this machine: import, look-up, and how it opens with a million mailboxes.
//!
//! `cargo bench --bench store`, with `-- --mailboxes N` for another size; under `cargo test` each case runs once, small.
//!
//! Every mailbox has one certificate: a real one (RSA-2048) whose address and serial number are overwritten in place, so that its signature does
//! not fit, which is nothing the store looks at. So what is measured is the store and not the making of certificates.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use waxwing::address::{Mailbox, MailboxKey};
use waxwing::keys::{KeyHolder, KeyId, KeyOperation, Submission};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::certificate::Certificate;
use waxwing::policy::TrustState;
use waxwing::store::embedded::{EmbeddedStore, Parcel, file_of};
use waxwing::store::keyring::Kek;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};
use zeroize::Zeroizing;

const TEMPLATE: &str = "u0000000@bench.example";
const LOOKED_UP: u64 = 2_000;

fn address(number: u64) -> String {
    format!("u{number:07}@bench.example")
}

/// Makes certificates, and their parcels.
struct Mint {
    template: Vec<u8>,
    places: Vec<usize>,
    serial: usize,
    at: Timestamp,
}

impl Mint {
    fn new() -> Self {
        let issued = issue(&Recipe::mailbox(TEMPLATE, Timestamp::now(), NewKey::Rsa2048), None);
        let template = issued.certificate.der().to_vec();
        let name = TEMPLATE.as_bytes();
        let places = template.windows(name.len()).enumerate().filter(|(_, part)| *part == name).map(|(at, _)| at);
        let serial = issued.certificate.serial().to_vec();
        let at = template.windows(serial.len()).position(|part| part == serial).unwrap();
        Self { places: places.collect(), serial: at + serial.len() - 8, template, at: Timestamp::now() }
    }

    fn der(&self, number: u64) -> Bytes {
        let mut der = self.template.clone();
        let name = address(number);
        for place in &self.places {
            der[*place..*place + name.len()].copy_from_slice(name.as_bytes());
        }
        der[self.serial..self.serial + 8].copy_from_slice(&number.to_be_bytes());
        Bytes::from(der)
    }

    /// As an import does it: read, see whose it is, check.
    fn parcel(&self, number: u64) -> waxwing::store::embedded::CheckedParcel {
        let certificate = Certificate::from_der(self.der(number)).unwrap();
        let owner = Owner::Mailbox(certificate.mailboxes()[0].key());
        let provenance = Provenance { source: "import".into(), detail: format!("{number}.cer"), at: self.at };
        let new = NewCertificate { certificate, provenance, trust: TrustState::Trusted, key: None };
        Parcel { owners: vec![(owner, vec![new])], intermediates: Vec::new() }.check().unwrap()
    }
}

fn fill(store: &EmbeddedStore, mint: &Mint, from: u64, to: u64) -> Duration {
    let began = Instant::now();
    let mut next = from;
    while next < to {
        let end = to.min(next + store.at_once() as u64);
        let parcels: Vec<_> = (next..end).map(|number| mint.parcel(number)).collect();
        assert!(store.import_parcels(&parcels).iter().all(Result::is_ok));
        next = end;
    }
    began.elapsed()
}

fn show(what: &str, found: String, goal: &str) {
    println!("{what:58}{found:>16}{goal:>18}");
}

fn rate(count: u64, took: Duration) -> String {
    format!("{:.0}/s", count as f64 / took.as_secs_f64())
}

fn micros(count: u64, took: Duration) -> String {
    format!("{:.2} us", took.as_secs_f64() * 1e6 / count as f64)
}

/// A number that goes round all of them without order.
fn scattered(number: u64, of: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % of
}

/// Processor time of this process so far: what a busy machine does not change much.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    // USER_HZ is 100 on every Linux.
    Duration::from_millis(10 * ticks)
}

fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// In a process of its own: from nothing to the first answer, and what it costs.
fn serve(folder: &Path, mailboxes: u64) {
    let began = Instant::now();
    let store = EmbeddedStore::open(&folder.join("store"), folder.join("kek")).unwrap();
    let opened = began.elapsed();
    let mailbox = |number: u64| Mailbox::parse(&address(number)).unwrap();
    assert_eq!(store.identity(&mailbox(mailboxes / 2)).unwrap().certificates.len(), 1);
    let served = began.elapsed();
    show(
        &format!("open to the first answer, {mailboxes} mailboxes"),
        format!("{:.2} s", served.as_secs_f64()),
        "under 5 s",
    );
    show("  of which open", format!("{:.2} s", opened.as_secs_f64()), "");
    show("  resident then", format!("{} MB", memory("VmRSS")), "under 1,024 MB");
    let asked = LOOKED_UP.min(mailboxes);
    let cold: Vec<Mailbox> = (1..=asked).map(|number| mailbox(scattered(number, mailboxes))).collect();
    let before = processor();
    let began = Instant::now();
    cold.iter().for_each(|mailbox| drop(black_box(store.identity(mailbox).unwrap())));
    show("look-up, cold (the file in the page cache)", micros(asked, began.elapsed()), "under 300 us");
    show("  by processor time", micros(asked, processor().saturating_sub(before)), "");
    let rounds = 1_000_000 / asked;
    let before = processor();
    let began = Instant::now();
    for _ in 0..rounds {
        cold.iter().for_each(|mailbox| drop(black_box(store.identity(mailbox).unwrap())));
    }
    show("look-up, cached", micros(rounds * asked, began.elapsed()), "under 2 us");
    show("  by processor time", micros(rounds * asked, processor().saturating_sub(before)), "");
    assert!(store.verify().unwrap().is_empty());
    show("resident at most, every record checked beside it", format!("{} MB", memory("VmHWM")), "under 1,024 MB");
}

/// A key's first use against its later ones: what the first costs more is reading, unsealing and checking it.
fn keys(store: &EmbeddedStore, kind: NewKey, name: &str, rounds: u64) {
    let made: Vec<Issued> = (0..rounds)
        .map(|number| issue(&Recipe::mailbox(&format!("k{number}-{name}@bench.example"), Timestamp::now(), kind), None))
        .collect();
    let owner = |issued: &Issued| Owner::Mailbox(issued.certificate.mailboxes()[0].key());
    for issued in &made {
        let provenance = Provenance { source: "import".into(), detail: "bench".into(), at: Timestamp::now() };
        let new = NewCertificate {
            certificate: issued.certificate.clone(),
            provenance,
            trust: TrustState::Trusted,
            key: Some(Zeroizing::new(issued.pkcs8.to_vec())),
        };
        store.add_certificates(&owner(issued), vec![new]).unwrap();
    }
    let sign = |issued: &Issued| {
        let key = KeyId::of_spki(issued.certificate.public_key().spki());
        let scheme = match kind {
            NewKey::P256 => waxwing::cms::algorithm::SignatureScheme::Ecdsa(waxwing::cms::algorithm::Digest::Sha256),
            _ => waxwing::cms::algorithm::SignatureScheme::RsaPkcs1(waxwing::cms::algorithm::Digest::Sha256),
        };
        let operation = KeyOperation::Sign { key, scheme, message: Bytes::from_static(b"bench") };
        match store.submit(operation) {
            Submission::Ready(answer) => drop(black_box(answer.unwrap())),
            Submission::Later(_) => panic!("small keys answer at once"),
        }
    };
    let (mut first, mut later) = (Duration::ZERO, Duration::ZERO);
    for issued in &made {
        let began = Instant::now();
        sign(issued);
        first += began.elapsed();
        let began = Instant::now();
        sign(issued);
        later += began.elapsed();
    }
    show(&format!("key load, {name}, beside its use"), micros(rounds, first.saturating_sub(later)), "");
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after =
        |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let mailboxes: u64 =
        after("--mailboxes").map_or(if measured { 1_000_000 } else { 200 }, |number| number.parse().unwrap());
    if let Some(folder) = after("--serve") {
        serve(Path::new(folder), mailboxes);
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let kek = place.path().join("kek");
    Kek::create(&kek).unwrap();
    let store = EmbeddedStore::create(&place.path().join("store"), &kek).unwrap();
    let mint = Mint::new();
    assert_eq!(MailboxKey::parse(TEMPLATE).unwrap(), Certificate::from_der(mint.der(0)).unwrap().mailboxes()[0].key());
    println!("{:58}{:>16}{:>18}", "", "", "goal");
    let tenth = mailboxes / 10;
    let before = processor();
    show(&format!("import, the first {tenth}"), rate(tenth, fill(&store, &mint, 0, tenth)), "5,000/s");
    let middle = fill(&store, &mint, tenth, mailboxes - tenth);
    show("import, on the way", rate(mailboxes - 2 * tenth, middle), "5,000/s");
    let last = fill(&store, &mint, mailboxes - tenth, mailboxes);
    show(&format!("import, the last {tenth} of {mailboxes}"), rate(tenth, last), "5,000/s");
    show(
        "import of all, by processor time",
        rate(mailboxes, processor().saturating_sub(before).max(Duration::from_millis(1))),
        "",
    );
    let again = fill(&store, &mint, 0, tenth);
    show(&format!("import again, {tenth} that are there"), rate(tenth, again), "");
    let began = Instant::now();
    let changes = 50;
    for number in 0..changes {
        let owner = Owner::Mailbox(MailboxKey::parse(&address(scattered(number, mailboxes))).unwrap());
        store.set_disabled(&owner, true).unwrap();
        store.set_disabled(&owner, false).unwrap();
    }
    show("one change, durable", micros(2 * changes, began.elapsed()), "");
    let octets = std::fs::metadata(file_of(&place.path().join("store"))).unwrap().len();
    show("file, octets a mailbox", format!("{}", octets / mailboxes), "");
    show("  of which the certificate", format!("{}", mint.template.len()), "");
    keys(&store, NewKey::Rsa2048, "RSA-2048", if measured { 40 } else { 1 });
    keys(&store, NewKey::P256, "P-256", if measured { 200 } else { 1 });
    drop(store);
    let child = Command::new(std::env::current_exe().unwrap())
        .arg("--serve")
        .arg(place.path())
        .args(["--mailboxes", &mailboxes.to_string()])
        .status();
    assert!(child.unwrap().success());
}

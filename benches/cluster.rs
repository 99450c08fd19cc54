//! The shared store on this machine: three members of etcd, three nodes. How fast an import goes, how soon a change is in use on every
//! node, how long a new node reads.
//!
//! `cargo bench --bench cluster -- [--mailboxes N]`; needs etcd. Under `cargo test` a few of each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]
#![allow(dead_code, reason = "it uses a part of the tests' members")]

#[path = "../tests/support/etcd.rs"]
mod etcd;

use std::path::Path;
use std::time::{Duration, Instant};

use etcd::Members;
use jiff::Timestamp;
use waxwing::address::Mailbox;
use waxwing::config::Etcd;
use waxwing::pki::authority::{NewKey, Recipe, issue};
use waxwing::policy::TrustState;
use waxwing::store::embedded::{CheckedParcel, EmbeddedStore, Parcel};
use waxwing::store::etcd::Role;
use waxwing::store::keyring::Kek;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};

fn address(at: usize) -> String {
    format!("user{at}@ours.example")
}

fn parcels(count: usize) -> Vec<CheckedParcel> {
    let now = Timestamp::now();
    let parcel = |at: usize| {
        let issued = issue(&Recipe::mailbox(&address(at), now, NewKey::P256), None);
        let new = NewCertificate {
            certificate: issued.certificate.clone(),
            provenance: Provenance { source: "import".into(), detail: "bench".into(), at: now },
            trust: TrustState::Trusted,
            key: Some(issued.pkcs8.clone()),
        };
        let owners = vec![(Owner::parse(&address(at)).unwrap(), vec![new])];
        Parcel { owners, intermediates: Vec::new() }.check().unwrap()
    };
    (0..count).map(parcel).collect()
}

fn settings(members: &Members, node: &str) -> Etcd {
    Etcd {
        endpoints: members.endpoints(),
        prefix: "waxwing".into(),
        node: node.into(),
        user: None,
        ca: None,
        identity: None,
        max_staleness: Duration::from_secs(60),
        timeout: Duration::from_secs(10),
    }
}

fn open(members: &Members, folder: &Path, node: &str, role: Role) -> EmbeddedStore {
    EmbeddedStore::open_shared(&folder.join(node), folder.join("kek"), &settings(members, node), role).unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let measured = arguments.iter().any(|argument| argument == "--bench");
    if !etcd::installed() {
        return;
    }
    let named = arguments.iter().position(|argument| argument == "--mailboxes");
    let count = named.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(if measured { 20_000 } else { 100 });
    let changes = if measured { 300 } else { 5 };
    let members = Members::start();
    let folder = tempfile::tempdir().unwrap();
    Kek::create(&folder.path().join("kek")).unwrap();
    let first = EmbeddedStore::create(&folder.path().join("first"), folder.path().join("kek")).unwrap();
    assert!(first.found(&settings(&members, "first")).unwrap());
    let parcels = parcels(count);
    let nodes: Vec<EmbeddedStore> =
        ["a", "b", "c"].iter().map(|node| open(&members, folder.path(), node, Role::Gateway)).collect();
    let began = Instant::now();
    for some in parcels.chunks(nodes[0].at_once()) {
        assert!(nodes[0].import_parcels(some).iter().all(Result::is_ok));
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("import with checks and keys: {rate:.0} mailboxes/s ({count}), goal 1,000");
    for node in &nodes {
        node.shared().unwrap().catch_up().unwrap();
    }
    println!("a change in use on every node: {}, goal p99 under 1 s", visible(&nodes, changes, count));
    println!("look-up, cached, its freshness asked: {:.2?}, goal under 2 us", look_up(&nodes[0], count, measured));
    let began = Instant::now();
    let new = open(&members, folder.path(), "new", Role::Command);
    let took = began.elapsed().as_secs_f64();
    assert_eq!(new.digest().unwrap().0, count);
    println!("a new node reads everything: {took:.2} s, {:.0} mailboxes/s", count as f64 / took);
    let status = new.shared().unwrap().status().unwrap();
    let (size, file) =
        (status.server.unwrap().1, std::fs::metadata(folder.path().join("new/store.redb")).unwrap().len());
    println!("etcd's database: {} octets a mailbox; the copy's file: {}", size / count as i64, file / count as u64);
}

/// What one look-up takes on a gateway where the identity is cached: whether the copy is fresh enough, and whether a later version wrote
/// the record, is asked each time.
fn look_up(node: &EmbeddedStore, count: usize, measured: bool) -> Duration {
    let mailboxes: Vec<Mailbox> = (0..count.min(1_000)).map(|at| Mailbox::parse(&address(at)).unwrap()).collect();
    let all = || {
        for mailbox in &mailboxes {
            assert_eq!(std::hint::black_box(node.identity(mailbox).unwrap()).certificates.len(), 1);
        }
    };
    all();
    let rounds = if measured { 2_000 } else { 1 };
    let began = Instant::now();
    (0..rounds).for_each(|_| all());
    began.elapsed() / (rounds * mailboxes.len() as u32)
}

/// From the call of a change on one node until the last node answers by it: median, p99 and longest.
fn visible(nodes: &[EmbeddedStore], changes: usize, count: usize) -> String {
    let mut times = Vec::with_capacity(changes);
    for at in 0..changes {
        let (name, writer) = (address(at % count), &nodes[at % nodes.len()]);
        let mailbox = Mailbox::parse(&name).unwrap();
        let disabled = (at / count).is_multiple_of(2);
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| writer.set_disabled(&Owner::parse(&name).unwrap(), disabled).unwrap());
            for node in nodes {
                let mailbox = &mailbox;
                scope.spawn(move || {
                    while node.identity(mailbox).unwrap().disabled != disabled {
                        assert!(began.elapsed() < Duration::from_secs(30), "not in use everywhere");
                        std::thread::sleep(Duration::from_micros(200));
                    }
                });
            }
        });
        times.push(began.elapsed());
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!("median {:.1?}, p99 {:.1?}, longest {:.1?} of {}", at(0.5), at(0.99), at(1.0), times.len())
}

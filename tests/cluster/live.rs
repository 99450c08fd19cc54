//! Mail goes on through two gateways while certificates, anchors, trust states, aliases and tombstones are swapped, forged, deleted and put back in
//! etcd: not one mail is sealed for somebody it is not for, or leaves in clear, and each attack is found, reported and put right (A26).

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::certificate::Certificate;
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::smime::open::recipient_ids;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::{CertStore, NewCertificate, Provenance};

use super::support::etcd::{Members, installed};
use super::support::{Client, Sink};
use super::t08::Node;
use super::tampered::hex;
use super::{Site, mailbox, owner};

const ANNA: &str = "anna@ours.load.example";
const BERT: &str = "bert@live.example";
const CARL: &str = "carl@live.example";
const DORA: &str = "dora@live.example";
const EMIL: &str = "emil@live.example";
const INFO: &str = "info@live.example";
const OTHER: &str = "other@live.example";
const MALLORY: &str = "mallory@live.example";

/// What the gateways log as errors.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn listen() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_max_level(tracing_subscriber::filter::LevelFilter::ERROR)
                .with_writer(move || writer.clone())
                .init();
            log
        })
        .clone()
    }

    /// How often it says that this record is not as a node knows it.
    fn says(&self, path: &str) -> usize {
        let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        text.lines().filter(|line| line.contains("is not as this node knows it") && line.contains(path)).count()
    }
}

struct Cast {
    /// The certificate of bert that counts.
    bert: Certificate,
    anna: Certificate,
    /// Keys that the attacker has: his own, and the one that bert lost.
    lost: [Certificate; 2],
}

fn issued(address: &str, by: &Issued) -> Issued {
    issue(&Recipe::mailbox(address, Timestamp::now(), NewKey::P256), Some(by))
}

fn add(store: &EmbeddedStore, address: &str, issued: &Issued, with_key: bool) {
    let new = NewCertificate {
        certificate: issued.certificate.clone(),
        provenance: Provenance { source: "import".into(), detail: "live".into(), at: Timestamp::now() },
        trust: TrustState::Trusted,
        key: with_key.then(|| issued.pkcs8.clone()),
    };
    store.add_certificates(&owner(address), vec![new]).unwrap();
}

/// Something written under a key, or the key deleted.
struct Attack {
    what: &'static str,
    key: String,
    value: Option<Vec<u8>>,
}

/// Everybody in the store, and what the attacker took note of on the way.
fn setting(store: &EmbeddedStore, members: &Members) -> (Cast, Vec<Attack>) {
    let authority = |name: &str| issue(&Recipe::authority(name, Timestamp::now(), NewKey::P256), None);
    let (ca, fallen) = (authority("Live Root"), authority("Fallen Root"));
    store.add_trust(ca.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    store.add_trust(fallen.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    let [anna, lost, bert, mallory, carl, dora] =
        [ANNA, BERT, BERT, MALLORY, CARL, DORA].map(|address| issued(address, &ca));
    add(store, ANNA, &anna, true);
    add(store, BERT, &lost, false);
    add(store, MALLORY, &mallory, false);
    add(store, CARL, &carl, false);
    add(store, DORA, &dora, false);
    add(store, EMIL, &issued(EMIL, &fallen), false);
    store.add_alias(&mailbox(INFO).key(), &mailbox(BERT).key()).unwrap();
    store.add_alias(&mailbox(OTHER).key(), &mailbox(MALLORY).key()).unwrap();
    let of = |address: &str| format!("waxwing/o/{address}");
    let anchor = format!("waxwing/t/{}", hex(&fallen.certificate.fingerprint()));
    let before = [of(BERT), of(CARL), of(DORA), anchor.clone()].map(|key| members.get(&key));
    // Bert lost his key and has another, carl is blocked, dora is purged, one anchor is trusted no more.
    store.set_trust(&owner(BERT), lost.certificate.fingerprint(), TrustState::Blocked).unwrap();
    add(store, BERT, &bert, false);
    store.set_trust(&owner(CARL), carl.certificate.fingerprint(), TrustState::Blocked).unwrap();
    store.purge(&owner(DORA)).unwrap();
    store.remove_trust(fallen.certificate.fingerprint()).unwrap();
    let [old_bert, old_carl, old_dora, old_anchor] = before;
    let mut forged = members.get(&of(BERT));
    let at = memchr::memmem::find(&forged, bert.certificate.der()).unwrap();
    forged.splice(at..at + bert.certificate.der().len(), mallory.certificate.der().iter().copied());
    let (info, other) = ("waxwing/a/info@live.example".to_owned(), "waxwing/a/other@live.example");
    let attack = |what, key: &str, value: Option<Vec<u8>>| Attack { what, key: key.to_owned(), value };
    let attacks = vec![
        attack("a certificate whose key was lost, put back", &of(BERT), Some(old_bert)),
        attack("the attacker's record in its place", &of(BERT), Some(members.get(&of(MALLORY)))),
        attack("the attacker's certificate in the record", &of(BERT), Some(forged)),
        attack("nothing in it", &of(BERT), Some(Vec::new())),
        attack("deleted", &of(BERT), None),
        attack("a trust state from before a block", &of(CARL), Some(old_carl)),
        attack("the blocked one deleted", &of(CARL), None),
        attack("a purged one put back", &of(DORA), Some(old_dora)),
        attack("a tombstone deleted", &of(DORA), None),
        attack("an anchor put back", &anchor, Some(old_anchor)),
        attack("an anchor's tombstone deleted", &anchor, None),
        attack("an alias that leads to the attacker", &info, Some(members.get(other))),
        attack("an alias deleted", &info, None),
    ];
    let cast = Cast { bert: bert.certificate, anna: anna.certificate, lost: [mallory.certificate, lost.certificate] };
    (cast, attacks)
}

/// What clients were told: mails taken to those who may be written to, and to those who may not.
#[derive(Default)]
struct Told {
    good: AtomicUsize,
    bad: AtomicUsize,
    refused: AtomicUsize,
}

async fn writes(address: SocketAddr, told: Arc<Told>, ends: Arc<AtomicBool>) {
    let mut number = 0;
    while !ends.load(Ordering::SeqCst) {
        number += 1;
        let to = [BERT, CARL, INFO, DORA, BERT, EMIL][number % 6];
        let mail = format!(
            "From: {ANNA}\r\nTo: {to}\r\nSubject: {number}\r\nMessage-ID: <{number}.{}@ours.load.example>\r\n\
             Date: Mon, 1 Jun 2026 10:00:00 +0000\r\n\r\na secret of eagles\r\n",
            address.port()
        );
        let taken = Client::connect(address).await.send(ANNA, &[to], mail.as_bytes()).await.code == 250;
        let count = match (taken, [BERT, INFO].contains(&to)) {
            (false, _) => &told.refused,
            (true, true) => &told.good,
            (true, false) => &told.bad,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// Waits for what holds soon.
async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a26_no_mail_goes_to_the_attacker_while_he_writes_into_etcd() {
    if !installed() {
        return;
    }
    let log = Log::listen();
    let members = Arc::new(tokio::task::spawn_blocking(Members::start).await.unwrap());
    let site = Site::found(&members);
    let sink = Sink::start().await;
    let a = Node::start(&site, "a", members.endpoints(), sink.address).await;
    let b = Node::start(&site, "b", members.endpoints(), sink.address).await;
    let etcd = members.clone();
    let (cast, attacks) = a.change(move |store| setting(store, &etcd)).await;
    let caught_up = |store: &EmbeddedStore| store.shared().unwrap().catch_up().unwrap();
    b.change(caught_up).await;
    let (told, ends) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
    let clients = [&a, &b].map(|node| tokio::spawn(writes(node.address(), told.clone(), ends.clone())));
    soon("mail flows", async || told.good.load(Ordering::SeqCst) > 10).await;

    let count = attacks.len();
    for Attack { what, key, value } in attacks {
        let path = key.strip_prefix("waxwing/").unwrap().to_owned();
        let before = (a.store.alerts(), b.store.alerts(), log.says(&path), told.good.load(Ordering::SeqCst));
        let etcd = members.clone();
        let strike = move || match value {
            Some(value) => etcd.put(&key, &value),
            None => drop(etcd.ctl(&["del", &key])),
        };
        tokio::task::spawn_blocking(strike).await.unwrap();
        soon(what, async || a.store.alerts() > before.0 && b.store.alerts() > before.1).await;
        soon(what, async || log.says(&path) >= before.2 + 2).await;
        soon("mail goes on", async || told.good.load(Ordering::SeqCst) > before.3 + 6).await;
        right(&[&a, &b], what).await;
    }
    // Everything at once.
    let etcd = members.clone();
    let strike = move || {
        ["o/", "a/", "t/"].iter().for_each(|head| drop(etcd.ctl(&["del", "--prefix", &format!("waxwing/{head}")])))
    };
    let before = told.good.load(Ordering::SeqCst);
    tokio::task::spawn_blocking(strike).await.unwrap();
    soon("mail goes on", async || told.good.load(Ordering::SeqCst) > before + 12).await;
    right(&[&a, &b], "all of it deleted").await;

    ends.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let (good, bad) = (told.good.load(Ordering::SeqCst), told.bad.load(Ordering::SeqCst));
    let mails = sink.wait(good).await;
    let limits = MimeLimits::default();
    let (mut clear, mut attacker, mut others) = (0, 0, 0);
    for mail in &mails {
        let entity = Entity::parse(mail.message.clone().into(), &limits).unwrap();
        let ids = recipient_ids(&entity, &limits).unwrap_or_default();
        clear += usize::from(ids.is_empty() || mail.text().contains("eagles"));
        attacker += usize::from(ids.iter().any(|id| cast.lost.iter().any(|lost| id.names(lost))));
        let known = ids.iter().all(|id| id.names(&cast.bert) || id.names(&cast.anna));
        others += usize::from(!known || !ids.iter().any(|id| id.names(&cast.bert)));
    }
    println!(
        "{} attacks found and put right; {} mails taken, {} refused, {} at the sink: {attacker} for the attacker, {clear} in clear, {others} not for whom they are to, {bad} to whom nobody may write",
        count + 1,
        good,
        told.refused.load(Ordering::SeqCst),
        mails.len()
    );
    assert_eq!((mails.len(), attacker, clear, others, bad), (good, 0, 0, 0, 0));
}

/// Waits until etcd holds what these nodes know.
async fn right(nodes: &[&Node], what: &str) {
    for node in nodes {
        soon(&format!("{what}: put right"), async || {
            node.change(|store| {
                let shared = store.shared().unwrap();
                shared.status().unwrap().divergent.is_empty()
                    && shared.digest().is_ok_and(|there| Ok(there) == store.digest())
            })
            .await
        })
        .await;
    }
}

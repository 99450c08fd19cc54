//! T8: three members, two gateways, mail both ways, counted by the load lab, while members are killed, stopped and divided, a gateway is cut off,
//! and the cluster is put back to a snapshot.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use waxwing::config::Config;
use waxwing::load::generator::{Phase, Target};
use waxwing::load::ledger::Account;
use waxwing::load::mails::people::{People, Person};
use waxwing::load::run::{Setup, prepared, run};
use waxwing::load::scenario::{Scenario, parse};
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::relay::gateway::Gateway;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::etcd::Role;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};

use super::support::Client;
use super::support::etcd::{Cable, Members, installed};
use super::{Site, owner};

const STALE: Duration = Duration::from_secs(5);

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn scenario(seconds: u64) -> Scenario {
    let text = format!(
        "name = 't08'\n[pace]\nkind = 'open'\nrate = 20\n[bound]\ntime = '{seconds} s'\ndrain = '60 s'\n[people]\nmade = 3\n[connection]\ncount = 4\n\
         [[mix]]\nkind = 'to-seal'\n[[mix]]\nkind = 'sealed'\n[[mix]]\nkind = 'unknown'\n"
    );
    parse(&text, "t08").unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn import(store: &EmbeddedStore, people: &People) {
    people.anchors().for_each(|one| store.add_trust(one.clone(), Some(AnchorScope::Global)).unwrap());
    let add = |person: &Person, with_key: bool| {
        let Some(certificate) = person.certificate.clone() else { return };
        let provenance = Provenance { source: "test".into(), detail: String::new(), at: Timestamp::now() };
        let new = NewCertificate {
            certificate,
            provenance,
            trust: TrustState::Trusted,
            key: person.pkcs8().filter(|_| with_key).cloned(),
        };
        store.add_certificates(&Owner::Mailbox(person.mailbox.key()), vec![new]).unwrap();
    };
    people.ours.iter().for_each(|person| add(person, true));
    people.theirs.iter().for_each(|person| add(person, false));
}

/// A gateway of the site, between the lab's generator and its sink.
pub(super) struct Node {
    pub(super) store: Arc<EmbeddedStore>,
    gateway: Gateway,
    sink: SocketAddr,
}

impl Node {
    pub(super) async fn start(site: &Site, name: &str, endpoints: Vec<String>, sink: SocketAddr) -> Self {
        let mut etcd = site.etcd(name);
        etcd.endpoints = endpoints;
        let (folder, kek) = (site.store(name), site.kek());
        let opened =
            tokio::task::spawn_blocking(move || EmbeddedStore::open_shared(&folder, &kek, &etcd, Role::Gateway));
        let store = Arc::new(opened.await.unwrap().unwrap());
        let text = format!(
            "hostname = \"{name}.ours.example\"\ndomains = [\"ours.load.example\"]\n\
             store = '{folder}/{name}'\nkek = '{folder}/kek'\nspool = '{folder}/{name}-spool'\n\
             [[listener]]\nname = \"in\"\naddress = \"127.0.0.1:0\"\ndirection = \"by-recipient\"\ntrusted_networks = [\"127.0.0.0/8\"]\n\
             [next_hop.outbound]\nhost = \"127.0.0.1\"\nport = {sink}\ntls = \"off\"\n\
             [next_hop.inbound]\nhost = \"127.0.0.1\"\nport = {sink}\ntls = \"off\"\n\
             [retry]\nfirst = \"1 s\"\n[default]\nsign = \"if-key\"\nencrypt = \"require\"\n",
            folder = site.folder.path().display(),
            sink = sink.port(),
        );
        let config = Config::parse(&text, "t08", &|_| Err("no list files".into())).unwrap();
        let gateway = Gateway::start(config, store.clone(), store.clone(), b"t08").await.unwrap();
        Self { store, gateway, sink }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.gateway.address("in").unwrap()
    }

    /// Ends, and gives the store back.
    async fn end(self) {
        self.gateway.shut_down(Duration::from_secs(5)).await;
        tokio::task::spawn_blocking(move || drop(self.store)).await.unwrap();
    }

    /// Sends load for so many seconds; the lab's account of it.
    async fn load(&self, people: &Arc<People>, seconds: u64) -> Account {
        let scenario = scenario(seconds);
        let target = Target::find(&self.address().to_string(), false).await.unwrap();
        let (_phase, going) = watch::channel(Phase::Going);
        let mails =
            prepared(&scenario, Some(people.clone()), Arc::new(|_: &str, _: usize, _: usize| {})).await.unwrap();
        let setup = Setup { scenario, mails, target, sink: Some(self.sink), processes: Vec::new() };
        let outcome = tokio::time::timeout(Duration::from_secs(180), run(setup, going)).await.unwrap();
        outcome.unwrap().account
    }

    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&EmbeddedStore) -> T + Send + 'static,
    ) -> T {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || change(&store)).await.unwrap()
    }
}

/// Mail to somebody who is blocked while this runs: when each was taken, until told to end.
async fn probe(address: SocketAddr, from: String, to: String, ends: Arc<AtomicBool>) -> Vec<Instant> {
    let mut taken = Vec::new();
    let mut number = 0;
    while !ends.load(Ordering::SeqCst) {
        number += 1;
        let began = Instant::now();
        let mail = format!(
            "From: {from}\r\nTo: {to}\r\nSubject: probe\r\nMessage-ID: <probe{number}.{}@ours.example>\r\nDate: Mon, 1 Jun 2026 10:00:00 +0000\r\n\r\nprobe\r\n",
            address.port()
        );
        let said = Client::connect(address).await.send(&from, &[to.as_str()], mail.as_bytes()).await;
        if said.code == 250 {
            taken.push(began);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    taken
}

fn tell(what: &str, accounts: &[Account]) {
    for (node, account) in ["a", "b"].iter().zip(accounts) {
        println!(
            "{what}: node {node}: {} sent, {} taken, {} deferred, {} refused, {} delivered, {} faults",
            account.sent,
            account.taken,
            account.deferred,
            account.refused,
            account.delivered,
            account.faults.len()
        );
    }
}

fn whole(what: &str, accounts: &[Account]) {
    tell(what, accounts);
    for account in accounts {
        assert_eq!(account.faults, [], "{what}: {account:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t08_no_failure_of_etcd_loses_or_leaks_mail_and_nothing_stale_is_used() {
    if !installed() {
        return;
    }
    let mut members = tokio::task::spawn_blocking(Members::divisible).await.unwrap();
    let mut site = Site::found(&members);
    // Elections and a loaded machine together may take longer than the copy holds in the parts after this one.
    site.max_staleness = Duration::from_secs(60);
    let people = Arc::new(People::new(&scenario(1), &|_: &str, _: usize, _: usize| {}).unwrap());
    let cables: Vec<Cable> =
        members.endpoints().iter().map(|one| Cable::to(one.strip_prefix("http://").unwrap())).collect();
    let through: Vec<String> = cables.iter().map(|cable| format!("http://{}", cable.address)).collect();
    let a = Node::start(&site, "a", members.endpoints(), free_address()).await;
    let everybody = people.clone();
    a.change(move |store| import(store, &everybody)).await;
    let b = Node::start(&site, "b", through.clone(), free_address()).await;

    // The leader is killed, and a member is stopped, while mail goes on.
    let faults = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let leader = members.leader().unwrap();
        members.kill(leader);
        tokio::time::sleep(Duration::from_secs(2)).await;
        members.restart(leader);
        members.wait();
        let other = (leader + 1) % 3;
        members.stop(other);
        tokio::time::sleep(Duration::from_secs(2)).await;
        members.go_on(other);
    };
    let (first, second, ()) = tokio::join!(a.load(&people, 6), b.load(&people, 6), faults);
    let accounts = [first, second];
    whole("leader killed, member stopped", &accounts);
    for account in &accounts {
        assert_eq!(account.deferred, 0, "mail goes on from the copies: {account:?}");
        assert!(account.delivered > 20, "{account:?}");
    }
    tokio::join!(a.end(), b.end());
    site.max_staleness = STALE;
    let a = Node::start(&site, "a", members.endpoints(), free_address()).await;
    let b = Node::start(&site, "b", through, free_address()).await;

    // A gateway is cut off; meanwhile somebody is blocked.
    let (from, victim) = (
        people.ours[0].mailbox.to_string(),
        people.theirs.iter().find(|one| one.certificate.is_some()).unwrap().mailbox.to_string(),
    );
    cables.iter().for_each(|cable| cable.cut(true));
    let ends = Arc::new(AtomicBool::new(false));
    set(&a, &victim, TrustState::Blocked).await;
    let at = Instant::now();
    let probing = tokio::spawn(probe(b.address(), from.clone(), victim.clone(), ends.clone()));
    tokio::time::sleep(STALE + Duration::from_secs(3)).await;
    ends.store(true, Ordering::SeqCst);
    let taken = probing.await.unwrap();
    let late = taken.iter().filter(|one| one.duration_since(at) > STALE).count();
    println!("cut off: {} mails to the blocked one taken within {STALE:?}, {late} after", taken.len());
    assert_eq!(late, 0, "a copy that is too old is not used");
    cables.iter().for_each(|cable| cable.cut(false));
    settled(&b, &victim, TrustState::Blocked).await;
    set(&a, &victim, TrustState::Trusted).await;
    settled(&b, &victim, TrustState::Trusted).await;

    // All of etcd is away for longer than a copy holds.
    let faults = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (0..3).for_each(|at| members.kill(at));
        tokio::time::sleep(STALE + Duration::from_secs(3)).await;
        (0..3).for_each(|at| members.restart(at));
        members.wait();
    };
    let (first, second, ()) = tokio::join!(a.load(&people, 15), b.load(&people, 15), faults);
    let accounts = [first, second];
    whole("all of etcd away", &accounts);
    for account in &accounts {
        assert!(account.deferred > 0, "past max_staleness mail waits: {account:?}");
        assert!(account.delivered > 20, "before and after it goes on: {account:?}");
    }
    divided(&members, &site, &a, &from, &victim).await;
    put_back(&mut members, &a, &b, &people, &victim).await;
}

/// A gateway that sees the third member alone, while that is cut off from the others and they go on.
async fn divided(members: &Members, site: &Site, a: &Node, from: &str, victim: &str) {
    if !members.can_divide() {
        println!("a minority: no network namespaces, left to the gateway that was cut off");
        return;
    }
    let c = Node::start(site, "c", vec![members.endpoints()[2].clone()], free_address()).await;
    members.divide(true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    set(a, victim, TrustState::Blocked).await;
    let (at, ends) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let probing = tokio::spawn(probe(c.address(), from.to_owned(), victim.to_owned(), ends.clone()));
    tokio::time::sleep(STALE + Duration::from_secs(3)).await;
    ends.store(true, Ordering::SeqCst);
    let taken = probing.await.unwrap();
    let late = taken.iter().filter(|one| one.duration_since(at) > STALE).count();
    println!("with the minority: {} mails to the blocked one taken within {STALE:?}, {late} after", taken.len());
    members.divide(false);
    assert_eq!(late, 0, "a member of the minority is not believed");
    settled(&c, victim, TrustState::Blocked).await;
    set(a, victim, TrustState::Trusted).await;
    c.end().await;
}

/// The cluster is put back to a snapshot under the same token, and its revision outruns what the gateways saw.
async fn put_back(members: &mut Members, a: &Node, b: &Node, people: &Arc<People>, victim: &str) {
    settled(b, victim, TrustState::Trusted).await;
    let file = std::env::temp_dir().join(format!("waxwing-t08-{}.db", std::process::id()));
    members.snapshot(&file);
    set(a, victim, TrustState::Blocked).await;
    settled(b, victim, TrustState::Blocked).await;
    let faults = async {
        members.put_back(&file);
        // Beyond what anybody saw.
        for at in 0..60 {
            members.put("elsewhere", format!("{at}").as_bytes());
        }
    };
    let (first, second, ()) = tokio::join!(a.load(people, 10), b.load(people, 10), faults);
    std::fs::remove_file(&file).unwrap();
    whole("put back to a snapshot", &[first, second]);
    // What was changed after the snapshot still holds, and is in etcd again.
    for node in [a, b] {
        settled(node, victim, TrustState::Blocked).await;
        let divergent = |store: &EmbeddedStore| store.shared().unwrap().status().unwrap().divergent;
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let left = node.change(divergent).await;
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "not put right: {left:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Sets what all certificates of somebody count as, by this node.
async fn set(node: &Node, who: &str, trust: TrustState) {
    let person = owner(who);
    node.change(move |store| {
        let held = store.identity_of(&person).unwrap();
        held.certificates
            .iter()
            .for_each(|one| store.set_trust(&person, one.certificate.fingerprint(), trust).unwrap());
    })
    .await;
}

/// Waits until the node knows it so, and answers.
async fn settled(node: &Node, who: &str, trust: TrustState) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let person = owner(who);
        let known = node.change(move |store| store.identity_of(&person)).await;
        if known.as_ref().is_ok_and(|known| known.certificates.iter().all(|one| one.trust == trust)) {
            return;
        }
        assert!(Instant::now() < until, "{who} is not {trust:?}: {known:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

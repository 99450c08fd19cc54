//! A store that several gateways share, over Debian's etcd: what one changes holds everywhere, who can write etcd changes nothing, and no
//! failure of it loses or leaks anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "cluster/history.rs"]
mod history;
#[path = "cluster/limits.rs"]
mod limits;
#[path = "cluster/live.rs"]
mod live;
#[path = "cluster/put_back.rs"]
mod put_back;
#[path = "cluster/secure.rs"]
mod secure;
mod support;
#[path = "cluster/t08.rs"]
mod t08;
#[path = "cluster/t20.rs"]
mod t20;
#[path = "cluster/tampered.rs"]
mod tampered;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tempfile::TempDir;
use waxwing::address::Mailbox;
use waxwing::config::Etcd;
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::policy::TrustState;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::etcd::Role;
use waxwing::store::keyring::Kek;
use waxwing::store::{CertStore, Identity, NewCertificate, Owner, Provenance};

use support::etcd::{Members, installed};

/// The folders of nodes that share a store, and the KEK they have in common.
struct Site {
    folder: TempDir,
    prefix: String,
    endpoints: Vec<String>,
    max_staleness: Duration,
}

impl Site {
    /// A new store in etcd.
    fn found(members: &Members) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self {
            prefix: "waxwing".into(),
            endpoints: members.endpoints(),
            folder,
            max_staleness: Duration::from_secs(5),
        };
        Kek::create(&site.kek()).unwrap();
        let first = EmbeddedStore::create(&site.folder.path().join("first"), site.kek()).unwrap();
        assert!(first.found(&site.etcd("first")).unwrap(), "there was none");
        site
    }

    fn kek(&self) -> PathBuf {
        self.folder.path().join("kek")
    }

    fn store(&self, node: &str) -> PathBuf {
        self.folder.path().join(node)
    }

    fn etcd(&self, node: &str) -> Etcd {
        let (prefix, max_staleness) = (self.prefix.clone(), self.max_staleness);
        Etcd { prefix, max_staleness, node: node.into(), ..Self::settings(&self.endpoints) }
    }

    fn settings(endpoints: &[String]) -> Etcd {
        Etcd {
            endpoints: endpoints.to_vec(),
            prefix: "waxwing".into(),
            node: String::new(),
            user: None,
            ca: None,
            identity: None,
            max_staleness: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }

    fn gateway(&self, node: &str) -> EmbeddedStore {
        EmbeddedStore::open_shared(&self.store(node), self.kek(), &self.etcd(node), Role::Gateway).unwrap()
    }

    fn command(&self, node: &str) -> EmbeddedStore {
        EmbeddedStore::open_shared(&self.store(node), self.kek(), &self.etcd(node), Role::Command).unwrap()
    }
}

fn owner(address: &str) -> Owner {
    Owner::parse(address).unwrap()
}

fn mailbox(address: &str) -> Mailbox {
    Mailbox::parse(address).unwrap()
}

fn certificate(address: &str, with_key: bool) -> NewCertificate {
    let issued: Issued = issue(&Recipe::mailbox(address, Timestamp::now(), NewKey::P256), None);
    NewCertificate {
        certificate: issued.certificate.clone(),
        provenance: Provenance { source: "import".into(), detail: "test".into(), at: Timestamp::now() },
        trust: TrustState::Trusted,
        key: with_key.then(|| issued.pkcs8.clone()),
    }
}

/// Waits until something holds; how long that took.
fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

const SOON: Duration = Duration::from_secs(20);

fn identity(store: &EmbeddedStore, address: &str) -> Arc<Identity> {
    store.identity(&mailbox(address)).unwrap()
}

#[test]
fn what_one_node_changes_holds_on_every_node() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let (a, b) = (site.gateway("a"), site.gateway("b"));
    let anna = owner("anna@ours.example");
    a.add_certificates(&anna, vec![certificate("anna@ours.example", true)]).unwrap();
    until("a certificate is on the other node", SOON, || identity(&b, "anna@ours.example").certificates.len() == 1);
    let held = identity(&b, "anna@ours.example");
    let key = held.certificates[0].key.expect("with its key");
    assert_eq!(*a.export_key(key).unwrap(), *b.export_key(key).unwrap());
    // The other node changes it in turn.
    let fingerprint = held.certificates[0].certificate.fingerprint();
    b.set_trust(&anna, fingerprint, TrustState::Blocked).unwrap();
    let blocked = |store| identity(store, "anna@ours.example").certificates[0].trust == TrustState::Blocked;
    assert!(blocked(&b), "who writes reads what it wrote");
    until("a block is on the other node", SOON, || blocked(&a));
    let behind = b.shared().unwrap().not_acknowledged(SOON).unwrap();
    assert_eq!(behind, [], "both have said that they have it");
    a.add_alias(&mailbox("info@ours.example").key(), &mailbox("anna@ours.example").key()).unwrap();
    until("an alias is followed on the other node", SOON, || identity(&b, "info@ours.example").owner == anna);
    b.purge(&anna).unwrap();
    until("who is purged is gone", SOON, || identity(&a, "anna@ours.example").certificates.is_empty());
    assert!(a.export_key(key).is_err(), "and so is the key");
    // Anchors too.
    let root = issue(&Recipe::authority("Root", Timestamp::now(), NewKey::P256), None);
    a.add_trust(root.certificate.clone(), None).unwrap();
    until("an anchor", SOON, || b.trust().unwrap().intermediates.len() == 1);
    b.remove_trust(root.certificate.fingerprint()).unwrap();
    until("an anchor is gone", SOON, || a.trust().unwrap().intermediates.is_empty());
    // A node that comes later, and a command, have all of it at once.
    let c = site.command("c");
    assert_eq!((c.digest().unwrap(), c.verify().unwrap().len()), (a.digest().unwrap(), 0));
    assert_eq!((a.alerts(), b.alerts(), c.alerts()), (0, 0, 0));
}

#[test]
fn both_change_the_same_owner_at_once_and_nothing_is_lost() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let nodes = [site.gateway("a"), site.gateway("b"), site.gateway("c")];
    std::thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(move || {
                for _ in 0..10 {
                    node.add_certificates(&owner("anna@ours.example"), vec![certificate("anna@ours.example", false)])
                        .unwrap();
                }
            });
        }
    });
    for node in &nodes {
        until("thirty certificates", SOON, || identity(node, "anna@ours.example").certificates.len() == 30);
    }
}

#[test]
fn a_store_moves_into_etcd_and_out_of_it() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let folder = tempfile::tempdir().unwrap();
    let kek = folder.path().join("kek");
    Kek::create(&kek).unwrap();
    let alone = EmbeddedStore::create(&folder.path().join("store"), &kek).unwrap();
    for at in 0..120 {
        let address = format!("user{at}@ours.example");
        alone.add_certificates(&owner(&address), vec![certificate(&address, at % 3 == 0)]).unwrap();
    }
    let root = issue(&Recipe::authority("Root", Timestamp::now(), NewKey::P256), None);
    alone.add_trust(root.certificate.clone(), None).unwrap();
    let before = alone.digest().unwrap();
    drop(alone);
    let config = folder.path().join("waxwing.toml");
    std::fs::write(&config, toml(folder.path(), &members.endpoints())).unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_waxwing"))
            .arg("--config")
            .arg(&config)
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["store", "migrate", "--to-etcd"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("121 records are in etcd"), "{said}");
    assert_eq!(
        members
            .ctl(&["get", "--prefix", "--keys-only", "waxwing/o/"])
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .count(),
        120
    );
    // Again: nothing is left to do.
    assert_eq!(run(&["store", "migrate", "--to-etcd"]).0, Some(0));
    let (code, said) = run(&["store", "init"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("copy of a shared store already") && said.contains("store status"), "{said}");
    // The copy is not changed behind etcd's back.
    let (store, kek_file) = (folder.path().join("store"), kek.to_str().unwrap());
    let aside = ["--store", store.to_str().unwrap(), "--kek", kek_file];
    let (code, said) = run(&[["cert", "disable", "user1@ours.example"].as_slice(), &aside].concat());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("copy of a shared store"), "{said}");
    let (code, said) = run(&["cert", "disable", "user1@ours.example"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["cert", "enable", "user1@ours.example"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["store", "migrate", "--to-embedded", folder.path().join("out").to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let out = EmbeddedStore::open(&folder.path().join("out"), &kek).unwrap();
    assert_eq!(out.digest().unwrap(), before);
    assert_eq!(out.verify().unwrap(), Vec::<String>::new());
    out.set_disabled(&owner("user1@ours.example"), true).unwrap();
    let (code, said) = run(&["store", "status", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status["lag"].as_u64(), status["complete"].as_bool()), (Some(0), Some(true)), "{said}");
}

fn toml(folder: &Path, endpoints: &[String]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "hostname = \"gw.ours.example\"\ndomains = [\"ours.example\"]\nstore = '{0}/store'\nkek = '{0}/kek'\nspool = '{0}/spool'\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\nname = \"out\"\n\
         [next_hop.outbound]\nhost = \"127.0.0.1\"\nport = 9\n[next_hop.inbound]\nhost = \"127.0.0.1\"\nport = 9\n\
         [etcd]\nendpoints = [{1}]\n[default]\nsign = \"if-key\"\nencrypt = \"require\"\n",
        folder.display(),
        endpoints.join(", ")
    )
}

#[test]
fn a_node_starts_from_its_copy_while_etcd_is_away_and_a_new_one_does_not() {
    if !installed() {
        return;
    }
    let mut members = Members::start();
    let mut site = Site::found(&members);
    site.max_staleness = Duration::from_secs(15);
    let a = site.gateway("a");
    a.add_certificates(&owner("anna@ours.example"), vec![certificate("anna@ours.example", true)]).unwrap();
    let kept = |store: &EmbeddedStore| store.shared().unwrap().status().unwrap().fresh_kept;
    let imported = Timestamp::now();
    until("its freshness is written down", SOON, || kept(&a).is_some_and(|at| at > imported));
    drop(a);
    (0..3).for_each(|at| members.kill(at));
    let a = site.gateway("a");
    assert_eq!(identity(&a, "anna@ours.example").certificates.len(), 1, "from its copy");
    let change = a.set_disabled(&owner("anna@ours.example"), true).unwrap_err().to_string();
    assert!(change.contains("the change was not made"), "{change}");
    until("a copy that is too old is not answered from", Duration::from_secs(20), || {
        a.identity(&mailbox("anna@ours.example")).is_err()
    });
    let why = a.identity(&mailbox("anna@ours.example")).unwrap_err().to_string();
    assert!(why.contains("max_staleness"), "{why}");
    let new = EmbeddedStore::open_shared(&site.store("new"), site.kek(), &site.etcd("new"), Role::Gateway);
    assert!(new.err().unwrap().to_string().contains("etcd cannot be reached"));
    (0..3).for_each(|at| members.restart(at));
    until("it answers again", SOON, || a.identity(&mailbox("anna@ours.example")).is_ok());
    assert!(!identity(&a, "anna@ours.example").disabled, "what was said not to be done was not");
}

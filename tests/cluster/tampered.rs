//! Who can write etcd changes nothing (A26): what is swapped, forged, deleted or put back with `etcdctl` is found, reported and put right, and the
//! certificate in use stays the true one. Who can read everything has no private key.

use std::time::Duration;

use jiff::Timestamp;
use waxwing::pki::authority::{NewKey, Recipe, issue};
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::store::CertStore;
use waxwing::store::embedded::EmbeddedStore;

use super::support::etcd::{Members, files_in, installed};
use super::{SOON, Site, certificate, identity, mailbox, owner, until};

const ANNA: &str = "waxwing/o/anna@partner.example";

fn trust_of(store: &EmbeddedStore, address: &str) -> Vec<TrustState> {
    identity(store, address).certificates.iter().map(|one| one.trust).collect()
}

#[test]
fn a26_who_writes_etcd_changes_nothing() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let (a, b) = (site.gateway("a"), site.gateway("b"));
    let (anna, eve) = ("anna@partner.example", "eve@partner.example");
    a.add_certificates(&owner(anna), vec![certificate(anna, false)]).unwrap();
    a.add_certificates(&owner(eve), vec![certificate(eve, false)]).unwrap();
    a.add_alias(&mailbox("info@partner.example").key(), &mailbox(anna).key()).unwrap();
    let old = members.get(ANNA);
    let fingerprint = identity(&a, anna).certificates[0].certificate.fingerprint();
    a.set_trust(&owner(anna), fingerprint, TrustState::Blocked).unwrap();
    let root = issue(&Recipe::authority("Root", Timestamp::now(), NewKey::P256), None).certificate;
    a.add_trust(root.clone(), Some(AnchorScope::Global)).unwrap();
    let anchor = format!("waxwing/t/{}", hex(&root.fingerprint()));
    let with_anchor = members.get(&anchor);
    a.remove_trust(root.fingerprint()).unwrap();
    a.shared().unwrap().catch_up().unwrap();
    b.shared().unwrap().catch_up().unwrap();
    let (evil, alias) = (members.get("waxwing/o/eve@partner.example"), members.get("waxwing/a/info@partner.example"));
    let mut forged = members.get(ANNA);
    forged[40] ^= 1;
    let attacks: [(&str, &str, Option<&[u8]>); 8] = [
        ("an older version, from before it was blocked", ANNA, Some(&old)),
        ("another's record", ANNA, Some(&evil)),
        ("a changed octet", ANNA, Some(&forged)),
        ("nothing in it", ANNA, Some(b"")),
        ("deleted", ANNA, None),
        ("an anchor that was removed", &anchor, Some(&with_anchor)),
        ("its tombstone deleted", &anchor, None),
        ("an alias that leads elsewhere", "waxwing/a/info@partner.example", Some(&[alias.as_slice(), b"x"].concat())),
    ];
    for (what, key, value) in attacks {
        let before = (a.alerts(), b.alerts());
        match value {
            Some(value) => members.put(key, value),
            None => drop(members.ctl(&["del", key])),
        }
        for (store, before) in [(&a, before.0), (&b, before.1)] {
            until(what, SOON, || store.alerts() > before);
            assert_eq!(trust_of(store, anna), [TrustState::Blocked], "{what}");
            assert_eq!(store.trust().unwrap().anchors.len(), 0, "{what}");
            assert_eq!(identity(store, "info@partner.example").owner, owner(anna), "{what}");
        }
        // A gateway puts the true one back.
        until("it is put right", SOON, || {
            a.shared().unwrap().status().unwrap().divergent.is_empty()
                && b.shared().unwrap().status().unwrap().divergent.is_empty()
        });
        // A node that comes now has the true one.
        let fresh = site.command(&format!("fresh-{}", a.alerts()));
        assert_eq!(trust_of(&fresh, anna), [TrustState::Blocked], "{what}");
        assert_eq!(fresh.trust().unwrap().anchors.len(), 0, "{what}");
    }
    // All of it at once.
    members.ctl(&["del", "--prefix", "waxwing/o/"]);
    std::thread::sleep(Duration::from_millis(300));
    for store in [&a, &b] {
        assert_eq!(trust_of(store, anna), [TrustState::Blocked]);
        assert_eq!(trust_of(store, eve), [TrustState::Trusted]);
    }
    until("everything is put back", SOON, || {
        !members.ctl(&["get", "--keys-only", ANNA]).is_empty()
            && !members.ctl(&["get", "--keys-only", "waxwing/o/eve@partner.example"]).is_empty()
    });
    a_header_that_is_gone_or_another_is_put_back(&members, [&a, &b]);
}

fn a_header_that_is_gone_or_another_is_put_back(members: &Members, [a, b]: [&EmbeddedStore; 2]) {
    let (anna, eve) = ("anna@partner.example", "eve@partner.example");
    // The header gone, or another in its place: it is told, nothing is lost, and a gateway puts the true one back.
    let header = members.get("waxwing/h");
    let mut forged = header.clone();
    forged[30] ^= 1;
    for (what, value) in
        [("deleted", None), ("a changed octet", Some(forged.as_slice())), ("nothing in it", Some(b"".as_slice()))]
    {
        let before = (a.alerts(), b.alerts());
        match value {
            Some(value) => members.put("waxwing/h", value),
            None => drop(members.ctl(&["del", "waxwing/h"])),
        }
        until(what, SOON, || a.alerts() > before.0 && b.alerts() > before.1);
        assert_eq!(trust_of(b, anna), [TrustState::Blocked], "{what}");
        until("the header is put back", SOON, || {
            members.ctl(&["get", "--print-value-only", "waxwing/h"]).starts_with(&header)
        });
        until("changes are made again", SOON, || {
            a.set_disabled(&owner(eve), true).is_ok() && a.set_disabled(&owner(eve), false).is_ok()
        });
    }
}

#[test]
fn a26_junk_under_new_keys_keeps_nothing_from_being_put_back() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let a = site.gateway("a");
    a.add_certificates(&owner("anna@partner.example"), vec![certificate("anna@partner.example", false)]).unwrap();
    // Before hers in order, and more of it than is put back at a time.
    let puts: String = (0..120).map(|at| format!("put waxwing/o/aa{at}@partner.example junk\n")).collect();
    members.ctl_with(&["txn"], format!("\n{puts}\n\n").as_bytes());
    members.ctl(&["del", ANNA]);
    until("hers is put back", SOON, || !members.ctl(&["get", "--keys-only", ANNA]).is_empty());
    let divergent = a.shared().unwrap().status().unwrap().divergent;
    assert_eq!(divergent.len(), 120, "the junk is told");
    members.ctl(&["del", "--prefix", "waxwing/o/aa"]);
    until("and forgotten when it is gone", SOON, || a.shared().unwrap().status().unwrap().divergent.is_empty());
}

#[test]
fn a26_a_dump_of_everything_holds_no_private_key() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let a = site.gateway("a");
    let mut secrets = Vec::new();
    for at in 0..20 {
        let address = format!("user{at}@ours.example");
        let new = certificate(&address, true);
        let pkcs8 = new.key.clone().unwrap();
        // The private number: behind the OCTET STRING of 32 octets in ECPrivateKey.
        let at = pkcs8.windows(2).position(|two| two == [0x04, 0x20]).unwrap() + 2;
        secrets.push(pkcs8[at..at + 32].to_vec());
        a.add_certificates(&owner(&address), vec![new]).unwrap();
    }
    let b = site.command("b");
    b.shared().unwrap().catch_up().unwrap();
    let mut dump = members.ctl(&["get", "--prefix", ""]);
    for file in members.files() {
        dump.extend(std::fs::read(file).unwrap());
    }
    for node in ["a", "b"] {
        files_in(&site.store(node)).iter().for_each(|file| dump.extend(std::fs::read(file).unwrap()));
    }
    let certificate = identity(&a, "user7@ours.example").certificates[0].certificate.der().clone();
    assert!(memchr::memmem::find(&dump, &certificate).is_some(), "the dump is one: certificates are in it");
    let found = secrets.iter().filter(|secret| memchr::memmem::find(&dump, secret).is_some()).count();
    println!("{} octets of dump, {} private keys in the store, {found} in the dump", dump.len(), secrets.len());
    assert_eq!(found, 0);
}

pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

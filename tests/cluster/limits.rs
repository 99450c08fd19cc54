//! What is much: parcels of more than etcd takes at a time, junk of many octets, changes that only together are wrong.

use std::sync::Barrier;
use std::time::Duration;

use jiff::Timestamp;
use waxwing::address::MailboxKey;
use waxwing::pki::authority::{NewKey, Recipe, issue};
use waxwing::policy::TrustState;
use waxwing::store::CertStore;
use waxwing::store::embedded::{CheckedParcel, Parcel};

use super::support::etcd::{Members, installed};
use super::{SOON, Site, certificate, identity, mailbox, owner, until};

fn key(address: &str) -> MailboxKey {
    mailbox(address).key()
}

/// One file's certificates, of so many owners and CAs.
fn parcel(name: &str, owners: usize, authorities: usize) -> CheckedParcel {
    let one = |at: usize| {
        let address = format!("{name}{at}@ours.example");
        (owner(&address), vec![certificate(&address, at.is_multiple_of(10))])
    };
    let authority = |at: usize| {
        issue(&Recipe::authority(&format!("{name} CA {at}"), Timestamp::now(), NewKey::P256), None).certificate
    };
    let parcel =
        Parcel { owners: (0..owners).map(one).collect(), intermediates: (0..authorities).map(authority).collect() };
    parcel.check().unwrap()
}

#[test]
fn a_file_of_more_owners_than_one_change_takes_is_imported_and_refused_as_a_whole() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let a = site.command("a");
    a.add_alias(&key("info@ours.example"), &key("user1@ours.example")).unwrap();
    let mut large = [parcel("user", 150, 140), parcel("small", 1, 0)];
    let outcomes = a.import_parcels(&large);
    let stored: Vec<usize> = outcomes.iter().map(|one| one.as_ref().unwrap().len()).collect();
    assert_eq!(stored, [150, 1]);
    assert_eq!((a.owners().unwrap().len(), a.trust().unwrap().intermediates.len()), (151, 140));
    assert!(identity(&a, "user140@ours.example").certificates[0].key.is_some());
    assert_eq!(a.shared().unwrap().digest().unwrap(), a.digest().unwrap(), "and in etcd");
    // One of its owners is an alias: nothing of it is stored.
    a.add_alias(&key("other149@ours.example"), &key("user1@ours.example")).unwrap();
    large[0] = parcel("other", 150, 0);
    let refused = a.import_parcels(&large[..1]).remove(0).unwrap_err().to_string();
    assert!(refused.contains("is an alias"), "{refused}");
    assert_eq!(a.owners().unwrap().len(), 151);
}

#[test]
fn large_records_move_into_etcd_and_are_read_back() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let a = site.command("a");
    // Four owners of some 0.6 MB each: three of them are more than one change takes.
    let long = "x".repeat(2_000);
    for at in 0..4 {
        let address = format!("user{at}@ours.example");
        let one = |_| {
            let mut new = certificate(&address, false);
            new.provenance.detail.clone_from(&long);
            new
        };
        a.add_certificates(&owner(&address), (0..240).map(one).collect()).unwrap();
    }
    members.ctl(&["del", "--prefix", "waxwing/o/"]);
    until("their loss is known", SOON, || a.shared().unwrap().status().unwrap().divergent.len() == 4);
    assert_ne!(a.shared().unwrap().digest().unwrap(), a.digest().unwrap(), "what etcd has is what it is asked for");
    let paths = a.shared_paths().unwrap();
    assert_eq!(a.shared().unwrap().put_back(&paths).unwrap().len(), 0);
    assert_eq!(a.shared().unwrap().digest().unwrap(), a.digest().unwrap());
    members.put("waxwing/o/user1@ours.example", b"noise");
    let forged = a.shared().unwrap().digest().unwrap_err().to_string();
    assert!(forged.contains("o/user1@ours.example is not authentic"), "{forged}");
}

#[test]
fn a26_much_junk_does_not_keep_a_new_node_from_reading() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let a = site.command("a");
    a.add_certificates(&owner("anna@partner.example"), vec![certificate("anna@partner.example", false)]).unwrap();
    // More than one answer may have, in fewer keys than one page.
    let junk = vec![b'x'; 1_400_000];
    for at in 0..52 {
        members.put(&format!("waxwing/o/junk{at}@partner.example"), &junk);
    }
    let fresh = site.command("fresh");
    assert_eq!(identity(&fresh, "anna@partner.example").certificates[0].trust, TrustState::Trusted);
    assert_eq!(fresh.shared().unwrap().status().unwrap().divergent.len(), 52, "and all of it is told");
    // Taken away, nothing of it is left.
    members.ctl(&["del", "--prefix", "waxwing/o/junk"]);
    for store in [&a, &fresh] {
        until("junk that is gone is forgotten", SOON, || {
            store.shared().unwrap().status().unwrap().divergent.is_empty()
        });
    }
}

#[test]
fn two_nodes_do_not_make_a_chain_of_aliases() {
    if !installed() {
        return;
    }
    let members = Members::start();
    let site = Site::found(&members);
    let (a, b) = (site.command("a"), site.command("b"));
    let together = Barrier::new(2);
    let mut both = 0;
    for at in 0..20 {
        let [x, y, z] = ["x", "y", "z"].map(|name| key(&format!("{name}{at}@ours.example")));
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                together.wait();
                a.add_alias(&x, &y)
            });
            together.wait();
            let second = b.add_alias(&y, &z);
            (first.join().unwrap(), second)
        });
        assert!(first.is_ok() || second.is_ok(), "one of them is right: {first:?} {second:?}");
        both += usize::from(first.is_ok() && second.is_ok());
    }
    assert_eq!(both, 0, "x leads to y, and y to z");
    // One after the other is no matter.
    b.add_alias(&key("info@ours.example"), &key("anna@ours.example")).unwrap();
    until("it is on the other node", Duration::from_secs(5), || a.aliases().unwrap().len() == 21);
    a.add_alias(&key("office@ours.example"), &key("anna@ours.example")).unwrap();
}

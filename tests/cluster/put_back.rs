//! A cluster that was put back to an older snapshot under everybody's feet: it is noticed, whatever this node's connections say.

use std::path::PathBuf;
use std::time::Duration;

use waxwing::policy::TrustState;
use waxwing::store::CertStore;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::etcd::Role;

use super::support::etcd::{Cable, Members, installed};
use super::{SOON, Site, certificate, identity, owner, until};

const ANNA: &str = "anna@partner.example";
const KEY: &str = "waxwing/o/anna@partner.example";

/// Blocks anna behind a snapshot, and waits until a sign of life was given since; the snapshot, and anna's record in it.
fn blocked_behind_a_snapshot(members: &Members, a: &EmbeddedStore) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    a.add_certificates(&owner(ANNA), vec![certificate(ANNA, false)]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    members.snapshot(&file);
    let old = members.get(KEY);
    let fingerprint = identity(a, ANNA).certificates[0].certificate.fingerprint();
    a.set_trust(&owner(ANNA), fingerprint, TrustState::Blocked).unwrap();
    until("it gives signs of life", SOON, || !a.shared().unwrap().status().unwrap().nodes.is_empty());
    assert_eq!(a.shared().unwrap().not_acknowledged(SOON).unwrap(), [], "a sign of life says that it has the block");
    (folder, file, old)
}

#[test]
fn t08_a_cluster_put_back_behind_a_watch_that_hangs_is_noticed_by_the_next_sign_of_life() {
    if !installed() {
        return;
    }
    let mut members = Members::start();
    let mut site = Site::found(&members);
    site.max_staleness = Duration::from_secs(60);
    let cable = Cable::to(members.endpoints()[0].strip_prefix("http://").unwrap());
    let mut etcd = site.etcd("a");
    etcd.endpoints = vec![format!("http://{}", cable.address)];
    let a = EmbeddedStore::open_shared(&site.store("a"), site.kek(), &etcd, Role::Gateway).unwrap();
    let (_folder, file, old) = blocked_behind_a_snapshot(&members, &a);
    // The watch stands and brings nothing, while the cluster is put back and runs past what this node saw. Then a new connection goes through.
    cable.cut(true);
    members.put_back(&file);
    for at in 0..30 {
        members.put("elsewhere", format!("{at}").as_bytes());
    }
    assert_eq!(members.get(KEY), old);
    cable.strand();
    until("the block is in etcd again", Duration::from_secs(40), || members.get(KEY) != old);
    let fresh = site.command("fresh");
    assert_eq!(identity(&fresh, ANNA).certificates[0].trust, TrustState::Blocked);
    assert_eq!(identity(&a, ANNA).certificates[0].trust, TrustState::Blocked);
}

#[test]
fn t08_a_copy_is_up_to_date_only_by_a_watch_whose_ground_was_looked_at() {
    if !installed() {
        return;
    }
    let mut members = Members::start();
    let mut site = Site::found(&members);
    site.max_staleness = Duration::from_secs(60);
    let a = site.gateway("a");
    let (_folder, file, old) = blocked_behind_a_snapshot(&members, &a);
    members.put_back(&file);
    // The revision of what was put back is one that this node has long seen.
    until("it catches up", SOON, || a.shared().unwrap().catch_up().is_ok());
    let known = a.shared().unwrap().status().unwrap().divergent.iter().any(|(record, _)| KEY.ends_with(record));
    assert!(known || members.get(KEY) != old, "what the cluster lost is known by then");
}

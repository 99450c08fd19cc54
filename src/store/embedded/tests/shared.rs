//! The embedded store as the copy of a shared one, without etcd.

use super::*;
use crate::store::embedded::change::check;
use crate::store::embedded::replica::{Arrived, PathHashes, TakenIn};
use crate::store::etcd::{Divergence, Guarded, SharedValue};
use crate::store::record::{CertificateValue, OwnerValue, TombstoneValue};

const BERT: &str = "bert@example.org";

fn path_of(address: &str) -> String {
    owner_path(&owner(address))
}

/// What a node would write into the shared store to make a change; it is made nowhere.
fn planned(store: &EmbeddedStore, mut body: impl FnMut(&mut Change<'_, '_>) -> Result<(), StoreError>) -> Vec<Guarded> {
    store.inner.plan(&mut |change| body(change)).unwrap().1.writes
}

fn with_key(store: &EmbeddedStore, address: &str, issued: &Issued) -> Guarded {
    let checked = check(new(issued, true, TrustState::Trusted)).unwrap();
    let mut writes =
        planned(store, |change| store.inner.put_certificates(change, &owner(address), vec![checked.clone()]).map(drop));
    writes.remove(0)
}

/// Somebody's record as it would be in the shared store, altered and of a newer version.
fn altered(store: &EmbeddedStore, address: &str, alter: impl FnOnce(&mut SharedValue)) -> Guarded {
    let (path, ring) = (path_of(address), store.inner.ring());
    let here = store.inner.records(std::slice::from_ref(&path)).unwrap().remove(0).octets.unwrap();
    let record = Record::open(&ring, &path, &here).unwrap();
    let mut value = SharedValue::decode(&record.value).unwrap();
    alter(&mut value);
    let octets = Record::seal(&ring, &path, Kind::Shared, record.generation + 1, &value.encode()).0.into();
    Guarded { path, revision: 0, octets }
}

fn blocked(store: &EmbeddedStore, address: &str) -> Guarded {
    altered(store, address, |value| {
        let SharedValue::Owner { certificates, .. } = value else { panic!("{value:?}") };
        for (_, octets) in certificates {
            let certificate = CertificateValue::decode(octets).unwrap();
            *octets = CertificateValue { trust: TrustState::Blocked, ..certificate }.encode();
        }
    })
}

fn take_in(store: &EmbeddedStore, revision: u64, whole: bool, of: &[(&str, Option<&[u8]>)]) -> TakenIn {
    let one = |(path, octets): &(&str, Option<&[u8]>)| Arrived {
        path: (*path).to_owned(),
        revision,
        octets: octets.map(bytes::Bytes::copy_from_slice),
    };
    store.inner.take_in(&of.iter().map(one).collect::<Vec<_>>(), None, whole).unwrap()
}

fn arrives(store: &EmbeddedStore, revision: u64, writes: &[&Guarded]) -> TakenIn {
    let of: Vec<_> = writes.iter().map(|one| (one.path.as_str(), Some(one.octets.as_ref()))).collect();
    take_in(store, revision, false, &of)
}

fn trust_of(store: &EmbeddedStore, address: &str) -> Vec<TrustState> {
    store.identity(&mailbox(address)).unwrap().certificates.iter().map(|one| one.trust).collect()
}

#[test]
fn a_read_from_before_a_block_came_in_does_not_fill_the_cache() {
    let (_place, store) = Place::new();
    arrives(&store, 1, &[&with_key(&store, ANNA, &issued(ANNA, 0, NewKey::P256))]);
    let block = blocked(&store, ANNA);
    store.inner.identities.clear();
    let inner = Arc::clone(&store.inner);
    *store.inner.before_fill.lock().unwrap() = Some(Box::new(move || {
        // As the watch does.
        let arrived = Arrived { path: block.path, revision: 2, octets: Some(block.octets) };
        assert_eq!(inner.take_in(&[arrived], None, false).unwrap().accepted, 1);
    }));
    assert_eq!(trust_of(&store, ANNA), [TrustState::Trusted], "it began before the block");
    assert_eq!(trust_of(&store, ANNA), [TrustState::Blocked], "and is not what the next one is told");
}

#[test]
fn a_key_of_two_owners_stays_while_one_of_them_has_it() {
    for bert_first in [true, false] {
        let (_place, store) = Place::new();
        let issued = issued(ANNA, 0, NewKey::P256);
        arrives(&store, 1, &[&with_key(&store, ANNA, &issued)]);
        let key = store.identity(&mailbox(ANNA)).unwrap().certificates[0].key.unwrap();
        let bert = with_key(&store, BERT, &issued);
        let gone = altered(&store, ANNA, |value| {
            *value = SharedValue::Tombstone(TombstoneValue { at: now(), certificates: Vec::new() }.encode());
        });
        let both = if bert_first { [&bert, &gone] } else { [&gone, &bert] };
        assert_eq!(arrives(&store, 2, &both).accepted, 2);
        assert!(store.identity(&mailbox(ANNA)).unwrap().certificates.is_empty());
        assert_eq!(store.identity(&mailbox(BERT)).unwrap().certificates[0].key, Some(key));
        assert_eq!(store.export_key(key).unwrap().as_slice(), issued.pkcs8.as_slice(), "bert first: {bert_first}");
        assert_eq!(store.verify().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn what_was_never_shared_gets_a_version_past_all_that_is_here() {
    let (_place, store) = Place::new();
    add(&store, BERT, &issued(BERT, 0, NewKey::P256));
    add(&store, ANNA, &issued(ANNA, 0, NewKey::P256));
    // Another machine may have been given a copy of this store before it was shared.
    let disabled = altered_version(&store);
    assert_eq!(arrives(&store, 1, &[&disabled]).accepted, 1, "it is newer than what was here before");
    assert!(store.identity(&mailbox(ANNA)).unwrap().disabled);
}

/// The plan of disabling anna in a store that was not shared yet.
fn altered_version(store: &EmbeddedStore) -> Guarded {
    let mut writes = planned(store, |change| {
        let value = crate::store::embedded::change::read_owner(change, &owner(ANNA))?.unwrap();
        change.put_top(&path_of(ANNA), Kind::Owner, &OwnerValue { disabled: true, ..value }.encode())
    });
    writes.remove(0)
}

#[test]
fn a_later_versions_record_is_known_to_every_process_of_the_machine() {
    let (place, gateway) = Place::new();
    let path = path_of(ANNA);
    arrives(&gateway, 1, &[&with_key(&gateway, ANNA, &issued(ANNA, 0, NewKey::P256))]);
    let command = place.open();
    let everybody = |store: &EmbeddedStore| {
        let mut owners = Vec::new();
        store.each_identity(&mut |identity| owners.push(identity.owner)).unwrap();
        owners
    };
    assert_eq!((trust_of(&command, ANNA).len(), everybody(&command)), (1, vec![owner(ANNA)]));
    let of_later = Record::seal(&gateway.inner.ring(), &path, Kind::Shared, 9, &[99]).0;
    let is_later = |store: &EmbeddedStore, who: &str| {
        assert!(matches!(store.identity(&mailbox(ANNA)), Err(StoreError::Later(_))), "{who}");
        assert_eq!(everybody(store), [], "{who}: nor in a scan");
    };
    for (store, who) in [(&gateway, "who took it in"), (&command, "who found it taken in")] {
        let refused = take_in(store, 2, false, &[(&path, Some(&of_later))]).refused;
        assert_eq!(refused, [(path.clone(), Divergence::NotUnderstood)]);
        is_later(store, who);
    }
    let third = place.open();
    third.inner.look_for_later().unwrap();
    is_later(&third, "who started then");
    // A later record that is understood: for all of them.
    let again = Guarded { octets: of_version(&gateway, 10), path: path.clone(), revision: 0 };
    for store in [&gateway, &command] {
        arrives(store, 3, &[&again]);
        assert_eq!((trust_of(store, ANNA).len(), everybody(store)), (1, vec![owner(ANNA)]));
    }
}

/// Anna's record as it is here, with this version.
fn of_version(store: &EmbeddedStore, version: u64) -> bytes::Bytes {
    let (path, ring) = (path_of(ANNA), store.inner.ring());
    let here = store.inner.records(std::slice::from_ref(&path)).unwrap().remove(0).octets.unwrap();
    let value = Record::open(&ring, &path, &here).unwrap().value;
    Record::seal(&ring, &path, Kind::Shared, version, &value).0.into()
}

#[test]
fn a26_what_is_divergent_is_listed_and_forgotten_when_it_is_right() {
    let (_place, store) = Place::new();
    let (anna, bert) = (path_of(ANNA), path_of(BERT));
    let both = [&with_key(&store, ANNA, &issued(ANNA, 0, NewKey::P256))];
    arrives(&store, 1, &both);
    arrives(&store, 2, &[&with_key(&store, BERT, &issued(BERT, 0, NewKey::P256))]);
    let listed = |expected: &[(&str, Divergence)]| {
        let expected: Vec<_> = expected.iter().map(|(path, why)| ((*path).to_owned(), *why)).collect();
        assert_eq!(store.inner.divergent().unwrap(), expected);
        let seen = store.inner.each_seen(|_, seen| seen.divergence.is_some()).unwrap();
        assert_eq!(seen.len(), expected.len(), "as all that was seen says");
    };
    listed(&[]);
    take_in(&store, 3, false, &[(&anna, None), (&bert, Some(b"noise")), ("o/nobody@example.org", Some(b"noise"))]);
    let all = [
        (anna.as_str(), Divergence::Vanished),
        (bert.as_str(), Divergence::NotAuthentic),
        ("o/nobody@example.org", Divergence::NotAuthentic),
    ];
    listed(&all);
    // A copy of before there was such a list.
    let transaction = store.inner.db.begin_write().unwrap();
    transaction.delete_table(TableDefinition::<&str, u8>::new("divergent")).unwrap();
    transaction.commit().unwrap();
    listed(&all);
    arrives(&store, 4, &both);
    listed(&all[1..]);
    // Noise that is taken away, as it comes and as it is found gone.
    take_in(&store, 5, false, &[("o/nobody@example.org", None)]);
    listed(&all[1..2]);
    take_in(&store, 6, false, &[("o/nobody@example.org", Some(b"noise"))]);
    let mut there = PathHashes::default();
    [&anna, &bert].iter().for_each(|path| there.add(path));
    let gone = store.inner.vanished(&there.hashes, &there.hasher, 10).unwrap();
    assert_eq!(gone.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["o/nobody@example.org"]);
    take_in(&store, 0, true, &[("o/nobody@example.org", None)]);
    listed(&all[1..2]);
    assert!(store.inner.vanished(&there.hashes, &there.hasher, 10).unwrap().is_empty());
}

#[test]
fn a_copy_says_the_same_as_its_source_and_is_a_store_of_its_own() {
    let (place, store) = Place::new();
    let issued = issued(ANNA, 0, NewKey::P256);
    add(&store, ANNA, &issued);
    add(&store, BERT, &issued);
    add(&store, "carl@example.org", &issued);
    store.purge(&owner("carl@example.org")).unwrap();
    let key = |text: &str| mailbox(text).key();
    store.add_alias(&key("info@example.org"), &key(ANNA)).unwrap();
    store.add_alias(&key("gone@example.org"), &key(ANNA)).unwrap();
    store.remove_alias(&key("gone@example.org")).unwrap();
    let root = |name: &str| issue(&Recipe::authority(name, now(), NewKey::P256), None).certificate;
    let (anchor, between, removed) = (root("Root"), root("Between"), root("Removed"));
    store.add_trust(anchor, Some(AnchorScope::Global)).unwrap();
    store.add_trust(between, None).unwrap();
    store.add_trust(removed.clone(), Some(AnchorScope::Global)).unwrap();
    store.remove_trust(removed.fingerprint()).unwrap();
    // Removed long ago: what is said of it is that, whenever it is asked.
    let long_ago = |change: &mut Change<'_, '_>| {
        let mut trust = store.inner.read_trust_manifest(change)?;
        trust.removed.iter_mut().for_each(|(_, at)| *at = now());
        change.put_top(TRUST, Kind::Trust, &trust.encode())
    };
    store.inner.write(long_ago).unwrap();
    let path = trust_path(&removed.fingerprint());
    let said = store.inner.records(std::slice::from_ref(&path)).unwrap().remove(0).octets.unwrap();
    let said = SharedValue::decode(&Record::open(&store.inner.ring(), &path, &said).unwrap().value);
    let tombstone = TombstoneValue { at: now(), certificates: Vec::new() };
    assert_eq!(said, Some(SharedValue::Tombstone(tombstone.encode())));

    let folder = place.folder.path().join("copy");
    let mut told = 0;
    let copy = store.copy_to(&folder, place.kek(), &mut |copied| told = copied).unwrap();
    let digest = store.digest().unwrap();
    assert_eq!((copy.digest().unwrap(), told, digest.0), (digest, digest.0, 8));
    assert_eq!((copy.verify().unwrap(), copy.is_copy().unwrap()), (Vec::new(), false));
    assert_eq!(copy.trust().unwrap().anchors.len(), 1);
    let held = copy.identity(&mailbox("info@example.org")).unwrap().certificates[0].key.unwrap();
    assert_eq!(copy.export_key(held).unwrap().as_slice(), issued.pkcs8.as_slice());
    copy.set_disabled(&owner(BERT), true).unwrap();
    assert_ne!(copy.digest().unwrap(), digest, "one flag is another digest");
}

//! Records of a later version: refused, not served, not dropped, not overwritten.

use super::*;
use crate::store::keyring::header::Opener;

/// The record at a path as a later version might write it: another version octet, or another kind, and a MAC that holds.
fn of_a_later_version(place: &Place, path: &str, at: usize) {
    let header = read_header(&builder().open(file_of(&place.store())).unwrap()).unwrap();
    let ring = Keyring::open(&Opener::Keks(&[Kek::read(&place.kek()).unwrap()]), &header).unwrap();
    let mut body = place.records()[path].clone();
    body.truncate(body.len() - 32);
    body[at] = 99;
    let mac = ring.mac(path, &body);
    body.extend_from_slice(&mac);
    place.attack(|table| table.insert(path, body.as_slice()).map(drop).unwrap());
}

fn later(result: Result<(), StoreError>, what: &str) {
    assert!(matches!(&result, Err(StoreError::Later(_))), "{what}: {result:?}");
}

#[test]
fn a_key_of_a_later_version_is_neither_used_nor_overwritten_nor_dropped() {
    for at in [0, 1] {
        let (place, store) = Place::new();
        let issued = issued(ANNA, 0, NewKey::P256);
        store.add_certificates(&owner(ANNA), vec![new(&issued, false, TrustState::Trusted)]).unwrap();
        add(&store, ANNA, &issued);
        let key = store.identity(&mailbox(ANNA)).unwrap().certificates[0].key.unwrap();
        drop(store);
        of_a_later_version(&place, &key_path(&key), at);
        let store = place.open();
        let before = place.records();
        later(store.export_key(key).map(drop), "export");
        assert_eq!(store.identity(&mailbox(ANNA)).unwrap().certificates[0].key, Some(key), "it is there");
        later(
            store.add_certificates(&owner("bert@example.org"), vec![new(&issued, true, TrustState::Trusted)]).map(drop),
            "import",
        );
        later(store.purge(&owner(ANNA)), "purge");
        later(store.reseal(Duration::ZERO, |_| ()).map(drop), "reseal");
        let after = place.records();
        assert_eq!(before[&key_path(&key)], after[&key_path(&key)]);
        assert_eq!(store.keys().unwrap().keys.len(), 2, "the store key that it is under stays");
        assert_eq!(store.alerts(), 0, "nobody tampered");
    }
}

#[test]
fn a_top_level_record_of_a_later_version_is_refused_by_every_change() {
    for at in [0, 1] {
        let (place, store) = Place::new();
        let issued = issued(ANNA, 0, NewKey::P256);
        add(&store, ANNA, &issued);
        let path = owner_path(&owner(ANNA));
        let ring = Arc::clone(&store.inner.ring.read().unwrap());
        // As a later version would: the tree above names what it wrote.
        let record = {
            let mut body = [1, 3].to_vec();
            body[at] = 99;
            body.extend_from_slice(&7u64.to_be_bytes());
            let mac = ring.mac(&path, &body);
            (body, mac)
        };
        store
            .inner
            .write(|change| {
                change.put_top(&path, Kind::Owner, b"")?;
                change.put_raw_top(&path, &[record.0.as_slice(), &record.1].concat(), record.1)
            })
            .unwrap();
        let before = place.records();
        later(store.identity(&mailbox(ANNA)).map(drop), "identity");
        later(store.add_certificates(&owner(ANNA), vec![new(&issued, true, TrustState::Trusted)]).map(drop), "add");
        later(store.set_disabled(&owner(ANNA), true), "disable");
        later(store.purge(&owner(ANNA)), "purge");
        later(store.revise(&owner(ANNA), &mut |_| Revision::default()).map(drop), "revise");
        assert_eq!((place.records(), store.alerts()), (before, 0));
        assert_eq!(store.verify().unwrap().len(), 1, "told, by name");
    }
}

/// In a shared store: what is here is out of date then, so nothing is answered from it, and an attacker does not bring it back.
#[test]
fn a26_a_shared_record_of_a_later_version_ends_what_is_known_here() {
    use crate::store::embedded::Arrived;
    use crate::store::etcd::Divergence;
    let (_place, store) = Place::new();
    let issued = issued(ANNA, 0, NewKey::P256);
    add(&store, ANNA, &issued);
    let path = owner_path(&owner(ANNA));
    let held = store.inner.copies(std::slice::from_ref(&path), true).unwrap().writes.remove(0).octets;
    let ring = store.inner.ring();
    let later_than = |version| Record::seal(&ring, &path, Kind::Shared, version, &[99]).0;
    let arrives = |revision, octets: Option<&[u8]>| {
        let octets = octets.map(bytes::Bytes::copy_from_slice);
        store.inner.take_in(&[Arrived { path: path.clone(), revision, octets }], None, false).unwrap()
    };
    assert_eq!(arrives(1, Some(&held)).accepted, 1);
    assert_eq!(store.identity(&mailbox(ANNA)).unwrap().certificates.len(), 1);
    assert_eq!(arrives(2, Some(&later_than(9))).refused, [(path.clone(), Divergence::NotUnderstood)]);
    later(store.identity(&mailbox(ANNA)).map(drop), "identity");
    for (revision, put_back) in [(3, Some(held.as_ref())), (4, None), (5, Some(b"noise".as_slice()))] {
        arrives(revision, put_back);
        later(store.identity(&mailbox(ANNA)).map(drop), "identity, after an attack");
        let left: Vec<_> = store.inner.divergent().unwrap().into_iter().map(|(_, why)| why).collect();
        assert_eq!(left, [Divergence::NotUnderstood], "and no gateway puts its old one in its place");
    }
    let mut newer = store.inner.copies(std::slice::from_ref(&path), true).unwrap().writes.remove(0).octets.to_vec();
    newer.truncate(newer.len() - 32);
    newer[2..10].copy_from_slice(&10u64.to_be_bytes());
    let mac = ring.mac(&path, &newer);
    newer.extend_from_slice(&mac);
    assert_eq!(arrives(6, Some(&newer)).accepted, 1);
    assert_eq!(store.identity(&mailbox(ANNA)).unwrap().certificates.len(), 1, "understood again");
}

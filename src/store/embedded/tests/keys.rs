//! Key-encryption keys and store keys: rotated, resealed, recovered, carried in backups.

use super::*;
use crate::store::backup::{BackupKey, check};
use crate::store::keyring::header::{KeyState, Opener};
use crate::store::keyring::{KekState, RecoveryKey};

/// Owners with every kind of record: a key that two have, an alias, tombstones, anchors.
fn peopled() -> (Place, EmbeddedStore, Vec<Issued>) {
    let (place, store) = Place::new();
    let people: Vec<Issued> = (0..4).map(|day| issued(ANNA, day, NewKey::P256)).collect();
    let [a, b, c, d] = people.as_slice() else { panic!() };
    add(&store, ANNA, a);
    add(&store, ANNA, b);
    add(&store, "bert@example.org", a);
    add(&store, "carl@example.org", c);
    add(&store, "gone@example.org", d);
    store.purge(&owner("gone@example.org")).unwrap();
    store.add_alias(&mailbox("info@example.org").key(), &mailbox(ANNA).key()).unwrap();
    store.add_trust(issued("ca@x.example", 0, NewKey::P256).certificate, Some(AnchorScope::Global)).unwrap();
    let harvested = || Revision { add: vec![new(c, false, TrustState::Pending)], ..Revision::default() };
    // A bucket that was used and is empty again.
    store.revise(&owner("short@example.org"), &mut |_| harvested()).unwrap();
    let remove = || Revision { remove: vec![c.certificate.fingerprint()], ..Revision::default() };
    store.revise(&owner("short@example.org"), &mut |_| remove()).unwrap();
    (place, store, people)
}

fn whole(store: &EmbeddedStore, people: &[Issued]) {
    let has = [
        (ANNA, vec![&people[0], &people[1]]),
        ("bert@example.org", vec![&people[0]]),
        ("carl@example.org", vec![&people[2]]),
    ];
    for (address, issued) in has {
        let identity = store.identity(&mailbox(address)).unwrap();
        assert_eq!(identity.certificates.len(), issued.len(), "{address}");
        for (record, issued) in identity.certificates.iter().zip(issued) {
            assert_eq!(record.certificate.fingerprint(), issued.certificate.fingerprint());
            assert_eq!(*store.export_key(record.key.unwrap()).unwrap(), *issued.pkcs8);
        }
    }
    assert_eq!(fingerprints(store, "info@example.org").len(), 2);
    assert_eq!(store.trust().unwrap().anchors.len(), 1);
    assert_eq!((store.verify().unwrap(), store.alerts()), (Vec::new(), 0));
}

/// Every record's MAC is checked under keys that were taken aside before.
fn under(place: &Place, ring: &Keyring) -> usize {
    place.records().iter().filter(|(path, octets)| Record::is_authentic(ring, path, octets)).count()
}

fn header_of(place: &Place) -> Vec<u8> {
    read_header(&builder().open(file_of(&place.store())).unwrap()).unwrap()
}

fn ring_of(place: &Place, kek: &Path) -> Keyring {
    Keyring::open(&Opener::Keks(&[Kek::read(kek).unwrap()]), &header_of(place)).unwrap()
}

#[test]
fn t20_a_kek_is_rotated_under_open_processes_and_the_old_one_opens_nothing() {
    let (place, store, people) = peopled();
    let gateway = place.open();
    let file = place.folder.path().join("new");
    let new = Kek::create(&file).unwrap();
    let (before, old) = (place.records(), Kek::read(&place.kek()).unwrap());
    store.introduce_kek(&new).unwrap();
    gateway.refresh().unwrap();
    let missing = store.without_kek(&new.fingerprint()).unwrap();
    assert!(missing.len() == 1 && missing[0].contains("has not read KEK"), "{missing:?}");
    assert_eq!(store.without_kek(&old.fingerprint()).unwrap(), Vec::<String>::new());
    // The gateway is told where the new one is, and says that it has it.
    gateway.use_keks(&KekSources::new(vec![place.kek(), file.clone()]));
    assert_eq!(store.without_kek(&new.fingerprint()).unwrap(), Vec::<String>::new());
    assert!(store.retire_keks(new.fingerprint()).is_err(), "it is not the one in use");
    store.activate_kek(new.fingerprint()).unwrap();
    let states: Vec<KekState> = store.keys().unwrap().keks.iter().map(|kek| kek.state).collect();
    assert_eq!(states, [KekState::Retiring, KekState::Active]);
    whole(&place.open(), &people);
    store.retire_keks(new.fingerprint()).unwrap();
    let refused = EmbeddedStore::open(&place.store(), place.kek()).map(|_| ()).unwrap_err();
    assert!(matches!(&refused, StoreError::Kek(..)), "{refused}");
    for store in [&store, &gateway, &EmbeddedStore::open(&place.store(), &file).unwrap()] {
        whole(store, &people);
    }
    // Only the root was written: the store key is the same.
    let after = place.records();
    assert!(before.iter().all(|(path, octets)| path == ROOT || after.get(path) == Some(octets)));
    drop(gateway);
    assert_eq!(store.other_processes().unwrap(), Vec::new());
    // Every step again changes nothing.
    let revision = store.keys().unwrap().revision;
    store.introduce_kek(&new).unwrap();
    store.activate_kek(new.fingerprint()).unwrap();
    store.retire_keks(new.fingerprint()).unwrap();
    assert_eq!(store.keys().unwrap().revision, revision);
}

#[test]
fn a_process_without_the_new_kek_says_so_at_each_use_and_touches_nothing() {
    let (place, store, people) = peopled();
    let left = place.open();
    whole(&left, &people);
    let file = place.folder.path().join("new");
    let new = Kek::create(&file).unwrap();
    store.introduce_kek(&new).unwrap();
    store.activate_kek(new.fingerprint()).unwrap();
    store.retire_keks(new.fingerprint()).unwrap();
    let before = place.records();
    assert!(matches!(left.refresh(), Err(StoreError::Kek(..))));
    let says = |result: Result<(), StoreError>| assert!(matches!(&result, Err(StoreError::Kek(..))), "{result:?}");
    for _ in 0..2 {
        says(left.identity(&mailbox(ANNA)).map(drop));
        says(left.trust().map(drop));
        says(left.identity(&mailbox("info@example.org")).map(drop));
        says(left.set_disabled(&owner(ANNA), true));
        says(left.purge(&owner(ANNA)));
        says(left.keys().map(drop));
    }
    assert_eq!((place.records(), left.alerts()), (before, 0));
    // Told where it is, it goes on.
    left.use_keks(&KekSources::from(&file));
    left.refresh().unwrap();
    left.inner.reload_all();
    whole(&left, &people);
}

#[test]
fn t20_a_reseal_stopped_anywhere_goes_on_and_leaves_nothing_under_the_old_key() {
    for stop in [0, 1, 2, 4, 7, u64::MAX] {
        let (place, store, people) = peopled();
        let gateway = place.open();
        let old = ring_of(&place, &place.kek());
        let id = store.keys().unwrap().keys[0].id.clone();
        if stop == 0 {
            store.begin_reseal().unwrap();
        } else {
            let stopped = catch_unwind(AssertUnwindSafe(|| {
                drop(store.reseal(Duration::ZERO, |at| assert!(at.done < stop, "killed here")));
            }));
            assert_eq!(stopped.is_err(), stop < 7, "{stop}");
        }
        drop(store);
        let store = place.open();
        whole(&gateway, &people);
        whole(&store, &people);
        if stop < 7 {
            assert!(!store.under_older_keys().unwrap().is_empty());
            // What is written meanwhile is under the new key, whoever writes it.
            gateway.set_disabled(&owner("bert@example.org"), true).unwrap();
            store.set_disabled(&owner("bert@example.org"), false).unwrap();
        }
        let resealed = store.reseal(Duration::ZERO, |_| ()).unwrap();
        assert_eq!(resealed.bad, Vec::<String>::new());
        assert_eq!(under(&place, &old), 0, "stopped at {stop}");
        assert!(under(&place, &ring_of(&place, &place.kek())) > 10);
        let keys = store.keys().unwrap().keys;
        assert!(keys.len() == 1 && keys[0].active && keys[0].id != id);
        whole(&gateway, &people);
        whole(&place.open(), &people);
    }
}

#[test]
fn a_root_under_an_older_store_key_is_not_taken() {
    let (place, store, _) = peopled();
    let root = place.records().remove(ROOT).unwrap();
    store.begin_reseal().unwrap();
    drop(store);
    // The old key still opens records; who has it only cannot put a root of his own.
    place.attack(|table| table.insert(ROOT, root.as_slice()).map(drop).unwrap());
    assert!(matches!(EmbeddedStore::open(&place.store(), place.kek()).map(drop), Err(StoreError::NotAuthentic(_))));
}

#[test]
fn a_header_put_back_is_refused_by_who_saw_the_newer() {
    let (place, store, people) = peopled();
    let (header, root) = (header_of(&place), place.records().remove(ROOT).unwrap());
    let new = Kek::create(&place.folder.path().join("new")).unwrap();
    store.introduce_kek(&new).unwrap();
    whole(&store, &people);
    let db = builder().open(file_of(&place.store())).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(HEADER).unwrap().insert("header", header.as_slice()).unwrap();
    transaction.open_table(RECORDS).unwrap().insert(ROOT, root.as_slice()).unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.refresh(), Err(StoreError::NotAuthentic("header".to_owned())));
    assert!(store.set_disabled(&owner(ANNA), true).is_err());
    assert!(store.alerts() > 0);
}

#[test]
fn a_store_of_the_first_version_is_read_and_rotated() {
    let (place, store, people) = peopled();
    let ring = ring_of(&place, &place.kek());
    drop(store);
    let kek = Kek::read(&place.kek()).unwrap();
    let open = [b"WAXSTOR1".as_slice(), &ring.header.store, &kek.fingerprint()].concat();
    let header = [open.clone(), kek.wrap_key(&open, ring.header.newest().unwrap().secret.as_ref()).unwrap()].concat();
    {
        let db = builder().open(file_of(&place.store())).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(HEADER).unwrap().insert("header", header.as_slice()).unwrap();
        transaction.commit().unwrap();
    }
    let store = place.open();
    whole(&store, &people);
    assert_eq!(header_of(&place), header, "reading writes nothing");
    let secret = store.loop_secret().unwrap();
    store.reseal(Duration::ZERO, |_| ()).unwrap();
    whole(&place.open(), &people);
    assert_eq!((under(&place, &ring), place.open().loop_secret().unwrap()), (0, secret));
}

#[test]
fn a_lost_kek_is_recovered_and_new_store_keys_are_for_the_recovery_key_too() {
    let (place, store, people) = peopled();
    let recovery = place.folder.path().join("recovery");
    store.introduce_recovery(&RecoveryKey::create(&recovery).unwrap()).unwrap();
    // The recovery key is in its safe while the store is resealed.
    store.reseal(Duration::ZERO, |_| ()).unwrap();
    let wraps = store.spool_keks().wrap.iter().map(Kek::fingerprint).collect::<Vec<_>>();
    drop(store);
    std::fs::remove_file(place.kek()).unwrap();
    let other = RecoveryKey::create(&place.folder.path().join("other")).unwrap();
    assert!(matches!(EmbeddedStore::open_for_recovery(&place.store(), other).map(drop), Err(StoreError::Kek(..))));
    let store = EmbeddedStore::open_for_recovery(&place.store(), RecoveryKey::read(&recovery).unwrap()).unwrap();
    whole(&store, &people);
    store.recover(&Kek::create(&place.kek()).unwrap()).unwrap();
    drop(store);
    let store = place.open();
    whole(&store, &people);
    assert_eq!(store.keys().unwrap().keks.len(), 2, "the new one and the recovery key");
    let keks = store.spool_keks();
    assert_eq!(keks.wrap[0].fingerprint(), wraps[0], "the spool opens as before");
}

#[test]
fn a_backup_brings_everything_into_an_empty_store_and_takes_nothing_from_another() {
    let (place, store, people) = peopled();
    let mut octets = Vec::new();
    let (written, bad) = store.export(&mut octets, |_, _| ()).unwrap();
    assert_eq!(bad, Vec::<String>::new());
    for private in &people {
        assert!(
            !octets.windows(32).any(|window| private.pkcs8.windows(32).any(|key| key == window)),
            "no key in clear"
        );
    }
    let key = BackupKey::Keks(vec![Kek::read(&place.kek()).unwrap()]);
    let summary = check(&mut octets.as_slice(), &key, || ()).unwrap();
    assert_eq!(summary, written);
    let (elsewhere, empty) = Place::new();
    let restored = empty.restore(&mut octets.as_slice(), &key, summary, |_| ()).unwrap();
    // Three owners, a tombstone, an alias, the trust set.
    assert_eq!((restored.new, restored.added_to, restored.unchanged, restored.left), (6, 0, 0, 0));
    whole(&empty, &people);
    whole(&elsewhere.open(), &people);
    let again = empty.restore(&mut octets.as_slice(), &key, summary, |_| ()).unwrap();
    assert_eq!((again.new, again.unchanged), (0, 6));
    // What was decided since stays decided.
    empty.purge(&owner("carl@example.org")).unwrap();
    empty.set_trust(&owner(ANNA), people[0].certificate.fingerprint(), TrustState::Blocked).unwrap();
    empty.set_disabled(&owner("bert@example.org"), true).unwrap();
    let anchor = empty.trust().unwrap().anchors[0].certificate.fingerprint();
    empty.remove_trust(anchor).unwrap();
    let third = empty.restore(&mut octets.as_slice(), &key, summary, |_| ()).unwrap();
    assert_eq!((third.new, third.added_to, third.left), (0, 0, 1), "carl stays purged");
    assert!(fingerprints(&empty, "carl@example.org").is_empty() && empty.trust().unwrap().anchors.is_empty());
    assert_eq!(empty.identity(&mailbox(ANNA)).unwrap().certificates[0].trust, TrustState::Blocked);
    assert!(empty.identity(&mailbox("bert@example.org")).unwrap().disabled);
    // What is missing is added, with its key.
    let (_third_place, third) = Place::new();
    third.add_certificates(&owner(ANNA), vec![new(&people[0], false, TrustState::Pinned)]).unwrap();
    let restored = third.restore(&mut octets.as_slice(), &key, summary, |_| ()).unwrap();
    assert_eq!((restored.new, restored.added_to), (5, 1));
    assert_eq!(third.identity(&mailbox(ANNA)).unwrap().certificates[0].trust, TrustState::Pinned);
    whole(&third, &people);
}

#[test]
fn a_backup_of_a_time_opens_with_the_keys_of_that_time() {
    let (place, store, people) = peopled();
    let recovery = place.folder.path().join("recovery");
    store.introduce_recovery(&RecoveryKey::create(&recovery).unwrap()).unwrap();
    let mut octets = Vec::new();
    let (summary, _) = store.export(&mut octets, |_, _| ()).unwrap();
    let (old, new) = (Kek::read(&place.kek()).unwrap(), Kek::create(&place.folder.path().join("new")).unwrap());
    store.introduce_kek(&new).unwrap();
    store.activate_kek(new.fingerprint()).unwrap();
    store.retire_keks(new.fingerprint()).unwrap();
    store.reseal(Duration::ZERO, |_| ()).unwrap();
    let by_new = check(&mut octets.as_slice(), &BackupKey::Keks(vec![new]), || ());
    assert!(matches!(by_new, Err(StoreError::Kek(..))), "{by_new:?}");
    for key in [BackupKey::Keks(vec![old]), BackupKey::Recovery(RecoveryKey::read(&recovery).unwrap())] {
        let (_place, empty) = Place::new();
        empty.restore(&mut octets.as_slice(), &key, summary, |_| ()).unwrap();
        whole(&empty, &people);
    }
    assert!(store.keys().unwrap().keys.len() == 1 && KeyState::Active as u8 == 1);
}

#[test]
fn a_backup_that_changed_after_it_was_checked_is_told() {
    let (place, store, _) = peopled();
    let key = BackupKey::Keks(vec![Kek::read(&place.kek()).unwrap()]);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let (first, _) = store.export(&mut one, |_, _| ()).unwrap();
    store.set_disabled(&owner(ANNA), true).unwrap();
    store.export(&mut other, |_, _| ()).unwrap();
    let (_place, empty) = Place::new();
    let refused = empty.restore(&mut other.as_slice(), &key, first, |_| ());
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    one.truncate(one.len() / 2);
    assert!(empty.restore(&mut one.as_slice(), &key, first, |_| ()).is_err());
    assert_eq!(empty.owners().unwrap(), Vec::new(), "nothing came of either");
}

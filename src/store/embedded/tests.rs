use std::collections::BTreeMap;
use std::sync::mpsc;

use jiff::{SignedDuration, Timestamp};
use redb::ReadableDatabase;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::address::Mailbox;
use crate::cms::algorithm::{Capabilities, ContentEncryption, KeyTransport};
use crate::keys::{KeyAnswer, KeyHolder, KeyOperation, Submission};
use crate::pki::authority::{Issued, NewKey, Recipe, issue};
use crate::pki::path::AnchorScope;
use crate::policy::TrustState;
use crate::store::{CertStore, Edit, NewCertificate, Note, Provenance, Revision, Stored};

mod keys;
mod later;
mod shared;

const ANNA: &str = "anna@example.org";

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> (Self, EmbeddedStore) {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        Kek::create(&place.kek()).unwrap();
        let store = EmbeddedStore::create(&place.store(), place.kek()).unwrap();
        (place, store)
    }
    fn kek(&self) -> PathBuf {
        self.folder.path().join("kek")
    }
    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }
    fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(&self.store(), self.kek()).unwrap()
    }
    /// What an attacker does who may write the file and knows its format.
    fn attack<R>(&self, body: impl FnOnce(&mut redb::Table<'_, &'static str, &'static [u8]>) -> R) -> R {
        let db = builder().open(file_of(&self.store())).unwrap();
        let transaction = db.begin_write().unwrap();
        let result = body(&mut transaction.open_table(RECORDS).unwrap());
        transaction.commit().unwrap();
        result
    }
    fn records(&self) -> BTreeMap<String, Vec<u8>> {
        let db = builder().open(file_of(&self.store())).unwrap();
        let table = db.begin_read().unwrap().open_table(RECORDS).unwrap();
        table
            .iter()
            .unwrap()
            .map(|entry| entry.map(|(path, octets)| (path.value().to_owned(), octets.value().to_vec())).unwrap())
            .collect()
    }
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

fn owner(text: &str) -> Owner {
    Owner::parse(text).unwrap()
}

fn issued(address: &str, days: i64, key: NewKey) -> Issued {
    issue(&Recipe::mailbox(address, now() + SignedDuration::from_hours(24 * days), key), None)
}

fn new(issued: &Issued, key: bool, trust: TrustState) -> NewCertificate {
    NewCertificate {
        certificate: issued.certificate.clone(),
        provenance: Provenance { source: "import".to_owned(), detail: "a.p12".to_owned(), at: now() },
        trust,
        key: key.then(|| Zeroizing::new(issued.pkcs8.to_vec())),
    }
}

fn add(store: &EmbeddedStore, address: &str, issued: &Issued) -> Vec<Stored> {
    store.add_certificates(&owner(address), vec![new(issued, true, TrustState::Trusted)]).unwrap()
}

fn fingerprints(store: &EmbeddedStore, address: &str) -> Vec<[u8; 32]> {
    store
        .identity(&mailbox(address))
        .unwrap()
        .certificates
        .iter()
        .map(|record| record.certificate.fingerprint())
        .collect()
}

#[test]
fn what_is_stored_is_there_after_reopening() {
    let (place, store) = Place::new();
    let (old, young) = (issued(ANNA, 0, NewKey::P256), issued(ANNA, 30, NewKey::P256));
    // The younger one first: the order is by notBefore.
    assert_eq!(add(&store, ANNA, &young), [Stored::New]);
    assert_eq!(add(&store, ANNA, &old), [Stored::New]);
    let generation = store.identity(&mailbox(ANNA)).unwrap().generation;
    assert_eq!(add(&store, ANNA, &old), [Stored::Unchanged]);
    let shown = store.identity(&mailbox("ANNA@Example.ORG")).unwrap();
    assert_eq!(shown.generation, generation);
    drop(store);
    let store = place.open();
    let identity = store.identity(&mailbox(ANNA)).unwrap();
    assert_eq!(fingerprints(&store, ANNA), [old.certificate.fingerprint(), young.certificate.fingerprint()]);
    assert!(identity.certificates.iter().all(|record| record.key.is_some() && record.trust == TrustState::Trusted));
    assert_eq!(identity.certificates[0].provenance.detail, "a.p12");
    assert_eq!(store.owners().unwrap(), [owner(ANNA)]);
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
    assert_eq!(store.alerts(), 0);
    assert_eq!(store.export_key(identity.certificates[0].key.unwrap()).unwrap().as_slice(), old.pkcs8.as_slice());
}

#[test]
fn an_unknown_mailbox_has_an_empty_history() {
    let (_place, store) = Place::new();
    let identity = store.identity(&mailbox("nobody@example.org")).unwrap();
    assert!(identity.certificates.is_empty() && !identity.disabled && identity.generation == 0);
    assert_eq!(store.alerts(), 0);
}

#[test]
fn an_old_key_still_decrypts_after_rotation_and_while_disabled() {
    let (place, store) = Place::new();
    let old = issued(ANNA, 0, NewKey::Rsa2048);
    add(&store, ANNA, &old);
    let cek = [7u8; 32];
    let encrypted = old.certificate.public_key().transport(KeyTransport::RsaPkcs1, &cek).unwrap();
    add(&store, ANNA, &issued(ANNA, 30, NewKey::Rsa2048));
    store.set_disabled(&owner(ANNA), true).unwrap();
    let store = {
        drop(store);
        place.open()
    };
    let identity = store.identity(&mailbox(ANNA)).unwrap();
    assert!(identity.disabled);
    let operation = KeyOperation::Unwrap {
        key: identity.certificates[0].key.unwrap(),
        transport: KeyTransport::RsaPkcs1,
        encrypted: encrypted.into(),
        content: ContentEncryption::Aes256Cbc,
        substitute: Zeroizing::new(vec![0; 32]),
    };
    let Submission::Ready(Ok(KeyAnswer::Cek(answer))) = store.submit(operation) else { panic!("not answered") };
    assert_eq!(answer.as_slice(), cek);
    store.set_disabled(&owner(ANNA), false).unwrap();
    assert!(!store.identity(&mailbox(ANNA)).unwrap().disabled);
}

#[test]
fn a_large_rsa_key_answers_later_where_there_is_a_runtime() {
    let (_place, store) = Place::new();
    let issued = issued(ANNA, 0, NewKey::Rsa3072);
    add(&store, ANNA, &issued);
    let key = store.identity(&mailbox(ANNA)).unwrap().certificates[0].key.unwrap();
    let operation = || KeyOperation::Sign {
        key,
        scheme: crate::cms::algorithm::SignatureScheme::RsaPkcs1(crate::cms::algorithm::Digest::Sha256),
        message: bytes::Bytes::from_static(b"mail"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = runtime.block_on(async {
        match store.submit(operation()) {
            Submission::Later(answer) => answer.await,
            Submission::Ready(_) => panic!("done in place"),
        }
    });
    assert!(matches!(answer, Ok(KeyAnswer::Signature(_))));
    assert!(matches!(store.submit(operation()), Submission::Ready(Ok(_))));
}

#[test]
fn a_purge_takes_keys_and_certificates_and_leaves_a_tombstone() {
    let (place, store) = Place::new();
    let shared = issued(ANNA, 0, NewKey::P256);
    let own = issued(ANNA, 1, NewKey::P256);
    add(&store, ANNA, &shared);
    add(&store, ANNA, &own);
    add(&store, "bert@example.org", &shared);
    let keys: Vec<_> =
        store.identity(&mailbox(ANNA)).unwrap().certificates.iter().map(|record| record.key.unwrap()).collect();
    let before = store.identity(&mailbox(ANNA)).unwrap().generation;
    store.purge(&owner(ANNA)).unwrap();
    let identity = store.identity(&mailbox(ANNA)).unwrap();
    assert!(identity.certificates.is_empty() && identity.generation > before);
    assert_eq!(store.owners().unwrap(), [owner("bert@example.org")]);
    assert!(store.export_key(keys[0]).is_ok(), "bert has it too");
    assert!(store.export_key(keys[1]).is_err());
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
    assert!(!place.records().keys().any(|path| path.starts_with("c/anna")));
    assert_eq!(add(&store, ANNA, &own), [Stored::New]);
    assert_eq!(store.alerts(), 0);
}

#[test]
fn an_import_is_whole_or_not_at_all() {
    let (place, store) = Place::new();
    let (a, b) = (issued(ANNA, 0, NewKey::P256), issued(ANNA, 1, NewKey::P256));
    let before = place.records();
    let mut wrong = new(&b, true, TrustState::Trusted);
    wrong.key = Some(Zeroizing::new(a.pkcs8.to_vec()));
    let refused = store.add_certificates(&owner(ANNA), vec![new(&a, true, TrustState::Trusted), wrong]).unwrap_err();
    assert!(refused.to_string().contains("is not that of"), "{refused}");
    assert_eq!(place.records(), before);
    assert!(store.identity(&mailbox(ANNA)).unwrap().certificates.is_empty());
}

#[test]
fn a_repeated_import_adds_what_was_missing() {
    let (_place, store) = Place::new();
    let issued = issued(ANNA, 0, NewKey::P256);
    let put = |key, trust| store.add_certificates(&owner(ANNA), vec![new(&issued, key, trust)]).unwrap();
    assert_eq!(put(false, TrustState::Pending), [Stored::New]);
    assert_eq!(put(false, TrustState::Pending), [Stored::Unchanged]);
    assert_eq!(put(false, TrustState::Trusted), [Stored::Approved]);
    assert_eq!(put(true, TrustState::Trusted), [Stored::KeyAdded]);
    assert_eq!(put(true, TrustState::Trusted), [Stored::Unchanged]);
    store.set_trust(&owner(ANNA), issued.certificate.fingerprint(), TrustState::Blocked).unwrap();
    assert_eq!(put(true, TrustState::Pinned), [Stored::Unchanged], "blocked stays blocked");
    let identity = store.identity(&mailbox(ANNA)).unwrap();
    assert_eq!((identity.certificates.len(), identity.certificates[0].trust), (1, TrustState::Blocked));
}

/// An edit of one certificate, alone in its revision.
fn edit(store: &EmbeddedStore, edit: Edit) {
    let revision = || Revision { edit: vec![edit.clone()], ..Revision::default() };
    store.revise(&owner(ANNA), &mut |_| revision()).unwrap();
}

#[test]
fn what_signed_mail_tells_is_kept_with_its_source() {
    let (place, store) = Place::new();
    let (a, b) = (issued(ANNA, 0, NewKey::P256), issued(ANNA, 1, NewKey::P256));
    add(&store, ANNA, &a);
    add(&store, ANNA, &b);
    let reads = Capabilities {
        content: vec![ContentEncryption::Aes256Gcm, ContentEncryption::Rc2Cbc40],
        transport: vec![KeyTransport::RsaPkcs1],
    };
    let by = Provenance { source: "mail".to_owned(), detail: "<1@b.example>".to_owned(), at: now() };
    let (first, second) = (a.certificate.fingerprint(), b.certificate.fingerprint());
    let told = Some(Some((reads.clone(), by.clone())));
    edit(&store, Edit { fingerprint: first, capabilities: told, prefer: true, ..Edit::default() });
    let note = Note { why: "because".to_owned(), instead_of: Some(first) };
    edit(
        &store,
        Edit { fingerprint: second, prefer: true, seen: Some(now()), note: Some(note.clone()), ..Edit::default() },
    );
    let generation = store.identity(&mailbox(ANNA)).unwrap().generation;
    edit(&store, Edit { fingerprint: second, prefer: true, seen: Some(now()), ..Edit::default() });
    assert_eq!(store.identity(&mailbox(ANNA)).unwrap().generation, generation, "nothing new, nothing written");
    drop(store);
    let store = place.open();
    let identity = store.identity(&mailbox(ANNA)).unwrap();
    let [one, two] = identity.certificates.as_slice() else { panic!() };
    assert_eq!((one.preferred, one.capabilities.clone(), one.learned.clone()), (false, Some(reads), Some(by)));
    assert_eq!((two.preferred, two.last_seen, two.note.clone()), (true, Some(now()), Some(note)));
    edit(&store, Edit { fingerprint: first, capabilities: Some(None), ..Edit::default() });
    let identity = store.identity(&mailbox(ANNA)).unwrap();
    assert_eq!((identity.certificates[0].capabilities.clone(), identity.certificates[0].learned.clone()), (None, None));
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
}

#[test]
fn a_revision_sees_what_stands_there_and_is_whole_or_nothing() {
    let (place, store) = Place::new();
    let (a, b, ca) =
        (issued(ANNA, 0, NewKey::P256), issued(ANNA, 1, NewKey::P256), issued("ca@x.example", 0, NewKey::P256));
    let stored = store.revise(&owner(ANNA), &mut |identity| {
        assert!(identity.certificates.is_empty());
        Revision {
            add: vec![new(&a, false, TrustState::Pending)],
            edit: vec![Edit { fingerprint: a.certificate.fingerprint(), seen: Some(now()), ..Edit::default() }],
            intermediates: vec![ca.certificate.clone(), ca.certificate.clone()],
            ..Revision::default()
        }
    });
    assert_eq!(stored.unwrap(), [Stored::New]);
    assert_eq!(store.trust().unwrap().intermediates.len(), 1);
    let failed = store.revise(&owner(ANNA), &mut |identity| {
        assert_eq!(identity.certificates.len(), 1);
        let edit = vec![Edit { fingerprint: [7; 32], prefer: true, ..Edit::default() }];
        Revision { add: vec![new(&b, false, TrustState::Trusted)], edit, ..Revision::default() }
    });
    assert!(matches!(failed, Err(StoreError::Refused(_))));
    assert_eq!(fingerprints(&store, ANNA), [a.certificate.fingerprint()]);
    let mut seen = Vec::new();
    store.each_identity(&mut |identity| seen.push(identity.owner)).unwrap();
    assert_eq!(seen, [owner(ANNA)]);
    // One whose key is here stays; the owner of the last one that goes is forgotten.
    add(&store, "bert@example.org", &b);
    let all = |identity: &Identity| Revision {
        remove: identity.certificates.iter().map(|record| record.certificate.fingerprint()).collect(),
        ..Revision::default()
    };
    store.revise(&owner("bert@example.org"), &mut |identity| all(identity)).unwrap();
    store.revise(&owner(ANNA), &mut |identity| all(identity)).unwrap();
    assert_eq!(store.owners().unwrap(), [owner("bert@example.org")]);
    assert!(!place.records().keys().any(|path| path.contains(ANNA)));
    assert_eq!((store.verify().unwrap(), store.alerts()), (Vec::new(), 0));
}

#[test]
fn aliases_are_followed_one_level() {
    let (place, store) = Place::new();
    let issued = issued(ANNA, 0, NewKey::P256);
    add(&store, ANNA, &issued);
    let key = |text: &str| mailbox(text).key();
    assert!(store.identity(&mailbox("info@example.org")).unwrap().certificates.is_empty());
    store.add_alias(&key("info@example.org"), &key(ANNA)).unwrap();
    assert_eq!(fingerprints(&store, "Info@example.org").len(), 1);
    for (alias, target) in
        [("x@example.org", "info@example.org"), (ANNA, "x@example.org"), ("x@example.org", "x@example.org")]
    {
        assert!(
            matches!(store.add_alias(&key(alias), &key(target)), Err(StoreError::Refused(_))),
            "{alias} -> {target}"
        );
    }
    assert!(
        store.add_certificates(&owner("info@example.org"), vec![new(&issued, false, TrustState::Trusted)]).is_err()
    );
    let store = {
        drop(store);
        place.open()
    };
    assert_eq!(store.aliases().unwrap(), [(key("info@example.org"), key(ANNA))]);
    assert_eq!(fingerprints(&store, "info@example.org").len(), 1);
    store.remove_alias(&key("info@example.org")).unwrap();
    assert!(store.identity(&mailbox("info@example.org")).unwrap().certificates.is_empty());
    assert!(store.remove_alias(&key("info@example.org")).is_err());
}

#[test]
fn trust_is_scoped_and_its_generation_changes() {
    let (place, store) = Place::new();
    let anchor = issue(&Recipe::authority("Root", now(), NewKey::P256), None).certificate;
    let between = issue(&Recipe::authority("Between", now(), NewKey::P256), None).certificate;
    let scope = AnchorScope::Domains(vec![Domain::parse("example.org").unwrap()]);
    store.add_trust(anchor.clone(), Some(scope.clone())).unwrap();
    let first = store.trust().unwrap().generation;
    store.add_trust(anchor.clone(), Some(scope.clone())).unwrap();
    assert_eq!(store.trust().unwrap().generation, first, "the same again changes nothing");
    store.add_trust(between.clone(), None).unwrap();
    let store = {
        drop(store);
        place.open()
    };
    let trust = store.trust().unwrap();
    assert!(trust.generation > first);
    assert_eq!((trust.anchors[0].certificate.clone(), trust.anchors[0].scope.clone()), (anchor.clone(), scope));
    assert_eq!(trust.intermediates, [between]);
    store.remove_trust(anchor.fingerprint()).unwrap();
    assert!(store.trust().unwrap().anchors.is_empty());
    assert!(store.remove_trust(anchor.fingerprint()).is_err());
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
}

#[test]
fn a22_local_parts_are_compared_without_unicode_folding() {
    let (_place, store) = Place::new();
    add(&store, ANNA, &issued(ANNA, 0, NewKey::P256));
    // Kelvin sign, long s, Cyrillic a, full-width, dotless i, combining accent, in local part and domain.
    let confusable = [
        "аnna@example.org",
        "ａnna@example.org",
        "anna@exаmple.org",
        "ann\u{0430}@example.org",
        "anna\u{0301}@example.org",
        "anna@examp1e.org",
    ];
    for address in confusable {
        if let Ok(mailbox) = Mailbox::parse(address) {
            assert!(store.identity(&mailbox).unwrap().certificates.is_empty(), "{address}");
        }
    }
    add(&store, "kai@example.org", &issued("kai@example.org", 0, NewKey::P256));
    for address in ["\u{212a}ai@example.org", "ka\u{0131}@example.org"] {
        assert!(store.identity(&mailbox(address)).unwrap().certificates.is_empty(), "{address}");
    }
    assert_eq!(fingerprints(&store, "KAI@EXAMPLE.ORG").len(), 1);
}

#[test]
fn a26_a_dump_holds_no_private_key() {
    let (place, store) = Place::new();
    let (ec, rsa) = (issued(ANNA, 0, NewKey::P256), issued(ANNA, 1, NewKey::Rsa2048));
    add(&store, ANNA, &ec);
    add(&store, ANNA, &rsa);
    drop(store);
    let dump = std::fs::read(file_of(&place.store())).unwrap();
    let kek = std::fs::read(place.kek()).unwrap();
    let holds = |needle: &[u8]| memchr::memmem::find(&dump, needle).is_some();
    assert!(holds(&ec.certificate.der()[100..140]), "certificates are not secret: the search works");
    // The ECPrivateKey's octets; of RSAPrivateKey all that follows modulus and exponent.
    assert!(ec.pkcs8[36..68].chunks_exact(8).all(|piece| !holds(piece)));
    assert!(rsa.pkcs8[330..].chunks_exact(8).all(|piece| !holds(piece)));
    assert!(!holds(&kek[15..47]));
}

/// Runs an attack on a store with two owners, and gives what anna's look-up then says and which alerts there were.
fn after_attack(attack: impl FnOnce(&Place, &Issued, &Issued)) -> (Result<Vec<[u8; 32]>, StoreError>, Vec<String>) {
    let (place, store) = Place::new();
    let (hers, his) = (issued(ANNA, 0, NewKey::P256), issued("mallory@example.org", 0, NewKey::P256));
    add(&store, ANNA, &hers);
    add(&store, "mallory@example.org", &his);
    drop(store);
    attack(&place, &hers, &his);
    let store = place.open();
    let answer = store
        .identity(&mailbox(ANNA))
        .map(|identity| identity.certificates.iter().map(|record| record.certificate.fingerprint()).collect());
    let bad = store.verify().unwrap_or_else(|error| vec![error.to_string()]);
    assert!(store.alerts() > 0, "no alert");
    (answer, bad)
}

#[test]
fn a26_a_forged_certificate_is_noticed_and_absent() {
    let (answer, bad) = after_attack(|place, hers, his| {
        let path = certificate_path(&owner(ANNA), &hers.certificate.fingerprint());
        let mut octets = place.records()[&path].clone();
        let at = memchr::memmem::find(&octets, hers.certificate.der()).unwrap();
        octets.splice(
            at - 4..at + hers.certificate.der().len(),
            [&u32::try_from(his.certificate.der().len()).unwrap().to_be_bytes(), his.certificate.der().as_ref()]
                .concat(),
        );
        place.attack(|table| drop(table.insert(path.as_str(), octets.as_slice()).unwrap()));
    });
    assert!(matches!(answer, Err(StoreError::NotAuthentic(_))), "absence is not proven: {answer:?}");
    assert_eq!(bad.len(), 1);
}

#[test]
fn a26_swapped_records_are_noticed() {
    let (answer, bad) = after_attack(|place, _, _| {
        let records = place.records();
        place.attack(|table| {
            for (to, from) in
                [("o/anna@example.org", "o/mallory@example.org"), ("o/mallory@example.org", "o/anna@example.org")]
            {
                table.insert(to, records[from].as_slice()).unwrap();
            }
        });
    });
    assert!(matches!(answer, Err(StoreError::NotAuthentic(_))));
    assert!(
        bad.contains(&"o/anna@example.org".to_owned()) && bad.contains(&"o/mallory@example.org".to_owned()),
        "{bad:?}"
    );
}

#[test]
fn a26_deleted_records_are_noticed() {
    for prefix in ["o/anna", "c/anna", "b/", "r"] {
        let folder =
            |place: &Place| place.records().into_keys().filter(|path| path.starts_with(prefix)).collect::<Vec<_>>();
        if prefix == "r" {
            let (place, store) = Place::new();
            drop(store);
            place.attack(|table| drop(table.remove(ROOT).unwrap()));
            assert!(matches!(EmbeddedStore::open(&place.store(), place.kek()), Err(StoreError::NotAuthentic(_))));
            continue;
        }
        let (answer, bad) = after_attack(|place, _, _| {
            let paths = folder(place);
            assert!(!paths.is_empty());
            place.attack(|table| paths.iter().for_each(|path| drop(table.remove(path.as_str()).unwrap())));
        });
        assert!(matches!(answer, Err(StoreError::NotAuthentic(_))), "{prefix}: {answer:?}");
        assert!(bad.iter().any(|path| path.starts_with(prefix)), "{prefix}: {bad:?}");
    }
}

#[test]
fn a26_an_older_record_put_back_is_noticed() {
    let (place, store) = Place::new();
    let issued = issued(ANNA, 0, NewKey::P256);
    add(&store, ANNA, &issued);
    let older = place.records();
    store.set_trust(&owner(ANNA), issued.certificate.fingerprint(), TrustState::Blocked).unwrap();
    let newer = place.records();
    let changed: Vec<_> = older.iter().filter(|(path, octets)| newer[*path] != **octets && *path != ROOT).collect();
    assert!(changed.len() >= 3, "certificate, owner, bucket");
    for count in 1..=changed.len() {
        place.attack(|table| {
            for (path, octets) in changed.iter().rev().take(count) {
                table.insert(path.as_str(), octets.as_slice()).unwrap();
            }
        });
        let fresh = place.open();
        assert!(fresh.identity(&mailbox(ANNA)).is_err(), "{count} put back");
        assert!(fresh.alerts() > 0);
        place.attack(|table| {
            newer.iter().for_each(|(path, octets)| drop(table.insert(path.as_str(), octets.as_slice()).unwrap()))
        });
    }
    // All of it put back, root included: a process that saw the newer state refuses it.
    place.attack(|table| {
        older.iter().for_each(|(path, octets)| drop(table.insert(path.as_str(), octets.as_slice()).unwrap()))
    });
    assert!(matches!(store.refresh(), Err(StoreError::NotAuthentic(_))));
    assert!(matches!(store.identity(&mailbox("other@example.org")), Err(StoreError::NotAuthentic(_))));
}

#[test]
fn a26_a_lost_anchor_and_a_lost_alias_are_noticed() {
    let (place, store) = Place::new();
    let anchor = issue(&Recipe::authority("Root", now(), NewKey::P256), None).certificate;
    store.add_trust(anchor.clone(), Some(AnchorScope::Global)).unwrap();
    store.add_alias(&mailbox("info@example.org").key(), &mailbox(ANNA).key()).unwrap();
    drop(store);
    place.attack(|table| {
        table.remove(trust_path(&anchor.fingerprint()).as_str()).unwrap();
        table.remove("a/info@example.org").unwrap();
    });
    let store = place.open();
    assert!(store.trust().unwrap().anchors.is_empty());
    assert!(matches!(store.identity(&mailbox("info@example.org")), Err(StoreError::NotAuthentic(_))));
    assert!(store.alerts() >= 2);
}

#[test]
fn a26_an_alias_that_can_no_longer_be_listed_is_no_proof_that_there_is_none() {
    let (place, store) = Place::new();
    store.add_alias(&mailbox("info@example.org").key(), &mailbox(ANNA).key()).unwrap();
    drop(store);
    let buckets: Vec<String> = place.records().into_keys().filter(|path| path.starts_with("b/")).collect();
    place.attack(|table| buckets.iter().for_each(|path| drop(table.remove(path.as_str()).unwrap())));
    let store = place.open();
    let answer = store.identity(&mailbox("info@example.org"));
    assert!(matches!(answer, Err(StoreError::NotAuthentic(_))), "{answer:?}");
    assert!(store.aliases().is_err());
    // What the lost list cannot have held is still answered.
    let others = (0..9).map(|n| mailbox(&format!("nobody{n}@example.org"))).filter(|one| store.identity(one).is_ok());
    assert!(others.count() >= 7);
}

#[test]
fn an_alias_is_followed_while_all_is_read_anew() {
    let (_place, store) = Place::new();
    let issued = issued(ANNA, 0, NewKey::P256);
    add(&store, ANNA, &issued);
    store.add_alias(&mailbox("info@example.org").key(), &mailbox(ANNA).key()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..200).for_each(|_| store.inner.reload_all());
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            assert_eq!(fingerprints(&store, "info@example.org").len(), 1);
        }
    });
}

#[test]
fn a26_what_nothing_names_is_never_read() {
    let (place, store) = Place::new();
    add(&store, "bert@example.org", &issued("bert@example.org", 0, NewKey::P256));
    let bert = place.records()["o/bert@example.org"].clone();
    place.attack(|table| drop(table.insert("o/anna@example.org", bert.as_slice()).unwrap()));
    let store = {
        drop(store);
        place.open()
    };
    assert!(store.identity(&mailbox(ANNA)).unwrap().certificates.is_empty());
    assert_eq!(store.verify().unwrap(), ["o/anna@example.org"]);
    assert!(store.alerts() > 0);
}

#[test]
fn a26_another_kek_says_so_and_touches_nothing() {
    let (place, store) = Place::new();
    add(&store, ANNA, &issued(ANNA, 0, NewKey::P256));
    drop(store);
    let before = std::fs::read(file_of(&place.store())).unwrap();
    let other = place.folder.path().join("other");
    Kek::create(&other).unwrap();
    let error = EmbeddedStore::open(&place.store(), &other).map(|_| ()).unwrap_err();
    assert!(matches!(&error, StoreError::Kek(..)) && error.to_string().contains("other"), "{error}");
    assert_eq!(std::fs::read(file_of(&place.store())).unwrap(), before);
    assert!(matches!(EmbeddedStore::create(&place.store(), place.kek()), Err(StoreError::Refused(_))));
}

#[test]
fn a_damaged_owner_can_be_purged_and_imported_again() {
    let (place, store) = Place::new();
    let issued = issued(ANNA, 0, NewKey::P256);
    add(&store, ANNA, &issued);
    drop(store);
    place.attack(|table| drop(table.remove("o/anna@example.org").unwrap()));
    let store = place.open();
    let refused = store.add_certificates(&owner(ANNA), vec![new(&issued, true, TrustState::Trusted)]).unwrap_err();
    assert!(refused.to_string().contains("cert purge"), "{refused}");
    store.purge(&owner(ANNA)).unwrap();
    assert_eq!(add(&store, ANNA, &issued), [Stored::New]);
    assert_eq!(fingerprints(&store, ANNA).len(), 1);
}

#[test]
fn a_read_from_before_a_change_does_not_fill_the_cache() {
    let (_place, store) = Place::new();
    let store = Arc::new(store);
    let issued = issued(ANNA, 0, NewKey::P256);
    let (writer, certificate) = (Arc::clone(&store), new(&issued, false, TrustState::Trusted));
    *store.inner.before_fill.lock().unwrap() = Some(Box::new(move || {
        writer.add_certificates(&owner(ANNA), vec![certificate]).unwrap();
    }));
    let before = store.identity(&mailbox(ANNA)).unwrap();
    assert!(before.certificates.is_empty(), "it began before the change");
    assert_eq!(fingerprints(&store, ANNA).len(), 1);
}

#[test]
fn a_change_by_another_process_is_followed() {
    let (place, gateway) = Place::new();
    let mut events = gateway.subscribe();
    assert!(gateway.identity(&mailbox(ANNA)).unwrap().certificates.is_empty());
    // A second handle stands for a second process; both stay open.
    let command = place.open();
    let issued = issued(ANNA, 0, NewKey::P256);
    add(&command, ANNA, &issued);
    gateway.refresh().unwrap();
    assert_eq!(fingerprints(&gateway, ANNA).len(), 1);
    assert_eq!(events.try_recv().unwrap(), ChangeEvent::Owner(owner(ANNA)));
    let key = gateway.identity(&mailbox(ANNA)).unwrap().certificates[0].key.unwrap();
    gateway.inner.key_for_test(&key);
    command.purge(&owner(ANNA)).unwrap();
    gateway.refresh().unwrap();
    assert!(gateway.identity(&mailbox(ANNA)).unwrap().certificates.is_empty());
    assert!(gateway.inner.keys.get(&key).is_none(), "the copy of a purged key is gone");
    command.add_alias(&mailbox("info@example.org").key(), &mailbox("bert@example.org").key()).unwrap();
    add(&gateway, "bert@example.org", &issued);
    gateway.refresh().unwrap();
    assert_eq!(fingerprints(&gateway, "info@example.org").len(), 1);
    assert_eq!(gateway.alerts() + command.alerts(), 0);
}

#[test]
fn who_is_far_behind_drops_every_copy() {
    let (place, gateway) = Place::new();
    assert!(gateway.identity(&mailbox(ANNA)).unwrap().certificates.is_empty());
    let mut events = gateway.subscribe();
    let command = place.open();
    add(&command, ANNA, &issued(ANNA, 0, NewKey::P256));
    let generation = command.inner.read(|view| Ok(view.root.generation)).unwrap();
    // The log's entry is gone, as after many changes.
    place.attack(|table| drop(table.remove(log_path(generation).as_str()).unwrap()));
    gateway.refresh().unwrap();
    assert!(std::iter::from_fn(|| events.try_recv().ok()).any(|event| event == ChangeEvent::All));
    assert_eq!(fingerprints(&gateway, ANNA).len(), 1);
}

#[test]
fn a_reader_does_not_wait_for_a_writer() {
    let (place, gateway) = Place::new();
    add(&gateway, ANNA, &issued(ANNA, 0, NewKey::P256));
    gateway.inner.identities.clear();
    let (held, release) = (mpsc::channel(), mpsc::channel::<()>());
    let file = file_of(&place.store());
    let writer = std::thread::spawn(move || {
        let db = builder().open(file).unwrap();
        let transaction = db.begin_write().unwrap();
        held.0.send(()).unwrap();
        release.1.recv().unwrap();
        transaction.abort().unwrap();
    });
    held.1.recv().unwrap();
    assert_eq!(fingerprints(&gateway, ANNA).len(), 1);
    release.0.send(()).unwrap();
    writer.join().unwrap();
}

#[test]
fn a26_a_file_with_flipped_bits_gives_the_truth_or_an_error() {
    let (place, store) = Place::new();
    let issued = issued(ANNA, 0, NewKey::P256);
    add(&store, ANNA, &issued);
    drop(store);
    let good = std::fs::read(file_of(&place.store())).unwrap();
    let (mut right, mut told) = (0, 0);
    for step in 0..120usize {
        let mut bad = good.clone();
        let at = step * 977 % bad.len();
        bad[at] ^= 1 << (step % 8);
        std::fs::write(file_of(&place.store()), &bad).unwrap();
        let answer = EmbeddedStore::open(&place.store(), place.kek()).and_then(|store| store.identity(&mailbox(ANNA)));
        match answer {
            Ok(identity) => {
                assert_eq!(identity.certificates.len(), 1, "octet {at}");
                assert_eq!(identity.certificates[0].certificate, issued.certificate);
                right += 1;
            }
            Err(_) => told += 1,
        }
    }
    assert!(right > 0 && told > 0, "{right} {told}");
}

#[test]
fn two_processes_that_write_at_once_lose_nothing() {
    let (place, first) = Place::new();
    let second = place.open();
    let issued = issued(ANNA, 0, NewKey::P256);
    std::thread::scope(|scope| {
        for (name, store) in [("a", &first), ("b", &second), ("c", &first)] {
            let issued = &issued;
            scope.spawn(move || {
                for number in 0..12 {
                    let address = format!("{name}{number}@example.org");
                    add(store, &address, issued);
                    assert_eq!(fingerprints(store, &address).len(), 1, "one's own change holds at once");
                }
            });
        }
    });
    for store in [first, second, place.open()] {
        store.refresh().unwrap();
        assert_eq!(store.owners().unwrap().len(), 36);
        assert_eq!(store.verify().unwrap(), Vec::<String>::new());
        assert_eq!(store.alerts(), 0);
    }
}

#[test]
fn parcels_share_a_transaction_and_one_that_is_refused_costs_no_other() {
    let (place, store) = Place::new();
    let parcel = |address: &str, detail: &str| {
        let issued = crate::pki::authority::issue_cached(&Recipe::mailbox(address, now(), NewKey::P256), None);
        let provenance = Provenance { source: "import".into(), detail: detail.into(), at: now() };
        let new = NewCertificate {
            certificate: issued.certificate,
            provenance,
            trust: TrustState::Trusted,
            key: Some(issued.pkcs8),
        };
        let owner = Owner::Mailbox(MailboxKey::parse(address).unwrap());
        Parcel { owners: vec![(owner, vec![new])], intermediates: Vec::new() }.check().unwrap()
    };
    let alias = MailboxKey::parse("info@example.org").unwrap();
    store.add_alias(&alias, &MailboxKey::parse(ANNA).unwrap()).unwrap();
    let before = store.inner.read(|view| Ok(view.root.generation)).unwrap();
    let mut parcels: Vec<CheckedParcel> =
        (0..50).map(|number| parcel(&format!("u{number}@example.org"), "a")).collect();
    // Twice the same owner, one that is an alias.
    parcels.push(parcel("u0@example.org", "again"));
    parcels.push(parcel(alias.as_str(), "a"));
    let outcomes = store.import_parcels(&parcels);
    assert!(outcomes[..51].iter().all(Result::is_ok));
    assert!(matches!(&outcomes[51], Err(StoreError::Refused(why)) if why.contains("is an alias")));
    assert_eq!(store.inner.read(|view| Ok(view.root.generation)).unwrap(), before + 1, "one transaction");
    assert_eq!(store.owners().unwrap().len(), 50);
    let first = store.identity(&Mailbox::parse("u0@example.org").unwrap()).unwrap();
    assert_eq!(first.certificates.len(), 2);
    // What is only seen while it is written: a record that is too large. Nothing of it stays, and all others do.
    let large = "x".repeat(17 << 20);
    let more = [parcel("v0@example.org", "a"), parcel("v1@example.org", &large), parcel("v2@example.org", "a")];
    let stored: Vec<bool> = store.import_parcels(&more).iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, false, true]);
    assert_eq!(store.owners().unwrap().len(), 52);
    // Again: nothing changes, and nothing is written.
    let generation = store.inner.read(|view| Ok(view.root.generation)).unwrap();
    let again = store.import_parcels(&parcels[..50]);
    assert!(again.iter().flatten().flatten().all(|(_, stored)| stored == &[Stored::Unchanged]));
    assert_eq!(store.inner.read(|view| Ok(view.root.generation)).unwrap(), generation);
    drop(store);
    assert!(place.open().verify().unwrap().is_empty());
}

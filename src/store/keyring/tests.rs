use std::os::unix::fs::{MetadataExt, PermissionsExt};

use jiff::Timestamp;
use proptest::prelude::*;

use super::header::{Header, KeyState, Opener};
use super::kek::{KEK_LINE, KekFile, parse_kek};
use super::*;

fn ring(kek: &Kek) -> Keyring {
    let header = Header::create(kek, Timestamp::UNIX_EPOCH).unwrap();
    let octets = header.encode().unwrap();
    Keyring::of(header, octets).unwrap()
}

fn open(keks: &[Kek], octets: &[u8]) -> Result<Keyring, StoreError> {
    Keyring::open(&Opener::Keks(keks), octets)
}

#[test]
fn a_kek_file_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kek");
    let made = Kek::create(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(Kek::read(&file).unwrap().key, made.key);
    assert!(matches!(Kek::create(&file), Err(StoreError::Refused(_))));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft stays");
    for mode in [0o640, 0o604, 0o644] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = Kek::read(&file).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
    }
}

#[test]
fn a_kek_file_is_read_strictly() {
    let good = format!("{KEK_LINE}\n{}\n", "0a".repeat(32));
    assert_eq!(parse_kek(&good), Ok(KekFile::Key(Zeroizing::new([0x0a; 32]))));
    let salt = "0b".repeat(32);
    let passphrase = |cost: &str| format!("waxwing-kek-passphrase-v1\n{cost}\nsalt {salt}\nkek 0102030405060708\n");
    let cost = Cost::new(65536, 3, 4).unwrap();
    assert_eq!(
        parse_kek(&passphrase("argon2id m=65536 t=3 p=4")),
        Ok(KekFile::Passphrase { cost, salt: [0x0b; 32], fingerprint: [1, 2, 3, 4, 5, 6, 7, 8] })
    );
    assert!(parse_kek(&passphrase("argon2id m=1048576 t=64 p=16")).is_ok());
    let bounds = [
        "m=1048577 t=3 p=4",
        "m=31 t=3 p=4",
        "m=65536 t=65 p=4",
        "m=65536 t=0 p=4",
        "m=65536 t=3 p=17",
        "m=65536 t=3 p=0",
        "m=65536 t=3",
    ];
    let beyond = bounds.map(|cost| passphrase(&format!("argon2id {cost}")));
    for bad in [
        "",
        "waxwing-kek-v1",
        "waxwing-kek-v2\n00",
        "0a0a",
        good.strip_suffix("a\n").unwrap(),
        &format!("{good}x\n"),
        &good.replace("0a", "0g"),
        &good.replace("waxwing-kek", "waxwing-recovery"),
        &passphrase("scrypt m=65536 t=3 p=4"),
        &format!("{}x", passphrase("argon2id m=65536 t=3 p=4")),
    ]
    .into_iter()
    .chain(beyond.iter().map(String::as_str))
    {
        assert!(parse_kek(bad).is_err(), "{bad:?}");
        fuzz_kek_file(bad.as_bytes());
    }
}

#[test]
fn a_passphrase_makes_the_same_key_again_and_another_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kek");
    let cheap = Cost::new(64, 1, 1).unwrap();
    assert!(Kek::create_with_passphrase(&file, "", cheap).is_err());
    let made = Kek::create_with_passphrase(&file, "correct horse", cheap).unwrap();
    let read = |text: &str| Kek::read_with(&file, |_| Ok(Zeroizing::new(text.to_owned())));
    assert_eq!(read("correct horse").unwrap().key, made.key);
    let refused = read("correct horsf").map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("the passphrase is wrong"), "{refused}");
    let other = folder.path().join("other");
    assert_ne!(Kek::create_with_passphrase(&other, "correct horse", cheap).unwrap().key, made.key, "another salt");
    assert!(!std::fs::read_to_string(&file).unwrap().contains("horse"));
}

#[test]
fn a26_sealed_keys_are_bound_to_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let kek = Kek::create(&folder.path().join("kek")).unwrap();
    let ring = ring(&kek);
    let header = ring.octets().to_vec();
    let keks = [kek];
    let sealed = ring.seal(b"k/1", b"secret").unwrap();
    assert_eq!(open(&keks, &header).unwrap().unseal(b"k/1", &sealed).unwrap().as_slice(), b"secret");
    assert!(ring.unseal(b"k/2", &sealed).is_none());
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 1;
        assert!(ring.unseal(b"k/1", &bad).is_none());
    }
    for at in 0..header.len() {
        for bit in [1, 0x80] {
            let mut bad = header.clone();
            bad[at] ^= bit;
            assert!(open(&keks, &bad).is_err(), "octet {at}");
        }
        assert!(open(&keks, &header[..at]).is_err(), "cut at {at}");
    }
    assert!(open(&keks, &[header.as_slice(), b"x"].concat()).is_err());
}

#[test]
fn a_header_goes_through_a_whole_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let kek = |name: &str| Kek::create(&folder.path().join(name)).unwrap();
    let (old, new, stranger) = (kek("old"), kek("new"), kek("stranger"));
    let recovery = RecoveryKey::create(&folder.path().join("recovery")).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let first = ring(&old);
    let opens = |header: &Header, kek: &Kek| open(std::slice::from_ref(kek), &header.encode().unwrap()).is_ok();
    let mut header = first.header.clone();
    header.introduce_recovery(&recovery, now).unwrap();
    header.introduce(&new, now).unwrap();
    assert!(opens(&header, &old) && opens(&header, &new) && !opens(&header, &stranger));
    assert_eq!(header.active_kek(), Some(old.fingerprint()));
    assert!(header.retire_others(&new.fingerprint()).is_err(), "it is not in use yet");
    assert!(header.activate(&stranger.fingerprint()).is_err());
    header.activate(&new.fingerprint()).unwrap();
    assert!(opens(&header, &old), "until it is retired");
    // New store keys are wrapped for all, so all have to be there; the recovery key need not.
    assert!(header.clone().renew_keys(std::slice::from_ref(&new), now).is_err());
    header.retire_others(&new.fingerprint()).unwrap();
    assert!(opens(&header, &new) && !opens(&header, &old));
    header.renew_keys(std::slice::from_ref(&new), now).unwrap();
    let octets = header.encode().unwrap();
    let by_kek = open(std::slice::from_ref(&new), &octets).unwrap();
    let by_recovery = Keyring::open(&Opener::Recovery(&recovery), &octets).unwrap();
    for ring in [&by_kek, &by_recovery] {
        let mac = first.mac("p", b"old");
        assert!(ring.verifies("p", b"old", &mac) && !ring.verifies_newest("p", b"old", &mac));
        assert_eq!(ring.unseal(b"k", &first.seal(b"k", b"secret").unwrap()).unwrap().as_slice(), b"secret");
        assert!(!first.verifies("p", b"new", &ring.mac("p", b"new")));
        assert_eq!(ring.loop_secret().unwrap(), first.loop_secret().unwrap(), "the same over every rotation");
    }
    let keks = by_kek.spool_keks(std::slice::from_ref(&new)).unwrap();
    let before = first.spool_keks(std::slice::from_ref(&old)).unwrap();
    assert!(keks.iter().any(|kek| kek.fingerprint() == before.wrap[0].fingerprint()), "what was wrapped is read");
    assert_eq!(keks.wrap.iter().map(Kek::fingerprint).nth(1), Some(new.fingerprint()));
    assert_ne!(keks.wrap[0].fingerprint(), before.wrap[0].fingerprint(), "and wrapped anew by another");
    header.drop_keys(|key| key.state == KeyState::Retired);
    let ring = open(&[new], &header.encode().unwrap()).unwrap();
    assert!(!ring.verifies("p", b"old", &first.mac("p", b"old")));
    assert_eq!(ring.header.keys.len(), 3, "two installation keys, one store key");
    let other = RecoveryKey::create(&folder.path().join("another")).unwrap();
    assert!(Keyring::open(&Opener::Recovery(&other), &header.encode().unwrap()).is_err());
}

#[test]
fn a_header_of_the_first_version_opens_and_of_a_later_one_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let kek = Kek::create(&folder.path().join("kek")).unwrap();
    let stranger = Kek::create(&folder.path().join("stranger")).unwrap();
    let open_part = [b"WAXSTOR1".as_slice(), &[3; 16], &kek.fingerprint()].concat();
    let octets = [open_part.clone(), kek.wrap_key(&open_part, &[9; 32]).unwrap()].concat();
    let (one, other) =
        (open(std::slice::from_ref(&kek), &octets).unwrap(), open(std::slice::from_ref(&kek), &octets).unwrap());
    assert_eq!((one.header.revision, one.header.store), (0, [3; 16]));
    assert_eq!(one.loop_secret().unwrap(), other.loop_secret().unwrap());
    assert_eq!(one.mac("p", b"x"), Derived::of(&[9; 32], &[3; 16]).unwrap().mac("p", b"x"));
    let again = open(std::slice::from_ref(&kek), &one.header.encode().unwrap()).unwrap();
    assert_eq!(again.mac("p", b"x"), one.mac("p", b"x"));
    assert!(matches!(open(&[stranger], &octets), Err(StoreError::Kek(..))));
    for at in 0..octets.len() {
        let mut bad = octets.clone();
        bad[at] ^= 1;
        // The store's id is authenticated by the wrap.
        assert!(open(std::slice::from_ref(&kek), &bad).is_err(), "octet {at}");
    }
    let later = [b"WAXSTOR3".as_slice(), &[0; 100]].concat();
    assert!(matches!(open(&[kek], &later), Err(StoreError::Later(_))));
}

#[test]
fn a_recovery_key_is_read_strictly_and_bound() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recovery");
    let key = RecoveryKey::create(&file).unwrap();
    assert!(RecoveryKey::create(&file).is_err(), "never overwritten");
    assert_eq!(RecoveryKey::read(&file).unwrap().public(), key.public());
    let wrapped = recovery::wrap_key(&key.public(), b"a", b"secret").unwrap();
    assert_eq!(key.unwrap_key(b"a", &wrapped).unwrap().as_slice(), b"secret");
    assert!(key.unwrap_key(b"b", &wrapped).is_none());
    for at in 0..wrapped.len() {
        let mut bad = wrapped.clone();
        bad[at] ^= 1;
        assert!(key.unwrap_key(b"a", &bad).is_none(), "octet {at}");
    }
    assert!(Kek::read(&file).is_err(), "it is no KEK");
    let text = std::fs::read_to_string(&file).unwrap();
    for bad in [text.replace("v1", "v2"), text.replace('\n', ""), format!("{text}x\n")] {
        std::fs::write(&file, bad).unwrap();
        assert!(RecoveryKey::read(&file).is_err());
    }
}

proptest! {
    #[test]
    fn any_octets_are_no_header_and_no_kek_file_beyond_bounds(noise in prop::collection::vec(any::<u8>(), 0..400), flips in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        fuzz_store_header(&noise);
        fuzz_store_header(&[b"WAXSTOR2".as_slice(), &noise].concat());
        fuzz_kek_file(&noise);
        let mut file = b"waxwing-kek-passphrase-v1\nargon2id m=65536 t=3 p=4\nsalt 00\nkek 0102030405060708\n".to_vec();
        for (at, octet) in flips {
            let length = file.len();
            file[usize::from(at) % length] = octet;
        }
        fuzz_kek_file(&file);
    }
}

/// A header with other keys, as of a later revision.
fn later(header: &Header, change: impl FnOnce(&mut Header)) -> Header {
    let mut next = header.clone();
    change(&mut next);
    next.revision += 1;
    next
}

#[test]
fn a26_an_old_store_key_makes_no_header_that_is_followed() {
    let kek = Kek::of_key(Zeroizing::new([7; 32]), "test");
    let keks = std::slice::from_ref(&kek);
    let now = Timestamp::UNIX_EPOCH;
    let first = Header::create(&kek, now).unwrap();
    let begun = later(&first, |next| next.renew_keys(keks, now).unwrap());
    let ended = later(&begun, |next| next.drop_keys(|key| key.state == KeyState::Retired));
    let spent: Vec<_> = begun.dropped_by(&ended).map(|key| key.id).collect();
    assert_eq!(spent, [first.newest().unwrap().id]);
    assert!(first.may_be_followed_by(&begun, &[]) && begun.may_be_followed_by(&ended, &[]));
    // Who was away takes the last one at once.
    assert!(first.may_be_followed_by(&ended, &[]));
    assert!(!ended.may_be_followed_by(&begun, &spent), "the way back");
    // Who has the first store key makes a header under it, of a revision beyond all: it opens, and is not taken.
    let forged = Header { revision: 99, ..first.clone() };
    assert!(Header::open(&Opener::Keks(keks), &forged.encode().unwrap()).is_ok());
    assert!(!begun.may_be_followed_by(&forged, &[]), "by who knows it as retired");
    assert!(!ended.may_be_followed_by(&forged, &spent), "by who knows it as dropped");
    let beside = later(&ended, |next| {
        next.keys.insert(0, begun.keys.iter().find(|key| key.state == KeyState::Retired).unwrap().clone())
    });
    assert!(!ended.may_be_followed_by(&beside, &spent), "nor is it taken beside another");
    let elsewhere = Header::create(&kek, now).unwrap();
    assert!(!first.may_be_followed_by(&Header { revision: 99, ..elsewhere }, &[]), "another store's");
}

#[test]
fn a_header_that_nothing_opens_is_told_from_a_forged_one() {
    let (old, new) = (Kek::of_key(Zeroizing::new([7; 32]), "old"), Kek::of_key(Zeroizing::new([8; 32]), "new"));
    let now = Timestamp::UNIX_EPOCH;
    let ours = Header::create(&old, now).unwrap();
    let rotated = later(&ours, |next| {
        next.introduce(&new, now).unwrap();
        next.activate(&new.fingerprint()).unwrap();
        next.retire_others(&new.fingerprint()).unwrap();
    });
    let octets = rotated.encode().unwrap();
    assert!(!Header::fits(&Opener::Keks(std::slice::from_ref(&old)), &octets));
    assert!(Header::fits(&Opener::Keks(std::slice::from_ref(&new)), &octets));
    assert_eq!(Header::outline(&octets), Some((ours.store, 2, vec![new.fingerprint()])));
    assert_eq!(ours.vouches_for(&octets), Some(true), "the store key is the same");
    let mut forged = octets.clone();
    forged[31] ^= 4;
    assert_eq!(ours.vouches_for(&forged), Some(false));
    let resealed = later(&rotated, |next| next.renew_keys(&[new], now).unwrap());
    assert_eq!(ours.vouches_for(&resealed.encode().unwrap()), None, "a key that was never here");
    assert_eq!(ours.vouches_for(b"WAXSTOR2"), None);
}

#[test]
fn a_copy_reads_by_the_keys_that_were_left_and_shows_nobody() {
    let kek = Kek::of_key(Zeroizing::new([7; 32]), "test");
    let keks = std::slice::from_ref(&kek);
    let now = Timestamp::UNIX_EPOCH;
    let first = Header::create(&kek, now).unwrap();
    let before = Keyring::of(first.clone(), Vec::new()).unwrap();
    let next = later(&first, |next| {
        next.renew_keys(keks, now).unwrap();
        next.drop_keys(|key| key.state == KeyState::Retired);
    });
    let kept = first.left_behind(&[], &next, keks).unwrap().unwrap();
    let (octets, left) = (next.encode().unwrap(), kept.encode().unwrap());
    let opener = Opener::Keks(keks);
    let ring = Keyring::open(&opener, &octets).unwrap().with_left(&opener, Some(&left)).unwrap();
    assert!(ring.is_of(&octets, Some(&left)) && !ring.is_of(&octets, None) && ring.has_older());
    let mac = before.mac("o/a", b"body");
    assert!(ring.verifies("o/a", b"body", &mac), "what lies here");
    assert!(!ring.verifies_shared("o/a", b"body", &mac), "what comes from elsewhere");
    let sealed = before.seal(b"place", b"key").unwrap();
    let renewed = ring.reseal(b"place", &sealed).unwrap().unwrap();
    assert!(!ring.is_sealed_by_newest(b"place", &sealed) && ring.is_sealed_by_newest(b"place", &renewed));
    assert_eq!(ring.reseal(b"place", &renewed).unwrap().unwrap(), renewed, "as it is");
    assert_eq!(ring.reseal(b"elsewhere", &sealed).unwrap(), None);
    // It is kept over another change, and not beside a header that has the key itself.
    let third = later(&next, |next| next.renew_keys(keks, now).unwrap());
    let again = next.left_behind(ring.left(), &third, keks).unwrap().unwrap();
    assert_eq!(again.keys.first().map(|key| key.id), Some(first.newest().unwrap().id));
    let begun = later(&first, |next| next.renew_keys(keks, now).unwrap());
    assert!(first.left_behind(&[], &begun, keks).unwrap().is_none());
}

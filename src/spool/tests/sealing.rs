use super::*;
use crate::mime::rope::Rope;
use crate::store::keyring::{Kek, SpoolKeks};

const SECRET: &str = "the secret content of a mail that policy lets out in clear";

fn kek(folder: &tempfile::TempDir, name: &str) -> Kek {
    let file = folder.path().join(name);
    if file.exists() { Kek::read(&file).unwrap() } else { Kek::create(&file).unwrap() }
}

fn open_sealed(disk: &Simulated, kek: &Kek) -> Spool {
    Spool::open_sealed(Arc::new(disk.clone()), SMALL, kek).unwrap().0
}

/// Small, in a file of its own, and of several chunks.
fn contents() -> [String; 3] {
    [SECRET.to_owned(), SECRET.repeat(50), SECRET.repeat((5 << 20) / 2 / SECRET.len())]
}

#[tokio::test]
async fn what_is_not_encrypted_by_itself_lies_on_disk_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let kek = kek(&folder, "kek");
    let disk = Simulated::default();
    let spool = open_sealed(&disk, &kek);
    let dsn = NewEntry { origin: Origin::Dsn, ..new_entry(SECRET) };
    let held = NewEntry { treatment: Treatment::AsSubmitted, ..new_entry(SECRET) };
    let received = NewEntry { treatment: Treatment::AsReceived, ..new_entry(SECRET) };
    let mut new: Vec<_> = contents().iter().map(|text| new_entry(text)).collect();
    new.extend([dsn, held, received]);
    let mut rope = Rope::new();
    rope.push_raw("a".repeat(1 << 20));
    rope.push_base64("b".repeat(700_000));
    new.push(NewEntry { content: rope.clone(), ..new_entry("") });
    let ids = spool.commit(new).await.unwrap();
    drop(spool);
    let disk = disk.after_power_loss(3);
    assert!(!disk.holds(SECRET.as_bytes()) && !disk.holds("a".repeat(100).as_bytes()));
    let spool = open_sealed(&disk, &kek);
    let expected = contents().into_iter().chain([SECRET.into(), SECRET.into(), SECRET.into()]);
    for (id, text) in ids.iter().zip(expected) {
        assert!(spool.content(*id).await.unwrap() == text.as_bytes(), "{id}");
    }
    assert!(spool.content(ids[6]).await.unwrap() == rope.to_bytes());
    assert_eq!(spool.entry(ids[0]).unwrap().size, SECRET.len() as u64);
    // Compaction moves it as it is.
    for number in 0..60 {
        let id = spool.commit(vec![new_entry(&text(number, 500))]).await.unwrap()[0];
        spool.done(id).await.unwrap();
    }
    drop(spool);
    let spool = open_sealed(&disk.after_kill(), &kek);
    assert_eq!(spool.content(ids[0]).await.unwrap(), SECRET);
}

#[tokio::test]
async fn what_is_encrypted_by_itself_is_not_sealed_again_and_a_spool_without_keys_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let kek = kek(&folder, "kek");
    let disk = Simulated::default();
    let spool = open_sealed(&disk, &kek);
    let id = spool.commit(vec![NewEntry { encrypted: true, ..new_entry("CMS, as it is") }]).await.unwrap()[0];
    assert!(disk.holds(b"CMS, as it is"));
    drop(spool);
    let (spool, _) = open(&disk.after_kill());
    assert_eq!(spool.content(id).await.unwrap(), "CMS, as it is");
    let spool = open_sealed(&disk.after_kill(), &kek);
    spool.commit(vec![new_entry(SECRET)]).await.unwrap();
    let clear = Spool::open(Arc::new(disk.after_kill()), SMALL);
    drop(clear);
    let sealed = Simulated::default();
    let spool = open_sealed(&sealed, &kek);
    spool.commit(vec![new_entry(SECRET)]).await.unwrap();
    assert!(matches!(Spool::open(Arc::new(sealed.after_kill()), SMALL), Err(SpoolError::Keys(_))));
    let other = self::kek(&folder, "other");
    assert!(matches!(
        Spool::open_sealed(Arc::new(sealed.after_kill()), SMALL, &other),
        Err(SpoolError::Keys(why)) if why.contains("key-encryption key")
    ));
}

#[tokio::test]
async fn sealed_contents_can_be_neither_changed_cut_nor_swapped() {
    let folder = tempfile::tempdir().unwrap();
    let kek = kek(&folder, "kek");
    let disk = Simulated::default();
    let keys = Keys::open(&disk, &(&kek).into()).unwrap();
    for size in [0, 1, 1 << 20, (1 << 20) + 1, 2 << 20] {
        let plain = vec![7; size];
        let sealer = keys.sealer(EntryId(5)).unwrap();
        let (sealing, mut sealed) = (sealer.sealing(), Vec::new());
        sealer
            .seal(&Rope::from(Bytes::from(plain.clone())), |chunk| {
                sealed.extend_from_slice(chunk);
                Ok(())
            })
            .unwrap();
        let open = |id: u64, octets: Vec<u8>| keys.open_content(EntryId(id), sealing, octets);
        assert_eq!(open(5, sealed.clone()), Some(plain));
        assert_eq!(open(6, sealed.clone()), None, "another entry's");
        assert_eq!(open(5, sealed[..sealed.len() - 1].to_vec()), None);
        let chunk = (1 << 20) + 16;
        if sealed.len() > chunk {
            assert_eq!(open(5, sealed[..chunk].to_vec()), None, "the last chunk is missing");
        }
        if sealed.len() == 2 * chunk {
            assert_eq!(open(5, [&sealed[chunk..], &sealed[..chunk]].concat()), None, "swapped");
        }
        let middle = sealed.len() / 2;
        sealed[middle] ^= 1;
        assert_eq!(open(5, sealed), None);
    }
    let id = {
        let spool = open_sealed(&disk, &kek);
        spool.commit(vec![new_entry(&SECRET.repeat(50))]).await.unwrap()[0]
    };
    disk.damage(&body_name(id), 100);
    let spool = open_sealed(&disk.after_kill(), &kek);
    assert_eq!(spool.content(id).await, Err(SpoolError::Damaged(id)));
}

#[tokio::test]
async fn keys_are_rotated_and_wrapped_anew_and_a_crash_leaves_the_old_or_the_new() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (kek(&folder, "first"), kek(&folder, "second"));
    let prepared = Simulated::default();
    let id = {
        let spool = open_sealed(&prepared, &first);
        spool.commit(vec![new_entry(SECRET)]).await.unwrap()[0]
    };
    for at in 0..30 {
        let disk = prepared.after_kill();
        let spool = open_sealed(&disk, &first);
        let now = disk.state().operations;
        disk.state().power_goes_at = Some(now + at);
        let rotated = spool.rotate_key(kek(&folder, "first")).await.is_ok();
        let rewrapped = rotated && spool.rewrap_keys(kek(&folder, "second")).await.is_ok();
        drop(spool);
        for chance in 0..4 {
            let disk = disk.after_power_loss(chance);
            let by = |kek: &Kek| Spool::open_sealed(Arc::new(disk.clone()), SMALL, kek);
            let spool = if rewrapped { by(&second) } else { by(&first).or_else(|_| by(&second)) };
            assert_eq!(spool.unwrap().0.content(id).await.unwrap(), SECRET);
        }
    }
    let spool = open_sealed(&prepared, &first);
    spool.rotate_key(kek(&folder, "first")).await.unwrap();
    let new = spool.commit(vec![new_entry("new")]).await.unwrap()[0];
    let names = lock(&spool.shared.index).sealing_keys();
    assert_eq!(names.len(), 2, "each with the key of its time");
    spool.done(id).await.unwrap();
    spool.rotate_key(kek(&folder, "first")).await.unwrap();
    let keys = spool.shared.keys.read().unwrap().clone().unwrap();
    let gone = names.iter().filter(|name| !keys.has(name)).count();
    assert_eq!(gone, 1, "what seals nothing is forgotten");
    drop(spool);
    assert_eq!(open_sealed(&prepared.after_kill(), &first).content(new).await.unwrap(), "new");
}

#[tokio::test]
async fn each_of_several_keys_opens_the_spool_and_the_first_version_of_its_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let [own, old, new, other] = ["own", "old", "new", "other"].map(|name| kek(&folder, name));
    let both = |kek: &Kek| SpoolKeks { wrap: vec![own.clone(), kek.clone()], open: Vec::new() };
    let disk = Simulated::default();
    let spool = Spool::open_sealed(Arc::new(disk.clone()), SMALL, both(&old)).unwrap().0;
    let id = spool.commit(vec![new_entry(SECRET)]).await.unwrap()[0];
    drop(spool);
    let opens = |disk: &Simulated, keks: SpoolKeks| Spool::open_sealed(Arc::new(disk.after_kill()), SMALL, keks);
    assert!(opens(&disk, (&own).into()).is_ok() && opens(&disk, (&old).into()).is_ok());
    let refused = opens(&disk, (&other).into()).map(|_| ()).unwrap_err().to_string();
    let wanted = crate::store::keyring::hex(&old.fingerprint()).to_string();
    assert!(refused.contains(&wanted), "{refused}");
    // Another KEK is in use: what is wrapped anew is not opened by the old one.
    let spool = Spool::open_sealed(Arc::new(disk.clone()), SMALL, both(&old)).unwrap().0;
    spool.rewrap_keys(both(&new)).await.unwrap();
    drop(spool);
    assert!(opens(&disk, (&new).into()).is_ok() && opens(&disk, (&old).into()).is_err());
    // A file of the first version: magic, name, one wrapping.
    let keys = Keys::existing(&disk, &both(&new)).unwrap().unwrap();
    let mut first = b"WAXSPOL1".to_vec();
    for (name, key) in &keys.keys {
        first.extend_from_slice(name);
        first.extend(old.wrap_key(&[b"waxwing spool v1 key ".as_slice(), name].concat(), key.as_ref()).unwrap());
    }
    disk.remove("keys").unwrap();
    let mut file = disk.create("keys").unwrap();
    file.append(&first).unwrap();
    file.sync().unwrap();
    let keks = SpoolKeks { wrap: vec![own.clone(), new.clone()], open: vec![old.clone()] };
    let spool = Spool::open_sealed(Arc::new(disk.clone()), SMALL, keks).unwrap().0;
    assert_eq!(spool.content(id).await.unwrap(), SECRET);
    drop(spool);
    assert!(opens(&disk, (&new).into()).is_ok() && opens(&disk, (&old).into()).is_err());
}

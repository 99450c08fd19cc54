//! A sealed copy of all records in a file.
//!
//! `WAXBACK1 | length of the header (4) | the store's header | salt (32)`, then chunks: `length (4) | sealed`. The header is a copy of the store's, so
//! whatever opened the store then opens the backup: each key-encryption key of that time, and the recovery key. A key of its own, by HKDF-SHA-256
//! of the newest store key with the salt, seals the chunks (AES-256-GCM); the nonce is the chunk's number and whether it is the last, and all
//! that stands before the chunks is authenticated with each, so that none can be swapped, left out or cut off. A chunk holds whole records: `path
//! | kind (1) | value`, path and value behind their lengths (4); a private key's value is as it was in the store, sealed. The last
//! chunk holds their number (8) and the SHA-256 of them all.

use std::io::{ErrorKind, Read, Write};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::StoreError;
use super::keyring::header::Opener;
use super::keyring::{Kek, Keyring, RecoveryKey, gcm_key, hex, random};
use super::record::{Kind, RECORD_MAX};

const MAGIC: &[u8; 8] = b"WAXBACK1";
/// Octets of a chunk's content after which it is written.
const CHUNK: usize = 256 << 10;
/// A longer chunk, in octets, is not read.
const CHUNK_MAX: usize = CHUNK + RECORD_MAX + (64 << 10);
const HEADER_MAX: usize = 1 << 20;
const SALT: usize = 32;
const TAG: usize = 16;

/// What opens a backup.
pub enum BackupKey {
    /// Key-encryption keys: one has to be of the time of the backup.
    Keks(Vec<Kek>),
    /// The recovery key.
    Recovery(RecoveryKey),
}

impl BackupKey {
    fn opener(&self) -> Opener<'_> {
        match self {
            Self::Keks(keks) => Opener::Keks(keks),
            Self::Recovery(key) => Opener::Recovery(key),
        }
    }
}

/// What a whole backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Records.
    pub records: u64,
    /// SHA-256 of all of them.
    pub hash: [u8; 32],
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records, SHA-256 {}", self.records, *hex(&self.hash))
    }
}

/// A record of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub path: String,
    pub kind: Kind,
    pub value: Vec<u8>,
}

impl Item {
    fn put(&self, out: &mut Vec<u8>) {
        // Both are bounded by RECORD_MAX.
        let length = |octets: &[u8]| u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes();
        out.extend_from_slice(&length(self.path.as_bytes()));
        out.extend_from_slice(self.path.as_bytes());
        out.push(self.kind as u8);
        out.extend_from_slice(&length(&self.value));
        out.extend_from_slice(&self.value);
    }

    /// The first of these; what is left.
    fn take(octets: &[u8]) -> Option<(Self, &[u8])> {
        let (path, rest) = take_octets(octets)?;
        let (code, rest) = rest.split_first()?;
        let (value, rest) = take_octets(rest)?;
        let path = std::str::from_utf8(path).ok()?.to_owned();
        Some((Self { path, kind: Kind::from_code(*code)?, value: value.to_vec() }, rest))
    }
}

fn take_octets(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// The state of what seals or opens chunks.
struct Chunks {
    key: LessSafeKey,
    before: [u8; 32],
    number: u64,
    records: u64,
    hash: digest::Context,
}

impl Chunks {
    fn new(ring: &Keyring, prelude: &[u8], salt: &[u8]) -> Result<Self, StoreError> {
        let key = gcm_key(ring.backup_key(salt)?.as_ref())?;
        let before = digest::digest(&digest::SHA256, prelude);
        let before = before.as_ref().try_into().map_err(|_| super::keyring::crypto_failed())?;
        Ok(Self { key, before, number: 0, records: 0, hash: digest::Context::new(&digest::SHA256) })
    }

    fn nonce(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        let number = self.number.to_be_bytes();
        nonce.iter_mut().zip([u8::from(last), 0, 0, 0].iter().chain(&number)).for_each(|(to, from)| *to = *from);
        self.number = self.number.saturating_add(1);
        Nonce::assume_unique_for_key(nonce)
    }

    fn summary(&self) -> Summary {
        let hash = self.hash.clone().finish();
        Summary { records: self.records, hash: hash.as_ref().first_chunk().copied().unwrap_or_default() }
    }
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Refused(format!("the backup: {error}"))
}

/// Writes a backup.
pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
    chunks: Chunks,
    buffer: Zeroizing<Vec<u8>>,
}

impl<'a> Writer<'a> {
    pub fn begin(out: &'a mut dyn Write, ring: &Keyring) -> Result<Self, StoreError> {
        let mut salt = [0; SALT];
        random(&mut salt)?;
        // As it is written now: a header of the first version becomes one of the second.
        let header = ring.header.encode()?;
        let length = u32::try_from(header.len()).map_err(failed)?.to_be_bytes();
        let prelude = [MAGIC.as_slice(), &length, &header, &salt].concat();
        out.write_all(&prelude).map_err(failed)?;
        let chunks = Chunks::new(ring, &prelude, &salt)?;
        Ok(Self { out, chunks, buffer: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)) })
    }

    pub fn put(&mut self, item: &Item) -> Result<(), StoreError> {
        let from = self.buffer.len();
        item.put(&mut self.buffer);
        self.chunks.hash.update(self.buffer.get(from..).unwrap_or_default());
        self.chunks.records = self.chunks.records.saturating_add(1);
        if self.buffer.len() >= CHUNK { self.flush(false) } else { Ok(()) }
    }

    fn flush(&mut self, last: bool) -> Result<(), StoreError> {
        let (nonce, before) = (self.chunks.nonce(last), self.chunks.before);
        let sealed = self.chunks.key.seal_in_place_append_tag(nonce, Aad::from(before), &mut *self.buffer);
        sealed.map_err(|_| super::keyring::crypto_failed())?;
        let length = u32::try_from(self.buffer.len()).map_err(failed)?.to_be_bytes();
        self.out.write_all(&length).and_then(|()| self.out.write_all(&self.buffer)).map_err(failed)?;
        self.buffer.clear();
        Ok(())
    }

    pub fn finish(mut self) -> Result<Summary, StoreError> {
        if !self.buffer.is_empty() {
            self.flush(false)?;
        }
        let summary = self.chunks.summary();
        self.buffer.extend_from_slice(&summary.records.to_be_bytes());
        self.buffer.extend_from_slice(&summary.hash);
        self.flush(true)?;
        self.out.flush().map_err(failed)?;
        Ok(summary)
    }
}

/// Reads a backup, one record after the other.
pub(super) struct Reader<'a> {
    input: &'a mut dyn Read,
    chunks: Chunks,
    /// The keys of the store that it is of.
    pub ring: Keyring,
    items: std::vec::IntoIter<Item>,
    ended: Option<Summary>,
}

impl<'a> Reader<'a> {
    pub fn begin(input: &'a mut dyn Read, key: &BackupKey) -> Result<Self, StoreError> {
        let mut prelude = vec![0; MAGIC.len() + 4];
        input.read_exact(&mut prelude).map_err(ended)?;
        let length = match prelude.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk::<4>()) {
            Some(length) => usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX),
            None if prelude.starts_with(b"WAXBACK") => return Err(StoreError::Later("the backup".to_owned())),
            None => return Err(failed("the file is no backup of a store")),
        };
        if length > HEADER_MAX {
            return Err(failed("its header is too long; it was altered"));
        }
        let from = prelude.len();
        prelude.resize(from + length + SALT, 0);
        input.read_exact(prelude.get_mut(from..).unwrap_or_default()).map_err(ended)?;
        let (header, salt) = prelude.get(from..).and_then(|rest| rest.split_at_checked(length)).unwrap_or_default();
        let ring = Keyring::open(&key.opener(), header).map_err(|error| match error {
            StoreError::Kek(name, why) => StoreError::Kek(name, format!("of the backup: {why}")),
            other => failed(other),
        })?;
        let chunks = Chunks::new(&ring, &prelude, salt)?;
        Ok(Self { input, chunks, ring, items: Vec::new().into_iter(), ended: None })
    }

    /// The next record; `None` at the end, whose number and hash were found to be right.
    pub fn next(&mut self) -> Result<Option<Item>, StoreError> {
        loop {
            if let Some(item) = self.items.next() {
                return Ok(Some(item));
            }
            if self.ended.is_some() {
                return Ok(None);
            }
            self.chunk()?;
        }
    }

    /// What the end says; only there.
    pub fn summary(&self) -> Option<Summary> {
        self.ended
    }

    fn chunk(&mut self) -> Result<(), StoreError> {
        let (at, mut length) = (self.chunks.number, [0; 4]);
        let bad = |why: &str| failed(format!("{why} at its part {at}: it was altered or cut off; take another backup"));
        self.input.read_exact(&mut length).map_err(ended)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > CHUNK_MAX {
            return Err(bad("a length is wrong"));
        }
        let mut sealed = Zeroizing::new(Vec::new());
        Read::take(&mut *self.input, length as u64).read_to_end(&mut sealed).map_err(ended)?;
        if sealed.len() != length {
            return Err(bad("it ends"));
        }
        let (plain, last) = self.open(&sealed).ok_or_else(|| bad("it is not authentic"))?;
        if last {
            let said = plain.split_first_chunk::<8>().and_then(|(records, hash)| {
                Some(Summary { records: u64::from_be_bytes(*records), hash: hash.try_into().ok()? })
            });
            if said != Some(self.chunks.summary()) {
                return Err(bad("number and hash of its records are wrong"));
            }
            if self.input.read(&mut [0]).map_err(ended)? != 0 {
                return Err(bad("something follows"));
            }
            self.ended = said;
            return Ok(());
        }
        self.chunks.hash.update(&plain);
        let (mut items, mut rest) = (Vec::new(), plain.as_slice());
        while !rest.is_empty() {
            let (item, left) =
                Item::take(rest).ok_or_else(|| StoreError::Later(format!("a record in the backup's part {at}")))?;
            items.push(item);
            rest = left;
        }
        self.chunks.records = self.chunks.records.saturating_add(items.len() as u64);
        self.items = items.into_iter();
        Ok(())
    }

    fn open(&mut self, sealed: &[u8]) -> Option<(Zeroizing<Vec<u8>>, bool)> {
        let number = self.chunks.number;
        [false, true].into_iter().find_map(|last| {
            self.chunks.number = number;
            let (nonce, mut octets) = (self.chunks.nonce(last), Zeroizing::new(sealed.to_vec()));
            let length = self.chunks.key.open_in_place(nonce, Aad::from(self.chunks.before), &mut octets).ok()?.len();
            octets.truncate(length);
            Some((octets, last))
        })
    }
}

fn ended(error: std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::UnexpectedEof => failed("it is cut off; take another backup"),
        _ => failed(error),
    }
}

/// Reads a backup to its end: every part authentic, number and hash right. `step` is told of each record.
pub fn check(input: &mut dyn Read, key: &BackupKey, mut step: impl FnMut()) -> Result<Summary, StoreError> {
    let mut reader = Reader::begin(input, key)?;
    while reader.next()?.is_some() {
        step();
    }
    reader.summary().ok_or_else(|| failed("it has no end"))
}

/// Fuzz body: no octets are a backup without its key, and records are read within bounds.
#[doc(hidden)]
pub fn fuzz_backup(data: &[u8]) {
    let mut rest = data;
    while let Some((item, left)) = Item::take(rest) {
        let mut again = Vec::new();
        item.put(&mut again);
        assert_eq!(rest.strip_prefix(again.as_slice()), Some(left));
        rest = left;
    }
    assert!(check(&mut &data[..], &BackupKey::Keks(Vec::new()), || ()).is_err());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::keyring::header::Header;

    fn kek(folder: &tempfile::TempDir, name: &str) -> Kek {
        Kek::create(&folder.path().join(name)).unwrap()
    }

    fn ring(kek: &Kek) -> Keyring {
        let header = Header::create(kek, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let octets = header.encode().unwrap();
        Keyring::of(header, octets).unwrap()
    }

    fn items() -> Vec<Item> {
        let item = |at: usize| Item { path: format!("o/{at}@b"), kind: Kind::Owner, value: vec![7; at * 1000] };
        (0..60).map(item).collect()
    }

    fn backup(ring: &Keyring) -> (Vec<u8>, Summary) {
        let mut out = Vec::new();
        let mut writer = Writer::begin(&mut out, ring).unwrap();
        items().iter().for_each(|item| writer.put(item).unwrap());
        let summary = writer.finish().unwrap();
        (out, summary)
    }

    #[test]
    fn what_is_written_is_read_and_anything_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (kek, other) = (kek(&folder, "kek"), kek(&folder, "other"));
        let (octets, summary) = backup(&ring(&kek));
        let key = BackupKey::Keks(vec![other.clone(), kek]);
        let mut input = octets.as_slice();
        let mut reader = Reader::begin(&mut input, &key).unwrap();
        let mut read = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            read.push(item);
        }
        assert_eq!((read, reader.summary()), (items(), Some(summary)));
        assert_eq!(summary.records, 60);
        assert!(octets.len() > 3 * CHUNK, "several chunks");
        let good = |octets: &[u8]| check(&mut &octets[..], &key, || ()).is_ok();
        assert!(good(&octets));
        let steps = octets.len() / 50;
        for at in (0..700).step_by(5).chain((0..octets.len()).step_by(steps)).chain(octets.len() - 60..octets.len()) {
            let mut bad = octets.clone();
            bad[at] ^= 1;
            assert!(!good(&bad), "octet {at}");
        }
        for cut in (0..octets.len()).step_by(steps).chain(octets.len() - 60..octets.len()) {
            assert!(!good(&octets[..cut]), "cut at {cut}");
        }
        assert!(!good(&[octets.as_slice(), b"x"].concat()));
        let error = check(&mut octets.as_slice(), &BackupKey::Keks(vec![other]), || ()).unwrap_err();
        assert!(matches!(error, StoreError::Kek(..)), "{error}");
    }

    #[test]
    fn parts_cannot_be_left_out_or_swapped() {
        let folder = tempfile::tempdir().unwrap();
        let kek = kek(&folder, "kek");
        let (octets, _) = backup(&ring(&kek));
        let key = BackupKey::Keks(vec![kek]);
        let header = 8 + 4 + u32::from_be_bytes(octets[8..12].try_into().unwrap()) as usize + SALT;
        let (mut parts, mut rest) = (Vec::new(), &octets[header..]);
        while !rest.is_empty() {
            let (part, left) = rest.split_at(4 + u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize);
            parts.push(part);
            rest = left;
        }
        assert!(parts.len() > 3);
        let good = |parts: &[&[u8]]| {
            let octets = [&octets[..header], &parts.concat()].concat();
            check(&mut octets.as_slice(), &key, || ()).is_ok()
        };
        assert!(good(&parts));
        for at in 0..parts.len() {
            let mut left = parts.clone();
            left.remove(at);
            assert!(!good(&left), "without part {at}");
        }
        let mut swapped = parts.clone();
        swapped.swap(0, 1);
        assert!(!good(&swapped));
    }

    proptest! {
        #[test]
        fn any_octets_are_no_backup(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_backup(&data);
            fuzz_backup(&[MAGIC.as_slice(), &data].concat());
            let mut item = Vec::new();
            Item { path: "t".to_owned(), kind: Kind::Trust, value: data.clone() }.put(&mut item);
            fuzz_backup(&[item, data].concat());
        }
    }
}

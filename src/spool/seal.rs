//! Sealing at rest: what is in clear by itself lies on disk encrypted.
//!
//! The folder holds the file `keys`: random keys, the last one the current, each wrapped (AES-256-GCM) by a key of the store, which outlives every
//! rotation, and by the KEK, with which another node can adopt the spool; it says which by their fingerprints. Each entry has a
//! key of its own: HKDF-SHA-256 of that key, with a random salt that its record names. Contents are AES-256-GCM in chunks of 1 MiB; the
//! nonce is the chunk's number and whether it is the last, so that chunks can be neither swapped nor cut off; the entry's id is
//! authenticated with each.

use std::collections::BTreeMap;
use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use zeroize::Zeroizing;

use super::SpoolError;
use super::disk::Disk;
use super::entry::EntryId;
use super::record::Sealing;
use crate::mime::rope::Rope;
use crate::store::keyring::{Fingerprint, Kek, SpoolKeks, hex};

/// The file of the wrapped keys.
pub(super) const FILE: &str = "keys";
const UNFINISHED: &str = "keys.unfinished";
const MAGIC: &[u8; 8] = b"WAXSPOL2";
/// Of the first version: one wrapping, and no fingerprint.
const MAGIC_1: &[u8; 8] = b"WAXSPOL1";
/// Wrappings of each key.
const WRAPPINGS: usize = 8;
/// Octets of a wrapped key: nonce, key, tag.
const WRAPPED: usize = 12 + 32 + 16;
/// Octets of content sealed at once.
const CHUNK: usize = 1 << 20;
const TAG: usize = 16;
/// Keys in one file: each rotation adds one, and those that seal nothing go.
const KEYS: usize = 1000;

type Name = [u8; 16];

/// The keys of one spool.
#[derive(Clone)]
pub(super) struct Keys {
    current: Name,
    pub(super) keys: BTreeMap<Name, Zeroizing<[u8; 32]>>,
    /// What wraps them in the file.
    by: Vec<Fingerprint>,
}

/// Where each wrapping of a key is.
struct File<'a> {
    by: Vec<Fingerprint>,
    /// Name, wrappings.
    records: Vec<(Name, &'a [u8])>,
}

impl<'a> File<'a> {
    fn parse(octets: &'a [u8]) -> Option<Self> {
        let (by, rest, count) = match octets.strip_prefix(MAGIC_1) {
            Some(rest) => (Vec::new(), rest, 1),
            None => {
                let (count, rest) = octets.strip_prefix(MAGIC)?.split_first()?;
                let count = usize::from(*count);
                let (by, rest) = rest.split_at_checked(8 * count).filter(|_| (1..=WRAPPINGS).contains(&count))?;
                (by.as_chunks::<8>().0.to_vec(), rest, count)
            }
        };
        let record = |record: &'a [u8]| record.split_first_chunk::<16>().map(|(name, wrapped)| (*name, wrapped));
        let length = 16 + WRAPPED * count;
        let records = rest.chunks(length).map(record).collect::<Option<Vec<_>>>()?;
        let good = !records.is_empty() && records.len() <= KEYS && rest.len().is_multiple_of(length);
        good.then_some(Self { by, records })
    }
}

fn failed() -> SpoolError {
    SpoolError::Keys("a cryptographic operation failed in this process".into())
}

impl Keys {
    /// The keys in the folder; made where there are none, and wrapped anew where others should wrap them.
    pub(super) fn open(disk: &dyn Disk, keks: &SpoolKeks) -> Result<Self, SpoolError> {
        let mut keys = match Self::existing(disk, keks)? {
            Some(keys) => keys,
            None => {
                let mut keys = Keys { current: [0; 16], keys: BTreeMap::new(), by: Vec::new() };
                keys.add()?;
                keys
            }
        };
        // Where the disk takes nothing now, what is there still opens.
        match keys.rewrap(disk, keks) {
            Err(error) if keys.by.is_empty() && disk.len(FILE).is_err() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the spool's keys cannot be wrapped anew");
                Ok(keys)
            }
            Ok(()) => Ok(keys),
        }
    }

    /// The keys in the folder, if it has any.
    pub(super) fn existing(disk: &dyn Disk, keks: &SpoolKeks) -> Result<Option<Self>, SpoolError> {
        match disk.len(FILE) {
            Ok(len) => Self::read(&disk.read(FILE, 0, usize::try_from(len).unwrap_or(usize::MAX))?, keks).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read(octets: &[u8], keks: &SpoolKeks) -> Result<Self, SpoolError> {
        let foreign = || SpoolError::Keys(format!("the file `{FILE}` in the spool is damaged, or of another version"));
        let file = File::parse(octets).ok_or_else(foreign)?;
        let mut keys = Keys { current: [0; 16], keys: BTreeMap::new(), by: file.by.clone() };
        for (name, wrapped) in &file.records {
            let wrappings = wrapped.chunks(WRAPPED).enumerate();
            let key = wrappings.into_iter().find_map(|(at, wrapped)| {
                let by = file.by.get(at);
                keks.iter()
                    .filter(|kek| by.is_none_or(|by| *by == kek.fingerprint()))
                    .find_map(|kek| kek.unwrap_key(&associated(name), wrapped))
            });
            let key = key.ok_or_else(|| SpoolError::Keys(not_ours(&file.by)))?;
            keys.keys.insert(*name, Zeroizing::new(key.as_slice().try_into().map_err(|_| foreign())?));
            keys.current = *name;
        }
        Ok(keys)
    }

    /// Writes the file anew where it is not wrapped by exactly these.
    pub(super) fn rewrap(&mut self, disk: &dyn Disk, keks: &SpoolKeks) -> Result<(), SpoolError> {
        if self.by.iter().copied().eq(keks.wrap.iter().map(Kek::fingerprint)) { Ok(()) } else { self.write(disk, keks) }
    }

    /// Writes the file anew; a crash leaves the old one or this.
    pub(super) fn write(&mut self, disk: &dyn Disk, keks: &SpoolKeks) -> Result<(), SpoolError> {
        let by: Vec<Fingerprint> = keks.wrap.iter().map(Kek::fingerprint).collect();
        let count = u8::try_from(by.len()).ok().filter(|count| (1..=WRAPPINGS).contains(&usize::from(*count)));
        let mut octets = MAGIC.to_vec();
        octets.push(count.ok_or_else(|| SpoolError::Keys("there is no key-encryption key to wrap them with".into()))?);
        octets.extend(by.iter().flatten());
        let others = self.keys.keys().filter(|name| **name != self.current);
        for name in others.chain([&self.current]) {
            let key = self.keys.get(name).ok_or_else(failed)?;
            octets.extend_from_slice(name);
            for kek in &keks.wrap {
                octets.extend(kek.wrap_key(&associated(name), key.as_ref()).map_err(|_| failed())?);
            }
        }
        let _ = disk.remove(UNFINISHED);
        let mut file = disk.create(UNFINISHED)?;
        file.append(&octets)?;
        file.sync()?;
        disk.rename(UNFINISHED, FILE)?;
        disk.sync_folder()?;
        self.by = by;
        Ok(())
    }

    /// A new key, the current from now on.
    pub(super) fn add(&mut self) -> Result<(), SpoolError> {
        let (mut name, mut key) = ([0; 16], Zeroizing::new([0; 32]));
        rand::fill(&mut name).and_then(|()| rand::fill(key.as_mut())).map_err(|_| failed())?;
        self.keys.insert(name, key);
        self.current = name;
        Ok(())
    }

    /// Drops keys that are neither current nor used.
    pub(super) fn retain(&mut self, used: impl Fn(&Name) -> bool) {
        let current = self.current;
        self.keys.retain(|name, _| *name == current || used(name));
    }

    pub(super) fn is_current(&self, name: &Name) -> bool {
        self.current == *name
    }

    pub(super) fn has(&self, name: &Name) -> bool {
        self.keys.contains_key(name)
    }

    /// What seals a new entry.
    pub(super) fn sealer(&self, id: EntryId) -> Result<EntrySealer, SpoolError> {
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(|_| failed())?;
        let sealing = Sealing { key: self.current, salt };
        Ok(EntrySealer { key: self.entry_key(sealing)?, sealing, id })
    }

    /// Opens what [`EntrySealer::seal`] made of `size` octets, in place; `None`: it is not that.
    pub(super) fn open_content(&self, id: EntryId, sealing: Sealing, mut octets: Vec<u8>) -> Option<Vec<u8>> {
        let key = self.entry_key(sealing).ok()?;
        let (mut from, mut to) = (0, 0);
        loop {
            let left = octets.len().checked_sub(from)?;
            let take = left.min(CHUNK + TAG);
            let number = u64::try_from(from / (CHUNK + TAG)).ok()?;
            let chunk = octets.get_mut(from..from.checked_add(take)?)?;
            let nonce = nonce(number, take == left);
            let plain = key.open_in_place(nonce, Aad::from(id.0.to_be_bytes()), chunk).ok()?.len();
            octets.copy_within(from..from + plain, to);
            (from, to) = (from + take, to + plain);
            if take == left {
                octets.truncate(to);
                return Some(octets);
            }
        }
    }

    fn entry_key(&self, sealing: Sealing) -> Result<LessSafeKey, SpoolError> {
        let Some(key) = self.keys.get(&sealing.key) else {
            return Err(SpoolError::Keys("its key is not in the spool".into()));
        };
        let mut derived = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &sealing.salt)
            .extract(key.as_ref())
            .expand(&[b"waxwing spool v1 entry"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(derived.as_mut()))
            .map_err(|_| failed())?;
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, derived.as_ref()).map_err(|_| failed())?))
    }
}

fn not_ours(by: &[Fingerprint]) -> String {
    let names: Vec<String> = by.iter().map(|by| hex(by).to_string()).collect();
    let which = if names.is_empty() { String::new() } else { format!("; it wants one of {}", names.join(", ")) };
    format!("the key-encryption key does not open the file `{FILE}` in the spool{which}")
}

fn associated(name: &Name) -> Vec<u8> {
    [b"waxwing spool v1 key ".as_slice(), name].concat()
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    let number = number.to_be_bytes();
    nonce.iter_mut().zip([u8::from(last), 0, 0, 0].iter().chain(&number)).for_each(|(to, from)| *to = *from);
    Nonce::assume_unique_for_key(nonce)
}

/// Seals one entry's content, once.
pub(super) struct EntrySealer {
    key: LessSafeKey,
    sealing: Sealing,
    id: EntryId,
}

impl EntrySealer {
    pub(super) fn sealing(&self) -> Sealing {
        self.sealing
    }

    /// Gives out the sealed octets, chunk by chunk.
    pub(super) fn seal(self, content: &Rope, mut out: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), SpoolError> {
        let mut buffer = Zeroizing::new(Vec::with_capacity(content.encoded_len().min(CHUNK) + TAG));
        let mut number = 0;
        let mut seal = |buffer: &mut Zeroizing<Vec<u8>>, last: bool| -> Result<(), SpoolError> {
            let aad = Aad::from(self.id.0.to_be_bytes());
            self.key.seal_in_place_append_tag(nonce(number, last), aad, &mut **buffer).map_err(|_| failed())?;
            number += 1;
            out(buffer)?;
            buffer.clear();
            Ok(())
        };
        for mut piece in content.chunks(64 * 1024) {
            while !piece.is_empty() {
                if buffer.len() >= CHUNK {
                    seal(&mut buffer, false)?;
                }
                let room = CHUNK.saturating_sub(buffer.len());
                buffer.extend_from_slice(&piece.split_to(piece.len().min(room)));
            }
        }
        seal(&mut buffer, true)
    }
}

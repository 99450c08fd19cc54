//! Key-encryption keys: which open the store, which are at hand, and how one takes the other's place.
//!
//! Another process may change the header at any time. Every transaction goes by the header in its own snapshot, so keys and records always fit; a
//! header that no key at hand opens is an error of each use, and nothing is touched. New places are looked at then, at most every few
//! seconds.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};
use zeroize::Zeroizing;

use super::presence::{self, Presence, Process};
use super::{EmbeddedStore, HEADER, Inner, Stored, stored_header};
use crate::config::KekSources;
use crate::store::StoreError;
use crate::store::etcd::Node;
use crate::store::keyring::header::{Header, Opener, id_text};
use crate::store::keyring::{Fingerprint, Kek, KekState, Keyring, RecoveryKey, SpoolKeks, hex};
use crate::store::record::{Encoded, Kind, Record};
use crate::store::tree::{RECORDS, ROOT, io};

/// Between two looks for a key-encryption key that is not at hand.
const LOOK: Duration = Duration::from_secs(5);

/// The key-encryption keys at hand.
pub(super) struct Held {
    sources: Option<KekSources>,
    keks: Vec<Kek>,
    recovery: Option<RecoveryKey>,
    looked: Option<Instant>,
}

impl Held {
    pub fn new(sources: KekSources, keks: Vec<Kek>) -> Self {
        Self { sources: Some(sources), keks, recovery: None, looked: None }
    }

    pub fn recovery(key: RecoveryKey) -> Self {
        Self { sources: None, keks: Vec::new(), recovery: Some(key), looked: None }
    }

    pub fn opener(&self) -> Opener<'_> {
        match &self.recovery {
            Some(key) => Opener::Recovery(key),
            None => Opener::Keks(&self.keks),
        }
    }

    fn add(&mut self, kek: Kek) {
        if !self.keks.iter().any(|known| known.fingerprint() == kek.fingerprint()) {
            self.keks.push(kek);
        }
    }

    /// Looks again at the places, unless that was a moment ago. Nobody is asked for a passphrase: nobody may be there.
    fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let Some(sources) = self.sources.clone() else { return };
        for place in sources.iter() {
            if self.keks.iter().any(|kek| *kek.name() == *place.to_string_lossy()) {
                continue;
            }
            match Kek::read_unasked(place) {
                Ok(kek) => self.add(kek),
                Err(error) => tracing::debug!(%error, "a key-encryption key cannot be read"),
            }
        }
    }

    fn fingerprints(&self) -> Vec<Fingerprint> {
        self.keks.iter().map(Kek::fingerprint).collect()
    }
}

/// A key-encryption key that opens a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekStatus {
    /// Tells it from others.
    pub fingerprint: Fingerprint,
    /// A recovery key: `state` means nothing.
    pub recovery: bool,
    /// How far it has come.
    pub state: KekState,
    /// When it was introduced; the epoch where the store is of the first version.
    pub created: Timestamp,
    /// Where this process has it from.
    pub here: Option<String>,
}

/// A store key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreKeyStatus {
    /// Tells it from others: 32 hexadecimal digits.
    pub id: String,
    /// Seals new records; else `kek reseal` takes its records to the newest.
    pub active: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// The keys of a store: nothing of them is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreKeys {
    /// The store's own: 32 hexadecimal digits.
    pub store: String,
    /// Grows with each change of the keys.
    pub revision: u64,
    /// Store keys, oldest first.
    pub keys: Vec<StoreKeyStatus>,
    /// What opens the store.
    pub keks: Vec<KekStatus>,
}

impl Inner {
    /// The keys of the header in this snapshot. `floor`: no header before that revision may be there.
    pub(super) fn ring_in<T: ReadableTable<&'static str, &'static [u8]>>(
        &self,
        table: &T,
        floor: u64,
    ) -> Result<Arc<Keyring>, StoreError> {
        let ring = Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner));
        match stored_header(table, &ring)? {
            None => Ok(ring),
            Some(stored) => self.another_ring(&stored, floor),
        }
    }

    /// Opens a header with the keys at hand; where none fits, those that came meanwhile are looked for.
    pub(super) fn opened<R>(&self, open: impl Fn(&Opener<'_>) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let mut held = self.keks.lock().unwrap_or_else(PoisonError::into_inner);
        match open(&held.opener()) {
            Err(StoreError::Kek(..)) => {
                held.look();
                open(&held.opener())
            }
            other => other,
        }
    }

    fn another_ring(&self, stored: &Stored, floor: u64) -> Result<Arc<Keyring>, StoreError> {
        let ring = Arc::new(self.opened(|opener| stored.open(opener))?);
        if ring.header.revision < floor {
            return Err(self.alerts.raise("header"));
        }
        let mut current = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        // An older snapshot goes by its own header, and leaves the newer one to others.
        if ring.header.revision >= current.header.revision {
            *current = Arc::clone(&ring);
            self.header_floor.fetch_max(ring.header.revision, Ordering::AcqRel);
        }
        Ok(ring)
    }

    pub(super) fn current_ring(&self) -> Result<Arc<Keyring>, StoreError> {
        let floor = self.header_floor.load(Ordering::Acquire);
        let transaction = self.db.begin_read().map_err(io)?;
        self.ring_in(&transaction.open_table(HEADER).map_err(io)?, floor)
    }

    /// Changes the header: `body` gets what is there and gives what is to be there, `None`: nothing is to be changed. It may run more than once.
    /// Durable when this returns; the root is put under the newest store key with it. Where the store is shared it is changed there.
    pub(super) fn change_header(
        &self,
        mut body: impl FnMut(&Header) -> Result<Option<Header>, StoreError>,
    ) -> Result<(), StoreError> {
        if let Some(shared) = self.shared.get() {
            return shared.change_header(self, &mut body);
        }
        super::guarded("store", || {
            let transaction = self.db.begin_write().map_err(io)?;
            self.must_be_alone(&transaction)?;
            let changed = {
                let mut headers = transaction.open_table(HEADER).map_err(io)?;
                let mut records = transaction.open_table(RECORDS).map_err(io)?;
                let ring = self.ring_in(&headers, self.header_floor.load(Ordering::Acquire))?;
                let root = self.checked_root(&records, &ring, self.floor.load(Ordering::Acquire))?;
                match body(&ring.header)? {
                    None => false,
                    Some(mut next) => {
                        next.revision = ring.header.revision.saturating_add(1);
                        let octets = next.encode()?;
                        let next = Keyring::of(next, octets)?;
                        headers.insert("header", next.octets()).map_err(io)?;
                        let (octets, _) = Record::seal(&next, ROOT, Kind::Root, root.generation, &root.encode());
                        records.insert(ROOT, octets.as_slice()).map_err(io)?;
                        true
                    }
                }
            };
            if changed { transaction.commit().map_err(io) } else { transaction.abort().map_err(io) }
        })?;
        self.follow()?;
        self.be_present();
        Ok(())
    }

    /// Fails where this is the copy of a shared store, of which only the shared one is changed.
    fn must_be_alone(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        if !self.is_copy(transaction)? {
            return Ok(());
        }
        Err(StoreError::Refused(
            "this is a node's copy of a shared store, and its keys are changed there alone: name the configuration with [etcd] in place of --store"
                .to_owned(),
        ))
    }

    /// Says what this process has, and looks for what it has not.
    pub(super) fn be_present(&self) {
        let ring = Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner));
        let process = {
            let mut held = self.keks.lock().unwrap_or_else(PoisonError::into_inner);
            let have = held.fingerprints();
            let missing = |wrapper: &crate::store::keyring::header::Wrapper| {
                wrapper.recovery.is_none() && !have.contains(&wrapper.fingerprint)
            };
            if ring.header.wrappers.iter().any(missing) {
                held.look();
            }
            Process { pid: std::process::id(), keks: held.fingerprints(), revision: ring.header.revision }
        };
        let mut presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        let said = match presence.as_mut() {
            Some(presence) => presence.say(process),
            None => Presence::begin(&self.folder, process).map(|begun| *presence = Some(begun)),
        };
        if let Err(error) = said {
            tracing::debug!(%error, "other processes cannot be told that this one has the store open");
        }
    }

    pub(super) fn spool_keks(&self) -> SpoolKeks {
        let ring = Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner));
        let held = self.keks.lock().unwrap_or_else(PoisonError::into_inner);
        ring.spool_keks(&held.keks).unwrap_or_default()
    }

    pub(super) fn use_keks(&self, sources: &KekSources) {
        {
            let mut held = self.keks.lock().unwrap_or_else(PoisonError::into_inner);
            held.sources = Some(sources.clone());
            held.looked = None;
            held.look();
        }
        self.be_present();
    }

    pub(in crate::store) fn held(&self) -> Vec<Kek> {
        self.keks.lock().unwrap_or_else(PoisonError::into_inner).keks.clone()
    }
}

impl EmbeddedStore {
    /// The keys of this store as they are now.
    pub fn keys(&self) -> Result<StoreKeys, StoreError> {
        let ring = self.inner.current_ring()?;
        let held = self.inner.held();
        let header = &ring.header;
        let kek = |wrapper: &crate::store::keyring::header::Wrapper| KekStatus {
            fingerprint: wrapper.fingerprint,
            recovery: wrapper.recovery.is_some(),
            state: wrapper.state,
            created: wrapper.created,
            here: held.iter().find(|kek| kek.fingerprint() == wrapper.fingerprint).map(|kek| kek.name().to_owned()),
        };
        let newest = header.newest()?.id;
        let keys = header.keys.iter().filter(|key| key.state != crate::store::keyring::header::KeyState::Installation);
        Ok(StoreKeys {
            store: id_text(&header.store),
            revision: header.revision,
            keys: keys
                .map(|key| StoreKeyStatus { id: id_text(&key.id), active: key.id == newest, created: key.created })
                .collect(),
            keks: header.wrappers.iter().map(kek).collect(),
        })
    }

    /// The other processes that have this store open; `None` in place of one that is about to say what it has.
    pub fn other_processes(&self) -> Result<Vec<Option<Process>>, StoreError> {
        let presence = self.inner.presence.lock().unwrap_or_else(PoisonError::into_inner);
        presence::others(&self.inner.folder, presence.as_ref()).map_err(io)
    }

    /// Fails where the keys of this store cannot be changed from here now; nothing was changed then, and nothing needs to be made for it.
    ///
    /// # Errors
    /// The copy of a shared store without its etcd; a shared store whose etcd cannot be reached, or holds another header.
    pub fn keys_can_be_changed(&self) -> Result<(), StoreError> {
        if let Some(shared) = self.inner.shared.get() {
            return shared.catch_up().and_then(|_| shared.header_is_ours());
        }
        super::guarded("store", || {
            let transaction = self.inner.db.begin_write().map_err(io)?;
            self.inner.must_be_alone(&transaction)?;
            transaction.abort().map_err(io)
        })
    }

    /// The same on every node of this store, over every rotation, and nobody else's: 32 octets.
    pub fn loop_secret(&self) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        self.inner.current_ring()?.loop_secret()
    }

    /// `kek` opens the store too, from now on.
    pub fn introduce_kek(&self, kek: &Kek) -> Result<(), StoreError> {
        let fingerprint = kek.fingerprint();
        self.inner.keks.lock().unwrap_or_else(PoisonError::into_inner).add(kek.clone());
        self.inner.change_header(|header| {
            if header.kek(&fingerprint).is_some() {
                return Ok(None);
            }
            let mut next = header.clone();
            next.introduce(kek, Timestamp::now())?;
            Ok(Some(next))
        })
    }

    /// A KEK that was introduced is the one in use; the one before it is to go.
    pub fn activate_kek(&self, fingerprint: Fingerprint) -> Result<(), StoreError> {
        self.inner.change_header(|header| {
            if header.active_kek() == Some(fingerprint) {
                return Ok(None);
            }
            let mut next = header.clone();
            next.activate(&fingerprint)?;
            Ok(Some(next))
        })
    }

    /// No KEK but the one in use, and the recovery key, opens the store any more.
    pub fn retire_keks(&self, active: Fingerprint) -> Result<(), StoreError> {
        self.inner.change_header(|header| {
            let mut next = header.clone();
            next.retire_others(&active)?;
            Ok((next.wrappers != header.wrappers).then_some(next))
        })
    }

    /// The recovery key opens the store too, from now on; one before it does not.
    pub fn introduce_recovery(&self, key: &RecoveryKey) -> Result<(), StoreError> {
        self.inner.change_header(|header| {
            let mut next = header.clone();
            next.introduce_recovery(key, Timestamp::now())?;
            Ok(Some(next))
        })
    }

    /// With the recovery key: `kek` is the one in use, and every other is lost.
    pub fn recover(&self, kek: &Kek) -> Result<(), StoreError> {
        let fingerprint = kek.fingerprint();
        self.inner.change_header(|header| {
            let mut next = header.clone();
            next.introduce(kek, Timestamp::now())?;
            next.activate(&fingerprint)?;
            next.retire_others(&fingerprint)?;
            Ok((next.wrappers != header.wrappers).then_some(next))
        })
    }

    /// Which other processes of this machine, and which gateways that share the store, could not open it with this KEK: what they say in words.
    pub fn without_kek(&self, fingerprint: &Fingerprint) -> Result<Vec<String>, StoreError> {
        let word = |process: Option<Process>| match process {
            Some(process) if process.keks.contains(fingerprint) => None,
            Some(process) => Some(format!("process {} has not read KEK {}", process.pid, *hex(fingerprint))),
            None => Some("a process is just opening the store".to_owned()),
        };
        let mut without: Vec<String> = self.other_processes()?.into_iter().filter_map(word).collect();
        if let Some(shared) = self.inner.shared.get() {
            let has = |node: &Node| node.keks.contains(fingerprint);
            without.extend(shared.waits_for(has, &format!("has not read KEK {}", *hex(fingerprint)))?);
        }
        Ok(without)
    }
}

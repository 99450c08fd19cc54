//! The embedded store: one redb file; every record authenticated, private keys sealed (A26).
//!
//! **What is noticed.** Records form an authenticated tree (`tree`): a record that was forged, swapped, replaced by an older version of itself, or
//! deleted counts as absent and raises an alert ([`EmbeddedStore::alerts`], and an error in the log). Where absence would read as "it is known that there is
//! no certificate" (an owner's record is gone, or all his certificates are), the look-up fails in place of answering, so that no mail goes out in
//! clear for it. What one file cannot know is that *all* of it was put back to an older state while no process had it open; a process
//! that has it open refuses to go back. [`EmbeddedStore::verify`] checks every record; so does a thread, once, soon after opening.
//!
//! **Several processes.** The file is opened in redb's multi-writer mode: any number of processes read and write, one write transaction at a time; readers
//! never wait for a writer. Each change is logged in the file under its generation; a thread looks every 500 ms (and each own change at once)
//! for changes by others, drops the copies they concern and tells subscribers. So a command's change holds in a running gateway within
//! half a second. Changes wait for the disk (fdatasync): on an async runtime make them in `spawn_blocking`.
//!
//! **Memory.** Decoded identities, absent ones included, and private keys are kept in bounded caches without stale fill; aliases and the trust set are kept whole.

/// What changes is written down.
mod audited;
/// Many certificates in few transactions.
mod bulk;
/// Changing the store.
mod change;
/// Answering with private keys.
mod holder;
/// Key-encryption keys: which open the store, and which are at hand.
mod keks;
/// Who else has the store open.
mod presence;
/// What records say.
mod read;
/// As the copy of a shared store.
mod replica;
/// Writing every record anew under a new store key.
mod reseal;
/// What is known of each key of a shared store.
mod seen;
/// The header of the shared store, as its copies take it.
mod succession;
/// All records out, and in again.
mod transfer;

pub use bulk::{CheckedParcel, Parcel};
pub use change::ImportOutcome;
pub use keks::{KekStatus, StoreKeyStatus, StoreKeys};
pub use presence::Process;
use read::{alias_target, children_of, decode_identity, named_child, read_identity, read_trust};
pub(super) use replica::{Arrived, Digest, PathHashes, Standing, TakenIn};
pub use reseal::{Resealed, Resealing};
pub(super) use succession::Taken;
pub use transfer::{Restored, Restoring};

use std::collections::HashSet;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use dashmap::DashMap;
use jiff::Timestamp;
use redb::{ConcurrencyMode, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{Semaphore, broadcast};

use super::cache::GuardedCache;
use super::etcd::{self, Role, Shared};
use super::keyring::header::{Header, Id, Opener};
use super::keyring::{Kek, Keyring, Mac, RecoveryKey, hex, sync_folder_of};
use super::record::{ChangeValue, Encoded, Kind, Record, Root};
use super::tree::{Alerts, Change, LOG_LENGTH, RECORDS, ROOT, View, io, log_path, read_root};
use super::{ChangeEvent, Identity, Owner, StoreError};
use crate::address::{Domain, MailboxKey};
use crate::config::{Etcd, KekSources};
use crate::keys::KeyId;
use crate::pki::path::TrustSet;

const HEADER: TableDefinition<&str, &[u8]> = TableDefinition::new("header");
/// Under this name in the table of headers: keys that a copy of a shared store still has records under.
const LEFT: &str = "left";
const FILE: &str = "store.redb";
const TRUST: &str = "t";
const IDENTITIES: usize = 65_536;
const KEYS: usize = 4_096;
const PAGE_CACHE: usize = 64 << 20;
/// Records copied with one commit.
const COPIED: usize = 4_096;
const POLL: Duration = Duration::from_millis(500);

type Records = ReadOnlyTable<&'static str, &'static [u8]>;

/// The store of one machine. Also a `KeyHolder` for the private keys in it.
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    db: Database,
    folder: PathBuf,
    /// The keys of the last header that was seen; each transaction goes by the header in its own snapshot.
    ring: RwLock<Arc<Keyring>>,
    /// No header before this revision is accepted.
    header_floor: AtomicU64,
    keks: Mutex<keks::Held>,
    presence: Mutex<Option<presence::Presence>>,
    alerts: Alerts,
    /// The last root that was checked.
    root: RwLock<Option<(Mac, Arc<Root>)>>,
    /// No root before this generation is accepted.
    floor: AtomicU64,
    /// Changes up to this generation were followed.
    seen: Mutex<u64>,
    identities: GuardedCache<Owner, Arc<Identity>>,
    keys: GuardedCache<KeyId, holder::Loaded>,
    /// `None`: the alias's record is not authentic.
    aliases: DashMap<MailboxKey, Option<MailboxKey>>,
    /// `aliases` holds all there are: what is not in it is none.
    aliases_whole: AtomicBool,
    trust: RwLock<Result<Arc<TrustSet>, StoreError>>,
    events: broadcast::Sender<ChangeEvent>,
    /// Slow key operations at once.
    pool: Arc<Semaphore>,
    /// Where the truth is, where that is not here.
    shared: OnceLock<Shared>,
    /// Records that a later version of Waxwing wrote into the shared store.
    later: seen::Later,
    /// Where changes are written down.
    witness: OnceLock<audited::Witness>,
    /// The store key that every record of this copy is under, where that was looked at.
    resealed: Mutex<Option<Id>>,
    #[cfg(test)]
    before_fill: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Nothing that comes from a shared store can be committed.
    #[cfg(test)]
    disk_full: AtomicBool,
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter).set_cache_size(PAGE_CACHE);
    builder
}

/// redb may panic on a file that was altered outside it; here that is an error.
fn guarded<R>(what: &str, body: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(StoreError::Io(format!("{what}: the file is damaged"))))
}

fn owner_path(owner: &Owner) -> String {
    format!("o/{owner}")
}

fn certificate_path(owner: &Owner, fingerprint: &[u8; 32]) -> String {
    format!("c/{owner}/{}", *hex(fingerprint))
}

fn key_path(key: &KeyId) -> String {
    format!("k/{}", *hex(&key.0))
}

fn trust_path(fingerprint: &[u8; 32]) -> String {
    format!("t/{}", *hex(fingerprint))
}

fn alias_path(alias: &MailboxKey) -> String {
    format!("a/{alias}")
}

/// The owner whose top-level path this is.
fn owner_of_path(path: &str) -> Option<Owner> {
    let name = path.strip_prefix("o/")?;
    match name.strip_prefix('@') {
        Some(domain) if !domain.contains('@') => Domain::parse(domain).ok().map(Owner::Domain),
        _ => MailboxKey::from_stored(name).ok().map(Owner::Mailbox),
    }
}

impl EmbeddedStore {
    /// Creates the folder and a store whose keys are wrapped by the KEK in `kek_file`; an existing store is an error.
    pub fn create(folder: &Path, keks: impl Into<KekSources>) -> Result<Self, StoreError> {
        let sources = keks.into();
        let keks = Kek::read_all(&sources)?;
        Self::create_with(folder, sources, keks)
    }

    /// As [`Self::create`], with KEKs that are at hand: the first wraps.
    pub fn create_with(folder: &Path, sources: KekSources, keks: Vec<Kek>) -> Result<Self, StoreError> {
        let kek = keks.first().ok_or_else(|| StoreError::Refused("no key-encryption key is named".to_owned()))?;
        let header = Header::create(kek, Timestamp::now())?;
        let octets = header.encode()?;
        Self::put_new(folder, &Keyring::of(header, octets)?)?;
        Self::open_held(folder, keks::Held::new(sources, keks))
    }

    /// As [`Self::open`], with these KEKs beside those of `sources`.
    pub fn open_with(folder: &Path, sources: KekSources, mut keks: Vec<Kek>) -> Result<Self, StoreError> {
        keks = Kek::read_beside(&sources, keks)?;
        Self::open_held(folder, keks::Held::new(sources, keks))
    }

    /// An empty store with these keys.
    fn put_new(folder: &Path, ring: &Keyring) -> Result<(), StoreError> {
        let at = |error: std::io::Error| StoreError::Io(format!("{}: {error}", folder.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at)?;
        let file = folder.join(FILE);
        if file.exists() {
            return Err(StoreError::Refused(format!("there is a store in {}; it is left as it is", folder.display())));
        }
        // Made whole under another name: a crash leaves no half of a store.
        let draft = folder.join(format!("{FILE}.{}.new", std::process::id()));
        let made = Self::make(&draft, ring)
            .and_then(|()| std::fs::hard_link(&draft, &file).and_then(|()| sync_folder_of(&file)).map_err(at));
        // Only a leftover file could stay behind, and it holds no record.
        drop(std::fs::remove_file(&draft));
        made
    }

    /// Opens this node's copy of a shared store, or makes one; its changes go to etcd, and etcd's come here. In a gateway it answers from the
    /// copy until that is too old; a command waits until it is up to date, and goes on without where etcd does not answer.
    pub fn open_shared(
        folder: &Path,
        keks: impl Into<KekSources>,
        etcd: &Etcd,
        role: Role,
    ) -> Result<Self, StoreError> {
        Self::open_shared_with(folder, keks, Vec::new(), etcd, role)
    }

    /// As [`Self::open_shared`], with `more` KEKs beside those that are configured.
    pub fn open_shared_with(
        folder: &Path,
        keks: impl Into<KekSources>,
        more: Vec<Kek>,
        etcd: &Etcd,
        role: Role,
    ) -> Result<Self, StoreError> {
        let sources = keks.into();
        let keks = Kek::read_beside(&sources, more)?;
        if !Self::exists(folder) {
            let header = etcd::read_header(etcd)?.ok_or_else(|| {
                StoreError::Refused(format!(
                    "there is no store in etcd under {}/; make one with `waxwing store init`, or bring one with `waxwing store migrate --to-etcd`",
                    etcd.prefix
                ))
            })?;
            Self::put_new(folder, &Keyring::open(&Opener::Keks(&keks), &header)?)?;
        }
        let held = |keks| keks::Held::new(sources.clone(), keks);
        let store = match Self::open_held(folder, held(keks.clone())) {
            Err(error @ StoreError::Kek(..)) => {
                // Its keys may have been changed while this node was away.
                if !Self::renew_header(folder, &keks, etcd)? {
                    return Err(error);
                }
                Self::open_held(folder, held(keks))?
            }
            other => other?,
        };
        store.inner.look_for_later()?;
        let shared = Shared::start(&store.inner, etcd, role)?;
        // Nothing was set before: the store was opened here.
        let _ = store.inner.shared.set(shared);
        if role == Role::Command && store.other_processes()?.is_empty() {
            store.inner.leave_nothing_behind()?;
        }
        Ok(store)
    }

    /// The shared store that this one is a copy of.
    pub fn shared(&self) -> Option<&Shared> {
        self.inner.shared.get()
    }

    /// Puts this store into etcd, where there is none under the prefix yet: its header alone.
    pub fn found(&self, etcd: &Etcd) -> Result<bool, StoreError> {
        etcd::put_header(etcd, read_header(&self.inner.db)?)
    }

    /// Records of which the shared store holds none yet: what a store had before it was shared.
    pub fn not_shared_yet(&self) -> Result<Vec<String>, StoreError> {
        self.inner.not_shared_yet()
    }

    /// Whether this is a node's copy of a shared store, which is changed there alone.
    pub fn is_copy(&self) -> Result<bool, StoreError> {
        Ok(self.inner.progress()?.complete)
    }

    /// How many records there are, and a hash of all they say, whatever store holds them.
    pub fn digest(&self) -> Result<(usize, [u8; 32]), StoreError> {
        self.inner.digest()
    }

    /// Copies every record into a new store of its own in `folder`, under the same key-encryption key; `told` hears how many were copied.
    pub fn copy_to(
        &self,
        folder: &Path,
        keks: impl Into<KekSources>,
        told: &mut dyn FnMut(usize),
    ) -> Result<Self, StoreError> {
        let sources = keks.into();
        let header = read_header(&self.inner.db)?;
        if !Self::exists(folder) {
            let keks = Kek::read_all(&sources)?;
            Self::put_new(folder, &Keyring::open(&Opener::Keks(&keks), &header)?)?;
        }
        let copy = Self::open(folder, sources)?;
        if read_header(&copy.inner.db)? != header {
            return Err(StoreError::Refused(format!("{} holds another store", folder.display())));
        }
        let paths = self.inner.shared_paths()?;
        let mut copied = 0;
        for some in paths.chunks(COPIED) {
            copy.inner.take_in(&self.inner.records(some)?, None, true)?;
            copied += some.len();
            told(copied);
        }
        copy.inner.forget_seen()?;
        Ok(copy)
    }

    /// How many records a shared store holds of this one.
    pub fn shared_paths(&self) -> Result<Vec<String>, StoreError> {
        self.inner.shared_paths()
    }

    fn make(draft: &Path, ring: &Keyring) -> Result<(), StoreError> {
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(io)?;
        let db = builder().create(draft).map_err(io)?;
        let transaction = db.begin_write().map_err(io)?;
        transaction.open_table(HEADER).map_err(io)?.insert("header", ring.octets()).map_err(io)?;
        let (root, _) = Record::seal(ring, ROOT, Kind::Root, 0, &Root::default().encode());
        transaction.open_table(RECORDS).map_err(io)?.insert(ROOT, root.as_slice()).map_err(io)?;
        transaction.commit().map_err(io)?;
        db.close().map_err(io)
    }

    /// Whether there is a store in this folder.
    pub fn exists(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Opens a store with whichever KEK fits; where none does, that is an error that says so, and nothing is touched.
    pub fn open(folder: &Path, keks: impl Into<KekSources>) -> Result<Self, StoreError> {
        let sources = keks.into();
        let keks = Kek::read_all(&sources)?;
        Self::open_held(folder, keks::Held::new(sources, keks))
    }

    /// Opens a store with its recovery key.
    pub fn open_for_recovery(folder: &Path, key: RecoveryKey) -> Result<Self, StoreError> {
        Self::open_held(folder, keks::Held::recovery(key))
    }

    /// Opens this node's copy of a shared store with its recovery key, to give the store another KEK.
    pub fn open_shared_for_recovery(folder: &Path, key: RecoveryKey, etcd: &Etcd) -> Result<Self, StoreError> {
        let store = Self::open_held(folder, keks::Held::recovery(key))?;
        let shared = Shared::start(&store.inner, etcd, Role::Command)?;
        let _ = store.inner.shared.set(shared);
        Ok(store)
    }

    fn open_held(folder: &Path, held: keks::Held) -> Result<Self, StoreError> {
        let file = folder.join(FILE);
        if !file.exists() {
            return Err(StoreError::Refused(format!(
                "there is no store in {0}; make one with `waxwing kek init FILE --store {0}`, or by importing with `waxwing cert import`",
                folder.display()
            )));
        }
        let name = file.display().to_string();
        let at = |error: redb::DatabaseError| StoreError::Io(format!("{name}: {error}"));
        let (db, ring) = guarded(&name, || {
            // Reading only, so that a wrong KEK changes nothing; a file that wants repair after a crash is opened for it below.
            if let Ok(reader) = builder().open_read_only(&file) {
                read_stored(&reader)?.open(&held.opener())?;
            }
            let db = builder().open(&file).map_err(at)?;
            let ring = read_stored(&db)?.open(&held.opener())?;
            Ok((db, ring))
        })?;
        Self::start(folder, db, ring, held)
    }

    fn start(folder: &Path, db: Database, ring: Keyring, held: keks::Held) -> Result<Self, StoreError> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let inner = Arc::new(Inner {
            db,
            folder: folder.to_owned(),
            header_floor: AtomicU64::new(ring.header.revision),
            ring: RwLock::new(Arc::new(ring)),
            keks: Mutex::new(held),
            presence: Mutex::new(None),
            alerts: Alerts::default(),
            root: RwLock::new(None),
            floor: AtomicU64::new(0),
            seen: Mutex::new(0),
            identities: GuardedCache::new(IDENTITIES),
            keys: GuardedCache::new(KEYS),
            aliases: DashMap::new(),
            aliases_whole: AtomicBool::new(false),
            trust: RwLock::new(Ok(Arc::new(TrustSet::default()))),
            events: broadcast::channel(1024).0,
            pool: Arc::new(Semaphore::new(cores)),
            shared: OnceLock::new(),
            later: seen::Later::default(),
            witness: OnceLock::new(),
            resealed: Mutex::new(None),
            #[cfg(test)]
            before_fill: Mutex::new(None),
            #[cfg(test)]
            disk_full: AtomicBool::new(false),
        });
        {
            let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = inner.read(|view| Ok(view.root.generation))?;
            inner.reload_all();
        }
        inner.be_present();
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new().name("store-follow".to_owned()).spawn(move || follow_others(&weak)).map_err(io)?;
        Ok(Self { inner })
    }

    /// What the copy of a shared store is taken in by, for the tests of that.
    #[cfg(test)]
    pub(in crate::store) fn copy(&self) -> (&Arc<Inner>, &AtomicBool) {
        (&self.inner, &self.inner.disk_full)
    }

    /// Alerts so far: records found missing or not authentic.
    pub fn alerts(&self) -> u64 {
        self.inner.alerts.count()
    }

    /// Looks for changes by other processes now, in place of within half a second.
    pub fn refresh(&self) -> Result<(), StoreError> {
        self.inner.follow()
    }

    /// Checks every record; the paths of those missing, not authentic, or named by nothing. Each raises an alert.
    pub fn verify(&self) -> Result<Vec<String>, StoreError> {
        self.inner.verify()
    }
}

fn read_header(db: &impl ReadableDatabase) -> Result<Vec<u8>, StoreError> {
    read_stored(db).map(|stored| stored.header)
}

fn read_stored(db: &impl ReadableDatabase) -> Result<Stored, StoreError> {
    let table = db.begin_read().map_err(io)?.open_table(HEADER).map_err(io)?;
    stored_in(&table)
}

/// The header as it is stored, and beside it the keys that a copy of a shared store still has records under.
struct Stored {
    header: Vec<u8>,
    left: Option<Vec<u8>>,
}

impl Stored {
    fn open(&self, opener: &Opener<'_>) -> Result<Keyring, StoreError> {
        Keyring::open(opener, &self.header)?.with_left(opener, self.left.as_deref())
    }
}

fn stored_in<T: ReadableTable<&'static str, &'static [u8]>>(table: &T) -> Result<Stored, StoreError> {
    let header = table.get("header").map_err(io)?;
    let header = header.ok_or_else(|| StoreError::Io("has no header and is no store".to_owned()))?;
    let left = table.get(LEFT).map_err(io)?;
    Ok(Stored { header: header.value().to_vec(), left: left.map(|octets| octets.value().to_vec()) })
}

/// The header in this snapshot, where it is not that of these keys.
fn stored_header<T: ReadableTable<&'static str, &'static [u8]>>(
    table: &T,
    known: &Keyring,
) -> Result<Option<Stored>, StoreError> {
    let (header, left) = (table.get("header").map_err(io)?, table.get(LEFT).map_err(io)?);
    let same = header.is_some_and(|octets| known.is_of(octets.value(), left.as_ref().map(|octets| octets.value())));
    if same { Ok(None) } else { stored_in(table).map(Some) }
}

/// Checks every record once, then follows; a command is done before this begins.
fn follow_others(weak: &Weak<Inner>) {
    std::thread::sleep(POLL);
    if let Some(inner) = weak.upgrade() {
        match inner.verify() {
            Ok(bad) if bad.is_empty() => tracing::debug!("every record of the store is authentic"),
            Ok(bad) => tracing::error!(records = bad.len(), "records of the store are missing or not authentic"),
            Err(error) => tracing::error!(%error, "the store cannot be checked"),
        }
    }
    loop {
        std::thread::sleep(POLL);
        let Some(inner) = weak.upgrade() else { return };
        if let Err(error) = inner.follow() {
            tracing::error!(%error, "the store cannot be followed");
        }
        inner.be_present();
    }
}

impl Inner {
    /// Reads within one transaction, against a root that was checked.
    fn read<R>(&self, body: impl FnOnce(&View<'_, Records>) -> Result<R, StoreError>) -> Result<R, StoreError> {
        guarded("store", || {
            // Taken before the snapshot: another thread's newer root must not make this one look old.
            let (floor, header_floor) = (self.floor.load(Ordering::Acquire), self.header_floor.load(Ordering::Acquire));
            let transaction = self.db.begin_read().map_err(io)?;
            let ring = self.ring_in(&transaction.open_table(HEADER).map_err(io)?, header_floor)?;
            let table = transaction.open_table(RECORDS).map_err(io)?;
            let root = self.checked_root(&table, &ring, floor)?;
            body(&View { table: &table, ring: &ring, alerts: &self.alerts, root, reads: None })
        })
    }

    fn checked_root<T: ReadableTable<&'static str, &'static [u8]>>(
        &self,
        table: &T,
        ring: &Keyring,
        floor: u64,
    ) -> Result<Arc<Root>, StoreError> {
        let known = self.root.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (mac, root) = read_root(table, ring, &self.alerts, floor, known.as_ref())?;
        if known.is_none_or(|(known, _)| known != mac) {
            self.floor.fetch_max(root.generation, Ordering::AcqRel);
            *self.root.write().unwrap_or_else(PoisonError::into_inner) = Some((mac, Arc::clone(&root)));
        }
        Ok(root)
    }

    /// Makes a change durable, or none at all. `body` may be asked again, where others changed what it looked at.
    fn write<R>(&self, mut body: impl FnMut(&mut Change<'_, '_>) -> Result<R, StoreError>) -> Result<R, StoreError> {
        let Some(witness) = self.witness.get() else { return self.write_unseen(body) };
        witness.works()?;
        let mut told = Vec::new();
        let result = self.write_unseen(|change| {
            let result = body(change)?;
            told = audited::told(change)?;
            Ok(result)
        })?;
        let untold =
            |error| StoreError::Unavailable(format!("the change is made, and could not be written down: {error}"));
        witness.tell(&told).map_err(untold)?;
        Ok(result)
    }

    fn write_unseen<R>(
        &self,
        mut body: impl FnMut(&mut Change<'_, '_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        match self.shared.get() {
            Some(shared) => shared.write(self, &mut body),
            None => self.write_here(true, body),
        }
    }

    /// The same in this file alone. `alone`: it must not be the copy of a shared store.
    fn write_here<R>(
        &self,
        alone: bool,
        mut body: impl FnMut(&mut Change<'_, '_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let result = guarded("store", || {
            let transaction = self.db.begin_write().map_err(io)?;
            // Nobody else writes now, so what is there is the newest: a record is never sealed by a key that was retired meanwhile.
            let header_floor = self.header_floor.load(Ordering::Acquire);
            let ring = self.ring_in(&transaction.open_table(HEADER).map_err(io)?, header_floor)?;
            let table = transaction.open_table(RECORDS).map_err(io)?;
            if alone && self.is_copy(&transaction)? {
                return Err(StoreError::Refused(
                    "this is a node's copy of a shared store, and is changed there alone: name the configuration with [etcd] in place of --store"
                        .to_owned(),
                ));
            }
            let root = self.checked_root(&table, &ring, self.floor.load(Ordering::Acquire))?;
            let mut change = Change::new(table, &ring, &self.alerts, root);
            let result = body(&mut change)?;
            if change.is_empty() {
                drop(change);
                transaction.abort().map_err(io)?;
            } else {
                change.finish()?;
                transaction.commit().map_err(io)?;
            }
            Ok(result)
        })?;
        // The change is durable whatever comes of following it; without that no copy can be trusted.
        if let Err(error) = self.follow() {
            tracing::error!(%error, "the store cannot be followed");
            self.reload_all();
        }
        Ok(result)
    }

    /// Drops the copies that changes since the last time concern, and tells subscribers. Where that cannot be known, drops all.
    fn follow(&self) -> Result<(), StoreError> {
        let followed = self.follow_changes();
        if matches!(followed, Err(StoreError::Kek(..) | StoreError::Later(_))) {
            // Every use says so from now on, and nothing is answered from what was true once.
            self.reload_all();
        }
        followed
    }

    fn follow_changes(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, changes) = self.read(|view| {
            let generation = view.root.generation;
            if generation.saturating_sub(*seen) > LOG_LENGTH {
                return Ok((generation, None));
            }
            let change = |at| {
                let record = view
                    .loose(&log_path(at))
                    .ok()
                    .flatten()
                    .filter(|record| record.kind == Kind::Change && record.generation == at)?;
                ChangeValue::decode(&record.value)
            };
            Ok((generation, (seen.saturating_add(1)..=generation).map(change).collect::<Option<Vec<_>>>()))
        })?;
        if generation == *seen {
            return Ok(());
        }
        match changes {
            Some(changes) => changes.iter().for_each(|change| self.apply(change)),
            None => self.reload_all(),
        }
        *seen = generation;
        Ok(())
    }

    fn apply(&self, change: &ChangeValue) {
        if change.keys_removed {
            self.keys.clear();
        }
        for path in &change.paths {
            let event = if path == TRUST {
                self.reload_trust();
                ChangeEvent::Trust
            } else if let Some(owner) = owner_of_path(path) {
                self.identities.invalidate(&owner);
                ChangeEvent::Owner(owner)
            } else if let Some(alias) = path.strip_prefix("a/").and_then(|name| MailboxKey::from_stored(name).ok()) {
                self.reload_alias(path, &alias);
                ChangeEvent::Owner(Owner::Mailbox(alias))
            } else {
                continue;
            };
            // Nobody listening is no error.
            let _ = self.events.send(event);
        }
    }

    fn reload_all(&self) {
        self.identities.clear();
        self.keys.clear();
        self.reload_trust();
        self.reload_aliases();
        let _ = self.events.send(ChangeEvent::All);
    }

    /// Reads all aliases anew. Until that is done, and where some cannot be listed, [`Self::resolve`] asks the file: an alias that
    /// is not known here must not be taken for a mailbox without certificates.
    fn reload_aliases(&self) {
        self.aliases_whole.store(false, Ordering::Release);
        let (tops, whole) = match self.read(|view| Ok(view.tops("a/"))) {
            Ok((tops, errors)) => (tops, errors.is_empty()),
            Err(error) => {
                tracing::error!(%error, "the aliases cannot be read");
                return;
            }
        };
        let named = |path: &str| path.strip_prefix("a/").and_then(|name| MailboxKey::from_stored(name).ok());
        let known: HashSet<MailboxKey> = tops.iter().filter_map(|(path, _)| named(path)).collect();
        if whole {
            self.aliases.retain(|alias, _| known.contains(alias));
        }
        known.iter().for_each(|alias| self.reload_alias(&alias_path(alias), alias));
        self.aliases_whole.store(whole, Ordering::Release);
    }

    fn reload_alias(&self, path: &str, alias: &MailboxKey) {
        match self.read(|view| view.top(path)) {
            Ok(record) => match record.filter(|record| record.kind == Kind::Alias) {
                Some(record) => drop(self.aliases.insert(alias.clone(), alias_target(record))),
                None => drop(self.aliases.remove(alias)),
            },
            Err(_) => drop(self.aliases.insert(alias.clone(), None)),
        }
        self.identities.invalidate(&Owner::Mailbox(alias.clone()));
    }

    fn reload_trust(&self) {
        let set = self.read(read_trust).map(Arc::new);
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = set;
    }

    /// The shared store, where there is one.
    pub(super) fn shared(&self) -> Option<&Shared> {
        self.shared.get()
    }

    /// The keys as they were seen last.
    pub(super) fn ring(&self) -> Arc<Keyring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fails where this is a copy that is too old to answer from.
    fn answers(&self) -> Result<(), StoreError> {
        self.shared.get().and_then(Shared::too_old).map_or(Ok(()), Err)
    }

    /// The decoded identity of an owner that is no alias.
    fn identity(&self, owner: Owner) -> Result<Arc<Identity>, StoreError> {
        self.answers()?;
        if !self.later.is_empty() {
            let path = owner_path(&owner);
            self.understands(|one| one == path)?;
        }
        if let Some(identity) = self.identities.get(&owner) {
            return Ok(identity);
        }
        let ticket = self.identities.begin(&owner);
        let identity = Arc::new(self.read(|view| read_identity(view, &owner))?);
        #[cfg(test)]
        if let Some(hook) = self.before_fill.lock().unwrap().take() {
            hook();
        }
        self.identities.fill(&owner, Arc::clone(&identity), ticket);
        Ok(identity)
    }
}

/// The file of the store in a folder.
pub fn file_of(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

#[cfg(test)]
mod tests;

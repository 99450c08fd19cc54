//! Accepted mail on disk until it is handed over: an append log of segments with group commit, behind a `Disk` trait.
//!
//! An entry is one output: one content for the recipients of one next hop. Its states, what makes each step durable and what a crash in
//! it leaves stand in the table of `docs/overview.md`; a test walks every edge of it.
//!
//! In the folder: `NUMBER.log` segments, `ID.body` big contents, `keys` (see `seal`), `reserve` (see `writer`), `identity` and `adopted`
//! (see `adopt`), `lock`. What is unfinished says so in its name and is removed at start.

/// Taking over another spool.
mod adopt;
/// Taking mail: room, contents, deadline.
mod commit;
/// Old segments go.
mod compact;
/// The disk under the spool.
pub mod disk;
/// Entries and what they are made of.
mod entry;
/// What is known in memory.
mod index;
/// Pages and sums.
mod list;
/// What was committed a moment ago.
mod recent;
/// Records of the log.
mod record;
/// Reading the log at start.
mod recover;
/// The records of a segment.
mod scan;
/// Sealing at rest.
mod seal;
/// The thread that writes the log.
mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::store::keyring::SpoolKeks;
pub use adopt::Adopted;
use adopt::Mark;
use commit::{Order, Promised, Transaction};
pub use disk::{Disk, Folder};
pub use entry::{BY_HAND, Entry, EntryId, NewEntry, Origin, Outcome, RecipientState, SpooledRecipient, Treatment};
use index::{Body, Index, Slot};
pub use list::{EntryState, Filter, HopStats, Listed, Page, Stats, Sum};
pub use record::fuzz_spool_record;
use record::{Change, Settlement, sha256};
use seal::{EntrySealer, Keys};

/// Bounds of the spool.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Octets after which a new segment is begun; default 64 MiB.
    pub segment: u64,
    /// Octets of a content up to which it lies in the log; default 1 MiB, at most 64 MiB.
    pub inline: usize,
    /// Octets of mail, and a KiB for each entry, beyond which no more is taken; default: no bound. What becomes of mail that is here
    /// (outcomes, DSNs, what takes the place of an entry) is recorded nevertheless.
    pub quota: u64,
    /// Entries beyond which no more mail is taken; default: no bound.
    pub entries: u64,
    /// Octets kept on the disk for outcomes and DSNs when it is full; default 4 MiB.
    pub reserve: u64,
    /// How long a commit may take before the mail is refused; default 30 s.
    pub commit: Duration,
    /// How often a disk in trouble is tried; default 1 s.
    pub probe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment: 64 << 20,
            inline: 1 << 20,
            quota: u64::MAX,
            entries: u64::MAX,
            reserve: 4 << 20,
            commit: Duration::from_secs(30),
            probe: Duration::from_secs(1),
        }
    }
}

/// What was found at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Live entries, held ones too.
    pub entries: usize,
    /// Octets of torn records at the ends of segments: never acknowledged, dropped.
    pub torn: u64,
    /// Damage in what had been acknowledged; the rest was recovered.
    pub damage: Vec<String>,
}

/// Why the spool did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// The disk: nothing was acknowledged; 452 4.3.1.
    #[error("spool: {0}")]
    Disk(String),
    /// Over the quota: 452 4.3.1.
    #[error(
        "spool: full: {found} {what}, at most {limit}; deliver or delete some, or raise [spool] in the configuration"
    )]
    Full {
        /// How many there are.
        found: u64,
        /// How many there may be.
        limit: u64,
        /// Entries or octets.
        what: &'static str,
    },
    /// The disk did not answer in time: 451 4.3.0. What was asked is not done.
    #[error("spool: the disk did not answer in time; nothing was taken")]
    Late,
    /// The keys that seal contents at rest.
    #[error("spool: {0}")]
    Keys(String),
    /// It was taken over by another spool, whose name this is.
    #[error("spool: it was taken over by the spool {0}; give this node a new, empty folder")]
    Adopted(String),
    /// No such entry.
    #[error("spool: no entry {0}")]
    NoEntry(EntryId),
    /// An entry's content is not what was written.
    #[error("spool: the content of {0} is damaged on disk; look at the disk, then remove the entry")]
    Damaged(EntryId),
    /// Somebody held or released it since it was looked at.
    #[error("spool: {0} was held or released meanwhile")]
    Changed(EntryId),
    /// It is held: it is released, not tried again.
    #[error("spool: {0} is held; release it")]
    Held(EntryId),
    /// Outbound mail as submitted: it may not leave before policy has treated it.
    #[error("spool: {0} was never treated by policy and cannot leave as it is")]
    Untreated(EntryId),
    /// The spool is closed.
    #[error("spool: closed")]
    Closed,
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        SpoolError::Disk(error.to_string())
    }
}

/// The spool. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    limits: Limits,
    index: Mutex<Index>,
    /// `None`: nothing is sealed at rest.
    keys: RwLock<Option<Keys>>,
    /// Room of commits under way.
    promised: Promised,
    /// The disk works, as far as is known.
    works: AtomicBool,
    trouble: Mutex<Option<String>>,
    /// No damage was found at start, or it was taken note of.
    sound: AtomicBool,
    damage: Option<String>,
    last_id: AtomicU64,
    changed: Notify,
}

impl Spool {
    /// Opens the spool and recovers what is in it. Nothing is sealed at rest; contents that are sealed are an error.
    pub fn open(disk: Arc<dyn Disk>, limits: Limits) -> Result<(Self, Recovered), SpoolError> {
        Self::open_with(disk, limits, None)
    }

    /// Opens the spool and recovers what is in it. From now on every content that is not encrypted by itself is sealed at rest, by
    /// keys that `keks` wrap; none is written in clear.
    pub fn open_sealed(
        disk: Arc<dyn Disk>,
        limits: Limits,
        keks: impl Into<SpoolKeks>,
    ) -> Result<(Self, Recovered), SpoolError> {
        Self::open_with(disk, limits, Some(&keks.into()))
    }

    fn open_with(
        disk: Arc<dyn Disk>,
        limits: Limits,
        kek: Option<&SpoolKeks>,
    ) -> Result<(Self, Recovered), SpoolError> {
        if let Some(mark) = Mark::read(disk.as_ref())? {
            return Err(SpoolError::Adopted(mark.name()));
        }
        let found = recover::recover(disk.as_ref())?;
        let keys = kek.map(|kek| Keys::open(disk.as_ref(), kek)).transpose()?;
        let has = |name: &[u8; 16]| keys.as_ref().is_some_and(|keys| keys.has(name));
        if let Some(name) = found.index.sealing_keys().into_iter().find(|name| !has(name)) {
            return Err(SpoolError::Keys(format!(
                "mail is sealed with key {:032x}, which {}",
                u128::from_be_bytes(name),
                if kek.is_some() { "is not in the spool's file of keys" } else { "needs the key-encryption key" }
            )));
        }
        let damage = (!found.recovered.damage.is_empty()).then(|| found.recovered.damage.join("; "));
        let shared = Arc::new(Shared {
            disk,
            limits,
            last_id: AtomicU64::new(found.last_id),
            index: Mutex::new(found.index),
            keys: RwLock::new(keys),
            promised: Promised::default(),
            works: AtomicBool::new(true),
            trouble: Mutex::new(None),
            sound: AtomicBool::new(damage.is_none()),
            damage,
            changed: Notify::new(),
        });
        let orders = writer::start(Arc::clone(&shared), found.end, &found.damaged)?;
        Ok((Self { shared, orders }, found.recovered))
    }

    /// Makes a new key; what is spooled from now on is sealed with it. Keys that seal nothing any more are forgotten.
    pub async fn rotate_key(&self, keks: impl Into<SpoolKeks>) -> Result<(), SpoolError> {
        let (shared, keks) = (Arc::clone(&self.shared), keks.into());
        blocking(move || {
            let mut keys = shared.keys.write().unwrap_or_else(PoisonError::into_inner);
            let Some(keys) = keys.as_mut() else {
                return Err(SpoolError::Keys("nothing is sealed in this spool".into()));
            };
            let used = lock(&shared.index).sealing_keys();
            let mut new = keys.clone();
            new.add()?;
            // Those that commits under way seal with are the one that was current.
            new.retain(|name| used.contains(name) || keys.is_current(name));
            new.write(shared.disk.as_ref(), &keks)?;
            *keys = new;
            Ok(())
        })
        .await
    }

    /// Wraps the keys by these, unless they are wrapped so.
    pub async fn rewrap_keys(&self, keks: impl Into<SpoolKeks>) -> Result<(), SpoolError> {
        let (shared, keks) = (Arc::clone(&self.shared), keks.into());
        blocking(move || {
            let mut keys = shared.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.as_mut().map_or(Ok(()), |keys| keys.rewrap(shared.disk.as_ref(), &keks))
        })
        .await
    }

    /// The entries that are due and not claimed or held, oldest first.
    pub fn due(&self, now: Timestamp) -> Vec<Arc<Entry>> {
        let index = lock(&self.shared.index);
        let mut due: Vec<_> = index.due.values().flatten().filter(|(at, _)| *at <= now).collect();
        due.sort();
        due.into_iter().filter_map(|(_, id)| index.slots.get(id)).map(|slot| Arc::clone(&slot.entry)).collect()
    }

    /// Claims due entries, at most `room(first)` for each next hop, `first` being its first that is due; a claimed entry is not due until it is settled or given back.
    pub fn claim(&self, now: Timestamp, mut room: impl FnMut(&Entry) -> usize) -> Vec<Arc<Entry>> {
        let mut index = lock(&self.shared.index);
        let mut taken = Vec::new();
        for queue in index.due.values() {
            let mut ready =
                queue.iter().take_while(|(at, _)| *at <= now).filter_map(|(_, id)| index.slots.get(id)).peekable();
            if let Some(first) = ready.peek() {
                let count = room(&first.entry);
                taken.extend(ready.take(count).map(|slot| Arc::clone(&slot.entry)));
            }
        }
        index.claim(&taken);
        taken
    }

    /// Claims waiting entries whether due or not, at most so many: those that are late or have expired, and those that a clock that was
    /// wrong put off. `out_of_time` is asked under the index's lock.
    pub fn claim_out_of_time(&self, most: usize, out_of_time: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let mut index = lock(&self.shared.index);
        let waiting = index.slots.values().filter(|slot| slot.may_go());
        let taken: Vec<_> =
            waiting.filter(|slot| out_of_time(&slot.entry)).take(most).map(|slot| Arc::clone(&slot.entry)).collect();
        index.claim(&taken);
        taken
    }

    /// Gives a claimed entry back unchanged.
    pub fn give_back(&self, id: EntryId) {
        let mut index = lock(&self.shared.index);
        if let Some(slot) = index.slots.get_mut(&id).filter(|slot| slot.claimed) {
            slot.claimed = false;
            let entry = Arc::clone(&slot.entry);
            index.queue(&entry);
        }
        drop(index);
        self.shared.changed.notify_one();
    }

    /// When the next entry falls due; `None`: nothing waits.
    pub fn next_due(&self) -> Option<Timestamp> {
        lock(&self.shared.index).due.values().filter_map(|queue| queue.first()).map(|(at, _)| *at).min()
    }

    /// Waits until entries came or were changed.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// An entry's content: as it was committed a moment ago, else from the disk and checked against its digest.
    pub async fn content(&self, id: EntryId) -> Result<Bytes, SpoolError> {
        if let Some(content) = lock(&self.shared.index).take_recent(id)? {
            return Ok(content);
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.content(id)).await
    }

    /// Records what became of an attempt, together with new entries; ends the claim. An entry without recipients that wait is done,
    /// or held if some are stuck or quarantined. A hold that came while the delivery was under way holds what is left. Where the entry is
    /// not there any more, nothing follows.
    pub async fn settle(&self, id: EntryId, outcome: Outcome) -> Result<(), SpoolError> {
        self.entry(id).ok_or(SpoolError::NoEntry(id))?;
        let mut transaction = Transaction::only_if(id);
        let Outcome { recipients, next_attempt, delay_told, new_entries } = outcome;
        let left = |state: RecipientState| state.waits() || state.is_kept();
        transaction.change(if recipients.iter().any(|(state, _)| left(*state)) {
            Change::Settled(id, Settlement { next_attempt, delay_told, recipients })
        } else {
            Change::Done(id)
        });
        self.stage(&mut transaction, new_entries, Timestamp::now()).await?;
        self.send(transaction).await
    }

    /// Ends an entry.
    pub async fn done(&self, id: EntryId) -> Result<(), SpoolError> {
        self.entry(id).ok_or(SpoolError::NoEntry(id))?;
        self.record(id, Change::Done(id)).await
    }

    /// Removes an entry, whatever its state; nobody is told. A delivery that is under way goes on, and nothing follows from it.
    pub async fn delete(&self, id: EntryId) -> Result<(), SpoolError> {
        self.done(id).await
    }

    /// Holds an entry: it is not delivered until released. A delivery that is under way goes on; what it leaves is held. The claim
    /// stays with who has it: see [`Spool::give_back`].
    pub async fn hold(&self, id: EntryId, why: &str) -> Result<(), SpoolError> {
        self.entry(id).ok_or(SpoolError::NoEntry(id))?;
        self.record(id, Change::Held(id, why.to_owned())).await
    }

    /// As [`Spool::hold`], where it is still held as `entry` says.
    pub async fn hold_as(&self, entry: &Entry, why: &str) -> Result<(), SpoolError> {
        let mut transaction = Transaction::only_as(entry);
        transaction.change(Change::Held(entry.id, why.to_owned()));
        self.send(transaction).await
    }

    /// Releases a held entry: due at once, its stuck recipients too. Outbound mail that policy has not treated is refused: it goes
    /// by [`Spool::replace`].
    pub async fn release(&self, id: EntryId) -> Result<(), SpoolError> {
        let entry = self.entry(id).ok_or(SpoolError::NoEntry(id))?;
        if entry.treatment == Treatment::AsSubmitted {
            return Err(SpoolError::Untreated(id));
        }
        self.record(id, Change::Released(id, Timestamp::now())).await
    }

    /// Makes a waiting entry due at once; a held one is refused.
    pub async fn retry(&self, id: EntryId) -> Result<(), SpoolError> {
        let entry = self.entry(id).ok_or(SpoolError::NoEntry(id))?;
        if !entry.may_go() {
            return Err(SpoolError::Held(id));
        }
        self.record(id, Change::Retried(id, Timestamp::now())).await
    }

    /// Ends an entry and commits what takes its place, in one record: all of it or nothing (held outbound mail that was treated
    /// anew). On return it is on disk. An entry that meanwhile ended, or is not held as `entry` says any more, is an error, and nothing
    /// takes its place: the word that came last holds.
    pub async fn replace(&self, entry: &Entry, entries: Vec<NewEntry>) -> Result<Vec<EntryId>, SpoolError> {
        let id = entry.id;
        let adopting = {
            let index = lock(&self.shared.index);
            index.slots.get(&id).ok_or(SpoolError::NoEntry(id))?.adopting.is_some()
        };
        // On its way here from another spool, which may still have it.
        if adopting {
            return Err(SpoolError::Held(id));
        }
        let mut transaction = Transaction::only_as(entry);
        transaction.change(Change::Done(id));
        let ids = self.stage(&mut transaction, entries, Timestamp::now()).await?;
        self.send(transaction).await?;
        Ok(ids)
    }

    /// Whether mail can be taken (R7): the disk works and the log was sound at start.
    pub fn is_healthy(&self) -> bool {
        self.shared.works.load(Ordering::Acquire) && self.shared.sound.load(Ordering::Acquire)
    }

    /// What the trouble is.
    pub fn trouble(&self) -> Option<String> {
        let damage = || self.shared.damage.clone().filter(|_| !self.shared.sound.load(Ordering::Acquire));
        lock(&self.shared.trouble).clone().or_else(damage)
    }

    /// Takes note of damage that was found at start, so that mail is taken again.
    pub fn accept_damage(&self) {
        self.shared.sound.store(true, Ordering::Release);
    }
}

impl Shared {
    /// What seals the content of a new entry, if it is to be.
    fn sealer(&self, entry: &Entry) -> Result<Option<EntrySealer>, SpoolError> {
        match self.keys.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(keys) if !entry.encrypted => keys.sealer(entry.id).map(Some),
            _ => Ok(None),
        }
    }

    fn content(&self, id: EntryId) -> Result<Bytes, SpoolError> {
        let mut tries = 3;
        loop {
            tries -= 1;
            let slot = lock(&self.index).slots.get(&id).cloned().ok_or(SpoolError::NoEntry(id))?;
            let octets = match slot.body {
                Body::Log { offset, len } => self.disk.read(&segment_name(slot.segment), offset, len),
                Body::File { len } => self.disk.read(&body_name(id), 0, usize::try_from(len).unwrap_or(usize::MAX)),
            };
            match octets {
                // Compaction may have moved it between look-up and reading.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                    return Err(SpoolError::Damaged(id));
                }
                Err(error) => return Err(error.into()),
                Ok(octets) => return self.opened(&slot, octets).map(Bytes::from).ok_or(SpoolError::Damaged(id)),
            }
        }
    }

    /// The content that was stored; `None`: what is on disk is not that.
    fn opened(&self, slot: &Slot, octets: Vec<u8>) -> Option<Vec<u8>> {
        match slot.sealing {
            None => (sha256(&octets) == slot.digest).then_some(octets),
            // What seals it authenticates it.
            Some(sealing) => self.keys.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.open_content(
                slot.entry.id,
                sealing,
                octets,
            ),
        }
    }

    fn set_trouble(&self, trouble: Option<String>) {
        match &trouble {
            Some(what) => tracing::error!(%what, "spool in trouble: no mail is taken"),
            None => tracing::info!("spool works"),
        }
        self.works.store(trouble.is_none(), Ordering::Release);
        *lock(&self.trouble) = trouble;
    }
}

fn segment_name(number: u64) -> String {
    format!("{number:016x}.log")
}

fn body_name(id: EntryId) -> String {
    format!("{id}.body")
}

fn unfinished_name(id: EntryId) -> String {
    format!("{id}.unfinished")
}

/// What an entry counts for in the quota, and in a segment.
fn entry_octets(size: u64) -> u64 {
    size.saturating_add(1024)
}

fn octets(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(SpoolError::Closed))
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

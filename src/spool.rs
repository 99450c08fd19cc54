//! Accepted mail on disk until it is handed over: an append log of segments with group commit, behind a `Disk` trait.
//!
//! An entry is one output: one content for the recipients of one next hop. Its states, and what makes each step durable:
//!
//! | from | on | to | durable by |
//! |---|---|---|---|
//! | – | `commit` | waiting | body file: written, synced, renamed, folder synced; then the record, synced. All entries of one call in one record: all or none |
//! | – | crash before the record is synced | – | nothing was acknowledged; a torn record is dropped, an orphaned body file removed |
//! | waiting | `claim` | claimed | nothing: after a crash it is waiting again |
//! | claimed | `settle` with recipients left | waiting, later | one synced record, together with a DSN's entry |
//! | claimed | `settle`, recipients that failed without a DSN | held | the same |
//! | waiting, claimed | `hold` | held | one synced record |
//! | held | `release` | waiting | one synced record |
//! | any | `done` | gone | one synced record; then the body file is removed |
//! | any, in the oldest segment | compaction | as before | the entry rewritten and synced, then the old segment removed |
//! | any | EIO, ENOSPC | unhealthy: commits fail at once, changes wait | a probe every second; then a new segment |
//!
//! Segments are removed from the oldest on only, so that a record that ends an entry never goes before the one that began it.

/// The disk under the spool.
pub mod disk;
/// Records of the log.
mod record;
/// Reading the log at start.
mod recover;
/// The thread that writes the log.
mod writer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use aws_lc_rs::digest;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};

use crate::address::ReversePath;
use crate::config::{Direction, NextHop};
use crate::mime::rope::Rope;
use crate::smtp::command::{Envelope, MailParameters, Recipient};
pub use disk::{Disk, Folder};
pub use record::fuzz_spool_record;
use record::{BodyAt, Change, Digest, Payload, State, sha256, to_digest};

/// Octets of one transaction beyond which contents get files of their own.
const TRANSACTION: usize = 16 << 20;

/// Bounds of the log.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Octets after which a new segment is begun; default 64 MiB.
    pub segment: u64,
    /// Octets of a content up to which it lies in the log; default 1 MiB, at most 64 MiB.
    pub inline: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment: 64 << 20, inline: 1 << 20 }
    }
}

/// An entry's name: unique, later ones greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(u64);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for EntryId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// What the content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// The finished octets: sent as they are, never sealed anew (R5).
    Finished,
    /// The octets as received: opened again at each delivery (no decrypted mail on disk).
    AsReceived,
}

/// Where a recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientState {
    /// To be delivered.
    Waiting,
    /// Taken by the next hop.
    Delivered,
    /// Failed for good, and all that is to follow from it has been done.
    Failed,
    /// Failed for good where nobody may be told: the entry is held for a person to look at.
    Stuck,
}

impl RecipientState {
    fn number(self) -> u8 {
        match self {
            RecipientState::Waiting => 0,
            RecipientState::Delivered => 1,
            RecipientState::Failed => 2,
            RecipientState::Stuck => 3,
        }
    }
    fn from_number(number: u8) -> Option<Self> {
        [Self::Waiting, Self::Delivered, Self::Failed, Self::Stuck].get(usize::from(number)).copied()
    }
}

/// A recipient of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledRecipient {
    /// The forward-path and its parameters.
    pub recipient: Recipient,
    /// Where it stands.
    pub state: RecipientState,
    /// The last answer or error.
    pub last: Option<String>,
}

/// An output to be spooled.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Reverse-path, parameters, recipients (of this next hop).
    pub envelope: Envelope,
    /// Where it goes.
    pub next_hop: NextHop,
    /// Which way.
    pub direction: Direction,
    /// What the content is.
    pub treatment: Treatment,
    /// A private key was tried on it: it was answered 250 whatever comes, so nothing may tell of a failure outside (A4).
    pub private_key_tried: bool,
    /// The content.
    pub content: Rope,
    /// When it is due; `None`: at once.
    pub next_attempt: Option<Timestamp>,
    /// Why it is held (quarantine), if it is.
    pub held: Option<String>,
}

/// An entry without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// Who hears of failures.
    pub reverse_path: ReversePath,
    /// Parameters of MAIL.
    pub parameters: MailParameters,
    /// All recipients, those dealt with too.
    pub recipients: Vec<SpooledRecipient>,
    /// Where it goes.
    pub next_hop: NextHop,
    /// Which way.
    pub direction: Direction,
    /// What the content is.
    pub treatment: Treatment,
    /// See [`NewEntry::private_key_tried`].
    pub private_key_tried: bool,
    /// Deliveries tried.
    pub attempts: u32,
    /// When the next is due.
    pub next_attempt: Timestamp,
    /// When it was committed.
    pub created: Timestamp,
    /// Why it is held, if it is: a held entry is never due.
    pub held: Option<String>,
    /// Octets of the content.
    pub size: u64,
}

impl Entry {
    /// The envelope of what is still to be delivered.
    pub fn remaining(&self) -> Envelope {
        let waiting = self.recipients.iter().filter(|one| one.state == RecipientState::Waiting);
        let recipients = waiting.map(|one| one.recipient.clone()).collect();
        Envelope { reverse_path: self.reverse_path.clone(), parameters: self.parameters.clone(), recipients }
    }
}

/// What became of an attempt: the recipients in the entry's order.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// New state and last answer of each recipient.
    pub recipients: Vec<(RecipientState, Option<String>)>,
    /// When those that wait are tried again.
    pub next_attempt: Timestamp,
    /// Entries to be committed with it, in the same record: a DSN.
    pub new_entries: Vec<NewEntry>,
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
    /// No such entry.
    #[error("spool: no entry {0}")]
    NoEntry(EntryId),
    /// An entry's content is not what was written.
    #[error("spool: the content of {0} is damaged on disk; look at the disk, then remove the entry")]
    Damaged(EntryId),
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
    jobs: mpsc::Sender<Job>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    limits: Limits,
    index: Mutex<Index>,
    /// The disk works, as far as is known.
    works: AtomicBool,
    trouble: Mutex<Option<String>>,
    /// No damage was found at start, or it was taken note of.
    sound: AtomicBool,
    damage: Option<String>,
    last_id: AtomicU64,
    changed: Notify,
}

/// One transaction on its way to the writer.
struct Job {
    payload: Vec<u8>,
    changes: Vec<Change>,
    /// It brings new mail: refused while the disk is in trouble; anything else waits.
    brings_mail: bool,
    reply: oneshot::Sender<Result<(), SpoolError>>,
}

#[derive(Default)]
struct Index {
    slots: HashMap<EntryId, Slot>,
    due: BTreeMap<NextHopKey, BTreeSet<(Timestamp, EntryId)>>,
    segments: BTreeMap<u64, Segment>,
}

type NextHopKey = (String, u16, bool, u8);

#[derive(Clone)]
struct Slot {
    entry: Arc<Entry>,
    body: Body,
    digest: Digest,
    segment: u64,
    claimed: bool,
}

/// Where a content is, seen from outside its record.
#[derive(Debug, Clone, Copy)]
enum Body {
    Log { offset: u64, len: usize },
    File { len: u64 },
}

#[derive(Debug, Default)]
struct Segment {
    len: u64,
    live: u64,
    entries: BTreeSet<EntryId>,
}

impl Spool {
    /// Opens the spool and recovers what is in it.
    pub fn open(disk: Arc<dyn Disk>, limits: Limits) -> Result<(Self, Recovered), SpoolError> {
        let found = recover::recover(disk.as_ref())?;
        let damage = (!found.recovered.damage.is_empty()).then(|| found.recovered.damage.join("; "));
        let shared = Arc::new(Shared {
            disk,
            limits,
            last_id: AtomicU64::new(found.index.slots.keys().map(|id| id.0).max().unwrap_or_default()),
            index: Mutex::new(found.index),
            works: AtomicBool::new(true),
            trouble: Mutex::new(None),
            sound: AtomicBool::new(damage.is_none()),
            damage,
            changed: Notify::new(),
        });
        let jobs = writer::start(Arc::clone(&shared), found.next_segment, found.damaged)?;
        Ok((Self { shared, jobs }, found.recovered))
    }

    /// Commits entries, durable for all of them at once or for none (R3). On return they are on disk.
    pub async fn commit(&self, entries: Vec<NewEntry>) -> Result<Vec<EntryId>, SpoolError> {
        if !self.is_healthy() {
            return Err(SpoolError::Disk(self.trouble().unwrap_or_else(|| "in trouble".into())));
        }
        let mut transaction = Transaction::default();
        let ids = self.stage(&mut transaction, entries, Timestamp::now()).await?;
        self.send(transaction).await?;
        Ok(ids)
    }

    /// The entries that are due and not claimed or held, oldest first.
    pub fn due(&self, now: Timestamp) -> Vec<Arc<Entry>> {
        let index = lock(&self.shared.index);
        let mut due: Vec<_> = index.due.values().flatten().filter(|(at, _)| *at <= now).collect();
        due.sort();
        due.into_iter().filter_map(|(_, id)| index.slots.get(id)).map(|slot| Arc::clone(&slot.entry)).collect()
    }

    /// Claims due entries, at most `room(next_hop)` for each next hop; a claimed entry is not due until it is settled or given back.
    pub fn claim(&self, now: Timestamp, mut room: impl FnMut(&NextHop) -> usize) -> Vec<Arc<Entry>> {
        let mut index = lock(&self.shared.index);
        let mut taken = Vec::new();
        for queue in index.due.values() {
            let mut ready =
                queue.iter().take_while(|(at, _)| *at <= now).filter_map(|(_, id)| index.slots.get(id)).peekable();
            if let Some(first) = ready.peek() {
                let count = room(&first.entry.next_hop);
                taken.extend(ready.take(count).map(|slot| Arc::clone(&slot.entry)));
            }
        }
        for entry in &taken {
            index.unqueue(entry);
            index.slots.entry(entry.id).and_modify(|slot| slot.claimed = true);
        }
        taken
    }

    /// Claims waiting entries whether due or not: those committed before `before` have expired, and those due after `beyond` were put
    /// off by a clock that was wrong.
    pub fn claim_out_of_time(&self, before: Timestamp, beyond: Timestamp, most: usize) -> Vec<Arc<Entry>> {
        let mut index = lock(&self.shared.index);
        let out_of_time = |slot: &&Slot| {
            let entry = &slot.entry;
            !slot.claimed && entry.held.is_none() && (entry.created < before || entry.next_attempt > beyond)
        };
        let taken: Vec<_> =
            index.slots.values().filter(out_of_time).take(most).map(|slot| Arc::clone(&slot.entry)).collect();
        for entry in &taken {
            index.unqueue(entry);
            index.slots.entry(entry.id).and_modify(|slot| slot.claimed = true);
        }
        taken
    }

    /// Gives a claimed entry back unchanged.
    pub fn give_back(&self, id: EntryId) {
        let mut index = lock(&self.shared.index);
        if let Some(slot) = index.slots.get_mut(&id) {
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

    /// Every entry, oldest first.
    pub fn list(&self) -> Vec<Arc<Entry>> {
        let index = lock(&self.shared.index);
        let mut all: Vec<_> = index.slots.values().map(|slot| Arc::clone(&slot.entry)).collect();
        all.sort_by_key(|entry| entry.id);
        all
    }

    /// One entry.
    pub fn entry(&self, id: EntryId) -> Option<Arc<Entry>> {
        lock(&self.shared.index).slots.get(&id).map(|slot| Arc::clone(&slot.entry))
    }

    /// An entry's content, checked against its digest.
    pub async fn content(&self, id: EntryId) -> Result<Bytes, SpoolError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.content(id)).await
    }

    /// Records what became of an attempt, together with new entries. An entry without recipients that wait is done, or held if some are stuck.
    pub async fn settle(&self, id: EntryId, outcome: Outcome) -> Result<(), SpoolError> {
        let entry = self.entry(id).ok_or(SpoolError::NoEntry(id))?;
        let mut transaction = Transaction::default();
        let any = |state| outcome.recipients.iter().any(|(now, _)| *now == state);
        let held = match (any(RecipientState::Waiting), any(RecipientState::Stuck)) {
            (false, true) => Some("failed for good, and no DSN may be sent".to_owned()),
            _ => entry.held.clone(),
        };
        if any(RecipientState::Waiting) || any(RecipientState::Stuck) {
            let attempts = entry.attempts.saturating_add(1);
            transaction.state(
                id,
                State { attempts, next_attempt: outcome.next_attempt, held, recipients: outcome.recipients },
            );
        } else {
            transaction.done(id);
        }
        self.stage(&mut transaction, outcome.new_entries, Timestamp::now()).await?;
        self.send(transaction).await
    }

    /// Ends an entry.
    pub async fn done(&self, id: EntryId) -> Result<(), SpoolError> {
        self.entry(id).ok_or(SpoolError::NoEntry(id))?;
        let mut transaction = Transaction::default();
        transaction.done(id);
        self.send(transaction).await
    }

    /// Holds an entry: it is not delivered until released.
    pub async fn hold(&self, id: EntryId, why: &str) -> Result<(), SpoolError> {
        self.change(id, |state| state.held = Some(why.to_owned())).await
    }

    /// Releases a held entry: due at once, its stuck recipients too.
    pub async fn release(&self, id: EntryId) -> Result<(), SpoolError> {
        self.change(id, |state| {
            state.held = None;
            state.next_attempt = Timestamp::now();
            for (recipient, _) in &mut state.recipients {
                if *recipient == RecipientState::Stuck {
                    *recipient = RecipientState::Waiting;
                }
            }
        })
        .await
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

    async fn change(&self, id: EntryId, edit: impl FnOnce(&mut State)) -> Result<(), SpoolError> {
        let entry = self.entry(id).ok_or(SpoolError::NoEntry(id))?;
        let recipients = entry.recipients.iter().map(|one| (one.state, one.last.clone())).collect();
        let mut state =
            State { attempts: entry.attempts, next_attempt: entry.next_attempt, held: entry.held.clone(), recipients };
        edit(&mut state);
        let mut transaction = Transaction::default();
        transaction.state(id, state);
        self.send(transaction).await
    }

    /// Adds entries to a transaction; big contents are written to their files, durable before the record that names them.
    async fn stage(
        &self,
        transaction: &mut Transaction,
        entries: Vec<NewEntry>,
        now: Timestamp,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let mut ids = Vec::with_capacity(entries.len());
        let mut files = Vec::new();
        for new in entries {
            let id = self.shared.next_id(now);
            let size = new.content.encoded_len();
            let (content, entry) = new.into_entry(id, now, octets(size));
            let own_file =
                size > self.shared.limits.inline || transaction.payload.0.len().saturating_add(size) > TRANSACTION;
            let file = if own_file {
                files.push(id);
                let (shared, content, undo) = (Arc::clone(&self.shared), content.clone(), files.clone());
                let digest = blocking(move || shared.undone_on_error(&undo, shared.write_body(id, &content))).await?;
                Some((octets(size), digest))
            } else {
                None
            };
            let (body, digest) =
                transaction.payload.put(&entry, file, content.chunks(64 * 1024).take_while(|_| !own_file));
            transaction.changes.push(Change::Put { entry, body, digest });
            transaction.brings_mail = true;
            ids.push(id);
        }
        if !files.is_empty() {
            let shared = Arc::clone(&self.shared);
            blocking(move || shared.undone_on_error(&files, shared.disk.sync_folder())).await?;
        }
        Ok(ids)
    }

    async fn send(&self, transaction: Transaction) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        let Transaction { payload, changes, brings_mail } = transaction;
        let job = Job { payload: payload.0, changes, brings_mail, reply };
        self.jobs.send(job).map_err(|_| SpoolError::Closed)?;
        answer.await.map_err(|_| SpoolError::Closed)?
    }
}

#[derive(Default)]
struct Transaction {
    payload: Payload,
    changes: Vec<Change>,
    brings_mail: bool,
}

impl Transaction {
    fn state(&mut self, id: EntryId, state: State) {
        self.payload.state(id, &state);
        self.changes.push(Change::State(id, state));
    }
    fn done(&mut self, id: EntryId) {
        self.payload.done(id);
        self.changes.push(Change::Done(id));
    }
}

impl NewEntry {
    fn into_entry(self, id: EntryId, now: Timestamp, size: u64) -> (Rope, Entry) {
        let waiting = |recipient| SpooledRecipient { recipient, state: RecipientState::Waiting, last: None };
        let entry = Entry {
            id,
            reverse_path: self.envelope.reverse_path,
            parameters: self.envelope.parameters,
            recipients: self.envelope.recipients.into_iter().map(waiting).collect(),
            next_hop: self.next_hop,
            direction: self.direction,
            treatment: self.treatment,
            private_key_tried: self.private_key_tried,
            attempts: 0,
            next_attempt: micros(self.next_attempt.unwrap_or(now)),
            created: micros(now),
            held: self.held,
            size,
        };
        (self.content, entry)
    }
}

impl Shared {
    /// Microseconds since 1970, made greater than any before.
    fn next_id(&self, now: Timestamp) -> EntryId {
        let now = u64::try_from(now.as_microsecond()).unwrap_or_default();
        let last = self
            .last_id
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last.saturating_add(1))));
        EntryId(last.map_or(now, |last| now.max(last.saturating_add(1))))
    }

    fn write_body(&self, id: EntryId, content: &Rope) -> io::Result<Digest> {
        let mut file = self.disk.create(&unfinished_name(id))?;
        let mut context = digest::Context::new(&digest::SHA256);
        for chunk in content.chunks(256 * 1024) {
            context.update(&chunk);
            file.append(&chunk)?;
        }
        file.sync()?;
        self.disk.rename(&unfinished_name(id), &body_name(id))?;
        Ok(to_digest(&context.finish()))
    }

    /// After an error the bodies written so far go again, and the writer tries the disk until it works.
    fn undone_on_error<T>(&self, ids: &[EntryId], result: io::Result<T>) -> Result<T, SpoolError> {
        if let Err(error) = &result {
            for id in ids {
                let _ = self.disk.remove(&body_name(*id));
                let _ = self.disk.remove(&unfinished_name(*id));
            }
            self.set_trouble(Some(error.to_string()));
        }
        Ok(result?)
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
                Ok(octets) if sha256(&octets) == slot.digest => return Ok(octets.into()),
                Ok(_) => return Err(SpoolError::Damaged(id)),
            }
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

impl Index {
    fn queue(&mut self, entry: &Entry) {
        if entry.held.is_none() {
            self.due.entry(hop_key(&entry.next_hop)).or_default().insert((entry.next_attempt, entry.id));
        }
    }

    fn unqueue(&mut self, entry: &Entry) {
        let key = hop_key(&entry.next_hop);
        if let Some(queue) = self.due.get_mut(&key) {
            queue.remove(&(entry.next_attempt, entry.id));
            if queue.is_empty() {
                self.due.remove(&key);
            }
        }
    }

    /// Applies a change whose record is at `payload_offset` of `segment`. Gives the body file that is now without an entry.
    fn apply(&mut self, change: Change, segment: u64, payload_offset: u64) -> Option<EntryId> {
        match change {
            Change::Put { entry, body, digest } => {
                let claimed = self.remove(entry.id).is_some_and(|slot| slot.claimed);
                let (id, entry) = (entry.id, Arc::new(entry));
                let body = match body {
                    BodyAt::Inline { offset, len } => {
                        Body::Log { offset: payload_offset.saturating_add(octets(offset)), len }
                    }
                    BodyAt::File { len } => Body::File { len },
                };
                if !claimed {
                    self.queue(&entry);
                }
                let info = self.segments.entry(segment).or_default();
                info.entries.insert(id);
                info.live = info.live.saturating_add(live_octets(&body));
                self.slots.insert(id, Slot { entry, body, digest, segment, claimed });
                None
            }
            Change::State(id, state) => {
                let mut slot = self.remove(id)?;
                slot.claimed = false;
                let entry = Arc::make_mut(&mut slot.entry);
                entry.attempts = state.attempts;
                entry.next_attempt = micros(state.next_attempt);
                entry.held = state.held;
                for (one, (now, last)) in entry.recipients.iter_mut().zip(state.recipients) {
                    (one.state, one.last) = (now, last);
                }
                let entry = Arc::clone(&slot.entry);
                self.queue(&entry);
                let info = self.segments.entry(slot.segment).or_default();
                info.entries.insert(id);
                info.live = info.live.saturating_add(live_octets(&slot.body));
                self.slots.insert(id, slot);
                None
            }
            Change::Done(id) => self.remove(id).and_then(|slot| matches!(slot.body, Body::File { .. }).then_some(id)),
            Change::Seal => None,
        }
    }

    fn remove(&mut self, id: EntryId) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        self.unqueue(&slot.entry);
        if let Some(info) = self.segments.get_mut(&slot.segment) {
            info.entries.remove(&id);
            info.live = info.live.saturating_sub(live_octets(&slot.body));
        }
        Some(slot)
    }
}

fn live_octets(body: &Body) -> u64 {
    1024 + match body {
        Body::Log { len, .. } => octets(*len),
        Body::File { .. } => 0,
    }
}

fn hop_key(hop: &NextHop) -> NextHopKey {
    let tls = match hop.tls {
        crate::config::HopTls::Off => 0,
        crate::config::HopTls::Opportunistic => 1,
        crate::config::HopTls::Required => 2,
        crate::config::HopTls::Verified => 3,
    };
    (hop.host.clone(), hop.port, hop.lmtp, tls)
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

fn octets(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// The log keeps microseconds.
fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
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
mod tests;

//! From new entries to a transaction at the writer: room, contents, deadline.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use aws_lc_rs::digest;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::entry::{Entry, EntryId, NewEntry};
use super::recent::Recent;
use super::record::{Change, Digest, Payload, Stored, to_digest};
use super::seal::EntrySealer;
use super::{Shared, Spool, SpoolError, blocking, body_name, entry_octets, lock, octets, unfinished_name};
use crate::mime::rope::Rope;

/// Octets of one transaction beyond which contents get files of their own.
const TRANSACTION: usize = 16 << 20;
/// Octets of a content that are written at once.
const CHUNK: usize = 64 * 1024;

/// What the writer is told.
pub(super) enum Order {
    Write(Job),
    /// Body files that no entry names.
    RemoveBodies(Vec<EntryId>),
}

/// What a transaction depends on, judged where transactions are put in their order.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    /// The entry is there.
    pub(super) id: EntryId,
    /// And is held for this reason, or not at all; `None`: that does not matter.
    pub(super) held: Option<Option<String>>,
}

/// One transaction on its way to the writer.
pub(super) struct Job {
    pub(super) payload: Vec<u8>,
    pub(super) changes: Vec<Change>,
    /// It brings mail of others: refused while the disk is in trouble. Anything else waits, or takes of the reserve.
    pub(super) mail: bool,
    /// Refused where it does not hold any more.
    pub(super) only_if: Option<Condition>,
    /// Whether it is still wanted when it is done; `None`: it is.
    pub(super) fate: Option<Arc<Fate>>,
    pub(super) reply: Option<oneshot::Sender<Result<(), SpoolError>>>,
}

impl Job {
    /// Changes that nobody waits for.
    pub(super) fn of(changes: Vec<Change>) -> Self {
        let mut payload = Payload::default();
        changes.iter().for_each(|change| payload.change(change));
        Job { payload: payload.0, changes, mail: false, only_if: None, fate: None, reply: None }
    }

    pub(super) fn answer(self, result: Result<(), SpoolError>) {
        if let Some(reply) = self.reply {
            let _ = reply.send(result);
        }
    }

    /// The entries it brings that have a body file.
    pub(super) fn new_bodies(&self) -> Vec<EntryId> {
        self.changes.iter().filter_map(new_body).collect()
    }
}

/// The entry of a change, if it brings one with a body file.
fn new_body(change: &Change) -> Option<EntryId> {
    match change {
        Change::Put { entry, stored: Stored { body: super::record::BodyAt::File { .. }, .. } } => Some(entry.id),
        _ => None,
    }
}

/// Of a commit: acknowledged by the writer or withdrawn by who asked, never both.
#[derive(Default)]
pub(super) struct Fate(AtomicU8);

impl Fate {
    const WITHDRAWN: u8 = 1;
    const ACKNOWLEDGED: u8 = 2;

    fn decide(&self, how: u8) -> bool {
        self.0.compare_exchange(0, how, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
    /// Whether it is withdrawn by this call.
    pub(super) fn withdraw(&self) -> bool {
        self.decide(Self::WITHDRAWN)
    }
    /// Whether it may be acknowledged: nobody withdrew it.
    pub(super) fn acknowledge(&self) -> bool {
        self.decide(Self::ACKNOWLEDGED)
    }
}

/// Who goes away without an answer withdraws the mail: it was not told that we have it.
struct WithdrawOnDrop(Arc<Fate>);

impl Drop for WithdrawOnDrop {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// Body files that go again unless their record is on its way.
struct Bodies {
    ids: Vec<EntryId>,
    orders: Sender<Order>,
}

impl Drop for Bodies {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            let _ = self.orders.send(Order::RemoveBodies(std::mem::take(&mut self.ids)));
        }
    }
}

/// Entries and octets promised to commits under way, given back when they are done. What was just taken counts twice until then: near the
/// quota mail is refused a moment too early, never taken over it.
struct Room<'s> {
    shared: &'s Shared,
    entries: u64,
    octets: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.shared.promised.entries.fetch_sub(self.entries, Ordering::Relaxed);
        self.shared.promised.octets.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

/// See [`Room`].
#[derive(Default)]
pub(super) struct Promised {
    entries: AtomicU64,
    octets: AtomicU64,
}

#[derive(Default)]
pub(super) struct Transaction {
    payload: Payload,
    changes: Vec<Change>,
    mail: bool,
    only_if: Option<Condition>,
    bodies: Vec<Bodies>,
}

impl Transaction {
    /// Refused when this entry is not there any more.
    pub(super) fn only_if(id: EntryId) -> Self {
        Self { only_if: Some(Condition { id, held: None }), ..Self::default() }
    }

    /// Refused also when it was held or released meanwhile.
    pub(super) fn only_as(entry: &Entry) -> Self {
        Self { only_if: Some(Condition { id: entry.id, held: Some(entry.held.clone()) }), ..Self::default() }
    }

    pub(super) fn change(&mut self, change: Change) {
        self.payload.change(&change);
        self.changes.push(change);
    }

    /// Refused while the disk is in trouble.
    pub(super) fn of_mail() -> Self {
        Self { mail: true, ..Self::default() }
    }

    /// Octets of its record so far.
    pub(super) fn len(&self) -> usize {
        self.payload.0.len()
    }
}

impl Spool {
    /// Commits entries, durable for all of them at once or for none (R3). On return they are on disk.
    ///
    /// # Errors
    /// [`SpoolError::Full`] over the quota; [`SpoolError::Disk`] when the disk is in trouble; [`SpoolError::Late`] when it did not
    /// answer within [`Limits::commit`](super::Limits::commit). In none of these, nor when the future is dropped, is anything delivered.
    pub async fn commit(&self, entries: Vec<NewEntry>) -> Result<Vec<EntryId>, SpoolError> {
        self.works()?;
        let _room = self.room(&entries)?;
        let deadline = Instant::now() + self.shared.limits.commit;
        let mut transaction = Transaction::of_mail();
        let staged = timeout_at(deadline, self.stage(&mut transaction, entries, Timestamp::now())).await;
        let ids = staged.unwrap_or_else(|_| Err(self.late()))?;
        let fate = Arc::new(Fate::default());
        let withdrawing = WithdrawOnDrop(Arc::clone(&fate));
        let mut answer = self.submit(transaction, Some(fate))?;
        let answered = match timeout_at(deadline, &mut answer).await {
            Ok(answered) => answered,
            Err(_) if withdrawing.0.withdraw() => return Err(self.late()),
            Err(_) => answer.await,
        };
        answered.map_err(|_| SpoolError::Closed)??;
        Ok(ids)
    }

    /// Whether mail can be taken now: the disk works, the log was sound, and there is room under the quota.
    pub fn ready(&self) -> Result<(), SpoolError> {
        self.works()?;
        self.room(&[]).map(drop)
    }

    pub(super) fn works(&self) -> Result<(), SpoolError> {
        if self.is_healthy() {
            return Ok(());
        }
        Err(SpoolError::Disk(self.trouble().unwrap_or_else(|| "in trouble".into())))
    }

    fn late(&self) -> SpoolError {
        self.shared.set_trouble(Some(format!("the disk did not answer within {:?}", self.shared.limits.commit)));
        SpoolError::Late
    }

    /// Room under the quota, for as long as the commit takes. What becomes of mail that is here needs none.
    fn room(&self, entries: &[NewEntry]) -> Result<Room<'_>, SpoolError> {
        let shared = &*self.shared;
        let sizes = entries.iter().map(|new| entry_octets(octets(new.content.encoded_len())));
        let (count, size) = (octets(entries.len()), sizes.fold(0, u64::saturating_add));
        // Under the index's lock: two that ask at once do not get the same room.
        let index = lock(&shared.index);
        let promised = |what: &AtomicU64| what.load(Ordering::Relaxed);
        let entries_then = octets(index.slots.len()).saturating_add(promised(&shared.promised.entries));
        let octets_then = index.octets.saturating_add(promised(&shared.promised.octets));
        let (most_entries, most) = (shared.limits.entries, shared.limits.quota);
        if entries_then.saturating_add(count.max(1)) > most_entries {
            return Err(SpoolError::Full { found: entries_then, limit: most_entries, what: "entries" });
        }
        if octets_then.saturating_add(size.max(1)) > most {
            return Err(SpoolError::Full { found: octets_then, limit: most, what: "octets" });
        }
        shared.promised.entries.fetch_add(count, Ordering::Relaxed);
        shared.promised.octets.fetch_add(size, Ordering::Relaxed);
        Ok(Room { shared, entries: count, octets: size })
    }

    /// Adds entries to a transaction; big contents are written to their files, durable before the record that names them.
    pub(super) async fn stage(
        &self,
        transaction: &mut Transaction,
        entries: Vec<NewEntry>,
        now: Timestamp,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let mut ids = Vec::with_capacity(entries.len());
        for new in entries {
            let id = self.shared.next_id(now);
            let size = octets(new.content.encoded_len());
            let (content, entry) = new.into_entry(id, now, size);
            self.stage_entry(transaction, entry, content, now).await?;
            ids.push(id);
        }
        self.sync_bodies(transaction).await?;
        Ok(ids)
    }

    /// Adds one entry; its body file's name is durable after [`Spool::sync_bodies`].
    pub(super) async fn stage_entry(
        &self,
        transaction: &mut Transaction,
        entry: super::Entry,
        mut content: Rope,
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        let (id, size) = (entry.id, content.encoded_len());
        let sealer = self.shared.sealer(&entry)?;
        let sealing = sealer.as_ref().map(EntrySealer::sealing);
        let own_file = size > self.shared.limits.inline || transaction.len().saturating_add(size) > TRANSACTION;
        if !own_file && entry.may_go() && entry.next_attempt <= now && Recent::wants(size) {
            let octets = content.to_bytes();
            lock(&self.shared.index).recent.keep(id, octets.clone());
            content = octets.into();
        }
        let stored = if own_file {
            let (shared, orders) = (Arc::clone(&self.shared), self.orders.clone());
            let (bodies, file) = blocking(move || {
                let bodies = Bodies { ids: vec![id], orders };
                let written = shared.write_body(id, &content, sealer);
                Ok((bodies, shared.noted(written)?))
            })
            .await?;
            transaction.bodies.push(bodies);
            transaction.payload.put(&entry, sealing, Some(file), std::iter::empty())
        } else if let Some(sealer) = sealer {
            let mut chunks = Vec::new();
            sealer.seal(&content, |sealed| {
                chunks.push(Bytes::copy_from_slice(sealed));
                Ok(())
            })?;
            transaction.payload.put(&entry, sealing, None, chunks.into_iter())
        } else {
            transaction.payload.put(&entry, None, None, content.chunks(CHUNK))
        };
        transaction.changes.push(Change::Put { entry, stored });
        Ok(())
    }

    /// Makes the names of the body files durable.
    pub(super) async fn sync_bodies(&self, transaction: &Transaction) -> Result<(), SpoolError> {
        if transaction.bodies.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.noted(shared.disk.sync_folder())).await
    }

    /// One change of an entry, if it is still there when its turn comes.
    pub(super) async fn record(&self, id: EntryId, change: Change) -> Result<(), SpoolError> {
        let mut transaction = Transaction::only_if(id);
        transaction.change(change);
        self.send(transaction).await
    }

    /// To the writer, until it is durable.
    pub(super) async fn send(&self, transaction: Transaction) -> Result<(), SpoolError> {
        self.submit(transaction, None)?.await.map_err(|_| SpoolError::Closed)?
    }

    fn submit(
        &self,
        transaction: Transaction,
        fate: Option<Arc<Fate>>,
    ) -> Result<oneshot::Receiver<Result<(), SpoolError>>, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let Transaction { payload, changes, mail, only_if, mut bodies } = transaction;
        let job = Job { payload: payload.0, changes, mail, only_if, fate, reply: Some(reply) };
        self.orders.send(Order::Write(job)).map_err(|_| SpoolError::Closed)?;
        bodies.iter_mut().for_each(|bodies| bodies.ids.clear());
        Ok(answer)
    }
}

impl Shared {
    /// Microseconds since 1970, made greater than any before.
    pub(super) fn next_id(&self, now: Timestamp) -> EntryId {
        let now = u64::try_from(now.as_microsecond()).unwrap_or_default();
        let last = self
            .last_id
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last.saturating_add(1))));
        EntryId(last.map_or(now, |last| now.max(last.saturating_add(1))))
    }

    /// Writes a content to its file; gives its octets there, and their digest.
    fn write_body(&self, id: EntryId, content: &Rope, sealer: Option<EntrySealer>) -> io::Result<(u64, Digest)> {
        let mut file = self.disk.create(&unfinished_name(id))?;
        let mut context = digest::Context::new(&digest::SHA256);
        let mut len = 0;
        let mut write = |chunk: &[u8]| {
            context.update(chunk);
            len += octets(chunk.len());
            file.append(chunk)
        };
        match sealer {
            Some(sealer) => sealer.seal(content, &mut write).map_err(io::Error::other)?,
            None => content.chunks(4 * CHUNK).try_for_each(|chunk| write(&chunk))?,
        }
        file.sync()?;
        self.disk.rename(&unfinished_name(id), &body_name(id))?;
        Ok((len, to_digest(&context.finish())))
    }

    /// After an error the writer tries the disk until it works.
    fn noted<T>(&self, result: io::Result<T>) -> Result<T, SpoolError> {
        if let Err(error) = &result {
            self.set_trouble(Some(error.to_string()));
        }
        Ok(result?)
    }
}

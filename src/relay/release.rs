//! Held outbound mail goes: by policy anew, when a person asks for it or when what it waited for has come.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep};

use super::current::Current;
use super::gateway::{Live, new_entry};
use super::pipeline::{Again, Submitted};
use crate::address::Mailbox;
use crate::smtp::command::Reply;
use crate::spool::{Entry, EntryId, EntryState, Filter, NewEntry, Spool, SpoolError, Treatment};
use crate::store::{CertStore, StoreError};

/// How often it is looked anyway; the store tells of its changes, those by other processes too.
const LOOK: Duration = Duration::from_secs(60);
/// A look takes at most one part in so many of the time.
const SHARE: u32 = 20;
/// Changes to the store that come together are looked at together.
const GATHER: Duration = Duration::from_millis(100);
/// A mail is treated anew after this although nothing changed: certificates begin to be valid, revocation is known again.
const ANYWAY: Duration = Duration::from_secs(3_600);
/// Entries looked at without pause.
const PAGE: usize = 500;

/// Held mails treated at once.
const AT_ONCE: usize = 2;

/// What is said of mail that would leave unencrypted now.
const NOT_BY_ITSELF: &str = "policy would now let it leave unencrypted: that is for a person to release";

/// Who lets mail go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A person who asked for it.
    Person,
    /// Nobody: what it waited for has come. Then nothing leaves unencrypted, whatever the rules have become: it was held when they
    /// said that it had to be protected.
    Itself,
}

/// Why a mail was not treated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The spool: it is not there any more, or the disk.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Policy could not be asked now: the reply a client would have had.
    #[error("{0}")]
    Policy(Reply),
    /// Somebody held it anew meanwhile.
    #[error("it was held anew meanwhile")]
    Changed,
}

impl ReleaseError {
    fn of(error: SpoolError) -> Self {
        match error {
            SpoolError::Changed(_) => Self::Changed,
            error => Self::Spool(error),
        }
    }
}

/// A recipient, and how his mail leaves or why it stays.
pub type Fate = (Mailbox, Result<String, String>);

/// Lets held outbound mail go. Cheap to clone.
#[derive(Clone)]
pub struct Releaser {
    spool: Spool,
    live: Arc<Current<Live>>,
    /// Mails treated at once: each is in memory whole, and live mail has the processor too.
    room: Arc<Semaphore>,
}

impl Releaser {
    /// With the policy in use at each time.
    pub fn new(spool: Spool, live: Arc<Current<Live>>) -> Self {
        Self { spool, live, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Treats an entry of outbound mail as submitted by policy anew. What may leave takes its place in the spool, in one record; recipients
    /// who cannot be served stay held, with the reason as it is now. Two that ask at once do not both have it.
    ///
    /// # Errors
    /// See [`ReleaseError`]: the entry is as it was.
    pub async fn release(&self, id: EntryId, by: By) -> Result<Vec<Fate>, ReleaseError> {
        let _room = self.room.acquire().await;
        let entry = self.spool.entry(id).ok_or(SpoolError::NoEntry(id))?;
        let submitted = Submitted {
            envelope: entry.remaining(),
            listener: entry.listener.clone(),
            user: entry.user.clone(),
            sends_as: entry.sends_as.clone(),
            trusted: entry.trusted,
            log_id: entry.log_id.clone(),
            content: self.spool.content(id).await?,
        };
        let names: Vec<Mailbox> = submitted.envelope.recipients.iter().map(|one| one.mailbox.clone()).collect();
        let pipeline = self.live.get().pipeline.clone();
        let mut again =
            pipeline.treat_submitted(submitted).await.map_err(|refusal| ReleaseError::Policy(refusal.reply()))?;
        if by == By::Itself && again.entries.iter().any(|one| one.held.is_none() && !one.encrypted) {
            again = Again { entries: Vec::new(), fates: vec![Err(NOT_BY_ITSELF.to_owned()); names.len()] };
        }
        if again.entries.is_empty() {
            let why = again.reasons();
            if entry.held.as_ref() != Some(&why) {
                self.spool.hold_as(&entry, &why).await.map_err(ReleaseError::of)?;
            }
        } else {
            let new = again.entries.into_iter().map(|one| in_place_of(&entry, new_entry(one))).collect();
            self.spool.replace(&entry, new).await.map_err(ReleaseError::of)?;
        }
        let fates: Vec<Fate> = names.into_iter().zip(again.fates).collect();
        for (recipient, fate) in &fates {
            match fate {
                Ok(how) => tracing::info!(entry = %id, id = entry.log_id, %recipient, how, "held mail leaves"),
                Err(why) => tracing::debug!(entry = %id, id = entry.log_id, %recipient, why, "mail stays held"),
            }
        }
        Ok(fates)
    }
}

/// What stays held is as old as it was; what leaves has all its time.
fn in_place_of(entry: &Entry, new: NewEntry) -> NewEntry {
    let before = (new.treatment == Treatment::AsSubmitted).then_some((entry.created, entry.delay_told));
    NewEntry { before, origin: entry.origin, ..new }
}

/// Looks again and again at mail that waits for certificates, and lets go what has what it waits for. Ends when the store is closed, or
/// when it is dropped.
pub async fn keep_looking(releaser: Releaser, store: Arc<dyn CertStore>) {
    let mut changes = store.subscribe();
    let mut seen = Seen::default();
    loop {
        let began = Instant::now();
        seen.look(&releaser, store.as_ref()).await;
        sleep(GATHER.max(began.elapsed().saturating_mul(SHARE))).await;
        tokio::select! {
            () = sleep(LOOK) => {}
            () = releaser.live.changed() => {}
            changed = changes.recv() => match changed {
                Err(RecvError::Closed) => return,
                _ => sleep(GATHER).await,
            },
        }
    }
}

/// What the store said of each held entry's recipients when it was treated last, and when that was.
#[derive(Default)]
struct Seen(HashMap<EntryId, (u64, Timestamp)>);

impl Seen {
    async fn look(&mut self, releaser: &Releaser, store: &dyn CertStore) {
        let filter = Filter { state: Some(EntryState::Held), ..Filter::default() };
        let (mut after, mut now_held) = (None, HashMap::new());
        loop {
            let page = releaser.spool.list(&filter, after, PAGE);
            for listed in &page.entries {
                let entry = &listed.entry;
                if entry.treatment == Treatment::AsSubmitted && !entry.is_held_by_hand() {
                    let seen = self.0.get(&entry.id).copied();
                    now_held.insert(entry.id, one(releaser, store, entry, seen).await);
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        self.0 = now_held;
    }
}

async fn one(
    releaser: &Releaser,
    store: &dyn CertStore,
    entry: &Entry,
    seen: Option<(u64, Timestamp)>,
) -> (u64, Timestamp) {
    let now = Timestamp::now();
    let known = match generations(store, entry, releaser.live.get().generation) {
        Ok(known) => known,
        // Said by whoever asks for a mail; here it is tried again.
        Err(_) => return seen.unwrap_or_default(),
    };
    let old = |at: Timestamp| Duration::try_from(now.duration_since(at)).is_ok_and(|since| since >= ANYWAY) || at > now;
    if let Some((before, at)) = seen.filter(|(before, at)| *before == known && !old(*at)) {
        return (before, at);
    }
    match releaser.release(entry.id, By::Itself).await {
        Ok(_) | Err(ReleaseError::Changed | ReleaseError::Spool(SpoolError::NoEntry(_))) => {}
        Err(error) => tracing::warn!(entry = %entry.id, %error, "held mail could not be treated anew"),
    }
    (known, now)
}

/// Changes when anything changes that may decide whether the recipients can be served.
fn generations(store: &dyn CertStore, entry: &Entry, configuration: u64) -> Result<u64, StoreError> {
    let mut hasher = DefaultHasher::new();
    (store.trust()?.generation, configuration).hash(&mut hasher);
    if let crate::address::ReversePath::Mailbox(sender) = &entry.reverse_path {
        store.identity(sender)?.generation.hash(&mut hasher);
    }
    for one in &entry.recipients {
        let mailbox = &one.recipient.mailbox;
        let (own, domain) = (store.identity(mailbox)?, store.domain_identity(mailbox.domain())?);
        (own.generation, domain.generation).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

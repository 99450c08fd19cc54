//! Certificates and capabilities out of signed mail (A10). What is taken, and when it is trusted, is told in `docs/harvest.md`; [`decide`]
//! is the rule itself.
//!
//! Nothing here is on a mail's way: [`Harvest::offer`] copies what a valid signature announced into a bounded queue and returns. One thread
//! takes from it, at most so many changes of the store a second; what finds the queue full is dropped and counted, and comes again with the
//! sender's next mail.

/// What is kept of all that was harvested: bounds for the whole store.
mod book;
/// What becomes of one announcement.
mod decide;
#[cfg(test)]
mod tests;
/// The thread that changes the store.
mod worker;

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use quick_cache::sync::Cache;

use crate::address::{Domain, Mailbox};
use crate::cms::algorithm::Capabilities;
use crate::cms::signed::CertificateId;
use crate::config;
use crate::pki::certificate::Certificate;
use crate::pki::path::{InitialPolicies, PathLimits};
use crate::smime::open::Announced;
use crate::store::{CertStore, Identity};

pub(in crate::discovery) use decide::{is_trusted, same_key};

/// Announcements that wait at most.
const QUEUE: usize = 256;
/// Certificates of one message that are looked at, beside the signer's and his path's.
const COMPANY: usize = 8;
/// Octets of one message's certificates that are kept while they wait.
const OCTETS: usize = 64 << 10;
/// Mailboxes whose last announcement is remembered.
const RECENT: usize = 16_384;
/// Characters of a Message-ID that are kept.
const MESSAGE_ID: usize = 200;

/// One announcement, with octets of its own: the certificates of a message keep its whole body in memory.
struct Offer {
    mailbox: Mailbox,
    /// The signer's certificate, DER.
    signer: Bytes,
    /// CA certificates of its path, the anchor left out, DER.
    chain: Vec<Bytes>,
    /// Certificates that the preference may name, and what else came along, DER.
    company: Vec<Bytes>,
    capabilities: Option<Capabilities>,
    preference: Option<CertificateId>,
    signing_time: Option<Timestamp>,
    message_id: String,
    at: Timestamp,
}

/// How much was offered and what became of it, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Announcements taken into the queue.
    pub offered: u64,
    /// Those that found it full.
    pub dropped: u64,
    /// Those that were looked at, whatever came of it.
    pub handled: u64,
    /// Certificates that were stored and may be used.
    pub trusted: u64,
    /// Certificates that were stored and wait for an administrator.
    pub pending: u64,
    /// Certificates that found no place within the bounds.
    pub full: u64,
    /// Pending ones that had to make place for others.
    pub pushed_out: u64,
}

#[derive(Default)]
struct Counters {
    offered: AtomicU64,
    dropped: AtomicU64,
    handled: AtomicU64,
    trusted: AtomicU64,
    pending: AtomicU64,
    full: AtomicU64,
    pushed_out: AtomicU64,
}

/// What the offering and the working side share.
struct Shared {
    settings: config::Harvest,
    /// What the paths of certificates have to keep to.
    limits: PathLimits,
    store: Arc<dyn CertStore>,
    counters: Arc<Counters>,
    /// The last announcement of a mailbox, both hashed with a key of this process.
    recent: Cache<u64, u64>,
    hasher: RandomState,
}

/// Takes announcements. Cheap to clone; the thread behind it begins with the first one and ends when the last clone is gone.
#[derive(Clone)]
pub struct Harvest {
    shared: Arc<Shared>,
    /// Domains of ours: our own certificates are imported.
    ours: Arc<[Domain]>,
    queue: Arc<Mutex<Option<SyncSender<Offer>>>>,
}

impl Harvest {
    /// Ready to take announcements of mailboxes outside of `ours`, of certificates whose paths are valid under `policies`.
    pub fn new(
        settings: config::Harvest,
        policies: InitialPolicies,
        ours: &[Domain],
        store: Arc<dyn CertStore>,
    ) -> Self {
        let shared = Shared {
            settings,
            limits: PathLimits { policies, ..PathLimits::default() },
            store,
            counters: Arc::default(),
            recent: Cache::new(RECENT),
            hasher: RandomState::new(),
        };
        Self { shared: Arc::new(shared), ours: ours.into(), queue: Arc::default() }
    }

    /// The same with other settings, where they are others; it goes on counting.
    pub fn renewed(&self, settings: &config::Harvest, policies: &InitialPolicies, ours: &[Domain]) -> Self {
        let before = &self.shared;
        if *settings == before.settings && *policies == before.limits.policies && *ours == *self.ours {
            return self.clone();
        }
        let shared = Shared {
            settings: settings.clone(),
            limits: PathLimits { policies: policies.clone(), ..PathLimits::default() },
            store: self.shared.store.clone(),
            counters: self.shared.counters.clone(),
            recent: Cache::new(RECENT),
            hasher: RandomState::new(),
        };
        Self { shared: Arc::new(shared), ours: ours.into(), queue: Arc::default() }
    }

    /// Takes what a valid signature announced, or drops it where the queue is full; never waits. The same again on the same day is
    /// passed over, unless the store changed meanwhile.
    pub fn offer(&self, announced: &Announced, message_id: &str, at: Timestamp) {
        let mailbox = announced.signer.mailbox();
        let settings = &self.shared.settings;
        let off = settings.mode_for(mailbox) == config::HarvestMode::Off;
        if (off && !settings.capabilities) || self.ours.contains(mailbox.domain()) {
            return;
        }
        // Local memory; what cannot be read now is said by whoever needs it.
        let (Ok(known), Ok(trust)) = (self.shared.store.identity(mailbox), self.shared.store.trust()) else { return };
        if off && known.certificates.is_empty() {
            return;
        }
        let name = self.shared.hasher.hash_one(mailbox.key());
        let digest = self.digest(announced, &known, trust.generation, at);
        if self.shared.recent.get(&name) == Some(digest) {
            return;
        }
        let Some(queue) = self.queue() else { return };
        let counters = &self.shared.counters;
        match queue.try_send(Offer::of(announced, message_id, at)) {
            Ok(()) => {
                counters.offered.fetch_add(1, Ordering::Relaxed);
                self.shared.recent.insert(name, digest);
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                let before = counters.dropped.fetch_add(1, Ordering::Relaxed);
                if before.is_power_of_two() || before == 0 {
                    tracing::warn!(target: "waxwing::harvest", dropped = before.saturating_add(1), "more is announced than is looked at: dropped, it comes again");
                }
            }
        }
    }

    /// What was offered so far and what became of it.
    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        // Handled first: who compares it with what was offered must not see it ahead.
        let handled = counters.handled.load(Ordering::Acquire);
        let of = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Counts {
            handled,
            offered: of(&counters.offered),
            dropped: of(&counters.dropped),
            trusted: of(&counters.trusted),
            pending: of(&counters.pending),
            full: of(&counters.full),
            pushed_out: of(&counters.pushed_out),
        }
    }

    /// The queue; its thread is begun where there is none.
    fn queue(&self) -> Option<SyncSender<Offer>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.is_none() {
            let (sender, receiver) = sync_channel(QUEUE);
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("harvest".to_owned());
            match thread.spawn(move || worker::run(&shared, &receiver)) {
                Ok(_) => *queue = Some(sender),
                Err(error) => tracing::error!(%error, "no thread for the harvest"),
            }
        }
        queue.clone()
    }

    /// All that an announcement says, what it is compared with, and the day.
    fn digest(&self, announced: &Announced, known: &Identity, trust: u64, at: Timestamp) -> u64 {
        let mut hasher = self.shared.hasher.build_hasher();
        announced.signer.certificate().der().hash(&mut hasher);
        match &announced.preference {
            None => 0_u8.hash(&mut hasher),
            Some(CertificateId::IssuerAndSerial { issuer, serial }) => (1_u8, issuer, serial).hash(&mut hasher),
            Some(CertificateId::SubjectKeyIdentifier(key)) => (2_u8, key).hash(&mut hasher),
        }
        (known.generation, trust, day(at)).hash(&mut hasher);
        if let Some(reads) = &announced.capabilities {
            reads.names().hash(&mut hasher);
            // What is not known so yet may count or not, by when it was said.
            if !known.certificates.iter().any(|record| record.capabilities.as_ref() == Some(reads)) {
                announced.signing_time.map(Timestamp::as_second).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

impl Offer {
    fn of(announced: &Announced, message_id: &str, at: Timestamp) -> Self {
        let signer = announced.signer.certificate();
        let own = |one: &Certificate| Bytes::copy_from_slice(one.der());
        let chain = match announced.path.chain() {
            [_, middle @ .., _] => middle,
            _ => &[],
        };
        let named = |one: &&Certificate| announced.preference.as_ref().is_some_and(|id| id.names(one));
        let (wanted, others): (Vec<&Certificate>, Vec<&Certificate>) =
            announced.company.iter().filter(|one| *one != signer).partition(named);
        let mut left = OCTETS;
        let company = wanted.into_iter().chain(others).take(COMPANY).filter(|one| {
            let fits = one.der().len() <= left;
            left = left.saturating_sub(if fits { one.der().len() } else { 0 });
            fits
        });
        Self {
            mailbox: announced.signer.mailbox().clone(),
            signer: own(signer),
            company: company.map(own).collect(),
            chain: chain.iter().map(own).collect(),
            capabilities: announced.capabilities.clone(),
            preference: announced.preference.clone().map(detached),
            signing_time: announced.signing_time,
            message_id: message_id.chars().take(MESSAGE_ID).flat_map(char::escape_default).collect(),
            at,
        }
    }
}

/// The same name over octets of its own.
fn detached(id: CertificateId) -> CertificateId {
    let own = |octets: Bytes| Bytes::copy_from_slice(&octets);
    match id {
        CertificateId::IssuerAndSerial { issuer, serial } => {
            CertificateId::IssuerAndSerial { issuer: own(issuer), serial: own(serial) }
        }
        CertificateId::SubjectKeyIdentifier(key) => CertificateId::SubjectKeyIdentifier(own(key)),
    }
}

/// The day, counted from 1970.
fn day(at: Timestamp) -> i64 {
    at.as_second().div_euclid(86_400)
}

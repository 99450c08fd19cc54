//! Directories and the DNS, asked for a mailbox of which the store has no certificate that may be used. What they bring is checked, and
//! stored for all nodes; what is checked, and what becomes of it, is told in `docs/discovery.md`.
//!
//! **One look-up for all who wait.** Whoever needs a mailbox joins the look-up that is under way. It goes on when they have given up, so that
//! the next one finds what came. **Bounded**: each source by its timeout and size, each look-up by [`Discovery::wait_for`], all of them by
//! [`AT_ONCE`] and [`UNDER_WAY`]; what sources said is remembered on this node alone, for so many mailboxes.
//!
//! **Fail closed.** "There is none" is said only where every source answered ([`Told::unanswered`] is `None`). A certificate that was found and
//! may not be used is told too ([`Told::unusable`]): it does not count as none.

/// What becomes of a certificate that a source brought.
mod decide;
/// Directories over LDAP.
mod ldap;
/// Directories that say who a user is.
pub mod login;
/// The DNS, with DNSSEC validated here.
mod smimea;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use jiff::Timestamp;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::decide::{Brought, decide};
use super::smimea::{Association, Usage};
use crate::address::{Domain, Mailbox, MailboxKey};
use crate::config::{Certificates, Config, DiscoveryMode, Source, SourceKind};
use crate::metrics::{Metrics, Said};
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::path::{PathLimits, TrustSet, validate};
use crate::policy::TrustState;
use crate::store::keyring::hex;
use crate::store::{BY_SMIMEA, CertStore, CertificateRecord, Identity, Note, Owner, Provenance, Revision, StoreError};

pub use decide::stands_alone;

/// Look-ups of different mailboxes at once.
pub const AT_ONCE: usize = 32;
/// Mailboxes that are looked up or wait for it, at most: who comes then is told that it is not known now.
pub const UNDER_WAY: usize = 2_000;
/// Mailboxes of which one source's answer is remembered.
const REMEMBERED: usize = 16_384;
/// Octets of them.
const MEMORY: u64 = 32 << 20;
/// No mail waits longer for all its sources.
const LONGEST: Duration = Duration::from_secs(30);
/// What a mail waits longer than its sources.
const GRACE: Duration = Duration::from_millis(500);
/// A source, a server or a domain that did not answer is not asked again before this.
const FAILURE_HOLDS: Duration = Duration::from_secs(30);
/// Intermediates in the store, beyond which none is taken from a source.
const INTERMEDIATES: usize = 1_000;

/// What a source brought of one mailbox.
#[derive(Debug, Clone, Default)]
struct Found {
    /// Certificates, unchecked, with where each stands.
    certificates: Vec<(Certificate, String)>,
    /// What is said of certificates that are found elsewhere, and where it stands.
    associations: Vec<(Association, String)>,
    /// The mailbox that this address belongs to.
    belongs_to: Option<Mailbox>,
    /// Something is there that cannot be read.
    unreadable: Option<String>,
}

/// What the sources said of a mailbox, and what came of it.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Certificates of the mailbox that were found and may not be used: they are not stored, and with each is why.
    pub unusable: Vec<(CertificateRecord, String)>,
    /// Why it is not known whether there are others: a source did not answer.
    pub unanswered: Option<String>,
    /// What each source said, for people.
    pub notes: Vec<String>,
    /// What would be stored: where [`Discovery::without_storing`] asked.
    pub would_store: Vec<CertificateRecord>,
    /// There is a certificate now that may be used.
    pub brought: bool,
}

/// What a source said, and until when it is not asked again.
#[derive(Clone)]
struct Kept {
    said: Result<Arc<Found>, Arc<str>>,
    until: Instant,
}

/// How a source is asked.
enum How {
    Ldap(ldap::Directory),
    Smimea(smimea::Resolver),
    /// It cannot be asked as it is configured.
    Broken(String),
}

/// One source, with what is known of it.
struct Asker {
    source: Source,
    /// Made when it is first asked, or when the gateway starts.
    how: OnceLock<How>,
    kept: Cache<MailboxKey, Kept, Octets>,
}

#[derive(Debug, Clone)]
struct Octets;

impl Weighter<MailboxKey, Kept> for Octets {
    fn weight(&self, key: &MailboxKey, kept: &Kept) -> u64 {
        let found = kept.said.as_ref().map_or(0, |found| found.octets());
        // What is read of a certificate is about as large again.
        (key.as_str().len() + found * 2 + 256) as u64
    }
}

/// Does not answer, and until when nothing is asked there.
#[derive(Default)]
struct Stalled(Mutex<HashMap<Box<str>, Instant>>);

impl Stalled {
    fn holds(&self, who: &str) -> bool {
        let stalled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stalled.get(who).is_some_and(|until| Instant::now() < *until)
    }

    fn note(&self, who: &str) {
        let mut stalled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        stalled.retain(|_, until| now < *until);
        // Outsiders choose domains: with that many stalled at once, those that come are simply asked again.
        if stalled.len() < REMEMBERED {
            stalled.insert(who.into(), now + FAILURE_HOLDS);
        }
    }
}

/// A look-up under way: what it will have been told.
type Flight = watch::Receiver<Option<Arc<Told>>>;

struct Shared {
    askers: Vec<Arc<Asker>>,
    ours: Vec<Domain>,
    store: Arc<dyn CertStore>,
    metrics: Arc<Metrics>,
    limits: PathLimits,
    in_subject: bool,
    stores: bool,
    flights: DashMap<MailboxKey, Flight>,
    under_way: AtomicUsize,
    room: Semaphore,
}

/// The sources of a configuration. Cheap to clone.
#[derive(Clone)]
pub struct Discovery {
    shared: Arc<Shared>,
}

impl Discovery {
    /// The sources of `config`, for this store.
    pub fn new(config: &Config, store: Arc<dyn CertStore>, metrics: Arc<Metrics>) -> Self {
        Self::build(config, store, metrics, &[], true)
    }

    /// The same, which stores nothing of what it finds: for those who explain.
    pub fn without_storing(config: &Config, store: Arc<dyn CertStore>) -> Self {
        Self::build(config, store, Arc::default(), &[], false)
    }

    /// The sources of another configuration; those that stay as they were keep what they know.
    pub fn renewed(&self, config: &Config) -> Self {
        let Shared { store, metrics, askers, stores, .. } = &*self.shared;
        Self::build(config, store.clone(), metrics.clone(), askers, *stores)
    }

    fn build(
        config: &Config,
        store: Arc<dyn CertStore>,
        metrics: Arc<Metrics>,
        before: &[Arc<Asker>],
        stores: bool,
    ) -> Self {
        let asker = |source: &Source| {
            let same =
                before.iter().find(|asker| asker.source == *source && !matches!(asker.how.get(), Some(How::Broken(_))));
            same.cloned().unwrap_or_else(|| Arc::new(Asker::new(source)))
        };
        let Certificates { policies, email_in_subject } = &config.certificates;
        let shared = Shared {
            askers: config.discovery.iter().map(asker).collect(),
            ours: config.domains.clone(),
            store,
            metrics,
            limits: PathLimits { policies: policies.clone(), ..PathLimits::default() },
            in_subject: *email_in_subject,
            stores,
            flights: DashMap::new(),
            under_way: AtomicUsize::new(0),
            room: Semaphore::new(AT_ONCE),
        };
        if stores {
            shared.askers.iter().for_each(|asker| {
                asker.how();
            });
        }
        Self { shared: Arc::new(shared) }
    }

    /// Whether a source knows this mailbox.
    pub fn knows(&self, mailbox: &Mailbox) -> bool {
        self.shared.askers_for(mailbox).next().is_some()
    }

    /// Whether a source tells whose alias this address of ours is.
    pub fn knows_aliases(&self, mailbox: &Mailbox) -> bool {
        self.shared.askers_for(mailbox).any(|asker| asker.takes_aliases())
    }

    /// How long a mail waits for the sources of this mailbox at most.
    pub fn wait_for(&self, mailbox: &Mailbox) -> Duration {
        let all: Duration = self.shared.askers_for(mailbox).map(|asker| asker.source.timeout).sum();
        // They are given up first, so that it is known which one of them did not answer.
        all.min(LONGEST).saturating_add(GRACE)
    }

    /// Asks the sources of all these mailboxes at once; each is told of, whatever becomes of it.
    pub async fn look_up(&self, mailboxes: Vec<Mailbox>) -> HashMap<MailboxKey, Arc<Told>> {
        let mut tasks = JoinSet::new();
        for mailbox in mailboxes {
            let all = self.clone();
            tasks.spawn(async move { (mailbox.key(), all.one(mailbox).await) });
        }
        let mut all = HashMap::new();
        while let Some(told) = tasks.join_next().await {
            // Of one that ended in a defect nothing is known: it counts as not asked.
            all.extend(told.ok());
        }
        all
    }

    async fn one(&self, mailbox: Mailbox) -> Arc<Told> {
        let unanswered = |why: String| Arc::new(Told { unanswered: Some(why), ..Told::default() });
        let wait = self.wait_for(&mailbox);
        let Some(mut flight) = self.flight(&mailbox) else {
            return unanswered("too many mailboxes are looked up at this moment".to_owned());
        };
        let told = tokio::time::timeout(wait, flight.wait_for(Option::is_some)).await;
        match told {
            Ok(Ok(told)) => told.clone().unwrap_or_default(),
            Ok(Err(_)) => unanswered("the look-up ended in a defect".to_owned()),
            Err(_) => unanswered(format!("no answer within {wait:?} of the sources that may know <{mailbox}>")),
        }
    }

    /// The look-up of this mailbox: the one that is under way, or a new one.
    fn flight(&self, mailbox: &Mailbox) -> Option<Flight> {
        let shared = &self.shared;
        match shared.flights.entry(mailbox.key()) {
            Entry::Occupied(flight) => Some(flight.get().clone()),
            Entry::Vacant(place) => {
                if shared.under_way.fetch_add(1, Ordering::AcqRel) >= UNDER_WAY {
                    shared.under_way.fetch_sub(1, Ordering::AcqRel);
                    return None;
                }
                let (sender, receiver) = watch::channel(None);
                place.insert(receiver.clone());
                let (shared, mailbox) = (shared.clone(), mailbox.clone());
                tokio::spawn(async move {
                    let landing = Landing { shared: shared.clone(), mailbox: mailbox.key() };
                    let told = shared.look(&mailbox).await;
                    // Before those who wait are told: who comes after them finds what came in the store, or remembered.
                    drop(landing);
                    let _ = sender.send(Some(Arc::new(told)));
                });
                Some(receiver)
            }
        }
    }
}

/// Takes a look-up off the list, however it ends.
struct Landing {
    shared: Arc<Shared>,
    mailbox: MailboxKey,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shared.flights.remove(&self.mailbox);
        self.shared.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What one source's answer came to.
#[derive(Default)]
struct Sorted {
    /// May be used, if the store lets it: with where it stands, and whether a DANE-EE record stands for it.
    good: Vec<Brought>,
    unusable: Vec<(CertificateRecord, String)>,
    foreign: usize,
}

impl Shared {
    fn askers_for(&self, mailbox: &Mailbox) -> impl Iterator<Item = &Arc<Asker>> {
        self.askers.iter().filter(|asker| asker.source.knows(mailbox, &self.ours))
    }

    /// Asks one source after the other, until one brings a certificate that may be used.
    async fn look(self: &Arc<Self>, mailbox: &Mailbox) -> Told {
        let Ok(_room) = self.room.acquire().await else { return Told::default() };
        let mut told = Told::default();
        let mut missing: Vec<String> = Vec::new();
        // What was seen so far, for sources that only say what a certificate is.
        let mut seen: Vec<(Certificate, String)> = Vec::new();
        let mut said: Vec<(Arc<Asker>, Arc<Found>)> = Vec::new();
        for asker in self.askers_for(mailbox) {
            let name = &asker.source.name;
            let found = match asker.ask(mailbox, &self.metrics).await {
                Ok(found) => found,
                Err(why) => {
                    told.notes.push(format!("{name}: no answer: {why}"));
                    missing.push(format!("{name}: {why}"));
                    continue;
                }
            };
            if let Some(why) = &found.unreadable {
                told.notes.push(format!("{name}: {why}"));
                missing.push(format!("{name}: {why}"));
            }
            if found.is_empty() {
                told.notes.push(format!("{name}: no certificate of <{mailbox}>"));
                continue;
            }
            seen.extend(found.certificates.iter().cloned());
            said.push((asker.clone(), found));
            // What an earlier source only said of a certificate may fit one that this source brought.
            for (asker, found) in &said {
                match self.settle(mailbox, asker, found, &seen, &mut told).await {
                    Ok(true) => return Told { unanswered: None, brought: true, ..told },
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(%error, %mailbox, "what a source brought could not be stored");
                        missing.push("the certificate store cannot be changed".to_owned());
                    }
                }
            }
        }
        told.unanswered = (!missing.is_empty()).then(|| missing.join("; "));
        told
    }

    /// Checks and stores what a source brought; whether there is now a certificate that may be used.
    async fn settle(
        self: &Arc<Self>,
        mailbox: &Mailbox,
        asker: &Arc<Asker>,
        found: &Arc<Found>,
        seen: &[(Certificate, String)],
        told: &mut Told,
    ) -> Result<bool, StoreError> {
        let shared = self.clone();
        let (to, asker, found, seen) = (mailbox.clone(), asker.clone(), found.clone(), seen.to_vec());
        // The store waits for the disk, and for the network where it is shared.
        let settled = tokio::task::spawn_blocking(move || shared.settle_now(&to, &asker, &found, &seen));
        let settled = settled.await.map_err(|_| StoreError::Io("a change ended in a defect".to_owned()))??;
        for note in settled.notes {
            if !told.notes.contains(&note) {
                told.notes.push(note);
            }
        }
        for (record, why) in settled.unusable {
            if !told.unusable.iter().any(|(known, _)| known.certificate == record.certificate) {
                told.unusable.push((record, why));
            }
        }
        told.would_store.extend(settled.would_store);
        Ok(settled.usable)
    }

    fn settle_now(
        &self,
        mailbox: &Mailbox,
        asker: &Asker,
        found: &Found,
        seen: &[(Certificate, String)],
    ) -> Result<Settled, StoreError> {
        let source = &asker.source;
        let mut settled = Settled::default();
        self.take_alias(mailbox, asker, found, &mut settled)?;
        let (known, trust) = (self.store.identity(mailbox)?, self.store.trust()?);
        let at = Timestamp::now();
        let sorted = self.sorted(mailbox, &known, &trust, asker, found, seen, at);
        if sorted.foreign > 0 {
            settled.notes.push(format!("{}: {} of other addresses, left out", source.name, sorted.foreign));
        }
        let looked_at = sorted.good.len().saturating_add(sorted.unusable.len());
        settled.notes.push(match looked_at {
            0 => format!("{}: no certificate of <{mailbox}>", source.name),
            _ => format!("{}: {looked_at} of <{mailbox}>, {} of them fit", source.name, sorted.good.len()),
        });
        settled.unusable = sorted.unusable;
        if sorted.good.is_empty() {
            return Ok(settled);
        }
        let mut outcomes = Vec::new();
        if self.stores {
            let room = trust.intermediates.len() < INTERMEDIATES;
            self.store.revise(&known.owner, &mut |identity| {
                let mut revision: Revision;
                (revision, outcomes) = decide(identity, &sorted.good, source, at);
                if room && !revision.add.is_empty() {
                    revision.intermediates =
                        sorted.good.iter().flat_map(|one| one.chain.iter().cloned()).collect::<Vec<_>>();
                }
                revision
            })?;
        } else {
            let revision;
            (revision, outcomes) = decide(&known, &sorted.good, source, at);
            let noted = |name: [u8; 32]| revision.edit.iter().find(|edit| edit.fingerprint == name);
            settled.would_store = revision
                .add
                .iter()
                .map(|new| CertificateRecord {
                    note: noted(new.certificate.fingerprint()).and_then(|edit| edit.note.clone()),
                    ..record(&new.certificate, new.trust, new.provenance.clone())
                })
                .collect();
        }
        for outcome in &outcomes {
            let (fingerprint, state) = (hex(&outcome.fingerprint), outcome.trust.word());
            settled.notes.push(format!("{}: {} is {state}: {}", source.name, &**fingerprint, outcome.why));
            tracing::info!(target: "waxwing::discovery", mailbox = %known.owner, fingerprint = &**fingerprint, state, why = outcome.why, source = source.name, "discovery");
        }
        settled.usable = outcomes.iter().any(|outcome| outcome.trust == TrustState::Trusted);
        Ok(settled)
    }

    /// Whose address it is, by a directory of our own domains.
    fn take_alias(
        &self,
        mailbox: &Mailbox,
        asker: &Asker,
        found: &Found,
        settled: &mut Settled,
    ) -> Result<(), StoreError> {
        let Some(owner) = found.belongs_to.as_ref().filter(|_| asker.takes_aliases()) else { return Ok(()) };
        let ours = |one: &Mailbox| self.ours.contains(one.domain()) && asker.source.knows(one, &self.ours);
        if !ours(mailbox) || !ours(owner) || owner.key() == mailbox.key() {
            return Ok(());
        }
        let identity = self.store.identity(mailbox)?;
        // An alias already; or a mailbox with something of its own, which stays one.
        if identity.owner != Owner::Mailbox(mailbox.key()) || identity.generation > 0 {
            return Ok(());
        }
        settled.notes.push(format!("{}: <{mailbox}> belongs to <{owner}>", asker.source.name));
        if self.stores {
            tracing::info!(target: "waxwing::discovery", alias = %mailbox, mailbox = %owner, source = asker.source.name, "an alias");
            self.store.add_alias(&mailbox.key(), &owner.key())?;
            settled.usable = self.store.identity(mailbox)?.certificates.iter().any(|record| {
                matches!(record.trust, TrustState::Trusted | TrustState::Pinned)
                    && record.certificate.fits(Purpose::Encryption).is_ok()
            });
        }
        Ok(())
    }

    /// Looks at every certificate: whose it is, and whether it has a path.
    #[expect(clippy::too_many_arguments, reason = "all of them are asked of each certificate")]
    fn sorted(
        &self,
        mailbox: &Mailbox,
        known: &Identity,
        trust: &TrustSet,
        asker: &Asker,
        found: &Found,
        seen: &[(Certificate, String)],
        at: Timestamp,
    ) -> Sorted {
        let source = &asker.source;
        let mut sorted = Sorted::default();
        let extra: Vec<Certificate> = (found.certificates.iter().chain(seen))
            .map(|(one, _)| one)
            .filter(|one| one.is_ca())
            .chain(found.cas().iter())
            .cloned()
            .collect();
        let dane = asker.dane_alone();
        let mut candidates: Vec<(Certificate, String)> =
            found.certificates.iter().filter(|(one, _)| !one.is_ca()).cloned().collect();
        for (association, place) in &found.associations {
            let elsewhere = (seen.iter().map(|(one, _)| one))
                .chain(known.certificates.iter().map(|record| &record.certificate))
                .filter(|one| !one.is_ca());
            for one in elsewhere {
                let ends = association.usage.is_end_entity() && association.matches(one);
                let through = !association.usage.is_end_entity()
                    && self
                        .path(one, &extra, trust, mailbox, at)
                        .is_ok_and(|chain| chain.iter().skip(1).any(|ca| association.matches(ca)));
                if (ends || through) && !candidates.iter().any(|(known, _)| known == one) {
                    candidates.push((one.clone(), place.clone()));
                }
            }
        }
        for (certificate, place) in candidates.into_iter().take(source.certificates) {
            let owned = match &known.owner {
                Owner::Mailbox(owner) => certificate.names(owner, self.in_subject),
                Owner::Domain(_) => false,
            };
            if !owned && !certificate.names(&mailbox.key(), self.in_subject) {
                sorted.foreign = sorted.foreign.saturating_add(1);
                continue;
            }
            let by_itself = dane
                && found.associations.iter().any(|(one, _)| one.usage == Usage::DaneEe && one.matches(&certificate));
            match self.path(&certificate, &extra, trust, mailbox, at) {
                Ok(chain) => {
                    let chain = match chain.as_slice() {
                        [_, middle @ .., _] => middle.to_vec(),
                        _ => Vec::new(),
                    };
                    sorted.good.push(Brought { certificate, place, chain, alone: false });
                }
                Err(_) if by_itself && stands_alone(&certificate, mailbox.domain(), at, &self.limits).is_ok() => {
                    sorted.good.push(Brought { certificate, place, chain: Vec::new(), alone: true });
                }
                Err(why) => {
                    let provenance = Provenance { source: source.word().to_owned(), detail: place, at };
                    sorted.unusable.push((record(&certificate, TrustState::Trusted, provenance), why));
                }
            }
        }
        sorted
    }

    /// The path of a certificate to encrypt to.
    fn path(
        &self,
        certificate: &Certificate,
        extra: &[Certificate],
        trust: &TrustSet,
        mailbox: &Mailbox,
        at: Timestamp,
    ) -> Result<Vec<Certificate>, String> {
        validate(certificate, extra, trust, Purpose::Encryption, Some(mailbox.domain()), at, &self.limits)
            .map(|path| path.chain().to_vec())
            .map_err(|error| error.to_string())
    }
}

/// What came of one answer.
#[derive(Default)]
struct Settled {
    usable: bool,
    unusable: Vec<(CertificateRecord, String)>,
    would_store: Vec<CertificateRecord>,
    notes: Vec<String>,
}

fn record(certificate: &Certificate, trust: TrustState, provenance: Provenance) -> CertificateRecord {
    CertificateRecord {
        certificate: certificate.clone(),
        provenance,
        trust,
        capabilities: None,
        learned: None,
        preferred: false,
        key: None,
        last_seen: None,
        note: None::<Note>,
    }
}

impl Found {
    fn octets(&self) -> usize {
        let certificates = self.certificates.iter().map(|(one, place)| one.der().len() + place.len());
        certificates.chain(self.associations.iter().map(|(one, place)| one.data.len() + place.len())).sum()
    }

    fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.associations.is_empty() && self.belongs_to.is_none()
    }

    /// Certificates of CAs that records name whole.
    fn cas(&self) -> Vec<Certificate> {
        let of_ca = |(one, _): &(Association, String)| one.certificate().ok().flatten().filter(Certificate::is_ca);
        self.associations.iter().filter_map(of_ca).collect()
    }
}

impl Asker {
    fn new(source: &Source) -> Self {
        let kept = Cache::with_weighter(REMEMBERED, MEMORY, Octets);
        Self { source: source.clone(), how: OnceLock::new(), kept }
    }

    fn how(&self) -> &How {
        let source = &self.source;
        self.how.get_or_init(|| {
            let how = match &source.kind {
                SourceKind::Ldap(ldap) => ldap::Directory::new(ldap).map(How::Ldap),
                SourceKind::Smimea(smimea) => smimea::Resolver::new(smimea, source.timeout).map(How::Smimea),
            };
            how.unwrap_or_else(|why| {
                tracing::error!(source = source.name, why, "a source cannot be asked: mail that needs it waits");
                How::Broken(why)
            })
        })
    }

    fn takes_aliases(&self) -> bool {
        matches!(&self.source.kind, SourceKind::Ldap(ldap) if ldap.aliases)
    }

    fn dane_alone(&self) -> bool {
        matches!(&self.source.kind, SourceKind::Smimea(smimea) if smimea.dane_alone)
    }

    /// What the source has of a mailbox: as it said before, or asked now.
    async fn ask(&self, mailbox: &Mailbox, metrics: &Metrics) -> Result<Arc<Found>, Arc<str>> {
        let key = mailbox.key();
        if let Some(kept) = self.kept.get(&key).filter(|kept| Instant::now() < kept.until) {
            return kept.said;
        }
        let asked = async {
            match self.how() {
                How::Ldap(directory) => directory.ask(mailbox, &self.source).await,
                How::Smimea(resolver) => resolver.ask(mailbox, &self.source).await,
                How::Broken(why) => Err(why.clone()),
            }
        };
        let said = tokio::time::timeout(self.source.timeout, asked).await;
        metrics.sources.one(
            &self.source.name,
            match &said {
                Ok(Ok(found)) if found.unreadable.is_some() => Said::Unanswered,
                Ok(Ok(found)) if found.is_empty() => Said::Nothing,
                Ok(Ok(_)) => Said::Found,
                Ok(Err(_)) | Err(_) => Said::Unanswered,
            },
        );
        let said = said.unwrap_or_else(|_| {
            self.stalls(mailbox);
            Err(format!("no answer within {:?}", self.source.timeout))
        });
        if let Err(why) = &said {
            tracing::warn!(source = self.source.name, %mailbox, why, "a source of certificates gave no answer");
        }
        let said = said.map(Arc::new).map_err(Arc::from);
        let holds = if said.is_ok() { self.source.remember } else { FAILURE_HOLDS };
        self.kept.insert(key, Kept { said: said.clone(), until: Instant::now() + holds });
        said
    }

    fn stalls(&self, mailbox: &Mailbox) {
        match self.how() {
            How::Ldap(directory) => directory.stalls(),
            How::Smimea(resolver) => resolver.stalls(mailbox.domain()),
            How::Broken(_) => {}
        }
    }
}

/// Provenance of a certificate by its source: only SMIMEA records stand alone.
pub(crate) fn is_dane(record: &CertificateRecord) -> bool {
    record.provenance.source == BY_SMIMEA && record.note.as_ref().is_some_and(|note| note.why == decide::DANE_EE)
}

/// Whether a source that is trusted to say so brought it.
fn is_trusting(source: &Source) -> bool {
    source.mode == DiscoveryMode::Trust
}

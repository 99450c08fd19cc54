//! The thread that changes the store: one announcement after the other, so many changes a second at most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::{self, error::TryRecvError};

use super::book::Book;
use super::decide::{CHANGED, Decision, Named, Outcome, Sighting, decide};
use super::{Offer, Shared};
use crate::cms::signed::CertificateId;
use crate::config::HarvestMode;
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::path::{PathLimits, TrustSet, validate};
use crate::policy::TrustState;
use crate::store::keyring::hex;
use crate::store::{CertificateRecord, ChangeEvent, Identity, Owner, Revision, StoreError};

/// How often changes by others are looked at where nothing is announced.
const LOOK: Duration = Duration::from_secs(1);
/// Intermediates in the store, beyond which none is taken from mail.
const INTERMEDIATES: usize = 1_000;

/// Works until everybody who could announce something is gone.
pub(super) fn run(shared: &Shared, offers: &Receiver<Offer>) {
    let mut worker = Worker { shared, book: Book::default(), changes: shared.store.subscribe(), next: Instant::now() };
    worker.scan();
    loop {
        match offers.recv_timeout(LOOK) {
            Ok(offer) => {
                worker.follow();
                worker.handle(offer);
                shared.counters.handled.fetch_add(1, Ordering::Release);
            }
            Err(RecvTimeoutError::Timeout) => worker.follow(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

struct Worker<'w> {
    shared: &'w Shared,
    book: Book,
    changes: broadcast::Receiver<ChangeEvent>,
    /// No change of the store before.
    next: Instant,
}

impl Worker<'_> {
    /// Counts anew what was harvested.
    fn scan(&mut self) {
        let mut book = Book::default();
        if let Err(error) = self.shared.store.each_identity(&mut |identity| book.set(&identity)) {
            tracing::error!(%error, "what was harvested cannot be counted");
        }
        self.book = book;
    }

    /// Takes note of changes, by others too.
    fn follow(&mut self) {
        loop {
            match self.changes.try_recv() {
                Ok(ChangeEvent::Owner(owner)) => self.note(&owner),
                Ok(ChangeEvent::Trust) => {}
                Ok(ChangeEvent::All) | Err(TryRecvError::Lagged(_)) => self.scan(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn note(&mut self, owner: &Owner) {
        match self.shared.store.identity_of(owner) {
            Ok(identity) => self.book.set(&identity),
            Err(error) => tracing::error!(%error, %owner, "what was harvested of an owner cannot be counted"),
        }
    }

    fn handle(&mut self, offer: Offer) {
        if let Err(error) = self.try_handle(offer) {
            tracing::error!(target: "waxwing::harvest", %error, "what a mail announced could not be kept");
        }
    }

    fn try_handle(&mut self, offer: Offer) -> Result<(), StoreError> {
        let shared = self.shared;
        let settings = &shared.settings;
        let known = shared.store.identity(&offer.mailbox)?;
        let trust = shared.store.trust()?;
        let mode = settings.mode_for(&offer.mailbox);
        let Some((sighting, chain)) = checked(&offer, &trust, &shared.limits) else { return Ok(()) };
        let decided =
            |identity: &Identity| decide(identity, &sighting, mode, settings.capabilities, settings.per_mailbox);
        let first = decided(&known);
        count(&shared.counters.full, first.full);
        if first.is_empty() || !self.has_room(&first, mode) {
            return Ok(());
        }
        self.pace();
        let mut last = Decision::default();
        let room = trust.intermediates.len() < INTERMEDIATES;
        shared.store.revise(&known.owner, &mut |identity| {
            last = decided(identity);
            let mut revision = std::mem::take(&mut last.revision);
            if room && !revision.add.is_empty() {
                revision.intermediates.clone_from(&chain);
            }
            revision
        })?;
        last.outcomes.iter().for_each(|outcome| self.tell(&known.owner, outcome, &sighting));
        self.follow();
        Ok(())
    }

    /// Whether what is to be added has room in the whole store; pending ones make place for pending ones.
    fn has_room(&mut self, decision: &Decision, mode: HarvestMode) -> bool {
        let settings = &self.shared.settings;
        let new = decision.revision.add.len();
        if new == 0 {
            return true;
        }
        if self.book.harvested().saturating_add(new)
            > settings.certificates.saturating_add(decision.revision.remove.len())
        {
            let new = u64::try_from(new).unwrap_or(u64::MAX);
            if count(&self.shared.counters.full, new) == 0 {
                tracing::warn!(target: "waxwing::harvest", certificates = settings.certificates, ?mode, "as many certificates as [harvest] certificates says were harvested: no more are taken");
            }
            return false;
        }
        let pending = decision.revision.add.iter().filter(|new| new.trust == TrustState::Pending).count();
        let leaving = decision.revision.remove.len();
        while self.book.pending().saturating_add(pending) > settings.pending.saturating_add(leaving) && pending > 0 {
            if !self.push_out() {
                count(&self.shared.counters.full, u64::try_from(pending).unwrap_or(u64::MAX));
                return false;
            }
        }
        true
    }

    /// Removes the pending one that goes first; false where there is none.
    fn push_out(&mut self) -> bool {
        let Some((owner, fingerprint)) = self.book.to_push_out() else { return false };
        self.pace();
        let mut left = None;
        let revised = self.shared.store.revise(&owner, &mut |identity| {
            let pending = |one: &&CertificateRecord| {
                one.certificate.fingerprint() == fingerprint && one.trust == TrustState::Pending
            };
            let remove = identity.certificates.iter().filter(pending).map(|_| fingerprint).collect();
            let mut rest = identity.clone();
            rest.certificates.retain(|one| !pending(&one));
            left = Some(rest);
            Revision { remove, ..Revision::default() }
        });
        match (revised, left) {
            (Ok(_), Some(left)) => {
                tracing::info!(target: "waxwing::harvest", mailbox = %owner, fingerprint = &**hex(&fingerprint), "a pending certificate made place for others");
                count(&self.shared.counters.pushed_out, 1);
                self.book.set(&left);
                true
            }
            (Ok(_), None) => false,
            (Err(error), _) => {
                tracing::error!(target: "waxwing::harvest", %error, "a pending certificate cannot be removed");
                false
            }
        }
    }

    /// Waits until the store may be changed again.
    fn pace(&mut self) {
        let gap = Duration::from_secs(1) / self.shared.settings.writes.max(1);
        std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.next = Instant::now() + gap;
    }

    fn tell(&self, owner: &Owner, outcome: &Outcome, sighting: &Sighting) {
        let counters = &self.shared.counters;
        let pending = outcome.trust == TrustState::Pending;
        count(if pending { &counters.pending } else { &counters.trusted }, 1);
        let instead_of = outcome.instead_of.map(|old| hex(&old).to_string()).unwrap_or_default();
        let fingerprint = hex(&outcome.certificate.fingerprint()).to_string();
        let (issuer, state, why) = (outcome.certificate.issuer_text(), outcome.trust.word(), outcome.why);
        let message_id = &sighting.message_id;
        if outcome.why == CHANGED {
            tracing::warn!(target: "waxwing::harvest", mailbox = %owner, fingerprint, issuer, state, why, instead_of, message_id, "harvest");
        } else {
            tracing::info!(target: "waxwing::harvest", mailbox = %owner, fingerprint, issuer, state, why, instead_of, message_id, "harvest");
        }
    }
}

fn count(counter: &AtomicU64, by: u64) -> u64 {
    counter.fetch_add(by, Ordering::AcqRel)
}

/// What was announced, read again and checked; and the CA certificates of its paths. `None`: it cannot be read, or has no valid path
/// any more.
fn checked(offer: &Offer, trust: &TrustSet, limits: &PathLimits) -> Option<(Sighting, Vec<Certificate>)> {
    let read = |der: &bytes::Bytes| Certificate::from_der(der.clone()).ok();
    let signer = read(&offer.signer)?;
    let mut chain: Vec<Certificate> = offer.chain.iter().filter_map(read).collect();
    let company: Vec<Certificate> = offer.company.iter().filter_map(read).collect();
    let extra: Vec<Certificate> = chain.iter().chain(&company).cloned().collect();
    let domain = offer.mailbox.domain();
    let path = |leaf: &Certificate, purpose| validate(leaf, &extra, trust, purpose, Some(domain), offer.at, limits);
    // Anchors may have gone while it waited.
    if path(&signer, Purpose::Signature).is_err() || !signer.is_for(&offer.mailbox.key()) {
        return None;
    }
    let mut named = None;
    if let Some(id) = offer.preference.as_ref().filter(|id| !id.names(&signer)) {
        let candidates: Vec<&Certificate> = company.iter().filter(|one| id.names(one)).collect();
        let by_serial = matches!(id, CertificateId::IssuerAndSerial { .. });
        for one in &candidates {
            if !one.is_for(&offer.mailbox.key()) {
                continue;
            }
            let Ok(found) = path(one, Purpose::Encryption) else { continue };
            if let [_, middle @ .., _] = found.chain() {
                chain.extend(middle.iter().filter(|ca| !offer.chain.contains(ca.der())).cloned());
            }
            named = Some(Named { certificate: (*one).clone(), exact: by_serial && candidates.len() == 1 });
            break;
        }
    }
    let sighting = Sighting {
        signer,
        preference: offer.preference.clone(),
        named,
        capabilities: offer.capabilities.clone(),
        signing_time: offer.signing_time,
        message_id: offer.message_id.clone(),
        at: offer.at,
    };
    Some((sighting, chain))
}

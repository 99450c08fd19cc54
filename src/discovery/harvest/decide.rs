//! What becomes of one announcement: pure, by what the store holds of the mailbox at that moment.
//!
//! The words: a mail *speaks* for its mailbox when it is signed with a certificate that is trusted there already (or with the same key,
//! renewed by the same CA). Only then does its SMIMEEncryptionKeyPreference prove another certificate, and only by issuer and serial number:
//! a CA gives those out once, while a key identifier may be whatever somebody asked a CA to put there; and only where the message carries one
//! certificate of that name, for no signature covers the certificates that it carries. A second SignerInfo proves nothing: anybody can add his
//! own to somebody else's mail.

use jiff::{SignedDuration, Timestamp};

use super::day;
use crate::cms::algorithm::Capabilities;
use crate::cms::signed::CertificateId;
use crate::config::HarvestMode;
use crate::pki::certificate::{Certificate, Purpose};
use crate::policy::TrustState;
use crate::store::{
    BY_HAND, BY_HARVEST, CertificateRecord, Edit, Identity, NewCertificate, Note, Provenance, Revision,
};

/// A signing time this far ahead of ours is no time to go by.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// The certificate that the preference names, as the message brought it, checked by itself: valid path for encryption, its SAN holds the
/// mailbox.
pub(super) struct Named {
    pub certificate: Certificate,
    /// By issuer and serial number, and nothing else in the message has that name.
    pub exact: bool,
}

/// What a valid signature announced, checked.
pub(super) struct Sighting {
    /// Its path is valid for signing, its SAN holds the mailbox, which is the message's From.
    pub signer: Certificate,
    pub preference: Option<CertificateId>,
    /// `None` too where the preference names the signer's own.
    pub named: Option<Named>,
    pub capabilities: Option<Capabilities>,
    pub signing_time: Option<Timestamp>,
    pub message_id: String,
    pub at: Timestamp,
}

/// What is done with a certificate that was not there, or changes its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub certificate: Certificate,
    pub trust: TrustState,
    pub why: &'static str,
    pub instead_of: Option<[u8; 32]>,
    /// It was there, pending.
    pub approved: bool,
}

/// What is to be done.
#[derive(Default)]
pub(super) struct Decision {
    pub revision: Revision,
    pub outcomes: Vec<Outcome>,
    /// Certificates that found no place in the mailbox.
    pub full: u64,
}

impl Decision {
    pub fn is_empty(&self) -> bool {
        let Revision { add, edit, remove, .. } = &self.revision;
        add.is_empty() && edit.is_empty() && remove.is_empty()
    }
}

pub(super) const FIRST: &str = "the first certificate seen of this mailbox";
pub(super) const CHANGED: &str = "another key than the one that is trusted: approve it when the owner confirms it";
pub(super) const UNSURE: &str = "nothing of this mailbox was approved yet";
pub(super) const LOOSE: &str =
    "named by a key identifier alone, or by a name that several certificates of the mail have";
pub(super) const RENEWED: &str = "the key that is trusted, certified anew by the same CA";
pub(super) const PROVEN: &str = "named in a mail that was signed with the key that is trusted";

/// What is to be done, by what is known of the mailbox. `per_mailbox`: harvested certificates of one mailbox at most.
pub(super) fn decide(
    identity: &Identity,
    seen: &Sighting,
    mode: HarvestMode,
    learns: bool,
    per_mailbox: usize,
) -> Decision {
    let mut deciding = Deciding { identity, seen, mode, decision: Decision::default() };
    // What was rejected says nothing here, under whatever certificate its key comes.
    if identity.disabled || deciding.is_rejected(&seen.signer) {
        return Decision::default();
    }
    let signer = deciding.of_signer();
    let speaks = match deciding.record(&seen.signer) {
        Some(record) => is_trusted(record),
        None => matches!(&signer, Some(outcome) if outcome.why == RENEWED),
    };
    let named = deciding.of_named(speaks);
    let may_encrypt = |certificate: &Certificate| certificate.fits(Purpose::Encryption).is_ok();
    // A certificate that can only sign is kept beside one to encrypt to: alone it would be in the way of mail to a mailbox for which
    // there is nothing to encrypt to.
    let beside = named.is_some() || identity.certificates.iter().any(|record| may_encrypt(&record.certificate));
    let signer = signer.filter(|outcome| may_encrypt(&outcome.certificate) || beside);
    deciding.decision.outcomes = signer.into_iter().chain(named).collect();
    deciding.make_room(per_mailbox);
    deciding.write(speaks, learns);
    deciding.decision
}

/// Trusted or pinned.
pub(in crate::discovery) fn is_trusted(record: &CertificateRecord) -> bool {
    matches!(record.trust, TrustState::Pinned | TrustState::Trusted)
}

/// The same key: the SubjectPublicKeyInfo octet for octet.
pub(in crate::discovery) fn same_key(one: &Certificate, other: &Certificate) -> bool {
    one.public_key().spki() == other.public_key().spki()
}

struct Deciding<'d> {
    identity: &'d Identity,
    seen: &'d Sighting,
    mode: HarvestMode,
    decision: Decision,
}

impl Deciding<'_> {
    fn record(&self, certificate: &Certificate) -> Option<&CertificateRecord> {
        self.identity.certificates.iter().find(|record| record.certificate == *certificate)
    }

    /// It, or its key under another certificate, was rejected.
    fn is_rejected(&self, certificate: &Certificate) -> bool {
        let blocked = |record: &&CertificateRecord| record.trust == TrustState::Blocked;
        self.identity.certificates.iter().filter(blocked).any(|record| same_key(&record.certificate, certificate))
    }

    /// A trusted certificate with the same key, of the same CA.
    fn renews(&self, certificate: &Certificate) -> Option<&CertificateRecord> {
        self.identity.certificates.iter().filter(|record| is_trusted(record)).find(|record| {
            same_key(&record.certificate, certificate) && record.certificate.issuer() == certificate.issuer()
        })
    }

    /// The trusted certificate in whose place it would come: the newest for the same use.
    fn predecessor(&self, certificate: &Certificate) -> Option<[u8; 32]> {
        let purpose =
            if certificate.fits(Purpose::Encryption).is_ok() { Purpose::Encryption } else { Purpose::Signature };
        let trusted = || self.identity.certificates.iter().filter(|record| is_trusted(record));
        let newest = trusted().rfind(|record| record.certificate.fits(purpose).is_ok()).or(trusted().next_back());
        newest.map(|record| record.certificate.fingerprint())
    }

    fn outcome(&self, certificate: &Certificate, trust: TrustState, why: &'static str) -> Outcome {
        let instead_of = self.predecessor(certificate);
        Outcome { certificate: certificate.clone(), trust, why, instead_of, approved: false }
    }

    /// A certificate that neither is known nor proven.
    fn unproven(&self, certificate: &Certificate, exact: bool) -> Outcome {
        let first = self.identity.certificates.is_empty();
        let trusted_there = self.identity.certificates.iter().any(is_trusted);
        let (trust, why) = match (first, self.mode) {
            (true, HarvestMode::Trust) if exact => (TrustState::Trusted, FIRST),
            (true, HarvestMode::Trust) => (TrustState::Pending, LOOSE),
            (true, _) => (TrustState::Pending, FIRST),
            (false, _) if trusted_there => (TrustState::Pending, CHANGED),
            (false, _) => (TrustState::Pending, UNSURE),
        };
        self.outcome(certificate, trust, why)
    }

    fn of_signer(&self) -> Option<Outcome> {
        let signer = &self.seen.signer;
        if self.record(signer).is_some() || self.mode == HarvestMode::Off {
            return None;
        }
        Some(match self.renews(signer) {
            Some(_) => self.outcome(signer, TrustState::Trusted, RENEWED),
            None => self.unproven(signer, true),
        })
    }

    fn of_named(&self, speaks: bool) -> Option<Outcome> {
        let Named { certificate, exact } = self.seen.named.as_ref()?;
        if self.mode == HarvestMode::Off || self.is_rejected(certificate) {
            return None;
        }
        let proven = speaks && *exact;
        let renewed = speaks && self.renews(certificate).is_some();
        let why = if renewed { RENEWED } else { PROVEN };
        match self.record(certificate) {
            Some(record) if record.trust == TrustState::Pending && (proven || renewed) => {
                Some(Outcome { approved: true, ..self.outcome(certificate, TrustState::Trusted, why) })
            }
            Some(_) => None,
            None if proven || renewed => Some(self.outcome(certificate, TrustState::Trusted, why)),
            None => Some(self.unproven(certificate, *exact)),
        }
    }

    /// Keeps the mailbox within its bound: pending ones, the oldest first, make place; where there are none, the new ones find none.
    fn make_room(&mut self, per_mailbox: usize) {
        let harvested = |record: &&CertificateRecord| record.provenance.source == BY_HARVEST && record.key.is_none();
        let kept = self.identity.certificates.iter().filter(harvested).count();
        let mut pending: Vec<&CertificateRecord> = self.identity.certificates.iter().filter(harvested).collect();
        pending.retain(|record| record.trust == TrustState::Pending);
        let outcomes = &self.decision.outcomes;
        pending.retain(|record| !outcomes.iter().any(|outcome| outcome.certificate == record.certificate));
        // Times are whole seconds: among equals the one that came first goes first.
        pending.sort_by_key(|record| record.provenance.at);
        let mut pending = pending.into_iter();
        let mut room = per_mailbox.saturating_sub(kept);
        let (mut gone, mut full) = (Vec::new(), 0_u64);
        self.decision.outcomes.retain(|outcome| {
            if outcome.approved {
                return true;
            }
            match room.checked_sub(1) {
                Some(left) => room = left,
                None => match pending.next() {
                    Some(oldest) => gone.push(oldest.certificate.fingerprint()),
                    None => {
                        full = full.saturating_add(1);
                        return false;
                    }
                },
            }
            true
        });
        self.decision.revision.remove = gone;
        self.decision.full = full;
    }

    /// The change of the store.
    fn write(&mut self, speaks: bool, learns: bool) {
        let provenance =
            Provenance { source: BY_HARVEST.to_owned(), detail: self.seen.message_id.clone(), at: self.seen.at };
        let mut edits = Vec::new();
        for outcome in &self.decision.outcomes {
            let note = Note { why: outcome.why.to_owned(), instead_of: outcome.instead_of };
            let fingerprint = outcome.certificate.fingerprint();
            if !outcome.approved {
                let certificate = outcome.certificate.clone();
                let provenance = provenance.clone();
                let new = NewCertificate { certificate, provenance, trust: outcome.trust, key: None };
                self.decision.revision.add.push(new);
            }
            let trust = outcome.approved.then_some(outcome.trust);
            edits.push(Edit { fingerprint, trust, note: Some(note), seen: self.today(), ..Edit::default() });
        }
        self.see_again(&mut edits);
        if learns {
            self.learn(speaks, &mut edits);
        }
        self.prefer(speaks, &mut edits);
        let gone = self.decision.revision.remove.clone();
        edits.retain(|edit| !gone.contains(&edit.fingerprint));
        self.decision.revision.edit = edits;
    }

    fn today(&self) -> Option<Timestamp> {
        Timestamp::from_second(day(self.seen.at).saturating_mul(86_400)).ok()
    }

    /// The day on which known certificates were seen: written once a day.
    fn see_again(&self, edits: &mut Vec<Edit>) {
        let named = self.seen.named.as_ref().map(|named| &named.certificate);
        for record in [Some(&self.seen.signer), named].into_iter().flatten().filter_map(|one| self.record(one)) {
            let fresh = record.last_seen.is_none_or(|last| day(last) < day(self.seen.at));
            if fresh && record.trust != TrustState::Blocked && record.key.is_none() {
                edit_of(edits, record.certificate.fingerprint()).seen = self.today();
            }
        }
    }

    /// What the mailbox can read is kept with the certificates that mail for it is encrypted to. Nobody but who signs with a
    /// trusted key says it of a certificate that is trusted and not the one he signed with.
    fn learn(&self, speaks: bool, edits: &mut Vec<Edit>) {
        let Some(reads) = &self.seen.capabilities else { return };
        let at = match self.seen.signing_time {
            Some(signed) if signed > self.seen.at + AHEAD => return,
            Some(signed) => Some(signed.min(self.seen.at)),
            None => None,
        };
        let by = Provenance {
            source: "mail".to_owned(),
            detail: self.seen.message_id.clone(),
            at: at.unwrap_or(self.seen.at),
        };
        for certificate in self.readers(speaks) {
            let known = self.record(certificate);
            if known.is_none() && !self.is_added(certificate) {
                continue;
            }
            let news = match known.and_then(|record| record.learned.as_ref()) {
                None => known.is_none_or(|record| record.capabilities.as_ref() != Some(reads)),
                Some(before) if before.source == BY_HAND => false,
                // RFC 8551 section 2.5.2: the newest word counts; the same word again only counts as newer once a day.
                Some(before) => at.is_some_and(|at| {
                    let other = known.and_then(|record| record.capabilities.as_ref()) != Some(reads);
                    if other { at > before.at } else { day(at) > day(before.at) }
                }),
            };
            if news {
                edit_of(edits, certificate.fingerprint()).capabilities = Some(Some((reads.clone(), by.clone())));
            }
        }
    }

    fn is_added(&self, certificate: &Certificate) -> bool {
        self.decision.outcomes.iter().any(|outcome| outcome.certificate == *certificate)
    }

    /// The certificates that the capabilities are about.
    fn readers(&self, speaks: bool) -> Vec<&Certificate> {
        let seen = self.seen;
        let preferred = self.preferred();
        let about = preferred.as_ref().filter(|one| ***one != seen.signer);
        if let Some(one) = about {
            // Of one that waits, its owner is not yet known: nobody says more of it than came with it.
            return if speaks || self.record(one).is_none() { vec![*one] } else { Vec::new() };
        }
        if seen.signer.fits(Purpose::Encryption).is_ok() {
            return vec![&seen.signer];
        }
        let own = self.identity.certificates.iter().filter(|record| speaks && is_trusted(record));
        own.map(|record| &record.certificate).filter(|one| one.fits(Purpose::Encryption).is_ok()).collect()
    }

    /// The certificate that the preference names: in the store, or brought along.
    fn preferred(&self) -> Option<&Certificate> {
        let id = self.seen.preference.as_ref()?;
        let known = self.identity.certificates.iter().map(|record| &record.certificate);
        let brought = self.seen.named.iter().map(|named| &named.certificate);
        known.chain(brought).chain([&self.seen.signer]).find(|one| id.names(one))
    }

    /// The preferred one among those that are trusted: as the mailbox's own word says, or the renewed one in its predecessor's place.
    fn prefer(&self, speaks: bool, edits: &mut Vec<Edit>) {
        if !speaks && !self.identity.certificates.is_empty() {
            return;
        }
        let becomes_trusted = |one: &Certificate| {
            let mut outcomes = self.decision.outcomes.iter();
            outcomes.any(|outcome| outcome.trust == TrustState::Trusted && outcome.certificate == *one)
        };
        let renewed = || {
            let renewed = self.decision.outcomes.iter().find(|outcome| outcome.why == RENEWED)?;
            self.renews(&renewed.certificate).filter(|before| before.preferred).map(|_| &renewed.certificate)
        };
        let Some(one) = self.preferred().or_else(renewed) else { return };
        let known = self.record(one);
        let already = known.is_some_and(|record| record.preferred);
        if !already && (known.is_some_and(is_trusted) || becomes_trusted(one)) && one.fits(Purpose::Encryption).is_ok()
        {
            edit_of(edits, one.fingerprint()).prefer = true;
        }
    }
}

/// The edit of a certificate, begun where there is none.
fn edit_of(edits: &mut Vec<Edit>, fingerprint: [u8; 32]) -> &mut Edit {
    let at = edits.iter().position(|edit| edit.fingerprint == fingerprint).unwrap_or_else(|| {
        edits.push(Edit { fingerprint, ..Edit::default() });
        edits.len().saturating_sub(1)
    });
    // Found, or pushed just now.
    #[allow(clippy::indexing_slicing, reason = "the place was found or made just before")]
    &mut edits[at]
}

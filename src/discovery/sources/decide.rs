//! What becomes of a certificate that a source brought, by what the store holds of the mailbox at that moment (A10). P.

use jiff::Timestamp;

use super::is_trusting;
use crate::address::Domain;
use crate::config::Source;
use crate::discovery::harvest::{is_trusted, same_key};
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::path::{AnchorScope, PathError, PathLimits, TrustAnchor, TrustSet, ValidPath, validate};
use crate::policy::TrustState;
use crate::store::{BY_LDAP, BY_SMIMEA, CertificateRecord, Edit, Identity, NewCertificate, Note, Provenance, Revision};

/// A certificate that names the mailbox and may be encrypted to.
#[derive(Debug, Clone)]
pub(super) struct Brought {
    pub certificate: Certificate,
    /// URL or DNS name.
    pub place: String,
    /// CA certificates of its path, the anchor left out.
    pub chain: Vec<Certificate>,
    /// It has no path: a DANE-EE record stands for it.
    pub alone: bool,
}

/// What is done with one that was not there, or changes its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub fingerprint: [u8; 32],
    pub trust: TrustState,
    pub why: &'static str,
}

pub(super) const FIRST: &str = "the first certificate found of this mailbox";
pub(super) const RENEWED: &str = "the key that is trusted, certified anew by the same CA";
pub(super) const FOLLOWS: &str = "in the place of one that the same source brought";
pub(super) const CHANGED: &str = "another key than the one that is trusted: approve it when the owner confirms it";
pub(super) const REMOVED: &str = "what was stored of this mailbox was removed, or one of its certificates was blocked";
pub(super) const CANDIDATE: &str = "the source brings candidates: approve it";
pub(super) const DANE_EE: &str = "a DANE-EE record stands for it";

/// What is to be done.
pub(super) fn decide(
    identity: &Identity,
    brought: &[Brought],
    source: &Source,
    at: Timestamp,
) -> (Revision, Vec<Outcome>) {
    let (mut revision, mut outcomes) = (Revision::default(), Vec::new());
    if identity.disabled {
        return (revision, outcomes);
    }
    let blocked = || identity.certificates.iter().filter(|record| record.trust == TrustState::Blocked);
    for one in brought {
        if blocked().any(|record| same_key(&record.certificate, &one.certificate)) {
            continue;
        }
        let known = identity.certificates.iter().find(|record| record.certificate == one.certificate);
        if known.is_some_and(|record| record.trust != TrustState::Pending) {
            continue;
        }
        let (trust, why) = judge(identity, one, source);
        if known.is_some() && trust == TrustState::Pending {
            continue;
        }
        let fingerprint = one.certificate.fingerprint();
        if known.is_none() {
            let provenance = Provenance { source: source.word().to_owned(), detail: detail(source, &one.place), at };
            revision.add.push(NewCertificate { certificate: one.certificate.clone(), provenance, trust, key: None });
        }
        let written = if one.alone { DANE_EE } else { why };
        let note = Some(Note { why: written.to_owned(), instead_of: predecessor(identity) });
        revision.edit.push(Edit { fingerprint, trust: Some(trust), note, ..Edit::default() });
        outcomes.push(Outcome { fingerprint, trust, why });
    }
    (revision, outcomes)
}

fn judge(identity: &Identity, one: &Brought, source: &Source) -> (TrustState, &'static str) {
    let trusted: Vec<&CertificateRecord> = identity.certificates.iter().filter(|record| is_trusted(record)).collect();
    let renews = |record: &&&CertificateRecord| {
        same_key(&record.certificate, &one.certificate) && record.certificate.issuer() == one.certificate.issuer()
    };
    if trusted.iter().any(|record| renews(&record)) && !one.alone {
        return (TrustState::Trusted, RENEWED);
    }
    // Nothing is stored, and something was once: an administrator took it away.
    let removed = identity.certificates.is_empty() && identity.generation > 0;
    if removed || identity.certificates.iter().any(|record| record.trust == TrustState::Blocked) {
        return (TrustState::Pending, REMOVED);
    }
    let same_source = |record: &&CertificateRecord| {
        let Provenance { source: word, detail, .. } = &record.provenance;
        record.trust == TrustState::Trusted
            && record.key.is_none()
            && *word == source.word()
            && detail.split(' ').next() == Some(&source.name)
    };
    match (trusted.is_empty(), is_trusting(source)) {
        (true, true) => (TrustState::Trusted, FIRST),
        (true, false) => (TrustState::Pending, CANDIDATE),
        (false, true) if trusted.iter().all(same_source) => (TrustState::Trusted, FOLLOWS),
        (false, _) => (TrustState::Pending, CHANGED),
    }
}

/// The source's name, and the place: what [`judge`] reads again.
fn detail(source: &Source, place: &str) -> String {
    debug_assert!([BY_LDAP, BY_SMIMEA].contains(&source.word()));
    format!("{} {place}", source.name)
}

/// The newest trusted one that can be encrypted to.
fn predecessor(identity: &Identity) -> Option<[u8; 32]> {
    let trusted = identity.certificates.iter().rev().filter(|record| is_trusted(record));
    let mut fit = trusted.filter(|record| record.certificate.fits(Purpose::Encryption).is_ok());
    fit.next().map(|record| record.certificate.fingerprint())
}

/// The path of a certificate that a DANE-EE record stands for: itself, for mailboxes of this domain (RFC 6698 section 2.1.1, usage 3). Its
/// time, its key and its usages are looked at as of any other.
///
/// # Errors
/// Why it may not be used even so.
pub fn stands_alone(
    certificate: &Certificate,
    domain: &Domain,
    at: Timestamp,
    limits: &PathLimits,
) -> Result<ValidPath, PathError> {
    let anchor = TrustAnchor { certificate: certificate.clone(), scope: AnchorScope::Domains(vec![domain.clone()]) };
    let alone = TrustSet { anchors: vec![anchor], ..TrustSet::default() };
    validate(certificate, &[], &alone, Purpose::Encryption, Some(domain), at, limits)
}

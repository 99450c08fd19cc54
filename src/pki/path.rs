//! Certification paths to configured anchors (RFC 5280 section 6).

use jiff::Timestamp;

use super::certificate::extensions::usage;
use super::certificate::{Certificate, CertificateError, Purpose};
use super::public_key::KeyKind;
use crate::address::Domain;
use crate::cms::algorithm::{Digest, SignatureScheme, signature_scheme};

mod names;
/// Certificate policies.
mod policies;
mod rules;
#[cfg(test)]
mod tests;

pub use policies::InitialPolicies;

/// Which mailboxes' certificates an anchor may vouch for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorScope {
    /// Everyone's.
    Global,
    /// Only those of these domains.
    Domains(Vec<Domain>),
}

/// A trust anchor.
#[derive(Debug, Clone)]
pub struct TrustAnchor {
    pub certificate: Certificate,
    pub scope: AnchorScope,
}

/// Anchors and intermediates, decoded. Cheap to share; `generation` changes when its content does.
#[derive(Debug, Clone, Default)]
pub struct TrustSet {
    pub anchors: Vec<TrustAnchor>,
    pub intermediates: Vec<Certificate>,
    pub generation: u64,
}

/// Bounds (A11), and what is asked of certificate policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathLimits {
    /// Certificates in a path, anchor included; default 8.
    pub length: usize,
    /// Signature checks in one search, or for one message where several share them, those under slow keys counted for more; default 100.
    pub signatures: usize,
    /// Accept RSA keys under 2048 bits and SHA-1 signatures in certificates: for judging old mail only; default false.
    pub legacy: bool,
    /// SHA-1 in signatures alone.
    pub sha1: bool,
    /// RSA keys of 1024 to 2047 bits alone.
    pub weak_keys: bool,
    /// Which certificate policies are accepted; default: any, and none is needed.
    pub policies: InitialPolicies,
}

impl PathLimits {
    /// All the checks there are.
    pub(crate) fn budget(&self) -> Budget {
        Budget(self.signatures)
    }
    pub(crate) fn takes_sha1(&self) -> bool {
        self.legacy || self.sha1
    }
}

impl Default for PathLimits {
    fn default() -> Self {
        Self {
            length: 8,
            signatures: 100,
            legacy: false,
            sha1: false,
            weak_keys: false,
            policies: InitialPolicies::default(),
        }
    }
}

/// Proof that a path was found and validated: cannot be made elsewhere.
#[derive(Debug, Clone)]
pub struct ValidPath {
    leaf: Certificate,
    chain: Vec<Certificate>,
    scope: AnchorScope,
    not_after: Timestamp,
}

impl ValidPath {
    /// Leaf first, anchor last.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }
    /// The leaf.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }
    /// What the anchor may vouch for.
    pub fn scope(&self) -> &AnchorScope {
        &self.scope
    }
    /// The first expiry in the path: a cached result holds until then at most.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
    /// The same path over octets of its own: the certificates of a message keep its whole body in memory.
    #[cfg(feature = "server")]
    pub(crate) fn detached(&self) -> Option<Self> {
        let own = |one: &Certificate| Certificate::from_der(bytes::Bytes::copy_from_slice(one.der())).ok();
        let chain = self.chain.iter().map(own).collect::<Option<_>>()?;
        Some(Self { leaf: own(&self.leaf)?, chain, scope: self.scope.clone(), not_after: self.not_after })
    }
}

/// What a path is asked for: what its result depends on, beside the limits, which are the memory's.
#[derive(Debug, Clone, Copy)]
pub struct PathQuestion<'q> {
    /// Whose path.
    pub leaf: &'q Certificate,
    /// What came with it.
    pub extra: &'q [Certificate],
    /// Anchors and intermediates.
    pub trust: &'q TrustSet,
    /// What the leaf is to be used for.
    pub purpose: Purpose,
    /// Whose mailbox it is wanted for.
    pub domain: &'q Domain,
    /// When.
    pub at: Timestamp,
}

/// Paths found before. What it recalls must be what [`validate`] would find now; its leaf is the same certificate, its key prepared.
pub trait PathMemory: Send + Sync + std::fmt::Debug {
    /// The limits that its paths were found with: it is asked where they are the same.
    fn limits(&self) -> &PathLimits;
    /// The path, if it was found before and still holds.
    fn recall(&self, question: &PathQuestion<'_>) -> Option<ValidPath>;
    /// Takes note of a path that was found.
    fn keep(&self, question: &PathQuestion<'_>, path: &ValidPath);
}

/// Why there is no valid path: the reason of the best candidate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("no path to a trust anchor: nobody known issued {0}")]
    NoIssuer(String),
    #[error("{subject} expired on {not_after}")]
    Expired { subject: String, not_after: Timestamp },
    #[error("{subject} is not valid before {not_before}")]
    NotYetValid { subject: String, not_before: Timestamp },
    #[error("{subject} may not be used so: {why}")]
    Usage { subject: String, why: String },
    #[error("{subject}: {rule}")]
    Rule { subject: String, rule: String },
    #[error("the signature on {subject} does not verify")]
    Signature { subject: String },
    #[error("the anchor {anchor} may not vouch for {domain}")]
    Scope { anchor: String, domain: String },
    #[error("gave up after {0}")]
    Limit(&'static str),
}

/// Finds and validates a path for `leaf`, trying several candidates, with `extra` certificates (from the message) as
/// intermediates beside those of the set. Key usage and EKU are checked for `purpose`; the anchor's scope against `domain`, the
/// domain of the mailbox that the certificate is wanted for (`None`: the caller judges by [`ValidPath::scope`]). Revocation is
/// not looked at. A leaf that is itself an anchor is a path of one.
pub fn validate(
    leaf: &Certificate,
    extra: &[Certificate],
    trust: &TrustSet,
    purpose: Purpose,
    domain: Option<&Domain>,
    at: Timestamp,
    limits: &PathLimits,
) -> Result<ValidPath, PathError> {
    validate_within(leaf, extra, trust, purpose, domain, at, limits, &mut limits.budget())
}

/// As [`validate`], with checks that several searches share: `left` is what may still be done, in the measure of
/// [`PathLimits::signatures`], which it never exceeds.
#[expect(clippy::too_many_arguments, reason = "those of `validate`, and what is left")]
pub(crate) fn validate_within(
    leaf: &Certificate,
    extra: &[Certificate],
    trust: &TrustSet,
    purpose: Purpose,
    domain: Option<&Domain>,
    at: Timestamp,
    limits: &PathLimits,
    left: &mut Budget,
) -> Result<ValidPath, PathError> {
    leaf.fits(purpose).map_err(|error| {
        let (CertificateError::Refused(why) | CertificateError::Malformed(why)) = error;
        PathError::Usage { subject: leaf.subject_text(), why }
    })?;
    find_within(leaf, extra, trust, domain, at, limits, left)
}

/// The same whatever the leaf is for: the caller judges that ([`Certificate::fits`]).
pub fn find(
    leaf: &Certificate,
    extra: &[Certificate],
    trust: &TrustSet,
    domain: Option<&Domain>,
    at: Timestamp,
    limits: &PathLimits,
) -> Result<ValidPath, PathError> {
    find_within(leaf, extra, trust, domain, at, limits, &mut limits.budget())
}

/// As [`find`], with checks that several searches share.
pub(super) fn find_within(
    leaf: &Certificate,
    extra: &[Certificate],
    trust: &TrustSet,
    domain: Option<&Domain>,
    at: Timestamp,
    limits: &PathLimits,
    left: &mut Budget,
) -> Result<ValidPath, PathError> {
    check_validity(leaf, at)?;
    check_strength(leaf, limits)?;
    let mut search = Search { extra, trust, domain, at, limits, left, exhausted: None, best: None };
    if let Some(path) = search.leaf_as_anchor(leaf) {
        return Ok(path);
    }
    match search.extend(&mut vec![leaf]) {
        Some(path) => Ok(path),
        None => Err(match (search.exhausted, search.best) {
            (Some(what), _) => PathError::Limit(what),
            (None, Some((_, error))) => error,
            (None, None) => PathError::NoIssuer(leaf.subject_text()),
        }),
    }
}

/// How near a candidate came: the nearest one's reason is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    Unknown,
    Forged,
    Intermediate,
    Anchor,
}

/// A depth-first search from the leaf to an anchor. Every step costs a signature check, so their number bounds all work.
struct Search<'a> {
    extra: &'a [Certificate],
    trust: &'a TrustSet,
    domain: Option<&'a Domain>,
    at: Timestamp,
    limits: &'a PathLimits,
    left: &'a mut Budget,
    exhausted: Option<&'static str>,
    best: Option<(Near, PathError)>,
}

impl<'a> Search<'a> {
    fn note(&mut self, near: Near, error: PathError) {
        if self.best.as_ref().is_none_or(|(best, _)| near > *best) {
            self.best = Some((near, error));
        }
    }

    fn leaf_as_anchor(&mut self, leaf: &Certificate) -> Option<ValidPath> {
        let anchor = self.trust.anchors.iter().find(|anchor| anchor.certificate == *leaf)?;
        match self.check_scope(anchor) {
            Ok(()) => Some(ValidPath {
                leaf: leaf.clone(),
                chain: vec![leaf.clone()],
                scope: anchor.scope.clone(),
                not_after: leaf.not_after(),
            }),
            Err(error) => {
                self.note(Near::Anchor, error);
                None
            }
        }
    }

    /// Tries every issuer of the last certificate of `path`: anchors first, then intermediates.
    fn extend(&mut self, path: &mut Vec<&'a Certificate>) -> Option<ValidPath> {
        let subject: &'a Certificate = path.last().copied()?;
        let trust = self.trust;
        let mut anchors: Vec<&'a TrustAnchor> =
            trust.anchors.iter().filter(|anchor| subject.names_as_issuer(&anchor.certificate)).collect();
        anchors.sort_by_key(|anchor| key_match(subject, &anchor.certificate));
        for anchor in anchors {
            match self.try_anchor(path, anchor) {
                Ok(valid) => return Some(valid),
                Err((near, error)) => self.note(near, error),
            }
            self.exhausted.is_none().then_some(())?;
        }
        // One more place than the next issuer's is the anchor's.
        let too_long = path.len() + 2 > self.limits.length;
        for issuer in self.intermediates(subject, path) {
            if too_long {
                self.note(Near::Intermediate, PathError::Limit("the longest path allowed"));
                return None;
            }
            if let Err((near, error)) = self.check_issuer(subject, issuer) {
                self.note(near, error);
                self.exhausted.is_none().then_some(())?;
                continue;
            }
            path.push(issuer);
            let found = self.extend(path);
            path.pop();
            if found.is_some() || self.exhausted.is_some() {
                return found;
            }
        }
        self.note(Near::Unknown, PathError::NoIssuer(subject.subject_text()));
        None
    }

    /// Intermediates with the name of `subject`'s issuer that are not in the path: those whose key identifier fits first, then the
    /// longest valid.
    fn intermediates(&self, subject: &Certificate, path: &[&'a Certificate]) -> Vec<&'a Certificate> {
        let extra: &'a [Certificate] = self.extra;
        let trust: &'a TrustSet = self.trust;
        let mut found: Vec<&'a Certificate> = Vec::new();
        for candidate in extra.iter().take(MAX_EXTRA).chain(&trust.intermediates) {
            // The same name with the same key is a loop (RFC 5280 6.1: a certificate appears once).
            let loops = |known: &&Certificate| {
                known.subject() == candidate.subject() && known.public_key().spki() == candidate.public_key().spki()
            };
            let is_anchor = || trust.anchors.iter().any(|anchor| anchor.certificate == *candidate);
            if subject.names_as_issuer(candidate)
                && !path.iter().any(loops)
                && !found.contains(&candidate)
                && !is_anchor()
            {
                found.push(candidate);
            }
        }
        found.sort_by_key(|candidate| (key_match(subject, candidate), std::cmp::Reverse(candidate.not_after())));
        found
    }

    fn try_anchor(
        &mut self,
        path: &[&'a Certificate],
        anchor: &'a TrustAnchor,
    ) -> Result<ValidPath, (Near, PathError)> {
        let leaf = path.first().copied().ok_or((Near::Unknown, PathError::Limit("an empty path")))?;
        let subject = path.last().copied().unwrap_or(leaf);
        self.check_issuer(subject, &anchor.certificate)?;
        let near = |error| (Near::Anchor, error);
        rules::check(path, &anchor.certificate, &self.limits.policies).map_err(near)?;
        self.check_scope(anchor).map_err(near)?;
        let chain: Vec<Certificate> = path.iter().copied().chain([&anchor.certificate]).cloned().collect();
        let not_after = chain.iter().map(Certificate::not_after).min().unwrap_or(self.at);
        Ok(ValidPath { leaf: leaf.clone(), chain, scope: anchor.scope.clone(), not_after })
    }

    fn check_scope(&self, anchor: &TrustAnchor) -> Result<(), PathError> {
        match (&anchor.scope, self.domain) {
            (AnchorScope::Domains(domains), Some(domain)) if !domains.contains(domain) => {
                Err(PathError::Scope { anchor: anchor.certificate.subject_text(), domain: domain.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// All that can be said of the pair alone; the signature last.
    fn check_issuer(&mut self, subject: &Certificate, issuer: &Certificate) -> Result<(), (Near, PathError)> {
        let near = |error| (Near::Intermediate, error);
        check_validity(issuer, self.at).map_err(near)?;
        check_strength(issuer, self.limits).map_err(near)?;
        check_authority(issuer).map_err(near)?;
        if !self.left.take(issuer.public_key().kind()) {
            self.exhausted = Some(NO_MORE_CHECKS);
            return Err(near(PathError::Limit(NO_MORE_CHECKS)));
        }
        check_signature(subject, issuer, self.limits).map_err(|error| (Near::Forged, error))
    }
}

/// What is said where the budget is spent.
pub(crate) const NO_MORE_CHECKS: &str = "the most signature checks allowed";

/// Signature checks that may still be done (A11), in the measure of [`PathLimits::signatures`].
#[derive(Debug, Clone)]
pub(crate) struct Budget(usize);

impl Budget {
    /// Takes the cost of one check under such a key; false where nothing is left.
    pub(crate) fn take(&mut self, kind: KeyKind) -> bool {
        let some = self.0 > 0;
        self.0 = self.0.saturating_sub(check_cost(kind));
        some
    }
}

/// What a check under such a key counts for (A11): 100 of them cost some 40 ms at most, whatever the key.
fn check_cost(kind: KeyKind) -> usize {
    match kind {
        // Thousands of hashes.
        KeyKind::SlhDsa(_) => 10,
        KeyKind::Rsa { bits } if bits > 4096 => 3,
        KeyKind::P521 => 2,
        _ => 1,
    }
}

/// At most so many certificates of a message are considered as intermediates.
pub(crate) const MAX_EXTRA: usize = 200;

/// 0 where the key identifiers fit, 1 where one is missing, 2 where they differ (RFC 5280 4.2.1.1: a help, no rule).
fn key_match(subject: &Certificate, issuer: &Certificate) -> u8 {
    match (subject.authority_key_identifier(), issuer.subject_key_identifier()) {
        (Some(wanted), Some(given)) if wanted == given => 0,
        (Some(_), Some(_)) => 2,
        _ => 1,
    }
}

pub(crate) fn check_validity(certificate: &Certificate, at: Timestamp) -> Result<(), PathError> {
    // RFC 5280 4.1.2.5: both ends belong to the period; the last second is over when the next one starts.
    if at < certificate.not_before() {
        return Err(PathError::NotYetValid {
            subject: certificate.subject_text(),
            not_before: certificate.not_before(),
        });
    }
    if at.as_second() > certificate.not_after().as_second() {
        return Err(PathError::Expired { subject: certificate.subject_text(), not_after: certificate.not_after() });
    }
    Ok(())
}

fn check_strength(certificate: &Certificate, limits: &PathLimits) -> Result<(), PathError> {
    match certificate.public_key().kind() {
        KeyKind::Rsa { bits } if bits < 2048 && !limits.legacy && !limits.weak_keys => Err(PathError::Rule {
            subject: certificate.subject_text(),
            rule: format!("its RSA key has {bits} bits, at least 2048 are needed"),
        }),
        _ => Ok(()),
    }
}

/// RFC 5280 6.1.4 (k) and (n), and the EKU of CAs as every mail program applies it: what an issuer alone can fail.
fn check_authority(issuer: &Certificate) -> Result<(), PathError> {
    let usage = |why: &str| Err(PathError::Usage { subject: issuer.subject_text(), why: why.to_owned() });
    // A root of version 1 has no extensions to say so; as an anchor it is trusted by name (`rules` refuses it elsewhere).
    if issuer.version() == 3 && !issuer.is_ca() {
        return usage("its basicConstraints do not make it a CA");
    }
    if issuer.has_empty_subject() {
        return usage("a CA needs a subject name (RFC 5280 4.1.2.6)");
    }
    if issuer.extensions().key_usage.is_some_and(|bits| bits & usage::KEY_CERT_SIGN == 0) {
        return usage("its keyUsage lacks keyCertSign");
    }
    if let Err(why) = issuer.suits_its_key() {
        return usage(&why);
    }
    if !issuer.allows_mail() {
        return usage("its extendedKeyUsage lacks emailProtection");
    }
    Ok(())
}

pub(crate) fn check_signature(
    subject: &Certificate,
    issuer: &Certificate,
    limits: &PathLimits,
) -> Result<(), PathError> {
    let (algorithm, tbs) = (subject.signature_algorithm(), subject.tbs());
    verify_signed(issuer, algorithm, tbs, subject.signature(), limits.takes_sha1()).map_err(|error| match error {
        SignedError::Refused(rule) => PathError::Rule { subject: subject.subject_text(), rule },
        SignedError::Forged => PathError::Signature { subject: subject.subject_text() },
    })
}

/// Why something that a CA signed is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignedError {
    #[error("{0}")]
    Refused(String),
    #[error("the signature does not verify")]
    Forged,
}

/// Checks the signature on a certificate's, a CRL's or an OCSP response's `tbs`; SHA-1 only with `legacy`.
pub(crate) fn verify_signed(
    signer: &Certificate,
    algorithm: &[u8],
    tbs: &[u8],
    signature: &[u8],
    legacy: bool,
) -> Result<(), SignedError> {
    let scheme = signature_scheme(algorithm, None).map_err(|error| SignedError::Refused(error.to_string()))?;
    let weak = matches!(
        scheme,
        SignatureScheme::RsaPkcs1(Digest::Sha1)
            | SignatureScheme::RsaPss(Digest::Sha1, _)
            | SignatureScheme::Ecdsa(Digest::Sha1)
    );
    if weak && !legacy {
        return Err(SignedError::Refused("signed with SHA-1, which is refused".to_owned()));
    }
    signer.public_key().verify(scheme, tbs, signature).map_err(|_| SignedError::Forged)
}

/// Fuzz body: certificates, each with four octets of length before it; the last ones as anchors, the first as the leaf.
#[doc(hidden)]
pub fn fuzz_path(data: &[u8]) {
    let mut rest = data;
    let mut certificates = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = (u32::from_be_bytes(*length) as usize).min(tail.len());
        let (der, tail) = tail.split_at(length);
        certificates.extend(Certificate::from_der(bytes::Bytes::copy_from_slice(der)));
        rest = tail;
    }
    let (Some(leaf), Some(last)) = (certificates.first().cloned(), certificates.pop()) else { return };
    let anchor = TrustAnchor { certificate: last, scope: AnchorScope::Global };
    let trust = TrustSet { anchors: vec![anchor], intermediates: Vec::new(), generation: 0 };
    let limits = PathLimits { legacy: true, ..PathLimits::default() };
    for purpose in [Purpose::Signature, Purpose::Encryption] {
        if let Ok(path) = validate(&leaf, &certificates, &trust, purpose, None, leaf.not_before(), &limits) {
            assert!(path.chain().len() <= limits.length);
            assert_eq!(path.chain().first(), Some(&leaf));
            assert_eq!(path.chain().last(), trust.anchors.first().map(|anchor| &anchor.certificate));
            assert!(path.not_after() <= leaf.not_after());
        }
    }
}

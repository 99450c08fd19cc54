//! Certification paths to configured anchors (RFC 5280 section 6).

use jiff::Timestamp;

use super::certificate::{Certificate, Purpose};
use crate::address::Domain;

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

/// Bounds (A11).
#[derive(Debug, Clone, Copy)]
pub struct PathLimits {
    /// Certificates in a path, anchor included; default 8.
    pub length: usize,
    /// Signature checks in one search; default 100.
    pub signatures: usize,
}

impl Default for PathLimits {
    fn default() -> Self {
        Self { length: 8, signatures: 100 }
    }
}

/// Proof that a path was found and validated: cannot be made elsewhere.
#[derive(Debug, Clone)]
pub struct ValidPath {
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
        todo!()
    }
    /// What the anchor may vouch for.
    pub fn scope(&self) -> &AnchorScope {
        &self.scope
    }
    /// The first expiry in the path: a cached result holds until then at most.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
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
/// intermediates beside those of the set. Key usage and EKU are checked for `purpose`; the anchor's scope against every
/// mailbox that `domains` names.
pub fn validate(
    _leaf: &Certificate,
    _extra: &[Certificate],
    _trust: &TrustSet,
    _purpose: Purpose,
    _domain: Option<&Domain>,
    _at: Timestamp,
    _limits: &PathLimits,
) -> Result<ValidPath, PathError> {
    todo!()
}

//! Whether the certificates of a path are revoked, judged from CRLs and OCSP responses at hand (RFC 5280 section 6.3, RFC 6960); what is
//! missing is named, so that a server can fetch it. Nothing here asks the network.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::pki::asn1::{Asn1Error, Tlv};
use crate::pki::certificate::Certificate;
use crate::pki::certificate::extensions::{GeneralName, usage};
use crate::pki::path::{self, Budget, PathLimits, TrustSet, ValidPath};

/// P: CRLs.
pub mod crl;
/// P: OCSP requests and responses.
pub mod ocsp;
mod scope;
#[cfg(test)]
pub(crate) mod tests;

pub use crl::Crl;
pub use ocsp::OcspResponse;
use ocsp::Signer;
use scope::{ALL_REASONS, Point, Reasons};

/// Why a CRL or an OCSP response cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// What breaks its form, and where.
    #[error("neither a CRL nor an OCSP response: {0}")]
    Malformed(String),
    /// The responder answers that it cannot (RFC 6960 2.3).
    #[error("the OCSP responder answers \"{0}\"")]
    NoAnswer(&'static str),
}

impl From<Asn1Error> for EvidenceError {
    fn from(error: Asn1Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// CRLReason (RFC 5280 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    CaCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    CertificateHold,
    RemoveFromCrl,
    PrivilegeWithdrawn,
    AaCompromise,
}

impl Reason {
    fn read(value: Tlv<'_>) -> Result<Self, Asn1Error> {
        Ok(match value.value {
            [0] => Self::Unspecified,
            [1] => Self::KeyCompromise,
            [2] => Self::CaCompromise,
            [3] => Self::AffiliationChanged,
            [4] => Self::Superseded,
            [5] => Self::CessationOfOperation,
            [6] => Self::CertificateHold,
            [8] => Self::RemoveFromCrl,
            [9] => Self::PrivilegeWithdrawn,
            [10] => Self::AaCompromise,
            _ => return Err(value.error("not a CRLReason")),
        })
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "no reason given",
            Self::KeyCompromise => "key compromise",
            Self::CaCompromise => "CA compromise",
            Self::AffiliationChanged => "affiliation changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation of operation",
            Self::CertificateHold => "on hold",
            Self::RemoveFromCrl => "removed from the CRL",
            Self::PrivilegeWithdrawn => "privilege withdrawn",
            Self::AaCompromise => "attribute authority compromise",
        })
    }
}

/// What is at hand: read, but not yet believed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// CRLs, complete and delta ones.
    pub crls: Vec<Arc<Crl>>,
    /// OCSP responses.
    pub ocsp: Vec<Arc<OcspResponse>>,
}

impl Evidence {
    /// The revocation values that a message brings (RFC 5652 10.2.1, RFC 5940): they are believed no more than others. What cannot be
    /// read, and what is too many, is left aside.
    pub fn of(crls: &[Bytes], ocsp: &[Bytes]) -> Self {
        let crls = crls.iter().take(MAX_BROUGHT).filter_map(|der| Crl::from_der(der.clone()).ok());
        let ocsp = ocsp.iter().take(MAX_BROUGHT).filter_map(|der| OcspResponse::from_der(der.clone()).ok());
        Self { crls: crls.map(Arc::new).collect(), ocsp: ocsp.map(Arc::new).collect() }
    }
}

/// Revocation values of one message that are looked at, of each kind.
const MAX_BROUGHT: usize = 16;

/// What is asked for where a path is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demand {
    /// Revocation is not looked at.
    #[default]
    Off,
    /// A revoked certificate is refused; one of which nothing is known is not.
    Prefer,
    /// Only what is known not to be revoked is good.
    Require,
}

impl std::str::FromStr for Demand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            _ => Err("expected off, prefer or require".to_owned()),
        }
    }
}

impl Demand {
    /// Why a path that is judged so is not good enough.
    pub fn refuses(self, status: &Status) -> Option<String> {
        match (self, status) {
            (Self::Off, _) | (_, Status::Good { .. }) | (Self::Prefer, Status::Unknown { .. }) => None,
            (_, status) => Some(status.to_string()),
        }
    }
}

/// What is known of a path's certificates, the anchor left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// None is revoked; holds until then (the first nextUpdate).
    Good {
        /// The last moment at which the evidence is fresh.
        until: Timestamp,
    },
    /// One is.
    Revoked {
        /// Which.
        certificate: Certificate,
        /// Since when.
        at: Timestamp,
        /// Why.
        reason: Reason,
    },
    /// One of them is not known to be good.
    Unknown {
        /// Which.
        certificate: Certificate,
        /// What is missing.
        why: String,
    },
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good { until } => write!(f, "not revoked, known until {until}"),
            Self::Revoked { certificate, at, reason } => {
                write!(f, "{} was revoked on {at}: {reason}", certificate.subject_text())
            }
            Self::Unknown { certificate, why } => {
                write!(f, "revocation unknown: {}: {why}", certificate.subject_text())
            }
        }
    }
}

/// What would tell more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The CRL at a URI.
    Crl {
        /// As the certificate gives it: any scheme.
        uri: String,
    },
    /// An OCSP response.
    Ocsp {
        /// Of the responder.
        uri: String,
        /// The certificate asked for.
        certificate: Certificate,
        /// Its issuer's.
        issuer: Certificate,
    },
}

/// The judgement of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What is known.
    pub status: Status,
    /// What to fetch where that is not enough.
    pub needs: Vec<Need>,
}

/// Where evidence is kept: what a message brings, files, a cache of what was fetched.
pub trait Source: std::fmt::Debug + Send + Sync {
    /// What is at hand of what is wanted; more does no harm. Never waits.
    fn at_hand(&self, wanted: &[Need]) -> Evidence;
}

impl Source for Evidence {
    fn at_hand(&self, _wanted: &[Need]) -> Evidence {
        self.clone()
    }
}

/// Judges the certificates of `path` at `at`, by what `source` has and what the message `brought`. `extra` are certificates of the message,
/// among which signers of CRLs are looked for.
pub fn check(
    path: &ValidPath,
    source: &dyn Source,
    brought: &Evidence,
    extra: &[Certificate],
    trust: &TrustSet,
    at: Timestamp,
    limits: &PathLimits,
) -> Judgement {
    check_within(path, source, brought, extra, trust, at, limits, &mut limits.budget())
}

/// As [`check`], with signature checks that several judgements share.
#[expect(clippy::too_many_arguments, reason = "those of `check`, and what is left")]
pub(crate) fn check_within(
    path: &ValidPath,
    source: &dyn Source,
    brought: &Evidence,
    extra: &[Certificate],
    trust: &TrustSet,
    at: Timestamp,
    limits: &PathLimits,
    left: &mut Budget,
) -> Judgement {
    let judge = Judge { source, brought, extra, trust, at, limits, left, open: Vec::new(), needs: Vec::new() };
    judge.judgement(path)
}

/// The state of one certificate of a path, judged by itself.
#[derive(Debug, Clone)]
pub struct CertificateState {
    /// Which.
    pub certificate: Certificate,
    /// What is known of it.
    pub status: Status,
    /// Where the certificate says that it is told, whether that is needed or not: OCSP responders first.
    pub told_at: Vec<Need>,
}

/// As [`check`], for each certificate of the path by itself, leaf first, the anchor left out.
pub fn each(
    path: &ValidPath,
    source: &dyn Source,
    extra: &[Certificate],
    trust: &TrustSet,
    at: Timestamp,
    limits: &PathLimits,
) -> Vec<CertificateState> {
    let (chain, brought) = (path.chain(), Evidence::default());
    let pairs = chain.iter().zip(chain.iter().skip(1));
    pairs
        .map(|(certificate, issuer)| {
            let mut judge = Judge {
                source,
                brought: &brought,
                extra,
                trust,
                at,
                limits,
                left: &mut limits.budget(),
                open: Vec::new(),
                needs: Vec::new(),
            };
            let own = certificate.clone();
            let status = match judge.certificate(certificate, issuer, chain) {
                One::Good(until) => Status::Good { until },
                One::Revoked(at, reason) => Status::Revoked { certificate: own, at, reason },
                One::Unknown(why) => Status::Unknown { certificate: own, why },
            };
            CertificateState { certificate: certificate.clone(), status, told_at: wanted(certificate, issuer) }
        })
        .collect()
}

/// What is known of one certificate.
enum One {
    Good(Timestamp),
    Revoked(Timestamp, Reason),
    Unknown(String),
}

struct Judge<'a> {
    source: &'a dyn Source,
    brought: &'a Evidence,
    extra: &'a [Certificate],
    trust: &'a TrustSet,
    at: Timestamp,
    limits: &'a PathLimits,
    /// Signatures that may still be checked.
    left: &'a mut Budget,
    /// Signers of CRLs whose own state is being judged.
    open: Vec<Certificate>,
    needs: Vec<Need>,
}

/// Signers of CRLs judged by CRLs of other signers: at most so many in a row.
const MAX_SIGNERS: usize = 3;

impl Judge<'_> {
    fn judgement(mut self, path: &ValidPath) -> Judgement {
        let status = self.path(path);
        Judgement { status, needs: self.needs }
    }

    /// Revoked is told before unknown, whichever is nearer to the leaf.
    fn path(&mut self, path: &ValidPath) -> Status {
        let chain = path.chain();
        let (mut until, mut unknown) = (Timestamp::MAX, None);
        for (certificate, issuer) in chain.iter().zip(chain.iter().skip(1)) {
            match self.certificate(certificate, issuer, chain) {
                One::Good(fresh) => until = until.min(fresh),
                One::Revoked(at, reason) => {
                    return Status::Revoked { certificate: certificate.clone(), at, reason };
                }
                One::Unknown(why) => {
                    unknown.get_or_insert_with(|| Status::Unknown { certificate: certificate.clone(), why });
                }
            }
        }
        unknown.unwrap_or(Status::Good { until })
    }

    fn certificate(&mut self, certificate: &Certificate, issuer: &Certificate, chain: &[Certificate]) -> One {
        let wanted = wanted(certificate, issuer);
        let evidence = self.at_hand(&wanted);
        let by_ocsp = self.by_ocsp(&evidence, certificate, issuer, chain);
        // What either says of a revocation counts, whatever the other says.
        match (by_ocsp, self.by_crl(&evidence, certificate, chain)) {
            (Some(One::Revoked(at, reason)), _) | (_, One::Revoked(at, reason)) => One::Revoked(at, reason),
            (Some(good), One::Unknown(_)) => good,
            (_, One::Unknown(why)) => {
                self.ask(wanted);
                One::Unknown(why)
            }
            (_, good) => good,
        }
    }

    fn at_hand(&self, wanted: &[Need]) -> Evidence {
        let mut evidence = self.source.at_hand(wanted);
        evidence.crls.extend(self.brought.crls.iter().cloned());
        evidence.ocsp.extend(self.brought.ocsp.iter().cloned());
        evidence
    }

    fn by_ocsp(
        &mut self,
        evidence: &Evidence,
        certificate: &Certificate,
        issuer: &Certificate,
        chain: &[Certificate],
    ) -> Option<One> {
        let mut found = None;
        for response in &evidence.ocsp {
            let Some(single) = response.single(certificate, issuer, self.at) else { continue };
            // RFC 6960 4.2.2.2.1: without nocheck a delegated responder's certificate is judged like any other.
            let believed = self.left.take(issuer.public_key().kind())
                && match response.signer(issuer, self.at, self.limits) {
                    Some(Signer::Issuer) => true,
                    Some(Signer::Delegated(signer)) => {
                        signer.extensions().ocsp_no_check || self.responder_is_good(&signer, issuer, chain)
                    }
                    None => false,
                };
            match single.revoked {
                Some((at, reason)) if believed => return Some(One::Revoked(at, reason)),
                None if believed => found = Some(One::Good(single.until)),
                _ => {}
            }
        }
        found
    }

    fn responder_is_good(&mut self, signer: &Certificate, issuer: &Certificate, chain: &[Certificate]) -> bool {
        let wanted = wanted(signer, issuer);
        let evidence = self.at_hand(&wanted);
        let good = matches!(self.by_crl(&evidence, signer, chain), One::Good(_));
        if !good {
            self.ask(wanted.into_iter().filter(|need| matches!(need, Need::Crl { .. })).collect());
        }
        good
    }

    /// RFC 5280 6.3.3.
    fn by_crl(&mut self, evidence: &Evidence, certificate: &Certificate, chain: &[Certificate]) -> One {
        // Most certificates name no point, or their CRL never came: then there is nothing to compare.
        let points = match Point::named(certificate) {
            Ok(_) if evidence.crls.is_empty() => Ok(Vec::new()),
            Ok(named) => Point::with_issuers(named, certificate),
            Err(error) => Err(error),
        };
        let points = match points {
            Ok(points) => points,
            Err(error) => return One::Unknown(format!("its distribution points cannot be read: {error}")),
        };
        let (mut known, mut until): (Reasons, Timestamp) = (0, Timestamp::MAX);
        let mut why = "no CRL for it is at hand".to_owned();
        for point in &points {
            for crl in evidence.crls.iter().filter(|crl| !crl.is_delta()) {
                let Some(reasons) = point.covered_by(crl, certificate).filter(|reasons| reasons & !known != 0) else {
                    continue;
                };
                if let Err(unfit) = self.usable(crl, chain) {
                    why = unfit;
                    continue;
                }
                let (listed, fresh) = self.listed(evidence, crl, certificate, chain);
                if let Some(listed) = listed {
                    return One::Revoked(listed.at, listed.reason);
                }
                known |= reasons;
                until = until.min(fresh);
                if known == ALL_REASONS {
                    return One::Good(until);
                }
            }
        }
        if known != 0 {
            why = "the CRLs at hand do not cover every reason".to_owned();
        }
        One::Unknown(why)
    }

    /// What `crl` says, corrected by deltas that continue it, and until when.
    fn listed(
        &mut self,
        evidence: &Evidence,
        crl: &Crl,
        certificate: &Certificate,
        chain: &[Certificate],
    ) -> (Option<crl::Listed>, Timestamp) {
        let (serial, issuer) = (certificate.serial(), certificate.issuer());
        let mut listed = crl.find(serial, issuer);
        let mut until = crl.next_update().unwrap_or(self.at);
        let mut newest = None;
        for delta in evidence.crls.iter().filter(|delta| delta.is_delta() && delta.continues(crl)) {
            let newer = newest.is_none_or(|newest| delta.this_update() > newest);
            if newer && self.usable(delta, chain).is_ok() {
                newest = Some(delta.this_update());
                until = until.min(delta.next_update().unwrap_or(self.at));
                listed = delta.find(serial, issuer).or(listed);
            }
        }
        (listed.filter(|listed| listed.reason != Reason::RemoveFromCrl), until)
    }

    /// Fresh, understood, and signed by someone who may.
    fn usable(&mut self, crl: &Crl, chain: &[Certificate]) -> Result<(), String> {
        if let Some(oid) = crl.unknown_critical() {
            return Err(format!("its CRL has a critical extension that is not known here: {oid}"));
        }
        if crl.this_update() > self.at {
            return Err(format!("its CRL is from {}, which is later", crl.this_update()));
        }
        match crl.next_update() {
            None => return Err("its CRL has no nextUpdate".to_owned()),
            Some(next) if next < self.at => return Err(format!("its CRL was to be renewed on {next}")),
            Some(_) => {}
        }
        self.signed(crl, chain)
    }

    fn signed(&mut self, crl: &Crl, chain: &[Certificate]) -> Result<(), String> {
        let anchors = self.trust.anchors.iter().map(|anchor| &anchor.certificate);
        let candidates: Vec<Certificate> = chain
            .iter()
            .skip(1)
            .chain(self.extra.iter().take(path::MAX_EXTRA))
            .chain(&self.trust.intermediates)
            .chain(anchors)
            .filter(|signer| crate::pki::certificate::same_name(signer.subject(), crl.issuer()))
            .cloned()
            .collect();
        let mut why = "nobody known signed its CRL".to_owned();
        let mut tried: Vec<Certificate> = Vec::new();
        for signer in candidates {
            if tried.contains(&signer) {
                continue;
            }
            match self.signed_by(crl, &signer, chain) {
                Ok(()) => return Ok(()),
                Err(unfit) => why = unfit,
            }
            tried.push(signer);
        }
        Err(why)
    }

    fn signed_by(&mut self, crl: &Crl, signer: &Certificate, chain: &[Certificate]) -> Result<(), String> {
        let name = || signer.subject_text();
        if signer.extensions().key_usage.is_some_and(|bits| bits & usage::CRL_SIGN == 0) {
            return Err(format!("{} may not sign CRLs: its keyUsage lacks cRLSign", name()));
        }
        if !self.left.take(signer.public_key().kind()) {
            return Err(path::NO_MORE_CHECKS.to_owned());
        }
        crl.verify(signer, self.limits.takes_sha1()).map_err(|why| format!("its CRL: {why}"))?;
        if chain.iter().skip(1).any(|known| known == signer) || self.open.contains(signer) {
            return Ok(());
        }
        if self.open.len() >= MAX_SIGNERS {
            return Err("too many signers of CRLs in a row".to_owned());
        }
        let found = path::find_within(signer, self.extra, self.trust, None, self.at, self.limits, self.left)
            .map_err(|error| format!("the signer of its CRL: {error}"))?;
        // RFC 5280 6.3.3 (f): under the same anchor as the certificate itself.
        if found.chain().last() != chain.last() {
            return Err(format!("the signer of its CRL, {}, is under another anchor", name()));
        }
        self.open.push(signer.clone());
        let status = self.path(&found);
        self.open.pop();
        match status {
            Status::Good { .. } => Ok(()),
            Status::Revoked { .. } => Err(format!("the signer of its CRL, {}, is revoked", name())),
            Status::Unknown { why, .. } => Err(format!("the signer of its CRL, {}: {why}", name())),
        }
    }

    fn ask(&mut self, wanted: Vec<Need>) {
        for need in wanted {
            if self.needs.len() < MAX_NEEDS && !self.needs.contains(&need) {
                self.needs.push(need);
            }
        }
    }
}

/// What would tell of `certificate`, as it says itself: an OCSP response first, which is small.
fn wanted(certificate: &Certificate, issuer: &Certificate) -> Vec<Need> {
    let responders = responders(certificate).into_iter();
    let ocsp = responders.map(|uri| Need::Ocsp { uri, certificate: certificate.clone(), issuer: issuer.clone() });
    let points = Point::named(certificate).unwrap_or_default();
    let crls = points.iter().flat_map(Point::uris).cloned().chain(scope::freshest_uris(certificate));
    ocsp.chain(crls.map(|uri| Need::Crl { uri })).take(MAX_NEEDS).collect()
}

/// At most so many things to fetch for one path.
const MAX_NEEDS: usize = 16;

/// The OCSP responders that authorityInfoAccess names (RFC 5280 4.2.2.1).
fn responders(certificate: &Certificate) -> Vec<String> {
    const OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1];
    let content = certificate.extensions().authority_access.map(|place| certificate.at(place)).unwrap_or_default();
    let mut list = crate::pki::asn1::Reader::new(content);
    let mut uris = Vec::new();
    while let Ok(mut fields) = list.sequence("an AccessDescription is a SEQUENCE") {
        let Ok(method) = fields.any() else { break };
        if let (OCSP, Ok(GeneralName::Uri(uri))) = (method.value, GeneralName::read(&mut fields)) {
            uris.extend(std::str::from_utf8(uri).ok().map(str::to_owned));
        }
    }
    uris
}

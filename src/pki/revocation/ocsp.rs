//! OCSP requests and responses (RFC 6960; nonces RFC 9654).

use std::sync::OnceLock;

use bytes::Bytes;
use jiff::Timestamp;

use super::crl::for_each_extension;
use super::{EvidenceError, Reason};
use crate::pki::asn1::{self, Asn1Error, Reader, Span, Tlv, tag};
use crate::pki::certificate::{Certificate, read_time, same_name};
use crate::pki::path::{self, PathLimits};
use crate::pki::public_key::PublicKey;

/// The largest response that is read, in octets.
pub const MAX_RESPONSE: usize = 1024 * 1024;

/// At most so many single responses, and certificates, in one response.
const MAX_PARTS: usize = 100;

/// id-pkix-ocsp-nonce.
const NONCE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 2];
/// id-sha1.
const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 26];

/// A basic response: its octets and where its parts lie. What it says counts only once its signature was checked.
pub struct OcspResponse {
    der: Bytes,
    tbs: Span,
    algorithm: Span,
    signature: Span,
    responder: Responder,
    singles: Vec<Span>,
    certificates: Vec<Certificate>,
    nonce: Option<Span>,
    produced_at: Timestamp,
    /// For which issuer's key whose signature was found on it: it is checked once, and not for each mail.
    verified: OnceLock<(PublicKey, Signer)>,
}

#[derive(Debug, Clone, Copy)]
enum Responder {
    Name(Span),
    KeyHash(Span),
}

/// Whose signature a response carries.
#[derive(Debug, Clone)]
pub(super) enum Signer {
    /// Of the CA that issued the certificate asked for.
    Issuer,
    /// Of one that it delegated.
    Delegated(Certificate),
}

/// What is said of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Single {
    /// The last moment at which it holds.
    pub(super) until: Timestamp,
    pub(super) revoked: Option<(Timestamp, Reason)>,
}

impl std::fmt::Debug for OcspResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OcspResponse({}, {} certificates)", self.produced_at, self.singles.len())
    }
}

/// An OCSPRequest for `certificate`, of `issuer`; with `nonce` (RFC 9654: 1 to 128 octets, 32 are best), where a responder is known to
/// answer each request anew.
pub fn request(certificate: &Certificate, issuer: &Certificate, nonce: Option<&[u8]>) -> Vec<u8> {
    // RFC 5019 2.1.1: SHA-1 is what every responder has an answer for; it names the issuer, it proves nothing.
    let algorithm = asn1::sequence(&[&asn1::write(tag::OID, &[SHA1]), &asn1::write(tag::NULL, &[])]);
    let name = sha1(issuer.subject());
    let key = sha1(issuer.public_key().key_bits());
    let id = asn1::sequence(&[
        &algorithm,
        &asn1::write(tag::OCTET_STRING, &[name.as_ref()]),
        &asn1::write(tag::OCTET_STRING, &[key.as_ref()]),
        &asn1::write(tag::INTEGER, &[certificate.serial()]),
    ]);
    let list = asn1::sequence(&[&asn1::sequence(&[&id])]);
    let extensions = nonce.map(|nonce| {
        let value = asn1::write(tag::OCTET_STRING, &[&asn1::write(tag::OCTET_STRING, &[nonce])]);
        let extension = asn1::sequence(&[&asn1::write(tag::OID, &[NONCE]), &value]);
        asn1::write(tag::constructed(2), &[&asn1::sequence(&[&extension])])
    });
    asn1::sequence(&[&asn1::sequence(&[&list, extensions.as_deref().unwrap_or_default()])])
}

impl OcspResponse {
    /// Reads an OCSPResponse, DER. One that says anything but "successful" is [`EvidenceError::NoAnswer`].
    pub fn from_der(der: Bytes) -> Result<Self, EvidenceError> {
        if der.len() > MAX_RESPONSE {
            return Err(EvidenceError::Malformed(format!("{} octets, at most {MAX_RESPONSE} are read", der.len())));
        }
        let basic = {
            let mut outer = Reader::new(&der);
            let mut response = outer.sequence("an OCSPResponse is a SEQUENCE")?;
            outer.done()?;
            let status = response.expect(tag::ENUMERATED, "responseStatus is ENUMERATED")?;
            refuse_status(status)?;
            let mut bytes = response.expect(tag::constructed(0), "responseBytes is missing")?.reader();
            response.done()?;
            let mut fields = bytes.sequence("ResponseBytes is a SEQUENCE")?;
            let kind = fields.expect(tag::OID, "responseType is an OID")?;
            if kind.value != [0x2b, 6, 1, 5, 5, 7, 48, 1, 1] {
                return Err(kind.error("not a basic OCSP response").into());
            }
            let place = fields.expect(tag::OCTET_STRING, "response is an OCTET STRING")?.value_span()?;
            fields.done()?;
            bytes.done()?;
            place
        };
        Ok(read_basic(der.slice(basic.range()))?)
    }

    /// When it was signed.
    pub fn produced_at(&self) -> Timestamp {
        self.produced_at
    }

    /// How many octets it has.
    pub fn octets(&self) -> usize {
        self.der.len()
    }

    /// By when it says that newer information on `certificate` is to be had; `None` where it says nothing of it.
    pub fn renewed(&self, certificate: &Certificate, issuer: &Certificate) -> Option<Timestamp> {
        let found = self.singles.iter().find_map(|place| read_single(place.of(&self.der), certificate, issuer).ok()?);
        found.map(|(_, single)| single.until)
    }

    /// Whether it was made for a request with this nonce; `None` where it carries none, as many responders' do (RFC 5019 4).
    pub fn answers(&self, nonce: &[u8]) -> Option<bool> {
        self.nonce.map(|place| place.of(&self.der) == nonce)
    }

    /// What it says of `certificate` at `at`: fresh and known, or nothing.
    pub(super) fn single(&self, certificate: &Certificate, issuer: &Certificate, at: Timestamp) -> Option<Single> {
        let found = self.singles.iter().find_map(|place| read_single(place.of(&self.der), certificate, issuer).ok()?);
        let (this_update, single) = found?;
        (this_update <= at && at <= single.until).then_some(single)
    }

    /// Who signed it for `issuer` (RFC 6960 4.2.2.2); `None` if nobody who may.
    pub(super) fn signer(&self, issuer: &Certificate, at: Timestamp, limits: &PathLimits) -> Option<Signer> {
        let fresh = |signer: &Signer| match signer {
            Signer::Issuer => true,
            Signer::Delegated(signer) => path::check_validity(signer, at).is_ok(),
        };
        if let Some((key, signer)) = self.verified.get().filter(|_| !limits.takes_sha1())
            && key.spki() == issuer.public_key().spki()
        {
            return Some(signer.clone()).filter(fresh);
        }
        let found = self.find_signer(issuer, limits)?;
        if !limits.takes_sha1() {
            let _ = self.verified.set((issuer.public_key().clone(), found.clone()));
        }
        Some(found).filter(fresh)
    }

    fn find_signer(&self, issuer: &Certificate, limits: &PathLimits) -> Option<Signer> {
        if self.is_named(issuer) && self.verifies(issuer, limits) {
            return Some(Signer::Issuer);
        }
        let delegated = |signer: &&Certificate| {
            self.is_named(signer)
                && signer.names_as_issuer(issuer)
                && signer.extensions().extended_usage.is_some_and(|usages| usages.ocsp_signing)
                && path::check_signature(signer, issuer, limits).is_ok()
                && self.verifies(signer, limits)
        };
        self.certificates.iter().take(MAX_SIGNERS).find(delegated).cloned().map(Signer::Delegated)
    }

    fn is_named(&self, signer: &Certificate) -> bool {
        match self.responder {
            Responder::Name(place) => same_name(place.of(&self.der), signer.subject()),
            Responder::KeyHash(place) => place.of(&self.der) == sha1(signer.public_key().key_bits()).as_ref(),
        }
    }

    fn verifies(&self, signer: &Certificate, limits: &PathLimits) -> bool {
        let (tbs, algorithm) = (self.tbs.of(&self.der), self.algorithm.of(&self.der));
        path::verify_signed(signer, algorithm, tbs, self.signature.of(&self.der), limits.takes_sha1()).is_ok()
    }
}

/// Certificates in a response that are tried as its signer.
const MAX_SIGNERS: usize = 5;

fn sha1(octets: &[u8]) -> aws_lc_rs::digest::Digest {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, octets)
}

fn refuse_status(status: Tlv<'_>) -> Result<(), EvidenceError> {
    Err(EvidenceError::NoAnswer(match status.value {
        [0] => return Ok(()),
        [1] => "malformedRequest",
        [2] => "internalError",
        [3] => "tryLater",
        [5] => "sigRequired",
        [6] => "unauthorized",
        _ => return Err(status.error("not an OCSPResponseStatus").into()),
    }))
}

fn read_basic(der: Bytes) -> Result<OcspResponse, Asn1Error> {
    let mut outer = Reader::new(&der);
    let mut basic = outer.sequence("a BasicOCSPResponse is a SEQUENCE")?;
    outer.done()?;
    let tbs = basic.expect(tag::SEQUENCE, "tbsResponseData is a SEQUENCE")?;
    let algorithm = basic.expect(tag::SEQUENCE, "signatureAlgorithm is a SEQUENCE")?;
    let signature = basic.expect(tag::BIT_STRING, "signature is a BIT STRING")?;
    signature.bit_octets()?;
    let mut certificates = Vec::new();
    if let Some(explicit) = basic.optional(tag::constructed(0))? {
        let mut list = explicit.reader().sequence("certs is a SEQUENCE")?;
        while !list.is_empty() && certificates.len() < MAX_PARTS {
            let found = list.expect(tag::SEQUENCE, "a Certificate is a SEQUENCE")?;
            certificates.extend(Certificate::from_der(der.slice(found.full_span()?.range())).ok());
        }
    }
    basic.done()?;

    let mut fields = tbs.reader();
    if let Some(version) = fields.optional(tag::constructed(0))?
        && version.value != [tag::INTEGER, 1, 0]
    {
        return Err(version.error("a response of a version other than 1"));
    }
    let found = fields.any()?;
    let responder = match found.tag {
        0xa1 => Responder::Name(found.reader().expect(tag::SEQUENCE, "byName is a Name")?.full_span()?),
        0xa2 => {
            let hash = found.reader().expect(tag::OCTET_STRING, "byKey is an OCTET STRING")?;
            Responder::KeyHash(hash.value_span()?)
        }
        _ => return Err(found.error("not a ResponderID")),
    };
    let produced_at = read_time(fields.expect(tag::GENERALIZED_TIME, "producedAt is a GeneralizedTime")?)?;
    let mut list = fields.sequence("responses is a SEQUENCE")?;
    let mut singles = Vec::new();
    while !list.is_empty() {
        if singles.len() >= MAX_PARTS {
            return Err(tbs.error("more than 100 single responses"));
        }
        singles.push(list.expect(tag::SEQUENCE, "a SingleResponse is a SEQUENCE")?.full_span()?);
    }
    let nonce = match fields.optional(tag::constructed(1))? {
        Some(explicit) => read_nonce(explicit)?,
        None => None,
    };
    fields.done()?;
    let signature = signature.value_span()?.without_first().ok_or_else(|| signature.error("empty BIT STRING"))?;
    let (tbs, algorithm) = (tbs.full_span()?, algorithm.full_span()?);
    Ok(OcspResponse {
        tbs,
        algorithm,
        signature,
        responder,
        singles,
        certificates,
        nonce,
        produced_at,
        verified: OnceLock::new(),
        der: der.clone(),
    })
}

fn read_nonce(explicit: Tlv<'_>) -> Result<Option<Span>, Asn1Error> {
    let mut reader = explicit.reader();
    let list = reader.expect(tag::SEQUENCE, "responseExtensions is a SEQUENCE")?;
    reader.done()?;
    let mut nonce = None;
    for_each_extension(list, |oid, critical, value| {
        match oid {
            NONCE => {
                // Some responders leave the inner OCTET STRING out.
                let inner = value.reader().any().ok().filter(|inner| inner.tag == tag::OCTET_STRING);
                nonce = Some(inner.unwrap_or(value).value_span()?);
            }
            _ if critical => return Err(value.error("a critical extension that is not known here")),
            _ => {}
        }
        Ok(())
    })?;
    Ok(nonce)
}

/// thisUpdate and what is said, if it is about `certificate` and says good or revoked.
fn read_single(
    der: &[u8],
    certificate: &Certificate,
    issuer: &Certificate,
) -> Result<Option<(Timestamp, Single)>, Asn1Error> {
    let mut fields = Reader::new(der).sequence("a SingleResponse is a SEQUENCE")?;
    let mut id = fields.sequence("certID is a SEQUENCE")?;
    let algorithm = id.sequence("hashAlgorithm is a SEQUENCE")?.expect(tag::OID, "hashAlgorithm is an OID")?;
    let name = id.expect(tag::OCTET_STRING, "issuerNameHash is an OCTET STRING")?;
    let key = id.expect(tag::OCTET_STRING, "issuerKeyHash is an OCTET STRING")?;
    let serial = id.expect(tag::INTEGER, "serialNumber is an INTEGER")?;
    id.done()?;
    let Some(algorithm) = digest_algorithm(algorithm.value) else { return Ok(None) };
    let hashed = |octets: &[u8], hash: &[u8]| aws_lc_rs::digest::digest(algorithm, octets).as_ref() == hash;
    if serial.value != certificate.serial()
        || !hashed(certificate.issuer(), name.value)
        || !hashed(issuer.public_key().key_bits(), key.value)
    {
        return Ok(None);
    }
    let status = fields.any()?;
    let revoked = match status.tag {
        0x80 => None,
        0xa1 => {
            let mut info = status.reader();
            let at = read_time(info.expect(tag::GENERALIZED_TIME, "revocationTime is a GeneralizedTime")?)?;
            let reason = match info.optional(tag::constructed(0))? {
                Some(reason) => {
                    Reason::read(reason.reader().expect(tag::ENUMERATED, "revocationReason is ENUMERATED")?)?
                }
                None => Reason::Unspecified,
            };
            Some((at, reason))
        }
        _ => return Ok(None),
    };
    let this_update = read_time(fields.expect(tag::GENERALIZED_TIME, "thisUpdate is a GeneralizedTime")?)?;
    let next_update = match fields.optional(tag::constructed(0))? {
        Some(explicit) => Some(read_time(explicit.reader().any()?)?),
        None => None,
    };
    if let Some(explicit) = fields.optional(tag::constructed(1))? {
        let list = explicit.reader().expect(tag::SEQUENCE, "singleExtensions is a SEQUENCE")?;
        for_each_extension(list, |_, critical, value| match critical {
            true => Err(value.error("a critical extension that is not known here")),
            false => Ok(()),
        })?;
    }
    // RFC 6960 4.2.2.1: without nextUpdate newer information is to be had at any time: it holds for a short while.
    let until = next_update.or_else(|| this_update.checked_add(WITHOUT_NEXT).ok()).unwrap_or(this_update);
    Ok(Some((this_update, Single { until, revoked })))
}

/// How long a response without nextUpdate holds.
const WITHOUT_NEXT: std::time::Duration = std::time::Duration::from_secs(3600);

fn digest_algorithm(oid: &[u8]) -> Option<&'static aws_lc_rs::digest::Algorithm> {
    use aws_lc_rs::digest;
    match oid {
        SHA1 => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] => Some(&digest::SHA256),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2] => Some(&digest::SHA384),
        [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3] => Some(&digest::SHA512),
        _ => None,
    }
}

/// Fuzz body: what is read lies within, and is read again alike.
#[doc(hidden)]
pub fn fuzz_ocsp(data: &[u8]) {
    let Ok(response) = OcspResponse::from_der(Bytes::copy_from_slice(data)) else { return };
    assert!(response.der.len() < data.len());
    assert!(response.singles.len() <= MAX_PARTS && response.certificates.len() <= MAX_PARTS);
    for certificate in &response.certificates {
        let _ = response.single(certificate, certificate, response.produced_at);
    }
}

//! SignedData (RFC 5652 section 5): prepare, (sign outside), finish; parse and verify. Reads BER, writes DER.

use std::collections::BTreeSet;

use bytes::Bytes;
use const_oid::ObjectIdentifier;
use jiff::Timestamp;

use super::algorithm::{Digest, ShakeDigest, SignatureScheme};
use super::ber::{Element, Reader, slice, tag, to_der, write};
use super::error::CmsError;
use crate::pki::certificate::Certificate;

mod attributes;
mod countersignature;
mod multiple_signatures;
mod prepare;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

pub use attributes::Attributes;
pub use countersignature::Countersignature;
pub use prepare::{PreparedSignedData, SignParameters, prepare, prepare_all, prepare_guarded};
pub use verify::ContentDigests;

pub(super) const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");

/// Certificates and CRLs in one SignedData at most.
const MAX_CERTIFICATES: usize = 256;
/// Signers in one SignedData at most (A11).
const MAX_SIGNERS: usize = 100;

/// How a signer or recipient is named in CMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateId {
    /// Issuer Name (DER) and serial number (content octets of the INTEGER).
    IssuerAndSerial { issuer: Bytes, serial: Bytes },
    /// subjectKeyIdentifier.
    SubjectKeyIdentifier(Bytes),
}

impl CertificateId {
    /// Whether this names that certificate.
    pub fn names(&self, certificate: &Certificate) -> bool {
        match self {
            Self::IssuerAndSerial { issuer, serial } => {
                issuer.as_ref() == certificate.issuer() && serial.as_ref() == certificate.serial()
            }
            Self::SubjectKeyIdentifier(id) => certificate.subject_key_identifier() == Some(id.as_ref()),
        }
    }

    /// The name of this certificate by issuer and serial number.
    pub fn of(certificate: &Certificate) -> Self {
        Self::IssuerAndSerial {
            issuer: Bytes::copy_from_slice(certificate.issuer()),
            serial: Bytes::copy_from_slice(certificate.serial()),
        }
    }

    /// Reads the contents of an IssuerAndSerialNumber.
    pub(super) fn issuer_and_serial(element: &Element<'_>, input: &Bytes) -> Result<Self, CmsError> {
        let mut fields = element.reader();
        let issuer = to_der(fields.expect(tag::SEQUENCE, "issuer")?.raw)?;
        let serial = fields.expect(tag::INTEGER, "serialNumber")?.content;
        fields.end("IssuerAndSerialNumber")?;
        Ok(Self::IssuerAndSerial { issuer: slice(input, &issuer), serial: slice(input, serial) })
    }

    /// Reads a SignerIdentifier (RFC 5652 section 5.3).
    fn signer_identifier(fields: &mut Reader<'_>, input: &Bytes) -> Result<Self, CmsError> {
        match fields.optional_string(tag::context_primitive(0))? {
            Some(id) => Ok(Self::SubjectKeyIdentifier(id.octet_bytes(input, "subjectKeyIdentifier")?)),
            None => Self::issuer_and_serial(&fields.expect(tag::SEQUENCE, "IssuerAndSerialNumber")?, input),
        }
    }

    /// Writes an IssuerAndSerialNumber under this tag.
    pub(super) fn issuer_and_serial_der(certificate: &Certificate, tag: u8) -> Vec<u8> {
        write::element(tag, &[certificate.issuer(), &write::element(tag::INTEGER, &[certificate.serial()])])
    }
}

/// Names of many certificates, by which it is quickly told whether one of them names a certificate.
#[derive(Debug, Default)]
pub struct CertificateIds<'i> {
    /// Serial number and issuer: serial numbers differ.
    by_serial: BTreeSet<(&'i [u8], &'i [u8])>,
    by_key: BTreeSet<&'i [u8]>,
}

impl CertificateIds<'_> {
    /// Whether one of them names that certificate, as [`CertificateId::names`] has it.
    pub fn name(&self, certificate: &Certificate) -> bool {
        self.by_serial.contains(&(certificate.serial(), certificate.issuer()))
            || certificate.subject_key_identifier().is_some_and(|id| self.by_key.contains(id))
    }
}

impl<'i> FromIterator<&'i CertificateId> for CertificateIds<'i> {
    fn from_iter<I: IntoIterator<Item = &'i CertificateId>>(ids: I) -> Self {
        let mut all = Self::default();
        for id in ids {
            match id {
                CertificateId::IssuerAndSerial { issuer, serial } => all.by_serial.insert((serial, issuer)),
                CertificateId::SubjectKeyIdentifier(id) => all.by_key.insert(id),
            };
        }
        all
    }
}

/// The digest of some octets.
pub fn digest(how: Digest, octets: &[u8]) -> Vec<u8> {
    how.of(octets).as_ref().to_vec()
}

/// The same over content that lies in several buffers.
pub fn digest_of(how: Digest, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut context = aws_lc_rs::digest::Context::new(how.algorithm());
    pieces.into_iter().for_each(|piece| context.update(piece.as_ref()));
    context.finish().as_ref().to_vec()
}

/// A SignedData as received.
#[derive(Debug, Clone)]
pub struct SignedData {
    /// The content type OID inside, dotted.
    pub econtent_type: String,
    /// The content; `None` for detached.
    pub econtent: Option<Bytes>,
    /// Certificates as received; those that cannot be read are left out and counted in `odd`.
    pub certificates: Vec<Certificate>,
    /// CRLs as received (DER).
    pub crls: Vec<Bytes>,
    /// OCSP responses beside them (RFC 5940), each an OCSPResponse, DER.
    pub ocsp: Vec<Bytes>,
    pub signers: Vec<SignerInfo>,
    /// What is odd but not wrong, for `message show`.
    pub odd: Vec<String>,
}

/// A SignerInfo as received.
#[derive(Debug, Clone)]
pub struct SignerInfo {
    pub id: CertificateId,
    pub digest: Option<Digest>,
    /// `Err` names an algorithm that is unknown: the signer counts as unchecked (A7).
    pub scheme: Result<SignatureScheme, CmsError>,
    pub signing_time: Option<Timestamp>,
    /// Raw SMIMECapabilities attribute value (DER), when present.
    pub capabilities: Option<Bytes>,
    /// The certificate that SMIMEEncryptionKeyPreference names.
    pub encryption_key_preference: Option<CertificateId>,
    /// Signatures over this one's octets (RFC 5652 section 11.4), 16 at most: to be shown, never counted.
    pub countersignatures: Vec<Countersignature>,
    /// Where digestAlgorithm names SHAKE, and `digest` is `None`.
    shake: Option<ShakeDigest>,
    attributes: Option<Attributes>,
    /// signatureAlgorithm, DER.
    signature_algorithm: Bytes,
    signature: Bytes,
    /// A rule broken in this SignerInfo: `verify` says it.
    fault: Option<CmsError>,
}

/// Reads the ContentInfo around a content of this type: the content's own element. What follows it is told.
pub(super) fn content_of<'a>(
    content_info: &'a [u8],
    types: &[ObjectIdentifier],
) -> Result<(ObjectIdentifier, Element<'a>, bool), CmsError> {
    let mut outer = Reader::ber(content_info);
    let mut info = outer.expect(tag::SEQUENCE, "ContentInfo")?.reader();
    let found = info.oid("contentType")?;
    if !types.contains(&found) {
        return Err(CmsError::Rule { rule: "RFC 5652 section 3", why: "the content is of another type than expected" });
    }
    let mut explicit = info.expect(tag::context(0), "ContentInfo content")?.reader();
    info.end("ContentInfo")?;
    let content = explicit.expect(tag::SEQUENCE, "ContentInfo content")?;
    explicit.end("ContentInfo content")?;
    Ok((found, content, !outer.is_empty()))
}

impl SignedData {
    /// Reads a ContentInfo with a SignedData (BER or DER); at most 100 signers (A11).
    pub fn parse(content_info: &Bytes) -> Result<Self, CmsError> {
        let mut odd = Vec::new();
        let (_, content, trailing) = content_of(content_info, &[ID_SIGNED_DATA])?;
        if trailing {
            odd.push("octets follow the ContentInfo".to_owned());
        }
        let mut fields = content.reader();
        fields.small_integer("SignedData version")?;
        let digests = digests_named(fields.expect(tag::SET, "digestAlgorithms")?)?;
        let mut encapsulated = fields.expect(tag::SEQUENCE, "encapContentInfo")?.reader();
        let econtent_type = encapsulated.oid("eContentType")?;
        let econtent = match encapsulated.optional(tag::context(0))? {
            Some(explicit) => {
                let mut inner = explicit.reader();
                let octets = inner.string(tag::OCTET_STRING, "eContent")?.octet_bytes(content_info, "eContent")?;
                inner.end("eContent")?;
                Some(octets)
            }
            None => None,
        };
        encapsulated.end("encapContentInfo")?;
        let certificates = read_certificates(fields.optional(tag::context(0))?, content_info, &mut odd)?;
        let (crls, ocsp) = read_crls(fields.optional(tag::context(1))?, content_info, &mut odd)?;
        let mut list = fields.expect(tag::SET, "signerInfos")?.reader();
        fields.end("SignedData")?;
        let mut signers = Vec::new();
        while !list.is_empty() {
            if signers.len() == MAX_SIGNERS {
                return Err(CmsError::Limit("more than 100 signers"));
            }
            signers.push(SignerInfo::read(&list.expect(tag::SEQUENCE, "SignerInfo")?, &digests, content_info)?);
        }
        for (place, error) in multiple_signatures::broken(&signers, &certificates) {
            if let Some(signer) = signers.get_mut(place) {
                signer.fault.get_or_insert(error);
            }
        }
        Ok(Self { econtent_type: econtent_type.to_string(), econtent, certificates, crls, ocsp, signers, odd })
    }
}

/// The digests that are known here of digestAlgorithms.
fn digests_named(set: Element<'_>) -> Result<Vec<Digest>, CmsError> {
    let mut list = set.reader();
    let mut digests = Vec::new();
    let mut count = 0usize;
    while !list.is_empty() {
        count += 1;
        if count > MAX_SIGNERS {
            return Err(CmsError::Limit("more than 100 digest algorithms"));
        }
        let der = to_der(list.expect(tag::SEQUENCE, "digestAlgorithm")?.raw)?;
        if let Ok(digest) = super::algorithm::digest_algorithm(&der)
            && !digests.contains(&digest)
        {
            digests.push(digest);
        }
    }
    Ok(digests)
}

fn read_certificates(
    set: Option<Element<'_>>,
    input: &Bytes,
    odd: &mut Vec<String>,
) -> Result<Vec<Certificate>, CmsError> {
    let mut certificates = Vec::new();
    let (mut unread, mut others, mut count) = (0usize, 0usize, 0usize);
    let Some(set) = set else { return Ok(certificates) };
    let mut list = set.reader();
    while !list.is_empty() {
        count += 1;
        if count > MAX_CERTIFICATES {
            return Err(CmsError::Limit("more than 256 certificates"));
        }
        let element = list.element()?;
        if element.tag != tag::SEQUENCE {
            others += 1;
            continue;
        }
        // One that cannot be read must not cost the whole message; its octets stay as received, for its signature.
        let der = if element.indefinite {
            to_der(element.raw).map(|der| slice(input, &der))
        } else {
            Ok(slice(input, element.raw))
        };
        match der.ok().and_then(|der| Certificate::from_der(der).ok()) {
            Some(certificate) => certificates.push(certificate),
            None => unread += 1,
        }
    }
    if unread > 0 {
        odd.push(format!("{unread} certificates that cannot be read"));
    }
    if others > 0 {
        odd.push(format!("{others} attribute or other certificates, left aside"));
    }
    Ok(certificates)
}

/// CRLs and OCSP responses among the revocation values.
fn read_crls(
    set: Option<Element<'_>>,
    input: &Bytes,
    odd: &mut Vec<String>,
) -> Result<(Vec<Bytes>, Vec<Bytes>), CmsError> {
    let (mut crls, mut ocsp) = (Vec::new(), Vec::new());
    let Some(set) = set else { return Ok((crls, ocsp)) };
    let mut list = set.reader();
    let mut others = 0usize;
    while !list.is_empty() {
        if crls.len() + ocsp.len() + others == MAX_CERTIFICATES {
            return Err(CmsError::Limit("more than 256 CRLs"));
        }
        let element = list.element()?;
        if element.tag == tag::SEQUENCE && !element.indefinite {
            crls.push(slice(input, element.raw));
        } else if let Some(response) = ocsp_response(&element) {
            ocsp.push(slice(input, response));
        } else {
            others += 1;
        }
    }
    if others > 0 {
        odd.push(format!("{others} revocation values that are no CRL, left aside"));
    }
    Ok((crls, ocsp))
}

/// OtherRevocationInfoFormat of id-ri-ocsp-response (RFC 5940 section 2.1).
fn ocsp_response<'a>(element: &Element<'a>) -> Option<&'a [u8]> {
    const OCSP_RESPONSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.16.2");
    if element.tag != tag::context(1) {
        return None;
    }
    let mut fields = element.reader();
    let format = fields.oid("otherRevInfoFormat").ok()?;
    let response = fields.element().ok()?;
    (format == OCSP_RESPONSE && !response.indefinite).then_some(response.raw)
}

impl SignerInfo {
    fn read(element: &Element<'_>, named: &[Digest], input: &Bytes) -> Result<Self, CmsError> {
        let mut fields = element.reader();
        fields.small_integer("SignerInfo version")?;
        let id = CertificateId::signer_identifier(&mut fields, input)?;
        let digest_der = to_der(fields.expect(tag::SEQUENCE, "digestAlgorithm")?.raw)?;
        let signed = fields.optional(tag::context(0))?;
        let signature_der = to_der(fields.expect(tag::SEQUENCE, "signatureAlgorithm")?.raw)?;
        let signature = fields.string(tag::OCTET_STRING, "signature")?.octet_bytes(input, "signature")?;
        let unsigned = fields.optional(tag::context(1))?;
        fields.end("SignerInfo")?;

        let digest = super::algorithm::digest_algorithm(&digest_der);
        let shake = ShakeDigest::from_der(&digest_der);
        let scheme = match &digest {
            Ok(digest) => super::algorithm::signature_scheme(&signature_der, Some(*digest)),
            // RFC 9882 section 3.3: without signed attributes ML-DSA's digestAlgorithm has no meaning, and is not looked at.
            Err(error) if shake.is_some() || signed.is_none() => {
                super::algorithm::signature_scheme(&signature_der, None)
                    .ok()
                    .filter(|scheme| matches!(scheme, SignatureScheme::MlDsa(_) | SignatureScheme::SlhDsa(_)))
                    .ok_or_else(|| error.clone())
            }
            Err(error) => Err(error.clone()),
        };
        let mut fault = None;
        if digest.as_ref().is_ok_and(|digest| !named.contains(digest)) {
            fault = Some(CmsError::Rule {
                rule: "RFC 5652 section 5.1",
                why: "digestAlgorithms leaves the signer's digest out",
            });
        }
        let attributes = match signed.map(|signed| Attributes::read(&signed, input)) {
            Some(Ok(attributes)) => Some(attributes),
            Some(Err(error)) => {
                fault = Some(error);
                None
            }
            None => None,
        };
        let mut countersignatures = Vec::new();
        if let Some(unsigned) = unsigned {
            match attributes::read_unsigned(&unsigned, input) {
                Ok(found) => countersignatures = found,
                Err(error) => drop(fault.get_or_insert(error)),
            }
        }
        let seen = attributes.as_ref();
        Ok(Self {
            id,
            digest: digest.ok(),
            shake,
            scheme,
            signing_time: seen.and_then(|seen| seen.signing_time),
            capabilities: seen.and_then(|seen| seen.capabilities.clone()),
            encryption_key_preference: seen.and_then(|seen| seen.encryption_key_preference.clone()),
            countersignatures,
            attributes,
            signature_algorithm: slice(input, &signature_der),
            signature,
            fault,
        })
    }

    fn guard(&self) -> Option<&multiple_signatures::Guard> {
        self.attributes.as_ref()?.guard.as_ref()
    }

    fn signature_algorithm(&self) -> &[u8] {
        &self.signature_algorithm
    }
}

#[cfg(test)]
impl SignerInfo {
    /// The signature as sent.
    pub(crate) fn signature_octets(&self) -> &[u8] {
        &self.signature
    }
}

/// Reads a SignedData as a fuzzer gives it: no crash; what has no signer verifies as nothing, and signers are bounded.
#[doc(hidden)]
pub fn fuzz_signed_data(data: &[u8]) {
    if let Ok(read) = SignedData::parse(&Bytes::copy_from_slice(data)) {
        assert!(read.signers.len() <= MAX_SIGNERS && read.certificates.len() <= MAX_CERTIFICATES);
        let content = read.econtent.clone().unwrap_or_default();
        for signer in &read.signers {
            for certificate in read.certificates.iter().take(2) {
                let _ = signer.verify(&read, &content, certificate, certificate.public_key(), Default::default());
            }
        }
    }
}

//! Signed attributes (RFC 5652 section 11, RFC 8551 section 2.5, RFC 5035).

use bytes::Bytes;
use const_oid::ObjectIdentifier;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::CertificateId;
use super::countersignature::{Countersignature, MAX_COUNTERSIGNATURES};
use super::multiple_signatures::Guard;
use crate::cms::algorithm::{Digest, digest_algorithm};
use crate::cms::ber::{Element, Reader, slice, tag, to_der, write};
use crate::cms::error::CmsError;
use crate::pki::certificate::Certificate;

pub(super) const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
pub(super) const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
pub(super) const SIGNING_TIME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");
pub(super) const SMIME_CAPABILITIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.15");
pub(super) const KEY_PREFERENCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.11");
const SIGNING_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12");
pub(super) const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");

const COUNTERSIGNATURE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.6");

/// Attributes in one SignerInfo at most.
const MAX_ATTRIBUTES: usize = 128;

/// The signed attributes of a SignerInfo.
#[derive(Debug, Clone)]
pub struct Attributes {
    /// The octets that may have been signed: as sent (as SET OF), then as DER wants them where that differs.
    candidates: Vec<Vec<u8>>,
    pub(super) content_type: ObjectIdentifier,
    pub(super) message_digest: Bytes,
    pub(super) signing_time: Option<Timestamp>,
    pub(super) capabilities: Option<Bytes>,
    pub(super) encryption_key_preference: Option<CertificateId>,
    /// Digest and hash of the certificate that signingCertificate(V2) names first.
    signing_certificate: Vec<(Digest, Bytes)>,
    /// multiple-signatures (RFC 5752).
    pub(super) guard: Option<Guard>,
}

const fn rule(why: &'static str) -> CmsError {
    CmsError::Rule { rule: "RFC 5652 section 11", why }
}

impl Attributes {
    /// Reads signedAttrs. An error is a rule broken in this SignerInfo.
    pub(super) fn read(element: &Element<'_>, input: &Bytes) -> Result<Self, CmsError> {
        let mut found = Found::default();
        let mut each = Vec::new();
        let mut list = element.reader();
        while !list.is_empty() {
            if each.len() == MAX_ATTRIBUTES {
                return Err(CmsError::Limit("more than 128 signed attributes"));
            }
            let attribute = to_der(list.expect(tag::SEQUENCE, "Attribute")?.raw)?;
            found.take(&attribute, input)?;
            each.push(attribute.into_owned());
        }
        let mut candidates = Vec::new();
        if !element.indefinite && element.raw.first() == Some(&tag::context(0)) {
            let mut sent = element.raw.to_vec();
            if let Some(first) = sent.first_mut() {
                *first = tag::SET;
            }
            candidates.push(sent);
        }
        let guard = Guard::read(&each)?;
        let sorted = write::set_of(tag::SET, each);
        if !candidates.contains(&sorted) {
            candidates.push(sorted);
        }
        Ok(Self {
            candidates,
            content_type: found.content_type.ok_or(rule("the signed attributes lack contentType"))?,
            message_digest: found.message_digest.ok_or(rule("the signed attributes lack messageDigest"))?,
            signing_time: found.signing_time,
            capabilities: found.capabilities,
            encryption_key_preference: found.encryption_key_preference,
            signing_certificate: found.signing_certificate.into_iter().chain(found.signing_certificate_v2).collect(),
            guard,
        })
    }

    pub(super) fn candidates(&self) -> impl Iterator<Item = &[u8]> {
        self.candidates.iter().map(Vec::as_slice)
    }

    /// RFC 5035 section 5: the first certificate named by signingCertificate(V2) is the signer's.
    pub(super) fn names(&self, certificate: &Certificate) -> bool {
        self.signing_certificate.iter().all(|(digest, hash)| match digest {
            Digest::Sha256 => certificate.fingerprint() == **hash,
            other => other.of(certificate.der()).as_ref() == hash.as_ref(),
        })
    }
}

const SECOND_SIGNING_CERTIFICATE: CmsError =
    CmsError::Rule { rule: "RFC 5035 section 3", why: "signingCertificate has more than one value" };

#[derive(Default)]
struct Found {
    content_type: Option<ObjectIdentifier>,
    message_digest: Option<Bytes>,
    signing_time: Option<Timestamp>,
    capabilities: Option<Bytes>,
    encryption_key_preference: Option<CertificateId>,
    signing_certificate: Option<(Digest, Bytes)>,
    signing_certificate_v2: Option<(Digest, Bytes)>,
}

impl Found {
    fn take(&mut self, attribute: &[u8], input: &Bytes) -> Result<(), CmsError> {
        let (oid, mut values) = attribute_parts(attribute)?;
        match oid {
            oid if oid == CONTENT_TYPE => {
                let kind = values.oid("contentType")?;
                once(&mut self.content_type, kind, &values, rule("contentType has more than one value"))
            }
            oid if oid == MESSAGE_DIGEST => {
                let digest = slice(input, values.expect(tag::OCTET_STRING, "messageDigest")?.content);
                once(&mut self.message_digest, digest, &values, rule("messageDigest has more than one value"))
            }
            oid if oid == SIGNING_TIME => {
                let time = read_time(&values.element()?)?;
                once(&mut self.signing_time, time, &values, rule("signingTime has more than one value"))
            }
            oid if oid == SMIME_CAPABILITIES => {
                // An announcement that cannot be read is no announcement; the signature does not depend on it.
                if let Ok(list) = values.expect(tag::SEQUENCE, "SMIMECapabilities") {
                    self.capabilities.get_or_insert(slice(input, list.raw));
                }
                Ok(())
            }
            oid if oid == KEY_PREFERENCE => {
                if let Ok(Some(preference)) = values.element().and_then(|value| key_preference(&value, input)) {
                    self.encryption_key_preference.get_or_insert(preference);
                }
                Ok(())
            }
            // RFC 5035 section 3: one instance each, of one value. Each costs a digest of the certificate.
            oid if oid == SIGNING_CERTIFICATE => {
                let named = first_certificate(&values.element()?, Digest::Sha1, input)?;
                once(&mut self.signing_certificate, named, &values, SECOND_SIGNING_CERTIFICATE)
            }
            oid if oid == SIGNING_CERTIFICATE_V2 => {
                let named = first_certificate(&values.element()?, Digest::Sha256, input)?;
                once(&mut self.signing_certificate_v2, named, &values, SECOND_SIGNING_CERTIFICATE)
            }
            _ => Ok(()),
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T, rest: &Reader<'_>, error: CmsError) -> Result<(), CmsError> {
    if place.is_some() || !rest.is_empty() {
        return Err(error);
    }
    *place = Some(value);
    Ok(())
}

/// An Attribute: its type and a reader of its values (at least one).
pub(super) fn attribute_parts(attribute: &[u8]) -> Result<(ObjectIdentifier, Reader<'_>), CmsError> {
    let mut outer = Reader::der(attribute);
    let mut fields = outer.expect(tag::SEQUENCE, "Attribute")?.reader();
    outer.end("Attribute")?;
    let oid = fields.oid("attrType")?;
    let values = fields.expect(tag::SET, "attrValues")?.reader();
    fields.end("Attribute")?;
    if values.is_empty() { Err(rule("an attribute without a value")) } else { Ok((oid, values)) }
}

/// SMIMEEncryptionKeyPreference (RFC 8551 section 2.5.3).
fn key_preference(element: &Element<'_>, input: &Bytes) -> Result<Option<CertificateId>, CmsError> {
    match element.tag {
        octet if octet == tag::context(0) => CertificateId::issuer_and_serial(element, input).map(Some),
        octet if octet == tag::context(1) => {
            let id = element.reader().expect(tag::OCTET_STRING, "subjectKeyIdentifier")?;
            Ok(Some(CertificateId::SubjectKeyIdentifier(slice(input, id.content))))
        }
        octet if octet == tag::context_primitive(2) => {
            Ok(Some(CertificateId::SubjectKeyIdentifier(slice(input, element.content))))
        }
        _ => Ok(None),
    }
}

/// The first ESSCertID or ESSCertIDv2.
fn first_certificate(element: &Element<'_>, default: Digest, input: &Bytes) -> Result<(Digest, Bytes), CmsError> {
    let mut list = element.reader().expect(tag::SEQUENCE, "signingCertificate")?.reader();
    let id = list.expect(tag::SEQUENCE, "ESSCertID")?.reader();
    certificate_hash(id, default).map(|(digest, hash)| (digest, slice(input, &hash)))
}

/// Digest and certHash of an ESSCertID or ESSCertIDv2 (RFC 5035 sections 3 and 4).
pub(super) fn certificate_hash(mut id: Reader<'_>, default: Digest) -> Result<(Digest, Vec<u8>), CmsError> {
    let digest = match id.optional(tag::SEQUENCE)? {
        Some(algorithm) => digest_algorithm(algorithm.raw)?,
        None => default,
    };
    Ok((digest, id.expect(tag::OCTET_STRING, "certHash")?.content.to_vec()))
}

/// UTCTime or GeneralizedTime as RFC 5652 section 11.3 wants them: with seconds, in Z.
fn read_time(element: &Element<'_>) -> Result<Timestamp, CmsError> {
    let bad = rule("signingTime cannot be read");
    let text = std::str::from_utf8(element.content).map_err(|_| bad.clone())?;
    let digits = text
        .strip_suffix('Z')
        .filter(|digits| digits.bytes().all(|octet| octet.is_ascii_digit()))
        .ok_or(bad.clone())?;
    let (year, rest) = match (element.tag, digits.len()) {
        (tag::UTC_TIME, 12) => {
            let (year, rest) = digits.split_at_checked(2).ok_or(bad.clone())?;
            let year: i16 = year.parse().map_err(|_| bad.clone())?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, rest)
        }
        (tag::GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at_checked(4).ok_or(bad.clone())?;
            (year.parse().map_err(|_| bad.clone())?, rest)
        }
        _ => return Err(bad),
    };
    let mut pairs = rest
        .as_bytes()
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[tens, ones]| i8::try_from((tens - b'0') * 10 + (ones - b'0')).unwrap_or(-1));
    let mut next = || pairs.next().unwrap_or(-1);
    DateTime::new(year, next(), next(), next(), next(), next(), 0)
        .and_then(|time| TimeZone::UTC.to_timestamp(time))
        .map_err(|_| bad)
}

/// Reads unsignedAttrs: countersignatures, those that cannot be read left out. RFC 5652 sections 11.1 to 11.3: contentType,
/// messageDigest and signingTime must not stand here, where anybody could have put them.
pub(super) fn read_unsigned(element: &Element<'_>, input: &Bytes) -> Result<Vec<Countersignature>, CmsError> {
    let mut found = Vec::new();
    let mut list = element.reader();
    for _ in 0..=MAX_ATTRIBUTES {
        if list.is_empty() {
            return Ok(found);
        }
        let mut fields = list.expect(tag::SEQUENCE, "Attribute")?.reader();
        let oid = fields.oid("attrType")?;
        if [CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME].contains(&oid) {
            return Err(rule("contentType, messageDigest or signingTime is among the unsigned attributes"));
        }
        if oid == COUNTERSIGNATURE
            && let Ok(values) = fields.expect(tag::SET, "attrValues")
        {
            let mut values = values.reader();
            while let Ok(value) = values.expect(tag::SEQUENCE, "Countersignature")
                && found.len() < MAX_COUNTERSIGNATURES
            {
                found.extend(Countersignature::read(&value, input));
            }
        }
    }
    Err(CmsError::Limit("more than 128 unsigned attributes"))
}

/// Whether `content` is the DER (or BER) of a SET OF Attribute, and so may have been signed as the attributes of another message (A6).
pub(super) fn looks_like_attributes(content: &[u8]) -> bool {
    let mut outer = Reader::ber(content);
    let Ok(set) = outer.expect(tag::SET, "SET OF Attribute") else { return false };
    let mut list = set.reader();
    let mut any = false;
    while !list.is_empty() {
        let Ok(attribute) = list.expect(tag::SEQUENCE, "Attribute") else { return false };
        let mut fields = attribute.reader();
        if fields.oid("attrType").is_err() || fields.expect(tag::SET, "attrValues").is_err() || !fields.is_empty() {
            return false;
        }
        any = true;
    }
    any && outer.is_empty()
}

//! What a certificate says for mail (RFC 5280, RFC 8550, RFC 9598).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;

use super::asn1::{Asn1Error, Reader, Span, Tlv, tag};
use super::public_key::{KeyKind, PublicKey};
use crate::address::{Domain, Mailbox, MailboxKey};
use crate::cms::algorithm::Capabilities;

pub(crate) mod extensions;
pub(crate) mod name;
#[cfg(test)]
mod tests;

use extensions::{Extensions, GeneralName, usage};
use name::CanonicalName;

/// The largest certificate that is read, in octets.
pub const MAX_CERTIFICATE: usize = 256 * 1024;

/// The most names read from a SAN (A11).
pub const MAX_NAMES: usize = 1000;

/// Why a certificate cannot be read or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("not a certificate: {0}")]
    Malformed(String),
    #[error("certificate refused: {0}")]
    Refused(String),
}

impl From<Asn1Error> for CertificateError {
    fn from(error: Asn1Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// What a leaf is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Verify a mail signature: digitalSignature or nonRepudiation (or no keyUsage), EKU emailProtection (or none / any by setting).
    Signature,
    /// Encrypt to it: keyEncipherment (RSA) or keyAgreement (EC).
    Encryption,
}

/// A certificate, parsed once, cheap to clone.
#[derive(Clone)]
pub struct Certificate {
    inner: Arc<Inner>,
}

/// The DER, places in it, and what is dear to read twice.
struct Inner {
    der: Bytes,
    places: Places,
    not_before: Timestamp,
    not_after: Timestamp,
    version: u8,
    subject_is_empty: bool,
    issuer_hash: u64,
    subject_hash: u64,
    public_key: PublicKey,
    extensions: Extensions,
    mailboxes: Box<[Mailbox]>,
    /// SHA-256 of the DER, once somebody asked.
    fingerprint: OnceLock<[u8; 32]>,
}

/// Where the fields lie.
#[derive(Debug, Default)]
struct Places {
    tbs: Span,
    serial: Span,
    algorithm: Span,
    issuer: Span,
    subject: Span,
    spki: Span,
    signature: Span,
}

/// The fields of TBSCertificate, read but not yet judged.
struct Fields {
    places: Places,
    version: u8,
    not_before: Timestamp,
    not_after: Timestamp,
    extensions: Extensions,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({}, {} octets)", self.subject_text(), self.inner.der.len())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.inner.der == other.inner.der
    }
}
impl Eq for Certificate {}

impl Certificate {
    /// Reads DER (trailing octets are an error). At most [`MAX_CERTIFICATE`] octets. A key of a kind that is not known here is
    /// `Refused`.
    pub fn from_der(der: Bytes) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(CertificateError::Malformed(format!(
                "{} octets, at most {MAX_CERTIFICATE} are read",
                der.len()
            )));
        }
        let Fields { places, version, not_before, not_after, extensions } = read_fields(&der)?;
        let spki = der.slice(places.spki.range());
        let public_key = PublicKey::from_spki(spki).map_err(|error| CertificateError::Refused(error.to_string()))?;
        let issuer = CanonicalName::from_der(places.issuer.of(&der))?;
        let subject = CanonicalName::from_der(places.subject.of(&der))?;
        let mailboxes = match &extensions.alternative_names {
            Some(place) => read_mailboxes(place.of(&der))?,
            None => Box::default(),
        };
        let inner = Inner {
            issuer_hash: issuer.hash64(),
            subject_hash: subject.hash64(),
            subject_is_empty: subject.is_empty(),
            der,
            places,
            not_before,
            not_after,
            version,
            public_key,
            extensions,
            mailboxes,
            fingerprint: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads every certificate of a file: PEM (several blocks; other blocks are passed over) or one DER.
    pub fn from_pem_or_der(octets: &[u8]) -> Result<Vec<Self>, CertificateError> {
        if octets.first() == Some(&tag::SEQUENCE) {
            return Ok(vec![Self::from_der(Bytes::copy_from_slice(octets))?]);
        }
        let blocks = super::pem::blocks(octets).map_err(CertificateError::Malformed)?;
        let certificates = blocks
            .into_iter()
            .filter(|block| matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"))
            .map(|block| Self::from_der(Bytes::copy_from_slice(&block.octets)))
            .collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() {
            return Err(CertificateError::Malformed(
                "neither DER nor PEM: no line \"-----BEGIN CERTIFICATE-----\" was found".to_owned(),
            ));
        }
        Ok(certificates)
    }

    /// As received.
    pub fn der(&self) -> &Bytes {
        &self.inner.der
    }
    /// SHA-256 of the DER; computed when first asked for.
    pub fn fingerprint(&self) -> [u8; 32] {
        *self.inner.fingerprint.get_or_init(|| sha256(&self.inner.der))
    }
    /// Issuer Name, DER as received.
    pub fn issuer(&self) -> &[u8] {
        self.inner.places.issuer.of(&self.inner.der)
    }
    /// Subject Name, DER as received.
    pub fn subject(&self) -> &[u8] {
        self.inner.places.subject.of(&self.inner.der)
    }
    /// RFC 4514 text of the issuer, for people; control characters escaped.
    pub fn issuer_text(&self) -> String {
        name::to_text(self.issuer())
    }
    /// RFC 4514 text of the subject.
    pub fn subject_text(&self) -> String {
        name::to_text(self.subject())
    }
    /// Content octets of the serial INTEGER.
    pub fn serial(&self) -> &[u8] {
        self.inner.places.serial.of(&self.inner.der)
    }
    /// subjectKeyIdentifier, if there.
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.inner.extensions.subject_key.map(|place| place.of(&self.inner.der))
    }
    /// keyIdentifier of the authorityKeyIdentifier, if there.
    pub fn authority_key_identifier(&self) -> Option<&[u8]> {
        self.inner.extensions.authority_key.map(|place| place.of(&self.inner.der))
    }
    /// First second of validity.
    pub fn not_before(&self) -> Timestamp {
        self.inner.not_before
    }
    /// Last second of validity.
    pub fn not_after(&self) -> Timestamp {
        self.inner.not_after
    }
    /// The key certified.
    pub fn public_key(&self) -> &PublicKey {
        &self.inner.public_key
    }
    /// rfc822Name and SmtpUTF8Mailbox of the SAN that are well-formed mailboxes.
    pub fn mailboxes(&self) -> &[Mailbox] {
        &self.inner.mailboxes
    }
    /// Whether the SAN holds this mailbox (compared by key).
    pub fn is_for(&self, mailbox: &MailboxKey) -> bool {
        self.inner.mailboxes.iter().any(|own| mailbox.is_of(own))
    }
    /// What its owner can read, as the smimeCapabilities extension says (RFC 4262); `None` where it says nothing that is understood.
    pub fn capabilities(&self) -> Option<Capabilities> {
        let list = self.inner.extensions.smime_capabilities?.of(&self.inner.der);
        Capabilities::read(list).ok().flatten()
    }
    /// The mailboxes in emailAddress attributes of the subject, where the SAN names no mailbox at all (RFC 8550 section 3: what old CAs
    /// wrote). They count only where a setting says so.
    pub fn subject_mailboxes(&self) -> Vec<Mailbox> {
        let in_san = |name: GeneralName<'_>| matches!(name, GeneralName::Rfc822(_) | GeneralName::SmtpUtf8(_));
        if self.alternative_names().any(in_san) {
            return Vec::new();
        }
        let texts = name::email_addresses(self.subject()).unwrap_or_default();
        texts.iter().take(MAX_NAMES).filter_map(|text| Mailbox::parse(text).ok()).collect()
    }
    /// Whether it names this mailbox: in the SAN, or with `in_subject` in the subject's emailAddress where the SAN names none.
    pub fn names(&self, mailbox: &MailboxKey, in_subject: bool) -> bool {
        self.is_for(mailbox) || (in_subject && self.subject_mailboxes().iter().any(|own| mailbox.is_of(own)))
    }
    /// Whether it is a domain certificate for that domain: its SAN holds rfc822Name `@domain`, or the mailbox that RFC 3183 names for
    /// the purpose: `domain-confidentiality-authority@domain` (section 4.1), `domain-signing-authority@domain` (section 3.1.1).
    pub fn is_for_domain(&self, domain: &Domain, purpose: Purpose) -> bool {
        let authority = match purpose {
            Purpose::Encryption => "domain-confidentiality-authority",
            Purpose::Signature => "domain-signing-authority",
        };
        let is_authority = |own: &Mailbox| own.local().eq_ignore_ascii_case(authority) && own.domain() == domain;
        if self.inner.mailboxes.iter().any(is_authority) {
            return true;
        }
        self.alternative_names().any(|name| match name {
            GeneralName::Rfc822([b'@', host @ ..]) => std::str::from_utf8(host)
                .ok()
                .and_then(|host| Domain::parse(host).ok())
                .is_some_and(|host| host == *domain),
            _ => false,
        })
    }
    /// Key usage and extended key usage fit the purpose; says why not (RFC 8550 section 4.4.2, 4.4.4).
    pub fn fits(&self, purpose: Purpose) -> Result<(), CertificateError> {
        let refuse = |why: &str| Err(CertificateError::Refused(why.to_owned()));
        let (wanted, names) = match (purpose, self.inner.public_key.kind()) {
            (Purpose::Signature, KeyKind::X25519) => return refuse("an X25519 key cannot sign"),
            (Purpose::Encryption, KeyKind::Ed25519) => return refuse("an Ed25519 key cannot encrypt"),
            (Purpose::Signature, KeyKind::MlKem(_)) => return refuse("an ML-KEM key cannot sign"),
            (Purpose::Encryption, KeyKind::MlDsa(_) | KeyKind::SlhDsa(_)) => {
                return refuse("a key that signs cannot encrypt");
            }
            (Purpose::Encryption, KeyKind::Rsa { .. }) if self.inner.public_key.pss_only().is_some() => {
                return refuse("an RSA key for PSS alone cannot encrypt (RFC 4055 section 1.2)");
            }
            (Purpose::Signature, _) => {
                (usage::DIGITAL_SIGNATURE | usage::NON_REPUDIATION, "digitalSignature or nonRepudiation")
            }
            (Purpose::Encryption, KeyKind::Rsa { .. } | KeyKind::MlKem(_)) => {
                (usage::KEY_ENCIPHERMENT, "keyEncipherment")
            }
            (Purpose::Encryption, _) => (usage::KEY_AGREEMENT, "keyAgreement"),
        };
        if self.inner.extensions.key_usage.is_some_and(|bits| bits & wanted == 0) {
            return Err(CertificateError::Refused(format!("its keyUsage lacks {names}")));
        }
        self.suits_its_key().map_err(CertificateError::Refused)?;
        if !self.allows_mail() {
            return refuse("its extendedKeyUsage lacks emailProtection");
        }
        Ok(())
    }
    /// What a post-quantum key's keyUsage may say (RFC 9881 section 5, RFC 9909 section 6, RFC 9935 section 5); says what it may not.
    pub(crate) fn suits_its_key(&self) -> Result<(), String> {
        let Some(bits) = self.inner.extensions.key_usage else { return Ok(()) };
        let signing = usage::DIGITAL_SIGNATURE | usage::NON_REPUDIATION | usage::KEY_CERT_SIGN | usage::CRL_SIGN;
        let (allowed, rule) = match self.inner.public_key.kind() {
            KeyKind::MlDsa(_) => (signing, "RFC 9881 section 5"),
            KeyKind::SlhDsa(_) => (signing, "RFC 9909 section 6"),
            KeyKind::MlKem(_) => (usage::KEY_ENCIPHERMENT, "RFC 9935 section 5"),
            _ => return Ok(()),
        };
        if bits & allowed == 0 || bits & !allowed != 0 {
            let kind = self.inner.public_key.kind().name();
            return Err(format!("its keyUsage does not fit a key of kind {kind} ({rule})"));
        }
        Ok(())
    }
    /// Basic constraints say CA.
    pub fn is_ca(&self) -> bool {
        self.inner.extensions.ca
    }
    /// Issuer equals subject (octets after RFC 5280 7.1 comparison).
    pub fn is_self_issued(&self) -> bool {
        self.inner.issuer_hash == self.inner.subject_hash && same_name(self.issuer(), self.subject())
    }

    /// TBSCertificate as received: what the signature covers.
    pub fn tbs(&self) -> &[u8] {
        self.inner.places.tbs.of(&self.inner.der)
    }
    /// signatureAlgorithm, DER.
    pub fn signature_algorithm(&self) -> &[u8] {
        self.inner.places.algorithm.of(&self.inner.der)
    }
    /// The signature's octets.
    pub fn signature(&self) -> &[u8] {
        self.inner.places.signature.of(&self.inner.der)
    }
    /// 1 or 3 (2 where someone made such a thing).
    pub fn version(&self) -> u8 {
        self.inner.version
    }
    /// Whether `issuer` carries the name that this certificate gives as its issuer's.
    pub(crate) fn names_as_issuer(&self, issuer: &Certificate) -> bool {
        self.inner.issuer_hash == issuer.inner.subject_hash && same_name(self.issuer(), issuer.subject())
    }
    /// No extendedKeyUsage, or one with emailProtection or anyExtendedKeyUsage.
    pub(crate) fn allows_mail(&self) -> bool {
        self.inner.extensions.extended_usage.is_none_or(|eku| eku.email_protection || eku.any)
    }
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.inner.extensions
    }
    pub(crate) fn has_empty_subject(&self) -> bool {
        self.inner.subject_is_empty
    }
    /// The content of an extension.
    pub(crate) fn at(&self, place: Span) -> &[u8] {
        place.of(&self.inner.der)
    }
    /// Every entry of the SAN that can be read.
    pub(crate) fn alternative_names(&self) -> impl Iterator<Item = GeneralName<'_>> {
        let content = self.inner.extensions.alternative_names.map_or(&[][..], |place| self.at(place));
        let mut reader = Reader::new(content);
        std::iter::from_fn(move || if reader.is_empty() { None } else { GeneralName::read(&mut reader).ok() })
    }
}

pub(crate) fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    for (to, from) in out.iter_mut().zip(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, octets).as_ref()) {
        *to = *from;
    }
    out
}

/// Names equal after RFC 5280 7.1.
pub(crate) fn same_name(left: &[u8], right: &[u8]) -> bool {
    left == right
        || matches!((CanonicalName::from_der(left), CanonicalName::from_der(right)), (Ok(left), Ok(right)) if left == right)
}

fn read_fields(der: &[u8]) -> Result<Fields, Asn1Error> {
    let mut outer = Reader::new(der);
    let mut certificate = outer.sequence("a Certificate is a SEQUENCE")?;
    outer.done()?;
    let tbs = certificate.expect(tag::SEQUENCE, "TBSCertificate is a SEQUENCE")?;
    let algorithm = certificate.expect(tag::SEQUENCE, "signatureAlgorithm is a SEQUENCE")?;
    let signature = certificate.expect(tag::BIT_STRING, "signatureValue is a BIT STRING")?;
    certificate.done()?;
    signature.bit_octets()?;
    let mut fields = tbs.reader();
    let version = read_version(&mut fields)?;
    let serial = fields.expect(tag::INTEGER, "serialNumber is an INTEGER")?;
    let inner_algorithm = fields.expect(tag::SEQUENCE, "signature is a SEQUENCE")?;
    // RFC 5280 4.1.1.2: both fields hold the same AlgorithmIdentifier.
    if inner_algorithm.full != algorithm.full {
        return Err(inner_algorithm.error("signature and signatureAlgorithm differ"));
    }
    let issuer = fields.expect(tag::SEQUENCE, "issuer is a Name")?;
    let mut validity = fields.sequence("validity is a SEQUENCE")?;
    let (not_before, not_after) = (read_time(validity.any()?)?, read_time(validity.any()?)?);
    validity.done()?;
    let subject = fields.expect(tag::SEQUENCE, "subject is a Name")?;
    let spki = fields.expect(tag::SEQUENCE, "subjectPublicKeyInfo is a SEQUENCE")?;
    let places = Places {
        tbs: tbs.full_span()?,
        serial: serial.value_span()?,
        algorithm: algorithm.full_span()?,
        issuer: issuer.full_span()?,
        subject: subject.full_span()?,
        spki: spki.full_span()?,
        signature: signature_place(signature)?,
    };
    for unique_id in [1, 2] {
        if let Some(found) = fields.optional(tag::context(unique_id))?
            && version == 1
        {
            return Err(found.error("a unique identifier in a certificate of version 1"));
        }
    }
    let extensions = match fields.optional(tag::constructed(3))? {
        Some(found) if version != 3 => return Err(found.error("extensions in a certificate that is not of version 3")),
        Some(found) => {
            let mut list = found.reader();
            let extensions = Extensions::read(list.sequence("extensions is a SEQUENCE")?)?;
            list.done()?;
            extensions
        }
        None => Extensions::default(),
    };
    fields.done()?;
    Ok(Fields { places, version, not_before, not_after, extensions })
}

fn read_version(fields: &mut Reader<'_>) -> Result<u8, Asn1Error> {
    let Some(explicit) = fields.optional(tag::constructed(0))? else { return Ok(1) };
    let mut inner = explicit.reader();
    let number = inner.expect(tag::INTEGER, "version is an INTEGER")?;
    inner.done()?;
    match number.unsigned()? {
        0 => Ok(1),
        1 => Ok(2),
        2 => Ok(3),
        _ => Err(number.error("a version other than 1, 2, 3")),
    }
}

/// The octets of the BIT STRING after its count of unused bits.
fn signature_place(signature: Tlv<'_>) -> Result<Span, Asn1Error> {
    signature.value_span()?.without_first().ok_or_else(|| signature.error("empty BIT STRING"))
}

/// UTCTime or GeneralizedTime in the forms of RFC 5280 4.1.2.5: seconds, Z, no fraction.
pub(crate) fn read_time(time: Tlv<'_>) -> Result<Timestamp, Asn1Error> {
    let bad = || time.error("a time is YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ");
    let (digits, rest) = time.value.split_at_checked(time.value.len().saturating_sub(1)).ok_or_else(bad)?;
    let wanted = match time.tag {
        tag::UTC_TIME => 12,
        tag::GENERALIZED_TIME => 14,
        _ => return Err(bad()),
    };
    if rest != b"Z" || digits.len() != wanted || !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let (year_digits, others) = digits.split_at_checked(wanted - 10).ok_or_else(bad)?;
    let value = |octets: &[u8]| octets.iter().fold(0i16, |sum, octet| sum * 10 + i16::from(octet - b'0'));
    let year = match (value(year_digits), wanted) {
        (year, 12) if year < 50 => 2000 + year,
        (year, 12) => 1900 + year,
        (year, _) => year,
    };
    let mut parts = others.chunks(2).map(|pair| value(pair) as i8);
    let mut part = || parts.next().unwrap_or_default();
    let (month, day, hour, minute, second) = (part(), part(), part(), part(), part());
    let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| bad())?;
    match jiff::tz::Offset::UTC.to_timestamp(civil) {
        Ok(timestamp) => Ok(timestamp),
        // RFC 5280 4.1.2.5: 99991231235959Z says "no well-defined expiration".
        Err(_) if year == 9999 => Ok(Timestamp::MAX),
        Err(_) => Err(bad()),
    }
}

/// The well-formed mailboxes of a SAN; others are passed over, a broken GeneralName is an error.
fn read_mailboxes(content: &[u8]) -> Result<Box<[Mailbox]>, Asn1Error> {
    let mut reader = Reader::new(content);
    let mut mailboxes = Vec::new();
    let mut names = 0;
    while !reader.is_empty() {
        names += 1;
        if names > MAX_NAMES {
            return Err(Asn1Error { offset: 0, why: "more than 1000 names in the SAN" });
        }
        let mailbox = match GeneralName::read(&mut reader)? {
            GeneralName::Rfc822(ascii) if ascii.is_ascii() => {
                std::str::from_utf8(ascii).ok().and_then(|text| Mailbox::parse(text).ok())
            }
            // RFC 9598 section 3: only where the local part is not ASCII.
            GeneralName::SmtpUtf8(text) => Mailbox::parse(text).ok().filter(Mailbox::needs_smtputf8),
            _ => None,
        };
        mailboxes.extend(mailbox);
    }
    Ok(mailboxes.into_boxed_slice())
}

/// Fuzz body: what is read is read again alike, and its parts lie within.
#[doc(hidden)]
pub fn fuzz_certificate(data: &[u8]) {
    let Ok(certificate) = Certificate::from_der(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(certificate.der().as_ref(), data);
    assert!(certificate.tbs().len() < data.len());
    assert!(!certificate.subject_text().chars().any(char::is_control));
    assert!(!certificate.issuer_text().chars().any(char::is_control));
    let again = Certificate::from_der(certificate.der().clone());
    assert_eq!(again.as_ref().ok(), Some(&certificate));
    for mailbox in certificate.mailboxes() {
        assert!(certificate.is_for(&mailbox.key()));
    }
    let _ = certificate.capabilities();
    for purpose in [Purpose::Signature, Purpose::Encryption] {
        let _ = certificate.fits(purpose);
    }
}

//! Certificate revocation lists (RFC 5280 section 5): read once, looked up by serial number.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use bytes::Bytes;
use jiff::Timestamp;

use super::scope::Scope;
use super::{EvidenceError, Reason};
use crate::pki::asn1::{Asn1Error, Reader, Span, Tlv, oid_text, tag};
use crate::pki::certificate::{Certificate, name, read_time, same_name};
use crate::pki::path::{SignedError, verify_signed};
use crate::pki::public_key::PublicKey;

/// The largest CRL that is read, in octets.
pub const MAX_CRL: usize = 64 * 1024 * 1024;

/// A CRL: its octets, an index of its entries, and where it applies. What it says counts only once its signature was checked.
pub struct Crl {
    der: Bytes,
    tbs: Span,
    algorithm: Span,
    signature: Span,
    issuer: Span,
    this_update: Timestamp,
    next_update: Option<Timestamp>,
    entries: Vec<Entry>,
    extensions: CrlExtensions,
    /// The key whose signature was found on it: a CRL of many megabytes is not digested for each mail.
    verified: OnceLock<PublicKey>,
}

/// Where an entry lies, sorted by the hash of its serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    serial_hash: u64,
    place: u32,
    /// Of the entry whose certificateIssuer holds for this one, plus one; 0: the issuer of the CRL.
    issuer_place: u32,
}

/// What the CRL's own extensions say.
#[derive(Debug, Default)]
struct CrlExtensions {
    authority_key: Option<Span>,
    number: Option<Span>,
    /// BaseCRLNumber of a delta CRL.
    base_number: Option<Span>,
    scope: Scope,
    unknown_critical: Option<Box<str>>,
}

/// What a CRL says of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) at: Timestamp,
    pub(super) reason: Reason,
}

impl std::fmt::Debug for Crl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crl({}, {}, {} entries)", name::to_text(self.issuer()), self.this_update, self.entries.len())
    }
}

impl Crl {
    /// Reads DER. At most [`MAX_CRL`] octets. The entries are read through once; nothing is believed yet.
    pub fn from_der(der: Bytes) -> Result<Self, EvidenceError> {
        if der.len() > MAX_CRL {
            return Err(EvidenceError::Malformed(format!("{} octets, at most {MAX_CRL} are read", der.len())));
        }
        Ok(read(der)?)
    }

    /// Reads a file: PEM ("X509 CRL" blocks) or DER.
    pub fn from_pem_or_der(octets: &[u8]) -> Result<Vec<Self>, EvidenceError> {
        if octets.first() == Some(&tag::SEQUENCE) {
            return Ok(vec![Self::from_der(Bytes::copy_from_slice(octets))?]);
        }
        let blocks = crate::pki::pem::blocks(octets).map_err(EvidenceError::Malformed)?;
        let wanted = blocks.into_iter().filter(|block| matches!(block.label.as_str(), "X509 CRL" | "CRL"));
        let crls: Vec<Self> =
            wanted.map(|block| Self::from_der(block.octets.to_vec().into())).collect::<Result<_, _>>()?;
        if crls.is_empty() {
            let why = "neither DER nor PEM: no line \"-----BEGIN X509 CRL-----\" was found";
            return Err(EvidenceError::Malformed(why.to_owned()));
        }
        Ok(crls)
    }

    /// As received.
    pub fn der(&self) -> &Bytes {
        &self.der
    }
    /// The issuer's Name, DER.
    pub fn issuer(&self) -> &[u8] {
        self.issuer.of(&self.der)
    }
    /// When it was issued.
    pub fn this_update(&self) -> Timestamp {
        self.this_update
    }
    /// By when the next one is issued: it tells nothing later.
    pub fn next_update(&self) -> Option<Timestamp> {
        self.next_update
    }
    /// How many certificates it lists.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether it lists none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Checks its signature with the signer's key; once checked the result stays. SHA-1 is refused unless `legacy`.
    pub(super) fn verify(&self, signer: &Certificate, legacy: bool) -> Result<(), SignedError> {
        if !legacy && self.verified.get().is_some_and(|key| key.spki() == signer.public_key().spki()) {
            return Ok(());
        }
        let part = |place: Span| place.of(&self.der);
        verify_signed(signer, part(self.algorithm), part(self.tbs), part(self.signature), legacy)?;
        if !legacy {
            let _ = self.verified.set(signer.public_key().clone());
        }
        Ok(())
    }
    pub(super) fn authority_key(&self) -> Option<&[u8]> {
        self.extensions.authority_key.map(|place| place.of(&self.der))
    }
    pub(super) fn scope(&self) -> &Scope {
        &self.extensions.scope
    }
    /// A critical extension, of the CRL or an entry, that is not processed here (RFC 5280 5.2, 5.3): it may not be used.
    pub(super) fn unknown_critical(&self) -> Option<&str> {
        self.extensions.unknown_critical.as_deref()
    }
    pub(super) fn is_delta(&self) -> bool {
        self.extensions.base_number.is_some()
    }
    /// RFC 5280 5.2.4: a delta that may be combined with `base`: of one issuer and scope, for a base no newer than this one, and newer
    /// than it.
    pub(super) fn continues(&self, base: &Crl) -> bool {
        let own = self.extensions.number.map(|place| Magnitude::of(place.of(&self.der)));
        let floor = self.extensions.base_number.map(|place| Magnitude::of(place.of(&self.der)));
        let complete = base.extensions.number.map(|place| Magnitude::of(place.of(&base.der)));
        let (Some(own), Some(floor), Some(complete)) = (own, floor, complete) else { return false };
        complete >= floor
            && complete <= own
            && same_name(self.issuer(), base.issuer())
            && self.authority_key() == base.authority_key()
            && self.scope() == base.scope()
    }

    /// What is said of a certificate, by serial number and issuer.
    pub(super) fn find(&self, serial: &[u8], issuer: &[u8]) -> Option<Listed> {
        let hash = hash(serial);
        let start = self.entries.partition_point(|entry| entry.serial_hash < hash);
        let same = self.entries.iter().skip(start).take_while(|entry| entry.serial_hash == hash);
        same.filter_map(|entry| {
            let fields = EntryFields::read(&mut self.reader_at(entry.place as usize)).ok()?;
            (fields.serial == serial && self.names_issuer(entry.issuer_place, issuer))
                .then_some(Listed { at: fields.at, reason: fields.reason })
        })
        .next()
    }

    fn names_issuer(&self, place: u32, issuer: &[u8]) -> bool {
        let Some(place) = (place as usize).checked_sub(1) else { return same_name(self.issuer(), issuer) };
        let named = EntryFields::read(&mut self.reader_at(place)).ok().and_then(|fields| fields.issuer);
        named.is_some_and(|names| {
            let mut names = Reader::new(names);
            std::iter::from_fn(|| names.any().ok()).any(|name| name.tag == 0xa4 && same_name(name.value, issuer))
        })
    }

    fn reader_at(&self, place: usize) -> Reader<'_> {
        Reader::new(self.der.get(place..).unwrap_or_default())
    }
}

/// A non-negative INTEGER of any length, ordered by its value.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Magnitude<'a>(usize, &'a [u8]);

impl<'a> Magnitude<'a> {
    fn of(octets: &'a [u8]) -> Self {
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        let digits = octets.get(zeros..).unwrap_or_default();
        Self(digits.len(), digits)
    }
}

fn hash(serial: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    serial.hash(&mut hasher);
    hasher.finish()
}

fn read(der: Bytes) -> Result<Crl, Asn1Error> {
    let mut outer = Reader::new(&der);
    let mut list = outer.sequence("a CertificateList is a SEQUENCE")?;
    outer.done()?;
    let tbs = list.expect(tag::SEQUENCE, "TBSCertList is a SEQUENCE")?;
    let algorithm = list.expect(tag::SEQUENCE, "signatureAlgorithm is a SEQUENCE")?;
    let signature = list.expect(tag::BIT_STRING, "signatureValue is a BIT STRING")?;
    list.done()?;
    signature.bit_octets()?;
    let mut fields = tbs.reader();
    let version = fields.optional(tag::INTEGER)?.map(|version| version.unsigned()).transpose()?;
    if version.is_some_and(|version| version != 1) {
        return Err(tbs.error("a CRL of a version other than 2"));
    }
    let inner = fields.expect(tag::SEQUENCE, "signature is a SEQUENCE")?;
    // RFC 5280 5.1.1.2: both fields hold the same AlgorithmIdentifier.
    if inner.full != algorithm.full {
        return Err(inner.error("signature and signatureAlgorithm differ"));
    }
    let issuer = fields.expect(tag::SEQUENCE, "issuer is a Name")?;
    let this_update = read_time(fields.any()?)?;
    let next_update = match fields.peek() {
        Some(tag::UTC_TIME | tag::GENERALIZED_TIME) => Some(read_time(fields.any()?)?),
        _ => None,
    };
    let mut extensions = CrlExtensions::default();
    let mut entries = Vec::new();
    if let Some(revoked) = fields.optional(tag::SEQUENCE)? {
        read_entries(revoked, &mut entries, &mut extensions)?;
    }
    if let Some(found) = fields.optional(tag::constructed(0))? {
        extensions.read(found, issuer.full)?;
    }
    fields.done()?;
    entries.sort_unstable();
    entries.shrink_to_fit();
    let signature = signature.value_span()?.without_first().ok_or_else(|| signature.error("empty BIT STRING"))?;
    let (tbs, algorithm, issuer) = (tbs.full_span()?, algorithm.full_span()?, issuer.full_span()?);
    Ok(Crl {
        tbs,
        algorithm,
        signature,
        issuer,
        this_update,
        next_update,
        entries,
        extensions,
        verified: OnceLock::new(),
        der: der.clone(),
    })
}

fn read_entries(revoked: Tlv<'_>, entries: &mut Vec<Entry>, extensions: &mut CrlExtensions) -> Result<(), Asn1Error> {
    let mut list = revoked.reader();
    // RFC 5280 5.3.3: certificateIssuer holds for the entries after it too.
    let mut issuer_place = 0;
    while let Some(place) = list.place() {
        let fields = EntryFields::read(&mut list)?;
        if fields.issuer.is_some() {
            issuer_place = place.saturating_add(1);
        }
        if let (Some(oid), None) = (fields.unknown_critical, &extensions.unknown_critical) {
            extensions.unknown_critical = Some(oid_text(oid).into());
        }
        entries.push(Entry { serial_hash: hash(fields.serial), place, issuer_place });
    }
    Ok(())
}

/// One entry of revokedCertificates (RFC 5280 5.3).
struct EntryFields<'a> {
    serial: &'a [u8],
    at: Timestamp,
    reason: Reason,
    /// Content of certificateIssuer's GeneralNames.
    issuer: Option<&'a [u8]>,
    unknown_critical: Option<&'a [u8]>,
}

impl<'a> EntryFields<'a> {
    fn read(list: &mut Reader<'a>) -> Result<Self, Asn1Error> {
        let mut fields = list.sequence("an entry is a SEQUENCE")?;
        let serial = fields.expect(tag::INTEGER, "userCertificate is an INTEGER")?.value;
        let at = read_time(fields.any()?)?;
        let mut entry = Self { serial, at, reason: Reason::Unspecified, issuer: None, unknown_critical: None };
        if let Some(extensions) = fields.optional(tag::SEQUENCE)? {
            for_each_extension(extensions, |oid, critical, value| entry.take(oid, critical, value))?;
        }
        fields.done()?;
        Ok(entry)
    }

    fn take(&mut self, oid: &'a [u8], critical: bool, value: Tlv<'a>) -> Result<(), Asn1Error> {
        let mut reader = value.reader();
        match oid {
            [0x55, 0x1d, 21] => {
                self.reason = Reason::read(reader.expect(tag::ENUMERATED, "reasonCode is ENUMERATED")?)?;
                reader.done()
            }
            // invalidityDate tells nothing that revocationDate does not.
            [0x55, 0x1d, 24] => Ok(()),
            [0x55, 0x1d, 29] => {
                self.issuer = Some(reader.expect(tag::SEQUENCE, "certificateIssuer is a SEQUENCE")?.value);
                reader.done()
            }
            _ => {
                if critical {
                    self.unknown_critical = Some(oid);
                }
                Ok(())
            }
        }
    }
}

impl CrlExtensions {
    fn read(&mut self, explicit: Tlv<'_>, issuer: &[u8]) -> Result<(), Asn1Error> {
        let mut inner = explicit.reader();
        let list = inner.expect(tag::SEQUENCE, "crlExtensions is a SEQUENCE")?;
        inner.done()?;
        for_each_extension(list, |oid, critical, value| {
            let mut reader = value.reader();
            match oid {
                [0x55, 0x1d, 35] => {
                    let mut fields = reader.sequence("authorityKeyIdentifier is a SEQUENCE")?;
                    let key = fields.optional(tag::context(0))?;
                    self.authority_key = key.map(|key| key.value_span()).transpose()?;
                }
                [0x55, 0x1d, 20] => self.number = Some(natural(&mut reader)?),
                [0x55, 0x1d, 27] => self.base_number = Some(natural(&mut reader)?),
                [0x55, 0x1d, 28] => self.scope = Scope::read(&mut reader, issuer)?,
                [0x55, 0x1d, 46] | [0x2b, 6, 1, 5, 5, 7, 1, 1] => {}
                _ if critical && self.unknown_critical.is_none() => {
                    self.unknown_critical = Some(oid_text(oid).into());
                }
                _ => {}
            }
            Ok(())
        })
    }
}

fn natural(reader: &mut Reader<'_>) -> Result<Span, Asn1Error> {
    let number = reader.expect(tag::INTEGER, "a CRL number is an INTEGER")?;
    if number.value.first().is_none_or(|first| first & 0x80 != 0) {
        return Err(number.error("a CRL number is not negative"));
    }
    reader.done()?;
    number.value_span()
}

/// Calls `take` with OID, criticality and content of every Extension of a SEQUENCE; none may be there twice.
pub(super) fn for_each_extension<'a>(
    list: Tlv<'a>,
    mut take: impl FnMut(&'a [u8], bool, Tlv<'a>) -> Result<(), Asn1Error>,
) -> Result<(), Asn1Error> {
    let mut list = list.reader();
    let mut seen: Vec<&[u8]> = Vec::new();
    while !list.is_empty() {
        let mut fields = list.sequence("an Extension is a SEQUENCE")?;
        let oid = fields.expect(tag::OID, "an Extension has an OID")?;
        let critical = fields.optional(tag::BOOLEAN)?.map(|critical| critical.boolean()).transpose()?.unwrap_or(false);
        let value = fields.expect(tag::OCTET_STRING, "an Extension has an OCTET STRING")?;
        fields.done()?;
        if seen.contains(&oid.value) || seen.len() >= 64 {
            return Err(oid.error("an extension is there twice, or more than 64 are"));
        }
        seen.push(oid.value);
        take(oid.value, critical, value)?;
    }
    Ok(())
}

/// Fuzz body: what is read is read again alike, and every certificate listed is found.
#[doc(hidden)]
pub fn fuzz_crl(data: &[u8]) {
    let Ok(crl) = Crl::from_der(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(crl.der().as_ref(), data);
    for entry in crl.entries.iter().take(100) {
        let Ok(fields) = EntryFields::read(&mut crl.reader_at(entry.place as usize)) else {
            unreachable!("an entry was read before")
        };
        if entry.issuer_place == 0 {
            assert!(crl.find(fields.serial, crl.issuer()).is_some());
        }
    }
}

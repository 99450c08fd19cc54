//! PKCS#12 (RFC 7292) import and export with bounded KDF work.

use std::borrow::Cow;

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::asn1::{Asn1Error, Reader, Tlv, number, oid_text, sequence, tag, write};
use super::certificate::{Certificate, CertificateError};
use super::pem;
use crate::cms::ber::to_der;
use crate::keys::SoftwareKey;

mod kdf;
mod keyfile;
mod pbe;
#[cfg(test)]
mod tests;

use kdf::{Password, Use, Work, pkcs12};
use pbe::{Derived, Encryptor};

pub use keyfile::read_any;
pub(crate) use pbe::derive_by_pbkdf2;

/// The most iterations done for one file, in sum.
pub const MAX_ITERATIONS: u64 = 10_000_000;
/// The largest file read, in octets.
pub const MAX_FILE: usize = 64 * 1024 * 1024;
/// The most bags read from one file.
const MAX_BAGS: usize = 10_000;
/// Iterations written.
const ITERATIONS: u64 = 100_000;

/// Content of OBJECT IDENTIFIERs.
mod id {
    pub(super) const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
    pub(super) const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 6];
    /// 1.2.840.113549.1.12.10.1
    pub(super) const BAGS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1];
    pub(super) const SHROUDED_KEY_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 2];
    pub(super) const CERT_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 3];
    pub(super) const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
    pub(super) const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 20];
    pub(super) const LOCAL_KEY_ID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 21];
    pub(super) const PBMAC1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 14];
    pub(super) const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 26];
    /// 2.16.840.1.101.3.4.2
    pub(super) const SHA2: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];
    pub(super) const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
}

/// Why a PKCS#12 or key file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs12Error {
    #[error("not a PKCS#12 file: {0}")]
    Malformed(String),
    #[error("wrong password (the integrity check failed)")]
    Password,
    #[error("it is encrypted: a password is needed")]
    PasswordNeeded,
    #[error("{0} iterations asked for, at most {1} are done here")]
    Iterations(u64, u64),
    #[error("unsupported: {0}")]
    Unsupported(String),
}

fn malformed(error: Asn1Error) -> Pkcs12Error {
    Pkcs12Error::Malformed(error.to_string())
}

/// What was in it: keys as PKCS#8 DER, wiped when dropped.
#[derive(Default)]
pub struct Bundle {
    pub keys: Vec<Zeroizing<Vec<u8>>>,
    pub certificates: Vec<Certificate>,
    /// What was passed over, and why: certificates with keys of a kind not known here, bags of other kinds.
    pub skipped: Vec<String>,
}

impl Bundle {
    /// Indexes of `certificates` that hold the public key of the `keys` entry at `index`. None: a key without its certificate,
    /// or one of a kind not known here.
    pub fn certificates_of(&self, index: usize) -> Vec<usize> {
        let Some(key) = self.keys.get(index).and_then(|key| SoftwareKey::from_pkcs8(key).ok()) else {
            return Vec::new();
        };
        let fits = |certificate: &Certificate| certificate.public_key().spki().as_ref() == key.spki();
        self.certificates
            .iter()
            .enumerate()
            .filter(|(_, certificate)| fits(certificate))
            .map(|(index, _)| index)
            .collect()
    }

    fn add_certificate(&mut self, der: &[u8]) -> Result<(), Pkcs12Error> {
        match Certificate::from_der(Bytes::copy_from_slice(der)) {
            Ok(certificate) => {
                if !self.certificates.contains(&certificate) {
                    self.certificates.push(certificate);
                }
                Ok(())
            }
            // One certificate that cannot be used does not cost the others.
            Err(CertificateError::Refused(why) | CertificateError::Malformed(why)) => {
                self.skip(format!("a certificate: {why}"))
            }
        }
    }

    fn add_key(&mut self, pkcs8: Zeroizing<Vec<u8>>) {
        if !self.keys.contains(&pkcs8) {
            self.keys.push(pkcs8);
        }
    }

    fn skip(&mut self, what: String) -> Result<(), Pkcs12Error> {
        if self.skipped.len() < MAX_BAGS {
            self.skipped.push(what);
        }
        Ok(())
    }
}

/// Reads PKCS#12, BER or DER, PEM-armoured too, modern (PBES2) and legacy (3DES, RC2-40) alike; MAC checked first.
/// A file without a MAC is read too: its keys' encryption is all that tells a wrong password.
pub fn import(octets: &[u8], password: &str) -> Result<Bundle, Pkcs12Error> {
    if octets.len() > MAX_FILE {
        return Err(Pkcs12Error::Malformed(format!("{} octets, at most {MAX_FILE} are read", octets.len())));
    }
    if octets.first() == Some(&tag::SEQUENCE) {
        return Import::run(octets, password);
    }
    let blocks = pem::blocks(octets).map_err(Pkcs12Error::Malformed)?;
    match blocks.iter().find(|block| block.label == "PKCS12") {
        Some(block) => Import::run(&block.octets, password),
        None => {
            Err(Pkcs12Error::Malformed("neither BER nor PEM: no line \"-----BEGIN PKCS12-----\" was found".to_owned()))
        }
    }
}

fn der(octets: &[u8]) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    to_der(octets).map(Cow::into_owned).map(Zeroizing::new).map_err(|error| Pkcs12Error::Malformed(error.to_string()))
}

/// An import under way.
struct Import<'a> {
    password: Password<'a>,
    work: Work,
    derived: Derived,
    bags: usize,
    bundle: Bundle,
}

impl<'a> Import<'a> {
    fn run(octets: &[u8], password: &'a str) -> Result<Bundle, Pkcs12Error> {
        let file = der(octets)?;
        let mut outer = Reader::new(&file);
        let mut pfx = outer.sequence("a PFX is a SEQUENCE").map_err(malformed)?;
        outer.done().map_err(malformed)?;
        let version =
            pfx.expect(tag::INTEGER, "a PFX has a version").and_then(|tlv| tlv.unsigned()).map_err(malformed)?;
        if version != 3 {
            return Err(Pkcs12Error::Malformed(format!("version {version}, 3 is expected")));
        }
        let mut info = pfx.sequence("authSafe is a ContentInfo").map_err(malformed)?;
        let kind = info.expect(tag::OID, "a ContentInfo has a type").map_err(malformed)?;
        if kind.value != id::DATA {
            return Err(Pkcs12Error::Unsupported(format!(
                "integrity by public keys: authSafe of type {}",
                oid_text(kind.value)
            )));
        }
        let safes = explicit_octets(&mut info)?;
        let mut import = Self {
            password: Password::new(password),
            work: Work::new(),
            derived: Derived::default(),
            bags: 0,
            bundle: Bundle::default(),
        };
        if let Some(mac) = pfx.optional(tag::SEQUENCE).map_err(malformed)? {
            import.check_mac(mac, safes)?;
        }
        pfx.done().map_err(malformed)?;
        let safes = der(safes)?;
        let mut list = Reader::new(&safes).sequence("AuthenticatedSafe is a SEQUENCE").map_err(malformed)?;
        while !list.is_empty() {
            let info = list.sequence("a ContentInfo is a SEQUENCE").map_err(malformed)?;
            import.content(info)?;
        }
        Ok(import.bundle)
    }

    /// RFC 7292 section 5.1, RFC 9579. Finds out which form of an empty password is meant.
    fn check_mac(&mut self, mac: Tlv<'_>, content: &[u8]) -> Result<(), Pkcs12Error> {
        let mut fields = mac.reader();
        let mut info = fields.sequence("mac is a DigestInfo").map_err(malformed)?;
        let algorithm = info.expect(tag::SEQUENCE, "a DigestInfo has an algorithm").map_err(malformed)?;
        let expected = info.expect(tag::OCTET_STRING, "a DigestInfo has a digest").map_err(malformed)?.value;
        let salt = fields.expect(tag::OCTET_STRING, "a MAC has a salt").map_err(malformed)?.value;
        let iterations = match fields.optional(tag::INTEGER).map_err(malformed)? {
            Some(count) => count.unsigned().map_err(malformed)?,
            None => 1,
        };
        if salt.len() > 1024 {
            return Err(Pkcs12Error::Malformed("a salt of more than 1024 octets".to_owned()));
        }
        let mut parts = algorithm.reader();
        let oid = parts.expect(tag::OID, "an algorithm has an OID").map_err(malformed)?.value;
        if oid == id::PBMAC1 {
            let key = self.pbmac1(&mut parts)?;
            return verify(&key, content, expected);
        }
        let (digest, hmac) = mac_digest(oid)?;
        let length = digest.output_len();
        let key = pkcs12(digest, &self.password, salt, Use::Mac, iterations, length, &mut self.work)?;
        let checked = verify(&hmac::Key::new(hmac, &key), content, expected);
        if checked.is_ok() || !self.password.utf8.is_empty() {
            return checked;
        }
        let absent = Password::absent();
        let key = pkcs12(digest, &absent, salt, Use::Mac, iterations, length, &mut self.work)?;
        self.password = absent;
        verify(&hmac::Key::new(hmac, &key), content, expected)
    }

    fn pbmac1(&mut self, parts: &mut Reader<'_>) -> Result<hmac::Key, Pkcs12Error> {
        let mut parameters = parts.sequence("PBMAC1 has parameters").map_err(malformed)?;
        let function = parameters.expect(tag::SEQUENCE, "PBMAC1 has a key derivation function").map_err(malformed)?;
        let scheme =
            parameters.expect(tag::SEQUENCE, "PBMAC1 has a message authentication scheme").map_err(malformed)?;
        let prf = pbe::read_prf(scheme)?;
        let (_, key) = pbe::pbkdf2_by(function, None, &self.password, &mut self.work)?;
        Ok(hmac::Key::new(prf.hmac(), &key))
    }

    /// One ContentInfo of the AuthenticatedSafe.
    fn content(&mut self, mut info: Reader<'_>) -> Result<(), Pkcs12Error> {
        let kind = info.expect(tag::OID, "a ContentInfo has a type").map_err(malformed)?.value;
        match kind {
            id::DATA => {
                let safe = der(explicit_octets(&mut info)?)?;
                self.safe(&safe, 0)
            }
            id::ENCRYPTED_DATA => {
                let mut fields = explicit(&mut info)?.sequence("EncryptedData is a SEQUENCE").map_err(malformed)?;
                fields.expect(tag::INTEGER, "EncryptedData has a version").map_err(malformed)?;
                let mut content = fields.sequence("EncryptedContentInfo is a SEQUENCE").map_err(malformed)?;
                content.expect(tag::OID, "EncryptedContentInfo has a type").map_err(malformed)?;
                let algorithm =
                    content.expect(tag::SEQUENCE, "EncryptedContentInfo has an algorithm").map_err(malformed)?;
                let ciphertext = implicit_octets(content.any().map_err(malformed)?)?;
                let plain = self.decrypt(algorithm, &ciphertext)?;
                let safe = der(&plain)?;
                self.safe(&safe, 0)
            }
            other => self.bundle.skip(format!("content of type {}", oid_text(other))),
        }
    }

    fn decrypt(&mut self, algorithm: Tlv<'_>, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
        pbe::decrypt(algorithm, ciphertext, &self.password, &mut self.work, &mut self.derived)
    }

    /// SafeContents.
    fn safe(&mut self, safe: &[u8], depth: usize) -> Result<(), Pkcs12Error> {
        let mut list = Reader::new(safe).sequence("SafeContents is a SEQUENCE").map_err(malformed)?;
        while !list.is_empty() {
            self.bags += 1;
            if self.bags > MAX_BAGS {
                return Err(Pkcs12Error::Malformed(format!("more than {MAX_BAGS} bags")));
            }
            let mut bag = list.sequence("a SafeBag is a SEQUENCE").map_err(malformed)?;
            let kind = bag.expect(tag::OID, "a SafeBag has a type").map_err(malformed)?.value;
            let mut value = explicit(&mut bag)?;
            match kind.strip_prefix(id::BAGS) {
                Some([1]) => {
                    let key = value.expect(tag::SEQUENCE, "a KeyBag holds a PrivateKeyInfo").map_err(malformed)?;
                    self.bundle.add_key(Zeroizing::new(key.full.to_vec()));
                }
                Some([2]) => {
                    let key = self.shrouded(
                        value.expect(tag::SEQUENCE, "a bag holds an EncryptedPrivateKeyInfo").map_err(malformed)?,
                    )?;
                    self.bundle.add_key(key);
                }
                Some([3]) => self.certificate(value)?,
                Some([6]) if depth < 8 => self.safe(value.any().map_err(malformed)?.full, depth + 1)?,
                _ => self.bundle.skip(format!("a bag of type {}", oid_text(kind)))?,
            }
        }
        Ok(())
    }

    /// EncryptedPrivateKeyInfo (RFC 5958 section 3).
    fn shrouded(&mut self, info: Tlv<'_>) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
        let mut fields = info.reader();
        let algorithm = fields.expect(tag::SEQUENCE, "EncryptedPrivateKeyInfo has an algorithm").map_err(malformed)?;
        let ciphertext =
            fields.expect(tag::OCTET_STRING, "EncryptedPrivateKeyInfo has encrypted octets").map_err(malformed)?.value;
        let plain = self.decrypt(algorithm, ciphertext)?;
        // A wrong password gives sound padding once in 256 times.
        let key = Reader::new(&plain).expect(tag::SEQUENCE, "").map_err(|_| Pkcs12Error::Password)?;
        Ok(Zeroizing::new(key.full.to_vec()))
    }

    fn certificate(&mut self, mut value: Reader<'_>) -> Result<(), Pkcs12Error> {
        let mut fields = value.sequence("a CertBag is a SEQUENCE").map_err(malformed)?;
        let kind = fields.expect(tag::OID, "a CertBag has a type").map_err(malformed)?.value;
        if kind != id::X509_CERTIFICATE {
            return self.bundle.skip(format!("a certificate of type {}", oid_text(kind)));
        }
        self.bundle.add_certificate(explicit_octets(&mut fields)?)
    }
}

fn mac_digest(oid: &[u8]) -> Result<(&'static digest::Algorithm, hmac::Algorithm), Pkcs12Error> {
    match (oid, oid.strip_prefix(id::SHA2)) {
        (id::SHA1, _) => Ok((&digest::SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY)),
        (_, Some([4])) => Ok((&digest::SHA224, hmac::HMAC_SHA224)),
        (_, Some([1])) => Ok((&digest::SHA256, hmac::HMAC_SHA256)),
        (_, Some([2])) => Ok((&digest::SHA384, hmac::HMAC_SHA384)),
        (_, Some([3])) => Ok((&digest::SHA512, hmac::HMAC_SHA512)),
        _ => Err(Pkcs12Error::Unsupported(format!("MAC with digest {}", oid_text(oid)))),
    }
}

fn verify(key: &hmac::Key, content: &[u8], expected: &[u8]) -> Result<(), Pkcs12Error> {
    hmac::verify(key, content, expected).map_err(|_| Pkcs12Error::Password)
}

/// `[0] EXPLICIT`.
fn explicit<'a>(fields: &mut Reader<'a>) -> Result<Reader<'a>, Pkcs12Error> {
    Ok(fields.expect(tag::constructed(0), "a value tagged [0]").map_err(malformed)?.reader())
}

/// `[0] EXPLICIT OCTET STRING`.
fn explicit_octets<'a>(fields: &mut Reader<'a>) -> Result<&'a [u8], Pkcs12Error> {
    Ok(explicit(fields)?.expect(tag::OCTET_STRING, "an OCTET STRING").map_err(malformed)?.value)
}

/// `[0] IMPLICIT OCTET STRING`, joined where it is constructed (the conversion to DER cannot know that it is a string).
fn implicit_octets(value: Tlv<'_>) -> Result<Cow<'_, [u8]>, Pkcs12Error> {
    match value.tag {
        0x80 => Ok(Cow::Borrowed(value.value)),
        0xa0 => {
            let mut joined = Vec::with_capacity(value.value.len());
            let mut pieces = value.reader();
            while !pieces.is_empty() {
                joined.extend_from_slice(
                    pieces.expect(tag::OCTET_STRING, "a piece of an OCTET STRING").map_err(malformed)?.value,
                );
            }
            Ok(Cow::Owned(joined))
        }
        _ => Err(malformed(value.error("encryptedContent is missing"))),
    }
}

/// Writes PKCS#12 with PBES2 (AES-256-CBC, PBKDF2-HMAC-SHA-256) and a SHA-256 MAC: every key, every certificate, tied by
/// localKeyId where they belong together.
pub fn export(bundle: &Bundle, password: &str, friendly_name: &str) -> Result<Vec<u8>, Pkcs12Error> {
    let failed = |_| Pkcs12Error::Unsupported("no randomness".to_owned());
    let (mut salt, mut mac_salt) = ([0u8; 16], [0u8; 16]);
    aws_lc_rs::rand::fill(&mut salt).map_err(failed)?;
    aws_lc_rs::rand::fill(&mut mac_salt).map_err(failed)?;
    let encryptor = Encryptor::new(password, &salt, ITERATIONS)?;
    let mut identifiers: Vec<Option<Vec<u8>>> = vec![None; bundle.certificates.len()];
    let mut key_bags = Vec::new();
    for (index, key) in bundle.keys.iter().enumerate() {
        let own = bundle.certificates_of(index);
        let identifier = digest_of(
            &own.first().and_then(|first| bundle.certificates.get(*first)).map_or(key.to_vec(), |c| c.der().to_vec()),
        );
        for place in own {
            if let Some(slot) = identifiers.get_mut(place) {
                *slot = Some(identifier.clone());
            }
        }
        let (algorithm, ciphertext) = encryptor.encrypt(key)?;
        let info = sequence(&[&algorithm, &write(tag::OCTET_STRING, &[&ciphertext])]);
        key_bags.extend(bag(id::SHROUDED_KEY_BAG, &info, Some(&identifier), friendly_name));
    }
    let mut certificate_bags = Vec::new();
    for (certificate, identifier) in bundle.certificates.iter().zip(&identifiers) {
        let value = write(tag::constructed(0), &[&write(tag::OCTET_STRING, &[certificate.der()])]);
        let cert = sequence(&[&write(tag::OID, &[id::X509_CERTIFICATE]), &value]);
        certificate_bags.extend(bag(id::CERT_BAG, &cert, identifier.as_deref(), friendly_name));
    }
    let (algorithm, ciphertext) = encryptor.encrypt(&sequence(&[&certificate_bags]))?;
    let content = sequence(&[&write(tag::OID, &[id::DATA]), &algorithm, &write(tag::context(0), &[&ciphertext])]);
    let encrypted = content_info(id::ENCRYPTED_DATA, &sequence(&[&number(0), &content]));
    let plain = content_info(id::DATA, &write(tag::OCTET_STRING, &[&sequence(&[&key_bags])]));
    let safes = sequence(&[&encrypted, &plain]);
    let key = pkcs12(&digest::SHA256, &Password::new(password), &mac_salt, Use::Mac, ITERATIONS, 32, &mut Work::new())?;
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &safes);
    let algorithm = sequence(&[&write(tag::OID, &[id::SHA256]), &write(tag::NULL, &[])]);
    let info = sequence(&[&algorithm, &write(tag::OCTET_STRING, &[mac.as_ref()])]);
    let mac = sequence(&[&info, &write(tag::OCTET_STRING, &[&mac_salt]), &number(ITERATIONS)]);
    Ok(sequence(&[&number(3), &content_info(id::DATA, &write(tag::OCTET_STRING, &[&safes])), &mac]))
}

fn digest_of(octets: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, octets).as_ref().iter().take(20).copied().collect()
}

fn content_info(kind: &[u8], content: &[u8]) -> Vec<u8> {
    sequence(&[&write(tag::OID, &[kind]), &write(tag::constructed(0), &[content])])
}

/// A SafeBag; the friendly name only where a key belongs to it.
fn bag(kind: &[u8], value: &[u8], identifier: Option<&[u8]>, friendly_name: &str) -> Vec<u8> {
    let mut attributes = Vec::new();
    if let Some(identifier) = identifier {
        let attribute = |oid: &[u8], value: &[u8]| sequence(&[&write(tag::OID, &[oid]), &write(tag::SET, &[value])]);
        let mut list = vec![attribute(id::LOCAL_KEY_ID, &write(tag::OCTET_STRING, &[identifier]))];
        let name: Vec<u8> = friendly_name.encode_utf16().flat_map(u16::to_be_bytes).collect();
        if !name.is_empty() {
            list.push(attribute(id::FRIENDLY_NAME, &write(tag::BMP_STRING, &[&name])));
        }
        list.sort_unstable();
        attributes = write(tag::SET, &[&list.concat()]);
    }
    sequence(&[&write(tag::OID, &[kind]), &write(tag::constructed(0), &[value]), &attributes])
}

/// Fuzz body: whatever is read under an empty password has DER in it.
#[doc(hidden)]
pub fn fuzz_pkcs12(data: &[u8]) {
    for read in [import(data, ""), read_any(data, Some("password")), read_any(data, None)] {
        let Ok(bundle) = read else { continue };
        for key in &bundle.keys {
            assert_eq!(key.first(), Some(&tag::SEQUENCE));
        }
        for certificate in &bundle.certificates {
            assert!(Certificate::from_der(certificate.der().clone()).is_ok());
        }
    }
}

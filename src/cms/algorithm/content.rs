//! Content encryption: AES-CBC (RFC 3565), AES-GCM (RFC 5084), derived keys (RFC 9709), and what is read by the legacy switch.

use const_oid::ObjectIdentifier;

use super::agreement::KeyWrap;
use super::{AlgorithmIdentifier, Legacy, id};
use crate::cms::ber::{Reader, tag, write};
use crate::cms::error::CmsError;

/// Content encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentEncryption {
    Aes128Cbc,
    Aes192Cbc,
    Aes256Cbc,
    /// In AuthEnvelopedData only; tag 16.
    Aes128Gcm,
    Aes192Gcm,
    Aes256Gcm,
    /// Reading only, legacy switch.
    TripleDesCbc,
    /// RC2 with 128 effective bits; reading only, legacy switch.
    Rc2Cbc128,
    /// RC2 with 64 effective bits; reading only, legacy switch.
    Rc2Cbc64,
    /// RC2 with 40 effective bits; reading only, legacy switch.
    Rc2Cbc40,
}

impl ContentEncryption {
    /// AEAD, hence AuthEnvelopedData.
    pub fn is_authenticated(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes192Gcm | Self::Aes256Gcm)
    }
    /// May be read with the legacy switch only, and is never written.
    pub fn is_legacy(self) -> bool {
        matches!(self, Self::TripleDesCbc | Self::Rc2Cbc128 | Self::Rc2Cbc64 | Self::Rc2Cbc40)
    }
    /// Length of its key in octets.
    pub fn key_len(self) -> usize {
        match self {
            Self::Rc2Cbc40 => 5,
            Self::Rc2Cbc64 => 8,
            Self::Aes128Cbc | Self::Aes128Gcm | Self::Rc2Cbc128 => 16,
            Self::Aes192Cbc | Self::Aes192Gcm | Self::TripleDesCbc => 24,
            Self::Aes256Cbc | Self::Aes256Gcm => 32,
        }
    }
    /// The name people know: "AES-256-GCM".
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Cbc => "AES-128-CBC",
            Self::Aes192Cbc => "AES-192-CBC",
            Self::Aes256Cbc => "AES-256-CBC",
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes192Gcm => "AES-192-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::TripleDesCbc => "3DES-CBC",
            Self::Rc2Cbc128 => "RC2-CBC-128",
            Self::Rc2Cbc64 => "RC2-CBC-64",
            Self::Rc2Cbc40 => "RC2-CBC-40",
        }
    }
    /// The key wrap that fits its strength (RFC 5753 section 7.2).
    pub fn wrap(self) -> KeyWrap {
        match self.key_len() {
            32 => KeyWrap::Aes256,
            24 => KeyWrap::Aes192,
            _ => KeyWrap::Aes128,
        }
    }
}

pub(super) const AES128_CBC: ObjectIdentifier = id("2.16.840.1.101.3.4.1.2");
const AES192_CBC: ObjectIdentifier = id("2.16.840.1.101.3.4.1.22");
const AES256_CBC: ObjectIdentifier = id("2.16.840.1.101.3.4.1.42");
const AES128_GCM: ObjectIdentifier = id("2.16.840.1.101.3.4.1.6");
const AES192_GCM: ObjectIdentifier = id("2.16.840.1.101.3.4.1.26");
const AES256_GCM: ObjectIdentifier = id("2.16.840.1.101.3.4.1.46");
const DES_EDE3_CBC: ObjectIdentifier = id("1.2.840.113549.3.7");
pub(super) const RC2_CBC: ObjectIdentifier = id("1.2.840.113549.3.2");
/// id-alg-cek-hkdf-sha256 (RFC 9709).
const CEK_HKDF_SHA256: ObjectIdentifier = id("1.2.840.113549.1.9.16.3.31");

/// A content-encryption algorithm with what its parameters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentAlgorithm {
    pub cipher: ContentEncryption,
    iv: [u8; 16],
    iv_len: usize,
    /// Octets of the tag (AEAD), else 0.
    pub tag_len: usize,
    /// RFC 9709: the DER of the content encryption, from which and the CEK the key in use is derived.
    info: [u8; MAX_INFO],
    info_len: usize,
}

const MAX_INFO: usize = 48;

impl ContentAlgorithm {
    /// The same from parts: `iv` of 16 octets (AES-CBC), 12 (GCM), 8 (3DES, RC2).
    pub fn new(cipher: ContentEncryption, iv: &[u8], tag_len: usize) -> Result<Self, CmsError> {
        let mut whole = [0u8; 16];
        let place = whole.get_mut(..iv.len()).ok_or(CmsError::Crypto)?;
        place.copy_from_slice(iv);
        Ok(Self { cipher, iv: whole, iv_len: iv.len(), tag_len, info: [0; MAX_INFO], info_len: 0 })
    }
    /// IV or nonce.
    pub fn iv(&self) -> &[u8] {
        self.iv.get(..self.iv_len).unwrap_or_default()
    }
    /// The info of the CEK's derivation (RFC 9709); `None`: the CEK is the key.
    pub fn derivation(&self) -> Option<&[u8]> {
        self.info.get(..self.info_len).filter(|info| !info.is_empty())
    }
    /// The same with a key that is derived from the CEK and the octets of its own AlgorithmIdentifier (RFC 9709 section 4), so that it
    /// opens under no other algorithm. Errors for ciphers that are read only.
    pub fn with_derivation(self) -> Result<Self, CmsError> {
        let info = content_encryption_der(&self)?;
        self.derived(&info)
    }
    fn derived(mut self, info: &[u8]) -> Result<Self, CmsError> {
        let place = self.info.get_mut(..info.len()).ok_or(CmsError::Limit("content-encryption parameters too long"))?;
        place.copy_from_slice(info);
        self.info_len = info.len();
        Ok(self)
    }
}

pub(super) const CIPHERS: [(ObjectIdentifier, ContentEncryption); 7] = [
    (AES128_CBC, ContentEncryption::Aes128Cbc),
    (AES192_CBC, ContentEncryption::Aes192Cbc),
    (AES256_CBC, ContentEncryption::Aes256Cbc),
    (AES128_GCM, ContentEncryption::Aes128Gcm),
    (AES192_GCM, ContentEncryption::Aes192Gcm),
    (AES256_GCM, ContentEncryption::Aes256Gcm),
    (DES_EDE3_CBC, ContentEncryption::TripleDesCbc),
];

/// Reads a content-encryption algorithm. `authenticated`: it stands in an AuthEnvelopedData, where only AEAD may stand (RFC 5083
/// section 2.1), else in an EnvelopedData, where only CBC may (A5).
pub fn content_encryption(der: &[u8], authenticated: bool, legacy: Legacy) -> Result<ContentAlgorithm, CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    if found.oid == CEK_HKDF_SHA256 {
        let inner = found.parameters.ok_or_else(|| found.refused("names no content encryption"))?;
        if AlgorithmIdentifier::from_der(inner)?.oid == CEK_HKDF_SHA256 {
            return Err(found.refused("stands in itself"));
        }
        return content_encryption(inner, authenticated, legacy)?.derived(inner);
    }
    let cipher = CIPHERS.into_iter().find_map(|(oid, cipher)| (oid == found.oid).then_some(cipher));
    let algorithm = match cipher {
        Some(cipher) if cipher.is_authenticated() => gcm_parameters(&found, cipher, legacy)?,
        Some(cipher) => {
            let length = if cipher == ContentEncryption::TripleDesCbc { 8 } else { 16 };
            match found.parameters {
                Some([tag::OCTET_STRING, size, iv @ ..]) if usize::from(*size) == length && iv.len() == length => {
                    ContentAlgorithm::new(cipher, iv, 0)?
                }
                _ => return Err(found.refused("parameters must be an IV of one block")),
            }
        }
        None if found.oid == RC2_CBC => rc2_parameters(&found)?,
        None => return Err(found.refused("not a content encryption known here")),
    };
    if authenticated != algorithm.cipher.is_authenticated() {
        return Err(found.refused(if authenticated {
            "AuthEnvelopedData takes authenticated encryption only"
        } else {
            "EnvelopedData takes CBC only"
        }));
    }
    if algorithm.cipher.is_legacy() && !legacy.weak_ciphers {
        return Err(found.refused("a weak cipher, which the legacy switch `weak_ciphers` would allow to be read"));
    }
    Ok(algorithm)
}

/// GCMParameters (RFC 5084 section 3.2): nonce of 12, tag of 16 octets; 12 (also by default) to 15 with the switch.
fn gcm_parameters(
    found: &AlgorithmIdentifier<'_>,
    cipher: ContentEncryption,
    legacy: Legacy,
) -> Result<ContentAlgorithm, CmsError> {
    let mut outer = Reader::der(found.parameters.ok_or_else(|| found.refused("parameters must be present"))?);
    let mut fields = outer.expect(tag::SEQUENCE, "GCMParameters")?.reader();
    let nonce = fields.expect(tag::OCTET_STRING, "aes-nonce")?.content;
    let tag_len = if fields.is_empty() { 12 } else { fields.small_integer("aes-ICVlen")? };
    fields.end("GCMParameters")?;
    if nonce.len() != 12 {
        return Err(found.refused("a nonce of 12 octets is expected"));
    }
    match tag_len {
        16 => ContentAlgorithm::new(cipher, nonce, 16),
        short @ 12..=15 if legacy.short_tags => {
            ContentAlgorithm::new(cipher, nonce, usize::try_from(short).map_err(|_| CmsError::Crypto)?)
        }
        short @ 12..=15 => {
            Err(found.refused(&format!("a tag of {short} octets, which the legacy switch `short_tags` would allow")))
        }
        _ => Err(found.refused("a tag of 16 octets is expected")),
    }
}

/// RC2-CBC parameters (RFC 3370 section 5.2).
fn rc2_parameters(found: &AlgorithmIdentifier<'_>) -> Result<ContentAlgorithm, CmsError> {
    let mut outer = Reader::der(found.parameters.ok_or_else(|| found.refused("parameters must be present"))?);
    let mut fields = outer.expect(tag::SEQUENCE, "RC2-CBC parameters")?.reader();
    let cipher = match fields.small_integer("rc2ParameterVersion")? {
        58 => ContentEncryption::Rc2Cbc128,
        120 => ContentEncryption::Rc2Cbc64,
        160 => ContentEncryption::Rc2Cbc40,
        _ => return Err(found.refused("an unusual key size")),
    };
    let iv = fields.expect(tag::OCTET_STRING, "RC2-CBC IV")?.content;
    fields.end("RC2-CBC parameters")?;
    if iv.len() != 8 {
        return Err(found.refused("an IV of 8 octets is expected"));
    }
    ContentAlgorithm::new(cipher, iv, 0)
}

/// Writes a content-encryption algorithm. Errors for those that are read only.
pub fn content_encryption_der(algorithm: &ContentAlgorithm) -> Result<Vec<u8>, CmsError> {
    let oid = cipher_oid(algorithm.cipher).filter(|_| !algorithm.cipher.is_legacy());
    let oid = oid.ok_or_else(|| CmsError::Algorithm(format!("{} is read, never written", algorithm.cipher.name())))?;
    let iv = write::octet_string(algorithm.iv());
    if let Some(info) = algorithm.derivation() {
        return Ok(write::sequence(&[&write::oid(&CEK_HKDF_SHA256), info]));
    }
    Ok(if algorithm.cipher.is_authenticated() {
        let tag_len = write::integer(u32::try_from(algorithm.tag_len).unwrap_or(16));
        write::sequence(&[&write::oid(&oid), &write::sequence(&[&iv, &tag_len])])
    } else {
        write::sequence(&[&write::oid(&oid), &iv])
    })
}

pub(super) fn cipher_oid(cipher: ContentEncryption) -> Option<ObjectIdentifier> {
    CIPHERS.into_iter().find_map(|(oid, known)| (known == cipher).then_some(oid))
}

//! Key agreement (RFC 5753 section 7.1.4) and key wrap (RFC 3394).

use const_oid::ObjectIdentifier;

use super::digest::Digest;
use super::{AlgorithmIdentifier, id};
use crate::cms::ber::write;
use crate::cms::error::CmsError;

/// Key wrap (RFC 3394).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyWrap {
    Aes128,
    Aes192,
    Aes256,
}

impl KeyWrap {
    /// Length of the KEK in octets.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
    pub(super) fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Aes128 => AES128_WRAP,
            Self::Aes192 => AES192_WRAP,
            Self::Aes256 => AES256_WRAP,
        }
    }
}

/// Key agreement (RFC 5753): ECDH with the X9.63 KDF over this digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyAgreement {
    pub kdf: Digest,
    pub cofactor: bool,
    pub wrap: KeyWrap,
}

const AES128_WRAP: ObjectIdentifier = id("2.16.840.1.101.3.4.1.5");
const AES192_WRAP: ObjectIdentifier = id("2.16.840.1.101.3.4.1.25");
const AES256_WRAP: ObjectIdentifier = id("2.16.840.1.101.3.4.1.45");

const AGREEMENTS: [(ObjectIdentifier, Digest, bool); 8] = [
    (id("1.3.133.16.840.63.0.2"), Digest::Sha1, false),
    (id("1.3.132.1.11.1"), Digest::Sha256, false),
    (id("1.3.132.1.11.2"), Digest::Sha384, false),
    (id("1.3.132.1.11.3"), Digest::Sha512, false),
    (id("1.3.133.16.840.63.0.3"), Digest::Sha1, true),
    (id("1.3.132.1.14.1"), Digest::Sha256, true),
    (id("1.3.132.1.14.2"), Digest::Sha384, true),
    (id("1.3.132.1.14.3"), Digest::Sha512, true),
];

/// Reads a key wrap algorithm (RFC 3565 section 2.3.2). RFC 5753 too wants parameters absent; implementations in use send NULL.
pub fn key_wrap(der: &[u8]) -> Result<KeyWrap, CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    found.null_or_absent()?;
    [KeyWrap::Aes128, KeyWrap::Aes192, KeyWrap::Aes256]
        .into_iter()
        .find(|known| known.oid() == found.oid)
        .ok_or_else(|| found.refused("not a key wrap known here"))
}

/// Reads a key agreement algorithm (RFC 5753 section 7.1.4). Also gives the KeyWrapAlgorithm's DER as sent, which goes into
/// ECC-CMS-SharedInfo.
pub fn key_agreement(der: &[u8]) -> Result<(KeyAgreement, &[u8]), CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    let (_, kdf, cofactor) = AGREEMENTS
        .into_iter()
        .find(|(oid, ..)| *oid == found.oid)
        .ok_or_else(|| found.refused("not a key agreement algorithm known here"))?;
    let wrap_der = found.parameters.ok_or_else(|| found.refused("names no key wrap"))?;
    Ok((KeyAgreement { kdf, cofactor, wrap: key_wrap(wrap_der)? }, wrap_der))
}

/// Writes a key agreement algorithm, and the KeyWrapAlgorithm inside it.
pub fn key_agreement_der(how: KeyAgreement) -> (Vec<u8>, Vec<u8>) {
    let wrap = write::sequence(&[&write::oid(&how.wrap.oid())]);
    let oid = AGREEMENTS
        .into_iter()
        .find_map(|(oid, kdf, cofactor)| (kdf == how.kdf && cofactor == how.cofactor).then_some(oid))
        .unwrap_or(id("1.3.132.1.11.1"));
    (write::sequence(&[&write::oid(&oid), &wrap]), wrap)
}

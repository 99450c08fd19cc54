//! Key agreement (RFC 5753 section 7.1.4, RFC 8418) and key wrap (RFC 3394, RFC 3565).

use const_oid::ObjectIdentifier;

use KeyDerivation::{Hkdf, X963};

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
    /// The name people know: "AES-256 wrap".
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128 => "AES-128 wrap",
            Self::Aes192 => "AES-192 wrap",
            Self::Aes256 => "AES-256 wrap",
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

/// How the key-encryption key is derived from the shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyDerivation {
    /// ANSI X9.63 over this digest (RFC 5753 section 7.2, RFC 8418 section 2.1).
    X963(Digest),
    /// HKDF over this digest (RFC 8418 section 2.2).
    Hkdf(Digest),
}

impl KeyDerivation {
    /// The name people know: "X9.63 KDF with SHA-256".
    pub fn name(self) -> String {
        match self {
            Self::X963(digest) => format!("X9.63 KDF with {}", digest.name()),
            Self::Hkdf(digest) => format!("HKDF with {}", digest.name()),
        }
    }
}

/// Key agreement: ECDH over NIST's curves or X25519, a key derivation, a key wrap. All curves have the cofactor 1 or clear it
/// themselves (RFC 7748), so that cofactor ECDH gives the same secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyAgreement {
    pub kdf: KeyDerivation,
    pub cofactor: bool,
    pub wrap: KeyWrap,
}

const AES128_WRAP: ObjectIdentifier = id("2.16.840.1.101.3.4.1.5");
const AES192_WRAP: ObjectIdentifier = id("2.16.840.1.101.3.4.1.25");
const AES256_WRAP: ObjectIdentifier = id("2.16.840.1.101.3.4.1.45");

const AGREEMENTS: [(ObjectIdentifier, KeyDerivation, bool); 13] = [
    (id("1.3.133.16.840.63.0.2"), X963(Digest::Sha1), false),
    (id("1.3.132.1.11.0"), X963(Digest::Sha224), false),
    (id("1.3.132.1.11.1"), X963(Digest::Sha256), false),
    (id("1.3.132.1.11.2"), X963(Digest::Sha384), false),
    (id("1.3.132.1.11.3"), X963(Digest::Sha512), false),
    (id("1.3.133.16.840.63.0.3"), X963(Digest::Sha1), true),
    (id("1.3.132.1.14.0"), X963(Digest::Sha224), true),
    (id("1.3.132.1.14.1"), X963(Digest::Sha256), true),
    (id("1.3.132.1.14.2"), X963(Digest::Sha384), true),
    (id("1.3.132.1.14.3"), X963(Digest::Sha512), true),
    (id("1.2.840.113549.1.9.16.3.19"), Hkdf(Digest::Sha256), false),
    (id("1.2.840.113549.1.9.16.3.20"), Hkdf(Digest::Sha384), false),
    (id("1.2.840.113549.1.9.16.3.21"), Hkdf(Digest::Sha512), false),
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

/// Reads a key agreement algorithm (RFC 5753 section 7.1.4, RFC 8418 section 3). Also gives the KeyWrapAlgorithm's DER as sent, which
/// goes into ECC-CMS-SharedInfo.
pub fn key_agreement(der: &[u8]) -> Result<(KeyAgreement, &[u8]), CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    let (_, kdf, cofactor) = AGREEMENTS
        .into_iter()
        .find(|(oid, ..)| *oid == found.oid)
        .ok_or_else(|| found.refused("not a key agreement algorithm known here"))?;
    let wrap_der = found.parameters.ok_or_else(|| found.refused("names no key wrap"))?;
    Ok((KeyAgreement { kdf, cofactor, wrap: key_wrap(wrap_der)? }, wrap_der))
}

/// Writes a key agreement algorithm, and the KeyWrapAlgorithm inside it. Errors for SHA-1 and SHA-224, which are read only, and for
/// combinations that have no name (cofactor ECDH with HKDF).
pub fn key_agreement_der(how: KeyAgreement) -> Result<(Vec<u8>, Vec<u8>), CmsError> {
    let written = !matches!(how.kdf, X963(Digest::Sha1 | Digest::Sha224));
    let oid = AGREEMENTS
        .into_iter()
        .find_map(|(oid, kdf, cofactor)| (kdf == how.kdf && cofactor == how.cofactor).then_some(oid))
        .filter(|_| written)
        .ok_or_else(|| CmsError::Algorithm(format!("ECDH with {} is not written", how.kdf.name())))?;
    let wrap = write::sequence(&[&write::oid(&how.wrap.oid())]);
    Ok((write::sequence(&[&write::oid(&oid), &wrap]), wrap))
}

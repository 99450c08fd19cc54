//! Message digests (RFC 5754 section 2).

use const_oid::ObjectIdentifier;

use super::{AlgorithmIdentifier, id};
use crate::cms::ber::write;
use crate::cms::error::CmsError;

/// Message digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// Reading only: in signatures by the legacy switch; in OAEP and the X9.63 KDF, where collisions do not matter, always.
    Sha1,
    /// Reading only, in the X9.63 KDF (RFC 5753); no signature and no OAEP is known with it.
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    /// The same for aws-lc-rs.
    pub fn algorithm(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::Sha1 => &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => &aws_lc_rs::digest::SHA224,
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        }
    }
    /// Length of its value in octets.
    pub fn output_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
    /// The digest of `octets`.
    pub fn of(self, octets: &[u8]) -> aws_lc_rs::digest::Digest {
        aws_lc_rs::digest::digest(self.algorithm(), octets)
    }
    /// The micalg parameter's word (RFC 8551 section 3.5.3.2): "sha-256".
    pub fn micalg(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha224 => "sha-224",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }
    /// The name people know: "SHA-256".
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Sha224 => "SHA-224",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }
    pub(super) fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => SHA1,
            Self::Sha224 => SHA224,
            Self::Sha256 => SHA256,
            Self::Sha384 => SHA384,
            Self::Sha512 => SHA512,
        }
    }
}

const SHA1: ObjectIdentifier = id("1.3.14.3.2.26");
const SHA224: ObjectIdentifier = id("2.16.840.1.101.3.4.2.4");
pub(super) const SHA256: ObjectIdentifier = id("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = id("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = id("2.16.840.1.101.3.4.2.3");
pub(super) const DIGESTS: [Digest; 5] = [Digest::Sha1, Digest::Sha224, Digest::Sha256, Digest::Sha384, Digest::Sha512];

/// Reads a digest algorithm (RFC 5754 section 2: parameters absent, or NULL).
pub fn digest_algorithm(der: &[u8]) -> Result<Digest, CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    let digest = DIGESTS
        .into_iter()
        .find(|digest| digest.oid() == found.oid)
        .ok_or_else(|| found.refused("not a digest known here"))?;
    found.null_or_absent()?;
    Ok(digest)
}

/// Writes a digest algorithm; parameters absent (RFC 5754 section 2).
pub fn digest_algorithm_der(digest: Digest) -> Vec<u8> {
    write::sequence(&[&write::oid(&digest.oid())])
}

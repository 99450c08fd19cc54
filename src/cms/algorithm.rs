//! The strict table of AlgorithmIdentifiers, both ways (A5): anything else, or other parameters, is refused.

use super::error::CmsError;

/// Message digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// Reading only, legacy switch.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// How a signature is made and verified. RFC 8017, RFC 5754, RFC 5758, RFC 4056, RFC 8419.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    RsaPkcs1(Digest),
    /// Digest, MGF1 with the same digest, salt length in octets.
    RsaPss(Digest, usize),
    /// ECDSA over the signer's curve.
    Ecdsa(Digest),
    Ed25519,
}

/// How a CEK is transported under RSA (RFC 3370, RFC 3560).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyTransport {
    RsaPkcs1,
    /// OAEP with this digest, MGF1 of the second, empty label.
    RsaOaep(Digest, Digest),
}

/// Key wrap (RFC 3394) and 3DES wrap for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyWrap {
    Aes128,
    Aes192,
    Aes256,
}

/// Key agreement (RFC 5753): ECDH with the X9.63 KDF over this digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyAgreement {
    pub kdf: Digest,
    pub cofactor: bool,
    pub wrap: KeyWrap,
}

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
}

impl ContentEncryption {
    /// AEAD, hence AuthEnvelopedData.
    pub fn is_authenticated(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes192Gcm | Self::Aes256Gcm)
    }
    /// Length of its key in octets.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Cbc | Self::Aes128Gcm => 16,
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
        }
    }
}

/// Which weak algorithms may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Legacy {
    /// 3DES and RC2 content encryption.
    pub weak_ciphers: bool,
    /// SHA-1 in signatures.
    pub sha1_signatures: bool,
}

/// Reads a signature scheme from an AlgorithmIdentifier's DER, with the digestAlgorithm beside it (CMS) or none (X.509).
pub fn signature_scheme(_algorithm_der: &[u8], _digest: Option<Digest>) -> Result<SignatureScheme, CmsError> {
    todo!()
}

//! A public key and what may be done with it.

use bytes::Bytes;

use crate::cms::algorithm::{KeyTransport, SignatureScheme};
use crate::cms::error::CmsError;

/// Kinds of keys known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Modulus size in bits.
    Rsa { bits: usize },
    P256,
    P384,
    P521,
    Ed25519,
    X25519,
}

/// A SubjectPublicKeyInfo, checked (A11: RSA 2048-8192 bits, e odd and <= 2^32; RSA under 2048 may be read for verifying only with the legacy switch).
#[derive(Debug, Clone)]
pub struct PublicKey {
    spki: Bytes,
    kind: KeyKind,
}

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo.
    pub fn from_spki(_der: Bytes) -> Result<Self, CmsError> {
        todo!()
    }
    /// What kind it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }
    /// The SubjectPublicKeyInfo as given.
    pub fn spki(&self) -> &Bytes {
        &self.spki
    }
    /// The subjectPublicKey bits (RSAPublicKey DER, EC point).
    pub fn key_bits(&self) -> &[u8] {
        todo!()
    }
    /// Verifies a signature over `message` (hashed here).
    pub fn verify(&self, _scheme: SignatureScheme, _message: &[u8], _signature: &[u8]) -> Result<(), CmsError> {
        todo!()
    }
    /// Encrypts a CEK to an RSA key.
    pub fn transport(&self, _how: KeyTransport, _cek: &[u8]) -> Result<Vec<u8>, CmsError> {
        todo!()
    }
}

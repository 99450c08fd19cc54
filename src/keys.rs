//! Operations with private keys, never their octets. A `KeyHolder` answers now or later, so that a separate process or an HSM fits.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::cms::algorithm::{ContentEncryption, Digest, KeyAgreement, KeyEncapsulation, KeyTransport, SignatureScheme};

/// AES key wrap (RFC 3394), the X9.63 KDF and HKDF.
pub mod wrap;

mod post_quantum;
mod software;

#[cfg(test)]
pub(crate) mod tests;

#[doc(hidden)]
pub use post_quantum::fuzz_private_key;
pub use software::{SoftwareKey, SoftwareKeys, new_cek, warm_up};

/// The name of a private key: SHA-256 of its SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 32]);

impl KeyId {
    /// The id of the key with this SubjectPublicKeyInfo.
    pub fn of_spki(spki: &[u8]) -> Self {
        let mut id = [0u8; 32];
        id.copy_from_slice(Digest::Sha256.of(spki).as_ref());
        Self(id)
    }
}

/// A content-encryption key, wiped when dropped.
pub type Cek = Zeroizing<Vec<u8>>;

/// What a key is asked to do.
#[derive(Debug, Clone)]
pub enum KeyOperation {
    /// Sign `message` (hashed by the holder).
    Sign { key: KeyId, scheme: SignatureScheme, message: Bytes },
    /// Decrypt a transported CEK. A wrong padding or length yields `substitute`, never an error (A3); where the cipher has a
    /// fixed key length it is `content.key_len()`. `substitute` is drawn by the caller before the call.
    Unwrap { key: KeyId, transport: KeyTransport, encrypted: Bytes, content: ContentEncryption, substitute: Cek },
    /// ECDH with `originator` (a public point of the key's curve, SEC 1 form: OriginatorPublicKey may leave the curve out; or an X25519
    /// public key), key derivation with `shared_info` (ECC-CMS-SharedInfo, DER) and, in HKDF, `ukm`, then unwrap. Failure yields
    /// `substitute`, as above.
    Agree {
        key: KeyId,
        agreement: KeyAgreement,
        originator: Bytes,
        ukm: Option<Bytes>,
        shared_info: Bytes,
        wrapped: Bytes,
        content: ContentEncryption,
        substitute: Cek,
    },
    /// ML-KEM decapsulation of `ciphertext`, HKDF with `info` (CMSORIforKEMOtherInfo, DER), then unwrap. A ciphertext that was not made
    /// for this key gives another secret, never an error (FIPS 203 section 7.3); that, a wrong length and a wrong wrap yield
    /// `substitute`, as above.
    Decapsulate {
        key: KeyId,
        encapsulation: KeyEncapsulation,
        ciphertext: Bytes,
        info: Bytes,
        wrapped: Bytes,
        content: ContentEncryption,
        substitute: Cek,
    },
}

impl KeyOperation {
    /// The key that is asked.
    pub fn key(&self) -> KeyId {
        match self {
            Self::Sign { key, .. }
            | Self::Unwrap { key, .. }
            | Self::Agree { key, .. }
            | Self::Decapsulate { key, .. } => *key,
        }
    }
}

/// What it answers.
#[derive(Debug, Clone)]
pub enum KeyAnswer {
    /// A signature: RSA octets, ECDSA-Sig-Value DER, Ed25519's 64 octets, or ML-DSA's octets.
    Signature(Vec<u8>),
    /// A CEK, or the substitute.
    Cek(Cek),
}

/// Why there is no answer. Never says anything about padding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("no such private key")]
    Unknown,
    /// A key that is not taken: what was found, what is needed.
    #[error("{0}")]
    Rejected(String),
    #[error("the key cannot do this: {0}")]
    Unsuitable(&'static str),
    #[error("the key holder is not available: {0}")]
    Unavailable(String),
}

/// An answer, now or later.
pub enum Submission {
    /// Done where it was asked.
    Ready(Result<KeyAnswer, KeyError>),
    /// Done elsewhere.
    Later(Pin<Box<dyn Future<Output = Result<KeyAnswer, KeyError>> + Send>>),
}

/// Holds private keys; shows none.
pub trait KeyHolder: Send + Sync {
    /// Takes an operation.
    fn submit(&self, operation: KeyOperation) -> Submission;
}

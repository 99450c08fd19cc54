//! Operations with private keys, never their octets. A `KeyHolder` answers now or later, so that a separate process or an HSM fits.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::cms::algorithm::{ContentEncryption, KeyAgreement, KeyTransport, SignatureScheme};

/// The name of a private key: SHA-256 of its SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 32]);

impl KeyId {
    /// The id of the key with this SubjectPublicKeyInfo.
    pub fn of_spki(_spki: &[u8]) -> Self {
        todo!()
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
    /// ECDH with `originator` (a SubjectPublicKeyInfo of the key's curve), X9.63 KDF with `shared_info`, then unwrap.
    /// Failure yields `substitute`, as above.
    Agree { key: KeyId, agreement: KeyAgreement, originator: Bytes, shared_info: Bytes, wrapped: Bytes, content: ContentEncryption, substitute: Cek },
}

/// What it answers.
#[derive(Debug, Clone)]
pub enum KeyAnswer {
    /// A signature: RSA octets, ECDSA-Sig-Value DER, or Ed25519's 64 octets.
    Signature(Vec<u8>),
    /// A CEK, or the substitute.
    Cek(Cek),
}

/// Why there is no answer. Never says anything about padding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("no such private key")]
    Unknown,
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

/// A private key in this process's memory, decoded once (loading an RSA key costs 0.17 ms), wiped when dropped.
pub struct SoftwareKey {}

impl SoftwareKey {
    /// Reads a PKCS#8 PrivateKeyInfo (DER); RSA under 2048 bits is refused with a message that says so.
    pub fn from_pkcs8(_der: &[u8]) -> Result<Self, KeyError> {
        todo!()
    }
    /// Its name.
    pub fn id(&self) -> KeyId {
        todo!()
    }
    /// Its SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        todo!()
    }
    /// Does the operation here and now.
    pub fn perform(&self, _operation: &KeyOperation) -> Result<KeyAnswer, KeyError> {
        todo!()
    }
}

/// A handful of keys in memory: for the offline commands, tests and the demo.
#[derive(Default)]
pub struct SoftwareKeys {}

impl SoftwareKeys {
    /// Adds a key.
    pub fn insert(&mut self, _key: SoftwareKey) -> KeyId {
        todo!()
    }
}

impl KeyHolder for SoftwareKeys {
    fn submit(&self, _operation: KeyOperation) -> Submission {
        todo!()
    }
}

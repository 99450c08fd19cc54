//! Entity and plan to a protected entity (RFC 8551 section 3).

use bytes::Bytes;
use jiff::Timestamp;

use crate::cms::algorithm::{ContentEncryption, Digest, SignatureScheme};
use crate::cms::enveloped::RecipientScheme;
use crate::cms::error::CmsError;
use crate::keys::{KeyAnswer, KeyId, KeyOperation};
use crate::mime::entity::Entity;
use crate::mime::header::MimeError;
use crate::mime::rope::Rope;
use crate::pki::certificate::Certificate;

/// Clear (multipart/signed) or opaque (application/pkcs7-mime; smime-type=signed-data).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    #[default]
    Clear,
    Opaque,
}

/// Who signs, and how.
#[derive(Debug, Clone)]
pub struct SignPlan {
    pub key: KeyId,
    pub certificate: Certificate,
    /// Intermediates to include.
    pub chain: Vec<Certificate>,
    /// The certificate people are to encrypt to, where it is another one.
    pub encryption_certificate: Option<Certificate>,
    pub scheme: SignatureScheme,
    pub digest: Digest,
    pub form: Form,
    pub signing_time: Timestamp,
    pub capabilities: Vec<ContentEncryption>,
}

/// To whom it is encrypted, and how.
#[derive(Debug, Clone)]
pub struct EncryptPlan {
    pub recipients: Vec<(Certificate, RecipientScheme)>,
    pub content: ContentEncryption,
}

/// Why a message cannot be sealed: it is never sent in clear instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    Mime(#[from] MimeError),
    #[error(transparent)]
    Cms(#[from] CmsError),
    #[error("key: {0}")]
    Key(#[from] crate::keys::KeyError),
    /// The self-check did not find what was meant to be there.
    #[error("self-check failed: {0}")]
    SelfCheck(&'static str),
}

/// A message prepared for protection: outer fields and the inner entity, canonical, 7-bit safe.
#[derive(Debug, Clone)]
pub struct Draft {
    // the smime helper's
    _rest: (),
}

/// A signature under way: give `operation` to a `KeyHolder`, its answer to `finish`.
#[derive(Debug)]
pub struct Signing {
    _rest: (),
}

/// Proof that a message is protected as planned; the only thing that may leave under `encrypt = require`. Made in this
/// module alone; its octets are a rope that is encoded while written.
#[derive(Debug, Clone)]
pub struct Sealed {
    rope: Rope,
    signed: bool,
    encrypted_to: Vec<[u8; 32]>,
}

impl Sealed {
    /// The message as it goes out.
    pub fn rope(&self) -> &Rope {
        &self.rope
    }
    pub fn is_signed(&self) -> bool {
        self.signed
    }
    /// Fingerprints of the certificates it is encrypted to; empty: not encrypted.
    pub fn encrypted_to(&self) -> &[[u8; 32]] {
        &self.encrypted_to
    }
}

impl Draft {
    /// Takes a message apart (see `mime::canonical::prepare`). A message that is already signed keeps its octets.
    pub fn new(_message: &Entity) -> Result<Self, SealError> {
        todo!()
    }
    /// Begins a signature.
    pub fn sign(self, _plan: SignPlan) -> Result<Signing, SealError> {
        todo!()
    }
    /// Encrypts what is there (signed or not) for one group of recipients; the draft stays for the next group. With
    /// `self_check` the result is read again with its CEK before it is given out.
    pub fn encrypt(&self, _plan: &EncryptPlan, _self_check: bool) -> Result<Sealed, SealError> {
        todo!()
    }
    /// The signed message as it is, for recipients whose plan does not encrypt. An error when it was not signed.
    pub fn signed(&self) -> Result<Sealed, SealError> {
        todo!()
    }
}

impl Signing {
    /// What the key has to do.
    pub fn operation(&self) -> KeyOperation {
        todo!()
    }
    /// Puts the signature in place; with `self_check` it is verified over the octets as a 7-bit hop leaves them.
    pub fn finish(self, _answer: KeyAnswer, _self_check: bool) -> Result<Draft, SealError> {
        todo!()
    }
}

/// Makes sure that what is left unused stays used (skeleton).
pub(crate) type _Octets = Bytes;

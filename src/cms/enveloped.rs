//! EnvelopedData (RFC 5652 section 6) and AuthEnvelopedData (RFC 5083): seal; open with a CEK. Reads BER, writes DER.

use bytes::Bytes;

use super::algorithm::{ContentEncryption, Digest, KeyAgreement, KeyTransport, Legacy};
use super::error::CmsError;
use super::signed::CertificateId;
use crate::keys::{Cek, KeyId, KeyOperation};
use crate::pki::certificate::Certificate;

/// How an RSA recipient gets the CEK; an EC recipient gets ECDH with this KDF digest and the wrap that fits the cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipientScheme {
    pub rsa: KeyTransport,
    pub kdf: Digest,
}

/// Encrypts `content` (MIME entity, canonical) to the recipients: AuthEnvelopedData for GCM, EnvelopedData for CBC. `cek`
/// of the right length and randomness come from the caller (`keys::new_cek`); IV or nonce is drawn here. Returns the DER
/// ContentInfo. `seal_with` does the same without a copy of the content.
pub fn seal(
    content: Vec<u8>,
    how: ContentEncryption,
    recipients: &[(&Certificate, RecipientScheme)],
    cek: &Cek,
) -> Result<Bytes, CmsError> {
    seal_with(content.len(), |buffer| buffer.extend_from_slice(&content), how, recipients, cek)
}

/// `seal` for a content that `fill` appends to the buffer given to it: exactly `length` octets, which are then encrypted where they
/// lie, so that the content is copied only once on its way from the caller's pieces to the finished ContentInfo.
pub fn seal_with(
    _length: usize,
    _fill: impl FnOnce(&mut Vec<u8>),
    _how: ContentEncryption,
    _recipients: &[(&Certificate, RecipientScheme)],
    _cek: &Cek,
) -> Result<Bytes, CmsError> {
    todo!()
}

/// An EnvelopedData or AuthEnvelopedData as received.
#[derive(Debug, Clone)]
pub struct EnvelopedData {
    pub content: ContentEncryption,
    pub recipients: Vec<RecipientInfo>,
    /// What is odd but not wrong.
    pub odd: Vec<String>,
    _rest: (),
}

/// Ways a RecipientInfo carries its CEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientKind {
    KeyTransport(KeyTransport),
    KeyAgreement(KeyAgreement),
    /// KEK, password, KEM, or an algorithm that is not in the table: named, not opened.
    Other(String),
}

/// A RecipientInfo (one RecipientEncryptedKey of a KeyAgreeRecipientInfo counts as one).
#[derive(Debug, Clone)]
pub struct RecipientInfo {
    /// Whom it names; `None` for kinds that name no certificate.
    pub id: Option<CertificateId>,
    pub kind: RecipientKind,
    _rest: (),
}

impl RecipientInfo {
    /// The operation that yields the CEK with `key`; `substitute` is drawn by the caller (A3).
    pub fn operation(&self, _key: KeyId, _content: ContentEncryption, _substitute: Cek) -> Result<KeyOperation, CmsError> {
        todo!()
    }
}

impl EnvelopedData {
    /// Reads a ContentInfo (BER or DER); algorithms first and strictly (A5).
    pub fn parse(_content_info: &Bytes, _legacy: Legacy) -> Result<Self, CmsError> {
        todo!()
    }
    /// Decrypts the whole; AEAD: the tag is checked before an octet is released; CBC: padding is checked, and the error is the
    /// same whatever failed (A3, A4).
    pub fn open(&self, _cek: &Cek) -> Result<Bytes, CmsError> {
        todo!()
    }
    /// AEAD, so that success proves integrity under the CEK.
    pub fn is_authenticated(&self) -> bool {
        self.content.is_authenticated()
    }
}

//! What a certificate says for mail (RFC 5280, RFC 8550, RFC 9598).

use bytes::Bytes;
use jiff::Timestamp;

use super::public_key::PublicKey;
use crate::address::{Domain, Mailbox, MailboxKey};

/// Why a certificate cannot be read or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("not a certificate: {0}")]
    Malformed(String),
    #[error("certificate refused: {0}")]
    Refused(String),
}

/// What a leaf is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Verify a mail signature: digitalSignature or nonRepudiation (or no keyUsage), EKU emailProtection (or none / any by setting).
    Signature,
    /// Encrypt to it: keyEncipherment (RSA) or keyAgreement (EC).
    Encryption,
}

/// A certificate, parsed once, cheap to clone.
#[derive(Clone)]
pub struct Certificate {
    inner: std::sync::Arc<Inner>,
}

struct Inner {
    der: Bytes,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({} octets)", self.inner.der.len())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.inner.der == other.inner.der
    }
}
impl Eq for Certificate {}

impl Certificate {
    /// Reads DER (trailing octets are an error).
    pub fn from_der(_der: Bytes) -> Result<Self, CertificateError> {
        todo!()
    }
    /// Reads every certificate of a file: PEM (several blocks) or one DER.
    pub fn from_pem_or_der(_octets: &[u8]) -> Result<Vec<Self>, CertificateError> {
        todo!()
    }
    /// As received.
    pub fn der(&self) -> &Bytes {
        &self.inner.der
    }
    /// SHA-256 of the DER.
    pub fn fingerprint(&self) -> [u8; 32] {
        todo!()
    }
    /// Issuer Name, DER as received.
    pub fn issuer(&self) -> &[u8] {
        todo!()
    }
    /// Subject Name, DER as received.
    pub fn subject(&self) -> &[u8] {
        todo!()
    }
    /// RFC 4514 text of the issuer, for people; control characters escaped.
    pub fn issuer_text(&self) -> String {
        todo!()
    }
    /// RFC 4514 text of the subject.
    pub fn subject_text(&self) -> String {
        todo!()
    }
    /// Content octets of the serial INTEGER.
    pub fn serial(&self) -> &[u8] {
        todo!()
    }
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        todo!()
    }
    pub fn authority_key_identifier(&self) -> Option<&[u8]> {
        todo!()
    }
    pub fn not_before(&self) -> Timestamp {
        todo!()
    }
    pub fn not_after(&self) -> Timestamp {
        todo!()
    }
    pub fn public_key(&self) -> &PublicKey {
        todo!()
    }
    /// rfc822Name and SmtpUTF8Mailbox of the SAN that are well-formed mailboxes.
    pub fn mailboxes(&self) -> &[Mailbox] {
        todo!()
    }
    /// Whether the SAN holds this mailbox (compared by key).
    pub fn is_for(&self, _mailbox: &MailboxKey) -> bool {
        todo!()
    }
    /// Whether it is a domain certificate for that domain (legacy `domain-confidentiality-authority@domain`, or a SAN of
    /// rfc822Name `@domain`-like forms as RFC 3183 names them).
    pub fn is_for_domain(&self, _domain: &Domain) -> bool {
        todo!()
    }
    /// Key usage and extended key usage fit the purpose; says why not.
    pub fn fits(&self, _purpose: Purpose) -> Result<(), CertificateError> {
        todo!()
    }
    /// Basic constraints say CA.
    pub fn is_ca(&self) -> bool {
        todo!()
    }
    /// Issuer equals subject (octets after RFC 5280 7.1 comparison).
    pub fn is_self_issued(&self) -> bool {
        todo!()
    }
}

//! EnvelopedData (RFC 5652 section 6) and AuthEnvelopedData (RFC 5083): seal; open with a CEK. Reads BER, writes DER.

use bytes::Bytes;
use const_oid::ObjectIdentifier;

use super::algorithm::{
    ContentAlgorithm, ContentEncryption, KeyAgreement, KeyDerivation, KeyEncapsulation, KeyTransport, KeyWrap, Legacy,
    content_encryption,
};
use super::ber::{Element, tag, to_der, write};
use super::error::CmsError;
use super::signed::{CertificateId, ID_DATA, content_of};
use crate::keys::{Cek, KeyId, KeyOperation};

mod cipher;
mod kem;
mod recipients;
mod seal;
mod shared;

#[cfg(test)]
pub(crate) mod tests;

#[doc(hidden)]
pub use kem::fuzz_kem_recipient_info;
pub use seal::{ContentScheme, seal, seal_with};
pub use shared::{PasswordKey, SharedSecret};

const ID_ENVELOPED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.3");
const ID_AUTH_ENVELOPED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.23");

/// RecipientInfos in one envelope at most.
const MAX_RECIPIENTS: usize = 4096;

/// How an RSA recipient gets the CEK; an EC or X25519 recipient gets ECDH with this key derivation and the wrap that fits the cipher, an
/// ML-KEM recipient a KEMRecipientInfo as RFC 9936 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipientScheme {
    pub rsa: KeyTransport,
    pub kdf: KeyDerivation,
}

/// An EnvelopedData or AuthEnvelopedData as received.
#[derive(Debug, Clone)]
pub struct EnvelopedData {
    pub content: ContentEncryption,
    pub recipients: Vec<RecipientInfo>,
    /// What is odd but not wrong.
    pub odd: Vec<String>,
    algorithm: ContentAlgorithm,
    encrypted: Bytes,
    /// DER of authAttrs as SET OF; empty: none.
    authenticated_attributes: Vec<u8>,
    /// AEAD's tag; empty for CBC.
    mac: Bytes,
}

/// Ways a RecipientInfo carries its CEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientKind {
    KeyTransport(KeyTransport),
    KeyAgreement(KeyAgreement),
    /// KEMRecipientInfo (RFC 9629).
    KeyEncapsulation(KeyEncapsulation),
    /// KEKRecipientInfo: a shared key-encryption key, by its keyIdentifier.
    SharedKey {
        wrap: KeyWrap,
        identifier: Bytes,
    },
    /// PasswordRecipientInfo.
    Password(PasswordKey),
    /// An algorithm that is not in the table: named, not opened.
    Other(String),
}

/// A RecipientInfo (one RecipientEncryptedKey of a KeyAgreeRecipientInfo counts as one).
#[derive(Debug, Clone)]
pub struct RecipientInfo {
    /// Whom it names; `None` for kinds that name no certificate.
    pub id: Option<CertificateId>,
    pub kind: RecipientKind,
    encrypted_key: Bytes,
    /// The originator's ephemeral point or X25519 public key (key agreement), or kemct (key encapsulation).
    originator: Bytes,
    /// User keying material (key agreement).
    ukm: Option<Bytes>,
    /// ECC-CMS-SharedInfo (key agreement) or CMSORIforKEMOtherInfo (key encapsulation), DER.
    shared_info: Bytes,
}

impl RecipientInfo {
    /// One of a kind that agrees on no key.
    fn without_agreement(id: Option<CertificateId>, kind: RecipientKind, encrypted_key: Bytes) -> Self {
        Self { id, kind, encrypted_key, originator: Bytes::new(), ukm: None, shared_info: Bytes::new() }
    }

    /// The operation that yields the CEK with `key`; `substitute` is drawn by the caller (A3). An error for kinds that are not
    /// opened here.
    pub fn operation(&self, key: KeyId, content: ContentEncryption, substitute: Cek) -> Result<KeyOperation, CmsError> {
        match &self.kind {
            RecipientKind::KeyTransport(transport) => Ok(KeyOperation::Unwrap {
                key,
                transport: *transport,
                encrypted: self.encrypted_key.clone(),
                content,
                substitute,
            }),
            RecipientKind::KeyAgreement(agreement) => Ok(KeyOperation::Agree {
                key,
                agreement: *agreement,
                originator: self.originator.clone(),
                ukm: self.ukm.clone(),
                shared_info: self.shared_info.clone(),
                wrapped: self.encrypted_key.clone(),
                content,
                substitute,
            }),
            RecipientKind::KeyEncapsulation(encapsulation) => Ok(KeyOperation::Decapsulate {
                key,
                encapsulation: *encapsulation,
                ciphertext: self.originator.clone(),
                info: self.shared_info.clone(),
                wrapped: self.encrypted_key.clone(),
                content,
                substitute,
            }),
            RecipientKind::SharedKey { .. } | RecipientKind::Password(_) => Err(CmsError::Algorithm(
                "a RecipientInfo for a secret that sender and recipient share, not for a private key".to_owned(),
            )),
            RecipientKind::Other(name) => Err(CmsError::Algorithm(name.clone())),
        }
    }
}

impl EnvelopedData {
    /// Reads a ContentInfo (BER or DER); algorithms first and strictly (A5). At most 4096 recipients.
    pub fn parse(content_info: &Bytes, legacy: Legacy) -> Result<Self, CmsError> {
        let mut odd = Vec::new();
        let (kind, content, trailing) = content_of(content_info, &[ID_ENVELOPED_DATA, ID_AUTH_ENVELOPED_DATA])?;
        if trailing {
            odd.push("octets follow the ContentInfo".to_owned());
        }
        let authenticated = kind == ID_AUTH_ENVELOPED_DATA;
        let mut fields = content.reader();
        fields.small_integer("EnvelopedData version")?;
        fields.optional(tag::context(0))?;
        let recipient_infos = fields.expect(tag::SET, "recipientInfos")?;
        let mut encrypted_info = fields.expect(tag::SEQUENCE, "EncryptedContentInfo")?.reader();
        let content_type = encrypted_info.oid("contentType")?;
        let algorithm_der = to_der(encrypted_info.expect(tag::SEQUENCE, "contentEncryptionAlgorithm")?.raw)?;
        let algorithm = content_encryption(&algorithm_der, authenticated, legacy)?;
        let encrypted = match encrypted_info.optional_string(tag::context_primitive(0))? {
            Some(string) => string.octet_bytes(content_info, "encryptedContent")?,
            None => {
                return Err(CmsError::Rule {
                    rule: "RFC 8551 section 3.3",
                    why: "the encrypted content must be inside",
                });
            }
        };
        encrypted_info.end("EncryptedContentInfo")?;
        let attributes = fields.optional(tag::context(1))?;
        let (authenticated_attributes, mac) = if authenticated {
            if attributes.is_none() && content_type != ID_DATA {
                return Err(CmsError::Rule {
                    rule: "RFC 5083 section 2.1",
                    why: "a content other than id-data needs authenticated attributes",
                });
            }
            let mac = fields.string(tag::OCTET_STRING, "mac")?.octet_bytes(content_info, "mac")?;
            fields.optional(tag::context(2))?;
            (attributes.map(|attributes| set_of_attributes(&attributes)).transpose()?.unwrap_or_default(), mac)
        } else {
            (Vec::new(), Bytes::new())
        };
        fields.end("EnvelopedData")?;
        if mac.len() != algorithm.tag_len {
            return Err(CmsError::Rule {
                rule: "RFC 5084 section 3.2",
                why: "the tag is not as long as the parameters say",
            });
        }
        Ok(Self {
            content: algorithm.cipher,
            recipients: recipients::read(&recipient_infos, content_info, legacy)?,
            odd,
            algorithm,
            encrypted,
            authenticated_attributes,
            mac,
        })
    }

    /// Decrypts the whole; AEAD: the tag is checked before an octet is released; CBC: padding is checked, and the error is the
    /// same whatever failed (A3, A4).
    pub fn open(&self, cek: &Cek) -> Result<Bytes, CmsError> {
        cipher::open(&self.algorithm, cek, &self.encrypted, &self.authenticated_attributes, &self.mac).map(Bytes::from)
    }

    /// The content is encrypted under a key that is derived from the CEK (RFC 9709).
    pub fn is_derived(&self) -> bool {
        self.algorithm.derivation().is_some()
    }

    /// What is weak in how it is encrypted, and was read by the legacy switch alone: the cipher, or how short its tag is.
    pub fn weakness(&self) -> Option<String> {
        if self.content.is_legacy() {
            return Some(format!("encrypted with {}", self.content.name()));
        }
        let short = self.is_authenticated() && self.algorithm.tag_len < 16;
        short.then(|| format!("{} with a tag of {} octets", self.content.name(), self.algorithm.tag_len))
    }

    /// As [`Self::open`], for the last CEK there is: where nobody else holds the octets they are decrypted where they lie, so that a large
    /// content is in memory once.
    pub fn open_last(mut self, cek: &Cek) -> Result<Bytes, CmsError> {
        let (encrypted, mac) = (std::mem::take(&mut self.encrypted), self.mac.to_vec());
        self.mac = Bytes::new();
        self.recipients.clear();
        match encrypted.try_into_mut() {
            Ok(buffer) => cipher::open_in_place(&self.algorithm, cek, buffer, &self.authenticated_attributes, &mac),
            Err(shared) => {
                cipher::open(&self.algorithm, cek, &shared, &self.authenticated_attributes, &mac).map(Bytes::from)
            }
        }
    }

    /// AEAD, so that success proves integrity under the CEK.
    pub fn is_authenticated(&self) -> bool {
        self.content.is_authenticated()
    }
}

/// authAttrs under the SET OF tag, DER (RFC 5083 section 2.2).
fn set_of_attributes(element: &Element<'_>) -> Result<Vec<u8>, CmsError> {
    let mut list = element.reader();
    let mut each = Vec::new();
    while !list.is_empty() {
        if each.len() == 128 {
            return Err(CmsError::Limit("more than 128 authenticated attributes"));
        }
        each.push(to_der(list.expect(tag::SEQUENCE, "Attribute")?.raw)?.into_owned());
    }
    Ok(write::set_of(tag::SET, each))
}

/// Reads an envelope as a fuzzer gives it: no crash; nothing opens under a key that nobody encrypted with, and the opened content
/// of CBC is shorter than what was encrypted.
#[doc(hidden)]
pub fn fuzz_enveloped_data(data: &[u8]) {
    let legacy = Legacy { weak_ciphers: true, sha1_signatures: true, weak_keys: true, short_tags: true };
    if let Ok(read) = EnvelopedData::parse(&Bytes::copy_from_slice(data), legacy) {
        assert!(read.recipients.len() <= MAX_RECIPIENTS);
        let cek = zeroize::Zeroizing::new(vec![0x5a; read.content.key_len()]);
        let plain = read.open(&cek);
        if let Ok(plain) = &plain {
            assert!(plain.len() <= read.encrypted.len());
        }
        assert_eq!(read.clone().open_last(&cek).ok(), plain.ok());
        for recipient in &read.recipients {
            let _ = recipient.operation(KeyId([0; 32]), read.content, cek.clone());
            let kek = SharedSecret::Kek { identifier: None, key: zeroize::Zeroizing::new(vec![0x5a; 16]) };
            let found = recipient.unwrap_shared(&kek, read.content);
            assert!(found.is_none_or(|found| found.is_err()), "nobody wrapped a key with this one");
        }
    }
}

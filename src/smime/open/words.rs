//! Envelopes in words, for people.

use super::OwnKey;
use super::judge::id_text;
use crate::cms::algorithm::{KeyEncapsulation, KeyTransport};
use crate::cms::enveloped::{EnvelopedData, RecipientInfo, RecipientKind};
use crate::smime::seal::hex;

/// The content encryption.
pub(super) fn cipher(envelope: &EnvelopedData) -> String {
    let name = envelope.content.name();
    if envelope.is_derived() { format!("{name} with a derived key (RFC 9709)") } else { name.to_owned() }
}

/// How a RecipientInfo carries the CEK, and whom it names; by mailbox where it is one of `own`.
pub(super) fn recipient(info: &RecipientInfo, own: &[OwnKey]) -> String {
    let how = match &info.kind {
        RecipientKind::KeyTransport(KeyTransport::RsaPkcs1) => "RSA PKCS#1 v1.5".to_owned(),
        RecipientKind::KeyTransport(KeyTransport::RsaOaep(digest, mask)) => {
            format!("RSA-OAEP, {}, MGF1 {}", digest.name(), mask.name())
        }
        RecipientKind::KeyAgreement(agreement) => {
            let cofactor = if agreement.cofactor { "cofactor " } else { "" };
            format!("{cofactor}ECDH, {}, {}", agreement.kdf.name(), agreement.wrap.name())
        }
        RecipientKind::KeyEncapsulation(KeyEncapsulation { kem, kdf, wrap }) => {
            format!("{}, HKDF with {}, {}", kem.name(), kdf.name(), wrap.name())
        }
        RecipientKind::SharedKey { wrap, identifier } => {
            let name: String = hex(identifier.get(..32).unwrap_or(identifier)).collect();
            format!("shared key-encryption key {name}, {}", wrap.name())
        }
        RecipientKind::Password(key) => format!("password, PBKDF2, {}", key.cipher().name()),
        RecipientKind::Other(name) => name.clone(),
    };
    let Some(id) = &info.id else { return how };
    let ours = own.iter().find(|one| id.names(&one.certificate));
    match ours.and_then(|one| one.certificate.mailboxes().first()) {
        Some(mailbox) => format!("{mailbox}, {how}, {}", id_text(id)),
        None => format!("{how}, {}", id_text(id)),
    }
}

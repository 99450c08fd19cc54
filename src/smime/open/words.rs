//! RecipientInfos in words, for people.

use super::OwnKey;
use super::judge::{digest_name, id_text};
use crate::cms::algorithm::{KeyEncapsulation, KeyTransport, KeyWrap};
use crate::cms::enveloped::{RecipientInfo, RecipientKind};

/// How a RecipientInfo carries the CEK, and whom it names; by mailbox where it is one of `own`.
pub(super) fn recipient(info: &RecipientInfo, own: &[OwnKey]) -> String {
    let how = match &info.kind {
        RecipientKind::KeyTransport(KeyTransport::RsaPkcs1) => "RSA PKCS#1 v1.5".to_owned(),
        RecipientKind::KeyTransport(KeyTransport::RsaOaep(digest, mask)) => {
            format!("RSA-OAEP, {}, MGF1 {}", digest_name(*digest), digest_name(*mask))
        }
        RecipientKind::KeyAgreement(agreement) => {
            let wrap = match agreement.wrap {
                KeyWrap::Aes128 => "AES-128 wrap",
                KeyWrap::Aes192 => "AES-192 wrap",
                KeyWrap::Aes256 => "AES-256 wrap",
            };
            format!("ECDH, {}, {wrap}", digest_name(agreement.kdf))
        }
        RecipientKind::KeyEncapsulation(KeyEncapsulation { kem, kdf, .. }) => {
            format!("{}, HKDF with {}", kem.name(), digest_name(*kdf))
        }
        RecipientKind::Other(name) => name.clone(),
    };
    let Some(id) = &info.id else { return how };
    let ours = own.iter().find(|one| id.names(&one.certificate));
    match ours.and_then(|one| one.certificate.mailboxes().first()) {
        Some(mailbox) => format!("{mailbox}, {how}, {}", id_text(id)),
        None => format!("{how}, {}", id_text(id)),
    }
}

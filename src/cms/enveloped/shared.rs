//! RecipientInfos for a secret that sender and recipient share: KEKRecipientInfo (RFC 5652 section 6.2.3) and PasswordRecipientInfo
//! (RFC 3211, RFC 5652 section 6.2.4). Read, never written.

use bytes::Bytes;
use const_oid::ObjectIdentifier;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use super::{RecipientInfo, RecipientKind, cipher};
use crate::cms::algorithm::{
    AlgorithmIdentifier, ContentAlgorithm, ContentEncryption, Legacy, content_encryption, key_wrap, name_of,
};
use crate::cms::ber::{Element, tag, to_der};
use crate::cms::error::CmsError;
use crate::keys::{Cek, wrap};
use crate::pki::pkcs12;

/// id-PBKDF2 (RFC 8018 appendix A.2).
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
/// id-alg-PWRI-KEK (RFC 3211 section 2.3).
const PWRI_KEK: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.3.9");

/// A secret that sender and recipient share. Shows nothing of itself.
#[derive(Clone)]
pub enum SharedSecret {
    /// A password, in UTF-8 (RFC 3211 section 2.2), for PasswordRecipientInfo.
    Password(Zeroizing<String>),
    /// A key-encryption key of 16, 24 or 32 octets for KEKRecipientInfo; `identifier`: only where that one is named.
    Kek { identifier: Option<Bytes>, key: Zeroizing<Vec<u8>> },
}

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "SharedSecret::Password",
            Self::Kek { .. } => "SharedSecret::Kek",
        })
    }
}

/// How a PasswordRecipientInfo carries its CEK: PBKDF2, then the key wrap of RFC 3211.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordKey {
    /// The key derivation's AlgorithmIdentifier, DER.
    derivation: Bytes,
    /// The cipher of the wrap, with its IV.
    algorithm: ContentAlgorithm,
}

impl PasswordKey {
    /// The cipher of the wrap.
    pub fn cipher(&self) -> ContentEncryption {
        self.algorithm.cipher
    }
}

impl RecipientInfo {
    /// The CEK that this secret yields: `None` where the RecipientInfo is for another kind of secret, or for another KEK. Errors: a wrong
    /// secret, more than ten million iterations, a CEK of a length that is not the cipher's.
    pub fn unwrap_shared(&self, secret: &SharedSecret, content: ContentEncryption) -> Option<Result<Cek, CmsError>> {
        let cek = match (&self.kind, secret) {
            (RecipientKind::SharedKey { wrap, identifier }, SharedSecret::Kek { identifier: wanted, key }) => {
                if wanted.as_ref().is_some_and(|wanted| wanted != identifier) || key.len() != wrap.key_len() {
                    return None;
                }
                wrap::unwrap(*wrap, key, &self.encrypted_key)
            }
            (RecipientKind::Password(how), SharedSecret::Password(password)) => {
                unwrap_password(how, password, &self.encrypted_key)
            }
            _ => return None,
        };
        Some(cek.and_then(|cek| if cek.len() == content.key_len() { Ok(cek) } else { Err(CmsError::Crypto) }))
    }
}

fn unwrap_password(how: &PasswordKey, password: &str, wrapped: &[u8]) -> Result<Cek, CmsError> {
    let length = how.algorithm.cipher.key_len();
    let kek = pkcs12::derive_by_pbkdf2(&how.derivation, length, password)
        .map_err(|error| CmsError::Algorithm(format!("the password's key derivation: {error}")))?;
    unwrap_pwri(&how.algorithm, &kek, wrapped)
}

/// RFC 3211 section 2.3.2: CBC twice with the same key. The last block, decrypted with the one before as IV, is the IV of the outer pass;
/// then length, three check octets, the CEK, padding.
fn unwrap_pwri(algorithm: &ContentAlgorithm, kek: &[u8], wrapped: &[u8]) -> Result<Cek, CmsError> {
    let block = algorithm.iv().len();
    if block == 0 || wrapped.len() < 2 * block || !wrapped.len().is_multiple_of(block) || wrapped.len() > 512 {
        return Err(CmsError::Crypto);
    }
    let split = wrapped.len() - block;
    let (before, last) = wrapped.split_at_checked(split).ok_or(CmsError::Crypto)?;
    let previous = before.get(split - block..).ok_or(CmsError::Crypto)?;
    let last = cipher::decrypt_blocks(algorithm.cipher, kek, previous, last)?;
    let mut inner = cipher::decrypt_blocks(algorithm.cipher, kek, &last, before)?;
    inner.extend_from_slice(&last);
    let plain = cipher::decrypt_blocks(algorithm.cipher, kek, algorithm.iv(), &inner)?;
    let ([length, check @ ..], rest) = plain.split_first_chunk::<4>().ok_or(CmsError::Crypto)?;
    let length = usize::from(*length);
    let mut good = Choice::from(u8::from(length >= 3 && length <= rest.len()));
    for (check, octet) in check.iter().zip(rest) {
        good &= Choice::conditional_select(&Choice::from(0), &Choice::from(1), check.ct_eq(&!octet));
    }
    match rest.get(..length) {
        Some(cek) if bool::from(good) => Ok(Zeroizing::new(cek.to_vec())),
        _ => Err(CmsError::Crypto),
    }
}

/// Reads a KEKRecipientInfo.
pub(super) fn kek_recipient(element: &Element<'_>, input: &Bytes) -> Result<RecipientInfo, CmsError> {
    let mut fields = element.reader();
    fields.small_integer("KEKRecipientInfo version")?;
    let mut kek_id = fields.expect(tag::SEQUENCE, "kekid")?.reader();
    let identifier = kek_id.string(tag::OCTET_STRING, "keyIdentifier")?.octet_bytes(input, "keyIdentifier")?;
    let algorithm = to_der(fields.expect(tag::SEQUENCE, "keyEncryptionAlgorithm")?.raw)?;
    let encrypted_key = fields.string(tag::OCTET_STRING, "encryptedKey")?.octet_bytes(input, "encryptedKey")?;
    fields.end("KEKRecipientInfo")?;
    let kind = match key_wrap(&algorithm) {
        Ok(wrap) => RecipientKind::SharedKey { wrap, identifier },
        Err(error) => RecipientKind::Other(format!("a shared key-encryption key: {error}")),
    };
    Ok(RecipientInfo::without_agreement(None, kind, encrypted_key))
}

/// Reads a PasswordRecipientInfo.
pub(super) fn password_recipient(
    element: &Element<'_>,
    input: &Bytes,
    legacy: Legacy,
) -> Result<RecipientInfo, CmsError> {
    let mut fields = element.reader();
    fields.small_integer("PasswordRecipientInfo version")?;
    let derivation = match fields.optional(tag::context(0))? {
        Some(implicit) => {
            let mut der = to_der(implicit.raw)?.into_owned();
            if let Some(first) = der.first_mut() {
                *first = tag::SEQUENCE;
            }
            Some(der)
        }
        None => None,
    };
    let encryption = to_der(fields.expect(tag::SEQUENCE, "keyEncryptionAlgorithm")?.raw)?;
    let encrypted_key = fields.string(tag::OCTET_STRING, "encryptedKey")?.octet_bytes(input, "encryptedKey")?;
    fields.end("PasswordRecipientInfo")?;
    let kind = match password_key(derivation, &encryption, legacy) {
        Ok(key) => RecipientKind::Password(key),
        Err(error) => RecipientKind::Other(format!("a password: {error}")),
    };
    Ok(RecipientInfo::without_agreement(None, kind, encrypted_key))
}

fn password_key(derivation: Option<Vec<u8>>, encryption: &[u8], legacy: Legacy) -> Result<PasswordKey, CmsError> {
    let refused = |what: String| Err(CmsError::Algorithm(what));
    let Some(derivation) = derivation else {
        return refused("no key derivation is named".to_owned());
    };
    let function = AlgorithmIdentifier::from_der(&derivation)?.oid;
    if function != PBKDF2 {
        return refused(format!("{}: not a key derivation known here", name_of(&function)));
    }
    let found = AlgorithmIdentifier::from_der(encryption)?;
    if found.oid != PWRI_KEK {
        return refused(format!("{}: not a key wrap for passwords known here", name_of(&found.oid)));
    }
    let Some(inner) = found.parameters else {
        return refused("id-alg-PWRI-KEK names no cipher".to_owned());
    };
    let algorithm = content_encryption(inner, false, legacy)?;
    if algorithm.derivation().is_some() || !cipher::is_block_cipher(algorithm.cipher) {
        return refused(format!("{}: not a cipher for passwords known here", algorithm.cipher.name()));
    }
    Ok(PasswordKey { derivation: Bytes::from(derivation), algorithm })
}

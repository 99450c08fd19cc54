//! Verification of one SignerInfo (RFC 5652 sections 5.4 and 5.6).

use std::cell::OnceCell;

use aws_lc_rs::digest;

use super::attributes::looks_like_attributes;
use super::{ID_DATA, SignedData, SignerInfo};
use crate::cms::algorithm::{Digest, Legacy};
use crate::cms::error::CmsError;
use crate::pki::certificate::Certificate;
use crate::pki::public_key::PublicKey;

/// A content and its digests, each computed once however many signers there are.
pub struct ContentDigests<'a> {
    content: &'a [u8],
    /// By the digest's place in its table.
    digests: [OnceCell<digest::Digest>; Digest::Sha512 as usize + 1],
    attributes: OnceCell<bool>,
}

impl<'a> ContentDigests<'a> {
    /// Of the content octets exactly as they were signed: eContent, or the canonical MIME entity.
    pub fn new(content: &'a [u8]) -> Self {
        Self { content, digests: Default::default(), attributes: OnceCell::new() }
    }
    /// Whether the content may have been signed as the attributes of another message (A6).
    fn looks_like_attributes(&self) -> bool {
        *self.attributes.get_or_init(|| looks_like_attributes(self.content))
    }
    /// The digest, computed now or before.
    pub fn get(&self, how: Digest) -> digest::Digest {
        match self.digests.get(how as usize) {
            Some(cell) => *cell.get_or_init(|| how.of(self.content)),
            None => how.of(self.content),
        }
    }
}

impl SignerInfo {
    /// Verifies this signer's signature over `content` with `key`: contentType equals eContentType, messageDigest fits,
    /// signature over the signed attributes as sent, then as sorted DER; attribute-less content that parses as a SET OF
    /// Attribute refused (A6); signingCertificateV2, where present, names `certificate`.
    pub fn verify(
        &self,
        data: &SignedData,
        content: &[u8],
        certificate: &Certificate,
        key: &PublicKey,
        legacy: Legacy,
    ) -> Result<(), CmsError> {
        self.verify_with(data, &ContentDigests::new(content), certificate, key, legacy)
    }

    /// The same with digests that several signers share.
    pub fn verify_with(
        &self,
        data: &SignedData,
        content: &ContentDigests<'_>,
        certificate: &Certificate,
        key: &PublicKey,
        legacy: Legacy,
    ) -> Result<(), CmsError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        if !self.id.names(certificate) {
            return Err(CmsError::Rule {
                rule: "RFC 5652 section 5.3",
                why: "the SignerInfo names another certificate",
            });
        }
        let scheme = self.scheme.clone()?;
        let digest = self.digest.unwrap_or(scheme.digest());
        if scheme.digest() == Digest::Sha1 && !legacy.sha1_signatures {
            return Err(CmsError::Algorithm(
                "SHA-1 in a signature, which the legacy switch `sha1_signatures` would allow".to_owned(),
            ));
        }
        if key.is_weak() && !legacy.weak_keys {
            let kind = key.kind().name();
            return Err(CmsError::Algorithm(format!(
                "a signature by {kind}, which the legacy switch `weak_keys` would allow"
            )));
        }
        let id_data = ID_DATA.to_string();
        let Some(attributes) = &self.attributes else {
            if data.econtent_type != id_data {
                return Err(CmsError::Rule {
                    rule: "RFC 5652 section 5.3",
                    why: "a content other than id-data needs signed attributes",
                });
            }
            // draft-ietf-lamps-cms-euf-cma-signeddata: a signature made over attributes is no signature over a content.
            if content.looks_like_attributes() {
                return Err(CmsError::Rule {
                    rule: "draft-ietf-lamps-cms-euf-cma-signeddata",
                    why: "without signed attributes the content must not be a set of attributes",
                });
            }
            return match scheme.signs_message() {
                true => key.verify(scheme, content.content, &self.signature),
                false => key.verify_digest(scheme, content.get(scheme.digest()).as_ref(), &self.signature),
            };
        };
        if attributes.content_type.to_string() != data.econtent_type {
            return Err(CmsError::Rule { rule: "RFC 5652 section 11.1", why: "contentType differs from eContentType" });
        }
        let fits = match self.shake {
            Some(shake) => attributes.message_digest.as_ref() == shake.of(content.content),
            None => attributes.message_digest.as_ref() == content.get(digest).as_ref(),
        };
        if !fits {
            return Err(CmsError::Unauthentic("the content's digest"));
        }
        if !attributes.names(certificate) {
            return Err(CmsError::Rule {
                rule: "RFC 5035 section 5",
                why: "signingCertificate names another certificate",
            });
        }
        let mut result = Err(CmsError::Unauthentic("the signature"));
        for octets in attributes.candidates() {
            result = key.verify(scheme, octets, &self.signature);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

//! The strict table of AlgorithmIdentifiers, both ways (A5): anything else, or other parameters, is refused. A file for each kind.

use const_oid::ObjectIdentifier;

use super::ber::{Reader, tag};
use super::error::CmsError;

mod agreement;
mod capabilities;
mod compression;
mod content;
mod digest;
mod encapsulation;
mod key;
mod mask;
mod post_quantum;
mod signature;
mod transport;

#[cfg(test)]
mod tests;

pub use agreement::{KeyAgreement, KeyDerivation, KeyWrap, key_agreement, key_agreement_der, key_wrap};
pub use capabilities::{Capabilities, capabilities_der, fuzz_capabilities};
pub use compression::compression;
pub use content::{ContentAlgorithm, ContentEncryption, content_encryption, content_encryption_der};
pub use digest::{Digest, digest_algorithm, digest_algorithm_der};
pub use encapsulation::{EncapsulationDer, KeyEncapsulation, encapsulation_der, key_encapsulation};
pub use key::{
    EC_PUBLIC_KEY, ED25519, RSA_ENCRYPTION, RSAES_OAEP, RSASSA_PSS, SECP256R1, SECP384R1, SECP521R1, X25519,
};
pub use post_quantum::{MlDsa, MlKem, ShakeDigest, SlhDsa};
pub use signature::{PssKey, SignatureScheme, certificate_signature_der, signature_scheme, signature_scheme_der};
pub use transport::{KeyTransport, key_transport, key_transport_der};

/// Which weak algorithms may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Legacy {
    /// 3DES and RC2 content encryption.
    pub weak_ciphers: bool,
    /// SHA-1 in signatures.
    pub sha1_signatures: bool,
    /// RSA keys of 1024 to 2047 bits, for verifying.
    pub weak_keys: bool,
    /// GCM tags of 12 to 15 octets (12 is RFC 5084's default when aes-ICVlen is left out).
    pub short_tags: bool,
}

impl Legacy {
    /// All of it: for the offline commands and tests.
    pub const ALL: Self = Self { weak_ciphers: true, sha1_signatures: true, weak_keys: true, short_tags: true };
}

const fn id(dotted: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(dotted)
}

const NULL: &[u8] = &[tag::NULL, 0];

/// An AlgorithmIdentifier (RFC 5280 section 4.1.1.2), strictly DER.
#[derive(Debug, Clone, Copy)]
pub struct AlgorithmIdentifier<'a> {
    pub oid: ObjectIdentifier,
    /// The parameters, the whole element.
    pub parameters: Option<&'a [u8]>,
}

impl<'a> AlgorithmIdentifier<'a> {
    /// Reads one, and nothing after it.
    pub fn from_der(der: &'a [u8]) -> Result<Self, CmsError> {
        let mut outer = Reader::der(der);
        let mut inner = outer.expect(tag::SEQUENCE, "AlgorithmIdentifier")?.reader();
        outer.end("AlgorithmIdentifier")?;
        let oid = inner.oid("AlgorithmIdentifier")?;
        let parameters = if inner.is_empty() { None } else { Some(inner.element()?.raw) };
        inner.end("AlgorithmIdentifier")?;
        Ok(Self { oid, parameters })
    }
    fn absent(&self) -> Result<(), CmsError> {
        if self.parameters.is_none() { Ok(()) } else { Err(self.refused("parameters must be absent")) }
    }
    fn null(&self) -> Result<(), CmsError> {
        if self.parameters == Some(NULL) { Ok(()) } else { Err(self.refused("parameters must be NULL")) }
    }
    fn null_or_absent(&self) -> Result<(), CmsError> {
        if self.parameters.is_none_or(|parameters| parameters == NULL) {
            Ok(())
        } else {
            Err(self.refused("parameters must be NULL or absent"))
        }
    }
    fn refused(&self, why: &str) -> CmsError {
        CmsError::Algorithm(format!("{}: {why}", name_of(&self.oid)))
    }
}

/// The name of an algorithm, or its dotted OID where it has none in the registry.
pub fn name_of(oid: &ObjectIdentifier) -> String {
    match const_oid::db::DB.by_oid(oid) {
        Some(name) => name.to_owned(),
        None => oid.to_string(),
    }
}

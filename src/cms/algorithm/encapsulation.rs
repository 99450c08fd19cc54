//! Key encapsulation in CMS (RFC 9629, RFC 9936): the KEM, HKDF (RFC 8619), and the key wrap.

use const_oid::ObjectIdentifier;

use super::agreement::key_wrap;
use super::post_quantum::MlKem;
use super::{AlgorithmIdentifier, ContentEncryption, Digest, KeyWrap, id};
use crate::cms::ber::write;
use crate::cms::error::CmsError;

/// How a CEK is wrapped for the owner of an ML-KEM key: HKDF over this digest gives the KEK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyEncapsulation {
    pub kem: MlKem,
    pub kdf: Digest,
    pub wrap: KeyWrap,
}

impl KeyEncapsulation {
    /// What is written: HKDF with SHA-256, and a wrap as strong as the cipher and the KEM (RFC 9936 section 2.2.2: AES-256 from
    /// ML-KEM-768 on).
    pub fn for_content(kem: MlKem, content: ContentEncryption) -> Self {
        let wrap = if kem == MlKem::MlKem512 { content.wrap() } else { KeyWrap::Aes256 };
        Self { kem, kdf: Digest::Sha256, wrap }
    }
}

/// The DER of the AlgorithmIdentifiers in a KEMRecipientInfo.
pub struct EncapsulationDer {
    pub kem: Vec<u8>,
    pub kdf: Vec<u8>,
    pub wrap: Vec<u8>,
}

/// id-alg-hkdf-with-sha256, -sha384, -sha512.
const KDFS: [(ObjectIdentifier, Digest); 3] = [
    (id("1.2.840.113549.1.9.16.3.28"), Digest::Sha256),
    (id("1.2.840.113549.1.9.16.3.29"), Digest::Sha384),
    (id("1.2.840.113549.1.9.16.3.30"), Digest::Sha512),
];

/// Reads the three AlgorithmIdentifiers of a KEMRecipientInfo; `length` is kekLength, which must be the wrap's (RFC 9629 section 3).
pub fn key_encapsulation(kem: &[u8], kdf: &[u8], length: u32, wrap: &[u8]) -> Result<KeyEncapsulation, CmsError> {
    let kem = AlgorithmIdentifier::from_der(kem)?;
    let set = MlKem::from_oid(&kem.oid).ok_or_else(|| kem.refused("not a key encapsulation known here"))?;
    kem.absent()?;
    let found = AlgorithmIdentifier::from_der(kdf)?;
    let (_, kdf) = KDFS
        .into_iter()
        .find(|(oid, _)| *oid == found.oid)
        .ok_or_else(|| found.refused("not a key derivation known here"))?;
    found.absent()?;
    let wrap = key_wrap(wrap)?;
    if usize::try_from(length) != Ok(wrap.key_len()) {
        return Err(CmsError::Rule { rule: "RFC 9629 section 3", why: "kekLength is not the key length of the wrap" });
    }
    Ok(KeyEncapsulation { kem: set, kdf, wrap })
}

/// Writes them.
pub fn encapsulation_der(how: KeyEncapsulation) -> EncapsulationDer {
    let only = |oid: &ObjectIdentifier| write::sequence(&[&write::oid(oid)]);
    let kdf = KDFS.into_iter().find_map(|(oid, kdf)| (kdf == how.kdf).then_some(oid));
    EncapsulationDer {
        kem: only(&how.kem.oid()),
        kdf: only(&kdf.unwrap_or(id("1.2.840.113549.1.9.16.3.28"))),
        wrap: only(&how.wrap.oid()),
    }
}

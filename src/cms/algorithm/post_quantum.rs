//! Parameter sets of the post-quantum algorithms: ML-DSA (FIPS 204, RFC 9881), SLH-DSA (FIPS 205, RFC 9909), ML-KEM (FIPS 203, RFC 9935).

use const_oid::ObjectIdentifier;
use shake::{ExtendableOutput, Shake128, Shake256, Update};

use super::{AlgorithmIdentifier, id};

/// ML-DSA: signs and verifies a message, in pure mode with an empty context (RFC 9882 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MlDsa {
    MlDsa44,
    MlDsa65,
    MlDsa87,
}

impl MlDsa {
    /// All of them, weakest first.
    pub const ALL: [Self; 3] = [Self::MlDsa44, Self::MlDsa65, Self::MlDsa87];

    /// The set that an algorithm identifier of a key or a signature names.
    pub fn from_oid(oid: &ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.oid() == *oid)
    }
    /// id-ml-dsa-44, -65, -87; of keys and of signatures.
    pub fn oid(self) -> ObjectIdentifier {
        match self {
            Self::MlDsa44 => id("2.16.840.1.101.3.4.3.17"),
            Self::MlDsa65 => id("2.16.840.1.101.3.4.3.18"),
            Self::MlDsa87 => id("2.16.840.1.101.3.4.3.19"),
        }
    }
    /// "ML-DSA-65".
    pub fn name(self) -> &'static str {
        match self {
            Self::MlDsa44 => "ML-DSA-44",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
        }
    }
    /// Octets of a public key (FIPS 204 table 2).
    pub fn public_key_len(self) -> usize {
        match self {
            Self::MlDsa44 => 1312,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
        }
    }
    /// Octets of an expanded private key.
    pub fn expanded_len(self) -> usize {
        match self {
            Self::MlDsa44 => 2560,
            Self::MlDsa65 => 4032,
            Self::MlDsa87 => 4896,
        }
    }
}

/// SLH-DSA: verified here, in pure mode with an empty context (RFC 9814 section 2); nothing is signed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlhDsa {
    Sha2_128s,
    Sha2_128f,
    Sha2_192s,
    Sha2_192f,
    Sha2_256s,
    Sha2_256f,
    Shake128s,
    Shake128f,
    Shake192s,
    Shake192f,
    Shake256s,
    Shake256f,
}

impl SlhDsa {
    /// All of them, in the order of their identifiers.
    pub const ALL: [Self; 12] = [
        Self::Sha2_128s,
        Self::Sha2_128f,
        Self::Sha2_192s,
        Self::Sha2_192f,
        Self::Sha2_256s,
        Self::Sha2_256f,
        Self::Shake128s,
        Self::Shake128f,
        Self::Shake192s,
        Self::Shake192f,
        Self::Shake256s,
        Self::Shake256f,
    ];

    /// The set that an algorithm identifier of a key or a signature names.
    pub fn from_oid(oid: &ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.oid() == *oid)
    }
    /// id-slh-dsa-sha2-128s and its kin; of keys and of signatures.
    pub fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha2_128s => id("2.16.840.1.101.3.4.3.20"),
            Self::Sha2_128f => id("2.16.840.1.101.3.4.3.21"),
            Self::Sha2_192s => id("2.16.840.1.101.3.4.3.22"),
            Self::Sha2_192f => id("2.16.840.1.101.3.4.3.23"),
            Self::Sha2_256s => id("2.16.840.1.101.3.4.3.24"),
            Self::Sha2_256f => id("2.16.840.1.101.3.4.3.25"),
            Self::Shake128s => id("2.16.840.1.101.3.4.3.26"),
            Self::Shake128f => id("2.16.840.1.101.3.4.3.27"),
            Self::Shake192s => id("2.16.840.1.101.3.4.3.28"),
            Self::Shake192f => id("2.16.840.1.101.3.4.3.29"),
            Self::Shake256s => id("2.16.840.1.101.3.4.3.30"),
            Self::Shake256f => id("2.16.840.1.101.3.4.3.31"),
        }
    }
    /// "SLH-DSA-SHA2-128s".
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha2_128s => "SLH-DSA-SHA2-128s",
            Self::Sha2_128f => "SLH-DSA-SHA2-128f",
            Self::Sha2_192s => "SLH-DSA-SHA2-192s",
            Self::Sha2_192f => "SLH-DSA-SHA2-192f",
            Self::Sha2_256s => "SLH-DSA-SHA2-256s",
            Self::Sha2_256f => "SLH-DSA-SHA2-256f",
            Self::Shake128s => "SLH-DSA-SHAKE-128s",
            Self::Shake128f => "SLH-DSA-SHAKE-128f",
            Self::Shake192s => "SLH-DSA-SHAKE-192s",
            Self::Shake192f => "SLH-DSA-SHAKE-192f",
            Self::Shake256s => "SLH-DSA-SHAKE-256s",
            Self::Shake256f => "SLH-DSA-SHAKE-256f",
        }
    }
    /// Octets of a public key: PK.seed and PK.root (FIPS 205 table 2).
    pub fn public_key_len(self) -> usize {
        match self {
            Self::Sha2_128s | Self::Sha2_128f | Self::Shake128s | Self::Shake128f => 32,
            Self::Sha2_192s | Self::Sha2_192f | Self::Shake192s | Self::Shake192f => 48,
            Self::Sha2_256s | Self::Sha2_256f | Self::Shake256s | Self::Shake256f => 64,
        }
    }
}

/// ML-KEM: a shared secret of 32 octets (FIPS 203).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MlKem {
    MlKem512,
    MlKem768,
    MlKem1024,
}

impl MlKem {
    /// All of them, weakest first.
    pub const ALL: [Self; 3] = [Self::MlKem512, Self::MlKem768, Self::MlKem1024];

    /// The set that an algorithm identifier of a key or a KEMRecipientInfo names.
    pub fn from_oid(oid: &ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.oid() == *oid)
    }
    /// id-alg-ml-kem-512, -768, -1024.
    pub fn oid(self) -> ObjectIdentifier {
        match self {
            Self::MlKem512 => id("2.16.840.1.101.3.4.4.1"),
            Self::MlKem768 => id("2.16.840.1.101.3.4.4.2"),
            Self::MlKem1024 => id("2.16.840.1.101.3.4.4.3"),
        }
    }
    /// "ML-KEM-768".
    pub fn name(self) -> &'static str {
        match self {
            Self::MlKem512 => "ML-KEM-512",
            Self::MlKem768 => "ML-KEM-768",
            Self::MlKem1024 => "ML-KEM-1024",
        }
    }
    /// Rank of the module, `k` of FIPS 203 table 2.
    pub fn rank(self) -> usize {
        match self {
            Self::MlKem512 => 2,
            Self::MlKem768 => 3,
            Self::MlKem1024 => 4,
        }
    }
    /// Octets of an encapsulation key.
    pub fn public_key_len(self) -> usize {
        384 * self.rank() + 32
    }
    /// Octets of an expanded decapsulation key.
    pub fn expanded_len(self) -> usize {
        768 * self.rank() + 96
    }
}

/// SHAKE as a message digest (RFC 8702 section 3.1), which stands beside ML-DSA (RFC 9882) and SLH-DSA (RFC 9814) alone; reading only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShakeDigest {
    /// 256 bits of SHAKE128.
    Shake128,
    /// 512 bits of SHAKE256.
    Shake256,
}

impl ShakeDigest {
    /// Reads id-shake128 or id-shake256, parameters absent. `None`: another digest.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let found = AlgorithmIdentifier::from_der(der).ok()?;
        found.absent().ok()?;
        if found.oid == id("2.16.840.1.101.3.4.2.11") {
            Some(Self::Shake128)
        } else if found.oid == id("2.16.840.1.101.3.4.2.12") {
            Some(Self::Shake256)
        } else {
            None
        }
    }
    /// The digest of `octets`.
    pub fn of(self, octets: &[u8]) -> Vec<u8> {
        match self {
            Self::Shake128 => xof::<Shake128>(octets, 32),
            Self::Shake256 => xof::<Shake256>(octets, 64),
        }
    }
}

fn xof<H: Default + Update + ExtendableOutput>(octets: &[u8], length: usize) -> Vec<u8> {
    let mut hash = H::default();
    hash.update(octets);
    let mut out = vec![0u8; length];
    hash.finalize_xof_into(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 202: SHAKE of nothing.
    #[test]
    fn shake_gives_the_standards_octets() {
        let hex = |octets: Vec<u8>| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        assert_eq!(
            hex(ShakeDigest::Shake128.of(b"")),
            "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"
        );
        assert!(
            hex(ShakeDigest::Shake256.of(b""))
                .starts_with("46b9dd2b0ba88d13233b3feb743eeb243fcd52ea62b81b82b50c27646ed5762f")
        );
    }

    /// RFC 9882 section 3.3: the digest beside it has no part in the signature, and still may not be one that collides; parameters are
    /// absent; a scheme that names its digest stands beside no SHAKE.
    #[test]
    fn what_may_stand_beside_a_signature_that_names_no_digest() {
        use crate::cms::algorithm::{Digest, SignatureScheme, certificate_signature_der, signature_scheme};
        use crate::cms::ber::write;
        let schemes =
            MlDsa::ALL.map(SignatureScheme::MlDsa).into_iter().chain(SlhDsa::ALL.map(SignatureScheme::SlhDsa));
        for scheme in schemes {
            let der = certificate_signature_der(scheme);
            for digest in [Digest::Sha256, Digest::Sha384, Digest::Sha512] {
                assert_eq!(signature_scheme(&der, Some(digest)), Ok(scheme));
            }
            for digest in [Digest::Sha1, Digest::Sha224] {
                assert!(signature_scheme(&der, Some(digest)).is_err(), "{} with {}", scheme.name(), digest.name());
            }
            let oid = AlgorithmIdentifier::from_der(&der).unwrap().oid;
            let with_null = write::sequence(&[&write::oid(&oid), &[5, 0]]);
            assert!(signature_scheme(&with_null, None).is_err(), "{}", scheme.name());
        }
        let shake = write::sequence(&[&write::oid(&id("2.16.840.1.101.3.4.2.12"))]);
        assert!(ShakeDigest::from_der(&shake).is_some() && crate::cms::algorithm::digest_algorithm(&shake).is_err());
    }

    #[test]
    fn every_set_is_found_by_its_identifier() {
        for set in MlDsa::ALL {
            assert_eq!((MlDsa::from_oid(&set.oid()), SlhDsa::from_oid(&set.oid())), (Some(set), None));
        }
        for set in SlhDsa::ALL {
            assert_eq!((SlhDsa::from_oid(&set.oid()), MlKem::from_oid(&set.oid())), (Some(set), None));
        }
        for set in MlKem::ALL {
            assert_eq!((MlKem::from_oid(&set.oid()), MlDsa::from_oid(&set.oid())), (Some(set), None));
        }
    }
}

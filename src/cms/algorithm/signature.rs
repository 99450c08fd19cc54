//! Signature algorithms: RSA PKCS#1 v1.5 and PSS (RFC 4055, RFC 4056), ECDSA (RFC 5758), Ed25519 (RFC 8419), ML-DSA (RFC 9882), SLH-DSA
//! (RFC 9814).

use const_oid::ObjectIdentifier;

use super::digest::Digest;
use super::key::{ED25519, RSA_ENCRYPTION, RSASSA_PSS};
use super::mask::{hash_and_mask, hash_and_mask_der};
use super::post_quantum::{MlDsa, SlhDsa};
use super::{AlgorithmIdentifier, NULL, id};
use crate::cms::ber::{tag, write};
use crate::cms::error::CmsError;
use crate::pki::public_key::KeyKind;

/// How a signature is made and verified. RFC 8017, RFC 5754, RFC 5758, RFC 4056, RFC 8419.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    RsaPkcs1(Digest),
    /// Digest, MGF1 with the same digest, salt length in octets.
    RsaPss(Digest, usize),
    /// ECDSA over the signer's curve.
    Ecdsa(Digest),
    Ed25519,
    /// Pure mode, empty context.
    MlDsa(MlDsa),
    /// Pure mode, empty context; reading only.
    SlhDsa(SlhDsa),
}

impl SignatureScheme {
    /// The scheme a key of this kind signs with by default: RSA PKCS#1 v1.5 (or PSS) with SHA-256, ECDSA with the digest of
    /// the curve's size, Ed25519, ML-DSA. `None`: the key does not sign, or nothing is signed with it here.
    pub fn for_key(kind: KeyKind, pss: bool) -> Option<Self> {
        match kind {
            KeyKind::Rsa { .. } if pss => Some(Self::RsaPss(Digest::Sha256, 32)),
            KeyKind::Rsa { .. } => Some(Self::RsaPkcs1(Digest::Sha256)),
            KeyKind::P256 => Some(Self::Ecdsa(Digest::Sha256)),
            KeyKind::P384 => Some(Self::Ecdsa(Digest::Sha384)),
            KeyKind::P521 => Some(Self::Ecdsa(Digest::Sha512)),
            KeyKind::Ed25519 => Some(Self::Ed25519),
            KeyKind::MlDsa(set) => Some(Self::MlDsa(set)),
            KeyKind::X25519 | KeyKind::SlhDsa(_) | KeyKind::MlKem(_) => None,
        }
    }
    /// The digest that CMS's digestAlgorithm has to name beside it (Ed25519: SHA-512, RFC 8419 section 2.3), or names here (ML-DSA: SHA-512,
    /// which everybody must read, RFC 9882 section 3.3; SLH-DSA: of its own strength).
    pub fn digest(self) -> Digest {
        match self {
            Self::RsaPkcs1(digest) | Self::RsaPss(digest, _) | Self::Ecdsa(digest) => digest,
            Self::SlhDsa(set) if set.public_key_len() == 32 => Digest::Sha256,
            Self::Ed25519 | Self::MlDsa(_) | Self::SlhDsa(_) => Digest::Sha512,
        }
    }
    /// Whether digestAlgorithm may name `digest` beside it: the scheme's own; beside ML-DSA and SLH-DSA, which name none, any of SHA-2.
    pub fn goes_with(self, digest: Digest) -> bool {
        match self {
            Self::MlDsa(_) | Self::SlhDsa(_) => matches!(digest, Digest::Sha256 | Digest::Sha384 | Digest::Sha512),
            _ => digest == self.digest(),
        }
    }
    /// It signs the message itself, and no digest of it made before.
    pub fn signs_message(self) -> bool {
        matches!(self, Self::Ed25519 | Self::MlDsa(_) | Self::SlhDsa(_))
    }
    /// The name people know: "RSA PKCS#1 v1.5 with SHA-256".
    pub fn name(self) -> String {
        match self {
            Self::RsaPkcs1(digest) => format!("RSA PKCS#1 v1.5 with {}", digest.name()),
            Self::RsaPss(digest, _) => format!("RSA-PSS with {}", digest.name()),
            Self::Ecdsa(digest) => format!("ECDSA with {}", digest.name()),
            Self::Ed25519 => "Ed25519".to_owned(),
            Self::MlDsa(set) => set.name().to_owned(),
            Self::SlhDsa(set) => set.name().to_owned(),
        }
    }
}

const SHA1_WITH_RSA: ObjectIdentifier = id("1.2.840.113549.1.1.5");
const SHA224_WITH_RSA: ObjectIdentifier = id("1.2.840.113549.1.1.14");
pub(super) const SHA256_WITH_RSA: ObjectIdentifier = id("1.2.840.113549.1.1.11");
const SHA384_WITH_RSA: ObjectIdentifier = id("1.2.840.113549.1.1.12");
const SHA512_WITH_RSA: ObjectIdentifier = id("1.2.840.113549.1.1.13");
const ECDSA_SHA1: ObjectIdentifier = id("1.2.840.10045.4.1");
const ECDSA_SHA224: ObjectIdentifier = id("1.2.840.10045.4.3.1");
pub(super) const ECDSA_SHA256: ObjectIdentifier = id("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = id("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = id("1.2.840.10045.4.3.4");

/// Reads a signature scheme from an AlgorithmIdentifier's DER, with the digestAlgorithm beside it (CMS) or none (X.509).
/// The two must agree.
pub fn signature_scheme(algorithm_der: &[u8], digest: Option<Digest>) -> Result<SignatureScheme, CmsError> {
    let found = AlgorithmIdentifier::from_der(algorithm_der)?;
    let scheme = match found.oid {
        oid if oid == RSA_ENCRYPTION => {
            let digest = digest.ok_or_else(|| found.refused("names no digest"))?;
            found.null_or_absent()?;
            SignatureScheme::RsaPkcs1(digest)
        }
        oid if oid == RSASSA_PSS => pss(&found)?,
        oid if oid == ED25519 => {
            found.absent()?;
            SignatureScheme::Ed25519
        }
        oid => {
            if let Some(digest) = rsa_digest(oid) {
                // RFC 4055 section 5: NULL, and absent must be accepted.
                found.null_or_absent()?;
                SignatureScheme::RsaPkcs1(digest)
            } else if let Some(digest) = ecdsa_digest(oid) {
                found.absent()?;
                SignatureScheme::Ecdsa(digest)
            } else if let Some(scheme) = post_quantum(&oid) {
                found.absent()?;
                scheme
            } else {
                return Err(found.refused("not a signature algorithm known here"));
            }
        }
    };
    if digest.is_some_and(|digest| !scheme.goes_with(digest)) {
        return Err(found.refused("digestAlgorithm and signatureAlgorithm do not go together"));
    }
    Ok(scheme)
}

fn post_quantum(oid: &ObjectIdentifier) -> Option<SignatureScheme> {
    let ml_dsa = MlDsa::from_oid(oid).map(SignatureScheme::MlDsa);
    ml_dsa.or_else(|| SlhDsa::from_oid(oid).map(SignatureScheme::SlhDsa))
}

fn rsa_digest(oid: ObjectIdentifier) -> Option<Digest> {
    [
        (SHA1_WITH_RSA, Digest::Sha1),
        (SHA224_WITH_RSA, Digest::Sha224),
        (SHA256_WITH_RSA, Digest::Sha256),
        (SHA384_WITH_RSA, Digest::Sha384),
        (SHA512_WITH_RSA, Digest::Sha512),
    ]
    .into_iter()
    .find_map(|(known, digest)| (known == oid).then_some(digest))
}

fn ecdsa_digest(oid: ObjectIdentifier) -> Option<Digest> {
    [
        (ECDSA_SHA1, Digest::Sha1),
        (ECDSA_SHA224, Digest::Sha224),
        (ECDSA_SHA256, Digest::Sha256),
        (ECDSA_SHA384, Digest::Sha384),
        (ECDSA_SHA512, Digest::Sha512),
    ]
    .into_iter()
    .find_map(|(known, digest)| (known == oid).then_some(digest))
}

/// What a key named id-RSASSA-PSS is bound to (RFC 4055 sections 1.2 and 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PssKey {
    /// PSS with whatever parameters.
    Any,
    /// PSS with this digest, MGF1 of the same, and a salt of at least so many octets.
    With(Digest, usize),
}

impl PssKey {
    /// From the parameters of its AlgorithmIdentifier: absent, or RSASSA-PSS-params.
    pub fn of(found: &AlgorithmIdentifier<'_>) -> Result<Self, CmsError> {
        if found.parameters.is_none() {
            return Ok(Self::Any);
        }
        match pss(found)? {
            SignatureScheme::RsaPss(digest, salt) => Ok(Self::With(digest, salt)),
            _ => Err(found.refused("parameters must be RSASSA-PSS-params")),
        }
    }
    /// Whether it may make such signatures.
    pub fn allows(self, scheme: SignatureScheme) -> bool {
        match (self, scheme) {
            (Self::Any, SignatureScheme::RsaPss(..)) => true,
            (Self::With(digest, least), SignatureScheme::RsaPss(used, salt)) => used == digest && salt >= least,
            _ => false,
        }
    }
    /// How it signs, by this digest where the choice is free. `None`: it is bound to a digest or a salt that nothing is signed with here.
    pub fn signs_with(self, digest: Digest) -> Option<SignatureScheme> {
        let digest = match self {
            Self::Any => digest,
            Self::With(bound, _) => bound,
        };
        let scheme = SignatureScheme::RsaPss(digest, digest.output_len());
        (self.allows(scheme) && !matches!(digest, Digest::Sha1 | Digest::Sha224)).then_some(scheme)
    }
}

/// RSASSA-PSS-params (RFC 4055 section 3.1): present, MGF1 with the same digest, trailerField 1.
fn pss(found: &AlgorithmIdentifier<'_>) -> Result<SignatureScheme, CmsError> {
    let parameters = found.parameters.ok_or_else(|| found.refused("parameters must be present"))?;
    let (mut fields, hash, mask) = hash_and_mask(found, parameters)?;
    let salt = match fields.optional(tag::context(2))? {
        Some(field) => {
            let mut inner = field.reader();
            let salt = inner.small_integer("saltLength")?;
            inner.end("saltLength")?;
            salt
        }
        None => 20,
    };
    if let Some(field) = fields.optional(tag::context(3))? {
        let mut inner = field.reader();
        if inner.small_integer("trailerField")? != 1 {
            return Err(found.refused("trailerField must be 1"));
        }
        inner.end("trailerField")?;
    }
    fields.end("RSASSA-PSS-params")?;
    if mask != hash {
        return Err(found.refused("MGF1 with another digest than the signature's is not supported"));
    }
    // The encoded message of an 8192-bit key holds no longer salt.
    if salt > 1024 {
        return Err(found.refused("saltLength over 1024"));
    }
    let salt = usize::try_from(salt).map_err(|_| found.refused("saltLength over 1024"))?;
    Ok(SignatureScheme::RsaPss(hash, salt))
}

/// Writes a signature scheme as CMS's signatureAlgorithm: rsaEncryption for PKCS#1 v1.5 (RFC 3370 section 3.2), which every reader knows.
pub fn signature_scheme_der(scheme: SignatureScheme) -> Vec<u8> {
    match scheme {
        SignatureScheme::RsaPkcs1(_) => write::sequence(&[&write::oid(&RSA_ENCRYPTION), NULL]),
        other => certificate_signature_der(other),
    }
}

/// Writes a signature scheme as X.509's signatureAlgorithm, which names the digest (RFC 4055, RFC 5758, RFC 8410).
pub fn certificate_signature_der(scheme: SignatureScheme) -> Vec<u8> {
    match scheme {
        SignatureScheme::RsaPkcs1(digest) => {
            let oid = match digest {
                Digest::Sha1 => SHA1_WITH_RSA,
                Digest::Sha224 => SHA224_WITH_RSA,
                Digest::Sha256 => SHA256_WITH_RSA,
                Digest::Sha384 => SHA384_WITH_RSA,
                Digest::Sha512 => SHA512_WITH_RSA,
            };
            write::sequence(&[&write::oid(&oid), NULL])
        }
        SignatureScheme::RsaPss(digest, salt) => {
            let (hash, mask) = hash_and_mask_der(digest, digest);
            let salt = if salt == 20 {
                Vec::new()
            } else {
                write::element(tag::context(2), &[&write::integer(u32::try_from(salt).unwrap_or(u32::MAX))])
            };
            write::sequence(&[&write::oid(&RSASSA_PSS), &write::sequence(&[&hash, &mask, &salt])])
        }
        SignatureScheme::Ecdsa(digest) => {
            let oid = match digest {
                Digest::Sha1 => ECDSA_SHA1,
                Digest::Sha224 => ECDSA_SHA224,
                Digest::Sha256 => ECDSA_SHA256,
                Digest::Sha384 => ECDSA_SHA384,
                Digest::Sha512 => ECDSA_SHA512,
            };
            write::sequence(&[&write::oid(&oid)])
        }
        SignatureScheme::Ed25519 => write::sequence(&[&write::oid(&ED25519)]),
        SignatureScheme::MlDsa(set) => write::sequence(&[&write::oid(&set.oid())]),
        SignatureScheme::SlhDsa(set) => write::sequence(&[&write::oid(&set.oid())]),
    }
}

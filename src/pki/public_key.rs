//! A public key and what may be done with it.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::kem::EncapsulationKey;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512, OaepAlgorithm,
    OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPssSaltLength, VerificationAlgorithm};
use aws_lc_rs::{agreement, error::Unspecified};
use bytes::Bytes;
use const_oid::ObjectIdentifier;
use zeroize::Zeroizing;

use crate::cms::algorithm::{
    AlgorithmIdentifier, Digest, EC_PUBLIC_KEY, ED25519, KeyTransport, MlDsa, MlKem, PssKey, RSA_ENCRYPTION,
    RSASSA_PSS, SECP256R1, SECP384R1, SECP521R1, SignatureScheme, SlhDsa, X25519, name_of,
};
use crate::cms::ber::{Reader, slice, tag};
use crate::cms::error::CmsError;

/// ML-DSA, SLH-DSA and ML-KEM.
pub(crate) mod post_quantum;

/// Kinds of keys known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Modulus size in bits.
    Rsa {
        bits: usize,
    },
    P256,
    P384,
    P521,
    Ed25519,
    X25519,
    /// Signs (RFC 9881).
    MlDsa(MlDsa),
    /// Signs; verified here, not made (RFC 9909).
    SlhDsa(SlhDsa),
    /// Encapsulates (RFC 9935).
    MlKem(MlKem),
}

impl KeyKind {
    /// The name people know: "RSA-2048", "P-256".
    pub fn name(self) -> String {
        match self {
            Self::Rsa { bits } => format!("RSA-{bits}"),
            Self::P256 => "P-256".to_owned(),
            Self::P384 => "P-384".to_owned(),
            Self::P521 => "P-521".to_owned(),
            Self::Ed25519 => "Ed25519".to_owned(),
            Self::X25519 => "X25519".to_owned(),
            Self::MlDsa(set) => set.name().to_owned(),
            Self::SlhDsa(set) => set.name().to_owned(),
            Self::MlKem(set) => set.name().to_owned(),
        }
    }
    /// Takes part in a key agreement: one of NIST's curves, or X25519.
    pub fn agrees(self) -> bool {
        self.is_ec() || self == Self::X25519
    }
    /// An elliptic curve for ECDSA and ECDH.
    pub fn is_ec(self) -> bool {
        matches!(self, Self::P256 | Self::P384 | Self::P521)
    }
    /// ML-DSA, SLH-DSA or ML-KEM.
    pub fn is_post_quantum(self) -> bool {
        matches!(self, Self::MlDsa(_) | Self::SlhDsa(_) | Self::MlKem(_))
    }
}

/// A SubjectPublicKeyInfo, checked (A11: RSA 1024-8192 bits, e odd and <= 2^32; under 2048 bits it `is_weak`, which the caller
/// has to judge, and nothing is ever encrypted to it). Cheap to clone; what the primitives need is decoded once, when first used.
#[derive(Clone)]
pub struct PublicKey {
    inner: Arc<Inner>,
}

struct Inner {
    spki: Bytes,
    kind: KeyKind,
    /// The subjectPublicKey bits.
    bits: Bytes,
    /// id-RSASSA-PSS: for PSS signatures only (RFC 4055 section 1.2).
    pss_only: Option<PssKey>,
    verifiers: [OnceLock<Option<ParsedPublicKey>>; VERIFIERS],
    transport: OnceLock<Option<Transport>>,
    encapsulation: OnceLock<Option<EncapsulationKey>>,
}

struct Transport {
    pkcs1: Pkcs1PublicEncryptingKey,
    oaep: OaepPublicEncryptingKey,
}

/// Places in the cache of decoded verifiers: v1.5 and ECDSA by digest, then PSS by digest, then Ed25519 or ML-DSA.
const VERIFIERS: usize = 2 * PSS + 1;
const PSS: usize = Digest::Sha512 as usize + 1;

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.inner.kind.name())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.inner.spki == other.inner.spki
    }
}
impl Eq for PublicKey {}

fn refused(why: impl Into<String>) -> CmsError {
    CmsError::Algorithm(why.into())
}

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo.
    pub fn from_spki(der: Bytes) -> Result<Self, CmsError> {
        let mut outer = Reader::der(&der);
        let mut fields = outer.expect(tag::SEQUENCE, "SubjectPublicKeyInfo")?.reader();
        outer.end("SubjectPublicKeyInfo")?;
        let algorithm = AlgorithmIdentifier::from_der(fields.expect(tag::SEQUENCE, "AlgorithmIdentifier")?.raw)?;
        let bits = fields.expect(tag::BIT_STRING, "subjectPublicKey")?.bit_string("subjectPublicKey")?;
        fields.end("SubjectPublicKeyInfo")?;
        let mut pss_only = None;
        let kind = match algorithm.oid {
            oid if oid == RSA_ENCRYPTION => rsa_kind(bits)?,
            oid if oid == RSASSA_PSS => {
                pss_only = Some(PssKey::of(&algorithm)?);
                rsa_kind(bits)?
            }
            oid if oid == EC_PUBLIC_KEY => ec_kind(&algorithm)?,
            oid if oid == ED25519 => raw_kind(KeyKind::Ed25519, bits)?,
            oid if oid == X25519 => raw_kind(KeyKind::X25519, bits)?,
            oid => post_quantum_kind(&algorithm, bits)?
                .ok_or_else(|| refused(format!("public key of a kind not known here: {}", name_of(&oid))))?,
        };
        if kind.is_ec() {
            check_point(kind, bits)?;
        }
        let bits = slice(&der, bits);
        let inner = Inner {
            spki: der,
            kind,
            bits,
            pss_only,
            verifiers: Default::default(),
            transport: OnceLock::new(),
            encapsulation: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
    /// What kind it is.
    pub fn kind(&self) -> KeyKind {
        self.inner.kind
    }
    /// What it is bound to where it is an RSA key for PSS alone (id-RSASSA-PSS): nothing is encrypted to it.
    pub fn pss_only(&self) -> Option<PssKey> {
        self.inner.pss_only
    }
    /// RSA under 2048 bits: to be used for verifying old signatures only, by the legacy switch.
    pub fn is_weak(&self) -> bool {
        matches!(self.inner.kind, KeyKind::Rsa { bits } if bits < 2048)
    }
    /// The SubjectPublicKeyInfo as given.
    pub fn spki(&self) -> &Bytes {
        &self.inner.spki
    }
    /// The subjectPublicKey bits (RSAPublicKey DER, EC point).
    pub fn key_bits(&self) -> &[u8] {
        &self.inner.bits
    }
    /// Verifies a signature over `message` (hashed here). Says `Unauthentic` where it does not fit, `Algorithm` where this key
    /// cannot make such signatures.
    pub fn verify(&self, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> Result<(), CmsError> {
        if let SignatureScheme::SlhDsa(set) = scheme
            && self.inner.kind == KeyKind::SlhDsa(set)
        {
            let verifies = post_quantum::verifies(set, &self.inner.bits, message, signature);
            return if verifies { Ok(()) } else { Err(CmsError::Unauthentic("the signature")) };
        }
        let result = self.with_verifier(scheme, |verifier| match verifier {
            Verifier::Cached(key) => key.verify_sig(message, signature),
            Verifier::Once(parameters, bits) => parameters.verify_sig(bits, message, signature),
        })?;
        result.map_err(|Unspecified| CmsError::Unauthentic("the signature"))
    }
    /// The same over a digest computed before. Not for schemes that sign the message itself (`signs_message`).
    pub fn verify_digest(&self, scheme: SignatureScheme, digest: &[u8], signature: &[u8]) -> Result<(), CmsError> {
        if scheme.signs_message() {
            return Err(refused(format!("{} signs a message, not a digest", scheme.name())));
        }
        let digest = aws_lc_rs::digest::Digest::import_less_safe(digest, scheme.digest().algorithm())
            .map_err(|_| CmsError::Crypto)?;
        let result = self.with_verifier(scheme, |verifier| match verifier {
            Verifier::Cached(key) => key.verify_digest_sig(&digest, signature),
            Verifier::Once(parameters, bits) => parameters.verify_digest_sig(bits, &digest, signature),
        })?;
        result.map_err(|Unspecified| CmsError::Unauthentic("the signature"))
    }
    /// Encrypts a CEK to an RSA key of at least 2048 bits.
    pub fn transport(&self, how: KeyTransport, cek: &[u8]) -> Result<Vec<u8>, CmsError> {
        if !matches!(self.inner.kind, KeyKind::Rsa { .. }) || self.inner.pss_only.is_some() {
            return Err(refused(format!(
                "{} is no key to transport a content-encryption key to",
                self.inner.kind.name()
            )));
        }
        if self.is_weak() {
            return Err(refused(format!(
                "{}: an RSA key of at least 2048 bits is needed to encrypt to",
                self.inner.kind.name()
            )));
        }
        let key =
            self.inner.transport.get_or_init(|| transport_key(&self.inner.spki)).as_ref().ok_or(CmsError::Crypto)?;
        let mut encrypted = vec![0u8; key.pkcs1.ciphertext_size()];
        let length = match how {
            KeyTransport::RsaPkcs1 => key.pkcs1.encrypt(cek, &mut encrypted).map_err(|_| CmsError::Crypto)?.len(),
            KeyTransport::RsaOaep(hash, mask) => {
                let algorithm = oaep_algorithm(hash, mask).ok_or_else(|| refused("OAEP with two different digests"))?;
                key.oaep.encrypt(algorithm, cek, &mut encrypted, None).map_err(|_| CmsError::Crypto)?.len()
            }
        };
        encrypted.truncate(length);
        Ok(encrypted)
    }
    /// Encapsulates to an ML-KEM key (FIPS 203 section 7.2): the ciphertext and the shared secret of 32 octets.
    pub fn encapsulate(&self) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), CmsError> {
        let KeyKind::MlKem(set) = self.inner.kind else {
            return Err(refused(format!("{} is no key to encapsulate to", self.inner.kind.name())));
        };
        let decode = || EncapsulationKey::new(post_quantum::kem_algorithm(set), &self.inner.bits).ok();
        let key = self.inner.encapsulation.get_or_init(decode).as_ref().ok_or(CmsError::Crypto)?;
        post_quantum::encapsulate(key)
    }
    /// Ephemeral-static ECDH to this key (RFC 5753 section 3.1, RFC 8418 section 2): the ephemeral public point (uncompressed) or X25519
    /// public key, and the shared secret. A shared secret of zeroes alone is an error.
    pub fn agree_ephemeral(&self) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), CmsError> {
        let curve = agreement_curve(self.inner.kind)
            .ok_or_else(|| refused(format!("{} is no key for ECDH with CMS", self.inner.kind.name())))?;
        let ephemeral = agreement::PrivateKey::generate(curve).map_err(|_| CmsError::Crypto)?;
        let point = ephemeral.compute_public_key().map_err(|_| CmsError::Crypto)?;
        let theirs = agreement::UnparsedPublicKey::new(curve, &self.inner.bits);
        let secret =
            agreement::agree(&ephemeral, theirs, CmsError::Crypto, |secret| Ok(Zeroizing::new(secret.to_vec())))?;
        Ok((point.as_ref().to_vec(), secret))
    }

    /// Gives the verifier for a scheme, decoded once for the common ones.
    fn with_verifier<T>(&self, scheme: SignatureScheme, with: impl FnOnce(Verifier<'_>) -> T) -> Result<T, CmsError> {
        let unfit = || refused(format!("{} does not fit a key of kind {}", scheme.name(), self.inner.kind.name()));
        if self.inner.pss_only.is_some_and(|key| !key.allows(scheme)) {
            return Err(unfit());
        }
        let (place, algorithm): (usize, &'static dyn VerificationAlgorithm) = match scheme {
            SignatureScheme::RsaPss(digest, salt) if matches!(self.inner.kind, KeyKind::Rsa { .. }) => {
                let parameters = pss_parameters(digest).ok_or_else(unfit)?;
                if salt != digest.output_len() {
                    let salt = RsaPssSaltLength::Custom(u16::try_from(salt).map_err(|_| unfit())?);
                    let parameters = pss_custom(digest, salt).ok_or_else(unfit)?;
                    return Ok(with(Verifier::Once(&parameters, &self.inner.bits)));
                }
                (PSS + digest as usize, parameters)
            }
            SignatureScheme::RsaPkcs1(digest) if matches!(self.inner.kind, KeyKind::Rsa { .. }) => {
                (digest as usize, pkcs1_parameters(digest, self.is_weak()).ok_or_else(unfit)?)
            }
            SignatureScheme::Ecdsa(digest) => {
                (digest as usize, ecdsa_algorithm(self.inner.kind, digest).ok_or_else(unfit)?)
            }
            SignatureScheme::Ed25519 if self.inner.kind == KeyKind::Ed25519 => (2 * PSS, &signature::ED25519),
            SignatureScheme::MlDsa(set) if self.inner.kind == KeyKind::MlDsa(set) => {
                (2 * PSS, post_quantum::ml_dsa_algorithm(set))
            }
            _ => return Err(unfit()),
        };
        let cached = self.inner.verifiers.get(place).ok_or(CmsError::Crypto)?;
        let key = cached.get_or_init(|| ParsedPublicKey::new(algorithm, &self.inner.bits).ok()).as_ref();
        Ok(with(Verifier::Cached(key.ok_or(CmsError::Crypto)?)))
    }
}

enum Verifier<'a> {
    Cached(&'a ParsedPublicKey),
    Once(&'a RsaParameters, &'a [u8]),
}

/// A11: RSAPublicKey of 1024-8192 bits with e odd, at least 3, at most 2^32.
fn rsa_kind(bits: &[u8]) -> Result<KeyKind, CmsError> {
    let mut outer = Reader::der(bits);
    let mut fields = outer.expect(tag::SEQUENCE, "RSAPublicKey")?.reader();
    outer.end("RSAPublicKey")?;
    let modulus = fields.expect(tag::INTEGER, "RSA modulus")?.content;
    let exponent = fields.expect(tag::INTEGER, "RSA exponent")?.small_integer("RSA exponent")?;
    fields.end("RSAPublicKey")?;
    let significant = match modulus {
        [0, second, ..] if second & 0x80 == 0 => return Err(refused("RSA modulus not in its shortest form")),
        [0, rest @ ..] => rest,
        [first, ..] if first & 0x80 != 0 => return Err(refused("negative RSA modulus")),
        whole => whole,
    };
    let leading = significant.first().map_or(0, |first| first.leading_zeros());
    let size = (significant.len() * 8).saturating_sub(usize::try_from(leading).unwrap_or(0));
    if !(1024..=8192).contains(&size) {
        return Err(refused(format!("RSA modulus of {size} bits, 1024 to 8192 are taken")));
    }
    if significant.last().is_none_or(|last| last & 1 == 0) {
        return Err(refused("RSA modulus is even"));
    }
    if exponent < 3 || exponent & 1 == 0 {
        return Err(refused("RSA public exponent must be odd and at least 3"));
    }
    Ok(KeyKind::Rsa { bits: size })
}

fn ec_kind(algorithm: &AlgorithmIdentifier<'_>) -> Result<KeyKind, CmsError> {
    let named = algorithm.parameters.ok_or_else(|| refused("an EC key without a named curve"))?;
    let curve = Reader::der(named).oid("namedCurve").map_err(|_| refused("an EC key without a named curve"))?;
    kind_of_curve(&curve).ok_or_else(|| refused(format!("an EC key on a curve not known here: {}", name_of(&curve))))
}

fn kind_of_curve(curve: &ObjectIdentifier) -> Option<KeyKind> {
    [(SECP256R1, KeyKind::P256), (SECP384R1, KeyKind::P384), (SECP521R1, KeyKind::P521)]
        .into_iter()
        .find_map(|(known, kind)| (known == *curve).then_some(kind))
}

fn raw_kind(kind: KeyKind, bits: &[u8]) -> Result<KeyKind, CmsError> {
    if bits.len() == 32 {
        Ok(kind)
    } else {
        Err(refused(format!("{} key of {} octets, 32 are expected", kind.name(), bits.len())))
    }
}

/// ML-DSA, SLH-DSA or ML-KEM: parameters absent, the length the set's, an encapsulation key reduced. `None`: another kind.
fn post_quantum_kind(algorithm: &AlgorithmIdentifier<'_>, bits: &[u8]) -> Result<Option<KeyKind>, CmsError> {
    let oid = &algorithm.oid;
    let (kind, expected) = if let Some(set) = MlDsa::from_oid(oid) {
        (KeyKind::MlDsa(set), set.public_key_len())
    } else if let Some(set) = SlhDsa::from_oid(oid) {
        (KeyKind::SlhDsa(set), set.public_key_len())
    } else if let Some(set) = MlKem::from_oid(oid) {
        (KeyKind::MlKem(set), set.public_key_len())
    } else {
        return Ok(None);
    };
    if algorithm.parameters.is_some() {
        return Err(refused(format!("{}: parameters must be absent", kind.name())));
    }
    if bits.len() != expected {
        return Err(refused(format!("{} key of {} octets, {expected} are expected", kind.name(), bits.len())));
    }
    match kind {
        KeyKind::MlKem(set) if !post_quantum::is_encapsulation_key(set, bits) => {
            Err(refused(format!("{} key with a coefficient that is not reduced (FIPS 203 section 7.2)", kind.name())))
        }
        _ => Ok(Some(kind)),
    }
}

/// The point is on its curve, and in a form that X.509 knows (RFC 5480 section 2.2: uncompressed or compressed).
fn check_point(kind: KeyKind, bits: &[u8]) -> Result<(), CmsError> {
    let known_form = matches!(bits.first(), Some(2..=4));
    let curve = agreement_curve(kind).ok_or(CmsError::Crypto)?;
    let on_curve = agreement::ParsedPublicKey::try_from(agreement::UnparsedPublicKey::new(curve, bits));
    if known_form && on_curve.is_ok_and(|key| key.alg() == curve) {
        Ok(())
    } else {
        Err(refused(format!("not a point on {}", kind.name())))
    }
}

/// The ECDH of a curve, or X25519.
pub(crate) fn agreement_curve(kind: KeyKind) -> Option<&'static agreement::Algorithm> {
    match kind {
        KeyKind::P256 => Some(&agreement::ECDH_P256),
        KeyKind::P384 => Some(&agreement::ECDH_P384),
        KeyKind::P521 => Some(&agreement::ECDH_P521),
        KeyKind::X25519 => Some(&agreement::X25519),
        _ => None,
    }
}

fn pkcs1_parameters(digest: Digest, weak: bool) -> Option<&'static RsaParameters> {
    match (digest, weak) {
        (Digest::Sha1, _) => Some(&signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
        (Digest::Sha224, _) => None,
        (Digest::Sha256, true) => Some(&signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
        (Digest::Sha256, false) => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        (Digest::Sha384, true) => None,
        (Digest::Sha384, false) => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        (Digest::Sha512, true) => Some(&signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
        (Digest::Sha512, false) => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
    }
}

fn pss_parameters(digest: Digest) -> Option<&'static RsaParameters> {
    match digest {
        Digest::Sha1 | Digest::Sha224 => None,
        Digest::Sha256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Digest::Sha384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Digest::Sha512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
    }
}

fn pss_custom(digest: Digest, salt: RsaPssSaltLength) -> Option<RsaParameters> {
    let parameters = match digest {
        Digest::Sha1 | Digest::Sha224 => return None,
        Digest::Sha256 => signature::RSA_PSS_2048_8192_SHA256,
        Digest::Sha384 => signature::RSA_PSS_2048_8192_SHA384,
        Digest::Sha512 => signature::RSA_PSS_2048_8192_SHA512,
    };
    Some(parameters.with_pss_salt_length(salt))
}

fn ecdsa_algorithm(kind: KeyKind, digest: Digest) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (kind, digest) {
        (KeyKind::P256, Digest::Sha1) => &signature::ECDSA_P256_SHA1_ASN1,
        (KeyKind::P256, Digest::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (KeyKind::P256, Digest::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (KeyKind::P256, Digest::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (KeyKind::P384, Digest::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (KeyKind::P384, Digest::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (KeyKind::P384, Digest::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (KeyKind::P521, Digest::Sha1) => &signature::ECDSA_P521_SHA1_ASN1,
        (KeyKind::P521, Digest::Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
        (KeyKind::P521, Digest::Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
        (KeyKind::P521, Digest::Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

/// OAEP as aws-lc-rs has it: MGF1 with the same digest.
pub(crate) fn oaep_algorithm(hash: Digest, mask: Digest) -> Option<&'static OaepAlgorithm> {
    match (hash, mask) {
        (Digest::Sha1, Digest::Sha1) => Some(&OAEP_SHA1_MGF1SHA1),
        (Digest::Sha256, Digest::Sha256) => Some(&OAEP_SHA256_MGF1SHA256),
        (Digest::Sha384, Digest::Sha384) => Some(&OAEP_SHA384_MGF1SHA384),
        (Digest::Sha512, Digest::Sha512) => Some(&OAEP_SHA512_MGF1SHA512),
        _ => None,
    }
}

fn transport_key(spki: &[u8]) -> Option<Transport> {
    let key = PublicEncryptingKey::from_der(spki).ok()?;
    Some(Transport {
        pkcs1: Pkcs1PublicEncryptingKey::new(key.clone()).ok()?,
        oaep: OaepPublicEncryptingKey::new(key).ok()?,
    })
}

/// Reads a SubjectPublicKeyInfo as a fuzzer gives it: what is taken has bounds that hold, and reads the same again.
#[doc(hidden)]
pub fn fuzz_public_key(data: &[u8]) {
    if let Ok(key) = PublicKey::from_spki(Bytes::copy_from_slice(data)) {
        assert_eq!(key.spki().as_ref(), data);
        if let KeyKind::Rsa { bits } = key.kind() {
            assert!((1024..=8192).contains(&bits));
        }
        let _ = key.verify(SignatureScheme::RsaPkcs1(Digest::Sha256), b"message", &[0u8; 256]);
        let _ = key.verify(SignatureScheme::Ecdsa(Digest::Sha256), b"message", &[0x30, 6, 2, 1, 1, 2, 1, 1]);
        if let KeyKind::MlDsa(set) = key.kind() {
            assert!(key.verify(SignatureScheme::MlDsa(set), b"message", &[0u8; 2420]).is_err());
        }
        assert_eq!(key.encapsulate().is_ok(), matches!(key.kind(), KeyKind::MlKem(_)));
        let again = PublicKey::from_spki(key.spki().clone());
        assert!(again.is_ok_and(|again| again == key && again.kind() == key.kind()));
    }
}

#[cfg(test)]
mod tests;

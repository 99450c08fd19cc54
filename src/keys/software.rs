//! Private keys in this process's memory.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, PqdsaKeyPair, RsaEncoding,
};
use aws_lc_rs::{agreement, rand};
use bytes::Bytes;
use const_oid::ObjectIdentifier;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use super::{Cek, KeyAnswer, KeyError, KeyHolder, KeyId, KeyOperation, Submission, post_quantum, wrap};
use crate::cms::algorithm::{
    AlgorithmIdentifier, ContentEncryption, Digest, EC_PUBLIC_KEY, ED25519, KeyAgreement, KeyEncapsulation,
    KeyTransport, MlDsa, MlKem, RSA_ENCRYPTION, RSASSA_PSS, SECP256R1, SECP384R1, SECP521R1, SignatureScheme, X25519,
    name_of,
};
use crate::cms::ber::{Reader, tag, write};
use crate::pki::public_key::{KeyKind, PublicKey, agreement_curve, oaep_algorithm};

/// Draws the first random octets: the generator's start costs some 40 ms, which no message should pay. Say it once at start.
pub fn warm_up() -> Result<(), KeyError> {
    rand::fill(&mut [0u8; 32]).map_err(|_| KeyError::Unavailable("the random generator failed".to_owned()))
}

/// A fresh content-encryption key for this cipher.
pub fn new_cek(content: ContentEncryption) -> Result<Cek, KeyError> {
    let mut cek = Zeroizing::new(vec![0u8; content.key_len()]);
    rand::fill(&mut cek).map_err(|_| KeyError::Unavailable("the random generator failed".to_owned()))?;
    Ok(cek)
}

/// A private key in this process's memory, decoded once (loading an RSA key costs 0.17 ms), wiped when dropped. Cheap to clone.
#[derive(Clone)]
pub struct SoftwareKey {
    inner: Arc<Inner>,
}

struct Inner {
    id: KeyId,
    public: PublicKey,
    secret: Secret,
}

enum Secret {
    Rsa { sign: rsa::KeyPair, pkcs1: Pkcs1PrivateDecryptingKey, oaep: OaepPrivateDecryptingKey },
    Ec { sign: EcdsaKeyPair, agree: agreement::PrivateKey },
    Ed25519(Ed25519KeyPair),
    X25519(agreement::PrivateKey),
    MlDsa(Box<PqdsaKeyPair>, MlDsa),
    MlKem(DecapsulationKey, MlKem),
}

impl std::fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftwareKey({})", self.inner.public.kind().name())
    }
}

impl SoftwareKey {
    /// Reads a PKCS#8 PrivateKeyInfo (DER): RSA of 2048 to 8192 bits (for PSS alone too), P-256, P-384, P-521, Ed25519, X25519, ML-DSA and ML-KEM (seed,
    /// expanded key or both). `Rejected` says what was found and what is taken.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let unreadable = |_| KeyError::Rejected("the key is not a PKCS#8 PrivateKeyInfo (DER)".to_owned());
        let (algorithm, curve) = private_key_algorithm(der).map_err(unreadable)?;
        let (secret, spki) = match algorithm {
            oid if oid == RSA_ENCRYPTION => rsa_secret(der)?,
            oid if oid == RSASSA_PSS => pss_secret(der)?,
            oid if oid == EC_PUBLIC_KEY => ec_secret(der, curve)?,
            oid if oid == ED25519 => ed25519_secret(der)?,
            oid if oid == X25519 => x25519_secret(der)?,
            oid => post_quantum_secret(der, &oid)?.ok_or_else(|| {
                KeyError::Rejected(format!(
                    "a key of kind {} is not supported: RSA, P-256, P-384, P-521, Ed25519, X25519, ML-DSA or ML-KEM is needed",
                    name_of(&oid)
                ))
            })?,
        };
        let public = PublicKey::from_spki(Bytes::from(spki))
            .map_err(|error| KeyError::Rejected(format!("the key is not fit for use: {error}")))?;
        Ok(Self { inner: Arc::new(Inner { id: KeyId::of_spki(public.spki()), public, secret }) })
    }
    /// Its name.
    pub fn id(&self) -> KeyId {
        self.inner.id
    }
    /// Its SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        self.inner.public.spki()
    }
    /// Its public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.inner.public
    }
    /// Does the operation here and now. `Unknown` where the operation names another key.
    pub fn perform(&self, operation: &KeyOperation) -> Result<KeyAnswer, KeyError> {
        match operation {
            KeyOperation::Sign { key, scheme, message } => {
                self.is_meant(*key)?;
                self.sign(*scheme, message).map(KeyAnswer::Signature)
            }
            KeyOperation::Unwrap { key, transport, encrypted, content, substitute } => {
                self.is_meant(*key)?;
                self.unwrap(*transport, encrypted, *content, substitute).map(KeyAnswer::Cek)
            }
            KeyOperation::Agree { key, agreement, originator, ukm, shared_info, wrapped, content, substitute } => {
                self.is_meant(*key)?;
                let candidate = self.agree(*agreement, originator, ukm.as_deref(), shared_info, wrapped)?;
                Ok(KeyAnswer::Cek(choose(
                    candidate.as_deref(),
                    candidate.as_deref().map_or(0, Vec::len),
                    *content,
                    substitute,
                )?))
            }
            KeyOperation::Decapsulate { key, encapsulation, ciphertext, info, wrapped, content, substitute } => {
                self.is_meant(*key)?;
                let candidate = self.decapsulate(*encapsulation, ciphertext, info, wrapped)?;
                let length = candidate.as_deref().map_or(0, Vec::len);
                choose(candidate.as_deref(), length, *content, substitute).map(KeyAnswer::Cek)
            }
        }
    }

    fn is_meant(&self, key: KeyId) -> Result<(), KeyError> {
        if key == self.inner.id { Ok(()) } else { Err(KeyError::Unknown) }
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Unavailable("the signature operation failed".to_owned());
        let unsuitable = KeyError::Unsuitable(
            "this key does not sign so: RSA signs with SHA-2, EC keys with the digest of their curve's size",
        );
        match (&self.inner.secret, scheme) {
            (Secret::Rsa { sign, .. }, SignatureScheme::RsaPkcs1(_) | SignatureScheme::RsaPss(..))
                if self.inner.public.pss_only().is_none_or(|key| key.allows(scheme)) =>
            {
                let mut out = vec![0u8; sign.public_modulus_len()];
                sign.sign(rsa_encoding(scheme).ok_or(unsuitable)?, &SystemRandom::new(), message, &mut out)
                    .map_err(failed)?;
                Ok(out)
            }
            (Secret::Ec { sign, .. }, SignatureScheme::Ecdsa(digest))
                if SignatureScheme::for_key(self.inner.public.kind(), false)
                    == Some(SignatureScheme::Ecdsa(digest)) =>
            {
                Ok(sign.sign(&SystemRandom::new(), message).map_err(failed)?.as_ref().to_vec())
            }
            (Secret::Ed25519(sign), SignatureScheme::Ed25519) => {
                Ok(sign.try_sign(message).map_err(failed)?.as_ref().to_vec())
            }
            (Secret::MlDsa(sign, set), SignatureScheme::MlDsa(asked)) if *set == asked => {
                let mut out = vec![0u8; sign.algorithm().signature_len()];
                let length = sign.sign(message, &mut out).map_err(failed)?;
                out.truncate(length);
                Ok(out)
            }
            _ => Err(unsuitable),
        }
    }

    /// A3: whatever is wrong with `encrypted`, the answer is a CEK of the right length, and the way to it is the same: one
    /// private operation, a comparison of lengths, a selection by mask. What remains visible is how long aws-lc-rs takes to
    /// report an error instead of a length (some hundred nanoseconds around an operation of 300 us); it decides on
    /// the padding without branches.
    fn unwrap(
        &self,
        transport: KeyTransport,
        encrypted: &[u8],
        content: ContentEncryption,
        substitute: &Cek,
    ) -> Result<Cek, KeyError> {
        let Secret::Rsa { pkcs1, oaep, .. } = &self.inner.secret else {
            return Err(KeyError::Unsuitable("key transport needs an RSA key"));
        };
        if self.inner.public.pss_only().is_some() {
            return Err(KeyError::Unsuitable("an RSA key for PSS alone transports no key"));
        }
        let mut buffer = Zeroizing::new(vec![0u8; pkcs1.min_output_size()]);
        let length = match transport {
            KeyTransport::RsaPkcs1 => pkcs1.decrypt(encrypted, &mut buffer),
            KeyTransport::RsaOaep(hash, mask) => {
                let algorithm =
                    oaep_algorithm(hash, mask).ok_or(KeyError::Unsuitable("OAEP with two different digests"))?;
                oaep.decrypt(algorithm, encrypted, &mut buffer, None)
            }
        }
        .map_or(0, |plain| plain.len());
        choose(Some(&buffer), length, content, substitute)
    }

    /// The unwrapped key, or `None` whatever was wrong.
    fn agree(
        &self,
        how: KeyAgreement,
        originator: &[u8],
        ukm: Option<&[u8]>,
        shared_info: &[u8],
        wrapped: &[u8],
    ) -> Result<Option<Cek>, KeyError> {
        // A SubjectPublicKeyInfo would be taken too; only the key's own forms are meant.
        let (agree, known_form) = match &self.inner.secret {
            Secret::Ec { agree, .. } => (agree, matches!(originator.first(), Some(2..=4))),
            Secret::X25519(agree) => (agree, originator.len() == 32),
            _ => return Err(KeyError::Unsuitable("key agreement needs an EC or X25519 key")),
        };
        if !known_form {
            return Ok(None);
        }
        let point = agreement::UnparsedPublicKey::new(agree.algorithm(), originator);
        let derive = |secret: &[u8]| wrap::derive(how, secret, ukm, shared_info).map_err(drop);
        let kek = agreement::agree(agree, point, (), derive);
        Ok(kek.ok().and_then(|kek| wrap::unwrap(how.wrap, &kek, wrapped).ok()))
    }
}

impl SoftwareKey {
    /// The unwrapped key, or `None` whatever was wrong. Decapsulation itself rejects implicitly: in constant time, with a secret that
    /// nobody knows, so that the wrap does not open.
    fn decapsulate(
        &self,
        how: KeyEncapsulation,
        ciphertext: &[u8],
        info: &[u8],
        wrapped: &[u8],
    ) -> Result<Option<Cek>, KeyError> {
        let Secret::MlKem(key, set) = &self.inner.secret else {
            return Err(KeyError::Unsuitable("decapsulation needs an ML-KEM key"));
        };
        if how.kem != *set {
            return Err(KeyError::Unsuitable("this ML-KEM key has another parameter set"));
        }
        let secret = key.decapsulate(Ciphertext::from(ciphertext)).ok();
        let kek = secret.and_then(|secret| wrap::hkdf(how.kdf, secret.as_ref(), None, info, how.wrap.key_len()).ok());
        Ok(kek.and_then(|kek| wrap::unwrap(how.wrap, &kek, wrapped).ok()))
    }
}

/// The candidate where its length is the cipher's, else the substitute; selected without a branch on it.
fn choose(
    candidate: Option<&Vec<u8>>,
    length: usize,
    content: ContentEncryption,
    substitute: &Cek,
) -> Result<Cek, KeyError> {
    let expected = content.key_len();
    if substitute.len() < expected {
        return Err(KeyError::Unsuitable("the substitute is shorter than the cipher's key"));
    }
    let fits: Choice = (length as u64).ct_eq(&(expected as u64));
    let empty = Vec::new();
    let octets = candidate.unwrap_or(&empty).iter().copied().chain(std::iter::repeat(0));
    let chosen = substitute
        .iter()
        .take(expected)
        .zip(octets)
        .map(|(substitute, octet)| u8::conditional_select(substitute, &octet, fits));
    let mut cek = Zeroizing::new(Vec::with_capacity(expected));
    cek.extend(chosen);
    Ok(cek)
}

/// The algorithm of a PrivateKeyInfo, and the named curve in its parameters.
fn private_key_algorithm(
    der: &[u8],
) -> Result<(ObjectIdentifier, Option<ObjectIdentifier>), crate::cms::error::CmsError> {
    let mut fields = Reader::der(der).expect(tag::SEQUENCE, "PrivateKeyInfo")?.reader();
    fields.small_integer("version")?;
    let algorithm = AlgorithmIdentifier::from_der(fields.expect(tag::SEQUENCE, "privateKeyAlgorithm")?.raw)?;
    let curve = algorithm.parameters.and_then(|parameters| Reader::der(parameters).oid("namedCurve").ok());
    Ok((algorithm.oid, curve))
}

fn rsa_secret(der: &[u8]) -> Result<(Secret, Vec<u8>), KeyError> {
    let bits = rsa_bits(der).ok_or_else(|| KeyError::Rejected("the RSA key cannot be read".to_owned()))?;
    if bits < 2048 {
        return Err(KeyError::Rejected(format!(
            "an RSA key of {bits} bits is too short: at least 2048 bits are needed; have a new key made"
        )));
    }
    let refused = |error: aws_lc_rs::error::KeyRejected| {
        KeyError::Rejected(format!("the RSA key of {bits} bits is not usable: {error}"))
    };
    let failed = |_| KeyError::Unavailable("the RSA key cannot be prepared".to_owned());
    let sign = rsa::KeyPair::from_pkcs8(der).map_err(refused)?;
    let decrypt = PrivateDecryptingKey::from_pkcs8(der).map_err(refused)?;
    let spki = sign.public_key().as_der().map_err(failed)?.as_ref().to_vec();
    let pkcs1 = Pkcs1PrivateDecryptingKey::new(decrypt.clone()).map_err(failed)?;
    let oaep = OaepPrivateDecryptingKey::new(decrypt).map_err(failed)?;
    Ok((Secret::Rsa { sign, pkcs1, oaep }, spki))
}

/// A key named id-RSASSA-PSS (RFC 4055 section 1.2): an RSA key whose name, and what it is bound to, stand in its SubjectPublicKeyInfo.
fn pss_secret(der: &[u8]) -> Result<(Secret, Vec<u8>), KeyError> {
    let unreadable = |_| KeyError::Rejected("the RSA key for PSS cannot be read".to_owned());
    let parts = || -> Result<_, crate::cms::error::CmsError> {
        let mut fields = Reader::der(der).expect(tag::SEQUENCE, "PrivateKeyInfo")?.reader();
        fields.small_integer("version")?;
        let name = fields.expect(tag::SEQUENCE, "privateKeyAlgorithm")?.raw;
        Ok((name, fields.expect(tag::OCTET_STRING, "privateKey")?.content))
    };
    let (name, key) = parts().map_err(unreadable)?;
    let plain = write::sequence(&[&write::oid(&RSA_ENCRYPTION), &[tag::NULL, 0]]);
    let key = Zeroizing::new(write::octet_string(key));
    let pkcs8 = Zeroizing::new(write::sequence(&[&write::integer(0), &plain, &key]));
    let (secret, spki) = rsa_secret(&pkcs8)?;
    let public = PublicKey::from_spki(Bytes::from(spki))
        .map_err(|error| KeyError::Rejected(format!("the RSA key is not fit for use: {error}")))?;
    Ok((secret, write::sequence(&[name, &write::bit_string(public.key_bits())])))
}

/// The size of the modulus, read from the PKCS#8 itself: what is refused by it is named by it.
fn rsa_bits(der: &[u8]) -> Option<usize> {
    let mut fields = Reader::der(der).expect(tag::SEQUENCE, "PrivateKeyInfo").ok()?.reader();
    fields.element().ok()?;
    fields.element().ok()?;
    let key = fields.expect(tag::OCTET_STRING, "privateKey").ok()?;
    let mut numbers = Reader::der(key.content).expect(tag::SEQUENCE, "RSAPrivateKey").ok()?.reader();
    numbers.element().ok()?;
    let modulus = numbers.expect(tag::INTEGER, "modulus").ok()?.content;
    let zeros: usize = modulus.iter().take_while(|octet| **octet == 0).count();
    let leading = modulus.get(zeros)?.leading_zeros();
    (modulus.len() - zeros).checked_mul(8)?.checked_sub(usize::try_from(leading).ok()?)
}

fn ec_secret(der: &[u8], curve: Option<ObjectIdentifier>) -> Result<(Secret, Vec<u8>), KeyError> {
    let known: [(ObjectIdentifier, &'static EcdsaSigningAlgorithm, KeyKind); 3] = [
        (SECP256R1, &signature::ECDSA_P256_SHA256_ASN1_SIGNING, KeyKind::P256),
        (SECP384R1, &signature::ECDSA_P384_SHA384_ASN1_SIGNING, KeyKind::P384),
        (SECP521R1, &signature::ECDSA_P521_SHA512_ASN1_SIGNING, KeyKind::P521),
    ];
    let named = curve.map_or_else(|| "no named curve".to_owned(), |curve| name_of(&curve));
    let found = known.into_iter().find(|(oid, ..)| Some(*oid) == curve);
    let (_, signing, kind) = found.ok_or_else(|| {
        KeyError::Rejected(format!("an EC key on {named} is not supported: P-256, P-384 or P-521 is needed"))
    })?;
    let refused =
        |error: aws_lc_rs::error::KeyRejected| KeyError::Rejected(format!("the EC key is not usable: {error}"));
    let sign = EcdsaKeyPair::from_pkcs8(signing, der).map_err(refused)?;
    let agreement = agreement_curve(kind).ok_or(KeyError::Unsuitable("no ECDH on this curve"))?;
    let agree = agreement::PrivateKey::from_private_key_der(agreement, der).map_err(refused)?;
    let spki = sign
        .public_key()
        .as_der()
        .map_err(|_| KeyError::Unavailable("the EC key cannot be prepared".to_owned()))?
        .as_ref()
        .to_vec();
    Ok((Secret::Ec { sign, agree }, spki))
}

/// An ML-DSA or ML-KEM key; `None`: another kind.
fn post_quantum_secret(der: &[u8], oid: &ObjectIdentifier) -> Result<Option<(Secret, Vec<u8>)>, KeyError> {
    if let Some(set) = MlDsa::from_oid(oid) {
        return post_quantum::ml_dsa(der, set).map(|(pair, spki)| Some((Secret::MlDsa(Box::new(pair), set), spki)));
    }
    let Some(set) = MlKem::from_oid(oid) else { return Ok(None) };
    post_quantum::ml_kem(der, set).map(|(key, spki)| Some((Secret::MlKem(key, set), spki)))
}

fn ed25519_secret(der: &[u8]) -> Result<(Secret, Vec<u8>), KeyError> {
    let sign = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
        .map_err(|error| KeyError::Rejected(format!("the Ed25519 key is not usable: {error}")))?;
    let spki = sign
        .public_key()
        .as_der()
        .map_err(|_| KeyError::Unavailable("the Ed25519 key cannot be prepared".to_owned()))?
        .as_ref()
        .to_vec();
    Ok((Secret::Ed25519(sign), spki))
}

/// RFC 8410 section 7: CurvePrivateKey is an OCTET STRING inside privateKey.
fn x25519_secret(der: &[u8]) -> Result<(Secret, Vec<u8>), KeyError> {
    let refused = || KeyError::Rejected("the X25519 key cannot be read: 32 octets are expected (RFC 8410)".to_owned());
    let octets = curve_private_key(der).ok_or_else(refused)?;
    let agree = agreement::PrivateKey::from_private_key(&agreement::X25519, &octets).map_err(|_| refused())?;
    let public = agree
        .compute_public_key()
        .map_err(|_| KeyError::Unavailable("the X25519 key cannot be prepared".to_owned()))?;
    let algorithm = write::sequence(&[&write::oid(&X25519)]);
    let spki = write::sequence(&[&algorithm, &write::bit_string(public.as_ref())]);
    Ok((Secret::X25519(agree), spki))
}

fn curve_private_key(der: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut fields = Reader::der(der).expect(tag::SEQUENCE, "OneAsymmetricKey").ok()?.reader();
    fields.element().ok()?;
    fields.element().ok()?;
    let key = fields.expect(tag::OCTET_STRING, "privateKey").ok()?;
    let inner = Reader::der(key.content).expect(tag::OCTET_STRING, "CurvePrivateKey").ok()?;
    Some(Zeroizing::new(inner.content.to_vec()))
}

/// What RSA signs with here: never SHA-1; PSS with a salt as long as the digest.
fn rsa_encoding(scheme: SignatureScheme) -> Option<&'static dyn RsaEncoding> {
    Some(match scheme {
        SignatureScheme::RsaPkcs1(Digest::Sha256) => &signature::RSA_PKCS1_SHA256,
        SignatureScheme::RsaPkcs1(Digest::Sha384) => &signature::RSA_PKCS1_SHA384,
        SignatureScheme::RsaPkcs1(Digest::Sha512) => &signature::RSA_PKCS1_SHA512,
        SignatureScheme::RsaPss(Digest::Sha256, 32) => &signature::RSA_PSS_SHA256,
        SignatureScheme::RsaPss(Digest::Sha384, 48) => &signature::RSA_PSS_SHA384,
        SignatureScheme::RsaPss(Digest::Sha512, 64) => &signature::RSA_PSS_SHA512,
        _ => return None,
    })
}

/// A handful of keys in memory: for the offline commands, tests and the demo.
#[derive(Default)]
pub struct SoftwareKeys {
    keys: HashMap<KeyId, SoftwareKey>,
}

impl SoftwareKeys {
    /// Adds a key.
    pub fn insert(&mut self, key: SoftwareKey) -> KeyId {
        let id = key.id();
        self.keys.insert(id, key);
        id
    }
    /// A key by its name.
    pub fn get(&self, id: &KeyId) -> Option<&SoftwareKey> {
        self.keys.get(id)
    }
}

impl KeyHolder for SoftwareKeys {
    fn submit(&self, operation: KeyOperation) -> Submission {
        let key = self.keys.get(&operation.key()).ok_or(KeyError::Unknown);
        Submission::Ready(key.and_then(|key| key.perform(&operation)))
    }
}

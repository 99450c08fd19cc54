//! The strict table of AlgorithmIdentifiers, both ways (A5): anything else, or other parameters, is refused.

use const_oid::ObjectIdentifier;

use super::ber::{Reader, tag, write};
use super::error::CmsError;
use crate::pki::public_key::KeyKind;

/// Message digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// Reading only: in signatures by the legacy switch; in OAEP and the X9.63 KDF, where collisions do not matter, always.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    /// The same for aws-lc-rs.
    pub fn algorithm(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::Sha1 => &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        }
    }
    /// Length of its value in octets.
    pub fn output_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
    /// The digest of `octets`.
    pub fn of(self, octets: &[u8]) -> aws_lc_rs::digest::Digest {
        aws_lc_rs::digest::digest(self.algorithm(), octets)
    }
    /// The micalg parameter's word (RFC 8551 section 3.5.3.2): "sha-256".
    pub fn micalg(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }
    /// The name people know: "SHA-256".
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }
    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => SHA1,
            Self::Sha256 => SHA256,
            Self::Sha384 => SHA384,
            Self::Sha512 => SHA512,
        }
    }
}

/// How a signature is made and verified. RFC 8017, RFC 5754, RFC 5758, RFC 4056, RFC 8419.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    RsaPkcs1(Digest),
    /// Digest, MGF1 with the same digest, salt length in octets.
    RsaPss(Digest, usize),
    /// ECDSA over the signer's curve.
    Ecdsa(Digest),
    Ed25519,
}

impl SignatureScheme {
    /// The scheme a key of this kind signs with by default: RSA PKCS#1 v1.5 (or PSS) with SHA-256, ECDSA with the digest of
    /// the curve's size, Ed25519. `None`: the key does not sign.
    pub fn for_key(kind: KeyKind, pss: bool) -> Option<Self> {
        match kind {
            KeyKind::Rsa { .. } if pss => Some(Self::RsaPss(Digest::Sha256, 32)),
            KeyKind::Rsa { .. } => Some(Self::RsaPkcs1(Digest::Sha256)),
            KeyKind::P256 => Some(Self::Ecdsa(Digest::Sha256)),
            KeyKind::P384 => Some(Self::Ecdsa(Digest::Sha384)),
            KeyKind::P521 => Some(Self::Ecdsa(Digest::Sha512)),
            KeyKind::Ed25519 => Some(Self::Ed25519),
            KeyKind::X25519 => None,
        }
    }
    /// The digest that CMS's digestAlgorithm has to name beside it (Ed25519: SHA-512, RFC 8419 section 2.3).
    pub fn digest(self) -> Digest {
        match self {
            Self::RsaPkcs1(digest) | Self::RsaPss(digest, _) | Self::Ecdsa(digest) => digest,
            Self::Ed25519 => Digest::Sha512,
        }
    }
    /// The name people know: "RSA PKCS#1 v1.5 with SHA-256".
    pub fn name(self) -> String {
        match self {
            Self::RsaPkcs1(digest) => format!("RSA PKCS#1 v1.5 with {}", digest.name()),
            Self::RsaPss(digest, _) => format!("RSA-PSS with {}", digest.name()),
            Self::Ecdsa(digest) => format!("ECDSA with {}", digest.name()),
            Self::Ed25519 => "Ed25519".to_owned(),
        }
    }
}

/// How a CEK is transported under RSA (RFC 3370, RFC 3560).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyTransport {
    RsaPkcs1,
    /// OAEP with this digest, MGF1 of the second, empty label.
    RsaOaep(Digest, Digest),
}

/// Key wrap (RFC 3394).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyWrap {
    Aes128,
    Aes192,
    Aes256,
}

impl KeyWrap {
    /// Length of the KEK in octets.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Aes128 => AES128_WRAP,
            Self::Aes192 => AES192_WRAP,
            Self::Aes256 => AES256_WRAP,
        }
    }
}

/// Key agreement (RFC 5753): ECDH with the X9.63 KDF over this digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyAgreement {
    pub kdf: Digest,
    pub cofactor: bool,
    pub wrap: KeyWrap,
}

/// Content encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentEncryption {
    Aes128Cbc,
    Aes192Cbc,
    Aes256Cbc,
    /// In AuthEnvelopedData only; tag 16.
    Aes128Gcm,
    Aes192Gcm,
    Aes256Gcm,
    /// Reading only, legacy switch.
    TripleDesCbc,
    /// RC2 with 128 effective bits; reading only, legacy switch.
    Rc2Cbc128,
    /// RC2 with 64 effective bits; reading only, legacy switch.
    Rc2Cbc64,
    /// RC2 with 40 effective bits; reading only, legacy switch.
    Rc2Cbc40,
}

impl ContentEncryption {
    /// AEAD, hence AuthEnvelopedData.
    pub fn is_authenticated(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes192Gcm | Self::Aes256Gcm)
    }
    /// May be read with the legacy switch only, and is never written.
    pub fn is_legacy(self) -> bool {
        matches!(self, Self::TripleDesCbc | Self::Rc2Cbc128 | Self::Rc2Cbc64 | Self::Rc2Cbc40)
    }
    /// Length of its key in octets.
    pub fn key_len(self) -> usize {
        match self {
            Self::Rc2Cbc40 => 5,
            Self::Rc2Cbc64 => 8,
            Self::Aes128Cbc | Self::Aes128Gcm | Self::Rc2Cbc128 => 16,
            Self::Aes192Cbc | Self::Aes192Gcm | Self::TripleDesCbc => 24,
            Self::Aes256Cbc | Self::Aes256Gcm => 32,
        }
    }
    /// The name people know: "AES-256-GCM".
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Cbc => "AES-128-CBC",
            Self::Aes192Cbc => "AES-192-CBC",
            Self::Aes256Cbc => "AES-256-CBC",
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes192Gcm => "AES-192-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::TripleDesCbc => "3DES-CBC",
            Self::Rc2Cbc128 => "RC2-CBC-128",
            Self::Rc2Cbc64 => "RC2-CBC-64",
            Self::Rc2Cbc40 => "RC2-CBC-40",
        }
    }
    /// The key wrap that fits its strength (RFC 5753 section 7.2).
    pub fn wrap(self) -> KeyWrap {
        match self.key_len() {
            32 => KeyWrap::Aes256,
            24 => KeyWrap::Aes192,
            _ => KeyWrap::Aes128,
        }
    }
}

/// Which weak algorithms may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Legacy {
    /// 3DES and RC2 content encryption.
    pub weak_ciphers: bool,
    /// SHA-1 in signatures.
    pub sha1_signatures: bool,
    /// RSA keys of 1024 to 2047 bits, for verifying.
    pub weak_keys: bool,
    /// GCM tags of 12 octets (RFC 5084's default when aes-ICVlen is left out).
    pub short_tags: bool,
}

const fn id(dotted: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(dotted)
}

const SHA1: ObjectIdentifier = id("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = id("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = id("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = id("2.16.840.1.101.3.4.2.3");
/// rsaEncryption.
pub const RSA_ENCRYPTION: ObjectIdentifier = id("1.2.840.113549.1.1.1");
/// id-RSASSA-PSS.
pub const RSASSA_PSS: ObjectIdentifier = id("1.2.840.113549.1.1.10");
/// id-RSAES-OAEP.
pub const RSAES_OAEP: ObjectIdentifier = id("1.2.840.113549.1.1.7");
const MGF1: ObjectIdentifier = id("1.2.840.113549.1.1.8");
const P_SPECIFIED: ObjectIdentifier = id("1.2.840.113549.1.1.9");
const SHA1_WITH_RSA: ObjectIdentifier = id("1.2.840.113549.1.1.5");
const SHA256_WITH_RSA: ObjectIdentifier = id("1.2.840.113549.1.1.11");
const SHA384_WITH_RSA: ObjectIdentifier = id("1.2.840.113549.1.1.12");
const SHA512_WITH_RSA: ObjectIdentifier = id("1.2.840.113549.1.1.13");
const ECDSA_SHA1: ObjectIdentifier = id("1.2.840.10045.4.1");
const ECDSA_SHA256: ObjectIdentifier = id("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = id("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = id("1.2.840.10045.4.3.4");
/// id-ecPublicKey.
pub const EC_PUBLIC_KEY: ObjectIdentifier = id("1.2.840.10045.2.1");
/// secp256r1.
pub const SECP256R1: ObjectIdentifier = id("1.2.840.10045.3.1.7");
/// secp384r1.
pub const SECP384R1: ObjectIdentifier = id("1.3.132.0.34");
/// secp521r1.
pub const SECP521R1: ObjectIdentifier = id("1.3.132.0.35");
/// id-Ed25519.
pub const ED25519: ObjectIdentifier = id("1.3.101.112");
/// id-X25519.
pub const X25519: ObjectIdentifier = id("1.3.101.110");
const AES128_WRAP: ObjectIdentifier = id("2.16.840.1.101.3.4.1.5");
const AES192_WRAP: ObjectIdentifier = id("2.16.840.1.101.3.4.1.25");
const AES256_WRAP: ObjectIdentifier = id("2.16.840.1.101.3.4.1.45");
const AES128_CBC: ObjectIdentifier = id("2.16.840.1.101.3.4.1.2");
const AES192_CBC: ObjectIdentifier = id("2.16.840.1.101.3.4.1.22");
const AES256_CBC: ObjectIdentifier = id("2.16.840.1.101.3.4.1.42");
const AES128_GCM: ObjectIdentifier = id("2.16.840.1.101.3.4.1.6");
const AES192_GCM: ObjectIdentifier = id("2.16.840.1.101.3.4.1.26");
const AES256_GCM: ObjectIdentifier = id("2.16.840.1.101.3.4.1.46");
const DES_EDE3_CBC: ObjectIdentifier = id("1.2.840.113549.3.7");
const RC2_CBC: ObjectIdentifier = id("1.2.840.113549.3.2");
/// id-alg-cek-hkdf-sha256 (RFC 9709): read, not written.
const CEK_HKDF_SHA256: ObjectIdentifier = id("1.2.840.113549.1.9.16.3.31");

const NULL: &[u8] = &[tag::NULL, 0];
const DIGESTS: [Digest; 4] = [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512];

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

/// Reads a digest algorithm (RFC 5754 section 2: parameters absent, or NULL).
pub fn digest_algorithm(der: &[u8]) -> Result<Digest, CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    let digest = DIGESTS
        .into_iter()
        .find(|digest| digest.oid() == found.oid)
        .ok_or_else(|| found.refused("not a digest known here"))?;
    found.null_or_absent()?;
    Ok(digest)
}

/// Writes a digest algorithm; parameters absent (RFC 5754 section 2).
pub fn digest_algorithm_der(digest: Digest) -> Vec<u8> {
    write::sequence(&[&write::oid(&digest.oid())])
}

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
            } else {
                return Err(found.refused("not a signature algorithm known here"));
            }
        }
    };
    if digest.is_some_and(|digest| digest != scheme.digest()) {
        return Err(found.refused("digestAlgorithm and signatureAlgorithm name different digests"));
    }
    Ok(scheme)
}

fn rsa_digest(oid: ObjectIdentifier) -> Option<Digest> {
    [
        (SHA1_WITH_RSA, Digest::Sha1),
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
        (ECDSA_SHA256, Digest::Sha256),
        (ECDSA_SHA384, Digest::Sha384),
        (ECDSA_SHA512, Digest::Sha512),
    ]
    .into_iter()
    .find_map(|(known, digest)| (known == oid).then_some(digest))
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

/// hashAlgorithm [0] and maskGenAlgorithm [1], which PSS and OAEP share; what follows is left in the reader.
fn hash_and_mask<'a>(
    found: &AlgorithmIdentifier<'_>,
    parameters: &'a [u8],
) -> Result<(Reader<'a>, Digest, Digest), CmsError> {
    let mut outer = Reader::der(parameters);
    if outer.peek() != Some(tag::SEQUENCE) {
        return Err(found.refused("parameters must be a SEQUENCE"));
    }
    let mut fields = outer.element()?.reader();
    let hash = match fields.optional(tag::context(0))? {
        Some(field) => digest_algorithm(field.content)?,
        None => Digest::Sha1,
    };
    let mask = match fields.optional(tag::context(1))? {
        Some(field) => {
            let mgf = AlgorithmIdentifier::from_der(field.content)?;
            if mgf.oid != MGF1 {
                return Err(found.refused("the mask generation function must be MGF1"));
            }
            digest_algorithm(mgf.parameters.ok_or_else(|| found.refused("MGF1 without a digest"))?)?
        }
        None => Digest::Sha1,
    };
    Ok((fields, hash, mask))
}

fn hash_and_mask_der(hash: Digest, mask: Digest) -> (Vec<u8>, Vec<u8>) {
    let with_null = |digest: Digest| write::sequence(&[&write::oid(&digest.oid()), NULL]);
    let mgf = write::sequence(&[&write::oid(&MGF1), &with_null(mask)]);
    // DER leaves a DEFAULT out.
    let first = if hash == Digest::Sha1 { Vec::new() } else { write::element(tag::context(0), &[&with_null(hash)]) };
    let second = if mask == Digest::Sha1 { Vec::new() } else { write::element(tag::context(1), &[&mgf]) };
    (first, second)
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
                Digest::Sha256 => ECDSA_SHA256,
                Digest::Sha384 => ECDSA_SHA384,
                Digest::Sha512 => ECDSA_SHA512,
            };
            write::sequence(&[&write::oid(&oid)])
        }
        SignatureScheme::Ed25519 => write::sequence(&[&write::oid(&ED25519)]),
    }
}

/// Reads a key transport algorithm. OAEP's parameters are read strictly; when they are wrong it is refused, never taken for v1.5.
pub fn key_transport(der: &[u8]) -> Result<KeyTransport, CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    match found.oid {
        oid if oid == RSA_ENCRYPTION => {
            found.null()?;
            Ok(KeyTransport::RsaPkcs1)
        }
        oid if oid == RSAES_OAEP => {
            let parameters = found.parameters.ok_or_else(|| found.refused("parameters must be present"))?;
            let (mut fields, hash, mask) = hash_and_mask(&found, parameters)?;
            if let Some(field) = fields.optional(tag::context(2))? {
                let source = AlgorithmIdentifier::from_der(field.content)?;
                if source.oid != P_SPECIFIED || source.parameters != Some(&[tag::OCTET_STRING, 0]) {
                    return Err(found.refused("the label must be empty"));
                }
            }
            fields.end("RSAES-OAEP-params")?;
            if mask != hash {
                return Err(found.refused("MGF1 with another digest than OAEP's is not supported"));
            }
            Ok(KeyTransport::RsaOaep(hash, mask))
        }
        _ => Err(found.refused("not a key transport algorithm known here")),
    }
}

/// Writes a key transport algorithm.
pub fn key_transport_der(how: KeyTransport) -> Vec<u8> {
    match how {
        KeyTransport::RsaPkcs1 => write::sequence(&[&write::oid(&RSA_ENCRYPTION), NULL]),
        KeyTransport::RsaOaep(hash, mask) => {
            let (hash, mask) = hash_and_mask_der(hash, mask);
            write::sequence(&[&write::oid(&RSAES_OAEP), &write::sequence(&[&hash, &mask])])
        }
    }
}

const AGREEMENTS: [(ObjectIdentifier, Digest, bool); 8] = [
    (id("1.3.133.16.840.63.0.2"), Digest::Sha1, false),
    (id("1.3.132.1.11.1"), Digest::Sha256, false),
    (id("1.3.132.1.11.2"), Digest::Sha384, false),
    (id("1.3.132.1.11.3"), Digest::Sha512, false),
    (id("1.3.133.16.840.63.0.3"), Digest::Sha1, true),
    (id("1.3.132.1.14.1"), Digest::Sha256, true),
    (id("1.3.132.1.14.2"), Digest::Sha384, true),
    (id("1.3.132.1.14.3"), Digest::Sha512, true),
];

/// Reads a key agreement algorithm (RFC 5753 section 7.1.4). Also gives the KeyWrapAlgorithm's DER as sent, which goes into
/// ECC-CMS-SharedInfo.
pub fn key_agreement(der: &[u8]) -> Result<(KeyAgreement, &[u8]), CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    let (_, kdf, cofactor) = AGREEMENTS
        .into_iter()
        .find(|(oid, ..)| *oid == found.oid)
        .ok_or_else(|| found.refused("not a key agreement algorithm known here"))?;
    let wrap_der = found.parameters.ok_or_else(|| found.refused("names no key wrap"))?;
    let wrap = AlgorithmIdentifier::from_der(wrap_der)?;
    // RFC 5753 wants the wrap's parameters absent; implementations in use send NULL.
    wrap.null_or_absent()?;
    let wrap = [KeyWrap::Aes128, KeyWrap::Aes192, KeyWrap::Aes256]
        .into_iter()
        .find(|known| known.oid() == wrap.oid)
        .ok_or_else(|| wrap.refused("not a key wrap known here"))?;
    Ok((KeyAgreement { kdf, cofactor, wrap }, wrap_der))
}

/// Writes a key agreement algorithm, and the KeyWrapAlgorithm inside it.
pub fn key_agreement_der(how: KeyAgreement) -> (Vec<u8>, Vec<u8>) {
    let wrap = write::sequence(&[&write::oid(&how.wrap.oid())]);
    let oid = AGREEMENTS
        .into_iter()
        .find_map(|(oid, kdf, cofactor)| (kdf == how.kdf && cofactor == how.cofactor).then_some(oid))
        .unwrap_or(id("1.3.132.1.11.1"));
    (write::sequence(&[&write::oid(&oid), &wrap]), wrap)
}

/// A content-encryption algorithm with what its parameters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentAlgorithm {
    pub cipher: ContentEncryption,
    iv: [u8; 16],
    iv_len: usize,
    /// Octets of the tag (AEAD), else 0.
    pub tag_len: usize,
    /// RFC 9709: the DER of the content encryption, from which and the CEK the key in use is derived.
    info: [u8; MAX_INFO],
    info_len: usize,
}

const MAX_INFO: usize = 48;

impl ContentAlgorithm {
    /// The same from parts: `iv` of 16 octets (AES-CBC), 12 (GCM), 8 (3DES, RC2).
    pub fn new(cipher: ContentEncryption, iv: &[u8], tag_len: usize) -> Result<Self, CmsError> {
        let mut whole = [0u8; 16];
        let place = whole.get_mut(..iv.len()).ok_or(CmsError::Crypto)?;
        place.copy_from_slice(iv);
        Ok(Self { cipher, iv: whole, iv_len: iv.len(), tag_len, info: [0; MAX_INFO], info_len: 0 })
    }
    /// IV or nonce.
    pub fn iv(&self) -> &[u8] {
        self.iv.get(..self.iv_len).unwrap_or_default()
    }
    /// The info of the CEK's derivation (RFC 9709); `None`: the CEK is the key.
    pub fn derivation(&self) -> Option<&[u8]> {
        self.info.get(..self.info_len).filter(|info| !info.is_empty())
    }
    fn derived(mut self, info: &[u8]) -> Result<Self, CmsError> {
        let place = self.info.get_mut(..info.len()).ok_or(CmsError::Limit("content-encryption parameters too long"))?;
        place.copy_from_slice(info);
        self.info_len = info.len();
        Ok(self)
    }
}

const CIPHERS: [(ObjectIdentifier, ContentEncryption); 7] = [
    (AES128_CBC, ContentEncryption::Aes128Cbc),
    (AES192_CBC, ContentEncryption::Aes192Cbc),
    (AES256_CBC, ContentEncryption::Aes256Cbc),
    (AES128_GCM, ContentEncryption::Aes128Gcm),
    (AES192_GCM, ContentEncryption::Aes192Gcm),
    (AES256_GCM, ContentEncryption::Aes256Gcm),
    (DES_EDE3_CBC, ContentEncryption::TripleDesCbc),
];

/// Reads a content-encryption algorithm. `authenticated`: it stands in an AuthEnvelopedData, where only AEAD may stand (RFC 5083
/// section 2.1), else in an EnvelopedData, where only CBC may (A5).
pub fn content_encryption(der: &[u8], authenticated: bool, legacy: Legacy) -> Result<ContentAlgorithm, CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    if found.oid == CEK_HKDF_SHA256 {
        let inner = found.parameters.ok_or_else(|| found.refused("names no content encryption"))?;
        if AlgorithmIdentifier::from_der(inner)?.oid == CEK_HKDF_SHA256 {
            return Err(found.refused("stands in itself"));
        }
        return content_encryption(inner, authenticated, legacy)?.derived(inner);
    }
    let cipher = CIPHERS.into_iter().find_map(|(oid, cipher)| (oid == found.oid).then_some(cipher));
    let algorithm = match cipher {
        Some(cipher) if cipher.is_authenticated() => gcm_parameters(&found, cipher, legacy)?,
        Some(cipher) => {
            let length = if cipher == ContentEncryption::TripleDesCbc { 8 } else { 16 };
            match found.parameters {
                Some([tag::OCTET_STRING, size, iv @ ..]) if usize::from(*size) == length && iv.len() == length => {
                    ContentAlgorithm::new(cipher, iv, 0)?
                }
                _ => return Err(found.refused("parameters must be an IV of one block")),
            }
        }
        None if found.oid == RC2_CBC => rc2_parameters(&found)?,
        None => return Err(found.refused("not a content encryption known here")),
    };
    if authenticated != algorithm.cipher.is_authenticated() {
        return Err(found.refused(if authenticated {
            "AuthEnvelopedData takes authenticated encryption only"
        } else {
            "EnvelopedData takes CBC only"
        }));
    }
    if algorithm.cipher.is_legacy() && !legacy.weak_ciphers {
        return Err(found.refused("a weak cipher, which the legacy switch `weak_ciphers` would allow to be read"));
    }
    Ok(algorithm)
}

/// GCMParameters (RFC 5084 section 3.2): nonce of 12, tag of 16 octets; 12 (also by default) with the switch.
fn gcm_parameters(
    found: &AlgorithmIdentifier<'_>,
    cipher: ContentEncryption,
    legacy: Legacy,
) -> Result<ContentAlgorithm, CmsError> {
    let mut outer = Reader::der(found.parameters.ok_or_else(|| found.refused("parameters must be present"))?);
    let mut fields = outer.expect(tag::SEQUENCE, "GCMParameters")?.reader();
    let nonce = fields.expect(tag::OCTET_STRING, "aes-nonce")?.content;
    let tag_len = if fields.is_empty() { 12 } else { fields.small_integer("aes-ICVlen")? };
    fields.end("GCMParameters")?;
    if nonce.len() != 12 {
        return Err(found.refused("a nonce of 12 octets is expected"));
    }
    match tag_len {
        16 => ContentAlgorithm::new(cipher, nonce, 16),
        12 if legacy.short_tags => ContentAlgorithm::new(cipher, nonce, 12),
        12 => Err(found.refused("a tag of 12 octets, which the switch `short_tags` would allow")),
        _ => Err(found.refused("a tag of 16 octets is expected")),
    }
}

/// RC2-CBC parameters (RFC 3370 section 5.2).
fn rc2_parameters(found: &AlgorithmIdentifier<'_>) -> Result<ContentAlgorithm, CmsError> {
    let mut outer = Reader::der(found.parameters.ok_or_else(|| found.refused("parameters must be present"))?);
    let mut fields = outer.expect(tag::SEQUENCE, "RC2-CBC parameters")?.reader();
    let cipher = match fields.small_integer("rc2ParameterVersion")? {
        58 => ContentEncryption::Rc2Cbc128,
        120 => ContentEncryption::Rc2Cbc64,
        160 => ContentEncryption::Rc2Cbc40,
        _ => return Err(found.refused("an unusual key size")),
    };
    let iv = fields.expect(tag::OCTET_STRING, "RC2-CBC IV")?.content;
    fields.end("RC2-CBC parameters")?;
    if iv.len() != 8 {
        return Err(found.refused("an IV of 8 octets is expected"));
    }
    ContentAlgorithm::new(cipher, iv, 0)
}

/// Writes a content-encryption algorithm. Errors for those that are read only.
pub fn content_encryption_der(algorithm: &ContentAlgorithm) -> Result<Vec<u8>, CmsError> {
    let oid = cipher_oid(algorithm.cipher).filter(|_| !algorithm.cipher.is_legacy());
    let oid = oid.ok_or_else(|| CmsError::Algorithm(format!("{} is read, never written", algorithm.cipher.name())))?;
    let iv = write::octet_string(algorithm.iv());
    Ok(if algorithm.cipher.is_authenticated() {
        let tag_len = write::integer(u32::try_from(algorithm.tag_len).unwrap_or(16));
        write::sequence(&[&write::oid(&oid), &write::sequence(&[&iv, &tag_len])])
    } else {
        write::sequence(&[&write::oid(&oid), &iv])
    })
}

fn cipher_oid(cipher: ContentEncryption) -> Option<ObjectIdentifier> {
    CIPHERS.into_iter().find_map(|(oid, known)| (known == cipher).then_some(oid))
}

/// Writes SMIMECapabilities (RFC 8551 section 2.5.2), best first.
pub fn capabilities_der(capabilities: &[ContentEncryption]) -> Vec<u8> {
    let each: Vec<Vec<u8>> = capabilities
        .iter()
        .filter_map(|cipher| match cipher {
            ContentEncryption::Rc2Cbc128 | ContentEncryption::Rc2Cbc64 | ContentEncryption::Rc2Cbc40 => None,
            other => cipher_oid(*other),
        })
        .map(|oid| write::sequence(&[&write::oid(&oid)]))
        .collect();
    let pieces: Vec<&[u8]> = each.iter().map(Vec::as_slice).collect();
    write::sequence(&pieces)
}

/// Reads SMIMECapabilities: the content encryptions in it that are known here, in their order; at most 64 are looked at.
pub fn capabilities(der: &[u8]) -> Result<Vec<ContentEncryption>, CmsError> {
    let mut outer = Reader::der(der);
    let mut list = outer.expect(tag::SEQUENCE, "SMIMECapabilities")?.reader();
    outer.end("SMIMECapabilities")?;
    let mut known = Vec::new();
    for _ in 0..64 {
        if list.is_empty() {
            break;
        }
        let capability = AlgorithmIdentifier::from_der(list.expect(tag::SEQUENCE, "SMIMECapability")?.raw)?;
        let cipher = if capability.oid == RC2_CBC {
            match capability.parameters {
                Some([tag::INTEGER, 2, 0, 0x80]) => Some(ContentEncryption::Rc2Cbc128),
                Some([tag::INTEGER, 1, 0x40]) => Some(ContentEncryption::Rc2Cbc64),
                Some([tag::INTEGER, 1, 0x28]) => Some(ContentEncryption::Rc2Cbc40),
                _ => None,
            }
        } else {
            CIPHERS.into_iter().find_map(|(oid, cipher)| (oid == capability.oid).then_some(cipher))
        };
        if let Some(cipher) = cipher.filter(|cipher| !known.contains(cipher)) {
            known.push(cipher);
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests;

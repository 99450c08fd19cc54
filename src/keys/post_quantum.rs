//! Private keys of ML-DSA (RFC 9881 section 6) and ML-KEM (RFC 9935 section 6): a seed, the expanded key, or both.

use aws_lc_rs::encoding::AsRawBytes;
use aws_lc_rs::kem::{self, DecapsulationKey, EncapsulationKey};
use aws_lc_rs::signature::{
    KeyPair as _, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, ML_DSA_87_SIGNING, PqdsaKeyPair, PqdsaSigningAlgorithm,
    UnparsedPublicKey,
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::KeyError;
use crate::cms::algorithm::{MlDsa, MlKem};
use crate::cms::ber::{Element, Reader, tag, write};
use crate::pki::public_key::post_quantum::{is_encapsulation_key, is_reduced, kem_algorithm, ml_dsa_algorithm};

/// What a PrivateKeyInfo's privateKey holds: its octets, as they stand there.
struct Parts<'a> {
    seed: Option<&'a [u8]>,
    expanded: Option<&'a [u8]>,
}

fn rejected(name: &str, why: &str) -> KeyError {
    KeyError::Rejected(format!("the {name} key is not usable: {why}"))
}

/// The CHOICE of seed `[0]`, expandedKey and both, which ML-DSA and ML-KEM share; other lengths are refused.
fn parts<'a>(pkcs8: &'a [u8], name: &str, seed_len: usize, expanded_len: usize) -> Result<Parts<'a>, KeyError> {
    let unreadable = || rejected(name, "its privateKey is neither a seed, nor an expanded key, nor both");
    let read = || -> Result<Parts<'a>, crate::cms::error::CmsError> {
        let mut outer = Reader::der(pkcs8);
        let mut fields = outer.expect(tag::SEQUENCE, "PrivateKeyInfo")?.reader();
        outer.end("PrivateKeyInfo")?;
        fields.small_integer("version")?;
        fields.expect(tag::SEQUENCE, "privateKeyAlgorithm")?;
        let mut choice = Reader::der(fields.expect(tag::OCTET_STRING, "privateKey")?.content);
        let element: Element<'a> = choice.element()?;
        choice.end("privateKey")?;
        let none = Parts { seed: None, expanded: None };
        Ok(match element.tag {
            octet if octet == tag::context_primitive(0) => Parts { seed: Some(element.content), ..none },
            tag::OCTET_STRING => Parts { expanded: Some(element.content), ..none },
            tag::SEQUENCE => {
                let mut both = element.reader();
                let seed = both.expect(tag::OCTET_STRING, "seed")?.content;
                let expanded = both.expect(tag::OCTET_STRING, "expandedKey")?.content;
                both.end("both")?;
                Parts { seed: Some(seed), expanded: Some(expanded) }
            }
            _ => none,
        })
    };
    let parts = read().map_err(|_| unreadable())?;
    let fits = |octets: Option<&[u8]>, length: usize| octets.is_none_or(|octets| octets.len() == length);
    if parts.seed.is_none() && parts.expanded.is_none() {
        return Err(unreadable());
    }
    if !fits(parts.seed, seed_len) || !fits(parts.expanded, expanded_len) {
        let why = format!("a seed of {seed_len} or an expanded key of {expanded_len} octets is expected");
        return Err(rejected(name, &why));
    }
    Ok(parts)
}

fn spki(oid: &const_oid::ObjectIdentifier, key: &[u8]) -> Vec<u8> {
    write::sequence(&[&write::sequence(&[&write::oid(oid)]), &write::bit_string(key)])
}

/// Signs of an ML-DSA parameter set, for aws-lc-rs.
pub(crate) fn ml_dsa_signing(set: MlDsa) -> &'static PqdsaSigningAlgorithm {
    match set {
        MlDsa::MlDsa44 => &ML_DSA_44_SIGNING,
        MlDsa::MlDsa65 => &ML_DSA_65_SIGNING,
        MlDsa::MlDsa87 => &ML_DSA_87_SIGNING,
    }
}

/// An ML-DSA key from its PKCS#8, with its SubjectPublicKeyInfo. Where seed and expanded key are there, they must belong together;
/// an expanded key alone must make a signature that its own public half verifies.
pub(super) fn ml_dsa(pkcs8: &[u8], set: MlDsa) -> Result<(PqdsaKeyPair, Vec<u8>), KeyError> {
    let parts = parts(pkcs8, set.name(), 32, set.expanded_len())?;
    let unusable = |_| rejected(set.name(), "aws-lc-rs does not take it");
    let algorithm = ml_dsa_signing(set);
    let pair = match (parts.seed, parts.expanded) {
        (Some(seed), _) => PqdsaKeyPair::from_seed(algorithm, seed).map_err(unusable)?,
        (None, expanded) => {
            let pair = PqdsaKeyPair::from_raw_private_key(algorithm, expanded.unwrap_or_default()).map_err(unusable)?;
            check_signature(&pair, set)?;
            pair
        }
    };
    if let (Some(_), Some(expanded)) = (parts.seed, parts.expanded) {
        let raw = pair.private_key().as_raw_bytes().map_err(|_| rejected(set.name(), "its seed does not expand"))?;
        if !bool::from(raw.as_ref().ct_eq(expanded)) {
            return Err(rejected(set.name(), "seed and expanded key do not belong together (RFC 9881 section 6)"));
        }
    }
    let spki = spki(&set.oid(), pair.public_key().as_ref());
    Ok((pair, spki))
}

fn check_signature(pair: &PqdsaKeyPair, set: MlDsa) -> Result<(), KeyError> {
    const MESSAGE: &[u8] = b"a check of a private key";
    let mut signature = vec![0u8; pair.algorithm().signature_len()];
    let verified = pair.sign(MESSAGE, &mut signature).and_then(|length| {
        let public = UnparsedPublicKey::new(ml_dsa_algorithm(set), pair.public_key().as_ref());
        public.verify(MESSAGE, signature.get(..length).unwrap_or_default())
    });
    verified.map_err(|_| rejected(set.name(), "its parts do not belong together"))
}

/// An ML-KEM decapsulation key from its PKCS#8, with its SubjectPublicKeyInfo. aws-lc-rs 1.19 has no way from the seed to the key:
/// the seed is expanded by RustCrypto's `ml-kem` (FIPS 203 algorithm 16), and all decapsulation is done by aws-lc-rs with the expanded key.
pub(super) fn ml_kem(pkcs8: &[u8], set: MlKem) -> Result<(DecapsulationKey, Vec<u8>), KeyError> {
    let parts = parts(pkcs8, set.name(), 64, set.expanded_len())?;
    let from_seed = parts.seed.map(|seed| expand(seed, set)).transpose()?;
    if let (Some(expanded), Some(given)) = (&from_seed, parts.expanded)
        && !bool::from(expanded.as_slice().ct_eq(given))
    {
        return Err(rejected(set.name(), "seed and expanded key do not belong together (RFC 9935 section 6)"));
    }
    let expanded = from_seed.as_ref().map(|key| key.as_slice()).or(parts.expanded).unwrap_or_default();
    let public = public_half(expanded, set)?;
    let key = DecapsulationKey::new(kem_algorithm(set), expanded)
        .map_err(|_| rejected(set.name(), "aws-lc-rs does not take it"))?;
    check_encapsulation(&key, public, set)?;
    Ok((key, spki(&set.oid(), public)))
}

/// ML-KEM.KeyGen_internal: the seed is `d || z`.
#[allow(deprecated, reason = "the expanded form is what aws-lc-rs decapsulates with")]
fn expand(seed: &[u8], set: MlKem) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    use ml_kem::{DecapsulationKey512, DecapsulationKey768, DecapsulationKey1024, ExpandedKeyEncoding as _, Seed};
    let wrong = |_| rejected(set.name(), "a seed of 64 octets is expected");
    let seed = Zeroizing::new(Seed::try_from(seed).map_err(wrong)?);
    Ok(Zeroizing::new(match set {
        MlKem::MlKem512 => Zeroizing::new(DecapsulationKey512::from_seed(*seed).to_expanded_bytes()).to_vec(),
        MlKem::MlKem768 => Zeroizing::new(DecapsulationKey768::from_seed(*seed).to_expanded_bytes()).to_vec(),
        MlKem::MlKem1024 => Zeroizing::new(DecapsulationKey1024::from_seed(*seed).to_expanded_bytes()).to_vec(),
    }))
}

/// The encapsulation key inside an expanded key, after the checks of FIPS 203 section 7.3: its hash fits, and its coefficients are reduced,
/// as are the private ones.
fn public_half(expanded: &[u8], set: MlKem) -> Result<&[u8], KeyError> {
    let broken = || rejected(set.name(), "its parts do not belong together (FIPS 203 section 7.3)");
    let (private, rest) = expanded.split_at_checked(384 * set.rank()).ok_or_else(broken)?;
    let (public, rest) = rest.split_at_checked(set.public_key_len()).ok_or_else(broken)?;
    let hash = rest.get(..32).ok_or_else(broken)?;
    let reduced = is_encapsulation_key(set, public) && is_reduced(private);
    let fits = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA3_256, public).as_ref().ct_eq(hash);
    if reduced && bool::from(fits) { Ok(public) } else { Err(broken()) }
}

/// What is encapsulated to the public half is what the private half decapsulates.
fn check_encapsulation(key: &DecapsulationKey, public: &[u8], set: MlKem) -> Result<(), KeyError> {
    let broken = || rejected(set.name(), "private and public half do not belong together");
    let public = EncapsulationKey::new(kem_algorithm(set), public).map_err(|_| broken())?;
    let (ciphertext, sent) = public.encapsulate().map_err(|_| broken())?;
    let received = key.decapsulate(kem::Ciphertext::from(ciphertext.as_ref())).map_err(|_| broken())?;
    if bool::from(sent.as_ref().ct_eq(received.as_ref())) { Ok(()) } else { Err(broken()) }
}

/// Fuzz body: a privateKey for each parameter set; what is taken signs or decapsulates, and is read the same again.
#[doc(hidden)]
pub fn fuzz_private_key(data: &[u8]) {
    let Some((first, key)) = data.split_first() else { return };
    let sets = MlDsa::ALL.map(MlDsa::oid).into_iter().chain(MlKem::ALL.map(MlKem::oid));
    let Some(oid) = sets.into_iter().nth(usize::from(*first % 6)) else { return };
    let algorithm = write::sequence(&[&write::oid(&oid)]);
    let pkcs8 = write::sequence(&[&write::integer(0), &algorithm, &write::octet_string(key)]);
    if let Ok(read) = super::SoftwareKey::from_pkcs8(&pkcs8) {
        let again = super::SoftwareKey::from_pkcs8(&pkcs8).map(|again| again.id());
        assert_eq!(again, Ok(read.id()));
    }
}

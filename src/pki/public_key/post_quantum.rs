//! Public keys of ML-DSA, SLH-DSA and ML-KEM: what aws-lc-rs and RustCrypto's `slh-dsa` (which it lacks) do with them.

use aws_lc_rs::kem::{self, EncapsulationKey};
use aws_lc_rs::signature::{ML_DSA_44, ML_DSA_65, ML_DSA_87, PqdsaVerificationAlgorithm};
use slh_dsa::{ParameterSet, Signature, VerifyingKey};
use zeroize::Zeroizing;

use crate::cms::algorithm::{MlDsa, MlKem, SlhDsa};
use crate::cms::error::CmsError;

/// The modulus of ML-KEM's coefficients.
const Q: u16 = 3329;

/// Verifies ML-DSA of this parameter set.
pub(crate) fn ml_dsa_algorithm(set: MlDsa) -> &'static PqdsaVerificationAlgorithm {
    match set {
        MlDsa::MlDsa44 => &ML_DSA_44,
        MlDsa::MlDsa65 => &ML_DSA_65,
        MlDsa::MlDsa87 => &ML_DSA_87,
    }
}

/// ML-KEM of this parameter set.
pub(crate) fn kem_algorithm(set: MlKem) -> &'static kem::Algorithm {
    match set {
        MlKem::MlKem512 => &kem::ML_KEM_512,
        MlKem::MlKem768 => &kem::ML_KEM_768,
        MlKem::MlKem1024 => &kem::ML_KEM_1024,
    }
}

/// Whether these octets are an encapsulation key (FIPS 203 section 7.2): their length, and every coefficient reduced.
pub(crate) fn is_encapsulation_key(set: MlKem, octets: &[u8]) -> bool {
    octets.len() == set.public_key_len()
        && octets.split_at_checked(384 * set.rank()).is_some_and(|(coefficients, _)| is_reduced(coefficients))
}

/// Whether every pair of 12-bit numbers in these octets is under the modulus. Looks at all of them, whatever it finds.
pub(crate) fn is_reduced(octets: &[u8]) -> bool {
    let (triples, rest) = octets.as_chunks::<3>();
    let over = triples.iter().fold(false, |over, [low, middle, high]| {
        let first = u16::from(*low) | (u16::from(*middle & 0x0f) << 8);
        let second = u16::from(*middle >> 4) | (u16::from(*high) << 4);
        over | (first >= Q) | (second >= Q)
    });
    rest.is_empty() && !over
}

/// ML-KEM.Encaps: the ciphertext and the shared secret.
pub(super) fn encapsulate(key: &EncapsulationKey) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), CmsError> {
    let (ciphertext, secret) = key.encapsulate().map_err(|_| CmsError::Crypto)?;
    Ok((ciphertext.as_ref().to_vec(), Zeroizing::new(secret.as_ref().to_vec())))
}

/// Whether an SLH-DSA signature over `message` is `key`'s: pure mode, empty context (RFC 9814 section 2, RFC 9909 section 4).
pub(super) fn verifies(set: SlhDsa, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    match set {
        SlhDsa::Sha2_128s => verifies_with::<slh_dsa::Sha2_128s>(key, message, signature),
        SlhDsa::Sha2_128f => verifies_with::<slh_dsa::Sha2_128f>(key, message, signature),
        SlhDsa::Sha2_192s => verifies_with::<slh_dsa::Sha2_192s>(key, message, signature),
        SlhDsa::Sha2_192f => verifies_with::<slh_dsa::Sha2_192f>(key, message, signature),
        SlhDsa::Sha2_256s => verifies_with::<slh_dsa::Sha2_256s>(key, message, signature),
        SlhDsa::Sha2_256f => verifies_with::<slh_dsa::Sha2_256f>(key, message, signature),
        SlhDsa::Shake128s => verifies_with::<slh_dsa::Shake128s>(key, message, signature),
        SlhDsa::Shake128f => verifies_with::<slh_dsa::Shake128f>(key, message, signature),
        SlhDsa::Shake192s => verifies_with::<slh_dsa::Shake192s>(key, message, signature),
        SlhDsa::Shake192f => verifies_with::<slh_dsa::Shake192f>(key, message, signature),
        SlhDsa::Shake256s => verifies_with::<slh_dsa::Shake256s>(key, message, signature),
        SlhDsa::Shake256f => verifies_with::<slh_dsa::Shake256f>(key, message, signature),
    }
}

fn verifies_with<P: ParameterSet>(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = VerifyingKey::<P>::try_from(key) else { return false };
    let Ok(signature) = Signature::<P>::try_from(signature) else { return false };
    key.try_verify_with_context(message, &[], &signature).is_ok()
}

//! AES key wrap (RFC 3394) and the key derivations of RFC 5753 and RFC 8418.

use aws_lc_rs::cipher::{AES_192, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::Context;
use aws_lc_rs::hkdf;
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap as _};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::cms::algorithm::{Digest, KeyAgreement, KeyDerivation, KeyWrap};
use crate::cms::error::CmsError;

/// The longest key that is wrapped here, in octets.
const LONGEST: usize = 64;

/// ANSI X9.63 KDF (SEC 1 section 3.6.1): `length` octets from the shared secret and ECC-CMS-SharedInfo.
pub fn x963_kdf(digest: Digest, secret: &[u8], shared_info: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length.saturating_add(64)));
    let mut counter = 1u32;
    while key.len() < length {
        let mut context = Context::new(digest.algorithm());
        context.update(secret);
        context.update(&counter.to_be_bytes());
        context.update(shared_info);
        key.extend_from_slice(context.finish().as_ref());
        counter = counter.wrapping_add(1);
    }
    key.truncate(length);
    key
}

/// HKDF (RFC 5869) as RFC 8418 section 2.2 has it: the ukm, where there is one, is the salt. One error, whatever is wrong.
pub fn hkdf(
    digest: Digest,
    secret: &[u8],
    ukm: Option<&[u8]>,
    shared_info: &[u8],
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, CmsError> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let algorithm = match digest {
        Digest::Sha256 => hkdf::HKDF_SHA256,
        Digest::Sha384 => hkdf::HKDF_SHA384,
        Digest::Sha512 => hkdf::HKDF_SHA512,
        Digest::Sha1 | Digest::Sha224 => return Err(CmsError::Crypto),
    };
    let mut key = Zeroizing::new(vec![0u8; length]);
    let extracted = hkdf::Salt::new(algorithm, ukm.unwrap_or_default()).extract(secret);
    let expanded = extracted.expand(&[shared_info], Length(length)).and_then(|okm| okm.fill(&mut key));
    expanded.map_err(|_| CmsError::Crypto)?;
    Ok(key)
}

/// The key-encryption key of a key agreement, of the length that its wrap takes.
pub fn derive(
    how: KeyAgreement,
    secret: &[u8],
    ukm: Option<&[u8]>,
    shared_info: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CmsError> {
    let length = how.wrap.key_len();
    match how.kdf {
        KeyDerivation::X963(digest) => Ok(x963_kdf(digest, secret, shared_info, length)),
        KeyDerivation::Hkdf(digest) => hkdf(digest, secret, ukm, shared_info, length),
    }
}

/// Wraps a key of 16 to 64 octets, a multiple of 8.
pub fn wrap(how: KeyWrap, kek: &[u8], key: &[u8]) -> Result<Vec<u8>, CmsError> {
    if !(16..=LONGEST).contains(&key.len()) || !key.len().is_multiple_of(8) {
        return Err(CmsError::Crypto);
    }
    if how == KeyWrap::Aes192 {
        return wrap_192(kek, key);
    }
    let cipher = if how == KeyWrap::Aes128 { &AES_128 } else { &AES_256 };
    let mut wrapped = vec![0u8; key.len() + 8];
    AesKek::new(cipher, kek).and_then(|kek| kek.wrap(key, &mut wrapped).map(drop)).map_err(|_| CmsError::Crypto)?;
    Ok(wrapped)
}

/// Unwraps a key. One error, whatever is wrong.
pub fn unwrap(how: KeyWrap, kek: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, CmsError> {
    if !(24..=LONGEST + 8).contains(&wrapped.len()) || !wrapped.len().is_multiple_of(8) {
        return Err(CmsError::Crypto);
    }
    if how == KeyWrap::Aes192 {
        return unwrap_192(kek, wrapped);
    }
    let cipher = if how == KeyWrap::Aes128 { &AES_128 } else { &AES_256 };
    let mut key = Zeroizing::new(vec![0u8; wrapped.len() - 8]);
    AesKek::new(cipher, kek).and_then(|kek| kek.unwrap(wrapped, &mut key).map(drop)).map_err(|_| CmsError::Crypto)?;
    Ok(key)
}

const INITIAL: u64 = 0xa6a6_a6a6_a6a6_a6a6;

// aws-lc-rs has no AES-192 key wrap: RFC 3394 section 2.2 over its block cipher.

fn wrap_192(kek: &[u8], key: &[u8]) -> Result<Vec<u8>, CmsError> {
    let failed = |_| CmsError::Crypto;
    let cipher = EncryptingKey::ecb(UnboundCipherKey::new(&AES_192, kek).map_err(failed)?).map_err(failed)?;
    let mut blocks: Vec<[u8; 8]> = key.as_chunks::<8>().0.to_vec();
    let count = u64::try_from(blocks.len()).map_err(|_| CmsError::Crypto)?;
    let mut register = INITIAL;
    for round in 0..6u64 {
        for (index, block) in (1u64..).zip(blocks.iter_mut()) {
            let mut state = join(register, block);
            cipher.encrypt(&mut *state).map_err(failed)?;
            let (high, low) = split(&state);
            register = high ^ (count * round + index);
            *block = low;
        }
    }
    let mut wrapped = register.to_be_bytes().to_vec();
    wrapped.extend(blocks.as_flattened());
    Ok(wrapped)
}

fn unwrap_192(kek: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, CmsError> {
    let failed = |_| CmsError::Crypto;
    let cipher = DecryptingKey::ecb(UnboundCipherKey::new(&AES_192, kek).map_err(failed)?).map_err(failed)?;
    let (first, rest) = wrapped.split_first_chunk::<8>().ok_or(CmsError::Crypto)?;
    let mut blocks = Zeroizing::new(rest.as_chunks::<8>().0.to_vec());
    let count = u64::try_from(blocks.len()).map_err(|_| CmsError::Crypto)?;
    let mut register = u64::from_be_bytes(*first);
    for round in (0..6u64).rev() {
        for (index, block) in (1u64..).zip(blocks.iter_mut()).collect::<Vec<_>>().into_iter().rev() {
            let mut state = join(register ^ (count * round + index), block);
            cipher.decrypt(&mut *state, DecryptionContext::None).map_err(failed)?;
            let (high, low) = split(&state);
            register = high;
            *block = low;
        }
    }
    if bool::from(register.ct_eq(&INITIAL)) {
        Ok(Zeroizing::new(blocks.as_flattened().to_vec()))
    } else {
        Err(CmsError::Crypto)
    }
}

fn join(high: u64, low: &[u8; 8]) -> Zeroizing<[u8; 16]> {
    let mut state = Zeroizing::new([0u8; 16]);
    for (to, from) in state.iter_mut().zip(high.to_be_bytes().iter().chain(low)) {
        *to = *from;
    }
    state
}

fn split(state: &[u8; 16]) -> (u64, [u8; 8]) {
    let whole = u128::from_be_bytes(*state);
    let low = (whole & u128::from(u64::MAX)) as u64;
    ((whole >> 64) as u64, low.to_be_bytes())
}

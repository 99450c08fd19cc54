//! Content encryption and decryption. One error, whatever fails (A3).

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use bytes::{Bytes, BytesMut};
use rc2::Rc2;
use rc2::cipher::{Array, BlockCipherDecrypt};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater};
use zeroize::Zeroizing;

use crate::cms::algorithm::{ContentAlgorithm, ContentEncryption};
use crate::cms::error::CmsError;

const FAILED: CmsError = CmsError::Crypto;

fn failed(_: Unspecified) -> CmsError {
    FAILED
}

/// The block cipher of a CBC mode (or of GCM, for its counter mode).
#[allow(deprecated, reason = "3DES is read, by the legacy switch only")]
fn block_cipher(cipher: ContentEncryption) -> Option<&'static Algorithm> {
    match cipher {
        ContentEncryption::Aes128Cbc | ContentEncryption::Aes128Gcm => Some(&AES_128),
        ContentEncryption::Aes192Cbc | ContentEncryption::Aes192Gcm => Some(&AES_192),
        ContentEncryption::Aes256Cbc | ContentEncryption::Aes256Gcm => Some(&AES_256),
        ContentEncryption::TripleDesCbc => Some(&aws_lc_rs::cipher::DES_EDE3_FOR_LEGACY_USE_ONLY),
        ContentEncryption::Rc2Cbc128 | ContentEncryption::Rc2Cbc64 | ContentEncryption::Rc2Cbc40 => None,
    }
}

fn gcm_key(cipher: ContentEncryption, cek: &[u8]) -> Result<LessSafeKey, CmsError> {
    let algorithm = match cipher {
        ContentEncryption::Aes128Gcm => &AES_128_GCM,
        ContentEncryption::Aes192Gcm => &AES_192_GCM,
        ContentEncryption::Aes256Gcm => &AES_256_GCM,
        _ => return Err(FAILED),
    };
    UnboundKey::new(algorithm, cek).map(LessSafeKey::new).map_err(failed)
}

/// Octets that `length` octets become when encrypted.
pub(super) fn encrypted_len(cipher: ContentEncryption, length: usize) -> Option<usize> {
    if cipher.is_authenticated() { Some(length) } else { length.checked_add(16 - length % 16) }
}

/// Encrypts the end of `buffer` from `start` where it lies; CBC pads it first. Gives the tag (AEAD), else nothing.
pub(super) fn seal(
    algorithm: &ContentAlgorithm,
    cek: &[u8],
    buffer: &mut Vec<u8>,
    start: usize,
) -> Result<Vec<u8>, CmsError> {
    let derived = algorithm.derivation().map(|info| derive(cek, info));
    let cek = derived.as_ref().map_or(cek, |key| key.as_slice());
    if algorithm.cipher.is_authenticated() {
        let nonce = Nonce::try_assume_unique_for_key(algorithm.iv()).map_err(failed)?;
        let key = gcm_key(algorithm.cipher, cek)?;
        let plain = buffer.get_mut(start..).ok_or(FAILED)?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), plain).map_err(failed)?;
        return Ok(tag.as_ref().to_vec());
    }
    let length = buffer.len().checked_sub(start).ok_or(FAILED)?;
    let padding = 16 - length % 16;
    buffer.resize(buffer.len() + padding, u8::try_from(padding).map_err(|_| FAILED)?);
    let cipher = block_cipher(algorithm.cipher).ok_or(FAILED)?;
    let key = EncryptingKey::cbc(UnboundCipherKey::new(cipher, cek).map_err(failed)?).map_err(failed)?;
    let iv = FixedLength::<16>::try_from(algorithm.iv()).map_err(failed)?;
    let plain = buffer.get_mut(start..).ok_or(FAILED)?;
    key.less_safe_encrypt(plain, EncryptionContext::Iv128(iv)).map_err(failed)?;
    Ok(Vec::new())
}

/// RFC 9709 section 2: HKDF with SHA-256 over the CEK, one block of output.
pub(super) fn derive(cek: &[u8], info: &[u8]) -> Zeroizing<Vec<u8>> {
    let extracted = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"The Cryptographic Message Syntax"), cek);
    let mut expanded = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, extracted.as_ref()));
    expanded.update(info);
    expanded.update(&[1]);
    let mut key = Zeroizing::new(expanded.sign().as_ref().to_vec());
    key.truncate(cek.len());
    key
}

/// Decrypts; nothing comes out unless all checks passed.
pub(super) fn open(
    algorithm: &ContentAlgorithm,
    cek: &[u8],
    encrypted: &[u8],
    attributes: &[u8],
    mac: &[u8],
) -> Result<Vec<u8>, CmsError> {
    let derived = algorithm.derivation().map(|info| derive(cek, info));
    let cek = derived.as_ref().map_or(cek, |key| key.as_slice());
    match (algorithm.cipher.is_authenticated(), mac.len()) {
        (true, 16) => {
            let nonce = Nonce::try_assume_unique_for_key(algorithm.iv()).map_err(failed)?;
            let mut plain = vec![0u8; encrypted.len()];
            gcm_key(algorithm.cipher, cek)?
                .open_separate_gather(nonce, Aad::from(attributes), encrypted, mac, &mut plain)
                .map_err(failed)?;
            Ok(plain)
        }
        (true, 12..=15) => open_short_tag(algorithm, cek, encrypted, attributes, mac),
        (false, 0) => open_cbc(algorithm, cek, encrypted),
        _ => Err(FAILED),
    }
}

/// The same where the octets lie, so that a large content is in memory once. They are lost where a check fails.
pub(super) fn open_in_place(
    algorithm: &ContentAlgorithm,
    cek: &[u8],
    mut buffer: BytesMut,
    attributes: &[u8],
    mac: &[u8],
) -> Result<Bytes, CmsError> {
    let derived = algorithm.derivation().map(|info| derive(cek, info));
    let key = derived.as_ref().map_or(cek, |key| key.as_slice());
    let length = match (algorithm.cipher.is_authenticated(), mac.len()) {
        (true, 16) => {
            let nonce = Nonce::try_assume_unique_for_key(algorithm.iv()).map_err(failed)?;
            buffer.extend_from_slice(mac);
            let opened = gcm_key(algorithm.cipher, key)?.open_in_place(nonce, Aad::from(attributes), &mut buffer);
            opened.map_err(failed)?.len()
        }
        (false, 0) => decrypt_cbc(algorithm, key, &mut buffer)?,
        _ => return open(algorithm, cek, &buffer, attributes, mac).map(Bytes::from),
    };
    buffer.truncate(length);
    Ok(buffer.freeze())
}

/// GCM with a tag of 12 to 15 octets, which aws-lc-rs does not check: decrypt in counter mode, seal again, compare the tag's beginning.
fn open_short_tag(
    algorithm: &ContentAlgorithm,
    cek: &[u8],
    encrypted: &[u8],
    attributes: &[u8],
    mac: &[u8],
) -> Result<Vec<u8>, CmsError> {
    // SP 800-38D section 7.1: the content begins with the counter block after J0 = nonce || 1.
    let mut counter = [0u8; 16];
    for (to, from) in counter.iter_mut().zip(algorithm.iv().iter().chain(&[0, 0, 0, 2])) {
        *to = *from;
    }
    let cipher = block_cipher(algorithm.cipher).ok_or(FAILED)?;
    let key = DecryptingKey::ctr(UnboundCipherKey::new(cipher, cek).map_err(failed)?).map_err(failed)?;
    let mut plain = encrypted.to_vec();
    key.decrypt(&mut plain, DecryptionContext::Iv128(FixedLength::from(counter))).map_err(failed)?;
    let mut again = plain.clone();
    let nonce = Nonce::try_assume_unique_for_key(algorithm.iv()).map_err(failed)?;
    let tag = gcm_key(algorithm.cipher, cek)?
        .seal_in_place_separate_tag(nonce, Aad::from(attributes), &mut again)
        .map_err(failed)?;
    let tag = tag.as_ref().get(..mac.len()).ok_or(FAILED)?;
    if bool::from(tag.ct_eq(mac)) { Ok(plain) } else { Err(FAILED) }
}

fn open_cbc(algorithm: &ContentAlgorithm, cek: &[u8], encrypted: &[u8]) -> Result<Vec<u8>, CmsError> {
    let mut plain = encrypted.to_vec();
    let length = decrypt_cbc(algorithm, cek, &mut plain)?;
    plain.truncate(length);
    Ok(plain)
}

/// Decrypts where the octets lie; gives the length without padding.
fn decrypt_cbc(algorithm: &ContentAlgorithm, cek: &[u8], in_out: &mut [u8]) -> Result<usize, CmsError> {
    let block = algorithm.iv().len();
    if in_out.is_empty() || block == 0 || !in_out.len().is_multiple_of(block) {
        return Err(FAILED);
    }
    match block_cipher(algorithm.cipher) {
        Some(cipher) => decrypt_blocks_in_place(cipher, cek, algorithm.iv(), in_out)?,
        None => decrypt_rc2(algorithm.cipher, cek, algorithm.iv(), in_out)?,
    }
    padded_length(in_out, block).ok_or(FAILED)
}

/// CBC over whole blocks, without a look at any padding.
fn decrypt_blocks_in_place(
    cipher: &'static Algorithm,
    key: &[u8],
    iv: &[u8],
    in_out: &mut [u8],
) -> Result<(), CmsError> {
    let context = match iv {
        iv @ [_, _, _, _, _, _, _, _] => DecryptionContext::Iv64(FixedLength::try_from(iv).map_err(failed)?),
        iv => DecryptionContext::Iv128(FixedLength::try_from(iv).map_err(failed)?),
    };
    let key = DecryptingKey::cbc(UnboundCipherKey::new(cipher, key).map_err(failed)?).map_err(failed)?;
    key.decrypt(in_out, context).map_err(failed)?;
    Ok(())
}

/// Whether `decrypt_blocks` knows this cipher.
pub(super) fn is_block_cipher(cipher: ContentEncryption) -> bool {
    !cipher.is_authenticated() && block_cipher(cipher).is_some()
}

/// Whole blocks decrypted in CBC mode, without padding: for the key wrap of RFC 3211.
pub(super) fn decrypt_blocks(
    cipher: ContentEncryption,
    key: &[u8],
    iv: &[u8],
    blocks: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CmsError> {
    let mut plain = Zeroizing::new(blocks.to_vec());
    decrypt_blocks_in_place(block_cipher(cipher).ok_or(FAILED)?, key, iv, &mut plain)?;
    Ok(plain)
}

/// RC2-CBC (RFC 2268): old mail, read by the legacy switch.
fn decrypt_rc2(cipher: ContentEncryption, cek: &[u8], iv: &[u8], in_out: &mut [u8]) -> Result<(), CmsError> {
    let bits = match cipher {
        ContentEncryption::Rc2Cbc128 => 128,
        ContentEncryption::Rc2Cbc64 => 64,
        ContentEncryption::Rc2Cbc40 => 40,
        _ => return Err(FAILED),
    };
    // The crate panics on keys of no or more than 128 octets.
    if cek.len() != cipher.key_len() {
        return Err(FAILED);
    }
    let key = Rc2::new_with_eff_key_len(cek, bits);
    let mut previous: [u8; 8] = iv.try_into().map_err(|_| FAILED)?;
    for block in in_out.as_chunks_mut::<8>().0 {
        let encrypted = *block;
        let mut state = Array::from(encrypted);
        key.decrypt_block(&mut state);
        for ((to, from), mask) in block.iter_mut().zip(state).zip(previous) {
            *to = from ^ mask;
        }
        previous = encrypted;
    }
    Ok(())
}

/// The length without PKCS#7 padding (RFC 5652 section 6.3); the whole last block is looked at whatever it holds.
fn padded_length(plain: &[u8], block: usize) -> Option<usize> {
    let last_block = plain.get(plain.len().checked_sub(block)?..)?;
    let padding = *last_block.last()?;
    let size = u8::try_from(block).ok()?;
    let mut good = !padding.ct_gt(&size) & !padding.ct_eq(&0);
    for (position, octet) in (1u8..).zip(last_block.iter().rev()) {
        let inside = !position.ct_gt(&padding);
        good &= Choice::conditional_select(&Choice::from(1), &octet.ct_eq(&padding), inside);
    }
    if bool::from(good) { plain.len().checked_sub(usize::from(padding)) } else { None }
}

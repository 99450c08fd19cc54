//! Keys from passwords: PKCS#12's own derivation (RFC 7292 appendix B) and PBKDF2 (RFC 8018), under a bound on all their work.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::{MAX_ITERATIONS, Pkcs12Error};

/// A password in the forms that the derivations want.
pub(super) struct Password<'a> {
    pub(super) utf8: &'a str,
    /// BMPString with its two zero octets (RFC 7292 B.1); without them for the other form of the empty password.
    pub(super) bmp: Zeroizing<Vec<u8>>,
}

impl<'a> Password<'a> {
    pub(super) fn new(utf8: &'a str) -> Self {
        let bmp = utf8.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect();
        Self { utf8, bmp: Zeroizing::new(bmp) }
    }
    /// The empty password as no octets at all, as some programs have it.
    pub(super) fn absent() -> Self {
        Self { utf8: "", bmp: Zeroizing::default() }
    }
}

/// What the iterations done for one file may be in sum.
pub(super) struct Work {
    done: u64,
}

impl Work {
    pub(super) fn new() -> Self {
        Self { done: 0 }
    }
    /// Counts work before it is done.
    pub(super) fn charge(&mut self, iterations: u64, blocks: usize) -> Result<NonZeroU32, Pkcs12Error> {
        self.done = self.done.saturating_add(iterations.saturating_mul(blocks as u64));
        let fits = u32::try_from(iterations).ok().filter(|_| self.done <= MAX_ITERATIONS).and_then(NonZeroU32::new);
        match fits {
            Some(count) => Ok(count),
            None if iterations == 0 => Err(Pkcs12Error::Malformed("an iteration count of 0".to_owned())),
            None => Err(Pkcs12Error::Iterations(self.done.max(iterations), MAX_ITERATIONS)),
        }
    }
}

/// What derived octets are for (RFC 7292 B.3).
#[derive(Clone, Copy)]
pub(super) enum Use {
    Key = 1,
    Iv = 2,
    Mac = 3,
}

/// RFC 7292 B.2.
pub(super) fn pkcs12(
    algorithm: &'static digest::Algorithm,
    password: &Password<'_>,
    salt: &[u8],
    purpose: Use,
    iterations: u64,
    length: usize,
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    let output = algorithm.output_len();
    let count = work.charge(iterations, length.div_ceil(output.max(1)))?.get();
    let block = algorithm.block_len();
    let filled = |octets: &[u8]| -> Vec<u8> {
        octets.iter().copied().cycle().take(octets.len().div_ceil(block) * block).collect()
    };
    let diversifier = vec![purpose as u8; block];
    let mut input = Zeroizing::new(filled(salt));
    input.extend_from_slice(&Zeroizing::new(filled(&password.bmp)));
    let mut out = Zeroizing::new(Vec::with_capacity(length + output));
    loop {
        let mut context = digest::Context::new(algorithm);
        context.update(&diversifier);
        context.update(&input);
        let mut hash = context.finish();
        for _ in 1..count {
            hash = digest::digest(algorithm, hash.as_ref());
        }
        out.extend_from_slice(hash.as_ref());
        if out.len() >= length {
            out.truncate(length);
            return Ok(out);
        }
        let adjust: Zeroizing<Vec<u8>> = Zeroizing::new(hash.as_ref().iter().copied().cycle().take(block).collect());
        for chunk in input.chunks_mut(block) {
            let mut carry = 1u16;
            for (octet, add) in chunk.iter_mut().zip(adjust.iter()).rev() {
                carry += u16::from(*octet) + u16::from(*add);
                *octet = carry as u8;
                carry >>= 8;
            }
        }
    }
}

/// The pseudo-random functions of PBKDF2 that files use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prf {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Prf {
    pub(super) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => hmac::HMAC_SHA224,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// RFC 8018 section 5.2. `length` is at most 64.
pub(super) fn pbkdf2(
    prf: Prf,
    password: &str,
    salt: &[u8],
    iterations: u64,
    length: usize,
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    let blocks = length.div_ceil(prf.hmac().digest_algorithm().output_len().max(1));
    let count = work.charge(iterations, blocks)?;
    let mut out = Zeroizing::new(vec![0u8; length]);
    let algorithm = match prf {
        Prf::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        Prf::Sha224 => {
            sha224(password, salt, count, &mut out);
            return Ok(out);
        }
        Prf::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        Prf::Sha384 => pbkdf2::PBKDF2_HMAC_SHA384,
        Prf::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
    };
    pbkdf2::derive(algorithm, count, salt, password.as_bytes(), &mut out);
    Ok(out)
}

/// The same with HMAC-SHA-224, which aws-lc-rs leaves out.
fn sha224(password: &str, salt: &[u8], count: NonZeroU32, out: &mut [u8]) {
    let key = hmac::Key::new(hmac::HMAC_SHA224, password.as_bytes());
    for (index, chunk) in (1u32..).zip(out.chunks_mut(28)) {
        let mut context = hmac::Context::with_key(&key);
        context.update(salt);
        context.update(&index.to_be_bytes());
        let mut last = context.sign();
        let mut sum = Zeroizing::new(last.as_ref().to_vec());
        for _ in 1..count.get() {
            last = hmac::sign(&key, last.as_ref());
            sum.iter_mut().zip(last.as_ref()).for_each(|(sum, octet)| *sum ^= octet);
        }
        chunk.iter_mut().zip(sum.iter()).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pbkdf2_hmac_sha224_fits_the_others_shape() {
        // RFC 6070's first inputs; the value is OpenSSL's for SHA-224.
        let one = pbkdf2(Prf::Sha224, "password", b"salt", 1, 28, &mut Work::new()).unwrap();
        let long = pbkdf2(Prf::Sha224, "password", b"salt", 1, 32, &mut Work::new()).unwrap();
        assert_eq!(one[..], long[..28]);
        assert_eq!(one[..4], [0x3c, 0x19, 0x8c, 0xbd]);
    }

    #[test]
    fn work_is_bounded_in_sum_and_before_it_is_done() {
        let mut work = Work::new();
        assert!(work.charge(MAX_ITERATIONS, 1).is_ok());
        assert!(matches!(work.charge(1, 1), Err(Pkcs12Error::Iterations(..))));
        assert!(matches!(Work::new().charge(u64::MAX, 2), Err(Pkcs12Error::Iterations(..))));
        assert!(matches!(Work::new().charge(0, 1), Err(Pkcs12Error::Malformed(_))));
    }
}

//! Encryption under passwords: the schemes of PKCS#12 (RFC 7292 appendix C) and PBES2 (RFC 8018 section 6.2).

use aws_lc_rs::cipher::{
    self, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::digest;
use aws_lc_rs::iv::FixedLength;
use rc2::cipher::{BlockCipherDecrypt, array::Array};
use zeroize::Zeroizing;

use super::kdf::{Password, Prf, Use, Work, pbkdf2, pkcs12};
use super::{Pkcs12Error, malformed};
use crate::pki::asn1::{Reader, Tlv, number, oid_text, sequence, tag, write};

/// Content of OBJECT IDENTIFIERs.
pub(super) mod id {
    pub(in crate::pki::pkcs12) const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
    pub(in crate::pki::pkcs12) const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 12];
    /// 1.2.840.113549.1.12.1
    pub(in crate::pki::pkcs12) const PKCS12_PBE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1];
    /// 1.2.840.113549.2
    pub(in crate::pki::pkcs12) const HMAC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2];
    pub(in crate::pki::pkcs12) const HMAC_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 9];
    /// 2.16.840.1.101.3.4.1
    pub(in crate::pki::pkcs12) const AES: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1];
    pub(in crate::pki::pkcs12) const AES256_CBC: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42];
    pub(in crate::pki::pkcs12) const DES_EDE3_CBC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7];
}

/// Salts longer than this are refused.
const MAX_SALT: usize = 1024;

/// A cipher in CBC mode with PKCS#7 padding.
#[derive(Clone, Copy)]
enum Cipher {
    Aes128,
    Aes192,
    Aes256,
    TripleDes3,
    TripleDes2,
    Rc2_128,
    Rc2_40,
}

impl Cipher {
    fn key_len(self) -> usize {
        match self {
            Self::Aes128 | Self::TripleDes2 | Self::Rc2_128 => 16,
            Self::Aes192 | Self::TripleDes3 => 24,
            Self::Aes256 => 32,
            Self::Rc2_40 => 5,
        }
    }
}

fn unsupported(what: &str, oid: &[u8]) -> Pkcs12Error {
    Pkcs12Error::Unsupported(format!("{what} {}", oid_text(oid)))
}

/// Derived keys, so that a file that uses one salt throughout costs one derivation.
#[derive(Default)]
pub(super) struct Derived(Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>);

/// Decrypts `ciphertext` by an AlgorithmIdentifier. A wrong password shows as `Password`.
pub(super) fn decrypt(
    algorithm: Tlv<'_>,
    ciphertext: &[u8],
    password: &Password<'_>,
    work: &mut Work,
    derived: &mut Derived,
) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    let mut fields = algorithm.reader();
    let oid = fields.expect(tag::OID, "an algorithm has an OID").map_err(malformed)?;
    let parameters = fields.expect(tag::SEQUENCE, "a password-based scheme has parameters").map_err(malformed)?;
    let (cipher, key, iv) = match oid.value {
        id::PBES2 => pbes2(parameters, password, work, derived)?,
        other => match other.strip_prefix(id::PKCS12_PBE) {
            Some([scheme]) => pbes1(*scheme, other, parameters, password, work)?,
            _ => return Err(unsupported("encryption scheme", other)),
        },
    };
    cbc_decrypt(cipher, &key, &iv, ciphertext)
}

type Parts = (Cipher, Zeroizing<Vec<u8>>, Vec<u8>);

fn pbes1(
    scheme: u8,
    oid: &[u8],
    parameters: Tlv<'_>,
    password: &Password<'_>,
    work: &mut Work,
) -> Result<Parts, Pkcs12Error> {
    let cipher = match scheme {
        3 => Cipher::TripleDes3,
        4 => Cipher::TripleDes2,
        5 => Cipher::Rc2_128,
        6 => Cipher::Rc2_40,
        _ => return Err(unsupported("encryption scheme", oid)),
    };
    let mut fields = parameters.reader();
    let salt = read_salt(&mut fields)?;
    let iterations =
        fields.expect(tag::INTEGER, "an iteration count").and_then(|tlv| tlv.unsigned()).map_err(malformed)?;
    let sha1 = &digest::SHA1_FOR_LEGACY_USE_ONLY;
    let key = pkcs12(sha1, password, salt, Use::Key, iterations, cipher.key_len(), work)?;
    let iv = pkcs12(sha1, password, salt, Use::Iv, iterations, 8, work)?;
    Ok((cipher, key, iv.to_vec()))
}

fn read_salt<'a>(fields: &mut Reader<'a>) -> Result<&'a [u8], Pkcs12Error> {
    let salt = fields.expect(tag::OCTET_STRING, "a salt is an OCTET STRING").map_err(malformed)?;
    if salt.value.len() > MAX_SALT {
        return Err(Pkcs12Error::Malformed(format!(
            "a salt of {} octets, at most {MAX_SALT} are read",
            salt.value.len()
        )));
    }
    Ok(salt.value)
}

fn pbes2(
    parameters: Tlv<'_>,
    password: &Password<'_>,
    work: &mut Work,
    derived: &mut Derived,
) -> Result<Parts, Pkcs12Error> {
    let mut fields = parameters.reader();
    let function = fields.expect(tag::SEQUENCE, "PBES2 has a key derivation function").map_err(malformed)?;
    let mut scheme = fields.sequence("PBES2 has an encryption scheme").map_err(malformed)?;
    let oid = scheme.expect(tag::OID, "an algorithm has an OID").map_err(malformed)?;
    let iv = scheme.expect(tag::OCTET_STRING, "an initialisation vector").map_err(malformed)?;
    let cipher = match (oid.value, oid.value.strip_prefix(id::AES)) {
        (id::DES_EDE3_CBC, _) => Cipher::TripleDes3,
        (_, Some([2])) => Cipher::Aes128,
        (_, Some([22])) => Cipher::Aes192,
        (_, Some([42])) => Cipher::Aes256,
        (other, _) => return Err(unsupported("cipher", other)),
    };
    let known = derived.0.iter().find(|(by, key)| by == function.full && key.len() == cipher.key_len());
    if let Some((_, key)) = known {
        return Ok((cipher, key.clone(), iv.value.to_vec()));
    }
    let key = pbkdf2_by(function, Some(cipher.key_len()), password, work)?.1;
    derived.0.push((function.full.to_vec(), key.clone()));
    Ok((cipher, key, iv.value.to_vec()))
}

/// Derives by a PBKDF2 AlgorithmIdentifier; its keyLength must be `length`, or is taken where that is `None`.
pub(super) fn pbkdf2_by(
    function: Tlv<'_>,
    length: Option<usize>,
    password: &Password<'_>,
    work: &mut Work,
) -> Result<(Prf, Zeroizing<Vec<u8>>), Pkcs12Error> {
    let mut fields = function.reader();
    let oid = fields.expect(tag::OID, "an algorithm has an OID").map_err(malformed)?;
    if oid.value != id::PBKDF2 {
        return Err(unsupported("key derivation function", oid.value));
    }
    let mut fields = fields.sequence("PBKDF2 has parameters").map_err(malformed)?;
    let salt = read_salt(&mut fields)?;
    let iterations =
        fields.expect(tag::INTEGER, "an iteration count").and_then(|tlv| tlv.unsigned()).map_err(malformed)?;
    let stated = match fields.optional(tag::INTEGER).map_err(malformed)? {
        Some(stated) => usize::try_from(stated.unsigned().map_err(malformed)?).ok(),
        None => None,
    };
    let length = match (stated, length) {
        (Some(stated), Some(wanted)) if stated != wanted => {
            return Err(Pkcs12Error::Malformed(format!(
                "PBKDF2 makes a key of {stated} octets, the cipher wants {wanted}"
            )));
        }
        (_, Some(wanted)) => wanted,
        // RFC 9579 section 5: keyLength has to be there.
        (Some(stated), None) if (1..=64).contains(&stated) => stated,
        _ => return Err(Pkcs12Error::Malformed("PBMAC1 without a keyLength of 1 to 64".to_owned())),
    };
    let prf = match fields.optional(tag::SEQUENCE).map_err(malformed)? {
        None => Prf::Sha1,
        Some(algorithm) => read_prf(algorithm)?,
    };
    Ok((prf, pbkdf2(prf, password.utf8, salt, iterations, length, work)?))
}

/// The same for a password's key in CMS (RFC 3211): of `length` octets, by the DER of an AlgorithmIdentifier, under a bound of its own.
pub(crate) fn derive_by_pbkdf2(der: &[u8], length: usize, password: &str) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    let function = Reader::new(der).expect(tag::SEQUENCE, "an AlgorithmIdentifier").map_err(malformed)?;
    Ok(pbkdf2_by(function, Some(length), &Password::new(password), &mut Work::new())?.1)
}

/// An AlgorithmIdentifier of HMAC.
pub(super) fn read_prf(algorithm: Tlv<'_>) -> Result<Prf, Pkcs12Error> {
    let oid = algorithm.reader().expect(tag::OID, "an algorithm has an OID").map_err(malformed)?;
    match oid.value.strip_prefix(id::HMAC) {
        Some([7]) => Ok(Prf::Sha1),
        Some([8]) => Ok(Prf::Sha224),
        Some([9]) => Ok(Prf::Sha256),
        Some([10]) => Ok(Prf::Sha384),
        Some([11]) => Ok(Prf::Sha512),
        _ => Err(unsupported("pseudo-random function", oid.value)),
    }
}

#[allow(deprecated, reason = "3DES is read, never written")]
fn cbc_decrypt(cipher: Cipher, key: &[u8], iv: &[u8], ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    let wrong_iv = || Pkcs12Error::Malformed("an initialisation vector of the wrong length".to_owned());
    let algorithm = match cipher {
        Cipher::Aes128 => &cipher::AES_128,
        Cipher::Aes192 => &cipher::AES_192,
        Cipher::Aes256 => &cipher::AES_256,
        Cipher::TripleDes3 => &cipher::DES_EDE3_FOR_LEGACY_USE_ONLY,
        Cipher::TripleDes2 => &cipher::DES_EDE_FOR_LEGACY_USE_ONLY,
        Cipher::Rc2_128 | Cipher::Rc2_40 => {
            return rc2_decrypt(key, <[u8; 8]>::try_from(iv).map_err(|_| wrong_iv())?, ciphertext);
        }
    };
    let context = if matches!(cipher, Cipher::Aes128 | Cipher::Aes192 | Cipher::Aes256) {
        DecryptionContext::Iv128(FixedLength::from(<[u8; 16]>::try_from(iv).map_err(|_| wrong_iv())?))
    } else {
        DecryptionContext::Iv64(FixedLength::from(<[u8; 8]>::try_from(iv).map_err(|_| wrong_iv())?))
    };
    let key = UnboundCipherKey::new(algorithm, key)
        .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
        .map_err(|_| Pkcs12Error::Password)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let length = key.decrypt(&mut buffer, context).map_err(|_| Pkcs12Error::Password)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

fn rc2_decrypt(key: &[u8], iv: [u8; 8], ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    let cipher = rc2::Rc2::new_with_eff_key_len(key, key.len() * 8);
    let mut out = Zeroizing::new(Vec::with_capacity(ciphertext.len()));
    let mut previous = iv;
    let (blocks, rest) = ciphertext.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Pkcs12Error::Malformed("RC2 ciphertext that is not whole blocks".to_owned()));
    }
    for block in blocks {
        let mut plain = Array::from(*block);
        cipher.decrypt_block(&mut plain);
        out.extend(plain.iter().zip(previous).map(|(octet, before)| octet ^ before));
        previous = *block;
    }
    let padding = usize::from(*out.last().ok_or(Pkcs12Error::Password)?);
    let length = out.len().checked_sub(padding).filter(|_| (1..=8).contains(&padding)).ok_or(Pkcs12Error::Password)?;
    if out.iter().skip(length).any(|octet| usize::from(*octet) != padding) {
        return Err(Pkcs12Error::Password);
    }
    out.truncate(length);
    Ok(out)
}

/// A key made once for all that is written into one file.
pub(super) struct Encryptor {
    key: Zeroizing<Vec<u8>>,
    /// The PBKDF2 AlgorithmIdentifier.
    function: Vec<u8>,
}

impl Encryptor {
    pub(super) fn new(password: &str, salt: &[u8], iterations: u64) -> Result<Self, Pkcs12Error> {
        let key = pbkdf2(Prf::Sha256, password, salt, iterations, 32, &mut Work::new())?;
        let prf = sequence(&[&write(tag::OID, &[id::HMAC_SHA256]), &write(tag::NULL, &[])]);
        let parameters = sequence(&[&write(tag::OCTET_STRING, &[salt]), &number(iterations), &prf]);
        Ok(Self { key, function: sequence(&[&write(tag::OID, &[id::PBKDF2]), &parameters]) })
    }
    /// The AlgorithmIdentifier and the ciphertext, with a fresh IV.
    pub(super) fn encrypt(&self, plain: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Pkcs12Error> {
        let failed = |_| Pkcs12Error::Unsupported("encryption failed".to_owned());
        let mut iv = [0u8; 16];
        aws_lc_rs::rand::fill(&mut iv).map_err(failed)?;
        let key = UnboundCipherKey::new(&cipher::AES_256, &self.key)
            .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
            .map_err(failed)?;
        let mut buffer = plain.to_vec();
        key.less_safe_encrypt(&mut buffer, EncryptionContext::Iv128(FixedLength::from(iv))).map_err(failed)?;
        let scheme = sequence(&[&write(tag::OID, &[id::AES256_CBC]), &write(tag::OCTET_STRING, &[&iv])]);
        let algorithm = sequence(&[&write(tag::OID, &[id::PBES2]), &sequence(&[&self.function, &scheme])]);
        Ok((algorithm, buffer))
    }
}

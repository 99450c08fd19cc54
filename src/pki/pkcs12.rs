//! PKCS#12 (RFC 7292) import and export with bounded KDF work.

use zeroize::Zeroizing;

use super::certificate::Certificate;

/// Why a PKCS#12 or key file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs12Error {
    #[error("not a PKCS#12 file: {0}")]
    Malformed(String),
    #[error("wrong password (the integrity check failed)")]
    Password,
    #[error("{0} iterations asked for, at most {1} are done here")]
    Iterations(u64, u64),
    #[error("unsupported: {0}")]
    Unsupported(String),
}

/// What was in it: keys as PKCS#8 DER, wiped when dropped.
#[derive(Default)]
pub struct Bundle {
    pub keys: Vec<Zeroizing<Vec<u8>>>,
    pub certificates: Vec<Certificate>,
}

/// Reads PKCS#12, BER or DER, PEM-armoured too, modern (PBES2) and legacy (3DES, RC2-40) alike; MAC checked first.
pub fn import(_octets: &[u8], _password: &str) -> Result<Bundle, Pkcs12Error> {
    todo!()
}

/// Writes PKCS#12 with PBES2 (AES-256-CBC, PBKDF2-HMAC-SHA-256) and a SHA-256 MAC.
pub fn export(_bundle: &Bundle, _password: &str, _friendly_name: &str) -> Result<Vec<u8>, Pkcs12Error> {
    todo!()
}

/// Reads any of: PKCS#12, PEM with keys (PKCS#8, encrypted PKCS#8, PKCS#1, SEC 1) and certificates, DER of one of these.
pub fn read_any(_octets: &[u8], _password: Option<&str>) -> Result<Bundle, Pkcs12Error> {
    todo!()
}

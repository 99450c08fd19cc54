//! Issues certificates from a recipe: the PKI of the tests and the demo. Never for production use.

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::certificate::Certificate;

/// Which key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKey {
    Rsa2048,
    Rsa3072,
    Rsa4096,
    P256,
    P384,
}

/// What a certificate is to say.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub common_name: String,
    /// rfc822Name entries of the SAN.
    pub mailboxes: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// `Some(path length)` makes a CA.
    pub ca: Option<Option<u8>>,
    /// keyUsage bits by name (`digitalSignature`, `keyEncipherment`, …); empty leaves the extension out.
    pub key_usage: Vec<&'static str>,
    /// emailProtection in the EKU; `None` leaves the extension out.
    pub email_protection: Option<bool>,
    /// Permitted rfc822Name subtrees (name constraints), for a CA.
    pub permitted_mail: Vec<String>,
    pub key: NewKey,
}

/// A certificate with its private key (PKCS#8).
pub struct Issued {
    pub certificate: Certificate,
    pub pkcs8: Zeroizing<Vec<u8>>,
}

/// Makes a key and a certificate signed by `issuer`, or by itself.
pub fn issue(_recipe: &Recipe, _issuer: Option<&Issued>) -> Issued {
    todo!()
}

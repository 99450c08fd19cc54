//! Kinds of keys and curves, as SubjectPublicKeyInfo and PrivateKeyInfo name them (RFC 3279, RFC 4055, RFC 5480, RFC 8410).

use const_oid::ObjectIdentifier;

use super::id;

/// rsaEncryption.
pub const RSA_ENCRYPTION: ObjectIdentifier = id("1.2.840.113549.1.1.1");
/// id-RSASSA-PSS.
pub const RSASSA_PSS: ObjectIdentifier = id("1.2.840.113549.1.1.10");
/// id-RSAES-OAEP.
pub const RSAES_OAEP: ObjectIdentifier = id("1.2.840.113549.1.1.7");
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

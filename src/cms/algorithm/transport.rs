//! Key transport under RSA (RFC 3370 section 4.2.1, RFC 3560).

use const_oid::ObjectIdentifier;

use super::digest::Digest;
use super::key::{RSA_ENCRYPTION, RSAES_OAEP};
use super::mask::{hash_and_mask, hash_and_mask_der};
use super::{AlgorithmIdentifier, NULL, id};
use crate::cms::ber::{tag, write};
use crate::cms::error::CmsError;

/// How a CEK is transported under RSA (RFC 3370, RFC 3560).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyTransport {
    RsaPkcs1,
    /// OAEP with this digest, MGF1 of the second, empty label.
    RsaOaep(Digest, Digest),
}

const P_SPECIFIED: ObjectIdentifier = id("1.2.840.113549.1.1.9");

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
            if hash == Digest::Sha224 {
                return Err(found.refused("OAEP with SHA-224 is not supported"));
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

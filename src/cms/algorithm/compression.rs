//! Compression (RFC 3274).

use const_oid::ObjectIdentifier;

use super::{AlgorithmIdentifier, id};
use crate::cms::error::CmsError;

/// id-alg-zlibCompress.
const ZLIB_COMPRESS: ObjectIdentifier = id("1.2.840.113549.1.9.16.3.8");

/// Reads a compression algorithm: zlib (RFC 1950) is the only one there is; parameters absent (RFC 3274 section 1.2), or NULL.
pub fn compression(der: &[u8]) -> Result<(), CmsError> {
    let found = AlgorithmIdentifier::from_der(der)?;
    if found.oid != ZLIB_COMPRESS {
        return Err(found.refused("not a compression known here"));
    }
    found.null_or_absent()
}

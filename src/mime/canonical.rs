//! Canonical form (RFC 8551 section 3.1.1) and preparation that survives 7-bit hops (section 3.1.3).

use bytes::Bytes;

use super::entity::{Entity, MimeLimits};
use super::header::MimeError;

/// Bare CR and bare LF turned into CRLF; no copy where nothing changes.
pub fn canonical_line_ends(_octets: &Bytes) -> Bytes {
    todo!()
}

/// A message taken apart for protection.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Fields that stay outside (all but Content-* and MIME-Version), as received.
    pub outer: Bytes,
    /// The MIME entity to protect: Content-* fields, empty line, body; canonical and 7-bit safe.
    pub inner: Bytes,
}

/// Prepares a whole message: its MIME fields move inside; every leaf that a 7-bit hop could change (8-bit octets, lines over
/// 998, "From " at the start of a line, trailing white space, bare CR or LF) is re-encoded as quoted-printable or base64,
/// the rest is kept octet for octet. Inner multipart/signed and multipart/encrypted parts are never touched: where one would
/// need it, the whole is an error.
pub fn prepare(_message: &Entity, _limits: &MimeLimits) -> Result<Prepared, MimeError> {
    todo!()
}

/// Whether a 7-bit hop leaves these octets alone: ASCII, lines to 998, CRLF only, no "From ", no trailing white space.
pub fn is_seven_bit_safe(_octets: &[u8]) -> bool {
    todo!()
}

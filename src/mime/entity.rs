//! An entity: raw spans over the received octets (RFC 2045, RFC 2046). Nothing is decoded until asked for.

use bytes::Bytes;

use super::header::{ContentType, Header, MimeError};

/// Bounds for reading hostile mail (A13).
#[derive(Debug, Clone, Copy)]
pub struct MimeLimits {
    /// Nesting of multiparts and messages; default 20.
    pub depth: usize,
    /// Parts in the whole tree; default 10,000.
    pub parts: usize,
    /// Fields in one header; default 2,000.
    pub fields: usize,
}

impl Default for MimeLimits {
    fn default() -> Self {
        Self { depth: 20, parts: 10_000, fields: 2_000 }
    }
}

/// A header and a body over the octets received.
#[derive(Debug, Clone)]
pub struct Entity {
    /// Header, separator and body as received.
    pub raw: Bytes,
    /// The header.
    pub header: Header,
    /// The body as received, after the empty line.
    pub body: Bytes,
}

impl Entity {
    /// Splits header and body; cheap: the body is not looked at.
    pub fn parse(_octets: Bytes, _limits: &MimeLimits) -> Result<Self, MimeError> {
        todo!()
    }
    /// The Content-Type; `text/plain` where there is none; an error where it can be read two ways (A14).
    pub fn content_type(&self) -> Result<ContentType, MimeError> {
        todo!()
    }
    /// The parts of a multipart, found with our own boundary scanner (RFC 2046 5.1). Each part's `raw` excludes the line
    /// end that belongs to the delimiter. Ambiguous boundaries (a prefix of another, missing close) are errors.
    pub fn parts(&self, _limits: &MimeLimits) -> Result<Vec<Entity>, MimeError> {
        todo!()
    }
    /// The body with its Content-Transfer-Encoding undone; bad base64 is an error (A14). 7bit, 8bit and binary are sliced.
    pub fn decoded_body(&self) -> Result<Bytes, MimeError> {
        todo!()
    }
}

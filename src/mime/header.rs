//! Header fields (RFC 5322), parameters (RFC 2045, RFC 2231), mailboxes; the one header writer.

use bytes::Bytes;

use crate::address::Mailbox;

/// What is wrong with a header field or an entity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MimeError {
    /// The same thing stands there twice or can be read two ways (A14).
    #[error("ambiguous: {0}")]
    Ambiguous(&'static str),
    /// Not well-formed.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A limit was reached (A13).
    #[error("too deep or too large: {0}")]
    Limit(&'static str),
    /// CR, LF or NUL where none may be (A15).
    #[error("forbidden character in {0}")]
    Forbidden(&'static str),
}

/// One field over the octets received.
#[derive(Debug, Clone)]
pub struct Field {
    /// Name, colon, value, folds and the last line end, as received.
    pub raw: Bytes,
    /// Length of the name in `raw`.
    name_len: usize,
}

impl Field {
    /// The name as written.
    pub fn name(&self) -> &str {
        todo!()
    }
    /// Compares the name, ASCII case-insensitively.
    pub fn is(&self, _name: &str) -> bool {
        todo!()
    }
    /// The value with folds removed, surrounding white space too; octets that are not UTF-8 are replaced.
    pub fn value(&self) -> String {
        todo!()
    }
    /// The value with RFC 2047 encoded words decoded, for matching and showing, never for security decisions.
    pub fn decoded(&self) -> String {
        todo!()
    }
}

/// A header: its fields in order.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// All octets of the header, the empty line left out.
    pub raw: Bytes,
    /// Fields, in order.
    pub fields: Vec<Field>,
    /// Lines that are no field (kept in `raw`).
    pub defects: Vec<&'static str>,
}

impl Header {
    /// Fields of that name, in order.
    pub fn all<'a>(&'a self, _name: &'a str) -> Box<dyn Iterator<Item = &'a Field> + 'a> {
        todo!()
    }
    /// The one field of that name; two are an error, none is `None`.
    pub fn one(&self, _name: &'static str) -> Result<Option<&Field>, MimeError> {
        todo!()
    }
    /// The single author: exactly one From with exactly one mailbox (A7, A31).
    pub fn single_from(&self) -> Result<Mailbox, MimeError> {
        todo!()
    }
    /// All mailboxes of To and Cc that can be read.
    pub fn to_and_cc(&self) -> Vec<Mailbox> {
        todo!()
    }
}

/// A Content-Type, read strictly: a duplicate parameter is ambiguous (A14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType {
    /// `type/subtype`, lower case.
    pub essence: String,
    /// Parameters: name in lower case, value unquoted, RFC 2231 continuations joined.
    pub parameters: Vec<(String, String)>,
}

impl ContentType {
    /// Reads a field's value.
    pub fn parse(_value: &str) -> Result<Self, MimeError> {
        todo!()
    }
    /// A parameter's value.
    pub fn parameter(&self, _name: &str) -> Option<&str> {
        todo!()
    }
}

/// Writes header fields: folds at 78, encodes what is not ASCII (RFC 2047), refuses CR, LF and NUL (A15).
#[derive(Debug, Default)]
pub struct HeaderWriter {
    octets: Vec<u8>,
}

impl HeaderWriter {
    /// An empty header.
    pub fn new() -> Self {
        Self::default()
    }
    /// A field of structured tokens (already in wire form), folded between them at white space.
    pub fn structured(&mut self, _name: &str, _value: &str) -> Result<&mut Self, MimeError> {
        todo!()
    }
    /// A field of free text.
    pub fn unstructured(&mut self, _name: &str, _text: &str) -> Result<&mut Self, MimeError> {
        todo!()
    }
    /// The fields written, without the empty line.
    pub fn finish(self) -> Vec<u8> {
        self.octets
    }
}

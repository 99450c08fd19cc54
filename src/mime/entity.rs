//! An entity: raw spans over the received octets (RFC 2045, RFC 2046). Nothing is decoded until asked for.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::header::{ContentType, Field, Header, MimeError, skip_cfws};

mod boundary;
mod decode;
#[cfg(test)]
mod tests;

pub(crate) use boundary::{Reading, sections};
pub(crate) use decode::{decode_base64, decode_quoted_printable};

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

/// How a body is encoded (RFC 2045 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferEncoding {
    /// 7bit, 8bit and binary: the octets are the content.
    Identity,
    /// base64.
    Base64,
    /// quoted-printable.
    QuotedPrintable,
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
    /// Multiparts and messages around it.
    depth: usize,
    /// What was asked for before; clones share it.
    read: Arc<Read>,
}

/// What is read of an entity more than once: neither header nor body is changed after it was parsed.
#[derive(Debug, Default)]
struct Read {
    /// The body decoded.
    body: OnceLock<Result<Bytes, MimeError>>,
    content_type: OnceLock<Result<ContentType, MimeError>>,
}

impl Entity {
    /// Splits header and body; cheap: the body is not looked at.
    pub fn parse(octets: Bytes, limits: &MimeLimits) -> Result<Self, MimeError> {
        Self::parse_at(octets, 0, limits)
    }
    /// An entity without header: all octets are its body.
    pub fn without_header(octets: Bytes) -> Self {
        Self { raw: octets.clone(), header: Header::default(), body: octets, depth: 0, read: Arc::default() }
    }
    fn parse_at(octets: Bytes, depth: usize, limits: &MimeLimits) -> Result<Self, MimeError> {
        if depth > limits.depth {
            return Err(MimeError::Limit("nesting of MIME parts"));
        }
        let (header, start) = Header::parse(&octets, limits)?;
        let body = octets.slice(start.min(octets.len())..);
        Ok(Self { raw: octets, header, body, depth, read: Arc::default() })
    }
    /// The Content-Type; `text/plain` where there is none; an error where it can be read two ways (A14): a line that is no
    /// field ends the header for some readers.
    pub fn content_type(&self) -> Result<ContentType, MimeError> {
        if self.header.has_broken_lines() {
            return Err(MimeError::Ambiguous("a header with lines that are no field"));
        }
        if self.header.fields.iter().any(|field| field.is_spaced() && is_mime_field(field)) {
            return Err(MimeError::Ambiguous("white space before the colon of a MIME field"));
        }
        self.content_type_lenient()
    }
    /// The Content-Type whatever else stands in the header, for showing a message; never for security decisions.
    pub fn content_type_lenient(&self) -> Result<ContentType, MimeError> {
        let read = || match self.header.one("Content-Type")? {
            Some(field) => ContentType::parse(&field.value()),
            None => Ok(ContentType::text_plain()),
        };
        self.read.content_type.get_or_init(read).clone()
    }
    /// The Content-Transfer-Encoding; an unknown one or two of them are errors.
    pub fn transfer_encoding(&self) -> Result<TransferEncoding, MimeError> {
        let Some(field) = self.header.one("Content-Transfer-Encoding")? else {
            return Ok(TransferEncoding::Identity);
        };
        let value = field.value();
        let value = skip_cfws(&value)?;
        let end = value.find(|c: char| c.is_ascii_whitespace() || c == '(').unwrap_or(value.len());
        let (token, rest) = value.split_at_checked(end).unwrap_or((value, ""));
        if !skip_cfws(rest)?.is_empty() {
            return Err(MimeError::Ambiguous("text after the Content-Transfer-Encoding"));
        }
        let encoding = token.to_ascii_lowercase();
        // Readers that see the comment in it take the body as it is.
        if matches!(encoding.as_str(), "base64" | "quoted-printable") && token.len() != field.value().trim().len() {
            return Err(MimeError::Ambiguous("a comment beside the Content-Transfer-Encoding"));
        }
        match encoding.as_str() {
            "7bit" | "8bit" | "binary" => Ok(TransferEncoding::Identity),
            "base64" => Ok(TransferEncoding::Base64),
            "quoted-printable" => Ok(TransferEncoding::QuotedPrintable),
            _ => Err(MimeError::Malformed("a Content-Transfer-Encoding that RFC 2045 does not know")),
        }
    }
    /// The parts of a multipart, found with our own boundary scanner (RFC 2046 5.1). Each part's `raw` excludes the line
    /// end that belongs to the delimiter. Ambiguous boundaries (a prefix of another, missing close) are errors.
    pub fn parts(&self, limits: &MimeLimits) -> Result<Vec<Entity>, MimeError> {
        self.read_parts(Reading::Strict, limits)
    }
    /// The parts as most mail programs would see them, for showing a message: a line that only begins like a delimiter is
    /// text, a missing close delimiter is taken as being at the end. Never for security decisions.
    pub fn parts_lenient(&self, limits: &MimeLimits) -> Result<Vec<Entity>, MimeError> {
        self.read_parts(Reading::Lenient, limits)
    }
    fn read_parts(&self, reading: Reading, limits: &MimeLimits) -> Result<Vec<Entity>, MimeError> {
        let content_type = match reading {
            Reading::Strict => self.content_type()?,
            Reading::Lenient => self.content_type_lenient()?,
        };
        let spans = sections(&self.body, &boundary(&content_type)?, reading, limits)?;
        let parts = spans.parts.into_iter().map(|part| Self::parse_at(self.body.slice(part), self.depth + 1, limits));
        parts.collect()
    }
    /// The same entity, its body not decoded: to be kept beside one whose decoded body is to go with it.
    pub(crate) fn undecoded(&self) -> Self {
        Self { read: Arc::default(), ..self.clone() }
    }
    /// The header alone, in octets of its own: a large message goes once nobody else holds it.
    pub(crate) fn header_alone(&self, limits: &MimeLimits) -> Option<Self> {
        Self::parse([self.header.raw.as_ref(), b"\r\n"].concat().into(), limits).ok()
    }
    /// The part that `octets`, found in this entity's body, are.
    pub(crate) fn child(&self, octets: Bytes, limits: &MimeLimits) -> Result<Entity, MimeError> {
        Self::parse_at(octets, self.depth + 1, limits)
    }
    /// The message in a message/rfc822 or message/global body that is not encoded.
    pub fn message(&self, limits: &MimeLimits) -> Result<Entity, MimeError> {
        if self.transfer_encoding()? != TransferEncoding::Identity {
            return Err(MimeError::Ambiguous("an encoded message/rfc822"));
        }
        self.child(self.body.clone(), limits)
    }
    /// The body with its Content-Transfer-Encoding undone; bad base64 is an error (A14). 7bit, 8bit and binary are sliced. Done
    /// once: what is asked for again is there.
    pub fn decoded_body(&self) -> Result<Bytes, MimeError> {
        let encoding = self.transfer_encoding()?;
        if encoding == TransferEncoding::Identity {
            return Ok(self.body.clone());
        }
        let decode = || match encoding {
            TransferEncoding::QuotedPrintable => decode_quoted_printable(&self.body, Reading::Strict),
            TransferEncoding::Identity | TransferEncoding::Base64 => decode_base64(&self.body),
        };
        self.read.body.get_or_init(|| decode().map(Bytes::from)).clone()
    }
}

fn is_mime_field(field: &Field) -> bool {
    field.is("Content-Type") || field.is("Content-Transfer-Encoding")
}

/// The boundary of a multipart (RFC 2046 section 5.1.1: 1 to 70 characters, the last no space).
pub(crate) fn boundary(content_type: &ContentType) -> Result<String, MimeError> {
    if !content_type.is_multipart() {
        return Err(MimeError::Malformed("not a multipart"));
    }
    let boundary = content_type.parameter("boundary").ok_or(MimeError::Malformed("a multipart without boundary"))?;
    let printable = boundary.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    if boundary.is_empty() || boundary.len() > 70 || boundary.ends_with(' ') || !printable {
        return Err(MimeError::Malformed("a boundary that RFC 2046 does not allow"));
    }
    Ok(boundary.to_owned())
}

/// Fuzz body: reading ends within its limits, and parts lie in order inside the body.
#[doc(hidden)]
pub fn fuzz_entity(data: &[u8]) {
    let limits = MimeLimits { depth: 8, parts: 200, fields: 200 };
    let Ok(entity) = Entity::parse(Bytes::copy_from_slice(data), &limits) else { return };
    let mut todo = vec![entity];
    while let Some(entity) = todo.pop() {
        assert!(entity.depth <= limits.depth);
        if let Ok(body) = entity.decoded_body() {
            assert!(body.len() <= entity.body.len());
        }
        let lenient = entity.parts_lenient(&limits);
        if let Ok(strict) = entity.parts(&limits) {
            let lenient = lenient.as_deref().unwrap_or_default();
            assert!(strict.iter().map(|p| &p.raw).eq(lenient.iter().map(|p| &p.raw)), "what is strict is also lenient");
        }
        let parts = lenient.unwrap_or_default();
        assert!(parts.iter().map(|part| part.raw.len()).sum::<usize>() <= entity.body.len());
        todo.extend(parts);
    }
}

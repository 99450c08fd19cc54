//! The walk over the tree of parts: what is safe stays octet for octet, the rest is encoded anew.

use super::{canonical_line_ends, encode, fields, is_seven_bit_safe};
use crate::mime::entity::{
    Entity, MimeLimits, Reading, TransferEncoding, boundary, decode_base64, decode_quoted_printable, sections,
};
use crate::mime::header::{ContentType, MimeError};
use crate::mime::rope::encode_lines;

/// One entity that has to be made safe. Strict: a multipart that mail programs take apart differently is an error, for which of
/// them is right cannot be known; lenient: it is written as most of them read it.
pub(super) fn seven_bit(entity: &Entity, reading: Reading, limits: &MimeLimits) -> Result<Vec<u8>, MimeError> {
    walk(entity, reading, limits, is_seven_bit_safe)
}

/// The same where only what is not ASCII has to change.
pub(super) fn ascii(entity: &Entity, limits: &MimeLimits) -> Result<Vec<u8>, MimeError> {
    walk(entity, Reading::Lenient, limits, <[u8]>::is_ascii)
}

fn walk(entity: &Entity, reading: Reading, limits: &MimeLimits, fine: fn(&[u8]) -> bool) -> Result<Vec<u8>, MimeError> {
    let out = Vec::with_capacity(entity.raw.len() + entity.raw.len() / 4);
    let mut walk = Walk { limits, reading, fine, parts: 0, out };
    walk.entity(entity, "text/plain")?;
    Ok(walk.out)
}

struct Walk<'a> {
    limits: &'a MimeLimits,
    reading: Reading,
    /// What stays as it is.
    fine: fn(&[u8]) -> bool,
    parts: usize,
    out: Vec<u8>,
}

impl Walk<'_> {
    /// `default` is the type where no Content-Type stands (RFC 2046 section 5.1.5). Recursion ends at `limits.depth`.
    fn entity(&mut self, entity: &Entity, default: &str) -> Result<(), MimeError> {
        self.parts += 1;
        if self.parts > self.limits.parts {
            return Err(MimeError::Limit("parts of a message"));
        }
        if (self.fine)(&entity.raw) {
            self.out.extend_from_slice(&entity.raw);
            return Ok(());
        }
        let essence = match entity.header.one("Content-Type")? {
            None => default.to_owned(),
            Some(field) => match ContentType::parse(&field.value()) {
                Ok(content_type) => content_type.essence,
                // RFC 2045 section 5.2: what cannot be read is taken as a leaf.
                Err(MimeError::Malformed(_)) if !looks_composite(&field.value()) => {
                    "application/octet-stream".to_owned()
                }
                Err(error) => return Err(error),
            },
        };
        match essence.as_str() {
            "multipart/signed" | "multipart/encrypted" | "application/pkcs7-mime" | "application/x-pkcs7-mime" => {
                Err(MimeError::Malformed("a signed or encrypted part that a 7-bit hop would change"))
            }
            multipart if multipart.starts_with("multipart/") => self.multipart(entity, multipart),
            "message/rfc822" | "message/global" | "message/news" => self.message(entity),
            "message/delivery-status" | "message/disposition-notification" => self.report(entity),
            leaf => self.leaf(entity, leaf),
        }
    }

    fn multipart(&mut self, entity: &Entity, essence: &str) -> Result<(), MimeError> {
        if entity.transfer_encoding()? != TransferEncoding::Identity {
            return Err(MimeError::Ambiguous("an encoded multipart"));
        }
        let default = if essence == "multipart/digest" { "message/rfc822" } else { "text/plain" };
        let boundary = boundary(&entity.content_type_lenient()?)?;
        let spans = sections(&entity.body, &boundary, Reading::Lenient, self.limits)?;
        if let (Reading::Strict, Some(doubt)) = (self.reading, spans.doubt) {
            return Err(MimeError::Ambiguous(doubt));
        }
        self.header(entity, Some(""))?;
        // Preamble and epilogue mean nothing (RFC 2046 section 5.1.1): unsafe ones are left out.
        let preamble = entity.body.get(..spans.first).unwrap_or_default();
        if (self.fine)(preamble) {
            self.out.extend_from_slice(preamble);
        }
        for part in &spans.parts {
            self.out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
            let part = entity.child(entity.body.slice(part.clone()), self.limits)?;
            self.entity(&part, default)?;
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let epilogue = spans.epilogue.and_then(|start| entity.body.get(start..)).unwrap_or_default();
        if (self.fine)(epilogue) {
            self.out.extend_from_slice(epilogue);
        }
        Ok(())
    }

    /// A message inside: it may not be encoded itself (RFC 2046 section 5.2.1), so its parts are.
    fn message(&mut self, entity: &Entity) -> Result<(), MimeError> {
        let message = entity.message(self.limits)?;
        self.header(entity, Some(""))?;
        self.entity(&message, "text/plain")
    }

    /// Fields of a report (RFC 3464, RFC 8098): 7bit by definition, white space at line ends means nothing.
    fn report(&mut self, entity: &Entity) -> Result<(), MimeError> {
        let trimmed = trim_line_ends(&entity.body);
        if !is_seven_bit_safe(&trimmed) || entity.transfer_encoding()? != TransferEncoding::Identity {
            return self.leaf(entity, "message/report");
        }
        self.header(entity, None)?;
        self.out.extend(trimmed);
        Ok(())
    }

    fn leaf(&mut self, entity: &Entity, essence: &str) -> Result<(), MimeError> {
        let encoding = entity.transfer_encoding()?;
        let text = essence.starts_with("text/") || essence.starts_with("message/");
        match encoding {
            _ if (self.fine)(&entity.body) => {
                self.header(entity, None)?;
                self.out.extend_from_slice(&entity.body);
            }
            TransferEncoding::Base64 => match decode_base64(&entity.body) {
                Ok(content) => self.base64(entity, &content)?,
                Err(error) => {
                    // Kept as it is, where trailing white space was all that is unsafe.
                    let trimmed = trim_line_ends(&canonical_line_ends(&entity.body));
                    if !is_seven_bit_safe(&trimmed) {
                        return Err(error);
                    }
                    self.header(entity, None)?;
                    self.out.extend(trimmed);
                }
            },
            TransferEncoding::QuotedPrintable => {
                let content = decode_quoted_printable(&entity.body, Reading::Lenient)?;
                self.header(entity, Some("quoted-printable"))?;
                encode::quoted_printable(&content, &mut self.out);
            }
            TransferEncoding::Identity if text && is_mostly_ascii(&entity.body) => {
                let content = canonical_line_ends(&entity.body);
                self.header(entity, Some("quoted-printable"))?;
                encode::quoted_printable(&content, &mut self.out);
            }
            TransferEncoding::Identity if text && memchr::memchr(0, &entity.body).is_none() => {
                self.base64(entity, &canonical_line_ends(&entity.body))?;
            }
            TransferEncoding::Identity => self.base64(entity, &entity.body)?,
        }
        Ok(())
    }

    fn base64(&mut self, entity: &Entity, content: &[u8]) -> Result<(), MimeError> {
        self.header(entity, Some("base64"))?;
        encode_lines(content, &mut self.out);
        Ok(())
    }

    fn header(&mut self, entity: &Entity, encoding: Option<&str>) -> Result<(), MimeError> {
        fields::write(&entity.header, encoding, &mut self.out)?;
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Whether a Content-Type that cannot be read may yet be taken for one with parts inside.
fn looks_composite(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["multipart", "message", "pkcs7"].iter().any(|word| value.contains(word))
}

/// Quoted-printable is the shorter and more readable one where at most a sixth needs an escape.
fn is_mostly_ascii(octets: &[u8]) -> bool {
    let odd =
        octets.iter().filter(|octet| **octet >= 127 || (**octet < 32 && !matches!(**octet, b'\t' | b'\r' | b'\n')));
    odd.count() <= octets.len() / 6 && memchr::memchr(0, octets).is_none()
}

fn trim_line_ends(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(mut text) => {
                while let [head @ .., b' ' | b'\t'] = text {
                    text = head;
                }
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(line.trim_ascii_end()),
        }
    }
    out
}

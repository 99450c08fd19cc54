//! Canonical form (RFC 8551 section 3.1.1) and preparation that survives 7-bit hops (section 3.1.3).

use bytes::Bytes;
use memchr::{memchr2, memmem, memrchr};

use super::entity::{Entity, MimeLimits, Reading};
use super::header::{Block, Header, MimeError};
use super::rope::{Piece, Rope};

#[cfg(test)]
mod corpora;
mod encode;
mod fields;
#[cfg(test)]
mod tests;
mod tree;

/// Octets looked at in one go, so that they are still near when the next check comes.
const WINDOW: usize = 64 * 1024;
/// RFC 5322 section 2.1.1, without the line end.
const LINE_MAX: usize = 998;

/// Bare CR and bare LF turned into CRLF; no copy where nothing changes.
pub fn canonical_line_ends(octets: &Bytes) -> Bytes {
    let Some(first) = first_bare(octets) else { return octets.clone() };
    let (clean, mut rest) = octets.split_at_checked(first).unwrap_or((octets, &[]));
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32 + 2);
    out.extend_from_slice(clean);
    while let Some(at) = memchr2(b'\r', b'\n', rest) {
        let (text, end) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
        rest = end.strip_prefix(b"\r\n").or_else(|| end.get(1..)).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out.into()
}

/// Where the first CR or LF stands that is not part of CRLF.
fn first_bare(octets: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let rest = octets.get(start..)?;
        let at = memchr2(b'\r', b'\n', rest)?;
        match rest.get(at..at + 2) {
            Some(b"\r\n") => start += at + 2,
            _ => return Some(start + at),
        }
    }
}

/// A message taken apart for protection.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Fields that stay outside (all but Content-* and MIME-Version), as received; lines that are no field are left out.
    pub outer: Bytes,
    /// The MIME entity to protect: Content-* fields, empty line, body; canonical and 7-bit safe. Its body shares the octets
    /// received where they are kept.
    pub inner: Rope,
}

/// Prepares a whole message: its MIME fields move inside; every leaf that a 7-bit hop could change (8-bit octets, lines over
/// 998, "From " at the start of a line, trailing white space, bare CR or LF) is re-encoded as quoted-printable or base64,
/// the rest is kept octet for octet. Inner multipart/signed and multipart/encrypted parts are never touched: where one would
/// need it, the whole is an error; so it is where a multipart would have to be written anew that mail programs take apart
/// differently. Where no Content-Type stands, the inner entity gets one.
pub fn prepare(message: &Entity, limits: &MimeLimits) -> Result<Prepared, MimeError> {
    prepare_as(message, Reading::Strict, limits)
}

/// The same with every multipart taken as most mail programs read it: for what has to be shown, whatever it is.
pub fn prepare_lenient(message: &Entity, limits: &MimeLimits) -> Result<Prepared, MimeError> {
    prepare_as(message, Reading::Lenient, limits)
}

fn prepare_as(message: &Entity, reading: Reading, limits: &MimeLimits) -> Result<Prepared, MimeError> {
    let Prepared { outer, inner } = take_apart(message, limits)?;
    if is_rope_seven_bit_safe(&inner) {
        return Ok(Prepared { outer, inner });
    }
    // The same message with its MIME fields alone.
    let inner = tree::seven_bit(&Entity::parse(inner.to_bytes(), limits)?, reading, limits)?;
    if !is_seven_bit_safe(&inner) {
        return Err(MimeError::Malformed("a message that cannot be made safe for 7-bit hops"));
    }
    Ok(Prepared { outer, inner: Rope::from(Bytes::from(inner)) })
}

/// The whole message for a next hop that takes no 8-bit content (RFC 6152 section 3): every leaf that is not ASCII is re-encoded, header
/// fields too, the rest is kept octet for octet. Where a signed or encrypted part would have to change it is an error.
pub fn for_seven_bit_hop(message: &Entity, limits: &MimeLimits) -> Result<Bytes, MimeError> {
    if message.raw.is_ascii() {
        return Ok(message.raw.clone());
    }
    let Prepared { outer, inner } = take_apart(message, limits)?;
    let outer = Entity::parse(Bytes::from([&outer, &b"\r\n"[..]].concat()), limits)?.header;
    let mut out = Vec::with_capacity(message.raw.len() + message.raw.len() / 4);
    fields::write(&outer, None, &mut out)?;
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    let inner = Entity::parse(inner.to_bytes(), limits)?;
    out.extend(tree::ascii(&inner, limits)?);
    if !out.is_ascii() {
        return Err(MimeError::Malformed("a message that cannot be made ASCII"));
    }
    Ok(out.into())
}

/// Takes a whole message apart without re-encoding anything: for content that travels inside base64 (opaque or encrypted)
/// alone, where no hop sees it. Bare line ends are made canonical where the header has them too.
pub fn take_apart(message: &Entity, limits: &MimeLimits) -> Result<Prepared, MimeError> {
    if message.header.bare_lf {
        // A file with the line ends of its system: all of it is text.
        return take_apart(&Entity::parse(canonical_line_ends(&message.raw), limits)?, limits);
    }
    let (outer, mut inner) = split_header(&message.header);
    if message.header.one("Content-Type")?.is_none() {
        inner.extend_from_slice(default_content_type(&message.body));
    }
    inner.extend_from_slice(b"\r\n");
    let mut inner = Rope::from(Bytes::from(inner));
    inner.push_raw(message.body.clone());
    Ok(Prepared { outer, inner })
}

/// Outer fields, and the Content-* fields.
fn split_header(header: &Header) -> (Bytes, Vec<u8>) {
    let mut outer = Vec::with_capacity(header.raw.len() + 2);
    let mut inner = Vec::with_capacity(256);
    for field in &header.fields {
        let name = field.name().as_bytes();
        let to = match name.get(..8) {
            Some(prefix) if prefix.eq_ignore_ascii_case(b"Content-") => &mut inner,
            _ if name.eq_ignore_ascii_case(b"MIME-Version") => continue,
            _ => &mut outer,
        };
        to.extend_from_slice(&field.raw);
        if !field.raw.ends_with(b"\n") {
            to.extend_from_slice(b"\r\n");
        }
    }
    (outer.into(), inner)
}

/// What a body without Content-Type is, as far as its octets show.
fn default_content_type(body: &[u8]) -> &'static [u8] {
    if body.is_ascii() {
        b"Content-Type: text/plain; charset=us-ascii\r\n"
    } else if std::str::from_utf8(body).is_ok() {
        b"Content-Type: text/plain; charset=utf-8\r\n"
    } else {
        // RFC 1428 section 3.
        b"Content-Type: text/plain; charset=unknown-8bit\r\n"
    }
}

/// Whether a 7-bit hop leaves these octets alone: ASCII without NUL, lines to 998, CRLF only, no "From ", no trailing white
/// space.
pub fn is_seven_bit_safe(octets: &[u8]) -> bool {
    let good =
        |before, octet| (octet != 0) & (octet < 128) & !((octet == b'\r') & ((before == b' ') | (before == b'\t')));
    all_pairs(octets, good)
        && lines_fit(octets)
        && !octets.starts_with(b"From ")
        && memmem::find(octets, b"\nFrom ").is_none()
}

/// Whether CR and LF stand as CRLF alone, and every octet with the one before it is `good`: before the first one a line ended,
/// after the last one a line end is taken to follow. No branch on an octet, so that many are looked at at a time.
pub(crate) fn all_pairs(octets: &[u8], good: impl Fn(u8, u8) -> bool) -> bool {
    let odd = |before: u8, octet: u8| ((before == b'\r') != (octet == b'\n')) | !good(before, octet);
    let mut before = b'\n';
    for window in octets.chunks(WINDOW) {
        let Some((first, rest)) = window.split_first() else { continue };
        let pairs = window.iter().zip(rest);
        if pairs.fold(odd(before, *first), |found, (before, octet)| found | odd(*before, *octet)) {
            return false;
        }
        before = window.last().copied().unwrap_or(before);
    }
    !odd(before, b'\r')
}

/// Whether no line is longer than 998 octets, where CRLF alone ends lines.
pub(crate) fn lines_fit(octets: &[u8]) -> bool {
    let mut rest = octets;
    while rest.len() > LINE_MAX {
        // All lines that end in here are short enough, as many as they are.
        let head = rest.get(..LINE_MAX + 2).unwrap_or(rest);
        match memrchr(b'\n', head).and_then(|end| rest.get(end + 1..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// The same of pieces that each end with a line, the last one perhaps without; base64 is always safe.
pub(crate) fn is_rope_seven_bit_safe(rope: &Rope) -> bool {
    let mut ended = true;
    rope.pieces().iter().all(|piece| match piece {
        Piece::Raw(octets) => std::mem::replace(&mut ended, octets.ends_with(b"\r\n")) && is_seven_bit_safe(octets),
        Piece::Base64(_) => std::mem::replace(&mut ended, true),
    })
}

/// Fuzz body: what is prepared is safe, and preparing it again changes nothing.
#[doc(hidden)]
pub fn fuzz_canonical(data: &[u8]) {
    let octets = Bytes::copy_from_slice(data);
    let ends = canonical_line_ends(&octets);
    assert!(first_bare(&ends).is_none());
    let limits = MimeLimits { depth: 8, parts: 200, fields: 200 };
    let Ok(entity) = Entity::parse(octets, &limits) else { return };
    if let Ok(prepared) = prepare_lenient(&entity, &limits) {
        assert!(is_seven_bit_safe(&prepared.inner.to_bytes()), "not safe: {:?}", prepared.inner);
    }
    let Ok(prepared) = prepare(&entity, &limits) else { return };
    let inner = prepared.inner.to_bytes();
    assert!(is_seven_bit_safe(&inner), "not safe: {inner:?}");
    let mut rest = prepared.outer.clone();
    while let Some(block) = Block::take(&mut rest) {
        assert!(block.name_len.is_some());
    }
    let whole = Bytes::from([&prepared.outer[..], &inner[..]].concat());
    // What is added (Content-Type, Content-Transfer-Encoding) may go past a limit that was reached just so.
    let limits = MimeLimits { fields: limits.fields + 4, ..limits };
    let again = Entity::parse(whole, &limits).and_then(|entity| prepare(&entity, &limits));
    assert_eq!(again.map(|again| again.inner.to_bytes()), Ok(inner));
}

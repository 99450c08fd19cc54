//! Transfer encodings undone (RFC 2045 sections 6.7 and 6.8).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;

use super::{MimeError, Reading};
use crate::mime::header::hex_pair;

/// Characters gathered before they are decoded.
const BLOCK: usize = 16 * 1024;
const BAD: MimeError = MimeError::Ambiguous("base64 that is not well-formed");

/// Undoes base64, strictly: only line ends and white space before them are passed over; every other foreign character,
/// wrong padding and anything after the padding is an error, since readers differ there (A14).
pub(crate) fn decode_base64(body: &[u8]) -> Result<Vec<u8>, MimeError> {
    let mut out = Vec::with_capacity(body.len() / 4 * 3 + 3);
    let mut gathered: Vec<u8> = Vec::with_capacity(BLOCK + 1024);
    let mut rest = body;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
        let (line, after) = rest.split_at_checked(end).ok_or(BAD)?;
        rest = after;
        gathered.extend_from_slice(strip_line_end(line));
        if gathered.len() >= BLOCK {
            let whole = gathered.len() - gathered.len() % 4;
            let block = gathered.get(..whole).unwrap_or_default();
            // Padding ends the data: in a block that is not the last one it is an error, unless only white space follows.
            if block.ends_with(b"=") && (whole < gathered.len() || !rest.trim_ascii().is_empty()) {
                return Err(BAD);
            }
            STANDARD.decode_vec(block, &mut out).map_err(|_| BAD)?;
            gathered.drain(..whole);
        }
    }
    STANDARD.decode_vec(&gathered, &mut out).map_err(|_| BAD)?;
    Ok(out)
}

fn strip_line_end(line: &[u8]) -> &[u8] {
    let Some(text) = line.strip_suffix(b"\n") else { return line.trim_ascii_end() };
    let mut text = text.strip_suffix(b"\r").unwrap_or(text);
    while let [head @ .., b' ' | b'\t'] = text {
        text = head;
    }
    text
}

/// Undoes quoted-printable. White space at the end of a line is dropped (rule 3). Strict: a broken escape, an 8-bit octet or
/// a control character is an error; lenient: it stays as it is.
pub(crate) fn decode_quoted_printable(body: &[u8], reading: Reading) -> Result<Vec<u8>, MimeError> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
        let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        rest = after;
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let (text, line_end) = (strip_line_end(line), line.get(text.len()..).unwrap_or_default());
        let (text, line_end) = match text.strip_suffix(b"=") {
            Some(text) => (text, &b""[..]),
            None => (text, line_end),
        };
        decode_line(text, reading, &mut out)?;
        out.extend_from_slice(line_end);
    }
    Ok(out)
}

fn decode_line(text: &[u8], reading: Reading, out: &mut Vec<u8>) -> Result<(), MimeError> {
    let strict = reading == Reading::Strict;
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'=', [high, low, after @ ..]) if hex_pair(*high, *low).is_some() => {
                out.extend(hex_pair(*high, *low));
                rest = after;
            }
            (b'=', _) | (0..=8 | 10..=31 | 127.., _) if strict => {
                return Err(MimeError::Malformed("quoted-printable that is not well-formed"));
            }
            _ => out.push(*first),
        }
    }
    Ok(())
}

//! The boundary scanner (RFC 2046 section 5.1.1), over CRLF and, for files, bare LF.

use memchr::memmem;
use std::ops::Range;

use super::{MimeError, MimeLimits};

/// How to take what RFC 2046 does not settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As an error.
    Strict,
    /// As most mail programs do.
    Lenient,
}

const UNCLOSED: &str = "a multipart without its close delimiter";

/// Spans of a multipart's body.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    /// Each part, without the line end that belongs to the delimiter after it.
    pub parts: Vec<Range<usize>>,
    /// Where the first delimiter begins (its `--`): the preamble ends there.
    pub first: usize,
    /// Where the epilogue begins, where there is a close delimiter.
    pub epilogue: Option<usize>,
    /// Where mail programs part ways: set in a lenient reading of a multipart that does not end in one clear way.
    pub doubt: Option<&'static str>,
}

/// What stands at a place where the delimiter's text was found.
enum Delimiter {
    /// Not at the start of a line, or going on: no delimiter.
    Text,
    /// Between parts; the next one begins at `.0`.
    Between(usize),
    /// The last one; the epilogue begins at `.0`.
    Close(usize),
    /// Some readers would take it for a delimiter.
    Doubtful(&'static str),
    /// Some readers would take it for the close delimiter.
    DoubtfulClose(&'static str),
}

/// Finds the parts between delimiters. Strict: exactly one reading, closed, nothing like a delimiter elsewhere.
pub(crate) fn sections(
    body: &[u8],
    boundary: &str,
    reading: Reading,
    limits: &MimeLimits,
) -> Result<Sections, MimeError> {
    let delimiter = format!("--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut found = Sections::default();
    let mut open: Option<usize> = None;
    for at in finder.find_iter(body) {
        match classify(body, at, delimiter.len()) {
            Delimiter::Text => {}
            Delimiter::Doubtful(why) | Delimiter::DoubtfulClose(why) if reading == Reading::Strict => {
                return Err(MimeError::Ambiguous(why));
            }
            Delimiter::Doubtful(_) => {}
            Delimiter::DoubtfulClose(why) => found.doubt = Some(why),
            _ if found.epilogue.is_some() => {
                if reading == Reading::Strict {
                    return Err(MimeError::Ambiguous("a delimiter after the close delimiter"));
                }
                break;
            }
            Delimiter::Between(next) => {
                if open.is_none() {
                    found.first = at;
                }
                close_part(body, &mut found, open, at, limits)?;
                open = Some(next);
            }
            Delimiter::Close(next) => {
                close_part(body, &mut found, open, at, limits)?;
                found.epilogue = Some(next);
                open = None;
            }
        }
    }
    match (open, found.epilogue) {
        (None, None) => return Err(MimeError::Malformed("a multipart without a delimiter")),
        (_, None) if reading == Reading::Strict => {
            return Err(MimeError::Ambiguous(UNCLOSED));
        }
        (Some(start), None) => {
            found.doubt = Some(UNCLOSED);
            push(&mut found, start..body.len(), limits)?;
        }
        _ => {}
    }
    if found.parts.is_empty() && reading == Reading::Strict {
        return Err(MimeError::Malformed("a multipart without parts"));
    }
    Ok(found)
}

fn close_part(
    body: &[u8],
    found: &mut Sections,
    open: Option<usize>,
    delimiter: usize,
    limits: &MimeLimits,
) -> Result<(), MimeError> {
    let Some(start) = open else { return Ok(()) };
    let before = body.get(start..delimiter).unwrap_or_default();
    // The line end before a delimiter belongs to the delimiter.
    let before = before.strip_suffix(b"\n").unwrap_or(before);
    let len = before.strip_suffix(b"\r").unwrap_or(before).len();
    push(found, start..start + len, limits)
}

fn push(found: &mut Sections, part: Range<usize>, limits: &MimeLimits) -> Result<(), MimeError> {
    if found.parts.len() >= limits.parts {
        return Err(MimeError::Limit("parts of a multipart"));
    }
    found.parts.push(part);
    Ok(())
}

fn classify(body: &[u8], at: usize, len: usize) -> Delimiter {
    let (before, rest) = body.split_at_checked(at).unwrap_or((body, &[]));
    match before.last() {
        None | Some(b'\n') => {}
        Some(b'\r') => return Delimiter::Doubtful("a delimiter after a bare CR"),
        Some(_) => return Delimiter::Text,
    }
    let rest = rest.get(len..).unwrap_or_default();
    let (closing, rest) = match rest.strip_prefix(b"--") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    // RFC 2046 section 5.1.1: transport padding.
    let padding = rest.iter().take_while(|octet| matches!(octet, b' ' | b'\t')).count();
    let end = match rest.get(padding..).unwrap_or_default() {
        [] => 0,
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ if closing => return Delimiter::DoubtfulClose("a line that only begins like a close delimiter"),
        _ => return Delimiter::Doubtful("a line that only begins like a delimiter"),
    };
    let next = body.len() - rest.len() + padding + end;
    if closing { Delimiter::Close(next) } else { Delimiter::Between(next) }
}

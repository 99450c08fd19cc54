//! The one header writer: nothing else in the house puts a field together.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::MimeError;

/// Where lines are folded (RFC 5322 section 2.1.1).
const FOLD_AT: usize = 78;
/// What no line may exceed.
const LINE_MAX: usize = 998;
/// UTF-8 octets in one encoded word: 45 make 60 characters of base64, 72 with the frame (RFC 2047 section 2: 75).
const WORD_OCTETS: usize = 45;

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
    /// A field of structured tokens (already in wire form), folded between them at white space. [`MimeError::Forbidden`]
    /// for control characters and what is not ASCII, [`MimeError::Limit`] where a token does not fit into a line.
    pub fn structured(&mut self, name: &str, value: &str) -> Result<&mut Self, MimeError> {
        if value.bytes().any(|octet| !matches!(octet, b'\t' | b' '..=b'~')) {
            return Err(MimeError::Forbidden("a structured header field"));
        }
        self.fold(name, value)
    }
    /// A field of free text. White space at both ends is dropped; what is not plain ASCII goes out in encoded words.
    /// [`MimeError::Forbidden`] for CR, LF and NUL.
    pub fn unstructured(&mut self, name: &str, text: &str) -> Result<&mut Self, MimeError> {
        if text.contains(['\r', '\n', '\0']) {
            return Err(MimeError::Forbidden("a header field"));
        }
        let text = text.trim_matches(' ');
        let plain = text.bytes().all(|octet| matches!(octet, b' '..=b'~')) && !text.contains("=?");
        let fits = text.split(' ').all(|word| word.len() + name.len() + 2 <= FOLD_AT);
        if plain && fits { self.fold(name, text) } else { self.fold(name, &encoded_words(text)) }
    }
    /// A field of addresses in raw UTF-8: display names in encoded words (RFC 2047 section 5), the rest as it is.
    /// [`MimeError::Forbidden`] for control characters and for addresses that are not ASCII.
    pub(crate) fn addresses(&mut self, name: &str, text: &str) -> Result<&mut Self, MimeError> {
        let mut value = String::with_capacity(text.len() * 2);
        let mut rest = text;
        // White space between two encoded words vanishes when read: it goes into the second one.
        let (mut encoded, mut space) = (false, String::new());
        while let Some(c) = rest.chars().next() {
            let quoted = rest.strip_prefix('"').and_then(|inner| inner.split_once('"'));
            let (word, shown, after) = match quoted {
                Some((inner, after)) => (rest.get(..inner.len() + 2).unwrap_or_default(), inner, after),
                None => {
                    let end = rest.find([' ', '\t', ',', '"', '<']).filter(|end| *end > 0).unwrap_or(c.len_utf8());
                    let end = if rest.contains([' ', '\t', ',', '"', '<']) { end } else { rest.len() };
                    let (word, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
                    (word, word, after)
                }
            };
            if word.is_ascii() {
                value.push_str(word);
                match word.trim().is_empty() {
                    true => space.push_str(word),
                    false => (encoded, space) = (false, String::new()),
                }
            } else if shown.contains('@') {
                return Err(MimeError::Forbidden("an address that is not ASCII"));
            } else {
                let lead = if encoded { space.as_str() } else { "" };
                value.push_str(&encoded_words(&format!("{lead}{shown}")));
                encoded = true;
                space.clear();
            }
            rest = after;
        }
        self.structured(name, &value)
    }
    /// The fields written, without the empty line.
    pub fn finish(self) -> Vec<u8> {
        self.octets
    }

    /// Writes `name: value`, a line end before a run of white space where the word after it would not fit.
    fn fold(&mut self, name: &str, value: &str) -> Result<&mut Self, MimeError> {
        if name.is_empty() || !name.bytes().all(|octet| matches!(octet, 33..=57 | 59..=126)) {
            return Err(MimeError::Forbidden("a field name"));
        }
        let mut field = Vec::with_capacity(name.len() + value.len() + 8);
        field.extend_from_slice(name.as_bytes());
        field.extend_from_slice(b": ");
        let mut column = field.len();
        let mut rest = value.trim_matches([' ', '\t']);
        let mut first = true;
        while !rest.is_empty() {
            let space = rest.find(|c| c != ' ' && c != '\t').unwrap_or(rest.len());
            let word = rest.get(space..).unwrap_or_default();
            let end = space + word.find([' ', '\t']).unwrap_or(word.len());
            let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            if !first && column + piece.len() > FOLD_AT {
                field.extend_from_slice(b"\r\n");
                column = 0;
            }
            column += piece.len();
            if column > LINE_MAX {
                return Err(MimeError::Limit("a header line of more than 998 octets"));
            }
            field.extend_from_slice(piece.as_bytes());
            first = false;
            rest = after;
        }
        if first {
            field.pop();
        }
        field.extend_from_slice(b"\r\n");
        self.octets.extend_from_slice(&field);
        Ok(self)
    }
}

/// Text as encoded words in UTF-8, cut between characters.
fn encoded_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = WORD_OCTETS.min(rest.len());
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (word, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str("=?utf-8?B?");
        out.push_str(&STANDARD.encode(word));
        out.push_str("?=");
        rest = after;
    }
    out
}

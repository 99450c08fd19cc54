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
    /// A field as it was received, with its last line end. [`MimeError::Malformed`] unless it is one whole field.
    pub fn received(&mut self, field: &super::Field) -> Result<&mut Self, MimeError> {
        if !field.raw.ends_with(b"\n") {
            return Err(MimeError::Malformed("a field without its line end"));
        }
        self.octets.extend_from_slice(&field.raw);
        Ok(self)
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

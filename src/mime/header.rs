//! Header fields (RFC 5322), parameters (RFC 2045, RFC 2231), mailboxes; the one header writer.

use bytes::Bytes;
use memchr::memchr;

use super::entity::MimeLimits;
use crate::address::Mailbox;

mod content_type;
mod encoded_word;
mod mailboxes;
#[cfg(test)]
mod tests;
mod writer;

pub use content_type::ContentType;
pub use writer::HeaderWriter;

pub(crate) use content_type::{Parameters, skip_cfws};
pub(crate) use encoded_word::{decode as decode_encoded_words, hex_pair, text_of};

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

const NO_FIELD: &str = "a header line that is no field";
const CONTROLS: &str = "CR or NUL inside a header line";

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
        self.raw.get(..self.name_len).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }
    /// Compares the name, ASCII case-insensitively.
    pub fn is(&self, name: &str) -> bool {
        self.raw.get(..self.name_len).is_some_and(|own| own.eq_ignore_ascii_case(name.as_bytes()))
    }
    /// White space stands before the colon (RFC 5322 section 4.5.8): there the header ends for some readers.
    pub(crate) fn is_spaced(&self) -> bool {
        self.raw.get(self.name_len) != Some(&b':')
    }
    /// Everything after the colon, folds and the last line end included.
    pub fn raw_value(&self) -> &[u8] {
        let rest = self.raw.get(self.name_len..).unwrap_or_default();
        memchr(b':', rest).and_then(|colon| rest.get(colon + 1..)).unwrap_or_default()
    }
    /// The value with the line ends of folds removed (RFC 5322 section 2.2.3), surrounding white space too.
    pub fn unfolded(&self) -> Vec<u8> {
        let value = self.raw_value().trim_ascii();
        let mut out = Vec::with_capacity(value.len());
        for line in value.split_inclusive(|octet| *octet == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        }
        out
    }
    /// The mailboxes that can be read in an address field; display names and groups left out.
    pub fn mailboxes(&self) -> Vec<Mailbox> {
        mailboxes::list(&self.value())
    }
    /// The value with folds removed, surrounding white space too; octets that are not UTF-8 are replaced.
    pub fn value(&self) -> String {
        match String::from_utf8(self.unfolded()) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }
    }
    /// The value with RFC 2047 encoded words decoded, for matching and showing, never for security decisions.
    pub fn decoded(&self) -> String {
        encoded_word::decode(&self.value())
    }
}

/// A header: its fields in order.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// All octets of the header, the empty line left out.
    pub raw: Bytes,
    /// Fields, in order.
    pub fields: Vec<Field>,
    /// Lines that are no field (kept in `raw`), and what else two readers could see differently.
    pub defects: Vec<&'static str>,
    /// Whether some line ends in LF alone (files on disk; SMTP never lets one through, A16).
    pub bare_lf: bool,
}

impl Header {
    /// Reads the header at the start of `octets`; gives it and where the body begins. Lines that are no field become
    /// defects. [`MimeError::Limit`] where there are more fields than `limits.fields`.
    pub fn parse(octets: &Bytes, limits: &MimeLimits) -> Result<(Self, usize), MimeError> {
        let mut header = Header::default();
        let mut rest = octets.clone();
        while let Some(block) = Block::take(&mut rest) {
            header.bare_lf |= block.bare_lf;
            for defect in block.defects.into_iter().flatten() {
                if !header.defects.contains(&defect) {
                    header.defects.push(defect);
                }
            }
            if let Some(name_len) = block.name_len {
                if header.fields.len() >= limits.fields {
                    return Err(MimeError::Limit("fields in one header"));
                }
                header.fields.push(Field { raw: block.raw, name_len });
            }
        }
        let end = octets.len() - rest.len();
        header.raw = octets.slice(..end);
        let separator = empty_line(&rest);
        header.bare_lf |= separator == 1;
        Ok((header, end + separator))
    }
    /// Whether there are lines at which some readers end the header.
    pub(crate) fn has_broken_lines(&self) -> bool {
        self.defects.contains(&NO_FIELD) || self.defects.contains(&CONTROLS)
    }
    /// Fields of that name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> + 'a {
        self.fields.iter().filter(move |field| field.is(name))
    }
    /// The one field of that name; two are an error, none is `None`.
    pub fn one(&self, name: &'static str) -> Result<Option<&Field>, MimeError> {
        let mut all = self.all(name);
        let first = all.next();
        match all.next() {
            None => Ok(first),
            Some(_) => Err(MimeError::Ambiguous(match name {
                "From" => "more than one From field",
                "Content-Type" => "more than one Content-Type field",
                "Content-Transfer-Encoding" => "more than one Content-Transfer-Encoding field",
                "Subject" => "more than one Subject field",
                _ => "a field that may stand once stands twice",
            })),
        }
    }
    /// The single author: exactly one From with exactly one mailbox (A7, A31). Whatever two readers could see differently
    /// is [`MimeError::Ambiguous`].
    pub fn single_from(&self) -> Result<Mailbox, MimeError> {
        if !self.defects.is_empty() {
            return Err(MimeError::Ambiguous("a header with broken lines may have another author"));
        }
        let field = self.one("From")?.ok_or(MimeError::Malformed("no From field"))?;
        mailboxes::single(&field.unfolded())
    }
    /// All mailboxes of To and Cc that can be read.
    pub fn to_and_cc(&self) -> Vec<Mailbox> {
        let fields = self.fields.iter().filter(|field| field.is("To") || field.is("Cc"));
        fields.flat_map(|field| mailboxes::list(&field.value())).collect()
    }
}

/// Length of the empty line at the start of `octets`: 0 where there is none.
fn empty_line(octets: &[u8]) -> usize {
    match octets {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => 0,
    }
}

/// A line with those that continue it: a field, or something broken.
#[derive(Debug)]
pub(crate) struct Block {
    /// As received, line ends included.
    pub raw: Bytes,
    /// Length of the field's name; `None` where it is no field.
    pub name_len: Option<usize>,
    bare_lf: bool,
    defects: [Option<&'static str>; 3],
}

impl Block {
    /// The field it is, where it is one.
    pub(crate) fn field(&self) -> Option<Field> {
        self.name_len.map(|name_len| Field { raw: self.raw.clone(), name_len })
    }
    /// Takes the next block off the front; `None` at the empty line or at the end.
    pub(crate) fn take(rest: &mut Bytes) -> Option<Self> {
        if rest.is_empty() || empty_line(rest) > 0 {
            return None;
        }
        let (mut end, mut bare_lf, mut blank_fold, mut controls) = (0, false, false, false);
        loop {
            let tail = rest.get(end..).unwrap_or_default();
            let len = memchr(b'\n', tail).map_or(tail.len(), |lf| lf + 1);
            let line = tail.get(..len).unwrap_or_default();
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            bare_lf |= text.len() < line.len() && !text.ends_with(b"\r");
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            blank_fold |= text.iter().all(|octet| matches!(octet, b' ' | b'\t'));
            controls |= memchr::memchr2(b'\r', 0, text).is_some();
            end += len;
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let raw = rest.split_to(end);
        let name_len = name_len(&raw);
        let spaced = name_len.is_some_and(|len| raw.get(len) != Some(&b':'));
        let defects = [
            controls.then_some(CONTROLS),
            blank_fold.then_some("a folded line of white space alone"),
            match name_len {
                None => Some(NO_FIELD),
                Some(_) => spaced.then_some("white space before a field's colon"),
            },
        ];
        Some(Block { raw, name_len, bare_lf, defects })
    }
}

/// Length of the field name (RFC 5322 section 2.2: printable ASCII without colon), white space before the colon not
/// counted; `None` where there is no name or no colon.
fn name_len(raw: &[u8]) -> Option<usize> {
    let len = raw.iter().take_while(|octet| matches!(octet, 33..=57 | 59..=126)).count();
    let colon = raw.get(len..)?.iter().find(|octet| !matches!(octet, b' ' | b'\t'))?;
    (len > 0 && *colon == b':').then_some(len)
}

/// Fuzz body: whatever the octets, reading ends, loses nothing, and what is called the author stands in the header.
#[doc(hidden)]
pub fn fuzz_header(data: &[u8]) {
    let octets = Bytes::copy_from_slice(data);
    let Ok((header, body)) = Header::parse(&octets, &MimeLimits::default()) else { return };
    assert!(octets.starts_with(&header.raw) && header.raw.len() <= body && body <= octets.len());
    for field in &header.fields {
        assert!(!field.name().is_empty());
        let (value, decoded) = (field.value(), field.decoded());
        assert!(!value.contains('\n') && decoded.len() <= 16 * value.len() + 16);
        if let Ok(content_type) = ContentType::parse(&value) {
            assert!(content_type.essence.contains('/'));
        }
        let mut writer = HeaderWriter::new();
        if writer.unstructured("X-Test", &decoded).is_ok() {
            let written = Bytes::from(writer.finish());
            let (again, _) = Header::parse(&written, &MimeLimits::default()).unwrap_or_default();
            assert!(again.fields.len() == 1 && again.defects.is_empty(), "{decoded:?}");
            assert_eq!(again.fields.first().map(Field::decoded).as_deref(), Some(decoded.trim_matches(' ')));
        }
    }
    let _ = (header.single_from(), header.to_and_cc());
}

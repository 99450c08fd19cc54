//! A BER pull reader (X.690): zero-copy, limited in depth and size; lengths beyond what remains fail before any allocation (A13).
//!
//! `Reader` walks the elements of one level; `Element::reader` goes a level down. An element of indefinite length is
//! measured by a scan that keeps no stack, so nesting costs neither memory nor recursion. `write` holds the DER writer.

use std::borrow::Cow;

use bytes::Bytes;
use const_oid::ObjectIdentifier;

use super::error::CmsError;

/// Constructed elements inside each other at most (A13).
pub const MAX_DEPTH: usize = 32;
/// Elements looked at in one scan for an end-of-contents at most: a 64 MiB content in pieces of 32 octets.
pub const MAX_ELEMENTS: usize = 1 << 21;

/// Octets of an element that `to_der` rewrites at most.
const MAX_NORMALISED: usize = 1 << 20;

/// Identifier octets of the types that CMS uses.
pub mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const NULL: u8 = 0x05;
    pub const OID: u8 = 0x06;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    /// The constructed bit.
    pub const CONSTRUCTED: u8 = 0x20;
    /// `[n]` constructed, `n` under 31.
    pub const fn context(n: u8) -> u8 {
        0xa0 | n
    }
    /// `[n]` primitive, `n` under 31.
    pub const fn context_primitive(n: u8) -> u8 {
        0x80 | n
    }
}

/// Which encoding rules are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Anything X.690 allows.
    Ber,
    /// Definite, shortest lengths.
    Der,
}

/// One element: identifier, length and contents as slices of what was read.
#[derive(Debug, Clone, Copy)]
pub struct Element<'a> {
    /// The first identifier octet: class, constructed bit, and the number where it is under 31.
    pub tag: u8,
    /// The tag number.
    pub number: u32,
    /// The whole element as received, header and end-of-contents included.
    pub raw: &'a [u8],
    /// The contents octets (without end-of-contents).
    pub content: &'a [u8],
    /// Indefinite length.
    pub indefinite: bool,
    /// Where the element begins, counted from the start of the outermost input.
    pub offset: usize,
    depth: usize,
    rules: Rules,
}

struct Header {
    tag: u8,
    number: u32,
    /// `None`: indefinite.
    length: Option<usize>,
    size: usize,
}

const fn malformed(what: &'static str, offset: usize, why: &'static str) -> CmsError {
    CmsError::Malformed { what, offset, why }
}

/// Reads identifier and length octets; the length fits what remains.
fn header(input: &[u8], offset: usize, rules: Rules) -> Result<Header, CmsError> {
    let bad = |why| malformed("element", offset, why);
    let mut octets = input.iter().copied();
    let tag = octets.next().ok_or(bad("input ends where an element is expected"))?;
    let mut number = u32::from(tag & 0x1f);
    let mut size = 1usize;
    if number == 0x1f {
        number = 0;
        loop {
            let octet = octets.next().ok_or(bad("input ends in a tag"))?;
            size += 1;
            if number == 0 && octet == 0x80 {
                return Err(bad("tag number with a leading zero"));
            }
            if size > 5 {
                return Err(bad("tag number too large"));
            }
            number = (number << 7) | u32::from(octet & 0x7f);
            if octet & 0x80 == 0 {
                break;
            }
        }
        if number < 31 {
            return Err(bad("tag number under 31 in the long form"));
        }
    }
    let first = octets.next().ok_or(bad("input ends before a length"))?;
    size += 1;
    let length = match first {
        0..=0x7f => Some(usize::from(first)),
        0x80 => None,
        0xff => return Err(bad("length octet 255 is reserved")),
        _ => {
            let count = usize::from(first & 0x7f);
            let mut value = 0usize;
            for position in 0..count {
                let octet = octets.next().ok_or(bad("input ends in a length"))?;
                if rules == Rules::Der && position == 0 && octet == 0 {
                    return Err(bad("length is not in its shortest form"));
                }
                if value >> (usize::BITS - 8) != 0 {
                    return Err(bad("length exceeds what remains"));
                }
                value = (value << 8) | usize::from(octet);
            }
            size += count;
            if rules == Rules::Der && value < 0x80 {
                return Err(bad("length is not in its shortest form"));
            }
            Some(value)
        }
    };
    if length.is_none() && (rules == Rules::Der || tag & tag::CONSTRUCTED == 0) {
        return Err(bad("indefinite length where it is not allowed"));
    }
    if length.is_some_and(|length| length > input.len() - size) {
        return Err(bad("length exceeds what remains"));
    }
    Ok(Header { tag, number, length, size })
}

/// The length of the contents of an indefinite-length element that begin at `input`, without the end-of-contents.
fn measure(input: &[u8], offset: usize, depth: usize) -> Result<usize, CmsError> {
    let mut position = 0usize;
    let mut open = 1usize;
    for _ in 0..MAX_ELEMENTS {
        let rest = input.get(position..).unwrap_or_default();
        let found = header(rest, offset + position, Rules::Ber)?;
        if found.tag == 0 {
            if found.length != Some(0) || found.size != 2 {
                return Err(malformed("element", offset + position, "end-of-contents with a length"));
            }
            open -= 1;
            if open == 0 {
                return Ok(position);
            }
            position += 2;
            continue;
        }
        position += found.size;
        match found.length {
            Some(length) => position += length,
            None => {
                open += 1;
                if depth + open > MAX_DEPTH {
                    return Err(CmsError::Limit("ASN.1 nested deeper than 32"));
                }
            }
        }
    }
    Err(CmsError::Limit("too many ASN.1 elements"))
}

/// Reads the elements of one level, one after the other.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
    depth: usize,
    rules: Rules,
}

impl<'a> Reader<'a> {
    /// Reads BER.
    pub fn ber(input: &'a [u8]) -> Self {
        Self { rest: input, offset: 0, depth: 0, rules: Rules::Ber }
    }
    /// Reads DER.
    pub fn der(input: &'a [u8]) -> Self {
        Self { rest: input, offset: 0, depth: 0, rules: Rules::Der }
    }
    /// Whether nothing is left on this level.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    /// What is left on this level.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
    /// The identifier octet of the next element; `None` at the end.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }
    /// The next element, whatever it is. Errors: input ends, a length beyond what remains, nesting over 32.
    pub fn element(&mut self) -> Result<Element<'a>, CmsError> {
        let found = header(self.rest, self.offset, self.rules)?;
        if found.tag == 0 {
            return Err(malformed("element", self.offset, "end-of-contents where an element is expected"));
        }
        if self.depth >= MAX_DEPTH {
            return Err(CmsError::Limit("ASN.1 nested deeper than 32"));
        }
        let body = self.rest.get(found.size..).unwrap_or_default();
        let (length, trailer) = match found.length {
            Some(length) => (length, 0),
            None => (measure(body, self.offset + found.size, self.depth)?, 2),
        };
        let gone = malformed("element", self.offset, "length exceeds what remains");
        let content = body.get(..length).ok_or(gone.clone())?;
        let (raw, rest) = self.rest.split_at_checked(found.size + length + trailer).ok_or(gone)?;
        let element = Element {
            tag: found.tag,
            number: found.number,
            raw,
            content,
            indefinite: found.length.is_none(),
            offset: self.offset,
            depth: self.depth,
            rules: self.rules,
        };
        self.rest = rest;
        self.offset += raw.len();
        Ok(element)
    }
    /// The next element, which must have this identifier octet.
    pub fn expect(&mut self, tag: u8, what: &'static str) -> Result<Element<'a>, CmsError> {
        if self.peek() != Some(tag) {
            return Err(malformed(what, self.offset, "another type is expected here"));
        }
        self.element()
    }
    /// The next element, if it has this identifier octet.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, CmsError> {
        if self.peek() == Some(tag) { self.element().map(Some) } else { Ok(None) }
    }
    /// The next element as a string type whose primitive form has this identifier octet; the constructed form is allowed in BER.
    pub fn string(&mut self, primitive: u8, what: &'static str) -> Result<Element<'a>, CmsError> {
        self.optional_string(primitive)?.ok_or(malformed(what, self.offset, "another type is expected here"))
    }
    /// The same, when it is there.
    pub fn optional_string(&mut self, primitive: u8) -> Result<Option<Element<'a>>, CmsError> {
        match self.peek() {
            Some(tag) if tag == primitive => self.element().map(Some),
            Some(tag) if tag == primitive | tag::CONSTRUCTED && self.rules == Rules::Ber => self.element().map(Some),
            _ => Ok(None),
        }
    }
    /// The next element as an OBJECT IDENTIFIER.
    pub fn oid(&mut self, what: &'static str) -> Result<ObjectIdentifier, CmsError> {
        let offset = self.offset;
        let element = self.expect(tag::OID, what)?;
        ObjectIdentifier::from_bytes(element.content)
            .map_err(|_| malformed(what, offset, "not an object identifier, or one too long"))
    }
    /// The next element as a non-negative INTEGER that fits 32 bits.
    pub fn small_integer(&mut self, what: &'static str) -> Result<u32, CmsError> {
        let element = self.expect(tag::INTEGER, what)?;
        element.small_integer(what)
    }
    /// Nothing may be left.
    pub fn end(&self, what: &'static str) -> Result<(), CmsError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(malformed(what, self.offset, "something follows where nothing may"))
        }
    }
}

impl<'a> Element<'a> {
    /// Constructed bit.
    pub fn is_constructed(&self) -> bool {
        self.tag & tag::CONSTRUCTED != 0
    }
    /// A reader of the elements inside.
    pub fn reader(&self) -> Reader<'a> {
        let trailer = if self.indefinite { 2 } else { 0 };
        let header = self.raw.len().saturating_sub(self.content.len()).saturating_sub(trailer);
        Reader { rest: self.content, offset: self.offset + header, depth: self.depth + 1, rules: self.rules }
    }
    /// Calls `each` with the pieces of a string, in order: one for the primitive form.
    fn for_each_piece(&self, what: &'static str, each: &mut impl FnMut(&'a [u8])) -> Result<(), CmsError> {
        if !self.is_constructed() {
            each(self.content);
            return Ok(());
        }
        let mut levels = vec![self.reader()];
        while let Some(level) = levels.last_mut() {
            if level.is_empty() {
                levels.pop();
                continue;
            }
            let element = level.element()?;
            match element.tag {
                tag::OCTET_STRING => each(element.content),
                octet if octet == tag::OCTET_STRING | tag::CONSTRUCTED => levels.push(element.reader()),
                _ => {
                    return Err(malformed(
                        what,
                        element.offset,
                        "a constructed string holds something else than strings",
                    ));
                }
            }
        }
        Ok(())
    }
    /// The octets of an OCTET STRING (or an implicitly tagged one), joined where it is constructed.
    pub fn octets(&self, what: &'static str) -> Result<Cow<'a, [u8]>, CmsError> {
        let mut total = 0usize;
        let mut only: Option<&'a [u8]> = None;
        let mut pieces = 0usize;
        self.for_each_piece(what, &mut |piece| {
            if !piece.is_empty() {
                total += piece.len();
                pieces += 1;
                only = Some(piece);
            }
        })?;
        if pieces <= 1 {
            return Ok(Cow::Borrowed(only.unwrap_or_default()));
        }
        let mut joined = Vec::with_capacity(total);
        self.for_each_piece(what, &mut |piece| joined.extend_from_slice(piece))?;
        Ok(Cow::Owned(joined))
    }
    /// The same as `Bytes` that share `input`, the buffer this was read from, where they can.
    pub fn octet_bytes(&self, input: &Bytes, what: &'static str) -> Result<Bytes, CmsError> {
        Ok(match self.octets(what)? {
            Cow::Borrowed(octets) => slice(input, octets),
            Cow::Owned(octets) => Bytes::from(octets),
        })
    }
    /// A non-negative INTEGER that fits 32 bits, shortest form.
    pub fn small_integer(&self, what: &'static str) -> Result<u32, CmsError> {
        let bad = |why| malformed(what, self.offset, why);
        match self.content {
            [] => Err(bad("an INTEGER without octets")),
            [first, ..] if first & 0x80 != 0 => Err(bad("a negative number")),
            [0, second, ..] if second & 0x80 == 0 => Err(bad("an INTEGER not in its shortest form")),
            content if content.len() > 5 => Err(bad("a number too large")),
            content => {
                let value = content.iter().fold(0u64, |value, octet| (value << 8) | u64::from(*octet));
                u32::try_from(value).map_err(|_| bad("a number too large"))
            }
        }
    }
    /// A BIT STRING (primitive) whose bits fill whole octets: those octets.
    pub fn bit_string(&self, what: &'static str) -> Result<&'a [u8], CmsError> {
        match self.content {
            [0, bits @ ..] if self.tag & 0x20 == 0 => Ok(bits),
            _ => Err(malformed(what, self.offset, "a BIT STRING of whole octets is expected")),
        }
    }
}

/// `part` as `Bytes` sharing `whole`'s buffer where it lies in it; copied where it does not.
pub fn slice(whole: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        return Bytes::new();
    }
    let (start, end) = (whole.as_ptr() as usize, whole.as_ptr() as usize + whole.len());
    let (from, to) = (part.as_ptr() as usize, part.as_ptr() as usize + part.len());
    if from >= start && to <= end { whole.slice_ref(part) } else { Bytes::copy_from_slice(part) }
}

/// Universal string types, which BER may split into pieces.
fn is_string(number: u32) -> bool {
    matches!(number, 3 | 4 | 12 | 18..=22 | 25..=30)
}

/// One element in DER form as far as lengths and split strings go: what is so already is borrowed. For small elements (a
/// SignerInfo, a RecipientInfo, a Name): a big content is copied once a level. SET OF is not sorted.
pub fn to_der(raw: &[u8]) -> Result<Cow<'_, [u8]>, CmsError> {
    if is_der(Reader::der(raw)) {
        return Ok(Cow::Borrowed(raw));
    }
    // Each level is built in a buffer of its own: this bounds all of them together to 32 MiB.
    if raw.len() > MAX_NORMALISED {
        return Err(CmsError::Limit("an ASN.1 element over 1 MiB that is not DER"));
    }
    let mut reader = Reader::ber(raw);
    let mut out = Vec::with_capacity(raw.len());
    while !reader.is_empty() {
        normalise(&reader.element()?, &mut out)?;
    }
    Ok(Cow::Owned(out))
}

fn is_der(mut reader: Reader<'_>) -> bool {
    while !reader.is_empty() {
        let Ok(element) = reader.element() else { return false };
        if element.is_constructed() {
            if element.tag < 0x40 && is_string(element.number) {
                return false;
            }
            if !is_der(element.reader()) {
                return false;
            }
        }
    }
    true
}

fn normalise(element: &Element<'_>, out: &mut Vec<u8>) -> Result<(), CmsError> {
    if !element.is_constructed() {
        write::header_like(element, element.tag, element.content.len(), out);
        out.extend_from_slice(element.content);
        return Ok(());
    }
    if element.tag < 0x40 && is_string(element.number) {
        if element.number != 4 {
            return Err(malformed("string", element.offset, "only OCTET STRINGs may come in pieces here"));
        }
        let octets = element.octets("string")?;
        write::header_like(element, element.tag & !tag::CONSTRUCTED, octets.len(), out);
        out.extend_from_slice(&octets);
        return Ok(());
    }
    let mut inner = Vec::with_capacity(element.content.len());
    let mut reader = element.reader();
    while !reader.is_empty() {
        normalise(&reader.element()?, &mut inner)?;
    }
    write::header_like(element, element.tag, inner.len(), out);
    out.extend_from_slice(&inner);
    Ok(())
}

/// Writes DER.
pub mod write {
    use super::{Element, tag};
    use const_oid::ObjectIdentifier;

    /// Length octets.
    pub fn length(length: usize, out: &mut Vec<u8>) {
        if let Ok(short @ 0..=0x7f) = u8::try_from(length) {
            out.push(short);
            return;
        }
        let octets = length.to_be_bytes();
        let significant = octets.iter().skip_while(|octet| **octet == 0);
        let count = significant.clone().count();
        // A usize has at most eight octets.
        out.push(0x80 | u8::try_from(count).unwrap_or(8));
        out.extend(significant);
    }

    /// Identifier octet (number under 31) and length.
    pub fn header(tag: u8, content: usize, out: &mut Vec<u8>) {
        out.push(tag);
        length(content, out);
    }

    /// The header of `element` again with another first octet and length.
    pub(super) fn header_like(element: &Element<'_>, first: u8, content: usize, out: &mut Vec<u8>) {
        out.push(first);
        if first & 0x1f == 0x1f {
            let mut shift = 28u32;
            let mut begun = false;
            loop {
                let bits = (element.number >> shift) & 0x7f;
                begun |= bits != 0 || shift == 0;
                if begun {
                    let octet = u8::try_from(bits).unwrap_or(0);
                    out.push(if shift == 0 { octet } else { octet | 0x80 });
                }
                match shift.checked_sub(7) {
                    Some(next) => shift = next,
                    None => break,
                }
            }
        }
        length(content, out);
    }

    /// An element with these pieces as contents.
    pub fn element(tag: u8, pieces: &[&[u8]]) -> Vec<u8> {
        let total = pieces.iter().map(|piece| piece.len()).sum();
        let mut out = Vec::with_capacity(total + 10);
        header(tag, total, &mut out);
        for piece in pieces {
            out.extend_from_slice(piece);
        }
        out
    }

    /// A SEQUENCE of these pieces.
    pub fn sequence(pieces: &[&[u8]]) -> Vec<u8> {
        element(tag::SEQUENCE, pieces)
    }

    /// A SET OF (or an implicitly tagged one) of these elements, sorted as DER wants (X.690 section 11.6).
    pub fn set_of(tag: u8, mut elements: Vec<Vec<u8>>) -> Vec<u8> {
        // Octet order equals X.690's order with trailing zeros: one encoding is never a prefix of another.
        elements.sort();
        let pieces: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
        element(tag, &pieces)
    }

    /// An OBJECT IDENTIFIER.
    pub fn oid(oid: &ObjectIdentifier) -> Vec<u8> {
        element(tag::OID, &[oid.as_bytes()])
    }

    /// An INTEGER of a small number.
    pub fn integer(value: u32) -> Vec<u8> {
        let octets = value.to_be_bytes();
        let mut content: Vec<u8> = octets.iter().copied().skip_while(|octet| *octet == 0).collect();
        if content.first().is_none_or(|first| first & 0x80 != 0) {
            content.insert(0, 0);
        }
        element(tag::INTEGER, &[&content])
    }

    /// An OCTET STRING.
    pub fn octet_string(octets: &[u8]) -> Vec<u8> {
        element(tag::OCTET_STRING, &[octets])
    }

    /// A BIT STRING of whole octets.
    pub fn bit_string(octets: &[u8]) -> Vec<u8> {
        element(tag::BIT_STRING, &[&[0], octets])
    }
}

/// Walks BER as a fuzzer gives it: the elements of a level join up to the input, and DER made of it stays as it is.
#[doc(hidden)]
pub fn fuzz_ber(data: &[u8]) {
    fn walk(mut reader: Reader<'_>) -> Result<(), CmsError> {
        let all = reader.rest();
        let mut covered = 0usize;
        while !reader.is_empty() {
            let element = reader.element()?;
            assert!(element.content.len() < element.raw.len());
            covered += element.raw.len();
            let _ = element.octets("octets").map(|octets| assert!(octets.len() <= element.content.len()));
            if element.is_constructed() {
                walk(element.reader())?;
            }
        }
        assert_eq!(covered, all.len());
        Ok(())
    }
    let walked = walk(Reader::ber(data));
    if let Ok(der) = to_der(data) {
        assert!(walked.is_ok());
        assert!(matches!(to_der(&der), Ok(Cow::Borrowed(again)) if again == der.as_ref()));
    }
}

#[cfg(test)]
mod tests;

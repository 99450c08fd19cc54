//! A strict DER reader over octets that stay where they are, and a writer of small DER values (X.690).

/// Tags used here.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const ENUMERATED: u8 = 0x0a;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const TELETEX_STRING: u8 = 0x14;
    pub(crate) const IA5_STRING: u8 = 0x16;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const VISIBLE_STRING: u8 = 0x1a;
    pub(crate) const UNIVERSAL_STRING: u8 = 0x1c;
    pub(crate) const BMP_STRING: u8 = 0x1e;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// `[n]`, primitive.
    pub(crate) const fn context(n: u8) -> u8 {
        0x80 | n
    }
    /// `[n]`, constructed.
    pub(crate) const fn constructed(n: u8) -> u8 {
        0xa0 | n
    }
}

/// Where DER breaks its rules, and which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why} at octet {offset}")]
pub(crate) struct Asn1Error {
    pub(crate) offset: usize,
    pub(crate) why: &'static str,
}

/// A range of octets, small enough to keep by the million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn of<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        data.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
    /// The same range as indexes.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
    /// The same without its first octet.
    pub(crate) fn without_first(&self) -> Option<Self> {
        Self::new(self.start as usize + 1, self.end as usize).filter(|span| span.start <= span.end)
    }
    fn new(start: usize, end: usize) -> Option<Self> {
        Some(Self { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }
}

/// One value: tag, content, and the whole with its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tlv<'a> {
    pub(crate) tag: u8,
    /// The content.
    pub(crate) value: &'a [u8],
    /// Header and content.
    pub(crate) full: &'a [u8],
    data: &'a [u8],
    start: usize,
    value_start: usize,
    end: usize,
}

impl<'a> Tlv<'a> {
    /// A reader of the content.
    pub(crate) fn reader(&self) -> Reader<'a> {
        Reader { data: self.data, pos: self.value_start, end: self.end }
    }
    /// The content's place.
    pub(crate) fn value_span(&self) -> Result<Span, Asn1Error> {
        Span::new(self.value_start, self.end).ok_or(Asn1Error { offset: self.start, why: "too long" })
    }
    /// The place of header and content.
    pub(crate) fn full_span(&self) -> Result<Span, Asn1Error> {
        Span::new(self.start, self.end).ok_or(Asn1Error { offset: self.start, why: "too long" })
    }
    /// An error about this value.
    pub(crate) fn error(&self, why: &'static str) -> Asn1Error {
        Asn1Error { offset: self.start, why }
    }
    /// A non-negative INTEGER that fits 64 bits.
    pub(crate) fn unsigned(&self) -> Result<u64, Asn1Error> {
        let (first, rest) = self.value.split_first().ok_or_else(|| self.error("empty INTEGER"))?;
        if first & 0x80 != 0 {
            return Err(self.error("negative INTEGER"));
        }
        if *first == 0 && rest.first().is_some_and(|next| next & 0x80 == 0) {
            return Err(self.error("INTEGER is not minimal"));
        }
        if rest.len() > 8 || (rest.len() == 8 && *first != 0) {
            return Err(self.error("INTEGER is too large"));
        }
        Ok(self.value.iter().fold(0u64, |sum, octet| (sum << 8) | u64::from(*octet)))
    }
    /// A BOOLEAN as DER writes it.
    pub(crate) fn boolean(&self) -> Result<bool, Asn1Error> {
        match self.value {
            [0x00] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(self.error("BOOLEAN is not DER")),
        }
    }
    /// The octets of a BIT STRING without unused bits.
    pub(crate) fn bit_octets(&self) -> Result<&'a [u8], Asn1Error> {
        match self.value.split_first() {
            Some((0, octets)) => Ok(octets),
            _ => Err(self.error("BIT STRING with unused bits")),
        }
    }
    /// A short list of named bits: bit 0 of the standard is the lowest bit of the result.
    pub(crate) fn named_bits(&self) -> Result<u16, Asn1Error> {
        let (unused, octets) = self.value.split_first().ok_or_else(|| self.error("empty BIT STRING"))?;
        if *unused > 7 || (octets.is_empty() && *unused != 0) || octets.len() > 2 {
            return Err(self.error("BIT STRING of named bits is malformed"));
        }
        let mut bits = 0u16;
        for (index, octet) in octets.iter().enumerate() {
            bits |= u16::from(octet.reverse_bits()) << (8 * index);
        }
        Ok(bits)
    }
}

/// Reads one value after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, pos: 0, end: data.len() }
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.pos >= self.end
    }
    /// Where the next value starts; `None` at the end.
    pub(crate) fn place(&self) -> Option<u32> {
        if self.is_empty() { None } else { u32::try_from(self.pos).ok() }
    }
    /// The tag that comes next.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.data.get(..self.end)?.get(self.pos).copied()
    }
    fn fail<T>(&self, why: &'static str) -> Result<T, Asn1Error> {
        Err(Asn1Error { offset: self.pos, why })
    }
    fn octet(&self, at: usize) -> Result<u8, Asn1Error> {
        match self.data.get(..self.end).and_then(|data| data.get(at)) {
            Some(octet) => Ok(*octet),
            None => self.fail("value cut short"),
        }
    }
    /// The next value, whatever it is.
    pub(crate) fn any(&mut self) -> Result<Tlv<'a>, Asn1Error> {
        let start = self.pos;
        let tag = self.octet(start)?;
        if tag & 0x1f == 0x1f {
            return self.fail("tag numbers above 30 are not used here");
        }
        let (length, value_start) = self.length(start + 1)?;
        let end = value_start.checked_add(length).filter(|end| *end <= self.end);
        let Some(end) = end else { return self.fail("value cut short") };
        let (Some(full), Some(value)) = (self.data.get(start..end), self.data.get(value_start..end)) else {
            return self.fail("value cut short");
        };
        self.pos = end;
        Ok(Tlv { tag, value, full, data: self.data, start, value_start, end })
    }
    fn length(&self, at: usize) -> Result<(usize, usize), Asn1Error> {
        let first = self.octet(at)?;
        if first < 0x80 {
            return Ok((usize::from(first), at + 1));
        }
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return self.fail("length is not DER");
        }
        let mut length = 0usize;
        for index in 0..count {
            length = (length << 8) | usize::from(self.octet(at + 1 + index)?);
        }
        // X.690 10.1: the minimum number of octets.
        if length < 0x80 || (count > 1 && length >> (8 * (count - 1)) == 0) {
            return self.fail("length is not minimal");
        }
        Ok((length, at + 1 + count))
    }
    /// The next value, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8, why: &'static str) -> Result<Tlv<'a>, Asn1Error> {
        if self.peek() != Some(tag) {
            return self.fail(why);
        }
        self.any()
    }
    /// The next value if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Tlv<'a>>, Asn1Error> {
        if self.peek() == Some(tag) { self.any().map(Some) } else { Ok(None) }
    }
    /// A SEQUENCE, as a reader of its content.
    pub(crate) fn sequence(&mut self, why: &'static str) -> Result<Reader<'a>, Asn1Error> {
        Ok(self.expect(tag::SEQUENCE, why)?.reader())
    }
    /// Refuses trailing octets.
    pub(crate) fn done(&self) -> Result<(), Asn1Error> {
        if self.is_empty() { Ok(()) } else { self.fail("octets after the value") }
    }
}

/// Writes one value: the header, then `parts`.
pub(crate) fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let octets = length.to_be_bytes();
        let skip = octets.iter().take_while(|octet| **octet == 0).count();
        out.push(0x80 | (octets.len() - skip) as u8);
        out.extend(octets.iter().skip(skip));
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// SEQUENCE of `parts`.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    write(tag::SEQUENCE, parts)
}

/// A non-negative INTEGER from big-endian octets.
pub(crate) fn integer(magnitude: &[u8]) -> Vec<u8> {
    let start = magnitude.iter().take_while(|octet| **octet == 0).count();
    let trimmed = magnitude.get(start..).unwrap_or_default();
    let pad: &[u8] = if trimmed.first().is_none_or(|octet| octet & 0x80 != 0) { &[0] } else { &[] };
    write(tag::INTEGER, &[pad, trimmed])
}

/// A non-negative INTEGER.
pub(crate) fn number(value: u64) -> Vec<u8> {
    integer(&value.to_be_bytes())
}

/// An OBJECT IDENTIFIER.
pub(crate) fn oid(oid: &const_oid::ObjectIdentifier) -> Vec<u8> {
    write(tag::OID, &[oid.as_bytes()])
}

/// The dotted text of an OBJECT IDENTIFIER's content; hexadecimal where it is malformed.
pub(crate) fn oid_text(content: &[u8]) -> String {
    match const_oid::ObjectIdentifier::from_bytes(content) {
        Ok(oid) => oid.to_string(),
        Err(_) => content.iter().take(32).map(|octet| format!("{octet:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_der() {
        for bad in [
            &[0x30, 0x80, 0, 0][..],
            &[0x04, 0x81, 0x01, 0],
            &[0x04, 0x82, 0, 0x80],
            &[0x04, 5, 1],
            &[0x1f, 1, 1],
            &[0x30],
            &[],
        ] {
            assert!(Reader::new(bad).any().is_err(), "{bad:02x?}");
        }
        let padded = [0x02, 2, 0, 1];
        assert!(Reader::new(&padded).any().unwrap().unsigned().is_err());
    }

    #[test]
    fn writes_what_it_reads() {
        for length in [0usize, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7u8; length];
            let der = write(tag::OCTET_STRING, &[&content]);
            let tlv = Reader::new(&der).any().unwrap();
            assert_eq!((tlv.value, tlv.full), (&content[..], &der[..]));
        }
        for value in [0u64, 127, 128, 255, 256, u64::MAX] {
            assert_eq!(Reader::new(&number(value)).any().unwrap().unsigned().unwrap(), value);
        }
    }
}

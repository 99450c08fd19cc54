//! Distinguished names: comparison (RFC 5280 section 7.1) and text (RFC 4514).

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

use crate::pki::asn1::{Asn1Error, Reader, Tlv, oid_text, tag};

/// A Name in a form whose octets are equal for names that RFC 5280 7.1 calls equal: each RDN with its length before it, so that
/// a name within another's subtree starts with its octets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CanonicalName(Vec<u8>);

impl CanonicalName {
    /// Reads a Name (DER).
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, Asn1Error> {
        let mut reader = Reader::new(der);
        let mut rdns = reader.sequence("a Name is a SEQUENCE")?;
        reader.done()?;
        let mut out = Vec::with_capacity(der.len());
        while !rdns.is_empty() {
            push_rdn(&mut rdns, &mut out)?;
        }
        Ok(Self(out))
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Whether `self` is `base` or lies below it.
    pub(crate) fn is_within(&self, base: &CanonicalName) -> bool {
        self.0.starts_with(&base.0)
    }
    /// A hash that equal names share.
    pub(crate) fn hash64(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }
}

fn push_block(out: &mut Vec<u8>, block: &[u8]) {
    out.extend_from_slice(&(block.len() as u64).to_be_bytes());
    out.extend_from_slice(block);
}

fn push_rdn(rdns: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Asn1Error> {
    let mut attributes = Vec::new();
    for_each_attribute(rdns, |oid, value| {
        let mut attribute = Vec::with_capacity(oid.len() + value.value.len() + 24);
        push_block(&mut attribute, oid);
        match text(value) {
            Some(text) => {
                attribute.push(tag::UTF8_STRING);
                push_block(&mut attribute, folded(&text).as_bytes());
            }
            None => push_block(&mut attribute, value.full),
        }
        attributes.push(attribute);
    })?;
    attributes.sort_unstable();
    push_block(out, &attributes.concat());
    Ok(())
}

fn for_each_attribute<'a>(rdns: &mut Reader<'a>, mut each: impl FnMut(&'a [u8], &Tlv<'a>)) -> Result<(), Asn1Error> {
    let set = rdns.expect(tag::SET, "a RelativeDistinguishedName is a SET")?;
    let mut members = set.reader();
    if members.is_empty() {
        return Err(set.error("an RDN has at least one attribute"));
    }
    while !members.is_empty() {
        let mut attribute = members.sequence("an AttributeTypeAndValue is a SEQUENCE")?;
        let oid = attribute.expect(tag::OID, "an attribute has a type")?;
        let value = attribute.any()?;
        attribute.done()?;
        each(oid.value, &value);
    }
    Ok(())
}

/// Lower case, inner white space as one space, none at the ends.
fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().flat_map(char::to_lowercase));
    }
    out
}

/// The characters of a string type; `None` for other types and broken encodings.
fn text(value: &Tlv<'_>) -> Option<String> {
    match value.tag {
        tag::UTF8_STRING => std::str::from_utf8(value.value).ok().map(str::to_owned),
        tag::PRINTABLE_STRING | tag::IA5_STRING | tag::VISIBLE_STRING => {
            value.value.is_ascii().then(|| value.value.iter().map(|octet| char::from(*octet)).collect())
        }
        // In practice Latin-1.
        tag::TELETEX_STRING => Some(value.value.iter().map(|octet| char::from(*octet)).collect()),
        tag::BMP_STRING => {
            let (pairs, rest) = value.value.as_chunks::<2>();
            let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
            if rest.is_empty() { char::decode_utf16(units).collect::<Result<_, _>>().ok() } else { None }
        }
        tag::UNIVERSAL_STRING => {
            let (quads, rest) = value.value.as_chunks::<4>();
            if !rest.is_empty() {
                return None;
            }
            quads.iter().map(|quad| char::from_u32(u32::from_be_bytes(*quad))).collect()
        }
        _ => None,
    }
}

/// Every emailAddress attribute (PKCS#9) of a Name.
pub(crate) fn email_addresses(der: &[u8]) -> Result<Vec<String>, Asn1Error> {
    const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];
    let mut found = Vec::new();
    let mut rdns = Reader::new(der).sequence("a Name is a SEQUENCE")?;
    while !rdns.is_empty() {
        for_each_attribute(&mut rdns, |oid, value| {
            if oid == EMAIL_ADDRESS {
                found.push(text(value).unwrap_or_default());
            }
        })?;
    }
    Ok(found)
}

/// RFC 4514 text, control characters escaped; "?" for what cannot be read.
pub(crate) fn to_text(der: &[u8]) -> String {
    rdn_texts(der).map_or_else(
        |_| "?".to_owned(),
        |mut rdns| {
            rdns.reverse();
            rdns.join(",")
        },
    )
}

fn rdn_texts(der: &[u8]) -> Result<Vec<String>, Asn1Error> {
    let mut rdns = Reader::new(der).sequence("a Name is a SEQUENCE")?;
    let mut texts = Vec::new();
    while !rdns.is_empty() {
        let mut rdn = String::new();
        for_each_attribute(&mut rdns, |oid, value| {
            if !rdn.is_empty() {
                rdn.push('+');
            }
            match short_name(oid) {
                Some(name) => rdn.push_str(name),
                None => rdn.push_str(&oid_text(oid)),
            }
            rdn.push('=');
            match text(value) {
                Some(text) => escape(&text, &mut rdn),
                None => {
                    rdn.push('#');
                    for octet in value.full {
                        let _ = write!(rdn, "{octet:02x}");
                    }
                }
            }
        })?;
        texts.push(rdn);
    }
    Ok(texts)
}

fn short_name(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x55, 4, 42] => "GN",
        [0x55, 4, 97] => "organizationIdentifier",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        _ => return None,
    })
}

fn escape(text: &str, out: &mut String) {
    let last = text.chars().count().saturating_sub(1);
    for (index, character) in text.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', character]),
            '#' if index == 0 => out.push_str("\\#"),
            ' ' if index == 0 || index == last => out.push_str("\\ "),
            // Direction marks would let a name show itself as another one.
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                let mut buffer = [0u8; 4];
                for octet in c.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(out, "\\{octet:02X}");
                }
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::asn1::{sequence, write};

    fn name(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let rdns: Vec<Vec<u8>> = parts
            .iter()
            .map(|(kind, value)| {
                write(tag::SET, &[&sequence(&[&write(tag::OID, &[&[0x55, 4, 3]]), &write(*kind, &[value])])])
            })
            .collect();
        sequence(&rdns.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    #[test]
    fn equal_after_folding_case_space_and_string_type() {
        let canonical = |der: &[u8]| CanonicalName::from_der(der).unwrap();
        let a = canonical(&name(&[(tag::PRINTABLE_STRING, b" Good  CA ")]));
        let b = canonical(&name(&[(tag::UTF8_STRING, b"good ca")]));
        assert_eq!(a, b);
        assert_eq!(a.hash64(), b.hash64());
        assert_ne!(a, canonical(&name(&[(tag::UTF8_STRING, b"goodca")])));
        let below = canonical(&name(&[(tag::UTF8_STRING, b"good ca"), (tag::UTF8_STRING, b"x")]));
        assert!(below.is_within(&a) && !a.is_within(&below));
        assert!(!canonical(&name(&[(tag::UTF8_STRING, b"good cab")])).is_within(&a));
    }

    #[test]
    fn text_escapes_what_could_deceive() {
        let der = name(&[(tag::UTF8_STRING, b"Root"), (tag::UTF8_STRING, "a,b\r\n\u{202e}\u{1b}".as_bytes())]);
        assert_eq!(to_text(&der), "CN=a\\,b\\0D\\0A\\E2\\80\\AE\\1B,CN=Root");
    }
}

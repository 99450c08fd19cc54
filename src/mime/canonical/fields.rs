//! Header fields of parts, made safe for 7-bit hops without changing what they say.

use super::{LINE_MAX, is_seven_bit_safe};
use crate::mime::header::{Field, Header, HeaderWriter, MimeError, Parameters, text_of};

/// Fields that hold addresses.
const ADDRESSES: [&str; 9] = ["From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Resent-From", "Resent-To", "Resent-Cc"];

/// Appends a header's fields; Content-Transfer-Encoding fields give way to `encoding` where one is given (`Some("")`: none).
pub(super) fn write(header: &Header, encoding: Option<&str>, out: &mut Vec<u8>) -> Result<(), MimeError> {
    for field in &header.fields {
        if encoding.is_some() && field.is("Content-Transfer-Encoding") {
            continue;
        }
        if field.raw.ends_with(b"\r\n") && is_seven_bit_safe(&field.raw) {
            out.extend_from_slice(&field.raw);
        } else {
            safe(field, out)?;
        }
    }
    if let Some(encoding) = encoding.filter(|encoding| !encoding.is_empty()) {
        let mut writer = HeaderWriter::new();
        writer.structured("Content-Transfer-Encoding", encoding)?;
        out.extend(writer.finish());
    }
    Ok(())
}

/// Appends one field: without trailing white space, folded anew where a line is too long, encoded where it is not ASCII.
fn safe(field: &Field, out: &mut Vec<u8>) -> Result<(), MimeError> {
    let trimmed = trim_lines(&field.raw);
    if is_seven_bit_safe(&trimmed) {
        out.extend(trimmed);
        return Ok(());
    }
    let octets: Vec<u8> = field.unfolded().into_iter().filter(|octet| !matches!(octet, b'\r' | b'\n' | 0)).collect();
    let mut writer = HeaderWriter::new();
    let name = field.name();
    let visible = octets.iter().all(|octet| matches!(octet, b'\t' | b' '..=b'~'));
    if visible && octets.split(|octet| matches!(octet, b' ' | b'\t')).all(|word| word.len() < LINE_MAX - name.len() - 2)
    {
        writer.structured(name, &String::from_utf8_lossy(&octets))?;
    } else {
        let text = text_of(octets);
        if field.is("Content-Type") || field.is("Content-Disposition") {
            writer.structured(name, &Parameters::parse(&text)?.to_wire())?;
        } else if ADDRESSES.iter().any(|other| field.is(other)) {
            writer.addresses(name, &text)?;
        } else {
            writer.unstructured(name, &text)?;
        }
    }
    out.extend(writer.finish());
    Ok(())
}

/// Drops white space at line ends, and lines that hold nothing else.
fn trim_lines(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 2);
    for line in raw.split(|octet| *octet == b'\n') {
        let line = line.trim_ascii_end();
        if !line.is_empty() {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

//! Transfer encodings that survive any hop (RFC 2045 section 6.7).

use memchr::memmem;

/// Characters of a quoted-printable line before the soft line break's `=`.
const LINE: usize = 75;

/// Appends `octets` as quoted-printable. CRLF stays a line end; every other control character, 8-bit octets, white space at
/// the end of a line, and what a hop may change at the start of one ("From ", a dot, two dashes) are escaped.
pub(super) fn quoted_printable(octets: &[u8], out: &mut Vec<u8>) {
    out.reserve(octets.len() + octets.len() / 8 + 16);
    let mut rest = octets;
    while let Some(at) = memmem::find(rest, b"\r\n") {
        let (line, after) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        encode_line(line, out);
        out.extend_from_slice(b"\r\n");
        rest = after.get(2..).unwrap_or_default();
    }
    encode_line(rest, out);
}

fn encode_line(line: &[u8], out: &mut Vec<u8>) {
    let mut column = 0;
    let mut rest = line;
    while let Some((octet, after)) = rest.split_first() {
        let last = after.is_empty();
        let mut literal = is_literal(*octet, last);
        let width = if literal { 1 } else { 3 };
        // The last character may take the place of the soft line break's `=`.
        if column + width > LINE + usize::from(last) {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        literal &= column > 0 || !(rest.starts_with(b"From ") || matches!(rest, [b'.', ..] | [b'-', b'-', ..]));
        if literal {
            out.push(*octet);
            column += 1;
        } else {
            out.push(b'=');
            out.extend(
                [octet >> 4, octet & 15]
                    .map(|half| b"0123456789ABCDEF".get(usize::from(half)).copied().unwrap_or(b'0')),
            );
            column += 3;
        }
        rest = after;
    }
}

fn is_literal(octet: u8, last: bool) -> bool {
    match octet {
        b' ' | b'\t' => !last,
        b'=' => false,
        33..=126 => true,
        _ => false,
    }
}

//! PEM (RFC 7468) as files have it: several blocks, text between them, old encapsulated headers, any line length.

use base64::Engine as _;
use zeroize::Zeroizing;

/// One block.
pub(crate) struct Block {
    pub(crate) label: String,
    pub(crate) octets: Zeroizing<Vec<u8>>,
    /// RFC 1421 headers stood before the base64: an old encrypted key.
    pub(crate) has_headers: bool,
}

/// The most blocks read from one file.
const MAX_BLOCKS: usize = 10_000;

/// Every block of a file; what stands between them is passed over.
pub(crate) fn blocks(octets: &[u8]) -> Result<Vec<Block>, String> {
    let mut found = Vec::new();
    let mut open: Option<(String, Zeroizing<Vec<u8>>, bool)> = None;
    for line in octets.split(|octet| *octet == b'\n' || *octet == b'\r') {
        let line = line.trim_ascii();
        match &mut open {
            None => {
                if let Some(label) = marker(line, b"-----BEGIN ") {
                    open = Some((label, Zeroizing::default(), false));
                }
            }
            Some((label, base64, has_headers)) => {
                if let Some(end) = marker(line, b"-----END ") {
                    if end != *label {
                        return Err(format!("PEM block {label} ends as {end}"));
                    }
                    let octets = base64::engine::general_purpose::STANDARD
                        .decode(base64.as_slice())
                        .map_err(|error| format!("PEM block {label}: {error}"))?;
                    found.push(Block {
                        label: std::mem::take(label),
                        octets: octets.into(),
                        has_headers: *has_headers,
                    });
                    open = None;
                    if found.len() > MAX_BLOCKS {
                        return Err(format!("more than {MAX_BLOCKS} PEM blocks"));
                    }
                } else if line.contains(&b':') {
                    *has_headers = true;
                } else {
                    base64.extend_from_slice(line);
                }
            }
        }
    }
    match open {
        Some((label, ..)) => Err(format!("PEM block {label} has no END line")),
        None => Ok(found),
    }
}

fn marker(line: &[u8], start: &[u8]) -> Option<String> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
    let fine = label.len() <= 64 && label.iter().all(|octet| octet.is_ascii_graphic() || *octet == b' ');
    if fine { String::from_utf8(label.to_vec()).ok() } else { None }
}

/// Writes one block.
#[cfg(any(test, feature = "server"))]
pub(crate) fn armor(label: &str, octets: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(octets);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

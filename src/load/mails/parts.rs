//! What a mail says, whatever it is wrapped in: its leaves, decoded. P.

use bytes::Bytes;

use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::MimeError;

/// A leaf: its type, its name, and its content decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The type without parameters, in lower case.
    pub essence: String,
    /// The `name` parameter.
    pub name: Option<String>,
    /// Its transfer encoding undone, without the line end at its end: that belongs to the delimiter or to the mail.
    pub content: Bytes,
}

/// The leaves of an entity in order. Clear signatures are looked through: their first part is what was signed.
pub fn parts(entity: &Entity, limits: &MimeLimits) -> Result<Vec<Part>, MimeError> {
    leaves(entity, limits, 0)
}

fn leaves(entity: &Entity, limits: &MimeLimits, depth: usize) -> Result<Vec<Part>, MimeError> {
    let content_type = entity.content_type()?;
    if !content_type.is_multipart() || depth > limits.depth {
        let content = entity.decoded_body()?;
        let content = content.strip_suffix(b"\r\n").map_or(content.clone(), |start| content.slice_ref(start));
        let name = content_type.parameter("name").map(str::to_owned);
        return Ok(vec![Part { essence: content_type.essence, name, content }]);
    }
    let inner = entity.parts(limits)?;
    let take = if content_type.essence == "multipart/signed" { 1 } else { inner.len() };
    let mut all = Vec::new();
    for part in inner.iter().take(take) {
        all.extend(leaves(part, limits, depth + 1)?);
    }
    Ok(all)
}

/// In what two lists differ; `None`: in nothing.
pub fn difference(expected: &[Part], found: &[Part]) -> Option<String> {
    if expected.len() != found.len() {
        return Some(format!("{} parts were sent, {} came", expected.len(), found.len()));
    }
    let at = expected.iter().zip(found).position(|(one, other)| one != other)?;
    let (one, other) = expected.get(at).zip(found.get(at))?;
    let octet = one.content.iter().zip(other.content.iter()).position(|(sent, came)| sent != came);
    Some(match octet {
        _ if one.essence != other.essence => format!("part {}: {} became {}", at + 1, one.essence, other.essence),
        _ if one.name != other.name => format!("part {} has another name", at + 1),
        Some(octet) => format!("part {} ({}) differs from octet {octet} on", at + 1, one.essence),
        None => {
            format!(
                "part {} ({}) has {} octets in place of {}",
                at + 1,
                one.essence,
                other.content.len(),
                one.content.len()
            )
        }
    })
}

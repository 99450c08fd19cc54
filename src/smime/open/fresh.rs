//! What is delivered after a decryption: fresh, well-formed MIME (A1) with lines that the next hop takes (A16).

use bytes::Bytes;

use crate::mime::canonical;
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::{Field, Header};
use crate::mime::rope::Rope;
use crate::smime::seal::{is_content_field, push_field};

/// Octets in a line at most, its end left out (RFC 5321 section 4.5.3.1.6).
const LINE: usize = 998;

/// Whether decrypted octets are a MIME entity: CBC under a wrong key "succeeds" once in 256 times, and yields none.
pub(super) fn is_mime_entity(octets: &Bytes, limits: &MimeLimits) -> Option<Entity> {
    const KNOWN: [&str; 7] = ["MIME-Version", "From", "To", "Subject", "Date", "Message-ID", "Received"];
    let entity = Entity::parse(octets.clone(), limits).ok()?;
    let known = |name: &str| is_content_field(name) || KNOWN.iter().any(|one| name.eq_ignore_ascii_case(one));
    (entity.header.defects.is_empty() && entity.header.fields.iter().any(|field| known(field.name()))).then_some(entity)
}

/// The message to deliver: outer fields that are not MIME's, then the MIME fields and the body of the decrypted entity.
/// Protected fields take the place of the outer ones. The second value is a note where octets had to change (A16), which
/// does not happen where `lined` says that they are well lined.
pub(super) fn message(
    outer: &Header,
    protected: &[Field],
    inner: &Entity,
    lined: bool,
    limits: &MimeLimits,
) -> (Bytes, Option<&'static str>) {
    let (inner, note) = if lined { (inner.clone(), None) } else { well_lined_entity(inner, limits) };
    let mut octets = outer_fields(outer, protected, inner.raw.len());
    for field in inner.header.fields.iter().filter(|field| is_content_field(field.name())) {
        push_field(&mut octets, &field.raw);
    }
    octets.extend_from_slice(b"\r\n");
    octets.extend_from_slice(&inner.body);
    (octets.into(), note)
}

/// The same for an entity that was written here: well lined, and its fields are MIME's alone.
pub(super) fn message_around(outer: &Header, protected: &[Field], inner: &Rope) -> Bytes {
    let mut octets = outer_fields(outer, protected, inner.encoded_len());
    inner.append_to(&mut octets);
    octets.into()
}

/// A message with these fields in the place of its own of their names; all else octet for octet.
pub(super) fn with_fields(message: &Entity, fields: &[Field]) -> Bytes {
    let mut octets = Vec::with_capacity(message.raw.len().saturating_add(1024));
    let mut written: Vec<&str> = Vec::new();
    for field in &message.header.fields {
        match fields.iter().find(|other| other.is(field.name())) {
            None => push_field(&mut octets, &field.raw),
            Some(other) if !written.contains(&other.name()) => {
                written.push(other.name());
                push_field(&mut octets, &other.raw);
            }
            Some(_) => {}
        }
    }
    for field in fields.iter().filter(|field| !written.contains(&field.name())) {
        push_field(&mut octets, &field.raw);
    }
    octets.extend_from_slice(message.raw.get(message.header.raw.len()..).unwrap_or_default());
    octets.into()
}

/// The outer fields that are not MIME's, and MIME-Version, in a buffer with room for `room` octets more.
fn outer_fields(outer: &Header, protected: &[Field], room: usize) -> Vec<u8> {
    let mut octets = Vec::with_capacity(outer.raw.len().saturating_add(room).saturating_add(64));
    for field in &outer.fields {
        let replaced = protected.iter().any(|other| other.is(field.name()));
        if !replaced && !is_content_field(field.name()) && !field.is("MIME-Version") {
            push_field(&mut octets, &field.raw);
        }
    }
    for field in protected {
        push_field(&mut octets, &field.raw);
    }
    octets.extend_from_slice(b"MIME-Version: 1.0\r\n");
    octets
}

/// The entity with lines that may go over SMTP: as it is, else re-encoded part by part, else broken by force.
fn well_lined_entity(inner: &Entity, limits: &MimeLimits) -> (Entity, Option<&'static str>) {
    if is_well_lined(&inner.raw) {
        return (inner.clone(), None);
    }
    let ends = canonical::canonical_line_ends(&inner.raw);
    if is_well_lined(&ends)
        && let Ok(entity) = Entity::parse(ends.clone(), limits)
    {
        return (
            entity,
            Some(
                "line ends of the decrypted content were repaired; a signature over it may no longer verify downstream",
            ),
        );
    }
    let prepared = Entity::parse(ends.clone(), limits)
        .and_then(|entity| canonical::prepare_lenient(&entity, limits))
        .and_then(|prepared| Entity::parse(prepared.inner.to_bytes(), limits));
    if let Ok(entity) = prepared
        && is_well_lined(&entity.raw)
    {
        return (
            entity,
            Some(
                "decrypted content was re-encoded for the next hop; a signature over it may no longer verify downstream",
            ),
        );
    }
    let broken = Bytes::from(forced(&ends));
    let entity = Entity::parse(broken.clone(), limits).unwrap_or_else(|_| Entity::without_header(broken));
    (
        entity,
        Some("lines of the decrypted content were broken by force; a signature over it no longer verifies downstream"),
    )
}

/// CRLF alone ends lines, none is longer than 998 octets, and there is no NUL.
pub(in crate::smime) fn is_well_lined(octets: &[u8]) -> bool {
    canonical::all_pairs(octets, |_, octet| octet != 0) && canonical::lines_fit(octets)
}

/// NUL left out, CR and LF kept only as CRLF, lines broken at 998 octets.
fn forced(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len().saturating_add(64));
    for line in octets.split(|octet| *octet == b'\n') {
        let kept: Vec<u8> = line.iter().copied().filter(|octet| *octet != 0 && *octet != b'\r').collect();
        if kept.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        for piece in kept.chunks(LINE) {
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a16_lines_that_no_hop_may_see_are_found_and_broken() {
        let long = [b"x".repeat(999), b"\r\n".to_vec()].concat();
        let cases: [&[u8]; 8] = [b"a\rb", b"a\nb", b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"a\0b\r\n", &long];
        for case in cases {
            assert!(!is_well_lined(case), "{case:?}");
            let out = forced(case);
            assert!(is_well_lined(&out), "{case:?} -> {out:?}");
        }
        assert!(is_well_lined(b""));
        assert!(is_well_lined(b"a\r\n\r\nb"));
        assert!(is_well_lined(&[b"x".repeat(998), b"\r\n".to_vec()].concat()));
        assert!(!is_well_lined(b"a\r\r\nb"));
        assert!(!is_well_lined(b"\na"));
    }
}

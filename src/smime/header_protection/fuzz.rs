//! Fuzz body: any message, its fields protected in every way, and read again.

use bytes::Bytes;

use super::{
    Confidentiality, HeaderProtection, OBSCURED, SHOWN, carrier, compose, replacing, without_display, wrapped,
};
use crate::mime::entity::{Entity, MimeLimits};
use crate::smime::seal::{is_content_field, push_field};

/// What is read of any message is bounded by what may stand for outer fields; what we write hides what it is to hide, and reads the same
/// again.
#[doc(hidden)]
pub fn fuzz_header_protection(data: &[u8]) {
    let limits = MimeLimits { depth: 8, parts: 200, fields: 200 };
    let Ok(message) = Entity::parse(Bytes::copy_from_slice(data), &limits) else { return };
    read(&message, &limits);
    for outside in [Confidentiality::None, Confidentiality::Baseline, Confidentiality::Shy] {
        for (legacy_display, encrypted) in [(false, false), (false, true), (true, true)] {
            let how = HeaderProtection { outside, legacy_display };
            let Ok(Some(composed)) = compose(&message, how, encrypted, &limits) else { continue };
            let mut octets = composed.inside.to_vec();
            let content = composed.message.header.fields.iter().filter(|field| is_content_field(field.name()));
            content.for_each(|field| push_field(&mut octets, &field.raw));
            octets.extend_from_slice(b"\r\n");
            octets.extend_from_slice(&composed.message.body);
            if encrypted && outside != Confidentiality::None {
                for subject in composed.message.header.all("Subject") {
                    assert_eq!(subject.value().trim(), OBSCURED, "the Subject is hidden");
                }
                let told = composed.message.header.all("Keywords").chain(composed.message.header.all("Comments"));
                assert_eq!(told.count(), 0, "Keywords and Comments are hidden");
            }
            let Ok(inner) = Entity::parse(octets.into(), &limits) else { continue };
            read(&inner, &limits);
            let before = message.header.one("Subject").ok().flatten().map(|field| field.value().trim().to_owned());
            let after = replacing(&inner, None, &limits).into_iter().find(|field| field.is("Subject"));
            if let (Some(before), Some(after)) = (before, after) {
                assert_eq!(after.value().trim(), before, "the Subject inside is the message's");
            }
        }
    }
}

fn read(message: &Entity, limits: &MimeLimits) {
    let author = message.header.single_from().ok();
    let fields = replacing(message, author.as_ref(), limits);
    assert!(fields.len() <= SHOWN.len());
    for field in &fields {
        assert!(SHOWN.iter().any(|name| field.is(name)) && !field.is("From"));
        assert!(field.raw.ends_with(b"\r\n"));
    }
    assert!(fields.is_empty() || carrier(message, author.as_ref(), limits).is_some());
    if let Some(inner) = wrapped(message, author.as_ref(), limits) {
        assert!(inner.raw.len() <= message.raw.len());
    }
    if let Some(bare) = without_display(message, limits) {
        assert!(bare.body.len() <= message.body.len() || bare.decoded_body().is_ok());
    }
}

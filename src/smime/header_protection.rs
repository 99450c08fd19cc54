//! Header fields under protection (RFC 9788): what a sealed message's fields say is signed and encrypted with its content, and what stays
//! outside tells no more than it must.

use bytes::Bytes;
use jiff::fmt::rfc2822;

use crate::address::Mailbox;
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::{Field, Header, HeaderWriter, MimeError, Parameters};
use crate::smime::seal::{is_content_field, push_field};

mod display;
mod fuzz;
#[cfg(test)]
mod tests;

pub(super) use display::without_display;
pub use fuzz::fuzz_header_protection;

/// What the fields outside of an encryption still say (RFC 9788 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Confidentiality {
    /// `hcp_no_confidentiality`: all; the copy inside is proven.
    None,
    /// `hcp_baseline`: not the Subject, Keywords and Comments.
    Baseline,
    /// `hcp_shy`: nor display names, nor the author's time zone.
    Shy,
}

impl std::str::FromStr for Confidentiality {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "no-confidentiality" => Ok(Self::None),
            "baseline" => Ok(Self::Baseline),
            "shy" => Ok(Self::Shy),
            _ => Err("expected no-confidentiality, baseline or shy".to_owned()),
        }
    }
}

/// How header fields are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeaderProtection {
    /// What stays outside; without an encryption nothing is hidden.
    pub outside: Confidentiality,
    /// What is hidden outside is written at the top of the text, for mail programs that do not know RFC 9788 (section 3.1.2).
    pub legacy_display: bool,
}

/// What stands for a Subject outside (RFC 9788 section 3.2.2).
const OBSCURED: &str = "[...]";

/// Fields of a copy inside that people see; others are traces of the way so far, or say how the outer message is built.
const SHOWN: [&str; 14] = [
    "From",
    "Subject",
    "Date",
    "To",
    "Cc",
    "Reply-To",
    "Followup-To",
    "Sender",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Keywords",
    "Comments",
    "User-Agent",
];

/// A message whose fields are protected: the message to take apart, and the fields to stand before its MIME fields inside.
#[derive(Debug)]
pub(super) struct Composed {
    pub(super) message: Entity,
    pub(super) inside: Bytes,
}

/// Writes the outer fields and the copy inside; with `encrypted` what is to be hidden is. `None` where the message says already that its
/// fields are protected. An error where it can be read in two ways: what is hidden for some would be shown to others.
pub(super) fn compose(
    message: &Entity,
    how: HeaderProtection,
    encrypted: bool,
    limits: &MimeLimits,
) -> Result<Option<Composed>, MimeError> {
    let content_type = message.content_type()?;
    let says_so = content_type.parameter("hp").is_some() || content_type.parameter("protected-headers").is_some();
    if says_so {
        return Ok(None);
    }
    if message.header.all("HP-Outer").next().is_some() || !message.header.defects.is_empty() {
        return Err(MimeError::Ambiguous("a header with broken lines, or with HP-Outer, cannot be protected"));
    }
    let outside = if encrypted { how.outside } else { Confidentiality::None };
    let (mut outer, mut inside, mut hp_outer, mut hidden) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for field in
        message.header.fields.iter().filter(|field| !is_content_field(field.name()) && !field.is("MIME-Version"))
    {
        if !SHOWN.iter().any(|name| field.is(name)) {
            push_field(&mut outer, &field.raw);
            continue;
        }
        push_field(&mut inside, &field.raw);
        let left = obscured(field, outside);
        let written = left.as_deref().unwrap_or(&field.raw);
        if left.is_some() {
            hidden.push(field);
        }
        if written.is_empty() {
            continue;
        }
        push_field(&mut outer, written);
        if encrypted {
            hp_outer.extend(named_outer(written));
        }
    }
    inside.extend(hp_outer);
    let hp = if encrypted { "cipher" } else { "clear" };
    let display = (how.legacy_display && !hidden.is_empty()).then(|| display::text(&hidden));
    let mime = display::with_display(message, display.as_deref(), hp, limits)?;
    outer.extend_from_slice(b"MIME-Version: 1.0\r\n");
    outer.extend_from_slice(&mime);
    Ok(Some(Composed { message: Entity::parse(outer.into(), limits)?, inside: inside.into() }))
}

/// What stands outside in a field's place; `None`: the field itself; empty: nothing.
fn obscured(field: &Field, outside: Confidentiality) -> Option<Vec<u8>> {
    if outside == Confidentiality::None {
        return None;
    }
    let mut writer = HeaderWriter::new();
    if field.is("Subject") {
        writer.structured("Subject", OBSCURED).ok()?;
        return Some(writer.finish());
    }
    if field.is("Keywords") || field.is("Comments") {
        return Some(Vec::new());
    }
    if outside == Confidentiality::Baseline {
        return None;
    }
    let value = if ["From", "To", "Cc", "Reply-To", "Sender"].iter().any(|name| field.is(name)) {
        let mailboxes: Vec<String> = field.mailboxes().iter().map(ToString::to_string).collect();
        Some(mailboxes.join(", ")).filter(|list| !list.is_empty())
    } else if field.is("Date") {
        let at = rfc2822::DateTimeParser::new().parse_timestamp(field.value().trim()).ok()?;
        let utc = rfc2822::DateTimePrinter::new().timestamp_to_string(&at).ok()?;
        Some(utc.replace("-0000", "+0000"))
    } else {
        None
    };
    let value = value.filter(|value| *value != field.value())?;
    writer.structured(field.name(), &value).ok()?;
    Some(writer.finish())
}

/// HP-Outer (RFC 9788 section 2.2), the field's own folds kept.
fn named_outer(field: &[u8]) -> Vec<u8> {
    const LINE: usize = 990;
    let first = field.split(|octet| *octet == b'\n').next().map_or(0, <[u8]>::len);
    let lead: &[u8] = if first + 10 > LINE { b"HP-Outer:\r\n " } else { b"HP-Outer: " };
    let mut out = Vec::with_capacity(field.len() + 16);
    out.extend_from_slice(lead);
    push_field(&mut out, field);
    out
}

/// The fields that stand for the outer ones: those of the innermost content that says that it carries them (RFC 9788, the older
/// protected-headers="v1"), or of a wrapped message (see [`wrapped`]). From is not among them: whose mail it is, is the verdict's to say.
/// One that may stand once and stands twice is left out, as is one that no next hop would take.
pub(super) fn replacing(content: &Entity, author: Option<&Mailbox>, limits: &MimeLimits) -> Vec<Field> {
    match carrier(content, author, limits) {
        Some(header) => SHOWN
            .iter()
            .filter(|name| **name != "From")
            .filter_map(|name| header.one(name).ok().flatten())
            .filter(|field| field.raw.ends_with(b"\r\n") && super::open::is_well_lined(&field.raw))
            .cloned()
            .collect(),
        None => Vec::new(),
    }
}

/// Fields that people see, which stand outside and not under the protection of a content that protects its fields (RFC 9788): somebody
/// may have added them on the way.
pub(super) fn unprotected<'o>(outer: &'o Header, content: &Entity) -> Vec<&'o str> {
    let protects = content.header.defects.is_empty()
        && content.content_type().is_ok_and(|content_type| content_type.parameter("hp").is_some());
    let shown =
        outer.fields.iter().map(Field::name).filter(|name| SHOWN.iter().any(|one| one.eq_ignore_ascii_case(name)));
    shown.filter(|name| protects && content.header.all(name).next().is_none()).collect()
}

/// The header that carries protected fields; `author` is the one in From outside.
pub(super) fn carrier(content: &Entity, author: Option<&Mailbox>, limits: &MimeLimits) -> Option<Header> {
    if !content.header.defects.is_empty() {
        return None;
    }
    let content_type = content.content_type().ok()?;
    let says =
        |name: &str, value: &str| content_type.parameter(name).is_some_and(|found| found.eq_ignore_ascii_case(value));
    if says("hp", "cipher") || says("hp", "clear") || says("protected-headers", "v1") {
        return Some(content.header.clone());
    }
    wrapped(content, author, limits).map(|message| message.header)
}

/// The message wrapped in content as RFC 8551 section 3.1 has it, which is what people are to see: message/rfc822 with `forwarded=no`, or
/// without a word of that where it is of the same author as the message. One that is forwarded stays what it is, and so does one whose fields
/// are protected beside it (RFC 9788).
pub(super) fn wrapped(content: &Entity, author: Option<&Mailbox>, limits: &MimeLimits) -> Option<Entity> {
    let content_type = content.content_type().ok().filter(|one| one.essence == "message/rfc822")?;
    let message = content.message(limits).ok().filter(|message| message.header.defects.is_empty())?;
    let same_author =
        || author.is_some_and(|author| message.header.single_from().is_ok_and(|from| from.key() == author.key()));
    let wraps = match content_type.parameter("forwarded") {
        Some(value) => value.eq_ignore_ascii_case("no"),
        None => content_type.parameter("hp").is_none() && same_author(),
    };
    wraps.then_some(message)
}

/// A mail whose root is another message is one that its author forwards: protected, it says so, or whoever opens it would take what is
/// forwarded for the mail (see [`wrapped`]). `None`: any other mail, and one that says itself what it is.
pub(super) fn forwarding(message: &Entity, limits: &MimeLimits) -> Result<Option<Entity>, MimeError> {
    let header = &message.header;
    let silent = message.content_type().is_ok_and(|one| {
        one.essence == "message/rfc822" && ["forwarded", "hp"].iter().all(|name| one.parameter(name).is_none())
    });
    if !silent || !header.defects.is_empty() {
        return Ok(None);
    }
    let says = content_type_field(message, |parameters| parameters.set("forwarded", "yes"))?;
    let mut octets = Vec::with_capacity(message.raw.len().saturating_add(64));
    for field in &header.fields {
        push_field(&mut octets, if field.is("Content-Type") { &says } else { &field.raw });
    }
    octets.extend_from_slice(b"\r\n");
    octets.extend_from_slice(&message.body);
    Entity::parse(octets.into(), limits).map(Some)
}

/// A Content-Type field written anew.
fn content_type_field(entity: &Entity, edit: impl FnOnce(&mut Parameters)) -> Result<Vec<u8>, MimeError> {
    let text = match entity.header.one("Content-Type")? {
        Some(field) => field.value(),
        None => "text/plain; charset=us-ascii".to_owned(),
    };
    let mut parameters = Parameters::parse(&text)?;
    edit(&mut parameters);
    let mut writer = HeaderWriter::new();
    writer.structured("Content-Type", &parameters.to_wire())?;
    Ok(writer.finish())
}

//! Replies to mail that was decrypted here are known by their References (A33): a mail program copies those of the mail it answers
//! (RFC 5322 section 3.6.4), so a word of ours in the decrypted mail comes back, whichever node answers and however much later. Nothing is
//! kept here, and a forged one only protects more.

use aws_lc_rs::digest;
use bytes::Bytes;

use crate::mime::entity::Entity;
use crate::mime::header::{Field, HeaderWriter};
use crate::policy::DECRYPTED_THREAD;

/// The message with our identifier at the end of its References; `None`: it is there already, or cannot be written.
pub(super) fn marked(entity: &Entity) -> Option<Bytes> {
    let header = &entity.header;
    let references: Vec<String> = header.all("References").map(Field::value).collect();
    if references.iter().any(|value| value.contains(DECRYPTED_THREAD)) {
        return None;
    }
    // Each mail's own: one for all would make one thread of them.
    let own = header.all("Message-ID").next().map_or(header.raw.as_ref(), |field| field.raw.as_ref());
    let hash = digest::digest(&digest::SHA256, own);
    let name: String = hash.as_ref().iter().take(16).map(|octet| format!("{octet:02x}")).collect();
    let mut writer = HeaderWriter::new();
    writer.structured("References", format!("{} <{name}{DECRYPTED_THREAD}", references.join(" ")).trim()).ok()?;
    let mut octets = Vec::with_capacity(entity.raw.len().saturating_add(256));
    for field in header.fields.iter().filter(|field| !field.is("References")) {
        octets.extend_from_slice(&field.raw);
    }
    octets.extend_from_slice(&writer.finish());
    octets.extend_from_slice(entity.raw.get(header.raw.len()..)?);
    Some(octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::entity::MimeLimits;

    fn entity(text: &str) -> Entity {
        Entity::parse(Bytes::copy_from_slice(text.as_bytes()), &MimeLimits::default()).unwrap()
    }

    #[test]
    fn the_word_stands_last_once_and_is_each_mails_own() {
        let mail = |id: &str| {
            format!(
                "From: a@b.example\r\nMessage-ID: <{id}@b.example>\r\nReferences: <x@y.example>\r\n <z@y.example>\r\n\r\nbody\r\n"
            )
        };
        let marked_once = |id: &str| String::from_utf8(marked(&entity(&mail(id))).unwrap().to_vec()).unwrap();
        let (one, other) = (marked_once("1"), marked_once("2"));
        let references = |text: &str| entity(text).header.one("References").unwrap().unwrap().value();
        assert!(
            references(&one).starts_with("<x@y.example> <z@y.example> <")
                && references(&one).ends_with(DECRYPTED_THREAD),
            "{one}"
        );
        assert_ne!(references(&one), references(&other));
        assert!(one.ends_with("\r\n\r\nbody\r\n") && one.contains("Message-ID: <1@b.example>\r\n"), "{one}");
        assert_eq!(marked(&entity(&one)), None);
        let bare = String::from_utf8(marked(&entity("Subject: x\r\n\r\nbody")).unwrap().to_vec()).unwrap();
        assert!(bare.starts_with("Subject: x\r\nReferences: <") && bare.ends_with("\r\n\r\nbody"), "{bare}");
    }
}

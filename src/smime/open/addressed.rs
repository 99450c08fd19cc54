//! Whom a signed message was written to (A9): To and Cc under the signature, for the comparison with the envelope.

use bytes::Bytes;

use crate::address::{Mailbox, MailboxKey};
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::Header;
use crate::smime::header_protection::carrier;

/// The mailboxes of the To and Cc that are protected: fields of the signed part that say so (RFC 9788, and the older
/// protected-headers="v1"), or those of a wrapped message (RFC 8551 section 3.1). `None` where neither field is protected.
pub(super) fn addressed(content: &Bytes, author: Option<&Mailbox>, limits: &MimeLimits) -> Option<Vec<MailboxKey>> {
    let entity = Entity::parse(content.clone(), limits).ok()?;
    let content_type = entity.content_type().ok()?;
    if matches!(content_type.essence.as_str(), "message/rfc822" | "message/global") {
        return named(&Entity::parse(entity.decoded_body().ok()?, limits).ok()?.header);
    }
    named(&carrier(&entity, author, limits)?)
}

fn named(header: &Header) -> Option<Vec<MailboxKey>> {
    let shown = header.fields.iter().any(|field| field.is("To") || field.is("Cc"));
    shown.then(|| header.to_and_cc().iter().map(|mailbox| mailbox.key()).collect())
}

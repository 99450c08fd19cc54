//! What a mail needs of a next hop, and what can be done where that is not offered. Content is encoded anew only where nothing signed or
//! encrypted is touched; otherwise the mail is refused, never broken.

use bytes::Bytes;

use crate::address::ReversePath;
use crate::mime::canonical::for_seven_bit_hop;
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::rope::Rope;
use crate::relay::heavy::{self, HEAVY};
use crate::smtp::client::{Offers, no_smtputf8};
use crate::smtp::command::{Enhanced, Envelope, MailParameters, Recipient, Reply};

/// A mail made fit for a next hop.
pub(super) struct Fit {
    /// SMTPUTF8 is to be said in MAIL.
    pub(super) smtputf8: bool,
    pub(super) content: Rope,
}

/// Makes a mail fit for what a next hop offers; `Err`: it cannot be sent there.
pub(super) async fn fit(envelope: &Envelope, content: &Rope, offers: Offers) -> Result<Fit, Reply> {
    let smtputf8 = utf8(&envelope.reverse_path, &envelope.parameters, &envelope.recipients, content, offers)?;
    Ok(Fit { smtputf8, content: eight_bit(content, offers).await? })
}

/// Whether SMTPUTF8 is to be said. A mail that was declared SMTPUTF8, and is ASCII all over, passes without it.
fn utf8(
    reverse_path: &ReversePath,
    parameters: &MailParameters,
    recipients: &[Recipient],
    content: &Rope,
    offers: Offers,
) -> Result<bool, Reply> {
    if offers.smtputf8 || !parameters.smtputf8 {
        return Ok(parameters.smtputf8);
    }
    let sender = matches!(reverse_path, ReversePath::Mailbox(mailbox) if mailbox.needs_smtputf8());
    let needed = sender || recipients.iter().any(|one| one.mailbox.needs_smtputf8()) || has_utf8_header(content);
    if needed { Err(no_smtputf8()) } else { Ok(false) }
}

/// Whether a header of the message or of a part of it is not ASCII (RFC 6531 section 3.4).
pub(super) fn has_utf8_header(content: &Rope) -> bool {
    if content.is_ascii() {
        return false;
    }
    let limits = MimeLimits::default();
    // What cannot be read may be anything.
    Entity::parse(content.to_bytes(), &limits).map_or(true, |entity| utf8_within(&entity, &limits))
}

/// Recursion ends at `limits.depth`.
fn utf8_within(entity: &Entity, limits: &MimeLimits) -> bool {
    if !entity.header.raw.is_ascii() {
        return true;
    }
    let Ok(content_type) = entity.content_type_lenient() else { return !entity.body.is_ascii() };
    match content_type.essence.as_str() {
        multipart if multipart.starts_with("multipart/") => entity.parts_lenient(limits).map_or(true, |parts| {
            parts.iter().filter(|part| !part.raw.is_ascii()).any(|part| utf8_within(part, limits))
        }),
        "message/rfc822" | "message/global" => {
            entity.message(limits).map_or(true, |message| utf8_within(&message, limits))
        }
        _ => false,
    }
}

/// RFC 6152 section 3: without 8BITMIME the content is encoded anew, or the mail comes back.
pub(super) async fn eight_bit(content: &Rope, offers: Offers) -> Result<Rope, Reply> {
    if offers.eight_bit_mime || content.is_ascii() {
        return Ok(content.clone());
    }
    let octets = content.to_bytes();
    let encoded = if octets.len() > HEAVY {
        heavy::on_a_thread(move || encoded(octets)).await.unwrap_or_else(|_| Err("a defect".into()))
    } else {
        encoded(octets)
    };
    encoded.map(Rope::from).map_err(|why| {
        let text = format!("the next hop does not offer 8BITMIME, and this mail cannot be encoded for it: {why}");
        Reply::new(554, Enhanced(5, 6, 3), text)
    })
}

fn encoded(octets: Bytes) -> Result<Bytes, String> {
    let limits = MimeLimits::default();
    Entity::parse(octets, &limits)
        .and_then(|entity| for_seven_bit_hop(&entity, &limits))
        .map_err(|error| error.to_string())
}

//! What notifications and automatic answers quote of inbound mail stays here where they leave unencrypted (A33): a mail server behind
//! this gateway bounces what was decrypted here, whole, to whoever is in the reverse-path.

use bytes::Bytes;

use crate::address::ReversePath;
use crate::mime::entity::{Entity, MimeLimits, boundary};
use crate::mime::header::{Header, MimeError};

/// The mark that decrypted mail carries.
const MARK: &str = "X-Waxwing-Decrypted";
/// What stands in the place of quoted text.
const LEFT_OUT: &[u8] =
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\nThe mail that was quoted here is left out.\r\n";

/// The message with quoted mail cut to its header; `None`: it is no automatic message, or quotes nothing. A notification (null
/// reverse-path) quotes no mail whole; another automatic answer (RFC 3834) none that was decrypted here.
pub(super) fn cut(
    entity: &Entity,
    reverse_path: &ReversePath,
    limits: &MimeLimits,
) -> Result<Option<Bytes>, MimeError> {
    let notification = *reverse_path == ReversePath::Null;
    let automatic =
        entity.header.all("Auto-Submitted").any(|field| !field.value().to_ascii_lowercase().starts_with("no"));
    if !notification && !automatic {
        return Ok(None);
    }
    let mut walk = Walk { all: notification, changed: false, limits, out: Vec::with_capacity(entity.raw.len()) };
    walk.entity(entity)?;
    Ok(walk.changed.then(|| walk.out.into()))
}

struct Walk<'l> {
    /// Mail that was not decrypted here too.
    all: bool,
    changed: bool,
    limits: &'l MimeLimits,
    out: Vec<u8>,
}

impl Walk<'_> {
    /// Recursion ends at `limits.depth`.
    fn entity(&mut self, entity: &Entity) -> Result<(), MimeError> {
        let content_type = entity.content_type_lenient()?;
        match content_type.essence.as_str() {
            essence if essence.starts_with("multipart/") => {
                let boundary = boundary(&content_type)?;
                self.out.extend_from_slice(&entity.header.raw);
                self.out.extend_from_slice(b"\r\n");
                for part in entity.parts_lenient(self.limits)? {
                    self.out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
                    self.entity(&part)?;
                    self.out.extend_from_slice(b"\r\n");
                }
                self.out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
                Ok(())
            }
            "message/rfc822" | "message/global" => self.message(entity),
            "text/rfc822-headers" | "message/rfc822-headers" | "message/global-headers" => {
                let header = Entity::parse(entity.decoded_body()?, self.limits)?.header;
                if is_decrypted(&header) {
                    self.headers(entity, &header)
                } else {
                    self.raw(entity)
                }
                Ok(())
            }
            essence if essence.starts_with("text/") => {
                self.text(entity);
                Ok(())
            }
            _ => {
                self.raw(entity);
                Ok(())
            }
        }
    }

    fn raw(&mut self, entity: &Entity) {
        self.out.extend_from_slice(&entity.raw);
    }

    fn message(&mut self, entity: &Entity) -> Result<(), MimeError> {
        let quoted = Entity::parse(entity.decoded_body().unwrap_or_default(), self.limits)?;
        match entity.message(self.limits) {
            Ok(message) if !self.all && !is_decrypted(&quoted.header) => {
                self.out.extend_from_slice(&entity.header.raw);
                self.out.extend_from_slice(b"\r\n");
                self.entity(&message)
            }
            _ => {
                self.headers(entity, &quoted.header);
                Ok(())
            }
        }
    }

    /// The quoted mail's header in its place: without our marks, and without a Subject that may have been encrypted.
    fn headers(&mut self, entity: &Entity, header: &Header) {
        self.changed = true;
        self.other_fields(entity);
        self.out.extend_from_slice(b"Content-Type: text/rfc822-headers\r\n\r\n");
        let decrypted = is_decrypted(header);
        for field in &header.fields {
            let ours = field.name().get(..10).is_some_and(|start| start.eq_ignore_ascii_case("X-Waxwing-"));
            if !ours && !(decrypted && (field.is("Subject") || field.is("Authentication-Results"))) {
                self.out.extend_from_slice(&field.raw);
            }
        }
    }

    /// Text that quotes decrypted mail as text: what stands before it is kept.
    fn text(&mut self, entity: &Entity) {
        let Ok(text) = entity.decoded_body() else { return self.raw(entity) };
        let Some(at) = quoted_from(&text) else { return self.raw(entity) };
        self.changed = true;
        // In octets as they are the place is the same.
        let kept = if text == entity.body { entity.body.get(..at) } else { None };
        match kept {
            Some(kept) => {
                self.out.extend_from_slice(&entity.header.raw);
                self.out.extend_from_slice(b"\r\n");
                self.out.extend_from_slice(kept);
            }
            None => {
                self.other_fields(entity);
                self.out.extend_from_slice(LEFT_OUT);
            }
        }
    }

    /// The fields that say nothing of the content.
    fn other_fields(&mut self, entity: &Entity) {
        let is_content = |name: &str| name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("Content-"));
        for field in entity.header.fields.iter().filter(|field| !is_content(field.name())) {
            self.out.extend_from_slice(&field.raw);
        }
    }
}

fn is_decrypted(header: &Header) -> bool {
    header.all(MARK).any(|field| field.value().to_ascii_lowercase().starts_with("yes"))
}

/// Where the first line begins that is the mark of a decrypted mail, quote signs before it or not. Our marks stand first in a header.
fn quoted_from(text: &[u8]) -> Option<usize> {
    let mut start = 0_usize;
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        let bare: Vec<u8> = line.iter().copied().skip_while(|octet| b"> \t|".contains(octet)).take(64).collect();
        let bare = String::from_utf8_lossy(&bare).to_ascii_lowercase();
        if bare.strip_prefix("x-waxwing-decrypted:").is_some_and(|value| value.trim_start().starts_with("yes")) {
            return Some(start);
        }
        start = start.saturating_add(line.len());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Mailbox;

    const DECRYPTED: &str = "X-Waxwing-Decrypted: yes; cipher=\"AES-256-GCM\"\r\nFrom: a@b.example\r\nSubject: CanarySubject\r\n\
        Content-Type: text/plain\r\n\r\nCanaryBody\r\n";

    fn report(part: &str) -> String {
        format!(
            "From: MAILER-DAEMON@ours.example\r\nContent-Type: multipart/report; boundary=\"r\"\r\n\r\n--r\r\n\r\nsorry\r\n--r\r\n{part}\r\n--r--\r\n"
        )
    }

    fn cut_text(message: &str, from: &ReversePath) -> Option<String> {
        let entity = Entity::parse(Bytes::copy_from_slice(message.as_bytes()), &MimeLimits::default()).unwrap();
        cut(&entity, from, &MimeLimits::default()).unwrap().map(|octets| String::from_utf8(octets.to_vec()).unwrap())
    }

    #[test]
    fn a33_notifications_quote_no_mail_whole() {
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, DECRYPTED);
        let quoting = [
            report(&format!("Content-Type: message/rfc822\r\n\r\n{DECRYPTED}")),
            report(&format!("Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{DECRYPTED}")),
            report(&format!("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{base64}")),
            report(&format!("Content-Type: text/rfc822-headers\r\n\r\n{}", DECRYPTED.replace("CanaryBody", ""))),
            report(&format!(
                "Content-Type: multipart/mixed; boundary=\"q\"\r\n\r\n--q\r\nContent-Type: message/rfc822\r\n\r\n{DECRYPTED}\r\n--q--"
            )),
            report(&format!(
                "Content-Type: message/rfc822\r\n\r\nSubject: x\r\nContent-Type: message/rfc822\r\n\r\n{DECRYPTED}"
            )),
            format!(
                "Subject: failure notice\r\n\r\nsorry\r\n--- Below this line is a copy of the message.\r\n\r\n{DECRYPTED}"
            ),
            format!("Subject: failure notice\r\n\r\nsorry\r\n> {}", DECRYPTED.replace("\r\n", "\r\n> ")),
            format!("Subject: failure notice\r\nContent-Transfer-Encoding: base64\r\n\r\n{base64}"),
        ];
        let from = ReversePath::Mailbox(Mailbox::parse("a@ours.example").unwrap());
        for message in quoting {
            let cut = cut_text(&message, &ReversePath::Null).unwrap();
            assert!(!cut.contains("Canary") && !cut.contains(&base64), "{cut}");
            assert!(message.contains(&base64) || cut.contains("sorry"), "{cut}");
            let answer = cut_text(&format!("Auto-Submitted: auto-replied\r\n{message}"), &from).unwrap();
            assert!(!answer.contains("Canary") && !answer.contains(&base64), "{answer}");
            assert!(cut_text(&message, &from).is_none(), "what people write is theirs");
            assert!(cut_text(&cut, &ReversePath::Null).is_none_or(|again| !again.contains("Canary")));
        }
    }

    #[test]
    fn a33_headers_stay_where_they_were_in_clear() {
        let clear = DECRYPTED.replace("X-Waxwing-Decrypted: yes", "X-Waxwing-Signature: none");
        let cut =
            cut_text(&report(&format!("Content-Type: message/rfc822\r\n\r\n{clear}")), &ReversePath::Null).unwrap();
        assert!(cut.contains("CanarySubject") && !cut.contains("CanaryBody") && !cut.contains("X-Waxwing"), "{cut}");
        assert!(cut_text("Subject: x\r\n\r\nno quotes", &ReversePath::Null).is_none());
    }
}

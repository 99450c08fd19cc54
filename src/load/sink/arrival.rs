//! What a mail that arrived says of itself: which one it is, whether it is called valid, what a report tells. P; octets from outside.

use bytes::Bytes;

use crate::load::mails::MailId;
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::Header;

/// Fields and recipients of one report that are looked at.
const TOLD_MAX: usize = 10_000;

/// A mail as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// Whose name it bears.
    pub(super) id: Option<MailId>,
    pub(super) content: Bytes,
    /// Where its body begins.
    pub(super) body: usize,
    /// Authentication-Results with smime=pass: somebody on the way calls it valid.
    pub(super) passes: bool,
}

impl Arrival {
    pub(super) fn body(&self) -> &[u8] {
        self.content.get(self.body..).unwrap_or_default()
    }
}

/// Reads the fields that matter; the body is looked at only where they do not name the mail.
pub(super) fn read(content: Bytes) -> Arrival {
    let body = match content.get(..2) {
        Some(b"\r\n") => 2,
        _ => memchr::memmem::find(&content, b"\r\n\r\n").map_or(content.len(), |at| at + 4),
    };
    let header = content.get(..body).unwrap_or_default();
    let (mut own, mut message_id, mut results) = (None, None, false);
    for line in header.split(|octet| *octet == b'\n') {
        // Most fields are none of these: the first octet tells.
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'x') => own = own.or_else(|| value(line, "x-load-id").and_then(id_of)),
            Some(b'm') => message_id = message_id.or_else(|| value(line, "message-id").and_then(id_of)),
            Some(b'a') => results |= value(line, "authentication-results").is_some(),
            _ => {}
        }
    }
    let id = own.or(message_id).or_else(|| marked(content.get(body..).unwrap_or_default()));
    let passes = results && passes(&content);
    Arrival { id, content, body, passes }
}

/// The value of a line that begins a field of this name (in lower case).
fn value<'l>(line: &'l [u8], name: &str) -> Option<&'l [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let rest = if start.eq_ignore_ascii_case(name.as_bytes()) { rest.trim_ascii_start() } else { return None };
    rest.strip_prefix(b":").map(<[u8]>::trim_ascii)
}

/// An id, or a Message-ID whose left side is one.
fn id_of(value: &[u8]) -> Option<MailId> {
    let value = value.strip_prefix(b"<").unwrap_or(value);
    let end = value.iter().position(|octet| *octet == b'@').unwrap_or(value.len());
    MailId::parse(std::str::from_utf8(value.get(..end)?).ok()?)
}

/// The mark in a body that is readable.
fn marked(body: &[u8]) -> Option<MailId> {
    let at = memchr::memmem::find(body, b"Load-Id: ")?;
    let rest = body.get(at.saturating_add(9)..)?;
    id_of(rest.split(|octet| octet.is_ascii_whitespace()).next()?)
}

/// Whether an Authentication-Results field says smime=pass (RFC 8601 section 2.2), outside of comments and quoted strings.
fn passes(content: &Bytes) -> bool {
    let Ok((header, _)) = Header::parse(content, &MimeLimits::default()) else { return false };
    header.all("Authentication-Results").any(|field| {
        let words = bare(&field.value());
        words.split(';').any(|result| {
            let squeezed: String = result.split_whitespace().collect::<Vec<_>>().join(" ");
            let squeezed = squeezed.replace(" =", "=").replace("= ", "=").to_ascii_lowercase();
            squeezed.split(' ').next() == Some("smime=pass")
        })
    })
}

/// Without comments and quoted strings.
fn bare(text: &str) -> String {
    let (mut out, mut depth, mut quoted, mut escaped) = (String::new(), 0_usize, false, false);
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' if depth == 0 => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            other if depth == 0 => out.push(other),
            _ => {}
        }
    }
    out
}

/// A report (RFC 3464) of mails of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// Of which mail.
    pub(super) id: Option<MailId>,
    /// Addresses, in ASCII lower case, whose mail failed.
    pub(super) failed: Vec<String>,
}

/// Reads a report; `None` where it is none.
pub(super) fn report(content: &Bytes) -> Option<Report> {
    let limits = MimeLimits::default();
    let entity = Entity::parse(content.clone(), &limits).ok()?;
    if entity.content_type_lenient().ok()?.essence != "multipart/report" {
        return None;
    }
    let mut found: Option<Report> = None;
    let mut returned = None;
    for part in entity.parts_lenient(&limits).ok()? {
        let Ok(content_type) = part.content_type_lenient() else { continue };
        match content_type.essence.as_str() {
            "message/delivery-status" | "message/global-delivery-status" if found.is_none() => {
                found = part.decoded_body().ok().map(|body| status(body, &limits));
            }
            "text/rfc822-headers" | "message/rfc822" | "message/global-headers" | "message/global" => {
                returned = returned.or_else(|| part.decoded_body().ok().and_then(|body| read(body).id));
            }
            _ => {}
        }
    }
    let mut report = found?;
    report.id = report.id.or(returned);
    Some(report)
}

/// The groups of fields of message/delivery-status (RFC 3464 section 2).
fn status(mut body: Bytes, limits: &MimeLimits) -> Report {
    let mut report = Report { id: None, failed: Vec::new() };
    while !body.is_empty() && report.failed.len() < TOLD_MAX {
        let Ok((header, next)) = Header::parse(&body, limits) else { break };
        // At least the empty line, or what is no field, is gone.
        let next = next.max(1).min(body.len());
        let field = |name: &'static str| header.all(name).next().map(|field| field.value());
        if let Some(envid) = field("Original-Envelope-Id") {
            report.id = report.id.or_else(|| id_of(envid.trim().as_bytes()));
        }
        if field("Action").is_some_and(|action| action.trim().eq_ignore_ascii_case("failed")) {
            let addresses = [field("Original-Recipient"), field("Final-Recipient")].into_iter().flatten();
            report.failed.extend(addresses.filter_map(|address| {
                let (_, address) = address.split_once(';')?;
                Some(address.trim().to_ascii_lowercase())
            }));
        }
        body = body.slice(next..);
    }
    report
}

/// Fuzz body: whatever arrives is read to its end, and an id is found only where it stands.
#[doc(hidden)]
pub fn fuzz_arrival(data: &[u8]) {
    let content = Bytes::copy_from_slice(data);
    let arrival = read(content.clone());
    assert!(arrival.body <= content.len());
    let stands = |id: MailId| {
        let run = format!("{:016x}-", id.run);
        memchr::memmem::find(&content, run.as_bytes()).is_some()
    };
    assert!(arrival.id.is_none_or(stands), "{:?}", arrival.id);
    if arrival.passes {
        let lower = content.to_ascii_lowercase();
        assert!(memchr::memmem::find(&lower, b"authentication-results").is_some());
    }
    if let Some(report) = report(&content) {
        assert!(report.failed.len() <= TOLD_MAX + 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "00000000000000ab-1f";
    const NUMBER: Option<MailId> = Some(MailId { run: 0xab, number: 0x1f });

    fn read_text(text: &str) -> Arrival {
        read(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_id_is_found_outside_and_else_inside() {
        for text in [
            format!("From: a\r\nx-load-ID: {ID}\r\n\r\nbody"),
            format!("From: a\r\nMessage-Id:  <{ID}@x.example>\r\n\r\nbody"),
            format!("Message-ID: <other@x>\r\nX-Load-Id: {ID}\r\n\r\n"),
            format!("\r\nbody\r\nLoad-Id: {ID} canary\r\n"),
            format!("X-Load-Id: nonsense\r\n\r\nLoad-Id: {ID}"),
        ] {
            assert_eq!(read_text(&text).id, NUMBER, "{text}");
        }
        for text in ["", "X-Load-Id: ab-1f\r\n\r\n", "\r\n", "Subject: x\r\n X-Load-Id: 00000000000000ab-1f\r\n\r\n"] {
            assert_eq!(read_text(text).id, None, "{text}");
        }
        assert_eq!(read_text("A: b\r\n\r\nbody").body(), b"body");
        assert_eq!(read_text("\r\nbody").body(), b"body");
    }

    #[test]
    fn only_a_result_of_smime_pass_is_one() {
        for (field, expected) in [
            ("gw.example; smime=pass (ok) body.smime-identifier=\"a@b\"", true),
            ("gw.example;\r\n smime=pass", true),
            ("gw.example; spf=pass; SMIME = Pass", true),
            ("gw.example; smime=fail (smime=pass)", false),
            ("gw.example; smime=fail reason=\"; smime=pass\"", false),
            ("gw.example; smime=none", false),
            ("gw.example; smime=passed", false),
            ("gw.example; x=\"\\\"; smime=pass\"", false),
        ] {
            let text = format!("Authentication-Results: {field}\r\nFrom: a\r\n\r\n");
            assert_eq!(read_text(&text).passes, expected, "{field}");
        }
        assert!(!read_text("From: a\r\n\r\nAuthentication-Results: x; smime=pass\r\n").passes, "in the body");
    }

    fn bounce(envid: &str, returned: &str, action: &str) -> String {
        format!(
            "From: x\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n--b\r\n\
             Content-Type: message/delivery-status\r\n\r\n{envid}Reporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; Bert@X.example\r\n\
             Action: {action}\r\nStatus: 5.0.0\r\n\r\nOriginal-Recipient: rfc822;carla@x.example\r\nFinal-Recipient: rfc822; c@y\r\nAction: FAILED\r\n\r\n\
             --b\r\nContent-Type: text/rfc822-headers\r\n\r\n{returned}\r\n--b--\r\n"
        )
    }

    #[test]
    fn a_report_names_its_mail_and_whose_failed() {
        let (envid, header) = (format!("Original-Envelope-Id: {ID}\r\n"), format!("Subject: x\r\nX-Load-Id: {ID}\r\n"));
        let read = |text: String| report(&Bytes::from(text));
        for (envid, returned) in [(envid.as_str(), ""), ("", header.as_str())] {
            let found = read(bounce(envid, returned, "failed")).unwrap();
            assert_eq!(found.id, NUMBER);
            assert_eq!(found.failed, ["bert@x.example", "carla@x.example", "c@y"]);
        }
        let delayed = read(bounce(&envid, "", "delayed")).unwrap();
        assert_eq!(delayed.failed, ["carla@x.example", "c@y"]);
        assert_eq!(read(bounce("", "", "failed")).unwrap().id, None);
        assert_eq!(read("Subject: x\r\n\r\nno report".into()), None);
    }

    #[test]
    fn fuzz_body_holds_on_what_was_seen() {
        let mail = format!("Authentication-Results: a; smime=pass\r\nX-Load-Id: {ID}\r\n\r\nLoad-Id: {ID} x\r\n");
        let bounce = bounce(&format!("Original-Envelope-Id: {ID}\r\n"), "", "failed");
        for text in [mail, bounce] {
            for end in 0..=text.len() {
                fuzz_arrival(&text.as_bytes()[..end]);
            }
        }
    }

    proptest! {
        #[test]
        fn fuzz_body_holds(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_arrival(&data);
        }

        #[test]
        fn fuzz_body_holds_with_a_piece_changed(at in 0usize..600, piece in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut octets = bounce("", &format!("X-Load-Id: {ID}\r\n"), "failed").into_bytes();
            let at = at.min(octets.len());
            octets.splice(at..octets.len().min(at + 5), piece);
            fuzz_arrival(&octets);
        }
    }
}

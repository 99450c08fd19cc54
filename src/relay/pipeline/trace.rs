//! Trace fields (RFC 5321 section 4.4), the loop token (A23), and the edits of a header on the way.

use std::net::IpAddr;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::address::{Domain, Mailbox};
use crate::config::Direction;
use crate::mime::header::{Header, HeaderWriter};
use crate::relay::listen::Peer;
use crate::smtp::command::MailParameters;

/// The field that tells this gateway that a message passed it before.
const LOOP_FIELD: &str = "X-Waxwing-Loop";

/// Makes and knows the loop tokens of this installation: authentic, so that nobody else's field counts, and telling the
/// direction, because a mail may rightly pass once each way.
pub struct LoopTokens {
    outbound: String,
    inbound: String,
}

impl LoopTokens {
    /// `secret` is the installation's own (nodes of one installation share it).
    pub fn new(secret: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let token = |name: &str| {
            let tag = hmac::sign(&key, format!("waxwing loop token {name}").as_bytes());
            format!("{name}; {}", STANDARD_NO_PAD.encode(tag.as_ref().get(..16).unwrap_or_default()))
        };
        Self { outbound: token("out"), inbound: token("in") }
    }

    fn token(&self, direction: Direction) -> &str {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound | Direction::ByRecipient => &self.inbound,
        }
    }

    /// Whether the message passed in this direction before.
    pub fn passed(&self, header: &Header, direction: Direction) -> bool {
        let token = self.token(direction);
        header.all(LOOP_FIELD).any(|field| field.value() == token)
    }

    /// This direction's field, and those of ours that the message has (stripping of forged marks takes them all away).
    pub fn fields(&self, header: &Header, direction: Direction) -> String {
        format!("{LOOP_FIELD}: {}\r\n{}", self.token(direction), self.kept(header))
    }

    /// The fields of ours that the message has, each once.
    pub fn kept(&self, header: &Header) -> String {
        let both = [Direction::Outbound, Direction::Inbound];
        let passed = both.into_iter().filter(|direction| self.passed(header, *direction));
        passed.map(|direction| format!("{LOOP_FIELD}: {}\r\n", self.token(direction))).collect()
    }
}

/// The Received field. The recipient is named only where there is one: others may be blind copies. Where the peer says that the mail came from
/// a client of its own (XFORWARD), that client stands in the peer's place, and the peer beside it.
pub fn received(
    hostname: &Domain,
    peer: &Peer,
    parameters: &MailParameters,
    id: &str,
    only: Option<&Mailbox>,
    at: Timestamp,
) -> String {
    let at_peer = (peer.helo.as_str(), peer.address.ip());
    let told = parameters.client.as_deref().and_then(|client| Some((client.helo.as_deref(), client.address?)));
    let ((helo, address), by) = match told {
        None => (at_peer, String::new()),
        Some((helo, address)) => {
            ((helo.unwrap_or_default(), address), format!("\r\n\t(forwarded by {})", literal(at_peer.1)))
        }
    };
    let helo: String = helo.chars().filter(|c| c.is_ascii_alphanumeric() || ".-_[]:".contains(*c)).take(255).collect();
    let helo = if helo.is_empty() { "unknown" } else { &helo };
    let only = only.map(|mailbox| format!("\r\n\tfor <{mailbox}>")).unwrap_or_default();
    let date = at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000");
    format!(
        "Received: from {helo} ({}){by}\r\n\tby {hostname} (Waxwing) with {} id {id}{only};\r\n\t{date}\r\n",
        literal(address),
        protocol(peer, parameters.smtputf8)
    )
}

fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

/// RFC 3848 and RFC 6531 section 4.3.
fn protocol(peer: &Peer, smtputf8: bool) -> &'static str {
    match (peer.listener.lmtp, smtputf8, peer.tls, peer.extended) {
        (true, false, false, _) => "LMTP",
        (true, false, true, _) => "LMTPS",
        (true, true, false, _) => "UTF8LMTP",
        (true, true, true, _) => "UTF8LMTPS",
        (false, true, true, _) => "UTF8SMTPS",
        (false, true, false, _) => "UTF8SMTP",
        (false, false, true, _) => "ESMTPS",
        (false, false, false, true) => "ESMTP",
        (false, false, false, false) => "SMTP",
    }
}

/// The header without Bcc and Resent-Bcc, and with `keywords` taken out of the Subject; `None`: nothing to change.
pub fn outbound_edits(header: &Header, keywords: &[&str]) -> Option<Vec<u8>> {
    let mut changed = false;
    let mut octets = Vec::with_capacity(header.raw.len());
    for field in &header.fields {
        if field.is("Bcc") || field.is("Resent-Bcc") {
            changed = true;
            continue;
        }
        if field.is("Subject")
            && let Some(subject) = without_keywords(&field.decoded(), keywords)
        {
            let mut writer = HeaderWriter::new();
            if writer.unstructured("Subject", &subject).is_ok() {
                octets.extend_from_slice(&writer.finish());
                changed = true;
                continue;
            }
        }
        octets.extend_from_slice(&field.raw);
    }
    changed.then_some(octets)
}

/// The subject without the keywords (ASCII case does not count); `None`: none stands in it.
fn without_keywords(subject: &str, keywords: &[&str]) -> Option<String> {
    let mut subject = subject.to_owned();
    let mut found = false;
    for keyword in keywords.iter().filter(|keyword| !keyword.is_empty()) {
        while let Some((start, rest)) = split_around(&subject, keyword) {
            subject = format!("{} {}", start.trim_end(), rest.trim_start()).trim().to_owned();
            found = true;
        }
    }
    found.then_some(subject)
}

fn split_around<'s>(text: &'s str, keyword: &str) -> Option<(&'s str, &'s str)> {
    text.char_indices().find_map(|(at, _)| {
        let (start, rest) = text.split_at_checked(at)?;
        let (word, rest) = rest.split_at_checked(keyword.len())?;
        (word.eq_ignore_ascii_case(keyword) || word.to_lowercase() == keyword.to_lowercase()).then_some((start, rest))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::config::Listener;
    use crate::mime::entity::{Entity, MimeLimits};
    use crate::smtp::xforward::Forwarded;

    fn peer(helo: &str, extended: bool, tls: bool, lmtp: bool) -> Peer {
        let listener = Listener { lmtp, ..Listener::new("l", "127.0.0.1:0".parse().unwrap(), Direction::Inbound) };
        let address = "[::ffff:192.0.2.1]:25".parse().unwrap();
        let (helo, listener) = (helo.into(), Arc::new(listener));
        let (trusted, user, sends_as, certified) = (false, None, Arc::default(), false);
        Peer { address, helo, extended, tls, listener, trusted, user, sends_as, certified }
    }

    fn header(fields: &str) -> Header {
        Entity::parse(Bytes::from(format!("{fields}\r\n")), &MimeLimits::default()).unwrap().header
    }

    fn field(peer: &Peer, smtputf8: bool, only: Option<&Mailbox>) -> String {
        field_of(peer, &MailParameters { smtputf8, ..MailParameters::default() }, only)
    }

    fn field_of(peer: &Peer, parameters: &MailParameters, only: Option<&Mailbox>) -> String {
        received(
            &Domain::parse("gw.example").unwrap(),
            peer,
            parameters,
            "1f",
            only,
            "2026-06-01T08:09:10Z".parse().unwrap(),
        )
    }

    #[test]
    fn received_says_from_by_with_id_for_and_when() {
        let only = Mailbox::parse("a@b.example").unwrap();
        let text = field(&peer("mail.example", true, true, false), false, Some(&only));
        let expected = "Received: from mail.example ([192.0.2.1])\r\n\tby gw.example (Waxwing) with ESMTPS id 1f\r\n\tfor <a@b.example>;\r\n\tMon, 01 Jun 2026 08:09:10 +0000\r\n";
        assert_eq!(text, expected);
        assert!(!field(&peer("mail.example", true, true, false), false, None).contains("for <"));
    }

    #[test]
    fn received_names_the_protocol_as_rfc_3848_and_rfc_6531_do() {
        let cases = [
            (false, false, false, false, "with SMTP id"),
            (true, false, false, false, "with ESMTP id"),
            (true, true, false, true, "with UTF8SMTPS id"),
            (true, false, false, true, "with UTF8SMTP id"),
            (true, true, true, false, "with LMTPS id"),
            (true, false, true, true, "with UTF8LMTP id"),
        ];
        for (extended, tls, lmtp, smtputf8, with) in cases {
            assert!(field(&peer("x", extended, tls, lmtp), smtputf8, None).contains(with), "{with}");
        }
    }

    #[test]
    fn a15_a_helo_cannot_break_out_of_received() {
        let text = field(&peer("x) by evil (\r\nBcc: y\0ü", true, false, false), false, None);
        assert!(text.starts_with("Received: from xbyevilBcc:y ([192.0.2.1])\r\n"), "{text}");
        let client = Forwarded {
            address: Some("2001:db8::7".parse().unwrap()),
            helo: Some("x) by evil (\r\nBcc: y\0ü".into()),
            ..Forwarded::default()
        };
        let parameters = MailParameters { client: Some(Arc::new(client)), ..MailParameters::default() };
        let text = field_of(&peer("mail.example", true, false, false), &parameters, None);
        let expected =
            "Received: from xbyevilBcc:y ([IPv6:2001:db8::7])\r\n\t(forwarded by [192.0.2.1])\r\n\tby gw.example ";
        assert!(text.starts_with(expected), "{text}");
        // Who forwards without an address tells nothing that stands in Received.
        let parameters = MailParameters { client: Some(Default::default()), ..MailParameters::default() };
        let text = field_of(&peer("mail.example", true, false, false), &parameters, None);
        assert!(text.starts_with("Received: from mail.example ([192.0.2.1])\r\n\tby gw.example "), "{text}");
    }

    #[test]
    fn a23_tokens_are_this_installations_and_tell_the_direction() {
        let (ours, theirs) = (LoopTokens::new(b"ours"), LoopTokens::new(b"theirs"));
        let passed_out = header(&ours.fields(&header("A: b\r\n"), Direction::Outbound));
        assert!(ours.passed(&passed_out, Direction::Outbound));
        assert!(!ours.passed(&passed_out, Direction::Inbound), "it may rightly come back in");
        assert!(!theirs.passed(&passed_out, Direction::Outbound));
        let both = header(&ours.fields(&passed_out, Direction::Inbound));
        assert!(ours.passed(&both, Direction::Outbound) && ours.passed(&both, Direction::Inbound), "the first is kept");
    }

    #[test]
    fn keywords_and_bcc_go_and_the_rest_stays() {
        let before = header(
            "To: a@b.example\r\nBCC: c@d.example,\r\n e@f.example\r\nSubject: Re: [Encrypt]  [encrypt] x\r\nX: y\r\n",
        );
        let after = outbound_edits(&before, &["[encrypt]"]).unwrap();
        assert_eq!(String::from_utf8(after).unwrap(), "To: a@b.example\r\nSubject: Re: x\r\nX: y\r\n");
        assert!(outbound_edits(&header("Subject: [other]\r\n"), &["[encrypt]"]).is_none());
    }
}

//! Delivery status notifications (RFC 3464): headers of the original, never its content (A33).

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::{Settings, Verdict, after};
use crate::address::{Mailbox, ReversePath};
use crate::config::{Direction, NextHop};
use crate::mime::header::{HeaderWriter, MimeError};
use crate::mime::rope::Rope;
use crate::smtp::command::{Envelope, MailParameters, Notify, RcptParameters, Recipient};
use crate::spool::{Entry, NewEntry, Origin, Treatment};

/// Octets of the original's header that go back.
const HEADER_MAX: usize = 16 * 1024;

/// What became of a recipient's mail (RFC 3464 section 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Failed,
    Delayed,
    /// To a next hop that offers no DSN: nothing more will be heard (RFC 3461 section 5.2.2).
    Relayed,
    /// To an LMTP server, which delivers.
    Delivered,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Relayed => "relayed",
            Action::Delivered => "delivered",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Action::Failed => "Undelivered mail",
            Action::Delayed => "Delayed mail (still being retried)",
            Action::Relayed | Action::Delivered => "Delivered mail",
        }
    }

    fn explanation(self) -> &'static str {
        match self {
            Action::Failed => "Your mail could not be delivered to:",
            Action::Delayed => {
                "Your mail has not been delivered yet; it is tried further, and you need not send it again, to:"
            }
            Action::Relayed => "Your mail was handed on to a system that does not report deliveries, for:",
            Action::Delivered => "Your mail was delivered to:",
        }
    }
}

/// One recipient in a report.
pub(super) struct Told<'e> {
    pub(super) recipient: &'e Recipient,
    pub(super) verdict: Verdict,
}

/// A report to be written.
pub(super) struct Report<'r> {
    pub(super) settings: &'r Settings,
    /// The mail it is about.
    pub(super) entry: &'r Entry,
    /// Who is told.
    pub(super) sender: &'r Mailbox,
    pub(super) action: Action,
    pub(super) told: Vec<Told<'r>>,
    pub(super) content: &'r Bytes,
    pub(super) now: Timestamp,
}

impl Report<'_> {
    /// The report as an entry for the spool: from `<>`, and never answered by another.
    pub(super) fn entry(&self, (next_hop, direction): (NextHop, Direction)) -> NewEntry {
        let text = self.text().unwrap_or_else(|error| {
            // Addresses hold no forbidden characters by construction; a plain text is better than silence.
            tracing::error!(entry = %self.entry.id, %error, "DSN could not be written in full");
            let (subject, explanation) = (self.action.subject(), explanation(self.action, &self.told));
            format!("Subject: {subject}\r\nAuto-Submitted: auto-replied\r\n\r\n{explanation}").into_bytes()
        });
        let never = Notify { success: false, failure: false, delay: false };
        let recipient =
            Recipient { mailbox: self.sender.clone(), parameters: RcptParameters { notify: Some(never), orcpt: None } };
        let parameters = MailParameters {
            size: u64::try_from(text.len()).ok(),
            smtputf8: self.sender.needs_smtputf8(),
            ..MailParameters::default()
        };
        let envelope = Envelope { reverse_path: ReversePath::Null, parameters, recipients: vec![recipient] };
        NewEntry { origin: Origin::Dsn, ..NewEntry::new(envelope, next_hop, direction, Rope::from(Bytes::from(text))) }
    }

    fn text(&self) -> Result<Vec<u8>, MimeError> {
        let headers = original_headers(self.content);
        let (entry, hostname, micros) = (self.entry.id, &self.settings.hostname, self.now.as_microsecond());
        // Nobody outside knows the time to the nanosecond, and the original's header is looked through.
        let mut boundary = format!("=_{entry}_{:x}", self.now.as_nanosecond());
        while headers.contains(boundary.as_str()) {
            boundary.push('x');
        }
        let mut head = HeaderWriter::new();
        head.structured("From", &format!("Mail Delivery System <{}>", self.settings.postmaster))?;
        if !self.sender.needs_smtputf8() {
            head.structured("To", &format!("<{}>", self.sender))?;
        }
        head.unstructured("Subject", self.action.subject())?
            .structured("Date", &date(self.now))?
            .structured("Message-ID", &format!("<{entry}.{micros}.{}@{hostname}>", self.action.word()))?
            .structured("Auto-Submitted", "auto-replied")?
            .structured("MIME-Version", "1.0")?
            .structured(
                "Content-Type",
                &format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\""),
            )?;
        let mut out = head.finish().to_vec();
        // All of it is ASCII: a report that needs 8BITMIME could be undeliverable itself.
        let explanation = explanation(self.action, &self.told);
        part(&mut out, &boundary, "text/plain; charset=us-ascii", explanation.as_bytes())?;
        part(&mut out, &boundary, "message/delivery-status", &self.status()?)?;
        part(&mut out, &boundary, "text/rfc822-headers", headers.as_bytes())?;
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        Ok(out)
    }

    /// The body of message/delivery-status (RFC 3464 section 2).
    fn status(&self) -> Result<Vec<u8>, MimeError> {
        let mut message = HeaderWriter::new();
        if let Some(envid) = self.entry.parameters.envid.as_ref().filter(|envid| printable(envid) == **envid) {
            message.structured("Original-Envelope-Id", envid)?;
        }
        message
            .structured("Reporting-MTA", &format!("dns; {}", self.settings.hostname))?
            .structured("Arrival-Date", &date(self.entry.created))?;
        let mut out = message.finish().to_vec();
        for told in &self.told {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&self.recipient(told)?);
        }
        Ok(out)
    }

    fn recipient(&self, Told { recipient, verdict }: &Told<'_>) -> Result<Vec<u8>, MimeError> {
        let mut fields = HeaderWriter::new();
        if let Some((kind, address)) = recipient.parameters.orcpt.as_ref().and_then(|orcpt| orcpt.split_once(';')) {
            let address = xtext_decoded(address);
            fields.structured("Original-Recipient", &format!("{}; {}", printable(kind), printable(&address)))?;
        }
        fields
            .structured("Final-Recipient", &final_recipient(&recipient.mailbox))?
            .structured("Action", self.action.word())?
            // A failure is a failure (RFC 3464 section 2.3.4), also where the last answer was transient.
            .structured("Status", &verdict.status.to_string())?;
        match &verdict.said_by {
            Some(hop) => fields
                .structured("Remote-MTA", &format!("dns; {}", printable(&named(hop))))?
                .structured("Diagnostic-Code", &format!("smtp; {}", printable(&verdict.text)))?,
            None => fields.structured("Diagnostic-Code", &format!("X-Waxwing; {}", printable(&verdict.text)))?,
        };
        fields.structured("Last-Attempt-Date", &date(self.now))?;
        if !self.entry.log_id.is_empty() {
            fields.structured("Final-Log-ID", &printable(&self.entry.log_id))?;
        }
        if self.action == Action::Delayed {
            let retry = &self.settings.retry;
            let held = self.entry.treatment == Treatment::AsSubmitted;
            let until = if held {
                after(self.entry.created, retry.hold_expire)
            } else {
                after(self.entry.tried_since(), retry.expire)
            };
            fields.structured("Will-Retry-Until", &date(until))?;
        }
        Ok(fields.finish().to_vec())
    }
}

/// A host as Remote-MTA names it: addresses in brackets.
fn named(hop: &NextHop) -> String {
    match hop.host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => format!("[{address}]"),
        Ok(std::net::IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) => hop.host.clone(),
    }
}

/// RFC 3461 section 4; what is no xtext stays.
fn xtext_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = (*first == b'+').then(|| after.split_at_checked(2)).flatten();
        let octet = pair.and_then(|(hex, tail)| {
            let hex = std::str::from_utf8(hex).ok().filter(|hex| hex.bytes().all(|octet| octet.is_ascii_hexdigit()))?;
            Some((u8::from_str_radix(hex, 16).ok()?, tail))
        });
        let (octet, tail) = octet.unwrap_or((*first, after));
        out.push(octet);
        rest = tail;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn part(out: &mut Vec<u8>, boundary: &str, kind: &str, body: &[u8]) -> Result<(), MimeError> {
    out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
    let mut head = HeaderWriter::new();
    head.structured("Content-Type", kind)?;
    out.extend_from_slice(&head.finish());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    Ok(())
}

fn explanation(action: Action, told: &[Told<'_>]) -> String {
    let mut text = format!("{}\r\n", action.explanation());
    for Told { recipient, verdict } in told {
        let (address, why) = (escaped(&recipient.mailbox.to_string()), printable(&verdict.text));
        text.push_str(&format!("\r\n  <{address}>\r\n    {why}\r\n"));
    }
    text.push_str("\r\nOnly the header of your mail comes back with this report.\r\n");
    text
}

/// RFC 6533 section 3 for what is not ASCII.
fn final_recipient(mailbox: &Mailbox) -> String {
    let address = mailbox.to_string();
    if address.is_ascii() {
        return format!("rfc822; {address}");
    }
    format!("utf-8; {}", escaped(&address))
}

fn escaped(address: &str) -> String {
    address.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) }).collect()
}

/// What a report quotes of a content, in octets of its own: nobody keeps a large one for it.
pub(super) fn quoted(content: &Bytes) -> Bytes {
    let head = content.get(..HEADER_MAX).unwrap_or(content);
    let end = memchr::memmem::find(head, b"\r\n\r\n").map_or(head.len(), |at| at + 4);
    Bytes::copy_from_slice(head.get(..end).unwrap_or_default())
}

/// The header of the original, made printable ASCII in lines of bounded length.
fn original_headers(content: &Bytes) -> String {
    let head = content.get(..HEADER_MAX).unwrap_or(content);
    let end = memchr::memmem::find(head, b"\r\n\r\n").map_or(head.len(), |at| at + 2);
    let mut out = String::with_capacity(end);
    for line in head.get(..end).unwrap_or_default().split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            out.extend(
                line.iter()
                    .take(990)
                    .map(|octet| if matches!(octet, b'\t' | b' '..=b'~') { char::from(*octet) } else { '?' }),
            );
            out.push_str("\r\n");
        }
    }
    out
}

fn printable(text: &str) -> String {
    let one = |c: char| match c {
        ' '..='~' => c,
        c if c.is_ascii_control() => ' ',
        _ => '?',
    };
    text.chars().map(one).collect()
}

fn date(time: Timestamp) -> String {
    rfc2822::to_string(&time.to_zoned(jiff::tz::TimeZone::UTC)).unwrap_or_default()
}

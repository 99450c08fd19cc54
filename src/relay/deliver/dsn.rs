//! Delivery status notifications (RFC 3464): headers of the original, never its content (A33).

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::{Settings, Verdict};
use crate::address::{Mailbox, ReversePath};
use crate::config::{Direction, NextHop};
use crate::mime::header::{HeaderWriter, MimeError};
use crate::mime::rope::Rope;
use crate::smtp::command::{Envelope, MailParameters, Notify, RcptParameters, Recipient};
use crate::spool::{Entry, NewEntry, Origin};

/// Octets of the original's header that go back.
const HEADER_MAX: usize = 16 * 1024;

/// The DSN for these failures as an entry for the spool: from `<>`, and never answered by another.
pub(super) fn entry(
    settings: &Settings,
    entry: &Entry,
    sender: &Mailbox,
    (next_hop, direction): (NextHop, Direction),
    failures: &[(&Recipient, Verdict)],
    content: &Bytes,
    now: Timestamp,
) -> NewEntry {
    let text = text(settings, entry, sender, failures, content, now).unwrap_or_else(|error| {
        // Addresses hold no forbidden characters by construction; a plain text is better than silence.
        tracing::error!(entry = %entry.id, %error, "DSN could not be written in full");
        b"Subject: Undelivered mail\r\nAuto-Submitted: auto-replied\r\n\r\nYour mail could not be delivered.\r\n"
            .to_vec()
    });
    let never = Notify { success: false, failure: false, delay: false };
    let recipient =
        Recipient { mailbox: sender.clone(), parameters: RcptParameters { notify: Some(never), orcpt: None } };
    let parameters = MailParameters {
        size: u64::try_from(text.len()).ok(),
        smtputf8: sender.needs_smtputf8(),
        ..MailParameters::default()
    };
    let envelope = Envelope { reverse_path: ReversePath::Null, parameters, recipients: vec![recipient] };
    NewEntry { origin: Origin::Dsn, ..NewEntry::new(envelope, next_hop, direction, Rope::from(Bytes::from(text))) }
}

fn text(
    settings: &Settings,
    entry: &Entry,
    sender: &Mailbox,
    failures: &[(&Recipient, Verdict)],
    content: &Bytes,
    now: Timestamp,
) -> Result<Vec<u8>, MimeError> {
    let headers = original_headers(content);
    // Nobody outside knows the time to the nanosecond, and the original's header is looked through.
    let mut boundary = format!("=_{}_{:x}", entry.id, now.as_nanosecond());
    while headers.contains(boundary.as_str()) {
        boundary.push('x');
    }
    let mut head = HeaderWriter::new();
    head.structured("From", &format!("Mail Delivery System <{}>", settings.postmaster))?;
    if !sender.needs_smtputf8() {
        head.structured("To", &format!("<{sender}>"))?;
    }
    head.unstructured("Subject", "Undelivered mail")?
        .structured("Date", &date(now))?
        .structured("Message-ID", &format!("<{}.{}@{}>", entry.id, now.as_microsecond(), settings.hostname))?
        .structured("Auto-Submitted", "auto-replied")?
        .structured("MIME-Version", "1.0")?
        .structured(
            "Content-Type",
            &format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\""),
        )?;
    let mut out = head.finish().to_vec();
    // All of it is ASCII: a report that needs 8BITMIME could be undeliverable itself.
    part(&mut out, &boundary, "text/plain; charset=us-ascii", explanation(failures).as_bytes())?;
    part(&mut out, &boundary, "message/delivery-status", &status(settings, entry, failures)?)?;
    part(&mut out, &boundary, "text/rfc822-headers", headers.as_bytes())?;
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Ok(out)
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

fn explanation(failures: &[(&Recipient, Verdict)]) -> String {
    let mut text = String::from("Your mail could not be delivered to:\r\n");
    for (recipient, verdict) in failures {
        text.push_str(&format!(
            "\r\n  <{}>\r\n    {}\r\n",
            escaped(&recipient.mailbox.to_string()),
            printable(&verdict.text)
        ));
    }
    text.push_str("\r\nOnly the header of your mail comes back with this report.\r\n");
    text
}

/// The body of message/delivery-status (RFC 3464 section 2).
fn status(settings: &Settings, entry: &Entry, failures: &[(&Recipient, Verdict)]) -> Result<Vec<u8>, MimeError> {
    let mut message = HeaderWriter::new();
    if let Some(envid) = entry.parameters.envid.as_ref().filter(|envid| printable(envid) == **envid) {
        message.structured("Original-Envelope-Id", envid)?;
    }
    message
        .structured("Reporting-MTA", &format!("dns; {}", settings.hostname))?
        .structured("Arrival-Date", &date(entry.created))?;
    let mut out = message.finish().to_vec();
    for (recipient, verdict) in failures {
        let mut fields = HeaderWriter::new();
        if let Some(orcpt) = recipient.parameters.orcpt.as_ref().and_then(|orcpt| orcpt.split_once(';')) {
            let (kind, address) = orcpt;
            fields.structured("Original-Recipient", &format!("{}; {}", printable(kind), printable(address)))?;
        }
        fields
            .structured("Final-Recipient", &final_recipient(&recipient.mailbox))?
            .structured("Action", "failed")?
            // A failure is a failure (RFC 3464 section 2.3.4), also where the last answer was transient.
            .structured("Status", &verdict.status.to_string())?
            .structured("Remote-MTA", &format!("dns; {}", printable(&entry.next_hop.host)))?
            .structured("Diagnostic-Code", &format!("smtp; {}", printable(&verdict.text)))?;
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&fields.finish());
    }
    Ok(out)
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

//! A session played through in memory.

use std::sync::Arc;

use super::{AuthOffer, Event, Session, Settings, Verdict};
use crate::address::{Domain, Mailbox};
use crate::smtp::command::{Enhanced, Reply};
use crate::smtp::data::LineEnds;
use crate::smtp::sasl::Verifier;

/// What came out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Events but `Content`, printed.
    pub(super) events: Vec<String>,
    /// The messages whose end was seen without a fault.
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) output: String,
    content: Vec<u8>,
}

pub(super) fn settings(lmtp: bool) -> Option<Settings> {
    Some(Settings {
        hostname: Domain::parse("mx.example.org").ok()?,
        postmaster: Mailbox::parse("postmaster@example.org").ok()?,
        lmtp,
        starttls: true,
        tls_required: false,
        auth: AuthOffer::Always,
        scram: true,
        message_size: 1000,
        recipients: 3,
    })
}

pub(super) fn run(lmtp: bool, turns: &[&[u8]], chunk: usize) -> Record {
    settings(lmtp)
        .map(|settings| play(Session::new(Arc::new(settings), LineEnds::Refuse, false), turns, chunk))
        .unwrap_or_default()
}

/// After the greeting, offers each turn in chunks; the output is taken at the end of each turn only. Recipients `refuse…@` and senders
/// `refuse…@` are refused; the handshake happens at once.
pub(super) fn play(mut session: Session, turns: &[&[u8]], chunk: usize) -> Record {
    let mut record = Record::default();
    session.greet();
    let mut buffer = Vec::new();
    for turn in turns {
        let output = session.take_output();
        record.output.push_str(&String::from_utf8_lossy(&output));
        for part in turn.chunks(chunk) {
            buffer.extend_from_slice(part);
            let eaten = eat(&mut session, &buffer, &mut record);
            buffer.drain(..eaten.min(buffer.len()));
        }
        if record.events.last().is_some_and(|event| event == "StartTls") {
            let output = session.take_output();
            record.output.push_str(&String::from_utf8_lossy(&output));
            session.tls_established();
        }
    }
    let output = session.take_output();
    record.output.push_str(&String::from_utf8_lossy(&output));
    record.content.clear();
    record
}

fn eat(session: &mut Session, buffer: &[u8], record: &mut Record) -> usize {
    let mut at = 0;
    loop {
        let step = session.step(buffer.get(at..).unwrap_or_default());
        at += step.eaten;
        let Some(event) = step.event else { return at };
        if !matches!(event, Event::Content(_) | Event::Rcpt(_)) {
            record.events.push(format!("{event:?}"));
        }
        let reply = |refused: bool| {
            if refused { Reply::new(550, Enhanced(5, 7, 1), "no") } else { Reply::new(250, Enhanced(2, 1, 0), "ok") }
        };
        let closed = match event {
            Event::Mail(path, _) => session.answer(&reply(path.to_string().starts_with("refuse"))),
            // Those that lie in one chunk are taken together.
            Event::Rcpt(recipient) => {
                let mut together = vec![recipient];
                while let Some((octets, recipient)) = session.further_rcpt(buffer.get(at..).unwrap_or_default()) {
                    at += octets;
                    together.push(recipient);
                }
                together.into_iter().find_map(|recipient| {
                    let refused = recipient.mailbox.local().starts_with("refuse");
                    record.events.push(format!("{:?}", Event::Rcpt(recipient)));
                    session.answer(&reply(refused))
                })
            }
            Event::ContentStart(_) => {
                record.content.clear();
                None
            }
            Event::Content(content) => {
                record.content.extend_from_slice(content);
                None
            }
            Event::Message => {
                record.messages.push(std::mem::take(&mut record.content));
                session.answer_message(&[Reply::new(250, Enhanced(2, 0, 0), "taken")]);
                None
            }
            Event::Password(_, password) => {
                session.answer_password(if password.as_str() == "right" { &Verdict::Right } else { &Verdict::Wrong });
                None
            }
            Event::Verifier(_) => {
                session.answer_verifier(Ok((Verifier::of("right", b"salt salt", 4096), "nonce".into())));
                None
            }
            Event::Authenticated(_)
            | Event::NotAuthenticated(_)
            | Event::Hello { .. }
            | Event::Client(_)
            | Event::Reset
            | Event::StartTls
            | Event::Close => None,
        };
        record.events.extend(closed.map(|event| format!("{event:?}")));
    }
}

//! The mails of a run and what is expected of each. A mail is a function of its number: the sink asks what it has to look like, and
//! nothing is kept of it.

/// What they say.
pub(super) mod contents;
/// Leaves, decoded, and in what they differ.
pub mod parts;
/// Who writes and reads.
pub mod people;
/// Mails sealed ahead of time.
mod sealed;
/// Sizes by a distribution.
mod sizes;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::generator::Source;
use super::random::Random;
use super::scenario::{Kind, Scenario};
use crate::address::ReversePath;
use crate::smtp::command::{Envelope, MailParameters, RcptParameters, Recipient};
use contents::{Pool, Template};
use people::{People, Person};
use sealed::{Ready, Sealing};

pub use contents::real::fuzz_real_mail;

/// Hears how far something is that takes long: what, how many are done, of how many. Called by several threads.
pub type Progress<'p> = dyn Fn(&str, usize, usize) + Send + Sync + 'p;

/// A mail's name in a run: in its Message-ID, in `X-Load-Id`, and in the body of what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailId {
    /// Of the run: mails of another run are strangers.
    pub run: u64,
    /// In the run.
    pub number: u64,
}

impl fmt::Display for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.run, self.number)
    }
}

impl MailId {
    /// Reads what `Display` wrote, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (run, number) = text.split_once('-')?;
        let hex = |text: &str| text.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
        if run.len() != 16 || number.is_empty() || !hex(run) || !hex(number) {
            return None;
        }
        Some(Self { run: u64::from_str_radix(run, 16).ok()?, number: u64::from_str_radix(number, 16).ok()? })
    }
}

/// A mail ready to be sent.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its name.
    pub id: MailId,
    /// Its kind.
    pub kind: Kind,
    /// Who, to whom.
    pub envelope: Envelope,
    /// The octets, CRLF, not dot-stuffed.
    pub content: Bytes,
}

/// All mails of a run.
#[derive(Debug)]
pub struct Mails {
    run: u64,
    seed: u64,
    /// In bodies alone: where it is seen, the body is seen.
    canary: String,
    people: Arc<People>,
    pool: Pool,
    /// Kinds with the sum of the weights up to them.
    mix: Vec<(u64, Kind)>,
    recipients: (usize, usize),
    ready: Vec<(Kind, Vec<Ready>)>,
    date: String,
}

/// Who writes what to whom in the mail of a number.
pub(super) struct Plan<'m> {
    pub(super) kind: Kind,
    pub(super) from: &'m Person,
    pub(super) to: Vec<&'m Person>,
    said: Said<'m>,
}

enum Said<'m> {
    Clear(&'m Template),
    Ready(&'m Ready),
}

impl Mails {
    /// Makes what is made ahead of time: contents, and sealed mails; blocking. `Err`: the scenario cannot be sent with these people.
    pub fn new(scenario: &Scenario, people: Arc<People>, run: u64, progress: &Progress<'_>) -> Result<Self, String> {
        let mut token = [0; 16];
        aws_lc_rs::rand::fill(&mut token).map_err(|_| "no randomness from the operating system".to_owned())?;
        let canary = format!("canary-{:032x}", u128::from_le_bytes(token));
        let (mut mix, mut sum) = (Vec::new(), 0_u64);
        for (weight, kind) in &scenario.mix {
            sum = sum.saturating_add(u64::from(*weight));
            mix.push((sum, *kind));
        }
        let recipients = (to_usize(scenario.recipients.0), to_usize(scenario.recipients.1));
        for (_, kind) in &mix {
            let (_, readers) = people.sides(*kind)?;
            if readers.len() < recipients.1 {
                return Err(format!(
                    "a {} mail has up to {} recipients, and there are {} people to read it: name more, or say people made = …",
                    kind.name(),
                    recipients.1,
                    readers.len()
                ));
            }
        }
        let pool = Pool::new(scenario)?;
        let sealing = Sealing { scenario, people: &people, pool: &pool, canary: &canary, recipients };
        let ready = sealing.all(progress)?;
        let date = rfc2822::to_string(&Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC)).unwrap_or_default();
        Ok(Self { run, seed: scenario.seed, canary, people, pool, mix, recipients, ready, date })
    }

    /// What people should know: mails of a folder that cannot be sent.
    pub fn notes(&self) -> &[String] {
        &self.pool.notes
    }

    /// Who writes and reads.
    pub fn people(&self) -> &Arc<People> {
        &self.people
    }

    /// The name of the mail of a number.
    pub(super) fn id(&self, number: u64) -> MailId {
        MailId { run: self.run, number }
    }

    /// What stands in bodies alone; not in real mails.
    pub(super) fn canary(&self) -> &str {
        &self.canary
    }

    /// The plan of a number. `None`: nothing can be sent, which `new` would have said.
    pub(super) fn plan(&self, number: u64) -> Option<Plan<'_>> {
        let mut random = Random::of(self.seed, number);
        let all = self.mix.last().map_or(0, |(sum, _)| *sum);
        let drawn = random.below(usize::try_from(all).unwrap_or(usize::MAX)) as u64;
        let kind = self.mix.iter().find(|(sum, _)| drawn < *sum).map(|(_, kind)| *kind)?;
        let (writers, readers) = self.people.sides(kind).ok()?;
        if let Some((_, ready)) = self.ready.iter().find(|(known, _)| *known == kind) {
            let one = ready.get(random.below(ready.len()))?;
            let to = one.to.iter().filter_map(|at| readers.get(*at)).collect();
            return Some(Plan { kind, from: writers.get(one.from)?, to, said: Said::Ready(one) });
        }
        let from = writers.get(random.below(writers.len()))?;
        let to = drawn_readers(&mut random, readers.len(), self.recipients);
        let to = to.into_iter().filter_map(|at| readers.get(at)).collect();
        Some(Plan { kind, from, to, said: Said::Clear(self.pool.get(random.below(self.pool.len()))?) })
    }

    /// The line in the body of a mail made for its own number.
    fn mark(&self, number: u64) -> String {
        mark(&self.id(number).to_string(), &self.canary)
    }

    /// Whether a body is, octet for octet, what the mail of this number had when it was sent in clear.
    pub(super) fn is_body(&self, plan: &Plan<'_>, number: u64, body: &[u8]) -> bool {
        match plan.said {
            Said::Clear(template) => template.is_body(&self.mark(number), body),
            Said::Ready(_) => false,
        }
    }

    /// The MIME entity that is to be read in the end.
    pub(super) fn entity(&self, plan: &Plan<'_>, number: u64) -> Bytes {
        match plan.said {
            Said::Clear(template) => template.entity(&self.mark(number)),
            Said::Ready(ready) => ready.inner.clone(),
        }
    }

    fn header(&self, plan: &Plan<'_>, number: u64, room: usize) -> BytesMut {
        let id = self.id(number);
        let mut out = BytesMut::with_capacity(room.saturating_add(600));
        // Writing to memory does not fail.
        let _ = write!(out, "From: <{}>\r\nTo: ", plan.from.mailbox);
        for (at, person) in plan.to.iter().enumerate() {
            let between = if at == 0 { "" } else { ",\r\n " };
            let _ = write!(out, "{between}<{}>", person.mailbox);
        }
        let domain = plan.from.mailbox.domain();
        let _ = write!(out, "\r\nDate: {}\r\nMessage-ID: <{id}@{domain}>\r\nX-Load-Id: {id}\r\n", self.date);
        out
    }
}

impl Source for Mails {
    fn mail(&self, number: u64) -> Mail {
        let id = self.id(number);
        let Some(plan) = self.plan(number) else {
            // Not reached: `new` refuses a scenario without people or contents.
            let envelope = Envelope {
                reverse_path: ReversePath::Null,
                parameters: MailParameters::default(),
                recipients: Vec::new(),
            };
            return Mail { id, kind: Kind::Plain, envelope, content: Bytes::new() };
        };
        let mark = self.mark(number);
        let content = match plan.said {
            Said::Clear(template) => {
                let mut out = self.header(&plan, number, template.len(mark.len()));
                let _ = if template.has_subject() { Ok(()) } else { write!(out, "Subject: load {number}\r\n") };
                template.write(&mark, &mut out);
                out
            }
            Said::Ready(ready) => {
                let mut out = self.header(&plan, number, ready.sealed.len());
                let _ = if ready.subject { Ok(()) } else { write!(out, "Subject: load {number}\r\n") };
                out.extend_from_slice(&ready.sealed);
                out
            }
        };
        let recipient =
            |person: &&Person| Recipient { mailbox: person.mailbox.clone(), parameters: RcptParameters::default() };
        let envelope = Envelope {
            reverse_path: ReversePath::Mailbox(plan.from.mailbox.clone()),
            parameters: MailParameters { envid: Some(id.to_string()), ..MailParameters::default() },
            recipients: plan.to.iter().map(recipient).collect(),
        };
        Mail { id, kind: plan.kind, envelope, content: content.freeze() }
    }
}

impl Plan<'_> {
    /// Whether what was sent bears a good signature of its author.
    pub(super) fn is_signed(&self) -> bool {
        matches!(self.said, Said::Ready(ready) if ready.signed)
    }

    /// The sealed octets as they were sent, from MIME-Version on.
    pub(super) fn sealed(&self) -> Option<&Bytes> {
        match self.said {
            Said::Ready(ready) => Some(&ready.sealed),
            Said::Clear(_) => None,
        }
    }
}

/// A line that says whose body it is.
fn mark(name: &str, canary: &str) -> String {
    format!("Load-Id: {name} {canary}\r\n")
}

/// So many readers, each once.
fn drawn_readers(random: &mut Random, readers: usize, (from, to): (usize, usize)) -> Vec<usize> {
    let count = from.saturating_add(random.below(to.saturating_sub(from).saturating_add(1)));
    let first = random.below(readers);
    (0..count.min(readers)).map(|at| first.saturating_add(at) % readers.max(1)).collect()
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

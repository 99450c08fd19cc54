//! The one table from an error to the words on the wire: code, enhanced code (RFC 3463), for whom, what was looked for, and
//! what mends it.

use std::time::Duration;

use crate::address::Mailbox;
use crate::cms::error::CmsError;
use crate::keys::KeyError;
use crate::mime::header::MimeError;
use crate::smime::seal::SealError;
use crate::smtp::command::{Enhanced, Reply};

/// Octets of a reply line's text at most: with code and enhanced code it stays under the 512 of RFC 5321 4.5.3.1.5.
const LINE: usize = 400;
/// Recipients named in one reply at most.
const NAMED: usize = 20;

/// One recipient that cannot be served, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    pub recipient: Mailbox,
    pub transient: bool,
    pub enhanced: (u8, u16, u16),
    pub text: String,
}

/// Why a command or a message is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The recipient is not ours, and the peer may not send to anywhere (A21).
    RelayDenied(Mailbox),
    /// The mail does not prove that it is of the tenant its listener is for (A31); says what is missing.
    NoTenant(&'static str),
    /// A route hidden in the local part, from outside (A21).
    HiddenRoute(Mailbox),
    /// More Received fields than the limit (A23).
    TooManyHops { found: usize, limit: usize },
    /// The message went this way through this gateway before (A23).
    Loop,
    /// Nothing vouches for its author, whose domain wants such mail refused.
    Unauthentic(String),
    /// SIZE, or what came, is over the limit.
    TooLarge { limit: u64 },
    /// The budget of bytes in flight is used up.
    Busy,
    /// The client or the user brought more than he may in this time.
    TooFast { whose: &'static str, what: &'static str, wait: Duration },
    /// The spool cannot take mail now (R7); the reason goes to the log.
    Spool,
    /// The spool's disk did not answer in time; nothing was taken.
    SpoolTimeout,
    /// The header cannot be read within the limits, or the message cannot be protected as it is.
    Malformed(String),
    /// Policy, certificates or keys: per recipient.
    Unserved(Vec<Unserved>),
    /// The message cannot be sealed.
    Seal(SealError),
    /// The store cannot be read; the reason goes to the log.
    Store,
    /// The audit log cannot be written, so that no private key may be used; the reason goes to the log.
    Audit,
    /// Own work took longer than the limit (R6).
    WorkTimeout,
    /// The next hop did not answer in time (R6).
    HopTimeout,
    /// A defect of ours: this message alone is refused.
    Internal,
    /// The next hop said so.
    NextHop(Reply),
}

impl Refusal {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        self.reply().is_transient()
    }

    /// The reply.
    pub fn reply(&self) -> Reply {
        match self {
            Self::RelayDenied(recipient) => one(
                550,
                (5, 7, 1),
                format!("<{recipient}>: relaying denied; add its domain to domains, or the peer to trusted_networks"),
            ),
            Self::NoTenant(missing) => one(550, (5, 7, 1), (*missing).to_owned()),
            Self::HiddenRoute(recipient) => {
                one(550, (5, 7, 1), format!("<{recipient}>: a route in the local part is not followed"))
            }
            Self::TooManyHops { found, limit } => {
                one(554, (5, 4, 6), format!("routing loop: {found} Received fields, at most {limit} are allowed"))
            }
            Self::Loop => one(
                554,
                (5, 4, 6),
                "routing loop: this gateway has passed this message in this direction before".into(),
            ),
            Self::Unauthentic(why) => one(550, (5, 7, 1), format!("refused by {why}")),
            Self::TooLarge { limit } => one(552, (5, 3, 4), format!("message larger than {limit} octets")),
            Self::Busy => one(452, (4, 3, 1), "too many bytes in flight, try again".into()),
            Self::TooFast { whose, what, wait } => {
                let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
                one(451, (4, 7, 1), format!("too many {what} of this {whose}, come back in {seconds} s"))
            }
            Self::Spool => one(452, (4, 3, 1), "the spool cannot take mail now, try again".into()),
            Self::SpoolTimeout => one(451, (4, 3, 0), "the spool did not answer in time, try again".into()),
            Self::Malformed(why) => {
                one(550, (5, 6, 0), format!("the message cannot be protected as policy says: {why}"))
            }
            Self::Unserved(list) => unserved(list),
            Self::Seal(error) => seal(error),
            Self::Store => one(451, (4, 3, 0), "the certificate store cannot be read now, try again".into()),
            Self::Audit => one(451, (4, 3, 0), "the use of keys cannot be recorded now, try again".into()),
            Self::WorkTimeout => one(451, (4, 3, 2), "work on this message took too long, try again".into()),
            Self::HopTimeout => one(451, (4, 4, 1), "the next hop did not answer in time, try again".into()),
            Self::Internal => one(451, (4, 3, 0), "internal error, try again".into()),
            Self::NextHop(reply) => reply.clone(),
        }
    }
}

/// The constant answer to mail that is safe in the spool: says nothing of what became of its content (A4).
pub fn accepted() -> Reply {
    one(250, (2, 0, 0), "accepted".into())
}

fn one(code: u16, enhanced: (u8, u16, u16), text: String) -> Reply {
    Reply::new(code, Enhanced(enhanced.0, enhanced.1, enhanced.2), line(&text))
}

/// One line each, permanent ones first: SMTP has one reply to DATA, so one recipient that can never be served refuses all.
fn unserved(list: &[Unserved]) -> Reply {
    let permanent = list.iter().any(|one| !one.transient);
    let mut worst: Vec<&Unserved> = list.iter().filter(|one| one.transient != permanent).collect();
    worst.extend(list.iter().filter(|one| one.transient == permanent));
    let enhanced = worst.first().map_or((4, 3, 0), |one| one.enhanced);
    let mut lines: Vec<String> =
        worst.iter().take(NAMED).map(|one| line(&format!("<{}>: {}", one.recipient, one.text))).collect();
    if let Some(more) = worst.len().checked_sub(NAMED).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    let mut reply = one(if permanent { 550 } else { 451 }, enhanced, "nothing was sent".into());
    if !lines.is_empty() {
        reply.lines = lines;
    }
    reply
}

fn seal(error: &SealError) -> Reply {
    match error {
        SealError::Mime(
            error @ (MimeError::Ambiguous(_) | MimeError::Malformed(_) | MimeError::Limit(_) | MimeError::Forbidden(_)),
        ) => one(550, (5, 6, 0), format!("the message cannot be protected as it is: {error}")),
        SealError::Cms(error @ (CmsError::Algorithm(_) | CmsError::Rule { .. })) => {
            one(550, (5, 7, 5), format!("the message cannot be protected with these certificates: {error}"))
        }
        SealError::Key(error @ KeyError::Unsuitable(_)) => {
            one(550, (5, 7, 5), format!("the message cannot be signed: {error}"))
        }
        SealError::Cms(_) | SealError::Key(_) => {
            one(451, (4, 7, 5), "the message could not be protected now, try again".into())
        }
        SealError::AlreadySigned | SealError::NotSigned | SealError::NoRecipient => Refusal::Internal.reply(),
        SealError::SelfCheck(_) => {
            one(451, (4, 7, 5), "the protected message did not pass its self-check; nothing was sent".into())
        }
    }
}

/// ASCII without control characters, cut to what a reply line holds: a client without SMTPUTF8 reads it too.
fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LINE));
    for character in text.chars() {
        if character.is_ascii() && !character.is_ascii_control() {
            out.push(character);
        } else {
            out.extend(character.escape_default());
        }
        if out.len() >= LINE {
            out.push_str("...");
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unserved_one(address: &str, transient: bool) -> Unserved {
        let class = if transient { 4 } else { 5 };
        Unserved {
            recipient: Mailbox::parse(address).unwrap(),
            transient,
            enhanced: (class, 7, 5),
            text: "no certificate".into(),
        }
    }

    #[test]
    fn one_permanent_failure_makes_the_reply_permanent_and_comes_first() {
        let reply =
            Refusal::Unserved(vec![unserved_one("a@x.example", true), unserved_one("b@x.example", false)]).reply();
        assert_eq!((reply.code, reply.enhanced), (550, Some(Enhanced(5, 7, 5))));
        assert!(reply.lines[0].contains("b@x.example") && reply.lines[1].contains("a@x.example"), "{:?}", reply.lines);
        let reply = Refusal::Unserved(vec![unserved_one("a@x.example", true)]).reply();
        assert_eq!((reply.code, reply.enhanced), (451, Some(Enhanced(4, 7, 5))));
    }

    #[test]
    fn lines_are_ascii_and_short() {
        let reply = Refusal::Malformed("ü\r\n\u{1b}".repeat(1000)).reply();
        assert!(
            reply
                .lines
                .iter()
                .all(|line| line.is_ascii() && line.len() < 450 && !line.contains(|c: char| c.is_ascii_control()))
        );
    }

    #[test]
    fn many_recipients_are_counted_not_listed() {
        let list = (0..50).map(|n| unserved_one(&format!("u{n}@x.example"), false)).collect();
        let reply = Refusal::Unserved(list).reply();
        assert_eq!(reply.lines.len(), NAMED + 1);
        assert_eq!(reply.lines.last().unwrap(), "and 30 more");
    }

    #[test]
    fn codes_agree_with_their_classes() {
        let all = [
            Refusal::NoTenant("x"),
            Refusal::TooManyHops { found: 101, limit: 100 },
            Refusal::Loop,
            Refusal::Unauthentic("x".into()),
            Refusal::TooLarge { limit: 1 },
            Refusal::Busy,
            Refusal::TooFast { whose: "client", what: "mails", wait: Duration::from_millis(1) },
            Refusal::Spool,
            Refusal::SpoolTimeout,
            Refusal::Malformed("x".into()),
            Refusal::Seal(SealError::SelfCheck("x")),
            Refusal::Store,
            Refusal::Audit,
            Refusal::WorkTimeout,
            Refusal::HopTimeout,
            Refusal::Internal,
        ];
        for refusal in all {
            let reply = refusal.reply();
            assert_eq!(u16::from(reply.enhanced.unwrap().0), reply.code / 100, "{refusal:?}");
            assert!(reply.code >= 400, "{refusal:?}");
        }
    }
}

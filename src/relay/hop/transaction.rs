//! A transaction that grows RCPT by RCPT, while a client waits (cut-through, R2).

use jiff::Timestamp;

use super::connection::{Connection, Patience};
use super::fit;
use super::health::{Pick, Slot};
use super::{GROUP, HopError, Hops, not_taken};
use crate::address::ReversePath;
use crate::config::{NextHop, Route};
use crate::mime::rope::Rope;
use crate::smtp::client::{Event, Offers, no_smtputf8};
use crate::smtp::command::{MailParameters, Recipient, Reply};

/// A transaction with a next hop that is being built up RCPT by RCPT (cut-through).
pub struct HopTransaction {
    hops: Hops,
    hop: NextHop,
    /// `None` once it is lost or given back.
    connection: Option<Connection>,
    offers: Offers,
    reverse_path: ReversePath,
    parameters: MailParameters,
    /// SMTPUTF8 was left out of MAIL: the header has to do without it too.
    ascii_only: bool,
    mail: Mail,
    accepted: usize,
    slot: Slot,
}

/// Where MAIL stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mail {
    Unsent,
    Accepted,
    Refused(Reply),
}

/// What came of looking for a next hop.
pub enum Begun {
    /// This one is ready.
    Open(Box<HopTransaction>),
    /// None is now; says why.
    None(String),
}

impl Hops {
    /// Takes an idle connection to the best next hop of a route, or makes one; MAIL is sent together with the first RCPT. Where one
    /// cannot be reached, the next in order is tried, all of them within the wait for a next hop.
    pub async fn begin(&self, route: &Route, reverse_path: ReversePath, parameters: MailParameters) -> Begun {
        let patience = Patience::new(self.inner.waits, 1);
        let mut tried: Vec<NextHop> = Vec::new();
        let mut last = String::new();
        loop {
            let (hop, slot) = match self.inner.health.pick(route, &tried, false, Timestamp::now()) {
                Pick::Hop(one, slot) => (one.hop, slot),
                Pick::Full => return Begun::None(format!("{last} all connections are in use")),
                Pick::Aside(why) => return Begun::None(format!("{last} set aside: {why}")),
            };
            match self.take(&hop, patience).await {
                Ok(connection) => {
                    let offers = connection.client.offers();
                    return Begun::Open(Box::new(HopTransaction {
                        hops: self.clone(),
                        hop,
                        connection: Some(connection),
                        offers,
                        ascii_only: parameters.smtputf8 && !offers.smtputf8,
                        reverse_path,
                        parameters,
                        mail: Mail::Unsent,
                        accepted: 0,
                        slot,
                    }));
                }
                Err(error) => {
                    slot.unreachable(Timestamp::now(), &error.to_string());
                    last = error.to_string();
                    tried.push(hop);
                }
            }
        }
    }
}

impl HopTransaction {
    /// The next hop's answers to RCPTs (or to MAIL, when it refuses that), in their order. Pipelined where it offers that. Where the
    /// connection is lost: those that came before, and why.
    pub async fn rcpts(&mut self, recipients: &[&Recipient]) -> (Vec<Reply>, Result<(), HopError>) {
        let mut replies = Vec::with_capacity(recipients.len());
        for group in recipients.chunks(GROUP) {
            let (some, result) = self.group(group).await;
            replies.extend(some);
            if let Err(error) = result {
                self.slot.lost(Timestamp::now(), &error.to_string());
                return (replies, Err(error));
            }
        }
        (replies, Ok(()))
    }

    async fn group(&mut self, group: &[&Recipient]) -> (Vec<Reply>, Result<(), HopError>) {
        if let Mail::Refused(reply) = &self.mail {
            return (vec![reply.clone(); group.len()], Ok(()));
        }
        let first = self.mail == Mail::Unsent;
        let reused = self.connection.as_ref().is_some_and(|connection| connection.reused);
        let (mut replies, mut result) = self.try_group(group).await;
        let stale = replies.first().map_or(result.is_err(), |reply| reply.code == 421);
        if first && reused && stale {
            // The kept connection was dead, and nothing was accepted on it yet.
            self.mail = Mail::Unsent;
            let connection = self.hops.open(&self.hop, Patience::new(self.hops.inner.waits, 1)).await;
            let connection = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    self.slot.unreachable(Timestamp::now(), &error.to_string());
                    return (Vec::new(), Err(error));
                }
            };
            self.offers = connection.client.offers();
            self.ascii_only = self.parameters.smtputf8 && !self.offers.smtputf8;
            self.connection = Some(connection);
            (replies, result) = self.try_group(group).await;
        }
        self.accepted += replies.iter().filter(|reply| reply.is_positive()).count();
        (replies, result)
    }

    async fn try_group(&mut self, group: &[&Recipient]) -> (Vec<Reply>, Result<(), HopError>) {
        let Some(mut connection) = self.connection.take() else {
            return (Vec::new(), Err(not_taken(&self.hop, "the connection was lost".into())));
        };
        if self.mail == Mail::Unsent {
            let smtputf8 = self.parameters.smtputf8 && !self.ascii_only;
            let parameters = MailParameters { smtputf8, ..self.parameters.clone() };
            if self.hop.xforward {
                connection.client.forward(parameters.client.as_deref());
            }
            if let Err(refusal) = connection.client.mail(&self.reverse_path, &parameters) {
                self.mail = Mail::Refused(refusal.clone());
                self.connection = Some(connection);
                return (vec![refusal; group.len()], Ok(()));
            }
        }
        let mut answers: Vec<_> = group.iter().map(|recipient| connection.client.rcpt(recipient).err()).collect();
        let heard = self.hear(&mut connection, &mut answers).await;
        let closing = connection.closing_words();
        if connection.client.is_idle() {
            self.connection = Some(connection);
        }
        if let Mail::Refused(reply) = &self.mail {
            return (vec![reply.clone(); group.len()], Ok(()));
        }
        let replies: Vec<Reply> = answers.into_iter().map_while(|answer| answer).collect();
        let all = replies.len() == group.len();
        let result = if all { Ok(()) } else { Err(not_taken(&self.hop, heard.err().unwrap_or(closing))) };
        (replies, result)
    }

    /// Reads until all that was said is answered, or the connection is of no use any more; `Err`: why.
    async fn hear(&mut self, connection: &mut Connection, answers: &mut [Option<Reply>]) -> Result<(), String> {
        let mut patience = Patience::new(self.hops.inner.waits, 1);
        let mut open = answers.iter_mut().filter(|answer| answer.is_none());
        while !connection.client.is_idle() {
            match connection.event(patience).await? {
                Event::Reset => connection.needs_reset = false,
                Event::Mail(reply) if reply.is_positive() => self.mail = Mail::Accepted,
                Event::Mail(reply) => self.mail = Mail::Refused(reply),
                Event::Rcpt(reply) => {
                    // RFC 5321 section 3.8: it ends the session, and is the answer to one command. The others have none.
                    let closes = reply.code == 421;
                    if let Some(answer) = open.next() {
                        *answer = Some(reply);
                    }
                    if closes {
                        return Ok(());
                    }
                    patience = Patience::new(self.hops.inner.waits, 1);
                }
                Event::Closed => return Ok(()),
                other => return Err(format!("unexpected {other:?}")),
            }
        }
        Ok(())
    }

    /// The content and the final dot: a reply per recipient accepted before (SMTP: the same for all). The connection goes
    /// back to the pool. Dropping the transaction instead resets or closes it.
    ///
    /// The caller ends it after the wait for a next hop (R6). An LMTP hop that answers for some only is given a little less, so that
    /// what it took is known.
    pub async fn data(mut self, content: &Rope) -> Result<Vec<Reply>, HopError> {
        if self.accepted == 0 {
            return Ok(Vec::new());
        }
        // A caller that ends the wait drops this, and the next hop was silent.
        let mut silent = Silent(Some(&self.slot));
        let patience = Patience::new(self.hops.inner.waits, 1).ended_by_owner();
        if self.ascii_only && fit::has_utf8_header(content) {
            silent.0 = None;
            return Ok(vec![no_smtputf8(); self.accepted]);
        }
        let content = match fit::eight_bit(content, self.offers).await {
            Ok(content) => content,
            Err(refusal) => {
                silent.0 = None;
                return Ok(vec![refusal; self.accepted]);
            }
        };
        let Some(connection) = self.connection.take() else {
            return Err(not_taken(&self.hop, "the connection was lost".into()));
        };
        let result = self.hops.content(&self.hop, connection, &content, self.accepted, patience).await;
        silent.0 = None;
        match &result {
            Ok(_) => self.slot.answered(Timestamp::now()),
            Err(error) => self.slot.lost(Timestamp::now(), &error.to_string()),
        }
        result
    }

    /// Whether the next hop takes 8-bit content, SMTPUTF8 and DSN parameters.
    pub fn offers(&self) -> Offers {
        self.offers
    }
}

/// Takes note of a next hop that was silent until its caller went away.
struct Silent<'s>(Option<&'s Slot>);

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            slot.lost(Timestamp::now(), "silent for too long");
        }
    }
}

impl Drop for HopTransaction {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.needs_reset |= self.mail != Mail::Unsent;
            self.hops.give_back(&self.hop, connection);
        }
    }
}

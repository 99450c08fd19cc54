//! A transaction that grows RCPT by RCPT, while a client waits (cut-through, R2).

use jiff::Timestamp;

use super::connection::{Connection, Patience};
use super::fit;
use super::health::{Pick, Slot};
use super::{HopError, Hops, not_taken};
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
    /// The next hop's answer to RCPT (or to MAIL, when it refuses that).
    pub async fn rcpt(&mut self, recipient: &Recipient) -> Result<Reply, HopError> {
        if let Mail::Refused(reply) = &self.mail {
            return Ok(reply.clone());
        }
        let patience = Patience::new(self.hops.inner.waits, 1);
        let first = self.mail == Mail::Unsent;
        let reused = self.connection.as_ref().is_some_and(|connection| connection.reused);
        let mut answer = self.try_rcpt(recipient, patience).await;
        let stale = match &answer {
            Err(_) => true,
            Ok(reply) => reply.code == 421,
        };
        if first && reused && stale {
            // The kept connection was dead, and nothing was accepted on it yet.
            self.mail = Mail::Unsent;
            let connection = self.hops.open(&self.hop, patience).await;
            let connection =
                connection.inspect_err(|error| self.slot.unreachable(Timestamp::now(), &error.to_string()))?;
            self.offers = connection.client.offers();
            self.ascii_only = self.parameters.smtputf8 && !self.offers.smtputf8;
            self.connection = Some(connection);
            answer = self.try_rcpt(recipient, patience).await;
        }
        if let Err(error) = &answer {
            self.slot.lost(Timestamp::now(), &error.to_string());
        }
        answer
    }

    async fn try_rcpt(&mut self, recipient: &Recipient, patience: Patience) -> Result<Reply, HopError> {
        let Some(mut connection) = self.connection.take() else {
            return Err(not_taken(&self.hop, "the connection was lost".into()));
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
                return Ok(refusal);
            }
        }
        let mut answer = connection.client.rcpt(recipient).err();
        while !connection.client.is_idle() {
            match connection.event(patience).await {
                Ok(Event::Reset) => connection.needs_reset = false,
                Ok(Event::Mail(reply)) if reply.is_positive() => self.mail = Mail::Accepted,
                Ok(Event::Mail(reply)) => self.mail = Mail::Refused(reply),
                Ok(Event::Rcpt(reply)) => answer = Some(reply),
                Ok(Event::Closed) => break,
                Ok(other) => return Err(not_taken(&self.hop, format!("unexpected {other:?}"))),
                Err(why) => return Err(not_taken(&self.hop, why)),
            }
        }
        let closing = connection.closing_words();
        if connection.client.is_idle() {
            self.connection = Some(connection);
        }
        match (&self.mail, answer) {
            (Mail::Refused(reply), _) => Ok(reply.clone()),
            (_, Some(reply)) => {
                self.accepted += usize::from(reply.is_positive());
                Ok(reply)
            }
            (_, None) => Err(not_taken(&self.hop, closing)),
        }
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

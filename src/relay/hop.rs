//! Connections to next hops, kept and pipelined.

/// One connection.
mod connection;
/// Certificates judged by TLSA records (RFC 7672).
mod dane;
/// What a mail needs, and what a next hop offers.
mod fit;
/// Which next hop takes a mail.
pub mod health;
/// TLS towards next hops.
mod tls;
/// A transaction that grows while a client waits.
mod transaction;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use super::direct::Exchangers;
use crate::address::Domain;
use crate::config::{HopTls, HopWaits, NextHop, Route, Target};
use crate::metrics::{Exchange, Metrics};
use crate::mime::rope::Rope;
pub use crate::smtp::client::Offers;
use crate::smtp::client::{Client, Event};
use crate::smtp::command::{Body, Enhanced, Envelope, Recipient, Reply};
use connection::{Connection, ContentError, Opener, Patience};
use fit::Fit;
pub use health::{Health, HopStatus};
pub use tls::Roots;
use tls::Tls;
pub use transaction::{Begun, HopTransaction};

/// Idle connections kept for one next hop.
const IDLE_MAX: usize = 64;
/// How long a connection lies idle before it is closed; servers close theirs after minutes.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// How old a connection gets.
const AGE_MAX: Duration = Duration::from_secs(600);
/// RCPTs on the wire before their replies are read, so that neither side's buffers fill.
const GROUP: usize = 100;
/// A whole delivery takes at most so many times the single wait.
const STEPS: u32 = 15;

/// Where a transaction with a next hop stands after a failure: decides between "refuse" and "spool" (R5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// No connection, no greeting, no TLS, or the session refused: nothing was said of the mail.
    #[error("next hop {hop}: {why}")]
    Unreachable {
        /// `host:port`.
        hop: String,
        /// What happened.
        why: String,
    },
    /// Lost before the final dot was written: the mail was surely not taken.
    #[error("next hop {hop}: {why}")]
    NotTaken {
        /// `host:port`.
        hop: String,
        /// What happened.
        why: String,
    },
    /// Lost or silent after the final dot: unknown.
    #[error("next hop {hop} did not answer after the final dot: {why}")]
    Unknown {
        /// `host:port`.
        hop: String,
        /// What happened.
        why: String,
    },
}

/// What a next hop said to a whole transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// A reply per recipient: refused at MAIL, at RCPT or at DATA, or the final one.
    pub replies: Vec<Reply>,
    /// It offers DSN (RFC 3461), so that what was asked for by NOTIFY is its task from now on.
    pub dsn: bool,
    /// It took no mail at all now: 4xx to MAIL, or 421.
    pub busy: bool,
}

/// Connections to next hops. Cheap to clone.
#[derive(Clone)]
pub struct Hops {
    inner: Arc<Inner>,
}

struct Inner {
    hostname: Domain,
    waits: HopWaits,
    health: Health,
    tls: Tls,
    /// Where routes go by MX.
    exchangers: Option<Exchangers>,
    idle: DashMap<NextHop, Mutex<Vec<Connection>>>,
    sweeping: Mutex<bool>,
}

impl Hops {
    /// `hostname` is our EHLO name; `waits` bound each wait; `roots` judge the certificates of hops with `tls = "verified"`.
    pub fn new(hostname: Domain, waits: HopWaits, health: Health, roots: Roots) -> Self {
        Self::with_exchangers(hostname, waits, health, roots, None)
    }

    /// The same, and what finds the hosts in the MX of domains.
    pub fn with_exchangers(
        hostname: Domain,
        waits: HopWaits,
        health: Health,
        roots: Roots,
        exchangers: Option<Exchangers>,
    ) -> Self {
        let (tls, idle, sweeping) = (Tls::new(roots), DashMap::new(), Mutex::new(false));
        Self { inner: Arc::new(Inner { hostname, waits, health, tls, exchangers, idle, sweeping }) }
    }

    /// What finds the hosts in the MX of domains.
    pub fn exchangers(&self) -> Option<&Exchangers> {
        self.inner.exchangers.as_ref()
    }

    /// The next hops of a target, by what the DNS says now where it is a domain. `Err`: the reply that holds for all of it; 4xx: it is not
    /// known now where it goes, or no way is as good as its domain asks for.
    pub async fn route(&self, target: &Target) -> Result<Arc<Route>, Reply> {
        let (domain, way) = match target {
            Target::Hosts(route) => return Ok(Arc::clone(route)),
            Target::Domain(domain, way) => (domain, way),
        };
        let Some(exchangers) = &self.inner.exchangers else {
            return Err(Reply::new(451, Enhanced(4, 3, 5), "no delivery by MX is configured any more"));
        };
        let found = tokio::time::timeout(self.inner.waits.greeting, exchangers.route(domain, way)).await;
        let found = found.unwrap_or_else(|_| {
            Err(Reply::new(451, Enhanced(4, 4, 3), format!("no answer from DNS in time: where mail for {domain} goes")))
        });
        self.metrics().exchanges.one(found.as_ref().map_or_else(Exchange::of, |_| Exchange::Found));
        found
    }

    /// What is known of the next hops.
    pub fn health(&self) -> &Health {
        &self.inner.health
    }

    fn metrics(&self) -> &Metrics {
        self.inner.health.metrics()
    }

    /// Whether TLS can be done with this next hop as it is configured; says why not. Reads the file of its CAs.
    pub fn check(&self, hop: &NextHop) -> Result<(), String> {
        match hop.tls {
            HopTls::Off => Ok(()),
            _ => self.inner.tls.config(hop).map(|_| ()),
        }
    }

    /// A whole transaction in one go, pipelined.
    ///
    /// A kept connection that turns out to be dead is replaced by a new one, once.
    pub async fn deliver(&self, hop: &NextHop, envelope: &Envelope, content: &Rope) -> Result<Delivered, HopError> {
        let patience = Patience::new(self.inner.waits, STEPS);
        let connection = self.take(hop, patience).await?;
        let reused = connection.reused;
        match self.exchange(hop, connection, envelope, content, patience).await {
            Err(HopError::NotTaken { .. }) if reused => {
                let connection = self.open(hop, patience).await?;
                self.exchange(hop, connection, envelope, content, patience).await
            }
            other => other,
        }
    }

    /// Closes the idle connections; those in use are closed when they come back too late.
    pub async fn close_idle(&self) {
        let all: Vec<_> = self.inner.idle.iter().flat_map(|pool| std::mem::take(&mut *lock(pool.value()))).collect();
        for connection in all {
            connection.quit().await;
        }
    }

    async fn exchange(
        &self,
        hop: &NextHop,
        mut connection: Connection,
        envelope: &Envelope,
        content: &Rope,
        patience: Patience,
    ) -> Result<Delivered, HopError> {
        let offers = connection.client.offers();
        let said = |replies| Delivered { replies, dsn: offers.dsn, busy: false };
        let (mut parameters, content) = match fit::fit(envelope, content, offers).await {
            Ok(Fit { smtputf8, content }) => {
                let mut parameters = envelope.parameters.clone();
                parameters.smtputf8 = smtputf8;
                (parameters, content)
            }
            Err(refusal) => {
                self.give_back(hop, connection);
                return Ok(said(vec![refusal; envelope.recipients.len()]));
            }
        };
        parameters.size = Some(u64::try_from(content.encoded_len()).unwrap_or(u64::MAX));
        parameters.body = if content.is_ascii() { Body::SevenBit } else { Body::EightBitMime };
        if hop.xforward {
            connection.client.forward(parameters.client.as_deref());
        }
        if let Err(refusal) = connection.client.mail(&envelope.reverse_path, &parameters) {
            self.give_back(hop, connection);
            return Ok(said(vec![refusal; envelope.recipients.len()]));
        }
        let mut talk = Talk { mail: None, answers: vec![None; envelope.recipients.len()], data: None };
        let groups = envelope.recipients.len().div_ceil(GROUP);
        for (number, group) in envelope.recipients.chunks(GROUP).enumerate() {
            talk.say(&mut connection.client, number * GROUP, group, number + 1 == groups);
            talk.hear(&mut connection, patience, number + 1 == groups).await.map_err(|why| not_taken(hop, why))?;
            if connection.reused && talk.mail.as_ref().is_some_and(|reply| reply.code == 421) {
                return Err(not_taken(hop, "421 on a kept connection".into()));
            }
        }
        let accepted = talk.answers.iter().filter(|answer| answer.as_ref().is_some_and(Reply::is_positive)).count();
        let refused_mail = talk.mail.clone().filter(|reply| !reply.is_positive());
        let go_ahead = matches!(talk.data, Some(None));
        if accepted == 0 || refused_mail.is_some() {
            let busy = refused_mail.as_ref().is_some_and(Reply::is_transient) || connection.client.closing().is_some();
            self.abandon(hop, connection, go_ahead, patience).await;
            return Ok(Delivered { busy, ..said(talk.replies(refused_mail, &[])) });
        }
        let finals = match talk.data.take() {
            // 421 before DATA was said: what would be content is a command to this server.
            None => return Err(not_taken(hop, connection.closing_words())),
            Some(Some(refusal)) => {
                connection.needs_reset = true;
                self.give_back(hop, connection);
                vec![refusal; accepted]
            }
            Some(None) => self.send(hop, connection, &content, accepted, patience).await?,
        };
        Ok(said(talk.replies(None, &finals)))
    }

    /// DATA, content and final dot of a transaction whose recipients are accepted: a reply for each of them.
    async fn content(
        &self,
        hop: &NextHop,
        mut connection: Connection,
        content: &Rope,
        accepted: usize,
        patience: Patience,
    ) -> Result<Vec<Reply>, HopError> {
        connection.client.data();
        match connection.event(patience).await {
            Ok(Event::GoAhead) => self.send(hop, connection, content, accepted, patience).await,
            Ok(Event::DataRefused(refusal)) => {
                connection.needs_reset = true;
                self.give_back(hop, connection);
                Ok(vec![refusal; accepted])
            }
            Ok(other) => Err(not_taken(hop, format!("unexpected {other:?}"))),
            Err(why) => Err(not_taken(hop, why)),
        }
    }

    /// After 354: content, final dot, and the replies: one per accepted recipient.
    async fn send(
        &self,
        hop: &NextHop,
        mut connection: Connection,
        content: &Rope,
        accepted: usize,
        patience: Patience,
    ) -> Result<Vec<Reply>, HopError> {
        match connection.content(content, patience).await {
            Ok(()) => {}
            Err(ContentError::AfterDot(why)) => return Err(HopError::Unknown { hop: name(hop), why }),
            Err(ContentError::BeforeDot(_, Some(refusal))) => return Ok(vec![refusal; accepted]),
            Err(ContentError::BeforeDot(why, None)) => return Err(not_taken(hop, why)),
        }
        let expected = if hop.lmtp { accepted } else { 1 };
        connection.client.content_sent(expected);
        let mut finals = Vec::with_capacity(accepted);
        while finals.len() < expected {
            let wait = if finals.is_empty() { patience } else { patience.for_the_rest() };
            let why = match connection.event(wait.for_final()).await {
                Ok(Event::Final(reply)) => {
                    finals.push(reply);
                    continue;
                }
                Ok(other) => format!("unexpected {other:?}"),
                Err(why) => why,
            };
            if finals.is_empty() {
                return Err(HopError::Unknown { hop: name(hop), why });
            }
            // LMTP: some are answered and stay answered; the others are asked again.
            finals.resize(expected, lost_reply(&why));
            return Ok(finals);
        }
        connection.needs_reset = !finals.iter().all(Reply::is_positive);
        self.give_back(hop, connection);
        if let (false, Some(only)) = (hop.lmtp, finals.first().cloned()) {
            finals.resize(accepted, only);
        }
        Ok(finals)
    }

    /// Ends a transaction that has no recipient. A server that said 354 all the same gets a lone dot, which no recipient can get.
    async fn abandon(&self, hop: &NextHop, mut connection: Connection, go_ahead: bool, patience: Patience) {
        if go_ahead {
            if connection.content(&Rope::new(), patience).await.is_err() {
                return;
            }
            connection.client.content_sent(1);
            if connection.event(patience).await.is_err() {
                return;
            }
        }
        connection.needs_reset = true;
        self.give_back(hop, connection);
    }

    async fn take(&self, hop: &NextHop, patience: Patience) -> Result<Connection, HopError> {
        loop {
            let kept = self.inner.idle.get(hop).and_then(|pool| lock(&pool).pop());
            let Some(mut connection) = kept else { return self.open(hop, patience).await };
            let fresh = connection.born.elapsed() < AGE_MAX && connection.last_used.elapsed() < IDLE_TIME;
            if fresh && connection.is_alive().await {
                connection.reused = true;
                if connection.needs_reset {
                    connection.client.rset();
                }
                return Ok(connection);
            }
        }
    }

    async fn open(&self, hop: &NextHop, patience: Patience) -> Result<Connection, HopError> {
        let Inner { hostname, tls, exchangers, .. } = &*self.inner;
        let opener = Opener { hop, hostname, tls, exchangers: exchangers.as_ref(), metrics: self.metrics(), patience };
        opener.open().await.map_err(|why| HopError::Unreachable { hop: name(hop), why })
    }

    /// Keeps a connection whose replies are all in; any other is closed.
    fn give_back(&self, hop: &NextHop, mut connection: Connection) {
        if !connection.client.is_idle() || connection.born.elapsed() >= AGE_MAX {
            return;
        }
        connection.last_used = Instant::now();
        {
            let pool = self.inner.idle.entry(hop.clone()).or_default();
            let mut pool = lock(&pool);
            if pool.len() < IDLE_MAX {
                pool.push(connection);
            }
        }
        self.sweep();
    }

    /// Closes what has been idle too long, while there is anything idle.
    fn sweep(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if std::mem::replace(&mut *lock(&self.inner.sweeping), true) {
            return;
        }
        let weak = Arc::downgrade(&self.inner);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(IDLE_TIME / 2).await;
                let Some(inner) = weak.upgrade() else { return };
                let mut old = Vec::new();
                let mut sweeping = lock(&inner.sweeping);
                for pool in &inner.idle {
                    old.extend(
                        lock(pool.value()).extract_if(.., |connection| connection.last_used.elapsed() >= IDLE_TIME),
                    );
                }
                inner.idle.retain(|_, pool| !lock(pool).is_empty());
                *sweeping = !inner.idle.is_empty();
                let more = *sweeping;
                drop(sweeping);
                for connection in old {
                    tokio::spawn(connection.quit());
                }
                if !more {
                    return;
                }
            }
        });
    }
}

/// What was answered so far in a pipelined transaction.
struct Talk {
    mail: Option<Reply>,
    answers: Vec<Option<Reply>>,
    /// `Some(None)` is 354.
    data: Option<Option<Reply>>,
}

impl Talk {
    /// Sends a group of RCPTs; the last group with DATA behind it, where the server takes it so.
    fn say(&mut self, client: &mut Client, offset: usize, group: &[Recipient], last: bool) {
        for (recipient, answer) in group.iter().zip(self.answers.iter_mut().skip(offset)) {
            *answer = client.rcpt(recipient).err();
        }
        if last && client.offers().pipelining {
            client.data();
        }
    }

    /// Reads until all that was said is answered; says DATA then, where it was not pipelined and someone is accepted.
    async fn hear(&mut self, connection: &mut Connection, patience: Patience, last: bool) -> Result<(), String> {
        let mut data_said = last && connection.client.offers().pipelining;
        loop {
            if connection.client.is_idle() {
                let someone = self.answers.iter().flatten().any(Reply::is_positive);
                if !last || data_said || !someone || self.mail.as_ref().is_none_or(|reply| !reply.is_positive()) {
                    return Ok(());
                }
                connection.client.data();
                data_said = true;
            }
            match connection.event(patience).await? {
                Event::Reset => {}
                Event::Mail(reply) => self.mail = Some(reply),
                Event::Rcpt(reply) => {
                    if let Some(answer) = self.answers.iter_mut().find(|answer| answer.is_none()) {
                        *answer = Some(reply);
                    }
                }
                Event::DataRefused(reply) => self.data = Some(Some(reply)),
                Event::GoAhead => self.data = Some(None),
                Event::Closed => return if self.mail.is_some() { Ok(()) } else { Err(connection.closing_words()) },
                other => return Err(format!("unexpected {other:?}")),
            }
        }
    }

    /// One reply per recipient: MAIL's refusal, the refusal at RCPT, or the final one.
    fn replies(self, refused_mail: Option<Reply>, finals: &[Reply]) -> Vec<Reply> {
        let mut finals = finals.iter().cloned();
        let one = |answer: Option<Reply>| match (&refused_mail, answer) {
            (Some(refusal), _) => refusal.clone(),
            (None, Some(answer)) if !answer.is_positive() => answer,
            (None, Some(_)) => finals.next().unwrap_or_else(|| lost_reply("no answer")),
            (None, None) => lost_reply("no answer to RCPT"),
        };
        self.answers.into_iter().map(one).collect()
    }
}

fn name(hop: &NextHop) -> String {
    format!("{}:{}", hop.host, hop.port)
}

fn not_taken(hop: &NextHop, why: String) -> HopError {
    HopError::NotTaken { hop: name(hop), why }
}

fn lost_reply(why: &str) -> Reply {
    Reply::new(451, Enhanced(4, 4, 2), format!("the next hop did not answer: {why}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! One structured event per message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Accepted;
use crate::address::ReversePath;
use crate::metrics::{Fate, Metrics, Reason, Stage, Way};
use crate::mime::entity::Entity;
use crate::relay::listen::{Answer, Peer};
use crate::relay::refusal::Refusal;
use crate::smtp::command::Reply;
use crate::smtp::xforward::Forwarded;

/// Recipients, things done and outputs of one message that are told at most.
pub(super) const SHOWN: usize = 20;

/// What is told of a message, gathered on its way.
pub struct Event {
    metrics: Arc<Metrics>,
    way: Way,
    id: String,
    peer: String,
    /// The client that the peer says it came from.
    client: String,
    listener: String,
    from: String,
    to: String,
    size: usize,
    message_id: String,
    done: String,
    outputs: String,
    hop: String,
    spooled: usize,
    treat: Duration,
}

impl Event {
    pub fn new(
        metrics: Arc<Metrics>,
        id: &str,
        peer: &Peer,
        from: &ReversePath,
        recipients: &[Accepted],
        size: usize,
    ) -> Self {
        let to: Vec<String> =
            recipients.iter().take(SHOWN).map(|accepted| accepted.recipient.mailbox.to_string()).collect();
        Self {
            metrics,
            way: Way::of_all(recipients.iter().map(|accepted| accepted.direction)),
            id: id.to_owned(),
            peer: peer.address.to_string(),
            client: String::new(),
            listener: peer.listener.name.clone(),
            from: from.to_string(),
            to: to.join(","),
            size,
            message_id: String::new(),
            done: String::new(),
            outputs: String::new(),
            hop: String::new(),
            spooled: 0,
            treat: Duration::ZERO,
        }
    }

    /// The peer says that it came from there.
    pub fn client(&mut self, client: Option<&Forwarded>) {
        self.client = client.map(ToString::to_string).unwrap_or_default();
    }

    pub fn message_id(&mut self, entity: &Entity) {
        let value = entity.header.all("Message-ID").next().map(|field| field.value()).unwrap_or_default();
        // Outside data in a log: escaped, and not for ever (A28).
        self.message_id = value.chars().take(200).flat_map(char::escape_default).collect();
    }

    /// Own work took this long.
    pub fn treated(&mut self, took: Duration) {
        self.treat = took;
    }

    pub fn done(&mut self, done: &[String]) {
        let shown = done.get(..SHOWN).unwrap_or(done).join("; ");
        let escaped = |text: &str| -> String {
            text.chars()
                .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
                .collect()
        };
        self.done = if shown.chars().any(char::is_control) { escaped(&shown) } else { shown };
    }

    /// What leaves.
    pub fn outputs(&mut self, outputs: impl Iterator<Item = String>) {
        self.outputs = outputs.take(SHOWN).collect::<Vec<_>>().join("; ");
    }

    /// What the next hop said.
    pub fn hop(&mut self, words: &str) {
        self.hop = words.to_owned();
    }

    /// So many entries went to the spool.
    pub fn spooled(&mut self, entries: usize) {
        self.spooled = entries;
    }

    /// The reply to a refusal, and the event with it.
    pub fn refused(&mut self, refusal: &Refusal, began: Instant) -> Reply {
        let reply = self.refuses(refusal);
        self.answered(&Answer::All(reply.clone()), began);
        reply
    }

    /// The reply to a refusal, which may hold for one recipient alone.
    pub fn refuses(&self, refusal: &Refusal) -> Reply {
        self.metrics.refused(refusal)
    }

    /// The next hop takes it for nobody.
    pub fn refused_by_hop(&self) {
        self.metrics.refusals.one(Reason::NextHop);
    }

    /// The answer, and the event with it.
    pub fn answered(&self, answer: &Answer, began: Instant) {
        self.counted(answer, began.elapsed());
        let answer = match answer {
            Answer::All(reply) => words(reply),
            Answer::Each(replies) => replies.iter().map(words).collect::<Vec<_>>().join(" | "),
            Answer::Closed => String::new(),
        };
        let total = began.elapsed();
        tracing::info!(
            target: "waxwing::message",
            id = self.id,
            peer = self.peer,
            client = self.client,
            listener = self.listener,
            from = self.from,
            to = self.to,
            size = self.size,
            message_id = self.message_id,
            done = self.done,
            outputs = self.outputs,
            next_hop = self.hop,
            spooled = self.spooled,
            answer,
            treat_us = micros(self.treat),
            hand_over_us = micros(total.saturating_sub(self.treat)),
            total_us = micros(total),
            "message"
        );
    }
}

impl Event {
    fn counted(&self, answer: &Answer, total: Duration) {
        let fate = match answer {
            Answer::Closed => Fate::Closed,
            Answer::All(reply) => fate(std::slice::from_ref(reply), self.spooled),
            Answer::Each(replies) => fate(replies, self.spooled),
        };
        self.metrics.mail(self.way, fate, self.size);
        self.metrics.stage(Stage::Treat, self.treat);
        self.metrics.stage(Stage::HandOver, total.saturating_sub(self.treat));
        self.metrics.stage(Stage::Total, total);
    }
}

/// One that was taken for anybody is taken.
fn fate(replies: &[Reply], spooled: usize) -> Fate {
    let any = |kind: fn(&Reply) -> bool| replies.iter().any(kind);
    match (any(Reply::is_positive), any(Reply::is_transient)) {
        (true, _) if spooled > 0 => Fate::Spooled,
        (true, _) => Fate::Relayed,
        (false, true) => Fate::Deferred,
        (false, false) => Fate::Rejected,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn words(reply: &Reply) -> String {
    format!("{} {}", reply.code, reply.lines.join(" / "))
}

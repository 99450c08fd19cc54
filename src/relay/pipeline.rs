//! One message: select, look up, resolve, seal or open, hand over. Nothing on its way waits for anything but the next hop.
//!
//! Out: [`outbound`] turns recipients into groups of equal treatment and seals one output for each. In: [`inbound`] verifies, or
//! leaves the octets as received for the moment of handing over where a private key is needed (A4). [`handover`] gives a
//! single output straight to the next hop (R2), and everything else to the spool (R1, R3).

mod again;
mod authentication;
mod decide;
mod event;
mod explain;
mod facts;
mod handover;
mod inbound;
mod outbound;
mod paths;
mod quoted;
mod recipients;
mod tenant;
mod threads;
mod trace;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;

use super::budget::{Budget, Reservation};
use super::deliver::OpenedMail;
use super::heavy::{self, HEAVY, Places};
use super::hop::{HopTransaction, Hops};
use super::listen::{Answer, Peer, Relay};
use super::rates::Rates;
use super::refusal::{Refusal, Unserved};
use crate::address::{Mailbox, MailboxKey, ReversePath};
use crate::audit::{AuditLog, KeyRecord};
use crate::authentication::check::Checker;
use crate::authentication::sign::Signers;
use crate::config::{Config, Direction, Source, SourceKind, Target};
use crate::discovery::harvest::{Counts, Harvest};
use crate::discovery::sources::{Discovery, Told};
use crate::keys::{KeyAnswer, KeyError, KeyHolder, KeyOperation, Submission};
use crate::metrics::{Asked, KeyUse, Label, Metered, Metrics, Ruled, Stage, Way};
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::rope::Rope;
use crate::pki::revocation::Need;
use crate::policy::{ClearByPolicy, MessageFacts};
use crate::smime::seal::Sealed;
use crate::smime::verdict::Marks;
use crate::smtp::command::{Envelope, MailParameters, Recipient, Reply};
use crate::smtp::xforward::Forwarded;
use crate::store::CertStore;

pub use again::{Again, Submitted};
pub use explain::{ExplainError, Explained, Explainer, Explanation, Outcome, Question, Weaker};
pub use facts::StrictlyEncrypted;
pub use handover::{Committing, Queue, QueueEntry, QueueError};

/// The pipeline: a [`Relay`]. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    inner: Arc<Inner>,
}

/// What all messages share.
struct Inner {
    config: Arc<Config>,
    lookup: Arc<facts::Lookup>,
    harvest: Harvest,
    sources: Discovery,
    keys: Arc<dyn KeyHolder>,
    hops: Hops,
    queue: Arc<dyn Queue>,
    budget: Budget,
    marks: Marks,
    /// Who sent it: asked of mail that comes from the world.
    checker: Arc<Checker>,
    /// What our domains vouch with.
    signers: Signers,
    tokens: Arc<trace::LoopTokens>,
    heavy: Places,
    /// Ids of messages: start time and a count.
    ids: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    /// How much everybody brought.
    rates: Arc<Rates>,
    /// Where it is written down what keys were used for.
    audit: Option<AuditLog>,
}

/// What a private key is used for: for the audit log.
#[derive(Clone, Copy)]
struct KeyPurpose<'p> {
    /// The id of the mail.
    mail: &'p str,
    mailbox: &'p str,
    certificate: Option<[u8; 32]>,
}

/// A transaction with a client.
pub struct Transaction {
    peer: Arc<Peer>,
    reverse_path: ReversePath,
    parameters: MailParameters,
    recipients: Vec<Accepted>,
    reservation: Reservation,
    cut: Cut,
    id: String,
}

/// A recipient that was accepted, and which way his mail goes.
struct Accepted {
    recipient: Recipient,
    direction: Direction,
}

/// The transaction with the next hop that grows along (R2).
enum Cut {
    /// No recipient yet.
    NotBegun,
    /// Every recipient so far goes this way, and was accepted by its next hop.
    Open(Box<HopTransaction>, (Direction, Target)),
    /// The spool takes the message.
    Spool,
}

/// A message that came, whole.
struct Message {
    id: String,
    peer: Arc<Peer>,
    reverse_path: ReversePath,
    parameters: MailParameters,
    recipients: Vec<Accepted>,
    entity: Entity,
    at: Timestamp,
    began: Instant,
    /// It was held and has the trace of its arrival.
    again: bool,
    /// The field that tells who sent it; empty: that was not looked at.
    authentication: String,
}

/// One thing that is handed over: a content for some of the recipients.
struct Output {
    direction: Direction,
    /// Positions in the transaction's list.
    recipients: Vec<usize>,
    content: Content,
}

/// What is handed over, with the proof that it may be.
enum Content {
    /// Signed or encrypted here.
    Sealed(Sealed, Rope),
    /// Policy says that it may leave as it is.
    Clear(ClearByPolicy, Rope),
    /// It was encrypted for each of its recipients when it came (A32).
    Encrypted(StrictlyEncrypted, Rope),
    /// Inbound, verified and marked; no private key was used.
    Judged(Rope),
    /// Inbound, as received: a private key is to be tried when it is handed over (A4).
    Closed(Rope),
    /// Kept until released, as received.
    Held(String, Rope),
}

/// What an installation has of its own.
pub struct Own<'o> {
    /// Makes its loop tokens (nodes of one installation share it).
    pub loop_secret: &'o [u8],
    /// Where it is written down what keys were used for.
    pub audit: Option<AuditLog>,
    /// Keys of `[[dkim]]`.
    pub signers: Signers,
}

/// What is known of how a spooled inbound message came.
#[derive(Debug, Clone)]
pub struct Came {
    /// Reverse-path, parameters, and the recipients that wait.
    pub envelope: Envelope,
    /// Name of the listener.
    pub listener: String,
    /// The authenticated user who submitted it.
    pub user: Option<String>,
    /// Of each recipient: a person released it from quarantine.
    pub released: Vec<bool>,
    /// The id of the mail in the log.
    pub log_id: String,
    /// Which way it goes.
    pub direction: Direction,
}

/// What became of a message's recipients.
#[derive(Default)]
struct Treated {
    outputs: Vec<Output>,
    refused: Vec<(usize, Unserved)>,
    /// What was done, for the log: rule, treatment.
    done: Vec<String>,
    /// The same for those who count.
    ruled: Vec<(Way, String, Ruled)>,
}

impl Treated {
    /// What was done, where the log still has room for it.
    fn note(&mut self, words: impl FnOnce() -> String) {
        if self.done.len() < event::SHOWN {
            self.done.push(words());
        }
    }
}

impl Pipeline {
    /// One for this configuration.
    pub fn new(
        config: Arc<Config>,
        store: Arc<dyn CertStore>,
        keys: Arc<dyn KeyHolder>,
        hops: Hops,
        queue: Arc<dyn Queue>,
        own: Own<'_>,
    ) -> Self {
        let Own { loop_secret, audit, signers } = own;
        let marks = Marks { authserv_id: config.authserv_id.clone(), subject_tags: config.subject_tags };
        let metrics = hops.health().metrics().clone();
        let inner = Inner {
            budget: Budget::new(config.limits.bytes_in_flight),
            marks,
            checker: Arc::new(Checker::new(&config.mail_authentication)),
            signers,
            tokens: Arc::new(trace::LoopTokens::new(loop_secret)),
            lookup: Arc::new(facts::Lookup::new(
                store.clone(),
                config.fetch,
                &config.certificates,
                believes_dane(&config),
            )),
            sources: Discovery::new(&config, store.clone(), metrics.clone()),
            harvest: Harvest::new(config.harvest.clone(), config.certificates.policies.clone(), &config.domains, store),
            heavy: Places::new(),
            ids: Arc::new(AtomicU64::new(Timestamp::now().as_microsecond().unsigned_abs())),
            metrics,
            rates: Arc::default(),
            audit,
            config,
            keys,
            hops,
            queue,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same with another configuration and other next hops. What was found out stays known; messages under way in this one go on
    /// as they began.
    pub fn renewed(&self, config: Arc<Config>, hops: Hops, signers: Signers) -> Self {
        let before = &self.inner;
        let same = config.fetch == before.config.fetch
            && config.certificates == before.config.certificates
            && believes_dane(&config) == believes_dane(&before.config);
        let same_room = config.limits.bytes_in_flight == before.config.limits.bytes_in_flight;
        let inner = Inner {
            lookup: match same {
                true => before.lookup.clone(),
                false => Arc::new(before.lookup.renewed(config.fetch, &config.certificates, believes_dane(&config))),
            },
            harvest: before.harvest.renewed(&config.harvest, &config.certificates.policies, &config.domains),
            sources: before.sources.renewed(&config),
            keys: before.keys.clone(),
            hops,
            queue: before.queue.clone(),
            budget: if same_room { before.budget.clone() } else { Budget::new(config.limits.bytes_in_flight) },
            marks: Marks { authserv_id: config.authserv_id.clone(), subject_tags: config.subject_tags },
            checker: match *before.checker.settings() == config.mail_authentication {
                true => before.checker.clone(),
                false => Arc::new(Checker::new(&config.mail_authentication)),
            },
            signers,
            tokens: before.tokens.clone(),
            heavy: before.heavy.clone(),
            ids: before.ids.clone(),
            metrics: before.metrics.clone(),
            rates: before.rates.clone(),
            audit: before.audit.clone(),
            config,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What was counted of mail, this configuration's and those before it.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Octets in flight, and how many there may be.
    pub fn in_flight(&self) -> (u64, u64) {
        let most = self.inner.config.limits.bytes_in_flight;
        (most.saturating_sub(self.inner.budget.free()), most)
    }

    /// What signed mail brought so far, and what became of it.
    pub fn harvested(&self) -> Counts {
        self.inner.harvest.counts()
    }

    /// What a spooled inbound message is handed over as: opened again from the octets received (R5), for each recipient with his
    /// own keys (A30); or kept back, where the rule says so and nobody has released it.
    pub async fn open_received(&self, came: Came, received: Bytes) -> Result<OpenedMail, Refusal> {
        let pipeline = self.clone();
        let (heavy, began) = (received.len() > HEAVY, Instant::now());
        // In a box, here and in `treat`: it would be moved from layer to layer.
        let work = Box::pin(async move { inbound::open_received(&pipeline.inner, &came, received).await });
        let opened = self.inner.work(heavy, work).await;
        self.inner.metrics.stage(Stage::Open, began.elapsed());
        opened?
    }

    /// The transaction that MAIL begins.
    fn begin(
        &self,
        peer: &Arc<Peer>,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Result<Transaction, Refusal> {
        let inner = &self.inner;
        tenant::certified(peer)?;
        inner.within_rate(peer, Metered::Mails)?;
        if parameters.size.is_some_and(|size| size > inner.config.limits.message_size) {
            return Err(Refusal::TooLarge { limit: inner.config.limits.message_size });
        }
        if let Err(error) = inner.queue.ready() {
            tracing::error!(%error, "the spool cannot take mail");
            return Err(Refusal::Spool);
        }
        let reservation = inner.budget.reserve(in_flight(parameters.size.unwrap_or(0))).map_err(|_| Refusal::Busy)?;
        let id = format!("{:014x}", inner.ids.fetch_add(1, Ordering::Relaxed));
        Ok(Transaction {
            peer: peer.clone(),
            reverse_path,
            parameters,
            recipients: Vec::new(),
            reservation,
            cut: Cut::NotBegun,
            id,
        })
    }
}

impl Relay for Pipeline {
    type Transaction = Transaction;

    async fn mail(
        &self,
        peer: &Arc<Peer>,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Result<Transaction, Reply> {
        self.begin(peer, reverse_path, parameters).map_err(|refusal| {
            let reply = self.inner.metrics.refused(&refusal);
            self.inner.metrics.turned_away(reply.is_transient());
            reply
        })
    }

    async fn rcpt(&self, transaction: &mut Transaction, recipient: Recipient) -> Reply {
        self.rcpts(transaction, vec![recipient]).await.pop().unwrap_or_else(|| Refusal::Internal.reply())
    }

    async fn rcpts(&self, transaction: &mut Transaction, recipients: Vec<Recipient>) -> Vec<Reply> {
        self.inner.rcpts(transaction, recipients).await
    }

    fn growing(&self, transaction: &mut Transaction, octets: u64) -> Result<(), Reply> {
        if octets > self.inner.config.limits.message_size {
            let limit = self.inner.config.limits.message_size;
            return Err(self.inner.metrics.refused(&Refusal::TooLarge { limit }));
        }
        let grown = transaction.reservation.grow_to(in_flight(octets));
        grown.map_err(|_| self.inner.metrics.refused(&Refusal::Busy))
    }

    /// The listener runs it in a task of its own, so that a panic in it costs this message alone.
    async fn message(&self, transaction: Transaction, content: Bytes) -> Answer {
        self.inner.clone().process(transaction, content).await
    }
}

/// Octets reserved for a message of this size: what came, what goes out, and base64 between.
fn in_flight(size: u64) -> u64 {
    size.saturating_mul(3)
}

/// Whether a source says that DANE-EE records stand for certificates without a path.
fn believes_dane(config: &Config) -> bool {
    let stands = |source: &Source| matches!(&source.kind, SourceKind::Smimea(smimea) if smimea.dane_alone);
    config.discovery.iter().any(stands)
}

/// One reply for all, in the shape the client's protocol wants.
fn answer(lmtp: bool, recipients: usize, reply: Reply) -> Answer {
    if lmtp { Answer::Each(vec![reply; recipients]) } else { Answer::All(reply) }
}

impl Inner {
    /// Counts one more of this peer; `Err`: it brought too many.
    fn within_rate(&self, peer: &Peer, what: Metered) -> Result<(), Refusal> {
        let rates = &self.config.limits.rates;
        if rates.are_none() {
            return Ok(());
        }
        self.rates.take(peer, what, rates, Instant::now()).map_err(|(whose, refusal)| {
            self.metrics.too_fast.one((whose, what));
            tracing::debug!(address = %peer.address, user = ?peer.user, what = what.word(), "too fast");
            refusal
        })
    }

    /// The client that the next hops of a direction are told of, where one of them wants to know: who is at the other end, or whom he says that
    /// the mail came from.
    fn told_of(
        &self,
        peer: &Peer,
        parameters: &MailParameters,
        id: &str,
        direction: Direction,
    ) -> Option<Arc<Forwarded>> {
        if !self.config.forwards(direction) {
            return parameters.client.clone();
        }
        let client = parameters.client.as_deref().cloned().unwrap_or_else(|| peer.as_client());
        Some(Arc::new(Forwarded { ident: Some(id.to_owned()), ..client }))
    }

    /// From the final dot to its answer.
    async fn process(self: Arc<Self>, transaction: Transaction, content: Bytes) -> Answer {
        let began = Instant::now();
        let Transaction { peer, reverse_path, parameters, recipients, reservation, cut, id } = transaction;
        let (count, lmtp, size) = (recipients.len(), peer.listener.lmtp, content.len());
        let mut event = event::Event::new(self.metrics.clone(), &id, &peer, &reverse_path, &recipients, size);
        event.client(parameters.client.as_deref());
        let admitted = self.admit(&recipients, content);
        let entity = match admitted.and_then(|entity| tenant::admitted(&peer.listener, entity)) {
            Ok(entity) => entity,
            Err(refusal) => return answer(lmtp, count, event.refused(&refusal, began)),
        };
        event.message_id(&entity);
        let mut message = Message {
            id,
            peer,
            reverse_path,
            parameters,
            recipients,
            entity,
            at: Timestamp::now(),
            began,
            again: false,
            authentication: String::new(),
        };
        let origin = match self.authenticate(&mut message).await {
            Ok(origin) => origin,
            Err(refusal) => return answer(lmtp, count, event.refused(&refusal, began)),
        };
        let message = Arc::new(message);
        let treated = self.clone().treat(message.clone()).await;
        event.treated(message.began.elapsed());
        let mut treated = match treated {
            Ok(treated) => treated,
            Err(refusal) => return answer(lmtp, count, event.refused(&refusal, began)),
        };
        treated.done.extend(origin);
        event.done(&treated.done);
        event.outputs(treated.outputs.iter().map(|output| output.content.describe()));
        let sent = || treated.outputs.iter().map(|output| output.content.rope().clone()).collect::<Vec<_>>();
        let sent = (size > HEAVY).then(sent);
        let answer = self.hand_over(&message, treated, cut, &mut event).await;
        event.answered(&answer, began);
        heavy::let_go(size, (message, sent));
        drop(reservation);
        answer
    }

    /// What is looked at before any work: readable header, loops (A23).
    fn admit(&self, recipients: &[Accepted], content: Bytes) -> Result<Entity, Refusal> {
        let entity =
            Entity::parse(content, &MimeLimits::default()).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let (found, limit) = (entity.header.all("Received").count(), self.config.limits.received_fields);
        if found > limit {
            return Err(Refusal::TooManyHops { found, limit });
        }
        let directions = recipients.iter().map(|accepted| accepted.direction);
        if directions.into_iter().any(|direction| self.tokens.passed(&entity.header, direction)) {
            return Err(Refusal::Loop);
        }
        Ok(entity)
    }

    /// Both directions of one message; within the time for own work (R6).
    async fn treat(self: Arc<Self>, message: Arc<Message>) -> Result<Treated, Refusal> {
        let heavy = message.entity.raw.len() > HEAVY || message.recipients.len() > 8;
        let lmtp = message.peer.listener.lmtp;
        let inner = self.clone();
        let work = Box::pin(async move {
            let mut treated = Treated::default();
            inner.outbound(&message, &mut treated).await?;
            inner.inbound(&message, &mut treated).await?;
            Ok(treated)
        });
        let treated: Treated = self.work(heavy, work).await??;
        treated.ruled.iter().for_each(|(way, rule, ruled)| self.metrics.ruled.one(rule, (*way, *ruled)));
        // SMTP has one reply to DATA: who cannot be served refuses the message for all, and nothing is sent to anyone.
        if !lmtp && !treated.refused.is_empty() {
            return Err(Refusal::Unserved(treated.refused.into_iter().map(|(_, why)| why).collect()));
        }
        Ok(treated)
    }

    /// Runs work here, or on the threads for big mails when it is heavy, so that a small mail never waits behind a big one.
    async fn work<T: Send + 'static>(
        &self,
        heavy: bool,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let run = async {
            match heavy {
                false => Ok(work.await),
                true => self.heavy.work(work).await.ok_or(Refusal::Internal),
            }
        };
        tokio::time::timeout(self.config.limits.work_timeout, run).await.unwrap_or(Err(Refusal::WorkTimeout))
    }

    /// Fetches what would tell more of certificates that may be revoked; a responder that stalls holds up no other mail.
    async fn fetch(&self, needs: Vec<Need>, asked: Timestamp) -> bool {
        if needs.is_empty() || !self.config.fetch.enabled {
            return false;
        }
        let began = Instant::now();
        let new = self.heavy.aside(self.lookup.fetcher().fetch(needs, asked)).await;
        self.metrics.fetched(new, began.elapsed());
        new
    }

    /// Asks the sources of certificates; a source that stalls holds up no other mail.
    async fn discover(&self, mut misses: Vec<Mailbox>) -> HashMap<MailboxKey, Arc<Told>> {
        misses.sort_by_key(Mailbox::key);
        misses.dedup_by_key(|mailbox| mailbox.key());
        let began = Instant::now();
        let told = self.heavy.aside(self.sources.look_up(misses)).await;
        self.metrics.stage(Stage::Discover, began.elapsed());
        told.values().for_each(|one| self.metrics.look_ups.one(Asked::of(one)));
        told
    }

    /// Asks the key holder. What it answers is not given out before it is written down what for.
    ///
    /// # Errors
    /// It cannot be written down: no key is used then.
    async fn key(
        &self,
        operation: KeyOperation,
        purpose: KeyPurpose<'_>,
    ) -> Result<Result<KeyAnswer, KeyError>, Refusal> {
        self.may_use_keys()?;
        let (began, kind, key) = (Instant::now(), KeyUse::of(&operation), operation.key());
        let answer = match self.keys.submit(operation) {
            Submission::Ready(answer) => answer,
            Submission::Later(answer) => answer.await,
        };
        self.metrics.key(kind, answer.is_ok(), began.elapsed());
        if let Some(audit) = &self.audit {
            let KeyPurpose { mail, mailbox, certificate } = purpose;
            let outcome = answer.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
            let record = KeyRecord { operation: kind.word(), mail, mailbox, certificate, key, outcome: &outcome };
            audit.key_used(record).await.map_err(|_| Refusal::Audit)?;
        }
        Ok(answer)
    }

    /// Whether it can be written down what keys are used for.
    fn may_use_keys(&self) -> Result<(), Refusal> {
        self.audit.as_ref().map_or(Ok(()), |audit| audit.works().map_err(|_| Refusal::Audit))
    }
}

impl Message {
    /// What rules see of it.
    fn facts<'m>(
        &'m self,
        direction: Direction,
        from: Option<&'m Mailbox>,
        signed: bool,
        encrypted: bool,
    ) -> MessageFacts<'m> {
        MessageFacts {
            direction,
            reverse_path: &self.reverse_path,
            from,
            header: &self.entity.header,
            size: self.entity.raw.len() as u64,
            signed,
            encrypted,
            user: self.peer.user.as_deref(),
            listener: &self.peer.listener.name,
            trusted: self.peer.trusted,
        }
    }

    /// Recipients of a direction, with their positions.
    fn going(&self, direction: Direction) -> Vec<(usize, &Mailbox)> {
        let all = self.recipients.iter().enumerate();
        all.filter(|(_, accepted)| accepted.direction == direction)
            .map(|(at, accepted)| (at, &accepted.recipient.mailbox))
            .collect()
    }

    /// Received and loop fields for an output.
    fn trace(&self, inner: &Inner, direction: Direction, recipients: &[usize]) -> String {
        let only = match recipients {
            [one] => self.recipients.get(*one).map(|accepted| &accepted.recipient.mailbox),
            _ => None,
        };
        // Before anything else, where none but we can have put it: see `Inner::noted`.
        let mut fields = match direction {
            Direction::Inbound => self.authentication.clone(),
            Direction::Outbound | Direction::ByRecipient => String::new(),
        };
        fields.push_str(&inner.tokens.fields(&self.entity.header, direction));
        if !self.again {
            fields.push_str(&self.received(inner, only));
        }
        fields
    }

    fn received(&self, inner: &Inner, only: Option<&Mailbox>) -> String {
        trace::received(&inner.config.hostname, &self.peer, &self.parameters, &self.id, only, self.at)
    }
}

impl Content {
    /// The octets to hand over.
    fn rope(&self) -> &Rope {
        match self {
            Self::Sealed(_, rope)
            | Self::Clear(_, rope)
            | Self::Encrypted(_, rope)
            | Self::Judged(rope)
            | Self::Closed(rope)
            | Self::Held(_, rope) => rope,
        }
    }

    /// What it is and why it may leave, for the log.
    fn describe(&self) -> String {
        match self {
            Self::Sealed(sealed, _) if sealed.encrypted_to().is_empty() => "signed".into(),
            Self::Sealed(sealed, _) => format!("encrypted to {}", sealed.encrypted_to().len()),
            Self::Clear(proof, _) => format!("clear by rule {}", proof.rule()),
            Self::Encrypted(proof, _) => format!("encrypted before with {}", proof.content().name()),
            Self::Judged(_) => "verified".into(),
            Self::Closed(_) => "to be opened".into(),
            Self::Held(why, _) => format!("held: {why}"),
        }
    }

    /// The same with these fields in front.
    fn behind(self, fields: Vec<u8>) -> Self {
        let add = |rope: Rope| {
            let mut all = Rope::from(Bytes::from(fields));
            all.append(rope);
            all
        };
        match self {
            Self::Sealed(sealed, rope) => Self::Sealed(sealed, add(rope)),
            Self::Clear(proof, rope) => Self::Clear(proof, add(rope)),
            Self::Encrypted(proof, rope) => Self::Encrypted(proof, add(rope)),
            Self::Judged(rope) => Self::Judged(add(rope)),
            Self::Closed(rope) => Self::Closed(add(rope)),
            Self::Held(why, rope) => Self::Held(why, add(rope)),
        }
    }

    /// Sealed content behind our trace fields.
    fn sealed(trace: String, sealed: Sealed) -> Self {
        let mut rope = Rope::from(Bytes::from(trace));
        rope.append(sealed.rope().clone());
        Self::Sealed(sealed, rope)
    }
}

/// Addresses that a message shows in To and Cc.
fn shown(entity: &Entity) -> HashSet<crate::address::MailboxKey> {
    entity.header.to_and_cc().iter().map(Mailbox::key).collect()
}

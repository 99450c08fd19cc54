//! In: verified and marked; opened for each recipient with his own keys alone (A30). Where a private key is to be tried, the
//! octets go to the spool as received and are opened when they are handed over, so that the answer to the final dot depends on
//! nothing that a key found out (A4).

use std::borrow::Cow;

use aws_lc_rs::rand;
use bytes::Bytes;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::decide::incoming;
use super::{Came, Content, Inner, KeyPurpose, Message, Output, Treated, threads};
use crate::address::Mailbox;
use crate::cms::algorithm::Legacy;
use crate::config::{Config, Direction};
use crate::keys::Cek;
use crate::metrics::{Decrypted, Ruled, Way};
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::rope::Rope;
use crate::pki::revocation::Demand;
use crate::policy::{Action, MessageFacts, Quarantine, quarantines, select};
use crate::relay::deliver::OpenedMail;
use crate::relay::refusal::Refusal;
use crate::smime::open::{OpenContext, Opened, Opener, OwnKey, Step, envelope, unwrapped};
use crate::smime::seal::is_signed_message;
use crate::smime::verdict::{Layer, SmimeResult};
use crate::store::StoreError;

/// Recipients whose mail is judged alike.
struct Class {
    pass: bool,
    revocation: Demand,
    strip_signature: bool,
    quarantine: Vec<Quarantine>,
    /// The signed To and Cc name none of them (A9).
    elsewhere: bool,
    recipients: Vec<usize>,
}

/// Said to those whom the signed To and Cc do not name. It names nobody: a blind copy's recipient stays unknown to others.
const ELSEWHERE: &str = "written to others: the signed To and Cc do not name this recipient";

impl Class {
    /// Those whom the signature names, and those whom it does not: each hear their own verdict.
    fn by_address(self, opened: &Opened, message: &Message) -> Vec<Class> {
        let named = |at: &usize| {
            self.pass || message.recipients.get(*at).is_none_or(|one| opened.is_addressed_to(&one.recipient.mailbox))
        };
        let (named, others): (Vec<usize>, Vec<usize>) = self.recipients.iter().copied().partition(named);
        let both = [(false, named), (true, others)].into_iter().filter(|(_, recipients)| !recipients.is_empty());
        both.map(|(elsewhere, recipients)| Class { elsewhere, recipients, quarantine: self.quarantine.clone(), ..self })
            .collect()
    }
}

impl Inner {
    /// Treats the recipients whose mail comes in.
    pub(super) async fn inbound(&self, message: &Message, treated: &mut Treated) -> Result<(), Refusal> {
        let going = message.going(Direction::Inbound);
        if going.is_empty() {
            return Ok(());
        }
        let trust = self.lookup.trust().map_err(unreadable)?;
        let operations = self.config.limits.key_operations;
        let from = message.entity.header.single_from().ok();
        let facts = inbound_facts(message, from.as_ref(), self.config.legacy);
        if facts.encrypted {
            // Whose keys open it may be known to our directory alone. Where that says nothing it is handed on as it came.
            let unknown = |mailbox: &&Mailbox| self.lookup.is_unknown(mailbox) && self.sources.knows_aliases(mailbox);
            let misses: Vec<Mailbox> = going.iter().map(|(_, mailbox)| *mailbox).filter(unknown).cloned().collect();
            if !misses.is_empty() {
                self.discover(misses).await;
            }
        }
        let mut with_keys = Vec::new();
        let mut classes: Vec<Class> = Vec::new();
        let mut closed = Vec::new();
        for (at, mailbox) in going {
            let (rule, keys) = incoming(&self.config.policy, &self.lookup, &facts, mailbox).map_err(unreadable)?;
            let keys = match keys {
                Ok(keys) => keys,
                Err(why) => {
                    treated.done.push(format!("{mailbox}: {}: refused", rule.name));
                    let ruled = if why.transient { Ruled::Deferred } else { Ruled::Refused };
                    treated.ruled.push((Way::Inbound, rule.name.clone(), ruled));
                    treated.refused.push((at, why));
                    continue;
                }
            };
            with_keys.push((at, mailbox, rule, keys));
        }
        // One probe for all: where no key of anyone is asked for, the result is the same for everyone.
        let union: Vec<OwnKey> = with_keys.iter().flat_map(|(.., keys)| keys.iter().cloned()).collect();
        let demand = with_keys.first().map(|(_, _, rule, _)| rule.action.revocation).unwrap_or_default();
        let context = |keys: Vec<OwnKey>, revocation: Demand| OpenContext {
            operations,
            decompressed: decompressed(&self.config),
            ..self.lookup.context(keys, trust.clone(), revocation, message.at).with_legacy(self.config.legacy)
        };
        let probed = probe(&message.entity, context(union, demand));
        let alone = with_keys.len() == 1;
        for (at, mailbox, rule, keys) in with_keys {
            let asks = probed.is_none()
                && !keys.is_empty()
                && (alone || probe(&message.entity, context(keys, demand)).is_none());
            treated.done.push(format!("{mailbox}: {}: {}", rule.name, if asks { "to be opened" } else { "judged" }));
            let ruled = if asks { Ruled::ToBeOpened } else { Ruled::Judged };
            treated.ruled.push((Way::Inbound, rule.name.clone(), ruled));
            if asks {
                closed.push(at);
            } else {
                classify(&mut classes, &rule.action, at);
            }
        }
        let probed = probed.map(|opened| (demand, opened));
        self.judged(message, |demand| context(Vec::new(), demand), probed, classes, treated).await?;
        if !closed.is_empty() {
            let mut rope = Rope::from(Bytes::from(message.trace(self, Direction::Inbound, &closed)));
            rope.push_raw(message.entity.raw.clone());
            treated.outputs.push(Output {
                direction: Direction::Inbound,
                recipients: closed,
                content: Content::Closed(rope),
            });
        }
        Ok(())
    }

    /// The outputs of those for whom no private key is asked for.
    async fn judged(
        &self,
        message: &Message,
        context: impl Fn(Demand) -> OpenContext,
        probed: Option<(Demand, Box<Opened>)>,
        classes: Vec<Class>,
        treated: &mut Treated,
    ) -> Result<(), Refusal> {
        // Rules differ in what they ask for rarely: then it is judged anew.
        let mut judged: Vec<(Demand, Box<Opened>)> = Vec::new();
        let mut probed = probed;
        for class in &classes {
            let demand = class.revocation;
            if judged.iter().any(|(known, _)| *known == demand) {
                continue;
            }
            let asked = Timestamp::now();
            let first = probed.take_if(|(known, _)| *known == demand).map(|(_, opened)| opened);
            let mut opened = first.or_else(|| probe(&message.entity, context(demand))).ok_or(Refusal::Internal)?;
            if self.fetch(std::mem::take(&mut opened.needs), asked).await {
                opened = probe(&message.entity, context(demand)).ok_or(Refusal::Internal)?;
            }
            treated.done.push(format!("verdict: {}", opened.verdict.reason));
            self.metrics.verdicts.one(opened.verdict.result);
            judged.push((demand, opened));
        }
        if classes.iter().any(|class| !class.pass) {
            self.harvest(&message.entity, judged.iter().map(|(_, opened)| &**opened), message.at);
        }
        for class in classes {
            let Some((_, opened)) = judged.iter().find(|(demand, _)| *demand == class.revocation) else { continue };
            self.written(message, opened, class, treated);
        }
        Ok(())
    }

    /// Offers what a valid signature announced to the harvest (A10). Where rules judge one message differently, the strictest word
    /// holds: nothing is taken of what one of them does not accept.
    fn harvest<'o>(&self, entity: &Entity, opened: impl Iterator<Item = &'o Opened> + Clone, at: Timestamp) {
        use SmimeResult::{Fail, PermError, Policy, TempError};
        if opened.clone().any(|one| matches!(one.verdict.result, Fail | Policy | PermError | TempError)) {
            return;
        }
        let Some(one) = opened.clone().find(|one| !one.announced.is_empty()) else { return };
        let message_id = entity.header.all("Message-ID").next().map(|field| field.value()).unwrap_or_default();
        one.announced.iter().for_each(|announced| self.harvest.offer(announced, message_id.trim(), at));
    }

    /// The outputs of recipients whose mail is judged alike.
    fn written(&self, message: &Message, opened: &Opened, class: Class, treated: &mut Treated) {
        if let Some(why) = quarantines(&class.quarantine, &opened.verdict) {
            // As received: judged anew when it is released.
            let mut rope = Rope::from(Bytes::from(message.trace(self, Direction::Inbound, &class.recipients)));
            rope.push_raw(message.entity.raw.clone());
            let content = Content::Held(why, rope);
            let recipients = class.recipients;
            return treated.outputs.push(Output { direction: Direction::Inbound, recipients, content });
        }
        for class in class.by_address(opened, message) {
            let trace = message.trace(self, Direction::Inbound, &class.recipients);
            let rope = if class.pass {
                let mut rope = Rope::from(Bytes::from(trace));
                self.stripped(&message.entity, &mut rope);
                rope
            } else {
                self.marked(&message.entity, opened, class.strip_signature, class.elsewhere, trace)
            };
            treated.outputs.push(Output {
                direction: Direction::Inbound,
                recipients: class.recipients,
                content: Content::Judged(rope),
            });
        }
    }

    /// The message for the next hop: marks, trace, header without forged marks, body.
    fn marked(
        &self,
        received: &Entity,
        opened: &Opened,
        strip_signature: bool,
        elsewhere: bool,
        trace: String,
    ) -> Rope {
        let mut verdict = Cow::Borrowed(&opened.verdict);
        if elsewhere {
            verdict.to_mut().notes.push(ELSEWHERE.to_owned());
        }
        let mut rope = Rope::from(Bytes::from(self.marks.fields(&verdict)));
        rope.push_raw(trace);
        let fresh = (opened.message != received.raw)
            .then(|| Entity::parse(opened.message.clone(), &MimeLimits::default()).ok())
            .flatten();
        let entity = fresh.as_ref().unwrap_or(received);
        let threaded = (opened.verdict.decrypted && self.config.policy.follows_threads())
            .then(|| threads::marked(entity))
            .flatten()
            .and_then(|octets| Entity::parse(octets, &MimeLimits::default()).ok());
        let entity = threaded.as_ref().unwrap_or(entity);
        let clear_signed = matches!(opened.verdict.layers.first(), Some(Layer::Signed { .. }));
        let bare = (strip_signature && clear_signed && opened.verdict.signer.is_some())
            .then(|| unwrapped(&entity.header, &opened.content, &MimeLimits::default()))
            .flatten()
            .and_then(|octets| Entity::parse(octets, &MimeLimits::default()).ok());
        rope.append(self.marks.tagged(&verdict, &bare.as_ref().unwrap_or(entity).raw));
        rope
    }

    /// Header without forged marks, and the rest as it is.
    pub(super) fn stripped(&self, entity: &Entity, rope: &mut Rope) {
        let stripped = self.marks.strip(&entity.header);
        if stripped.as_slice() == entity.header.raw.as_ref() {
            return rope.push_raw(entity.raw.clone());
        }
        rope.push_raw(stripped);
        rope.push_raw(entity.raw.slice(entity.header.raw.len().min(entity.raw.len())..));
    }

    /// Opens for one recipient; private-key operations are done by the key holder.
    ///
    /// # Errors
    /// It cannot be written down what keys are used for: nothing is opened.
    async fn open(
        &self,
        entity: Entity,
        context: OpenContext,
        (mail, mailbox): (&str, &Mailbox),
    ) -> Result<Box<Opened>, Refusal> {
        let asked = Timestamp::now();
        // Held beside its content only where it may be opened again.
        let fetches = context.revocation != Demand::Off && self.config.fetch.enabled;
        let kept = fetches.then(|| (entity.undecoded(), context.clone()));
        let mut opened = self.open_once(entity, context, (mail, mailbox)).await?;
        if let Some((kept, again)) = kept
            && self.fetch(std::mem::take(&mut opened.needs), asked).await
        {
            let operations = opened.operations;
            opened = self.open_once(kept, again, (mail, mailbox)).await?;
            opened.operations = opened.operations.saturating_add(operations);
        }
        Ok(opened)
    }

    async fn open_once(
        &self,
        entity: Entity,
        context: OpenContext,
        (mail, mailbox): (&str, &Mailbox),
    ) -> Result<Box<Opened>, Refusal> {
        let (keys, mailbox) = (context.keys.clone(), mailbox.to_string());
        let mut opener = Opener::new(entity, context, substitute);
        let mut answer = None;
        loop {
            match opener.step(answer) {
                Step::Done(opened) => return Ok(opened),
                Step::Key(operation) => {
                    let own = keys.iter().find(|own| own.key == operation.key());
                    let certificate = own.map(|own| own.certificate.fingerprint());
                    answer = Some(self.key(operation, KeyPurpose { mail, mailbox: &mailbox, certificate }).await?);
                }
            }
        }
    }

    /// The action for a recipient of a spooled message, whose peer is no longer known.
    fn action_again(&self, came: &Came, entity: &Entity, recipient: &Mailbox) -> Action {
        let from = entity.header.single_from().ok();
        let limits = MimeLimits::default();
        let facts = MessageFacts {
            direction: Direction::Inbound,
            reverse_path: &came.envelope.reverse_path,
            from: from.as_ref(),
            header: &entity.header,
            size: entity.raw.len() as u64,
            signed: is_signed_message(entity, &limits),
            encrypted: envelope(entity, &limits, self.config.legacy).is_some(),
            user: came.user.as_deref(),
            listener: &came.listener,
            trusted: false,
        };
        select(&self.config.policy, &facts, recipient).action.clone()
    }
}

/// What came out, whether its signature is stripped and whether it was written to others, and who gets it.
type Shared = (Box<Opened>, (bool, bool), Vec<usize>);

/// See [`super::Pipeline::open_received`]. Recipients whose keys yield the same CEKs and the same message share a content.
pub(super) async fn open_received(inner: &Inner, came: &Came, received: Bytes) -> Result<OpenedMail, Refusal> {
    let limits = MimeLimits::default();
    let mut entity = Entity::parse(received, &limits).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let trust = inner.lookup.trust().map_err(unreadable)?;
    let now = Timestamp::now();
    // What was held on its way out is no inbound mail: released, it must never leave as it is.
    if came.direction != Direction::Inbound {
        tracing::error!("a held outbound message was released; policy has to look at it anew: send it again");
        return Err(Refusal::Internal);
    }
    // A mail that was taken over from another installation bears the other's token.
    let kept = match inner.tokens.passed(&entity.header, Direction::Inbound) {
        true => inner.tokens.kept(&entity.header),
        false => inner.tokens.fields(&entity.header, Direction::Inbound),
    };
    let kept = inner.noted(&entity.header) + &kept;
    let mut opened: Vec<Shared> = Vec::new();
    let mut quarantined = Vec::new();
    // At most so many for the whole message; each recipient has one try at least.
    let mut left = inner.config.limits.key_operations;
    let mut waiting = came.envelope.recipients.iter().enumerate().peekable();
    while let Some((at, recipient)) = waiting.next() {
        // What is decoded of it goes with the opener: a large mail is not held three times.
        let own = entity.undecoded();
        let action = inner.action_again(came, &own, &recipient.mailbox);
        // Nor beside its content, once the last one's is being opened: marks and harvest need the header alone.
        if waiting.peek().is_none()
            && let Some(header) = entity.header_alone(&limits)
        {
            entity = header;
        }
        let opens = action.decrypt && !action.pass;
        let keys = if opens {
            inner.lookup.own_keys(&recipient.mailbox, action.domain_key).map_err(unreadable)?
        } else {
            Vec::new()
        };
        let context = OpenContext {
            operations: left.max(1),
            decompressed: decompressed(&inner.config),
            ..inner.lookup.context(keys, trust.clone(), action.revocation, now).with_legacy(inner.config.legacy)
        };
        let one = inner.open(own, context, (&came.log_id, &recipient.mailbox)).await?;
        inner.metrics.verdicts.one(one.verdict.result);
        inner.metrics.opened.one(if one.verdict.decrypted { Decrypted::Yes } else { Decrypted::No });
        left = left.saturating_sub(one.operations);
        let released = came.released.get(at).copied().unwrap_or(false);
        if let Some(why) = quarantines(&action.quarantine, &one.verdict).filter(|_| !released) {
            quarantined.push((at, why));
            continue;
        }
        let how = (action.strip_signature, !one.is_addressed_to(&recipient.mailbox));
        match opened.iter_mut().find(|(other, others, _)| *others == how && same(other, &one)) {
            Some((.., recipients)) => recipients.push(at),
            None => opened.push((one, how, vec![at])),
        }
    }
    // What is not good enough for one recipient is nothing to learn from.
    if quarantined.is_empty() {
        inner.harvest(&entity, opened.iter().map(|(opened, ..)| &**opened), now);
    }
    let outputs = opened.into_iter().map(|(opened, (strip, elsewhere), recipients)| {
        tracing::info!(target: "waxwing::opened", recipients = recipients.len(), result = ?opened.verdict.result, reason = opened.verdict.reason, decrypted = opened.verdict.decrypted, "opened");
        (recipients, inner.marked(&entity, &opened, strip, elsewhere, kept.clone()))
    });
    Ok(OpenedMail { parts: outputs.collect(), quarantined })
}

fn same(one: &Opened, other: &Opened) -> bool {
    one.cek_digests == other.cek_digests && one.verdict.result == other.verdict.result && one.message == other.message
}

/// Opens until a key is asked for; `None`: one is.
pub(super) fn probe(entity: &Entity, context: OpenContext) -> Option<Box<Opened>> {
    match Opener::new(entity.clone(), context, substitute).step(None) {
        Step::Key(_) => None,
        Step::Done(opened) => Some(opened),
    }
}

/// What comes out of compressed data may be as big as a message (A12).
pub(super) fn decompressed(config: &Config) -> usize {
    usize::try_from(config.limits.message_size).unwrap_or(usize::MAX)
}

pub(super) fn inbound_facts<'m>(message: &'m Message, from: Option<&'m Mailbox>, legacy: Legacy) -> MessageFacts<'m> {
    let limits = MimeLimits::default();
    let signed = is_signed_message(&message.entity, &limits);
    let encrypted = envelope(&message.entity, &limits, legacy).is_some();
    MessageFacts { trusted: false, ..message.facts(Direction::Inbound, from, signed, encrypted) }
}

fn classify(classes: &mut Vec<Class>, action: &Action, at: usize) {
    let (pass, revocation, strip_signature) = (action.pass, action.revocation, action.strip_signature);
    let alike = |class: &&mut Class| {
        (class.pass, class.revocation, class.strip_signature) == (pass, revocation, strip_signature)
            && class.quarantine == action.quarantine
    };
    match classes.iter_mut().find(alike) {
        Some(class) => class.recipients.push(at),
        None => {
            let quarantine = action.quarantine.clone();
            classes.push(Class {
                pass,
                revocation,
                strip_signature,
                quarantine,
                elsewhere: false,
                recipients: vec![at],
            });
        }
    }
}

/// 32 random octets, drawn before each private operation (A3).
fn substitute() -> Cek {
    let mut octets = Zeroizing::new(vec![0; 32]);
    // Without randomness nothing may be opened: an empty substitute opens nothing.
    if rand::fill(&mut octets).is_err() {
        octets.clear();
    }
    octets
}

fn unreadable(error: StoreError) -> Refusal {
    tracing::error!(%error, "the store cannot be read");
    Refusal::Store
}

//! What the gateway would do with a mail, and why, without doing it. It asks what the gateway asks.

mod outcome;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::decide::{Decision, Seen, incoming, refusal};
use super::facts::Lookup;
use super::inbound::{decompressed, inbound_facts, probe};
use super::outbound::{describe, shared_ciphers};
use super::{Accepted, Message, believes_dane};
use crate::address::{Mailbox, ReversePath};
use crate::config::{Config, Direction, Listener};
use crate::discovery::sources::Discovery;
use crate::mime::entity::Entity;
use crate::policy::{Considered, EncryptMode, Facts, Known, MaySign, Rule, SignMode, Treatment, quarantines};
use crate::relay::listen::Peer;
use crate::relay::refusal::Refusal;
use crate::relay::route;
use crate::smime::open::{OpenContext, OwnKey};
use crate::smtp::command::{MailParameters, RcptParameters, Recipient, Reply};
use crate::store::CertStore;

pub use outcome::{Outcome, Weaker};

/// A mail that might come.
pub struct Question {
    /// Where it comes in; `None`: the first listener that takes it.
    pub listener: Option<String>,
    /// Who brings it; `None`: one whom the listener trusts where there is such a one and the sender's domain is ours.
    pub peer: Option<IpAddr>,
    pub reverse_path: ReversePath,
    pub recipients: Vec<Mailbox>,
    pub entity: Entity,
    /// When.
    pub at: Timestamp,
}

/// What would become of it.
pub struct Explanation {
    /// The listener it was taken to come in at.
    pub listener: String,
    pub peer: IpAddr,
    /// The listener trusts the peer.
    pub trusted: bool,
    /// In the order asked.
    pub recipients: Vec<Explained>,
    /// One reply to the final dot for all (SMTP), or one for each (LMTP).
    pub one_reply: bool,
}

/// What would become of one recipient's mail.
pub struct Explained {
    pub recipient: Mailbox,
    /// `None`: refused at RCPT.
    pub direction: Option<Direction>,
    /// The rule that matched.
    pub rule: Option<String>,
    /// He would get it now.
    pub served: bool,
    /// What would be done, to compare.
    pub outcome: Outcome,
    /// The same in words.
    pub treatment: String,
    /// The reply that refuses it.
    pub reply: Option<Reply>,
    /// Why nothing was looked up, or nothing found.
    pub notes: Vec<String>,
    /// Every certificate that was looked at.
    pub considered: Vec<Considered>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no such listener.
    #[error("there is no listener {0:?}; the configuration has: {1}")]
    NoListener(String, String),
    /// The store cannot be read.
    #[error("the certificate store cannot be read: {0}")]
    Store(String),
}

/// A gateway that is asked and does nothing: its configuration, and its store with the paths found in it.
pub struct Explainer<'c> {
    config: &'c Config,
    lookup: Lookup,
    sources: Discovery,
    /// Sources are asked.
    asks: bool,
}

impl<'c> Explainer<'c> {
    /// Of this configuration and store.
    pub fn new(config: &'c Config, store: Arc<dyn CertStore>) -> Self {
        let sources = Discovery::without_storing(config, store.clone());
        let lookup = Lookup::new(store, config.fetch, &config.certificates, believes_dane(config));
        Self { config, lookup, sources, asks: false }
    }

    /// The same, which asks the sources of certificates as the gateway would. What they bring is not stored.
    pub fn asking_sources(self) -> Self {
        Self { asks: true, ..self }
    }

    /// What the gateway would do.
    pub async fn explain(&self, question: Question) -> Result<Explanation, ExplainError> {
        let (config, lookup) = (self.config, &self.lookup);
        let arrived = Arc::new(arrived(config, &question)?);
        let inadmissible = inadmissible(config, &question.entity);
        let directions: Vec<_> = question
            .recipients
            .iter()
            .map(|recipient| route::direction(config, &arrived, recipient))
            .map(|direction| inadmissible.clone().map_or(direction, Err))
            .collect();
        let accepted = question.recipients.iter().zip(&directions).filter_map(|(mailbox, direction)| {
            let recipient = Recipient { mailbox: mailbox.clone(), parameters: RcptParameters::default() };
            Some(Accepted { recipient, direction: *direction.as_ref().ok()? })
        });
        let message = Message {
            id: String::new(),
            peer: arrived.clone(),
            reverse_path: question.reverse_path,
            parameters: MailParameters::default(),
            recipients: accepted.collect(),
            entity: question.entity,
            at: question.at,
            began: Instant::now(),
            again: false,
            authentication: String::new(),
        };
        let asking = Asking { config, lookup, message: &message };
        let mut seen = Seen::new(&message, &config.policy, lookup, &self.sources)
            .map_err(|error| ExplainError::Store(format!("{error:?}")))?;
        let asked = Timestamp::now();
        let goes_out = |to: &Result<Direction, Refusal>| *to == Ok(Direction::Outbound);
        for (recipient, _) in question.recipients.iter().zip(&directions).filter(|(_, to)| goes_out(to)) {
            let _ = seen.decide(recipient);
        }
        let misses = std::mem::take(&mut seen.misses);
        if self.asks && !misses.is_empty() {
            seen.told = self.sources.look_up(misses).await;
            for (recipient, _) in question.recipients.iter().zip(&directions).filter(|(_, to)| goes_out(to)) {
                let _ = seen.decide(recipient);
            }
        }
        // What the gateway would fetch is fetched: the answer is the same.
        lookup.fetcher().fetch(std::mem::take(&mut seen.needs), asked).await;
        seen.look_again();
        let going = question.recipients.iter().enumerate().zip(&directions);
        let going = going.filter(|(_, to)| **to == Ok(Direction::Outbound)).map(|(at, _)| at);
        let shared = shared_ciphers(&mut seen, &going.collect::<Vec<(usize, &Mailbox)>>());
        let mut recipients = Vec::new();
        for (recipient, direction) in question.recipients.iter().zip(directions) {
            recipients.push(match direction {
                Err(why) => asking.denied(recipient, &why),
                Ok(Direction::Outbound) => asking.outbound(&mut seen, recipient),
                Ok(direction) => asking.inbound(recipient, direction).await?,
            });
        }
        for (at, content) in shared {
            let other = |one: &&mut Explained| !one.treatment.contains(content.name());
            if let Some(one) = recipients.get_mut(at).filter(other) {
                one.notes
                    .push(format!("in one copy with others, with {}: the best that all of them read", content.name()));
            }
        }
        let listener = &arrived.listener;
        Ok(Explanation {
            listener: listener.name.clone(),
            peer: arrived.address.ip(),
            trusted: arrived.trusted,
            recipients,
            one_reply: !listener.lmtp,
        })
    }
}

/// Why no rule is asked at all.
fn inadmissible(config: &Config, entity: &Entity) -> Option<Refusal> {
    let limit = config.limits.message_size;
    if entity.raw.len() as u64 > limit {
        return Some(Refusal::TooLarge { limit });
    }
    let (found, limit) = (entity.header.all("Received").count(), config.limits.received_fields);
    (found > limit).then_some(Refusal::TooManyHops { found, limit })
}

/// Who the mail is taken to come from, and where.
fn arrived(config: &Config, question: &Question) -> Result<Peer, ExplainError> {
    let ours = match &question.reverse_path {
        ReversePath::Mailbox(mailbox) => config.domains.contains(mailbox.domain()),
        ReversePath::Null => false,
    };
    let at = |listener: &Listener| {
        let one_of_us = listener.trusted_networks.first().map(|network| network.addr()).filter(|_| ours);
        // RFC 5737: an address of nobody.
        let address = question.peer.or(one_of_us).unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
        Peer {
            address: SocketAddr::new(address, 0),
            helo: String::new(),
            extended: true,
            tls: false,
            listener: Arc::new(listener.clone()),
            trusted: listener.trusts(address),
            user: None,
            sends_as: Arc::default(),
            certified: true,
        }
    };
    let takes =
        |peer: &Peer| question.recipients.iter().all(|recipient| route::direction(config, peer, recipient).is_ok());
    let all = || config.listeners.iter();
    let found = match &question.listener {
        Some(name) => all().find(|listener| listener.name == *name).map(at),
        None => all().map(at).find(takes).or(all().next().map(at)),
    };
    let names = || all().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| ExplainError::NoListener(question.listener.clone().unwrap_or_default(), names()))
}

/// What is asked of whom.
struct Asking<'a> {
    config: &'a Config,
    lookup: &'a Lookup,
    message: &'a Message,
}

impl Asking<'_> {
    fn denied(&self, recipient: &Mailbox, why: &Refusal) -> Explained {
        Explained {
            recipient: recipient.clone(),
            direction: None,
            rule: None,
            served: false,
            outcome: Outcome::Denied,
            treatment: "refused before any rule".into(),
            reply: Some(why.reply()),
            notes: Vec::new(),
            considered: Vec::new(),
        }
    }

    fn outbound(&self, seen: &mut Seen<'_>, recipient: &Mailbox) -> Explained {
        let (rule, decision) = seen.decide(recipient);
        let explained = |outcome: Outcome, treatment: String| Explained {
            recipient: recipient.clone(),
            direction: Some(Direction::Outbound),
            rule: Some(rule.name.clone()),
            served: true,
            outcome,
            treatment,
            reply: None,
            notes: Vec::new(),
            considered: Vec::new(),
        };
        let (resolution, facts) = match decision {
            Decision::Resolved(resolution, facts) => (resolution, facts),
            Decision::Encrypted(proof) => {
                let how = format!("passed on: it came encrypted for each recipient, with {}", proof.content().name());
                return explained(Outcome::EncryptedBefore, how);
            }
        };
        let reply = refusal(&resolution, &facts, recipient).map(|why| Refusal::Unserved(vec![why]).reply());
        let mut treatment = describe(&resolution.treatment);
        match &resolution.treatment {
            Treatment::Hold { text } => treatment = format!("{treatment}: {text}"),
            Treatment::Protect(plan) if seen.is_alone(recipient, plan) => {
                treatment.push_str(", in a copy of his own (Bcc)")
            }
            _ => {}
        }
        let served = matches!(resolution.treatment, Treatment::Clear(_) | Treatment::Protect(_));
        let mut notes = notes(rule, &facts, recipient);
        match seen.told.get(&recipient.key()) {
            Some(told) => notes.extend(told.notes.iter().map(|note| format!("source {note}"))),
            None if seen.misses.contains(recipient) => {
                notes.push("its sources were not asked: add --discover to ask them".into())
            }
            None => {}
        }
        Explained {
            served,
            reply,
            notes,
            considered: resolution.considered,
            ..explained(Outcome::of(&resolution.treatment), treatment)
        }
    }

    async fn inbound(&self, recipient: &Mailbox, direction: Direction) -> Result<Explained, ExplainError> {
        let unreadable = |error: crate::store::StoreError| ExplainError::Store(error.to_string());
        let from = self.message.entity.header.single_from().ok();
        let facts = inbound_facts(self.message, from.as_ref(), self.config.legacy);
        let (rule, keys) = incoming(&self.config.policy, self.lookup, &facts, recipient).map_err(unreadable)?;
        let mut explained = Explained {
            recipient: recipient.clone(),
            direction: Some(direction),
            rule: Some(rule.name.clone()),
            served: true,
            outcome: Outcome::Passed,
            treatment: "handed on as it is, without forged marks".into(),
            reply: None,
            notes: Vec::new(),
            considered: Vec::new(),
        };
        let keys = match keys {
            Ok(keys) => keys,
            Err(why) => {
                (explained.served, explained.treatment) = (false, "refused".into());
                explained.outcome = if why.transient { Outcome::Deferred } else { Outcome::Refused };
                explained.reply = Some(Refusal::Unserved(vec![why]).reply());
                return Ok(explained);
            }
        };
        if rule.action.pass {
            return Ok(explained);
        }
        let trust = self.lookup.trust().map_err(unreadable)?;
        let operations = self.config.limits.key_operations;
        let (demand, legacy) = (rule.action.revocation, self.config.legacy);
        let context = |keys| OpenContext {
            operations,
            decompressed: decompressed(self.config),
            ..self.lookup.context(keys, trust.clone(), demand, self.message.at).with_legacy(legacy)
        };
        let opened = |keys: Vec<OwnKey>| probe(&self.message.entity, context(keys));
        explained.considered = keys.iter().map(|own| considered(own, opened(vec![own.clone()]).is_none())).collect();
        if facts.encrypted && rule.action.decrypt && keys.is_empty() {
            explained.notes.push(format!("no private key of <{recipient}> is in the store"));
        }
        if !rule.action.decrypt {
            explained.notes.push("the rule does not decrypt".into());
        }
        let asked = Timestamp::now();
        let mut found = opened(keys.clone());
        if let Some(needs) = found.as_mut().map(|opened| std::mem::take(&mut opened.needs))
            && self.lookup.fetcher().fetch(needs, asked).await
        {
            found = opened(keys);
        }
        if let Some(why) = found.as_ref().and_then(|opened| quarantines(&rule.action.quarantine, &opened.verdict)) {
            (explained.served, explained.outcome, explained.treatment) = (false, Outcome::Held, why);
            return Ok(explained);
        }
        (explained.outcome, explained.treatment) = match found {
            None => (Outcome::Opened, "opened with his own keys when it is handed over, verified and marked".into()),
            Some(opened) => {
                let verdict = &opened.verdict;
                (Outcome::Judged(verdict.result), format!("marked {}: {}", verdict.result, verdict.reason))
            }
        };
        Ok(explained)
    }
}

fn considered(own: &OwnKey, asked_for: bool) -> Considered {
    Considered {
        role: "own key",
        certificate: own.certificate.clone(),
        trust: None,
        origin: String::new(),
        reads: None,
        outcome: if asked_for { Ok(()) } else { Err("the mail is not encrypted to it".into()) },
    }
}

/// Why no certificate was looked at, or none was found.
fn notes(rule: &Rule, facts: &Facts, recipient: &Mailbox) -> Vec<String> {
    let mut notes = Vec::new();
    if rule.action.reject.is_some() || rule.action.pass {
        return notes;
    }
    match (&facts.may_sign, &*facts.signer) {
        (MaySign::No(why) | MaySign::NotNeeded(why), _) => notes.push(format!("not signed: {why}")),
        (MaySign::Yes, Known::Disabled) => notes.push("not signed: the author is disabled in the store".into()),
        (MaySign::Yes, Known::Candidates(none)) if none.is_empty() && rule.action.sign != SignMode::Never => {
            notes.push("not signed: no signing key of the author is in the store".into());
        }
        (MaySign::Yes, Known::Unknown(why)) => notes.push(format!("not signed: {why}")),
        (MaySign::Yes, Known::Candidates(_)) => {}
    }
    match &facts.recipient {
        _ if rule.action.encrypt == EncryptMode::Never => notes.push("not encrypted: the rule does not encrypt".into()),
        Known::Disabled => notes.push(format!("not encrypted: <{recipient}> is disabled in the store")),
        Known::Unknown(why) => notes.push(format!("not encrypted: {why}")),
        Known::Candidates(none) if none.is_empty() => {
            notes.push(format!("not encrypted: no certificate of <{recipient}> is in the store"))
        }
        Known::Candidates(_) => {}
    }
    notes
}

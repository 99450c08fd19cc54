//! What policy means for one recipient: one place for the gateway and for those who explain it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::facts::{Lookup, StrictlyEncrypted};
use super::inbound::probe;
use super::{Message, shown};
use crate::address::{Mailbox, MailboxKey, ReversePath};
use crate::config::Direction;
use crate::discovery::sources::{Discovery, Told};
use crate::mime::entity::MimeLimits;
use crate::pki::revocation::{Demand, Need};
use crate::policy::{
    Bcc, EncryptMode, Facts, Known, MaySign, MessageFacts, Plan, Policy, Profile, Resolution, Rule, SignMode, SignWith,
    Treatment, may_encrypt, resolve, select,
};
use crate::relay::refusal::{Refusal, Unserved};
use crate::smime::open::{OpenContext, OwnKey};
use crate::smime::seal::is_signed_message;
use crate::smime::verdict::Layer;
use crate::store::StoreError;

/// What all recipients of one outbound message share.
pub(super) struct Seen<'m> {
    pub(super) from: Result<Mailbox, String>,
    pub(super) now: Timestamp,
    signed: bool,
    encrypted: Option<StrictlyEncrypted>,
    shown: HashSet<MailboxKey>,
    message: &'m Message,
    policy: &'m Policy,
    lookup: &'m Lookup,
    /// Looked up and judged once for each way to sign, when the first rule asks.
    signers: Vec<(SignWith, Demand, Arc<Known>)>,
    /// What would tell more of certificates that may be revoked.
    pub(super) needs: Vec<Need>,
    sources: &'m Discovery,
    /// Recipients without a certificate that may be used, whom a source may know and was not asked of.
    pub(super) misses: Vec<Mailbox>,
    /// What sources said of those.
    pub(super) told: HashMap<MailboxKey, Arc<Told>>,
    /// Whether the signature that it came with holds; checked when a rule asks.
    holds: Option<bool>,
}

/// What becomes of one recipient's outbound mail.
#[expect(
    clippy::large_enum_variant,
    reason = "made and taken apart at once; a box would be an allocation per recipient"
)]
pub(super) enum Decision {
    /// It came encrypted for all its recipients, and the rule lets it pass (A32).
    Encrypted(StrictlyEncrypted),
    /// What the rule means with these facts.
    Resolved(Resolution, Facts),
}

impl<'m> Seen<'m> {
    pub(super) fn new(
        message: &'m Message,
        policy: &'m Policy,
        lookup: &'m Lookup,
        sources: &'m Discovery,
    ) -> Result<Self, Refusal> {
        let mailboxes: Vec<&Mailbox> = message.recipients.iter().map(|accepted| &accepted.recipient.mailbox).collect();
        Ok(Self {
            from: message.entity.header.single_from().map_err(|error| error.to_string()),
            now: message.at,
            signed: is_signed_message(&message.entity, &MimeLimits::default()),
            encrypted: lookup.strictly_encrypted(&message.entity, &mailboxes)?,
            shown: shown(&message.entity),
            message,
            policy,
            lookup,
            signers: Vec::new(),
            needs: Vec::new(),
            sources,
            misses: Vec::new(),
            told: HashMap::new(),
            holds: None,
        })
    }

    /// What was found out since is looked at from now on.
    pub(super) fn look_again(&mut self) {
        self.signers.clear();
    }

    /// The rule for one recipient, and what it means.
    pub(super) fn decide(&mut self, mailbox: &Mailbox) -> (&'m Rule, Decision) {
        let facts =
            self.message.facts(Direction::Outbound, self.from.as_ref().ok(), self.signed, self.encrypted.is_some());
        let rule = select(self.policy, &facts, mailbox);
        if let Some(proof) = self.encrypted.filter(|proof| passes_encrypted(self.policy, rule, *proof)) {
            return (rule, Decision::Encrypted(proof));
        }
        let facts = self.facts(rule, mailbox);
        (rule, Decision::Resolved(resolve(self.policy, rule, &facts, self.now), facts))
    }

    /// Whether this recipient, whom the header does not show, gets a copy that is encrypted to him alone.
    pub(super) fn is_alone(&self, mailbox: &Mailbox, plan: &Plan) -> bool {
        !self.shown.contains(&mailbox.key()) && plan.bcc == Bcc::Separate && plan.encrypt.is_some()
    }

    /// Whether the signature that the message came with fits what it signs; whose it is does not matter here.
    fn signature_holds(&mut self) -> bool {
        *self.holds.get_or_insert_with(|| {
            let trust = self.lookup.trust().unwrap_or_default();
            let context = OpenContext { operations: 0, ..OpenContext::new(Vec::new(), trust, self.now) };
            let opened = probe(&self.message.entity, context);
            opened.is_some_and(|opened| match opened.verdict.layers.first() {
                Some(Layer::Signed { signers, .. }) => signers.iter().any(|signer| signer.signature.is_ok()),
                _ => false,
            })
        })
    }

    /// Only what the rule needs.
    fn facts(&mut self, rule: &Rule, mailbox: &Mailbox) -> Facts {
        let (action, lookup, now) = (&rule.action, self.lookup, self.now);
        let none = || Known::Candidates(Vec::new());
        let may_sign = if action.sign == SignMode::Never {
            MaySign::NotNeeded("the rule does not sign".into())
        } else {
            let from = self.from.as_ref().map_err(String::as_str);
            let reverse_path = &self.message.reverse_path;
            match lookup.may_sign(&self.message.peer, reverse_path, from, self.signed) {
                // In name only: nothing here makes it good, and unsigned it may not leave.
                MaySign::NotNeeded(_)
                    if self.signed
                        && action.sign == SignMode::Require
                        && *reverse_path != ReversePath::Null
                        && !self.signature_holds() =>
                {
                    MaySign::No("the signature it carries does not verify".into())
                }
                may_sign => may_sign,
            }
        };
        let needs = &mut self.needs;
        // Our own certificate need not be proven: a revoked one is not used.
        let own = if action.revocation == Demand::Off { Demand::Off } else { Demand::Prefer };
        let signer = match (&may_sign, &self.from) {
            (MaySign::Yes, Ok(from)) => {
                let with = action.sign_with;
                match self.signers.iter().find(|(ways, demand, _)| (*ways, *demand) == (with, own)) {
                    Some((.., known)) => known.clone(),
                    None => {
                        let known = Arc::new(lookup.unrevoked(lookup.signer(from, with, now), own, now, needs));
                        self.signers.push((with, own, known.clone()));
                        known
                    }
                }
            }
            _ => Arc::new(none()),
        };
        let recipient = if action.encrypt == EncryptMode::Never || action.pass || action.reject.is_some() {
            none()
        } else {
            let known = lookup.recipient(mailbox, action.domain_key, now);
            let known = self.beside_sources(known, action.domain_key, mailbox);
            lookup.unrevoked(known, action.revocation, now, &mut self.needs)
        };
        Facts { signer, may_sign, recipient }
    }
}

impl Seen<'_> {
    /// What is stored of a recipient, and where none of it may be used, what sources told of him. Until all that may know him have answered, it
    /// is not known that there is nothing.
    fn beside_sources(&mut self, known: Known, domain_key: bool, mailbox: &Mailbox) -> Known {
        let Known::Candidates(mut candidates) = known else { return known };
        if may_encrypt(&candidates, domain_key, self.now) || !self.sources.knows(mailbox) {
            return Known::Candidates(candidates);
        }
        let Some(told) = self.told.get(&mailbox.key()) else {
            self.misses.push(mailbox.clone());
            return Known::Unknown("the sources that may know the recipient were not asked".into());
        };
        let more = self.lookup.told(told, mailbox, self.now);
        candidates.extend(
            more.into_iter()
                .filter(|one| !candidates.iter().any(|known| known.certificate == one.certificate))
                .collect::<Vec<_>>(),
        );
        match &told.unanswered {
            Some(why) if !may_encrypt(&candidates, domain_key, self.now) => Known::Unknown(why.clone()),
            _ => Known::Candidates(candidates),
        }
    }
}

/// A mail that came encrypted passes where the rule's profile allows its cipher and no rule refuses it.
fn passes_encrypted(policy: &Policy, rule: &Rule, proof: StrictlyEncrypted) -> bool {
    let name = if rule.action.profile.is_empty() { "compatible" } else { rule.action.profile.as_str() };
    let profile = policy.profiles.get(name).cloned().or_else(|| Profile::builtin(name));
    rule.action.reject.is_none() && profile.is_some_and(|profile| profile.content.contains(&proof.content()))
}

/// The rule for one recipient whose mail comes in, and the keys that may open it (none where the rule opens nothing); or why he
/// gets no mail.
pub(super) fn incoming<'p>(
    policy: &'p Policy,
    lookup: &Lookup,
    facts: &MessageFacts<'_>,
    mailbox: &Mailbox,
) -> Result<(&'p Rule, Result<Vec<OwnKey>, Unserved>), StoreError> {
    let rule = select(policy, facts, mailbox);
    let action = &rule.action;
    if let Some(text) = &action.reject {
        let text = format!("{text} [rule {}]", rule.name);
        return Ok((rule, Err(Unserved { recipient: mailbox.clone(), transient: false, enhanced: (5, 7, 1), text })));
    }
    let opens = action.decrypt && !action.pass;
    let keys = if opens { lookup.own_keys(mailbox, action.domain_key)? } else { Vec::new() };
    Ok((rule, Ok(keys)))
}

/// Why a recipient cannot be served, and what mends it; `None`: he can.
pub(super) fn refusal(resolution: &Resolution, facts: &Facts, mailbox: &Mailbox) -> Option<Unserved> {
    let Treatment::Refuse { transient, enhanced, text } = &resolution.treatment else { return None };
    let text = format!("{text} [rule {}]{}", resolution.rule, mend(facts, mailbox));
    Some(Unserved { recipient: mailbox.clone(), transient: *transient, enhanced: *enhanced, text })
}

/// The command that mends a refusal, where one does.
fn mend(facts: &Facts, mailbox: &Mailbox) -> String {
    match &facts.recipient {
        Known::Candidates(list) if list.is_empty() => {
            format!("; mend it with: waxwing cert import --address {mailbox} FILE")
        }
        Known::Candidates(_) => format!("; look with: waxwing cert list {mailbox}"),
        Known::Disabled | Known::Unknown(_) => String::new(),
    }
}

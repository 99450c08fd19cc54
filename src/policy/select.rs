//! Which rule holds: first match wins.

use super::{DECRYPTED_THREAD, Match, MessageFacts, Pattern, Policy, Rule};
use crate::address::{Mailbox, ReversePath};

/// The first rule that matches, else the default.
pub fn select<'p>(policy: &'p Policy, facts: &MessageFacts<'_>, recipient: &Mailbox) -> &'p Rule {
    policy.rules.iter().find(|rule| rule.matches.holds(facts, recipient)).unwrap_or(&policy.default)
}

impl Match {
    /// Whether every condition given holds.
    pub fn holds(&self, facts: &MessageFacts<'_>, recipient: &Mailbox) -> bool {
        self.direction.is_none_or(|direction| direction == facts.direction)
            && self.larger_than.is_none_or(|size| facts.size > size)
            && self.signed.is_none_or(|signed| signed == facts.signed)
            && self.encrypted.is_none_or(|encrypted| encrypted == facts.encrypted)
            && self.replies_to_decrypted.is_none_or(|wanted| wanted == replies_to_decrypted(facts))
            && any_or_empty(&self.listener, |name| name == facts.listener)
            && any_or_empty(&self.user, |user| facts.user.is_some_and(|name| glob(user, name)))
            && any_or_empty(&self.recipient, |pattern| pattern.matches(recipient))
            && any_or_empty(&self.sender, |pattern| pattern.matches_sender(facts))
            && self
                .header
                .as_ref()
                .is_none_or(|(name, value)| facts.header.all(name).any(|field| glob(value, &field.decoded())))
            && self.subject_keyword.as_ref().is_none_or(|keyword| has_keyword(facts, keyword))
    }
}

fn any_or_empty<T>(list: &[T], holds: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(holds)
}

fn replies_to_decrypted(facts: &MessageFacts<'_>) -> bool {
    let mut named = ["References", "In-Reply-To"].into_iter().flat_map(|name| facts.header.all(name));
    named.any(|field| field.value().contains(DECRYPTED_THREAD))
}

/// Only trusted senders may steer policy by words in the Subject.
fn has_keyword(facts: &MessageFacts<'_>, keyword: &str) -> bool {
    let keyword = keyword.to_lowercase();
    facts.trusted
        && !keyword.is_empty()
        && facts.header.all("Subject").any(|field| field.decoded().to_lowercase().contains(&keyword))
}

impl Pattern {
    /// Whether it names this mailbox. ASCII case does not count; no Unicode folding (A22).
    pub fn matches(&self, mailbox: &Mailbox) -> bool {
        let (local, domain) = match self.0.rsplit_once('@') {
            Some(("", domain)) => ("*", domain),
            Some(parts) => parts,
            None if self.0 == "*" => ("*", "*"),
            None => ("*", self.0.as_str()),
        };
        glob(local, mailbox.local()) && glob(domain, mailbox.domain().as_str())
    }

    /// Whether it names the sender: the reverse-path or the single From.
    fn matches_sender(&self, facts: &MessageFacts<'_>) -> bool {
        let envelope = match facts.reverse_path {
            ReversePath::Null => self.0 == "<>",
            ReversePath::Mailbox(mailbox) => self.matches(mailbox),
        };
        envelope || facts.from.is_some_and(|from| self.matches(from))
    }
}

/// `*` stands for any run of characters, none too; ASCII case does not count. Linear in text times stars.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern.eq_ignore_ascii_case(text);
    };
    let Some(mut text) = strip_prefix(text.as_bytes(), first.as_bytes()) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match find(text, piece.as_bytes()) {
            Some(after) => text = after,
            None => return false,
        }
    }
    text.len()
        .checked_sub(last.len())
        .and_then(|at| text.get(at..))
        .is_some_and(|end| end.eq_ignore_ascii_case(last.as_bytes()))
}

fn strip_prefix<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// What follows the first place where `piece` stands.
fn find<'t>(text: &'t [u8], piece: &[u8]) -> Option<&'t [u8]> {
    if piece.is_empty() {
        return Some(text);
    }
    let at = text.windows(piece.len()).position(|window| window.eq_ignore_ascii_case(piece))?;
    text.get(at.checked_add(piece.len())?..)
}

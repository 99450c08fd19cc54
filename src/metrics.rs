//! Numbers of a gateway at work: counted by atomics on the way of mail, written in the text format of Prometheus when somebody asks.
//!
//! Labels are words of ours, names of rules, listeners, sources and next hops of the configuration: never an address, a domain or anything
//! else that mail brings. The names stand in `docs/operation.md`.

/// The listener: `/metrics`, `/healthz`, `/readyz`.
pub mod server;
/// The text exposition format, version 0.0.4.
pub mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use self::text::{Kind, Text};
use crate::authentication::results::{Finding, Method, Outcome};
use crate::config::Direction;
use crate::discovery::sources::Told;
use crate::keys::KeyOperation;
use crate::smime::verdict::SmimeResult;

/// Names that configurations may bring in the life of a process; those beyond are counted as `other`.
const NAMES: usize = 1_000;
/// Under this name.
const OTHER: &str = "other";

/// Grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of latencies, in microseconds.
const BOUNDS: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    15_000_000, 60_000_000,
];

/// Latencies.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Each its own; the last holds what is beyond all bounds.
    buckets: [Counter; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// Takes one in.
    pub fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(at) {
            bucket.one();
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn write(&self, text: &mut Text, name: &str, label: (&str, &str)) {
        let mut sum = 0u64;
        let bounds = BOUNDS.iter().map(|micros| format!("{}", *micros as f64 / 1e6)).chain(["+Inf".to_owned()]);
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            sum = sum.saturating_add(bucket.get());
            text.sample(&format!("{name}_bucket"), &[label, ("le", &bound)], sum as f64);
        }
        text.sample(&format!("{name}_sum"), &[label], self.micros.load(Ordering::Relaxed) as f64 / 1e6);
        text.sample(&format!("{name}_count"), &[label], sum as f64);
    }
}

/// Words of a label, and what is counted by them.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$one:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$one])* $variant),+ }

        impl $name {
            /// In the order of their numbers.
            const ALL: &[$name] = &[$($name::$variant),+];
            /// How many there are.
            const COUNT: usize = $name::ALL.len();
            /// The label's value.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// A step whose time is taken.
    Stage {
        /// Own work on a mail: policy, signing, sealing, judging; with what it waits for within.
        Treat = "treat",
        /// From there to the answer to the final dot.
        HandOver = "hand_over",
        /// From the final dot to its answer.
        Total = "total",
        /// One operation with a private key.
        Key = "key",
        /// Waiting for CRLs and OCSP responses.
        Fetch = "fetch",
        /// Waiting for directories and the DNS.
        Discover = "discover",
        /// Opening a spooled mail for all who wait for it.
        Open = "open",
        /// Asking the DNS who sent a mail.
        Authenticate = "authenticate",
    }
}

words! {
    /// Which way a mail goes.
    Way {
        Outbound = "outbound",
        Inbound = "inbound",
        /// To some recipients one way, to others the other.
        Both = "both",
    }
}

words! {
    /// What became of a mail whose content came.
    Fate {
        /// The next hop took it while the client waited.
        Relayed = "relayed",
        /// It is in the spool, whole or in part.
        Spooled = "spooled",
        /// 4xx.
        Deferred = "deferred",
        /// 5xx.
        Rejected = "rejected",
        /// The connection was closed in place of an answer.
        Closed = "closed",
    }
}

words! {
    /// What a rule made of a recipient's mail.
    Ruled {
        Signed = "signed",
        Encrypted = "encrypted",
        SignedEncrypted = "signed_encrypted",
        /// A rule says that it may leave as it is.
        Clear = "clear",
        /// It was encrypted for him before it came.
        EncryptedBefore = "encrypted_before",
        Held = "held",
        /// 4xx for him.
        Deferred = "deferred",
        /// 5xx for him.
        Refused = "refused",
        /// Inbound: verified and marked.
        Judged = "judged",
        /// Inbound: a private key of his is tried when it is handed over.
        ToBeOpened = "to_be_opened",
    }
}

words! {
    /// Whose mail is limited in a time.
    Whose { Client = "client", User = "user" }
}

words! {
    /// What of it is limited.
    Metered { Mails = "mails", Recipients = "recipients" }
}

words! {
    /// What became of our domain's word (DKIM) for an outbound mail.
    Vouched {
        /// One output was signed.
        Signed = "signed",
        /// No key is configured for the domain of its author.
        Unsigned = "unsigned",
        /// Somebody of the author's domain signed before us, and sealing changed what he signed.
        Broken = "broken",
    }
}

words! {
    /// An operation with a private key.
    KeyUse { Sign = "sign", Unwrap = "unwrap", Agree = "agree", Decapsulate = "decapsulate" }
}

impl KeyUse {
    /// Which one this is.
    pub fn of(operation: &KeyOperation) -> Self {
        match operation {
            KeyOperation::Sign { .. } => Self::Sign,
            KeyOperation::Unwrap { .. } => Self::Unwrap,
            KeyOperation::Agree { .. } => Self::Agree,
            KeyOperation::Decapsulate { .. } => Self::Decapsulate,
        }
    }
}

words! {
    /// What was asked of the world.
    Asked {
        /// Something new came.
        New = "new",
        /// Nothing new came, or not in time.
        Nothing = "nothing",
        /// It is not known: somebody did not answer.
        Unanswered = "unanswered",
        /// Certificates came that may not be used.
        Unusable = "unusable",
    }
}

impl Asked {
    /// What the sources of a mailbox came to.
    pub fn of(told: &Told) -> Self {
        match told {
            Told { unanswered: Some(_), .. } => Self::Unanswered,
            Told { unusable, .. } if !unusable.is_empty() => Self::Unusable,
            Told { brought: true, .. } => Self::New,
            Told { .. } => Self::Nothing,
        }
    }
}

/// The results of signatures (RFC 8601), in the order they are counted in.
const RESULTS: [SmimeResult; 7] = [
    SmimeResult::None,
    SmimeResult::Pass,
    SmimeResult::Fail,
    SmimeResult::Policy,
    SmimeResult::Neutral,
    SmimeResult::TempError,
    SmimeResult::PermError,
];

impl Way {
    /// Of one recipient.
    pub fn of(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::Outbound,
            Direction::Inbound => Self::Inbound,
            Direction::ByRecipient => Self::Both,
        }
    }

    /// Of a mail with recipients of these directions.
    pub fn of_all(directions: impl Iterator<Item = Direction>) -> Self {
        directions.map(Self::of).reduce(|one, other| if one == other { one } else { Self::Both }).unwrap_or(Self::Both)
    }
}

type ByRule = [[Counter; Ruled::COUNT]; Way::COUNT];

/// All that is counted of mail. One for a gateway, whatever its configuration.
#[derive(Debug, Default)]
pub struct Metrics {
    stages: [Histogram; Stage::COUNT],
    mails: [[Counter; Fate::COUNT]; Way::COUNT],
    octets: [AtomicU64; Way::COUNT],
    rules: RwLock<BTreeMap<String, Arc<ByRule>>>,
    /// MAIL was answered 4xx or 5xx.
    turned_away: [Counter; 2],
    too_fast: [[Counter; Metered::COUNT]; Whose::COUNT],
    keys: [[Counter; 2]; KeyUse::COUNT],
    fetches: [Counter; Asked::COUNT],
    look_ups: [Counter; Asked::COUNT],
    verdicts: [Counter; RESULTS.len()],
    opened: [Counter; 2],
    released: Counter,
    authenticated: [[Counter; Outcome::ALL.len()]; Method::ALL.len()],
    vouched: [Counter; Vouched::COUNT],
}

impl Metrics {
    /// So long did it take.
    pub fn stage(&self, stage: Stage, took: Duration) {
        if let Some(histogram) = self.stages.get(stage as usize) {
            histogram.took(took);
        }
    }

    /// A mail was answered.
    pub fn mail(&self, way: Way, fate: Fate, octets: usize) {
        if let Some(counter) = self.mails.get(way as usize).and_then(|fates| fates.get(fate as usize)) {
            counter.one();
        }
        if let Some(sum) = self.octets.get(way as usize) {
            sum.fetch_add(octets as u64, Ordering::Relaxed);
        }
    }

    /// A rule decided for a recipient.
    pub fn ruled(&self, way: Way, rule: &str, ruled: Ruled) {
        let counters = self.by_rule(rule);
        if let Some(counter) = counters.get(way as usize).and_then(|all| all.get(ruled as usize)) {
            counter.one();
        }
    }

    fn by_rule(&self, rule: &str) -> Arc<ByRule> {
        let known = |rules: &BTreeMap<String, Arc<ByRule>>| {
            let name = if rules.contains_key(rule) || rules.len() < NAMES { rule } else { OTHER };
            rules.get(name).cloned()
        };
        if let Some(counters) = known(&self.rules.read().unwrap_or_else(PoisonError::into_inner)) {
            return counters;
        }
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let name = if rules.contains_key(rule) || rules.len() < NAMES { rule } else { OTHER };
        rules.entry(name.to_owned()).or_default().clone()
    }

    /// No mail was begun: the client was answered 4xx, or 5xx.
    pub fn turned_away(&self, transient: bool) {
        let [defer, refuse] = &self.turned_away;
        if transient { defer.one() } else { refuse.one() }
    }

    /// Somebody brought more than he may in this time.
    pub fn too_fast(&self, whose: Whose, what: Metered) {
        if let Some(counter) = self.too_fast.get(whose as usize).and_then(|all| all.get(what as usize)) {
            counter.one();
        }
    }

    /// A private key was used, or could not be.
    pub fn key(&self, operation: KeyUse, done: bool, took: Duration) {
        self.stage(Stage::Key, took);
        if let Some([good, failed]) = self.keys.get(operation as usize) {
            if done { good.one() } else { failed.one() }
        }
    }

    /// What a mail needs to know of revocation was asked for.
    pub fn fetched(&self, new: bool, took: Duration) {
        self.stage(Stage::Fetch, took);
        let result = if new { Asked::New } else { Asked::Nothing };
        if let Some(counter) = self.fetches.get(result as usize) {
            counter.one();
        }
    }

    /// A mailbox was looked up.
    pub fn looked_up(&self, result: Asked) {
        if let Some(counter) = self.look_ups.get(result as usize) {
            counter.one();
        }
    }

    /// A signature, or its absence, was judged.
    pub fn verdict(&self, result: SmimeResult) {
        let at = RESULTS.iter().position(|one| *one == result);
        if let Some(counter) = at.and_then(|at| self.verdicts.get(at)) {
            counter.one();
        }
    }

    /// A mail was opened for a recipient, or stayed closed.
    pub fn opened(&self, decrypted: bool) {
        let [open, closed] = &self.opened;
        if decrypted { open.one() } else { closed.one() }
    }

    /// A held mail was treated by policy anew.
    pub fn released(&self) {
        self.released.one();
    }

    /// It was found out who sent a mail, or not.
    pub fn authenticated(&self, findings: &[Finding]) {
        for Finding { method, outcome, .. } in findings {
            let by_method = self.authenticated.get(*method as usize);
            if let Some(counter) = by_method.and_then(|all| all.get(*outcome as usize)) {
                counter.one();
            }
        }
    }

    /// Our domain vouched for a mail, or not.
    pub fn vouched(&self, vouched: Vouched) {
        if let Some(counter) = self.vouched.get(vouched as usize) {
            counter.one();
        }
    }

    /// All of it in the text format.
    pub fn write(&self, text: &mut Text) {
        self.write_mails(text);
        let name = "waxwing_stage_seconds";
        text.family(name, Kind::Histogram, "How long the steps of a mail take.");
        for (stage, histogram) in Stage::ALL.iter().zip(&self.stages) {
            histogram.write(text, name, ("stage", stage.word()));
        }
        let name = "waxwing_key_operations_total";
        text.family(name, Kind::Counter, "Operations with private keys.");
        for (operation, [good, failed]) in KeyUse::ALL.iter().zip(&self.keys) {
            text.sample(name, &[("operation", operation.word()), ("outcome", "done")], good.get() as f64);
            text.sample(name, &[("operation", operation.word()), ("outcome", "failed")], failed.get() as f64);
        }
        let name = "waxwing_verdicts_total";
        text.family(name, Kind::Counter, "Signatures of inbound mail by result (RFC 8601).");
        for (result, counter) in RESULTS.iter().zip(&self.verdicts) {
            text.sample(name, &[("result", result.as_str())], counter.get() as f64);
        }
        let name = "waxwing_opened_total";
        text.family(name, Kind::Counter, "Spooled inbound mail by recipient: decrypted, or handed on closed.");
        let [open, closed] = &self.opened;
        text.sample(name, &[("decrypted", "yes")], open.get() as f64);
        text.sample(name, &[("decrypted", "no")], closed.get() as f64);
        self.write_authentication(text);
        let asked = [
            ("waxwing_fetches_total", "Waits of mails for CRLs and OCSP responses.", &self.fetches),
            ("waxwing_look_ups_total", "Mailboxes looked up in directories and the DNS.", &self.look_ups),
        ];
        for (name, help, counters) in asked {
            text.family(name, Kind::Counter, help);
            for (result, counter) in Asked::ALL.iter().zip(counters) {
                text.sample(name, &[("result", result.word())], counter.get() as f64);
            }
        }
    }

    fn write_authentication(&self, text: &mut Text) {
        let name = "waxwing_authentication_total";
        text.family(name, Kind::Counter, "What was found out of who sent inbound mail (RFC 8601).");
        for (method, counters) in Method::ALL.iter().zip(&self.authenticated) {
            for (outcome, counter) in Outcome::ALL.iter().zip(counters) {
                let labels = [("method", method.as_str()), ("result", outcome.as_str())];
                text.sample(name, &labels, counter.get() as f64);
            }
        }
        let name = "waxwing_dkim_total";
        text.family(name, Kind::Counter, "Outbound mail signed by its author's domain, and not.");
        for (vouched, counter) in Vouched::ALL.iter().zip(&self.vouched) {
            text.sample(name, &[("outcome", vouched.word())], counter.get() as f64);
        }
    }

    fn write_mails(&self, text: &mut Text) {
        let name = "waxwing_mails_total";
        text.family(name, Kind::Counter, "Mails whose content came, by what was answered.");
        for (way, fates) in Way::ALL.iter().zip(&self.mails) {
            for (fate, counter) in Fate::ALL.iter().zip(fates) {
                let labels = [("direction", way.word()), ("outcome", fate.word())];
                text.sample(name, &labels, counter.get() as f64);
            }
        }
        let name = "waxwing_mail_octets_total";
        text.family(name, Kind::Counter, "Octets of those mails, as they came.");
        for (way, sum) in Way::ALL.iter().zip(&self.octets) {
            text.sample(name, &[("direction", way.word())], sum.load(Ordering::Relaxed) as f64);
        }
        let name = "waxwing_turned_away_total";
        text.family(name, Kind::Counter, "MAIL commands that were answered 4xx (deferred) or 5xx (rejected).");
        let [defer, refuse] = &self.turned_away;
        text.sample(name, &[("outcome", "deferred")], defer.get() as f64);
        text.sample(name, &[("outcome", "rejected")], refuse.get() as f64);
        let name = "waxwing_too_fast_total";
        text.family(name, Kind::Counter, "MAIL and RCPT answered 4xx since a client or a user brought too many.");
        for (whose, counters) in Whose::ALL.iter().zip(&self.too_fast) {
            for (what, counter) in Metered::ALL.iter().zip(counters) {
                text.sample(name, &[("whose", whose.word()), ("what", what.word())], counter.get() as f64);
            }
        }
        let name = "waxwing_released_total";
        text.family(name, Kind::Counter, "Times that held mail was treated by policy anew.");
        text.sample(name, &[], self.released.get() as f64);
        let name = "waxwing_recipients_total";
        text.family(name, Kind::Counter, "Recipients by the rule that decided, and what it decided.");
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (rule, ways) in &rules {
            for (way, counters) in Way::ALL.iter().zip(ways.iter()) {
                // Most combinations never come about.
                for (ruled, counter) in Ruled::ALL.iter().zip(counters).filter(|(_, counter)| counter.get() > 0) {
                    let labels = [("direction", way.word()), ("rule", rule), ("treatment", ruled.word())];
                    text.sample(name, &labels, counter.get() as f64);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! What people look at: table, JSON, a page, a comparison.
//!
//! A [`Report`] is made of a run, or read from the JSON of an earlier one; page and comparison know nothing but reports. Pure, but for
//! [`machine`].

/// Lines, areas and dots as SVG.
mod chart;
/// Two reports side by side.
pub mod compare;
/// What charts show.
mod draw;
/// Reports to JSON and back.
mod json;
/// The machine a run was made on.
pub mod machine;
/// Reports to HTML.
mod page;
/// A scenario as keys and values.
mod settings;
/// Numbers as people read them.
pub mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::generator::{Knee, Sent};
use super::ledger::{Account, Fault, FaultKind};
use super::measure::process::Usage;
use super::measure::{Points, Spread, Stage};
use super::run::Outcome;
use super::scenario::Scenario;
pub use json::{FILE_MAX, ReadError, fuzz_report, parse};
pub use machine::Machine;
pub use page::{comparison, page, process_row, stage_row};

/// Faults that a report lists; it counts them all.
const LISTED: usize = 1_000;
/// Characters of a text from outside that a report keeps.
const TEXT: usize = 1_000;

/// One run. Times in microseconds, sizes in octets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Of the scenario.
    pub name: String,
    /// Of the scenario, one line.
    pub about: String,
    /// Of the program that ran it.
    pub version: String,
    /// When, as RFC 3339 writes it.
    pub began: String,
    /// Who got the mail.
    pub target: String,
    /// Where it was to arrive, if anywhere.
    pub sink: Option<String>,
    /// No fault, and mail was taken.
    pub good: bool,
    /// The scenario, by the keys of docs/scenario.toml.
    pub settings: BTreeMap<String, String>,
    /// Where it ran.
    pub machine: Machine,
    /// How it was sent.
    pub sending: Sending,
    /// Mails by class of their answers, in the order of [`Class::ALL`](super::measure::Class::ALL).
    pub answers: [u64; 5],
    /// Of the contents taken.
    pub octets: u64,
    /// From the first mail to the last arrival.
    pub delivered_until: u64,
    /// Counts of the account, by mail and recipient.
    pub account: BTreeMap<String, u64>,
    /// What is wrong.
    pub faults: Faults,
    /// In the order of [`Stage::ALL`].
    pub stages: [Spread; 4],
    /// Over time.
    pub series: Points,
    /// What processes used; the lab itself is "lab".
    pub processes: Vec<Usage>,
    /// What a search found.
    pub knee: Option<KneeFound>,
}

/// How mails were sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sending {
    /// From the first due to the last answer.
    pub took: u64,
    /// Begun.
    pub mails: u64,
    /// Fell due and were not begun.
    pub overdue: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections that broke or could not be made.
    pub broken: u64,
    /// It was told to stop before its bound.
    pub stopped: bool,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// How many.
    pub count: u64,
    /// By kind.
    pub kinds: BTreeMap<String, u64>,
    /// The first of them.
    pub listed: Vec<Listed>,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// The mail; `None`: a stranger.
    pub id: Option<String>,
    /// To whom.
    pub recipient: String,
    /// What.
    pub what: String,
    /// In words.
    pub why: String,
}

/// What a search for the knee found. Rates in thousandths of a mail a second.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KneeFound {
    /// The highest good one.
    pub rate: Option<u64>,
    /// The lowest that was too much.
    pub too_much: Option<u64>,
    /// Of the p99.
    pub bound: u64,
    /// In the order they were tried.
    pub trials: Vec<Tried>,
}

/// A rate that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tried {
    /// Offered.
    pub rate: u64,
    /// Answered.
    pub answered: u64,
    /// From due to answered.
    pub p99: u64,
    /// Mails put off, or without an answer.
    pub failed: u64,
    /// Under the bound.
    pub good: bool,
}

/// What a report has beside what a run found.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// When it began, as RFC 3339 writes it.
    pub began: String,
    /// Who got the mail.
    pub target: String,
    /// Where it was to arrive.
    pub sink: Option<String>,
    /// Where it ran.
    pub machine: Machine,
}

impl Report {
    /// Of a run.
    pub fn of(outcome: &Outcome, scenario: &Scenario, circumstances: Circumstances) -> Self {
        let Outcome { sent, account, figures, usage, .. } = outcome;
        let Circumstances { began, target, sink, machine } = circumstances;
        Self {
            name: cut(&scenario.name),
            about: cut(&scenario.about),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            began,
            target: cut(&target),
            sink,
            good: account.is_good(),
            settings: settings::of(scenario),
            machine,
            sending: Sending::of(sent),
            answers: figures.classes,
            octets: figures.octets,
            delivered_until: figures.delivered_until,
            account: counts(account),
            faults: Faults::of(account),
            stages: figures.stages.clone(),
            series: figures.series.clone(),
            processes: usage.clone(),
            knee: sent.knee.as_ref().map(KneeFound::of),
        }
    }

    /// The latencies of a stage.
    pub fn stage(&self, stage: Stage) -> &Spread {
        stage.of(&self.stages)
    }

    /// Mails taken.
    pub fn taken(&self) -> u64 {
        let [taken, ..] = self.answers;
        taken
    }

    /// Counts of the account in the order of a mail's way; those of other names behind them.
    pub fn account_in_order(&self) -> Vec<(&str, u64)> {
        let place = |name: &str| ACCOUNT.iter().position(|known| *known == name).unwrap_or(ACCOUNT.len());
        let mut counts: Vec<(&str, u64)> = self.account.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        counts.sort_by_key(|(name, _)| place(name));
        counts
    }

    /// Mails taken a second, from the first due to the last answer.
    pub fn rate(&self) -> f64 {
        show::per_second(self.taken(), self.sending.took)
    }

    /// Arrivals a second, from the first mail to the last arrival.
    pub fn delivered_rate(&self) -> f64 {
        show::per_second(self.stage(Stage::Delivery).count, self.delivered_until)
    }

    /// Octets taken a second.
    pub fn octet_rate(&self) -> f64 {
        show::per_second(self.octets, self.sending.took)
    }

    /// Processor time for each mail taken, in microseconds; `None`: none was.
    pub fn cpu_per_mail(&self, of: &Usage) -> Option<f64> {
        let taken = self.taken();
        (taken > 0).then(|| show::float(of.user.saturating_add(of.system)) / show::float(taken))
    }
}

/// Counts of an account in the order of a mail's way.
const ACCOUNT: [&str; 12] = [
    "sent",
    "taken",
    "deferred",
    "refused",
    "refused_rightly",
    "unknown",
    "not_sent",
    "delivered",
    "bounced",
    "repeated",
    "unheard",
    "strangers",
];

/// The first characters of a text from outside.
fn cut(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

fn counts(account: &Account) -> BTreeMap<String, u64> {
    let Account { sent, taken, deferred, refused, refused_rightly, unknown, not_sent, delivered, bounced, .. } =
        *account;
    [
        ("sent", sent),
        ("taken", taken),
        ("deferred", deferred),
        ("refused", refused),
        ("refused_rightly", refused_rightly),
        ("unknown", unknown),
        ("not_sent", not_sent),
        ("delivered", delivered),
        ("bounced", bounced),
        ("repeated", account.repeated),
        ("unheard", account.unheard),
        ("strangers", account.strangers),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .into()
}

/// A kind's name in a report, such as "not-opened".
pub fn kind(kind: FaultKind) -> String {
    let mut name = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

impl Sending {
    fn of(sent: &Sent) -> Self {
        Self {
            took: show::whole_micros(sent.ended.saturating_duration_since(sent.began)),
            mails: sent.mails,
            overdue: sent.overdue,
            connections: sent.connections,
            broken: sent.broken,
            stopped: sent.stopped,
        }
    }
}

impl Faults {
    fn of(account: &Account) -> Self {
        let kinds = account.found.iter().map(|(what, count)| (kind(*what), *count)).collect();
        let listed = |fault: &Fault| Listed {
            id: fault.id.map(|id| id.to_string()),
            recipient: cut(&fault.recipient),
            what: kind(fault.what),
            why: cut(&fault.why),
        };
        let listed = account.faults.iter().take(LISTED).map(listed).collect();
        Self { count: account.found.values().sum(), kinds, listed }
    }
}

impl KneeFound {
    fn of(knee: &Knee) -> Self {
        let trials = knee.trials.iter().map(|trial| Tried {
            rate: show::thousandths(trial.rate),
            answered: show::thousandths(trial.answered),
            p99: show::whole_micros(trial.p99),
            failed: trial.failed,
            good: trial.good,
        });
        Self {
            rate: knee.rate.map(show::thousandths),
            too_much: knee.too_much.map(show::thousandths),
            bound: show::whole_micros(knee.bound),
            trials: trials.collect(),
        }
    }
}

//! What a run sends, how fast, and what is expected: a TOML file, or one of the shipped names.

/// The reader.
mod read;
/// Scenarios that come with the program.
mod shipped;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use crate::address::Domain;
pub use read::{fuzz_scenario, parse};
pub use shipped::{Shipped, shipped};

/// Longer than any run.
pub const FOREVER: Duration = Duration::from_secs(366 * 86_400);

/// A run, described.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name, in the report.
    pub name: String,
    /// One line for `--list`.
    pub about: String,
    /// How fast.
    pub pace: Pace,
    /// How long.
    pub bound: Bound,
    /// Connections at once: all of a closed loop; the most of an open one.
    pub connections: usize,
    /// Mails on one connection before it is closed; `None`: kept.
    pub mails_per_connection: Option<u32>,
    /// TLS to the target.
    pub tls: Tls,
    /// Our name in EHLO.
    pub hello: Domain,
    /// Longest wait for an answer, or for a target that is away, until a mail is given up.
    pub patience: Duration,
    /// Sizes of generated contents.
    pub sizes: Sizes,
    /// Recipients of one mail, from and to.
    pub recipients: (u32, u32),
    /// Where contents come from.
    pub contents: Contents,
    /// Kinds of mail with their weights.
    pub mix: Vec<(u32, Kind)>,
    /// Who writes and reads.
    pub people: People,
    /// How the sink behaves.
    pub sink: Faults,
    /// Whether what is signed well has to arrive with `smime=pass` in Authentication-Results (RFC 8601, RFC 7281).
    pub verdict: bool,
    /// Algorithms of what is sealed ahead of time, and of the own gateway: a built-in profile's name.
    pub profile: String,
    /// Of the generator of random numbers: the same seed sends the same mails.
    pub seed: u64,
}

/// How fast.
#[derive(Debug, Clone, PartialEq)]
pub enum Pace {
    /// Each connection sends its next mail once the last is answered.
    Closed,
    /// Mails fall due by the clock, whatever is answered; latency counts from then.
    Open {
        /// Rates in turn.
        steps: Vec<Step>,
        /// Poisson gaps, else even ones.
        poisson: bool,
    },
    /// Doubles, then halves the interval, for the highest rate whose p99 stays under a bound.
    Knee {
        /// First rate, mails a second.
        from: f64,
        /// The bound.
        p99: Duration,
        /// Time at each rate.
        each: Duration,
        /// Highest rate tried.
        most: f64,
        /// Poisson gaps, else even ones.
        poisson: bool,
    },
}

impl Pace {
    /// Whether a run ends without a bound: at the knee, or after the last of steps that end.
    pub fn ends_by_itself(&self) -> bool {
        match self {
            Pace::Closed => false,
            Pace::Open { steps, .. } => steps.last().is_some_and(|step| step.lasts < FOREVER),
            Pace::Knee { .. } => true,
        }
    }
}

/// TLS to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// When.
    pub mode: TlsMode,
    /// How its certificate is judged.
    pub verify: Verify,
}

/// When TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Off,
    /// With STARTTLS, or no mail.
    StartTls,
    /// At once (RFC 8314).
    Implicit,
}

/// How the target's certificate is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// Any will do.
    No,
    /// By the system's CAs, for the name of the target.
    System,
    /// By the CAs of a PEM file, for the name of the target.
    File(PathBuf),
}

/// A rate held, or reached in a ramp from the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Mails a second.
    pub rate: f64,
    /// How long.
    pub lasts: Duration,
    /// Grows evenly from the rate before.
    pub ramp: bool,
}

/// When a run ends: whichever is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Mails.
    pub mails: Option<u64>,
    /// Time of sending.
    pub time: Option<Duration>,
    /// After the last was sent: how long arrivals are waited for.
    pub drain: Duration,
}

/// Octets of a generated content.
#[derive(Debug, Clone, PartialEq)]
pub enum Sizes {
    /// All alike.
    Fixed(usize),
    /// Evenly between two.
    Even(usize, usize),
    /// Log-normal: median and the 99th percentile; never above the third.
    LogNormal(usize, usize, usize),
    /// Weighted choices.
    Choice(Vec<(u32, Sizes)>),
}

/// Where contents come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Made up: text, HTML with text, attachments.
    Made,
    /// Real mails of a folder.
    Folder(PathBuf),
    /// Real mails of an mbox.
    Mbox(PathBuf),
}

/// A kind of mail, and so what is expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Sent in clear, to arrive as it is.
    Plain,
    /// Sent in clear, to arrive sealed.
    ToSeal,
    /// Sent sealed for the recipient, to arrive opened.
    Sealed,
    /// Sent clear-signed, to arrive with a verdict.
    Signed,
    /// Sent in clear to somebody without a certificate: refused, or clear, as the scenario says.
    UnknownRecipient {
        /// A refusal is right; else clear is.
        refused: bool,
    },
    /// Sealed, an octet changed: never opened as valid.
    Tampered,
    /// Sealed for somebody else: to arrive as it was sent.
    WrongKey,
}

impl Kind {
    /// Its name in a scenario.
    pub fn name(self) -> &'static str {
        read::KINDS.iter().find(|(_, kind)| *kind == self).map_or("plain", |(name, _)| name)
    }

    /// The kind of a name.
    pub fn parse(name: &str) -> Option<Self> {
        read::KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

/// Who writes and reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum People {
    /// Addresses given.
    Named {
        /// Senders.
        from: Vec<String>,
        /// Recipients.
        to: Vec<String>,
    },
    /// A population made for the run, in domains of ours and of partners; can be written out as PKCS#12 and PEM for import.
    Made {
        /// How many of each side.
        count: u32,
        /// Key types in turn: "rsa2048", "rsa3072", "rsa4096", "p256".
        keys: Vec<String>,
    },
    /// A population that `waxwing load people` wrote into a folder.
    Folder(PathBuf),
    /// Those in a Waxwing store: the configuration file that names it.
    Store(PathBuf),
}

/// Who writes and reads where nothing is said: addresses under the reserved domain `example` (RFC 2606).
pub fn named_people() -> People {
    People::Named { from: vec!["anna@load.example".into()], to: vec!["bert@load.example".into()] }
}

/// How the sink behaves: shares from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Wait before each answer to a final dot.
    pub slow: Duration,
    /// 4xx to the final dot.
    pub defer: f64,
    /// 5xx to the final dot.
    pub refuse: f64,
    /// Closes at the dot without an answer, not having taken the mail.
    pub close: f64,
    /// Stops reading for `stall_for`.
    pub stall: f64,
    /// How long a stall lasts.
    pub stall_for: Duration,
}

//! What was intended, answered and delivered: every mail accounted for, per recipient.

use super::mails::MailId;

/// The target's answer to a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// 250: it is the target's to deliver or to bounce.
    Taken,
    /// 4xx.
    Deferred(String),
    /// 5xx.
    Refused(String),
    /// No answer after the final dot: it may or may not have it.
    Unknown(String),
    /// No answer before it: it has not.
    NotSent(String),
}

/// What became of a run's mails, counted by mail and recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Sent, whatever the answer.
    pub sent: u64,
    /// Answered 250.
    pub taken: u64,
    /// Answered 4xx.
    pub deferred: u64,
    /// Answered 5xx.
    pub refused: u64,
    /// Answered 5xx, and that was right.
    pub refused_rightly: u64,
    /// Link lost after the final dot.
    pub unknown: u64,
    /// Link lost or not made before.
    pub not_sent: u64,
    /// Recipients reached once.
    pub delivered: u64,
    /// Recipients told of by a bounce.
    pub bounced: u64,
    /// Faults, each named.
    pub faults: Vec<Fault>,
}

/// A fault: the run is not good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which mail; `None`: a stranger.
    pub id: Option<MailId>,
    /// To whom.
    pub recipient: String,
    /// What.
    pub what: FaultKind,
    /// In words.
    pub why: String,
}

/// Kinds of fault, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// Came more than once.
    Doubled,
    /// Taken, and neither delivered nor bounced.
    Lost,
    /// Came with another content.
    Altered,
    /// Came sealed though it should have been opened, or without the verdict it should have.
    NotOpened,
    /// Marked valid though it is not.
    FalselyValid,
    /// Came in clear though it should have been sealed.
    InClear,
}

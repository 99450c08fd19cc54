//! What was intended, answered and delivered: every mail accounted for, per recipient. A mail with one recipient costs 32 octets, one with
//! more 8 more for each; the lock is sharded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::mails::{Mail, MailId};

/// Adds up an account.
mod account;
#[cfg(test)]
mod tests;

/// Faults that are kept with their names; all are counted.
pub const FAULTS_KEPT: usize = 10_000;
/// What a target did in this time before it was cut off it may do again (RFC 5321 section 6.1: better twice than lost).
pub const AGAIN: Duration = Duration::from_secs(5);
const SHARDS: usize = 64;

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
    /// Of these: that was right, by its kind or since our sink refused it.
    pub refused_rightly: u64,
    /// Link lost after the final dot: delivered or not, both are right.
    pub unknown: u64,
    /// Link lost or not made before.
    pub not_sent: u64,
    /// Recipients reached, once or more.
    pub delivered: u64,
    /// Recipients told of by a bounce.
    pub bounced: u64,
    /// Arrivals beyond the first that a target may make that was cut off after it: no fault.
    pub repeated: u64,
    /// Taken, refused by our sink, and no report came: none is due at our sink, whose sender is not behind the target.
    pub unheard: u64,
    /// What arrived and is no mail of this run: of an earlier one, or reports of delay and success.
    pub strangers: u64,
    /// Faults by kind, all of them.
    pub found: BTreeMap<FaultKind, u64>,
    /// Faults, each named; the first [`FAULTS_KEPT`].
    pub faults: Vec<Fault>,
}

impl Account {
    /// No fault, and something was taken, if anything was sent.
    pub fn is_good(&self) -> bool {
        self.found.is_empty() && (self.taken > 0 || self.refused_rightly > 0 || self.sent == 0)
    }
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
    /// Came more than once, or came and was reported as failed.
    Doubled,
    /// Taken, and neither delivered nor bounced.
    Lost,
    /// Came with another content.
    Altered,
    /// Came sealed though it should have been opened, or without the verdict it should have.
    NotOpened,
    /// Came to somebody it was not sent to, or though its sender was told that it would not.
    Misdelivered,
    /// Marked valid though it is not.
    FalselyValid,
    /// Came in clear though it should have been sealed.
    InClear,
}

/// How one recipient's mail stands.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    answer: Answer,
    arrivals: u8,
    notes: u8,
    /// Of the first arrival, milliseconds from the start.
    first: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Answer {
    #[default]
    None,
    Taken,
    Deferred,
    Refused,
    Unknown,
    NotSent,
}

/// Bits of [`Cell::notes`].
mod note {
    pub(super) const BOUNCED: u8 = 1;
    pub(super) const SINK_REFUSED: u8 = 2;
    /// Its kind may be refused.
    pub(super) const MAY_BE_REFUSED: u8 = 4;
    /// A report to its sender comes to our sink.
    pub(super) const HEARD: u8 = 8;
}

impl Cell {
    fn is(&self, note: u8) -> bool {
        self.notes & note != 0
    }
    /// Taken, and nothing came of it yet.
    fn is_open(&self) -> bool {
        self.answer == Answer::Taken && self.arrivals == 0 && !self.is(note::BOUNCED) && !self.is_unheard()
    }
    fn is_unheard(&self) -> bool {
        self.is(note::SINK_REFUSED) && !self.is(note::HEARD)
    }
}

#[derive(Debug, Default)]
enum Cells {
    /// Not begun.
    #[default]
    None,
    One(Cell),
    Many(Box<[Cell]>),
}

#[derive(Debug, Default)]
struct Entry {
    /// Microseconds from the start.
    due: u64,
    cells: Cells,
}

impl Entry {
    fn cells(&self) -> &[Cell] {
        match &self.cells {
            Cells::None => &[],
            Cells::One(cell) => std::slice::from_ref(cell),
            Cells::Many(cells) => cells,
        }
    }
    fn cells_mut(&mut self) -> &mut [Cell] {
        match &mut self.cells {
            Cells::None => &mut [],
            Cells::One(cell) => std::slice::from_mut(cell),
            Cells::Many(cells) => cells,
        }
    }
}

/// The ledger of a run.
#[derive(Debug)]
pub struct Ledger {
    start: Instant,
    /// The mail of a number is in shard `number % SHARDS`, at `number / SHARDS`.
    shards: Vec<Mutex<Vec<Entry>>>,
    open: AtomicI64,
    strangers: AtomicU64,
    faults: Mutex<Faults>,
    /// When the target was cut off, milliseconds from the start.
    breaks: Mutex<Vec<u32>>,
}

#[derive(Debug, Default)]
struct Faults {
    found: BTreeMap<FaultKind, u64>,
    kept: Vec<Fault>,
}

impl Faults {
    fn add(&mut self, fault: Fault) {
        *self.found.entry(fault.what).or_default() += 1;
        if self.kept.len() < FAULTS_KEPT {
            self.kept.push(fault);
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            start: Instant::now(),
            shards,
            open: AtomicI64::new(0),
            strangers: AtomicU64::new(0),
            faults: Mutex::default(),
            breaks: Mutex::default(),
        }
    }
}

impl Ledger {
    /// A mail is about to be sent. `heard`: a report to its sender would come to our sink; `may_be_refused`: a refusal is right.
    pub fn begun(&self, mail: &Mail, due: Instant, heard: bool, may_be_refused: bool) {
        let notes = if heard { note::HEARD } else { 0 } | if may_be_refused { note::MAY_BE_REFUSED } else { 0 };
        let cell = Cell { notes, ..Cell::default() };
        let cells = match mail.envelope.recipients.len() {
            1 => Cells::One(cell),
            count => Cells::Many(vec![cell; count].into()),
        };
        let due = u64::try_from(due.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX);
        let (shard, at) = place(mail.id.number);
        let Some(shard) = self.shards.get(shard) else { return };
        let mut entries = lock(shard);
        if entries.len() <= at {
            entries.resize_with(at.saturating_add(1), Entry::default);
        }
        if let Some(entry) = entries.get_mut(at) {
            *entry = Entry { due, cells };
        }
    }

    /// What the target answered, for each recipient.
    pub fn ended(&self, number: u64, answers: &[Answered]) {
        self.change(number, |entry| {
            for (cell, answer) in entry.cells_mut().iter_mut().zip(answers) {
                cell.answer = match answer {
                    Answered::Taken => Answer::Taken,
                    Answered::Deferred(_) => Answer::Deferred,
                    Answered::Refused(_) => Answer::Refused,
                    Answered::Unknown(_) => Answer::Unknown,
                    Answered::NotSent(_) => Answer::NotSent,
                };
            }
        });
    }

    /// It arrived. `Some`: for the first time, and how long after it was due.
    pub fn arrived(&self, number: u64, recipient: usize, at: Instant) -> Option<Duration> {
        let since = at.saturating_duration_since(self.start);
        self.change(number, |entry| {
            let due = Duration::from_micros(entry.due);
            let cell = entry.cells_mut().get_mut(recipient)?;
            cell.arrivals = cell.arrivals.saturating_add(1);
            if cell.arrivals > 1 {
                return None;
            }
            cell.first = millis(since);
            Some(since.saturating_sub(due))
        })?
    }

    /// Our sink refused it for good.
    pub fn refused_by_sink(&self, number: u64, recipient: usize) {
        self.note(number, recipient, note::SINK_REFUSED);
    }

    /// Its sender was told that it failed.
    pub fn bounced(&self, number: u64, recipient: usize) {
        self.note(number, recipient, note::BOUNCED);
    }

    fn note(&self, number: u64, recipient: usize, note: u8) {
        self.change(number, |entry| {
            if let Some(cell) = entry.cells_mut().get_mut(recipient) {
                cell.notes |= note;
            }
        });
    }

    /// Whether a mail of this number was begun, with its recipients.
    pub fn recipients(&self, number: u64) -> usize {
        self.change(number, |entry| entry.cells().len()).unwrap_or(0)
    }

    /// The target closed a connection, or could not be reached.
    pub fn broke(&self, at: Instant) {
        let at = millis(at.saturating_duration_since(self.start));
        let mut breaks = lock(&self.breaks);
        // A target that is away breaks often: once in 100 ms says it all.
        if breaks.last().is_none_or(|last| at.abs_diff(*last) >= 100) {
            breaks.push(at);
        }
    }

    /// Something came that is no mail of this run.
    pub fn stranger(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }

    /// A fault was found.
    pub fn fault(&self, fault: Fault) {
        lock(&self.faults).add(fault);
    }

    /// Mails and recipients taken of which nothing was heard yet.
    pub fn open(&self) -> u64 {
        u64::try_from(self.open.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// Changes a mail's entry, and counts what is open along. `None`: it was never begun.
    fn change<T>(&self, number: u64, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let (shard, at) = place(number);
        let mut entries = lock(self.shards.get(shard)?);
        let entry = entries.get_mut(at).filter(|entry| !entry.cells().is_empty())?;
        let open = |entry: &Entry| entry.cells().iter().filter(|cell| cell.is_open()).count();
        let before = open(entry);
        let result = change(entry);
        let grown = i64::try_from(open(entry)).unwrap_or(0) - i64::try_from(before).unwrap_or(0);
        if grown != 0 {
            self.open.fetch_add(grown, Ordering::AcqRel);
        }
        Some(result)
    }
}

/// Shard and place in it.
fn place(number: u64) -> (usize, usize) {
    let shards = SHARDS as u64;
    (usize::try_from(number % shards).unwrap_or(0), usize::try_from(number / shards).unwrap_or(usize::MAX - 1))
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Sends by the pace of a scenario.

/// Wakes at exact times.
mod clock;
/// The highest rate under a bound.
mod knee;
/// One connection.
mod link;
/// When mails fall due.
mod schedule;
/// TLS to the target, and who may be a target.
mod target;
#[cfg(test)]
mod tests;
/// One connection's task.
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ledger::Answered;
use super::mails::Mail;
use super::scenario::{FOREVER, Pace, Scenario, Step};
use clock::Clock;
pub use knee::{Knee, Trial};
use link::{Link, Way};
use schedule::Schedule;
pub use target::{Target, TargetError};
use worker::{Due, Job};

/// Where the mails of a run come from.
pub trait Source: Send + Sync + 'static {
    /// The mail of this number, from 0; asked by many threads, each number once.
    fn mail(&self, number: u64) -> Mail;
}

/// Who hears what becomes of them; asked by many threads.
pub trait Witness: Send + Sync + 'static {
    /// Before the first octet of a mail is sent: it can arrive from now on. `due` is when it was to be sent.
    fn begun(&self, mail: &Mail, due: Instant);
    /// A mail was answered, or given up.
    fn ended(&self, mail: &Mail, sending: &Sending);
    /// A mail fell due at this time and was not begun by the end of the run: its latency is at least the time between.
    fn overdue(&self, due: Instant, end: Instant);
    /// A connection broke, or could not be made.
    fn broke(&self, _at: Instant) {}
}

/// How one mail went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// When it was to be sent; in a closed loop when its connection was free.
    pub due: Instant,
    /// When its sending began, a connection being there.
    pub began: Instant,
    /// When the last answer came, or it was given up.
    pub ended: Instant,
    /// How long its connection took to be ready, where it was made for it.
    pub connect: Option<Duration>,
    /// For each recipient of the envelope in turn.
    pub answers: Vec<Answered>,
}

/// How far a run has been told to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Mails are sent.
    Going,
    /// No further mail is begun.
    Stopping,
    /// What is under way is cut off too.
    Aborted,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// First mail due.
    pub began: Instant,
    /// Last answer.
    pub ended: Instant,
    /// Mails begun.
    pub mails: u64,
    /// Mails that fell due and were not begun by the end (open loop).
    pub overdue: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections that broke or could not be made.
    pub broken: u64,
    /// Whether it was told to stop before its bound.
    pub stopped: bool,
    /// What a search for the knee found.
    pub knee: Option<Knee>,
}

/// Sends the mails of a scenario.
pub struct Generator<S, W> {
    source: Arc<S>,
    witness: Arc<W>,
    way: Way,
    scenario: Scenario,
    clock: Clock,
    phase: watch::Receiver<Phase>,
    /// Mails begun so far, in all its runs.
    begun: Arc<AtomicU64>,
}

impl<S: Source, W: Witness> Generator<S, W> {
    /// Looks at the target once: `Err` when it cannot be reached, speaks no SMTP, or TLS cannot be had as wanted.
    pub async fn new(
        scenario: Scenario,
        target: &Target,
        source: Arc<S>,
        witness: Arc<W>,
        phase: watch::Receiver<Phase>,
    ) -> Result<Self, String> {
        let way = target.way(&scenario)?;
        let clock = Clock::start().map_err(|error| format!("no thread for the clock: {error}"))?;
        Link::open(&way).await?.quit().await;
        Ok(Self { source, witness, way, scenario, clock, phase, begun: Arc::default() })
    }

    /// Sends until the bound, or until it is told to stop.
    pub async fn run(&self) -> Sent {
        let bound = self.scenario.bound;
        match &self.scenario.pace {
            Pace::Closed => self.send(None, bound.mails, bound.time).await,
            Pace::Open { steps, poisson } => {
                let schedule = Schedule::new(steps.clone(), *poisson, self.scenario.seed);
                let lasts: Duration =
                    steps.iter().map(|step| step.lasts).fold(Duration::ZERO, Duration::saturating_add);
                let time = bound.time.into_iter().chain((lasts < FOREVER).then_some(lasts)).min();
                self.send(Some(schedule), bound.mails, time).await
            }
            Pace::Knee { .. } => self.search().await,
        }
    }

    /// Mails begun so far.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// One pace, by its own or another witness.
    async fn send(&self, schedule: Option<Schedule>, mails: Option<u64>, time: Option<Duration>) -> Sent {
        self.send_to(&self.witness, schedule, mails, time).await
    }

    async fn send_to<V: Witness>(
        &self,
        witness: &Arc<V>,
        schedule: Option<Schedule>,
        mails: Option<u64>,
        time: Option<Duration>,
    ) -> Sent {
        let began = Instant::now();
        let end = time.and_then(|time| began.checked_add(time));
        let first = self.begun();
        let due = schedule.map(|schedule| Due::new(schedule, began, self.clock.clone()));
        let job = Arc::new(Job {
            source: Arc::clone(&self.source),
            witness: Arc::clone(witness),
            way: self.way.clone(),
            per_connection: self.scenario.mails_per_connection,
            next: AtomicU64::new(first),
            most: mails.map_or(u64::MAX, |mails| first.saturating_add(mails)),
            end,
            due,
            begun: Arc::clone(&self.begun),
            connections: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        });
        let mut workers = JoinSet::new();
        for _ in 0..self.scenario.connections {
            workers.spawn(Arc::clone(&job).work(self.phase.clone()));
        }
        let mut ended = began;
        while let Some(last) = workers.join_next().await {
            // A task that fell over has its mail in the ledger as begun and not answered.
            ended = ended.max(last.ok().flatten().unwrap_or(began));
        }
        let stopped = *self.phase.borrow() > Phase::Going;
        let overdue = job.overdue(if stopped { Instant::now() } else { end.unwrap_or(ended) });
        Sent {
            began,
            ended,
            mails: self.begun().saturating_sub(first),
            overdue,
            connections: job.connections.load(Ordering::Relaxed),
            broken: job.broken.load(Ordering::Relaxed),
            stopped,
            knee: None,
        }
    }

    /// Even or Poisson gaps at one rate for a time.
    fn at_rate(&self, rate: f64, lasts: Duration, poisson: bool) -> Schedule {
        Schedule::new(vec![Step { rate, lasts, ramp: false }], poisson, self.scenario.seed)
    }
}

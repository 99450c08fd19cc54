//! Latencies, rates, processor time and memory over time.
//!
//! All of it is bounded, however long a run is: latencies are counted in histograms, and the intervals of a series double in width
//! when there are too many. What reads a clock or /proc is the [`sampler`] alone.

/// Processor time and memory of processes and their children, out of what /proc says.
pub mod process;
/// Reads /proc by the clock.
pub mod sampler;
/// Bounded lists of counts and latencies by time.
mod series;
/// A latency's distribution, summed up.
mod spread;
#[cfg(test)]
mod tests;
/// Measures what a generator tells its witness.
mod witness;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::{Counter, Histogram};

use super::ledger::Answered;
use series::{Interval, Series};
pub use series::{Point, Points};
pub use spread::{Spread, TenthMillionths};
pub use witness::Measured;

/// What is timed of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From the first octet sent to a session that is ready (new connections only).
    Connect,
    /// From when it was due to when it began to be sent: the generator's own lag, or all connections busy.
    Wait,
    /// From when it was due to the answer to the final dot.
    Answer,
    /// From when it was due to its arrival at the sink.
    Delivery,
}

impl Stage {
    /// All, in the order of a mail's way.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Wait, Self::Answer, Self::Delivery];

    /// Its own of one for each.
    pub fn of<T>(self, all: &[T; 4]) -> &T {
        let [connect, wait, answer, delivery] = all;
        match self {
            Self::Connect => connect,
            Self::Wait => wait,
            Self::Answer => answer,
            Self::Delivery => delivery,
        }
    }

    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Wait => "wait",
            Self::Answer => "answer",
            Self::Delivery => "delivery",
        }
    }
}

/// How a mail was answered, best first. With several recipients: the best of their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// 2xx.
    Taken,
    /// 5xx.
    Refused,
    /// 4xx.
    Deferred,
    /// None, after the final dot.
    Unknown,
    /// None, before it.
    NotSent,
}

impl Class {
    /// All, best first.
    pub const ALL: [Self; 5] = [Self::Taken, Self::Refused, Self::Deferred, Self::Unknown, Self::NotSent];

    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::Deferred => "deferred",
            Self::Unknown => "unknown",
            Self::NotSent => "not_sent",
        }
    }

    /// The best of a mail's answers; none at all is "not sent".
    pub fn of(answers: &[Answered]) -> Self {
        let class = |answer: &Answered| match answer {
            Answered::Taken => Self::Taken,
            Answered::Refused(_) => Self::Refused,
            Answered::Deferred(_) => Self::Deferred,
            Answered::Unknown(_) => Self::Unknown,
            Answered::NotSent(_) => Self::NotSent,
        };
        answers.iter().map(class).min().unwrap_or(Self::NotSent)
    }
}

/// Longest latency told apart, in microseconds: a day.
const LONGEST: u64 = 86_400_000_000;
/// Digits of a run's latencies: 0.1 %.
const DIGITS: u8 = 3;
/// Digits of an interval's latencies: 1 %.
const COARSE: u8 = 2;
/// Threads that record without waiting for one another.
const SHARDS: usize = 4;
/// Seconds that are remembered for [`Recorder::live`]: one that grows, one that is whole, one to spare.
const RECENT: usize = 3;

/// Takes in what happens, from many threads; tells what it was.
///
/// Each thread writes to one of a few shards, so that none waits for another for long.
#[derive(Debug)]
pub struct Recorder {
    origin: OnceLock<Instant>,
    shards: [Mutex<Shard>; SHARDS],
}

/// The last whole second, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Live {
    /// Mails answered in it, in any way.
    pub answered: u64,
    /// Median from due to answered of those.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Mails answered since the origin, by [`Class`] in the order of [`Class::ALL`].
    pub classes: [u64; 5],
    /// Arrivals at the sink since the origin.
    pub delivered: u64,
}

/// All that a recorder took in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// For each stage in the order of [`Stage::ALL`].
    pub stages: [Spread; 4],
    /// Mails answered, by [`Class`] in the order of [`Class::ALL`].
    pub classes: [u64; 5],
    /// Octets of the contents taken.
    pub octets: u64,
    /// The last arrival at the sink, in microseconds since the origin; 0: there was none.
    pub delivered_until: u64,
    /// Over time.
    pub series: Points,
}

#[derive(Debug)]
struct Shard {
    stages: [Histogram<u64>; 4],
    series: Series,
    recent: [Second; RECENT],
    delivered_until: u64,
}

#[derive(Debug)]
struct Second {
    number: u64,
    latencies: Histogram<u32>,
    answered: u64,
}

/// An empty histogram of microseconds that grows with what it takes in.
#[allow(clippy::expect_used, reason = "a constant number of digits up to 5 always makes a histogram")]
fn histogram<C: Counter>(digits: u8) -> Histogram<C> {
    Histogram::new(digits).expect("up to 5 digits")
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(LONGEST).min(LONGEST)
}

/// Counts a latency; longer ones than a day count as a day.
fn count<C: Counter>(histogram: &mut Histogram<C>, latency: Duration) {
    // It grows up to LONGEST, for which there is always room.
    let _ = histogram.record(micros(latency));
}

fn at_quantile<C: Counter>(histogram: &Histogram<C>, quantile: f64) -> Duration {
    let value = if histogram.is_empty() { 0 } else { histogram.value_at_quantile(quantile).min(histogram.max()) };
    Duration::from_micros(value)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn new() -> Self {
        let second = || Second { number: 0, latencies: histogram(COARSE), answered: 0 };
        Self {
            stages: std::array::from_fn(|_| histogram(DIGITS)),
            series: Series::new(),
            recent: std::array::from_fn(|_| second()),
            delivered_until: 0,
        }
    }

    /// The second of this time, emptied of the one that had its place.
    fn second(&mut self, since: Duration) -> Option<&mut Second> {
        let number = since.as_secs();
        let place = usize::try_from(number).unwrap_or_default() % RECENT;
        let second = self.recent.get_mut(place)?;
        if second.number != number {
            second.number = number;
            second.answered = 0;
            second.latencies.reset();
        }
        Some(second)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self { origin: OnceLock::new(), shards: std::array::from_fn(|_| Mutex::new(Shard::new())) }
    }

    /// Intervals count from this time on, or from the one given before; gives which. Without it they count from the first record.
    pub fn begin(&self, at: Instant) -> Instant {
        *self.origin.get_or_init(|| at)
    }

    fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.begin(at))
    }

    /// Something took so long, and was over `at` this time. [`Stage::Delivery`] counts an arrival.
    pub fn record(&self, stage: Stage, at: Instant, latency: Duration) {
        let since = self.since(at);
        let mut shard = lock(self.shard());
        if let Some(stages) = shard.stages.get_mut(stage as usize) {
            count(stages, latency);
        }
        match stage {
            Stage::Answer => {
                if let Some(second) = shard.second(since) {
                    count(&mut second.latencies, latency);
                }
                shard.series.within(since, |interval: &mut Interval| count(&mut interval.answer, latency));
            }
            Stage::Delivery => {
                shard.delivered_until = shard.delivered_until.max(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
                shard.series.within(since, |interval| {
                    interval.delivered = interval.delivered.saturating_add(1);
                    count(&mut interval.delivery, latency);
                });
            }
            Stage::Connect | Stage::Wait => {}
        }
    }

    /// A mail was answered `at` this time; with the octets of its content.
    pub fn answered(&self, class: Class, at: Instant, octets: u64) {
        let since = self.since(at);
        let mut shard = lock(self.shard());
        if let Some(second) = shard.second(since) {
            second.answered = second.answered.saturating_add(1);
        }
        shard.series.within(since, |interval| {
            if let Some(classes) = interval.classes.get_mut(class as usize) {
                *classes = classes.saturating_add(1);
            }
            if class == Class::Taken {
                interval.octets = interval.octets.saturating_add(octets);
            }
        });
    }

    /// The last second that is whole at this time.
    pub fn live(&self, now: Instant) -> Live {
        let mut live = Live::default();
        let Some(origin) = self.origin.get() else { return live };
        let number = now.saturating_duration_since(*origin).as_secs().checked_sub(1);
        let mut latencies = histogram::<u32>(COARSE);
        for shard in &self.shards {
            let shard = lock(shard);
            for second in shard.recent.iter().filter(|second| Some(second.number) == number) {
                live.answered = live.answered.saturating_add(second.answered);
                // Both grow: there is room for whatever is added.
                let _ = latencies.add(&second.latencies);
            }
            let total = shard.series.total();
            for (sum, more) in live.classes.iter_mut().zip(total.classes) {
                *sum = sum.saturating_add(more);
            }
            live.delivered = live.delivered.saturating_add(total.delivered);
        }
        (live.p50, live.p99) = (at_quantile(&latencies, 0.5), at_quantile(&latencies, 0.99));
        live
    }

    /// All that was taken in.
    pub fn figures(&self) -> Figures {
        let mut stages: [Histogram<u64>; 4] = std::array::from_fn(|_| histogram(DIGITS));
        let mut series = Series::new();
        let mut delivered_until = 0;
        for shard in &self.shards {
            let shard = lock(shard);
            delivered_until = shard.delivered_until.max(delivered_until);
            for (sum, more) in stages.iter_mut().zip(&shard.stages) {
                let _ = sum.add(more);
            }
            series.add(&shard.series);
        }
        let total = series.total();
        Figures {
            stages: std::array::from_fn(|stage| stages.get(stage).map(Spread::of).unwrap_or_default()),
            classes: total.classes,
            octets: total.octets,
            delivered_until,
            series: series.points(),
        }
    }

    /// The one of this thread.
    fn shard(&self) -> &Mutex<Shard> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let place = PLACE.get().unwrap_or_else(|| {
            let place = NEXT.fetch_add(1, Ordering::Relaxed);
            PLACE.set(Some(place));
            place
        });
        #[allow(clippy::indexing_slicing, reason = "the index is a remainder of the array's length")]
        &self.shards[place % SHARDS]
    }
}

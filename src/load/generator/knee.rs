//! The knee: the highest rate whose p99 stays under a bound.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{Generator, Phase, Sending, Sent, Source, Witness};
use crate::load::ledger::Answered;
use crate::load::mails::Mail;
use crate::load::scenario::Pace;

/// How near the highest good rate and the lowest bad one have to come.
const NEAR: f64 = 1.05;
/// Rates tried at most.
const TRIALS: usize = 40;
/// Mails without an answer, or put off, that a good rate may have: one in so many.
const FAILED_SHARE: u64 = 100;

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Knee {
    /// The highest rate that was good, mails a second; `None`: none was.
    pub rate: Option<f64>,
    /// The lowest rate that was not; `None`: all were.
    pub too_much: Option<f64>,
    /// The bound.
    pub bound: Duration,
    /// Rates in the order they were tried.
    pub trials: Vec<Trial>,
}

/// One rate tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Offered, mails a second.
    pub rate: f64,
    /// Answered, mails a second.
    pub answered: f64,
    /// p99 from due to answered; of mails that were not begun, what they had waited.
    pub p99: Duration,
    /// Mails put off, or without an answer.
    pub failed: u64,
    /// Whether it was under the bound.
    pub good: bool,
}

/// Hears along for one rate.
struct Listening<W> {
    inner: Arc<W>,
    /// Microseconds.
    latencies: Mutex<Histogram<u64>>,
    answered: AtomicU64,
    failed: AtomicU64,
}

impl<W> Listening<W> {
    fn new(inner: &Arc<W>) -> Option<Self> {
        let latencies = Mutex::new(Histogram::new_with_bounds(1, 3_600_000_000, 3).ok()?);
        Some(Self { inner: Arc::clone(inner), latencies, answered: AtomicU64::new(0), failed: AtomicU64::new(0) })
    }

    fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }
}

impl<W: Witness> Witness for Listening<W> {
    fn begun(&self, mail: &Mail, due: Instant) {
        self.inner.begun(mail, due);
    }

    fn ended(&self, mail: &Mail, sending: &Sending) {
        let settled = |answer: &Answered| matches!(answer, Answered::Taken | Answered::Refused(_));
        let counter = if sending.answers.iter().all(settled) { &self.answered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        self.record(sending.ended.saturating_duration_since(sending.due));
        self.inner.ended(mail, sending);
    }

    fn overdue(&self, due: Instant, end: Instant) {
        self.record(end.saturating_duration_since(due));
        self.inner.overdue(due, end);
    }

    fn broke(&self, at: Instant) {
        self.inner.broke(at);
    }
}

/// Which rate to try next. P.
struct Search {
    good: Option<f64>,
    bad: Option<f64>,
    most: f64,
    least: f64,
}

impl Search {
    fn new(from: f64, most: f64) -> Self {
        Self { good: None, bad: None, most, least: from / 1024.0 }
    }

    fn heard(&mut self, rate: f64, good: bool) {
        *(if good { &mut self.good } else { &mut self.bad }) = Some(rate);
    }

    /// `None`: near enough.
    fn next(&self) -> Option<f64> {
        match (self.good, self.bad) {
            (None, None) => None,
            (Some(good), None) if good >= self.most => None,
            (Some(good), None) => Some((good * 2.0).min(self.most)),
            (None, Some(bad)) => Some(bad / 2.0).filter(|rate| *rate >= self.least),
            (Some(good), Some(bad)) if bad <= good * NEAR => None,
            (Some(good), Some(bad)) => Some((good + bad) / 2.0),
        }
    }
}

impl<S: Source, W: Witness> Generator<S, W> {
    pub(super) async fn search(&self) -> Sent {
        let Pace::Knee { from, p99, each, most, poisson } = self.scenario.pace else {
            return self.send(None, Some(0), None).await;
        };
        let bound = self.scenario.bound;
        let over = bound.time.and_then(|time| Instant::now().checked_add(time));
        let mut search = Search::new(from, most);
        let mut sent: Option<Sent> = None;
        let (mut trials, mut rate) = (Vec::new(), Some(from));
        while let Some(now) = rate.filter(|_| trials.len() < TRIALS) {
            let (one, trial) = self.trial(now, each, p99, poisson).await;
            let stopped = one.stopped;
            sent = Some(sent.map_or_else(|| one.clone(), |all| joined(all, &one)));
            if stopped {
                break;
            }
            search.heard(now, trial.good);
            trials.push(trial);
            let left = bound.mails.is_none_or(|most| self.begun() < most);
            rate = search.next().filter(|_| left && over.is_none_or(|over| Instant::now() < over));
        }
        let knee = Knee { rate: search.good, too_much: search.bad, bound: p99, trials };
        match sent {
            Some(sent) => Sent { knee: Some(knee), ..sent },
            None => self.send(None, Some(0), None).await,
        }
    }

    async fn trial(&self, rate: f64, each: Duration, bound: Duration, poisson: bool) -> (Sent, Trial) {
        let schedule = self.at_rate(rate, each, poisson);
        let Some(listening) = Listening::new(&self.witness).map(Arc::new) else {
            let sent = self.send(Some(schedule), None, Some(each)).await;
            return (sent, Trial { rate, answered: 0.0, p99: Duration::MAX, failed: 0, good: false });
        };
        let sent = self.send_to(&listening, Some(schedule), None, Some(each)).await;
        let p99 = listening.latencies.lock().unwrap_or_else(PoisonError::into_inner).value_at_quantile(0.99);
        let p99 = Duration::from_micros(p99);
        let (answered, failed) = (listening.answered.load(Ordering::Relaxed), listening.failed.load(Ordering::Relaxed));
        let took = sent.ended.saturating_duration_since(sent.began).max(each).as_secs_f64();
        let good =
            p99 <= bound && failed.saturating_mul(FAILED_SHARE) <= sent.mails && *self.phase.borrow() == Phase::Going;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let answered = answered as f64 / took;
        (sent, Trial { rate, answered, p99, failed, good })
    }
}

fn joined(all: Sent, one: &Sent) -> Sent {
    Sent {
        began: all.began,
        ended: one.ended,
        mails: all.mails.saturating_add(one.mails),
        overdue: all.overdue.saturating_add(one.overdue),
        connections: all.connections.saturating_add(one.connections),
        broken: all.broken.saturating_add(one.broken),
        stopped: one.stopped,
        knee: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates tried where everything up to `knee` is good.
    fn found(from: f64, most: f64, knee: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(from, most);
        let (mut rate, mut trials) = (Some(from), 0);
        while let Some(now) = rate {
            assert!(now <= most.max(from));
            search.heard(now, now <= knee);
            rate = search.next();
            trials += 1;
            assert!(trials < TRIALS);
        }
        (search.good, trials)
    }

    #[test]
    fn the_knee_is_found_within_five_percent_below() {
        for knee in [0.9, 3.0, 99.0, 100.0, 101.0, 777.0, 12_345.0, 99_999.0] {
            let (good, trials) = found(100.0, 100_000.0, knee);
            let good = good.unwrap();
            assert!(good <= knee && good * NEAR >= knee * 0.999, "{good} for {knee}");
            assert!(trials <= 20, "{trials}");
        }
        assert_eq!(found(100.0, 1_000.0, 1e9).0, Some(1_000.0), "never beyond `most`");
        assert_eq!(found(100.0, 1_000.0, 0.0).0, None);
    }
}

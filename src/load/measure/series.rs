//! Bounded lists of counts and latencies by time.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{COARSE, at_quantile, histogram, micros};

/// Intervals at most; one more, and they double in width.
pub(super) const MOST: usize = 512;

/// What ended within one interval.
#[derive(Debug, Clone)]
pub(super) struct Interval {
    pub(super) classes: [u64; 5],
    pub(super) octets: u64,
    pub(super) delivered: u64,
    pub(super) answer: Histogram<u32>,
    pub(super) delivery: Histogram<u32>,
}

/// Sums of counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) classes: [u64; 5],
    pub(super) octets: u64,
    pub(super) delivered: u64,
}

#[derive(Debug)]
pub(super) struct Series {
    /// Seconds.
    width: u64,
    intervals: Vec<Interval>,
}

/// A run over time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Points {
    /// Of one interval, in seconds.
    pub width: u64,
    /// One after the other, from the origin on.
    pub points: Vec<Point>,
}

/// One interval. Times in microseconds, to 1 %; 0 where there was none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Point {
    /// Mails answered, by class in the order of [`super::Class::ALL`].
    pub classes: [u64; 5],
    /// Octets of the contents taken.
    pub octets: u64,
    /// Arrivals at the sink.
    pub delivered: u64,
    /// From due to answered: p50, p99, longest.
    pub answer: [u64; 3],
    /// From due to arrived: p50, p99, longest.
    pub delivery: [u64; 3],
}

impl Interval {
    fn new() -> Self {
        Self { classes: [0; 5], octets: 0, delivered: 0, answer: histogram(COARSE), delivery: histogram(COARSE) }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.classes.iter_mut().zip(other.classes) {
            *sum = sum.saturating_add(more);
        }
        self.octets = self.octets.saturating_add(other.octets);
        self.delivered = self.delivered.saturating_add(other.delivered);
        // Both grow: there is room for whatever is added.
        let _ = self.answer.add(&other.answer);
        let _ = self.delivery.add(&other.delivery);
    }

    fn point(&self) -> Point {
        let three =
            |of: &Histogram<u32>| [at_quantile(of, 0.5), at_quantile(of, 0.99), at_quantile(of, 1.0)].map(micros);
        Point {
            classes: self.classes,
            octets: self.octets,
            delivered: self.delivered,
            answer: three(&self.answer),
            delivery: three(&self.delivery),
        }
    }
}

impl Series {
    pub(super) fn new() -> Self {
        Self { width: 1, intervals: Vec::new() }
    }

    /// Changes the interval of a time since the origin.
    pub(super) fn within(&mut self, since: Duration, change: impl FnOnce(&mut Interval)) {
        let place = loop {
            match usize::try_from(since.as_secs() / self.width) {
                Ok(place) if place < MOST => break place,
                _ => self.coarsen(),
            }
        };
        if place >= self.intervals.len() {
            self.intervals.resize_with(place + 1, Interval::new);
        }
        if let Some(interval) = self.intervals.get_mut(place) {
            change(interval);
        }
    }

    fn coarsen(&mut self) {
        self.width = self.width.saturating_mul(2);
        let mut old = std::mem::take(&mut self.intervals).into_iter();
        while let Some(mut first) = old.next() {
            if let Some(second) = old.next() {
                first.add(&second);
            }
            self.intervals.push(first);
        }
    }

    /// Adds what another one counted from the same origin.
    pub(super) fn add(&mut self, other: &Self) {
        while self.width < other.width {
            self.coarsen();
        }
        for (place, interval) in (0..).zip(&other.intervals) {
            self.within(Duration::from_secs(other.width.saturating_mul(place)), |sum| sum.add(interval));
        }
    }

    pub(super) fn total(&self) -> Total {
        let mut total = Total::default();
        for interval in &self.intervals {
            for (sum, more) in total.classes.iter_mut().zip(interval.classes) {
                *sum = sum.saturating_add(more);
            }
            total.octets = total.octets.saturating_add(interval.octets);
            total.delivered = total.delivered.saturating_add(interval.delivered);
        }
        total
    }

    pub(super) fn points(&self) -> Points {
        Points { width: self.width, points: self.intervals.iter().map(Interval::point).collect() }
    }
}

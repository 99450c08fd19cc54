//! What numbers are kept in: atomics in the order of their labels' words, and how they are told.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::text::{Kind, Text};

/// Names that configurations may bring in the life of a process; those beyond are counted as `other`.
pub(super) const NAMES: usize = 1_000;
/// Under this name.
const OTHER: &str = "other";

/// The values of a label: words of ours.
pub trait Label: Copy + PartialEq + 'static {
    /// All of them, in the order in which they are told.
    const ALL: &'static [Self];
    /// How it is told.
    fn word(self) -> &'static str;
}

/// What is counted by: a label, or several.
pub trait Key: Copy {
    /// How many there are.
    fn count() -> usize;
    /// Its place among them.
    fn at(self) -> usize;
    /// The words of each, in the order of places.
    fn words() -> Vec<Vec<&'static str>>;
}

impl<A: Label> Key for A {
    fn count() -> usize {
        A::ALL.len()
    }
    fn at(self) -> usize {
        A::ALL.iter().position(|one| *one == self).unwrap_or(usize::MAX)
    }
    fn words() -> Vec<Vec<&'static str>> {
        A::ALL.iter().map(|one| vec![one.word()]).collect()
    }
}

impl<A: Label, B: Key> Key for (A, B) {
    fn count() -> usize {
        A::count() * B::count()
    }
    fn at(self) -> usize {
        self.0.at().saturating_mul(B::count()).saturating_add(self.1.at())
    }
    fn words() -> Vec<Vec<&'static str>> {
        let behind = B::words();
        let with = |one: &A| {
            let one = one.word();
            behind.iter().map(move |rest| std::iter::once(one).chain(rest.iter().copied()).collect())
        };
        A::ALL.iter().flat_map(with).collect()
    }
}

/// Grows, for each key by itself.
#[derive(Debug)]
pub struct Sums<K>(Box<[AtomicU64]>, PhantomData<K>);

impl<K: Key> Default for Sums<K> {
    fn default() -> Self {
        Self((0..K::count()).map(|_| AtomicU64::new(0)).collect(), PhantomData)
    }
}

impl<K: Key> Sums<K> {
    /// One more.
    pub fn one(&self, key: K) {
        self.add(key, 1);
    }

    /// So many more.
    pub fn add(&self, key: K, more: u64) {
        if let Some(sum) = self.0.get(key.at()) {
            sum.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// So far.
    pub fn get(&self, key: K) -> u64 {
        self.0.get(key.at()).map_or(0, |sum| sum.load(Ordering::Relaxed))
    }

    /// A sample for each key, behind the label in front; `all`: also of those that never came about.
    pub fn write(&self, text: &mut Text, name: &str, front: Option<(&str, &str)>, labels: &[&str], all: bool) {
        for (words, sum) in K::words().iter().zip(&self.0) {
            let sum = sum.load(Ordering::Relaxed);
            if all || sum > 0 {
                let own = labels.iter().copied().zip(words.iter().copied());
                let labels: Vec<(&str, &str)> = front.into_iter().chain(own).collect();
                text.sample(name, &labels, sum as f64);
            }
        }
    }
}

/// A family of counters: its name, what it is, its labels, and the numbers.
#[derive(Debug)]
pub struct Family<K> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    sums: Sums<K>,
}

impl<K: Key> Family<K> {
    pub(super) fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, sums: Sums::default() }
    }

    /// One more.
    pub fn one(&self, key: K) {
        self.sums.one(key);
    }

    /// So many more.
    pub fn add(&self, key: K, more: u64) {
        self.sums.add(key, more);
    }

    pub(super) fn write(&self, text: &mut Text) {
        text.family(self.name, Kind::Counter, self.help);
        self.sums.write(text, self.name, None, self.labels, true);
    }
}

/// The same for each of the names that configurations have; told of those that came about.
#[derive(Debug)]
pub struct Named<K> {
    name: &'static str,
    help: &'static str,
    /// That of the names first.
    labels: &'static [&'static str],
    all: RwLock<BTreeMap<String, Arc<Sums<K>>>>,
}

impl<K: Key> Named<K> {
    pub(super) fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, all: RwLock::default() }
    }

    /// One more.
    pub fn one(&self, name: &str, key: K) {
        self.of(name).one(key);
    }

    fn of(&self, name: &str) -> Arc<Sums<K>> {
        type All<K> = BTreeMap<String, Arc<Sums<K>>>;
        let counted_as =
            |all: &All<K>| if all.contains_key(name) || all.len() < NAMES { name.to_owned() } else { OTHER.to_owned() };
        {
            let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(sums) = all.get(name).or_else(|| all.get(&counted_as(&all))) {
                return sums.clone();
            }
        }
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let name = counted_as(&all);
        all.entry(name).or_default().clone()
    }

    pub(super) fn write(&self, text: &mut Text) {
        text.family(self.name, Kind::Counter, self.help);
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((label, labels)) = self.labels.split_first() else { return };
        for (name, sums) in &all {
            sums.write(text, self.name, Some((label, name)), labels, false);
        }
    }
}

/// Upper bounds of the buckets of latencies, in microseconds.
const BOUNDS: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    15_000_000, 60_000_000,
];

/// Latencies.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Each its own; the last holds what is beyond all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// Takes one in.
    pub(super) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn write(&self, text: &mut Text, name: &str, label: (&str, &str)) {
        let mut sum = 0u64;
        let bounds = BOUNDS.iter().map(|micros| format!("{}", *micros as f64 / 1e6)).chain(["+Inf".to_owned()]);
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            sum = sum.saturating_add(bucket.load(Ordering::Relaxed));
            text.sample(&format!("{name}_bucket"), &[label, ("le", &bound)], sum as f64);
        }
        text.sample(&format!("{name}_sum"), &[label], self.micros.load(Ordering::Relaxed) as f64 / 1e6);
        text.sample(&format!("{name}_count"), &[label], sum as f64);
    }
}

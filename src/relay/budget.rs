//! The budget of bytes in flight for the whole process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Octets that may be in flight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<AtomicU64>,
}

/// Octets reserved; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    free: Arc<AtomicU64>,
    octets: u64,
}

/// The budget is used up: 452 4.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes in flight")]
pub struct OverBudget;

impl Budget {
    /// A budget of `octets`.
    pub fn new(octets: u64) -> Self {
        Self { free: Arc::new(AtomicU64::new(octets)) }
    }

    /// Reserves at once or fails; never waits.
    pub fn reserve(&self, octets: u64) -> Result<Reservation, OverBudget> {
        take(&self.free, octets)?;
        Ok(Reservation { free: Arc::clone(&self.free), octets })
    }

    /// Octets that can be reserved now.
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Grows to at least `octets`; on failure the reservation stays as it was.
    pub fn grow_to(&mut self, octets: u64) -> Result<(), OverBudget> {
        if let Some(more) = octets.checked_sub(self.octets) {
            take(&self.free, more)?;
            self.octets = octets;
        }
        Ok(())
    }

    /// Octets reserved.
    pub fn octets(&self) -> u64 {
        self.octets
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.free.fetch_add(self.octets, Ordering::Relaxed);
    }
}

fn take(free: &AtomicU64, octets: u64) -> Result<(), OverBudget> {
    free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| now.checked_sub(octets))
        .map(|_| ())
        .map_err(|_| OverBudget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_comes_back_on_drop() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(41).unwrap_err(), OverBudget);
        let second = budget.reserve(40).unwrap();
        assert_eq!(first.grow_to(61), Err(OverBudget));
        assert_eq!(first.octets(), 60);
        drop(second);
        first.grow_to(100).unwrap();
        first.grow_to(10).unwrap();
        assert_eq!((first.octets(), budget.free()), (100, 0));
        drop(first);
        assert_eq!(budget.free(), 100);
    }

    #[test]
    fn many_threads_never_exceed_the_budget() {
        let budget = Budget::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for octets in 0..5_000 {
                        if let Ok(mut held) = budget.reserve(octets % 400) {
                            let _ = held.grow_to(octets % 700);
                            assert!(budget.free() <= 1000);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.free(), 1000);
    }
}

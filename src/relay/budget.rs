//! The budget of bytes in flight for the whole process.

use std::sync::Arc;

/// Octets that may be in flight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    _rest: Arc<()>,
}

/// Octets reserved; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    _rest: (),
}

/// The budget is used up: 452 4.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes in flight")]
pub struct OverBudget;

impl Budget {
    /// A budget of `octets`.
    pub fn new(_octets: u64) -> Self {
        todo!()
    }
    /// Reserves at once or fails; never waits.
    pub fn reserve(&self, _octets: u64) -> Result<Reservation, OverBudget> {
        todo!()
    }
}

impl Reservation {
    /// Grows to at least `octets`.
    pub fn grow_to(&mut self, _octets: u64) -> Result<(), OverBudget> {
        todo!()
    }
}

//! How a store does, for those who watch.

use std::time::Duration;

/// How a store does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreState {
    /// Grows with each change that is known here.
    pub generation: u64,
    /// Records found missing or not authentic so far.
    pub alerts: u64,
    /// Records that a later version of Waxwing wrote.
    pub later: u64,
    /// Why it does not answer now.
    pub unusable: Option<String>,
    /// Where it is a copy of a shared one.
    pub shared: Option<SharedState>,
}

/// How a copy stands to the shared store, as far as is known without asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedState {
    /// Everything up to this revision is here.
    pub revision: u64,
    /// Revisions that are known of and not here yet.
    pub behind: u64,
    /// Since this copy was last proven fresh; `None`: it never was.
    pub age: Option<Duration>,
    /// Changes of the shared store come here as they are made.
    pub connected: bool,
}

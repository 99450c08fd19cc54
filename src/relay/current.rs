//! A value that is replaced as a whole while others use it.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

/// What is in use now. Who has it goes on with it when it is replaced.
#[derive(Debug)]
pub struct Current<T> {
    value: RwLock<Arc<T>>,
    changed: Notify,
}

impl<T> Current<T> {
    /// In use from now on.
    pub fn new(value: T) -> Self {
        Self { value: RwLock::new(Arc::new(value)), changed: Notify::new() }
    }

    /// What is in use now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it.
    pub fn set(&self, value: T) {
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
        self.changed.notify_one();
    }

    /// Waits until it was replaced; one waits.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

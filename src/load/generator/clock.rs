//! Wakes tasks at exact times: the runtime's own timer counts in milliseconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// A thread that wakes; it ends when the last clone of this is dropped.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    asked: Sender<(Instant, oneshot::Sender<()>)>,
}

struct Waiter(Instant, oneshot::Sender<()>);

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Waiter {}
impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Clock {
    pub(super) fn start() -> io::Result<Self> {
        let (asked, asks) = channel();
        std::thread::Builder::new().name("load-clock".into()).spawn(move || wake(&asks))?;
        Ok(Self { asked })
    }

    /// Returns at `until`, some 50 µs late.
    pub(super) async fn until(&self, until: Instant) {
        if until <= Instant::now() {
            return;
        }
        let (sender, receiver) = oneshot::channel();
        // The thread lives as long as we do.
        if self.asked.send((until, sender)).is_ok() {
            let _ = receiver.await;
        }
    }
}

fn wake(asks: &Receiver<(Instant, oneshot::Sender<()>)>) {
    let mut waiters: BinaryHeap<Reverse<Waiter>> = BinaryHeap::new();
    loop {
        let now = Instant::now();
        while waiters.peek().is_some_and(|Reverse(next)| next.0 <= now) {
            if let Some(Reverse(Waiter(_, sender))) = waiters.pop() {
                // Who does not wait any more does not mind.
                let _ = sender.send(());
            }
        }
        let wait = waiters.peek().map_or(Duration::from_secs(3_600), |Reverse(next)| next.0 - now);
        match asks.recv_timeout(wait) {
            Ok((until, sender)) => waiters.push(Reverse(Waiter(until, sender))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_in_order_and_never_early() {
        let clock = Clock::start().unwrap();
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for milliseconds in [30, 10, 20, 0] {
            let clock = clock.clone();
            tasks.spawn(async move {
                let until = start + Duration::from_millis(milliseconds);
                clock.until(until).await;
                assert!(Instant::now() >= until);
                milliseconds
            });
        }
        let mut woken = Vec::new();
        while let Some(one) = tasks.join_next().await {
            woken.push(one.unwrap());
        }
        assert_eq!(woken, [0, 10, 20, 30]);
    }
}

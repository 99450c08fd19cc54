//! How long a task is polled at a time: what is polled for long holds up all other tasks of its thread.
//!
//! It is looked at where `waxwing::polls` is logged (`RUST_LOG=warn,waxwing::polls=debug`), since it asks two clocks before and after each
//! poll; else a task costs nothing more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What is longer is told.
const LONG: Duration = Duration::from_millis(2);

/// Octets that a task carries from or to a socket before it lets others have their turn: well under a millisecond of work.
const TURN: usize = 256 * 1024;

/// What a task has carried since others had their turn. A socket that is always ready would let it go on for many times as long.
#[derive(Debug, Default)]
pub(super) struct Turn(usize);

impl Turn {
    /// Adds octets; says whether others are to have their turn now.
    pub(super) fn over(&mut self, octets: usize) -> bool {
        self.0 = self.0.saturating_add(octets);
        let over = self.0 >= TURN;
        if over {
            self.0 = 0;
        }
        over
    }
}

/// A task whose polls are looked at. Made by [`watched`].
pub(super) struct Watched<F> {
    task: &'static str,
    future: Pin<Box<F>>,
    looked_at: bool,
}

/// Looks at the polls of a future, where that is wanted now; `task` says in the log what it is.
pub(super) fn watched<F: Future>(task: &'static str, future: F) -> Watched<F> {
    let looked_at = tracing::enabled!(target: "waxwing::polls", tracing::Level::DEBUG);
    Watched { task, future: Box::pin(future), looked_at }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this.looked_at {
            return this.future.as_mut().poll(context);
        }
        let (began, used) = (Instant::now(), processor_time());
        let polled = this.future.as_mut().poll(context);
        let took = began.elapsed();
        if took > LONG {
            // Of the time that passed, what the thread was not running for is the machine's doing.
            let cpu = processor_time().saturating_sub(used);
            tracing::debug!(target: "waxwing::polls", task = this.task, took_us = micros(took), cpu_us = micros(cpu), "polled for long");
        }
        polled
    }
}

/// What this thread has used.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn polled(level: tracing::Level) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(level)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let busy = async {
                let began = processor_time();
                while processor_time().saturating_sub(began) < 2 * LONG {
                    std::hint::spin_loop();
                }
                7
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert_eq!(runtime.block_on(watched("busy", busy)), 7);
            runtime.block_on(watched("quick", async {}));
        });
        log.text()
    }

    #[test]
    fn others_have_their_turn_each_so_many_octets() {
        let mut turn = Turn::default();
        let turns = (0..64).filter(|_| turn.over(TURN / 16)).count();
        assert_eq!(turns, 4);
        assert!(!turn.over(TURN - 1) && turn.over(usize::MAX) && !turn.over(1));
    }

    #[test]
    fn a_long_poll_is_told_with_the_time_it_used_and_a_short_one_is_not() {
        let told = polled(tracing::Level::DEBUG);
        let cpu = told.split("cpu_us=").nth(1).and_then(|rest| rest.split_whitespace().next()).map(str::parse::<u64>);
        assert!(cpu.unwrap().unwrap() >= 4_000, "{told}");
        assert!(told.contains("busy") && !told.contains("quick"), "{told}");
        assert_eq!(polled(tracing::Level::INFO), "", "nobody asked");
    }
}

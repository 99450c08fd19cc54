//! How a run goes, on standard error: a bar on a terminal, else a line now and then.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::load::measure::{Live, Recorder};
use crate::load::report::show;
use crate::load::scenario::{FOREVER, Pace, Scenario};

/// Between two looks on a terminal.
const TICK: Duration = Duration::from_millis(250);
/// Between two lines elsewhere: enough to see that it goes on, few enough for a log.
const LINE: Duration = Duration::from_secs(10);

/// Shows until it is dropped.
pub struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a bar is full at.
enum Whole {
    Mails(u64),
    Time(Duration),
    /// Nobody knows.
    None,
}

impl Whole {
    fn of(scenario: &Scenario) -> Self {
        let steps = match &scenario.pace {
            Pace::Open { steps, .. } => {
                Some(steps.iter().map(|step| step.lasts).fold(Duration::ZERO, Duration::saturating_add))
            }
            _ => None,
        };
        let time = scenario.bound.time.into_iter().chain(steps).min().filter(|time| *time < FOREVER);
        match (scenario.bound.mails, time) {
            (Some(mails), _) => Self::Mails(mails),
            (None, Some(time)) => Self::Time(time),
            (None, None) => Self::None,
        }
    }

    fn bar(&self) -> ProgressBar {
        let (bar, template) = match self {
            Self::Mails(mails) => (ProgressBar::new(*mails), "{bar:20} {pos}/{len} mails  {msg}"),
            Self::Time(time) => (ProgressBar::new(time.as_secs().max(1)), "{bar:20} {pos}/{len} s  {msg}"),
            Self::None => (ProgressBar::new_spinner(), "{spinner} {elapsed}  {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }
}

impl Progress {
    /// Begins to show what a recorder takes in.
    pub fn start(recorder: Arc<Recorder>, scenario: &Scenario) -> Self {
        let whole = Whole::of(scenario);
        let (stop, stopped) = channel::<()>();
        let show = move || {
            let began = Instant::now();
            let terminal = std::io::stderr().is_terminal();
            let bar = if terminal { whole.bar() } else { ProgressBar::hidden() };
            let every = if terminal { TICK } else { LINE };
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let live = recorder.live(Instant::now());
                if !terminal {
                    eprintln!("waxwing: {} s: {}", began.elapsed().as_secs(), words(&live));
                    continue;
                }
                bar.set_message(words(&live));
                match &whole {
                    Whole::Mails(mails) => bar.set_position(live.classes.iter().sum::<u64>().min(*mails)),
                    Whole::Time(time) => bar.set_position(began.elapsed().min(*time).as_secs()),
                    Whole::None => bar.tick(),
                }
            }
            bar.finish_and_clear();
        };
        // Without a thread nothing is shown; the run goes on.
        let thread = std::thread::Builder::new().name("load-progress".into()).spawn(show).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The last second, and all until now.
fn words(live: &Live) -> String {
    let micros = |time| show::micros(show::whole_micros(time));
    let [taken, ..] = live.classes;
    let others = live.classes.iter().sum::<u64>().saturating_sub(taken);
    let mut words = format!(
        "{}/s, p50 {}, p99 {}; {} taken",
        show::count(live.answered),
        micros(live.p50),
        micros(live.p99),
        show::count(taken)
    );
    if others > 0 {
        words.push_str(&format!(", {} not", show::count(others)));
    }
    if live.delivered > 0 {
        words.push_str(&format!(", {} delivered", show::count(live.delivered)));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_rate_latency_and_counts() {
        let (p50, p99) = (Duration::from_micros(1_230), Duration::from_millis(45));
        let mut live = Live { answered: 1_234, p50, p99, classes: [10_000, 0, 0, 0, 0], delivered: 0 };
        assert_eq!(words(&live), "1,234/s, p50 1.23 ms, p99 45.0 ms; 10,000 taken");
        live.classes = [10_000, 1, 2, 3, 4];
        live.delivered = 9_999;
        assert!(words(&live).ends_with("; 10,000 taken, 10 not, 9,999 delivered"));
    }
}

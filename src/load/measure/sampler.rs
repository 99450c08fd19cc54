//! Reads /proc by the clock.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::process::{Family, Stat, Units, Usage, Watch, stat};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// A thread that looks at processes until it is told to stop.
#[derive(Debug)]
pub struct Sampler {
    /// Dropped, it ends the thread.
    stop: Sender<()>,
    thread: JoinHandle<Vec<Usage>>,
}

impl Sampler {
    /// Begins to look; times count from `origin`. The first look has been taken when this returns.
    pub fn start(origin: Instant, watched: Vec<Watch>) -> io::Result<Self> {
        let units = Units::read(&fs::read("/proc/self/auxv").unwrap_or_default());
        let mut families: Vec<Family> = watched.into_iter().map(|watch| Family::new(watch, units)).collect();
        let look = move |families: &mut Vec<Family>| {
            let all = processes();
            families.iter_mut().for_each(|family| family.look(origin.elapsed(), &all));
        };
        look(&mut families);
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new().name("load-sampler".into()).spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                look(&mut families);
            }
            look(&mut families);
            families.iter().map(Family::usage).collect()
        })?;
        Ok(Self { stop, thread })
    }

    /// Takes a last look; what was used.
    pub fn finish(self) -> Vec<Usage> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

/// The watch on this process: children are somebody else's.
pub fn own(name: &str) -> Watch {
    Watch { name: name.to_owned(), pid: std::process::id(), children: false }
}

/// All processes; those that end meanwhile, and those that may not be looked at, are left out.
fn processes() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    pids.filter_map(|entry| stat(&fs::read(entry.path().join("stat")).ok()?)).collect()
}

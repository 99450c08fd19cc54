//! Where events are written: into memory, and from there by a thread of its own, so that no mail waits for standard error.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Octets that may wait; lines beyond are lost, counted, and the count is told.
const ROOM: usize = 4 << 20;
/// Lines are gathered for this long before they are written: one write and one wake-up for many.
const GATHER: Duration = Duration::from_millis(20);

/// Writes events to `out` behind the threads that tell them: warnings and errors at once, others a little later, in order.
#[derive(Clone)]
pub(super) struct Appender {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    told: Condvar,
    /// Held while writing, so that lines stay in order.
    out: Mutex<Box<dyn Write + Send>>,
}

#[derive(Default)]
struct Waiting {
    octets: Vec<u8>,
    lost: u64,
    urgent: bool,
}

impl Appender {
    /// The thread that writes ends with the process.
    pub(super) fn start(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), told: Condvar::new(), out: Mutex::new(out) });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("log".into()).spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// Writes what waits: before the process ends.
    pub(super) fn flush(&self) {
        self.shared.write();
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut waiting = lock(&self.waiting);
            while waiting.octets.is_empty() {
                waiting = self.told.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            if !waiting.urgent {
                let wait = self.told.wait_timeout_while(waiting, GATHER, |waiting| !waiting.urgent);
                waiting = wait.unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(waiting);
            self.write();
        }
    }

    fn write(&self) {
        let mut out = lock(&self.out);
        let Waiting { octets, lost, .. } = std::mem::take(&mut *lock(&self.waiting));
        // Nobody could be told that the log cannot be written.
        let _ = out.write_all(&octets);
        if lost > 0 {
            let _ = writeln!(out, "{lost} log lines were lost: standard error was not read fast enough");
        }
        let _ = out.flush();
    }

    fn push(&self, line: &[u8], urgent: bool) {
        let mut waiting = lock(&self.waiting);
        if waiting.octets.len().saturating_add(line.len()) > ROOM {
            waiting.lost = waiting.lost.saturating_add(1);
            return;
        }
        let wake = waiting.octets.is_empty() || urgent && !waiting.urgent;
        waiting.octets.extend_from_slice(line);
        waiting.urgent |= urgent;
        drop(waiting);
        if wake {
            self.told.notify_one();
        }
    }
}

/// One event's line.
pub(super) struct Line<'a> {
    appender: &'a Appender,
    urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.appender.shared.push(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Appender {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { appender: self, urgent: false }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { appender: self, urgent: *meta.level() <= Level::WARN }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Gives on what it is given; blocks while nobody takes it.
    struct Pipe(mpsc::SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.send(octets.to_vec()).map_err(io::Error::other)?;
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (pipe, lines) = mpsc::sync_channel(10_000);
        let appender = Appender::start(Box::new(Pipe(pipe))).unwrap();
        let expected: Vec<u8> = (0..1000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
        for number in 0..1000 {
            appender.shared.push(format!("{number}\n").as_bytes(), number % 100 == 0);
        }
        appender.flush();
        assert_eq!(lines.try_iter().flatten().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_stuck_and_what_is_lost_is_counted() {
        let (pipe, lines) = mpsc::sync_channel(0);
        let appender = Appender::start(Box::new(Pipe(pipe))).unwrap();
        let line = vec![b'x'; ROOM / 4];
        appender.shared.push(b"first\n", true);
        assert_eq!(lines.recv().unwrap(), b"first\n");
        for _ in 0..12 {
            appender.shared.push(&line, false);
        }
        // The stuck writer holds four of them at most, and four more wait.
        let (mut written, mut lost) = (0, 0);
        while written + lost < 12 {
            let octets = lines.recv().unwrap();
            written += octets.iter().filter(|octet| **octet == b'x').count() / line.len();
            lost += std::str::from_utf8(&octets)
                .unwrap()
                .trim_start_matches('x')
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap_or(0);
        }
        assert!((4..=8).contains(&lost), "{lost}");
    }
}

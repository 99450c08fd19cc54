//! What private keys were used for, and what was changed in the store: a file of JSON lines, each of which holds the hash of the line before.
//!
//! The answer of a private key is not given out before its line is in the file, and while that cannot be written no key is used. Lines are
//! written by a thread, many at once, so that a mail costs a wake-up and no write of its own; the disk is told to keep them every few seconds
//! (`SYNC`), so that a loss of power may take the last of them: what is lost then is the end, never something between.

/// P: lines, their hashes, and whether a chain is whole.
pub mod chain;
/// The file.
mod file;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::file::ChainFile;
use crate::config;
use crate::keys::KeyId;

/// Lines that wait to be written; who finds no room waits as if the file could not be written.
const WAITING: usize = 16_384;
/// Written with one write.
const AT_ONCE: usize = 1_024;
/// How often the disk is told to keep what was written.
const SYNC: Duration = Duration::from_secs(5);
/// How often a file that cannot be written is tried.
const TRY: Duration = Duration::from_secs(1);
/// Characters of a value that outsiders chose.
const LONGEST: usize = 400;

/// Why nothing is written down: no private key is used, and nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit log {} cannot be written, so that no private key is used and nothing is changed: {why}", file.display())]
pub struct AuditError {
    /// The file.
    pub file: PathBuf,
    /// What the system says.
    pub why: String,
}

/// What a private key was used for.
#[derive(Debug, Clone, Copy)]
pub struct KeyRecord<'a> {
    /// `sign`, `unwrap`, `agree`, `decapsulate` or `export`.
    pub operation: &'static str,
    /// The id of the mail in the log; empty: none.
    pub mail: &'a str,
    /// Whose mail was signed or opened.
    pub mailbox: &'a str,
    /// SHA-256 of the certificate, where it is known.
    pub certificate: Option<[u8; 32]>,
    /// The key.
    pub key: KeyId,
    /// `done`, or why not.
    pub outcome: &'a str,
}

/// A record that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// `certificate`, `key`, `trust`, `alias`, `owner`, `kek` …
    pub operation: &'static str,
    /// Whose: a mailbox, a domain (`@example.org`), the name of a key.
    pub subject: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub certificate: Option<String>,
    /// What it is now.
    pub what: String,
}

type Tell = Box<dyn FnOnce(Result<(), AuditError>) + Send>;

/// One line to be written, without its place in the chain, and who waits for it.
struct Order {
    body: Value,
    tell: Option<Tell>,
}

/// The audit log of this process. Cheap to clone; the thread behind it ends when the last clone is gone and all is written.
#[derive(Clone)]
pub struct AuditLog {
    orders: mpsc::SyncSender<Order>,
    shared: Arc<Shared>,
}

struct Shared {
    file: PathBuf,
    /// Why it cannot be written now.
    trouble: Mutex<Option<String>>,
    /// The number and the hash of the last line.
    head: Mutex<(u64, String)>,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditLog({})", self.shared.file.display())
    }
}

impl AuditLog {
    /// Opens the file, or makes it, and begins to write. A file that a process which crashed left with half a line is gone on with.
    ///
    /// # Errors
    /// The file cannot be opened, or what stands in it is no audit log.
    pub fn open(settings: &config::Audit) -> Result<Self, AuditError> {
        let failed = |why: io::Error| AuditError { file: settings.file.clone(), why: why.to_string() };
        let file = ChainFile::open(settings).map_err(failed)?;
        let (orders, waiting) = mpsc::sync_channel(WAITING);
        let shared =
            Arc::new(Shared { file: settings.file.clone(), trouble: Mutex::default(), head: Mutex::new(file.head()) });
        let writer = Writer { file, shared: Arc::clone(&shared), unrecorded: 0, dirty: false };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&waiting)).map_err(failed)?;
        Ok(Self { orders, shared })
    }

    /// Whether it can be written, as far as is known.
    ///
    /// # Errors
    /// It cannot.
    pub fn works(&self) -> Result<(), AuditError> {
        match &*self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(why) => Err(self.error(why)),
        }
    }

    /// The number and the hash of the last line.
    pub fn head(&self) -> (u64, String) {
        self.shared.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes down the use of a key; returns when the line is in the file.
    ///
    /// # Errors
    /// It is not: what the key answered must not be used.
    pub async fn key_used(&self, used: KeyRecord<'_>) -> Result<(), AuditError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        // Who asked may be gone.
        self.order(key_body(used), Some(Box::new(move |written| drop(tell.send(written)))))?;
        told.await.unwrap_or_else(|_| Err(self.error("its thread ended")))
    }

    /// The same, for who may wait.
    ///
    /// # Errors
    /// The line is not in the file.
    pub fn key_used_now(&self, used: KeyRecord<'_>) -> Result<(), AuditError> {
        self.write(vec![key_body(used)])
    }

    /// Writes down what is changed and by whom, a line for each record; returns when they are in the file.
    ///
    /// # Errors
    /// They are not.
    pub fn changed(&self, by: &str, changed: &[Changed]) -> Result<(), AuditError> {
        let at = Timestamp::now().to_string();
        let line = |one: &Changed| {
            json!({
                "time": at, "op": "change", "by": bounded(by), "kind": one.operation, "subject": bounded(&one.subject),
                "certificate": one.certificate, "outcome": bounded(&one.what),
            })
        };
        self.write(changed.iter().map(line).collect())
    }

    fn write(&self, bodies: Vec<Value>) -> Result<(), AuditError> {
        let Some(last) = bodies.len().checked_sub(1) else { return Ok(()) };
        let (tell, told) = mpsc::channel();
        for (at, body) in bodies.into_iter().enumerate() {
            let tell = tell.clone();
            // One that failed lets all that come after it in the same batch fail; a batch may end between them.
            let told: Tell = Box::new(move |written: Result<(), AuditError>| {
                if at == last || written.is_err() {
                    let _ = tell.send(written);
                }
            });
            // Here it may be waited for room.
            let order = Order { body, tell: Some(told) };
            self.orders.send(order).map_err(|_| self.error("its thread ended"))?;
        }
        drop(tell);
        told.recv().unwrap_or_else(|_| Err(self.error("its thread ended")))
    }

    fn order(&self, body: Value, tell: Option<Tell>) -> Result<(), AuditError> {
        self.works()?;
        self.orders.try_send(Order { body, tell }).map_err(|error| match error {
            TrySendError::Full(_) => self.error("more lines wait than are written"),
            TrySendError::Disconnected(_) => self.error("its thread ended"),
        })
    }

    fn error(&self, why: &str) -> AuditError {
        AuditError { file: self.shared.file.clone(), why: why.to_owned() }
    }
}

/// The file of an audit log and those that were moved aside of it, as far as they are there.
///
/// # Errors
/// Its folder cannot be read.
pub fn files(file: &std::path::Path) -> io::Result<Vec<PathBuf>> {
    let mut files = file::aside(file)?;
    files.sort();
    let there = file.exists().then(|| file.to_owned());
    Ok(files.into_iter().map(|(_, file)| file).chain(there).collect())
}

fn key_body(used: KeyRecord<'_>) -> Value {
    json!({
        "time": Timestamp::now().to_string(), "op": used.operation, "mail": bounded(used.mail),
        "mailbox": bounded(used.mailbox), "certificate": used.certificate.map(|one| chain::hex(&one)),
        "key": chain::hex(&used.key.0), "outcome": bounded(used.outcome),
    })
}

fn bounded(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// The thread's side.
struct Writer {
    file: ChainFile,
    shared: Arc<Shared>,
    /// Lines that could not be written since it last worked: who waited for them was told so.
    unrecorded: u64,
    dirty: bool,
}

impl Writer {
    fn run(mut self, waiting: &mpsc::Receiver<Order>) {
        loop {
            let first = if self.unrecorded > 0 {
                waiting.recv_timeout(TRY)
            } else if self.dirty {
                waiting.recv_timeout(SYNC)
            } else {
                waiting.recv().map_err(RecvTimeoutError::from)
            };
            match first {
                Ok(order) => {
                    let more = waiting.try_iter().take(AT_ONCE - 1);
                    let orders: Vec<Order> = std::iter::once(order).chain(more).collect();
                    self.batch(orders);
                }
                Err(RecvTimeoutError::Timeout) if self.unrecorded > 0 => self.batch(Vec::new()),
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
        }
    }

    /// Writes what there is, and before it what could not be written.
    fn batch(&mut self, orders: Vec<Order>) {
        let (mut bodies, tells): (Vec<Value>, Vec<_>) = orders.into_iter().map(|one| (one.body, one.tell)).unzip();
        let new = bodies.len() as u64;
        if self.unrecorded > 0 {
            let gap = json!({
                "time": Timestamp::now().to_string(), "op": "gap", "subject": self.unrecorded.to_string(),
                "outcome": "lines that could not be written: what they were to say was refused",
            });
            bodies.insert(0, gap);
        }
        let written = self.file.append(&bodies);
        let told = match &written {
            Ok(head) => {
                if self.unrecorded > 0 {
                    tracing::info!(file = %self.shared.file.display(), "the audit log is written again");
                }
                (self.unrecorded, self.dirty) = (0, true);
                *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner) = head.clone();
                self.set_trouble(None);
                Ok(())
            }
            Err(error) => {
                if self.unrecorded == 0 {
                    tracing::error!(file = %self.shared.file.display(), %error, "the audit log cannot be written: no private key is used, nothing is decrypted");
                }
                self.unrecorded = self.unrecorded.saturating_add(new).max(1);
                self.set_trouble(Some(error.to_string()));
                Err(AuditError { file: self.shared.file.clone(), why: error.to_string() })
            }
        };
        tells.into_iter().flatten().for_each(|tell| tell(told.clone()));
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn sync(&mut self) {
        self.dirty = false;
        if let Err(error) = self.file.sync() {
            tracing::error!(file = %self.shared.file.display(), %error, "the disk does not keep the audit log");
            self.unrecorded = self.unrecorded.max(1);
            self.set_trouble(Some(error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests;

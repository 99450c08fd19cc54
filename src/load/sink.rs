//! A mail server that keeps account and can be faulty: where a target hands on to.

/// What a mail says of itself.
mod arrival;
/// What it has to look like.
mod judge;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ledger::{Fault, FaultKind, Ledger};
use super::mails::{MailId, Mails, Plan};
use super::random::Random;
use super::scenario::{Faults, Kind, Scenario};
use crate::address::{Domain, Mailbox, ReversePath};
use crate::config::{Direction, Limits, Listener};
use crate::relay::listen::{self, Answer, Handle, ListenError, Peer, Relay};
use crate::smtp::command::{Enhanced, MailParameters, Recipient, Reply};
use arrival::Arrival;
pub use arrival::fuzz_arrival;
use judge::Judge;

/// KiB of sealed mails that wait to be opened; beyond it the sink answers later.
const WAITING: u32 = 256 << 10;

/// Hears of every mail that arrived for the first time: when, and how long after it was due.
pub type Heard = Arc<dyn Fn(Instant, Duration) + Send + Sync>;

/// The sink at work.
pub struct Sink {
    handle: Handle,
    keep: Arc<Keep>,
}

/// What the sink knows and keeps.
struct Keep {
    mails: Arc<Mails>,
    ledger: Arc<Ledger>,
    heard: Heard,
    verdict: bool,
    faults: Faults,
    seed: u64,
    /// Mails so far, by which faults are drawn.
    number: AtomicU64,
    stalled: Mutex<Option<Instant>>,
    /// Room for what is still to be opened.
    room: Arc<Semaphore>,
}

/// A transaction: whether it is a report, and for whom.
struct Transaction {
    null: bool,
    recipients: Vec<Mailbox>,
}

/// What becomes of a mail at the final dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Take,
    Defer,
    Refuse,
    Close,
}

impl Sink {
    /// Takes the address and listens.
    pub async fn start(
        address: SocketAddr,
        scenario: &Scenario,
        mails: Arc<Mails>,
        ledger: Arc<Ledger>,
        heard: Heard,
    ) -> Result<Self, ListenError> {
        let name = scenario.hello.clone();
        let keep = Arc::new(Keep {
            mails,
            ledger,
            heard,
            verdict: scenario.verdict,
            faults: scenario.sink,
            seed: scenario.seed,
            number: AtomicU64::new(0),
            stalled: Mutex::new(None),
            room: Arc::new(Semaphore::new(usize::try_from(WAITING).unwrap_or(usize::MAX))),
        });
        Ok(Self { handle: listen_on(address, name, Arc::clone(&keep)).await?, keep })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    /// Returns once everything that arrived sealed was opened and looked at.
    pub async fn looked_at(&self) {
        // The semaphore is never closed.
        let _ = self.keep.room.acquire_many(WAITING).await;
    }

    /// Ends; sessions get so long to end by themselves.
    pub async fn shut_down(self, grace: Duration) {
        self.handle.shut_down(grace).await;
    }
}

async fn listen_on(address: SocketAddr, name: Domain, keep: Arc<Keep>) -> Result<Handle, ListenError> {
    let listener = Listener::new("sink", address, Direction::Inbound);
    let most = 20_000;
    let limits = Limits { connections: most, connections_per_client: most, message_size: 1 << 31, ..Limits::default() };
    let postmaster = Mailbox::new("postmaster", name.clone()).map_err(|error| ListenError::Bind {
        name: "sink".into(),
        address,
        why: std::io::Error::new(std::io::ErrorKind::InvalidInput, error.to_string()),
    })?;
    Ok(listen::bind(Arc::new(listener), name, postmaster, &limits).await?.serve(keep))
}

impl Relay for Keep {
    type Transaction = Transaction;

    async fn mail(&self, _: &Arc<Peer>, path: ReversePath, _: MailParameters) -> Result<Transaction, Reply> {
        self.wait_for_a_stall().await;
        Ok(Transaction { null: path == ReversePath::Null, recipients: Vec::new() })
    }

    async fn rcpt(&self, transaction: &mut Transaction, recipient: Recipient) -> Reply {
        transaction.recipients.push(recipient.mailbox);
        Reply::new(250, Enhanced(2, 1, 5), "ok")
    }

    fn growing(&self, _: &mut Transaction, _: u64) -> Result<(), Reply> {
        Ok(())
    }

    async fn message(&self, transaction: Transaction, content: Bytes) -> Answer {
        let at = Instant::now();
        if transaction.null && self.report(&content) {
            return Answer::All(taken());
        }
        let arrival = arrival::read(content);
        let fate = self.fate();
        self.wait_for_a_stall().await;
        if !self.faults.slow.is_zero() {
            tokio::time::sleep(self.faults.slow).await;
        }
        match fate {
            Fate::Take => {
                self.take(&transaction, arrival, at).await;
                Answer::All(taken())
            }
            Fate::Defer => Answer::All(Reply::new(451, Enhanced(4, 3, 0), "the sink defers, as it was told to")),
            Fate::Refuse => {
                self.refused(&transaction, &arrival);
                Answer::All(Reply::new(554, Enhanced(5, 3, 0), "the sink refuses, as it was told to"))
            }
            Fate::Close => Answer::Closed,
        }
    }
}

fn taken() -> Reply {
    Reply::new(250, Enhanced(2, 0, 0), "taken")
}

impl Keep {
    /// Drawn by the number of the mail, with those before it never looked at again.
    fn fate(&self) -> Fate {
        let faults = &self.faults;
        if faults.defer + faults.refuse + faults.close + faults.stall == 0.0 {
            return Fate::Take;
        }
        let mut random = Random::of(self.seed, self.number.fetch_add(1, Ordering::Relaxed) ^ (1 << 63));
        if random.unit() < faults.stall {
            let until = Instant::now().checked_add(faults.stall_for);
            *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
        match random.unit() {
            drawn if drawn < faults.defer => Fate::Defer,
            drawn if drawn < faults.defer + faults.refuse => Fate::Refuse,
            drawn if drawn < faults.defer + faults.refuse + faults.close => Fate::Close,
            _ => Fate::Take,
        }
    }

    /// While the sink stalls, nobody is answered.
    async fn wait_for_a_stall(&self) {
        if self.faults.stall == 0.0 {
            return;
        }
        let until = *self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// A report from the null sender; `false`: it is none, or of no mail of ours.
    fn report(&self, content: &Bytes) -> bool {
        let Some(report) = arrival::report(content) else { return false };
        let Some((number, plan)) = report.id.and_then(|id| self.own(id)) else { return false };
        for (at, person) in plan.to.iter().enumerate() {
            if report.failed.iter().any(|address| *address == person.mailbox.key().as_str()) {
                self.ledger.bounced(number, at);
            }
        }
        true
    }

    /// The mail of a name, where it is of this run and was begun.
    fn own(&self, id: MailId) -> Option<(u64, Plan<'_>)> {
        if self.mails.id(id.number) != id || self.ledger.recipients(id.number) == 0 {
            return None;
        }
        Some((id.number, self.mails.plan(id.number)?))
    }

    fn refused(&self, transaction: &Transaction, arrival: &Arrival) {
        let Some((number, plan)) = arrival.id.and_then(|id| self.own(id)) else { return };
        for mailbox in &transaction.recipients {
            if let Some(at) = position(&plan, mailbox) {
                self.ledger.refused_by_sink(number, at);
            }
        }
    }

    async fn take(&self, transaction: &Transaction, arrival: Arrival, at: Instant) {
        let Some((number, plan)) = arrival.id.and_then(|id| self.own(id)) else {
            return self.stranger(&arrival);
        };
        let mut recipients = Vec::with_capacity(transaction.recipients.len());
        for mailbox in &transaction.recipients {
            match position(&plan, mailbox) {
                Some(position) => {
                    recipients.push(position);
                    if let Some(latency) = self.ledger.arrived(number, position, at) {
                        (self.heard)(at, latency);
                    }
                }
                None => {
                    let why = "it was not sent to him".to_owned();
                    self.fault(number, mailbox.to_string(), FaultKind::Misdelivered, why);
                }
            }
        }
        let judge = Judge { mails: &self.mails, plan: &plan, number, verdict: self.verdict };
        if let Some((what, why)) = judge.judge(&arrival) {
            let named = plan.to.iter().enumerate().filter(|(at, _)| recipients.contains(at));
            for (_, person) in named {
                self.fault(number, person.mailbox.to_string(), what, why.to_string());
            }
        } else if plan.kind == Kind::ToSeal && plan.to.iter().any(|person| person.key.is_some()) {
            self.open_later(number, recipients, arrival.content).await;
        }
    }

    /// Opens a sealed mail for each of its recipients on a thread of its own: the target does not wait for our private keys.
    async fn open_later(&self, number: u64, recipients: Vec<usize>, content: Bytes) {
        let size = u32::try_from(content.len() / 1024).unwrap_or(WAITING).clamp(1, WAITING);
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(size).await else { return };
        let (mails, ledger) = (Arc::clone(&self.mails), Arc::clone(&self.ledger));
        let verdict = self.verdict;
        tokio::task::spawn_blocking(move || {
            let _room: OwnedSemaphorePermit = room;
            let Some(plan) = mails.plan(number) else { return };
            let judge = Judge { mails: &mails, plan: &plan, number, verdict };
            for person in recipients.iter().filter_map(|at| plan.to.get(*at)) {
                if let Some((what, why)) = judge.open(&content, person, &mails.people().trust) {
                    let recipient = person.mailbox.to_string();
                    ledger.fault(Fault { id: Some(mails.id(number)), recipient, what, why: why.into_owned() });
                }
            }
        });
    }

    /// Mails of earlier runs, reports of delay and success. What can be read of this run's bodies is no stranger's.
    fn stranger(&self, arrival: &Arrival) {
        self.ledger.stranger();
        if memchr::memmem::find(&arrival.content, self.mails.canary().as_bytes()).is_some() {
            let why = "a body of this run, readable, in a mail that bears no name of it".to_owned();
            self.ledger.fault(Fault { id: None, recipient: String::new(), what: FaultKind::InClear, why });
        }
    }

    fn fault(&self, number: u64, recipient: String, what: FaultKind, why: String) {
        self.ledger.fault(Fault { id: Some(self.mails.id(number)), recipient, what, why });
    }
}

/// Which of a mail's recipients this is.
fn position(plan: &Plan<'_>, mailbox: &Mailbox) -> Option<usize> {
    let same = plan.to.iter().position(|person| person.mailbox == *mailbox);
    same.or_else(|| {
        let key = mailbox.key();
        plan.to.iter().position(|person| person.mailbox.key() == key)
    })
}

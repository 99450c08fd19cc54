//! One run: people and mails, sink, generator, drain, account.

/// The simplest mails, until the others are wired.
mod plain;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::generator::{Generator, Phase, Sent, Target};
use super::ledger::Account;
use super::scenario::Scenario;
use plain::{Book, Plain};

/// How often arrivals are looked at during the drain.
const LOOK: Duration = Duration::from_millis(50);
/// What sessions at the sink get to end by themselves.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a run needs beside its scenario.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What is sent.
    pub scenario: Scenario,
    /// Who gets it.
    pub target: Target,
    /// Where the sink listens; `None`: there is none, and the account ends with the answers.
    pub sink: Option<SocketAddr>,
    /// Processes whose processor time and memory are measured, with a name for the report.
    pub processes: Vec<(String, u32)>,
}

/// What a run found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was sent.
    pub sent: Sent,
    /// What became of it.
    pub account: Account,
    /// p50 and p99 from due to answered.
    pub latency: (Duration, Duration),
}

/// Sends, waits for arrivals, gives the account. `Err`: it could not begin.
pub async fn run(setup: Setup, phase: watch::Receiver<Phase>) -> Result<Outcome, String> {
    let scenario = setup.scenario;
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "no randomness from the operating system".to_owned())?;
    let source = Arc::new(Plain::new(&scenario, u64::from_le_bytes(random))?);
    let book = Arc::<Book>::default();
    let sink = match setup.sink {
        Some(address) => {
            Some(plain::sink(address, &book, scenario.hello.clone()).await.map_err(|error| error.to_string())?)
        }
        None => None,
    };
    let sent = send(scenario, &setup.target, source, &book, sink.is_some(), phase).await;
    let account = book.account(sink.is_some());
    if let Some(sink) = sink {
        sink.shut_down(FAREWELL).await;
    }
    let sent = sent?;
    Ok(Outcome { sent, account, latency: (book.latency(50), book.latency(99)) })
}

/// Sends, then waits until what was taken has arrived.
async fn send(
    scenario: Scenario,
    target: &Target,
    source: Arc<Plain>,
    book: &Arc<Book>,
    drained: bool,
    phase: watch::Receiver<Phase>,
) -> Result<Sent, String> {
    let drain = scenario.bound.drain;
    let generator = Generator::new(scenario, target, source, Arc::clone(book), phase.clone()).await?;
    let sent = generator.run().await;
    let until = Instant::now() + drain;
    while drained && book.open() > 0 && Instant::now() < until && *phase.borrow() < Phase::Aborted {
        tokio::time::sleep(LOOK).await;
    }
    Ok(sent)
}

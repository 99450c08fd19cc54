//! One run: people and mails, sink, generator, drain, account.

/// The simplest mails, until the others are wired.
mod plain;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::generator::{Generator, Phase, Sent, Target};
use super::ledger::Account;
use super::measure::process::{Usage, Watch};
use super::measure::sampler::{self, Sampler};
use super::measure::{Figures, Measured, Recorder, Stage};
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
    /// Latencies and rates.
    pub figures: Figures,
    /// What processes used, this one first.
    pub usage: Vec<Usage>,
}

/// Sends, waits for arrivals, gives the account. `Err`: it could not begin.
pub async fn run(setup: Setup, phase: watch::Receiver<Phase>) -> Result<Outcome, String> {
    measured(setup, phase, Arc::new(Recorder::new())).await
}

/// The same, with a recorder that somebody else looks at meanwhile.
pub async fn measured(setup: Setup, phase: watch::Receiver<Phase>, recorder: Arc<Recorder>) -> Result<Outcome, String> {
    let scenario = setup.scenario;
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "no randomness from the operating system".to_owned())?;
    let source = Arc::new(Plain::new(&scenario, u64::from_le_bytes(random))?);
    let book = Arc::new(Book::new(Arc::clone(&recorder)));
    let sink = match setup.sink {
        Some(address) => {
            Some(plain::sink(address, &book, scenario.hello.clone()).await.map_err(|error| error.to_string())?)
        }
        None => None,
    };
    let witness = Measured::new(Arc::clone(&book), Arc::clone(&recorder));
    let mut watched = vec![sampler::own("lab")];
    watched.extend(setup.processes.into_iter().map(|(name, pid)| Watch { name, pid, children: true }));
    let sampler = Sampler::start(recorder.begin(Instant::now()), watched);
    let sent = send(scenario, &setup.target, source, &book, witness, sink.is_some(), phase).await;
    let usage = sampler.map(Sampler::finish).unwrap_or_default();
    let account = book.account(sink.is_some());
    if let Some(sink) = sink {
        sink.shut_down(FAREWELL).await;
    }
    let sent = sent?;
    let figures = recorder.figures();
    let answer = &figures.stages[Stage::Answer as usize];
    let latency = (Duration::from_micros(answer.p50), Duration::from_micros(answer.p99));
    Ok(Outcome { sent, account, latency, figures, usage })
}

/// Sends, then waits until what was taken has arrived.
async fn send(
    scenario: Scenario,
    target: &Target,
    source: Arc<Plain>,
    book: &Arc<Book>,
    witness: Measured<Book>,
    drained: bool,
    phase: watch::Receiver<Phase>,
) -> Result<Sent, String> {
    let drain = scenario.bound.drain;
    let generator = Generator::new(scenario, target, source, Arc::new(witness), phase.clone()).await?;
    let sent = generator.run().await;
    let until = Instant::now() + drain;
    while drained && book.open() > 0 && Instant::now() < until && *phase.borrow() < Phase::Aborted {
        tokio::time::sleep(LOOK).await;
    }
    Ok(sent)
}

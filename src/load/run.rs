//! One run: people and mails, sink, generator, drain, account.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::generator::{Generator, Phase, Sending, Sent, Target, Witness};
use super::ledger::{Account, Ledger};
use super::mails::people::People;
use super::mails::{Mail, MailId, Mails, Progress};
use super::measure::process::{Usage, Watch};
use super::measure::sampler::{self, Sampler};
use super::measure::{Figures, Measured, Recorder, Stage};
use super::scenario::{Kind, Scenario};
use super::sink::{Heard, Sink};

/// How often arrivals are looked at during the drain.
const LOOK: Duration = Duration::from_millis(50);
/// What sessions at the sink get to end by themselves.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a run needs beside its scenario.
#[derive(Clone)]
pub struct Setup {
    /// What is sent.
    pub scenario: Scenario,
    /// The mails of this scenario (see [`prepared`]): for one run.
    pub mails: Arc<Mails>,
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

/// Makes everything that is made before the first mail is sent, on threads of its own. `people`: where they had to be known before, else as
/// the scenario says. `Err`: it cannot be sent.
pub async fn prepared(
    scenario: &Scenario,
    people: Option<Arc<People>>,
    progress: Arc<Progress<'static>>,
) -> Result<Arc<Mails>, String> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "no randomness from the operating system".to_owned())?;
    let scenario = scenario.clone();
    let making = tokio::task::spawn_blocking(move || {
        let people = match people {
            Some(people) => people,
            None => Arc::new(People::new(&scenario, &*progress)?),
        };
        Mails::new(&scenario, people, u64::from_le_bytes(random), &*progress).map(Arc::new)
    });
    making.await.map_err(|error| format!("the mails cannot be made: {error}"))?
}

/// Sends, waits for arrivals, gives the account. `Err`: it could not begin.
pub fn run(setup: Setup, phase: watch::Receiver<Phase>) -> Running {
    measured(setup, phase, Arc::new(Recorder::new()))
}

/// A run. A boxed future, so that it is compiled here once and not again by each program that has one.
pub type Running = Pin<Box<dyn Future<Output = Result<Outcome, String>> + Send>>;

/// The same, with a recorder that somebody else looks at meanwhile.
pub fn measured(setup: Setup, phase: watch::Receiver<Phase>, recorder: Arc<Recorder>) -> Running {
    Box::pin(under_way(setup, phase, recorder))
}

async fn under_way(setup: Setup, phase: watch::Receiver<Phase>, recorder: Arc<Recorder>) -> Result<Outcome, String> {
    let Setup { scenario, mails, .. } = &setup;
    let ledger = Arc::new(Ledger::default());
    let sink = match setup.sink {
        Some(address) => {
            let recorder = Arc::clone(&recorder);
            let heard: Heard = Arc::new(move |at, latency| recorder.record(Stage::Delivery, at, latency));
            let sink = Sink::start(address, scenario, Arc::clone(mails), Arc::clone(&ledger), heard);
            Some(sink.await.map_err(|error| error.to_string())?)
        }
        None => None,
    };
    let keeping = Arc::new(Keeping { mails: Arc::clone(mails), ledger: Arc::clone(&ledger) });
    let witness = Arc::new(Measured::new(keeping, Arc::clone(&recorder)));
    let mut watched = vec![sampler::own("lab")];
    watched.extend(setup.processes.iter().cloned().map(|(name, pid)| Watch { name, pid, children: true }));
    let sampler = Sampler::start(recorder.begin(Instant::now()), watched);
    let sent = send(&setup, witness, &ledger, sink.as_ref(), phase).await;
    let usage = sampler.map(Sampler::finish).unwrap_or_default();
    let account = ledger.account(sink.is_some(), |number| named(mails, number));
    if let Some(sink) = sink {
        sink.shut_down(FAREWELL).await;
    }
    let sent = sent?;
    let figures = recorder.figures();
    let [_, _, answer, _] = &figures.stages;
    let latency = (Duration::from_micros(answer.p50), Duration::from_micros(answer.p99));
    Ok(Outcome { sent, account, latency, figures, usage })
}

/// Sends, then waits until what was taken has arrived, and was looked at.
async fn send(
    setup: &Setup,
    witness: Arc<Measured<Keeping>>,
    ledger: &Ledger,
    sink: Option<&Sink>,
    mut phase: watch::Receiver<Phase>,
) -> Result<Sent, String> {
    let source = Arc::clone(&setup.mails);
    let generator = Generator::new(setup.scenario.clone(), &setup.target, source, witness, phase.clone()).await?;
    let sent = generator.run().await;
    let Some(sink) = sink else { return Ok(sent) };
    let until = Instant::now() + setup.scenario.bound.drain;
    while ledger.open() > 0 && Instant::now() < until && *phase.borrow() < Phase::Aborted {
        tokio::time::sleep(LOOK).await;
    }
    let aborted = async {
        let nobody_can = phase.wait_for(|phase| *phase >= Phase::Aborted).await.is_err();
        if nobody_can {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = sink.looked_at() => {}
        () = aborted => {}
    }
    Ok(sent)
}

/// The mail of a number and those it was for, for faults.
fn named(mails: &Mails, number: u64) -> (MailId, Vec<String>) {
    let recipients = mails.plan(number).map(|plan| plan.to.iter().map(|person| person.mailbox.to_string()).collect());
    (mails.id(number), recipients.unwrap_or_default())
}

/// Keeps what becomes of the mails.
#[derive(Debug)]
struct Keeping {
    mails: Arc<Mails>,
    ledger: Arc<Ledger>,
}

impl Witness for Keeping {
    fn begun(&self, mail: &Mail, due: Instant) {
        let may_be_refused = matches!(mail.kind, Kind::UnknownRecipient { refused: true } | Kind::Tampered);
        self.ledger.begun(mail, due, self.mails.people().hears_bounces(mail.kind), may_be_refused);
    }

    fn ended(&self, mail: &Mail, sending: &Sending) {
        self.ledger.ended(mail.id.number, &sending.answers);
    }

    fn overdue(&self, _due: Instant, _end: Instant) {}

    fn broke(&self, at: Instant) {
        self.ledger.broke(at);
    }
}

//! One run: people and mails, sink, generator, drain, account.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::watch;

use super::generator::{Generator, Phase, Sending, Sent, Target, Witness};
use super::ledger::{Account, Ledger};
use super::mails::people::People;
use super::mails::{Mail, Mails, Progress};
use super::scenario::{Kind, Scenario};
use super::sink::Sink;

/// How often arrivals are looked at during the drain.
const LOOK: Duration = Duration::from_millis(50);
/// What sessions at the sink get to end by themselves.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a run needs beside its scenario.
#[derive(Clone)]
pub struct Setup {
    /// What is sent.
    pub scenario: Scenario,
    /// Who gets it.
    pub target: Target,
    /// Where the sink listens; `None`: there is none, and the account ends with the answers.
    pub sink: Option<SocketAddr>,
    /// Processes whose processor time and memory are measured, with a name for the report.
    pub processes: Vec<(String, u32)>,
    /// Who writes and reads, where the caller had to know before; `None`: as the scenario says.
    pub people: Option<Arc<People>>,
    /// Hears of what is made before the first mail is sent.
    pub progress: Arc<Progress<'static>>,
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
    /// What people should know: mails of a folder that could not be sent.
    pub notes: Vec<String>,
}

/// Sends, waits for arrivals, gives the account. `Err`: it could not begin.
pub async fn run(setup: Setup, phase: watch::Receiver<Phase>) -> Result<Outcome, String> {
    let mails = Arc::new(prepared(&setup).await?);
    let ledger = Arc::new(Ledger::default());
    let hearing = Arc::new(Hearing::new(Arc::clone(&mails), Arc::clone(&ledger))?);
    let sink = match setup.sink {
        Some(address) => {
            let (mails, ledger) = (Arc::clone(&mails), Arc::clone(&ledger));
            let sink = Sink::start(address, &setup.scenario, mails, ledger, Arc::new(|_, _| {}));
            Some(sink.await.map_err(|error| error.to_string())?)
        }
        None => None,
    };
    let sent = send(&setup, &hearing, sink.as_ref(), phase).await;
    let account = ledger.account(sink.is_some(), |number| named(&mails, number));
    if let Some(sink) = sink {
        sink.shut_down(FAREWELL).await;
    }
    let (sent, latency) = (sent?, (hearing.latency(0.5), hearing.latency(0.99)));
    Ok(Outcome { sent, account, latency, notes: mails.notes().to_vec() })
}

/// Everything that is made before the first mail is sent, on a thread of its own.
async fn prepared(setup: &Setup) -> Result<Mails, String> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "no randomness from the operating system".to_owned())?;
    let (scenario, people, progress) = (setup.scenario.clone(), setup.people.clone(), Arc::clone(&setup.progress));
    let making = tokio::task::spawn_blocking(move || {
        let people = match people {
            Some(people) => people,
            None => Arc::new(People::new(&scenario, &*progress)?),
        };
        Mails::new(&scenario, people, u64::from_le_bytes(random), &*progress)
    });
    making.await.map_err(|error| format!("the mails cannot be made: {error}"))?
}

/// Sends, then waits until what was taken has arrived, and was looked at.
async fn send(
    setup: &Setup,
    hearing: &Arc<Hearing>,
    sink: Option<&Sink>,
    mut phase: watch::Receiver<Phase>,
) -> Result<Sent, String> {
    let (source, witness) = (Arc::clone(&hearing.mails), Arc::clone(hearing));
    let generator = Generator::new(setup.scenario.clone(), &setup.target, source, witness, phase.clone()).await?;
    let sent = generator.run().await;
    let Some(sink) = sink else { return Ok(sent) };
    let until = Instant::now() + setup.scenario.bound.drain;
    while hearing.ledger.open() > 0 && Instant::now() < until && *phase.borrow() < Phase::Aborted {
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
fn named(mails: &Mails, number: u64) -> (super::mails::MailId, Vec<String>) {
    let recipients = mails.plan(number).map(|plan| plan.to.iter().map(|person| person.mailbox.to_string()).collect());
    (mails.id(number), recipients.unwrap_or_default())
}

/// Hears what becomes of the mails, and keeps it.
struct Hearing {
    mails: Arc<Mails>,
    ledger: Arc<Ledger>,
    /// Microseconds from due to answered.
    latencies: Mutex<Histogram<u64>>,
}

impl Hearing {
    fn new(mails: Arc<Mails>, ledger: Arc<Ledger>) -> Result<Self, String> {
        let latencies = Histogram::new_with_bounds(1, 86_400_000_000, 3).map_err(|error| error.to_string())?;
        Ok(Self { mails, ledger, latencies: Mutex::new(latencies) })
    }

    fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros.max(1));
    }

    fn latency(&self, quantile: f64) -> Duration {
        let latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(latencies.value_at_quantile(quantile))
    }
}

impl Witness for Hearing {
    fn begun(&self, mail: &Mail, due: Instant) {
        let may_be_refused = matches!(mail.kind, Kind::UnknownRecipient { refused: true } | Kind::Tampered);
        self.ledger.begun(mail, due, self.mails.people().hears_bounces(mail.kind), may_be_refused);
    }

    fn ended(&self, mail: &Mail, sending: &Sending) {
        self.ledger.ended(mail.id.number, &sending.answers);
        self.record(sending.ended.saturating_duration_since(sending.due));
    }

    fn overdue(&self, due: Instant, end: Instant) {
        self.record(end.saturating_duration_since(due));
    }

    fn broke(&self, at: Instant) {
        self.ledger.broke(at);
    }
}

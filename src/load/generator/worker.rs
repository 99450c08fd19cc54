//! One connection's task: takes the next mail, waits until it is due, sends it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::clock::Clock;
use super::link::{Link, Way};
use super::schedule::Schedule;
use super::{Phase, Sending, Source, Witness};
use crate::load::ledger::Answered;
use crate::load::mails::Mail;

/// How long before it is due a mail is made.
const AHEAD: Duration = Duration::from_millis(100);
/// First and longest pause before a target that is away is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The most mails that are counted one by one as overdue.
const OVERDUE_MAX: u64 = 10_000_000;

/// What all connections of one pace share.
pub(super) struct Job<S, W> {
    pub(super) source: Arc<S>,
    pub(super) witness: Arc<W>,
    pub(super) way: Way,
    pub(super) per_connection: Option<u32>,
    /// The next mail's number (closed loop).
    pub(super) next: AtomicU64,
    /// The first number that is not sent.
    pub(super) most: u64,
    /// No mail is begun after it.
    pub(super) end: Option<Instant>,
    /// Open loop.
    pub(super) due: Option<Due>,
    pub(super) begun: Arc<AtomicU64>,
    pub(super) connections: AtomicU64,
    pub(super) broken: AtomicU64,
}

/// The clock that mails fall due by.
pub(super) struct Due {
    schedule: Mutex<Schedule>,
    start: Instant,
    clock: Clock,
}

impl Due {
    pub(super) fn new(schedule: Schedule, start: Instant, clock: Clock) -> Self {
        Self { schedule: Mutex::new(schedule), start, clock }
    }
}

impl<S: Source, W: Witness> Job<S, W> {
    /// Sends one mail after the other; gives the time of the last answer.
    pub(super) async fn work(self: Arc<Self>, mut phase: watch::Receiver<Phase>) -> Option<Instant> {
        let (mut link, mut last) = (None, None);
        while let Some((mail, due)) = self.next(&mut phase).await {
            last = Some(self.deliver(&mut link, &mail, due, &mut phase).await);
            let full = |link: &Link| self.per_connection.is_some_and(|most| link.mails >= most);
            if let Some(done) = link.take_if(|link| full(link)) {
                done.quit().await;
            }
        }
        if let Some(link) = link {
            link.quit().await;
        }
        last
    }

    /// The next mail, ready, at the time it is due. `None`: no more.
    async fn next(&self, phase: &mut watch::Receiver<Phase>) -> Option<(Mail, Instant)> {
        if *phase.borrow() > Phase::Going || self.is_over() {
            return None;
        }
        let Some(open) = &self.due else {
            let number = self.number()?;
            return Some((self.source.mail(number), Instant::now()));
        };
        let (number, due) = {
            // Number and time belong together: both under the lock.
            let mut schedule = open.schedule.lock().unwrap_or_else(PoisonError::into_inner);
            let due = open.start.checked_add(schedule.next()?)?;
            (self.number()?, due)
        };
        if self.end.is_some_and(|end| due >= end) {
            return None;
        }
        let waited = async {
            if let Some(early) = due.checked_sub(AHEAD).filter(|early| *early > Instant::now()) {
                tokio::time::sleep_until(early.into()).await;
            }
            let mail = self.source.mail(number);
            open.clock.until(due).await;
            mail
        };
        tokio::select! {
            biased;
            mail = waited => Some((mail, due)),
            () = reached(phase, Phase::Stopping) => None,
        }
    }

    fn number(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.most).then_some(number)
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Sends one mail and tells the witness; gives the time of the answer.
    async fn deliver(
        &self,
        link: &mut Option<Link>,
        mail: &Mail,
        due: Instant,
        phase: &mut watch::Receiver<Phase>,
    ) -> Instant {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.witness.begun(mail, due);
        let mut sending = Sending { due, began: due, ended: due, connect: None, answers: Vec::new() };
        let answers = tokio::select! {
            biased;
            answers = self.answers(link, mail, &mut sending, phase.clone()) => answers,
            () = reached(phase, Phase::Aborted) => Err("cut off by a second signal".to_owned()),
        };
        sending.ended = Instant::now();
        let dotted = link.as_ref().is_some_and(|link| link.dotted);
        sending.answers = answers.unwrap_or_else(|why| {
            *link = None;
            let answer = if dotted { Answered::Unknown(why) } else { Answered::NotSent(why) };
            vec![answer; mail.envelope.recipients.len()]
        });
        self.witness.ended(mail, &sending);
        if link.as_ref().is_some_and(Link::is_closing) {
            *link = None;
        }
        sending.ended
    }

    /// The answers; `Err`: none, and the connection tells whether the dot was out.
    async fn answers(
        &self,
        link: &mut Option<Link>,
        mail: &Mail,
        sending: &mut Sending,
        phase: watch::Receiver<Phase>,
    ) -> Result<Vec<Answered>, String> {
        loop {
            let kept = link.is_some();
            if !kept {
                let began = Instant::now();
                *link = Some(self.open(phase.clone()).await?);
                sending.connect = Some(began.elapsed());
            }
            let Some(link_now) = link.as_mut() else { return Err("no connection".into()) };
            sending.began = Instant::now();
            let result = link_now.send(mail).await;
            // A kept connection may have been closed meanwhile: what was surely not taken is sent again, on a new one.
            let again = kept && !link_now.dotted && (result.is_err() || link_now.is_closing());
            if result.is_err() {
                self.broke();
            }
            if again {
                *link = None;
                continue;
            }
            return result.map_err(|lost| lost.0);
        }
    }

    /// A new connection; a target that is away is waited for.
    async fn open(&self, mut phase: watch::Receiver<Phase>) -> Result<Link, String> {
        let until = Instant::now() + self.way.patience;
        let mut pause = PAUSES.0;
        loop {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let why = match Link::open(&self.way).await {
                Ok(link) => return Ok(link),
                Err(why) => why,
            };
            self.broke();
            if Instant::now() + pause >= until {
                return Err(why);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = reached(&mut phase, Phase::Stopping) => return Err(format!("{why}; told to stop")),
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn broke(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
        self.witness.broke(Instant::now());
    }

    /// Tells of the mails that fell due before `end` and were not begun; how many.
    pub(super) fn overdue(&self, end: Instant) -> u64 {
        let Some(open) = &self.due else { return 0 };
        let mut schedule = open.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        while count < OVERDUE_MAX && self.number().is_some() {
            match schedule.next().and_then(|due| open.start.checked_add(due)) {
                Some(due) if due < end => self.witness.overdue(due, end),
                _ => break,
            }
            count += 1;
        }
        count
    }
}

/// Returns once a run has been told so much; never, where nobody can tell any more.
async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    if phase.wait_for(|phase| *phase >= wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

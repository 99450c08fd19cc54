//! Hands over what is spooled, with retries, and tells the sender when it fails for good.

/// Delivery status notifications.
mod dsn;
/// Mail that policy holds for too long.
mod held;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{self, JoinError, JoinHandle, JoinSet};

use self::dsn::{Action, Report, Told};
use super::current::Current;
use super::heavy;
use super::hop::health::{Health, Pick};
use super::hop::{Delivered, HopError, Hops};
use super::polls::watched;
use crate::address::{Domain, Mailbox, ReversePath};
use crate::config::{Direction, NextHop, Retry, Route, Target};
use crate::mime::rope::Rope;
use crate::smtp::command::{Enhanced, Envelope, Notify, Reply, Ret};
use crate::spool::{Entry, EntryId, NewEntry, Outcome, RecipientState, Spool, SpoolError, Treatment};

/// Waiting for a spool in trouble before it is asked again.
const SPOOL_WAIT: Duration = Duration::from_secs(1);
/// How often entries are looked through for those that are late or have expired behind a dead next hop, or that are due in years.
const TIME_CHECK: Duration = Duration::from_secs(60);
/// Such entries taken at once, and how soon the next of them where there are more.
const OUT_OF_TIME_AT_ONCE: usize = 16;
const MORE_OUT_OF_TIME: Duration = Duration::from_secs(1);
/// What is due later than the longest wait and this was put off by a clock that was wrong.
const CLOCK_ERROR: Duration = Duration::from_secs(3600);
/// Longest sleep: a clock that is set forward is noticed within it.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Mails under way at once to all domains whose MX is asked.
const BY_MX_AT_ONCE: usize = 256;

/// Sends a message: [`Hops`], or another in tests.
pub trait Transport: Send + Sync + 'static {
    /// As [`Hops::deliver`].
    fn deliver(
        &self,
        hop: &NextHop,
        envelope: &Envelope,
        content: &Rope,
    ) -> impl Future<Output = Result<Delivered, HopError>> + Send;
}

impl Transport for Hops {
    async fn deliver(&self, hop: &NextHop, envelope: &Envelope, content: &Rope) -> Result<Delivered, HopError> {
        Hops::deliver(self, hop, envelope, content).await
    }
}

/// What the deliverer asks the rest of the gateway.
pub trait Handover: Send + Sync + 'static {
    /// Opens a message spooled as received for the recipients of `envelope`, those of the entry that wait. `Err`: the reply that holds for
    /// all of them (4xx: tried again).
    fn open(
        &self,
        entry: &Entry,
        envelope: &Envelope,
        received: Bytes,
    ) -> impl Future<Output = Result<OpenedMail, Reply>> + Send;
    /// Whether a mailbox is one of ours: only then may a DSN go there (R8).
    fn is_ours(&self, mailbox: &Mailbox) -> bool;
    /// Where mail for a mailbox of ours goes.
    fn hop_to(&self, mailbox: &Mailbox) -> (NextHop, Direction);
    /// Where a recipient of an entry goes now: the next hops may be others since it was spooled.
    fn target(&self, entry: &Entry, _recipient: &Mailbox) -> Target {
        Target::Hosts(Arc::new(entry.next_hop.clone().into()))
    }
    /// The next hops of a target now. `Err`: the reply that holds for its recipients (4xx: tried again).
    fn route(&self, target: &Target) -> impl Future<Output = Result<Arc<Route>, Reply>> + Send {
        let known = match target {
            Target::Hosts(route) => Ok(Arc::clone(route)),
            Target::Domain(domain, _) => {
                Err(Reply::new(451, Enhanced(4, 3, 5), format!("nothing finds the hosts of {domain}")))
            }
        };
        std::future::ready(known)
    }
    /// A person should look at an entry: it is held.
    fn alert(&self, entry: &Entry, why: &str) {
        tracing::error!(entry = %entry.id, reverse_path = %entry.reverse_path, %why, "mail held");
    }
}

/// What a message spooled as received is handed over as: every position in the envelope's recipients stands in exactly one place.
#[derive(Debug, Default)]
pub struct OpenedMail {
    /// Recipients, and the content for them.
    pub parts: Vec<(Vec<usize>, Rope)>,
    /// Recipients for whom policy keeps it back, and why.
    pub quarantined: Vec<(usize, String)>,
}

/// The time, in one place.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// How it is done.
#[derive(Clone)]
pub struct Settings {
    /// Waits between attempts, and when it is given up.
    pub retry: Retry,
    /// Our name: Reporting-MTA of a DSN.
    pub hostname: Domain,
    /// The author of a DSN.
    pub postmaster: Mailbox,
    /// What is known of the next hops.
    pub health: Health,
    /// Octets of content in memory for one next hop, up to a KiB each; what is bigger goes alone.
    pub contents: u64,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Recipients delivered.
    pub delivered: AtomicU64,
    /// Recipients put off.
    pub deferred: AtomicU64,
    /// Recipients failed for good.
    pub failed: AtomicU64,
    /// DSNs committed.
    pub notified: AtomicU64,
    /// Recipients held since nobody may be told, or by quarantine.
    pub held: AtomicU64,
    /// Deliveries whose end is unknown, and which are repeated (R5).
    pub dup_possible: AtomicU64,
}

/// The background task. [`Deliverer::stop`] ends it gracefully; dropping it ends it at once.
pub struct Deliverer {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    counts: Arc<Counts>,
}

impl Deliverer {
    /// Starts delivering what is due. Must be called within a tokio runtime.
    pub fn start<T: Transport, H: Handover>(spool: Spool, transport: T, handover: H, settings: Settings) -> Self {
        Self::start_with(spool, transport, handover, Arc::new(Current::new(settings)))
    }

    /// As [`Deliverer::start`], with settings that may be replaced; the health of the next hops and the clock may not.
    pub fn start_with<T: Transport, H: Handover>(
        spool: Spool,
        transport: T,
        handover: H,
        settings: Arc<Current<Settings>>,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let work = Arc::new(Work {
            spool,
            transport,
            handover,
            health: settings.get().health.clone(),
            clock: settings.get().clock.clone(),
            counts: Arc::clone(&counts),
            hops: Mutex::default(),
            by_mx: ByMxRoom {
                deliveries: Semaphore::new(BY_MX_AT_ONCE),
                contents: Arc::new(contents(settings.get().contents)),
            },
            settings,
            stopping: AtomicBool::new(false),
        });
        Self { task: tokio::spawn(run(work, stopping)), stop, counts }
    }

    /// What was done so far.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Begins nothing more and waits for what is under way, at most `grace`; what is not done then is repeated after a restart.
    pub async fn stop(mut self, grace: Duration) {
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(grace, &mut self.task).await;
    }
}

impl Drop for Deliverer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Work<T, H> {
    spool: Spool,
    transport: T,
    handover: H,
    settings: Arc<Current<Settings>>,
    health: Health,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    hops: Mutex<HashMap<NextHop, HopState>>,
    by_mx: ByMxRoom,
    /// Nothing more is begun.
    stopping: AtomicBool,
}

/// Domains that mail goes to by their MX are as many as people write to: what each host has for itself, they share.
struct ByMxRoom {
    deliveries: Semaphore,
    contents: Arc<Semaphore>,
}

/// What is known of a next hop.
#[derive(Debug)]
struct HopState {
    under_way: usize,
    /// KiB of content that may be in memory.
    contents: Arc<Semaphore>,
}

/// What became of one recipient in one attempt.
#[derive(Debug, Clone)]
struct Verdict {
    state: RecipientState,
    status: Enhanced,
    text: String,
    /// The next hop that said it; `None`: the text is ours.
    said_by: Option<NextHop>,
    /// What is asked for by NOTIFY is that next hop's task now.
    dsn: bool,
}

async fn run<T: Transport, H: Handover>(work: Arc<Work<T, H>>, mut stopping: watch::Receiver<bool>) {
    let mut tasks = JoinSet::new();
    let mut running = HashMap::new();
    let mut time_check = Timestamp::MIN;
    while !*stopping.borrow() {
        let now = work.clock.now();
        let mut claimed = work.claim(now);
        // Either way: the clock may have been set back.
        if now >= time_check || time_check > after(now, TIME_CHECK) {
            let out_of_time = work.claim_out_of_time(now);
            // A disk in trouble would be waited for, and with it all deliveries.
            let held = if work.spool.is_healthy() { work.held_too_long(now).await } else { 0 };
            let more = out_of_time.len().max(held) >= OUT_OF_TIME_AT_ONCE;
            time_check = after(now, if more { MORE_OUT_OF_TIME } else { TIME_CHECK });
            claimed.extend(out_of_time);
        }
        for entry in claimed {
            let key = (entry.id, entry.next_hop.clone());
            let work = Arc::clone(&work);
            running.insert(tasks.spawn(watched("delivery", async move { work.attempt(entry).await })).id(), key);
        }
        let wait = work.sleep_for(work.clock.now(), time_check);
        tokio::select! {
            () = work.spool.changed() => {}
            () = work.health.changed() => {}
            Some(ended) = tasks.join_next_with_id() => work.ended(&mut running, ended).await,
            () = tokio::time::sleep(wait) => {}
            _ = stopping.changed() => {}
        }
    }
    work.stopping.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next_with_id().await {
        work.ended(&mut running, ended).await;
    }
}

impl<T: Transport, H: Handover> Work<T, H> {
    fn claim(&self, now: Timestamp) -> Vec<Arc<Entry>> {
        let mut hops = lock(&self.hops);
        let entries = self.spool.claim(now, |first| {
            let under_way = hops.get(&first.next_hop).map_or(0, |state| state.under_way);
            match self.target(first) {
                Target::Hosts(route) => self.health.room(&route, under_way, now),
                // Which hosts there are is found out by whoever delivers.
                Target::Domain(_, way) => way.spool_connections.saturating_sub(under_way),
            }
        });
        for entry in &entries {
            self.begun(&mut hops, entry);
        }
        hops.retain(|_, state| state.under_way > 0);
        entries
    }

    fn claim_out_of_time(&self, now: Timestamp) -> Vec<Arc<Entry>> {
        let Retry { longest, expire, warn, .. } = self.settings.get().retry;
        let beyond = after(now, longest.saturating_add(CLOCK_ERROR));
        let (expired, late) = (before(now, expire), before(now, warn));
        let claimed = self.spool.claim_out_of_time(OUT_OF_TIME_AT_ONCE, |entry| {
            let untold = entry.created < late && entry.delay_told.is_none() && self.hears_of_delay(entry);
            entry.tried_since() < expired || entry.next_attempt > beyond || untold
        });
        for entry in &claimed {
            self.begun(&mut lock(&self.hops), entry);
        }
        claimed
    }

    fn begun(&self, hops: &mut HashMap<NextHop, HopState>, entry: &Entry) {
        let new = || {
            let contents = match self.target(entry) {
                Target::Hosts(_) => Arc::new(contents(self.settings.get().contents)),
                Target::Domain(..) => Arc::clone(&self.by_mx.contents),
            };
            HopState { under_way: 0, contents }
        };
        hops.entry(entry.next_hop.clone()).or_insert_with(new).under_way += 1;
    }

    /// Where an entry goes: its first recipient that waits.
    fn target(&self, entry: &Entry) -> Target {
        let waits = entry.recipients.iter().find(|one| one.state.waits()).or(entry.recipients.first());
        match waits {
            Some(one) => self.handover.target(entry, &one.recipient.mailbox),
            None => Target::Hosts(Arc::new(entry.next_hop.clone().into())),
        }
    }

    /// Waits until the entry's content may be in memory too: a next hop that hangs must not fill it.
    async fn room_for(&self, entry: &Entry) -> Option<OwnedSemaphorePermit> {
        let contents = lock(&self.hops).get(&entry.next_hop).map(|state| Arc::clone(&state.contents))?;
        let wanted = u32::try_from(entry.size / 1024)
            .unwrap_or(u32::MAX)
            .saturating_add(1)
            .min(kib(self.settings.get().contents));
        contents.acquire_many_owned(wanted).await.ok()
    }

    /// Takes note that a delivery ended. One that panicked is a defect of ours: that mail alone is held.
    async fn ended(
        &self,
        running: &mut HashMap<task::Id, (EntryId, NextHop)>,
        ended: Result<(task::Id, ()), JoinError>,
    ) {
        let task = ended.as_ref().map_or_else(JoinError::id, |(task, ())| *task);
        let Some((id, hop)) = running.remove(&task) else { return };
        if let Some(state) = lock(&self.hops).get_mut(&hop) {
            state.under_way = state.under_way.saturating_sub(1);
        }
        if ended.is_err() {
            let why = "a defect of the gateway: delivery panicked";
            if let Some(entry) = self.spool.entry(id) {
                self.handover.alert(&entry, why);
            }
            let _ = self.spool.hold(id, why).await;
            self.spool.give_back(id);
        }
    }

    /// Until something falls due that may be done then. What is due already waits for room: the end of another delivery, or the end of a pause.
    fn sleep_for(&self, now: Timestamp, time_check: Timestamp) -> Duration {
        let due = self.spool.next_due().filter(|at| *at > now);
        let next = due.into_iter().chain(self.health.next_trial(now)).chain([time_check]).min();
        let wait = next.and_then(|at| Duration::try_from(at.duration_since(now)).ok()).unwrap_or(SLEEP_MAX);
        wait.clamp(Duration::from_millis(1), SLEEP_MAX)
    }

    /// One attempt at one entry, and its settlement.
    async fn attempt(&self, entry: Arc<Entry>) {
        let envelope = entry.remaining();
        let _place = match self.target(&entry) {
            Target::Domain(..) => self.by_mx.deliveries.acquire().await.ok(),
            Target::Hosts(_) => None,
        };
        let _room = self.room_for(&entry).await;
        if self.stopping.load(Ordering::Relaxed) {
            return self.spool.give_back(entry.id);
        }
        let content = match self.spool.content(entry.id).await {
            Ok(content) => content,
            Err(SpoolError::NoEntry(_)) => return,
            Err(error) => return self.unreadable(&entry, &envelope, &error).await,
        };
        let header = dsn::quoted(&content);
        let verdicts = self.deliver(&entry, &envelope, content).await;
        let now = self.clock.now();
        let outcome = self.judge(&entry, &envelope, verdicts, &header, now);
        self.settle(entry.id, outcome).await;
    }

    /// The content cannot be read. Damaged, or for as long as mail is kept: a person should look. Else tried again later, so that it
    /// takes no place from mail that can be read.
    async fn unreadable(&self, entry: &Entry, envelope: &Envelope, error: &SpoolError) {
        let now = self.clock.now();
        let expired = now >= after(entry.tried_since(), self.settings.get().retry.expire);
        if expired || matches!(error, SpoolError::Damaged(_)) {
            self.handover.alert(entry, &error.to_string());
            let _ = self.spool.hold(entry.id, &error.to_string()).await;
            self.spool.give_back(entry.id);
            return;
        }
        tracing::error!(entry = %entry.id, %error, "spool cannot be read");
        let verdicts = vec![Verdict::put_off(&error.to_string()); envelope.recipients.len()];
        let outcome = self.judge(entry, envelope, verdicts, &Bytes::new(), now);
        self.settle(entry.id, outcome).await;
    }

    /// Delivers to all recipients that wait; their verdicts in the order of `envelope.recipients`.
    async fn deliver(&self, entry: &Entry, envelope: &Envelope, content: Bytes) -> Vec<Verdict> {
        let parts = match entry.treatment {
            Treatment::Finished => Ok(OpenedMail {
                parts: vec![((0..envelope.recipients.len()).collect(), Rope::from(content))],
                quarantined: Vec::new(),
            }),
            Treatment::AsReceived => self.handover.open(entry, envelope, content).await,
            // The spool never gives one to deliver.
            Treatment::AsSubmitted => Err(Reply::new(451, Enhanced(4, 7, 0), "not treated by policy yet")),
        };
        let OpenedMail { parts, quarantined } = match parts {
            Ok(opened) => opened,
            Err(reply) => return vec![Verdict::ours(&reply); envelope.recipients.len()],
        };
        let none = Verdict::put_off("no content was made for this recipient");
        let mut verdicts = vec![none; envelope.recipients.len()];
        for (at, why) in quarantined {
            if let Some(verdict) = verdicts.get_mut(at) {
                *verdict = Verdict { state: RecipientState::Quarantined, ..Verdict::put_off(&why) };
            }
        }
        for (positions, rope) in parts {
            let recipients = positions.iter().filter_map(|at| envelope.recipients.get(*at)).cloned().collect();
            let mut part = Envelope { recipients, ..envelope.clone() };
            if entry.treatment == Treatment::AsReceived {
                // What was opened here is not to come back whole, whatever the sender asked for (A33).
                part.parameters.ret = Some(Ret::Headers);
            }
            let results = self.by_target(entry, &part, &rope).await;
            for (at, result) in positions.iter().zip(results) {
                if let Some(verdict) = verdicts.get_mut(*at) {
                    *verdict = result;
                }
            }
            heavy::let_go(rope.encoded_len(), rope);
        }
        verdicts
    }

    /// To the target of each recipient: one for all when the entry was made, unless the configuration is another now.
    async fn by_target(&self, entry: &Entry, part: &Envelope, rope: &Rope) -> Vec<Verdict> {
        let mut targets: Vec<(Target, Vec<usize>)> = Vec::new();
        for (at, recipient) in part.recipients.iter().enumerate() {
            let target = self.handover.target(entry, &recipient.mailbox);
            match targets.iter_mut().find(|(known, _)| *known == target) {
                Some((_, positions)) => positions.push(at),
                None => targets.push((target, vec![at])),
            }
        }
        if let [(target, _)] = targets.as_slice() {
            return self.exchange(entry, target, part, rope).await;
        }
        let mut verdicts = vec![Verdict::put_off("not tried"); part.recipients.len()];
        for (target, positions) in targets {
            let recipients = positions.iter().filter_map(|at| part.recipients.get(*at)).cloned().collect();
            let own = Envelope { recipients, ..part.clone() };
            let results = self.exchange(entry, &target, &own, rope).await;
            for (at, result) in positions.into_iter().zip(results) {
                if let Some(verdict) = verdicts.get_mut(at) {
                    *verdict = result;
                }
            }
        }
        verdicts
    }

    /// To the best next hop that there is; where the mail was surely not taken, the one after it is tried at once.
    async fn exchange(&self, entry: &Entry, target: &Target, part: &Envelope, rope: &Rope) -> Vec<Verdict> {
        let health = &self.health;
        let all = |verdict| vec![verdict; part.recipients.len()];
        let route = match self.handover.route(target).await {
            Ok(route) => route,
            Err(reply) => return all(Verdict::ours(&reply)),
        };
        let (mut tried, mut last) = (Vec::new(), None);
        loop {
            let (hop, slot) = match health.pick(&route, &tried, true, self.clock.now()) {
                Pick::Hop(one, slot) => (one.hop, slot),
                Pick::Aside(why) => return last.unwrap_or_else(|| all(Verdict::put_off(&format!("set aside: {why}")))),
                Pick::Full if self.stopping.load(Ordering::Relaxed) => {
                    return last.unwrap_or_else(|| all(Verdict::put_off("the gateway stopped")));
                }
                Pick::Full => {
                    health.wait_for_room().await;
                    continue;
                }
            };
            // In a box: it is large, and most of an attempt is without it.
            let result = Box::pin(self.transport.deliver(&hop, part, rope)).await;
            let now = self.clock.now();
            match result {
                Ok(delivered) => {
                    let verdicts =
                        delivered.replies.iter().map(|reply| Verdict::of(reply, &hop, delivered.dsn)).collect();
                    match delivered.replies.first().filter(|reply| delivered.busy && reply.code == 421) {
                        Some(reply) => slot.lost(now, &reply.to_string()),
                        None => slot.answered(now),
                    }
                    if !delivered.busy {
                        return verdicts;
                    }
                    last = Some(verdicts);
                }
                Err(error @ HopError::Unknown { .. }) => {
                    slot.lost(now, &error.to_string());
                    self.counts.dup_possible.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(entry = %entry.id, %error, dup_possible = true, "delivery unknown, tried again");
                    return all(Verdict::put_off(&error.to_string()));
                }
                Err(error) => {
                    match error {
                        HopError::Unreachable { .. } => slot.unreachable(now, &error.to_string()),
                        _ => slot.lost(now, &error.to_string()),
                    }
                    last = Some(all(Verdict::put_off(&error.to_string())));
                }
            }
            tried.push(hop);
        }
    }

    /// Turns verdicts into the entry's new state, and the DSN that goes with it.
    fn judge(
        &self,
        entry: &Entry,
        envelope: &Envelope,
        verdicts: Vec<Verdict>,
        content: &Bytes,
        now: Timestamp,
    ) -> Outcome {
        let Retry { expire, warn, .. } = self.settings.get().retry;
        let expired = now >= after(entry.tried_since(), expire);
        let late = entry.delay_told.is_none() && now >= after(entry.created, warn);
        let sender = self.may_notify(entry);
        let mut verdicts = verdicts.into_iter();
        let mut told: Vec<(Action, Told<'_>)> = Vec::new();
        let mut recipients = Vec::with_capacity(entry.recipients.len());
        for one in &entry.recipients {
            let verdict = if one.state.waits() { verdicts.next() } else { None };
            let Some(mut verdict) = verdict else {
                recipients.push((one.state, one.last.clone()));
                continue;
            };
            if expired && verdict.state == RecipientState::Waiting {
                verdict.state = RecipientState::Failed;
                verdict.status = Enhanced(4, 4, 7);
                verdict.text =
                    format!("given up after {} attempts; last: {}", entry.attempts.saturating_add(1), verdict.text);
                verdict.said_by = None;
            }
            if verdict.state == RecipientState::Failed && sender.is_none() {
                verdict.state = RecipientState::Stuck;
            }
            if let Some(action) = sender.and_then(|_| action(&verdict, one.recipient.parameters.notify, late)) {
                told.push((action, Told { recipient: &one.recipient, verdict: verdict.clone() }));
            }
            self.count(entry, &one.recipient.mailbox, &verdict);
            // What a person released stays so for as long as it waits.
            let state = if verdict.state.waits() { one.state } else { verdict.state };
            recipients.push((state, Some(verdict.text)));
        }
        let any = |wanted| recipients.iter().any(|(state, _)| *state == wanted);
        if any(RecipientState::Stuck) {
            self.handover.alert(entry, "failed for good, and nobody may be told");
        } else if any(RecipientState::Quarantined) {
            self.handover.alert(entry, "quarantined by policy");
        }
        let delay_told = told.iter().any(|(action, _)| *action == Action::Delayed).then_some(now);
        let new_entries = sender.map(|sender| self.reports(entry, sender, told, content, now)).unwrap_or_default();
        tracing::debug!(entry = %entry.id, recipients = envelope.recipients.len(), "attempt judged");
        Outcome { recipients, next_attempt: after(now, self.wait(entry.attempts)), delay_told, new_entries }
    }

    /// One report for each kind of news.
    fn reports(
        &self,
        entry: &Entry,
        sender: &Mailbox,
        mut told: Vec<(Action, Told<'_>)>,
        content: &Bytes,
        now: Timestamp,
    ) -> Vec<NewEntry> {
        let settings = self.settings.get();
        let mut reports = Vec::new();
        while let Some((action, _)) = told.first() {
            let action = *action;
            let (these, others): (Vec<_>, Vec<_>) = told.into_iter().partition(|(other, _)| *other == action);
            told = others;
            let told = these.into_iter().map(|(_, told)| told).collect();
            let report = Report { settings: &settings, entry, sender, action, told, content, now };
            reports.push(report.entry(self.handover.hop_to(sender)));
            self.counts.notified.fetch_add(1, Ordering::Relaxed);
        }
        reports
    }

    /// Whether this mail's sender would hear of a delay, had it one.
    fn hears_of_delay(&self, entry: &Entry) -> bool {
        let mut waiting = entry.recipients.iter().filter(|one| one.state.waits());
        self.may_notify(entry).is_some()
            && waiting.any(|one| one.recipient.parameters.notify.is_none_or(|notify| notify.delay))
    }

    /// Who may be told of a failure: a sender of ours (R8), unless a private key was tried (A4).
    fn may_notify<'e>(&self, entry: &'e Entry) -> Option<&'e Mailbox> {
        match &entry.reverse_path {
            ReversePath::Mailbox(sender) if !entry.private_key_tried && self.handover.is_ours(sender) => Some(sender),
            _ => None,
        }
    }

    fn count(&self, entry: &Entry, recipient: &Mailbox, verdict: &Verdict) {
        let count = match verdict.state {
            RecipientState::Delivered => &self.counts.delivered,
            RecipientState::Waiting | RecipientState::Released => &self.counts.deferred,
            RecipientState::Failed => &self.counts.failed,
            RecipientState::Stuck | RecipientState::Quarantined => &self.counts.held,
        };
        count.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            entry = %entry.id, %recipient, hop = %entry.next_hop.host, attempt = entry.attempts.saturating_add(1),
            state = ?verdict.state, answer = %verdict.text, "delivery"
        );
    }

    /// Records the outcome, whatever it takes: a delivery that is not recorded would be repeated.
    async fn settle(&self, id: EntryId, outcome: Outcome) {
        loop {
            match self.spool.settle(id, outcome.clone()).await {
                Ok(()) | Err(SpoolError::NoEntry(_) | SpoolError::Closed) => return,
                Err(error) => {
                    tracing::error!(entry = %id, %error, "outcome not recorded yet");
                    tokio::time::sleep(SPOOL_WAIT).await;
                }
            }
        }
    }

    /// The wait after so many attempts: doubled each time, a quarter of it at random, within first and longest.
    fn wait(&self, attempts: u32) -> Duration {
        let Retry { first, longest, .. } = self.settings.get().retry;
        let full = first.saturating_mul(1u32.checked_shl(attempts.min(20)).unwrap_or(u32::MAX)).min(longest);
        jittered(full).max(first.min(longest))
    }
}

/// Octets in KiB, as room for contents is counted.
fn kib(octets: u64) -> u32 {
    u32::try_from(octets / 1024).unwrap_or(u32::MAX).clamp(1, 1 << 28)
}

fn contents(octets: u64) -> Semaphore {
    Semaphore::new(usize::try_from(kib(octets)).unwrap_or(usize::MAX))
}

/// A time less up to a quarter of it, at random, so that what failed together does not come again together.
pub(super) fn jittered(full: Duration) -> Duration {
    let mut random = [0];
    // Without randomness all that is lost is the spread.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let [random] = random;
    full.saturating_sub((full / 1024).saturating_mul(random.into()))
}

impl Verdict {
    fn of(reply: &Reply, hop: &NextHop, dsn: bool) -> Self {
        Self { said_by: Some(hop.clone()), dsn, ..Self::ours(reply) }
    }

    /// A reply of our own.
    fn ours(reply: &Reply) -> Self {
        let (state, class) = match (reply.is_positive(), reply.is_permanent()) {
            (true, _) => (RecipientState::Delivered, 2),
            (_, true) => (RecipientState::Failed, 5),
            _ => (RecipientState::Waiting, 4),
        };
        let status = reply.enhanced.unwrap_or(Enhanced(class, 0, 0));
        Self { state, status, text: bounded(&reply.to_string()), said_by: None, dsn: false }
    }

    fn put_off(why: &str) -> Self {
        let (state, status) = (RecipientState::Waiting, Enhanced(4, 4, 1));
        Self { state, status, text: bounded(why), said_by: None, dsn: false }
    }
}

/// What the sender is told of a recipient (RFC 3461 sections 4.1 and 5.2).
fn action(verdict: &Verdict, notify: Option<Notify>, late: bool) -> Option<Action> {
    match verdict.state {
        RecipientState::Failed => notify.is_none_or(|notify| notify.failure).then_some(Action::Failed),
        RecipientState::Waiting if late => notify.is_none_or(|notify| notify.delay).then_some(Action::Delayed),
        RecipientState::Delivered if !verdict.dsn && notify.is_some_and(|notify| notify.success) => {
            let delivers = verdict.said_by.as_ref().is_some_and(|hop| hop.lmtp);
            Some(if delivers { Action::Delivered } else { Action::Relayed })
        }
        RecipientState::Waiting
        | RecipientState::Released
        | RecipientState::Delivered
        | RecipientState::Stuck
        | RecipientState::Quarantined => None,
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(400).collect()
}

fn after(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

fn before(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_sub(wait).unwrap_or(Timestamp::MIN)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! Which next hop takes a mail: by preference, health and room. One that fails is set aside, for longer each time, then tried with
//! one mail; the next in preference takes over meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::lock;
use crate::config::{NextHop, Retry, Route, RouteHop};
use crate::metrics::{Ended, FoundBy, Metrics};

/// The longest a next hop is set aside, whatever `[retry] longest` says: it is one for many mails.
const ASIDE_MAX: Duration = Duration::from_secs(600);
/// Failures of mails in a row, not of connections, after which a next hop is set aside: one mail may be at fault itself.
const IN_A_ROW: u32 = 3;
/// A next hop that is full and has ended nothing for so long no longer keeps mail from those behind it.
const STALLED: Duration = Duration::from_secs(30);

/// So many next hops are known before those in the MX of domains are forgotten.
const MANY: usize = 4_096;

/// What is known of all next hops. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hops: Mutex<HashMap<NextHop, State>>,
    changed: Notify,
    waiting: Notify,
    pauses: Mutex<Pauses>,
    metrics: Arc<Metrics>,
}

/// How long a next hop is set aside: at first, and at most.
#[derive(Debug, Clone, Copy)]
struct Pauses {
    first: Duration,
    longest: Duration,
}

impl Pauses {
    fn of(retry: &Retry) -> Self {
        let longest = retry.longest.min(ASIDE_MAX).max(retry.first.min(ASIDE_MAX));
        Self { first: retry.first.min(longest), longest }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Mails under way, and those of them that are from the spool.
    under_way: usize,
    from_spool: usize,
    /// One of them shows whether it is back.
    on_trial: bool,
    /// Failures since the last success: of the hop, and of mails.
    failures: u32,
    mail_failures: u32,
    aside_until: Option<Timestamp>,
    /// When a mail last ended, or the first of those under way began.
    last_end: Option<Timestamp>,
    last_error: Option<String>,
    delivered: u64,
    failed: u64,
}

/// A next hop's health, to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopStatus {
    /// Which.
    pub hop: NextHop,
    /// It is set aside: no mail before then.
    pub aside_until: Option<Timestamp>,
    /// Failures since it last took a mail.
    pub failures: u32,
    /// Mails under way to it.
    pub under_way: usize,
    /// Transactions that it ended since the start, whatever it said.
    pub answered: u64,
    /// Transactions that failed since the start: not reached, lost, silent.
    pub failed: u64,
    /// What went wrong last, unless it took a mail since.
    pub last_error: Option<String>,
}

/// Room for one mail at a next hop; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    health: Health,
    hop: NextHop,
    from_spool: bool,
    on_trial: bool,
}

/// Where a mail may go now.
#[derive(Debug)]
pub enum Pick {
    /// To this next hop.
    Hop(RouteHop, Slot),
    /// Nowhere until another mail has ended.
    Full,
    /// Nowhere: all are set aside; says why.
    Aside(String),
}

impl Health {
    /// Next hops that fail are set aside for `retry.first`, then twice that, up to `retry.longest` and 10 minutes.
    pub fn new(retry: &Retry) -> Self {
        Self(Arc::new(Inner {
            hops: Mutex::default(),
            changed: Notify::new(),
            waiting: Notify::new(),
            pauses: Mutex::new(Pauses::of(retry)),
            metrics: Arc::default(),
        }))
    }

    /// What is counted for as long as the gateway works, whatever its configuration.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Other pauses from now on; a next hop that is set aside stays so for as long as it was said.
    pub fn set_retry(&self, retry: &Retry) {
        *lock(&self.0.pauses) = Pauses::of(retry);
    }

    /// Tries every next hop that is set aside with one mail now, however long it was to be left alone.
    pub fn try_now(&self, now: Timestamp) {
        for state in lock(&self.0.hops).values_mut() {
            state.aside_until = state.aside_until.map(|until| until.min(now));
        }
        self.0.changed.notify_one();
    }

    fn pauses(&self) -> Pauses {
        *lock(&self.0.pauses)
    }

    /// Takes room at the best next hop of a route that is not among those `tried`.
    pub fn pick(&self, route: &Route, tried: &[NextHop], from_spool: bool, now: Timestamp) -> Pick {
        let longest = self.pauses().longest;
        let mut hops = lock(&self.0.hops);
        let mut aside: Option<&NextHop> = None;
        let mut best: Option<(bool, usize, &RouteHop)> = None;
        let (mut class, mut class_full, mut stalled, mut full) = (None, false, true, false);
        for one in route.hops().filter(|one| !tried.contains(&one.hop)) {
            if class != Some(one.preference) {
                if best.is_some() || (class_full && !stalled) {
                    break;
                }
                (class, class_full, stalled) = (Some(one.preference), false, true);
            }
            if !hops.contains_key(&one.hop) {
                make_room(&mut hops, now);
                hops.insert(one.hop.clone(), State::default());
            }
            let Some(state) = hops.get(&one.hop) else { continue };
            match state.standing(now, longest) {
                Standing::Aside => aside = aside.or(Some(&one.hop)),
                standing if state.has_room(one, from_spool) => {
                    // One that is to be tried again first, then the one with the fewest under way.
                    let rank = (standing == Standing::Good, state.under_way);
                    if best.is_none_or(|(good, under_way, _)| rank < (good, under_way)) {
                        best = Some((rank.0, rank.1, one));
                    }
                }
                _ => {
                    (full, class_full) = (true, true);
                    stalled &= state.last_end.is_some_and(|end| now > end.saturating_add_wait(STALLED));
                }
            }
        }
        match best {
            Some((good, _, one)) => Pick::Hop(one.clone(), self.slot(&mut hops, one, !good, from_spool, now)),
            None if full => Pick::Full,
            None => {
                let why = aside.and_then(|hop| hops.get(hop)).and_then(|state| state.last_error.clone());
                Pick::Aside(why.unwrap_or_default())
            }
        }
    }

    fn slot(
        &self,
        hops: &mut HashMap<NextHop, State>,
        one: &RouteHop,
        on_trial: bool,
        from_spool: bool,
        now: Timestamp,
    ) -> Slot {
        if let Some(state) = hops.get_mut(&one.hop) {
            if state.under_way == 0 {
                state.last_end = Some(now);
            }
            state.under_way += 1;
            state.from_spool += usize::from(from_spool);
            state.on_trial |= on_trial;
        }
        Slot { health: self.clone(), hop: one.hop.clone(), from_spool, on_trial }
    }

    /// Mails from the spool that a route could begin with now, beside `under_way`.
    pub fn room(&self, route: &Route, under_way: usize, now: Timestamp) -> usize {
        let longest = self.pauses().longest;
        let hops = lock(&self.0.hops);
        let one = |one: &RouteHop| match hops.get(&one.hop).map(|state| state.standing(now, longest)) {
            None | Some(Standing::Good) => one.spool_connections,
            Some(Standing::Trial) => 1,
            Some(Standing::Aside) => 0,
        };
        route.hops().map(one).sum::<usize>().saturating_sub(under_way)
    }

    /// When the first that is set aside is tried again.
    pub fn next_trial(&self, now: Timestamp) -> Option<Timestamp> {
        lock(&self.0.hops).values().filter_map(|state| state.aside_until).filter(|until| *until > now).min()
    }

    /// Waits until one that was set aside is known to work again, or that its trial has ended.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Waits until a mail has ended somewhere, or a little while.
    pub async fn wait_for_room(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(200), self.0.waiting.notified()).await;
    }

    /// All that were used, by name.
    pub fn status(&self) -> Vec<HopStatus> {
        let hops = lock(&self.0.hops);
        let one = |(hop, state): (&NextHop, &State)| HopStatus {
            hop: hop.clone(),
            aside_until: state.aside_until,
            failures: state.mail_failures,
            under_way: state.under_way,
            answered: state.delivered,
            failed: state.failed,
            last_error: state.last_error.clone(),
        };
        let mut all: Vec<HopStatus> = hops.iter().map(one).collect();
        all.sort_by(|a, b| (&a.hop.host, a.hop.port).cmp(&(&b.hop.host, b.hop.port)));
        all
    }

    /// After so many failures in a row: doubled each time, a quarter of it at random.
    fn pause(&self, failures: u32) -> Duration {
        let Pauses { first, longest } = self.pauses();
        let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        super::super::deliver::jittered(doubled.min(longest))
    }
}

/// Hosts in the MX of domains are as many as domains are written to: those of whom nothing has to be known are forgotten.
fn make_room(hops: &mut HashMap<NextHop, State>, now: Timestamp) {
    if hops.len() >= MANY {
        hops.retain(|hop, state| {
            hop.exchanger.is_none() || state.under_way > 0 || state.aside_until.is_some_and(|until| until > now)
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// Its time is up: one mail shows whether it is back.
    Trial,
    Aside,
}

impl State {
    fn standing(&self, now: Timestamp, longest: Duration) -> Standing {
        match self.aside_until {
            None => Standing::Good,
            // Longer than it can be: the clock was set back.
            Some(until) if until > now && until <= now.saturating_add_wait(longest) => Standing::Aside,
            Some(_) if self.on_trial => Standing::Aside,
            Some(_) => Standing::Trial,
        }
    }

    fn has_room(&self, one: &RouteHop, from_spool: bool) -> bool {
        if from_spool {
            return self.from_spool < one.spool_connections;
        }
        // What is kept for the spool cannot be taken up by clients that are slow on purpose.
        let through = one.connections.saturating_sub(one.spool_connections).max(1);
        self.under_way.saturating_sub(self.from_spool) < through
    }
}

impl Slot {
    /// The next hop ended the transaction, whatever it said.
    pub fn answered(&self, now: Timestamp) {
        let mut hops = lock(&self.health.0.hops);
        let Some(state) = hops.get_mut(&self.hop) else { return };
        state.delivered += 1;
        self.count(Ended::Answered);
        state.last_end = Some(now);
        (state.failures, state.mail_failures, state.last_error) = (0, 0, None);
        if state.aside_until.take().is_some() {
            tracing::info!(hop = %super::name(&self.hop), "next hop works again");
            self.health.0.changed.notify_one();
        }
    }

    /// It was not reached, or refuses all: set aside at once.
    pub fn unreachable(&self, now: Timestamp, why: &str) {
        self.failed(now, why, true);
    }

    /// It was lost or silent with a mail under way: set aside when that happens again and again.
    pub fn lost(&self, now: Timestamp, why: &str) {
        self.failed(now, why, false);
    }

    /// Hosts in the MX of domains are too many to be told one by one.
    fn count(&self, ended: Ended) {
        if FoundBy::of(&self.hop) == FoundBy::Mx {
            self.health.metrics().mx_mails.one(ended);
        }
    }

    fn failed(&self, now: Timestamp, why: &str, at_once: bool) {
        let mut hops = lock(&self.health.0.hops);
        let Some(state) = hops.get_mut(&self.hop) else { return };
        state.failed += 1;
        self.count(Ended::Failed);
        state.last_end = Some(now);
        state.last_error = Some(why.to_owned());
        state.mail_failures += 1;
        if !(at_once || self.on_trial || state.mail_failures >= IN_A_ROW) {
            return;
        }
        // Those that were under way together failed together.
        if state.aside_until.is_some_and(|until| until > now) && !self.on_trial {
            return;
        }
        state.failures = state.failures.saturating_add(1);
        let pause = self.health.pause(state.failures);
        state.aside_until = Some(now.saturating_add_wait(pause));
        tracing::warn!(hop = %super::name(&self.hop), %why, seconds = pause.as_secs(), "next hop set aside");
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(state) = lock(&self.health.0.hops).get_mut(&self.hop) {
            state.under_way = state.under_way.saturating_sub(1);
            state.from_spool = state.from_spool.saturating_sub(usize::from(self.from_spool));
            state.on_trial &= !self.on_trial;
        }
        if self.on_trial {
            // Whoever waits for the end of the trial has to know its outcome, that it had none too.
            self.health.0.changed.notify_one();
        }
        self.health.0.waiting.notify_one();
    }
}

/// Times that do not overflow.
trait Later {
    fn saturating_add_wait(self, wait: Duration) -> Timestamp;
}

impl Later for Timestamp {
    fn saturating_add_wait(self, wait: Duration) -> Timestamp {
        self.checked_add(wait).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HopTls;

    fn hop(host: &str, preference: u16) -> RouteHop {
        let hop = NextHop { tls: HopTls::Off, ..NextHop::new(host, 25) };
        RouteHop { preference, connections: 3, spool_connections: 2, ..RouteHop::from(hop) }
    }

    fn bench(hops: &[(&str, u16)]) -> (Health, Route, Timestamp) {
        let retry = Retry { first: Duration::from_secs(60), ..Retry::default() };
        let route = Route::new(hops.iter().map(|(host, preference)| hop(host, *preference)).collect()).unwrap();
        (Health::new(&retry), route, Timestamp::from_second(1_800_000_000).unwrap())
    }

    fn picked(pick: Pick) -> (String, Slot) {
        match pick {
            Pick::Hop(one, slot) => (one.hop.host, slot),
            other => panic!("{other:?}"),
        }
    }

    fn after(now: Timestamp, seconds: u64) -> Timestamp {
        now.saturating_add_wait(Duration::from_secs(seconds))
    }

    #[test]
    fn the_lowest_preference_takes_all_until_it_fails_and_gets_it_back_by_one_mail() {
        let (health, route, now) = bench(&[("second", 20), ("first", 10)]);
        let (host, slot) = picked(health.pick(&route, &[], true, now));
        assert_eq!(host, "first");
        slot.unreachable(now, "refused");
        drop(slot);
        assert_eq!(picked(health.pick(&route, &[], true, now)).0, "second");
        assert_eq!(picked(health.pick(&route, &[], true, after(now, 40))).0, "second");
        // One tries, the others do not wait for it.
        let (host, trial) = picked(health.pick(&route, &[], true, after(now, 61)));
        assert_eq!(host, "first");
        assert_eq!(picked(health.pick(&route, &[], true, after(now, 61))).0, "second");
        trial.answered(after(now, 62));
        assert_eq!(picked(health.pick(&route, &[], true, after(now, 62))).0, "first");
        assert_eq!(health.status().iter().map(|status| status.failed).sum::<u64>(), 1);
    }

    #[test]
    fn pauses_double_up_to_ten_minutes_and_differ() {
        let (health, route, mut now) = bench(&[("only", 10)]);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let (_, slot) = picked(health.pick(&route, &[], true, now));
            slot.unreachable(now, "refused");
            let until = health.status()[0].aside_until.unwrap();
            pauses.push(until.duration_since(now).as_millis());
            assert_eq!(health.next_trial(now), Some(until));
            drop(slot);
            assert!(matches!(health.pick(&route, &[], true, now), Pick::Aside(why) if why == "refused"));
            now = until;
        }
        assert!((45_000..=60_000).contains(&pauses[0]), "{pauses:?}");
        assert!((180_000..=240_000).contains(&pauses[2]), "{pauses:?}");
        assert!(pauses[4..].iter().all(|pause| (450_000..=600_000).contains(pause)), "{pauses:?}");
        assert!(pauses[4..].windows(2).any(|pair| pair[0] != pair[1]), "no jitter: {pauses:?}");
    }

    #[test]
    fn one_mail_that_breaks_off_does_not_set_a_hop_aside_and_three_do() {
        let (health, route, now) = bench(&[("only", 10)]);
        for _ in 0..2 {
            picked(health.pick(&route, &[], true, now)).1.lost(now, "lost");
        }
        picked(health.pick(&route, &[], true, now)).1.answered(now);
        for _ in 0..3 {
            picked(health.pick(&route, &[], true, now)).1.lost(now, "lost");
        }
        assert!(matches!(health.pick(&route, &[], true, now), Pick::Aside(_)));
    }

    #[test]
    fn equal_preferences_share_and_room_is_bounded() {
        let (health, route, now) = bench(&[("a", 10), ("b", 10)]);
        let mut slots: Vec<(String, Slot)> = (0..4).map(|_| picked(health.pick(&route, &[], true, now))).collect();
        for host in ["a", "b"] {
            assert_eq!(slots.iter().filter(|(name, _)| name == host).count(), 2);
        }
        assert!(matches!(health.pick(&route, &[], true, now), Pick::Full), "spool_connections");
        // Three connections, two of them the spool's: whoever fills the third of each keeps nothing from it.
        slots.extend((0..2).map(|_| picked(health.pick(&route, &[], false, now))));
        assert!(matches!(health.pick(&route, &[], false, now), Pick::Full), "connections");
        slots.remove(0);
        picked(health.pick(&route, &[], true, now));
        assert!(matches!(health.pick(&route, &[], false, now), Pick::Full));
        slots.pop();
        picked(health.pick(&route, &[], false, now));
    }

    #[test]
    fn a_full_hop_keeps_its_mail_unless_it_stalls() {
        let (health, route, now) = bench(&[("first", 10), ("second", 20)]);
        let slots: Vec<_> = (0..2).map(|_| picked(health.pick(&route, &[], true, now))).collect();
        assert!(matches!(health.pick(&route, &[], true, after(now, 29)), Pick::Full));
        assert_eq!(picked(health.pick(&route, &[], true, after(now, 31))).0, "second");
        slots[0].1.answered(after(now, 31));
        assert!(matches!(health.pick(&route, &[], true, after(now, 32)), Pick::Full));
    }

    #[tokio::test]
    async fn a_trial_without_an_outcome_wakes_who_waits_for_it() {
        let (health, route, now) = bench(&[("only", 10)]);
        picked(health.pick(&route, &[], true, now)).1.unreachable(now, "refused");
        let trial = picked(health.pick(&route, &[], false, after(now, 61))).1;
        assert_eq!((health.room(&route, 0, after(now, 61)), health.next_trial(after(now, 61))), (0, None));
        drop(trial);
        tokio::time::timeout(Duration::from_secs(5), health.changed()).await.expect("nobody is woken");
        assert_eq!(health.room(&route, 0, after(now, 61)), 1);
    }

    #[tokio::test]
    async fn who_asks_for_it_has_a_hop_that_was_set_aside_tried_with_one_mail() {
        let (health, route, now) = bench(&[("only", 10)]);
        picked(health.pick(&route, &[], true, now)).1.unreachable(now, "refused");
        assert!(matches!(health.pick(&route, &[], true, now), Pick::Aside(_)));
        health.try_now(now);
        tokio::time::timeout(Duration::from_secs(5), health.changed()).await.expect("nobody is woken");
        let _trial = picked(health.pick(&route, &[], true, now));
        assert!(matches!(health.pick(&route, &[], true, now), Pick::Aside(_)), "one mail");
    }

    #[test]
    fn a_clock_set_back_sets_nothing_aside_for_years() {
        let (health, route, now) = bench(&[("only", 10)]);
        picked(health.pick(&route, &[], true, now)).1.unreachable(now, "refused");
        let before = now.checked_sub(Duration::from_secs(86_400 * 400)).unwrap();
        picked(health.pick(&route, &[], true, before));
    }
}

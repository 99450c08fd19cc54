//! What those who watch are told of a gateway: numbers, and whether it takes mail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::reload::{Core, lock};
use crate::audit::AuditLog;
use crate::metrics::server::Watched;
use crate::metrics::text::{Kind, Text};
use crate::metrics::{Connected, FoundBy};
use crate::relay::deliver;
use crate::relay::expiry::Expiry;
use crate::relay::hop::HopStatus;
use crate::relay::listen::Counts;
use crate::spool::Stats;
use crate::store::CertStore;

/// How often a shared store is asked who is alive.
const NODES: Duration = Duration::from_secs(15);
/// The spool is summed up again after so many times as long as that took: a spool of a million mails is not looked through all the time.
const REST: u32 = 20;

/// A gateway, seen by those who watch it.
pub(super) struct Observer {
    pub(super) core: Arc<Core>,
    pub(super) delivered: Arc<deliver::Counts>,
    pub(super) expiry: Expiry,
    pub(super) audit: Option<AuditLog>,
    pub(super) nodes: Arc<AtomicU64>,
    pub(super) summed: Mutex<Option<Summed>>,
    pub(super) started: Timestamp,
}

/// A sum over the spool, and until when it is told again.
pub(super) struct Summed {
    stats: Stats,
    until: Instant,
}

/// Asks again and again who is alive, for [`Observer::nodes`]; ends when dropped.
pub(super) async fn count_nodes(store: Arc<dyn CertStore>, nodes: Arc<AtomicU64>) {
    loop {
        let asked = store.clone();
        let alive = tokio::task::spawn_blocking(move || asked.live_nodes()).await;
        let alive = alive.ok().flatten().and_then(|alive| u64::try_from(alive).ok()).unwrap_or_default();
        nodes.store(alive, Ordering::Relaxed);
        tokio::time::sleep(NODES).await;
    }
}

impl Watched for Observer {
    fn metrics(&self) -> String {
        let mut text = Text::default();
        text.family("waxwing_build_info", Kind::Gauge, "1; the version is the label.");
        text.sample("waxwing_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let help = "When the gateway started, seconds since 1970.";
        text.gauge("waxwing_start_time_seconds", help, self.started.as_second() as f64);
        let ready = if self.unready().is_empty() { 1.0 } else { 0.0 };
        text.gauge("waxwing_ready", "1: mail can be taken and treated; /readyz says why not.", ready);
        let live = self.core.live.get();
        live.pipeline.metrics().write(&mut text);
        let (in_flight, most) = live.pipeline.in_flight();
        text.gauge("waxwing_in_flight_octets", "Octets reserved for mails under way.", in_flight as f64);
        text.gauge("waxwing_in_flight_limit_octets", "How many there may be: bytes_in_flight.", most as f64);
        let harvested = live.pipeline.harvested();
        let name = "waxwing_harvested_total";
        text.family(name, Kind::Counter, "What signed mail announced, and what became of it.");
        for (result, count) in [
            ("offered", harvested.offered),
            ("dropped", harvested.dropped),
            ("handled", harvested.handled),
            ("trusted", harvested.trusted),
            ("pending", harvested.pending),
            ("full", harvested.full),
            ("pushed_out", harvested.pushed_out),
        ] {
            text.sample(name, &[("result", result)], count as f64);
        }
        self.connections(&mut text);
        self.queue(&mut text);
        self.next_hops(&mut text);
        self.store(&mut text);
        let audit = self.audit.as_ref();
        let help = "1: the audit log can be written; 0: no private key is used.";
        let works = audit.map(|audit| if audit.works().is_ok() { 1.0 } else { 0.0 });
        text.gauge_where_known("waxwing_audit_works", help, works);
        let last = audit.map(|audit| audit.head().0 as f64);
        text.gauge_where_known("waxwing_audit_lines", "Number of the last line of the audit log.", last);
        text.finish()
    }

    fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.core.spool.is_healthy() {
            let why = self.core.spool.trouble().unwrap_or_else(|| "it cannot be written".to_owned());
            reasons.push(format!("spool: no mail is taken: {why}"));
        }
        if let Some(why) = self.core.store.state().unusable {
            reasons.push(format!("store: {why}"));
        }
        let down = self.core.ended_listeners();
        reasons.extend(down.into_iter().map(|name| format!("listener {name}: it has ended")));
        if let Some(Err(error)) = self.audit.as_ref().map(AuditLog::works) {
            reasons.push(format!("audit: {error}"));
        }
        // Where the system says it comes with a file name or two; a line each all the same.
        reasons.iter().map(|reason| reason.replace(|c: char| c.is_control(), " ")).collect()
    }
}

impl Observer {
    fn connections(&self, text: &mut Text) {
        let listeners = self.core.counts();
        let name = "waxwing_connections";
        text.family(name, Kind::Gauge, "Connections that are open.");
        for (listener, counts) in &listeners {
            // Ended first, so that it is never ahead.
            let ended = counts.ended.load(Ordering::Relaxed);
            let open = counts.connections.get(Connected::Accepted).saturating_sub(ended);
            text.sample(name, &[("listener", listener)], open as f64);
        }
        let name = "waxwing_connections_total";
        text.family(
            name,
            Kind::Counter,
            "Connections accepted, turned away, and that ended before their session began.",
        );
        for (listener, counts) in &listeners {
            counts.connections.write(text, name, Some(("listener", listener)), &["outcome"], true);
        }
        let name = "waxwing_refused_replies_total";
        text.family(
            name,
            Kind::Counter,
            "Replies 4xx and 5xx, whoever refused: the session, the gateway, or a next hop.",
        );
        for (listener, counts) in &listeners {
            counts.refused.write(text, name, Some(("listener", listener)), &["code"], false);
        }
        let name = "waxwing_logins_total";
        text.family(name, Kind::Counter, "Times that a client said by AUTH who it is.");
        for (listener, counts) in &listeners {
            counts.logins.write(text, name, Some(("listener", listener)), &["outcome"], true);
        }
    }

    fn summed(&self) -> Stats {
        let mut summed = self.summed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = summed.as_ref().filter(|known| Instant::now() < known.until) {
            return known.stats.clone();
        }
        let began = Instant::now();
        let stats = self.core.spool.stats();
        let until = Instant::now() + began.elapsed() * REST;
        *summed = Some(Summed { stats: stats.clone(), until });
        stats
    }

    fn queue(&self, text: &mut Text) {
        let total = self.summed().total();
        let states = [
            ("waiting", total.waiting),
            ("deferred", total.deferred),
            ("claimed", total.claimed),
            ("held", total.held),
        ];
        let name = "waxwing_queue_entries";
        text.family(name, Kind::Gauge, "Entries of the spool by state; those deferred are among those waiting.");
        states.iter().for_each(|(state, sum)| text.sample(name, &[("state", state)], sum.entries as f64));
        let name = "waxwing_queue_octets";
        text.family(name, Kind::Gauge, "Octets of their contents.");
        states.iter().for_each(|(state, sum)| text.sample(name, &[("state", state)], sum.octets as f64));
        let oldest = total.oldest.map_or(0.0, |at| Timestamp::now().duration_since(at).as_secs_f64().max(0.0));
        text.gauge(
            "waxwing_queue_oldest_seconds",
            "Age of the oldest entry that is not held; 0: there is none.",
            oldest,
        );
        let works = if self.core.spool.is_healthy() { 1.0 } else { 0.0 };
        text.gauge("waxwing_spool_works", "1: the spool takes mail.", works);
        let name = "waxwing_deliveries_total";
        text.family(
            name,
            Kind::Counter,
            "Spooled recipients by what an attempt came to; reports written; ends unknown.",
        );
        let counts = &self.delivered;
        for (outcome, count) in [
            ("delivered", &counts.delivered),
            ("deferred", &counts.deferred),
            ("failed", &counts.failed),
            ("held", &counts.held),
            ("notified", &counts.notified),
            ("dup_possible", &counts.dup_possible),
        ] {
            text.sample(name, &[("outcome", outcome)], count.load(Ordering::Relaxed) as f64);
        }
    }

    /// Those that the configuration names by name, and no others: their number is bounded. Of the rest, how many.
    fn next_hops(&self, text: &mut Text) {
        let config = self.core.live.get().config.clone();
        let status = self.core.health.status();
        let known =
            |hop: &&HopStatus| config.named_hosts().any(|(_, route)| route.hops().any(|one| one.hop == hop.hop));
        let mut hops: Vec<(String, &HopStatus)> =
            status.iter().filter(known).map(|one| (format!("{}:{}", one.hop.host, one.hop.port), one)).collect();
        hops.sort_by(|(one, _), (other, _)| one.cmp(other));
        // The same host may be spoken to in two ways.
        hops.dedup_by(|(one, _), (other, _)| one == other);
        let now = Timestamp::now();
        let aside = |one: &&HopStatus| one.aside_until.is_some_and(|until| until > now);
        let by_mx = status.iter().filter(|one| FoundBy::of(&one.hop) == FoundBy::Mx);
        let help = "Hosts in the MX of domains that are set aside.";
        text.gauge("waxwing_mx_hosts_aside", help, by_mx.filter(aside).count() as f64);
        let name = "waxwing_next_hop_up";
        text.family(name, Kind::Gauge, "1: the next hop is used; 0: it is set aside.");
        for (hop, status) in &hops {
            let up = if aside(status) { 0.0 } else { 1.0 };
            text.sample(name, &[("next_hop", hop)], up);
        }
        let name = "waxwing_next_hop_under_way";
        text.family(name, Kind::Gauge, "Mails under way to the next hop.");
        hops.iter().for_each(|(hop, status)| text.sample(name, &[("next_hop", hop)], status.under_way as f64));
        let name = "waxwing_next_hop_mails_total";
        text.family(
            name,
            Kind::Counter,
            "Mails that the next hop answered, and that it was lost with or could not be reached for.",
        );
        for (hop, status) in &hops {
            text.sample(name, &[("next_hop", hop), ("outcome", "answered")], status.answered as f64);
            text.sample(name, &[("next_hop", hop), ("outcome", "failed")], status.failed as f64);
        }
    }

    fn store(&self, text: &mut Text) {
        let state = self.core.store.state();
        text.gauge("waxwing_store_generation", "Grows with each change of the store.", state.generation as f64);
        text.family("waxwing_store_alerts_total", Kind::Counter, "Records found missing or not authentic: tampering.");
        text.sample("waxwing_store_alerts_total", &[], state.alerts as f64);
        let help = "Records that a later version of Waxwing wrote: not used here.";
        text.gauge("waxwing_store_later_records", help, state.later as f64);
        let usable = if state.unusable.is_none() { 1.0 } else { 0.0 };
        text.gauge(
            "waxwing_store_usable",
            "1: the store answers; 0: its copy is too old, mail is answered 451.",
            usable,
        );
        let shared = state.shared.as_ref();
        let connected = shared.map(|shared| if shared.connected { 1.0 } else { 0.0 });
        let help = "1: changes of the shared store come as they are made.";
        text.gauge_where_known("waxwing_store_connected", help, connected);
        let revision = shared.map(|shared| shared.revision as f64);
        text.gauge_where_known("waxwing_store_revision", "Revision of the shared store that is in use here.", revision);
        let behind = shared.map(|shared| shared.behind as f64);
        text.gauge_where_known("waxwing_store_behind_revisions", "Revisions known of and not here yet.", behind);
        let age = shared.and_then(|shared| shared.age).map(|age| age.as_secs_f64());
        text.gauge_where_known("waxwing_store_contact_age_seconds", "Since this copy was last proven fresh.", age);
        let nodes = shared.map(|_| self.nodes.load(Ordering::Relaxed) as f64);
        let help = "Gateways that gave a sign of life just now; 0: not known.";
        text.gauge_where_known("waxwing_store_live_nodes", help, nodes);
        let counts = self.expiry.counts();
        let name = "waxwing_certificates_expiring";
        text.family(name, Kind::Gauge, "Last certificates of their owners that run out within 30 days.");
        if let Some((_, [soon, _, partners])) = counts {
            text.sample(name, &[("whose", "ours")], soon as f64);
            text.sample(name, &[("whose", "partners")], partners as f64);
        }
        let expired = counts.map(|(_, [_, expired, _])| expired as f64);
        text.gauge_where_known(
            "waxwing_certificates_expired",
            "Users of ours whose last certificate has run out.",
            expired,
        );
        let help = "When the store was last looked through for that, seconds since 1970.";
        text.gauge_where_known(
            "waxwing_certificates_looked_at_seconds",
            help,
            counts.map(|(at, _)| at.as_second() as f64),
        );
    }
}

impl Core {
    /// Listeners that should accept and have ended.
    fn ended_listeners(&self) -> Vec<String> {
        let listeners = lock(&self.listeners);
        listeners.serving.iter().filter(|one| one.handle.has_ended()).map(|one| one.name.clone()).collect()
    }

    /// What each listener has seen.
    fn counts(&self) -> Vec<(String, Arc<Counts>)> {
        let listeners = lock(&self.listeners);
        listeners.serving.iter().map(|one| (one.name.clone(), one.handle.counts().clone())).collect()
    }
}

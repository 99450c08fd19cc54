//! Next hops: several for each way, and the waits for them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Section, boolean, choice, duration, integer, parsed, text};
use super::{Direction, HopTls, NextHop};
use crate::address::Domain;

/// A next hop of a route, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteHop {
    /// The next hop.
    pub hop: NextHop,
    /// The lower, the sooner it is tried; equal ones share the mail. Default 10.
    pub preference: u16,
    /// Mails under way to it at once, straight through and from the spool; at least 2, default 200.
    pub connections: usize,
    /// Those of them that are kept for the spool; fewer than `connections`, default 16 (half of few connections).
    pub spool_connections: usize,
}

impl From<NextHop> for RouteHop {
    fn from(hop: NextHop) -> Self {
        Self { hop, preference: 10, connections: 200, spool_connections: 16 }
    }
}

/// The next hops of one way, by preference: never none, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    best: RouteHop,
    others: Vec<RouteHop>,
}

impl Route {
    /// Of these hops, in order of preference, those of equal preference in the order given; `None`: there is none.
    pub fn new(mut hops: Vec<RouteHop>) -> Option<Self> {
        hops.sort_by_key(|hop| hop.preference);
        let mut hops = hops.into_iter();
        Some(Self { best: hops.next()?, others: hops.collect() })
    }

    /// The first in order.
    pub fn best(&self) -> &NextHop {
        &self.best.hop
    }

    /// Whether one of them is told from which client a mail came.
    pub fn forwards(&self) -> bool {
        self.hops().any(|one| one.hop.xforward)
    }

    /// All of them, by preference.
    pub fn hops(&self) -> impl Iterator<Item = &RouteHop> {
        std::iter::once(&self.best).chain(&self.others)
    }
}

impl From<NextHop> for Route {
    fn from(hop: NextHop) -> Self {
        Self { best: hop.into(), others: Vec::new() }
    }
}

impl super::Config {
    /// The next hops of a direction; mail by recipient that was taken as inbound goes where inbound mail goes.
    pub fn route(&self, direction: Direction) -> &Arc<Route> {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound | Direction::ByRecipient => &self.inbound,
        }
    }
}

/// How long a next hop is waited for, step by step (RFC 5321 section 4.5.3.2 allows more; R6 does not).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopWaits {
    /// DNS, and the connection to each address; default 30 s.
    pub connect: Duration,
    /// Greeting and EHLO, with STARTTLS; the handshake; EHLO after it; default 1 min for each.
    pub greeting: Duration,
    /// Each of MAIL, RCPT and DATA; default 2 min.
    pub command: Duration,
    /// The content and the answer to the final dot, and the whole of a transaction that a client waits for; default 4 min.
    pub all: Duration,
}

impl Default for HopWaits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(30), greeting: seconds(60), command: seconds(120), all: seconds(240) }
    }
}

impl HopWaits {
    /// No step longer than the whole.
    pub(super) fn bounded(self) -> Self {
        let Self { connect, greeting, command, all } = self;
        Self { connect: connect.min(all), greeting: greeting.min(all), command: command.min(all), all }
    }
}

pub(super) fn waits(section: &Section<'_, '_>) -> HopWaits {
    let default = HopWaits::default();
    let bounds = |key, low, default| section.get(key, duration(low, Duration::from_secs(3_600))).unwrap_or(default);
    let short = Duration::from_millis(100);
    HopWaits {
        connect: bounds("hop_connect_timeout", short, default.connect),
        greeting: bounds("hop_greeting_timeout", short, default.greeting),
        command: bounds("hop_command_timeout", short, default.command),
        all: bounds("hop_timeout", short, default.all),
    }
    .bounded()
}

/// Both ways: `outbound` and `inbound`, each a table or an array of tables.
pub(super) fn routes(top: &Section<'_, '_>) -> (Option<Route>, Option<Route>) {
    let Some(hops) = top.section("next_hop") else {
        top.complain(
            "next_hop",
            "nothing",
            "expected [next_hop.outbound] and [next_hop.inbound], each with host and port",
        );
        return (None, None);
    };
    let both = (route(&hops, "outbound"), route(&hops, "inbound"));
    hops.finish();
    both
}

/// The next hop that a `[[route]]` is, or those in it.
pub(super) fn hops_of(section: &Section<'_, '_>) -> Option<Route> {
    match (section.has("host"), section.has("next_hop")) {
        (false, true) => route(section, "next_hop"),
        (true, false) => Route::new(route_hop(section).into_iter().collect()),
        (both, _) => {
            let found = if both { "host beside next_hop" } else { "nothing" };
            section.complain("host", found, "expected one of host = …, [[route.next_hop]] with hosts, and mx = true");
            None
        }
    }
}

fn route(hops: &Section<'_, '_>, key: &'static str) -> Option<Route> {
    let Some(value) = hops.value(key) else {
        hops.complain(key, "nothing", format!("expected [next_hop.{key}] with host and port"));
        return None;
    };
    let sections = match value.get_ref() {
        DeValue::Array(_) => hops.sections(key),
        _ => hops.section(key).into_iter().collect(),
    };
    if matches!(value.get_ref(), DeValue::Array(list) if list.is_empty()) {
        hops.complain(
            key,
            "an empty list",
            format!("expected [next_hop.{key}] or [[next_hop.{key}]] with host and port"),
        );
    }
    let mut found: Vec<RouteHop> = Vec::with_capacity(sections.len());
    for section in sections {
        let hop = route_hop(&section);
        if let Some(hop) = hop {
            if found.iter().any(|other| (&other.hop.host, other.hop.port) == (&hop.hop.host, hop.hop.port)) {
                section.complain("host", format!("{}:{} twice", hop.hop.host, hop.hop.port), "expected each hop once");
            }
            found.push(hop);
        }
        section.finish();
    }
    Route::new(found)
}

fn route_hop(section: &Section<'_, '_>) -> Option<RouteHop> {
    let default = RouteHop::from(hop(section)?);
    let preference = section.get("preference", integer(0, 65_535)).and_then(|number| u16::try_from(number).ok());
    let RouteHop { connections, spool_connections, .. } = default;
    let Counts { connections, spool_connections } = Counts::read(section, Counts { connections, spool_connections });
    Some(RouteHop {
        preference: preference.unwrap_or(default.preference),
        connections,
        spool_connections,
        hop: default.hop,
    })
}

/// Mails under way at once: see [`RouteHop`].
pub(super) struct Counts {
    pub(super) connections: usize,
    pub(super) spool_connections: usize,
}

impl Counts {
    pub(super) fn read(section: &Section<'_, '_>, default: Self) -> Self {
        let count = |key, high, default| {
            let low = if key == "connections" { 2 } else { 1 };
            let read = section.get(key, integer(low, high)).and_then(|number| usize::try_from(number).ok());
            read.unwrap_or(default)
        };
        let connections = count("connections", 100_000, default.connections);
        let spool_connections =
            count("spool_connections", 1_000, default.spool_connections.min(connections / 2).max(1));
        if spool_connections >= connections {
            let found = format!("{spool_connections} of {connections} connections");
            section.complain(
                "spool_connections",
                found,
                "expected fewer than `connections`: mail also goes straight through",
            );
        }
        Self { connections, spool_connections }
    }
}

fn hop(section: &Section<'_, '_>) -> Option<NextHop> {
    let host = section.require("host", "a host name or an IP address", parsed(host));
    let lmtp = section.get("lmtp", boolean).unwrap_or(false);
    let port = section.get("port", integer(1, 65_535)).and_then(|port| u16::try_from(port).ok());
    let port = port.unwrap_or(if lmtp { 24 } else { 25 });
    let words = [
        ("off", HopTls::Off),
        ("opportunistic", HopTls::Opportunistic),
        ("required", HopTls::Required),
        ("verified", HopTls::Verified),
    ];
    let tls = section.get("tls", choice(&words)).unwrap_or_default();
    let ca = section.get("ca", text).map(PathBuf::from);
    if ca.is_some() && tls != HopTls::Verified {
        section.complain("ca", "CAs beside a `tls` that asks for none", "expected tls = \"verified\", or no ca");
    }
    let xforward = section.get("xforward", boolean).unwrap_or(false);
    let source = super::routes::source(section);
    Some(NextHop { host: host?, port, tls, ca, lmtp, xforward, source, exchanger: None })
}

fn host(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.to_string());
    }
    match Domain::parse(text) {
        Ok(name) if !text.starts_with('[') => Ok(name.as_str().to_owned()),
        _ => Err("expected a host name or an IP address without brackets".into()),
    }
}

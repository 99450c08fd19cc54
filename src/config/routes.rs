//! `[[route]]`: where mail for some domains goes, in place of the next hops of its direction; `[direct]`: how the DNS is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::hops::{Counts, hops_of};
use super::reader::{Section, boolean, choice, duration, integer, list, text};
use super::{Config, Direction, HopTls, NextHop, Route};
use crate::address::Domain;
use crate::discovery::smimea::Association;

/// A way for the mail of some domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRoute {
    /// Whose mail; never none.
    pub domains: Vec<DomainPattern>,
    /// Mail that goes this way alone.
    pub direction: Direction,
    pub via: Via,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// To hosts that the configuration names.
    Hosts(Arc<Route>),
    /// To the hosts in the MX of each recipient's domain.
    Exchangers(Arc<ByMx>),
}

/// Whose mail a route takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainPattern {
    /// `*`
    Any,
    /// `partner.example`
    Exact(Domain),
    /// `*.partner.example`: all below it, and not itself.
    Below(Domain),
}

impl DomainPattern {
    /// Whether it takes mail for this domain.
    pub fn matches(&self, domain: &Domain) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(one) => one == domain,
            Self::Below(one) => {
                domain.as_str().strip_suffix(one.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

/// How mail is delivered to the hosts in a domain's MX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByMx {
    /// Default 25.
    pub port: u16,
    /// The least that is asked for where neither DANE nor MTA-STS asks for more: never `Off`.
    pub tls: HopTls,
    /// PEM file of the CAs that certificates are judged by under `tls = "verified"` and MTA-STS; `None`: the system's.
    pub ca: Option<PathBuf>,
    pub source: SourceAddresses,
    /// For each host; see [`super::RouteHop`]. Default 20, and 5 of them for the spool.
    pub connections: usize,
    pub spool_connections: usize,
    /// TLSA records (RFC 7672) are asked for and held to; default yes.
    pub dane: bool,
    /// MTA-STS (RFC 8461) is asked for and held to; default yes.
    pub mta_sts: bool,
}

/// Addresses of ours that connections come from, one of each family at most; none: whatever the system takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SourceAddresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl SourceAddresses {
    /// Whether any is named.
    pub fn is_some(&self) -> bool {
        self.v4.is_some() || self.v6.is_some()
    }

    /// The one that a connection to `address` comes from.
    pub fn toward(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    /// Whether `address` may be connected to: where some are named, only from one of them.
    pub fn reaches(&self, address: IpAddr) -> bool {
        !self.is_some() || self.toward(address).is_some()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

/// What the DNS says of a host in somebody's MX, beside its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Exchanger {
    /// TLSA records that can be used, proven by DNSSEC: a certificate has to fit one of them. Empty: there are none.
    pub tlsa: Vec<Association>,
    /// Names that a certificate by a DANE-TA record may bear (RFC 7672 section 3.2.2).
    pub names: Vec<String>,
}

/// How the DNS is asked for routes with `mx = true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// Resolvers; empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// File of DNSKEY records that validation begins with; `None`: the root zone's keys.
    pub trust_anchor: Option<PathBuf>,
    /// For one look-up; default 5 s.
    pub timeout: Duration,
    /// Private, loopback and link-local addresses may be connected to; default no: anybody's MX names them.
    pub private_addresses: bool,
    /// Where policies of MTA-STS are fetched; default 443 (RFC 8461 section 3.3).
    pub mta_sts_port: u16,
    /// PEM file of the CAs that policy hosts are judged by; `None`: the system's.
    pub mta_sts_ca: Option<PathBuf>,
}

impl Default for Direct {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            trust_anchor: None,
            timeout: Duration::from_secs(5),
            private_addresses: false,
            mta_sts_port: 443,
            mta_sts_ca: None,
        }
    }
}

/// Where a recipient's mail goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// To hosts that the configuration names.
    Hosts(Arc<Route>),
    /// To the hosts in this domain's MX.
    Domain(Domain, Arc<ByMx>),
}

/// The same way: one mail may go there in one transaction.
impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hosts(one), Self::Hosts(other)) => Arc::ptr_eq(one, other) || one == other,
            (Self::Domain(one, way), Self::Domain(other, other_way)) => {
                one == other && (Arc::ptr_eq(way, other_way) || way == other_way)
            }
            _ => false,
        }
    }
}

impl Target {
    /// What stands for it in the spool: the first host, or the domain itself.
    pub fn hop(&self) -> NextHop {
        match self {
            Self::Hosts(route) => route.best().clone(),
            Self::Domain(domain, way) => {
                NextHop { tls: way.tls, ca: way.ca.clone(), ..NextHop::new(domain.as_str(), way.port) }
            }
        }
    }
}

impl Config {
    /// Where mail of a direction for a domain goes: by the first route that takes it, else by the direction's next hops.
    pub fn target(&self, direction: Direction, domain: &Domain) -> Target {
        let takes = |route: &&DomainRoute| {
            route.direction == direction && route.domains.iter().any(|pattern| pattern.matches(domain))
        };
        match self.routes.iter().find(takes).map(|route| &route.via) {
            None => Target::Hosts(self.route(direction).clone()),
            Some(Via::Hosts(route)) => Target::Hosts(route.clone()),
            Some(Via::Exchangers(way)) => Target::Domain(domain.clone(), way.clone()),
        }
    }

    /// The hosts that the configuration names, route by route, with the place of each in the file.
    pub fn named_hosts(&self) -> impl Iterator<Item = (String, &Arc<Route>)> {
        let usual = [("next_hop.outbound", &self.outbound), ("next_hop.inbound", &self.inbound)];
        let routes = self.routes.iter().enumerate().filter_map(|(at, one)| match &one.via {
            Via::Hosts(route) => Some((format!("route[{}]", at + 1), route)),
            Via::Exchangers(_) => None,
        });
        usual.into_iter().map(|(name, route)| (name.to_owned(), route)).chain(routes)
    }

    /// Whether a next hop of this direction is told from which client a mail came.
    pub fn forwards(&self, direction: Direction) -> bool {
        let told =
            |one: &DomainRoute| matches!(&one.via, Via::Hosts(route) if one.direction == direction && route.forwards());
        self.route(direction).forwards() || self.routes.iter().any(told)
    }

    /// The routes by MX, with the place of each in the file.
    pub fn by_mx(&self) -> impl Iterator<Item = (String, &Arc<ByMx>)> {
        self.routes.iter().enumerate().filter_map(|(at, one)| match &one.via {
            Via::Exchangers(way) => Some((format!("route[{}]", at + 1), way)),
            Via::Hosts(_) => None,
        })
    }
}

const WAYS: &[(&str, Direction)] = &[("outbound", Direction::Outbound), ("inbound", Direction::Inbound)];
/// Nothing that the DNS asks for could be held to without TLS.
const TLS: &[(&str, HopTls)] =
    &[("opportunistic", HopTls::Opportunistic), ("required", HopTls::Required), ("verified", HopTls::Verified)];

/// All routes, in order.
pub(super) fn routes(top: &Section<'_, '_>) -> Vec<DomainRoute> {
    let mut found: Vec<DomainRoute> = Vec::new();
    for section in top.sections("route") {
        let route = route(&section);
        if let Some(route) = route {
            let behind = |one: &DomainRoute| {
                one.direction == route.direction
                    && route.domains.iter().all(|pattern| one.domains.iter().any(|known| known.covers(pattern)))
            };
            if found.iter().any(behind) {
                section.complain(
                    "domain",
                    "domains that an earlier [[route]] takes",
                    "expected the more special routes first: the first that takes a domain holds",
                );
            }
            found.push(route);
        }
        section.finish();
    }
    found
}

fn route(section: &Section<'_, '_>) -> Option<DomainRoute> {
    let domains = section.require(
        "domain",
        "whose mail goes this way, such as [\"partner.example\", \"*.partner.example\"] or \"*\"",
        list(pattern),
    );
    let direction = section.require("direction", "\"outbound\" or \"inbound\"", choice(WAYS));
    let by_mx = section.get("mx", boolean).unwrap_or(false);
    let via = if by_mx {
        if direction == Some(Direction::Inbound) {
            section.complain("mx", "inbound mail by MX", "expected host = …: the MX of our own domains leads here");
        }
        Some(Via::Exchangers(Arc::new(exchangers(section))))
    } else {
        hops_of(section).map(|route| Via::Hosts(Arc::new(route)))
    };
    if domains.as_ref().is_some_and(Vec::is_empty) {
        section.complain("domain", "an empty list", "expected at least one domain, or \"*\"");
    }
    Some(DomainRoute { domains: domains?, direction: direction?, via: via? })
}

fn exchangers(section: &Section<'_, '_>) -> ByMx {
    let port = section.get("port", integer(1, 65_535)).and_then(|port| u16::try_from(port).ok());
    let tls = section.get("tls", choice(TLS)).unwrap_or_default();
    let Counts { connections, spool_connections } =
        Counts::read(section, Counts { connections: 20, spool_connections: 5 });
    ByMx {
        port: port.unwrap_or(25),
        tls,
        ca: section.get("ca", text).map(PathBuf::from),
        source: source(section),
        connections,
        spool_connections,
        dane: section.get("dane", boolean).unwrap_or(true),
        mta_sts: section.get("mta_sts", boolean).unwrap_or(true),
    }
}

/// `source`: one address of each family at most.
pub(super) fn source(section: &Section<'_, '_>) -> SourceAddresses {
    let expected = "expected addresses of this machine, one of IPv4 and one of IPv6 at most, such as \"192.0.2.1\"";
    let read = |value: &DeValue<'_>| {
        let all = list(|text| text.parse::<IpAddr>().map_err(|_| expected.to_owned()))(value)?;
        let mut source = SourceAddresses::default();
        for address in all {
            let twice = match address {
                _ if address.is_unspecified() || address.is_multicast() => true,
                IpAddr::V4(v4) => source.v4.replace(v4).is_some(),
                IpAddr::V6(v6) => source.v6.replace(v6).is_some(),
            };
            if twice {
                return Err(expected.to_owned());
            }
        }
        Ok(source)
    };
    section.get("source", read).unwrap_or_default()
}

impl DomainPattern {
    /// Whether it takes all that the other one takes.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (Self::Exact(one), Self::Exact(other)) => one == other,
            (Self::Exact(_), Self::Below(_)) => false,
            (Self::Below(_), Self::Exact(domain)) => self.matches(domain),
            (Self::Below(one), Self::Below(domain)) => one == domain || self.matches(domain),
        }
    }
}

fn pattern(text: &str) -> Result<DomainPattern, String> {
    if text == "*" {
        return Ok(DomainPattern::Any);
    }
    let (below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let domain = Domain::parse(name).map_err(|error| error.to_string())?;
    Ok(if below { DomainPattern::Below(domain) } else { DomainPattern::Exact(domain) })
}

/// `[direct]`.
pub(super) fn direct(section: Section<'_, '_>) -> Direct {
    let default = Direct::default();
    let timeout = duration(Duration::from_millis(100), Duration::from_secs(60));
    let port = section.get("mta_sts_port", integer(1, 65_535)).and_then(|port| u16::try_from(port).ok());
    let direct = Direct {
        servers: section.get("servers", list(super::discovery::resolver)).unwrap_or_default(),
        trust_anchor: section.get("trust_anchor", text).map(PathBuf::from),
        timeout: section.get("timeout", timeout).unwrap_or(default.timeout),
        private_addresses: section.get("private_addresses", boolean).unwrap_or(false),
        mta_sts_port: port.unwrap_or(default.mta_sts_port),
        mta_sts_ca: section.get("mta_sts_ca", text).map(PathBuf::from),
    };
    section.finish();
    direct
}

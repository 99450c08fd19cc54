//! Delivery by MX: what the DNS and a domain's policy say of where its mail goes, and how. Asked anew at each attempt; what was said holds as
//! long as the DNS says.
//!
//! **Never weaker than the domain asks.** Where DNSSEC proves the way to a host, its TLSA records bind (RFC 7672): a certificate fits one of
//! them or the host gets no mail, and a host whose records cannot be had gets none. Else a policy of MTA-STS binds (RFC 8461). What cannot be
//! known now is put off; only what is known to be impossible is refused.

/// The hosts in a domain's MX.
pub mod mx;
/// Policies of MTA-STS, fetched and kept.
mod policies;
/// Policies on disk.
mod shelf;
/// What MTA-STS says.
pub mod sts;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::task::JoinSet;

use self::mx::Exchange;
use self::policies::Policies;
use self::sts::{Mode, Policy};
use super::fetch::is_public;
use crate::address::Domain;
use crate::config::{ByMx, Config, Direct, Exchanger, HopTls, NextHop, Route, RouteHop, SourceAddresses};
use crate::discovery::dnssec::{self, Answer};
use crate::discovery::smimea::{Association, Usage};
use crate::metrics::Metrics;
use crate::smtp::command::{Enhanced, Reply};

/// Addresses of one host that are tried.
const ADDRESSES: usize = 8;
/// TLSA records of one host that are looked at.
const RECORDS: usize = 32;

/// Finds the hosts in the MX of domains. Cheap to clone.
#[derive(Clone)]
pub struct Exchangers {
    shared: Arc<Shared>,
}

struct Shared {
    resolver: TokioResolver,
    settings: Direct,
    policies: Policies,
    metrics: Arc<Metrics>,
    hostname: Domain,
    listeners: Vec<SocketAddr>,
}

/// A host's addresses.
struct Found {
    addresses: Vec<IpAddr>,
    /// There are others, which may not be connected to.
    private: bool,
    /// DNSSEC proves them.
    secure: bool,
    /// The host's name past aliases.
    owner: String,
}

/// Why a host gets no mail.
enum Excluded {
    /// It has no address.
    Absent,
    /// It is this gateway.
    Ours,
    /// It cannot be known now whether it may.
    Unknown(String),
    /// What its domain asks for does not hold.
    Unprotected(String),
}

/// What is asked of each host of a domain.
#[derive(Clone)]
struct Question {
    domain: Domain,
    way: Arc<ByMx>,
    policy: Option<Arc<Policy>>,
    /// DNSSEC proves the MX records, or that there are none.
    secure: bool,
    implicit: bool,
}

impl Exchangers {
    /// As a configuration says; `None`: it has no route by MX. Policies that `before` knows stay known.
    ///
    /// # Errors
    /// The system's resolvers or a file cannot be read.
    pub fn new(config: &Config, before: Option<&Self>, metrics: &Arc<Metrics>) -> Result<Option<Self>, String> {
        if config.by_mx().next().is_none() {
            return Ok(None);
        }
        let settings = config.direct.clone();
        let before = before.map(|before| &before.shared.policies);
        let shared = Shared {
            resolver: dnssec::resolver(&settings.servers, settings.trust_anchor.as_deref(), settings.timeout)?,
            policies: Policies::new(&settings, &config.spool, before)?,
            metrics: metrics.clone(),
            settings,
            hostname: config.hostname.clone(),
            listeners: config.listeners.iter().map(|listener| listener.address).collect(),
        };
        Ok(Some(Self { shared: Arc::new(shared) }))
    }

    /// The hosts that take mail of a domain now, and how each is to be spoken to. `Err`: the reply that holds for the domain.
    pub async fn route(&self, domain: &Domain, way: &Arc<ByMx>) -> Result<Arc<Route>, Reply> {
        let wants_policy = way.mta_sts && !domain.is_literal();
        let policy = async { if wants_policy { self.policy(domain).await } else { Ok(None) } };
        let (exchange, policy) = tokio::join!(self.exchange(domain), policy);
        let (hosts, secure, implicit) = exchange?;
        let policy = match policy {
            Ok(policy) => policy.filter(|policy| policy.mode != Mode::None),
            // Where its zone is signed, what is kept from us may be a policy; an unsigned one could as well be told away.
            Err(why) if secure => {
                return Err(later(Enhanced(4, 7, 0), format!("whether {domain} has a policy (MTA-STS): {why}")));
            }
            Err(_) => None,
        };
        let question = Question { domain: domain.clone(), way: way.clone(), policy, secure, implicit };
        let mut looking = JoinSet::new();
        for (preference, name) in hosts {
            let (all, question) = (self.clone(), question.clone());
            looking.spawn(async move {
                let looked = all.look(&question, &name, preference).await;
                (preference, name, looked)
            });
        }
        let mut looked = Vec::new();
        while let Some(one) = looking.join_next().await {
            looked.extend(one.ok());
        }
        chosen(domain, looked, implicit)
    }

    /// A host's addresses, those that may be connected to: IPv4 before IPv6.
    ///
    /// # Errors
    /// They cannot be had now, or there are none.
    pub async fn addresses(&self, host: &str, source: SourceAddresses) -> Result<Vec<IpAddr>, String> {
        let found = self.found(host, source).await?;
        if found.addresses.is_empty() && found.private {
            return Err(format!("{host} has private addresses alone (`private_addresses` allows them)"));
        }
        Ok(found.addresses)
    }

    /// Hosts by preference, whether they are proven, and whether the domain itself is the host.
    async fn exchange(&self, domain: &Domain) -> Result<(Vec<(u16, String)>, bool, bool), Reply> {
        if let Some(address) = literal(domain) {
            return Ok((vec![(0, address.to_string())], false, true));
        }
        let answer = dnssec::ask(&self.shared.resolver, domain.as_str(), RecordType::MX).await;
        let answer = answer.map_err(|why| later(Enhanced(4, 4, 3), format!("the MX of {domain}: {why}")))?;
        let records = answer.records.iter().filter_map(|data| match data {
            RData::MX(mx) => Some((mx.preference, dnssec::text(&mx.exchange))),
            _ => None,
        });
        match mx::exchange(records) {
            Exchange::Implicit if !answer.exists => {
                Err(Reply::new(550, Enhanced(5, 1, 2), format!("there is no domain {domain}")))
            }
            Exchange::Implicit => Ok((vec![(0, domain.as_str().to_owned())], answer.secure, true)),
            Exchange::Null => Err(Reply::new(556, Enhanced(5, 1, 10), format!("{domain} takes no mail (null MX)"))),
            Exchange::Hosts(hosts) if hosts.is_empty() => {
                Err(later(Enhanced(4, 4, 4), format!("the MX of {domain} names no host")))
            }
            Exchange::Hosts(hosts) => Ok((hosts, answer.secure, false)),
        }
    }

    /// Whether a host gets mail of a domain, and how it is to be spoken to.
    async fn look(&self, question: &Question, name: &str, preference: u16) -> Result<RouteHop, Excluded> {
        let Question { domain, way, policy, secure, implicit } = question;
        if name == self.shared.hostname.as_str() {
            return Err(Excluded::Ours);
        }
        let found = self.found(name, way.source).await.map_err(|why| Excluded::Unknown(format!("{name}: {why}")))?;
        if self.is_here(&found.addresses, way.port) {
            return Err(Excluded::Ours);
        }
        if found.addresses.is_empty() {
            return Err(match found.private {
                true => Excluded::Unknown(format!("{name} has private addresses alone")),
                false => Excluded::Absent,
            });
        }
        if *implicit && found.secure && !secure {
            return Err(Excluded::Unknown(format!(
                "{name}: that there is no MX is not proven, in a zone that is signed"
            )));
        }
        // RFC 7672 section 2.2: without a proven way to the host its records say nothing.
        let tlsa = if way.dane && *secure && found.secure {
            let asked = self.tlsa(name, &found.owner, way.port).await;
            asked.map_err(|why| Excluded::Unprotected(format!("{name}: its TLSA records cannot be had: {why}")))?
        } else {
            None
        };
        let (mut host, mut tls, mut exchanger) = (name.to_owned(), way.tls, Exchanger::default());
        match tlsa {
            Some((base, usable)) if !usable.is_empty() => {
                tls = tls.max(HopTls::Required);
                if usable.iter().any(|record| record.usage == Usage::DaneTa) {
                    exchanger.names = vec![base.clone(), name.to_owned(), domain.as_str().to_owned()];
                    exchanger.names.dedup();
                }
                (host, exchanger.tlsa) = (base, usable);
            }
            other => {
                if other.is_some() {
                    // RFC 7672 section 2.2.2: TLS, and nobody can say with whom.
                    tls = tls.max(HopTls::Required);
                }
                match policy.as_ref().map(|policy| (policy.mode, policy.allows(name))) {
                    Some((Mode::Enforce, true)) => tls = HopTls::Verified,
                    Some((Mode::Enforce, false)) => {
                        return Err(Excluded::Unprotected(format!(
                            "{name} is not in the policy (MTA-STS) of {domain}"
                        )));
                    }
                    Some((Mode::Testing, false)) => {
                        tracing::warn!(%domain, host = name, "not in the domain's policy (MTA-STS), which is in testing");
                    }
                    _ => {}
                }
            }
        }
        let ca = way.ca.clone().filter(|_| tls == HopTls::Verified);
        let hop =
            NextHop { tls, ca, source: way.source, exchanger: Some(exchanger.into()), ..NextHop::new(host, way.port) };
        let ByMx { connections, spool_connections, .. } = **way;
        Ok(RouteHop { hop, preference, connections, spool_connections })
    }

    /// The addresses of the families that `source` reaches.
    async fn found(&self, host: &str, source: SourceAddresses) -> Result<Found, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(self.allowed(vec![address], false, host.to_owned()));
        }
        let any = !source.is_some();
        let (v4, v6) = (any || source.v4.is_some(), any || source.v6.is_some());
        let (v4, v6) = tokio::join!(self.family(host, RecordType::A, v4), self.family(host, RecordType::AAAA, v6));
        let (mut addresses, mut secure, mut owner, mut failed) = (Vec::new(), true, None, None);
        for asked in [v4, v6] {
            match asked {
                Ok(Some(answer)) if !answer.records.is_empty() => {
                    addresses.extend(answer.records.iter().filter_map(address).take(ADDRESSES));
                    secure &= answer.secure;
                    owner.get_or_insert(answer.owner);
                }
                // No zone stands behind it: a broken server, or aliases that lead nowhere.
                Ok(Some(answer)) if answer.exists && !answer.by_zone => {
                    failed = Some("an answer that names no zone".to_owned());
                }
                Ok(_) => {}
                // What the other family has is as good.
                Err(why) => failed = Some(why),
            }
        }
        match (failed, addresses.is_empty()) {
            (Some(why), true) => Err(why),
            _ => Ok(self.allowed(addresses, secure, owner.unwrap_or_else(|| host.to_owned()))),
        }
    }

    async fn family(&self, host: &str, kind: RecordType, wanted: bool) -> Result<Option<Answer>, String> {
        if wanted { dnssec::ask(&self.shared.resolver, host, kind).await.map(Some) } else { Ok(None) }
    }

    fn allowed(&self, all: Vec<IpAddr>, secure: bool, owner: String) -> Found {
        let allowed = |address: &IpAddr| self.shared.settings.private_addresses || is_public(*address);
        let (addresses, private): (Vec<IpAddr>, Vec<IpAddr>) = all.into_iter().partition(allowed);
        Found { addresses, private: !private.is_empty(), secure, owner }
    }

    /// The records that can be used, and the name they stand below; `None`: there are none. None that can be used: they ask for TLS alone.
    async fn tlsa(&self, name: &str, owner: &str, port: u16) -> Result<Option<(String, Vec<Association>)>, String> {
        let bases = if owner == name { vec![name] } else { vec![owner, name] };
        for base in bases {
            let answer = dnssec::ask(&self.shared.resolver, &format!("_{port}._tcp.{base}"), RecordType::TLSA).await?;
            if answer.records.is_empty() && !answer.secure && !answer.by_zone {
                return Err("that there are none is not proven, in a zone that is signed".into());
            }
            if !answer.records.is_empty() && answer.secure {
                return Ok(Some((base.to_owned(), usable(&answer))));
            }
        }
        Ok(None)
    }

    /// Whether this gateway listens there.
    fn is_here(&self, addresses: &[IpAddr], port: u16) -> bool {
        let here = |listener: &SocketAddr| {
            listener.port() == port
                && addresses
                    .iter()
                    .any(|address| listener.ip() == *address || (listener.ip().is_unspecified() && is_local(*address)))
        };
        self.shared.listeners.iter().any(here)
    }
}

/// Whether an address is one of this machine's.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

/// DANE-EE and DANE-TA records alone can be used for SMTP (RFC 7672 section 3.1.3), in one order whichever way they came.
fn usable(answer: &Answer) -> Vec<Association> {
    let read = |data: &RData| match data {
        RData::TLSA(tlsa) => {
            let octets = bytes::Bytes::copy_from_slice(&tlsa.cert_data);
            Association::new(tlsa.cert_usage.into(), tlsa.selector.into(), tlsa.matching.into(), octets).ok()
        }
        _ => None,
    };
    let dane = |record: &Association| matches!(record.usage, Usage::DaneTa | Usage::DaneEe);
    let mut usable: Vec<Association> = answer.records.iter().take(RECORDS).filter_map(read).filter(dane).collect();
    usable.sort_by(|one, other| (one.codes(), &one.data).cmp(&(other.codes(), &other.data)));
    usable.dedup();
    usable
}

/// The address in `user@[192.0.2.1]`.
fn literal(domain: &Domain) -> Option<IpAddr> {
    let inner = domain.as_str().strip_prefix('[')?.strip_suffix(']')?;
    inner.strip_prefix("IPv6:").unwrap_or(inner).parse().ok()
}

/// The hosts that get mail, or the reply that says why none does.
fn chosen(
    domain: &Domain,
    mut looked: Vec<(u16, String, Result<RouteHop, Excluded>)>,
    implicit: bool,
) -> Result<Arc<Route>, Reply> {
    // RFC 5321 section 5.1: those of equal preference in any order.
    let mut order = [0; 64];
    let _ = aws_lc_rs::rand::fill(&mut order);
    let mut order = order.into_iter().chain(std::iter::repeat(0));
    looked.sort_by_cached_key(|_| order.next());
    let ours = looked.iter().filter(|(.., one)| matches!(one, Err(Excluded::Ours)));
    // From ourselves on, mail would go round.
    let end = ours.map(|(preference, ..)| *preference).min();
    let (mut hops, mut why) = (Vec::new(), None::<(u8, Reply)>);
    for (preference, name, one) in looked {
        let (weight, reply) = match one {
            Ok(_) if end.is_some_and(|end| preference >= end) => continue,
            Ok(hop) => {
                hops.push(hop);
                continue;
            }
            Err(Excluded::Unprotected(why)) => (3, later(Enhanced(4, 7, 5), why)),
            Err(Excluded::Unknown(why)) => (2, later(Enhanced(4, 4, 3), why)),
            Err(Excluded::Ours) => (
                1,
                later(
                    Enhanced(4, 4, 6),
                    format!("mail for {domain} would come back: {name} in its MX is this gateway"),
                ),
            ),
            Err(Excluded::Absent) if implicit => {
                (0, Reply::new(550, Enhanced(5, 1, 2), format!("{domain} has neither MX nor address")))
            }
            Err(Excluded::Absent) => {
                (0, Reply::new(550, Enhanced(5, 4, 4), format!("no host in the MX of {domain} has an address")))
            }
        };
        tracing::debug!(%domain, host = name, %reply, "a host that gets no mail");
        if why.as_ref().is_none_or(|(known, _)| weight > *known) {
            why = Some((weight, reply));
        }
    }
    let none =
        || why.map_or_else(|| later(Enhanced(4, 4, 3), format!("no host of {domain} was found")), |(_, why)| why);
    Route::new(hops).map(Arc::new).ok_or_else(none)
}

fn later(status: Enhanced, why: String) -> Reply {
    Reply::new(451, status, why)
}

//! Policies of MTA-STS, fetched and kept (RFC 8461 sections 3.3 and 5.1). One that was fetched holds for as long as it says, whoever keeps
//! the domain's records or its web server from being heard meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hickory_resolver::proto::rr::{RData, RecordType};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use quick_cache::sync::Cache;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::Exchangers;
use super::shelf::Shelf;
use super::sts::{self, Policy};
use crate::address::Domain;
use crate::config::{Direct, SourceAddresses};
use crate::discovery::dnssec;
use crate::metrics::Done;
use crate::relay::fetch::Flights;
use crate::relay::hop::Roots;

/// Domains whose policy is known.
const DOMAINS: usize = 16_384;
/// Octets of a policy; RFC 8461 section 3.3 suggests as many.
const OCTETS: usize = 64 << 10;
/// For one fetch, from the connection to the last octet.
const TIME: Duration = Duration::from_secs(30);
/// Addresses of a policy host that are tried.
const ADDRESSES: usize = 3;
/// A fetch that failed is not tried again before this (RFC 8461 section 3.3 suggests five minutes).
const FAILURE_HOLDS: Duration = Duration::from_secs(300);
/// Fetches at once.
const AT_ONCE: usize = 16;

/// A policy, and by which record it was fetched.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) policy: Arc<Policy>,
    pub(super) id: String,
    pub(super) until: Timestamp,
}

/// What is known of a domain.
#[derive(Debug, Clone, Default)]
struct Known {
    kept: Option<Kept>,
    /// The fetch for this id failed; it is not tried again before then.
    failed: Option<(String, Instant)>,
}

/// All policies that were fetched, and how others are.
#[derive(Clone)]
pub(super) struct Policies {
    known: Arc<Cache<Domain, Known>>,
    shelf: Arc<Shelf>,
    flights: Arc<Flights<Domain>>,
    room: Arc<Semaphore>,
    port: u16,
    tls: Result<Arc<ClientConfig>, String>,
}

impl Policies {
    /// What `before` knows stays known; else what is on the shelf.
    pub(super) fn new(settings: &Direct, folder: &Path, before: Option<&Self>) -> Result<Self, String> {
        let roots = match &settings.mta_sts_ca {
            Some(file) => Roots::file(file).map_err(|error| format!("mta_sts_ca {}: {error}", file.display()))?,
            None => Roots::system(),
        };
        let (known, shelf) = match before {
            Some(before) => (before.known.clone(), before.shelf.clone()),
            None => {
                let (known, shelf) = (Cache::new(DOMAINS), Shelf::in_folder(folder));
                for (domain, kept) in shelf.read(Timestamp::now()) {
                    known.insert(domain, Known { kept: Some(kept), failed: None });
                }
                (Arc::new(known), Arc::new(shelf))
            }
        };
        Ok(Self {
            known,
            shelf,
            flights: before.map_or_else(Arc::default, |before| before.flights.clone()),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            port: settings.mta_sts_port,
            tls: roots.verifying(),
        })
    }

    /// The policy of a domain that still holds.
    fn holding(&self, domain: &Domain) -> Option<Kept> {
        self.known.get(domain)?.kept.filter(|kept| Timestamp::now() < kept.until)
    }

    /// The policy at hand, unless it has to be fetched for this id.
    fn at_hand(&self, domain: &Domain, id: &str) -> Option<Option<Arc<Policy>>> {
        let kept = self.holding(domain);
        if kept.as_ref().is_some_and(|kept| kept.id == id) {
            return Some(kept.map(|kept| kept.policy));
        }
        let failed = self.known.get(domain)?.failed?;
        (failed.0 == id && Instant::now() < failed.1).then(|| kept.map(|kept| kept.policy))
    }
}

impl Exchangers {
    /// The policy that holds for a domain; `None`: it has none that could be had (RFC 8461 section 3.3: then mail goes as without).
    ///
    /// # Errors
    /// It is not known whether there is one: the domain's record is not to be had, and no policy of it is kept.
    pub(super) async fn policy(&self, domain: &Domain) -> Result<Option<Arc<Policy>>, String> {
        let policies = &self.shared.policies;
        let id = match self.announced(domain).await {
            Ok(Some(id)) => id,
            Ok(None) => return Ok(policies.holding(domain).map(|kept| kept.policy)),
            Err(why) => return policies.holding(domain).map(|kept| Some(kept.policy)).ok_or(why),
        };
        if let Some(policy) = policies.at_hand(domain, &id) {
            return Ok(policy);
        }
        let flight = policies.flights.of(domain);
        let _flying = flight.lock().await;
        if let Some(policy) = policies.at_hand(domain, &id) {
            return Ok(policy);
        }
        let before = policies.known.get(domain).and_then(|known| known.kept);
        let fetched = tokio::time::timeout(TIME, self.fetch(domain)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {TIME:?}")));
        self.shared.metrics.policies.one(if fetched.is_ok() { Done::Done } else { Done::Failed });
        let known = match fetched {
            Ok(policy) => {
                tracing::info!(%domain, id, mode = ?policy.mode, "a policy of MTA-STS was fetched");
                let until = Timestamp::now().checked_add(policy.max_age).unwrap_or(Timestamp::MAX);
                let kept = Kept { policy: Arc::new(policy), id, until };
                let (shelf, of, one) = (policies.shelf.clone(), domain.clone(), kept.clone());
                tokio::task::spawn_blocking(move || shelf.add(&of, &one));
                Known { kept: Some(kept), failed: None }
            }
            Err(why) => {
                tracing::warn!(%domain, why, "a policy of MTA-STS could not be fetched; one that is kept holds on");
                Known { kept: before, failed: Some((id, Instant::now() + FAILURE_HOLDS)) }
            }
        };
        policies.known.insert(domain.clone(), known);
        Ok(policies.holding(domain).map(|kept| kept.policy))
    }

    /// The id that the domain's record has now.
    async fn announced(&self, domain: &Domain) -> Result<Option<String>, String> {
        let answer = dnssec::ask(&self.shared.resolver, &format!("_mta-sts.{domain}"), RecordType::TXT).await?;
        let texts: Vec<String> = answer
            .records
            .iter()
            .filter_map(|data| match data {
                RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
                _ => None,
            })
            .collect();
        Ok(sts::id(texts.iter().map(String::as_str)))
    }

    /// GET of the one place where a policy may be, by HTTPS alone; redirections are not followed (RFC 8461 section 3.3).
    async fn fetch(&self, domain: &Domain) -> Result<Policy, String> {
        let policies = &self.shared.policies;
        let _room = policies.room.acquire().await.map_err(|error| error.to_string())?;
        let host = format!("mta-sts.{domain}");
        let tls = policies.tls.clone()?;
        let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        let socket = self.connect(&host).await?;
        let stream = TlsConnector::from(tls).connect(name, socket).await.map_err(|error| format!("{host}: {error}"))?;
        let words = |error: hyper::Error| format!("{host}: {error}");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
        // Ends when the sender is dropped.
        tokio::spawn(connection);
        let request = Request::builder()
            .uri("/.well-known/mta-sts.txt")
            .header(HOST, &host)
            .header(USER_AGENT, concat!("waxwing/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(words)?;
        if response.status() != 200 {
            return Err(format!("{host} answered {}", response.status()));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/plain")) {
            return Err(format!("{host}: a policy is text/plain, and this is {:?}", sts::cut(kind)));
        }
        let body = Limited::new(response.into_body(), OCTETS).collect().await.map_err(|error| error.to_string())?;
        let text = String::from_utf8(body.to_bytes().into()).map_err(|_| format!("{host}: not UTF-8"))?;
        Policy::parse(&text).map_err(|why| format!("{host}: {why}"))
    }

    async fn connect(&self, host: &str) -> Result<TcpStream, String> {
        let mut why = format!("{host} has no address that may be asked");
        let found = self.addresses(host, SourceAddresses::default()).await?;
        for address in found.into_iter().take(ADDRESSES) {
            match TcpStream::connect((address, self.shared.policies.port)).await {
                Ok(socket) => return Ok(socket),
                Err(error) => why = format!("{host}, {address}: {error}"),
            }
        }
        Err(why)
    }
}

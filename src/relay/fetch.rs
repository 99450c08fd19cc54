//! CRLs and OCSP responses fetched over HTTP: kept until they are renewed, asked for once however many mails wait, with limits on time,
//! size and addresses. Mail that needs none of them is not held up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{Fetch, Nonce};
use crate::pki::certificate::Certificate;
use crate::pki::revocation::{Crl, Evidence, Need, OcspResponse, Source, ocsp};

#[cfg(test)]
mod tests;

/// A failure is not tried again before this.
const FAILURE_HOLDS: SignedDuration = SignedDuration::from_secs(60);
/// What is kept is not asked for anew more often than this, however stale it is.
const SOONEST: SignedDuration = SignedDuration::from_secs(60);
/// Redirections followed.
const REDIRECTIONS: usize = 2;
/// Fetches at once for all mail, and of those for one mail.
const AT_ONCE: usize = 32;
const AT_ONCE_FOR_ONE: usize = 8;
/// Addresses of one host that are tried.
const ADDRESSES: usize = 3;

/// What is fetched: one for each certificate (OCSP) or place (CRL).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uri: Box<str>,
    certificate: Option<[u8; 32]>,
}

impl Key {
    fn of(need: &Need) -> Self {
        match need {
            Need::Crl { uri } => Self { uri: uri.as_str().into(), certificate: None },
            Need::Ocsp { uri, certificate, .. } => {
                Self { uri: uri.as_str().into(), certificate: Some(certificate.fingerprint()) }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Found {
    Crl(Arc<Crl>),
    Ocsp(Arc<OcspResponse>),
    Nothing,
}

/// What came, and when to ask again.
#[derive(Debug, Clone)]
struct Kept {
    found: Found,
    came: Timestamp,
    again: Timestamp,
    /// Why the last try failed.
    failed: Option<Arc<str>>,
}

/// What became of the last try to fetch something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// When what is at hand came; `None`: nothing is.
    pub came: Option<Timestamp>,
    /// Why the last try failed.
    pub failed: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
struct Octets;

impl Weighter<Key, Kept> for Octets {
    fn weight(&self, key: &Key, kept: &Kept) -> u64 {
        let value = match &kept.found {
            // The index of a CRL is about as large as half of its octets.
            Found::Crl(crl) => crl.der().len() + crl.len() * 16,
            Found::Ocsp(response) => response.octets() * 2,
            Found::Nothing => 0,
        };
        (value + key.uri.len() + 128) as u64
    }
}

/// Who fetches what at the moment: others wait for him.
#[derive(Debug)]
pub(super) struct Flights<K>(Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + std::hash::Hash> Flights<K> {
    /// Whoever holds the lock fetches; who comes after him looks first whether it has come.
    pub(super) fn of(&self, key: &K) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        flights.insert(key.clone(), Arc::downgrade(&flight));
        flight
    }
}

/// Fetches and keeps. Shared by all mail.
pub struct Fetcher {
    limits: Fetch,
    kept: Cache<Key, Kept, Octets>,
    flights: Flights<Key>,
    /// Hosts that did not answer in time, and until when nothing is asked of them: one stalled responder speaks for many certificates.
    stalled: Mutex<HashMap<Box<str>, Timestamp>>,
    /// Fetches that may still be begun.
    room: Semaphore,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetcher({} kept)", self.kept.len())
    }
}

impl Source for Fetcher {
    fn at_hand(&self, wanted: &[Need]) -> Evidence {
        let mut evidence = Evidence::default();
        for kept in wanted.iter().filter_map(|need| self.kept.get(&Key::of(need))) {
            match kept.found {
                Found::Crl(crl) => evidence.crls.push(crl),
                Found::Ocsp(response) => evidence.ocsp.push(response),
                Found::Nothing => {}
            }
        }
        evidence
    }
}

impl Fetcher {
    /// Nothing is fetched yet.
    pub fn new(limits: Fetch) -> Self {
        let kept = Cache::with_weighter(10_000, limits.memory, Octets);
        Self { limits, kept, flights: Flights::default(), stalled: Mutex::default(), room: Semaphore::new(AT_ONCE) }
    }

    /// What became of the last try; `None`: it was never tried.
    pub fn tried(&self, need: &Need) -> Option<Tried> {
        let kept = self.kept.get(&Key::of(need))?;
        let came = (!matches!(kept.found, Found::Nothing)).then_some(kept.came);
        Some(Tried { came, failed: kept.failed })
    }

    /// Fetches what is needed and not at hand, all at once, for as long as the limit allows; true if something came since `asked`, when
    /// what was at hand was not enough. What is refused or fails goes to the log.
    pub async fn fetch(self: &Arc<Self>, needs: Vec<Need>, asked: Timestamp) -> bool {
        if needs.is_empty() || !self.limits.enabled {
            return false;
        }
        let mut tasks = JoinSet::new();
        // A mail may name many places: it waits for its own room before it bars anything to others.
        let own = Arc::new(Semaphore::new(AT_ONCE_FOR_ONE));
        for need in needs {
            let (fetcher, own) = (self.clone(), own.clone());
            tasks.spawn(async move { fetcher.one(need, asked, &own).await });
        }
        let mut new = false;
        let all = async {
            while let Some(done) = tasks.join_next().await {
                new |= done.unwrap_or(false);
            }
        };
        // What is late is given up here for this mail. It goes on, so that the next one finds what came, or that nothing did.
        if tokio::time::timeout(self.limits.timeout, all).await.is_err() {
            tasks.detach_all();
        }
        new
    }

    async fn one(&self, need: Need, asked: Timestamp, own: &Semaphore) -> bool {
        let key = Key::of(&need);
        // What finds no room in time is not begun behind the mail that wanted it: the next mail asks again.
        let Ok(Ok(_own)) = tokio::time::timeout(self.limits.timeout, own.acquire()).await else { return false };
        let flight = self.flights.of(&key);
        let _flying = flight.lock().await;
        let now = Timestamp::now();
        if let Some(kept) = self.kept.get(&key).filter(|kept| now < kept.again) {
            return kept.came >= asked && !matches!(kept.found, Found::Nothing);
        }
        let Ok(Ok(_room)) = tokio::time::timeout(self.limits.timeout, self.room.acquire()).await else { return false };
        let fetched = self.in_time(&need, now).await;
        let kept = match fetched {
            Ok((found, renewed)) => {
                let soonest = now.checked_add(SOONEST).unwrap_or(now);
                Kept { found, came: Timestamp::now(), again: renewed.unwrap_or(now).max(soonest), failed: None }
            }
            Err(why) => {
                tracing::warn!(uri = &*key.uri, why, "revocation could not be fetched");
                let again = now.checked_add(FAILURE_HOLDS).unwrap_or(now);
                let failed = Some(Arc::from(why));
                let nothing = Kept { found: Found::Nothing, came: Timestamp::UNIX_EPOCH, again, failed: None };
                Kept { again, failed, ..self.kept.get(&key).unwrap_or(nothing) }
            }
        };
        let new = kept.came >= asked;
        self.kept.insert(key, kept);
        new
    }

    /// Asks, unless the host did not answer in time just now.
    async fn in_time(&self, need: &Need, now: Timestamp) -> Result<(Found, Option<Timestamp>), String> {
        let (Need::Crl { uri } | Need::Ocsp { uri, .. }) = need;
        let host: Option<Box<str>> = uri.parse::<Uri>().ok().and_then(|uri| Some(uri.authority()?.as_str().into()));
        let lock = || self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if host.as_ref().is_some_and(|host| lock().get(host).is_some_and(|until| now < *until)) {
            return Err("its host did not answer in time just now".to_owned());
        }
        let answer = tokio::time::timeout(self.limits.timeout, self.get(need)).await;
        answer.unwrap_or_else(|_| {
            if let (Some(host), Ok(until)) = (host, Timestamp::now().checked_add(FAILURE_HOLDS)) {
                let mut stalled = lock();
                stalled.retain(|_, until| now < *until);
                stalled.insert(host, until);
            }
            Err(format!("no answer within {:?}", self.limits.timeout))
        })
    }

    async fn get(&self, need: &Need) -> Result<(Found, Option<Timestamp>), String> {
        match need {
            Need::Crl { uri } => {
                let crl = Crl::from_der(crl_der(self.http(uri, None).await?)?).map_err(|error| error.to_string())?;
                tracing::info!(uri, entries = crl.len(), octets = crl.der().len(), "a CRL was fetched");
                let renewed = crl.next_update();
                Ok((Found::Crl(Arc::new(crl)), renewed))
            }
            Need::Ocsp { uri, certificate, issuer } => {
                let response = self.ocsp(uri, certificate, issuer).await?;
                let renewed = response.renewed(certificate, issuer);
                tracing::info!(uri, subject = certificate.subject_text(), "an OCSP response was fetched");
                Ok((Found::Ocsp(Arc::new(response)), renewed))
            }
        }
    }

    async fn ocsp(&self, uri: &str, certificate: &Certificate, issuer: &Certificate) -> Result<OcspResponse, String> {
        let mut nonce = [0; 32];
        let nonce = match self.limits.nonce {
            Nonce::Off => None,
            Nonce::Prefer | Nonce::Require => {
                aws_lc_rs::rand::fill(&mut nonce).map_err(|_| "no randomness for a nonce".to_owned())?;
                Some(nonce.as_slice())
            }
        };
        let request = ocsp::request(certificate, issuer, nonce);
        let answer = self.http(uri, Some(request.into())).await?;
        let response = OcspResponse::from_der(answer).map_err(|error| error.to_string())?;
        match nonce.map(|nonce| response.answers(nonce)) {
            Some(Some(false)) => {
                Err("the answer carries another nonce than the request: it answers another one".to_owned())
            }
            Some(None) if self.limits.nonce == Nonce::Require => {
                Err("the answer carries no nonce, and one is required".to_owned())
            }
            _ => Ok(response),
        }
    }

    /// GET, or POST of an OCSP request.
    async fn http(&self, uri: &str, post: Option<Bytes>) -> Result<Bytes, String> {
        let mut uri: Uri = uri.parse().map_err(|_| "not a URI".to_owned())?;
        for _ in 0..=REDIRECTIONS {
            let (mut sender, host) = self.connect(&uri).await?;
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let mut request = Request::builder()
                .method(if post.is_some() { "POST" } else { "GET" })
                .uri(path)
                .header(HOST, host)
                .header(USER_AGENT, concat!("waxwing/", env!("CARGO_PKG_VERSION")))
                .header(ACCEPT, "*/*");
            if post.is_some() {
                request = request.header(CONTENT_TYPE, "application/ocsp-request");
            }
            let request =
                request.body(Full::new(post.clone().unwrap_or_default())).map_err(|error| error.to_string())?;
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            if response.status().is_redirection() {
                let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
                uri = location.and_then(|location| location.parse().ok()).ok_or("redirected to nowhere")?;
                continue;
            }
            if response.status() != 200 {
                return Err(format!("answered {}", response.status()));
            }
            let size = usize::try_from(self.limits.size).unwrap_or(usize::MAX);
            let body = Limited::new(response.into_body(), size).collect().await;
            return body.map(|body| body.to_bytes()).map_err(|error| error.to_string());
        }
        Err("redirected too often".to_owned())
    }

    /// A connection to the host of `uri`, and its name for the Host field. The address is judged, not the name: what a name stands for
    /// can change between two look-ups.
    async fn connect(
        &self,
        uri: &Uri,
    ) -> Result<(hyper::client::conn::http1::SendRequest<Full<Bytes>>, String), String> {
        if uri.scheme_str() != Some("http") {
            return Err("only http is fetched (RFC 5280 asks for no more)".to_owned());
        }
        let authority = uri.authority().ok_or("names no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(80);
        let found: Vec<SocketAddr> =
            tokio::net::lookup_host((host, port)).await.map_err(|error| format!("{host}: {error}"))?.collect();
        let allowed = found.into_iter().filter(|address| self.limits.private_addresses || is_public(address.ip()));
        let mut why = format!("{host} has no public address (private ones may be allowed)");
        for address in allowed.take(ADDRESSES) {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                        .await
                        .map_err(|error| error.to_string())?;
                    // Ends when the sender is dropped.
                    tokio::spawn(connection);
                    return Ok((sender, authority.as_str().to_owned()));
                }
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        Err(why)
    }
}

/// A CRL comes as DER; some put PEM in its place.
fn crl_der(octets: Bytes) -> Result<Bytes, String> {
    if octets.starts_with(b"-----BEGIN") {
        let mut crls = Crl::from_pem_or_der(&octets).map_err(|error| error.to_string())?;
        return crls.pop().map(|crl| crl.der().clone()).ok_or_else(|| "no CRL in it".to_owned());
    }
    Ok(octets)
}

/// An address of the internet at large (RFC 6890).
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || matches!((a, b), (0, _) | (240.., _) | (100, 64..=127) | (198, 18 | 19))
                || (a, b, c) == (192, 0, 0))
        }
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            let [first, second, ..] = segments;
            if let Some(v4) = v6.to_ipv4() {
                return is_public(v4.into());
            }
            let [.., high, low] = segments;
            let embedded = || IpAddr::from([(high >> 8) as u8, high as u8, (low >> 8) as u8, low as u8]);
            match (first, second) {
                // NAT64: what stands behind it.
                (0x64, 0xff9b) => is_public(embedded()),
                (0x2001, 0..=0x1ff | 0xdb8) | (0x2002, _) | (0x100, 0) => false,
                _ => first & 0xe000 == 0x2000,
            }
        }
    }
}

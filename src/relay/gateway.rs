//! A gateway at work: store, spool, listeners and deliverer put together from a configuration.

/// A way in for a program that has the gateway inside.
#[cfg(feature = "samotop")]
mod entrance;
/// What those who watch are told.
mod observe;
/// Another configuration while it works.
mod reload;

#[cfg(feature = "samotop")]
pub(crate) use entrance::Entrance;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::task::JoinHandle;

use self::observe::{Observer, count_nodes};
use self::reload::{Core, Listeners, Serving};
use super::current::Current;
use super::deliver::{Deliverer, Handover, OpenedMail, Settings, SystemClock, Transport};
use super::direct::Exchangers;
use super::expiry::Expiry;
use super::hop::{Delivered, Health, HopError, HopStatus, Hops, Roots};
use super::listen::{self, ListenError};
use super::pipeline::{Came, Committing, Own, Pipeline, Queue, QueueEntry, QueueError};
use super::release::{Releaser, keep_looking};
use crate::address::Mailbox;
use crate::admin::{queue::Desk, server};
use crate::audit::{AuditError, AuditLog};
use crate::authentication::sign::Signers;
use crate::config::{Config, Direction, HopTls, NextHop, Route, Target};
use crate::discovery::harvest::Counts;
use crate::keys::KeyHolder;
use crate::metrics;
use crate::mime::rope::Rope;
use crate::smtp::command::{Envelope, Reply};
use crate::spool::{Entry, Folder, Limits, NewEntry, RecipientState, Recovered, Spool, SpoolError, Treatment};
use crate::store::keyring::{Kek, SpoolKeks};
use crate::store::{CertStore, StoreError};

/// Octets of spooled content in memory for one next hop.
const CONTENTS: u64 = 64 << 20;

/// Between two looks whether the spool's keys are to be wrapped by others.
const REWRAP: Duration = Duration::from_secs(2);

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address or certificate.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS with a next hop.
    #[error("{name}: {why}")]
    Hop {
        /// Its place in the configuration.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// How the DNS is asked.
    #[error("[direct]: {0}")]
    Direct(String),
    /// A key that our domains vouch with.
    #[error("{0}")]
    Dkim(String),
    /// The spool's folder.
    #[error("spool folder {}: {why}", folder.display())]
    Folder {
        /// The folder in the configuration.
        folder: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// The spool's content.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The key-encryption key.
    #[error(transparent)]
    Kek(#[from] StoreError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The listener for those who watch.
    #[error("[metrics] listen = \"{address}\": {why}")]
    Metrics {
        /// The address in the configuration.
        address: SocketAddr,
        /// What the system says.
        why: std::io::Error,
    },
    /// The control socket.
    #[error("control socket {}: {why}", path.display())]
    Control {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
}

/// What is in use for mail that comes now, from one configuration.
pub struct Live {
    /// The configuration.
    pub config: Arc<Config>,
    /// What treats messages.
    pub pipeline: Arc<Pipeline>,
    /// Connections to next hops.
    pub hops: Hops,
    /// Grows with each configuration.
    pub generation: u64,
}

impl Live {
    /// From a first configuration.
    ///
    /// # Errors
    /// TLS with a next hop cannot be done as it says, or a key of `[[dkim]]` cannot be read.
    pub fn new(
        config: Arc<Config>,
        store: Arc<dyn CertStore>,
        keys: Arc<dyn KeyHolder>,
        spool: &Spool,
        health: &Health,
        loop_secret: &[u8],
        audit: Option<AuditLog>,
    ) -> Result<Self, StartError> {
        let hops = hops(&config, health, None)?;
        let queue = Arc::new(spool.clone());
        let signers = Signers::load(&config.dkim).map_err(StartError::Dkim)?;
        let own = Own { loop_secret, audit, signers };
        let pipeline = Arc::new(Pipeline::new(config.clone(), store, keys, hops.clone(), queue, own));
        Ok(Self { config, pipeline, hops, generation: 0 })
    }
}

/// Next hops that can be spoken to as the configuration says. What was fetched of policies by `before` stays known.
fn hops(config: &Config, health: &Health, before: Option<&Hops>) -> Result<Hops, StartError> {
    let exchangers = Exchangers::new(config, before.and_then(Hops::exchangers), health.metrics());
    let exchangers = exchangers.map_err(StartError::Direct)?;
    let (name, waits) = (config.hostname.clone(), config.limits.hop);
    let hops = Hops::with_exchangers(name, waits, health.clone(), Roots::system(), exchangers);
    for (name, route) in config.named_hosts() {
        for one in route.hops() {
            hops.check(&one.hop).map_err(|why| StartError::Hop { name: name.clone(), why })?;
        }
    }
    for (name, way) in config.by_mx() {
        if way.tls == HopTls::Verified || way.ca.is_some() {
            let hop = NextHop { tls: HopTls::Verified, ca: way.ca.clone(), ..NextHop::new("mx", way.port) };
            hops.check(&hop).map_err(|why| StartError::Hop { name, why })?;
        }
    }
    Ok(hops)
}

/// The spool's bounds.
pub fn spool_limits(config: &Config) -> Limits {
    let bounds = &config.spool_limits;
    Limits {
        quota: bounds.quota,
        entries: bounds.entries,
        reserve: bounds.reserve,
        commit: bounds.commit_timeout,
        ..Limits::default()
    }
}

/// A gateway at work. Dropping it stops accepting; [`Gateway::shut_down`] finishes what it has.
pub struct Gateway {
    core: Arc<Core>,
    deliverer: Deliverer,
    control: Option<server::Handle>,
    watched: Option<metrics::server::Handle>,
    observer: Arc<Observer>,
    keepers: [Keeper; 4],
    recovered: Recovered,
}

/// A gateway that begins.
pub type Starting<'a> = Pin<Box<dyn Future<Output = Result<Gateway, StartError>> + Send + 'a>>;

/// Another configuration on its way: what stays as it was until the next start, or every error found.
pub type Reloading<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, Vec<String>>> + Send + 'a>>;

/// Ends with the gateway.
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Gateway {
    /// Opens the spool, takes the listeners' addresses (port 0 takes a free one), and begins to deliver and to accept. Nothing is
    /// accepted unless all of it could be had. `loop_secret` is the installation's own: see [`Own`].
    ///
    /// A boxed future: what runs the gateway is compiled here once, and not again by each program that starts one.
    pub fn start(
        config: Config,
        store: Arc<dyn CertStore>,
        keys: Arc<dyn KeyHolder>,
        loop_secret: &[u8],
    ) -> Starting<'_> {
        Box::pin(async move {
            let audit = config.audit.as_ref().map(AuditLog::open).transpose()?;
            Self::start_given(config, store, keys, loop_secret, Given { audit, sockets: Vec::new() }).await
        })
    }

    /// As [`Gateway::start`], with what was had before.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_given(
        config: Config,
        store: Arc<dyn CertStore>,
        keys: Arc<dyn KeyHolder>,
        loop_secret: &[u8],
        given: Given,
    ) -> Starting<'_> {
        Box::pin(Self::started(config, store, keys, loop_secret, given))
    }

    async fn started(
        config: Config,
        store: Arc<dyn CertStore>,
        keys: Arc<dyn KeyHolder>,
        loop_secret: &[u8],
        given: Given,
    ) -> Result<Self, StartError> {
        let Given { audit, mut sockets } = given;
        let config = Arc::new(config);
        let folder =
            Folder::open(&config.spool).map_err(|why| StartError::Folder { folder: config.spool.clone(), why })?;
        let (spool, recovered) =
            Spool::open_sealed(Arc::new(folder), spool_limits(&config), spool_keks(&*store, &config)?)?;
        let mut bound = Vec::new();
        for listener in &config.listeners {
            let (listener, limits) = (Arc::new(listener.clone()), &config.limits);
            let socket = take(&mut sockets, listener.address);
            bound.push(
                listen::bind_on(socket, listener, config.hostname.clone(), config.postmaster.clone(), limits).await?,
            );
        }
        let watched = match &config.metrics {
            Some(metrics) => Some(watch_socket(take(&mut sockets, metrics.listen), metrics.listen).await?),
            None => None,
        };
        let path = config.control.clone();
        let control = control_socket(path)?;
        let health = Health::new(&config.retry);
        let live = Live::new(config.clone(), store.clone(), keys, &spool, &health, loop_secret, audit.clone())?;
        let pipeline = live.pipeline.clone();
        let live = Arc::new(Current::new(live));
        let settings = Arc::new(Current::new(settings(&config, &health)));
        let deliverer =
            Deliverer::start_with(spool.clone(), Sending(live.clone()), Opening(live.clone()), settings.clone());
        let releaser = Releaser::new(spool.clone(), live.clone());
        let expiry = Expiry::default();
        let nodes = Arc::default();
        let keepers = [
            Keeper(tokio::spawn(count_nodes_if(config.metrics.is_some() && config.etcd.is_some(), &store, &nodes))),
            Keeper(tokio::spawn(expiry.clone().watch(store.clone()))),
            Keeper(tokio::spawn(keep_looking(releaser.clone(), store.clone()))),
            Keeper(tokio::spawn(keep_wrapped(spool.clone(), store.clone()))),
        ];
        let serving = config.listeners.iter().zip(bound).map(|(listener, bound)| {
            let (handle, terms) = bound.serve_on_terms(pipeline.clone());
            Serving { name: listener.name.clone(), configured: listener.address, handle, terms }
        });
        let listeners = Mutex::new(Listeners { serving: serving.collect(), retired: Vec::new() });
        let core = Arc::new(Core {
            live,
            store,
            settings,
            health,
            spool,
            listeners,
            reloading: Default::default(),
            source: Mutex::default(),
            #[cfg(feature = "samotop")]
            runtime: tokio::runtime::Handle::current(),
        });
        let observer = Arc::new(Observer {
            core: core.clone(),
            delivered: deliverer.counts().clone(),
            expiry: expiry.clone(),
            audit,
            nodes,
            summed: Mutex::default(),
            started: Timestamp::now(),
        });
        let watched = match watched {
            Some((address, socket)) => Some(
                metrics::server::serve(socket, observer.clone()).map_err(|why| StartError::Metrics { address, why })?,
            ),
            None => None,
        };
        let desk = Desk {
            spool: core.spool.clone(),
            releaser,
            expiry: Some(expiry),
            health: Some(core.health.clone()),
            store: core.store.clone(),
            reload: Some(reload::asked(&core)),
        };
        let control = control.map(|control| control.serve(desk));
        Ok(Self { control, watched, observer, core, deliverer, keepers, recovered })
    }

    /// The address of a listener.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.addresses().into_iter().find(|(name, _)| name == listener).map(|(_, address)| address)
    }

    /// Every listener's name and address.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.core.addresses()
    }

    /// The address of the listener for those who watch.
    pub fn watched_at(&self) -> Option<SocketAddr> {
        self.watched.as_ref().map(metrics::server::Handle::address)
    }

    /// Why no mail can be taken and treated now; none: it can.
    pub fn unready(&self) -> Vec<String> {
        metrics::server::Watched::unready(&*self.observer)
    }

    /// What was found in the spool at start.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The next hops that were used, and their health.
    pub fn next_hops(&self) -> Vec<HopStatus> {
        self.core.health.status()
    }

    /// What signed mail brought so far, and what became of it.
    pub fn harvested(&self) -> Counts {
        self.core.live.get().pipeline.harvested()
    }

    /// The spool.
    pub fn spool(&self) -> &Spool {
        &self.core.spool
    }

    /// From where [`Gateway::reload`] reads the configuration; it gives every error found.
    pub fn reads_from(&self, source: impl Fn() -> Result<Config, Vec<String>> + Send + Sync + 'static) {
        self.core.reads_from(Arc::new(source));
    }

    /// Reads the configuration again and uses it for what comes from now on. Sessions and deliveries under way go on with what they
    /// began with; a listener whose address stays keeps its socket. Gives what stays as it was until the next start.
    ///
    /// # Errors
    /// Every error found: nothing was changed then.
    pub fn reload(&self) -> Reloading<'_> {
        Box::pin(self.core.reload())
    }

    /// Stops accepting, lets sessions finish for up to `grace`; what is not delivered stays in the spool. Says whether all sessions
    /// ended by themselves.
    pub fn shut_down(self, grace: Duration) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(self.shutting_down(grace))
    }

    async fn shutting_down(self, grace: Duration) -> bool {
        drop((self.control, self.keepers, self.watched));
        let mut ending = tokio::task::JoinSet::new();
        for handle in self.core.close() {
            ending.spawn(handle.shut_down(grace));
        }
        let ended = ending.join_all().await.into_iter().all(|ended| ended);
        self.deliverer.stop(grace).await;
        ended
    }
}

/// What a gateway is given beside its configuration.
#[derive(Debug, Default)]
pub struct Given {
    /// Where it is written down what keys were used for; `None`: nowhere, whatever the configuration says.
    pub audit: Option<AuditLog>,
    /// Sockets that have addresses of the configuration already.
    pub sockets: Vec<TcpListener>,
}

/// The socket that has this address; port 0 fits none.
fn take(sockets: &mut Vec<TcpListener>, address: SocketAddr) -> Option<TcpListener> {
    let at = sockets.iter().position(|socket| socket.local_addr().is_ok_and(|own| own == address))?;
    Some(sockets.swap_remove(at))
}

async fn watch_socket(
    given: Option<TcpListener>,
    address: SocketAddr,
) -> Result<(SocketAddr, tokio::net::TcpListener), StartError> {
    let bound = match given {
        Some(socket) => socket.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(socket)),
        None => tokio::net::TcpListener::bind(address).await,
    };
    bound.map(|socket| (address, socket)).map_err(|why| StartError::Metrics { address, why })
}

/// Counts the gateways of a shared store, where somebody wants to know.
fn count_nodes_if(
    wanted: bool,
    store: &Arc<dyn CertStore>,
    nodes: &Arc<AtomicU64>,
) -> impl Future<Output = ()> + Send + use<> {
    let (store, nodes) = (store.clone(), nodes.clone());
    async move {
        if wanted {
            count_nodes(store, nodes).await;
        }
    }
}

/// What wraps the spool's keys: what the store says, else the key-encryption keys of the configuration.
fn spool_keks(store: &dyn CertStore, config: &Config) -> Result<SpoolKeks, StoreError> {
    let mut keks = store.spool_keks();
    if keks.wrap.is_empty() {
        let read = Kek::read_all(&config.kek)?;
        keks.wrap = read.iter().take(1).cloned().collect();
        keks.open = read.into_iter().skip(1).collect();
    }
    Ok(keks)
}

/// Wraps the spool's keys anew when the store's keys, or the key-encryption key in use, are others.
async fn keep_wrapped(spool: Spool, store: Arc<dyn CertStore>) {
    loop {
        tokio::time::sleep(REWRAP).await;
        let keks = store.spool_keks();
        if keks.wrap.is_empty() {
            continue;
        }
        if let Err(error) = spool.rewrap_keys(keks).await {
            tracing::error!(%error, "the spool's keys cannot be wrapped anew; what wraps them now still opens them");
        }
    }
}

/// The control socket. On a disk that is full or cannot be written, and where the path is too long for one, mail goes on without.
fn control_socket(path: PathBuf) -> Result<Option<server::Bound>, StartError> {
    use std::io::ErrorKind::{InvalidInput, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match server::bind(&path) {
        Ok(bound) => Ok(Some(bound)),
        Err(why) if matches!(why.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | InvalidInput) => {
            tracing::error!(path = %path.display(), %why, "no control socket: the queue cannot be looked at while this works");
            Ok(None)
        }
        Err(why) => Err(StartError::Control { path, why }),
    }
}

/// How the deliverer works by this configuration.
fn settings(config: &Config, health: &Health) -> Settings {
    Settings {
        retry: config.retry.clone(),
        hostname: config.hostname.clone(),
        postmaster: config.postmaster.clone(),
        health: health.clone(),
        contents: CONTENTS,
        clock: Arc::new(SystemClock),
    }
}

/// The next hops in use.
struct Sending(Arc<Current<Live>>);

impl Transport for Sending {
    async fn deliver(&self, hop: &NextHop, envelope: &Envelope, content: &Rope) -> Result<Delivered, HopError> {
        let live = self.0.get();
        live.hops.deliver(hop, envelope, content).await
    }
}

/// What the deliverer asks of us.
struct Opening(Arc<Current<Live>>);

impl Handover for Opening {
    async fn open(&self, entry: &Entry, envelope: &Envelope, received: Bytes) -> Result<OpenedMail, Reply> {
        let waiting = entry.recipients.iter().filter(|one| one.state.waits());
        let came = Came {
            envelope: envelope.clone(),
            listener: entry.listener.clone(),
            user: entry.user.clone(),
            released: waiting.map(|one| one.state == RecipientState::Released).collect(),
            direction: entry.direction,
            log_id: entry.log_id.clone(),
        };
        self.0.get().pipeline.open_received(came, received).await.map_err(|refusal| refusal.reply())
    }

    fn is_ours(&self, mailbox: &Mailbox) -> bool {
        self.0.get().config.domains.contains(mailbox.domain())
    }

    fn hop_to(&self, mailbox: &Mailbox) -> (NextHop, Direction) {
        let direction = if self.is_ours(mailbox) { Direction::Inbound } else { Direction::Outbound };
        (self.0.get().config.target(direction, mailbox.domain()).hop(), direction)
    }

    fn target(&self, entry: &Entry, recipient: &Mailbox) -> Target {
        self.0.get().config.target(entry.direction, recipient.domain())
    }

    async fn route(&self, target: &Target) -> Result<Arc<Route>, Reply> {
        let live = self.0.get();
        live.hops.route(target).await
    }
}

impl QueueError {
    fn of(error: &SpoolError) -> Self {
        Self { why: error.to_string(), late: *error == SpoolError::Late }
    }
}

impl Queue for Spool {
    fn ready(&self) -> Result<(), QueueError> {
        Spool::ready(self).map_err(|error| QueueError::of(&error))
    }

    fn commit(&self, entries: Vec<QueueEntry>) -> Committing<'_> {
        let entries = entries.into_iter().map(new_entry).collect();
        Box::pin(async move {
            Spool::commit(self, entries).await.map_err(|error| QueueError::of(&error))?;
            Ok(())
        })
    }
}

/// As the spool takes it.
pub(super) fn new_entry(entry: QueueEntry) -> NewEntry {
    if entry.dup_possible {
        tracing::warn!(id = entry.id, "the next hop may have this message already (dup_possible)");
    }
    let treatment = match (entry.closed, &entry.held, entry.direction) {
        (false, Some(_), Direction::Outbound | Direction::ByRecipient) => Treatment::AsSubmitted,
        (true, ..) | (_, Some(_), Direction::Inbound) => Treatment::AsReceived,
        (false, None, _) => Treatment::Finished,
    };
    NewEntry {
        listener: entry.listener,
        user: entry.user,
        sends_as: entry.sends_as,
        trusted: entry.trusted,
        log_id: entry.id,
        encrypted: entry.encrypted,
        treatment,
        private_key_tried: entry.closed,
        // Nothing else holds what comes in, before it was tried.
        quarantined: treatment == Treatment::AsReceived && entry.held.is_some(),
        held: entry.held,
        ..NewEntry::new(entry.envelope, entry.hop, entry.direction, entry.content)
    }
}

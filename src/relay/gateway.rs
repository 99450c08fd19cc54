//! A gateway at work: store, spool, listeners and deliverer put together from a configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::deliver::{Deliverer, Handover, Settings, SystemClock};
use super::hop::{Health, HopStatus, Hops, Roots};
use super::listen::{self, Handle, ListenError};
use super::pipeline::{Committing, Pipeline, Queue, QueueEntry, QueueError};
use crate::address::Mailbox;
use crate::config::{Config, Direction, NextHop, Route};
use crate::keys::KeyHolder;
use crate::mime::rope::Rope;
use crate::smtp::command::{Envelope, Reply};
use crate::spool::{Entry, Folder, Limits, NewEntry, Recovered, Spool, SpoolError, Treatment};
use crate::store::keyring::Kek;
use crate::store::{CertStore, StoreError};

/// Octets of spooled content in memory for one next hop.
const CONTENTS: u64 = 64 << 20;

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address or certificate.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS with a next hop.
    #[error("next_hop.{name}: {why}")]
    Hop {
        /// Its name in the configuration.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
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
}

/// A gateway at work. Dropping it stops accepting; [`Gateway::shut_down`] finishes what it has.
pub struct Gateway {
    listeners: Vec<(String, Handle)>,
    deliverer: Deliverer,
    health: Health,
    spool: Spool,
    recovered: Recovered,
}

impl Gateway {
    /// Opens the spool, takes the listeners' addresses (port 0 takes a free one), and begins to deliver and to accept. Nothing is
    /// accepted unless all of it could be had. `loop_secret` is the installation's own: see [`Pipeline::new`].
    pub async fn start(
        config: Config,
        store: Arc<dyn CertStore>,
        keys: Arc<dyn KeyHolder>,
        loop_secret: &[u8],
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let folder =
            Folder::open(&config.spool).map_err(|why| StartError::Folder { folder: config.spool.clone(), why })?;
        let bounds = &config.spool_limits;
        let limits = Limits {
            quota: bounds.quota,
            entries: bounds.entries,
            reserve: bounds.reserve,
            commit: bounds.commit_timeout,
            ..Limits::default()
        };
        let (spool, recovered) = Spool::open_sealed(Arc::new(folder), limits, &Kek::read(&config.kek)?)?;
        let mut bound = Vec::new();
        for listener in &config.listeners {
            bound.push(
                listen::bind(
                    Arc::new(listener.clone()),
                    config.hostname.clone(),
                    config.postmaster.clone(),
                    &config.limits,
                )
                .await?,
            );
        }
        let health = Health::new(&config.retry);
        let hops = Hops::new(config.hostname.clone(), config.limits.hop, health.clone(), Roots::system());
        for (name, route) in [("outbound", &config.outbound), ("inbound", &config.inbound)] {
            for one in route.hops() {
                hops.check(&one.hop).map_err(|why| StartError::Hop { name, why })?;
            }
        }
        let pipeline =
            Arc::new(Pipeline::new(config.clone(), store, keys, hops.clone(), Arc::new(spool.clone()), loop_secret));
        let settings = Settings {
            retry: config.retry.clone(),
            hostname: config.hostname.clone(),
            postmaster: config.postmaster.clone(),
            health: health.clone(),
            contents: CONTENTS,
            clock: Arc::new(SystemClock),
        };
        let opening = Opening { pipeline: pipeline.clone(), config: config.clone() };
        let deliverer = Deliverer::start(spool.clone(), hops, opening, settings);
        let names = config.listeners.iter().map(|listener| listener.name.clone());
        let listeners = names.zip(bound.into_iter().map(|bound| bound.serve(pipeline.clone()))).collect();
        Ok(Self { listeners, deliverer, health, spool, recovered })
    }

    /// The address of a listener.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|(name, _)| name == listener).map(|(_, handle)| handle.address())
    }

    /// Every listener's name and address.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.listeners.iter().map(|(name, handle)| (name.as_str(), handle.address()))
    }

    /// What was found in the spool at start.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The next hops that were used, and their health.
    pub fn next_hops(&self) -> Vec<HopStatus> {
        self.health.status()
    }

    /// The spool.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Stops accepting, lets sessions finish for up to `grace`; what is not delivered stays in the spool. Says whether all sessions
    /// ended by themselves.
    pub async fn shut_down(self, grace: Duration) -> bool {
        let mut ending = tokio::task::JoinSet::new();
        for (_, handle) in self.listeners {
            ending.spawn(handle.shut_down(grace));
        }
        let ended = ending.join_all().await.into_iter().all(|ended| ended);
        self.deliverer.stop(grace).await;
        ended
    }
}

/// What the deliverer asks of us.
struct Opening {
    pipeline: Arc<Pipeline>,
    config: Arc<Config>,
}

impl Handover for Opening {
    async fn open(&self, envelope: &Envelope, received: Bytes) -> Result<Vec<(Vec<usize>, Rope)>, Reply> {
        self.pipeline.open_received(envelope, received).await.map_err(|refusal| refusal.reply())
    }

    fn is_ours(&self, mailbox: &Mailbox) -> bool {
        self.config.domains.contains(mailbox.domain())
    }

    fn hop_to(&self, mailbox: &Mailbox) -> (NextHop, Direction) {
        let direction = if self.is_ours(mailbox) { Direction::Inbound } else { Direction::Outbound };
        (self.config.route(direction).best().clone(), direction)
    }

    fn route(&self, entry: &Entry) -> Arc<Route> {
        self.config.route(entry.direction).clone()
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

fn new_entry(entry: QueueEntry) -> NewEntry {
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
        trusted: entry.trusted,
        log_id: entry.id,
        encrypted: entry.encrypted,
        treatment,
        private_key_tried: entry.closed,
        held: entry.held,
        ..NewEntry::new(entry.envelope, entry.hop, entry.direction, entry.content)
    }
}

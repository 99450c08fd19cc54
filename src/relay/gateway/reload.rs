//! Another configuration while the gateway works: all of it or nothing, and nobody is cut off.
//!
//! What can fail is done first: the file is read, certificates are loaded, new addresses taken. Then everything is replaced, for
//! what comes from then on. Sessions, messages and deliveries under way hold what they began with until they end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Live, hops, settings};
use crate::admin::queue::Reload;
use crate::authentication::sign::Signers;
use crate::config::{Config, Listener};
use crate::relay::current::Current;
use crate::relay::deliver::Settings;
use crate::relay::hop::Health;
use crate::relay::listen::{self, Bound, Handle, ListenError, Offer, Terms};
use crate::relay::pipeline::Pipeline;
use crate::spool::Spool;
use crate::store::CertStore;

/// Reads the configuration; every error found.
pub(super) type Source = Arc<dyn Fn() -> Result<Config, Vec<String>> + Send + Sync>;

/// What a configuration is put into use in.
pub(super) struct Core {
    pub(super) live: Arc<Current<Live>>,
    pub(super) store: Arc<dyn CertStore>,
    pub(super) settings: Arc<Current<Settings>>,
    pub(super) health: Health,
    pub(super) spool: Spool,
    pub(super) listeners: Mutex<Listeners>,
    /// One at a time.
    pub(super) reloading: tokio::sync::Mutex<()>,
    pub(super) source: Mutex<Option<Source>>,
    /// Where sessions run whose clients another runtime brings.
    #[cfg(feature = "samotop")]
    pub(super) runtime: tokio::runtime::Handle,
}

/// The listeners, and those that accept no more but have sessions.
pub(super) struct Listeners {
    pub(super) serving: Vec<Serving>,
    pub(super) retired: Vec<Handle>,
}

/// A listener at work.
pub(super) struct Serving {
    pub(super) name: String,
    /// As the configuration says: port 0 is not the port that was taken.
    pub(super) configured: SocketAddr,
    pub(super) handle: Handle,
    pub(super) terms: watch::Sender<Terms<Pipeline>>,
}

/// What becomes of a listener in the new configuration.
enum Next {
    /// Its place in the old list, and what it offers now.
    Stays(usize, Offer),
    New(Bound),
}

/// What the control socket asks for.
pub(super) fn asked(core: &Arc<Core>) -> Reload {
    let core = Arc::downgrade(core);
    Arc::new(move || {
        let core = core.upgrade();
        Box::pin(async move {
            match core {
                Some(core) => core.reload().await,
                None => Err(vec!["the gateway stops".to_owned()]),
            }
        })
    })
}

impl Core {
    pub(super) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let listeners = lock(&self.listeners);
        listeners.serving.iter().map(|one| (one.name.clone(), one.handle.address())).collect()
    }

    pub(super) fn reads_from(&self, source: Source) {
        *lock(&self.source) = Some(source);
    }

    /// All listeners, to be ended.
    pub(super) fn close(&self) -> Vec<Handle> {
        let mut listeners = lock(&self.listeners);
        let serving = std::mem::take(&mut listeners.serving).into_iter().map(|one| one.handle);
        serving.chain(std::mem::take(&mut listeners.retired)).collect()
    }

    pub(super) async fn reload(&self) -> Result<Vec<String>, Vec<String>> {
        let _one = self.reloading.lock().await;
        let Some(source) = lock(&self.source).clone() else {
            return Err(vec!["this gateway was started without a configuration file".to_owned()]);
        };
        let read = tokio::task::spawn_blocking(move || source()).await;
        let used = match read.unwrap_or_else(|error| Err(vec![error.to_string()])) {
            Ok(config) => self.use_now(config).await,
            Err(errors) => Err(errors),
        };
        match &used {
            Ok(kept) => {
                tracing::info!("the configuration was read again and is in use");
                kept.iter().for_each(|what| tracing::warn!(what, "not changed until the next start"));
            }
            Err(errors) => errors.iter().for_each(|error| {
                tracing::error!(error, "the configuration was refused; the one in use is kept");
            }),
        }
        used
    }

    async fn use_now(&self, mut config: Config) -> Result<Vec<String>, Vec<String>> {
        let before = self.live.get();
        let kept = keep(&mut config, &before.config);
        let hops = hops(&config, &self.health, Some(&before.hops)).map_err(|error| vec![error.to_string()])?;
        let signers = Signers::load(&config.dkim).map_err(|error| vec![error])?;
        let next = self.next_listeners(&config).await?;
        if config.kek != before.config.kek {
            let (store, keks) = (self.store.clone(), config.kek.clone());
            let used = tokio::task::spawn_blocking(move || store.use_keks(&keks)).await;
            used.map_err(|error| vec![error.to_string()])?;
        }
        // From here on nothing fails.
        let config = Arc::new(config);
        let pipeline = Arc::new(before.pipeline.renewed(config.clone(), hops.clone(), signers));
        self.health.set_retry(&config.retry);
        self.settings.set(settings(&config, &self.health));
        let generation = before.generation.saturating_add(1);
        self.live.set(Live { config: config.clone(), pipeline: pipeline.clone(), hops, generation });
        lock(&self.listeners).replace(&config.listeners, next, &pipeline);
        Ok(kept)
    }

    /// What each listener of a configuration comes from; addresses that nobody has here yet are taken.
    async fn next_listeners(&self, config: &Config) -> Result<Vec<Next>, Vec<String>> {
        let there: Vec<(String, SocketAddr)> =
            lock(&self.listeners).serving.iter().map(|one| (one.name.clone(), one.configured)).collect();
        let mut taken = Vec::new();
        let (mut next, mut errors) = (Vec::new(), Vec::new());
        for listener in &config.listeners {
            let at = there.iter().enumerate().position(|(at, (name, address))| {
                let same_place = *address == listener.address && (address.port() != 0 || *name == listener.name);
                same_place && !taken.contains(&at)
            });
            let made = match at {
                Some(at) => {
                    taken.push(at);
                    offer(listener, config).map(|offer| Next::Stays(at, offer))
                }
                None => bind(listener, config).await.map(Next::New),
            };
            match made {
                Ok(made) => next.push(made),
                Err(error) => errors.push(error.to_string()),
            }
        }
        if errors.is_empty() { Ok(next) } else { Err(errors) }
    }
}

fn offer(listener: &Listener, config: &Config) -> Result<Offer, ListenError> {
    let (hostname, postmaster) = (config.hostname.clone(), config.postmaster.clone());
    listen::offer(Arc::new(listener.clone()), hostname, postmaster, &config.limits)
}

async fn bind(listener: &Listener, config: &Config) -> Result<Bound, ListenError> {
    let (hostname, postmaster) = (config.hostname.clone(), config.postmaster.clone());
    listen::bind(Arc::new(listener.clone()), hostname, postmaster, &config.limits).await
}

impl Listeners {
    fn replace(&mut self, listeners: &[Listener], next: Vec<Next>, pipeline: &Arc<Pipeline>) {
        let mut before: Vec<Option<Serving>> = std::mem::take(&mut self.serving).into_iter().map(Some).collect();
        for (listener, next) in listeners.iter().zip(next) {
            let (name, configured) = (listener.name.clone(), listener.address);
            let serving = match next {
                Next::Stays(at, offer) => before.get_mut(at).and_then(Option::take).map(|serving| {
                    // Nobody listens where the listener has ended, and then nothing is accepted either.
                    let _ = serving.terms.send(offer.with(pipeline.clone()));
                    Serving { name, configured, ..serving }
                }),
                Next::New(bound) => {
                    let (handle, terms) = bound.serve_on_terms(pipeline.clone());
                    tracing::info!(listener = name, address = %handle.address(), "listening");
                    Some(Serving { name, configured, handle, terms })
                }
            };
            self.serving.extend(serving);
        }
        for gone in before.into_iter().flatten() {
            tracing::info!(listener = gone.name, address = %gone.handle.address(), "listens no more; its sessions go on");
            gone.handle.retire();
            self.retired.push(gone.handle);
        }
        self.retired.retain(|handle| !handle.has_ended());
    }
}

/// What cannot change while the gateway works is as before; says what was to be changed.
fn keep(config: &mut Config, before: &Config) -> Vec<String> {
    let mut kept = Vec::new();
    macro_rules! keep {
        ($key:literal, $field:ident) => {
            if config.$field != before.$field {
                kept.push(format!("{} needs a restart: kept as it was", $key));
                config.$field = before.$field.clone();
            }
        };
    }
    keep!("store", store);
    keep!("[etcd]", etcd);
    keep!("spool", spool);
    keep!("spool (quota, entries, reserve, commit_timeout)", spool_limits);
    keep!("control", control);
    keep!("log", log);
    keep!("[metrics]", metrics);
    keep!("[audit]", audit);
    keep!("[run]", run);
    kept
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

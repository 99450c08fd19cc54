//! A way in for a program that has the gateway inside: it brings its clients on streams in memory, and each is served as one that came
//! to a listener. Limits, policy and replies are the same, since it is the same session.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;

use super::Gateway;
use super::reload::Core;
use crate::config::Listener;
use crate::relay::listen;

/// Octets under way between the program and a session, each way.
const ROOM: usize = 64 * 1024;

/// A way in. It does not keep the gateway at work.
pub(crate) struct Entrance {
    core: Weak<Core>,
    /// Dropped with the entrance: idle sessions end then.
    stop: watch::Sender<bool>,
}

impl Gateway {
    /// A way in for a program that has this gateway inside.
    pub(crate) fn entrance(&self) -> Entrance {
        Entrance { core: Arc::downgrade(&self.core), stop: watch::channel(false).0 }
    }
}

impl Entrance {
    /// A session of SMTP on a stream, by the configuration in use now; the greeting is on its way. The listener takes no address, and has
    /// nothing that needs files: no TLS, no directory. `None`: the gateway is gone, or the listener has such.
    pub(crate) fn connect(&self, listener: Arc<Listener>, client: SocketAddr, tls: bool) -> Option<DuplexStream> {
        let core = self.core.upgrade()?;
        let live = core.live.get();
        let config = &live.config;
        let offer = listen::offer(listener, config.hostname.clone(), config.postmaster.clone(), &config.limits);
        let terms = offer.map_err(|error| tracing::error!(%error, "no session")).ok()?.with(live.pipeline.clone());
        let (theirs, ours) = duplex(ROOM);
        core.runtime.spawn(listen::attend_given(ours, client, tls, terms, self.stop.subscribe()));
        Some(theirs)
    }

    /// Octets that a message may have now; `None`: the gateway is gone.
    pub(crate) fn message_size(&self) -> Option<u64> {
        Some(self.core.upgrade()?.live.get().config.limits.message_size)
    }
}

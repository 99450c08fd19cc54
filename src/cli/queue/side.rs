//! Who answers: the gateway at work, or the spool opened here.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::super::{Failure, serve};
use crate::admin::client::Client;
use crate::admin::protocol::Request;
use crate::admin::queue::Desk;
use crate::admin::server::own_uid;
use crate::audit::AuditLog;
use crate::config::Config;
use crate::relay::current::Current;
use crate::relay::gateway::{Live, spool_limits};
use crate::relay::hop::Health;
use crate::relay::release::Releaser;
use crate::spool::{EntryId, Folder, Spool};
use crate::store::CertStore;
use crate::store::etcd::Role;

/// Who answers.
pub(super) enum Side {
    /// A gateway at work.
    Gateway(Client),
    /// Nobody else has the spool.
    Alone(Box<Desk>, u32),
}

impl Side {
    /// The gateway whose control socket the configuration names; where none is at work, the spool itself. `make`: a spool that is not
    /// there yet is made.
    pub(super) async fn find(config: Config, make: bool) -> Result<Self, Failure> {
        let path = config.control.clone();
        match Client::connect(&path).await {
            Ok(client) => Ok(Self::Gateway(client)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                let alone = Self::alone(config, make).await?;
                eprintln!("waxwing: no gateway is at work: the spool is opened by this command");
                Ok(alone)
            }
            Err(error) => {
                let hint = match error.kind() {
                    ErrorKind::InvalidInput => {
                        "name a shorter path: control = \"/run/waxwing/control\" in the configuration"
                    }
                    _ => "ask as the user the gateway runs as, or as root",
                };
                Err(Failure::new(format!("control socket {}: {error}", path.display()), hint))
            }
        }
    }

    async fn alone(config: Config, make: bool) -> Result<Self, Failure> {
        let folder = if make { Folder::open(&config.spool) } else { Folder::existing(&config.spool) };
        let folder = folder.map_err(|error| no_spool(&config, &error))?;
        let store = serve::open_store(&config, Role::Command)?;
        let opened = Spool::open_sealed(Arc::new(folder), spool_limits(&config), store.spool_keks());
        let (spool, recovered) = opened.map_err(|error| Failure::new(error.to_string(), "look at the disk"))?;
        for damage in &recovered.damage {
            eprintln!("waxwing: the spool was damaged: {}; look at the disk", super::super::shown(damage));
        }
        if make {
            spool.accept_damage();
        }
        let secret = store.loop_secret()?;
        let health = Health::new(&config.retry);
        let audit = config
            .audit
            .as_ref()
            .map(AuditLog::open)
            .transpose()
            .map_err(|error| Failure::new(error.to_string(), ""))?;
        let live = Live::new(Arc::new(config), store.clone(), store.clone(), &spool, &health, secret.as_ref(), audit)
            .map_err(|error| Failure::new(error.to_string(), "look with: waxwing config check"))?;
        let releaser = Releaser::new(spool.clone(), Arc::new(Current::new(live)));
        log_to_stderr();
        let uid = own_uid().map_err(|error| Failure::new(error.to_string(), ""))?;
        Ok(Self::Alone(Box::new(Desk { spool, releaser, expiry: None, health: None, store, reload: None }), uid))
    }

    /// Asks.
    pub(super) async fn ask(&mut self, request: Request) -> Result<Value, Failure> {
        Ok(match self {
            Self::Gateway(client) => client.ask(&request).await?,
            Self::Alone(desk, uid) => desk.answer(request, *uid).await?.said,
        })
    }

    /// A mail's octets.
    pub(super) async fn content(&mut self, id: EntryId) -> Result<Bytes, Failure> {
        let request = Request::Content(id);
        Ok(match self {
            Self::Gateway(client) => client.ask_octets(&request).await?,
            Self::Alone(desk, uid) => desk.answer(request, *uid).await?.octets,
        })
    }
}

/// Changes are logged here too, in the words of a gateway at work.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::new("warn,waxwing::queue=info");
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // Another one that is set already is as good.
    let _ = subscriber.try_init();
}

fn no_spool(config: &Config, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::WouldBlock => format!(
            "a gateway has it whose control socket is not {}: look at `control` in the configuration",
            config.control.display()
        ),
        ErrorKind::PermissionDenied => "ask as the user the gateway runs as, or as root".into(),
        _ => "look at `spool` in the configuration".into(),
    };
    Failure::new(format!("spool {}: {error}", config.spool.display()), hint)
}

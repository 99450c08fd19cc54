use std::path::Path;
use std::sync::Arc;

use samotop_core::mail::{Builder, Service};
use samotop_core::smtp::{Drive, Esmtp};
use samotop_parser::SmtpParserPeg;
use waxwing::config::{Config, Listener};
use waxwing::relay::gateway::Gateway;
use waxwing::samotop::{Stage, StageError};
use waxwing::store::embedded::EmbeddedStore;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The gateway of a `waxwing.toml`, and the listener of it that the stage stands for.
pub async fn gateway(file: &Path) -> Result<(Gateway, Listener), Failure> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
    let mut config = Config::parse(&read(file)?, &file.display().to_string(), &read)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let at = config.listeners.iter().position(|one| one.name == "samotop").ok_or("no listener named samotop")?;
    let listener = config.listeners.remove(at);
    let store = Arc::new(EmbeddedStore::open(&config.store, &config.kek)?);
    let secret = store.loop_secret()?;
    Ok((Gateway::start(config, store.clone(), store, secret.as_ref()).await?, listener))
}

/// A samotop server whose mail goes through the gateway. The stage is the last part.
pub fn service(
    gateway: &Gateway,
    listener: Listener,
    driver: impl Drive + Send + Sync + 'static,
) -> Result<Service, StageError> {
    let stage = Stage::new(gateway, listener)?;
    Ok((Builder + Esmtp.with(SmtpParserPeg) + stage).build_with_driver(driver))
}

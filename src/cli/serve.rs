//! `waxwing serve`: runs the gateway until it is told to stop.

/// Where events go.
mod log;
/// What the service manager is told.
mod notify;
/// What is given up before a key is read.
mod privileges;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{CommandResult, Context, Failure, NOT_GOOD, config as config_file, read_config};
use crate::audit::AuditLog;
use crate::config::{Config, KekSources, Log};
use crate::relay::gateway::{Gateway, Given, StartError};
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::Role;
use log::Appender;
use notify::Notifier;
use privileges::GivenUp;

/// Between two looks at what the service manager is told of how it goes.
const STATUS: Duration = Duration::from_secs(5);
/// How long sessions may go on after the signal to stop.
const GRACE: Duration = Duration::from_secs(30);

/// Arguments of `waxwing serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds that open transactions may go on after SIGTERM or SIGINT; a second signal ends them at once.
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE.as_secs())]
    grace: u64,
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    let config = read_config(&context.config)?;
    let given_up = privileges::give_up(&config, &context.config)?;
    let appender = tell(config.log)?;
    given_up.words.iter().for_each(|what| tracing::info!(what, "given up"));
    let ended = gateway(config, args, context.config.clone(), given_up);
    appender.flush();
    ended
}

fn gateway(config: Config, args: Args, file: PathBuf, given_up: GivenUp) -> CommandResult {
    let notifier = Notifier::from_env().map_err(|error| {
        Failure::new(format!("NOTIFY_SOCKET cannot be spoken to: {error}"), "unset it, or start it by systemd")
    })?;
    let audit = config.audit.as_ref().map(AuditLog::open).transpose().map_err(|error| start_failure(error.into()))?;
    let store = open_store(&config, Role::Gateway)?;
    if let Some(audit) = &audit {
        let (line, hash) = audit.head();
        tracing::info!(line, hash, "the audit log goes on");
        store.audit_to(audit.clone(), "gateway");
    }
    let secret = store.loop_secret()?;
    // The first random octets cost 39 ms: not on the first mail's time.
    rand::fill(&mut [0; 32]).map_err(|_| Failure::new("no randomness from the operating system", ""))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(format!("the runtime cannot start: {error}"), "look at the limits on threads and file descriptors")
    })?;
    let given = Given { audit: audit.clone(), sockets: given_up.sockets };
    let grace = Duration::from_secs(args.grace);
    let ended = runtime.block_on(serve(config, store, secret.as_ref(), grace, file, given, notifier));
    if let Some(audit) = audit {
        // Who keeps it elsewhere sees whether the end is cut off.
        let (line, hash) = audit.head();
        tracing::info!(line, hash, "the audit log ends here");
    }
    // What is still at work was given its time, or was told twice to stop: dropping the runtime would wait for it.
    runtime.shutdown_background();
    ended
}

/// Events on standard error: text for people, JSON for programs; RUST_LOG changes what is told.
fn tell(format: Log) -> Result<Appender, Failure> {
    let appender = Appender::start(Box::new(std::io::stderr()))
        .map_err(|error| Failure::new(format!("no thread for the log: {error}"), "look at the limits on threads"))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(appender.clone());
    // A second subscriber cannot be set; the first one stays, which is as good.
    let _ = match format {
        Log::Text => builder.with_ansi(false).try_init(),
        Log::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(appender)
}

pub(super) fn open_store(config: &Config, role: Role) -> Result<Arc<EmbeddedStore>, Failure> {
    let (folder, keks) = (&config.store, &config.kek);
    let opened = match &config.etcd {
        None => EmbeddedStore::open(folder, keks),
        Some(etcd) => EmbeddedStore::open_shared(folder, keks, etcd, role),
    };
    opened.map(Arc::new).map_err(|error| {
        let there = keks.iter().any(|kek| KekSources::credential(kek).is_some() || kek.exists());
        let hint = if there {
            format!(
                "check store and kek in the configuration; a new store is made with: waxwing kek init FILE --store {}",
                folder.display()
            )
        } else {
            format!(
                "make the key-encryption key and the store with: waxwing kek init {} --store {}",
                keks,
                folder.display()
            )
        };
        Failure::new(error.to_string(), hint)
    })
}

async fn serve(
    config: Config,
    store: Arc<EmbeddedStore>,
    secret: &[u8],
    grace: Duration,
    file: PathBuf,
    given: Given,
    notifier: Notifier,
) -> CommandResult {
    let stop = |kind| signal(kind).map_err(|error| Failure::new(format!("signals cannot be watched: {error}"), ""));
    let (mut term, mut int, mut hup) =
        (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?, stop(SignalKind::hangup())?);
    let started = Gateway::start_given(config, store.clone(), store, secret, given).await;
    let gateway = started.map_err(start_failure)?;
    for (name, address) in gateway.addresses() {
        tracing::info!(listener = name, %address, "listening");
    }
    let found = gateway.recovered();
    tracing::info!(entries = found.entries, torn = found.torn, "spool opened");
    for damage in &found.damage {
        tracing::error!(damage, "the spool was damaged: look at the disk; mail is refused until the next start");
    }
    if let Some(address) = gateway.watched_at() {
        tracing::info!(%address, "metrics");
    }
    gateway.reads_from(move || read_again(&file));
    notifier.ready();
    let alive = tokio::spawn(stay_alive(notifier.clone()));
    let mut told = String::new();
    let mut tick = tokio::time::interval(STATUS);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            // What came of it is in the log.
            _ = hup.recv() => {
                notifier.reloading();
                drop(gateway.reload().await);
                notifier.ready();
            }
            _ = tick.tick(), if notifier.is_heard() => {
                let status = status(&gateway);
                if status != told {
                    notifier.status(&status);
                    told = status;
                }
            }
        }
    }
    notifier.stopping(grace);
    tracing::info!(seconds = grace.as_secs(), "stopping: what was begun is finished");
    let ended = tokio::select! {
        ended = gateway.shut_down(grace) => ended,
        _ = term.recv() => false,
        _ = int.recv() => false,
    };
    tracing::info!(all_ended = ended, "stopped");
    alive.abort();
    Ok(if ended { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

/// Tells the service manager that the runtime lives, twice as often as it wants to hear.
async fn stay_alive(notifier: Notifier) {
    let Some(often) = notifier.watchdog else { return };
    let mut tick = tokio::time::interval((often / 2).max(Duration::from_millis(1)));
    loop {
        tick.tick().await;
        notifier.alive();
    }
}

/// How it goes, in one line.
fn status(gateway: &Gateway) -> String {
    match gateway.unready() {
        reasons if reasons.is_empty() => {
            let addresses = gateway.addresses();
            let names: Vec<String> = addresses.into_iter().map(|(name, address)| format!("{name} {address}")).collect();
            format!("takes mail: {}", names.join(", "))
        }
        reasons => format!("takes no mail: {}", reasons.join("; ")),
    }
}

/// The configuration as its file says now; every error with its file, line and key.
fn read_again(file: &Path) -> Result<Config, Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(|error| vec![format!("{}: {error}", file.display())])?;
    config_file::parse(&text, file).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn start_failure(error: StartError) -> Failure {
    let hint = match &error {
        StartError::Listen(_) => {
            "another program may have the address (look with: ss -ltnp), or the file is wrong; change the listener in the configuration"
        }
        StartError::Hop { .. } => "ca has to be a PEM file that we may read; look with: waxwing config check",
        StartError::Direct(_) => "change [direct] in the configuration; look with: waxwing config check",
        StartError::Dkim(_) => "make it readable for the user the gateway runs as; `waxwing dkim show` says the same",
        StartError::Folder { .. } => "stop the other process, or change spool in the configuration",
        StartError::Spool(_) => "look at the disk",
        StartError::Kek(_) => "check kek in the configuration",
        StartError::Audit(_) => {
            "make its folder, writable by the user the gateway runs as, or name another file under [audit]"
        }
        StartError::Metrics { .. } => {
            "another program may have the address (look with: ss -ltnp); change [metrics] in the configuration"
        }
        StartError::Control { .. } => "name another place: control = \"/run/waxwing/control\" in the configuration",
    };
    Failure::new(error.to_string(), hint)
}

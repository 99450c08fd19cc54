//! `waxwing store`: the store as a whole.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::{CommandResult, Context, Failure, NOT_GOOD, StoreArgs, print_table, shown};
use crate::config::Etcd;
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::{Divergence, Role, Status};
use crate::store::keyring::hex;

/// Records put into etcd between two moves of the progress bar.
const MIGRATED: usize = 500;

/// Arguments of `waxwing store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every record: whether one is missing, forged, swapped or named by nothing.
    ///
    /// Exit status: 0 all good, 1 not, 2 the store cannot be read.
    #[command(after_help = "Example:\n  waxwing store verify --json")]
    Verify {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a store that several gateways share, in the etcd of the configuration.
    #[command(after_help = "Example:\n  waxwing --config /etc/waxwing/waxwing.toml store init")]
    Init,
    /// How this node's copy stands to the shared store, which gateways there are, and what is wrong.
    ///
    /// Exit status: 0 all good, 1 not (etcd does not answer, or holds something else than this node), 2 the store cannot be read.
    #[command(after_help = "Example:\n  waxwing store status --json")]
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put back into the shared store what was deleted, altered or put back to an older version there.
    ///
    /// A gateway does so by itself, but where two records have the same version: what this node holds is taken then.
    #[command(after_help = "Example:\n  waxwing store repair")]
    Repair,
    /// Bring this machine's store into etcd, or a shared one into a store of this machine alone. Begun and not finished, run it again.
    #[command(
        after_help = "Examples:\n  waxwing store migrate --to-etcd\n  waxwing store migrate --to-embedded /var/lib/waxwing/alone"
    )]
    Migrate(Target),
    /// Forget a gateway that is gone for good.
    #[command(after_help = "Example:\n  waxwing store forget-node gw3.example.org")]
    ForgetNode {
        /// Its name, as `store status` shows it.
        name: String,
    },
}

/// Where a store is brought.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Into the etcd of the configuration.
    #[arg(long)]
    to_etcd: bool,
    /// Into a new store in this folder.
    #[arg(long, value_name = "DIR")]
    to_embedded: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    match args.command {
        Command::Verify { json } => verify(&args.store, context, json),
        Command::Init => init(&args.store, context),
        Command::Status { json } => status(&args.store, context, json),
        Command::Repair => repair(&args.store, context),
        Command::Migrate(to) => migrate(&args.store, context, &to),
        Command::ForgetNode { name } => forget_node(&args.store, context, &name),
    }
}

fn verify(store: &StoreArgs, context: &Context, json: bool) -> CommandResult {
    let bad = store.open(context)?.verify()?;
    if json {
        println!("{}", json!({"bad": bad}));
    } else if bad.is_empty() {
        println!("every record is authentic");
    } else {
        bad.iter().for_each(|path| println!("missing, not authentic, or named by nothing: {}", shown(path)));
    }
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

/// Makes a store that several gateways share, where there is none under the prefix.
fn init(store: &StoreArgs, context: &Context) -> CommandResult {
    let (folder, kek, etcd) = shared_place(store, context)?;
    if EmbeddedStore::exists(&folder) {
        return Err(Failure::new(
            format!("there is a store in {}", folder.display()),
            "bring it into etcd with `waxwing store migrate --to-etcd`, or name another folder",
        ));
    }
    let made = EmbeddedStore::create(&folder, &kek)?;
    if !made.found(&etcd)? {
        drop(made);
        // Made a moment ago, and empty.
        std::fs::remove_dir_all(&folder).map_err(|error| Failure::new(format!("{}: {error}", folder.display()), ""))?;
        return Err(Failure::new(
            format!("there is a store in etcd under {}/", etcd.prefix),
            "nothing is to be made: `waxwing serve` and every command make this node's copy of it",
        ));
    }
    drop(made);
    EmbeddedStore::open_shared(&folder, &kek, &etcd, Role::Command)?;
    println!("made a store in etcd under {}/, and this node's copy in {}", etcd.prefix, folder.display());
    Ok(ExitCode::SUCCESS)
}

fn shared_place(store: &StoreArgs, context: &Context) -> Result<(PathBuf, PathBuf, Etcd), Failure> {
    let (folder, kek, etcd) = store.place(context)?;
    let etcd = etcd.ok_or_else(|| {
        Failure::new(
            "no etcd is configured",
            "name its members under [etcd] in the configuration: endpoints = [\"https://…:2379\"]",
        )
    })?;
    Ok((folder, kek, etcd))
}

fn open_shared(store: &StoreArgs, context: &Context) -> Result<EmbeddedStore, Failure> {
    let (folder, kek, etcd) = shared_place(store, context)?;
    Ok(EmbeddedStore::open_shared(&folder, &kek, &etcd, Role::Command)?)
}

fn not_shared() -> Failure {
    Failure::new("this store is not shared", "name etcd's members under [etcd] in the configuration")
}

fn status(store: &StoreArgs, context: &Context, as_json: bool) -> CommandResult {
    let opened = store.open(context)?;
    let Some(shared) = opened.shared() else {
        let (records, _) = opened.digest()?;
        if as_json {
            println!("{:#}", json!({"shared": false, "records": records, "alerts": opened.alerts()}));
        } else {
            println!("a store of this machine alone, {records} records");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let status = shared.status()?;
    let lag = status.newest.map(|newest| newest.saturating_sub(status.revision));
    if as_json {
        print_status_json(&status, lag);
    } else {
        print_status(&status, lag);
    }
    let good = status.trouble.is_none() && status.divergent.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

fn print_status_json(status: &Status, lag: Option<u64>) {
    let nodes: Vec<_> = status
        .nodes
        .iter()
        .map(|node| json!({"name": node.name, "applied": node.applied, "seen": node.seen.to_string(), "version": node.version}))
        .collect();
    let divergent: Vec<_> =
        status.divergent.iter().map(|(record, why)| json!({"record": record, "why": why.words()})).collect();
    println!(
        "{:#}",
        json!({
            "shared": true, "endpoint": status.endpoint, "prefix": status.prefix, "revision": status.revision,
            "newest": status.newest, "lag": lag, "fresh": status.fresh.map(|at| at.to_string()), "complete": status.complete,
            "trouble": status.trouble, "nodes": nodes, "divergent": divergent,
            "server": status.server.as_ref().map(|(version, size)| json!({"version": version, "octets": size})),
        })
    );
}

fn print_status(status: &Status, lag: Option<u64>) {
    println!("shared under {}/ at {}", status.prefix, status.endpoint);
    if let Some((version, size)) = &status.server {
        println!("etcd {version}, {size} octets");
    }
    let lag = lag.map_or_else(|| "etcd does not answer".to_owned(), |lag| format!("{lag} behind"));
    println!("this node's copy: revision {} ({lag})", status.revision);
    if let Some(fresh) = status.fresh {
        println!("last known to be fresh: {fresh}");
    }
    if let Some(trouble) = &status.trouble {
        println!("trouble: {}", shown(trouble));
    }
    if !status.nodes.is_empty() {
        let rows: Vec<_> = status
            .nodes
            .iter()
            .map(|node| vec![shown(&node.name), node.applied.to_string(), node.seen.to_string(), shown(&node.version)])
            .collect();
        print_table(&["NODE", "REVISION", "LAST SIGN OF LIFE", "VERSION"], &rows);
    }
    for (record, why) in &status.divergent {
        println!("{}: {}", shown(record), why.words());
    }
    if !status.divergent.is_empty() {
        println!("waxwing store repair puts back what this node holds");
    }
}

fn repair(store: &StoreArgs, context: &Context) -> CommandResult {
    let opened = open_shared(store, context)?;
    let shared = opened.shared().ok_or_else(not_shared)?;
    let divergent = shared.status()?.divergent;
    let (later, ours): (Vec<_>, Vec<_>) = divergent.into_iter().partition(|(_, why)| *why == Divergence::NotUnderstood);
    for (record, why) in &later {
        println!("left as it is: {}: {}", shown(record), why.words());
    }
    let paths: Vec<String> = ours.into_iter().map(|(path, _)| path).collect();
    let missed = shared.put_back(&paths)?;
    paths.iter().filter(|path| !missed.contains(*path)).for_each(|path| println!("put back: {}", shown(path)));
    missed.iter().for_each(|path| println!("changed meanwhile: {}", shown(path)));
    if paths.is_empty() && later.is_empty() {
        println!("nothing is to be repaired");
    }
    Ok(if missed.is_empty() && later.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

fn forget_node(store: &StoreArgs, context: &Context, name: &str) -> CommandResult {
    let opened = open_shared(store, context)?;
    if opened.shared().ok_or_else(not_shared)?.forget_node(name)? {
        println!("{} is forgotten, until it gives a sign of life", shown(name));
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(format!("no gateway is called {}", shown(name)), "`waxwing store status` shows who is there"))
}

/// Brings a store into etcd, or out of it.
fn migrate(store: &StoreArgs, context: &Context, to: &Target) -> CommandResult {
    match &to.to_embedded {
        Some(folder) => to_embedded(store, context, folder),
        None => to_etcd(store, context),
    }
}

fn to_etcd(store: &StoreArgs, context: &Context) -> CommandResult {
    let (folder, kek, etcd) = shared_place(store, context)?;
    let before = {
        let alone = EmbeddedStore::open(&folder, &kek)?;
        alone.found(&etcd)?;
        alone.digest()?
    };
    let opened = EmbeddedStore::open_shared(&folder, &kek, &etcd, Role::Command)?;
    let shared = opened.shared().ok_or_else(not_shared)?;
    let paths = opened.not_shared_yet()?;
    let bar = progress(paths.len(), "records");
    for some in paths.chunks(MIGRATED) {
        shared.put_back(some)?;
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    let left = opened.not_shared_yet()?.len();
    let after = opened.digest()?;
    if left > 0 || before != after {
        return Err(Failure::new(
            format!("{left} of {} records are not in etcd, {} are in this copy", before.0, after.0),
            "run the same command again: it goes on where it stopped",
        ));
    }
    println!(
        "{} records are in etcd under {}/; {} is this node's copy from now on",
        after.0,
        etcd.prefix,
        folder.display()
    );
    println!("sha-256 of all they say: {}", *hex(&after.1));
    Ok(ExitCode::SUCCESS)
}

fn to_embedded(store: &StoreArgs, context: &Context, folder: &Path) -> CommandResult {
    let (_, kek) = store.paths(context)?;
    let opened = store.open(context)?;
    let before = opened.digest()?;
    let bar = progress(before.0, "records");
    let copy = opened.copy_to(folder, &kek, &mut |copied| bar.set_position(copied as u64))?;
    bar.finish_and_clear();
    let after = copy.digest()?;
    if before != after {
        return Err(Failure::new(
            format!("{} of {} records are in {}", after.0, before.0, folder.display()),
            "the store was changed meanwhile, or the folder held more; run the same command with a new folder",
        ));
    }
    println!("{} records are in {}, a store of this machine alone", after.0, folder.display());
    println!("sha-256 of all they say: {}", *hex(&after.1));
    Ok(ExitCode::SUCCESS)
}

fn progress(length: usize, what: &'static str) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(length as u64);
    let style = indicatif::ProgressStyle::with_template("{bar:40} {pos} of {len} {msg}, {per_sec}, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// How long a command waits for the other gateways to take its change in.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says which gateways do not know yet what this command changed.
pub(super) fn tell_acknowledged(store: &EmbeddedStore) -> Result<(), Failure> {
    let Some(shared) = store.shared() else { return Ok(()) };
    for node in shared.not_acknowledged(PATIENCE)? {
        println!(
            "not yet at {}: its last sign of life was at {}; it goes on with what it knows for at most max_staleness",
            shown(&node.name),
            node.seen
        );
    }
    Ok(())
}

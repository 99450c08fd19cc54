//! `waxwing store`: the store as a whole.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::kek::bar;
use super::{CommandResult, Context, Failure, NOT_GOOD, StoreArgs, print_table, shown};
use crate::config::{Etcd, KekSources};
use crate::store::backup::{BackupKey, Summary, check};
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::{Divergence, Node, Role, Status};
use crate::store::keyring::{Kek, RecoveryKey, hex};

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
    /// Write all records into a sealed backup, while mail flows.
    ///
    /// The key-encryption keys and the recovery key that open the store now open the backup: keep them as long as it.
    /// Exit status: 0 all is in it, 1 some records are not authentic and so are not, 2 there is none.
    #[command(after_help = "Example:\n  waxwing store export /var/backups/waxwing-2026-07-01")]
    Export {
        /// The file to make; an existing one is left as it is.
        file: PathBuf,
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
    /// Put back what a backup has and the store has not; a store is made where there is none. What is there stays as it is.
    ///
    /// The whole file is checked before anything is changed. Stopped at any point, it is run again.
    #[command(
        after_help = "Examples:\n  waxwing store import /var/backups/waxwing-2026-07-01\n  waxwing store import old-backup --backup-kek /media/safe/kek-2024\n  \
        waxwing store import backup --recovery /media/safe/waxwing-recovery"
    )]
    Import {
        /// The backup.
        file: PathBuf,
        /// A key-encryption key of the time of the backup, where the store's is another; may be given several times.
        #[arg(long, value_name = "FILE")]
        backup_kek: Vec<PathBuf>,
        /// The recovery key of the time of the backup.
        #[arg(long, value_name = "FILE", conflicts_with = "backup_kek")]
        recovery: Option<PathBuf>,
        /// Check the file alone; nothing is changed.
        #[arg(long)]
        check: bool,
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
    let Args { store, command } = args;
    match command {
        Command::Verify { json } => verify(&store, context, json),
        Command::Export { file, json } => export(&store, context, &file, json),
        Command::Import { file, backup_kek, recovery, check, json } => {
            let key = backup_key(&store, context, &backup_kek, recovery.as_deref())?;
            Import { store: &store, context, file: &file, key, json }.run(check)
        }
        Command::Init => init(&store, context),
        Command::Status { json } => status(&store, context, json),
        Command::Repair => repair(&store, context),
        Command::Migrate(to) => migrate(&store, context, &to),
        Command::ForgetNode { name } => forget_node(&store, context, &name),
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

fn export(store: &StoreArgs, context: &Context, file: &Path, json: bool) -> CommandResult {
    let at = |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()), "name another place");
    let store = store.open(context)?;
    if file.exists() {
        return Err(Failure::new(format!("{} exists and is left as it is", file.display()), "name another file"));
    }
    // Under its own name only when it is whole.
    let draft = PathBuf::from(format!("{}.{}.unfinished", file.display(), std::process::id()));
    let out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(at)?;
    let bar = bar(0, "owners");
    let mut out = BufWriter::new(out);
    let written = store.export(&mut out, |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let whole = written.map_err(Failure::from).and_then(|written| {
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(at)?;
        std::fs::hard_link(&draft, file).map_err(at)?;
        Ok(written)
    });
    // Half a backup is none.
    drop(std::fs::remove_file(&draft));
    let (summary, bad) = whole?;
    if json {
        println!("{}", json!({"records": summary.records, "sha256": *hex(&summary.hash), "not_authentic": bad}));
    } else {
        println!("{}: {summary}", file.display());
        bad.iter().for_each(|path| println!("not authentic, and not in it: {}", shown(path)));
    }
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

fn backup_key(
    store: &StoreArgs,
    context: &Context,
    files: &[PathBuf],
    recovery: Option<&Path>,
) -> Result<BackupKey, Failure> {
    if let Some(file) = recovery {
        return Ok(BackupKey::Recovery(RecoveryKey::read(file)?));
    }
    let mut keks = files.iter().map(|file| Kek::read(file)).collect::<Result<Vec<_>, _>>()?;
    if keks.is_empty() {
        keks = Kek::read_all(&store.paths(context)?.1)?;
    }
    Ok(BackupKey::Keks(keks))
}

struct Import<'a> {
    store: &'a StoreArgs,
    context: &'a Context,
    file: &'a Path,
    key: BackupKey,
    json: bool,
}

impl Import<'_> {
    fn open(&self) -> Result<(BufReader<File>, u64), Failure> {
        let at = |error: std::io::Error| Failure::new(format!("{}: {error}", self.file.display()), "");
        let file = File::open(self.file).map_err(at)?;
        let length = file.metadata().map_err(at)?.len();
        Ok((BufReader::new(file), length))
    }

    fn check(&self) -> Result<Summary, Failure> {
        let (file, length) = self.open()?;
        let bar = bar(length, "octets checked");
        let mut input = bar.wrap_read(file);
        let found = check(&mut input, &self.key, || ());
        bar.finish_and_clear();
        found.map_err(|error| {
            Failure::new(
                format!("{}: {error}", self.file.display()),
                "nothing was changed; a backup wants a key of its time: --backup-kek FILE or --recovery FILE",
            )
        })
    }

    fn run(self, check_only: bool) -> CommandResult {
        let summary = self.check()?;
        if check_only {
            if self.json {
                println!("{}", json!({"records": summary.records, "sha256": *hex(&summary.hash)}));
            } else {
                println!("{}: {summary}; it is whole", self.file.display());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let store = self.store.open_or_create(self.context)?;
        let mut input = self.open()?.0;
        let bar = bar(summary.records, "records");
        let restored = store.restore(&mut input, &self.key, summary, |at| bar.set_position(at.records));
        bar.finish_and_clear();
        let restored = restored?;
        if self.json {
            println!(
                "{}",
                json!({"records": summary.records, "sha256": *hex(&summary.hash), "new": restored.new,
                    "added_to": restored.added_to, "unchanged": restored.unchanged, "left": restored.left})
            );
        } else {
            println!("{}: {summary}", self.file.display());
            println!(
                "owners, aliases and the trust set: {} new, {} added to, {} as they were, {} left (purged, removed or otherwise named here)",
                restored.new, restored.added_to, restored.unchanged, restored.left
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes a store that several gateways share, where there is none under the prefix.
fn init(store: &StoreArgs, context: &Context) -> CommandResult {
    let (folder, kek, etcd) = shared_place(store, context)?;
    if EmbeddedStore::exists(&folder) {
        if EmbeddedStore::open(&folder, &kek).and_then(|there| there.is_copy()).unwrap_or(false) {
            return Err(Failure::new(
                format!("{} is this node's copy of a shared store already", folder.display()),
                "nothing is to be made; `waxwing store status` shows how it stands to etcd",
            ));
        }
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

fn shared_place(store: &StoreArgs, context: &Context) -> Result<(PathBuf, KekSources, Etcd), Failure> {
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
            "newest": status.newest, "lag": lag, "fresh": status.fresh.map(|at| at.to_string()),
            "fresh_kept": status.fresh_kept.map(|at| at.to_string()), "complete": status.complete,
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
    let mut divergent = shared.status()?.divergent;
    if let Some(at) = divergent.iter().position(|(path, why)| path == "h" && *why != Divergence::NotUnderstood) {
        divergent.remove(at);
        if !shared.put_back_header()? {
            println!("changed meanwhile: the header");
            return Ok(ExitCode::from(NOT_GOOD));
        }
        println!("put back: the header");
        shared.catch_up()?;
    }
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
        if !alone.found(&etcd)? {
            return Err(Failure::new(
                format!("there is another store in etcd under {}/", etcd.prefix),
                "name another prefix under [etcd]",
            ));
        }
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
    // Not what this copy believes: what etcd says when it is asked once more.
    let (after, there) = (opened.digest()?, shared.digest()?);
    if left > 0 || before != after || there != after {
        return Err(Failure::new(
            format!(
                "{left} of {} records are not in etcd; {} are in this copy, {} were read back from etcd{}",
                before.0,
                after.0,
                there.0,
                if before == after { "" } else { ", and they were changed meanwhile" }
            ),
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

/// The gateways that do not know yet what this command changed; none of a store of this machine alone.
pub(super) fn not_acknowledged(store: &EmbeddedStore) -> Result<Vec<Node>, Failure> {
    Ok(store.shared().map_or(Ok(Vec::new()), |shared| shared.not_acknowledged(PATIENCE))?)
}

/// Says which gateways do not know yet what this command changed.
pub(super) fn tell_acknowledged(store: &EmbeddedStore) -> Result<(), Failure> {
    for node in not_acknowledged(store)? {
        println!(
            "not yet at {}: its last sign of life was at {}; it goes on with what it knows for at most max_staleness",
            shown(&node.name),
            node.seen
        );
    }
    Ok(())
}

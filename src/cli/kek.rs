//! `waxwing kek`: the key-encryption key, which wraps the store's keys. How it is kept, rotated and recovered stands in `docs/keys.md`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{CommandResult, Context, Failure, NOT_GOOD, StoreArgs, print_table, read_config, shown};
use crate::config::KekSources;
use crate::store::StoreError;
use crate::store::embedded::{EmbeddedStore, KekStatus};
use crate::store::etcd::{Node, Role, Shared};
use crate::store::keyring::{Cost, Fingerprint, Kek, KekState, RecoveryKey, ask, hex, passphrase, passphrase_in};

/// Between two looks at what other processes have, in milliseconds.
const LOOK: u64 = 200;
/// A gateway that gave a sign of life within so many seconds is at work.
const ALIVE: i64 = 15;

/// Arguments of `waxwing kek`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: Command,
}

/// How a new key-encryption key is made.
#[derive(Debug, Clone, clap::Args)]
struct Making {
    /// Make it of a passphrase (Argon2id): from WAXWING_KEK_PASSPHRASE_FILE, WAXWING_KEK_PASSPHRASE, a credential, or asked for.
    #[arg(long)]
    passphrase: bool,
    /// Make it of the passphrase in this file's first line.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// One step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Step {
    /// The new key opens the store too.
    Introduce,
    /// The new key is the one in use.
    Activate,
    /// The old key opens the store no more.
    Retire,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new key-encryption key in a file that only its owner may read, or with --recovery a recovery key for a store.
    ///
    /// Keep a copy apart from the store: without it no private key in the store can be read again.
    #[command(
        after_help = "Examples:\n  waxwing kek init /etc/waxwing/kek --store /var/lib/waxwing/store\n  waxwing kek init --recovery /media/safe/waxwing-recovery"
    )]
    Init {
        /// The file to make; an existing one is left as it is. With --store a store is made in that folder too.
        #[arg(required_unless_present = "recovery")]
        file: Option<PathBuf>,
        #[command(flatten)]
        making: Making,
        /// Make a recovery key in this file: it opens the store when every key-encryption key is lost. Keep it offline.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "passphrase", "passphrase_file"])]
        recovery: Option<PathBuf>,
    },
    /// Show the store's keys, what opens them, which processes have the store open, and which gateways share it. Nothing shown is secret.
    #[command(after_help = "Example:\n  waxwing kek status --json")]
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put another key-encryption key in the place of the present one, while mail flows. Stopped at any point, it is run again.
    ///
    /// Exit status: 0 done, 1 something is to be done first (it says what), 2 it failed.
    #[command(
        after_help = "Example, with kek = [\"/etc/waxwing/kek\", \"/etc/waxwing/kek2\"] in the configuration:\n  waxwing kek rotate /etc/waxwing/kek2"
    )]
    Rotate {
        /// The new key's file; made where there is none.
        new: PathBuf,
        #[command(flatten)]
        making: Making,
        /// Go up to this step.
        #[arg(long, value_enum, default_value = "retire")]
        step: Step,
        /// Seconds to wait for other processes, and gateways that share the store, to have the new key.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        wait: u64,
    },
    /// Make a new store key, write every record and private key anew under it, and drop the old one, while mail flows. Stopped at any
    /// point, it is run again.
    ///
    /// Exit status: 0 done, 1 done, but some records are not authentic, or something is to be done first (it says what), 2 it failed.
    #[command(after_help = "Example:\n  waxwing kek reseal")]
    Reseal {
        /// Do not rest: half of the time is left to others otherwise.
        #[arg(long)]
        full_speed: bool,
        /// Seconds to wait for the gateways that share the store to have written their copies anew.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        wait: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// With the recovery key, make a new key-encryption key for a store whose own is lost.
    #[command(
        after_help = "Example:\n  waxwing kek recover --recovery /media/safe/waxwing-recovery /etc/waxwing/kek2 --store /var/lib/waxwing/store"
    )]
    Recover {
        /// The recovery key's file.
        #[arg(long, value_name = "FILE")]
        recovery: PathBuf,
        /// The new key's file; made where there is none.
        new: PathBuf,
        #[command(flatten)]
        making: Making,
    },
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    let Args { store, command } = args;
    match command {
        Command::Init { recovery: Some(file), .. } => init_recovery(&store, context, &file),
        Command::Init { file, making, recovery: None } => {
            init(&file.unwrap_or_default(), store.store.as_deref(), &making)
        }
        Command::Status { json } => status(&store, context, json),
        Command::Rotate { new, making, step, wait } => {
            Rotation::begin(&store, context, &new, &making)?.go(step, Duration::from_secs(wait))
        }
        Command::Reseal { full_speed, wait, json } => {
            reseal(&store, context, full_speed, Duration::from_secs(wait), json)
        }
        Command::Recover { recovery, new, making } => recover(&store, context, &recovery, &new, &making),
    }
}

impl Making {
    fn passphrase(&self, of: &Path) -> Result<Option<zeroize::Zeroizing<String>>, Failure> {
        Ok(match &self.passphrase_file {
            Some(file) => Some(passphrase_in(file)?),
            None if self.passphrase => Some(passphrase(&of.display().to_string())?),
            None => None,
        })
    }

    fn make(&self, file: &Path) -> Result<Kek, Failure> {
        let Some(text) = self.passphrase(file)? else { return Ok(Kek::create(file)?) };
        let given = self.passphrase_file.is_some()
            || std::env::vars_os().any(|(name, _)| {
                name.to_str()
                    .is_some_and(|name| name.starts_with("WAXWING_KEK_PASSPHRASE") || name == "CREDENTIALS_DIRECTORY")
            });
        if !given && *ask("The same again: ")? != *text {
            return Err(Failure::new("the two passphrases are not the same", "nothing was made; try again"));
        }
        Ok(Kek::create_with_passphrase(file, &text, Cost::default())?)
    }

    /// Makes it, or reads what was made before.
    fn make_or_read(&self, file: &Path) -> Result<Kek, Failure> {
        if file.exists() {
            return self.read(file);
        }
        let made = self.make(file)?;
        println!("made the key-encryption key {}; keep a copy apart from the store", file.display());
        Ok(made)
    }

    fn read(&self, file: &Path) -> Result<Kek, Failure> {
        Ok(match &self.passphrase_file {
            Some(from) => Kek::read_with(file, |_| passphrase_in(from))?,
            None => Kek::read(file)?,
        })
    }
}

fn init(file: &Path, store: Option<&Path>, making: &Making) -> CommandResult {
    if let Some(folder) = store
        && EmbeddedStore::exists(folder)
    {
        return Err(Failure::new(
            format!("there is a store in {}, which a new key-encryption key cannot open", folder.display()),
            "name another folder; `waxwing kek rotate` gives a store another key",
        ));
    }
    let kek = making.make(file)?;
    println!("made the key-encryption key {} (mode 0600); keep a copy apart from the store", file.display());
    if let Some(folder) = store {
        EmbeddedStore::create_with(folder, file.into(), vec![kek])?;
        println!("made a store in {}", folder.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn init_recovery(store: &StoreArgs, context: &Context, file: &Path) -> CommandResult {
    let store = store.open(context)?;
    store.keys_can_be_changed()?;
    let key = if file.exists() { RecoveryKey::read(file)? } else { RecoveryKey::create(file)? };
    let before = store.keys()?.keks.iter().any(|kek| kek.recovery && kek.fingerprint != key.fingerprint());
    store.introduce_recovery(&key)?;
    println!("the recovery key {} opens the store; take it away from this machine and keep it safe", file.display());
    if before {
        println!("the recovery key before it does not open the store any more, only backups of its time");
    }
    Ok(ExitCode::SUCCESS)
}

fn words(kek: &KekStatus) -> &'static str {
    match (kek.recovery, kek.state) {
        (true, _) => "recovery",
        (_, KekState::Introduced) => "introduced",
        (_, KekState::Active) => "active",
        (_, KekState::Retiring) => "retiring",
    }
}

fn status(store: &StoreArgs, context: &Context, json: bool) -> CommandResult {
    let store = store.open(context)?;
    let (keys, processes) = (store.keys()?, store.other_processes()?);
    let (nodes, unknown) = match store.shared() {
        Some(shared) => shared.gateways()?,
        None => Default::default(),
    };
    let older = if keys.keys.len() > 1 { store.under_older_keys()?.len() } else { 0 };
    if json {
        let keks: Vec<Value> = keys
            .keks
            .iter()
            .map(|kek| {
                json!({"kek": *hex(&kek.fingerprint), "state": words(kek), "introduced": kek.created.to_string(), "here": kek.here})
            })
            .collect();
        let store_keys: Vec<Value> = keys
            .keys
            .iter()
            .map(|key| json!({"id": key.id, "active": key.active, "made": key.created.to_string()}))
            .collect();
        let processes: Vec<Value> = processes
            .iter()
            .flatten()
            .map(|one| {
                let keks: Vec<String> = one.keks.iter().map(|kek| hex(kek).to_string()).collect();
                json!({"pid": one.pid, "keks": keks, "revision": one.revision})
            })
            .collect();
        println!(
            "{:#}",
            json!({"store": keys.store, "revision": keys.revision, "keks": keks, "store_keys": store_keys,
                "records_under_older_keys": older, "processes": processes,
                "nodes": nodes.iter().map(node_json).collect::<Vec<_>>(), "not_authentic": unknown})
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("store {}, revision {} of its keys", keys.store, keys.revision);
    let rows: Vec<Vec<String>> = keys
        .keks
        .iter()
        .map(|kek| {
            let here = kek.here.as_deref().map_or_else(|| "-".to_owned(), shown);
            vec![hex(&kek.fingerprint).to_string(), words(kek).to_owned(), kek.created.to_string(), here]
        })
        .collect();
    print_table(&["KEK", "STATE", "INTRODUCED", "HERE"], &rows);
    let rows: Vec<Vec<String>> = keys
        .keys
        .iter()
        .map(|key| {
            let state = if key.active { "active" } else { "retired" };
            vec![key.id.clone(), state.to_owned(), key.created.to_string()]
        })
        .collect();
    print_table(&["STORE KEY", "STATE", "MADE"], &rows);
    if keys.keys.len() > 1 {
        println!("{older} records are under older store keys: `waxwing kek reseal` finishes that");
    }
    for process in processes {
        match process {
            Some(one) => {
                let keks: Vec<String> = one.keks.iter().map(|kek| hex(kek).to_string()).collect();
                println!("process {} has the store open, with KEK {}", one.pid, keks.join(" "));
            }
            None => println!("a process is just opening the store"),
        }
    }
    print_nodes(&nodes, &unknown);
    Ok(ExitCode::SUCCESS)
}

fn kek_words(keks: &[Fingerprint]) -> Vec<String> {
    keks.iter().map(|kek| hex(kek).to_string()).collect()
}

fn node_json(node: &Node) -> Value {
    json!({"name": node.name, "keks": kek_words(&node.keks), "revision": node.header,
        "all_under": node.sealed.map(|id| hex(&id).to_string()), "seen": node.seen.to_string()})
}

/// The gateways that share the store, and what each has.
fn print_nodes(nodes: &[Node], unknown: &[String]) {
    if !nodes.is_empty() {
        let rows: Vec<Vec<String>> = nodes
            .iter()
            .map(|node| {
                let under = node.sealed.map_or_else(|| "more than one key".to_owned(), |id| hex(&id).to_string());
                vec![
                    shown(&node.name),
                    kek_words(&node.keks).join(" "),
                    node.header.to_string(),
                    under,
                    node.seen.to_string(),
                ]
            })
            .collect();
        print_table(&["NODE", "HAS KEK", "REVISION", "ITS RECORDS ARE UNDER", "LAST SIGN OF LIFE"], &rows);
    }
    for name in unknown {
        println!("{}: its sign of life is not authentic, so that it is not known what it has", shown(name));
    }
}

/// Another KEK in the place of the present one.
struct Rotation<'a> {
    store: EmbeddedStore,
    new: Kek,
    /// It was made a moment ago, and nothing is under it yet.
    made: bool,
    file: &'a Path,
    /// The configuration names the new file, or there is none.
    named: bool,
    config: &'a Path,
}

impl<'a> Rotation<'a> {
    fn begin(args: &StoreArgs, context: &'a Context, file: &'a Path, making: &Making) -> Result<Self, Failure> {
        let (folder, sources, etcd) = args.place(context)?;
        // Where it was made before, it may be the only one by now that opens the store.
        let before = if file.exists() { Some(making.read(file)?) } else { None };
        let more = before.iter().cloned().collect();
        let store = match &etcd {
            Some(etcd) => EmbeddedStore::open_shared_with(&folder, sources, more, etcd, Role::Command)?,
            None => EmbeddedStore::open_with(&folder, sources, more)?,
        };
        // Before a key is made that nothing would be put under.
        store.keys_can_be_changed()?;
        let made = before.is_none();
        let new = match before {
            Some(new) => new,
            None => making.make_or_read(file)?,
        };
        let named =
            !context.config.exists() || read_config(&context.config).is_ok_and(|config| names(&config.kek, file));
        Ok(Self { store, new, made, file, named, config: &context.config })
    }

    fn go(&self, step: Step, wait: Duration) -> CommandResult {
        let fingerprint = self.new.fingerprint();
        let opens = |store: &EmbeddedStore| {
            store.keys().map(|keys| keys.keks.into_iter().filter(|kek| !kek.recovery).collect::<Vec<_>>())
        };
        self.introduce()?;
        println!("introduced: KEK {} opens the store", *hex(&fingerprint));
        if step == Step::Introduce {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(waits) = self.acknowledged(wait)? {
            return Ok(self.stopped("the new key is not the one in use yet", &waits));
        }
        self.store.activate_kek(fingerprint)?;
        println!("activated: KEK {} is the one in use", *hex(&fingerprint));
        if step == Step::Activate {
            return Ok(ExitCode::SUCCESS);
        }
        if !self.named {
            let waits = [format!("{} does not name {} in `kek`", self.config.display(), self.file.display())];
            return Ok(self.stopped("the old key still opens the store", &waits));
        }
        if let Some(waits) = self.acknowledged(wait)? {
            return Ok(self.stopped("the old key still opens the store", &waits));
        }
        let old: Vec<String> = opens(&self.store)?
            .into_iter()
            .filter(|kek| kek.fingerprint != fingerprint)
            .map(|kek| hex(&kek.fingerprint).to_string())
            .collect();
        self.store.retire_keks(fingerprint)?;
        if old.is_empty() {
            println!("no other key opens the store");
        } else {
            println!("retired: KEK {} opens the store no more", old.join(" "));
        }
        println!(
            "name {} alone in `kek` now; keep the old file as long as backups of its time; `waxwing kek reseal` renews the store keys too",
            self.file.display()
        );
        Ok(ExitCode::SUCCESS)
    }

    fn introduce(&self) -> Result<(), Failure> {
        let introduced = self.store.introduce_kek(&self.new);
        if self.made && matches!(introduced, Err(StoreError::Refused(_))) {
            // It opens nothing.
            std::fs::remove_file(self.file).map_err(|error| {
                Failure::new(format!("{}: {error}", self.file.display()), "remove it: it opens nothing")
            })?;
        }
        Ok(introduced?)
    }

    /// Waits until every process that has the store open, and every gateway that shares it, has the new key; what is missing where that does not
    /// come.
    fn acknowledged(&self, wait: Duration) -> Result<Option<Vec<String>>, Failure> {
        let begun = Instant::now();
        loop {
            let missing = self.store.without_kek(&self.new.fingerprint())?;
            if missing.is_empty() {
                return Ok(None);
            }
            if begun.elapsed() >= wait {
                return Ok(Some(missing));
            }
            std::thread::sleep(Duration::from_millis(LOOK));
        }
    }

    fn stopped(&self, state: &str, waits: &[String]) -> ExitCode {
        waits.iter().for_each(|why| println!("{}", shown(why)));
        println!(
            "stopped: {state}, and nothing is lost; name {} beside the old file in `kek`, run `waxwing config reload`, and rotate again",
            self.file.display()
        );
        ExitCode::from(NOT_GOOD)
    }
}

/// Whether one of the places is this file.
fn names(sources: &KekSources, file: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    sources.iter().any(|place| place == file || (real(place).is_some() && real(place) == real(file)))
}

/// A bar with a count on standard error, where that is a terminal.
pub(super) fn bar(of: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(of);
    let template = format!("{{bar:40}} {{pos}}/{{len}} {what}, {{eta}} left");
    bar.with_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn reseal(store: &StoreArgs, context: &Context, full_speed: bool, wait: Duration, json: bool) -> CommandResult {
    let store = store.open(context)?;
    let bar = bar(0, "records");
    let mut worked = Instant::now();
    let resealed = store.reseal(wait, |at| {
        bar.set_length(at.of);
        bar.set_position(at.done);
        if !full_speed {
            std::thread::sleep(worked.elapsed().min(Duration::from_secs(1)));
        }
        worked = Instant::now();
    })?;
    bar.finish_and_clear();
    if json {
        println!("{:#}", json!({"written": resealed.written, "not_authentic": resealed.bad, "waits": resealed.waits}));
    } else {
        let outcome =
            if resealed.waits.is_empty() { "the old store key is dropped" } else { "the old store key is kept" };
        println!("{} owners, aliases and trust sets written anew; {outcome}", resealed.written);
        resealed.waits.iter().for_each(|why| println!("{}", shown(why)));
        if !resealed.waits.is_empty() {
            println!("stopped, and nothing is lost: run `waxwing kek reseal` again");
        }
        resealed.bad.iter().for_each(|path| println!("not authentic, and left as it is: {}", shown(path)));
    }
    let good = resealed.bad.is_empty() && resealed.waits.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

fn recover(args: &StoreArgs, context: &Context, recovery: &Path, new: &Path, making: &Making) -> CommandResult {
    let (folder, etcd) = match &args.store {
        Some(folder) => (folder.clone(), None),
        None => {
            let config = read_config(&context.config)?;
            (config.store, config.etcd)
        }
    };
    let key = RecoveryKey::read(recovery)?;
    let store = match &etcd {
        None => EmbeddedStore::open_for_recovery(&folder, key)?,
        Some(etcd) => EmbeddedStore::open_shared_for_recovery(&folder, key, etcd)?,
    };
    store.keys_can_be_changed()?;
    let alive = jiff::Timestamp::now().as_second() - ALIVE;
    let nodes = store.shared().map(Shared::gateways).transpose()?.map(|(nodes, _)| nodes).unwrap_or_default();
    if let Some(node) = nodes.iter().find(|node| node.seen.as_second() > alive) {
        return Err(Failure::new(
            format!("gateway {} is at work with a key-encryption key", node.name),
            "that key is not lost: rotate with it; or stop the gateway first",
        ));
    }
    if let Some(process) = store.other_processes()?.first() {
        let who = process.as_ref().map_or_else(|| "a process".to_owned(), |one| format!("process {}", one.pid));
        return Err(Failure::new(
            format!("{who} has the store open with a key-encryption key"),
            "that key is not lost: rotate with it; or stop the process first",
        ));
    }
    let kek = making.make_or_read(new)?;
    store.recover(&kek)?;
    println!("KEK {} is the one that opens the store; name {} in `kek`", *hex(&kek.fingerprint()), new.display());
    println!("if the lost key may be in other hands, run `waxwing kek reseal` now");
    Ok(ExitCode::SUCCESS)
}

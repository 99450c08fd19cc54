//! The command line: one file a subcommand.
//!
//! Exit status: 0 good, 1 not good, 2 could not be read or was not understood. Errors go to standard error as
//! `waxwing: what; hint`.

// In this module and below, what prints does not panic where the reader went away, and ends no work that was begun.
macro_rules! println {
    ($($text:tt)*) => { $crate::cli::output::out(format_args!("{}\n", format_args!($($text)*))) };
}
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::output::out(format_args!($($text)*)) };
}
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::cli::output::err(format_args!("{}\n", format_args!($($text)*))) };
}
macro_rules! eprint {
    ($($text:tt)*) => { $crate::cli::output::err(format_args!($($text)*)) };
}

pub mod alias;
pub mod audit;
pub mod cert;
pub mod config;
pub mod demo;
pub mod dkim;
pub mod generate;
pub mod kek;
pub mod load;
pub mod message;
mod output;
pub mod policy;
pub mod queue;
pub mod serve;
pub mod smimea;
pub mod store;
pub mod trust;
pub mod user;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use zeroize::Zeroizing;

use crate::config::{Certificates, Config, Etcd, Fetch, KekSources};
use crate::store::StoreError;
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::{Role, Shared};

/// Where the configuration is unless another is named.
const CONFIG: &str = "/etc/waxwing/waxwing.toml";

#[derive(Debug, Parser)]
#[command(
    name = "waxwing",
    version,
    about = "An S/MIME gateway: signs, encrypts, decrypts and verifies mail by policy",
    after_help = "Example:\n  waxwing demo\n  waxwing --config /etc/waxwing/waxwing.toml serve"
)]
struct Cli {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        env = "WAXWING_CONFIG",
        value_name = "FILE",
        default_value = CONFIG
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    #[command(after_help = "Example:\n  waxwing --config /etc/waxwing/waxwing.toml serve")]
    Serve(serve::Args),
    /// Show real mail leaving sealed and arriving opened, in a temporary folder.
    #[command(after_help = "Example:\n  waxwing demo --keep")]
    Demo(demo::Args),
    /// Show, seal or open a mail in a file.
    #[command(after_help = "Example:\n  waxwing message show mail.eml")]
    Message(message::Args),
    /// Certificates and private keys of mailboxes and domains.
    #[command(
        after_help = "Example:\n  waxwing cert import --password-file pw.txt keys/\n  waxwing cert list anna@example.org"
    )]
    Cert(cert::Args),
    /// Trust anchors and intermediate certificates.
    #[command(after_help = "Example:\n  waxwing trust add ca.pem --domain example.org")]
    Trust(trust::Args),
    /// Further addresses of a mailbox.
    #[command(after_help = "Example:\n  waxwing alias add info@example.org anna@example.org")]
    Alias(alias::Args),
    /// Load-test a mail flow, and account for every mail.
    #[command(
        after_help = "Examples:\n  waxwing load --target 127.0.0.1:2525 --sink 10025 --scenario quick --report run.html\n  waxwing load scenarios\n  waxwing load compare a.json b.json"
    )]
    Load(load::Args),
    /// The key-encryption key, which wraps the store's keys.
    #[command(after_help = "Example:\n  waxwing kek init /etc/waxwing/kek")]
    Kek(kek::Args),
    /// The store as a whole: check it, back it up, put it back, share it, look at who shares it.
    #[command(
        after_help = "Examples:\n  waxwing store verify\n  waxwing store export backup\n  waxwing store status --json"
    )]
    Store(store::Args),
    /// Explain what policy does with a mail, or what another configuration would change.
    #[command(
        after_help = "Examples:\n  waxwing policy explain mail.eml --from anna@example.org --to bert@partner.example\n  \
        waxwing policy replay archive/ --config new.toml"
    )]
    Policy(policy::Args),
    /// Records in the DNS that tell others which certificates our users have.
    #[command(after_help = "Example:\n  waxwing smimea publish anna@example.org")]
    Smimea(smimea::Args),
    /// Keys with which our domains vouch for mail (DKIM), and their records in the DNS.
    #[command(
        after_help = "Examples:\n  waxwing dkim generate /etc/waxwing/dkim.pem --domain example.org --selector s2026\n  waxwing dkim show"
    )]
    Dkim(dkim::Args),
    /// Who may authenticate (AUTH) at a listener.
    #[command(after_help = "Example:\n  waxwing user set /etc/waxwing/users anna@example.org")]
    User(user::Args),
    /// Look at the mail in the spool, and change what becomes of it.
    #[command(after_help = "Examples:\n  waxwing queue list --state held\n  waxwing queue stats")]
    Queue(queue::Args),
    /// Whether the audit log is whole.
    #[command(after_help = "Example:\n  waxwing audit verify /var/log/waxwing/audit.log*")]
    Audit(audit::Args),
    /// Manual pages and completions, for packages.
    #[command(
        hide = true,
        after_help = "Examples:\n  waxwing generate man target/man\n  waxwing generate completions bash"
    )]
    Generate(generate::Args),
    /// Check the configuration, or put it into use.
    #[command(after_help = "Examples:\n  waxwing --config waxwing.toml config check\n  waxwing config reload")]
    Config(config::Args),
}

/// What every subcommand may need beside its own arguments.
#[derive(Debug, Clone)]
pub struct Context {
    /// The configuration file; read only by commands that need it.
    pub config: PathBuf,
    /// The words of the command, such as `cert block`: whose changes it are.
    pub words: String,
}

/// Why a command did not do what it was asked for: exit status 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub what: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Failure {
    /// A failure with what happened and what to do about it.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.to_string(), "")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

/// What a command ends with: an exit status (0 good, 1 not good), or a failure (2).
pub type CommandResult = Result<ExitCode, Failure>;

/// Exit status 1: it could be read, and it is not good.
pub const NOT_GOOD: u8 = 1;
/// Exit status 2: it could not be read, or the arguments were wrong.
pub const UNREADABLE: u8 = 2;

/// The whole command line program.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let words = words(&matches);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let context = Context { config: cli.config, words };
    let seen = audit::as_whole(&context);
    let result = seen.may_begin().and_then(|()| run(cli.command, &context));
    let result = seen.done(&context, result);
    let code = result.unwrap_or_else(|failure| {
        eprintln!("waxwing: {failure}");
        ExitCode::from(UNREADABLE)
    });
    match output::finish() {
        None => code,
        Some(why) => {
            eprintln!("waxwing: standard output cannot be written: {why}");
            ExitCode::from(UNREADABLE)
        }
    }
}

/// The names of the subcommands, one after another.
fn words(matches: &ArgMatches) -> String {
    let mut words = Vec::new();
    let mut inner = matches.subcommand();
    while let Some((name, matches)) = inner {
        words.push(name);
        inner = matches.subcommand();
    }
    words.join(" ")
}

/// Runs the command.
fn run(command: Command, context: &Context) -> CommandResult {
    match command {
        Command::Serve(args) => serve::run(args, context),
        Command::Demo(args) => demo::run(args, context),
        Command::Message(args) => message::run(args, context),
        Command::Cert(args) => cert::run(args, context),
        Command::Trust(args) => trust::run(args, context),
        Command::Alias(args) => alias::run(args, context),
        Command::Load(args) => load::run(args, context),
        Command::Kek(args) => kek::run(args, context),
        Command::Store(args) => store::run(args, context),
        Command::Policy(args) => policy::run(args, context),
        Command::Smimea(args) => smimea::run(args, context),
        Command::Dkim(args) => dkim::run(args, context),
        Command::User(args) => user::run(args),
        Command::Queue(args) => queue::run(args, context),
        Command::Audit(args) => audit::run(args, context),
        Command::Generate(args) => generate::run(args, &mut Cli::command()),
        Command::Config(args) => config::run(args, context),
    }
}

/// Reads the configuration; every error found is in the failure, one a line.
pub fn read_config(file: &Path) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(
            format!("the configuration {} cannot be read: {error}", file.display()),
            "name another with --config FILE or WAXWING_CONFIG",
        )
    })?;
    config::parse(&text, file).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::new(lines.join("\n"), "`waxwing config check` says the same without starting anything")
    })
}

/// Runs what asks the network.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("the runtime cannot start: {error}"), ""))
}

/// What `[revocation]` and `[certificates]` of the configuration say; the defaults where there is none.
fn lookup_settings(context: &Context) -> Result<(Fetch, Certificates), Failure> {
    if !context.config.exists() {
        return Ok(Default::default());
    }
    read_config(&context.config).map(|config| (config.fetch, config.certificates))
}

/// A password from a file (its first line), or from the command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PasswordArgs {
    /// File whose first line is the password; goes before --password.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The password; other users of this machine may see it while the command runs.
    #[arg(long, value_name = "TEXT", env = "WAXWING_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
}

impl PasswordArgs {
    /// The password, where one was given.
    pub fn read(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let Some(file) = &self.password_file else { return Ok(self.password.clone().map(Zeroizing::new)) };
        let octets = read_file(file).map(Zeroizing::new)?;
        let text = std::str::from_utf8(&octets).map_err(|_| {
            Failure::new(format!("the password file {} is not UTF-8", file.display()), "write the password as UTF-8")
        })?;
        Ok(Some(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())))
    }
}

/// The largest file of keys or certificates that is read, in octets.
const FILE_MAX: u64 = 16 << 20;

/// Reads a file of keys or certificates: 16 MiB at most.
pub fn read_file(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()), "");
    let mut octets = Vec::new();
    std::fs::File::open(file).map_err(failed)?.take(FILE_MAX + 1).read_to_end(&mut octets).map_err(failed)?;
    if octets.len() as u64 > FILE_MAX {
        return Err(Failure::new(
            format!("{}: over {FILE_MAX} octets", file.display()),
            "no file of keys or certificates is that large",
        ));
    }
    Ok(octets)
}

/// Text for a terminal: control characters, bidirectional ones included, are escaped.
pub fn shown(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().flat_map(|c| if hidden(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Prints rows in columns as wide as their widest cell, after a heading.
pub fn print_table(heading: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heading.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", padded.join("  ").trim_end());
    };
    line(&heading.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

/// Where the store is: flags, else the configuration's `store` and `kek`.
#[derive(Debug, Clone, clap::Args)]
pub struct StoreArgs {
    /// Folder of the store; default: the configuration's `store`.
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// File of the key-encryption key, or `credential:NAME`; may be given several times. Default: the configuration's `kek`.
    #[arg(long, global = true, value_name = "FILE")]
    pub kek: Vec<PathBuf>,
}

impl StoreArgs {
    /// The folder of the store, where its KEK is, and where the store is shared; the configuration is read only where a flag is missing.
    pub fn place(&self, context: &Context) -> Result<(PathBuf, KekSources, Option<Etcd>), Failure> {
        let keks = (!self.kek.is_empty()).then(|| KekSources::new(self.kek.clone()));
        if let (Some(store), Some(keks)) = (&self.store, &keks) {
            return Ok((store.clone(), keks.clone(), None));
        }
        let config = read_config(&context.config).map_err(|failure| {
            let hint = if failure.hint.is_empty() { String::new() } else { format!("{}, or ", failure.hint) };
            Failure::new(failure.what, format!("{hint}name the store with --store DIR --kek FILE"))
        })?;
        // Another folder is another store.
        let etcd = config.etcd.filter(|_| self.store.is_none());
        Ok((self.store.clone().unwrap_or(config.store), keks.unwrap_or(config.kek), etcd))
    }

    /// The folder of the store and where its KEK is.
    pub fn paths(&self, context: &Context) -> Result<(PathBuf, KekSources), Failure> {
        self.place(context).map(|(store, kek, _)| (store, kek))
    }

    /// Opens the store, or makes one where there is none, and says so. A shared one is made by `waxwing store init` alone.
    pub fn open_or_create(&self, context: &Context) -> Result<EmbeddedStore, Failure> {
        let (store, kek, etcd) = self.place(context)?;
        if etcd.is_some() || EmbeddedStore::exists(&store) {
            return self.open(context);
        }
        let made = EmbeddedStore::create(&store, &kek)?;
        eprintln!("waxwing: made a new store in {}", store.display());
        self.watch(context, &made);
        Ok(made)
    }

    /// What this command changes, and uses private keys for, is written down as the configuration says; where another store is named than
    /// the configuration's, nowhere.
    fn watch(&self, context: &Context, store: &EmbeddedStore) {
        if let Some(settings) = audit::settings(context, self.store.as_deref()) {
            store.audit_lazily(settings, &audit::by(&context.words));
        }
    }

    /// Opens the store; a shared one is brought up to date first.
    pub fn open(&self, context: &Context) -> Result<EmbeddedStore, Failure> {
        let opened = self.open_unseen(context)?;
        self.watch(context, &opened);
        Ok(opened)
    }

    fn open_unseen(&self, context: &Context) -> Result<EmbeddedStore, Failure> {
        match self.place(context)? {
            (store, kek, None) => Ok(EmbeddedStore::open(&store, &kek)?),
            (store, kek, Some(etcd)) => {
                let opened = EmbeddedStore::open_shared(&store, &kek, &etcd, Role::Command)?;
                if let Some(why) = opened.shared().and_then(Shared::trouble) {
                    eprintln!("waxwing: etcd does not answer, so that this is what this node knows: {why}");
                }
                Ok(opened)
            }
        }
    }
}

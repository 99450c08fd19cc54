//! `waxwing audit`: whether the audit log is whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{CommandResult, Context, Failure, NOT_GOOD, shown};
use crate::audit::chain::{self, Summary, Verifier};
use crate::audit::{AuditError, AuditLog, Changed};
use crate::config::{self, Config};

/// Faults that are printed.
const PRINTED: usize = 100;

/// Arguments of `waxwing audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look whether a line was altered, taken away, moved, or cut short, and say which. Several files of one log may be named in any order.
    ///
    /// A chain of hashes cannot show by itself that its end was cut off, or that all of it was written anew: keep the hash of a line
    /// elsewhere (it is in the gateway's log at each start and stop, and printed here) and name it with --knows.
    ///
    /// Exit status: 0 whole, 1 not whole, 2 could not be read.
    #[command(
        after_help = "Examples:\n  waxwing audit verify /var/log/waxwing/audit.log*\n  waxwing audit verify audit.log --knows 9f86d081884c7d65…"
    )]
    Verify {
        /// The files; default: those of the configuration.
        files: Vec<PathBuf>,
        /// The hash of a line that has to be there.
        #[arg(long, value_name = "HASH")]
        knows: Option<String>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        Self::new(error.to_string(), "make its folder, or name another file under [audit]")
    }
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    let Command::Verify { files, knows, json } = args.command;
    let files = if files.is_empty() { configured(context)? } else { files };
    let knows = knows.map(|hash| hash.to_ascii_lowercase());
    if let Some(hash) = knows.as_deref().filter(|hash| hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(Failure::new(
            format!("{:?} is no hash: 64 hexadecimal digits are expected", shown(hash)),
            "take it from the gateway's log",
        ));
    }
    let summary = verify(files, knows.as_deref())?;
    if json {
        print_json(&summary)
    } else {
        print(&summary)
    }
    Ok(if summary.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

/// Whose changes it are: the command, and the user who ran it.
pub(super) fn by(words: &str) -> String {
    let user = nix::unistd::getuid();
    let name = nix::unistd::User::from_uid(user).ok().flatten().map_or_else(|| user.to_string(), |user| user.name);
    match std::env::var("SUDO_USER") {
        Ok(sudo) if user.is_root() => format!("waxwing {words}, {name}, by sudo of {sudo}"),
        _ => format!("waxwing {words}, {name}"),
    }
}

/// Where the configuration has it written down what is changed in this store; `None`: nowhere, or it is another store.
pub(super) fn settings(context: &Context, store: Option<&Path>) -> Option<config::Audit> {
    // What is wrong in it is said by who needs it.
    let text = std::fs::read_to_string(&context.config).ok()?;
    let config: Config = super::config::parse(&text, &context.config).ok()?;
    let same = |one: &Path, other: &Path| match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    };
    config.audit.filter(|_| store.is_none_or(|store| same(store, &config.store)))
}

/// Commands that change keys over keys, or the store as a whole: no record tells of them.
const WHOLE: [&str; 9] = [
    "kek init",
    "kek rotate",
    "kek reseal",
    "kek recover",
    "store export",
    "store import",
    "store migrate",
    "store repair",
    "store forget-node",
];

/// Writes down what such a command does: that it begins, and how it ended. Of any other, nothing.
pub(super) struct Whole(Option<Result<AuditLog, Failure>>);

/// Before the command.
pub(super) fn as_whole(context: &Context) -> Whole {
    let meant = WHOLE.contains(&context.words.as_str());
    Whole(meant.then(|| settings(context, None)).flatten().map(|settings| {
        let log = AuditLog::open(&settings)?;
        log.changed(&by(&context.words), &[line(context, "begun".to_owned())])?;
        Ok(log)
    }))
}

impl Whole {
    /// Why the command must not begin.
    pub(super) fn may_begin(&self) -> Result<(), Failure> {
        match &self.0 {
            Some(Err(failure)) => Err(failure.clone()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// After it.
    pub(super) fn done(self, context: &Context, result: CommandResult) -> CommandResult {
        let Some(Ok(log)) = self.0 else { return result };
        let outcome = match &result {
            Ok(code) if *code == ExitCode::SUCCESS => "done".to_owned(),
            Ok(_) => "done, and not all is well".to_owned(),
            Err(failure) => failure.what.clone(),
        };
        log.changed(&by(&context.words), &[line(context, outcome)])?;
        result
    }
}

fn line(context: &Context, what: String) -> Changed {
    let operation = if context.words.starts_with("kek") { "kek" } else { "store" };
    Changed { operation, subject: String::new(), certificate: None, what }
}

/// The file of the configuration, and what was moved aside of it.
fn configured(context: &Context) -> Result<Vec<PathBuf>, Failure> {
    let config = super::read_config(&context.config)?;
    let audit = config
        .audit
        .ok_or_else(|| Failure::new("the configuration names no audit log", "name the files, or one under [audit]"))?;
    crate::audit::files(&audit.file).map_err(|error| Failure::new(format!("{}: {error}", audit.file.display()), ""))
}

/// A file, and the number of its first line that is one.
fn begins_at(path: &Path) -> Result<(u64, &Path, File), Failure> {
    let failed =
        |error: io::Error| Failure::new(format!("{}: {error}", path.display()), "name a file that may be read");
    let file = File::open(path).map_err(failed)?;
    let mut reader = BufReader::new(&file);
    let mut line = Vec::new();
    let mut first = None;
    while first.is_none() && next_line(&mut reader, &mut line).map_err(failed)? {
        first = chain::place(&line).map(|(seq, _)| seq);
    }
    drop(reader);
    Ok((first.unwrap_or(u64::MAX), path, File::open(path).map_err(failed)?))
}

/// Reads a line without its end; what is longer than a line may be is cut, so that it is no line of a chain. `false`: there is none.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let most = chain::LINE as u64 + 1;
    if reader.by_ref().take(most).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(true);
    }
    if line.len() as u64 == most {
        // The rest of it.
        loop {
            let buffer = reader.fill_buf()?;
            let (used, ended) = match buffer.iter().position(|octet| *octet == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            reader.consume(used);
            if ended {
                break;
            }
        }
    }
    Ok(true)
}

fn verify(files: Vec<PathBuf>, knows: Option<&str>) -> Result<Summary, Failure> {
    let mut opened = files.iter().map(|file| begins_at(file)).collect::<Result<Vec<_>, _>>()?;
    opened.sort_by_key(|(first, ..)| *first);
    let octets = opened.iter().filter_map(|(.., file)| file.metadata().ok()).map(|data| data.len()).sum();
    let bar = ProgressBar::new(octets);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let (mut verifier, mut seen, mut line) = (Verifier::default(), false, Vec::new());
    for (_, path, file) in opened {
        let name = path.display().to_string();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut number = 0u64;
        let failed = |error: io::Error| Failure::new(format!("{name}: {error}"), "");
        while next_line(&mut reader, &mut line).map_err(failed)? {
            number = number.saturating_add(1);
            seen |= knows.is_some_and(|hash| chain::hash(&line) == hash);
            verifier.line(&name, number, &line);
            bar.inc(line.len() as u64 + 1);
        }
    }
    bar.finish_and_clear();
    Ok(verifier.finish(knows, seen))
}

fn print(summary: &Summary) {
    for fault in summary.faults.iter().take(PRINTED) {
        println!("{}:{}: {}", shown(&fault.file), fault.line, shown(&fault.what));
    }
    if summary.faults.len() > PRINTED {
        println!("and {} more", summary.faults.len() - PRINTED);
    }
    if summary.torn > 0 {
        println!("{} half lines that a crash left, told of by the lines after them", summary.torn);
    }
    if let Some(first) = summary.first.filter(|first| *first > 1) {
        println!("begins with line {first} of the chain: what is before it was not looked at");
    }
    match (&summary.last, summary.faults.is_empty()) {
        (Some((seq, hash)), true) => println!("whole: {} lines; line {seq} has the hash {hash}", summary.lines),
        (None, true) => println!("empty"),
        (_, false) => println!("NOT whole: {} faults in {} lines", summary.faults.len(), summary.lines),
    }
}

fn print_json(summary: &Summary) {
    let faults: Vec<_> = summary
        .faults
        .iter()
        .map(|fault| json!({"file": fault.file, "line": fault.line, "what": fault.what}))
        .collect();
    let (seq, hash) = summary.last.clone().unzip();
    println!(
        "{}",
        json!({
            "whole": summary.faults.is_empty(), "lines": summary.lines, "first": summary.first, "last": seq, "hash": hash,
            "torn": summary.torn, "faults": faults,
        })
    );
}

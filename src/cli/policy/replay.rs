//! `waxwing policy replay`: recorded mail through two configurations, and what would change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::failure;
use super::recorded::{self, Recorded};
use crate::cli::{
    CONFIG, CommandResult, Context, Failure, NOT_GOOD, UNREADABLE, print_table, read_config, runtime, shown,
};
use crate::config::Config;
use crate::relay::pipeline::{Explained, Explainer, Outcome, Question, Weaker};
use crate::store::embedded::EmbeddedStore;

/// Changes shown in the table unless all are asked for.
const SHOWN: usize = 50;

/// Arguments of `policy replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// A folder of recorded mail, or one file: a mail, or an mbox.
    folder: PathBuf,
    /// The configuration in force, which NEW (--config) is compared with; stores may be the same or two.
    #[arg(long, value_name = "FILE", env = "WAXWING_CONFIG", default_value = CONFIG)]
    current: PathBuf,
    /// Where all mails come in; default: what was recorded, else the first listener that takes each.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// At this time (RFC 3339); default: now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Fetch no CRLs and OCSP responses: what is not known stays unknown, on both sides.
    #[arg(long)]
    no_fetch: bool,
    /// Show every change, not the first 50.
    #[arg(long)]
    all: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// One recipient's mail under both.
struct Change {
    mail: String,
    from: String,
    recipient: String,
    old: Side,
    new: Side,
    weaker: Option<Weaker>,
}

/// What one configuration makes of it.
struct Side {
    outcome: Outcome,
    rule: String,
    treatment: String,
}

impl From<Explained> for Side {
    fn from(explained: Explained) -> Self {
        let reply = explained.reply.as_ref().map(|reply| format!(" ({})", super::wire(reply))).unwrap_or_default();
        Self {
            outcome: explained.outcome,
            rule: explained.rule.unwrap_or_default(),
            treatment: format!("{}{reply}", explained.treatment),
        }
    }
}

/// All that was found.
#[derive(Default)]
struct Found {
    mails: usize,
    recipients: usize,
    changes: Vec<Change>,
    /// How often, by old and new outcome.
    pairs: BTreeMap<(String, String), (usize, Option<Weaker>)>,
    unreadable: Vec<(String, String)>,
}

/// Runs the command.
pub(super) fn run(args: ReplayArgs, context: &Context) -> CommandResult {
    if same_file(&args.current, &context.config) {
        return Err(Failure::new(
            format!("{} would be compared with itself", args.current.display()),
            "name the new configuration with --config NEW, and the one in force with --current FILE",
        ));
    }
    let (old, new) = (configuration(&args.current, &args)?, configuration(&context.config, &args)?);
    let old_store = Arc::new(EmbeddedStore::open(&old.store, &old.kek)?);
    let same = same_file(&old.store, &new.store) && old.kek == new.kek;
    let new_store = if same { old_store.clone() } else { Arc::new(EmbeddedStore::open(&new.store, &new.kek)?) };
    let files = recorded::files(&args.folder)?;
    let bar = if files.len() > 1 { ProgressBar::new(files.len() as u64) } else { ProgressBar::no_length() };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} files {msg} {eta}") {
        bar.set_style(style);
    }
    let mut replay = Replay {
        old: Explainer::new(&old, old_store.clone()),
        new: Explainer::new(&new, new_store.clone()),
        listener: args.listener.clone(),
        at: args.at.unwrap_or_else(Timestamp::now),
        runtime: runtime()?,
        found: Found::default(),
    };
    let mut failed = None;
    for file in &files {
        recorded::read(file, |name, recorded| {
            let done = failed.is_none().then(|| replay.take(name, recorded));
            failed = failed.take().or(done.and_then(Result::err));
            bar.set_message(format!("{} mails", replay.found.mails));
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(failed) = failed {
        return Err(failed);
    }
    let mut found = replay.found;
    // The worst first; `None` is the least.
    found.changes.sort_by_key(|change| change.weaker.map_or(u8::MAX, |weaker| weaker as u8));
    report(&found, &args);
    let weaker = found.changes.iter().any(|change| change.weaker.is_some());
    Ok(match (weaker || old_store.alerts() + new_store.alerts() > 0, found.unreadable.is_empty()) {
        (true, _) => ExitCode::from(NOT_GOOD),
        (false, false) => ExitCode::from(UNREADABLE),
        (false, true) => ExitCode::SUCCESS,
    })
}

fn configuration(file: &Path, args: &ReplayArgs) -> Result<Config, Failure> {
    let mut config = read_config(file)?;
    config.fetch.enabled &= !args.no_fetch;
    Ok(config)
}

fn same_file(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

struct Replay<'c> {
    old: Explainer<'c>,
    new: Explainer<'c>,
    listener: Option<String>,
    at: Timestamp,
    runtime: Runtime,
    found: Found,
}

impl Replay<'_> {
    fn take(&mut self, name: String, recorded: Result<Recorded, String>) -> Result<(), Failure> {
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(why) => {
                self.found.unreadable.push((name, why));
                return Ok(());
            }
        };
        self.found.mails += 1;
        let question = || Question {
            listener: self.listener.clone().or_else(|| recorded.listener.clone()),
            peer: recorded.peer,
            reverse_path: recorded.reverse_path.clone(),
            recipients: recorded.recipients.clone(),
            entity: recorded.entity.clone(),
            at: self.at,
        };
        let ask = |explainer: &Explainer<'_>| self.runtime.block_on(explainer.explain(question())).map_err(failure);
        let (old, new) = (ask(&self.old)?, ask(&self.new)?);
        for (old, new) in old.recipients.into_iter().zip(new.recipients) {
            let recipient = old.recipient.to_string();
            let (old, new) = (Side::from(old), Side::from(new));
            let weaker = new.outcome.weaker_than(old.outcome);
            let pair = (old.outcome.to_string(), new.outcome.to_string());
            self.found.recipients += 1;
            self.found.pairs.entry(pair).or_insert((0, weaker)).0 += 1;
            if old.outcome != new.outcome {
                let (mail, from) = (recorded.name.clone(), format!("<{}>", recorded.reverse_path));
                self.found.changes.push(Change { mail, from, recipient, old, new, weaker });
            }
        }
        Ok(())
    }
}

fn report(found: &Found, args: &ReplayArgs) {
    for (mail, why) in &found.unreadable {
        eprintln!("waxwing: {}: {}", shown(mail), shown(why));
    }
    if args.json {
        println!("{:#}", as_json(found));
        return;
    }
    let limit = if args.all { usize::MAX } else { SHOWN };
    let rows: Vec<Vec<String>> = found.changes.iter().take(limit).map(row).collect();
    if !rows.is_empty() {
        print_table(&["LESS PROTECTED", "MAIL", "FROM", "TO", "BEFORE", "NOW", "RULE BEFORE", "RULE NOW"], &rows);
        if let Some(more) = found.changes.len().checked_sub(limit).filter(|more| *more > 0) {
            println!("and {more} more; --all shows them");
        }
        println!("");
    }
    let rows: Vec<Vec<String>> = pairs(found)
        .map(|(old, new, count, weaker)| {
            let note = weaker.map_or("", Weaker::as_str);
            vec![old.to_owned(), new.to_owned(), count.to_string(), note.to_owned()]
        })
        .collect();
    print_table(&["BEFORE", "NOW", "RECIPIENTS", "LESS PROTECTED"], &rows);
    let weaker = found.changes.iter().filter(|change| change.weaker.is_some()).count();
    println!(
        "{} mails to {} recipients: {} change, {weaker} of them less protected; {} mails could not be read",
        found.mails,
        found.recipients,
        found.changes.len(),
        found.unreadable.len()
    );
}

fn row(change: &Change) -> Vec<String> {
    let cells = [
        change.weaker.map_or("", Weaker::as_str),
        &change.mail,
        &change.from,
        &change.recipient,
        &change.old.outcome.to_string(),
        &change.new.outcome.to_string(),
        &change.old.rule,
        &change.new.rule,
    ];
    cells.iter().map(|cell| shown(cell)).collect()
}

/// What becomes worse, then what changes, then what stays.
fn pairs(found: &Found) -> impl Iterator<Item = (&str, &str, usize, Option<Weaker>)> {
    let mut pairs: Vec<_> =
        found.pairs.iter().map(|((old, new), (count, weaker))| (old.as_str(), new.as_str(), *count, *weaker)).collect();
    pairs.sort_by_key(|(old, new, _, weaker)| (weaker.map_or(u8::MAX, |weaker| weaker as u8), old == new));
    pairs.into_iter()
}

fn as_json(found: &Found) -> Value {
    let side =
        |side: &Side| json!({"outcome": side.outcome.to_string(), "rule": side.rule, "treatment": side.treatment});
    let changes = found.changes.iter().map(|change| {
        json!({
            "mail": change.mail, "from": change.from, "recipient": change.recipient, "old": side(&change.old),
            "new": side(&change.new), "less_protected": change.weaker.map(Weaker::as_str),
        })
    });
    let summary = pairs(found).map(|(old, new, count, weaker)| {
        json!({"old": old, "new": new, "recipients": count, "less_protected": weaker.map(Weaker::as_str)})
    });
    let unreadable = found.unreadable.iter().map(|(mail, why)| json!({"mail": mail, "why": why}));
    json!({
        "mails": found.mails, "recipients": found.recipients, "changed": found.changes.len(),
        "less_protected": found.changes.iter().filter(|change| change.weaker.is_some()).count(),
        "changes": changes.collect::<Vec<_>>(), "summary": summary.collect::<Vec<_>>(),
        "unreadable": unreadable.collect::<Vec<_>>(),
    })
}

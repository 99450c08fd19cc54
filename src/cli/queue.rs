//! `waxwing queue`: looks at the mail in the spool, and changes what becomes of it.

/// Tables.
mod print;
/// The gateway at work, or the spool opened here.
mod side;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{CommandResult, Context, Failure, NOT_GOOD, output, read_config};
use crate::admin::protocol::{AT_ONCE, Change, Refused, Request, Which, entry_id};
use crate::config::reader::parse_duration;
use crate::spool::{EntryId, EntryState, Filter};
use side::Side;

/// Arguments of `waxwing queue`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List mails, oldest first.
    #[command(
        after_help = "Examples:\n  waxwing queue list --state held\n  waxwing queue list --next-hop mx.example --older \"1 h\" --json"
    )]
    List {
        #[command(flatten)]
        conditions: Conditions,
        /// So many at most.
        #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
        limit: usize,
        /// Those after this one: how a longer list is gone through.
        #[arg(long, value_name = "ID", value_parser = id)]
        after: Option<EntryId>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Show one mail: envelope, states, attempts, each recipient's last reply, header fields.
    #[command(
        after_help = "Examples:\n  waxwing queue show 0005f00dcafe0001\n  waxwing queue show 0005f00dcafe0001 --content > mail.eml"
    )]
    Show {
        /// The mail.
        #[arg(value_parser = id)]
        id: EntryId,
        /// Print its octets, and nothing else. Mail that was held before policy treated it stays closed: it is in clear.
        #[arg(long, conflicts_with = "json")]
        content: bool,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Count mails and octets by next hop and state, and say how the next hops are.
    #[command(after_help = "Example:\n  waxwing queue stats --json")]
    Stats {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Try waiting mails now.
    #[command(
        after_help = "Examples:\n  waxwing queue retry 0005f00dcafe0001\n  waxwing queue retry --next-hop mx.example\n  waxwing queue retry --all"
    )]
    Retry(Changing),
    /// Keep mails until they are released.
    #[command(after_help = "Example:\n  waxwing queue hold --sender @odd.example --why \"asked the sender\"")]
    Hold {
        #[command(flatten)]
        changing: Changing,
        /// What the list says of why.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Let held mails go. Outbound mail that policy has not treated goes by policy as it is now: who still cannot be served stays held.
    ///
    /// Exit status: 0 all of them, 1 not all, 2 none could be asked for.
    #[command(
        after_help = "Examples:\n  waxwing queue release 0005f00dcafe0001\n  waxwing queue release --recipient @partner.example"
    )]
    Release(Changing),
    /// Remove mails for good; nobody is told.
    #[command(
        after_help = "Examples:\n  waxwing queue delete 0005f00dcafe0001\n  waxwing queue delete --state held --older \"30 days\" --yes"
    )]
    Delete {
        #[command(flatten)]
        changing: Changing,
        /// Yes, all for which the conditions hold.
        #[arg(long)]
        yes: bool,
    },
    /// Take over the spool of another node that is gone for good: its mails are mails of this spool afterwards. After an error or a
    /// crash it is repeated.
    #[command(after_help = "Example:\n  waxwing queue adopt /mnt/node2/spool --kek /mnt/node2/kek")]
    Adopt {
        /// The folder of the other node's spool, which nobody uses.
        folder: PathBuf,
        /// The file of the other node's key-encryption key; default: the same as ours.
        #[arg(long, value_name = "FILE")]
        kek: Option<PathBuf>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
}

/// Which mails; all that is said must hold.
#[derive(Debug, Clone, Default, clap::Args)]
struct Conditions {
    /// Where they stand: waiting, delivering, held.
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<EntryState>,
    /// Their next hop: HOST or HOST:PORT.
    #[arg(long, value_name = "HOST")]
    next_hop: Option<String>,
    /// The sender in the envelope: an address, @DOMAIN, or <>.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// One of the recipients: an address or @DOMAIN.
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// In the queue for at least so long, such as "30 min", 1h, "5 days".
    #[arg(long, value_name = "TIME", value_parser = time)]
    older: Option<Duration>,
    /// In the queue for at most so long.
    #[arg(long, value_name = "TIME", value_parser = time)]
    younger: Option<Duration>,
}

/// What is changed.
#[derive(Debug, Clone, clap::Args)]
struct Changing {
    /// The mails.
    #[arg(value_name = "ID", value_parser = id)]
    ids: Vec<EntryId>,
    #[command(flatten)]
    conditions: Conditions,
    /// Every mail that this can be done with.
    #[arg(long)]
    all: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

fn id(text: &str) -> Result<EntryId, String> {
    entry_id(text).map_err(|error| format!("{}; {}", error.what, error.hint))
}

fn state(text: &str) -> Result<EntryState, String> {
    text.parse()
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a time such as \"30 min\", 1h, \"5 days\"".into())
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Failure::new(refused.what, refused.hint)
    }
}

impl Conditions {
    fn filter(&self, now: Timestamp) -> Filter {
        let ago = |time: Option<Duration>| time.map(|time| now.checked_sub(time).unwrap_or(Timestamp::MIN));
        Filter {
            state: self.state,
            next_hop: self.next_hop.clone(),
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            created_until: ago(self.older),
            created_from: ago(self.younger),
        }
    }
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    let config = read_config(&context.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("the runtime cannot start: {error}"), ""))?;
    runtime.block_on(async {
        let adopting = matches!(args.command, Command::Adopt { .. });
        let mut side = Side::find(config, adopting).await?;
        match args.command {
            Command::List { conditions, limit, after, json } => {
                list(&mut side, &conditions.filter(Timestamp::now()), limit, after, json).await
            }
            Command::Show { id, content, json } => show(&mut side, id, content, json).await,
            Command::Stats { json } => {
                let stats = side.ask(Request::Stats).await?;
                if json {
                    println!("{stats:#}")
                } else {
                    print::stats(&stats, Timestamp::now())
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Retry(changing) => change(&mut side, Change::Retry, changing, None).await,
            Command::Hold { changing, why } => change(&mut side, Change::Hold, changing, why).await,
            Command::Release(changing) => change(&mut side, Change::Release, changing, None).await,
            Command::Delete { changing, yes } => {
                if !yes && changing.ids.is_empty() {
                    let hint = "look with `waxwing queue list` and the same conditions, then say --yes";
                    return Err(Failure::new("deleting by conditions is for good, and nobody is told", hint));
                }
                change(&mut side, Change::Delete, changing, None).await
            }
            Command::Adopt { folder, kek, json } => adopt(&mut side, folder, kek, json).await,
        }
    })
}

async fn list(side: &mut Side, filter: &Filter, limit: usize, mut after: Option<EntryId>, json: bool) -> CommandResult {
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let most = limit.saturating_sub(entries.len()).min(AT_ONCE);
        if most == 0 {
            break;
        }
        let page = side.ask(Request::List { filter: filter.clone(), after, most }).await?;
        entries.extend(page.get("entries").and_then(Value::as_array).cloned().unwrap_or_default());
        after = next_of(&page)?;
        if after.is_none() {
            break;
        }
    }
    if json {
        println!("{:#}", json!({"entries": entries, "next": after.map(|id| id.to_string())}));
    } else {
        print::list(&entries, Timestamp::now());
        if let Some(after) = after {
            eprintln!("waxwing: there may be more: --after {after}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn next_of(page: &Value) -> Result<Option<EntryId>, Failure> {
    Ok(page.get("next").and_then(Value::as_str).map(entry_id).transpose()?)
}

async fn show(side: &mut Side, id: EntryId, content: bool, json: bool) -> CommandResult {
    if content {
        output::octets(&side.content(id).await?);
        return Ok(ExitCode::SUCCESS);
    }
    let entry = side.ask(Request::Show(id)).await?;
    if json {
        println!("{entry:#}")
    } else {
        print::entry(&entry, Timestamp::now())
    }
    Ok(ExitCode::SUCCESS)
}

/// By ids, or by conditions in pages; those that come meanwhile are not meant.
async fn change(side: &mut Side, what: Change, changing: Changing, why: Option<String>) -> CommandResult {
    let Changing { ids, conditions, all, json } = changing;
    let mut filter = conditions.filter(Timestamp::now());
    if ids.is_empty() && filter.is_empty() && !all {
        return Err(Failure::new("which mails?", "name ids, conditions, or --all"));
    }
    if !ids.is_empty() && (!filter.is_empty() || all) {
        return Err(Failure::new("both ids and conditions", "name either"));
    }
    filter.created_until.get_or_insert(Timestamp::now());
    filter.state = filter.state.or(match what {
        Change::Retry => Some(EntryState::Waiting),
        Change::Release => Some(EntryState::Held),
        Change::Hold | Change::Delete => None,
    });
    let bar = progress();
    let mut changed: Vec<Value> = Vec::new();
    let mut requests: Vec<Which> = ids.chunks(AT_ONCE).rev().map(|some| Which::Ids(some.to_vec())).collect();
    if requests.is_empty() {
        requests.push(Which::Filter(filter.clone(), None));
    }
    while let Some(which) = requests.pop() {
        let answer = side.ask(Request::Change { what, which, why: why.clone() }).await?;
        changed.extend(answer.get("changed").and_then(Value::as_array).cloned().unwrap_or_default());
        bar.set_position(changed.len() as u64);
        if let Some(after) = next_of(&answer)? {
            requests.push(Which::Filter(filter.clone(), Some(after)));
        }
    }
    bar.finish_and_clear();
    let good = changed.iter().all(|one| one.get("done").and_then(Value::as_bool) == Some(true));
    if json {
        println!("{:#}", json!({"changed": changed}))
    } else {
        print::changed(what, &changed)
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

async fn adopt(side: &mut Side, folder: PathBuf, kek: Option<PathBuf>, json: bool) -> CommandResult {
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(|error| Failure::new(format!("{}: {error}", path.display()), ""))
    };
    let (folder, kek) = (absolute(folder)?, kek.map(absolute).transpose()?);
    let bar = progress();
    bar.set_message("taking over");
    bar.enable_steady_tick(Duration::from_millis(100));
    let adopted = side.ask(Request::Adopt { folder: folder.clone(), kek }).await;
    bar.finish_and_clear();
    let adopted = adopted?;
    let left = adopted.get("left").and_then(Value::as_array).cloned().unwrap_or_default();
    if json {
        println!("{adopted:#}");
    } else {
        let number = |key| adopted.get(key).and_then(Value::as_u64).unwrap_or_default();
        println!("{} mails, {} octets are in this spool now", number("entries"), number("octets"));
        for what in &left {
            println!("left in {}: {}", folder.display(), super::shown(what.as_str().unwrap_or_default()));
        }
    }
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {pos} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

//! `waxwing load`: sends mail to any SMTP server, takes it in at a sink, and accounts for every one.

/// What flags change in a scenario.
mod change;
/// Two reports side by side.
mod compare;
/// A gateway for one run.
mod gateway;
/// `waxwing load people`.
mod people;
/// How a run goes.
mod progress;
/// A report as tables.
mod tell;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use tokio::sync::watch;

use super::{CommandResult, Context, Failure, NOT_GOOD, print_table, shown};
use crate::load::generator::{Phase, Target, TargetError};
use crate::load::measure::Recorder;
use crate::load::report::{Circumstances, Machine, Report, page};
use crate::load::run::{Setup, prepared};
use crate::load::scenario::{self, Scenario};
use change::Change;
use gateway::OwnGateway;
use progress::Progress;

/// Arguments of `waxwing load`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The server that gets the mail. Without it, a Waxwing gateway is started for the run, with a store of its own in a temporary folder.
    #[arg(long, value_name = "HOST:PORT")]
    target: Option<String>,
    /// Listen here for what the target hands on: a port of 127.0.0.1, or ADDRESS:PORT. Without it the account ends with the answers.
    #[arg(long, value_name = "PORT", value_parser = sink_address)]
    sink: Option<SocketAddr>,
    /// A TOML file (docs/scenario.toml has every key), or a name out of `waxwing load scenarios`.
    #[arg(long, value_name = "FILE|NAME", default_value = "quick")]
    scenario: String,
    /// The target has a public address, and it is yours or you are asked to test it.
    #[arg(long)]
    i_own_the_target: bool,
    /// Measure the processor time and the memory of this process and its children; may be given again.
    #[arg(long, value_name = "[NAME=]PID", value_parser = process)]
    pid: Vec<(String, u32)>,
    /// Print the report as JSON: for `waxwing load compare`, and for programs.
    #[arg(long)]
    json: bool,
    /// Write the report as a page to look at: one file that needs no network.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make people with certificates and keys, as files that any gateway imports.
    #[command(
        after_help = "Example:\n  waxwing load people lab --made 20 --ours example.org --theirs partner.example\n  waxwing load --people lab --target 127.0.0.1:2525 --sink 10025 --scenario office"
    )]
    People(people::Args),
    /// List the scenarios that come with the program; with a name, print that one's file.
    #[command(after_help = "Example:\n  waxwing load scenarios office > my.toml")]
    Scenarios {
        /// One of them.
        name: Option<String>,
    },
    /// Compare two reports that --json printed.
    #[command(
        after_help = "Example:\n  waxwing load --json >a.json\n  waxwing load --json --connections 40 >b.json\n  waxwing load compare a.json b.json --report both.html"
    )]
    Compare(compare::Args),
}

fn sink_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        _ => text.parse().map_err(|_| "expected a port from 1 to 65535, or ADDRESS:PORT".into()),
    }
}

fn process(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').unwrap_or((text, text));
    let pid: u32 = pid.parse().map_err(|_| "expected a process id, or NAME=PID".to_owned())?;
    match std::path::Path::new(&format!("/proc/{pid}")).exists() {
        true => Ok((name.to_owned(), pid)),
        false => Err(format!("there is no process {pid}")),
    }
}

/// Runs the command. Exit status: 0 good, 1 faults were found or no mail was taken, 2 it could not run.
pub fn run(args: Args, _context: &Context) -> CommandResult {
    match &args.command {
        Some(Command::Scenarios { name }) => scenarios(name.as_deref()),
        Some(Command::People(args)) => people::run(args),
        Some(Command::Compare(args)) => compare::run(args),
        None => {
            args.report.as_deref().map_or(Ok(()), can_be_written)?;
            let scenario = args.change.apply(read(&args.scenario)?)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(format!("the runtime cannot start: {error}"), ""))?;
            let ended = runtime.block_on(load(&args, scenario));
            runtime.shutdown_background();
            ended
        }
    }
}

fn scenarios(name: Option<&str>) -> CommandResult {
    let Some(name) = name else {
        let rows: Vec<Vec<String>> = scenario::shipped()
            .iter()
            .map(|one| {
                let about = scenario::parse(one.text, one.name).map(|scenario| scenario.about).unwrap_or_default();
                vec![one.name.to_owned(), about]
            })
            .collect();
        print_table(&["name", "what"], &rows);
        return Ok(ExitCode::SUCCESS);
    };
    let found = scenario::shipped().iter().find(|one| one.name == name);
    let found = found.ok_or_else(|| Failure::new(format!("no scenario {name:?} is shipped"), names()))?;
    println!("{}", found.text.trim_end());
    Ok(ExitCode::SUCCESS)
}

fn names() -> String {
    let names: Vec<&str> = scenario::shipped().iter().map(|one| one.name).collect();
    format!("shipped: {}", names.join(", "))
}

/// A shipped scenario by name, else a file.
fn read(wanted: &str) -> Result<Scenario, Failure> {
    let shipped = scenario::shipped().iter().find(|one| one.name == wanted);
    let text = match shipped {
        Some(one) => one.text.to_owned(),
        None => std::fs::read_to_string(PathBuf::from(wanted)).map_err(|error| {
            Failure::new(
                format!(
                    "the scenario {wanted} is no file that can be read ({error}), and none is shipped under that name"
                ),
                names(),
            )
        })?,
    };
    scenario::parse(&text, wanted).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::new(lines.join("\n"), "docs/scenario.toml has every key")
    })
}

async fn load(args: &Args, scenario: Scenario) -> CommandResult {
    let sink = match (args.sink, &args.target) {
        (None, None) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port()?)),
        (sink, _) => sink,
    };
    let (people, making) = people::of(&scenario).await?;
    let mails = prepared(&scenario, Some(Arc::clone(&people)), making).await.map_err(|why| Failure::new(why, ""))?;
    mails.notes().iter().for_each(|note| eprintln!("waxwing: {}", shown(note)));
    let own = match (&args.target, sink) {
        (None, Some(sink)) => Some(OwnGateway::start(&scenario, &people, sink)?),
        _ => None,
    };
    let name = args.target.clone().or(own.as_ref().map(|own| own.address().to_string())).unwrap_or_default();
    let target = Target::find(&name, args.i_own_the_target).await.map_err(|error| {
        let hint = match error {
            TargetError::Public { .. } => "if it is yours, say so: --i-own-the-target",
            _ => "",
        };
        Failure::new(error.to_string(), hint)
    })?;
    let (phase, going) = watch::channel(Phase::Going);
    tokio::spawn(signals(phase));
    let mut processes = args.pid.clone();
    processes.extend(own.as_ref().map(|own| ("waxwing".to_owned(), own.pid())));
    let began = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let circumstances = Circumstances {
        began,
        target: own.as_ref().map_or(name.clone(), |_| format!("{name}, a gateway of its own")),
        sink: sink.map(|sink| sink.to_string()),
        machine: Machine::this(),
    };
    let recorder = Arc::new(Recorder::new());
    let progress = Progress::start(Arc::clone(&recorder), &scenario);
    let setup = Setup { scenario: scenario.clone(), mails, target, sink, processes };
    let outcome = crate::load::run::measured(setup, going, recorder).await.map_err(|why| Failure::new(why, ""));
    drop(progress);
    tell(args, &Report::of(&outcome?, &scenario, circumstances))
}

/// Says before a run, which may be long, whether its page could be written after it; leaves nothing behind.
fn can_be_written(file: &Path) -> Result<(), Failure> {
    let is_new = !file.exists();
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
    opened.map_err(|error| Failure::new(format!("the page {} cannot be written: {error}", file.display()), ""))?;
    if is_new {
        // It is written later; a run that fails leaves none.
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

fn tell(args: &Args, report: &Report) -> CommandResult {
    if args.json {
        println!("{:#}", report.to_json());
    } else {
        tell::report(report);
    }
    if let Some(file) = &args.report {
        compare::write(file, &page(report))?;
    }
    Ok(if report.good { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

/// A port that nobody has. Somebody may take it before our sink does: then the run says so.
fn free_port() -> Result<u16, Failure> {
    let found = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    found
        .map(|address| address.port())
        .map_err(|error| Failure::new(format!("no free port: {error}"), "name one with --sink"))
}

/// The first signal stops the sending, the second ends what is under way, and the wait for arrivals.
async fn signals(phase: watch::Sender<Phase>) {
    for (next, words) in [
        (Phase::Stopping, "stopping: what was sent is waited for; again: stop waiting"),
        (Phase::Aborted, "stopping at once"),
    ] {
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        eprintln!("waxwing: {words}");
        let _ = phase.send(next);
    }
    std::future::pending::<()>().await;
}

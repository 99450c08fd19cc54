//! `waxwing load people`, and the people of a run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::change::KEY_TYPES;
use crate::address::Domain;
use crate::cli::{CommandResult, Failure};
use crate::load::mails::Progress;
use crate::load::mails::people::{DOMAINS, People};
use crate::load::scenario::Scenario;

/// What takes less is not worth a bar.
const SOON: Duration = Duration::from_millis(300);

/// Arguments of `waxwing load people`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder that does not exist yet.
    folder: PathBuf,
    /// How many of each side.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    made: u32,
    /// Key types in turn.
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',', default_values = KEY_TYPES, value_parser = KEY_TYPES)]
    keys: Vec<String>,
    /// Domain of those behind the gateway under test: it gets their private keys.
    #[arg(long, value_name = "DOMAIN", default_value = DOMAINS.0, value_parser = domain)]
    ours: Domain,
    /// Domain of the others: it gets their certificates.
    #[arg(long, value_name = "DOMAIN", default_value = DOMAINS.1, value_parser = domain)]
    theirs: Domain,
}

fn domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| error.to_string())
}

/// Makes and writes them.
pub(super) fn run(args: &Args) -> CommandResult {
    let failed = |why| Failure::new(why, "");
    if args.folder.exists() {
        return Err(Failure::new(format!("{} is there already", args.folder.display()), "name a new folder"));
    }
    if args.ours == args.theirs {
        return Err(Failure::new("both sides have the same domain", "give --ours and --theirs different ones"));
    }
    let progress = bar();
    let people = People::made(args.made, &args.keys, &args.ours, &args.theirs, &*progress).map_err(failed)?;
    people.write(&args.folder, &*progress).map_err(failed)?;
    println!(
        "{}: {} people of {} and {} of {}; README.md says what to import where",
        args.folder.display(),
        args.made,
        args.ours,
        args.made,
        args.theirs
    );
    Ok(ExitCode::SUCCESS)
}

/// The people of a scenario, and who hears how far the rest of the making is.
pub(super) async fn of(scenario: &Scenario) -> Result<(Arc<People>, Arc<Progress<'static>>), Failure> {
    let (scenario, progress) = (scenario.clone(), bar());
    let hears = Arc::clone(&progress);
    let making = tokio::task::spawn_blocking(move || People::new(&scenario, &*hears));
    let people = making.await.map_err(|error| Failure::new(format!("the people cannot be made: {error}"), ""))?;
    Ok((Arc::new(people.map_err(|why| Failure::new(why, ""))?), progress))
}

/// A bar for what is made ahead of time; it shows itself only where that takes long.
fn bar() -> Arc<Progress<'static>> {
    let bar = ProgressBar::hidden();
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}") {
        bar.set_style(style);
    }
    let began = std::time::Instant::now();
    Arc::new(move |what: &str, done: usize, of: usize| {
        if bar.is_hidden() && done < of && began.elapsed() > SOON {
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        bar.set_length(of as u64);
        bar.set_message(what.to_owned());
        bar.set_position(done as u64);
        if done == of && !bar.is_hidden() {
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
    })
}

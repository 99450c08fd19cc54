//! `waxwing load compare`: two reports side by side.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{CommandResult, Failure, print_table, shown};
use crate::load::report::compare::Comparison;
use crate::load::report::{self, Report, comparison, show};

/// Arguments of `waxwing load compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What `waxwing load --json` printed.
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// The same of another run, which is divided by the first.
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Draw both on a page.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let compared = Comparison::of(&a, &b);
    let names = [&args.a, &args.b].map(|file| file.display().to_string());
    if args.json {
        println!("{:#}", compared.to_json([&names[0], &names[1]]));
    } else {
        print(&compared, [(&names[0], &a), (&names[1], &b)]);
    }
    if let Some(file) = &args.report {
        write(file, &comparison(&a, &b))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<Report, Failure> {
    let hint = "a report is what `waxwing load --json` prints";
    let octets = super::super::read_file(file).map_err(|failure| Failure::new(failure.what, hint))?;
    report::parse(&octets, &file.display().to_string()).map_err(|error| Failure::new(shown(&error.to_string()), hint))
}

/// Writes a page.
pub fn write(file: &Path, page: &str) -> Result<(), Failure> {
    std::fs::write(file, page)
        .map_err(|error| Failure::new(format!("the page {} cannot be written: {error}", file.display()), ""))
}

fn print(compared: &Comparison, both: [(&String, &Report); 2]) {
    for (letter, (file, report)) in ["A", "B"].into_iter().zip(both) {
        let verdict = match (report.good, report.faults.count) {
            (true, _) => "good".to_owned(),
            (false, 0) => "no mail was taken".to_owned(),
            (false, count) => format!("{} faults", show::count(count)),
        };
        println!("{letter}: {} ({}, {}): {verdict}", shown(file), shown(&report.name), shown(&report.began));
    }
    println!("");
    let rows: Vec<Vec<String>> = compared
        .rows
        .iter()
        .map(|row| vec![shown(&row.name), row.shown(row.a), row.shown(row.b), row.shown_ratio()])
        .collect();
    print_table(&["figure", "A", "B", "B by A"], &rows);
    println!("");
    if compared.differs.is_empty() {
        println!("all settings are the same");
        return;
    }
    let value = |value: &Option<String>| value.as_deref().map_or_else(|| "–".into(), shown);
    let rows: Vec<Vec<String>> =
        compared.differs.iter().map(|one| vec![shown(&one.key), value(&one.a), value(&one.b)]).collect();
    print_table(&["differs", "A", "B"], &rows);
}

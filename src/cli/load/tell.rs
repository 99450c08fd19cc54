//! A report as tables.

use crate::cli::{print_table, shown};
use crate::load::measure::Stage;
use crate::load::report::{Report, process_row, show, stage_row};

/// Faults that are printed one by one.
const FAULTS_SHOWN: usize = 20;

/// Prints what was found.
pub fn report(report: &Report) {
    let sending = &report.sending;
    println!(
        "{}: {} mails in {}: {}/s taken, {}/s of content; answered p50 {}, p99 {}",
        shown(&report.name),
        show::count(sending.mails),
        show::micros(sending.took),
        show::number(report.rate()),
        show::octets(report.octet_rate()),
        show::micros(report.stage(Stage::Answer).p50),
        show::micros(report.stage(Stage::Answer).p99),
    );
    println!("");
    let stages =
        Stage::ALL.into_iter().map(|stage| (stage, report.stage(stage))).filter(|(_, spread)| spread.count > 0);
    let rows: Vec<Vec<String>> = stages.map(|(stage, spread)| stage_row(stage, spread)).collect();
    print_table(&["latency", "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"], &rows);
    println!("");
    let rows: Vec<Vec<String>> = report
        .processes
        .iter()
        .map(|usage| process_row(report, usage).into_iter().map(|cell| shown(&cell)).collect())
        .collect();
    print_table(&["process", "pid", "user", "system", "CPU per mail", "peak RSS"], &rows);
    println!("");
    if let Some(knee) = &report.knee {
        let rate = |thousandths: Option<u64>| match thousandths {
            Some(thousandths) => format!("{}/s", show::number(show::float(thousandths) / 1e3)),
            None => "none".into(),
        };
        let (good, bad, bound) = (rate(knee.rate), rate(knee.too_much), show::micros(knee.bound));
        println!("knee: highest good rate {good}, lowest that was too much {bad}, p99 up to {bound}");
    }
    if sending.overdue > 0 {
        println!("{} mails fell due and were not begun", show::count(sending.overdue));
    }
    let counts = report.account_in_order().into_iter();
    let counts: Vec<String> = counts
        .filter(|(name, count)| *count > 0 || ["sent", "taken", "delivered"].contains(name))
        .map(|(name, count)| format!("{} {}", shown(&name.replace('_', " ")), show::count(count)))
        .collect();
    println!("{}", counts.join(", "));
    faults(report);
}

fn faults(report: &Report) {
    let faults = &report.faults;
    let kinds: Vec<String> =
        faults.kinds.iter().map(|(kind, count)| format!("{} {}", show::count(*count), shown(kind))).collect();
    match (faults.count, report.good) {
        (0, true) => println!("good: no fault"),
        (0, false) => println!("not good: no mail was taken"),
        (count, _) => println!("not good: {} faults: {}", show::count(count), kinds.join(", ")),
    }
    for fault in faults.listed.iter().take(FAULTS_SHOWN) {
        let id = fault.id.as_deref().unwrap_or("stranger");
        println!("  {} {} {} {}", shown(&fault.what), shown(id), shown(&fault.recipient), shown(&fault.why));
    }
    if faults.count > FAULTS_SHOWN as u64 {
        println!("  … and {} more: --json lists them", show::count(faults.count - FAULTS_SHOWN as u64));
    }
}

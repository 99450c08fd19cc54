//! Tables and tiles.

use super::escape;
use crate::load::measure::{Spread, Stage};
use crate::load::report::compare::Comparison;
use crate::load::report::{Faults, Report, show};

/// Faults that a page lists.
const SHOWN: usize = 200;

/// A card with a heading.
pub(super) fn section(title: &str, about: &str, inner: &str) -> String {
    let about = if about.is_empty() { String::new() } else { format!("<p>{}</p>", escape(about)) };
    format!("<section><h2>{}</h2>{about}\n{inner}</section>\n", escape(title))
}

/// A table; the first cell of a row is its heading. `class` is one of the page's.
fn table(class: &str, heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = format!("<div class=\"scroll\"><table class=\"{class}\">");
    if !heading.is_empty() {
        let cells: String = heading.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escape(cell))).collect();
        html.push_str(&format!("<thead><tr>{cells}</tr></thead>\n"));
    }
    html.push_str("<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (number, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            html.push_str(&if number == 0 {
                format!("<th scope=\"row\">{cell}</th>")
            } else {
                format!("<td>{cell}</td>")
            });
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// The same over the whole page.
fn wide(title: &str, about: &str, inner: &str) -> String {
    section(title, about, inner).replacen("<section>", "<section class=\"wide\">", 1)
}

/// Names and values.
pub(super) fn list(title: &str, about: &str, pairs: impl Iterator<Item = (String, String)>) -> String {
    let rows: Vec<Vec<String>> = pairs.map(|(name, value)| vec![name, value]).collect();
    section(title, about, &table("texts", &[], &rows))
}

/// The figures that are looked at first.
pub(super) fn tiles(report: &Report) -> String {
    let answer = report.stage(Stage::Answer);
    let mut tiles = vec![
        (
            format!("{}/s", show::number(report.rate())),
            "mails taken",
            format!("{} in {}", show::count(report.taken()), show::micros(report.sending.took)),
        ),
        (show::micros(answer.p50), "answer p50", "from due to answered".to_owned()),
        (show::micros(answer.p99), "answer p99", format!("p99.9 {}", show::micros(answer.p99_9))),
    ];
    let delivery = report.stage(Stage::Delivery);
    if delivery.count > 0 {
        let rate = format!("{} at {}/s", show::count(delivery.count), show::number(report.delivered_rate()));
        tiles.push((show::micros(delivery.p99), "delivery p99", rate));
    }
    tiles.push((
        format!("{}/s", show::octets(report.octet_rate())),
        "contents taken",
        show::octets(show::float(report.octets)),
    ));
    if let Some(rate) = report.knee.as_ref().map(|knee| knee.rate) {
        let rate = rate.map_or_else(|| "none".into(), |rate| format!("{}/s", show::number(show::float(rate) / 1e3)));
        tiles.push((rate, "knee", "the highest good rate".into()));
    }
    for usage in report.processes.iter().filter(|usage| usage.name != "lab").take(2) {
        if let Some(per_mail) = report.cpu_per_mail(usage) {
            tiles.push((show::mean_micros(per_mail), "CPU per mail", usage.name.clone()));
        }
    }
    let mut html = String::from("<div class=\"tiles\">\n");
    for (figure, name, more) in tiles {
        let (figure, name, more) = (escape(&figure), escape(name), escape(&more));
        html.push_str(&format!("<div class=\"tile\"><span>{name}</span><b>{figure}</b><small>{more}</small></div>\n"));
    }
    html.push_str("</div>\n");
    html
}

pub(super) fn percentiles(report: &Report) -> String {
    let stages =
        Stage::ALL.into_iter().map(|stage| (stage, report.stage(stage))).filter(|(_, spread)| spread.count > 0);
    let rows: Vec<Vec<String>> = stages.map(|(stage, spread)| stage_row(stage, spread)).collect();
    let heading = ["stage", "count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    wide(
        "Latency by stage",
        "connect: a new connection; the others from when a mail was due",
        &table("", &heading, &rows),
    )
}

/// A stage's name, count, mean, percentiles and maximum.
pub fn stage_row(stage: Stage, spread: &Spread) -> Vec<String> {
    let mut row = vec![stage.name().to_owned(), show::count(spread.count), show::micros(spread.mean)];
    row.extend(spread.named().map(|(_, micros)| show::micros(micros)));
    row
}

pub(super) fn processes(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report.processes.iter().map(|usage| process_row(report, usage)).collect();
    section(
        "Processes",
        "with their children; the lab itself alone",
        &table("", &["name", "pid", "user", "system", "CPU per mail", "peak RSS"], &rows),
    )
}

/// A process' name, number, times, time per mail and memory.
pub fn process_row(report: &Report, usage: &crate::load::measure::process::Usage) -> Vec<String> {
    vec![
        usage.name.clone(),
        usage.pid.to_string(),
        show::micros(usage.user),
        show::micros(usage.system),
        report.cpu_per_mail(usage).map_or_else(|| "–".into(), show::mean_micros),
        show::octets(show::float(usage.peak_rss)),
    ]
}

pub(super) fn trials(report: &Report) -> String {
    let Some(knee) = &report.knee else { return String::new() };
    let rate = |thousandths: u64| format!("{}/s", show::number(show::float(thousandths) / 1e3));
    let row = |trial: &crate::load::report::Tried| {
        let verdict = if trial.good { "good" } else { "too much" };
        vec![rate(trial.rate), rate(trial.answered), show::micros(trial.p99), show::count(trial.failed), verdict.into()]
    };
    let rows: Vec<Vec<String>> = knee.trials.iter().map(row).collect();
    let about = format!("p99 up to {}", show::micros(knee.bound));
    section("Rates tried", &about, &table("", &["offered", "answered", "p99", "failed", ""], &rows))
}

pub(super) fn faults(faults: &Faults) -> String {
    let kinds: Vec<String> =
        faults.kinds.iter().map(|(kind, count)| format!("{} {kind}", show::count(*count))).collect();
    let mut about = kinds.join(", ");
    if faults.count > SHOWN.min(faults.listed.len()) as u64 {
        about.push_str(&format!("; the first {} of {}", SHOWN.min(faults.listed.len()), show::count(faults.count)));
    }
    let rows = faults.listed.iter().take(SHOWN).map(|fault| {
        let id = fault.id.clone().unwrap_or_else(|| "a stranger".into());
        vec![id, fault.what.clone(), fault.recipient.clone(), fault.why.clone()]
    });
    let inner = table("texts", &["mail", "fault", "recipient", "why"], &rows.collect::<Vec<_>>());
    wide("Faults", &about, &inner)
}

/// How a run was made.
pub(super) fn run(report: &Report) -> impl Iterator<Item = (String, String)> {
    let (sending, machine) = (&report.sending, &report.machine);
    [
        ("sink", report.sink.clone().unwrap_or_else(|| "none: the account ends with the answers".into())),
        ("sending took", show::micros(sending.took)),
        ("mails sent", show::count(sending.mails)),
        ("due and not begun", show::count(sending.overdue)),
        (
            "connections",
            format!("{}, of which {} broke or failed", show::count(sending.connections), show::count(sending.broken)),
        ),
        ("cores", machine.cores.to_string()),
        ("processor", machine.processor.clone()),
        ("memory", show::octets(show::float(machine.memory))),
        ("kernel", machine.kernel.clone()),
        ("waxwing", report.version.clone()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
}

/// Figures of two runs.
pub(super) fn figures(compared: &Comparison) -> String {
    let mut html = String::from("<div class=\"scroll\"><table><thead><tr>");
    for heading in ["", "A", "B", "B by A"] {
        html.push_str(&format!("<th scope=\"col\">{heading}</th>"));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in &compared.rows {
        let class = match row.better() {
            Some(true) => " class=\"better\"",
            Some(false) => " class=\"worse\"",
            None => "",
        };
        let cells = [&row.name, &row.shown(row.a), &row.shown(row.b), &row.shown_ratio()].map(|cell| escape(cell));
        let [name, a, b, ratio] = cells;
        html.push_str(&format!(
            "<tr><th scope=\"row\">{name}</th><td>{a}</td><td>{b}</td><td{class}>{ratio}</td></tr>\n"
        ));
    }
    html.push_str("</tbody></table></div>\n");
    section("Figures", "coloured where they differ by more than 5 %", &html)
}

/// What is not the same in both.
pub(super) fn differing(compared: &Comparison) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".into());
    let rows: Vec<Vec<String>> =
        compared.differs.iter().map(|one| vec![one.key.clone(), shown(&one.a), shown(&one.b)]).collect();
    let about = if rows.is_empty() { "all settings are the same" } else { "settings that are not the same in both" };
    section("Settings", about, &table("texts", &["", "A", "B"], &rows))
}

//! Reports to HTML: one page, without a script, that asks nobody for anything.
//!
//! Whatever comes from outside goes through [`escape`]; the page's own policy (CSP) lets nothing run and nothing be fetched should that
//! ever fail.

/// Tables and tiles.
mod parts;

use super::chart::Chart;
use super::compare::Comparison;
use super::{Report, draw};
use parts::{faults, figures, list, percentiles, processes, section, tiles, trials};
pub use parts::{process_row, stage_row};

const STYLE: &str = include_str!("page/style.css");
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";
/// Sizes of a chart on a screen and on a telephone.
const BROAD: (f64, f64) = (580.0, 240.0);
const NARROW: (f64, f64) = (350.0, 210.0);

/// Text as HTML, in an element or in a quoted attribute: nothing in it is markup, control characters (bidirectional ones included) are
/// written out.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in crate::cli::shown(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A page of one run.
pub fn page(report: &Report) -> String {
    let verdict = match (report.good, report.faults.count) {
        (true, _) => "<span class=\"verdict good\">good: every mail accounted for</span>".to_owned(),
        (false, 0) => "<span class=\"verdict bad\">no mail was taken</span>".to_owned(),
        (false, 1) => "<span class=\"verdict bad\">1 fault</span>".to_owned(),
        (false, count) => format!("<span class=\"verdict bad\">{} faults</span>", super::show::count(count)),
    };
    let mut body = format!("<header><h1>{}</h1>{verdict}", escape(&report.name));
    if !report.about.is_empty() {
        body.push_str(&format!("<p>{}</p>", escape(&report.about)));
    }
    let stopped = if report.sending.stopped { " · stopped before its bound" } else { "" };
    body.push_str(&format!("<p>{} · {}{stopped}</p></header>\n", escape(&report.target), escape(&report.began)));
    body.push_str(&tiles(report));
    if report.faults.count > 0 {
        body.push_str(&format!("<div class=\"charts\">{}</div>\n", faults(&report.faults)));
    }
    body.push_str(&charts(&draw::of(report)));
    body.push_str("<div class=\"tables\">\n");
    body.push_str(&percentiles(report));
    body.push_str(&processes(report));
    body.push_str(&trials(report));
    let account = report.account_in_order().into_iter();
    let account = account.map(|(name, count)| (name.replace('_', " "), super::show::count(count)));
    body.push_str(&list("Account", "by mail and recipient", account));
    let settings = report.settings.iter().map(|(key, value)| (key.clone(), value.clone()));
    body.push_str(&list("Settings", "by the keys of a scenario", settings));
    body.push_str(&list("Run", "", parts::run(report)));
    body.push_str("</div>\n");
    whole(&format!("{}: load report", report.name), &body)
}

/// A page of two.
pub fn comparison(a: &Report, b: &Report) -> String {
    let compared = Comparison::of(a, b);
    let mut body = String::from("<header><h1>Comparison</h1>");
    for (name, report, colour) in [("A", a, draw::PAIR[0]), ("B", b, draw::PAIR[1])] {
        let verdict = if report.good {
            "good".to_owned()
        } else {
            format!("not good, {} faults", super::show::count(report.faults.count))
        };
        body.push_str(&format!(
            "<p class=\"legend\"><span><i class=\"b{colour}\"></i><b>{name}</b> {} · {} · {} · {verdict}</span></p>",
            escape(&report.name),
            escape(&report.target),
            escape(&report.began)
        ));
    }
    body.push_str("</header>\n");
    body.push_str(&charts(&draw::of_two([a, b])));
    body.push_str("<div class=\"tables\">\n");
    body.push_str(&figures(&compared));
    body.push_str(&parts::differing(&compared));
    body.push_str("</div>\n");
    whole(&format!("{} and {}: load reports", a.name, b.name), &body)
}

fn charts(charts: &[Chart]) -> String {
    let mut html = String::from("<div class=\"charts\">\n");
    for chart in charts {
        let mut inner = String::new();
        if chart.lines.iter().any(|line| !line.name.is_empty()) {
            inner.push_str("<ul class=\"legend\">");
            for line in chart.lines.iter().filter(|line| line.runs.iter().any(|run| !run.is_empty())) {
                inner.push_str(&format!("<li><i class=\"b{}\"></i>{}</li>", line.colour, escape(&line.name)));
            }
            inner.push_str("</ul>\n");
        }
        inner.push_str(&chart.svg(BROAD.0, BROAD.1, "broad"));
        inner.push_str(&chart.svg(NARROW.0, NARROW.1, "narrow"));
        html.push_str(&section(chart.title, chart.about, &inner));
    }
    html.push_str("</div>\n");
    html
}

fn whole(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}<footer>Made by waxwing load.</footer>\n</main>\n</body>\n</html>\n",
        escape(title)
    )
}

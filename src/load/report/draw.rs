//! What charts show.

use super::chart::{Axis, Chart, Line, Scale, Shape, Unit, nines};
use super::{Report, show};
use crate::load::measure::process::Usage;
use crate::load::measure::{Point, Spread, Stage};

/// Colours of a page with two reports.
pub(super) const PAIR: [usize; 2] = [1, 4];
/// A last interval of which less than this share was sent in is not drawn: its rate says nothing.
const LEAST_SHARE: f64 = 0.25;
const TIME: Axis = Axis { scale: Scale::Linear, unit: Unit::Seconds };
const RATE: Axis = Axis { scale: Scale::Linear, unit: Unit::Rate };
const LATENCY: Axis = Axis { scale: Scale::Log, unit: Unit::Micros };

/// Charts of one report.
pub(super) fn of(report: &Report) -> Vec<Chart> {
    let mut charts = vec![throughput(report), over_time(report, Stage::Answer)];
    charts.extend([over_time(report, Stage::Delivery), curve(report), cpu(report), memory(report)]);
    charts.extend(knee(report));
    charts.retain(|chart| !chart.is_empty());
    charts
}

/// Charts of two, with a line each.
pub(super) fn of_two(both: [&Report; 2]) -> Vec<Chart> {
    let lines = |make: &dyn Fn(&Report, usize) -> Line| {
        both.iter()
            .zip(PAIR)
            .zip(["A", "B"])
            .map(|((report, colour), name)| Line { name: name.into(), ..make(report, colour) })
            .collect()
    };
    let taken = |report: &Report, colour| taken(report, colour, Shape::Line);
    let p99 = |stage| move |report: &Report, colour| latency(report, stage, 1, colour);
    let curve_of = |stage| move |report: &Report, colour| curve_line(report.stage(stage), colour);
    let chart = |title, about, x, y, lines| Chart { title, about, x, y, lines, level: None };
    let percentile = Axis { scale: Scale::Nines, unit: Unit::Percentile };
    let cores = Axis { scale: Scale::Linear, unit: Unit::Cores };
    let mut charts = vec![
        chart("Throughput", "mails taken a second", TIME, RATE, lines(&taken)),
        chart("Answer p99 over time", "from due to answered", TIME, LATENCY, lines(&p99(Stage::Answer))),
        chart("Answer by percentile", "from due to answered", percentile, LATENCY, lines(&curve_of(Stage::Answer))),
        chart("Delivery by percentile", "from due to the sink", percentile, LATENCY, lines(&curve_of(Stage::Delivery))),
        chart("Processor", "cores busy in all measured processes but the lab", TIME, cores, lines(&all_cpu)),
        chart("Processor, the lab", "cores busy in the lab itself", TIME, cores, lines(&lab_cpu)),
    ];
    charts.retain(|chart| !chart.is_empty());
    charts
}

/// Steps of intervals, in runs without a gap.
fn steps(values: impl Iterator<Item = (f64, f64, Option<f64>)>) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for (from, to, value) in values {
        match (value, runs.last_mut()) {
            (Some(value), Some(run)) => run.extend([(from, value), (to, value)]),
            (None, Some(run)) if !run.is_empty() => runs.push(Vec::new()),
            _ => {}
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// Intervals as far as `until` microseconds, each with a value of its point and its length in seconds.
fn intervals(report: &Report, until: u64, value: impl Fn(&Point, f64) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let width = show::float(report.series.width);
    let until = show::float(until) / 1e6;
    steps((0_u64..).zip(&report.series.points).map(|(number, point)| {
        let from = show::float(number) * width;
        let to = (from + width).min(until);
        if number > 0 && to - from < width * LEAST_SHARE {
            (from, from, None)
        } else {
            (from, to, value(point, to - from))
        }
    }))
}

fn taken(report: &Report, colour: usize, shape: Shape) -> Line {
    let rate = |point: &Point, seconds: f64| point.classes.first().map(|taken| show::float(*taken) / seconds);
    Line { name: "taken".into(), colour, runs: intervals(report, report.sending.took, rate), shape }
}

fn throughput(report: &Report) -> Chart {
    let mut lines = vec![taken(report, 1, Shape::Area)];
    if report.delivered_until > 0 {
        let rate = |point: &Point, seconds: f64| Some(show::float(point.delivered) / seconds);
        let runs = intervals(report, report.delivered_until, rate);
        lines.push(Line { name: "delivered".into(), colour: 2, runs, shape: Shape::Dashed });
    }
    let others = |point: &Point| point.classes.iter().skip(1).fold(0_u64, |sum, more| sum.saturating_add(*more));
    if report.series.points.iter().any(|point| others(point) > 0) {
        let rate = |point: &Point, seconds: f64| Some(show::float(others(point)) / seconds);
        let runs = intervals(report, report.sending.took, rate);
        lines.push(Line { name: "not taken".into(), colour: 0, runs, shape: Shape::Line });
    }
    Chart { title: "Throughput", about: "mails a second", x: TIME, y: RATE, lines, level: None }
}

/// p50, p99 or the longest latency (0, 1, 2) in each interval.
fn latency(report: &Report, stage: Stage, which: usize, colour: usize) -> Line {
    let value = |point: &Point, _| {
        let three = if stage == Stage::Delivery { point.delivery } else { point.answer };
        three.get(which).filter(|micros| **micros > 0).map(|micros| show::float(*micros))
    };
    let until = if stage == Stage::Delivery { report.delivered_until } else { report.sending.took };
    let runs = intervals(report, until, value);
    let name = ["p50", "p99", "longest"].get(which).copied().unwrap_or_default().to_owned();
    Line { name, colour, runs, shape: Shape::Line }
}

fn over_time(report: &Report, stage: Stage) -> Chart {
    let lines = [(2, 5), (1, 4), (0, 1)].map(|(which, colour)| latency(report, stage, which, colour));
    let (title, about) = match stage {
        Stage::Delivery => ("Delivery latency", "from due to the sink"),
        _ => ("Answer latency", "from due to answered"),
    };
    Chart { title, about, x: TIME, y: LATENCY, lines: lines.to_vec(), level: None }
}

fn curve_line(spread: &Spread, colour: usize) -> Line {
    let place = |(quantile, micros): &(u32, u64)| (nines(f64::from(*quantile) / 1e7), show::float((*micros).max(1)));
    Line { name: String::new(), colour, runs: vec![spread.curve.iter().map(place).collect()], shape: Shape::Line }
}

fn curve(report: &Report) -> Chart {
    let lines = Stage::ALL.into_iter().zip([3, 5, 1, 2]).filter(|(stage, _)| report.stage(*stage).count > 0);
    let lines =
        lines.map(|(stage, colour)| Line { name: stage.name().into(), ..curve_line(report.stage(stage), colour) });
    Chart {
        title: "Latency by percentile",
        about: "that share of mails took no longer",
        x: Axis { scale: Scale::Nines, unit: Unit::Percentile },
        y: LATENCY,
        lines: lines.collect(),
        level: None,
    }
}

/// Cores busy between looks.
fn busy(usage: &Usage) -> Vec<(f64, f64, Option<f64>)> {
    let pairs = usage.looks.iter().zip(usage.looks.iter().skip(1));
    let seconds = |micros| show::float(micros) / 1e6;
    let busy = pairs.map(|(before, now)| {
        let time = seconds(now.at.saturating_sub(before.at));
        // Ticks are too coarse for the short rest at the end.
        let cores = (time > 0.1).then(|| seconds(now.cpu.saturating_sub(before.cpu)) / time);
        (seconds(before.at), seconds(now.at), cores)
    });
    busy.collect()
}

fn is_lab(usage: &Usage) -> bool {
    usage.name == "lab"
}

fn coloured(report: &Report) -> impl Iterator<Item = (&Usage, usize)> {
    report.processes.iter().zip([3, 1, 2, 4, 5, 6].into_iter().cycle())
}

fn cpu(report: &Report) -> Chart {
    let lines = coloured(report).map(|(usage, colour)| Line {
        name: usage.name.clone(),
        colour,
        runs: steps(busy(usage).into_iter()),
        shape: Shape::Line,
    });
    Chart {
        title: "Processor",
        about: "cores busy",
        x: TIME,
        y: Axis { scale: Scale::Linear, unit: Unit::Cores },
        lines: lines.collect(),
        level: None,
    }
}

fn memory(report: &Report) -> Chart {
    let lines = coloured(report).map(|(usage, colour)| {
        let points = usage.looks.iter().map(|look| (show::float(look.at) / 1e6, show::float(look.rss)));
        Line { name: usage.name.clone(), colour, runs: vec![points.collect()], shape: Shape::Line }
    });
    Chart {
        title: "Memory",
        about: "resident",
        x: TIME,
        y: Axis { scale: Scale::Linear, unit: Unit::Octets },
        lines: lines.collect(),
        level: None,
    }
}

/// The processes of a report that `wanted` names, as one line: they are looked at together.
fn sum_of(report: &Report, colour: usize, wanted: impl Fn(&Usage) -> bool) -> Line {
    let mut sum: Vec<(f64, f64, Option<f64>)> = Vec::new();
    for usage in report.processes.iter().filter(|usage| wanted(usage)) {
        let one = busy(usage);
        if sum.is_empty() {
            sum = one;
        } else {
            for (sum, more) in sum.iter_mut().zip(one) {
                sum.2 = sum.2.zip(more.2).map(|(sum, more)| sum + more);
            }
        }
    }
    Line { name: String::new(), colour, runs: steps(sum.into_iter()), shape: Shape::Line }
}

fn all_cpu(report: &Report, colour: usize) -> Line {
    sum_of(report, colour, |usage| !is_lab(usage))
}

fn lab_cpu(report: &Report, colour: usize) -> Line {
    sum_of(report, colour, is_lab)
}

fn knee(report: &Report) -> Option<Chart> {
    let knee = report.knee.as_ref()?;
    let dots = |good: bool, name: &str, colour| {
        let tried = knee.trials.iter().filter(|trial| trial.good == good);
        let points = tried.map(|trial| (show::float(trial.rate) / 1e3, show::float(trial.p99.max(1))));
        Line { name: name.into(), colour, runs: vec![points.collect()], shape: Shape::Dots }
    };
    Some(Chart {
        title: "Knee",
        about: "p99 by mails offered a second",
        x: RATE,
        y: LATENCY,
        lines: vec![dots(true, "good", 1), dots(false, "too much", 0)],
        level: Some((show::float(knee.bound), format!("bound {}", show::micros(knee.bound)))),
    })
}

//! Two reports side by side.

use serde_json::{Value, json};

use super::{Report, show};
use crate::load::measure::Stage;
use crate::load::measure::process::Usage;

/// What a row is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Mails a second: more is better.
    Rate,
    /// Microseconds: less is better.
    Micros,
    /// Octets: less is better.
    Octets,
}

/// One figure of both.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Such as "answer p99".
    pub name: String,
    /// Of `a` and `b`.
    pub quantity: Quantity,
    /// Of the first; `None`: it has none.
    pub a: Option<f64>,
    /// Of the second.
    pub b: Option<f64>,
}

/// A setting that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differs {
    /// Its key.
    pub key: String,
    /// In the first; `None`: it has none.
    pub a: Option<String>,
    /// In the second.
    pub b: Option<String>,
}

/// What two reports have in common, and what not.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Figures, in the order of the reports.
    pub rows: Vec<Row>,
    /// Settings, machine, version and target where they differ.
    pub differs: Vec<Differs>,
}

impl Row {
    /// The second by the first; `None` where there is nothing to divide.
    pub fn ratio(&self) -> Option<f64> {
        self.a.zip(self.b).filter(|(a, _)| *a > 0.0).map(|(a, b)| b / a)
    }

    /// A value as people read it.
    pub fn shown(&self, value: Option<f64>) -> String {
        match (value, self.quantity) {
            (None, _) => "–".into(),
            (Some(value), Quantity::Rate) => format!("{}/s", show::number(value)),
            (Some(value), Quantity::Micros) => show::mean_micros(value),
            (Some(value), Quantity::Octets) => show::octets(value),
        }
    }

    /// The ratio as people read it.
    pub fn shown_ratio(&self) -> String {
        self.ratio().map_or_else(|| "–".into(), |ratio| format!("{} x", show::number(ratio)))
    }

    /// Whether the second is better (`Some(true)`) or worse by more than 5 %.
    pub fn better(&self) -> Option<bool> {
        let ratio = self.ratio().filter(|ratio| !(0.95..=1.05).contains(ratio))?;
        Some((ratio > 1.0) == (self.quantity == Quantity::Rate))
    }
}

impl Comparison {
    /// Of two reports.
    pub fn of(a: &Report, b: &Report) -> Self {
        let mut rows = vec![row("taken", Quantity::Rate, Some(a.rate()), Some(b.rate()))];
        let delivered = |report: &Report| (report.delivered_until > 0).then(|| report.delivered_rate());
        rows.push(row("delivered", Quantity::Rate, delivered(a), delivered(b)));
        for stage in [Stage::Answer, Stage::Delivery, Stage::Connect, Stage::Wait] {
            let (one, two) = (a.stage(stage), b.stage(stage));
            for ((name, first), (_, second)) in one.named().into_iter().zip(two.named()) {
                // Of what is not a mail's latency, the shape will do.
                if matches!(stage, Stage::Connect | Stage::Wait) && !["p50", "p99", "max"].contains(&name) {
                    continue;
                }
                let of = |count: u64, micros: u64| (count > 0).then(|| show::float(micros));
                let name = format!("{} {name}", stage.name());
                rows.push(row(&name, Quantity::Micros, of(one.count, first), of(two.count, second)));
            }
        }
        for (name, first, second) in pairs(&a.processes, &b.processes) {
            let per_mail = |report: &Report, of: Option<&Usage>| of.and_then(|usage| report.cpu_per_mail(usage));
            let name_of = |what: &str| format!("{what}: {name}");
            rows.push(row(&name_of("CPU per mail"), Quantity::Micros, per_mail(a, first), per_mail(b, second)));
            let peak = |of: Option<&Usage>| of.map(|usage| show::float(usage.peak_rss));
            rows.push(row(&name_of("peak RSS"), Quantity::Octets, peak(first), peak(second)));
        }
        rows.retain(|row| row.a.is_some() || row.b.is_some());
        Self { rows, differs: differs(a, b) }
    }

    /// As JSON; `files` are the names of both.
    pub fn to_json(&self, files: [&str; 2]) -> Value {
        let [a, b] = files;
        json!({
            "a": a,
            "b": b,
            "figures": self.rows.iter().map(|row| json!({
                "name": row.name,
                "unit": match row.quantity {
                    Quantity::Rate => "mails/s",
                    Quantity::Micros => "us",
                    Quantity::Octets => "octets",
                },
                "a": row.a,
                "b": row.b,
                "ratio": row.ratio(),
            })).collect::<Vec<_>>(),
            "differs": self.differs.iter().map(|one| json!({"key": one.key, "a": one.a, "b": one.b})).collect::<Vec<_>>(),
        })
    }
}

fn row(name: &str, quantity: Quantity, a: Option<f64>, b: Option<f64>) -> Row {
    Row { name: name.to_owned(), quantity, a, b }
}

/// Processes of the same name; where one is left on either side, those two: a name may be a number of a process.
fn pairs<'u>(a: &'u [Usage], b: &'u [Usage]) -> Vec<(String, Option<&'u Usage>, Option<&'u Usage>)> {
    let mut left: Vec<&Usage> = b.iter().collect();
    let (mut found, mut alone) = (Vec::new(), Vec::new());
    for one in a {
        match left.iter().position(|other| other.name == one.name) {
            Some(place) => found.push((one.name.clone(), Some(one), Some(left.remove(place)))),
            None => alone.push(one),
        }
    }
    if let ([one], [other]) = (&alone[..], &left[..]) {
        found.push((format!("{} and {}", one.name, other.name), Some(*one), Some(*other)));
        return found;
    }
    found.extend(alone.into_iter().map(|one| (one.name.clone(), Some(one), None)));
    found.extend(left.into_iter().map(|other| (other.name.clone(), None, Some(other))));
    found
}

fn differs(a: &Report, b: &Report) -> Vec<Differs> {
    let all = |report: &Report| {
        let mut all = report.settings.clone();
        let machine = &report.machine;
        all.extend(
            [
                ("scenario", report.name.clone()),
                ("target", report.target.clone()),
                ("version", report.version.clone()),
                ("machine.cores", machine.cores.to_string()),
                ("machine.processor", machine.processor.clone()),
                ("machine.memory", show::octets(show::float(machine.memory))),
                ("machine.kernel", machine.kernel.clone()),
                ("sink", report.sink.clone().unwrap_or_else(|| "none".into())),
                ("stopped", if report.sending.stopped { "before its bound".into() } else { "by its bound".to_owned() }),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        all
    };
    let (mut one, mut two) = (all(a), all(b));
    let mut keys: Vec<String> = one.keys().chain(two.keys()).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    let both = keys.into_iter().map(|key| Differs { a: one.remove(&key), b: two.remove(&key), key });
    both.filter(|one| one.a != one.b).collect()
}

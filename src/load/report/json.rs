//! Reports to JSON and back.
//!
//! What is derived from other values (rates, times of intervals, processor time for each mail) is written for those who read JSON, and
//! not read back. Unknown keys are left alone.

/// Values by their path.
mod node;

use serde_json::{Map, Value, json};

use super::{Faults, KneeFound, Listed, Machine, Report, Sending, Tried, show};
use crate::load::measure::process::{Look, Usage};
use crate::load::measure::{Class, Point, Points, Spread, Stage};
use node::Node;
pub use node::ReadError;

/// The largest file that is read as a report, in octets.
pub const FILE_MAX: usize = 8 << 20;
/// What a report calls itself.
const FORMAT: &str = "waxwing load report 1";
/// Entries of a list at most, beyond what a report is written with.
const POINTS_MAX: usize = 4_096;
const LISTED_MAX: usize = 10_000;
const PROCESSES_MAX: usize = 256;
const KEYS_MAX: usize = 1_000;

impl Report {
    /// As JSON: times in microseconds (`_us`) or seconds (`_s`), sizes in octets, rates in mails a second.
    pub fn to_json(&self) -> Value {
        let stages = Stage::ALL.map(|stage| (stage.name().to_owned(), spread(self.stage(stage))));
        json!({
            "format": FORMAT,
            "name": self.name,
            "about": self.about,
            "version": self.version,
            "began": self.began,
            "target": self.target,
            "sink": self.sink,
            "good": self.good,
            "settings": self.settings,
            "machine": {
                "cores": self.machine.cores,
                "processor": self.machine.processor,
                "memory": self.machine.memory,
                "kernel": self.machine.kernel,
            },
            "sending": {
                "took_us": self.sending.took,
                "mails": self.sending.mails,
                "overdue": self.sending.overdue,
                "connections": self.sending.connections,
                "broken": self.sending.broken,
                "stopped": self.sending.stopped,
            },
            "rates": {
                "taken_per_s": self.rate(),
                "delivered_per_s": self.delivered_rate(),
                "octets_per_s": self.octet_rate(),
            },
            "answers": answers(self.answers),
            "octets": self.octets,
            "delivered_until_us": self.delivered_until,
            "account": self.account,
            "faults": {
                "count": self.faults.count,
                "kinds": self.faults.kinds,
                "listed": self.faults.listed.iter().map(|fault| json!({
                    "id": fault.id, "recipient": fault.recipient, "what": fault.what, "why": fault.why,
                })).collect::<Vec<_>>(),
            },
            "latency": Map::from_iter(stages),
            "series": {
                "width_s": self.series.width,
                "points": (0..).zip(&self.series.points).map(|(number, one)| {
                    point(self.series.width.saturating_mul(number), one)
                }).collect::<Vec<_>>(),
            },
            "processes": self.processes.iter().map(|usage| process(usage, self.cpu_per_mail(usage))).collect::<Vec<_>>(),
            "knee": self.knee.as_ref().map(knee),
        })
    }

    fn read(root: &Node<'_>) -> Result<Self, ReadError> {
        let format = root.get("format")?;
        if format.text()? != FORMAT {
            return Err(format.expected(&format!("{FORMAT:?}, which this version reads")));
        }
        let faults = root.get("faults")?;
        let latency = root.get("latency")?;
        let stage = |stage: Stage| read_spread(&latency.get(stage.name())?);
        Ok(Self {
            name: root.get("name")?.text()?,
            about: root.get("about")?.text()?,
            version: root.get("version")?.text()?,
            began: root.get("began")?.text()?,
            target: root.get("target")?.text()?,
            sink: root.get("sink")?.unless_null().map(|sink| sink.text()).transpose()?,
            good: root.get("good")?.flag()?,
            settings: root.get("settings")?.pairs(KEYS_MAX, Node::text)?,
            machine: read_machine(&root.get("machine")?)?,
            sending: read_sending(&root.get("sending")?)?,
            answers: read_answers(&root.get("answers")?)?,
            octets: root.get("octets")?.count()?,
            delivered_until: root.get("delivered_until_us")?.count()?,
            account: root.get("account")?.pairs(KEYS_MAX, Node::count)?,
            faults: Faults {
                count: faults.get("count")?.count()?,
                kinds: faults.get("kinds")?.pairs(KEYS_MAX, Node::count)?,
                listed: faults.get("listed")?.list(LISTED_MAX, read_fault)?,
            },
            stages: [stage(Stage::Connect)?, stage(Stage::Wait)?, stage(Stage::Answer)?, stage(Stage::Delivery)?],
            series: read_series(&root.get("series")?)?,
            processes: root.get("processes")?.list(PROCESSES_MAX, read_process)?,
            knee: root.get("knee")?.unless_null().map(read_knee).transpose()?,
        })
    }
}

/// Reads a report; `file` is its name in errors.
pub fn parse(octets: &[u8], file: &str) -> Result<Report, ReadError> {
    let whole = |what: String| ReadError { file: file.to_owned(), key: String::new(), what };
    if octets.len() > FILE_MAX {
        return Err(whole(format!("over {FILE_MAX} octets: no report is that large")));
    }
    let value: Value = serde_json::from_slice(octets)
        .map_err(|error| whole(format!("no JSON: {error}; expected what `waxwing load --json` prints")))?;
    Report::read(&Node::root(&value, file))
}

fn answers(classes: [u64; 5]) -> Value {
    Value::Object(
        Class::ALL.iter().zip(classes).map(|(class, count)| (class.name().to_owned(), count.into())).collect(),
    )
}

fn read_answers(node: &Node<'_>) -> Result<[u64; 5], ReadError> {
    let mut classes = [0; 5];
    for (place, class) in classes.iter_mut().zip(Class::ALL) {
        *place = node.get(class.name())?.count()?;
    }
    Ok(classes)
}

fn spread(of: &Spread) -> Value {
    let mut object: Map<String, Value> =
        of.named().map(|(name, micros)| (format!("{name}_us"), micros.into())).into_iter().collect();
    object.insert("count".into(), of.count.into());
    object.insert("mean_us".into(), of.mean.into());
    let curve = of.curve.iter().map(|(quantile, micros)| json!({"percentile": percentile(*quantile), "us": micros}));
    object.insert("curve".into(), curve.collect());
    Value::Object(object)
}

/// Ten-millionths as a percentile: 9,999,000 is 99.99.
fn percentile(quantile: u32) -> f64 {
    f64::from(quantile) / 1e5
}

fn read_spread(node: &Node<'_>) -> Result<Spread, ReadError> {
    let at = |name: &str| node.get(name)?.count();
    let curve = |point: &Node<'_>| {
        let quantile = point.get("percentile")?.thousandths(100.0, 100_000.0)?;
        Ok((u32::try_from(quantile).unwrap_or(u32::MAX), point.get("us")?.count()?))
    };
    Ok(Spread {
        count: at("count")?,
        mean: at("mean_us")?,
        p50: at("p50_us")?,
        p90: at("p90_us")?,
        p99: at("p99_us")?,
        p99_9: at("p99.9_us")?,
        p99_99: at("p99.99_us")?,
        max: at("max_us")?,
        curve: node.get("curve")?.list(KEYS_MAX, curve)?,
    })
}

fn point(at: u64, of: &Point) -> Value {
    json!({
        "at_s": at,
        "answers": answers(of.classes),
        "octets": of.octets,
        "delivered": of.delivered,
        "answer_us": three(of.answer),
        "delivery_us": three(of.delivery),
    })
}

fn three([p50, p99, max]: [u64; 3]) -> Value {
    json!({"p50": p50, "p99": p99, "max": max})
}

fn read_series(node: &Node<'_>) -> Result<Points, ReadError> {
    let three = |node: &Node<'_>| {
        let at = |name: &str| node.get(name)?.count();
        Ok([at("p50")?, at("p99")?, at("max")?])
    };
    let point = |node: &Node<'_>| {
        Ok(Point {
            classes: read_answers(&node.get("answers")?)?,
            octets: node.get("octets")?.count()?,
            delivered: node.get("delivered")?.count()?,
            answer: three(&node.get("answer_us")?)?,
            delivery: three(&node.get("delivery_us")?)?,
        })
    };
    Ok(Points { width: node.get("width_s")?.count()?, points: node.get("points")?.list(POINTS_MAX, point)? })
}

fn process(usage: &Usage, per_mail: Option<f64>) -> Value {
    json!({
        "name": usage.name,
        "pid": usage.pid,
        "user_us": usage.user,
        "system_us": usage.system,
        "cpu_per_mail_us": per_mail,
        "peak_rss": usage.peak_rss,
        "looks": usage.looks.iter().map(|look| json!({
            "at_us": look.at, "cpu_us": look.cpu, "rss": look.rss,
        })).collect::<Vec<_>>(),
    })
}

fn read_process(node: &Node<'_>) -> Result<Usage, ReadError> {
    let look = |node: &Node<'_>| {
        Ok(Look { at: node.get("at_us")?.count()?, cpu: node.get("cpu_us")?.count()?, rss: node.get("rss")?.count()? })
    };
    let pid = node.get("pid")?;
    Ok(Usage {
        name: node.get("name")?.text()?,
        pid: u32::try_from(pid.count()?).map_err(|_| pid.expected("a process id"))?,
        user: node.get("user_us")?.count()?,
        system: node.get("system_us")?.count()?,
        peak_rss: node.get("peak_rss")?.count()?,
        looks: node.get("looks")?.list(POINTS_MAX, look)?,
    })
}

fn read_machine(node: &Node<'_>) -> Result<Machine, ReadError> {
    Ok(Machine {
        cores: node.get("cores")?.count()?,
        processor: node.get("processor")?.text()?,
        memory: node.get("memory")?.count()?,
        kernel: node.get("kernel")?.text()?,
    })
}

fn read_sending(node: &Node<'_>) -> Result<Sending, ReadError> {
    Ok(Sending {
        took: node.get("took_us")?.count()?,
        mails: node.get("mails")?.count()?,
        overdue: node.get("overdue")?.count()?,
        connections: node.get("connections")?.count()?,
        broken: node.get("broken")?.count()?,
        stopped: node.get("stopped")?.flag()?,
    })
}

fn read_fault(node: &Node<'_>) -> Result<Listed, ReadError> {
    Ok(Listed {
        id: node.get("id")?.unless_null().map(|id| id.text()).transpose()?,
        recipient: node.get("recipient")?.text()?,
        what: node.get("what")?.text()?,
        why: node.get("why")?.text()?,
    })
}

/// Thousandths as they are written.
fn rate(thousandths: u64) -> f64 {
    show::float(thousandths) / 1e3
}

fn knee(knee: &KneeFound) -> Value {
    json!({
        "rate": knee.rate.map(rate),
        "too_much": knee.too_much.map(rate),
        "bound_us": knee.bound,
        "trials": knee.trials.iter().map(|trial| json!({
            "rate": rate(trial.rate),
            "answered": rate(trial.answered),
            "p99_us": trial.p99,
            "failed": trial.failed,
            "good": trial.good,
        })).collect::<Vec<_>>(),
    })
}

fn read_knee(node: Node<'_>) -> Result<KneeFound, ReadError> {
    let rate = |node: Node<'_>| node.thousandths(1e9, 1e3);
    let trial = |node: &Node<'_>| {
        Ok(Tried {
            rate: rate(node.get("rate")?)?,
            answered: rate(node.get("answered")?)?,
            p99: node.get("p99_us")?.count()?,
            failed: node.get("failed")?.count()?,
            good: node.get("good")?.flag()?,
        })
    };
    Ok(KneeFound {
        rate: node.get("rate")?.unless_null().map(rate).transpose()?,
        too_much: node.get("too_much")?.unless_null().map(rate).transpose()?,
        bound: node.get("bound_us")?.count()?,
        trials: node.get("trials")?.list(KEYS_MAX, trial)?,
    })
}

/// Fuzz body: what is read as a report is written and read again as the same; pages of it hold nothing that runs.
#[allow(clippy::expect_used, reason = "a fuzz body fails by panicking")]
pub fn fuzz_report(data: &[u8]) {
    let Ok(report) = parse(data, "fuzz.json") else { return };
    let text = report.to_json().to_string();
    let again = parse(text.as_bytes(), "again.json").expect("what we write can be read");
    assert_eq!(report, again);
    for page in [super::page(&report), super::comparison(&report, &again)] {
        assert!(!page.contains("<script") && page.ends_with("</html>\n"));
    }
}

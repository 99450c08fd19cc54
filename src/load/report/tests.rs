use std::time::{Duration, Instant};

use super::compare::{Comparison, Differs};
use super::*;
use crate::load::generator::Trial;
use crate::load::mails::MailId;
use crate::load::measure::process::Look;
use crate::load::measure::{Class, Recorder};
use crate::load::scenario;

/// A run of five seconds: `rate` mails a second that take `latency` each and a hundredth of them ten times that; with a fault of each text.
fn report(rate: u32, latency: Duration, text: &str) -> Report {
    let origin = Instant::now();
    let recorder = Recorder::new();
    recorder.begin(origin);
    for number in 0..rate * 5 {
        let latency = if number % 100 == 99 { latency * 10 } else { latency };
        let at = origin + Duration::from_secs(5) * number / (rate * 5);
        recorder.record(Stage::Answer, at, latency);
        recorder.record(Stage::Wait, at, latency / 100);
        recorder.record(Stage::Delivery, at, latency * 2);
        recorder.answered(if number % 50 == 0 { Class::Deferred } else { Class::Taken }, at, 4_096);
    }
    let sent = Sent {
        began: origin,
        ended: origin + Duration::from_secs(5),
        mails: u64::from(rate) * 5,
        overdue: 3,
        connections: 20,
        broken: 1,
        stopped: false,
        knee: Some(Knee {
            rate: Some(100.123),
            too_much: Some(200.5),
            bound: Duration::from_millis(50),
            trials: vec![Trial { rate: 100.123, answered: 99.0, p99: Duration::from_millis(7), failed: 0, good: true }],
        }),
    };
    let fault = |id| Fault { id, recipient: text.to_owned(), what: FaultKind::NotOpened, why: text.to_owned() };
    let faults =
        if text.is_empty() { Vec::new() } else { vec![fault(None), fault(Some(MailId { run: 1, number: 2 }))] };
    let found = faults.iter().map(|fault: &Fault| (fault.what, 2)).collect();
    let account = Account { sent: sent.mails, taken: sent.mails - 3, faults, found, ..Account::default() };
    let look = |second: u64| Look { at: second * 1_000_000, cpu: second * 500_000, rss: 10 << 20 };
    let usage = |name: &str, cpu: u64| Usage {
        name: name.to_owned(),
        pid: 7,
        user: cpu,
        system: cpu / 2,
        peak_rss: 10 << 20,
        looks: (0..6).map(look).collect(),
    };
    let outcome = Outcome {
        sent,
        account,
        latency: (latency, latency),
        figures: recorder.figures(),
        usage: vec![usage("lab", 1_000_000), usage(if text.is_empty() { "target" } else { text }, 2_000_000)],
    };
    let scenario = scenario::parse(scenario::shipped()[0].text, "shipped").unwrap();
    let mut report = Report::of(
        &outcome,
        &scenario,
        Circumstances {
            began: "2026-01-02T03:04:05Z".into(),
            target: format!("127.0.0.1:25{text}"),
            sink: Some("127.0.0.1:2525".into()),
            machine: Machine::this(),
        },
    );
    report.settings.insert(format!("key{text}"), text.to_owned());
    report
}

#[test]
fn a_report_says_what_the_run_found() {
    let report = report(1_000, Duration::from_millis(10), "");
    assert!(report.good);
    assert_eq!((report.taken(), report.answers), (4_900, [4_900, 0, 100, 0, 0]));
    assert!((report.rate() - 980.0).abs() < 0.001, "{}", report.rate());
    assert!((report.octet_rate() - 980.0 * 4_096.0).abs() < 1.0);
    let answer = report.stage(Stage::Answer);
    assert!((10_000..10_020).contains(&answer.p50) && (100_000..100_200).contains(&answer.p99_9), "{answer:?}");
    assert_eq!(report.cpu_per_mail(&report.processes[1]).map(|micros| micros.round()), Some(612.0), "3 s for 4,900");
    assert_eq!(report.series.points.len(), 5);
    assert_eq!(report.knee.as_ref().unwrap().rate, Some(100_123));
}

#[test]
fn a_report_is_read_as_it_was_written() {
    for text in ["", "<b>\"'&\u{202e}\n\0 ü", "x".repeat(5_000).as_str()] {
        let report = report(200, Duration::from_micros(333), text);
        for written in [report.to_json().to_string(), serde_json::to_string_pretty(&report.to_json()).unwrap()] {
            assert_eq!(parse(written.as_bytes(), "a.json").unwrap(), report);
            fuzz_report(written.as_bytes());
        }
    }
    let empty = Report::default();
    assert_eq!(parse(empty.to_json().to_string().as_bytes(), "a.json").unwrap(), empty);
    fuzz_report(empty.to_json().to_string().as_bytes());
}

#[test]
fn whoever_reads_the_json_finds_figures_by_their_names() {
    let json = report(1_000, Duration::from_millis(10), "").to_json();
    for (pointer, wanted) in [
        ("/rates/taken_per_s", 980.0),
        ("/answers/taken", 4_900.0),
        ("/latency/answer/count", 5_000.0),
        ("/series/points/4/at_s", 4.0),
        ("/processes/0/looks/5/at_us", 5_000_000.0),
        ("/faults/count", 0.0),
        ("/knee/trials/0/rate", 100.123),
    ] {
        let found = json.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or_else(|| panic!("no {pointer}"));
        assert!((found - wanted).abs() < 1e-6, "{pointer}: {found}");
    }
    let p99 = json
        .pointer("/latency/answer/curve")
        .and_then(|curve| curve.as_array()?.iter().find(|point| point["percentile"] == 99.0)?.get("us")?.as_u64());
    assert_eq!(p99, json.pointer("/latency/answer/p99_us").and_then(serde_json::Value::as_u64));
}

#[test]
fn what_is_no_report_is_refused_with_file_and_key() {
    let good = report(10, Duration::from_millis(1), "").to_json();
    let with = |pointer: &str, value: serde_json::Value| {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        parse(json.to_string().as_bytes(), "b.json").unwrap_err().to_string()
    };
    for (pointer, value, words) in [
        ("/format", "waxwing load report 99".into(), "b.json: format: expected"),
        (
            "/series/points/3/octets",
            (-1).into(),
            "b.json: series.points[3].octets: expected a whole number from 0, found -1",
        ),
        ("/latency/answer/curve/0/percentile", 101.into(), "percentile: expected a number from 0 to 100, found 101"),
        ("/processes/1/pid", (1_u64 << 40).into(), "processes[1].pid: expected a process id"),
        ("/good", "yes".into(), "good: expected true or false, found \"yes\""),
        ("/machine", serde_json::Value::Null, "machine: expected an object, found null"),
        ("/latency/answer", serde_json::json!({}), "latency.answer.count: is missing"),
        ("/faults/listed", serde_json::json!(vec![0; 10_001]), "faults.listed: expected a list of up to 10000 entries"),
        ("/settings/mix", serde_json::json!([1]), "settings.mix: expected a text, found a list"),
        ("/name", "x".repeat(20_000).into(), "name: expected a text of up to"),
        ("/knee/rate", serde_json::json!(1e300), "knee.rate: expected a number from 0"),
    ] {
        let told = with(pointer, value);
        assert!(told.contains(words), "{told}");
        assert!(told.len() < 300, "{told}");
    }
    for bad in ["", "{", "[]", "null", "7", &"[".repeat(100_000), &" ".repeat(FILE_MAX + 1)] {
        let told = parse(bad.as_bytes(), "b.json").unwrap_err().to_string();
        assert!(told.starts_with("b.json: ") && told.len() < 300, "{told}");
        fuzz_report(bad.as_bytes());
    }
}

#[test]
fn nothing_from_outside_is_markup() {
    let text = "<script>alert(1)</script>\"'&<img src=x onerror=y>\u{202e}";
    let mut one = report(100, Duration::from_millis(3), text);
    one.name = text.into();
    one.about = text.into();
    one.began = text.into();
    one.version = text.into();
    one.sink = Some(text.into());
    one.machine.processor = text.into();
    one.machine.kernel = text.into();
    one.account.insert(text.into(), 1);
    one.faults.kinds.insert(text.into(), 1);
    let other = report(50, Duration::from_millis(3), "");
    for page in [page(&one), comparison(&one, &other), comparison(&other, &one)] {
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains('\u{202e}'));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;&lt;img"));
        // No attribute can be left: quotes of texts are escaped, and none stands in a style or a link.
        assert_eq!(page.matches("http").count(), page.matches("http-equiv").count(), "nothing is fetched");
    }
}

#[test]
fn a_page_draws_what_was_measured() {
    let drawn = page(&report(1_000, Duration::from_millis(10), ""));
    for words in
        ["Throughput", "Answer latency", "Latency by percentile", "Processor", "Memory", "Knee", "980/s", "99.9%"]
    {
        assert!(drawn.contains(words), "{words}");
    }
    // Seven charts, for two widths.
    assert_eq!(drawn.matches("<svg ").count(), 14);
    for path in drawn.split(" d=\"").skip(1) {
        let path = path.split('"').next().unwrap();
        assert!(path.starts_with('M') && !path.contains("NaN") && !path.contains("inf"), "{path}");
    }
    // A run without anything has a page too.
    assert!(page(&Report::default()).contains("no mail was taken"));
}

#[test]
fn ratios_are_of_the_second_by_the_first_and_settings_that_differ_are_named() {
    let (a, mut b) = (report(1_000, Duration::from_millis(10), ""), report(2_000, Duration::from_millis(5), ""));
    b.settings.insert("connection.count".into(), "77".into());
    b.settings.remove("seed");
    b.processes[1].name = "other".into();
    let compared = Comparison::of(&a, &b);
    let ratio = |name: &str| {
        compared.rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}")).ratio().unwrap()
    };
    for (name, wanted) in [
        ("taken", 2.0),
        ("delivered", 2.0),
        ("answer p50", 0.5),
        ("answer p99.99", 0.5),
        ("delivery max", 0.5),
        ("CPU per mail: lab", 0.5),
        ("CPU per mail: target and other", 0.5),
        ("peak RSS: lab", 1.0),
    ] {
        assert!((ratio(name) - wanted).abs() < wanted * 0.01, "{name}: {}", ratio(name));
    }
    let better = |name: &str| compared.rows.iter().find(|row| row.name == name).unwrap().better();
    assert_eq!([better("taken"), better("answer p50"), better("peak RSS: lab")], [Some(true), Some(true), None]);
    assert_eq!(Comparison::of(&b, &a).rows[0].better(), Some(false));
    assert!(compared.rows.iter().all(|row| !row.name.starts_with("connect")), "nobody connected");
    let named: Vec<&str> = compared.differs.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(named, ["connection.count", "seed"]);
    assert_eq!(compared.differs[1], Differs { key: "seed".into(), a: Some("1".into()), b: None });
    assert_eq!(Comparison::of(&a, &a).differs, []);
    let json = compared.to_json(["a.json", "b.json"]);
    assert_eq!(json["figures"][0]["name"], "taken");
    assert!((json["figures"][0]["ratio"].as_f64().unwrap() - 2.0).abs() < 0.01, "{json}");
}

/// The reports say of a fault what the page about them calls it.
#[test]
fn faults_are_called_as_they_are_explained() {
    use FaultKind::{Altered, Doubled, FalselyValid, InClear, Lost, Misdelivered, NotOpened};
    let page = include_str!("../../../docs/load.md");
    for one in [Doubled, Lost, Altered, NotOpened, Misdelivered, FalselyValid, InClear] {
        assert!(page.contains(&format!("\n| {} |", kind(one))), "{one:?}");
    }
}

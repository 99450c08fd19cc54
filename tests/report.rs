//! What `waxwing load` gives people to look at: tables, JSON, a page that a browser shows, a comparison.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "support/outside.rs"]
mod outside;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn waxwing(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_waxwing");
    Command::new("timeout").arg("100").arg(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// Runs a gateway of its own under load; the JSON that was printed, also in `NAME.json`, and the page in `NAME.html`.
fn load(folder: &Path, name: &str, more: &[&str]) -> Value {
    let page = folder.join(format!("{name}.html"));
    let mut arguments = vec!["load", "--json", "--report", page.to_str().unwrap()];
    arguments.extend(more);
    let output = waxwing(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    std::fs::write(folder.join(format!("{name}.json")), &output.stdout).unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

fn number(json: &Value, pointer: &str) -> f64 {
    json.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer}: {json:#}"))
}

#[test]
fn json_and_comparison_say_what_two_runs_did() {
    let folder = tempfile::tempdir().unwrap();
    let slow = load(folder.path(), "slow", &["--rate", "50", "--even", "--mails", "150"]);
    let quick = load(folder.path(), "quick", &["--rate", "100", "--even", "--mails", "300"]);
    for (json, mails) in [(&slow, 150.0), (&quick, 300.0)] {
        assert_eq!(json["good"], true, "{json:#}");
        for pointer in
            ["/sending/mails", "/answers/taken", "/account/taken", "/account/delivered", "/latency/delivery/count"]
        {
            assert_eq!(number(json, pointer), mails, "{pointer}");
        }
        let points = json["series"]["points"].as_array().unwrap();
        let taken: f64 = points.iter().map(|point| number(point, "/answers/taken")).sum();
        assert_eq!(taken, mails);
        assert!(number(json, "/latency/answer/max_us") >= number(json, "/latency/answer/p99_us"));
        // The lab, and the gateway that was started for the run.
        let names: Vec<&str> =
            json["processes"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["lab", "waxwing"]);
        for process in 0..2 {
            assert!(number(json, &format!("/processes/{process}/peak_rss")) > 1e6);
            assert!(
                number(json, &format!("/processes/{process}/user_us"))
                    + number(json, &format!("/processes/{process}/system_us"))
                    > 0.0
            );
        }
        assert_eq!(json["settings"]["pace.arrivals"], "even");
    }
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let output = waxwing(&["load", "compare", &at("slow.json"), &at("quick.json"), "--json"]);
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = compared["figures"].as_array().unwrap();
    let taken = figures.iter().find(|figure| figure["name"] == "taken").unwrap();
    let wanted = number(&quick, "/rates/taken_per_s") / number(&slow, "/rates/taken_per_s");
    assert!((number(taken, "/ratio") / wanted - 1.0).abs() < 1e-9 && wanted > 1.0, "{taken}");
    assert!(figures.iter().any(|figure| figure["name"] == "CPU per mail: waxwing"));
    let differs: Vec<&str> =
        compared["differs"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap()).collect();
    assert!(differs.contains(&"pace.rate") && !differs.contains(&"pace.arrivals"), "{differs:?}");

    let table = waxwing(&["load", "compare", &at("slow.json"), &at("quick.json"), "--report", &at("both.html")]);
    let table = text(&table.stdout);
    assert!(table.contains("answer p99.9") && table.contains("pace.rate"), "{table}");
    opens(&folder.path().join("both.html"), &["Comparison", "pace.rate", "Answer by percentile"]);
    let page = folder.path().join("quick.html");
    opens(&page, &["quick", "Throughput", "Latency by percentile", "every mail accounted for"]);
    looks(folder.path(), &page);

    // What is no report, and what cannot be written, is said before and with status 2.
    std::fs::write(folder.path().join("odd.json"), "{\"format\": 7}").unwrap();
    let nowhere = at("no/where.html");
    for arguments in [
        &["load", "compare", &at("slow.json"), &at("odd.json")][..],
        &["load", "compare", &at("none.json"), &at("slow.json")],
        &["load", "compare", &at("slow.json"), &at("slow.json"), "--report", &nowhere],
        &["load", "--mails", "5", "--report", &nowhere],
    ] {
        let output = waxwing(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let words = text(&output.stderr);
        assert!(
            words.contains("odd.json: format:") || words.contains("none.json") || words.contains("where.html"),
            "{words}"
        );
    }
}

/// A browser without a window opens a page; what it printed, and its log.
fn chromium(page: &Path, more: &[&str]) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["120", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"])
        .args(["--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(more)
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// Octets of a picture of this page, of this width.
fn picture(folder: &Path, page: &Path, width: u32, more: &[&str]) -> Vec<u8> {
    let file = folder.join("shot.png");
    let arguments = [format!("--screenshot={}", file.display()), format!("--window-size={width},900")];
    let (_, log) = chromium(page, &[&[arguments[0].as_str(), arguments[1].as_str()], more].concat());
    let octets = std::fs::read(&file).unwrap_or_else(|error| panic!("{error}: {log}"));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(&octets[..4], b"\x89PNG");
    assert_eq!(u32::from_be_bytes(octets[16..20].try_into().unwrap()), width);
    octets
}

/// A browser opens this page: no word on its console, and these words in its document.
fn opens(page: &Path, words: &[&str]) {
    if !outside::peers(&["chromium"]) {
        return;
    }
    let (document, log) = chromium(page, &["--dump-dom"]);
    assert!(!log.contains(":CONSOLE"), "the page complains: {log}");
    for word in words {
        assert!(document.contains(word), "{word}: {document}");
    }
    assert!(document.contains("<svg") && !document.contains("<script"), "{document}");
}

/// What somehow got in does not run, and pictures of this page, broad, narrow and dark, are not blank.
fn looks(folder: &Path, page: &Path) {
    if !outside::peers(&["chromium"]) {
        return;
    }
    // The policy forbids it, and the browser says so: complaints are seen where there are any.
    let with_script = "<script>document.title = 'ran'</script><main>";
    let spoilt = folder.join("spoilt.html");
    std::fs::write(&spoilt, std::fs::read_to_string(page).unwrap().replace("<main>", with_script)).unwrap();
    let (document, log) = chromium(&spoilt, &["--dump-dom"]);
    assert!(log.contains(":CONSOLE") && !document.contains("<title>ran"), "{log}");
    // A blank page of the same size is what a picture is measured by.
    let blank = folder.join("blank.html");
    std::fs::write(&blank, "<!DOCTYPE html><title>blank</title>").unwrap();
    let nothing = picture(folder, &blank, 1280, &[]).len();
    let light = picture(folder, page, 1280, &[]);
    let narrow = picture(folder, page, 500, &[]);
    let dark = picture(folder, page, 1280, &["--blink-settings=preferredColorScheme=0"]);
    for shot in [&light, &narrow, &dark] {
        assert!(shot.len() > nothing * 4, "{} octets, {nothing} when blank", shot.len());
    }
    assert_ne!(light, dark, "a dark page is another one");
}

//! A gateway as those who run it see it: numbers, readiness, the audit log, the service manager, and what it gives up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

#[path = "operation/counted.rs"]
mod counted;
#[path = "operation/served.rs"]
mod served;
#[path = "operation/shared.rs"]
mod shared;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use support::house::{House, Plan, plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use waxwing::audit::{AuditLog, chain};
use waxwing::config::{Audit, Config};
use waxwing::relay::gateway::Gateway;
use waxwing::store::CertStore;

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@partner.example";
const CARL: &str = "carl@partner.example";
const NEWS: &str = "news@partner.example";
const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:0\"\n";
const POLICY: &str = r#"
[[rule]]
name = "news"
match = { direction = "outbound", recipient = ["news@partner.example"] }
sign = "never"
encrypt = "never"
[default]
sign = "if-key"
encrypt = "require"
"#;

/// The status line and the body of an answer.
async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Samples as Prometheus would read them.
struct Scraped(String);

impl Scraped {
    async fn of(house: &House) -> Self {
        let (head, body) = get(house.gateway.watched_at().unwrap(), "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
        Self(body)
    }

    fn value(&self, sample: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no sample {sample} in\n{}", self.0)).parse().unwrap()
    }

    /// Names of families, each with its HELP before its TYPE.
    fn families(&self) -> BTreeSet<String> {
        let lines: Vec<&str> = self.0.lines().collect();
        let mut families = BTreeSet::new();
        for (at, line) in lines.iter().enumerate() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(lines[at - 1].starts_with(&format!("# HELP {name} ")), "{line}");
                assert!(families.insert(name.to_owned()), "{name} twice");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = family(name);
                assert!(families.contains(&family), "{line} stands before its family");
            }
        }
        families
    }
}

/// The family that a sample belongs to.
fn family(name: &str) -> String {
    let ends = ["_bucket", "_sum", "_count"];
    let base = ends.iter().find_map(|end| name.strip_suffix(end));
    base.filter(|base| base.ends_with("_seconds")).unwrap_or(name).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_scraped_is_what_was_sent() {
    let house = House::build(&Plan { policy: POLICY, top: METRICS, ..Plan::default() }).await;
    house.user(ANNA);
    house.partner(BERT);
    for _ in 0..3 {
        assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await.code, 250);
    }
    assert_eq!(house.send_out(ANNA, &[NEWS], &plain(ANNA, NEWS, "x", "y")).await.code, 250);
    let refused = house.send_out(ANNA, &[CARL], &plain(ANNA, CARL, "x", "y")).await;
    assert_eq!(refused.code / 100, 5, "{}", refused.octets);
    // What went out to anna comes back in, encrypted: it is opened out of the spool.
    assert_eq!(house.send_out(ANNA, &[ANNA], &plain(ANNA, ANNA, "x", "y")).await.code, 250);
    let sealed = house.world.wait(5).await.remove(4);
    assert_eq!(house.send_in(ANNA, &[ANNA], &sealed.message).await.code, 250);
    assert_eq!(house.send_in(CARL, &[ANNA], plain(CARL, ANNA, "x", "y").as_bytes()).await.code, 250);
    house.server.wait(2).await;
    house.settled().await;
    let idle = house.submit().await;
    let scraped = Scraped::of(&house).await;
    let mails = |way, fate| scraped.value(&format!("waxwing_mails_total{{direction=\"{way}\",outcome=\"{fate}\"}}"));
    assert_eq!(
        [mails("outbound", "relayed"), mails("outbound", "rejected"), mails("outbound", "spooled")],
        [5.0, 1.0, 0.0]
    );
    assert_eq!([mails("inbound", "relayed"), mails("inbound", "spooled"), mails("both", "relayed")], [1.0, 1.0, 0.0]);
    let ruled = |way, rule, treatment| {
        let labels = format!("rule=\"{rule}\",direction=\"{way}\",treatment=\"{treatment}\"");
        scraped.value(&format!("waxwing_recipients_total{{{labels}}}"))
    };
    assert_eq!(ruled("outbound", "default", "signed_encrypted"), 4.0);
    assert_eq!(ruled("outbound", "news", "clear"), 1.0);
    assert_eq!(ruled("outbound", "default", "refused"), 1.0);
    assert_eq!([ruled("inbound", "default", "to_be_opened"), ruled("inbound", "default", "judged")], [1.0, 1.0]);
    let keys = |operation| {
        scraped.value(&format!("waxwing_key_operations_total{{operation=\"{operation}\",outcome=\"done\"}}"))
    };
    assert_eq!([keys("sign"), keys("unwrap"), keys("agree")], [4.0, 1.0, 0.0]);
    assert_eq!(scraped.value("waxwing_verdicts_total{result=\"pass\"}"), 1.0);
    assert_eq!(scraped.value("waxwing_verdicts_total{result=\"none\"}"), 1.0);
    assert_eq!(scraped.value("waxwing_opened_total{decrypted=\"yes\"}"), 1.0);
    assert_eq!(scraped.value("waxwing_deliveries_total{outcome=\"delivered\"}"), 1.0);
    assert_eq!(scraped.value("waxwing_stage_seconds_count{stage=\"total\"}"), 8.0);
    assert_eq!(scraped.value("waxwing_stage_seconds_count{stage=\"key\"}"), 5.0);
    assert_eq!(scraped.value("waxwing_stage_seconds_bucket{stage=\"total\",le=\"+Inf\"}"), 8.0);
    assert!(scraped.value("waxwing_stage_seconds_sum{stage=\"total\"}") > 0.0);
    assert_eq!(scraped.value("waxwing_queue_entries{state=\"waiting\"}"), 0.0);
    assert_eq!(scraped.value("waxwing_connections{listener=\"out\"}"), 1.0);
    assert_eq!(scraped.value("waxwing_connections_total{listener=\"out\",outcome=\"accepted\"}"), 7.0);
    assert_eq!(scraped.value("waxwing_connections_total{listener=\"in\",outcome=\"accepted\"}"), 2.0);
    assert_eq!(scraped.value("waxwing_in_flight_octets"), 0.0);
    assert_eq!(scraped.value("waxwing_ready"), 1.0);
    assert_eq!(scraped.value("waxwing_store_alerts_total"), 0.0);
    assert_eq!(scraped.value(&format!("waxwing_next_hop_up{{next_hop=\"{}\"}}", house.world.address)), 1.0);
    drop(idle);
    // Nothing that mail brings is a label.
    for outside in ["partner.example", "ours.example", "anna", "127.0.0.1:0"] {
        assert!(!scraped.0.contains(outside), "{outside}: {}", scraped.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_counted_and_so_is_who_is_turned_away() {
    let top =
        format!("delivery = \"queue\"\n{METRICS}[limits]\nbytes_in_flight = \"1 MiB\"\nmessage_size = \"340 KiB\"\n");
    let house = House::build(&Plan { policy: POLICY, top: &top, retry: "first = \"1 h\"", ..Plan::default() }).await;
    house.world.fault(support::Fault::Dot(451));
    let mail = plain(ANNA, NEWS, "x", "y");
    assert_eq!(house.send_out(ANNA, &[NEWS], &mail).await.code, 250);
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while house.gateway.spool().stats().total().deferred.entries == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap();
    // Three times that may be in flight, and no more.
    let large = format!("MAIL FROM:<{ANNA}> SIZE=340000");
    let mut first = house.submit().await;
    assert_eq!(first.say(&large).await.code, 250);
    assert_eq!(house.submit().await.say(&large).await.code, 452);
    drop(first);
    let scraped = Scraped::of(&house).await;
    for state in ["waiting", "deferred"] {
        assert_eq!(scraped.value(&format!("waxwing_queue_entries{{state=\"{state}\"}}")), 1.0);
        let octets = scraped.value(&format!("waxwing_queue_octets{{state=\"{state}\"}}"));
        assert!(octets >= mail.len() as f64, "{octets}");
    }
    assert_eq!(scraped.value("waxwing_queue_entries{state=\"held\"}"), 0.0);
    assert!(scraped.value("waxwing_queue_oldest_seconds") > 0.0);
    assert_eq!(scraped.value("waxwing_mails_total{direction=\"outbound\",outcome=\"spooled\"}"), 1.0);
    assert_eq!(scraped.value("waxwing_deliveries_total{outcome=\"deferred\"}"), 1.0);
    assert_eq!(scraped.value("waxwing_turned_away_total{outcome=\"deferred\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_on_the_board_and_in_the_documents_is_scraped_and_every_scraped_one_is_documented() {
    let house = House::build(&Plan { top: METRICS, ..Plan::default() }).await;
    let families = Scraped::of(&house).await.families();
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|word| word.len() > "waxwing_".len() && word.starts_with("waxwing_")).map(family).collect()
    };
    let board: serde_json::Value = serde_json::from_str(include_str!("../contrib/grafana/waxwing.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let asked: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(asked.len() >= 15, "{asked:?}");
    let board = names(&asked.join("\n"));
    assert_eq!(board.difference(&families).collect::<Vec<_>>(), Vec::<&String>::new());
    // What says nothing over time, or stands beside what is there.
    let left_out = [
        "waxwing_audit_lines",
        "waxwing_build_info",
        "waxwing_certificates_looked_at_seconds",
        "waxwing_start_time_seconds",
        "waxwing_store_connected",
        "waxwing_store_generation",
        "waxwing_store_revision",
    ];
    assert_eq!(families.difference(&board).collect::<Vec<_>>(), left_out);
    let documented = names(include_str!("../docs/operation.md"));
    assert_eq!(documented, families);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_watch_are_answered_and_nothing_else_is() {
    let house = House::build(&Plan { top: METRICS, ..Plan::default() }).await;
    let address = house.gateway.watched_at().unwrap();
    for (path, status, body) in [("/healthz", 200, "alive\n"), ("/readyz", 200, "ready\n")] {
        let (head, said) = get(address, path).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && said == body, "{path}: {head} {said}");
    }
    assert!(get(address, "/etc/passwd").await.0.starts_with("HTTP/1.1 404 "));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"POST /metrics HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    // A head without end is cut off, not kept.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(&[b'x'; 64 << 10]).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    let without = House::new().await;
    assert_eq!(without.gateway.watched_at(), None, "off unless configured");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_spool_is_not_ready_until_somebody_looked() {
    let house = House::build(&Plan { policy: POLICY, top: METRICS, retry: "first = \"1 h\"", ..Plan::default() }).await;
    house.world.fault(support::Fault::Dot(451));
    for _ in 0..3 {
        assert_eq!(house.send_out(ANNA, &[NEWS], &plain(ANNA, NEWS, "x", &"y".repeat(5_000))).await.code, 250);
    }
    let House { folder, store, gateway, .. } = house;
    assert!(gateway.shut_down(std::time::Duration::from_secs(10)).await);
    let spool = folder.path().join("spool");
    let files = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    let log = files.filter(|file| file.extension().is_some_and(|end| end == "log")).max().unwrap();
    let mut octets = std::fs::read(&log).unwrap();
    // Within what was acknowledged, and not at its end.
    octets[2_000] ^= 1;
    std::fs::write(&log, octets).unwrap();
    let text = std::fs::read_to_string(folder.path().join("waxwing.toml")).unwrap();
    let config = Config::parse(&text, "waxwing.toml", &|_| Err("none".into())).unwrap();
    let started = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            // Its tasks give the folder up a moment after they were told to end.
            match Gateway::start(config.clone(), store.clone(), store.clone(), b"house").await {
                Ok(gateway) => return gateway,
                Err(error) => assert!(error.to_string().contains("in use by another process"), "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let gateway = started.await.unwrap();
    assert!(!gateway.recovered().damage.is_empty());
    let address = gateway.watched_at().unwrap();
    let (head, why) = get(address, "/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503 ") && why.contains("spool: no mail is taken"), "{head} {why}");
    assert!(get(address, "/healthz").await.0.starts_with("HTTP/1.1 200 "), "alive all the same");
    let (_, metrics) = get(address, "/metrics").await;
    assert!(metrics.contains("\nwaxwing_ready 0\n") && metrics.contains("\nwaxwing_spool_works 0\n"), "{metrics}");
    gateway.spool().accept_damage();
    assert_eq!(get(address, "/readyz").await.1, "ready\n");
}

/// The lines of a chain that is whole.
fn lines(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut verifier = chain::Verifier::default();
    for (at, line) in text.lines().enumerate() {
        verifier.line("audit", at as u64 + 1, line.as_bytes());
    }
    assert_eq!(verifier.finish(None, false).faults, []);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_use_of_a_key_is_written_down_and_without_the_log_no_key_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, elsewhere) = (folder.path().join("log"), folder.path().join("elsewhere"));
    std::fs::create_dir(&inside).unwrap();
    let file = inside.join("audit.log");
    let top = format!("{METRICS}[audit]\nfile = \"{}\"\n", file.display());
    let house = House::build(&Plan { policy: POLICY, top: &top, ..Plan::default() }).await;
    let anna = house.user(ANNA);
    house.partner(BERT);
    assert_eq!(house.send_out(ANNA, &[ANNA], &plain(ANNA, ANNA, "x", "y")).await.code, 250);
    let sealed = house.world.wait(1).await.remove(0);
    assert_eq!(house.send_in(ANNA, &[ANNA], &sealed.message).await.code, 250);
    house.server.wait(1).await;
    house.settled().await;
    let said = lines(&file);
    let words: Vec<(&str, &str, &str)> = said
        .iter()
        .map(|line| {
            (line["op"].as_str().unwrap(), line["mailbox"].as_str().unwrap(), line["outcome"].as_str().unwrap())
        })
        .collect();
    assert_eq!(words, [("sign", ANNA, "done"), ("unwrap", ANNA, "done")]);
    let fingerprint = chain::hex(&anna.fingerprint());
    for line in &said {
        assert_eq!(line["certificate"].as_str().unwrap(), fingerprint);
        assert_eq!(line["mail"].as_str().unwrap().len(), 14, "the id of the mail in the log: {line}");
    }

    // From here on nothing can be written.
    std::fs::rename(&inside, &elsewhere).unwrap();
    let refused = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await;
    assert_eq!(refused.code, 451, "{}", refused.octets);
    assert_eq!(house.world.mails().len(), 1, "nothing left");
    // What is to be opened waits in the spool.
    assert_eq!(house.send_in(ANNA, &[ANNA], &sealed.message).await.code, 250);
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while house.gateway.spool().stats().total().deferred.entries == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap();
    assert_eq!(house.server.mails().len(), 1, "it was not opened");
    let (head, why) = get(house.gateway.watched_at().unwrap(), "/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503 ") && why.starts_with("audit: "), "{head} {why}");
    // What needs no key goes on.
    assert_eq!(house.send_out(ANNA, &[NEWS], &plain(ANNA, NEWS, "x", "y")).await.code, 250);

    std::fs::rename(&elsewhere, &inside).unwrap();
    let back = house.server.wait(2).await.remove(1);
    assert!(back.text().contains("smime=pass"), "{}", back.text());
    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await.code, 250);
    let ops: Vec<String> = lines(&file).iter().map(|line| line["op"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ops.first_chunk(), Some(&["sign".to_owned(), "unwrap".to_owned(), "gap".to_owned()]), "{ops:?}");
    assert!(ops.iter().filter(|op| *op == "unwrap").count() == 2 && ops.last().unwrap() == "sign", "{ops:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_the_store_is_written_down_and_without_the_log_nothing_is_changed() {
    let house = House::new().await;
    let file = house.folder.path().join("audit.log");
    house.store.audit_to(AuditLog::open(&Audit { file: file.clone(), rotate: 1 << 20 }).unwrap(), "test");
    let anna = house.user(ANNA);
    let owner = waxwing::store::Owner::parse(ANNA).unwrap();
    let alias = waxwing::address::MailboxKey::parse("info@ours.example").unwrap();
    let mailbox = waxwing::address::MailboxKey::parse(ANNA).unwrap();
    house.store.set_trust(&owner, anna.fingerprint(), waxwing::policy::TrustState::Blocked).unwrap();
    house.disable(ANNA);
    house.store.add_alias(&alias, &mailbox).unwrap();
    house.store.remove_alias(&alias).unwrap();
    house.store.purge(&owner).unwrap();
    house.store.remove_trust(house.ca.certificate.fingerprint()).unwrap();
    let said: Vec<(String, String, String)> = lines(&file)
        .iter()
        .map(|line| {
            let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            assert_eq!((word("op"), word("by")), ("change".to_owned(), "test".to_owned()));
            (word("kind"), word("subject"), word("outcome"))
        })
        .collect();
    let has = |kind: &str, subject: &str, outcome: &str| {
        let is =
            |line: &&(String, String, String)| line.0 == kind && line.1.contains(subject) && line.2.contains(outcome);
        assert!(said.iter().any(|line| is(&line)), "{kind} {subject} {outcome}: {said:#?}");
    };
    has("certificate", ANNA, "trusted from import, with its private key");
    has("key", "", "stored");
    has("certificate", ANNA, "blocked from import");
    has("owner", ANNA, "disabled");
    has("alias", "info@ours.example", &format!("of {ANNA}"));
    has("alias", "info@ours.example", "removed");
    has("key", "", "removed");
    has("owner", ANNA, "purged");
    has("trust", "", "removed");
    let fingerprint = chain::hex(&anna.fingerprint());
    assert!(std::fs::read_to_string(&file).unwrap().contains(&fingerprint));
}

fn waxwing(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
    command.args(args).env("WAXWING_CONFIG", folder.join("waxwing.toml")).current_dir(folder);
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_written_down_and_the_log_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let top = format!("[audit]\nfile = \"{}\"\n", file.display());
    let house = House::build(&Plan { policy: POLICY, top: &top, ..Plan::default() }).await;
    house.user(ANNA);
    let run = |args: &[&str]| waxwing(house.folder.path(), args);
    for command in [&["cert", "block", ANNA][..], &["alias", "add", "info@ours.example", ANNA], &["cert", "list"]] {
        let ended = run(command);
        assert!(ended.status.success(), "{command:?}: {ended:?}");
    }
    let said = lines(&file);
    let by: BTreeSet<&str> = said.iter().map(|line| line["by"].as_str().unwrap()).collect();
    assert_eq!(by.len(), 2, "who only looks is not written down: {by:?}");
    assert!(by.iter().any(|by| by.starts_with("waxwing cert block, ")), "{by:?}");
    let good = run(&["audit", "verify"]);
    assert!(good.status.success(), "{good:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    let head = chain::hash(text.lines().last().unwrap().as_bytes());
    let shown = String::from_utf8(good.stdout).unwrap();
    assert!(shown.starts_with("whole: ") && shown.contains(&head), "{shown}");
    assert!(run(&["audit", "verify", "--knows", &head]).status.success());
    // An altered line is named, and so is a file without its end.
    std::fs::write(&file, text.replacen("blocked", "trusted", 1)).unwrap();
    let bad = run(&["audit", "verify", file.to_str().unwrap(), "--json"]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let told: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert!(told["faults"][0]["what"].as_str().unwrap().contains("was altered"), "{told}");
    let shorter: Vec<&str> = text.lines().collect();
    std::fs::write(&file, format!("{}\n", shorter[..shorter.len() - 1].join("\n"))).unwrap();
    assert_eq!(run(&["audit", "verify"]).status.code(), Some(0));
    let cut = run(&["audit", "verify", "--knows", &head]);
    assert_eq!(cut.status.code(), Some(1));
    assert!(String::from_utf8(cut.stdout).unwrap().contains("the end was cut off"));
    assert_eq!(run(&["audit", "verify", "nothing"]).status.code(), Some(2));
    // Without the log nothing is changed.
    std::fs::write(&file, "no log\n").unwrap();
    let refused = run(&["cert", "disable", ANNA]);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(!house.store.identity(&support::house::mailbox(ANNA)).unwrap().disabled);
}

#[test]
fn manual_pages_and_completions_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let made = waxwing(folder.path(), &["generate", "man", "man"]);
    assert!(made.status.success(), "{made:?}");
    for page in ["waxwing.1", "waxwing-serve.1", "waxwing-cert-import.1", "waxwing-audit-verify.1"] {
        let text = std::fs::read_to_string(folder.path().join("man").join(page)).unwrap();
        assert!(text.contains(".SH NAME") && text.contains("Example"), "{page}: {text}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let made = waxwing(folder.path(), &["generate", "completions", shell]);
        let text = String::from_utf8(made.stdout).unwrap();
        assert!(made.status.success() && text.contains("audit") && text.contains("serve"), "{shell}");
    }
}

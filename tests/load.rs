//! The load lab: what it says of a mail flow is true.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::forwarder::{Forwarder, Harm};
use tokio::sync::watch;
use waxwing::load::generator::{Phase, Target};
use waxwing::load::ledger::FaultKind;
use waxwing::load::run::{Outcome, Setup, run};
use waxwing::load::scenario::parse;

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Runs a scenario through a forwarder that does harm by plan.
async fn through(scenario: &str, plan: impl Fn(u64) -> Option<Harm> + Send + Sync + 'static) -> (Outcome, Forwarder) {
    let sink = free_address();
    let forwarder = Forwarder::start(sink, plan).await;
    let scenario = parse(&format!("name = 'test'\n{scenario}"), "test").unwrap_or_else(|errors| panic!("{errors:?}"));
    let target = Target::find(&forwarder.address.to_string(), false).await.unwrap();
    let (_phase, going) = watch::channel(Phase::Going);
    let setup = Setup { scenario, target, sink: Some(sink), processes: Vec::new() };
    let outcome = tokio::time::timeout(Duration::from_secs(120), run(setup, going)).await.unwrap().unwrap();
    (outcome, forwarder)
}

/// Mails a second by the lab's own account.
fn rate(outcome: &Outcome) -> f64 {
    outcome.account.taken as f64 / (outcome.sent.ended - outcome.sent.began).as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_harm_there_is_no_fault_and_counts_and_rates_agree_with_the_relay() {
    for pace in [
        "[pace]\nkind = 'closed'\n[bound]\ntime = '3 s'\n[connection]\ncount = 8",
        "[pace]\nkind = 'open'\nrate = 200\narrivals = 'even'\n[bound]\ntime = '3 s'",
        "[pace]\nkind = 'open'\nrate = 200\n[bound]\ntime = '3 s'",
    ] {
        let (outcome, forwarder) = through(pace, |_| None).await;
        let account = &outcome.account;
        assert_eq!(account.faults, [], "{pace}");
        let counted = forwarder.counted();
        assert_eq!((account.sent, account.taken, account.delivered), (counted.mails, counted.mails, counted.mails));
        let (ours, theirs) = (rate(&outcome), counted.rate());
        assert!((ours / theirs - 1.0).abs() < 0.05, "{pace}: {ours} by the lab, {theirs} by the relay");
        assert!(counted.mails > 400, "{pace}: {}", counted.mails);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn harm_is_named_with_the_mail_it_was_done_to() {
    let scenario = "[pace]\nkind = 'closed'\n[bound]\nmails = 10000\ndrain = '3 s'\n[connection]\ncount = 8\n[mail]\nsize = '1 KiB'";
    let plan = |number| match number {
        2_000 => Some(Harm::Drop),
        5_000 => Some(Harm::Double),
        8_000 => Some(Harm::Alter),
        _ => None,
    };
    let (outcome, forwarder) = through(scenario, plan).await;
    let counted = forwarder.counted();
    assert_eq!(outcome.account.faults.len(), 3, "{:?}", outcome.account.faults);
    for (harm, kind) in
        [(Harm::Drop, FaultKind::Lost), (Harm::Double, FaultKind::Doubled), (Harm::Alter, FaultKind::Altered)]
    {
        let (_, content) = counted.harmed.iter().find(|(done, _)| *done == harm).unwrap();
        let fault =
            outcome.account.faults.iter().find(|fault| fault.what == kind).unwrap_or_else(|| panic!("{kind:?}"));
        let id = fault.id.unwrap().to_string();
        assert!(String::from_utf8_lossy(content).contains(&id), "{kind:?} names {id}, harmed was another mail");
    }
    assert_eq!((outcome.account.sent, outcome.account.taken), (10_000, 10_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_of_two_seconds_is_in_the_p99_of_an_open_loop() {
    let stall = |number| (number == 300).then_some(Harm::Stall(Duration::from_secs(2)));
    let (outcome, _) = through("[pace]\nkind = 'open'\nrate = 200\n[bound]\ntime = '6 s'", stall).await;
    let (p50, p99) = outcome.latency;
    assert!(p99 >= Duration::from_millis(1_800) && p50 < Duration::from_secs(1), "p50 {p50:?}, p99 {p99:?}");
    assert_eq!(outcome.account.faults, []);
    // Without a stall it is not there.
    let (calm, _) = through("[pace]\nkind = 'open'\nrate = 200\n[bound]\ntime = '2 s'", |_| None).await;
    assert!(calm.latency.1 < Duration::from_secs(1), "{:?}", calm.latency);
}

fn waxwing(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_waxwing");
    Command::new("timeout").arg("100").arg(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_program_runs_a_gateway_of_its_own_and_says_that_all_is_well() {
    let output = waxwing(&["load", "--mails", "300", "--connections", "4"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("300"), "{text}");
}

#[test]
fn the_exit_status_tells_faults_from_a_run_that_could_not_begin() {
    let nobody = free_address().to_string();
    for arguments in [
        &["load", "--target", &nobody, "--patience", "1 s"][..],
        &["load", "--target", "192.0.2.1:25"],
        &["load", "--target", "nonsense"],
        &["load", "--target", &nobody, "--scenario", "no such"],
        &["load", "--target", &nobody, "--rate", "10", "--verify"],
    ] {
        let output = waxwing(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.starts_with("waxwing: ") || text.starts_with("error: "), "{text}");
    }
    // A target that loses every mail: nothing ever reaches the sink.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let sink = free_address();
    let forwarder = runtime.block_on(Forwarder::start(sink, |_| Some(Harm::Drop)));
    let (target, port) = (forwarder.address.to_string(), sink.port().to_string());
    let output = waxwing(&["load", "--target", &target, "--sink", &port, "--mails", "5", "--drain", "1 s"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_shipped_scenarios_are_listed_and_printed() {
    let output = waxwing(&["load", "scenarios"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["office", "newsletter", "invoices", "edi", "burst", "soak", "quick"] {
        assert!(text.contains(name), "{text}");
        let one = waxwing(&["load", "scenarios", name]);
        assert!(parse(&String::from_utf8_lossy(&one.stdout), name).is_ok(), "{name}");
    }
    assert_eq!(waxwing(&["load", "scenarios", "odd"]).status.code(), Some(2));
}

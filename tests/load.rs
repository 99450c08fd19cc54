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
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use support::forwarder::{Forwarder, Harm};
use tempfile::TempDir;
use tokio::sync::watch;
use waxwing::address::Mailbox;
use waxwing::load::generator::{Phase, Target};
use waxwing::load::ledger::{Account, FaultKind};
use waxwing::load::mails::people::{People, Person};
use waxwing::load::measure::Stage;
use waxwing::load::run::{Outcome, Setup, prepared, run};
use waxwing::load::scenario::{Scenario, parse};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::keyring::Kek;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn read(scenario: &str) -> Scenario {
    parse(&format!("name = 'test'\n{scenario}"), "test").unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// Runs a scenario against a target that hands on to `sink`.
async fn against(target: &str, sink: SocketAddr, scenario: &str) -> Result<Outcome, String> {
    with_people(target, sink, read(scenario), None).await
}

async fn with_people(
    target: &str,
    sink: SocketAddr,
    scenario: Scenario,
    people: Option<Arc<People>>,
) -> Result<Outcome, String> {
    let target = Target::find(target, false).await.unwrap();
    let (_phase, going) = watch::channel(Phase::Going);
    let mails = prepared(&scenario, people, Arc::new(quiet)).await?;
    let setup = Setup { scenario, mails, target, sink: Some(sink), processes: Vec::new() };
    tokio::time::timeout(Duration::from_secs(120), run(setup, going)).await.unwrap()
}

/// Runs a scenario through a forwarder that does harm by plan.
async fn through(scenario: &str, plan: impl Fn(u64) -> Option<Harm> + Send + Sync + 'static) -> (Outcome, Forwarder) {
    let sink = free_address();
    let forwarder = Forwarder::start(sink, plan).await;
    let outcome = against(&forwarder.address.to_string(), sink, scenario).await.unwrap();
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
    let stall = |number| (number == 100).then_some(Harm::Stall(Duration::from_secs(2)));
    let (outcome, _) = through("[pace]\nkind = 'open'\nrate = 50\n[bound]\ntime = '6 s'", stall).await;
    assert!(outcome.latency.1 >= Duration::from_millis(1_800), "{:?}", outcome.latency);
    let delivery = &outcome.figures.stages[Stage::Delivery as usize];
    assert!(delivery.p99 >= 1_000_000, "what waited arrived as late: {delivery:?}");
    assert_eq!(outcome.account.faults, []);
    // Without a stall it is not there.
    let (calm, _) = through("[pace]\nkind = 'open'\nrate = 50\n[bound]\ntime = '2 s'", |_| None).await;
    assert!(calm.latency.1 < Duration::from_millis(1_800), "{:?}", calm.latency);
}

/// The real program, serving, by way of its queue.
struct Served {
    folder: TempDir,
    address: SocketAddr,
    child: Child,
}

impl Served {
    /// Everything passes. `tls`: further lines of the listener.
    fn start(sink: SocketAddr, tls: impl Fn(&Path) -> String) -> Self {
        let rules = "[[rule]]\nname = \"all\"\npass = true\n[default]\n";
        Self::with_rules(sink, None, "outbound", rules, tls)
    }

    /// It has the keys of our people and the certificates of the others, and encrypts to everybody, but to who may be written to in clear.
    fn sealing(sink: SocketAddr, people: &People) -> Self {
        let rules = "[[rule]]\nname = \"clear\"\nmatch = { recipient = [\"@clear.partner.load.example\"] }\nencrypt = \"prefer\"\n\
                     [default]\nsign = \"if-key\"\nencrypt = \"require\"\n";
        Self::with_rules(sink, Some(people), "by-recipient", rules, |_| String::new())
    }

    fn with_rules(
        sink: SocketAddr,
        people: Option<&People>,
        direction: &str,
        rules: &str,
        tls: impl Fn(&Path) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        Kek::create(&at("kek")).unwrap();
        let store = EmbeddedStore::create(&at("store"), at("kek")).unwrap();
        people.into_iter().for_each(|people| import(&store, people));
        let (address, more) = (free_address(), tls(folder.path()));
        let text = format!(
            "hostname = \"gw.ours.example\"\ndomains = [\"ours.example\", \"ours.load.example\"]\ndelivery = \"queue\"\n\
             store = '{folder}/store'\nkek = '{folder}/kek'\nspool = '{folder}/spool'\n\
             [[listener]]\nname = \"out\"\naddress = \"{address}\"\ndirection = \"{direction}\"\ntrusted_networks = [\"127.0.0.0/8\"]\n{more}\n\
             [next_hop.outbound]\nhost = \"127.0.0.1\"\nport = {sink}\ntls = \"off\"\n\
             [next_hop.inbound]\nhost = \"127.0.0.1\"\nport = {sink}\ntls = \"off\"\n\
             [retry]\nfirst = \"1 s\"\n{rules}",
            folder = folder.path().display(),
            sink = sink.port(),
        );
        std::fs::write(at("waxwing.toml"), text).unwrap();
        let child = Self::serve(folder.path(), address);
        Self { folder, address, child }
    }

    fn serve(folder: &Path, address: SocketAddr) -> Child {
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_waxwing"))
            .arg("--config")
            .arg(folder.join("waxwing.toml"))
            .arg("serve")
            .env("RUST_LOG", "info,waxwing::relay=warn")
            .stderr(log)
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(address).is_err() {
            let told = std::fs::read_to_string(folder.join("log")).unwrap();
            assert!(Instant::now() < until, "it does not listen: {told}");
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    }

    fn kill_and_start_again(&mut self, pause: Duration) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::thread::sleep(pause);
        self.child = Self::serve(self.folder.path(), self.address);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_killed_and_started_again_is_waited_for_and_the_account_is_whole() {
    let sink = free_address();
    let mut served = Served::start(sink, |_| String::new());
    let target = served.address.to_string();
    let scenario =
        "[pace]\nkind = 'open'\nrate = 50\narrivals = 'even'\n[bound]\ntime = '4 s'\n[connection]\ncount = 8";
    let running = tokio::spawn(async move { against(&target, sink, scenario).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let served = tokio::task::spawn_blocking(move || {
        served.kill_and_start_again(Duration::from_millis(300));
        served
    });
    let _served = served.await.unwrap();
    let outcome = running.await.unwrap();
    let account = &outcome.account;
    assert_eq!(account.sent, account.taken + account.unknown + account.not_sent + account.deferred, "{account:?}");
    assert!(account.taken > 50 && account.unknown <= 8 && outcome.sent.broken > 0, "{account:?} {:?}", outcome.sent);
    // What was answered 250 has arrived; what came twice after a kill is told, and is no fault.
    assert_eq!(account.faults, [], "{account:?}");
    // Those that fell due meanwhile waited, and the figures say so.
    assert!(outcome.latency.1 >= Duration::from_millis(250), "{:?}", outcome.latency);
}

fn import(store: &EmbeddedStore, people: &People) {
    people.anchors().for_each(|one| store.add_trust(one.clone(), Some(AnchorScope::Global)).unwrap());
    let add = |person: &Person, with_key: bool| {
        let provenance = Provenance { source: "test".into(), detail: String::new(), at: Timestamp::now() };
        let new = NewCertificate {
            certificate: person.certificate.clone().unwrap(),
            provenance,
            trust: TrustState::Trusted,
            key: person.pkcs8().filter(|_| with_key).cloned(),
        };
        store.add_certificates(&Owner::Mailbox(person.mailbox.key()), vec![new]).unwrap();
    };
    people.ours.iter().for_each(|person| add(person, true));
    people.theirs.iter().for_each(|person| add(person, false));
}

fn quiet(_: &str, _: usize, _: usize) {}

fn made(scenario: &Scenario) -> Arc<People> {
    Arc::new(People::new(scenario, &quiet).unwrap())
}

const EACH_KIND: [&str; 8] =
    ["plain", "to-seal", "sealed", "signed", "unknown", "unknown-clear", "tampered", "wrong-key"];

fn mix(kinds: &[&str]) -> String {
    kinds.iter().map(|kind| format!("[[mix]]\nkind = '{kind}'\n")).collect()
}

fn whole(account: &Account) -> bool {
    account.sent == account.taken + account.unknown + account.not_sent + account.deferred + account.refused
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_comes_out_of_a_real_gateway_as_it_should() {
    let people = "[people]\nmade = 4\nkeys = ['rsa2048', 'p256']\n";
    let sink = free_address();
    let shared = made(&read(&format!("[pace]\nkind = 'closed'\n[bound]\nmails = 1\n{people}{}", mix(&EACH_KIND))));
    let served = Served::sealing(sink, &shared);
    let target = served.address.to_string();
    for kind in EACH_KIND {
        let scenario = format!(
            "[pace]\nkind = 'closed'\n[bound]\nmails = 40\n[connection]\ncount = 4\n[mail]\nrecipients = [1, 2]\n{people}{}",
            mix(&[kind])
        );
        let outcome = with_people(&target, sink, read(&scenario), Some(Arc::clone(&shared))).await.unwrap();
        let account = &outcome.account;
        assert_eq!((&account.faults[..], account.strangers), (&[][..], 0), "{kind}: {account:?}");
        assert!(whole(account) && account.sent >= 40, "{kind}: {account:?}");
        let expected = match kind {
            "unknown" => (0, account.sent, 0),
            _ => (account.sent, 0, account.sent),
        };
        assert_eq!((account.taken, account.refused_rightly, account.delivered), expected, "{kind}: {account:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_a_gateway_can_fail_is_named() {
    let people = "[people]\nmade = 2\nkeys = ['p256']\n";
    // A gateway that protects nothing and opens nothing: what it is to do is not done.
    for (kind, what) in [
        ("to-seal", FaultKind::InClear),
        ("sealed", FaultKind::NotOpened),
        ("signed", FaultKind::NotOpened),
        ("unknown", FaultKind::InClear),
    ] {
        let scenario =
            format!("[pace]\nkind = 'closed'\n[bound]\nmails = 10\n[connection]\ncount = 2\n{people}{}", mix(&[kind]));
        let (outcome, _) = through(&scenario, |_| None).await;
        let account = &outcome.account;
        assert_eq!((account.found.get(&what), account.found.len()), (Some(&10), 1), "{kind}: {account:?}");
        assert!(!account.is_good());
    }
    for kind in ["plain", "unknown-clear", "tampered", "wrong-key"] {
        let scenario =
            format!("[pace]\nkind = 'closed'\n[bound]\nmails = 10\n[connection]\ncount = 2\n{people}{}", mix(&[kind]));
        assert!(through(&scenario, |_| None).await.0.account.is_good(), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_mail_in_clear_among_many_sealed_ones_is_named() {
    let sink = free_address();
    let scenario = read(
        "[pace]\nkind = 'closed'\n[bound]\nmails = 400\ndrain = '10 s'\n[connection]\ncount = 4\n[mail]\nsize = '1 KiB'\n\
         [people]\nmade = 2\nkeys = ['p256']\n[[mix]]\nkind = 'to-seal'",
    );
    let people = made(&scenario);
    let served = Served::sealing(sink, &people);
    let forwarder = Forwarder::start(served.address, move |number| (number == 200).then_some(Harm::Bypass(sink))).await;
    let outcome = with_people(&forwarder.address.to_string(), sink, scenario, Some(people)).await.unwrap();
    let faults = &outcome.account.faults;
    assert_eq!((faults.len(), faults[0].what), (1, FaultKind::InClear), "{faults:?}");
    let counted = forwarder.counted();
    let (_, content) = &counted.harmed[0];
    assert!(String::from_utf8_lossy(content).contains(&faults[0].id.unwrap().to_string()));
    assert_eq!((outcome.account.delivered, counted.mails), (400, 400));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_people_of_a_store_write_and_read() {
    let sink = free_address();
    let people = made(&read("[pace]\nkind = 'knee'\n[people]\nmade = 3\nkeys = ['p256']"));
    let served = Served::sealing(sink, &people);
    // The store is in use by the gateway, which has no private key of the others: what they write is sealed, not signed.
    let scenario = format!(
        "[pace]\nkind = 'closed'\n[bound]\nmails = 60\n[connection]\ncount = 4\n[people]\nstore = '{}/waxwing.toml'\n{}",
        served.folder.path().display(),
        mix(&["plain", "to-seal", "sealed", "tampered", "wrong-key", "unknown"])
    );
    let outcome = against(&served.address.to_string(), sink, &scenario).await.unwrap();
    assert_eq!(outcome.account.faults, [], "{:?}", outcome.account);
    assert!(outcome.account.delivered > 30 && outcome.account.refused_rightly > 0, "{:?}", outcome.account);
    let signed = format!("{scenario}[[mix]]\nkind = 'signed'\n");
    let why = against(&served.address.to_string(), sink, &signed).await.unwrap_err();
    assert!(why.contains("private key"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_mails_of_a_folder_and_an_mbox_are_sealed_and_opened() {
    let folder = tempfile::tempdir().unwrap();
    let mails = folder.path().join("mails");
    std::fs::create_dir(&mails).unwrap();
    std::fs::write(mails.join("a.eml"), "From: x@y\nSubject: one\nReceived: by z\n\nline\nFrom here on\n").unwrap();
    let html = "Content-Type: multipart/alternative; boundary=b\r\nSubject: =?utf-8?q?=C3=BC?=\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
                Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<p>\u{fc}</p>\r\n--b--\r\n";
    std::fs::write(mails.join("b.eml"), html).unwrap();
    let mbox = folder.path().join("box");
    std::fs::write(&mbox, "From a Mon Jan  1 00:00:00 2026\nSubject: m\n\n>From the mbox\n\nFrom b x\n\nsecond\n")
        .unwrap();
    let sink = free_address();
    let people = made(&read("[pace]\nkind = 'knee'\n[people]\nmade = 2\nkeys = ['p256']\n"));
    let served = Served::sealing(sink, &people);
    for contents in [format!("{{ folder = '{}' }}", mails.display()), format!("{{ mbox = '{}' }}", mbox.display())] {
        let scenario = read(&format!(
            "[pace]\nkind = 'closed'\n[bound]\nmails = 40\n[connection]\ncount = 4\n[mail]\ncontents = {contents}\n\
             [people]\nmade = 2\n{}",
            mix(&["plain", "to-seal", "sealed", "signed"])
        ));
        let outcome =
            with_people(&served.address.to_string(), sink, scenario, Some(Arc::clone(&people))).await.unwrap();
        let account = &outcome.account;
        assert_eq!((&account.faults[..], account.delivered), (&[][..], 40), "{contents}: {account:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_faulty_sink_every_mail_is_delivered_or_bounced() {
    let sink = free_address();
    let scenario = read(
        "[pace]\nkind = 'closed'\n[bound]\nmails = 60\ndrain = '60 s'\n[connection]\ncount = 4\n[people]\nmade = 2\nkeys = ['p256']\n\
         [sink]\ndefer = 0.2\nrefuse = 0.2\nclose = 0.1\nslow = '5 ms'\nstall = 0.02\nstall_for = '200 ms'\n[[mix]]\nkind = 'to-seal'",
    );
    let people = made(&scenario);
    let served = Served::sealing(sink, &people);
    let outcome = with_people(&served.address.to_string(), sink, scenario, Some(people)).await.unwrap();
    let account = &outcome.account;
    assert_eq!(account.faults, [], "{account:?}");
    assert_eq!((account.taken, account.delivered + account.bounced), (60, 60), "{account:?}");
    assert!(account.bounced > 3 && account.delivered > 20, "{account:?}");
}

fn pem(folder: &Path, name: &str, label: &str, der: &[u8]) -> PathBuf {
    let file = folder.join(name);
    let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_begins_as_told_and_certificates_are_judged_as_told() {
    let authority = issue(&Recipe::authority("Root", Timestamp::now(), NewKey::P256), None);
    let mut recipe = Recipe::mailbox("localhost", Timestamp::now(), NewKey::P256);
    recipe.mailboxes = Vec::new();
    recipe.hosts = vec!["localhost".into()];
    recipe.key_usage = vec!["digitalSignature"];
    recipe.email_protection = Some(false);
    let server: Issued = issue(&recipe, Some(&authority));
    let files = tempfile::tempdir().unwrap();
    let ca = pem(files.path(), "ca.pem", "CERTIFICATE", authority.certificate.der());
    for (listener, told) in [("starttls-required", "starttls"), ("implicit", "implicit")] {
        let sink = free_address();
        let served = Served::start(sink, |folder| {
            let certificate = pem(folder, "tls.pem", "CERTIFICATE", server.certificate.der());
            let key = pem(folder, "tls.key", "PRIVATE KEY", &server.pkcs8);
            format!("tls = \"{listener}\"\ncertificate = \"{}\"\nkey = \"{}\"", certificate.display(), key.display())
        });
        let run = async |host: &str, tls: &str, verify: &str| {
            let target = format!("{host}:{}", served.address.port());
            let scenario = format!(
                "[pace]\nkind = 'closed'\n[bound]\nmails = 20\n[connection]\ncount = 3\nmails = 5\ntls = '{tls}'\npatience = '2 s'\n{verify}"
            );
            against(&target, sink, &scenario).await
        };
        let by_file = format!("verify = '{}'", ca.display());
        for verify in ["", "verify = false", &by_file] {
            let outcome = run("localhost", told, verify).await.unwrap_or_else(|why| panic!("{told} {verify}: {why}"));
            assert_eq!((outcome.account.taken, outcome.account.delivered), (20, 20), "{told} {verify}");
        }
        let other_name = run("127.0.0.1", told, &by_file).await.unwrap_err();
        assert!(other_name.contains("certificate"), "{other_name}");
        let unknown_ca = run("localhost", told, "verify = true").await.unwrap_err();
        assert!(unknown_ca.contains("certificate") || unknown_ca.contains("CAs"), "{unknown_ca}");
        let other_way = if told == "starttls" { "implicit" } else { "starttls" };
        assert!(run("localhost", other_way, "").await.is_err());
    }
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
    let json = waxwing(&["load", "scenarios", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((list[0]["name"].as_str(), list.as_array().unwrap().len()), (Some("quick"), 7));
    assert_eq!(waxwing(&["load", "scenarios", "odd"]).status.code(), Some(2));
}

#[test]
fn people_are_made_as_files_and_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("people").display().to_string();
    let made =
        ["load", "people", &at, "--made", "2", "--keys", "p256", "--ours", "here.example", "--theirs", "there.example"];
    let output = waxwing(&made);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let person = Mailbox::parse("p256.01@here.example").unwrap();
    assert!(folder.path().join(format!("people/ours/{person}.p12")).exists());
    assert_eq!(waxwing(&made).status.code(), Some(2), "nothing is written over");
    let mix = "plain,to-seal,sealed,signed,unknown,unknown-clear,tampered,wrong-key";
    let output = waxwing(&["load", "--people", &at, "--mix", mix, "--mails", "80", "--connections", "4"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let output = waxwing(&["load", "--mix", "to-seal", "--mails", "5"]);
    assert_eq!(output.status.code(), Some(2), "named people have no keys");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--made"));
}

#[test]
fn every_shipped_scenario_runs_and_finds_nothing() {
    for name in ["office", "newsletter", "invoices", "edi", "burst", "soak"] {
        let output = waxwing(&["load", "--scenario", name, "--time", "2 s", "--drain", "60 s"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("mails in"), "{name}: {text}");
    }
}

#[test]
fn a_signal_stops_the_sending_and_the_account_is_still_given() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_waxwing"))
        .args(["load", "--rate", "100", "--time", "10 min"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let told = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(told.success());
    let until = Instant::now() + Duration::from_secs(40);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let (text, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{text}{words}");
    assert!(words.contains("stopping"), "{words}");
    assert!(text.contains("taken"), "{text}");
}

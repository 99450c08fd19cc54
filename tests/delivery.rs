//! Delivery end to end: splitting with every combination of outcomes (T4), next hops that fail, stall and come back, delivery reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/outside.rs"]
mod outside;
mod support;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use support::Client;
use support::house::{House, Plan, plain};
use support::teller::{At, Manner, Silent, Teller};
use waxwing::address::Domain;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{NewKey, Recipe, issue};
use waxwing::pki::certificate::Certificate;
use waxwing::policy::TrustState;
use waxwing::smime::open::recipient_ids;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};

const ANNA: &str = "anna@ours.example";
const CLEAR: &str = "[default]\nencrypt = \"never\"\n";
const OUTCOMES: [&str; 4] = ["ok", "later", "never", "drop"];

fn hop_table(name: &str, teller: &Teller, more: &str) -> String {
    format!("[next_hop.{name}]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n{more}\n", teller.address.port())
}

/// Every combination of outcomes for 1 to 4 recipients, as their addresses.
fn combinations() -> Vec<Vec<String>> {
    let mut all: Vec<Vec<&str>> = vec![vec![]];
    let mut cases = Vec::new();
    for _ in 1..=4 {
        all = all.iter().flat_map(|some| OUTCOMES.map(|one| [some.as_slice(), &[one]].concat())).collect();
        cases.extend(all.iter().cloned());
    }
    let named = |(case, outcomes): (usize, Vec<&str>)| {
        let address = |(at, outcome): (usize, &&str)| {
            let taken = if (case + at).is_multiple_of(2) { "t" } else { "n" };
            format!("{outcome}.{case}.{at}.{taken}@partner.example")
        };
        outcomes.iter().enumerate().map(address).collect()
    };
    cases.into_iter().enumerate().map(named).collect()
}

#[derive(Debug, Clone, Copy)]
struct Variant {
    delivery: &'static str,
    /// Each recipient an output of its own, all but the first blind.
    split: bool,
    lmtp_hop: bool,
    lmtp_client: bool,
    at: At,
}

/// What became of recipients, over all cases.
#[derive(Debug, Default)]
struct Figures {
    cases: usize,
    recipients: usize,
    delivered: usize,
    twice: usize,
    bounced: usize,
    refused: usize,
    lost: Vec<String>,
    both: Vec<String>,
    late_refusals: Vec<String>,
}

/// What the client heard for one recipient: at RCPT, or at the final dot.
async fn submit(client: &mut Client, variant: Variant, to: &[String]) -> Vec<u16> {
    assert_eq!(client.say(&format!("MAIL FROM:<{ANNA}>")).await.code, 250);
    let mut heard = Vec::new();
    for address in to {
        heard.push(client.say(&format!("RCPT TO:<{address}>")).await.code);
    }
    let accepted = heard.iter().filter(|code| **code == 250).count();
    if accepted == 0 {
        client.say("RSET").await;
        return heard;
    }
    // Blind copies get an output each; where nothing is split they stand in To.
    let shown = if variant.split { to[0].clone() } else { to.join(", ") };
    let message = plain(ANNA, &shown, "x", "the content");
    let mut finals = vec![client.data(message.as_bytes()).await.code];
    while variant.lmtp_client && finals.len() < accepted {
        finals.push(client.hear().await.code);
    }
    let mut finals = finals.into_iter().cycle();
    let last = |code: u16| if code == 250 { finals.next().unwrap() } else { code };
    heard.into_iter().map(last).collect()
}

async fn run(variant: Variant) -> Figures {
    let at = variant.at;
    let world = Teller::start(Manner { lmtp: variant.lmtp_hop, at, ..Manner::default() }).await;
    let home = Teller::start(Manner::default()).await;
    let hops =
        hop_table("outbound", &world, &format!("lmtp = {}", variant.lmtp_hop)) + &hop_table("inbound", &home, "");
    let policy = if variant.split { "[default]\nencrypt = \"require\"\ndomain-key = true\n" } else { CLEAR };
    let top = format!("delivery = \"{}\"", variant.delivery);
    let plan = Plan {
        policy,
        top: &top,
        hops: Some(&hops),
        retry: "first = \"10 ms\"\nlongest = \"20 ms\"",
        ..Plan::default()
    };
    let house = House::build(&plan).await;
    domain_certificate(&house);
    let listener = if variant.lmtp_client { "lmtp" } else { "out" };
    let address = house.gateway.address(listener).unwrap();
    let mut client =
        if variant.lmtp_client { Client::connect_lmtp(address).await } else { Client::connect(address).await };
    let mut figures = Figures::default();
    let mut accepted = Vec::new();
    for to in combinations() {
        figures.cases += 1;
        let heard = submit(&mut client, variant, &to).await;
        let refused_and_taken = |(address, code): (&String, &u16)| code / 100 != 2 && world.taken(address) > 0;
        // A connection that was lost is "unknown", and a refusal after it is honest.
        let late = to.iter().zip(&heard).filter(|one| refused_and_taken(*one) && !one.0.starts_with("drop."));
        figures.late_refusals.extend(late.map(|(address, code)| format!("{code} {address}")));
        for (address, code) in to.into_iter().zip(heard) {
            match code {
                250 => accepted.push(address),
                _ => figures.refused += 1,
            }
        }
    }
    house.settled().await;
    account(&mut figures, &accepted, &world, &home);
    figures
}

fn account(figures: &mut Figures, accepted: &[String], world: &Teller, home: &Teller) {
    let reports: Vec<String> =
        home.ledger().mails.iter().map(|(_, content)| String::from_utf8_lossy(content).into_owned()).collect();
    let mut bounced: BTreeMap<&str, usize> = BTreeMap::new();
    for line in reports.iter().flat_map(|report| report.lines()) {
        if let Some(address) = line.strip_prefix("Final-Recipient: rfc822; ") {
            *bounced.entry(address).or_default() += 1;
        }
    }
    for address in accepted {
        figures.recipients += 1;
        let (taken, told) = (world.taken(address), bounced.get(address.as_str()).copied().unwrap_or_default());
        figures.delivered += usize::from(taken > 0);
        figures.twice += usize::from(taken > 1);
        figures.bounced += usize::from(told > 0);
        let fate = format!("{address}: taken {taken}, told {told}");
        match (taken, told) {
            (0, 0) => figures.lost.push(fate),
            (1.., 1..) | (_, 2..) => figures.both.push(fate),
            _ => {}
        }
        let expected = if address.starts_with("never.") { taken == 0 } else { told == 0 };
        assert!(expected && (taken <= 1 || address.starts_with("drop.")), "{address}: taken {taken}, told {told}");
    }
}

/// A certificate that stands in for everyone at partner.example.
fn domain_certificate(house: &House) {
    let address = "domain-confidentiality-authority@partner.example";
    let issued = issue(&Recipe::mailbox(address, Timestamp::now(), NewKey::P256), Some(&house.ca));
    let provenance = Provenance { source: "import".into(), detail: "test".into(), at: Timestamp::now() };
    let new = NewCertificate { certificate: issued.certificate, provenance, trust: TrustState::Trusted, key: None };
    house.store.add_certificates(&Owner::Domain(Domain::parse("partner.example").unwrap()), vec![new]).unwrap();
}

async fn every_combination(variants: &[Variant]) {
    for variant in variants {
        let figures = run(*variant).await;
        println!("T4 {variant:?}: {figures:?}");
        assert_eq!(figures.cases, 340);
        assert!(figures.lost.is_empty() && figures.both.is_empty() && figures.late_refusals.is_empty(), "{figures:?}");
        assert!(figures.recipients > 300 && figures.recipients + figures.refused == 4 + 2 * 16 + 3 * 64 + 4 * 256);
    }
}

const SPLIT: Variant =
    Variant { delivery: "cut-through", split: true, lmtp_hop: false, lmtp_client: false, at: At::Dot };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t04_every_combination_of_outcomes_of_split_mails() {
    let lmtp_client = Variant { lmtp_client: true, ..SPLIT };
    every_combination(&[SPLIT, Variant { delivery: "queue", ..SPLIT }, lmtp_client]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t04_every_combination_of_outcomes_within_one_mail() {
    let one = Variant { split: false, ..SPLIT };
    let lmtp_hop = Variant { lmtp_hop: true, ..one };
    let at_rcpt = Variant { at: At::Rcpt, ..one };
    every_combination(&[
        lmtp_hop,
        Variant { lmtp_client: true, ..lmtp_hop },
        Variant { delivery: "queue", ..lmtp_hop },
        at_rcpt,
        Variant { delivery: "queue", ..at_rcpt },
    ])
    .await;
}

/// A gateway whose outbound mail goes to `world`, and whose own people are at `home`.
async fn between(world: &Teller, home: &Teller, top: &str) -> House {
    let hops = hop_table("outbound", world, "") + &hop_table("inbound", home, "");
    House::build(&Plan { policy: CLEAR, top, hops: Some(&hops), retry: "first = \"100 ms\"", ..Plan::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_next_hop_that_stalls_with_500_mails_holds_up_no_other() {
    let stalled = Teller::start(Manner { silent: Some(Silent::Greeting), ..Manner::default() }).await;
    let home = Teller::start(Manner::default()).await;
    let house = between(&stalled, &home, "delivery = \"queue\"").await;
    let mut client = house.submit().await;
    for number in 0..500 {
        let to = format!("ok.{number}@partner.example");
        assert_eq!(client.send(ANNA, &[&to], plain(ANNA, &to, "x", "y").as_bytes()).await.code, 250);
    }
    assert!(stalled.ledger().connections > 0, "it is being tried");
    let mut outside = house.outside().await;
    for number in 0..20 {
        let (from, to) = ("b@partner.example", format!("ok.{number}@ours.example"));
        assert_eq!(outside.send(from, &[&to], plain(from, &to, "x", "y").as_bytes()).await.code, 250);
    }
    until("the other hop's mail", || home.ledger().taken.len() == 20).await;
    assert!(stalled.ledger().taken.is_empty());
    until("500 left", || house.gateway.spool().entries().len() == 500).await;
    assert!(stalled.ledger().connections <= 17, "{}", stalled.ledger().connections);
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited half a minute for {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_preference_takes_over_and_gives_back() {
    for delivery in ["cut-through", "queue"] {
        let second = Teller::start(Manner::default()).await;
        // A port that refuses until somebody listens there again.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let first = listener.local_addr().unwrap();
        drop(listener);
        let hop = |port: u16, preference: u16| {
            format!(
                "[[next_hop.outbound]]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"off\"\npreference = {preference}\n"
            )
        };
        let hops = hop(second.address.port(), 20) + &hop(first.port(), 10) + &hop_table("inbound", &second, "");
        let top = format!("delivery = \"{delivery}\"");
        let retry = "first = \"200 ms\"\nlongest = \"200 ms\"";
        let house = House::build(&Plan { policy: CLEAR, top: &top, hops: Some(&hops), retry, ..Plan::default() }).await;
        let mut client = house.submit().await;
        for number in 0..3 {
            let to = format!("ok.{number}@partner.example");
            assert_eq!(client.send(ANNA, &[&to], plain(ANNA, &to, "x", "y").as_bytes()).await.code, 250);
        }
        until("the second hop has them", || second.ledger().taken.len() == 3).await;
        house.settled().await;
        let health = house.gateway.next_hops();
        let of = |port: u16| health.iter().find(|status| status.hop.port == port).unwrap();
        assert!(of(first.port()).failed >= 1 && of(first.port()).last_error.is_some(), "{health:?}");
        assert_eq!((of(second.address.port()).answered, of(second.address.port()).failures), (3, 0), "{health:?}");
        let back = Teller::serve_on(tokio::net::TcpListener::bind(first).await.unwrap(), Manner::default());
        let mut number = 3;
        while back.ledger().taken.is_empty() {
            let to = format!("ok.{number}@partner.example");
            assert_eq!(client.send(ANNA, &[&to], plain(ANNA, &to, "x", "y").as_bytes()).await.code, 250);
            number += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(number < 1_000, "the first hop was never tried again");
        }
        house.settled().await;
        assert_eq!(back.ledger().taken.len() + second.ledger().taken.len(), number);
        let health = house.gateway.next_hops();
        assert!(health.iter().all(|status| status.aside_until.is_none() && status.failures == 0), "{health:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_hop_are_bounded_and_used_again() {
    let (slow, home) = (Teller::start(Manner::default()).await, Teller::start(Manner::default()).await);
    let hops =
        hop_table("outbound", &slow, "connections = 4\nspool_connections = 1") + &hop_table("inbound", &home, "");
    let plan = Plan { policy: CLEAR, hops: Some(&hops), retry: "first = \"100 ms\"", ..Plan::default() };
    let house = House::build(&plan).await;
    // Three clients hold a transaction each; the fourth's mail goes to the spool, and by its own connection all the same.
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut client = house.submit().await;
        client.say(&format!("MAIL FROM:<{ANNA}>")).await;
        assert_eq!(client.say(&format!("RCPT TO:<ok.{number}@partner.example>")).await.code, 250);
        clients.push(client);
    }
    assert_eq!(slow.ledger().connections, 3);
    let mut fourth = clients.pop().unwrap();
    assert_eq!(fourth.data(plain(ANNA, "x@partner.example", "x", "y").as_bytes()).await.code, 250);
    house.settled().await;
    assert_eq!((slow.ledger().connections, slow.ledger().taken.len()), (4, 1));
    for mut client in clients {
        assert_eq!(client.data(plain(ANNA, "x@partner.example", "x", "y").as_bytes()).await.code, 250);
    }
    house.settled().await;
    for number in 10..40 {
        let to = format!("ok.{number}@partner.example");
        assert_eq!(fourth.send(ANNA, &[&to], plain(ANNA, &to, "x", "y").as_bytes()).await.code, 250);
    }
    let ledger = slow.ledger();
    assert_eq!((ledger.taken.len(), ledger.connections), (34, 4), "34 mails over four connections");
}

/// Reads a report as others do: with Python's own parser. Prints what it found, a line each.
const READER: &str = r#"
import sys, email, email.policy
message = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.default)
assert not message.defects, message.defects
assert message.get_content_type() == "multipart/report", message.get_content_type()
assert message.get_param("report-type") == "delivery-status"
assert message["Auto-Submitted"] and message["Message-ID"] and message["Date"].datetime and message["MIME-Version"] == "1.0"
text, status, headers = message.get_payload()
assert not any(part.defects for part in message.walk())
assert text.get_content_type() == "text/plain" and text.get_content().strip()
assert status.get_content_type() == "message/delivery-status"
assert headers.get_content_type() == "text/rfc822-headers"
original = email.message_from_string(headers.get_payload(), policy=email.policy.default)
print("subject", message["Subject"]); print("to", message["To"]); print("original", original["Subject"], original.get_payload().strip())
for at, block in enumerate(status.get_payload()):
    assert not block.defects
    for name, value in block.items():
        print(at, name, value)
"#;

/// `None`: there is no Python here.
fn read_by_python(report: &[u8]) -> Option<String> {
    use std::io::Write;
    if !outside::peers(&["python3"]) {
        return None;
    }
    let mut python = Command::new("python3");
    python.args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdin.take().unwrap().write_all(report).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(report)
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Says MAIL and RCPT with parameters, and gives the answer to the final dot.
async fn with_parameters(client: &mut Client, mail: &str, to: &[(&str, &str)], body: &str) -> u16 {
    let said = client.say(&format!("MAIL FROM:<{ANNA}> {mail}")).await;
    assert_eq!(said.code, 250, "{}", said.octets);
    for (address, parameters) in to {
        let said = client.say(&format!("RCPT TO:<{address}> {parameters}")).await;
        assert_eq!(said.code, 250, "{}", said.octets);
    }
    client.data(plain(ANNA, to[0].0, "Angebot", body).as_bytes()).await.code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a33_reports_are_read_by_others_and_hold_headers_only() {
    let (world, home) = (Teller::start(Manner::default()).await, Teller::start(Manner::default()).await);
    let hops = hop_table("outbound", &world, "") + &hop_table("inbound", &home, "");
    let retry = "first = \"10 ms\"\nlongest = \"20 ms\"\nwarn = \"10 ms\"\nexpire = \"2 s\"";
    let plan = Plan { policy: CLEAR, top: "delivery = \"queue\"", hops: Some(&hops), retry, ..Plan::default() };
    let house = House::build(&plan).await;
    let mut client = house.submit().await;
    let kinds = [
        ("never.1@partner.example", "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bert+2B1@partner.example", "failed"),
        ("ok.2@partner.example", "NOTIFY=SUCCESS ORCPT=rfc822;two@partner.example", "relayed"),
        ("late.3@partner.example", "NOTIFY=DELAY ORCPT=rfc822;three@partner.example", "delayed"),
    ];
    for (address, parameters, action) in kinds {
        let before = home.ledger().mails.len();
        let code =
            with_parameters(&mut client, "RET=FULL ENVID=id-7+2B8", &[(address, parameters)], "the secret").await;
        assert_eq!(code, 250);
        until(action, || home.ledger().mails.len() > before).await;
        let report = home.ledger().mails[before].1.clone();
        assert!(!String::from_utf8_lossy(&report).contains("the secret"));
        let Some(read) = read_by_python(&report) else { return };
        for line in [
            format!("to {ANNA}"),
            "original Angebot ".to_owned(),
            "0 Original-Envelope-Id id-7+8".to_owned(),
            "0 Reporting-MTA dns; gw.ours.example".to_owned(),
            format!("1 Final-Recipient rfc822; {address}"),
            format!("1 Action {action}"),
            "1 Remote-MTA dns; [127.0.0.1]".to_owned(),
        ] {
            assert!(read.contains(&format!("{line}\n")), "{line} in {read}");
        }
        let (status, orcpt) = match action {
            "failed" => ("1 Status 5.0.0", "1 Original-Recipient rfc822; Bert+1@partner.example"),
            "relayed" => ("1 Status 2.", "1 Original-Recipient rfc822; two@partner.example"),
            _ => ("1 Status 4.0.0", "1 Will-Retry-Until "),
        };
        assert!(read.contains(status) && read.contains(orcpt), "{status} {orcpt} in {read}");
    }
    house.settled().await;
    assert_eq!((world.taken("late.3@partner.example"), home.ledger().mails.len()), (1, 3));
    let expressions = home.ledger().commands.iter().filter(|line| line.starts_with("MAIL FROM:<>")).count();
    assert_eq!(expressions, 3, "reports come from nobody, so that none is answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_of_us_is_handed_on_where_it_can_be() {
    let mail = "RET=FULL ENVID=id-7+2B8";
    let asked = [
        ("ok.1@partner.example", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;one+40x@partner.example"),
        ("ok.2@partner.example", "NOTIFY=NEVER"),
        ("ok.3@partner.example", ""),
    ];
    for (delivery, dsn) in [("cut-through", true), ("queue", true), ("cut-through", false), ("queue", false)] {
        let offers: &[&str] = if dsn { &["PIPELINING", "DSN"] } else { &["PIPELINING"] };
        let world = Teller::start(Manner { offers, ..Manner::default() }).await;
        let home = Teller::start(Manner::default()).await;
        let house = between(&world, &home, &format!("delivery = \"{delivery}\"")).await;
        assert_eq!(with_parameters(&mut house.submit().await, mail, &asked, "x").await, 250);
        house.settled().await;
        until("the mail", || world.ledger().mails.len() == 1).await;
        let commands = world.ledger().commands;
        let has = |line: &str| commands.iter().any(|command| command == line);
        assert_eq!(has(&format!("MAIL FROM:<{ANNA}> RET=FULL ENVID=id-7+2B8")), dsn, "{commands:?}");
        for (address, parameters) in asked {
            assert_eq!(has(format!("RCPT TO:<{address}> {parameters}").trim_end()), dsn || parameters.is_empty());
        }
        if dsn {
            assert!(home.ledger().mails.is_empty(), "it is the next hop's task");
            continue;
        }
        until("the report", || home.ledger().mails.len() == 1).await;
        let report = String::from_utf8_lossy(&home.ledger().mails[0].1).into_owned();
        assert!(report.contains("Action: relayed") && report.matches("Final-Recipient").count() == 1, "{report}");
        assert!(report.contains("Final-Recipient: rfc822; ok.1@partner.example"), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r08_nobody_outside_hears_of_success_or_delay() {
    let (world, home) = (Teller::start(Manner::default()).await, Teller::start(Manner::default()).await);
    let hops = hop_table("outbound", &world, "") + &hop_table("inbound", &home, "");
    let retry = "first = \"10 ms\"\nlongest = \"20 ms\"\nwarn = \"10 ms\"";
    let plan = Plan { policy: CLEAR, top: "delivery = \"queue\"", hops: Some(&hops), retry, ..Plan::default() };
    let house = House::build(&plan).await;
    let mut client = house.outside().await;
    for (from, to) in [
        ("b@partner.example", "ok.1@ours.example"),
        ("b@partner.example", "late.2@ours.example"),
        ("", "late.3@ours.example"),
    ] {
        client.say(&format!("MAIL FROM:<{from}>")).await;
        assert_eq!(client.say(&format!("RCPT TO:<{to}> NOTIFY=SUCCESS,DELAY,FAILURE")).await.code, 250);
        assert_eq!(client.data(plain("b@partner.example", to, "x", "y").as_bytes()).await.code, 250);
    }
    house.settled().await;
    assert_eq!(home.ledger().taken.len(), 3);
    assert!(world.ledger().commands.is_empty(), "{:?}", world.ledger().commands);
}

/// The certificates that a mail's RecipientInfos name, of those given.
fn named<'c>(content: &[u8], certificates: &'c [(String, Certificate)]) -> Vec<&'c str> {
    let limits = MimeLimits::default();
    let entity = Entity::parse(content.to_vec().into(), &limits).unwrap();
    let ids = recipient_ids(&entity, &limits).unwrap_or_default();
    let names = |certificate: &Certificate| ids.iter().any(|id| id.names(certificate));
    certificates.iter().filter(|(_, certificate)| names(certificate)).map(|(address, _)| address.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_blind_copy_is_a_mail_of_its_own_that_names_nobody_else() {
    for (bcc, expected) in [("separate", 4), ("group", 1)] {
        let (world, home) = (Teller::start(Manner::default()).await, Teller::start(Manner::default()).await);
        let hops = hop_table("outbound", &world, "") + &hop_table("inbound", &home, "");
        let policy = format!("[default]\nsign = \"if-key\"\nencrypt = \"require\"\nbcc = \"{bcc}\"\n");
        let house = House::build(&Plan { policy: &policy, hops: Some(&hops), ..Plan::default() }).await;
        house.user(ANNA);
        let addresses: Vec<String> = (0..5).map(|number| format!("ok.{number}@partner.example")).collect();
        let certificates: Vec<(String, Certificate)> =
            addresses.iter().map(|address| (address.clone(), house.partner(address))).collect();
        // Two are shown, three are blind.
        let message = plain(ANNA, &addresses[..2].join(", "), "x", "y");
        let to: Vec<&str> = addresses.iter().map(String::as_str).collect();
        assert_eq!(house.submit().await.send(ANNA, &to, message.as_bytes()).await.code, 250);
        house.settled().await;
        let mails = world.ledger().mails;
        assert_eq!(mails.len(), expected, "{bcc}");
        for (to, content) in &mails {
            assert_eq!(named(content, &certificates), to.iter().map(String::as_str).collect::<Vec<_>>(), "{bcc}");
            let text = String::from_utf8_lossy(content);
            assert!(!text.contains("ok.2@") || to.len() == 1, "{text}");
        }
        let mut all: Vec<String> = mails.into_iter().flat_map(|(to, _)| to).collect();
        all.sort();
        assert_eq!(all, addresses, "{bcc}: each once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_what_we_sign_is_signed_for_hops_without_8bitmime_and_what_others_signed_in_8_bit_comes_back() {
    let offers: &[&str] = &["PIPELINING"];
    let world = Teller::start(Manner { offers, ..Manner::default() }).await;
    let home = Teller::start(Manner { offers, ..Manner::default() }).await;
    for delivery in ["cut-through", "queue"] {
        let hops = hop_table("outbound", &world, "") + &hop_table("inbound", &home, "");
        let top = format!("delivery = \"{delivery}\"");
        let policy = "[default]\nsign = \"require\"\nencrypt = \"never\"\n";
        let house = House::build(&Plan { policy, top: &top, hops: Some(&hops), ..Plan::default() }).await;
        house.user(ANNA);
        let sent = world.ledger().mails.len();
        let text =
            plain(ANNA, "ok.1@partner.example", "gr\u{fc}n", "gr\u{fc}n   \r\nFrom here").replace("us-ascii", "utf-8");
        assert_eq!(house.submit().await.send(ANNA, &["ok.1@partner.example"], text.as_bytes()).await.code, 250);
        house.settled().await;
        let signed = world.ledger().mails[sent].1.clone();
        assert!(signed.is_ascii());
        // It comes back in and is still what was signed.
        let came = home.ledger().mails.len();
        let to = ["ok.2@ours.example"];
        assert_eq!(house.outside().await.send(ANNA, &to, &signed).await.code, 250);
        house.settled().await;
        let received = String::from_utf8(home.ledger().mails[came].1.clone()).unwrap();
        assert!(received.contains("smime=pass"), "{received}");
        // Somebody else's signature over 8-bit octets: no encoding, no broken signature, but 5.6.3.
        let foreign =
            String::from_utf8(signed).unwrap().replacen("From=20here", "gr\u{fc}n", 1).replacen("here", "gr\u{fc}n", 1);
        assert!(!foreign.is_ascii());
        let came = home.ledger().mails.len();
        let said = house.outside().await.send(ANNA, &to, foreign.as_bytes()).await;
        house.settled().await;
        if delivery == "cut-through" {
            assert!(said.code == 554 && said.octets.contains("5.6.3"), "{}", said.octets);
            assert_eq!(home.ledger().mails.len(), came);
        } else {
            // Its sender is one of ours, and hears of it.
            assert_eq!(said.code, 250);
            let report = String::from_utf8(home.ledger().mails[came].1.clone()).unwrap();
            assert!(report.contains("Action: failed") && report.contains("Status: 5.6.3"), "{report}");
        }
    }
}

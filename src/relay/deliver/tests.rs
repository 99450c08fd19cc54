use super::*;
use crate::config::{HopTls, RouteHop};
use crate::smtp::command::{MailParameters, Notify, RcptParameters, Recipient};
use crate::spool::{BY_HAND, Folder, Limits, NewEntry};

type Answers = Arc<dyn Fn(&NextHop, &Envelope) -> Result<Vec<Reply>, HopError> + Send + Sync>;

/// A next hop of the test's making; keeps what it was given.
#[derive(Clone)]
struct Scripted {
    answers: Answers,
    sent: Arc<Mutex<Vec<(Envelope, Bytes)>>>,
    begun: Arc<AtomicU64>,
    gate: Arc<tokio::sync::Notify>,
}

impl Transport for Scripted {
    async fn deliver(&self, hop: &NextHop, envelope: &Envelope, content: &Rope) -> Result<Delivered, HopError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        if hop.host == "gate" {
            self.gate.notified().await;
        }
        if hop.host == "dead" {
            std::future::pending::<()>().await;
        }
        self.sent.lock().unwrap().push((envelope.clone(), content.to_bytes()));
        let replies = (self.answers)(hop, envelope)?;
        Ok(Delivered { replies, dsn: hop.host == "dsn", busy: false })
    }
}

#[derive(Clone)]
struct Gateway {
    alerts: Arc<AtomicU64>,
    elsewhere: Arc<Route>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { alerts: Arc::default(), elsewhere: Arc::new(hop("elsewhere").into()) }
    }
}

impl Handover for Gateway {
    async fn open(&self, _: &Entry, envelope: &Envelope, received: Bytes) -> Result<OpenedMail, Reply> {
        let opened = |at: usize| (vec![at], Rope::from(Bytes::from([&b"opened "[..], &received].concat())));
        Ok(OpenedMail { parts: (0..envelope.recipients.len()).map(opened).collect(), quarantined: Vec::new() })
    }
    fn is_ours(&self, mailbox: &Mailbox) -> bool {
        mailbox.domain().as_str() == "ours.example"
    }
    fn hop_to(&self, _: &Mailbox) -> (NextHop, Direction) {
        (hop("inside"), Direction::Inbound)
    }
    fn target(&self, entry: &Entry, recipient: &Mailbox) -> Target {
        if recipient.domain().as_str() == "elsewhere.example" {
            return Target::Hosts(self.elsewhere.clone());
        }
        // "first+second": the second takes over.
        let hosts = entry.next_hop.host.split('+');
        let one = |(at, host)| RouteHop {
            preference: at,
            spool_connections: 2,
            ..NextHop { host: str::to_owned(host), ..entry.next_hop.clone() }.into()
        };
        Target::Hosts(Arc::new(Route::new((0..).zip(hosts).map(one).collect()).unwrap()))
    }
    fn alert(&self, _: &Entry, _: &str) {
        self.alerts.fetch_add(1, Ordering::Relaxed);
    }
}

struct Stepped(Mutex<Timestamp>);

impl Clock for Stepped {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct Bench {
    spool: Spool,
    transport: Scripted,
    gateway: Gateway,
    clock: Arc<Stepped>,
    deliverer: Deliverer,
    health: Health,
    _folder: tempfile::TempDir,
}

fn hop(host: &str) -> NextHop {
    NextHop { tls: HopTls::Off, ..NextHop::new(host, 25) }
}

fn bench(answers: impl Fn(&NextHop, &Envelope) -> Result<Vec<Reply>, HopError> + Send + Sync + 'static) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(Arc::new(Folder::open(folder.path()).unwrap()), Limits::default()).unwrap();
    let transport =
        Scripted { answers: Arc::new(answers), sent: Arc::default(), begun: Arc::default(), gate: Arc::default() };
    let gateway = Gateway::default();
    let clock = Arc::new(Stepped(Mutex::new(Timestamp::now() + Duration::from_secs(5))));
    let retry = Retry {
        first: Duration::from_secs(60),
        longest: Duration::from_secs(3600),
        expire: Duration::from_secs(86_400),
        ..Retry::default()
    };
    let health = Health::new(&retry);
    let settings = Settings {
        hostname: Domain::parse("gw.ours.example").unwrap(),
        postmaster: Mailbox::parse("postmaster@ours.example").unwrap(),
        health: health.clone(),
        retry,
        contents: 1 << 20,
        clock: clock.clone(),
    };
    let deliverer = Deliverer::start(spool.clone(), transport.clone(), gateway.clone(), settings);
    Bench { spool, transport, gateway, clock, deliverer, health, _folder: folder }
}

fn mail(from: &str, to: &[&str]) -> NewEntry {
    let one = |to: &&str| Recipient { mailbox: Mailbox::parse(to).unwrap(), parameters: RcptParameters::default() };
    let reverse_path =
        if from.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(Mailbox::parse(from).unwrap()) };
    let envelope =
        Envelope { reverse_path, parameters: MailParameters::default(), recipients: to.iter().map(one).collect() };
    let content = Bytes::from_static(b"Subject: hello\r\nX-A: b\r\n\r\nthe secret content\r\n");
    NewEntry::new(envelope, hop("outside"), Direction::Outbound, Rope::from(content))
}

fn reply(code: u16) -> Reply {
    Reply::new(code, Enhanced(u8::try_from(code / 100).unwrap(), 1, 1), "said so")
}

fn all(code: u16) -> impl Fn(&NextHop, &Envelope) -> Result<Vec<Reply>, HopError> + Send + Sync {
    move |hop, envelope| Ok(vec![reply(if hop.host == "inside" { 250 } else { code }); envelope.recipients.len()])
}

impl Bench {
    /// Waits (bounded) until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..1500 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("never: {what}; spool {:?}", self.spool.entries());
    }
    fn count(&self, count: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        count(self.deliverer.counts()).load(Ordering::Relaxed)
    }
    fn sent(&self) -> usize {
        self.transport.sent.lock().unwrap().len()
    }
    /// Sets the clock forward and wakes the deliverer.
    fn step(&self, seconds: u64) {
        *self.clock.0.lock().unwrap() += Duration::from_secs(seconds);
        self.spool.give_back("0".parse().unwrap());
    }
}

#[tokio::test]
async fn what_is_due_is_delivered_and_gone() {
    let bench = bench(all(250));
    bench.spool.commit(vec![mail("a@ours.example", &["x@b.example"])]).await.unwrap();
    let mut received = mail("a@c.example", &["x@ours.example", "y@ours.example"]);
    received.treatment = Treatment::AsReceived;
    bench.spool.commit(vec![received]).await.unwrap();
    bench.until("empty", |bench| bench.spool.entries().is_empty()).await;
    assert_eq!((bench.count(|c| &c.delivered), bench.sent()), (3, 3));
    let sent = bench.transport.sent.lock().unwrap().clone();
    assert_eq!(
        sent.iter()
            .filter(|(envelope, content)| content.starts_with(b"opened ") && envelope.recipients.len() == 1)
            .count(),
        2
    );
    bench.deliverer.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn r8_a_failure_for_good_tells_a_sender_of_ours_with_headers_alone() {
    let bench = bench(|hop, envelope| {
        let code =
            |recipient: &Recipient| if recipient.mailbox.local() == "bad" && hop.host == "outside" { 550 } else { 250 };
        Ok(envelope.recipients.iter().map(|recipient| reply(code(recipient))).collect())
    });
    bench.spool.commit(vec![mail("a@ours.example", &["good@b.example", "bad@b.example"])]).await.unwrap();
    bench.until("DSN sent", |bench| bench.sent() == 2 && bench.spool.entries().is_empty()).await;
    let (envelope, content) = bench.transport.sent.lock().unwrap()[1].clone();
    assert_eq!(envelope.reverse_path, ReversePath::Null);
    assert_eq!(envelope.recipients[0].mailbox.to_string(), "a@ours.example");
    let text = String::from_utf8(content.to_vec()).unwrap();
    for wanted in [
        "Auto-Submitted: auto-",
        "report-type=delivery-status",
        "Final-Recipient: rfc822; bad@b.example",
        "Status: 5.1.1",
        "Action: failed",
        "Subject: hello",
        "text/rfc822-headers",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    assert!(!text.contains("secret content") && !text.contains("good@b.example"), "{text}");
    assert!(text.lines().count() > 20 && !text.replace("\r\n", "").contains(['\r', '\n']));
}

#[tokio::test]
async fn a04_r8_where_nobody_may_be_told_the_mail_is_held_and_alerted() {
    let bench = bench(all(550));
    let mut tried = mail("a@ours.example", &["x@b.example"]);
    tried.private_key_tried = true;
    let entries = vec![tried, mail("", &["x@b.example"]), mail("stranger@c.example", &["x@b.example"])];
    bench.spool.commit(entries).await.unwrap();
    bench
        .until("all held", |bench| bench.spool.entries().iter().filter(|entry| entry.held.is_some()).count() == 3)
        .await;
    assert_eq!(
        (bench.count(|c| &c.notified), bench.count(|c| &c.held), bench.gateway.alerts.load(Ordering::Relaxed)),
        (0, 3, 3)
    );
    assert_eq!(bench.sent(), 3);
}

#[tokio::test]
async fn a_dsn_is_7_bit_unless_an_address_is_not() {
    let bench = bench(|hop, envelope| {
        let said = Reply::new(550, Enhanced(5, 1, 1), "unbekannter Empf\u{e4}nger");
        Ok(vec![if hop.host == "inside" { reply(250) } else { said }; envelope.recipients.len()])
    });
    bench.spool.commit(vec![mail("a@ours.example", &["x@b.example"])]).await.unwrap();
    bench.until("DSN sent", |bench| bench.sent() == 2 && bench.spool.entries().is_empty()).await;
    let (_, content) = bench.transport.sent.lock().unwrap()[1].clone();
    let text = String::from_utf8(content.to_vec()).unwrap();
    assert!(text.is_ascii() && text.contains("unbekannter Empf?nger") && !text.contains("8bit"), "{text}");
}

#[tokio::test]
async fn notify_never_is_respected() {
    let bench = bench(all(550));
    let mut quiet = mail("a@ours.example", &["x@b.example"]);
    quiet.envelope.recipients[0].parameters.notify = Some(Notify { success: false, failure: false, delay: false });
    bench.spool.commit(vec![quiet]).await.unwrap();
    bench.until("gone", |bench| bench.spool.entries().is_empty()).await;
    assert_eq!((bench.count(|c| &c.notified), bench.count(|c| &c.failed)), (0, 1));
}

#[tokio::test]
async fn r5_unknown_is_tried_again_and_counted_and_backs_off() {
    let bench = bench(|hop, _| Err(HopError::Unknown { hop: hop.host.clone(), why: "lost".into() }));
    let id = bench.spool.commit(vec![mail("a@ours.example", &["x@b.example"])]).await.unwrap()[0];
    let attempts = |bench: &Bench| bench.spool.entry(id).map_or(0, |entry| entry.attempts);
    let mut waits = Vec::new();
    for number in 1..=4 {
        bench.until("another attempt", |bench| attempts(bench) == number).await;
        let entry = bench.spool.entry(id).unwrap();
        waits.push(entry.next_attempt.duration_since(bench.clock.now()).as_secs());
        bench.step(3600);
    }
    assert!((1..=60).contains(&waits[0]) && waits[3] > 300 && waits[3] <= 480, "{waits:?}");
    assert!(bench.count(|c| &c.dup_possible) >= 4);
    let sent = bench.transport.sent.lock().unwrap().clone();
    assert!(sent.iter().all(|(_, content)| *content == sent[0].1), "never sealed anew");
}

#[tokio::test]
async fn what_waits_too_long_expires_with_a_dsn() {
    let bench = bench(all(451));
    bench.spool.commit(vec![mail("a@ours.example", &["x@b.example"])]).await.unwrap();
    bench.until("deferred", |bench| bench.count(|c| &c.deferred) == 1).await;
    bench.step(2 * 86_400);
    bench.until("gone", |bench| bench.spool.entries().is_empty()).await;
    assert_eq!((bench.count(|c| &c.notified), bench.count(|c| &c.failed)), (1, 1));
    let last = bench.transport.sent.lock().unwrap().last().unwrap().1.clone();
    assert!(String::from_utf8_lossy(&last).contains("Status: 4.4.7"));
}

/// However old it is, what a person released is tried for as long as mail that has just come.
#[tokio::test]
async fn what_was_held_for_long_has_all_its_time_from_its_release() {
    let bench = bench(all(451));
    let created = Timestamp::now() - jiff::SignedDuration::from_hours(5 * 24);
    let old = NewEntry {
        before: Some((created, Some(created))),
        held: Some(BY_HAND.into()),
        ..mail("a@ours.example", &["x@b.example"])
    };
    let id = bench.spool.commit(vec![old]).await.unwrap()[0];
    bench.spool.release(id).await.unwrap();
    bench.until("deferred", |bench| bench.count(|c| &c.deferred) == 1).await;
    bench.step(12 * 3_600);
    bench.until("tried again", |bench| bench.spool.entry(id).is_none_or(|entry| entry.attempts == 2)).await;
    assert_eq!((bench.count(|c| &c.failed), bench.count(|c| &c.notified)), (0, 0));
    bench.step(13 * 3_600);
    bench.until("gone", |bench| bench.spool.entries().is_empty()).await;
    assert_eq!((bench.count(|c| &c.failed), bench.count(|c| &c.notified)), (1, 1));
}

#[tokio::test]
async fn what_a_wrong_clock_put_off_for_years_is_delivered() {
    let bench = bench(all(250));
    let next_attempt = Some(Timestamp::now() + jiff::SignedDuration::from_hours(5 * 8760));
    bench.spool.commit(vec![NewEntry { next_attempt, ..mail("a@ours.example", &["x@b.example"]) }]).await.unwrap();
    bench.step(61);
    bench.until("delivered", |bench| bench.spool.entries().is_empty()).await;
}

#[tokio::test]
async fn mail_whose_content_is_gone_is_held_and_holds_up_no_other() {
    let bench = bench(all(250));
    let big = Rope::from(Bytes::from(vec![b'x'; 1_100_000]));
    let held =
        || NewEntry { held: Some("test".into()), content: big.clone(), ..mail("a@ours.example", &["x@b.example"]) };
    let broken = bench.spool.commit(vec![held(), held(), held()]).await.unwrap();
    for id in &broken {
        std::fs::remove_file(bench._folder.path().join(format!("{id}.body"))).unwrap();
        bench.spool.release(*id).await.unwrap();
    }
    bench.spool.commit(vec![mail("a@ours.example", &["x@b.example"])]).await.unwrap();
    bench.until("the other delivered", |bench| bench.spool.entries().len() == 3).await;
    bench.until("held", |bench| bench.spool.entries().iter().all(|entry| entry.held.is_some())).await;
    assert_eq!(bench.gateway.alerts.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_delivery_that_panics_holds_that_mail_alone() {
    let bench = bench(|_, envelope| match envelope.recipients[0].mailbox.local() {
        "poison" => panic!("a defect, as it were"),
        _ => Ok(vec![reply(250); envelope.recipients.len()]),
    });
    let poison = bench.spool.commit(vec![mail("a@ours.example", &["poison@b.example"])]).await.unwrap()[0];
    for _ in 0..5 {
        bench.spool.commit(vec![mail("a@ours.example", &["x@b.example"])]).await.unwrap();
    }
    bench.until("the others delivered", |bench| bench.spool.entries().len() == 1).await;
    bench.until("held", |bench| bench.spool.entry(poison).is_some_and(|entry| entry.held.is_some())).await;
    assert_eq!((bench.count(|c| &c.delivered), bench.gateway.alerts.load(Ordering::Relaxed)), (5, 1));
}

#[tokio::test]
async fn contents_for_a_hop_that_hangs_do_not_fill_the_memory() {
    let bench = bench(all(250));
    let big = Rope::from(Bytes::from(vec![b'x'; 700_000]));
    let to = |host: &str, content: &Rope| NewEntry {
        next_hop: hop(host),
        content: content.clone(),
        ..mail("a@ours.example", &["x@b.example"])
    };
    bench.spool.commit(vec![to("dead", &big), to("dead", &big)]).await.unwrap();
    // Bigger than all the room: alone, but it goes.
    let huge = Rope::from(Bytes::from(vec![b'x'; 3_000_000]));
    bench.spool.commit(vec![to("outside", &huge), to("outside", &huge)]).await.unwrap();
    bench.until("the others went", |bench| bench.spool.entries().len() == 2).await;
    assert_eq!(bench.transport.begun.load(Ordering::Relaxed), 3, "one of the two waits");
}

#[tokio::test]
async fn a_stop_finishes_what_was_begun_and_begins_nothing_more() {
    let bench = bench(all(250));
    let big = || NewEntry {
        next_hop: hop("gate"),
        content: Rope::from(Bytes::from(vec![b'x'; 700_000])),
        ..mail("a@ours.example", &["x@b.example"])
    };
    bench.spool.commit(vec![big(), big()]).await.unwrap();
    bench.until("one is under way", |bench| bench.transport.begun.load(Ordering::Relaxed) == 1).await;
    let (transport, spool) = (bench.transport.clone(), bench.spool.clone());
    let stopping = tokio::spawn(bench.deliverer.stop(Duration::from_secs(5)));
    tokio::task::yield_now().await;
    transport.gate.notify_one();
    stopping.await.unwrap();
    assert_eq!((transport.begun.load(Ordering::Relaxed), spool.entries().len()), (1, 1));
}

#[tokio::test]
async fn a_dead_hop_holds_up_no_other() {
    let bench = bench(all(250));
    let dead = (0..20).map(|_| NewEntry { next_hop: hop("dead"), ..mail("a@ours.example", &["x@b.example"]) });
    bench.spool.commit(dead.collect()).await.unwrap();
    for _ in 0..10 {
        bench.spool.commit(vec![mail("a@ours.example", &["x@b.example"])]).await.unwrap();
    }
    bench.until("others delivered", |bench| bench.spool.entries().len() == 20).await;
    assert_eq!(bench.count(|c| &c.delivered), 10);
}

#[tokio::test]
async fn an_unreachable_hop_is_left_alone_and_tried_one_by_one() {
    let bench = bench(|hop, _| Err(HopError::Unreachable { hop: hop.host.clone(), why: "refused".into() }));
    for _ in 0..10 {
        bench.spool.commit(vec![mail("a@ours.example", &["x@b.example"])]).await.unwrap();
    }
    bench.until("tried", |bench| bench.count(|c| &c.deferred) >= 1).await;
    let before = bench.sent();
    assert!(before <= 3, "{before}");
    bench.step(61);
    bench.until("tried again", |bench| bench.sent() > before).await;
}

fn notify(success: bool, failure: bool, delay: bool) -> Option<Notify> {
    Some(Notify { success, failure, delay })
}

/// Reports that were sent, as texts.
fn reports(bench: &Bench) -> Vec<String> {
    let sent = bench.transport.sent.lock().unwrap();
    let reports = sent.iter().filter(|(envelope, _)| envelope.reverse_path == ReversePath::Null);
    reports.map(|(_, content)| String::from_utf8(content.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn each_notify_gets_its_news_and_no_other() {
    // What the next hop does, what is asked for, and the actions told.
    let all_kinds = notify(true, true, true);
    let cases: [(&str, u16, Option<Notify>, &[&str]); 14] = [
        ("plain", 250, None, &[]),
        ("plain", 250, notify(true, false, false), &["relayed"]),
        ("plain", 250, notify(false, true, true), &[]),
        ("plain", 250, all_kinds, &["relayed"]),
        ("lmtp", 250, all_kinds, &["delivered"]),
        ("dsn", 250, all_kinds, &[]),
        ("plain", 550, None, &["failed"]),
        ("dsn", 550, None, &["failed"]),
        ("plain", 550, notify(false, true, false), &["failed"]),
        ("plain", 550, notify(true, false, true), &[]),
        ("plain", 550, notify(false, false, false), &[]),
        ("plain", 450, None, &["delayed", "failed"]),
        ("plain", 450, notify(true, true, false), &["failed"]),
        ("plain", 450, notify(false, false, true), &["delayed"]),
    ];
    for (host, code, asked, expected) in cases {
        let bench = bench(all(code));
        let mut one = mail("a@ours.example", &["x@b.example"]);
        one.next_hop = NextHop { lmtp: host == "lmtp", ..hop(host) };
        one.envelope.recipients[0].parameters.notify = asked;
        let id = bench.spool.commit(vec![one]).await.unwrap()[0];
        if code == 450 {
            // Before 4 h, after it and once more, and after expiry.
            for (attempts, seconds) in [(1, 3_500), (2, 12_000), (3, 3_601), (4, 80_000)] {
                bench.until("tried", |bench| bench.spool.entry(id).is_none_or(|one| one.attempts >= attempts)).await;
                bench.step(seconds);
            }
        }
        bench.until("gone", |bench| bench.spool.entries().is_empty()).await;
        let actions: Vec<String> = reports(&bench)
            .iter()
            .flat_map(|report| {
                report.lines().filter_map(|line| line.strip_prefix("Action: ")).map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(actions, expected, "{host} {code} {asked:?}");
        bench.deliverer.stop(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn a_report_names_what_was_asked_with_and_who_said_what() {
    let bench = bench(all(550));
    let mut one = mail("a@ours.example", &["x@b.example"]);
    one.log_id = "00ab".into();
    one.envelope.parameters.envid = Some("QQ 314=59".into());
    one.envelope.parameters.ret = Some(Ret::Full);
    one.envelope.recipients[0].parameters.orcpt = Some("rfc822;Bert+2BBert@b.example".into());
    one.next_hop = hop("192.0.2.7");
    bench.spool.commit(vec![one]).await.unwrap();
    bench.until("gone", |bench| bench.spool.entries().is_empty()).await;
    let report = reports(&bench).remove(0);
    for field in [
        "Original-Envelope-Id: QQ 314=59",
        "Reporting-MTA: dns; gw.ours.example",
        "Original-Recipient: rfc822; Bert+Bert@b.example",
        "Remote-MTA: dns; [192.0.2.7]",
        "Diagnostic-Code: smtp; 550 5.1.1 said so",
        "Final-Log-ID: 00ab",
        "Last-Attempt-Date: ",
    ] {
        assert!(report.contains(&format!("\r\n{field}")), "{field} in {report}");
    }
    assert!(!report.contains("the secret content"), "RET=FULL returns headers too (A33)");
}

#[tokio::test]
async fn a_mail_behind_a_dead_hop_is_told_late_and_expires_though_it_never_had_a_turn() {
    let bench = bench(|hop, envelope| match hop.host.as_str() {
        "inside" => Ok(vec![reply(250); envelope.recipients.len()]),
        _ => Err(HopError::Unreachable { hop: hop.host.clone(), why: "refused".into() }),
    });
    for _ in 0..20 {
        bench.spool.commit(vec![mail("a@ours.example", &["x@b.example"])]).await.unwrap();
    }
    bench.until("set aside", |bench| bench.count(|c| &c.deferred) >= 1).await;
    for (hours, action) in [(5, "Action: delayed"), (24, "Action: failed")] {
        bench.step(hours * 3600);
        let told = |bench: &Bench| reports(bench).iter().filter(|report| report.contains(action)).count();
        // Sixteen at once, the rest a second later.
        for _ in 0..3 {
            bench.step(2);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bench.until(action, |bench| told(bench) == 20).await;
    }
    bench.until("gone", |bench| bench.spool.entries().is_empty()).await;
    assert!(reports(&bench).iter().any(|report| report.contains("Diagnostic-Code: X-Waxwing; given up")));
}

#[tokio::test]
async fn the_next_in_preference_takes_over_at_once_and_what_is_unknown_does_not_move() {
    let bench = bench(|hop, envelope| match hop.host.as_str() {
        "refusing" => Err(HopError::Unreachable { hop: hop.host.clone(), why: "refused".into() }),
        "breaking" => Err(HopError::NotTaken { hop: hop.host.clone(), why: "lost".into() }),
        "silent" => Err(HopError::Unknown { hop: hop.host.clone(), why: "silent".into() }),
        _ => Ok(vec![reply(250); envelope.recipients.len()]),
    });
    for host in ["refusing+good", "breaking+good", "refusing+breaking+good"] {
        bench
            .spool
            .commit(vec![NewEntry { next_hop: hop(host), ..mail("a@ours.example", &["x@b.example"]) }])
            .await
            .unwrap();
        bench.until("delivered", |bench| bench.spool.entries().is_empty()).await;
    }
    assert_eq!((bench.count(|c| &c.delivered), bench.count(|c| &c.deferred)), (3, 0));
    let unknown = NewEntry { next_hop: hop("silent+good"), ..mail("a@ours.example", &["x@b.example"]) };
    bench.spool.commit(vec![unknown]).await.unwrap();
    bench.until("put off", |bench| bench.count(|c| &c.dup_possible) == 1).await;
    bench.until("put off", |bench| bench.count(|c| &c.deferred) == 1).await;
    assert_eq!(bench.spool.entries().len(), 1, "never to two hops at once");
    let health = bench.health.status();
    let of = |host: &str| health.iter().find(|status| status.hop.host == host).unwrap();
    assert!(of("refusing").aside_until.is_some() && of("silent").aside_until.is_none());
    assert_eq!((of("good").answered, of("good").failed), (3, 0));
}

#[tokio::test]
async fn outbound_mail_that_policy_holds_is_told_of_and_given_up_in_the_end() {
    let bench = bench(all(250));
    let held = |from: &str| NewEntry {
        treatment: Treatment::AsSubmitted,
        held: Some("no certificate is known".into()),
        ..mail(from, &["x@b.example"])
    };
    let new = vec![held("a@ours.example"), held("stranger@else.example"), held("b@ours.example")];
    let ids = bench.spool.commit(new).await.unwrap();
    bench.spool.hold(ids[2], &format!("{BY_HAND}: asked the sender")).await.unwrap();
    bench.step(4 * 3_600 + 60);
    bench.until("told", |bench| bench.sent() == 1).await;
    let report = |at: usize| {
        let (envelope, content) = bench.transport.sent.lock().unwrap()[at].clone();
        (envelope.recipients[0].mailbox.to_string(), String::from_utf8(content.to_vec()).unwrap())
    };
    let (to, text) = report(0);
    assert_eq!(to, "a@ours.example");
    for expected in ["Action: delayed", "Status: 4.7.5", "no certificate is known", "Subject: hello"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("secret content"));
    let entry = bench.spool.entry(ids[0]).unwrap();
    assert!(entry.delay_told.is_some() && entry.attempts == 0 && entry.held.is_some(), "{entry:?}");
    // Once; longer than mail is tried that may go; and then it is told that it was given up.
    bench.step(2 * 86_400);
    // A mail that comes now is sent after held ones were looked at.
    bench.spool.commit(vec![mail("c@ours.example", &["x@b.example"])]).await.unwrap();
    bench.until("looked at", |bench| bench.sent() == 2).await;
    assert!(bench.spool.entry(ids[0]).is_some_and(|entry| entry.held.is_some()));
    bench.step(13 * 86_400);
    bench.until("given up", |bench| bench.spool.entry(ids[0]).is_none() && bench.sent() == 3).await;
    let (to, text) = report(2);
    assert_eq!(to, "a@ours.example");
    assert!(text.contains("Action: failed") && text.contains("Status: 5.7.5"), "{text}");
    // Nobody may be told of the stranger's, and a person holds the other.
    bench.until("the report is gone", |bench| bench.spool.entries().len() == 2).await;
    assert!(bench.spool.entries().iter().all(|entry| entry.held.is_some() && ids[1..].contains(&entry.id)));
}

#[tokio::test]
async fn an_entry_goes_where_each_of_its_recipients_goes_now() {
    let bench = bench(|hop, envelope| {
        let code = if hop.host == "elsewhere" { 250 } else { 451 };
        Ok(vec![reply(code); envelope.recipients.len()])
    });
    let to = ["x@b.example", "y@elsewhere.example", "z@b.example"];
    bench.spool.commit(vec![mail("a@ours.example", &to)]).await.unwrap();
    bench.until("both ways", |bench| bench.sent() == 2).await;
    let sent = bench.transport.sent.lock().unwrap().clone();
    let mut sent: Vec<Vec<String>> = sent
        .iter()
        .map(|(envelope, _)| envelope.recipients.iter().map(|one| one.mailbox.to_string()).collect())
        .collect();
    sent.sort();
    assert_eq!(sent, [vec!["x@b.example", "z@b.example"], vec!["y@elsewhere.example"]]);
    bench.until("settled", |bench| bench.spool.entries().first().is_some_and(|entry| entry.attempts == 1)).await;
    let states: Vec<RecipientState> = bench.spool.entries()[0].recipients.iter().map(|one| one.state).collect();
    assert_eq!(states, [RecipientState::Waiting, RecipientState::Delivered, RecipientState::Waiting]);
}

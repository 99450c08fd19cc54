//! Next hops that fall silent at every step (T5), and hostile ones: the client hears an answer in time, which is true; and what was
//! answered 250 arrives once the next hop is a good one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use support::house::{House, Plan, plain};
use support::teller::{Manner, Move, Script, Silent, Teller};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

const ANNA: &str = "anna@ours.example";
const FIRST: &str = "ok.1@partner.example";
const SECOND: &str = "ok.2@partner.example";
/// Waits of a second where minutes are usual. Any answer is here in a few of them.
const SHORT: &str = "[limits]\nhop_connect_timeout = \"300 ms\"\nhop_greeting_timeout = \"300 ms\"\nhop_command_timeout = \"300 ms\"\n\
                     hop_timeout = \"1 s\"\n[default]\nencrypt = \"never\"\n";
const IN_TIME: Duration = Duration::from_secs(15);

/// One test at a time: memory is measured.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn hops(port: u16, more: &str) -> String {
    format!(
        "[next_hop.outbound]\nhost = \"127.0.0.1\"\nport = {port}\n{more}\n[next_hop.inbound]\nhost = \"127.0.0.1\"\nport = {port}\n"
    )
}

async fn house(port: u16, delivery: &str, more: &str) -> House {
    let (top, hops) = (format!("delivery = \"{delivery}\""), hops(port, more));
    let retry = "first = \"100 ms\"\nlongest = \"200 ms\"";
    House::build(&Plan { policy: SHORT, top: &top, hops: Some(&hops), retry, ..Plan::default() }).await
}

/// A listener whose backlog is full: connections to it hang. With what fills it.
async fn full() -> (TcpListener, Vec<tokio::task::JoinHandle<Option<TcpStream>>>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let filling = (0..8).map(|_| tokio::spawn(async move { TcpStream::connect(address).await.ok() })).collect();
    tokio::time::timeout(Duration::from_secs(5), async {
        // It is full once a connection is not made.
        while let Ok(Ok(more)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            std::mem::forget(more);
        }
    })
    .await
    .expect("a backlog that is never full");
    (listener, filling)
}

/// One mail to two recipients; the answer to the final dot, which came in time.
async fn answered(house: &House, size: usize) -> (support::Client, u16) {
    let mut client = house.submit().await;
    let began = Instant::now();
    let body = "0123456789abcdef\r\n".repeat(size / 18 + 1);
    let said = client.send(ANNA, &[FIRST, SECOND], plain(ANNA, FIRST, "x", &body).as_bytes()).await;
    assert!(began.elapsed() < IN_TIME, "{:?}: {}", began.elapsed(), said.octets);
    (client, said.code)
}

async fn arrives_once_good(house: &House, teller: &Teller, what: &str) {
    house.settled().await;
    assert_eq!((teller.taken(FIRST), teller.taken(SECOND)), (1, 1), "{what}");
}

async fn silent_at(silent: Silent, delivery: &'static str) -> String {
    let lmtp = silent == Silent::SecondDot;
    let tls = matches!(silent, Silent::StartTls | Silent::Handshake);
    let offers: &[&str] = if tls { &["PIPELINING", "STARTTLS"] } else { &["PIPELINING", "8BITMIME"] };
    let teller = Teller::start(Manner { silent: Some(silent), lmtp, offers, ..Manner::default() }).await;
    let tls = if tls { "opportunistic" } else { "off" };
    let house = house(teller.address.port(), delivery, &format!("tls = \"{tls}\"\nlmtp = {lmtp}")).await;
    // More than sockets hold, where it does not read.
    let size = if silent == Silent::Content { 16 << 20 } else { 100 };
    let (mut client, code) = answered(&house, size).await;
    let refused = matches!(silent, Silent::Content | Silent::Dot | Silent::LateDot) && delivery == "cut-through";
    assert_eq!(code, if refused { 451 } else { 250 }, "{silent:?}, {delivery}");
    if silent == Silent::LateDot && refused {
        // The next hop's 250 comes after our 451: nothing of it reaches the client.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let said = client.say("NOOP").await;
        assert_eq!((said.code, said.octets.lines().count()), (250, 1), "{}", said.octets);
        assert!(said.octets.contains("2.0.0 ok"), "a late answer: {}", said.octets);
    }
    if refused {
        assert!(house.gateway.spool().entries().is_empty(), "the client keeps it");
    }
    teller.change(|manner| (manner.silent, manner.offers) = (None, &["PIPELINING", "8BITMIME"]));
    if refused {
        // The client's second try is taken. A mail that was taken late came twice: that was told by 451.
        let before = teller.taken(FIRST);
        assert_eq!(answered(&house, size).await.1, 250);
        house.settled().await;
        assert_eq!((teller.taken(FIRST) - before, before), (1, usize::from(silent == Silent::LateDot)));
    } else if silent == Silent::LateDot {
        house.settled().await;
        assert!(teller.taken(FIRST) >= 1);
    } else {
        arrives_once_good(&house, &teller, &format!("{silent:?}, {delivery}")).await;
    }
    format!("{silent:?}/{delivery}: {code}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t05_a_next_hop_silent_at_any_step_is_answered_by_the_deadline() {
    let _alone = ALONE.lock().await;
    let steps = [
        Silent::Greeting,
        Silent::Ehlo,
        Silent::StartTls,
        Silent::Handshake,
        Silent::Mail,
        Silent::Rcpt,
        Silent::Data,
        Silent::Content,
        Silent::Dot,
        Silent::LateDot,
        Silent::SecondDot,
    ];
    let mut running = JoinSet::new();
    for step in steps {
        running.spawn(silent_at(step, "cut-through"));
        running.spawn(silent_at(step, "queue"));
    }
    let done = running.join_all().await;
    println!("T5: {} paths, each answered in time, 0 late 250: {}", done.len(), done.join(", "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t05_a_next_hop_that_never_connects_is_answered_by_the_deadline() {
    let _alone = ALONE.lock().await;
    for delivery in ["cut-through", "queue"] {
        let (listener, filling) = full().await;
        let house = house(listener.local_addr().unwrap().port(), delivery, "tls = \"off\"").await;
        assert_eq!(answered(&house, 100).await.1, 250);
        assert!(!house.gateway.spool().entries().is_empty());
        filling.into_iter().for_each(|task| task.abort());
        let teller = Teller::serve_on(listener, Manner::default());
        arrives_once_good(&house, &teller, delivery).await;
    }
}

/// The moves up to EHLO's answer.
macro_rules! after_ehlo {
    ($($more:expr),*) => {
        &[("", Move::Say("220 mx\r\n")), ("EHLO", Move::Say("250-mx\r\n250 PIPELINING\r\n")), $($more),*]
    };
}

const HOSTILE: [(&str, Script); 24] = [
    ("closes at once", &[("", Move::Close)]),
    ("resets at once", &[("", Move::Reset)]),
    ("421 for a greeting", &[("", Move::Say("421 busy\r\n"))]),
    ("554 for a greeting", &[("", Move::Say("554 go away\r\n"))]),
    ("250 for a greeting", &[("", Move::Say("250 hello\r\n"))]),
    ("a greeting without end", &[("", Move::Flood("220-mx\r\n"))]),
    ("a line without end", &[("", Move::Flood("220 x"))]),
    ("a greeting drop by drop", &[("", Move::Drip("220-mx\r\n"))]),
    ("HTTP", &[("", Move::Say("HTTP/1.1 400 Bad Request\r\n\r\n"))]),
    ("NULs", &[("", Move::Flood("\0\0\0\0"))]),
    ("bare LF", &[("", Move::Say("220 mx\n"))]),
    ("many greetings", &[("", Move::Flood("220 mx\r\n"))]),
    ("EHLO without end", &[("", Move::Say("220 mx\r\n")), ("EHLO", Move::Flood("250-SIZE 1\r\n"))]),
    ("EHLO drop by drop", &[("", Move::Say("220 mx\r\n")), ("EHLO", Move::Drip("250-mx\r\n"))]),
    ("codes mixed", &[("", Move::Say("220-mx\r\n250 mx\r\n"))]),
    (
        "no EHLO and no HELO",
        &[("", Move::Say("220 mx\r\n")), ("EHLO", Move::Say("502 no\r\n")), ("HELO", Move::Say("502 no\r\n"))],
    ),
    ("354 to MAIL", after_ehlo![("MAIL", Move::Say("354 go\r\n"))]),
    ("closes at RCPT", after_ehlo![("MAIL", Move::Say("250 ok\r\n")), ("RCPT", Move::Close)]),
    ("RCPT's answer without end", after_ehlo![("MAIL", Move::Say("250 ok\r\n")), ("RCPT", Move::Flood("250-ok\r\n"))]),
    ("answers before it is asked", after_ehlo![("", Move::Flood("250 ok\r\n"))]),
    ("250 to DATA", after_ehlo![("MAIL", Move::Say("250 a\r\n250 b\r\n250 c\r\n")), ("DATA", Move::Say("250 d\r\n"))]),
    ("421 in the middle", after_ehlo![("MAIL", Move::Say("250 a\r\n250 b\r\n421 going\r\n"))]),
    (
        "takes the mail before its end",
        after_ehlo![("MAIL", Move::Say("250 a\r\n250 b\r\n250 c\r\n")), ("DATA", Move::Say("354 go\r\n250 taken\r\n"))],
    ),
    (
        "an answer to the dot without end",
        after_ehlo![
            ("MAIL", Move::Say("250 a\r\n250 b\r\n250 c\r\n")),
            ("DATA", Move::Say("354 go\r\n")),
            (".", Move::Flood("250-ok\r\n"))
        ],
    ),
];

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn survives(name: &'static str, script: Script, delivery: &'static str) {
    let teller = Teller::start(Manner { hostile: Some(script), ..Manner::default() }).await;
    let house = house(teller.address.port(), delivery, "tls = \"off\"").await;
    let (_, code) = answered(&house, 100).await;
    // It may say no, or later; it may not make us say yes to what is lost.
    assert!(matches!(code, 250 | 451 | 550 | 554), "{name}: {code}");
    until_tried(&teller).await;
    teller.change(|manner| manner.hostile = None);
    if code != 250 {
        assert_eq!(answered(&house, 100).await.1, 250, "{name}");
    }
    arrives_once_good(&house, &teller, &format!("{name}, {delivery}")).await;
}

async fn until_tried(teller: &Teller) {
    while teller.ledger().connections == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_next_hops_lose_nothing_and_cost_little() {
    let _alone = ALONE.lock().await;
    let before = resident();
    for delivery in ["cut-through", "queue"] {
        for some in HOSTILE.chunks(8) {
            let mut running = JoinSet::new();
            for (name, script) in some {
                running.spawn(survives(name, script, delivery));
            }
            running.join_all().await;
        }
    }
    let grown = resident().saturating_sub(before);
    println!("{} hostile servers, both ways: {grown} KiB more", HOSTILE.len());
    assert!(grown < 100 * 1024, "{grown} KiB");
}

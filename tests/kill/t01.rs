//! T1: killed at random moments, a gateway loses nothing that it answered 250, sends nothing in clear that policy wants sealed, and repeats
//! only what was in flight. `WAXWING_T1_CYCLES` sets the number of kills (20 by default):
//!
//! WAXWING_T1_CYCLES=500 cargo test --release --test kill t01 -- --nocapture

use std::collections::{BTreeSet, HashMap};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Client, House, line, message, random};

const CLIENTS: usize = 8;
/// Deliveries to one next hop at once: each may have ended without that it was recorded. There are two next hops.
const IN_FLIGHT: usize = 16;

/// What is to come of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Due {
    /// The copy for the recipient outside.
    Outside,
    /// The copy for the recipient of ours.
    Ours,
    /// The notification that it failed.
    Notified,
}

/// Every mail is of a kind that its number tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// One mail, two next hops: both copies are in the spool before the answer.
    Split,
    /// The next hop refuses its recipient for good: its sender hears of it.
    Refused,
    /// It has a file of its own in the spool.
    Big,
}

impl Kind {
    fn of(number: u64, through: bool) -> Self {
        match number % 200 {
            7 => Kind::Big,
            rest if rest % 10 == 3 => Kind::Split,
            // Straight through, the client itself is told.
            rest if rest % 10 == 6 && !through => Kind::Refused,
            _ => Kind::Plain,
        }
    }

    fn recipients(self) -> &'static [&'static str] {
        match self {
            Kind::Plain | Kind::Big => &["x@else.example"],
            Kind::Split => &["x@else.example", "anna@ours.example"],
            Kind::Refused => &["refused@else.example"],
        }
    }

    fn due(self) -> &'static [Due] {
        match self {
            Kind::Plain | Kind::Big => &[Due::Outside],
            Kind::Split => &[Due::Outside, Due::Ours],
            Kind::Refused => &[Due::Notified],
        }
    }

    fn octets(self) -> usize {
        if self == Kind::Big { 1_500_000 } else { 2_000 }
    }
}

/// What came, and from which life of the gateway.
#[derive(Default)]
struct Came {
    copies: HashMap<(u64, Due), Vec<u64>>,
    /// Mails for outside that anyone could read.
    clear: u64,
    altered: u64,
}

/// A next hop that keeps account; it puts off one mail in twenty.
#[derive(Clone)]
struct Ledger {
    address: SocketAddr,
    came: Arc<Mutex<Came>>,
}

impl Ledger {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ledger = Self { address: listener.local_addr().unwrap(), came: Arc::default() };
        let serving = ledger.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let ledger = serving.clone();
                std::thread::spawn(move || ledger.serve(stream));
            }
        });
        ledger
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut say = stream.try_clone().ok()?;
        let mut lines = BufReader::new(stream);
        say.write_all(b"220 ledger\r\n").ok()?;
        let (mut life, mut due, mut recipients) = (0, Due::Outside, 0);
        loop {
            let line = line(&mut lines)?;
            let answer = match line.get(..4)? {
                "EHLO" => {
                    life = line.trim_end().strip_prefix("EHLO life")?.split('.').next()?.parse().ok()?;
                    "250-ledger\r\n250-8BITMIME\r\n250 PIPELINING\r\n"
                }
                "MAIL" => {
                    recipients = 0;
                    due = if line.starts_with("MAIL FROM:<>") { Due::Notified } else { Due::Outside };
                    "250 ok\r\n"
                }
                "RCPT" if line.contains("refused@") => "550 5.1.1 nobody\r\n",
                "RCPT" => {
                    recipients += 1;
                    if due == Due::Outside && line.contains("@ours.example") {
                        due = Due::Ours;
                    }
                    "250 ok\r\n"
                }
                "DATA" if recipients == 0 => "554 5.5.1 nobody to send it to\r\n",
                "DATA" => {
                    say.write_all(b"354 go\r\n").ok()?;
                    let content = content(&mut lines)?;
                    if random(20) == 0 {
                        "451 4.2.1 later\r\n"
                    } else {
                        self.take(due, life, &content);
                        "250 taken\r\n"
                    }
                }
                _ => "250 ok\r\n",
            };
            say.write_all(answer.as_bytes()).ok()?;
        }
    }

    fn take(&self, due: Due, life: u64, content: &str) {
        let subject = content.split("\r\nSubject: mail ").nth(1).unwrap();
        let number: u64 = subject.split("\r\n").next().unwrap().parse().unwrap();
        let (header, body) = content.split_once("\r\n\r\n").unwrap();
        let sealed = header.contains("application/pkcs7-mime");
        let mut came = self.came.lock().unwrap();
        came.copies.entry((number, due)).or_default().push(life);
        if due != Due::Notified && !sealed {
            let sent = message(number, Kind::of(number, false).octets());
            came.clear += u64::from(due == Due::Outside);
            came.altered += u64::from(Some(body) != sent.split_once("\r\n\r\n").map(|(_, body)| body));
        }
        came.clear += u64::from(sealed && body.contains("a line of the body"));
    }

    fn missing(&self, answered: &[u64], through: bool) -> usize {
        let came = self.came.lock().unwrap();
        let owed =
            answered.iter().flat_map(|number| Kind::of(*number, through).due().iter().map(|due| (*number, *due)));
        owed.filter(|owed| !came.copies.contains_key(owed)).count()
    }
}

fn content(lines: &mut BufReader<TcpStream>) -> Option<String> {
    let mut content = String::from("\r\n");
    loop {
        let line = line(lines)?;
        if line == ".\r\n" {
            return Some(content);
        }
        content.push_str(&line);
    }
}

/// What a client did.
#[derive(Default)]
struct Sent {
    answered: Vec<u64>,
    /// Mails sent once more, since no answer came.
    again: Vec<u64>,
}

/// Sends until it is over; a mail without an answer is sent again, as clients do.
fn client(target: &Mutex<Option<SocketAddr>>, over: &AtomicBool, numbers: &AtomicU64, through: bool) -> Sent {
    let (mut sent, mut unanswered) = (Sent::default(), None);
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(2));
        let connected = target.lock().unwrap().and_then(Client::connect);
        let Some(mut client) = connected else { continue };
        loop {
            let number = unanswered.take().unwrap_or_else(|| numbers.fetch_add(1, Ordering::Relaxed));
            let kind = Kind::of(number, through);
            if client.send_to(kind.recipients(), number, kind.octets()).is_none() {
                unanswered = Some(number);
                sent.again.push(number);
                break;
            }
            sent.answered.push(number);
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    sent
}

fn cycles() -> u64 {
    std::env::var("WAXWING_T1_CYCLES").map_or(20, |cycles| cycles.parse().expect("WAXWING_T1_CYCLES is a number"))
}

/// Each life has a name of its own, which it says to the next hop.
fn rename(house: &House, life: u64) {
    let text = std::fs::read_to_string(house.config()).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(house.config(), format!("hostname = \"life{life}.ours.example\"\n{rest}")).unwrap();
}

fn killed_again_and_again(delivery: &str, policy: &str) {
    let (cycles, through) = (cycles(), delivery == "cut-through");
    let ledger = Ledger::start();
    let house = House::with_listener(ledger.address, delivery, "by-recipient", policy);
    let target = Arc::new(Mutex::new(None::<SocketAddr>));
    let (over, numbers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (target, over, numbers) = (Arc::clone(&target), Arc::clone(&over), Arc::clone(&numbers));
            std::thread::spawn(move || client(&target, &over, &numbers, through))
        })
        .collect();
    let (mut slowest, began) = (Duration::ZERO, Instant::now());
    for life in 0..cycles {
        rename(&house, life);
        let mut served = house.serve();
        slowest = slowest.max(served.took);
        *target.lock().unwrap() = Some(served.address);
        std::thread::sleep(Duration::from_millis(100 + random(1200)));
        served.child.kill().unwrap();
        served.child.wait().unwrap();
        *target.lock().unwrap() = None;
        assert!(!served.damaged.load(Ordering::Relaxed), "life {life} found damage in its spool");
        if life % 50 == 49 {
            println!("T1, {delivery}: {} kills, {} mails begun", life + 1, numbers.load(Ordering::Relaxed));
        }
    }
    // The last life: what was not answered is sent again, and all that was answered arrives.
    rename(&house, cycles);
    let mut served = house.serve();
    slowest = slowest.max(served.took);
    *target.lock().unwrap() = Some(served.address);
    over.store(true, Ordering::Relaxed);
    let (mut answered, mut again) = (Vec::new(), BTreeSet::new());
    for client in clients {
        let sent = client.join().unwrap();
        answered.extend(sent.answered);
        again.extend(sent.again);
    }
    let drained = Instant::now();
    while ledger.missing(&answered, through) > 0 && drained.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    served.signal("-TERM");
    assert_eq!(served.ended(), Some(0));
    let lost = ledger.missing(&answered, through);
    let came = ledger.came.lock().unwrap();
    let mut repeated = HashMap::<u64, usize>::new();
    for lives in came.copies.values() {
        for life in lives.iter().skip(1) {
            *repeated.entry(*life).or_default() += 1;
        }
    }
    let (duplicates, most) = (repeated.values().sum::<usize>(), repeated.values().copied().max().unwrap_or_default());
    println!(
        "T1, {delivery}: {cycles} kills in {:.0?}, {} mails answered 250, {lost} lost, {} altered, {} for outside in clear, {duplicates} duplicates \
         (at most {most} after one kill), slowest start {slowest:?}",
        began.elapsed(),
        answered.len(),
        came.altered,
        came.clear,
    );
    assert!(answered.len() as u64 > cycles, "too few to say anything");
    assert_eq!((lost, came.altered), (0, 0));
    assert_eq!(came.clear == 0, through, "sealed where policy says so, and nowhere else");
    // One life sends a mail twice only where the client did.
    for (mail, lives) in came.copies.iter().filter(|((number, _), _)| !again.contains(number)) {
        let distinct: BTreeSet<_> = lives.iter().collect();
        assert_eq!(distinct.len(), lives.len(), "{mail:?} came twice from one life: {lives:?}");
    }
    assert!(most <= 2 * (CLIENTS + IN_FLIGHT), "{repeated:?}");
}

#[test]
fn t01_kill_at_random_moments_loses_nothing_that_was_answered() {
    killed_again_and_again("queue", "pass = true");
}

#[test]
fn t01_killed_while_mail_goes_straight_through_nothing_is_lost_and_nothing_leaves_in_clear() {
    killed_again_and_again("cut-through", "sign = \"require\"\nencrypt = \"require\"");
}

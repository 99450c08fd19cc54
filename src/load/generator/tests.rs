use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::address::{Mailbox, ReversePath};
use crate::load::mails::MailId;
use crate::load::scenario::{Kind, parse};
use crate::smtp::command::{Envelope, MailParameters, RcptParameters, Recipient};

/// What a server does with the mail of a number.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Take,
    Say(u16),
    /// Closes in place of an answer to MAIL.
    CloseAtMail,
    /// Closes in the content.
    CloseInData,
    /// Closes after the dot, without an answer.
    CloseAfterDot,
    Wait(Duration),
    Never,
}

type Script = Arc<dyn Fn(usize) -> Act + Send + Sync>;

#[derive(Default)]
struct Seen {
    mails: Vec<String>,
    connections: usize,
}

/// A server whose every mail is scripted by its number.
async fn server(script: Script) -> (SocketAddr, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            kept.lock().unwrap().connections += 1;
            tokio::spawn(session(stream, Arc::clone(&kept), Arc::clone(&script)));
        }
    });
    (address, seen)
}

async fn session(stream: TcpStream, seen: Arc<Mutex<Seen>>, script: Script) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"220 x\r\n").await.ok()?;
    let (mut line, mut act) = (String::new(), Act::Take);
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let answer = match line.get(..4).unwrap_or_default() {
            "EHLO" => "250-x\r\n250 PIPELINING\r\n",
            "MAIL" => {
                let number = seen.lock().unwrap().mails.len();
                act = script(number);
                match act {
                    Act::CloseAtMail => {
                        seen.lock().unwrap().mails.push("closed".into());
                        return None;
                    }
                    _ => "250 ok\r\n",
                }
            }
            "RCPT" if line.contains("nobody") => "550 5.1.1 nobody\r\n",
            "QUIT" => "221 bye\r\n",
            "DATA" => {
                stream.get_mut().write_all(b"354 go\r\n").await.ok()?;
                let mut content = String::new();
                loop {
                    line.clear();
                    stream.read_line(&mut line).await.ok()?;
                    if act == Act::CloseInData {
                        seen.lock().unwrap().mails.push("closed".into());
                        return None;
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    content.push_str(line.strip_prefix('.').unwrap_or(&line));
                }
                seen.lock().unwrap().mails.push(content);
                match act {
                    Act::Say(code) => {
                        stream.get_mut().write_all(format!("{code} said\r\n").as_bytes()).await.ok()?;
                        continue;
                    }
                    Act::CloseAfterDot => return None,
                    Act::Wait(time) => tokio::time::sleep(time).await,
                    Act::Never => std::future::pending().await,
                    _ => {}
                }
                "250 taken\r\n"
            }
            _ => "250 ok\r\n",
        };
        stream.get_mut().write_all(answer.as_bytes()).await.ok()?;
    }
}

struct Numbered {
    to: Vec<&'static str>,
    filler: usize,
}

impl Source for Numbered {
    fn mail(&self, number: u64) -> Mail {
        let recipient =
            |to: &&str| Recipient { mailbox: Mailbox::parse(to).unwrap(), parameters: RcptParameters::default() };
        Mail {
            id: MailId { run: 1, number },
            kind: Kind::Plain,
            envelope: Envelope {
                reverse_path: ReversePath::Mailbox(Mailbox::parse("a@example.org").unwrap()),
                parameters: MailParameters::default(),
                recipients: self.to.iter().map(recipient).collect(),
            },
            content: Bytes::from(format!("Subject: {number}\r\n\r\n.dot\r\n{}", "filler\r\n".repeat(self.filler))),
        }
    }
}

#[derive(Default)]
struct Heard {
    begun: Mutex<Vec<u64>>,
    ended: Mutex<HashMap<u64, Sending>>,
    overdue: Mutex<Vec<Duration>>,
}

impl Witness for Heard {
    fn begun(&self, mail: &Mail, _due: Instant) {
        self.begun.lock().unwrap().push(mail.id.number);
    }
    fn ended(&self, mail: &Mail, sending: &Sending) {
        assert!(self.begun.lock().unwrap().contains(&mail.id.number), "ended before it began");
        let twice = self.ended.lock().unwrap().insert(mail.id.number, sending.clone());
        assert!(twice.is_none(), "mail {} ended twice", mail.id.number);
    }
    fn overdue(&self, due: Instant, end: Instant) {
        self.overdue.lock().unwrap().push(end - due);
    }
}

impl Heard {
    fn answers(&self) -> Vec<Answered> {
        let ended = self.ended.lock().unwrap();
        let mut numbers: Vec<&u64> = ended.keys().collect();
        numbers.sort();
        numbers.into_iter().flat_map(|number| ended[number].answers.clone()).collect()
    }

    fn latencies(&self) -> Vec<Duration> {
        let mut latencies: Vec<Duration> =
            self.ended.lock().unwrap().values().map(|sending| sending.ended - sending.due).collect();
        latencies.sort();
        latencies
    }
}

struct Run {
    sent: Sent,
    heard: Arc<Heard>,
    seen: Arc<Mutex<Seen>>,
}

async fn run_to(to: Vec<&'static str>, pace: &str, script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Run {
    let (address, seen) = server(Arc::new(script)).await;
    let heard = Arc::new(Heard::default());
    let (_phase, going) = watch::channel(Phase::Going);
    let generator = generator(address, to, pace, &heard, going).await;
    let sent = tokio::time::timeout(Duration::from_secs(60), generator.run()).await.unwrap();
    Run { sent, heard, seen }
}

async fn run(pace: &str, script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Run {
    run_to(vec!["b@example.org"], pace, script).await
}

async fn generator(
    address: SocketAddr,
    to: Vec<&'static str>,
    pace: &str,
    heard: &Arc<Heard>,
    phase: watch::Receiver<Phase>,
) -> Generator<Numbered, Heard> {
    let scenario = parse(&format!("name = 't'\n{pace}"), "t").unwrap();
    let target = Target::find(&address.to_string(), false).await.unwrap();
    // Content that no socket buffer takes whole, where the server is to close in the middle of it.
    let filler = if pace.contains("# large") { 4 << 20 } else { 0 };
    Generator::new(scenario, &target, Arc::new(Numbered { to, filler }), Arc::clone(heard), phase).await.unwrap()
}

fn closed(mails: u64, connections: u64, more: &str) -> String {
    format!("[pace]\nkind = 'closed'\n[bound]\nmails = {mails}\n[connection]\ncount = {connections}\n{more}")
}

#[tokio::test]
async fn a_closed_loop_sends_so_many_on_kept_connections() {
    let run = run(&closed(50, 4, ""), |_| Act::Take).await;
    assert_eq!((run.sent.mails, run.sent.connections, run.sent.overdue), (50, 4, 0));
    assert_eq!(run.heard.answers(), vec![Answered::Taken; 50]);
    let seen = run.seen.lock().unwrap();
    assert_eq!(seen.connections, 5, "four, and the look before");
    let mut numbers: Vec<u32> = seen
        .mails
        .iter()
        .map(|mail| mail.strip_prefix("Subject: ").unwrap().strip_suffix("\r\n\r\n.dot\r\n").unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn connections_are_new_after_so_many_mails() {
    let run = run(&closed(10, 1, "mails = 3"), |_| Act::Take).await;
    assert_eq!((run.sent.connections, run.seen.lock().unwrap().connections), (4, 5));
    let made = run.heard.ended.lock().unwrap().values().filter(|sending| sending.connect.is_some()).count();
    assert_eq!(made, 4);
}

#[tokio::test]
async fn every_answer_is_told_as_what_it_is() {
    let run = run(&closed(6, 1, "patience = '1 s'\n# large"), |number| match number {
        0 => Act::Take,
        1 => Act::Say(451),
        2 => Act::Say(554),
        3 => Act::CloseAfterDot,
        4 => Act::Never,
        _ => Act::CloseInData,
    })
    .await;
    let answers = run.heard.answers();
    assert!(
        matches!(
            &answers[..],
            [
                Answered::Taken,
                Answered::Deferred(_),
                Answered::Refused(_),
                Answered::Unknown(_),
                Answered::Unknown(_),
                Answered::NotSent(_)
            ]
        ),
        "{answers:?}"
    );
    assert_eq!(run.sent.broken, 3);
}

#[tokio::test]
async fn recipients_are_answered_one_by_one() {
    let run =
        run_to(vec!["b@example.org", "nobody@example.org", "c@example.org"], &closed(2, 1, ""), |_| Act::Take).await;
    let answers = run.heard.answers();
    assert!(matches!(&answers[..3], [Answered::Taken, Answered::Refused(_), Answered::Taken]), "{answers:?}");
    let run = run_to(vec!["nobody@example.org"], &closed(2, 1, ""), |_| Act::Take).await;
    assert!(run.heard.answers().iter().all(|answer| matches!(answer, Answered::Refused(_))));
    assert_eq!(run.sent.connections, 1, "a refused mail leaves the connection as it was");
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_made_anew_and_the_mail_sent_once() {
    let run = run(&closed(4, 1, ""), |number| if number == 2 { Act::CloseAtMail } else { Act::Take }).await;
    assert_eq!(run.heard.answers(), vec![Answered::Taken; 4]);
    assert_eq!((run.sent.broken, run.sent.connections), (1, 2));
}

#[tokio::test]
async fn an_open_loop_keeps_its_rate_and_counts_from_when_mails_were_due() {
    let pace = "[pace]\nkind = 'open'\narrivals = 'even'\nrate = 200\n[bound]\nmails = 200\n[connection]\ncount = 5";
    let stalled = std::sync::atomic::AtomicBool::new(false);
    let script = move |number| match number >= 100 && !stalled.swap(true, Ordering::Relaxed) {
        true => Act::Wait(Duration::from_secs(2)),
        false => Act::Take,
    };
    let run = run(pace, script).await;
    let took = run.sent.ended - run.sent.began;
    assert!(took >= Duration::from_millis(995), "200 mails at 200/s: {took:?}");
    // One of five connections is held up: the others go on, and only the mail itself waits.
    let latencies = run.heard.latencies();
    assert!(latencies[199] >= Duration::from_secs(2));
    assert_eq!(run.sent.overdue, 0);
}

#[tokio::test]
async fn an_open_loop_shows_a_stall_in_p99() {
    // All connections stall for two seconds, once: a closed loop would show it in one mail a connection.
    let pace = "[pace]\nkind = 'open'\narrivals = 'even'\nrate = 100\n[bound]\nmails = 400\n[connection]\ncount = 1";
    let run = run(pace, |number| if number == 50 { Act::Wait(Duration::from_secs(2)) } else { Act::Take }).await;
    let latencies = run.heard.latencies();
    assert!(latencies[395] >= Duration::from_millis(1_900), "p99 {:?}", latencies[395]);
    assert!(latencies[300] >= Duration::from_secs(1), "those behind it waited too");
}

#[tokio::test]
async fn what_fell_due_and_was_not_begun_is_told() {
    let pace = "[pace]\nkind = 'open'\narrivals = 'even'\nrate = 100\n[bound]\ntime = '1 s'\n[connection]\ncount = 1";
    let run = run(pace, |_| Act::Wait(Duration::from_millis(100))).await;
    let overdue = run.heard.overdue.lock().unwrap();
    assert_eq!(u64::try_from(overdue.len()).unwrap(), run.sent.overdue);
    assert_eq!(run.sent.mails + run.sent.overdue, 99, "every mail that was due within the second");
    assert!(run.sent.mails <= 11, "{}", run.sent.mails);
    assert!(overdue.iter().all(|late| *late <= Duration::from_secs(1)));
}

#[tokio::test]
async fn a_stop_ends_what_was_begun_and_a_second_one_cuts_it_off() {
    for (told, connections) in [(Phase::Stopping, 3), (Phase::Aborted, 3)] {
        let (address, _) = server(Arc::new(move |number| match told {
            Phase::Aborted if number >= 20 => Act::Never,
            _ => Act::Wait(Duration::from_millis(20)),
        }))
        .await;
        let heard = Arc::new(Heard::default());
        let (phase, going) = watch::channel(Phase::Going);
        let generator = generator(address, vec!["b@x.org"], &closed(1_000_000, connections, ""), &heard, going).await;
        let running = tokio::spawn(async move { generator.run().await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        phase.send(told).unwrap();
        let sent = tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
        assert!(sent.stopped);
        assert_eq!(heard.begun.lock().unwrap().len(), heard.ended.lock().unwrap().len());
        let unknown = heard.answers().iter().filter(|answer| matches!(answer, Answered::Unknown(_))).count();
        assert_eq!(unknown, if told == Phase::Aborted { 3 } else { 0 });
    }
}

#[tokio::test]
async fn a_target_that_goes_away_and_comes_back_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let serve = |listener: TcpListener, seen: Arc<Mutex<Seen>>| {
        tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sessions.spawn(session(stream, Arc::clone(&seen), Arc::new(|_| Act::Wait(Duration::from_millis(5)))));
            }
        })
    };
    let first = serve(listener, Arc::clone(&seen));
    let heard = Arc::new(Heard::default());
    let (_phase, going) = watch::channel(Phase::Going);
    let generator = generator(address, vec!["b@x.org"], &closed(200, 4, ""), &heard, going).await;
    let running = tokio::spawn(async move { generator.run().await });
    while seen.lock().unwrap().mails.len() < 50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.abort();
    let _ = first.await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    serve(TcpListener::bind(address).await.unwrap(), Arc::clone(&seen));
    let sent = tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
    assert_eq!(sent.mails, 200);
    let answers = heard.answers();
    let taken = answers.iter().filter(|answer| **answer == Answered::Taken).count();
    let unknown = answers.iter().filter(|answer| matches!(answer, Answered::Unknown(_))).count();
    assert!(taken + unknown >= 196 && unknown <= 4, "{taken} taken, {unknown} unknown");
}

#[tokio::test]
async fn a_target_that_is_no_mail_server_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let scenario = parse(&format!("name = 't'\n{}", closed(1, 1, "")), "t").unwrap();
    let target = Target::find(&address, false).await.unwrap();
    let (_phase, going) = watch::channel(Phase::Going);
    let source = Arc::new(Numbered { to: vec![], filler: 0 });
    let why = Generator::new(scenario, &target, source, Arc::<Heard>::default(), going).await.err().unwrap();
    assert!(why.contains("is it an SMTP server?"), "{why}");
}

#[tokio::test]
async fn the_knee_of_a_server_is_found() {
    // One connection, 5 ms a mail: some 190 mails/s at most.
    let pace = "[pace]\nkind = 'knee'\nfrom = 40\nmost = 2000\np99 = '100 ms'\neach = '700 ms'\narrivals = 'even'\n[connection]\ncount = 1";
    let run = run(pace, |_| Act::Wait(Duration::from_millis(5))).await;
    let knee = run.sent.knee.unwrap();
    let rate = knee.rate.unwrap();
    assert!((30.0..=220.0).contains(&rate), "{knee:?}");
    assert!(knee.trials.iter().any(|trial| !trial.good) && knee.too_much.unwrap() <= rate * 1.06);
}

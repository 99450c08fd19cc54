//! Hostile SMTP on both sides: sequences that smuggle a second mail in, and servers that want to fill, hold or confuse the client.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::outside;
use super::support::house::{House, Plan, plain};
use super::support::{Client, Sink};
use super::{ANNA, BERT};

const PASS: &str = "[default]\npass = true\n";

/// A table of the corpus, without its head line.
fn table(name: &str) -> Option<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(outside::corpora()?.join("smtp-attack").join(name)).unwrap();
    Some(text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|two| two[0] * 16 + two[1]).collect()
}

/// A client with an open DATA.
async fn in_data(address: SocketAddr, from: &str, to: &str) -> Client {
    let mut client = Client::connect(address).await;
    for (command, code) in
        [(format!("MAIL FROM:<{from}>"), 250), (format!("RCPT TO:<{to}>"), 250), ("DATA".into(), 354)]
    {
        assert_eq!(client.say(&command).await.code, code, "{command}");
    }
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_a_foreign_end_of_data_sequence_brings_no_second_mail() {
    let Some(sequences) = table("eod-sequences.tsv") else { return };
    assert_eq!(sequences.len(), 13);
    for delivery in ["cut-through", "queue"] {
        let house =
            House::build(&Plan { policy: PASS, top: &format!("delivery = \"{delivery}\"\n"), ..Plan::default() }).await;
        for sequence in &sequences {
            let (name, sequence) = (&sequence[0], octets(&sequence[1]));
            for (address, from, to) in [(house.out(), ANNA, BERT), (house.inward(), BERT, ANNA)] {
                let mut client = in_data(address, from, to).await;
                let smuggled =
                    format!("MAIL FROM:<evil@{name}.example>\r\nRCPT TO:<{to}>\r\nDATA\r\nSubject: second\r\n\r\nevil");
                let first = format!("Subject: first\r\n\r\nwhat {name} comes after");
                client.write(&[first.as_bytes(), &sequence, smuggled.as_bytes(), b"\r\n.\r\n"].concat()).await.unwrap();
                let said = client.hear().await;
                assert_eq!(said.code, if name == "valid" { 250 } else { 550 }, "{name}: {}", said.octets);
                if name == "valid" {
                    // The next envelope is heard; content that did not wait for 354 ends the session.
                    let rest = client.rest().await;
                    assert!(rest.lines().last().is_some_and(|last| last.starts_with("554 ")), "{rest}");
                }
            }
        }
        house.settled().await;
        for sink in [&house.world, &house.server] {
            let mails = sink.mails();
            assert!(mails.iter().all(|mail| mail.text().contains("Subject: first") && !mail.text().contains("evil")));
            assert_eq!(mails.len(), 1, "{delivery}: that which ended truly, alone");
        }
    }
}

/// Sends a mail in chunks of these lengths, the last with what is left, pipelined; the answer to each BDAT.
async fn send_in_chunks(address: SocketAddr, from: &str, to: &str, content: &[u8], lengths: &[usize]) -> Vec<u16> {
    let mut client = Client::connect(address).await;
    let (mut wire, mut rest) = (format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\n").into_bytes(), content);
    for length in lengths {
        let (chunk, more) = rest.split_at(*length);
        wire.extend(format!("BDAT {length}\r\n").bytes().chain(chunk.iter().copied()));
        rest = more;
    }
    wire.extend(format!("BDAT {} LAST\r\n", rest.len()).bytes().chain(rest.iter().copied()));
    client.write(&wire).await.unwrap();
    assert_eq!((client.hear().await.code, client.hear().await.code), (250, 250));
    let mut codes = Vec::new();
    for _ in 0..=lengths.len() {
        codes.push(client.hear().await.code);
    }
    assert_eq!(client.say("QUIT").await.code, 221);
    codes
}

/// What looks like the end of DATA arrives as content, stuffed on its way by DATA; wherever it is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a18_wherever_a_mail_is_cut_into_chunks_it_arrives_the_same() {
    let house = House::with_policy(PASS).await;
    let content = b"Subject: cut\r\n\r\n.\r\nMAIL FROM:<evil@x>\r\n..\r\n.x\r\n\r\n.\r\n";
    for cut in 0..=content.len() {
        let codes = send_in_chunks(house.inward(), BERT, ANNA, content, &[cut]).await;
        assert_eq!(codes, [250, 250], "{cut}");
    }
    let octets: Vec<usize> = vec![1; content.len()];
    assert_eq!(send_in_chunks(house.inward(), BERT, ANNA, content, &octets).await, vec![250; content.len() + 1]);
    let mails = house.server.mails();
    assert_eq!(mails.len(), content.len() + 2);
    assert!(mails.iter().all(|mail| mail.message.ends_with(content) && mail.from == BERT), "{mails:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a18_a_foreign_end_of_data_sequence_in_a_chunk_ends_nothing() {
    let Some(sequences) = table("eod-sequences.tsv") else { return };
    let house = House::with_policy(PASS).await;
    for sequence in &sequences {
        let (name, sequence) = (&sequence[0], octets(&sequence[1]));
        let envelope = format!("MAIL FROM:<evil@{name}.example>\r\nRCPT TO:<{ANNA}>\r\nDATA\r\nevil\r\n");
        let content = [b"Subject: first\r\n\r\nbefore", &sequence[..], envelope.as_bytes()].concat();
        let codes = send_in_chunks(house.inward(), BERT, ANNA, &content, &[20]).await;
        assert_eq!(codes, [250, if name == "valid" { 250 } else { 550 }], "{name}");
    }
    let mails = house.server.mails();
    assert!(mails.len() == 1 && mails[0].from == BERT && mails[0].text().ends_with("DATA\r\nevil\r\n"), "{mails:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a19_foreign_sessions_are_refused_with_their_codes() {
    let Some(sessions) = table("sessions.tsv") else { return };
    let house = House::with_policy(PASS).await;
    let mut heard = Vec::new();
    // STARTTLS wants a listener with TLS: see a17.
    for session in sessions.iter().filter(|session| session[0] != "starttls-cmd-injection") {
        let script = session[1].replace("\\r", "\r").replace("\\n", "\n");
        let mut client = Client::connect(house.inward()).await;
        for command in [format!("MAIL FROM:<{BERT}>"), format!("RCPT TO:<{ANNA}>")] {
            assert_eq!(client.say(&command).await.code, 250);
        }
        client.write(format!("{script}QUIT\r\n").as_bytes()).await.unwrap();
        let codes: Vec<String> = client.rest().await.lines().map(|line| line[..4].to_owned()).collect();
        heard.push((session[0].as_str(), codes.concat()));
    }
    // Five octets of a chunk are content, and the commands behind them are the client's own: one mail, and none of the other envelope.
    let expected = [("data-pipelining", "354 554 ".to_owned()), ("bdat-smuggle", "250 500 250 221 ".to_owned())];
    assert_eq!(heard, expected);
    let mails = house.server.mails();
    assert!(mails.len() == 1 && mails[0].text().ends_with("abc\r\n") && mails[0].from == BERT, "{mails:?}");
}

/// How a server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trick {
    /// At this command it begins with these octets and repeats the others for ever.
    Endless(&'static str, &'static str, &'static str),
    /// At this command it says this.
    Says(&'static str, &'static str),
    /// At this command it says nothing more.
    Silent(&'static str),
    /// At this command it hangs up.
    HangsUp(&'static str),
}

const TRICKS: &[Trick] = &[
    Trick::Endless("", "220-", "hello\r\n220-"),
    Trick::Endless("", "220 ", "x"),
    Trick::Endless("EHLO", "250-", "X-OFFER\r\n250-"),
    Trick::Endless("EHLO", "250-", "x"),
    Trick::Endless("MAIL", "250-", "ok\r\n250-"),
    Trick::Endless("RCPT", "250 ", "\0"),
    Trick::Endless("DATA", "354-", "go\r\n354-"),
    Trick::Endless("RCPT", "250 ok\r\n", "250 ok\r\n"),
    Trick::Says("", "250 hello\r\n"),
    Trick::Says("", "\u{0}\u{1}\r\n"),
    Trick::Says("", "99999999999999999999 hello\r\n"),
    Trick::Says("", "220 hello\r\n250 too early\r\n"),
    Trick::Says("EHLO", "250-one\r\n354 other\r\n"),
    Trick::Says("MAIL", "354 go\r\n"),
    Trick::Says("RCPT", "354 go\r\n"),
    Trick::Says("DATA", "250 taken already\r\n"),
    Trick::Says("DATA", "354 go\r\n250 taken already\r\n"),
    Trick::Says("DATA", "220 ready\r\n"),
    Trick::Says(".", "354 more\r\n"),
    Trick::Says(".", "250 taken\n"),
    Trick::Silent("DATA"),
    Trick::HangsUp(""),
    Trick::HangsUp("EHLO"),
    Trick::HangsUp("MAIL"),
    Trick::HangsUp("DATA"),
];

/// A server that plays a trick until it is told to behave, and counts what it got rid of.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    trick: Trick,
    behaves: Arc<AtomicBool>,
    /// Most octets of an endless answer that one client took, what lies in the kernel's buffers too.
    taken: Arc<AtomicUsize>,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(trick: Trick) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, trick, behaves: Arc::default(), taken: Arc::default(), mails: Arc::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        server
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        self.say("", "220 server\r\n", &mut stream).await?;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|octets| *octets > 0)?;
            let verb = line.get(..4)?;
            let good = match verb {
                "EHLO" => "250-server\r\n250 PIPELINING\r\n",
                "DATA" => "354 go\r\n",
                _ => "250 ok\r\n",
            };
            self.say(verb, good, &mut stream).await?;
            if verb == "DATA" {
                let mut content = String::new();
                while !content.ends_with("\r\n.\r\n") {
                    stream.read_line(&mut content).await.ok().filter(|octets| *octets > 0)?;
                }
                let behaves = self.behaves.load(Ordering::Relaxed);
                self.say(".", "250 taken\r\n", &mut stream).await?;
                if behaves {
                    self.mails.lock().unwrap().push(content);
                }
            }
        }
    }

    async fn say(&self, at: &str, good: &str, stream: &mut BufReader<TcpStream>) -> Option<()> {
        let stream = stream.get_mut();
        let behaves = self.behaves.load(Ordering::Relaxed);
        match self.trick {
            Trick::Endless(when, first, again) if when == at && !behaves => {
                let again = again.repeat(64 * 1024 / again.len());
                let mut taken = first.len();
                stream.write_all(first.as_bytes()).await.ok()?;
                while stream.write_all(again.as_bytes()).await.is_ok() {
                    taken += again.len();
                    self.taken.fetch_max(taken, Ordering::Relaxed);
                    assert!(taken < 1 << 30, "it never ends");
                }
                None
            }
            Trick::Says(when, words) if when == at && !behaves => stream.write_all(words.as_bytes()).await.ok(),
            Trick::Silent(when) if when == at && !behaves => std::future::pending().await,
            Trick::HangsUp(when) if when == at && !behaves => None,
            _ => stream.write_all(good.as_bytes()).await.ok(),
        }
    }
}

/// A mail to a server with this trick; it is refused for now or waits in the spool, and comes once the server behaves.
async fn survives(trick: Trick, delivery: &str) {
    let server = Server::start(trick).await;
    let top = format!("delivery = \"{delivery}\"\n");
    let policy = format!(
        "[limits]\nhop_greeting_timeout = \"2 s\"\nhop_command_timeout = \"2 s\"\nhop_timeout = \"2 s\"\n{PASS}"
    );
    let plan = Plan { policy: &policy, top: &top, ..Plan::default() };
    let house = House::between(&plan, Sink::start().await, Sink::start().await, server.address, server.address).await;
    let message = plain(ANNA, BERT, "tricked", "the body");
    let said = house.send_out(ANNA, &[BERT], &message).await;
    assert!(matches!(said.code, 250 | 451), "{trick:?} {delivery}: {}", said.octets);
    if said.code == 250 {
        let waits = || house.gateway.spool().entries().iter().any(|entry| entry.attempts > 0);
        let tried = tokio::time::timeout(Duration::from_secs(30), async {
            while delivery == "queue" && !waits() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        tried.await.unwrap_or_else(|_| panic!("{trick:?}: not tried"));
    }
    // Socket buffers of both sides, and little more.
    let taken = server.taken.load(Ordering::Relaxed);
    assert!(taken < 16 << 20, "{trick:?} {delivery}: {taken} octets taken");
    server.behaves.store(true, Ordering::Relaxed);
    if said.code != 250 {
        assert_eq!(house.send_out(ANNA, &[BERT], &message).await.code, 250, "{trick:?} {delivery}");
    }
    house.settled().await;
    let mails = server.mails.lock().unwrap().clone();
    assert!(mails.len() == 1 && mails[0].contains("the body"), "{trick:?} {delivery}: {mails:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_servers_neither_fill_nor_hold_the_gateway_and_cost_no_mail() {
    for delivery in ["cut-through", "queue"] {
        let mut all = tokio::task::JoinSet::new();
        for trick in TRICKS {
            all.spawn(survives(*trick, delivery));
        }
        all.join_all().await;
    }
}

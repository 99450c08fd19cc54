use std::collections::HashSet;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::judge::Wrong;
use super::*;
use crate::cms::enveloped::RecipientScheme;
use crate::load::generator::Source;
use crate::load::ledger::{Account, Answered};
use crate::load::mails::people::{People, Person};
use crate::load::scenario::parse;
use crate::mime::entity::{Entity, MimeLimits};
use crate::policy::Profile;
use crate::smime::seal::{Draft, EncryptPlan};

fn quiet(_: &str, _: usize, _: usize) {}

fn scenario(more: &str) -> Scenario {
    let text = format!(
        "name = 't'\n[pace]\nkind = 'closed'\n[bound]\nmails = 20\n[people]\nmade = 2\nkeys = ['p256']\n[mail]\nsize = '3 KiB'\n{more}"
    );
    parse(&text, "t").unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn mails(more: &str) -> (Scenario, Arc<Mails>) {
    let scenario = scenario(more);
    let people = Arc::new(People::new(&scenario, &quiet).unwrap());
    let mails = Arc::new(Mails::new(&scenario, people, 0xab, &quiet).unwrap());
    (scenario, mails)
}

fn of_kind(kind: &str) -> Arc<Mails> {
    mails(&format!("[[mix]]\nkind = '{kind}'")).1
}

const PASS: &str = "Authentication-Results: gw.example; smime=pass\r\n";
const FAIL: &str = "Authentication-Results: gw.example; smime=fail\r\n";

/// What is wrong with this content for mail 0.
fn wrong(mails: &Mails, content: Bytes) -> Option<FaultKind> {
    let plan = mails.plan(0).unwrap();
    let judge = Judge { mails, plan: &plan, number: 0, verdict: true };
    judge.judge(&arrival::read(content)).map(|(what, _): Wrong| what)
}

fn with(field: &str, content: &[u8]) -> Bytes {
    [field.as_bytes(), content].concat().into()
}

/// As a gateway delivers what it opened: outer fields and the inner entity.
fn opened(mails: &Mails, field: &str) -> Bytes {
    let entity = mails.entity(&mails.plan(0).unwrap(), 0);
    with(&format!("{field}X-Load-Id: {}\r\n", mails.id(0)), &entity)
}

/// As a gateway seals, for these readers.
fn sealed(mail: &[u8], readers: &[&Person]) -> Bytes {
    let entity = Entity::parse(Bytes::copy_from_slice(mail), &MimeLimits::default()).unwrap();
    let profile = Profile::builtin("compatible").unwrap();
    let scheme = RecipientScheme { rsa: profile.transport, kdf: profile.kdf };
    let recipients = readers.iter().map(|reader| (reader.certificate.clone().unwrap(), scheme)).collect();
    let plan = EncryptPlan { recipients, content: profile.content[0], derive_cek: false };
    Draft::new(&entity).unwrap().encrypt(&plan, false).unwrap().rope().to_bytes()
}

fn changed(content: &Bytes) -> Bytes {
    let mut octets = content.to_vec();
    let at = octets.len() - 40;
    octets[at] ^= 1;
    octets.into()
}

#[test]
fn plain_mail_is_to_arrive_as_it_was_sent() {
    for kind in ["plain", "unknown-clear"] {
        let mails = of_kind(kind);
        let sent = mails.mail(0).content;
        assert_eq!(wrong(&mails, with("Received: by x\r\n", &sent)), None);
        assert_eq!(wrong(&mails, with(FAIL, &sent)), None);
        assert_eq!(wrong(&mails, changed(&sent)), Some(FaultKind::Altered));
        assert_eq!(wrong(&mails, sent.slice(..sent.len() - 4)), Some(FaultKind::Altered));
        assert_eq!(wrong(&mails, with(PASS, &sent)), Some(FaultKind::FalselyValid));
        let readers: Vec<&Person> = mails.people().ours.iter().collect();
        assert_eq!(wrong(&mails, sealed(&sent, &readers)), Some(FaultKind::Altered));
    }
}

#[test]
fn what_is_to_be_sealed_is_encrypted_and_nowhere_readable() {
    for kind in ["to-seal", "unknown"] {
        let mails = of_kind(kind);
        let sent = mails.mail(0).content;
        let readers: Vec<&Person> = mails.people().theirs.iter().collect();
        let good = sealed(&sent, &readers);
        assert_eq!(wrong(&mails, good.clone()), None);
        assert_eq!(wrong(&mails, sent.clone()), Some(FaultKind::InClear));
        assert_eq!(wrong(&mails, changed(&sent)), Some(FaultKind::InClear));
        assert_eq!(wrong(&mails, opened(&mails, "")), Some(FaultKind::InClear));
        assert_eq!(wrong(&mails, with(PASS, &good)), Some(FaultKind::FalselyValid));
        let leak = format!("Comments: {}\r\n", mails.canary());
        assert_eq!(wrong(&mails, with(&leak, &good)), Some(FaultKind::InClear), "beside the encryption");
    }
}

#[test]
fn what_arrives_sealed_is_opened_by_its_recipient() {
    let mails = of_kind("to-seal");
    let sent = mails.mail(0).content;
    let plan = mails.plan(0).unwrap();
    let judge = Judge { mails: &mails, plan: &plan, number: 0, verdict: true };
    let reader = plan.to[0];
    let other = mails.people().theirs.iter().find(|person| person.mailbox != reader.mailbox).unwrap();
    let trust = &mails.people().trust;
    let what = |content: &Bytes| judge.open(content, reader, trust).map(|(what, _)| what);
    assert_eq!(what(&sealed(&sent, &[other, reader])), None);
    assert_eq!(what(&sealed(&sent, &[other])), Some(FaultKind::Altered), "he cannot open it");
    assert_eq!(what(&sealed(&changed(&sent), &[reader])), Some(FaultKind::Altered));
    assert_eq!(what(&sealed(b"Subject: x\r\n\r\nx\r\n", &[reader])), Some(FaultKind::Altered));
}

#[test]
fn sealed_and_signed_mail_is_to_arrive_opened_and_with_its_verdict() {
    for kind in ["sealed", "signed"] {
        let mails = of_kind(kind);
        let sent = mails.mail(0).content;
        assert_eq!(wrong(&mails, opened(&mails, PASS)), None);
        assert_eq!(wrong(&mails, opened(&mails, FAIL)), Some(FaultKind::NotOpened));
        assert_eq!(wrong(&mails, opened(&mails, "")), Some(FaultKind::NotOpened));
        assert_eq!(wrong(&mails, changed(&opened(&mails, PASS))), Some(FaultKind::Altered));
        let as_sent = wrong(&mails, with(PASS, &sent));
        assert_eq!(as_sent, if kind == "sealed" { Some(FaultKind::NotOpened) } else { None });
        let plan = mails.plan(0).unwrap();
        let lenient = Judge { mails: &mails, plan: &plan, number: 0, verdict: false };
        assert!(lenient.judge(&arrival::read(opened(&mails, ""))).is_none(), "for targets that say nothing");
    }
}

#[test]
fn tampered_mail_is_never_called_valid() {
    let mails = of_kind("tampered");
    let sent = mails.mail(0).content;
    for content in [sent.clone(), with(FAIL, &sent), with(FAIL, b"\r\nwhatever\r\n")] {
        assert_eq!(wrong(&mails, content), None);
    }
    assert_eq!(wrong(&mails, with(PASS, &sent)), Some(FaultKind::FalselyValid));
    let reader = mails.plan(0).unwrap().to[0];
    let plan = mails.plan(0).unwrap();
    let judge = Judge { mails: &mails, plan: &plan, number: 0, verdict: true };
    assert!(judge.open(&sent, reader, &mails.people().trust).is_some(), "it cannot be opened as it was");
}

#[test]
fn what_is_sealed_for_somebody_else_stays_as_it_is() {
    let mails = of_kind("wrong-key");
    let sent = mails.mail(0).content;
    assert_eq!(wrong(&mails, with("Received: x\r\n", &sent)), None);
    assert_eq!(wrong(&mails, changed(&sent)), Some(FaultKind::Altered));
    assert_eq!(wrong(&mails, opened(&mails, "")), Some(FaultKind::InClear));
    assert_eq!(wrong(&mails, with(PASS, &sent)), Some(FaultKind::FalselyValid));
}

/// A sink at work, and one that speaks to it.
struct Talk {
    sink: Sink,
    mails: Arc<Mails>,
    ledger: Arc<Ledger>,
    heard: Arc<AtomicU64>,
}

impl Talk {
    async fn start(more: &str) -> Self {
        let (scenario, mails) = mails(more);
        let (ledger, heard) = (Arc::<Ledger>::default(), Arc::<AtomicU64>::default());
        let counter = Arc::clone(&heard);
        let hear: Heard = Arc::new(move |_, _| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let sink = Sink::start(address, &scenario, Arc::clone(&mails), Arc::clone(&ledger), hear).await.unwrap();
        Self { sink, mails, ledger, heard }
    }

    fn begin(&self, number: u64, answer: Answered) {
        let mail = self.mails.mail(number);
        self.ledger.begun(&mail, Instant::now(), true, false);
        self.ledger.ended(number, &vec![answer; mail.envelope.recipients.len()]);
    }

    /// The answer to the dot; empty: the connection was closed.
    async fn send(&self, from: &str, to: &str, content: &[u8]) -> String {
        let stream = TcpStream::connect(self.sink.address()).await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        for words in ["HELO x".to_owned(), format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>"), "DATA".to_owned()]
        {
            stream.get_mut().write_all(format!("{words}\r\n").as_bytes()).await.unwrap();
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            assert!(line.starts_with(['2', '3']), "{words}: {line}");
        }
        stream.get_mut().write_all(&[content, b".\r\n"].concat()).await.unwrap();
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        line
    }

    /// Mail `number` as it was sent, to its first recipient.
    async fn deliver(&self, number: u64) -> String {
        let mail = self.mails.mail(number);
        let to = mail.envelope.recipients[0].mailbox.to_string();
        self.send("a@x.example", &to, &mail.content).await
    }

    fn account(&self) -> Account {
        self.ledger.account(true, |number| (self.mails.id(number), Vec::new()))
    }
}

#[tokio::test]
async fn arrivals_are_counted_for_whom_they_came() {
    let talk = Talk::start("").await;
    talk.begin(0, Answered::Taken);
    assert!(talk.deliver(0).await.starts_with("250"));
    assert_eq!((talk.heard.load(Ordering::Relaxed), talk.ledger.open()), (1, 0));
    assert!(talk.account().is_good());
    talk.send("a@x.example", "somebody.else@x.example", &talk.mails.mail(0).content).await;
    let account = talk.account();
    assert_eq!((account.faults.len(), account.faults[0].what), (1, FaultKind::Misdelivered));
    assert_eq!(account.faults[0].recipient, "somebody.else@x.example");
    // Of another run; of a number that was never sent; without a name, but with a body of this run.
    let other =
        String::from_utf8(talk.mails.mail(0).content.to_vec()).unwrap().replace("00000000000000ab", "00000000000000ac");
    let other = other.replace(talk.mails.canary(), "");
    talk.send("a@x.example", "b@x.example", other.as_bytes()).await;
    talk.send("a@x.example", "b@x.example", b"Subject: x\r\n\r\nx\r\n").await;
    assert_eq!((talk.account().strangers, talk.account().faults.len()), (2, 1));
    talk.send("a@x.example", "b@x.example", format!("Subject: x\r\n\r\n{}\r\n", talk.mails.canary()).as_bytes()).await;
    let account = talk.account();
    assert_eq!((account.strangers, account.found[&FaultKind::InClear]), (3, 1));
    assert_eq!(account.faults.iter().filter(|fault| fault.id.is_none()).count(), 1);
}

#[tokio::test]
async fn a_sealed_arrival_is_opened_behind_the_answer() {
    let talk = Talk::start("[[mix]]\nkind = 'to-seal'").await;
    for number in 0..4 {
        talk.begin(number, Answered::Taken);
        let mail = talk.mails.mail(number);
        let plan = talk.mails.plan(number).unwrap();
        let content = if number == 2 { changed(&mail.content) } else { mail.content.clone() };
        let to = plan.to[0].mailbox.to_string();
        assert!(talk.send("a@x.example", &to, &sealed(&content, &[plan.to[0]])).await.starts_with("250"));
    }
    talk.sink.looked_at().await;
    let account = talk.account();
    assert_eq!(account.faults.len(), 1, "{:?}", account.faults);
    assert_eq!((account.faults[0].what, account.faults[0].id), (FaultKind::Altered, Some(talk.mails.id(2))));
}

#[tokio::test]
async fn a_report_settles_its_mail() {
    let talk = Talk::start("").await;
    talk.begin(0, Answered::Taken);
    let to = talk.mails.mail(0).envelope.recipients[0].mailbox.to_string();
    let report = |action: &str, id: String| {
        format!(
            "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n\
             Original-Envelope-Id: {id}\r\n\r\nFinal-Recipient: rfc822; {}\r\nAction: {action}\r\n\r\n--b--\r\n",
            to.to_uppercase()
        )
    };
    talk.send("", "a@x.example", report("delayed", talk.mails.id(0).to_string()).as_bytes()).await;
    assert_eq!((talk.ledger.open(), talk.account().bounced, talk.account().strangers), (1, 0, 0));
    talk.send("", "a@x.example", report("failed", talk.mails.id(7).to_string()).as_bytes()).await;
    assert_eq!((talk.ledger.open(), talk.account().strangers), (1, 1));
    talk.send("", "a@x.example", report("failed", talk.mails.id(0).to_string()).as_bytes()).await;
    assert_eq!((talk.ledger.open(), talk.account().bounced), (0, 1));
    assert!(talk.account().is_good());
}

#[tokio::test]
async fn it_is_as_faulty_as_it_is_told_to_be() {
    let talk = Talk::start("[sink]\ndefer = 0.25\nrefuse = 0.25\nclose = 0.25").await;
    let mut answers: Vec<String> = Vec::new();
    for number in 0..80 {
        talk.begin(number, Answered::Taken);
        answers.push(talk.deliver(number).await.chars().take(3).collect());
    }
    let count = |code: &str| answers.iter().filter(|answer| *answer == code).count() as u64;
    assert_eq!(answers.iter().collect::<HashSet<_>>().len(), 4, "{answers:?}");
    for code in ["250", "451", "554", ""] {
        assert!((8..35).contains(&count(code)), "{code:?}: {answers:?}");
    }
    let account = talk.account();
    assert_eq!(account.delivered, count("250"));
    // Told that nothing came of them: deferred and closed ones; the refused ones too, since their senders' reports would come here.
    assert_eq!(account.found[&FaultKind::Lost], 80 - count("250"));
}

#[tokio::test]
async fn slow_answers_and_stalls_take_their_time() {
    for (more, least) in [("slow = '300 ms'", 300), ("stall = 1.0\nstall_for = '400 ms'", 400)] {
        let talk = Talk::start(&format!("[sink]\n{more}")).await;
        talk.begin(0, Answered::Taken);
        let began = Instant::now();
        assert!(talk.deliver(0).await.starts_with("250"));
        assert!(began.elapsed() >= Duration::from_millis(least), "{more}: {:?}", began.elapsed());
    }
}

//! The gateway as a stage of a samotop server: what samotop answers, and what leaves, is what a listener of ours would answer and send.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "samotop/server.rs"]
mod server;
#[path = "samotop/service.rs"]
mod service;
mod support;

use std::net::{IpAddr, SocketAddr};

use samotop_core::common::{S1Fut, S2Fut};
use samotop_core::mail::{
    AddRecipientResult, Builder, DispatchResult, MailDispatch, MailGuard, MailSetup, NullDispatch, Recipient, Service,
    StartMailResult,
};
use samotop_core::smtp::{Esmtp, EsmtpStartTls, Lmtp, SmtpSession};
use samotop_parser::SmtpParserPeg;
use server::{Driver, Pretended, Runtime, Way, serve};
use support::house::{House, Plan, plain};
use support::{Client, Fault, Said};
use waxwing::config::{Direction, ListenTls, Listener};
use waxwing::samotop::{Stage, StageError};

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@partner.example";
const CANARY: &str = "the CanaryBody sings";
const REQUIRE: &str = "[default]\nsign = \"if-key\"\nencrypt = \"require\"\n";
const PASS: &str = "[default]\npass = true\n";

fn listener() -> Listener {
    let trusted_networks = vec!["127.0.0.1/32".parse().unwrap()];
    Listener { trusted_networks, ..Listener::new("samotop", ([127, 0, 0, 1], 25).into(), Direction::ByRecipient) }
}

fn stage(house: &House) -> Stage {
    Stage::new(&house.gateway, listener()).unwrap()
}

/// As the page has it.
async fn samotop(house: &House) -> SocketAddr {
    serve(service::service(&house.gateway, listener(), Driver).unwrap(), Runtime::Tokio, Way::Clear).await
}

async fn send(at: SocketAddr, to: &[&str], message: &str) -> Said {
    Client::connect(at).await.send(ANNA, to, message.as_bytes()).await
}

/// Nothing left, and nothing waits.
fn nothing_of(house: &House) {
    assert_eq!((house.world.mails().len(), house.server.mails().len()), (0, 0));
    assert_eq!(house.gateway.spool().entries().len(), 0);
    assert!(!String::from_utf8_lossy(&house.world.octets()).contains("Canary"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_on_the_way_out_and_opened_and_marked_on_the_way_in() {
    for runtime in [Runtime::Tokio, Runtime::None] {
        let house = House::with_policy("[default]\nsign = \"require\"\nencrypt = \"require\"\n").await;
        house.user(ANNA);
        house.partner(BERT);
        let at = serve(service::service(&house.gateway, listener(), Driver).unwrap(), runtime, Way::Clear).await;
        // A line with a dot, and one that samotop gets in many pieces.
        let body = format!("{CANARY}\r\n.\r\n..\r\n{}", "a long mail\r\n".repeat(10_000));
        let said = send(at, &[BERT], &plain(ANNA, BERT, "plan", &body)).await;
        assert_eq!(said.code, 250, "{said:?}");
        let sent = house.world.wait(1).await.remove(0);
        assert_eq!((sent.from.as_str(), sent.to.as_slice()), (ANNA, [BERT.to_owned()].as_slice()));
        assert!(sent.text().contains("application/pkcs7-mime") && !sent.text().contains("Canary"), "{}", sent.text());
        assert!(sent.text().contains("Received: from client.example ([127.0.0.1])"), "{}", sent.text());
        assert!(sent.text().contains("with ESMTP id"), "{}", sent.text());

        // What the other side would send us: the same mail for one of ours.
        house.user("carl@ours.example");
        let carl = ["carl@ours.example"];
        assert_eq!(house.send_out(ANNA, &carl, &plain(ANNA, carl[0], "back", &body)).await.code, 250);
        let sealed = house.world.wait(2).await.remove(1);
        assert!(!sealed.text().contains("Canary"));
        assert_eq!(send(at, &carl, &sealed.text()).await.code, 250);
        let came = house.server.wait(1).await.remove(0).text();
        assert!(
            came.contains("smime=pass") && came.contains(&format!("{CANARY}\r\n.\r\n..\r\na long mail")),
            "{}",
            came.lines().take(60).collect::<String>()
        );
    }
}

/// The words are those of a listener, whatever refuses: policy at the final dot, trust and next hop at RCPT, limits at MAIL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_listener_refuses_is_refused_in_the_same_words_and_nothing_leaves_in_clear() {
    let top = "[limits]\nmessage_size = \"64 KiB\"\n";
    let house = House::build(&Plan { policy: REQUIRE, top, ..Plan::default() }).await;
    let at = samotop(&house).await;
    let text = plain(ANNA, BERT, "clear", CANARY);
    let said = send(at, &[BERT], &text).await;
    assert_eq!(said.code / 100, 5, "{said:?}");
    assert_eq!(said, house.send_out(ANNA, &[BERT], &text).await);

    house.partner(BERT);
    house.world.refuse(BERT, 450);
    let (mut ours, mut theirs) = (Client::connect(at).await, house.submit().await);
    for line in [
        "MAIL FROM:<> NONSENSE=1",
        "MAIL FROM:<> SIZE=70000",
        "MAIL FROM:<anna@ours.example>",
        "RCPT TO:<bert@partner.example>",
        "RCPT TO:<carl@partner.example>",
        "RCPT TO:<a..b@partner.example>",
    ] {
        let (ours, theirs) = (ours.say(line).await, theirs.say(line).await);
        assert_eq!(ours.code, theirs.code, "{line}: {ours:?} {theirs:?}");
        if theirs.code != 250 || line.starts_with("RCPT") {
            assert_eq!(ours, theirs, "{line}");
        }
    }
    drop((ours, theirs));

    let from: IpAddr = "127.0.0.2".parse().unwrap();
    let stage = Stage::new(&house.gateway, listener()).unwrap();
    let service = (Builder + Esmtp.with(SmtpParserPeg) + stage).build_with_driver(Driver);
    let strict = serve(service, Runtime::Tokio, Way::Clear).await;
    let mut client = Client::connect_from(from, strict).await;
    assert_eq!(client.say(&format!("MAIL FROM:<{ANNA}>")).await.code, 250);
    let said = client.say(&format!("RCPT TO:<{BERT}>")).await;
    assert!(said.octets.starts_with("550 5.7.1"), "{said:?}");
    assert_eq!(client.say(&format!("RCPT TO:<{ANNA}>")).await.code, 250, "ours is for everybody");
    nothing_of(&house);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a21_a_client_without_an_address_is_not_trusted() {
    let house = House::with_policy(PASS).await;
    let trusting = Listener { trusted_networks: vec!["0.0.0.0/0".parse().unwrap()], ..listener() };
    let stage = Stage::new(&house.gateway, trusting).unwrap();
    let service = (Builder + Esmtp.with(SmtpParserPeg) + stage).build_with_driver(Driver);
    let at = serve(service, Runtime::Tokio, Way::Nameless).await;
    assert_eq!(send(at, &[BERT], &plain(ANNA, BERT, "x", CANARY)).await.code, 550);
    nothing_of(&house);
    assert_eq!(send(at, &[ANNA], &plain(BERT, ANNA, "x", "y")).await.code, 250);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_samotop_knows_of_the_connection_is_in_received() {
    let house = House::with_policy(PASS).await;
    let over = serve(service::service(&house.gateway, listener(), Driver).unwrap(), Runtime::Tokio, Way::Tls).await;
    assert_eq!(send(over, &[BERT], &plain(ANNA, BERT, "tls", "y")).await.code, 250);
    let starttls = EsmtpStartTls.with(SmtpParserPeg, Pretended);
    let service = Builder + Esmtp.with(SmtpParserPeg) + starttls + stage(&house);
    let at = serve(service.build_with_driver(Driver), Runtime::Tokio, Way::Clear).await;
    let mut client = Client::connect(at).await;
    assert_eq!(client.say("HELO old.example").await.code, 250);
    assert_eq!(client.send(ANNA, &[BERT], plain(ANNA, BERT, "helo", "y").as_bytes()).await.code, 250);
    assert_eq!(client.say("STARTTLS").await.code, 220);
    assert_eq!(client.say("EHLO new.example").await.code, 250);
    assert_eq!(client.send(ANNA, &[BERT], plain(ANNA, BERT, "starttls", "y").as_bytes()).await.code, 250);
    let mails = house.world.wait(3).await;
    for (mail, name, with) in [(0, "client", "ESMTPS"), (1, "old", "SMTP"), (2, "new", "ESMTPS")] {
        let text = mails[mail].text();
        let received = format!("Received: from {name}.example ([127.0.0.1])");
        assert!(text.contains(&received) && text.contains(&format!(" with {with} id ")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_a_refused_mail_over_lmtp_is_refused_for_each_recipient() {
    let house = House::with_policy(REQUIRE).await;
    house.partner(BERT);
    let service = (Builder + Lmtp.with(SmtpParserPeg) + stage(&house)).build_with_driver(Driver);
    let at = serve(service, Runtime::Tokio, Way::Clear).await;
    let mut client = Client::connect_lmtp(at).await;
    let both = [BERT, "carl@partner.example"];
    let said = client.send(ANNA, &both, plain(ANNA, BERT, "x", CANARY).as_bytes()).await;
    assert_eq!((said.code / 100, said == client.hear().await), (5, true), "{said:?}");
    nothing_of(&house);
    assert_eq!(client.send(ANNA, &[BERT, ANNA], plain(ANNA, BERT, "x", CANARY).as_bytes()).await.code, 250);
    assert_eq!(client.hear().await.code, 250);
    assert_eq!(client.say("NOOP").await.code, 250, "and no reply more");
    assert_eq!(house.world.wait(1).await[0].to, [BERT]);
    assert_eq!(house.server.wait(1).await[0].to, [ANNA]);
}

/// An error of the sink in the middle of a mail would have samotop carry out the rest of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a20_too_much_is_refused_at_the_end_and_its_rest_is_no_command() {
    let top = "[limits]\nmessage_size = \"64 KiB\"\n";
    let house = House::build(&Plan { policy: PASS, top, ..Plan::default() }).await;
    let at = samotop(&house).await;
    let smuggled = format!("MAIL FROM:<{ANNA}>\r\nRCPT TO:<{BERT}>\r\nDATA\r\nSubject: {CANARY}\r\n\r\nx\r\n..\r\n");
    let line = format!("{}\r\n", "x".repeat(900));
    let text = plain(ANNA, BERT, "big", &format!("{}{}{smuggled}", line.repeat(200), smuggled.repeat(3)));
    let mut client = Client::connect(at).await;
    let said = client.send(ANNA, &[BERT], text.as_bytes()).await;
    assert!(said.octets.starts_with("552 5.3.4"), "{said:?}");
    assert_eq!(client.say("NOOP").await.code, 250, "the session is where it was");
    nothing_of(&house);
    assert_eq!(client.send(ANNA, &[BERT], plain(ANNA, BERT, "small", "y").as_bytes()).await.code, 250);
    let mut client = Client::connect(at).await;
    assert!(client.say("EHLO client.example").await.octets.contains("SIZE 65536\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_bare_line_ends_are_refused_and_what_was_not_ended_is_not_taken() {
    let house = House::with_policy(PASS).await;
    let at = samotop(&house).await;
    let text = plain(ANNA, BERT, "bare", "a\nb");
    assert_eq!(send(at, &[BERT], &text).await, house.send_out(ANNA, &[BERT], &text).await);
    let mut client = Client::connect(at).await;
    for line in [format!("MAIL FROM:<{ANNA}>"), format!("RCPT TO:<{BERT}>")] {
        assert_eq!(client.say(&line).await.code, 250);
    }
    assert_eq!(client.say("RSET").await.code, 250);
    assert_eq!(client.say("DATA").await.code, 503);
    for line in [format!("MAIL FROM:<{ANNA}>"), format!("RCPT TO:<{BERT}>")] {
        assert_eq!(client.say(&line).await.code, 250);
    }
    assert_eq!(client.say("DATA").await.code, 354);
    client.write(format!("Subject: {CANARY}\r\n\r\nhalf a mail\r\n").as_bytes()).await.unwrap();
    drop(client);
    // A mail after it goes; the half one never does.
    assert_eq!(send(at, &[BERT], &plain(ANNA, BERT, "whole", "y")).await.code, 250);
    assert_eq!(house.world.wait(1).await.len(), 1);
    assert!(house.gateway.spool().entries().is_empty());
    assert!(house.world.mails()[0].text().contains("Subject: whole"));
}

/// R1: what is answered 250 is durable or handed over, and what cannot be either is answered 4xx.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_taken_means_durable_or_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let top = format!("spool = {{ folder = \"{}/spool\", entries = 1 }}\n", folder.path().display());
    let house = House::build(&Plan { policy: PASS, top: &top, ..Plan::default() }).await;
    let at = samotop(&house).await;
    house.world.fault(Fault::Refuse);
    assert_eq!(send(at, &[BERT], &plain(ANNA, BERT, "first", "y")).await.code, 250);
    assert_eq!(house.gateway.spool().entries().len(), 1, "250 was said when it was there");
    let said = send(at, &[BERT], &plain(ANNA, BERT, "second", "y")).await;
    assert!(said.octets.starts_with("452 4.3.1"), "{said:?}");
    let mut client = Client::connect(at).await;
    assert_eq!(client.say("NOOP").await.code, 250);
    house.gateway.shut_down(std::time::Duration::from_secs(30)).await;
    assert!(client.say(&format!("MAIL FROM:<{ANNA}>")).await.octets.starts_with("451 4.3.0"), "without its gateway");
}

/// Put before the parts that read commands, or as a dispatch alone, it hears of the envelope at DATA: later and in fewer words, nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_dispatch_alone_it_takes_and_refuses_the_same() {
    let house = House::with_policy(REQUIRE).await;
    let first = (Builder + stage(&house) + Esmtp.with(SmtpParserPeg)).build_with_driver(Driver);
    let alone = (Builder + Esmtp.with(SmtpParserPeg) + Alone(stage(&house))).build_with_driver(Driver);
    for service in [first, alone] {
        let at = serve(service, Runtime::Tokio, Way::Clear).await;
        let said = send(at, &[BERT], &plain(ANNA, BERT, "clear", CANARY)).await;
        assert_eq!(said.code, 450, "samotop has no word for never at the final dot: {said:?}");
        let mut client = Client::connect_from("127.0.0.2".parse().unwrap(), at).await;
        for line in [format!("MAIL FROM:<{ANNA}>"), format!("RCPT TO:<{ANNA}>"), format!("RCPT TO:<{BERT}>")] {
            assert_eq!(client.say(&line).await.code, 250);
        }
        assert_eq!(client.say("DATA").await.code, 550);
        nothing_of(&house);
    }
    house.partner(BERT);
    let alone = (Builder + Esmtp.with(SmtpParserPeg) + Alone(stage(&house))).build_with_driver(Driver);
    let at = serve(alone, Runtime::Tokio, Way::Clear).await;
    assert_eq!(send(at, &[BERT], &plain(ANNA, BERT, "sealed", CANARY)).await.code, 250);
    assert!(!house.world.wait(1).await[0].text().contains("Canary"));
}

/// A guard after ours takes a recipient out: what samotop has at DATA is what is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recipients_are_those_that_samotop_has() {
    let house = House::with_policy(PASS).await;
    let mut built = Builder + Esmtp.with(SmtpParserPeg) + stage(&house);
    built += Guarded;
    let at = serve(built.build_with_driver(Driver), Runtime::Tokio, Way::Clear).await;
    let mut client = Client::connect(at).await;
    assert_eq!(client.say(&format!("MAIL FROM:<{ANNA}>")).await.code, 250);
    assert_eq!(client.say(&format!("RCPT TO:<{BERT}>")).await.code, 250);
    assert_eq!(client.say("RCPT TO:<secret@partner.example>").await.code, 550);
    assert_eq!(client.data(plain(ANNA, BERT, "x", "y").as_bytes()).await.code, 250);
    let mail = house.world.wait(1).await.remove(0);
    assert_eq!(mail.to, [BERT]);
    assert!(mail.text().contains("X-Guard: seen\r\n"), "{}", mail.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_another_dispatch_mail_is_refused() {
    let house = House::with_policy(REQUIRE).await;
    house.partner(BERT);
    let service: Service =
        (Builder + Esmtp.with(SmtpParserPeg) + NullDispatch + stage(&house)).build_with_driver(Driver);
    let at = serve(service, Runtime::Tokio, Way::Clear).await;
    let said = send(at, &[BERT], &plain(ANNA, BERT, "x", CANARY)).await;
    assert!(said.octets.starts_with("451 4.3.5"), "{said:?}");
    nothing_of(&house);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_hold_behind_samotop_is_refused_at_start() {
    let house = House::new().await;
    let tls = ListenTls::StartTls { certificate: "c".into(), key: "k".into(), required: true };
    for (listener, key) in [
        (Listener { tls, ..listener() }, "tls"),
        (Listener { lmtp: true, ..listener() }, "lmtp"),
        (Listener { users: Some(Default::default()), ..listener() }, "users"),
        (Listener { xclient: vec!["127.0.0.1/32".parse().unwrap()], ..listener() }, "xclient"),
        (Listener { repair_line_ends: true, ..listener() }, "repair_line_ends"),
    ] {
        let error = Stage::new(&house.gateway, listener).unwrap_err();
        assert_eq!(error, StageError::Unfit { listener: "samotop".into(), key });
    }
}

/// A gateway from its file, with the listener that nobody listens at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_from_its_file_has_the_stage_in_the_place_of_a_listener() {
    let top = "[[listener]]\nname = \"samotop\"\naddress = \"127.0.0.1:0\"\ndirection = \"by-recipient\"\n\
               trusted_networks = [\"127.0.0.0/8\"]\n";
    let House { folder, store, world, gateway, .. } =
        House::build(&Plan { policy: PASS, top, ..Plan::default() }).await;
    assert!(gateway.shut_down(std::time::Duration::from_secs(30)).await);
    drop(store);
    let (gateway, listener) = service::gateway(&folder.path().join("waxwing.toml")).await.unwrap();
    assert_eq!((gateway.address("samotop"), gateway.address("in").is_some()), (None, true));
    let at = serve(service::service(&gateway, listener, Driver).unwrap(), Runtime::Tokio, Way::Clear).await;
    assert_eq!(send(at, &[BERT], &plain(ANNA, BERT, "x", "y")).await.code, 250);
    assert_eq!(world.wait(1).await[0].to, [BERT]);
}

#[test]
fn the_page_has_the_lines_that_are_tested() {
    assert!(include_str!("../docs/samotop.md").contains(include_str!("samotop/service.rs")));
}

/// A stage as a dispatch and nothing else.
#[derive(Debug)]
struct Alone(Stage);

impl<T: samotop_core::mail::AcceptsDispatch> MailSetup<T> for Alone {
    fn setup(self, config: &mut T) {
        config.add_last_dispatch(self);
    }
}

impl MailDispatch for Alone {
    fn open_mail_body<'a, 's, 'f>(&'a self, session: &'s mut SmtpSession) -> S1Fut<'f, DispatchResult>
    where
        'a: 'f,
        's: 'f,
    {
        self.0.open_mail_body(session)
    }
}

/// Refuses one recipient, and puts a field on.
#[derive(Debug)]
struct Guarded;

impl<T: samotop_core::mail::AcceptsGuard> MailSetup<T> for Guarded {
    fn setup(self, config: &mut T) {
        config.add_last_guard(self);
    }
}

impl MailGuard for Guarded {
    fn start_mail<'a, 's, 'f>(&'a self, session: &'s mut SmtpSession) -> S2Fut<'f, StartMailResult>
    where
        'a: 'f,
        's: 'f,
    {
        session.transaction.extra_headers.push_str("X-Guard: seen\r\n");
        Box::pin(std::future::ready(StartMailResult::Accepted))
    }

    fn add_recipient<'a, 's, 'f>(&'a self, _: &'s mut SmtpSession, one: Recipient) -> S2Fut<'f, AddRecipientResult>
    where
        'a: 'f,
        's: 'f,
    {
        use samotop_core::mail::AddRecipientFailure::RejectedPermanently;
        let answer = match one.address.address().starts_with("secret") {
            true => AddRecipientResult::Failed(RejectedPermanently, "no".into()),
            false => AddRecipientResult::Inconclusive(one),
        };
        Box::pin(std::future::ready(answer))
    }
}

//! End to end on loopback: client, gateway, next hop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/outside.rs"]
mod outside;
mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use support::house::{House, Plan, plain};
use support::{Client, Fault, Sink};
use waxwing::cms::signed::CertificateId;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::certificate::Certificate;
use waxwing::smime::open::{envelope, recipient_ids};

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@partner.example";
const CARL: &str = "carl@partner.example";

fn entity(message: &[u8]) -> Entity {
    Entity::parse(Bytes::copy_from_slice(message), &MimeLimits::default()).unwrap()
}

fn ids(message: &[u8]) -> Vec<CertificateId> {
    recipient_ids(&entity(message), &MimeLimits::default()).unwrap_or_default()
}

fn is_for(message: &[u8], certificate: &Certificate) -> bool {
    ids(message).iter().any(|id| id.names(certificate))
}

fn essence(message: &[u8]) -> String {
    entity(message).content_type().unwrap().essence
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_goes_out_signed_and_encrypted_and_comes_in_opened_and_judged() {
    let ours = House::with_policy("[default]\nsign = \"require\"\nencrypt = \"require\"\n").await;
    ours.user(ANNA);
    // The other side is in the same store: one installation serves both ends of this test.
    let bert = ours.user("bert@ours.example");
    let text = plain(ANNA, "bert@ours.example", "plan", "the eagle has landed");
    let said = ours.send_out(ANNA, &["bert@ours.example"], &text).await;
    assert_eq!(said.code, 250, "{}", said.octets);
    let sent = ours.world.wait(1).await.remove(0);
    assert!(is_for(&sent.message, &bert) && !sent.text().contains("eagle"), "{}", sent.text());
    assert!(
        sent.text().contains("Received: from client.example ([127.0.0.1])") && sent.text().contains("with ESMTP id")
    );
    assert_eq!(ours.send_in(ANNA, &["bert@ours.example"], &sent.message).await.code, 250);
    let came = ours.server.wait(1).await.remove(0);
    let text = came.text();
    assert!(text.contains("the eagle has landed"), "{text}");
    assert!(text.contains("smime=pass"), "{text}");
    assert_eq!(came.to, ["bert@ours.example"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subject_tags_are_written_where_they_are_on_and_forged_ones_go() {
    let policy = "[default]\nsign = \"require\"\nencrypt = \"require\"\n[marks]\nsubject_tags = true\n";
    let ours = House::with_policy(policy).await;
    ours.user(ANNA);
    ours.user("bert@ours.example");
    let text = plain(ANNA, "bert@ours.example", "[signed] plan", "the eagle has landed");
    assert_eq!(ours.send_out(ANNA, &["bert@ours.example"], &text).await.code, 250);
    let sent = ours.world.wait(1).await.remove(0);
    assert_eq!(ours.send_in(ANNA, &["bert@ours.example"], &sent.message).await.code, 250);
    let forged = plain("x@else.example", ANNA, "[signed] other", "y");
    assert_eq!(ours.send_in("x@else.example", &[ANNA], forged.as_bytes()).await.code, 250);
    let came: Vec<String> = ours.server.wait(2).await.iter().map(|mail| mail.text()).collect();
    assert!(came.iter().any(|mail| mail.contains("\r\nSubject: [signed, encrypted] plan\r\n")), "{came:#?}");
    assert!(came.iter().any(|mail| mail.contains("\r\nSubject: other\r\n")), "{came:#?}");
}

/// What one profile excludes (here RSA PKCS#1 v1.5) stands in no envelope that its recipients get.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipients_of_different_profiles_share_no_envelope() {
    let policy = format!(
        "[[rule]]\nmatch = {{ recipient = [\"{BERT}\", \"dora@partner.example\"] }}\nsign = \"never\"\nencrypt = \"require\"\nprofile = \"old\"\n\
         [default]\nsign = \"never\"\nencrypt = \"require\"\nprofile = \"new\"\n\
         [profile.old]\ncontent = [\"AES-256-CBC\"]\ntransport = \"pkcs1\"\n\
         [profile.new]\ncontent = [\"AES-256-CBC\"]\ntransport = \"oaep-sha256\"\n"
    );
    let house = House::with_policy(&policy).await;
    let people = [BERT, CARL, "dora@partner.example"];
    let certificates = people.map(|one| house.partner(one));
    assert_eq!(house.send_out(ANNA, &people, &plain(ANNA, &people.join(", "), "x", "y")).await.code, 250);
    let mut sent = house.world.wait(2).await;
    sent.sort_by_key(|mail| mail.to.len());
    let envelopes: Vec<_> = sent
        .iter()
        .map(|mail| envelope(&entity(&mail.message), &MimeLimits::default(), Default::default()).unwrap())
        .collect();
    let named = |at: usize| -> Vec<usize> {
        let ids = envelopes[at].recipients.iter().filter_map(|info| info.id.as_ref());
        let mut named: Vec<usize> = ids.map(|id| certificates.iter().position(|one| id.names(one)).unwrap()).collect();
        // DER sorts a SET OF by its octets, serial numbers among them.
        named.sort_unstable();
        named
    };
    assert_eq!((sent[0].to.as_slice(), named(0)), (&[CARL.to_owned()][..], vec![1]));
    assert_eq!((sent[1].to.len(), named(1)), (2, vec![0, 2]), "of one profile, they do");
}

/// The rule that mail met when it came holds when it is opened, for what only a switch lets be read too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_for_encrypted_mail_holds_when_a_weak_cipher_is_opened_by_switch() {
    if !outside::peers(&["openssl"]) {
        return;
    }
    let policy = "[[rule]]\nmatch = { direction = \"inbound\", encrypted = true }\nquarantine = [\"unauthenticated\"]\n\
        [default]\nencrypt = \"require\"\n[legacy]\nweak_ciphers = true\n";
    let house = House::with_policy(policy).await;
    let anna = house.user(ANNA);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("content"), "Content-Type: text/plain\r\n\r\nthe eagle has landed\r\n").unwrap();
    std::fs::write(folder.path().join("anna.der"), anna.der()).unwrap();
    let mut command = std::process::Command::new("openssl");
    command.args(["cms", "-encrypt", "-binary", "-in", "content", "-out", "sealed", "-des3", "-recip", "anna.der"]);
    assert!(command.args(["-keyform", "DER"]).current_dir(folder.path()).status().unwrap().success());
    let sealed = std::fs::read_to_string(folder.path().join("sealed")).unwrap().replace('\n', "\r\n");
    let message = format!("From: {BERT}\r\nTo: {ANNA}\r\nSubject: x\r\n{sealed}");
    assert_eq!(house.send_in(BERT, &[ANNA], message.as_bytes()).await.code, 250);
    house.settled().await;
    let entries = house.gateway.spool().entries();
    let held: Vec<_> = entries.iter().filter_map(|one| one.held.clone()).collect();
    assert!(held.len() == 1 && held[0].starts_with("quarantine"), "{held:?}");
    assert!(house.server.mails().is_empty(), "it was delivered by another rule than the one it met");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a09_a_signed_mail_sent_on_to_somebody_else_says_so_to_him_alone() {
    let house = House::with_policy("[default]\nsign = \"require\"\nencrypt = \"never\"\n").await;
    house.user(ANNA);
    let (bert, dora) = ("bert@ours.example", "dora@ours.example");
    let text = format!(
        "From: {ANNA}\r\nTo: {bert}\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n\
         From: {ANNA}\r\nTo: {bert}\r\nSubject: x\r\n\r\nyou are fired\r\n"
    );
    assert_eq!(house.send_out(ANNA, &[bert], &text).await.code, 250);
    let sent = house.world.wait(1).await.remove(0);
    assert_eq!(house.send_in(ANNA, &[bert, dora], &sent.message).await.code, 250);
    let came = house.server.wait(2).await;
    for mail in came {
        let text = mail.text();
        assert!(text.contains("smime=pass"), "{text}");
        assert_eq!(text.replace("\r\n", "").contains("written to others"), mail.to == [dora], "{:?}: {text}", mail.to);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r02_rcpt_is_answered_with_the_next_hops_answer() {
    let house = House::with_policy("[default]\nencrypt = \"never\"\n").await;
    house.world.refuse(CARL, 550);
    let mut client = house.submit().await;
    assert_eq!(client.say(&format!("MAIL FROM:<{ANNA}>")).await.code, 250);
    assert_eq!(client.say(&format!("RCPT TO:<{CARL}>")).await.code, 550);
    assert_eq!(client.say(&format!("RCPT TO:<{BERT}>")).await.code, 250);
    let said = client.data(plain(ANNA, BERT, "x", "y").as_bytes()).await;
    assert!(said.octets.contains("sink says"), "the next hop's own words: {}", said.octets);
    assert_eq!(house.world.mails()[0].to, [BERT]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r02_pipelined_rcpts_get_each_his_own_answer_in_their_order() {
    let house = House::with_policy("[default]\nencrypt = \"never\"\n").await;
    house.world.refuse(CARL, 550);
    let many: Vec<String> = (0..150).map(|number| format!("r{number}@partner.example")).collect();
    let mut asked: Vec<(&str, u16)> = many.iter().map(|one| (one.as_str(), 250)).collect();
    asked.insert(0, (CARL, 550));
    asked.insert(120, (CARL, 550));
    asked.insert(130, ("no address", 553));
    let mut client = house.submit().await;
    let rcpts: String = asked.iter().map(|(recipient, _)| format!("RCPT TO:<{recipient}>\r\n")).collect();
    client.write(format!("MAIL FROM:<{ANNA}>\r\n{rcpts}").as_bytes()).await.unwrap();
    assert_eq!(client.hear().await.code, 250);
    for (recipient, code) in &asked {
        assert_eq!(client.hear().await.code, *code, "{recipient}");
    }
    assert_eq!(client.data(plain(ANNA, BERT, "x", "y").as_bytes()).await.code, 250);
    assert_eq!(house.world.wait(1).await[0].to, many);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blind_copy_is_encrypted_to_him_alone() {
    let house = House::new().await;
    let (bert, carl, dora) = (house.partner(BERT), house.partner(CARL), house.partner("dora@partner.example"));
    let message = plain(ANNA, &format!("{BERT}, dora@partner.example"), "x", "y")
        .replace("Subject:", &format!("Bcc: {CARL}\r\nSubject:"));
    assert_eq!(house.send_out(ANNA, &[BERT, "dora@partner.example", CARL], &message).await.code, 250);
    for mail in house.world.wait(2).await {
        let blind = mail.to == [CARL];
        assert_eq!(is_for(&mail.message, &carl), blind);
        assert_eq!(is_for(&mail.message, &bert), !blind);
        assert_eq!(is_for(&mail.message, &dora), !blind);
        assert!(!mail.text().contains("Bcc:"));
        assert!(blind || !mail.text().contains(CARL), "the others hear nothing of him: {}", mail.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_cannot_be_served_refuses_the_message_for_all() {
    let house = House::new().await;
    house.partner(BERT);
    let said = house.send_out(ANNA, &[BERT, CARL], &plain(ANNA, BERT, "x", "y")).await;
    assert_eq!(said.code, 550, "{}", said.octets);
    assert!(
        said.octets.contains(CARL) && !said.octets.contains(BERT) && said.octets.contains("waxwing cert import"),
        "{}",
        said.octets
    );
    assert!(house.world.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r04_lmtp_upstream_gets_a_reply_per_recipient() {
    let house = House::new().await;
    house.partner(BERT);
    let mut client = Client::connect_lmtp(house.gateway.address("lmtp").unwrap()).await;
    client.say(&format!("MAIL FROM:<{ANNA}>")).await;
    for recipient in [CARL, BERT] {
        assert_eq!(client.say(&format!("RCPT TO:<{recipient}>")).await.code, 250);
    }
    assert_eq!(client.data(plain(ANNA, BERT, "x", "y").as_bytes()).await.code, 550);
    assert_eq!(client.hear().await.code, 250);
    assert_eq!(house.world.wait(1).await[0].to, [BERT]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r05_a_next_hop_that_defers_or_is_lost_leaves_the_mail_in_the_spool() {
    for fault in
        [Fault::Refuse, Fault::Mail(421), Fault::Data(451), Fault::Dot(451), Fault::DropInData, Fault::DropAfterDot]
    {
        let house = House::new().await;
        house.partner(BERT);
        house.world.fault(fault);
        let said = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await;
        if said.code == 250 {
            house.world.clear();
            house.world.fault(Fault::None);
            assert_eq!(house.world.wait(1).await[0].to, [BERT], "{fault:?}");
        } else {
            // A refusal at RCPT costs nothing: the client keeps its mail.
            assert!(matches!(fault, Fault::Mail(_)) && said.code / 100 == 4, "{fault:?}: {}", said.octets);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r05_a_refusal_for_good_is_passed_on() {
    let house = House::new().await;
    house.partner(BERT);
    house.world.fault(Fault::Dot(554));
    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await.code, 554);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t05_a_next_hop_silent_after_the_final_dot_is_451_by_the_deadline() {
    let plan = Plan { policy: "[limits]\nhop_timeout = \"1 s\"\n[default]\nencrypt = \"never\"\n", ..Plan::default() };
    let house = House::build(&plan).await;
    house.world.fault(Fault::Silent);
    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await.code, 451);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a21_no_relay_address_form_is_relayed() {
    let house = House::new().await;
    let forms = [
        "<victim@victim.example>",
        "<victim%victim.example@ours.example>",
        "<victim%victim.example@gw.ours.example>",
        "<victim%victim.example@[127.0.0.1]>",
        "<victim%victim.example>",
        "<victim.example!victim>",
        "<victim.example!victim@ours.example>",
        "<ours.example!victim@victim.example>",
        "<@ours.example:victim@victim.example>",
        "<@ours.example,@gw.ours.example:victim@victim.example>",
        "<\"victim@victim.example\"@ours.example>",
        "<\"victim%victim.example\"@ours.example>",
        "<\"victim@victim.example\">",
        "<victim@victim.example@ours.example>",
        "<victim@[127.0.0.1]>",
        "<victim@[192.0.2.1]>",
        "<victim@[IPv6:::1]>",
        "<victim@localhost>",
        "<victim@ours.example.victim.example>",
        "<victim@sub.ours.example>",
        "<victim@127.0.0.1>",
        "<victim>",
        "victim@victim.example",
        "<\"victim.example!victim\"@ours.example>",
    ];
    assert_eq!(forms.len(), 24);
    for listener in ["in", "both"] {
        // "both" trusts nobody here; "in" would not relay for trusted peers either.
        let mut client = Client::connect(house.gateway.address(listener).unwrap()).await;
        for form in forms {
            assert_eq!(client.say("MAIL FROM:<anna@ours.example>").await.code, 250);
            let said = client.say(&format!("RCPT TO:{form}")).await;
            assert_eq!(said.code / 100, 5, "{listener} {form}: {}", said.octets);
            client.say("RSET").await;
        }
    }
    assert!(house.world.octets().is_empty(), "the next hop was not even asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a23_more_than_100_received_fields_are_a_loop() {
    let house = House::with_policy("[default]\nencrypt = \"never\"\n").await;
    let message = |count: usize| format!("{}{}", "Received: by x\r\n".repeat(count), plain(ANNA, BERT, "x", "y"));
    assert_eq!(house.send_out(ANNA, &[BERT], &message(100)).await.code, 250);
    assert_eq!(house.send_out(ANNA, &[BERT], &message(101)).await.code, 554);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a23_two_gateways_in_a_ring_stop() {
    // Each one's smarthost is the other: a plain forwarder in between breaks the knot of their ports.
    let plan = Plan { policy: "[default]\nencrypt = \"never\"\n", ..Plan::default() };
    let knot = Sink::start().await;
    let first = House::between(&plan, Sink::start().await, Sink::start().await, knot.address, knot.address).await;
    let second = House::between(&plan, Sink::start().await, Sink::start().await, knot.address, knot.address).await;
    let mut message = plain(ANNA, BERT, "x", "y").into_bytes();
    let mut passes = 0;
    'ring: loop {
        for house in [&first, &second] {
            let mut client = house.submit().await;
            let said = client.send(ANNA, &[BERT], &message).await;
            if said.code != 250 {
                assert_eq!(said.code, 554, "{}", said.octets);
                break 'ring;
            }
            passes += 1;
            message = knot.wait(passes).await.remove(passes - 1).message;
        }
    }
    assert!(passes <= 2, "{passes}");
    // The other way round it may rightly pass once.
    assert_eq!(first.send_in(ANNA, &["anna@ours.example"], &message).await.code, 250);
    let back = knot.wait(passes + 1).await.remove(passes).message;
    assert_eq!(first.send_in(ANNA, &["anna@ours.example"], &back).await.code, 554);
    // A field that somebody made up counts for nothing.
    let forged = format!("X-Waxwing-Loop: out; AAAAAAAAAAAAAAAAAAAAAA\r\n{}", plain(ANNA, BERT, "x", "y"));
    assert_eq!(first.send_out(ANNA, &[BERT], &forged).await.code, 250);
    assert!(!knot.wait(passes + 2).await[passes + 1].text().contains("AAAAAAAAAA"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a30_a_copy_is_opened_with_its_own_recipients_key_alone() {
    let people = ["r1@ours.example", "r2@ours.example", "r3@ours.example"];
    let house = House::with_policy("[default]\nencrypt = \"require\"\n").await;
    for address in people {
        house.user(address);
    }
    // RecipientInfos for 1, 2 or 3 of them; envelopes of one and of several: 4 x 3 combinations.
    let sets: [&[usize]; 4] = [&[0], &[1], &[0, 1], &[0, 1, 2]];
    let envelopes: [&[usize]; 3] = [&[0], &[2], &[0, 1, 2]];
    for infos in sets {
        let named: Vec<&str> = infos.iter().map(|at| people[*at]).collect();
        house.world.clear();
        let said = house.send_out(ANNA, &named, &plain(ANNA, &named.join(", "), "x", "for your eyes")).await;
        assert_eq!(said.code, 250, "{}", said.octets);
        let sealed = house.world.wait(1).await.remove(0).message;
        for envelope in envelopes {
            house.server.clear();
            let to: Vec<&str> = envelope.iter().map(|at| people[*at]).collect();
            assert_eq!(house.send_in("x@else.example", &to, &sealed).await.code, 250);
            let came = arrived(&house.server, to.len()).await;
            for (at, address) in envelope.iter().zip(&to) {
                let mail = came.iter().find(|mail| mail.to.iter().any(|to| to == address)).unwrap();
                assert_eq!(
                    mail.text().contains("for your eyes"),
                    infos.contains(at),
                    "infos {infos:?} envelope {envelope:?} {address}"
                );
            }
        }
    }
}

/// Waits until so many recipients have their mail.
async fn arrived(sink: &Sink, recipients: usize) -> Vec<support::sink::Mail> {
    let mut count = 1;
    loop {
        let mails = sink.wait(count).await;
        if mails.iter().map(|mail| mail.to.len()).sum::<usize>() >= recipients {
            return mails;
        }
        count = mails.len() + 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a31_nothing_is_signed_in_anothers_name() {
    let house = House::with_policy("[default]\nsign = \"if-key\"\n").await;
    house.user(ANNA);
    house.partner("bert@ours.example");
    let good = plain(ANNA, BERT, "x", "y");
    let forged = [
        good.replace(&format!("From: {ANNA}"), &format!("From: {ANNA}, mallory@ours.example")),
        good.replace("To:", &format!("From: {ANNA}\r\nTo:")),
        good.replace(&format!("From: {ANNA}"), "X-From: none"),
        good.replace(&format!("From: {ANNA}"), "From: mallory@ours.example\r\nSender: anna@ours.example"),
        good.replace(&format!("From: {ANNA}"), &format!("From: \"{ANNA}\" <mallory@ours.example>")),
        good.replace(&format!("From: {ANNA}"), "From: bert@ours.example"),
    ];
    for (at, message) in forged.iter().enumerate() {
        let said = house.send_out(ANNA, &[BERT], message).await;
        assert_eq!(said.code, 250, "{at}: {}", said.octets);
        let mail = house.world.wait(at + 1).await.remove(at);
        assert!(!mail.text().contains("pkcs7-signature"), "{at}: {}", mail.text());
    }
    // The same message without the forgery is signed; as a notification it is not.
    house.world.clear();
    house.send_out(ANNA, &[BERT], &good).await;
    house.send_out("", &[BERT], &good).await;
    let came = house.world.wait(2).await;
    assert_eq!(essence(&came[0].message), "multipart/signed");
    assert_eq!(essence(&came[1].message), "text/plain");
    // From outside, in his name: never signed, whatever the sender address says.
    assert_eq!(house.send_in(ANNA, &["bert@ours.example"], good.as_bytes()).await.code, 250);
    assert!(!house.server.wait(1).await[0].text().contains("pkcs7-signature"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a32_encrypted_in_name_only_does_not_leave() {
    let house = House::new().await;
    let (bert, _) = (house.partner(BERT), house.user(ANNA));
    house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await;
    let sealed = house.world.wait(1).await.remove(0).message;
    house.world.clear();
    // Really encrypted for him: passes, its octets kept.
    let text = String::from_utf8(sealed.clone()).unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
    let fresh = format!(
        "From: {ANNA}\r\nTo: {BERT}\r\nMIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    let good = format!("{fresh}{body}");
    assert_eq!(house.send_out(ANNA, &[BERT], &good).await.code, 250);
    let mail = house.world.wait(1).await.remove(0);
    assert!(mail.text().ends_with(&body) && is_for(&mail.message, &bert));
    // For somebody else, empty, or labelled only: policy applies as to clear mail.
    house.world.clear();
    for message in
        [good.clone(), fresh.clone(), format!("{fresh}c2VjcmV0IGNhbmFyeQ==\r\n"), format!("{fresh}secret canary\r\n")]
    {
        let said = house.send_out(ANNA, &[CARL], &message).await;
        assert_eq!(said.code, 550, "{}", said.octets);
    }
    assert!(house.world.mails().is_empty());
    // Labelled only, for one with a certificate: encrypted, or refused, never as it is.
    let said = house.send_out(ANNA, &[BERT], &format!("{fresh}c2VjcmV0IGNhbmFyeQ==\r\n")).await;
    if said.code == 250 {
        let mail = house.world.wait(1).await.remove(0);
        assert!(is_for(&mail.message, &bert) && !mail.text().contains("c2VjcmV0IGNhbmFyeQ"));
    }
}

/// A cloud that many share: mail without the tenant's secret is refused, the secret goes no further, and nothing is signed for other domains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a31_of_a_shared_cloud_only_the_tenants_mail_is_taken_and_signed_as_his() {
    const EVE: &str = "eve@other.example";
    let policy = "[default]\nsign = \"if-key\"\n[[listener]]\nname = \"cloud\"\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\n\
                  trusted_networks = [\"127.0.0.0/8\"]\ntenant_header = \"X-Tenant: correct-horse-battery\"\nsenders = [\"ours.example\"]\n";
    let house = House::with_policy(policy).await;
    house.user(ANNA);
    house.user(EVE);
    let mut client = Client::connect(house.gateway.address("cloud").unwrap()).await;
    let good = plain(ANNA, BERT, "x", "y");
    let right = "x-tenant: correct-horse-battery\r\n";
    let many = "X-Other: y\r\n".repeat(300);
    for refused in [
        good.clone(),
        format!("X-Tenant: correct-horse-batter\r\n{good}"),
        format!("X-Tenant:\r\n{good}"),
        format!("X-Tenants: correct-horse-battery\r\n{good}"),
        format!("{many}{right}{good}"),
        // In the body it is nobody's word.
        format!("{good}{right}"),
    ] {
        let said = client.send(ANNA, &[BERT], refused.as_bytes()).await;
        assert!(said.code == 550 && said.octets.contains("5.7.1"), "{}", said.octets);
    }
    assert!(house.world.mails().is_empty());
    let twice = format!("X-Tenant: guessed\r\n{right}{good}");
    for (at, message) in [format!("{right}{good}"), twice].iter().enumerate() {
        let said = client.send(ANNA, &[BERT], message.as_bytes()).await;
        assert_eq!(said.code, 250, "{}", said.octets);
        let mail = house.world.wait(at + 1).await.remove(at);
        assert_eq!(essence(&mail.message), "multipart/signed");
        assert!(!mail.text().to_ascii_lowercase().contains("x-tenant"), "{}", mail.text());
    }
    let others = format!("{right}{}", plain(EVE, BERT, "x", "y"));
    assert_eq!(client.send(EVE, &[BERT], others.as_bytes()).await.code, 250);
    assert_eq!(essence(&house.world.wait(3).await[2].message), "text/plain", "another domain's author: not signed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a04_the_answer_says_nothing_of_what_a_key_found() {
    let house = House::new().await;
    house.user("bert@ours.example");
    house.send_out(ANNA, &["bert@ours.example"], &plain(ANNA, "bert@ours.example", "x", "secret")).await;
    let sealed = String::from_utf8(house.world.wait(1).await.remove(0).message).unwrap();
    let (head, body) = sealed.split_once("\r\n\r\n").unwrap();
    let mut answers = std::collections::HashSet::new();
    let object = STANDARD.decode(body.lines().collect::<String>()).unwrap();
    // The 256 octets of the encrypted key, behind their OCTET STRING's head.
    let key = object.windows(4).position(|head| head == [0x04, 0x82, 0x01, 0x00]).unwrap() + 4;
    // The good one, and some with an octet changed: in the encrypted key, and in the last block of the content.
    for at in [None, Some(key + 100), Some(key + 255), Some(object.len() - 1)] {
        let mut changed = object.clone();
        if let Some(at) = at {
            changed[at] ^= 1;
        }
        let lines: Vec<String> = STANDARD
            .encode(changed)
            .as_bytes()
            .chunks(76)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        let probe = format!("{head}\r\n\r\n{}\r\n", lines.join("\r\n"));
        answers.insert(house.send_in("x@else.example", &["bert@ours.example"], probe.as_bytes()).await.octets);
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    // What could not be opened comes as it was, marked; the next hop's refusal later reaches nobody outside.
    let came = house.server.wait(4).await;
    assert_eq!(came.iter().filter(|mail| mail.text().contains("secret")).count(), 1);
    assert!(came.iter().all(|mail| mail.text().contains("Authentication-Results: gw.ours.example")));
    house.server.fault(Fault::Dot(554));
    assert_eq!(house.send_in("x@else.example", &["bert@ours.example"], sealed.as_bytes()).await.code, 250);
    assert!(house.world.mails().len() == 1, "no DSN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a08_forged_marks_do_not_pass_in_either_direction() {
    let house = House::with_policy("[default]\nencrypt = \"never\"\n").await;
    let forged = format!(
        "Authentication-Results: gw.ours.example; smime=pass\r\nX-Waxwing-Signature: good\r\n{}",
        plain("x@else.example", ANNA, "x", "y")
    );
    assert_eq!(house.send_in("x@else.example", &[ANNA], forged.as_bytes()).await.code, 250);
    assert_eq!(house.send_out(ANNA, &[BERT], &forged).await.code, 250);
    let (came, went) = (house.server.wait(1).await.remove(0), house.world.wait(1).await.remove(0));
    assert!(!came.text().contains("smime=pass") && came.text().contains("smime=none"), "{}", came.text());
    assert!(!went.text().contains("smime=pass") && !went.text().contains("X-Waxwing-Signature"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_subject_keyword_is_stripped_and_steers() {
    let policy = "[[rule]]\nname = \"keyword\"\nmatch = { subject_keyword = \"[encrypt]\" }\nencrypt = \"require\"\n[default]\nencrypt = \"never\"\n";
    let house = House::with_policy(policy).await;
    let bert = house.partner(BERT);
    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "Re: [Encrypt] plan", "y")).await.code, 250);
    let mail = house.world.wait(1).await.remove(0);
    assert!(is_for(&mail.message, &bert));
    assert!(mail.text().contains("Subject: Re: plan\r\n"), "{}", mail.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_hold_keeps_the_mail() {
    let house = House::with_policy("[default]\nencrypt = \"require\"\nmissing = \"hold\"\n").await;
    assert_eq!(house.send_out(ANNA, &[CARL], &plain(ANNA, CARL, "x", "y")).await.code, 250);
    assert!(house.world.mails().is_empty());
    let held = house.gateway.spool().entries();
    assert!(held.len() == 1 && held[0].held.is_some());
    let id = held[0].id;
    assert_eq!(house.gateway.spool().release(id).await, Err(waxwing::spool::SpoolError::Untreated(id)), "not as it is");
    let octets = String::from_utf8_lossy(&house.world.octets()).into_owned();
    assert!(!octets.contains("Subject:"), "{octets}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r03_several_outputs_are_in_the_spool_before_the_answer() {
    let house = House::new().await;
    let people = [BERT, CARL, "dora@partner.example"];
    for address in people {
        house.partner(address);
    }
    house.world.fault(Fault::Dot(451));
    // Two blind copies and one shown: three outputs.
    let said = house.send_out(ANNA, &people, &plain(ANNA, BERT, "x", "y")).await;
    assert_eq!(said.octets, "250 2.0.0 accepted\r\n");
    let mut spooled: Vec<String> =
        house.gateway.spool().entries().iter().map(|entry| entry.recipients[0].recipient.mailbox.to_string()).collect();
    spooled.sort();
    assert_eq!(spooled, people);
    house.world.fault(Fault::None);
    let came = arrived(&house.world, 3).await;
    house.settled().await;
    assert_eq!(came.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r08_a_failure_for_good_is_told_to_a_sender_of_ours_and_to_nobody_outside() {
    let house = House::with_policy("[default]\nencrypt = \"require\"\n").await;
    let people = [BERT, CARL];
    for address in people {
        house.partner(address);
    }
    house.world.fault(Fault::Dot(554));
    // Two outputs, answered 250; then both fail for good.
    assert_eq!(house.send_out(ANNA, &people, &plain(ANNA, BERT, "x", "secret body")).await.code, 250);
    let told = arrived(&house.server, 2).await;
    assert!(told.iter().all(|mail| mail.from.is_empty() && mail.to == [ANNA] && !mail.text().contains("secret body")));
    house.server.clear();
    assert_eq!(
        house.send_out("stranger@else.example", &people, &plain("stranger@else.example", BERT, "x", "y")).await.code,
        250
    );
    let held = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while house.gateway.spool().entries().iter().filter(|entry| entry.held.is_some()).count() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    held.await.expect("held, since nobody may be told");
    assert!(house.server.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r01_delivery_queue_spools_first() {
    let house = House::build(&Plan { top: "delivery = \"queue\"\n", ..Plan::default() }).await;
    house.partner(BERT);
    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await.octets, "250 2.0.0 accepted\r\n");
    assert_eq!(house.world.wait(1).await[0].to, [BERT]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_bytes_in_flight_than_the_budget_are_452_before_data() {
    let plan = Plan {
        policy: "[limits]\nbytes_in_flight = \"1 MiB\"\nmessage_size = \"340 KiB\"\n[default]\nencrypt = \"never\"\n",
        ..Plan::default()
    };
    let house = House::build(&plan).await;
    let (mut one, mut two) = (house.submit().await, house.submit().await);
    assert_eq!(one.say(&format!("MAIL FROM:<{ANNA}> SIZE=340000")).await.code, 250);
    assert_eq!(two.say(&format!("MAIL FROM:<{ANNA}> SIZE=340000")).await.code, 452);
    one.say("RSET").await;
    assert_eq!(two.say(&format!("MAIL FROM:<{ANNA}> SIZE=340000")).await.code, 250, "given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_signed_already_is_not_signed_again_and_is_encrypted_with_its_octets() {
    let house = House::with_policy("[[rule]]\nname = \"sign\"\nmatch = { recipient = [\"@clear.example\"] }\nsign = \"require\"\n[default]\nsign = \"require\"\nencrypt = \"require\"\n").await;
    house.user(ANNA);
    let bert = house.partner(BERT);
    assert_eq!(house.send_out(ANNA, &["x@clear.example"], &plain(ANNA, "x@clear.example", "x", "y")).await.code, 250);
    let signed = house.world.wait(1).await.remove(0).message;
    assert_eq!(essence(&signed), "multipart/signed");
    house.world.clear();
    // It came back from somewhere: our loop field off, as another gateway would have it.
    let text = String::from_utf8(signed).unwrap();
    let fresh = text.split_inclusive("\r\n").skip_while(|line| !line.starts_with("From:")).collect::<String>();
    let body = fresh.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(house.send_out(ANNA, &["x@clear.example"], &fresh).await.code, 250);
    assert!(house.world.wait(1).await[0].text().ends_with(body), "octet for octet");
    house.world.clear();
    assert_eq!(house.send_out(ANNA, &[BERT], &fresh).await.code, 250);
    assert!(is_for(&house.world.wait(1).await[0].message, &bert));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_signing_key_is_451_and_a_disabled_sender_is_not_signed_for() {
    let house = House::with_policy("[default]\nsign = \"require\"\n").await;
    let said = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await;
    assert_eq!(said.code, 451, "{}", said.octets);
    house.user(ANNA);
    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await.code, 250);
    house.disable(ANNA);
    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await.code, 550);
    assert_eq!(house.world.mails().len(), 1);
}

#[tokio::test]
async fn a_hidden_subject_comes_back_at_the_recipients_gateway() {
    let policy = "[default]\nsign = \"if-key\"\nencrypt = \"require\"\nprofile = \"quiet\"\n[profile.quiet]\nheader-protection = \"baseline\"\n";
    let house = House::with_policy(policy).await;
    house.user(ANNA);
    house.user("bert@ours.example");
    let bert = "bert@ours.example";
    let said = house.send_out(ANNA, &[bert], &plain(ANNA, bert, "the eagle", "has landed")).await;
    assert_eq!(said.code, 250, "{said:?}");
    let out = house.world.wait(1).await.remove(0);
    assert!(out.text().contains("Subject: [...]\r\n") && !out.text().contains("Subject: the"), "{}", out.text());
    let said = house.send_in(ANNA, &[bert], &out.message).await;
    assert_eq!(said.code, 250, "{said:?}");
    let came = house.server.wait(1).await.remove(0).text();
    assert!(came.contains("Subject: the eagle\r\n") && came.contains("smime=pass"), "{came}");
}

/// Over the rate it is 451 with the time to wait; trusted networks are not counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_brings_more_than_the_rate_is_told_when_to_come_back() {
    let policy = "[limits]\nmails_per_client = \"2/day\"\nrecipients_per_client = \"3/day\"\n[default]\npass = true\n";
    let house = House::with_policy(policy).await;
    let text = plain(BERT, ANNA, "rate", "x");
    assert_eq!(house.send_in(BERT, &[ANNA], text.as_bytes()).await.code, 250);
    let mut client = house.outside().await;
    assert_eq!(client.say(&format!("MAIL FROM:<{BERT}>")).await.code, 250);
    for code in [250, 250, 451] {
        let said = client.say(&format!("RCPT TO:<{ANNA}>")).await;
        assert_eq!(said.code, code, "{}", said.octets);
    }
    assert_eq!(client.data(text.as_bytes()).await.code, 250);
    let said = client.say(&format!("MAIL FROM:<{BERT}>")).await;
    assert!(
        said.code == 451 && said.octets.contains("4.7.1") && said.octets.contains("come back in "),
        "{}",
        said.octets
    );
    for _ in 0..5 {
        assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "free", "x")).await.code, 250);
    }
}

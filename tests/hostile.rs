//! Hostile mail end to end: what a sender with a certificate of his own, or a next hop, could try.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]

#[path = "support/outside.rs"]
mod outside;
#[path = "hostile/smtp.rs"]
mod smtp;
mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use support::house::{House, Plan, mailbox, plain};
use support::{Client, Fault, Sink};
use waxwing::cms::algorithm::{Digest, SignatureScheme};
use waxwing::cms::signed::{self, SignParameters};
use waxwing::keys::{KeyAnswer, KeyHolder, KeyOperation, Submission};
use waxwing::pki::authority::{NewKey, Recipe, issue};
use waxwing::policy::TrustState;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@partner.example";
const MALLORY: &str = "mallory@ours.example";

/// The base64 of a SignedData over any octets, made with a key of the house's store.
async fn signature(house: &House, signer: &str, content: &[u8], opaque: bool) -> String {
    let identity = house.store.identity(&mailbox(signer)).unwrap();
    let record = identity.certificates.first().unwrap();
    let scheme = SignatureScheme::RsaPkcs1(Digest::Sha256);
    let parameters = SignParameters {
        signer: &record.certificate,
        chain: &[],
        scheme,
        digest: Digest::Sha256,
        signing_time: Timestamp::now(),
        capabilities: &[],
        encryption_certificate: None,
    };
    let digest = signed::digest(Digest::Sha256, content);
    let econtent = opaque.then(|| Bytes::copy_from_slice(content));
    let prepared = signed::prepare(&parameters, &digest, econtent).unwrap();
    let operation = KeyOperation::Sign { key: record.key.unwrap(), scheme, message: prepared.to_sign() };
    let answer = match house.store.submit(operation) {
        Submission::Ready(answer) => answer,
        Submission::Later(answer) => answer.await,
    };
    let KeyAnswer::Signature(octets) = answer.unwrap() else { panic!("no signature") };
    let object = STANDARD.encode(prepared.finish(&octets).unwrap());
    let lines: Vec<&str> = object.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join("\r\n")
}

/// A mail whose signed part is exactly `content`.
async fn signed_mail(house: &House, signer: &str, content: &[u8], opaque: bool) -> String {
    let signature = signature(house, signer, content, opaque).await;
    let head = format!("From: {signer}\r\nTo: {ANNA}\r\nSubject: x\r\nMIME-Version: 1.0\r\n");
    if opaque {
        return format!(
            "{head}Content-Type: application/pkcs7-mime; smime-type=signed-data\r\nContent-Transfer-Encoding: base64\r\n\r\n{signature}\r\n"
        );
    }
    let content = std::str::from_utf8(content).unwrap();
    format!(
        "{head}Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256; boundary=\"sig\"\r\n\r\n\
         --sig\r\n{content}\r\n--sig\r\nContent-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\n{signature}\r\n--sig--\r\n"
    )
}

/// What the mail server gets of it.
async fn delivered(house: &House, from: &str, message: &str) -> String {
    house.server.clear();
    assert_eq!(house.send_in(from, &[ANNA], message.as_bytes()).await.code, 250);
    house.server.wait(1).await.remove(0).text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a08_fields_of_a_signed_part_do_not_become_the_mails_when_the_signature_is_taken_off() {
    let house = House::with_policy("[default]\nencrypt = \"never\"\nstrip-signature = true\n").await;
    house.user(MALLORY);
    let content = b"Reply-To: mallory@evil.example\r\nX-Waxwing-Signature: valid; signer=\"chief@ours.example\"\r\n\
        Authentication-Results: gw.ours.example; smime=pass body.smime-identifier=\"chief@ours.example\"\r\n\
        Content-Type: text/plain\r\n\r\nhello";
    for opaque in [false, true] {
        let text = delivered(&house, MALLORY, &signed_mail(&house, MALLORY, content, opaque).await).await;
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(header.contains("smime=pass") && header.contains(MALLORY), "{text}");
        assert!(!text.contains("chief@") && !text.contains("evil.example"), "{text}");
        assert_eq!(body, "hello\r\n");
        assert!(header.contains("Content-Type: text/plain") && !text.contains("pkcs7"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_what_comes_out_of_an_opaque_signature_obeys_the_line_rules() {
    let house = House::with_policy("[default]\nencrypt = \"never\"\nstrip-signature = true\n").await;
    house.user(MALLORY);
    let bodies: [&[u8]; 4] =
        [b"a\n.\nMAIL FROM:<x@y.example>\nb", b"a\r\n.\rMAIL FROM:<x@y.example>\rb", b"a\0b", &[b'x'; 2000]];
    for body in bodies {
        let content = [b"Content-Type: text/plain\r\n\r\n", body].concat();
        let message = signed_mail(&house, MALLORY, &content, true).await;
        delivered(&house, MALLORY, &message).await;
        let mail = house.server.wait(1).await.remove(0);
        for line in mail.message.split_inclusive(|octet| *octet == b'\n') {
            let text = line.strip_suffix(b"\r\n").expect("CRLF alone ends lines");
            assert!(text.len() <= 998 && !text.contains(&b'\r') && !text.contains(&0));
        }
        assert_eq!(house.server.mails().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a07_a_signed_part_that_names_another_author_is_not_valid() {
    let house = House::with_policy("[default]\nencrypt = \"never\"\n").await;
    house.user(MALLORY);
    let chief = "From: The Chief <chief@ours.example>\r\nSubject: pay\r\n";
    let hostile = [
        format!("{chief}Content-Type: text/plain; hp=\"clear\"\r\n\r\npay"),
        format!("{chief}Content-Type: text/plain; protected-headers=\"v1\"\r\n\r\npay"),
        format!("From: {MALLORY}\r\n{chief}Content-Type: text/plain\r\n\r\npay"),
        format!("From: {MALLORY}, chief@ours.example\r\nContent-Type: text/plain\r\n\r\npay"),
        format!("Content-Type: message/rfc822\r\n\r\n{chief}\r\npay"),
        format!("Content-Type: message/rfc822\r\n\r\nFrom: {MALLORY}\r\n{chief}\r\npay"),
        format!("Content-Type: message/global\r\n\r\n{chief}\r\npay"),
        format!("{chief}Content-Type: message/rfc822\r\n\r\nFrom: {MALLORY}\r\n\r\npay"),
    ];
    for content in hostile {
        for opaque in [false, true] {
            let message = signed_mail(&house, MALLORY, content.as_bytes(), opaque).await;
            let text = delivered(&house, MALLORY, &message).await;
            assert!(!text.contains("smime=pass") && !text.contains("Signature: valid"), "{content}\n{text}");
        }
    }
    let good = [
        format!("From: Mallory <{MALLORY}>\r\nSubject: pay\r\nContent-Type: text/plain; hp=\"clear\"\r\n\r\npay"),
        format!("Content-Type: message/rfc822\r\n\r\nFrom: {MALLORY}\r\nSubject: pay\r\n\r\npay"),
        format!("Content-Type: text/plain\r\n\r\n{chief}\r\nis what he wrote"),
        format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nsee below\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n{chief}\r\npay\r\n--b--"
        ),
    ];
    for content in good {
        let text = delivered(&house, MALLORY, &signed_mail(&house, MALLORY, content.as_bytes(), false).await).await;
        assert!(text.contains("smime=pass"), "{content}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a32_octets_behind_an_envelope_do_not_leave() {
    let house = House::new().await;
    house.partner(BERT);
    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await.code, 250);
    let sealed = house.world.wait(1).await.remove(0).text();
    house.world.clear();
    let mut object = STANDARD.decode(sealed.split_once("\r\n\r\n").unwrap().1.lines().collect::<String>()).unwrap();
    object.extend_from_slice(b"the eagle has landed");
    let head = format!(
        "From: {ANNA}\r\nTo: {BERT}\r\nMIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n"
    );
    let lines: Vec<String> =
        STANDARD.encode(&object).as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let body = lines.join("\r\n");
    let message = format!("{head}Content-Transfer-Encoding: base64\r\n\r\n{body}\r\n");
    let said = house.send_out(ANNA, &[BERT], &message).await;
    assert!(matches!(said.code, 250 | 550), "{}", said.octets);
    for mail in house.world.mails() {
        assert!(!mail.text().replace("\r\n", "").contains(&body.replace("\r\n", "")), "as it came: {}", mail.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resent_bcc_stays_here_as_bcc_does() {
    let house = House::with_policy("[default]\nencrypt = \"never\"\n").await;
    let message = plain(ANNA, BERT, "x", "y").replace(
        "Subject:",
        "Resent-From: anna@ours.example\r\nResent-Bcc: hidden@else.example,\r\n also@else.example\r\nSubject:",
    );
    assert_eq!(house.send_out(ANNA, &[BERT], &message).await.code, 250);
    let text = house.world.wait(1).await.remove(0).text();
    assert!(text.contains("Resent-From:") && !text.contains("else.example"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_a_disabled_domain_certificate_is_no_reason_for_clear_text() {
    let house = House::with_policy("[default]\nencrypt = \"prefer\"\ndomain-key = true\n").await;
    let domain = Owner::parse("@partner.example").unwrap();
    let recipe = Recipe::mailbox("domain-confidentiality-authority@partner.example", Timestamp::now(), NewKey::Rsa2048);
    let certificate = issue(&recipe, Some(&house.ca)).certificate;
    let provenance = Provenance { source: "import".into(), detail: "test".into(), at: Timestamp::now() };
    let new = NewCertificate { certificate, provenance, trust: TrustState::Trusted, key: None };
    house.store.add_certificates(&domain, vec![new]).unwrap();
    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "canary")).await.code, 250);
    house.store.set_disabled(&domain, true).unwrap();
    let said = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "x", "canary")).await;
    assert_eq!(said.code, 550, "{}", said.octets);
    assert!(house.world.mails().len() == 1 && !house.world.mails()[0].text().contains("canary"));
}

/// An answer to a mail that was decrypted here is held to what its rule says, by the References that every mail program copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a33_answers_to_decrypted_mail_can_be_held_to_require() {
    let rule = "[[rule]]\nname = \"answers\"\nmatch = { direction = \"outbound\", replies_to_decrypted = true }\nencrypt = \"require\"\n";
    let default = "[default]\nencrypt = \"prefer\"\n";
    for (policy, held) in [(format!("{rule}{default}"), true), (default.to_owned(), false)] {
        let house = House::with_policy(&policy).await;
        house.user(ANNA);
        let writer = House::with_policy("[default]\nencrypt = \"require\"\n").await;
        let own = house.store.identity(&support::house::mailbox(ANNA)).unwrap().certificates[0].certificate.clone();
        writer.store.add_trust(house.ca.certificate.clone(), Some(waxwing::pki::path::AnchorScope::Global)).unwrap();
        let provenance = Provenance { source: "import".into(), detail: "test".into(), at: Timestamp::now() };
        let new = NewCertificate { certificate: own, provenance, trust: TrustState::Trusted, key: None };
        writer.store.add_certificates(&Owner::parse(ANNA).unwrap(), vec![new]).unwrap();
        let from = "carl@ours.example";
        assert_eq!(writer.send_out(from, &[ANNA], &plain(from, ANNA, "secret", "canary")).await.code, 250);
        let sealed = writer.world.wait(1).await.remove(0).message;
        assert_eq!(house.send_in(BERT, &[ANNA], &sealed).await.code, 250);
        let delivered = house.server.wait(1).await.remove(0);
        assert!(delivered.text().contains("canary"), "{}", delivered.text());
        let header =
            waxwing::mime::entity::Entity::parse(delivered.message.into(), &Default::default()).unwrap().header;
        let references = header.all("References").next().map(|field| field.value()).unwrap_or_default();
        assert_eq!(!references.is_empty(), held);
        let answer = |references: &str| {
            plain(ANNA, BERT, "answer", "> canary")
                .replace("MIME-Version", &format!("References: {references} <secret@test.example>\r\nMIME-Version"))
        };
        assert_eq!(house.send_out(ANNA, &[BERT], &answer(&references)).await.code, if held { 550 } else { 250 });
        assert_eq!(house.send_out(ANNA, &[BERT], &answer("<other@test.example>")).await.code, 250);
        assert_eq!(house.world.mails().len(), if held { 1 } else { 2 });
    }
}

/// What the log writes, kept.
#[derive(Clone, Default)]
struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Kept {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A next hop whose every word is an attack on the log; says 250 to all but the command that begins with `refuses`.
async fn babbler(refuses: &'static str) -> std::net::SocketAddr {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                stream.get_mut().write_all(b"220 x\r\n").await.ok()?;
                let mut in_data = false;
                loop {
                    let mut line = Vec::new();
                    if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
                        return None::<()>;
                    }
                    if line.starts_with(b"EHLO") {
                        stream.get_mut().write_all(b"250-x\x1b[2J\r\n250 8BITMIME\r\n").await.ok()?;
                        continue;
                    }
                    let code: &[u8] = match &line[..] {
                        _ if in_data && line != b".\r\n" => continue,
                        line if line.starts_with(refuses.as_bytes()) => b"554",
                        line if line.starts_with(b"DATA") => b"354",
                        _ => b"250",
                    };
                    in_data = code == b"354";
                    let babble = b" \x1b]0;evil\x07\x1b[2J\x7f\xc2\x9b1m\xe2\x80\xae log\x0bin\x0cject\x08ion\r\n";
                    stream.get_mut().write_all(&[code, babble].concat()).await.ok()?;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a28_nothing_from_outside_gets_raw_into_the_log() {
    let kept = Kept::default();
    let writer = kept.clone();
    let builder =
        tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
    builder.with_writer(move || writer.clone()).try_init().unwrap();
    for refuses in ["MAIL", "RCPT", "DATA", ".\r\n"] {
        let hop = babbler(refuses).await;
        let plan = Plan { policy: "[default]\nencrypt = \"never\"\n", ..Plan::default() };
        let house = House::between(&plan, Sink::start().await, Sink::start().await, hop, hop).await;
        let message = plain(ANNA, BERT, "CanarySubject", "CanaryBody")
            .replace("Message-ID: <", "Message-ID: <\x1b[31m\u{9b}\u{202e}\x07")
            .replace("From: ", "From: \x1b[2J ");
        house.send_out(ANNA, &[BERT], &message).await;
        // Several outputs go through the spool.
        house.send_out(ANNA, &[BERT, "carl@partner.example"], &message).await;
        house.send_in("x@else.example", &[ANNA], message.as_bytes()).await;
        let mut client = house.outside().await;
        for odd in ["\x1b[2J evil", "EHLO \x1b[2J\x07", "MAIL FROM:<\x1b@x.example>", "RCPT TO:<a\x07@ours.example>"] {
            client.say(odd).await;
        }
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while house.gateway.spool().entries().iter().any(|entry| entry.attempts == 0 && entry.held.is_none()) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
    }
    let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    for line in log.lines() {
        assert!(line.starts_with("20"), "a line of its own: {line:?}");
        let odd = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}');
        assert!(!line.contains(odd), "{line:?}");
        assert!(!line.contains("CanarySubject\"") || line.contains("message_id"), "{line:?}");
        assert!(!line.contains("CanaryBody"), "{line:?}");
    }
    assert!(log.contains("waxwing::message") && log.contains("evil"), "the attack was made: {log}");
}

fn base64_lines(object: &[u8]) -> String {
    let object = STANDARD.encode(object);
    let lines: Vec<&str> = object.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join("\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a04_four_thousand_probes_are_answered_alike_and_nobody_is_told() {
    const CLIENTS: usize = 40;
    const EACH: usize = 100;
    let policy = "[[rule]]\nname = \"gcm\"\nmatch = { subject_keyword = \"[gcm]\" }\nencrypt = \"require\"\nprofile = \"modern\"\n\
        [default]\nencrypt = \"require\"\n";
    let house = House::with_policy(policy).await;
    house.user(ANNA);
    let mut sealed = Vec::new();
    for subject in ["cbc", "[gcm] x"] {
        house.world.clear();
        assert_eq!(house.send_out(BERT, &[ANNA], &plain(BERT, ANNA, subject, "secret")).await.code, 250);
        let text = house.world.wait(1).await.remove(0).text();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let object = STANDARD.decode(body.lines().collect::<String>()).unwrap();
        // The 256 octets of the encrypted key, behind their OCTET STRING's head.
        let key = object.windows(4).position(|head| head == [0x04, 0x82, 0x01, 0x00]).unwrap() + 4;
        sealed.push((head.to_owned(), object, key));
    }
    house.world.clear();
    // Every delivery fails for good: where a bounce can come of it, it does.
    house.server.fault(Fault::Dot(554));
    let probe = |number: usize| {
        let (head, object, key) = &sealed[number % 2];
        let (mut object, place) = (object.clone(), number / 16);
        let (key, end) = (*key, object.len());
        match number / 2 % 8 {
            0 => {}
            1 => object[key + place % 256] ^= 1 << (place % 8),
            2 => object[key..key + 256].fill(0),
            3 => object[key..key + 256].fill(0xff),
            4 => object[end - 1] ^= 1 << (place % 8),
            5 => object[end - 24 - place % 8] ^= 1 << (place % 8),
            6 => object[key..key + 255].rotate_left(place % 255),
            _ => object[end - 40] ^= 0x55,
        }
        format!("{head}\r\n\r\n{}\r\n", base64_lines(&object))
    };
    let mut answers = std::collections::HashSet::new();
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let mails: Vec<String> = (0..EACH).map(|at| probe(client * EACH + at)).collect();
        let inward = house.inward();
        clients.push(tokio::spawn(async move {
            let mut connection = Client::connect(inward).await;
            let mut heard = Vec::new();
            // From a stranger, and in the name of one of ours.
            for (at, mail) in mails.iter().enumerate() {
                let from = if at % 3 == 0 { ANNA } else { "x@else.example" };
                heard.push(connection.send(from, &[ANNA], mail.as_bytes()).await.octets);
            }
            heard
        }));
    }
    for client in clients {
        answers.extend(client.await.unwrap());
    }
    assert_eq!(answers, ["250 2.0.0 accepted\r\n".to_owned()].into());
    house.settled().await;
    let held = house.gateway.spool().entries();
    assert_eq!(held.len(), CLIENTS * EACH, "all held, none lost");
    house.server.fault(Fault::None);
    assert!(house.world.octets().is_empty() && house.server.mails().is_empty(), "0 DSNs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a33_what_was_decrypted_here_does_not_bounce_out_in_clear() {
    let house = House::with_policy("[default]\nencrypt = \"prefer\"\n").await;
    house.user(ANNA);
    // A stranger's mail, encrypted to anna, comes in and is opened.
    assert_eq!(house.send_out(BERT, &[ANNA], &plain(BERT, ANNA, "x", "CanaryBody")).await.code, 250);
    let sealed = house.world.wait(1).await.remove(0).message;
    house.world.clear();
    assert_eq!(house.send_in(BERT, &[ANNA], &sealed).await.code, 250);
    let opened = house.server.wait(1).await.remove(0).text();
    assert!(opened.contains("CanaryBody"));
    // Her mail server bounces it, whole.
    let bounce = format!(
        "From: MAILER-DAEMON@ours.example\r\nTo: {BERT}\r\nSubject: failed\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"r\"\r\n\r\n--r\r\n\r\nmailbox full\r\n\
         --r\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; m.ours.example\r\n\
         --r\r\nContent-Type: message/rfc822\r\n\r\n{opened}\r\n--r--\r\n"
    );
    assert_eq!(house.send_out("", &[BERT], &bounce).await.code, 250);
    let text = house.world.wait(1).await.remove(0).text();
    assert!(text.contains("mailbox full") && text.contains("text/rfc822-headers"), "{text}");
    assert!(!text.contains("CanaryBody"), "{text}");
    // Encrypted to him it may be whole; and where it must be encrypted and cannot, it stays.
    house.partner(BERT);
    house.world.clear();
    assert_eq!(house.send_out("", &[BERT], &bounce).await.code, 250);
    assert!(house.world.wait(1).await.remove(0).text().contains("pkcs7-mime"));
    let strict = House::new().await;
    assert_eq!(strict.send_out("", &[BERT], &bounce).await.code, 550);
    assert!(strict.world.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a31_signed_in_name_only_does_not_leave_where_a_signature_is_required() {
    let house = House::with_policy("[default]\nsign = \"require\"\n").await;
    house.user(ANNA);
    let good = signed_mail(&house, ANNA, b"Content-Type: text/plain\r\n\r\nhello", false).await;
    let opaque = signed_mail(&house, ANNA, b"Content-Type: text/plain\r\n\r\nhello", true).await;
    for message in [&good, &opaque] {
        assert_eq!(house.send_out(ANNA, &[BERT], message).await.code, 250);
    }
    assert_eq!(house.world.wait(2).await.len(), 2);
    let said = house.send_out(ANNA, &[BERT], &good.replace("hello", "hollo")).await;
    assert_eq!(said.code, 550, "{}", said.octets);
    assert_eq!(house.world.mails().len(), 2);
}

/// 3DES: left shut unless `[legacy]` says otherwise, and then opened and marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weak_mail_is_opened_only_where_the_configuration_says_so_and_is_marked() {
    if !outside::peers(&["openssl"]) {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("content"), "Content-Type: text/plain\r\n\r\nan old secret\r\n").unwrap();
    for switched in [false, true] {
        let policy = format!("[default]\nencrypt = \"never\"\n[legacy]\nweak_ciphers = {switched}\n");
        let house = House::with_policy(&policy).await;
        let certificate = STANDARD.encode(house.user(ANNA).der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n");
        std::fs::write(files.path().join("anna"), pem).unwrap();
        let made = std::process::Command::new("openssl")
            .args([
                "cms", "-encrypt", "-des3", "-binary", "-outform", "DER", "-in", "content", "-out", "sealed", "anna",
            ])
            .current_dir(files.path())
            .status();
        assert!(made.unwrap().success());
        let object = base64_lines(&std::fs::read(files.path().join("sealed")).unwrap());
        let message = format!(
            "From: {BERT}\r\nTo: {ANNA}\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{object}\r\n"
        );
        let text = delivered(&house, BERT, &message).await;
        assert_eq!(text.contains("an old secret"), switched, "{text}");
        let marks = text.split_once("\r\n\r\n").unwrap().0.replace("\r\n ", " ");
        assert_eq!(marks.contains("weak=\"encrypted with 3DES-CBC\""), switched, "{marks}");
    }
}

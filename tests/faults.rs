//! No clear text leaves (T9): canaries in the body, in file names and in header fields that go inside; everything a next hop was
//! ever sent is searched, as it came and decoded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use redb::{ConcurrencyMode, ReadableTable, TableDefinition};
use support::house::House;
use support::{Fault, Sink};
use waxwing::pki::authority::{NewKey, Recipe};
use waxwing::pki::certificate::Certificate;
use waxwing::policy::TrustState;
use waxwing::store::embedded;

const ANNA: &str = "anna@ours.example";
/// In the body, its QP and base64 forms, in file names, in fields that go inside.
const CANARIES: [&str; 7] =
    ["CanaryBody", "CanaryQuoted", "CanaryBased", "CanaryFile", "CanaryName", "CanaryDescription", "CanaryHtml"];

fn message(to: &str) -> String {
    let based = base64::engine::general_purpose::STANDARD.encode("there is a CanaryBased in here, of some length");
    format!(
        "From: {ANNA}\r\nTo: {to}\r\nBcc: CanaryBcc@else.example\r\nSubject: quarter\r\nMIME-Version: 1.0\r\n\
         Content-Description: CanaryDescription\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\n\
         Content-Type: text/plain\r\n\r\nthe CanaryBody sings\r\n--b\r\nContent-Type: text/plain\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\n=43anary=51uoted\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>CanaryHtml</p>\r\n--b\r\n\
         Content-Type: application/octet-stream; name=\"CanaryName.bin\"\r\nContent-Disposition: attachment; filename=\"CanaryFile.bin\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{based}\r\n--b--\r\n"
    )
}

/// Canaries found in octets as they are, and in every run of base64 and every quoted-printable escape in them, undone.
fn canaries(octets: &[u8]) -> Vec<&'static str> {
    let text = String::from_utf8_lossy(octets).into_owned();
    let mut forms = vec![text.clone(), unquoted(&text)];
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&STANDARD, lenient);
    let mut run = String::new();
    for line in text.lines().chain([""]) {
        if line.len() >= 16 && line.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"+/=".contains(&octet)) {
            run.push_str(line.trim_end_matches('='));
        } else if !run.is_empty() {
            if let Ok(decoded) = engine.decode(&run) {
                forms.push(String::from_utf8_lossy(&decoded).into_owned());
            }
            run.clear();
        }
    }
    let all = CANARIES.iter().chain(&["CanaryBcc"]);
    all.filter(|canary| forms.iter().any(|form| form.contains(**canary))).copied().collect()
}

fn unquoted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.replace("=\r\n", "");
    while let Some((start, after)) = rest.clone().split_once('=') {
        out.push_str(start);
        match after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(octet) if octet.is_ascii() => {
                out.push(char::from(octet));
                rest = after.get(2..).unwrap_or_default().to_owned();
            }
            _ => {
                out.push('=');
                rest = after.to_owned();
            }
        }
    }
    out + &rest
}

#[test]
fn the_search_finds_every_canary_in_clear_mail() {
    let found = canaries(message("x@y.example").as_bytes());
    assert_eq!(found.len(), CANARIES.len() + 1, "{found:?}");
}

const WITH_CERTIFICATE: [&str; 2] = ["good@partner.example", "ec@partner.example"];
const WITHOUT: [&str; 6] = [
    "none@partner.example",
    "expired@partner.example",
    "usage@partner.example",
    "pending@partner.example",
    "foreign@partner.example",
    "disabled@partner.example",
];

async fn house(policy: &str) -> House {
    let house = House::with_policy(policy).await;
    let now = Timestamp::now();
    let recipe = |address: &str| Recipe::mailbox(address, now, NewKey::Rsa2048);
    house.user(ANNA);
    house.partner("good@partner.example");
    house.add(
        "ec@partner.example",
        Recipe::mailbox("ec@partner.example", now, NewKey::P256),
        false,
        TrustState::Trusted,
    );
    house.add("expired@partner.example", House::expired("expired@partner.example"), false, TrustState::Trusted);
    let signing_only = Recipe { key_usage: vec!["digitalSignature"], ..recipe("usage@partner.example") };
    house.add("usage@partner.example", signing_only, false, TrustState::Trusted);
    house.add("pending@partner.example", recipe("pending@partner.example"), false, TrustState::Pending);
    house.add("foreign@partner.example", recipe("somebody.else@partner.example"), false, TrustState::Trusted);
    house.partner("disabled@partner.example");
    house.disable("disabled@partner.example");
    house
}

const REQUIRE: &str = "[default]\nsign = \"if-key\"\nencrypt = \"require\"\n";

async fn nothing_in_clear(sink: &Sink, context: &str) {
    let found = canaries(&sink.octets());
    assert!(found.is_empty(), "{context}: {found:?} left in clear");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_no_clear_text_leaves_whoever_the_recipients_are() {
    for sign in ["never", "if-key", "require"] {
        for form in ["clear", "opaque"] {
            let house =
                house(&format!("[default]\nsign = \"{sign}\"\nencrypt = \"require\"\nform = \"{form}\"\n")).await;
            for bad in WITHOUT {
                for to in [vec![bad], vec![WITH_CERTIFICATE[0], bad], vec![bad, WITH_CERTIFICATE[1]]] {
                    let said = house.send_out(ANNA, &to, &message(&to.join(", "))).await;
                    nothing_in_clear(&house.world, &format!("{sign} {form} {to:?}")).await;
                    assert_eq!(said.code, 550, "{to:?}: {}", said.octets);
                    assert!(said.octets.contains(bad), "{}", said.octets);
                }
            }
            assert!(house.world.mails().is_empty());
            for to in [vec![WITH_CERTIFICATE[0]], vec![WITH_CERTIFICATE[1]], WITH_CERTIFICATE.to_vec()] {
                house.world.clear();
                let said = house.send_out(ANNA, &to, &message(&to.join(", "))).await;
                assert_eq!(said.code, 250, "{}", said.octets);
                assert_eq!(house.world.wait(1).await.len(), 1);
                nothing_in_clear(&house.world, &format!("{sign} {form} {to:?}")).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_no_clear_text_leaves_under_prefer_where_a_certificate_is_unusable() {
    let house = house("[default]\nsign = \"if-key\"\nencrypt = \"prefer\"\n").await;
    for bad in WITHOUT.iter().filter(|bad| **bad != "none@partner.example") {
        let said = house.send_out(ANNA, &[bad], &message(bad)).await;
        assert_eq!(said.code, 550, "{bad}: {}", said.octets);
    }
    nothing_in_clear(&house.world, "prefer").await;
    // Known that there is none: in clear, as policy says; and the Bcc field stays here even so.
    assert_eq!(house.send_out(ANNA, &["none@partner.example"], &message("none@partner.example")).await.code, 250);
    house.world.wait(1).await;
    let found = canaries(&house.world.octets());
    assert!(found.contains(&"CanaryBody") && !found.contains(&"CanaryBcc"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_no_clear_text_leaves_when_the_next_hop_misbehaves() {
    let faults = [
        Fault::Refuse,
        Fault::Mail(451),
        Fault::Mail(550),
        Fault::Data(451),
        Fault::Data(554),
        Fault::Dot(451),
        Fault::Dot(554),
        Fault::DropInData,
        Fault::DropAfterDot,
    ];
    for fault in faults {
        let house = house(REQUIRE).await;
        house.world.fault(fault);
        let to = [WITH_CERTIFICATE[0], WITH_CERTIFICATE[1]];
        // One in Cc, one blind: two outputs. Then one output.
        house.send_out(ANNA, &to, &message(to[0])).await;
        house.send_out(ANNA, &to[..1], &message(to[0])).await;
        house.world.fault(Fault::None);
        house.settled().await;
        nothing_in_clear(&house.world, &format!("{fault:?}")).await;
        nothing_in_clear(&house.server, &format!("{fault:?}, towards our server")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_mail_that_cannot_be_protected_as_it_is_does_not_leave() {
    let house = house(REQUIRE).await;
    let good = message(WITH_CERTIFICATE[0]);
    let broken = [
        good.replace("boundary=\"b\"", "boundary=\"b\"; boundary=\"c\""),
        good.replace("MIME-Version", "Content-Type: text/plain\r\nMIME-Version"),
        good.replace("boundary=\"b\"", ""),
        good.replace("--b--", ""),
        good.replace(
            "Content-Type: multipart/mixed; boundary=\"b\"",
            "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=\"b\"",
        ),
        good.replace(
            "Content-Type: multipart/mixed; boundary=\"b\"",
            "Content-Type: application/pkcs7-mime; smime-type=enveloped-data",
        ),
        good.replace(
            "Content-Type: multipart/mixed; boundary=\"b\"",
            "Content-Type: application/pkcs7-mime; smime-type=signed-data",
        ),
        good.replace("quoted-printable", "x-own"),
        format!("no header at all\r\n{good}"),
    ];
    for message in broken {
        let said = house.send_out(ANNA, &[WITH_CERTIFICATE[0]], &message).await;
        assert!(matches!(said.code, 250 | 550), "{}", said.octets);
        nothing_in_clear(&house.world, &message).await;
    }
}

/// What an attacker does who may write the store's file, knows its format, and lacks the KEK.
fn attack(house: &House, body: impl Fn(&mut BTreeMap<String, Vec<u8>>)) {
    let records = TableDefinition::<&str, &[u8]>::new("records");
    let mut builder = redb::Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    let db = builder.open(embedded::file_of(&house.folder.path().join("store"))).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let mut table = transaction.open_table(records).unwrap();
        let before: BTreeMap<String, Vec<u8>> = table
            .iter()
            .unwrap()
            .map(|entry| entry.map(|(path, octets)| (path.value().to_owned(), octets.value().to_vec())).unwrap())
            .collect();
        let mut after = before.clone();
        body(&mut after);
        for path in before.keys() {
            table.remove(path.as_str()).unwrap();
        }
        for (path, octets) in &after {
            table.insert(path.as_str(), octets.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

const VICTIM: &str = "victim@partner.example";
const ATTACKER: &str = "attacker@partner.example";

fn with_prefix(records: &BTreeMap<String, Vec<u8>>, prefix: &str) -> String {
    records.keys().find(|path| path.starts_with(prefix)).unwrap().clone()
}

/// The attacker's certificate in the place of the victim's, inside its record.
fn forged(records: &mut BTreeMap<String, Vec<u8>>, victim: &Certificate, attacker: &Certificate) {
    let octets = records.get_mut(&with_prefix(records, &format!("c/{VICTIM}/"))).unwrap();
    let at = octets.windows(victim.der().len()).position(|window| window == victim.der().as_ref()).unwrap();
    let length = u32::try_from(attacker.der().len()).unwrap().to_be_bytes();
    octets.splice(at - 4..at + victim.der().len(), [&length, attacker.der().as_ref()].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a26_live_no_mail_for_the_attacker_whatever_he_writes_into_the_store() {
    type Attack = fn(&mut BTreeMap<String, Vec<u8>>, &Certificate, &Certificate);
    let attacks: [(&str, Attack); 7] = [
        ("forged", forged),
        ("certificate swapped", |records, _, _| {
            let theirs = records[&with_prefix(records, &format!("c/{ATTACKER}/"))].clone();
            records.insert(with_prefix(records, &format!("c/{VICTIM}/")), theirs);
        }),
        ("owner swapped", |records, _, _| {
            let theirs = records[&format!("o/{ATTACKER}")].clone();
            records.insert(format!("o/{VICTIM}"), theirs);
        }),
        ("certificate deleted", |records, _, _| drop(records.remove(&with_prefix(records, &format!("c/{VICTIM}/"))))),
        ("owner deleted", |records, _, _| drop(records.remove(&format!("o/{VICTIM}")))),
        ("alias to him", |records, _, _| {
            let theirs = records[&format!("o/{ATTACKER}")].clone();
            records.insert(format!("a/{VICTIM}"), theirs);
            records.remove(&format!("o/{VICTIM}"));
        }),
        ("anchor deleted", |records, _, _| drop(records.remove(&with_prefix(records, "t/")))),
    ];
    for policy in [REQUIRE, "[default]\nencrypt = \"prefer\"\n"] {
        for (name, change) in attacks {
            let house = House::with_policy(policy).await;
            let recipe = |address: &str| Recipe::mailbox(address, Timestamp::now(), NewKey::P256);
            let victim = house.add(VICTIM, recipe(VICTIM), false, TrustState::Trusted);
            // As bad as it gets: his certificate holds the victim's address, and the house's CA issued it.
            let recipe = Recipe { mailboxes: vec![VICTIM.into(), ATTACKER.into()], ..recipe(ATTACKER) };
            let attacker = house.add(ATTACKER, recipe, false, TrustState::Trusted);
            attack(&house, |records| change(records, &victim, &attacker));
            let said = house.send_out(ANNA, &[VICTIM], &message(VICTIM)).await;
            let limits = waxwing::mime::entity::MimeLimits::default();
            for mail in house.world.mails() {
                let entity = waxwing::mime::entity::Entity::parse(mail.message.into(), &limits).unwrap();
                let ids = waxwing::smime::open::recipient_ids(&entity, &limits).expect("encrypted");
                assert!(ids.iter().all(|id| id.names(&victim) && !id.names(&attacker)), "{name}");
            }
            // The lost anchor alone is known at once: it is read when the store is opened, and kept.
            let kept = name == "anchor deleted" && said.code == 250;
            assert!(
                kept || said.code == 451 || said.code == 550 && name == "anchor deleted",
                "{policy}{name}: {}",
                said.octets
            );
            assert!(house.store.alerts() > 0 || kept, "{policy}{name}: no alert");
            nothing_in_clear(&house.world, name).await;
        }
    }
}

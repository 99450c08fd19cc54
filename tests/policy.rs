//! `waxwing policy explain`: the command says what the gateway does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "server")]

mod support;

use std::process::Command;

use serde_json::Value;
use support::house::{House, mailbox, plain};
use waxwing::pki::authority::{NewKey, Recipe};
use waxwing::policy::TrustState;
use waxwing::store::{CertStore, Owner};

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@partner.example";
const NOBODY: &str = "nobody@partner.example";
const POLICY: &str = r#"
[[rule]]
name = "hold"
match = { direction = "outbound", recipient = ["held@partner.example"] }
encrypt = "require"
missing = "hold"
[[rule]]
name = "robots"
match = { direction = "outbound", recipient = ["@robots.example"] }
reject = "no robots"
[[rule]]
name = "partners"
match = { direction = "outbound", recipient = ["@partner.example"] }
sign = "require"
encrypt = "require"
[[rule]]
name = "sealed"
match = { direction = "inbound", recipient = ["vault@ours.example"] }
decrypt = false
[default]
sign = "if-key"
encrypt = "prefer"
"#;

struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs `waxwing policy explain` beside the gateway.
fn explain(house: &House, mail: &[u8], arguments: &[&str]) -> Said {
    std::fs::write(house.folder.path().join("mail.eml"), mail).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_waxwing"))
        .args(["--config", "waxwing.toml", "policy", "explain", "mail.eml"])
        .args(arguments)
        .current_dir(house.folder.path())
        .env_remove("WAXWING_CONFIG")
        .output()
        .unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn json(house: &House, mail: &[u8], arguments: &[&str]) -> (i32, Value) {
    let said = explain(house, mail, &[arguments, &["--json"]].concat());
    (said.code, serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {} {}", said.out, said.err)))
}

fn reasons(recipient: &Value, role: &str) -> Vec<String> {
    let all = recipient["considered"].as_array().unwrap().iter().filter(|one| one["role"] == role);
    let mut reasons: Vec<String> = all.map(|one| one["why_not"].as_str().unwrap_or("used").to_owned()).collect();
    reasons.sort();
    reasons
}

#[tokio::test]
async fn every_certificate_is_told_with_why_it_is_used_or_not() {
    let house = House::with_policy(POLICY).await;
    let signer = house.user(ANNA);
    house.add(BERT, House::expired(BERT), false, TrustState::Trusted);
    house.add(BERT, Recipe::mailbox(BERT, jiff::Timestamp::now(), NewKey::P256), false, TrustState::Blocked);
    house.add(
        BERT,
        Recipe::mailbox("other@partner.example", jiff::Timestamp::now(), NewKey::P256),
        false,
        TrustState::Trusted,
    );
    house.add(BERT, Recipe::mailbox(BERT, jiff::Timestamp::now(), NewKey::P256), false, TrustState::Trusted);
    house.add(BERT, Recipe::mailbox(BERT, jiff::Timestamp::now(), NewKey::P256), false, TrustState::Pinned);
    let mail = plain(ANNA, BERT, "explain", "body");
    let (code, said) = json(&house, mail.as_bytes(), &["--from", ANNA, "--to", BERT]);
    let bert = &said["recipients"][0];
    assert_eq!((code, &said["listener"], &said["trusted"]), (0, &"out".into(), &true.into()));
    assert_eq!(
        (&bert["rule"], &bert["direction"], &bert["served"]),
        (&"partners".into(), &"outbound".into(), &true.into())
    );
    assert_eq!(bert["treatment"], "signed, encrypted with AES-256-CBC");
    assert_eq!(reasons(bert, "signer"), ["used"]);
    let used = bert["considered"].as_array().unwrap().iter().find(|one| one["role"] == "signer").unwrap();
    let fingerprint: String = signer.fingerprint().iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(used["fingerprint"], fingerprint);
    let recipient = reasons(bert, "recipient");
    assert_eq!(recipient.len(), 5, "{recipient:?}");
    for (reason, expected) in recipient.iter().zip([
        "blocked",
        "expired on",
        "its subjectAltName does not hold",
        "may be used, another one comes first",
        "used",
    ]) {
        assert!(reason.starts_with(expected), "{recipient:?}");
    }
    let text = explain(&house, mail.as_bytes(), &["--from", ANNA, "--to", BERT]);
    assert_eq!(text.code, 0);
    for part in ["rule       partners", "not used: blocked", ": used", "at listener \"out\""] {
        assert!(text.out.contains(part), "{part}: {}", text.out);
    }
    // Nothing was sent by asking.
    assert!(house.world.octets().is_empty());
}

#[tokio::test]
async fn what_is_explained_is_what_the_gateway_answers() {
    let house = House::with_policy(POLICY).await;
    house.user(ANNA);
    house.partner(BERT);
    house.partner("away@partner.example");
    house.disable("away@partner.example");
    let from = ["anna@ours.example", "keyless@ours.example", "anna@elsewhere.example"];
    let to = [BERT, NOBODY, "held@partner.example", "x@robots.example", "away@partner.example", "some@where.example"];
    let mut refused = 0;
    for from in from {
        for to in to {
            let mail = plain(from, to, "compare", "body");
            let (code, said) = json(&house, mail.as_bytes(), &["--from", from, "--to", to, "--peer", "127.0.0.1"]);
            let (recipient, answer) = (&said["recipients"][0], house.send_out(from, &[to], &mail).await);
            let held = recipient["treatment"].as_str().unwrap().starts_with("held");
            assert_eq!(
                recipient["served"].as_bool().unwrap() || held,
                answer.code == 250,
                "{from} {to} {recipient:#} {answer:?}"
            );
            assert_eq!(code, i32::from(recipient["served"] != true), "{from} {to}");
            if let Some(reply) = recipient["reply"].as_str() {
                refused += 1;
                let spoken: Vec<&str> = answer.octets.lines().collect();
                assert_eq!(spoken, reply.split("\r\n").collect::<Vec<_>>());
            }
        }
    }
    assert!(refused >= 8, "{refused}");
}

#[tokio::test]
async fn one_who_is_refused_is_told_with_the_others() {
    let house = House::with_policy(POLICY).await;
    house.user(ANNA);
    house.partner(BERT);
    let mail = plain(ANNA, BERT, "two", "body");
    let said = explain(&house, mail.as_bytes(), &["--from", ANNA, "--to", BERT, NOBODY]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("no certificate of <nobody@partner.example> is in the store"), "{}", said.out);
    assert!(
        said.out.contains("nobody gets the mail")
            && said.out.contains("waxwing cert import --address nobody@partner.example"),
        "{}",
        said.out
    );
    // Not in To or Cc: a blind copy.
    let (code, said) =
        json(&house, plain(ANNA, "x@partner.example", "bcc", "body").as_bytes(), &["--from", ANNA, "--to", BERT]);
    assert_eq!(code, 0);
    assert!(said["recipients"][0]["treatment"].as_str().unwrap().ends_with("copy of his own (Bcc)"), "{said:#}");
}

#[tokio::test]
async fn the_clock_and_the_listener_may_be_others() {
    let house = House::with_policy(POLICY).await;
    house.user(ANNA);
    house.partner(BERT);
    let mail = plain(ANNA, BERT, "time", "body");
    let (code, said) = json(&house, mail.as_bytes(), &["--from", ANNA, "--to", BERT, "--at", "2001-01-01T00:00:00Z"]);
    assert_eq!(code, 1);
    assert!(reasons(&said["recipients"][0], "recipient")[0].starts_with("not valid before"), "{said:#}");
    let (code, said) = json(&house, mail.as_bytes(), &["--from", ANNA, "--to", BERT, "--listener", "in"]);
    assert_eq!((code, &said["recipients"][0]["rule"]), (1, &Value::Null));
    assert!(said["recipients"][0]["reply"].as_str().unwrap().starts_with("550 5.7.1 "), "{said:#}");
    // A sender address alone gives no trust: from elsewhere nothing is relayed.
    let (code, _) = json(&house, mail.as_bytes(), &["--from", "eve@evil.example", "--to", BERT]);
    assert_eq!(code, 1);
    let (code, _) = json(&house, mail.as_bytes(), &["--from", ANNA, "--to", BERT, "--peer", "198.51.100.7"]);
    assert_eq!(code, 1);
}

#[tokio::test]
async fn inbound_mail_is_explained_with_the_keys_that_open_it() {
    let house = House::with_policy(POLICY).await;
    house.user(ANNA);
    house.user("carl@ours.example");
    house.add(
        "vault@ours.example",
        Recipe::mailbox("vault@ours.example", jiff::Timestamp::now(), NewKey::P256),
        true,
        TrustState::Trusted,
    );
    let answer = house.send_out(ANNA, &["carl@ours.example"], &plain(ANNA, "carl@ours.example", "in", "body")).await;
    assert_eq!(answer.code, 250);
    let sealed = house.world.wait(1).await[0].message.clone();
    let to = ["carl@ours.example", ANNA, "vault@ours.example", "none@ours.example"];
    let (code, said) = json(&house, &sealed, &[["--from", BERT, "--to"].as_slice(), &to].concat());
    assert_eq!((code, &said["listener"], &said["trusted"]), (0, &"in".into(), &false.into()));
    let treatment = |at: usize| said["recipients"][at]["treatment"].as_str().unwrap().to_owned();
    assert!(treatment(0).starts_with("opened with his own keys"), "{said:#}");
    assert_eq!(reasons(&said["recipients"][0], "own key"), ["used"]);
    assert!(treatment(1).starts_with("marked: "), "{said:#}");
    assert_eq!(reasons(&said["recipients"][1], "own key"), ["the mail is not encrypted to it"]);
    assert!(said["recipients"][2]["notes"][0].as_str().unwrap().contains("does not decrypt"), "{said:#}");
    assert!(said["recipients"][3]["notes"][0].as_str().unwrap().contains("no private key"), "{said:#}");
    // Old mail of one who is disabled is opened all the same.
    house.store.set_disabled(&Owner::Mailbox(mailbox("carl@ours.example").key()), true).unwrap();
    let (_, said) = json(&house, &sealed, &["--from", BERT, "--to", "carl@ours.example"]);
    assert_eq!(reasons(&said["recipients"][0], "own key"), ["used"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let house = House::new().await;
    let mail = plain(ANNA, BERT, "bad", "body");
    for (arguments, part) in [
        (&["--from", "anna", "--to", BERT][..], "anna"),
        (&["--from", ANNA, "--to", "b\u{7}@x.example"], "x.example"),
        (&["--from", ANNA, "--to", BERT, "--listener", "nowhere"], "out, in, both, lmtp"),
        (&["--from", ANNA, "--to", BERT, "--at", "yesterday"], "--at"),
        (&["--from", ANNA], "--to"),
        (&["--from", ANNA, "--to", BERT, "--config", "absent.toml"], "absent.toml"),
    ] {
        let said = explain(&house, mail.as_bytes(), arguments);
        assert!(
            said.code == 2 && said.err.contains(part) && said.out.is_empty(),
            "{arguments:?}: {} {}",
            said.out,
            said.err
        );
    }
}

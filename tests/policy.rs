//! `waxwing policy explain`: the command says what the gateway does; `waxwing policy replay`: what another configuration would.
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
use waxwing::cms::algorithm::{Capabilities, ContentEncryption};
use waxwing::pki::authority::{NewKey, Recipe};
use waxwing::policy::TrustState;
use waxwing::store::{CertStore, Edit, Note, Owner, Provenance, Revision};

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
    run(house, &[&["--config", "waxwing.toml", "policy", "explain", "mail.eml"], arguments].concat())
}

fn run(house: &House, arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_waxwing"))
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
async fn of_each_certificate_is_told_where_it_came_from_and_what_its_owner_reads() {
    let house = House::with_policy(POLICY).await;
    house.user(ANNA);
    let recipe = |address| Recipe::mailbox(address, jiff::Timestamp::now(), NewKey::P256);
    let trusted = house.add(BERT, recipe(BERT), false, TrustState::Trusted);
    let pending = house.add(BERT, recipe(BERT), false, TrustState::Pending);
    let carl = "carl@partner.example";
    house.add(carl, recipe(carl), false, TrustState::Trusted);
    let known = Capabilities { content: vec![ContentEncryption::Aes128Cbc], transport: Vec::new() };
    let by = Provenance { source: "mail".into(), detail: "<7@partner.example>".into(), at: jiff::Timestamp::now() };
    let note = Note { why: "another key".into(), instead_of: Some(trusted.fingerprint()) };
    let edit = vec![
        Edit { fingerprint: trusted.fingerprint(), capabilities: Some(Some((known, by))), ..Edit::default() },
        Edit { fingerprint: pending.fingerprint(), note: Some(note), ..Edit::default() },
    ];
    let revision = || Revision { edit: edit.clone(), ..Revision::default() };
    house.store.revise(&Owner::parse(BERT).unwrap(), &mut |_| revision()).unwrap();
    let mail = plain(ANNA, &format!("{BERT}, {carl}"), "explain", "body");
    let (code, said) = json(&house, mail.as_bytes(), &["--from", ANNA, "--to", BERT, carl]);
    assert_eq!(code, 0, "{said}");
    let (bert, other) = (&said["recipients"][0], &said["recipients"][1]);
    assert_eq!(bert["treatment"], "signed, encrypted with AES-128-CBC");
    let of = |trust: &str| {
        let all = bert["considered"].as_array().unwrap().iter().filter(|one| one["role"] == "recipient");
        all.clone().find(|one| one["trust"] == trust).unwrap_or_else(|| panic!("{bert}")).clone()
    };
    assert_eq!(of("trusted")["reads"], serde_json::json!(["AES-128-CBC"]));
    assert!(of("trusted")["from"].as_str().unwrap().starts_with("import test, "));
    assert!(of("pending")["from"].as_str().unwrap().ends_with("; another key") && of("pending")["used"] == false);
    let notes = other["notes"].to_string();
    assert!(notes.contains("in one copy with others, with AES-128-CBC"), "what is really sent: {notes}");
    let text = explain(&house, mail.as_bytes(), &["--from", ANNA, "--to", BERT]).out;
    assert!(text.contains("[trusted; from import test") && text.contains("; reads AES-128-CBC]"), "{text}");
    assert!(text.contains("[pending; from import test"), "{text}");
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
    assert!(treatment(1).starts_with("marked neutral: "), "{said:#}");
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

/// A folder of recorded mail in every form that envelopes come in, and a second configuration beside the house's.
fn recorded(house: &House, new_policy: &str) {
    let folder = house.folder.path();
    let old = std::fs::read_to_string(folder.join("waxwing.toml")).unwrap();
    std::fs::write(folder.join("new.toml"), old.replace(POLICY, new_policy)).unwrap();
    assert_ne!(old, std::fs::read_to_string(folder.join("new.toml")).unwrap());
    std::fs::create_dir_all(folder.join("archive/below")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join("archive").join(name), text).unwrap();
    // Bare LF, as files have it. The header's own addresses.
    write("a.eml", &plain(ANNA, BERT, "header", "body").replace("\r\n", "\n"));
    // Fields in the mail: a blind copy to somebody whom To does not name.
    write(
        "b.eml",
        &format!(
            "X-Envelope-From: <{ANNA}>\nX-Envelope-To: {NOBODY},\n <x@robots.example>\n{}",
            plain(ANNA, BERT, "fields", "body")
        ),
    );
    // A file beside it, which comes first.
    write("below/c.eml", &format!("X-Envelope-To: wrong@partner.example\n{}", plain(ANNA, BERT, "beside", "body")));
    write(
        "below/c.eml.envelope",
        &format!("X-Envelope-From: {ANNA}\nX-Envelope-To: some@where.example\nX-Envelope-Peer: 127.0.0.1\n"),
    );
    // Two in an mbox.
    write(
        "d.mbox",
        &format!(
            "From {ANNA} Mon Jun  1 10:00:00 2026\n{}\nFrom eve@evil.example Mon Jun  1 10:00:00 2026\n{}\n",
            plain(ANNA, "some@where.example", "one", "body\n>From here").replace("\r\n", "\n"),
            plain("eve@evil.example", ANNA, "two", "body").replace("\r\n", "\n"),
        ),
    );
}

fn replay(house: &House, arguments: &[&str]) -> Said {
    let all = ["policy", "replay", "archive", "--current", "waxwing.toml", "--config", "new.toml"];
    run(house, &[&all, arguments].concat())
}

#[tokio::test]
async fn replay_says_what_another_configuration_would_change() {
    let house = House::with_policy(POLICY).await;
    house.user(ANNA);
    house.partner(BERT);
    // Partners in clear, others with a signature that must be; nobody has a certificate at where.example.
    recorded(
        &house,
        "[[rule]]\nname = \"loose\"\nmatch = { recipient = [\"@partner.example\"] }\nsign = \"never\"\nencrypt = \"never\"\n\
        [default]\nsign = \"require\"\nencrypt = \"require\"\n",
    );
    let said = replay(&house, &["--json"]);
    assert_eq!(said.code, 1, "{} {}", said.out, said.err);
    let found: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&found["mails"], &found["recipients"], &found["less_protected"]),
        (&5.into(), &6.into(), &2.into()),
        "{found:#}"
    );
    let change = |at: usize| {
        let one = &found["changes"][at];
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        (
            text(&one["recipient"]),
            text(&one["old"]["outcome"]),
            text(&one["new"]["outcome"]),
            text(&one["less_protected"]),
        )
    };
    let of = |recipient: &str, old: &str, new: &str, weaker: &str| {
        (recipient.to_owned(), old.to_owned(), new.to_owned(), weaker.to_owned())
    };
    assert_eq!(change(0), of(BERT, "signed, encrypted with AES-256-CBC", "clear", "in clear now, sealed before"));
    assert_eq!(change(1), of(NOBODY, "refused", "clear", "in clear now, did not leave before"));
    let mut rest = [change(2), change(3)];
    rest.sort();
    assert_eq!(
        rest,
        [of("some@where.example", "signed", "refused", "-"), of("some@where.example", "signed", "refused", "-")]
    );
    assert_eq!(found["changes"][0]["old"]["rule"], "partners");
    assert_eq!(found["changes"][0]["new"]["rule"], "loose");
    let pair = |old: &str, new: &str| {
        let all = found["summary"].as_array().unwrap();
        all.iter()
            .find(|one| one["old"] == old && one["new"] == new)
            .map_or(0, |one| one["recipients"].as_u64().unwrap())
    };
    assert_eq!(pair("signed", "refused"), 2);
    assert_eq!(pair("refused", "refused"), 1, "the robots: {found:#}");
    assert_eq!(pair("marked none", "marked none"), 1, "what came in: {found:#}");
    // The same as a table: the worst first, and nothing was sent.
    let said = replay(&house, &[]);
    assert_eq!(said.code, 1);
    let second = said.out.lines().nth(1).unwrap();
    assert!(second.starts_with("in clear now, sealed before") && second.contains("archive/a.eml"), "{}", said.out);
    assert!(
        said.out.contains("5 mails to 6 recipients: 4 change, 2 of them less protected; 0 mails could not be read"),
        "{}",
        said.out
    );
    assert!(house.world.octets().is_empty());
}

#[tokio::test]
async fn replay_ends_well_where_nothing_is_less_protected_and_says_what_it_cannot_read() {
    let house = House::with_policy(POLICY).await;
    house.user(ANNA);
    house.partner(BERT);
    recorded(&house, &POLICY.replace("encrypt = \"prefer\"", "encrypt = \"require\""));
    let said = replay(&house, &["--no-fetch", "--all"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert!(said.out.contains(": 2 change, 0 of them less protected"), "{}", said.out);
    // A later clock: Bert's certificate has expired, on both sides.
    let said = replay(&house, &["--at", "2099-01-01T00:00:00Z", "--json"]);
    assert!(said.out.contains("\"old\": \"refused\""), "{}", said.out);
    std::fs::write(house.folder.path().join("archive/e.eml"), "Subject: to nobody\n\nx\n").unwrap();
    let said = replay(&house, &[]);
    assert_eq!(said.code, 2, "{}", said.out);
    assert!(
        said.err.contains("archive/e.eml: no sender") && said.out.contains("1 mails could not be read"),
        "{} {}",
        said.out,
        said.err
    );
    for (arguments, part) in [
        (
            &["policy", "replay", "archive", "--current", "waxwing.toml", "--config", "./waxwing.toml"][..],
            "compared with itself",
        ),
        (&["policy", "replay", "absent", "--current", "waxwing.toml", "--config", "new.toml"], "absent cannot be read"),
        (&["policy", "replay", "archive", "--current", "absent.toml", "--config", "new.toml"], "absent.toml"),
        (
            &[
                "policy",
                "replay",
                "archive",
                "--current",
                "waxwing.toml",
                "--config",
                "new.toml",
                "--listener",
                "nowhere",
            ],
            "out, in, both, lmtp",
        ),
    ] {
        let said = run(&house, arguments);
        assert!(
            said.code == 2 && said.err.contains(part) && said.out.is_empty(),
            "{arguments:?}: {} {}",
            said.out,
            said.err
        );
    }
    std::fs::remove_dir_all(house.folder.path().join("store")).unwrap();
    let said =
        run(&house, &["--config", "waxwing.toml", "policy", "explain", "archive/a.eml", "--from", ANNA, "--to", BERT]);
    assert!(said.code == 2 && said.err.contains("there is no store in"), "{}", said.err);
}

/// Mail that is larger than the limit, or has passed too many hops, is refused before any rule: as the gateway does.
#[tokio::test]
async fn what_no_rule_sees_is_explained_too() {
    let house = House::build(&support::house::Plan {
        policy: POLICY,
        top: "[limits]\nmessage_size = \"64 KiB\"\nreceived_fields = 10\n",
        ..Default::default()
    })
    .await;
    house.user(ANNA);
    house.partner(BERT);
    for mail in [
        plain(ANNA, BERT, "large", &"x\r\n".repeat(30_000)),
        format!("{}{}", "Received: by a\r\n".repeat(11), plain(ANNA, BERT, "hops", "x")),
    ] {
        let (code, said) = json(&house, mail.as_bytes(), &["--from", ANNA, "--to", BERT]);
        let answer = house.send_out(ANNA, &[BERT], &mail).await;
        assert_eq!((code, &said["recipients"][0]["outcome"]), (1, &"denied".into()));
        let said = said["recipients"][0]["reply"].as_str().unwrap();
        // The words of the size limit are the protocol's own.
        assert_eq!(said.split(' ').take(2).collect::<Vec<_>>(), answer.octets.split(' ').take(2).collect::<Vec<_>>());
    }
}

/// The author has no key; his domain has: signed for the domain where the rule says so, and shown as the domain's.
#[tokio::test]
async fn a_rule_may_sign_with_the_domains_key() {
    let policy = "[[rule]]\nname = \"never\"\nmatch = { recipient = [\"own@where.example\"] }\nsign = \"require\"\n\
        [[rule]]\nname = \"both\"\nmatch = { recipient = [\"both@where.example\"] }\nsign = \"require\"\nsign-with = \"author-or-domain\"\n\
        [default]\nsign = \"require\"\nsign-with = \"domain\"\n";
    let house = House::with_policy(policy).await;
    let recipe = Recipe {
        mailboxes: vec!["@ours.example".into()],
        ..Recipe::mailbox("gateway", jiff::Timestamp::now(), NewKey::P256)
    };
    let domain = house.add_for(&Owner::parse("@ours.example").unwrap(), recipe, true, TrustState::Trusted);
    let anna = house.user(ANNA);
    let answer = house
        .send_out(
            "keyless@ours.example",
            &["own@where.example"],
            &plain("keyless@ours.example", "own@where.example", "own", "x"),
        )
        .await;
    assert_eq!(answer.code, 451, "{answer:?}");
    let mut signers = Vec::new();
    for (from, to) in [
        ("keyless@ours.example", "both@where.example"),
        (ANNA, "both@where.example"),
        (ANNA, "x@where.example"),
        (ANNA, "own@where.example"),
    ] {
        house.world.clear();
        let answer = house.send_out(from, &[to], &plain(from, to, "signed", "x")).await;
        assert_eq!(answer.code, 250, "{answer:?}");
        let sent = house.world.wait(1).await.remove(0).message;
        let entity = waxwing::mime::entity::Entity::parse(sent.clone().into(), &Default::default()).unwrap();
        let parts = entity.parts(&Default::default()).unwrap();
        let signed = waxwing::cms::signed::SignedData::parse(&parts[1].decoded_body().unwrap()).unwrap();
        signers.push(if signed.signers[0].id.names(&domain) {
            "domain"
        } else if signed.signers[0].id.names(&anna) {
            "author"
        } else {
            "?"
        });
        // A house that trusts the CA says whose signature it is, on its way in.
        let there = House::with_policy("[default]\n").await;
        there.store.add_trust(house.ca.certificate.clone(), Some(waxwing::pki::path::AnchorScope::Global)).unwrap();
        assert_eq!(there.send_in(from, &[ANNA], &sent).await.code, 250);
        let text = there.server.wait(1).await[0].text();
        let expected = if signers.last() == Some(&"domain") {
            ["smime=policy (signed by the domain ours.example", "X-Waxwing-Signature: domain; signer=\"@ours.example\""]
        } else {
            ["smime=pass (signed by anna@ours.example", "X-Waxwing-Signature: valid; signer=\"anna@ours.example\""]
        };
        for part in expected {
            assert!(text.replace("\r\n", "").contains(part), "{part}: {text}");
        }
    }
    assert_eq!(signers, ["domain", "author", "domain", "author"]);
    let (_, said) = json(
        &house,
        plain(ANNA, "x@where.example", "why", "x").as_bytes(),
        &["--from", ANNA, "--to", "x@where.example"],
    );
    assert_eq!(said["recipients"][0]["treatment"], "signed for the domain");
}

/// What an old CA wrote counts by setting, both ways; and so do certificate policies.
#[tokio::test]
async fn addresses_in_subjects_and_policies_count_by_setting() {
    let policy = "[[rule]]\nname = \"mirror\"\nmatch = { recipient = [\"mirror@where.example\"] }\nsign = \"require\"\n[default]\nencrypt = \"require\"\n";
    let old = |address: &str| Recipe {
        mailboxes: Vec::new(),
        subject_email: Some(address.to_owned()),
        ..Recipe::mailbox(address, jiff::Timestamp::now(), NewKey::P256)
    };
    for (top, counts) in [
        ("", false),
        ("[certificates]\nemail_in_subject = true\n", true),
        ("[certificates]\nemail_in_subject = true\npolicies = [\"1.3.6.1.4.1.99999.1\"]\n", false),
    ] {
        let house = House::build(&support::house::Plan { policy, top, ..Default::default() }).await;
        house.add(BERT, old(BERT), false, TrustState::Trusted);
        house.add(ANNA, old(ANNA), true, TrustState::Trusted);
        let answer = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "old", "x")).await;
        assert_eq!(answer.code, if counts { 250 } else { 550 }, "{top}: {answer:?}");
        let answer =
            house.send_out(ANNA, &["mirror@where.example"], &plain(ANNA, "mirror@where.example", "old", "x")).await;
        assert_eq!(answer.code, if counts { 250 } else { 451 }, "{top}: {answer:?}");
        if !counts {
            continue;
        }
        let signed = house.world.mails().pop().unwrap().message;
        for (there, verdict) in [(top, "smime=pass"), ("", "smime=fail")] {
            let there = House::build(&support::house::Plan { policy, top: there, ..Default::default() }).await;
            there.store.add_trust(house.ca.certificate.clone(), Some(waxwing::pki::path::AnchorScope::Global)).unwrap();
            assert_eq!(there.send_in(ANNA, &[ANNA], &signed).await.code, 250);
            assert!(there.server.wait(1).await[0].text().contains(verdict), "{verdict}");
        }
    }
}

//! Revoked certificates, with a CA that publishes a CRL over HTTP: not encrypted to, not valid; and what is unknown, by rule.
#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use support::house::{House, plain};
use waxwing::pki::authority::{NewKey, Recipe, revocation_list};
use waxwing::pki::certificate::Certificate;
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::store::CertStore;

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@partner.example";
const POLICY: &str = r#"
[revocation]
private_addresses = true
timeout = "5 s"
[[rule]]
name = "strict"
match = { recipient = ["bert@partner.example", "strict@ours.example"] }
encrypt = "require"
revocation = "require"
[[rule]]
name = "mirror"
match = { recipient = ["mirror@else.example"] }
sign = "require"
[default]
sign = "if-key"
encrypt = "require"
"#;

/// The CA's web server; without a CRL it answers 404.
struct Site {
    address: SocketAddr,
    crl: Arc<Mutex<Option<Vec<u8>>>>,
    asked: Arc<AtomicUsize>,
}

impl Site {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let crl: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let (served, counted) = (crl.clone(), asked.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let body = served.lock().unwrap().clone();
                let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
                let body = body.unwrap_or_default();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
        });
        Self { address, crl, asked }
    }

    fn recipe(&self, mailbox: &str) -> Recipe {
        let crl = Some(format!("http://{}/ca.crl", self.address));
        Recipe { crl, ..Recipe::mailbox(mailbox, Timestamp::now(), NewKey::Rsa2048) }
    }

    fn publish(&self, house: &House, revoked: &[&Certificate]) {
        let now = Timestamp::now();
        let (from, until) = (now - SignedDuration::from_hours(1), now + SignedDuration::from_hours(1));
        *self.crl.lock().unwrap() = Some(revocation_list(&house.ca, revoked, from, until));
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_not_encrypted_to() {
    let (house, site) = (House::with_policy(POLICY).await, Site::start());
    let bert = house.add(BERT, site.recipe(BERT), false, TrustState::Trusted);
    site.publish(&house, &[&bert]);
    let said = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "supper", "secret")).await;
    assert_eq!(said.code, 550, "{said:?}");
    assert_eq!(house.world.mails().len(), 0);
}

#[tokio::test]
async fn a_good_one_is_and_its_crl_is_fetched_once() {
    let (house, site) = (House::with_policy(POLICY).await, Site::start());
    let other = house.add("x@partner.example", site.recipe("x@partner.example"), false, TrustState::Trusted);
    house.add(BERT, site.recipe(BERT), false, TrustState::Trusted);
    site.publish(&house, &[&other]);
    for _ in 0..3 {
        let said = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "supper", "secret")).await;
        assert_eq!(said.code, 250, "{said:?}");
    }
    assert_eq!(house.world.mails().len(), 3);
    assert!(house.world.mails().iter().all(|mail| !mail.text().contains("secret")));
    assert_eq!(site.asked.load(Ordering::SeqCst), 1);
}

/// `require`: what cannot be told now waits at the sender; `prefer`: it goes out, encrypted.
#[tokio::test]
async fn where_nothing_is_known_the_rule_says_what_happens() {
    let (house, site) = (House::with_policy(POLICY).await, Site::start());
    const CARL: &str = "carl@partner.example";
    house.add(BERT, site.recipe(BERT), false, TrustState::Trusted);
    house.add(CARL, site.recipe(CARL), false, TrustState::Trusted);
    let said = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "supper", "secret")).await;
    assert_eq!(said.code, 451, "{said:?}");
    assert!(format!("{said:?}").contains("revocation unknown"), "{said:?}");
    let said = house.send_out(ANNA, &[CARL], &plain(ANNA, CARL, "supper", "secret")).await;
    assert_eq!(said.code, 250, "{said:?}");
    let received = house.world.mails();
    assert_eq!(received.len(), 1);
    assert!(!received[0].text().contains("secret"));
}

/// What a house that trusts the writer's CA finds in his mail: the result in Authentication-Results.
async fn verdict(writer: &House, signed: &[u8], to: &str) -> String {
    let house = House::with_policy(POLICY).await;
    house.store.add_trust(writer.ca.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    let said = house.send_in(BERT, &[to], signed).await;
    assert_eq!(said.code, 250, "{said:?}");
    let text = house.server.wait(1).await[0].text();
    let at = text.find("smime=").unwrap_or_else(|| panic!("{text}"));
    text[at..].split(|one: char| one.is_whitespace() || one == ';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_signature_with_a_revoked_certificate_is_not_valid() {
    let (writer, site) = (House::with_policy(POLICY).await, Site::start());
    let bert = writer.add(BERT, site.recipe(BERT), true, TrustState::Trusted);
    let said = writer.send_out(BERT, &["mirror@else.example"], &plain(BERT, ANNA, "signed", "body")).await;
    assert_eq!(said.code, 250, "{said:?}");
    let signed = writer.world.wait(1).await.remove(0).message;

    const STRICT: &str = "strict@ours.example";
    assert_eq!(verdict(&writer, &signed, ANNA).await, "smime=pass");
    assert_eq!(verdict(&writer, &signed, STRICT).await, "smime=policy");
    site.publish(&writer, &[]);
    assert_eq!(verdict(&writer, &signed, ANNA).await, "smime=pass");
    assert_eq!(verdict(&writer, &signed, STRICT).await, "smime=pass");
    site.publish(&writer, &[&bert]);
    assert_eq!(verdict(&writer, &signed, ANNA).await, "smime=policy");
    assert_eq!(verdict(&writer, &signed, STRICT).await, "smime=policy");
}

/// Accepts, and says nothing until it is dropped.
struct Silent {
    address: SocketAddr,
    held: Arc<Mutex<Vec<std::net::TcpStream>>>,
}

impl Silent {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, held) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let kept = held.clone();
        // Ends with the test's process.
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| kept.lock().unwrap().push(stream)));
        Self { address, held }
    }

    /// Waits until so many wait for it.
    async fn asked_by(&self, count: usize) {
        let asked = async {
            while self.held.lock().unwrap().len() < count {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(50), asked).await.unwrap();
    }
}

/// One mail more than there are places for large ones waits for a responder that never answers; large and small mail passes meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_responder_that_stalls_holds_up_no_other_mail() {
    let policy =
        POLICY.replace("timeout = \"5 s\"", "timeout = \"60 s\"").replace("bert@partner.example", "@stalled.example");
    let (house, silent) = (Arc::new(House::with_policy(&policy).await), Silent::start());
    house.partner(BERT);
    let large = "x".repeat(70) + "\r\n";
    let large = large.repeat(6_000);
    let waiting: Vec<_> = (0..=std::thread::available_parallelism().unwrap().get())
        .map(|number| {
            let to = format!("b{number}@stalled.example");
            let crl = Some(format!("http://{}/{number}.crl", silent.address));
            house.add(
                &to,
                Recipe { crl, ..Recipe::mailbox(&to, Timestamp::now(), NewKey::P256) },
                false,
                TrustState::Trusted,
            );
            let (house, mail) = (house.clone(), plain(ANNA, &to, "stalled", &large));
            tokio::spawn(async move { house.send_out(ANNA, &[&to], &mail).await })
        })
        .collect();
    silent.asked_by(waiting.len()).await;
    for body in ["small", &large] {
        let said = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "passes", body)).await;
        assert_eq!(said.code, 250, "{said:?}");
    }
    assert!(waiting.iter().all(|one| !one.is_finished()), "they still wait");
    silent.held.lock().unwrap().clear();
    for one in waiting {
        let said = one.await.unwrap();
        assert_eq!(said.code, 451, "{said:?}");
    }
}

/// `waxwing cert check` beside the gateway.
fn check(house: &House, arguments: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_waxwing"))
        .args([&["--config", "waxwing.toml", "cert", "check"], arguments].concat())
        .current_dir(house.folder.path())
        .env_remove("WAXWING_CONFIG")
        .output()
        .unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn cert_check_says_what_may_be_used_and_where_its_state_was_told() {
    let (house, site) = (House::with_policy(POLICY).await, Site::start());
    let bert = house.add(BERT, site.recipe(BERT), false, TrustState::Trusted);
    let anna = house.add(ANNA, site.recipe(ANNA), true, TrustState::Trusted);
    house.add(ANNA, House::expired(ANNA), true, TrustState::Trusted);
    let json = |arguments: &[&str]| -> (i32, serde_json::Value) {
        let (code, out, err) = check(&house, &[arguments, &["--json"]].concat());
        (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {err}")))
    };
    let uri = format!("http://{}/ca.crl", site.address);
    // Nothing is published: unknown, which counts as the setting says.
    let (code, said) = json(&[ANNA]);
    let state =
        |said: &serde_json::Value, at: usize| said["certificates"][at]["path"]["certificates"][0]["revocation"].clone();
    let at = |said: &serde_json::Value| {
        said["certificates"].as_array().unwrap().iter().position(|one| one["path"].is_object()).unwrap()
    };
    let good = at(&said);
    assert_eq!((code, &state(&said, good)["status"]), (0, &"unknown".into()));
    assert!(state(&said, good)["told_at"][0]["outcome"].as_str().unwrap().contains("404"), "{said:#}");
    assert_eq!(check(&house, &[ANNA, "--revocation", "require"]).0, 1);
    // Published: told with the place, and until when.
    site.publish(&house, &[&bert]);
    let (code, said) = json(&[ANNA, "--revocation", "require"]);
    let one = &said["certificates"][good];
    assert_eq!(
        (code, &one["encryption"]["usable"], &one["signing"]["usable"], &one["private_key"]),
        (0, &true.into(), &true.into(), &true.into())
    );
    let told = state(&said, good);
    assert_eq!(
        (&told["status"], &told["told_at"][0]["uri"], &told["told_at"][0]["kind"]),
        (&"good".into(), &uri.as_str().into(), &"crl".into())
    );
    assert!(
        told["until"].is_string() && told["told_at"][0]["outcome"].as_str().unwrap().starts_with("fetched "),
        "{told:#}"
    );
    let expired = &said["certificates"][1 - good];
    assert!(expired["encryption"]["why_not"].as_str().unwrap().contains("expired on"), "{expired:#}");
    let (code, said) = json(&[BERT]);
    assert_eq!((code, &state(&said, 0)["status"]), (1, &"revoked".into()));
    assert!(said["certificates"][0]["encryption"]["why_not"].as_str().unwrap().contains("was revoked on"), "{said:#}");
    // As a tree, the anchor above; and without the network.
    let (code, out, _) = check(&house, &[ANNA]);
    assert_eq!(code, 0);
    for part in [
        "encryption may be used",
        "anchor for every domain",
        "└─ CN=anna@ours.example",
        "not revoked, known until",
        "CRL http://",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let asked = site.asked.load(Ordering::SeqCst);
    let (_, said) = json(&[ANNA, "--no-fetch"]);
    assert_eq!((&state(&said, good)["status"], site.asked.load(Ordering::SeqCst)), (&"unknown".into(), asked));
    // A file, without a store.
    let write = |name: &str, octets: &[u8]| std::fs::write(house.folder.path().join(name), octets).unwrap();
    write("anna.der", anna.der());
    write("ca.der", house.ca.certificate.der());
    write("ca.crl", &site.crl.lock().unwrap().clone().unwrap());
    let files = [
        "anna.der",
        "--trust",
        "ca.der",
        "--no-fetch",
        "--crl",
        "ca.crl",
        "--revocation",
        "require",
        "--store",
        "absent",
    ];
    let (code, out, err) = check(&house, &files);
    assert_eq!(code, 0, "{out} {err}");
    for (arguments, part) in [
        (&["nobody@ours.example"][..], "nothing is stored for"),
        (&["absent.pem"], "absent.pem"),
        (&["ca.crl", "--trust", "ca.der"], "ca.crl"),
    ] {
        let (code, out, err) = check(&house, arguments);
        assert!(code == 2 && err.contains(part) && out.is_empty(), "{arguments:?}: {out} {err}");
    }
}

/// `waxwing message open` fetches what tells of the signer, unless told not to.
#[tokio::test]
async fn message_open_fetches_unless_told_not_to() {
    let (writer, site) = (House::with_policy(POLICY).await, Site::start());
    let bert = writer.add(BERT, site.recipe(BERT), true, TrustState::Trusted);
    site.publish(&writer, &[&bert]);
    let said = writer.send_out(BERT, &["mirror@else.example"], &plain(BERT, ANNA, "signed", "body")).await;
    // Our own revoked key does not sign.
    assert_eq!(said.code, 451, "{said:?}");
    site.publish(&writer, &[]);
    let fresh = House::with_policy(POLICY).await;
    fresh.store.add_trust(writer.ca.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    let key = writer.store.identity(&support::house::mailbox(BERT)).unwrap().certificates[0].key.unwrap();
    let new = waxwing::store::NewCertificate {
        certificate: bert.clone(),
        provenance: waxwing::store::Provenance { source: "import".into(), detail: "test".into(), at: Timestamp::now() },
        trust: TrustState::Trusted,
        key: Some(writer.store.export_key(key).unwrap()),
    };
    fresh.store.add_certificates(&waxwing::store::Owner::parse(BERT).unwrap(), vec![new]).unwrap();
    let said = fresh.send_out(BERT, &["mirror@else.example"], &plain(BERT, ANNA, "signed", "body")).await;
    assert_eq!(said.code, 250, "{said:?}");
    let folder = writer.folder.path();
    std::fs::write(folder.join("signed.eml"), fresh.world.wait(1).await.remove(0).message).unwrap();
    std::fs::write(folder.join("ca.der"), writer.ca.certificate.der()).unwrap();
    let open = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_waxwing"))
            .args(
                [&["--config", "none.toml", "message", "open", "--trust", "ca.der", "signed.eml"], arguments].concat(),
            )
            .current_dir(folder)
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    site.publish(&writer, &[&bert]);
    let before = site.asked.load(Ordering::SeqCst);
    assert_eq!(open(&["--no-fetch"]).0, 0);
    assert_eq!(open(&[]).0, 0, "private addresses are not asked");
    assert_eq!(
        open(&["--private-addresses", "--at", &Timestamp::now().to_string()]).0,
        0,
        "nothing is fetched for another time"
    );
    assert_eq!(site.asked.load(Ordering::SeqCst), before);
    let (code, out) = open(&["--private-addresses"]);
    assert!(code == 1 && out.contains("was revoked on"), "{out}");
    let (code, out) = open(&["--no-fetch", "--revocation", "require"]);
    assert!(code == 1 && out.contains("revocation unknown"), "{out}");
}

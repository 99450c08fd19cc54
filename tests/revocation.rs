//! Revoked certificates, with a CA that publishes a CRL over HTTP: not encrypted to, not valid; and what is unknown, by rule.
#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
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

//! The profile `post-quantum` on loopback: which of a mailbox's keys and certificates the gateway takes is decided from its history.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use bytes::Bytes;
use jiff::Timestamp;
use support::house::{House, plain};
use waxwing::cms::algorithm::{MlDsa, MlKem};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{NewKey, Recipe};
use waxwing::pki::certificate::Certificate;
use waxwing::policy::TrustState;
use waxwing::smime::open::recipient_ids;

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@ours.example";
const POLICY: &str = r#"
[[rule]]
name = "plain"
match = { direction = "outbound", recipient = ["carl@ours.example"] }
sign = "require"
encrypt = "require"
profile = "compatible"
[default]
sign = "require"
encrypt = "require"
profile = "post-quantum"
"#;

fn add(house: &House, address: &str, key: NewKey) -> Certificate {
    house.add(address, Recipe::mailbox(address, Timestamp::now(), key), true, TrustState::Trusted)
}

fn is_for(message: &[u8], certificate: &Certificate) -> bool {
    let entity = Entity::parse(Bytes::copy_from_slice(message), &MimeLimits::default()).unwrap();
    let ids = recipient_ids(&entity, &MimeLimits::default()).unwrap_or_default();
    ids.iter().any(|id| id.names(certificate))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_goes_out_with_two_signatures_to_an_ml_kem_key_and_comes_in_proven() {
    let house = House::with_policy(POLICY).await;
    add(&house, ANNA, NewKey::P256);
    add(&house, ANNA, NewKey::MlDsa(MlDsa::MlDsa65));
    let classical = add(&house, BERT, NewKey::P256);
    let quantum = add(&house, BERT, NewKey::MlKem(MlKem::MlKem768));

    assert_eq!(house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "plan", "the eagle has landed")).await.code, 250);
    let sent = house.world.wait(1).await.remove(0);
    assert!(is_for(&sent.message, &quantum) && !is_for(&sent.message, &classical), "{}", sent.text());
    assert!(!sent.text().contains("eagle"));
    assert_eq!(house.send_in(ANNA, &[BERT], &sent.message).await.code, 250);
    let came = house.server.wait(1).await.remove(0).text();
    assert!(came.contains("the eagle has landed") && came.contains("smime=pass"), "{came}");
    assert!(came.contains("micalg=\"sha-256,sha-512\""), "two signatures: {came}");
}

/// Under another profile the same sender signs once, with the key that every mail program reads, and a recipient who has only ML-KEM is
/// written to all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_profile_takes_the_classical_key_and_the_certificate_that_there_is() {
    let house = House::with_policy(POLICY).await;
    add(&house, ANNA, NewKey::MlDsa(MlDsa::MlDsa65));
    add(&house, ANNA, NewKey::P256);
    let only = add(&house, "carl@ours.example", NewKey::MlKem(MlKem::MlKem1024));
    let text = plain(ANNA, "carl@ours.example", "plan", "the eagle has landed");
    assert_eq!(house.send_out(ANNA, &["carl@ours.example"], &text).await.code, 250);
    let sent = house.world.wait(1).await.remove(0);
    assert!(is_for(&sent.message, &only), "{}", sent.text());
    assert_eq!(house.send_in(ANNA, &["carl@ours.example"], &sent.message).await.code, 250);
    let came = house.server.wait(1).await.remove(0).text();
    assert!(came.contains("smime=pass") && came.contains("micalg=sha-256;"), "{came}");
}

//! Users come, rotate their keys, leave, come back and go for good, while mail flows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use support::house::{House, mailbox, plain};
use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{NewKey, Recipe};
use waxwing::pki::certificate::Certificate;
use waxwing::policy::TrustState;
use waxwing::relay::expiry::Expiry;
use waxwing::smime::open::recipient_ids;
use waxwing::smime::seal::{Draft, EncryptPlan};
use waxwing::store::{CertStore, Owner};

const POLICY: &str = "[[rule]]\nname = \"clear\"\nmatch = { recipient = [\"@clear.example\"] }\nsign = \"if-key\"\nencrypt = \"never\"\n\
    [default]\nsign = \"if-key\"\nencrypt = \"require\"\n";
const BOSS: &str = "boss@ours.example";
const REGISTER: &str = "register@clear.example";
/// Steps of the day.
const HOURS: i64 = 24;
const USERS: usize = 6;

fn entity(message: &[u8]) -> Entity {
    Entity::parse(Bytes::copy_from_slice(message), &MimeLimits::default()).unwrap()
}

/// Old mail of a user: as it came then, and what it says.
struct Kept {
    message: Vec<u8>,
    says: String,
}

struct User {
    address: String,
    /// Oldest first; the last one is in use.
    generations: Vec<Certificate>,
    disabled: bool,
    mail: Vec<Kept>,
}

impl User {
    fn owner(&self) -> Owner {
        Owner::Mailbox(mailbox(&self.address).key())
    }
}

struct Day {
    house: House,
    began: Timestamp,
    users: Vec<User>,
    mails: usize,
    opened: usize,
}

impl Day {
    async fn new() -> Self {
        let house = House::with_policy(POLICY).await;
        house.user(BOSS);
        Self { house, began: Timestamp::now(), users: Vec::new(), mails: 0, opened: 0 }
    }

    /// A certificate that began so many minutes after the day did, two days ago.
    fn issue(&self, address: &str, minutes: i64, ended: bool) -> Certificate {
        let mut recipe = Recipe::mailbox(address, self.began, NewKey::P256);
        recipe.not_before = self.began - SignedDuration::from_hours(48) + SignedDuration::from_mins(minutes);
        if ended {
            recipe.not_after = self.began - SignedDuration::from_hours(1);
        }
        self.house.add(address, recipe, true, TrustState::Trusted)
    }

    /// A user comes with a certificate that is over, mail from that time, and one that is in use.
    fn comes(&mut self, hour: i64) {
        let address = format!("user{}@ours.example", self.users.len());
        let ended = self.issue(&address, -6_000, true);
        let says = format!("before everything {address}");
        let old = Kept { message: sealed_to(&ended, &address, &says), says };
        let current = self.issue(&address, hour * 60, false);
        self.users.push(User { address, generations: vec![ended, current], disabled: false, mail: vec![old] });
    }

    /// Half past the hour: who came in it has a certificate that began with it, and of two that began at once neither is the newest.
    fn rotates(&mut self, at: usize, hour: i64) {
        let certificate = self.issue(&self.users[at].address.clone(), hour * 60 + 30, false);
        self.users[at].generations.push(certificate);
    }

    fn switches(&mut self, at: usize) {
        let user = &mut self.users[at];
        user.disabled = !user.disabled;
        self.house.store.set_disabled(&user.owner(), user.disabled).unwrap();
    }

    /// New mail to each: to the newest certificate and no other, or to none.
    async fn new_mail(&mut self, hour: i64) {
        for at in 0..self.users.len() {
            let user = &self.users[at];
            self.house.world.clear();
            let says = format!("hour {hour} for {}", user.address);
            let text = plain(BOSS, &user.address, "news", &says);
            let said = self.house.send_out(BOSS, &[&user.address], &text).await;
            if user.disabled {
                assert!(said.code >= 500, "{} is disabled, and: {}", user.address, said.octets);
                assert!(self.house.world.mails().is_empty());
                continue;
            }
            assert_eq!(said.code, 250, "{}: {}", user.address, said.octets);
            let sent = self.house.world.wait(1).await.remove(0);
            assert!(!sent.text().contains(&says));
            let ids = recipient_ids(&entity(&sent.message), &MimeLimits::default()).unwrap();
            let to: Vec<usize> = (0..user.generations.len())
                .filter(|at| ids.iter().any(|id| id.names(&user.generations[*at])))
                .collect();
            assert_eq!(to, [user.generations.len() - 1], "hour {hour}, {}: the newest alone", user.address);
            self.users[at].mail.push(Kept { message: sent.message.to_vec(), says });
            self.mails += 1;
        }
    }

    /// What each sends: signed with the newest certificate, or not at all.
    async fn signs(&mut self) {
        for user in &self.users {
            self.house.world.clear();
            let text = plain(&user.address, REGISTER, "signed", "hello");
            assert_eq!(self.house.send_out(&user.address, &[REGISTER], &text).await.code, 250);
            let sent = self.house.world.wait(1).await.remove(0);
            let signed = entity(&sent.message).content_type().unwrap().essence == "multipart/signed";
            assert_eq!(signed, !user.disabled, "{}", user.address);
            if signed {
                let signature = signature(&sent.text());
                let with: Vec<usize> = (0..user.generations.len())
                    .filter(|at| signature.windows(16).any(|part| part == user.generations[*at].serial()))
                    .collect();
                assert_eq!(with, [user.generations.len() - 1], "{}: the newest alone", user.address);
            }
            self.mails += 1;
        }
    }

    /// Mail of every time comes again: each is read.
    async fn old_mail(&mut self) {
        for user in &self.users {
            // One of each generation and the last one: all of them take long and show no more.
            let step = user.mail.len().div_ceil(4).max(1);
            for kept in user.mail.iter().step_by(step).chain(user.mail.last()) {
                self.house.server.clear();
                let said = self.house.send_in(BOSS, &[&user.address], &kept.message).await;
                assert_eq!(said.code, 250, "{}", said.octets);
                let came = self.house.server.wait(1).await.remove(0).text();
                assert!(came.contains(&kept.says), "{} ({}): {came}", user.address, kept.says);
                self.opened += 1;
            }
        }
    }
}

fn sealed_to(certificate: &Certificate, address: &str, says: &str) -> Vec<u8> {
    let scheme = RecipientScheme { rsa: KeyTransport::RsaPkcs1, kdf: KeyDerivation::X963(Digest::Sha256) };
    let plan = EncryptPlan {
        recipients: vec![(certificate.clone(), scheme)],
        content: ContentEncryption::Aes256Cbc,
        derive_cek: false,
    };
    let draft = Draft::new(&entity(plain("old@else.example", address, "old", says).as_bytes())).unwrap();
    draft.encrypt(&plan, true).unwrap().rope().chunks(1 << 16).flat_map(|chunk| chunk.to_vec()).collect()
}

/// The octets of smime.p7s.
fn signature(message: &str) -> Vec<u8> {
    let part = message.rsplit_once("smime.p7s").unwrap().1;
    let body = part.split_once("\r\n\r\n").unwrap().1.split("\r\n--").next().unwrap();
    STANDARD.decode(body.replace("\r\n", "")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_operation_old_mail_is_read_and_new_mail_goes_to_the_newest_certificate() {
    let mut day = Day::new().await;
    // The same day each time: who does what is drawn from a fixed seed.
    let mut seed = 0x2026_u64;
    let mut draw = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let (mut rotated, mut switched) = (0, 0);
    for hour in 0..HOURS {
        if day.users.len() < USERS && hour % 3 == 0 {
            day.comes(hour);
        }
        let at = draw(day.users.len());
        if hour % 2 == 1 && !day.users[at].disabled {
            day.rotates(at, hour);
            rotated += 1;
        }
        if hour % 4 == 2 {
            let at = draw(day.users.len());
            day.switches(at);
            switched += 1;
        }
        day.new_mail(hour).await;
        day.signs().await;
        day.old_mail().await;
    }
    assert!(rotated > 5 && switched > 4 && day.users.iter().any(|user| user.disabled), "{rotated} {switched}");
    println!(
        "{} users, {rotated} rotations, {switched} left or came back; {} mails sent, {} opened",
        USERS, day.mails, day.opened
    );

    // One goes for good: nothing of his is read here any more, and nothing of the others' is lost.
    let gone = day.users.remove(0);
    day.house.store.purge(&gone.owner()).unwrap();
    for kept in &gone.mail {
        day.house.server.clear();
        assert_eq!(day.house.send_in(BOSS, &[&gone.address], &kept.message).await.code, 250);
        let came = day.house.server.wait(1).await.remove(0).text();
        assert!(!came.contains(&kept.says), "{came}");
    }
    day.old_mail().await;
    assert_eq!(day.house.store.alerts(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daily_look_counts_users_whose_certificates_run_out_and_names_the_first() {
    let house = House::with_policy(POLICY).await;
    let now = Timestamp::now();
    let day = SignedDuration::from_hours(24);
    let until = |address: &str, days: i32, with_key: bool| {
        let mut recipe = Recipe::mailbox(address, now, NewKey::P256);
        recipe.not_before = now - day * 90;
        recipe.not_after = now + day * days;
        house.add(address, recipe, with_key, TrustState::Trusted);
    };
    until("soon@ours.example", 10, true);
    until("sooner@ours.example", 5, true);
    until("over@ours.example", -5, true);
    until("late@ours.example", 60, true);
    until("rotated@ours.example", 5, true);
    until("rotated@ours.example", 200, true);
    until("partner@partner.example", 5, false);
    let expiry = Expiry::default();
    assert!(expiry.told().is_null());
    let store: Arc<dyn CertStore> = house.store.clone();
    expiry.look(store, now).await;
    let told = expiry.told();
    let count = |key: &str| told[key].as_u64().unwrap();
    assert_eq!((count("ours"), count("ours_expired"), count("partners")), (2, 1, 1), "{told}");
    let first: Vec<&str> = told["first"].as_array().unwrap().iter().map(|one| one["owner"].as_str().unwrap()).collect();
    assert_eq!(first, ["over@ours.example", "sooner@ours.example", "soon@ours.example"]);
}

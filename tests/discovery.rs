//! Certificates from real directories (slapd) and from a real, signed DNS (BIND 9), through a whole gateway: right answers and wrong ones,
//! servers that are dead or slow, one look-up for all who wait.
#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test fails by panicking; some are tables of cases"
)]

#[path = "support/directory.rs"]
mod directory;
#[path = "support/names.rs"]
mod names;
#[path = "support/outside.rs"]
mod outside;
mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use directory::{ADMIN, BASE, PASSWORD, Person, Slapd, free_port, pem};
use jiff::{SignedDuration, Timestamp};
use names::{Named, Signed};
use support::Client;
use support::gate::Gate;
use support::house::{House, Plan, mailbox, plain};
use waxwing::discovery::smimea::{self, Association, Matching, Selector, Usage};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::store::{CertStore, Owner};

const ANNA: &str = "anna@ours.example";
const REQUIRE: &str = "[default]\nencrypt = \"require\"\n";
const PREFER: &str = "[default]\nencrypt = \"prefer\"\n";

fn authority(name: &str) -> Issued {
    issue(&Recipe::authority(name, Timestamp::now(), NewKey::P256), None)
}

fn certificate(address: &str, ca: &Issued) -> Issued {
    issue(&Recipe::mailbox(address, Timestamp::now(), NewKey::P256), Some(ca))
}

fn expired(address: &str, ca: &Issued) -> Issued {
    let (now, day) = (Timestamp::now(), SignedDuration::from_hours(24));
    let recipe = Recipe::mailbox(address, now, NewKey::P256);
    issue(&Recipe { not_before: now - day * 20, not_after: now - day * 10, ..recipe }, Some(ca))
}

/// A source of type "ldap" at these servers.
fn ldap(servers: &[SocketAddr], more: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|address| format!("\"ldap://{address}\"")).collect();
    let tls = if more.contains("tls = ") { "" } else { "tls = \"off\"\n" };
    let own = if more.contains("match = ") { "" } else { "match = [\"@partner.example\"]\n" };
    format!(
        "[[discovery]]\ntype = \"ldap\"\nname = \"dir\"\nservers = [{}]\nbase = \"{BASE}\"\n{own}{tls}{more}\n",
        servers.join(", ")
    )
}

/// A source of type "smimea" at this server.
fn dns(server: &Named, more: &str) -> String {
    format!(
        "[[discovery]]\ntype = \"smimea\"\nname = \"dns\"\nservers = [\"{}\"]\ntrust_anchor = \"{}\"\nmode = \"trust\"\ntimeout = \"10 s\"\n{more}\n",
        server.address,
        server.anchor.display()
    )
}

async fn house(policy: &str, top: &str, ca: &Issued) -> House {
    let house = House::build(&Plan { policy, top, ..Plan::default() }).await;
    house.store.add_trust(ca.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    house
}

/// The answer to the final dot, or to RCPT.
async fn send(house: &House, to: &str, subject: &str) -> u16 {
    house.send_out(ANNA, &[to], &plain(ANNA, to, subject, "the secret")).await.code
}

/// What OpenSSL finds in it with this key.
fn decrypted(mail: &[u8], who: &Issued) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, octets: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, octets).unwrap();
        path
    };
    let certificate = file("c.pem", pem("CERTIFICATE", who.certificate.der()).as_bytes());
    let key = file("k.pem", pem("PRIVATE KEY", &who.pkcs8).as_bytes());
    let mail = file("m.eml", mail);
    let mut openssl = Command::new("openssl");
    openssl.args(["cms", "-decrypt", "-in"]).arg(mail).arg("-recip").arg(certificate).arg("-inkey").arg(key);
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All numbers.
async fn scrape(address: SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn records(house: &House, address: &str) -> Vec<waxwing::store::CertificateRecord> {
    house.store.identity(&mailbox(address)).unwrap().certificates.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_directory_has_is_encrypted_to_and_kept() {
    let ca = authority("Partner CA");
    let bert = certificate("bert@partner.example", &ca);
    let Some(slapd) = Slapd::start(&[Person::new("bert@partner.example").certificate(bert.certificate.der())], None)
    else {
        return;
    };
    let gate = Gate::before(slapd.address, true).await;
    let house = house(REQUIRE, &ldap(&[gate.address], "mode = \"trust\""), &ca).await;
    for subject in ["one", "two"] {
        assert_eq!(send(&house, "Bert@partner.example", subject).await, 250);
    }
    let mails = house.world.wait(2).await;
    for mail in &mails {
        assert!(!mail.text().contains("the secret"));
        assert!(decrypted(&mail.message, &bert).contains("the secret"));
    }
    assert_eq!(gate.connections(), 1, "the second mail found it in the store");
    let kept = records(&house, "bert@partner.example");
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].trust, kept[0].provenance.source.as_str()), (TrustState::Trusted, "ldap"));
    assert_eq!(kept[0].provenance.detail, format!("dir ldap://{}/cn=p0,{BASE}", gate.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_candidate_waits_and_a_changed_key_waits_even_where_the_source_is_trusted() {
    let ca = authority("Partner CA");
    let (new, other) = (certificate("bert@partner.example", &ca), certificate("carl@partner.example", &ca));
    let people = [
        Person::new("bert@partner.example").certificate(new.certificate.der()),
        Person::new("carl@partner.example").certificate(other.certificate.der()),
    ];
    let Some(slapd) = Slapd::start(&people, None) else { return };
    let only_carl = "match = [\"carl@partner.example\"]\n";
    let top = ldap(&[slapd.address], only_carl)
        + &ldap(&[slapd.address], "match = [\"bert@partner.example\"]\nmode = \"trust\"").replace("\"dir\"", "\"two\"");
    let house = house(PREFER, &top, &ca).await;
    // Known, and of no more use: what the directory has is another key.
    house.add("bert@partner.example", House::expired("bert@partner.example"), false, TrustState::Trusted);
    for (to, subject) in [("bert@partner.example", "b"), ("carl@partner.example", "c")] {
        assert_eq!(send(&house, to, subject).await, 550, "{to}: never in clear");
        let pending: Vec<_> = records(&house, to).into_iter().filter(|one| one.trust == TrustState::Pending).collect();
        assert_eq!(pending.len(), 1, "{to}");
        assert!(pending[0].note.is_some());
        let owner = Owner::Mailbox(mailbox(to).key());
        house.store.set_trust(&owner, pending[0].certificate.fingerprint(), TrustState::Trusted).unwrap();
        assert_eq!(send(&house, to, subject).await, 250, "{to}: approved");
    }
    let mails = house.world.wait(2).await;
    assert!(decrypted(&mails[0].message, &new).contains("the secret"));
    assert!(decrypted(&mails[1].message, &other).contains("the secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t09_wrong_answers_of_a_directory_never_let_mail_leave_in_clear() {
    let (ca, stranger) = (authority("Partner CA"), authority("Stranger"));
    let at = |local: &str| format!("{local}@partner.example");
    let small = issue(
        &Recipe {
            key_usage: vec!["digitalSignature"],
            ..Recipe::mailbox(&at("signs"), Timestamp::now(), NewKey::P256)
        },
        Some(&ca),
    );
    let large = (0..20)
        .fold(Person::new(&at("large")), |person, _| person.smime(certificate(&at("large"), &ca).certificate.der()));
    let crowd = (0..10).map(|_| Person::new(&at("crowd")));
    let mut people = vec![
        Person::new(&at("expired")).certificate(expired(&at("expired"), &ca).certificate.der()),
        Person::new(&at("stranger")).certificate(certificate(&at("stranger"), &stranger).certificate.der()),
        Person::new(&at("signs")).certificate(small.certificate.der()),
        Person::new(&at("garbage")).smime(b"no certificate at all"),
        Person::new(&at("foreign")).certificate(certificate("other@partner.example", &ca).certificate.der()),
        Person::new(&at("none")),
        large,
    ];
    people.extend(crowd);
    let Some(slapd) = Slapd::start(&people, None) else { return };
    let source = ldap(&[slapd.address], "mode = \"trust\"\nsize = \"8 KiB\"");
    let (prefer, require) = (house(PREFER, &source, &ca).await, house(REQUIRE, &source, &ca).await);
    // The answer under `require`, and under `prefer`: in clear only where it is known that there is none.
    let cases = [
        ("expired", 550, 550),
        ("stranger", 550, 550),
        ("signs", 550, 550),
        ("garbage", 451, 451),
        ("large", 451, 451),
        ("crowd", 451, 451),
        ("foreign", 550, 250),
        ("none", 550, 250),
        ("nobody", 550, 250),
    ];
    for (local, required, preferred) in cases {
        assert_eq!(send(&require, &at(local), local).await, required, "{local} under require");
        assert_eq!(send(&prefer, &at(local), local).await, preferred, "{local} under prefer");
        assert!(records(&prefer, &at(local)).is_empty(), "{local}: nothing of it is kept");
    }
    assert!(require.world.mails().is_empty());
    let left: Vec<String> = prefer.world.wait(3).await.into_iter().flat_map(|mail| mail.to).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_ask_once_and_others_do_not_wait() {
    let ca = authority("Partner CA");
    let bert = certificate("bert@partner.example", &ca);
    let Some(slapd) = Slapd::start(&[Person::new("bert@partner.example").certificate(bert.certificate.der())], None)
    else {
        return;
    };
    let gate = Gate::before(slapd.address, false).await;
    let house = house(REQUIRE, &ldap(&[gate.address], "mode = \"trust\"\ntimeout = \"30 s\""), &ca).await;
    house.partner("carl@else.example");
    let waiting = async {
        let sent = (0..12).map(|number| {
            let (house, subject) = (&house, format!("m{number}"));
            async move { send(house, "bert@partner.example", &subject).await }
        });
        let mut codes = Vec::new();
        let mut tasks: Vec<_> = sent.map(Box::pin).collect();
        futures_join(&mut tasks, &mut codes).await;
        codes
    };
    let others = async {
        gate.somebody().await;
        // While the directory says nothing.
        for subject in ["x", "y", "z"] {
            assert_eq!(send(&house, "carl@else.example", subject).await, 250);
        }
        assert_eq!(house.world.wait(3).await.len(), 3);
        gate.set(true);
    };
    let (codes, ()) = tokio::join!(waiting, others);
    assert_eq!(codes, vec![250; 12]);
    assert_eq!(gate.connections(), 1, "one look-up for all");
    assert_eq!(house.world.wait(15).await.len(), 15);
}

/// Polls all of them until each is done.
async fn futures_join<F: Future<Output = u16> + Unpin>(tasks: &mut [F], codes: &mut Vec<u16>) {
    let mut done: Vec<Option<u16>> = tasks.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (task, code) in tasks.iter_mut().zip(&mut done) {
            if code.is_none()
                && let std::task::Poll::Ready(found) = std::pin::Pin::new(task).poll(context)
            {
                *code = Some(found);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    codes.extend(done.into_iter().flatten());
}

#[tokio::test(flavor = "multi_thread")]
async fn t09_a_directory_that_is_dead_or_slow_is_waited_for_once_and_never_means_clear() {
    let ca = authority("Partner CA");
    let bert = certificate("bert@partner.example", &ca);
    let Some(slapd) = Slapd::start(&[Person::new("bert@partner.example").certificate(bert.certificate.der())], None)
    else {
        return;
    };
    let dead = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let slow = Gate::before(slapd.address, false).await;
    let source = |servers: &[SocketAddr]| ldap(servers, "mode = \"trust\"\ntimeout = \"1 s\"");

    let only_dead = house(PREFER, &source(&[dead]), &ca).await;
    assert_eq!(send(&only_dead, "bert@partner.example", "dead").await, 451);

    let only_slow = house(PREFER, &source(&[slow.address]), &ca).await;
    let began = Instant::now();
    assert_eq!(send(&only_slow, "bert@partner.example", "slow").await, 451);
    assert!(began.elapsed() < Duration::from_secs(20), "waited {:?}", began.elapsed());
    // Others of the same directory are not made to wait for it again.
    for local in ["bert", "carl", "dora"] {
        assert_eq!(send(&only_slow, &format!("{local}@partner.example"), local).await, 451);
    }
    assert_eq!(slow.connections(), 1);
    assert!(only_dead.world.mails().is_empty() && only_slow.world.mails().is_empty());

    // Each source is counted by its name, for the times that it was asked.
    let metrics = "[metrics]\nlisten = \"127.0.0.1:0\"\n";
    let watched = house(PREFER, &format!("{metrics}{}", source(&[slow.address])), &ca).await;
    assert_eq!(send(&watched, "bert@partner.example", "slow").await, 451);
    assert_eq!(send(&watched, "carl@partner.example", "failed").await, 451);
    assert_eq!(send(&watched, "carl@partner.example", "remembered").await, 451);
    let scraped = scrape(watched.gateway.watched_at().unwrap()).await;
    let answers: Vec<&str> = scraped.lines().filter(|line| line.starts_with("waxwing_source_answers_total")).collect();
    assert_eq!(answers, ["waxwing_source_answers_total{source=\"dir\",result=\"unanswered\"} 2"]);

    let one_of_three = house(PREFER, &source(&[dead, slow.address, slapd.address]), &ca).await;
    assert_eq!(send(&one_of_three, "bert@partner.example", "third").await, 250);
    assert!(decrypted(&one_of_three.world.wait(1).await[0].message, &bert).contains("the secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_none_is_remembered_on_this_node() {
    let ca = authority("Partner CA");
    let Some(slapd) = Slapd::start(&[], None) else { return };
    let gate = Gate::before(slapd.address, true).await;
    let metrics = "[metrics]\nlisten = \"127.0.0.1:0\"\n";
    let house = house(PREFER, &format!("{metrics}{}", ldap(&[gate.address], "")), &ca).await;
    for subject in ["one", "two", "three"] {
        assert_eq!(send(&house, "nobody@partner.example", subject).await, 250);
    }
    assert_eq!(gate.connections(), 1);
    let scraped = scrape(house.gateway.watched_at().unwrap()).await;
    assert!(scraped.contains("\nwaxwing_source_answers_total{source=\"dir\",result=\"nothing\"} 1\n"), "{scraped}");
    assert!(!scraped.contains("partner.example"), "{scraped}");
    // A mailbox that no source may know is asked nowhere.
    assert_eq!(send(&house, "nobody@else.example", "four").await, 250);
    assert_eq!(gate.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_talked_to_over_tls_and_by_name_and_password() {
    let ca = authority("Partner CA");
    let recipe = Recipe {
        hosts: vec!["localhost".into()],
        email_protection: Some(false),
        ..Recipe::mailbox("x@x.example", Timestamp::now(), NewKey::P256)
    };
    let server = issue(&recipe, Some(&ca));
    let bert = certificate("bert@partner.example", &ca);
    let people = [Person::new("bert@partner.example").certificate(bert.certificate.der())];
    let Some(slapd) = Slapd::start(&people, Some(&server)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let right = write("ca.pem", &pem("CERTIFICATE", ca.certificate.der()));
    let wrong = write("other.pem", &pem("CERTIFICATE", authority("Other").certificate.der()));
    let (password, guess) = (write("pw", &format!("{PASSWORD}\n")), write("guess", "guess\n"));
    let source = |ca: &str, bind: &str| {
        ldap(&[slapd.address], &format!("mode = \"trust\"\ntls = \"starttls\"\nca = \"{ca}\"\n{bind}"))
            .replace("127.0.0.1", "localhost")
    };
    let named = |file: &str| format!("bind_dn = \"{ADMIN}\"\npassword_file = \"{file}\"");
    let cases = [
        (source(&right, &named(&password)), 250),
        (source(&wrong, &named(&password)), 451),
        (source(&right, &named(&guess)), 451),
        // Nobody in particular sees nothing there, and says so: the base is not to be seen.
        (source(&right, ""), 451),
    ];
    for (top, expected) in cases {
        let house = house(REQUIRE, &top, &ca).await;
        assert_eq!(send(&house, "bert@partner.example", "tls").await, expected, "{top}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_our_directory_lists_becomes_an_alias_where_it_may() {
    let ca = authority("Partner CA");
    let people = [
        Person::new("dora@ours.example")
            .also("office@ours.example")
            .also("third@ours.example")
            .also("taken@ours.example"),
        Person::new("evil@partner.example").also("victim@ours.example"),
    ];
    let Some(slapd) = Slapd::start(&people, None) else { return };
    let source = |aliases| {
        ldap(
            &[slapd.address],
            &format!("mode = \"trust\"\nmatch = [\"@ours.example\", \"@partner.example\"]\n{aliases}"),
        )
    };
    let (on, off) = (house(REQUIRE, &source("aliases = true"), &ca).await, house(REQUIRE, &source(""), &ca).await);
    for house in [&on, &off] {
        house.user("dora@ours.example");
        house.partner("evil@partner.example");
        house.add("taken@ours.example", House::expired("taken@ours.example"), false, TrustState::Trusted);
    }
    assert_eq!(send(&off, "office@ours.example", "off").await, 550);
    assert!(off.store.aliases().unwrap().is_empty());
    assert_eq!(send(&on, "office@ours.example", "on").await, 250);
    assert!(!on.world.wait(1).await[0].text().contains("the secret"));
    assert_eq!(
        on.store.aliases().unwrap(),
        [(mailbox("office@ours.example").key(), mailbox("dora@ours.example").key())]
    );
    // Mail that comes in for an address is opened with the keys of the mailbox, asked of the directory when it comes.
    let dora = records(&on, "dora@ours.example")[0].certificate.clone();
    on.store.remove_alias(&mailbox("office@ours.example").key()).unwrap();
    let told = Issued { certificate: dora, pkcs8: Vec::new().into() };
    let sealed = sealed_for(&told, &plain("x@else.example", "office@ours.example", "in", "for the office"));
    assert_eq!(on.send_in("x@else.example", &["third@ours.example"], sealed.as_bytes()).await.code, 250);
    let came = on.server.wait(1).await;
    assert!(came[0].text().contains("for the office"), "{}", came[0].text());
    // Neither one with something of his own, nor one whom an entry of another domain claims.
    for to in ["taken@ours.example", "victim@ours.example"] {
        assert_eq!(send(&on, to, "no").await, 550, "{to}");
    }
    let aliases: Vec<String> = on.store.aliases().unwrap().iter().map(|(alias, _)| alias.to_string()).collect();
    assert_eq!(aliases, ["third@ours.example"]);
}

/// The mail as OpenSSL encrypts it.
fn sealed_for(who: &Issued, mail: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, plain) = (folder.path().join("c.pem"), folder.path().join("m"));
    std::fs::write(&certificate, pem("CERTIFICATE", who.certificate.der())).unwrap();
    std::fs::write(&plain, mail).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args([
        "cms",
        "-encrypt",
        "-aes256",
        "-from",
        "x@else.example",
        "-to",
        "office@ours.example",
        "-subject",
        "in",
    ]);
    let output = openssl.arg("-in").arg(plain).arg(certificate).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

/// A record in a zone file.
fn record(address: &str, said: &Association) -> String {
    format!("{}. IN SMIMEA {said}\n", smimea::names(&mailbox(address))[0])
}

fn whole(address: &str, one: &Issued) -> String {
    record(address, &Association::of(&one.certificate, Usage::DaneEe, Selector::Certificate, Matching::Exact))
}

#[tokio::test(flavor = "multi_thread")]
async fn t09_what_a_signed_zone_says_counts_and_nothing_else() {
    let (ca, stranger) = (authority("Partner CA"), authority("Stranger"));
    let at = |local: &str| format!("{local}@partner.example");
    let bert = certificate(&at("bert"), &ca);
    let own = certificate(&at("own"), &stranger);
    let many: Vec<Issued> = (0..8).map(|_| certificate(&at("many"), &ca)).collect();
    let mut zone = whole(&at("bert"), &bert)
        + &whole(&at("own"), &own)
        + &whole(&at("expired"), &expired(&at("expired"), &ca))
        + &whole(&at("foreign"), &certificate("other@partner.example", &ca))
        + &format!("{}. IN SMIMEA 9 9 9 00\n", smimea::names(&mailbox(&at("odd")))[0]);
    zone.extend(many.iter().map(|one| whole(&at("many"), one)));
    let (unsigned, bogus) = (certificate("bert@unsigned.example", &ca), certificate("bert@bogus.example", &ca));
    let zones = [
        ("partner.example", Signed::Well, zone.as_str()),
        ("unsigned.example", Signed::Not, &whole("bert@unsigned.example", &unsigned)),
        ("bogus.example", Signed::WithAnother, &whole("bert@bogus.example", &bogus)),
    ];
    let Some(named) = Named::start(&zones) else { return };
    let (prefer, require, alone) = (
        house(PREFER, &dns(&named, ""), &ca).await,
        house(REQUIRE, &dns(&named, ""), &ca).await,
        house(REQUIRE, &dns(&named, "dane_alone = true"), &ca).await,
    );
    // Under `require`, under `prefer`, and under `require` where DANE-EE records stand for themselves.
    let cases = [
        (at("bert"), 250, 250, 250),
        // Over UDP it does not fit.
        (at("many"), 250, 250, 250),
        (at("own"), 550, 550, 250),
        (at("expired"), 550, 550, 550),
        (at("odd"), 451, 451, 451),
        (at("foreign"), 550, 250, 550),
        (at("nobody"), 550, 250, 550),
        ("bert@unsigned.example".to_owned(), 550, 250, 550),
        ("nobody@unsigned.example".to_owned(), 550, 250, 550),
        ("bert@bogus.example".to_owned(), 451, 451, 451),
        ("nobody@bogus.example".to_owned(), 451, 451, 451),
    ];
    for (to, required, preferred, by_itself) in &cases {
        assert_eq!(send(&require, to, "r").await, *required, "{to} under require");
        assert_eq!(send(&prefer, to, "p").await, *preferred, "{to} under prefer");
        assert_eq!(send(&alone, to, "a").await, *by_itself, "{to} where DANE-EE stands for itself");
    }
    let by_recipient = |house: &House| -> HashMap<String, Vec<u8>> {
        house.world.mails().into_iter().map(|mail| (mail.to[0].clone(), mail.message)).collect()
    };
    require.world.wait(2).await;
    let left = by_recipient(&require);
    assert_eq!(left.len(), 2);
    assert!(decrypted(&left[&at("bert")], &bert).contains("the secret"));
    alone.world.wait(3).await;
    assert!(decrypted(&by_recipient(&alone)[&at("own")], &own).contains("the secret"));
    prefer.world.wait(6).await;
    let left = by_recipient(&prefer);
    assert!(!String::from_utf8_lossy(&left[&at("bert")]).contains("the secret"));
    assert!(!left.contains_key(&at("own")) && !left.contains_key("bert@bogus.example"));
    let kept = records(&require, &at("bert"));
    assert_eq!((kept[0].trust, kept[0].provenance.source.as_str()), (TrustState::Trusted, "smimea"));
    assert!(kept[0].provenance.detail.ends_with("._smimecert.partner.example 3 0 0"));
    assert_eq!(records(&require, &at("many")).len(), 8);
    assert!(records(&require, "bert@unsigned.example").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_in_the_dns_proves_what_a_directory_brings() {
    let ca = authority("Partner CA");
    let at = |local: &str| format!("{local}@partner.example");
    let (bert, carl, dora) =
        (certificate(&at("bert"), &ca), certificate(&at("carl"), &ca), certificate(&at("dora"), &ca));
    let of = |who: &Issued, usage, selector, matching| Association::of(&who.certificate, usage, selector, matching);
    let zone = record(&at("bert"), &of(&bert, Usage::DaneEe, Selector::PublicKey, Matching::Sha256))
        // Another's.
        + &record(&at("carl"), &of(&bert, Usage::PkixEe, Selector::Certificate, Matching::Sha512))
        // The CA of its path.
        + &record(&at("dora"), &of(&ca, Usage::PkixTa, Selector::Certificate, Matching::Sha256));
    let people: Vec<Person> = [(at("bert"), &bert), (at("carl"), &carl), (at("dora"), &dora)]
        .into_iter()
        .map(|(mail, who)| Person::new(&mail).certificate(who.certificate.der()))
        .collect();
    let (Some(named), Some(slapd)) =
        (Named::start(&[("partner.example", Signed::Well, &zone)]), Slapd::start(&people, None))
    else {
        return;
    };
    // The directory brings candidates; the DNS is believed, in either order.
    let (first, second) = (dns(&named, ""), ldap(&[slapd.address], "mode = \"candidate\""));
    for top in [format!("{first}{second}"), format!("{second}{first}")] {
        let house = house(REQUIRE, &top, &ca).await;
        for (local, expected) in [("bert", 250), ("carl", 550), ("dora", 250)] {
            assert_eq!(send(&house, &at(local), local).await, expected, "{local}\n{top}");
        }
        assert_eq!(records(&house, &at("carl"))[0].trust, TrustState::Pending);
        assert_eq!(records(&house, &at("bert"))[0].trust, TrustState::Trusted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_records_are_found_by_others_and_explain_says_what_sources_say() {
    let ca = authority("Partner CA");
    // Theirs: a gateway that publishes.
    let theirs = House::new().await;
    let bert = theirs.user("dora@ours.example");
    let waxwing = |house: &House, arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_waxwing"))
            .env("WAXWING_CONFIG", house.folder.path().join("waxwing.toml"))
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, printed) = waxwing(&theirs, &["smimea", "publish", "dora@ours.example"]);
    assert_eq!(code, 0);
    let (_, json) =
        waxwing(&theirs, &["smimea", "publish", "dora@ours.example", "--usage", "1", "--matching", "1", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["records"][0]["data"].as_str().unwrap().len(), 64);
    assert_eq!((json["records"][0]["usage"].as_u64(), json["ttl"].as_u64()), (Some(1), Some(3_600)));
    assert_eq!(waxwing(&theirs, &["smimea", "publish", "nobody@ours.example"]).0, 1);
    let Some(named) = Named::start(&[("ours.example", Signed::Well, &printed)]) else { return };
    // Ours: one that looks.
    let top = dns(&named, "match = [\"@ours.example\"]");
    let house = house(PREFER, &top, &ca).await;
    house.store.add_trust(theirs.ca.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    let mail = house.folder.path().join("mail.eml");
    std::fs::write(&mail, plain(ANNA, "dora@ours.example", "x", "y")).unwrap();
    let mail = mail.display().to_string();
    let explain = ["policy", "explain", &mail, "--from", ANNA, "--to", "dora@ours.example", "--listener", "out"];
    let (code, said) = waxwing(&house, &explain);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("deferred") && said.contains("--discover"), "{said}");
    let (code, said) = waxwing(&house, &[&explain[..], &["--discover"]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("encrypted with") && said.contains("source dns: "), "{said}");
    assert!(records(&house, "dora@ours.example").is_empty(), "explaining stores nothing");
    assert_eq!(send(&house, "dora@ours.example", "z").await, 250);
    assert_eq!(records(&house, "dora@ours.example")[0].certificate, bert);
    assert!(!house.world.wait(1).await[0].text().contains("the secret"));
}

/// A listener whose users a directory knows.
fn users_by(server: SocketAddr, more: &str) -> String {
    format!(
        "[default]\nsign = \"if-key\"\n[[listener]]\nname = \"submission\"\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\n\
         auth_without_tls = true\n[listener.ldap_users]\nservers = [\"ldap://{server}\"]\ntls = \"off\"\ntimeout = \"20 s\"\n{more}\n"
    )
}

async fn log_in(house: &House, user: &str, password: &str) -> (Client, u16) {
    let mut client = Client::connect(house.gateway.address("submission").unwrap()).await;
    let response = STANDARD.encode(format!("\0{user}\0{password}"));
    let code = client.say(&format!("AUTH PLAIN {response}")).await.code;
    (client, code)
}

/// Of the mails that these authors send, those that leave signed.
async fn signed<'a>(house: &House, client: &mut Client, authors: &[&'a str]) -> Vec<&'a str> {
    house.world.clear();
    for author in authors {
        let said =
            client.send(author, &["x@else.example"], plain(author, "x@else.example", author, "y").as_bytes()).await;
        assert_eq!(said.code, 250, "{}", said.octets);
    }
    let mails = house.world.wait(authors.len()).await;
    let is_signed = |author: &&&str| {
        let subject = format!("Subject: {author}\r\n");
        mails.iter().any(|mail| mail.text().contains(&subject) && mail.text().contains("pkcs7-signature"))
    };
    authors.iter().filter(is_signed).copied().collect()
}

/// Who may authenticate, and in whose name he signs, is the directory's word; without it nobody is anybody.
#[tokio::test(flavor = "multi_thread")]
async fn a31_a21_a_directory_says_who_a_user_is_and_which_addresses_are_his() {
    const ALIAS: &str = "a.alias@ours.example";
    const CARL: &str = "carl@ours.example";
    let people = [
        Person::new(ANNA).also(ALIAS).line("userPassword: correct horse"),
        Person::new(CARL).line("userPassword: other horse"),
        Person::new("boss@ours.example").line("userPassword: third horse"),
        Person::new("boss@ours.example").line("userPassword: third horse"),
    ];
    let Some(slapd) = Slapd::start(&people, None) else { return };
    let ca = authority("Nobody's");
    let with_keys = async |policy: &str| {
        let house = house(policy, "", &ca).await;
        [ANNA, ALIAS, CARL].into_iter().for_each(|one| drop(house.user(one)));
        house
    };
    // Searched for by whoever may search.
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let search = format!("base = \"{BASE}\"\nbind_dn = \"{ADMIN}\"\npassword_file = \"{}\"", password.display());
    let by_search = with_keys(&users_by(slapd.address, &search)).await;
    let (mut client, code) = log_in(&by_search, "Anna@ours.example", "correct horse").await;
    assert_eq!(code, 235);
    assert_eq!(signed(&by_search, &mut client, &[ANNA, ALIAS, CARL]).await, [ANNA, ALIAS]);
    for (user, password, expected) in [
        (CARL, "correct horse", 535),
        ("nobody@ours.example", "correct horse", 535),
        // An empty password would be an anonymous bind, which succeeds: nobody is asked.
        (ANNA, "", 501),
        // Two entries: it is not known who he is.
        ("boss@ours.example", "third horse", 454),
    ] {
        assert_eq!(log_in(&by_search, user, password).await.1, expected, "{user}");
    }
    let mut client = Client::connect(by_search.gateway.address("submission").unwrap()).await;
    assert!(client.say("EHLO again").await.octets.contains("AUTH PLAIN LOGIN\r\n"));
    assert_eq!(client.say("AUTH SCRAM-SHA-256").await.code, 504);
    assert_eq!(client.say("AUTH LOGIN").await.code, 334);
    assert_eq!(client.say(&STANDARD.encode(CARL)).await.code, 334);
    assert_eq!(client.say(&STANDARD.encode("other horse")).await.code, 235);
    // By the name of his entry: what he calls himself there is not his address.
    let by_name = with_keys(&users_by(slapd.address, "dn = \"cn={local},dc=example\"")).await;
    let (mut client, code) = log_in(&by_name, "p1@anna.example", "other horse").await;
    assert_eq!(code, 235);
    assert_eq!(signed(&by_name, &mut client, &[ANNA, CARL]).await, [CARL]);
    // The directory is away: nobody knows, and a right password is no wrong one.
    drop(slapd);
    assert_eq!(log_in(&by_search, ANNA, "correct horse").await.1, 454);
}

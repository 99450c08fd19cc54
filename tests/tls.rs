//! TLS end to end, with real handshakes: clients at our listeners, and next hops with certificates good and bad. What policy or the
//! configuration wants under TLS never goes in clear: it waits in the spool.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "server")]

mod support;

/// Clients with certificates.
#[path = "tls/tenant.rs"]
mod tenant;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use support::Sink;
use support::house::{House, Plan, plain};
use support::mx::{Mx, StartTls};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@partner.example";
const CANARY: &str = "canary-7f3a";
/// Goes on in the section `[retry]`.
const CLEAR: &str = "longest = \"1 s\"\n[default]\nencrypt = \"never\"\n";

fn authority(name: &str) -> Issued {
    issue(&Recipe::authority(name, Timestamp::now(), NewKey::P256), None)
}

/// A server's certificate for `localhost`.
fn server_recipe() -> Recipe {
    let mut recipe = Recipe::mailbox("localhost", Timestamp::now(), NewKey::P256);
    recipe.mailboxes = Vec::new();
    recipe.hosts = vec!["localhost".into()];
    recipe.key_usage = vec!["digitalSignature"];
    recipe.email_protection = Some(false);
    recipe
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn write_certificate(folder: &Path, name: &str, issued: &Issued) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, pem("CERTIFICATE", issued.certificate.der())).unwrap();
    file
}

// ---- Next hops

/// A gateway whose outbound mail goes to `mx` with this `tls`.
async fn house(mx: &Mx, tls: &str, ca: Option<&Path>) -> House {
    let ca = ca.map(|file| format!("ca = \"{}\"", file.display())).unwrap_or_default();
    let hop = format!("host = \"localhost\"\ntls = \"{tls}\"\n{ca}");
    let plan = Plan { policy: CLEAR, hop: &hop, ..Plan::default() };
    House::between(&plan, Sink::start().await, Sink::start().await, mx.address, Sink::start().await.address).await
}

async fn send(house: &House) {
    let answer = house.send_out(ANNA, &[BERT], &plain(ANNA, BERT, "tls", CANARY)).await;
    assert_eq!(answer.code, 250, "{answer:?}");
}

/// Nothing but greetings went in clear: no address, no word of the mail.
fn nothing_in_clear(mx: &Mx) {
    let clear = mx.clear();
    for line in clear.lines() {
        // A ClientHello may have a line end in it.
        let hello = line.starts_with('\u{16}');
        assert!(hello || ["EHLO gw.ours.example", "STARTTLS", "QUIT"].contains(&line), "{clear}");
    }
    assert!(!clear.contains(CANARY) && !clear.contains("partner.example"), "{clear}");
}

/// A case: the `tls` of the configuration, how the server behaves, with what.
async fn waits_in_the_spool(
    case: &str,
    tls: &str,
    ca: Option<&Path>,
    start: StartTls,
    identity: Option<&Issued>,
) -> (Mx, House) {
    let mx = Mx::start(start, identity).await;
    let house = house(&mx, tls, ca).await;
    send(&house).await;
    // RCPT's try, the spool's first, and its second.
    mx.until(|state| state.connections >= 3).await;
    nothing_in_clear(&mx);
    assert_eq!(mx.sealed(), "", "{case}");
    assert_eq!(house.gateway.spool().entries().len(), 1, "{case}");
    (mx, house)
}

#[tokio::test]
async fn verified_sends_to_a_good_certificate_and_only_under_tls() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority("Hop CA");
    let file = write_certificate(folder.path(), "ca.pem", &ca);
    let mx = Mx::start(StartTls::Done, Some(&issue(&server_recipe(), Some(&ca)))).await;
    let house = house(&mx, "verified", Some(&file)).await;
    send(&house).await;
    assert!(mx.sealed().contains(CANARY), "{}", mx.sealed());
    nothing_in_clear(&mx);
    assert!(house.gateway.spool().entries().is_empty());
}

#[tokio::test]
async fn verified_refuses_every_bad_certificate_and_the_mail_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (authority("Hop CA"), authority("Other CA"));
    let file = write_certificate(folder.path(), "ca.pem", &ca);
    let (now, day) = (Timestamp::now(), SignedDuration::from_hours(24));
    let wrong_name = Recipe { hosts: vec!["mx.partner.example".into()], ..server_recipe() };
    let no_name = Recipe { hosts: Vec::new(), ..server_recipe() };
    let expired = Recipe { not_before: now - day * 20, not_after: now - day * 10, ..server_recipe() };
    let not_yet = Recipe { not_before: now + day, not_after: now + day * 10, ..server_recipe() };
    let for_mail = Recipe { email_protection: Some(true), ..server_recipe() };
    let cases = [
        ("wrong name", issue(&wrong_name, Some(&ca))),
        ("no name", issue(&no_name, Some(&ca))),
        ("unknown issuer", issue(&server_recipe(), Some(&other))),
        ("self-signed", issue(&server_recipe(), None)),
        ("expired", issue(&expired, Some(&ca))),
        ("not yet valid", issue(&not_yet, Some(&ca))),
        ("not for servers", issue(&for_mail, Some(&ca))),
    ];
    let mut waiting = tokio::task::JoinSet::new();
    for (case, identity) in cases {
        let file = file.clone();
        waiting.spawn(async move {
            waits_in_the_spool(case, "verified", Some(&file), StartTls::Done, Some(&identity)).await
        });
    }
    // The server mends its certificate: what waited goes out, still verified.
    let good = issue(&server_recipe(), Some(&ca));
    for (mx, house) in waiting.join_all().await {
        mx.becomes(StartTls::Done, &good);
        mx.until(|state| state.sealed.contains(CANARY)).await;
        nothing_in_clear(&mx);
        house.settled().await;
    }
}

#[tokio::test]
async fn a17_without_starttls_required_and_verified_send_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority("Hop CA");
    let file = write_certificate(folder.path(), "ca.pem", &ca);
    let good = issue(&server_recipe(), Some(&ca));
    let mut waiting = tokio::task::JoinSet::new();
    for tls in ["required", "verified"] {
        for (case, start) in [
            ("not offered", StartTls::Stripped),
            ("refused for now", StartTls::Answer("454 4.7.0 not now\r\n")),
            ("refused", StartTls::Answer("502 5.5.1 what\r\n")),
            ("no TLS after 220", StartTls::Answer("220 go\r\n250 injected\r\n")),
            ("talks on in clear", StartTls::Answer("220 go\r\n")),
        ] {
            let (file, good) = (file.clone(), good.clone());
            let ca = (tls == "verified").then_some(file);
            waiting.spawn(async move { waits_in_the_spool(case, tls, ca.as_deref(), start, Some(&good)).await });
        }
    }
    for (mx, house) in waiting.join_all().await {
        mx.becomes(StartTls::Done, &good);
        mx.until(|state| state.sealed.contains(CANARY)).await;
        nothing_in_clear(&mx);
        house.settled().await;
    }
}

#[tokio::test]
async fn required_takes_any_certificate_and_opportunistic_sends_in_clear_where_there_is_no_tls() {
    let self_signed = issue(&Recipe { hosts: vec!["elsewhere.example".into()], ..server_recipe() }, None);
    for tls in ["required", "opportunistic"] {
        let mx = Mx::start(StartTls::Done, Some(&self_signed)).await;
        send(&house(&mx, tls, None).await).await;
        assert!(mx.sealed().contains(CANARY), "{tls}");
        nothing_in_clear(&mx);
    }
    let mx = Mx::start(StartTls::Stripped, None).await;
    send(&house(&mx, "opportunistic", None).await).await;
    assert!(mx.clear().contains(CANARY), "the canary is seen where it does go in clear");
}

// ---- Listeners

struct Peer<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    async fn hear(&mut self) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).await.unwrap() > 0, "closed after {all:?}");
            all.push_str(&line);
            if line.get(3..4) == Some(" ") {
                return all;
            }
        }
    }
    async fn say(&mut self, text: &str) -> String {
        self.stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
        self.hear().await
    }
    /// A whole mail.
    async fn mail(&mut self) {
        assert!(!self.say("EHLO client.example").await.contains("STARTTLS"), "never offered inside TLS");
        for (said, code) in
            [(format!("MAIL FROM:<{ANNA}>"), "250"), (format!("RCPT TO:<{BERT}>"), "250"), ("DATA".into(), "354")]
        {
            let answer = self.say(&said).await;
            assert!(answer.starts_with(code), "{said}: {answer}");
        }
        let answer = self.say(&format!("{}.", plain(ANNA, BERT, "tls", CANARY))).await;
        assert!(answer.starts_with("250"), "{answer}");
    }
}

/// A house with listeners `starttls`, `required` and `implicit`, whose certificate is of `ca`.
async fn listeners(folder: &Path, ca: &Issued) -> House {
    let issued = issue(&server_recipe(), Some(ca));
    let certificate = write_certificate(folder, "tls.pem", &issued);
    let key = folder.join("tls.key");
    fs::write(&key, pem("PRIVATE KEY", &issued.pkcs8)).unwrap();
    let one = |name: &str, tls: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\ntrusted_networks = [\"127.0.0.0/8\"]\ntls = \"{tls}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            certificate.display(),
            key.display()
        )
    };
    let policy = format!(
        "{CLEAR}{}{}{}",
        one("starttls", "starttls"),
        one("required", "starttls-required"),
        one("implicit", "implicit")
    );
    House::with_policy(&policy).await
}

async fn connect(house: &House, listener: &str) -> TcpStream {
    TcpStream::connect(house.gateway.address(listener).unwrap()).await.unwrap()
}

/// A handshake as a careful client does it.
async fn shake_hands(
    stream: TcpStream,
    ca: &Issued,
    name: &'static str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.certificate.der().to_vec())).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await
}

#[tokio::test]
async fn a_mail_comes_in_over_starttls_and_implicit_tls() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority("Listener CA");
    let house = listeners(folder.path(), &ca).await;
    for (count, listener) in ["starttls", "required", "implicit"].into_iter().enumerate() {
        let stream = connect(&house, listener).await;
        let (stream, greeted) = if listener == "implicit" {
            (stream, false)
        } else {
            let mut peer = Peer { stream: BufReader::new(stream) };
            assert!(peer.hear().await.starts_with("220 "));
            assert!(peer.say("EHLO client.example").await.contains("STARTTLS"));
            let answer = peer.say(&format!("MAIL FROM:<{ANNA}>")).await;
            assert!(answer.starts_with(if listener == "required" { "530" } else { "250" }), "{answer}");
            assert!(peer.say("STARTTLS").await.starts_with("220"));
            (peer.stream.into_inner(), true)
        };
        let stream = shake_hands(stream, &ca, "localhost").await.unwrap();
        let mut peer = Peer { stream: BufReader::new(stream) };
        if !greeted {
            assert!(peer.hear().await.starts_with("220 "));
        }
        peer.mail().await;
        let came = house.world.wait(count + 1).await;
        let text = came[count].text();
        assert!(text.contains(CANARY) && text.contains("with ESMTPS id"), "{text}");
    }
}

#[tokio::test]
async fn our_certificate_is_what_the_client_checks() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority("Listener CA");
    let house = listeners(folder.path(), &ca).await;
    let (good, name, issuer) = (
        shake_hands(connect(&house, "implicit").await, &ca, "localhost").await,
        shake_hands(connect(&house, "implicit").await, &ca, "other.example").await,
        shake_hands(connect(&house, "implicit").await, &authority("Other CA"), "localhost").await,
    );
    assert!(good.is_ok() && name.is_err() && issuer.is_err());
    // A client that talks SMTP to implicit TLS learns nothing, and the listener goes on.
    let mut plain = connect(&house, "implicit").await;
    plain.write_all(b"EHLO client.example\r\n").await.unwrap();
    let mut heard = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut heard).await;
    assert!(!heard.starts_with(b"220"), "{heard:?}");
    assert!(shake_hands(connect(&house, "implicit").await, &ca, "localhost").await.is_ok());
}

// ---- The configuration

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_stops_the_start_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ca = write_certificate(folder.path(), "ca.pem", &authority("Hop CA"));
    fs::write(folder.path().join("empty.pem"), "").unwrap();
    let config = |ca: &Path| {
        let text = format!(
            "hostname = \"gw.ours.example\"\ndomains = [\"ours.example\"]\nstore = \"store\"\nkek = \"kek\"\nspool = \"spool\"\n[[listener]]\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\ntrusted_networks = [\"127.0.0.0/8\"]\n[next_hop.outbound]\nhost = \"localhost\"\nport = 1\ntls = \"verified\"\nca = \"{}\"\n[next_hop.inbound]\nhost = \"localhost\"\nport = 1\n[default]\nencrypt = \"never\"\n",
            ca.display()
        );
        fs::write(folder.path().join("waxwing.toml"), text).unwrap();
    };
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waxwing"));
        command.arg("--config").arg("waxwing.toml").args(arguments).current_dir(folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A gateway that starts after all would never end.
        let until = Instant::now() + Duration::from_secs(20);
        while child.try_wait().unwrap().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        (
            output.status.code().unwrap_or(-1),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    config(&ca);
    assert_eq!(run(&["kek", "init", "kek", "--store", "store"]).0, 0);
    let (code, said) = run(&["config", "check"]);
    assert!(code == 0 && !said.contains("next_hop"), "{said}");
    for (name, why) in [("absent.pem", "No such file"), ("empty.pem", "no CA certificate")] {
        config(&folder.path().join(name));
        let (code, said) = run(&["config", "check"]);
        assert!(code == 0 && said.contains("next_hop.outbound") && said.contains(name) && said.contains(why), "{said}");
        let (code, said) = run(&["serve"]);
        assert!(code == 2 && said.contains("next_hop.outbound") && said.contains(name) && said.contains(why), "{said}");
    }
}

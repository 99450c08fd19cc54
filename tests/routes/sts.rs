use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::directory::{free_port, pem};
use crate::names::Signed;
use crate::support::mx::{self, Mx, StartTls};

/// A web server with policies, by host.
#[derive(Clone)]
struct Web {
    port: u16,
    answer: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

fn policy(mode: &str, mx: &str) -> String {
    format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n")
}

impl Web {
    async fn start(last: u8, identity: &Issued, body: &str) -> Self {
        let listener = TcpListener::bind(here(last, 0)).await.unwrap();
        let web = Self { port: listener.local_addr().unwrap().port(), answer: Arc::default(), asked: Arc::default() };
        web.says(200, "text/plain", body);
        let (serving, acceptor) = (web.clone(), TlsAcceptor::from(mx::server(&[identity])));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (web, acceptor) = (serving.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await.ok()?);
                    }
                    web.asked.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                    let answer = web.answer.lock().unwrap().clone();
                    stream.write_all(answer.as_bytes()).await.ok()?;
                    stream.shutdown().await.ok()
                });
            }
        });
        web
    }

    fn says(&self, code: u16, kind: &str, body: &str) {
        let (length, location) = (body.len(), if code == 302 { "Location: /elsewhere\r\n" } else { "" });
        *self.answer.lock().unwrap() = format!(
            "HTTP/1.1 {code} said\r\nContent-Type: {kind}\r\n{location}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

struct Place {
    ca: Issued,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, file) = (authority("Web CA"), folder.path().join("ca.pem"));
        std::fs::write(&file, pem("CERTIFICATE", ca.certificate.der())).unwrap();
        Self { ca, file, _folder: folder }
    }

    fn top(&self, named: &Named, port: u16, web: &Web) -> String {
        let ca = self.file.display();
        by_mx(
            named,
            port,
            &format!("ca = \"{ca}\""),
            &format!("timeout = \"10 s\"\nmta_sts_port = {}\nmta_sts_ca = \"{ca}\"", web.port),
        )
    }
}

fn zone(last: u8, web: u8, id: &str) -> String {
    format!(
        "@ IN MX 10 mx\nmx IN A 127.0.0.{last}\nmta-sts IN A 127.0.0.{web}\n_mta-sts IN TXT \"v=STSv1; id={id};\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_in_force_is_held_to_and_one_in_testing_bars_nothing() {
    let place = Place::new();
    let port = free_port();
    let zones: Vec<String> = (0..7).map(|at| zone(60 + at, 59, "1")).collect();
    let names: Vec<String> = (0..7).map(|at| format!("d{at}.example")).collect();
    let zones: Vec<(&str, Signed, &str)> =
        names.iter().zip(&zones).map(|(name, text)| (name.as_str(), Signed::Not, text.as_str())).collect();
    let Some(named) = Named::start(&zones) else { return };
    let cases = [
        // The policy, the name in the certificate, STARTTLS; whether the mail comes.
        ("enforce", "mx.d0.example", "mx.d0.example", StartTls::Done, true),
        ("enforce", "*.d1.example", "mx.d1.example", StartTls::Done, true),
        ("enforce", "mx.d2.example", "mx.elsewhere.example", StartTls::Done, false),
        ("enforce", "other.d3.example", "mx.d3.example", StartTls::Done, false),
        ("enforce", "mx.d4.example", "mx.d4.example", StartTls::Stripped, false),
        ("testing", "other.d5.example", "mx.elsewhere.example", StartTls::Done, true),
        ("none", "other.d6.example", "mx.d6.example", StartTls::Stripped, true),
    ];
    for (at, (mode, allowed, certified, start, comes)) in (0..).zip(cases) {
        let domain = format!("d{at}.example");
        let web = Web::start(59, &server(&format!("mta-sts.{domain}"), Some(&place.ca)), &policy(mode, allowed)).await;
        let mx = Mx::at(here(60 + at, port), start, &[&server(certified, Some(&place.ca))]).await;
        let house = house(&place.top(&named, port, &web)).await;
        assert_eq!(send(&house, &[&format!("a@{domain}")]).await.code, 250, "{domain}");
        if comes {
            house.settled().await;
        } else {
            put_off(&house, "").await;
        }
        let seen = mx.sealed().contains(CANARY) || mx.clear().contains(CANARY);
        assert_eq!(seen, comes, "{domain}: {}", mx.clear());
        assert!(mode != "enforce" || !mx.clear().contains("MAIL"), "{domain}: {}", mx.clear());
        let asked = web.asked.lock().unwrap()[0].to_ascii_lowercase();
        assert!(asked.starts_with("get /.well-known/mta-sts.txt http/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("host: mta-sts.{domain}\r\n")), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_was_fetched_holds_when_it_can_be_fetched_no_more() {
    let place = Place::new();
    let port = free_port();
    let one = |id: &str| [("partner.example", Signed::Not, zone(57, 58, id))];
    let start = |id: &str| {
        let zones = one(id);
        Named::start(&[(zones[0].0, zones[0].1, zones[0].2.as_str())])
    };
    let (Some(first), Some(second)) = (start("1"), start("2")) else { return };
    let web =
        Web::start(58, &server("mta-sts.partner.example", Some(&place.ca)), &policy("enforce", "mx.partner.example"))
            .await;
    let mx = Mx::at(here(57, port), StartTls::Done, &[&server("mx.partner.example", Some(&place.ca))]).await;
    let house = house(&place.top(&first, port, &web)).await;
    assert_eq!(send(&house, &["a@partner.example"]).await.code, 250);
    assert_eq!(send(&house, &["b@partner.example"]).await.code, 250);
    assert_eq!((mx.sealed().matches(CANARY).count(), web.asked()), (2, 1), "fetched once");

    // Another record, and no policy to be had by it; then STARTTLS is stripped. The configuration is read again meanwhile.
    web.says(404, "text/plain", "gone");
    let config = std::fs::read_to_string(house.folder.path().join("waxwing.toml")).unwrap();
    let config = config
        .replace(&first.address.to_string(), &second.address.to_string())
        .replace(&first.anchor.display().to_string(), &second.anchor.display().to_string());
    house.gateway.reads_from(move || {
        waxwing::config::Config::parse(&config, "again.toml", &|_| Err("none".into()))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    });
    house.gateway.reload().await.unwrap();
    mx.becomes(StartTls::Stripped, &server("mx.partner.example", Some(&place.ca)));
    assert_eq!(send(&house, &["c@partner.example"]).await.code, 250);
    put_off(&house, "").await;
    assert!(!mx.clear().contains("MAIL") && web.asked() == 2, "{} {}", web.asked(), mx.clear());
}

#[tokio::test(flavor = "multi_thread")]
async fn dane_holds_where_both_are_and_without_a_policy_to_be_had_mail_goes_as_without() {
    use waxwing::discovery::smimea::{Association, Matching, Selector, Usage};
    let place = Place::new();
    let port = free_port();
    let own = server("mx.both.example", None);
    let tlsa = Association::of(&own.certificate, Usage::DaneEe, Selector::Certificate, Matching::Sha512);
    let both = zone(55, 54, "1") + &format!("_{port}._tcp.mx IN TLSA {tlsa}\n");
    let zones = [("both.example", Signed::Well, both.as_str()), ("none.example", Signed::Not, &zone(56, 53, "1"))];
    let Some(named) = Named::start(&zones) else { return };
    let web =
        Web::start(54, &server("mta-sts.both.example", Some(&place.ca)), &policy("enforce", "other.both.example"))
            .await;
    let (at_both, at_none) = (
        Mx::at(here(55, port), StartTls::Done, &[&own]).await,
        Mx::at(here(56, port), StartTls::Done, &[&server("x.example", None)]).await,
    );
    let house = house(&place.top(&named, port, &web)).await;
    for (domain, mx) in [("both.example", at_both), ("none.example", at_none)] {
        assert_eq!(send(&house, &[&format!("a@{domain}")]).await.code, 250);
        house.settled().await;
        assert!(mx.sealed().contains(CANARY), "{domain}: {}", mx.clear());
    }
}

/// What is no policy, or not from where policies come: the domain's mail goes as that of one without (RFC 8461 section 3.3).
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_counts_from_its_one_place_alone() {
    let place = Place::new();
    let port = free_port();
    let right = |domain: &str| server(&format!("mta-sts.{domain}"), Some(&place.ca));
    let good = policy("enforce", "other.example");
    let padded = format!("{good}{}", "pad: x\r\n".repeat(9_000));
    let cases = [
        // Who answers, with what; whether that is the domain's policy, by which no host gets mail.
        (right("d0.example"), 200, "text/plain; charset=us-ascii", good.as_str(), true),
        (right("d1.example"), 404, "text/plain", &good, false),
        (right("d2.example"), 302, "text/plain", &good, false),
        (right("d3.example"), 200, "text/html", &good, false),
        (right("d4.example"), 200, "text/plain", &good.replace("STSv1", "STSv2"), false),
        (right("d5.example"), 200, "text/plain", &padded, false),
        (right("elsewhere.example"), 200, "text/plain", &good, false),
        (server("mta-sts.d7.example", None), 200, "text/plain", &good, false),
    ];
    let zones: Vec<(String, String)> = (0..8).map(|at| (format!("d{at}.example"), zone(100 + at, 99, "1"))).collect();
    let zones: Vec<(&str, Signed, &str)> =
        zones.iter().map(|(name, text)| (name.as_str(), Signed::Not, text.as_str())).collect();
    let Some(named) = Named::start(&zones) else { return };
    for (at, (identity, code, kind, body, counts)) in (0..).zip(cases) {
        let web = Web::start(99, &identity, "").await;
        web.says(code, kind, body);
        let mx = Mx::at(here(100 + at, port), StartTls::Stripped, &[]).await;
        let house = house(&place.top(&named, port, &web)).await;
        assert_eq!(send(&house, &[&format!("a@d{at}.example")]).await.code, 250, "{at}");
        if counts {
            put_off(&house, "4.7.5").await;
        } else {
            house.settled().await;
        }
        assert_eq!(mx.clear().contains(CANARY), !counts, "{at}: {code} {kind}");
    }
}

/// Who can strip STARTTLS may also say that there is no record of a policy: in a zone that is signed that is proven, or not believed.
#[tokio::test(flavor = "multi_thread")]
async fn that_a_signed_zone_has_a_policy_is_not_told_away() {
    const TXT: u16 = 16;
    let place = Place::new();
    let port = free_port();
    let zones = [
        ("signed.example", Signed::Well, zone(120, 122, "1")),
        ("plain.example", Signed::Well, "@ IN MX 10 mx\nmx IN A 127.0.0.120\n".to_owned()),
        ("unsigned.example", Signed::Not, zone(121, 122, "1")),
    ];
    let zones: Vec<(&str, Signed, &str)> =
        zones.iter().map(|(name, signed, text)| (*name, *signed, text.as_str())).collect();
    let Some(named) = Named::start(&zones) else { return };
    let web =
        Web::start(122, &server("mta-sts.signed.example", Some(&place.ca)), &policy("enforce", "x.example")).await;
    let hosts = [
        Mx::at(here(120, port), StartTls::Stripped, &[]).await,
        Mx::at(here(121, port), StartTls::Stripped, &[]).await,
    ];
    for (at, in_name_of) in [(1, "unsigned.example"), (2, "")] {
        let liar = super::mx::liar(named.address, TXT, in_name_of).await;
        let top = place.top(&named, port, &web).replace(&named.address.to_string(), &liar.to_string());
        let lied_to = house(&top).await;
        // In a zone that is not signed nobody could tell.
        assert_eq!(send(&lied_to, &["a@unsigned.example"]).await.code, 250);
        assert_eq!(hosts[1].clear().matches(CANARY).count(), at, "{}", hosts[1].clear());
        assert_eq!(send(&lied_to, &["a@signed.example"]).await.code, 250);
        put_off(&lied_to, "4.7.0").await;
        assert!(!hosts[0].clear().contains("MAIL"), "{}", hosts[0].clear());
    }
    // Where it is proven that there is none, there is none.
    let honest = house(&place.top(&named, port, &web)).await;
    assert_eq!(send(&honest, &["a@plain.example"]).await.code, 250);
    assert!(hosts[0].clear().contains(CANARY), "{}", hosts[0].clear());
}

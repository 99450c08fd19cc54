//! What came of delivery by MX, in numbers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use waxwing::discovery::smimea::{Association, Matching, Selector, Usage};

use super::*;
use crate::directory::free_port;
use crate::names::Signed;
use crate::support::mx::{Mx, StartTls};

async fn scraped(house: &House) -> String {
    let mut stream = tokio::net::TcpStream::connect(house.gateway.watched_at().unwrap()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_protected_a_connection_and_what_barred_a_host_is_counted() {
    let port = free_port();
    let own = server("mx.dane.example", None);
    let fits = Association::of(&own.certificate, Usage::DaneEe, Selector::PublicKey, Matching::Sha256);
    let other = Association::of(&authority("Other").certificate, Usage::DaneEe, Selector::PublicKey, Matching::Sha256);
    let host = |last: u8, more: &str| format!("@ IN MX 10 mx\nmx IN A 127.0.0.{last}\n{more}");
    let zones = [
        ("dane.example", Signed::Well, host(81, &format!("_{port}._tcp.mx IN TLSA {fits}"))),
        ("wrong.example", Signed::Well, host(82, &format!("_{port}._tcp.mx IN TLSA {other}"))),
        ("stripped.example", Signed::Well, host(83, &format!("_{port}._tcp.mx IN TLSA {other}"))),
        ("clear.example", Signed::Not, host(83, "")),
        ("tls.example", Signed::Not, host(82, "")),
        ("away.example", Signed::Not, host(84, "")),
        ("null.example", Signed::Well, "@ IN MX 0 .".to_owned()),
        ("bogus.example", Signed::WithAnother, host(83, "")),
        // A policy that nobody serves.
        ("policy.example", Signed::Not, host(83, "mta-sts IN A 127.0.0.85\n_mta-sts IN TXT \"v=STSv1; id=1;\"\n")),
    ];
    let zones: Vec<(&str, Signed, &str)> =
        zones.iter().map(|(zone, signed, text)| (*zone, *signed, text.as_str())).collect();
    let Some(named) = Named::start(&zones) else { return };
    let _hosts = [
        Mx::at(here(81, port), StartTls::Done, &[&own]).await,
        Mx::at(here(82, port), StartTls::Done, &[&server("x.example", None)]).await,
        Mx::at(here(83, port), StartTls::Stripped, &[]).await,
    ];
    let sts = free_port();
    let top = by_mx(&named, port, "", &format!("timeout = \"10 s\"\nmta_sts_port = {sts}"))
        + "[metrics]\nlisten = \"127.0.0.1:0\"\n";
    let policy = "longest = \"1 h\"\n[default]\nencrypt = \"never\"\n";
    let house = House::build(&Plan { policy, top: &top, retry: "first = \"1 h\"", ..Plan::default() }).await;
    let text = scraped(&house).await;
    assert!(text.contains("waxwing_mx_look_ups_total{result=\"found\"} 0\n"), "told from the start: {text}");
    for (domain, code) in [
        ("dane", 250),
        ("wrong", 250),
        ("stripped", 250),
        ("clear", 250),
        ("tls", 250),
        ("away", 250),
        ("null", 556),
        ("bogus", 250),
        ("policy", 250),
    ] {
        assert_eq!(send(&house, &[&format!("a@{domain}.example")]).await.code, code, "{domain}");
    }
    // What waits was tried out of the spool too.
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while house.gateway.spool().entries().iter().flat_map(|entry| &entry.recipients).any(|one| one.last.is_none()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap();
    assert_eq!(house.gateway.spool().entries().len(), 4, "wrong, stripped, away, bogus");
    let text = scraped(&house).await;
    let value = |sample: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in {text}")).parse().unwrap()
    };
    let connections = |protection: &str, outcome: &str| {
        let labels = format!("found_by=\"mx\",protection=\"{protection}\",outcome=\"{outcome}\"");
        value(&format!("waxwing_hop_connections_total{{{labels}}}"))
    };
    assert_eq!((connections("dane", "opened"), connections("tls", "opened")), (1, 1));
    assert_eq!(connections("clear", "opened"), 2);
    // A host that failed is set aside at once, and not asked again for the mail that waits.
    assert_eq!((connections("dane", "no_tls"), connections("tls", "unreachable")), (2, 1), "{text}");
    assert_eq!((connections("dane", "unreachable"), connections("tls", "no_tls")), (0, 0), "{text}");
    assert_eq!(value("waxwing_mx_mails_total{outcome=\"answered\"}"), 4);
    assert_eq!(value("waxwing_mx_mails_total{outcome=\"failed\"}"), 3);
    assert_eq!(value("waxwing_mx_hosts_aside"), 3);
    let look_ups = |result: &str| value(&format!("waxwing_mx_look_ups_total{{result=\"{result}\"}}"));
    assert_eq!((look_ups("nowhere"), look_ups("unprotected")), (1, 0));
    assert!(look_ups("found") >= 7 && look_ups("unknown") >= 1, "{text}");
    assert_eq!(value("waxwing_mta_sts_fetches_total{outcome=\"failed\"}"), 1);
    assert_eq!(value("waxwing_mta_sts_fetches_total{outcome=\"done\"}"), 0);
    for (domain, ..) in zones {
        assert!(!text.contains(domain), "{domain} is a label");
    }
}

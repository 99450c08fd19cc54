use waxwing::discovery::smimea::{Association, Matching, Selector, Usage};

use super::*;
use crate::directory::free_port;
use crate::names::Signed;
use crate::support::mx::{Mx, StartTls};

fn record(of: &Issued, usage: Usage) -> Association {
    Association::of(&of.certificate, usage, Selector::PublicKey, Matching::Sha256)
}

/// A domain with one host, its TLSA records, and what the host does.
struct Case {
    zone: &'static str,
    signed: Signed,
    tlsa: Vec<Association>,
    start: StartTls,
    chain: Vec<Issued>,
}

/// What becomes of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    UnderTls,
    InClear,
    /// It waits; the host hears no word of it.
    Not,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_mail_as_its_tlsa_records_say_and_else_in_no_form() {
    use Comes::{InClear, Not, UnderTls};
    let ca = authority("CA");
    let named = |zone: &str| server(&format!("mx.{zone}"), Some(&ca));
    let stranger = server("mx.elsewhere.example", None);
    let case = |zone: &'static str, tlsa: Vec<Association>, start: StartTls, chain: Vec<Issued>| Case {
        zone,
        signed: Signed::Well,
        tlsa,
        start,
        chain,
    };
    let (ee, ta, other_ta) = (named("ee.example"), named("ta.example"), named("other-ta.example"));
    let wrong_name = server("mx.elsewhere.example", Some(&ca));
    let (broken, both) = (named("broken.example"), named("both.example"));
    let pkix = named("pkix.example");
    let bogus = named("bogus.example");
    let unsigned = named("unsigned.example");
    let wrong = named("wrong.example");
    let stripped = named("stripped.example");
    let cases = [
        (case("ee.example", vec![record(&ee, Usage::DaneEe)], StartTls::Done, vec![ee]), UnderTls),
        // Neither its name nor its issuer counts.
        (case("odd.example", vec![record(&stranger, Usage::DaneEe)], StartTls::Done, vec![stranger.clone()]), UnderTls),
        (case("wrong.example", vec![record(&stranger, Usage::DaneEe)], StartTls::Done, vec![wrong]), Not),
        (case("ta.example", vec![record(&ca, Usage::DaneTa)], StartTls::Done, vec![ta, authority("spare")]), Not),
        (
            case("other-ta.example", vec![record(&authority("Other"), Usage::DaneTa)], StartTls::Done, vec![other_ta]),
            Not,
        ),
        (case("name.example", vec![record(&ca, Usage::DaneTa)], StartTls::Done, vec![wrong_name]), Not),
        // One of two that are published for a change of keys.
        (
            case(
                "both.example",
                vec![record(&stranger, Usage::DaneEe), record(&both, Usage::DaneEe)],
                StartTls::Done,
                vec![both],
            ),
            UnderTls,
        ),
        (case("stripped.example", vec![record(&stripped, Usage::DaneEe)], StartTls::Stripped, vec![]), Not),
        (
            case(
                "broken.example",
                vec![record(&broken, Usage::DaneEe)],
                StartTls::Answer("454 4.7.0 not now\r\n"),
                vec![],
            ),
            Not,
        ),
        // What SMTP does not use asks for TLS alone.
        (case("pkix.example", vec![record(&stranger, Usage::PkixEe)], StartTls::Done, vec![pkix]), UnderTls),
        (case("pkix-stripped.example", vec![record(&stranger, Usage::PkixEe)], StartTls::Stripped, vec![]), Not),
        (case("none.example", vec![], StartTls::Stripped, vec![]), InClear),
        (case("none-tls.example", vec![], StartTls::Done, vec![server("x.example", None)]), UnderTls),
        // What nobody signs says nothing.
        (
            Case {
                signed: Signed::Not,
                ..case("unsigned.example", vec![record(&stranger, Usage::DaneEe)], StartTls::Done, vec![unsigned])
            },
            UnderTls,
        ),
        (
            Case {
                signed: Signed::WithAnother,
                ..case("bogus.example", vec![record(&bogus, Usage::DaneEe)], StartTls::Done, vec![bogus])
            },
            Not,
        ),
    ];
    let port = free_port();
    let zones: Vec<(&str, Signed, String)> = (40..)
        .zip(&cases)
        .map(|(last, (case, _))| {
            let tlsa: String = case.tlsa.iter().map(|one| format!("_{port}._tcp.mx IN TLSA {one}\n")).collect();
            (case.zone, case.signed, format!("@ IN MX 10 mx\nmx IN A 127.0.0.{last}\n{tlsa}"))
        })
        .collect();
    let zones: Vec<(&str, Signed, &str)> =
        zones.iter().map(|(zone, signed, text)| (*zone, *signed, text.as_str())).collect();
    let Some(named) = Named::start(&zones) else { return };
    let top = by_mx(&named, port, "", "timeout = \"10 s\"");
    for (last, (case, comes)) in (40..).zip(&cases) {
        let zone = case.zone;
        let chain: Vec<&Issued> = case.chain.iter().collect();
        let mx = Mx::at(here(last, port), case.start, &chain).await;
        let house = house(&top).await;
        assert_eq!(send(&house, &[&format!("a@{zone}")]).await.code, 250, "{zone}");
        match comes {
            Not => put_off(&house, "").await,
            UnderTls | InClear => house.settled().await,
        }
        let seen = (mx.sealed().contains(CANARY), mx.clear().contains(CANARY));
        assert_eq!(seen, (*comes == UnderTls, *comes == InClear), "{zone}: {}", mx.clear());
        if *comes != InClear {
            assert!(!mx.clear().contains("MAIL") && !mx.clear().contains(ANNA), "{zone}: {}", mx.clear());
        }
        if *comes == Not {
            assert!(!mx.sealed().contains("MAIL"), "{zone}: {}", mx.sealed());
        }
        if zone == "ee.example" {
            assert_eq!(mx.seen(|state| state.names.clone()), ["mx.ee.example"], "the name that is asked for");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_in_the_dns_vouches_for_the_host_that_sends_it_along_and_one_wrong_host_does_not_bar_a_right_one() {
    let (ca, stranger) = (authority("CA"), server("mx.partner.example", None));
    let own = server("mx2.partner.example", Some(&ca));
    let port = free_port();
    let (wrong, right) = (record(&ca, Usage::DaneEe), record(&ca, Usage::DaneTa));
    let records = format!(
        "@ IN MX 10 mx\n@ IN MX 20 mx2\nmx IN A 127.0.0.36\nmx2 IN A 127.0.0.37\n\
         _{port}._tcp.mx IN TLSA {wrong}\n_{port}._tcp.mx2 IN CNAME tlsa\ntlsa IN TLSA {right}\n"
    );
    let Some(named) = Named::start(&[("partner.example", Signed::Well, &records)]) else { return };
    let first = Mx::at(here(36, port), StartTls::Done, &[&stranger]).await;
    let second = Mx::at(here(37, port), StartTls::Done, &[&own, &ca]).await;
    let house = house(&by_mx(&named, port, "", "")).await;
    assert_eq!(send(&house, &["a@partner.example"]).await.code, 250);
    house.settled().await;
    assert!(second.sealed().contains(CANARY) && !second.clear().contains("MAIL"), "{}", second.clear());
    assert!(!first.sealed().contains("MAIL") && !first.clear().contains("MAIL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_in_clear_for_one_domain_is_not_used_for_another_that_wants_tls() {
    let ca = authority("CA");
    let own = server("mx.strict.example", Some(&ca));
    let port = free_port();
    let strict =
        format!("@ IN MX 10 mx\nmx IN A 127.0.0.38\n_{port}._tcp.mx IN TLSA {}\n", record(&own, Usage::DaneEe));
    let zones = [
        ("strict.example", Signed::Well, strict.as_str()),
        ("lax.example", Signed::Not, "@ IN MX 10 mx.strict.example."),
    ];
    let Some(named) = Named::start(&zones) else { return };
    let mx = Mx::at(here(38, port), StartTls::Stripped, &[]).await;
    let house = house(&by_mx(&named, port, "", "")).await;
    assert_eq!(send(&house, &["a@lax.example"]).await.code, 250);
    assert_eq!(mx.clear().matches(CANARY).count(), 1, "the way to the host is not proven: its records do not bind");
    assert_eq!(send(&house, &["a@strict.example"]).await.code, 250);
    put_off(&house, "").await;
    assert_eq!(mx.clear().matches(CANARY).count(), 1);
    mx.becomes(StartTls::Done, &own);
    house.settled().await;
    assert_eq!((mx.clear().matches(CANARY).count(), mx.sealed().matches(CANARY).count()), (1, 1));
}

/// Where a domain asks for nothing the route's own `tls` holds, and where it asks for less that is met.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_asks_for_no_less_than_it_says() {
    use Comes::{InClear, Not, UnderTls};
    let folder = tempfile::tempdir().unwrap();
    let ca = authority("CA");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, crate::directory::pem("CERTIFICATE", ca.certificate.der())).unwrap();
    let (own, stranger) = (server("mx.vouched.example", None), server("x.example", None));
    let by_ca = server("mx.known.example", Some(&ca));
    let port = free_port();
    let host = |last: u8| format!("@ IN MX 10 mx\nmx IN A 127.0.0.{last}\n");
    let vouched = format!("{}_{port}._tcp.mx IN TLSA {}\n", host(132), record(&own, Usage::DaneEe));
    // A record that SMTP does not use asks for TLS, with anybody.
    let unusable = format!("{}_{port}._tcp.mx IN TLSA {}\n", host(131), record(&own, Usage::PkixEe));
    let zones = [
        ("clear.example", Signed::Not, host(130)),
        ("any.example", Signed::Not, host(131)),
        ("vouched.example", Signed::Well, vouched),
        ("known.example", Signed::Not, host(133)),
        ("unusable.example", Signed::Well, unusable),
    ];
    let zones: Vec<(&str, Signed, &str)> =
        zones.iter().map(|(name, signed, text)| (*name, *signed, text.as_str())).collect();
    let Some(named) = Named::start(&zones) else { return };
    let hosts = [
        Mx::at(here(130, port), StartTls::Stripped, &[]).await,
        Mx::at(here(131, port), StartTls::Done, &[&stranger]).await,
        Mx::at(here(132, port), StartTls::Done, &[&own]).await,
        Mx::at(here(133, port), StartTls::Done, &[&by_ca]).await,
    ];
    let verified = format!("tls = \"verified\"\nca = \"{}\"", file.display());
    for (tls, comes) in [
        ("", [InClear, UnderTls, UnderTls, UnderTls, UnderTls]),
        ("tls = \"required\"", [Not, UnderTls, UnderTls, UnderTls, UnderTls]),
        (verified.as_str(), [Not, Not, UnderTls, UnderTls, Not]),
    ] {
        let house = house(&by_mx(&named, port, tls, "timeout = \"10 s\"")).await;
        for (at, comes) in comes.into_iter().enumerate() {
            let (zone, mx) = (zones[at].0, if at == 4 { &hosts[1] } else { &hosts[at] });
            let heard = |word: &str| [mx.sealed().matches(word).count(), mx.clear().matches(word).count()];
            let (mails, begun) = (heard(CANARY), heard("MAIL FROM"));
            assert_eq!(send(&house, &[&format!("a@{zone}")]).await.code, 250, "{zone}");
            match comes {
                Not => put_off(&house, "").await,
                UnderTls | InClear => house.settled().await,
            }
            for entry in house.gateway.spool().entries() {
                house.gateway.spool().delete(entry.id).await.unwrap();
            }
            let more = [usize::from(comes == UnderTls), usize::from(comes == InClear)];
            assert_eq!(heard(CANARY), [mails[0] + more[0], mails[1] + more[1]], "{zone} with {tls}");
            assert!(comes != Not || heard("MAIL FROM") == begun, "{zone} with {tls}");
        }
    }
}

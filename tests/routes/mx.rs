use std::sync::Arc;

use tokio::net::UdpSocket;

use super::*;
use crate::directory::free_port;
use crate::names::Signed;
use crate::support::mx::{Mx, StartTls};

async fn plain_mx(last: u8, port: u16) -> Mx {
    Mx::at(here(last, port), StartTls::Stripped, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_to_the_best_host_there_is_and_what_is_impossible_is_said_at_once() {
    let records = "@ IN MX 20 second\n@ IN MX 10 first\nfirst IN A 127.0.0.21\nsecond IN A 127.0.0.22\n\
         implicit IN A 127.0.0.22\nalias IN CNAME implicit\nnull IN MX 0 .\nempty IN TXT \"nothing\"\n\
         dead IN MX 10 nowhere.partner.example.\ndead IN MX 20 empty.partner.example.\n\
         loop IN MX 10 gw.ours.example.\nloop IN MX 20 second\n\
         relay IN MX 20 gw.ours.example.\nrelay IN MX 10 second\nrelay IN MX 30 first";
    let Some(named) = Named::start(&[("partner.example", Signed::Well, records)]) else { return };
    let port = free_port();
    let second = plain_mx(22, port).await;
    let house = house(&by_mx(&named, port, "mta_sts = false", "")).await;
    let canaries = |mx: &Mx| mx.clear().matches(CANARY).count();
    // The best host is not there.
    assert_eq!(send(&house, &["a@partner.example"]).await.code, 250);
    assert_eq!(canaries(&second), 1, "{}", second.clear());
    for (count, domain) in [(2, "implicit"), (3, "alias"), (4, "relay")] {
        assert_eq!(send(&house, &[&format!("a@{domain}.partner.example")]).await.code, 250, "{domain}");
        assert_eq!(canaries(&second), count, "{domain}: {:?}", house.gateway.spool().entries());
    }
    for (domain, code, status) in [
        ("null.partner.example", 556, "5.1.10"),
        ("nobody.partner.example", 550, "5.1.2"),
        ("empty.partner.example", 550, "5.1.2"),
        ("dead.partner.example", 550, "5.4.4"),
    ] {
        let said = send(&house, &[&format!("a@{domain}")]).await;
        assert!(said.code == code && said.octets.contains(status), "{domain}: {}", said.octets);
    }
    assert!(house.gateway.spool().entries().is_empty());
    // Together with another the spool takes it: its sender, who is ours, is told.
    assert_eq!(send(&house, &["a@partner.example", "a@null.partner.example"]).await.code, 250);
    let told = house.server.wait(1).await;
    assert!(told[0].text().contains("Status: 5.1.10") && told[0].to == [ANNA], "{}", told[0].text());
    house.settled().await;
    assert_eq!(canaries(&second), 5);
    // Back from the dead, the best host is tried with one mail, and gets the rest.
    let first = plain_mx(21, port).await;
    tokio::time::timeout(Duration::from_secs(60), async {
        while canaries(&first) == 0 {
            assert_eq!(send(&house, &["a@partner.example"]).await.code, 250);
        }
    })
    .await
    .expect("the best host is never tried again");
    // A loop waits for whoever mends it.
    assert_eq!(send(&house, &["a@loop.partner.example"]).await.code, 250);
    put_off(&house, "4.4.6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_and_broken_answers_put_mail_off_and_lose_none() {
    let good = "@ IN MX 10 mx\nmx IN A 127.0.0.31";
    let circles = "@ IN MX 10 one\none IN CNAME two\ntwo IN CNAME one\nprivate IN MX 10 mx.private\nmx.private IN A 127.0.0.31\n\
         many IN A 127.0.0.31";
    let many: String =
        (0..60).map(|number| format!("many IN MX {number} h{number}.many\nh{number}.many IN A 127.0.0.32\n")).collect();
    let zones = [
        ("partner.example", Signed::Well, good),
        ("bogus.example", Signed::WithAnother, good),
        ("hostile.example", Signed::Not, &format!("{circles}\n{many}")),
    ];
    let Some(named) = Named::start(&zones) else { return };
    let port = free_port();
    let mx = plain_mx(31, port).await;
    for (domain, why) in
        [("bogus.example", "DNSSEC"), ("hostile.example", "one.hostile.example"), ("many.hostile.example", ":")]
    {
        let house = house(&by_mx(&named, port, "", "")).await;
        assert_eq!(send(&house, &[&format!("a@{domain}")]).await.code, 250, "{domain}");
        put_off(&house, why).await;
    }
    let top = by_mx(&named, port, "", "").replace("private_addresses = true", "");
    for domain in ["private.hostile.example", "[127.0.0.1]"] {
        let house = house(&top).await;
        assert_eq!(send(&house, &[&format!("a@{domain}")]).await.code, 250, "{domain}");
        put_off(&house, "private addresses").await;
    }
    // Nobody answers.
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let top = by_mx(&named, port, "", "timeout = \"300 ms\"")
        .replace(&named.address.to_string(), &dead.local_addr().unwrap().to_string());
    let house = house(&top).await;
    assert_eq!(send(&house, &["a@partner.example"]).await.code, 250);
    put_off(&house, "4.4.3").await;
    assert_eq!(mx.seen(|state| state.connections), 0);
}

/// Asks `server` for all but questions of one type, to which it says that there is nothing: in the name of a zone that is not signed, or of none (`""`).
pub(super) async fn liar(server: SocketAddr, kind: u16, zone: &str) -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    let labels = |name: &str| {
        let labels =
            name.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
        labels.chain([0]).collect::<Vec<u8>>()
    };
    let in_name_of = u8::from(!zone.is_empty());
    let soa = if zone.is_empty() {
        Vec::new()
    } else {
        let data = [labels("ns.example"), labels("admin.example"), [0, 0, 0, 1].repeat(5)].concat();
        let fixed = [0, 6, 0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap()];
        [labels(zone), fixed.to_vec(), data].concat()
    };
    tokio::spawn(async move {
        let mut question = [0; 4096];
        loop {
            let (length, asker) = socket.recv_from(&mut question).await.unwrap();
            let asked = question[..length].to_vec();
            let end = 12 + asked[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
            let (socket, soa) = (socket.clone(), soa.clone());
            if asked[end - 4..end - 2] == kind.to_be_bytes() {
                let head = [asked[0], asked[1], 0x81, 0x80, 0, 1, 0, 0, 0, in_name_of, 0, 0];
                let lie = [&head[..], &asked[12..end], &soa].concat();
                socket.send_to(&lie, asker).await.unwrap();
                continue;
            }
            tokio::spawn(async move {
                let forward = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                forward.send_to(&asked, server).await.unwrap();
                let mut answer = [0; 4096];
                let (length, _) = forward.recv_from(&mut answer).await.unwrap();
                socket.send_to(&answer[..length], asker).await.unwrap();
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_signed_zone_has_is_not_told_away_in_the_name_of_another() {
    const MX: u16 = 15;
    const TLSA: u16 = 52;
    let ca = authority("CA");
    let own = server("mx.partner.example", Some(&ca));
    let port = free_port();
    let record = waxwing::discovery::smimea::Association::of(
        &own.certificate,
        waxwing::discovery::smimea::Usage::DaneEe,
        waxwing::discovery::smimea::Selector::PublicKey,
        waxwing::discovery::smimea::Matching::Sha256,
    );
    let records = format!("@ IN MX 10 mx\n@ IN A 127.0.0.33\nmx IN A 127.0.0.34\n_{port}._tcp.mx IN TLSA {record}");
    let zones =
        [("partner.example", Signed::Well, records.as_str()), ("unsigned.example", Signed::Not, "x IN A 127.0.0.1")];
    let Some(named) = Named::start(&zones) else { return };
    // An attacker in between who strips STARTTLS too.
    let (at_domain, at_mx) = (plain_mx(33, port).await, plain_mx(34, port).await);
    for kind in [TLSA, MX] {
        let liar = liar(named.address, kind, "unsigned.example").await;
        let top = by_mx(&named, port, "mta_sts = false", "timeout = \"2 s\"")
            .replace(&named.address.to_string(), &liar.to_string());
        let house = house(&top).await;
        assert_eq!(send(&house, &["a@partner.example"]).await.code, 250);
        put_off(&house, "45").await;
    }
    for mx in [at_domain, at_mx] {
        assert!(!mx.clear().contains(CANARY) && !mx.clear().contains("MAIL"), "{}", mx.clear());
    }
}

//! `docs/guides/world.md`: with the lines of another page in front, to a host that a signed zone names and vouches for.

use std::time::Duration;

use jiff::Timestamp;
use waxwing::discovery::smimea::{Association, Matching, Selector, Usage};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};

use crate::directory::free_port;
use crate::names::{Named, Signed};
use crate::page::Page;
use crate::people::{ANNA, BOB, waxwing};
use crate::server::{free_ports, peers_present, run};
use crate::site::{Site, local};
use crate::support::Client;
use crate::support::house::plain;
use crate::support::mx::{Mx, StartTls};

fn server(host: &str) -> Issued {
    let mut recipe = Recipe::mailbox("localhost", Timestamp::now(), NewKey::P256);
    (recipe.mailboxes, recipe.hosts) = (Vec::new(), vec![host.to_owned()]);
    issue(&recipe, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn by_mx_under_dane_and_signed_for_our_domain() {
    if !peers_present(&["openssl"]) {
        return;
    }
    let (site, page, port) = (Site::new().await, Page::open("world.md"), free_port());
    let (right, wrong) = (server("mx.partner.example"), server("mx.third.example"));
    let zone = |last: u8, vouched: &Issued| {
        let tlsa = Association::of(&vouched.certificate, Usage::DaneEe, Selector::PublicKey, Matching::Sha256);
        format!("@ IN MX 10 mx\nmx IN A 127.0.0.{last}\n_{port}._tcp.mx IN TLSA {tlsa}\n")
    };
    let zones = [("partner.example", zone(91, &right)), ("third.example", zone(92, &right))];
    let zones: Vec<(&str, Signed, &str)> =
        zones.iter().map(|(name, text)| (*name, Signed::Well, text.as_str())).collect();
    let Some(named) = Named::start(&zones) else { return };
    let at = |last: u8| std::net::SocketAddr::from(([127, 0, 0, last], port));
    let partner = Mx::at(at(91), StartTls::Done, &[&right]).await;
    let third = Mx::at(at(92), StartTls::Done, &[&wrong]).await;

    // The key, by the page's own command: what it prints are the page's lines.
    let key = site.path("dkim.pem");
    let command = "waxwing dkim generate /etc/waxwing/dkim.pem ";
    let said = page.text.lines().find_map(|line| line.trim().strip_prefix(command)).expect("the page makes a key");
    let mut make = waxwing(&site.folder.path().join("waxwing.toml"));
    let made = make.args(["dkim", "generate", &key]).args(said.split(' ')).output().unwrap();
    let dkim = page.adapted("waxwing.toml", "dkim", &[("/etc/waxwing/dkim.pem", key)]);
    let printed = String::from_utf8(made.stdout).unwrap();
    assert!(printed.ends_with(&format!("\n{dkim}")), "{printed}\n{}", String::from_utf8_lossy(&made.stderr));

    let [world, ours] = free_ports();
    let front = Page::open("postfix.md");
    let changes = [
        ("0.0.0.0:25", format!("127.0.0.1:{world}")),
        ("127.0.0.1:2525", format!("127.0.0.1:{ours}")),
        ("/etc/waxwing/tls.pem", site.path("tls.pem")),
        ("/etc/waxwing/tls.key", site.path("tls.key")),
        ("port = 10026", format!("port = {}", site.world_port())),
    ];
    let by_mx = page.adapted(
        "waxwing.toml",
        "by-mx",
        &[
            ("mx = true", format!("mx = true\nport = {port}")),
            ("\"192.0.2.26\", \"2001:db8::26\"", "\"127.0.0.93\"".to_owned()),
            (
                "servers = [\"127.0.0.1:53\"]",
                format!(
                    "servers = [\"{}\"]\ntrust_anchor = \"{}\"\nprivate_addresses = true\ntimeout = \"10 s\"",
                    named.address,
                    named.anchor.display()
                ),
            ),
        ],
    );
    let toml = site.waxwing_toml(&front, "front", &changes) + &by_mx + &dkim;
    let _gateway = site.gateway(&toml, &[world, ours]);
    let dora = "dora@third.example";
    for to in [BOB, dora] {
        let mail = plain(ANNA, to, "x", "It is a secret.");
        let said = Client::connect(local(ours)).await.send(ANNA, &[to], mail.as_bytes()).await;
        assert_eq!(said.code, 250, "{to}: {}", said.octets);
    }
    // To Bob: under TLS with the host that his zone vouches for, from the address that is named, sealed, and signed by our domain.
    partner.until(|state| state.sealed.contains("\r\n.\r\n")).await;
    let mail = partner.sealed();
    assert!(mail.contains("smime-type=enveloped-data") && !mail.contains("secret"), "{mail}");
    let signature = mail.split("DKIM-Signature:").nth(1).expect("no DKIM-Signature").replace("\r\n", "");
    assert!(signature.contains("d=example.org") && signature.contains("s=s2026"), "{signature}");
    assert!(!partner.clear().contains("MAIL"), "{}", partner.clear());
    assert_eq!(partner.seen(|state| state.peers.clone()), [std::net::IpAddr::from([127, 0, 0, 93])]);
    // To Dora: her zone vouches for another, and her mail waits, for the reason that the page tells.
    let config = site.folder.path().join("waxwing.toml");
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let list = waxwing(&config).args(["queue", "list"]).output().unwrap();
            let list = String::from_utf8_lossy(&list.stdout).into_owned();
            if third.seen(|state| state.connections) > 0 && list.contains(dora) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.expect("it never waits");
    assert!(!third.clear().contains("MAIL") && !third.sealed().contains("MAIL"), "{}", third.clear());
    assert!(site.world.mails().is_empty(), "nothing went elsewhere");
    run(waxwing(&config).args(["dkim", "show"]));
}

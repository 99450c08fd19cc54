//! What is refused and lost is counted by why, under traffic.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use support::Client;
use waxwing::config::{User, Users};
use waxwing::pki::authority::{NewKey, Recipe, issue};
use waxwing::relay::listen::{password_hash, password_verifier};

use super::*;

const TENANT: &str = "X-Tenant: correct-horse-battery";

fn listener(name: &str, lines: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\n{lines}\n")
}

/// A certificate for `localhost`, as a listener reads it.
fn identity(folder: &Path) -> String {
    let mut recipe = Recipe::mailbox("localhost", Timestamp::now(), NewKey::P256);
    (recipe.mailboxes, recipe.hosts) = (Vec::new(), vec!["localhost".into()]);
    let issued = issue(&recipe, None);
    let files =
        [("CERTIFICATE", &issued.certificate.der()[..]), ("PRIVATE KEY", &issued.pkcs8[..])].map(|(label, der)| {
            let file = folder.join(label.replace(' ', "-"));
            let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
            std::fs::write(&file, text).unwrap();
            file
        });
    format!("certificate = \"{}\"\nkey = \"{}\"", files[0].display(), files[1].display())
}

fn from(last: u8) -> std::net::IpAddr {
    std::net::Ipv4Addr::new(127, 0, 0, last).into()
}

/// A connection that says this at once, to its end.
async fn throw(address: SocketAddr, octets: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(octets).await;
    let mut heard = Vec::new();
    let read = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read_to_end(&mut heard)).await;
    let _ = read.expect("still open after a minute");
    heard
}

async fn log_in(house: &House, source: u8, user: &str, password: &str) -> u16 {
    let mut client = Client::connect_from(from(source), house.gateway.address("users").unwrap()).await;
    client.say(&format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0{password}")))).await.code
}

async fn refuses(house: &House) {
    // By the gateway.
    for _ in 0..2 {
        let mut client = Client::connect(house.gateway.address("cloud").unwrap()).await;
        assert_eq!(client.send(ANNA, &[NEWS], plain(ANNA, NEWS, "x", "y").as_bytes()).await.code, 550);
    }
    let refused = house.send_out(ANNA, &[CARL], &plain(ANNA, CARL, "x", "y")).await;
    assert_eq!(refused.code / 100, 5, "{}", refused.octets);
    // By the session: none of it is the gateway's.
    let mut client = Client::connect_from(from(9), house.inward()).await;
    for (said, code) in [("DATA", 503), ("WHAT", 500), ("XFORWARD ADDR=192.0.2.1", 550), ("AUTH PLAIN", 503)] {
        assert_eq!(client.say(said).await.code, code, "{said}");
    }
    // By the rates: two mails at once, and three recipients.
    for code in [250, 250, 451] {
        assert_eq!(client.say(&format!("MAIL FROM:<{CARL}>")).await.code, code);
        for (number, code) in (0..if code == 250 { 2 } else { 0 }).zip([250, 550]) {
            let to = if number == 0 { ANNA } else { CARL };
            assert_eq!(client.say(&format!("RCPT TO:<{to}>")).await.code, code);
        }
        client.say("RSET").await;
    }
    // By the next hop.
    house.world.fault(support::Fault::Dot(554));
    assert_eq!(house.send_out(ANNA, &[NEWS], &plain(ANNA, NEWS, "x", "y")).await.code, 554);
    house.world.fault(support::Fault::None);
}

/// A house with a door of each kind.
async fn with_doors(folder: &Path) -> House {
    let file = folder.join("users");
    let mut users = Users::default();
    users.set(ANNA, User { argon2: password_hash(b"horse").unwrap(), scram: password_verifier("horse") }).unwrap();
    std::fs::write(&file, users.to_string()).unwrap();
    let listeners = [
        listener("cloud", &format!("trusted_networks = [\"127.0.0.0/8\"]\ntenant_header = \"{TENANT}\"")),
        listener("users", &format!("users = \"{}\"\nauth_without_tls = true", file.display())),
        listener("proxied", "proxies = [\"127.0.0.1\"]"),
        listener("sealed", &format!("tls = \"implicit\"\n{}", identity(folder))),
        listener("patient", "greeting_delay = \"60 s\""),
        listener(
            "nobody",
            "auth_without_tls = true\n[listener.ldap_users]\nservers = [\"ldap://127.0.0.1:9\"]\ntls = \"off\"\ndn = \"cn={local}\"",
        ),
    ];
    let policy = format!("{}{POLICY}", listeners.concat());
    let top = format!("{METRICS}[limits]\nmails_per_client = \"2/day\"\nrecipients_per_client = \"10/day\"\n");
    House::build(&Plan { policy: &policy, top: &top, ..Plan::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_is_counted_by_why_and_by_listener_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let house = with_doors(folder.path()).await;
    let at = |name: &str| house.gateway.address(name).unwrap();

    // Mail goes out meanwhile, and somebody watches.
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let out = house.out();
        sending.spawn(async move {
            let mut client = Client::connect(out).await;
            for _ in 0..25 {
                assert_eq!(client.send(ANNA, &[NEWS], plain(ANNA, NEWS, "x", "y").as_bytes()).await.code, 250);
            }
        });
    }
    let relayed = "waxwing_mails_total{direction=\"outbound\",outcome=\"relayed\"}";
    let (mut done, mut before) = (0.0, 0.0);
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
        done += 25.0;
        let now = Scraped::of(&house).await.value(relayed);
        assert!(now >= done && now >= before && now <= 100.0, "{now} after {before}, {done} are through");
        before = now;
    }
    refuses(&house).await;
    assert!(throw(at("proxied"), b"EHLO x\r\n").await.is_empty(), "closed without a word");
    throw(at("sealed"), b"EHLO x\r\n\r\n").await;
    assert!(throw(at("patient"), b"EHLO x\r\n").await.starts_with(b"554 "));
    assert_eq!(log_in(&house, 10, ANNA, "horse").await, 235);
    for _ in 0..5 {
        assert_eq!(log_in(&house, 11, "eve@ours.example", "x").await, 535);
    }
    assert_eq!(log_in(&house, 11, ANNA, "horse").await, 454);
    let mut client = Client::connect_from(from(12), at("nobody")).await;
    assert_eq!(client.say(&format!("AUTH PLAIN {}", STANDARD.encode("\0zoe@ours.example\0x"))).await.code, 454);

    let scraped = Scraped::of(&house).await;
    let refusals = |reason: &str| scraped.value(&format!("waxwing_refusals_total{{reason=\"{reason}\"}}"));
    let expected = [("no_tenant", 2.0), ("unserved", 1.0), ("relay_denied", 2.0), ("too_fast", 1.0), ("next_hop", 1.0)];
    for (reason, count) in expected {
        assert_eq!(refusals(reason), count, "{reason}: {}", scraped.0);
    }
    for never in ["loop", "busy", "store", "audit", "internal", "unauthentic"] {
        assert_eq!(refusals(never), 0.0, "{never}");
    }
    let replies = |listener: &str, code: u16| {
        scraped.value(&format!("waxwing_refused_replies_total{{listener=\"{listener}\",code=\"{code}\"}}"))
    };
    assert_eq!([replies("in", 503), replies("in", 500), replies("in", 550), replies("in", 451)], [2.0, 1.0, 3.0, 1.0]);
    assert_eq!([replies("cloud", 550), replies("patient", 554), replies("out", 554)], [2.0, 1.0, 1.0]);
    assert_eq!([replies("users", 535), replies("users", 454), replies("nobody", 454)], [5.0, 1.0, 1.0]);
    let logins = |listener: &str, outcome: &str| {
        scraped.value(&format!("waxwing_logins_total{{listener=\"{listener}\",outcome=\"{outcome}\"}}"))
    };
    let outcomes = ["done", "wrong", "barred", "unjudged"];
    assert_eq!(outcomes.map(|outcome| logins("users", outcome)), [1.0, 5.0, 1.0, 0.0]);
    assert_eq!(outcomes.map(|outcome| logins("nobody", outcome)), [0.0, 0.0, 0.0, 1.0]);
    let connections = |listener: &str, outcome: &str| {
        scraped.value(&format!("waxwing_connections_total{{listener=\"{listener}\",outcome=\"{outcome}\"}}"))
    };
    for (listener, outcome) in [("proxied", "unproxied"), ("sealed", "tls_failed"), ("patient", "early")] {
        for one in ["unproxied", "tls_failed", "early", "turned_away"] {
            assert_eq!(connections(listener, one), if one == outcome { 1.0 } else { 0.0 }, "{listener} {one}");
        }
    }
    assert_eq!(scraped.value("waxwing_too_fast_total{whose=\"client\",what=\"mails\"}"), 1.0);
    assert_eq!(scraped.value("waxwing_mails_total{direction=\"outbound\",outcome=\"relayed\"}"), 100.0);
    let opened = "waxwing_hop_connections_total{found_by=\"configuration\",protection=\"clear\",outcome=\"opened\"}";
    assert!(scraped.value(opened) >= 1.0);
    for name in [ANNA, "eve@", "zoe@", "192.0.2.1"] {
        assert!(!scraped.0.contains(name), "{name} is a label");
    }
}

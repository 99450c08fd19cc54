//! Who sent a mail, through a whole gateway: SPF, DKIM and DMARC of mail that comes in, by the zones of a BIND 9 of its own; DKIM signatures of
//! mail that goes out. dkimpy is the other side of DKIM: it signs what we verify and verifies what we sign.
#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test fails by panicking; some are tables of cases"
)]

#[allow(dead_code, reason = "a name server alone is used of them")]
#[path = "support/directory.rs"]
mod directory;
#[allow(dead_code, reason = "no zone here is signed")]
#[path = "support/names.rs"]
mod names;
#[path = "support/outside.rs"]
mod outside;
mod support;

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use names::{Named, Signed};
use support::house::{House, Plan, plain};
use support::sink::Mail;
use waxwing::authentication::key::{Key, NewKey};
use waxwing::config::Config;

const ANNA: &str = "anna@ours.example";
const DORA: &str = "dora@ours.example";
const PREFER: &str = "[default]\nsign = \"if-key\"\nencrypt = \"prefer\"\n";
const ID: &str = "Authentication-Results: gw.ours.example; ";

/// `[mail_authentication]` that asks this server.
fn asking(server: SocketAddr, mode: &str, more: &str) -> String {
    let iprev = if more.contains("iprev") { "" } else { "iprev = false\n" };
    let timeout = if more.contains("timeout") { "" } else { "timeout = \"20 s\"\n" };
    format!("[mail_authentication]\ninbound = \"{mode}\"\nservers = [\"{server}\"]\n{iprev}{timeout}{more}\n")
}

async fn house(policy: &str, top: &str) -> House {
    House::build(&Plan { policy, top, ..Plan::default() }).await
}

/// Zones of senders. `broken.example` cannot be loaded: it is answered SERVFAIL.
fn zones<'z>(more: &[(&'z str, &'z str)]) -> Vec<(&'z str, Signed, &'z str)> {
    let usual = [
        (
            "pass.example",
            "@ IN TXT \"v=spf1 ip4:127.0.0.1 -all\"\n_dmarc IN TXT \"v=DMARC1; p=reject\"\nmail IN A 127.0.0.1",
        ),
        ("soft.example", "@ IN TXT \"v=spf1 ~all\"\n_dmarc IN TXT \"v=DMARC1; p=quarantine\""),
        ("reject.example", "@ IN TXT \"v=spf1 -all\"\n_dmarc IN TXT \"v=DMARC1; p=reject; adkim=s; aspf=s\""),
        ("none.example", "_dmarc IN TXT \"v=DMARC1; p=none\""),
        (
            "half.example",
            "@ IN TXT \"v=spf1 ?include:a.half.example -all\"\na IN TXT \"v=spf1 include:b.half.example -all\"\nb IN TXT \"v=spf1 ip4:127.0.0.1 -all\"",
        ),
        ("not.example", "@ IN TXT \"v=spf1 include:reject.example ~all\""),
        ("loop.example", "@ IN TXT \"v=spf1 include:loop.example -all\""),
        (
            "other.example",
            "@ IN TXT \"v=spf1 redirect=spf.other.example\"\nspf IN TXT \"v=spf1 a:mail.other.example -all\"\nmail IN A 127.0.0.1",
        ),
        ("broken.example", "@ IN NONSENSE"),
        ("127.in-addr.arpa", "1.0.0 IN PTR mail.pass.example."),
    ];
    usual.into_iter().chain(more.iter().copied()).map(|(name, records)| (name, Signed::Not, records)).collect()
}

/// What our field says of who sent it, without folds; there is one at most.
fn found(mail: &Mail) -> String {
    let text = mail.text();
    let header = text.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ").replace("\r\n\t", " ");
    let ours: Vec<&str> =
        header.lines().filter_map(|line| line.strip_prefix(ID)).filter(|rest| !rest.starts_with("smime=")).collect();
    assert!(ours.len() <= 1, "{ours:?}");
    ours.first().map(|rest| (*rest).to_owned()).unwrap_or_default()
}

fn smime(mail: &Mail) -> bool {
    mail.text().contains(&format!("{ID}smime=pass"))
}

/// A Python that has dkimpy.
fn python() -> Option<&'static str> {
    let has = |python: &&str| {
        let said = Command::new(python).args(["-c", "import dkim, dns.resolver"]).stderr(Stdio::null()).status();
        said.is_ok_and(|status| status.success())
    };
    let found = ["/usr/bin/python3", "python3"].into_iter().find(has);
    outside::is_here(found.is_some(), "python3 with dkimpy (python3-dkim)");
    found
}

fn dkimpy(python: &str, arguments: &[&str], mail: &[u8]) -> Vec<u8> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/judge_dkim.py");
    let mut child = Command::new(python)
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, octets) = (child.stdin.take().unwrap(), mail.to_vec());
    let writing = std::thread::spawn(move || stdin.write_all(&octets));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// dkimpy's word for each signature of a mail, by this name server.
fn judged(python: &str, server: &Named, mail: &Mail) -> String {
    let said = dkimpy(python, &["verify", &server.address.port().to_string()], &mail.message);
    String::from_utf8(said).unwrap().trim().to_owned()
}

/// Keys in a folder: their files, and the lines of a zone for them.
struct Keys {
    folder: tempfile::TempDir,
    rsa: PathBuf,
    ed25519: PathBuf,
    records: String,
}

impl Keys {
    fn new(domain: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (rsa, ed25519) = (folder.path().join("rsa.pem"), folder.path().join("ed25519.pem"));
        let made = [(&rsa, "r", NewKey::Rsa2048), (&ed25519, "e", NewKey::Ed25519)].map(|(file, selector, kind)| {
            let key = Key::generate(kind).unwrap();
            key.write_new(file).unwrap();
            key.zone_line(domain, selector)
        });
        Self { rsa, ed25519, records: made.join("\n"), folder }
    }

    /// `[[dkim]]` for both.
    fn settings(&self, domain: &str) -> String {
        let one = |selector: &str, file: &Path| {
            format!("[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nkey = \"{}\"\n", file.display())
        };
        one("r", &self.rsa) + &one("e", &self.ed25519)
    }

    /// The Ed25519 key as dkimpy reads it: its seed in base64.
    fn seed(&self) -> PathBuf {
        let pem = std::fs::read_to_string(&self.ed25519).unwrap();
        let base64: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
        let file = self.folder.path().join("seed");
        let script = format!(
            "import base64, sys; sys.stdout.write(base64.b64encode(base64.b64decode('{base64}')[-32:]).decode())"
        );
        let output = Command::new("python3").args(["-c", &script]).output().unwrap();
        std::fs::write(&file, output.stdout).unwrap();
        file
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_spf_and_dmarc_say_is_written_into_the_mail() {
    let Some(named) = Named::start(&zones(&[])) else { return };
    let house = house(PREFER, &asking(named.address, "mark", "")).await;
    // MAIL FROM, From, and what is found.
    let cases = [
        (
            "x@pass.example",
            "x@pass.example",
            "spf=pass smtp.mailfrom=x@pass.example; dkim=none; dmarc=pass header.from=pass.example policy.dmarc=reject",
        ),
        (
            "x@pass.example",
            "x@sub.pass.example",
            "spf=pass smtp.mailfrom=x@pass.example; dkim=none; dmarc=pass header.from=sub.pass.example policy.dmarc=reject",
        ),
        (
            "x@other.example",
            "x@pass.example",
            "spf=pass smtp.mailfrom=x@other.example; dkim=none; dmarc=fail header.from=pass.example policy.dmarc=reject",
        ),
        (
            "x@soft.example",
            "x@soft.example",
            "spf=softfail smtp.mailfrom=x@soft.example; dkim=none; dmarc=fail header.from=soft.example policy.dmarc=quarantine",
        ),
        (
            "x@reject.example",
            "x@reject.example",
            "spf=fail smtp.mailfrom=x@reject.example; dkim=none; dmarc=fail header.from=reject.example policy.dmarc=reject",
        ),
        (
            "x@none.example",
            "x@none.example",
            "spf=none smtp.mailfrom=x@none.example; dkim=none; dmarc=fail header.from=none.example policy.dmarc=none",
        ),
        (
            "x@nowhere.example",
            "x@nowhere.example",
            "spf=none smtp.mailfrom=x@nowhere.example; dkim=none; dmarc=none header.from=nowhere.example",
        ),
        // An include that does not vouch, of a record that includes another.
        (
            "x@half.example",
            "x@half.example",
            "spf=neutral smtp.mailfrom=x@half.example; dkim=none; dmarc=none header.from=half.example",
        ),
        (
            "x@not.example",
            "x@not.example",
            "spf=softfail smtp.mailfrom=x@not.example; dkim=none; dmarc=none header.from=not.example",
        ),
        (
            "x@loop.example",
            "x@loop.example",
            "spf=permerror smtp.mailfrom=x@loop.example; dkim=none; dmarc=none header.from=loop.example",
        ),
        (
            "",
            "x@pass.example",
            "spf=none smtp.helo=client.example; dkim=none; dmarc=fail header.from=pass.example policy.dmarc=reject",
        ),
    ];
    for (number, (path, from, expected)) in cases.into_iter().enumerate() {
        let said = house.send_in(path, &[ANNA], plain(from, ANNA, &format!("n{number}"), "body").as_bytes()).await;
        assert_eq!(said.code, 250, "{path} {from}: {}", said.octets);
        let mail = house.server.wait(number + 1).await.pop().unwrap();
        assert_eq!(found(&mail), expected, "{path} {from}");
    }
    let broken = "x@broken.example";
    assert_eq!(house.send_in(broken, &[ANNA], plain(broken, ANNA, "b", "body").as_bytes()).await.code, 250);
    let mail = house.server.wait(cases.len() + 1).await.pop().unwrap();
    assert!(found(&mail).starts_with("spf=temperror "), "{}", found(&mail));
    assert!(found(&mail).contains("; dmarc=temperror ("), "{}", found(&mail));
}

#[tokio::test(flavor = "multi_thread")]
async fn enforce_refuses_what_the_authors_domain_wants_refused_and_nothing_else() {
    let Some(named) = Named::start(&zones(&[])) else { return };
    let house = house(PREFER, &asking(named.address, "enforce", "")).await;
    let send = async |path: &str, message: String| house.send_in(path, &[ANNA], message.as_bytes()).await;
    let one = |from: &str| plain(from, ANNA, "x", "body");
    for from in ["x@pass.example", "x@soft.example", "x@none.example", "x@nowhere.example", "x@broken.example"] {
        assert_eq!(send(from, one(from)).await.code, 250, "{from}");
    }
    let refused = [
        one("x@reject.example"),
        // Whoever is shown first: the strictest word of all who are named.
        one("x@pass.example\r\nFrom: x@reject.example"),
        one("x@pass.example, x@reject.example"),
        one("a@a.example, b@b.example, c@c.example, d@d.example, e@e.example"),
    ];
    for message in refused {
        let said = send("x@pass.example", message.clone()).await;
        assert!(said.code == 550 && said.octets.starts_with("550 5.7.1 "), "{}\n{message}", said.octets);
    }
    assert!(send("x@reject.example", one("x@reject.example")).await.octets.contains("reject.example"));
    assert_eq!(house.server.wait(5).await.len(), 5);
    house.settled().await;
    assert_eq!(house.server.mails().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_signed_is_verified_over_the_octets_received() {
    let (Some(python), keys) = (python(), Keys::new("signed.example")) else { return };
    let records = format!("_dmarc IN TXT \"v=DMARC1; p=reject\"\n{}", keys.records);
    let Some(named) = Named::start(&zones(&[("signed.example", &records)])) else { return };
    let house = house(PREFER, &asking(named.address, "mark", "")).await;
    let from = "x@signed.example";
    let rsa = |canon: &'static str| {
        ["sign", "rsa-sha256", canon, "r", "signed.example", keys.rsa.to_str().unwrap()].map(str::to_owned)
    };
    let seed = keys.seed();
    let ed =
        ["sign", "ed25519-sha256", "relaxed/relaxed", "e", "signed.example", seed.to_str().unwrap()].map(str::to_owned);
    let mut number = 0;
    let mut results = async |mail: Vec<u8>| {
        assert_eq!(house.send_in("bounce@nowhere.example", &[ANNA], &mail).await.code, 250);
        number += 1;
        found(&house.server.wait(number).await.pop().unwrap())
    };
    for (arguments, selector) in
        [(rsa("simple/simple"), "r"), (rsa("relaxed/simple"), "r"), (rsa("relaxed/relaxed"), "r"), (ed, "e")]
    {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let message = plain(from, ANNA, "signed", "first  line \r\n\r\n.dots\r\n\r\n");
        let signed = String::from_utf8(dkimpy(python, &arguments, message.as_bytes())).unwrap();
        let said = results(signed.clone().into_bytes()).await;
        assert!(said.contains(&format!("; dkim=pass header.d=signed.example header.s={selector} header.b=")), "{said}");
        assert!(said.ends_with("; dmarc=pass header.from=signed.example policy.dmarc=reject"), "{said}");
        for (from, to) in [("first", "other"), ("Subject: signed", "Subject: changed"), ("From: x@", "From: y@")] {
            let said = results(signed.replacen(from, to, 1).into_bytes()).await;
            assert!(said.contains("; dkim=fail (") && said.contains("; dmarc=fail "), "{to}: {said}");
        }
    }
    // A key that is not there, and a name server that fails.
    let message = plain(from, ANNA, "nokey", "body");
    for (selector, domain, expected) in [("none", "signed.example", "permerror"), ("r", "broken.example", "temperror")]
    {
        let arguments = ["sign", "rsa-sha256", "relaxed/relaxed", selector, domain, keys.rsa.to_str().unwrap()];
        let said = results(dkimpy(python, &arguments, message.as_bytes())).await;
        assert!(said.contains(&format!("; dkim={expected} (")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a08_results_that_others_wrote_in_our_name_go_and_those_of_others_stay() {
    let Some(named) = Named::start(&zones(&[])) else { return };
    let house = house(PREFER, &asking(named.address, "mark", "")).await;
    let forged = format!(
        "{ID}dmarc=pass header.from=pass.example\r\nAuthentication-Results: GW.ours.example (x) ;\r\n dkim=pass\r\nAuthentication-Results: theirs.example; spf=pass\r\n{}",
        plain("x@reject.example", ANNA, "forged", "body")
    );
    assert_eq!(house.send_in("x@reject.example", &[ANNA], forged.as_bytes()).await.code, 250);
    let mail = house.server.wait(1).await.pop().unwrap();
    assert!(found(&mail).contains("dmarc=fail") && !mail.text().contains("dmarc=pass"), "{}", mail.text());
    assert!(!mail.text().contains("dkim=pass") && mail.text().contains("theirs.example; spf=pass"));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_wait_in_the_spool_with_the_mail_and_smime_is_judged_as_before() {
    let Some(named) = Named::start(&zones(&[])) else { return };
    let house = house(PREFER, &asking(named.address, "mark", "")).await;
    house.user(ANNA);
    house.user(DORA);
    // Signed alone, then signed and encrypted, as we send it ourselves.
    for to in ["bert@else.example", ANNA] {
        assert_eq!(house.send_out(DORA, &[to], &plain(DORA, to, "own", "the secret")).await.code, 250);
    }
    let left = house.world.wait(2).await;
    let mut came = Vec::new();
    for mail in left {
        // What a stranger may put on top.
        let forged = [format!("{ID}dmarc=pass\r\n").as_bytes(), &mail.message].concat();
        assert_eq!(house.send_in("x@pass.example", &[ANNA], &forged).await.code, 250);
        came.push(house.server.wait(came.len() + 1).await.pop().unwrap());
    }
    assert!(came[1].text().contains("X-Waxwing-Decrypted: yes") && came[1].text().contains("the secret"));
    for mail in &came {
        assert!(smime(mail), "{}", mail.text());
        assert_eq!(
            found(mail),
            "spf=pass smtp.mailfrom=x@pass.example; dkim=none; dmarc=none header.from=ours.example"
        );
    }
    // And others still find the signature good.
    let folder = tempfile::tempdir().unwrap();
    let mail = folder.path().join("mail.eml");
    std::fs::write(&mail, &came[0].message).unwrap();
    let verified = Command::new("openssl").args(["cms", "-verify", "-noverify", "-in"]).arg(&mail).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dns_that_is_silent_is_waited_for_so_long_and_nothing_is_refused() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let top = asking(silent.local_addr().unwrap(), "enforce", "timeout = \"1 s\"");
    let house = house(PREFER, &top).await;
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=reject.example; s=s; h=From; bh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=; b=AAAAAAAA\r\n";
    let message = format!("{signature}{}", plain("x@reject.example", ANNA, "silent", ""));
    let began = Instant::now();
    assert_eq!(house.send_in("x@reject.example", &[ANNA], message.as_bytes()).await.code, 250);
    // Not for each question anew.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let said = found(&house.server.wait(1).await.pop().unwrap());
    assert!(
        said.contains("spf=temperror ") && said.contains("; dkim=temperror ") && said.contains("; dmarc=temperror "),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_signatures_are_asked_for_as_often_as_eight() {
    let Some(named) = Named::start(&zones(&[])) else { return };
    let house = house(PREFER, &asking(named.address, "mark", "")).await;
    let signatures: String = (0..1_000)
        .map(|number| {
            format!("DKIM-Signature: v=1; a=rsa-sha256; d=d{number}.example; s=s; h=From; bh=AAAA; b=AAAA\r\n")
        })
        .collect();
    let message = format!("{signatures}{}", plain("x@pass.example", ANNA, "many", "body"));
    assert_eq!(house.send_in("x@pass.example", &[ANNA], message.as_bytes()).await.code, 250);
    let said = found(&house.server.wait(1).await.pop().unwrap());
    assert_eq!(said.matches("dkim=fail").count(), 8, "{said}");
    assert!(said.contains("dkim=policy (992 more were not looked at)") && said.contains("dmarc=pass"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_the_one_whom_a_proxy_names_and_trusted_ones_are_not_judged() {
    let records = "@ IN TXT \"v=spf1 ip4:192.0.2.7 -all\"\nmail IN A 192.0.2.7";
    let Some(named) =
        Named::start(&zones(&[("far.example", records), ("2.0.192.in-addr.arpa", "7 IN PTR mail.far.example.")]))
    else {
        return;
    };
    let listener = "[[listener]]\nname = \"proxied\"\naddress = \"127.0.0.1:0\"\ndirection = \"inbound\"\nproxies = [\"127.0.0.1\"]\n\
                    [[listener]]\nname = \"trusting\"\naddress = \"127.0.0.1:0\"\ndirection = \"by-recipient\"\ntrusted_networks = [\"127.0.0.1\"]\n";
    let house = house(PREFER, &(asking(named.address, "enforce", "iprev = true") + listener)).await;
    let mut count = 0;
    // The first has a name that leads back to it, the other has none.
    let clients = [
        ("192.0.2.7", "pass", "; iprev=pass (mail.far.example) policy.iprev=192.0.2.7; "),
        ("192.0.2.8", "fail", "; iprev=permerror policy.iprev=192.0.2.8; "),
    ];
    for (client, spf, iprev) in clients {
        let session = format!("PROXY TCP4 {client} 192.0.2.1 5000 25\r\n",);
        let message = plain("x@far.example", ANNA, "far", "body");
        let stream = tokio::net::TcpStream::connect(house.gateway.address("proxied").unwrap()).await.unwrap();
        let said = talk(stream, &session, "x@far.example", &message).await;
        assert!(said.contains("\n250 "), "{said}");
        count += 1;
        let said = found(&house.server.wait(count).await.pop().unwrap());
        assert!(said.starts_with(&format!("spf={spf} smtp.mailfrom=x@far.example; ")), "{said}");
        assert!(said.contains(iprev), "{said}");
    }
    // What a trusted peer hands over is ours to answer for, whatever the author's domain wants.
    let mut trusted = support::Client::connect(house.gateway.address("trusting").unwrap()).await;
    let reject = "x@reject.example";
    assert_eq!(trusted.send(reject, &[ANNA], plain(reject, ANNA, "t", "b").as_bytes()).await.code, 250);
    assert_eq!(found(&house.server.wait(count + 1).await.pop().unwrap()), "");
}

/// Behind a content filter's listener the client is whom the peer names (XFORWARD), and one that it does not know is not judged as the peer.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_the_one_whom_a_content_filter_names() {
    let records = "@ IN TXT \"v=spf1 ip4:192.0.2.7 -all\"";
    let Some(named) = Named::start(&zones(&[("far.example", records)])) else { return };
    let listener = "[[listener]]\nname = \"filter\"\naddress = \"127.0.0.1:0\"\ndirection = \"inbound\"\nxforward = [\"127.0.0.1\"]\n";
    let house = house(PREFER, &(asking(named.address, "enforce", "") + listener)).await;
    for (client, from, expected) in [
        (
            "ADDR=192.0.2.7 HELO=mail.far.example SOURCE=REMOTE",
            "x@far.example",
            "spf=pass smtp.mailfrom=x@far.example; ",
        ),
        (
            "ADDR=192.0.2.8 HELO=mail.far.example SOURCE=REMOTE",
            "x@far.example",
            "spf=fail smtp.mailfrom=x@far.example; ",
        ),
        ("ADDR=[UNAVAILABLE] SOURCE=LOCAL", "x@reject.example", ""),
    ] {
        let mut peer = support::Client::connect(house.gateway.address("filter").unwrap()).await;
        house.server.clear();
        assert_eq!(peer.say(&format!("XFORWARD {client}")).await.code, 250);
        assert_eq!(peer.send(from, &[ANNA], plain(from, ANNA, "far", "body").as_bytes()).await.code, 250, "{client}");
        let said = found(&house.server.wait(1).await.pop().unwrap());
        assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{client}: {said}");
    }
}

/// A whole session behind a PROXY header, pipelined where it may be.
async fn talk(mut stream: tokio::net::TcpStream, proxy: &str, from: &str, message: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut heard = String::new();
    let mut octets = [0u8; 4096];
    let steps = [
        proxy.to_owned(),
        "EHLO mail.far.example\r\n".to_owned(),
        format!("MAIL FROM:<{from}>\r\n"),
        format!("RCPT TO:<{ANNA}>\r\n"),
        "DATA\r\n".to_owned(),
        format!("{message}.\r\n"),
        "QUIT\r\n".to_owned(),
    ];
    for step in steps {
        stream.write_all(step.as_bytes()).await.unwrap();
        loop {
            let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut octets)).await.unwrap().unwrap();
            heard.push_str(&String::from_utf8_lossy(&octets[..read]));
            let last = heard.trim_end().rsplit("\r\n").next().unwrap_or_default();
            if read == 0 || (heard.ends_with("\r\n") && last.as_bytes().get(3) == Some(&b' ')) {
                break;
            }
        }
    }
    heard.rsplit_once("221").map(|(before, _)| before.to_owned()).unwrap_or(heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_is_signed_for_its_authors_domain_and_dkimpy_finds_it_good() {
    let (Some(python), keys) = (python(), Keys::new("ours.example")) else { return };
    let Some(named) = Named::start(&zones(&[("ours.example", &keys.records)])) else { return };
    let policy = "[[rule]]\nname = \"as it is\"\nmatch = { direction = \"outbound\", recipient = [\"@plain.example\"] }\npass = true\n[default]\nsign = \"if-key\"\nencrypt = \"prefer\"\n";
    let house = house(policy, &keys.settings("ours.example")).await;
    house.user(ANNA);
    for partner in ["bert@partner.example", "carl@partner.example"] {
        house.partner(partner);
    }
    // Clear as policy says, signed, encrypted; a large one; a blind copy, which is an output of its own.
    let large = "0123456789abcdef\r\n".repeat(60_000);
    let cases: [(&[&str], &str); 5] = [
        (&["x@plain.example"], "body\r\n\r\n  spaces  \r\n\r\n"),
        (&["x@else.example"], "signed"),
        (&["bert@partner.example"], "the secret"),
        (&["bert@partner.example"], large.as_str()),
        (&["bert@partner.example", "carl@partner.example", "x@else.example"], "split"),
    ];
    for (number, (to, body)) in cases.iter().enumerate() {
        let subject = format!("n{number}");
        assert_eq!(house.send_out(ANNA, to, &plain(ANNA, to[0], &subject, body)).await.code, 250, "{to:?}");
    }
    let mails = house.world.wait(7).await;
    assert_eq!(mails.len(), 7);
    for mail in &mails {
        assert!(mail.text().starts_with("DKIM-Signature: "), "{}", mail.text());
        assert_eq!(judged(python, &named, mail), "pass pass", "{:?}", mail.to);
        let mut changed = mail.clone();
        changed.message = [&b"From: mallory@else.example\r\n"[..], &mail.message].concat();
        assert_eq!(judged(python, &named, &changed), "fail fail", "no other From is put in front");
        changed.message = [&mail.message[..], b"more\r\n"].concat();
        assert_eq!(judged(python, &named, &changed), "fail fail");
    }
    assert!(
        mails
            .iter()
            .filter(|mail| mail.to[0].ends_with("partner.example"))
            .all(|mail| !mail.text().contains("the secret"))
    );
    // Another's mail is not ours to vouch for.
    let stranger = "x@stranger.example";
    assert_eq!(
        house.send_out(ANNA, &["x@plain.example"], &plain(stranger, "x@plain.example", "s", "b")).await.code,
        250
    );
    assert!(!house.world.wait(8).await[7].text().contains("DKIM-Signature"));
    // As others take it in.
    let theirs = self::house(PREFER, &asking(named.address, "mark", "")).await;
    assert_eq!(theirs.send_in(ANNA, &[ANNA], &mails[0].message).await.code, 250);
    let said = found(&theirs.server.wait(1).await.pop().unwrap());
    assert_eq!(said.matches("dkim=pass").count(), 2, "{said}");
    let other = [&b"From: mallory@else.example\r\n"[..], &mails[0].message].concat();
    assert_eq!(theirs.send_in(ANNA, &[ANNA], &other).await.code, 250);
    let said = found(&theirs.server.wait(2).await.pop().unwrap());
    assert_eq!(said.matches("dkim=fail").count(), 2, "no other From is put in front: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_before_us_is_counted_and_keys_come_with_another_configuration() {
    let keys = Keys::new("ours.example");
    let house = house(PREFER, "[metrics]\nlisten = \"127.0.0.1:0\"\n").await;
    house.user(ANNA);
    let signed = format!(
        "DKIM-Signature: v=1; a=rsa-sha256; d=ours.example; s=old; h=From; bh=AAAA; b=AAAA\r\n{}",
        plain(ANNA, "x@else.example", "before", "body")
    );
    assert_eq!(house.send_out(ANNA, &["x@else.example"], &signed).await.code, 250);
    let counted = async |outcome: &str| {
        let text = scrape(house.gateway.watched_at().unwrap()).await;
        let name = format!("waxwing_dkim_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<f64>().unwrap()
    };
    assert_eq!((counted("broken").await, counted("signed").await), (1.0, 0.0));
    let file = house.folder.path().join("waxwing.toml");
    let read = move || {
        let text = std::fs::read_to_string(&file).unwrap();
        Config::parse(&text, "waxwing.toml", &|_| Err("none".into()))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    };
    house.gateway.reads_from(read);
    let file = house.folder.path().join("waxwing.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let missing = keys.settings("ours.example").replace("rsa.pem", "missing.pem");
    std::fs::write(&file, format!("{before}\n{missing}")).unwrap();
    let errors = house.gateway.reload().await.unwrap_err();
    assert!(errors[0].contains("missing.pem"), "{errors:?}");
    std::fs::write(&file, format!("{before}\n{}", keys.settings("ours.example"))).unwrap();
    house.gateway.reload().await.unwrap();
    let message = plain(ANNA, "x@else.example", "after", "body");
    assert_eq!(house.send_out(ANNA, &["x@else.example"], &message).await.code, 250);
    let mails = house.world.wait(2).await;
    assert_eq!(mails[1].text().matches("DKIM-Signature: ").count(), 2);
    assert_eq!((counted("broken").await, counted("signed").await), (1.0, 1.0));
}

async fn scrape(address: SocketAddr) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn the_command_line_makes_keys_shows_their_records_and_warns_where_nobody_vouches() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_waxwing"))
            .current_dir(folder.path())
            .env("WAXWING_CONFIG", "waxwing.toml")
            .args(arguments)
            .output()
            .unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let generate = |file: &'static str, more: &[&'static str]| {
        let usual = ["dkim", "generate", file, "--domain", "Ours.example", "--selector", "s1"];
        run(&[&usual[..], more].concat())
    };
    let (code, printed, _) = generate("rsa.pem", &[]);
    assert_eq!(code, 0);
    let (record, lines) = printed.split_once("\n\n").unwrap();
    assert!(record.starts_with("s1._domainkey.ours.example. IN TXT ( \"v=DKIM1; k=rsa; p=MII"), "{record}");
    let (code, _, said) = generate("rsa.pem", &[]);
    assert!(code == 2 && said.contains("rsa.pem"), "{said}");
    let (code, json, _) = generate("ed.pem", &["--kind", "ed25519", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, json["algorithm"].as_str(), json["name"].as_str()),
        (0, Some("ed25519"), Some("s1._domainkey.ours.example."))
    );
    assert_eq!(generate("bad.pem", &["--selector", "a b"]).0, 2);

    let config = "hostname = \"gw.ours.example\"\ndomains = [\"ours.example\", \"second.example\"]\nstore = \"store\"\nkek = \"kek\"\nspool = \"spool\"\n\
                  [[listener]]\naddress = \"127.0.0.1:0\"\ndirection = \"inbound\"\n[next_hop.outbound]\nhost = \"a\"\nport = 25\n[next_hop.inbound]\nhost = \"b\"\nport = 25\n\
                  [default]\nencrypt = \"prefer\"\n";
    let with = |more: &str| std::fs::write(folder.path().join("waxwing.toml"), format!("{config}{more}")).unwrap();
    with("");
    assert_eq!(run(&["dkim", "show"]).0, 1);
    assert!(run(&["config", "check"]).1.contains("warning: dkim: mail of ours.example, second.example is sealed"));
    with(lines);
    let (code, shown, _) = run(&["dkim", "show"]);
    assert_eq!((code, shown.trim()), (0, record));
    let (code, said, _) = run(&["config", "check"]);
    assert!(
        code == 0 && said.contains("mail of second.example is sealed") && !said.contains("ours.example,"),
        "{said}"
    );
    with(&lines.replace("rsa.pem", "none.pem"));
    assert_eq!(run(&["dkim", "show", "--json"]).0, 1);
    assert!(run(&["config", "check"]).1.contains("none.pem"));
    let wrong = [
        ("[[dkim]]\ndomain = \"ours.example\"\nselector = \"a b\"\nkey = \"k\"\n", "dkim[1].selector"),
        ("[[dkim]]\ndomain = \"ours.example\"\nselector = \"a\"\n", "dkim[1].key"),
        ("[mail_authentication]\ninbound = \"yes\"\n", "mail_authentication.inbound"),
        ("[mail_authentication]\nservers = [\"ns.example\"]\n", "mail_authentication.servers"),
    ];
    for (lines, key) in wrong {
        with(lines);
        let (code, said, _) = run(&["config", "check"]);
        assert!(code == 1 && said.contains(&format!(": {key}: found ")), "{said}");
    }
    with(&format!("{lines}{lines}"));
    assert!(run(&["config", "check"]).1.contains("twice for ours.example"));
}

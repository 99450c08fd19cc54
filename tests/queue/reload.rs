//! Another configuration while mail comes and goes.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const SEALS: &str = "[default]\nencrypt = \"require\"\n";

fn listener(name: &str, port: u16) -> String {
    format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\ndirection = \"inbound\"\n")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_changes_under_live_mail_and_who_is_in_the_middle_of_data_goes_on_as_he_began() {
    let node = Node::new(CLEAR).await;
    let served = node.serve();
    let bert = node.import(BERT);
    let message = plain(ANNA, BERT, "x", CANARY);
    let (head, tail) = message.split_at(message.len() / 2);
    let mut client = served.client("out").await;
    for (command, code) in
        [(format!("MAIL FROM:<{ANNA}>"), 250), (format!("RCPT TO:<{BERT}>"), 250), ("DATA".into(), 354)]
    {
        assert_eq!(client.say(&command).await.code, code);
    }
    client.write(head.as_bytes()).await.unwrap();
    let mut idle = served.client("out").await;

    node.configure(SEALS, "");
    assert_eq!(node.good(&["config", "reload"]).out, "the configuration is in use\n");
    client.write(format!("{tail}.\r\n").as_bytes()).await.unwrap();
    assert_eq!(client.hear().await.code, 250);
    assert!(node.world.wait(1).await[0].text().contains(CANARY), "by the rule it began with");
    // Both sessions are still there.
    assert_eq!((client.say("NOOP").await.code, idle.say("NOOP").await.code), (250, 250));

    // Who comes now is treated by the new rule, at the same address.
    served.send(ANNA, &[BERT], &message).await;
    assert!(is_sealed_for(&node.world.wait(2).await[1].message, &[&bert]));
    let refused = served.client("out").await.send(ANNA, &[CARL], plain(ANNA, CARL, "x", "y").as_bytes()).await;
    assert_eq!(refused.code, 550, "{}", refused.octets);
    served.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_errors_is_refused_with_its_place_and_the_old_one_stays_in_use() {
    let node = Node::new(SEALS).await;
    let served = node.serve();
    let before = std::fs::read_to_string(node.path("waxwing.toml")).unwrap();
    let bad = before.replace("encrypt = \"require\"", "encrypt = \"perhaps\"\nsing = \"require\"");
    std::fs::write(node.path("waxwing.toml"), &bad).unwrap();
    let line = bad.lines().position(|line| line.contains("perhaps")).unwrap() + 1;
    served.signal("-HUP");
    let log = until("it is refused", || Some(served.log()).filter(|log| log.contains("was refused")));
    let place = format!("waxwing.toml:{line}: default.encrypt: found \\\"perhaps\\\"");
    assert!(log.contains(&place) && log.contains("sing"), "{place}: {log}");
    let said = node.run(&["config", "reload"]);
    assert!(said.code == 2 && said.err.contains(&format!("waxwing.toml:{line}: default.encrypt")), "{said:?}");
    let refused = served.client("out").await.send(ANNA, &[CARL], plain(ANNA, CARL, "x", CANARY).as_bytes()).await;
    assert_eq!(refused.code, 550, "the old rule holds: {}", refused.octets);
    never_in_clear(&node.world);

    // A file that reads well and cannot be used: an address that somebody has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    node.configure(CLEAR, &listener("more", taken.local_addr().unwrap().port()));
    let refused = node.run(&["config", "reload"]);
    assert!(refused.code == 2 && refused.err.contains("cannot listen on"), "{refused:?}");
    let refused = served.client("out").await.send(ANNA, &[CARL], plain(ANNA, CARL, "x", CANARY).as_bytes()).await;
    assert_eq!(refused.code, 550, "none of it holds: {}", refused.octets);
    served.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_and_go_and_sessions_stay_and_what_needs_a_restart_is_named() {
    let node = Node::new(CLEAR).await;
    let (one, two) = (free_port(), free_port());
    node.configure(CLEAR, &listener("one", one));
    let served = node.serve();
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut session = Client::connect(at(one)).await;
    node.configure(CLEAR, &listener("two", two));
    served.signal("-HUP");
    until("the new one listens", || std::net::TcpStream::connect(at(two)).ok());
    until("the old one does not", || std::net::TcpStream::connect(at(one)).is_err().then_some(()));
    let to = "anna@ours.example";
    let message = plain("x@else.example", to, "x", "through the old session");
    assert_eq!(session.send("x@else.example", &[to], message.as_bytes()).await.code, 250, "it goes on");
    assert!(node.server.wait(1).await[0].text().contains("through the old session"));
    assert_eq!(Client::connect(at(two)).await.send("x@else.example", &[to], message.as_bytes()).await.code, 250);

    // Other folders cannot be had without a restart: said, and the rest is used.
    let text = std::fs::read_to_string(node.path("waxwing.toml")).unwrap();
    let other = text.replace("delivery = \"queue\"", "delivery = \"queue\"\nlog = \"json\"");
    std::fs::write(node.path("waxwing.toml"), other.replace("pass = true", "reject = \"closed today\"")).unwrap();
    let kept = node.run(&["config", "reload", "--json"]);
    assert_eq!(
        (kept.code, kept.json()["kept"][0].as_str().map(|what| what.contains("log"))),
        (1, Some(true)),
        "{kept:?}"
    );
    let refused = served.client("out").await.send(ANNA, &[CARL], plain(ANNA, CARL, "x", "y").as_bytes()).await;
    assert!(refused.code == 550 && refused.octets.contains("closed today"), "{}", refused.octets);
    drop(session);
    served.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_held_mail_does_not_leave_in_clear_by_itself_when_the_rules_become_weaker() {
    let node = Node::new(HOLD).await;
    let served = node.serve();
    served.send(ANNA, &[CARL], &plain(ANNA, CARL, "x", CANARY)).await;
    let id = node.ids(&["--state", "held"]).remove(0);
    node.configure("[default]\nsign = \"if-key\"\n", "");
    node.good(&["config", "reload"]);
    let why = || node.list(&[])[0]["held"].as_str().unwrap().to_owned();
    until("it was looked at", || why().contains("for a person to release").then_some(()));
    never_in_clear(&node.world);
    // A person may say so: by the rules as they are now.
    assert!(node.good(&["queue", "release", &id]).out.contains("leaves: clear by rule default"));
    assert!(node.world.wait(1).await[0].text().contains(CANARY));
    served.stop();
}

/// Speaks TLS from the first octet, believing one CA: the greeting, or none.
async fn greeted(port: u16, ca: &Issued) -> Option<BufReader<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.certificate.der().to_vec())).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("220 "), "{line}");
    Some(stream)
}

/// A certificate for `localhost` and its key, as the listener reads them.
fn write_identity(node: &Node, ca: &Issued) {
    let recipe = Recipe {
        mailboxes: Vec::new(),
        hosts: vec!["localhost".into()],
        key_usage: vec!["digitalSignature"],
        email_protection: Some(false),
        ..Recipe::mailbox("localhost", Timestamp::now(), NewKey::P256)
    };
    let issued = issue(&recipe, Some(ca));
    let pem =
        |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    std::fs::write(node.path("tls.pem"), pem("CERTIFICATE", issued.certificate.der())).unwrap();
    std::fs::write(node.path("tls.key"), pem("PRIVATE KEY", &issued.pkcs8)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_gets_its_new_certificate_and_keeps_its_socket_and_sessions() {
    let node = Node::new(CLEAR).await;
    let authority = |name: &str| issue(&Recipe::authority(name, Timestamp::now(), NewKey::P256), None);
    let (old, new, port) = (authority("Old"), authority("New"), free_port());
    write_identity(&node, &old);
    let tls = format!(
        "{}tls = \"implicit\"\ncertificate = \"{here}/tls.pem\"\nkey = \"{here}/tls.key\"\n",
        listener("sealed", port),
        here = node.folder.path().display()
    );
    node.configure(CLEAR, &tls);
    let served = node.serve();
    let mut session = greeted(port, &old).await.expect("the first certificate");
    write_identity(&node, &new);
    node.good(&["config", "reload"]);
    assert!(greeted(port, &new).await.is_some(), "the new certificate");
    assert!(greeted(port, &old).await.is_none(), "and no longer the old one");
    session.get_mut().write_all(b"NOOP\r\n").await.unwrap();
    let mut line = String::new();
    session.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("250"), "who was there is still there: {line}");

    // A key that cannot be read: refused with the file, and the certificate in use stays.
    std::fs::write(node.path("tls.key"), "no key").unwrap();
    let refused = node.run(&["config", "reload"]);
    assert!(refused.code == 2 && refused.err.contains("tls.key"), "{refused:?}");
    assert!(greeted(port, &new).await.is_some());
    drop(session);
    served.stop();
}

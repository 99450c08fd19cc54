//! Real daemons on both sides: Postfix -> Waxwing -> Postfix, out and in; what comes out is judged by OpenSSL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "server")]

#[path = "support/outside.rs"]
mod outside;
#[path = "support/people.rs"]
mod people;
#[path = "support/postfix.rs"]
mod server;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use people::{fill_store, opened_by_bob, sealed_by_bob, signed_by_bob, waxwing, write_pki};
use server::{Postfix, free_ports, listening, peers_present, run, until};
use socket2::{SockAddr, Socket};

struct Waxwing(Child);

impl Drop for Waxwing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hands a mail in over SMTP; the final answer must be 250.
fn submit(port: u16, from: &str, to: &str, mail: &[u8]) {
    submit_from("127.0.0.1", port, from, to, mail);
}

/// The same, from an address of loopback.
fn submit_from(source: &str, port: u16, from: &str, to: &str, mail: &[u8]) {
    let address = |text: String| SockAddr::from(text.parse::<SocketAddr>().unwrap());
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address(format!("{source}:0"))).unwrap();
    socket.connect(&address(format!("127.0.0.1:{port}"))).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut expect = |code: &str| loop {
        let line = answers.next().unwrap().unwrap();
        assert!(line.starts_with(code), "{line}");
        if line.as_bytes().get(3) != Some(&b'-') {
            break;
        }
    };
    expect("220");
    for (command, code) in [
        ("EHLO test.example".to_owned(), "250"),
        (format!("MAIL FROM:<{from}>"), "250"),
        (format!("RCPT TO:<{to}>"), "250"),
        ("DATA".to_owned(), "354"),
    ] {
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        expect(code);
    }
    stream.write_all(mail).unwrap();
    stream.write_all(b"\r\n.\r\n").unwrap();
    expect("250");
}

fn start_waxwing(folder: &Path, [out, inn]: [u16; 2], outbound_hop: u16, inbound_hop: u16) -> Waxwing {
    let here = folder.display();
    let config = folder.join("waxwing.toml");
    let text = format!(
        "hostname = \"gw.example.org\"\ndomains = [\"example.org\"]\nstore = \"{here}/store\"\nkek = \"{here}/kek\"\nspool = \"{here}/spool\"\n\
         [[listener]]\nname = \"out\"\naddress = \"127.0.0.1:{out}\"\ndirection = \"outbound\"\ntrusted_networks = [\"127.0.0.0/8\"]\n\
         [[listener]]\nname = \"in\"\naddress = \"127.0.0.1:{inn}\"\ndirection = \"inbound\"\n\
         [next_hop.outbound]\nhost = \"127.0.0.1\"\nport = {outbound_hop}\n[next_hop.inbound]\nhost = \"127.0.0.1\"\nport = {inbound_hop}\n\
         [default]\nsign = \"require\"\nencrypt = \"require\"\n"
    );
    fs::write(&config, text).unwrap();
    fill_store(folder, &config);
    let log = fs::File::create(folder.join("waxwing.log")).unwrap();
    let child = Waxwing(waxwing(&config).arg("serve").stdout(Stdio::null()).stderr(log).spawn().unwrap());
    listening(out);
    listening(inn);
    child
}

#[test]
fn postfix_waxwing_postfix_both_ways() {
    if !peers_present(&["postfix", "openssl"]) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    run(Command::new("chmod").arg("755").arg(folder));
    write_pki(folder);
    let [ours, theirs, out, inn] = free_ports();
    let _gateway = start_waxwing(folder, [out, inn], theirs, ours);
    let our_postfix = Postfix::start(&folder.join("ours"), ours, "example.org", out, "");
    let their_postfix = Postfix::start(&folder.join("theirs"), theirs, "partner.example", inn, "");

    // Out: what Anna writes reaches Bob's inbox sealed; OpenSSL opens it with Bob's key and believes Anna's signature.
    let mail = "From: Anna <anna@example.org>\r\nTo: bob@partner.example\r\nSubject: Angebot\r\n\
                Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u{fc}\u{df}e, 5 \u{20ac}\r\nFrom here on: secret\r\n";
    submit(our_postfix.port, "anna@example.org", "bob@partner.example", mail.as_bytes());
    let arrived = their_postfix.mails(1).remove(0);
    let text = String::from_utf8_lossy(&arrived);
    assert!(text.contains("smime-type=enveloped-data") && !text.contains("secret"), "{text}");
    let content = opened_by_bob(folder, &arrived);
    assert!(content.contains("Grüße, 5 €") && content.contains("From here on: secret"), "{content}");

    // In: what Bob's OpenSSL signs and encrypts to Anna reaches her inbox opened, and the verdict is pass.
    let sealed = sealed_by_bob(folder, "Re", "Agreed.");
    submit(their_postfix.port, "bob@partner.example", "anna@example.org", sealed.trim_end().as_bytes());
    let arrived = our_postfix.mails(1).remove(0);
    let text = String::from_utf8_lossy(&arrived);
    assert!(text.contains("Agreed.") && text.contains("smime=pass"), "{text}");

    // The same with one octet of the signed text changed: delivered, and never called valid.
    let clear = signed_by_bob(folder, "Agreed.");
    assert!(clear.contains("Agreed."));
    let tampered = format!(
        "From: bob@partner.example\r\nTo: anna@example.org\r\nSubject: Re\r\n{}",
        clear.replace("Agreed.", "Agreed!")
    );
    submit(their_postfix.port, "bob@partner.example", "anna@example.org", tampered.trim_end().as_bytes());
    let arrived = our_postfix.mails(2);
    let text = arrived.iter().map(|mail| String::from_utf8_lossy(mail)).find(|mail| mail.contains("Agreed!")).unwrap();
    assert!(text.contains("smime=fail") && !text.contains("smime=pass"), "{text}");
}

/// A gateway that takes inbound mail from whom may say XFORWARD, passes it as it is, and tells its next hop likewise.
fn start_filter(folder: &Path, delivery: &str, [listen, hop]: [u16; 2]) -> Waxwing {
    fs::create_dir(folder).unwrap();
    let here = folder.display();
    let config = folder.join("waxwing.toml");
    let text = format!(
        "hostname = \"gw.example.org\"\ndomains = [\"example.org\"]\nstore = \"{here}/store\"\nkek = \"{here}/kek\"\nspool = \"{here}/spool\"\n\
         delivery = \"{delivery}\"\n[[listener]]\nname = \"in\"\naddress = \"127.0.0.1:{listen}\"\ndirection = \"inbound\"\n\
         xforward = [\"127.0.0.1\"]\n[next_hop.outbound]\nhost = \"127.0.0.1\"\nport = {hop}\n\
         [next_hop.inbound]\nhost = \"127.0.0.1\"\nport = {hop}\nxforward = true\n[default]\nsign = \"never\"\nencrypt = \"never\"\n"
    );
    fs::write(&config, text).unwrap();
    run(waxwing(&config).args(["kek", "init"]).arg(folder.join("kek")).arg("--store").arg(folder.join("store")));
    let log = fs::File::create(folder.join("waxwing.log")).unwrap();
    let child = Waxwing(waxwing(&config).arg("serve").stdout(Stdio::null()).stderr(log).spawn().unwrap());
    listening(listen);
    child
}

/// Postfix with Waxwing as its content filter: the Postfix behind knows the client of the first, whether mail goes straight through or by the
/// spool; and so does whoever reads Received or our log.
#[test]
fn a_content_filter_keeps_the_clients_address() {
    if !peers_present(&["postfix"]) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    run(Command::new("chmod").arg("755").arg(folder));
    let [back_port, nowhere] = free_ports();
    let trusting = "smtpd_authorized_xforward_hosts = 127.0.0.0/8\n";
    let back = Postfix::start(&folder.join("back"), back_port, "example.org", nowhere, trusting);
    for (number, (delivery, client)) in [("cut-through", "127.0.0.9"), ("queue", "127.0.0.10")].into_iter().enumerate()
    {
        let [front_port, listen] = free_ports();
        let at = folder.join(delivery);
        let _gateway = start_filter(&at, delivery, [listen, back_port]);
        let more = format!("content_filter = smtp:[127.0.0.1]:{listen}\nsmtp_send_xforward_command = yes\n");
        let front =
            Postfix::start(&folder.join(format!("front-{delivery}")), front_port, "front.example", nowhere, &more);
        let mail = format!("From: b@else.example\r\nTo: anna@example.org\r\nSubject: {delivery}\r\n\r\nhello\r\n");
        submit_from(client, front.port, "b@else.example", "anna@example.org", mail.as_bytes());
        let arrived = back.mails(number + 1);
        let text = arrived.iter().map(|mail| String::from_utf8_lossy(mail).into_owned());
        let text = text.into_iter().find(|mail| mail.contains(&format!("Subject: {delivery}"))).unwrap();
        let received =
            format!("Received: from test.example ([{client}])\n\t(forwarded by [127.0.0.1])\n\tby gw.example.org");
        assert!(text.contains(&received), "{text}");
        until("the client in the log of the second Postfix", || {
            let log = fs::read_to_string(back.folder.join("log")).ok()?;
            log.lines().find(|line| line.contains("orig_queue_id=") && line.contains(&format!("[{client}]"))).map(drop)
        });
        until("the client in our log", || {
            let log = fs::read_to_string(at.join("waxwing.log")).ok()?;
            log.lines().find(|line| line.contains("client=") && line.contains(&format!("[{client}]"))).map(drop)
        });
    }
}

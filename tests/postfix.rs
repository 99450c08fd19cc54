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

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use outside::find;
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::pkcs12::{Bundle, export};

/// Whether the peers are here, and may be started: Postfix wants root.
fn peers_present() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| {
        id.stdout
            == b"0
"
    });
    outside::peers(if root { &["postfix", "openssl"] } else { &["postfix", "openssl", "root, which Postfix wants"] })
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    output
}

/// Polls until it holds; a minute at most.
fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited a minute for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    std::array::from_fn(|index| listeners[index].local_addr().unwrap().port())
}

fn listening(port: u16) {
    until("a listener", || TcpStream::connect(("127.0.0.1", port)).ok());
}

/// A Postfix of our own: folders, port, final destination for one domain (a maildir), everything else to a relay host.
struct Postfix {
    folder: PathBuf,
    port: u16,
}

impl Postfix {
    fn start(folder: &Path, port: u16, domain: &str, relay_port: u16) -> Self {
        let at = |name: &str| folder.join(name);
        for name in ["etc", "queue", "data", "mail"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        run(Command::new("chown").arg("postfix").arg(at("data")));
        run(Command::new("chown").arg("65534").arg(at("mail")));
        let here = folder.display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {here}/queue\ndata_directory = {here}/data\nmaillog_file = {here}/log\n\
             maillog_file_prefixes = /\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = mx.{domain}\n\
             mydestination =\nmynetworks = 127.0.0.0/8\nrelayhost = [127.0.0.1]:{relay_port}\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\nvirtual_mailbox_domains = {domain}\n\
             virtual_mailbox_base = {here}/mail\nvirtual_mailbox_maps = static:inbox/\nvirtual_uid_maps = static:65534\n\
             virtual_gid_maps = static:65534\nvirtual_minimum_uid = 1\nlocal_recipient_maps =\nalias_maps =\nalias_database =\n\
             smtp_tls_security_level = none\nsmtpd_tls_security_level = none\nsmtp_dns_support_level = disabled\n\
             smtp_host_lookup = native\nsmtpd_peername_lookup = no\nminimal_backoff_time = 1s\nmaximal_backoff_time = 2s\n\
             queue_run_delay = 1s\n"
        );
        fs::write(at("etc/main.cf"), main).unwrap();
        let mut master = format!(
            "127.0.0.1:{port} inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\nvirtual unix y n n - - virtual\n"
        );
        for (service, program) in [
            ("pickup", "pickup"),
            ("cleanup", "cleanup"),
            ("qmgr", "qmgr"),
            ("rewrite", "trivial-rewrite"),
            ("bounce", "bounce"),
            ("defer", "bounce"),
            ("trace", "bounce"),
            ("proxymap", "proxymap"),
            ("anvil", "anvil"),
            ("scache", "scache"),
            ("smtp", "smtp"),
            ("error", "error"),
            ("retry", "error"),
            ("discard", "discard"),
            ("tlsmgr", "tlsmgr"),
        ] {
            let limit = match service {
                "pickup" | "qmgr" | "anvil" | "scache" | "tlsmgr" => "1",
                "cleanup" | "bounce" | "defer" | "trace" => "0",
                _ => "-",
            };
            let wakeup = if ["pickup", "qmgr"].contains(&service) { "5" } else { "-" };
            let private = if ["pickup", "cleanup", "qmgr"].contains(&service) { "n" } else { "y" };
            master += &format!("{service} unix {private} - n {wakeup} {limit} {program}\n");
        }
        fs::write(at("etc/master.cf"), master).unwrap();
        run(Command::new(find("postfix").unwrap()).arg("-c").arg(at("etc")).arg("start").stdout(Stdio::null()));
        listening(port);
        Self { folder: folder.to_owned(), port }
    }

    /// The mails that have arrived, waiting for `count` of them.
    fn mails(&self, count: usize) -> Vec<Vec<u8>> {
        let inbox = self.folder.join("mail/inbox/new");
        let names = until("mails in the inbox", || {
            let mut names: Vec<PathBuf> = fs::read_dir(&inbox).ok()?.map(|entry| entry.unwrap().path()).collect();
            names.sort();
            (names.len() >= count).then_some(names)
        });
        names.iter().map(|name| fs::read(name).unwrap()).collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if let Some(postfix) = find("postfix") {
            let _ = Command::new(postfix).arg("-c").arg(self.folder.join("etc")).arg("stop").output();
        }
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
        }
    }
}

struct Waxwing(Child);

impl Drop for Waxwing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn waxwing(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
    command.arg("--config").arg(config);
    command
}

/// Hands a mail in over SMTP; the final answer must be 250.
fn submit(port: u16, from: &str, to: &str, mail: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
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

fn leaf(address: &str, ca: &Issued, now: Timestamp) -> Issued {
    let recipe = Recipe {
        common_name: address.to_owned(),
        mailboxes: vec![address.to_owned()],
        hosts: Vec::new(),
        not_before: now - 1.hour(),
        not_after: now + 240.hours(),
        ca: None,
        key_usage: vec!["digitalSignature", "keyEncipherment"],
        email_protection: Some(true),
        permitted_mail: Vec::new(),
        crl: None,
        key: NewKey::Rsa2048,
    };
    issue(&recipe, Some(ca))
}

/// The PKI as files: `NAME.pem`, `NAME.key` (PKCS#8 DER), `NAME.p12` (password "test").
fn write_pki(folder: &Path) {
    let now = Timestamp::now();
    let recipe = Recipe {
        common_name: "Test CA".into(),
        mailboxes: Vec::new(),
        hosts: Vec::new(),
        not_before: now - 1.hour(),
        not_after: now + 2400.hours(),
        ca: Some(None),
        key_usage: vec!["keyCertSign", "cRLSign"],
        email_protection: None,
        permitted_mail: Vec::new(),
        crl: None,
        key: NewKey::Rsa2048,
    };
    let ca = issue(&recipe, None);
    fs::write(folder.join("ca.der"), ca.certificate.der()).unwrap();
    for (name, address) in [("anna", "anna@example.org"), ("bob", "bob@partner.example")] {
        let issued = leaf(address, &ca, now);
        fs::write(folder.join(format!("{name}.der")), issued.certificate.der()).unwrap();
        fs::write(folder.join(format!("{name}.key")), &*issued.pkcs8).unwrap();
        let bundle = Bundle {
            keys: vec![issued.pkcs8.clone()],
            certificates: vec![issued.certificate.clone()],
            ..Bundle::default()
        };
        fs::write(folder.join(format!("{name}.p12")), export(&bundle, "test", name).unwrap()).unwrap();
    }
    for name in ["ca", "anna", "bob"] {
        let (der, pem) = (folder.join(format!("{name}.der")), folder.join(format!("{name}.pem")));
        run(Command::new("openssl").args(["x509", "-inform", "DER"]).arg("-in").arg(der).arg("-out").arg(pem));
    }
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
    fs::write(folder.join("password"), "test\n").unwrap();
    run(waxwing(&config).args(["kek", "init"]).arg(folder.join("kek")));
    run(waxwing(&config).args(["trust", "add"]).arg(folder.join("ca.der")));
    let import = ["cert", "import", "--password-file"];
    run(waxwing(&config)
        .args(import)
        .arg(folder.join("password"))
        .arg(folder.join("anna.p12"))
        .arg(folder.join("bob.der")));
    let log = fs::File::create(folder.join("waxwing.log")).unwrap();
    let child = Waxwing(waxwing(&config).arg("serve").stdout(Stdio::null()).stderr(log).spawn().unwrap());
    listening(out);
    listening(inn);
    child
}

fn openssl(folder: &Path, arguments: &str) -> Output {
    Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap()
}

#[test]
fn postfix_waxwing_postfix_both_ways() {
    if !peers_present() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    run(Command::new("chmod").arg("755").arg(folder));
    write_pki(folder);
    let [ours, theirs, out, inn] = free_ports();
    let _gateway = start_waxwing(folder, [out, inn], theirs, ours);
    let our_postfix = Postfix::start(&folder.join("ours"), ours, "example.org", out);
    let their_postfix = Postfix::start(&folder.join("theirs"), theirs, "partner.example", inn);

    // Out: what Anna writes reaches Bob's inbox sealed; OpenSSL opens it with Bob's key and believes Anna's signature.
    let mail = "From: Anna <anna@example.org>\r\nTo: bob@partner.example\r\nSubject: Angebot\r\n\
                Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u{fc}\u{df}e, 5 \u{20ac}\r\nFrom here on: secret\r\n";
    submit(our_postfix.port, "anna@example.org", "bob@partner.example", mail.as_bytes());
    let arrived = their_postfix.mails(1).remove(0);
    let text = String::from_utf8_lossy(&arrived);
    assert!(text.contains("smime-type=enveloped-data") && !text.contains("secret"), "{text}");
    fs::write(folder.join("arrived.eml"), &arrived).unwrap();
    let opened =
        openssl(folder, "cms -decrypt -in arrived.eml -inkey bob.key -keyform DER -recip bob.pem -out opened.eml");
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    let verified = openssl(folder, "cms -verify -in opened.eml -CAfile ca.pem -out content.eml -signer signer.pem");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let content = fs::read(folder.join("content.eml")).unwrap();
    let content = mail_parser::MessageParser::default().parse(&content).unwrap().body_text(0).unwrap().into_owned();
    assert!(content.contains("Grüße, 5 €") && content.contains("From here on: secret"), "{content}");

    // In: what Bob's OpenSSL signs and encrypts to Anna reaches her inbox opened, and the verdict is pass.
    fs::write(folder.join("reply.txt"), "Content-Type: text/plain\r\n\r\nAgreed.\r\n").unwrap();
    run(Command::new("openssl").current_dir(folder).args(
        "cms -sign -in reply.txt -signer bob.pem -inkey bob.key -keyform DER -md sha256 -out signed.eml -crlfeol"
            .split(' '),
    ));
    let sealed = openssl(
        folder,
        "cms -encrypt -in signed.eml -aes256 -from bob@partner.example -to anna@example.org -subject Re -out sealed.eml anna.pem",
    );
    assert!(sealed.status.success(), "{}", String::from_utf8_lossy(&sealed.stderr));
    let sealed = fs::read_to_string(folder.join("sealed.eml")).unwrap().replace("\r\n", "\n").replace('\n', "\r\n");
    submit(their_postfix.port, "bob@partner.example", "anna@example.org", sealed.trim_end().as_bytes());
    let arrived = our_postfix.mails(1).remove(0);
    let text = String::from_utf8_lossy(&arrived);
    assert!(text.contains("Agreed.") && text.contains("smime=pass"), "{text}");

    // The same with one octet of the signed text changed: delivered, and never called valid.
    let clear = fs::read_to_string(folder.join("signed.eml")).unwrap().replace("\r\n", "\n").replace('\n', "\r\n");
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

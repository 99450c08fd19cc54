//! Where a guide is tried: a folder with a PKI, the world as a sink, the real gateway, and mails of every kind both ways.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::page::Page;
use crate::people::{
    ANNA, BOB, decrypted_by_bob, fill_store, opened_by_bob, sealed_by_bob, signed_by_bob, verified, waxwing, write_pki,
};
use crate::server::{listening, run};
use crate::support::house::plain;
use crate::support::sink::Mail;
use crate::support::{Client, Sink};

/// From where the world sends: no server of the tests trusts it.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
const CARL: &str = "carl@example.org";
const DORA: &str = "dora@third.example";

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub struct Site {
    pub folder: TempDir,
    /// The world.
    pub world: Sink,
}

/// The gateway at work.
pub struct Gateway {
    child: Child,
    log: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Site {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Servers look in with users of their own.
        run(Command::new("chmod").arg("755").arg(folder.path()));
        write_pki(folder.path());
        let names = "subjectAltName=DNS:gw.example.org,DNS:mx.example.org,IP:127.0.0.1";
        run(Command::new("openssl").current_dir(folder.path()).args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.pem -days 2 -subj /CN=test -addext"
                .split(' ')
                .chain([names]),
        ));
        Self { folder, world: Sink::start().await }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn world_port(&self) -> u16 {
        self.world.address.port()
    }

    /// The page's `waxwing.toml`, checked as it stands, with this site's folders and what else is to be changed.
    pub fn waxwing_toml(&self, page: &Page, variant: &str, changes: &[(&str, String)]) -> String {
        let folders = [
            ("/var/lib/waxwing/store", self.path("store")),
            ("/etc/waxwing/kek", self.path("kek")),
            ("/var/spool/waxwing", self.path("spool")),
        ];
        page.adapted("waxwing.toml", variant, &[folders.as_slice(), changes].concat())
    }

    /// Starts the gateway with a configuration; ready when it listens at these ports.
    pub fn gateway(&self, toml: &str, ports: &[u16]) -> Gateway {
        let config = self.folder.path().join("waxwing.toml");
        fs::write(&config, toml).unwrap();
        fill_store(self.folder.path(), &config);
        let log = self.folder.path().join("waxwing.log");
        let mut serve = waxwing(&config);
        serve.arg("serve").stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let gateway = Gateway { child: serve.spawn().unwrap(), log };
        ports.iter().for_each(|port| listening(*port));
        gateway
    }
}

/// How our users get in.
pub enum Door {
    /// From this machine, which is trusted.
    Local(SocketAddr),
    /// TLS from the first octet, and a login.
    Login { port: u16, ca: PathBuf, user: String, password: String },
}

impl Door {
    /// Sends; all recipients must be taken.
    pub async fn send(&self, from: &str, to: &[&str], mail: &str) {
        match self {
            Self::Local(address) => {
                let said = Client::connect(*address).await.send(from, to, mail.as_bytes()).await;
                assert_eq!(said.code, 250, "{}", said.octets);
            }
            Self::Login { port, ca, user, password } => {
                let program = "import smtplib, ssl, sys\n\
                     port, ca, user, password, sender, to, mail = sys.argv[1:]\n\
                     server = smtplib.SMTP_SSL('127.0.0.1', int(port), context=ssl.create_default_context(cafile=ca), timeout=60)\n\
                     server.login(user, password)\n\
                     refused = server.sendmail(sender, to.split(','), mail.encode())\n\
                     server.quit()\n\
                     sys.exit(str(refused) if refused else 0)";
                run(Command::new("python3").args(["-c", program, &port.to_string()]).arg(ca).args([
                    user,
                    password,
                    from,
                    &to.join(","),
                    mail,
                ]));
            }
        }
    }
}

/// What a guide set up.
pub struct Flow<'s> {
    pub site: &'s Site,
    pub users: Door,
    /// Where the world hands in.
    pub world: SocketAddr,
    /// Where mail of the world comes into the gateway.
    pub gateway: SocketAddr,
    /// Anna's maildir.
    pub inbox: PathBuf,
    /// Whether the gateway sees the world's address, or the server in front of it alone.
    pub sees_client: bool,
    /// Whether mail among us passes the gateway, or stays in the server.
    pub among_us: bool,
    /// What a recipient that does not exist is told at RCPT.
    pub unknown: &'static str,
}

impl Flow<'_> {
    fn folder(&self) -> &Path {
        self.site.folder.path()
    }

    /// Sends from outside.
    pub async fn send_in(&self, from: &str, to: &str, mail: &str) {
        let said = Client::connect_from(STRANGER, self.world).await.send(from, &[to], mail.as_bytes()).await;
        assert_eq!(said.code, 250, "{}", said.octets);
    }

    /// Sends both ways what people send, and says of each mail what became of it. In the end every mail is where it belongs, once.
    pub async fn both_ways(&self) {
        self.out().await;
        self.inward().await;
        self.turned_away().await;
        self.nothing_doubled(
            &["1-sealed", "2-signed", "3-plain", "8-both"],
            &["4-sealed", "5-plain", "6-tampered", "8-both"],
        )
        .await;
    }

    async fn out(&self) {
        self.users.send(ANNA, &[BOB], &plain(ANNA, BOB, "1-sealed", "It is a secret.")).await;
        let mail = self.left("1-sealed").await;
        assert_eq!((mail.from.as_str(), mail.to.as_slice()), (ANNA, [BOB.to_owned()].as_slice()));
        assert!(mail.text().contains("smime-type=enveloped-data"), "{}", mail.text());
        assert!(opened_by_bob(self.folder(), &mail.message).contains("It is a secret."));
        let octets = self.site.world.octets();
        assert!(!octets.windows(6).any(|octets| octets == b"secret"), "some of it left in clear");

        self.users.send(ANNA, &[DORA], &plain(ANNA, DORA, "2-signed", "No certificate is known of you.")).await;
        let mail = self.left("2-signed").await;
        assert!(verified(self.folder(), &mail.message).contains("No certificate is known of you."));

        self.users.send(CARL, &[DORA], &plain(CARL, DORA, "3-plain", "I have no key.")).await;
        let mail = self.left("3-plain").await.text();
        assert!(mail.ends_with("Content-Type: text/plain; charset=us-ascii\r\n\r\nI have no key.\r\n"), "{mail}");
    }

    async fn inward(&self) {
        self.send_in(BOB, ANNA, sealed_by_bob(self.folder(), "4-sealed", "Agreed, sealed.").trim_end()).await;
        let mail = self.arrived("4-sealed").await;
        assert!(mail.contains("Agreed, sealed.") && mail.contains("smime=pass"), "{mail}");
        assert!(mail.contains("\nX-Waxwing-Signature: valid; signer=\"bob@partner.example\""), "{mail}");
        assert!(mail.contains("\nX-Waxwing-Decrypted: yes"), "{mail}");
        let client = received_by_gateway(&mail)[0];
        assert_eq!(client.contains("([127.0.0.9])"), self.sees_client, "{mail}");
        assert!(self.sees_client || mail.contains("[127.0.0.9]"), "the server in front saw it: {mail}");

        self.send_in(BOB, ANNA, &plain(BOB, ANNA, "5-plain", "Nothing special.")).await;
        let mail = self.arrived("5-plain").await;
        assert!(mail.contains("\n\nNothing special.\n") && mail.contains("smime=none"), "{mail}");

        let signed = signed_by_bob(self.folder(), "Agreed, signed.").replace("Agreed, signed.", "Agreed, signet.");
        let header = format!("From: {BOB}\r\nTo: {ANNA}\r\nSubject: 6-tampered\r\nX-Waxwing-Signature: valid\r\n");
        self.send_in(BOB, ANNA, (header + &signed).trim_end()).await;
        let mail = self.arrived("6-tampered").await;
        assert!(mail.contains("Agreed, signet.") && mail.contains("smime=fail"), "{mail}");
        assert!(!mail.contains("smime=pass") && !mail.contains("X-Waxwing-Signature: valid"), "{mail}");

        // What has passed inwards does not pass again.
        let again = self.arrived("5-plain").await.replace('\n', "\r\n");
        let said = Client::connect(self.gateway).await.send(BOB, &[ANNA], again.as_bytes()).await;
        assert!(said.octets.starts_with("554 5.4.6"), "{}", said.octets);

        // Among us and out in one.
        self.users.send(ANNA, &[ANNA, DORA], &plain(ANNA, ANNA, "8-both", "To us and to you.")).await;
        assert!(verified(self.folder(), &self.left("8-both").await.message).contains("To us and to you."));
        assert!(self.arrived("8-both").await.contains("\n\nTo us and to you.\n"));
    }

    async fn turned_away(&self) {
        for (to, words) in [("nobody-here@example.org", self.unknown), (DORA, "")] {
            let mut client = Client::connect_from(STRANGER, self.world).await;
            client.say(&format!("MAIL FROM:<{BOB}>")).await;
            let said = client.say(&format!("RCPT TO:<{to}>")).await;
            assert!((550..560).contains(&said.code) && said.octets.contains(words), "{to}: {}", said.octets);
        }
    }

    /// Every mail is there, once, and was in the gateway once.
    async fn nothing_doubled(&self, left: &[&str], arrived: &[&str]) {
        let subjects = |texts: Vec<String>| {
            let mut subjects: Vec<String> = texts.iter().map(|text| subject(text)).collect();
            subjects.sort();
            subjects
        };
        let (out, home) = (self.site.world.mails(), self.mails());
        let out: Vec<String> = out.iter().map(Mail::text).collect();
        let (mut through, mut around) = (Vec::new(), Vec::new());
        for text in out.iter().chain(&home) {
            let stays = !self.among_us && subject(text) == "8-both" && !text.contains("multipart/signed");
            if stays { around.push(text) } else { through.push(text) }
        }
        for (texts, times) in [(through, 1), (around, 0)] {
            for text in texts {
                assert_eq!(received_by_gateway(text).len(), times, "{text}");
                assert_eq!(text.matches("X-Waxwing-Loop: ").count(), times, "{text}");
            }
        }
        assert_eq!(subjects(out), left);
        assert_eq!(subjects(home), arrived);
    }

    /// A forwarding address: what a stranger writes to it in Anna's name leaves, and Anna has not signed it. `rounds`: how often the
    /// gateway has it, and the last time seals it.
    pub async fn forwarded(&self, address: &str, rounds: usize) {
        self.send_in("stranger@elsewhere.example", address, &plain(ANNA, address, "9-forged", "Pay him.")).await;
        let mail = self.left("9-forged").await;
        let text = mail.text();
        assert_eq!(mail.to, [BOB], "{text}");
        assert_eq!(received_by_gateway(&text).len(), rounds, "{text}");
        let content = match rounds {
            1 => text,
            _ => String::from_utf8(decrypted_by_bob(self.folder(), &mail.message)).unwrap(),
        };
        assert!(content.contains("Pay him.") && !content.contains("signed"), "{content}");
    }

    /// The mail of this subject that the world has.
    pub async fn left(&self, wanted: &str) -> Mail {
        self.waited(wanted, || self.site.world.mails().into_iter().find(|mail| subject(&mail.text()) == wanted)).await
    }

    /// The mail of this subject in Anna's maildir, with LF.
    async fn arrived(&self, wanted: &str) -> String {
        self.waited(wanted, || self.mails().into_iter().find(|text| subject(text) == wanted)).await
    }

    async fn waited<T>(&self, wanted: &str, found: impl Fn() -> Option<T>) -> T {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                if let Some(found) = found() {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{wanted} did not come in a minute"))
    }

    fn mails(&self) -> Vec<String> {
        let Ok(list) = fs::read_dir(self.inbox.join("new")) else { return Vec::new() };
        list.map(|entry| String::from_utf8(fs::read(entry.unwrap().path()).unwrap()).unwrap().replace("\r\n", "\n"))
            .collect()
    }
}

fn subject(text: &str) -> String {
    let line = text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or_default().to_owned()
}

/// The Received fields that the gateway wrote, latest first, unfolded.
fn received_by_gateway(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("by gw.example.org (Waxwing)") {
        found.push(before.rsplit_once("Received: from ").map_or(before, |(_, from)| from));
        rest = after;
    }
    found
}

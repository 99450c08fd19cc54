//! Each key of a listener, and the rates, before and after another configuration was read by a gateway at work; and what it cannot take.
#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test fails by panicking; one is a table of cases"
)]

#[allow(dead_code, reason = "of the directory server's tools some are not used")]
#[path = "support/directory.rs"]
mod directory;
#[path = "support/outside.rs"]
mod outside;
mod support;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use directory::{Person, Slapd, pem};
use jiff::Timestamp;
use support::house::{House, Plan, plain, read};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use waxwing::config::{Config, Direction, Listener, Rates, User, Users};
use waxwing::pki::authority::{NewKey, Recipe, issue};
use waxwing::relay::listen::{password_hash, password_verifier};

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@partner.example";
const POLICY: &str = "[default]\nsign = \"if-key\"\n";
const TRUSTED: &str = "trusted_networks = [\"127.0.0.0/8\"]\n";
const OUTBOUND: &str = "direction = \"outbound\"\n";
const INBOUND: &str = "direction = \"inbound\"\n";
/// A mail that begins.
const MAIL: [&str; 2] = ["EHLO x", "MAIL FROM:<anna@ours.example>"];
const RCPT: &str = "RCPT TO:<bert@partner.example>";

/// What is done to see what holds.
enum Probe {
    /// These are said one after the other: the last reply.
    Says(Vec<String>),
    /// The same; where no greeting comes first, the first of them is said without. Else it is left out.
    SaysUnlessGreeted(Vec<String>),
    /// A mail of anna's: whether it leaves signed.
    Signs,
}

struct Case {
    /// Keys, or fields of what they make, that it is about.
    keys: &'static [&'static str],
    /// Lines of the listener, before and after; the first `[` begins other sections.
    lines: [String; 2],
    /// A file that becomes another between.
    file: Option<(PathBuf, String)>,
    probe: Probe,
    /// What the reply holds, before and after.
    said: [&'static str; 2],
}

fn says<S: AsRef<str>>(all: impl IntoIterator<Item = S>) -> Probe {
    Probe::Says(all.into_iter().map(|one| one.as_ref().to_owned()).collect())
}

fn case(keys: &'static [&'static str], lines: [&str; 2], probe: Probe, said: [&'static str; 2]) -> Case {
    Case { keys, lines: lines.map(str::to_owned), file: None, probe, said }
}

struct Wire(BufReader<TcpStream>);

impl Wire {
    async fn to(address: SocketAddr, source: IpAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source, 0)).unwrap();
        Self(BufReader::new(socket.connect(address).await.unwrap()))
    }

    async fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    /// A reply; `None`: not in this time.
    async fn hear(&mut self, patience: Duration) -> Option<String> {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(patience, self.0.read_line(&mut line)).await.ok()?;
            assert!(read.unwrap() > 0, "closed after {reply:?}");
            reply.push_str(&line);
            if line.as_bytes().get(3) == Some(&b' ') {
                return Some(reply);
            }
        }
    }
}

const LONG: Duration = Duration::from_secs(60);
/// Where none is to come: a greeting takes no such time.
const SILENCE: Duration = Duration::from_secs(1);

impl Probe {
    async fn of(&self, house: &House, source: IpAddr, after: bool) -> String {
        let mut wire = Wire::to(house.gateway.address("probe").unwrap(), source).await;
        let lines: &[String] = match self {
            Self::Says(lines) => {
                wire.hear(LONG).await.unwrap();
                lines
            }
            Self::SaysUnlessGreeted(lines) => match wire.hear(if after { SILENCE } else { LONG }).await {
                Some(greeting) if lines.len() == 1 => return greeting,
                Some(_) => &lines[1..],
                None => {
                    wire.say(&lines[0]).await;
                    let greeting = wire.hear(LONG).await.unwrap();
                    if lines.len() == 1 {
                        return greeting;
                    }
                    &lines[1..]
                }
            },
            Self::Signs => {
                house.world.clear();
                wire.hear(LONG).await.unwrap();
                let content = format!("{}.", plain(ANNA, BERT, "x", "y"));
                for line in MAIL.into_iter().chain([RCPT, "DATA", &content]) {
                    wire.say(line).await;
                    let said = wire.hear(LONG).await.unwrap();
                    assert!(said.starts_with(['2', '3']), "{line}: {said}");
                }
                let signed = house.world.wait(1).await[0].text().contains("pkcs7-signature");
                return if signed { "signed" } else { "unsigned" }.to_owned();
            }
        };
        let mut said = String::new();
        for line in lines {
            wire.say(line).await;
            said = wire.hear(LONG).await.unwrap();
        }
        said
    }
}

fn plain_login(password: &str) -> String {
    format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{ANNA}\0{password}")))
}

/// A file of users with this password of anna's.
fn users(password: &str) -> String {
    let mut users = Users::default();
    let argon2 = password_hash(password.as_bytes()).unwrap();
    users.set(ANNA, User { argon2, scram: password_verifier(password) }).unwrap();
    users.to_string()
}

/// Lines of a listener with TLS.
fn tls(folder: &Path) -> String {
    let mut recipe = Recipe::mailbox("localhost", Timestamp::now(), NewKey::P256);
    (recipe.mailboxes, recipe.hosts) = (Vec::new(), vec!["localhost".into()]);
    let issued = issue(&recipe, None);
    let (certificate, key) = (folder.join("tls.pem"), folder.join("tls.key"));
    std::fs::write(&certificate, pem("CERTIFICATE", issued.certificate.der())).unwrap();
    std::fs::write(&key, pem("PRIVATE KEY", &issued.pkcs8)).unwrap();
    format!("certificate = \"{}\"\nkey = \"{}\"\n", certificate.display(), key.display())
}

fn cases(folder: &Path, slapd: SocketAddr) -> Vec<Case> {
    let file = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let (horse, tls) = (file("users", &users("horse")), tls(folder));
    let by_file = format!("{OUTBOUND}auth_without_tls = true\nusers = \"{}\"\n", horse.display());
    let by_directory = format!(
        "{OUTBOUND}auth_without_tls = true\n[listener.ldap_users]\nservers = [\"ldap://{slapd}\"]\ntls = \"off\"\ntimeout = \"20 s\"\nbase = \"{}\"\n",
        directory::BASE
    );
    let secret = file("secret", "correct-horse-battery\n");
    let tenant = format!("{OUTBOUND}{TRUSTED}tenant_header = \"X-Tenant: file:{}\"\n", secret.display());
    let with_secret = |secret: &str| format!("X-Tenant: {secret}\r\n{}.", plain(ANNA, BERT, "x", "y"));
    let relays = [&MAIL[..], &[RCPT]].concat();
    let mail = |content: &str| says(MAIL.into_iter().chain([RCPT, "DATA", content]));
    let starttls = |mode: &str, more: &str| format!("{OUTBOUND}{TRUSTED}tls = \"{mode}\"\n{tls}{more}");
    let trusted = format!("{OUTBOUND}{TRUSTED}");
    let untrusted = format!("{OUTBOUND}trusted_networks = [\"192.0.2.7\"]\n");
    let believed = |key: &str| format!("{untrusted}{key} = [\"127.0.0.0/8\"]\n");
    let limits = |rate: &str| format!("{OUTBOUND}[limits]\n{rate}\n");
    let bare = "Subject: x\nTo: bert@partner.example\r\n\r\ny\r\n.";
    let in_a_row = |line: &'static str| says(["EHLO x", "MAIL FROM:<x@y.example>", line, line]);
    let twice = ["EHLO x", "MAIL FROM:<x@y.example>", "RSET", "MAIL FROM:<x@y.example>"];
    let login = plain_login("horse");
    let by_user = |rate: &str| format!("{by_file}[limits]\n{rate}\n");
    let user_twice = [&["EHLO x", &login][..], &twice[1..]].concat();
    let user_rcpt = ["EHLO x", &login, MAIL[1], RCPT, RCPT];
    vec![
        case(&["direction"], [&trusted, &trusted.replace("outbound", "inbound")], says(&relays), ["250", "550 5.7.1"]),
        case(&["trusted_networks"], [OUTBOUND, &trusted], says(&relays), ["550 5.7.1", "250"]),
        case(&["tls"], [&trusted, &starttls("starttls-required", "")], says(MAIL), ["250 2.1.0", "530"]),
        case(
            &["proxies"],
            [&untrusted, &believed("proxies")],
            Probe::SaysUnlessGreeted(
                ["PROXY TCP4 192.0.2.7 192.0.2.8 1 25"].iter().chain(&relays).map(|line| (*line).to_owned()).collect(),
            ),
            ["550 5.7.1", "250"],
        ),
        case(
            &["xclient"],
            [&untrusted, &believed("xclient")],
            says(["EHLO x", "XCLIENT ADDR=192.0.2.7"]),
            ["550 5.7.0", "220"],
        ),
        case(
            &["xforward"],
            [&untrusted, &believed("xforward")],
            says(["EHLO x", "XFORWARD ADDR=192.0.2.7"]),
            ["550 5.7.0", "250"],
        ),
        case(&["tenant"], [&trusted, &tenant], mail(&with_secret("guessed")), ["250", "550 5.7.1"]),
        Case {
            file: Some((secret, "staple-battery-horse\n".to_owned())),
            ..case(&["tenant"], [&tenant, &tenant], mail(&with_secret("staple-battery-horse")), ["550 5.7.1", "250"])
        },
        case(
            &["tenant"],
            [
                &starttls("starttls", ""),
                &starttls(
                    "starttls",
                    &format!("tenant_certificate = [\"a.example\"]\ntenant_ca = \"{}/tls.pem\"\n", folder.display()),
                ),
            ],
            says(MAIL),
            ["250", "550 5.7.1"],
        ),
        case(
            &["senders"],
            [&trusted, &format!("{trusted}senders = [\"else.example\"]\n")],
            Probe::Signs,
            ["signed", "unsigned"],
        ),
        case(&["users"], [OUTBOUND, &by_file], says(["EHLO x", &login]), ["503", "235"]),
        case(
            &["ldap_users"],
            [&by_file, &by_directory],
            says(["EHLO x", &plain_login("directory horse")]),
            ["535", "235"],
        ),
        case(
            &["auth_without_tls"],
            [
                &by_file.replace("auth_without_tls = true\n", &format!("tls = \"starttls\"\n{tls}")),
                &by_file.replace(
                    "auth_without_tls = true\n",
                    &format!("tls = \"starttls\"\n{tls}auth_without_tls = true\n"),
                ),
            ],
            says(["EHLO x", &login]),
            ["538", "235"],
        ),
        case(&["lmtp"], [OUTBOUND, &format!("{OUTBOUND}lmtp = true\n")], says(["LHLO x"]), ["500", "250"]),
        case(
            &["greeting_delay"],
            [OUTBOUND, &format!("{OUTBOUND}greeting_delay = \"60 s\"\n")],
            Probe::SaysUnlessGreeted(vec!["EHLO x".to_owned()]),
            ["220", "554"],
        ),
        case(
            &["repair_line_ends"],
            [&trusted, &format!("{trusted}repair_line_ends = true\n")],
            mail(bare),
            ["550 5.6.0", "250"],
        ),
        case(
            &["mails_per_client"],
            [OUTBOUND, &limits("mails_per_client = \"1/day\"")],
            says(twice),
            ["250", "451 4.7.1"],
        ),
        case(
            &["recipients_per_client"],
            [INBOUND, &limits("recipients_per_client = \"1/day\"").replace(OUTBOUND, INBOUND)],
            in_a_row("RCPT TO:<anna@ours.example>"),
            ["250", "451 4.7.1"],
        ),
        case(
            &["for_trusted"],
            [
                &format!("{trusted}[limits]\nmails_per_client = \"1/day\"\n"),
                &format!("{trusted}[limits]\nmails_per_client = \"1/day\"\nrates_for_trusted = true\n"),
            ],
            says(twice),
            ["250", "451 4.7.1"],
        ),
        case(
            &["mails_per_user"],
            [&by_user(""), &by_user("mails_per_user = \"1/day\"")],
            says(&user_twice),
            ["250", "451 4.7.1"],
        ),
        case(
            &["recipients_per_user"],
            [&by_user(""), &by_user("recipients_per_user = \"1/day\"")],
            says(user_rcpt),
            ["250", "451 4.7.1"],
        ),
        // What the file of users says is read again.
        Case {
            file: Some((horse, users("other horse"))),
            ..case(&["users"], [&by_file, &by_file], says(["EHLO x", &plain_login("other horse")]), ["535", "235"])
        },
    ]
}

/// The names of a structure's fields.
fn fields(of: &impl Debug) -> BTreeSet<String> {
    let text = format!("{of:#?}");
    let field = |line: &str| {
        let line = line.strip_prefix("    ").filter(|line| !line.starts_with([' ', ')', ']', '}']))?;
        line.split_once(':').map(|(name, _)| name.to_owned())
    };
    text.lines().filter_map(field).collect()
}

/// A gateway that reads its configuration from here.
fn source(house: &House) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let source = text.clone();
    house.gateway.reads_from(move || {
        Config::parse(&source.lock().unwrap(), "waxwing.toml", &read)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    });
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_listener_and_every_rate_holds_from_the_reload_on() {
    let Some(slapd) = Slapd::start(&[Person::new(ANNA).line("userPassword: directory horse")], None) else { return };
    let folder = tempfile::tempdir().unwrap();
    let probe = |lines: &str| format!("[[listener]]\nname = \"probe\"\naddress = \"127.0.0.1:0\"\n{lines}");
    let policy = format!("{POLICY}{}", probe(OUTBOUND));
    let house = House::build(&Plan { policy: &policy, ..Plan::default() }).await;
    house.user(ANNA);
    let base = std::fs::read_to_string(house.folder.path().join("waxwing.toml")).unwrap().replace(&probe(OUTBOUND), "");
    let address = house.gateway.address("probe");
    let text = source(&house);
    let cases = cases(folder.path(), slapd.address);
    for (number, case) in (20..).zip(&cases) {
        for after in [false, true] {
            if let (true, Some((file, other))) = (after, &case.file) {
                std::fs::write(file, other).unwrap();
            }
            *text.lock().unwrap() = format!("{base}\n{}", probe(&case.lines[usize::from(after)]));
            let kept = house.gateway.reload().await;
            assert_eq!(kept, Ok(Vec::new()), "{:?}", case.keys);
            // Each from an address of its own: what is counted of clients stays counted.
            let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, number));
            let said = case.probe.of(&house, source, after).await;
            let expected = case.said[usize::from(after)];
            let when = if after { "after" } else { "before" };
            assert!(said.starts_with(expected), "{:?} {when} it: {said:?} in the place of {expected}", case.keys);
        }
    }
    assert_eq!(house.gateway.address("probe"), address, "one socket for all");

    // A key that is new has to be here too.
    let mut keys = fields(&Listener::new("x", "127.0.0.1:25".parse().unwrap(), Direction::Inbound));
    keys.extend(fields(&Rates::default()));
    let seen: BTreeSet<String> = cases.iter().flat_map(|case| case.keys).map(|key| (*key).to_owned()).collect();
    // Those that make it another listener: tests/queue/reload.rs.
    let elsewhere = ["address", "name"];
    assert_eq!(keys.difference(&seen).collect::<Vec<_>>(), elsewhere);
    assert_eq!(seen.difference(&keys).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reload_cannot_take_is_named_and_stays_as_it_was() {
    let house = House::new().await;
    let text = source(&house);
    let here = house.folder.path().display().to_string();
    let base = std::fs::read_to_string(house.folder.path().join("waxwing.toml")).unwrap();
    let spool = format!("spool = \"{here}/spool\"");
    let in_table = |more: &str| format!("spool = {{ folder = \"{here}/spool\", {more} }}");
    // Each for itself: what is named, the line in the place of another, and a section at the end.
    let cases = [
        ("store", (format!("store = \"{here}/store\""), format!("store = \"{here}/other\"")), ""),
        ("[etcd]", Default::default(), "[etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\n"),
        ("spool", (spool.clone(), format!("spool = \"{here}/elsewhere\"\ncontrol = \"{here}/spool/control\"")), ""),
        ("spool (quota, entries, reserve, commit_timeout)", (spool.clone(), in_table("quota = \"1 GiB\"")), ""),
        ("spool (quota, entries, reserve, commit_timeout)", (spool.clone(), in_table("entries = 77")), ""),
        ("spool (quota, entries, reserve, commit_timeout)", (spool.clone(), in_table("reserve = \"2 MiB\"")), ""),
        ("spool (quota, entries, reserve, commit_timeout)", (spool.clone(), in_table("commit_timeout = \"9 s\"")), ""),
        ("control", (spool.clone(), format!("{spool}\ncontrol = \"{here}/other\"")), ""),
        ("log", (spool.clone(), format!("{spool}\nlog = \"json\"")), ""),
        ("[metrics]", Default::default(), "[metrics]\nlisten = \"127.0.0.1:0\"\n"),
        ("[audit]", Default::default(), "[audit]\nfile = \"audit.log\"\n"),
        ("[run]", Default::default(), "[run]\nlandlock = \"off\"\n"),
    ];
    let documented = include_str!("../docs/delivery.md");
    for (named, (line, other), section) in &cases {
        // Beside what can be taken, which is.
        let changed = base.replace(line, other).replace("gw.ours.example", "gw2.ours.example");
        *text.lock().unwrap() = format!("{changed}\n{section}");
        let kept = house.gateway.reload().await.unwrap();
        assert_eq!(kept, [format!("{named} needs a restart: kept as it was")]);
        let word = named.split(' ').next().unwrap();
        assert!(documented.contains(&format!("`{word}`")), "{word} is not in docs/delivery.md");
        let mut wire = Wire::to(house.inward(), Ipv4Addr::LOCALHOST.into()).await;
        assert!(wire.hear(LONG).await.unwrap().contains("gw2.ours.example"), "{named}");
        *text.lock().unwrap() = base.clone();
        assert_eq!(house.gateway.reload().await, Ok(Vec::new()), "{named}: nothing of it was taken");
    }
    assert!(!house.folder.path().join("elsewhere").exists() && !house.folder.path().join("other").exists());
    assert_eq!(house.gateway.watched_at(), None);
}

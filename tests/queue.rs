//! `waxwing queue` and `waxwing config reload` with the real program at work, and without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

#[path = "queue/reload.rs"]
mod reload;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use support::house::{mailbox, plain};
use support::{Client, Fault, Sink};
use tempfile::TempDir;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::certificate::Certificate;
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::smime::open::recipient_ids;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::keyring::Kek;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};

const ANNA: &str = "anna@ours.example";
const BERT: &str = "bert@partner.example";
const CARL: &str = "carl@partner.example";
const CANARY: &str = "the CanaryBody sings";
const CLEAR: &str = "[default]\npass = true\n";
const HOLD: &str = "[default]\nencrypt = \"require\"\nmissing = \"hold\"\n";
const BOUND: Duration = Duration::from_secs(60);

/// A node: folders, a configuration, and the program.
struct Node {
    folder: TempDir,
    ca: Issued,
    world: Sink,
    server: Sink,
}

/// `waxwing serve` at work.
struct Served {
    child: Child,
    log: PathBuf,
}

#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    octets: Vec<u8>,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        Self {
            code: output.status.code().unwrap(),
            out: text(&output.stdout),
            err: text(&output.stderr),
            octets: output.stdout,
        }
    }
}

/// Waits for something, for a minute at most.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < BOUND, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Node {
    async fn new(policy: &str) -> Self {
        let (world, server) = (Sink::start().await, Sink::start().await);
        let folder = tempfile::tempdir().unwrap();
        let kek = folder.path().join("kek");
        Kek::create(&kek).unwrap();
        let store = EmbeddedStore::create(&folder.path().join("store"), &kek).unwrap();
        let ca = issue(&Recipe::authority("Queue Root", Timestamp::now(), NewKey::P256), None);
        store.add_trust(ca.certificate.clone(), Some(AnchorScope::Global)).unwrap();
        let node = Self { folder, ca, world, server };
        node.configure(policy, "");
        node
    }

    /// Writes the configuration: policy, and further listeners as TOML.
    fn configure(&self, policy: &str, listeners: &str) {
        let text = format!(
            r#"hostname = "gw.ours.example"
domains = ["ours.example"]
store = "{here}/store"
kek = "{here}/kek"
spool = "{here}/spool"
delivery = "queue"
[[listener]]
name = "out"
address = "127.0.0.1:0"
direction = "outbound"
trusted_networks = ["127.0.0.0/8"]
[[listener]]
name = "in"
address = "127.0.0.1:0"
direction = "inbound"
{listeners}
[next_hop.outbound]
host = "127.0.0.1"
port = {out}
tls = "off"
[next_hop.inbound]
host = "127.0.0.1"
port = {inward}
tls = "off"
[retry]
first = "1 h"
longest = "1 h"
{policy}"#,
            here = self.folder.path().display(),
            out = self.world.address.port(),
            inward = self.server.address.port(),
        );
        std::fs::write(self.path("waxwing.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self) -> Served {
        let log = self.path(&format!("log.{}", Timestamp::now().as_nanosecond()));
        let child = self.command(&["serve"]).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap()).spawn();
        let served = Served { child: child.unwrap(), log };
        until("it listens", || served.address("in"));
        served
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
        command.arg("--config").arg(self.path("waxwing.toml")).args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    fn good(&self, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        ended
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.good(&[arguments, &["--json"]].concat()).json()
    }

    /// The mails that the queue lists.
    fn list(&self, conditions: &[&str]) -> Vec<Value> {
        let said = self.json(&[&["queue", "list"], conditions].concat());
        said["entries"].as_array().unwrap().clone()
    }

    fn ids(&self, conditions: &[&str]) -> Vec<String> {
        self.list(conditions).iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
    }

    /// A certificate with a key of ours.
    fn user(&self, address: &str) -> Issued {
        let issued = issue(&Recipe::mailbox(address, Timestamp::now(), NewKey::Rsa2048), Some(&self.ca));
        self.user_as(address, &issued);
        issued
    }

    /// The same with a certificate that there is.
    fn user_as(&self, address: &str, issued: &Issued) {
        let new = NewCertificate {
            certificate: issued.certificate.clone(),
            provenance: Provenance { source: "import".into(), detail: "test".into(), at: Timestamp::now() },
            trust: TrustState::Trusted,
            key: Some(issued.pkcs8.clone()),
        };
        let store = EmbeddedStore::open(&self.path("store"), self.path("kek")).unwrap();
        store.add_certificates(&Owner::Mailbox(mailbox(address).key()), vec![new]).unwrap();
    }

    /// Imports a certificate of somebody outside with the program, as an administrator does.
    fn import(&self, address: &str) -> Certificate {
        let issued = issue(&Recipe::mailbox(address, Timestamp::now(), NewKey::Rsa2048), Some(&self.ca));
        std::fs::write(self.path("one.der"), issued.certificate.der()).unwrap();
        self.good(&["cert", "import", "one.der"]);
        issued.certificate
    }
}

impl Served {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The address a listener has, as the log tells.
    fn address(&self, listener: &str) -> Option<SocketAddr> {
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains("listening") && line.contains(&format!("\"{listener}\"")))?;
        line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
    }

    async fn client(&self, listener: &str) -> Client {
        Client::connect(self.address(listener).unwrap()).await
    }

    async fn send(&self, from: &str, to: &[&str], message: &str) {
        let said = self.client("out").await.send(from, to, message.as_bytes()).await;
        assert_eq!(said.code, 250, "{}", said.octets);
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Whether a mail is encrypted to this certificate and to no other, and shows nothing.
fn is_sealed_for(message: &[u8], certificates: &[&Certificate]) -> bool {
    let entity = Entity::parse(Bytes::copy_from_slice(message), &MimeLimits::default()).unwrap();
    let ids = recipient_ids(&entity, &MimeLimits::default()).unwrap_or_default();
    ids.len() == certificates.len() && certificates.iter().all(|one| ids.iter().any(|id| id.names(one)))
}

/// Everything the next hop was ever sent, as it came: what is not encrypted is not encoded either in these tests.
fn never_in_clear(sink: &Sink) {
    let octets = String::from_utf8_lossy(&sink.octets()).into_owned();
    assert!(!octets.contains(CANARY), "{octets}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_looked_at_and_changed_while_the_gateway_works() {
    let node = Node::new(CLEAR).await;
    node.world.fault(Fault::Mail(451));
    let served = node.serve();
    let three =
        [(ANNA, vec![BERT], "one"), ("dora@ours.example", vec![CARL], "two"), (ANNA, vec![CARL, BERT], "three")];
    for (from, to, subject) in &three {
        served.send(from, to, &plain(from, to[0], subject, CANARY)).await;
    }
    let tried = || node.list(&[]).iter().filter(|entry| entry["attempts"] == 1 && entry["state"] == "waiting").count();
    until("each was tried once", || (tried() == 3).then_some(()));

    // Listed, by conditions and in pages.
    let all = node.ids(&[]);
    assert_eq!(all.len(), 3);
    assert_eq!(node.ids(&["--sender", "DORA@ours.example"]), all[1..2]);
    assert_eq!(node.ids(&["--recipient", CARL]), all[1..]);
    assert_eq!(node.ids(&["--recipient", "@partner.example", "--sender", ANNA]), [all[0].clone(), all[2].clone()]);
    let hop = format!("127.0.0.1:{}", node.world.address.port());
    assert_eq!(node.ids(&["--next-hop", &hop, "--state", "waiting"]).len(), 3);
    assert_eq!(node.ids(&["--next-hop", "127.0.0.1:1"]).len() + node.ids(&["--state", "held"]).len(), 0);
    assert_eq!((node.ids(&["--older", "1h"]).len(), node.ids(&["--younger", "1 h"]).len()), (0, 3));
    let page = node.json(&["queue", "list", "--limit", "2"]);
    assert_eq!((page["entries"].as_array().unwrap().len(), &page["next"]), (2, &Value::from(all[1].clone())));
    assert_eq!(node.ids(&["--after", &all[1]]), all[2..]);
    let table = node.good(&["queue", "list"]);
    assert!(
        table.out.lines().count() == 4 && table.out.starts_with("ID ") && table.out.contains("carl@partner.example +1"),
        "{table:?}"
    );
    assert!(!table.err.contains("no gateway"), "it was asked: {table:?}");

    // Shown in full.
    let shown = node.json(&["queue", "show", &all[2]]);
    assert_eq!(
        (&shown["sender"], &shown["state"], &shown["content"]),
        (&ANNA.into(), &"waiting".into(), &"clear".into())
    );
    assert_eq!(shown["recipients"][1]["recipient"], BERT);
    assert!(shown["recipients"][0]["last_reply"].as_str().unwrap().contains("451"), "{shown:#}");
    assert!(shown["header"].as_array().unwrap().contains(&serde_json::json!(["Subject", "three"])), "{shown:#}");
    let text = node.good(&["queue", "show", &all[2]]);
    assert!(
        text.out.contains("Subject: three") && text.out.contains("tried      1 times") && !text.out.contains(CANARY),
        "{text:?}"
    );
    let octets = node.good(&["queue", "show", &all[2], "--content"]).octets;
    assert!(octets.ends_with(format!("{CANARY}\r\n").as_bytes()));

    holds_and_releases(&node, &all);
    counts_and_deletes(&node, &all, &hop);
    // Tried when asked for, long before its time.
    node.world.fault(Fault::None);
    node.good(&["queue", "retry", "--all"]);
    let came = node.world.wait(1).await;
    assert_eq!((came[0].to.as_slice(), came.len()), (&[BERT.to_owned()][..], 1));
    until("it left the queue", || node.ids(&[]).is_empty().then_some(()));
    assert_eq!(node.good(&["queue", "list"]).out, "no mail\n");
    let log = served.log();
    let uid = own_uid();
    for change in ["hold", "release", "delete", "retry"] {
        let told = |line: &str| line.contains(&format!("change=\"{change}\"")) && line.contains(&format!("uid={uid}"));
        assert!(log.lines().any(told), "{change} is not in the log:\n{log}");
    }
    served.stop();
    assert!(!node.path("spool/control").exists(), "the socket is gone with its server");
}

fn holds_and_releases(node: &Node, all: &[String]) {
    // Held, and so not tried; released, and waiting again.
    assert!(node.good(&["queue", "hold", &all[0], "--why", "to be looked at"]).out.contains("held"));
    let held = node.list(&["--state", "held"]);
    assert!(held.len() == 1 && held[0]["held"].as_str().unwrap().ends_with("to be looked at"), "{held:?}");
    let refused = node.run(&["queue", "retry", &all[0], &all[1]]);
    assert!(
        refused.code == 1
            && refused.out.contains("it is") | refused.out.contains("is held")
            && refused.out.contains("is tried now"),
        "{refused:?}"
    );
    let refused = node.run(&["queue", "release", &all[1]]);
    assert!(refused.code == 1 && refused.out.contains("is not held"), "{refused:?}");
    node.good(&["queue", "release", "--all"]);
    assert_eq!(node.ids(&["--state", "held"]).len(), 0);
}

fn counts_and_deletes(node: &Node, all: &[String], hop: &str) {
    // Counted, with the next hops' health.
    let stats = node.json(&["queue", "stats"]);
    let total = &stats["total"];
    let entries = |state: &str| total[state]["entries"].as_u64().unwrap();
    assert!(entries("waiting") + entries("delivering") == 3 && total["oldest"].is_string(), "{stats:#}");
    assert_eq!(stats["next_hops"][0]["next_hop"], hop);
    assert!(node.good(&["queue", "stats"]).out.contains(hop));

    // Deleted: by id, and by conditions only for who says yes.
    node.good(&["queue", "delete", &all[1]]);
    let unsure = node.run(&["queue", "delete", "--sender", ANNA]);
    assert!(unsure.code == 2 && unsure.err.contains("--yes"), "{unsure:?}");
    assert_eq!(node.ids(&[]), [all[0].clone(), all[2].clone()]);
    node.good(&["queue", "delete", "--recipient", CARL, "--yes"]);
    assert_eq!(node.ids(&[]), all[..1]);
}

fn own_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_and_what_is_not_understood_is_said() {
    let node = Node::new(CLEAR).await;
    // No spool yet, and no gateway.
    let nothing = node.run(&["queue", "list"]);
    assert!(
        nothing.code == 2 && nothing.err.contains("holds no spool") | nothing.err.contains("No such file"),
        "{nothing:?}"
    );
    let served = node.serve();
    for arguments in
        [["queue", "show"], ["queue", "retry"], ["queue", "delete"], ["queue", "release"], ["queue", "hold"]]
    {
        let gone = node.run(&[&arguments[..], &["00000000000000ff"]].concat());
        let (code, said) = if arguments[1] == "show" { (2, &gone.err) } else { (1, &gone.out) };
        assert!(
            gone.code == code && said.contains("no entry 00000000000000ff") && said.contains("queue list"),
            "{gone:?}"
        );
        let odd = node.run(&[&arguments[..], &["-5"]].concat());
        assert!(odd.code == 2 && !odd.err.is_empty(), "{odd:?}");
        let odd = node.run(&[&arguments[..], &["some"]].concat());
        assert!(odd.code == 2 && odd.err.contains("16 hexadecimal digits"), "{odd:?}");
    }
    let odd = node.run(&["queue", "list", "--state", "lost"]);
    assert!(odd.code == 2 && odd.err.contains("waiting, delivering or held"), "{odd:?}");
    let which = node.run(&["queue", "hold"]);
    assert!(which.code == 2 && which.err.contains("--all"), "{which:?}");
    served.stop();
}

/// Only root can be somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_refused_whatever_the_sockets_mode() {
    if own_uid() != 0 {
        println!("left out: not root, so that this test cannot be another user");
        return;
    }
    let node = Node::new(CLEAR).await;
    let served = node.serve();
    let nobody = |program: PathBuf| {
        let mut command = Command::new(program);
        command.arg("--config").arg(node.path("waxwing.toml")).args(["queue", "delete", "--all", "--yes"]);
        Ended::from(command.uid(65_534).gid(65_534).output().unwrap())
    };
    // A copy that everybody may run: the build's folder may be closed.
    let program = node.path("waxwing");
    std::fs::copy(env!("CARGO_BIN_EXE_waxwing"), &program).unwrap();
    let open = |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    open(node.folder.path().to_owned(), 0o755);
    open(program.clone(), 0o755);
    let kept_out = nobody(program.clone());
    assert!(kept_out.code == 2 && kept_out.err.contains("Permission denied"), "{kept_out:?}");
    open(node.path("spool"), 0o755);
    open(node.path("spool/control"), 0o777);
    let refused = nobody(program);
    assert!(refused.code == 2 && refused.err.contains("user 65534 may not ask"), "{refused:?}");
    until("it is in the log", || served.log().contains("uid=65534").then_some(()));
    served.stop();
}

/// Held by a rule that looks at what is stripped when it leaves: released, it is still that rule's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_what_held_a_mail_holds_it_when_it_is_released() {
    let rule = "[[rule]]\nname = 'answers'\nmatch = { header = { name = 'X-Waxwing-Decrypted', value = '*' } }\nencrypt = 'require'\nmissing = 'hold'\n\
        [default]\nencrypt = 'never'\n";
    let node = Node::new(rule).await;
    let served = node.serve();
    let mail = format!("X-Waxwing-Decrypted: yes\r\n{}", plain(ANNA, CARL, "sent on", CANARY));
    served.send(ANNA, &[CARL], &mail).await;
    let id = node.ids(&["--state", "held"]).remove(0);
    let stays = node.run(&["queue", "release", &id]);
    assert!(stays.code == 1 && stays.out.contains("stays held"), "{stays:?}");
    assert!(node.world.mails().is_empty(), "it left in clear");
    let carl = node.import(CARL);
    let came = node.world.wait(1).await.remove(0);
    assert!(is_sealed_for(&came.message, &[&carl]) && !came.text().contains("X-Waxwing-Decrypted"), "{}", came.text());
    served.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_mail_held_for_want_of_a_certificate_leaves_sealed_once_there_is_one_and_never_in_clear() {
    let node = Node::new(HOLD).await;
    let served = node.serve();
    served.send(ANNA, &[CARL], &plain(ANNA, CARL, "quarter", CANARY)).await;
    let held = node.list(&[]).remove(0);
    let id = held["id"].as_str().unwrap();
    assert_eq!((&held["state"], &held["content"]), (&"held".into(), &"submitted".into()));

    // It says who and when, and nothing of what is in it.
    let shown = node.good(&["queue", "show", id]).out;
    assert!(shown.contains("no certificate is known") && shown.contains(&format!("From: {ANNA}")), "{shown}");
    assert!(!shown.contains("Subject") && !shown.contains(CANARY), "{shown}");
    let closed = node.run(&["queue", "show", id, "--content"]);
    assert!(closed.code == 2 && closed.octets.is_empty() && closed.err.contains("stays closed"), "{closed:?}");

    // Released without a certificate it stays.
    let stays = node.run(&["queue", "release", id]);
    assert!(stays.code == 1 && stays.out.contains("stays held") && stays.out.contains("cert import"), "{stays:?}");
    assert_eq!(node.ids(&["--state", "held"]), [id]);
    assert!(node.world.mails().is_empty());

    // With one it leaves, and nobody has to ask.
    let carl = node.import(CARL);
    let came = node.world.wait(1).await.remove(0);
    assert!(is_sealed_for(&came.message, &[&carl]) && came.to == [CARL], "{}", came.text());
    let received = came.text().matches("\r\nReceived: from client.example").count()
        + usize::from(came.text().starts_with("Received: from client.example"));
    assert_eq!(received, 1, "the trace of its arrival: {}", came.text());
    until("the queue is empty", || node.ids(&[]).is_empty().then_some(()));

    // What a person holds waits for a person; what came later did not.
    let (dora, erik) = ("dora@partner.example", "erik@partner.example");
    served.send(ANNA, &[dora], &plain(ANNA, dora, "x", CANARY)).await;
    let by_hand = node.ids(&[]).remove(0);
    node.good(&["queue", "hold", &by_hand]);
    served.send(ANNA, &[erik], &plain(ANNA, erik, "x", CANARY)).await;
    let dora = node.import(dora);
    node.import(erik);
    assert_eq!(node.world.wait(2).await[1].to, ["erik@partner.example"]);
    until("the other one is settled", || (node.ids(&[]) == std::slice::from_ref(&by_hand)).then_some(()));
    let released = node.json(&["queue", "release", &by_hand]);
    let fate = &released["changed"][0]["recipients"][0];
    assert!(fate["leaves"] == true && fate["how"].as_str().unwrap().starts_with("encrypted"), "{released:#}");
    assert!(is_sealed_for(&node.world.wait(3).await[2].message, &[&dora]));

    // Of two, one can be served: he is, and the other's copy stays, as old as it was.
    let (fritz, gerd) = ("fritz@partner.example", "gerd@partner.example");
    served.send(ANNA, &[fritz, gerd], &plain(ANNA, &format!("{fritz}, {gerd}"), "x", CANARY)).await;
    let both = node.list(&[]).remove(0);
    let fritz_has = node.import(fritz);
    let came = node.world.wait(4).await.remove(3);
    assert!(came.to == [fritz] && is_sealed_for(&came.message, &[&fritz_has]));
    let rest = until("the other's alone is left", || {
        let mut left = node.list(&[]);
        (left.len() == 1 && left[0]["recipients_total"] == 1).then(|| left.remove(0))
    });
    assert_eq!((&rest["recipients"][0]["recipient"], &rest["created"]), (&gerd.into(), &both["created"]));
    never_in_clear(&node.world);
    served.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_gateway_the_command_opens_the_spool_itself_and_says_so() {
    let node = Node::new(HOLD).await;
    let served = node.serve();
    served.send(ANNA, &[CARL], &plain(ANNA, CARL, "quarter", CANARY)).await;
    served.send("dora@ours.example", &[BERT], &plain("dora@ours.example", BERT, "x", CANARY)).await;
    served.kill();
    assert!(node.path("spool/control").exists(), "as kill -9 leaves it");
    let listed = node.good(&["queue", "list"]);
    assert!(listed.out.lines().count() == 3 && listed.err.contains("no gateway is at work"), "{listed:?}");
    let all = node.ids(&[]);
    assert!(node.good(&["queue", "show", &all[0]]).out.contains("as submitted"));
    assert_eq!(node.json(&["queue", "stats"])["total"]["held"]["entries"], 2);
    assert_eq!(node.run(&["queue", "show", &all[0], "--content"]).code, 2);
    let held = node.good(&["queue", "hold", &all[1]]);
    assert!(held.err.contains("change=\"hold\"") && held.err.contains(&format!("uid={}", own_uid())), "{held:?}");
    node.good(&["queue", "delete", "--sender", "@ours.example", "--recipient", BERT, "--yes"]);
    assert_eq!(node.run(&["queue", "release", &all[0]]).code, 1, "there is no certificate yet");
    let carl = node.import(CARL);
    let released = node.good(&["queue", "release", &all[0]]);
    assert!(released.out.contains("leaves: encrypted"), "{released:?}");
    assert_eq!(node.list(&["--state", "waiting"])[0]["content"], "encrypted");
    assert!(node.run(&["config", "reload"]).err.contains("no gateway answers"));
    assert!(node.world.mails().is_empty());
    let served = node.serve();
    assert!(is_sealed_for(&node.world.wait(1).await[0].message, &[&carl]));
    never_in_clear(&node.world);
    served.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_dead_nodes_spool_is_taken_over_by_one_at_work() {
    let dead = Node::new(CLEAR).await;
    // What it is to take over is named: the kernel may bar other files.
    let alive = Node::new(&format!("{CLEAR}\n[run]\nfolders = [\"{}\"]\n", dead.folder.path().display())).await;
    dead.world.fault(Fault::Mail(451));
    let (first, second) = (dead.serve(), alive.serve());
    for number in 0..3 {
        first.send(ANNA, &[BERT], &plain(ANNA, BERT, &format!("mail-{number}"), CANARY)).await;
    }
    let folder = dead.path("spool").display().to_string();
    let kek = dead.path("kek").display().to_string();
    let adopt = |more: &[&str]| alive.run(&[&["queue", "adopt", &folder], more].concat());
    let in_use = adopt(&["--kek", &kek]);
    assert!(in_use.code == 2 && in_use.err.contains("in use by another process"), "{in_use:?}");
    first.kill();
    let sealed = adopt(&[]);
    assert!(sealed.code == 2 && sealed.err.contains("--kek"), "ours does not open it: {sealed:?}");
    let empty = alive.run(&["queue", "adopt", "store"]);
    assert!(empty.code == 2 && empty.err.contains("holds no spool"), "{empty:?}");
    let adopted = adopt(&["--kek", &kek, "--json"]);
    assert_eq!((adopted.code, adopted.json()["entries"].as_u64()), (0, Some(3)), "{adopted:?}");
    // They keep their times, and the first wait is an hour here.
    alive.good(&["queue", "retry", "--all"]);
    let mut came: Vec<String> = alive.world.wait(3).await.iter().map(support::sink::Mail::text).collect();
    came.sort();
    for number in 0..3 {
        assert_eq!(came.iter().filter(|mail| mail.contains(&format!("Subject: mail-{number}\r\n"))).count(), 1);
    }
    until("all of it was delivered", || alive.ids(&[]).is_empty().then_some(()));
    assert_eq!(adopt(&["--kek", &kek, "--json"]).json()["entries"], 0, "repeated, it takes nothing twice");
    let back = dead.command(&["serve"]).stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&back.stderr).into_owned();
    assert!(!back.status.success() && said.contains("taken over"), "the node that comes back delivers nothing: {said}");
    assert!(second.log().contains("spool adopted by hand"));
    assert!(dead.world.mails().is_empty() && alive.world.mails().len() == 3);
    second.stop();
}

/// Mail that waits to be opened bears the mark of the installation that took it. Taken over by another, with other keys, it is opened there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_received_mail_of_an_installation_with_another_kek_is_opened_by_the_one_that_took_it_over() {
    let rule =
        "[[rule]]\nmatch = { direction = \"outbound\" }\nencrypt = \"require\"\n[default]\nencrypt = \"require\"\n";
    let dead = Node::new(rule).await;
    // What it is to take over is named: the kernel may bar other files.
    let alive = Node::new(&format!("{rule}[run]\nfolders = [\"{}\"]\n", dead.folder.path().display())).await;
    let anna = dead.user(ANNA);
    alive.user_as(ANNA, &anna);
    dead.server.fault(Fault::Mail(451));
    let (first, second) = (dead.serve(), alive.serve());
    first.send(ANNA, &[ANNA], &plain(ANNA, ANNA, "sealed", CANARY)).await;
    let sealed = dead.world.wait(1).await.remove(0).message;
    let said = first.client("in").await.send(ANNA, &[ANNA], &sealed).await;
    assert_eq!(said.octets, "250 2.0.0 accepted\r\n");
    until("it was tried", || dead.list(&[]).first().filter(|one| one["attempts"] == 1).map(drop));
    first.kill();
    let (folder, kek) = (dead.path("spool").display().to_string(), dead.path("kek").display().to_string());
    let adopted = alive.json(&["queue", "adopt", &folder, "--kek", &kek]);
    assert_eq!(adopted["entries"], 1, "{adopted:#}");
    alive.good(&["queue", "retry", "--all"]);
    let came = alive.server.wait(1).await.remove(0);
    assert!(came.to == [ANNA] && came.text().contains(CANARY), "{}", came.text());
    until("all of it was delivered", || alive.ids(&[]).is_empty().then_some(()));
    second.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a02_what_a_rule_quarantines_is_kept_until_a_person_releases_it() {
    let (signed, sealed, open) = ("bert@ours.example", "dora@ours.example", "erik@ours.example");
    let rules = format!(
        "[[rule]]\nmatch = {{ direction = \"outbound\", recipient = [\"{signed}\"] }}\nsign = \"require\"\n\
         [[rule]]\nmatch = {{ direction = \"outbound\" }}\nencrypt = \"require\"\n\
         [[rule]]\nmatch = {{ recipient = [\"{open}\"] }}\n\
         [default]\nquarantine = [\"invalid-signature\", \"unauthenticated\"]\n"
    );
    let node = Node::new(&rules).await;
    [ANNA, signed, sealed].iter().for_each(|address| drop(node.user(address)));
    let served = node.serve();
    served.send(ANNA, &[signed], &plain(ANNA, signed, "x", CANARY)).await;
    served.send(ANNA, &[sealed], &plain(ANNA, sealed, "y", CANARY)).await;
    let mut left = node.world.wait(2).await;
    left.sort_by_key(|mail| mail.to.clone());
    let (good, closed) = (left[0].text(), left[1].message.clone());
    let send_in = async |to: &[&str], message: &[u8]| {
        let said = served.client("in").await.send(ANNA, to, message).await;
        assert_eq!(said.octets, "250 2.0.0 accepted\r\n");
    };

    // As it was signed it is delivered; altered it is kept from one, and marked for the other, whose rule keeps nothing back.
    send_in(&[signed], good.as_bytes()).await;
    assert!(node.server.wait(1).await[0].text().contains("smime=pass"));
    send_in(&[signed, open], good.replace("CanaryBody", "forgedBody").as_bytes()).await;
    let marked = node.server.wait(2).await.remove(1);
    assert!(marked.to == [open] && marked.text().contains("smime=fail"), "{}", marked.text());
    let kept = node.list(&["--state", "held"]).remove(0);
    assert_eq!((&kept["recipients"][0]["state"], &kept["content"]), (&"quarantined".into(), &"received".into()));
    assert!(kept["held"].as_str().unwrap().starts_with("quarantine: invalid-signature"), "{kept:#}");

    // Where a key was tried the answer was the same, and what lies here is closed.
    send_in(&[sealed], &closed).await;
    let id = until("it is kept", || node.ids(&["--state", "held", "--recipient", sealed]).pop());
    let shown = node.json(&["queue", "show", &id]);
    let last = shown["recipients"][0]["last_reply"].as_str().unwrap();
    assert!(last.contains("unauthenticated") && shown["held"].as_str().unwrap().contains("quarantine"), "{shown:#}");
    let octets = node.good(&["queue", "show", &id, "--content"]).out;
    assert!(!octets.contains(CANARY) && octets.contains("application/pkcs7-mime"), "as received: {octets}");
    assert_eq!(node.server.mails().len(), 2, "nothing of it was delivered");

    // A person says so: delivered, and marked as it is.
    assert_eq!(node.json(&["queue", "release", "--all"])["changed"].as_array().unwrap().len(), 2);
    let came = node.server.wait(4).await;
    let to = |address: &str| came[2..].iter().find(|mail| mail.to == [address]).unwrap().text();
    assert!(to(signed).contains("forgedBody") && to(signed).contains("smime=fail"), "{}", to(signed));
    assert!(to(sealed).contains(CANARY) && !to(sealed).contains("smime=pass"), "{}", to(sealed));
    until("the queue is empty", || node.ids(&[]).is_empty().then_some(()));
    served.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_may_be_held_and_released_while_it_is_delivered() {
    let node = Node::new(CLEAR).await;
    node.world.fault(Fault::Silent);
    let served = node.serve();
    served.send(ANNA, &[BERT], &plain(ANNA, BERT, "x", CANARY)).await;
    until("it is being delivered", || node.ids(&["--state", "delivering"]).pop());
    let id = node.ids(&[]).remove(0);
    let held = || node.list(&[])[0]["held"].is_string();
    node.good(&["queue", "hold", &id]);
    assert!(held());
    node.good(&["queue", "release", &id]);
    assert!(!held());
    node.good(&["queue", "hold", &id]);
    assert_eq!(node.list(&[])[0]["state"], "delivering", "what is under way goes on");
    // The delivery ends with the process, and the hold does not.
    served.kill();
    node.world.fault(Fault::None);
    assert_eq!(node.list(&[])[0]["state"], "held");
    let served = node.serve();
    node.good(&["queue", "release", "--all"]);
    assert_eq!(node.world.wait(1).await[0].to, [BERT]);
    served.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_too_long_for_a_socket_keeps_no_mail_from_its_way() {
    let node = Node::new(CLEAR).await;
    let text = std::fs::read_to_string(node.path("waxwing.toml")).unwrap();
    let long = text.replace("/spool\"", &format!("/{}/spool\"", "long".repeat(30)));
    std::fs::write(node.path("waxwing.toml"), &long).unwrap();
    let served = node.serve();
    served.send(ANNA, &[BERT], &plain(ANNA, BERT, "x", "y")).await;
    node.world.wait(1).await;
    let listed = node.run(&["queue", "list"]);
    assert!(listed.code == 2 && listed.err.contains("control = "), "{listed:?}");
    served.stop();
    // Named elsewhere it is there.
    let short = long.replace("delivery =", &format!("control = \"{}\"\ndelivery =", node.path("asked").display()));
    std::fs::write(node.path("waxwing.toml"), short).unwrap();
    let served = node.serve();
    assert_eq!(node.good(&["queue", "list"]).out, "no mail\n");
    assert_eq!(std::fs::metadata(node.path("asked")).unwrap().permissions().mode() & 0o777, 0o600);
    served.stop();
}

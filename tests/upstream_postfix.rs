//! T10: a real Postfix sends through the gateway to a next hop with mixed outcomes, while the gateway is killed again and again. Every
//! recipient's mail is delivered or comes back: never neither, never both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/outside.rs"]
mod outside;
#[path = "support/postfix.rs"]
mod server;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use server::{Postfix, free_ports, peers_present, run};
use support::Client;
use support::house::plain;
use support::teller::{Manner, Teller};
use waxwing::spool::{Folder, Limits, Spool};
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::keyring::Kek;

const ANNA: &str = "anna@ours.example";
const MAILS: usize = 480;
const KILLS: usize = 12;
/// The test ends itself long before CI does.
const BOUND: Duration = Duration::from_secs(85);

/// Outcomes of one mail's recipients, in turn: refused or put off at RCPT, or for each recipient after the final dot.
const KINDS: [&[&str]; 6] = [
    &["ok", "later", "never", "rlater", "rnever"],
    &["ok"],
    &["never"],
    &["later", "ok", "ok"],
    &["never", "later", "rnever"],
    &["ok", "never"],
];

fn recipients(mail: usize) -> Vec<String> {
    let kinds = KINDS[mail % KINDS.len()].iter().enumerate();
    kinds.map(|(at, kind)| format!("{kind}.{mail}.{at}@partner.example")).collect()
}

/// The gateway's folder and configuration; `serve` starts the real program.
struct Gateway {
    folder: tempfile::TempDir,
    port: u16,
}

impl Gateway {
    fn new(port: u16, world: &Teller, home: &Teller) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        let kek = folder.path().join("kek");
        Kek::create(&kek).unwrap();
        drop(EmbeddedStore::create(&folder.path().join("store"), &kek).unwrap());
        let text = format!(
            "hostname = \"gw.ours.example\"\ndomains = [\"ours.example\"]\nstore = \"{here}/store\"\nkek = \"{here}/kek\"\nspool = \"{here}/spool\"\n\
             [[listener]]\nname = \"out\"\naddress = \"127.0.0.1:{port}\"\ndirection = \"outbound\"\ntrusted_networks = [\"127.0.0.0/8\"]\n\
             [next_hop.outbound]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\nlmtp = true\n\
             [next_hop.inbound]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n\
             [retry]\nfirst = \"300 ms\"\nlongest = \"1 s\"\n[default]\npass = true\n",
            world.address.port(),
            home.address.port()
        );
        fs::write(folder.path().join("waxwing.toml"), text).unwrap();
        Self { folder, port }
    }

    fn serve(&self) -> Served {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let config = self.folder.path().join("waxwing.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
        command.arg("--config").arg(config).arg("serve").stdout(Stdio::null()).stderr(log);
        let served = Served(command.spawn().unwrap());
        server::listening(self.port);
        served
    }

    /// Mails that are still in the spool of a gateway that does not run.
    fn spooled(&self) -> usize {
        let folder = Folder::open(&self.folder.path().join("spool")).unwrap();
        let kek = Kek::read(&self.folder.path().join("kek")).unwrap();
        Spool::open_sealed(Arc::new(folder), Limits::default(), &kek).unwrap().0.entries().len()
    }
}

struct Served(Child);

impl Served {
    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn stop(mut self) {
        run(Command::new("kill").arg("-TERM").arg(self.0.id().to_string()));
        self.0.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_postfix(folder: &Path, port: u16, gateway: u16, home: &Teller) -> Postfix {
    run(Command::new("chmod").arg("755").arg(folder));
    let more = format!(
        "transport_maps = inline:{{ours.example=smtp:[127.0.0.1]:{}}}\ndefault_destination_concurrency_limit = 20\n\
         initial_destination_concurrency = 10\ndefault_destination_concurrency_failed_cohort_limit = 1000\n\
         smtp_destination_rate_delay = 0s\nbounce_size_limit = 1\n",
        home.address.port()
    );
    Postfix::start(&folder.join("upstream"), port, "upstream.example", gateway, &more)
}

fn queue_is_empty(postfix: &Postfix) -> bool {
    let queue = postfix.folder.join("queue");
    ["maildrop", "incoming", "active", "deferred"].iter().all(|name| files_in(&queue.join(name)) == 0)
}

fn files_in(folder: &Path) -> usize {
    let Ok(list) = fs::read_dir(folder) else { return 0 };
    list.flatten().map(|entry| if entry.path().is_dir() { files_in(&entry.path()) } else { 1 }).sum()
}

/// What became of a recipient.
#[derive(Debug, Default, Clone, Copy)]
struct Fate {
    taken: usize,
    told: usize,
}

/// The ledger: what the next hop took, and what the sender was told has failed.
fn ledger(world: &Teller, home: &Teller) -> BTreeMap<String, Fate> {
    let mut fates: BTreeMap<String, Fate> =
        (0..MAILS).flat_map(recipients).map(|address| (address, Fate::default())).collect();
    for (address, taken) in world.ledger().taken {
        fates.entry(address).or_default().taken = taken;
    }
    for (_, report) in home.ledger().mails {
        let text = String::from_utf8_lossy(&report).into_owned();
        let mut about = None;
        for line in text.lines() {
            if let Some(address) = line.strip_prefix("Final-Recipient: rfc822;") {
                about = Some(address.trim().to_owned());
            } else if line == "Action: failed"
                && let Some(address) = about.take()
            {
                fates.entry(address).or_default().told += 1;
            }
        }
    }
    fates
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_postfix_upstream_while_the_gateway_is_killed_each_mail_is_delivered_or_comes_back() {
    if !peers_present(&["postfix"]) {
        return;
    }
    let began = Instant::now();
    let world = Teller::start(Manner { lmtp: true, thinks: Duration::from_millis(60), ..Manner::default() }).await;
    let home = Teller::start(Manner::default()).await;
    let [gateway_port, postfix_port] = free_ports();
    let gateway = Gateway::new(gateway_port, &world, &home);
    let temporary = tempfile::tempdir().unwrap();
    let mut served = gateway.serve();
    let postfix = start_postfix(temporary.path(), postfix_port, gateway_port, &home);
    let feeding = tokio::spawn(async move {
        let mut client = Client::connect(([127, 0, 0, 1], postfix_port).into()).await;
        for mail in 0..MAILS {
            let to = recipients(mail);
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            let text = plain(ANNA, to[0], &format!("mail-{mail}"), "through thick and thin");
            assert_eq!(client.send(ANNA, &to, text.as_bytes()).await.code, 250);
            pause(8).await;
        }
    });
    for kill in 0..KILLS {
        // At no two points of its work alike.
        pause(250 + 57 * kill as u64).await;
        served.kill();
        served = gateway.serve();
    }
    feeding.await.unwrap();
    let open = |fates: &BTreeMap<String, Fate>| fates.values().filter(|fate| fate.taken + fate.told == 0).count();
    let mut quiet = 0;
    // Quiet: all is accounted for, and nothing is queued; three times, for what is under way just now.
    while quiet < 3 {
        let done = open(&ledger(&world, &home)) == 0 && queue_is_empty(&postfix);
        quiet = if done { quiet + 1 } else { 0 };
        assert!(
            began.elapsed() < BOUND,
            "{} of them open, queue empty: {}",
            open(&ledger(&world, &home)),
            queue_is_empty(&postfix)
        );
        pause(400).await;
    }
    served.stop();
    while gateway.spooled() > 0 {
        assert!(began.elapsed() < BOUND, "{} left in the spool", gateway.spooled());
        let again = gateway.serve();
        pause(1_500).await;
        again.stop();
    }
    let fates = ledger(&world, &home);
    report(&fates, began.elapsed());
}

fn report(fates: &BTreeMap<String, Fate>, took: Duration) {
    let count = |holds: fn(&Fate) -> bool| fates.values().filter(|fate| holds(fate)).count();
    let (delivered, bounced) = (count(|fate| fate.taken > 0), count(|fate| fate.told > 0));
    let (neither, both) = (count(|fate| fate.taken + fate.told == 0), count(|fate| fate.taken > 0 && fate.told > 0));
    println!(
        "T10: {MAILS} mails, {} recipients, {KILLS} kills, {} s: {delivered} delivered ({} more than once), {bounced} bounced ({} more \
         than once), {neither} neither, {both} both",
        fates.len(),
        took.as_secs(),
        count(|fate| fate.taken > 1),
        count(|fate| fate.told > 1),
    );
    for (address, fate) in fates {
        let fails = address.starts_with("never.") || address.starts_with("rnever.");
        assert!((fate.taken > 0) != (fate.told > 0) && fails == (fate.told > 0), "{address}: {fate:?}");
    }
    assert_eq!(fates.len(), (0..MAILS).map(|mail| recipients(mail).len()).sum::<usize>(), "an address nobody wrote to");
}

//! A20: clients that connect and say nothing more cost little, and keep nobody else from sending.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(all(feature = "server", target_os = "linux"))]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use support::house::plain;
use support::{Client, Sink};

const IDLE: usize = 2_000;
/// Octets of memory that one idle session may cost.
const EACH: u64 = 8 << 10;
/// What the mails in between, and the allocator, may cost.
const SLACK: u64 = 4 << 20;
const DESCRIPTORS: usize = 8_192;
const AGAIN: &str = "WAXWING_TEST_RAISED";

const CONFIG: &str = r#"
hostname = "gw.ours.example"
domains = ["ours.example"]
store = "store"
kek = "kek"
spool = "spool"
[[listener]]
name = "out"
address = "127.0.0.1:0"
direction = "outbound"
trusted_networks = ["127.0.0.0/8"]
[next_hop.outbound]
host = "127.0.0.1"
port = PORT
tls = "off"
[next_hop.inbound]
host = "127.0.0.1"
port = PORT
tls = "off"
[limits]
connections = 3000
connections_per_client = 3000
[default]
encrypt = "never"
"#;

/// Ends with the test, whichever way.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// File descriptors that this process may have now.
fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}

/// Octets of memory in use.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// Runs this test again where it may open enough; the gateway inherits it.
fn run_with_more_descriptors(test: &str) {
    let script = format!("ulimit -n {DESCRIPTORS} || exit 99; exec \"$0\" --exact {test} --nocapture");
    let ended = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(AGAIN, "1")
        .status()
        .unwrap();
    if ended.code() == Some(99) {
        eprintln!("skipped: this machine does not let a process open {DESCRIPTORS} files");
    } else {
        assert!(ended.success(), "{ended}");
    }
}

async fn send(address: SocketAddr, subject: &str) {
    let (from, to) = ("anna@ours.example", "bert@partner.example");
    let answer = Client::connect(address).await.send(from, &[to], plain(from, to, subject, "body").as_bytes()).await;
    assert_eq!(answer.code, 250, "{answer:?}");
}

#[tokio::test]
async fn a20_two_thousand_idle_clients_cost_little_and_mail_still_passes() {
    if descriptors() < DESCRIPTORS && std::env::var_os(AGAIN).is_none() {
        return run_with_more_descriptors("a20_two_thousand_idle_clients_cost_little_and_mail_still_passes");
    }
    let folder = tempfile::tempdir().unwrap();
    let waxwing = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
        command.current_dir(folder.path()).env_remove("WAXWING_CONFIG").env_remove("RUST_LOG");
        command
    };
    assert!(waxwing().args(["kek", "init", "kek", "--store", "store"]).output().unwrap().status.success());
    let world = Sink::start().await;
    fs::write(folder.path().join("waxwing.toml"), CONFIG.replace("PORT", &world.address.port().to_string())).unwrap();
    let serve = waxwing().args(["--config", "waxwing.toml", "serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut gateway = Gateway(serve);
    let mut log = BufReader::new(gateway.0.stderr.take().unwrap());
    let address: SocketAddr = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the gateway ended");
        if let Some((_, rest)) = line.split_once("address=") {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
    };
    drop(log);
    for _ in 0..20 {
        send(address, "before").await;
    }
    let before = resident(gateway.0.id());
    // Half of them greet, half of those have sent a mail, half do not even greet.
    let mut idle = Vec::with_capacity(IDLE);
    let (from, to) = ("anna@ours.example", "bert@partner.example");
    let mail = plain(from, to, "a while ago", &"a line of the body\r\n".repeat(1000));
    for number in 0..IDLE {
        if number % 2 == 0 {
            let mut client = Client::connect(address).await;
            if number % 4 == 0 {
                assert_eq!(client.send(from, &[to], mail.as_bytes()).await.code, 250);
            }
            idle.push((Some(client), None));
        } else {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut banner = [0; 4];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut banner).await.unwrap();
            assert_eq!(&banner, b"220 ");
            idle.push((None, Some(stream)));
        }
    }
    for _ in 0..20 {
        send(address, "between").await;
    }
    let grown = resident(gateway.0.id()).saturating_sub(before);
    eprintln!("{IDLE} idle clients: {} octets each", grown / IDLE as u64);
    assert!(grown < IDLE as u64 * EACH + SLACK, "{grown} octets for {IDLE} idle clients");
    assert_eq!(world.wait(40 + IDLE / 4).await.len(), 40 + IDLE / 4);
    // They are still served.
    for (client, _) in idle.iter_mut().step_by(500) {
        if let Some(client) = client {
            assert_eq!(client.say("NOOP").await.code, 250);
        }
    }
}

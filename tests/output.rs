//! Readers that go away: no panic, no work lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "server")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use support::Client;
use support::house::plain;

fn waxwing(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
    command.args(arguments).current_dir(folder).env_remove("WAXWING_CONFIG").env_remove("RUST_LOG");
    command
}

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn house() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert!(waxwing(folder.path(), &["kek", "init", "kek", "--store", "store"]).output().unwrap().status.success());
    fs::write(folder.path().join("mail.eml"), plain("anna@ours.example", "bert@partner.example", "x", "body")).unwrap();
    folder
}

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
[default]
encrypt = "never"
"#;

#[test]
fn a_closed_pipe_ends_no_command_badly() {
    let folder = house();
    fs::write(folder.path().join("waxwing.toml"), CONFIG.replace("PORT", "1")).unwrap();
    let store = ["--store", "store", "--kek", "kek"];
    let commands: [&[&str]; 6] = [
        &["cert", "list"],
        &["trust", "list"],
        &["message", "show", "mail.eml"],
        &["message", "open", "mail.eml", "--output", "-"],
        &["--config", "waxwing.toml", "config", "check", "--json"],
        &[
            "--config",
            "waxwing.toml",
            "policy",
            "explain",
            "mail.eml",
            "--from",
            "a@ours.example",
            "--to",
            "b@x.example",
        ],
    ];
    for command in commands {
        let with_store = command.first().is_some_and(|first| ["cert", "trust"].contains(first));
        let all = [command, if with_store { &store } else { &[] }].concat();
        let open = waxwing(folder.path(), &all).output().unwrap();
        let gone = waxwing(folder.path(), &all).stdout(closed()).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&gone.stderr);
        assert!(
            gone.status.code() == open.status.code() && !said.contains("panicked"),
            "{command:?}: {:?} {said}",
            gone.status
        );
        let both = waxwing(folder.path(), &all).stdout(closed()).stderr(closed()).status().unwrap();
        assert_eq!(both.code(), open.status.code(), "{command:?}");
        // An error that has nobody to hear it is still an exit status.
        let wrong =
            waxwing(folder.path(), &["--config", "absent", "config", "check"]).stderr(closed()).status().unwrap();
        assert_eq!(wrong.code(), Some(2));
    }
}

#[test]
fn an_output_that_cannot_be_written_is_told() {
    let folder = house();
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let ended =
        waxwing(folder.path(), &["message", "show", "mail.eml"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && said.contains("standard output cannot be written"), "{said}");
}

#[tokio::test]
async fn the_gateway_serves_on_when_nobody_reads_its_log() {
    let folder = house();
    let world = support::Sink::start().await;
    fs::write(folder.path().join("waxwing.toml"), CONFIG.replace("PORT", &world.address.port().to_string())).unwrap();
    let mut child =
        waxwing(folder.path(), &["--config", "waxwing.toml", "serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let address: SocketAddr = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the gateway ended");
        if let Some((_, rest)) = line.split_once("address=") {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
    };
    drop(log);
    for count in 1..=3 {
        let mail = plain("anna@ours.example", "bert@partner.example", "log", "body");
        let answer =
            Client::connect(address).await.send("anna@ours.example", &["bert@partner.example"], mail.as_bytes()).await;
        assert_eq!(answer.code, 250, "{answer:?}");
        assert_eq!(world.wait(count).await.len(), count);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

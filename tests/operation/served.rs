//! `waxwing serve` as a service manager runs it.

use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::keyring::Kek;

const PATIENCE: Duration = Duration::from_secs(60);

struct Served {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Served {
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn wait_for(&self, what: &str) {
        let ends = Instant::now() + PATIENCE;
        while !self.log().contains(what) {
            assert!(Instant::now() < ends, "{what:?} is not said: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn prepare(folder: &Path, more: &str, address: &str) {
    let kek = folder.join("kek");
    Kek::create(&kek).unwrap();
    drop(EmbeddedStore::create(&folder.join("store"), &kek).unwrap());
    let text = format!(
        r#"hostname = "gw.ours.example"
domains = ["ours.example"]
store = "{folder}/store"
kek = "{folder}/kek"
spool = "{folder}/spool"
{more}
[[listener]]
name = "out"
address = "{address}"
direction = "outbound"
[next_hop.outbound]
host = "127.0.0.1"
port = 9
[next_hop.inbound]
host = "127.0.0.1"
port = 9
[default]
encrypt = "require"
"#,
        folder = folder.display()
    );
    std::fs::write(folder.join("waxwing.toml"), text).unwrap();
}

/// The shell lets core dumps be as big as they like, and becomes the gateway.
fn serve(folder: &Path, vars: &[(&str, &str)]) -> Served {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" serve", env!("CARGO_BIN_EXE_waxwing")]);
    command.env("WAXWING_CONFIG", folder.join("waxwing.toml")).envs(vars.iter().copied()).current_dir(folder);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = Arc::new(Mutex::new(String::new()));
    let (stderr, written) = (child.stderr.take().unwrap(), log.clone());
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = written.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    Served { child, log }
}

fn hear(socket: &UnixDatagram) -> String {
    let mut octets = [0; 2048];
    let length = socket.recv(&mut octets).unwrap();
    String::from_utf8(octets[..length].to_vec()).unwrap()
}

#[test]
fn the_service_manager_hears_that_it_is_ready_reloads_lives_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), "", "127.0.0.1:0");
    let name = format!("waxwing-operation-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut served = serve(folder.path(), &[("NOTIFY_SOCKET", &format!("@{name}")), ("WATCHDOG_USEC", "200000")]);
    let until = |wanted: &dyn Fn(&str) -> bool| loop {
        let said = hear(&socket);
        if wanted(&said) {
            return said;
        }
    };
    assert_eq!(hear(&socket), "READY=1", "before anything else");
    until(&|said| said.starts_with("STATUS=takes mail: out 127.0.0.1:"));
    until(&|said| said == "WATCHDOG=1");
    served.signal("-HUP");
    until(&|said| said.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    until(&|said| said == "READY=1");
    until(&|said| said == "WATCHDOG=1");
    served.signal("-TERM");
    until(&|said| said.starts_with("STOPPING=1\n"));
    assert!(served.child.wait().unwrap().success(), "{}", served.log());
}

#[test]
fn a25_a_gateway_that_crashes_leaves_no_core_dump() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), "", "127.0.0.1:0");
    let mut served = serve(folder.path(), &[]);
    served.wait_for("listening");
    let limits = served.proc("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"], "neither now nor raised again: {core}");
    served.signal("-ABRT");
    let ended = served.child.wait().unwrap();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));

    // Where it is asked for, the limit stays as it was.
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), "[run]\ncore_dumps = true\n", "127.0.0.1:0");
    let served = serve(folder.path(), &[]);
    served.wait_for("listening");
    let limits = served.proc("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    if own.lines().any(|line| line.starts_with("Max core file size") && line.contains("unlimited")) {
        assert!(core.contains("unlimited"), "{core}");
    }
}

#[test]
fn a24_started_by_root_it_takes_its_address_and_becomes_another_user() {
    if !std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t") {
        eprintln!("left out: only root can become another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A low port, which that user could not take.
    let low = (600..1023).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    prepare(folder.path(), "[run]\nuser = \"nobody\"\n", &format!("127.0.0.1:{low}"));
    let owned = Command::new("chown").args(["-R", "nobody"]).arg(folder.path()).status().unwrap();
    assert!(owned.success());
    let mut served = serve(folder.path(), &[]);
    served.wait_for("listening");
    let status = served.proc("status");
    let ids = |name: &str| -> BTreeSetOf {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    let nobody = Command::new("id").args(["-u", "nobody"]).output().unwrap().stdout;
    let nobody = String::from_utf8(nobody).unwrap().trim().to_owned();
    assert_eq!(ids("Uid:"), [nobody].into(), "real, effective, saved and that of files");
    assert!(!ids("Gid:").contains("0") && !ids("Groups:").contains("0"), "{status}");
    let none = ids("CapEff:");
    assert!(none.iter().all(|mask| mask.bytes().all(|digit| digit == b'0')), "no capability is left: {none:?}");
    let mut line = String::new();
    let stream = std::net::TcpStream::connect(("127.0.0.1", low)).unwrap();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.starts_with("220 "), "{line}");
    served.signal("-TERM");
    assert!(served.child.wait().unwrap().success(), "{}", served.log());
}

type BTreeSetOf = std::collections::BTreeSet<String>;

#[test]
fn a_user_who_is_not_there_is_told_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), "[run]\nuser = \"no-such-user\"\n", "127.0.0.1:0");
    let mut served = serve(folder.path(), &[]);
    assert_eq!(served.child.wait().unwrap().code(), Some(2));
    served.wait_for("there is no such user");
}

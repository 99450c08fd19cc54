//! Debian's etcd: three members on this machine, killed, stopped, cut off and put back as a test asks.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Whether etcd is there; without it the tests that need it say so, and fail where peers are required.
pub fn installed() -> bool {
    let found = Command::new("etcd").arg("--version").output().is_ok_and(|output| output.status.success());
    let required = std::env::var_os("WAXWING_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(found || !required, "etcd is not installed: apt-get install etcd-server etcd-client");
    if !found {
        eprintln!("left out: etcd is not installed");
    }
    found
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The third member in a network namespace of its own, joined to the others by one link and to the clients by another.
pub struct Namespace {
    name: String,
    octet: u8,
}

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

impl Namespace {
    fn new() -> Option<Self> {
        let octet = (std::process::id() % 200 + 20) as u8;
        let one = Self { name: format!("ww{octet}"), octet };
        let n = &one.name;
        let commands = [
            format!("netns add {n}"),
            format!("link add {n}p type veth peer name p0 netns {n}"),
            format!("link add {n}c type veth peer name c0 netns {n}"),
            format!("addr add 10.77.{octet}.1/25 dev {n}p"),
            format!("addr add 10.77.{octet}.129/25 dev {n}c"),
            format!("link set {n}p up"),
            format!("link set {n}c up"),
            format!("-n {n} addr add 10.77.{octet}.3/25 dev p0"),
            format!("-n {n} addr add 10.77.{octet}.131/25 dev c0"),
            format!("-n {n} link set p0 up"),
            format!("-n {n} link set c0 up"),
            format!("-n {n} link set lo up"),
        ];
        let made = commands.iter().all(|command| ip(command));
        if !made {
            eprintln!("no network namespaces here: a minority is made by stopping the other members");
        }
        made.then_some(one)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.name));
    }
}

struct Member {
    folder: PathBuf,
    /// Client and peer address.
    client: String,
    peer: String,
    inside: Option<String>,
    child: Option<Child>,
}

/// Three members.
pub struct Members {
    folder: TempDir,
    members: Vec<Member>,
    // After the members: they are gone when it goes.
    namespace: Option<Namespace>,
}

impl Members {
    pub fn start() -> Self {
        Self::build(None)
    }

    /// The third can be cut off from the others alone, where the machine allows.
    pub fn divisible() -> Self {
        Self::build(Namespace::new())
    }

    fn build(namespace: Option<Namespace>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = namespace.as_ref().map_or("127.0.0.1".to_owned(), |one| format!("10.77.{}.1", one.octet));
        let members = (0..3).map(|at| {
            let inside = namespace.as_ref().filter(|_| at == 2);
            let (client, peer) = match inside {
                Some(one) => (format!("10.77.{}.131:2379", one.octet), format!("10.77.{}.3:2380", one.octet)),
                None => (format!("127.0.0.1:{}", free_port()), format!("{host}:{}", free_port())),
            };
            let inside = inside.map(|one| one.name.clone());
            Member { folder: folder.path().join(format!("m{at}")), client, peer, inside, child: None }
        });
        let mut members = Self { members: members.collect(), folder, namespace };
        (0..3).for_each(|at| members.begin(at, "new", "one"));
        members.wait();
        members
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|one| format!("http://{}", one.client)).collect()
    }

    fn begin(&mut self, at: usize, state: &str, token: &str) {
        let cluster: Vec<String> =
            self.members.iter().enumerate().map(|(at, one)| format!("m{at}=http://{}", one.peer)).collect();
        let member = &mut self.members[at];
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("m{at}.log")))
            .unwrap();
        let mut command = match &member.inside {
            None => Command::new("etcd"),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, "etcd"]);
                command
            }
        };
        let (client, peer) = (format!("http://{}", member.client), format!("http://{}", member.peer));
        let child = command
            .args(["--name", &format!("m{at}"), "--data-dir"])
            .arg(&member.folder)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", token])
            .args(["--initial-cluster-state", state, "--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        member.child = Some(child);
    }

    /// Waits until there is a leader.
    pub fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.leader().is_none() {
            assert!(Instant::now() < until, "etcd elects no leader");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn leader(&self) -> Option<usize> {
        (0..3).find(|at| {
            let output = self.ctl_at(*at, &["endpoint", "status", "-w", "json"]);
            let value: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
            let status = value.as_ref().and_then(|value| value.get(0)).and_then(|one| one.get("Status"));
            status
                .is_some_and(|status| status["leader"].is_number() && status["leader"] == status["header"]["member_id"])
        })
    }

    fn ctl_at(&self, at: usize, arguments: &[&str]) -> Output {
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--command-timeout", "1s", "--dial-timeout", "1s", "--endpoints", &self.members[at].client])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// `etcdctl` with these arguments, by whichever member answers; what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Vec<u8> {
        self.ctl_with(arguments, &[])
    }

    /// The same with something on its standard input.
    pub fn ctl_with(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let endpoints: Vec<&str> = self.members.iter().map(|one| one.client.as_str()).collect();
        let mut child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &endpoints.join(",")])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A key's value.
    pub fn get(&self, key: &str) -> Vec<u8> {
        let mut value = self.ctl(&["get", "--print-value-only", key]);
        assert_eq!(value.pop(), Some(b'\n'), "{key} is there");
        value
    }

    pub fn put(&self, key: &str, value: &[u8]) {
        if value.is_empty() {
            self.ctl(&["put", key, ""]);
        } else {
            self.ctl_with(&["put", key], value);
        }
    }

    pub fn kill(&mut self, at: usize) {
        let mut child = self.members[at].child.take().unwrap();
        signal(&child, "KILL");
        child.wait().unwrap();
    }

    pub fn restart(&mut self, at: usize) {
        self.begin(at, "existing", "one");
    }

    pub fn stop(&self, at: usize) {
        signal(self.members[at].child.as_ref().unwrap(), "STOP");
    }

    pub fn go_on(&self, at: usize) {
        signal(self.members[at].child.as_ref().unwrap(), "CONT");
    }

    /// Whether the third can be cut off from the others and not from its clients.
    pub fn can_divide(&self) -> bool {
        self.namespace.is_some()
    }

    /// The third member and the others do not hear each other.
    pub fn divide(&self, divided: bool) {
        let name = &self.namespace.as_ref().unwrap().name;
        assert!(ip(&format!("link set {name}p {}", if divided { "down" } else { "up" })));
    }

    pub fn snapshot(&self, file: &Path) {
        let file = file.to_str().unwrap();
        let output = self.ctl_at(0, &["snapshot", "save", file]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// All members end, and begin again with what the snapshot holds, under the same token.
    pub fn put_back(&mut self, file: &Path) {
        (0..3).for_each(|at| self.kill(at));
        let cluster: Vec<String> =
            self.members.iter().enumerate().map(|(at, one)| format!("m{at}=http://{}", one.peer)).collect();
        for (at, member) in self.members.iter().enumerate() {
            // A member that had not begun to write when it was killed has none: two make the cluster.
            let removed = std::fs::remove_dir_all(&member.folder);
            assert!(removed.is_ok() || !member.folder.exists(), "{removed:?}");
            let output = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore", file.to_str().unwrap(), "--name", &format!("m{at}")])
                .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", "one"])
                .args(["--initial-advertise-peer-urls", &format!("http://{}", member.peer), "--data-dir"])
                .arg(&member.folder)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        (0..3).for_each(|at| self.begin(at, "existing", "one"));
        self.wait();
    }

    /// Every file that the members have on disk.
    pub fn files(&self) -> Vec<PathBuf> {
        self.members.iter().flat_map(|one| files_in(&one.folder)).collect()
    }
}

/// Every file in a folder and those in it.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

fn signal(child: &Child, name: &str) {
    // What runs in a namespace is the same process: `ip netns exec` becomes it.
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                signal(&child, "KILL");
                let _ = child.wait();
            }
        }
    }
}

/// Hands connections on to an address, until it is cut.
pub struct Cable {
    pub address: SocketAddr,
    line: std::sync::Arc<Line>,
}

#[derive(Default)]
struct Line {
    cut: std::sync::atomic::AtomicBool,
    /// Connections begun before this number grew hang for good.
    stranded: std::sync::atomic::AtomicUsize,
}

impl Cable {
    /// To `host:port`.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cable = Self { address: listener.local_addr().unwrap(), line: Default::default() };
        let (line, target) = (cable.line.clone(), target.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let begun = line.stranded.load(SeqCst);
                let Ok(far) = std::net::TcpStream::connect(&target) else { continue };
                for (from, to) in [(&stream, &far), (&far, &stream)] {
                    let (from, to, line) = (from.try_clone().unwrap(), to.try_clone().unwrap(), line.clone());
                    std::thread::spawn(move || carry(from, to, &line, begun));
                }
            }
        });
        cable
    }

    /// Nothing comes through any more, in either direction; connections stay as they are.
    pub fn cut(&self, cut: bool) {
        self.line.cut.store(cut, SeqCst);
    }

    /// What was connected until now hangs from now on, without being closed; new connections go through.
    pub fn strand(&self) {
        self.line.stranded.fetch_add(1, SeqCst);
        self.cut(false);
    }
}

fn carry(mut from: std::net::TcpStream, mut to: std::net::TcpStream, line: &Line, begun: usize) {
    use std::io::{Read, Write};
    let mut buffer = [0; 16_384];
    while let Ok(length) = from.read(&mut buffer) {
        while line.cut.load(SeqCst) || line.stranded.load(SeqCst) != begun {
            std::thread::sleep(Duration::from_millis(20));
        }
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

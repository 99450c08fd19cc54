//! Exim and OpenSMTPD, each below a root of its own: a copy of what `scripts/mail-servers` makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::outside;
use crate::server::{listening, peers_present, run};

/// A server at work; it is ended by SIGTERM, which it hands on to those it started.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Ready when it listens at these ports. What it says goes to a file.
    pub fn start(command: &mut Command, log: PathBuf, ports: &[u16]) -> Self {
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let server = Self { child: command.spawn().unwrap(), log };
        ports.iter().for_each(|port| listening(*port));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).output();
        for _ in 0..250 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Where the roots are; `None`: they are not here, or we are not root.
pub fn servers() -> Option<PathBuf> {
    if peers_present(&["openssl"]) { outside::mail_servers() } else { None }
}

/// The root of a server, copied to a folder.
pub fn root(servers: &Path, server: &str, folder: &Path) -> PathBuf {
    let root = folder.join(server);
    run(Command::new("cp").arg("-a").arg(servers.join(server)).arg(&root));
    run(Command::new("mknod").args(["-m", "666"]).arg(root.join("dev/null")).args(["c", "1", "3"]));
    run(Command::new("mknod").args(["-m", "666"]).arg(root.join("dev/urandom")).args(["c", "1", "9"]));
    own(&root, "anna", "home/anna");
    root
}

/// Gives a file or folder below a root to one of its users.
pub fn own(root: &Path, user: &str, name: &str) {
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user)).unwrap();
    let ids: Vec<&str> = line.split(':').skip(2).take(2).collect();
    run(Command::new("chown").arg("-R").arg(ids.join(":")).arg(root.join(name)));
}

pub fn chroot(root: &Path) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root);
    command
}

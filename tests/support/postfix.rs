//! A real Postfix, started by a test on loopback, without systemd.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::outside::{self, find};

/// Whether these peers are here, and may be started: Postfix wants root.
pub fn peers_present(programs: &[&str]) -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let mut wanted = programs.to_vec();
    wanted.extend((!root).then_some("root, which Postfix wants"));
    outside::peers(&wanted)
}

pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    output
}

/// Polls until it holds; a minute at most.
pub fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited a minute for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    std::array::from_fn(|index| listeners[index].local_addr().unwrap().port())
}

pub fn listening(port: u16) {
    until("a listener", || TcpStream::connect(("127.0.0.1", port)).ok());
}

/// A Postfix of our own: folders, port, final destination for one domain (a maildir), everything else to a relay host.
pub struct Postfix {
    pub folder: PathBuf,
    pub port: u16,
}

impl Postfix {
    /// `more`: further lines of main.cf.
    pub fn start(folder: &Path, port: u16, domain: &str, relay_port: u16, more: &str) -> Self {
        Self::folders(folder);
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
             queue_run_delay = 1s\n{more}"
        );
        Self::launch(folder, port, &main, &format!("127.0.0.1:{port} inet n - n - - smtpd\n"))
    }

    /// The folders of a Postfix: `etc`, `queue`, `data`, `mail`.
    pub fn folders(folder: &Path) {
        let at = |name: &str| folder.join(name);
        for name in ["etc", "queue", "data", "mail"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        run(Command::new("chown").arg("postfix").arg(at("data")));
        run(Command::new("chown").arg("65534").arg(at("mail")));
    }

    /// With a main.cf of its own, and services before those that every Postfix has (in place of those of the same name); ready when it
    /// listens at the port.
    pub fn launch(folder: &Path, port: u16, main: &str, services: &str) -> Self {
        let at = |name: &str| folder.join(name);
        fs::write(at("etc/main.cf"), main).unwrap();
        let mut master = format!("{services}postlog unix-dgram n - n - 1 postlogd\nvirtual unix y n n - - virtual\n");
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
            if services.lines().any(|line| line.split_whitespace().next() == Some(service)) {
                continue;
            }
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
    pub fn mails(&self, count: usize) -> Vec<Vec<u8>> {
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

//! A named (BIND 9) of its own, with a signed root zone and zones below it, on a free port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::directory::{free_port, wait_for};

use crate::outside;

/// How a zone is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// As it should be.
    Well,
    /// Not at all, and the root says so.
    Not,
    /// With another key than the root vouches for.
    WithAnother,
}

pub struct Named {
    pub address: SocketAddr,
    /// The file with the root zone's key.
    pub anchor: std::path::PathBuf,
    child: Child,
    _folder: TempDir,
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, at: &Path, arguments: &[&str]) -> String {
    let output = Command::new(outside::find(program).unwrap()).current_dir(at).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a key for a zone; the name of its files.
fn key(at: &Path, zone: &str) -> String {
    run("dnssec-keygen", at, &["-q", "-a", "ECDSAP256SHA256", "-f", "KSK", zone]).trim().to_owned()
}

fn sign(at: &Path, zone: &str, file: &str, key: &str) {
    run("dnssec-signzone", at, &["-z", "-o", zone, "-f", &format!("{file}.signed"), file, key]);
}

impl Named {
    /// Zones by name, with their records in the form of a zone file; `None`: there is no named here.
    pub fn start(zones: &[(&str, Signed, &str)]) -> Option<Self> {
        if !outside::peers(&["named", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey"]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let soa = "@ IN SOA ns.example. admin.example. 1 3600 600 86400 60\n@ IN NS ns.example.\n";
        let mut root = format!("$TTL 60\n{soa}ns.example. IN A 127.0.0.1\n");
        let mut statements = String::new();
        let key_line = |name: &str| {
            let text = std::fs::read_to_string(at.join(format!("{name}.key"))).unwrap();
            text.lines().find(|line| !line.starts_with(';')).unwrap().to_owned()
        };
        for (zone, signed, records) in zones {
            let file = format!("{zone}.zone");
            root.push_str(&format!("{zone}. IN NS ns.example.\n"));
            let mut text = format!("$TTL 60\n{soa}{records}\n");
            let mut served = file.clone();
            if *signed != Signed::Not {
                let own = key(at, zone);
                text.push_str(&key_line(&own));
                text.push('\n');
                std::fs::write(at.join(&file), text).unwrap();
                sign(at, zone, &file, &own);
                served.push_str(".signed");
                let vouched = if *signed == Signed::WithAnother { key(at, zone) } else { own };
                root.push_str(&run("dnssec-dsfromkey", at, &["-2", &vouched]));
            } else {
                std::fs::write(at.join(&file), text).unwrap();
            }
            statements.push_str(&format!("zone \"{zone}\" {{ type primary; file \"{served}\"; }};\n"));
        }
        let root_key = key(at, ".");
        root.push_str(&key_line(&root_key));
        root.push('\n');
        std::fs::write(at.join("root.zone"), root).unwrap();
        sign(at, ".", "root.zone", &root_key);
        let anchor = at.join("root.anchor");
        std::fs::write(&anchor, key_line(&root_key) + "\n").unwrap();
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let conf = format!(
                "options {{ directory \"{0}\"; listen-on port {1} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; \
                 pid-file none; session-keyfile none; dnssec-validation no; }};\ncontrols {{ }};\n\
                 zone \".\" {{ type primary; file \"root.zone.signed\"; }};\n{statements}",
                at.display(),
                address.port()
            );
            std::fs::write(at.join("named.conf"), conf).unwrap();
            let mut child = Command::new(outside::find("named").unwrap())
                .args(["-g", "-n", "1", "-c", at.join("named.conf").to_str().unwrap()])
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(at.join("named.log")).unwrap())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(100));
            if child.try_wait().unwrap().is_none() {
                wait_for(address, &mut child);
                return Some(Self { address, anchor, child, _folder: folder });
            }
            eprintln!("{}", std::fs::read_to_string(at.join("named.log")).unwrap_or_default());
        }
        panic!("named does not start");
    }
}

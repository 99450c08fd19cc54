//! etcd behind TLS with client certificates, and with a user and a password.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use waxwing::config::Etcd;
use waxwing::store::CertStore;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::etcd::Role;
use waxwing::store::keyring::Kek;

use super::support::etcd::{free_port, installed};
use super::{certificate, identity, owner};

const PASSWORD: &str = "a long word";

/// One member that takes TLS with a certificate of its CA alone.
struct Guarded {
    folder: TempDir,
    endpoint: String,
    child: Child,
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Guarded {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for name in ["ca", "other"] {
            openssl(
                at,
                &format!(
                    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"
                ),
            );
        }
        std::fs::write(at.join("server.ext"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
            .unwrap();
        std::fs::write(at.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
        for (name, ca) in [("server", "ca"), ("client", "ca"), ("stranger", "other")] {
            openssl(
                at,
                &format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
                ),
            );
            let ext = if name == "server" { "server.ext" } else { "client.ext" };
            openssl(
                at,
                &format!(
                    "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 2 -extfile {ext} -out {name}.pem"
                ),
            );
        }
        let (client, peer) = (free_port(), free_port());
        let endpoint = format!("https://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let child = Command::new("etcd")
            .args(["--name", "one", "--data-dir"])
            .arg(at.join("data"))
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}"), "--client-cert-auth", "--log-level", "warn"])
            .arg("--trusted-ca-file")
            .arg(at.join("ca.pem"))
            .arg("--cert-file")
            .arg(at.join("server.pem"))
            .arg("--key-file")
            .arg(at.join("server.key"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(at.join("log")).unwrap())
            .spawn()
            .unwrap();
        let guarded = Self { folder, endpoint, child };
        let until = Instant::now() + Duration::from_secs(30);
        while !guarded.ctl(&["endpoint", "health"]) {
            assert!(Instant::now() < until, "etcd with TLS does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        guarded
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ctl(&self, arguments: &[&str]) -> bool {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint, "--cacert"])
            .arg(self.at("ca.pem"))
            .arg("--cert")
            .arg(self.at("client.pem"))
            .arg("--key")
            .arg(self.at("client.key"))
            .args(arguments)
            .output()
            .unwrap();
        output.status.success()
    }

    fn settings(&self, who: Option<&str>, ca: &str, user: Option<&str>) -> Etcd {
        Etcd {
            endpoints: vec![self.endpoint.clone()],
            prefix: "waxwing".into(),
            node: "secure".into(),
            user: user.map(|user| (user.into(), self.at("password"))),
            ca: Some(self.at(ca)),
            identity: who.map(|who| (self.at(&format!("{who}.pem")), self.at(&format!("{who}.key")))),
            max_staleness: Duration::from_secs(60),
            timeout: Duration::from_secs(2),
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn etcd_behind_tls_and_a_password_takes_who_it_should_and_nobody_else() {
    if !installed() {
        return;
    }
    let etcd = Guarded::start();
    std::fs::write(etcd.at("password"), format!("{PASSWORD}\n")).unwrap();
    Kek::create(&etcd.at("kek")).unwrap();
    let first = EmbeddedStore::create(&etcd.at("first"), etcd.at("kek")).unwrap();
    let open = |settings: &Etcd, folder: &str, role| {
        EmbeddedStore::open_shared(&etcd.at(folder), etcd.at("kek"), settings, role)
    };
    // Nobody without a certificate, with another CA's, or who believes another CA.
    for (who, ca) in [(None, "ca.pem"), (Some("stranger"), "ca.pem"), (Some("client"), "other.pem")] {
        let refused = first.found(&etcd.settings(who, ca, None)).unwrap_err().to_string();
        assert!(refused.contains("etcd"), "{who:?} {ca}: {refused}");
    }
    assert!(first.found(&etcd.settings(Some("client"), "ca.pem", None)).unwrap());
    let node = open(&etcd.settings(Some("client"), "ca.pem", None), "node", Role::Gateway).unwrap();
    node.add_certificates(&owner("anna@ours.example"), vec![certificate("anna@ours.example", true)]).unwrap();
    drop(node);
    // With users: who names none, or the wrong password, is refused.
    for command in [
        vec!["user", "add", &format!("root:{PASSWORD}")],
        vec!["user", "grant-role", "root", "root"],
        vec!["user", "add", &format!("gateway:{PASSWORD}")],
        vec!["role", "add", "gateway"],
        vec!["role", "grant-permission", "gateway", "--prefix=true", "readwrite", "waxwing/"],
        vec!["user", "grant-role", "gateway", "gateway"],
        vec!["auth", "enable"],
    ] {
        assert!(etcd.ctl(&command), "{command:?}");
    }
    let node = open(&etcd.settings(Some("client"), "ca.pem", Some("gateway")), "node", Role::Gateway).unwrap();
    node.set_disabled(&owner("anna@ours.example"), true).unwrap();
    let other = open(&etcd.settings(Some("client"), "ca.pem", Some("gateway")), "other", Role::Command).unwrap();
    assert!(identity(&other, "anna@ours.example").disabled);
    drop((node, other));
    let anonymous = open(&etcd.settings(Some("client"), "ca.pem", None), "anonymous", Role::Command);
    assert!(anonymous.is_err(), "a certificate alone is not enough any more");
    std::fs::write(etcd.at("password"), "another word\n").unwrap();
    let wrong = open(&etcd.settings(Some("client"), "ca.pem", Some("gateway")), "wrong", Role::Command).err().unwrap();
    assert!(wrong.to_string().contains("etcd"), "{wrong}");
}

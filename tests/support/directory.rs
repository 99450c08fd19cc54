//! A slapd of its own: in a temporary folder, on a free port, ended with its handle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use waxwing::pki::authority::Issued;

use crate::outside;

pub const BASE: &str = "dc=example";
pub const ADMIN: &str = "cn=admin,dc=example";
pub const PASSWORD: &str = "directory secret";

/// An entry: its mail, and further lines of LDIF.
#[derive(Default)]
pub struct Person {
    pub mail: String,
    pub lines: Vec<String>,
}

impl Person {
    pub fn new(mail: &str) -> Self {
        Self { mail: mail.to_owned(), lines: Vec::new() }
    }

    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    pub fn certificate(self, der: &[u8]) -> Self {
        self.line(format!("userCertificate;binary:: {}", STANDARD.encode(der)))
    }

    /// What a certificate's syntax does not bind.
    pub fn smime(self, octets: &[u8]) -> Self {
        self.line(format!("userSMIMECertificate:: {}", STANDARD.encode(octets)))
    }

    pub fn also(self, address: &str) -> Self {
        self.line(format!("proxyAddresses: smtp:{address}"))
    }
}

pub struct Slapd {
    pub address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A port that nobody has now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run(program: &str, arguments: &[&str]) {
    let path = outside::find(program).unwrap();
    let output = Command::new(path).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until something accepts connections there.
pub fn wait_for(address: SocketAddr, child: &mut Child) {
    let until = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        assert!(Instant::now() < until, "nothing listens at {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Slapd {
    /// `None`: there is no slapd here.
    pub fn start(people: &[Person], tls: Option<&Issued>) -> Option<Self> {
        if !outside::peers(&["slapd", "slapadd"]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::create_dir(at.join("data")).unwrap();
        let (configuration, entries) = (at.join("slapd.conf"), at.join("data.ldif"));
        std::fs::write(&configuration, configure(at, tls)).unwrap();
        std::fs::write(&entries, ldif(people)).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        run("slapadd", &["-f", &text(&configuration), "-l", &text(&entries)]);
        // Another may take the port in between: then it ends, and another one is tried.
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let mut child = Command::new(outside::find("slapd").unwrap())
                .args(["-d", "0", "-h", &format!("ldap://{address}"), "-f", &text(&configuration)])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(50));
            if child.try_wait().unwrap().is_none() {
                wait_for(address, &mut child);
                return Some(Self { address, child, _folder: folder });
            }
        }
        panic!("slapd does not start");
    }
}

fn configure(folder: &Path, tls: Option<&Issued>) -> String {
    let at = folder.display();
    let mut text = String::new();
    for schema in ["core", "cosine", "inetorgperson"] {
        text.push_str(&format!("include /etc/ldap/schema/{schema}.schema\n"));
    }
    if Path::new("/usr/lib/ldap/back_mdb.so").exists() {
        text.push_str("modulepath /usr/lib/ldap\nmoduleload back_mdb\n");
    }
    text.push_str(
        "attributetype ( 1.3.6.1.4.1.99999.1 NAME 'proxyAddresses' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )\n\
         attributetype ( 1.3.6.1.4.1.99999.2 NAME 'mailAlternateAddress' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )\n\
         objectclass ( 1.3.6.1.4.1.99999.3 NAME 'otherAddresses' SUP top AUXILIARY MAY ( proxyAddresses $ mailAlternateAddress ) )\n",
    );
    if let Some(server) = tls {
        std::fs::write(folder.join("server.pem"), pem("CERTIFICATE", server.certificate.der())).unwrap();
        std::fs::write(folder.join("server.key"), pem("PRIVATE KEY", &server.pkcs8)).unwrap();
        text.push_str(&format!("TLSCertificateFile {at}/server.pem\nTLSCertificateKeyFile {at}/server.key\n"));
    }
    text.push_str(&format!(
        "pidfile {at}/pid\nargsfile {at}/args\ndatabase mdb\nsuffix \"{BASE}\"\nrootdn \"{ADMIN}\"\nrootpw \"{PASSWORD}\"\n\
         directory {at}/data\nmaxsize 67108864\n"
    ));
    if tls.is_some() {
        text.push_str("access to * by users read by anonymous auth\n");
    }
    text
}

fn ldif(people: &[Person]) -> String {
    let mut text = format!("dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: x\ndc: example\n\n");
    for (number, person) in people.iter().enumerate() {
        let Person { mail, lines } = person;
        text.push_str(&format!(
            "dn: cn=p{number},{BASE}\nobjectClass: inetOrgPerson\nobjectClass: otherAddresses\ncn: p{number}\nsn: x\nmail: {mail}\n{}\n\n",
            lines.join("\n")
        ));
    }
    text
}

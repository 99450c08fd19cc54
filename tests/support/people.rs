//! Anna of our domain and Bob of a partner's: a PKI as files, and what they write and read with OpenSSL. `crate::server` has `run`.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use jiff::{Timestamp, ToSpan};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::pkcs12::{Bundle, export};

use crate::server::run;

pub const ANNA: &str = "anna@example.org";
pub const BOB: &str = "bob@partner.example";

fn leaf(address: &str, ca: &Issued, now: Timestamp) -> Issued {
    let recipe = Recipe {
        common_name: address.to_owned(),
        mailboxes: vec![address.to_owned()],
        subject_email: None,
        hosts: Vec::new(),
        not_before: now - 1.hour(),
        not_after: now + 240.hours(),
        ca: None,
        key_usage: vec!["digitalSignature", "keyEncipherment"],
        email_protection: Some(true),
        permitted_mail: Vec::new(),
        crl: None,
        key: NewKey::Rsa2048,
    };
    issue(&recipe, Some(ca))
}

/// The PKI as files: `NAME.der`, `NAME.pem`, `NAME.key` (PKCS#8 DER), `NAME.p12` (password "test", which the file `password` has too).
pub fn write_pki(folder: &Path) {
    let now = Timestamp::now();
    let recipe = Recipe {
        common_name: "Test CA".into(),
        mailboxes: Vec::new(),
        subject_email: None,
        hosts: Vec::new(),
        not_before: now - 1.hour(),
        not_after: now + 2400.hours(),
        ca: Some(None),
        key_usage: vec!["keyCertSign", "cRLSign"],
        email_protection: None,
        permitted_mail: Vec::new(),
        crl: None,
        key: NewKey::Rsa2048,
    };
    let ca = issue(&recipe, None);
    fs::write(folder.join("ca.der"), ca.certificate.der()).unwrap();
    for (name, address) in [("anna", ANNA), ("bob", BOB)] {
        let issued = leaf(address, &ca, now);
        fs::write(folder.join(format!("{name}.der")), issued.certificate.der()).unwrap();
        fs::write(folder.join(format!("{name}.key")), &*issued.pkcs8).unwrap();
        let bundle = Bundle {
            keys: vec![issued.pkcs8.clone()],
            certificates: vec![issued.certificate.clone()],
            ..Bundle::default()
        };
        fs::write(folder.join(format!("{name}.p12")), export(&bundle, "test", name).unwrap()).unwrap();
    }
    fs::write(folder.join("password"), "test\n").unwrap();
    for name in ["ca", "anna", "bob"] {
        let (der, pem) = (folder.join(format!("{name}.der")), folder.join(format!("{name}.pem")));
        run(Command::new("openssl").args(["x509", "-inform", "DER"]).arg("-in").arg(der).arg("-out").arg(pem));
    }
}

/// The program of this build, with a configuration.
pub fn waxwing(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
    command.arg("--config").arg(config);
    command
}

/// A key-encryption key and a store for a configuration: Anna with her key, Bob, and the CA of both.
pub fn fill_store(folder: &Path, config: &Path) {
    run(waxwing(config).args(["kek", "init"]).arg(folder.join("kek")));
    run(waxwing(config).args(["trust", "add"]).arg(folder.join("ca.der")));
    let import = ["cert", "import", "--password-file"];
    run(waxwing(config).args(import).args(["password", "anna.p12", "bob.der"].map(|name| folder.join(name))));
}

pub fn openssl(folder: &Path, arguments: &str) -> Output {
    run(Command::new("openssl").args(arguments.split(' ')).current_dir(folder))
}

/// The text of what Anna sent Bob signed and encrypted, as OpenSSL opens it with Bob's key and believes Anna's signature.
pub fn opened_by_bob(folder: &Path, mail: &[u8]) -> String {
    fs::write(folder.join("arrived.eml"), mail).unwrap();
    decrypt(folder);
    fs::copy(folder.join("decrypted.eml"), folder.join("opened.eml")).unwrap();
    verify(folder)
}

/// What OpenSSL decrypts with Bob's key: `arrived.eml` to `decrypted.eml`.
fn decrypt(folder: &Path) {
    openssl(folder, "cms -decrypt -in arrived.eml -inkey bob.key -keyform DER -recip bob.pem -out decrypted.eml");
}

/// The octets within an envelope for Bob.
pub fn decrypted_by_bob(folder: &Path, mail: &[u8]) -> Vec<u8> {
    fs::write(folder.join("arrived.eml"), mail).unwrap();
    decrypt(folder);
    fs::read(folder.join("decrypted.eml")).unwrap()
}

/// The text of what Anna signed, as OpenSSL verifies it.
pub fn verified(folder: &Path, mail: &[u8]) -> String {
    fs::write(folder.join("opened.eml"), mail).unwrap();
    verify(folder)
}

/// `opened.eml`, believed only where its signer is Anna.
fn verify(folder: &Path) -> String {
    openssl(folder, "cms -verify -in opened.eml -CAfile ca.pem -out content.eml -signer signer.pem");
    let signer = String::from_utf8(openssl(folder, "x509 -in signer.pem -noout -email").stdout).unwrap();
    assert_eq!(signer.trim(), ANNA);
    let content = fs::read(folder.join("content.eml")).unwrap();
    mail_parser::MessageParser::default().parse(&content).unwrap().body_text(0).unwrap().into_owned()
}

/// What Bob's OpenSSL signs: a MIME entity without address fields, with CRLF.
pub fn signed_by_bob(folder: &Path, text: &str) -> String {
    fs::write(folder.join("reply.txt"), format!("Content-Type: text/plain\r\n\r\n{text}\r\n")).unwrap();
    openssl(
        folder,
        "cms -sign -in reply.txt -signer bob.pem -inkey bob.key -keyform DER -md sha256 -out signed.eml -crlfeol",
    );
    crlf(&fs::read_to_string(folder.join("signed.eml")).unwrap())
}

/// A mail that Bob's OpenSSL signs and encrypts to Anna.
pub fn sealed_by_bob(folder: &Path, subject: &str, text: &str) -> String {
    signed_by_bob(folder, text);
    openssl(
        folder,
        &format!(
            "cms -encrypt -in signed.eml -aes256 -from {BOB} -to {ANNA} -subject {subject} -out sealed.eml anna.pem"
        ),
    );
    crlf(&fs::read_to_string(folder.join("sealed.eml")).unwrap())
}

fn crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

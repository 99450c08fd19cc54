//! `waxwing message` as people run it: files, no store; exit status 0 good, 1 not good, 2 could not be read.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "support/outside.rs"]
mod outside;

use std::process::{Command, Output};

use jiff::Timestamp;
use tempfile::TempDir;
use waxwing::pki::authority::{DemoPki, NewKey, Recipe, demo_pki, issue};
use waxwing::pki::pkcs12::{Bundle, export};

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.net";
const MAIL: &str = "From: Alice <alice@example.org>\nTo: bob@example.net\nSubject: Supper\nMIME-Version: 1.0\n\
    Content-Type: text/plain; charset=us-ascii\n\nAt eight, then.\nBring bread.\n";

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let pki: DemoPki = demo_pki(Timestamp::now(), &[ALICE, BOB], NewKey::P256);
        let place = Self { folder: tempfile::tempdir().unwrap() };
        for (name, mailbox) in [("alice", ALICE), ("bob", BOB)] {
            let leaf = pki.leaf(mailbox).unwrap();
            let bundle = Bundle {
                keys: vec![leaf.pkcs8.clone()],
                certificates: vec![leaf.certificate.clone(), pki.intermediate.certificate.clone()],
                ..Bundle::default()
            };
            place.write(&format!("{name}.p12"), &export(&bundle, "secret", name).unwrap());
            place.write(&format!("{name}.der"), leaf.certificate.der());
        }
        place.write("middle.der", pki.intermediate.certificate.der());
        place.write("root.der", pki.root.certificate.der());
        place.write("mail.eml", MAIL.as_bytes());
        place
    }
    fn write(&self, name: &str, octets: &[u8]) {
        std::fs::write(self.folder.path().join(name), octets).unwrap();
    }
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
    fn run(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waxwing"));
        command
            .args(["--config", "none.toml", "message"])
            .args(args.split_whitespace())
            .current_dir(self.folder.path());
        command.output().unwrap()
    }
    fn status(&self, args: &str) -> (i32, String) {
        let output = self.run(args);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }
}

const AS_BOB: &str = "--key bob.p12 --password secret --trust root.der";
const SEAL: &str =
    "seal --sign --encrypt --key alice.p12 --password secret --cert bob.der --cert middle.der --trust root.der";

#[test]
fn what_is_sealed_opens_again() {
    let place = Place::new();
    for profile in ["modern", "compatible", "edi-energy", "post-quantum"] {
        let (status, text) = place.status(&format!("{SEAL} --profile {profile} mail.eml --output sealed.eml"));
        assert_eq!(status, 0, "{text}");
        assert!(!place.read("sealed.eml").contains("bread"));
        let (status, text) =
            place.status(&format!("open {AS_BOB} sealed.eml --output content.eml --deliver delivered.eml"));
        assert_eq!(status, 0, "{text}");
        assert!(text.contains("verdict: pass (signed by alice@example.org)"), "{text}");
        assert!(text.contains("reads: AES-"), "what the signer says that she can read: {text}");
        let (_, json) = place.status(&format!("open {AS_BOB} --json sealed.eml"));
        assert!(json.contains("\"capabilities\": [\n"), "{json}");
        assert!(text.contains("└─ "), "{text}");
        assert_eq!(
            place.read("content.eml"),
            "Content-Type: text/plain; charset=us-ascii\r\n\r\nAt eight, then.\r\nBring bread.\r\n"
        );
        assert!(
            place
                .read("delivered.eml")
                .starts_with("From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Supper\r\n")
        );
    }
}

#[test]
fn json_tells_layers_signers_and_the_contents_digest() {
    let place = Place::new();
    place.status(&format!("{SEAL} --opaque mail.eml --output sealed.eml"));
    let output = place.run(&format!("open --json {AS_BOB} sealed.eml"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "pass");
    assert_eq!(report["layers"][0]["kind"], "encrypted");
    assert_eq!(report["layers"][1]["form"], "opaque");
    assert_eq!(report["layers"][1]["signers"][0]["path"]["good"], true);
    assert_eq!(report["signer"]["mailbox"], ALICE);
    let content = "Content-Type: text/plain; charset=us-ascii\n\nAt eight, then.\nBring bread.\n";
    let digest = waxwing::cms::signed::digest(waxwing::cms::algorithm::Digest::Sha256, content.as_bytes());
    let digest: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(report["content_sha256"], digest);
}

#[test]
fn what_is_not_good_ends_with_1() {
    let place = Place::new();
    place.status("seal --sign --key alice.p12 --password secret mail.eml --output signed.eml");
    place.write("tampered.eml", place.read("signed.eml").replace("Bring bread", "Bring braad").as_bytes());
    let (status, text) = place.status("open --trust root.der tampered.eml");
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("verdict: fail"), "{text}");
    assert_eq!(place.status("show tampered.eml").0, 1);
    let (status, text) = place.status("open signed.eml");
    assert_eq!(status, 1, "nobody is trusted: {text}");
    assert!(text.contains("verdict: policy"), "{text}");
    place.status(&format!("{SEAL} mail.eml --output sealed.eml"));
    let (status, text) = place.status("open --key alice.p12 --password secret --trust root.der sealed.eml");
    assert_eq!(status, 1, "{text}");
    assert_eq!(place.status("show sealed.eml").0, 0);
}

#[test]
fn what_cannot_be_read_or_sealed_ends_with_2_and_says_what_to_do() {
    let place = Place::new();
    let cases = [
        ("show nothing.eml", "cannot be read"),
        ("open --key bob.p12 --password wrong mail.eml", "--password"),
        ("seal mail.eml", "--sign"),
        ("seal --encrypt mail.eml", "waxwing cert import"),
        ("seal --sign mail.eml", "waxwing cert import"),
        ("seal --sign --key bob.p12 --password secret mail.eml", "no key to sign for alice@example.org"),
        ("seal --encrypt --cert alice.der mail.eml", "no certificate to encrypt to bob@example.net"),
        ("seal --encrypt --cert bob.der --profile none mail.eml", "compatible"),
    ];
    for (args, hint) in cases {
        let (status, text) = place.status(args);
        assert_eq!(status, 2, "{args}: {text}");
        assert!(text.contains(hint) && !text.contains("bread"), "{args}: {text}");
    }
}

/// Mails and CRLs of PKITS: one whose signer is revoked, one whose is not, and the good one without its CRLs.
#[test]
fn revocation_is_judged_by_the_crls_given() {
    let Some(pkits) = outside::corpora().map(|corpora| corpora.join("pkits")) else { return };
    let place = Place::new();
    let run = |mail: &str, more: &str| {
        let root = pkits.join("certs/TrustAnchorRootCertificate.crt");
        let crls: Vec<String> = ["TrustAnchorRootCRL.crl", "GoodCACRL.crl"]
            .iter()
            .map(|name| format!("--crl {}", pkits.join("crls").join(name).display()))
            .collect();
        let crls = if more.contains("--revocation") { String::new() } else { crls.join(" ") };
        let mail = pkits.join("smime").join(mail);
        let at = "2026-07-25T00:00:00Z";
        let line = format!("open {} --json --trust {} --at {at} {crls} {more}", mail.display(), root.display());
        let (_, text) = place.status(&line);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        let signer = report["layers"][0]["signers"][0].clone();
        (signer["path"]["good"].clone(), signer["revocation"]["status"].clone())
    };
    assert_eq!(run("SignedInvalidRevokedEETest3.eml", ""), (false.into(), "revoked".into()));
    assert_eq!(run("SignedValidSignaturesTest1.eml", ""), (true.into(), "good".into()));
    assert_eq!(run("SignedValidSignaturesTest1.eml", "--revocation off"), (true.into(), serde_json::Value::Null));
}

#[test]
fn a_crl_that_is_none_is_said_so() {
    let place = Place::new();
    let (status, text) = place.status("open mail.eml --crl mail.eml");
    assert_eq!(status, 2);
    assert!(text.contains("mail.eml: neither a CRL nor an OCSP response"), "{text}");
}

#[test]
fn every_algorithm_that_is_written_can_be_asked_for() {
    let place = Place::new();
    for (flags, shown) in [
        ("--content aes-192-gcm --kdf hkdf-sha384", ["AES-192-GCM", "HKDF with SHA-384", "AES-192 wrap"]),
        ("--content AES-192-CBC --kdf sha512", ["AES-192-CBC", "X9.63 KDF with SHA-512", "AES-192 wrap"]),
        ("--content AES-256-GCM --derive-cek", ["AES-256-GCM with a derived key", "SHA-256", "AES-256 wrap"]),
    ] {
        let (status, text) = place.status(&format!("{SEAL} {flags} mail.eml --output sealed.eml"));
        assert_eq!(status, 0, "{text}");
        let (status, text) = place.status(&format!("open {AS_BOB} sealed.eml"));
        assert_eq!(status, 0, "{text}");
        for shown in shown {
            assert!(text.contains(shown), "{shown}: {text}");
        }
    }
    for flags in ["--content 3des", "--kdf sha1", "--transport oaep-sha224", "--digest sha1"] {
        let (status, text) = place.status(&format!("{SEAL} {flags} mail.eml --output none.eml"));
        assert_eq!(status, 2, "{text}");
        assert!(text.contains("expected one of"), "{text}");
    }
    assert!(!place.folder.path().join("none.eml").exists());
}

/// Keys of every kind that a certificate may hold (RFC 8410, RFC 5480), from PKCS#12 to the opened mail.
#[test]
fn keys_of_every_kind_sign_and_open() {
    let place = Place::new();
    let now = Timestamp::now();
    let root = issue(&Recipe::authority("Root", now, NewKey::Ed25519), None);
    place.write("other.der", root.certificate.der());
    for (signs, opens, shown) in [
        (NewKey::Ed25519, NewKey::X25519, ["Ed25519", "X9.63 KDF with SHA-256"]),
        (NewKey::P521, NewKey::P521, ["ECDSA, SHA-512", "X9.63 KDF with SHA-256"]),
        (NewKey::P384, NewKey::Rsa3072, ["ECDSA, SHA-384", "RSA-OAEP, SHA-512, MGF1 SHA-512"]),
    ] {
        for (name, mailbox, kind) in [("first", ALICE, signs), ("second", BOB, opens)] {
            let leaf = issue(&Recipe::mailbox(mailbox, now, kind), Some(&root));
            place.write(&format!("{name}.der"), leaf.certificate.der());
            let bundle = Bundle { keys: vec![leaf.pkcs8], certificates: vec![leaf.certificate], ..Bundle::default() };
            place.write(&format!("{name}.p12"), &export(&bundle, "secret", name).unwrap());
        }
        let (status, text) = place.status(
            "seal --sign --encrypt --key first.p12 --password secret --cert second.der --trust other.der --transport oaep-sha512 \
             mail.eml --output sealed.eml",
        );
        assert_eq!(status, 0, "{text}");
        let (status, text) = place.status("open --key second.p12 --password secret --trust other.der sealed.eml");
        assert_eq!(status, 0, "{text}");
        assert!(text.contains("verdict: pass (signed by alice@example.org)"), "{text}");
        for shown in shown {
            assert!(text.contains(shown), "{shown}: {text}");
        }
    }
}

#[test]
fn several_may_sign() {
    let place = Place::new();
    let (status, text) =
        place.status(&format!("{SEAL} --sign-too bob.p12 mail.eml --output sealed.eml").replace(" --encrypt", ""));
    assert_eq!(status, 0, "{text}");
    let (status, text) = place.status("open --trust root.der sealed.eml");
    assert_eq!(status, 0, "{text}");
    assert_eq!(text.matches("signature: good").count(), 2, "{text}");
    assert!(text.contains("verdict: pass (signed by alice@example.org)"), "{text}");
}

#[test]
fn shared_secrets_open_what_is_encrypted_to_them() {
    if !outside::peers(&["openssl"]) {
        return;
    }
    let place = Place::new();
    for (encrypt, secret, wrong) in [
        (
            "-secretkey 000102030405060708090a0b0c0d0e0f -secretkeyid 0a",
            "--shared-key 000102030405060708090A0b0c0d0e0f:0a",
            "--shared-key 000102030405060708090a0b0c0d0e0f:0b",
        ),
        ("-pwri_password sesame", "--shared-password sesame", "--shared-password Sesame"),
    ] {
        let openssl = Command::new("openssl")
            .args(["cms", "-encrypt", "-in", "mail.eml", "-out", "secret.eml", "-aes-128-cbc"])
            .args(encrypt.split(' '))
            .current_dir(place.folder.path())
            .status();
        assert!(openssl.unwrap().success());
        let (status, text) = place.status(&format!("open {secret} secret.eml --output content.eml"));
        assert_eq!(status, 0, "{text}");
        assert!(place.read("content.eml").contains("bread"));
        let (status, text) = place.status(&format!("open {wrong} secret.eml"));
        assert_eq!(status, 1, "{text}");
        assert!(!text.contains("bread"), "{text}");
    }
    let (status, text) = place.status("open --shared-key 0001 mail.eml");
    assert_eq!(status, 2, "{text}");
    assert!(text.contains("16, 24 or 32 octets"), "{text}");
}

/// The profile `post-quantum` with keys of both kinds: two signatures that name each other, and an envelope that an ML-KEM key opens.
#[test]
fn post_quantum_mails_are_sealed_and_opened() {
    use waxwing::cms::algorithm::{MlDsa, MlKem};
    use waxwing::pki::authority::{Recipe, issue};
    let place = Place::new();
    let now = Timestamp::now();
    let root = issue(&Recipe::authority("PQ Root", now, NewKey::MlDsa(MlDsa::MlDsa65)), None);
    place.write("pq-root.der", root.certificate.der());
    for (name, mailbox, key) in
        [("alice-pq", ALICE, NewKey::MlDsa(MlDsa::MlDsa65)), ("bob-pq", BOB, NewKey::MlKem(MlKem::MlKem768))]
    {
        let issued = issue(&Recipe::mailbox(mailbox, now, key), Some(&root));
        let (keys, certificates) = (vec![issued.pkcs8.clone()], vec![issued.certificate.clone()]);
        let bundle = Bundle { keys, certificates, ..Bundle::default() };
        place.write(&format!("{name}.p12"), &export(&bundle, "secret", name).unwrap());
        place.write(&format!("{name}.der"), issued.certificate.der());
    }
    let keys =
        "--key alice.p12 --key alice-pq.p12 --password secret --trust root.der --trust pq-root.der --cert middle.der";
    let (status, text) = place.status(&format!(
        "seal --sign --encrypt {keys} --cert bob.der --cert bob-pq.der --profile post-quantum mail.eml --output sealed.eml"
    ));
    assert_eq!(status, 0, "{text}");
    let open = "open --key bob-pq.p12 --password secret --trust root.der --trust pq-root.der sealed.eml";
    let (status, text) = place.status(open);
    assert_eq!(status, 0, "{text}");
    for words in ["ML-KEM-768", "ML-DSA-65", "ECDSA", "verdict: pass (signed by alice@example.org)"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The classical key of bob's is not asked: his ML-KEM certificate came first.
    let (status, text) = place.status(&format!("open {AS_BOB} sealed.eml"));
    assert_eq!(status, 1, "{text}");
}

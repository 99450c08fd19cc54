//! What Waxwing signs and encrypts, OpenSSL `cms`, GnuPG's `gpgsm` and NSS's `cmsutil` open, and the other way round; one tampered
//! octet is refused by both sides. A peer that is not installed is left out, and named; WAXWING_REQUIRE_PEERS=1 makes that a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "support/outside.rs"]
mod outside;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;
use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport, SignatureScheme};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::keys::{Cek, KeyAnswer, KeyHolder, KeyId, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{DemoPki, Issued, NewKey, demo_pki};
use waxwing::pki::path::{AnchorScope, TrustAnchor, TrustSet};
use waxwing::smime::open::{OpenContext, Opened, Opener, OwnKey, Step};
use waxwing::smime::seal::{Draft, EncryptPlan, Form, SignPlan};
use waxwing::smime::verdict::SmimeResult;

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.net";
const PASSWORD: &str = "secret";
const CONTENT: &str = "Content-Type: text/plain; charset=us-ascii\r\n\r\nAt eight, then.\r\nBring bread.\r\n";

// --- peers -----------------------------------------------------------------------------------------------------------

use outside::peers as present;

/// A folder with the people's certificates and keys as files, for programs that are not ours.
struct Place {
    folder: TempDir,
    pki: DemoPki,
    now: Timestamp,
}

impl Place {
    fn new(kind: NewKey) -> Self {
        let now = Timestamp::now();
        let place = Self { folder: tempfile::tempdir().unwrap(), pki: demo_pki(now, &[ALICE, BOB], kind), now };
        let certificates = [
            ("root", &place.pki.root),
            ("middle", &place.pki.intermediate),
            ("alice", place.alice()),
            ("bob", place.bob()),
        ];
        for (name, issued) in certificates {
            place.write(&format!("{name}.crt"), pem("CERTIFICATE", issued.certificate.der()).as_bytes());
            place.write(&format!("{name}.der"), issued.certificate.der());
            place.write(&format!("{name}.key"), pem("PRIVATE KEY", &issued.pkcs8).as_bytes());
        }
        place.write("content", CONTENT.as_bytes());
        place
    }
    fn alice(&self) -> &Issued {
        self.pki.leaf(ALICE).unwrap()
    }
    fn bob(&self) -> &Issued {
        self.pki.leaf(BOB).unwrap()
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn write(&self, name: &str, octets: &[u8]) {
        std::fs::write(self.path(name), octets).unwrap();
    }
    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_default()
    }
    /// Runs a program in the folder; files are named relative to it.
    fn run(&self, program: &str, args: &[&str]) -> Output {
        let _ = std::fs::remove_file(self.path("out"));
        let stdin = std::fs::File::open(self.path("password")).map_or(Stdio::null(), Stdio::from);
        let home = self.path("gnupg");
        Command::new(program)
            .args(args)
            .current_dir(self.folder.path())
            .env("GNUPGHOME", home)
            .stdin(stdin)
            .output()
            .unwrap()
    }
    fn must(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let output = self.run(program, args);
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
    /// PKCS#12 files in the ciphers that the old peers read.
    fn pkcs12(&self) {
        for name in ["alice", "bob"] {
            let (key, certificate, out) = (format!("{name}.key"), format!("{name}.crt"), format!("{name}.p12"));
            let password = format!("pass:{PASSWORD}");
            self.must(
                "openssl",
                &[
                    "pkcs12",
                    "-export",
                    "-inkey",
                    &key,
                    "-in",
                    &certificate,
                    "-certfile",
                    "middle.crt",
                    "-name",
                    name,
                    "-out",
                    &out,
                    "-passout",
                    &password,
                    "-keypbe",
                    "PBE-SHA1-3DES",
                    "-certpbe",
                    "PBE-SHA1-3DES",
                    "-macalg",
                    "sha1",
                ],
            );
        }
    }
}

fn pem(what: &str, octets: &[u8]) -> String {
    format!("-----BEGIN {what}-----\n{}-----END {what}-----\n", base64_lines(octets))
}

fn base64_lines(octets: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(octets);
    text.as_bytes().chunks(64).map(|line| format!("{}\r\n", std::str::from_utf8(line).unwrap())).collect()
}

// --- our side --------------------------------------------------------------------------------------------------------

fn entity(octets: impl Into<Bytes>) -> Entity {
    Entity::parse(octets.into(), &MimeLimits::default()).unwrap()
}

fn mail() -> Entity {
    entity(format!("From: Alice <{ALICE}>\r\nTo: {BOB}\r\nSubject: Supper\r\nMIME-Version: 1.0\r\n{CONTENT}"))
}

fn key_of(issued: &Issued) -> KeyId {
    KeyId::of_spki(issued.certificate.public_key().spki())
}

fn perform(issued: &Issued, operation: KeyOperation) -> KeyAnswer {
    let mut keys = SoftwareKeys::default();
    keys.insert(SoftwareKey::from_pkcs8(&issued.pkcs8).unwrap());
    match keys.submit(operation) {
        Submission::Ready(answer) => answer.unwrap(),
        Submission::Later(_) => unreachable!(),
    }
}

fn sign(place: &Place, scheme: SignatureScheme, form: Form) -> Draft {
    let alice = place.alice();
    let plan = SignPlan {
        key: key_of(alice),
        certificate: alice.certificate.clone(),
        chain: vec![place.pki.intermediate.certificate.clone()],
        encryption_certificate: None,
        scheme,
        digest: Digest::Sha256,
        form,
        signing_time: place.now,
        capabilities: vec![ContentEncryption::Aes256Cbc],
        second: None,
    };
    let signing = Draft::new(&mail()).unwrap().sign(plan).unwrap();
    let answer = perform(alice, signing.operation());
    signing.finish(answer, true).unwrap()
}

fn encrypt(place: &Place, draft: &Draft, content: ContentEncryption, rsa: KeyTransport) -> Bytes {
    let recipients =
        vec![(place.bob().certificate.clone(), RecipientScheme { rsa, kdf: KeyDerivation::X963(Digest::Sha256) })];
    draft.encrypt(&EncryptPlan { recipients, content, derive_cek: false }, true).unwrap().rope().to_bytes()
}

fn open(place: &Place, message: impl Into<Bytes>) -> Opened {
    let bob = place.bob();
    let own = OwnKey { certificate: bob.certificate.clone(), key: key_of(bob) };
    let anchor = TrustAnchor { certificate: place.pki.root.certificate.clone(), scope: AnchorScope::Global };
    let trust = TrustSet {
        anchors: vec![anchor],
        intermediates: vec![place.pki.intermediate.certificate.clone()],
        ..TrustSet::default()
    };
    let mut opener =
        Opener::new(entity(message), OpenContext::new(vec![own], Arc::new(trust), Timestamp::now()), || {
            Cek::new(vec![9; 32])
        });
    let mut answer = None;
    loop {
        match opener.step(answer.take()) {
            Step::Key(operation) => answer = Some(Ok(perform(bob, operation))),
            Step::Done(opened) => return *opened,
        }
    }
}

/// A peer's CMS object as a message from Alice.
fn as_message(object: &[u8]) -> String {
    format!(
        "From: {ALICE}\r\nTo: {BOB}\r\nMIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; name=smime.p7m\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}",
        base64_lines(object)
    )
}

/// A peer's detached signature as a message from Alice.
fn as_clear_signed(content: &str, signature: &[u8]) -> String {
    format!(
        "From: {ALICE}\r\nTo: {BOB}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; micalg=sha-256; boundary=b;\r\n \
         protocol=\"application/pkcs7-signature\"\r\n\r\n--b\r\n{content}\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        base64_lines(signature)
    )
}

fn crlf(octets: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(octets).replace("\r\n", "\n").replace('\n', "\r\n");
    text.into_bytes()
}

/// The signed part and the signature's CMS object of one of our clear-signed messages.
fn taken_apart(message: &Bytes) -> (Bytes, Bytes) {
    let parts = entity(message.clone()).parts(&MimeLimits::default()).unwrap();
    (parts[0].raw.clone(), parts[1].decoded_body().unwrap())
}

/// One octet of the text changed.
fn tampered(message: &[u8]) -> Vec<u8> {
    String::from_utf8(message.to_vec()).unwrap().replace("Bring bread", "Bring braad").into_bytes()
}

/// One octet of the object changed, near its end: in the ciphertext or the signature.
fn tampered_object(object: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    let at = object.len() - 5;
    object[at] ^= 0x10;
    object
}

fn signature_schemes(kind: NewKey) -> Vec<SignatureScheme> {
    match kind {
        NewKey::P256 => vec![SignatureScheme::Ecdsa(Digest::Sha256)],
        _ => vec![SignatureScheme::RsaPkcs1(Digest::Sha256), SignatureScheme::RsaPss(Digest::Sha256, 32)],
    }
}

// --- OpenSSL ---------------------------------------------------------------------------------------------------------

#[test]
fn openssl_verifies_what_we_sign() {
    if !present(&["openssl"]) {
        return;
    }
    for kind in [NewKey::Rsa2048, NewKey::P256] {
        let place = Place::new(kind);
        for scheme in signature_schemes(kind) {
            for form in [Form::Clear, Form::Opaque] {
                let message = sign(&place, scheme, form).signed().unwrap().rope().to_bytes();
                place.write("mail", &message);
                let verify = ["cms", "-verify", "-in", "mail", "-CAfile", "root.crt", "-out", "out"];
                place.must("openssl", &verify);
                assert_eq!(crlf(&place.read("out")), CONTENT.as_bytes(), "{scheme:?} {form:?}");
                if form == Form::Clear {
                    place.write("mail", &tampered(&message));
                    assert!(!place.run("openssl", &verify).status.success());
                    assert_eq!(open(&place, tampered(&message)).verdict.result, SmimeResult::Fail);
                }
            }
        }
    }
}

#[test]
fn openssl_decrypts_what_we_encrypt() {
    if !present(&["openssl"]) {
        return;
    }
    let oaep = KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256);
    for (kind, transports) in [(NewKey::Rsa2048, vec![KeyTransport::RsaPkcs1, oaep]), (NewKey::P256, vec![oaep])] {
        let place = Place::new(kind);
        for content in [
            ContentEncryption::Aes128Cbc,
            ContentEncryption::Aes256Cbc,
            ContentEncryption::Aes128Gcm,
            ContentEncryption::Aes256Gcm,
        ] {
            for transport in &transports {
                let message = encrypt(&place, &Draft::new(&mail()).unwrap(), content, *transport);
                place.write("mail", &message);
                place.must(
                    "openssl",
                    &["cms", "-decrypt", "-in", "mail", "-recip", "bob.crt", "-inkey", "bob.key", "-out", "out"],
                );
                assert_eq!(crlf(&place.read("out")), CONTENT.as_bytes(), "{content:?} {transport:?}");
                let object = entity(message).decoded_body().unwrap();
                let broken = as_message(&tampered_object(&object));
                place.write("mail", broken.as_bytes());
                let theirs = place.run(
                    "openssl",
                    &["cms", "-decrypt", "-in", "mail", "-recip", "bob.crt", "-inkey", "bob.key", "-out", "out"],
                );
                if content.is_authenticated() {
                    assert!(!theirs.status.success(), "{content:?}");
                    assert!(!open(&place, broken).verdict.decrypted, "{content:?}");
                } else {
                    let opened = open(&place, broken);
                    assert!(!opened.verdict.decrypted || opened.verdict.unauthenticated, "{content:?}");
                }
            }
        }
    }
}

#[test]
fn we_open_what_openssl_makes() {
    if !present(&["openssl"]) {
        return;
    }
    for kind in [NewKey::Rsa2048, NewKey::P256] {
        let place = Place::new(kind);
        let signer = ["-signer", "alice.crt", "-inkey", "alice.key", "-certfile", "middle.crt"];
        let from_to = ["-from", ALICE, "-to", BOB, "-subject", "Supper"];
        let opaque =
            [&["cms", "-sign", "-in", "content", "-binary", "-nodetach", "-out", "out"][..], &signer, &from_to]
                .concat();
        let clear = [&["cms", "-sign", "-in", "content", "-out", "out"][..], &signer, &from_to].concat();
        let streamed = [&opaque[..], &["-stream"]].concat();
        let mut forms = vec![opaque, clear, streamed];
        if kind == NewKey::Rsa2048 {
            let pss = ["-keyopt", "rsa_padding_mode:pss"];
            forms.push([&forms[1][..], &pss].concat());
        }
        for args in forms {
            place.must("openssl", &args);
            let message = crlf(&place.read("out"));
            let opened = open(&place, message.clone());
            assert_eq!(opened.verdict.result, SmimeResult::Pass, "{args:?}: {}", opened.verdict.reason);
            if message.windows(11).any(|one| one == b"Bring bread") {
                assert_eq!(open(&place, tampered(&message)).verdict.result, SmimeResult::Fail);
            }
        }
        let mut ciphers = vec![
            vec!["-aes128"],
            vec!["-aes256"],
            vec!["-aes-128-gcm"],
            vec!["-aes-256-gcm"],
            vec!["-aes256", "-stream"],
        ];
        if kind == NewKey::Rsa2048 {
            ciphers.push(vec!["-aes256", "-keyid"]);
        }
        for cipher in ciphers {
            let mut args = vec!["cms", "-encrypt", "-in", "content", "-binary", "-out", "out"];
            args.extend(from_to);
            args.extend(cipher);
            args.extend(["-recip", "bob.crt"]);
            if args.contains(&"-aes-256-gcm") && kind == NewKey::Rsa2048 {
                args.extend(["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"]);
            }
            place.must("openssl", &args);
            let opened = open(&place, crlf(&place.read("out")));
            assert!(opened.verdict.decrypted, "{args:?}: {} {:?}", opened.verdict.reason, opened.verdict.layers);
            assert_eq!(&opened.content[..], CONTENT.as_bytes(), "{args:?}");
        }
    }
}

// --- GnuPG -----------------------------------------------------------------------------------------------------------

/// Ends the agent of a GnuPG home when the test ends.
struct Agent<'a>(&'a Place);

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.0.run("gpgconf", &["--kill", "all"]);
    }
}

fn gnupg(place: &Place) -> Agent<'_> {
    let home = place.path("gnupg");
    std::fs::create_dir(&home).unwrap();
    set_private(&home);
    std::fs::write(
        home.join("gpgsm.conf"),
        "disable-crl-checks\ndisable-dirmngr\nbatch\nno-tty\npinentry-mode loopback\n",
    )
    .unwrap();
    std::fs::write(
        home.join("gpg-agent.conf"),
        "allow-loopback-pinentry\nallow-preset-passphrase\nmax-cache-ttl 36000\n",
    )
    .unwrap();
    let fingerprint = waxwing::cms::signed::digest(Digest::Sha1, place.pki.root.certificate.der());
    let text: Vec<String> = fingerprint.iter().map(|octet| format!("{octet:02X}")).collect();
    std::fs::write(home.join("trustlist.txt"), format!("{} S relax\n", text.join(":"))).unwrap();
    place.pkcs12();
    place.write("password", PASSWORD.as_bytes());
    let agent = Agent(place);
    place.must("gpgsm", &["--import", "root.crt", "middle.crt"]);
    for name in ["alice.p12", "bob.p12"] {
        place.must("gpgsm", &["--passphrase-fd", "0", "--import", name]);
    }
    agent
}

fn set_private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn gpgsm_and_we_read_each_other() {
    if !present(&["gpgsm", "gpgconf", "openssl"]) {
        return;
    }
    let place = Place::new(NewKey::Rsa2048);
    let _agent = gnupg(&place);
    let password = ["--passphrase-fd", "0"];

    let message =
        sign(&place, SignatureScheme::RsaPkcs1(Digest::Sha256), Form::Clear).signed().unwrap().rope().to_bytes();
    let (content, signature) = taken_apart(&message);
    place.write("signature", &signature);
    place.write("signed", &content);
    place.must("gpgsm", &["--verify", "signature", "signed"]);
    place.write("signed", &tampered(&content));
    assert!(!place.run("gpgsm", &["--verify", "signature", "signed"]).status.success());

    for content in [ContentEncryption::Aes128Cbc, ContentEncryption::Aes256Cbc] {
        let message = encrypt(&place, &Draft::new(&mail()).unwrap(), content, KeyTransport::RsaPkcs1);
        place.write("object", &entity(message).decoded_body().unwrap());
        let out = place.must("gpgsm", &[&password[..], &["--decrypt", "object"]].concat());
        assert_eq!(out, CONTENT.as_bytes(), "{content:?}");
    }

    let signature = place.must("gpgsm", &[&password[..], &["-u", ALICE, "--detach-sign", "content"]].concat());
    let clear = as_clear_signed(CONTENT, &signature);
    let opened = open(&place, clear.clone());
    assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
    assert_eq!(open(&place, tampered(clear.as_bytes())).verdict.result, SmimeResult::Fail);
    let opaque = place.must("gpgsm", &[&password[..], &["-u", ALICE, "--sign", "content"]].concat());
    let opened = open(&place, as_message(&opaque));
    assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);

    let object = place.must("gpgsm", &["-r", BOB, "--encrypt", "content"]);
    let opened = open(&place, as_message(&object));
    assert_eq!(&opened.content[..], CONTENT.as_bytes(), "{:?}", opened.verdict.layers);
}

// --- NSS -------------------------------------------------------------------------------------------------------------

#[test]
fn nss_and_we_read_each_other() {
    if !present(&["cmsutil", "certutil", "pk12util", "openssl"]) {
        return;
    }
    for kind in [NewKey::Rsa2048, NewKey::P256] {
        let place = Place::new(kind);
        place.pkcs12();
        std::fs::create_dir(place.path("nss")).unwrap();
        let db = ["-d", "sql:nss"];
        place.must("certutil", &["-N", "-d", "sql:nss", "--empty-password"]);
        place.must("certutil", &["-A", "-d", "sql:nss", "-n", "root", "-t", "CT,CT,CT", "-i", "root.crt"]);
        place.must("certutil", &["-A", "-d", "sql:nss", "-n", "middle", "-t", ",,", "-i", "middle.crt"]);
        for name in ["alice", "bob"] {
            place.must("pk12util", &["-i", &format!("{name}.p12"), "-d", "sql:nss", "-W", PASSWORD]);
        }
        for scheme in signature_schemes(kind) {
            let message = sign(&place, scheme, Form::Clear).signed().unwrap().rope().to_bytes();
            let (content, signature) = taken_apart(&message);
            place.write("signature", &signature);
            place.write("signed", &content);
            let verify = [&["-D"][..], &db, &["-i", "signature", "-c", "signed", "-o", "out"]].concat();
            place.must("cmsutil", &verify);
            place.write("signed", &tampered(&content));
            assert!(!place.run("cmsutil", &verify).status.success(), "{scheme:?}");
            let message = sign(&place, scheme, Form::Opaque).signed().unwrap().rope().to_bytes();
            place.write("object", &entity(message).decoded_body().unwrap());
            place.must("cmsutil", &[&["-D"][..], &db, &["-i", "object", "-o", "out"]].concat());
            assert_eq!(place.read("out"), CONTENT.as_bytes(), "{scheme:?}");
        }
        if kind == NewKey::Rsa2048 {
            for content in [ContentEncryption::Aes128Cbc, ContentEncryption::Aes256Cbc] {
                let message = encrypt(&place, &Draft::new(&mail()).unwrap(), content, KeyTransport::RsaPkcs1);
                place.write("object", &entity(message).decoded_body().unwrap());
                place.must("cmsutil", &[&["-D"][..], &db, &["-i", "object", "-o", "out"]].concat());
                assert_eq!(place.read("out"), CONTENT.as_bytes(), "{content:?}");
            }
            place.must("cmsutil", &[&["-E"][..], &db, &["-i", "content", "-o", "out", "-r", BOB]].concat());
            let opened = open(&place, as_message(&place.read("out")));
            assert_eq!(
                &opened.content[..],
                CONTENT.as_bytes(),
                "{} {:?}",
                opened.verdict.reason,
                opened.verdict.layers
            );
        }
        let sign = [&["-S"][..], &db, &["-N", "alice", "-i", "content", "-o", "out", "-H", "SHA256", "-G"]].concat();
        place.must("cmsutil", &sign);
        let opened = open(&place, as_message(&place.read("out")));
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
        place.must("cmsutil", &[&sign[..], &["-T"]].concat());
        let clear = as_clear_signed(CONTENT, &place.read("out"));
        let opened = open(&place, clear.clone());
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
        assert_eq!(open(&place, tampered(clear.as_bytes())).verdict.result, SmimeResult::Fail);
    }
}

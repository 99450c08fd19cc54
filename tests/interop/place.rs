//! A folder with people's certificates and keys as files, for programs that are not ours; and our own side of it.
#![allow(dead_code, reason = "each test crate uses a part of it")]

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
use waxwing::pki::authority::{DemoPki, Issued, NewKey, Recipe, demo_pki, issue_cached};
use waxwing::pki::path::{AnchorScope, TrustAnchor, TrustSet};
use waxwing::smime::open::{OpenContext, Opened, Opener, OwnKey, Step};
use waxwing::smime::seal::{Draft, EncryptPlan, Form, SignPlan};

pub const ALICE: &str = "alice@example.org";
pub const BOB: &str = "bob@example.net";
pub const PASSWORD: &str = "secret";
pub const CONTENT: &str = "Content-Type: text/plain; charset=us-ascii\r\n\r\nAt eight, then.\r\nBring bread.\r\n";

/// Alice and Bob under a root and an intermediate, all with keys of one kind.
pub struct Place {
    folder: TempDir,
    pub pki: DemoPki,
    pub now: Timestamp,
}

impl Place {
    pub fn new(kind: NewKey) -> Self {
        let now = Timestamp::now();
        let place = Self { folder: tempfile::tempdir().unwrap(), pki: demo_pki(now, &[ALICE, BOB], kind), now };
        place.write_people();
        place
    }

    /// Alice's key is Ed25519; the others' are P-256.
    pub fn ed25519() -> Self {
        let mut place = Self::new(NewKey::P256);
        let recipe = Recipe::mailbox(ALICE, place.now, NewKey::Ed25519);
        place.pki.leaves[0] = issue_cached(&recipe, Some(&place.pki.intermediate));
        place.write_people();
        place
    }

    fn write_people(&self) {
        let people = [
            ("root", &self.pki.root),
            ("middle", &self.pki.intermediate),
            ("alice", self.alice()),
            ("bob", self.bob()),
        ];
        for (name, issued) in people {
            self.write(&format!("{name}.crt"), pem("CERTIFICATE", issued.certificate.der()).as_bytes());
            self.write(&format!("{name}.der"), issued.certificate.der());
            self.write(&format!("{name}.key"), pem("PRIVATE KEY", &issued.pkcs8).as_bytes());
            self.write(&format!("{name}.pkcs8"), &issued.pkcs8);
        }
        self.write("content", CONTENT.as_bytes());
    }
    pub fn alice(&self) -> &Issued {
        self.pki.leaf(ALICE).unwrap()
    }
    pub fn bob(&self) -> &Issued {
        self.pki.leaf(BOB).unwrap()
    }
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    pub fn write(&self, name: &str, octets: &[u8]) {
        std::fs::write(self.path(name), octets).unwrap();
    }
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_default()
    }
    /// Runs a program in the folder; files are named relative to it. What it reads on its standard input is the password, if there is one.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        let _ = std::fs::remove_file(self.path("out"));
        let stdin = std::fs::File::open(self.path("password")).map_or(Stdio::null(), Stdio::from);
        Command::new(program)
            .args(args)
            .current_dir(self.folder.path())
            .env("GNUPGHOME", self.path("gnupg"))
            .stdin(stdin)
            .output()
            .unwrap()
    }
    pub fn must(&self, program: &str, args: &[&str]) -> Vec<u8> {
        self.attempt(program, args).unwrap_or_else(|why| panic!("{program} {args:?}: {why}"))
    }
    /// What it writes on its standard output, or on its standard error where it fails.
    pub fn attempt(&self, program: &str, args: &[&str]) -> Result<Vec<u8>, String> {
        let output = self.run(program, args);
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
    /// The same, of what it writes into the file `out`.
    pub fn attempt_file(&self, program: &str, args: &[&str]) -> Result<Vec<u8>, String> {
        self.attempt(program, args).map(|_| self.read("out"))
    }
    /// PKCS#12 files in the ciphers that the old peers read.
    pub fn pkcs12(&self) {
        for name in ["alice", "bob"] {
            let (key, certificate, out) = (format!("{name}.key"), format!("{name}.crt"), format!("{name}.p12"));
            let password = format!("pass:{PASSWORD}");
            let files = ["pkcs12", "-export", "-inkey", &key, "-in", &certificate, "-certfile", "middle.crt"];
            let names = ["-name", name, "-out", &out, "-passout", &password];
            let how = ["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"];
            self.must("openssl", &[&files[..], &names, &how].concat());
        }
    }
}

pub fn pem(what: &str, octets: &[u8]) -> String {
    format!("-----BEGIN {what}-----\n{}-----END {what}-----\n", base64_lines(octets))
}

fn base64_lines(octets: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(octets);
    text.as_bytes().chunks(64).map(|line| format!("{}\r\n", std::str::from_utf8(line).unwrap())).collect()
}

// --- our side --------------------------------------------------------------------------------------------------------

pub fn entity(octets: impl Into<Bytes>) -> Entity {
    Entity::parse(octets.into(), &MimeLimits::default()).unwrap()
}

pub fn mail() -> Entity {
    entity(format!("From: Alice <{ALICE}>\r\nTo: {BOB}\r\nSubject: Supper\r\nMIME-Version: 1.0\r\n{CONTENT}"))
}

fn key_of(issued: &Issued) -> KeyId {
    KeyId::of_spki(issued.certificate.public_key().spki())
}

/// The holder of one person's key.
pub fn holder(issued: &Issued) -> SoftwareKeys {
    let mut keys = SoftwareKeys::default();
    keys.insert(SoftwareKey::from_pkcs8(&issued.pkcs8).unwrap());
    keys
}

fn perform(keys: &SoftwareKeys, operation: KeyOperation) -> KeyAnswer {
    match keys.submit(operation) {
        Submission::Ready(answer) => answer.unwrap(),
        Submission::Later(_) => unreachable!(),
    }
}

pub fn sign(place: &Place, scheme: SignatureScheme, form: Form) -> Draft {
    let alice = place.alice();
    let plan = SignPlan {
        key: key_of(alice),
        certificate: alice.certificate.clone(),
        chain: vec![place.pki.intermediate.certificate.clone()],
        encryption_certificate: None,
        scheme,
        digest: scheme.digest(),
        form,
        signing_time: place.now,
        capabilities: vec![ContentEncryption::Aes256Cbc],
        second: None,
    };
    let signing = Draft::new(&mail()).unwrap().sign(plan).unwrap();
    let answer = perform(&holder(alice), signing.operation());
    signing.finish(answer, true).unwrap()
}

pub fn encrypt(place: &Place, draft: &Draft, content: ContentEncryption, rsa: KeyTransport) -> Bytes {
    let recipients =
        vec![(place.bob().certificate.clone(), RecipientScheme { rsa, kdf: KeyDerivation::X963(Digest::Sha256) })];
    draft.encrypt(&EncryptPlan { recipients, content, derive_cek: false }, true).unwrap().rope().to_bytes()
}

/// How Bob opens: with his key, trusting the root.
pub fn context(place: &Place) -> OpenContext {
    let bob = place.bob();
    let own = OwnKey { certificate: bob.certificate.clone(), key: key_of(bob) };
    let anchor = TrustAnchor { certificate: place.pki.root.certificate.clone(), scope: AnchorScope::Global };
    let trust = TrustSet {
        anchors: vec![anchor],
        intermediates: vec![place.pki.intermediate.certificate.clone()],
        ..TrustSet::default()
    };
    OpenContext::new(vec![own], Arc::new(trust), Timestamp::now())
}

pub fn open(place: &Place, message: impl Into<Bytes>) -> Opened {
    open_with(&context(place), &holder(place.bob()), entity(message))
}

pub fn open_with(context: &OpenContext, keys: &SoftwareKeys, message: Entity) -> Opened {
    let mut opener = Opener::new(message, context.clone(), || Cek::new(vec![9; 32]));
    let mut answer = None;
    loop {
        match opener.step(answer.take()) {
            Step::Key(operation) => answer = Some(Ok(perform(keys, operation))),
            Step::Done(opened) => return *opened,
        }
    }
}

/// A CMS object as a message from Alice.
pub fn as_message(object: &[u8]) -> String {
    format!(
        "From: {ALICE}\r\nTo: {BOB}\r\nMIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; name=smime.p7m\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}",
        base64_lines(object)
    )
}

/// A detached signature as a message from Alice.
pub fn as_clear_signed(content: &[u8], signature: &[u8]) -> Vec<u8> {
    let head = format!(
        "From: {ALICE}\r\nTo: {BOB}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; micalg=sha-256; boundary=b;\r\n \
         protocol=\"application/pkcs7-signature\"\r\n\r\n--b\r\n"
    );
    let tail = format!(
        "\r\n--b\r\nContent-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        base64_lines(signature)
    );
    [head.as_bytes(), content, tail.as_bytes()].concat()
}

pub fn crlf(octets: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(octets).replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()
}

/// The signed part and the signature's CMS object of one of our clear-signed messages.
pub fn taken_apart(message: &Bytes) -> (Bytes, Bytes) {
    let parts = entity(message.clone()).parts(&MimeLimits::default()).unwrap();
    (parts[0].raw.clone(), parts[1].decoded_body().unwrap())
}

/// One octet of the text changed, wherever it stands in clear.
pub fn tampered(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(at) = message.windows(11).position(|one| one == b"Bring bread") {
        message[at + 8] = b'a';
    }
    message
}

/// One octet of the object changed, near its end: in the ciphertext, the tag or the signature.
pub fn tampered_object(object: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    // BER closes with zeros.
    let at = object.iter().rposition(|octet| *octet != 0).unwrap() - 5;
    object[at] ^= 0x10;
    object
}

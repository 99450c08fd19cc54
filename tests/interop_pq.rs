//! ML-DSA, SLH-DSA and ML-KEM between OpenSSL 3.6 and us: what one makes the other reads, and a tampered octet is refused by both. Files
//! that OpenSSL made stand in `fixtures/pq`, so that a run without that program (`scripts/openssl-peer`) is judged by it too.
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
use std::process::{Command, Output};
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;
use waxwing::cms::algorithm::{
    ContentEncryption, Digest, KeyDerivation, KeyTransport, MlDsa, MlKem, SignatureScheme, SlhDsa,
};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::keys::{Cek, KeyAnswer, KeyHolder, KeyId, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::certificate::Certificate;
use waxwing::pki::path::{AnchorScope, TrustAnchor, TrustSet};
use waxwing::pki::pkcs12::read_any;
use waxwing::smime::open::{OpenContext, Opened, Opener, OwnKey, Step};
use waxwing::smime::seal::{CoSigner, Draft, EncryptPlan, Form, SignPlan};
use waxwing::smime::verdict::SmimeResult;

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.net";
const CONTENT: &str = "Content-Type: text/plain\r\n\r\nAt eight, then.\r\n";

// --- our side --------------------------------------------------------------------------------------------------------

fn entity(octets: impl Into<Bytes>) -> Entity {
    Entity::parse(octets.into(), &MimeLimits::default()).unwrap()
}

fn mail() -> Entity {
    entity(format!("From: Alice <{ALICE}>\r\nTo: {BOB}\r\nSubject: Supper\r\nMIME-Version: 1.0\r\n{CONTENT}"))
}

fn lines(octets: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(octets);
    text.as_bytes().chunks(64).map(|line| format!("{}\r\n", std::str::from_utf8(line).unwrap())).collect()
}

fn pem(what: &str, octets: &[u8]) -> String {
    format!("-----BEGIN {what}-----\n{}-----END {what}-----\n", lines(octets))
}

/// A CMS object as a message from Alice.
fn as_message(object: &[u8]) -> String {
    format!(
        "From: {ALICE}\r\nTo: {BOB}\r\nMIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; name=smime.p7m\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}",
        lines(object)
    )
}

/// The CMS object of an opaque message of ours.
fn object(message: &Bytes) -> Bytes {
    entity(message.clone()).decoded_body().unwrap()
}

fn certificate(octets: &[u8]) -> Certificate {
    Certificate::from_pem_or_der(octets).unwrap().remove(0)
}

fn perform(keys: &SoftwareKeys, operation: KeyOperation) -> KeyAnswer {
    match keys.submit(operation) {
        Submission::Ready(answer) => answer.unwrap(),
        Submission::Later(_) => unreachable!(),
    }
}

/// Opens with bob's key (certificate, PKCS#8), where there is one.
fn open(message: impl Into<Bytes>, roots: &[Certificate], bob: Option<(&Certificate, &[u8])>, at: Timestamp) -> Opened {
    let mut keys = SoftwareKeys::default();
    let own = bob.map(|(certificate, pkcs8)| OwnKey {
        certificate: certificate.clone(),
        key: keys.insert(SoftwareKey::from_pkcs8(pkcs8).unwrap()),
    });
    let anchor = |root: &Certificate| TrustAnchor { certificate: root.clone(), scope: AnchorScope::Global };
    let trust = TrustSet { anchors: roots.iter().map(anchor).collect(), ..TrustSet::default() };
    let context = OpenContext::new(own.into_iter().collect(), Arc::new(trust), at);
    let mut opener = Opener::new(entity(message), context, || Cek::new(vec![9; 32]));
    let mut answer = None;
    loop {
        match opener.step(answer.take()) {
            Step::Key(operation) => answer = Some(Ok(perform(&keys, operation))),
            Step::Done(opened) => return *opened,
        }
    }
}

/// The object with one octet changed, near its end: in the ciphertext or the signature.
fn tampered(object: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    let at = object.len() - 20;
    object[at] ^= 0x10;
    object
}

// --- what OpenSSL made -------------------------------------------------------------------------------------------------

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pq").join(name)).unwrap()
}

fn fixture_time() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

#[test]
fn signatures_that_openssl_made_are_proven() {
    let (ca, slh) = (certificate(&fixture("ca.crt")), certificate(&fixture("slh-ca.crt")));
    for (file, root, other) in [
        ("ml-dsa-65.signed", &slh, &ca),
        ("slh-dsa-sha2-128f.signed", &ca, &slh),
        ("slh-dsa-shake-128s.signed", &ca, &slh),
    ] {
        let signed = fixture(file);
        let judge = |object: &[u8], roots: &[Certificate]| open(as_message(object), roots, None, fixture_time());
        let opened = judge(&signed, std::slice::from_ref(root));
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{file}: {}", opened.verdict.reason);
        assert_eq!(opened.content, CONTENT.as_bytes());
        assert_ne!(judge(&signed, std::slice::from_ref(other)).verdict.result, SmimeResult::Pass, "another root");
        // In the signature, in the content, in the certificate that it brings along.
        let content = memchr_of(&signed, b"eight");
        for at in [signed.len() - 20, content, content + 2_000, content + 5_000] {
            let mut changed = signed.clone();
            changed[at] ^= 1;
            let result = judge(&changed, std::slice::from_ref(root)).verdict.result;
            assert_ne!(result, SmimeResult::Pass, "{file} changed at {at}");
        }
    }
}

fn memchr_of(octets: &[u8], what: &[u8]) -> usize {
    octets.windows(what.len()).position(|window| window == what).unwrap()
}

#[test]
fn envelopes_that_openssl_made_open_with_the_key_it_made() {
    let bob = certificate(&fixture("bob.crt"));
    let key = read_any(&fixture("bob.key"), None).unwrap().keys.remove(0);
    for file in ["ml-kem-768-cbc.enveloped", "ml-kem-768-gcm.enveloped"] {
        let object = fixture(file);
        let opened = open(as_message(&object), &[], Some((&bob, &key)), fixture_time());
        assert!(opened.verdict.decrypted, "{file}: {}", opened.verdict.reason);
        assert_eq!(opened.content, CONTENT.as_bytes());
        // CBC alone does not notice every change of its ciphertext; the KEM's ciphertext and the wrap do.
        for at in [200, 900, object.len() - 5] {
            let mut changed = object.clone();
            changed[at] ^= 1;
            let opened = open(as_message(&changed), &[], Some((&bob, &key)), fixture_time());
            assert!(!opened.verdict.decrypted || opened.content != CONTENT.as_bytes(), "{file} changed at {at}");
        }
    }
}

// --- the program itself ------------------------------------------------------------------------------------------------

struct Place {
    folder: TempDir,
    openssl: PathBuf,
    now: Timestamp,
    ca: Issued,
}

impl Place {
    fn new() -> Option<Self> {
        let openssl = outside::openssl_pq()?;
        let now = Timestamp::now();
        let ca = issue(&Recipe::authority("PQ Root", now, NewKey::MlDsa(MlDsa::MlDsa44)), None);
        let place = Self { folder: tempfile::tempdir().unwrap(), openssl, now, ca };
        place.write("ca", &place.ca);
        place.file("mail.txt", CONTENT.as_bytes());
        place.file("pq.cnf", include_bytes!("fixtures/pq/sign.cnf"));
        Some(place)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn file(&self, name: &str, octets: &[u8]) {
        std::fs::write(self.path(name), octets).unwrap();
    }
    fn write(&self, name: &str, issued: &Issued) {
        self.file(&format!("{name}.crt"), pem("CERTIFICATE", issued.certificate.der()).as_bytes());
        self.file(&format!("{name}.key"), pem("PRIVATE KEY", &issued.pkcs8).as_bytes());
    }
    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_default()
    }
    /// A certificate of our CA's, also as files.
    fn issue(&self, name: &str, mailbox: &str, key: NewKey) -> Issued {
        let issued = issue(&Recipe::mailbox(mailbox, self.now, key), Some(&self.ca));
        self.write(name, &issued);
        issued
    }
    fn run(&self, args: &str) -> Output {
        Command::new(&self.openssl)
            .args(args.split(' '))
            .current_dir(self.folder.path())
            .env("OPENSSL_CONF", "/dev/null")
            .output()
            .unwrap()
    }
    fn must(&self, args: &str) {
        let output = self.run(args);
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    }
    fn fails(&self, args: &str) {
        assert!(!self.run(args).status.success(), "{args} succeeded");
    }
    fn open(&self, message: impl Into<Bytes>, bob: Option<&Issued>) -> Opened {
        let bob = bob.map(|bob| (&bob.certificate, bob.pkcs8.as_slice()));
        open(message, std::slice::from_ref(&self.ca.certificate), bob, Timestamp::now())
    }
    /// Alice's opaque signature, and a second one where there is one.
    fn signed(&self, alice: &Issued, scheme: SignatureScheme, second: Option<(&Issued, SignatureScheme)>) -> Draft {
        let id = |issued: &Issued| KeyId::of_spki(issued.certificate.public_key().spki());
        let plan = SignPlan {
            key: id(alice),
            certificate: alice.certificate.clone(),
            chain: Vec::new(),
            encryption_certificate: None,
            scheme,
            digest: scheme.digest(),
            form: Form::Opaque,
            signing_time: self.now,
            capabilities: vec![ContentEncryption::Aes256Gcm],
            second: second.map(|(other, scheme)| CoSigner {
                key: id(other),
                certificate: other.certificate.clone(),
                chain: Vec::new(),
                scheme,
            }),
        };
        let mut keys = SoftwareKeys::default();
        for issued in std::iter::once(alice).chain(second.map(|(other, _)| other)) {
            keys.insert(SoftwareKey::from_pkcs8(&issued.pkcs8).unwrap());
        }
        let signing = Draft::new(&mail()).unwrap().sign(plan).unwrap();
        let answers = signing.operations().into_iter().map(|operation| perform(&keys, operation)).collect();
        signing.finish_all(answers, true).unwrap()
    }
}

const VERIFY: &str = "cms -verify -binary -inform DER -in ours -CAfile ca.crt -purpose smimesign -out out";

#[test]
fn openssl_verifies_ml_dsa_signatures_of_ours() {
    let Some(place) = Place::new() else { return };
    let classical = place.issue("ec", ALICE, NewKey::P256);
    for set in MlDsa::ALL {
        let (alice, scheme) = (place.issue("alice", ALICE, NewKey::MlDsa(set)), SignatureScheme::MlDsa(set));
        place.must("verify -x509_strict -purpose smimesign -CAfile ca.crt alice.crt");
        for second in [false, true] {
            let draft = match second {
                false => place.signed(&alice, scheme, None),
                true => place.signed(&classical, SignatureScheme::Ecdsa(Digest::Sha256), Some((&alice, scheme))),
            };
            let ours = object(&draft.signed().unwrap().rope().to_bytes());
            place.file("ours", &ours);
            place.must(VERIFY);
            assert_eq!(place.read("out"), CONTENT.as_bytes(), "{} {second}", set.name());
            place.file("ours", &tampered(&ours));
            place.fails(VERIFY);
            assert_eq!(place.open(as_message(&ours), None).verdict.result, SmimeResult::Pass);
            assert_ne!(place.open(as_message(&tampered(&ours)), None).verdict.result, SmimeResult::Pass);
        }
    }
}

#[test]
fn ml_dsa_signatures_of_openssl_are_proven() {
    let Some(place) = Place::new() else { return };
    for set in MlDsa::ALL {
        place.issue("alice", ALICE, NewKey::MlDsa(set));
        // OpenSSL makes no ML-DSA signatures without signed attributes.
        place.must(
            "cms -sign -binary -nodetach -in mail.txt -signer alice.crt -inkey alice.key -md sha512 -outform DER -out theirs",
        );
        let theirs = place.read("theirs");
        let opened = place.open(as_message(&theirs), None);
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}: {}", set.name(), opened.verdict.reason);
        assert_ne!(place.open(as_message(&tampered(&theirs)), None).verdict.result, SmimeResult::Pass);
    }
}

/// Keys of OpenSSL's, certified by OpenSSL with our CA's key, their signatures verified here: all twelve sets.
#[test]
fn slh_dsa_signatures_of_openssl_are_proven() {
    let Some(place) = Place::new() else { return };
    for set in SlhDsa::ALL {
        let name = set.name();
        place.must(&format!("genpkey -algorithm {name} -out alice.key"));
        place.must("pkey -in alice.key -pubout -out alice.pub");
        place.must(
            "x509 -new -force_pubkey alice.pub -subj /CN=alice -CA ca.crt -CAkey ca.key -extfile pq.cnf -extensions sign -days 30 -out alice.crt",
        );
        let digest = match (name.contains("SHAKE"), set.public_key_len()) {
            (false, 32) => "sha256",
            (false, _) => "sha512",
            (true, 32) => "shake128",
            (true, _) => "shake256",
        };
        place.must(&format!(
            "cms -sign -binary -nodetach -in mail.txt -signer alice.crt -inkey alice.key -md {digest} -outform DER -out theirs"
        ));
        let theirs = place.read("theirs");
        let opened = place.open(as_message(&theirs), None);
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{name}: {}", opened.verdict.reason);
        assert_ne!(place.open(as_message(&tampered(&theirs)), None).verdict.result, SmimeResult::Pass, "{name}");
    }
}

#[test]
fn ml_kem_envelopes_open_on_the_other_side() {
    let Some(place) = Place::new() else { return };
    let scheme = RecipientScheme { rsa: KeyTransport::RsaPkcs1, kdf: KeyDerivation::X963(Digest::Sha256) };
    const OPEN: &str = "cms -decrypt -binary -inform DER -in ours -recip bob.crt -inkey bob.key -out out";
    for set in MlKem::ALL {
        let bob = place.issue("bob", BOB, NewKey::MlKem(set));
        place.must("verify -x509_strict -CAfile ca.crt bob.crt");
        for (cipher, content) in [
            ("aes-128-cbc", ContentEncryption::Aes128Cbc),
            ("aes-256-cbc", ContentEncryption::Aes256Cbc),
            ("aes-256-gcm", ContentEncryption::Aes256Gcm),
        ] {
            let plan = EncryptPlan { recipients: vec![(bob.certificate.clone(), scheme)], content, derive_cek: false };
            let ours = object(&Draft::new(&mail()).unwrap().encrypt(&plan, true).unwrap().rope().to_bytes());
            place.file("ours", &ours);
            let _ = std::fs::remove_file(place.path("out"));
            place.must(OPEN);
            assert_eq!(place.read("out"), CONTENT.as_bytes(), "{} {cipher}", set.name());

            place.must(&format!("cms -encrypt -binary -{cipher} -in mail.txt -recip bob.crt -outform DER -out theirs"));
            let opened = place.open(as_message(&place.read("theirs")), Some(&bob));
            assert!(opened.verdict.decrypted, "{} {cipher}: {}", set.name(), opened.verdict.reason);
            assert_eq!(opened.content, CONTENT.as_bytes());
            if content.is_authenticated() {
                place.file("ours", &tampered(&ours));
                place.fails(OPEN);
                assert!(!place.open(as_message(&tampered(&place.read("theirs"))), Some(&bob)).verdict.decrypted);
            }
        }
    }
}

/// Private keys of OpenSSL's in each form (seed, expanded, both) are the key of its public half; so are ours to OpenSSL.
#[test]
fn private_keys_of_every_form_are_read_on_the_other_side() {
    let Some(place) = Place::new() else { return };
    let names = MlDsa::ALL.map(MlDsa::name).into_iter().chain(MlKem::ALL.map(MlKem::name));
    for name in names {
        let provider = if name.starts_with("ML-DSA") { "ml-dsa" } else { "ml-kem" };
        for form in ["seed-only", "priv-only", "seed-priv"] {
            place.must(&format!("genpkey -algorithm {name} -out their.key"));
            place.must("pkey -in their.key -pubout -outform DER -out their.pub");
            place.must(&format!("pkey -in their.key -provparam {provider}.output_formats={form} -out form.key"));
            let bundle = read_any(&place.read("form.key"), None).unwrap();
            let key = SoftwareKey::from_pkcs8(&bundle.keys[0]).unwrap_or_else(|error| panic!("{name} {form}: {error}"));
            assert_eq!(key.spki(), place.read("their.pub"), "{name} {form}");
        }
    }
}

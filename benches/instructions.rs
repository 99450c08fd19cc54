//! Instructions of our own functions, one small mail: `benches/instructions.py` runs this under callgrind and takes the primitives off.
//! Keys are P-256 and answers of private keys were given before, so that what is counted is the same on every machine.
//!
//! `instructions NAME` does the work of that name a hundred times; without a name, and under `cargo test`, each once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{Timestamp, ToSpan};
use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport, SignatureScheme};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::keys::{Cek, KeyAnswer, KeyHolder, KeyId, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::path::{AnchorScope, TrustAnchor, TrustSet};
use waxwing::smime::open::{OpenContext, Opener, OwnKey, Step};
use waxwing::smime::seal::{Draft, EncryptPlan, Form, Sealed, SignPlan};
use waxwing::smime::verdict::SmimeResult;

const TIMES: usize = 100;

struct World {
    now: Timestamp,
    keys: SoftwareKeys,
    sender: (Issued, KeyId),
    recipient: (Issued, KeyId),
    trust: Arc<TrustSet>,
    plain: Bytes,
}

impl World {
    fn new() -> Self {
        // Signing time and validity have the same length whenever it runs.
        let now = Timestamp::now();
        let ca = issue(&Recipe::authority("Bench CA", now - 1.hour(), NewKey::P256), None);
        let mut keys = SoftwareKeys::default();
        let mut person = |mailbox| {
            let issued = issue(&Recipe::mailbox(mailbox, now, NewKey::P256), Some(&ca));
            let key = keys.insert(SoftwareKey::from_pkcs8(&issued.pkcs8).unwrap());
            (issued, key)
        };
        let (sender, recipient) = (person("anna@example.org"), person("bob@partner.example"));
        let anchors = vec![TrustAnchor { certificate: ca.certificate, scope: AnchorScope::Global }];
        let trust = Arc::new(TrustSet { anchors, intermediates: Vec::new(), generation: 1 });
        let header = "From: anna@example.org\r\nTo: bob@partner.example\r\nSubject: instructions\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n";
        let plain = format!("{header}{}", format!("{}\r\n", "X".repeat(78)).repeat(50)).into();
        Self { now, keys, sender, recipient, trust, plain }
    }

    fn perform(&self, operation: KeyOperation) -> KeyAnswer {
        match self.keys.submit(operation) {
            Submission::Ready(answer) => answer.unwrap(),
            Submission::Later(_) => panic!("software keys answer at once"),
        }
    }

    fn plan(&self) -> SignPlan {
        SignPlan {
            key: self.sender.1,
            certificate: self.sender.0.certificate.clone(),
            chain: Vec::new(),
            encryption_certificate: None,
            scheme: SignatureScheme::Ecdsa(Digest::Sha256),
            digest: Digest::Sha256,
            form: Form::Clear,
            signing_time: self.now,
            capabilities: vec![ContentEncryption::Aes256Cbc],
            second: None,
        }
    }

    fn sealed(&self, answer: Option<KeyAnswer>) -> Sealed {
        let (draft, plan) = (seal_prepare(&self.plain), self.plan());
        let signing = draft.sign(plan).unwrap();
        let answer = answer.unwrap_or_else(|| self.perform(signing.operation()));
        seal_finish(signing, answer, &self.recipient.0)
    }

    /// The sealed mail, and what the recipient's key answers.
    fn received(&self) -> (Bytes, Cek) {
        let message: Bytes = self.sealed(None).rope().to_bytes();
        let mut opener = self.opener(&message);
        let Step::Key(operation) = opener.step(None) else { panic!("it is encrypted") };
        let KeyAnswer::Cek(cek) = self.perform(operation) else { panic!("a CEK") };
        (message, cek)
    }

    fn opener(&self, message: &Bytes) -> Opener {
        let own = OwnKey { certificate: self.recipient.0.certificate.clone(), key: self.recipient.1 };
        let context = OpenContext::new(vec![own], self.trust.clone(), self.now);
        let entity = Entity::parse(message.clone(), &MimeLimits::default()).unwrap();
        Opener::new(entity, context, || Cek::new(vec![7; 32]))
    }
}

/// The mail as submitted, read and made ready to be signed.
#[inline(never)]
fn seal_prepare(message: &Bytes) -> Draft {
    Draft::new(&Entity::parse(message.clone(), &MimeLimits::default()).unwrap()).unwrap()
}

/// From the signature to the sealed mail, self-check and all, written as to a socket.
#[inline(never)]
fn seal_finish(signing: waxwing::smime::seal::Signing, answer: KeyAnswer, recipient: &Issued) -> Sealed {
    let draft = signing.finish(answer, true).unwrap();
    let scheme = RecipientScheme { rsa: KeyTransport::RsaPkcs1, kdf: KeyDerivation::X963(Digest::Sha256) };
    let recipients = vec![(recipient.certificate.clone(), scheme)];
    let plan = EncryptPlan { recipients, content: ContentEncryption::Aes256Cbc, derive_cek: false };
    let sealed = draft.encrypt(&plan, true).unwrap();
    sealed.rope().chunks(1 << 16).for_each(|chunk| drop(black_box(chunk)));
    sealed
}

/// From the octets received to the question for the key.
#[inline(never)]
fn open_prepare(world: &World, message: &Bytes) -> Opener {
    let mut opener = world.opener(message);
    assert!(matches!(opener.step(None), Step::Key(_)));
    opener
}

/// From the key's answer to the verdict and the message.
#[inline(never)]
fn open_finish(mut opener: Opener, cek: Cek) {
    match opener.step(Some(Ok(KeyAnswer::Cek(cek)))) {
        Step::Done(opened) => assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason),
        Step::Key(_) => panic!("one key is enough"),
    }
}

fn main() {
    let name = std::env::args().skip(1).find(|word| !word.starts_with("--"));
    let times = if name.is_some() { TIMES } else { 1 };
    let world = World::new();
    if name.as_deref().is_none_or(|name| name == "seal") {
        (0..times).for_each(|_| drop(black_box(world.sealed(None))));
    }
    if name.as_deref().is_none_or(|name| name == "open") {
        for _ in 0..times {
            let (message, cek) = world.received();
            open_finish(open_prepare(&world, &message), cek);
        }
    }
}

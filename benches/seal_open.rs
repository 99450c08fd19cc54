//! Sealing and opening against the bare primitives, in turn in one run: ratios, not absolute times.
//!
//! `cargo bench --bench seal_open`, with a word to pick the lines that hold it; under `cargo test` each case runs once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{Timestamp, ToSpan};
use waxwing::address::Domain;
use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport, SignatureScheme};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::keys::{Cek, KeyAnswer, KeyHolder, KeyId, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue, revocation_list};
use waxwing::pki::certificate::Purpose;
use waxwing::pki::path::{AnchorScope, PathLimits, TrustAnchor, TrustSet, validate};
use waxwing::pki::revocation::{self, Crl, Evidence, Status};
use waxwing::smime::open::{OpenContext, Opener, OwnKey, Step};
use waxwing::smime::seal::{Draft, EncryptPlan, Form, Sealed, SignPlan};
use waxwing::smime::verdict::SmimeResult;

struct World {
    now: Timestamp,
    keys: SoftwareKeys,
    sender: Issued,
    recipient: Issued,
    sender_key: KeyId,
    recipient_key: KeyId,
    trust: Arc<TrustSet>,
}

fn recipe(name: &str, mailbox: Option<&str>, now: Timestamp) -> Recipe {
    Recipe {
        common_name: name.into(),
        mailboxes: mailbox.map(str::to_owned).into_iter().collect(),
        subject_email: None,
        hosts: Vec::new(),
        not_before: now - 1.hour(),
        not_after: now + 24.hours(),
        ca: mailbox.is_none().then_some(None),
        key_usage: if mailbox.is_some() { vec!["digitalSignature", "keyEncipherment"] } else { vec!["keyCertSign"] },
        email_protection: mailbox.is_some().then_some(true),
        permitted_mail: Vec::new(),
        crl: None,
        key: NewKey::Rsa2048,
    }
}

impl World {
    fn new() -> Self {
        let now = Timestamp::now();
        let ca = issue(&recipe("Bench CA", None, now), None);
        let sender = issue(&recipe("anna", Some("anna@example.org"), now), Some(&ca));
        let recipient = issue(&recipe("bob", Some("bob@partner.example"), now), Some(&ca));
        let mut keys = SoftwareKeys::default();
        let sender_key = keys.insert(SoftwareKey::from_pkcs8(&sender.pkcs8).unwrap());
        let recipient_key = keys.insert(SoftwareKey::from_pkcs8(&recipient.pkcs8).unwrap());
        let anchor = TrustAnchor { certificate: ca.certificate, scope: AnchorScope::Global };
        let trust = Arc::new(TrustSet { anchors: vec![anchor], intermediates: Vec::new(), generation: 1 });
        Self { now, keys, sender, recipient, sender_key, recipient_key, trust }
    }

    fn perform(&self, operation: KeyOperation) -> KeyAnswer {
        match self.keys.submit(operation) {
            Submission::Ready(answer) => answer.unwrap(),
            Submission::Later(_) => panic!("software keys answer at once"),
        }
    }

    fn sealed(&self, message: &Bytes, content: ContentEncryption, self_check: bool) -> Sealed {
        let entity = Entity::parse(message.clone(), &MimeLimits::default()).unwrap();
        let plan = SignPlan {
            key: self.sender_key,
            certificate: self.sender.certificate.clone(),
            chain: Vec::new(),
            encryption_certificate: None,
            scheme: SignatureScheme::RsaPkcs1(Digest::Sha256),
            digest: Digest::Sha256,
            form: Form::Clear,
            signing_time: self.now,
            capabilities: vec![ContentEncryption::Aes256Cbc],
            second: None,
        };
        let signing = Draft::new(&entity).unwrap().sign(plan).unwrap();
        let answer = self.perform(signing.operation());
        let draft = signing.finish(answer, self_check).unwrap();
        let scheme = RecipientScheme { rsa: KeyTransport::RsaPkcs1, kdf: KeyDerivation::X963(Digest::Sha256) };
        let plan =
            EncryptPlan { recipients: vec![(self.recipient.certificate.clone(), scheme)], content, derive_cek: false };
        draft.encrypt(&plan, self_check).unwrap()
    }

    /// Sealed without the self-check, and written as it would go to a socket: its length.
    fn seal(&self, message: &Bytes, content: ContentEncryption) -> usize {
        let sealed = self.sealed(message, content, false);
        sealed.rope().chunks(1 << 16).map(|chunk| std::hint::black_box(&chunk).len()).sum()
    }

    fn open(&self, message: &Bytes) {
        let own = OwnKey { certificate: self.recipient.certificate.clone(), key: self.recipient_key };
        let context = OpenContext::new(vec![own], self.trust.clone(), self.now);
        let entity = Entity::parse(message.clone(), &MimeLimits::default()).unwrap();
        let mut opener = Opener::new(entity, context, || Cek::new(vec![7; 32]));
        let mut answer = None;
        loop {
            match opener.step(answer.take()) {
                Step::Key(operation) => answer = Some(Ok(self.perform(operation))),
                Step::Done(opened) => {
                    assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
                    return;
                }
            }
        }
    }
}

/// This thread's time on a processor: other work on the machine does not count. Wall time where the system does not tell.
fn processor_time(began: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split(' ').next().and_then(|number| number.parse().ok()));
    nanoseconds.map_or_else(|| began.elapsed(), Duration::from_nanos)
}

/// Median time of one call of each, called in turn, and the median of the ratios.
fn interleaved(rounds: usize, calls: u32, ours: &mut dyn FnMut(), bare: &mut dyn FnMut()) -> (Duration, Duration, f64) {
    let mut pairs: Vec<(Duration, Duration)> = Vec::new();
    let start = Instant::now();
    for _ in 0..rounds {
        let time = |work: &mut dyn FnMut()| {
            let began = processor_time(start);
            (0..calls).for_each(|_| work());
            (processor_time(start) - began) / calls
        };
        pairs.push((time(ours), time(bare)));
    }
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let seconds =
        |pick: fn(&(Duration, Duration)) -> f64| Duration::from_secs_f64(middle(pairs.iter().map(pick).collect()));
    let ratio = middle(pairs.iter().map(|(ours, bare)| ours.as_secs_f64() / bare.as_secs_f64().max(1e-9)).collect());
    (seconds(|pair| pair.0.as_secs_f64()), seconds(|pair| pair.1.as_secs_f64()), ratio)
}

fn message(octets: usize) -> Bytes {
    let mut text =
        String::from("From: anna@example.org\r\nTo: bob@partner.example\r\nSubject: bench\r\nMIME-Version: 1.0\r\n");
    text.push_str("Content-Type: text/plain; charset=us-ascii\r\n\r\n");
    while text.len() < octets {
        text.push_str("The quick brown fox jumps over the lazy dog, and the dog does not mind at all.\r\n");
    }
    Bytes::from(text)
}

/// What no implementation can do without: SHA-256 over the content, the cipher over the content.
fn bare_bulk(content: ContentEncryption, buffer: &mut [u8], decrypt: bool) {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use aws_lc_rs::cipher::{
        AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
    };
    std::hint::black_box(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, buffer));
    let key = || UnboundCipherKey::new(&AES_256, &[1; 32]).unwrap();
    if content.is_authenticated() {
        // Encrypting and decrypting cost the same.
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).unwrap());
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let _ = std::hint::black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), buffer).unwrap());
    } else if decrypt {
        let context = DecryptionContext::Iv128([0; 16].into());
        let _ = std::hint::black_box(DecryptingKey::cbc(key()).unwrap().decrypt(buffer, context).unwrap());
    } else {
        let context = EncryptionContext::Iv128([0; 16].into());
        EncryptingKey::cbc(key()).unwrap().less_safe_encrypt(buffer, context).unwrap();
    }
}

fn small_mail(world: &World, measured: bool) {
    let (rounds, calls) = if measured { (15, 500) } else { (1, 1) };
    let small = message(4096);
    let sign = KeyOperation::Sign {
        key: world.sender_key,
        scheme: SignatureScheme::RsaPkcs1(Digest::Sha256),
        message: Bytes::from_static(b"signed attributes"),
    };
    let KeyAnswer::Signature(signature) = world.perform(sign.clone()) else { panic!("a signature") };
    let (sender, recipient) = (world.sender.certificate.public_key(), world.recipient.certificate.public_key());
    let encrypted = recipient.transport(KeyTransport::RsaPkcs1, &[1; 32]).unwrap();

    println!("{:44}{:>12}{:>12}{:>8}{:>8}", "4 KB, RSA-2048", "ours", "bare", "ratio", "goal");
    let show = |what: &str, (ours, bare, ratio): (Duration, Duration, f64)| {
        let (ours, bare) = (ours.as_secs_f64() * 1e6, bare.as_secs_f64() * 1e6);
        println!("{what:44}{ours:>10.1}us{bare:>10.1}us{ratio:>8.3}{:>8}", 1.25);
    };
    let seal = interleaved(
        rounds,
        calls,
        &mut || assert!(world.seal(&small, ContentEncryption::Aes256Cbc) > 4096),
        &mut || {
            std::hint::black_box(world.perform(sign.clone()));
            std::hint::black_box(recipient.transport(KeyTransport::RsaPkcs1, &[1; 32]).unwrap());
        },
    );
    show("seal: one RSA sign + one RSA encrypt", seal);
    let received = world.sealed(&small, ContentEncryption::Aes256Cbc, true).rope().to_bytes();
    let open = interleaved(rounds, calls, &mut || world.open(&received), &mut || {
        let unwrap = KeyOperation::Unwrap {
            key: world.recipient_key,
            transport: KeyTransport::RsaPkcs1,
            encrypted: Bytes::copy_from_slice(&encrypted),
            content: ContentEncryption::Aes256Cbc,
            substitute: Cek::new(vec![7; 32]),
        };
        std::hint::black_box(world.perform(unwrap));
        // The signer's signature, and the CA's on the signer's certificate.
        for _ in 0..2 {
            sender.verify(SignatureScheme::RsaPkcs1(Digest::Sha256), b"signed attributes", &signature).unwrap();
        }
    });
    show("open: one RSA decrypt + two RSA verify", open);
}

fn big_mail(world: &World, measured: bool, wanted: &dyn Fn(&str) -> bool) {
    let big = message(10 << 20);
    let megabytes = big.len() as f64 / 1e6;
    let (rounds, calls) = if measured { (11, 8) } else { (1, 1) };
    let mut buffer = big[..big.len() / 16 * 16].to_vec();
    println!("\n{:44}{:>12}{:>12}{:>8}{:>8}", "10 MB, MB/s on one core", "ours", "bare", "ratio", "goal");
    for (content, goal) in [(ContentEncryption::Aes256Gcm, 400), (ContentEncryption::Aes256Cbc, 270)] {
        let show = |what: &str, (ours, bare, ratio): (Duration, Duration, f64)| {
            let (ours, bare) = (megabytes / ours.as_secs_f64(), megabytes / bare.as_secs_f64());
            println!("{what:44}{ours:>12.0}{bare:>12.0}{ratio:>8.3}{goal:>8}");
        };
        let name = format!("seal, {}", content.name());
        if wanted(&name) {
            let seal = interleaved(rounds, calls, &mut || assert!(world.seal(&big, content) > big.len()), &mut || {
                bare_bulk(content, &mut buffer, false);
            });
            show(&name, seal);
        }
        let name = format!("open + verify, {}", content.name());
        if wanted(&name) {
            let received = world.sealed(&big, content, true).rope().to_bytes();
            let open = interleaved(rounds, calls, &mut || world.open(&received), &mut || {
                bare_bulk(content, &mut buffer, true);
            });
            show(&name, open);
        }
    }
}

/// A path of three with CRLs at hand whose signatures were checked before, against the two signatures on its certificates.
fn path_of_three(measured: bool) {
    let (rounds, calls) = if measured { (31, 500) } else { (1, 1) };
    let now = Timestamp::now();
    let published = |name: &str| Some(format!("http://crl.example/{name}.crl"));
    let root = issue(&Recipe::authority("Bench Root", now, NewKey::Rsa2048), None);
    let authority = Recipe { crl: published("root"), ..Recipe::authority("Bench Mail CA", now, NewKey::Rsa2048) };
    let authority = issue(&authority, Some(&root));
    let leaf = Recipe { crl: published("ca"), ..Recipe::mailbox("anna@example.org", now, NewKey::Rsa2048) };
    let leaf = issue(&leaf, Some(&authority)).certificate;
    let crl = |issuer: &Issued| {
        let der = revocation_list(issuer, &[], now - 1.hour(), now + 24.hours());
        Arc::new(Crl::from_der(der.into()).unwrap())
    };
    let evidence = Evidence { crls: vec![crl(&authority), crl(&root)], ocsp: Vec::new() };
    let anchor = TrustAnchor { certificate: root.certificate.clone(), scope: AnchorScope::Global };
    let (middle, top) = (authority.certificate, root.certificate);
    let trust = TrustSet { anchors: vec![anchor], intermediates: vec![middle.clone()], generation: 1 };
    let (domain, limits, nothing) = (Domain::parse("example.org").unwrap(), PathLimits::default(), Evidence::default());
    let ratio = interleaved(
        rounds,
        calls,
        &mut || {
            let path = validate(&leaf, &[], &trust, Purpose::Signature, Some(&domain), now, &limits).unwrap();
            let judged = revocation::check(&path, &evidence, &nothing, &[], &trust, now, &limits);
            assert!(path.chain().len() == 3 && matches!(judged.status, Status::Good { .. }), "{judged:?}");
        },
        &mut || {
            for (subject, issuer) in [(&leaf, &middle), (&middle, &top)] {
                let scheme = SignatureScheme::RsaPkcs1(Digest::Sha256);
                issuer.public_key().verify(scheme, subject.tbs(), subject.signature()).unwrap();
            }
        },
    );
    println!("\n{:44}{:>12}{:>12}{:>8}{:>8}", "path of three, RSA-2048, CRLs kept", "ours", "bare", "ratio", "goal");
    let (ours, bare) = (ratio.0.as_secs_f64() * 1e6, ratio.1.as_secs_f64() * 1e6);
    println!("{:44}{ours:>10.1}us{bare:>10.1}us{:>8.3}{:>8}", "find, validate, judge revocation", ratio.2, 1.3);
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.as_deref().is_none_or(|filter| name.contains(filter));
    let world = World::new();
    if wanted("4 KB") {
        small_mail(&world, measured);
    }
    if wanted("path of three") {
        path_of_three(measured);
    }
    big_mail(&world, measured, &wanted);
}

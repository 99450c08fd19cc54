//! Fuzz bodies over whole messages.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use jiff::Timestamp;

use super::{OpenContext, Opened, Opener, OwnKey, Step};
use crate::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport, Legacy, SignatureScheme};
use crate::cms::enveloped::RecipientScheme;
use crate::keys::{Cek, KeyAnswer, KeyError, KeyHolder, KeyId, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use crate::mime::entity::{Entity, MimeLimits};
use crate::pki::authority::{Issued, NewKey, demo_pki};
use crate::pki::path::{AnchorScope, TrustAnchor, TrustSet};
use crate::smime::seal::{Draft, EncryptPlan, Form, SignPlan};
use crate::smime::verdict::SmimeResult;

/// Fuzz body: a whole message, nothing decrypted without a key, never `pass` without a signer.
#[doc(hidden)]
pub fn fuzz_open(data: &[u8]) {
    let Ok(message) = Entity::parse(Bytes::copy_from_slice(data), &MimeLimits::default()) else { return };
    let raw = message.raw.clone();
    let context = OpenContext::new(Vec::new(), Arc::new(TrustSet::default()), Timestamp::UNIX_EPOCH);
    let opened = run(message, context, &SoftwareKeys::default());
    assert_eq!(opened.message, raw, "nothing was decrypted: the octets stay");
    assert!(!opened.verdict.decrypted && opened.verdict.signer.is_none() && opened.verdict.result != SmimeResult::Pass);
}

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.net";
const MAIL: &[u8] = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: Supper\r\nMIME-Version: 1.0\r\n\
                      Content-Type: text/plain; charset=us-ascii\r\n\r\nAt eight, then.\r\nBring bread.\r\n";
const CONTENT: &[u8] = b"Content-Type: text/plain; charset=us-ascii\r\n\r\nAt eight, then.\r\nBring bread.\r\n";

/// People whose every key is at hand, and sealed mails of theirs.
struct World {
    context: OpenContext,
    keys: SoftwareKeys,
    /// As a mail, its CMS object, and what it is.
    seeds: Vec<Seed>,
}

struct Seed {
    message: Bytes,
    signed: bool,
    authenticated: bool,
}

/// Fuzz body: with every key of a test PKI, a sealed mail with octets changed. The first octet chooses the mail (or, past them, that what
/// follows is a message itself); then come changes of five octets: where (two), what is done there, with how many octets, and with which.
/// Nothing is good that is not what was sealed.
#[doc(hidden)]
pub fn fuzz_open_sealed(data: &[u8]) {
    static WORLD: LazyLock<Option<World>> = LazyLock::new(world);
    let (Some(world), Some((which, rest))) = (WORLD.as_ref(), data.split_first()) else { return };
    let seed = world.seeds.get(usize::from(which & 0x7f));
    let octets = match seed {
        Some(seed) => changed(&seed.message, rest),
        None => rest.to_vec(),
    };
    let Ok(message) = Entity::parse(octets.into(), &MimeLimits::default()) else { return };
    let mut context = world.context.clone();
    // Half of them with all that is weak allowed.
    if which & 0x80 != 0 {
        context.legacy = Legacy { weak_ciphers: true, sha1_signatures: true, weak_keys: true, short_tags: true };
    }
    let raw = message.raw.clone();
    let opened = run(message, context, &world.keys);
    let verdict = &opened.verdict;
    if !verdict.decrypted {
        assert_eq!(opened.message, raw, "nothing was decrypted: the octets stay");
    }
    assert_eq!(verdict.signer.is_some(), verdict.result == SmimeResult::Pass);
    let Some(seed) = seed else { return };
    let proven = verdict.result == SmimeResult::Pass || (seed.authenticated && verdict.decrypted && !seed.signed);
    if proven {
        assert_eq!(opened.content, CONTENT, "what is proven is what was sealed");
    }
    assert!(seed.signed || verdict.result != SmimeResult::Pass, "nobody signed it");
}

/// The mail with the changes that `edits` tells of.
fn changed(message: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut octets = message.to_vec();
    for edit in edits.as_chunks::<5>().0.iter().take(64) {
        let [high, low, how, count, octet] = *edit;
        let at = usize::from(u16::from_be_bytes([high, low])).min(octets.len());
        let end = at.saturating_add(usize::from(count)).min(octets.len());
        match how % 4 {
            0 => octets.get_mut(at..end).into_iter().flatten().for_each(|one| *one ^= octet),
            1 => drop(octets.splice(at..end, [])),
            2 => drop(octets.splice(at..at, std::iter::repeat_n(octet, usize::from(count)))),
            _ => {
                let again = octets.get(at..end).unwrap_or_default().to_vec();
                drop(octets.splice(at..at, again));
            }
        }
    }
    octets
}

fn run(message: Entity, context: OpenContext, keys: &SoftwareKeys) -> Opened {
    let mut opener = Opener::new(message, context, || Cek::new(vec![0x5a; 32]));
    let mut answer = None;
    loop {
        match opener.step(answer.take()) {
            Step::Key(operation) => answer = Some(perform(keys, operation)),
            Step::Done(opened) => return *opened,
        }
    }
}

fn perform(keys: &SoftwareKeys, operation: KeyOperation) -> Result<KeyAnswer, KeyError> {
    match keys.submit(operation) {
        Submission::Ready(answer) => answer,
        Submission::Later(_) => Err(KeyError::Unavailable("later".to_owned())),
    }
}

fn world() -> Option<World> {
    let now = Timestamp::from_second(1_795_000_000).ok()?;
    let (mut keys, mut own, mut anchors, mut seeds) = (SoftwareKeys::default(), Vec::new(), Vec::new(), Vec::new());
    for kind in [NewKey::Rsa2048, NewKey::P256, NewKey::P384] {
        let pki = demo_pki(now, &[ALICE, BOB], kind);
        for leaf in &pki.leaves {
            let key = keys.insert(SoftwareKey::from_pkcs8(&leaf.pkcs8).ok()?);
            own.push(OwnKey { certificate: leaf.certificate.clone(), key });
        }
        let chain = vec![pki.intermediate.certificate.clone()];
        let (alice, bob) = (pki.leaf(ALICE)?, pki.leaf(BOB)?);
        anchors.push(TrustAnchor { certificate: pki.root.certificate.clone(), scope: AnchorScope::Global });
        let mut drafts = vec![(Draft::new(&entity()?).ok()?, false)];
        for form in [Form::Clear, Form::Opaque] {
            let signing = Draft::new(&entity()?).ok()?.sign(sign_plan(alice, &chain, form, now)).ok()?;
            let answer = perform(&keys, signing.operation()).ok()?;
            let draft = signing.finish(answer, true).ok()?;
            let message = draft.clone().signed().ok()?.rope().to_bytes();
            seeds.push(Seed { message, signed: true, authenticated: false });
            drafts.push((draft, true));
        }
        for (draft, signed) in &drafts {
            for content in [ContentEncryption::Aes128Cbc, ContentEncryption::Aes256Gcm] {
                let rsa = KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256);
                let scheme = RecipientScheme { rsa, kdf: KeyDerivation::X963(Digest::Sha256) };
                let plan =
                    EncryptPlan { recipients: vec![(bob.certificate.clone(), scheme)], content, derive_cek: false };
                let message = draft.encrypt(&plan, true).ok()?.rope().to_bytes();
                seeds.push(Seed { message, signed: *signed, authenticated: content.is_authenticated() });
            }
        }
    }
    let trust = TrustSet { anchors, ..TrustSet::default() };
    Some(World { context: OpenContext::new(own, Arc::new(trust), now), keys, seeds })
}

fn entity() -> Option<Entity> {
    Entity::parse(Bytes::from_static(MAIL), &MimeLimits::default()).ok()
}

fn sign_plan(alice: &Issued, chain: &[crate::pki::certificate::Certificate], form: Form, now: Timestamp) -> SignPlan {
    let scheme = SignatureScheme::for_key(alice.certificate.public_key().kind(), false)
        .unwrap_or(SignatureScheme::Ecdsa(Digest::Sha256));
    SignPlan {
        key: KeyId::of_spki(alice.certificate.public_key().spki()),
        certificate: alice.certificate.clone(),
        chain: chain.to_vec(),
        encryption_certificate: None,
        scheme,
        digest: scheme.digest(),
        form,
        signing_time: now,
        capabilities: vec![ContentEncryption::Aes256Gcm],
        second: None,
    }
}

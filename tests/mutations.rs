//! Messages that each peer, and we, make with keys drawn in this run; to every TLV of each six things are done in turn: another tag,
//! a wrong length, another value, another order, twice, left out. Whatever comes of it, nothing is called good with other content or
//! another signer. WAXWING_SEED repeats the choices; a mutant that is taken wrongly is kept with the people's certificates.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "interop/bouncy_castle.rs"]
mod bouncy_castle;
#[path = "interop/case.rs"]
#[allow(dead_code, reason = "the table is tests/interop.rs's")]
mod case;
#[path = "interop/gnupg.rs"]
mod gnupg;
#[path = "interop/nss.rs"]
mod nss;
#[path = "interop/openssl.rs"]
mod openssl;
#[path = "interop/ourselves.rs"]
mod ourselves;
#[path = "support/outside.rs"]
mod outside;
#[path = "interop/place.rs"]
mod place;
#[path = "mutations/tlv.rs"]
mod tlv;

use std::time::Duration;

use case::{Case, Peer, World};
use outside::peers as present;
use place::{ALICE, CONTENT, as_clear_signed, as_message, context, encrypt, entity, holder, open_with, sign};
use tlv::{Mutation, Random, Tlv, mutated};
use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyTransport, SignatureScheme};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::smime::open::Opened;
use waxwing::smime::seal::Form;
use waxwing::smime::verdict::SmimeResult;

/// An object, and how it comes in a mail.
struct Subject {
    name: String,
    case: Case,
    object: Vec<u8>,
    /// Signed inside of the encryption.
    signed_inside: bool,
}

/// Processor time for the mutants; what is not tried for it is said.
const TIME: Duration = Duration::from_secs(60);

/// This thread's processor time.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn no_mutation_makes_other_content_or_another_signer_good() {
    if !present(&["openssl"]) {
        return;
    }
    let seed = match std::env::var("WAXWING_SEED") {
        Ok(text) => text.parse().expect("WAXWING_SEED is a number"),
        Err(_) => u64::from_be_bytes(drawn()),
    };
    println!("WAXWING_SEED={seed}");
    let mut random = Random(seed);
    let world = World::new();
    let subjects = subjects(&world);
    let began = processor();
    let mut complaints = Vec::new();
    let (mut mutants, mut untouched, mut good) = (0_usize, 0_usize, 0_usize);
    for subject in &subjects {
        let (root, rest) = Tlv::read(&subject.object);
        assert!(rest.is_empty() && root.write() == subject.object, "{}: read and written again", subject.name);
        let bob = Bob::new(&world, subject.case);
        assert_eq!(bob.judge(subject, &subject.object), Ok(true), "{}: good as it is", subject.name);
        let (before, from) = (mutants, good);
        for target in 0..root.count() {
            for mutation in Mutation::ALL {
                let Some(mutant) = mutated(&root, target, mutation, &mut random) else { continue };
                if mutant == subject.object {
                    continue;
                }
                if processor() - began > TIME {
                    untouched += 1;
                    continue;
                }
                mutants += 1;
                match bob.judge(subject, &mutant) {
                    Ok(taken) => good += usize::from(taken),
                    Err(why) => {
                        let kept = keep(&world, subject, &mutant);
                        complaints
                            .push(format!("{}: {mutation:?} of TLV {target}: {why}; kept in {kept}", subject.name));
                    }
                }
            }
        }
        println!(
            "{:<44} {:>4} TLVs {:>5} mutants {:>4} good and the same",
            subject.name,
            root.count(),
            mutants - before,
            good - from
        );
    }
    println!(
        "{} objects, {mutants} mutants, {good} good with the same content and signer, {untouched} not tried for time; seed {seed}",
        subjects.len()
    );
    assert!(complaints.is_empty(), "WAXWING_SEED={seed}: {} wrong:\n{}", complaints.len(), complaints.join("\n"));
    assert!(mutants > 5_000, "{mutants}");
}

fn drawn() -> [u8; 8] {
    let cek = waxwing::keys::new_cek(ContentEncryption::Aes128Gcm).unwrap();
    cek[..8].try_into().unwrap()
}

/// Everybody's objects, and some of ours with a signature inside the encryption.
fn subjects(world: &World) -> Vec<Subject> {
    let nss = present(&["cmsutil", "certutil", "pk12util"]).then(|| nss::Nss::new(world));
    let gnupg = present(&["gpgsm", "gpgconf"]).then(|| gnupg::Gnupg::new(world));
    let java = present(&["java", "javac"]) && outside::is_here(bouncy_castle::is_installed(), "Bouncy Castle");
    let bouncy_castle = java.then(bouncy_castle::BouncyCastle::new);
    let mut peers: Vec<&dyn Peer> = vec![&ourselves::Waxwing, &openssl::OpenSsl];
    peers.extend(nss.as_ref().map(|peer| peer as &dyn Peer));
    peers.extend(gnupg.as_ref().map(|peer| peer as &dyn Peer));
    peers.extend(bouncy_castle.as_ref().map(|peer| peer as &dyn Peer));
    let mut subjects = Vec::new();
    for peer in peers {
        for case in Case::ALL.into_iter().filter(|case| *case != Case::Compressed) {
            // One way of each is enough: others differ in a key's length.
            let made = peer.make(world, case).into_iter().next();
            subjects.extend(made.map(|made| Subject {
                name: format!("{} of {}", case.title(), peer.letter()),
                case,
                object: made.object,
                signed_inside: false,
            }));
        }
    }
    for (case, content) in [(Case::Gcm, ContentEncryption::Aes256Gcm), (Case::RsaCbc, ContentEncryption::Aes128Cbc)] {
        for form in [Form::Clear, Form::Opaque] {
            let place = world.place(case);
            let draft = sign(place, SignatureScheme::RsaPkcs1(Digest::Sha256), form);
            let message = encrypt(place, &draft, content, KeyTransport::RsaPkcs1);
            subjects.push(Subject {
                name: format!("signed ({form:?}) in {} of W", case.title()),
                case,
                object: entity(message).decoded_body().unwrap().to_vec(),
                signed_inside: true,
            });
        }
    }
    subjects
}

/// Who opens: his keys are loaded once.
struct Bob<'w> {
    place: &'w place::Place,
    context: waxwing::smime::open::OpenContext,
    keys: waxwing::keys::SoftwareKeys,
}

impl<'w> Bob<'w> {
    fn new(world: &'w World, case: Case) -> Self {
        let place = world.place(case);
        Self { place, context: context(place), keys: holder(place.bob()) }
    }

    /// Whether it is good; an error where it is good and is not what was made.
    fn judge(&self, subject: &Subject, object: &[u8]) -> Result<bool, String> {
        let message = match subject.case.is_detached() {
            true => as_clear_signed(CONTENT.as_bytes(), object),
            false => as_message(object).into_bytes(),
        };
        let Ok(message) = Entity::parse(message.into(), &MimeLimits::default()) else { return Ok(false) };
        let opened = open_with(&self.context, &self.keys, message);
        self.check_signer(&opened)?;
        let signed = subject.case.is_signed() || subject.signed_inside;
        let verdict = &opened.verdict;
        if verdict.result == SmimeResult::Pass && !signed {
            return Err(format!("signed by nobody, and pass: {}", verdict.reason));
        }
        let authenticated = verdict.decrypted && !verdict.unauthenticated;
        let good = verdict.result == SmimeResult::Pass || (authenticated && !signed);
        let same = opened.content == CONTENT.as_bytes();
        if good && !same {
            return Err(format!("other content: {:?}", String::from_utf8_lossy(&opened.content)));
        }
        // Without AEAD and signature other content may come out, marked as what nothing proves.
        Ok(good || (verdict.unauthenticated && same))
    }

    fn check_signer(&self, opened: &Opened) -> Result<(), String> {
        let passed = opened.verdict.result == SmimeResult::Pass;
        let Some(signer) = &opened.verdict.signer else {
            return if passed { Err("pass without a signer".into()) } else { Ok(()) };
        };
        let alice = &self.place.alice().certificate;
        match signer.mailbox().to_string() == ALICE && signer.certificate() == alice {
            true => Ok(()),
            false => Err(format!("another signer: {} {}", signer.mailbox(), signer.certificate().subject_text())),
        }
    }
}

/// Writes what somebody needs to look at it again; says where.
fn keep(world: &World, subject: &Subject, mutant: &[u8]) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    std::fs::create_dir_all(&folder).unwrap();
    let number = std::fs::read_dir(&folder).unwrap().count();
    let place = world.place(subject.case);
    for (end, octets) in [
        ("mutant.der", mutant),
        ("original.der", &subject.object),
        ("root.der", &place.read("root.der")),
        ("alice.der", &place.read("alice.der")),
        ("bob.pkcs8", &place.read("bob.pkcs8")),
    ] {
        std::fs::write(folder.join(format!("{number}.{end}")), octets).unwrap();
    }
    folder.join(format!("{number}.mutant.der")).display().to_string()
}

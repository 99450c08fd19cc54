use std::sync::Arc;

use jiff::SignedDuration;

use super::decide::{CHANGED, Decision, FIRST, LOOSE, Named, PROVEN, RENEWED, Sighting, decide};
use super::*;
use crate::cms::algorithm::ContentEncryption;
use crate::config::HarvestMode;
use crate::pki::authority::{Issued, NewKey, Recipe, issue, issue_with_key};
use crate::pki::path::{AnchorScope, InitialPolicies};
use crate::policy::TrustState;
use crate::smime::testing::{self, ALICE, people};
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::Kek;
use crate::store::{BY_HAND, BY_HARVEST, CertificateRecord, Identity, Note, Owner, Provenance};

const BERT: &str = "bert@partner.example";

fn now() -> Timestamp {
    Timestamp::from_second(1_780_000_000).unwrap()
}

fn ca() -> Issued {
    issue(&Recipe::authority("Root", now(), NewKey::P256), None)
}

fn leaf(ca: &Issued) -> Issued {
    issue(&Recipe::mailbox(BERT, now(), NewKey::P256), Some(ca))
}

fn record(issued: &Issued, trust: TrustState, source: &str) -> CertificateRecord {
    CertificateRecord {
        certificate: issued.certificate.clone(),
        provenance: Provenance { source: source.to_owned(), detail: String::new(), at: now() },
        trust,
        capabilities: None,
        learned: None,
        preferred: false,
        key: None,
        last_seen: Some(now()),
        note: None,
    }
}

fn identity(certificates: Vec<CertificateRecord>) -> Identity {
    Identity { owner: Owner::parse(BERT).unwrap(), certificates, disabled: false, generation: 1 }
}

fn sighting(signer: &Issued) -> Sighting {
    Sighting {
        signer: signer.certificate.clone(),
        preference: None,
        named: None,
        capabilities: None,
        signing_time: Some(now()),
        message_id: "<1@partner.example>".to_owned(),
        at: now(),
    }
}

/// A mail that is signed by one, and names another.
fn naming(signer: &Issued, other: &Issued, exact: bool) -> Sighting {
    Sighting {
        preference: Some(CertificateId::of(&other.certificate)),
        named: Some(Named { certificate: other.certificate.clone(), exact }),
        ..sighting(signer)
    }
}

fn reads(content: &[ContentEncryption]) -> Capabilities {
    Capabilities { content: content.to_vec(), transport: Vec::new() }
}

fn outcomes(decision: &Decision) -> Vec<(TrustState, &'static str)> {
    decision.outcomes.iter().map(|one| (one.trust, one.why)).collect()
}

fn decided(identity: &Identity, seen: &Sighting) -> Decision {
    decide(identity, seen, HarvestMode::Trust, true, 16)
}

const TRUSTED: TrustState = TrustState::Trusted;
const PENDING: TrustState = TrustState::Pending;

#[test]
fn a10_only_the_trusted_key_proves_another_and_only_by_an_exact_name() {
    let ca = ca();
    let (old, new, mallory) = (leaf(&ca), leaf(&ca), leaf(&ca));
    let known = |trust| identity(vec![record(&old, trust, "import")]);
    assert_eq!(outcomes(&decided(&known(TRUSTED), &naming(&old, &new, true))), [(TRUSTED, PROVEN)]);
    assert_eq!(outcomes(&decided(&known(TrustState::Pinned), &naming(&old, &new, true))), [(TRUSTED, PROVEN)]);
    let loose = decided(&known(TRUSTED), &naming(&old, &new, false));
    assert_eq!(outcomes(&loose), [(PENDING, CHANGED)]);
    assert_eq!(loose.outcomes[0].instead_of, Some(old.certificate.fingerprint()));
    assert!(outcomes(&decided(&known(PENDING), &naming(&old, &new, true))).iter().all(|(trust, _)| *trust == PENDING));
    let stranger = decided(&known(TRUSTED), &naming(&mallory, &new, true));
    assert_eq!(outcomes(&stranger), [(PENDING, CHANGED), (PENDING, CHANGED)]);
    // What is blocked says nothing, and nobody's word takes a rejection back.
    assert!(decided(&known(TrustState::Blocked), &naming(&old, &new, true)).is_empty());
    let rejected = identity(vec![record(&old, TRUSTED, "import"), record(&new, TrustState::Blocked, BY_HARVEST)]);
    assert!(outcomes(&decided(&rejected, &naming(&old, &new, true))).is_empty());
    // Proven later: what waited need not wait any more.
    let waits = identity(vec![record(&old, TRUSTED, "import"), record(&new, PENDING, BY_HARVEST)]);
    let proven = decided(&waits, &naming(&old, &new, true));
    assert_eq!(outcomes(&proven), [(TRUSTED, PROVEN)]);
    assert!(proven.revision.add.is_empty() && proven.revision.edit[0].trust == Some(TRUSTED));
    assert!(proven.revision.edit[0].prefer);
    assert!(outcomes(&decided(&waits, &naming(&new, &new, true))).is_empty(), "it cannot prove itself");
    let off = decide(&known(TRUSTED), &naming(&old, &new, true), HarvestMode::Off, true, 16);
    assert!(off.is_empty());
    let disabled = Identity { disabled: true, ..known(TRUSTED) };
    assert!(decided(&disabled, &naming(&old, &new, true)).is_empty());
}

#[test]
fn a10_first_sight_is_trusted_only_where_nothing_at_all_is_known() {
    let (ca, nobody) = (ca(), identity(Vec::new()));
    let (one, two) = (leaf(&ca), leaf(&ca));
    assert_eq!(outcomes(&decided(&nobody, &sighting(&one))), [(TRUSTED, FIRST)]);
    let careful = decide(&nobody, &sighting(&one), HarvestMode::Candidate, true, 16);
    assert_eq!(outcomes(&careful), [(PENDING, FIRST)]);
    assert_eq!(outcomes(&decided(&nobody, &naming(&one, &two, true))), [(TRUSTED, FIRST), (TRUSTED, FIRST)]);
    assert_eq!(outcomes(&decided(&nobody, &naming(&one, &two, false))), [(TRUSTED, FIRST), (PENDING, LOOSE)]);
    for there in [PENDING, TrustState::Blocked] {
        let known = identity(vec![record(&one, there, BY_HARVEST)]);
        assert_eq!(decided(&known, &sighting(&two)).outcomes[0].trust, PENDING, "{there:?}");
    }
}

#[test]
fn a10_the_same_key_is_renewed_by_the_same_ca_alone() {
    let (here, other) = (ca(), issue(&Recipe::authority("Other", now(), NewKey::P256), None));
    let old = leaf(&here);
    let again = |ca| issue_with_key(&Recipe::mailbox(BERT, now(), NewKey::P256), old.pkcs8.clone(), Some(ca));
    let preferred = CertificateRecord { preferred: true, ..record(&old, TRUSTED, "import") };
    let renewed = decided(&identity(vec![preferred]), &sighting(&again(&here)));
    assert_eq!(outcomes(&renewed), [(TRUSTED, RENEWED)]);
    assert!(renewed.revision.edit[0].prefer, "it takes the place of the one it renews");
    assert_eq!(
        outcomes(&decided(&identity(vec![record(&old, TRUSTED, "import")]), &sighting(&again(&other)))),
        [(PENDING, CHANGED)]
    );
    assert_eq!(
        decided(&identity(vec![record(&old, PENDING, BY_HARVEST)]), &sighting(&again(&here))).outcomes[0].trust,
        PENDING
    );
}

#[test]
fn a10_nobody_but_its_owner_says_what_a_trusted_certificate_can_read() {
    use ContentEncryption::{Aes128Cbc, Aes256Gcm};
    let ca = ca();
    let (own, mallory) = (leaf(&ca), leaf(&ca));
    let weak = |seen: Sighting| Sighting { capabilities: Some(reads(&[Aes128Cbc])), ..seen };
    let told = |decision: &Decision, of: &Issued| {
        let edits = decision.revision.edit.iter().filter(|edit| edit.fingerprint == of.certificate.fingerprint());
        edits.filter_map(|edit| edit.capabilities.clone().flatten()).count()
    };
    let known = |learned: Option<(&str, i64)>| {
        let learned = learned.map(|(source, seconds)| Provenance {
            source: source.to_owned(),
            detail: String::new(),
            at: now() + SignedDuration::from_secs(seconds),
        });
        let capabilities = learned.is_some().then(|| reads(&[Aes256Gcm]));
        identity(vec![CertificateRecord { capabilities, learned, ..record(&own, TRUSTED, "import") }])
    };
    assert_eq!(told(&decided(&known(None), &weak(sighting(&own))), &own), 1);
    assert_eq!(told(&decided(&known(None), &weak(naming(&mallory, &own, true))), &own), 0);
    assert_eq!(told(&decided(&known(Some(("mail", -5))), &weak(sighting(&own))), &own), 1);
    assert_eq!(told(&decided(&known(Some(("mail", 5))), &weak(sighting(&own))), &own), 0, "an older word");
    assert_eq!(
        told(&decided(&known(Some((BY_HAND, -5))), &weak(sighting(&own))), &own),
        0,
        "an administrator's word stays"
    );
    let untimed = Sighting { signing_time: None, ..weak(sighting(&own)) };
    assert_eq!(told(&decided(&known(Some(("mail", -5))), &untimed), &own), 0);
    assert_eq!(told(&decided(&known(None), &untimed), &own), 1);
    let tomorrow = Sighting { signing_time: Some(now() + SignedDuration::from_hours(48)), ..weak(sighting(&own)) };
    assert_eq!(told(&decided(&known(None), &tomorrow), &own), 0);
    assert!(decide(&known(None), &weak(sighting(&own)), HarvestMode::Trust, false, 16).is_empty(), "switched off");
    // Of one that waits for its approval: what came with it stays, whoever else signs a mail that names it.
    let waits = identity(vec![record(&own, TRUSTED, "import"), record(&mallory, PENDING, BY_HARVEST)]);
    let another = leaf(&ca);
    assert_eq!(told(&decided(&waits, &weak(naming(&another, &mallory, true))), &mallory), 0);
    assert_eq!(told(&decided(&waits, &weak(sighting(&mallory))), &mallory), 1, "he whose key it is");
    assert_eq!(told(&decided(&waits, &weak(naming(&own, &mallory, true))), &mallory), 1, "the trusted key");
}

#[test]
fn a10_a_mailbox_holds_so_many_and_those_that_are_used_stay() {
    let ca = ca();
    let all: Vec<Issued> = (0..4).map(|_| leaf(&ca)).collect();
    let full = |trust| identity(all[..3].iter().map(|one| record(one, trust, BY_HARVEST)).collect());
    let decision = decide(&full(PENDING), &sighting(&all[3]), HarvestMode::Candidate, true, 3);
    assert_eq!(decision.revision.remove, [all[0].certificate.fingerprint()]);
    let decision = decide(&full(TRUSTED), &sighting(&all[3]), HarvestMode::Candidate, true, 3);
    assert!(decision.is_empty() && decision.full == 1);
}

#[test]
fn what_was_seen_is_written_once_a_day() {
    let ca = ca();
    let one = leaf(&ca);
    let known = identity(vec![record(&one, TRUSTED, BY_HARVEST)]);
    assert!(decided(&known, &sighting(&one)).is_empty());
    let tomorrow = now() + SignedDuration::from_hours(24);
    let decision = decided(&known, &Sighting { at: tomorrow, ..sighting(&one) });
    assert_eq!(decision.revision.edit.len(), 1);
    assert!(decision.revision.edit[0].seen.is_some_and(|seen| day(seen) == day(tomorrow)));
    assert_eq!(decision.revision.edit[0].note, None::<Note>);
}

/// What mail is judged by binds what is learned of it, and a reload brings its own.
#[test]
fn a10_certificates_without_an_accepted_policy_are_not_harvested() {
    let folder = tempfile::tempdir().unwrap();
    let kek = folder.path().join("kek");
    Kek::create(&kek).unwrap();
    let store = Arc::new(EmbeddedStore::create(&folder.path().join("store"), &kek).unwrap());
    let pki = people(NewKey::P256);
    store.add_trust(pki.root.certificate.clone(), Some(AnchorScope::Global)).unwrap();
    let settings = config::Harvest { mode: HarvestMode::Trust, ..config::Harvest::default() };
    let signed = testing::signed(&pki, pki.leaf(ALICE).unwrap(), crate::smime::seal::Form::Clear, testing::mail());
    let opened = testing::open(&pki, &[], signed);
    let wanted = InitialPolicies::one_of(["1.2.3.4"]).unwrap();
    let strict = Harvest::new(settings.clone(), wanted.clone(), &[], store.clone());
    let handled = |harvest: &Harvest, count: u64| {
        harvest.offer(&opened.announced[0], "<1@example.org>", testing::now());
        let ends = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while harvest.counts().handled < count && std::time::Instant::now() < ends {
            std::thread::yield_now();
        }
        (harvest.counts().handled, harvest.counts().trusted)
    };
    assert_eq!(handled(&strict, 1), (1, 0));
    let any = strict.renewed(&settings, &InitialPolicies::default(), &[]);
    assert_eq!(handled(&any, 2), (2, 1), "the same settings, another policy");
    assert_eq!(handled(&any.renewed(&settings, &wanted, &[]), 3).1, 1);
}

#[test]
fn what_finds_the_queue_full_is_dropped_and_counted_and_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let kek = folder.path().join("kek");
    Kek::create(&kek).unwrap();
    let store = Arc::new(EmbeddedStore::create(&folder.path().join("store"), &kek).unwrap());
    let settings = config::Harvest { mode: HarvestMode::Trust, ..config::Harvest::default() };
    let harvest = Harvest::new(settings, InitialPolicies::default(), &[], store);
    // A queue that nobody takes from.
    let (sender, offers) = sync_channel(2);
    *harvest.queue.lock().unwrap() = Some(sender);
    let pki = people(NewKey::P256);
    let signed = testing::signed(&pki, pki.leaf(ALICE).unwrap(), crate::smime::seal::Form::Clear, testing::mail());
    let opened = testing::open(&pki, &[], signed);
    let announced = &opened.announced[0];
    let days = |days: i64| now() + SignedDuration::from_hours(24 * days);
    harvest.offer(announced, "<1@example.org>\u{1b}[31m", days(0));
    harvest.offer(announced, "<1@example.org>", days(0));
    assert_eq!(harvest.counts().offered, 1, "the same on the same day");
    for day in 1..5 {
        harvest.offer(announced, "<2@example.org>", days(day));
    }
    assert_eq!((harvest.counts().offered, harvest.counts().dropped), (2, 3));
    let first = offers.recv().unwrap();
    assert!(!first.message_id.chars().any(char::is_control), "{}", first.message_id);
    assert_ne!(first.signer.as_ptr(), announced.signer.certificate().der().as_ptr(), "it keeps no message in memory");
    // Dropped, it is not taken for seen.
    harvest.offer(announced, "<2@example.org>", days(4));
    assert_eq!(harvest.counts().offered, 3);
}

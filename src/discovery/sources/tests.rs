//! What becomes of what a source brings, case by case.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::config::{Smimea, SourceKind};
use crate::pki::authority::{Issued, NewKey, Recipe, issue, issue_with_key};

const BERT: &str = "bert@partner.example";

fn source(name: &str, mode: DiscoveryMode) -> Source {
    Source {
        name: name.to_owned(),
        kind: SourceKind::Smimea(Smimea { servers: Vec::new(), trust_anchor: None, dane_alone: false }),
        matches: Vec::new(),
        mode,
        timeout: Duration::from_secs(5),
        size: 1 << 20,
        certificates: 16,
        remember: Duration::from_secs(60),
    }
}

struct Case {
    ca: Issued,
    identity: Identity,
}

impl Case {
    fn new() -> Self {
        let owner = Owner::Mailbox(MailboxKey::parse(BERT).unwrap());
        let ca = issue(&Recipe::authority("CA", Timestamp::now(), NewKey::P256), None);
        Self { ca, identity: Identity { owner, certificates: Vec::new(), disabled: false, generation: 0 } }
    }

    fn certificate(&self) -> Issued {
        issue(&Recipe::mailbox(BERT, Timestamp::now(), NewKey::P256), Some(&self.ca))
    }

    fn knows(&mut self, one: &Issued, trust: TrustState, source: &str, detail: &str) -> &mut CertificateRecord {
        let provenance = Provenance { source: source.into(), detail: detail.into(), at: Timestamp::now() };
        self.identity.generation = 1;
        self.identity.certificates.push(record(&one.certificate, trust, provenance));
        self.identity.certificates.last_mut().unwrap()
    }

    /// What becomes of it, and why; `None`: nothing is stored.
    fn outcome(&self, one: &Issued, source: &Source) -> Option<(TrustState, &'static str)> {
        let brought =
            Brought { certificate: one.certificate.clone(), place: "here".into(), chain: Vec::new(), alone: false };
        let (revision, outcomes) = decide(&self.identity, &[brought], source, Timestamp::now());
        assert_eq!(revision.edit.len(), outcomes.len());
        assert!(revision.remove.is_empty());
        outcomes.first().map(|outcome| (outcome.trust, outcome.why))
    }
}

#[test]
fn a10_a_source_brings_no_key_in_the_place_of_one_that_it_did_not_bring() {
    use TrustState::{Pending, Pinned, Trusted};
    let (trust, candidate) = (source("dns", DiscoveryMode::Trust), source("dns", DiscoveryMode::Candidate));
    let mut case = Case::new();
    let (old, new) = (case.certificate(), case.certificate());
    assert_eq!(case.outcome(&new, &trust), Some((Trusted, decide::FIRST)));
    assert_eq!(case.outcome(&new, &candidate), Some((Pending, decide::CANDIDATE)));

    for (state, from, detail) in [
        (Trusted, "import", "file"),
        (Trusted, "harvest", "<1@x>"),
        (Pinned, BY_SMIMEA, "dns here"),
        (Trusted, BY_SMIMEA, "other here"),
    ] {
        case = Case::new();
        case.knows(&old, state, from, detail);
        assert_eq!(case.outcome(&new, &trust), Some((Pending, decide::CHANGED)), "{state:?} {from}");
        assert_eq!(case.outcome(&new, &candidate), Some((Pending, decide::CHANGED)));
        assert_eq!(case.outcome(&old, &trust), None, "known");
    }

    // The same key of the same CA; of another CA it is another certificate.
    let (recipe, now) = (Recipe::mailbox(BERT, Timestamp::now(), NewKey::P256), Timestamp::now());
    let mut renewed = issue_with_key(&recipe, old.pkcs8.clone(), Some(&case.ca));
    case = Case::new();
    renewed = issue_with_key(&recipe, renewed.pkcs8.clone(), Some(&case.ca));
    case.knows(&old, Trusted, "import", "file");
    assert_eq!(case.outcome(&renewed, &candidate), Some((Trusted, decide::RENEWED)));
    let stranger = issue(&Recipe::authority("Other", now, NewKey::P256), None);
    let by_other = issue_with_key(&recipe, old.pkcs8.clone(), Some(&stranger));
    assert_eq!(case.outcome(&by_other, &trust), Some((Pending, decide::CHANGED)));

    // What it brought itself it may replace, in trust mode.
    case = Case::new();
    case.knows(&old, Trusted, BY_SMIMEA, "dns somewhere");
    assert_eq!(case.outcome(&new, &trust), Some((Trusted, decide::FOLLOWS)));
    assert_eq!(case.outcome(&new, &candidate), Some((Pending, decide::CHANGED)));
    // But not a key of ours.
    case.identity.certificates[0].key = Some(crate::keys::KeyId([1; 32]));
    assert_eq!(case.outcome(&new, &trust), Some((Pending, decide::CHANGED)));

    // Pending ones of others bar nobody; the same one is approved by a source that is trusted alone.
    case = Case::new();
    case.knows(&old, Pending, "harvest", "<1@x>");
    assert_eq!(case.outcome(&new, &trust), Some((Trusted, decide::FIRST)));
    assert_eq!(case.outcome(&old, &trust), Some((Trusted, decide::FIRST)));
    assert_eq!(case.outcome(&old, &candidate), None);
}

#[test]
fn a10_what_was_blocked_disabled_or_removed_stays_so() {
    use TrustState::{Blocked, Pending, Trusted};
    let trust = source("dns", DiscoveryMode::Trust);
    let mut case = Case::new();
    let (old, new) = (case.certificate(), case.certificate());
    case.knows(&old, Blocked, BY_SMIMEA, "dns here");
    assert_eq!(case.outcome(&old, &trust), None);
    let recipe = Recipe::mailbox(BERT, Timestamp::now() - SignedDuration::from_hours(1), NewKey::P256);
    let same_key = issue_with_key(&recipe, old.pkcs8.clone(), Some(&case.ca));
    assert_eq!(case.outcome(&same_key, &trust), None, "the blocked key under another certificate");
    assert_eq!(case.outcome(&new, &trust), Some((Pending, decide::REMOVED)));

    case = Case::new();
    case.identity.disabled = true;
    assert_eq!(case.outcome(&new, &trust), None);

    case = Case::new();
    case.identity.generation = 7;
    assert_eq!(case.outcome(&new, &trust), Some((Pending, decide::REMOVED)));
    case.knows(&old, Trusted, BY_SMIMEA, "dns here");
    assert_eq!(case.outcome(&new, &trust), Some((Trusted, decide::FOLLOWS)));
}

#[test]
fn a_certificate_stands_alone_within_its_time_and_for_its_domain() {
    let now = Timestamp::now();
    let domain = crate::address::Domain::parse("partner.example").unwrap();
    let own = issue(&Recipe::mailbox(BERT, now, NewKey::P256), None).certificate;
    let limits = PathLimits::default();
    let path = stands_alone(&own, &domain, now, &limits).unwrap();
    assert_eq!((path.leaf(), path.chain().len()), (&own, 1));
    assert!(stands_alone(&own, &domain, now + SignedDuration::from_hours(24 * 4_000), &limits).is_err());
    let signs = Recipe { key_usage: vec!["digitalSignature"], ..Recipe::mailbox(BERT, now, NewKey::P256) };
    assert!(stands_alone(&issue(&signs, None).certificate, &domain, now, &limits).is_err());
}

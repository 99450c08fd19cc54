mod post_quantum;

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::mime::entity::{Entity, MimeLimits};
use crate::pki::authority::{Issued, NewKey, Recipe, issue};
use crate::pki::certificate::Purpose;
use crate::pki::path::{AnchorScope, PathLimits, TrustAnchor, TrustSet, validate};

fn at(days: i64) -> Timestamp {
    "2026-06-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(24 * days)
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

struct House {
    ca: Issued,
    trust: TrustSet,
}

impl House {
    fn new() -> Self {
        let ca = issue(
            &Recipe {
                common_name: "Root".into(),
                mailboxes: vec![],
                subject_email: None,
                hosts: Vec::new(),
                not_before: at(-1000),
                not_after: at(1000),
                ca: Some(None),
                key_usage: vec!["keyCertSign", "cRLSign"],
                email_protection: None,
                permitted_mail: vec![],
                crl: None,
                key: NewKey::P256,
            },
            None,
        );
        let anchors = vec![TrustAnchor { certificate: ca.certificate.clone(), scope: AnchorScope::Global }];
        Self { trust: TrustSet { anchors, intermediates: vec![], generation: 1 }, ca }
    }

    fn leaf(&self, address: &str, from: i64, to: i64, usage: &[&'static str]) -> Certificate {
        let recipe = Recipe {
            common_name: format!("{address} {from}"),
            mailboxes: vec![address.into()],
            subject_email: None,
            hosts: Vec::new(),
            not_before: at(from),
            not_after: at(to),
            ca: None,
            key_usage: usage.to_vec(),
            email_protection: Some(true),
            permitted_mail: vec![],
            crl: None,
            key: NewKey::P256,
        };
        issue(&recipe, Some(&self.ca)).certificate
    }

    fn candidate(&self, certificate: Certificate, purpose: Purpose) -> Candidate {
        let path = validate(&certificate, &[], &self.trust, purpose, None, at(0), &PathLimits::default());
        Candidate {
            certificate,
            trust: TrustState::Trusted,
            key: None,
            path: path.map_err(|error| error.to_string()),
            names_owner: true,
            domain: false,
            preferred: false,
            capabilities: None,
            origin: String::new(),
        }
    }

    fn good(&self) -> Candidate {
        self.candidate(self.leaf("b@x.example", -10, 10, BOTH), Purpose::Encryption)
    }

    fn signer(&self) -> Candidate {
        let candidate = self.candidate(self.leaf("a@y.example", -10, 10, BOTH), Purpose::Signature);
        Candidate { key: Some(KeyId([7; 32])), ..candidate }
    }
}

const BOTH: &[&str] = &["digitalSignature", "keyAgreement"];

fn rule(encrypt: EncryptMode, sign: SignMode) -> Rule {
    let action = Action { encrypt, sign, profile: "modern".into(), decrypt: true, ..Action::default() };
    Rule { name: "r".into(), matches: Match::default(), action }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy { rules, default: rule(EncryptMode::Never, SignMode::Never), profiles: BTreeMap::new() }
}

fn to(recipient: Known) -> Facts {
    Facts { signer: Known::Candidates(vec![]).into(), may_sign: MaySign::Yes, recipient }
}

fn decide(rule: &Rule, facts: &Facts) -> Resolution {
    resolve(&policy(vec![]), rule, facts, at(0))
}

fn refused(resolution: &Resolution) -> Option<(bool, (u8, u16, u16))> {
    match &resolution.treatment {
        Treatment::Refuse { transient, enhanced, .. } => Some((*transient, *enhanced)),
        _ => None,
    }
}

fn encrypted_to(resolution: &Resolution) -> Vec<[u8; 32]> {
    match &resolution.treatment {
        Treatment::Protect(Plan { encrypt: Some(to), .. }) => {
            to.certificates.iter().map(Certificate::fingerprint).collect()
        }
        _ => vec![],
    }
}

#[test]
fn t09_prefer_is_clear_only_where_it_is_known_that_there_is_none() {
    let house = House::new();
    let prefer = rule(EncryptMode::Prefer, SignMode::Never);
    assert!(matches!(decide(&prefer, &to(Known::Candidates(vec![]))).treatment, Treatment::Clear(_)));
    assert_eq!(refused(&decide(&prefer, &to(Known::Unknown("away".into())))), Some((true, (4, 4, 3))));
    assert_eq!(refused(&decide(&prefer, &to(Known::Disabled))), Some((false, (5, 7, 5))));
    for bad in unusable(&house) {
        assert_eq!(refused(&decide(&prefer, &to(Known::Candidates(vec![bad])))), Some((false, (5, 7, 5))));
    }
}

fn unusable(house: &House) -> Vec<Candidate> {
    let expired = house.candidate(house.leaf("b@x.example", -20, -10, BOTH), Purpose::Encryption);
    let future = house.candidate(house.leaf("b@x.example", 10, 20, BOTH), Purpose::Encryption);
    let usage = house.candidate(house.leaf("b@x.example", -10, 10, &["digitalSignature"]), Purpose::Encryption);
    let good = house.good();
    vec![
        expired,
        future,
        usage,
        Candidate { trust: TrustState::Pending, ..good.clone() },
        Candidate { trust: TrustState::Blocked, ..good.clone() },
        Candidate { names_owner: false, ..good.clone() },
        Candidate { path: Err("revoked".into()), ..good.clone() },
        // A path that was found for another certificate proves nothing of this one.
        Candidate { path: house.good().path, ..good },
    ]
}

#[test]
fn t09_require_never_falls_to_clear() {
    let house = House::new();
    let mut require = rule(EncryptMode::Require, SignMode::IfKey);
    let mut all: Vec<Known> = unusable(&house).into_iter().map(|bad| Known::Candidates(vec![bad])).collect();
    all.extend([Known::Candidates(vec![]), Known::Disabled, Known::Unknown("away".into())]);
    for allow in [false, true] {
        require.action.allow_downgrade = allow;
        for known in &all {
            assert!(refused(&decide(&require, &to(known.clone()))).is_some(), "{known:?}");
        }
    }
    require.action.pass = true;
    assert_eq!(
        refused(&decide(&require, &to(Known::Candidates(vec![])))),
        Some((true, (4, 3, 5))),
        "pass beside require is no way out"
    );
}

#[test]
fn downgrade_allow_lets_prefer_fall_to_clear() {
    let house = House::new();
    let mut prefer = rule(EncryptMode::Prefer, SignMode::Never);
    prefer.action.allow_downgrade = true;
    for bad in unusable(&house) {
        assert!(matches!(decide(&prefer, &to(Known::Candidates(vec![bad]))).treatment, Treatment::Clear(_)));
    }
}

#[test]
fn missing_hold_keeps_what_lacks_a_certificate_and_nothing_else() {
    let mut require = rule(EncryptMode::Require, SignMode::Never);
    require.action.missing = Missing::Hold;
    assert!(matches!(decide(&require, &to(Known::Candidates(vec![]))).treatment, Treatment::Hold { .. }));
    assert_eq!(refused(&decide(&require, &to(Known::Unknown("away".into())))), Some((true, (4, 4, 3))));
    require.action.reject = Some("no".into());
    assert_eq!(refused(&decide(&require, &to(Known::Candidates(vec![])))), Some((false, (5, 7, 1))));
}

#[test]
fn the_signing_key_missing_is_451_and_never_unsigned() {
    let house = House::new();
    let require = rule(EncryptMode::Never, SignMode::Require);
    let facts = |signer: Known, may_sign: MaySign| Facts {
        signer: signer.into(),
        may_sign,
        recipient: Known::Candidates(vec![]),
    };
    let none = Known::Candidates(vec![]);
    assert_eq!(refused(&decide(&require, &facts(none.clone(), MaySign::Yes))), Some((true, (4, 7, 5))));
    assert_eq!(
        refused(&decide(&require, &facts(Known::Unknown("away".into()), MaySign::Yes))),
        Some((true, (4, 4, 3)))
    );
    assert_eq!(refused(&decide(&require, &facts(Known::Disabled, MaySign::Yes))), Some((false, (5, 7, 1))));
    let good = Known::Candidates(vec![house.signer()]);
    assert!(matches!(
        decide(&require, &facts(good.clone(), MaySign::Yes)).treatment,
        Treatment::Protect(Plan { sign: Some(_), .. })
    ));
    // A31: the submitter may not use the key.
    assert_eq!(
        refused(&decide(&require, &facts(good.clone(), MaySign::No("forged".into())))),
        Some((false, (5, 7, 1)))
    );
    assert!(matches!(
        decide(&require, &facts(good.clone(), MaySign::NotNeeded("DSN".into()))).treatment,
        Treatment::Clear(_)
    ));
    let if_key = rule(EncryptMode::Never, SignMode::IfKey);
    assert!(matches!(decide(&if_key, &facts(good, MaySign::No("forged".into()))).treatment, Treatment::Clear(_)));
    assert!(matches!(decide(&if_key, &facts(none, MaySign::Yes)).treatment, Treatment::Clear(_)));
}

#[test]
fn pass_is_no_way_around_a_signature_that_is_required() {
    let mut require = rule(EncryptMode::Never, SignMode::Require);
    require.action.pass = true;
    assert_eq!(refused(&decide(&require, &to(Known::Candidates(vec![])))), Some((true, (4, 3, 5))));
}

#[test]
fn t16_signing_keys_outside_their_validity_are_unused() {
    let house = House::new();
    let require = rule(EncryptMode::Never, SignMode::Require);
    let facts = Facts {
        signer: Known::Candidates(vec![house.signer()]).into(),
        may_sign: MaySign::Yes,
        recipient: Known::Candidates(vec![]),
    };
    for day in [-11, 11, -2000, 2000] {
        let resolution = resolve(&policy(vec![]), &require, &facts, at(day));
        assert_eq!(refused(&resolution), Some((true, (4, 7, 5))), "day {day}");
    }
}

#[test]
fn pinned_then_preferred_then_newest_and_the_reasons_are_told() {
    let house = House::new();
    let one = |from| house.candidate(house.leaf("b@x.example", from, 10, BOTH), Purpose::Encryption);
    let (old, newer, newest) = (one(-30), one(-20), one(-10));
    let require = rule(EncryptMode::Require, SignMode::Never);
    let all = |list: [&Candidate; 3]| to(Known::Candidates(list.into_iter().cloned().collect()));
    let resolution = decide(&require, &all([&old, &newest, &newer]));
    assert_eq!(encrypted_to(&resolution), [newest.certificate.fingerprint()]);
    assert_eq!(resolution.considered.len(), 3);
    assert_eq!(resolution.considered.iter().filter(|one| one.outcome.is_ok()).count(), 1);
    let preferred = Candidate { preferred: true, ..newer.clone() };
    assert_eq!(encrypted_to(&decide(&require, &all([&old, &newest, &preferred]))), [newer.certificate.fingerprint()]);
    let pinned = Candidate { trust: TrustState::Pinned, ..old.clone() };
    assert_eq!(encrypted_to(&decide(&require, &all([&pinned, &newest, &preferred]))), [old.certificate.fingerprint()]);
    let mut every = require.clone();
    every.action.all_valid = true;
    assert_eq!(encrypted_to(&decide(&every, &all([&old, &newest, &newer]))).len(), 3);
}

#[test]
fn domain_certificates_stand_in_only_where_the_rule_says_so() {
    let house = House::new();
    let domain = Candidate { domain: true, ..house.good() };
    let own = house.good();
    let mut require = rule(EncryptMode::Require, SignMode::Never);
    let facts = to(Known::Candidates(vec![domain.clone(), own.clone()]));
    let alone = to(Known::Candidates(vec![domain.clone()]));
    assert!(refused(&decide(&require, &alone)).is_some());
    require.action.domain_key = true;
    assert_eq!(encrypted_to(&decide(&require, &alone)), [domain.certificate.fingerprint()]);
    assert_eq!(encrypted_to(&decide(&require, &facts)), [own.certificate.fingerprint()], "his own comes first");
}

#[test]
fn capabilities_choose_within_the_profile() {
    use ContentEncryption::{Aes128Cbc, Aes256Cbc, Aes256Gcm, TripleDesCbc};
    let house = House::new();
    let content = |reads: Option<Vec<ContentEncryption>>, profile: &str| {
        let mut require = rule(EncryptMode::Require, SignMode::Never);
        require.action.profile = profile.into();
        let capabilities = reads.map(|content| Capabilities { content, transport: Vec::new() });
        match decide(&require, &to(Known::Candidates(vec![Candidate { capabilities, ..house.good() }]))).treatment {
            Treatment::Protect(Plan { encrypt: Some(to), .. }) => {
                assert_eq!(to.readable.first(), Some(&to.content));
                to.content
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(content(None, "modern"), Aes256Gcm);
    assert_eq!(content(Some(vec![Aes128Cbc, Aes256Cbc]), "modern"), Aes256Cbc);
    assert_eq!(content(Some(vec![TripleDesCbc]), "modern"), Aes128Cbc);
    assert_eq!(content(Some(vec![Aes256Gcm]), "compatible"), Aes128Cbc);
    assert_eq!(content(None, "edi-energy"), Aes128Cbc);
    assert_eq!(content(None, "post-quantum"), Aes256Gcm);
    assert_eq!(content(Some(vec![ContentEncryption::Aes128Gcm]), "post-quantum"), Aes256Cbc);
}

#[test]
fn capabilities_choose_the_key_transport_within_the_profile() {
    let house = House::new();
    let oaep = KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256);
    let transport = |transport: Vec<KeyTransport>, further: Vec<KeyTransport>| {
        let profile = Profile { further_transports: further, ..Profile::builtin("modern").unwrap() };
        let capabilities = Some(Capabilities { content: vec![ContentEncryption::Aes256Cbc], transport });
        super::resolve::transport(&profile, &[&Candidate { capabilities, ..house.good() }])
    };
    let both = || vec![KeyTransport::RsaPkcs1];
    assert_eq!(transport(vec![], both()), oaep, "nothing is said of it");
    assert_eq!(transport(vec![KeyTransport::RsaPkcs1], both()), KeyTransport::RsaPkcs1);
    assert_eq!(transport(vec![KeyTransport::RsaPkcs1, oaep], both()), oaep);
    assert_eq!(transport(vec![KeyTransport::RsaPkcs1], vec![]), oaep, "the profile does not allow another");
}

fn header(text: &str) -> Header {
    Entity::parse(Bytes::from(format!("{text}\r\n\r\n")), &MimeLimits::default()).unwrap().header
}

fn seen<'m>(header: &'m Header, reverse_path: &'m ReversePath) -> MessageFacts<'m> {
    MessageFacts {
        direction: Direction::Outbound,
        reverse_path,
        from: None,
        header,
        size: 1000,
        signed: false,
        encrypted: false,
        user: None,
        listener: "out",
        trusted: true,
    }
}

fn matches(matches: Match, facts: &MessageFacts<'_>, recipient: &str) -> bool {
    let policy = policy(vec![Rule { name: "hit".into(), matches, action: Action::default() }]);
    select(&policy, facts, &mailbox(recipient)).name == "hit"
}

#[test]
fn patterns_match_addresses_domains_and_wildcards() {
    let hits = [
        ("bob@x.example", "BOB@X.example"),
        ("@x.example", "any@x.example"),
        ("x.example", "any@x.example"),
        ("*", "any@x.example"),
        ("*@*.example", "a@b.c.example"),
        ("b*b@x.example", "bob@x.example"),
        ("*@xn--bcher-kva.example", "a@bücher.example"),
    ];
    let misses = [
        ("@x.example", "a@sub.x.example"),
        ("bob@x.example", "bobby@x.example"),
        ("*@*.x.example", "a@x.example"),
        ("b*bb@x.example", "bb@x.example"),
    ];
    let header = header("Subject: x");
    let facts = seen(&header, &ReversePath::Null);
    for (pattern, address) in hits {
        let recipient = vec![Pattern::parse(pattern).unwrap()];
        assert!(matches(Match { recipient, ..Match::default() }, &facts, address), "{pattern} {address}");
    }
    for (pattern, address) in misses {
        let recipient = vec![Pattern::parse(pattern).unwrap()];
        assert!(!matches(Match { recipient, ..Match::default() }, &facts, address), "{pattern} {address}");
    }
}

#[test]
fn a22_unicode_is_not_folded_in_patterns() {
    // KELVIN SIGN is no k, long s is no s.
    let header = header("Subject: x");
    let facts = seen(&header, &ReversePath::Null);
    for address in ["\u{212a}en@x.example", "\u{17f}am@x.example"] {
        let recipient = vec![Pattern("ken@x.example".into()), Pattern("sam@x.example".into())];
        assert!(!matches(Match { recipient, ..Match::default() }, &facts, address));
    }
}

#[test]
fn a_subject_keyword_counts_from_trusted_peers_only() {
    let header = header("Subject: =?utf-8?q?Re:_[Encrypt]_plan?=");
    let facts = seen(&header, &ReversePath::Null);
    let wanted = || Match { subject_keyword: Some("[encrypt]".into()), ..Match::default() };
    assert!(matches(wanted(), &facts, "a@x.example"));
    assert!(!matches(wanted(), &MessageFacts { trusted: false, ..facts }, "a@x.example"));
}

#[test]
fn every_condition_must_hold_and_the_first_rule_wins() {
    let header = header("X-Kind: Payroll run\r\nSubject: x");
    let sender = ReversePath::Mailbox(mailbox("anna@y.example"));
    let facts = seen(&header, &sender);
    let all = Match {
        direction: Some(Direction::Outbound),
        sender: vec![Pattern("@y.example".into())],
        header: Some(("x-kind".into(), "payroll*".into())),
        larger_than: Some(999),
        signed: Some(false),
        encrypted: Some(false),
        listener: vec!["out".into()],
        ..Match::default()
    };
    assert!(matches(all.clone(), &facts, "b@x.example"));
    assert!(!matches(Match { larger_than: Some(1000), ..all.clone() }, &facts, "b@x.example"));
    assert!(!matches(Match { listener: vec!["in".into()], ..all.clone() }, &facts, "b@x.example"));
    assert!(!matches(Match { direction: Some(Direction::Inbound), ..all.clone() }, &facts, "b@x.example"));
    assert!(!matches(Match { user: vec!["*".into()], ..all.clone() }, &facts, "b@x.example"));
    assert!(!matches(Match { sender: vec![Pattern("<>".into())], ..all.clone() }, &facts, "b@x.example"));
    let two = |name: &str| Rule { name: name.into(), matches: all.clone(), action: Action::default() };
    assert_eq!(select(&policy(vec![two("one"), two("two")]), &facts, &mailbox("b@x.example")).name, "one");
}

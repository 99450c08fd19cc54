use std::sync::LazyLock;

use super::*;
use crate::pki::authority::{Issued, NewKey, Recipe, demo_pki, issue_cached, issue_with_key};

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn trust(anchors: &[&Issued]) -> TrustSet {
    let anchors = anchors
        .iter()
        .map(|issued| TrustAnchor { certificate: issued.certificate.clone(), scope: AnchorScope::Global })
        .collect();
    TrustSet { anchors, intermediates: Vec::new(), generation: 1 }
}

fn judge(leaf: &Issued, extra: &[&Issued], trust: &TrustSet) -> Result<ValidPath, PathError> {
    let extra: Vec<Certificate> = extra.iter().map(|issued| issued.certificate.clone()).collect();
    validate(&leaf.certificate, &extra, trust, Purpose::Signature, None, now(), &PathLimits::default())
}

fn ca(name: &str) -> Recipe {
    Recipe::authority(name, now(), NewKey::P256)
}

fn leaf(mailbox: &str) -> Recipe {
    Recipe::mailbox(mailbox, now(), NewKey::P256)
}

static ROOT: LazyLock<Issued> = LazyLock::new(|| issue_cached(&ca("Root"), None));

#[test]
fn finds_the_path_and_its_first_expiry() {
    let pki = demo_pki(now(), &["alice@example.org"], NewKey::Rsa2048);
    let path = judge(&pki.leaves[0], &[&pki.intermediate], &trust(&[&pki.root])).unwrap();
    assert_eq!(path.chain().len(), 3);
    assert_eq!(path.leaf(), &pki.leaves[0].certificate);
    assert_eq!(path.not_after(), pki.leaves[0].certificate.not_after());
    assert!(matches!(judge(&pki.leaves[0], &[], &trust(&[&pki.root])), Err(PathError::NoIssuer(_))));
    assert!(matches!(judge(&pki.leaves[0], &[&pki.intermediate], &TrustSet::default()), Err(PathError::NoIssuer(_))));
}

#[test]
fn validity_of_every_certificate() {
    let mut recipe = ca("Short CA");
    recipe.not_after = "2026-11-22T11:59:59Z".parse().unwrap();
    let short = issue_cached(&recipe, Some(&ROOT));
    let alice = issue_cached(&leaf("alice@example.org"), Some(&short));
    assert!(matches!(judge(&alice, &[&short], &trust(&[&ROOT])), Err(PathError::Expired { .. })));
    recipe.not_after = "2026-11-22T12:00:00Z".parse().unwrap();
    let fits = issue_cached(&recipe, Some(&ROOT));
    assert!(
        judge(&alice, &[&short, &fits], &trust(&[&ROOT])).is_ok(),
        "an expired certificate does not hide a valid one"
    );
    assert!(judge(&alice, &[&fits, &short], &trust(&[&ROOT])).is_ok());
    let mut recipe = leaf("later@example.org");
    recipe.not_before = "2026-11-22T12:00:01Z".parse().unwrap();
    assert!(matches!(
        judge(&issue_cached(&recipe, Some(&ROOT)), &[], &trust(&[&ROOT])),
        Err(PathError::NotYetValid { .. })
    ));
    let mut recipe = ca("Old Root");
    recipe.not_after = "2026-11-22T11:00:01Z".parse().unwrap();
    let old = issue_cached(&recipe, None);
    let alice = issue_cached(&leaf("alice@example.org"), Some(&old));
    assert!(matches!(judge(&alice, &[], &trust(&[&old])), Err(PathError::Expired { .. })));
}

#[test]
fn only_a_ca_issues() {
    let end = issue_cached(&leaf("mallory@example.org"), Some(&ROOT));
    let forged = issue_cached(&leaf("alice@example.org"), Some(&end));
    assert!(matches!(judge(&forged, &[&end], &trust(&[&ROOT])), Err(PathError::Usage { .. })));
    for change in [(|recipe| recipe.key_usage = vec!["cRLSign"]) as fn(&mut Recipe), |recipe| {
        recipe.email_protection = Some(false)
    }] {
        let mut recipe = ca("Other CA");
        change(&mut recipe);
        let other = issue_cached(&recipe, Some(&ROOT));
        let alice = issue_cached(&leaf("alice@example.org"), Some(&other));
        assert!(matches!(judge(&alice, &[&other], &trust(&[&ROOT])), Err(PathError::Usage { .. })));
    }
}

#[test]
fn path_length_holds() {
    let mut recipe = ca("Last CA");
    recipe.ca = Some(Some(0));
    let last = issue_cached(&recipe, Some(&ROOT));
    let below = issue_cached(&ca("One too many"), Some(&last));
    let alice = issue_cached(&leaf("alice@example.org"), Some(&below));
    assert!(matches!(judge(&alice, &[&last, &below], &trust(&[&ROOT])), Err(PathError::Rule { .. })));
    assert!(judge(&issue_cached(&leaf("alice@example.org"), Some(&last)), &[&last], &trust(&[&ROOT])).is_ok());
}

#[test]
fn mail_name_constraints() {
    for (permitted, mailbox, expected) in [
        ("example.org", "alice@example.org", true),
        ("example.org", "alice@EXAMPLE.org", true),
        ("example.org", "alice@sub.example.org", false),
        (".example.org", "alice@sub.example.org", true),
        (".example.org", "alice@example.org", false),
        (".example.org", "alice@notexample.org", false),
        ("alice@example.org", "alice@example.org", true),
        ("alice@example.org", "bob@example.org", false),
        ("example.org", "jürgen@example.org", true),
        ("example.com", "jürgen@example.org", false),
        ("example.org", "@example.org", true),
        ("example.com", "@example.org", false),
        ("example.org", "not a mailbox", false),
    ] {
        let mut recipe = ca("Narrow CA");
        recipe.permitted_mail = vec![permitted.to_owned()];
        let narrow = issue_cached(&recipe, Some(&ROOT));
        let mut recipe = leaf("x@example.org");
        recipe.mailboxes = vec![mailbox.to_owned()];
        let path = judge(&issue_cached(&recipe, Some(&narrow)), &[&narrow], &trust(&[&ROOT]));
        assert_eq!(path.is_ok(), expected, "{permitted} {mailbox}: {path:?}");
    }
}

#[test]
fn scope_of_the_anchor() {
    let alice = issue_cached(&leaf("alice@example.org"), Some(&ROOT));
    let mut trust = trust(&[&ROOT]);
    let at = |trust: &TrustSet, domain: &str| {
        let domain = Domain::parse(domain).unwrap();
        validate(&alice.certificate, &[], trust, Purpose::Encryption, Some(&domain), now(), &PathLimits::default())
    };
    trust.anchors[0].scope = AnchorScope::Domains(vec![Domain::parse("example.org").unwrap()]);
    assert!(at(&trust, "example.org").is_ok());
    assert!(matches!(at(&trust, "example.com"), Err(PathError::Scope { .. })));
    trust.anchors.push(TrustAnchor { certificate: ROOT.certificate.clone(), scope: AnchorScope::Global });
    assert!(at(&trust, "example.com").is_ok());
}

#[test]
fn a_leaf_may_be_its_own_anchor_but_no_one_elses() {
    let alice = issue_cached(&leaf("alice@example.org"), None);
    let path = judge(&alice, &[], &trust(&[&alice])).unwrap();
    assert_eq!(path.chain().len(), 1);
    let bob = issue_cached(&leaf("bob@example.org"), Some(&alice));
    assert!(judge(&bob, &[], &trust(&[&alice])).is_err());
}

#[test]
fn one_flipped_octet_is_refused() {
    let alice = issue_cached(&leaf("alice@example.org"), Some(&ROOT));
    let mut der = alice.certificate.der().to_vec();
    let place = der.windows(5).position(|window| window == b"alice").unwrap();
    der[place] = b'b';
    let forged = Issued { certificate: Certificate::from_der(der.into()).unwrap(), pkcs8: alice.pkcs8.clone() };
    assert!(matches!(judge(&forged, &[], &trust(&[&ROOT])), Err(PathError::Signature { .. })));
}

#[test]
fn a11_a_path_has_at_most_eight_certificates() {
    let mut chain = vec![ROOT.clone()];
    for level in 0..7 {
        chain.push(issue_cached(&ca(&format!("Level {level}")), chain.last()));
    }
    let judge_below = |level: usize| {
        let alice = issue_cached(&leaf("alice@example.org"), Some(&chain[level]));
        judge(&alice, &chain[1..].iter().collect::<Vec<_>>(), &trust(&[&ROOT]))
    };
    assert_eq!(judge_below(6).unwrap().chain().len(), 8);
    assert!(matches!(judge_below(7), Err(PathError::Limit(_))));
}

#[test]
fn a11_a_maze_of_cross_certificates_ends_at_the_signature_budget() {
    // Every CA certifies every other: the number of ways grows without bound, and none leads to the anchor.
    let names: Vec<String> = (0..6).map(|index| format!("Maze {index}")).collect();
    let selves: Vec<Issued> = names.iter().map(|name| issue_cached(&ca(name), None)).collect();
    let mut maze = Vec::new();
    for (subject, name) in selves.iter().zip(&names) {
        for issuer in selves.iter().filter(|issuer| issuer.certificate != subject.certificate) {
            maze.push(issue_with_key(&ca(name), subject.pkcs8.clone(), Some(issuer)));
        }
    }
    let alice = issue_cached(&leaf("alice@example.org"), Some(&selves[0]));
    assert!(matches!(judge(&alice, &maze.iter().collect::<Vec<_>>(), &trust(&[&ROOT])), Err(PathError::Limit(_))));
}

#[test]
fn a11_many_issuers_of_one_name_end_at_the_signature_budget() {
    let real = issue_cached(&ca("Twin CA"), Some(&ROOT));
    let alice = issue_cached(&leaf("alice@example.org"), Some(&real));
    let key = crate::pki::authority::cached_key(NewKey::P256, "another");
    let twins: Vec<Issued> = (0..120).map(|_| issue_with_key(&ca("Twin CA"), key.clone(), Some(&ROOT))).collect();
    let extra: Vec<&Issued> = twins.iter().chain([&real]).collect();
    assert!(judge(&alice, &extra, &trust(&[&ROOT])).is_ok(), "the key identifier leads to the right one at once");
    assert!(matches!(judge(&alice, &extra[..120], &trust(&[&ROOT])), Err(PathError::Limit(_))));
}

/// A false issuer: the real one's certificate with an RSA key of so many octets, which nobody has.
fn twin(real: &Certificate, octets: usize, number: usize) -> Certificate {
    use crate::pki::asn1::{sequence, write};
    let mut modulus = vec![0xa5; octets + 1];
    modulus[0] = 0;
    modulus[octets - 2..octets].copy_from_slice(&(number as u16).to_be_bytes());
    let key = sequence(&[&write(0x02, &[&modulus]), &[0x02, 3, 1, 0, 1]]);
    let rsa = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let spki = sequence(&[&rsa, &write(0x03, &[&[0], &key])]);
    let (tbs, old) = (real.tbs(), real.public_key().spki());
    let at = tbs.windows(old.len()).position(|one| one == &old[..]).unwrap();
    let inside = [&tbs[4..at], &spki, &tbs[at + old.len()..]].concat();
    let signature = write(0x03, &[&[0], real.signature()]);
    Certificate::from_der(sequence(&[&sequence(&[&inside]), real.signature_algorithm(), &signature]).into()).unwrap()
}

/// The budget is one of work: a check under the longest keys counts for three.
#[test]
fn a11_slow_keys_end_at_the_signature_budget_sooner() {
    let real = issue_cached(&ca("Slow Twin CA"), Some(&ROOT));
    let alice = issue_cached(&leaf("alice@example.org"), Some(&real));
    let among = |octets| {
        let mut extra: Vec<Certificate> = (0..40).map(|number| twin(&real.certificate, octets, number)).collect();
        extra.push(real.certificate.clone());
        let (trust, limits) = (trust(&[&ROOT]), PathLimits::default());
        validate(&alice.certificate, &extra, &trust, Purpose::Signature, None, now(), &limits)
    };
    assert!(among(256).is_ok(), "40 false issuers are tried, then the real one");
    assert!(matches!(among(1024), Err(PathError::Limit(_))));
}

#[test]
fn a11_a_check_under_slh_dsa_costs_ten() {
    use crate::cms::algorithm::SlhDsa;
    let spent = |kind: KeyKind| {
        let mut budget = PathLimits { signatures: 100, ..PathLimits::default() }.budget();
        std::iter::repeat_with(|| budget.take(kind)).take_while(|some| *some).count()
    };
    assert_eq!((spent(KeyKind::SlhDsa(SlhDsa::Sha2_256f)), spent(KeyKind::P256)), (10, 100));
    assert_eq!((spent(KeyKind::Rsa { bits: 8192 }), spent(KeyKind::P521)), (34, 50));
}

/// Levels without end in the place of each part of a certificate, and in what else a path is judged by: refused, without recursion.
#[test]
fn a13_levels_without_end_in_certificates_are_refused() {
    use crate::pki::asn1::{sequence, write};
    let mut reversed = Vec::new();
    // As many as the largest certificate that is read has room for, and ten times as many.
    for levels in [60_000, 600_000] {
        while reversed.len() < levels * 4 {
            let mut header = Vec::new();
            crate::cms::ber::write::header(0x30, reversed.len(), &mut header);
            reversed.extend(header.into_iter().rev());
        }
        let bomb: Vec<u8> = reversed.iter().rev().copied().collect();
        let good = &ROOT.certificate;
        let parts = [good.issuer(), good.subject(), good.public_key().spki(), good.signature_algorithm()];
        let mut bombs = vec![bomb.clone(), sequence(&[&bomb]), write(0x30, &[&sequence(&[&bomb]), &bomb, &bomb])];
        for part in parts {
            let tbs = good.tbs();
            let at = tbs.windows(part.len()).position(|one| one == part).unwrap();
            let inside = [&tbs[4..at], &bomb, &tbs[at + part.len()..]].concat();
            bombs.push(sequence(&[&sequence(&[&inside]), good.signature_algorithm(), &[3, 2, 0, 1]]));
        }
        for bomb in bombs {
            assert!(Certificate::from_der(bomb.clone().into()).is_err());
            crate::pki::revocation::crl::fuzz_crl(&bomb);
            crate::pki::revocation::ocsp::fuzz_ocsp(&bomb);
            crate::pki::pkcs12::fuzz_pkcs12(&bomb);
            crate::pki::public_key::fuzz_public_key(&bomb);
            fuzz_path(&[&(bomb.len() as u32).to_be_bytes()[..], &bomb].concat());
        }
    }
}

#[test]
fn fuzz_body_holds_on_seeds_and_noise() {
    use proptest::prelude::*;
    let pki = demo_pki(now(), &["alice@example.org"], NewKey::P256);
    let mut seed = Vec::new();
    for issued in [&pki.leaves[0], &pki.intermediate, &pki.root] {
        let der = issued.certificate.der();
        seed.extend((der.len() as u32).to_be_bytes());
        seed.extend(der.iter());
    }
    fuzz_path(&seed);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(config, rng);
    runner
        .run(&(any::<prop::sample::Index>(), any::<u8>()), |(at, octet)| {
            let mut data = seed.clone();
            let at = at.index(data.len());
            data[at] = octet;
            fuzz_path(&data);
            Ok(())
        })
        .unwrap();
}

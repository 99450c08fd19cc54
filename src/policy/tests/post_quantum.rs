//! Which of a mailbox's certificates and keys are used where it has classical and post-quantum ones.

use super::*;
use crate::cms::algorithm::{MlDsa, MlKem};

fn of(house: &House, address: &str, key: NewKey, from: i64, purpose: Purpose) -> Candidate {
    let mut recipe = Recipe::mailbox(address, at(0), key);
    recipe.not_before = at(from);
    recipe.not_after = at(10);
    let candidate = house.candidate(issue(&recipe, Some(&house.ca)).certificate, purpose);
    assert!(candidate.path.is_ok());
    let id = KeyId::of_spki(candidate.certificate.public_key().spki());
    Candidate { key: (purpose == Purpose::Signature).then_some(id), ..candidate }
}

fn with_profile(profile: &str, encrypt: EncryptMode, sign: SignMode) -> Rule {
    let mut rule = rule(encrypt, sign);
    rule.action.profile = profile.into();
    rule
}

#[test]
fn the_profile_says_which_kind_of_certificate_comes_first() {
    let house = House::new();
    // The newer one would come first by its age.
    for (classical_from, quantum_from) in [(-10, -5), (-5, -10)] {
        let classical = of(&house, "b@x.example", NewKey::P256, classical_from, Purpose::Encryption);
        let quantum = of(&house, "b@x.example", NewKey::MlKem(MlKem::MlKem768), quantum_from, Purpose::Encryption);
        let used = |profile: &str, candidates: &[&Candidate]| {
            let known = Known::Candidates(candidates.iter().map(|one| (*one).clone()).collect());
            encrypted_to(&decide(&with_profile(profile, EncryptMode::Require, SignMode::Never), &to(known)))
        };
        let (old, new) = (classical.certificate.fingerprint(), quantum.certificate.fingerprint());
        assert_eq!(used("post-quantum", &[&classical, &quantum]), [new]);
        assert_eq!(used("compatible", &[&classical, &quantum]), [old]);
        // The only one there is is used by every profile; an administrator's choice goes before the kind.
        assert_eq!(used("compatible", &[&quantum]), [new]);
        assert_eq!(used("post-quantum", &[&classical]), [old]);
        let pinned = Candidate { trust: TrustState::Pinned, ..classical.clone() };
        assert_eq!(used("post-quantum", &[&pinned, &quantum]), [old]);
    }
}

#[test]
fn two_keys_sign_by_profile_and_one_alone_where_there_is_one() {
    let house = House::new();
    let classical = of(&house, "a@y.example", NewKey::P256, -10, Purpose::Signature);
    let quantum = of(&house, "a@y.example", NewKey::MlDsa(MlDsa::MlDsa65), -5, Purpose::Signature);
    let newer = of(&house, "a@y.example", NewKey::MlDsa(MlDsa::MlDsa87), -2, Purpose::Signature);
    let signers = |profile: &str, candidates: &[&Candidate]| {
        let signer = Known::Candidates(candidates.iter().map(|one| (*one).clone()).collect());
        let facts = Facts { signer: signer.into(), may_sign: MaySign::Yes, recipient: Known::Candidates(vec![]) };
        match decide(&with_profile(profile, EncryptMode::Never, SignMode::Require), &facts).treatment {
            Treatment::Protect(Plan { sign: Some(first), second, .. }) => std::iter::once(first)
                .chain(second.map(|second| *second))
                .map(|one| one.certificate.fingerprint())
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    let print = |one: &Candidate| one.certificate.fingerprint();
    let all = [&quantum, &classical, &newer];
    assert_eq!(signers("post-quantum", &all), [print(&classical), print(&newer)]);
    assert_eq!(signers("compatible", &all), [print(&classical)]);
    assert_eq!(signers("post-quantum", &[&classical]), [print(&classical)]);
    assert_eq!(signers("post-quantum", &[&quantum]), [print(&quantum)]);
    assert_eq!(signers("modern", &[&quantum, &newer]), [print(&newer)]);
    let pinned = Candidate { trust: TrustState::Pinned, ..quantum.clone() };
    assert_eq!(signers("post-quantum", &[&pinned, &classical, &newer]), [print(&classical), print(&quantum)]);
}

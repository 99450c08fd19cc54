//! Mails sealed and opened with ML-KEM and ML-DSA; two signatures of one author.

use super::*;
use crate::cms::algorithm::{MlDsa, MlKem, SignatureScheme};
use crate::pki::authority::{Recipe, issue_cached};
use crate::smime::seal::CoSigner;

/// A certificate for the same mailbox with another kind of key, from the same CA.
fn another(pki: &DemoPki, mailbox: &str, kind: NewKey) -> Issued {
    issue_cached(&Recipe::mailbox(mailbox, now(), kind), Some(&pki.intermediate))
}

/// Alice's two signatures over her mail.
fn twice_signed(pki: &DemoPki, form: Form) -> Draft {
    let alice = pki.leaf(ALICE).unwrap();
    let quantum = another(pki, ALICE, NewKey::MlDsa(MlDsa::MlDsa65));
    let mut plan = sign_plan(pki, alice, form);
    plan.second = Some(CoSigner {
        key: key_id(&quantum),
        certificate: quantum.certificate.clone(),
        chain: vec![pki.intermediate.certificate.clone()],
        scheme: SignatureScheme::MlDsa(MlDsa::MlDsa65),
    });
    let signing = Draft::new(&entity(mail())).unwrap().sign(plan).unwrap();
    let keys = holder(&[alice, &quantum]);
    let answers = signing.operations().into_iter().map(|one| perform(&keys, one).unwrap()).collect();
    signing.finish_all(answers, true).unwrap()
}

#[test]
fn a_mail_under_ml_dsa_all_the_way_up_is_proven() {
    let pki = people(NewKey::MlDsa(MlDsa::MlDsa44));
    let alice = pki.leaf(ALICE).unwrap();
    for form in [Form::Clear, Form::Opaque] {
        let opened = open(&pki, &[], signed(&pki, alice, form, mail()));
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
        let Layer::Signed { signers, .. } = &opened.verdict.layers[0] else { panic!("a signed layer") };
        assert_eq!(signers[0].algorithm, "ML-DSA-44");
        let octets = signed(&pki, alice, form, mail());
        if form == Form::Clear {
            let at = memchr::memmem::find(&octets, b"eight").unwrap();
            let mut changed = octets.to_vec();
            changed[at] = b'E';
            assert_eq!(open(&pki, &[], changed).verdict.result, SmimeResult::Fail);
        }
    }
}

#[test]
fn a_mail_to_an_ml_kem_certificate_opens_with_its_key_alone() {
    let pki = people(NewKey::P256);
    for set in MlKem::ALL {
        let bob = another(&pki, BOB, NewKey::MlKem(set));
        let plan = encrypt_plan(&[&bob], ContentEncryption::Aes256Gcm);
        let sealed = twice_signed(&pki, Form::Clear).encrypt(&plan, true).unwrap().rope().to_bytes();
        let opened = open(&pki, &[&bob], sealed.clone());
        assert!(opened.verdict.decrypted);
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
        let Layer::Encrypted { recipients, .. } = &opened.verdict.layers[0] else { panic!("an encrypted layer") };
        assert!(recipients[0].contains(set.name()), "{}", recipients[0]);
        let stranger = another(&pki, MALLORY, NewKey::MlKem(set));
        let closed = open(&pki, &[&stranger], sealed);
        assert!(!closed.verdict.decrypted && closed.operations == 0);
    }
}

/// A3: a KEM ciphertext that was touched gives the very verdict that a touched wrap gives.
#[test]
fn a03_a_touched_ciphertext_and_a_touched_wrap_look_the_same() {
    let pki = people(NewKey::P256);
    let bob = another(&pki, BOB, NewKey::MlKem(MlKem::MlKem768));
    let sealed = object(&encrypted(&[&bob], ContentEncryption::Aes256Cbc, mail()));
    let reason = |at: usize| {
        let mut touched = sealed.to_vec();
        touched[at] ^= 1;
        let opened = open(&pki, &[&bob], pkcs7_message(&touched));
        assert!(!opened.verdict.decrypted && opened.operations == 1);
        opened.verdict.reason
    };
    let kdf = [0x06, 0x0b, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 3, 28];
    let end_of_ciphertext = memchr::memmem::find(&sealed, &kdf).unwrap() - 3;
    let wrap = [0x06, 0x09, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 45];
    let in_the_wrapped_key = memchr::memmem::find(&sealed, &wrap).unwrap() + wrap.len() + 10;
    assert_eq!(reason(end_of_ciphertext), reason(in_the_wrapped_key));
    assert_eq!(reason(end_of_ciphertext - 700), reason(in_the_wrapped_key));
}

/// A7, RFC 5752: both signatures are the author's; with one of them gone the other proves nothing.
#[test]
fn a07_of_two_signatures_neither_can_be_taken_away() {
    let pki = people(NewKey::P256);
    for form in [Form::Clear, Form::Opaque] {
        let message = twice_signed(&pki, form).signed().unwrap().rope().to_bytes();
        let opened = open(&pki, &[], message.clone());
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
        let Layer::Signed { signers, .. } = &opened.verdict.layers[0] else { panic!("a signed layer") };
        let names: Vec<_> = signers.iter().map(|signer| signer.algorithm.as_str()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(signers.iter().all(|signer| signer.signature.is_ok() && signer.path.is_ok()));
        if form == Form::Opaque {
            let whole = object(&message);
            for kept in 0..2 {
                let opened = open(&pki, &[], pkcs7_message(&only_signer(&whole, kept)));
                assert_eq!(opened.verdict.result, SmimeResult::Fail);
                assert!(opened.verdict.reason.contains("RFC 5752"), "{}", opened.verdict.reason);
            }
        } else {
            assert!(memchr::memmem::find(&message, b"micalg=\"sha-256,sha-512\"").is_some());
        }
    }
}

/// The SignedData with one of its SignerInfos alone, lengths made good.
fn only_signer(object: &Bytes, kept: usize) -> Vec<u8> {
    use crate::cms::ber::{Reader, tag, write};
    let mut info = Reader::ber(object).expect(tag::SEQUENCE, "ContentInfo").unwrap().reader();
    let kind = info.element().unwrap().raw;
    let explicit = info.element().unwrap();
    let mut fields = explicit.reader().element().unwrap().reader();
    let mut elements = Vec::new();
    while !fields.is_empty() {
        elements.push(fields.element().unwrap());
    }
    let mut infos = elements.pop().unwrap().reader();
    let mut chosen = infos.element().unwrap();
    for _ in 0..kept {
        chosen = infos.element().unwrap();
    }
    let signers = write::element(tag::SET, &[chosen.raw]);
    let mut pieces: Vec<&[u8]> = elements.iter().map(|element| element.raw).collect();
    pieces.push(&signers);
    write::sequence(&[kind, &write::element(tag::context(0), &[&write::sequence(&pieces)])])
}

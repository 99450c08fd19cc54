use super::*;
use crate::keys::KeyError;
use crate::pki::authority::NewKey;
use crate::smime::testing::*;
use crate::smime::verdict::SmimeResult;

fn header_text(entity: &Entity) -> String {
    String::from_utf8(entity.header.raw.to_vec()).unwrap()
}

#[test]
fn a_clear_signature_is_multipart_signed_over_the_prepared_entity() {
    let pki = people(NewKey::P256);
    let alice = pki.leaf(ALICE).unwrap();
    let message = entity(signed(&pki, alice, Form::Clear, mail()));
    let content_type = message.content_type().unwrap();
    assert_eq!(content_type.essence, "multipart/signed");
    assert_eq!(content_type.parameter("protocol"), Some("application/pkcs7-signature"));
    assert_eq!(content_type.parameter("micalg"), Some("sha-256"));
    let header = header_text(&message);
    assert!(
        header.starts_with("From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Supper\r\n"),
        "{header}"
    );
    assert_eq!(header.matches("MIME-Version:").count(), 1);
    let parts = message.parts(&MimeLimits::default()).unwrap();
    assert_eq!(parts.len(), 2);
    let inner = String::from_utf8(parts[0].raw.to_vec()).unwrap();
    assert!(inner.starts_with("Content-Type: text/plain; charset=us-ascii\r\n"), "{inner}");
    assert!(!inner.contains("Subject:"));
    assert_eq!(parts[1].content_type().unwrap().essence, "application/pkcs7-signature");
    let data = SignedData::parse(&parts[1].decoded_body().unwrap()).unwrap();
    assert!(data.econtent.is_none());
    assert!(data.certificates.contains(&pki.intermediate.certificate));
    assert!(!data.certificates.contains(&pki.root.certificate));
}

#[test]
fn every_line_written_is_fit_for_smtp() {
    let pki = people(NewKey::Rsa2048);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let draft = signed_draft(&pki, alice, Form::Clear, mail());
    let sealed = draft.encrypt(&encrypt_plan(&[bob], ContentEncryption::Aes256Cbc), true).unwrap();
    for rope in [sealed.rope(), draft.signed().unwrap().rope()] {
        assert!(canonical::is_seven_bit_safe(&rope.to_bytes()));
    }
}

#[test]
fn what_is_sealed_opens_to_what_went_in() {
    for kind in [NewKey::P256, NewKey::Rsa2048] {
        let pki = people(kind);
        let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
        for content in [
            ContentEncryption::Aes128Gcm,
            ContentEncryption::Aes256Gcm,
            ContentEncryption::Aes128Cbc,
            ContentEncryption::Aes256Cbc,
        ] {
            for form in [Form::Clear, Form::Opaque] {
                let sealed = signed_draft(&pki, alice, form, mail())
                    .encrypt(&encrypt_plan(&[bob, alice], content), true)
                    .unwrap();
                assert!(sealed.is_signed());
                assert_eq!(sealed.encrypted_to(), [bob.certificate.fingerprint(), alice.certificate.fingerprint()]);
                let octets = sealed.rope().to_bytes();
                assert!(memchr::memmem::find(&octets, b"bread").is_none());
                let expected = if content.is_authenticated() { "authEnveloped-data" } else { "enveloped-data" };
                assert_eq!(entity(octets.clone()).content_type().unwrap().parameter("smime-type"), Some(expected));
                let opened = open(&pki, &[bob], octets);
                assert_eq!(
                    opened.verdict.result,
                    SmimeResult::Pass,
                    "{} {:?}",
                    opened.verdict.reason,
                    opened.verdict.layers
                );
                assert_eq!(opened.content, prepared_inner(&mail()));
                assert!(!opened.verdict.unauthenticated);
            }
        }
    }
}

fn prepared_inner(message: &Bytes) -> Bytes {
    canonical::prepare(&entity(message.clone()), &MimeLimits::default()).unwrap().inner.to_bytes()
}

#[test]
fn a_signed_message_is_not_signed_again_and_keeps_its_octets() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    for form in [Form::Clear, Form::Opaque] {
        let message = signed(&pki, alice, form, mail());
        let draft = Draft::new(&entity(message.clone())).unwrap();
        assert!(draft.is_signed());
        assert_eq!(draft.clone().sign(sign_plan(&pki, alice, form)).unwrap_err(), SealError::AlreadySigned);
        assert_eq!(draft.signed().unwrap().rope().to_bytes(), message);
        let sealed = draft.encrypt(&encrypt_plan(&[bob], ContentEncryption::Aes256Gcm), true).unwrap();
        let opened = open(&pki, &[bob], sealed.rope().to_bytes());
        assert_eq!(opened.message, message, "the signed octets come out again");
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
    }
}

/// A PGP/MIME part that a 7-bit hop would change, and that is not ours to encode anew.
fn untouchable() -> Bytes {
    Bytes::from_static(
        b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: s\r\nMIME-Version: 1.0\r\n\
          Content-Type: multipart/signed; boundary=b; micalg=pgp-sha1;\r\n protocol=\"application/pgp-signature\"\r\n\r\n\
          --b\r\nContent-Type: text/plain\r\n\r\nFrom me, with a blank \r\n-- \r\nAlice\r\n--b\r\n\
          Content-Type: application/pgp-signature\r\n\r\nAAAA\r\n--b--\r\n",
    )
}

#[test]
fn what_may_not_be_touched_and_is_not_safe_goes_inside_base64_octet_for_octet() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let message = untouchable();
    let inner = message.slice(memchr::memmem::find(&message, b"Content-Type").unwrap()..);
    for form in [Form::Clear, Form::Opaque] {
        let draft = signed_draft(&pki, alice, form, message.clone());
        assert_eq!(draft.form(), Some(Form::Opaque));
        let plan = encrypt_plan(&[bob], ContentEncryption::Aes256Gcm);
        for sealed in [draft.signed().unwrap(), draft.encrypt(&plan, true).unwrap()] {
            assert_eq!((sealed.is_signed(), sealed.form()), (true, Some(Form::Opaque)));
            let octets = sealed.rope().to_bytes();
            assert!(canonical::is_seven_bit_safe(&octets));
            let opened = open(&pki, &[bob], octets);
            assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
            assert_eq!(opened.content, inner);
        }
    }
    let opened = open(&pki, &[bob], encrypted(&[bob], ContentEncryption::Aes256Cbc, message.clone()));
    assert_eq!((opened.verdict.result, opened.message), (SmimeResult::None, message));
}

#[test]
fn what_can_be_made_safe_is_signed_in_the_form_asked_for() {
    let pki = people(NewKey::P256);
    for form in [Form::Clear, Form::Opaque] {
        let draft = signed_draft(&pki, pki.leaf(ALICE).unwrap(), form, mail());
        assert_eq!((draft.form(), draft.signed().unwrap().form()), (Some(form), Some(form)));
    }
}

#[test]
fn a_label_alone_is_no_signature() {
    let labelled = "From: alice@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b; micalg=sha-256;\r\n \
        protocol=\"application/pkcs7-signature\"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\n\
        Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n";
    assert!(!Draft::new(&entity(labelled)).unwrap().is_signed());
}

#[test]
fn nothing_is_sealed_for_nobody_or_called_signed_unsigned() {
    let draft = Draft::new(&entity(mail())).unwrap();
    assert_eq!(draft.signed().unwrap_err(), SealError::NotSigned);
    let nobody = EncryptPlan { recipients: Vec::new(), content: ContentEncryption::Aes256Gcm, derive_cek: false };
    assert_eq!(draft.encrypt(&nobody, true).unwrap_err(), SealError::NoRecipient);
}

#[test]
fn the_self_check_refuses_a_signature_that_another_key_made() {
    let pki = people(NewKey::P256);
    let (alice, mallory) = (pki.leaf(ALICE).unwrap(), pki.leaf(MALLORY).unwrap());
    for form in [Form::Clear, Form::Opaque] {
        let signing = Draft::new(&entity(mail())).unwrap().sign(sign_plan(&pki, alice, form)).unwrap();
        let crate::keys::KeyOperation::Sign { scheme, message, .. } = signing.operation() else { panic!() };
        let other = crate::keys::KeyOperation::Sign { key: key_id(mallory), scheme, message };
        let answer = perform(&holder(&[mallory]), other).unwrap();
        assert!(matches!(signing.finish(answer, true), Err(SealError::SelfCheck(_))));
    }
}

#[test]
fn an_answer_of_the_wrong_kind_is_an_error() {
    let pki = people(NewKey::P256);
    let signing =
        Draft::new(&entity(mail())).unwrap().sign(sign_plan(&pki, pki.leaf(ALICE).unwrap(), Form::Clear)).unwrap();
    let answer = KeyAnswer::Cek(substitute());
    assert!(matches!(signing.finish(answer, true), Err(SealError::Key(KeyError::Unsuitable(_)))));
}

#[test]
fn the_self_check_finds_another_content_cipher_or_recipient() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let entity = Rope::from(Bytes::from_static(b"Content-Type: text/plain\r\n\r\nhello\r\n"));
    let cek = random_cek(ContentEncryption::Aes256Gcm).unwrap();
    let plan = encrypt_plan(&[bob], ContentEncryption::Aes256Gcm);
    let seal = |plan: &EncryptPlan, octets: &Rope| {
        let recipients: Vec<_> = plan.recipients.iter().map(|(certificate, scheme)| (certificate, *scheme)).collect();
        enveloped::seal(octets.to_bytes().to_vec(), plan.content, &recipients, &cek).unwrap()
    };
    assert_eq!(check_envelope(&seal(&plan, &entity), &plan, &cek, &entity), Ok(()));
    for other in
        ["Content-Type: text/plain\r\n\r\nhellx\r\n", "Content-Type: text/plain\r\n\r\nhello\r\nmore\r\n", "short"]
    {
        let other = Rope::from(Bytes::from_static(other.as_bytes()));
        assert!(check_envelope(&seal(&plan, &other), &plan, &cek, &entity).is_err());
    }
    for people in [&[alice][..], &[alice, bob], &[bob, alice]] {
        let other = encrypt_plan(people, ContentEncryption::Aes256Gcm);
        assert!(check_envelope(&seal(&other, &entity), &plan, &cek, &entity).is_err());
    }
    let cbc = encrypt_plan(&[bob], ContentEncryption::Aes256Cbc);
    assert!(check_envelope(&seal(&cbc, &entity), &plan, &cek, &entity).is_err());
}

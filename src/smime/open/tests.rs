use proptest::prelude::*;

use super::*;
use crate::cms::algorithm::{ContentEncryption, Digest};
use crate::cms::signed::{self, SignParameters, SignedData};
use crate::keys::SoftwareKeys;
use crate::pki::authority::{DemoPki, Issued, NewKey, Recipe, issue_cached};
use crate::smime::seal::{Draft, Form};
use crate::smime::testing::*;
use crate::smime::verdict::SmimeResult;

mod layers;
mod post_quantum;
mod protected;

use base64::Engine;

fn base64(octets: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(octets);
    text.as_bytes().chunks(76).map(|line| format!("{}\r\n", std::str::from_utf8(line).unwrap())).collect()
}

/// The CMS object of a message that `testing` sealed.
fn object(message: &Bytes) -> Bytes {
    entity(message.clone()).decoded_body().unwrap()
}

fn pkcs7_message(object: &[u8]) -> String {
    format!(
        "From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Supper\r\nMIME-Version: 1.0\r\n{}",
        pkcs7_entity(object)
    )
}

fn pkcs7_entity(object: &[u8]) -> String {
    format!(
        "Content-Type: application/pkcs7-mime; name=smime.p7m\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        base64(object)
    )
}

fn is_encrypted_layer_open(opened: &Opened) -> Option<bool> {
    opened.verdict.layers.iter().find_map(|layer| match layer {
        Layer::Encrypted { outcome, .. } => Some(outcome.is_ok()),
        _ => None,
    })
}

#[test]
fn plain_mail_is_handed_on_as_it_is() {
    let pki = people(NewKey::P256);
    let opened = open(&pki, &[pki.leaf(BOB).unwrap()], mail());
    assert_eq!(opened.message, mail());
    assert_eq!(opened.verdict.result, SmimeResult::None);
    assert!(opened.verdict.layers.is_empty() && !opened.verdict.decrypted && opened.operations == 0);
}

#[test]
fn a_clear_signature_is_verified_and_delivered_octet_for_octet() {
    let pki = people(NewKey::P256);
    let alice = pki.leaf(ALICE).unwrap();
    let message = signed(&pki, alice, Form::Clear, mail());
    let opened = open(&pki, &[], message.clone());
    assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
    assert_eq!(opened.verdict.signer.as_ref().unwrap().mailbox().to_string(), ALICE);
    assert_eq!(opened.verdict.signer.as_ref().unwrap().certificate(), &alice.certificate);
    assert_eq!(opened.message, message);
    let [announced] = opened.announced.as_slice() else { panic!("{:?}", opened.announced) };
    assert_eq!(announced.signer.certificate(), &alice.certificate);
    let reads = announced.capabilities.as_ref().unwrap();
    assert_eq!(reads.content, [ContentEncryption::Aes256Gcm, ContentEncryption::Aes128Cbc]);
    assert_eq!((announced.signing_time, announced.path.leaf()), (Some(now()), &alice.certificate));
    assert!(opened.verdict.notes.iter().any(|note| note == "revocation: not checked"));
}

#[test]
fn one_changed_octet_of_the_content_makes_the_signature_fail() {
    let pki = people(NewKey::P256);
    for form in [Form::Clear, Form::Opaque] {
        let message = signed(&pki, pki.leaf(ALICE).unwrap(), form, mail());
        let tampered = match form {
            Form::Clear => String::from_utf8(message.to_vec()).unwrap().replace("Bring bread", "Bring braad"),
            Form::Opaque => {
                let mut object = object(&message).to_vec();
                let at = memchr::memmem::find(&object, b"bread").unwrap();
                object[at + 2] ^= 1;
                pkcs7_message(&object)
            }
        };
        let opened = open(&pki, &[], tampered);
        assert_eq!(opened.verdict.result, SmimeResult::Fail);
        assert!(opened.verdict.signer.is_none() && opened.announced.is_empty());
    }
}

#[test]
fn sign_in_encrypt_in_sign_is_undone_layer_by_layer() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let inner = signed_draft(&pki, alice, Form::Clear, mail());
    let sealed = inner.encrypt(&encrypt_plan(&[bob], ContentEncryption::Aes256Cbc), true).unwrap().rope().to_bytes();
    let message = signed(&pki, alice, Form::Clear, sealed);
    let opened = open(&pki, &[bob], message);
    assert_eq!(opened.verdict.layers.len(), 3, "{:?}", opened.verdict.layers);
    assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
    assert!(!opened.verdict.unauthenticated && opened.verdict.decrypted);
    assert_eq!(entity(opened.message).content_type().unwrap().essence, "multipart/signed");
}

#[test]
fn a_signature_outside_of_the_encryption_alone_proves_no_author() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let stolen = encrypted(&[bob], ContentEncryption::Aes256Cbc, mail());
    let opened = open(&pki, &[bob], signed(&pki, alice, Form::Opaque, stolen));
    assert_eq!(is_encrypted_layer_open(&opened), Some(true));
    assert_eq!(opened.verdict.result, SmimeResult::Neutral);
    assert!(opened.verdict.unauthenticated && opened.verdict.signer.is_none());
}

#[test]
fn what_was_decrypted_comes_out_fresh_with_the_outer_fields() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let opened = open(&pki, &[bob], encrypted(&[bob], ContentEncryption::Aes256Gcm, mail()));
    assert_eq!(opened.message, mail());
    assert_eq!(opened.verdict.result, SmimeResult::None);
    assert!(opened.verdict.decrypted && !opened.verdict.unauthenticated);
    assert_eq!(opened.operations, 1);
    assert_eq!(opened.cek_digests.len(), 1);
}

#[test]
fn a01_a_cms_object_below_the_root_is_never_decrypted() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let stolen = pkcs7_entity(&object(&encrypted(&[bob], ContentEncryption::Aes128Cbc, mail())));
    let other = "Content-Type: text/html\r\n\r\n<img src=\"http://attacker/\r\n";
    let mut tried = 0;
    for essence in
        ["multipart/mixed", "multipart/alternative", "multipart/related", "multipart/report", "multipart/unknown"]
    {
        for parts in [vec![other, &stolen, other], vec![stolen.as_str()], vec![&stolen, other], vec![other, &stolen]] {
            let body: String = parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect();
            let message = format!(
                "From: alice@example.org\r\nMIME-Version: 1.0\r\nContent-Type: {essence}; boundary=b\r\n\r\n{body}--b--\r\n"
            );
            refused(&pki, bob, &message);
            tried += 1;
        }
    }
    refused(&pki, bob, &format!("From: alice@example.org\r\nContent-Type: message/rfc822\r\n\r\n{stolen}"));
    refused(&pki, bob, &format!("From: alice@example.org\r\nContent-Type: text/plain\r\n\r\n{stolen}"));
    assert_eq!(tried, 20);
}

fn refused(pki: &DemoPki, bob: &Issued, message: &str) {
    let opened = open(pki, &[bob], message.to_owned());
    assert_eq!(opened.operations, 0, "{message}");
    assert!(!opened.verdict.decrypted, "{message}");
    assert_eq!(opened.message, message.as_bytes());
}

#[test]
fn a14_what_can_be_read_two_ways_is_never_decrypted() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let good = pkcs7_message(&object(&encrypted(&[bob], ContentEncryption::Aes256Gcm, mail())));
    assert!(open(&pki, &[bob], good.clone()).verdict.decrypted);
    let half = good.len() / 2;
    let odd = [
        good.replace("MIME-Version: 1.0\r\n", "MIME-Version: 1.0\r\nContent-Type: text/html\r\n"),
        good.replace(
            "Content-Transfer-Encoding: base64\r\n",
            "Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit\r\n",
        ),
        good.replace("name=smime.p7m", "name=smime.p7m; name=other.html"),
        format!("{}!{}", good.get(..half).unwrap(), good.get(half..).unwrap()),
        format!("{good}AAAA====\r\n"),
    ];
    for message in odd {
        assert_ne!(message, good);
        refused(&pki, bob, &message);
        assert_eq!(open(&pki, &[bob], message.clone()).verdict.result, SmimeResult::PermError, "{message}");
    }
}

/// Ciphertext blocks of a DER EnvelopedData: the last octets of the object.
fn blocks(object: &[u8], plain: usize) -> std::ops::Range<usize> {
    let length = (plain / 16 + 1) * 16;
    object.len() - length..object.len()
}

#[test]
fn a02_spliced_cbc_is_never_authenticated() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let keys = holder(&[bob]);
    let signed = signed_draft(&pki, alice, Form::Clear, mail());
    let plain = Draft::new(&entity(mail())).unwrap();
    let mut opened_some = 0;
    for (draft, count) in [(&signed, 500_usize), (&plain, 500)] {
        let plan = encrypt_plan(&[bob], ContentEncryption::Aes128Cbc);
        let message = draft.encrypt(&plan, true).unwrap().rope().to_bytes();
        let honest = open_with(context(&pki, &[bob]), &keys, message.clone());
        let object = object(&message);
        let range = blocks(&object, draft_len(&pki, draft));
        let of = range.len() / 16;
        for seed in 0..count {
            let mut spliced = object.to_vec();
            splice(&mut spliced[range.clone()], of, seed);
            if spliced == object {
                continue;
            }
            let opened = open_with(context(&pki, &[bob]), &keys, pkcs7_message(&spliced));
            opened_some += usize::from(opened.verdict.decrypted);
            if opened.verdict.result == SmimeResult::Pass {
                // The splice fell on what surrounds the signed part: not one octet of it comes out.
                assert_eq!(opened.content, honest.content, "seed {seed}");
                assert_eq!(before_signature(&opened), before_signature(&honest), "seed {seed}");
                continue;
            }
            assert!(opened.verdict.signer.is_none(), "seed {seed}");
            assert!(!opened.verdict.decrypted || opened.verdict.unauthenticated, "seed {seed}");
        }
    }
    assert!(opened_some > 300, "the splices reach the decryption: {opened_some}");
}

/// Moves, doubles or flips blocks, past the first so that the header mostly stays.
fn splice(ciphertext: &mut [u8], of: usize, seed: usize) {
    let at = |n: usize| (1 + n % (of - 2)) * 16;
    let (from, to) = (at(seed * 7 + 3), at(seed * 13 + 5));
    match seed % 3 {
        0 => ciphertext.copy_within(from..from + 16, to),
        1 => ciphertext[from + seed % 16] ^= 1 << (seed % 8),
        _ => (0..16).for_each(|n| ciphertext.swap(from + n, to + n)),
    }
}

/// Length of the entity that a draft puts into its envelope.
fn draft_len(pki: &DemoPki, draft: &Draft) -> usize {
    let plan = encrypt_plan(&[pki.leaf(BOB).unwrap()], ContentEncryption::Aes256Gcm);
    let message = draft.encrypt(&plan, false).unwrap().rope().to_bytes();
    let delivered = entity(open(pki, &[pki.leaf(BOB).unwrap()], message).message);
    let fields = delivered.header.fields.iter().filter(|field| field.name().starts_with("Content-"));
    fields.map(|field| field.raw.len()).sum::<usize>() + 2 + delivered.body.len()
}

/// The parts of a delivered clear-signed message without the boundary, which hangs on the signature's octets.
fn before_signature(opened: &Opened) -> String {
    let text = String::from_utf8_lossy(&opened.message).into_owned();
    let boundary = entity(opened.message.clone()).content_type().unwrap().parameter("boundary").unwrap().to_owned();
    let text = text.replace(&boundary, "b");
    let (_, mime) = text.split_once("MIME-Version").unwrap();
    mime.split("name=smime.p7s").next().unwrap().to_owned()
}

#[test]
fn a03_a_key_does_one_operation_per_message() {
    let pki = people(NewKey::Rsa2048);
    let bob = pki.leaf(BOB).unwrap();
    let twice = {
        let plan = encrypt_plan(&[bob, bob], ContentEncryption::Aes256Gcm);
        Draft::new(&entity(mail())).unwrap().encrypt(&plan, false).unwrap().rope().to_bytes()
    };
    let mut opener = Opener::new(entity(twice), context(&pki, &[bob]), substitute);
    let Step::Key(KeyOperation::Unwrap { key, .. }) = opener.step(None) else {
        panic!("an RSA operation was expected")
    };
    assert_eq!(key, key_id(bob));
    let wrong = Ok(KeyAnswer::Cek(Cek::new(vec![7; 32])));
    let Step::Done(opened) = opener.step(Some(wrong)) else { panic!("a second operation with the same key") };
    assert!(!opened.verdict.decrypted);
    assert_eq!(opened.operations, 1);
}

#[test]
fn a03_whatever_fails_the_outcome_is_the_same() {
    let pki = people(NewKey::Rsa2048);
    let bob = pki.leaf(BOB).unwrap();
    for content in [ContentEncryption::Aes256Gcm, ContentEncryption::Aes128Cbc] {
        let message = encrypted(&[bob], content, mail());
        let outcomes: Vec<String> = [
            Ok(KeyAnswer::Cek(Cek::new(vec![7; content.key_len()]))),
            Ok(KeyAnswer::Cek(Cek::new(vec![9; content.key_len()]))),
            Err(KeyError::Unsuitable("")),
            Err(KeyError::Unknown),
        ]
        .into_iter()
        .map(|answer| {
            let mut opener = Opener::new(entity(message.clone()), context(&pki, &[bob]), substitute);
            let Step::Key(_) = opener.step(None) else { panic!() };
            let Step::Done(opened) = opener.step(Some(answer)) else { panic!() };
            assert_eq!(opened.message, message, "the octets as received");
            format!("{:?} {:?} {:?}", opened.verdict.result, opened.verdict.reason, opened.verdict.layers)
        })
        .collect();
        assert!(outcomes.iter().all(|one| *one == outcomes[0]), "{outcomes:#?}");
    }
}

#[test]
fn a_key_holder_that_does_not_answer_is_a_temporary_error() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let message = encrypted(&[bob], ContentEncryption::Aes256Gcm, mail());
    let mut opener = Opener::new(entity(message), context(&pki, &[bob]), substitute);
    let Step::Key(_) = opener.step(None) else { panic!() };
    let Step::Done(opened) = opener.step(Some(Err(KeyError::Unavailable("down".into())))) else { panic!() };
    assert_eq!(opened.verdict.result, SmimeResult::TempError);
}

#[test]
fn a30_only_ones_own_recipient_info_opens() {
    let pki = people(NewKey::P256);
    let all: Vec<&Issued> = [ALICE, BOB, MALLORY].iter().map(|one| pki.leaf(one).unwrap()).collect();
    let mut combinations = 0;
    for set in 1..8_usize {
        let to: Vec<&Issued> =
            all.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0).map(|(_, one)| *one).collect();
        let message = encrypted(&to, ContentEncryption::Aes256Gcm, mail());
        let mut digests = Vec::new();
        for (bit, one) in all.iter().enumerate() {
            let opened = open(&pki, &[one], message.clone());
            assert_eq!(opened.verdict.decrypted, set & (1 << bit) != 0);
            assert_eq!(opened.operations, usize::from(opened.verdict.decrypted), "a key that is not named is not used");
            if !opened.verdict.decrypted {
                assert_eq!(opened.message, message);
            }
            digests.extend(opened.cek_digests);
            combinations += 1;
        }
        assert!(digests.iter().all(|one| *one == digests[0]), "one CEK for all");
    }
    assert_eq!(combinations, 21);
}

#[test]
fn a30_a_recipient_info_with_a_garbage_key_opens_nothing() {
    let pki = people(NewKey::Rsa2048);
    let (bob, mallory) = (pki.leaf(BOB).unwrap(), pki.leaf(MALLORY).unwrap());
    // Mallory's copy of a mail to Bob, with a RecipientInfo of his own whose key is garbage.
    let message = encrypted(&[bob, mallory], ContentEncryption::Aes128Cbc, mail());
    let object = object(&message);
    let infos = envelope(&entity(message), &MimeLimits::default(), Legacy::default()).unwrap().recipients;
    let info = infos.iter().find(|info| info.id.as_ref().is_some_and(|id| id.names(&mallory.certificate))).unwrap();
    let KeyOperation::Unwrap { encrypted, .. } =
        info.operation(key_id(mallory), ContentEncryption::Aes128Cbc, Cek::new(vec![0; 16])).unwrap()
    else {
        panic!()
    };
    let at = memchr::memmem::find(&object, &encrypted).unwrap();
    let mut forged = object.to_vec();
    forged[at + 5..at + 200].fill(0x11);
    let opened = open(&pki, &[mallory], pkcs7_message(&forged));
    assert!(!opened.verdict.decrypted);
    assert_eq!(opened.operations, 1);
    assert!(open(&pki, &[bob], pkcs7_message(&forged)).verdict.decrypted);
}

#[test]
fn operations_are_capped() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let message = encrypted(&[alice, bob], ContentEncryption::Aes256Gcm, mail());
    let mut context = context(&pki, &[alice, bob]);
    context.operations = 1;
    let ids = recipient_ids(&entity(message.clone()), &MimeLimits::default()).unwrap();
    let last = if ids[1].names(&bob.certificate) { bob } else { alice };
    // Only the key of the RecipientInfo that comes last is there.
    let opened = open_with(context, &holder(&[last]), message);
    assert_eq!(opened.operations, 1);
    assert!(!opened.verdict.decrypted);
}

#[test]
fn a13_layers_are_capped() {
    let pki = people(NewKey::P256);
    let alice = pki.leaf(ALICE).unwrap();
    let plan = || sign_plan(&pki, alice, Form::Opaque);
    let mut inner = Bytes::from_static(b"Content-Type: text/plain\r\n\r\nhello\r\n");
    for _ in 0..5 {
        let plan = plan();
        let parameters = parameters(&plan.certificate, &plan.chain, plan.scheme);
        let object = sign(alice, &parameters, &inner, true);
        inner = pkcs7_entity(&object).into();
    }
    let message = format!("From: alice@example.org\r\n{}", std::str::from_utf8(&inner).unwrap());
    let opened = open(&pki, &[], message);
    assert_eq!(opened.verdict.layers.len(), 4);
    assert_eq!(opened.verdict.result, SmimeResult::PermError);
}

fn parameters<'a>(
    signer: &'a Certificate,
    chain: &'a [Certificate],
    scheme: crate::cms::algorithm::SignatureScheme,
) -> SignParameters<'a> {
    SignParameters {
        signer,
        chain,
        scheme,
        digest: Digest::Sha256,
        signing_time: now(),
        capabilities: &[],
        encryption_certificate: None,
    }
}

fn sign(signer: &Issued, parameters: &SignParameters<'_>, content: &Bytes, opaque: bool) -> Bytes {
    let digest = signed::digest(Digest::Sha256, content);
    let prepared = signed::prepare(parameters, &digest, opaque.then(|| content.clone())).unwrap();
    let operation = KeyOperation::Sign { key: key_id(signer), scheme: parameters.scheme, message: prepared.to_sign() };
    let Ok(KeyAnswer::Signature(signature)) = perform(&holder(&[signer]), operation) else { panic!() };
    prepared.finish(&signature).unwrap()
}

const CONTENT: &str = "Content-Type: text/plain\r\n\r\nPay Mallory.\r\n";

fn multipart(header: &str, parts: &[String]) -> String {
    let body: String = parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect();
    format!(
        "{header}MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b; micalg=sha-256;\r\n \
         protocol=\"application/pkcs7-signature\"\r\n\r\n{body}--b--\r\n"
    )
}

fn signature_part(object: &[u8]) -> String {
    format!(
        "Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        base64(object)
    )
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn a07_of_the_hostile_signed_set_nothing_is_valid() {
    let pki = people(NewKey::P256);
    let (alice, mallory) = (pki.leaf(ALICE).unwrap(), pki.leaf(MALLORY).unwrap());
    let scheme = scheme_of(alice);
    let chain = [pki.intermediate.certificate.clone()];
    let content = Bytes::from_static(CONTENT.as_bytes());
    let other = Bytes::from_static(b"Content-Type: text/plain\r\n\r\nPay nobody.\r\n");
    let by_alice = parameters(&alice.certificate, &chain, scheme);
    let by_mallory = parameters(&mallory.certificate, &chain, scheme);
    let good = signature_part(&sign(alice, &by_alice, &content, false));
    let from = "From: alice@example.org\r\n";
    let text = CONTENT.to_owned();
    let pair = |header: &str, signature: &str| multipart(header, &[text.clone(), signature.to_owned()]);
    assert_eq!(open(&pki, &[], pair(from, &good)).verdict.result, SmimeResult::Pass, "the honest one passes");

    let mallorys = signature_part(&sign(mallory, &by_mallory, &content, false));
    let outsider = issue_cached(&Recipe::mailbox(ALICE, now(), NewKey::P256), None);
    let mut expired = Recipe::mailbox(ALICE, now(), NewKey::P256);
    expired.not_after = "2026-11-22T11:30:00Z".parse().unwrap();
    let expired = issue_cached(&expired, Some(&pki.intermediate));
    let mut tls = Recipe::mailbox(ALICE, now(), NewKey::P256);
    tls.email_protection = Some(false);
    let tls = issue_cached(&tls, Some(&pki.intermediate));
    let mut encryption_only = Recipe::mailbox(ALICE, now(), NewKey::P256);
    encryption_only.key_usage = vec!["keyAgreement"];
    let encryption_only = issue_cached(&encryption_only, Some(&pki.intermediate));
    let by = |issued: &Issued| {
        signature_part(&sign(issued, &parameters(&issued.certificate, &chain, scheme), &content, false))
    };
    let opaque_other = sign(alice, &by_alice, &other, true);
    let opaque_same = sign(alice, &by_alice, &content, true);
    let good_object = sign(alice, &by_alice, &content, false);
    let mixed = |parts: &str| {
        format!("{from}MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n{parts}--m--\r\n")
    };
    let whole = pair("", &good);
    let mut forged_signature = good_object.to_vec();
    let last = forged_signature.len() - 3;
    forged_signature[last] ^= 1;

    let hostile: Vec<(&str, String)> = vec![
        ("another content", multipart(from, &["Content-Type: text/plain\r\n\r\nPay Alice.\r\n".into(), good.clone()])),
        ("another's signature", pair(from, &mallorys)),
        ("another's From", pair("From: bob@example.net\r\n", &good)),
        ("a display name that looks like Alice", pair("From: \"alice@example.org\" <mallory@example.com>\r\n", &good)),
        ("two From fields, Alice first", pair("From: alice@example.org\r\nFrom: mallory@example.com\r\n", &good)),
        ("two From fields, Alice last", pair("From: mallory@example.com\r\nFrom: alice@example.org\r\n", &good)),
        ("two mailboxes in From", pair("From: alice@example.org, mallory@example.com\r\n", &good)),
        ("no From", pair("Sender: alice@example.org\r\n", &good)),
        ("From in a group", pair("From: x: alice@example.org, mallory@example.com;\r\n", &good)),
        ("Sender is Alice", pair("From: mallory@example.com\r\nSender: alice@example.org\r\n", &good)),
        ("self-issued certificate", pair(from, &by(&outsider))),
        ("expired certificate", pair(from, &by(&expired))),
        ("certificate for TLS", pair(from, &by(&tls))),
        ("certificate for encryption", pair(from, &by(&encryption_only))),
        ("detached with a content of its own", pair(from, &signature_part(&opaque_other))),
        ("detached with the same content inside", pair(from, &signature_part(&opaque_same))),
        ("opaque without content", format!("{from}{}", pkcs7_entity(&good_object))),
        ("three parts", multipart(from, &[CONTENT.into(), good.clone(), CONTENT.into()])),
        (
            "hidden first part",
            multipart(
                from,
                &["Content-Type: text/html\r\n\r\nPay Mallory twice.\r\n".into(), CONTENT.into(), good.clone()],
            ),
        ),
        ("one part", multipart(from, &[CONTENT.into()])),
        (
            "signature part of another type",
            pair(from, &good.replace("application/pkcs7-signature", "application/octet-stream")),
        ),
        (
            "another protocol",
            pair(from, &good)
                .replace("protocol=\"application/pkcs7-signature\"", "protocol=\"application/pgp-signature\""),
        ),
        (
            "signed part beside another",
            mixed(&format!("--m\r\nContent-Type: text/plain\r\n\r\nPay Mallory.\r\n--m\r\n{whole}\r\n")),
        ),
        ("signed part alone in a mixed", mixed(&format!("--m\r\n{whole}\r\n"))),
        ("signed mail attached", format!("{from}Content-Type: message/rfc822\r\n\r\n{}", pair(from, &good))),
        (
            "two Content-Types",
            pair(from, &good).replace("MIME-Version: 1.0\r\n", "Content-Type: text/html\r\nMIME-Version: 1.0\r\n"),
        ),
        ("forged signature value", pair(from, &signature_part(&forged_signature))),
        (
            "garbage signature",
            pair(from, &signature_part(b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80")),
        ),
        ("empty signature", pair(from, &signature_part(b""))),
        ("certificates only", pair(from, &signature_part(&without_signers(&good_object)))),
    ];
    assert!(hostile.len() >= 26);
    for (what, message) in hostile {
        let opened = open(&pki, &[], message);
        assert_ne!(opened.verdict.result, SmimeResult::Pass, "{what}");
        assert!(opened.verdict.signer.is_none() && opened.announced.is_empty(), "{what}");
    }
}

/// A SignedData of the same shape without signers: as a certs-only message is.
fn without_signers(_object: &[u8]) -> Vec<u8> {
    let oid = |last: u8| [&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07][..], &[last]].concat();
    let data = [&[0x30, 0x0b][..], &oid(1)].concat();
    let body = [&[0x02, 0x01, 0x01, 0x31, 0x00][..], &data, &[0x31, 0x00]].concat();
    let signed = [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat();
    let explicit = [&[0xa0, u8::try_from(signed.len()).unwrap()][..], &signed].concat();
    let whole = [oid(2), explicit].concat();
    [&[0x30, u8::try_from(whole.len()).unwrap()][..], &whole].concat()
}

#[test]
fn a07_honest_forms_pass() {
    let pki = people(NewKey::P256);
    let alice = pki.leaf(ALICE).unwrap();
    for form in [Form::Clear, Form::Opaque] {
        let opened = open(&pki, &[], signed(&pki, alice, form, mail()));
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
    }
    let upper =
        String::from_utf8(signed(&pki, alice, Form::Clear, mail()).to_vec()).unwrap().replace("<alice@", "<Alice@");
    assert_eq!(open(&pki, &[], upper).verdict.result, SmimeResult::Pass);
}

#[test]
fn an_anchor_vouches_for_its_domains_alone() {
    let pki = people(NewKey::P256);
    let message = signed(&pki, pki.leaf(ALICE).unwrap(), Form::Clear, mail());
    for (domain, result) in [("example.org", SmimeResult::Pass), ("example.com", SmimeResult::Policy)] {
        let mut context = context(&pki, &[]);
        let scope = crate::pki::path::AnchorScope::Domains(vec![crate::address::Domain::parse(domain).unwrap()]);
        let anchor = crate::pki::path::TrustAnchor { certificate: pki.root.certificate.clone(), scope };
        context.trust = Arc::new(TrustSet { anchors: vec![anchor], ..TrustSet::default() });
        assert_eq!(open_with(context, &SoftwareKeys::default(), message.clone()).verdict.result, result, "{domain}");
    }
}

#[test]
fn a16_what_is_decrypted_obeys_the_line_rules() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let long = "x".repeat(2_000);
    let bodies = [
        "a\n.\nMAIL FROM:<x@y>\n",
        "a\n.\r\nb",
        "a\r.\r\nb",
        "a\r\n.\rb",
        "a\r\n\0.\r\nb",
        "\n.\r\n",
        "\r.\r",
        "a\rb\nc\0d",
        long.as_str(),
    ];
    for body in bodies {
        for essence in [
            "text/plain",
            "application/octet-stream",
            "multipart/signed; boundary=x; protocol=\"application/pgp-signature\"",
        ] {
            let content = format!("Content-Type: {essence}\r\n\r\n{body}");
            let message = envelope_of(bob, content.as_bytes());
            let opened = open(&pki, &[bob], message);
            assert!(opened.verdict.decrypted, "{content:?}");
            assert!(fresh::is_well_lined(&opened.message), "{content:?}");
            assert!(opened.verdict.notes.iter().any(|note| note.contains("decrypted content")), "{content:?}");
        }
    }
}

/// An envelope around octets as they are, which `Draft` would not do.
#[test]
fn a16_where_repair_breaks_an_inner_signature_the_verdict_stays_and_says_so() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let chain = [pki.intermediate.certificate.clone()];
    let content = Bytes::from_static(b"Content-Type: text/plain\r\n\r\nbare\nlines\r\n");
    let object = sign(alice, &parameters(&alice.certificate, &chain, scheme_of(alice)), &content, false);
    let inner = multipart("", &[String::from_utf8(content.to_vec()).unwrap(), signature_part(&object)]);
    let opened = open(&pki, &[bob], envelope_of(bob, inner.as_bytes()));
    assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
    assert!(fresh::is_well_lined(&opened.message));
    assert!(opened.verdict.notes.iter().any(|note| note.contains("may no longer verify")));
}

#[test]
fn decrypted_octets_that_are_no_mime_entity_are_a_failed_decryption() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    for garbage in [&b"This is some sample content."[..], b"", b"\x00\x01\x02", b"\r\n\r\nno header"] {
        let opened = open(&pki, &[bob], envelope_of(bob, garbage));
        assert!(!opened.verdict.decrypted, "{garbage:?}");
        assert_eq!(opened.operations, 1);
    }
}

#[test]
fn inner_fields_that_are_not_mimes_do_not_come_out() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let content =
        "Content-Type: text/plain\r\nFrom: ceo@example.net\r\nAuthentication-Results: mx; smime=pass\r\n\r\nhello\r\n";
    let opened = open(&pki, &[bob], envelope_of(bob, content.as_bytes()));
    let text = String::from_utf8(opened.message.to_vec()).unwrap();
    assert!(opened.verdict.decrypted);
    assert_eq!(text.matches("From:").count(), 1);
    assert!(!text.contains("ceo@") && !text.contains("smime=pass"));
}

#[test]
fn compressed_data_that_is_broken_is_named_and_not_opened() {
    let pki = people(NewKey::P256);
    let object = [
        &[0x30, 0x0f, 0x06, 0x0b][..],
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x09],
        &[0xa0, 0x00],
    ]
    .concat();
    let opened = open(&pki, &[], pkcs7_message(&object));
    assert!(matches!(opened.verdict.layers.as_slice(), [Layer::Compressed { outcome: Err(_) }]));
    assert_eq!(opened.verdict.result, SmimeResult::PermError);
}

#[test]
fn recipients_are_named_without_opening() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let message = entity(encrypted(&[alice, bob], ContentEncryption::Aes256Gcm, mail()));
    let ids = recipient_ids(&message, &MimeLimits::default()).unwrap();
    assert_eq!(ids.len(), 2);
    assert!([alice, bob].iter().all(|one| ids.iter().any(|id| id.names(&one.certificate))));
    assert!(recipient_ids(&entity(mail()), &MimeLimits::default()).is_none());
    assert!(recipient_ids(&entity(signed(&pki, alice, Form::Opaque, mail())), &MimeLimits::default()).is_none());
}

#[test]
fn the_kind_of_an_object_is_read_from_der_and_ber() {
    let oid = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    for head in [&[0x30, 0x80][..], &[0x30, 0x0b], &[0x30, 0x82, 0x01, 0x00], &[0x30, 0x81, 0x90]] {
        assert_eq!(object_kind(&[head, &oid].concat()), Some(ObjectKind::Signed));
    }
    for broken in [&[][..], &[0x30], &[0x30, 0x89], &[0x30, 0x80, 0x06, 0x40, 0x2a], &[0x31, 0x80]] {
        assert_eq!(object_kind(broken), None);
    }
}

#[test]
fn fuzz_seeds() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let seeds = [
        mail(),
        encrypted(&[bob], ContentEncryption::Aes256Gcm, mail()),
        signed(&pki, alice, Form::Clear, mail()),
        signed(&pki, alice, Form::Opaque, mail()),
    ];
    for seed in seeds {
        fuzz_open(&seed);
        for cut in (0..seed.len()).step_by(97) {
            fuzz_open(&seed[..cut]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn fuzz_octets(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz_open(&octets);
    }
    #[test]
    fn fuzz_objects(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_open(pkcs7_message(&octets).as_bytes());
        fuzz_open(multipart("From: a@example.org\r\n", &[CONTENT.into(), signature_part(&octets)]).as_bytes());
    }
}

#[test]
fn t16_a_wrong_clock_never_makes_a_signature_valid() {
    let pki = people(NewKey::P256);
    let alice = pki.leaf(ALICE).unwrap();
    let chain = [&alice.certificate, &pki.intermediate.certificate, &pki.root.certificate];
    let from = chain.iter().map(|one| one.not_before()).max().unwrap();
    let to = chain.iter().map(|one| one.not_after()).min().unwrap();
    let day = jiff::SignedDuration::from_hours(24);
    let around =
        [from, now(), to].into_iter().flat_map(|time| [-5 * 365, -1, 0, 1, 5 * 365].map(|days| time + day * days));
    let message = signed(&pki, alice, Form::Clear, mail());
    let (mut valid, mut invalid) = (0, 0);
    for at in around {
        let opened = open_with(OpenContext { at, ..context(&pki, &[]) }, &holder(&[]), message.clone());
        let inside = (from..=to).contains(&at);
        assert_eq!(opened.verdict.result == SmimeResult::Pass, inside, "{at}: {}", opened.verdict.reason);
        assert_eq!(opened.verdict.signer.is_some() && !opened.announced.is_empty(), inside, "{at}");
        if inside { valid += 1 } else { invalid += 1 }
    }
    assert!(valid >= 3 && invalid >= 6, "{valid} {invalid}");
}

#[test]
fn a02_in_cbc_nothing_around_what_a_checked_signature_covers_is_delivered() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let inner = String::from_utf8(signed(&pki, alice, Form::Clear, mail()).to_vec()).unwrap();
    let inner = inner.split_at(inner.find("Content-Type:").unwrap()).1;
    // Room for a gadget: octets that Alice's signature does not cover, and that the outer one does, whose algorithm nobody knows.
    let inner = inner.replace("This is a cryptographically signed message", "<img src=\"//evil.example/");
    assert!(inner.contains("evil.example"));
    let chain = [pki.intermediate.certificate.clone()];
    let parameters = parameters(&alice.certificate, &chain, scheme_of(alice));
    let mut outer = sign(alice, &parameters, &Bytes::from(inner), true).to_vec();
    let oid = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let at = outer.windows(oid.len()).rposition(|window| window == oid).unwrap();
    outer[at + oid.len() - 1] = 0x7f;
    let message = encrypted(&[bob], ContentEncryption::Aes256Cbc, pkcs7_message(&outer));
    let opened = open(&pki, &[bob], message);
    assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
    let text = String::from_utf8(opened.message.to_vec()).unwrap();
    assert_eq!(entity(opened.message).content_type().unwrap().essence, "multipart/signed", "{text}");
    assert!(!text.contains("evil.example"), "{text}");
}

/// Each sealed mail as it is is good, and edits of any kind make nothing else good.
#[test]
fn fuzz_body_with_keys_holds_on_edits() {
    let mut state = 1_u64;
    let mut octet = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for which in 0..24_u8 {
        fuzz_open_sealed(&[which]);
        fuzz_open_sealed(&[which | 0x80]);
        for _ in 0..12 {
            // Within the first two kilobytes, few octets at a time.
            let edit = [which, octet() % 8, octet(), octet(), 1 + octet() % 8, octet()];
            fuzz_open_sealed(&edit);
        }
    }
}

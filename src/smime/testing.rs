//! People, messages and keys for the tests of this folder.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::open::{OpenContext, Opened, Opener, OwnKey, Step};
use super::seal::{Draft, EncryptPlan, Form, SignPlan};
use crate::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport, SignatureScheme};
use crate::cms::enveloped::RecipientScheme;
use crate::keys::{Cek, KeyAnswer, KeyHolder, KeyId, SoftwareKey, SoftwareKeys, Submission};
use crate::mime::entity::{Entity, MimeLimits};
use crate::pki::authority::{DemoPki, Issued, NewKey, demo_pki};
use crate::pki::path::{AnchorScope, TrustAnchor, TrustSet};

pub const ALICE: &str = "alice@example.org";
pub const BOB: &str = "bob@example.net";
pub const MALLORY: &str = "mallory@example.com";

pub fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// Alice, Bob and Mallory under one root, which all trust.
pub fn people(kind: NewKey) -> DemoPki {
    demo_pki(now(), &[ALICE, BOB, MALLORY], kind)
}

pub fn key_id(issued: &Issued) -> KeyId {
    KeyId::of_spki(issued.certificate.public_key().spki())
}

pub fn holder(people: &[&Issued]) -> SoftwareKeys {
    let mut keys = SoftwareKeys::default();
    for one in people {
        keys.insert(SoftwareKey::from_pkcs8(&one.pkcs8).unwrap());
    }
    keys
}

pub fn perform(keys: &SoftwareKeys, operation: crate::keys::KeyOperation) -> Result<KeyAnswer, crate::keys::KeyError> {
    match keys.submit(operation) {
        Submission::Ready(answer) => answer,
        Submission::Later(_) => unreachable!(),
    }
}

pub fn context(pki: &DemoPki, own: &[&Issued]) -> OpenContext {
    let trust = TrustSet {
        anchors: vec![TrustAnchor { certificate: pki.root.certificate.clone(), scope: AnchorScope::Global }],
        ..TrustSet::default()
    };
    let own = own.iter().map(|one| OwnKey { certificate: one.certificate.clone(), key: key_id(one) }).collect();
    OpenContext::new(own, Arc::new(trust), now())
}

pub fn entity(octets: impl Into<Bytes>) -> Entity {
    Entity::parse(octets.into(), &MimeLimits::default()).unwrap()
}

pub fn substitute() -> Cek {
    Cek::new(vec![0x5a; 32])
}

/// Opens with the keys of `own`, and tells how many operations were asked for.
pub fn open(pki: &DemoPki, own: &[&Issued], message: impl Into<Bytes>) -> Opened {
    open_with(context(pki, own), &holder(own), message)
}

pub fn open_with(context: OpenContext, keys: &SoftwareKeys, message: impl Into<Bytes>) -> Opened {
    let mut opener = Opener::new(entity(message), context, substitute);
    let mut answer = None;
    loop {
        match opener.step(answer.take()) {
            Step::Key(operation) => answer = Some(perform(keys, operation)),
            Step::Done(opened) => return *opened,
        }
    }
}

pub fn scheme_of(issued: &Issued) -> SignatureScheme {
    use crate::pki::public_key::KeyKind;
    match issued.certificate.public_key().kind() {
        KeyKind::Rsa { .. } => SignatureScheme::RsaPkcs1(Digest::Sha256),
        KeyKind::MlDsa(set) => SignatureScheme::MlDsa(set),
        _ => SignatureScheme::Ecdsa(Digest::Sha256),
    }
}

pub fn sign_plan(pki: &DemoPki, signer: &Issued, form: Form) -> SignPlan {
    SignPlan {
        key: key_id(signer),
        certificate: signer.certificate.clone(),
        chain: vec![pki.intermediate.certificate.clone()],
        encryption_certificate: None,
        scheme: scheme_of(signer),
        digest: scheme_of(signer).digest(),
        form,
        signing_time: now(),
        capabilities: vec![ContentEncryption::Aes256Gcm, ContentEncryption::Aes128Cbc],
        second: None,
    }
}

pub fn encrypt_plan(recipients: &[&Issued], content: ContentEncryption) -> EncryptPlan {
    let scheme = RecipientScheme {
        rsa: KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256),
        kdf: KeyDerivation::X963(Digest::Sha256),
    };
    EncryptPlan {
        recipients: recipients.iter().map(|one| (one.certificate.clone(), scheme)).collect(),
        content,
        derive_cek: false,
    }
}

/// Alice's clear signature.
pub fn sign_draft(pki: &DemoPki, draft: Draft) -> Draft {
    let alice = pki.leaf(ALICE).unwrap();
    let signing = draft.sign(sign_plan(pki, alice, Form::Clear)).unwrap();
    let answer = perform(&holder(&[alice]), signing.operation()).unwrap();
    signing.finish(answer, true).unwrap()
}

/// A message of Alice's whose encrypted content is `content`, as it is.
pub fn envelope_of(to: &Issued, content: &[u8]) -> Bytes {
    let plan = encrypt_plan(&[to], ContentEncryption::Aes256Gcm);
    let (certificate, scheme) = &plan.recipients[0];
    let cek = Cek::new(vec![3; 32]);
    let object = crate::cms::enveloped::seal(content.to_vec(), plan.content, &[(certificate, *scheme)], &cek).unwrap();
    let mut rope = crate::mime::rope::Rope::from(Bytes::from(format!(
        "From: {ALICE}\r\nTo: {BOB}\r\nSubject: Supper\r\nMIME-Version: 1.0\r\n"
    )));
    rope.append(super::seal::pkcs7_mime("authEnveloped-data", object));
    rope.to_bytes()
}

pub fn signed_draft(pki: &DemoPki, signer: &Issued, form: Form, message: impl Into<Bytes>) -> Draft {
    let signing = Draft::new(&entity(message)).unwrap().sign(sign_plan(pki, signer, form)).unwrap();
    let answer = perform(&holder(&[signer]), signing.operation()).unwrap();
    signing.finish(answer, true).unwrap()
}

pub fn signed(pki: &DemoPki, signer: &Issued, form: Form, message: impl Into<Bytes>) -> Bytes {
    signed_draft(pki, signer, form, message).signed().unwrap().rope().to_bytes()
}

pub fn encrypted(to: &[&Issued], content: ContentEncryption, message: impl Into<Bytes>) -> Bytes {
    Draft::new(&entity(message)).unwrap().encrypt(&encrypt_plan(to, content), true).unwrap().rope().to_bytes()
}

/// A small mail of Alice to Bob.
pub fn mail() -> Bytes {
    Bytes::from_static(
        b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Supper\r\nMessage-ID: <1@example.org>\r\n\
          MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nAt eight, then.\r\n.\r\nBring bread.\r\n",
    )
}

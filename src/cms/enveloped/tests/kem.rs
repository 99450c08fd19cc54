//! ML-KEM recipients.

use super::*;
use crate::cms::algorithm::{KeyWrap, MlKem};
use crate::cms::ber::Reader;
use crate::cms::signed::tests::now;
use crate::pki::authority::{Recipe, issue};

/// A certificate for an ML-KEM key: another key signs it.
fn kem_identity(set: MlKem) -> Issued {
    issue(&Recipe::mailbox("bob@example.org", now(), NewKey::MlKem(set)), Some(&identity(NewKey::P256)))
}

/// The first RecipientInfo of an envelope.
fn first_info(envelope: &Bytes) -> Element<'_> {
    let (_, content, _) = content_of(envelope, &[ID_ENVELOPED_DATA, ID_AUTH_ENVELOPED_DATA]).unwrap();
    let mut fields = content.reader();
    fields.small_integer("version").unwrap();
    fields.expect(tag::SET, "recipientInfos").unwrap().reader().element().unwrap()
}

#[test]
fn what_is_sealed_to_an_ml_kem_key_opens_beside_others() {
    let rsa = identity(NewKey::Rsa2048);
    for set in MlKem::ALL {
        let bob = kem_identity(set);
        for how in CIPHERS {
            let recipients = [(&bob.certificate, scheme(OAEP)), (&rsa.certificate, scheme(OAEP))];
            let envelope = EnvelopedData::parse(&sealed(CONTENT, how, &recipients), Legacy::default()).unwrap();
            assert_eq!(open_for(&envelope, &key(&bob), &bob.certificate).unwrap(), CONTENT);
            assert_eq!(open_for(&envelope, &key(&rsa), &rsa.certificate).unwrap(), CONTENT);
            let kem = envelope.recipients.iter().find_map(|info| match info.kind {
                RecipientKind::KeyEncapsulation(kem) => Some(kem),
                _ => None,
            });
            let kem = kem.unwrap();
            assert_eq!((kem.kem, kem.kdf), (set, Digest::Sha256));
            assert!(kem.wrap.key_len() >= how.wrap().key_len());
            assert!(set == MlKem::MlKem512 || kem.wrap == KeyWrap::Aes256, "RFC 9936 section 2.2.2");
        }
    }
}

/// RFC 5652 section 6.1, RFC 9629 section 3: versions, tags and the kind are those of the RFCs.
#[test]
fn octets_are_those_of_the_rfcs() {
    let bob = kem_identity(MlKem::MlKem768);
    let envelope = sealed(CONTENT, ContentEncryption::Aes256Cbc, &[(&bob.certificate, scheme(OAEP))]);
    let (_, content, _) = content_of(&envelope, &[ID_ENVELOPED_DATA]).unwrap();
    assert_eq!(content.reader().small_integer("version").unwrap(), 3);
    let info = first_info(&envelope);
    assert_eq!(info.tag, tag::context(4));
    let mut fields = info.reader();
    assert_eq!(fields.oid("oriType").unwrap().to_string(), "1.2.840.113549.1.9.16.13.3");
    let mut kem = fields.expect(tag::SEQUENCE, "KEMRecipientInfo").unwrap().reader();
    assert_eq!(kem.small_integer("version").unwrap(), 0);
    kem.expect(tag::SEQUENCE, "rid").unwrap();
    let algorithm = kem.expect(tag::SEQUENCE, "kem").unwrap().raw;
    assert_eq!(algorithm, [0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 4, 2]);
    assert_eq!(kem.expect(tag::OCTET_STRING, "kemct").unwrap().content.len(), 1088);
    assert_eq!(
        kem.expect(tag::SEQUENCE, "kdf").unwrap().reader().oid("kdf").unwrap().to_string(),
        "1.2.840.113549.1.9.16.3.28"
    );
    assert_eq!(kem.small_integer("kekLength").unwrap(), 32);
    kem.expect(tag::SEQUENCE, "wrap").unwrap();
    assert_eq!(kem.expect(tag::OCTET_STRING, "encryptedKey").unwrap().content.len(), 40);
    assert!(kem.is_empty() && fields.is_empty());
    // With AEAD the version is 0 (RFC 5083 section 2.1).
    let envelope = sealed(CONTENT, ContentEncryption::Aes256Gcm, &[(&bob.certificate, scheme(OAEP))]);
    let (_, content, _) = content_of(&envelope, &[ID_AUTH_ENVELOPED_DATA]).unwrap();
    assert_eq!(content.reader().small_integer("version").unwrap(), 0);
}

/// A KEMRecipientInfo from its fields, as `kem::read` takes it.
fn rebuilt(fields: &[Vec<u8>]) -> Result<RecipientInfo, CmsError> {
    let pieces: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
    let der = Bytes::from(write::sequence(&pieces));
    let mut reader = Reader::ber(&der);
    kem::read(&reader.expect(tag::SEQUENCE, "KEMRecipientInfo").unwrap(), &der)
}

/// The fields of an honest one.
fn fields_of(bob: &Issued) -> Vec<Vec<u8>> {
    let envelope = sealed(CONTENT, ContentEncryption::Aes256Gcm, &[(&bob.certificate, scheme(OAEP))]);
    let mut list = first_info(&envelope).reader();
    list.oid("oriType").unwrap();
    let mut inner = list.element().unwrap().reader();
    let mut fields = Vec::new();
    while !inner.is_empty() {
        fields.push(inner.element().unwrap().raw.to_vec());
    }
    fields
}

#[test]
fn a05_algorithms_and_lengths_that_do_not_belong_together_are_refused() {
    let fields = fields_of(&kem_identity(MlKem::MlKem768));
    assert!(matches!(rebuilt(&fields).unwrap().kind, RecipientKind::KeyEncapsulation(_)));
    let named = |oid: &str| write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap(oid))]);
    let with_null = |oid: &str| write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap(oid)), &[5, 0]]);
    let (kem, kdf, length, wrap) = (2, 4, 5, 6);
    for (place, field) in [
        (kem, named("2.16.840.1.101.3.4.4.9")),
        (kem, with_null("2.16.840.1.101.3.4.4.2")),
        (kdf, named("1.2.840.113549.1.9.16.3.31")),
        (kdf, with_null("1.2.840.113549.1.9.16.3.28")),
        (length, write::integer(16)),
        (length, write::integer(0)),
        (wrap, named("2.16.840.1.101.3.4.1.5")),
        (wrap, named("2.16.840.1.101.3.4.1.2")),
    ] {
        let mut changed = fields.clone();
        changed[place] = field;
        assert!(matches!(rebuilt(&changed).unwrap().kind, RecipientKind::Other(_)), "{place}");
    }
    let mut version = fields.clone();
    version[0] = write::integer(1);
    assert!(rebuilt(&version).is_err());
    let mut ukm = fields.clone();
    ukm.insert(6, write::element(tag::context(0), &[&write::octet_string(&[1; 1025])]));
    assert!(matches!(rebuilt(&ukm), Err(CmsError::Limit(_))));
    assert!(rebuilt(&fields[..7]).is_err());
}

/// The KEK is bound to wrap, length and ukm: a ukm that was added or changed does not open.
#[test]
fn a_changed_ukm_gives_another_key() {
    let bob = kem_identity(MlKem::MlKem512);
    let fields = fields_of(&bob);
    let ask = |info: &RecipientInfo| {
        let substitute = new_cek(ContentEncryption::Aes256Gcm).unwrap();
        let operation = info.operation(key(&bob).id(), ContentEncryption::Aes256Gcm, substitute.clone()).unwrap();
        let Ok(KeyAnswer::Cek(cek)) = key(&bob).perform(&operation) else { panic!("a CEK is expected") };
        (cek, substitute)
    };
    let (cek, substitute) = ask(&rebuilt(&fields).unwrap());
    assert_ne!(*cek, *substitute);
    let mut changed = fields.clone();
    changed.insert(6, write::element(tag::context(0), &[&write::octet_string(b"ukm")]));
    let (cek, substitute) = ask(&rebuilt(&changed).unwrap());
    assert_eq!(*cek, *substitute);
}

#[test]
fn fuzz_body_holds_on_seeds() {
    let fields = fields_of(&kem_identity(MlKem::MlKem512));
    let pieces: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
    let good = write::sequence(&pieces);
    kem::fuzz_kem_recipient_info(&good);
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] = bad[position].wrapping_add(0x81);
        kem::fuzz_kem_recipient_info(&bad);
        kem::fuzz_kem_recipient_info(&good[..position]);
    }
}

proptest::proptest! {
    #[test]
    fn fuzz_body_holds_on_any_octets(data: Vec<u8>) {
        kem::fuzz_kem_recipient_info(&data);
    }
}

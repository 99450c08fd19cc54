//! ML-DSA (RFC 9882), and two signatures of one signer that name each other (RFC 5752).

use super::*;
use crate::cms::algorithm::MlDsa;
use crate::cms::ber::Element;
use crate::pki::authority::cached_key;

fn ml_dsa(set: MlDsa) -> Issued {
    let recipe = Recipe::mailbox("alice@example.org", now(), NewKey::MlDsa(set));
    crate::pki::authority::issue_with_key(&recipe, cached_key(NewKey::MlDsa(set), "signed"), None)
}

#[test]
fn ml_dsa_signatures_verify_with_every_digest_of_sha_2() {
    for set in MlDsa::ALL {
        let (alice, scheme) = (ml_dsa(set), SignatureScheme::MlDsa(set));
        let key = SoftwareKey::from_pkcs8(&alice.pkcs8).unwrap();
        for how in [Digest::Sha256, Digest::Sha384, Digest::Sha512] {
            let parameters = SignParameters { digest: how, ..parameters(&alice.certificate, scheme) };
            let prepared = prepare(&parameters, &digest(how, CONTENT), None).unwrap();
            let signature = sign_with(&key, scheme, prepared.to_sign());
            let data = SignedData::parse(&prepared.finish(&signature).unwrap()).unwrap();
            assert_eq!((data.signers[0].digest, data.signers[0].scheme.clone()), (Some(how), Ok(scheme)));
            verify_all(&data, CONTENT, Legacy::default()).unwrap();
            assert!(verify_all(&data, b"other", Legacy::default()).is_err());
        }
        let weak = SignParameters { digest: Digest::Sha1, ..parameters(&alice.certificate, scheme) };
        assert!(prepare(&weak, &digest(Digest::Sha1, CONTENT), None).is_err());
    }
}

/// RFC 9882 section 3.3: without signed attributes the signature is over the content itself, whatever digestAlgorithm says.
#[test]
fn without_attributes_the_content_itself_is_signed() {
    let (alice, scheme) = (ml_dsa(MlDsa::MlDsa44), SignatureScheme::MlDsa(MlDsa::MlDsa44));
    let key = SoftwareKey::from_pkcs8(&alice.pkcs8).unwrap();
    let signature = sign_with(&key, scheme, Bytes::from_static(CONTENT));
    let shake256 = write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.12"))]);
    for digest_der in [crate::cms::algorithm::digest_algorithm_der(Digest::Sha512), shake256] {
        let info = write::sequence(&[
            &write::integer(1),
            &CertificateId::issuer_and_serial_der(&alice.certificate, tag::SEQUENCE),
            &digest_der,
            &crate::cms::algorithm::signature_scheme_der(scheme),
            &write::octet_string(&signature),
        ]);
        let signed_data = write::sequence(&[
            &write::integer(1),
            &write::element(tag::SET, &[&digest_der]),
            &write::sequence(&[&write::oid(&ID_DATA)]),
            &write::element(tag::context(0), &[alice.certificate.der()]),
            &write::element(tag::SET, &[&info]),
        ]);
        let object =
            write::sequence(&[&write::oid(&ID_SIGNED_DATA), &write::element(tag::context(0), &[&signed_data])]);
        let data = SignedData::parse(&Bytes::from(object)).unwrap();
        verify_all(&data, CONTENT, Legacy::default()).unwrap();
        assert!(verify_all(&data, b"other", Legacy::default()).is_err());
    }
}

/// A classical and an ML-DSA signature of alice's, the one guarding the other; and their keys.
fn both(guarded: bool) -> Bytes {
    let (classical, quantum) = (identity(NewKey::P256), ml_dsa(MlDsa::MlDsa65));
    let ec = SignatureScheme::Ecdsa(Digest::Sha256);
    let ml = SignatureScheme::MlDsa(MlDsa::MlDsa65);
    let (first, second) = (parameters(&classical.certificate, ec), parameters(&quantum.certificate, ml));
    let (short, long) = (digest(Digest::Sha256, CONTENT), digest(Digest::Sha512, CONTENT));
    let signers = [(&first, short.as_slice()), (&second, long.as_slice())];
    let prepared = if guarded { prepare_guarded(&signers, 2, None) } else { prepare_all(&signers, None) }.unwrap();
    let keys = [(&classical, ec), (&quantum, ml)];
    let signatures: Vec<_> = prepared
        .all_to_sign()
        .into_iter()
        .zip(keys)
        .map(|(message, (issued, scheme))| sign_with(&SoftwareKey::from_pkcs8(&issued.pkcs8).unwrap(), scheme, message))
        .collect();
    prepared.finish_all(&signatures).unwrap()
}

/// The SignedData again with other SignerInfos: `change` gets those that were there, each whole.
fn with_signers(object: &Bytes, change: impl FnOnce(Vec<Vec<u8>>) -> Vec<Vec<u8>>) -> Bytes {
    let (_, content, _) = content_of(object, &[ID_SIGNED_DATA]).unwrap();
    let mut fields = content.reader();
    let mut elements: Vec<Element<'_>> = Vec::new();
    while !fields.is_empty() {
        elements.push(fields.element().unwrap());
    }
    let infos = elements.pop().unwrap();
    let (mut list, mut each) = (infos.reader(), Vec::new());
    while !list.is_empty() {
        each.push(list.element().unwrap().raw.to_vec());
    }
    let infos = write::set_of(tag::SET, change(each));
    let mut pieces: Vec<&[u8]> = elements.iter().map(|element| element.raw).collect();
    pieces.push(&infos);
    let signed_data = write::sequence(&pieces);
    Bytes::from(write::sequence(&[&write::oid(&ID_SIGNED_DATA), &write::element(tag::context(0), &[&signed_data])]))
}

#[test]
fn a07_two_signatures_name_each_other_and_one_taken_away_is_missed() {
    let whole = both(true);
    let data = SignedData::parse(&whole).unwrap();
    assert_eq!((data.signers.len(), data.certificates.len()), (2, 2));
    verify_all(&data, CONTENT, Legacy::default()).unwrap();
    for kept in 0..2 {
        let stripped = with_signers(&whole, |each| vec![each[kept].clone()]);
        let data = SignedData::parse(&stripped).unwrap();
        let error = verify_all(&data, CONTENT, Legacy::default()).unwrap_err();
        assert!(matches!(error, CmsError::Rule { rule: "RFC 5752 section 4.6", .. }), "{error}");
    }
    // Without the guard nobody could tell.
    let open = with_signers(&both(false), |each| vec![each[0].clone()]);
    verify_all(&SignedData::parse(&open).unwrap(), CONTENT, Legacy::default()).unwrap();
}

/// The other's signature in the place of the one that was there: of the same keys, over the same content, made at another time.
#[test]
fn a07_another_signature_in_the_place_of_the_one_that_was_there_is_missed() {
    let (one, other) = (both(true), both(false));
    let mut strangers = Vec::new();
    with_signers(&other, |each| {
        strangers = each.clone();
        each
    });
    for kept in 0..2 {
        for stranger in &strangers {
            let mixed = with_signers(&one, |each| vec![each[kept].clone(), stranger.clone()]);
            let data = SignedData::parse(&mixed).unwrap();
            assert!(verify_all(&data, CONTENT, Legacy::default()).is_err());
        }
    }
    // One that stands there twice is not the other.
    let twice = with_signers(&one, |each| vec![each[0].clone(), each[0].clone()]);
    assert!(verify_all(&SignedData::parse(&twice).unwrap(), CONTENT, Legacy::default()).is_err());
}

#[test]
fn fuzz_body_holds_on_two_signatures() {
    let whole = both(true);
    fuzz_signed_data(&whole);
    for position in (0..whole.len()).step_by(7) {
        let mut bad = whole.to_vec();
        bad[position] ^= 0x21;
        fuzz_signed_data(&bad);
        fuzz_signed_data(&whole[..position]);
    }
}

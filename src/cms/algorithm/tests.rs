use super::content::CIPHERS;
use super::digest::{DIGESTS, SHA256};
use super::mask::hash_and_mask_der;
use super::signature::{ECDSA_SHA256, SHA256_WITH_RSA};
use super::*;
use crate::cms::ber::write;

const SHA2: [Digest; 3] = [Digest::Sha256, Digest::Sha384, Digest::Sha512];

fn schemes() -> Vec<SignatureScheme> {
    let mut all = vec![
        SignatureScheme::Ed25519,
        SignatureScheme::RsaPss(Digest::Sha1, 20),
        SignatureScheme::RsaPss(Digest::Sha256, 20),
    ];
    for digest in DIGESTS {
        all.extend([
            SignatureScheme::RsaPkcs1(digest),
            SignatureScheme::Ecdsa(digest),
            SignatureScheme::RsaPss(digest, digest.output_len()),
        ]);
    }
    all
}

#[test]
fn what_is_written_is_read_again() {
    for scheme in schemes() {
        assert_eq!(signature_scheme(&signature_scheme_der(scheme), Some(scheme.digest())), Ok(scheme));
        assert_eq!(signature_scheme(&certificate_signature_der(scheme), None), Ok(scheme));
    }
    for digest in DIGESTS {
        assert_eq!(digest_algorithm(&digest_algorithm_der(digest)), Ok(digest));
        let oaep = KeyTransport::RsaOaep(digest, digest);
        match key_transport(&key_transport_der(oaep)) {
            Ok(read) => assert_eq!(read, oaep),
            Err(_) => assert_eq!(digest, Digest::Sha224),
        }
    }
    for wrap in [KeyWrap::Aes128, KeyWrap::Aes192, KeyWrap::Aes256] {
        for (digest, cofactor) in SHA2.into_iter().flat_map(|digest| [(digest, false), (digest, true)]) {
            let how = KeyAgreement { kdf: KeyDerivation::X963(digest), cofactor, wrap };
            let (der, wrap_der) = key_agreement_der(how).unwrap();
            assert_eq!(key_agreement(&der), Ok((how, wrap_der.as_slice())));
            assert_eq!(key_wrap(&wrap_der), Ok(wrap));
            let how = KeyAgreement { kdf: KeyDerivation::Hkdf(digest), cofactor, wrap };
            match key_agreement_der(how) {
                Ok((der, wrap_der)) => assert_eq!(key_agreement(&der), Ok((how, wrap_der.as_slice()))),
                // RFC 8418 has none with the cofactor.
                Err(_) => assert!(cofactor),
            }
        }
        for digest in [Digest::Sha1, Digest::Sha224] {
            let how = KeyAgreement { kdf: KeyDerivation::X963(digest), cofactor: false, wrap };
            assert!(matches!(key_agreement_der(how), Err(CmsError::Algorithm(_))), "{digest:?} is read only");
        }
    }
    assert_eq!(key_transport(&key_transport_der(KeyTransport::RsaPkcs1)), Ok(KeyTransport::RsaPkcs1));
    for (_, cipher) in CIPHERS {
        let aead = cipher.is_authenticated();
        let algorithm =
            ContentAlgorithm::new(cipher, &[7; 16][..if aead { 12 } else { 16 }], if aead { 16 } else { 0 }).unwrap();
        match content_encryption_der(&algorithm) {
            Ok(der) => {
                let derived = algorithm.with_derivation().unwrap();
                let derived_der = content_encryption_der(&derived).unwrap();
                assert_eq!(content_encryption(&derived_der, aead, Legacy::default()), Ok(derived));
                assert_eq!(derived.derivation(), Some(der.as_slice()));
                assert_eq!(content_encryption(&der, aead, Legacy::default()), Ok(algorithm));
                assert!(content_encryption(&der, !aead, Legacy::default()).is_err());
            }
            Err(_) => assert!(cipher.is_legacy()),
        }
    }
}

/// RFC 4055 section 6 and RFC 8017 appendix A: octets as other implementations write them.
#[test]
fn octets_are_those_of_the_rfcs() {
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    assert_eq!(hex(&signature_scheme_der(SignatureScheme::RsaPkcs1(Digest::Sha256))), "300d06092a864886f70d0101010500");
    assert_eq!(
        hex(&certificate_signature_der(SignatureScheme::RsaPkcs1(Digest::Sha256))),
        "300d06092a864886f70d01010b0500"
    );
    assert_eq!(
        hex(&signature_scheme_der(SignatureScheme::RsaPss(Digest::Sha256, 32))),
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
    );
    assert_eq!(
        hex(&key_transport_der(KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256))),
        "303c06092a864886f70d010107302fa00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500"
    );
    assert_eq!(hex(&signature_scheme_der(SignatureScheme::Ecdsa(Digest::Sha256))), "300a06082a8648ce3d040302");
}

#[test]
fn a05_digests_that_disagree_are_refused() {
    for scheme in schemes() {
        for digest in DIGESTS.into_iter().filter(|digest| *digest != scheme.digest()) {
            assert!(
                signature_scheme(&certificate_signature_der(scheme), Some(digest)).is_err(),
                "{scheme:?} {digest:?}"
            );
        }
    }
    assert!(signature_scheme(&signature_scheme_der(SignatureScheme::RsaPkcs1(Digest::Sha256)), None).is_err());
}

#[test]
fn a05_parameters_other_than_the_rfcs_are_refused() {
    let with = |oid: &ObjectIdentifier, parameters: &[u8]| write::sequence(&[&write::oid(oid), parameters]);
    let integer = write::integer(1);
    for (oid, parameters) in [
        (ECDSA_SHA256, NULL),
        (ED25519, NULL),
        (SHA256_WITH_RSA, &integer),
        (RSA_ENCRYPTION, &integer),
        (RSASSA_PSS, &[]),
        (RSASSA_PSS, NULL),
    ] {
        assert!(signature_scheme(&with(&oid, parameters), Some(Digest::Sha256)).is_err(), "{oid}");
    }
    assert!(digest_algorithm(&with(&SHA256, &integer)).is_err());
    assert!(digest_algorithm(&with(&SHA256, &[NULL, NULL].concat())).is_err());
    assert!(digest_algorithm(&[digest_algorithm_der(Digest::Sha256), vec![5, 0]].concat()).is_err());
    // MGF1 with another digest, a trailer field that is not 1, fields out of order.
    let (hash, mask) = hash_and_mask_der(Digest::Sha256, Digest::Sha256);
    let (_, other) = hash_and_mask_der(Digest::Sha256, Digest::Sha512);
    let salt = write::element(tag::context(2), &[&write::integer(32)]);
    let trailer = |value| write::element(tag::context(3), &[&write::integer(value)]);
    let pss = |fields: &[&[u8]]| signature_scheme(&with(&RSASSA_PSS, &write::sequence(fields)), None);
    assert!(pss(&[&hash, &mask, &salt, &trailer(1)]).is_ok());
    for bad in [
        &[&hash[..], &other, &salt][..],
        &[&hash, &mask, &salt, &trailer(2)],
        &[&mask, &hash, &salt],
        &[&hash, &mask, &salt, NULL],
        &[&hash, &mask, &write::element(tag::context(2), &[&write::integer(100_000)])],
    ] {
        assert!(pss(bad).is_err());
    }
}

/// RFC 5753 section 7.1.4 and RFC 8418 section 3: each by its OID, with SHA-1 and SHA-224 too.
#[test]
fn every_key_agreement_is_read() {
    use KeyDerivation::{Hkdf, X963};
    for (dotted, kdf, cofactor) in [
        ("1.3.133.16.840.63.0.2", X963(Digest::Sha1), false),
        ("1.3.132.1.11.0", X963(Digest::Sha224), false),
        ("1.3.132.1.11.1", X963(Digest::Sha256), false),
        ("1.3.132.1.11.2", X963(Digest::Sha384), false),
        ("1.3.132.1.11.3", X963(Digest::Sha512), false),
        ("1.3.133.16.840.63.0.3", X963(Digest::Sha1), true),
        ("1.3.132.1.14.0", X963(Digest::Sha224), true),
        ("1.3.132.1.14.1", X963(Digest::Sha256), true),
        ("1.3.132.1.14.2", X963(Digest::Sha384), true),
        ("1.3.132.1.14.3", X963(Digest::Sha512), true),
        ("1.2.840.113549.1.9.16.3.19", Hkdf(Digest::Sha256), false),
        ("1.2.840.113549.1.9.16.3.20", Hkdf(Digest::Sha384), false),
        ("1.2.840.113549.1.9.16.3.21", Hkdf(Digest::Sha512), false),
    ] {
        let wrap = write::sequence(&[&write::oid(&id("2.16.840.1.101.3.4.1.25"))]);
        let der = write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap(dotted)), &wrap]);
        let how = KeyAgreement { kdf, cofactor, wrap: KeyWrap::Aes192 };
        assert_eq!(key_agreement(&der), Ok((how, wrap.as_slice())), "{dotted}");
    }
    // MQV, and 3DES wrap.
    let wrap = |dotted| write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap(dotted))]);
    let der = |dotted, wrap: &[u8]| write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap(dotted)), wrap]);
    for bad in [
        der("1.3.132.1.15.1", &wrap("2.16.840.1.101.3.4.1.25")),
        der("1.3.132.1.11.1", &wrap("1.2.840.113549.1.9.16.3.6")),
        der("1.3.132.1.11.1", &[]),
    ] {
        assert!(matches!(key_agreement(&bad), Err(CmsError::Algorithm(_))));
    }
}

/// RFC 5084 section 3.2: 12 to 16 octets, 12 where none are named; those under 16 by the switch alone.
#[test]
fn tags_are_of_12_to_16_octets() {
    let nonce = write::octet_string(&[7; 12]);
    let der = |length: Option<u32>| {
        let length = length.map(write::integer).unwrap_or_default();
        write::sequence(&[&write::oid(&id("2.16.840.1.101.3.4.1.46")), &write::sequence(&[&nonce, &length])])
    };
    let short = Legacy { short_tags: true, ..Legacy::default() };
    for length in (0..=20).map(Some).chain([None]) {
        let stands_for = length.unwrap_or(12);
        let read = |legacy| content_encryption(&der(length), true, legacy).map(|read| read.tag_len);
        assert_eq!(read(Legacy::default()).is_ok(), stands_for == 16, "{length:?}");
        match read(short) {
            Ok(tag_len) => assert_eq!(tag_len, stands_for as usize),
            Err(error) => assert!(!(12..=16).contains(&stands_for), "{length:?}: {error}"),
        }
    }
}

/// What is not supported says so by its name (Ed448 and X448 have no sound implementation here).
#[test]
fn a05_what_is_unknown_is_refused_by_name() {
    let der = |dotted| write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap(dotted))]);
    for (dotted, name) in [("1.3.101.113", "id-Ed448"), ("1.2.840.10040.4.3", "dsa-with-sha1")] {
        let error = signature_scheme(&der(dotted), None).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    let (hash, _) = hash_and_mask_der(Digest::Sha256, Digest::Sha256);
    let (_, mask) = hash_and_mask_der(Digest::Sha1, Digest::Sha1);
    let oaep = write::sequence(&[&write::oid(&RSAES_OAEP), &write::sequence(&[&hash, &mask])]);
    let error = key_transport(&oaep).unwrap_err().to_string();
    assert!(error.contains("MGF1 with another digest"), "{error}");
}

#[test]
fn every_cipher_has_a_wrap_of_its_strength() {
    for (_, cipher) in CIPHERS {
        assert_eq!(cipher.wrap().key_len(), cipher.key_len());
    }
    for digest in SHA2 {
        assert_eq!(digest.of(b"").as_ref().len(), digest.output_len());
    }
}

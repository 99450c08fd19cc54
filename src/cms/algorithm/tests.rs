use super::content::{AES128_CBC, CIPHERS, RC2_CBC};
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
        assert_eq!(key_transport(&key_transport_der(oaep)), Ok(oaep));
        for wrap in [KeyWrap::Aes128, KeyWrap::Aes192, KeyWrap::Aes256] {
            for cofactor in [false, true] {
                let how = KeyAgreement { kdf: digest, cofactor, wrap };
                let (der, wrap) = key_agreement_der(how);
                assert_eq!(key_agreement(&der), Ok((how, wrap.as_slice())));
            }
        }
    }
    assert_eq!(key_transport(&key_transport_der(KeyTransport::RsaPkcs1)), Ok(KeyTransport::RsaPkcs1));
    for (_, cipher) in CIPHERS {
        let aead = cipher.is_authenticated();
        let algorithm =
            ContentAlgorithm::new(cipher, &[7; 16][..if aead { 12 } else { 16 }], if aead { 16 } else { 0 }).unwrap();
        match content_encryption_der(&algorithm) {
            Ok(der) => {
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

#[test]
fn capabilities_keep_their_order_and_unknown_ones_are_left_out() {
    let list = [
        ContentEncryption::Aes256Gcm,
        ContentEncryption::Aes256Cbc,
        ContentEncryption::Aes128Cbc,
        ContentEncryption::TripleDesCbc,
    ];
    assert_eq!(capabilities(&capabilities_der(&list)), Ok(list.to_vec()));
    // Outlook's and NSS's lists name RC2 with its bits, and digests.
    let entry = |oid: &ObjectIdentifier, parameters: &[u8]| write::sequence(&[&write::oid(oid), parameters]);
    let mixed = write::sequence(&[
        &entry(&SHA256, &[]),
        &entry(&RC2_CBC, &write::integer(128)),
        &entry(&AES128_CBC, &[]),
        &entry(&AES128_CBC, &[]),
        &entry(&RC2_CBC, &write::integer(40)),
        &entry(&RC2_CBC, &write::integer(41)),
    ]);
    assert_eq!(
        capabilities(&mixed),
        Ok(vec![ContentEncryption::Rc2Cbc128, ContentEncryption::Aes128Cbc, ContentEncryption::Rc2Cbc40])
    );
    assert!(capabilities(&[0x30, 0x80, 0, 0]).is_err());
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

mod post_quantum;
pub(crate) mod wycheproof;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair,
};

use super::*;
use crate::cms::algorithm::{KeyDerivation, KeyWrap};
use crate::cms::error::CmsError;
use crate::pki::authority::NewKey;

fn rsa() -> SoftwareKey {
    let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    SoftwareKey::from_pkcs8(pair.as_der().unwrap().as_ref()).unwrap()
}

fn ec(algorithm: &'static aws_lc_rs::signature::EcdsaSigningAlgorithm) -> SoftwareKey {
    SoftwareKey::from_pkcs8(EcdsaKeyPair::generate(algorithm).unwrap().to_pkcs8v1().unwrap().as_ref()).unwrap()
}

fn ed25519() -> SoftwareKey {
    SoftwareKey::from_pkcs8(Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap().as_ref()).unwrap()
}

fn cek(answer: KeyAnswer) -> Vec<u8> {
    let KeyAnswer::Cek(cek) = answer else { panic!("a CEK is expected") };
    cek.to_vec()
}

#[test]
fn every_scheme_signs_and_verifies_and_nothing_else_does() {
    let rsa = rsa();
    let cases = [
        (&rsa, SignatureScheme::RsaPkcs1(Digest::Sha256)),
        (&rsa, SignatureScheme::RsaPkcs1(Digest::Sha512)),
        (&rsa, SignatureScheme::RsaPss(Digest::Sha256, 32)),
        (&rsa, SignatureScheme::RsaPss(Digest::Sha384, 48)),
        (&ec(&ECDSA_P256_SHA256_ASN1_SIGNING), SignatureScheme::Ecdsa(Digest::Sha256)),
        (&ec(&ECDSA_P384_SHA384_ASN1_SIGNING), SignatureScheme::Ecdsa(Digest::Sha384)),
        (&ec(&ECDSA_P521_SHA512_ASN1_SIGNING), SignatureScheme::Ecdsa(Digest::Sha512)),
        (&ed25519(), SignatureScheme::Ed25519),
    ];
    let all: Vec<_> = cases.iter().map(|(_, scheme)| *scheme).collect();
    for (key, scheme) in cases {
        let operation = KeyOperation::Sign { key: key.id(), scheme, message: Bytes::from_static(b"attributes") };
        let KeyAnswer::Signature(signature) = key.perform(&operation).unwrap() else {
            panic!("a signature is expected")
        };
        let public = key.public_key();
        for _ in 0..2 {
            public.verify(scheme, b"attributes", &signature).unwrap();
        }
        if scheme != SignatureScheme::Ed25519 {
            public.verify_digest(scheme, scheme.digest().of(b"attributes").as_ref(), &signature).unwrap();
        }
        assert_eq!(public.verify(scheme, b"attributez", &signature), Err(CmsError::Unauthentic("the signature")));
        for other in all.iter().filter(|other| **other != scheme) {
            assert!(public.verify(*other, b"attributes", &signature).is_err(), "{scheme:?} taken for {other:?}");
        }
        if let SignatureScheme::RsaPss(digest, salt) = scheme {
            assert!(public.verify(SignatureScheme::RsaPss(digest, salt - 1), b"attributes", &signature).is_err());
        }
    }
}

/// RFC 4055 sections 1.2 and 3.1: it signs with PSS alone, as it is bound to; nothing is encrypted to it, and nothing opened with it.
#[test]
fn an_rsa_key_for_pss_signs_as_it_is_bound_to_and_does_nothing_else() {
    use crate::cms::algorithm::{RSASSA_PSS, certificate_signature_der};
    use crate::cms::ber::{Reader, tag, write};
    let pkcs8 = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
    let mut fields = Reader::der(pkcs8.as_ref()).expect(tag::SEQUENCE, "key").unwrap().reader();
    let (version, _, octets) = (fields.element().unwrap(), fields.element().unwrap(), fields.element().unwrap());
    let named = |algorithm: &[u8]| SoftwareKey::from_pkcs8(&write::sequence(&[version.raw, algorithm, octets.raw]));
    let (free, bound) = (
        named(&write::sequence(&[&write::oid(&RSASSA_PSS)])).unwrap(),
        named(&certificate_signature_der(SignatureScheme::RsaPss(Digest::Sha384, 40))).unwrap(),
    );
    let sign = |key: &SoftwareKey, scheme| {
        let operation = KeyOperation::Sign { key: key.id(), scheme, message: Bytes::from_static(b"attributes") };
        match key.perform(&operation)? {
            KeyAnswer::Signature(signature) => Ok(signature),
            KeyAnswer::Cek(_) => panic!("a signature is expected"),
        }
    };
    let (sha256, sha384) = (SignatureScheme::RsaPss(Digest::Sha256, 32), SignatureScheme::RsaPss(Digest::Sha384, 48));
    for (key, scheme) in [(&free, sha256), (&free, sha384), (&bound, sha384)] {
        let signature = sign(key, scheme).unwrap();
        key.public_key().verify(scheme, b"attributes", &signature).unwrap();
    }
    // Good signatures of the same numbers, and not what the key is for.
    let good = sign(&free, sha256).unwrap();
    assert!(matches!(bound.public_key().verify(sha256, b"attributes", &good), Err(CmsError::Algorithm(_))));
    let short = SignatureScheme::RsaPss(Digest::Sha384, 39);
    assert!(matches!(bound.public_key().verify(short, b"attributes", &good), Err(CmsError::Algorithm(_))));
    assert!(matches!(sign(&bound, sha256), Err(KeyError::Unsuitable(_))));
    for key in [&free, &bound] {
        assert!(matches!(sign(key, SignatureScheme::RsaPkcs1(Digest::Sha256)), Err(KeyError::Unsuitable(_))));
        let content = ContentEncryption::Aes128Cbc;
        assert!(key.public_key().transport(KeyTransport::RsaPkcs1, &[1; 16]).is_err());
        let operation = KeyOperation::Unwrap {
            key: key.id(),
            transport: KeyTransport::RsaPkcs1,
            encrypted: vec![1; 256].into(),
            content,
            substitute: new_cek(content).unwrap(),
        };
        assert!(matches!(key.perform(&operation), Err(KeyError::Unsuitable(_))));
    }
}

#[test]
fn a_short_rsa_key_is_refused_and_the_message_says_so() {
    // RFC 4134's Bob has 1024 bits; here the frame of such a key is enough, its size is looked at first.
    use crate::cms::ber::write;
    let modulus = write::element(2, &[&[0], &[0xff; 128]]);
    let key = write::sequence(&[&write::integer(0), &modulus, &write::integer(65537)]);
    let algorithm = crate::cms::algorithm::key_transport_der(KeyTransport::RsaPkcs1);
    let pkcs8 = write::sequence(&[&write::integer(0), &algorithm, &write::octet_string(&key)]);
    let error = SoftwareKey::from_pkcs8(&pkcs8).unwrap_err().to_string();
    assert!(error.contains("1024 bits") && error.contains("2048"), "{error}");
}

#[test]
fn an_operation_for_another_key_is_not_done() {
    let (mine, other) = (ed25519(), ed25519());
    let operation = KeyOperation::Sign { key: other.id(), scheme: SignatureScheme::Ed25519, message: Bytes::new() };
    assert_eq!(mine.perform(&operation).unwrap_err(), KeyError::Unknown);
    let mut keys = SoftwareKeys::default();
    keys.insert(mine);
    assert!(matches!(keys.submit(operation), Submission::Ready(Err(KeyError::Unknown))));
}

#[test]
fn transport_and_unwrap_give_the_cek() {
    let key = rsa();
    let content = ContentEncryption::Aes256Cbc;
    let substitute = new_cek(content).unwrap();
    for transport in [
        KeyTransport::RsaPkcs1,
        KeyTransport::RsaOaep(Digest::Sha1, Digest::Sha1),
        KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256),
        KeyTransport::RsaOaep(Digest::Sha512, Digest::Sha512),
    ] {
        let sent = new_cek(content).unwrap();
        let encrypted = key.public_key().transport(transport, &sent).unwrap();
        let operation = KeyOperation::Unwrap {
            key: key.id(),
            transport,
            encrypted: encrypted.into(),
            content,
            substitute: substitute.clone(),
        };
        assert_eq!(cek(key.perform(&operation).unwrap()), *sent);
    }
}

/// A3: bad padding, a wrong length and a wrong size of the ciphertext all answer with the substitute, and never with an error.
#[test]
fn a03_implicit_rejection_answers_with_the_substitute() {
    let key = rsa();
    let public = key.public_key();
    let content = ContentEncryption::Aes128Cbc;
    let substitute = new_cek(content).unwrap();
    let good = public.transport(KeyTransport::RsaPkcs1, &[7; 16]).unwrap();
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    let probes = [
        public.transport(KeyTransport::RsaPkcs1, &[7; 24]).unwrap(),
        public.transport(KeyTransport::RsaPkcs1, &[7; 15]).unwrap(),
        public.transport(KeyTransport::RsaPkcs1, &[]).unwrap(),
        public.transport(KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256), &[7; 16]).unwrap(),
        flipped,
        vec![0; 256],
        vec![0xff; 256],
        good[1..].to_vec(),
        Vec::new(),
    ];
    for transport in [KeyTransport::RsaPkcs1, KeyTransport::RsaOaep(Digest::Sha1, Digest::Sha1)] {
        for encrypted in &probes {
            let operation = KeyOperation::Unwrap {
                key: key.id(),
                transport,
                encrypted: encrypted.clone().into(),
                content,
                substitute: substitute.clone(),
            };
            assert_eq!(cek(key.perform(&operation).unwrap()), *substitute);
        }
    }
    let operation = KeyOperation::Unwrap {
        key: key.id(),
        transport: KeyTransport::RsaPkcs1,
        encrypted: good.into(),
        content,
        substitute,
    };
    assert_eq!(cek(key.perform(&operation).unwrap()), [7; 16]);
}

#[test]
fn agreement_gives_the_cek_and_failure_the_substitute() {
    let x25519 = || SoftwareKey::from_pkcs8(&crate::pki::authority::cached_key(NewKey::X25519, "bob")).unwrap();
    for (key, kdf, wrap) in [
        (ec(&ECDSA_P256_SHA256_ASN1_SIGNING), KeyDerivation::X963(Digest::Sha256), KeyWrap::Aes128),
        (ec(&ECDSA_P384_SHA384_ASN1_SIGNING), KeyDerivation::X963(Digest::Sha224), KeyWrap::Aes192),
        (ec(&ECDSA_P521_SHA512_ASN1_SIGNING), KeyDerivation::Hkdf(Digest::Sha512), KeyWrap::Aes256),
        (x25519(), KeyDerivation::X963(Digest::Sha384), KeyWrap::Aes192),
        (x25519(), KeyDerivation::Hkdf(Digest::Sha256), KeyWrap::Aes256),
    ] {
        let content = ContentEncryption::Aes192Cbc;
        let agreement = KeyAgreement { kdf, cofactor: false, wrap };
        let (point, secret) = key.public_key().agree_ephemeral().unwrap();
        let kek = wrap::derive(agreement, &secret, Some(b"ukm"), b"info").unwrap();
        let wrapped = wrap::wrap(wrap, &kek, &[9; 24]).unwrap();
        let substitute = new_cek(content).unwrap();
        let operation = |originator: &[u8], info: &[u8], wrapped: &[u8]| KeyOperation::Agree {
            key: key.id(),
            agreement,
            originator: Bytes::copy_from_slice(originator),
            ukm: Some(Bytes::from_static(b"ukm")),
            shared_info: Bytes::copy_from_slice(info),
            wrapped: Bytes::copy_from_slice(wrapped),
            content,
            substitute: substitute.clone(),
        };
        let ask = |operation| cek(key.perform(&operation).unwrap());
        assert_eq!(ask(operation(&point, b"info", &wrapped)), [9; 24]);
        // Of another X25519 key, not off the curve.
        let mut off_curve = point.clone();
        *off_curve.first_mut().unwrap() ^= 1;
        assert_eq!(ask(operation(&off_curve, b"info", &wrapped)), *substitute);
        assert_eq!(ask(operation(&[], b"info", &wrapped)), *substitute);
        assert_eq!(ask(operation(&point, b"other", &wrapped)), *substitute);
        assert_eq!(ask(operation(&point, b"info", &wrapped[8..])), *substitute);
        assert_eq!(ask(operation(&point, b"info", &[])), *substitute);
        let short = wrap::wrap(wrap, &kek, &[9; 16]).unwrap();
        assert_eq!(ask(operation(&point, b"info", &short)), *substitute);
    }
}

/// RFC 7748 section 6.1: keys and the secret; RFC 8418 section 2.2: the ukm is HKDF's salt, and is left out where there is none.
#[test]
fn x25519_gives_the_rfcs_octets() {
    let hex = |text: &str| -> Vec<u8> { wycheproof::octets(&serde_json::Value::from(text)) };
    let alice = hex("77076d0a7318a57d3c16c17251b26645f1d0cf3ceae06d4c8d1d0a3e1b6b9e2d");
    let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let secret = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    let pkcs8 = |octets: &[u8]| {
        let head = hex("302e020100300506032b656e04220420");
        SoftwareKey::from_pkcs8(&[&head, octets].concat())
    };
    let bob = pkcs8(&bob).unwrap();
    assert_eq!(bob.public_key().key_bits(), hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
    assert!(matches!(pkcs8(&alice[1..]), Err(KeyError::Rejected(_))));
    let mine = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    for (kdf, ukm) in [
        (KeyDerivation::X963(Digest::Sha256), None),
        (KeyDerivation::Hkdf(Digest::Sha256), None),
        (KeyDerivation::Hkdf(Digest::Sha512), Some(Bytes::from_static(b"salt"))),
    ] {
        let agreement = KeyAgreement { kdf, cofactor: false, wrap: KeyWrap::Aes128 };
        let kek = wrap::derive(agreement, &secret, ukm.as_deref(), b"info").unwrap();
        let operation = |originator: &[u8]| KeyOperation::Agree {
            key: bob.id(),
            agreement,
            originator: Bytes::copy_from_slice(originator),
            ukm: ukm.clone(),
            shared_info: Bytes::from_static(b"info"),
            wrapped: wrap::wrap(KeyWrap::Aes128, &kek, &[5; 16]).unwrap().into(),
            content: ContentEncryption::Aes128Gcm,
            substitute: Cek::new(vec![0; 32]),
        };
        assert_eq!(cek(bob.perform(&operation(&mine)).unwrap()), [5; 16], "{kdf:?}");
        // A point of low order gives a secret of zeroes: the substitute.
        assert_eq!(cek(bob.perform(&operation(&[0; 32])).unwrap()), [0; 16]);
        assert_eq!(cek(bob.perform(&operation(&mine[1..])).unwrap()), [0; 16]);
    }
}

/// RFC 5869 appendix A.1 and A.3: with a salt and without.
#[test]
fn hkdf_gives_the_rfcs_octets() {
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let salt: Vec<u8> = (0..13).collect();
    let info: Vec<u8> = (0xf0..0xfa).collect();
    let okm = wrap::hkdf(Digest::Sha256, &[0x0b; 22], Some(&salt), &info, 42).unwrap();
    assert_eq!(hex(&okm), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
    let okm = wrap::hkdf(Digest::Sha256, &[0x0b; 22], None, b"", 42).unwrap();
    assert_eq!(hex(&okm), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
    assert!(wrap::hkdf(Digest::Sha1, b"secret", None, b"", 16).is_err());
}

/// RFC 3394 section 4: 128 bits of key data with a KEK of 128, 192 and 256 bits.
#[test]
fn key_wrap_gives_the_rfcs_octets() {
    let key: Vec<u8> = (0..16).map(|octet| octet * 0x11).collect();
    let kek: Vec<u8> = (0..32).collect();
    for (how, expected) in [
        (KeyWrap::Aes128, "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"),
        (KeyWrap::Aes192, "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d"),
        (KeyWrap::Aes256, "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"),
    ] {
        let kek = &kek[..how.key_len()];
        let wrapped = wrap::wrap(how, kek, &key).unwrap();
        assert_eq!(wrapped.iter().map(|octet| format!("{octet:02x}")).collect::<String>(), expected);
        assert_eq!(*wrap::unwrap(how, kek, &wrapped).unwrap(), key);
        for position in 0..wrapped.len() {
            let mut damaged = wrapped.clone();
            damaged[position] ^= 0x40;
            assert!(wrap::unwrap(how, kek, &damaged).is_err());
        }
    }
}

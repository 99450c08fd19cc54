mod post_quantum;
pub(crate) mod wycheproof;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair,
};

use super::*;
use crate::cms::algorithm::KeyWrap;
use crate::cms::error::CmsError;

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
    for (algorithm, wrap) in [
        (&ECDSA_P256_SHA256_ASN1_SIGNING, KeyWrap::Aes128),
        (&ECDSA_P384_SHA384_ASN1_SIGNING, KeyWrap::Aes192),
        (&ECDSA_P521_SHA512_ASN1_SIGNING, KeyWrap::Aes256),
    ] {
        let key = ec(algorithm);
        let content = ContentEncryption::Aes192Cbc;
        let agreement = KeyAgreement { kdf: Digest::Sha256, cofactor: false, wrap };
        let (point, secret) = key.public_key().agree_ephemeral().unwrap();
        let kek = wrap::x963_kdf(Digest::Sha256, &secret, b"info", wrap.key_len());
        let wrapped = wrap::wrap(wrap, &kek, &[9; 24]).unwrap();
        let substitute = new_cek(content).unwrap();
        let operation = |originator: &[u8], info: &[u8], wrapped: &[u8]| KeyOperation::Agree {
            key: key.id(),
            agreement,
            originator: Bytes::copy_from_slice(originator),
            shared_info: Bytes::copy_from_slice(info),
            wrapped: Bytes::copy_from_slice(wrapped),
            content,
            substitute: substitute.clone(),
        };
        let ask = |operation| cek(key.perform(&operation).unwrap());
        assert_eq!(ask(operation(&point, b"info", &wrapped)), [9; 24]);
        let mut off_curve = point.clone();
        *off_curve.last_mut().unwrap() ^= 1;
        assert_eq!(ask(operation(&off_curve, b"info", &wrapped)), *substitute);
        assert_eq!(ask(operation(&[], b"info", &wrapped)), *substitute);
        assert_eq!(ask(operation(&point, b"other", &wrapped)), *substitute);
        assert_eq!(ask(operation(&point, b"info", &wrapped[8..])), *substitute);
        assert_eq!(ask(operation(&point, b"info", &[])), *substitute);
        let short = wrap::wrap(wrap, &kek, &[9; 16]).unwrap();
        assert_eq!(ask(operation(&point, b"info", &short)), *substitute);
    }
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

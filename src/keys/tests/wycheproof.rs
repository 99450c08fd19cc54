//! Wycheproof's vectors through the operations of this house.

use serde_json::Value;

use super::*;
use crate::cms::ber::write;
use crate::cms::signed::tests::corpora;
use crate::pki::public_key::PublicKey;

/// Calls `each` with (group, test) for every vector of a file; gives their number, or 0 where there are no corpora.
pub(crate) fn vectors(file: &str, mut each: impl FnMut(&Value, &Value)) -> usize {
    let Some(dir) = corpora() else { return 0 };
    let text = std::fs::read(dir.join("wycheproof").join(file)).unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let mut count = 0;
    for group in all["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            each(group, test);
            count += 1;
        }
    }
    count
}

pub(crate) fn octets(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default().as_bytes();
    text.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn digest(name: &Value) -> Digest {
    match name.as_str().unwrap() {
        "SHA-256" => Digest::Sha256,
        "SHA-384" => Digest::Sha384,
        "SHA-512" => Digest::Sha512,
        _ => Digest::Sha1,
    }
}

fn unwrap(file: &str, transport: impl Fn(&Value) -> KeyTransport) {
    let mut kept: Option<(Vec<u8>, SoftwareKey)> = None;
    let contents = [
        ContentEncryption::Rc2Cbc40,
        ContentEncryption::Rc2Cbc64,
        ContentEncryption::Aes128Cbc,
        ContentEncryption::Aes192Gcm,
        ContentEncryption::Aes256Gcm,
    ];
    vectors(file, |group, test| {
        let pkcs8 = octets(&group["privateKeyPkcs8"]);
        if kept.as_ref().is_none_or(|(known, _)| *known != pkcs8) {
            kept = Some((pkcs8.clone(), SoftwareKey::from_pkcs8(&pkcs8).unwrap()));
        }
        let key = &kept.as_ref().unwrap().1;
        let message = octets(&test["msg"]);
        for content in contents {
            let substitute = new_cek(content).unwrap();
            let encrypted = Bytes::from(octets(&test["ct"]));
            let operation = KeyOperation::Unwrap {
                key: key.id(),
                transport: transport(group),
                encrypted,
                content,
                substitute: substitute.clone(),
            };
            let answer = cek(key.perform(&operation).unwrap());
            let opens =
                test["result"] == "valid" && octets(&test["label"]).is_empty() && message.len() == content.key_len();
            assert_eq!(answer, if opens { message.clone() } else { substitute.to_vec() }, "{file} {}", test["tcId"]);
        }
    });
}

#[test]
fn a03_rsa_decryption() {
    for size in ["2048", "3072", "4096"] {
        unwrap(&format!("rsa_pkcs1_{size}_test.json"), |_| KeyTransport::RsaPkcs1);
    }
    for file in [
        "2048_sha1_mgf1sha1",
        "2048_sha256_mgf1sha256",
        "2048_sha384_mgf1sha384",
        "2048_sha512_mgf1sha512",
        "3072_sha256_mgf1sha256",
    ] {
        unwrap(&format!("rsa_oaep_{file}_test.json"), |group| {
            KeyTransport::RsaOaep(digest(&group["sha"]), digest(&group["mgfSha"]))
        });
    }
}

fn verify(file: &str, scheme: impl Fn(&Value) -> SignatureScheme) {
    vectors(file, |group, test| {
        let key = PublicKey::from_spki(octets(&group["publicKeyDer"]).into()).unwrap();
        let result = key.verify(scheme(group), &octets(&test["msg"]), &octets(&test["sig"]));
        match test["result"].as_str().unwrap() {
            "valid" => assert_eq!(result, Ok(()), "{file} {}", test["tcId"]),
            "invalid" => assert!(result.is_err(), "{file} {}", test["tcId"]),
            _ => {}
        }
    });
}

#[test]
fn signatures() {
    for file in ["2048_sha256", "2048_sha384", "2048_sha512", "3072_sha256", "4096_sha256", "4096_sha512"] {
        verify(&format!("rsa_signature_{file}_test.json"), |group| SignatureScheme::RsaPkcs1(digest(&group["sha"])));
    }
    for file in [
        "2048_sha256_mgf1_32",
        "2048_sha256_mgf1_32_params",
        "3072_sha256_mgf1_32",
        "4096_sha256_mgf1_32",
        "4096_sha512_mgf1_32",
    ] {
        verify(&format!("rsa_pss_{file}_test.json"), |group| {
            SignatureScheme::RsaPss(digest(&group["sha"]), usize::try_from(group["sLen"].as_u64().unwrap()).unwrap())
        });
    }
    for file in ["secp256r1_sha256", "secp384r1_sha384", "secp521r1_sha512"] {
        verify(&format!("ecdsa_{file}_test.json"), |group| SignatureScheme::Ecdsa(digest(&group["sha"])));
    }
    verify("ed25519_test.json", |_| SignatureScheme::Ed25519);
}

/// A private key of this curve from its scalar.
fn ec_key(curve: &str, size: usize, scalar: &[u8]) -> SoftwareKey {
    let oid = |dotted| write::oid(&const_oid::ObjectIdentifier::new_unwrap(dotted));
    let mut padded = vec![0; size.saturating_sub(scalar.len())];
    padded.extend(&scalar[scalar.len().saturating_sub(size)..]);
    let key = write::sequence(&[&write::integer(1), &write::octet_string(&padded)]);
    let algorithm = write::sequence(&[&oid("1.2.840.10045.2.1"), &oid(curve)]);
    SoftwareKey::from_pkcs8(&write::sequence(&[&write::integer(0), &algorithm, &write::octet_string(&key)])).unwrap()
}

#[test]
fn ecdh() {
    for (file, curve, size) in
        [("secp256r1", "1.2.840.10045.3.1.7", 32), ("secp384r1", "1.3.132.0.34", 48), ("secp521r1", "1.3.132.0.35", 66)]
    {
        vectors(&format!("ecdh_{file}_test.json"), |_, test| {
            let key = ec_key(curve, size, &octets(&test["private"]));
            let theirs = PublicKey::from_spki(octets(&test["public"]).into());
            let kdf = KeyDerivation::X963(Digest::Sha256);
            let agreement = KeyAgreement { kdf, cofactor: false, wrap: KeyWrap::Aes256 };
            let kek = wrap::x963_kdf(Digest::Sha256, &octets(&test["shared"]), b"info", 32);
            let wrapped = wrap::wrap(KeyWrap::Aes256, &kek, &[5; 16]).unwrap();
            let answer = theirs.map(|theirs| {
                let operation = KeyOperation::Agree {
                    key: key.id(),
                    agreement,
                    originator: Bytes::copy_from_slice(theirs.key_bits()),
                    ukm: None,
                    shared_info: Bytes::from_static(b"info"),
                    wrapped: wrapped.clone().into(),
                    content: ContentEncryption::Aes128Cbc,
                    substitute: new_cek(ContentEncryption::Aes128Cbc).unwrap(),
                };
                (cek(key.perform(&operation).unwrap()), theirs.kind() == key.public_key().kind())
            });
            match (test["result"].as_str().unwrap(), answer) {
                ("valid", answer) => assert_eq!(answer.unwrap().0, [5; 16], "{file} {}", test["tcId"]),
                ("invalid", Ok((cek, true))) => assert_ne!(cek, [5; 16], "{file} {}", test["tcId"]),
                _ => {}
            }
        });
    }
}

#[test]
fn key_wrap() {
    vectors("aes_wrap_test.json", |group, test| {
        let how = match group["keySize"].as_u64() {
            Some(128) => KeyWrap::Aes128,
            Some(192) => KeyWrap::Aes192,
            _ => KeyWrap::Aes256,
        };
        let (kek, message, wrapped) = (octets(&test["key"]), octets(&test["msg"]), octets(&test["ct"]));
        let unwrapped = wrap::unwrap(how, &kek, &wrapped);
        if test["result"] == "valid" && (16..=64).contains(&message.len()) {
            assert_eq!(*unwrapped.unwrap(), message, "{}", test["tcId"]);
            assert_eq!(wrap::wrap(how, &kek, &message).unwrap(), wrapped, "{}", test["tcId"]);
        } else if test["result"] == "invalid" {
            assert!(unwrapped.is_err(), "{}", test["tcId"]);
        }
    });
}

#[test]
fn x25519() {
    let size = vectors("x25519_test.json", |_, test| {
        let algorithm = write::sequence(&[&write::oid(&const_oid::ObjectIdentifier::new_unwrap("1.3.101.110"))]);
        let octets_of_key = write::octet_string(&write::octet_string(&octets(&test["private"])));
        let key = SoftwareKey::from_pkcs8(&write::sequence(&[&write::integer(0), &algorithm, &octets_of_key])).unwrap();
        let shared = octets(&test["shared"]);
        let agreement =
            KeyAgreement { kdf: KeyDerivation::Hkdf(Digest::Sha256), cofactor: false, wrap: KeyWrap::Aes256 };
        let kek = wrap::derive(agreement, &shared, None, b"info").unwrap();
        let operation = KeyOperation::Agree {
            key: key.id(),
            agreement,
            originator: octets(&test["public"]).into(),
            ukm: None,
            shared_info: Bytes::from_static(b"info"),
            wrapped: wrap::wrap(KeyWrap::Aes256, &kek, &[5; 16]).unwrap().into(),
            content: ContentEncryption::Aes128Cbc,
            substitute: Cek::new(vec![0; 32]),
        };
        let found = cek(key.perform(&operation).unwrap()) == [5; 16];
        let zero = shared.iter().all(|octet| *octet == 0);
        match test["result"].as_str().unwrap() {
            "valid" => assert!(found, "{}", test["tcId"]),
            "acceptable" => assert_eq!(found, !zero, "{}: a secret of zeroes is refused", test["tcId"]),
            _ => assert!(!found, "{}", test["tcId"]),
        }
    });
    assert!(corpora().is_none() || size > 500);
}

//! ECDSA and EdDSA through `PublicKey`, ECDH through `SoftwareKey` with the KDF and key wrap of RFC 5753.

use super::*;
use crate::cms::algorithm::KeyDerivation;

/// Files, and how many of each are run at least.
pub(super) const FILES: [(&str, usize); 9] = [
    ("ecdsa_secp256r1_sha256", 484),
    ("ecdsa_secp384r1_sha384", 504),
    ("ecdsa_secp521r1_sha512", 542),
    ("ed25519", 151),
    ("ed448", 0),
    ("ecdh_secp256r1", 612),
    ("ecdh_secp384r1", 1047),
    ("ecdh_secp521r1", 916),
    ("x25519", 518),
];

#[test]
fn curve_signatures() {
    for (file, least) in FILES.iter().filter(|(file, _)| file.starts_with("ecdsa") || file.starts_with("ed")) {
        let account = account(&format!("{file}_test.json"), |group, test| {
            let scheme = match group["sha"].is_null() {
                false => SignatureScheme::Ecdsa(digest(&group["sha"])?),
                true => SignatureScheme::Ed25519,
            };
            super::rsa::verify(&octets(&group["publicKeyDer"]), scheme, test)
        });
        if let Some(account) = account {
            account.at_least(*least);
        }
    }
}

/// A private key of this curve from its scalar.
fn ec_key(curve: &str, size: usize, scalar: &[u8]) -> Vec<u8> {
    let mut padded = vec![0; size.saturating_sub(scalar.len())];
    padded.extend(&scalar[scalar.len().saturating_sub(size)..]);
    let key = write::sequence(&[&write::integer(1), &write::octet_string(&padded)]);
    private_key_info(&write::sequence(&[&oid("1.2.840.10045.2.1"), &oid(curve)]), &key)
}

/// The CEK that comes out where the secret is the vector's; `None`: another one.
fn agree(key: &SoftwareKey, kdf: KeyDerivation, originator: &[u8], shared: &[u8]) -> Result<Option<()>, KeyError> {
    let agreement = KeyAgreement { kdf, cofactor: false, wrap: KeyWrap::Aes256 };
    let kek = wrap::derive(agreement, shared, None, b"info").unwrap();
    let operation = KeyOperation::Agree {
        key: key.id(),
        agreement,
        originator: Bytes::copy_from_slice(originator),
        ukm: None,
        shared_info: Bytes::from_static(b"info"),
        wrapped: wrap::wrap(KeyWrap::Aes256, &kek, &[5; 16]).unwrap().into(),
        content: ContentEncryption::Aes128Cbc,
        substitute: new_cek(ContentEncryption::Aes128Cbc).unwrap(),
    };
    Ok((cek(key.perform(&operation)?) == [5; 16]).then_some(()))
}

fn judge(agreed: Option<()>, test: &Value) {
    match test["result"].as_str().unwrap() {
        "valid" => assert_eq!(agreed, Some(()), "{}", test["tcId"]),
        "invalid" => assert_eq!(agreed, None, "{}", test["tcId"]),
        _ => {}
    }
}

#[test]
fn ecdh() {
    for (file, curve, size) in
        [("secp256r1", "1.2.840.10045.3.1.7", 32), ("secp384r1", "1.3.132.0.34", 48), ("secp521r1", "1.3.132.0.35", 66)]
    {
        let file = format!("ecdh_{file}");
        let account = account(&format!("{file}_test.json"), |_, test| {
            let key = SoftwareKey::from_pkcs8(&ec_key(curve, size, &octets(&test["private"]))).unwrap();
            // A point that is no key, or one of another curve, never reaches the operation.
            let agreed = match PublicKey::from_spki(octets(&test["public"]).into()) {
                Ok(theirs) if theirs.kind() == key.public_key().kind() => {
                    agree(&key, KeyDerivation::X963(Digest::Sha256), theirs.key_bits(), &octets(&test["shared"]))
                        .unwrap()
                }
                _ => None,
            };
            judge(agreed, test);
            Ok(())
        });
        if let Some(account) = account {
            account.at_least(FILES.iter().find(|(known, _)| *known == file).unwrap().1);
        }
    }
}

#[test]
fn x25519() {
    let account = account("x25519_test.json", |_, test| {
        let scalar = write::octet_string(&octets(&test["private"]));
        let key =
            SoftwareKey::from_pkcs8(&private_key_info(&write::sequence(&[&oid("1.3.101.110")]), &scalar)).unwrap();
        let shared = octets(&test["shared"]);
        let agreed = agree(&key, KeyDerivation::Hkdf(Digest::Sha256), &octets(&test["public"]), &shared).unwrap();
        judge(agreed, test);
        if test["result"] == "acceptable" {
            let zero = shared.iter().all(|octet| *octet == 0);
            assert_eq!(agreed.is_some(), !zero, "{}: a secret of zeroes is refused", test["tcId"]);
        }
        Ok(())
    });
    if let Some(account) = account {
        account.at_least(FILES[8].1);
    }
}

/// Curves that are not known: a key on them is refused by name. What the file has of known curves is there to be refused beside a key of
/// its own curve.
#[test]
fn foreign_curves_are_refused() {
    account("ecdh_brainpoolP256r1_test.json", |_, test| {
        if PublicKey::from_spki(octets(&test["public"]).into()).is_ok() {
            assert_eq!(test["result"], "invalid", "{}", test["tcId"]);
        }
        Err("refused: a curve that is not known here".to_owned())
    });
}

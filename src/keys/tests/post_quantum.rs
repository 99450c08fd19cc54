//! Keys of ML-DSA and ML-KEM: every form, what is refused, implicit rejection; Wycheproof's vectors.

use super::wycheproof::{octets, vectors};
use super::*;
use crate::cms::algorithm::{KeyEncapsulation, MlDsa, MlKem};
use crate::cms::ber::{tag, write};
use crate::cms::signed::tests::corpora;
use crate::pki::authority::{NewKey, cached_key};
use crate::pki::pkcs12::read_any;
use crate::pki::public_key::{KeyKind, PublicKey};

fn pkcs8(oid: const_oid::ObjectIdentifier, key: &[u8]) -> Vec<u8> {
    let algorithm = write::sequence(&[&write::oid(&oid)]);
    write::sequence(&[&write::integer(0), &algorithm, &write::octet_string(key)])
}

fn from_seed(oid: const_oid::ObjectIdentifier, seed: &[u8]) -> Result<SoftwareKey, KeyError> {
    SoftwareKey::from_pkcs8(&pkcs8(oid, &write::element(tag::context_primitive(0), &[seed])))
}

fn signed(key: &SoftwareKey, set: MlDsa, message: &'static [u8]) -> Vec<u8> {
    let scheme = SignatureScheme::MlDsa(set);
    let operation = KeyOperation::Sign { key: key.id(), scheme, message: Bytes::from_static(message) };
    let KeyAnswer::Signature(signature) = key.perform(&operation).unwrap() else { panic!("a signature is expected") };
    signature
}

/// The operation for a CEK that was wrapped for `to`; with the CEK.
fn encapsulated(to: &SoftwareKey, set: MlKem, substitute: &Cek) -> (KeyOperation, Vec<u8>) {
    let content = ContentEncryption::Aes256Gcm;
    let how = KeyEncapsulation::for_content(set, content);
    let (ciphertext, secret) = to.public_key().encapsulate().unwrap();
    let kek = wrap::hkdf(how.kdf, &secret, None, b"info", how.wrap.key_len()).unwrap();
    let cek = vec![9; 32];
    let operation = KeyOperation::Decapsulate {
        key: to.id(),
        encapsulation: how,
        ciphertext: ciphertext.into(),
        info: Bytes::from_static(b"info"),
        wrapped: wrap::wrap(how.wrap, &kek, &cek).unwrap().into(),
        content,
        substitute: substitute.clone(),
    };
    (operation, cek)
}

#[test]
fn ml_dsa_signs_and_only_its_own_set_and_message_verify() {
    for set in MlDsa::ALL {
        let key = SoftwareKey::from_pkcs8(&cached_key(NewKey::MlDsa(set), "signs")).unwrap();
        assert_eq!(key.public_key().kind(), KeyKind::MlDsa(set));
        let signature = signed(&key, set, b"attributes");
        let public = key.public_key();
        public.verify(SignatureScheme::MlDsa(set), b"attributes", &signature).unwrap();
        assert!(public.verify(SignatureScheme::MlDsa(set), b"attributez", &signature).is_err());
        assert!(public.verify(SignatureScheme::MlDsa(set), b"attributes", &signature[1..]).is_err());
        assert!(public.verify_digest(SignatureScheme::MlDsa(set), &[0; 64], &signature).is_err());
        for other in MlDsa::ALL.into_iter().filter(|other| *other != set) {
            assert!(public.verify(SignatureScheme::MlDsa(other), b"attributes", &signature).is_err());
            let scheme = SignatureScheme::MlDsa(other);
            let operation = KeyOperation::Sign { key: key.id(), scheme, message: Bytes::new() };
            assert!(matches!(key.perform(&operation), Err(KeyError::Unsuitable(_))));
        }
        assert!(public.encapsulate().is_err() && public.transport(KeyTransport::RsaPkcs1, &[1; 16]).is_err());
    }
}

/// A3: a ciphertext or a wrap that is wrong in any way answers with the substitute, never with an error.
#[test]
fn a03_decapsulation_gives_the_cek_and_failure_the_substitute() {
    for set in MlKem::ALL {
        let key = SoftwareKey::from_pkcs8(&cached_key(NewKey::MlKem(set), "opens")).unwrap();
        let substitute = new_cek(ContentEncryption::Aes256Gcm).unwrap();
        let (good, sent) = encapsulated(&key, set, &substitute);
        assert_eq!(cek(key.perform(&good).unwrap()), sent);
        let KeyOperation::Decapsulate { encapsulation, ciphertext, info, wrapped, content, .. } = good else {
            panic!()
        };
        let mut flipped = ciphertext.to_vec();
        flipped[100] ^= 1;
        let zeros = vec![0; ciphertext.len()];
        let with = |ciphertext: Vec<u8>, info: &Bytes, wrapped: &[u8]| KeyOperation::Decapsulate {
            key: key.id(),
            encapsulation,
            ciphertext: ciphertext.into(),
            info: info.clone(),
            wrapped: Bytes::copy_from_slice(wrapped),
            content,
            substitute: substitute.clone(),
        };
        let right = || ciphertext.to_vec();
        for bad in [
            with(flipped, &info, &wrapped),
            with(zeros, &info, &wrapped),
            with(right()[1..].to_vec(), &info, &wrapped),
            with(Vec::new(), &info, &wrapped),
            with(right(), &Bytes::from_static(b"other"), &wrapped),
            with(right(), &info, &wrapped[8..]),
            with(right(), &info, &[]),
        ] {
            assert_eq!(cek(key.perform(&bad).unwrap()), *substitute);
        }
        let sign = KeyOperation::Sign {
            key: key.id(),
            scheme: SignatureScheme::RsaPkcs1(Digest::Sha256),
            message: Bytes::new(),
        };
        assert!(matches!(key.perform(&sign), Err(KeyError::Unsuitable(_))));
    }
}

/// RFC 9881 and RFC 9935 section 6: seed, expanded key and both give one key; both that do not belong together are refused, and so
/// is an expanded key whose parts do not.
#[test]
fn seed_expanded_and_both_give_the_same_key() {
    for (oid, seed, expanded) in expanded_keys() {
        let (seed_der, expanded_der) = (write::octet_string(&seed), write::octet_string(&expanded));
        let reference = from_seed(oid, &seed).unwrap().id();
        assert_eq!(SoftwareKey::from_pkcs8(&pkcs8(oid, &expanded_der)).unwrap().id(), reference);
        let both =
            |seed: &[u8], expanded: &[u8]| SoftwareKey::from_pkcs8(&pkcs8(oid, &write::sequence(&[seed, expanded])));
        assert_eq!(both(&seed_der, &expanded_der).unwrap().id(), reference);
        let mut other = seed.clone();
        *other.last_mut().unwrap() ^= 1;
        let error = both(&write::octet_string(&other), &expanded_der).unwrap_err().to_string();
        assert!(error.contains("do not belong together"), "{error}");
        for (form, what) in [
            (write::octet_string(&expanded[1..]), "a short expanded key"),
            (write::element(tag::context_primitive(0), &[&seed[1..]]), "a short seed"),
            (write::octet_string(&seed), "a seed without its tag"),
            (write::integer(5), "an INTEGER"),
            (Vec::new(), "nothing"),
        ] {
            assert!(SoftwareKey::from_pkcs8(&pkcs8(oid, &form)).is_err(), "{what}");
        }
        // Every part of an expanded key counts, but for what no one but its owner can check (z of ML-KEM, K of ML-DSA).
        let mut refused = 0;
        let step = expanded.len() / 40;
        for position in (0..expanded.len()).step_by(step) {
            let mut damaged = expanded.clone();
            damaged[position] ^= 0x10;
            match SoftwareKey::from_pkcs8(&pkcs8(oid, &write::octet_string(&damaged))) {
                Ok(key) => assert_eq!(key.id(), reference),
                Err(_) => refused += 1,
            }
        }
        assert!(refused >= 36, "{oid}: {refused}");
    }
}

/// Identifier, seed and expanded key of a key of each set.
fn expanded_keys() -> Vec<(const_oid::ObjectIdentifier, Vec<u8>, Vec<u8>)> {
    use aws_lc_rs::encoding::AsRawBytes;
    use aws_lc_rs::signature::PqdsaKeyPair;
    #[allow(deprecated, reason = "what is compared is the expanded form")]
    use ml_kem::ExpandedKeyEncoding as _;
    let mut all = Vec::new();
    for set in MlDsa::ALL {
        let seed = vec![7; 32];
        let signing = crate::keys::post_quantum::ml_dsa_signing(set);
        let pair = PqdsaKeyPair::from_seed(signing, &seed).unwrap();
        all.push((set.oid(), seed, pair.private_key().as_raw_bytes().unwrap().as_ref().to_vec()));
    }
    #[allow(deprecated, reason = "as above")]
    {
        let seed = ml_kem::Seed::from([8; 64]);
        let small = ml_kem::DecapsulationKey512::from_seed(seed).to_expanded_bytes().to_vec();
        let middle = ml_kem::DecapsulationKey768::from_seed(seed).to_expanded_bytes().to_vec();
        let large = ml_kem::DecapsulationKey1024::from_seed(seed).to_expanded_bytes().to_vec();
        for (set, expanded) in MlKem::ALL.into_iter().zip([small, middle, large]) {
            all.push((set.oid(), vec![8; 64], expanded));
        }
    }
    all
}

/// The examples of RFC 9935: good keys in every form belong to their certificates, bad ones are refused by name.
#[test]
fn a05_the_bad_keys_of_rfc_9935_are_refused() {
    let Some(dir) = corpora() else { return };
    let folder = dir.join("pqc-cms/kyber-certificates");
    for set in ["512", "768", "1024"] {
        let certificate = std::fs::read(folder.join(format!("ML-KEM-{set}.crt"))).unwrap();
        let certificate = crate::pki::certificate::Certificate::from_pem_or_der(&certificate).unwrap().remove(0);
        for form in ["seed", "expanded", "both"] {
            let file = std::fs::read(folder.join(format!("ML-KEM-{set}-{form}.priv"))).unwrap();
            let bundle = read_any(&file, None).unwrap();
            let key = SoftwareKey::from_pkcs8(&bundle.keys[0]).unwrap_or_else(|error| panic!("{set} {form}: {error}"));
            assert_eq!(key.spki(), certificate.public_key().spki().as_ref(), "{set} {form}");
        }
    }
    for number in 1..=4 {
        let file = std::fs::read(folder.join(format!("bad-ML-KEM-512-{number}.priv"))).unwrap();
        let bundle = read_any(&file, None).unwrap();
        let error = SoftwareKey::from_pkcs8(&bundle.keys[0]).unwrap_err();
        println!("bad-ML-KEM-512-{number}: {error}");
        assert!(matches!(error, KeyError::Rejected(_)));
    }
}

#[test]
fn wycheproof_ml_dsa() {
    let mut count = 0;
    for set in MlDsa::ALL {
        let file = format!("mldsa_{}_verify_test.json", set.name().trim_start_matches("ML-DSA-"));
        count += vectors(&file, |group, test| {
            // A context other than the empty one is not used in CMS: what needs one does not verify here.
            let plain = octets(&test["ctx"]).is_empty();
            let key = PublicKey::from_spki(octets(&group["publicKeyDer"]).into());
            let result = key
                .and_then(|key| key.verify(SignatureScheme::MlDsa(set), &octets(&test["msg"]), &octets(&test["sig"])));
            assert_eq!(result.is_ok(), test["result"] == "valid" && plain, "{file} {} {result:?}", test["tcId"]);
        });
    }
    if corpora().is_some() {
        println!("ML-DSA: {count} vectors");
        assert!(count > 500);
    }
}

/// ML-KEM by our own entries: the seed as PKCS#8 gives the encapsulation key, and the operation the shared secret (through the wrap).
#[test]
fn wycheproof_ml_kem() {
    let mut count = 0;
    for set in [MlKem::MlKem768, MlKem::MlKem1024] {
        let file = format!("mlkem_{}_test.json", set.name().trim_start_matches("ML-KEM-"));
        count += vectors(&file, |_, test| {
            let valid = test["result"] == "valid";
            let Ok(key) = from_seed(set.oid(), &octets(&test["seed"])) else {
                assert!(!valid, "{file} {}", test["tcId"]);
                return;
            };
            let given = octets(&test["ek"]);
            let same = given.is_empty() || key.public_key().key_bits() == given;
            let (substitute, secret) = (new_cek(ContentEncryption::Aes256Gcm).unwrap(), octets(&test["K"]));
            let how = KeyEncapsulation::for_content(set, ContentEncryption::Aes256Gcm);
            let kek = wrap::hkdf(how.kdf, &secret, None, b"info", how.wrap.key_len()).unwrap();
            let operation = KeyOperation::Decapsulate {
                key: key.id(),
                encapsulation: how,
                ciphertext: octets(&test["c"]).into(),
                info: Bytes::from_static(b"info"),
                wrapped: wrap::wrap(how.wrap, &kek, &[5; 32]).unwrap().into(),
                content: ContentEncryption::Aes256Gcm,
                substitute,
            };
            let opened = cek(key.perform(&operation).unwrap()) == [5; 32];
            assert_eq!(same && opened, valid, "{file} {}", test["tcId"]);
        });
    }
    if corpora().is_some() {
        println!("ML-KEM: {count} vectors");
        assert!(count > 380);
    }
}

#[test]
fn fuzz_body_holds_on_seeds() {
    for (index, (_, seed, expanded)) in expanded_keys().into_iter().enumerate() {
        let first = u8::try_from(index).unwrap();
        let both = write::sequence(&[&write::octet_string(&seed), &write::octet_string(&expanded)]);
        for form in [write::element(tag::context_primitive(0), &[&seed]), write::octet_string(&expanded), both] {
            fuzz_private_key(&[&[first], form.as_slice()].concat());
            for position in [0, 1, 2, 3, 4, 5, 40, form.len() / 2, form.len() - 1] {
                let mut changed = form.clone();
                if let Some(octet) = changed.get_mut(position) {
                    *octet ^= 0x41;
                }
                fuzz_private_key(&[&[first], changed.as_slice()].concat());
                fuzz_private_key(&[&[first], &form[..position.min(form.len())]].concat());
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn fuzz_body_holds_on_any_octets(data: Vec<u8>) {
        fuzz_private_key(&data);
    }
}

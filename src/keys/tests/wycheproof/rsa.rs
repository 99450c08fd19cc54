//! RSA: PKCS#1 v1.5 and OAEP through `SoftwareKey`, signatures through `PublicKey`.

use super::*;

/// Files, and how many of each are run at least.
pub(super) const FILES: [(&str, usize); 25] = [
    ("rsa_pkcs1_2048", 67),
    ("rsa_pkcs1_3072", 67),
    ("rsa_pkcs1_4096", 67),
    ("rsa_oaep_2048_sha1_mgf1sha1", 36),
    ("rsa_oaep_2048_sha256_mgf1sha1", 0),
    ("rsa_oaep_2048_sha256_mgf1sha256", 37),
    ("rsa_oaep_2048_sha384_mgf1sha384", 34),
    ("rsa_oaep_2048_sha512_mgf1sha512", 33),
    ("rsa_oaep_3072_sha256_mgf1sha256", 37),
    ("rsa_oaep_4096_sha256_mgf1sha256", 37),
    ("rsa_oaep_4096_sha512_mgf1sha512", 36),
    ("rsa_oaep_misc", 65),
    ("rsa_signature_2048_sha256", 259),
    ("rsa_signature_2048_sha384", 258),
    ("rsa_signature_2048_sha512", 259),
    ("rsa_signature_3072_sha256", 259),
    ("rsa_signature_4096_sha256", 258),
    ("rsa_signature_4096_sha512", 259),
    ("rsa_pss_2048_sha256_mgf1_32", 108),
    ("rsa_pss_2048_sha256_mgf1_32_params", 108),
    ("rsa_pss_3072_sha256_mgf1_32", 108),
    ("rsa_pss_4096_sha256_mgf1_32", 108),
    ("rsa_pss_4096_sha512_mgf1_32", 177),
    ("rsa_pss_misc", 18),
    ("rsa_pss_misc_params", 18),
];

/// The length of their keys makes a vector's message a CEK or not: 5, 8, 16, 24, 32 octets.
const CONTENTS: [ContentEncryption; 5] = [
    ContentEncryption::Rc2Cbc40,
    ContentEncryption::Rc2Cbc64,
    ContentEncryption::Aes128Cbc,
    ContentEncryption::Aes192Gcm,
    ContentEncryption::Aes256Gcm,
];

/// A CEK comes out where the vector is good and as long as the cipher's key; in every other case the substitute, and never an
/// error (A3).
fn unwrap(key: &SoftwareKey, transport: KeyTransport, test: &Value) -> Result<(), String> {
    let message = octets(&test["msg"]);
    for content in CONTENTS {
        let substitute = new_cek(content).unwrap();
        let operation = KeyOperation::Unwrap {
            key: key.id(),
            transport,
            encrypted: Bytes::from(octets(&test["ct"])),
            content,
            substitute: substitute.clone(),
        };
        let answer = match key.perform(&operation) {
            Ok(answer) => cek(answer),
            Err(KeyError::Unsuitable(why)) => return Err(why.to_owned()),
            Err(error) => panic!("{}: {error}", test["tcId"]),
        };
        let opens =
            test["result"] != "invalid" && octets(&test["label"]).is_empty() && message.len() == content.key_len();
        assert_eq!(answer, if opens { message.clone() } else { substitute.to_vec() }, "{}", test["tcId"]);
    }
    Ok(())
}

#[test]
fn a03_rsa_decryption() {
    for (file, least) in FILES.iter().filter(|(file, _)| file.contains("pkcs1") || file.contains("oaep")) {
        let mut kept: Option<(Vec<u8>, Result<SoftwareKey, String>)> = None;
        let account = account(&format!("{file}_test.json"), |group, test| {
            let transport = match group["sha"].is_null() {
                true => KeyTransport::RsaPkcs1,
                false => KeyTransport::RsaOaep(digest(&group["sha"])?, digest(&group["mgfSha"])?),
            };
            let pkcs8 = octets(&group["privateKeyPkcs8"]);
            if kept.as_ref().is_none_or(|(known, _)| *known != pkcs8) {
                let key = SoftwareKey::from_pkcs8(&pkcs8).map_err(|error| error.to_string());
                kept = Some((pkcs8, key));
            }
            unwrap(kept.as_ref().unwrap().1.as_ref().map_err(Clone::clone)?, transport, test)
        });
        if let Some(account) = account {
            account.at_least(*least);
        }
    }
}

#[test]
fn rsa_signatures() {
    for (file, least) in FILES.iter().filter(|(file, _)| file.contains("signature") || file.contains("pss")) {
        let account = account(&format!("{file}_test.json"), |group, test| {
            let hash = digest(&group["sha"])?;
            let scheme = match group["sLen"].as_u64() {
                Some(_) if group["mgfSha"] != group["sha"] => {
                    return Err("MGF1 of another digest than the signature's (RFC 8551 has the same)".to_owned());
                }
                Some(salt) => SignatureScheme::RsaPss(hash, usize::try_from(salt).unwrap()),
                None => SignatureScheme::RsaPkcs1(hash),
            };
            verify(&octets(&group["publicKeyDer"]), scheme, test)
        });
        if let Some(account) = account {
            account.at_least(*least);
        }
    }
}

/// A vector's signature. A key or a scheme that is refused whatever the signature is not run.
pub(super) fn verify(spki: &[u8], scheme: SignatureScheme, test: &Value) -> Result<(), String> {
    let key = PublicKey::from_spki(spki.to_vec().into()).map_err(|error| error.to_string())?;
    match (key.verify(scheme, &octets(&test["msg"]), &octets(&test["sig"])), test["result"].as_str().unwrap()) {
        (Err(CmsError::Algorithm(why)), _) => Err(why),
        (Ok(()), "valid" | "acceptable") | (Err(_), "invalid" | "acceptable") => Ok(()),
        (result, expected) => panic!("{}: {result:?}, {expected} expected", test["tcId"]),
    }
}

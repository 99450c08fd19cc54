//! AES key wrap, GCM and CBC through what opens CMS content.

use super::*;
use crate::cms::enveloped::tests::open_content;

/// Files, and how many of each are run at least.
pub(super) const FILES: [(&str, usize); 3] = [("aes_wrap", 159), ("aes_gcm", 197), ("aes_cbc_pkcs5", 216)];

#[test]
fn key_wrap() {
    let account = account("aes_wrap_test.json", |group, test| {
        let how = match group["keySize"].as_u64() {
            Some(128) => KeyWrap::Aes128,
            Some(192) => KeyWrap::Aes192,
            _ => KeyWrap::Aes256,
        };
        let (kek, message, wrapped) = (octets(&test["key"]), octets(&test["msg"]), octets(&test["ct"]));
        let unwrapped = wrap::unwrap(how, &kek, &wrapped);
        if test["result"] != "invalid" && !(16..=64).contains(&message.len()) {
            assert!(unwrapped.is_err(), "{}", test["tcId"]);
            return Err("good, and refused here: only keys of 16 to 64 octets are wrapped".to_owned());
        }
        match test["result"].as_str().unwrap() {
            "invalid" => assert!(unwrapped.is_err(), "{}", test["tcId"]),
            _ => {
                assert_eq!(*unwrapped.unwrap(), message, "{}", test["tcId"]);
                assert_eq!(wrap::wrap(how, &kek, &message).unwrap(), wrapped, "{}", test["tcId"]);
            }
        }
        Ok(())
    });
    if let Some(account) = account {
        account.at_least(FILES[0].1);
    }
}

fn aes(size: &Value, gcm: bool) -> ContentEncryption {
    match (size.as_u64(), gcm) {
        (Some(128), true) => ContentEncryption::Aes128Gcm,
        (Some(192), true) => ContentEncryption::Aes192Gcm,
        (Some(256), true) => ContentEncryption::Aes256Gcm,
        (Some(128), false) => ContentEncryption::Aes128Cbc,
        (Some(192), false) => ContentEncryption::Aes192Cbc,
        _ => ContentEncryption::Aes256Cbc,
    }
}

#[test]
fn gcm() {
    let account = account("aes_gcm_test.json", |group, test| {
        if group["ivSize"] != 96 {
            return Err(
                "a nonce of another length than 12 octets, which RFC 5084 recommends and is alone read here".to_owned()
            );
        }
        if group["tagSize"] != 128 {
            return Err(format!("a tag of {} bits", group["tagSize"]));
        }
        let (cipher, iv, key) = (aes(&group["keySize"], true), octets(&test["iv"]), octets(&test["key"]));
        let (ct, aad, tag) = (octets(&test["ct"]), octets(&test["aad"]), octets(&test["tag"]));
        for length in [16, 12] {
            let opened = open_content(cipher, &iv, 16, &key, &ct, &aad, &tag[..length]);
            match test["result"].as_str().unwrap() {
                "valid" => assert_eq!(opened.unwrap(), octets(&test["msg"]), "{}", test["tcId"]),
                // A flipped bit in the tag's last four octets is not in a tag of twelve.
                _ if length == 16 => assert_eq!(opened, Err(CmsError::Crypto), "{}", test["tcId"]),
                _ => {}
            }
        }
        Ok(())
    });
    if let Some(account) = account {
        account.at_least(FILES[1].1);
    }
}

#[test]
fn cbc() {
    let account = account("aes_cbc_pkcs5_test.json", |group, test| {
        let cipher = aes(&group["keySize"], false);
        let opened =
            open_content(cipher, &octets(&test["iv"]), 0, &octets(&test["key"]), &octets(&test["ct"]), &[], &[]);
        match test["result"].as_str().unwrap() {
            "valid" => assert_eq!(opened.unwrap(), octets(&test["msg"]), "{}", test["tcId"]),
            _ => assert_eq!(opened, Err(CmsError::Crypto), "{}", test["tcId"]),
        }
        Ok(())
    });
    if let Some(account) = account {
        account.at_least(FILES[2].1);
    }
}

//! Rows that are CMS objects without a message around them.

use std::path::Path;

use base64::Engine;
use bytes::Bytes;
use waxwing::cms::algorithm::Legacy;
use waxwing::cms::enveloped::EnvelopedData;
use waxwing::cms::signed::SignedData;
use waxwing::keys::{Cek, KeyAnswer};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::path::TrustSet;

use crate::material::{Keys, WEAK, material, open};
use crate::messages::{needs_legacy, sha256_lf};
use crate::rows::Row;
use crate::{Judged, agree};

/// DER or BER, also out of PEM.
pub fn der(octets: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(octets);
    let Some(begin) =
        ["-----BEGIN CMS-----", "-----BEGIN PKCS7-----"].iter().find_map(|one| text.find(one).map(|at| at + one.len()))
    else {
        return Bytes::copy_from_slice(octets);
    };
    let body: String = text[begin..].split("-----END").next().unwrap_or_default().split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(body).map(Bytes::from).unwrap_or_default()
}

pub fn object_row(folder: &Path, row: &Row, octets: &[u8]) -> Judged {
    let object = der(octets);
    let (keys, trust) = material(folder, row);
    match row.operation.as_str() {
        "parse" => {
            // A kind that S/MIME does not use, or one that it does: no crash, nothing good.
            let opened = open(wrapped(&object), &keys, trust, row.at);
            agree(opened.verdict.signer.is_none() && !opened.verdict.decrypted, || opened.verdict.reason)
        }
        // A key in several forms: each alone opens it.
        operation if row.folder == "pqc-cms" && operation.starts_with("decrypt") => {
            let alone = row.key.split('|').map(|file| {
                let mut keys = Keys::default();
                keys.add(&folder.join(file), None);
                match keys.ids.len() {
                    1 => decrypt_object(row, &object, &keys),
                    other => Judged::Disagrees(format!("{file}: {other} keys")),
                }
            });
            alone.fold(Judged::Agrees, |so_far, judged| if matches!(so_far, Judged::Agrees) { judged } else { so_far })
        }
        "decrypt" => decrypt_object(row, &object, &keys),
        "verify" | "verify-math" => verify_object(folder, row, &object, &keys, trust),
        other => Judged::Disagrees(format!("operation {other:?} is not known")),
    }
}

pub fn wrapped(object: &[u8]) -> Entity {
    let text = base64::engine::general_purpose::STANDARD.encode(object);
    let lines: String =
        text.as_bytes().chunks(76).map(|line| format!("{}\r\n", String::from_utf8_lossy(line))).collect();
    let message = format!(
        "From: x@example.org\r\nContent-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n{lines}"
    );
    Entity::parse(message.into(), &MimeLimits::default()).expect("a message")
}

/// The content is no MIME entity, so CMS alone is asked; through a message it must stay shut.
fn decrypt_object(row: &Row, object: &Bytes, keys: &Keys) -> Judged {
    if open(wrapped(object), keys, TrustSet::default(), row.at).verdict.decrypted && row.expected == "fail" {
        return Judged::FalseGood("decrypted".into());
    }
    let strict = decrypt(object, keys, Legacy::default());
    if needs_legacy(row) && strict.is_ok() {
        return Judged::FalseGood("a weak cipher is opened without the switch".into());
    }
    let result = match (row.expected.as_str(), &strict) {
        ("policy", Err(_)) => decrypt(object, keys, WEAK),
        _ => strict.clone(),
    };
    match (row.expected.as_str(), result) {
        ("ok", Ok(content)) => agree(sha256_lf(&content) == row.sha256, || "content differs".into()),
        ("ok", Err(why)) => Judged::Disagrees(why),
        ("fail", Ok(_)) => Judged::FalseGood("decrypted".into()),
        ("fail" | "policy", Err(_)) => Judged::Agrees,
        ("policy", Ok(content)) => {
            agree(row.sha256.is_empty() || sha256_lf(&content) == row.sha256, || "content differs".into())
        }
        (other, _) => Judged::Disagrees(format!("expected {other:?} is not known")),
    }
}

pub fn decrypt(object: &Bytes, keys: &Keys, legacy: Legacy) -> Result<Bytes, String> {
    let data = EnvelopedData::parse(object, legacy).map_err(|error| error.to_string())?;
    let mut why = "no key".to_owned();
    for info in &data.recipients {
        for key in &keys.ids {
            let mut substitute = Cek::new(vec![0x5a; 32]);
            substitute.truncate(data.content.key_len());
            match info.operation(*key, data.content, substitute).map_err(|error| error.to_string()) {
                Ok(operation) => match keys.perform(operation) {
                    Ok(KeyAnswer::Cek(cek)) => match data.open(&cek) {
                        Ok(content) => return Ok(content),
                        Err(error) => why = error.to_string(),
                    },
                    Ok(_) => why = "not a CEK".into(),
                    Err(error) => why = error.to_string(),
                },
                Err(error) => why = error,
            }
        }
    }
    Err(why)
}

fn verify_object(folder: &Path, row: &Row, object: &Bytes, keys: &Keys, trust: TrustSet) -> Judged {
    let opened = open(wrapped(object), keys, trust, row.at);
    if opened.verdict.signer.is_some() {
        return Judged::FalseGood(opened.verdict.reason);
    }
    let outcome = verify(folder, row, object, keys, Legacy::default());
    let lenient = verify(folder, row, object, keys, WEAK);
    match row.expected.as_str() {
        "ok" => agree(lenient.is_ok(), || lenient.unwrap_err()),
        "fail" if lenient.is_ok() => Judged::FalseGood("verified".into()),
        "policy" if outcome.is_ok() && row.detail.contains("SHA-1") => Judged::FalseGood("SHA-1 verified".into()),
        "fail" | "policy" => Judged::Agrees,
        other => Judged::Disagrees(format!("expected {other:?} is not known")),
    }
}

/// The arithmetic of every signer, the content as told.
fn verify(folder: &Path, row: &Row, object: &Bytes, keys: &Keys, legacy: Legacy) -> Result<(), String> {
    let data = SignedData::parse(object).map_err(|error| error.to_string())?;
    if row.detail.starts_with("certificate management") {
        // Its certificates are DSA and RSA-1024: left out, and said so.
        let told = !data.certificates.is_empty() || !data.odd.is_empty();
        return if data.signers.is_empty() && data.econtent.is_none() && told {
            Ok(())
        } else {
            Err("not certificates only".into())
        };
    }
    let detached = || std::fs::read(folder.join("files/ExContent.bin")).map(Bytes::from).unwrap_or_default();
    let content = data.econtent.clone().unwrap_or_else(detached);
    if data.signers.is_empty() {
        return Err("no signer".into());
    }
    for signer in &data.signers {
        let mut known = data.certificates.iter().chain(&keys.certificates);
        let certificate = known.find(|one| signer.id.names(one)).ok_or("no certificate of the signer")?;
        signer
            .verify(&data, &content, certificate, certificate.public_key(), legacy)
            .map_err(|error| error.to_string())?;
    }
    let fits = row.sha256.is_empty() || sha256_lf(&content) == row.sha256;
    if fits { Ok(()) } else { Err("content differs".into()) }
}

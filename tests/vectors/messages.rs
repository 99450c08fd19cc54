//! Rows that are messages.

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use waxwing::cms::algorithm::Digest;
use waxwing::cms::signed::digest;
use waxwing::mime::canonical::canonical_line_ends;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::smime::open::Opened;
use waxwing::smime::verdict::{Layer, SmimeResult};

use crate::material::{context, material, open_with};
use crate::rows::Row;
use crate::{Judged, LEGACY, agree};

pub fn message_row(folder: &Path, row: &Row, octets: &[u8]) -> Judged {
    let octets = canonical_line_ends(&Bytes::copy_from_slice(octets));
    let message = match Entity::parse(octets.clone(), &MimeLimits::default()) {
        Ok(message) => message,
        Err(error) => return agree(row.expected == "fail", || error.to_string()),
    };
    let (keys, trust) = material(folder, row);
    let weak = open_with(message.clone(), &keys, context(folder, row, &keys, trust.clone(), true));
    if row.folder != "covert-content"
        && row.expected == "policy"
        && weak.verdict.decrypted
        && !row.sha256.is_empty()
        && sha256_lf(&weak.content) != row.sha256
    {
        return Judged::Disagrees("content differs with the legacy switch on".into());
    }
    let opened = open_with(message, &keys, context(folder, row, &keys, trust, false));
    // The certificates of PKITS name no mailbox: there, what is to fail is the signature or the path.
    let pass = opened.verdict.result == SmimeResult::Pass
        || opened.verdict.signer.is_some()
        || (row.folder == "pkits" && matches!(ok_message(row, &opened), Judged::Agrees));
    if needs_legacy(row) && opened.verdict.decrypted {
        return Judged::FalseGood("a weak cipher is opened without the switch".into());
    }
    match row.expected.as_str() {
        "ok" => match (ok_message(row, &opened), ok_message(row, &weak)) {
            (Judged::Disagrees(_), Judged::Agrees) => Judged::Disagrees(LEGACY.into()),
            (judged, _) => judged,
        },
        "fail" if pass => Judged::FalseGood(opened.verdict.reason),
        "fail" if row.operation == "decrypt" && opened.verdict.decrypted => Judged::FalseGood("decrypted".into()),
        "sig-good-untrusted" | "policy" if pass => Judged::FalseGood(opened.verdict.reason),
        "policy" if row.folder == "covert-content" && opened.verdict.decrypted => Judged::FalseGood("decrypted".into()),
        "no-key" if opened.verdict.decrypted => Judged::FalseGood("decrypted".into()),
        "policy" | "fail" | "no-key" | "sig-good-untrusted" => {
            agree(opened.verdict.decrypted || opened.message == octets, || "octets changed".into())
        }
        other => Judged::Disagrees(format!("expected {other:?} is not known")),
    }
}

/// `ok`: every layer opened, every signature good with a valid path, the content as told.
pub fn ok_message(row: &Row, opened: &Opened) -> Judged {
    let mut why = String::new();
    for layer in &opened.verdict.layers {
        match layer {
            Layer::Encrypted { outcome: Err(reason), .. } | Layer::Compressed { outcome: Err(reason) } => {
                let _ = write!(why, "not opened: {reason}; ");
            }
            Layer::Signed { signers, .. } => {
                for signer in signers {
                    if let Err(reason) = &signer.signature {
                        let _ = write!(why, "signature: {reason}; ");
                    } else if let Err(reason) = &signer.path {
                        let _ = write!(why, "path: {reason}; ");
                    }
                }
            }
            _ => {}
        }
    }
    let expected = row.detail.matches("env[").count() + row.detail.matches("sig[").count();
    if row.detail.contains('[') && !row.detail.contains("crypto-openable") && opened.verdict.layers.len() != expected {
        let _ = write!(why, "{} layers, {expected} expected: {}; ", opened.verdict.layers.len(), opened.verdict.reason);
    }
    if opened.verdict.result == SmimeResult::PermError {
        let _ = write!(why, "{}; ", opened.verdict.reason);
    }
    if !row.sha256.is_empty() && sha256_lf(&opened.content) != row.sha256 {
        let _ = write!(why, "content differs; ");
    }
    agree(why.is_empty(), || why)
}

pub fn sha256_lf(octets: &[u8]) -> String {
    let mut out = Vec::with_capacity(octets.len());
    for (index, octet) in octets.iter().enumerate() {
        if *octet != b'\r' || octets.get(index + 1) != Some(&b'\n') {
            out.push(*octet);
        }
    }
    digest(Digest::Sha256, &out).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Whether the row says that its content is under a cipher that is read with the switch alone.
pub fn needs_legacy(row: &Row) -> bool {
    ["3DES", "des-ede3", "RC2", "rc2"].iter().any(|name| row.detail.contains(name))
}

//! Mail that is hard to parse: nothing in it is S/MIME of ours, so every octet stays; and where our strict reading takes a tree of parts,
//! others read the same.

use std::path::Path;

use serde_json::Value;
use waxwing::mime::canonical::canonical_line_ends;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::path::TrustSet;
use waxwing::smime::verdict::SmimeResult;

use crate::material::{Keys, open};
use crate::{Case, Judged, agree};

/// Every file through opening, messages and what lies beside them: no crash, nothing good, no octet changed. As stored and with CRLF.
pub fn left_alone(root: &Path) -> Vec<Case> {
    let folder = root.join("mime-nasty");
    let cases = files(&folder, "").into_iter().map(|name| {
        let octets: bytes::Bytes = std::fs::read(folder.join(&name)).unwrap().into();
        let crlf = canonical_line_ends(&octets);
        let judged = [octets, crlf].into_iter().find_map(|octets| {
            let Ok(message) = Entity::parse(octets.clone(), &MimeLimits::default()) else { return None };
            let opened = open(message, &Keys::default(), TrustSet::default(), jiff::Timestamp::UNIX_EPOCH);
            let verdict = opened.verdict;
            if verdict.signer.is_some() || verdict.decrypted || verdict.result == SmimeResult::Pass {
                return Some(Judged::FalseGood(verdict.reason));
            }
            (opened.message != octets).then(|| Judged::Disagrees("octets changed".into()))
        });
        Case {
            name: format!("mime-nasty-left-alone\t{name}\t-"),
            wanted: "left alone".into(),
            judged: judged.unwrap_or(Judged::Agrees),
        }
    });
    cases.collect()
}

/// Names of all files below a folder.
fn files(root: &Path, under: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(under)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{under}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => found.extend(files(root, &format!("{name}/"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

/// Every message whose parse upstream gives.
pub fn trees(root: &Path) -> Vec<Case> {
    let folder = root.join("mime-nasty/mail-parser/eml");
    let mut cases = Vec::new();
    for kind in ["legacy", "malformed", "rfc", "thirdparty"] {
        let mut files: Vec<_> =
            std::fs::read_dir(folder.join(kind)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|one| one == "eml")) {
            let octets = std::fs::read(file).unwrap();
            for (end, octets) in [("json", octets.clone().into()), ("crlf.json", canonical_line_ends(&octets.into()))] {
                let Ok(upstream) = std::fs::read(file.with_extension(end)) else { continue };
                let upstream: Value = serde_json::from_slice(&upstream).unwrap();
                let name = file.file_name().unwrap().to_string_lossy();
                cases.push(Case {
                    name: format!("mime-nasty-trees\t{kind}/{name}\t{end}"),
                    wanted: "the same tree, or refused as ambiguous".into(),
                    judged: compare(octets, &upstream),
                });
            }
        }
    }
    assert!(cases.len() > 200, "{}", cases.len());
    cases
}

fn compare(octets: bytes::Bytes, upstream: &Value) -> Judged {
    let limits = MimeLimits::default();
    let Ok(ours) = Entity::parse(octets, &limits).and_then(|entity| tree(&entity, PLAIN, &limits)) else {
        return Judged::Agrees;
    };
    let theirs = their_tree(upstream, 0, PLAIN);
    agree(ours == theirs, || format!("ours {ours}, theirs {theirs}"))
}

/// What an entity without a Content-Type is; RFC 2046 5.1.5: in a digest a message.
const PLAIN: &str = "text/plain";
const MESSAGE: &str = "message/rfc822";

fn default_below(kind: &str) -> &'static str {
    if kind == "multipart/digest" { MESSAGE } else { PLAIN }
}

/// In the strict reading, the one that decides what is decrypted.
fn tree(entity: &Entity, default: &str, limits: &MimeLimits) -> Result<String, waxwing::mime::header::MimeError> {
    let content_type = entity.content_type()?;
    let stated = entity.header.one("Content-Type")?.is_some();
    let kind = if stated { content_type.essence.clone() } else { default.to_owned() };
    if content_type.is_multipart() {
        let parts = entity.parts(limits)?;
        let parts: Vec<String> =
            parts.iter().map(|part| tree(part, default_below(&kind), limits)).collect::<Result<_, _>>()?;
        return Ok(format!("{kind}[{}]", parts.join(" ")));
    }
    if kind == MESSAGE {
        return Ok(format!("{kind}({})", tree(&entity.message(limits)?, PLAIN, limits)?));
    }
    Ok(kind)
}

fn their_tree(message: &Value, index: usize, default: &str) -> String {
    let part = &message["parts"][index];
    let headers = part["headers"].as_array().unwrap();
    let content_type = headers.iter().rev().find(|one| one["name"] == "content_type");
    let content_type = content_type.map(|one| &one["value"]["ContentType"]).filter(|one| one.is_object());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_ascii_lowercase();
    let kind =
        content_type.map_or(default.to_owned(), |one| format!("{}/{}", word(&one["c_type"]), word(&one["c_subtype"])));
    let body = &part["body"];
    if let Some(children) = body.get("Multipart") {
        let children = children.as_array().unwrap().iter();
        let children: Vec<String> =
            children.map(|child| their_tree(message, child.as_u64().unwrap() as usize, default_below(&kind))).collect();
        return format!("{kind}[{}]", children.join(" "));
    }
    match body.get("Message") {
        Some(inner) => format!("{kind}({})", their_tree(inner, 0, PLAIN)),
        None => kind,
    }
}

//! Foreign mail: nothing crashes, and what is prepared decodes to the tree of parts it was.

use super::*;
use crate::outside::corpora;
use mail_parser::{MessageParser, MimeHeaders as _, PartType};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
    found.sort();
}

fn leaves(entity: &Entity, limits: &MimeLimits, count: &mut usize) {
    let _ = (entity.header.single_from(), entity.header.to_and_cc(), entity.decoded_body(), entity.parts(limits));
    let message = entity.content_type().is_ok_and(|t| t.essence == "message/rfc822").then(|| entity.message(limits));
    match (entity.parts_lenient(limits), message) {
        (Ok(parts), _) => parts.iter().for_each(|part| leaves(part, limits, count)),
        (_, Some(Ok(message))) => leaves(&message, limits, count),
        _ => *count += 1,
    }
}

#[test]
fn nasty_messages_are_read_without_a_crash() {
    let Some(dir) = corpora() else { return };
    let dir = dir.join("mime-nasty");
    let index = std::fs::read_to_string(dir.join("INDEX.tsv")).unwrap();
    let rows = index.lines().skip(1).filter_map(|row| {
        let mut columns = row.split('\t');
        Some((columns.next()?.to_owned(), columns.nth(2)?.to_owned()))
    });
    let expected: BTreeMap<String, String> = rows.collect();
    let mut all = Vec::new();
    files(&dir, &mut all);
    let (mut agree, mut compared) = (0, 0);
    for path in &all {
        let octets = std::fs::read(path).unwrap();
        fuzz_canonical(&octets);
        crate::mime::entity::fuzz_entity(&octets);
        crate::mime::header::fuzz_header(&octets);
        crate::smime::verdict::fuzz_strip(&octets);
        let limits = MimeLimits::default();
        let Ok(entity) = Entity::parse(octets.into(), &limits) else { continue };
        let mut count = 0;
        leaves(&entity, &limits, &mut count);
        if let Some(leaves) = path.strip_prefix(&dir).ok().and_then(|name| expected.get(name.to_str()?)) {
            compared += 1;
            agree += usize::from(*leaves == count.to_string());
        }
    }
    println!("{} files; leaves as Python counts them: {agree} of {compared}", all.len());
    assert!(all.len() > 300 && agree * 10 >= compared * 8);
}

/// Type and decoded content of every leaf, as mail-parser reads them.
fn tree(message: &mail_parser::Message<'_>, out: &mut Vec<(String, Vec<u8>)>) {
    for part in &message.parts {
        let kind = part
            .content_type()
            .map_or_else(|| "text/plain".into(), |t| format!("{}/{}", t.c_type, t.c_subtype.as_deref().unwrap_or("")));
        let content = match &part.body {
            PartType::Message(inner) => {
                tree(inner, out);
                continue;
            }
            PartType::Multipart(_) => continue,
            PartType::Text(text) | PartType::Html(text) => text.as_bytes(),
            PartType::Binary(octets) | PartType::InlineBinary(octets) => octets,
        };
        let lines: Vec<u8> = content.iter().copied().filter(|octet| *octet != b'\r').collect();
        out.push((kind.to_ascii_lowercase(), lines.trim_ascii_end().to_vec()));
    }
}

fn tree_of(octets: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    if let Some(message) = MessageParser::default().parse(octets) {
        tree(&message, &mut out);
    }
    out
}

/// The real mails, unpacked by tar; `None` where it is not at hand.
fn real_mails(dir: &Path) -> Option<tempfile::TempDir> {
    let to = tempfile::tempdir().ok()?;
    let archive = dir.join("real-mail-spamassassin/spamassassin-corpus.tar.xz");
    let done = Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(to.path()).status();
    done.is_ok_and(|status| status.success()).then_some(to)
}

#[test]
fn real_mails_decode_to_the_same_parts_when_prepared() {
    let Some(dir) = corpora() else { return };
    if !crate::outside::peers(&["tar", "xz"]) {
        return;
    }
    let unpacked = real_mails(&dir).expect("tar unpacks the corpus");
    let mut all = Vec::new();
    files(unpacked.path(), &mut all);
    let limits = MimeLimits::default();
    let (mut same, mut differ, mut refused) = (0, Vec::new(), BTreeMap::<String, usize>::new());
    for path in all.iter().step_by(8) {
        let file = std::fs::read(path).unwrap();
        let mail = match file.starts_with(b"From ") {
            true => file.splitn(2, |octet| *octet == b'\n').nth(1).unwrap_or_default(),
            false => &file,
        };
        let mail = canonical_line_ends(&Bytes::copy_from_slice(mail));
        let prepared = Entity::parse(mail.clone(), &limits).and_then(|entity| prepare(&entity, &limits));
        match prepared {
            Ok(prepared) => {
                let whole = [&prepared.outer[..], b"MIME-Version: 1.0\r\n", &prepared.inner.to_bytes()[..]].concat();
                if tree_of(&mail) == tree_of(&whole) {
                    same += 1;
                } else {
                    differ.push(path.file_name().unwrap().to_owned());
                }
            }
            Err(error) => *refused.entry(error.to_string()).or_default() += 1,
        }
    }
    println!("{same} the same, {} differ {differ:?}, refused {refused:?}", differ.len());
    assert!(same > 300 && differ.len() * 50 <= same && refused.values().sum::<usize>() * 50 <= same);
}

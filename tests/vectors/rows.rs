//! `expected.tsv`: its rows, and which judge each has.

use std::path::Path;

use jiff::Timestamp;
use waxwing::pki::certificate::{Certificate, Purpose};
use waxwing::pki::path::{PathLimits, TrustSet, validate};
use waxwing::pki::pkcs12;

use crate::material::{certificates, global};
use crate::messages::message_row;
use crate::objects::object_row;
use crate::{Case, Judged, agree};

/// A row of an `expected.tsv`.
pub struct Row {
    pub folder: &'static str,
    pub file: String,
    pub key: String,
    pub operation: String,
    pub expected: String,
    pub detail: String,
    pub sha256: String,
    pub at: Timestamp,
}

/// Every row of a folder's `expected.tsv`, judged.
pub fn judged(root: &Path, folder: &'static str) -> Vec<Case> {
    let rows = read_rows(root, folder).into_iter().map(|row| Case {
        name: format!("{}\t{}\t{}", row.folder, row.file, row.key),
        wanted: format!("{} {}", row.operation, row.expected),
        judged: judge(&root.join(folder), &row),
    });
    rows.collect()
}

fn read_rows(root: &Path, folder: &'static str) -> Vec<Row> {
    let text = std::fs::read_to_string(root.join(folder).join("expected.tsv")).expect("expected.tsv");
    let rows = text.lines().skip(1).filter(|line| !line.is_empty()).map(|line| {
        let mut cells = line.split('\t').map(str::to_owned);
        let mut next = || cells.next().unwrap_or_default();
        let (file, key, operation, expected, detail, sha256) = (next(), next(), next(), next(), next(), next());
        let at = next().parse().unwrap_or_else(|_| "2026-07-25T17:20:00Z".parse().expect("a time"));
        Row { folder, file, key, operation, expected, detail, sha256, at }
    });
    rows.collect()
}

fn judge(folder: &Path, row: &Row) -> Judged {
    let octets = match std::fs::read(folder.join(&row.file)) {
        Ok(octets) => octets,
        Err(error) => return Judged::Disagrees(error.to_string()),
    };
    match row.operation.as_str() {
        "path-validate" => path_row(folder, row),
        "import" | "import p12" => import_row(row, &octets),
        _ if is_message(row, &octets) => message_row(folder, row, &octets),
        _ => object_row(folder, row, &octets),
    }
}

fn is_message(row: &Row, octets: &[u8]) -> bool {
    row.folder == "mime-nasty"
        || row.file.ends_with(".eml")
        || octets.starts_with(b"MIME-Version:")
        || (row.file.ends_with(".txt") && !octets.starts_with(b"-----BEGIN"))
}

fn path_row(folder: &Path, row: &Row) -> Judged {
    let files = folder.join("files");
    let leaf = certificates(&folder.join(&row.file)).remove(0);
    let (rsa, ed) =
        (certificates(&files.join("ca.rsa.crt")).remove(0), certificates(&files.join("ca.25519.crt")).remove(0));
    let (own, other) = if leaf.issuer() == rsa.subject() { (rsa, ed) } else { (ed, rsa) };
    let cross = row.key.contains("OTHER CA");
    let anchor = if cross { other } else { own };
    let extra: Vec<Certificate> =
        ["ca.rsa.cross.crt", "ca.25519.cross.crt"].iter().flat_map(|one| certificates(&files.join(one))).collect();
    let trust = TrustSet { anchors: vec![global(anchor)], ..TrustSet::default() };
    let purpose = if row.file.contains("encrypt") { Purpose::Encryption } else { Purpose::Signature };
    let extra = if cross { &extra[..] } else { &[] };
    let result = validate(&leaf, extra, &trust, purpose, None, row.at, &PathLimits::default());
    agree(result.is_ok() == (row.expected == "ok"), || format!("{:?}", result.err()))
}

fn import_row(row: &Row, octets: &[u8]) -> Judged {
    let password = row.key.split_whitespace().last().unwrap_or_default();
    let bundle = match pkcs12::import(octets, password) {
        Ok(bundle) => bundle,
        Err(error) => return agree(row.expected == "fail", || error.to_string()),
    };
    let count = |what: &str| -> Option<usize> {
        let words: Vec<&str> = row.detail.split(|one: char| one.is_whitespace() || one == ';').collect();
        words.windows(2).find(|pair| pair[1].starts_with(what)).and_then(|pair| pair[0].parse().ok())
    };
    let fits = count("key").is_none_or(|count| count == bundle.keys.len())
        && count("cert").is_none_or(|count| count == bundle.certificates.len());
    agree(fits && row.expected == "ok", || {
        format!("{} keys, {} certificates", bundle.keys.len(), bundle.certificates.len())
    })
}

//! Foreign test material, made by nobody on this project: every row of the `expected.tsv` of the folders below, PKITS with its policy
//! variants, x509-limbo, pyca's files, and mail that is hard to parse. Found through WAXWING_CORPORA; a row that disagrees stands in
//! `vectors_listed.tsv` with its reason, a false "ok" never.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

#[path = "vectors/limbo.rs"]
mod limbo;
#[path = "vectors/material.rs"]
mod material;
#[path = "vectors/messages.rs"]
mod messages;
#[path = "vectors/nasty.rs"]
mod nasty;
#[path = "vectors/objects.rs"]
mod objects;
#[path = "support/outside.rs"]
mod outside;
#[path = "vectors/pkits.rs"]
mod pkits;
#[path = "vectors/post_quantum.rs"]
mod post_quantum;
#[path = "vectors/pyca.rs"]
mod pyca;
#[path = "vectors/rows.rs"]
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use material::{Keys, certificates, open};
use outside::corpora;
use waxwing::mime::canonical::canonical_line_ends;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::path::TrustSet;

/// Folders with an `expected.tsv`.
const FOLDERS: [&str; 14] = [
    "rfc4134",
    "rfc9216",
    "thunderbird-smime",
    "bc-cms-literals",
    "covert-content",
    "openssl-cms",
    "mimekit-smime",
    "java-utils-mail-smime",
    "notmuch",
    "autocrypt-protected-headers",
    "rfc9788-header-protection",
    "mime-nasty",
    "pkits",
    "pqc-cms",
];

/// A row that agrees once the legacy switch is on; its reason on the list begins with "legacy".
const LEGACY: &str = "agrees with the legacy switch on";

/// A row of a corpus, judged.
struct Case {
    /// Corpus, file or id, key: as in `vectors_listed.tsv`.
    name: String,
    /// What is done and what is to come out.
    wanted: String,
    judged: Judged,
}

enum Judged {
    Agrees,
    Disagrees(String),
    /// Something was called good or opened that must not be.
    FalseGood(String),
}

fn agree(condition: bool, why: impl FnOnce() -> String) -> Judged {
    if condition { Judged::Agrees } else { Judged::Disagrees(why()) }
}

/// The table and what is wrong with it.
#[derive(Default)]
struct Account {
    seen: BTreeSet<String>,
    complaints: Vec<String>,
    totals: [usize; 3],
}

impl Account {
    fn corpus(&mut self, label: &str, cases: Vec<Case>, listed: &BTreeMap<String, String>) {
        let (rows, mut agree, mut excused) = (cases.len(), 0, 0);
        for Case { name, wanted, judged } in cases {
            match (judged, listed.get(&name)) {
                (Judged::Agrees, None) => agree += 1,
                (Judged::Agrees, Some(_)) => self.complaints.push(format!("{name}: agrees now: take it off the list")),
                (Judged::FalseGood(what), _) => self.complaints.push(format!("{name}: FALSE GOOD: {what}")),
                (Judged::Disagrees(what), Some(reason)) if (what == LEGACY) != reason.starts_with("legacy") => {
                    self.complaints.push(format!("{name}: {what}, listed because of {reason}"));
                }
                (Judged::Disagrees(_), Some(_)) => excused += 1,
                (Judged::Disagrees(what), None) => self.complaints.push(format!("{name}: {wanted}: {what}")),
            }
            if !self.seen.insert(name.clone()) {
                self.complaints.push(format!("{name}: stands twice"));
            }
        }
        self.line(label, rows, agree, excused);
        for (total, count) in self.totals.iter_mut().zip([rows, agree, excused]) {
            *total += count;
        }
    }
    fn line(&self, label: &str, rows: usize, agree: usize, listed: usize) {
        println!("| {label:<28} | {rows:>5} | {agree:>5} | {listed:>6} |");
    }
}

#[test]
fn foreign_vectors() {
    let Some(root) = corpora() else { return };
    let listed = listed();
    let mut account = Account::default();
    println!("| {:<28} | {:>5} | {:>5} | {:>6} |", "corpus", "rows", "agree", "listed");
    println!("|{:-<30}|{:->7}|{:->7}|{:->8}|", "", "", "", "");
    for folder in FOLDERS {
        account.corpus(folder, rows::judged(&root, folder), &listed);
    }
    account.corpus("pkits, policy variants", pkits::variants(&root), &listed);
    account.corpus("x509-limbo", limbo::cases(&root), &listed);
    for (label, cases) in pyca::cases(&root) {
        account.corpus(label, cases, &listed);
    }
    account.corpus("mime-nasty, left alone", nasty::left_alone(&root), &listed);
    account.corpus("mime-nasty, trees", nasty::trees(&root), &listed);
    let [rows, agree, excused] = account.totals;
    account.line("in all", rows, agree, excused);
    for name in listed.keys().filter(|name| !account.seen.contains(*name)) {
        account.complaints.push(format!("{name}: listed, but there is no such row"));
    }
    let complaints = account.complaints;
    assert!(complaints.is_empty(), "{} disagreements:\n{}", complaints.len(), complaints.join("\n"));
}

/// Every mail of the set, in every form: only the one whose root is the CMS object is decrypted (EFAIL, covert content).
#[test]
fn a01_of_the_covert_content_set_only_the_original_is_decrypted() {
    let Some(root) = corpora() else { return };
    let folder = root.join("covert-content");
    let mut keys = Keys::default();
    keys.certificates.extend(certificates(&folder.join("secret-keys/manager@bigcorporation.crt")));
    keys.add(&folder.join("secret-keys/plain.key"), None);
    let mut decrypted = Vec::new();
    let mut shut = 0;
    for file in mails(&folder) {
        let octets = canonical_line_ends(&std::fs::read(&file).unwrap().into());
        let message = Entity::parse(octets.clone(), &MimeLimits::default()).unwrap();
        let opened = open(message, &keys, TrustSet::default(), "2020-10-01T00:00:00Z".parse().unwrap());
        if opened.verdict.decrypted {
            decrypted.push(file);
        } else {
            assert_eq!(opened.message, octets);
            assert_eq!(opened.operations, 0);
            shut += 1;
        }
    }
    assert_eq!(decrypted, [folder.join("01-enc/smime/00-original-mail.eml")]);
    assert!(shut >= 7, "{shut}");
}

/// Every `.eml` below a folder.
fn mails(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|one| one == "eml") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// Rows that may disagree: folder, file, key, reason.
fn listed() -> BTreeMap<String, String> {
    let text = include_str!("vectors_listed.tsv");
    let mut listed = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, reason) = line.rsplit_once('\t').expect("folder, file, key, reason");
        assert!(reason.len() > 10, "a reason for {name}");
        listed.insert(name.to_owned(), reason.to_owned());
    }
    listed
}

//! The guides hold: their lines are taken out of their pages, the real servers are started with them, and mail goes both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::string_slice, reason = "tests: at places that were found in the string")]
#![cfg(feature = "server")]

#[allow(dead_code, reason = "of the directory server nothing is used but its tools")]
#[path = "support/directory.rs"]
mod directory;
#[path = "guides/dovecot.rs"]
mod dovecot;
#[path = "guides/exim.rs"]
mod exim;
#[path = "guides/foreign.rs"]
mod foreign;
#[path = "support/names.rs"]
mod names;
#[path = "guides/opensmtpd.rs"]
mod opensmtpd;
#[path = "support/outside.rs"]
mod outside;
#[path = "guides/page.rs"]
mod page;
#[path = "support/people.rs"]
mod people;
#[path = "guides/postfix.rs"]
mod postfix;
#[path = "support/postfix.rs"]
mod server;
#[path = "guides/site.rs"]
mod site;
mod support;
#[path = "guides/world.rs"]
mod world;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn config_check(file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waxwing")).args(["config", "check"]).arg(file).output().unwrap()
}

/// Every `waxwing.toml`, with its name. The lines of `world.md` stand behind those of every page with a smarthost, and each block of them alone
/// behind those of the last.
fn whole_files() -> Vec<(String, String)> {
    let toml = |page: &page::Page| -> Vec<(String, String)> {
        let blocks = page.blocks().into_iter().filter(|block| block.language == "toml");
        blocks.map(|block| (format!("{}: {} {}", page.name, block.file, block.variant), block.text)).collect()
    };
    let (added, pages): (Vec<_>, Vec<_>) = page::pages().into_iter().partition(|page| page.name == "world.md");
    let mut all: Vec<(String, String)> = pages.iter().flat_map(toml).collect();
    let added: Vec<(String, String)> = added.iter().flat_map(toml).collect();
    let mut fronts = all.clone();
    fronts.retain(|(_, text)| text.contains("smarthost.provider.example"));
    assert!(fronts.len() >= 5 && added.len() == 2, "{} {}", fronts.len(), added.len());
    let lines: String = added.iter().map(|(_, lines)| lines.as_str()).collect();
    all.extend(fronts.iter().map(|(name, text)| (format!("{name}, and world.md"), format!("{text}\n{lines}"))));
    let (name, text) = &fronts[fronts.len() - 1];
    all.extend(added.iter().map(|(one, lines)| (format!("{name}, and {one}"), format!("{text}\n{lines}"))));
    all
}

/// Lines in the documents that are parts of a file.
#[test]
fn every_part_of_a_configuration_in_the_documents_is_valid() {
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let (folder, before) =
        (tempfile::tempdir().unwrap(), page::Page::open("postfix.md").lines("waxwing.toml", "front"));
    let file = folder.path().join("waxwing.toml");
    let mut tried = 0;
    for entry in fs::read_dir(documents).unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for part in text.split("```toml\n").skip(1) {
            let part = part.split("```").next().unwrap();
            fs::write(&file, format!("{before}\n{part}")).unwrap();
            let told = config_check(&file);
            assert!(told.status.success(), "{}: {part}: {}", path.display(), String::from_utf8_lossy(&told.stdout));
            tried += 1;
        }
    }
    assert!(tried >= 6, "{tried}");
    // What a page's block without a file name has would not be looked at.
    for page in page::pages() {
        assert!(!page.text.contains("```toml\n"), "{}: a block that no test looks at", page.name);
    }
}

#[test]
fn every_configuration_in_the_guides_is_valid_and_every_misspelled_key_in_it_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("waxwing.toml");
    let users = folder.path().join("users");
    let mut tried = 0;
    for (name, text) in whole_files() {
        // What `waxwing user set` makes is there already.
        fs::write(&users, "").unwrap();
        let text = text.replace("/etc/waxwing/users", &users.display().to_string());
        fs::write(&file, &text).unwrap();
        let told = config_check(&file);
        assert!(told.status.success(), "{name}: {}", String::from_utf8_lossy(&told.stdout));
        for end in page::keys(&text) {
            let (before, after) = text.split_at(end);
            fs::write(&file, format!("{before}x{after}")).unwrap();
            let (told, line) = (config_check(&file), before.lines().count());
            let words = String::from_utf8(told.stdout).unwrap();
            assert_eq!(told.status.code(), Some(1), "{name}, line {line}, is taken: {words}");
            assert!(words.contains(&format!("waxwing.toml:{line}: ")), "{name}, line {line}, is not named: {words}");
            tried += 1;
        }
    }
    assert!(tried > 150, "only {tried} keys were found");
}

#[test]
fn every_guide_says_what_an_operator_asks_and_stands_in_the_index() {
    let index = fs::read_to_string(page::folder().join("README.md")).unwrap();
    for page in page::pages() {
        assert!(index.contains(&format!("({})", page.name)), "docs/guides/README.md does not name {}", page.name);
        for said in ["What you get", "# See that it works", "# What can go wrong", "# Take it out again"] {
            assert!(page.text.contains(said), "{} has no {said:?}", page.name);
        }
        let run = page.text.contains("`tests/guides.rs` takes the lines of this page");
        let not_run = page.text.contains("not run here");
        assert!(run != not_run, "{} says whether it is run, once", page.name);
        let code = ["postfix", "exim", "opensmtpd", "dovecot", "world"].contains(&page.name.trim_end_matches(".md"));
        assert_eq!(run, code, "{}", page.name);
    }
}

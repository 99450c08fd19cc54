use std::path::Path;

use super::chain::{Summary, Verifier};
use super::*;
use crate::cms::algorithm::Digest;

fn settings(folder: &Path, rotate: u64) -> config::Audit {
    config::Audit { file: folder.join("audit.log"), rotate }
}

fn used<'a>(mail: &'a str, mailbox: &'a str) -> KeyRecord<'a> {
    let key = KeyId([7; 32]);
    KeyRecord { operation: "sign", mail, mailbox, certificate: Some([1; 32]), key, outcome: "done" }
}

fn look(texts: &[(&str, String)]) -> Summary {
    let mut verifier = Verifier::default();
    for (name, text) in texts {
        for (at, line) in text.split_terminator('\n').enumerate() {
            verifier.line(name, at as u64 + 1, line.as_bytes());
        }
    }
    verifier.finish(None, false)
}

fn read(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("audit.log")).unwrap()
}

/// Nine good lines.
fn nine(folder: &Path) -> Vec<String> {
    let log = AuditLog::open(&settings(folder, 1 << 20)).unwrap();
    for number in 1..=9 {
        log.key_used_now(used(&format!("mail {number}"), "anna@example.org")).unwrap();
    }
    read(folder).lines().map(str::to_owned).collect()
}

fn faults(lines: &[String]) -> Vec<(u64, String)> {
    let text = lines.iter().map(|line| format!("{line}\n")).collect();
    look(&[("a", text)]).faults.into_iter().map(|fault| (fault.line, fault.what)).collect()
}

#[test]
fn lines_are_chained_and_say_what_was_done_with_which_key() {
    let folder = tempfile::tempdir().unwrap();
    let lines = nine(folder.path());
    assert_eq!(faults(&lines), []);
    let first: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((first["seq"].as_u64(), first["prev"].as_str()), (Some(1), Some(chain::NOTHING)));
    assert_eq!((first["op"].as_str(), first["mailbox"].as_str()), (Some("sign"), Some("anna@example.org")));
    assert_eq!((first["mail"].as_str(), first["outcome"].as_str()), (Some("mail 1"), Some("done")));
    assert_eq!(
        (first["key"].as_str().unwrap(), first["certificate"].as_str().unwrap()),
        ("07".repeat(32).as_str(), "01".repeat(32).as_str())
    );
    let second: Value = serde_json::from_str(&lines[1]).unwrap();
    let expected: String =
        Digest::Sha256.of(lines[0].as_bytes()).as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(
        second["prev"].as_str().unwrap(),
        expected,
        "the hash is SHA-256 of the line before, without its line end"
    );
}

#[test]
fn what_was_altered_removed_reordered_or_cut_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = nine(folder.path());
    let mut altered = good.clone();
    altered[3] = altered[3].replace("mail 4", "mail 5");
    assert!(matches!(&faults(&altered)[..], [(4, what)] if what.contains("line 4 of the chain was altered")));
    let mut removed = good.clone();
    drop(removed.remove(4));
    assert!(matches!(&faults(&removed)[..], [(5, what)] if what.contains("line 5 of the chain is missing")));
    let mut several = good.clone();
    several.drain(2..5);
    assert!(matches!(&faults(&several)[..], [(3, what)] if what.contains("lines 3 to 5 of the chain")));
    let mut reordered = good.clone();
    reordered.swap(5, 6);
    let found = faults(&reordered);
    assert!(
        found.iter().any(|(line, what)| *line == 7 && what.contains("line 6 of the chain stands behind line 7")),
        "{found:?}"
    );
    let mut cut = good.clone();
    cut[6].truncate(40);
    assert!(matches!(&faults(&cut)[..], [(7, what)] if what.contains("cannot be read")));
    let mut doubled = good.clone();
    doubled.insert(3, good[2].clone());
    assert!(faults(&doubled).iter().any(|(line, what)| *line == 4 && what.contains("twice")));
    // A forged first line, and a renumbered one.
    let mut forged = good.clone();
    forged[0] = forged[0].replace("\"seq\":1", "\"seq\":2");
    assert!(!faults(&forged).is_empty());
}

#[test]
fn a_cut_end_is_seen_by_who_kept_the_hash_of_the_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let lines = nine(folder.path());
    let head = chain::hash(lines[8].as_bytes());
    let verify = |lines: &[String]| {
        let mut verifier = Verifier::default();
        let mut seen = false;
        for (at, line) in lines.iter().enumerate() {
            seen |= chain::hash(line.as_bytes()) == head;
            verifier.line("a", at as u64 + 1, line.as_bytes());
        }
        verifier.finish(Some(&head), seen).faults
    };
    assert_eq!(verify(&lines), []);
    assert!(verify(&lines[..8])[0].what.contains("the end was cut off"));
}

#[test]
fn a_chain_goes_on_over_files_that_were_moved_aside_and_over_processes() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), 1_500);
    let (one, other) = (AuditLog::open(&settings).unwrap(), AuditLog::open(&settings).unwrap());
    for number in 0..40 {
        let log = if number % 3 == 0 { &one } else { &other };
        log.key_used_now(used(&number.to_string(), "anna@example.org")).unwrap();
    }
    drop((one, other));
    let third = AuditLog::open(&settings).unwrap();
    let subject = "info@example.org".to_owned();
    let alias = Changed { operation: "alias", subject, certificate: None, what: "of anna@example.org".to_owned() };
    third.changed("alias add", &[alias]).unwrap();
    assert_eq!(third.head().0, 41);
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // NAME.000… sorts behind NAME, which is the newest.
    names.sort();
    names.rotate_left(1);
    assert!(names.len() > 5, "{names:?}");
    let texts: Vec<(&str, String)> = names.iter().map(|name| ("f", std::fs::read_to_string(name).unwrap())).collect();
    let whole = look(&texts);
    assert_eq!((whole.faults, whole.lines, whole.first), (vec![], 41, Some(1)));
    let without = look(&[&texts[..2], &texts[3..]].concat());
    assert!(without.faults[0].what.contains("missing"), "{without:?}");
}

#[test]
fn half_a_line_that_a_crash_left_is_told_of_and_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let lines = nine(folder.path());
    let (whole, half) = (lines[..5].join("\n"), lines[5].split_at(50).0);
    std::fs::write(folder.path().join("audit.log"), format!("{whole}\n{half}")).unwrap();
    let log = AuditLog::open(&settings(folder.path(), 1 << 20)).unwrap();
    log.key_used_now(used("after", "anna@example.org")).unwrap();
    let summary = look(&[("a", read(folder.path()))]);
    assert_eq!((summary.faults, summary.torn, summary.lines), (vec![], 1, 8));
    // Nothing but the line end was lost.
    std::fs::write(folder.path().join("audit.log"), lines.join("\n")).unwrap();
    let log = AuditLog::open(&settings(folder.path(), 1 << 20)).unwrap();
    log.key_used_now(used("after", "anna@example.org")).unwrap();
    let summary = look(&[("a", read(folder.path()))]);
    assert_eq!((summary.faults, summary.lines, log.head().0), (vec![], 11, 11));
    // The very first line is half a line.
    std::fs::write(folder.path().join("audit.log"), lines[0].split_at(30).0).unwrap();
    let log = AuditLog::open(&settings(folder.path(), 1 << 20)).unwrap();
    log.key_used_now(used("after", "anna@example.org")).unwrap();
    let summary = look(&[("a", read(folder.path()))]);
    assert_eq!((summary.faults, summary.torn, summary.lines), (vec![], 1, 3));
    // The same half line in the middle of lines that say nothing of it is a fault.
    let mut cut = lines.clone();
    cut[5].truncate(50);
    assert_eq!(faults(&cut).len(), 1);
}

#[test]
fn a28_nothing_from_outside_gets_raw_into_the_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::open(&settings(folder.path(), 1 << 20)).unwrap();
    let evil = "x\"}\r\n{\"seq\":9\u{1b}[2J\u{7f}\u{85}\u{202e}\u{2028}y";
    log.key_used_now(used(evil, evil)).unwrap();
    log.key_used_now(used(&"ä".repeat(100_000), evil)).unwrap();
    let text = read(folder.path());
    assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || matches!(c, '\u{202e}' | '\u{2028}'))), "{text:?}");
    assert_eq!(text.lines().count(), 2);
    assert!(text.len() < 8_000);
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["mail"].as_str().unwrap(), evil, "escaped, not lost");
    assert_eq!(look(&[("a", text)]).faults, []);
}

#[test]
fn a_file_that_is_no_audit_log_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), 1 << 20);
    std::fs::write(&settings.file, "a letter\nto somebody\n").unwrap();
    let refused = AuditLog::open(&settings).unwrap_err();
    assert!(refused.why.contains("no audit log"), "{refused}");
    assert_eq!(read(folder.path()), "a letter\nto somebody\n");
}

#[test]
fn while_it_cannot_be_written_everybody_is_told_so_and_afterwards_it_says_how_many() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let settings = settings(&inside, 1 << 20);
    let log = AuditLog::open(&settings).unwrap();
    log.key_used_now(used("before", "anna@example.org")).unwrap();
    let before = std::fs::read(&settings.file).unwrap();
    // The folder is gone: whoever runs this, root too, cannot write there.
    std::fs::rename(&inside, folder.path().join("elsewhere")).unwrap();
    assert!(log.key_used_now(used("meanwhile", "anna@example.org")).is_err());
    assert!(log.works().is_err());
    assert_eq!(std::fs::read(folder.path().join("elsewhere/audit.log")).unwrap(), before);
    std::fs::rename(folder.path().join("elsewhere"), &inside).unwrap();
    log.key_used_now(used("after", "anna@example.org")).unwrap();
    assert_eq!(log.works(), Ok(()));
    let text = read(&inside);
    assert_eq!(look(&[("a", text.clone())]).faults, []);
    assert!(text.contains("\"op\":\"gap\"") && !text.contains("meanwhile") && text.contains("after"), "{text}");
}

#[test]
fn fuzz_bodies_run() {
    for data in [&b""[..], b"\n\n", b"{\"seq\":1,\"prev\":\"0\"}\n", b"a\x85\xe2\x80\xa8b\nc", &[0xff; 300]] {
        chain::fuzz_audit_log(data);
    }
}

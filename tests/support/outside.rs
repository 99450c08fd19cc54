//! What tests need from outside: foreign material and foreign programs. Where one is missing the test is left out and says so, past the
//! harness's capture; where it is required (`WAXWING_REQUIRE_CORPORA=1`, `WAXWING_REQUIRE_PEERS=1`) that is a failure.
#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::io::Write;
use std::path::{Path, PathBuf};

fn left_out(what: &str, required: &str) {
    // `println!` would be captured; a person who runs `cargo test` is to see this.
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "left out: {test}: {what}");
    assert!(std::env::var_os(required).is_none_or(|value| value != "1"), "{what}, and {required}=1");
}

/// The folder of foreign test material, from `WAXWING_CORPORA`.
pub fn corpora() -> Option<PathBuf> {
    let folder = std::env::var_os("WAXWING_CORPORA").map(PathBuf::from);
    if folder.is_none() {
        left_out("skipped: no corpora (WAXWING_CORPORA is not set)", "WAXWING_REQUIRE_CORPORA");
    }
    folder
}

/// Where a program is, in PATH or the system's own folders.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|folder| Path::new(folder).join(program)).find(|file| file.is_file())
}

/// Whether all these programs are here.
pub fn peers(programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| find(program).is_none()).collect();
    if !missing.is_empty() {
        left_out(&format!("peer left out: {}", missing.join(", ")), "WAXWING_REQUIRE_PEERS");
    }
    missing.is_empty()
}

/// An OpenSSL with post-quantum CMS (3.6 or later), which `scripts/openssl-peer` builds.
pub fn openssl_pq() -> Option<PathBuf> {
    let path = told("scripts/openssl-peer");
    if path.is_none() {
        left_out("peer left out: OpenSSL 3.6 (build it with scripts/openssl-peer)", "WAXWING_REQUIRE_PEERS");
    }
    path
}

/// The folder with the roots of Exim and OpenSMTPD, which `scripts/mail-servers` makes.
pub fn mail_servers() -> Option<PathBuf> {
    let path = told("scripts/mail-servers");
    if path.is_none() {
        left_out("peer left out: Exim and OpenSMTPD (make them with scripts/mail-servers)", "WAXWING_REQUIRE_PEERS");
    }
    path
}

/// The path that a script of ours prints where it has made it before.
fn told(script: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let told = std::process::Command::new(script).arg("--if-there").output().ok().filter(|told| told.status.success());
    told.map(|told| PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()))
}

/// Whether something that is no program is here.
pub fn is_here(here: bool, what: &str) -> bool {
    if !here {
        left_out(&format!("peer left out: {what}"), "WAXWING_REQUIRE_PEERS");
    }
    here
}

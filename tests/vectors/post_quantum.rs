//! Post-quantum certificates.

use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use waxwing::cms::algorithm::signature_scheme;
use waxwing::pki::certificate::{Certificate, Purpose};
use waxwing::pki::path::{PathLimits, TrustSet, validate};

use crate::material::{certificates, global};
use crate::outside::corpora;

/// The post-quantum certificates: Bouncy Castle's and the working group's are read, those that sign themselves verify, and those of the
/// hackathon have a path to their anchor; a bit changed in a signature, and there is none.
#[test]
fn post_quantum_certificates() {
    let Some(root) = corpora() else { return };
    let mut rows = Vec::new();
    for folder in ["mldsa", "mlkem", "slhdsa"] {
        let files = files(&root.join("bc-test-data/pkix/cert").join(folder), &["pem"]);
        assert!(!files.is_empty());
        for file in files {
            let certificate = certificates(&file).pop().unwrap_or_else(|| panic!("{} cannot be read", file.display()));
            let kind = certificate.public_key().kind();
            let itself = certificate.is_self_issued() && !kind.name().starts_with("ML-KEM");
            if itself {
                let verify = |signature: &[u8]| {
                    let scheme =
                        signature_scheme(certificate.signature_algorithm(), None).expect("an algorithm known here");
                    certificate.public_key().verify(scheme, certificate.tbs(), signature)
                };
                let mut changed = certificate.signature().to_vec();
                changed[7] ^= 1;
                assert_eq!(
                    (verify(certificate.signature()).is_ok(), verify(&changed).is_ok()),
                    (true, false),
                    "{}",
                    file.display()
                );
            }
            rows.push((file, kind.name(), if itself { "verifies itself" } else { "read" }.to_owned()));
        }
    }
    for file in files(&root.join("pqc-cms/kyber-certificates"), &["crt"]) {
        let certificate = certificates(&file).pop().unwrap_or_else(|| panic!("{} cannot be read", file.display()));
        rows.push((file, certificate.public_key().kind().name(), "read".to_owned()));
    }
    for maker in ["bc", "carl-redhound", "cryptonext"] {
        let folder = root.join("pqc-cms").join(maker);
        let anchors = certificates(&folder.join("ta.der")).into_iter().map(global).collect();
        let trust = TrustSet { anchors, ..TrustSet::default() };
        for file in files(&folder, &["der"]).into_iter().filter(|file| file.to_string_lossy().ends_with("_ee.der")) {
            let leaf = certificates(&file).pop().unwrap_or_else(|| panic!("{} cannot be read", file.display()));
            let at = leaf.not_before() + SignedDuration::from_hours(24);
            let judge =
                |leaf: &Certificate| validate(leaf, &[], &trust, Purpose::Encryption, None, at, &PathLimits::default());
            let outcome = judge(&leaf).map_or_else(|error| error.to_string(), |_| "path to its anchor".to_owned());
            let mut der = leaf.der().to_vec();
            *der.last_mut().unwrap() ^= 1;
            assert!(judge(&Certificate::from_der(der.into()).unwrap()).is_err(), "{}", file.display());
            rows.push((file, leaf.public_key().kind().name(), outcome));
        }
    }
    for (file, kind, outcome) in &rows {
        println!("{:<70} {kind:<18} {outcome}", file.strip_prefix(&root).unwrap().display());
    }
    // carl-redhound's ta.der is an anchor of the same name with another key: OpenSSL 3.6 finds no issuer in it either (error 20).
    for (file, _, outcome) in rows.iter().filter(|(file, ..)| file.to_string_lossy().ends_with("_ee.der")) {
        let foreign = file.to_string_lossy().contains("carl-redhound");
        assert_eq!(outcome == "path to its anchor", !foreign, "{}: {outcome}", file.display());
    }
    assert_eq!(rows.len(), 19);
}

/// Files of a folder with one of these endings, in order.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|one| endings.iter().any(|ending| one == *ending)))
        .collect();
    found.sort();
    found
}

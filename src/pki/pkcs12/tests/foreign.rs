//! Files that others wrote.

use super::*;
use crate::outside::corpora;

fn files(folder: &PathBuf, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry, extensions));
        } else if entry.extension().is_some_and(|end| extensions.iter().any(|wanted| end == *wanted)) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

#[test]
fn everyones_pkcs12() {
    let Some(corpora) = corpora() else { return };
    let passwords = ["password", "", "no.secret", "alice", "bob", "carlos", "dana", "nss", "testpwd", "cryptography"];
    let mut refused = Vec::new();
    let mut count = 0;
    for folder in [
        "pyca-vectors/pkcs12",
        "mimekit-smime",
        "rfc9216",
        "thunderbird-smime",
        "java-utils-mail-smime",
        "notmuch",
        "pkits/pkcs12",
    ] {
        for file in files(&corpora.join(folder), &["p12", "pfx"]) {
            let octets = std::fs::read(&file).unwrap();
            count += 1;
            let mut reason = None;
            let opened = passwords
                .iter()
                .find_map(|password| import(&octets, password).map_err(|error| reason = Some(error)).ok());
            let Some(bundle) = opened else {
                refused.push(format!("{}: {reason:?}", file.display()));
                continue;
            };
            if bundle.keys.is_empty() && bundle.certificates.is_empty() {
                refused.push(format!("{}: empty, {:?}", file.display(), bundle.skipped));
            }
        }
    }
    println!("{count} files");
    assert_eq!(refused, Vec::<String>::new());
}

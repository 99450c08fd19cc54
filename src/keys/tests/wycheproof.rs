//! Wycheproof's vectors through the operations of this house. Each file's figures are printed; what is not run is named with its
//! reason, and a file that nobody runs or names is a failure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::cms::ber::write;
use crate::outside::corpora;
use crate::pki::public_key::PublicKey;

mod curves;
mod rsa;
mod symmetric;

/// Files that no test runs, and why.
const NOT_RUN: [(&str, &str); 10] = [
    ("aes_ccm_test.json", "CCM in AuthEnvelopedData (RFC 5084) is not read here: no mail program writes it"),
    ("aes_kwp_test.json", "padded key wrap (RFC 5649): no key of RFC 5652's table is of an odd length"),
    ("chacha20_poly1305_test.json", "ChaCha20-Poly1305 in CMS (RFC 8103) is not read here: no mail program writes it"),
    (
        "hkdf_sha256_test.json",
        "HKDF is used with one fixed salt (RFC 9709, tested with the RFC's vectors); the primitive is aws-lc's",
    ),
    ("hkdf_sha384_test.json", "no HKDF over SHA-384 here"),
    ("hkdf_sha512_test.json", "no HKDF over SHA-512 here"),
    ("hmac_sha256_test.json", "HMAC has no entry point of its own here; the primitive is aws-lc's"),
    ("pbkdf2_hmacsha256_test.json", "PBKDF2 is reached through PKCS#12 alone, tested with the files of six programs"),
    ("x448_test.json", "X448 is not known here: no sound implementation"),
    ("ecdh_brainpoolP256r1_test.json", "brainpool curves are not known here (see `foreign_curves_are_refused`)"),
];

/// Files that the tests of post-quantum keys run.
const POST_QUANTUM: [&str; 5] = ["mldsa_44_verify", "mldsa_65_verify", "mldsa_87_verify", "mlkem_768", "mlkem_1024"];

/// What became of a file's vectors.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Run, and as expected.
    pub(crate) run: usize,
    /// Not run, by reason.
    pub(crate) left_out: BTreeMap<String, usize>,
}

impl Account {
    fn print(&self, file: &str) {
        let left_out: Vec<String> =
            self.left_out.iter().map(|(why, count)| format!("{count} not run: {why}")).collect();
        println!("| {file:<44} | {:>4} run | {}", self.run, left_out.join("; "));
    }
    /// At least so many were run.
    #[track_caller]
    pub(crate) fn at_least(&self, run: usize) {
        assert!(self.run >= run, "{self:?}, {run} expected");
    }
}

/// Calls `each` with (group, test) for every vector of a file: `Ok` where it was run, else why it was not. `None` without corpora.
pub(crate) fn account(file: &str, mut each: impl FnMut(&Value, &Value) -> Result<(), String>) -> Option<Account> {
    let text = std::fs::read(corpora()?.join("wycheproof").join(file)).unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let mut account = Account::default();
    for group in all["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            match each(group, test) {
                Ok(()) => account.run += 1,
                Err(why) => *account.left_out.entry(why).or_default() += 1,
            }
        }
    }
    let total = account.run + account.left_out.values().sum::<usize>();
    assert_eq!(Some(total as u64), all["numberOfTests"].as_u64(), "{file}");
    account.print(file);
    Some(account)
}

/// Calls `each` with (group, test) for every vector of a file; gives their number, or 0 where there are no corpora.
pub(crate) fn vectors(file: &str, mut each: impl FnMut(&Value, &Value)) -> usize {
    let run = |group: &Value, test: &Value| {
        each(group, test);
        Ok(())
    };
    account(file, run).map_or(0, |account| account.run)
}

pub(crate) fn octets(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default().as_bytes();
    text.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn digest(name: &Value) -> Result<Digest, String> {
    match name.as_str().unwrap() {
        "SHA-1" => Ok(Digest::Sha1),
        "SHA-256" => Ok(Digest::Sha256),
        "SHA-384" => Ok(Digest::Sha384),
        "SHA-512" => Ok(Digest::Sha512),
        other => Err(format!("{other} is not known here")),
    }
}

/// A PKCS#8 PrivateKeyInfo.
fn private_key_info(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    write::sequence(&[&write::integer(0), algorithm, &write::octet_string(key)])
}

fn oid(dotted: &str) -> Vec<u8> {
    write::oid(&const_oid::ObjectIdentifier::new_unwrap(dotted))
}

#[test]
fn every_file_is_run_or_named() {
    let Some(folder) = corpora() else { return };
    let mut files: Vec<String> = std::fs::read_dir(folder.join("wycheproof"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    files.sort();
    let mut known: Vec<String> = NOT_RUN.iter().map(|(file, _)| (*file).to_owned()).collect();
    let run = rsa::FILES.iter().chain(&curves::FILES).chain(&symmetric::FILES).map(|(file, _)| *file);
    known.extend(run.chain(POST_QUANTUM).map(|file| format!("{file}_test.json")));
    known.sort();
    assert_eq!(files, known);
    for (file, why) in NOT_RUN {
        println!("| {file:<44} |    0 run | all not run: {why}");
    }
}

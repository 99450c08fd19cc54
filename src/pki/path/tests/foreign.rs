//! Paths that others made, with their verdicts.

use crate::outside::corpora;
use std::path::Path;

use super::*;

fn read(file: &Path) -> Result<Vec<Certificate>, CertificateError> {
    Certificate::from_pem_or_der(&std::fs::read(file).unwrap())
}

fn anchored(certificates: Vec<Certificate>) -> TrustSet {
    let anchors =
        certificates.into_iter().map(|certificate| TrustAnchor { certificate, scope: AnchorScope::Global }).collect();
    TrustSet { anchors, intermediates: Vec::new(), generation: 1 }
}

/// What only a CRL can tell: revocation of certificates below, missing and stale CRLs (4.4, 4.5.2, 4.5.5, 4.5.7), cRLSign
/// (4.7.4, 4.7.5), distribution points (4.14), deltas (4.15).
const NEEDS_CRL: [&str; 46] = [
    "40401", "40402", "40403", "40404", "40405", "40406", "40408", "40409", "40410", "40411", "40412", "40415",
    "40418", "40420", "40421", "40502", "40505", "40507", "40704", "40705", "41402", "41403", "41406", "41408",
    "41409", "41411", "41412", "41414", "41415", "41416", "41417", "41420", "41421", "41423", "41426", "41427",
    "41431", "41432", "41434", "41435", "41501", "41503", "41504", "41506", "41509", "41510",
];

/// PKITS with the initial policy set anyPolicy. DSA (4.1.4, 4.1.5) is not known here.
#[test]
fn pkits() {
    let Some(folder) = corpora().map(|corpora| corpora.join("pkits")) else { return };
    let trust = anchored(read(&folder.join("certs/TrustAnchorRootCertificate.crt")).unwrap());
    let table = std::fs::read_to_string(folder.join("expected-policy-variants.tsv")).unwrap();
    let at = "2026-07-25T00:00:00Z".parse().unwrap();
    let (mut agree, mut wrongly_refused, mut wrongly_accepted) = (0, Vec::new(), Vec::new());
    for row in table.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>()).filter(|row| row[5] == "{}") {
        let certificates = |names: &str| -> Vec<Certificate> {
            let names = names.split(',').filter(|name| !name.is_empty());
            names.filter_map(|name| read(&folder.join("certs").join(name)).ok()).flatten().collect()
        };
        let result = match certificates(row[2]).first() {
            Some(leaf) => {
                validate(leaf, &certificates(row[3]), &trust, Purpose::Signature, None, at, &PathLimits::default())
                    .map_err(|e| e.to_string())
            }
            None => Err("the leaf cannot be read".to_owned()),
        };
        match (result, row[6]) {
            (Ok(_), "ok") | (Err(_), "fail") => agree += 1,
            (Ok(_), _) => wrongly_accepted.push(row[0].to_owned()),
            (Err(_), _) => wrongly_refused.push(row[0].to_owned()),
        }
    }
    println!("{agree} agree");
    assert_eq!(wrongly_accepted, NEEDS_CRL);
    assert_eq!(wrongly_refused, ["40104", "40105"]);
    assert_eq!(agree, 165);
}

/// Accepted here although x509-limbo wants them refused, each for its reason.
const TOLERATED: [&str; 20] = [
    // Duties of the issuer that cost no one anything when they are broken (criticality, key identifiers, serial numbers).
    "rfc5280::aki::critical-aki",
    "rfc5280::aki::leaf-missing-aki",
    "rfc5280::aki::intermediate-missing-aki",
    "rfc5280::aki::cross-signed-root-missing-aki",
    "rfc5280::pc::ica-noncritical-pc",
    "rfc5280::san::noncritical-with-empty-subject",
    "rfc5280::serial::too-long",
    "rfc5280::serial::zero",
    "rfc5280::serial::negative",
    "rfc5280::ski::critical-ski",
    "rfc5280::ski::root-missing-ski",
    "rfc5280::ski::intermediate-missing-ski",
    "rfc5280::root-non-critical-basic-constraints",
    "rfc5280::leaf-ku-keycertsign",
    "rfc5280::ee-critical-aia-invalid",
    // The leaf's purpose is judged by `Certificate::fits`, which this test passes by.
    "rfc5280::eku::ee-wrong-eku",
    "rfc5280::eku::ee-eku-empty",
    // Host names, which mail has no use for.
    "rfc5280::san::underscore-dns",
    "rfc5280::san::ip-in-dns",
    "rfc5280::ca-as-leaf-wrong-san",
];

/// The cases of x509-limbo that are not about browsers' rules (`webpki`, but for name constraints) or live TLS chains
/// (`online`), whatever the leaf's purpose.
#[test]
fn x509_limbo() {
    let Some(folder) = corpora().map(|corpora| corpora.join("x509-limbo")) else { return };
    let limbo: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("limbo-no-bettertls.json")).unwrap()).unwrap();
    let (mut agree, mut refused, mut accepted) = (0, Vec::new(), Vec::new());
    let mail = |case: &&serde_json::Value| {
        let id = case["id"].as_str().unwrap();
        id.starts_with("webpki::nc") || !(id.starts_with("webpki") || id.starts_with("online"))
    };
    for case in limbo["testcases"].as_array().unwrap().iter().filter(mail) {
        let pems = |field: &str| -> Vec<Certificate> {
            let pems = case[field].as_array().unwrap().iter();
            pems.filter_map(|pem| Certificate::from_pem_or_der(pem.as_str().unwrap().as_bytes()).ok())
                .flatten()
                .collect()
        };
        let at = case["validation_time"].as_str().unwrap_or("2026-07-25T00:00:00Z").parse().unwrap();
        let trust = anchored(pems("trusted_certs"));
        let leaf = Certificate::from_pem_or_der(case["peer_certificate"].as_str().unwrap().as_bytes());
        let length = case["max_chain_depth"].as_u64().map_or(8, |depth| depth as usize + 2);
        let limits = PathLimits { length, ..PathLimits::default() };
        let result = match leaf {
            Ok(leaf) => find(&leaf[0], &pems("untrusted_intermediates"), &trust, None, at, &limits)
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let id = case["id"].as_str().unwrap();
        match (result, case["expected_result"].as_str().unwrap()) {
            (Ok(_), "SUCCESS") | (Err(_), "FAILURE") => agree += 1,
            (Ok(_), _) => accepted.push(id.to_owned()),
            (Err(_), _) => refused.push(id.to_owned()),
        }
    }
    println!("{agree} agree");
    accepted.sort();
    let mut tolerated = TOLERATED;
    tolerated.sort();
    assert_eq!(accepted, tolerated);
    // There the depth leaves self-issued certificates out; ours counts every certificate.
    assert_eq!(refused, ["pathlen::max-chain-depth-1-self-issued"]);
    assert!(agree >= 50, "{agree}");
}

#[test]
fn rfc9216_everyday_identities() {
    let Some(folder) = corpora().map(|corpora| corpora.join("rfc9216/files")) else { return };
    let table = std::fs::read_to_string(folder.join("../expected.tsv")).unwrap();
    let at = "2026-07-25T00:00:00Z".parse().unwrap();
    let mut failed = Vec::new();
    for row in table.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|row| row[2] == "path-validate") {
        let file = folder.join("..").join(row[0]);
        let rsa = row[0].contains("alice") || row[0].contains("bob");
        let other = row[1].contains("OTHER");
        let anchor = if rsa != other { "ca.rsa.crt" } else { "ca.25519.crt" };
        let cross = ["ca.rsa.cross.crt", "ca.25519.cross.crt"].map(|name| read(&folder.join(name)).unwrap().remove(0));
        let purpose = if row[0].contains("sign") { Purpose::Signature } else { Purpose::Encryption };
        let result = read(&file).map_err(|error| error.to_string()).and_then(|leaf| {
            validate(
                &leaf[0],
                &cross,
                &anchored(read(&folder.join(anchor)).unwrap()),
                purpose,
                None,
                at,
                &PathLimits::default(),
            )
            .map_err(|error| error.to_string())
        });
        if let Err(why) = result {
            failed.push(format!("{} {}: {why}", row[0], row[1]));
        }
    }
    assert_eq!(failed, Vec::<String>::new());
}

/// Certificates with broken or odd extensions: none may bring the reader down.
#[test]
fn odd_certificates_are_read_or_refused() {
    let Some(folder) = corpora().map(|corpora| corpora.join("pyca-vectors/x509")) else { return };
    let mut folders = vec![folder];
    let (mut read_well, mut refused) = (0, 0);
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if file.is_dir() {
                folders.push(file);
                continue;
            }
            let octets = std::fs::read(&file).unwrap();
            crate::pki::certificate::fuzz_certificate(&octets);
            match Certificate::from_pem_or_der(&octets) {
                Ok(certificates) => {
                    certificates
                        .iter()
                        .for_each(|certificate| crate::pki::certificate::fuzz_certificate(certificate.der()));
                    read_well += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("{read_well} read, {refused} refused");
    assert!(read_well > 50, "{read_well} read, {refused} refused");
}

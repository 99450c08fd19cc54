//! pyca's files: PKCS#7, PKCS#12, OCSP, certificates and CRLs with broken or odd parts. Their names say what is wrong; what is wrong is
//! refused, what is odd is read, and nothing brings a reader down.

use std::path::Path;

use bytes::Bytes;
use waxwing::cms::algorithm::Legacy;
use waxwing::cms::enveloped::EnvelopedData;
use waxwing::cms::signed::SignedData;
use waxwing::pki::certificate::{Certificate, fuzz_certificate};
use waxwing::pki::pkcs12;
use waxwing::pki::revocation::{Crl, OcspResponse, crl, ocsp};

use crate::material::{Keys, WEAK, open};
use crate::objects::{decrypt, der, wrapped};
use crate::{Case, Judged};

/// Parts of names of files that are broken, not merely odd.
const BROKEN: [&str; 17] = [
    "bad_",
    "inval_",
    "invalid",
    "malformed",
    "mismatch",
    "negative",
    "two_basic_constraints",
    "dup_",
    "unsupported_subject_public_key",
    "unsupported_mgf_hash",
    "unsupported_reason",
    "unauthorized",
    "unknown-response-status",
    "unknown-oid",
    "no-response-bytes",
    "ec_no_named_curve",
    "no_sig_params",
];

pub fn cases(root: &Path) -> Vec<(&'static str, Vec<Case>)> {
    let folder = root.join("pyca-vectors");
    let (mut certificates, mut crls, mut responses) = (Vec::new(), Vec::new(), Vec::new());
    for (name, octets) in files(&folder, "x509/custom") {
        let broken = is_broken(&name);
        if name.contains("/crl_") || name.ends_with("_crl.pem") {
            crl::fuzz_crl(&octets);
            let read = Crl::from_pem_or_der(&octets).map_err(|error| error.to_string());
            crls.push(case(name, broken, read.and_then(at_least_one)));
        } else if !name.ends_with("_key.pem") {
            certificates.push(case(name, broken, certificate(&octets)));
        }
    }
    for (name, octets) in files(&folder, "x509/ocsp") {
        ocsp::fuzz_ocsp(&octets);
        // A request is no response.
        let broken = is_broken(&name) || name.contains("req");
        let read = OcspResponse::from_der(octets.into()).map_err(|error| error.to_string());
        responses.push(case(name, broken, read.map(|_| ())));
    }
    let bundles = files(&folder, "pkcs12").into_iter().filter(|(name, _)| name.ends_with(".p12"));
    let bundles = bundles.map(|(name, octets)| case(name, false, bundle(&octets))).collect();
    let objects = files(&folder, "pkcs7");
    let objects = objects.into_iter().map(|(name, octets)| object(&folder, name, &octets)).collect();
    vec![
        ("pyca, certificates", certificates),
        ("pyca, CRLs", crls),
        ("pyca, OCSP", responses),
        ("pyca, PKCS#12", bundles),
        ("pyca, PKCS#7", objects),
    ]
}

fn is_broken(name: &str) -> bool {
    BROKEN.iter().any(|word| name.contains(word))
}

/// Files below a folder, by their path in the corpus.
fn files(root: &Path, under: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(under)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{under}/{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => found.extend(files(root, &name)),
            false => found.push((name, std::fs::read(entry.path()).unwrap())),
        }
    }
    found.sort();
    found
}

fn case(name: String, broken: bool, read: Result<(), String>) -> Case {
    let judged = match read {
        Ok(()) if broken => Judged::Disagrees("it is read".into()),
        Err(why) if !broken => Judged::Disagrees(why),
        _ => Judged::Agrees,
    };
    let wanted = if broken { "refuse" } else { "read" };
    Case { name: format!("pyca-vectors\t{name}\t-"), wanted: wanted.to_owned(), judged }
}

fn at_least_one<T>(found: Vec<T>) -> Result<(), String> {
    if found.is_empty() { Err("nothing in it".into()) } else { Ok(()) }
}

fn certificate(octets: &[u8]) -> Result<(), String> {
    fuzz_certificate(octets);
    let found = Certificate::from_pem_or_der(octets).map_err(|error| error.to_string())?;
    found.iter().for_each(|one| fuzz_certificate(one.der()));
    at_least_one(found)
}

/// One of the passwords opens it, and no other does.
fn bundle(octets: &[u8]) -> Result<(), String> {
    let open = |password: &str| pkcs12::import(octets, password).map_err(|error| error.to_string());
    let bundle = open("password").or_else(|_| open("cryptography")).or_else(|_| open(""))?;
    if bundle.keys.is_empty() && bundle.certificates.is_empty() {
        return Err(format!("nothing in it: {:?}", bundle.skipped));
    }
    match open("another") {
        Ok(_) => Err("any password opens it".into()),
        Err(_) => Ok(()),
    }
}

fn object(folder: &Path, name: String, octets: &[u8]) -> Case {
    if octets.starts_with(b"-----BEGIN CERTIFICATE") {
        return case(name, false, certificate(octets));
    }
    let object = der(octets);
    let broken = name.contains("no-content");
    let read = if name.contains("enveloped") { enveloped(folder, &name, &object) } else { signed(&object) };
    let opened = open(wrapped(&object), &Keys::default(), Default::default(), jiff::Timestamp::UNIX_EPOCH);
    let mut case = case(name, broken, read);
    if opened.verdict.signer.is_some() || opened.verdict.decrypted {
        case.judged = Judged::FalseGood(opened.verdict.reason);
    }
    case
}

/// Certificates only, and code signed in Microsoft's way.
fn signed(object: &Bytes) -> Result<(), String> {
    let data = SignedData::parse(object).map_err(|error| error.to_string())?;
    at_least_one(data.certificates)
}

fn enveloped(folder: &Path, name: &str, object: &Bytes) -> Result<(), String> {
    let mut keys = Keys::default();
    keys.add(&folder.join("x509/custom/ca/rsa_key.pem"), None);
    if name.ends_with("/enveloped.pem") {
        // 3DES, for a key that is not here.
        let strict = EnvelopedData::parse(object, Legacy::default());
        return match strict {
            Ok(_) => Err("3DES is read without the switch".into()),
            Err(_) => EnvelopedData::parse(object, WEAK).map(|_| ()).map_err(|error| error.to_string()),
        };
    }
    match (decrypt(object, &keys, Legacy::default()), decrypt(object, &keys, WEAK)) {
        (Ok(_), Ok(_)) if name.contains("triple-des") => Err("3DES is opened without the switch".into()),
        (strict, weak) => strict.or(weak).map(|_| ()),
    }
}

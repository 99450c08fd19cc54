//! x509-limbo: the cases that its index says apply to S/MIME.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use waxwing::pki::certificate::{Certificate, Purpose};
use waxwing::pki::path::{PathLimits, TrustSet, find, validate};

use crate::material::global;
use crate::{Case, Judged};

/// Most end certificates there are of servers, so that their purpose is left out; where the case is about it, mail's stands for it.
pub fn cases(root: &Path) -> Vec<Case> {
    let folder = root.join("x509-limbo");
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
    let usable: BTreeSet<&str> = index
        .lines()
        .skip(1)
        .filter(|line| line.split('\t').nth(7) == Some("yes"))
        .filter_map(|line| line.split('\t').next())
        .collect();
    let limbo: Value = serde_json::from_slice(&std::fs::read(folder.join("limbo-no-bettertls.json")).unwrap()).unwrap();
    let chosen = limbo["testcases"].as_array().unwrap().iter().filter(|case| {
        let id = case["id"].as_str().unwrap();
        // Name constraints are mail's business too, whoever's names they are.
        usable.contains(id) || id.starts_with("webpki::nc")
    });
    let cases = chosen.map(|case| {
        let (id, expected) = (case["id"].as_str().unwrap(), case["expected_result"].as_str().unwrap());
        let judged = match (path(case), expected) {
            (Ok(()), "SUCCESS") | (Err(_), "FAILURE") => Judged::Agrees,
            (Ok(()), _) => Judged::Disagrees("a path is found".into()),
            (Err(why), _) => Judged::Disagrees(why),
        };
        Case { name: format!("x509-limbo\t{id}\t-"), wanted: expected.to_owned(), judged }
    });
    cases.collect()
}

fn path(case: &Value) -> Result<(), String> {
    let pems = |field: &str| -> Vec<Certificate> {
        let pems = case[field].as_array().unwrap().iter();
        pems.filter_map(|pem| Certificate::from_pem_or_der(pem.as_str().unwrap().as_bytes()).ok()).flatten().collect()
    };
    let at = case["validation_time"].as_str().unwrap_or("2026-07-25T00:00:00Z").parse().unwrap();
    let anchors = pems("trusted_certs").into_iter().map(global).collect();
    let trust = TrustSet { anchors, ..TrustSet::default() };
    let length = case["max_chain_depth"].as_u64().map_or(8, |depth| depth as usize + 2);
    let limits = PathLimits { length, ..PathLimits::default() };
    let leaf = Certificate::from_pem_or_der(case["peer_certificate"].as_str().unwrap().as_bytes())
        .map_err(|error| error.to_string())?;
    let extra = pems("untrusted_intermediates");
    let found = match case["id"].as_str().unwrap().contains("::eku::") {
        true => validate(&leaf[0], &extra, &trust, Purpose::Signature, None, at, &limits),
        false => find(&leaf[0], &extra, &trust, None, at, &limits),
    };
    found.map(|_| ()).map_err(|error| error.to_string())
}

//! CRLs and OCSP responses that others made, with their verdicts.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::outside::corpora;
use crate::pki::certificate::Purpose;
use crate::pki::path::{AnchorScope, TrustAnchor};

fn certificates(file: &Path) -> Vec<Certificate> {
    std::fs::read(file).ok().and_then(|octets| Certificate::from_pem_or_der(&octets).ok()).unwrap_or_default()
}

fn trusting(anchor: Certificate) -> TrustSet {
    let anchors = vec![TrustAnchor { certificate: anchor, scope: AnchorScope::Global }];
    TrustSet { anchors, intermediates: Vec::new(), generation: 1 }
}

/// NIST's suite with the initial policy set anyPolicy, its CRLs included. DSA (4.1.4, 4.1.5) is not known here.
#[test]
fn pkits_with_its_crls() {
    let Some(folder) = corpora().map(|corpora| corpora.join("pkits")) else { return };
    let trust = trusting(certificates(&folder.join("certs/TrustAnchorRootCertificate.crt")).remove(0));
    let files = std::fs::read_dir(folder.join("crls")).unwrap().map(|entry| entry.unwrap().path());
    let read: Vec<_> = files.map(|file| Crl::from_pem_or_der(&std::fs::read(file).unwrap())).collect();
    // The one with the broken signature, a BIT STRING with unused bits.
    assert_eq!(read.iter().filter(|crl| crl.is_err()).count(), 1);
    let crls: Vec<Arc<Crl>> = read.into_iter().flatten().flatten().map(Arc::new).collect();
    let table = std::fs::read_to_string(folder.join("expected-policy-variants.tsv")).unwrap();
    let at = "2026-07-25T00:00:00Z".parse().unwrap();
    let limits = PathLimits::default();
    let (mut agree, mut disagree) = (0, Vec::new());
    for row in table.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>()).filter(|row| row[5] == "{}") {
        let all = |names: &str| -> Vec<Certificate> {
            let names = names.split(',').filter(|name| !name.is_empty());
            names.flat_map(|name| certificates(&folder.join("certs").join(name))).collect()
        };
        let others = all(row[3]);
        let result = match all(row[2]).first() {
            Some(leaf) => path::validate(leaf, &others, &trust, Purpose::Signature, None, at, &limits)
                .map_err(|error| error.to_string())
                .and_then(|path| {
                    let evidence = Evidence { crls: &crls, ocsp: &[] };
                    match check(&path, evidence, &others, &trust, at, &limits).status {
                        Status::Good { until } if until >= at => Ok(()),
                        status => Err(format!("{status:?}")),
                    }
                }),
            None => Err("the leaf cannot be read".to_owned()),
        };
        if result.is_ok() == (row[6] == "ok") { agree += 1 } else { disagree.push((row[0].to_owned(), result)) }
    }
    println!("{agree} agree");
    for (id, result) in &disagree {
        println!("{id}: {result:?}");
    }
    let ids: Vec<&str> = disagree.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["40104", "40105"]);
}

//! PKITS with user-policy inputs: through the mail that the end certificate signed where there is one, else as a bare path.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use waxwing::cms::signed::SignedData;
use waxwing::mime::canonical::canonical_line_ends;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::certificate::{Certificate, Purpose};
use waxwing::pki::path::{InitialPolicies, PathLimits, TrustSet, validate};
use waxwing::pki::revocation::{Demand, Evidence, Status, check};
use waxwing::smime::open::OpenContext;
use waxwing::smime::verdict::Layer;

use crate::material::{Keys, certificates, global, open_with, pkits_crls};
use crate::{Case, Judged};

/// Every row of `expected-policy-variants.tsv`.
pub fn variants(root: &Path) -> Vec<Case> {
    let folder = root.join("pkits");
    let mails = mails(&folder);
    let anchors = certificates(&folder.join("certs/TrustAnchorRootCertificate.crt")).into_iter().map(global).collect();
    let world = World {
        trust: Arc::new(TrustSet { anchors, ..TrustSet::default() }),
        at: "2026-07-25T00:00:00Z".parse().unwrap(),
        crls: pkits_crls(&folder),
    };
    let table = std::fs::read_to_string(folder.join("expected-policy-variants.tsv")).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    let cases = rows.map(|row| {
        let read = |names: &str| -> Vec<Certificate> {
            let names = names.split(',').filter(|name| !name.is_empty());
            names.flat_map(|name| certificates(&folder.join("certs").join(name))).collect()
        };
        let limits = PathLimits { policies: demand(row[5]), ..PathLimits::default() };
        let (how, good) = match read(row[2]).first() {
            None => ("path", Err("the end certificate cannot be read".to_owned())),
            Some(leaf) => match mails.get(leaf.der()) {
                Some(mail) => ("mail", world.mail(mail, limits)),
                None => ("path", world.path(leaf, &read(row[3]), &limits)),
            },
        };
        let judged = match (good, row[6]) {
            (Ok(()), "ok") | (Err(_), "fail") => Judged::Agrees,
            (Ok(()), _) => Judged::FalseGood("a valid path, not revoked".into()),
            (Err(why), _) => Judged::Disagrees(why),
        };
        Case { name: format!("pkits-variants\t{}\t{}", row[0], row[1]), wanted: format!("{how} {}", row[6]), judged }
    });
    cases.collect()
}

fn demand(parameters: &str) -> InitialPolicies {
    let parameters: Value = serde_json::from_str(parameters).unwrap();
    let flag = |name: &str| parameters[name].as_bool().unwrap_or(false);
    let known = ["user_initial_policy_set", "initial_explicit_policy"]
        .into_iter()
        .chain(["initial_policy_mapping_inhibit", "initial_any_policy_inhibit"]);
    assert_eq!(known.filter(|name| parameters.get(name).is_some()).count(), parameters.as_object().unwrap().len());
    InitialPolicies {
        accepted: parameters["user_initial_policy_set"]
            .as_array()
            .map(|set| InitialPolicies::one_of(set.iter().map(|oid| oid.as_str().unwrap())).unwrap().accepted.unwrap()),
        explicit: flag("initial_explicit_policy"),
        inhibit_mapping: flag("initial_policy_mapping_inhibit"),
        inhibit_any: flag("initial_any_policy_inhibit"),
    }
}

/// The mails, by their signer's certificate.
fn mails(folder: &Path) -> HashMap<Bytes, Entity> {
    let mut mails = HashMap::new();
    for entry in std::fs::read_dir(folder.join("smime")).unwrap() {
        let octets = canonical_line_ends(&std::fs::read(entry.unwrap().path()).unwrap().into());
        let message = Entity::parse(octets, &MimeLimits::default()).unwrap();
        let parts = message.parts(&MimeLimits::default()).unwrap();
        let data = SignedData::parse(&parts[1].decoded_body().unwrap()).unwrap();
        let signer = data.certificates.iter().find(|one| data.signers[0].id.names(one));
        if let Some(signer) = signer {
            mails.insert(signer.der().clone(), message);
        }
    }
    mails
}

struct World {
    trust: Arc<TrustSet>,
    at: Timestamp,
    crls: Arc<Evidence>,
}

impl World {
    fn mail(&self, message: &Entity, limits: PathLimits) -> Result<(), String> {
        let mut context = OpenContext::new(Vec::new(), self.trust.clone(), self.at);
        context.path = limits;
        context.revocation = Demand::Require;
        context.evidence = self.crls.clone();
        let opened = open_with(message.clone(), &Keys::default(), context);
        for layer in &opened.verdict.layers {
            let Layer::Signed { signers, .. } = layer else { continue };
            for signer in signers {
                signer.signature.clone()?;
                signer.path.clone()?;
            }
            return if signers.is_empty() { Err("no signer".into()) } else { Ok(()) };
        }
        Err(opened.verdict.reason)
    }
    fn path(&self, leaf: &Certificate, extra: &[Certificate], limits: &PathLimits) -> Result<(), String> {
        let path = validate(leaf, extra, &self.trust, Purpose::Signature, None, self.at, limits)
            .map_err(|error| error.to_string())?;
        let judged = check(&path, &*self.crls, &Evidence::default(), extra, &self.trust, self.at, limits);
        match judged.status {
            Status::Good { .. } => Ok(()),
            status => Err(status.to_string()),
        }
    }
}

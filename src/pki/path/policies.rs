//! Certificate policies (RFC 5280 section 6.1) with the initial policy set anyPolicy. For that set it suffices to know whether any
//! policy is left at the leaf, so one level of the policy tree is kept, each policy once (as RFC 9618 does): no mapping can make it
//! grow beyond what the certificates hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::pki::asn1::{Asn1Error, Reader, tag};
use crate::pki::certificate::Certificate;

const ANY_POLICY: &[u8] = &[0x55, 0x1d, 0x20, 0x00];
/// The most policies and mappings read from one certificate.
const MAX_POLICIES: usize = 256;

type Oid = Vec<u8>;
/// Valid policy -> expected policy set.
type Level = BTreeMap<Oid, BTreeSet<Oid>>;

/// The state variables of RFC 5280 6.1.2 (a), (d), (e), (f).
pub(super) struct Policies {
    /// `None`: the tree is empty.
    level: Option<Level>,
    explicit_policy: u64,
    inhibit_any: u64,
    policy_mapping: u64,
}

fn text(error: Asn1Error) -> String {
    format!("its policies cannot be read: {error}")
}

fn any_level() -> Level {
    BTreeMap::from([(ANY_POLICY.to_vec(), BTreeSet::from([ANY_POLICY.to_vec()]))])
}

impl Policies {
    /// For a path of `length` certificates, the anchor not counted.
    pub(super) fn new(length: usize) -> Self {
        let more = length as u64 + 1;
        Self { level: Some(any_level()), explicit_policy: more, inhibit_any: more, policy_mapping: more }
    }

    /// RFC 5280 6.1.3 (d), (e), (f).
    pub(super) fn certificate(
        &mut self,
        certificate: &Certificate,
        is_leaf: bool,
        self_issued: bool,
    ) -> Result<(), String> {
        let stated = read_policies(certificate).map_err(text)?;
        self.level = match (stated, self.level.take()) {
            (Some(stated), Some(parents)) => {
                let any_counts = self.inhibit_any > 0 || (!is_leaf && self_issued);
                Some(children(&parents, &stated, any_counts)).filter(|level| !level.is_empty())
            }
            _ => None,
        };
        self.check()
    }

    fn check(&self) -> Result<(), String> {
        if self.explicit_policy == 0 && self.level.is_none() {
            return Err("no certificate policy is valid for the whole path, and one is required".to_owned());
        }
        Ok(())
    }

    /// RFC 5280 6.1.4 (a), (b), (h), (i), (j).
    pub(super) fn prepare(&mut self, certificate: &Certificate, self_issued: bool) -> Result<(), String> {
        let mappings = read_mappings(certificate).map_err(text)?;
        if mappings.iter().any(|(from, to)| from == ANY_POLICY || to.contains(ANY_POLICY)) {
            return Err("it maps anyPolicy".to_owned());
        }
        self.map(mappings);
        if !self_issued {
            self.explicit_policy = self.explicit_policy.saturating_sub(1);
            self.policy_mapping = self.policy_mapping.saturating_sub(1);
            self.inhibit_any = self.inhibit_any.saturating_sub(1);
        }
        let extensions = certificate.extensions();
        let lower = |state: &mut u64, skip: Option<u64>| *state = skip.map_or(*state, |skip| skip.min(*state));
        lower(&mut self.explicit_policy, extensions.require_explicit_policy);
        lower(&mut self.policy_mapping, extensions.inhibit_policy_mapping);
        lower(&mut self.inhibit_any, extensions.inhibit_any_policy);
        Ok(())
    }

    fn map(&mut self, mappings: Level) {
        let Some(level) = &mut self.level else { return };
        for (from, to) in mappings {
            if self.policy_mapping == 0 {
                level.remove(&from);
            } else if level.contains_key(&from) || level.contains_key(ANY_POLICY) {
                level.insert(from, to);
            }
        }
        if level.is_empty() {
            self.level = None;
        }
    }

    /// RFC 5280 6.1.5 (a), (b), (g).
    pub(super) fn wrap_up(&mut self, leaf: &Certificate) -> Result<(), String> {
        self.explicit_policy = self.explicit_policy.saturating_sub(1);
        if leaf.extensions().require_explicit_policy == Some(0) {
            self.explicit_policy = 0;
        }
        self.check()
    }
}

/// RFC 5280 6.1.3 (d) (1) and (2).
fn children(parents: &Level, stated: &BTreeSet<Oid>, any_counts: bool) -> Level {
    let single = |policy: &Oid| (policy.clone(), BTreeSet::from([policy.clone()]));
    let expected: BTreeSet<&Oid> = parents.values().flatten().collect();
    let mut level: Level = stated
        .iter()
        .filter(|policy| policy.as_slice() != ANY_POLICY)
        .filter(|policy| expected.contains(policy) || parents.contains_key(ANY_POLICY))
        .map(single)
        .collect();
    if any_counts && stated.contains(ANY_POLICY) {
        for policy in expected {
            level.entry(policy.clone()).or_insert_with(|| BTreeSet::from([policy.clone()]));
        }
    }
    level
}

fn read_policies(certificate: &Certificate) -> Result<Option<BTreeSet<Oid>>, Asn1Error> {
    let Some(place) = certificate.extensions().policies else { return Ok(None) };
    let mut list = Reader::new(certificate.at(place));
    let mut policies = BTreeSet::new();
    while !list.is_empty() {
        let information = list.expect(tag::SEQUENCE, "a PolicyInformation is a SEQUENCE")?;
        let policy = information.reader().expect(tag::OID, "a policy has an OID")?;
        // RFC 5280 4.2.1.4: a policy must not appear more than once.
        if !policies.insert(policy.value.to_vec()) || policies.len() > MAX_POLICIES {
            return Err(information.error("a policy stated twice, or too many"));
        }
    }
    Ok(Some(policies))
}

fn read_mappings(certificate: &Certificate) -> Result<Level, Asn1Error> {
    let mut mappings = Level::new();
    let Some(place) = certificate.extensions().policy_mappings else { return Ok(mappings) };
    let mut list = Reader::new(certificate.at(place));
    let mut count = 0;
    while !list.is_empty() {
        let pair = list.expect(tag::SEQUENCE, "a policy mapping is a SEQUENCE")?;
        let mut fields = pair.reader();
        let from = fields.expect(tag::OID, "issuerDomainPolicy is an OID")?;
        let to = fields.expect(tag::OID, "subjectDomainPolicy is an OID")?;
        fields.done()?;
        count += 1;
        if count > MAX_POLICIES {
            return Err(pair.error("too many policy mappings"));
        }
        mappings.entry(from.value.to_vec()).or_default().insert(to.value.to_vec());
    }
    Ok(mappings)
}

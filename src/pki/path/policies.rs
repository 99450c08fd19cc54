//! Certificate policies (RFC 5280 section 6.1). One level of the policy tree is kept, each policy once (as RFC 9618 does), with the policies
//! of the anchor's domain that it stems from: no mapping can make it grow beyond what the certificates hold.

use std::collections::{BTreeMap, BTreeSet};

use super::PolicyDemand;
use crate::pki::asn1::{Asn1Error, Reader, tag};
use crate::pki::certificate::Certificate;

const ANY_POLICY: &[u8] = &[0x55, 0x1d, 0x20, 0x00];
/// The most policies and mappings read from one certificate.
const MAX_POLICIES: usize = 256;

type Oid = Vec<u8>;
type Mappings = BTreeMap<Oid, BTreeSet<Oid>>;
/// Valid policy -> node.
type Level = BTreeMap<Oid, Node>;

#[derive(Clone, Default)]
struct Node {
    /// expected_policy_set.
    expected: BTreeSet<Oid>,
    /// The nodes above it whose parent is anyPolicy (valid_policy_node_set of RFC 5280 6.1.5 (g) (iii) 1), by policy.
    origins: BTreeSet<Oid>,
}

impl Node {
    fn new(policy: &Oid, origins: BTreeSet<Oid>) -> Self {
        Self { expected: BTreeSet::from([policy.clone()]), origins }
    }
}

/// The state variables of RFC 5280 6.1.2 (a), (d), (e), (f).
pub(super) struct Policies {
    /// user-initial-policy-set; `None` is anyPolicy.
    acceptable: Option<BTreeSet<Oid>>,
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
    let any = ANY_POLICY.to_vec();
    BTreeMap::from([(any.clone(), Node::new(&any, BTreeSet::from([any.clone()])))])
}

impl Policies {
    /// For a path of `length` certificates, the anchor not counted.
    pub(super) fn new(length: usize, demand: &PolicyDemand) -> Self {
        let start = |now: bool| if now { 0 } else { length as u64 + 1 };
        let set = demand.acceptable.as_ref().map(|set| set.iter().map(|one| one.as_bytes().to_vec()).collect());
        Self {
            acceptable: set.filter(|set: &BTreeSet<Oid>| !set.contains(ANY_POLICY)),
            level: Some(any_level()),
            explicit_policy: start(demand.explicit),
            inhibit_any: start(demand.inhibit_any),
            policy_mapping: start(demand.inhibit_mapping),
        }
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

    fn map(&mut self, mappings: Mappings) {
        let Some(level) = &mut self.level else { return };
        let any = level.contains_key(ANY_POLICY);
        for (from, to) in mappings {
            if self.policy_mapping == 0 {
                level.remove(&from);
            } else if let Some(node) = level.get_mut(&from) {
                node.expected = to;
            } else if any {
                // RFC 5280 6.1.4 (b) (1): a sibling of the anyPolicy node, whose parent is anyPolicy.
                let origins = BTreeSet::from([from.clone()]);
                level.insert(from, Node { expected: to, origins });
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
        self.intersect();
        self.check()
    }

    /// RFC 5280 6.1.5 (g) (iii): what stems from no policy of the set goes; anyPolicy at the leaf stands for each of them.
    fn intersect(&mut self) {
        let (Some(set), Some(level)) = (&self.acceptable, &mut self.level) else { return };
        level.retain(|policy, node| policy == ANY_POLICY || !node.origins.is_disjoint(set));
        if level.is_empty() || set.is_empty() {
            self.level = None;
        }
    }
}

/// RFC 5280 6.1.3 (d) (1) and (2).
fn children(parents: &Level, stated: &BTreeSet<Oid>, any_counts: bool) -> Level {
    let mut origins: BTreeMap<&Oid, BTreeSet<&Oid>> = BTreeMap::new();
    for node in parents.values() {
        for policy in &node.expected {
            origins.entry(policy).or_default().extend(&node.origins);
        }
    }
    let inherited = |policy: &Oid| origins.get(policy).map(|set| set.iter().map(|one| (*one).clone()).collect());
    let mut level = Level::new();
    for policy in stated.iter().filter(|policy| policy.as_slice() != ANY_POLICY) {
        let below_any = || parents.contains_key(ANY_POLICY).then(|| BTreeSet::from([policy.clone()]));
        if let Some(origins) = inherited(policy).or_else(below_any) {
            level.insert(policy.clone(), Node::new(policy, origins));
        }
    }
    if any_counts && stated.contains(ANY_POLICY) {
        for policy in origins.keys() {
            let make = || Node::new(policy, inherited(policy).unwrap_or_default());
            level.entry((*policy).clone()).or_insert_with(make);
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

fn read_mappings(certificate: &Certificate) -> Result<Mappings, Asn1Error> {
    let mut mappings = Mappings::new();
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

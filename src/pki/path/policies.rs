//! Certificate policies (RFC 5280 section 6.1). One level of the policy graph is kept, each policy once (RFC 9618), with the policies
//! at which its lines of descent left anyPolicy: those are what the accepted policies are compared with at the end (RFC 5280 6.1.5 (g)).
//! No mapping can make it grow beyond what the certificates hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::pki::asn1::{Asn1Error, Reader, tag};
use crate::pki::certificate::Certificate;

const ANY_POLICY: &[u8] = &[0x55, 0x1d, 0x20, 0x00];
/// The most policies and mappings read from one certificate.
const MAX_POLICIES: usize = 256;

type Oid = Vec<u8>;

/// What a relying party asks of policies (RFC 5280 6.1.1 (c), (e), (f), (g)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InitialPolicies {
    /// user-initial-policy-set: content octets of the OIDs; `None`: any policy.
    pub accepted: Option<Arc<BTreeSet<Vec<u8>>>>,
    /// initial-explicit-policy: one of the accepted policies must be valid for the whole path.
    pub explicit: bool,
    /// initial-policy-mapping-inhibit.
    pub inhibit_mapping: bool,
    /// initial-any-policy-inhibit.
    pub inhibit_any: bool,
}

impl InitialPolicies {
    /// One of these is needed, each written with dots. An error: what is no OID.
    pub fn one_of<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let read = |text: &str| {
            let oid = const_oid::ObjectIdentifier::new(text);
            oid.map(|oid| oid.as_bytes().to_vec())
                .map_err(|_| format!("expected an OID such as 1.3.6.1.4.1.99, not {text:?}"))
        };
        let accepted = texts.into_iter().map(read).collect::<Result<BTreeSet<_>, _>>()?;
        Ok(Self { accepted: Some(Arc::new(accepted)), explicit: true, ..Self::default() })
    }
}

/// A policy valid at this depth.
#[derive(Debug, Clone, Default)]
struct Node {
    expected: BTreeSet<Oid>,
    /// The valid_policy_node_set (6.1.5 (g) (iii) (1)) that it descends from; empty for anyPolicy itself.
    origins: BTreeSet<Oid>,
}

/// Valid policy -> node.
type Level = BTreeMap<Oid, Node>;
/// issuerDomainPolicy -> subjectDomainPolicies.
type Mappings = BTreeMap<Oid, BTreeSet<Oid>>;

/// The state variables of RFC 5280 6.1.2 (a), (d), (e), (f).
pub(super) struct Policies<'i> {
    initial: &'i InitialPolicies,
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
    let expected = BTreeSet::from([ANY_POLICY.to_vec()]);
    BTreeMap::from([(ANY_POLICY.to_vec(), Node { expected, origins: BTreeSet::new() })])
}

impl<'i> Policies<'i> {
    /// For a path of `length` certificates, the anchor not counted.
    pub(super) fn new(length: usize, initial: &'i InitialPolicies) -> Self {
        let from = |now: bool| if now { 0 } else { length as u64 + 1 };
        Self {
            initial,
            level: Some(any_level()),
            explicit_policy: from(initial.explicit),
            inhibit_any: from(initial.inhibit_any),
            policy_mapping: from(initial.inhibit_mapping),
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
        for (from, to) in mappings {
            if self.policy_mapping == 0 {
                level.remove(&from);
            } else if let Some(node) = level.get_mut(&from) {
                node.expected = to;
            } else if level.contains_key(ANY_POLICY) {
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
        // RFC 5280 6.1.5 (g) (iii): what descends from no accepted policy goes; anyPolicy stands for all of them.
        if let (Some(level), Some(accepted)) = (&mut self.level, &self.initial.accepted) {
            level.retain(|policy, node| match policy.as_slice() {
                ANY_POLICY => !accepted.is_empty(),
                _ => accepted.contains(ANY_POLICY) || node.origins.iter().any(|origin| accepted.contains(origin)),
            });
            if level.is_empty() {
                self.level = None;
            }
        }
        self.check()
    }
}

/// RFC 5280 6.1.3 (d) (1) and (2).
fn children(parents: &Level, stated: &BTreeSet<Oid>, any_counts: bool) -> Level {
    let mut level = Level::new();
    let mut descend = |policy: &Oid, parent: (&Oid, &Node)| {
        let node = level.entry(policy.clone()).or_default();
        node.expected.insert(policy.clone());
        match parent.0.as_slice() {
            ANY_POLICY if policy.as_slice() == ANY_POLICY => {}
            ANY_POLICY => _ = node.origins.insert(policy.clone()),
            _ => node.origins.extend(parent.1.origins.iter().cloned()),
        }
    };
    let any = parents.get_key_value(ANY_POLICY);
    for policy in stated.iter().filter(|policy| policy.as_slice() != ANY_POLICY) {
        let mut expected = parents.iter().filter(|(_, node)| node.expected.contains(policy)).peekable();
        match (expected.peek().is_some(), any) {
            (true, _) => expected.for_each(|parent| descend(policy, parent)),
            (false, Some(any)) => descend(policy, any),
            (false, None) => {}
        }
    }
    if any_counts && stated.contains(ANY_POLICY) {
        for (policy, node) in parents {
            for expected in
                node.expected.iter().filter(|expected| !stated.contains(*expected) || *expected == ANY_POLICY)
            {
                descend(expected, (policy, node));
            }
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

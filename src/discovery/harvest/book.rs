//! What is kept of all that was harvested, by owner: bounds for the whole store.
//!
//! Where pending ones are at their bound, the oldest of the domain that has most of them goes: whoever floods us from a domain of his own
//! pushes out his own.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::address::Domain;
use crate::policy::TrustState;
use crate::store::{BY_HARVEST, Identity, Owner};

/// What one owner has of it.
struct Held {
    /// Certificates that were harvested, pending ones included.
    harvested: usize,
    pending: Vec<Entry>,
}

/// A pending one: since when (whole seconds), the how manyth that was seen here, its fingerprint.
type Entry = (Timestamp, u64, [u8; 32]);

#[derive(Default)]
pub(super) struct Book {
    owners: HashMap<Owner, Held>,
    /// Pending ones by domain.
    domains: HashMap<Domain, usize>,
    harvested: usize,
    pending: usize,
    seen: u64,
}

fn domain_of(owner: &Owner) -> Domain {
    match owner {
        Owner::Mailbox(mailbox) => mailbox.domain(),
        Owner::Domain(domain) => domain.clone(),
    }
}

impl Book {
    /// Harvested certificates in all.
    pub fn harvested(&self) -> usize {
        self.harvested
    }

    /// Those of them that are pending.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Takes note of what an owner has now.
    pub fn set(&mut self, identity: &Identity) {
        let before = self.forget(&identity.owner);
        let mut number = |fingerprint: [u8; 32]| {
            let known = before.iter().find(|(.., name)| *name == fingerprint).map(|(_, number, _)| *number);
            known.unwrap_or_else(|| {
                self.seen = self.seen.saturating_add(1);
                self.seen
            })
        };
        let harvested = identity.certificates.iter().filter(|record| record.provenance.source == BY_HARVEST);
        let pending: Vec<_> = harvested
            .clone()
            .filter(|record| record.trust == TrustState::Pending)
            .map(|record| (record.provenance.at, record.certificate.fingerprint()))
            .map(|(at, name)| (at, number(name), name))
            .collect();
        let held = Held { harvested: harvested.count(), pending };
        if held.harvested == 0 {
            return;
        }
        self.harvested = self.harvested.saturating_add(held.harvested);
        self.pending = self.pending.saturating_add(held.pending.len());
        if !held.pending.is_empty() {
            let count = self.domains.entry(domain_of(&identity.owner)).or_default();
            *count = count.saturating_add(held.pending.len());
        }
        self.owners.insert(identity.owner.clone(), held);
    }

    /// Gives what was pending.
    fn forget(&mut self, owner: &Owner) -> Vec<Entry> {
        let Some(held) = self.owners.remove(owner) else { return Vec::new() };
        self.harvested = self.harvested.saturating_sub(held.harvested);
        self.pending = self.pending.saturating_sub(held.pending.len());
        let domain = domain_of(owner);
        if let Some(count) = self.domains.get_mut(&domain) {
            *count = count.saturating_sub(held.pending.len());
            if *count == 0 {
                self.domains.remove(&domain);
            }
        }
        held.pending
    }

    /// The pending one that goes first.
    pub fn to_push_out(&self) -> Option<(Owner, [u8; 32])> {
        // Among equals the same one each time, whatever the order of the table.
        let (domain, _) =
            self.domains.iter().max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.as_str().cmp(a.0.as_str())))?;
        let of_domain = self.owners.iter().filter(|(owner, _)| domain_of(owner) == *domain);
        let all = of_domain.flat_map(|(owner, held)| held.pending.iter().map(move |entry| (entry, owner)));
        all.min().map(|((.., name), owner)| (owner.clone(), *name))
    }
}

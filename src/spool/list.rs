//! Looking at the spool: pages of entries, and sums.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use super::entry::{Entry, EntryId};
use super::index::Slot;
use super::{Spool, lock};
use crate::address::ReversePath;

/// Entries looked at while the index is locked: mail on its way waits for no longer than that.
const LOOKED_AT: usize = 1000;

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryState {
    /// To be delivered, now or when it is due.
    Waiting,
    /// A delivery is under way.
    Claimed,
    /// Kept until it is released; or on its way here from another spool, until that is done.
    Held,
}

impl EntryState {
    /// Its name: `waiting`, `delivering`, `held`.
    pub fn name(self) -> &'static str {
        match self {
            EntryState::Waiting => "waiting",
            EntryState::Claimed => "delivering",
            EntryState::Held => "held",
        }
    }
}

impl std::str::FromStr for EntryState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [EntryState::Waiting, EntryState::Claimed, EntryState::Held];
        let found = all.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| format!("state {text:?}: waiting, delivering or held"))
    }
}

/// Which entries; all that is said must hold. Case does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Where it stands.
    pub state: Option<EntryState>,
    /// Its next hop: `host` or `host:port`.
    pub next_hop: Option<String>,
    /// The reverse-path: an address, `@domain`, or `<>`.
    pub sender: Option<String>,
    /// One of the recipients: an address or `@domain`.
    pub recipient: Option<String>,
    /// Committed at this time or before.
    pub created_until: Option<Timestamp>,
    /// Committed at this time or after.
    pub created_from: Option<Timestamp>,
}

/// An entry and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where it stands.
    pub state: EntryState,
    /// The entry.
    pub entry: Arc<Entry>,
}

/// A page of entries, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Listed>,
    /// There may be more, after this one.
    pub next: Option<EntryId>,
}

/// Entries and their octets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub entries: u64,
    /// Octets of their contents.
    pub octets: u64,
}

/// Sums over one next hop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HopStats {
    /// To be delivered, now or when due.
    pub waiting: Sum,
    /// Of those, tried at least once.
    pub deferred: Sum,
    /// A delivery is under way.
    pub claimed: Sum,
    /// Kept until released.
    pub held: Sum,
    /// When the oldest that is not held was committed.
    pub oldest: Option<Timestamp>,
}

/// Sums over the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// By next hop: host and port.
    pub hops: BTreeMap<(String, u16), HopStats>,
}

impl Stats {
    /// Everything together.
    pub fn total(&self) -> HopStats {
        let mut total = HopStats::default();
        for hop in self.hops.values() {
            total.waiting.add_sum(hop.waiting);
            total.deferred.add_sum(hop.deferred);
            total.claimed.add_sum(hop.claimed);
            total.held.add_sum(hop.held);
            total.oldest = [total.oldest, hop.oldest].into_iter().flatten().min();
        }
        total
    }
}

impl Sum {
    fn add(&mut self, octets: u64) {
        self.add_sum(Sum { entries: 1, octets });
    }
    fn add_sum(&mut self, other: Sum) {
        self.entries = self.entries.saturating_add(other.entries);
        self.octets = self.octets.saturating_add(other.octets);
    }
}

impl HopStats {
    fn count(&mut self, state: EntryState, entry: &Entry) {
        match state {
            EntryState::Waiting => self.waiting.add(entry.size),
            EntryState::Claimed => self.claimed.add(entry.size),
            EntryState::Held => self.held.add(entry.size),
        }
        if state == EntryState::Waiting && entry.attempts > 0 {
            self.deferred.add(entry.size);
        }
        if state != EntryState::Held {
            self.oldest = self.oldest.into_iter().chain([entry.created]).min();
        }
    }
}

impl Filter {
    /// Whether it says nothing, so that every entry is meant.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn holds(&self, state: EntryState, entry: &Entry) -> bool {
        let sender = || match &entry.reverse_path {
            ReversePath::Null => "<>".to_owned(),
            ReversePath::Mailbox(mailbox) => mailbox.to_string(),
        };
        let hop = &entry.next_hop;
        self.state.is_none_or(|wanted| wanted == state)
            && self.created_until.is_none_or(|until| entry.created <= until)
            && self.created_from.is_none_or(|from| entry.created >= from)
            && self.next_hop.as_deref().is_none_or(|wanted| {
                wanted.eq_ignore_ascii_case(&hop.host)
                    || wanted.eq_ignore_ascii_case(&format!("{}:{}", hop.host, hop.port))
            })
            && self.sender.as_deref().is_none_or(|wanted| is_address(wanted, &sender()))
            && self.recipient.as_deref().is_none_or(|wanted| {
                entry.recipients.iter().any(|one| is_address(wanted, &one.recipient.mailbox.to_string()))
            })
    }
}

fn is_address(wanted: &str, address: &str) -> bool {
    let compared = match wanted.strip_prefix('@') {
        Some(domain) => (domain, address.rsplit_once('@').map_or("", |(_, domain)| domain)),
        None => (wanted, address),
    };
    compared.0.to_lowercase() == compared.1.to_lowercase()
}

impl Slot {
    fn state(&self) -> EntryState {
        match (self.claimed, self.may_go()) {
            (true, _) => EntryState::Claimed,
            (false, true) => EntryState::Waiting,
            (false, false) => EntryState::Held,
        }
    }

    fn listed(&self) -> Listed {
        Listed { state: self.state(), entry: Arc::clone(&self.entry) }
    }
}

impl Spool {
    /// A page of the entries for which `filter` holds, oldest first: at most `most` of them, after `after`.
    pub fn list(&self, filter: &Filter, after: Option<EntryId>, most: usize) -> Page {
        let mut page = Page::default();
        self.walk(after, |slot| {
            if page.entries.len() == most {
                page.next = page.entries.last().map(|listed| listed.entry.id).or(after);
                return false;
            }
            if filter.holds(slot.state(), &slot.entry) {
                page.entries.push(slot.listed());
            }
            true
        });
        page
    }

    /// Held entries, oldest first, at most so many. `wanted` is asked under the index's lock.
    pub fn held(&self, most: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let mut held = Vec::new();
        self.walk(None, |slot| {
            if slot.state() == EntryState::Held && slot.adopting.is_none() && wanted(&slot.entry) {
                held.push(Arc::clone(&slot.entry));
            }
            held.len() < most
        });
        held
    }

    /// Every entry, oldest first.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.shared.index).slots.values().map(|slot| Arc::clone(&slot.entry)).collect()
    }

    /// One entry and where it stands.
    pub fn get(&self, id: EntryId) -> Option<Listed> {
        lock(&self.shared.index).slots.get(&id).map(Slot::listed)
    }

    /// One entry.
    pub fn entry(&self, id: EntryId) -> Option<Arc<Entry>> {
        lock(&self.shared.index).slots.get(&id).map(|slot| Arc::clone(&slot.entry))
    }

    /// Counts and octets by next hop and state. Entries that change meanwhile may be counted as before or as after.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.walk(None, |slot| {
            let hop = &slot.entry.next_hop;
            stats.hops.entry((hop.host.clone(), hop.port)).or_default().count(slot.state(), &slot.entry);
            true
        });
        stats
    }

    /// Shows slots in order until `look` says no, and lets others at the index now and then.
    fn walk(&self, after: Option<EntryId>, mut look: impl FnMut(&Slot) -> bool) {
        let mut from = after.map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let index = lock(&self.shared.index);
            let mut last = None;
            for (id, slot) in index.slots.range((from, Bound::Unbounded)).take(LOOKED_AT) {
                if !look(slot) {
                    return;
                }
                last = Some(*id);
            }
            match last {
                None => return,
                Some(id) => from = Bound::Excluded(id),
            }
        }
    }
}

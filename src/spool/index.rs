//! What the spool knows in memory: entries, what is due, and what lies where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::entry::{Entry, EntryId, RecipientState, Treatment, micros};
use super::recent::Recent;
use super::record::{BodyAt, Change, Digest, Sealing, Settlement, Stored};
use super::{SpoolError, entry_octets, octets};
use crate::config::{HopTls, NextHop};

/// Why an entry is held whose recipients failed where nobody may be told.
const STUCK: &str = "failed for good, and no DSN may be sent";
/// The same where policy keeps mail back.
const QUARANTINED: &str = "quarantine: see each recipient";

#[derive(Default)]
pub(super) struct Index {
    pub(super) slots: BTreeMap<EntryId, Slot>,
    pub(super) due: BTreeMap<NextHopKey, BTreeSet<(Timestamp, EntryId)>>,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Octets of contents, and a KiB for each entry.
    pub(super) octets: u64,
    pub(super) recent: Recent,
}

type NextHopKey = (String, u16, bool, u8);

#[derive(Clone)]
pub(super) struct Slot {
    pub(super) entry: Arc<Entry>,
    pub(super) body: Body,
    pub(super) digest: Digest,
    pub(super) sealing: Option<Sealing>,
    pub(super) segment: u64,
    pub(super) claimed: bool,
    /// It was copied from the spool of this name, which still has it.
    pub(super) adopting: Option<[u8; 16]>,
}

impl Slot {
    /// Whether it may be claimed.
    pub(super) fn may_go(&self) -> bool {
        !self.claimed && self.adopting.is_none() && self.entry.may_go()
    }
}

/// Where a content is, seen from outside its record; lengths as stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    Log { offset: u64, len: usize },
    File { len: u64 },
}

#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) len: u64,
    pub(super) live: u64,
    pub(super) entries: BTreeSet<EntryId>,
}

impl Index {
    pub(super) fn queue(&mut self, entry: &Entry) {
        if entry.may_go() {
            self.due.entry(hop_key(&entry.next_hop)).or_default().insert((entry.next_attempt, entry.id));
        }
    }

    pub(super) fn unqueue(&mut self, entry: &Entry) {
        let key = hop_key(&entry.next_hop);
        if let Some(queue) = self.due.get_mut(&key) {
            queue.remove(&(entry.next_attempt, entry.id));
            if queue.is_empty() {
                self.due.remove(&key);
            }
        }
    }

    /// An entry's content, where it is still in memory.
    pub(super) fn take_recent(&mut self, id: EntryId) -> Result<Option<Bytes>, SpoolError> {
        if self.slots.contains_key(&id) { Ok(self.recent.take(id)) } else { Err(SpoolError::NoEntry(id)) }
    }

    /// Marks entries as claimed.
    pub(super) fn claim(&mut self, taken: &[Arc<Entry>]) {
        for entry in taken {
            self.unqueue(entry);
            self.slots.entry(entry.id).and_modify(|slot| slot.claimed = true);
        }
    }

    /// Applies a change whose record is at `payload_offset` of `segment`. Gives the body file that is now without an entry.
    pub(super) fn apply(&mut self, change: Change, segment: u64, payload_offset: u64) -> Option<EntryId> {
        match change {
            Change::Put { entry, stored } => self.put(entry, stored, segment, payload_offset),
            Change::State(id, state) => self.edit(id, |slot| {
                slot.claimed = false;
                let entry = Arc::make_mut(&mut slot.entry);
                entry.attempts = state.attempts;
                entry.held = state.held;
                set_recipients(entry, state.recipients);
                entry.next_attempt = micros(state.next_attempt);
            }),
            Change::Settled(id, settlement) => self.edit(id, |slot| settle(slot, settlement)),
            Change::Held(id, why) => self.edit(id, |slot| Arc::make_mut(&mut slot.entry).held = Some(why)),
            Change::Released(id, at) => self.edit(id, |slot| {
                let entry = Arc::make_mut(&mut slot.entry);
                (entry.held, entry.next_attempt, entry.released) = (None, micros(at), Some(micros(at)));
                for one in &mut entry.recipients {
                    one.state = match one.state {
                        RecipientState::Stuck => RecipientState::Waiting,
                        RecipientState::Quarantined => RecipientState::Released,
                        other => other,
                    };
                }
            }),
            Change::Retried(id, at) => {
                self.edit(id, |slot| Arc::make_mut(&mut slot.entry).next_attempt = micros(at));
            }
            Change::Done(id) => {
                self.recent.take(id);
                return self.remove(id).and_then(|slot| matches!(slot.body, Body::File { .. }).then_some(id));
            }
            Change::Adopting(id, from) => self.edit(id, |slot| slot.adopting = Some(from)),
            Change::Activated(from) => self.activate(from),
            Change::Seal | Change::Begun(_) => {}
        }
        None
    }

    /// An entry whose commit nobody waits for any more: it is never due, and to be ended.
    pub(super) fn withdraw(&mut self, id: EntryId) {
        self.edit(id, |slot| slot.claimed = true);
    }

    /// Octets of the log.
    pub(super) fn log_octets(&self) -> u64 {
        self.segments.values().map(|info| info.len).fold(0, u64::saturating_add)
    }

    /// The names of the keys that seal something.
    pub(super) fn sealing_keys(&self) -> BTreeSet<[u8; 16]> {
        self.slots.values().filter_map(|slot| slot.sealing).map(|sealing| sealing.key).collect()
    }

    fn put(&mut self, entry: Entry, stored: Stored, segment: u64, payload_offset: u64) {
        let claimed = self.remove(entry.id).is_some_and(|slot| slot.claimed);
        let Stored { body, digest, sealing } = stored;
        let body = match body {
            BodyAt::Inline { offset, len } => Body::Log { offset: payload_offset.saturating_add(octets(offset)), len },
            BodyAt::File { len } => Body::File { len },
        };
        self.insert(Slot { entry: Arc::new(entry), body, digest, sealing, segment, claimed, adopting: None });
    }

    fn activate(&mut self, from: [u8; 16]) {
        let copies = self.slots.iter().filter(|(_, slot)| slot.adopting == Some(from));
        for id in copies.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.edit(id, |slot| slot.adopting = None);
        }
    }

    fn edit(&mut self, id: EntryId, edit: impl FnOnce(&mut Slot)) {
        if let Some(mut slot) = self.remove(id) {
            edit(&mut slot);
            self.insert(slot);
        }
    }

    fn insert(&mut self, slot: Slot) {
        let entry = Arc::clone(&slot.entry);
        if slot.may_go() {
            self.queue(&entry);
        }
        let info = self.segments.entry(slot.segment).or_default();
        info.entries.insert(entry.id);
        info.live = info.live.saturating_add(live_octets(&slot.body));
        self.octets = self.octets.saturating_add(entry_octets(entry.size));
        self.slots.insert(entry.id, slot);
    }

    fn remove(&mut self, id: EntryId) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        self.unqueue(&slot.entry);
        self.octets = self.octets.saturating_sub(entry_octets(slot.entry.size));
        if let Some(info) = self.segments.get_mut(&slot.segment) {
            info.entries.remove(&id);
            info.live = info.live.saturating_sub(live_octets(&slot.body));
        }
        Some(slot)
    }
}

/// The claim ends. Where nobody waits and some are stuck, the entry is held; a hold that came meanwhile stays.
fn settle(slot: &mut Slot, settlement: Settlement) {
    slot.claimed = false;
    let entry = Arc::make_mut(&mut slot.entry);
    // What policy has not treated is never tried: its sender was told that it waits.
    let tried = entry.treatment != Treatment::AsSubmitted;
    entry.attempts = entry.attempts.saturating_add(tried.into());
    entry.next_attempt = micros(settlement.next_attempt);
    entry.delay_told = settlement.delay_told.map(micros).or(entry.delay_told);
    set_recipients(entry, settlement.recipients);
    let any = |state| entry.recipients.iter().any(|one| one.state == state);
    let why = match (any(RecipientState::Quarantined), any(RecipientState::Stuck)) {
        (true, _) => Some(QUARANTINED),
        (false, true) => Some(STUCK),
        (false, false) => None,
    };
    if entry.held.is_none() && !entry.recipients.iter().any(|one| one.state.waits()) {
        entry.held = why.map(str::to_owned);
    }
}

fn set_recipients(entry: &mut Entry, states: Vec<(RecipientState, Option<String>)>) {
    for (one, (now, last)) in entry.recipients.iter_mut().zip(states) {
        (one.state, one.last) = (now, last);
    }
}

fn live_octets(body: &Body) -> u64 {
    entry_octets(match body {
        Body::Log { len, .. } => octets(*len),
        Body::File { .. } => 0,
    })
}

fn hop_key(hop: &NextHop) -> NextHopKey {
    let tls = match hop.tls {
        HopTls::Off => 0,
        HopTls::Opportunistic => 1,
        HopTls::Required => 2,
        HopTls::Verified => 3,
    };
    (hop.host.clone(), hop.port, hop.lmtp, tls)
}

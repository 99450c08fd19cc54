//! Old segments go: those in which nothing lives, and those in which little does, once that is written anew at the head.
//!
//! Only the oldest goes, so that a record that ends an entry never goes before the one that began it. An entry that is rewritten
//! replaces itself: after a crash between the two steps both are read, the newer last.

use std::io;

use super::EntryId;
use super::index::{Body, Slot};
use super::record::{Change, Payload};
use super::writer::{GROUP, Writer};
use super::{lock, segment_name};

/// Octets that are moved before mail has its turn again.
const STEP: usize = 1 << 20;
/// Segments that are no reason to move anything.
const SEGMENTS: u64 = 16;

impl Writer {
    /// Rotates when the segment is full, removes old segments without live entries, and moves some of what lives in the oldest. Says
    /// whether there is more to do.
    pub(super) fn tidy(&mut self) -> bool {
        if self.file.is_none() {
            return false;
        }
        let result = self.rotate().and_then(|()| self.drop_oldest()).and_then(|()| self.compact());
        result.unwrap_or_else(|error| {
            self.failed(Vec::new(), &error);
            false
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.len < self.shared.limits.segment {
            return Ok(());
        }
        self.begin()
    }

    fn drop_oldest(&mut self) -> io::Result<()> {
        loop {
            let mut index = lock(&self.shared.index);
            let oldest = index
                .segments
                .first_key_value()
                .filter(|(number, info)| **number != self.number && info.entries.is_empty());
            let Some(number) = oldest.map(|(number, _)| *number) else { return Ok(()) };
            index.segments.remove(&number);
            drop(index);
            match self.shared.disk.remove(&segment_name(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // In order, so that no later removal is durable before this one.
                _ => self.shared.disk.sync_folder()?,
            }
        }
    }

    /// Little lives in the oldest segment, much that is dead lies behind it, or there are many: its entries move to the head. On a full
    /// disk only where that frees more than it takes of the reserve.
    fn compact(&mut self) -> io::Result<bool> {
        let limits = self.shared.limits;
        let index = lock(&self.shared.index);
        let total = index.log_octets();
        let live: u64 = index.segments.values().map(|info| info.live).fold(0, u64::saturating_add);
        let most = total.checked_div(limits.segment).unwrap_or_default().saturating_mul(2).saturating_add(SEGMENTS);
        let many = u64::try_from(index.segments.len()).unwrap_or(u64::MAX) > most;
        let Some((number, oldest)) = index.segments.first_key_value().filter(|(number, _)| **number != self.number)
        else {
            return Ok(false);
        };
        let little = oldest.live < oldest.len / 4;
        let dead = total > live.saturating_mul(4).saturating_add(limits.segment.saturating_mul(4));
        let worth = if self.works() { little || dead || many } else { little && oldest.live < limits.reserve / 4 };
        let (number, entries) = (*number, oldest.entries.clone());
        drop(index);
        if !worth || self.unmovable == Some(number) {
            return Ok(false);
        }
        let moved = self.move_entries(number, entries, STEP)?;
        self.drop_oldest()?;
        Ok(moved)
    }

    /// Writes entries of a segment anew, up to about `most` octets. Says whether any was moved.
    fn move_entries(&mut self, from: u64, ids: impl IntoIterator<Item = EntryId>, most: usize) -> io::Result<bool> {
        let (mut batch, mut size, mut all, mut any) = (Vec::new(), 0, 0, false);
        for id in ids {
            let slot = lock(&self.shared.index).slots.get(&id).filter(|slot| slot.segment == from).cloned();
            let Some(slot) = slot else { continue };
            let Some((payload, changes)) = self.rewritten(&slot)? else {
                tracing::error!(entry = %id, "content damaged on disk, left where it is");
                self.unmovable = Some(from);
                continue;
            };
            size += payload.0.len();
            all += payload.0.len();
            any = true;
            batch.push((payload, changes));
            if size >= GROUP || all >= most {
                self.moved(std::mem::take(&mut batch))?;
                size = 0;
            }
            if all >= most {
                break;
            }
        }
        self.moved(batch)?;
        Ok(any)
    }

    fn moved(&mut self, batch: Vec<(Payload, Vec<Change>)>) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let payloads: Vec<&[u8]> = batch.iter().map(|(payload, _)| payload.0.as_slice()).collect();
        let offsets = self.append(&payloads)?;
        let mut index = lock(&self.shared.index);
        for ((_, changes), offset) in batch.into_iter().zip(offsets) {
            for change in changes {
                index.apply(change, self.number, offset);
            }
        }
        index.segments.entry(self.number).or_default().len = self.len;
        Ok(())
    }

    fn rewritten(&self, slot: &Slot) -> io::Result<Option<(Payload, Vec<Change>)>> {
        let mut payload = Payload::default();
        let (file, content) = match slot.body {
            Body::File { len } => (Some((len, slot.digest)), Vec::new()),
            Body::Log { offset, len } => (None, self.shared.disk.read(&segment_name(slot.segment), offset, len)?),
        };
        let stored = payload.put(&slot.entry, slot.sealing, file, std::iter::once(content.into()));
        if stored.digest != slot.digest {
            return Ok(None);
        }
        let entry = slot.entry.as_ref().clone();
        let adopting = slot.adopting.map(|from| Change::Adopting(entry.id, from));
        adopting.iter().for_each(|change| payload.change(change));
        Ok(Some((payload, [Change::Put { entry, stored }].into_iter().chain(adopting).collect())))
    }

    /// Moves all live entries into the new segment, then takes damaged segments out of the log's way, kept under another name.
    pub(super) fn set_aside(&mut self, damaged: &[u64]) -> io::Result<()> {
        if damaged.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u64> =
            lock(&self.shared.index).segments.keys().copied().filter(|number| *number != self.number).collect();
        for number in &numbers {
            let ids =
                lock(&self.shared.index).segments.get(number).map(|info| info.entries.clone()).unwrap_or_default();
            self.move_entries(*number, ids, usize::MAX)?;
        }
        for number in damaged {
            let mut index = lock(&self.shared.index);
            if index.segments.get(number).is_some_and(|info| !info.entries.is_empty()) {
                continue;
            }
            index.segments.remove(number);
            drop(index);
            self.shared.disk.rename(&segment_name(*number), &format!("{number:016x}.damaged"))?;
        }
        self.shared.disk.sync_folder()?;
        self.drop_oldest()
    }
}

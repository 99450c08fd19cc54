//! The records of a segment, read piece by piece: memory for the longest record, not for the segment.

use std::io;

use super::disk::Disk;
use super::record::{CHECKSUM, HEADER, MAGIC, PAYLOAD_MAX, Record, read_record};
use super::{octets, segment_name};

/// Octets read at once, at least.
const WINDOW: usize = 1 << 20;

/// Goes from record to record, over what is no record.
pub(super) struct Scan<'d> {
    disk: &'d dyn Disk,
    number: u64,
    /// Octets of the segment that are looked at.
    end: u64,
    at: u64,
    /// Octets passed that are no record.
    pub(super) bad: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'d> Scan<'d> {
    pub(super) fn new(disk: &'d dyn Disk, number: u64, end: u64) -> Self {
        Self { disk, number, end, at: 0, bad: 0, window: Vec::new(), window_at: 0 }
    }

    /// The next record, and where its payload begins in the segment.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Record<'_>)>> {
        while self.at < self.end {
            let Some((frame, index, count, len)) = self.record_here()? else {
                let skipped = self.skip_to_next_magic()?;
                self.bad = self.bad.saturating_add(skipped);
                continue;
            };
            let payload_at = self.at.saturating_add(octets(HEADER));
            self.at = self.at.saturating_add(octets(len));
            let payload = self.held(payload_at, len.saturating_sub(HEADER + CHECKSUM)).unwrap_or_default();
            return Ok(Some((payload_at, Record { frame, index, count, payload, len })));
        }
        Ok(None)
    }

    /// Frame, index, count and length of the record that begins here, if one does.
    fn record_here(&mut self) -> io::Result<Option<(u64, u32, u32, usize)>> {
        let Some(header) = self.need(HEADER)? else { return Ok(None) };
        let len = header.get(20..HEADER).and_then(|len| len.try_into().ok()).map(u32::from_le_bytes);
        let magic = header.starts_with(&MAGIC.to_le_bytes());
        let Some(len) = len.and_then(|len| usize::try_from(len).ok()).filter(|len| magic && *len <= PAYLOAD_MAX) else {
            return Ok(None);
        };
        let number = self.number;
        let record = self.need(len.saturating_add(HEADER + CHECKSUM))?.and_then(|octets| read_record(number, octets));
        Ok(record.map(|record| (record.frame, record.index, record.count, record.len)))
    }

    /// Goes to where the next record may begin; gives how far that was.
    fn skip_to_next_magic(&mut self) -> io::Result<u64> {
        let from = self.at;
        self.at = from.saturating_add(1);
        let magic = MAGIC.to_le_bytes();
        while self.need(magic.len())?.is_some() {
            let in_window = usize::try_from(self.at - self.window_at).unwrap_or(usize::MAX);
            let rest = self.window.get(in_window..).unwrap_or_default();
            if let Some(skip) = memchr::memmem::find(rest, &magic) {
                self.at = self.at.saturating_add(octets(skip));
                return Ok(self.at - from);
            }
            // The magic may begin in the window's last octets.
            self.at = self.at.saturating_add(octets(rest.len().saturating_sub(magic.len() - 1).max(1)));
        }
        self.at = self.end;
        Ok(self.end.saturating_sub(from))
    }

    /// `len` octets from here; `None` when there are fewer.
    fn need(&mut self, len: usize) -> io::Result<Option<&[u8]>> {
        let left = self.end.saturating_sub(self.at);
        if octets(len) > left {
            return Ok(None);
        }
        if self.held(self.at, len).is_none() {
            let more = usize::try_from(left).unwrap_or(usize::MAX).min(len.max(WINDOW));
            // The old window first: two of them would be held.
            self.window = Vec::new();
            self.window = self.disk.read(&segment_name(self.number), self.at, more)?;
            self.window_at = self.at;
        }
        Ok(self.held(self.at, len))
    }

    fn held(&self, at: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.window_at)?).ok()?;
        self.window.get(from..from.checked_add(len)?)
    }
}

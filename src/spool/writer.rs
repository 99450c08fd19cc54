//! The thread that writes the log: many transactions in one write and one sync.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::disk::DiskFile;
use super::record::{BodyAt, CHECKSUM, Change, HEADER, Payload, Stored, frame_record};
use super::{Body, EntryId, Job, Shared, Slot, SpoolError, body_name, lock, octets, segment_name};

/// Octets of one group.
const GROUP: usize = 8 << 20;
/// How long outcomes wait for mail to be synced with, and how many do not wait: fewer than the deliveries to one next hop at once.
const OUTCOMES_WAIT: Duration = Duration::from_millis(2);
const OUTCOMES: usize = 8;
/// How often a disk in trouble is tried.
const PROBE: Duration = Duration::from_secs(1);
/// What is written to try it: enough for a group of changes.
const PROBE_OCTETS: usize = 64 * 1024;

struct Writer {
    shared: Arc<Shared>,
    number: u64,
    /// `None` after an error: nothing is appended to a file whose state is unknown.
    file: Option<Box<dyn DiskFile>>,
    len: u64,
    frame: u64,
    /// Changes that wait for the disk.
    waiting: VecDeque<Job>,
    /// A segment with a damaged content: it stays until that entry is ended.
    unmovable: Option<u64>,
}

pub(super) fn start(shared: Arc<Shared>, number: u64, damaged: Vec<u64>) -> Result<Sender<Job>, SpoolError> {
    let (sender, jobs) = mpsc::channel();
    let mut writer = Writer { shared, number, file: None, len: 0, frame: 0, waiting: VecDeque::new(), unmovable: None };
    writer.begin(number)?;
    if !damaged.is_empty() {
        writer.set_aside(&damaged)?;
    }
    std::thread::Builder::new().name("spool".into()).spawn(move || writer.run(&jobs))?;
    Ok(sender)
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut next_probe = Instant::now();
        loop {
            let job = match jobs.recv_timeout(PROBE) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let broken = self.file.is_none() || !self.shared.works.load(Ordering::Acquire);
            // By the clock, not when idle: those who ask again and again must not keep the disk from being tried.
            let try_disk = broken && Instant::now() >= next_probe;
            if try_disk {
                next_probe = Instant::now() + PROBE;
            }
            if !(try_disk && self.probe()) && job.is_none() {
                continue;
            }
            let mut group: Vec<Job> = self.waiting.drain(..).chain(job).collect();
            wait_for_mail(&mut group, jobs);
            let mut size: usize = group.iter().map(|job| job.payload.len()).sum();
            while size < GROUP
                && let Ok(job) = jobs.try_recv()
            {
                size += job.payload.len();
                group.push(job);
            }
            let group = self.still_wanted(group);
            self.group(group);
            self.tidy();
        }
    }

    /// Answers those whose entry ended, and gives the others. Of several that want the same entry the first has it.
    fn still_wanted(&self, group: Vec<Job>) -> Vec<Job> {
        if group.iter().all(|job| job.only_if.is_none()) {
            return group;
        }
        let index = lock(&self.shared.index);
        let mut ended = BTreeSet::new();
        let mut wanted = Vec::with_capacity(group.len());
        let mut undone = Vec::new();
        for job in group {
            match job.only_if {
                Some(id) if ended.contains(&id) || !index.slots.contains_key(&id) => {
                    undone.extend(job.changes.iter().filter_map(new_body));
                    let _ = job.reply.send(Err(SpoolError::NoEntry(id)));
                }
                _ => {
                    ended.extend(job.changes.iter().filter_map(|change| match change {
                        Change::Done(id) => Some(*id),
                        _ => None,
                    }));
                    wanted.push(job);
                }
            }
        }
        drop(index);
        self.remove_bodies(&undone);
        wanted
    }

    /// Writes a group and answers it.
    fn group(&mut self, group: Vec<Job>) {
        if group.is_empty() {
            return;
        }
        let written = if self.file.is_none() { Err(io::Error::other("in trouble")) } else { self.append(&group) };
        match written {
            Ok(offsets) => {
                let mut gone = Vec::new();
                let mut replies = Vec::with_capacity(group.len());
                let mut index = lock(&self.shared.index);
                for (job, offset) in group.into_iter().zip(offsets) {
                    gone.extend(job.changes.into_iter().filter_map(|change| index.apply(change, self.number, offset)));
                    replies.push(job.reply);
                }
                index.segments.entry(self.number).or_default().len = self.len;
                drop(index);
                for reply in replies {
                    let _ = reply.send(Ok(()));
                }
                self.shared.changed.notify_one();
                self.remove_bodies(&gone);
            }
            Err(error) => self.failed(group, &error),
        }
    }

    /// One write, one sync. Gives where each payload begins.
    fn append(&mut self, group: &[Job]) -> io::Result<Vec<u64>> {
        let payloads: Vec<&[u8]> = group.iter().map(|job| job.payload.as_slice()).collect();
        self.append_payloads(&payloads)
    }

    fn append_payloads(&mut self, payloads: &[&[u8]]) -> io::Result<Vec<u64>> {
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("in trouble"))?;
        let frame = self.frame + 1;
        let count = u32::try_from(payloads.len()).unwrap_or(u32::MAX);
        let total: usize = payloads.iter().map(|payload| payload.len() + HEADER + CHECKSUM).sum();
        let mut out = Vec::with_capacity(total);
        let mut offsets = Vec::with_capacity(payloads.len());
        for (index, payload) in (0u32..).zip(payloads) {
            offsets.push(self.len + octets(out.len() + HEADER));
            frame_record(&mut out, self.number, frame, index, count, payload);
        }
        let written = file.append(&out).and_then(|()| file.sync());
        if let Err(error) = written {
            // What was not acknowledged shall not come back after a crash, if the disk lets us.
            let _ = file.cut(self.len);
            return Err(error);
        }
        self.frame = frame;
        self.len += octets(out.len());
        Ok(offsets)
    }

    fn failed(&mut self, group: Vec<Job>, error: &io::Error) {
        if self.file.take().is_some() {
            self.shared.set_trouble(Some(error.to_string()));
        }
        for job in group {
            if job.brings_mail {
                let bodies: Vec<_> = job.changes.iter().filter_map(new_body).collect();
                self.remove_bodies(&bodies);
                let _ = job.reply.send(Err(SpoolError::Disk(error.to_string())));
            } else {
                self.waiting.push_back(job);
            }
        }
    }

    /// Whether the disk takes octets again; a new segment is begun then.
    fn probe(&mut self) -> bool {
        let disk = &self.shared.disk;
        let tried = disk.create("space.probe").and_then(|mut file| {
            file.append(&vec![0; PROBE_OCTETS])?;
            file.sync()
        });
        let removed = disk.remove("space.probe");
        let next = self.number + 1;
        if tried.and(removed).and_then(|()| self.begin(next)).is_err() {
            return false;
        }
        self.shared.set_trouble(None);
        true
    }

    fn begin(&mut self, number: u64) -> io::Result<()> {
        let file = match self.shared.disk.create(&segment_name(number)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Left by a begin that failed half way: it is empty.
                self.shared.disk.remove(&segment_name(number))?;
                self.shared.disk.create(&segment_name(number))?
            }
            other => other?,
        };
        self.shared.disk.sync_folder()?;
        (self.number, self.file, self.len, self.frame) = (number, Some(file), 0, 0);
        lock(&self.shared.index).segments.entry(number).or_default();
        Ok(())
    }

    /// Rotates when the segment is full, removes old segments without live entries, and moves the last live ones of the oldest.
    fn tidy(&mut self) {
        if self.file.is_none() {
            return;
        }
        let result = self.rotate().and_then(|()| self.drop_oldest()).and_then(|()| self.compact());
        if let Err(error) = result {
            self.failed(Vec::new(), &error);
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.len < self.shared.limits.segment {
            return Ok(());
        }
        let mut seal = Payload::default();
        seal.change(&Change::Seal);
        self.append_payloads(&[&seal.0])?;
        self.begin(self.number + 1)
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

    /// Little lives in the oldest segment, or much that is dead lies behind it: its entries move to the head.
    fn compact(&mut self) -> io::Result<()> {
        let index = lock(&self.shared.index);
        let total: u64 = index.segments.values().map(|info| info.len).sum();
        let live: u64 = index.segments.values().map(|info| info.live).sum();
        let Some((number, oldest)) = index.segments.first_key_value().filter(|(number, _)| **number != self.number)
        else {
            return Ok(());
        };
        let worth = oldest.live < oldest.len / 4
            || total > live.saturating_mul(4).saturating_add(self.shared.limits.segment.saturating_mul(4));
        let (number, ids) = (*number, oldest.entries.clone());
        drop(index);
        if !worth || self.unmovable == Some(number) {
            return Ok(());
        }
        self.move_entries(number, ids)?;
        self.drop_oldest()
    }

    fn move_entries(&mut self, from: u64, ids: impl IntoIterator<Item = EntryId>) -> io::Result<()> {
        let (mut batch, mut size) = (Vec::new(), 0);
        for id in ids {
            let Some(slot) = lock(&self.shared.index).slots.get(&id).filter(|slot| slot.segment == from).cloned()
            else {
                continue;
            };
            let Some((payload, change)) = self.rewritten(&slot)? else {
                tracing::error!(entry = %id, "content damaged on disk, left where it is");
                self.unmovable = Some(from);
                continue;
            };
            size += payload.0.len();
            batch.push((payload, change));
            if size >= GROUP {
                self.moved(std::mem::take(&mut batch))?;
                size = 0;
            }
        }
        self.moved(batch)
    }

    fn moved(&mut self, batch: Vec<(Payload, Change)>) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let payloads: Vec<&[u8]> = batch.iter().map(|(payload, _)| payload.0.as_slice()).collect();
        let offsets = self.append_payloads(&payloads)?;
        let mut index = lock(&self.shared.index);
        for ((_, change), offset) in batch.into_iter().zip(offsets) {
            index.apply(change, self.number, offset);
        }
        index.segments.entry(self.number).or_default().len = self.len;
        Ok(())
    }

    fn rewritten(&self, slot: &Slot) -> io::Result<Option<(Payload, Change)>> {
        let mut payload = Payload::default();
        let (file, content) = match slot.body {
            Body::File { len } => (Some((len, slot.digest)), Vec::new()),
            Body::Log { offset, len } => (None, self.shared.disk.read(&segment_name(slot.segment), offset, len)?),
        };
        let stored = payload.put(&slot.entry, slot.sealing, file, std::iter::once(content.into()));
        if stored.digest != slot.digest {
            return Ok(None);
        }
        Ok(Some((payload, Change::Put { entry: slot.entry.as_ref().clone(), stored })))
    }

    /// Moves all live entries into the new segment, then takes damaged segments out of the log's way, kept under another name.
    fn set_aside(&mut self, damaged: &[u64]) -> io::Result<()> {
        let numbers: Vec<u64> =
            lock(&self.shared.index).segments.keys().copied().filter(|number| *number != self.number).collect();
        for number in &numbers {
            let ids =
                lock(&self.shared.index).segments.get(number).map(|info| info.entries.clone()).unwrap_or_default();
            self.move_entries(*number, ids)?;
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

    fn remove_bodies(&self, ids: &[EntryId]) {
        for id in ids {
            let _ = self.shared.disk.remove(&body_name(*id));
        }
    }
}

/// Outcomes alone are not worth a sync: they wait a little for mail that needs one. What is lost with them in a crash is delivered again.
fn wait_for_mail(group: &mut Vec<Job>, jobs: &Receiver<Job>) {
    let until = Instant::now() + OUTCOMES_WAIT;
    while !group.is_empty()
        && group.len() < OUTCOMES
        && group.iter().all(|job| !job.brings_mail)
        && let Ok(job) = jobs.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        group.push(job);
    }
}

fn new_body(change: &Change) -> Option<EntryId> {
    match change {
        Change::Put { entry, stored: Stored { body: BodyAt::File { .. }, .. } } => Some(entry.id),
        _ => None,
    }
}

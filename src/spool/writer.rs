//! The thread that writes the log: many transactions in one write and one sync.
//!
//! After an error nothing is appended to the segment any more: what of it is on disk is not known. A new one begins, and says where the
//! old one ends. On a full disk the reserve is given up for it, so that what becomes of the mail that is here can be written down.
//! Mail is taken again once the disk has room for the reserve.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;

use super::commit::{Job, Order};
use super::disk::DiskFile;
use super::record::{Begun, CHECKSUM, Change, HEADER, Payload, frame_record};
use super::{EntryId, Shared, SpoolError, body_name, lock, octets, segment_name, unfinished_name};

/// Octets of one group.
pub(super) const GROUP: usize = 8 << 20;
/// How long outcomes wait for mail to be synced with, and how many do not wait: fewer than the deliveries to one next hop at once.
const OUTCOMES_WAIT: Duration = Duration::from_millis(2);
const OUTCOMES: usize = 8;
/// From one sync to the next: what comes meanwhile goes with the next one. A mail that comes alone does not wait.
const GATHER: Duration = Duration::from_millis(1);
/// What is written to try it, at most.
const PROBE_OCTETS: usize = 64 * 1024;
/// What is kept for outcomes.
const RESERVE: &str = "reserve";

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
    /// `None` after an error.
    pub(super) file: Option<Box<dyn DiskFile>>,
    pub(super) len: u64,
    frame: u64,
    /// The segment before may end in a torn frame.
    torn: bool,
    /// The greatest number a segment was ever begun with.
    newest: u64,
    /// When the last sync ended, until it was waited for.
    synced: Option<Instant>,
    /// Changes that wait for the disk.
    waiting: VecDeque<Job>,
    /// A segment with a damaged content: it stays until that entry is ended.
    pub(super) unmovable: Option<u64>,
    next_probe: Instant,
}

/// `end`: where the log ended. Without a disk that writes it starts all the same, in trouble: what is here can be read and delivered.
pub(super) fn start(shared: Arc<Shared>, end: Begun, damaged: &[u64]) -> Result<Sender<Order>, SpoolError> {
    let (sender, orders) = mpsc::channel();
    let mut writer = Writer {
        shared,
        number: end.previous,
        file: None,
        len: end.len,
        frame: 0,
        torn: end.torn,
        newest: end.previous,
        synced: None,
        waiting: VecDeque::new(),
        unmovable: None,
        next_probe: Instant::now(),
    };
    if let Err(error) = writer.begin().and_then(|()| writer.set_aside(damaged)).and_then(|()| writer.fill_reserve()) {
        writer.failed(Vec::new(), &error);
    }
    std::thread::Builder::new().name("spool".into()).spawn(move || writer.run(&orders))?;
    Ok(sender)
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut more = false;
        loop {
            // Asleep, not listening, here and in `next_order`: nobody who brings something has to wake this thread.
            if let Some(synced) = self.synced.take() {
                std::thread::sleep(GATHER.saturating_sub(synced.elapsed()));
            }
            let order = match orders.recv_timeout(if more { Duration::ZERO } else { self.shared.limits.probe }) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // By the clock, not when idle: those who ask again and again must not keep the disk from being tried.
            if !self.works() && Instant::now() >= self.next_probe {
                self.next_probe = Instant::now() + self.shared.limits.probe;
                if let Err(error) = self.probe() {
                    tracing::debug!(%error, "the disk is still in trouble");
                }
            }
            let mut group = Vec::new();
            if self.file.is_some() {
                group.extend(self.waiting.drain(..));
            }
            let mut size: usize = group.iter().map(|job| job.payload.len()).sum();
            let (mut next, until) = (order, Instant::now() + OUTCOMES_WAIT);
            while let Some(order) = next {
                match order {
                    Order::Write(job) => {
                        size = size.saturating_add(job.payload.len());
                        group.push(job);
                    }
                    Order::RemoveBodies(ids) => self.remove_bodies(&ids),
                }
                next = Self::next_order(orders, &group, size, until);
            }
            if self.works() {
                self.group(group);
            } else {
                self.one_by_one(group);
            }
            more = self.tidy();
        }
    }

    /// What else goes with the group: what is there already, and mail that comes within a moment.
    fn next_order(orders: &Receiver<Order>, group: &[Job], size: usize, until: Instant) -> Option<Order> {
        if size >= GROUP {
            return None;
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match orders.try_recv() {
                Ok(order) => return Some(order),
                Err(TryRecvError::Empty) if waits_for_mail(group) && !left.is_zero() => {
                    std::thread::sleep(left.min(GATHER));
                }
                Err(_) => return None,
            }
        }
    }

    pub(super) fn works(&self) -> bool {
        self.file.is_some() && self.shared.works.load(Ordering::Acquire)
    }

    /// Answers those that are not wanted any more, whose entry ended or was held meanwhile, or that bring mail while the disk is in trouble. Of several
    /// that want the same entry the first has it.
    fn still_wanted(&self, group: Vec<Job>) -> Vec<Job> {
        let (mut ended, mut held) = (BTreeSet::new(), BTreeMap::new());
        let (mut wanted, mut unwanted) = (Vec::with_capacity(group.len()), Vec::new());
        let index = lock(&self.shared.index);
        for job in group {
            let unmet = job.only_if.as_ref().and_then(|wanted| {
                let there = index.slots.get(&wanted.id).filter(|_| !ended.contains(&wanted.id));
                let Some(slot) = there else { return Some(SpoolError::NoEntry(wanted.id)) };
                let now = held.get(&wanted.id).unwrap_or(&slot.entry.held);
                let changed = wanted.held.as_ref().is_some_and(|before| before != now);
                changed.then_some(SpoolError::Changed(wanted.id))
            });
            if let Some(why) = unmet {
                unwanted.push((job, why));
            } else if job.mail && !self.works() {
                let why = lock(&self.shared.trouble).clone();
                unwanted.push((job, SpoolError::Disk(why.unwrap_or_else(|| "in trouble".into()))));
            } else {
                for change in &job.changes {
                    match change {
                        Change::Done(id) => drop(ended.insert(*id)),
                        Change::Held(id, why) => drop(held.insert(*id, Some(why.clone()))),
                        Change::Released(id, _) => drop(held.insert(*id, None)),
                        _ => {}
                    }
                }
                wanted.push(job);
            }
        }
        drop(index);
        for (job, why) in unwanted {
            self.remove_bodies(&job.new_bodies());
            job.answer(Err(why));
        }
        wanted
    }

    /// Writes a group and answers it.
    fn group(&mut self, group: Vec<Job>) {
        let group = self.still_wanted(group);
        if group.is_empty() {
            return;
        }
        let payloads: Vec<&[u8]> = group.iter().map(|job| job.payload.as_slice()).collect();
        match self.append(&payloads) {
            Ok(offsets) => self.written(group, offsets),
            Err(error) => self.failed(group, &error),
        }
    }

    /// On a disk in trouble: one for which there is no room keeps no other from being written.
    fn one_by_one(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            if self.file.is_none() && !job.mail {
                self.waiting.push_back(job);
            } else {
                self.group(vec![job]);
            }
        }
    }

    /// The group is on disk: it is so for all others too, and those who asked hear of it.
    fn written(&mut self, group: Vec<Job>, offsets: Vec<u64>) {
        let (mut gone, mut late, mut done) = (Vec::new(), Vec::new(), Vec::with_capacity(group.len()));
        let mut index = lock(&self.shared.index);
        for (mut job, offset) in group.into_iter().zip(offsets) {
            let withdrawn = job.fate.take().is_some_and(|fate| !fate.acknowledge());
            for change in std::mem::take(&mut job.changes) {
                let new = match &change {
                    Change::Put { entry, .. } if withdrawn => Some(entry.id),
                    _ => None,
                };
                gone.extend(index.apply(change, self.number, offset));
                if let Some(id) = new {
                    index.withdraw(id);
                    late.push(Change::Done(id));
                }
            }
            done.push(job);
        }
        index.segments.entry(self.number).or_default().len = self.len;
        drop(index);
        done.into_iter().for_each(|job| job.answer(Ok(())));
        self.shared.changed.notify_one();
        self.remove_bodies(&gone);
        if !late.is_empty() {
            // Who asked was told that it was not taken.
            self.group(vec![Job::of(late)]);
        }
    }

    /// One write, one sync. Gives where each payload begins.
    pub(super) fn append(&mut self, payloads: &[&[u8]]) -> io::Result<Vec<u64>> {
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("in trouble"))?;
        let frame = self.frame.saturating_add(1);
        let count = u32::try_from(payloads.len()).unwrap_or(u32::MAX);
        let total: usize = payloads.iter().map(|payload| payload.len() + HEADER + CHECKSUM).sum();
        let mut out = Vec::with_capacity(total);
        let mut offsets = Vec::with_capacity(payloads.len());
        for (index, payload) in (0u32..).zip(payloads) {
            offsets.push(self.len + octets(out.len() + HEADER));
            frame_record(&mut out, self.number, frame, index, count, payload);
        }
        file.append(&out)?;
        file.sync()?;
        self.synced = Some(Instant::now());
        self.frame = frame;
        self.len += octets(out.len());
        Ok(offsets)
    }

    /// The segment is not trusted any more. Mail is refused; the rest is written behind the reserve, or waits.
    pub(super) fn failed(&mut self, group: Vec<Job>, error: &io::Error) {
        let file = self.file.take();
        self.shared.set_trouble(Some(error.to_string()));
        let (mail, rest): (Vec<Job>, Vec<Job>) = group.into_iter().partition(|job| job.mail);
        for job in mail {
            self.remove_bodies(&job.new_bodies());
            job.answer(Err(SpoolError::Disk(error.to_string())));
        }
        self.waiting.extend(rest);
        if let Some(mut file) = file {
            // What was not acknowledged goes at once where the disk lets us; the next segment says that it does not count.
            let _ = file.cut(self.len);
            drop(file);
            if self.release_reserve().and_then(|()| self.begin()).is_ok() {
                let waiting: Vec<Job> = self.waiting.drain(..).collect();
                self.one_by_one(waiting);
            }
        }
    }

    /// Tries the disk. Without room for the reserve what becomes of mail is recorded where that is possible, and no mail is taken.
    fn probe(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.begin().or_else(|_| self.release_reserve().and_then(|()| self.begin()))?;
        }
        if self.shared.works.load(Ordering::Acquire) {
            return Ok(());
        }
        self.fill_reserve()?;
        let disk = &self.shared.disk;
        let tried = disk.create("space.probe").and_then(|mut file| {
            let most = usize::try_from(self.shared.limits.reserve).unwrap_or(usize::MAX);
            file.append(&vec![0; most.clamp(1, PROBE_OCTETS)])?;
            file.sync()
        });
        let removed = disk.remove("space.probe");
        tried.and(removed)?;
        self.shared.set_trouble(None);
        Ok(())
    }

    fn release_reserve(&self) -> io::Result<()> {
        self.shared.disk.remove(RESERVE)?;
        self.shared.disk.sync_folder()
    }

    /// Octets that the disk can neither compress nor share.
    fn fill_reserve(&self) -> io::Result<()> {
        let (disk, wanted) = (&self.shared.disk, self.shared.limits.reserve);
        if wanted == 0 || disk.len(RESERVE).is_ok_and(|len| len == wanted) {
            return Ok(());
        }
        let name = "reserve.unfinished";
        let _ = disk.remove(name);
        let written = disk.create(name).and_then(|mut file| {
            let mut left = usize::try_from(wanted).unwrap_or(usize::MAX);
            while left > 0 {
                let mut chunk = vec![0; left.min(1 << 20)];
                rand::fill(&mut chunk).map_err(|_| io::Error::other("no randomness"))?;
                file.append(&chunk)?;
                left -= chunk.len();
            }
            file.sync()?;
            disk.rename(name, RESERVE)?;
            disk.sync_folder()
        });
        if written.is_err() {
            let _ = disk.remove(name);
        }
        written
    }

    /// A new segment; its first record says where the one before ends.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        let number = self.newest.saturating_add(1);
        self.newest = number;
        let mut payload = Payload::default();
        payload.change(&Change::Begun(Begun { previous: self.number, len: self.len, torn: self.torn }));
        let mut out = Vec::new();
        frame_record(&mut out, number, 1, 0, 1, &payload.0);
        let disk = &self.shared.disk;
        let begun = disk.create(&segment_name(number)).and_then(|mut file| {
            file.append(&out)?;
            file.sync()?;
            disk.sync_folder()?;
            Ok(file)
        });
        let file = match begun {
            Ok(file) => file,
            Err(error) => {
                let _ = disk.remove(&segment_name(number));
                return Err(error);
            }
        };
        (self.number, self.file, self.len, self.frame, self.torn) = (number, Some(file), octets(out.len()), 1, false);
        lock(&self.shared.index).segments.entry(number).or_default().len = self.len;
        Ok(())
    }

    fn remove_bodies(&self, ids: &[EntryId]) {
        for id in ids {
            let _ = self.shared.disk.remove(&body_name(*id));
            let _ = self.shared.disk.remove(&unfinished_name(*id));
        }
    }
}

/// Outcomes alone are not worth a sync: they wait a little for mail that needs one. What is lost with them in a crash is delivered again.
fn waits_for_mail(group: &[Job]) -> bool {
    !group.is_empty() && group.len() < OUTCOMES && group.iter().all(|job| !job.mail)
}

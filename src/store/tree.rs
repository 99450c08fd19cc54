//! The records as one authenticated tree: root, buckets, top-level records (owners, aliases, the trust manifest), their children (certificates, keys,
//! anchors). Each node holds the MACs of those below, so a record that was forged, swapped, put back or deleted is noticed when it is looked for.
//! What nothing names is never read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use redb::{ReadableTable, Table, TableDefinition};

use super::StoreError;
use super::keyring::{Keyring, Mac};
use super::record::{Bucket, ChangeValue, Encoded, Kind, RECORD_MAX, Record, Root, Unreadable};

/// Path to record.
pub(super) const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
pub(super) const ROOT: &str = "r";
pub(super) const BUCKETS: u16 = 1024;
/// Changes told one by one to those who follow; who is further behind drops all copies.
pub(super) const LOG_LENGTH: u64 = 1024;

/// Counts and logs what is not authentic.
#[derive(Debug, Default)]
pub(super) struct Alerts(AtomicU64);

impl Alerts {
    pub fn raise(&self, path: &str) -> StoreError {
        self.0.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            record = path,
            "store record is missing or not authentic: it counts as absent; was the store tampered with?"
        );
        StoreError::NotAuthentic(path.to_owned())
    }
    /// Why a record at `path` cannot be read, as an error.
    fn tell(&self, path: &str, why: Unreadable) -> StoreError {
        match why {
            Unreadable::NotAuthentic => self.raise(path),
            Unreadable::Later => StoreError::Later(format!("record {path}")),
        }
    }
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn io(error: impl std::fmt::Display) -> StoreError {
    StoreError::Io(error.to_string())
}

fn bucket_of(path: &str) -> u16 {
    let hash = digest::digest(&digest::SHA256, path.as_bytes());
    hash.as_ref().first_chunk().map_or(0, |head| u16::from_be_bytes(*head)) % BUCKETS
}

pub(super) fn bucket_path(number: u16) -> String {
    format!("b/{number:04}")
}

pub(super) fn log_path(generation: u64) -> String {
    format!("l/{generation:020}")
}

/// Reads and checks within one transaction.
pub(super) struct View<'a, T> {
    pub table: &'a T,
    pub ring: &'a Keyring,
    pub alerts: &'a Alerts,
    pub root: Arc<Root>,
    /// Takes note of the top-level paths that were looked at.
    pub reads: Option<&'a RefCell<BTreeSet<String>>>,
}

/// The root as stored; a generation under `floor` was seen to be past.
pub(super) fn read_root<T: ReadableTable<&'static str, &'static [u8]>>(
    table: &T,
    ring: &Keyring,
    alerts: &Alerts,
    floor: u64,
    known: Option<&(Mac, Arc<Root>)>,
) -> Result<(Mac, Arc<Root>), StoreError> {
    let Some(stored) = table.get(ROOT).map_err(io)? else { return Err(alerts.raise(ROOT)) };
    let octets = stored.value();
    // The MAC names the content: what was checked under it once holds.
    if let Some((mac, root)) = known.filter(|(mac, root)| octets.ends_with(mac) && root.generation >= floor) {
        return Ok((*mac, Arc::clone(root)));
    }
    // Under the newest key alone: who has an older one only cannot put a root of his own here.
    if !Record::is_newest(ring, ROOT, octets) {
        return Err(alerts.raise(ROOT));
    }
    let record = Record::open(ring, ROOT, octets).map_err(|why| alerts.tell(ROOT, why))?;
    Some(record)
        .filter(|record| record.kind == Kind::Root)
        .and_then(|record| Some((record.mac, Arc::new(Root::decode(&record.value)?))))
        .filter(|(_, root)| root.generation >= floor)
        .ok_or_else(|| alerts.raise(ROOT))
}

impl<T: ReadableTable<&'static str, &'static [u8]>> View<'_, T> {
    /// What stands at a top-level path; `None` only where it is proven that nothing should.
    pub fn top(&self, path: &str) -> Result<Option<Record>, StoreError> {
        if let Some(reads) = self.reads {
            reads.borrow_mut().insert(path.to_owned());
        }
        let Some((name, record)) = self.bucket_record(bucket_of(path))? else { return Ok(None) };
        match Bucket::find(&record.value, path) {
            Some(Some(mac)) => self.child(path, &mac).map(Some),
            Some(None) => Ok(None),
            None => Err(self.alerts.raise(&name)),
        }
    }

    /// The record at `path` with exactly this MAC.
    pub fn child(&self, path: &str, mac: &Mac) -> Result<Record, StoreError> {
        let stored = self.table.get(path).map_err(io)?;
        let stored = stored.filter(|stored| stored.value().ends_with(mac)).ok_or_else(|| self.alerts.raise(path))?;
        Record::open(self.ring, path, stored.value()).map_err(|why| self.alerts.tell(path, why))
    }

    /// A record whose own MAC holds, whoever names it.
    pub fn loose(&self, path: &str) -> Result<Option<Record>, StoreError> {
        match self.table.get(path).map_err(io)? {
            None => Ok(None),
            Some(stored) => {
                Record::open(self.ring, path, stored.value()).map(Some).map_err(|why| self.alerts.tell(path, why))
            }
        }
    }

    /// Whether what is stored at `path` is there, and under the newest key.
    pub fn is_newest(&self, path: &str) -> Result<bool, StoreError> {
        let stored = self.table.get(path).map_err(io)?;
        Ok(stored.is_some_and(|stored| Record::is_newest(self.ring, path, stored.value())))
    }

    /// The top-level records of one bucket.
    pub fn tops_of(&self, bucket: u16) -> Result<Vec<(String, Mac)>, StoreError> {
        self.bucket(bucket).map(|bucket| bucket.0)
    }

    fn bucket(&self, number: u16) -> Result<Bucket, StoreError> {
        let Some((path, record)) = self.bucket_record(number)? else { return Ok(Bucket::default()) };
        Bucket::decode(&record.value).ok_or_else(|| self.alerts.raise(&path))
    }

    /// The path and the record of a bucket; `None` where it is proven that there is none.
    fn bucket_record(&self, number: u16) -> Result<Option<(String, Record)>, StoreError> {
        let place = self.root.buckets.binary_search_by_key(&number, |(known, _)| *known);
        let Some((_, mac)) = place.ok().and_then(|at| self.root.buckets.get(at)) else { return Ok(None) };
        let path = bucket_path(number);
        let record = self.child(&path, mac)?;
        if record.kind == Kind::Bucket { Ok(Some((path, record))) } else { Err(self.alerts.raise(&path)) }
    }

    /// Every top-level path that begins so, sorted, and the buckets that could not be read.
    pub fn tops(&self, prefix: &str) -> (Vec<(String, Mac)>, Vec<StoreError>) {
        let mut tops = Vec::new();
        let errors = self.each_top(|path, mac| {
            if path.starts_with(prefix) {
                tops.push((path, mac));
            }
        });
        tops.sort_unstable();
        (tops, errors)
    }

    /// Calls for every top-level path, one bucket after the other; the buckets that could not be read.
    pub fn each_top(&self, mut call: impl FnMut(String, Mac)) -> Vec<StoreError> {
        let mut errors = Vec::new();
        for (number, _) in &self.root.buckets {
            match self.bucket(*number) {
                Ok(bucket) => bucket.0.into_iter().for_each(|(path, mac)| call(path, mac)),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// The path of every bucket.
    pub fn bucket_paths(&self) -> impl Iterator<Item = String> {
        self.root.buckets.iter().map(|(number, _)| bucket_path(*number))
    }
}

/// One change: all of it, or nothing.
pub(super) struct Change<'t, 'a> {
    table: Table<'t, &'static str, &'static [u8]>,
    ring: &'a Keyring,
    alerts: &'a Alerts,
    root: Arc<Root>,
    buckets: BTreeMap<u16, Bucket>,
    log: ChangeValue,
    reads: RefCell<BTreeSet<String>>,
    scans: RefCell<BTreeSet<&'static str>>,
    tops: BTreeMap<String, Option<(Kind, Vec<u8>)>>,
    children: BTreeSet<String>,
    /// Records of earlier changes were written anew.
    log_resealed: bool,
}

/// What a change looked at and what it would write.
pub(super) struct Planned {
    /// Top-level paths it looked at.
    pub reads: BTreeSet<String>,
    /// What the paths begin with that it looked at all of.
    pub scans: BTreeSet<&'static str>,
    /// Top-level records as they would be; `None`: gone.
    pub tops: BTreeMap<String, Option<(Kind, Vec<u8>)>>,
    /// Children written or removed.
    pub children: BTreeSet<String>,
}

impl<'t, 'a> Change<'t, 'a> {
    /// Begins a change upon a root that was checked.
    pub fn new(
        table: Table<'t, &'static str, &'static [u8]>,
        ring: &'a Keyring,
        alerts: &'a Alerts,
        root: Arc<Root>,
    ) -> Self {
        Self {
            table,
            ring,
            alerts,
            root,
            buckets: BTreeMap::new(),
            log: ChangeValue { paths: Vec::new(), keys_removed: false },
            reads: RefCell::default(),
            scans: RefCell::default(),
            tops: BTreeMap::new(),
            children: BTreeSet::new(),
            log_resealed: false,
        }
    }

    /// The state before this change, with children as changed.
    pub fn view(&self) -> View<'_, Table<'t, &'static str, &'static [u8]>> {
        let root = Arc::clone(&self.root);
        View { table: &self.table, ring: self.ring, alerts: self.alerts, root, reads: Some(&self.reads) }
    }

    /// As [`View::tops`]; the change rests upon there being no others.
    pub fn every(&self, prefix: &'static str) -> (Vec<(String, Mac)>, Vec<StoreError>) {
        self.scans.borrow_mut().insert(prefix);
        self.view().tops(prefix)
    }

    /// What stands at a top-level path, as changed so far.
    pub fn top(&self, path: &str) -> Result<Option<Record>, StoreError> {
        let Some(bucket) = self.buckets.get(&bucket_of(path)) else { return self.view().top(path) };
        self.reads.borrow_mut().insert(path.to_owned());
        let place = bucket.0.binary_search_by(|(known, _)| known.as_str().cmp(path));
        match place.ok().and_then(|at| bucket.0.get(at)) {
            Some((_, mac)) => self.view().child(path, mac).map(Some),
            None => Ok(None),
        }
    }

    /// Whether this change wrote that top-level record.
    pub fn has_written(&self, path: &str) -> bool {
        self.tops.contains_key(path)
    }

    /// Owners as this change wrote them.
    pub fn owners_written(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.tops.iter().filter_map(|(path, top)| match top {
            Some((Kind::Owner, value)) => Some((path.as_str(), value.as_slice())),
            _ => None,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.log.paths.is_empty() && self.buckets.is_empty() && !self.log_resealed
    }

    /// The keys that this change is made with.
    pub fn ring(&self) -> &'a Keyring {
        self.ring
    }

    /// Writes a bucket's record anew.
    pub fn touch_bucket(&mut self, number: u16) -> Result<(), StoreError> {
        if !self.buckets.contains_key(&number) {
            let bucket = self.view().bucket(number)?;
            self.buckets.insert(number, bucket);
        }
        Ok(())
    }

    /// Writes the record of an earlier change anew, of the same generation and content.
    pub fn reseal_log(&mut self, at: u64) -> Result<(), StoreError> {
        let path = log_path(at);
        // One that is not authentic tells nothing; who needs it drops all copies.
        if let Ok(Some(record)) = self.view().loose(&path) {
            let (octets, _) = Record::seal(self.ring, &path, record.kind, record.generation, &record.value);
            self.table.insert(path.as_str(), octets.as_slice()).map_err(io)?;
            self.log_resealed = true;
        }
        Ok(())
    }

    pub fn keys_removed(&mut self) {
        self.log.keys_removed = true;
    }

    fn generation(&self) -> u64 {
        self.root.generation.saturating_add(1)
    }

    /// Writes a record that another one names by the MAC returned.
    pub fn put_child(&mut self, path: &str, kind: Kind, value: &[u8]) -> Result<Mac, StoreError> {
        self.put_record(path, kind, self.generation(), value)
    }

    fn put_record(&mut self, path: &str, kind: Kind, generation: u64, value: &[u8]) -> Result<Mac, StoreError> {
        let (octets, mac) = Record::seal(self.ring, path, kind, generation, value);
        if octets.len() > RECORD_MAX {
            return Err(StoreError::Refused(format!(
                "record {path} would have {} octets, at most {RECORD_MAX} are stored",
                octets.len()
            )));
        }
        self.table.insert(path, octets.as_slice()).map_err(io)?;
        self.children.insert(path.to_owned());
        Ok(mac)
    }

    pub fn remove_child(&mut self, path: &str) -> Result<(), StoreError> {
        self.children.insert(path.to_owned());
        self.table.remove(path).map_err(io).map(|_| ())
    }

    /// Writes a top-level record.
    pub fn put_top(&mut self, path: &str, kind: Kind, value: &[u8]) -> Result<(), StoreError> {
        self.put_top_at(path, kind, value, self.generation())
    }

    /// Writes a top-level record that bears this generation.
    pub fn put_top_at(&mut self, path: &str, kind: Kind, value: &[u8], generation: u64) -> Result<(), StoreError> {
        let number = bucket_of(path);
        let mut bucket = match self.buckets.remove(&number) {
            Some(bucket) => bucket,
            None => self.view().bucket(number)?,
        };
        let mac = self.put_record(path, kind, generation, value)?;
        self.tops.insert(path.to_owned(), Some((kind, value.to_vec())));
        match bucket.0.binary_search_by(|(known, _)| known.as_str().cmp(path)) {
            Ok(at) => {
                if let Some((_, old)) = bucket.0.get_mut(at) {
                    *old = mac;
                }
            }
            Err(at) => bucket.0.insert(at, (path.to_owned(), mac)),
        }
        self.buckets.insert(number, bucket);
        self.log.paths.push(path.to_owned());
        Ok(())
    }

    /// A top-level record as other software writes it.
    #[cfg(test)]
    pub fn put_raw_top(&mut self, path: &str, octets: &[u8], mac: Mac) -> Result<(), StoreError> {
        self.table.insert(path, octets).map_err(io)?;
        let bucket = self.buckets.entry(bucket_of(path)).or_default();
        bucket.0.iter_mut().filter(|(known, _)| known == path).for_each(|(_, old)| *old = mac);
        Ok(())
    }

    /// Takes a top-level record away, as if it never was.
    pub fn remove_top(&mut self, path: &str) -> Result<(), StoreError> {
        let number = bucket_of(path);
        let mut bucket = match self.buckets.remove(&number) {
            Some(bucket) => bucket,
            None => self.view().bucket(number)?,
        };
        bucket.0.retain(|(known, _)| known != path);
        self.tops.insert(path.to_owned(), None);
        self.buckets.insert(number, bucket);
        self.log.paths.push(path.to_owned());
        self.remove_child(path)
    }

    /// What was looked at and would be written, in place of writing it.
    pub fn planned(&mut self) -> Planned {
        Planned {
            reads: self.reads.take(),
            scans: self.scans.take(),
            tops: std::mem::take(&mut self.tops),
            children: std::mem::take(&mut self.children),
        }
    }

    /// Paths of the records written or removed so far.
    pub fn touched(&self) -> impl Iterator<Item = &str> {
        self.children.iter().map(String::as_str)
    }

    /// A record as written so far, whose own MAC holds.
    pub fn written(&self, path: &str) -> Result<Option<Record>, StoreError> {
        self.view().loose(path)
    }

    /// Writes buckets, log and root.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let generation = self.generation();
        let mut root = Root { generation, buckets: self.root.buckets.clone() };
        for (number, bucket) in std::mem::take(&mut self.buckets) {
            let mac = self.put_child(&bucket_path(number), Kind::Bucket, &bucket.encode())?;
            match root.buckets.binary_search_by_key(&number, |(known, _)| *known) {
                Ok(at) => {
                    if let Some((_, old)) = root.buckets.get_mut(at) {
                        *old = mac;
                    }
                }
                Err(at) => root.buckets.insert(at, (number, mac)),
            }
        }
        let log = self.log.encode();
        self.put_child(&log_path(generation), Kind::Change, &log)?;
        if let Some(old) = generation.checked_sub(LOG_LENGTH) {
            self.remove_child(&log_path(old))?;
        }
        self.put_child(ROOT, Kind::Root, &root.encode())?;
        Ok(())
    }
}

//! The embedded store as a copy of a shared one: what comes from there is taken in, and changes are planned here to be made there.
//!
//! What is known of each key is in `seen`; records and the progress they bring are one commit.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::digest;
use bytes::Bytes;
use jiff::Timestamp;

use super::reseal::resealed;
use super::seen::{Seen, SeenTables, progress_in, put_progress};
use super::{HEADER, Inner, TRUST, certificate_path, guarded, key_path, owner_of_path, trust_path};
use crate::keys::KeyId;
use crate::store::StoreError;
use crate::store::etcd::{Divergence, Guarded, Plan, Progress, SharedValue};
use crate::store::keyring::{Keyring, Mac};
use crate::store::record::{
    CertificateValue, Encoded, Kind, OwnerValue, Record, TombstoneValue, TrustEntryValue, TrustValue,
};
use crate::store::tree::{Change, Planned, RECORDS, io};

/// Records hashed with one reading.
const DIGESTED: usize = 4_096;

/// A key of the shared store as it is now.
#[derive(Debug, Clone)]
pub(in crate::store) struct Arrived {
    pub path: String,
    pub revision: u64,
    /// `None`: it was deleted.
    pub octets: Option<Bytes>,
}

/// What came of taking in.
#[derive(Debug, Default)]
pub(in crate::store) struct TakenIn {
    pub accepted: usize,
    pub refused: Vec<(String, Divergence)>,
    /// Accepted where something was wrong before.
    pub understood: Vec<String>,
    /// The same revision with another content: this is not the cluster it was.
    pub rewritten: bool,
}

/// Is called with the keys, a path, the version there, and what is there.
type OnValue<'a> = dyn FnMut(&Keyring, &str, u64, SharedValue) -> Result<(), StoreError> + 'a;

/// How a record of the shared store stands to the store keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Standing {
    /// All of it is under the newest.
    Newest,
    /// It, or a private key in it, is under one that is to go.
    Older,
    NotAuthentic,
}

/// Whether it is under a key that the shared store has.
fn verified(ring: &Keyring, path: &str, octets: &[u8]) -> bool {
    octets.split_last_chunk::<32>().is_some_and(|(body, mac)| ring.verifies_shared(path, body, mac))
}

/// One batch on its way in.
struct Intake<'c, 't, 'a> {
    inner: &'a Inner,
    change: &'c mut Change<'t, 'a>,
    seen: &'c mut SeenTables<'t>,
    /// The trust set, read at the first entry and written at the end.
    trust: Option<TrustValue>,
    /// A whole reading: revisions may have gone back.
    whole: bool,
    out: TakenIn,
}

impl Intake<'_, '_, '_> {
    fn one(&mut self, arrived: &Arrived) -> Result<(), StoreError> {
        let path = arrived.path.as_str();
        let known = self.seen.get(path)?;
        let Some(octets) = &arrived.octets else {
            if !self.whole && arrived.revision <= known.revision {
                return Ok(());
            }
            if known.version == 0 {
                return self.never_was(path, known);
            }
            return self.refuse(path, Seen { revision: 0, ..known }, Divergence::Vanished);
        };
        let mac = octets.last_chunk::<32>().copied().unwrap_or_default();
        if !self.whole && arrived.revision <= known.revision {
            self.out.rewritten |= arrived.revision == known.revision && known.divergence.is_none() && mac != known.mac;
            // Another process of this machine took it in.
            match known.divergence {
                Some(Divergence::NotUnderstood) => self.out.refused.push((path.to_owned(), Divergence::NotUnderstood)),
                None if self.inner.later.contains(path) => self.out.understood.push(path.to_owned()),
                _ => {}
            }
            return Ok(());
        }
        let now = Seen { revision: arrived.revision, ..known };
        let ring = self.change.ring();
        // What this copy has left of older keys says nothing of the shared store.
        let verified = ring.left().is_empty() || verified(ring, path, octets);
        let opened = if verified { Record::open(ring, path, octets).ok() } else { None };
        let Some(record) = opened.filter(|one| one.kind == Kind::Shared) else {
            let ours = verified && Record::is_authentic(ring, path, octets);
            return self.refuse(path, now, if ours { Divergence::NotUnderstood } else { Divergence::NotAuthentic });
        };
        // What was here before the store was shared counts as its generation says.
        let floor = if known.version == 0 { self.version_here(path)? } else { known.version };
        match record.generation.cmp(&floor) {
            std::cmp::Ordering::Less => return self.refuse(path, now, Divergence::Older),
            std::cmp::Ordering::Equal if known.mac == mac => {
                // What a later version wrote behind it was newer.
                let divergence = known.divergence.filter(|one| *one == Divergence::NotUnderstood);
                return self.seen.put(path, &Seen { divergence, ..now });
            }
            std::cmp::Ordering::Equal if known.version != 0 => return self.refuse(path, now, Divergence::Fork),
            _ => {}
        }
        let Some(value) = SharedValue::decode(&record.value).filter(|value| value.fits(path)) else {
            return self.refuse(path, now, Divergence::NotUnderstood);
        };
        self.take_in(path, value, record.generation)?;
        self.out.accepted += 1;
        self.out.understood.extend(known.divergence.map(|_| path.to_owned()));
        self.seen.put(path, &Seen { version: record.generation, mac, divergence: None, ..now })
    }

    fn version_here(&self, path: &str) -> Result<u64, StoreError> {
        if path.starts_with("t/") {
            return Ok(0);
        }
        Ok(self.change.written(path).ok().flatten().map_or(0, |record| record.generation))
    }

    /// A key is gone under which no record was ever accepted.
    fn never_was(&mut self, path: &str, known: Seen) -> Result<(), StoreError> {
        match known.divergence {
            // What a later version wrote was one.
            Some(Divergence::NotUnderstood) => Ok(()),
            Some(_) => self.seen.forget(path),
            None => Ok(()),
        }
    }

    fn refuse(&mut self, path: &str, seen: Seen, why: Divergence) -> Result<(), StoreError> {
        // What was not understood was newer than what is here: nothing but something newer still takes its place.
        let why = seen.divergence.filter(|one| *one == Divergence::NotUnderstood).unwrap_or(why);
        if seen.divergence != Some(why) {
            self.out.refused.push((path.to_owned(), why));
        }
        self.seen.put(path, &Seen { divergence: Some(why), ..seen })
    }

    fn take_in(&mut self, path: &str, value: SharedValue, version: u64) -> Result<(), StoreError> {
        if let Some(name) = path.strip_prefix("t/").and_then(crate::store::keyring::unhex) {
            return self.take_in_trust(*name, value);
        }
        if path.starts_with("o/") {
            return self.take_in_owner(path, value, version);
        }
        let Some((kind, value)) = value.as_top() else { return Ok(()) };
        self.change.put_top_at(path, kind, &value, version)
    }

    fn take_in_owner(&mut self, path: &str, value: SharedValue, version: u64) -> Result<(), StoreError> {
        let Some(owner) = owner_of_path(path) else { return Ok(()) };
        let before = self.change.written(path).ok().flatten().and_then(|record| OwnerValue::decode(&record.value));
        let before = before.unwrap_or_default();
        let mut now = OwnerValue::default();
        let mut top = (Kind::Owner, Vec::new());
        match value {
            SharedValue::Owner { disabled, certificates, keys } => {
                now.disabled = disabled;
                for (name, value) in certificates {
                    let mac = self.change.put_child(&certificate_path(&owner, &name), Kind::Certificate, &value)?;
                    now.certificates.push((name, mac));
                }
                for (name, sealed) in keys {
                    now.keys.push((name, self.take_in_key(&KeyId(name), sealed)?));
                }
                top.1 = now.encode();
            }
            SharedValue::Tombstone(value) => top = (Kind::Tombstone, value),
            SharedValue::Alias(_) | SharedValue::Trust(_) => return Ok(()),
        }
        for (name, _) in &before.certificates {
            if !now.certificates.iter().any(|(kept, _)| kept == name) {
                self.change.remove_child(&certificate_path(&owner, name))?;
            }
        }
        let gone = before.keys.iter().filter(|(name, _)| !now.keys.iter().any(|(kept, _)| kept == name));
        let gone: Vec<[u8; 32]> = gone.map(|(name, _)| *name).collect();
        if !gone.is_empty() {
            for key in self.inner.held_by_nobody_else(self.change, path, gone) {
                self.change.remove_child(&key_path(&KeyId(key)))?;
            }
            self.change.keys_removed();
        }
        self.change.put_top_at(path, top.0, &top.1, version)
    }

    /// A private key is under the newest store key here, whatever it came under.
    fn take_in_key(&mut self, key: &KeyId, sealed: Vec<u8>) -> Result<Mac, StoreError> {
        let (ring, path) = (self.change.ring(), key_path(key));
        let binding = Inner::key_binding(&path, key);
        if !ring.has_older() {
            // Another owner may hold the same key: his record stays as it is.
            let held = self
                .change
                .written(&path)
                .ok()
                .flatten()
                .filter(|record| record.kind == Kind::Key && ring.is_sealed_by_newest(&binding, &record.value));
            if let Some(record) = held {
                return Ok(record.mac);
            }
        }
        let sealed = ring.reseal(&binding, &sealed)?.unwrap_or(sealed);
        self.change.put_child(&path, Kind::Key, &sealed)
    }

    fn take_in_trust(&mut self, name: [u8; 32], value: SharedValue) -> Result<(), StoreError> {
        let mut trust = match self.trust.take() {
            Some(trust) => trust,
            None => self.inner.read_trust_manifest(self.change)?,
        };
        let path = trust_path(&name);
        trust.removed.retain(|(removed, _)| *removed != name);
        match value {
            SharedValue::Trust(entry) => {
                let mac = self.change.put_child(&path, Kind::TrustEntry, &entry)?;
                super::change::set_pair(&mut trust.entries, name, mac);
            }
            SharedValue::Tombstone(value) => {
                if let Some(tombstone) = TombstoneValue::decode(&value) {
                    trust.removed.push((name, tombstone.at));
                }
                trust.entries.retain(|(kept, _)| *kept != name);
                self.change.remove_child(&path)?;
            }
            SharedValue::Owner { .. } | SharedValue::Alias(_) => {}
        }
        self.trust = Some(trust);
        Ok(())
    }
}

impl Inner {
    /// Those of an owner's keys that no other owner holds.
    pub(super) fn held_by_nobody_else(
        &self,
        change: &Change<'_, '_>,
        path: &str,
        mut keys: Vec<[u8; 32]>,
    ) -> Vec<[u8; 32]> {
        let view = change.view();
        for (_, written) in change.owners_written().filter(|(other, _)| *other != path) {
            if let Some(others) = OwnerValue::decode(written) {
                keys.retain(|key| !others.keys.iter().any(|(held, _)| held == key));
            }
        }
        for (other, mac) in view.tops("o/").0 {
            if other == path || keys.is_empty() || owner_of_path(&other).is_none() || change.has_written(&other) {
                continue;
            }
            let others = view.child(&other, &mac).ok().filter(|record| record.kind == Kind::Owner);
            if let Some(others) = others.and_then(|record| OwnerValue::decode(&record.value)) {
                keys.retain(|key| !others.keys.iter().any(|(held, _)| held == key));
            }
        }
        keys
    }

    /// Takes in what came, and how far that brings this copy, in one commit; then drops what is out of date in memory.
    pub(in crate::store) fn take_in(
        &self,
        arrived: &[Arrived],
        progress: Option<&Progress>,
        whole: bool,
    ) -> Result<TakenIn, StoreError> {
        let out = guarded("store", || {
            let transaction = self.db.begin_write().map_err(io)?;
            let ring = self.ring_now(&transaction)?;
            let table = transaction.open_table(RECORDS).map_err(io)?;
            let root = self.checked_root(&table, &ring, self.floor.load(Ordering::Acquire))?;
            let mut change = Change::new(table, &ring, &self.alerts, root);
            let mut seen = SeenTables::open(&transaction)?;
            let out = TakenIn::default();
            let mut intake = Intake { inner: self, change: &mut change, seen: &mut seen, trust: None, whole, out };
            for one in arrived {
                intake.one(one)?;
            }
            let (trust, out) = (intake.trust.take(), intake.out);
            if let Some(trust) = trust {
                change.put_top(TRUST, Kind::Trust, &trust.encode())?;
            }
            drop(seen);
            if let Some(progress) = progress {
                let stored = progress_in(&transaction)?;
                // Another process of this machine may be further.
                if whole || stored.is_none_or(|stored| stored.revision <= progress.revision) {
                    let mut progress = *progress;
                    // A command gives no signs of life: the gateway's stands.
                    if let Some(stored) = stored.filter(|_| !whole && progress.counter == 0) {
                        (progress.boot, progress.counter, progress.beat) = (stored.boot, stored.counter, stored.beat);
                    }
                    put_progress(&transaction, &progress)?;
                }
            }
            if change.is_empty() {
                drop(change)
            } else {
                change.finish()?
            }
            #[cfg(test)]
            if self.disk_full.load(Ordering::Acquire) {
                return Err(StoreError::Io("no space left on device".to_owned()));
            }
            transaction.commit().map_err(io)?;
            Ok(out)
        })?;
        // Before what is cached: what was read by an older record is not to be cached again.
        for (path, _) in out.refused.iter().filter(|(_, why)| *why == Divergence::NotUnderstood) {
            self.not_understood(path);
        }
        out.understood.iter().for_each(|path| self.later.remove(path));
        if let Err(error) = self.follow() {
            tracing::error!(%error, "the store cannot be followed");
            self.reload_all();
        }
        for (path, why) in out.refused.iter().take(10) {
            drop(self.alerts.raise(path));
            tracing::error!(record = path, why = why.words(), "the shared store is not as this node knows it");
        }
        if out.refused.len() > 10 {
            tracing::error!(records = out.refused.len(), "the shared store is not as this node knows it");
        }
        Ok(out)
    }

    /// Keys that were seen and are not among `there` (hashes of their paths by `hasher`): they vanished. At most `most` at a time.
    pub(in crate::store) fn vanished(
        &self,
        there: &HashSet<u64>,
        hasher: &RandomState,
        most: usize,
    ) -> Result<Vec<Arrived>, StoreError> {
        let gone = self.each_seen(|path, seen| {
            let told = seen.divergence == Some(Divergence::Vanished);
            // Of what never was a record it is forgotten that something stood there.
            let noise = seen.version == 0 && !matches!(seen.divergence, None | Some(Divergence::NotUnderstood));
            (seen.version != 0 && !told || noise) && !there.contains(&hasher.hash_one(path))
        });
        let gone = gone?.into_iter().take(most);
        Ok(gone.map(|(path, _)| Arrived { path, revision: 0, octets: None }).collect())
    }

    /// What a change would write to the shared store, and what it rests upon; nothing is written.
    pub(in crate::store) fn plan<R>(
        &self,
        body: &mut dyn FnMut(&mut Change<'_, '_>) -> Result<R, StoreError>,
    ) -> Result<(R, Plan), StoreError> {
        guarded("store", || {
            let transaction = self.db.begin_write().map_err(io)?;
            let ring = self.ring_now(&transaction)?;
            let table = transaction.open_table(RECORDS).map_err(io)?;
            let root = self.checked_root(&table, &ring, self.floor.load(Ordering::Acquire))?;
            let mut change = Change::new(table, &ring, &self.alerts, root);
            let seen = SeenTables::open(&transaction)?;
            let result = body(&mut change)?;
            let plan = if change.is_empty() {
                Plan::default()
            } else {
                let planned = change.planned();
                let mut plan = self.planned(&change, &planned, &seen)?;
                // Nothing under these may be newer than this copy.
                let revision = progress_in(&transaction)?.map_or(0, |progress| progress.revision);
                plan.scans = planned.scans.iter().map(|head| (*head, revision)).collect();
                plan
            };
            drop((change, seen));
            transaction.abort().map_err(io)?;
            Ok((result, plan))
        })
    }

    fn planned(&self, change: &Change<'_, '_>, planned: &Planned, seen: &SeenTables<'_>) -> Result<Plan, StoreError> {
        let mut values = BTreeMap::new();
        for (path, top) in &planned.tops {
            if path == TRUST {
                let trust = top.as_ref().and_then(|(_, value)| TrustValue::decode(value)).unwrap_or_default();
                for child in planned.children.iter().filter(|child| child.starts_with("t/")) {
                    values.insert(child.clone(), trust_value(change, child, &trust)?);
                }
            } else {
                values.insert(path.clone(), top_value(change, path, top.as_ref())?);
            }
        }
        let mut plan = Plan { header: change.ring().header.revision, ..Plan::default() };
        let reads = planned.reads.iter().filter(|path| *path != TRUST && !values.contains_key(*path));
        for path in reads {
            plan.reads.push((path.clone(), seen.get(path)?.revision));
        }
        for (path, value) in values {
            let value = self.under_newest(change.ring(), value)?;
            plan.writes.push(self.sealed(change, path, &value, seen)?);
        }
        Ok(plan)
    }

    fn sealed(
        &self,
        change: &Change<'_, '_>,
        path: String,
        value: &SharedValue,
        seen: &SeenTables<'_>,
    ) -> Result<Guarded, StoreError> {
        let known = seen.get(&path)?;
        // No record that was never shared has a later generation.
        let generation = change.view().root.generation;
        let base = if known.version == 0 && !path.starts_with("t/") { generation } else { known.version };
        if known.divergence == Some(Divergence::NotUnderstood) {
            return Err(StoreError::Refused(format!(
                "record {path} was written by a later version of Waxwing: update this node before it is changed here"
            )));
        }
        let (octets, _) = Record::seal(change.ring(), &path, Kind::Shared, base.saturating_add(1), &value.encode());
        Ok(Guarded { path, revision: known.revision, octets: octets.into() })
    }

    /// What goes into the shared store is under the newest store key, whatever the copy still has it under.
    fn under_newest(&self, ring: &Keyring, mut value: SharedValue) -> Result<SharedValue, StoreError> {
        if let SharedValue::Owner { keys, .. } = &mut value
            && ring.has_older()
        {
            for (name, sealed) in keys {
                let path = key_path(&KeyId(*name));
                *sealed = resealed(ring, &path, &Self::key_binding(&path, &KeyId(*name)), sealed)?;
            }
        }
        Ok(value)
    }

    /// How a record of the shared store stands to the store keys.
    pub(in crate::store) fn standing(&self, ring: &Keyring, path: &str, octets: &[u8]) -> Standing {
        if !verified(ring, path, octets) {
            return Standing::NotAuthentic;
        }
        if !Record::is_newest(ring, path, octets) {
            return Standing::Older;
        }
        let record = Record::open(ring, path, octets).ok();
        match record.and_then(|record| SharedValue::decode(&record.value)) {
            Some(SharedValue::Owner { keys, .. }) => {
                let newest = |(name, sealed): &([u8; 32], Vec<u8>)| {
                    let path = key_path(&KeyId(*name));
                    ring.is_sealed_by_newest(&Self::key_binding(&path, &KeyId(*name)), sealed)
                };
                if keys.iter().all(newest) { Standing::Newest } else { Standing::Older }
            }
            _ => Standing::Newest,
        }
    }

    /// What this copy holds under these paths, sealed as a version newer than any that was seen: to be put where the shared store lost it,
    /// or never had it.
    /// `renew`: as a newer version in any case; else as it was, octet for octet, where that is what was accepted: whoever has a newer one then
    /// finds this one older.
    pub(in crate::store) fn copies(&self, paths: &[String], renew: bool) -> Result<Plan, StoreError> {
        let seen = self.seen_of(paths)?;
        let mut plan = Plan::default();
        self.values(paths, &mut |ring, path, version, value| {
            plan.header = ring.header.revision;
            let value = self.under_newest(ring, value)?.encode();
            let (same, mac) = Record::seal(ring, path, Kind::Shared, version, &value);
            let octets = if !renew && version != 0 && seen.get(path).is_some_and(|seen| seen.mac == mac) {
                same
            } else {
                Record::seal(ring, path, Kind::Shared, version.saturating_add(1), &value).0
            };
            plan.writes.push(Guarded { path: path.to_owned(), revision: 0, octets: octets.into() });
            Ok(())
        })?;
        for copy in &mut plan.writes {
            copy.revision = seen.get(&copy.path).map_or(0, |seen| seen.revision);
        }
        Ok(plan)
    }

    /// The records at these paths, in the shared store's form, with their versions as they are.
    pub(super) fn records(&self, paths: &[String]) -> Result<Vec<Arrived>, StoreError> {
        let mut records = Vec::with_capacity(paths.len());
        self.values(paths, &mut |ring, path, version, value| {
            let value = self.under_newest(ring, value)?;
            let (octets, _) = Record::seal(ring, path, Kind::Shared, version.max(1), &value.encode());
            records.push(Arrived { path: path.to_owned(), revision: 1, octets: Some(octets.into()) });
            Ok(())
        })?;
        Ok(records)
    }

    /// The keys as they are in this transaction.
    fn ring_now(&self, transaction: &redb::WriteTransaction) -> Result<Arc<Keyring>, StoreError> {
        self.ring_in(&transaction.open_table(HEADER).map_err(io)?, self.header_floor.load(Ordering::Acquire))
    }

    /// Calls for what is here under each of these paths, with the keys and its version.
    fn values(&self, paths: &[String], call: &mut OnValue<'_>) -> Result<(), StoreError> {
        guarded("store", || {
            let transaction = self.db.begin_write().map_err(io)?;
            let ring = self.ring_now(&transaction)?;
            let table = transaction.open_table(RECORDS).map_err(io)?;
            let root = self.checked_root(&table, &ring, self.floor.load(Ordering::Acquire))?;
            let change = Change::new(table, &ring, &self.alerts, root);
            let seen = SeenTables::open(&transaction)?;
            let trust = self.read_trust_manifest(&change)?;
            for path in paths {
                let (value, here) = if path.starts_with("t/") {
                    let mut names =
                        trust.entries.iter().map(|(name, _)| name).chain(trust.removed.iter().map(|(name, _)| name));
                    if !names.any(|name| trust_path(name) == *path) {
                        continue;
                    }
                    (trust_value(&change, path, &trust)?, 0)
                } else {
                    let Some(record) = change.view().top(path)? else { continue };
                    let generation = record.generation;
                    (top_value(&change, path, Some(&(record.kind, record.value)))?, generation)
                };
                call(&ring, path, seen.get(path)?.version.max(here), value)?;
            }
            drop((change, seen));
            transaction.abort().map_err(io)
        })
    }

    /// See [`super::EmbeddedStore::not_shared_yet`].
    pub(super) fn not_shared_yet(&self) -> Result<Vec<String>, StoreError> {
        let mut shared = PathHashes::default();
        let there = |seen: &Seen| match seen.divergence {
            None => seen.version != 0 && seen.revision != 0,
            Some(why) => why == Divergence::NotUnderstood,
        };
        for (path, _) in self.each_seen(|_, seen| there(seen))? {
            shared.add(&path);
        }
        let mut paths = self.shared_paths()?;
        paths.retain(|path| !shared.hashes.contains(&shared.hasher.hash_one(path.as_str())));
        Ok(paths)
    }

    /// See [`super::EmbeddedStore::digest`].
    pub(super) fn digest(&self) -> Result<(usize, [u8; 32]), StoreError> {
        let paths = self.shared_paths()?;
        let mut all = Digest::default();
        for some in paths.chunks(DIGESTED) {
            self.values(some, &mut |ring, path, _, value| {
                all.add(ring, path, value);
                Ok(())
            })?;
        }
        Ok((all.count, all.sum))
    }

    /// Every path that the shared store is to hold.
    pub(in crate::store) fn shared_paths(&self) -> Result<Vec<String>, StoreError> {
        self.read(|view| {
            let mut paths = Vec::new();
            for prefix in ["o/", "a/"] {
                let (tops, errors) = view.tops(prefix);
                if let Some(error) = errors.into_iter().next() {
                    return Err(error);
                }
                paths.extend(tops.into_iter().map(|(path, _)| path));
            }
            if let Some(record) = view.top(TRUST)? {
                let trust = TrustValue::decode(&record.value).ok_or_else(|| view.alerts.raise(TRUST))?;
                paths.extend(trust.entries.iter().map(|(name, _)| trust_path(name)));
                paths.extend(trust.removed.iter().map(|(name, _)| trust_path(name)));
            }
            Ok(paths)
        })
    }
}

fn tombstone(at: Timestamp) -> SharedValue {
    SharedValue::Tombstone(TombstoneValue { at, certificates: Vec::new() }.encode())
}

fn trust_value(change: &Change<'_, '_>, path: &str, trust: &TrustValue) -> Result<SharedValue, StoreError> {
    let named = trust.entries.iter().find(|(name, _)| trust_path(name) == path);
    let Some((_, mac)) = named else {
        // Of the same content whenever it is read.
        let removed = trust.removed.iter().find(|(name, _)| trust_path(name) == path);
        return Ok(tombstone(removed.map_or_else(Timestamp::now, |(_, at)| *at)));
    };
    let record = change.view().child(path, mac)?;
    match TrustEntryValue::decode(&record.value) {
        Some(_) => Ok(SharedValue::Trust(record.value)),
        None => Err(change.view().alerts.raise(path)),
    }
}

fn top_value(change: &Change<'_, '_>, path: &str, top: Option<&(Kind, Vec<u8>)>) -> Result<SharedValue, StoreError> {
    let damaged = |path: &str| change.view().alerts.raise(path);
    let Some((kind, value)) = top else { return Ok(tombstone(Timestamp::now())) };
    match kind {
        Kind::Tombstone => Ok(SharedValue::Tombstone(value.clone())),
        Kind::Alias => String::from_utf8(value.clone()).map(SharedValue::Alias).map_err(|_| damaged(path)),
        Kind::Owner => {
            let owner = owner_of_path(path).ok_or_else(|| damaged(path))?;
            let value = OwnerValue::decode(value).ok_or_else(|| damaged(path))?;
            let mut certificates = Vec::with_capacity(value.certificates.len());
            for (name, mac) in &value.certificates {
                let record = change.view().child(&certificate_path(&owner, name), mac)?;
                CertificateValue::decode(&record.value).ok_or_else(|| damaged(path))?;
                certificates.push((*name, record.value));
            }
            let mut keys = Vec::with_capacity(value.keys.len());
            for (name, _) in &value.keys {
                let path = key_path(&KeyId(*name));
                let record = change.written(&path)?.filter(|record| record.kind == Kind::Key);
                keys.push((*name, record.ok_or_else(|| damaged(&path))?.value));
            }
            Ok(SharedValue::Owner { disabled: value.disabled, certificates, keys })
        }
        _ => Err(damaged(path)),
    }
}

/// A hash over records in any order, and how many they are.
#[derive(Default)]
pub(in crate::store) struct Digest {
    pub count: usize,
    pub sum: [u8; 32],
}

impl Digest {
    /// A private key counts by what it is, whatever store key it is sealed with.
    pub fn add(&mut self, ring: &Keyring, path: &str, mut value: SharedValue) {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut put = |octets: &[u8]| {
            context.update(&(octets.len() as u64).to_be_bytes());
            context.update(octets);
        };
        put(path.as_bytes());
        if let SharedValue::Owner { keys, .. } = &mut value {
            for (name, sealed) in std::mem::take(keys) {
                let (id, path) = (KeyId(name), key_path(&KeyId(name)));
                put(&name);
                match ring.unseal(&Inner::key_binding(&path, &id), &sealed) {
                    Some(plain) => put(&plain),
                    None => put(&sealed),
                }
            }
        }
        put(&value.encode());
        self.sum.iter_mut().zip(context.finish().as_ref()).for_each(|(sum, octet)| *sum ^= octet);
        self.count += 1;
    }
}

/// Hashes of paths, in place of the paths: a large store has millions.
#[derive(Default)]
pub(in crate::store) struct PathHashes {
    pub hasher: RandomState,
    pub hashes: HashSet<u64>,
}

impl PathHashes {
    pub fn add(&mut self, path: &str) {
        self.hashes.insert(self.hasher.hash_one(path));
    }
}

impl Inner {
    /// The header that the store began with.
    pub(in crate::store) fn header(&self) -> Result<Vec<u8>, StoreError> {
        super::read_header(&self.db)
    }
}

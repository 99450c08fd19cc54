//! Every record written anew under a new store key, then the old one dropped.
//!
//! One transaction an owner, so that mail never waits long for the store. What was written anew is known by its MAC, so that after a crash at any
//! point it is simply done again: what is done is passed over. From the moment the new key is in the header every change is under it, whoever
//! makes it.
//!
//! A shared store is resealed in etcd, by whichever command runs, record by record by compare-and-swap; each gateway reseals its copy by itself
//! and says so in its signs of life. The old key goes when every gateway has said so and nothing in etcd is under it.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use redb::ReadableTable;

use super::{EmbeddedStore, Inner, key_path, owner_of_path};
use crate::keys::KeyId;
use crate::store::StoreError;
use crate::store::etcd::{Node, Shared};
use crate::store::keyring::Keyring;
use crate::store::keyring::header::{Id, KeyState};
use crate::store::record::{Encoded, Kind, OwnerValue, Record, TrustValue};
use crate::store::tree::{BUCKETS, Change, LOG_LENGTH, View};

/// Times that all of the shared store is gone through before it is said what stays under the old key.
const PASSES: usize = 8;
/// Records of a copy written anew with one commit.
const COPIED: usize = 64;

/// How far it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealing {
    /// Top-level records (owners, aliases, the trust set) passed.
    pub done: u64,
    /// All there were at the beginning.
    pub of: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Top-level records written anew; the others were under the newest key already.
    pub written: u64,
    /// Records that are not authentic: they were left, and are no more so under the new key.
    pub bad: Vec<String>,
    /// Gateways that have not said that nothing of theirs is under the old key, in words: it is kept until they do.
    pub waits: Vec<String>,
}

impl EmbeddedStore {
    /// Makes a new store key, writes every record and private key anew under it, and drops the old one; where that was begun before, it is
    /// finished. `step` is called after each top-level record, and may rest. Where the store is shared, the gateways that share it are waited for
    /// for at most `patience`.
    ///
    /// # Errors
    /// A KEK that opens the store is not at hand; a record is of a later version (the old key stays then); a disk fails; etcd cannot be reached.
    pub fn reseal(&self, patience: Duration, mut step: impl FnMut(Resealing)) -> Result<Resealed, StoreError> {
        if let Some(shared) = self.inner.shared.get() {
            return self.reseal_shared(shared, patience, &mut step);
        }
        let newest = self.begin_reseal()?;
        let mut resealed = Resealed::default();
        let of = self.inner.read(|view| {
            let mut count = 0;
            // Buckets that cannot be read are met again below.
            drop(view.each_top(|_, _| count += 1));
            Ok(count)
        })?;
        let mut at = Resealing { done: 0, of };
        for bucket in 0..BUCKETS {
            let tops = match self.inner.read(|view| view.tops_of(bucket)) {
                Ok(tops) => tops,
                Err(StoreError::NotAuthentic(path)) => {
                    resealed.bad.push(path);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (path, _) in tops {
                match self.inner.reseal_top(&path) {
                    Ok(written) => resealed.written += u64::from(written),
                    Err(StoreError::NotAuthentic(path)) => resealed.bad.push(path),
                    Err(error) => return Err(error),
                }
                at.done += 1;
                step(at);
            }
            self.inner.reseal_bucket(bucket, false)?;
        }
        self.inner.reseal_log(false)?;
        self.end_reseal(newest, &resealed.bad)?;
        Ok(resealed)
    }

    fn reseal_shared(
        &self,
        shared: &Shared,
        patience: Duration,
        step: &mut dyn FnMut(Resealing),
    ) -> Result<Resealed, StoreError> {
        shared.catch_up()?;
        let newest = self.begin_reseal()?;
        let mut resealed = Resealed::default();
        self.reseal_records(shared, step, &mut resealed)?;
        self.inner.reseal_copy(&mut || ())?;
        let done = |node: &Node| node.sealed == Some(newest);
        resealed.waits = shared.waits_until(done, "still has records under the old store key", patience)?;
        if !resealed.waits.is_empty() {
            return Ok(resealed);
        }
        // Nobody has written under the old key since; what was put back meanwhile is found here.
        self.reseal_records(shared, step, &mut resealed)?;
        self.drop_retired(newest)?;
        Ok(resealed)
    }

    /// Until nothing that the shared store holds is under an older key.
    fn reseal_records(
        &self,
        shared: &Shared,
        step: &mut dyn FnMut(Resealing),
        resealed: &mut Resealed,
    ) -> Result<(), StoreError> {
        let mut last = None;
        for _ in 0..PASSES {
            let pass = shared.reseal(&self.inner, step)?;
            resealed.written += pass.written;
            if pass.stayed.is_empty() {
                return Ok(());
            }
            last = pass.stayed.into_iter().next();
        }
        let (path, why) = last.unwrap_or_default();
        Err(StoreError::Refused(format!(
            "record {path} of the shared store is still under an older store key, which is kept: {why}"
        )))
    }

    /// The first step: from now on everything new is under a new key, whose id this gives.
    pub(super) fn begin_reseal(&self) -> Result<Id, StoreError> {
        let keks = self.inner.held();
        self.inner.change_header(|header| {
            if header.keys.iter().any(|key| key.state == KeyState::Retired) {
                return Ok(None);
            }
            let mut next = header.clone();
            next.renew_keys(&keks, Timestamp::now())?;
            Ok(Some(next))
        })?;
        Ok(self.inner.current_ring()?.header.newest()?.id)
    }

    /// The last step: the old keys go, if nothing is under them.
    fn end_reseal(&self, newest: Id, bad: &[String]) -> Result<(), StoreError> {
        if let Some(bucket) = bad.iter().find(|path| path.starts_with("b/")) {
            return Err(StoreError::Refused(format!(
                "record {bucket} is not authentic, so what it named cannot be found; the old store key is kept: restore the store from a backup"
            )));
        }
        if let Some(path) = self.under_older_keys()?.first() {
            return Err(StoreError::Refused(format!(
                "record {path} is still under an older store key, which is kept: reseal again"
            )));
        }
        self.drop_retired(newest)
    }

    fn drop_retired(&self, newest: Id) -> Result<(), StoreError> {
        self.inner.change_header(|header| {
            // Where somebody began anew meanwhile, it is for him to end.
            if header.newest()?.id != newest {
                return Ok(None);
            }
            let mut next = header.clone();
            next.drop_keys(|key| key.state == KeyState::Retired);
            Ok((next.keys.len() != header.keys.len()).then_some(next))
        })
    }

    /// The paths of records that are authentic, in use, and under an older store key. What nothing names is in nobody's use. Of a shared store:
    /// of this node's copy.
    pub fn under_older_keys(&self) -> Result<Vec<String>, StoreError> {
        self.inner.under_older_keys()
    }
}

impl Inner {
    fn under_older_keys(&self) -> Result<Vec<String>, StoreError> {
        self.read(|view| {
            let mut older = Vec::new();
            let mut look = |path: &str| {
                let stored = view.table.get(path).map_err(super::io)?;
                let under = stored.is_some_and(|stored| {
                    !Record::is_newest(view.ring, path, stored.value())
                        && Record::is_authentic(view.ring, path, stored.value())
                });
                if under {
                    older.push(path.to_owned());
                }
                Ok::<(), StoreError>(())
            };
            let mut failed = Ok(());
            for path in view.bucket_paths() {
                look(&path)?;
            }
            // Buckets and records that are not authentic raised their alerts.
            drop(view.each_top(|path, mac| {
                let mut both = || {
                    look(&path)?;
                    match view.child(&path, &mac) {
                        Ok(record) => children(&path, &record).iter().try_for_each(|child| look(child)),
                        Err(StoreError::NotAuthentic(_) | StoreError::Later(_)) => Ok(()),
                        Err(other) => Err(other),
                    }
                };
                if failed.is_ok() {
                    failed = both();
                }
            }));
            failed?;
            for at in view.root.generation.saturating_sub(LOG_LENGTH)..=view.root.generation {
                look(&crate::store::tree::log_path(at))?;
            }
            Ok(older)
        })
    }
}

/// A sealed private key, sealed by the newest key. The record's MAC holds, so this is what was written; a private key that cannot be opened is not
/// thrown away.
pub(super) fn resealed(ring: &Keyring, path: &str, binding: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    ring.reseal(binding, sealed)?.ok_or_else(|| {
        StoreError::Refused(format!("the private key in record {path} cannot be opened; the old store key is kept"))
    })
}

/// What stands under a top-level record.
fn children(path: &str, record: &Record) -> Vec<String> {
    super::children_of(path, record).into_iter().map(|(path, _)| path).collect()
}

impl Inner {
    /// Whether a top-level record and all it names are under the newest key.
    fn is_resealed<T: ReadableTable<&'static str, &'static [u8]>>(
        view: &View<'_, T>,
        path: &str,
        record: &Record,
    ) -> Result<bool, StoreError> {
        if !view.is_newest(path)? {
            return Ok(false);
        }
        for child in children(path, record) {
            if !view.is_newest(&child)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a top-level record and what it names anew, unless that was done; says whether it was written.
    fn reseal_top(&self, path: &str) -> Result<bool, StoreError> {
        let done = self.read(|view| match view.top(path)? {
            None => Ok(true),
            Some(record) => Self::is_resealed(view, path, &record),
        })?;
        if done {
            return Ok(false);
        }
        self.write(|change| self.reseal_in(change, path, false))
    }

    /// `copy`: the record keeps its version, which is the shared store's.
    fn reseal_in(&self, change: &mut Change<'_, '_>, path: &str, copy: bool) -> Result<bool, StoreError> {
        let Some(record) = change.view().top(path)? else { return Ok(false) };
        let (kind, generation) = (record.kind, record.generation);
        let value = match kind {
            Kind::Owner => self.reseal_owner(change, path, &record)?,
            Kind::Trust => self.reseal_trust(change, &record)?,
            _ => record.value,
        };
        if copy && kind != Kind::Trust {
            change.put_top_at(path, kind, &value, generation)?;
        } else {
            change.put_top(path, kind, &value)?;
        }
        Ok(true)
    }

    /// Writes every record of the copy of a shared store anew that is under an older key. `step` is called now and then, and may rest. Run at any
    /// time and any number of times; nothing is to do where no older key is accepted.
    ///
    /// # Errors
    /// A record cannot be written anew, or is under an older key in the end: then this is to be run again.
    pub(in crate::store) fn reseal_copy(&self, step: &mut dyn FnMut()) -> Result<(), StoreError> {
        let ring = self.current_ring()?;
        let newest = ring.header.newest()?.id;
        if !ring.has_older() || (ring.left().is_empty() && self.is_resealed_under(&newest)) {
            return Ok(());
        }
        for bucket in 0..BUCKETS {
            let tops = match self.read(|view| view.tops_of(bucket)) {
                Ok(tops) => tops,
                // Its alert was raised; it is read anew when what it named comes.
                Err(StoreError::NotAuthentic(_)) => continue,
                Err(error) => return Err(error),
            };
            for some in tops.chunks(COPIED) {
                self.reseal_some(some)?;
                step();
            }
            self.reseal_bucket(bucket, true)?;
        }
        self.reseal_log(true)?;
        if let Some(path) = self.under_older_keys()?.first() {
            return Err(StoreError::Unavailable(format!(
                "record {path} of this copy is still under an older store key"
            )));
        }
        if self.current_ring()?.header.newest()?.id == newest {
            *self.resealed.lock().unwrap_or_else(PoisonError::into_inner) = Some(newest);
            self.leave_none(newest)?;
        }
        Ok(())
    }

    fn reseal_some(&self, tops: &[(String, crate::store::keyring::Mac)]) -> Result<(), StoreError> {
        let older = self.read(|view| {
            let mut older = Vec::new();
            for (path, _) in tops {
                match view.top(path) {
                    Ok(Some(record)) if !Self::is_resealed(view, path, &record)? => older.push(path),
                    Ok(_) | Err(StoreError::NotAuthentic(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(older)
        })?;
        if older.is_empty() {
            return Ok(());
        }
        self.write_here(false, |change| {
            for path in &older {
                match self.reseal_in(change, path, true) {
                    Ok(_) | Err(StoreError::NotAuthentic(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    /// A command that found keys left beside the header, and no gateway that would do it, writes what is under them anew.
    pub(super) fn leave_nothing_behind(&self) -> Result<(), StoreError> {
        if self.ring().left().is_empty() { Ok(()) } else { self.reseal_copy(&mut || ()) }
    }

    /// Makes a change of a store of its own, or of a copy here alone: what it says is not changed.
    fn rewrite<R>(
        &self,
        copy: bool,
        body: impl FnMut(&mut Change<'_, '_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        if copy { self.write_here(false, body) } else { self.write(body) }
    }

    fn reseal_owner(&self, change: &mut Change<'_, '_>, path: &str, record: &Record) -> Result<Vec<u8>, StoreError> {
        let owner = owner_of_path(path);
        let (Some(owner), Some(mut value)) = (owner, OwnerValue::decode(&record.value)) else {
            return Err(self.alerts.raise(path));
        };
        for (name, mac) in &mut value.certificates {
            let path = super::certificate_path(&owner, name);
            match change.view().child(&path, mac) {
                Ok(record) => *mac = change.put_child(&path, record.kind, &record.value)?,
                // It stays what it is: absent, with its alert.
                Err(StoreError::NotAuthentic(_)) => {}
                Err(other) => return Err(other),
            }
        }
        for (name, mac) in &mut value.keys {
            let id = KeyId(*name);
            let path = key_path(&id);
            let record = match change.view().loose(&path) {
                Ok(Some(record)) => record,
                Ok(None) | Err(StoreError::NotAuthentic(_)) => continue,
                Err(other) => return Err(other),
            };
            if change.view().is_newest(&path)? {
                *mac = record.mac;
                continue;
            }
            let binding = Self::key_binding(&path, &id);
            let sealed = resealed(change.ring(), &path, &binding, &record.value)?;
            *mac = change.put_child(&path, record.kind, &sealed)?;
        }
        Ok(value.encode())
    }

    fn reseal_trust(&self, change: &mut Change<'_, '_>, record: &Record) -> Result<Vec<u8>, StoreError> {
        let mut value = TrustValue::decode(&record.value).ok_or_else(|| self.alerts.raise(super::TRUST))?;
        for (name, mac) in &mut value.entries {
            let path = super::trust_path(name);
            match change.view().child(&path, mac) {
                Ok(record) => *mac = change.put_child(&path, record.kind, &record.value)?,
                Err(StoreError::NotAuthentic(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(value.encode())
    }

    /// A bucket that no change touched.
    fn reseal_bucket(&self, number: u16, copy: bool) -> Result<(), StoreError> {
        let path = crate::store::tree::bucket_path(number);
        let done = self.read(|view| Ok(!view.bucket_paths().any(|known| known == path) || view.is_newest(&path)?))?;
        if done { Ok(()) } else { self.rewrite(copy, |change| change.touch_bucket(number)) }
    }

    /// The log of changes, a few at a time.
    fn reseal_log(&self, copy: bool) -> Result<(), StoreError> {
        let newest = self.read(|view| Ok(view.root.generation))?;
        let numbers: Vec<u64> = (newest.saturating_sub(LOG_LENGTH)..=newest).collect();
        for some in numbers.chunks(64) {
            let done = self.read(|view| {
                let mut done = true;
                for at in some {
                    let path = crate::store::tree::log_path(*at);
                    done &= view.table.get(path.as_str()).map_err(super::io)?.is_none() || view.is_newest(&path)?;
                }
                Ok(done)
            })?;
            if !done {
                self.rewrite(copy, |change| some.iter().try_for_each(|at| change.reseal_log(*at)))?;
            }
        }
        Ok(())
    }
}

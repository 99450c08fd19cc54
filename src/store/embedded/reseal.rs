//! Every record written anew under a new store key, then the old one dropped.
//!
//! One transaction an owner, so that mail never waits long for the store. What was written anew is known by its MAC, so that after a crash at any
//! point it is simply done again: what is done is passed over. From the moment the new key is in the header every change is under it, whoever
//! makes it.

use jiff::Timestamp;
use redb::ReadableTable;

use super::{EmbeddedStore, Inner, key_path, owner_of_path};
use crate::keys::KeyId;
use crate::store::StoreError;
use crate::store::keyring::header::KeyState;
use crate::store::record::{Encoded, Kind, OwnerValue, Record, TrustValue};
use crate::store::tree::{BUCKETS, Change, LOG_LENGTH, View};

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
}

impl EmbeddedStore {
    /// Makes a new store key, writes every record and private key anew under it, and drops the old one; where that was begun before, it is
    /// finished. `step` is called after each top-level record, and may rest.
    ///
    /// # Errors
    /// A KEK that opens the store is not at hand; a record is of a later version (the old key stays then); a disk fails.
    pub fn reseal(&self, mut step: impl FnMut(Resealing)) -> Result<Resealed, StoreError> {
        self.begin_reseal()?;
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
            self.inner.reseal_bucket(bucket)?;
        }
        self.inner.reseal_log()?;
        self.end_reseal(&resealed.bad)?;
        Ok(resealed)
    }

    /// The first step: from now on everything new is under a new key.
    pub(super) fn begin_reseal(&self) -> Result<(), StoreError> {
        let keks = self.inner.held();
        self.inner.change_header(|header| {
            if header.keys.iter().any(|key| key.state == KeyState::Retired) {
                return Ok(None);
            }
            let mut next = header.clone();
            next.renew_keys(&keks, Timestamp::now())?;
            Ok(Some(next))
        })
    }

    /// The last step: the old keys go, if nothing is under them.
    fn end_reseal(&self, bad: &[String]) -> Result<(), StoreError> {
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
        self.inner.change_header(|header| {
            let mut next = header.clone();
            next.drop_keys(|key| key.state == KeyState::Retired);
            Ok((next.keys.len() != header.keys.len()).then_some(next))
        })
    }

    /// The paths of records that are authentic, in use, and under an older store key. What nothing names is in nobody's use.
    pub fn under_older_keys(&self) -> Result<Vec<String>, StoreError> {
        self.inner.read(|view| {
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
        self.write(|change| {
            let Some(record) = change.view().top(path)? else { return Ok(false) };
            let value = match record.kind {
                Kind::Owner => self.reseal_owner(change, path, &record)?,
                Kind::Trust => self.reseal_trust(change, &record)?,
                _ => record.value,
            };
            change.put_top(path, record.kind, &value)?;
            Ok(true)
        })
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
            // The MAC holds, so this is what was written; a private key that cannot be opened is not thrown away.
            let plain = change.ring().unseal(&binding, &record.value).ok_or_else(|| {
                StoreError::Refused(format!(
                    "the private key in record {path} cannot be opened; the old store key is kept"
                ))
            })?;
            let sealed = change.ring().seal(&binding, &plain)?;
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
    fn reseal_bucket(&self, number: u16) -> Result<(), StoreError> {
        let path = crate::store::tree::bucket_path(number);
        let done = self.read(|view| Ok(!view.bucket_paths().any(|known| known == path) || view.is_newest(&path)?))?;
        if done { Ok(()) } else { self.write(|change| change.touch_bucket(number)) }
    }

    /// The log of changes, a few at a time.
    fn reseal_log(&self) -> Result<(), StoreError> {
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
                self.write(|change| some.iter().try_for_each(|at| change.reseal_log(*at)))?;
            }
        }
        Ok(())
    }
}

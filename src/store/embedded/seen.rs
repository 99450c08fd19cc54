//! What this copy knows of each key of the shared store, beside the records.
//!
//! Three tables. `seen` holds for each key its revision, the version and MAC of the record that was accepted last (the high-water mark: an older
//! one is refused), and what is wrong with the one that stands there now. `divergent` names those of which something is wrong, so that
//! they are found without reading all. `progress` holds how far this copy is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use redb::{
    ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, TableHandle, WriteTransaction,
};

use super::{Inner, guarded, owner_of_path};
use crate::store::StoreError;
use crate::store::etcd::{Divergence, Progress};
use crate::store::keyring::Mac;
use crate::store::tree::io;

const SEEN: TableDefinition<&str, &[u8]> = TableDefinition::new("seen");
const DIVERGENT: TableDefinition<&str, u8> = TableDefinition::new("divergent");
const PROGRESS: TableDefinition<&str, &[u8]> = TableDefinition::new("progress");

/// What is known of a key of the shared store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct Seen {
    /// The revision at which it was changed last; 0: it is not there.
    pub revision: u64,
    /// Of the record that was accepted.
    pub version: u64,
    pub mac: Mac,
    pub divergence: Option<Divergence>,
}

impl Seen {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.revision.to_be_bytes().to_vec();
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.mac);
        out.push(self.divergence.map_or(0, |one| one as u8));
        out
    }

    fn decode(octets: &[u8]) -> Option<Self> {
        let (revision, rest) = octets.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (mac, rest) = rest.split_first_chunk()?;
        let [code] = rest else { return None };
        Some(Self {
            revision: u64::from_be_bytes(*revision),
            version: u64::from_be_bytes(*version),
            mac: *mac,
            divergence: Divergence::from_code(*code),
        })
    }
}

fn read_seen(table: &impl ReadableTable<&'static str, &'static [u8]>, path: &str) -> Result<Seen, StoreError> {
    let stored = table.get(path).map_err(io)?;
    Ok(stored.and_then(|stored| Seen::decode(stored.value())).unwrap_or_default())
}

/// The tables within a transaction that writes.
pub(super) struct SeenTables<'t> {
    seen: Table<'t, &'static str, &'static [u8]>,
    divergent: Table<'t, &'static str, u8>,
}

impl<'t> SeenTables<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        let indexed = transaction.list_tables().map_err(io)?.any(|table| table.name() == DIVERGENT.name());
        let seen = transaction.open_table(SEEN).map_err(io)?;
        let mut divergent = transaction.open_table(DIVERGENT).map_err(io)?;
        if !indexed {
            for entry in seen.iter().map_err(io)? {
                let entry = entry.map_err(io)?;
                if let Some(why) = Seen::decode(entry.1.value()).and_then(|seen| seen.divergence) {
                    divergent.insert(entry.0.value(), why as u8).map_err(io)?;
                }
            }
        }
        Ok(Self { seen, divergent })
    }

    pub fn get(&self, path: &str) -> Result<Seen, StoreError> {
        read_seen(&self.seen, path)
    }

    pub fn put(&mut self, path: &str, seen: &Seen) -> Result<(), StoreError> {
        self.seen.insert(path, seen.encode().as_slice()).map_err(io)?;
        match seen.divergence {
            Some(why) => drop(self.divergent.insert(path, why as u8).map_err(io)?),
            None => drop(self.divergent.remove(path).map_err(io)?),
        }
        Ok(())
    }

    /// There is no such key, and there never was a record of it.
    pub fn forget(&mut self, path: &str) -> Result<(), StoreError> {
        self.seen.remove(path).map_err(io)?;
        self.divergent.remove(path).map_err(io)?;
        Ok(())
    }
}

/// How far this copy is, within a transaction that writes.
pub(super) fn progress_in(transaction: &WriteTransaction) -> Result<Option<Progress>, StoreError> {
    let table = transaction.open_table(PROGRESS).map_err(io)?;
    let stored = table.get("").map_err(io)?;
    Ok(stored.and_then(|stored| Progress::decode(stored.value())))
}

/// Writes down how far this copy is.
pub(super) fn put_progress(transaction: &WriteTransaction, progress: &Progress) -> Result<(), StoreError> {
    let mut table = transaction.open_table(PROGRESS).map_err(io)?;
    table.insert("", progress.encode().as_slice()).map_err(io)?;
    Ok(())
}

/// The table, where there is one.
fn there<T>(opened: Result<T, TableError>) -> Result<Option<T>, StoreError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(io(error)),
    }
}

/// Records that a later version of Waxwing wrote. That there are none costs a look-up one load.
#[derive(Default)]
pub(super) struct Later {
    paths: DashMap<String, ()>,
    count: AtomicUsize,
}

impl Later {
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn contains(&self, path: &str) -> bool {
        !self.is_empty() && self.paths.contains_key(path)
    }

    fn add(&self, path: &str) {
        if self.paths.insert(path.to_owned(), ()).is_none() {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub fn remove(&self, path: &str) {
        if self.paths.remove(path).is_some() {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn first(&self, which: impl Fn(&str) -> bool) -> Option<String> {
        self.paths.iter().find(|one| which(one.key())).map(|one| one.key().clone())
    }
}

impl Inner {
    fn reading<R>(&self, body: impl FnOnce(&ReadTransaction) -> Result<R, StoreError>) -> Result<R, StoreError> {
        guarded("store", || body(&self.db.begin_read().map_err(io)?))
    }

    /// How far this copy is; nothing where it never was one.
    pub(in crate::store) fn progress(&self) -> Result<Progress, StoreError> {
        self.reading(|transaction| {
            let Some(table) = there(transaction.open_table(PROGRESS))? else { return Ok(Progress::default()) };
            let stored = table.get("").map_err(io)?;
            Ok(stored.and_then(|stored| Progress::decode(stored.value())).unwrap_or_default())
        })
    }

    /// Keys of which the shared store holds something else than this copy, and what is wrong.
    pub(in crate::store) fn divergent(&self) -> Result<Vec<(String, Divergence)>, StoreError> {
        let indexed = self.reading(|transaction| {
            let Some(table) = there(transaction.open_table(DIVERGENT))? else { return Ok(None) };
            let mut found = Vec::new();
            for entry in table.iter().map_err(io)? {
                let entry = entry.map_err(io)?;
                found.extend(Divergence::from_code(entry.1.value()).map(|why| (entry.0.value().to_owned(), why)));
            }
            Ok(Some(found))
        })?;
        match indexed {
            Some(found) => Ok(found),
            // A copy from before there was this table: the first thing that is taken in makes it.
            None => {
                let found = self.each_seen(|_, seen| seen.divergence.is_some())?.into_iter();
                Ok(found.filter_map(|(path, seen)| Some((path, seen.divergence?))).collect())
            }
        }
    }

    /// Whether this is the copy of a shared store.
    pub(super) fn is_copy(&self, transaction: &WriteTransaction) -> Result<bool, StoreError> {
        Ok(progress_in(transaction)?.is_some_and(|progress| progress.complete))
    }

    /// What is known of these keys.
    pub(in crate::store) fn seen_of(&self, paths: &[String]) -> Result<BTreeMap<String, Seen>, StoreError> {
        self.reading(|transaction| match there(transaction.open_table(SEEN))? {
            Some(table) => paths.iter().map(|path| Ok((path.clone(), read_seen(&table, path)?))).collect(),
            None => Ok(BTreeMap::new()),
        })
    }

    pub(super) fn each_seen(&self, which: impl Fn(&str, &Seen) -> bool) -> Result<Vec<(String, Seen)>, StoreError> {
        self.reading(|transaction| {
            let Some(table) = there(transaction.open_table(SEEN))? else { return Ok(Vec::new()) };
            let mut found = Vec::new();
            for entry in table.iter().map_err(io)? {
                let entry = entry.map_err(io)?;
                let (path, Some(seen)) = (entry.0.value(), Seen::decode(entry.1.value())) else { continue };
                if which(path, &seen) {
                    found.push((path.to_owned(), seen));
                }
            }
            Ok(found)
        })
    }

    /// It is a store of its own: what was seen of a shared one says nothing any more.
    pub(super) fn forget_seen(&self) -> Result<(), StoreError> {
        guarded("store", || {
            let transaction = self.db.begin_write().map_err(io)?;
            transaction.delete_table(SEEN).map_err(io)?;
            transaction.delete_table(DIVERGENT).map_err(io)?;
            transaction.commit().map_err(io)
        })
    }

    /// A later version of Waxwing wrote this record: what is here is out of date, and nothing is answered from it.
    pub(super) fn not_understood(&self, path: &str) {
        self.later.add(path);
        if let Some(owner) = owner_of_path(path) {
            self.identities.invalidate(&owner);
        }
    }

    /// Looks for what another process of this machine found to be written by a later version.
    pub(in crate::store) fn look_for_later(&self) -> Result<(), StoreError> {
        for (path, why) in self.divergent()? {
            if why == Divergence::NotUnderstood {
                self.not_understood(&path);
            }
        }
        Ok(())
    }

    /// Fails where a later version of Waxwing wrote one of these records.
    pub(super) fn understands(&self, path: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        if self.later.is_empty() {
            return Ok(());
        }
        self.later.first(path).map_or(Ok(()), |path| Err(StoreError::Later(path)))
    }
}

//! All records out into a backup, and in again from one.

use std::io::{Read, Write};

use super::change::{must_be_no_alias, read_certificate, read_owner, set_pair, unless_later};
use super::{EmbeddedStore, Inner, TRUST, certificate_path, key_path, owner_of_path, trust_path};
use crate::address::MailboxKey;
use crate::keys::KeyId;
use crate::store::backup::{BackupKey, Item, Reader, Summary, Writer};
use crate::store::keyring::Keyring;
use crate::store::record::{CertificateValue, Encoded, Kind, OwnerValue, TrustEntryValue, TrustValue};
use crate::store::tree::Change;
use crate::store::{Owner, StoreError};

/// Top-level records restored in one transaction.
const BATCH: usize = 32;

/// How far a restore has come: top-level records (owners, aliases, the trust set).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restoring {
    /// Records of the backup read so far.
    pub records: u64,
}

/// What came of a restore: top-level records (owners, aliases, the trust set).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// They were not there.
    pub new: u64,
    /// They were there, and something was added to them.
    pub added_to: u64,
    /// They were there with all that the backup has.
    pub unchanged: u64,
    /// What is there stands against them: an owner that was purged, an alias that is a mailbox here, or the other way round.
    pub left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    New,
    AddedTo,
    Unchanged,
    Left,
}

/// A top-level record with all it names.
struct Group {
    top: Item,
    children: Vec<Item>,
}

impl Group {
    fn child(&self, path: &str) -> Option<&Item> {
        self.children.iter().find(|item| item.path == path)
    }
}

fn is_top(item: &Item) -> bool {
    matches!(item.kind, Kind::Owner | Kind::Trust | Kind::Alias | Kind::Tombstone)
}

fn foreign(path: &str) -> StoreError {
    StoreError::Refused(format!("record {path} of the backup is not what its kind says; nothing of it was taken"))
}

impl EmbeddedStore {
    /// Writes every record into a backup, as of one moment. `step` is told how many of how many top-level records are written. Also the paths of
    /// records that are not authentic and so are not in it.
    ///
    /// # Errors
    /// The store cannot be read, or `out` not written; a record is of a later version.
    pub fn export(
        &self,
        out: &mut dyn Write,
        mut step: impl FnMut(u64, u64),
    ) -> Result<(Summary, Vec<String>), StoreError> {
        self.inner.read(|view| {
            let mut writer = Writer::begin(out, view.ring)?;
            let (mut bad, mut of, mut done) = (Vec::new(), 0, 0);
            drop(view.each_top(|_, _| of += 1));
            let mut failed = None;
            let errors = view.each_top(|path, mac| {
                if failed.is_some() {
                    return;
                }
                let mut put = || -> Result<(), StoreError> {
                    let record = view.child(&path, &mac)?;
                    let children = super::children_of(&path, &record);
                    writer.put(&Item { path: path.clone(), kind: record.kind, value: record.value })?;
                    for (child, mac) in children {
                        match super::named_child(view, &child, &mac) {
                            Ok(record) => writer.put(&Item { path: child, kind: record.kind, value: record.value })?,
                            Err(StoreError::NotAuthentic(path)) => bad.push(path),
                            Err(other) => return Err(other),
                        }
                    }
                    Ok(())
                };
                match put() {
                    Err(StoreError::NotAuthentic(path)) => bad.push(path),
                    Err(other) => failed = Some(other),
                    Ok(()) => {}
                }
                done += 1;
                step(done, of);
            });
            for error in errors {
                match error {
                    StoreError::NotAuthentic(path) => bad.push(path),
                    other => failed = failed.or(Some(other)),
                }
            }
            match failed {
                Some(error) => Err(error),
                None => Ok((writer.finish()?, bad)),
            }
        })
    }

    /// Puts back what a backup has and the store has not. What is there stays as it is: trust that was withdrawn, an owner that was disabled or
    /// purged, an anchor that was removed. Repeated after a crash it goes on: what is there is there. `expected` is what [`check`]
    /// found in the same file.
    ///
    /// [`check`]: crate::store::backup::check
    ///
    /// # Errors
    /// The file is not the one that was checked, from the point reached on; a disk fails. What was restored before stays.
    pub fn restore(
        &self,
        input: &mut dyn Read,
        key: &BackupKey,
        expected: Summary,
        mut step: impl FnMut(Restoring),
    ) -> Result<Restored, StoreError> {
        let mut reader = Reader::begin(input, key)?;
        let (mut restored, mut at) = (Restored::default(), Restoring::default());
        let mut groups: Vec<Group> = Vec::new();
        while let Some(item) = reader.next()? {
            at.records += 1;
            if is_top(&item) {
                if groups.len() >= BATCH {
                    self.inner.restore_groups(&reader.ring, &groups, &mut restored)?;
                    groups.clear();
                    step(at);
                }
                groups.push(Group { top: item, children: Vec::new() });
            } else {
                let group = groups.last_mut().ok_or_else(|| foreign(&item.path))?;
                group.children.push(item);
            }
        }
        if reader.summary() != Some(expected) {
            return Err(StoreError::Refused(
                "the backup is another file than a moment ago: import it again".to_owned(),
            ));
        }
        self.inner.restore_groups(&reader.ring, &groups, &mut restored)?;
        step(at);
        Ok(restored)
    }
}

impl Inner {
    fn restore_groups(&self, ring: &Keyring, groups: &[Group], restored: &mut Restored) -> Result<(), StoreError> {
        let fates = self.write(|change| {
            groups.iter().map(|group| self.restore_group(change, ring, group)).collect::<Result<Vec<_>, _>>()
        });
        let fates = match fates {
            Err(StoreError::TooLarge(_)) if groups.len() > 1 => {
                let (left, right) = groups.split_at_checked(groups.len() / 2).unwrap_or((groups, &[]));
                self.restore_groups(ring, left, restored)?;
                return self.restore_groups(ring, right, restored);
            }
            fates => fates?,
        };
        for fate in fates {
            match fate {
                Fate::New => restored.new += 1,
                Fate::AddedTo => restored.added_to += 1,
                Fate::Unchanged => restored.unchanged += 1,
                Fate::Left => restored.left += 1,
            }
        }
        Ok(())
    }

    fn restore_group(&self, change: &mut Change<'_, '_>, ring: &Keyring, group: &Group) -> Result<Fate, StoreError> {
        let Item { path, kind, value } = &group.top;
        match kind {
            Kind::Trust if path == TRUST => self.restore_trust(change, group),
            Kind::Owner => {
                let owner = owner_of_path(path).ok_or_else(|| foreign(path))?;
                self.restore_owner(change, ring, &owner, group)
            }
            Kind::Alias | Kind::Tombstone => {
                if let Some(there) = change.view().top(path)? {
                    let same = there.kind == *kind && there.value == *value;
                    return Ok(if same { Fate::Unchanged } else { Fate::Left });
                }
                if *kind == Kind::Alias {
                    let alias = path.strip_prefix("a/").and_then(|name| MailboxKey::from_stored(name).ok());
                    let alias = Owner::Mailbox(alias.ok_or_else(|| foreign(path))?);
                    if read_owner(change, &alias)?.is_some_and(|owner| !owner.certificates.is_empty()) {
                        return Ok(Fate::Left);
                    }
                }
                change.put_top(path, *kind, value)?;
                Ok(Fate::New)
            }
            _ => Err(foreign(path)),
        }
    }

    fn restore_owner(
        &self,
        change: &mut Change<'_, '_>,
        ring: &Keyring,
        owner: &Owner,
        group: &Group,
    ) -> Result<Fate, StoreError> {
        let path = &group.top.path;
        let was = OwnerValue::decode(&group.top.value).ok_or_else(|| foreign(path))?;
        let there = change.view().top(path)?;
        if must_be_no_alias(change, owner).is_err() || there.as_ref().is_some_and(|there| there.kind != Kind::Owner) {
            return Ok(Fate::Left);
        }
        let fresh = there.is_none();
        let before = read_owner(change, owner)?;
        let mut value = before.clone().unwrap_or(OwnerValue { disabled: was.disabled, ..OwnerValue::default() });
        for (name, _) in &was.keys {
            let (id, path) = (KeyId(*name), key_path(&KeyId(*name)));
            let Some(item) = group.child(&path) else { continue };
            if value.keys.iter().any(|(known, _)| known == name)
                && unless_later(change.view().loose(&path))?.flatten().is_some()
            {
                continue;
            }
            let plain = ring.unseal(&Self::key_binding(&path, &id), &item.value).ok_or_else(|| foreign(&path))?;
            let mac = self.put_key(change, &id, &plain)?;
            set_pair(&mut value.keys, *name, mac);
        }
        for (name, _) in &was.certificates {
            let path = certificate_path(owner, name);
            let Some(item) = group.child(&path) else { continue };
            let stored = CertificateValue::decode(&item.value).ok_or_else(|| foreign(&path))?;
            let next = match read_certificate(change, owner, &value, *name)? {
                Some(known) if known.key.is_some() || stored.key.is_none() => continue,
                Some(known) => CertificateValue { key: stored.key, ..known },
                // Which one is preferred was said here, where anything was.
                None => CertificateValue { preferred: stored.preferred && fresh, ..stored },
            };
            let mac = change.put_child(&path, Kind::Certificate, &next.encode())?;
            set_pair(&mut value.certificates, *name, mac);
        }
        if before.as_ref() == Some(&value) {
            return Ok(Fate::Unchanged);
        }
        change.put_top(path, Kind::Owner, &value.encode())?;
        Ok(if fresh { Fate::New } else { Fate::AddedTo })
    }

    fn restore_trust(&self, change: &mut Change<'_, '_>, group: &Group) -> Result<Fate, StoreError> {
        let was = TrustValue::decode(&group.top.value).ok_or_else(|| foreign(TRUST))?;
        let fresh = change.view().top(TRUST)?.is_none();
        let mut value = self.read_trust_manifest(change)?;
        let before = value.clone();
        for (name, _) in &was.entries {
            let path = trust_path(name);
            let known = value.entries.iter().any(|(known, _)| known == name);
            let removed = value.removed.iter().any(|(removed, _)| removed == name);
            let Some(item) = group.child(&path).filter(|_| !known && !removed) else { continue };
            let entry = TrustEntryValue::decode(&item.value).ok_or_else(|| foreign(&path))?;
            let mac = change.put_child(&path, Kind::TrustEntry, &entry.encode())?;
            set_pair(&mut value.entries, *name, mac);
        }
        for (name, at) in &was.removed {
            let known = value.entries.iter().any(|(known, _)| known == name);
            if !known && !value.removed.iter().any(|(removed, _)| removed == name) {
                value.removed.push((*name, *at));
            }
        }
        if value == before && !fresh {
            return Ok(Fate::Unchanged);
        }
        change.put_top(TRUST, Kind::Trust, &value.encode())?;
        Ok(if fresh { Fate::New } else { Fate::AddedTo })
    }
}

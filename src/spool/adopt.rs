//! Taking over the spool of a node that is gone for good (R9).
//!
//! Three steps, each durable before the next: every entry is copied here as *being adopted* (it is never due); the other spool is marked
//! as adopted by this one, and cannot be opened any more; one record here makes all that was copied ordinary entries. Before the mark
//! the other spool is what counts: a takeover that is repeated drops what was copied and copies anew, so that a node which came back in
//! between loses and doubles nothing. After the mark this one counts, and a repetition goes on from there.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand;
use bytes::Bytes;
use jiff::Timestamp;

use super::commit::Transaction;
use super::disk::{Disk, Folder};
use super::entry::{Entry, EntryId};
use super::index::{Body, Index, Slot};
use super::record::{Change, sha256};
use super::recover::{Found, recover};
use super::seal::Keys;
use super::{Spool, SpoolError, blocking, body_name, lock, octets, segment_name};
use crate::mime::rope::Rope;
use crate::store::keyring::SpoolKeks;

/// The name of a spool: drawn when it takes over another, or is taken over.
const IDENTITY: &str = "identity";
/// Says that a spool was adopted, and by whom.
const MARK: &str = "adopted";
/// Entries and octets copied with one record.
const ENTRIES: usize = 500;
const OCTETS: usize = 8 << 20;

/// The name of a spool.
pub(super) type Identity = [u8; 16];

/// What was taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Entries that are here now.
    pub entries: u64,
    /// Octets of their contents.
    pub octets: u64,
    /// What could not be read; the other folder keeps it for a person to look at.
    pub left: Vec<String>,
}

/// The other spool, as it was found.
struct Source {
    disk: Arc<dyn Disk>,
    identity: Identity,
    keys: Option<Keys>,
    index: Index,
    left: Vec<String>,
}

impl Spool {
    /// Takes over the spool in a folder, whose node is gone for good: its entries are entries of this spool afterwards, and the folder is
    /// empty but for a mark. After an error or a crash at any point it is repeated: nothing is lost, and nothing is delivered
    /// twice. `kek` unwraps the other spool's keys, where it has some. The quota does not count.
    ///
    /// # Errors
    /// The folder is in use, holds no spool, or was adopted by another; a disk fails; the keys cannot be unwrapped.
    pub async fn adopt(&self, folder: &Path, kek: Option<SpoolKeks>) -> Result<Adopted, SpoolError> {
        let folder = folder.to_owned();
        let disk = blocking(move || Ok(Folder::existing(&folder)?)).await?;
        self.adopt_disk(Arc::new(disk), kek).await
    }

    /// As [`Spool::adopt`], from any disk.
    pub async fn adopt_disk(&self, disk: Arc<dyn Disk>, kek: Option<SpoolKeks>) -> Result<Adopted, SpoolError> {
        self.works()?;
        let own = Arc::clone(&self.shared);
        let (ours, source, marked) = blocking(move || {
            let ours = identity(own.disk.as_ref())?;
            let identity = identity(disk.as_ref())?;
            let mark = Mark::read(disk.as_ref())?;
            if let Some(mark) = mark.filter(|mark| mark.by != ours) {
                return Err(SpoolError::Adopted(mark.name()));
            }
            Ok((ours, open_source(disk, identity, kek.as_ref(), mark)?, mark.is_some()))
        })
        .await?;
        let mut adopted = Adopted { left: source.left.clone(), ..Adopted::default() };
        if !marked {
            self.drop_copies(source.identity).await?;
            self.copy(&source, &mut adopted).await?;
            let disk = Arc::clone(&source.disk);
            let mark = Mark { by: ours, keep: !adopted.left.is_empty() };
            blocking(move || Ok(mark.write(disk.as_ref())?)).await?;
        }
        let copies = self.copies(source.identity);
        adopted.entries = octets(copies.len());
        adopted.octets = copies.iter().filter_map(|id| self.entry(*id)).map(|entry| entry.size).sum();
        let mut activated = Transaction::default();
        activated.change(Change::Activated(source.identity));
        self.send(activated).await?;
        let keep = !adopted.left.is_empty();
        blocking(move || if keep { Ok(()) } else { Ok(clean(source.disk.as_ref())?) }).await?;
        Ok(adopted)
    }

    /// Entries that were copied from there and are not ordinary yet.
    fn copies(&self, from: Identity) -> Vec<EntryId> {
        let index = lock(&self.shared.index);
        index.slots.iter().filter(|(_, slot)| slot.adopting == Some(from)).map(|(id, _)| *id).collect()
    }

    async fn drop_copies(&self, from: Identity) -> Result<(), SpoolError> {
        for some in self.copies(from).chunks(ENTRIES) {
            let mut transaction = Transaction::default();
            some.iter().for_each(|id| transaction.change(Change::Done(*id)));
            self.send(transaction).await?;
        }
        Ok(())
    }

    async fn copy(&self, source: &Source, adopted: &mut Adopted) -> Result<(), SpoolError> {
        let (mut transaction, mut count, mut size) = (Transaction::of_mail(), 0, 0);
        for slot in source.index.slots.values() {
            let (disk, keys, read) = (Arc::clone(&source.disk), source.keys.clone(), slot.clone());
            let Some(content) = blocking(move || content(disk.as_ref(), keys.as_ref(), &read)).await? else {
                adopted.left.push(format!("entry {}: its content is damaged", slot.entry.id));
                continue;
            };
            let entry = Entry { id: self.shared.next_id(Timestamp::now()), ..slot.entry.as_ref().clone() };
            let entry = if slot.adopting.is_some() { unfinished(entry) } else { entry };
            let id = entry.id;
            size += content.len();
            count += 1;
            self.stage_entry(&mut transaction, entry, Rope::from(content), Timestamp::MIN).await?;
            transaction.change(Change::Adopting(id, source.identity));
            if count >= ENTRIES || size >= OCTETS {
                self.sync_bodies(&transaction).await?;
                self.send(std::mem::replace(&mut transaction, Transaction::of_mail())).await?;
                (count, size) = (0, 0);
            }
        }
        self.sync_bodies(&transaction).await?;
        if count > 0 { self.send(transaction).await } else { Ok(()) }
    }
}

/// It was on its way from a third spool when this one's node died: whether that one still has it, a person has to find out.
fn unfinished(entry: Entry) -> Entry {
    let held = "from a takeover that was not finished: release it if the spool it came from is gone".to_owned();
    Entry { held: Some(entry.held.unwrap_or(held)), ..entry }
}

fn open_source(
    disk: Arc<dyn Disk>,
    identity: Identity,
    kek: Option<&SpoolKeks>,
    mark: Option<Mark>,
) -> Result<Source, SpoolError> {
    if let Some(mark) = mark {
        let left = mark.keep.then(|| "what could not be read when it was taken over".to_owned());
        return Ok(Source { disk, identity, keys: None, index: Index::default(), left: left.into_iter().collect() });
    }
    let Found { index, recovered, .. } = recover(disk.as_ref())?;
    let keys = kek.map(|kek| Keys::existing(disk.as_ref(), kek)).transpose()?.flatten();
    let missing = |name: &[u8; 16]| keys.as_ref().is_none_or(|keys| !keys.has(name));
    if index.sealing_keys().iter().any(missing) {
        return Err(SpoolError::Keys("the other spool is sealed, and its keys cannot be unwrapped".into()));
    }
    Ok(Source { disk, identity, keys, index, left: recovered.damage })
}

/// A content of the other spool; `None`: it is damaged.
fn content(disk: &dyn Disk, keys: Option<&Keys>, slot: &Slot) -> Result<Option<Bytes>, SpoolError> {
    let id = slot.entry.id;
    let read = match slot.body {
        Body::Log { offset, len } => disk.read(&segment_name(slot.segment), offset, len),
        Body::File { len } => disk.read(&body_name(id), 0, usize::try_from(len).unwrap_or(usize::MAX)),
    };
    let stored = match read {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
            return Ok(None);
        }
        other => other?,
    };
    let opened = match (slot.sealing, keys) {
        (None, _) => (sha256(&stored) == slot.digest).then_some(stored),
        (Some(sealing), keys) => keys.and_then(|keys| keys.open_content(id, sealing, stored)),
    };
    Ok(opened.map(Bytes::from))
}

/// The spool's name; drawn where it has none yet.
fn identity(disk: &dyn Disk) -> Result<Identity, SpoolError> {
    if let Some(identity) = read_whole(disk, IDENTITY)? {
        return Ok(identity);
    }
    let mut identity = [0; 16];
    rand::fill(&mut identity).map_err(|_| SpoolError::Keys("the system gives no randomness".into()))?;
    write_whole(disk, IDENTITY, &identity)?;
    Ok(identity)
}

/// Who adopted a spool.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    by: Identity,
    /// Something could not be read and stays there.
    keep: bool,
}

impl Mark {
    pub(super) fn read(disk: &dyn Disk) -> io::Result<Option<Self>> {
        let mark: Option<[u8; 17]> = read_whole(disk, MARK)?;
        Ok(mark.and_then(|mark| {
            let (keep, by) = mark.split_last()?;
            Some(Mark { by: by.try_into().ok()?, keep: *keep != 0 })
        }))
    }

    fn write(self, disk: &dyn Disk) -> io::Result<()> {
        let octets: Vec<u8> = self.by.into_iter().chain([self.keep.into()]).collect();
        write_whole(disk, MARK, &octets)
    }

    /// Who it was, for people.
    pub(super) fn name(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.by))
    }
}

fn read_whole<const N: usize>(disk: &dyn Disk, file: &str) -> io::Result<Option<[u8; N]>> {
    match disk.read(file, 0, N) {
        Ok(octets) => Ok(octets.try_into().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A small file, whole or not at all.
fn write_whole(disk: &dyn Disk, name: &str, octets: &[u8]) -> io::Result<()> {
    let unfinished = format!("{name}.unfinished");
    let _ = disk.remove(&unfinished);
    let mut file = disk.create(&unfinished)?;
    file.append(octets)?;
    file.sync()?;
    disk.rename(&unfinished, name)?;
    disk.sync_folder()
}

/// Removes what was taken over.
fn clean(disk: &dyn Disk) -> io::Result<()> {
    let ours = |name: &str| name.ends_with(".log") || name.ends_with(".body") || matches!(name, "reserve" | "keys");
    let names: BTreeSet<String> = disk.names()?.into_iter().filter(|name| ours(name)).collect();
    names.iter().try_for_each(|name| disk.remove(name))?;
    disk.sync_folder()
}

//! The header of a shared store, as a copy takes it: a later one takes the place of an earlier one, and never the other way round.
//!
//! The copy's records are under the keys of the header that was here. Those that the new one has no more are kept beside it ("left"), and open
//! what lies here, nothing that comes from the shared store, until every record of the copy was written anew. Keys that were dropped are
//! remembered ("spent"): a header that brings one back was made by who has that key alone, and is not taken.

use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use redb::{ReadableTable, Table};

use super::{EmbeddedStore, HEADER, Inner, LEFT, builder, file_of, guarded, stored_in};
use crate::config::Etcd;
use crate::store::StoreError;
use crate::store::etcd::{self, Divergence};
use crate::store::keyring::header::{Header, Id, Opener};
use crate::store::keyring::{Kek, Keyring, hex};
use crate::store::record::{Encoded, Kind, Record};
use crate::store::tree::{RECORDS, ROOT, io};

/// Ids of store keys that were dropped, one behind the other.
const SPENT: &str = "spent";

/// What became of the header that the shared store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Taken {
    /// It is in use here.
    InUse {
        generation: u64,
        /// This node was away while the store key changed: what the shared store holds is to be read again.
        again: bool,
    },
    /// Ours is the true one.
    Ours(Divergence),
    /// It cannot be told here which one is.
    Open(Divergence, String),
}

type Headers<'t> = Table<'t, &'static str, &'static [u8]>;

fn spent_in(headers: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Vec<Id>, StoreError> {
    let stored = headers.get(SPENT).map_err(io)?;
    Ok(stored.map(|stored| stored.value().as_chunks().0.to_vec()).unwrap_or_default())
}

impl Inner {
    /// Takes the header that the shared store holds, where it may follow ours.
    pub(in crate::store) fn take_header(&self, octets: &[u8]) -> Result<Taken, StoreError> {
        // Another process of this machine may take one meanwhile.
        for _ in 0..8 {
            let ours = self.current_ring()?;
            if ours.octets() == octets {
                return Ok(Taken::InUse { generation: ours.header.revision, again: false });
            }
            let fits = |opener: &Opener<'_>| Header::fits(opener, octets);
            let next = self.opened(|opener| match Keyring::open(opener, octets) {
                Err(error @ StoreError::Kek(..)) if !fits(opener) => Err(error),
                // It is ours to judge: nothing that came later would open it.
                other => Ok(other),
            });
            let next = match next {
                Ok(Ok(next)) => next,
                Ok(Err(StoreError::Later(_))) => {
                    return Ok(Taken::Open(Divergence::NotUnderstood, "update this node".to_owned()));
                }
                Ok(Err(_)) => return Ok(Taken::Ours(Divergence::NotAuthentic)),
                Err(_) => return Ok(judged_closed(&ours.header, octets)),
            };
            if ours.header.store != next.header.store {
                return Ok(Taken::Open(Divergence::Foreign, "it is another store's: name another prefix".to_owned()));
            }
            match next.header.revision.cmp(&ours.header.revision) {
                std::cmp::Ordering::Less => return Ok(Taken::Ours(Divergence::Older)),
                std::cmp::Ordering::Equal => {
                    let why = "`waxwing store repair` on the node that is right decides".to_owned();
                    return Ok(Taken::Open(Divergence::Fork, why));
                }
                std::cmp::Ordering::Greater => {}
            }
            let generation = next.header.revision;
            match self.succeed(next)? {
                Succession::Done { again } => return Ok(Taken::InUse { generation, again }),
                Succession::Refused => return Ok(Taken::Ours(Divergence::NotAuthentic)),
                Succession::Overtaken => {}
            }
        }
        Err(StoreError::Io("is given other headers all the time".to_owned()))
    }

    /// The header as it is here now.
    pub(in crate::store) fn current_header(&self) -> Result<Header, StoreError> {
        Ok(self.current_ring()?.header.clone())
    }

    /// The shared store's header is not ours.
    pub(in crate::store) fn header_alert(&self) {
        drop(self.alerts.raise("header"));
    }

    /// Puts a header that was opened in the place of ours, in one commit with the root.
    fn succeed(&self, next: Keyring) -> Result<Succession, StoreError> {
        let keks = self.held();
        let done = guarded("store", || {
            let transaction = self.db.begin_write().map_err(io)?;
            let mut headers = transaction.open_table(HEADER).map_err(io)?;
            let mut records = transaction.open_table(RECORDS).map_err(io)?;
            let ring = self.ring_in(&headers, self.header_floor.load(Ordering::Acquire))?;
            if ring.header.revision >= next.header.revision {
                return Ok(Succession::Overtaken);
            }
            if !ring.header.may_be_followed_by(&next.header, &spent_in(&headers)?) {
                return Ok(Succession::Refused);
            }
            let root = self.checked_root(&records, &ring, self.floor.load(Ordering::Acquire))?;
            let newest = ring.header.newest()?.id;
            // Where every record here is under the newest, nothing is left under the others.
            let stays = next.header.keys.iter().any(|key| key.id == newest);
            let kept = match self.is_resealed_under(&newest) && stays {
                true => None,
                false => ring.header.left_behind(ring.left(), &next.header, &keks)?,
            };
            spend(&mut headers, ring.header.dropped_by(&next.header).map(|key| key.id))?;
            headers.insert("header", next.octets()).map_err(io)?;
            match &kept {
                Some(kept) => headers.insert(LEFT, kept.encode()?.as_slice()).map_err(io)?.map(drop),
                None => headers.remove(LEFT).map_err(io)?.map(drop),
            };
            let (octets, _) = Record::seal(&next, ROOT, Kind::Root, root.generation, &root.encode());
            records.insert(ROOT, octets.as_slice()).map_err(io)?;
            drop((headers, records));
            transaction.commit().map_err(io)?;
            tracing::info!(revision = next.header.revision, "the keys of the shared store are others now");
            Ok(Succession::Done { again: !stays })
        })?;
        // What is in memory goes by the new one from now on.
        self.current_ring()?;
        self.be_present();
        Ok(done)
    }

    /// Whether every record of this copy is under this store key.
    pub(super) fn is_resealed_under(&self, key: &Id) -> bool {
        *self.resealed.lock().unwrap_or_else(PoisonError::into_inner) == Some(*key)
    }

    /// The store key that every record of this copy is under; `None`: that is not so, or was not looked at.
    pub(in crate::store) fn resealed_under(&self) -> Option<Id> {
        let ring = self.ring();
        let newest = ring.header.newest().ok()?.id;
        (!ring.has_older() || self.is_resealed_under(&newest)).then_some(newest)
    }

    /// Every record of this copy is under this store key; what was left beside the header opens nothing any more.
    pub(super) fn leave_none(&self, newest: Id) -> Result<(), StoreError> {
        guarded("store", || {
            let transaction = self.db.begin_write().map_err(io)?;
            let mut headers = transaction.open_table(HEADER).map_err(io)?;
            let ring = self.ring_in(&headers, self.header_floor.load(Ordering::Acquire))?;
            // Under another one by now: that is another matter.
            if ring.header.newest()?.id != newest || ring.left().is_empty() {
                drop(headers);
                return transaction.abort().map_err(io);
            }
            headers.remove(LEFT).map_err(io)?;
            drop(headers);
            transaction.commit().map_err(io)
        })?;
        self.current_ring()?;
        *self.resealed.lock().unwrap_or_else(PoisonError::into_inner) = Some(newest);
        Ok(())
    }
}

enum Succession {
    Done {
        again: bool,
    },
    Refused,
    /// Another process was faster.
    Overtaken,
}

/// Remembers keys that were dropped.
fn spend(headers: &mut Headers<'_>, dropped: impl Iterator<Item = Id>) -> Result<(), StoreError> {
    let mut spent = spent_in(headers)?;
    let before = spent.len();
    for id in dropped {
        if !spent.contains(&id) {
            spent.push(id);
        }
    }
    if spent.len() > before {
        headers.insert(SPENT, spent.concat().as_slice()).map_err(io)?;
    }
    Ok(())
}

/// Of a header that no key at hand opens.
fn judged_closed(ours: &Header, octets: &[u8]) -> Taken {
    let Some((store, revision, keks)) = Header::outline(octets) else {
        return Taken::Ours(Divergence::NotAuthentic);
    };
    if store != ours.store {
        return Taken::Open(Divergence::Foreign, "it is another store's: name another prefix".to_owned());
    }
    if revision <= ours.revision {
        return Taken::Ours(Divergence::Older);
    }
    let wanted: Vec<String> = keks.iter().map(|kek| hex(kek).to_string()).collect();
    let wanted = wanted.join(" or ");
    match ours.vouches_for(octets) {
        Some(false) => Taken::Ours(Divergence::NotAuthentic),
        Some(true) => Taken::Open(
            Divergence::Foreign,
            format!("the key-encryption key was rotated: bring KEK {wanted} to this node, and name it in `kek`"),
        ),
        None => Taken::Open(
            Divergence::Foreign,
            format!(
                "it wants KEK {wanted}: where the keys were rotated, bring that to this node and name it in `kek`; where somebody wrote it who should not, run `waxwing store repair` on a gateway that is right"
            ),
        ),
    }
}

impl EmbeddedStore {
    /// Where the KEK of a copy was rotated away while this node was off, and it has the new one alone: puts the shared store's header in the
    /// place of the copy's. Says whether it did; not, where the shared store's is not later, or not opened either.
    ///
    /// # Errors
    /// Its records are under a store key that is gone: the copy is of no use then.
    pub(super) fn renew_header(folder: &Path, keks: &[Kek], etcd: &Etcd) -> Result<bool, StoreError> {
        let Some(octets) = etcd::read_header(etcd)? else { return Ok(false) };
        let Ok(next) = Keyring::open(&Opener::Keks(keks), &octets) else { return Ok(false) };
        let file = file_of(folder);
        guarded(&file.display().to_string(), || {
            let db = builder().open(&file).map_err(io)?;
            let transaction = db.begin_write().map_err(io)?;
            let mut headers = transaction.open_table(HEADER).map_err(io)?;
            let mut records = transaction.open_table(RECORDS).map_err(io)?;
            let here = stored_in(&headers)?;
            let follows = Header::outline(&here.header)
                .is_some_and(|(store, revision, _)| store == next.header.store && revision < next.header.revision);
            if !follows {
                return Ok(false);
            }
            let root = records.get(ROOT).map_err(io)?.map(|root| root.value().to_vec());
            let root = root.and_then(|root| Record::open(&next, ROOT, &root).ok());
            let Some(root) = root.filter(|_| here.left.is_none()) else {
                return Err(StoreError::Refused(format!(
                    "this node's copy in {0} is under keys that are gone: stop what has it open, move {0} away, and start again; all of the shared store is read anew then",
                    folder.display()
                )));
            };
            let (octets, _) = Record::seal(&next, ROOT, root.kind, root.generation, &root.value);
            records.insert(ROOT, octets.as_slice()).map_err(io)?;
            headers.insert("header", next.octets()).map_err(io)?;
            drop((headers, records));
            transaction.commit().map_err(io)?;
            tracing::warn!(
                revision = next.header.revision,
                "the key-encryption key was rotated while this node was off"
            );
            Ok(true)
        })
    }
}

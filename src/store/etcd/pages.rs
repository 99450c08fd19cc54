//! Every key of the installation at one revision, page by page.

use super::Core;
use super::client::EtcdError;
use super::wire::{KeyValue, RangeRequest};
use crate::store::StoreError;
use crate::store::embedded::Digest;
use crate::store::etcd::SharedValue;
use crate::store::record::{Encoded, Kind, Record, Unreadable};

/// A page has so many keys at most; fewer after one that was too large.
const PAGE: i64 = 1_000;

/// See the module.
pub(super) struct Pages<'c> {
    core: &'c Core,
    revision: u64,
    /// Where the next page begins; `None` at the end.
    from: Option<Vec<u8>>,
    limit: i64,
}

impl<'c> Pages<'c> {
    pub fn at(core: &'c Core, revision: u64) -> Self {
        Self { core, revision, from: Some(core.prefix.clone().into_bytes()), limit: PAGE }
    }

    /// The next page; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, EtcdError> {
        let Some(from) = self.from.take() else { return Ok(None) };
        let page = loop {
            let request = RangeRequest {
                key: from.clone(),
                range_end: self.core.range_end(),
                limit: self.limit,
                revision: self.revision as i64,
                ..Default::default()
            };
            match self.core.client.range(request).await {
                // Somebody wrote much into few keys: what is small among it must be read all the same.
                Err(EtcdError::TooLarge(_)) if self.limit > 1 => self.limit = (self.limit / 4).max(1),
                answer => break answer?,
            }
        };
        self.limit = (self.limit * 2).min(PAGE);
        if page.more {
            let last = page
                .kvs
                .last()
                .ok_or_else(|| EtcdError::Unavailable("etcd says that there is more, and gives nothing".to_owned()))?;
            self.from = Some([&last.key, [0].as_slice()].concat());
        }
        Ok(Some(page.kvs))
    }
}

/// How many records the shared store itself holds, and a hash of all they say: as [`EmbeddedStore::digest`], of what etcd has.
///
/// [`EmbeddedStore::digest`]: crate::store::embedded::EmbeddedStore::digest
pub(super) async fn digest(core: &Core) -> Result<(usize, [u8; 32]), StoreError> {
    let closed = || StoreError::Io("is closed".to_owned());
    let now = core.client.range(RangeRequest { key: core.key("h").to_vec(), ..Default::default() }).await?;
    let revision = now.header.map_or(0, |header| header.revision as u64);
    let ring = core.inner.upgrade().ok_or_else(closed)?.ring();
    let (mut pages, mut all) = (Pages::at(core, revision), Digest::default());
    while let Some(page) = pages.next().await? {
        for kv in page {
            let Some(path) = core.path(&kv.key).filter(|path| super::follow::is_record(path)) else { continue };
            let record = Record::open(&ring, path, &kv.value).map_err(|why| match why {
                Unreadable::NotAuthentic => StoreError::NotAuthentic(path.to_owned()),
                Unreadable::Later => StoreError::Later(path.to_owned()),
            })?;
            let value =
                SharedValue::decode(&record.value).filter(|value| record.kind == Kind::Shared && value.fits(path));
            all.add(&ring, path, value.ok_or_else(|| StoreError::Later(path.to_owned()))?);
        }
    }
    Ok((all.count, all.sum))
}

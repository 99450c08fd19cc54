//! Signs of life of gateways: who is there, how far each copy is, and the proof that our own watch is not behind.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::client::EtcdError;
use super::commit::{delete, put, revision_of, sweep};
use super::keys::{self, Keys};
use super::wire::{RangeRequest, TxnRequest};
use super::{Core, Divergence, Failed, lock};
use crate::store::StoreError;
use crate::store::keyring::{Fingerprint, hex, parse_fingerprint, unhex};
use crate::store::record::{Kind, Record};

/// Signs of life that are waited for at most.
const WAITED: usize = 64;
/// Ours is put back for so many keys at a time.
const HEALED: usize = 50;

/// A gateway of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Everything up to this revision is in use there.
    pub applied: u64,
    /// Its last sign of life.
    pub seen: Timestamp,
    /// Its version of Waxwing.
    pub version: String,
    /// The key-encryption keys it has.
    pub keks: Vec<Fingerprint>,
    /// The revision of the store's header that it goes by.
    pub header: u64,
    /// The id of the store key that every record of its copy is under; `None`: not all are under one.
    pub sealed: Option<[u8; 16]>,
}

/// What a sign of life says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub boot: [u8; 16],
    pub counter: u64,
    pub applied: u64,
    pub at: Timestamp,
    pub version: String,
    pub keys: Keys,
}

impl Said {
    fn encode(&self) -> Vec<u8> {
        json!({
            "boot": hex(&self.boot).as_str(), "counter": self.counter, "applied": self.applied,
            "at": self.at.as_second(), "version": self.version, "keks": self.keys.words(), "header": self.keys.header,
            "sealed": self.keys.sealed.map(|id| hex(&id).to_string()),
        })
        .to_string()
        .into_bytes()
    }

    pub fn decode(octets: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(octets).ok()?;
        let boot = sixteen(value.get("boot")?.as_str()?)?;
        // A gateway of an earlier version says nothing of its keys.
        let keks = value.get("keks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let keys = Keys {
            keks: keks.iter().map(|kek| parse_fingerprint(kek.as_str()?)).collect::<Option<_>>()?,
            header: value.get("header").and_then(Value::as_u64).unwrap_or_default(),
            sealed: value.get("sealed").and_then(Value::as_str).and_then(sixteen),
        };
        Some(Self {
            boot,
            counter: value.get("counter")?.as_u64()?,
            applied: value.get("applied")?.as_u64()?,
            at: Timestamp::from_second(value.get("at")?.as_i64()?).ok()?,
            version: value.get("version")?.as_str()?.to_owned(),
            keys,
        })
    }
}

/// Sixteen octets in hexadecimal.
fn sixteen(text: &str) -> Option<[u8; 16]> {
    unhex(&format!("{text}{text}"))?.first_chunk().copied()
}

impl Core {
    /// Reads a sign of life; `None` where it is not authentic.
    pub(super) fn said(&self, path: &str, octets: &[u8]) -> Option<Said> {
        let inner = self.inner.upgrade()?;
        let record = Record::open(&inner.ring(), path, octets).ok().filter(|record| record.kind == Kind::Node)?;
        Said::decode(&record.value)
    }

    pub(super) fn node_path(&self) -> String {
        format!("n/{}", self.node)
    }

    /// Our own sign of life came back at this revision: all that was changed before it was sent is here.
    pub(super) fn came_back(&self, said: &Said, revision: u64) {
        if said.boot != self.boot {
            if self.role == super::Role::Gateway && said.at > self.started {
                tracing::error!(
                    node = self.node,
                    "another gateway has this name: give each its own, node = \"…\" under [etcd]"
                );
            }
            return;
        }
        let sent = {
            let mut sent = lock(&self.sent);
            let when = sent.iter().find(|(counter, _)| *counter == said.counter).map(|(_, when)| *when);
            sent.retain(|(counter, _)| *counter > said.counter);
            when
        };
        let Some(sent) = sent else { return };
        let ago = i64::try_from(sent.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.state.send_modify(|state| {
            state.fresh = Some(sent);
            state.fresh_at = Timestamp::now().as_millisecond().saturating_sub(ago);
            state.back = (said.counter, revision);
        });
    }
}

/// Gives signs of life until the store is closed; puts back what the shared store lost.
pub(super) async fn live(core: std::sync::Arc<Core>) {
    let interval = (core.max_staleness / 5).clamp(Duration::from_millis(200), Duration::from_secs(1));
    let (mut counter, mut swept, mut healed) = (0, Instant::now(), Instant::now());
    let mut resealing: Option<tokio::task::JoinHandle<()>> = None;
    while let Some(octets) = sign_of_life(&core, counter + 1) {
        counter += 1;
        let sent = Instant::now();
        {
            let mut waited = lock(&core.sent);
            if waited.len() >= WAITED {
                waited.remove(0);
            }
            waited.push((counter, sent));
        }
        let request =
            TxnRequest { success: vec![put(core.key(&core.node_path()), octets.into())], ..TxnRequest::default() };
        // None before what it would prove was looked at: it must not hide that the cluster was put back.
        let connected = { core.state.borrow().connected };
        match if connected {
            core.client.change_once(request).await
        } else {
            Err(EtcdError::Unreachable(String::new()))
        } {
            Ok(answer) => core.state.send_modify(|state| state.beat = Some((counter, revision_of(&answer), sent))),
            Err(error) => tracing::debug!(%error, "no sign of life"),
        }
        if healed.elapsed() > Duration::from_secs(2) {
            healed = Instant::now();
            if resealing.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                resealing = reseal(&core);
            }
            if let Err(error) = heal(&core).await {
                tracing::warn!(why = error.0, "what the shared store lost cannot be put back now");
            }
        }
        if swept.elapsed() > Duration::from_secs(600) {
            swept = Instant::now();
            drop(sweep(&core).await);
        }
        sleep(interval.saturating_sub(sent.elapsed())).await;
    }
}

fn sign_of_life(core: &Core, counter: u64) -> Option<Vec<u8>> {
    let inner = core.inner.upgrade()?;
    let said = Said {
        boot: core.boot,
        counter,
        applied: core.state.borrow().applied,
        at: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        keys: Keys::of(&inner),
    };
    Some(Record::seal(&inner.ring(), &core.node_path(), Kind::Node, counter, &said.encode()).0)
}

/// Writes this copy anew where its store keys were renewed, beside everything else.
fn reseal(core: &Core) -> Option<tokio::task::JoinHandle<()>> {
    let inner = core.inner.upgrade().filter(|inner| inner.resealed_under().is_none())?;
    Some(tokio::task::spawn_blocking(move || {
        if let Err(error) = keys::reseal_copy(&inner) {
            tracing::warn!(%error, "this copy is not whole under the new store key yet");
        }
    }))
}

/// Puts back what was deleted, put back to an older version, or replaced by what is not authentic.
async fn heal(core: &std::sync::Arc<Core>) -> Result<(), Failed> {
    let connected = { core.state.borrow().connected };
    let Some(inner) = core.inner.upgrade().filter(|_| connected) else { return Ok(()) };
    if core.state.borrow().header.wrong.is_some() {
        return keys::heal(core).await;
    }
    let writes = tokio::task::spawn_blocking(move || {
        let lost = |why| matches!(why, Divergence::Vanished | Divergence::Older | Divergence::NotAuthentic);
        let mut writes = Vec::new();
        for (path, _) in inner.divergent()?.into_iter().filter(|(_, seen)| seen.divergence.is_some_and(lost)) {
            // What was never here, or is damaged here, keeps nothing else from being put back.
            writes.extend(inner.copies(&[path], false).ok().filter(|plan| !plan.writes.is_empty()));
            if writes.len() >= HEALED {
                break;
            }
        }
        Ok::<_, StoreError>(writes)
    });
    let writes = writes.await.map_err(|error| error.to_string())??;
    for plan in writes {
        let path = plan.writes.first().map(|one| one.path.clone());
        if let super::commit::Outcome::Made(_) = super::commit::commit(core, &plan).await? {
            tracing::warn!(record = path, "put back into the shared store as it is here");
        }
    }
    Ok(())
}

/// Every gateway that gave a sign of life.
pub(super) struct All {
    pub nodes: Vec<Node>,
    /// Names under which something stands that is not authentic.
    pub unknown: Vec<String>,
    /// The revision of the shared store.
    pub revision: u64,
}

/// Every gateway.
pub(super) async fn all(core: &Core) -> Result<All, StoreError> {
    let key = core.key("n/").to_vec();
    let mut range_end = key.clone();
    if let Some(last) = range_end.last_mut() {
        *last += 1;
    }
    let answer = core.client.range(RangeRequest { key, range_end, ..Default::default() }).await?;
    let revision = answer.header.map_or(0, |header| header.revision as u64);
    let mut all = All { nodes: Vec::new(), unknown: Vec::new(), revision };
    for one in &answer.kvs {
        let Some((path, name)) = core.path(&one.key).and_then(|path| Some((path, path.strip_prefix("n/")?))) else {
            continue;
        };
        let name = name.to_owned();
        match core.said(path, &one.value) {
            None => all.unknown.push(name),
            Some(said) => {
                let Keys { keks, header, sealed } = said.keys;
                let (applied, seen, version) = (said.applied, said.at, said.version);
                all.nodes.push(Node { name, applied, seen, version, keks, header, sealed });
            }
        }
    }
    Ok(all)
}

/// Gateways that are not at this revision when the patience is over. One that has been silent for longer than a copy may be used counts no more.
pub(super) async fn behind(core: &Core, revision: u64, patience: Duration) -> Result<Vec<Node>, StoreError> {
    let end = Instant::now() + patience;
    loop {
        let nodes = all(core).await?.nodes;
        let oldest = Timestamp::now().as_second() - i64::try_from(core.max_staleness.as_secs()).unwrap_or(i64::MAX);
        let behind: Vec<Node> =
            nodes.into_iter().filter(|node| node.applied < revision && node.seen.as_second() >= oldest).collect();
        if behind.is_empty() || Instant::now() >= end {
            return Ok(behind);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Removes a gateway's sign of life; says whether there was one.
pub(super) async fn forget(core: &Core, name: &str) -> Result<bool, StoreError> {
    let all = all(core).await?;
    if !all.nodes.iter().map(|node| &node.name).chain(&all.unknown).any(|known| known == name) {
        return Ok(false);
    }
    let key = core.key(&format!("n/{name}"));
    core.client.change(TxnRequest { success: vec![delete(key)], ..Default::default() }).await?;
    Ok(true)
}

//! Signs of life of gateways: who is there, how far each copy is, and the proof that our own watch is not behind.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::commit::{Names, at_revision, delete, end_of, get, put, revision_of, standing, sweep};
use super::keys::{self, Keys};
use super::wire::{KeyValue, RangeRequest, TxnRequest};
use super::{Core, Divergence, Failed, lock};
use crate::store::StoreError;
use crate::store::keyring::{Fingerprint, hex, parse_fingerprint, unhex};
use crate::store::record::{Kind, Record};

/// Signs of life that are waited for at most.
const WAITED: usize = 64;
/// While the watch does not stand, it is looked so often whether it does.
const UNCONNECTED: Duration = Duration::from_millis(100);
/// Ours is put back for so many keys at a time, and looked for under so many with one reading.
const HEALED: usize = 50;
const LOOKED_FOR: usize = 500;

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
            state.mark = state.mark.max(revision);
        });
    }

    /// Our sign of life was not taken, since the last one is not where it stood: where what is there is no later one of this name,
    /// the cluster was put back.
    fn displaced(&self, there: Option<&KeyValue>) {
        let path = self.node_path();
        let said = there.and_then(|kv| Some((self.said(&path, &kv.value)?, kv.mod_revision as u64)));
        self.state.send_modify(|state| {
            // One that was taken and not answered, or another gateway's, which is told when it comes through the watch.
            let later = |said: &Said| {
                if said.boot == self.boot { said.counter > state.back.0 } else { said.at > self.started }
            };
            match &said {
                Some((said, at)) if *at > state.mark && later(said) => state.mark = *at,
                _ => state.read_again = true,
            }
        });
    }
}

/// Gives signs of life until the store is closed; puts back what the shared store lost.
pub(super) async fn live(core: std::sync::Arc<Core>) {
    let interval = (core.max_staleness / 5).clamp(Duration::from_millis(200), Duration::from_secs(1));
    let (mut counter, mut swept, mut healed) = (0, Instant::now(), Instant::now());
    let mut resealing: Option<tokio::task::JoinHandle<()>> = None;
    let mut names = Names::default();
    while core.inner.strong_count() > 0 {
        // None before what it would prove was looked at, and none over another than the last: it must not hide that the cluster was
        // put back.
        let (looked_at, mark) = {
            let state = core.state.borrow();
            (state.connected && !state.read_again, state.mark)
        };
        if !looked_at {
            sleep(interval.min(UNCONNECTED)).await;
            continue;
        }
        let Some(octets) = sign_of_life(&core, counter + 1) else { return };
        counter += 1;
        let (sent, key) = (Instant::now(), core.key(&core.node_path()));
        {
            let mut waited = lock(&core.sent);
            if waited.len() >= WAITED {
                waited.remove(0);
            }
            waited.push((counter, sent));
        }
        let request = TxnRequest {
            compare: vec![at_revision(key.clone(), mark)],
            success: vec![put(key.clone(), octets.into())],
            failure: vec![get(&key)],
        };
        match core.client.change_once(request).await {
            Ok(answer) if answer.succeeded => core.state.send_modify(|state| {
                state.mark = revision_of(&answer);
                state.beat = Some((counter, state.mark, sent));
            }),
            Ok(answer) => core.displaced(standing(&answer)),
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
            drop(sweep(&core, &mut names).await);
        }
        sleep(interval.saturating_sub(sent.elapsed())).await;
    }
}

pub(super) fn sign_of_life(core: &Core, counter: u64) -> Option<Vec<u8>> {
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
        let (mut writes, divergent) = (Vec::new(), inner.divergent()?);
        let lost: Vec<String> = divergent.into_iter().filter(|(_, why)| lost(*why)).map(|(path, _)| path).collect();
        for some in lost.chunks(LOOKED_FOR) {
            // What was never here, or is damaged here, keeps nothing else from being put back.
            match inner.copies(some, false) {
                Ok(plan) => writes.extend(one_by_one(plan)),
                Err(_) => some.iter().for_each(|path| {
                    writes.extend(inner.copies(std::slice::from_ref(path), false).into_iter().flat_map(one_by_one));
                }),
            }
            if writes.len() >= HEALED {
                writes.truncate(HEALED);
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

/// A change for each record of a plan: what somebody else changed meanwhile keeps no other from being put back.
fn one_by_one(plan: super::Plan) -> impl Iterator<Item = super::Plan> {
    let header = plan.header;
    plan.writes.into_iter().map(move |one| super::Plan { header, writes: vec![one], ..super::Plan::default() })
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
    let range_end = end_of(&key);
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

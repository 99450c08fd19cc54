//! The watch: what is changed in the shared store comes into this node's copy in order. After compaction, and where the cluster is not what it was,
//! everything is read again at one revision.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::inbox::{BATCH, BATCH_OCTETS, Inbox, octets_of};
use super::pages::Pages;
use super::wire::{
    Event, EventType, RangeRequest, RangeResponse, ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use super::{Core, Failed, Progress, Role, keys};
use crate::store::embedded::{Arrived, PathHashes, TakenIn};

/// Octets that wait between the watch and what takes them in, in KiB.
const WAITING: u32 = 65_536;
/// How far this copy is, is written down at least so often.
const WRITTEN_DOWN: Duration = Duration::from_secs(2);
/// A watch that has not brought what etcd took so long ago is left.
const BEHIND: Duration = Duration::from_secs(2);
/// Everything is read at most so often.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// After a failure.
const PAUSE: Duration = Duration::from_millis(200);
/// Vanished keys noted with one commit.
const VANISHED: usize = 10_000;

/// Follows until the store is closed.
pub(super) async fn forever(core: Arc<Core>) {
    let mut read_all = None;
    while core.inner.strong_count() > 0 {
        let Err(failed) = follow(&core, &mut read_all).await else { return };
        let mut told = false;
        core.state.send_modify(|state| {
            told = state.connected || state.trouble.is_none();
            state.connected = false;
            state.trouble = Some(failed.0.clone());
        });
        if told && core.role == Role::Gateway {
            tracing::warn!(why = failed.0, "the shared store cannot be followed; this node goes on with its copy");
        } else {
            tracing::debug!(why = failed.0, "the shared store cannot be followed");
        }
        core.client.next();
        sleep(PAUSE).await;
    }
}

/// Whether what this copy rests upon still stands.
enum Ground {
    /// Everything after this revision is to be looked at.
    Firm(u64),
    /// Everything is to be read.
    Lost(&'static str),
}

/// One watch, from its check to its end.
async fn follow(core: &Arc<Core>, read_all: &mut Option<Instant>) -> Result<(), Failed> {
    let from = match ground(core).await? {
        Ground::Firm(revision) => revision,
        Ground::Lost(why) => {
            if let Some(wait) = read_all.and_then(|at| READ_AGAIN.checked_sub(at.elapsed())) {
                sleep(wait).await;
            }
            *read_all = Some(Instant::now());
            tracing::info!(why, "reading all of the shared store");
            everything(core).await?
        }
    };
    // What the watch before did not bring says nothing of this one.
    core.state.send_modify(|state| state.beat = None);
    let (ask, asked) = mpsc::channel(4);
    let create = WatchCreateRequest {
        key: core.prefix.clone().into_bytes(),
        range_end: core.range_end(),
        start_revision: from as i64 + 1,
        fragment: true,
    };
    let request = WatchRequest { create: Some(create), progress: None };
    ask.send(request).await.map_err(|error| error.to_string())?;
    let mut stream = core.client.watch(asked).await?;
    let (tell, mut told) = mpsc::channel(256);
    // Its own task, so that what came can be taken in together.
    let room = Arc::new(Semaphore::new(WAITING as usize));
    let reading = tokio::spawn(async move {
        loop {
            let answer = stream.message().await;
            let octets = answer.as_ref().ok().and_then(Option::as_ref).map_or(0, octets_of);
            let ends = !matches!(answer, Ok(Some(_)));
            let wanted = u32::try_from(octets >> 10).unwrap_or(WAITING).clamp(1, WAITING);
            let Ok(place) = room.clone().acquire_many_owned(wanted).await else { return };
            if tell.send((answer, place)).await.is_err() || ends {
                return;
            }
        }
    });
    let ended = watch(core, &mut told).await;
    reading.abort();
    drop(ask);
    ended
}

/// What the watch brought, with its place among what waits.
type Answers = mpsc::Receiver<(Result<Option<WatchResponse>, tonic::Status>, OwnedSemaphorePermit)>;

async fn watch(core: &Arc<Core>, told: &mut Answers) -> Result<(), Failed> {
    let mut inbox = Inbox::default();
    let mut written_down = Instant::now();
    loop {
        let first = match timeout(Duration::from_millis(500), told.recv()).await {
            Ok(Some(answer)) => Some(answer),
            Ok(None) => return Err(Failed("the watch ended".to_owned())),
            Err(_) => None,
        };
        let mut next = first;
        while let Some((answer, _place)) = next {
            let answer = answer.map_err(|status| status.message().to_owned())?;
            let answer = answer.ok_or_else(|| "the watch ended".to_owned())?;
            if answer.canceled {
                // From now on there is nothing that could be watched from where this copy is.
                if answer.compact_revision > 0 {
                    core.state.send_modify(|state| state.complete_again(false));
                }
                return Err(Failed(format!("the watch was cancelled: {}", answer.cancel_reason)));
            }
            if answer.created {
                core.state.send_modify(|state| (state.connected, state.trouble) = (true, None));
            }
            inbox.add(answer);
            next = if inbox.is_full() { None } else { told.try_recv().ok() };
        }
        let events = inbox.take();
        if !events.is_empty() {
            take_in(core, events, &mut written_down).await?;
        }
        let (behind, displaced) = {
            let state = core.state.borrow();
            let late = |(counter, _, sent): (u64, u64, Instant)| counter > state.back.0 && sent.elapsed() > BEHIND;
            (state.beat.is_some_and(late), state.read_again)
        };
        if displaced {
            return Err(Failed(
                "this node's last sign of life is not where it stood: the cluster was put back".to_owned(),
            ));
        }
        if behind {
            return Err(Failed("the watch is behind what etcd took".to_owned()));
        }
        if core.inner.strong_count() == 0 {
            return Ok(());
        }
    }
}

/// Takes in what the watch brought: changes and progress in one commit, then signs of life.
async fn take_in(core: &Arc<Core>, events: Vec<Event>, written_down: &mut Instant) -> Result<(), Failed> {
    let mut arrived = Vec::new();
    let mut said = Vec::new();
    let mut revision = 0;
    for event in events {
        let gone = event.r#type == i32::from(EventType::Delete);
        let Some(kv) = event.kv else { continue };
        revision = revision.max(kv.mod_revision as u64);
        let Some(path) = core.path(&kv.key) else { continue };
        if path == core.node_path() && !gone {
            // One that is not ours proves nothing.
            said.extend(core.said(path, &kv.value).map(|said| (said, kv.mod_revision as u64)));
        } else if path == keys::HEADER {
            // What came before it is under the keys before it.
            let before = std::mem::take(&mut arrived);
            if !before.is_empty() {
                of_this_cluster(core, &commit(core, before, None, false).await?)?;
            }
            keys::look(core, kv.mod_revision as u64, (!gone).then_some(&kv)).await?;
        } else if is_record(path) {
            arrived.push(Arrived {
                path: path.to_owned(),
                revision: kv.mod_revision as u64,
                octets: (!gone).then_some(kv.value),
            });
        }
    }
    if !arrived.is_empty() || written_down.elapsed() > WRITTEN_DOWN {
        *written_down = Instant::now();
        of_this_cluster(core, &commit(core, arrived, Some(core.progress(revision)), false).await?)?;
    }
    core.state.send_modify(|state| state.applied = state.applied.max(revision));
    // Proof of what is in use: what could not be taken in is not.
    for (said, at) in &said {
        core.came_back(said, *at);
    }
    Ok(())
}

fn of_this_cluster(core: &Core, taken: &TakenIn) -> Result<(), Failed> {
    if !taken.rewritten {
        return Ok(());
    }
    core.state.send_modify(|state| state.complete_again(false));
    Err(Failed("a revision that was seen has another content now: the cluster was put back".to_owned()))
}

pub(super) fn is_record(path: &str) -> bool {
    ["o/", "a/", "t/"].iter().any(|head| path.starts_with(head))
}

/// The header as it is now, and the revision of all; whether everything is to be read again. Where the header alone is gone, it was deleted; where
/// nothing of ours is there, this is not the place.
async fn header(core: &Core) -> Result<(ResponseHeader, bool), Failed> {
    let answer = core.get(keys::HEADER).await?;
    let now = answer.header.unwrap_or_default();
    let there = answer.kvs.first();
    let complete = { core.state.borrow().complete };
    if there.is_none() && !(complete && something_is_there(core).await?) {
        return Err(Failed(format!(
            "there is no store under {}; make one with `waxwing store init`, or bring one with `waxwing store migrate --to-etcd`",
            core.prefix
        )));
    }
    // Other than by the watch, in order: what is there now counts, whatever was looked at in the cluster that was.
    core.state.send_modify(|state| state.header.looked = 0);
    let again = keys::look(core, now.revision as u64, there).await?;
    Ok((now, again))
}

async fn something_is_there(core: &Core) -> Result<bool, Failed> {
    for path in [core.node_path(), "o/".to_owned(), "t/".to_owned(), "a/".to_owned()] {
        let key = core.key(&path).to_vec();
        let mut range_end = key.clone();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        if !core.client.range(RangeRequest { key, range_end, limit: 1, ..Default::default() }).await?.kvs.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn commit(
    core: &Core,
    arrived: Vec<Arrived>,
    progress: Option<Progress>,
    whole: bool,
) -> Result<TakenIn, Failed> {
    let inner = core.inner.upgrade().ok_or_else(|| "the store is closed".to_owned())?;
    let taken = tokio::task::spawn_blocking(move || inner.take_in(&arrived, progress.as_ref(), whole));
    Ok(taken.await.map_err(|error| error.to_string())??)
}

impl super::State {
    fn complete_again(&mut self, complete: bool) {
        self.read_again = !complete;
    }
}

impl Core {
    fn progress(&self, revision: u64) -> Progress {
        let state = self.state.borrow();
        Progress {
            revision: revision.max(state.applied),
            cluster: state.cluster,
            fresh: state.fresh_at,
            boot: self.boot,
            counter: state.back.0,
            beat: state.back.1,
            complete: true,
        }
    }

    async fn get(&self, path: &str) -> Result<RangeResponse, Failed> {
        Ok(self.client.range(RangeRequest { key: self.key(path).to_vec(), ..Default::default() }).await?)
    }
}

/// Checks that the shared store still is the one that this copy is of: its header, its cluster, our last sign of life.
async fn ground(core: &Arc<Core>) -> Result<Ground, Failed> {
    let (now, again) = header(core).await?;
    let inner = core.inner.upgrade().ok_or_else(|| "the store is closed".to_owned())?;
    let kept = inner.progress()?;
    inner.look_for_later()?;
    let state = core.state.borrow().clone();
    if !kept.complete || !state.complete {
        return Ok(Ground::Lost("this node never did"));
    }
    if again {
        return Ok(Ground::Lost("its store keys were renewed meanwhile"));
    }
    if state.read_again {
        return Ok(Ground::Lost("the watch cannot go on where it was"));
    }
    if now.cluster_id != kept.cluster {
        return Ok(Ground::Lost("it is another cluster"));
    }
    if (now.revision as u64) < kept.revision.max(state.applied) {
        return Ok(Ground::Lost("its revision went back"));
    }
    if core.role == Role::Command && kept.counter == 0 {
        return Ok(Ground::Firm(kept.revision));
    }
    let answer = core.get(&core.node_path()).await?;
    let said =
        answer.kvs.first().and_then(|kv| Some((core.said(&core.node_path(), &kv.value)?, kv.mod_revision as u64)));
    core.state.send_modify(|state| state.mark = answer.kvs.first().map_or(0, |kv| kv.mod_revision as u64));
    let Some((said, at)) = said else {
        return Ok(if kept.counter == 0 && state.back.0 == 0 {
            Ground::Firm(kept.revision)
        } else {
            Ground::Lost("this node's last sign of life is gone")
        });
    };
    let (back, beat) = if state.back.0 > 0 { state.back } else { (kept.counter, kept.beat) };
    let boot = if state.back.0 > 0 { core.boot } else { kept.boot };
    if back > 0 && (said.boot != boot && at <= beat || said.boot == boot && (said.counter < back || at < beat)) {
        return Ok(Ground::Lost("this node's last sign of life was put back"));
    }
    // From there on everything is looked at again: what came behind our last sign of life may not have lasted.
    Ok(Ground::Firm(if beat > 0 { kept.revision.min(beat) } else { kept.revision }))
}

/// Reads everything at one revision; gives it.
async fn everything(core: &Arc<Core>) -> Result<u64, Failed> {
    // What is read is under the keys of this header.
    let (now, _) = header(core).await?;
    let (revision, began) = (now.revision as u64, Instant::now());
    let mut there = PathHashes::default();
    let (mut batch, mut octets, mut accepted, mut mark) = (Vec::new(), 0, 0, 0);
    let mut pages = Pages::at(core, revision);
    while let Some(page) = pages.next().await? {
        for kv in page {
            let Some(path) = core.path(&kv.key) else { continue };
            if path == core.node_path() {
                mark = kv.mod_revision as u64;
            }
            if !is_record(path) {
                continue;
            }
            there.add(path);
            octets += kv.value.len();
            let path = path.to_owned();
            batch.push(Arrived { path, revision: kv.mod_revision as u64, octets: Some(kv.value) });
        }
        if batch.len() >= BATCH || octets >= BATCH_OCTETS {
            octets = 0;
            accepted += commit(core, std::mem::take(&mut batch), None, true).await?.accepted;
        }
    }
    accepted += commit(core, batch, None, true).await?.accepted;
    loop {
        let inner = core.inner.upgrade().ok_or_else(|| "the store is closed".to_owned())?;
        let gone = inner.vanished(&there.hashes, &there.hasher, VANISHED)?;
        if gone.is_empty() {
            break;
        }
        tracing::error!(
            records = gone.len(),
            "records are gone from the shared store without tombstones; they stay here"
        );
        commit(core, gone, None, true).await?;
    }
    let fresh_at =
        if core.role == Role::Gateway { core.state.borrow().fresh_at } else { Timestamp::now().as_millisecond() };
    core.state.send_modify(|state| {
        state.cluster = now.cluster_id;
        state.applied = revision;
        state.fresh_at = fresh_at;
        state.back = (0, 0);
        state.mark = mark;
        state.read_again = false;
    });
    let progress =
        Progress { revision, cluster: now.cluster_id, fresh: fresh_at, complete: true, ..Progress::default() };
    commit(core, Vec::new(), Some(progress), true).await?;
    core.state.send_modify(|state| state.complete = true);
    tracing::info!(
        revision,
        records = there.hashes.len(),
        accepted,
        seconds = began.elapsed().as_secs_f32(),
        "all of the shared store is here"
    );
    Ok(revision)
}
#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::config::Etcd;
    use crate::store::embedded::{EmbeddedStore, Inner};
    use crate::store::etcd::wire::KeyValue;
    use crate::store::etcd::{Client, SharedValue, State, node};
    use crate::store::keyring::Kek;
    use crate::store::record::{Encoded, Kind, Record};

    /// A gateway's, where nothing of etcd is asked.
    fn core(inner: &Arc<Inner>) -> Arc<Core> {
        let config = Etcd {
            endpoints: vec!["http://127.0.0.1:9".into()],
            prefix: "w".into(),
            node: "a".into(),
            user: None,
            ca: None,
            identity: None,
            max_staleness: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
        };
        Arc::new(Core {
            client: Client::new(&config).unwrap(),
            inner: Arc::downgrade(inner),
            prefix: "w/".into(),
            node: config.node,
            role: Role::Gateway,
            max_staleness: config.max_staleness,
            boot: [7; 16],
            state: tokio::sync::watch::Sender::new(State { complete: true, ..State::default() }),
            sent: Mutex::default(),
            started: Timestamp::now(),
        })
    }

    fn event(core: &Core, path: &str, revision: i64, value: Vec<u8>) -> Event {
        let kv = KeyValue { key: core.key(path), mod_revision: revision, value: value.into(), ..KeyValue::default() };
        Event { kv: Some(kv), ..Event::default() }
    }

    #[tokio::test]
    async fn a_copy_is_fresh_by_what_is_on_disk_and_not_by_what_only_came() {
        let folder = tempfile::tempdir().unwrap();
        let kek = folder.path().join("kek");
        Kek::create(&kek).unwrap();
        let store = EmbeddedStore::create(&folder.path().join("store"), &kek).unwrap();
        let (inner, disk_full) = store.copy();
        let core = core(inner);
        let alias = SharedValue::Alias("anna@ours.example".into()).encode();
        let path = "a/info@ours.example";
        let record = Record::seal(&inner.ring(), path, Kind::Shared, 1, &alias).0;
        let brought = || {
            let sign = node::sign_of_life(&core, 1).unwrap();
            vec![event(&core, path, 5, record.clone()), event(&core, &core.node_path(), 6, sign)]
        };
        let sent = Instant::now();
        super::super::lock(&core.sent).push((1, sent));
        disk_full.store(true, Ordering::Release);
        let mut written_down = Instant::now();
        assert!(take_in(&core, brought(), &mut written_down).await.is_err());
        let state = core.state.borrow().clone();
        assert_eq!((state.fresh, state.fresh_at, state.applied, state.back), (None, 0, 0, (0, 0)));
        disk_full.store(false, Ordering::Release);
        take_in(&core, brought(), &mut written_down).await.unwrap();
        let state = core.state.borrow().clone();
        assert_eq!((state.fresh, state.applied, state.back), (Some(sent), 6, (1, 6)));
        assert_eq!(inner.progress().unwrap().revision, 6);
    }
}

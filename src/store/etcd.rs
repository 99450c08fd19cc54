//! A store that several gateways share: etcd is the truth, the embedded store each node's copy of it.
//!
//! **Keys.** Under the installation's prefix: `h` the header with the wrapped store key; `o/OWNER`, `a/ALIAS` and `t/FINGERPRINT` one record each
//! (`value`), authenticated and with a version that grows; `n/NODE` a gateway's sign of life; `op/ID` which changes were made.
//!
//! **Changes.** A change is planned on the copy and made by one transaction that compares the revision of every key it looked at or writes, and
//! that writes `op/ID` too: asked again after a silence it is not made twice, and where nobody answered in time `op/ID` is claimed, after
//! which it is known whether it was made. A change returns when this node has it.
//!
//! **Following.** One watch, leader required, from the last revision seen. Every gateway writes a sign of life with a counter about once a second; that it came
//! back through the watch proves that all that was changed before is here: that is what *fresh* means. Where its own last sign
//! of life, or the last record seen, is not as it was, the cluster was put back to an older state: everything is read again, and what is
//! newer here stays. After compaction everything is read again too.
//!
//! **Distrust.** A record that is not authentic, older than one seen, or gone without a tombstone is not taken: the copy stays, an alert is raised, and a
//! gateway puts its own back. Two different records with one number are left to a person (`waxwing store repair`), and one written
//! by a later version of Waxwing is neither used nor overwritten.

mod client;
/// Whether a change was made.
mod commit;
/// The watch, and reading everything.
mod follow;
/// What the watch brought.
mod inbox;
/// The header with the store keys, and everything under them.
mod keys;
/// Signs of life of gateways.
mod node;
/// Every key, page by page.
mod pages;
mod value;
mod wire;

pub use node::Node;
pub(in crate::store) use value::SharedValue;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::StoreError;
use super::embedded::Inner;
use super::state::SharedState;
use super::tree::Change;
use crate::config::Etcd;
use client::{Client, EtcdError};

/// What is wrong with what the shared store holds under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Divergence {
    /// It was deleted, and no tombstone stands in its place.
    Vanished = 1,
    /// An older version was put back.
    Older = 2,
    /// It is not authentic.
    NotAuthentic = 3,
    /// Another record with the same version.
    Fork = 4,
    /// Authentic, and written by a later version of Waxwing.
    NotUnderstood = 5,
    /// The header: no key-encryption key here opens it.
    Foreign = 6,
}

impl Divergence {
    pub(in crate::store) fn from_code(code: u8) -> Option<Self> {
        [Self::Vanished, Self::Older, Self::NotAuthentic, Self::Fork, Self::NotUnderstood, Self::Foreign]
            .into_iter()
            .find(|one| *one as u8 == code)
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Vanished => "deleted without a tombstone",
            Self::Older => "put back to an older version",
            Self::NotAuthentic => "not authentic",
            Self::Fork => "another record of the same version",
            Self::NotUnderstood => "written by a later version of Waxwing",
            Self::Foreign => "not opened by any key-encryption key of this node",
        }
    }
}

/// A record to be written where the key still has this revision (0: where it is not there).
#[derive(Debug, Clone)]
pub(in crate::store) struct Guarded {
    pub path: String,
    pub revision: u64,
    pub octets: Bytes,
}

/// A change as it is to be made in the shared store.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Plan {
    /// The revision of the header by whose keys it was sealed: it is made under that one alone.
    pub header: u64,
    /// Keys that were looked at, with their revisions.
    pub reads: Vec<(String, u64)>,
    /// What keys begin with that were looked at all, with the revision that they were looked at.
    pub scans: Vec<(&'static str, u64)>,
    pub writes: Vec<Guarded>,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct Progress {
    /// Everything up to this revision is here.
    pub revision: u64,
    pub cluster: u64,
    /// When it last was proven fresh, milliseconds since 1970.
    pub fresh: i64,
    /// The last sign of life that came back: the run it is of, its number, and its revision.
    pub boot: [u8; 16],
    pub counter: u64,
    pub beat: u64,
    /// All of the shared store was read once.
    pub complete: bool,
}

impl Progress {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(57);
        for number in [self.revision, self.cluster, self.fresh as u64, self.counter, self.beat] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.boot);
        out.push(u8::from(self.complete));
        out
    }

    pub fn decode(octets: &[u8]) -> Option<Self> {
        let (numbers, rest) = octets.split_first_chunk::<40>()?;
        let (boot, rest) = rest.split_first_chunk::<16>()?;
        let mut numbers = numbers.as_chunks::<8>().0.iter().map(|one| u64::from_be_bytes(*one));
        let [complete] = rest else { return None };
        Some(Self {
            revision: numbers.next()?,
            cluster: numbers.next()?,
            fresh: numbers.next()? as i64,
            counter: numbers.next()?,
            beat: numbers.next()?,
            boot: *boot,
            complete: *complete == 1,
        })
    }
}

/// What opens the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A gateway: gives signs of life, answers from a copy that is not too old, puts back what was lost.
    Gateway,
    /// A command: follows for as long as it runs.
    Command,
}

/// How long the start of a gateway that has a copy waits for etcd.
const START: Duration = Duration::from_secs(2);

/// What this process knows of the shared store.
#[derive(Debug, Clone, Default)]
struct State {
    /// Everything up to this revision is here, and in memory too.
    applied: u64,
    /// When this copy was last proven fresh.
    fresh: Option<Instant>,
    /// The same by the wall clock, milliseconds; from before this process too.
    fresh_at: i64,
    cluster: u64,
    header: keys::There,
    /// The last sign of life that etcd took: number, revision, when it was sent.
    beat: Option<(u64, u64, Instant)>,
    /// The last that came back through the watch: number, revision.
    back: (u64, u64),
    /// The revision at which our sign of life stands, as far as is known.
    mark: u64,
    complete: bool,
    /// Everything is to be read again.
    read_again: bool,
    /// The watch stands.
    connected: bool,
    /// Why it does not.
    trouble: Option<String>,
}

/// What `store status` shows.
#[derive(Debug, Clone)]
pub struct Status {
    pub endpoint: String,
    pub prefix: String,
    /// Everything up to this revision is in this copy.
    pub revision: u64,
    /// The revision of the shared store; `None`: it does not answer.
    pub newest: Option<u64>,
    /// When this copy was last proven fresh.
    pub fresh: Option<Timestamp>,
    /// The same as it is written down: what a start goes by while etcd is away.
    pub fresh_kept: Option<Timestamp>,
    pub complete: bool,
    pub trouble: Option<String>,
    pub nodes: Vec<Node>,
    /// Keys of which the shared store holds something else, and what is wrong.
    pub divergent: Vec<(String, Divergence)>,
    /// The server's version and the size of its database, octets.
    pub server: Option<(String, i64)>,
}

/// The shared store as this process knows it.
pub struct Shared {
    core: Arc<Core>,
    runtime: Option<Runtime>,
    /// Revision of the last change that this process made.
    written: AtomicU64,
}

/// What the tasks share.
struct Core {
    client: Client,
    inner: Weak<Inner>,
    prefix: String,
    node: String,
    role: Role,
    max_staleness: Duration,
    boot: [u8; 16],
    state: watch::Sender<State>,
    sent: Mutex<Vec<(u64, Instant)>>,
    started: Timestamp,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> Result<Runtime, StoreError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("store-etcd")
        .enable_all()
        .build()
        .map_err(|error| StoreError::Io(format!("no runtime for etcd: {error}")))
}

/// Runs it there and waits here, whatever this thread is.
fn wait_for<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, StoreError> {
    let (tell, told) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        // Who asked may be gone.
        let _ = tell.send(work.await);
    });
    told.recv().map_err(|_| StoreError::Unavailable("the work on etcd was given up".to_owned()))
}

/// The header under this prefix, where there is one.
pub(in crate::store) fn read_header(config: &Etcd) -> Result<Option<Vec<u8>>, StoreError> {
    let client = Client::new(config)?;
    let key = format!("{}/h", config.prefix);
    let runtime = runtime()?;
    let answer = wait_for(&runtime, async move {
        client.range(wire::RangeRequest { key: key.into_bytes(), ..Default::default() }).await
    });
    runtime.shutdown_background();
    Ok(answer??.kvs.into_iter().next().map(|one| one.value.to_vec()))
}

/// Puts a header where there is none; says whether there was none.
pub(in crate::store) fn put_header(config: &Etcd, header: Vec<u8>) -> Result<bool, StoreError> {
    let client = Client::new(config)?;
    let key = Bytes::from(format!("{}/h", config.prefix));
    let runtime = runtime()?;
    let answer = wait_for(&runtime, async move { commit::put_new(&client, key, header.into()).await });
    runtime.shutdown_background();
    Ok(answer??)
}

impl Shared {
    /// Begins to follow. A gateway whose copy is complete does not wait for etcd; any other waits until everything is here, and a command does not
    /// go on without etcd where it has no copy.
    pub(in crate::store) fn start(inner: &Arc<Inner>, config: &Etcd, role: Role) -> Result<Self, StoreError> {
        let progress = inner.progress()?;
        let mut boot = [0; 16];
        aws_lc_rs::rand::fill(&mut boot).map_err(|_| StoreError::Io("the system gives no randomness".to_owned()))?;
        let state = State {
            applied: progress.revision,
            fresh_at: progress.fresh,
            cluster: progress.cluster,
            complete: progress.complete,
            ..State::default()
        };
        let core = Arc::new(Core {
            client: Client::new(config)?,
            inner: Arc::downgrade(inner),
            prefix: format!("{}/", config.prefix),
            node: config.node.clone(),
            role,
            max_staleness: config.max_staleness,
            boot,
            state: watch::Sender::new(state),
            sent: Mutex::default(),
            started: Timestamp::now(),
        });
        let runtime = runtime()?;
        runtime.spawn(follow::forever(core.clone()));
        if role == Role::Gateway {
            runtime.spawn(node::live(core.clone()));
        }
        let shared = Self { core, runtime: Some(runtime), written: AtomicU64::new(0) };
        // A gateway that has a copy does not stand still for long.
        let limit = if role == Role::Gateway && progress.complete { START } else { Duration::MAX };
        match shared.catch_up_within(limit) {
            Err(StoreError::Unavailable(why)) if progress.complete => {
                tracing::warn!(why, "etcd does not answer: this node goes on with its copy of the store");
                Ok(shared)
            }
            Err(error) => Err(error),
            Ok(_) => Ok(shared),
        }
    }

    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, StoreError> {
        let runtime =
            self.runtime.as_ref().ok_or_else(|| StoreError::Unavailable("the store is closing".to_owned()))?;
        wait_for(runtime, work)
    }

    /// Waits until everything is here that was in the shared store when this was called; gives its revision.
    pub fn catch_up(&self) -> Result<u64, StoreError> {
        self.catch_up_within(Duration::MAX)
    }

    fn catch_up_within(&self, limit: Duration) -> Result<u64, StoreError> {
        let core = self.core.clone();
        let work = async move {
            let (sent, sent_at) = (Instant::now(), Timestamp::now().as_millisecond());
            let revision = commit::mark(&core).await?;
            let limit = if core.state.borrow().complete { core.client.timeout } else { Duration::from_secs(600) };
            let mut state = core.state.subscribe();
            // Only by a watch whose ground was looked at: another cluster's revisions say nothing.
            let waiting = state.wait_for(|s| s.connected && s.complete && !s.read_again && s.applied >= revision);
            match tokio::time::timeout(limit, waiting).await {
                Ok(Ok(_)) => {}
                _ => return Err(core.not_in_time(revision, limit)),
            }
            // It came back as a sign of life does.
            core.state.send_modify(|state| {
                state.fresh = state.fresh.max(Some(sent));
                state.fresh_at = state.fresh_at.max(sent_at);
            });
            Ok(revision)
        };
        self.run(async move {
            let late = || StoreError::Unavailable("etcd does not answer in time".to_owned());
            tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
        })?
    }

    /// Why etcd cannot be followed now; `None` where it is.
    pub fn trouble(&self) -> Option<String> {
        let state = self.core.state.borrow();
        state.trouble.clone().filter(|_| !state.connected)
    }

    /// Makes a change in the shared store, and waits until it is here.
    pub(in crate::store) fn write<R>(
        &self,
        inner: &Inner,
        body: &mut dyn FnMut(&mut Change<'_, '_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        for _ in 0..32 {
            let (result, plan) = inner.plan(body)?;
            if plan.writes.is_empty() {
                return Ok(result);
            }
            commit::fits(&plan)?;
            if self.make(plan)? {
                return Ok(result);
            }
        }
        Err(StoreError::Unavailable("others change the same records all the time; try again".to_owned()))
    }

    /// Makes a planned change; `false`: what it rests upon had changed, and by now is here.
    pub(in crate::store) fn make(&self, plan: Plan) -> Result<bool, StoreError> {
        let core = self.core.clone();
        let made = self.run(async move {
            let outcome = commit::commit(&core, &plan).await?;
            let (made, revision) = match outcome {
                commit::Outcome::Made(revision) => (Some(revision), revision),
                commit::Outcome::Conflict(revision) => (None, revision),
            };
            match core.wait_applied(revision, core.client.timeout).await {
                Err(error) if made.is_none() => Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the change is made, and not yet seen here");
                    Ok(made)
                }
                Ok(()) => Ok(made),
            }
        })??;
        if let Some(revision) = made {
            self.written.fetch_max(revision, Ordering::AcqRel);
        }
        Ok(made.is_some())
    }

    /// Why this node's copy may not be answered from.
    pub(in crate::store) fn too_old(&self) -> Option<StoreError> {
        if self.core.role == Role::Command {
            return None;
        }
        let state = self.core.state.borrow();
        if !state.complete {
            return Some(StoreError::Stale("this node has not read all of the shared store yet".to_owned()));
        }
        let age = state.age()?;
        (age > self.core.max_staleness).then(|| {
            let limit = self.core.max_staleness.as_secs();
            StoreError::Stale(format!(
                "this node's copy of the store was last known to be fresh {} s ago, max_staleness is {limit} s: etcd cannot be reached, or has no leader",
                age.as_secs()
            ))
        })
    }

    /// Gateways that have not taken in the last change of this process within `patience`; none where it changed nothing.
    pub fn not_acknowledged(&self, patience: Duration) -> Result<Vec<Node>, StoreError> {
        let revision = self.written.load(Ordering::Acquire);
        if revision == 0 {
            return Ok(Vec::new());
        }
        let core = self.core.clone();
        self.run(async move { node::behind(&core, revision, patience).await })?
    }

    /// How this copy stands to the shared store, as far as is known without asking.
    pub fn state(&self) -> SharedState {
        let state = self.core.state.borrow();
        let newest = state.beat.map_or(0, |(_, revision, _)| revision);
        SharedState {
            revision: state.applied,
            behind: newest.saturating_sub(state.applied),
            age: state.age().filter(|age| *age != Duration::MAX && (state.fresh.is_some() || state.fresh_at > 0)),
            connected: state.connected,
        }
    }

    /// Every gateway that ever gave a sign of life and was not forgotten.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let core = self.core.clone();
        self.run(async move { node::all(&core).await.map(|all| all.nodes) })?
    }

    /// How this copy stands to the shared store.
    pub fn status(&self) -> Result<Status, StoreError> {
        let core = self.core.clone();
        let inner = self.core.inner.upgrade().ok_or_else(|| StoreError::Io("is closed".to_owned()))?;
        // A gateway on this machine writes down how far it is.
        let progress = inner.progress()?;
        let divergent = inner.divergent()?;
        let (nodes, server) = self.run(async move { (node::all(&core).await, core.client.status().await) })?;
        let state = self.core.state.borrow().clone();
        let fresh = progress.fresh.max(state.fresh_at);
        let newest = nodes.as_ref().ok().map(|all| all.revision);
        let header = state.header.wrong.map(|wrong| (keys::HEADER.to_owned(), wrong));
        Ok(Status {
            endpoint: self.core.client.endpoint(),
            prefix: self.core.prefix.trim_end_matches('/').to_owned(),
            revision: progress.revision.max(state.applied),
            newest,
            fresh: Timestamp::from_millisecond(fresh).ok().filter(|_| fresh > 0),
            fresh_kept: Timestamp::from_millisecond(progress.fresh).ok().filter(|_| progress.fresh > 0),
            complete: state.complete,
            trouble: nodes.as_ref().err().map(ToString::to_string).or(state.trouble),
            nodes: nodes.map(|all| all.nodes).unwrap_or_default(),
            divergent: divergent.into_iter().chain(header).collect(),
            server: server.ok().map(|one| (one.version, one.db_size)),
        })
    }

    /// Puts what this copy holds under each of these keys into the shared store, as a newer version; gives the keys that changed meanwhile.
    pub fn put_back(&self, paths: &[String]) -> Result<BTreeSet<String>, StoreError> {
        let inner = self.core.inner.upgrade().ok_or_else(|| StoreError::Io("is closed".to_owned()))?;
        let mut missed = BTreeSet::new();
        for some in paths.chunks(commit::WRITES) {
            let Plan { header, writes: copies, .. } = inner.copies(some, true)?;
            let (mut writes, mut octets) = (Vec::new(), 0);
            for one in copies {
                octets += one.octets.len();
                if octets > commit::OCTETS && !writes.is_empty() {
                    octets = one.octets.len();
                    missed.extend(self.put_all(header, std::mem::take(&mut writes))?);
                }
                writes.push(one);
            }
            missed.extend(self.put_all(header, writes)?);
        }
        Ok(missed)
    }

    /// Writes these with one change, or one by one where some changed meanwhile; gives the keys of those.
    fn put_all(&self, header: u64, writes: Vec<Guarded>) -> Result<Vec<String>, StoreError> {
        let mut plan = Plan { header, writes, ..Plan::default() };
        if plan.writes.is_empty() || self.make(plan.clone())? {
            return Ok(Vec::new());
        }
        if let [one] = plan.writes.as_slice() {
            return Ok(vec![one.path.clone()]);
        }
        let mut missed = Vec::new();
        for one in plan.writes.drain(..) {
            missed.extend(self.put_all(header, vec![one])?);
        }
        Ok(missed)
    }

    /// How many records etcd holds, and a hash of all they say, read from there: the same as [`digest`] of a copy that is up to date.
    ///
    /// [`digest`]: crate::store::embedded::EmbeddedStore::digest
    ///
    /// # Errors
    /// etcd does not answer; a record there is not authentic, or of a later version.
    pub fn digest(&self) -> Result<(usize, [u8; 32]), StoreError> {
        let core = self.core.clone();
        self.run(async move { pages::digest(&core).await })?
    }

    /// Forgets a gateway that is gone for good.
    pub fn forget_node(&self, name: &str) -> Result<bool, StoreError> {
        let (core, name) = (self.core.clone(), name.to_owned());
        self.run(async move { node::forget(&core, &name).await })?
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl State {
    /// Time since this copy was proven fresh; `None` where that is now or never was asked for.
    fn age(&self) -> Option<Duration> {
        if let Some(fresh) = self.fresh {
            return Some(fresh.elapsed());
        }
        // Before the first proof of this run the wall clock counts; one that went back proves nothing.
        let past =
            Timestamp::now().as_millisecond().checked_sub(self.fresh_at).and_then(|past| u64::try_from(past).ok());
        Some(past.map_or(Duration::MAX, Duration::from_millis))
    }
}

impl Core {
    fn key(&self, path: &str) -> Bytes {
        Bytes::from(format!("{}{path}", self.prefix))
    }

    /// The end of the range of all keys of this installation.
    fn range_end(&self) -> Vec<u8> {
        commit::end_of(self.prefix.as_bytes())
    }

    fn path<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        std::str::from_utf8(key).ok()?.strip_prefix(self.prefix.as_str())
    }

    async fn wait_applied(&self, revision: u64, limit: Duration) -> Result<(), StoreError> {
        let mut state = self.state.subscribe();
        let waiting = state.wait_for(|state| state.complete && state.applied >= revision);
        match tokio::time::timeout(limit, waiting).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.not_in_time(revision, limit)),
        }
    }

    fn not_in_time(&self, revision: u64, limit: Duration) -> StoreError {
        let why = self.state.borrow().trouble.clone().unwrap_or_else(|| "nothing is wrong that is known".to_owned());
        StoreError::Unavailable(format!(
            "etcd cannot be followed: revision {revision} of the shared store did not come in within {} s: {why}",
            limit.as_secs_f32()
        ))
    }
}

#[doc(hidden)]
pub fn fuzz_shared_value(data: &[u8]) {
    use super::record::Encoded;
    if let Some(value) = SharedValue::decode(data) {
        assert_eq!(value.encode(), data);
    }
    if let Some(progress) = Progress::decode(data) {
        assert_eq!(Progress::decode(&progress.encode()), Some(progress));
    }
    drop(node::Said::decode(data));
}

/// Marks a failed answer of etcd as what it is for the store.
impl From<EtcdError> for Failed {
    fn from(error: EtcdError) -> Self {
        Self(error.to_string())
    }
}

/// Why the watch ended.
#[derive(Debug)]
struct Failed(String);

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::Encoded;
    use proptest::prelude::*;

    #[test]
    fn what_the_shared_store_holds_has_one_form_and_fits_its_place() {
        let owner = SharedValue::Owner { disabled: true, certificates: Vec::new(), keys: vec![([7; 32], vec![1, 2])] };
        let alias = SharedValue::Alias("anna@ours.example".into());
        for (value, place) in [(&owner, "o/anna@ours.example"), (&alias, "a/info@ours.example")] {
            let octets = value.encode();
            assert_eq!(SharedValue::decode(&octets).as_ref(), Some(value));
            assert!(value.fits(place) && !value.fits("t/00"));
            for end in 0..octets.len() {
                assert_eq!(SharedValue::decode(&octets[..end]), None);
            }
        }
    }

    #[test]
    fn a_copy_that_the_clock_says_is_from_the_future_is_not_fresh() {
        let now = Timestamp::now().as_millisecond();
        let age = |fresh_at| State { fresh_at, ..State::default() }.age();
        assert_eq!(age(now + 3_600_000), Some(Duration::MAX), "T16: a clock that went back proves nothing");
        assert!(age(now - 5_000).is_some_and(|age| (5..60).contains(&age.as_secs())));
        let proven = State { fresh: Some(Instant::now()), fresh_at: 0, ..State::default() };
        assert!(
            proven.age().is_some_and(|age| age < Duration::from_secs(60)),
            "proven in this run: the wall clock does not count"
        );
    }

    proptest! {
        #[test]
        fn noise_is_no_record(noise in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..6) {
            fuzz_shared_value(&noise);
            fuzz_shared_value(&[&[kind], noise.as_slice()].concat());
        }
    }
}

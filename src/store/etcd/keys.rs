//! The header of the shared store, whose keys every record is under: changed by compare-and-swap, put back where it was lost, and followed by
//! every record, written anew one by one.

use std::time::{Duration, Instant};

use super::commit::{WRITES, at_revision, put};
use super::wire::{KeyValue, RangeRequest, TxnRequest};
use super::{Core, Divergence, Failed, Guarded, Node, Plan, Shared, node};
use crate::store::StoreError;
use crate::store::embedded::{Inner, Resealing, Standing, Taken};
use crate::store::keyring::header::Header;
use crate::store::keyring::{Fingerprint, hex};

/// The header's key.
pub(super) const HEADER: &str = "h";
/// Records looked at with one request, and octets written anew with one change at most.
const PAGE: i64 = 500;
const OCTETS: usize = 1_000_000;
/// Between two looks at what gateways say.
const LOOK: Duration = Duration::from_millis(200);

/// The header of the shared store as it was looked at last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct There {
    /// The revision of the shared store at which it was looked at; 0: it never was.
    pub looked: u64,
    /// The header's own revision in etcd; 0: it is not there.
    pub at: u64,
    /// Which of our headers it is; counts where nothing is wrong.
    pub generation: u64,
    pub wrong: Option<Divergence>,
}

/// What came of going through the shared store once.
#[derive(Debug, Default)]
pub(in crate::store) struct Pass {
    pub written: u64,
    /// Records that are still under an older key, and why.
    pub stayed: Vec<(String, String)>,
}

/// Looks at the header that is there (`None`: none): takes it where it may follow ours. Says whether everything is to be read again.
pub(super) async fn look(core: &Core, looked: u64, there: Option<&KeyValue>) -> Result<bool, Failed> {
    let before = { core.state.borrow().header };
    // The watch begins before what was looked at last.
    if looked <= before.looked {
        return Ok(false);
    }
    let inner = core.inner.upgrade().ok_or_else(|| "the store is closed".to_owned())?;
    let (taken, at) = match there {
        None => (Taken::Ours(Divergence::Vanished), 0),
        Some(kv) => {
            let (inner, octets) = (inner.clone(), kv.value.clone());
            let taking = tokio::task::spawn_blocking(move || inner.take_header(&octets));
            (taking.await.map_err(|error| error.to_string())??, kv.mod_revision as u64)
        }
    };
    let (now, again, why) = match taken {
        Taken::InUse { generation, again } => (There { looked, at, generation, wrong: None }, again, None),
        Taken::Ours(wrong) => (There { looked, at, wrong: Some(wrong), ..before }, false, None),
        Taken::Open(wrong, why) => (There { looked, at, wrong: Some(wrong), ..before }, false, Some(why)),
    };
    core.state.send_modify(|state| state.header = now);
    if let Some(wrong) = now.wrong
        && (before.wrong, before.at) != (now.wrong, now.at)
    {
        inner.header_alert();
        tracing::error!(
            why = wrong.words(),
            "the header of the shared store is not as this node knows it; changes are refused until it is"
        );
    }
    match (now.wrong, why) {
        (Some(wrong), Some(why)) => {
            Err(Failed(format!("the header of the shared store is not taken: {}; {why}", wrong.words())))
        }
        _ => Ok(again),
    }
}

/// Puts ours back, where what is there is provably not the true one.
pub(super) async fn heal(core: &Core) -> Result<(), Failed> {
    let there = { core.state.borrow().header };
    let lost = matches!(there.wrong, Some(Divergence::Vanished | Divergence::Older | Divergence::NotAuthentic));
    let Some(inner) = core.inner.upgrade().filter(|_| lost && there.looked > 0) else { return Ok(()) };
    if put_where(core, there.at, inner.header()?).await? {
        tracing::warn!("the header was put back into the shared store as it is here");
    }
    Ok(())
}

/// Puts a header where the key still has this revision (0: where it is not there).
async fn put_where(core: &Core, at: u64, octets: Vec<u8>) -> Result<bool, StoreError> {
    let key = core.key(HEADER);
    let request = TxnRequest {
        compare: vec![at_revision(key.clone(), at)],
        success: vec![put(key, octets.into())],
        ..TxnRequest::default()
    };
    Ok(core.client.change(request).await?.succeeded)
}

impl Core {
    /// The revision of the header, where it is the one that a change was sealed by; `Err`: it is a later one, which
    /// is in use here at this revision. Waits for one that this
    /// process has not looked at yet.
    pub(super) async fn header_of(&self, generation: u64) -> Result<Result<u64, u64>, StoreError> {
        let mut state = self.state.subscribe();
        let limit = if state.borrow().header.at == 0 { Duration::ZERO } else { self.client.timeout };
        let waiting = state.wait_for(|state| state.header.wrong.is_some() || state.header.generation >= generation);
        let there = tokio::time::timeout(limit, waiting).await.ok().and_then(Result::ok).map(|state| state.header);
        match there {
            Some(There { wrong: None, at, generation: now, .. }) if at != 0 && now == generation => Ok(Ok(at)),
            Some(There { wrong: None, generation: now, .. }) if now > generation => {
                let applied = { self.state.borrow().applied };
                Ok(Err(applied))
            }
            Some(There { wrong: Some(wrong), .. }) => Err(refused(wrong)),
            _ => Err(StoreError::Unavailable(
                "etcd was not reached yet, or the header of the shared store was not seen here: the change was not made"
                    .to_owned(),
            )),
        }
    }
}

fn refused(wrong: Divergence) -> StoreError {
    StoreError::Unavailable(format!(
        "the header of the shared store is {}, so that the change was not made: a gateway puts it back where it can; else `waxwing store status` says what is to be done",
        wrong.words()
    ))
}

impl Shared {
    /// Fails where the shared store's header is not the one that is in use here.
    pub(in crate::store) fn header_is_ours(&self) -> Result<(), StoreError> {
        let there = { self.core.state.borrow().header };
        there.wrong.map_or(Ok(()), |wrong| Err(refused(wrong)))
    }

    /// Changes the header in the shared store, and waits until the change is in use here. See [`Inner::change_header`].
    pub(in crate::store) fn change_header(
        &self,
        inner: &Inner,
        body: &mut dyn FnMut(&Header) -> Result<Option<Header>, StoreError>,
    ) -> Result<(), StoreError> {
        for _ in 0..32 {
            let ours = inner.current_header()?;
            let Some(mut next) = body(&ours)? else { return Ok(()) };
            next.revision = ours.revision.saturating_add(1);
            let octets = next.encode()?;
            let core = self.core.clone();
            let revision = match self.run(async move { core.header_of(ours.revision).await })?? {
                Ok(revision) => revision,
                // Another was faster; its header is here.
                Err(_) => continue,
            };
            let writes = vec![Guarded { path: HEADER.to_owned(), revision, octets: octets.into() }];
            if !self.make(Plan { header: ours.revision, writes, ..Plan::default() })? {
                continue;
            }
            if inner.current_header()?.revision < next.revision {
                return Err(StoreError::Unavailable(
                    "the keys of the shared store are changed, and this node has not seen that yet: run the same again"
                        .to_owned(),
                ));
            }
            return Ok(());
        }
        Err(StoreError::Unavailable("others change the keys of the shared store all the time; try again".to_owned()))
    }

    /// Puts this node's header into the shared store as a later one, whatever is there: for a person to decide.
    pub fn put_back_header(&self) -> Result<bool, StoreError> {
        let inner = self.core.inner.upgrade().ok_or_else(|| StoreError::Io("is closed".to_owned()))?;
        let mut next = inner.current_header()?;
        next.revision = next.revision.saturating_add(1);
        let (core, octets) = (self.core.clone(), next.encode()?);
        let at = { core.state.borrow().header.at };
        self.run(async move { put_where(&core, at, octets).await })?
    }

    /// Every gateway that shares the store, and names whose signs of life are not authentic.
    pub fn gateways(&self) -> Result<(Vec<Node>, Vec<String>), StoreError> {
        let core = self.core.clone();
        let all = self.run(async move { node::all(&core).await })??;
        Ok((all.nodes, all.unknown))
    }

    /// What those gateways say in words of which this does not hold.
    pub(in crate::store) fn waits_for(
        &self,
        holds: impl Fn(&Node) -> bool,
        what: &str,
    ) -> Result<Vec<String>, StoreError> {
        let (nodes, unknown) = self.gateways()?;
        let gone = |name: &str| format!("where it is gone for good: waxwing store forget-node {name}");
        let nodes = nodes.into_iter().filter(|node| !holds(node)).map(|node| {
            format!("gateway {} {what}; its last sign of life was at {}; {}", node.name, node.seen, gone(&node.name))
        });
        let unknown = unknown.iter().map(|name| {
            format!(
                "gateway {name}: its sign of life is not authentic, so that it is not known what it has; {}",
                gone(name)
            )
        });
        Ok(nodes.chain(unknown).collect())
    }

    /// The same after at most `patience`.
    pub(in crate::store) fn waits_until(
        &self,
        holds: impl Fn(&Node) -> bool,
        what: &str,
        patience: Duration,
    ) -> Result<Vec<String>, StoreError> {
        let end = Instant::now() + patience;
        loop {
            let waits = self.waits_for(&holds, what)?;
            if waits.is_empty() || Instant::now() >= end {
                return Ok(waits);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Goes through the shared store once, and writes anew what is under an older store key.
    pub(in crate::store) fn reseal(&self, inner: &Inner, step: &mut dyn FnMut(Resealing)) -> Result<Pass, StoreError> {
        let mut pass = Pass::default();
        let of = self.count()?;
        let mut at = Resealing { done: 0, of };
        let mut from = self.core.prefix.clone().into_bytes();
        loop {
            let (core, key) = (self.core.clone(), from);
            let page = self.run(async move {
                let request = RangeRequest { key, range_end: core.range_end(), limit: PAGE, ..Default::default() };
                let page = core.client.range(request).await?;
                let revision = page.kvs.iter().map(|kv| kv.mod_revision as u64).max().unwrap_or_default();
                core.wait_applied(revision, core.client.timeout).await?;
                Ok::<_, StoreError>(page)
            })??;
            let ring = inner.ring();
            let mut older: Vec<(String, usize)> = Vec::new();
            for kv in &page.kvs {
                let Some(path) = self.core.path(&kv.key).filter(|path| super::follow::is_record(path)) else {
                    continue;
                };
                at.done += 1;
                if inner.standing(&ring, path, &kv.value) == Standing::Older {
                    older.push((path.to_owned(), kv.value.len()));
                }
            }
            self.reseal_some(inner, older, &mut pass, &mut || step(at))?;
            step(at);
            match page.kvs.last() {
                Some(last) if page.more => from = [&last.key, [0].as_slice()].concat(),
                _ => return Ok(pass),
            }
        }
    }

    fn reseal_some(
        &self,
        inner: &Inner,
        older: Vec<(String, usize)>,
        pass: &mut Pass,
        step: &mut dyn FnMut(),
    ) -> Result<(), StoreError> {
        let paths: Vec<String> = older.iter().map(|(path, _)| path.clone()).collect();
        let seen = inner.seen_of(&paths)?;
        let mut some: Vec<String> = Vec::new();
        let mut octets = 0;
        let mut write = |some: &mut Vec<String>| {
            let missed = self.put_back(some)?;
            pass.written += some.len().saturating_sub(missed.len()) as u64;
            // Others changed them: the next pass sees to it.
            pass.stayed.extend(missed.into_iter().map(|path| (path, "others changed it meanwhile".to_owned())));
            some.clear();
            step();
            Ok::<(), StoreError>(())
        };
        let mut wrong = Vec::new();
        for (path, length) in older {
            match seen.get(&path).map(|seen| (seen.version, seen.divergence)) {
                Some((version, None)) if version != 0 => {
                    if some.len() >= WRITES || octets + length > OCTETS {
                        write(&mut some)?;
                        octets = 0;
                    }
                    octets += length;
                    some.push(path);
                }
                // Not ours to decide, or not for this version of the program.
                known => {
                    let why = known.and_then(|(_, why)| why).map_or("this node never took it in", Divergence::words);
                    wrong.push((path, why.to_owned()));
                }
            }
        }
        if !some.is_empty() {
            write(&mut some)?;
        }
        pass.stayed.extend(wrong);
        Ok(())
    }

    fn count(&self) -> Result<u64, StoreError> {
        let core = self.core.clone();
        let counted = self.run(async move {
            let request = RangeRequest {
                key: core.prefix.clone().into_bytes(),
                range_end: core.range_end(),
                count_only: true,
                ..Default::default()
            };
            core.client.range(request).await
        })??;
        Ok(counted.count.max(0) as u64)
    }
}

/// What a gateway says of its keys, in its signs of life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Keys {
    /// The key-encryption keys it has.
    pub keks: Vec<Fingerprint>,
    /// The revision of its header.
    pub header: u64,
    /// The store key that every record of its copy is under.
    pub sealed: Option<[u8; 16]>,
}

impl Keys {
    /// Of this process.
    pub fn of(inner: &Inner) -> Self {
        let header = inner.ring().header.revision;
        Self {
            keks: inner.held().iter().map(|kek| kek.fingerprint()).collect(),
            header,
            sealed: inner.resealed_under(),
        }
    }

    pub fn words(&self) -> Vec<String> {
        self.keks.iter().map(|kek| hex(kek).to_string()).collect()
    }
}

/// Writes this gateway's copy anew where it is under older keys, at rest half of the time, so that mail has the other.
pub(super) fn reseal_copy(inner: &Inner) -> Result<(), StoreError> {
    let mut worked = Instant::now();
    inner.reseal_copy(&mut || {
        std::thread::sleep(worked.elapsed().min(Duration::from_secs(1)));
        worked = Instant::now();
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, Weak};

    use jiff::Timestamp;
    use tokio::sync::watch;

    use super::super::client::Client;
    use super::super::{Role, State};
    use super::*;
    use crate::config::Etcd;

    fn core() -> Core {
        let (max_staleness, timeout) = (Duration::from_secs(60), Duration::from_millis(20));
        let etcd = Etcd {
            endpoints: vec!["http://127.0.0.1:9".into()],
            prefix: "waxwing".into(),
            node: "a".into(),
            user: None,
            ca: None,
            identity: None,
            max_staleness,
            timeout,
        };
        Core {
            client: Client::new(&etcd).unwrap(),
            inner: Weak::new(),
            prefix: "waxwing/".into(),
            node: "a".into(),
            role: Role::Command,
            max_staleness,
            boot: [0; 16],
            state: watch::Sender::new(State::default()),
            sent: Mutex::default(),
            started: Timestamp::now(),
        }
    }

    #[tokio::test]
    async fn t20_a_change_is_made_under_the_header_that_it_was_sealed_by_and_no_other() {
        let core = core();
        let never = core.header_of(0).await.unwrap_err().to_string();
        assert!(never.contains("the change was not made"), "{never}");
        let there = There { looked: 9, at: 5, generation: 3, wrong: None };
        core.state.send_modify(|state| (state.header, state.applied) = (there, 8));
        assert_eq!(core.header_of(3).await, Ok(Ok(5)));
        assert_eq!(core.header_of(2).await, Ok(Err(8)), "sealed by keys that are retired by now: planned again");
        assert!(matches!(core.header_of(4).await, Err(StoreError::Unavailable(_))), "one that was not looked at yet");
        core.state.send_modify(|state| state.header.wrong = Some(Divergence::Older));
        assert!(matches!(core.header_of(3).await, Err(StoreError::Unavailable(_))), "what is there is not ours");
    }
}

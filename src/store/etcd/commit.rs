//! Making changes, and knowing whether they were made.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::{Duration, Instant, sleep};

use super::client::{Client, EtcdError};
use super::wire::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, Request, RequestOp,
    TargetUnion, TxnRequest, TxnResponse,
};
use super::{Core, Plan, Role};
use crate::store::StoreError;
use crate::store::keyring::hex;

/// Records written by one transaction at most: etcd takes 128 operations and 1.5 MiB by default.
pub(in crate::store) const WRITES: usize = 50;

/// What etcd compares and writes in one transaction by default, less the name of the change and the header; and the octets of one request, less
/// what is around them.
const OPERATIONS: usize = 126;
pub(in crate::store) const OCTETS: usize = 1_400_000;

/// Whether etcd takes it as one change.
pub(super) fn fits(plan: &Plan) -> Result<(), StoreError> {
    let octets: usize = plan.writes.iter().map(|one| one.octets.len()).sum();
    let compared = plan.reads.len() + plan.scans.len() + plan.writes.len();
    if compared <= OPERATIONS && octets <= OCTETS {
        return Ok(());
    }
    Err(StoreError::TooLarge(format!(
        "one change of {} records and {octets} octets, resting on {compared}, is more than the shared store takes at a time ({OPERATIONS} records, {OCTETS} octets)",
        plan.writes.len()
    )))
}

/// What came of a change.
pub(super) enum Outcome {
    /// Made, at this revision.
    Made(u64),
    /// Not made: what it rests upon had changed by this revision.
    Conflict(u64),
}

pub(super) fn at_revision(key: Bytes, revision: u64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        union: Some(TargetUnion::ModRevision(revision as i64)),
        range_end: Vec::new(),
    }
}

/// Every key that begins so stands there since before the end of this revision.
fn none_newer(head: Bytes, revision: u64) -> Compare {
    Compare {
        result: CompareResult::Less.into(),
        target: CompareTarget::Mod.into(),
        union: Some(TargetUnion::ModRevision(revision.saturating_add(1) as i64)),
        range_end: end_of(&head),
        key: head,
    }
}

/// The end of the range of keys that begin so.
pub(super) fn end_of(head: &[u8]) -> Vec<u8> {
    let mut end = head.to_vec();
    // They end with '/', so that the next octet is '0'.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn absent(key: Bytes) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        union: Some(TargetUnion::CreateRevision(0)),
        range_end: Vec::new(),
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub(super) fn put(key: Bytes, value: Bytes) -> RequestOp {
    op(Request::Put(PutRequest { key, value }))
}

pub(super) fn delete(key: Bytes) -> RequestOp {
    op(Request::Delete(DeleteRangeRequest { key }))
}

pub(super) fn get(key: &Bytes) -> RequestOp {
    op(Request::Range(RangeRequest { key: key.to_vec(), ..Default::default() }))
}

pub(super) fn revision_of(answer: &TxnResponse) -> u64 {
    answer.header.as_ref().map_or(0, |header| header.revision as u64)
}

/// What stands under the key that a failed transaction asked for: its value and when it was made.
fn found(answer: &TxnResponse) -> Option<(&Bytes, u64)> {
    standing(answer).map(|one| (&one.value, one.create_revision as u64))
}

/// The same, with all that is known of it.
pub(super) fn standing(answer: &TxnResponse) -> Option<&KeyValue> {
    answer.responses.first()?.range.as_ref()?.kvs.first()
}

const MADE: &[u8] = b"made ";
const VOID: &[u8] = b"void ";

fn word(word: &[u8]) -> Bytes {
    [word, Timestamp::now().as_second().to_string().as_bytes()].concat().into()
}

fn name() -> Result<String, StoreError> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| StoreError::Io("the system gives no randomness".to_owned()))?;
    Ok(format!("op/{}", *hex(&id)))
}

/// Makes a planned change. Where nobody answers in time, claims its name, so that it is known whether it was made.
pub(super) async fn commit(core: &Arc<Core>, plan: &Plan) -> Result<Outcome, StoreError> {
    let id = core.key(&name()?);
    let header = match core.header_of(plan.header).await? {
        Ok(revision) => revision,
        // Other keys are in use by now: what was sealed by those before must not be written any more.
        Err(applied) => return Ok(Outcome::Conflict(applied)),
    };
    let mut compare = vec![absent(id.clone()), at_revision(core.key("h"), header)];
    compare.extend(plan.reads.iter().map(|(path, revision)| at_revision(core.key(path), *revision)));
    compare.extend(plan.scans.iter().map(|(head, revision)| none_newer(core.key(head), *revision)));
    compare.extend(plan.writes.iter().map(|one| at_revision(core.key(&one.path), one.revision)));
    let mut success: Vec<RequestOp> =
        plan.writes.iter().map(|one| put(core.key(&one.path), one.octets.clone())).collect();
    success.push(put(id.clone(), word(MADE)));
    let request = TxnRequest { compare, success, failure: vec![get(&id)] };
    let end = Instant::now() + core.client.timeout;
    let (mut asked, mut silent) = (false, false);
    loop {
        let answer = core.client.change_once(request.clone()).await;
        asked |= !matches!(answer, Err(EtcdError::Unreachable(_)));
        silent |= matches!(answer, Err(EtcdError::Unavailable(_)));
        match answer {
            Ok(answer) if answer.succeeded => return Ok(done(core, id, revision_of(&answer)).await),
            Ok(answer) => {
                return Ok(match found(&answer) {
                    Some((_, at)) => done(core, id, at).await,
                    None => Outcome::Conflict(revision_of(&answer)),
                });
            }
            Err(EtcdError::Unavailable(_) | EtcdError::Unreachable(_)) if Instant::now() < end => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(EtcdError::Unavailable(why) | EtcdError::Unreachable(why)) if asked => {
                return claim(core, id, &why).await;
            }
            Err(EtcdError::Unavailable(why) | EtcdError::Unreachable(why)) => {
                return Err(StoreError::Unavailable(format!(
                    "etcd cannot be reached, and the change was not made: {why}"
                )));
            }
            // The one that was not answered may have been made.
            Err(EtcdError::Refused(why)) if silent => return claim(core, id, &why).await,
            Err(refused) => return Err(refused.into()),
        }
    }
}

async fn claim(core: &Arc<Core>, id: Bytes, why: &str) -> Result<Outcome, StoreError> {
    let request = TxnRequest {
        compare: vec![absent(id.clone())],
        success: vec![put(id.clone(), word(VOID))],
        failure: vec![get(&id)],
    };
    let unknown = || {
        StoreError::Unavailable(format!(
            "etcd does not answer, and it is not known whether the change was made: {why}; look, and make it again where it was not"
        ))
    };
    let answer = core.client.change(request).await.map_err(|_| unknown())?;
    match found(&answer) {
        None if answer.succeeded => {
            Err(StoreError::Unavailable(format!("etcd did not answer in time, and the change was not made: {why}")))
        }
        Some((value, at)) if value.starts_with(MADE) => Ok(done(core, id, at).await),
        _ => Err(StoreError::Unavailable(format!("etcd did not answer in time, and the change was not made: {why}"))),
    }
}

/// Nobody asks for its name any more; a delayed copy of the change fails by the revisions it compares.
async fn done(core: &Arc<Core>, id: Bytes, revision: u64) -> Outcome {
    let tidy = {
        let core = core.clone();
        // What is left is swept later.
        async move { drop(core.client.change_once(TxnRequest { success: vec![delete(id)], ..Default::default() }).await) }
    };
    match core.role {
        Role::Gateway => drop(tokio::spawn(tidy)),
        // It ends with the command.
        Role::Command => drop(tokio::time::timeout(Duration::from_millis(500), tidy).await),
    }
    Outcome::Made(revision)
}

/// Writes something that comes back through the watch; gives its revision.
pub(super) async fn mark(core: &Core) -> Result<u64, StoreError> {
    let request = TxnRequest { success: vec![put(core.key("m"), word(VOID))], ..Default::default() };
    Ok(revision_of(&core.client.change(request).await?))
}

/// Puts a value where there is none; says whether there was none.
pub(super) async fn put_new(client: &Client, key: Bytes, value: Bytes) -> Result<bool, EtcdError> {
    let request = TxnRequest {
        compare: vec![absent(key.clone())],
        success: vec![put(key.clone(), value.clone())],
        failure: vec![get(&key)],
    };
    let answer = client.change(request).await?;
    // Asked twice, it may be our own.
    Ok(answer.succeeded || found(&answer).is_some_and(|(there, _)| *there == value))
}

/// Names of changes stand so long at least: nobody asks for one any more then.
const NAMES_HOLD: Duration = Duration::from_secs(3_600);

/// The names of changes that this node saw standing, and since when by its own clock: what clock their makers have does not matter.
#[derive(Default)]
pub(super) struct Names(HashMap<Vec<u8>, Instant>);

impl Names {
    /// Those that stood there long enough.
    fn old(&mut self, there: &[KeyValue], now: Instant) -> Vec<Bytes> {
        let before = std::mem::take(&mut self.0);
        let since = |kv: &KeyValue| (kv.key.to_vec(), before.get(kv.key.as_ref()).copied().unwrap_or(now));
        self.0 = there.iter().map(since).collect();
        let old = self.0.iter().filter(|(_, since)| now.duration_since(**since) > NAMES_HOLD);
        old.map(|(name, _)| Bytes::from(name.clone())).collect()
    }
}

/// Removes the names of changes whose makers did not, an hour after they were seen first.
pub(super) async fn sweep(core: &Core, names: &mut Names) -> Result<(), EtcdError> {
    let key = core.key("op/");
    let request = RangeRequest { key: key.to_vec(), range_end: end_of(&key), limit: 1_000, ..Default::default() };
    let answer = core.client.range(request).await?;
    let old: Vec<RequestOp> = names.old(&answer.kvs, Instant::now()).into_iter().map(delete).collect();
    for some in old.chunks(100) {
        core.client.change(TxnRequest { success: some.to_vec(), ..Default::default() }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_swept_by_how_long_it_was_seen_whatever_its_makers_clock_says() {
        let name = |id: &str, made: i64| KeyValue {
            key: Bytes::from(format!("w/op/{id}")),
            value: Bytes::from(format!("made {made}")),
            ..KeyValue::default()
        };
        let (began, mut names) = (Instant::now(), Names::default());
        // By a clock that is a day late, and by one that is years ahead.
        let now = Timestamp::now().as_second();
        let there = [name("late", now - 86_400), name("ahead", now + 100_000_000)];
        assert_eq!(names.old(&there, began), Vec::<Bytes>::new(), "it may still be asked for");
        assert_eq!(names.old(&there[..1], began + NAMES_HOLD / 2), Vec::<Bytes>::new());
        // Gone, and seen again: from the beginning.
        let after = began + NAMES_HOLD + Duration::from_secs(1);
        assert_eq!(names.old(&there, after), [there[0].key.clone()]);
        assert_eq!(names.old(&there, after + NAMES_HOLD).len(), 1);
        let mut both = names.old(&there, after + NAMES_HOLD + Duration::from_secs(1));
        both.sort();
        assert_eq!(both, [there[1].key.clone(), there[0].key.clone()]);
    }
}

//! Making changes, and knowing whether they were made.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::{Duration, Instant, sleep};

use super::client::{Client, EtcdError};
use super::wire::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest, Request, RequestOp,
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
const OCTETS: usize = 1_400_000;

/// Whether etcd takes it as one change.
pub(super) fn fits(plan: &Plan) -> Result<(), StoreError> {
    let octets: usize = plan.writes.iter().map(|one| one.octets.len()).sum();
    let compared = plan.reads.len() + plan.writes.len();
    if compared <= OPERATIONS && octets <= OCTETS {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
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
    }
}

fn absent(key: Bytes) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        union: Some(TargetUnion::CreateRevision(0)),
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

fn get(key: &Bytes) -> RequestOp {
    op(Request::Range(RangeRequest { key: key.to_vec(), ..Default::default() }))
}

pub(super) fn revision_of(answer: &TxnResponse) -> u64 {
    answer.header.as_ref().map_or(0, |header| header.revision as u64)
}

/// What stands under the key that a failed transaction asked for: its value and when it was made.
fn found(answer: &TxnResponse) -> Option<(&Bytes, u64)> {
    let range = answer.responses.first()?.range.as_ref()?;
    range.kvs.first().map(|one| (&one.value, one.create_revision as u64))
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

/// Removes the names of changes that are older than this.
const NAMES_HOLD: i64 = 3_600;

/// Removes the names of changes whose makers did not, an hour after.
pub(super) async fn sweep(core: &Core) -> Result<(), EtcdError> {
    let key = core.key("op/");
    let mut range_end = key.to_vec();
    if let Some(last) = range_end.last_mut() {
        *last += 1;
    }
    let answer =
        core.client.range(RangeRequest { key: key.to_vec(), range_end, limit: 1_000, ..Default::default() }).await?;
    let now = Timestamp::now().as_second();
    let old = answer.kvs.iter().filter(|one| {
        let made = one.value.split(|octet| *octet == b' ').nth(1).and_then(|text| std::str::from_utf8(text).ok());
        made.and_then(|text| text.parse::<i64>().ok()).is_none_or(|made| now - made > NAMES_HOLD)
    });
    let old: Vec<RequestOp> = old.map(|one| delete(one.key.clone())).collect();
    for some in old.chunks(100) {
        core.client.change(TxnRequest { success: some.to_vec(), ..Default::default() }).await?;
    }
    Ok(())
}

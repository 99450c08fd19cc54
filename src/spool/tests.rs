/// A dead node's spool.
mod adopting;
/// Every edge of the state table.
mod edges;
/// Disks that fail, fill up, or hang.
mod faults;
/// Sealing at rest.
mod sealing;

use std::time::Duration;

use proptest::prelude::*;

use super::record::Payload;
use super::testing::{SMALL, Simulated, later, new_entry, open, text};
use super::*;
use crate::address::{Mailbox, ReversePath};
use crate::smtp::command::{Notify, RcptParameters};

#[tokio::test]
async fn what_is_committed_is_there_after_a_restart() {
    let disk = Simulated::default();
    let (spool, recovered) = open(&disk);
    assert_eq!(recovered, Recovered::default());
    let ids = spool.commit(vec![new_entry("small"), new_entry(&text(1, 5000))]).await.unwrap();
    assert!(ids[0] < ids[1]);
    let before = spool.entries();
    drop(spool);
    let (spool, recovered) = open(&disk.after_power_loss(1));
    assert_eq!((recovered.entries, recovered.torn, recovered.damage.len()), (2, 0, 0));
    assert_eq!(spool.entries(), before);
    assert_eq!(spool.content(ids[0]).await.unwrap(), "small");
    assert_eq!(spool.content(ids[1]).await.unwrap(), text(1, 5000));
    spool.done(ids[1]).await.unwrap();
    assert_eq!(spool.content(ids[1]).await, Err(SpoolError::NoEntry(ids[1])));
}

#[tokio::test]
async fn claims_settles_holds_and_releases() {
    let (spool, _) = open(&Simulated::default());
    let id = spool.commit(vec![new_entry("x")]).await.unwrap()[0];
    let now = later(1);
    assert_eq!(spool.due(now).len(), 1);
    assert!(spool.claim(now, |_| 0).is_empty());
    assert_eq!(spool.claim(now, |_| 5).len(), 1);
    assert!(spool.due(now).is_empty() && spool.claim(now, |_| 5).is_empty());
    let recipients =
        vec![(RecipientState::Delivered, Some("250".into())), (RecipientState::Waiting, Some("451".into()))];
    spool
        .settle(id, Outcome { recipients, next_attempt: later(100), delay_told: None, new_entries: vec![] })
        .await
        .unwrap();
    assert!(spool.due(now).is_empty());
    let entry = &spool.due(later(101))[0];
    assert_eq!((entry.attempts, entry.remaining().recipients.len()), (1, 1));
    spool.hold(id, "quarantine").await.unwrap();
    assert!(spool.due(later(101)).is_empty() && spool.next_due().is_none());
    spool.release(id).await.unwrap();
    assert_eq!(spool.due(later(1)).len(), 1);
    let stuck = vec![(RecipientState::Delivered, None), (RecipientState::Stuck, None)];
    spool
        .settle(id, Outcome { recipients: stuck, next_attempt: later(1), delay_told: None, new_entries: vec![] })
        .await
        .unwrap();
    assert!(spool.entry(id).unwrap().held.is_some());
    spool.release(id).await.unwrap();
    let failed = vec![(RecipientState::Delivered, None), (RecipientState::Failed, None)];
    spool
        .settle(
            id,
            Outcome {
                recipients: failed,
                next_attempt: later(1),
                delay_told: None,
                new_entries: vec![new_entry("dsn")],
            },
        )
        .await
        .unwrap();
    assert_eq!(spool.entries().len(), 1);
    assert_ne!(spool.entries()[0].id, id);
}

#[tokio::test]
async fn a_hold_while_a_delivery_is_under_way_holds_what_it_leaves() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let id = spool.commit(vec![new_entry("x")]).await.unwrap()[0];
    assert_eq!(spool.claim(later(1), |_| 5).len(), 1);
    spool.hold(id, "look").await.unwrap();
    assert_eq!(spool.get(id).unwrap().state, EntryState::Claimed);
    spool.release(id).await.unwrap();
    assert!(spool.due(later(9)).is_empty(), "it would be delivered twice at once");
    spool.hold(id, "look").await.unwrap();
    let left = vec![(RecipientState::Delivered, None), (RecipientState::Waiting, Some("451".into()))];
    let told = later(2);
    spool
        .settle(id, Outcome { recipients: left, next_attempt: later(1), delay_told: Some(told), new_entries: vec![] })
        .await
        .unwrap();
    let check = |spool: &Spool| {
        let Listed { state, entry } = spool.get(id).unwrap();
        assert_eq!((state, entry.held.as_deref(), entry.attempts), (EntryState::Held, Some("look"), 1));
        assert_eq!(entry.delay_told, Some(entry::micros(told)));
        assert_eq!(entry.recipients[0].state, RecipientState::Delivered);
    };
    check(&spool);
    assert_eq!(spool.retry(id).await, Err(SpoolError::Held(id)));
    drop(spool);
    check(&open(&disk.after_power_loss(4)).0);
}

#[tokio::test]
async fn what_policy_has_not_treated_is_never_due_and_goes_by_replacement_alone() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let submitted = NewEntry {
        treatment: Treatment::AsSubmitted,
        listener: "submission".into(),
        user: Some("anna".into()),
        sends_as: [Mailbox::parse("anna@a.example").unwrap()].into(),
        trusted: true,
        log_id: "1a".into(),
        ..new_entry("in clear")
    };
    let id = spool.commit(vec![submitted]).await.unwrap()[0];
    assert!(spool.claim(later(9), |_| 5).is_empty() && spool.claim_out_of_time(5, |_| true).is_empty());
    assert_eq!(spool.release(id).await, Err(SpoolError::Untreated(id)));
    drop(spool);
    let (spool, _) = open(&disk.after_power_loss(4));
    let Listed { state, entry } = spool.get(id).unwrap();
    assert_eq!((state, entry.listener.as_str(), entry.user.as_deref()), (EntryState::Held, "submission", Some("anna")));
    assert_eq!((entry.trusted, entry.log_id.as_str()), (true, "1a"));
    assert_eq!(entry.sends_as[0].to_string(), "anna@a.example");
    let both = tokio::join!(
        spool.replace(&entry, vec![new_entry("sealed"), new_entry(&text(1, 5000))]),
        spool.replace(&entry, vec![new_entry("sealed twice"), new_entry(&text(2, 5000))]),
    );
    // Whichever came first.
    let (new, other) = match both {
        (Ok(new), other) => (new, other),
        (other, new) => (new.unwrap(), other),
    };
    assert_eq!(other, Err(SpoolError::NoEntry(id)));
    let left: Vec<_> = spool.entries().iter().map(|entry| entry.id).collect();
    assert_eq!(left, new);
    assert_eq!(spool.due(later(9)).len(), 2);
}

#[tokio::test]
async fn lists_by_pages_and_filters_and_sums_up() {
    let (spool, _) = open(&Simulated::default());
    let to = |host: &str, text: &str| {
        let mut new = new_entry(text);
        new.next_hop.host = host.into();
        new
    };
    let from_nobody = {
        let mut new = to("mx.c.example", "bounce");
        new.envelope.reverse_path = ReversePath::Null;
        new
    };
    let ids = spool.commit(vec![to("mx.b.example", "1"), to("mx.c.example", "22"), from_nobody]).await.unwrap();
    spool.hold(ids[1], "look").await.unwrap();
    let names = |filter: &Filter| -> Vec<EntryId> {
        spool.list(filter, None, 9).entries.iter().map(|listed| listed.entry.id).collect()
    };
    assert_eq!(names(&Filter { state: Some(EntryState::Held), ..Filter::default() }), [ids[1]]);
    assert_eq!(names(&Filter { next_hop: Some("MX.c.example:25".into()), ..Filter::default() }), ids[1..]);
    assert_eq!(names(&Filter { next_hop: Some("mx.c.example:26".into()), ..Filter::default() }), []);
    assert_eq!(names(&Filter { sender: Some("<>".into()), ..Filter::default() }), [ids[2]]);
    assert_eq!(names(&Filter { sender: Some("@A.example".into()), ..Filter::default() }), ids[..2]);
    assert_eq!(names(&Filter { recipient: Some("one@b.example".into()), ..Filter::default() }), ids);
    assert_eq!(names(&Filter { recipient: Some("@a.example".into()), ..Filter::default() }), []);
    let first = spool.list(&Filter::default(), None, 2);
    assert_eq!((first.entries.len(), first.next), (2, Some(ids[1])));
    let rest = spool.list(&Filter::default(), first.next, 2);
    assert_eq!((rest.entries[0].entry.id, rest.entries.len(), rest.next), (ids[2], 1, None));
    let stats = spool.stats();
    let hop = &stats.hops[&("mx.c.example".to_owned(), 25)];
    assert_eq!((hop.held, hop.waiting), (Sum { entries: 1, octets: 2 }, Sum { entries: 1, octets: 6 }));
    assert_eq!(stats.total().waiting, Sum { entries: 2, octets: 7 });
    assert_eq!(stats.total().oldest, Some(spool.entry(ids[0]).unwrap().created));
    let put_off = vec![(RecipientState::Waiting, None); 2];
    spool.claim(later(1), |_| 1);
    assert_eq!(spool.stats().total().claimed.entries, 2);
    let outcome = Outcome { recipients: put_off, next_attempt: later(100), delay_told: None, new_entries: vec![] };
    spool.settle(ids[0], outcome).await.unwrap();
    assert_eq!((spool.stats().total().deferred.entries, spool.due(later(1)).len()), (1, 0));
    spool.retry(ids[0]).await.unwrap();
    assert_eq!(spool.due(later(1)).len(), 1);
    spool.delete(ids[0]).await.unwrap();
    assert_eq!(spool.delete(ids[0]).await, Err(SpoolError::NoEntry(ids[0])));
}

/// What a run acknowledged before the power went.
#[derive(Default)]
struct Acknowledged {
    committed: Vec<(EntryId, String)>,
    ended: Vec<EntryId>,
}

async fn workload(disk: &Simulated) -> Acknowledged {
    let mut seen = Acknowledged::default();
    let Ok((spool, _)) = Spool::open(Arc::new(disk.clone()), SMALL) else { return seen };
    for round in 0..8 {
        let texts = [text(round, 100 + round * 90), text(round + 100, 300)];
        if let Ok(ids) = spool.commit(texts.iter().map(|text| new_entry(text)).collect()).await {
            seen.committed.extend(ids.into_iter().zip(texts));
        }
        if !spool.is_healthy() {
            break;
        }
        if round % 2 == 1 {
            let id = seen.committed[round - 1].0;
            seen.ended.push(id);
            if tokio::time::timeout(Duration::from_millis(300), spool.done(id)).await.is_err() {
                break;
            }
        }
    }
    seen
}

/// Entries that were acknowledged and are not there, or are not whole; and texts that nobody ever sent.
async fn losses(disk: &Simulated, seen: &Acknowledged) -> usize {
    let Ok((spool, recovered)) = Spool::open(Arc::new(disk.clone()), SMALL) else { return usize::MAX };
    let mut lost = recovered.damage.len();
    for (id, text) in seen.committed.iter().filter(|(id, _)| !seen.ended.contains(id)) {
        lost += usize::from(spool.content(*id).await.as_deref() != Ok(text.as_bytes()));
    }
    for entry in spool.entries() {
        match spool.content(entry.id).await {
            Ok(content) => assert_eq!(content.len() as u64, entry.size),
            Err(_) => lost += 1,
        }
    }
    lost
}

async fn operations_of_a_whole_run() -> usize {
    let disk = Simulated::default();
    let seen = workload(&disk).await;
    assert_eq!(seen.committed.len(), 16);
    assert_eq!(losses(&disk.after_power_loss(3), &seen).await, 0);
    disk.state().operations
}

#[tokio::test]
async fn t2_r1_r3_power_loss_at_every_operation_loses_nothing_acknowledged() {
    let total = operations_of_a_whole_run().await;
    for at in 0..total {
        let disk = Simulated::default();
        disk.state().power_goes_at = Some(at);
        let seen = workload(&disk).await;
        for chance in 0..4 {
            assert_eq!(
                losses(&disk.after_power_loss(chance + 7 * at as u64), &seen).await,
                0,
                "power lost at {at} of {total}, chance {chance}"
            );
        }
    }
}

#[tokio::test]
async fn t2_turns_red_without_sync() {
    let mut lost = 0;
    for at in [20, 30, 40, 50] {
        let disk = Simulated::default();
        disk.state().syncs_do_nothing = true;
        disk.state().power_goes_at = Some(at);
        let seen = workload(&disk).await;
        for chance in 0..4 {
            lost += losses(&disk.after_power_loss(chance), &seen).await.min(1);
        }
    }
    assert!(lost > 0, "the simulated disk does not forget");
}

#[tokio::test]
async fn r7_a_full_disk_refuses_at_once_and_recovers_by_itself() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let ids = spool.commit(vec![new_entry("kept"), new_entry("ended")]).await.unwrap();
    disk.state().full = true;
    assert!(matches!(spool.commit(vec![new_entry("refused")]).await, Err(SpoolError::Disk(_))));
    assert!(!spool.is_healthy() && spool.trouble().is_some());
    assert!(matches!(spool.commit(vec![new_entry(&text(1, 5000))]).await, Err(SpoolError::Disk(_))));
    let ending = tokio::spawn({
        let (spool, id) = (spool.clone(), ids[1]);
        async move { spool.done(id).await }
    });
    tokio::task::yield_now().await;
    disk.state().full = false;
    assert_eq!(ending.await.unwrap(), Ok(()));
    while !spool.is_healthy() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let last = spool.commit(vec![new_entry("taken")]).await.unwrap()[0];
    drop(spool);
    let (spool, recovered) = open(&disk.after_power_loss(5));
    let names: Vec<_> = spool.entries().iter().map(|entry| entry.id).collect();
    assert_eq!((names, recovered.damage.len()), (vec![ids[0], last], 0));
}

#[tokio::test]
async fn r7_a_disk_in_trouble_is_tried_again_however_much_is_asked_of_it() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let id = spool.commit(vec![new_entry("bounces")]).await.unwrap()[0];
    disk.state().full = true;
    assert!(spool.commit(vec![new_entry("refused")]).await.is_err());
    disk.state().full = false;
    // A deliverer with a DSN to record tries again and again, faster than the writer is idle.
    let failed = Outcome {
        recipients: vec![(RecipientState::Failed, None)],
        next_attempt: later(1),
        delay_told: None,
        new_entries: vec![new_entry("DSN")],
    };
    let mut tries = 0;
    while spool.settle(id, failed.clone()).await.is_err() {
        tries += 1;
        assert!(tries < 100, "the disk is never tried");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_body_file_that_is_gone_is_damage_and_tells_so_at_start_until_it_is_held() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let id = spool.commit(vec![new_entry(&text(1, 5000))]).await.unwrap()[0];
    disk.remove(&body_name(id)).unwrap();
    assert_eq!(spool.content(id).await, Err(SpoolError::Damaged(id)));
    drop(spool);
    let (spool, recovered) = open(&disk);
    assert_eq!((recovered.damage.len(), spool.is_healthy()), (1, false));
    spool.hold(id, "damaged").await.unwrap();
    drop(spool);
    let (spool, recovered) = open(&disk);
    assert_eq!((recovered.entries, recovered.damage.len(), spool.is_healthy()), (1, 0, true));
}

#[tokio::test]
async fn r7_a_full_disk_while_a_body_file_is_written_recovers_too() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    disk.state().full = true;
    assert!(matches!(spool.commit(vec![new_entry(&text(1, 5000))]).await, Err(SpoolError::Disk(_))));
    assert!(!spool.is_healthy());
    disk.state().full = false;
    while !spool.is_healthy() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    spool.commit(vec![new_entry(&text(1, 5000))]).await.unwrap();
    assert_eq!(disk.names().unwrap().iter().filter(|name| name.ends_with(".body")).count(), 1);
}

#[tokio::test]
async fn damage_in_the_middle_latches_and_the_rest_is_recovered() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(spool.commit(vec![new_entry(&text(number, 200))]).await.unwrap()[0]);
    }
    drop(spool);
    let disk = disk.after_power_loss(2);
    let len = disk.read_all(&segment_name(1)).unwrap().len();
    disk.damage(&segment_name(1), len / 2);
    let (spool, recovered) = open(&disk);
    assert_eq!((recovered.entries, recovered.damage.len()), (2, 1));
    assert!(!spool.is_healthy());
    assert_eq!(spool.content(ids[0]).await.unwrap(), text(0, 200));
    assert_eq!(spool.content(ids[2]).await.unwrap(), text(2, 200));
    spool.accept_damage();
    assert!(spool.is_healthy());
    drop(spool);
    assert!(disk.names().unwrap().iter().any(|name| name.ends_with(".damaged")));
    let (spool, recovered) = open(&disk.after_power_loss(2));
    assert_eq!((recovered.entries, recovered.damage.len()), (2, 0));
    assert!(spool.is_healthy());
}

#[tokio::test]
async fn old_segments_go_and_what_lives_in_them_moves() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let keeper = spool.commit(vec![new_entry("keeper")]).await.unwrap()[0];
    for number in 0..200 {
        let id = spool.commit(vec![new_entry(&text(number, 500))]).await.unwrap()[0];
        spool.done(id).await.unwrap();
    }
    let segments = disk.names().unwrap().iter().filter(|name| name.ends_with(".log")).count();
    assert!(segments <= 8, "{segments} segments");
    assert_eq!(spool.content(keeper).await.unwrap(), "keeper");
    drop(spool);
    let (spool, recovered) = open(&disk.after_power_loss(8));
    assert_eq!((recovered.entries, recovered.damage.len()), (1, 0));
    assert_eq!(spool.content(keeper).await.unwrap(), "keeper");
}

#[tokio::test]
async fn a_real_folder_is_locked_and_survives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let disk = Arc::new(Folder::open(&path).unwrap());
    assert_eq!(Folder::open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let (spool, _) = Spool::open(disk, Limits::default()).unwrap();
    let commits = (0..50).map(|number| {
        let spool = spool.clone();
        tokio::spawn(async move {
            spool.commit(vec![new_entry(&text(number, if number == 7 { 2 << 20 } else { 4000 }))]).await.unwrap()[0]
        })
    });
    let mut ids = Vec::new();
    for commit in commits.collect::<Vec<_>>() {
        ids.push(commit.await.unwrap());
    }
    spool.done(ids[7]).await.unwrap();
    drop(spool);
    let disk = loop {
        match Folder::open(&path) {
            Ok(disk) => break disk,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let (spool, recovered) = Spool::open(Arc::new(disk), Limits::default()).unwrap();
    assert_eq!((recovered.entries, recovered.torn), (49, 0));
    assert_eq!(spool.content(ids[8]).await.unwrap(), text(8, 4000));
}

fn sample_payload() -> Vec<u8> {
    let mut payload = Payload::default();
    let mut new = new_entry("content");
    new.envelope.recipients[0].parameters = RcptParameters {
        notify: Some(Notify { success: true, failure: false, delay: true }),
        orcpt: Some("rfc822;x".into()),
    };
    let (content, mut entry) = new.into_entry(EntryId(77), Timestamp::UNIX_EPOCH, 7);
    entry.released = Some(entry::micros(later(3)));
    payload.put(&entry, None, None, content.chunks(10));
    let sealing = record::Sealing { key: [1; 16], salt: [2; 16] };
    payload.put(&entry, Some(sealing), Some((5_000_000, [7; 32])), std::iter::empty());
    let recipients = vec![(RecipientState::Stuck, Some("why".into())), (RecipientState::Waiting, None)];
    let (id, at) = (EntryId(77), Timestamp::UNIX_EPOCH);
    let state = record::State { attempts: 3, next_attempt: at, held: None, recipients: recipients.clone() };
    payload.change(&Change::State(id, state));
    payload.change(&Change::Settled(id, Settlement { next_attempt: at, delay_told: Some(later(0)), recipients }));
    payload.change(&Change::Held(id, "why".into()));
    payload.change(&Change::Released(id, at));
    payload.change(&Change::Retried(id, at));
    payload.change(&Change::Done(id));
    payload.change(&Change::Seal);
    payload.change(&Change::Begun(record::Begun { previous: 3, len: 9, torn: true }));
    payload.change(&Change::Adopting(id, [3; 16]));
    payload.change(&Change::Activated([3; 16]));
    payload.0
}

/// An entry inline, one in a file, a state, an end, a seal: as written before entries told the version of their fields.
const UNVERSIONED: &str = "\
    014d00000000000000010e00000066726f6d40612e6578616d706c650109000000000000000000000101000000650c0000006d78\
    2e622e6578616d706c651900000003010b0000002f6574632f63612e70656d000000000000000000000000000000000000000000\
    00000000000000000700000000000000020000000d0000006f6e6540622e6578616d706c650d01080000007266633832323b7800\
    0000000000150000002274776f20776f7264732240622e6578616d706c65000000000000000000000000ed7002b439e9ac845f22\
    357d822bac1444730fbdb6016d3ec9432297b9ec9f730007000000636f6e74656e74014d00000000000000010e00000066726f6d\
    40612e6578616d706c650109000000000000000000000101000000650c0000006d782e622e6578616d706c651900000003010b00\
    00002f6574632f63612e70656d000000000000000000000000000000000000000000000000000000000007000000000000000200\
    00000d0000006f6e6540622e6578616d706c650d01080000007266633832323b78000000000000150000002274776f20776f7264\
    732240622e6578616d706c6500000000000000000000000007070707070707070707070707070707070707070707070707070707\
    0707070701404b4c0000000000024d00000000000000030000000000000000000000000000000002000000030103000000776879\
    000000000000034d0000000000000004";

/// Whoever speaks last of an entry is heard, also where both spoke within one sync; and nobody is told what did not happen.
#[tokio::test]
async fn a_hold_or_an_end_that_races_a_release_is_answered_truly() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let waiting = || NewEntry { treatment: Treatment::AsSubmitted, held: Some("policy".into()), ..new_entry("mail") };
    let ids = spool.commit((0..4).map(|_| waiting()).collect()).await.unwrap();
    let seen: Vec<_> = ids.iter().map(|id| spool.entry(*id).unwrap()).collect();
    let new = || vec![new_entry("sealed")];
    // Polled in their order: each is sent before the next begins.
    let (held, replaced) = tokio::join!(spool.hold(ids[0], BY_HAND), spool.replace(&seen[0], new()));
    assert_eq!((held, replaced), (Ok(()), Err(SpoolError::Changed(ids[0]))));
    assert!(spool.entry(ids[0]).unwrap().is_held_by_hand());
    assert_eq!(spool.hold_as(&seen[0], "no certificate").await, Err(SpoolError::Changed(ids[0])));
    let (replaced, held) = tokio::join!(spool.replace(&seen[1], new()), spool.hold(ids[1], BY_HAND));
    assert_eq!((replaced.is_ok(), held), (true, Err(SpoolError::NoEntry(ids[1]))));
    let (replaced, deleted) = tokio::join!(spool.replace(&seen[2], new()), spool.delete(ids[2]));
    assert_eq!((replaced.is_ok(), deleted), (true, Err(SpoolError::NoEntry(ids[2]))));
    let (deleted, replaced) = tokio::join!(spool.delete(ids[3]), spool.replace(&seen[3], new()));
    assert_eq!((deleted, replaced), (Ok(()), Err(SpoolError::NoEntry(ids[3]))));
    assert_eq!(spool.entries().len(), 3);
}

/// Version 2 is version 3 without what is told of clients, version 1 is version 2 without the time of the release: a spool that an older
/// program wrote is read, and what it held is tried from its beginning.
#[test]
fn records_of_versions_1_and_2_are_read() {
    let (content, mut entry) = new_entry("content").into_entry(EntryId(77), Timestamp::UNIX_EPOCH, 7);
    (entry.parameters.client, entry.next_hop.xforward) = (None, false);
    let written = |entry: &Entry| {
        let mut payload = Payload::default();
        payload.put(entry, None, None, content.chunks(10));
        payload.0
    };
    let mut octets = written(&entry);
    let whole = octets.clone();
    let place = |change: &dyn Fn(&mut Entry)| {
        let mut other = entry.clone();
        change(&mut other);
        whole.iter().zip(&written(&other)).position(|(one, other)| one != other).unwrap()
    };
    let read = |octets: &[u8]| match record::read_payload(octets).unwrap().remove(0) {
        Change::Put { entry, .. } => entry,
        other => panic!("{other:?}"),
    };
    assert_eq!(octets[1], 3);
    // Whether there is one, and when.
    let released = place(&|entry| entry.released = Some(entry::micros(later(3))));
    let forwards = place(&|entry| entry.next_hop.xforward = true);
    let client = place(&|entry| entry.parameters.client = Some(Default::default()));
    let sends_as = place(&|entry| entry.sends_as = [Mailbox::parse("a@b.example").unwrap()].into());
    assert!(client < forwards && forwards < sends_as && sends_as < released);
    assert!(octets.drain(sends_as..sends_as + 4).all(|octet| octet == 0));
    assert!(octets.remove(forwards) == 0 && octets.remove(client) == 0);
    octets[1] = 2;
    assert_eq!(read(&octets), entry);
    let released = released - 6;
    assert!(octets.drain(released..released + 9).all(|octet| octet == 0));
    octets[1] = 1;
    assert_eq!((read(&octets), read(&octets).tried_since()), (entry.clone(), entry.created));
    octets[1] = 4;
    assert!(record::read_payload(&octets).is_none(), "of a version that is not known yet");
}

#[test]
fn records_of_older_versions_are_read() {
    let digits = UNVERSIONED.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    let octets: Vec<u8> = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
    fuzz_spool_record(&octets);
    let changes = record::read_payload(&octets).unwrap();
    let mut index = Index::default();
    for change in changes.iter().take(3) {
        index.apply(change.clone(), 1, 0);
    }
    let entry = &index.slots[&EntryId(77)].entry;
    assert_eq!(entry.recipients[0].recipient.parameters.orcpt.as_deref(), Some("rfc822;x"));
    assert_eq!((entry.recipients[0].state, entry.attempts), (RecipientState::Stuck, 3));
    assert_eq!((entry.origin, entry.listener.as_str(), entry.user.as_deref()), (Origin::Outbound, "", None));
    assert_eq!((entry.delay_told, entry.encrypted, entry.treatment), (None, false, Treatment::Finished));
    assert_eq!(&changes[3..], [Change::Done(EntryId(77)), Change::Seal]);
}

#[test]
fn fuzz_body_holds_over_seeds() {
    assert_eq!(record::read_payload(&sample_payload()).unwrap().len(), 12);
    fuzz_spool_record(&sample_payload());
    fuzz_spool_record(b"");
}

proptest! {
    #[test]
    fn fuzz_body_holds(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_spool_record(&data);
    }

    #[test]
    fn fuzz_body_holds_on_mutations(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), cut in any::<usize>()) {
        let mut data = sample_payload();
        for (at, value) in changes {
            let at = at % data.len();
            data[at] = value;
        }
        data.truncate(data.len() - cut % 3);
        fuzz_spool_record(&data);
    }
}

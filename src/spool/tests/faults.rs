use super::*;

/// What was asked of a spool and what it said.
#[derive(Default)]
struct Said {
    taken: Vec<(EntryId, String)>,
    refused: Vec<String>,
    ended: Vec<EntryId>,
    put_off: Vec<EntryId>,
}

fn put_off() -> Outcome {
    let waits = (RecipientState::Waiting, Some("451 later".to_owned()));
    Outcome { recipients: vec![waits; 2], next_attempt: later(500), delay_told: None, new_entries: vec![] }
}

async fn commit(spool: &Spool, said: &mut Said, text: String) {
    match spool.commit(vec![new_entry(&text)]).await {
        Ok(ids) => said.taken.push((ids[0], text)),
        Err(SpoolError::Disk(_)) => said.refused.push(text),
        Err(error) => panic!("{error}"),
    }
}

/// Mail small and big, outcomes, ends; rotation and compaction come with it. Outcomes wait for the disk, as deliveries do.
async fn work(spool: &Spool) -> Said {
    let mut said = Said::default();
    for round in 0..6 {
        commit(spool, &mut said, text(round, 150)).await;
        commit(spool, &mut said, text(round + 100, 300 + 400 * (round % 2))).await;
        if round % 2 == 1 && said.taken.len() > said.ended.len() + 1 {
            let id = said.taken[said.ended.len()].0;
            spool.done(id).await.unwrap();
            said.ended.push(id);
            let id = said.taken.last().unwrap().0;
            spool.settle(id, put_off()).await.unwrap();
            said.put_off.push(id);
        }
    }
    said
}

/// What was said is so: what was taken is there and whole, what was refused or ended is not, and outcomes are known.
async fn holds(spool: &Spool, said: &Said, what: &str) {
    let mut expected: Vec<&str> = Vec::new();
    for (id, text) in said.taken.iter().filter(|(id, _)| !said.ended.contains(id)) {
        assert_eq!(spool.content(*id).await.as_deref(), Ok(text.as_bytes()), "{what}: {id} was taken");
        expected.push(text);
    }
    let count = spool.entries().len();
    assert_eq!(count, expected.len(), "{what}: {} were refused", said.refused.len());
    for id in said.put_off.iter().filter(|id| !said.ended.contains(id)) {
        assert!(spool.entry(*id).unwrap().attempts > 0, "{what}: the outcome of {id}");
    }
}

#[tokio::test]
async fn t6_eio_at_every_write_and_sync_loses_nothing_taken_and_brings_back_nothing_refused() {
    let whole = Simulated::default();
    let said = work(&open(&whole).0).await;
    assert_eq!((said.refused.len(), said.taken.len()), (0, 12));
    let total = whole.state().writes;
    let mut refused = 0;
    for more in [0, 2] {
        for at in 1..=total {
            let disk = Simulated::default();
            (disk.state().fails_at, disk.state().fails_for) = (Some(at), more);
            let (spool, _) = open(&disk);
            let said = work(&spool).await;
            refused += said.refused.len();
            let what = format!("EIO at {at} of {total} and {more} after it");
            holds(&spool, &said, &what).await;
            while !spool.is_healthy() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            commit(&spool, &mut Said::default(), "again".into()).await;
            let again = spool.entries().last().unwrap().id;
            spool.delete(again).await.unwrap();
            drop(spool);
            let (spool, recovered) = open(&disk.after_power_loss(at as u64));
            assert_eq!(recovered.damage, Vec::<String>::new(), "{what}");
            holds(&spool, &said, &what).await;
        }
    }
    println!("EIO at each of {total} writes and syncs, once and three in a row: {refused} mails refused, none lost");
    assert!(refused > 0);
}

#[tokio::test]
async fn t6_on_a_full_disk_outcomes_are_recorded_and_mail_is_taken_again_when_there_is_room() {
    let disk = Simulated::default();
    disk.state().capacity = Some(40_000);
    let (spool, _) = open(&disk);
    let mut said = Said::default();
    while said.refused.is_empty() {
        let number = said.taken.len();
        commit(&spool, &mut said, text(number, 500)).await;
    }
    assert!(said.taken.len() > 20, "{}", said.taken.len());
    assert!(matches!(spool.ready(), Err(SpoolError::Disk(_))));
    // What becomes of the mail is on disk when it is said to be, full as it is.
    for (id, _) in said.taken.clone().into_iter().take(5) {
        spool.settle(id, put_off()).await.unwrap();
        said.put_off.push(id);
    }
    let dsn = Outcome {
        recipients: vec![(RecipientState::Failed, None); 2],
        new_entries: vec![NewEntry { origin: Origin::Dsn, ..new_entry("DSN") }],
        ..put_off()
    };
    let (failed, _) = said.taken[5];
    spool.settle(failed, dsn).await.unwrap();
    said.ended.push(failed);
    let dsn = spool.entries().last().unwrap().id;
    said.taken.push((dsn, "DSN".into()));
    holds(&spool, &said, "full").await;
    assert!(spool.commit(vec![new_entry("more")]).await.is_err());
    drop(spool);
    // A restart on the full disk: what is there is delivered.
    let disk = disk.after_kill();
    let (spool, recovered) = open(&disk);
    assert_eq!(recovered.damage.len(), 0);
    holds(&spool, &said, "full, after a restart").await;
    assert!(!spool.is_healthy());
    for (id, _) in said.taken.clone() {
        if !said.ended.contains(&id) {
            spool.done(id).await.unwrap();
            said.ended.push(id);
        }
    }
    let again = tokio::time::timeout(Duration::from_secs(20), async {
        while spool.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    again.await.expect("what was delivered makes room");
    commit(&spool, &mut said, "again".into()).await;
    holds(&spool, &said, "room again").await;
}

#[tokio::test]
async fn over_the_quota_mail_is_refused_and_outcomes_are_not() {
    let disk = Simulated::default();
    let limits = Limits { quota: 10_000, entries: 6, ..SMALL };
    let spool = Spool::open(Arc::new(disk.clone()), limits).unwrap().0;
    let first = spool.commit(vec![new_entry(&text(1, 500)), new_entry(&text(2, 500))]).await.unwrap();
    assert!(matches!(
        spool.commit(vec![new_entry(&text(3, 6000))]).await,
        Err(SpoolError::Full { limit: 10_000, what: "octets", .. })
    ));
    // Many at once do not overrun it together.
    let many = (0..20).map(|number| {
        let spool = spool.clone();
        tokio::spawn(async move { spool.commit(vec![new_entry(&text(number, 400))]).await })
    });
    let mut taken = 0;
    for one in many.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(_) => taken += 1,
            Err(error) => assert!(matches!(error, SpoolError::Full { .. }), "{error}"),
        }
    }
    assert_eq!((spool.entries().len(), taken <= 4), (2 + taken, true));
    // What was just taken counts twice for a moment: the last place is to be had once that is over.
    while spool.commit(vec![new_entry(&text(taken, 400))]).await.is_ok() {
        taken += 1;
    }
    assert_eq!((taken, spool.entries().len()), (4, 6));
    assert!(matches!(spool.ready(), Err(SpoolError::Full { found: 6, limit: 6, what: "entries" })));
    assert!(spool.is_healthy());
    let failed = Outcome { recipients: vec![(RecipientState::Waiting, None); 2], ..put_off() };
    spool.settle(first[0], Outcome { new_entries: vec![new_entry("DSN")], ..failed }).await.unwrap();
    assert_eq!(spool.entries().len(), 7);
    for id in [first[0], first[1]] {
        spool.done(id).await.unwrap();
    }
    assert_eq!(spool.ready(), Ok(()));
    let sum: u64 = spool.entries().iter().map(|entry| entry.size + 1024).sum();
    assert_eq!(lock(&spool.shared.index).octets, sum);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_is_not_waited_for_and_what_was_refused_is_not_delivered() {
    let disk = Simulated::default();
    let limits = Limits { commit: Duration::from_millis(50), ..SMALL };
    let spool = Spool::open(Arc::new(disk.clone()), limits).unwrap().0;
    let kept = spool.commit(vec![new_entry("kept")]).await.unwrap()[0];
    let hang = Arc::new(Mutex::new(()));
    for (name, size) in [("in the log", 100), ("in a file", 5000)] {
        let held = hang.lock().unwrap();
        disk.state().hangs = Some(Arc::clone(&hang));
        let refused = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(spool.commit(vec![new_entry(&text(1, size))]))
        });
        assert_eq!(refused, Err(SpoolError::Late), "{name}");
        assert!(!spool.is_healthy() && spool.due(later(1)).len() == 1, "{name}");
        disk.state().hangs = None;
        drop(held);
        while !spool.is_healthy() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // After what was under way.
        spool.retry(kept).await.unwrap();
        assert_eq!(spool.entries().len(), 1, "{name}");
        let (after, recovered) = open(&disk.after_power_loss(7));
        assert_eq!((after.entries().len(), recovered.damage.len()), (1, 0), "{name}");
    }
    let bodies = |disk: &Simulated| disk.names().unwrap().iter().filter(|name| name.contains("body")).count();
    while bodies(&disk) > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_before_the_answer_withdraws_the_mail() {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let hang = Arc::new(Mutex::new(()));
    for size in [100, 5000] {
        let held = hang.lock().unwrap();
        disk.state().hangs = Some(Arc::clone(&hang));
        let mut asked = Box::pin(spool.commit(vec![new_entry(&text(1, size))]));
        let waker = std::task::Waker::noop();
        assert!(asked.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        drop(asked);
        disk.state().hangs = None;
        drop(held);
        let last = spool.commit(vec![new_entry("last")]).await.unwrap()[0];
        spool.done(last).await.unwrap();
        assert!(spool.entries().is_empty() && open(&disk.after_kill()).0.entries().is_empty());
    }
}

use std::collections::BTreeMap;

use super::*;
use crate::store::keyring::Kek;

/// Takes all that is due, as a deliverer does. Every content counts.
async fn deliver(spool: &Spool, delivered: &mut BTreeMap<String, usize>) {
    for entry in spool.claim(later(1), |_| usize::MAX) {
        let content = spool.content(entry.id).await.unwrap();
        *delivered.entry(String::from_utf8(content.to_vec()).unwrap()).or_default() += 1;
        spool.done(entry.id).await.unwrap();
    }
}

/// A dead node's disk: small and big mail, one held, one tried before; and what is on it.
async fn dead() -> (Simulated, Vec<String>) {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    let texts = vec![text(1, 100), text(2, 2000), text(3, 300), text(4, 90)];
    let ids = spool.commit(texts.iter().map(|text| new_entry(text)).collect()).await.unwrap();
    spool.hold(ids[3], "look").await.unwrap();
    let waits = (RecipientState::Waiting, Some("451".to_owned()));
    let delivered = (RecipientState::Delivered, None);
    let outcome =
        Outcome { recipients: vec![delivered, waits], next_attempt: later(0), delay_told: None, new_entries: vec![] };
    spool.settle(ids[2], outcome).await.unwrap();
    (disk, texts)
}

#[tokio::test]
async fn r9_a_dead_nodes_spool_is_taken_over_with_all_that_is_known_of_its_mail() {
    let folder = tempfile::tempdir().unwrap();
    let kek = || {
        let file = folder.path().join("kek");
        if file.exists() { Kek::read(&file).unwrap() } else { Kek::create(&file).unwrap() }
    };
    let (theirs, texts) = dead().await;
    let (ours, _) = open(&Simulated::default());
    let own = ours.commit(vec![new_entry("ours")]).await.unwrap()[0];
    let before = open(&theirs).0.entries();
    let adopted = ours.adopt_disk(Arc::new(theirs.clone()), None).await.unwrap();
    let octets = texts.iter().map(|text| text.len() as u64).sum();
    assert_eq!(adopted, Adopted { entries: 4, octets, left: vec![] });
    let after = ours.entries();
    assert_eq!(after[0].id, own);
    for (before, after) in before.iter().zip(&after[1..]) {
        assert_eq!(Entry { id: after.id, ..before.as_ref().clone() }, **after);
    }
    let left: Vec<_> = theirs.names().unwrap();
    assert_eq!(left, ["adopted", "identity"]);
    // The node that comes back does not send it again, and nobody adopts it twice.
    assert!(matches!(Spool::open(Arc::new(theirs.clone()), SMALL), Err(SpoolError::Adopted(_))));
    let (third, _) = open(&Simulated::default());
    assert!(matches!(third.adopt_disk(Arc::new(theirs.clone()), None).await, Err(SpoolError::Adopted(_))));
    assert_eq!(ours.adopt_disk(Arc::new(theirs.clone()), None).await.unwrap(), Adopted::default());
    assert_eq!(ours.entries().len(), 5);
    // Sealed by another node's keys, of the same KEK.
    let sealed = Simulated::default();
    let node = Spool::open_sealed(Arc::new(sealed.clone()), SMALL, kek()).unwrap().0;
    node.commit(vec![new_entry("sealed"), new_entry(&text(1, 5000))]).await.unwrap();
    drop(node);
    let sealed = sealed.after_power_loss(1);
    assert!(matches!(third.adopt_disk(Arc::new(sealed.clone()), None).await, Err(SpoolError::Keys(_))));
    let fourth = Spool::open_sealed(Arc::new(Simulated::default()), SMALL, kek()).unwrap().0;
    fourth.adopt_disk(Arc::new(sealed), Some(kek().into())).await.unwrap();
    let entries = fourth.entries();
    assert_eq!(fourth.content(entries[0].id).await.unwrap(), "sealed");
    assert_eq!(fourth.content(entries[1].id).await.unwrap(), text(1, 5000));
}

#[tokio::test]
async fn r9_a_folder_in_use_or_without_a_spool_is_refused_and_one_that_is_damaged_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs");
    let (ours, _) =
        Spool::open(Arc::new(Folder::open(&folder.path().join("ours")).unwrap()), Limits::default()).unwrap();
    assert!(ours.adopt(&theirs, None).await.is_err() && !theirs.exists());
    let (spool, _) = Spool::open(Arc::new(Folder::open(&theirs).unwrap()), Limits::default()).unwrap();
    spool.commit(vec![new_entry("mail")]).await.unwrap();
    let refused = ours.adopt(&theirs, None).await.unwrap_err().to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    assert!(ours.adopt(&folder.path().join("ours"), None).await.is_err());
    drop(spool);
    while Folder::open(&theirs).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ours.adopt(&theirs, None).await.unwrap().entries, 1);
    let (damaged, texts) = dead().await;
    damaged.damage(&body_name(open(&damaged).0.entries()[1].id), 50);
    let adopted = ours.adopt_disk(Arc::new(damaged.clone()), None).await.unwrap();
    assert_eq!((adopted.entries, adopted.left.len()), (3, 1));
    assert!(damaged.holds(&texts[1].as_bytes()[100..]), "what could not be read is kept");
    let again = ours.adopt_disk(Arc::new(damaged), None).await.unwrap();
    assert_eq!((again.entries, again.left.len()), (0, 1));
}

/// A copy whose original may still be delivered by the node it came from goes by no other way: what takes its place would be there beside it.
#[tokio::test]
async fn r9_a_copy_under_a_takeover_is_not_replaced_and_goes_once_it_is_finished() {
    let theirs = Simulated::default();
    let (node, _) = open(&theirs);
    let submitted = NewEntry { treatment: Treatment::AsSubmitted, held: Some("policy".into()), ..new_entry("mail") };
    node.commit(vec![submitted]).await.unwrap();
    drop(node);
    let (spool, _) = open(&Simulated::default());
    // The other disk goes away when all was read of it, and before it was marked.
    let mut last = theirs.after_kill();
    for at in 0.. {
        last = theirs.after_kill();
        last.state().power_goes_at = Some(at);
        spool.adopt_disk(Arc::new(last.clone()), None).await.unwrap_err();
        if !spool.entries().is_empty() {
            break;
        }
    }
    let copy = spool.entries().remove(0);
    assert_eq!(spool.replace(&copy, vec![new_entry("sealed")]).await, Err(SpoolError::Held(copy.id)));
    assert_eq!(spool.entries().len(), 1, "nothing took its place");
    spool.adopt_disk(Arc::new(last.after_kill()), None).await.unwrap();
    let adopted = spool.entries();
    assert_eq!(adopted.len(), 1);
    spool.replace(&adopted[0], vec![new_entry("sealed")]).await.unwrap();
    let mut delivered = BTreeMap::new();
    deliver(&spool, &mut delivered).await;
    assert_eq!(delivered, BTreeMap::from([("sealed".to_owned(), 1)]));
}

/// Which disk's operation is the last before the crash.
#[derive(Debug, Clone, Copy)]
enum Crash {
    Ours(usize),
    Theirs(usize),
}

/// A crash in the middle of it; then our node delivers what it has, the dead one comes back or not, and it is done again.
async fn crash(at: Crash, chance: u64, comes_back: bool) -> bool {
    let (theirs, texts) = dead().await;
    let theirs = theirs.after_kill();
    let ours = Simulated::default();
    let (spool, _) = open(&ours);
    let now = ours.state().operations;
    match at {
        Crash::Ours(at) => ours.state().power_goes_at = Some(now + at),
        Crash::Theirs(at) => theirs.state().power_goes_at = Some(at),
    }
    let done = tokio::select! {
        done = spool.adopt_disk(Arc::new(theirs.clone()), None) => done.is_ok(),
        () = async {
            while spool.is_healthy() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        } => false,
    };
    drop(spool);
    let (ours, theirs) = (ours.after_power_loss(chance), theirs.after_power_loss(chance + 1));
    let mut delivered = BTreeMap::new();
    let (spool, recovered) = open(&ours);
    assert_eq!(recovered.damage.len(), 0);
    deliver(&spool, &mut delivered).await;
    if comes_back {
        match Spool::open(Arc::new(theirs.clone()), SMALL) {
            Ok((node, _)) => {
                deliver(&node, &mut delivered).await;
                drop(node);
            }
            Err(SpoolError::Adopted(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    spool.adopt_disk(Arc::new(theirs), None).await.unwrap();
    deliver(&spool, &mut delivered).await;
    let held = spool.entries();
    assert!(held.len() == 1 && held[0].held.is_some(), "{at:?} {chance} {comes_back}: {held:?}");
    spool.release(held[0].id).await.unwrap();
    deliver(&spool, &mut delivered).await;
    let once: BTreeMap<String, usize> = texts.into_iter().map(|text| (text, 1)).collect();
    assert_eq!(delivered, once, "{at:?} {chance} {comes_back}");
    done
}

#[tokio::test]
async fn r9_t3_a_crash_anywhere_in_a_takeover_loses_and_doubles_nothing() {
    let (mut crashes, mut all) = (0, 0);
    for at in 0.. {
        let mut done = true;
        for (chance, comes_back) in [(1, false), (2, true), (7, true)] {
            done &= crash(Crash::Ours(at), chance, comes_back).await;
            done &= crash(Crash::Theirs(at), chance, comes_back).await;
            crashes += 2;
        }
        all = at;
        if done {
            break;
        }
    }
    println!("{crashes} takeovers cut off, at up to {all} operations of either disk: each mail delivered once");
    assert!(all > 20);
}

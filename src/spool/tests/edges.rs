use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

use super::*;

/// What an entry is to those who look at it after a restart, by its content.
type View = BTreeMap<String, (EntryState, bool, u32, Vec<RecipientState>, Option<String>)>;

type Step = fn(Spool, Simulated) -> Pin<Box<dyn Future<Output = Result<(), SpoolError>> + Send>>;

/// An edge of the state table in `docs/overview.md`.
struct Edge {
    name: &'static str,
    prepare: Step,
    act: Step,
    /// What is seen after a crash once the act was acknowledged: entries by state, gone ones left out.
    after: &'static [(&'static str, EntryState)],
}

macro_rules! step {
    ($spool:ident, $disk:ident => $body:expr) => {
        |$spool: Spool, $disk: Simulated| {
            Box::pin(async move {
                let _ = (&$spool, &$disk);
                $body
            })
        }
    };
}

async fn one(spool: &Spool) -> Result<EntryId, SpoolError> {
    Ok(spool.commit(vec![new_entry("mail")]).await?[0])
}

/// The one entry that is there.
fn it(spool: &Spool) -> EntryId {
    spool.entries()[0].id
}

fn outcome(states: [RecipientState; 2], new_entries: Vec<NewEntry>) -> Outcome {
    let recipients = states.map(|state| (state, Some("said so".to_owned()))).to_vec();
    Outcome { recipients, next_attempt: later(500), delay_told: None, new_entries }
}

async fn claimed(spool: &Spool) -> Result<(), SpoolError> {
    one(spool).await?;
    assert_eq!(spool.claim(later(1), |_| 1).len(), 1);
    Ok(())
}

const NOTHING: Step = step!(spool, disk => Ok(()));
const WAITING: Step = step!(spool, disk => one(&spool).await.map(drop));
const CLAIMED: Step = step!(spool, disk => claimed(&spool).await);
const HELD: Step = step!(spool, disk => {
    let id = one(&spool).await?;
    spool.hold(id, "look").await
});

use EntryState::{Held, Waiting};
use RecipientState::{Delivered, Failed, Quarantined, Stuck};

/// Every edge, in the table's order.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn edges() -> Vec<Edge> {
    let edge = |name, prepare, act, after| Edge { name, prepare, act, after };
    vec![
        edge("commit", NOTHING, step!(spool, disk => one(&spool).await.map(drop)), &[("mail", Waiting)]),
        edge(
            "commit, several",
            NOTHING,
            step!(spool, disk => spool.commit(vec![new_entry("a"), new_entry(&text(1, 900)), new_entry("c")]).await.map(drop)),
            &[("1:900", Waiting), ("a", Waiting), ("c", Waiting)],
        ),
        edge(
            "commit, held",
            NOTHING,
            step!(spool, disk => {
                let held = NewEntry { treatment: Treatment::AsSubmitted, ..new_entry("mail") };
                spool.commit(vec![held]).await.map(drop)
            }),
            &[("mail", Held)],
        ),
        edge(
            "claim",
            WAITING,
            step!(spool, disk => {
                spool.claim(later(1), |_| 1);
                Ok(())
            }),
            &[("mail", Waiting)],
        ),
        edge(
            "give back",
            CLAIMED,
            step!(spool, disk => {
                spool.give_back(it(&spool));
                Ok(())
            }),
            &[("mail", Waiting)],
        ),
        edge(
            "settle, some wait",
            CLAIMED,
            step!(spool, disk => {
                let dsn = vec![new_entry("delay DSN")];
                spool.settle(it(&spool), outcome([Delivered, RecipientState::Waiting], dsn)).await
            }),
            &[("delay DSN", Waiting), ("mail", Waiting)],
        ),
        edge(
            "settle, some stuck",
            CLAIMED,
            step!(spool, disk => spool.settle(it(&spool), outcome([Delivered, Stuck], vec![])).await),
            &[("mail", Held)],
        ),
        edge(
            "settle, some quarantined",
            CLAIMED,
            step!(spool, disk => spool.settle(it(&spool), outcome([Delivered, Quarantined], vec![])).await),
            &[("mail", Held)],
        ),
        edge(
            "settle, all done",
            CLAIMED,
            step!(spool, disk => {
                let dsn = vec![new_entry("DSN"), new_entry(&text(2, 900))];
                spool.settle(it(&spool), outcome([Delivered, Failed], dsn)).await
            }),
            &[("2:900", Waiting), ("DSN", Waiting)],
        ),
        edge("hold", WAITING, step!(spool, disk => spool.hold(it(&spool), "look").await), &[("mail", Held)]),
        edge("hold, claimed", CLAIMED, step!(spool, disk => spool.hold(it(&spool), "look").await), &[("mail", Held)]),
        edge(
            "settle, held meanwhile",
            step!(spool, disk => {
                claimed(&spool).await?;
                spool.hold(it(&spool), "look").await
            }),
            step!(spool, disk => spool.settle(it(&spool), outcome([Delivered, RecipientState::Waiting], vec![])).await),
            &[("mail", Held)],
        ),
        edge(
            "retry",
            step!(spool, disk => {
                claimed(&spool).await?;
                spool.settle(it(&spool), outcome([Delivered, RecipientState::Waiting], vec![])).await
            }),
            step!(spool, disk => spool.retry(it(&spool)).await),
            &[("mail", Waiting)],
        ),
        edge("release", HELD, step!(spool, disk => spool.release(it(&spool)).await), &[("mail", Waiting)]),
        edge(
            "release, quarantined",
            step!(spool, disk => {
                claimed(&spool).await?;
                spool.settle(it(&spool), outcome([Quarantined, Stuck], vec![])).await
            }),
            step!(spool, disk => {
                spool.release(it(&spool)).await?;
                let states: Vec<_> = spool.entries()[0].recipients.iter().map(|one| one.state).collect();
                // Not kept back again, and that alone.
                assert_eq!(states, [RecipientState::Released, RecipientState::Waiting]);
                Ok(())
            }),
            &[("mail", Waiting)],
        ),
        edge(
            "replace",
            step!(spool, disk => {
                let held = NewEntry { treatment: Treatment::AsSubmitted, ..new_entry("mail") };
                spool.commit(vec![held]).await.map(drop)
            }),
            step!(spool, disk => {
                spool.replace(&spool.entry(it(&spool)).unwrap(), vec![new_entry("sealed"), new_entry(&text(3, 900))]).await.map(drop)
            }),
            &[("3:900", Waiting), ("sealed", Waiting)],
        ),
        edge("done", CLAIMED, step!(spool, disk => spool.done(it(&spool)).await), &[]),
        edge(
            "delete",
            step!(spool, disk => spool.commit(vec![new_entry(&text(4, 900))]).await.map(drop)),
            step!(spool, disk => spool.delete(it(&spool)).await),
            &[],
        ),
        edge(
            "withdraw",
            NOTHING,
            step!(spool, disk => {
                let mut asked = Box::pin(spool.commit(vec![new_entry("late")]));
                let _ = asked.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
                drop(asked);
                // What comes after it in the log is acknowledged after it.
                one(&spool).await?;
                let late = |entry: &Arc<Entry>| entry.size == 4 && entry.id != spool.entries().last().map_or(entry.id, |last| last.id);
                let left: Vec<EntryId> = spool.entries().iter().filter(|entry| late(entry)).map(|entry| entry.id).collect();
                for id in left {
                    spool.delete(id).await?;
                }
                Ok(())
            }),
            &[("mail", Waiting)],
        ),
        edge(
            "segment begun",
            WAITING,
            step!(spool, disk => {
                for number in 0..8 {
                    let id = spool.commit(vec![new_entry(&text(number, 550))]).await?[0];
                    spool.done(id).await?;
                }
                Ok(())
            }),
            &[("mail", Waiting)],
        ),
        edge(
            "compaction",
            step!(spool, disk => {
                for number in 0..3 {
                    spool.commit(vec![new_entry(&text(number, 550))]).await?;
                }
                one(&spool).await.map(drop)
            }),
            step!(spool, disk => {
                for entry in spool.entries().iter().take(3) {
                    spool.done(entry.id).await?;
                }
                // The last of them is moved on by what is behind it.
                for number in 0..30 {
                    let id = spool.commit(vec![new_entry(&text(number, 550))]).await?[0];
                    spool.done(id).await?;
                }
                Ok(())
            }),
            &[("mail", Waiting)],
        ),
        edge(
            "trouble",
            WAITING,
            step!(spool, disk => {
                disk.state().fails_at = Some(disk.state_writes() + 1);
                assert!(spool.commit(vec![new_entry("refused")]).await.is_err());
                disk.state().fails_at = None;
                spool.hold(it(&spool), "look").await
            }),
            &[("mail", Held)],
        ),
        edge(
            "adopt",
            NOTHING,
            step!(spool, disk => {
                let theirs = Simulated::default();
                one(&open(&theirs).0).await?;
                spool.adopt_disk(Arc::new(theirs), None).await.map(drop)
            }),
            &[("mail", Waiting)],
        ),
    ]
}

async fn view(spool: &Spool) -> View {
    let mut view = View::new();
    for listed in spool.list(&Filter::default(), None, 1000).entries {
        let entry = listed.entry;
        let content = String::from_utf8(spool.content(entry.id).await.unwrap().to_vec()).unwrap();
        let due = entry.next_attempt <= later(60);
        let states = entry.recipients.iter().map(|one| one.state).collect();
        let seen = (listed.state, due, entry.attempts, states, entry.held.clone());
        assert!(view.insert(content, seen).is_none(), "twice");
    }
    view
}

async fn reopened(disk: &Simulated, what: &str) -> View {
    let (spool, recovered) = open(disk);
    assert_eq!(recovered.damage, Vec::<String>::new(), "{what}");
    view(&spool).await
}

fn states(view: &View) -> Vec<(String, EntryState)> {
    let short = |content: &String| content.split(':').take(2).collect::<Vec<_>>().join(":");
    view.iter().map(|(content, seen)| (short(content), seen.0)).collect()
}

/// The act until it is acknowledged, or the power is gone.
async fn act(edge: &Edge, spool: &Spool, disk: &Simulated, power: bool) -> Option<Result<(), SpoolError>> {
    let gone = async {
        while spool.is_healthy() || !power {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    tokio::select! {
        done = (edge.act)(spool.clone(), disk.clone()) => Some(done),
        () = gone => None,
    }
}

/// Crashes before each operation of an edge, and after it: the edge was taken whole or not at all, and once acknowledged, taken.
async fn walk(edge: &Edge) -> usize {
    let disk = Simulated::default();
    let (spool, _) = open(&disk);
    (edge.prepare)(spool.clone(), disk.clone()).await.unwrap();
    let (before, first) = (reopened(&disk.after_kill(), edge.name).await, disk.state().operations);
    act(edge, &spool, &disk, false).await.unwrap().unwrap();
    let (after, last) = (reopened(&disk.after_kill(), edge.name).await, disk.state().operations);
    let expected: Vec<_> = edge.after.iter().map(|(content, state)| ((*content).to_owned(), *state)).collect();
    assert_eq!(states(&after), expected, "{}", edge.name);
    drop(spool);
    let mut crashes = 0;
    for at in 0..=last - first {
        let disk = Simulated::default();
        let (spool, _) = open(&disk);
        (edge.prepare)(spool.clone(), disk.clone()).await.unwrap();
        let now = disk.state().operations;
        disk.state().power_goes_at = Some(now + at);
        let done = act(edge, &spool, &disk, true).await;
        drop(spool);
        for chance in 0..4 {
            let what = format!("{}: {at} operations, {done:?}, chance {chance}", edge.name);
            let disk = if chance == 0 { disk.after_kill() } else { disk.after_power_loss(chance + at as u64) };
            let seen = reopened(&disk, &what).await;
            let whole = edge.name == "segment begun"
                || edge.name == "compaction"
                || edge.name == "withdraw"
                || edge.name == "trouble";
            if matches!(done, Some(Ok(()))) {
                assert_eq!(seen, after, "{what}");
            } else if whole {
                // These are several acts: what was there is there.
                assert!(edge.name == "withdraw" || seen.contains_key("mail"), "{what}: {seen:?}");
            } else {
                assert!(seen == before || seen == after || is_adopting(edge, &seen), "{what}: {seen:?}");
            }
            crashes += 1;
        }
    }
    crashes
}

/// Half of a takeover: nothing of it is due.
fn is_adopting(edge: &Edge, seen: &View) -> bool {
    edge.name == "adopt" && seen.values().all(|seen| seen.0 == Held)
}

#[tokio::test]
async fn t3_a_crash_before_and_after_every_edge_of_the_state_table() {
    let overview = include_str!("../../../docs/overview.md");
    let table = overview.split("## States of the spool").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let written: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .filter(|name| *name != "Edge")
        .map(str::trim)
        .collect();
    let walked: BTreeSet<&str> = edges().iter().map(|edge| edge.name).collect();
    assert_eq!(written, walked, "the table in docs/overview.md and the edges walked here");
    let mut crashes = 0;
    for edge in &edges() {
        crashes += walk(edge).await;
    }
    println!("{} edges, {crashes} crashes: each edge taken whole or not at all", walked.len());
}

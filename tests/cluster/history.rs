//! A random history of changes and readings on three nodes, checked against a model: who writes reads what was written, and every node sees the
//! states of an owner in one order.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use waxwing::policy::TrustState;
use waxwing::store::CertStore;

use super::support::etcd::{Members, installed};
use super::{SOON, Site, certificate, identity, owner, until};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Pinned certificates only grow in number here: each write adds one, so that the number of an owner is the version of what is read.
#[test]
fn t08_a_random_history_agrees_with_a_model() {
    if !installed() {
        return;
    }
    let mut members = Members::start();
    let site = Site::found(&members);
    let nodes = [site.gateway("a"), site.gateway("b"), site.gateway("c")];
    let people = ["p0@ours.example", "p1@ours.example", "p2@ours.example", "p3@ours.example"];
    let written: Mutex<BTreeMap<&str, usize>> = Mutex::default();
    let seed = std::process::id() as u64 + 1;
    println!("seed {seed}");
    let reads = std::thread::scope(|scope| {
        let workers: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| {
                let written = &written;
                scope.spawn(move || {
                    let mut random = Random(seed * 7 + at as u64 + 1);
                    let (mut seen, mut reads): (BTreeMap<&str, usize>, _) = (BTreeMap::new(), 0);
                    for _ in 0..60 {
                        let who = people[random.below(people.len() as u64) as usize];
                        let before = seen.get(who).copied().unwrap_or(0);
                        if random.below(3) == 0 {
                            node.add_certificates(&owner(who), vec![certificate(who, false)]).unwrap();
                            *written.lock().unwrap().entry(who).or_default() += 1;
                            let now = identity(node, who).certificates.len();
                            assert!(now > before, "{who} on node {at}: {now} after a write, {before} before");
                            seen.insert(who, now);
                        } else {
                            let now = identity(node, who).certificates.len();
                            assert!(now >= before, "{who} on node {at}: {now} after {before}");
                            seen.insert(who, now);
                            reads += 1;
                        }
                        std::thread::sleep(Duration::from_millis(random.below(20)));
                    }
                    reads
                })
            })
            .collect();
        // Meanwhile the leader is killed and comes back.
        std::thread::sleep(Duration::from_millis(300));
        let leader = members.leader().unwrap();
        members.kill(leader);
        std::thread::sleep(Duration::from_secs(1));
        members.restart(leader);
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
    });
    let written = written.into_inner().unwrap();
    for node in &nodes {
        for (who, count) in &written {
            until("all that was written is everywhere, once", SOON, || {
                identity(node, who).certificates.len() == *count
            });
            assert!(identity(node, who).certificates.iter().all(|one| one.trust == TrustState::Trusted));
        }
    }
    println!("{} writes, {reads} reads, one leader killed", written.values().sum::<usize>());
}

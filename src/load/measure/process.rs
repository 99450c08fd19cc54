//! Processor time and memory of processes and their children, out of what /proc says.

use std::collections::HashMap;
use std::time::Duration;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// In the report.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// Its children, and theirs, count too: those that are there, and those that ended while we looked.
    pub children: bool,
}

/// What processes used while they were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// As it was named.
    pub name: String,
    /// The first process.
    pub pid: u32,
    /// Processor time in its own code, in microseconds.
    pub user: u64,
    /// Processor time in the kernel, in microseconds.
    pub system: u64,
    /// The most memory at any look: resident octets, summed; what processes share counts for each of them.
    pub peak_rss: u64,
    /// Over time.
    pub looks: Vec<Look>,
}

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Since the origin, in microseconds.
    pub at: u64,
    /// Processor time since the first look, in microseconds.
    pub cpu: u64,
    /// Resident octets.
    pub rss: u64,
}

/// What `/proc/PID/stat` says (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Ticks in its own code.
    pub user: u64,
    /// Ticks in the kernel.
    pub system: u64,
    /// The same of children that ended and were waited for.
    pub children_user: u64,
    /// The same of children that ended and were waited for.
    pub children_system: u64,
    /// When it started, in ticks since boot: tells it from another one with its number.
    pub started: u64,
    /// Resident pages.
    pub pages: u64,
}

/// Units of the kernel's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Units {
    /// Ticks in a second.
    pub ticks: u64,
    /// Octets of a page.
    pub page: u64,
}

impl Default for Units {
    fn default() -> Self {
        Self { ticks: 100, page: 4096 }
    }
}

impl Units {
    /// Out of `/proc/self/auxv` of a 64-bit machine (getauxval(3): AT_CLKTCK is 17, AT_PAGESZ is 6); the usual ones where it says nothing.
    pub fn read(auxv: &[u8]) -> Self {
        let mut units = Self::default();
        let (words, _) = auxv.as_chunks::<8>();
        for pair in words.chunks_exact(2) {
            match pair.iter().map(|word| u64::from_ne_bytes(*word)).collect::<Vec<_>>()[..] {
                [17, ticks] if ticks > 0 => units.ticks = ticks,
                [6, page] if page > 0 => units.page = page,
                _ => {}
            }
        }
        units
    }

    fn micros(self, ticks: u64) -> u64 {
        u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(self.ticks.max(1))).unwrap_or(u64::MAX)
    }
}

/// Reads `/proc/PID/stat`. A command's name stands in brackets and may itself hold brackets, blanks, line ends, and octets that are no
/// text: it ends at the last bracket.
pub fn stat(octets: &[u8]) -> Option<Stat> {
    let open = octets.iter().position(|octet| *octet == b'(')?;
    let close = octets.iter().rposition(|octet| *octet == b')').filter(|close| *close > open)?;
    let pid = std::str::from_utf8(octets.get(..open)?).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(octets.get(close + 1..)?).ok()?;
    // From the third field on, as proc(5) counts them.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
    let ticks = |number| field(number)?.parse::<u64>().ok();
    // Of children the kernel counts with a sign.
    let signed = |number| Some(u64::try_from(field(number)?.parse::<i64>().ok()?).unwrap_or(0));
    Some(Stat {
        pid,
        parent: field(4)?.parse().ok()?,
        user: ticks(14)?,
        system: ticks(15)?,
        children_user: signed(16)?,
        children_system: signed(17)?,
        started: ticks(22)?,
        pages: signed(24)?,
    })
}

/// Looks kept at most; one more, and every other one goes.
const LOOKS: usize = 512;

/// A process and its children over time.
#[derive(Debug)]
pub struct Family {
    watch: Watch,
    units: Units,
    members: HashMap<u32, Stat>,
    /// Ticks, user and system, of members that ended and that nobody waited for.
    gone: [u64; 2],
    /// Ticks at the first look.
    before: Option<[u64; 2]>,
    used: [u64; 2],
    peak: u64,
    looks: Vec<Look>,
    /// Looks seen; one in `every` is kept.
    seen: u64,
    every: u64,
    last: Option<Look>,
}

impl Family {
    /// Of nothing yet.
    pub fn new(watch: Watch, units: Units) -> Self {
        Self {
            watch,
            units,
            members: HashMap::new(),
            gone: [0; 2],
            before: None,
            used: [0; 2],
            peak: 0,
            looks: Vec::new(),
            seen: 0,
            every: 1,
            last: None,
        }
    }

    /// Takes in all processes that there are, at a time since the origin.
    pub fn look(&mut self, since: Duration, all: &[Stat]) {
        let now = self.alive(all);
        self.count_gone(&now);
        self.members = now;
        let mut ticks = self.gone;
        let mut pages: u64 = 0;
        for member in self.members.values() {
            let [user, system] = self.ticks(member);
            ticks = [ticks[0].saturating_add(user), ticks[1].saturating_add(system)];
            pages = pages.saturating_add(member.pages);
        }
        let before = *self.before.get_or_insert(ticks);
        for ((used, now), before) in self.used.iter_mut().zip(ticks).zip(before) {
            // A child that nobody waits for may make the sum smaller; what was used was used.
            *used = (*used).max(now.saturating_sub(before));
        }
        let rss = pages.saturating_mul(self.units.page);
        self.peak = self.peak.max(rss);
        let at = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.keep(Look { at, cpu: self.units.micros(self.used[0].saturating_add(self.used[1])), rss });
    }

    /// What was used between the first look and the last.
    pub fn usage(&self) -> Usage {
        let mut looks = self.looks.clone();
        looks.extend(self.last.filter(|last| looks.last() != Some(last)));
        Usage {
            name: self.watch.name.clone(),
            pid: self.watch.pid,
            user: self.units.micros(self.used[0]),
            system: self.units.micros(self.used[1]),
            peak_rss: self.peak,
            looks,
        }
    }

    fn keep(&mut self, look: Look) {
        self.last = Some(look);
        if self.seen.is_multiple_of(self.every) {
            self.looks.push(look);
        }
        self.seen = self.seen.saturating_add(1);
        if self.looks.len() > LOOKS {
            let mut number = 0_usize;
            self.looks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.every = self.every.saturating_mul(2);
        }
    }

    fn ticks(&self, of: &Stat) -> [u64; 2] {
        match self.watch.children {
            true => [of.user.saturating_add(of.children_user), of.system.saturating_add(of.children_system)],
            false => [of.user, of.system],
        }
    }

    /// The process, who was of the family before, and all their children.
    fn alive(&self, all: &[Stat]) -> HashMap<u32, Stat> {
        let mut children: HashMap<u32, Vec<&Stat>> = HashMap::new();
        let mut wanted = Vec::new();
        for one in all {
            children.entry(one.parent).or_default().push(one);
            let known = match self.members.get(&one.pid) {
                Some(known) => known.started == one.started,
                // Another process that got its number later is not it.
                None => one.pid == self.watch.pid && self.before.is_none(),
            };
            if known {
                wanted.push(one);
            }
        }
        let mut found = HashMap::new();
        while let Some(one) = wanted.pop() {
            if found.insert(one.pid, *one).is_none() && self.watch.children {
                wanted.extend(children.get(&one.pid).into_iter().flatten());
            }
        }
        found
    }

    /// Members that ended: who waited for them has their time; where nobody of the family is left to have waited, it is kept here.
    fn count_gone(&mut self, now: &HashMap<u32, Stat>) {
        for (pid, ended) in self.members.iter().filter(|(pid, _)| !now.contains_key(pid)) {
            let (mut child, mut waited, mut steps) = (*pid, false, 0);
            while let Some(parent) = self.members.get(&child).map(|child| child.parent) {
                waited |= now.contains_key(&parent);
                child = parent;
                steps += 1;
                if waited || steps > self.members.len() {
                    break;
                }
            }
            if !waited {
                let [user, system] = self.ticks(ended);
                self.gone = [self.gone[0].saturating_add(user), self.gone[1].saturating_add(system)];
            }
        }
    }
}

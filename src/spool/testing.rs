//! A simulated disk that forgets what was not synced and fails where it is told to, and mail for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::disk::{Disk, DiskFile};
use super::{Limits, NewEntry, Recovered, Spool};
use crate::address::{Mailbox, ReversePath};
use crate::config::{Direction, HopTls, NextHop};
use crate::mime::rope::Rope;
use crate::smtp::command::{Envelope, MailParameters, RcptParameters, Recipient};
use crate::smtp::xforward::{Forwarded, Source};

/// A disk in memory.
#[derive(Clone, Default)]
pub(in crate::spool) struct Simulated(Arc<Mutex<State>>);

#[derive(Clone, Default)]
pub(in crate::spool) struct State {
    /// Names as they are now, and as they are for certain after power loss.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Octets, and how many of them are durable.
    files: HashMap<u64, (Vec<u8>, usize)>,
    next: u64,
    /// Operations done: all, and those that change something.
    pub operations: usize,
    pub writes: usize,
    /// The operation at which the power goes.
    pub power_goes_at: Option<usize>,
    /// The changing operation that fails (EIO), and how many after it do too.
    pub fails_at: Option<usize>,
    pub fails_for: usize,
    /// A test of the tests: this disk lies.
    pub syncs_do_nothing: bool,
    pub full: bool,
    /// Octets that fit.
    pub capacity: Option<usize>,
    /// Changing operations wait for as long as this is held by somebody else.
    pub hangs: Option<Arc<Mutex<()>>>,
}

struct SimulatedFile(Simulated, u64);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    /// A sync that fails drops what was to be written, as Linux does.
    Sync(u64),
}

impl Simulated {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Changing operations done.
    pub fn state_writes(&self) -> usize {
        self.state().writes
    }

    fn with<T>(&self, kind: Kind, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let hangs = if kind == Kind::Read { None } else { self.state().hangs.clone() };
        let _until = hangs.as_ref().map(|hangs| hangs.lock().unwrap());
        let mut state = self.state();
        state.operations += 1;
        if state.power_goes_at.is_some_and(|at| state.operations > at) {
            return Err(io::Error::other("no power"));
        }
        if kind != Kind::Read {
            state.writes += 1;
            let (writes, more) = (state.writes, state.fails_for);
            if state.fails_at.is_some_and(|at| (at..=at.saturating_add(more)).contains(&writes)) {
                if let Kind::Sync(id) = kind
                    && let Some((octets, synced)) = state.files.get_mut(&id)
                {
                    let len = octets.len();
                    octets.truncate(*synced);
                    octets.resize(len, 0);
                }
                return Err(io::Error::other("EIO"));
            }
        }
        act(&mut state)
    }

    /// The disk after power loss: each name as synced or as it was; of un-synced octets a part that `chance` picks, sector by sector.
    pub fn after_power_loss(&self, chance: u64) -> Self {
        let state = self.state();
        let mut random = chance.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut files = HashMap::new();
        let ids: BTreeSet<_> = state.files.keys().collect();
        for id in ids {
            let (octets, synced) = &state.files[id];
            let mut kept = octets.clone();
            let keep = if octets.len() > *synced {
                synced + usize::try_from(draw()).unwrap_or(0) % (octets.len() - synced + 1)
            } else {
                octets.len()
            };
            kept.truncate(keep);
            for sector in kept[keep.min(*synced)..].chunks_mut(64) {
                if draw() % 3 == 0 {
                    sector.fill(0);
                }
            }
            files.insert(*id, (kept.clone(), kept.len()));
        }
        // A name change without a folder sync may have come through or not, each for itself.
        let mut names = BTreeMap::new();
        for name in state.names.keys().chain(state.durable_names.keys()).collect::<BTreeSet<_>>() {
            let from = if draw() % 2 == 0 { &state.durable_names } else { &state.names };
            if let Some(id) = from.get(name) {
                names.insert(name.clone(), *id);
            }
        }
        let new = State { durable_names: names.clone(), names, files, next: state.next, ..State::default() };
        Simulated(Arc::new(Mutex::new(new)))
    }

    /// The disk after the process was killed: all that was written is there.
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let mut new = State { fails_at: None, power_goes_at: None, hangs: None, ..state.clone() };
        (new.operations, new.writes) = (0, 0);
        Simulated(Arc::new(Mutex::new(new)))
    }

    pub fn read_all(&self, name: &str) -> io::Result<Vec<u8>> {
        self.with(Kind::Read, |state| {
            let id = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
            Ok(state.files[id].0.clone())
        })
    }

    pub fn damage(&self, name: &str, at: usize) {
        let mut state = self.state();
        let id = state.names[name];
        state.files.get_mut(&id).unwrap().0[at] ^= 0x55;
    }

    /// Whether the octets are anywhere on it.
    pub fn holds(&self, octets: &[u8]) -> bool {
        self.state().files.values().any(|(all, _)| memchr::memmem::find(all, octets).is_some())
    }
}

impl State {
    fn used(&self) -> usize {
        let named: BTreeSet<_> = self.names.values().collect();
        named.into_iter().map(|id| self.files[id].0.len()).sum()
    }
}

impl Disk for Simulated {
    fn names(&self) -> io::Result<Vec<String>> {
        self.with(Kind::Read, |state| Ok(state.names.keys().cloned().collect()))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.with(Kind::Write, |state| {
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.next += 1;
            let id = state.next;
            state.names.insert(name.into(), id);
            state.files.insert(id, (Vec::new(), 0));
            Ok(Box::new(SimulatedFile(self.clone(), id)) as Box<dyn DiskFile>)
        })
    }
    fn len(&self, name: &str) -> io::Result<u64> {
        self.read_all(name).map(|octets| octets.len() as u64)
    }
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let all = self.read_all(name)?;
        let start = usize::try_from(offset).unwrap();
        all.get(start..start + len).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(Kind::Write, |state| {
            let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.into(), id);
            Ok(())
        })
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(Kind::Write, |state| {
            state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.with(Kind::Write, |state| {
            if !state.syncs_do_nothing {
                state.durable_names = state.names.clone();
            }
            Ok(())
        })
    }
}

impl DiskFile for SimulatedFile {
    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.with(Kind::Write, |state| {
            let room = state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(state.used()));
            if state.full || octets.len() > room {
                // Part of it is written, as a real disk does.
                let part = if state.full { 0 } else { room };
                state.files.get_mut(&self.1).unwrap().0.extend_from_slice(&octets[..part]);
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.files.get_mut(&self.1).unwrap().0.extend_from_slice(octets);
            Ok(())
        })
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.with(Kind::Sync(self.1), |state| {
            if !state.syncs_do_nothing {
                let file = state.files.get_mut(&self.1).unwrap();
                file.1 = file.0.len();
            }
            Ok(())
        })
    }
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.0.with(Kind::Write, |state| {
            let file = state.files.get_mut(&self.1).unwrap();
            file.0.truncate(usize::try_from(len).unwrap());
            file.1 = file.1.min(file.0.len());
            Ok(())
        })
    }
}

/// Small enough that everything happens.
pub(in crate::spool) const SMALL: Limits = Limits {
    segment: 3000,
    inline: 600,
    quota: u64::MAX,
    entries: u64::MAX,
    reserve: 4000,
    commit: Duration::from_secs(30),
    probe: Duration::from_millis(10),
};

pub(in crate::spool) fn open(disk: &Simulated) -> (Spool, Recovered) {
    Spool::open(Arc::new(disk.clone()), SMALL).unwrap()
}

pub(in crate::spool) fn new_entry(text: &str) -> NewEntry {
    let recipient =
        |address: &str| Recipient { mailbox: Mailbox::parse(address).unwrap(), parameters: RcptParameters::default() };
    let envelope = Envelope {
        reverse_path: ReversePath::Mailbox(Mailbox::parse("from@a.example").unwrap()),
        parameters: MailParameters {
            size: Some(9),
            envid: Some("e".into()),
            client: Some(Arc::new(Forwarded {
                address: Some("2001:db8::7".parse().unwrap()),
                port: Some(25),
                helo: Some("a.example".into()),
                source: Some(Source::Remote),
                ..Forwarded::default()
            })),
            ..MailParameters::default()
        },
        recipients: vec![recipient("one@b.example"), recipient("\"two words\"@b.example")],
    };
    let next_hop = NextHop {
        tls: HopTls::Verified,
        ca: Some("/etc/ca.pem".into()),
        xforward: true,
        ..NextHop::new("mx.b.example", 25)
    };
    NewEntry::new(envelope, next_hop, Direction::Outbound, Rope::from(Bytes::from(text.to_owned())))
}

/// A content that tells whether it is whole.
pub(in crate::spool) fn text(number: usize, len: usize) -> String {
    format!("{number}:{len}:").chars().chain("abcdefghij".chars().cycle()).take(len).collect()
}

pub(in crate::spool) fn later(seconds: i64) -> Timestamp {
    Timestamp::now() + Duration::from_secs(u64::try_from(seconds).unwrap())
}

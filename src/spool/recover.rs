//! Reading the log at start.

use std::collections::BTreeMap;
use std::io;

use super::disk::Disk;
use super::record::{Begun, Change, read_payload};
use super::scan::Scan;
use super::{Body, EntryId, Index, Recovered, body_name, segment_name};

/// What recovery found.
pub(super) struct Found {
    pub(super) index: Index,
    pub(super) recovered: Recovered,
    /// Where the log ends.
    pub(super) end: Begun,
    /// Segments with damage: kept aside for a person to look at.
    pub(super) damaged: Vec<u64>,
    /// The greatest id there ever was, as far as the log tells.
    pub(super) last_id: u64,
}

pub(super) fn recover(disk: &dyn Disk) -> io::Result<Found> {
    let names = disk.names()?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".log"))
        .filter_map(|number| u64::from_str_radix(number, 16).ok())
        .collect();
    numbers.sort_unstable();
    let mut found = Found {
        index: Index::default(),
        recovered: Recovered::default(),
        end: Begun { previous: 0, len: 0, torn: false },
        damaged: Vec::new(),
        last_id: 0,
    };
    let ends = found.ends(disk, &numbers)?;
    for number in &numbers {
        found.segment(disk, *number, ends.get(number))?;
    }
    found.bodies(disk, &names);
    found.recovered.entries = found.index.slots.len();
    Ok(found)
}

impl Found {
    /// What the segments say of the ones before them.
    fn ends(&mut self, disk: &dyn Disk, numbers: &[u64]) -> io::Result<BTreeMap<u64, Begun>> {
        let mut ends = BTreeMap::new();
        for number in numbers {
            let len = disk.len(&segment_name(*number))?;
            let mut scan = Scan::new(disk, *number, len.min(1024));
            let Some((_, first)) = scan.next()? else { continue };
            if let Some([Change::Begun(begun), ..]) = read_payload(first.payload).as_deref() {
                ends.insert(begun.previous, *begun);
                let missing = numbers.first().is_some_and(|oldest| *oldest < begun.previous)
                    && numbers.binary_search(&begun.previous).is_err();
                if missing {
                    self.recovered.damage.push(format!("segment {}: missing", segment_name(begun.previous)));
                }
            }
        }
        Ok(ends)
    }

    fn segment(&mut self, disk: &dyn Disk, number: u64, end: Option<&Begun>) -> io::Result<()> {
        let name = segment_name(number);
        let len = disk.len(&name)?;
        // What lies behind the end was refused, whatever it is.
        let counts = end.map_or(len, |end| end.len.min(len));
        let seen = self.records(disk, number, counts)?;
        // A frame that is the last may be torn, unless it is known that it was whole.
        let known_whole = seen.sealed || end.is_some_and(|end| !end.torn);
        let cut = end.is_some_and(|end| end.len > len);
        let damaged = seen.lost || cut || known_whole && (seen.bad > 0 || seen.incomplete);
        self.index.segments.entry(number).or_default().len = len;
        self.end = Begun { previous: number, len: counts, torn: seen.bad > 0 || seen.incomplete };
        if damaged {
            self.damaged.push(number);
            self.recovered.damage.push(format!("segment {name}: {} octets unreadable", seen.bad.max(u64::from(cut))));
        } else {
            self.recovered.torn = self.recovered.torn.saturating_add(seen.bad).saturating_add(len - counts);
        }
        Ok(())
    }

    /// Applies all records. A frame was synced before the next began: what is missing in it is lost.
    fn records(&mut self, disk: &dyn Disk, number: u64, len: u64) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let mut scan = Scan::new(disk, number, len);
        // The frame being read, and how many of its records came.
        let (mut frame, mut came, mut of) = (0, 0, 0);
        while let Some((offset, record)) = scan.next()? {
            if record.frame != frame {
                // Its own records, or whole frames before it.
                seen.lost |= came != of || record.frame > frame.saturating_add(1);
                (frame, came, of) = (record.frame, 0, record.count);
            }
            came += 1;
            let changes = read_payload(record.payload);
            seen.lost |= changes.is_none();
            for change in changes.unwrap_or_default() {
                seen.sealed |= change == Change::Seal;
                if let Change::Put { entry, .. } = &change {
                    self.last_id = self.last_id.max(entry.id.0);
                }
                self.index.apply(change, number, offset);
            }
        }
        (seen.bad, seen.incomplete) = (scan.bad, came != of);
        Ok(seen)
    }

    /// Body files without an entry go (they were never acknowledged), unless damage may have taken their entries. Of an entry that is
    /// held a person knows already.
    fn bodies(&mut self, disk: &dyn Disk, names: &[String]) {
        let sound = self.recovered.damage.is_empty();
        for name in names {
            let unfinished = name.ends_with(".unfinished") || name.ends_with(".probe");
            let id = name.strip_suffix(".body").and_then(|id| id.parse::<EntryId>().ok());
            let orphan = id.is_some_and(|id| !self.index.slots.contains_key(&id)) && sound;
            if unfinished || orphan {
                // What cannot be removed does no harm.
                let _ = disk.remove(name);
            }
        }
        let in_files = self.index.slots.iter().filter_map(|(id, slot)| match slot.body {
            Body::File { len } if slot.entry.held.is_none() => Some((*id, len)),
            Body::File { .. } | Body::Log { .. } => None,
        });
        for (id, len) in in_files {
            if disk.len(&body_name(id)).ok() != Some(len) {
                self.recovered.damage.push(format!("{}: missing or cut", body_name(id)));
            }
        }
    }
}

/// What was seen in a segment.
#[derive(Default)]
struct Seen {
    /// Octets that are no record.
    bad: u64,
    /// Something that was synced is missing.
    lost: bool,
    /// The last frame is not whole.
    incomplete: bool,
    /// The segment says that it ends here.
    sealed: bool,
}

//! Reading the log at start.

use std::io;

use super::disk::Disk;
use super::record::{Change, MAGIC, Record, read_payload, read_record};
use super::{Body, EntryId, Index, Recovered, body_name, octets};

/// What recovery found.
pub(super) struct Found {
    pub(super) index: Index,
    pub(super) recovered: Recovered,
    pub(super) next_segment: u64,
    /// Segments with damage: kept aside for a person to look at.
    pub(super) damaged: Vec<u64>,
}

pub(super) fn recover(disk: &dyn Disk) -> io::Result<Found> {
    let names = disk.names()?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".log"))
        .filter_map(|number| u64::from_str_radix(number, 16).ok())
        .collect();
    numbers.sort_unstable();
    let next_segment = numbers.last().map_or(1, |last| last.saturating_add(1));
    let mut found =
        Found { index: Index::default(), recovered: Recovered::default(), next_segment, damaged: Vec::new() };
    for number in numbers {
        found.segment(disk, number)?;
    }
    found.bodies(disk, &names)?;
    found.recovered.entries = found.index.slots.len();
    Ok(found)
}

impl Found {
    fn segment(&mut self, disk: &dyn Disk, number: u64) -> io::Result<()> {
        let name = super::segment_name(number);
        let len = usize::try_from(disk.len(&name)?).unwrap_or(usize::MAX);
        let octets_read = disk.read(&name, 0, len)?;
        let mut scan = Scan { octets: &octets_read, number, at: 0, bad: 0 };
        // The frame being read, and how many of its records came.
        let (mut frame, mut came, mut of, mut sealed, mut lost) = (0, 0, 0, false, Vec::new());
        while let Some((offset, record)) = scan.next() {
            if record.frame != frame {
                if came != of {
                    lost.push(frame);
                }
                // Whole frames are missing between two that are there.
                if frame != 0 && record.frame > frame + 1 || frame == 0 && record.frame > 1 {
                    lost.push(record.frame - 1);
                }
                (frame, came, of) = (record.frame, 0, record.count);
            }
            came += 1;
            match read_payload(record.payload) {
                None => lost.push(frame),
                Some(changes) => {
                    for change in changes {
                        sealed |= change == Change::Seal;
                        self.index.apply(change, number, octets(offset));
                    }
                }
            }
        }
        if sealed && (came != of || scan.bad > 0) && lost.is_empty() {
            lost.push(frame);
        }
        self.index.segments.entry(number).or_default().len = octets(len);
        if lost.is_empty() {
            self.recovered.torn = self.recovered.torn.saturating_add(octets(scan.bad));
        } else {
            self.damaged.push(number);
            self.recovered.damage.push(format!("segment {name}: {} octets unreadable", scan.bad));
        }
        Ok(())
    }

    /// Body files without an entry go (they were never acknowledged), unless damage may have taken their entries. Of an entry that is
    /// held a person knows already.
    fn bodies(&mut self, disk: &dyn Disk, names: &[String]) -> io::Result<()> {
        for name in names {
            let unfinished = name.ends_with(".unfinished") || name.ends_with(".probe");
            let id = name.strip_suffix(".body").and_then(|id| id.parse::<EntryId>().ok());
            let orphan = id.is_some_and(|id| !self.index.slots.contains_key(&id)) && self.damaged.is_empty();
            if unfinished || orphan {
                disk.remove(name)?;
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
        Ok(())
    }
}

/// Goes from record to record, over what is no record.
struct Scan<'a> {
    octets: &'a [u8],
    number: u64,
    at: usize,
    bad: usize,
}

impl<'a> Scan<'a> {
    /// The next record, and where its payload begins.
    fn next(&mut self) -> Option<(usize, Record<'a>)> {
        let rest = self.octets.get(self.at..)?;
        let magic = MAGIC.to_le_bytes();
        for skip in std::iter::once(0).chain(memchr::memmem::find_iter(rest, &magic)) {
            if let Some(record) = rest.get(skip..).and_then(|from| read_record(self.number, from)) {
                self.bad += skip;
                let start = self.at + skip;
                self.at = start + record.len;
                return Some((start + super::record::HEADER, record));
            }
        }
        self.bad += rest.len();
        self.at = self.octets.len();
        None
    }
}

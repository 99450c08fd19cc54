//! Records of the log.
//!
//! One record is one transaction. `magic u32 | frame u64 | index u32 | count u32 | length u32 | payload | checksum 16`, numbers in
//! little endian, the checksum the first half of SHA-256 over the segment's number and all before it. The records of one write and sync share a
//! frame and say which of how many they are: a frame that is not the segment's last was synced before the next began, so what is missing
//! in it was damaged, not torn.

use std::path::PathBuf;

use aws_lc_rs::digest;
use jiff::Timestamp;

use super::{Entry, EntryId, RecipientState, SpooledRecipient, Treatment};
use crate::address::{Mailbox, ReversePath};
use crate::config::{Direction, HopTls, NextHop};
use crate::smtp::command::{Body, MailParameters, Notify, RcptParameters, Recipient, Ret};

pub(super) const MAGIC: u32 = 0x3152_5857;
pub(super) const HEADER: usize = 24;
pub(super) const CHECKSUM: usize = 16;
/// Octets of one payload.
pub(super) const PAYLOAD_MAX: usize = 128 << 20;

/// A SHA-256 digest.
pub(super) type Digest = [u8; 32];

pub(super) fn sha256(octets: &[u8]) -> Digest {
    to_digest(&digest::digest(&digest::SHA256, octets))
}

pub(super) fn to_digest(value: &digest::Digest) -> Digest {
    let mut digest = [0; 32];
    digest.iter_mut().zip(value.as_ref()).for_each(|(to, from)| *to = *from);
    digest
}

/// Where a content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyAt {
    /// Inside the record's payload.
    Inline { offset: usize, len: usize },
    /// In a file of its own.
    File { len: u64 },
}

/// One change of the spool's state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and most are the large one")]
pub(super) enum Change {
    /// An entry in full; replaces what was known of it.
    Put { entry: Entry, body: BodyAt, digest: Digest },
    /// The changeable part of an entry.
    State(EntryId, State),
    /// The entry is dealt with.
    Done(EntryId),
    /// The segment ends here as planned.
    Seal,
}

/// What changes in an entry's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) attempts: u32,
    pub(super) next_attempt: Timestamp,
    pub(super) held: Option<String>,
    /// One per recipient, in order.
    pub(super) recipients: Vec<(RecipientState, Option<String>)>,
}

/// Writes a payload.
#[derive(Debug, Default)]
pub(super) struct Payload(pub(super) Vec<u8>);

impl Payload {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn len(&mut self, value: usize) {
        // Everything that is counted here is bounded far below 4 GiB; a length cut short would be found by the reader.
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }
    fn text(&mut self, value: &str) {
        self.len(value.len());
        self.0.extend_from_slice(value.as_bytes());
    }
    fn option(&mut self, value: Option<&str>) {
        self.u8(u8::from(value.is_some()));
        self.text(value.unwrap_or_default());
    }
    fn time(&mut self, value: Timestamp) {
        self.0.extend_from_slice(&value.as_microsecond().to_le_bytes());
    }

    /// An entry and its content: in a file that is there already, or here. Gives where the content is, and its digest.
    pub(super) fn put(
        &mut self,
        entry: &Entry,
        file: Option<(u64, Digest)>,
        content: impl Iterator<Item = bytes::Bytes>,
    ) -> (BodyAt, Digest) {
        self.u8(1);
        self.entry(entry);
        if let Some((len, digest)) = file {
            self.0.extend_from_slice(&digest);
            self.u8(1);
            self.u64(len);
            return (BodyAt::File { len }, digest);
        }
        // Digest and length are known once the content is written.
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 32]);
        self.u8(0);
        self.u32(0);
        let offset = self.0.len();
        content.for_each(|chunk| self.0.extend_from_slice(&chunk));
        let len = self.0.len() - offset;
        let digest = sha256(self.0.get(offset..).unwrap_or_default());
        let head = digest
            .iter()
            .chain(&[0])
            .chain(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes())
            .copied()
            .collect::<Vec<_>>();
        self.0.iter_mut().skip(at).zip(head).for_each(|(to, from)| *to = from);
        (BodyAt::Inline { offset, len }, digest)
    }

    pub(super) fn state(&mut self, id: EntryId, state: &State) {
        self.u8(2);
        self.u64(id.0);
        self.u32(state.attempts);
        self.time(state.next_attempt);
        self.option(state.held.as_deref());
        self.len(state.recipients.len());
        for (recipient, last) in &state.recipients {
            self.u8(recipient.number());
            self.option(last.as_deref());
        }
    }

    pub(super) fn done(&mut self, id: EntryId) {
        self.u8(3);
        self.u64(id.0);
    }

    pub(super) fn seal(&mut self) {
        self.u8(4);
    }

    fn entry(&mut self, entry: &Entry) {
        self.u64(entry.id.0);
        match &entry.reverse_path {
            ReversePath::Null => self.option(None),
            ReversePath::Mailbox(mailbox) => self.option(Some(&mailbox.to_string())),
        }
        self.parameters(&entry.parameters);
        self.text(&entry.next_hop.host);
        self.u32(entry.next_hop.port.into());
        self.u8(match entry.next_hop.tls {
            HopTls::Off => 0,
            HopTls::Opportunistic => 1,
            HopTls::Required => 2,
            HopTls::Verified => 3,
        });
        // A path that is not UTF-8 fits no file: what was to be verified is then verified by nothing, never by less.
        self.option(entry.next_hop.ca.as_deref().map(|ca| ca.to_str().unwrap_or("\u{fffd}")));
        self.u8(entry.next_hop.lmtp.into());
        self.u8(match entry.direction {
            Direction::Outbound => 0,
            Direction::Inbound => 1,
            Direction::ByRecipient => 2,
        });
        self.u8(u8::from(entry.treatment == Treatment::AsReceived));
        self.u8(entry.private_key_tried.into());
        self.u32(entry.attempts);
        self.time(entry.next_attempt);
        self.time(entry.created);
        self.option(entry.held.as_deref());
        self.u64(entry.size);
        self.len(entry.recipients.len());
        for one in &entry.recipients {
            self.text(&one.recipient.mailbox.to_string());
            self.u8(match one.recipient.parameters.notify {
                None => 0,
                Some(n) => 8 | u8::from(n.success) | u8::from(n.failure) << 1 | u8::from(n.delay) << 2,
            });
            self.option(one.recipient.parameters.orcpt.as_deref());
            self.u8(one.state.number());
            self.option(one.last.as_deref());
        }
    }

    fn parameters(&mut self, parameters: &MailParameters) {
        self.u8(u8::from(parameters.size.is_some()));
        self.u64(parameters.size.unwrap_or_default());
        self.u8(u8::from(parameters.body == Body::EightBitMime));
        self.u8(parameters.smtputf8.into());
        self.u8(match parameters.ret {
            None => 0,
            Some(Ret::Full) => 1,
            Some(Ret::Headers) => 2,
        });
        self.option(parameters.envid.as_deref());
    }
}

/// Wraps a payload into a record.
pub(super) fn frame_record(out: &mut Vec<u8>, segment: u64, frame: u64, index: u32, count: u32, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&frame.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(payload);
    let sum = checksum(segment, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&sum);
}

fn checksum(segment: u64, octets: &[u8]) -> [u8; CHECKSUM] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&segment.to_le_bytes());
    context.update(octets);
    let mut sum = [0; CHECKSUM];
    sum.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

/// A record's header and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) frame: u64,
    pub(super) index: u32,
    pub(super) count: u32,
    pub(super) payload: &'a [u8],
    /// Octets of the whole record.
    pub(super) len: usize,
}

/// The record at the start of `octets`, if it is whole and its checksum holds.
pub(super) fn read_record(segment: u64, octets: &[u8]) -> Option<Record<'_>> {
    let mut fields = Fields { octets, at: 0 };
    let magic = fields.u32()?;
    let (frame, index, count, len) =
        (fields.u64()?, fields.u32()?, fields.u32()?, usize::try_from(fields.u32()?).ok()?);
    if magic != MAGIC || len > PAYLOAD_MAX || index >= count {
        return None;
    }
    let payload = fields.take(len)?;
    let (covered, sum) = (octets.get(..fields.at)?, fields.take(CHECKSUM)?);
    (checksum(segment, covered) == sum).then_some(Record { frame, index, count, payload, len: fields.at })
}

/// The changes in a payload; `None` when it is not one of ours.
pub(super) fn read_payload(payload: &[u8]) -> Option<Vec<Change>> {
    let mut fields = Fields { octets: payload, at: 0 };
    let mut changes = Vec::new();
    while fields.at < payload.len() {
        changes.push(match fields.u8()? {
            1 => {
                let entry = fields.entry()?;
                let digest = fields.take(32)?.try_into().ok()?;
                let body = match fields.u8()? {
                    0 => {
                        let len = usize::try_from(fields.u32()?).ok()?;
                        let offset = fields.at;
                        fields.take(len)?;
                        BodyAt::Inline { offset, len }
                    }
                    1 => BodyAt::File { len: fields.u64()? },
                    _ => return None,
                };
                Change::Put { entry, body, digest }
            }
            2 => Change::State(EntryId(fields.u64()?), fields.state()?),
            3 => Change::Done(EntryId(fields.u64()?)),
            4 => Change::Seal,
            _ => return None,
        });
    }
    Some(changes)
}

struct Fields<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.octets.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }
    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    fn time(&mut self) -> Option<Timestamp> {
        Timestamp::from_microsecond(i64::from_le_bytes(self.take(8)?.try_into().ok()?)).ok()
    }
    fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u32()?).ok()?;
        std::str::from_utf8(self.take(len)?).ok()
    }
    fn option(&mut self) -> Option<Option<String>> {
        let (some, text) = (self.flag()?, self.text()?);
        (some || text.is_empty()).then(|| some.then(|| text.to_owned()))
    }

    fn state(&mut self) -> Option<State> {
        let (attempts, next_attempt, held) = (self.u32()?, self.time()?, self.option()?);
        let count = self.u32()?;
        let mut recipients = Vec::new();
        for _ in 0..count {
            recipients.push((RecipientState::from_number(self.u8()?)?, self.option()?));
        }
        Some(State { attempts, next_attempt, held, recipients })
    }

    fn entry(&mut self) -> Option<Entry> {
        let id = EntryId(self.u64()?);
        let reverse_path = match self.option()? {
            None => ReversePath::Null,
            Some(text) => ReversePath::Mailbox(Mailbox::parse(&text).ok()?),
        };
        let parameters = self.parameters()?;
        let host = self.text()?.to_owned();
        let port = u16::try_from(self.u32()?).ok()?;
        let tls =
            *[HopTls::Off, HopTls::Opportunistic, HopTls::Required, HopTls::Verified].get(usize::from(self.u8()?))?;
        let ca = self.option()?.map(PathBuf::from);
        let next_hop = NextHop { host, port, tls, ca, lmtp: self.flag()? };
        let direction =
            *[Direction::Outbound, Direction::Inbound, Direction::ByRecipient].get(usize::from(self.u8()?))?;
        let treatment = if self.flag()? { Treatment::AsReceived } else { Treatment::Finished };
        let private_key_tried = self.flag()?;
        let (attempts, next_attempt, created, held, size) =
            (self.u32()?, self.time()?, self.time()?, self.option()?, self.u64()?);
        let count = self.u32()?;
        let mut recipients = Vec::new();
        for _ in 0..count {
            recipients.push(self.recipient()?);
        }
        Some(Entry {
            id,
            reverse_path,
            parameters,
            recipients,
            next_hop,
            direction,
            treatment,
            private_key_tried,
            attempts,
            next_attempt,
            created,
            held,
            size,
        })
    }

    fn recipient(&mut self) -> Option<SpooledRecipient> {
        let mailbox = Mailbox::parse(self.text()?).ok()?;
        let notify = match self.u8()? {
            0 => None,
            n @ 8..16 => Some(Notify { success: n & 1 != 0, failure: n & 2 != 0, delay: n & 4 != 0 }),
            _ => return None,
        };
        let parameters = RcptParameters { notify, orcpt: self.option()? };
        let (state, last) = (RecipientState::from_number(self.u8()?)?, self.option()?);
        Some(SpooledRecipient { recipient: Recipient { mailbox, parameters }, state, last })
    }

    fn parameters(&mut self) -> Option<MailParameters> {
        let (sized, size) = (self.flag()?, self.u64()?);
        let body = if self.flag()? { Body::EightBitMime } else { Body::SevenBit };
        let smtputf8 = self.flag()?;
        let ret = *[None, Some(Ret::Full), Some(Ret::Headers)].get(usize::from(self.u8()?))?;
        Some(MailParameters { size: sized.then_some(size), body, smtputf8, ret, envid: self.option()? })
    }
}

/// Fuzz body: what reads as a payload is written out again to one that reads the same; no input breaks the reader.
#[doc(hidden)]
pub fn fuzz_spool_record(data: &[u8]) {
    let _ = read_record(1, data);
    let Some(changes) = read_payload(data) else { return };
    let mut again = Payload::default();
    for change in &changes {
        match change {
            Change::Put { entry, body, digest } => {
                let (file, inline) = match body {
                    BodyAt::File { len } => (Some((*len, *digest)), &[][..]),
                    BodyAt::Inline { offset, len } => (None, data.get(*offset..*offset + *len).unwrap_or_default()),
                };
                again.put(entry, file, std::iter::once(bytes::Bytes::copy_from_slice(inline)));
            }
            Change::State(id, state) => again.state(*id, state),
            Change::Done(id) => again.done(*id),
            Change::Seal => again.seal(),
        }
    }
    let mut framed = Vec::new();
    frame_record(&mut framed, 7, 3, 0, 1, &again.0);
    let record = read_record(7, &framed);
    assert!(record.is_some_and(|record| record.payload == again.0 && record.len == framed.len()));
    assert!(read_record(8, &framed).is_none());
    let strip = |changes: Vec<Change>| -> Vec<Change> {
        let inline = |change| match change {
            // The digest of an inline content is computed anew.
            Change::Put { entry, body: BodyAt::Inline { len, .. }, .. } => {
                Change::Put { entry, body: BodyAt::Inline { offset: 0, len }, digest: [0; 32] }
            }
            other => other,
        };
        changes.into_iter().map(inline).collect()
    };
    assert_eq!(read_payload(&again.0).map(strip), Some(strip(changes)));
}

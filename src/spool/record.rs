//! Records of the log.
//!
//! One record is one transaction. `magic u32 | frame u64 | index u32 | count u32 | length u32 | payload | checksum 16`, numbers in
//! little endian, the checksum the first half of SHA-256 over the segment's number and all before it. The records of one write and sync share a
//! frame and say which of how many they are: a frame that is not the segment's last was synced before the next began, so what is missing
//! in it was damaged, not torn.
//!
//! A payload is a sequence of changes, each begun by its kind. Entries (kind 5) say the version of their fields; kinds 1 and 2 are
//! what entries and their states were written as before that, and are only read.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest;
use jiff::Timestamp;

use super::entry::{Entry, EntryId, Origin, RecipientState, SpooledRecipient, Treatment};
use crate::address::{Mailbox, ReversePath};
use crate::config::{Direction, HopTls, NextHop};
use crate::smtp::command::{Body, MailParameters, Notify, RcptParameters, Recipient, Ret};
use crate::smtp::xforward::{Forwarded, Source};

pub(super) const MAGIC: u32 = 0x3152_5857;
pub(super) const HEADER: usize = 24;
pub(super) const CHECKSUM: usize = 16;
/// The version of an entry's fields.
const VERSION: u8 = 3;
/// In the place of a port that is not known.
const NO_PORT: u32 = u32::MAX;
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

/// What was stored as an entry's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) body: BodyAt,
    /// SHA-256 of the octets on disk.
    pub(super) digest: Digest,
    /// With what it is sealed; `None`: the octets are the content.
    pub(super) sealing: Option<Sealing>,
}

/// How a content is sealed at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealing {
    /// The name of the key.
    pub(super) key: [u8; 16],
    /// What makes this entry's key of it.
    pub(super) salt: [u8; 16],
}

/// One change of the spool's state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and most are the large one")]
pub(super) enum Change {
    /// An entry in full; replaces what was known of it.
    Put { entry: Entry, stored: Stored },
    /// The changeable part of an entry, as older versions wrote it.
    State(EntryId, State),
    /// What became of an attempt.
    Settled(EntryId, Settlement),
    /// Held, and why.
    Held(EntryId, String),
    /// Released, due at that time.
    Released(EntryId, Timestamp),
    /// Due at that time.
    Retried(EntryId, Timestamp),
    /// The entry is dealt with.
    Done(EntryId),
    /// The segment ends here as planned; older versions wrote it.
    Seal,
    /// The first record of a segment.
    Begun(Begun),
    /// The entry was copied from the spool of this name; it is not ordinary yet.
    Adopting(EntryId, [u8; 16]),
    /// All entries from that spool are ordinary ones now.
    Activated([u8; 16]),
}

/// Where the segment before ends: what lies behind was never acknowledged, what is missing before was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    /// The number of the segment before; 0: there was none.
    pub(super) previous: u64,
    /// Its octets that count.
    pub(super) len: u64,
    /// The last of its frames may be torn.
    pub(super) torn: bool,
}

/// What changes in an entry's life, as older versions wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) attempts: u32,
    pub(super) next_attempt: Timestamp,
    pub(super) held: Option<String>,
    /// One per recipient, in order.
    pub(super) recipients: Vec<(RecipientState, Option<String>)>,
}

/// What became of an attempt. One more attempt was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) next_attempt: Timestamp,
    /// `None`: as before.
    pub(super) delay_told: Option<Timestamp>,
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

    fn optional_time(&mut self, value: Option<Timestamp>) {
        self.u8(u8::from(value.is_some()));
        self.time(value.unwrap_or_default());
    }
    fn states(&mut self, recipients: &[(RecipientState, Option<String>)]) {
        self.len(recipients.len());
        for (recipient, last) in recipients {
            self.u8(recipient.number());
            self.option(last.as_deref());
        }
    }

    /// An entry and its content as stored: in a file that is there already, or here. Gives where the content is, and its digest.
    pub(super) fn put(
        &mut self,
        entry: &Entry,
        sealing: Option<Sealing>,
        file: Option<(u64, Digest)>,
        content: impl Iterator<Item = bytes::Bytes>,
    ) -> Stored {
        self.u8(5);
        self.u8(VERSION);
        self.entry(entry);
        self.u8(sealing.is_some().into());
        let Sealing { key, salt } = sealing.unwrap_or(Sealing { key: [0; 16], salt: [0; 16] });
        self.0.extend_from_slice(&key);
        self.0.extend_from_slice(&salt);
        if let Some((len, digest)) = file {
            self.0.extend_from_slice(&digest);
            self.u8(1);
            self.u64(len);
            return Stored { body: BodyAt::File { len }, digest, sealing };
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
        let head = digest.iter().chain(&[0]).copied().chain(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        self.0.iter_mut().skip(at).zip(head).for_each(|(to, from)| *to = from);
        Stored { body: BodyAt::Inline { offset, len }, digest, sealing }
    }

    /// Writes a change other than an entry.
    pub(super) fn change(&mut self, change: &Change) {
        match change {
            // An entry is written with its content: `put`.
            Change::Put { .. } => {}
            Change::State(id, state) => {
                self.u8(2);
                self.u64(id.0);
                self.u32(state.attempts);
                self.time(state.next_attempt);
                self.option(state.held.as_deref());
                self.states(&state.recipients);
            }
            Change::Done(id) => {
                self.u8(3);
                self.u64(id.0);
            }
            Change::Seal => self.u8(4),
            Change::Adopting(id, from) => {
                self.u8(11);
                self.u64(id.0);
                self.0.extend_from_slice(from);
            }
            Change::Activated(from) => {
                self.u8(12);
                self.0.extend_from_slice(from);
            }
            Change::Begun(begun) => {
                self.u8(10);
                self.u64(begun.previous);
                self.u64(begun.len);
                self.u8(begun.torn.into());
            }
            Change::Settled(id, settlement) => {
                self.u8(6);
                self.u64(id.0);
                self.time(settlement.next_attempt);
                self.optional_time(settlement.delay_told);
                self.states(&settlement.recipients);
            }
            Change::Held(id, why) => {
                self.u8(7);
                self.u64(id.0);
                self.text(why);
            }
            Change::Released(id, at) => {
                self.u8(8);
                self.u64(id.0);
                self.time(*at);
            }
            Change::Retried(id, at) => {
                self.u8(9);
                self.u64(id.0);
                self.time(*at);
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        self.u64(entry.id.0);
        match &entry.reverse_path {
            ReversePath::Null => self.option(None),
            ReversePath::Mailbox(mailbox) => self.option(Some(&mailbox.to_string())),
        }
        self.parameters(&entry.parameters);
        self.next_hop(&entry.next_hop);
        self.u8(match entry.direction {
            Direction::Outbound => 0,
            Direction::Inbound => 1,
            Direction::ByRecipient => 2,
        });
        self.u8(entry.origin.number());
        self.text(&entry.listener);
        self.option(entry.user.as_deref());
        self.len(entry.sends_as.len());
        entry.sends_as.iter().for_each(|one| self.text(&one.to_string()));
        self.u8(entry.trusted.into());
        self.text(&entry.log_id);
        self.u8(entry.treatment.number());
        self.u8(entry.private_key_tried.into());
        self.u8(entry.encrypted.into());
        self.u32(entry.attempts);
        self.time(entry.next_attempt);
        self.time(entry.created);
        self.optional_time(entry.delay_told);
        self.optional_time(entry.released);
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

    fn next_hop(&mut self, hop: &NextHop) {
        self.text(&hop.host);
        self.u32(hop.port.into());
        self.u8(match hop.tls {
            HopTls::Off => 0,
            HopTls::Opportunistic => 1,
            HopTls::Required => 2,
            HopTls::Verified => 3,
        });
        // A path that is not UTF-8 fits no file: what was to be verified is then verified by nothing, never by less.
        self.option(hop.ca.as_deref().map(|ca| ca.to_str().unwrap_or("\u{fffd}")));
        self.u8(hop.lmtp.into());
        self.u8(hop.xforward.into());
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
        self.client(parameters.client.as_deref());
    }

    fn client(&mut self, client: Option<&Forwarded>) {
        self.u8(client.is_some().into());
        let Some(client) = client else { return };
        self.option(client.name.as_deref());
        self.option(client.address.map(|address| address.to_string()).as_deref());
        self.u32(client.port.map_or(NO_PORT, u32::from));
        [&client.protocol, &client.helo, &client.ident].into_iter().for_each(|one| self.option(one.as_deref()));
        self.u8(match client.source {
            None => 0,
            Some(Source::Local) => 1,
            Some(Source::Remote) => 2,
        });
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
            1 => Change::Put { entry: fields.entry(Layout::Unversioned)?, stored: fields.stored(None)? },
            2 => Change::State(fields.id()?, fields.state()?),
            3 => Change::Done(fields.id()?),
            4 => Change::Seal,
            5 => {
                let layout = match fields.u8()? {
                    1 => Layout::Version1,
                    2 => Layout::Version2,
                    VERSION => Layout::Version3,
                    _ => return None,
                };
                let entry = fields.entry(layout)?;
                let (sealed, key, salt) = (fields.flag()?, fields.sixteen()?, fields.sixteen()?);
                let sealing = Sealing { key, salt };
                if !sealed && (key, salt) != ([0; 16], [0; 16]) {
                    return None;
                }
                Change::Put { entry, stored: fields.stored(sealed.then_some(sealing))? }
            }
            6 => {
                let (id, next_attempt, delay_told) = (fields.id()?, fields.time()?, fields.optional_time()?);
                Change::Settled(id, Settlement { next_attempt, delay_told, recipients: fields.states()? })
            }
            7 => Change::Held(fields.id()?, fields.text()?.to_owned()),
            8 => Change::Released(fields.id()?, fields.time()?),
            11 => Change::Adopting(fields.id()?, fields.sixteen()?),
            12 => Change::Activated(fields.sixteen()?),
            10 => Change::Begun(Begun { previous: fields.u64()?, len: fields.u64()?, torn: fields.flag()? }),
            9 => Change::Retried(fields.id()?, fields.time()?),
            _ => return None,
        });
    }
    Some(changes)
}

/// Which fields an entry has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layout {
    /// As before entries told their version.
    Unversioned,
    /// Without the time of its release.
    Version1,
    /// Without what is told of the client that the mail came from, without what a next hop wants to know of it, and without the addresses of
    /// the user.
    Version2,
    Version3,
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

    fn id(&mut self) -> Option<EntryId> {
        self.u64().map(EntryId)
    }
    fn sixteen(&mut self) -> Option<[u8; 16]> {
        self.take(16)?.try_into().ok()
    }
    fn optional_time(&mut self) -> Option<Option<Timestamp>> {
        let (some, time) = (self.flag()?, self.time()?);
        (some || time == Timestamp::UNIX_EPOCH).then(|| some.then_some(time))
    }

    fn stored(&mut self, sealing: Option<Sealing>) -> Option<Stored> {
        let digest = self.take(32)?.try_into().ok()?;
        let body = match self.u8()? {
            0 => {
                let len = usize::try_from(self.u32()?).ok()?;
                let offset = self.at;
                self.take(len)?;
                BodyAt::Inline { offset, len }
            }
            1 => BodyAt::File { len: self.u64()? },
            _ => return None,
        };
        Some(Stored { body, digest, sealing })
    }

    fn states(&mut self) -> Option<Vec<(RecipientState, Option<String>)>> {
        let count = self.u32()?;
        let mut recipients = Vec::new();
        for _ in 0..count {
            recipients.push((RecipientState::from_number(self.u8()?)?, self.option()?));
        }
        Some(recipients)
    }

    fn state(&mut self) -> Option<State> {
        let (attempts, next_attempt, held) = (self.u32()?, self.time()?, self.option()?);
        Some(State { attempts, next_attempt, held, recipients: self.states()? })
    }

    fn entry(&mut self, layout: Layout) -> Option<Entry> {
        let versioned = layout != Layout::Unversioned;
        let id = self.id()?;
        let reverse_path = match self.option()? {
            None => ReversePath::Null,
            Some(text) => ReversePath::Mailbox(Mailbox::parse(&text).ok()?),
        };
        let (parameters, next_hop) = (self.parameters(layout)?, self.next_hop(layout)?);
        let direction =
            *[Direction::Outbound, Direction::Inbound, Direction::ByRecipient].get(usize::from(self.u8()?))?;
        let (mut origin, mut listener, mut user, mut trusted, mut log_id) =
            (Origin::of(direction), String::new(), None, false, String::new());
        let mut sends_as = Arc::default();
        if versioned {
            origin = Origin::from_number(self.u8()?)?;
            (listener, user) = (self.text()?.to_owned(), self.option()?);
            if layout >= Layout::Version3 {
                sends_as = self.mailboxes()?;
            }
            (trusted, log_id) = (self.flag()?, self.text()?.to_owned());
        }
        let treatment = Treatment::from_number(self.u8()?)?;
        let (private_key_tried, encrypted) = (self.flag()?, versioned && self.flag()?);
        let (attempts, next_attempt, created) = (self.u32()?, self.time()?, self.time()?);
        let delay_told = if versioned { self.optional_time()? } else { None };
        let released = if layout >= Layout::Version2 { self.optional_time()? } else { None };
        let (held, size) = (self.option()?, self.u64()?);
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
            origin,
            listener,
            user,
            sends_as,
            trusted,
            log_id,
            treatment,
            private_key_tried,
            encrypted,
            attempts,
            next_attempt,
            created,
            delay_told,
            released,
            held,
            size,
        })
    }

    fn next_hop(&mut self, layout: Layout) -> Option<NextHop> {
        let host = self.text()?.to_owned();
        let port = u16::try_from(self.u32()?).ok()?;
        let tls =
            *[HopTls::Off, HopTls::Opportunistic, HopTls::Required, HopTls::Verified].get(usize::from(self.u8()?))?;
        let ca = self.option()?.map(PathBuf::from);
        let lmtp = self.flag()?;
        let xforward = layout >= Layout::Version3 && self.flag()?;
        // Where connections come from, and what the DNS says, is found again at each attempt.
        Some(NextHop { tls, ca, lmtp, xforward, ..NextHop::new(host, port) })
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

    fn mailboxes(&mut self) -> Option<Arc<[Mailbox]>> {
        let count = self.u32()?;
        let mut mailboxes = Vec::new();
        for _ in 0..count {
            mailboxes.push(Mailbox::parse(self.text()?).ok()?);
        }
        Some(mailboxes.into())
    }

    fn client(&mut self) -> Option<Option<Arc<Forwarded>>> {
        if !self.flag()? {
            return Some(None);
        }
        let (name, address, port) = (self.option()?, self.option()?, self.u32()?);
        let (protocol, helo, ident) = (self.option()?, self.option()?, self.option()?);
        let source = *[None, Some(Source::Local), Some(Source::Remote)].get(usize::from(self.u8()?))?;
        let address = match address {
            None => None,
            Some(text) => Some(text.parse().ok()?),
        };
        let port = if port == NO_PORT { None } else { Some(u16::try_from(port).ok()?) };
        Some(Some(Arc::new(Forwarded { name, address, port, protocol, helo, ident, source })))
    }

    fn parameters(&mut self, layout: Layout) -> Option<MailParameters> {
        let (sized, size) = (self.flag()?, self.u64()?);
        let body = if self.flag()? { Body::EightBitMime } else { Body::SevenBit };
        let smtputf8 = self.flag()?;
        let ret = *[None, Some(Ret::Full), Some(Ret::Headers)].get(usize::from(self.u8()?))?;
        let envid = self.option()?;
        let client = if layout >= Layout::Version3 { self.client()? } else { None };
        Some(MailParameters { size: sized.then_some(size), body, smtputf8, ret, envid, client })
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
            Change::Put { entry, stored } => {
                let (file, inline) = match &stored.body {
                    BodyAt::File { len } => (Some((*len, stored.digest)), &[][..]),
                    BodyAt::Inline { offset, len } => (None, data.get(*offset..*offset + *len).unwrap_or_default()),
                };
                let inline = std::iter::once(bytes::Bytes::copy_from_slice(inline));
                again.put(entry, stored.sealing, file, inline);
            }
            other => again.change(other),
        }
    }
    let mut framed = Vec::new();
    frame_record(&mut framed, 7, 3, 0, 1, &again.0);
    let record = read_record(7, &framed);
    assert!(record.is_some_and(|record| record.payload == again.0 && record.len == framed.len()));
    assert!(read_record(8, &framed).is_none());
    let strip = |changes: Vec<Change>| -> Vec<Change> {
        let inline = |mut change| {
            // The digest of an inline content is computed anew.
            if let Change::Put { stored: Stored { body: BodyAt::Inline { offset, .. }, digest, .. }, .. } = &mut change
            {
                (*offset, *digest) = (0, [0; 32]);
            }
            change
        };
        changes.into_iter().map(inline).collect()
    };
    assert_eq!(read_payload(&again.0).map(strip), Some(strip(changes)));
}

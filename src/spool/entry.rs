//! What the spool holds: entries, their recipients and states.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::address::{Mailbox, ReversePath};
use crate::config::{Direction, NextHop};
use crate::mime::rope::Rope;
use crate::smtp::command::{Envelope, MailParameters, Recipient};

/// An entry's name: unique, later ones greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub(super) u64);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for EntryId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// What the content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// The finished octets: sent as they are, never sealed anew (R5).
    Finished,
    /// The octets as received: opened again at each delivery (no decrypted mail on disk).
    AsReceived,
    /// Held outbound mail, the octets as submitted: never delivered. It ends as what policy makes of it when it is released
    /// ([`Spool::replace`](super::Spool::replace)), or is deleted.
    AsSubmitted,
}

impl Treatment {
    pub(super) fn number(self) -> u8 {
        match self {
            Treatment::Finished => 0,
            Treatment::AsReceived => 1,
            Treatment::AsSubmitted => 2,
        }
    }
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Finished, Self::AsReceived, Self::AsSubmitted].get(usize::from(number)).copied()
    }
}

/// How a mail came to be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Sent by a user of ours.
    Outbound,
    /// From outside for a user of ours.
    Inbound,
    /// Written here: a delivery status notification (RFC 3464).
    Dsn,
}

impl Origin {
    pub(super) fn number(self) -> u8 {
        match self {
            Origin::Outbound => 0,
            Origin::Inbound => 1,
            Origin::Dsn => 2,
        }
    }
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Outbound, Self::Inbound, Self::Dsn].get(usize::from(number)).copied()
    }
    /// Of mail that came in this direction.
    pub fn of(direction: Direction) -> Self {
        if direction == Direction::Inbound { Origin::Inbound } else { Origin::Outbound }
    }
}

/// Where a recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientState {
    /// To be delivered.
    Waiting,
    /// Taken by the next hop.
    Delivered,
    /// Failed for good, and all that is to follow from it has been done.
    Failed,
    /// Failed for good where nobody may be told: the entry is held for a person to look at.
    Stuck,
    /// Kept back by policy: the entry is held until a person releases it.
    Quarantined,
    /// A person released it from quarantine: to be delivered, and not kept back again.
    Released,
}

impl RecipientState {
    pub(super) fn number(self) -> u8 {
        match self {
            RecipientState::Waiting => 0,
            RecipientState::Delivered => 1,
            RecipientState::Failed => 2,
            RecipientState::Stuck => 3,
            RecipientState::Quarantined => 4,
            RecipientState::Released => 5,
        }
    }
    pub(super) fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Waiting, Self::Delivered, Self::Failed, Self::Stuck, Self::Quarantined, Self::Released];
        all.get(usize::from(number)).copied()
    }

    /// Whether it is to be delivered.
    pub fn waits(self) -> bool {
        matches!(self, Self::Waiting | Self::Released)
    }

    /// Whether it waits for a person.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Stuck | Self::Quarantined)
    }
}

/// A recipient of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledRecipient {
    /// The forward-path and its parameters.
    pub recipient: Recipient,
    /// Where it stands.
    pub state: RecipientState,
    /// The last answer or error.
    pub last: Option<String>,
}

/// An output to be spooled. [`NewEntry::new`] gives what is usual; the rest by `NewEntry { …, ..NewEntry::new(…) }`.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Reverse-path, parameters (RFC 3461: RET, ENVID), recipients of this next hop (NOTIFY, ORCPT).
    pub envelope: Envelope,
    /// Where it goes.
    pub next_hop: NextHop,
    /// Which way.
    pub direction: Direction,
    /// How it came to be here.
    pub origin: Origin,
    /// Name of the listener it came in by; empty: none, it was written here.
    pub listener: String,
    /// The authenticated user who submitted it.
    pub user: Option<String>,
    /// His addresses, where a directory told them.
    pub sends_as: Arc<[Mailbox]>,
    /// It came from a trusted network: what policy asks when it is treated anew.
    pub trusted: bool,
    /// The id of the mail in the log; empty: none.
    pub log_id: String,
    /// What the content is.
    pub treatment: Treatment,
    /// A private key was tried on it: it was answered 250 whatever comes, so nothing may tell of a failure outside (A4).
    pub private_key_tried: bool,
    /// The content is CMS-encrypted as it is. Anything else is sealed on disk where the spool has a key.
    pub encrypted: bool,
    /// The content.
    pub content: Rope,
    /// When it is due; `None`: at once.
    pub next_attempt: Option<Timestamp>,
    /// Why it is held (quarantine, policy), if it is. [`Treatment::AsSubmitted`] is always held.
    pub held: Option<String>,
    /// It is held by quarantine: who releases it says that it may be delivered whatever the verdict.
    pub quarantined: bool,
    /// When the mail was committed first, and when its sender was told of the delay: of an entry that takes the place of another. `None`:
    /// now, and not told.
    pub before: Option<(Timestamp, Option<Timestamp>)>,
}

impl NewEntry {
    /// A finished output that is due at once, of mail that came in `direction`; not encrypted, by no listener, of no user.
    pub fn new(envelope: Envelope, next_hop: NextHop, direction: Direction, content: Rope) -> Self {
        Self {
            envelope,
            next_hop,
            direction,
            origin: Origin::of(direction),
            listener: String::new(),
            user: None,
            sends_as: Arc::default(),
            trusted: false,
            log_id: String::new(),
            treatment: Treatment::Finished,
            private_key_tried: false,
            encrypted: false,
            content,
            next_attempt: None,
            held: None,
            quarantined: false,
            before: None,
        }
    }

    pub(super) fn into_entry(self, id: EntryId, now: Timestamp, size: u64) -> (Rope, Entry) {
        let state = if self.quarantined { RecipientState::Quarantined } else { RecipientState::Waiting };
        let waiting = |recipient| SpooledRecipient { recipient, state, last: None };
        let held = match self.treatment {
            Treatment::AsSubmitted => Some(self.held.unwrap_or_else(|| "to be treated by policy anew".to_owned())),
            Treatment::Finished | Treatment::AsReceived => self.held,
        };
        let (created, delay_told) = self.before.unwrap_or((now, None));
        let entry = Entry {
            id,
            reverse_path: self.envelope.reverse_path,
            parameters: self.envelope.parameters,
            recipients: self.envelope.recipients.into_iter().map(waiting).collect(),
            next_hop: self.next_hop,
            direction: self.direction,
            origin: self.origin,
            listener: self.listener,
            user: self.user,
            sends_as: self.sends_as,
            trusted: self.trusted,
            log_id: self.log_id,
            treatment: self.treatment,
            private_key_tried: self.private_key_tried,
            encrypted: self.encrypted,
            attempts: 0,
            next_attempt: micros(self.next_attempt.unwrap_or(now)),
            created: micros(created),
            delay_told: delay_told.map(micros),
            released: None,
            held,
            size,
        };
        (self.content, entry)
    }
}

/// An entry without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// Who hears of failures.
    pub reverse_path: ReversePath,
    /// Parameters of MAIL.
    pub parameters: MailParameters,
    /// All recipients, those dealt with too.
    pub recipients: Vec<SpooledRecipient>,
    /// Where it goes.
    pub next_hop: NextHop,
    /// Which way.
    pub direction: Direction,
    /// How it came to be here.
    pub origin: Origin,
    /// Name of the listener it came in by; empty: none, or not recorded.
    pub listener: String,
    /// The authenticated user who submitted it.
    pub user: Option<String>,
    /// His addresses, where a directory told them.
    pub sends_as: Arc<[Mailbox]>,
    /// It came from a trusted network.
    pub trusted: bool,
    /// The id of the mail in the log; empty: none.
    pub log_id: String,
    /// What the content is.
    pub treatment: Treatment,
    /// See [`NewEntry::private_key_tried`].
    pub private_key_tried: bool,
    /// See [`NewEntry::encrypted`].
    pub encrypted: bool,
    /// Deliveries tried.
    pub attempts: u32,
    /// When the next is due.
    pub next_attempt: Timestamp,
    /// When it was committed.
    pub created: Timestamp,
    /// When its sender was told that it is delayed.
    pub delay_told: Option<Timestamp>,
    /// When it was released last, if it was held.
    pub released: Option<Timestamp>,
    /// Why it is held, if it is: a held entry is never due.
    pub held: Option<String>,
    /// Octets of the content.
    pub size: u64,
}

/// How `held` begins where a person said so: nothing but a person releases it.
pub const BY_HAND: &str = "by hand";

impl Entry {
    /// Whether a person holds it.
    pub fn is_held_by_hand(&self) -> bool {
        self.held.as_ref().is_some_and(|why| why.starts_with(BY_HAND))
    }

    /// Since when it is tried: what was held has all its time from its release.
    pub fn tried_since(&self) -> Timestamp {
        self.released.unwrap_or(self.created).max(self.created)
    }

    /// The envelope of what is still to be delivered.
    pub fn remaining(&self) -> Envelope {
        let waiting = self.recipients.iter().filter(|one| one.state.waits());
        let recipients = waiting.map(|one| one.recipient.clone()).collect();
        Envelope { reverse_path: self.reverse_path.clone(), parameters: self.parameters.clone(), recipients }
    }

    /// Whether it may be handed over at all: not held, and not outbound mail that policy has not treated.
    pub fn may_go(&self) -> bool {
        self.held.is_none() && self.treatment != Treatment::AsSubmitted
    }
}

/// What became of an attempt: the recipients in the entry's order.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// New state and last answer of each recipient.
    pub recipients: Vec<(RecipientState, Option<String>)>,
    /// When those that wait are tried again.
    pub next_attempt: Timestamp,
    /// The sender was told now that it is delayed; `None`: as before.
    pub delay_told: Option<Timestamp>,
    /// Entries to be committed with it, in the same record: a DSN.
    pub new_entries: Vec<NewEntry>,
}

/// The log keeps microseconds.
pub(super) fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

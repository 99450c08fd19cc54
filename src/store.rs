//! The certificate store: records, history, trust, the order of sources.

/// A sealed copy of all records in a file.
pub mod backup;
/// A bounded cache without stale fill.
mod cache;
/// Where and how the local store keeps its records: one file, ACID.
pub mod embedded;
/// A store that several gateways share: etcd is the truth, the embedded store each node's copy of it.
pub mod etcd;
/// Whose certificates run out, with none after them.
pub mod expiry;
/// The key-encryption key and the keys it wraps.
pub mod keyring;
/// The encoding of records.
pub mod record;
/// The authenticated tree of records.
/// How a store does, for those who watch.
pub mod state;
mod tree;

use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use self::keyring::SpoolKeks;
use crate::address::{AddressError, Domain, Mailbox, MailboxKey};
use crate::cms::algorithm::Capabilities;
use crate::config::KekSources;
use crate::keys::KeyId;
use crate::pki::certificate::Certificate;
use crate::pki::path::{AnchorScope, TrustSet};
use crate::policy::TrustState;

pub use state::{SharedState, StoreState};

/// Whose record it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    Mailbox(MailboxKey),
    /// `@example.org`: domain certificates.
    Domain(Domain),
}

impl Owner {
    /// Reads `user@example.org` or `@example.org`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix('@') {
            Some(domain) => Domain::parse(domain).map(Self::Domain),
            None => MailboxKey::parse(text).map(Self::Mailbox),
        }
    }
}

/// `user@example.org` or `@example.org`.
impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mailbox(mailbox) => mailbox.fmt(f),
            Self::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

/// Where a certificate came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// "import", "harvest", "ldap", "smimea".
    pub source: String,
    /// File name, Message-ID, URL …
    pub detail: String,
    pub at: Timestamp,
}

/// A certificate in a mailbox's history.
#[derive(Debug, Clone)]
pub struct CertificateRecord {
    pub certificate: Certificate,
    pub provenance: Provenance,
    pub trust: TrustState,
    /// What its owner can read, where somebody said so; [`Self::reads`] knows what the certificate itself says too.
    pub capabilities: Option<Capabilities>,
    /// Who said what its owner can read: a mail (its Message-ID; when it was signed), or an administrator.
    pub learned: Option<Provenance>,
    /// SMIMEEncryptionKeyPreference named it.
    pub preferred: bool,
    /// The private key is in the store.
    pub key: Option<KeyId>,
    /// The day on which a valid signature last was made with it, or named it; for what was harvested.
    pub last_seen: Option<Timestamp>,
    /// Why it stands as it does, where harvest put it there.
    pub note: Option<Note>,
}

impl CertificateRecord {
    /// Where it came from and why it stands as it does, in words.
    pub fn origin(&self) -> String {
        let Provenance { source, detail, at } = &self.provenance;
        let why = self.note.as_ref().map(|note| format!("; {}", note.why)).unwrap_or_default();
        format!("{source} {detail}, {at}{why}")
    }
    /// What its owner can read: as it was said, else as the certificate says (RFC 4262).
    pub fn reads(&self) -> Option<Capabilities> {
        self.capabilities.clone().or_else(|| self.certificate.capabilities())
    }
}

/// Source of what an administrator said: mails do not change it.
pub const BY_HAND: &str = "hand";
/// Source of certificates that signed mail brought (A10).
pub const BY_HARVEST: &str = "harvest";
/// Source of certificates that a directory brought.
pub const BY_LDAP: &str = "ldap";
/// Source of certificates that SMIMEA records brought (RFC 8162).
pub const BY_SMIMEA: &str = "smimea";

/// Why a harvested certificate stands as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// In words.
    pub why: String,
    /// Fingerprint of the certificate that it would take the place of.
    pub instead_of: Option<[u8; 32]>,
}

/// What changes of a certificate that is stored; what is not named stays.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    pub fingerprint: [u8; 32],
    pub trust: Option<TrustState>,
    /// What its owner can read, and who said so; `Some(None)` forgets it.
    pub capabilities: Option<Option<(Capabilities, Provenance)>>,
    /// It is the preferred one, and no other of that owner is.
    pub prefer: bool,
    /// The day it was last seen: see [`CertificateRecord::last_seen`].
    pub seen: Option<Timestamp>,
    pub note: Option<Note>,
}

/// A change of what an owner has: all of it, or nothing.
#[derive(Default)]
pub struct Revision {
    pub add: Vec<NewCertificate>,
    /// Of certificates that were there, or are added.
    pub edit: Vec<Edit>,
    /// Fingerprints of certificates that go; one whose private key is here stays.
    pub remove: Vec<[u8; 32]>,
    /// CA certificates that paths to what is added need; those that are known stay as they are.
    pub intermediates: Vec<Certificate>,
}

/// All that is known of an owner, decoded; aliases already followed.
#[derive(Debug, Clone)]
pub struct Identity {
    pub owner: Owner,
    /// Oldest first.
    pub certificates: Vec<CertificateRecord>,
    pub disabled: bool,
    /// Grows with every change of this owner.
    pub generation: u64,
}

/// Why the store cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or read.
    #[error("store {0}")]
    Io(String),
    /// The KEK does not fit this store.
    #[error("the key-encryption key in {0} is not this store's: {1}")]
    Kek(String, String),
    /// A record is not authentic: it counts as absent, and this is an alert.
    #[error("record {0} is not authentic")]
    NotAuthentic(String),
    /// The shared store cannot be reached now; a change may or may not have been made.
    #[error("{0}")]
    Unavailable(String),
    /// This node's copy of the shared store is too old to answer from.
    #[error("{0}")]
    Stale(String),
    /// It is authentic, and of a version or kind that came after this program: neither used, nor dropped, nor overwritten.
    #[error("{0} is of a later version of Waxwing, so it is neither used nor changed; run that version here")]
    Later(String),
    /// One change of more than the shared store takes at a time: parts of it may be made one after the other.
    #[error("{0}")]
    TooLarge(String),
    /// What was asked for cannot be done; says why and what to do.
    #[error("{0}")]
    Refused(String),
}

/// What a change is about, for watchers and caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeEvent {
    Owner(Owner),
    Trust,
    /// More than can be told one by one: drop every copy.
    All,
}

/// What became of a certificate that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was not there.
    New,
    /// It was there without its private key, which now is too.
    KeyAdded,
    /// It was there, pending, and now is trusted or pinned.
    Approved,
    /// It was there; nothing was changed.
    Unchanged,
}

/// A certificate to be stored.
pub struct NewCertificate {
    pub certificate: Certificate,
    pub provenance: Provenance,
    pub trust: TrustState,
    /// PKCS#8, wiped when dropped; sealed before it is written.
    pub key: Option<Zeroizing<Vec<u8>>>,
}

/// A store of certificates, keys and trust. Look-ups answer from local memory; changes are durable when they return.
pub trait CertStore: Send + Sync {
    /// All that is known of a mailbox, aliases followed; an empty history where nothing is.
    fn identity(&self, mailbox: &Mailbox) -> Result<Arc<Identity>, StoreError>;
    /// All that is known of a domain (domain certificates).
    fn domain_identity(&self, domain: &Domain) -> Result<Arc<Identity>, StoreError>;
    /// All that is known of an owner, aliases followed.
    fn identity_of(&self, owner: &Owner) -> Result<Arc<Identity>, StoreError>;
    /// Anchors and intermediates.
    fn trust(&self) -> Result<Arc<TrustSet>, StoreError>;
    /// Every owner with a record, in order.
    fn owners(&self) -> Result<Vec<Owner>, StoreError>;
    /// Stores certificates (and keys) for an owner in one transaction: all or nothing. Says what became of each, in order. Refused: RSA under
    /// 2048 bits, a key that is not the certificate's, an owner that is an alias.
    fn add_certificates(&self, owner: &Owner, new: Vec<NewCertificate>) -> Result<Vec<Stored>, StoreError>;
    /// Changes what an owner has by what he has at that moment: `decide` sees it within the transaction. Says what became of each
    /// certificate added. Nothing is written where nothing changes; an owner who is left with nothing is forgotten. Refused: as with
    /// [`Self::add_certificates`], an edit of a certificate that is not there, an owner whose records are not authentic.
    fn revise(&self, owner: &Owner, decide: &mut dyn FnMut(&Identity) -> Revision) -> Result<Vec<Stored>, StoreError>;
    /// Calls for every owner that has certificates and whose records are authentic, past all caches: for scans of the whole store.
    fn each_identity(&self, call: &mut dyn FnMut(Identity)) -> Result<(), StoreError>;
    /// Changes the trust state of one certificate of an owner.
    fn set_trust(&self, owner: &Owner, fingerprint: [u8; 32], trust: TrustState) -> Result<(), StoreError>;
    /// Disables or enables an owner.
    fn set_disabled(&self, owner: &Owner, disabled: bool) -> Result<(), StoreError>;
    /// Removes an owner's certificates and keys, leaving a tombstone.
    fn purge(&self, owner: &Owner) -> Result<(), StoreError>;
    /// Adds a trust anchor (`Some(scope)`) or an intermediate (`None`).
    fn add_trust(&self, certificate: Certificate, scope: Option<AnchorScope>) -> Result<(), StoreError>;
    /// Removes an anchor or an intermediate, leaving a tombstone.
    fn remove_trust(&self, fingerprint: [u8; 32]) -> Result<(), StoreError>;
    /// Makes `alias` an address of `mailbox`.
    fn add_alias(&self, alias: &MailboxKey, mailbox: &MailboxKey) -> Result<(), StoreError>;
    /// Removes an alias.
    fn remove_alias(&self, alias: &MailboxKey) -> Result<(), StoreError>;
    /// Aliases: (alias, mailbox).
    fn aliases(&self) -> Result<Vec<(MailboxKey, MailboxKey)>, StoreError>;
    /// The private key for export: PKCS#8.
    fn export_key(&self, key: KeyId) -> Result<Zeroizing<Vec<u8>>, StoreError>;
    /// What wraps the keys of this node's spool; nothing, where the store has no such key.
    fn spool_keks(&self) -> SpoolKeks {
        SpoolKeks::default()
    }
    /// Takes key-encryption keys from these places from now on, beside those it has.
    fn use_keks(&self, _sources: &KekSources) {}
    /// How it does, as far as is known without asking anybody.
    fn state(&self) -> StoreState;
    /// Gateways that are alive, as the shared store says: it is asked. `None`: it is not shared, or does not answer.
    fn live_nodes(&self) -> Option<usize>;
    /// Changes as they happen; a receiver that lags must drop all it has cached.
    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<ChangeEvent>;
}

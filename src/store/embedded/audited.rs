//! What changes is written down, and how the store does is told.

use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::{EmbeddedStore, Inner};
use crate::audit::{AuditError, AuditLog, Changed, KeyRecord};
use crate::config;
use crate::keys::{KeyError, KeyId, KeyOperation, Submission};
use crate::metrics::{KeyUse, Label};
use crate::store::StoreError;
use crate::store::etcd::Shared;
use crate::store::record::{CertificateValue, Encoded, Kind, OwnerValue, ScopeValue, TrustEntryValue};
use crate::store::state::StoreState;
use crate::store::tree::Change;

/// A gateway that gave no sign of life for so long is not counted as alive: they give one a second.
const ALIVE: Duration = Duration::from_secs(30);

/// Where changes are written down, and who makes them.
pub(super) struct Witness {
    /// Opened with the first change: who only looks needs none.
    log: OnceLock<AuditLog>,
    settings: Option<config::Audit>,
    by: String,
    /// What private keys are used for is written down here too: nobody else does, and there is no mail's id.
    keys: bool,
}

impl EmbeddedStore {
    /// Writes down every change from now on; `by` says whose they are. While that cannot be done, nothing is changed. What private keys are
    /// used for is left to who knows which mail it is for.
    pub fn audit_to(&self, log: AuditLog, by: &str) {
        // A second one is none: the first goes on.
        let _ = self.inner.witness.set(Witness { log: log.into(), settings: None, by: by.to_owned(), keys: false });
    }

    /// The same for a command, with what it uses private keys for; the log is opened with the first change.
    pub fn audit_lazily(&self, settings: config::Audit, by: &str) {
        let witness = Witness { log: OnceLock::new(), settings: Some(settings), by: by.to_owned(), keys: true };
        let _ = self.inner.witness.set(witness);
    }

    /// Writes down a change that is none of a record: of the keys over keys, or of the store as a whole.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn tell(&self, changed: &[Changed]) -> Result<(), StoreError> {
        self.inner.witness.get().map_or(Ok(()), |witness| witness.tell(changed))
    }
}

impl Inner {
    /// A private key left the store.
    ///
    /// # Errors
    /// It cannot be written down: it must not leave.
    pub(super) fn exported(&self, key: KeyId) -> Result<(), StoreError> {
        self.witness.get().map_or(Ok(()), |witness| witness.used("export", key, "done"))
    }

    /// Does an operation with a private key, and gives its answer out once it is written down where nobody else does that.
    pub(super) fn witnessed(
        &self,
        operation: KeyOperation,
        perform: impl FnOnce(KeyOperation) -> Submission,
    ) -> Submission {
        let Some(witness) = self.witness.get().filter(|witness| witness.keys) else { return perform(operation) };
        let unavailable = |error: StoreError| Submission::Ready(Err(KeyError::Unavailable(error.to_string())));
        if let Err(error) = witness.works() {
            return unavailable(error);
        }
        let (kind, key) = (KeyUse::of(&operation).word(), operation.key());
        match perform(operation) {
            Submission::Ready(answer) => {
                let outcome = answer.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
                match witness.used(kind, key, &outcome) {
                    Ok(()) => Submission::Ready(answer),
                    Err(error) => unavailable(error),
                }
            }
            // Written down ahead: what comes of it is not known yet.
            Submission::Later(answer) => match witness.used(kind, key, "begun") {
                Ok(()) => Submission::Later(answer),
                Err(error) => unavailable(error),
            },
        }
    }

    /// How the store does; see [`crate::store::CertStore::state`].
    pub(super) fn state(&self) -> StoreState {
        let shared = self.shared.get();
        StoreState {
            generation: *self.seen.lock().unwrap_or_else(PoisonError::into_inner),
            alerts: self.alerts.count(),
            later: self.later.len() as u64,
            unusable: self.answers().err().map(|error| error.to_string()),
            shared: shared.map(Shared::state),
        }
    }

    /// Gateways that are alive, as the shared store says; `None`: it is not shared, or does not answer.
    pub(super) fn live_nodes(&self) -> Option<usize> {
        let oldest = Timestamp::now().checked_sub(ALIVE).ok()?;
        let nodes = self.shared.get()?.nodes().ok()?;
        Some(nodes.iter().filter(|node| node.seen >= oldest).count())
    }
}

impl Witness {
    fn log(&self) -> Result<&AuditLog, StoreError> {
        if let (None, Some(settings)) = (self.log.get(), &self.settings) {
            let opened = AuditLog::open(settings).map_err(refused)?;
            // Another thread may have been first: one is as good as the other.
            let _ = self.log.set(opened);
        }
        self.log.get().ok_or_else(|| StoreError::Unavailable("there is no audit log".to_owned()))
    }

    /// Whether what is changed can be written down.
    pub(super) fn works(&self) -> Result<(), StoreError> {
        self.log()?.works().map_err(refused)
    }

    pub(super) fn tell(&self, changed: &[Changed]) -> Result<(), StoreError> {
        self.log()?.changed(&self.by, changed).map_err(refused)
    }

    fn used(&self, operation: &'static str, key: KeyId, outcome: &str) -> Result<(), StoreError> {
        let record = KeyRecord { operation, mail: "", mailbox: &self.by, certificate: None, key, outcome };
        self.log()?.key_used_now(record).map_err(refused)
    }
}

fn refused(error: AuditError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// What a change writes, in words: a line for each record but those that only name others.
pub(super) fn told(change: &Change<'_, '_>) -> Result<Vec<Changed>, StoreError> {
    let mut told = Vec::new();
    for path in change.touched() {
        let record = change.written(path)?;
        let Some((kind, name)) = path.split_once('/') else { continue };
        let value = record.as_ref().map(|record| (record.kind, record.value.as_slice()));
        let (operation, what) = match (kind, value) {
            ("c", Some((Kind::Certificate, value))) => ("certificate", certificate(value)),
            ("k", Some((Kind::Key, _))) => ("key", "stored".to_owned()),
            ("t", Some((Kind::TrustEntry, value))) => ("trust", trust(value)),
            ("a", Some((Kind::Alias, value))) => ("alias", format!("of {}", String::from_utf8_lossy(value))),
            ("a", _) => ("alias", "removed".to_owned()),
            ("o", Some((Kind::Owner, value))) => {
                let disabled = OwnerValue::decode(value).is_some_and(|owner| owner.disabled);
                ("owner", if disabled { "disabled".to_owned() } else { "enabled".to_owned() })
            }
            ("o", _) => ("owner", "purged".to_owned()),
            ("c", None) => ("certificate", "removed".to_owned()),
            ("k", None) => ("key", "removed".to_owned()),
            ("t", None) => ("trust", "removed".to_owned()),
            _ => continue,
        };
        let (subject, certificate) = match (kind, name.rsplit_once('/')) {
            ("c", Some((owner, fingerprint))) => (owner.to_owned(), Some(fingerprint.to_owned())),
            ("t", _) => (String::new(), Some(name.to_owned())),
            _ => (name.to_owned(), None),
        };
        told.push(Changed { operation, subject, certificate, what });
    }
    Ok(told)
}

fn certificate(value: &[u8]) -> String {
    CertificateValue::decode(value).map_or_else(
        || "stored".to_owned(),
        |value| {
            let key = if value.key.is_some() { ", with its private key" } else { "" };
            format!("{} from {}{key}", value.trust.word(), value.source)
        },
    )
}

fn trust(value: &[u8]) -> String {
    match TrustEntryValue::decode(value).map(|entry| entry.scope) {
        Some(ScopeValue::Global) => "anchor for all".to_owned(),
        Some(ScopeValue::Domains(domains)) => format!("anchor for {}", domains.join(" ")),
        Some(ScopeValue::Intermediate) => "intermediate".to_owned(),
        None => "stored".to_owned(),
    }
}

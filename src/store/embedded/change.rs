//! Changing the store.

use jiff::Timestamp;
use tokio::sync::broadcast;
use zeroize::Zeroizing;

use super::{
    EmbeddedStore, Inner, TRUST, alias_path, alias_target, certificate_path, decode_identity, key_path, owner_of_path,
    owner_path, read_identity, trust_path,
};
use crate::address::{Domain, Mailbox, MailboxKey};
use crate::config::KekSources;
use crate::keys::{KeyId, SoftwareKey};
use crate::pki::certificate::Certificate;
use crate::pki::path::{AnchorScope, TrustSet};
use crate::pki::public_key::KeyKind;
use crate::policy::TrustState;
use crate::store::keyring::{Mac, SpoolKeks, hex};
use crate::store::record::{
    CertificateValue, Encoded, Kind, More, OwnerValue, ScopeValue, TombstoneValue, TrustEntryValue, TrustValue,
};
use crate::store::state::StoreState;
use crate::store::tree::Change;
use crate::store::{CertStore, ChangeEvent, Edit, Identity, NewCertificate, Owner, Revision, StoreError, Stored};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Owners changed by one transaction of the shared store.
pub(super) const SHARED_AT_ONCE: usize = 40;
/// RSA keys under this are refused, in bits.
const RSA_MIN: usize = 2048;

/// A certificate that was checked, with its key where one was given.
#[derive(Clone)]
pub(super) struct Checked {
    fingerprint: [u8; 32],
    value: CertificateValue,
    key: Option<(KeyId, Zeroizing<Vec<u8>>)>,
}

pub(super) fn check(new: NewCertificate) -> Result<Checked, StoreError> {
    let certificate = &new.certificate;
    if let KeyKind::Rsa { bits } = certificate.public_key().kind()
        && bits < RSA_MIN
    {
        return Err(StoreError::Refused(format!(
            "{} has an RSA key of {bits} bits; under {RSA_MIN} is refused, have a new certificate issued",
            certificate.subject_text()
        )));
    }
    let key = match new.key {
        None => None,
        Some(pkcs8) => {
            let key = SoftwareKey::from_pkcs8(&pkcs8)
                .map_err(|error| StoreError::Refused(format!("private key: {error}")))?;
            if key.id() != KeyId::of_spki(certificate.public_key().spki()) {
                return Err(StoreError::Refused(format!(
                    "the private key is not that of {}",
                    certificate.subject_text()
                )));
            }
            Some((key.id(), pkcs8))
        }
    };
    let value = CertificateValue {
        der: certificate.der().clone(),
        source: new.provenance.source,
        detail: new.provenance.detail,
        at: new.provenance.at,
        trust: new.trust,
        capabilities: None,
        preferred: false,
        key: key.as_ref().map(|(id, _)| id.0),
        more: More::default(),
    };
    Ok(Checked { fingerprint: certificate.fingerprint(), value, key })
}

fn scope_value(scope: Option<&AnchorScope>) -> ScopeValue {
    match scope {
        None => ScopeValue::Intermediate,
        Some(AnchorScope::Global) => ScopeValue::Global,
        Some(AnchorScope::Domains(domains)) => {
            ScopeValue::Domains(domains.iter().map(|domain| domain.as_str().to_owned()).collect())
        }
    }
}

/// Where the entry of this name is, replaced or added.
pub(super) fn set_pair(pairs: &mut Vec<([u8; 32], Mac)>, name: [u8; 32], mac: Mac) {
    match pairs.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = mac,
        None => pairs.push((name, mac)),
    }
}

pub(super) fn read_owner(change: &Change<'_, '_>, owner: &Owner) -> Result<Option<OwnerValue>, StoreError> {
    let path = owner_path(owner);
    let record = change.top(&path).map_err(|error| damaged(error, owner))?;
    match record {
        Some(record) if record.kind == Kind::Owner => {
            OwnerValue::decode(&record.value).map(Some).ok_or_else(|| damaged(change.view().alerts.raise(&path), owner))
        }
        _ => Ok(None),
    }
}

fn damaged(error: StoreError, owner: &Owner) -> StoreError {
    match error {
        StoreError::NotAuthentic(path) => StoreError::Refused(format!(
            "record {path} is not authentic; `waxwing cert purge {owner} --force`, then import again"
        )),
        other => other,
    }
}

fn must_be_known(change: &Change<'_, '_>, owner: &Owner) -> Result<OwnerValue, StoreError> {
    read_owner(change, owner)?
        .ok_or_else(|| StoreError::Refused(format!("nothing is stored for {owner}; `waxwing cert list` shows who is")))
}

/// The certificate's value, where its record is authentic.
///
/// # Errors
/// The record is of a later version: it must not be taken for absent.
pub(super) fn read_certificate(
    change: &Change<'_, '_>,
    owner: &Owner,
    value: &OwnerValue,
    fingerprint: [u8; 32],
) -> Result<Option<CertificateValue>, StoreError> {
    let Some((_, mac)) = value.certificates.iter().find(|(known, _)| *known == fingerprint) else { return Ok(None) };
    let record = unless_later(change.view().child(&certificate_path(owner, &fingerprint), mac))?;
    Ok(record
        .filter(|record| record.kind == Kind::Certificate)
        .and_then(|record| CertificateValue::decode(&record.value)))
}

/// What is not authentic is absent; what is of a later version is not.
pub(super) fn unless_later<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(there) => Ok(Some(there)),
        Err(StoreError::NotAuthentic(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

pub(super) fn must_be_no_alias(change: &Change<'_, '_>, owner: &Owner) -> Result<(), StoreError> {
    match owner {
        Owner::Mailbox(mailbox)
            if change.top(&alias_path(mailbox))?.is_some_and(|record| record.kind == Kind::Alias) =>
        {
            Err(StoreError::Refused(format!(
                "{mailbox} is an alias; name the mailbox it belongs to (`waxwing alias list`)"
            )))
        }
        _ => Ok(()),
    }
}

/// Makes an edit; says whether it changed anything.
fn apply(edit: Edit, certificate: &mut CertificateValue) -> bool {
    let before = certificate.clone();
    if let Some(trust) = edit.trust {
        certificate.trust = trust;
    }
    if let Some(said) = edit.capabilities {
        let (capabilities, by) = said.unzip();
        certificate.capabilities = capabilities;
        certificate.more.learned = by.map(|by| (by.source, by.detail, by.at));
    }
    certificate.preferred |= edit.prefer;
    certificate.more.last_seen = edit.seen.or(certificate.more.last_seen);
    if let Some(note) = edit.note {
        certificate.more.note = Some((note.why, note.instead_of));
    }
    *certificate != before
}

impl Inner {
    /// What the private key's seal is bound to: path, version, key id.
    pub(super) fn key_binding(path: &str, key: &KeyId) -> Vec<u8> {
        [path.as_bytes(), b"\0\x01".as_slice(), key.0.as_slice()].concat()
    }

    pub(super) fn put_key(&self, change: &mut Change<'_, '_>, key: &KeyId, pkcs8: &[u8]) -> Result<Mac, StoreError> {
        let path = key_path(key);
        let binding = Self::key_binding(&path, key);
        // Another owner may hold the same key: his record stays as it is.
        let there = match change.view().loose(&path) {
            // What is not authentic is written anew.
            Ok(None) | Err(StoreError::NotAuthentic(_)) => None,
            Ok(Some(record)) => Some(record),
            Err(other) => return Err(other),
        };
        if let Some(record) = there
            && record.kind == Kind::Key
            && change.ring().unseal(&binding, &record.value).is_some()
        {
            return Ok(record.mac);
        }
        let sealed = change.ring().seal(&binding, pkcs8)?;
        change.put_child(&path, Kind::Key, &sealed)
    }

    fn put_certificate(
        &self,
        change: &mut Change<'_, '_>,
        owner: &Owner,
        value: &mut OwnerValue,
        new: Checked,
    ) -> Result<Stored, StoreError> {
        let (stored, merged) = match read_certificate(change, owner, value, new.fingerprint)? {
            None => (Stored::New, new.value),
            Some(mut old) => {
                let key_added = old.key.is_none() && new.value.key.is_some();
                let approved = old.trust == TrustState::Pending
                    && matches!(new.value.trust, TrustState::Trusted | TrustState::Pinned);
                old.key = old.key.or(new.value.key);
                if approved {
                    old.trust = new.value.trust;
                }
                (
                    if key_added {
                        Stored::KeyAdded
                    } else if approved {
                        Stored::Approved
                    } else {
                        Stored::Unchanged
                    },
                    old,
                )
            }
        };
        if stored == Stored::Unchanged {
            return Ok(stored);
        }
        if let Some((id, pkcs8)) = &new.key {
            let mac = self.put_key(change, id, pkcs8)?;
            set_pair(&mut value.keys, id.0, mac);
        }
        let mac = change.put_child(&certificate_path(owner, &new.fingerprint), Kind::Certificate, &merged.encode())?;
        set_pair(&mut value.certificates, new.fingerprint, mac);
        Ok(stored)
    }

    /// Rewrites one certificate of an owner; `edit` says whether it changed anything.
    fn edit_certificate(
        &self,
        change: &mut Change<'_, '_>,
        owner: &Owner,
        value: &mut OwnerValue,
        fingerprint: [u8; 32],
        edit: impl FnOnce(&mut CertificateValue) -> bool,
    ) -> Result<bool, StoreError> {
        let mut certificate = read_certificate(change, owner, value, fingerprint)?
            .ok_or_else(|| StoreError::Refused(format!("{owner} has no certificate {}", *hex(&fingerprint))))?;
        if !edit(&mut certificate) {
            return Ok(false);
        }
        let mac = change.put_child(&certificate_path(owner, &fingerprint), Kind::Certificate, &certificate.encode())?;
        set_pair(&mut value.certificates, fingerprint, mac);
        Ok(true)
    }

    fn resolve(&self, mailbox: MailboxKey) -> Result<MailboxKey, StoreError> {
        if !self.later.is_empty() {
            let path = alias_path(&mailbox);
            self.understands(|one| one == path)?;
        }
        // Asked before the list: what is added to it meanwhile is found in one or the other.
        let whole = self.aliases_whole.load(Ordering::Acquire);
        match self.aliases.get(&mailbox).map(|target| target.value().clone()) {
            Some(Some(target)) => Ok(target),
            None if whole => Ok(mailbox),
            // What could not be read is asked for again: the file says why not.
            Some(None) | None => {
                let path = alias_path(&mailbox);
                match self.read(|view| view.top(&path))?.filter(|record| record.kind == Kind::Alias) {
                    Some(record) => alias_target(record).ok_or_else(|| self.alerts.raise(&path)),
                    None => Ok(mailbox),
                }
            }
        }
    }

    pub(super) fn put_certificates(
        &self,
        change: &mut Change<'_, '_>,
        owner: &Owner,
        new: Vec<Checked>,
    ) -> Result<Vec<Stored>, StoreError> {
        must_be_no_alias(change, owner)?;
        let mut value = read_owner(change, owner)?.unwrap_or_default();
        let mut stored = Vec::with_capacity(new.len());
        for one in new {
            stored.push(self.put_certificate(change, owner, &mut value, one)?);
        }
        if stored.iter().any(|one| *one != Stored::Unchanged) {
            change.put_top(&owner_path(owner), Kind::Owner, &value.encode())?;
        }
        Ok(stored)
    }

    /// Makes a revision.
    fn put_revision(
        &self,
        change: &mut Change<'_, '_>,
        owner: &Owner,
        revision: Revision,
    ) -> Result<Vec<Stored>, StoreError> {
        must_be_no_alias(change, owner)?;
        self.put_intermediates(change, revision.intermediates)?;
        let mut value = read_owner(change, owner)?.unwrap_or_default();
        let before = value.clone();
        let mut stored = Vec::with_capacity(revision.add.len());
        for new in revision.add {
            stored.push(self.put_certificate(change, owner, &mut value, check(new)?)?);
        }
        let preferred = revision.edit.iter().rfind(|edit| edit.prefer).map(|edit| edit.fingerprint);
        for edit in revision.edit {
            self.edit_certificate(change, owner, &mut value, edit.fingerprint, |certificate| apply(edit, certificate))?;
        }
        let all: Vec<[u8; 32]> = value.certificates.iter().map(|(name, _)| *name).collect();
        for other in all.into_iter().filter(|name| preferred.is_some_and(|preferred| preferred != *name)) {
            if read_certificate(change, owner, &value, other)?.is_some_and(|certificate| certificate.preferred) {
                self.edit_certificate(change, owner, &mut value, other, |certificate| {
                    std::mem::replace(&mut certificate.preferred, false)
                })?;
            }
        }
        for gone in revision.remove {
            if read_certificate(change, owner, &value, gone)?.is_some_and(|certificate| certificate.key.is_none()) {
                change.remove_child(&certificate_path(owner, &gone))?;
                value.certificates.retain(|(name, _)| *name != gone);
            }
        }
        let path = owner_path(owner);
        if value == before {
            Ok(stored)
        } else if value == OwnerValue::default() {
            change.remove_top(&path).map(|()| stored)
        } else {
            change.put_top(&path, Kind::Owner, &value.encode()).map(|()| stored)
        }
    }

    /// Adds intermediates; what is known, as an anchor too, stays as it is.
    pub(super) fn put_intermediates(
        &self,
        change: &mut Change<'_, '_>,
        new: Vec<Certificate>,
    ) -> Result<(), StoreError> {
        let known = self.read_trust_manifest(change)?.entries;
        let fresh: Vec<Certificate> =
            new.into_iter().filter(|new| !known.iter().any(|(name, _)| *name == new.fingerprint())).collect();
        if fresh.is_empty() { Ok(()) } else { self.put_trust(change, &fresh, None) }
    }

    /// Adds entries to the trust set; at most once in a change.
    fn put_trust(
        &self,
        change: &mut Change<'_, '_>,
        certificates: &[Certificate],
        scope: Option<&AnchorScope>,
    ) -> Result<(), StoreError> {
        let mut value = self.read_trust_manifest(change)?;
        let before = value.clone();
        for certificate in certificates {
            let name = certificate.fingerprint();
            let entry = TrustEntryValue { der: certificate.der().clone(), scope: scope_value(scope) };
            let known = value.entries.iter().find(|(known, _)| *known == name);
            let old = match known {
                Some((_, mac)) => unless_later(change.view().child(&trust_path(&name), mac))?,
                None => None,
            };
            if old.and_then(|record| TrustEntryValue::decode(&record.value)).is_some_and(|old| old == entry) {
                continue;
            }
            let mac = change.put_child(&trust_path(&name), Kind::TrustEntry, &entry.encode())?;
            set_pair(&mut value.entries, name, mac);
            value.removed.retain(|(removed, _)| *removed != name);
        }
        if value == before { Ok(()) } else { change.put_top(TRUST, Kind::Trust, &value.encode()) }
    }

    /// Removes what an owner had, and the keys that nobody else has.
    fn purge(&self, change: &mut Change<'_, '_>, owner: &Owner) -> Result<(), StoreError> {
        let path = owner_path(owner);
        let value = {
            let view = change.view();
            match view.top(&path) {
                Ok(None) => return Err(StoreError::Refused(format!("nothing is stored for {owner}"))),
                Ok(Some(record)) if record.kind == Kind::Tombstone => return Ok(()),
                Ok(Some(record)) => OwnerValue::decode(&record.value).unwrap_or_default(),
                // A damaged owner can be purged: that is how he is mended.
                Err(StoreError::NotAuthentic(_)) => OwnerValue::default(),
                Err(other) => return Err(other),
            }
        };
        let keys: Vec<[u8; 32]> = value.keys.iter().map(|(key, _)| *key).collect();
        let keys = if keys.is_empty() { keys } else { self.held_by_nobody_else(change, &path, keys) };
        for (fingerprint, mac) in &value.certificates {
            let path = certificate_path(owner, fingerprint);
            unless_later(change.view().child(&path, mac))?;
            change.remove_child(&path)?;
        }
        for key in &keys {
            let path = key_path(&KeyId(*key));
            unless_later(change.view().loose(&path))?;
            change.remove_child(&path)?;
        }
        let certificates = value.certificates.iter().map(|(fingerprint, _)| *fingerprint).collect();
        change.put_top(&path, Kind::Tombstone, &TombstoneValue { at: Timestamp::now(), certificates }.encode())?;
        change.keys_removed();
        Ok(())
    }

    pub(super) fn read_trust_manifest(&self, change: &Change<'_, '_>) -> Result<TrustValue, StoreError> {
        match change.view().top(TRUST)? {
            None => Ok(TrustValue::default()),
            Some(record) => TrustValue::decode(&record.value).ok_or_else(|| self.alerts.raise(TRUST)),
        }
    }
}

/// What became of the certificates of each owner named.
pub type ImportOutcome = Vec<(Owner, Vec<Stored>)>;

impl EmbeddedStore {
    /// Stores certificates for several owners, and the intermediates that came with them, in one transaction: all or nothing; in a shared store
    /// some forty owners at a time. An owner is named once;
    /// an intermediate that is an anchor already stays one.
    pub fn import(
        &self,
        new: Vec<(Owner, Vec<NewCertificate>)>,
        intermediates: Vec<Certificate>,
    ) -> Result<ImportOutcome, StoreError> {
        let mut checked = Vec::with_capacity(new.len());
        for (owner, certificates) in new {
            checked.push((owner, certificates.into_iter().map(check).collect::<Result<Vec<_>, _>>()?));
        }
        if self.inner.shared().is_none() {
            return self.inner.write(|change| {
                self.inner.put_intermediates(change, intermediates.clone())?;
                let one = |(owner, new): &(Owner, Vec<Checked>)| {
                    Ok((owner.clone(), self.inner.put_certificates(change, owner, new.clone())?))
                };
                checked.iter().map(one).collect::<Result<ImportOutcome, StoreError>>()
            });
        }
        for some in intermediates.chunks(SHARED_AT_ONCE) {
            self.inner.write(|change| self.inner.put_intermediates(change, some.to_vec()))?;
        }
        let mut outcome = Vec::with_capacity(checked.len());
        for some in checked.chunks(SHARED_AT_ONCE) {
            outcome.extend(self.import_owners(some)?);
        }
        Ok(outcome)
    }

    /// Adds anchors (`Some(scope)`) or intermediates (`None`) in one transaction.
    pub fn add_trust_all(&self, certificates: &[Certificate], scope: Option<&AnchorScope>) -> Result<(), StoreError> {
        let most = if self.inner.shared().is_some() { SHARED_AT_ONCE } else { usize::MAX };
        certificates
            .chunks(most)
            .try_for_each(|some| self.inner.write(|change| self.inner.put_trust(change, some, scope)))
    }

    /// As [`CertStore::purge`], where nothing of the owner changed since his identity had this generation: what came since was not exported.
    pub fn purge_as_seen(&self, owner: &Owner, generation: u64) -> Result<(), StoreError> {
        self.inner.write(|change| match change.top(&owner_path(owner))? {
            Some(record) if record.generation != generation => Err(StoreError::Refused(format!(
                "{owner} was changed while it was exported; nothing was removed, export again"
            ))),
            _ => self.inner.purge(change, owner),
        })
    }

    /// The owner that an address stands for: aliases followed.
    pub fn owner_of(&self, owner: &Owner) -> Result<Owner, StoreError> {
        match owner {
            Owner::Mailbox(mailbox) => self.inner.resolve(mailbox.clone()).map(Owner::Mailbox),
            Owner::Domain(_) => Ok(owner.clone()),
        }
    }
}

impl CertStore for EmbeddedStore {
    fn identity(&self, mailbox: &Mailbox) -> Result<Arc<Identity>, StoreError> {
        self.inner.identity(Owner::Mailbox(self.inner.resolve(mailbox.key())?))
    }

    fn domain_identity(&self, domain: &Domain) -> Result<Arc<Identity>, StoreError> {
        self.inner.identity(Owner::Domain(domain.clone()))
    }

    fn identity_of(&self, owner: &Owner) -> Result<Arc<Identity>, StoreError> {
        self.inner.identity(self.owner_of(owner)?)
    }

    fn trust(&self) -> Result<Arc<TrustSet>, StoreError> {
        self.inner.answers()?;
        self.inner.understands(|path| path.starts_with("t/"))?;
        self.inner.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn owners(&self) -> Result<Vec<Owner>, StoreError> {
        self.inner.read(|view| {
            let (tops, errors) = view.tops("o/");
            if let Some(error) = errors.into_iter().next() {
                return Err(error);
            }
            let live = |(path, mac): &(String, Mac)| {
                // One that is not authentic is listed: asking for it says so.
                view.child(path, mac).map_or(true, |record| record.kind == Kind::Owner)
            };
            let mut owners: Vec<Owner> =
                tops.iter().filter(|top| live(top)).filter_map(|(path, _)| owner_of_path(path)).collect();
            owners.sort();
            Ok(owners)
        })
    }

    fn add_certificates(&self, owner: &Owner, new: Vec<NewCertificate>) -> Result<Vec<Stored>, StoreError> {
        let new = new.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
        self.inner.write(|change| self.inner.put_certificates(change, owner, new.clone()))
    }

    fn revise(&self, owner: &Owner, decide: &mut dyn FnMut(&Identity) -> Revision) -> Result<Vec<Stored>, StoreError> {
        self.inner.write(|change| {
            let identity = read_identity(&change.view(), owner).map_err(|error| damaged(error, owner))?;
            self.inner.put_revision(change, owner, decide(&identity))
        })
    }

    fn each_identity(&self, call: &mut dyn FnMut(Identity)) -> Result<(), StoreError> {
        self.inner.read(|view| {
            for (path, mac) in view.tops("o/").0 {
                // What a later version wrote in its place is not known, and what was here before holds no more.
                let Some(owner) = owner_of_path(&path).filter(|_| !self.inner.later.contains(&path)) else { continue };
                let record = view.child(&path, &mac).ok().filter(|record| record.kind == Kind::Owner);
                // What is not authentic raised its alert.
                let identity = record.and_then(|record| decode_identity(view, &owner, &record).ok());
                if let Some(identity) = identity.filter(|identity| !identity.certificates.is_empty()) {
                    call(identity);
                }
            }
            Ok(())
        })
    }

    fn set_trust(&self, owner: &Owner, fingerprint: [u8; 32], trust: TrustState) -> Result<(), StoreError> {
        self.inner.write(|change| {
            let mut value = must_be_known(change, owner)?;
            let changed = self.inner.edit_certificate(change, owner, &mut value, fingerprint, |certificate| {
                std::mem::replace(&mut certificate.trust, trust) != trust
            })?;
            if changed { change.put_top(&owner_path(owner), Kind::Owner, &value.encode()) } else { Ok(()) }
        })
    }

    fn set_disabled(&self, owner: &Owner, disabled: bool) -> Result<(), StoreError> {
        self.inner.write(|change| {
            let mut value = must_be_known(change, owner)?;
            if std::mem::replace(&mut value.disabled, disabled) == disabled {
                return Ok(());
            }
            change.put_top(&owner_path(owner), Kind::Owner, &value.encode())
        })
    }

    fn purge(&self, owner: &Owner) -> Result<(), StoreError> {
        self.inner.write(|change| self.inner.purge(change, owner))
    }

    fn add_trust(&self, certificate: Certificate, scope: Option<AnchorScope>) -> Result<(), StoreError> {
        self.inner.write(|change| self.inner.put_trust(change, std::slice::from_ref(&certificate), scope.as_ref()))
    }

    fn remove_trust(&self, fingerprint: [u8; 32]) -> Result<(), StoreError> {
        self.inner.write(|change| {
            let mut value = self.inner.read_trust_manifest(change)?;
            let before = value.entries.len();
            for (name, mac) in value.entries.iter().filter(|(name, _)| *name == fingerprint) {
                unless_later(change.view().child(&trust_path(name), mac))?;
            }
            value.entries.retain(|(name, _)| *name != fingerprint);
            if value.entries.len() == before {
                return Err(StoreError::Refused(format!("no anchor or intermediate {} is stored", *hex(&fingerprint))));
            }
            value.removed.push((fingerprint, Timestamp::now()));
            change.remove_child(&trust_path(&fingerprint))?;
            change.put_top(TRUST, Kind::Trust, &value.encode())
        })
    }

    fn add_alias(&self, alias: &MailboxKey, mailbox: &MailboxKey) -> Result<(), StoreError> {
        self.inner.write(|change| {
            let view = change.view();
            let is_alias = |name: &MailboxKey| {
                Ok::<_, StoreError>(view.top(&alias_path(name))?.is_some_and(|record| record.kind == Kind::Alias))
            };
            let refused = |why: String| Err(StoreError::Refused(why));
            if alias == mailbox {
                return refused(format!("{alias} cannot be an alias of itself"));
            }
            if is_alias(mailbox)? {
                return refused(format!(
                    "{mailbox} is an alias itself; name the mailbox it belongs to (`waxwing alias list`)"
                ));
            }
            for (path, mac) in change.every("a/").0 {
                let record = view.child(&path, &mac)?;
                if record.kind == Kind::Alias && record.value == alias.as_str().as_bytes() {
                    return refused(format!(
                        "{alias} has aliases of its own; remove them first (`waxwing alias list`)"
                    ));
                }
            }
            if read_owner(change, &Owner::Mailbox(alias.clone()))?.is_some_and(|value| !value.certificates.is_empty()) {
                return refused(format!(
                    "{alias} has certificates of its own, which an alias would hide; purge them first"
                ));
            }
            if view
                .top(&alias_path(alias))?
                .is_some_and(|record| record.kind == Kind::Alias && record.value == mailbox.as_str().as_bytes())
            {
                return Ok(());
            }
            change.put_top(&alias_path(alias), Kind::Alias, mailbox.as_str().as_bytes())
        })
    }

    fn remove_alias(&self, alias: &MailboxKey) -> Result<(), StoreError> {
        self.inner.write(|change| {
            let path = alias_path(alias);
            match change.view().top(&path) {
                Ok(Some(record)) if record.kind == Kind::Alias => {}
                // A damaged alias can be removed.
                Err(StoreError::NotAuthentic(_)) => {}
                Ok(_) => return Err(StoreError::Refused(format!("{alias} is no alias"))),
                Err(other) => return Err(other),
            }
            change.put_top(
                &path,
                Kind::Tombstone,
                &TombstoneValue { at: Timestamp::now(), certificates: Vec::new() }.encode(),
            )
        })
    }

    fn aliases(&self) -> Result<Vec<(MailboxKey, MailboxKey)>, StoreError> {
        if !self.inner.aliases_whole.load(Ordering::Acquire) {
            return Err(StoreError::Io("cannot list all aliases now".to_owned()));
        }
        let mut aliases = Vec::with_capacity(self.inner.aliases.len());
        for entry in &self.inner.aliases {
            let mailbox = entry.value().clone().ok_or_else(|| self.inner.alerts.raise(&alias_path(entry.key())))?;
            aliases.push((entry.key().clone(), mailbox));
        }
        aliases.sort();
        Ok(aliases)
    }

    fn export_key(&self, key: KeyId) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let pkcs8 = self
            .inner
            .read_key(&key)?
            .ok_or_else(|| StoreError::Refused(format!("the private key {} is not in the store", *hex(&key.0))))?;
        self.inner.exported(key)?;
        Ok(pkcs8)
    }

    fn spool_keks(&self) -> SpoolKeks {
        self.inner.spool_keks()
    }

    fn use_keks(&self, sources: &KekSources) {
        self.inner.use_keks(sources);
    }

    fn state(&self) -> StoreState {
        self.inner.state()
    }

    fn live_nodes(&self) -> Option<usize> {
        self.inner.live_nodes()
    }

    fn subscribe(&self) -> broadcast::Receiver<ChangeEvent> {
        self.inner.events.subscribe()
    }
}

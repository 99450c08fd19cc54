//! What records say: identities, the trust set, and whether all of them are there and authentic.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use redb::ReadableTable;

use super::{Inner, TRUST, certificate_path, key_path, owner_of_path, owner_path, trust_path};
use crate::address::{Domain, MailboxKey};
use crate::keys::KeyId;
use crate::pki::certificate::Certificate;
use crate::pki::path::{AnchorScope, TrustAnchor, TrustSet};
use crate::store::keyring::Mac;
use crate::store::record::{
    CertificateValue, Encoded, Kind, OwnerValue, Record, ScopeValue, TrustEntryValue, TrustValue,
};
use crate::store::tree::{ROOT, View, io};
use crate::store::{CertificateRecord, Identity, Note, Owner, Provenance, StoreError};

impl Inner {
    /// See [`super::EmbeddedStore::verify`].
    pub(super) fn verify(&self) -> Result<Vec<String>, StoreError> {
        self.read(|view| {
            // What a record of a later version names is not known.
            let (mut bad, mut later) = (Vec::new(), false);
            // Hashes in place of paths: a large store has millions.
            let hasher = RandomState::new();
            let mut named: HashSet<u64> = view.bucket_paths().map(|path| hasher.hash_one(path.as_str())).collect();
            named.insert(hasher.hash_one(ROOT));
            let errors = view.each_top(|path, mac| {
                named.insert(hasher.hash_one(path.as_str()));
                match view.child(&path, &mac) {
                    Ok(record) => children_of(&path, &record).into_iter().for_each(|(child, mac)| {
                        named.insert(hasher.hash_one(child.as_str()));
                        if let Err(error) = named_child(view, &child, &mac) {
                            note(&mut bad, error);
                        }
                    }),
                    Err(error) => {
                        later |= matches!(error, StoreError::Later(_));
                        note(&mut bad, error);
                    }
                }
            });
            errors.into_iter().for_each(|error| note(&mut bad, error));
            for entry in view.table.iter().map_err(io)? {
                let entry = entry.map_err(io)?;
                let path = entry.0.value();
                if !later && !path.starts_with("l/") && !named.contains(&hasher.hash_one(path)) {
                    note(&mut bad, self.alerts.raise(path));
                }
            }
            Ok(bad)
        })
    }
}

/// The mailbox that an alias's record names.
pub(super) fn alias_target(record: Record) -> Option<MailboxKey> {
    String::from_utf8(record.value).ok().and_then(|text| MailboxKey::from_stored(&text).ok())
}

fn note(bad: &mut Vec<String>, error: StoreError) {
    let name = match error {
        StoreError::NotAuthentic(path) => path,
        other => other.to_string(),
    };
    if !bad.contains(&name) {
        bad.push(name);
    }
}

/// A record that another names. A key's record has no other content than the one its path names (its seal binds it), and several owners may name
/// it: any that is authentic is the right one.
pub(super) fn named_child<T: ReadableTable<&'static str, &'static [u8]>>(
    view: &View<'_, T>,
    path: &str,
    mac: &Mac,
) -> Result<Record, StoreError> {
    if path.starts_with("k/") {
        view.loose(path)?.ok_or_else(|| view.alerts.raise(path))
    } else {
        view.child(path, mac)
    }
}

/// The records that a top-level record names.
pub(super) fn children_of(path: &str, record: &Record) -> Vec<(String, Mac)> {
    match record.kind {
        Kind::Owner => {
            let (Some(owner), Some(value)) = (owner_of_path(path), OwnerValue::decode(&record.value)) else {
                return Vec::new();
            };
            let certificates = value.certificates.iter().map(|(name, mac)| (certificate_path(&owner, name), *mac));
            certificates.chain(value.keys.iter().map(|(name, mac)| (key_path(&KeyId(*name)), *mac))).collect()
        }
        Kind::Trust => TrustValue::decode(&record.value)
            .map(|value| value.entries.iter().map(|(name, mac)| (trust_path(name), *mac)).collect())
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

pub(super) fn read_trust<T: ReadableTable<&'static str, &'static [u8]>>(
    view: &View<'_, T>,
) -> Result<TrustSet, StoreError> {
    let Some(record) = view.top(TRUST)? else { return Ok(TrustSet::default()) };
    let value = TrustValue::decode(&record.value)
        .filter(|_| record.kind == Kind::Trust)
        .ok_or_else(|| view.alerts.raise(TRUST))?;
    let mut set = TrustSet { generation: record.generation, ..TrustSet::default() };
    for (name, mac) in &value.entries {
        let path = trust_path(name);
        // What is not authentic is absent: nothing it vouched for is valid, and the alert was raised.
        let Ok(record) = view.child(&path, mac) else { continue };
        let decoded = TrustEntryValue::decode(&record.value)
            .and_then(|entry| Some((Certificate::from_der(entry.der).ok()?, entry.scope)));
        match decoded {
            Some((certificate, ScopeValue::Intermediate)) => set.intermediates.push(certificate),
            Some((certificate, ScopeValue::Global)) => {
                set.anchors.push(TrustAnchor { certificate, scope: AnchorScope::Global })
            }
            Some((certificate, ScopeValue::Domains(domains))) => {
                let domains = domains.iter().filter_map(|domain| Domain::parse(domain).ok()).collect();
                set.anchors.push(TrustAnchor { certificate, scope: AnchorScope::Domains(domains) });
            }
            None => drop(view.alerts.raise(&path)),
        }
    }
    Ok(set)
}

pub(super) fn read_identity<T: ReadableTable<&'static str, &'static [u8]>>(
    view: &View<'_, T>,
    owner: &Owner,
) -> Result<Identity, StoreError> {
    match view.top(&owner_path(owner))? {
        Some(record) => decode_identity(view, owner, &record),
        None => Ok(Identity { owner: owner.clone(), certificates: Vec::new(), disabled: false, generation: 0 }),
    }
}

/// What an owner's record says, with all that it names.
pub(super) fn decode_identity<T: ReadableTable<&'static str, &'static [u8]>>(
    view: &View<'_, T>,
    owner: &Owner,
    record: &Record,
) -> Result<Identity, StoreError> {
    let path = owner_path(owner);
    let mut identity =
        Identity { owner: owner.clone(), certificates: Vec::new(), disabled: false, generation: record.generation };
    if record.kind == Kind::Tombstone {
        return Ok(identity);
    }
    let value = OwnerValue::decode(&record.value)
        .filter(|_| record.kind == Kind::Owner)
        .ok_or_else(|| view.alerts.raise(&path))?;
    identity.disabled = value.disabled;
    for (name, mac) in &value.certificates {
        let path = certificate_path(owner, name);
        let record = match view.child(&path, mac) {
            Ok(record) => record,
            // Not to be taken for absent.
            Err(error @ StoreError::Later(_)) => return Err(error),
            Err(_) => continue,
        };
        match decode_certificate(view, &value, &record) {
            Some(certificate) => identity.certificates.push(certificate),
            None => drop(view.alerts.raise(&path)),
        }
    }
    if identity.certificates.is_empty() && !value.certificates.is_empty() {
        return Err(StoreError::NotAuthentic(path));
    }
    identity.certificates.sort_by_key(|record| record.certificate.not_before());
    Ok(identity)
}

fn decode_certificate<T: ReadableTable<&'static str, &'static [u8]>>(
    view: &View<'_, T>,
    owner: &OwnerValue,
    record: &Record,
) -> Option<CertificateRecord> {
    let value = CertificateValue::decode(&record.value).filter(|_| record.kind == Kind::Certificate)?;
    let key = value.key.filter(|key| {
        owner.keys.iter().any(|(name, _)| name == key)
            && match view.loose(&key_path(&KeyId(*key))) {
                Ok(record) => record.is_some_and(|record| record.kind == Kind::Key),
                // It is there: who wants to use it is told.
                Err(error) => matches!(error, StoreError::Later(_)),
            }
    });
    Some(CertificateRecord {
        certificate: Certificate::from_der(value.der).ok()?,
        provenance: Provenance { source: value.source, detail: value.detail, at: value.at },
        trust: value.trust,
        capabilities: value.capabilities,
        learned: value.more.learned.map(|(source, detail, at)| Provenance { source, detail, at }),
        preferred: value.preferred,
        key: key.map(KeyId),
        last_seen: value.more.last_seen,
        note: value.more.note.map(|(why, instead_of)| Note { why, instead_of }),
    })
}

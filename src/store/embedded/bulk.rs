//! Many certificates in few transactions: each change of the tree rewrites the buckets it touches, so thousands share one.

use std::collections::HashSet;

use super::change::{Checked, SHARED_AT_ONCE, check, must_be_no_alias, read_owner};
use super::{EmbeddedStore, ImportOutcome, Inner};
use crate::pki::certificate::Certificate;
use crate::store::tree::Change;
use crate::store::{NewCertificate, Owner, StoreError};

/// Parcels that one transaction stores at best: enough that rewriting all 1,024 buckets is a small part of it.
const AT_ONCE: usize = 8_192;

/// What belongs together, a file or a directory's value: all of it is stored, or nothing.
#[derive(Default)]
pub struct Parcel {
    /// An owner is named once.
    pub owners: Vec<(Owner, Vec<NewCertificate>)>,
    /// CA certificates that came along; those that are known stay as they are.
    pub intermediates: Vec<Certificate>,
}

/// A parcel whose certificates and keys may be stored: [`Parcel::check`] makes it, on any thread.
pub struct CheckedParcel {
    owners: Vec<(Owner, Vec<Checked>)>,
    intermediates: Vec<Certificate>,
}

impl Parcel {
    /// Refused: RSA under 2048 bits, a key that is not the certificate's.
    pub fn check(self) -> Result<CheckedParcel, StoreError> {
        let mut owners = Vec::with_capacity(self.owners.len());
        for (owner, new) in self.owners {
            owners.push((owner, new.into_iter().map(check).collect::<Result<Vec<_>, _>>()?));
        }
        Ok(CheckedParcel { owners, intermediates: self.intermediates })
    }
}

impl EmbeddedStore {
    /// How many parcels [`Self::import_parcels`] is best given at once.
    pub fn at_once(&self) -> usize {
        AT_ONCE
    }

    /// Stores parcels in one transaction where that can be; what became of each, in order. One that is refused (an alias, an owner whose record is
    /// not authentic) costs no other. Stored already is no error, so this may be repeated.
    pub fn import_parcels(&self, parcels: &[CheckedParcel]) -> Vec<Result<ImportOutcome, StoreError>> {
        // The shared store takes so many records at a time.
        if self.inner.shared().is_some() && parcels.len() > SHARED_AT_ONCE {
            return parcels.chunks(SHARED_AT_ONCE).flat_map(|some| self.import_parcels(some)).collect();
        }
        match self.inner.write(|change| self.inner.put_parcels(change, parcels)) {
            Ok(outcomes) => outcomes,
            // One that was begun cannot be stored, or they are too much: which one is seen by halves.
            Err(StoreError::Refused(_) | StoreError::NotAuthentic(_) | StoreError::TooLarge(_))
                if parcels.len() > 1 =>
            {
                let (left, right) = parcels.split_at_checked(parcels.len() / 2).unwrap_or((parcels, &[]));
                let mut outcomes = self.import_parcels(left);
                outcomes.extend(self.import_parcels(right));
                outcomes
            }
            Err(StoreError::TooLarge(_)) => parcels.iter().map(|one| self.import_in_parts(one)).collect(),
            Err(error) => parcels.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// A parcel of more than the shared store takes at a time. What would refuse it is looked for before anything of it is stored; what fails later
    /// leaves a part of it, and it is imported again.
    fn import_in_parts(&self, parcel: &CheckedParcel) -> Result<ImportOutcome, StoreError> {
        self.inner.write(|change| may_be_stored(change, parcel))?;
        for some in parcel.intermediates.chunks(SHARED_AT_ONCE) {
            self.inner.write(|change| self.inner.put_intermediates(change, some.to_vec()))?;
        }
        let mut outcome = Vec::with_capacity(parcel.owners.len());
        for some in parcel.owners.chunks(SHARED_AT_ONCE) {
            match self.import_owners(some) {
                Ok(stored) => outcome.extend(stored),
                Err(StoreError::Unavailable(why)) => {
                    let (done, all) = (outcome.len(), parcel.owners.len());
                    return Err(StoreError::Unavailable(format!(
                        "at least {done} of its {all} owners are stored, import it again: {why}"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(outcome)
    }

    /// Some owners with one change, or with several where that is too much.
    pub(super) fn import_owners(&self, owners: &[(Owner, Vec<Checked>)]) -> Result<ImportOutcome, StoreError> {
        let stored = self.inner.write(|change| {
            let one = |(owner, new): &(Owner, Vec<Checked>)| {
                Ok((owner.clone(), self.inner.put_certificates(change, owner, new.clone())?))
            };
            owners.iter().map(one).collect::<Result<ImportOutcome, StoreError>>()
        });
        match stored {
            Err(StoreError::TooLarge(_)) if owners.len() > 1 => {
                let (left, right) = owners.split_at_checked(owners.len() / 2).unwrap_or((owners, &[]));
                let mut outcome = self.import_owners(left)?;
                outcome.extend(self.import_owners(right)?);
                Ok(outcome)
            }
            other => other,
        }
    }
}

/// Fails where one of its owners is an alias, or has a record that is not authentic.
fn may_be_stored(change: &Change<'_, '_>, parcel: &CheckedParcel) -> Result<(), StoreError> {
    parcel.owners.iter().try_for_each(|(owner, _)| {
        must_be_no_alias(change, owner)?;
        read_owner(change, owner).map(drop)
    })
}

impl Inner {
    fn put_parcels(
        &self,
        change: &mut Change<'_, '_>,
        parcels: &[CheckedParcel],
    ) -> Result<Vec<Result<ImportOutcome, StoreError>>, StoreError> {
        let mut outcomes = Vec::with_capacity(parcels.len());
        let (mut intermediates, mut known) = (Vec::new(), HashSet::new());
        for parcel in parcels {
            // Seen before anything of it is written.
            match may_be_stored(change, parcel) {
                Ok(()) => {}
                Err(error @ StoreError::Io(_)) => return Err(error),
                Err(error) => {
                    outcomes.push(Err(error));
                    continue;
                }
            }
            let mut outcome = Vec::with_capacity(parcel.owners.len());
            for (owner, new) in &parcel.owners {
                outcome.push((owner.clone(), self.put_certificates(change, owner, new.clone())?));
            }
            outcomes.push(Ok(outcome));
            let fresh = parcel.intermediates.iter().filter(|one| known.insert(one.fingerprint()));
            intermediates.extend(fresh.cloned());
        }
        if !intermediates.is_empty() {
            self.put_intermediates(change, intermediates)?;
        }
        Ok(outcomes)
    }
}

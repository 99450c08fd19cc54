//! Whose certificates run out, with none after them.

use jiff::{SignedDuration, Timestamp};

use super::{CertStore, CertificateRecord, Identity, Owner, StoreError};
use crate::pki::certificate::{Certificate, Purpose};
use crate::policy::TrustState;

/// The last certificate that an owner has for what it is for.
#[derive(Debug, Clone)]
pub struct Expiring {
    pub owner: Owner,
    pub certificate: Certificate,
    /// Signing (only where its private key is here), encryption, or both.
    pub purposes: Vec<Purpose>,
    /// The owner is a user of ours: a private key of his is here.
    pub ours: bool,
    /// It is over already.
    pub expired: bool,
}

/// What of an owner's runs out within a time from `now`, or has run out. A disabled owner needs nothing.
pub fn expiring(identity: &Identity, now: Timestamp, within: SignedDuration) -> Vec<Expiring> {
    let ours = identity.certificates.iter().any(|record| record.key.is_some());
    let until = now.saturating_add(within).unwrap_or(Timestamp::MAX);
    let mut found: Vec<Expiring> = Vec::new();
    for purpose in [Purpose::Signature, Purpose::Encryption] {
        let fits = |record: &&CertificateRecord| {
            let used = !matches!(record.trust, TrustState::Blocked | TrustState::Pending);
            // Who signs outside is none of our business; and what we cannot decrypt is no certificate of our user's.
            let here = if ours { record.key.is_some() } else { purpose == Purpose::Encryption };
            used && here && record.certificate.fits(purpose).is_ok()
        };
        let last = identity.certificates.iter().filter(fits).max_by_key(|record| record.certificate.not_after());
        let Some(last) = last.filter(|last| !identity.disabled && last.certificate.not_after() <= until) else {
            continue;
        };
        match found.iter_mut().find(|known| known.certificate == last.certificate) {
            Some(known) => known.purposes.push(purpose),
            None => found.push(Expiring {
                owner: identity.owner.clone(),
                certificate: last.certificate.clone(),
                purposes: vec![purpose],
                ours,
                expired: last.certificate.not_after() <= now,
            }),
        }
    }
    found
}

/// How many, and whose first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Certificates of users of ours that run out soon.
    pub ours: u64,
    /// Of users of ours that have run out, with none after them: they can no longer sign or be encrypted to.
    pub ours_expired: u64,
    /// Of others, soon.
    pub partners: u64,
    /// The users of ours whose certificates run out first, at most [`NAMED`], with the time; those that have run out come first.
    pub first: Vec<(Timestamp, Owner)>,
}

/// So many are named in a summary.
pub const NAMED: usize = 20;

/// Looks through the whole store: takes as long as reading it.
pub fn summary(store: &dyn CertStore, now: Timestamp, within: SignedDuration) -> Result<Summary, StoreError> {
    let mut sum = Summary::default();
    store.each_identity(&mut |identity| {
        for one in expiring(&identity, now, within) {
            match (one.ours, one.expired) {
                (true, expired) => {
                    let count = if expired { &mut sum.ours_expired } else { &mut sum.ours };
                    *count = count.saturating_add(1);
                    sum.first.push((one.certificate.not_after(), one.owner));
                }
                (false, false) => sum.partners = sum.partners.saturating_add(1),
                (false, true) => {}
            }
        }
        if sum.first.len() > 2 * NAMED {
            sum.first.sort();
            sum.first.truncate(NAMED);
        }
    })?;
    sum.first.sort();
    sum.first.truncate(NAMED);
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::MailboxKey;
    use crate::keys::KeyId;
    use crate::pki::authority::{NewKey, Recipe, issue_cached};
    use crate::store::Provenance;

    fn record(now: Timestamp, days: i64, usage: &[&'static str], key: bool) -> CertificateRecord {
        let mut recipe = Recipe::mailbox("anna@example.org", now, NewKey::P256);
        recipe.not_before = now - SignedDuration::from_hours(24 * 400);
        recipe.not_after = now + SignedDuration::from_hours(24 * days);
        recipe.key_usage = usage.to_vec();
        let certificate = issue_cached(&recipe, None).certificate;
        CertificateRecord {
            key: key.then(|| KeyId::of_spki(certificate.public_key().spki())),
            certificate,
            provenance: Provenance { source: "import".into(), detail: "test".into(), at: now },
            trust: TrustState::Trusted,
            capabilities: None,
            learned: None,
            preferred: false,
            last_seen: None,
            note: None,
        }
    }

    #[test]
    fn only_the_last_certificate_of_each_purpose_counts() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let (both, sign, encrypt) = (["digitalSignature", "keyAgreement"], ["digitalSignature"], ["keyAgreement"]);
        let found = |certificates: Vec<CertificateRecord>, disabled| {
            let owner = Owner::Mailbox(MailboxKey::parse("anna@example.org").unwrap());
            let identity = Identity { owner, certificates, disabled, generation: 1 };
            let month = SignedDuration::from_hours(24 * 30);
            expiring(&identity, now, month)
                .into_iter()
                .map(|one| (one.purposes, one.ours, one.expired))
                .collect::<Vec<_>>()
        };
        let (s, e) = (Purpose::Signature, Purpose::Encryption);
        assert_eq!(found(vec![record(now, 20, &both, true)], false), [(vec![s, e], true, false)]);
        assert_eq!(found(vec![record(now, -3, &both, true)], false), [(vec![s, e], true, true)]);
        assert!(found(vec![record(now, 31, &both, true)], false).is_empty());
        assert!(found(vec![record(now, 20, &both, true)], true).is_empty(), "a disabled user needs none");
        assert!(found(vec![record(now, 20, &both, true), record(now, 300, &both, true)], false).is_empty());
        // A successor that only encrypts leaves signing to run out.
        assert_eq!(
            found(vec![record(now, 20, &both, true), record(now, 300, &encrypt, true)], false),
            [(vec![s], true, false)]
        );
        // One whose key is not here is no successor of a user of ours.
        assert_eq!(
            found(vec![record(now, 20, &both, true), record(now, 300, &both, false)], false),
            [(vec![s, e], true, false)]
        );
        assert_eq!(found(vec![record(now, 20, &both, false)], false), [(vec![e], false, false)]);
        assert!(found(vec![record(now, 20, &sign, false)], false).is_empty());
        let mut blocked = record(now, 300, &both, true);
        blocked.trust = TrustState::Blocked;
        assert_eq!(found(vec![record(now, 20, &both, true), blocked], false).len(), 1);
    }
}

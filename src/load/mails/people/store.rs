//! The people of a Waxwing store: ours are those of the configuration's domains.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::{People, Person};
use crate::address::Mailbox;
use crate::cli::read_config;
use crate::pki::certificate::Purpose;
use crate::policy::TrustState;
use crate::store::embedded::EmbeddedStore;
use crate::store::{CertStore, Identity, Owner};

/// Reads the store that a configuration file names; it may be in use.
pub(super) fn people(file: &Path) -> Result<People, String> {
    let config = read_config(file).map_err(|failure| failure.to_string())?;
    let store = EmbeddedStore::open(&config.store, &config.kek).map_err(|error| error.to_string())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for owner in store.owners().map_err(|error| error.to_string())? {
        let Owner::Mailbox(key) = &owner else { continue };
        let mailbox = Mailbox::parse(key.as_str()).map_err(|error| error.to_string())?;
        let identity = store.identity(&mailbox).map_err(|error| error.to_string())?;
        let ours_too = config.domains.contains(mailbox.domain());
        if let Some(person) = person(&store, mailbox, &identity)? {
            // A mailbox of ours without its key could not read what is sent to it.
            match (ours_too, person.key.is_some()) {
                (true, true) => ours.push(person),
                (true, false) => {}
                (false, _) => theirs.push(person),
            }
        }
    }
    let name = config.store.display();
    if ours.is_empty() || theirs.is_empty() {
        return Err(format!(
            "the store {name} has {} people of our domains with a key and {} of others that can be used: at least one of each is needed",
            ours.len(),
            theirs.len()
        ));
    }
    let trust = store.trust().map_err(|error| error.to_string())?;
    Ok(People { trust: Arc::clone(&trust), ..People::of(ours, theirs, Vec::new(), None)? })
}

/// With the newest certificate that can be encrypted to; `None`: there is none.
fn person(store: &EmbeddedStore, mailbox: Mailbox, identity: &Identity) -> Result<Option<Person>, String> {
    let now = Timestamp::now();
    let usable = identity.certificates.iter().filter(|record| {
        let certificate = &record.certificate;
        !identity.disabled
            && matches!(record.trust, TrustState::Trusted | TrustState::Pinned)
            && (certificate.not_before()..=certificate.not_after()).contains(&now)
            && certificate.fits(Purpose::Encryption).is_ok()
    });
    let Some(record) = usable.max_by_key(|record| (record.key.is_some(), record.certificate.not_before())) else {
        return Ok(None);
    };
    let pkcs8 = record.key.map(|key| store.export_key(key)).transpose().map_err(|error| error.to_string())?;
    Person::new(mailbox, record.certificate.clone(), pkcs8).map(Some)
}

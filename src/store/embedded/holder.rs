//! Answering with private keys: read and unsealed once, kept in a bounded cache, never shown.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{EmbeddedStore, Inner, key_path};
use crate::keys::{KeyError, KeyHolder, KeyId, KeyOperation, SoftwareKey, Submission};
use crate::pki::public_key::{KeyKind, PublicKey};
use crate::store::StoreError;
use crate::store::record::Kind;

/// RSA beyond this many bits takes more than a millisecond and is done on the pool.
const INLINE_RSA_BITS: usize = 2048;

/// A key ready for use.
#[derive(Clone)]
pub(super) struct Loaded {
    key: Arc<SoftwareKey>,
    slow: bool,
}

impl Inner {
    /// The PKCS#8 of a key; `None` where there is none.
    pub(super) fn read_key(&self, key: &KeyId) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = key_path(key);
        self.read(|view| {
            let Some(record) = view.loose(&path)?.filter(|record| record.kind == Kind::Key) else { return Ok(None) };
            let plain = view.ring.unseal(&Self::key_binding(&path, key), &record.value);
            plain.map(Some).ok_or_else(|| self.alerts.raise(&path))
        })
    }

    #[cfg(test)]
    pub(super) fn key_for_test(&self, id: &KeyId) {
        drop(self.key(id).unwrap());
    }

    fn key(&self, id: &KeyId) -> Result<Loaded, KeyError> {
        if let Some(loaded) = self.keys.get(id) {
            return Ok(loaded);
        }
        let ticket = self.keys.begin(id);
        let pkcs8 = match self.read_key(id) {
            Ok(Some(pkcs8)) => pkcs8,
            Ok(None) | Err(StoreError::NotAuthentic(_)) => return Err(KeyError::Unknown),
            Err(error) => return Err(KeyError::Unavailable(error.to_string())),
        };
        let key = SoftwareKey::from_pkcs8(&pkcs8)?;
        let kind = PublicKey::from_spki(bytes::Bytes::copy_from_slice(key.spki())).map(|public| public.kind());
        let slow = matches!(kind, Ok(KeyKind::Rsa { bits }) if bits > INLINE_RSA_BITS);
        let loaded = Loaded { key: Arc::new(key), slow };
        self.keys.fill(id, loaded.clone(), ticket);
        Ok(loaded)
    }
}

fn gone<E>(_: E) -> KeyError {
    KeyError::Unavailable("the process is stopping".to_owned())
}

impl KeyHolder for EmbeddedStore {
    /// RSA-2048 and elliptic curves are done here and now; larger RSA keys on a pool as wide as the machine, where there is a runtime.
    fn submit(&self, operation: KeyOperation) -> Submission {
        self.inner.witnessed(operation, |operation| self.inner.perform(operation))
    }
}

impl Inner {
    fn perform(&self, operation: KeyOperation) -> Submission {
        let id = operation.key();
        let loaded = match self.key(&id) {
            Ok(loaded) => loaded,
            Err(error) => return Submission::Ready(Err(error)),
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if loaded.slow => {
                let pool = Arc::clone(&self.pool);
                Submission::Later(Box::pin(async move {
                    let _permit = pool.acquire_owned().await.map_err(gone)?;
                    runtime.spawn_blocking(move || loaded.key.perform(&operation)).await.map_err(gone)?
                }))
            }
            _ => Submission::Ready(loaded.key.perform(&operation)),
        }
    }
}

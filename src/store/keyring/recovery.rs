//! The recovery key: kept offline, it opens the store when every key-encryption key is lost. It is a pair, so that new store keys are wrapped for it
//! while it lies in its safe: an ephemeral X25519 key (RFC 7748), HKDF-SHA-256 (RFC 5869), AES-256-GCM.

use std::path::Path;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{digest, hkdf};
use zeroize::Zeroizing;

use super::kek::{Fingerprint, read_private, write_new};
use super::{KEY_LEN, crypto_failed, gcm_key, hex, random, seal, unhex, unseal};
use crate::store::StoreError;

const LINE: &str = "waxwing-recovery-v1";
pub(super) const PUBLIC_LEN: usize = 32;

/// The private half, from its file.
pub struct RecoveryKey {
    private: PrivateKey,
    public: [u8; PUBLIC_LEN],
    name: String,
}

impl RecoveryKey {
    /// Makes one in a new file of mode 0600: `waxwing-recovery-v1` and 64 hexadecimal digits; an existing file is an error.
    pub fn create(file: &Path) -> Result<Self, StoreError> {
        let mut octets = Zeroizing::new([0u8; KEY_LEN]);
        random(octets.as_mut())?;
        let key = Self::of(octets.as_ref(), file)?;
        write_new(file, &format!("{LINE}\n{}\n", hex(octets.as_ref()).as_str()))?;
        Ok(key)
    }

    /// Reads one; a file that group or others may read is refused.
    pub fn read(file: &Path) -> Result<Self, StoreError> {
        let text = read_private(file)?;
        let foreign = |why: &str| StoreError::Kek(file.display().to_string(), why.to_owned());
        let mut lines = text.lines();
        if lines.next() != Some(LINE) {
            return Err(foreign("the file does not begin with the line waxwing-recovery-v1"));
        }
        let octets = lines.next().and_then(|digits| unhex(digits.trim_end()));
        let octets = octets.ok_or_else(|| foreign("the second line is not 64 hexadecimal digits"))?;
        if lines.any(|line| !line.trim().is_empty()) {
            return Err(foreign("the file has more than two lines"));
        }
        Self::of(octets.as_ref(), file)
    }

    fn of(octets: &[u8], file: &Path) -> Result<Self, StoreError> {
        let private = PrivateKey::from_private_key(&X25519, octets).map_err(|_| crypto_failed())?;
        let public = private.compute_public_key().map_err(|_| crypto_failed())?;
        let public = public.as_ref().try_into().map_err(|_| crypto_failed())?;
        Ok(Self { private, public, name: file.display().to_string() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Tells it from others.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.public)
    }

    pub(super) fn public(&self) -> [u8; PUBLIC_LEN] {
        self.public
    }

    pub(super) fn unwrap_key(&self, associated: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (ephemeral, sealed) = wrapped.split_first_chunk::<PUBLIC_LEN>()?;
        let key = shared(&self.private, ephemeral, ephemeral, &self.public)?;
        unseal(&gcm_key(key.as_ref()).ok()?, associated, sealed)
    }
}

/// Tells recovery keys apart.
pub(super) fn fingerprint(public: &[u8; PUBLIC_LEN]) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"waxwing recovery fingerprint v1");
    context.update(public);
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// Wraps a key for the one who has the private half: ephemeral public key, nonce, ciphertext, tag.
pub(super) fn wrap_key(public: &[u8; PUBLIC_LEN], associated: &[u8], key: &[u8]) -> Result<Vec<u8>, StoreError> {
    let ephemeral = PrivateKey::generate(&X25519).map_err(|_| crypto_failed())?;
    let ours = ephemeral.compute_public_key().map_err(|_| crypto_failed())?;
    let shared = shared(&ephemeral, public, ours.as_ref(), public).ok_or_else(crypto_failed)?;
    let sealed = seal(&gcm_key(shared.as_ref())?, associated, key)?;
    Ok([ours.as_ref(), sealed.as_slice()].concat())
}

fn shared(private: &PrivateKey, peer: &[u8], ephemeral: &[u8], recipient: &[u8]) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let salt = [ephemeral, recipient].concat();
    agree(private, UnparsedPublicKey::new(&X25519, peer), (), |secret| {
        let mut key = Zeroizing::new([0u8; KEY_LEN]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &salt)
            .extract(secret)
            .expand(&[b"waxwing recovery v1"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(key.as_mut()))
            .map_err(|_| ())?;
        Ok(key)
    })
    .ok()
}

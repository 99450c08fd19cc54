//! Keys over keys: key-encryption keys (KEKs), the store keys they wrap, and what is derived from those.
//!
//! A store has one active store key, random, in its header, wrapped by each KEK that opens it and for the recovery key (AES-256-GCM); retired ones
//! until every record was written anew. HKDF-SHA-256 makes two keys of each: one seals private keys (AES-256-GCM), one authenticates
//! records (HMAC-SHA-256). The newest seals and authenticates; all are accepted, but for the root, which is always under the newest.

/// The header that holds the wrapped keys.
pub(super) mod header;
/// The key-encryption key and where it comes from.
mod kek;
/// The recovery key.
mod recovery;

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac, rand};
use zeroize::Zeroizing;

use self::header::{Header, Id, KeyState, Opener};
use super::StoreError;

pub use self::header::{KekState, fuzz_store_header};
pub use self::kek::{Cost, Fingerprint, Kek, ask, fuzz_kek_file, parse_fingerprint, passphrase, passphrase_in};
pub use self::recovery::RecoveryKey;

const KEY_LEN: usize = 32;

/// Length of a record's MAC in octets.
pub(super) const MAC_LEN: usize = 32;
pub(super) type Mac = [u8; MAC_LEN];

/// What wraps the keys of this node's spool.
#[derive(Clone, Default)]
pub struct SpoolKeks {
    /// Each of these wraps: the store's own, which outlives every rotation, and the KEK in use, with which another node adopts the spool.
    pub wrap: Vec<Kek>,
    /// What was wrapped by these is read, and wrapped anew.
    pub open: Vec<Kek>,
}

impl From<&Kek> for SpoolKeks {
    fn from(kek: &Kek) -> Self {
        Self { wrap: vec![kek.clone()], open: Vec::new() }
    }
}

impl From<Kek> for SpoolKeks {
    fn from(kek: Kek) -> Self {
        Self { wrap: vec![kek], open: Vec::new() }
    }
}

impl SpoolKeks {
    /// Each that may open.
    pub fn iter(&self) -> impl Iterator<Item = &Kek> {
        self.wrap.iter().chain(&self.open)
    }
}

/// The keys of one store, as its header has them.
pub(super) struct Keyring {
    /// The header as it is stored.
    octets: Vec<u8>,
    pub header: Header,
    /// The newest, which seals and authenticates.
    newest: Derived,
    /// What is accepted beside it.
    retired: Vec<Derived>,
    /// What a copy of a shared store still has records under, and the shared store no more.
    left: Left,
}

/// Keys that a copy of a shared store still has records under, after the shared store dropped them: only what lies here is opened by them.
#[derive(Default)]
struct Left {
    octets: Vec<u8>,
    keys: Vec<header::StoreKey>,
    derived: Vec<Derived>,
}

struct Derived {
    seal: LessSafeKey,
    authenticate: hmac::Key,
}

impl Derived {
    fn of(secret: &[u8], store: &Id) -> Result<Self, StoreError> {
        Ok(Self {
            seal: gcm_key(expand(secret, store, b"waxwing store v1 seal")?.as_ref())?,
            authenticate: hmac::Key::new(
                hmac::HMAC_SHA256,
                expand(secret, store, b"waxwing store v1 authenticate")?.as_ref(),
            ),
        })
    }

    /// HMAC-SHA-256 over path and body, both with their lengths.
    fn mac(&self, path: &str, body: &[u8]) -> Mac {
        let mut context = hmac::Context::with_key(&self.authenticate);
        context.update(&(path.len() as u64).to_be_bytes());
        context.update(path.as_bytes());
        context.update(body);
        context.sign().as_ref().first_chunk().copied().unwrap_or([0; MAC_LEN])
    }

    /// In constant time.
    fn verifies(&self, path: &str, body: &[u8], mac: &[u8]) -> bool {
        mac.len() == MAC_LEN && subtle::ConstantTimeEq::ct_eq(self.mac(path, body).as_slice(), mac).into()
    }
}

impl Keyring {
    /// Unwraps the store keys of a header.
    pub fn open(opener: &Opener<'_>, octets: &[u8]) -> Result<Self, StoreError> {
        Self::of(Header::open(opener, octets)?, octets.to_vec())
    }

    /// Of a header that is open; `octets`: as it is stored.
    pub fn of(header: Header, octets: Vec<u8>) -> Result<Self, StoreError> {
        let newest = Derived::of(header.newest()?.secret.as_ref(), &header.store)?;
        let others = header.keys.iter().rev().filter(|key| key.state == KeyState::Retired);
        let retired = others.map(|key| Derived::of(key.secret.as_ref(), &header.store)).collect::<Result<_, _>>()?;
        Ok(Self { octets, header, newest, retired, left: Left::default() })
    }

    /// With the keys that a copy of a shared store still has records under; see [`Header::left_behind`].
    pub fn with_left(mut self, opener: &Opener<'_>, octets: Option<&[u8]>) -> Result<Self, StoreError> {
        let Some(octets) = octets else { return Ok(self) };
        let header = Header::open(opener, octets)?;
        if header.store != self.header.store {
            return Err(StoreError::Io("its older keys are another store's".to_owned()));
        }
        let keys: Vec<_> = header.keys.into_iter().filter(|key| key.state == KeyState::Retired).collect();
        let derived = keys.iter().map(|key| Derived::of(key.secret.as_ref(), &self.header.store));
        self.left = Left { octets: octets.to_vec(), derived: derived.collect::<Result<_, _>>()?, keys };
        Ok(self)
    }

    /// Whether it is of exactly this header, and has these older keys.
    pub fn is_of(&self, octets: &[u8], left: Option<&[u8]>) -> bool {
        self.octets == octets && self.left.octets == left.unwrap_or_default()
    }

    /// The keys that the shared store dropped, and this copy has not.
    pub fn left(&self) -> &[header::StoreKey] {
        &self.left.keys
    }

    /// Whether records under older keys than the newest are accepted.
    pub fn has_older(&self) -> bool {
        !self.retired.is_empty() || !self.left.keys.is_empty()
    }

    /// The header as it is stored.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// By the newest key: over path and body.
    pub fn mac(&self, path: &str, body: &[u8]) -> Mac {
        self.newest.mac(path, body)
    }

    /// Whether the MAC is that of path and body, under the newest key.
    pub fn verifies_newest(&self, path: &str, body: &[u8], mac: &[u8]) -> bool {
        self.newest.verifies(path, body, mac)
    }

    /// Whether the MAC is that of path and body, under any key.
    pub fn verifies(&self, path: &str, body: &[u8], mac: &[u8]) -> bool {
        self.verifies_shared(path, body, mac) || self.left.derived.iter().any(|key| key.verifies(path, body, mac))
    }

    /// Whether the MAC is that of path and body, under a key that the store itself has: what a copy has left says nothing of the shared store.
    pub fn verifies_shared(&self, path: &str, body: &[u8], mac: &[u8]) -> bool {
        self.newest.verifies(path, body, mac) || self.retired.iter().any(|key| key.verifies(path, body, mac))
    }

    /// Whether a sealed private key is sealed by the newest.
    pub fn is_sealed_by_newest(&self, associated: &[u8], sealed: &[u8]) -> bool {
        unseal(&self.newest.seal, associated, sealed).is_some()
    }

    /// A sealed private key, sealed by the newest; `None` where none of the keys opens it.
    pub fn reseal(&self, associated: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if self.is_sealed_by_newest(associated, sealed) {
            return Ok(Some(sealed.to_vec()));
        }
        self.unseal(associated, sealed).map(|plain| self.seal(associated, &plain)).transpose()
    }

    /// Seals a private key by the newest; the associated data binds it to its place.
    pub fn seal(&self, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        seal(&self.newest.seal, associated, plain)
    }

    /// Opens a sealed private key; `None` where it is not authentic.
    pub fn unseal(&self, associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let keys = std::iter::once(&self.newest).chain(&self.retired).chain(&self.left.derived);
        keys.into_iter().find_map(|key| unseal(&key.seal, associated, sealed))
    }

    fn installations(&self) -> impl DoubleEndedIterator<Item = &header::StoreKey> {
        self.header.keys.iter().filter(|key| key.state == KeyState::Installation)
    }

    /// The same on every node of this store, over every rotation, and nobody else's.
    pub fn loop_secret(&self) -> Result<Zeroizing<[u8; KEY_LEN]>, StoreError> {
        let first = self.installations().next().map_or(&self.header.newest()?.secret, |key| &key.secret);
        expand(first.as_ref(), &self.header.store, b"waxwing loop secret")
    }

    /// What wraps the spool's keys; `keks` are those at hand.
    pub fn spool_keks(&self, keks: &[Kek]) -> Result<SpoolKeks, StoreError> {
        let mut own = Vec::new();
        for key in self.installations().rev() {
            let key = expand(key.secret.as_ref(), &self.header.store, b"waxwing spool keys")?;
            own.push(Kek::of_key(key, "the store's own"));
        }
        let active = self.header.active_kek();
        let (active, others): (Vec<Kek>, Vec<Kek>) =
            keks.iter().cloned().partition(|kek| Some(kek.fingerprint()) == active);
        let older = if own.is_empty() { Vec::new() } else { own.split_off(1) };
        Ok(SpoolKeks {
            wrap: own.into_iter().chain(active.into_iter().take(1)).collect(),
            open: older.into_iter().chain(others).collect(),
        })
    }

    /// A key of its own for one backup.
    pub fn backup_key(&self, salt: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, StoreError> {
        expand(self.header.newest()?.secret.as_ref(), salt, b"waxwing backup v1")
    }
}

/// HKDF-SHA-256 (RFC 5869).
fn expand(secret: &[u8], salt: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, StoreError> {
    let mut out = Zeroizing::new([0u8; KEY_LEN]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(out.as_mut()))
        .map_err(|_| crypto_failed())?;
    Ok(out)
}

/// HMAC-SHA-256.
fn mac_of(key: &[u8], octets: &[u8]) -> Mac {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), octets);
    tag.as_ref().first_chunk().copied().unwrap_or([0; MAC_LEN])
}

pub(super) fn crypto_failed() -> StoreError {
    StoreError::Io("a cryptographic operation failed in this process".to_owned())
}

pub(super) fn random(out: &mut [u8]) -> Result<(), StoreError> {
    rand::fill(out).map_err(|_| StoreError::Io("the system gives no randomness".to_owned()))
}

pub(super) fn gcm_key(key: &[u8]) -> Result<LessSafeKey, StoreError> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| crypto_failed())
}

/// nonce (12 random octets), ciphertext, tag.
fn seal(key: &LessSafeKey, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut nonce = [0u8; NONCE_LEN];
    random(&mut nonce)?;
    let mut inout = Zeroizing::new(Vec::with_capacity(plain.len()));
    inout.extend_from_slice(plain);
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated), inout.as_mut_slice())
        .map_err(|_| crypto_failed())?;
    Ok([nonce.as_slice(), inout.as_slice(), tag.as_ref()].concat())
}

fn unseal(key: &LessSafeKey, associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut inout = Zeroizing::new(ciphertext.to_vec());
    let length = key
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(associated), inout.as_mut_slice())
        .ok()?
        .len();
    inout.truncate(length);
    Some(inout)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(octets: &[u8]) -> Zeroizing<String> {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    Zeroizing::new(octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect())
}

/// Exactly 64 hexadecimal digits.
pub(crate) fn unhex(digits: &str) -> Option<Zeroizing<[u8; 32]>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != KEY_LEN {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut out = Zeroizing::new([0u8; KEY_LEN]);
    for (slot, [high, low]) in out.iter_mut().zip(pairs) {
        *slot = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(out)
}

/// Makes the entry of a new file durable.
pub(super) fn sync_folder_of(file: &Path) -> std::io::Result<()> {
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;

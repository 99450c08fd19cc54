//! Keys over keys: the KEK in its file, the store key it wraps, and what is derived from that.
//!
//! KEK file: two lines, `waxwing-kek-v1` and 64 hexadecimal digits, mode 0600. The KEK wraps one random store key (AES-256-GCM); HKDF-SHA-256
//! makes two keys of it: one seals private keys (AES-256-GCM), one authenticates records (HMAC-SHA-256).

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, hmac, rand};
use zeroize::Zeroizing;

use super::StoreError;

const KEK_LINE: &str = "waxwing-kek-v1";
const KEY_LEN: usize = 32;
/// A KEK file is some 80 octets; more than this is not one.
const KEK_FILE_MAX: u64 = 4096;

/// A key that is never in the store, and wraps what is.
pub struct Kek {
    key: Zeroizing<[u8; KEY_LEN]>,
    file: String,
}

impl Kek {
    /// Makes a KEK in a new file of mode 0600; an existing file is an error.
    pub fn create(file: &Path) -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => StoreError::Refused(format!(
                "{} exists and is left as it is: what it wraps can be read with nothing else",
                file.display()
            )),
            _ => StoreError::Io(format!("key-encryption key {}: {error}", file.display())),
        };
        let mut key = Zeroizing::new([0u8; KEY_LEN]);
        random(key.as_mut())?;
        let text = Zeroizing::new(format!("{KEK_LINE}\n{}\n", hex(key.as_ref()).as_str()));
        let mut out =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
        out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(failed)?;
        sync_folder_of(file).map_err(failed)?;
        Ok(Self { key, file: file.display().to_string() })
    }

    /// Reads a KEK; a file that group or others may read is refused.
    pub fn read(file: &Path) -> Result<Self, StoreError> {
        let name = file.display().to_string();
        let failed = |error: std::io::Error| {
            StoreError::Io(format!("key-encryption key {name}: {error}; make one with `waxwing kek init {name}`"))
        };
        let metadata = std::fs::metadata(file).map_err(failed)?;
        if metadata.mode() & 0o077 != 0 {
            let mode = metadata.mode() & 0o777;
            return Err(StoreError::Refused(format!(
                "the key-encryption key {name} has mode {mode:04o}, so others may read it; `chmod 600 {name}`, and think about who did"
            )));
        }
        if metadata.len() > KEK_FILE_MAX {
            return Err(StoreError::Kek(name, format!("the file has {} octets and is no KEK file", metadata.len())));
        }
        let text = Zeroizing::new(std::fs::read_to_string(file).map_err(failed)?);
        let key = parse_kek(&text).map_err(|why| StoreError::Kek(name.clone(), why.to_owned()))?;
        Ok(Self { key, file: name })
    }

    /// Wraps a key that lies elsewhere (AES-256-GCM); `associated` says what it is and must be the same to unwrap it.
    pub fn wrap_key(&self, associated: &[u8], key: &[u8]) -> Result<Vec<u8>, StoreError> {
        seal(&gcm_key(self.key.as_ref())?, associated, key)
    }

    /// Unwraps such a key; `None` where it is not authentic, or of another KEK.
    pub fn unwrap_key(&self, associated: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        unseal(&gcm_key(self.key.as_ref()).ok()?, associated, wrapped)
    }

    /// Eight octets that tell KEKs apart and nothing else about them.
    fn fingerprint(&self) -> [u8; 8] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"waxwing kek fingerprint v1");
        context.update(self.key.as_ref());
        context.finish().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

fn parse_kek(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, &'static str> {
    let mut lines = text.lines();
    match lines.next() {
        Some(KEK_LINE) => {}
        Some(other) if other.starts_with("waxwing-kek-") => return Err("the file is of a later version of Waxwing"),
        _ => return Err("the file does not begin with the line waxwing-kek-v1"),
    }
    let digits = lines.next().unwrap_or_default().trim_end();
    if lines.any(|line| !line.trim().is_empty()) {
        return Err("the file has more than two lines");
    }
    unhex(digits).ok_or("the second line is not 64 hexadecimal digits")
}

/// Derives and holds the keys of one store.
pub(super) struct Keyring {
    seal: LessSafeKey,
    authenticate: hmac::Key,
}

/// Length of a record's MAC in octets.
pub(super) const MAC_LEN: usize = 32;
pub(super) type Mac = [u8; MAC_LEN];

/// magic, store id, KEK fingerprint, nonce, wrapped key with its tag.
const HEADER_MAGIC: &[u8; 8] = b"WAXSTOR1";
const ID_LEN: usize = 16;

impl Keyring {
    /// A new store key; also the header that holds it, wrapped.
    pub fn create(kek: &Kek) -> Result<(Self, Vec<u8>), StoreError> {
        let mut store_key = Zeroizing::new([0u8; KEY_LEN]);
        random(store_key.as_mut())?;
        let mut id = [0u8; ID_LEN];
        random(&mut id)?;
        let mut header = HEADER_MAGIC.to_vec();
        header.extend_from_slice(&id);
        header.extend_from_slice(&kek.fingerprint());
        let wrapped = seal(&gcm_key(kek.key.as_ref())?, &header, store_key.as_ref())?;
        header.extend_from_slice(&wrapped);
        Ok((Self::derive(store_key.as_ref(), &id)?, header))
    }

    /// Unwraps the store key from a header.
    pub fn open(kek: &Kek, header: &[u8]) -> Result<Self, StoreError> {
        let foreign = || StoreError::Io("header is not of this version of Waxwing, or damaged".to_owned());
        let (open, wrapped) = header.split_at_checked(HEADER_MAGIC.len() + ID_LEN + 8).ok_or_else(foreign)?;
        let (id, fingerprint) =
            open.strip_prefix(HEADER_MAGIC).and_then(|rest| rest.split_at_checked(ID_LEN)).ok_or_else(foreign)?;
        if fingerprint != kek.fingerprint() {
            return Err(StoreError::Kek(
                kek.file.clone(),
                format!(
                    "the store wants KEK {}, the file holds KEK {}; nothing was changed",
                    *hex(fingerprint),
                    *hex(&kek.fingerprint())
                ),
            ));
        }
        let store_key = unseal(&gcm_key(kek.key.as_ref())?, open, wrapped).ok_or_else(|| {
            StoreError::Kek(kek.file.clone(), "the wrapped store key is not authentic; nothing was changed".to_owned())
        })?;
        Self::derive(&store_key, id)
    }

    fn derive(store_key: &[u8], id: &[u8]) -> Result<Self, StoreError> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, id).extract(store_key);
        let expand = |info: &[u8]| -> Result<Zeroizing<[u8; KEY_LEN]>, StoreError> {
            let mut out = Zeroizing::new([0u8; KEY_LEN]);
            prk.expand(&[info], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(out.as_mut()))
                .map_err(|_| crypto_failed())?;
            Ok(out)
        };
        Ok(Self {
            seal: gcm_key(expand(b"waxwing store v1 seal")?.as_ref())?,
            authenticate: hmac::Key::new(hmac::HMAC_SHA256, expand(b"waxwing store v1 authenticate")?.as_ref()),
        })
    }

    /// HMAC-SHA-256 over path and body, both with their lengths.
    pub fn mac(&self, path: &str, body: &[u8]) -> Mac {
        let mut context = hmac::Context::with_key(&self.authenticate);
        context.update(&(path.len() as u64).to_be_bytes());
        context.update(path.as_bytes());
        context.update(body);
        context.sign().as_ref().first_chunk().copied().unwrap_or([0; MAC_LEN])
    }

    /// Whether the MAC is that of path and body; in constant time.
    pub fn verifies(&self, path: &str, body: &[u8], mac: &[u8]) -> bool {
        mac.len() == MAC_LEN && subtle::ConstantTimeEq::ct_eq(self.mac(path, body).as_slice(), mac).into()
    }

    /// Seals a private key; the associated data binds it to its place.
    pub fn seal(&self, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        seal(&self.seal, associated, plain)
    }

    /// Opens a sealed private key; `None` where it is not authentic.
    pub fn unseal(&self, associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        unseal(&self.seal, associated, sealed)
    }
}

fn crypto_failed() -> StoreError {
    StoreError::Io("a cryptographic operation failed in this process".to_owned())
}

fn random(out: &mut [u8]) -> Result<(), StoreError> {
    rand::fill(out).map_err(|_| StoreError::Io("the system gives no randomness".to_owned()))
}

fn gcm_key(key: &[u8]) -> Result<LessSafeKey, StoreError> {
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_kek_file_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kek");
        let made = Kek::create(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Kek::read(&file).unwrap().key, made.key);
        assert!(matches!(Kek::create(&file), Err(StoreError::Refused(_))));
        for mode in [0o640, 0o604, 0o644] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = Kek::read(&file).map(|_| ()).unwrap_err().to_string();
            assert!(refused.contains("chmod 600"), "{refused}");
        }
    }

    #[test]
    fn a_kek_file_is_read_strictly() {
        let good = format!("{KEK_LINE}\n{}\n", "0a".repeat(32));
        assert_eq!(parse_kek(&good).unwrap().as_slice(), [0x0a; 32]);
        for bad in [
            "",
            "waxwing-kek-v1",
            "waxwing-kek-v2\n00",
            "0a0a",
            good.strip_suffix("a\n").unwrap(),
            &format!("{good}x\n"),
            &good.replace("0a", "0g"),
        ] {
            assert!(parse_kek(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a26_sealed_keys_are_bound_to_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let kek = Kek::create(&folder.path().join("kek")).unwrap();
        let (ring, header) = Keyring::create(&kek).unwrap();
        let sealed = ring.seal(b"k/1", b"secret").unwrap();
        assert_eq!(Keyring::open(&kek, &header).unwrap().unseal(b"k/1", &sealed).unwrap().as_slice(), b"secret");
        assert!(ring.unseal(b"k/2", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(ring.unseal(b"k/1", &bad).is_none());
        }
        for at in 0..header.len() {
            let mut bad = header.clone();
            bad[at] ^= 1;
            assert!(Keyring::open(&kek, &bad).is_err());
        }
    }
}

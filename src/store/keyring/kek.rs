//! The key-encryption key (KEK): a key that is never in the store, and wraps what is.
//!
//! Its file has mode 0600 and is one of two: `waxwing-kek-v1` and 64 hexadecimal digits; or `waxwing-kek-passphrase-v1`, the parameters of
//! Argon2id (RFC 9106), a salt, and the fingerprint of the key that the right passphrase gives. A systemd credential holds the same. A passphrase
//! is taken from the first of: the file that WAXWING_KEK_PASSPHRASE_FILE names (its first line), WAXWING_KEK_PASSPHRASE, the
//! credential `waxwing-kek-passphrase`, the terminal.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::{KEY_LEN, gcm_key, hex, random, seal, sync_folder_of, unhex, unseal};
use crate::config::KekSources;
use crate::store::StoreError;

pub(super) const KEK_LINE: &str = "waxwing-kek-v1";
const PASSPHRASE_LINE: &str = "waxwing-kek-passphrase-v1";
/// A KEK file is some 80 octets; more than this is not one.
const KEK_FILE_MAX: u64 = 4096;
/// The credential that a passphrase may be in.
const PASSPHRASE_CREDENTIAL: &str = "waxwing-kek-passphrase";
/// Octets of a passphrase.
const PASSPHRASE_MAX: u64 = 4096;

/// Eight octets that tell KEKs apart and nothing else about them.
pub type Fingerprint = [u8; 8];

/// A key that is never in the store, and wraps what is.
#[derive(Clone)]
pub struct Kek {
    pub(super) key: Zeroizing<[u8; KEY_LEN]>,
    pub(super) name: String,
}

/// What Argon2id costs: within bounds, so that a file that was tampered with cannot take all memory or all time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB: 8 a lane, at most 1 GiB.
    memory: u32,
    /// Passes: 1 to 64.
    passes: u32,
    /// Lanes: 1 to 16.
    lanes: u32,
}

/// RFC 9106, section 4, the second recommended option: 64 MiB, 3 passes, 4 lanes.
impl Default for Cost {
    fn default() -> Self {
        Self { memory: 64 << 10, passes: 3, lanes: 4 }
    }
}

impl Cost {
    /// `None` where a number is out of its bounds.
    pub fn new(memory: u32, passes: u32, lanes: u32) -> Option<Self> {
        let good = (1..=16).contains(&lanes) && (1..=64).contains(&passes) && (8 * lanes..=1 << 20).contains(&memory);
        good.then_some(Self { memory, passes, lanes })
    }

    fn derive(self, passphrase: &str, salt: &[u8]) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        let params = argon2::Params::new(self.memory, self.passes, self.lanes, Some(KEY_LEN)).ok()?;
        let mut key = Zeroizing::new([0u8; KEY_LEN]);
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, key.as_mut())
            .ok()?;
        Some(key)
    }
}

/// What a KEK file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KekFile {
    Key(Zeroizing<[u8; KEY_LEN]>),
    Passphrase { cost: Cost, salt: [u8; 32], fingerprint: Fingerprint },
}

impl Kek {
    /// Makes a KEK in a new file of mode 0600; an existing file is an error.
    pub fn create(file: &Path) -> Result<Self, StoreError> {
        let mut key = Zeroizing::new([0u8; KEY_LEN]);
        random(key.as_mut())?;
        write_new(file, &format!("{KEK_LINE}\n{}\n", hex(key.as_ref()).as_str()))?;
        Ok(Self { key, name: file.display().to_string() })
    }

    /// Makes a KEK that a passphrase gives; the new file holds no secret, and is needed all the same.
    pub fn create_with_passphrase(file: &Path, passphrase: &str, cost: Cost) -> Result<Self, StoreError> {
        if passphrase.is_empty() {
            return Err(StoreError::Refused("the passphrase is empty; give one that nobody guesses".to_owned()));
        }
        let mut salt = [0u8; 32];
        random(&mut salt)?;
        let key = cost.derive(passphrase, &salt).ok_or_else(no_argon2)?;
        let kek = Self { key, name: file.display().to_string() };
        let Cost { memory, passes, lanes } = cost;
        let (salt, fingerprint) = (hex(&salt), hex(&kek.fingerprint()));
        let text = format!(
            "{PASSPHRASE_LINE}\nargon2id m={memory} t={passes} p={lanes}\nsalt {}\nkek {}\n",
            *salt, *fingerprint
        );
        write_new(file, &text)?;
        Ok(kek)
    }

    /// Reads a KEK from its file, or from `credential:NAME`. A file that group or others may read is refused. A KEK of a passphrase asks for
    /// that: see above.
    pub fn read(place: &Path) -> Result<Self, StoreError> {
        Self::read_with(place, passphrase)
    }

    /// As [`Self::read`], but nobody is asked at the terminal.
    pub fn read_unasked(place: &Path) -> Result<Self, StoreError> {
        Self::read_with(place, |of| passphrase_given()?.ok_or_else(|| no_passphrase(of)))
    }

    /// As [`Self::read`], with a passphrase at hand.
    pub fn read_with(
        place: &Path,
        passphrase: impl FnOnce(&str) -> Result<Zeroizing<String>, StoreError>,
    ) -> Result<Self, StoreError> {
        let name = place.display().to_string();
        let text = match KekSources::credential(place) {
            Some(credential) => read_credential(credential, KEK_FILE_MAX)?,
            None => read_private(place)?,
        };
        let foreign = |why: &str| StoreError::Kek(name.clone(), why.to_owned());
        match parse_kek(&text).map_err(foreign)? {
            KekFile::Key(key) => Ok(Self { key, name }),
            KekFile::Passphrase { cost, salt, fingerprint } => {
                let key = cost.derive(&passphrase(&name)?, &salt).ok_or_else(no_argon2)?;
                let kek = Self { key, name: name.clone() };
                if kek.fingerprint() != fingerprint {
                    return Err(foreign("the passphrase is wrong"));
                }
                Ok(kek)
            }
        }
    }

    /// Reads every KEK that can be read.
    ///
    /// # Errors
    /// None of them can.
    pub fn read_all(sources: &KekSources) -> Result<Vec<Self>, StoreError> {
        let (mut keks, mut failed) = (Vec::new(), None);
        for place in sources.iter() {
            match Self::read(place) {
                Ok(kek) => keks.push(kek),
                Err(error) => {
                    tracing::debug!(%error, "a key-encryption key cannot be read");
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(error) if keks.is_empty() => Err(error),
            _ => Ok(keks),
        }
    }

    /// As [`Self::read_all`], behind those that are at hand; where some are, none needs to be read.
    pub(in crate::store) fn read_beside(sources: &KekSources, mut keks: Vec<Self>) -> Result<Vec<Self>, StoreError> {
        match Self::read_all(sources) {
            Ok(read) => keks.extend(read),
            Err(error) if keks.is_empty() => return Err(error),
            Err(_) => {}
        }
        Ok(keks)
    }

    /// Of a key that is derived, not read.
    pub(super) fn of_key(key: Zeroizing<[u8; KEY_LEN]>, name: &str) -> Self {
        Self { key, name: name.to_owned() }
    }

    /// Where it was read.
    pub fn name(&self) -> &str {
        &self.name
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
    pub fn fingerprint(&self) -> Fingerprint {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"waxwing kek fingerprint v1");
        context.update(self.key.as_ref());
        context.finish().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

fn no_argon2() -> StoreError {
    StoreError::Io("Argon2id failed in this process: is there too little memory?".to_owned())
}

/// A new private file.
pub(super) fn write_new(file: &Path, text: &str) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => StoreError::Refused(format!(
            "{} exists and is left as it is: what it wraps can be read with nothing else",
            file.display()
        )),
        _ => StoreError::Io(format!("key-encryption key {}: {error}", file.display())),
    };
    // Made whole under another name: a crash leaves no half of a key that something may already be wrapped by.
    let draft = PathBuf::from(format!("{}.{}.new", file.display(), std::process::id()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()))
        .and_then(|()| std::fs::hard_link(&draft, file))
        .and_then(|()| sync_folder_of(file));
    // What could stay behind is a key that wraps nothing.
    drop(std::fs::remove_file(&draft));
    written.map_err(failed)
}

/// A file that nobody else may read.
pub(super) fn read_private(file: &Path) -> Result<Zeroizing<String>, StoreError> {
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
    std::fs::read_to_string(file).map(Zeroizing::new).map_err(failed)
}

/// What systemd hands to this service alone: its folder is not for others, whatever the file's mode.
fn read_credential(name: &str, max: u64) -> Result<Zeroizing<String>, StoreError> {
    let refused = |why: &str| StoreError::Refused(format!("credential {name:?}: {why}"));
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(refused("a credential's name has no slash and does not begin with a dot"));
    }
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        refused("there is no $CREDENTIALS_DIRECTORY; systemd sets it for a service with LoadCredential= or LoadCredentialEncrypted=")
    })?;
    let mut text = Zeroizing::new(String::new());
    let read = std::fs::File::open(Path::new(&folder).join(name))
        .and_then(|file| file.take(max + 1).read_to_string(&mut text));
    read.map_err(|error| StoreError::Io(format!("credential {name:?}: {error}")))?;
    if text.len() as u64 > max {
        return Err(refused("it is too long"));
    }
    Ok(text)
}

fn first_line(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
}

/// The passphrase in a file: its first line.
pub fn passphrase_in(file: &Path) -> Result<Zeroizing<String>, StoreError> {
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(file)
        .and_then(|file| file.take(PASSPHRASE_MAX).read_to_string(&mut text))
        .map_err(|error| StoreError::Io(format!("passphrase file {}: {error}", file.display())))?;
    Ok(first_line(&text))
}

/// The passphrase for a KEK, from where it may come from.
pub fn passphrase(of: &str) -> Result<Zeroizing<String>, StoreError> {
    match passphrase_given()? {
        Some(given) => Ok(given),
        None if std::io::stdin().is_terminal() => ask(&format!("Passphrase of {of}: ")),
        None => Err(no_passphrase(of)),
    }
}

fn no_passphrase(of: &str) -> StoreError {
    StoreError::Refused(format!(
        "the key-encryption key {of} wants its passphrase; give it in a file that WAXWING_KEK_PASSPHRASE_FILE names, or as the systemd credential {PASSPHRASE_CREDENTIAL}"
    ))
}

fn passphrase_given() -> Result<Option<Zeroizing<String>>, StoreError> {
    if let Some(file) = std::env::var_os("WAXWING_KEK_PASSPHRASE_FILE") {
        return passphrase_in(Path::new(&file)).map(Some);
    }
    if let Ok(text) = std::env::var("WAXWING_KEK_PASSPHRASE") {
        return Ok(Some(Zeroizing::new(text)));
    }
    let credential =
        std::env::var_os("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(PASSPHRASE_CREDENTIAL));
    if credential.is_some_and(|file| file.exists()) {
        return read_credential(PASSPHRASE_CREDENTIAL, PASSPHRASE_MAX).map(|text| Some(first_line(&text)));
    }
    Ok(None)
}

/// Asks at the terminal, which does not show the answer.
pub fn ask(prompt: &str) -> Result<Zeroizing<String>, StoreError> {
    let failed = |error: std::io::Error| StoreError::Io(format!("no passphrase from the terminal: {error}"));
    let echo = |how: &str| std::process::Command::new("stty").arg(how).status();
    std::io::stderr().write_all(prompt.as_bytes()).map_err(failed)?;
    if !echo("-echo").map_err(failed)?.success() {
        return Err(StoreError::Refused("the terminal would show the passphrase; give it in a file".to_owned()));
    }
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin().read_line(&mut text);
    // Whatever came of it, the terminal is as it was.
    drop(echo("echo"));
    drop(std::io::stderr().write_all(b"\n"));
    read.map_err(failed)?;
    Ok(first_line(&text))
}

pub(super) fn parse_kek(text: &str) -> Result<KekFile, &'static str> {
    let mut lines = text.lines();
    let kind = match lines.next() {
        Some(line @ (KEK_LINE | PASSPHRASE_LINE)) => line,
        Some(other) if other.starts_with("waxwing-kek-") => return Err("the file is of a later version of Waxwing"),
        Some(other) if other.starts_with("waxwing-recovery-") => {
            return Err("the file is a recovery key: `waxwing kek recover` makes a key-encryption key with it");
        }
        _ => return Err("the file does not begin with the line waxwing-kek-v1 or waxwing-kek-passphrase-v1"),
    };
    let parsed = if kind == KEK_LINE {
        let digits = lines.next().unwrap_or_default().trim_end();
        KekFile::Key(unhex(digits).ok_or("the second line is not 64 hexadecimal digits")?)
    } else {
        let cost = lines.next().and_then(parse_cost).ok_or(
            "the second line is not `argon2id m=KIB t=PASSES p=LANES` within its bounds: m up to 1048576, t up to 64, p up to 16",
        )?;
        let salt = lines.next().and_then(|line| unhex(line.trim_end().strip_prefix("salt ")?));
        let salt = *salt.ok_or("the third line is not `salt` and 64 hexadecimal digits")?;
        let fingerprint = lines.next().and_then(|line| parse_fingerprint(line.trim_end().strip_prefix("kek ")?));
        KekFile::Passphrase {
            cost,
            salt,
            fingerprint: fingerprint.ok_or("the fourth line is not `kek` and 16 hexadecimal digits")?,
        }
    };
    if lines.any(|line| !line.trim().is_empty()) {
        return Err("the file has more lines than it should");
    }
    Ok(parsed)
}

fn parse_cost(line: &str) -> Option<Cost> {
    let mut words = line.trim_end().strip_prefix("argon2id ")?.split(' ');
    let mut number = |name: &str| words.next()?.strip_prefix(name)?.parse().ok();
    let cost = Cost::new(number("m=")?, number("t=")?, number("p=")?)?;
    words.next().is_none().then_some(cost)
}

/// Sixteen hexadecimal digits.
pub fn parse_fingerprint(text: &str) -> Option<Fingerprint> {
    let good = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    good.then(|| u64::from_str_radix(text, 16).ok().map(u64::to_be_bytes)).flatten()
}

/// Fuzz body: a KEK file is refused, or its numbers are within their bounds.
#[doc(hidden)]
pub fn fuzz_kek_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(KekFile::Passphrase { cost, .. }) = parse_kek(text) {
        assert_eq!(Cost::new(cost.memory, cost.passes, cost.lanes), Some(cost));
        assert!(cost.memory <= 1 << 20);
    }
}

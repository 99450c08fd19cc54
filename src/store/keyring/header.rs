//! The header of a store: its keys, each wrapped by every key-encryption key that may open it.
//!
//! `WAXSTOR2 | store id (16) | revision (8) | keys | wrappers | MAC (32)`. A key is `id (16) | created (8) | state (1)`; a wrapper `kind (1) |
//! state (1) | created (8) | fingerprint (8) | public key of a recovery key (32, else none) | each key, wrapped`. The MAC is by the newest
//! active store key, over all before it. The first version, `WAXSTOR1 | store id | fingerprint | wrapped key`, is read as a header of
//! revision 0, and written again when it changes.

use aws_lc_rs::digest;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::kek::{Fingerprint, Kek};
use super::recovery::{self, PUBLIC_LEN, RecoveryKey};
use super::{KEY_LEN, MAC_LEN, expand, hex, mac_of, random, unhex};
use crate::store::StoreError;

const MAGIC_1: &[u8; 8] = b"WAXSTOR1";
const MAGIC: &[u8; 8] = b"WAXSTOR2";
const ID_LEN: usize = 16;
pub(crate) type Id = [u8; ID_LEN];
/// Keys and wrappers of one store; a header beyond is none.
const MANY: usize = 64;
/// Installation keys that are kept, so that what they wrap can be read.
const INSTALLATIONS: usize = 16;
/// Octets of a wrapped key, at most.
const WRAPPED_MAX: usize = 256;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// Seals and authenticates records.
    Active = 1,
    /// Records under it are still read; `kek reseal` writes them anew.
    Retired = 2,
    /// Wraps what lies outside the store (the keys of spools), and makes the installation's loop tokens.
    Installation = 3,
}

/// How far a key-encryption key's rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KekState {
    /// It opens the store, and is not the one in use yet.
    Introduced = 1,
    /// The one in use.
    Active = 2,
    /// It still opens the store, and is to go.
    Retiring = 3,
}

#[derive(Clone)]
pub(crate) struct StoreKey {
    pub id: Id,
    pub created: Timestamp,
    pub state: KeyState,
    pub secret: Zeroizing<[u8; KEY_LEN]>,
}

/// Who can unwrap the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrapper {
    pub fingerprint: Fingerprint,
    pub state: KekState,
    pub created: Timestamp,
    /// Of a recovery key.
    pub recovery: Option<[u8; PUBLIC_LEN]>,
    /// Each key, in their order.
    wrapped: Vec<Vec<u8>>,
}

/// A header that was opened.
#[derive(Clone)]
pub(crate) struct Header {
    pub store: Id,
    /// Grows with each change.
    pub revision: u64,
    /// Oldest first.
    pub keys: Vec<StoreKey>,
    pub wrappers: Vec<Wrapper>,
}

/// What opens a header.
pub(crate) enum Opener<'a> {
    Keks(&'a [Kek]),
    Recovery(&'a RecoveryKey),
}

/// A header as it lies there, with nothing unwrapped.
struct Outer<'a> {
    store: Id,
    revision: u64,
    keys: Vec<(Id, Timestamp, KeyState)>,
    wrappers: Vec<Wrapper>,
    body: &'a [u8],
    mac: &'a [u8; MAC_LEN],
}

fn new_key(state: KeyState, now: Timestamp) -> Result<StoreKey, StoreError> {
    let (mut id, mut secret) = ([0; ID_LEN], Zeroizing::new([0; KEY_LEN]));
    random(&mut id)?;
    random(secret.as_mut())?;
    Ok(StoreKey { id, created: now, state, secret })
}

impl Header {
    /// Of a new store that `kek` opens.
    pub fn create(kek: &Kek, now: Timestamp) -> Result<Self, StoreError> {
        let mut store = [0; ID_LEN];
        random(&mut store)?;
        let keys = vec![new_key(KeyState::Installation, now)?, new_key(KeyState::Active, now)?];
        let mut header = Self { store, revision: 1, keys, wrappers: Vec::new() };
        header.introduce(kek, now)?;
        header.activate(&kek.fingerprint())?;
        Ok(header)
    }

    /// Opens one with the first key that fits.
    pub fn open(opener: &Opener<'_>, octets: &[u8]) -> Result<Self, StoreError> {
        if octets.starts_with(MAGIC_1) {
            return Self::open_first_version(opener, octets);
        }
        let outer = Outer::read(octets)?;
        let Some((wrapper, name)) = outer.fits(opener) else { return Err(outer.foreign(opener)) };
        let damaged = || {
            StoreError::Kek(
                name.clone(),
                "the header with the wrapped store keys is not authentic; nothing was changed".to_owned(),
            )
        };
        let mut keys = Vec::with_capacity(outer.keys.len());
        for ((id, created, state), wrapped) in outer.keys.iter().zip(&wrapper.wrapped) {
            let associated = associated(&outer.store, id, &wrapper.fingerprint);
            let secret = match opener {
                Opener::Keks(keks) => keks
                    .iter()
                    .find(|kek| kek.fingerprint() == wrapper.fingerprint)
                    .and_then(|kek| kek.unwrap_key(&associated, wrapped)),
                Opener::Recovery(key) => key.unwrap_key(&associated, wrapped),
            };
            let secret = secret.and_then(|secret| secret.as_slice().try_into().ok()).ok_or_else(damaged)?;
            keys.push(StoreKey { id: *id, created: *created, state: *state, secret: Zeroizing::new(secret) });
        }
        let header = Self { store: outer.store, revision: outer.revision, keys, wrappers: outer.wrappers.clone() };
        let mac = header.mac(outer.body)?;
        let same: bool = subtle::ConstantTimeEq::ct_eq(mac.as_slice(), outer.mac.as_slice()).into();
        if same { Ok(header) } else { Err(damaged()) }
    }

    fn open_first_version(opener: &Opener<'_>, octets: &[u8]) -> Result<Self, StoreError> {
        let foreign = || StoreError::Io("header is damaged".to_owned());
        let (open, wrapped) = octets.split_at_checked(MAGIC_1.len() + ID_LEN + 8).ok_or_else(foreign)?;
        let (store, fingerprint) = open
            .strip_prefix(MAGIC_1)
            .and_then(|rest| rest.split_first_chunk::<ID_LEN>())
            .and_then(|(id, rest)| Some((*id, rest.first_chunk::<8>()?)))
            .ok_or_else(foreign)?;
        let keks = match opener {
            Opener::Keks(keks) => *keks,
            Opener::Recovery(key) => {
                return Err(StoreError::Kek(key.name().to_owned(), "the store never had a recovery key".to_owned()));
            }
        };
        let Some(kek) = keks.iter().find(|kek| kek.fingerprint() == *fingerprint) else {
            return Err(wants(&[*fingerprint], keks));
        };
        let secret: [u8; KEY_LEN] =
            kek.unwrap_key(open, wrapped).and_then(|secret| secret.as_slice().try_into().ok()).ok_or_else(|| {
                StoreError::Kek(
                    kek.name().to_owned(),
                    "the wrapped store key is not authentic; nothing was changed".to_owned(),
                )
            })?;
        let secret = Zeroizing::new(secret);
        let id = |what: &[u8]| -> Result<Id, StoreError> {
            let hash = digest::digest(&digest::SHA256, &[what, octets].concat());
            hash.as_ref().first_chunk().copied().ok_or_else(foreign)
        };
        let created = Timestamp::UNIX_EPOCH;
        // Made of the one key there was, so that every process makes the same until the header is written anew.
        let installation = expand(secret.as_ref(), &store, b"waxwing store v1 installation")?;
        let keys = vec![
            StoreKey { id: id(b"installation")?, created, state: KeyState::Installation, secret: installation },
            StoreKey { id: id(b"store key")?, created, state: KeyState::Active, secret },
        ];
        let mut header = Self { store, revision: 0, keys, wrappers: Vec::new() };
        header.introduce(kek, created)?;
        header.activate(fingerprint)?;
        Ok(header)
    }

    /// Whether one of the wrappers is of a key at hand, so that it is known whether the header is authentic. What is no header is opened by none.
    pub fn fits(opener: &Opener<'_>, octets: &[u8]) -> bool {
        if octets.starts_with(MAGIC_1) {
            let first = octets.get(MAGIC_1.len() + ID_LEN..MAGIC_1.len() + ID_LEN + 8);
            return matches!(opener, Opener::Keks(keks) if keks.iter().any(|kek| Some(kek.fingerprint().as_slice()) == first));
        }
        Outer::read(octets).is_ok_and(|outer| outer.fits(opener).is_some())
    }

    /// What a header says before it is opened: store, revision, key-encryption keys. `None`: it is no header of the present version.
    pub fn outline(octets: &[u8]) -> Option<(Id, u64, Vec<Fingerprint>)> {
        let outer = Outer::read(octets).ok()?;
        let keks = outer.wrappers.iter().filter(|one| one.recovery.is_none()).map(|one| one.fingerprint).collect();
        Some((outer.store, outer.revision, keks))
    }

    /// Whether a header that nothing at hand opens was made by who has our keys; `None`: it is under a key that was never here.
    pub fn vouches_for(&self, octets: &[u8]) -> Option<bool> {
        let outer = Outer::read(octets).ok()?;
        let (newest, _, _) = outer.keys.iter().rfind(|(_, _, state)| *state == KeyState::Active)?;
        let ours = self.keys.iter().find(|key| key.id == *newest && key.state == KeyState::Active)?;
        let key = expand(ours.secret.as_ref(), &self.store, b"waxwing store v2 header").ok()?;
        Some(subtle::ConstantTimeEq::ct_eq(mac_of(key.as_ref(), outer.body).as_slice(), outer.mac.as_slice()).into())
    }

    /// Whether a later header may take this one's place: of the same store, and with no store key in use that was retired or dropped before
    /// (`spent`). Who has an old store key can make a header by it, and nothing else.
    pub fn may_be_followed_by(&self, next: &Self, spent: &[Id]) -> bool {
        let retired = |id: &Id| self.keys.iter().any(|key| key.id == *id && key.state == KeyState::Retired);
        let back = |key: &StoreKey| match key.state {
            KeyState::Active => spent.contains(&key.id) || retired(&key.id),
            KeyState::Retired => spent.contains(&key.id),
            KeyState::Installation => false,
        };
        self.store == next.store && self.revision < next.revision && !next.keys.iter().any(back)
    }

    /// The store keys that seal records, of this header and not of `next`.
    pub fn dropped_by<'h>(&'h self, next: &'h Self) -> impl Iterator<Item = &'h StoreKey> {
        let sealing = self.keys.iter().filter(|key| key.state != KeyState::Installation);
        sealing.filter(|key| !next.keys.iter().any(|kept| kept.id == key.id))
    }

    /// What a copy of a shared store needs beside `next`, which takes this header's place: the keys that its records still are under and `next`
    /// has not, wrapped by those of `keks` that open `next`. `None`: nothing. `left`: those that it needed before.
    pub fn left_behind(&self, left: &[StoreKey], next: &Self, keks: &[Kek]) -> Result<Option<Self>, StoreError> {
        let mut keys: Vec<StoreKey> = left.iter().chain(self.dropped_by(next)).cloned().collect();
        keys.retain(|key| !next.keys.iter().any(|kept| kept.id == key.id));
        if keys.is_empty() {
            return Ok(None);
        }
        keys.iter_mut().for_each(|key| key.state = KeyState::Retired);
        keys.push(next.newest()?.clone());
        let mut kept = Self { store: next.store, revision: next.revision, keys, wrappers: Vec::new() };
        for kek in keks.iter().filter(|kek| next.kek(&kek.fingerprint()).is_some()) {
            kept.introduce(kek, kept.newest()?.created)?;
        }
        if kept.wrappers.is_empty() {
            return Err(StoreError::Refused(
                "a record of this copy is under a store key that nothing at hand could wrap; name a key-encryption key that opens the store"
                    .to_owned(),
            ));
        }
        Ok(Some(kept))
    }

    /// The key that seals and authenticates.
    pub fn newest(&self) -> Result<&StoreKey, StoreError> {
        let newest = self.keys.iter().rfind(|key| key.state == KeyState::Active);
        newest.ok_or_else(|| StoreError::Io("header has no active store key".to_owned()))
    }

    fn mac(&self, body: &[u8]) -> Result<[u8; MAC_LEN], StoreError> {
        let key = expand(self.newest()?.secret.as_ref(), &self.store, b"waxwing store v2 header")?;
        Ok(mac_of(key.as_ref(), body))
    }

    /// As it is stored.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.store);
        out.extend_from_slice(&self.revision.to_be_bytes());
        let count = |out: &mut Vec<u8>, count: usize| {
            let count = u8::try_from(count).ok().filter(|count| usize::from(*count) <= MANY);
            count.map(|count| out.push(count)).ok_or_else(|| {
                StoreError::Refused(format!("a store has {MANY} keys at most; `waxwing kek status` shows which"))
            })
        };
        count(&mut out, self.keys.len())?;
        for key in &self.keys {
            out.extend_from_slice(&key.id);
            out.extend_from_slice(&key.created.as_second().to_be_bytes());
            out.push(key.state as u8);
        }
        count(&mut out, self.wrappers.len())?;
        for wrapper in &self.wrappers {
            out.extend_from_slice(&[1 + u8::from(wrapper.recovery.is_some()), wrapper.state as u8]);
            out.extend_from_slice(&wrapper.created.as_second().to_be_bytes());
            out.extend_from_slice(&wrapper.fingerprint);
            out.extend_from_slice(wrapper.recovery.as_ref().map_or(&[], |public| public.as_slice()));
            for wrapped in &wrapper.wrapped {
                let length = u16::try_from(wrapped.len()).map_err(|_| super::crypto_failed())?;
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(wrapped);
            }
        }
        let mac = self.mac(&out)?;
        out.extend_from_slice(&mac);
        Ok(out)
    }

    fn wrap_all(
        &self,
        wrap: impl Fn(&[u8], &[u8]) -> Result<Vec<u8>, StoreError>,
        by: &Fingerprint,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        self.keys.iter().map(|key| wrap(&associated(&self.store, &key.id, by), key.secret.as_ref())).collect()
    }

    /// From now on `kek` opens the store too. Nothing, where it does already.
    pub fn introduce(&mut self, kek: &Kek, now: Timestamp) -> Result<(), StoreError> {
        let fingerprint = kek.fingerprint();
        if self.wrapper(&fingerprint).is_none() {
            let wrapped = self.wrap_all(|associated, key| kek.wrap_key(associated, key), &fingerprint)?;
            self.wrappers.push(Wrapper {
                fingerprint,
                state: KekState::Introduced,
                created: now,
                recovery: None,
                wrapped,
            });
        }
        Ok(())
    }

    /// From now on the recovery key opens the store too; one before it does not any more.
    pub fn introduce_recovery(&mut self, key: &RecoveryKey, now: Timestamp) -> Result<(), StoreError> {
        let public = key.public();
        let fingerprint = recovery::fingerprint(&public);
        self.wrappers.retain(|wrapper| wrapper.recovery.is_none());
        let wrapped = self.wrap_all(|associated, key| recovery::wrap_key(&public, associated, key), &fingerprint)?;
        self.wrappers.push(Wrapper {
            fingerprint,
            state: KekState::Active,
            created: now,
            recovery: Some(public),
            wrapped,
        });
        Ok(())
    }

    /// The KEK is the one in use; the one before it is to go.
    pub fn activate(&mut self, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        if self.kek(fingerprint).is_none() {
            return Err(StoreError::Refused(format!(
                "KEK {} does not open this store; introduce it first",
                *hex(fingerprint)
            )));
        }
        for wrapper in self.wrappers.iter_mut().filter(|wrapper| wrapper.recovery.is_none()) {
            wrapper.state = match wrapper.state {
                _ if wrapper.fingerprint == *fingerprint => KekState::Active,
                KekState::Active => KekState::Retiring,
                other => other,
            };
        }
        Ok(())
    }

    /// Every KEK but the one in use (and the recovery key) opens the store no more.
    pub fn retire_others(&mut self, active: &Fingerprint) -> Result<(), StoreError> {
        if self.kek(active).is_none_or(|wrapper| wrapper.state != KekState::Active) {
            return Err(StoreError::Refused(format!("KEK {} is not the one in use; activate it first", *hex(active))));
        }
        self.wrappers.retain(|wrapper| wrapper.recovery.is_some() || wrapper.fingerprint == *active);
        Ok(())
    }

    /// New keys; the active ones before them are retired. The key-encryption keys that open the store have to be at hand.
    pub fn renew_keys(&mut self, keks: &[Kek], now: Timestamp) -> Result<(), StoreError> {
        if let Some(missing) = self.wrappers.iter().find(|wrapper| {
            wrapper.recovery.is_none() && !keks.iter().any(|kek| kek.fingerprint() == wrapper.fingerprint)
        }) {
            return Err(StoreError::Refused(format!(
                "KEK {} opens this store too and is not at hand, so that new keys cannot be wrapped by it; finish the rotation first: waxwing kek rotate",
                *hex(&missing.fingerprint)
            )));
        }
        for key in &mut self.keys {
            if key.state == KeyState::Active {
                key.state = KeyState::Retired;
            }
        }
        let installations: Vec<Id> =
            self.keys.iter().filter(|key| key.state == KeyState::Installation).map(|key| key.id).collect();
        // The first is what loop tokens are made of.
        let spent: Vec<Id> = installations.iter().skip(1).rev().skip(INSTALLATIONS).copied().collect();
        self.drop_keys(|key| spent.contains(&key.id));
        for state in [KeyState::Installation, KeyState::Active] {
            let key = new_key(state, now)?;
            for wrapper in &mut self.wrappers {
                let associated = associated(&self.store, &key.id, &wrapper.fingerprint);
                let wrapped = match &wrapper.recovery {
                    Some(public) => recovery::wrap_key(public, &associated, key.secret.as_ref())?,
                    None => keks
                        .iter()
                        .find(|kek| kek.fingerprint() == wrapper.fingerprint)
                        .ok_or_else(super::crypto_failed)?
                        .wrap_key(&associated, key.secret.as_ref())?,
                };
                wrapper.wrapped.push(wrapped);
            }
            self.keys.push(key);
        }
        Ok(())
    }

    /// Drops keys for good.
    pub fn drop_keys(&mut self, mut which: impl FnMut(&StoreKey) -> bool) {
        let keep: Vec<bool> = self.keys.iter().map(|key| !which(key)).collect();
        let kept = |at: usize| keep.get(at).copied().unwrap_or(true);
        for wrapper in &mut self.wrappers {
            let mut at = 0..;
            wrapper.wrapped.retain(|_| at.next().is_none_or(kept));
        }
        let mut at = 0..;
        self.keys.retain(|_| at.next().is_none_or(kept));
    }

    fn wrapper(&self, fingerprint: &Fingerprint) -> Option<&Wrapper> {
        self.wrappers.iter().find(|wrapper| wrapper.fingerprint == *fingerprint)
    }

    /// A key-encryption key that is no recovery key.
    pub fn kek(&self, fingerprint: &Fingerprint) -> Option<&Wrapper> {
        self.wrapper(fingerprint).filter(|wrapper| wrapper.recovery.is_none())
    }

    /// The KEK in use.
    pub fn active_kek(&self) -> Option<Fingerprint> {
        let active = |wrapper: &&Wrapper| wrapper.recovery.is_none() && wrapper.state == KekState::Active;
        self.wrappers.iter().find(active).map(|wrapper| wrapper.fingerprint)
    }
}

/// What a wrapped key is bound to.
fn associated(store: &Id, key: &Id, by: &Fingerprint) -> Vec<u8> {
    [b"waxwing store v2 key ".as_slice(), store, key, by].concat()
}

/// What says that no KEK fits.
fn wants(wanted: &[Fingerprint], keks: &[Kek]) -> StoreError {
    let names: Vec<&str> = keks.iter().map(Kek::name).collect();
    let held: Vec<String> = keks.iter().map(|kek| hex(&kek.fingerprint()).to_string()).collect();
    let wanted: Vec<String> = wanted.iter().map(|one| hex(one).to_string()).collect();
    StoreError::Kek(
        names.join(" "),
        format!(
            "the store wants KEK {}, the file holds KEK {}; nothing was changed",
            wanted.join(" or "),
            held.join(" and ")
        ),
    )
}

impl<'a> Outer<'a> {
    fn read(octets: &'a [u8]) -> Result<Self, StoreError> {
        let foreign = |why: &str| StoreError::Io(format!("header {why}"));
        if !octets.starts_with(MAGIC) {
            return Err(if octets.starts_with(b"WAXSTOR") {
                StoreError::Later("header".to_owned())
            } else {
                foreign("is damaged")
            });
        }
        Self::parse(octets).ok_or_else(|| foreign("is damaged"))
    }

    fn parse(octets: &'a [u8]) -> Option<Self> {
        let (body, mac) = octets.split_last_chunk::<MAC_LEN>()?;
        let mut rest = body.strip_prefix(MAGIC)?;
        let store = take(&mut rest)?;
        let revision = u64::from_be_bytes(take(&mut rest)?);
        let mut keys = Vec::new();
        for _ in 0..count(&mut rest)? {
            let state = |code| match code {
                1 => Some(KeyState::Active),
                2 => Some(KeyState::Retired),
                3 => Some(KeyState::Installation),
                _ => None,
            };
            let (id, created, [code]) = (take(&mut rest)?, time(&mut rest)?, take(&mut rest)?);
            keys.push((id, created, state(code)?));
        }
        let mut wrappers = Vec::new();
        for _ in 0..count(&mut rest)? {
            let [kind, state] = take(&mut rest)?;
            let state = match state {
                1 => KekState::Introduced,
                2 => KekState::Active,
                3 => KekState::Retiring,
                _ => return None,
            };
            let (created, fingerprint) = (time(&mut rest)?, take(&mut rest)?);
            let recovery = match kind {
                1 => None,
                2 => Some(take(&mut rest)?),
                _ => return None,
            };
            let mut wrapped = Vec::new();
            for _ in &keys {
                let length = usize::from(u16::from_be_bytes(take(&mut rest)?));
                let (one, left) = rest.split_at_checked(length).filter(|_| length <= WRAPPED_MAX)?;
                wrapped.push(one.to_vec());
                rest = left;
            }
            wrappers.push(Wrapper { fingerprint, state, created, recovery, wrapped });
        }
        rest.is_empty().then_some(Self { store, revision, keys, wrappers, body, mac })
    }

    /// The wrapper that one of these opens, and the name of that.
    fn fits(&self, opener: &Opener<'_>) -> Option<(&Wrapper, String)> {
        self.wrappers.iter().find_map(|wrapper| {
            let name = match opener {
                Opener::Keks(keks) if wrapper.recovery.is_none() => {
                    keks.iter().find(|kek| kek.fingerprint() == wrapper.fingerprint)?.name().to_owned()
                }
                Opener::Recovery(key) if wrapper.recovery == Some(key.public()) => key.name().to_owned(),
                _ => return None,
            };
            Some((wrapper, name))
        })
    }

    fn foreign(&self, opener: &Opener<'_>) -> StoreError {
        let wanted: Vec<Fingerprint> = self
            .wrappers
            .iter()
            .filter(|wrapper| wrapper.recovery.is_none())
            .map(|wrapper| wrapper.fingerprint)
            .collect();
        match opener {
            Opener::Keks(keks) => wants(&wanted, keks),
            Opener::Recovery(key) => StoreError::Kek(
                key.name().to_owned(),
                "it is not the recovery key that this store has; `waxwing kek status` shows which it is".to_owned(),
            ),
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*head)
}

fn count(rest: &mut &[u8]) -> Option<usize> {
    take::<1>(rest).map(|[count]| usize::from(count)).filter(|count| *count <= MANY)
}

fn time(rest: &mut &[u8]) -> Option<Timestamp> {
    Timestamp::from_second(i64::from_be_bytes(take(rest)?)).ok()
}

/// Lower-case hexadecimal of a store's or key's id, and back.
pub(crate) fn id_text(id: &Id) -> String {
    hex(id).to_string()
}

/// Fuzz body: a header that is read is bounded, and no octets open without their key.
#[doc(hidden)]
pub fn fuzz_store_header(data: &[u8]) {
    if let Some(outer) = Outer::parse(data) {
        assert!(outer.keys.len() <= MANY && outer.wrappers.len() <= MANY);
        assert!(outer.wrappers.iter().all(|wrapper| wrapper.wrapped.len() == outer.keys.len()));
    }
    let key = unhex(&"07".repeat(32)).unwrap_or_default();
    let keks = [Kek::of_key(key, "fuzz")];
    assert!(Header::open(&Opener::Keks(&keks), data).is_err());
}

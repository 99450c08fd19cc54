//! How records are written: a strict, versioned encoding in which a value has exactly one form.
//!
//! A record is `version (1) | kind (1) | generation (8) | value | MAC (32)`; numbers are big-endian; texts and octet strings carry their length in
//! four octets. The MAC covers the path and all that stands before it.

use bytes::Bytes;
use jiff::Timestamp;

use super::keyring::{Keyring, MAC_LEN, Mac};
use crate::cms::algorithm::{Capabilities, ContentEncryption, Digest, KeyTransport};
use crate::policy::TrustState;

const VERSION: u8 = 1;
/// A record larger than this is not written and not read, in octets.
pub(super) const RECORD_MAX: usize = 16 << 20;

/// What a record is; the octet is its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Root = 1,
    Bucket = 2,
    Owner = 3,
    Certificate = 4,
    Key = 5,
    Trust = 6,
    TrustEntry = 7,
    Alias = 8,
    Change = 9,
    /// Stands where an owner or an alias was.
    Tombstone = 10,
    /// All that is known of a top-level path, as the shared store holds it.
    Shared = 11,
    /// A sign of life of a gateway, in the shared store.
    Node = 12,
}

impl Kind {
    pub fn from_code(code: u8) -> Option<Self> {
        use Kind::*;
        [Root, Bucket, Owner, Certificate, Key, Trust, TrustEntry, Alias, Change, Tombstone, Shared, Node]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// A record whose MAC holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub kind: Kind,
    pub generation: u64,
    pub value: Vec<u8>,
    pub mac: Mac,
}

impl Record {
    /// The octets to store at `path`, and their MAC.
    pub fn seal(ring: &Keyring, path: &str, kind: Kind, generation: u64, value: &[u8]) -> (Vec<u8>, Mac) {
        let mut out = Vec::with_capacity(value.len() + 10 + MAC_LEN);
        out.extend_from_slice(&[VERSION, kind as u8]);
        out.extend_from_slice(&generation.to_be_bytes());
        out.extend_from_slice(value);
        let mac = ring.mac(path, &out);
        out.extend_from_slice(&mac);
        (out, mac)
    }

    /// Reads what was stored at `path`.
    pub fn open(ring: &Keyring, path: &str, octets: &[u8]) -> Result<Self, Unreadable> {
        let (body, mac) = octets.split_last_chunk::<MAC_LEN>().ok_or(Unreadable::NotAuthentic)?;
        if octets.len() > RECORD_MAX || !ring.verifies(path, body, mac) {
            return Err(Unreadable::NotAuthentic);
        }
        let mut reader = Reader(body);
        let (version, code) = reader.u8().zip(reader.u8()).ok_or(Unreadable::NotAuthentic)?;
        let kind = Kind::from_code(code).filter(|_| version == VERSION).ok_or(Unreadable::Later)?;
        let generation = reader.u64().ok_or(Unreadable::NotAuthentic)?;
        Ok(Self { kind, generation, value: reader.0.to_vec(), mac: *mac })
    }

    /// Whether its MAC holds, whatever it says.
    pub fn is_authentic(ring: &Keyring, path: &str, octets: &[u8]) -> bool {
        octets.split_last_chunk::<MAC_LEN>().is_some_and(|(body, mac)| ring.verifies(path, body, mac))
    }

    /// Whether what is stored at `path` is under the newest key; what is not authentic is not.
    pub fn is_newest(ring: &Keyring, path: &str, octets: &[u8]) -> bool {
        octets.split_last_chunk::<MAC_LEN>().is_some_and(|(body, mac)| ring.verifies_newest(path, body, mac))
    }
}

/// Why a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It counts as absent.
    NotAuthentic,
    /// Its MAC holds, and its version or kind is not known here.
    Later,
}

/// Reads a value from its octets; every reader returns `None` where there is too little or something unknown.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    pub fn count(&mut self) -> Option<usize> {
        self.array().map(u32::from_be_bytes).and_then(|n| usize::try_from(n).ok())
    }
    pub fn octets(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }
    pub fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.octets()?).ok().map(str::to_owned)
    }
    pub fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    pub fn time(&mut self) -> Option<Timestamp> {
        Timestamp::from_second(i64::from_be_bytes(self.array()?)).ok()
    }
    /// `count` items; nothing is reserved before it is read.
    pub fn many<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Some(items)
    }
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    // Bounded by RECORD_MAX, which is checked before a record is written.
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

pub(super) fn put_octets(out: &mut Vec<u8>, octets: &[u8]) {
    put_count(out, octets.len());
    out.extend_from_slice(octets);
}

pub(super) fn put_many<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    put_count(out, items.len());
    for one in items {
        item(out, one);
    }
}

/// A value with one encoding.
pub(super) trait Encoded: Sized {
    fn encode(&self) -> Vec<u8>;
    /// `None` where the octets are not exactly one value.
    fn decode(octets: &[u8]) -> Option<Self>;
}

fn strictly_rising<T: Ord>(items: &[T]) -> Option<()> {
    items.is_sorted_by(|a, b| a < b).then_some(())
}

/// The head of the tree: the generation of the last change and the MAC of every bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Root {
    pub generation: u64,
    /// Sorted by bucket number.
    pub buckets: Vec<(u16, Mac)>,
}

impl Encoded for Root {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.generation.to_be_bytes().to_vec();
        put_many(&mut out, &self.buckets, |out, (number, mac)| {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(mac);
        });
        out
    }
    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let generation = reader.u64()?;
        let buckets = reader.many(|reader| Some((reader.u16()?, reader.array()?)))?;
        strictly_rising(&buckets.iter().map(|(number, _)| *number).collect::<Vec<_>>())?;
        reader.end()?;
        Some(Self { generation, buckets })
    }
}

/// Which records there are under a part of the paths: path and MAC, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bucket(pub Vec<(String, Mac)>);

impl Encoded for Bucket {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_many(&mut out, &self.0, |out, (path, mac)| {
            put_octets(out, path.as_bytes());
            out.extend_from_slice(mac);
        });
        out
    }
    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let entries = reader.many(|reader| Some((reader.text()?, reader.array()?)))?;
        strictly_rising(&entries.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>())?;
        reader.end()?;
        Some(Self(entries))
    }
}

/// An owner's settings, and which certificates and keys are his.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OwnerValue {
    pub disabled: bool,
    /// Fingerprint and MAC of the certificate's record, in the order they came.
    pub certificates: Vec<([u8; 32], Mac)>,
    /// Key id and MAC of the key's record.
    pub keys: Vec<([u8; 32], Mac)>,
}

fn put_pair(out: &mut Vec<u8>, (name, mac): &([u8; 32], Mac)) {
    out.extend_from_slice(name);
    out.extend_from_slice(mac);
}

fn read_pair(reader: &mut Reader<'_>) -> Option<([u8; 32], Mac)> {
    Some((reader.array()?, reader.array()?))
}

impl Encoded for OwnerValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.disabled)];
        put_many(&mut out, &self.certificates, put_pair);
        put_many(&mut out, &self.keys, put_pair);
        out
    }
    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let value =
            Self { disabled: reader.flag()?, certificates: reader.many(read_pair)?, keys: reader.many(read_pair)? };
        reader.end()?;
        Some(value)
    }
}

/// A certificate in an owner's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateValue {
    pub der: Bytes,
    pub source: String,
    pub detail: String,
    pub at: Timestamp,
    pub trust: TrustState,
    pub capabilities: Option<Capabilities>,
    pub preferred: bool,
    pub key: Option<[u8; 32]>,
    pub more: More,
}

/// What stands behind a certificate's first fields, where there is any of it: records of the first version end before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct More {
    /// Source, detail and time of what its owner can read.
    pub learned: Option<(String, String, Timestamp)>,
    pub last_seen: Option<Timestamp>,
    /// Why it stands as it does, and in whose place.
    pub note: Option<(String, Option<[u8; 32]>)>,
}

/// The octet before [`More`].
const MORE: u8 = 1;

const TRUST_STATES: [(u8, TrustState); 4] =
    [(1, TrustState::Pinned), (2, TrustState::Trusted), (3, TrustState::Pending), (4, TrustState::Blocked)];

const CIPHERS: [(u8, ContentEncryption); 10] = [
    (1, ContentEncryption::Aes128Cbc),
    (2, ContentEncryption::Aes192Cbc),
    (3, ContentEncryption::Aes256Cbc),
    (4, ContentEncryption::Aes128Gcm),
    (5, ContentEncryption::Aes192Gcm),
    (6, ContentEncryption::Aes256Gcm),
    (7, ContentEncryption::TripleDesCbc),
    (8, ContentEncryption::Rc2Cbc128),
    (9, ContentEncryption::Rc2Cbc64),
    (10, ContentEncryption::Rc2Cbc40),
];

const TRANSPORTS: [(u8, KeyTransport); 5] = [
    (1, KeyTransport::RsaPkcs1),
    (2, KeyTransport::RsaOaep(Digest::Sha1, Digest::Sha1)),
    (3, KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256)),
    (4, KeyTransport::RsaOaep(Digest::Sha384, Digest::Sha384)),
    (5, KeyTransport::RsaOaep(Digest::Sha512, Digest::Sha512)),
];

fn code_of<T: PartialEq>(table: &[(u8, T)], value: &T) -> u8 {
    table.iter().find(|(_, known)| known == value).map_or(0, |(code, _)| *code)
}

fn value_of<T: Copy>(table: &[(u8, T)], code: u8) -> Option<T> {
    table.iter().find(|(known, _)| *known == code).map(|(_, value)| *value)
}

/// The codes of a list; what has none is left out.
fn put_codes<T: PartialEq>(out: &mut Vec<u8>, table: &[(u8, T)], values: &[T]) {
    let codes: Vec<u8> = values.iter().map(|value| code_of(table, value)).filter(|code| *code != 0).collect();
    put_octets(out, &codes);
}

fn read_codes<T: Copy>(reader: &mut Reader<'_>, table: &[(u8, T)]) -> Option<Vec<T>> {
    reader.octets()?.iter().map(|code| value_of(table, *code)).collect()
}

fn put_time(out: &mut Vec<u8>, at: Timestamp) {
    out.extend_from_slice(&at.as_second().to_be_bytes());
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

impl More {
    fn put(&self, transport: &[KeyTransport], out: &mut Vec<u8>) {
        let before = out.len();
        out.push(MORE);
        put_codes(out, &TRANSPORTS, transport);
        put_optional(out, self.learned.as_ref(), |out, (source, detail, at)| {
            put_octets(out, source.as_bytes());
            put_octets(out, detail.as_bytes());
            put_time(out, *at);
        });
        put_optional(out, self.last_seen.as_ref(), |out, at| put_time(out, *at));
        put_optional(out, self.note.as_ref(), |out, (why, instead_of)| {
            put_octets(out, why.as_bytes());
            put_optional(out, instead_of.as_ref(), |out, name| out.extend_from_slice(name));
        });
        // Nothing of it: one form, which is that of the first version.
        if out.get(before + 1..).is_some_and(|put| put.iter().all(|octet| *octet == 0)) {
            out.truncate(before);
        }
    }

    /// `None`: what is there is not exactly one of the forms.
    fn read(reader: &mut Reader<'_>) -> Option<(Vec<KeyTransport>, Self)> {
        if reader.0.is_empty() {
            return Some((Vec::new(), Self::default()));
        }
        if reader.u8()? != MORE {
            return None;
        }
        let transport = read_codes(reader, &TRANSPORTS)?;
        let learned = if reader.flag()? { Some((reader.text()?, reader.text()?, reader.time()?)) } else { None };
        let last_seen = if reader.flag()? { Some(reader.time()?) } else { None };
        let note = if reader.flag()? {
            Some((reader.text()?, if reader.flag()? { Some(reader.array()?) } else { None }))
        } else {
            None
        };
        let more = Self { learned, last_seen, note };
        (more != Self::default() || !transport.is_empty()).then_some((transport, more))
    }
}

impl Encoded for CertificateValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.der.len() + 128);
        put_octets(&mut out, &self.der);
        put_octets(&mut out, self.source.as_bytes());
        put_octets(&mut out, self.detail.as_bytes());
        out.extend_from_slice(&self.at.as_second().to_be_bytes());
        out.push(code_of(&TRUST_STATES, &self.trust));
        out.push(u8::from(self.capabilities.is_some()));
        if let Some(capabilities) = &self.capabilities {
            put_codes(&mut out, &CIPHERS, &capabilities.content);
        }
        out.push(u8::from(self.preferred));
        out.push(u8::from(self.key.is_some()));
        out.extend_from_slice(self.key.as_ref().map_or(&[], |key| key.as_slice()));
        let transport = self.capabilities.as_ref().map_or(&[][..], |known| &known.transport);
        self.more.put(transport, &mut out);
        out
    }
    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let mut value = Self {
            der: Bytes::copy_from_slice(reader.octets()?),
            source: reader.text()?,
            detail: reader.text()?,
            at: reader.time()?,
            trust: value_of(&TRUST_STATES, reader.u8()?)?,
            capabilities: if reader.flag()? {
                Some(Capabilities { content: read_codes(&mut reader, &CIPHERS)?, transport: Vec::new() })
            } else {
                None
            },
            preferred: reader.flag()?,
            key: if reader.flag()? { Some(reader.array()?) } else { None },
            more: More::default(),
        };
        let transport;
        (transport, value.more) = More::read(&mut reader)?;
        match &mut value.capabilities {
            Some(capabilities) => capabilities.transport = transport,
            None if transport.is_empty() => {}
            None => return None,
        }
        reader.end()?;
        Some(value)
    }
}

/// What stands under the trust manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TrustValue {
    /// Fingerprint and MAC of the entry's record.
    pub entries: Vec<([u8; 32], Mac)>,
    /// Tombstones: fingerprints removed, and when.
    pub removed: Vec<([u8; 32], Timestamp)>,
}

impl Encoded for TrustValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_many(&mut out, &self.entries, put_pair);
        put_many(&mut out, &self.removed, |out, (name, at)| {
            out.extend_from_slice(name);
            out.extend_from_slice(&at.as_second().to_be_bytes());
        });
        out
    }
    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let value = Self {
            entries: reader.many(read_pair)?,
            removed: reader.many(|reader| Some((reader.array()?, reader.time()?)))?,
        };
        reader.end()?;
        Some(value)
    }
}

/// Whom an entry of the trust set may vouch for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScopeValue {
    Intermediate,
    Global,
    Domains(Vec<String>),
}

/// An anchor or an intermediate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrustEntryValue {
    pub der: Bytes,
    pub scope: ScopeValue,
}

impl Encoded for TrustEntryValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.der.len() + 64);
        put_octets(&mut out, &self.der);
        match &self.scope {
            ScopeValue::Intermediate => out.push(0),
            ScopeValue::Global => out.push(1),
            ScopeValue::Domains(domains) => {
                out.push(2);
                put_many(&mut out, domains, |out, domain| put_octets(out, domain.as_bytes()));
            }
        }
        out
    }
    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let der = Bytes::copy_from_slice(reader.octets()?);
        let scope = match reader.u8()? {
            0 => ScopeValue::Intermediate,
            1 => ScopeValue::Global,
            2 => ScopeValue::Domains(reader.many(Reader::text)?),
            _ => return None,
        };
        reader.end()?;
        Some(Self { der, scope })
    }
}

/// Where an owner or an alias was: what went, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TombstoneValue {
    pub at: Timestamp,
    /// Fingerprints of the certificates that went.
    pub certificates: Vec<[u8; 32]>,
}

impl Encoded for TombstoneValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.at.as_second().to_be_bytes().to_vec();
        put_many(&mut out, &self.certificates, |out, name| out.extend_from_slice(name));
        out
    }
    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let value = Self { at: reader.time()?, certificates: reader.many(Reader::array)? };
        reader.end()?;
        Some(value)
    }
}

/// What a change was about, for those who keep copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChangeValue {
    /// Top-level paths.
    pub paths: Vec<String>,
    /// Private keys went: copies of them must go too.
    pub keys_removed: bool,
}

impl Encoded for ChangeValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.keys_removed)];
        put_many(&mut out, &self.paths, |out, path| put_octets(out, path.as_bytes()));
        out
    }
    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let keys_removed = reader.flag()?;
        let paths = reader.many(Reader::text)?;
        reader.end()?;
        Some(Self { paths, keys_removed })
    }
}

/// Fuzz body: whatever a decoder accepts has exactly one form, and it is the one given.
#[doc(hidden)]
pub fn fuzz_store_record(data: &[u8]) {
    fn one_form<T: Encoded>(data: &[u8]) {
        if let Some(value) = T::decode(data) {
            assert_eq!(value.encode(), data);
        }
    }
    let Some((code, value)) = data.split_first() else { return };
    match Kind::from_code(*code) {
        Some(Kind::Root) => one_form::<Root>(value),
        Some(Kind::Bucket) => one_form::<Bucket>(value),
        Some(Kind::Owner) => one_form::<OwnerValue>(value),
        Some(Kind::Certificate) => one_form::<CertificateValue>(value),
        Some(Kind::Trust) => one_form::<TrustValue>(value),
        Some(Kind::TrustEntry) => one_form::<TrustEntryValue>(value),
        Some(Kind::Change) => one_form::<ChangeValue>(value),
        Some(Kind::Tombstone) => one_form::<TombstoneValue>(value),
        Some(Kind::Shared) => one_form::<super::etcd::SharedValue>(value),
        Some(Kind::Key | Kind::Alias | Kind::Node) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<(Kind, Vec<u8>)> {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let certificate = CertificateValue {
            der: Bytes::from_static(b"0\x03\x02\x01\x05"),
            source: "import".to_owned(),
            detail: "a.p12".to_owned(),
            at,
            trust: TrustState::Trusted,
            capabilities: Some(Capabilities {
                content: vec![ContentEncryption::Aes256Gcm, ContentEncryption::TripleDesCbc],
                transport: Vec::new(),
            }),
            preferred: true,
            key: Some([7; 32]),
            more: More::default(),
        };
        let harvested = CertificateValue {
            capabilities: Some(Capabilities {
                content: vec![ContentEncryption::Rc2Cbc40],
                transport: vec![KeyTransport::RsaPkcs1, KeyTransport::RsaOaep(Digest::Sha512, Digest::Sha512)],
            }),
            more: More {
                learned: Some(("mail".to_owned(), "<1@a.b>".to_owned(), at)),
                last_seen: Some(at),
                note: Some(("another key".to_owned(), Some([9; 32]))),
            },
            ..certificate.clone()
        };
        vec![
            (Kind::Certificate, harvested.encode()),
            (Kind::Root, Root { generation: 9, buckets: vec![(3, [1; 32]), (1000, [2; 32])] }.encode()),
            (Kind::Bucket, Bucket(vec![("o/a@b".to_owned(), [1; 32]), ("t".to_owned(), [2; 32])]).encode()),
            (Kind::Owner, OwnerValue { disabled: true, certificates: vec![([1; 32], [2; 32])], keys: vec![] }.encode()),
            (Kind::Certificate, certificate.encode()),
            (Kind::Trust, TrustValue { entries: vec![([1; 32], [2; 32])], removed: vec![([3; 32], at)] }.encode()),
            (
                Kind::TrustEntry,
                TrustEntryValue { der: Bytes::from_static(b"0"), scope: ScopeValue::Domains(vec!["a.b".to_owned()]) }
                    .encode(),
            ),
            (Kind::Change, ChangeValue { paths: vec!["o/a@b".to_owned()], keys_removed: true }.encode()),
            (Kind::Tombstone, TombstoneValue { at, certificates: vec![[4; 32]] }.encode()),
        ]
    }

    fn decodes(kind: Kind, value: &[u8]) -> bool {
        match kind {
            Kind::Root => Root::decode(value).is_some(),
            Kind::Bucket => Bucket::decode(value).is_some(),
            Kind::Owner => OwnerValue::decode(value).is_some(),
            Kind::Certificate => CertificateValue::decode(value).is_some(),
            Kind::Trust => TrustValue::decode(value).is_some(),
            Kind::TrustEntry => TrustEntryValue::decode(value).is_some(),
            Kind::Change => ChangeValue::decode(value).is_some(),
            Kind::Tombstone => TombstoneValue::decode(value).is_some(),
            Kind::Key | Kind::Alias | Kind::Shared | Kind::Node => false,
        }
    }

    #[test]
    fn a_certificate_of_the_first_version_reads_as_it_was_written() {
        // DER, source, detail, time, trusted, [AES-256-GCM, 3DES], preferred, key: as version 0.1 wrote it.
        let text = "00000005300302010500000006696d706f727400000005612e703132000000006553f100020100000002060701010707070707070707070707070707070707070707070707070707070707070707";
        let digit = |octet: u8| u8::try_from((octet as char).to_digit(16).unwrap()).unwrap();
        let octets: Vec<u8> = text.as_bytes().chunks(2).map(|pair| digit(pair[0]) * 16 + digit(pair[1])).collect();
        let value = CertificateValue::decode(&octets).unwrap();
        assert_eq!(
            (value.source.as_str(), value.trust, value.more.clone()),
            ("import", TrustState::Trusted, More::default())
        );
        let content = vec![ContentEncryption::Aes256Gcm, ContentEncryption::TripleDesCbc];
        assert_eq!(value.capabilities, Some(Capabilities { content, transport: Vec::new() }));
        assert_eq!(value.encode(), octets);
    }

    #[test]
    fn values_have_one_form_and_no_tail() {
        for (kind, value) in samples() {
            assert!(decodes(kind, &value), "{kind:?}");
            for cut in 0..value.len() {
                // A certificate may end where the first version ended: nothing was lost then but what was not there.
                let whole = kind == Kind::Certificate
                    && CertificateValue::decode(&value[..cut])
                        .is_some_and(|short| short.more == More::default() && short.encode() == value[..cut]);
                assert!(whole || !decodes(kind, &value[..cut]), "{kind:?} cut at {cut}");
            }
            assert!(!decodes(kind, &[value.as_slice(), b"\0"].concat()), "{kind:?} with a tail");
            fuzz_store_record(&[&[kind as u8], value.as_slice()].concat());
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_refused_or_have_one_form(at in 0usize..9, flips in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4), noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let (kind, mut value) = samples().swap_remove(at);
            for (place, octet) in flips {
                let length = value.len();
                value[usize::from(place) % length] = octet;
            }
            value.insert(0, kind as u8);
            fuzz_store_record(&value);
            fuzz_store_record(&noise);
        }
    }
}

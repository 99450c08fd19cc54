//! What stands under a key of the shared store: all that is known of one owner, one alias, or one entry of the trust set, in one record, so
//! that it changes as a whole and its version says which is the newer one.

use crate::store::record::{
    CertificateValue, Encoded, Kind, Reader, TombstoneValue, TrustEntryValue, put_many, put_octets,
};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum SharedValue {
    Owner {
        disabled: bool,
        /// Fingerprint and the encoded [`CertificateValue`], in the order they came.
        certificates: Vec<([u8; 32], Vec<u8>)>,
        /// Key id and the sealed PKCS#8.
        keys: Vec<([u8; 32], Vec<u8>)>,
    },
    /// The mailbox it belongs to.
    Alias(String),
    /// An encoded [`TrustEntryValue`].
    Trust(Vec<u8>),
    /// An encoded [`TombstoneValue`].
    Tombstone(Vec<u8>),
}

fn put_named(out: &mut Vec<u8>, (name, value): &([u8; 32], Vec<u8>)) {
    out.extend_from_slice(name);
    put_octets(out, value);
}

fn read_named(reader: &mut Reader<'_>) -> Option<([u8; 32], Vec<u8>)> {
    Some((reader.array()?, reader.octets()?.to_vec()))
}

impl Encoded for SharedValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Owner { disabled, certificates, keys } => {
                out.extend_from_slice(&[1, u8::from(*disabled)]);
                put_many(&mut out, certificates, put_named);
                put_many(&mut out, keys, put_named);
            }
            Self::Alias(mailbox) => {
                out.push(2);
                put_octets(&mut out, mailbox.as_bytes());
            }
            Self::Trust(entry) => {
                out.push(3);
                put_octets(&mut out, entry);
            }
            Self::Tombstone(value) => {
                out.push(4);
                put_octets(&mut out, value);
            }
        }
        out
    }

    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets);
        let value = match reader.u8()? {
            1 => {
                let (disabled, certificates) = (reader.flag()?, reader.many(read_named)?);
                let keys = reader.many(read_named)?;
                certificates.iter().try_for_each(|(_, one)| CertificateValue::decode(one).map(drop))?;
                Self::Owner { disabled, certificates, keys }
            }
            2 => Self::Alias(reader.text()?),
            3 => Self::Trust(TrustEntryValue::decode(reader.octets()?)?.encode()),
            4 => Self::Tombstone(TombstoneValue::decode(reader.octets()?)?.encode()),
            _ => return None,
        };
        reader.end()?;
        Some(value)
    }
}

impl SharedValue {
    /// Whether this may stand under such a path.
    pub fn fits(&self, path: &str) -> bool {
        match self {
            Self::Owner { .. } => path.starts_with("o/"),
            Self::Alias(_) => path.starts_with("a/"),
            Self::Trust(_) => path.starts_with("t/"),
            Self::Tombstone(_) => ["o/", "a/", "t/"].iter().any(|head| path.starts_with(head)),
        }
    }

    /// The top-level record of a path other than an owner's, in the embedded store's form.
    pub fn as_top(&self) -> Option<(Kind, Vec<u8>)> {
        match self {
            Self::Alias(mailbox) => Some((Kind::Alias, mailbox.as_bytes().to_vec())),
            Self::Tombstone(value) => Some((Kind::Tombstone, value.clone())),
            Self::Owner { .. } | Self::Trust(_) => None,
        }
    }
}

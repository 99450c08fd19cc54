//! What is made and read: the cases, and what a peer is.

use waxwing::pki::authority::NewKey;

use crate::place::Place;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    DetachedRsa,
    DetachedPss,
    DetachedPssMax,
    DetachedEcdsa,
    DetachedEd25519,
    Opaque,
    RsaCbc,
    RsaCbcStreamed,
    OaepCbc,
    EcdhCbc,
    Gcm,
    Compressed,
}

impl Case {
    pub const ALL: [Case; 12] = [
        Case::DetachedRsa,
        Case::DetachedPss,
        Case::DetachedPssMax,
        Case::DetachedEcdsa,
        Case::DetachedEd25519,
        Case::Opaque,
        Case::RsaCbc,
        Case::RsaCbcStreamed,
        Case::OaepCbc,
        Case::EcdhCbc,
        Case::Gcm,
        Case::Compressed,
    ];
    /// As the table says it.
    pub fn title(self) -> &'static str {
        match self {
            Case::DetachedRsa => "detached, RSA PKCS#1",
            Case::DetachedPss => "detached, PSS, salt 32",
            Case::DetachedPssMax => "detached, PSS, longest salt",
            Case::DetachedEcdsa => "detached, ECDSA P-256",
            Case::DetachedEd25519 => "detached, Ed25519",
            Case::Opaque => "opaque; the peers' in BER",
            Case::RsaCbc => "RSA PKCS#1, AES-CBC",
            Case::RsaCbcStreamed => "the same, streamed BER",
            Case::OaepCbc => "RSA OAEP SHA-256, AES-CBC",
            Case::EcdhCbc => "ECDH P-256, AES-CBC",
            Case::Gcm => "AuthEnvelopedData, AES-GCM",
            Case::Compressed => "CompressedData",
        }
    }
    /// As Bouncy Castle's side knows it.
    pub fn word(self) -> &'static str {
        match self {
            Case::DetachedRsa => "detached-rsa",
            Case::DetachedPss => "detached-pss",
            Case::DetachedPssMax => "detached-pss-max",
            Case::DetachedEcdsa => "detached-ecdsa",
            Case::DetachedEd25519 => "detached-ed25519",
            Case::Opaque => "opaque",
            Case::RsaCbc => "rsa-cbc",
            Case::RsaCbcStreamed => "rsa-cbc-streamed",
            Case::OaepCbc => "oaep-cbc",
            Case::EcdhCbc => "ecdh-cbc",
            Case::Gcm => "gcm",
            Case::Compressed => "compressed",
        }
    }
    pub fn is_detached(self) -> bool {
        self.word().starts_with("detached")
    }
    pub fn is_signed(self) -> bool {
        self.is_detached() || self == Case::Opaque
    }
}

/// A CMS object that somebody made of the content.
#[derive(Clone)]
pub struct Made {
    /// How, where it is made in several ways.
    pub how: &'static str,
    pub object: Vec<u8>,
}

/// An object to read.
pub struct Job {
    pub case: Case,
    pub object: Vec<u8>,
    /// What is signed, where it is detached.
    pub content: Vec<u8>,
}

/// A program that makes and reads.
pub trait Peer {
    /// Its letter in the table.
    fn letter(&self) -> char;
    /// The content as this case; nothing where the program cannot make it.
    fn make(&self, world: &World, case: Case) -> Vec<Made>;
    /// What each holds, or why it was refused.
    fn read(&self, world: &World, jobs: &[Job]) -> Vec<Result<Vec<u8>, String>>;
}

/// The same people with keys of each kind.
pub struct World {
    pub rsa: Place,
    pub p256: Place,
    pub ed25519: Place,
}

impl World {
    pub fn new() -> Self {
        Self { rsa: Place::new(NewKey::Rsa2048), p256: Place::new(NewKey::P256), ed25519: Place::ed25519() }
    }
    pub fn place(&self, case: Case) -> &Place {
        match case {
            Case::DetachedEcdsa | Case::EcdhCbc => &self.p256,
            Case::DetachedEd25519 => &self.ed25519,
            _ => &self.rsa,
        }
    }
    pub fn places(&self) -> [&Place; 3] {
        [&self.rsa, &self.p256, &self.ed25519]
    }
}

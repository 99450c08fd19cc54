//! Entity to what it is, what it needs, what came out (RFC 8551). Waiting for a key is a value, not a callback.

use bytes::Bytes;
use jiff::Timestamp;

use super::verdict::Verdict;
use crate::cms::algorithm::Legacy;
use crate::cms::signed::CertificateId;
use crate::keys::{Cek, KeyAnswer, KeyError, KeyId, KeyOperation};
use crate::mime::entity::{Entity, MimeLimits};
use crate::pki::certificate::Certificate;
use crate::pki::path::{PathLimits, TrustSet};
use std::sync::Arc;

/// A recipient's own keys: certificate and key id (A30: nobody else's).
#[derive(Debug, Clone)]
pub struct OwnKey {
    pub certificate: Certificate,
    pub key: KeyId,
}

/// What opening depends on.
#[derive(Debug, Clone)]
pub struct OpenContext {
    pub keys: Vec<OwnKey>,
    pub trust: Arc<TrustSet>,
    pub at: Timestamp,
    pub legacy: Legacy,
    pub mime: MimeLimits,
    pub path: PathLimits,
    /// Layers undone at most; default 4 (A13).
    pub layers: usize,
    /// Private-key operations at most for the message; default 8.
    pub operations: usize,
}

/// What the opener wants or gives.
pub enum Step {
    /// Do this with the key and come back with the answer.
    Key(KeyOperation),
    /// Ready.
    Done(Box<Opened>),
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The message to deliver: the received octets where nothing was decrypted, else a fresh message: outer fields (those
    /// that are not MIME's) and the inner entity. Marks are not yet in it. Well-formed lines (A16).
    pub message: Bytes,
    /// The innermost content (MIME entity), as signed or decrypted; what `content_sha256` is taken over.
    pub content: Bytes,
    pub verdict: Verdict,
    /// Per envelope opened: a digest of the CEK used, for the comparison across recipients (A30).
    pub cek_digests: Vec<[u8; 32]>,
    /// Certificates seen in verified signatures (for harvest).
    pub certificates: Vec<Certificate>,
}

/// The machine that opens one message for one recipient.
pub struct Opener {
    _rest: (),
}

impl Opener {
    /// Begins. `substitute` gives 32 random octets per private operation, drawn before the call (A3).
    pub fn new(_message: Entity, _context: OpenContext, _substitute: fn() -> Cek) -> Self {
        todo!()
    }
    /// Goes on: `answer` is the answer to the last `Step::Key`, `None` the first time.
    pub fn step(&mut self, _answer: Option<Result<KeyAnswer, KeyError>>) -> Step {
        todo!()
    }
}

/// Which certificates an encrypted message names, without opening it: for A32 and for `message show`.
pub fn recipient_ids(_message: &Entity, _limits: &MimeLimits) -> Option<Vec<CertificateId>> {
    todo!()
}

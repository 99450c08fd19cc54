//! The result of opening, and the marks that tell of it (RFC 8601, RFC 7281); forged marks stripped (A8).

use jiff::Timestamp;

use crate::address::{Domain, Mailbox};
use crate::mime::header::Header;
use crate::pki::certificate::Certificate;
use crate::pki::path::ValidPath;

/// RFC 8601 result of `smime=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmimeResult {
    Pass,
    Fail,
    None,
    Neutral,
    Policy,
    TempError,
    PermError,
}

/// What a layer was.
#[derive(Debug, Clone)]
pub enum Layer {
    Encrypted {
        /// "AES-256-GCM" …
        cipher: String,
        /// AEAD; CBC proves nothing by itself (A2).
        authenticated: bool,
        /// Ways and names of the RecipientInfos, for people.
        recipients: Vec<String>,
        /// Whether it was opened here; why not.
        outcome: Result<(), String>,
    },
    Signed { clear: bool, signers: Vec<SignerReport> },
    Compressed { outcome: Result<(), String> },
}

/// What is known of one signer.
#[derive(Debug, Clone)]
pub struct SignerReport {
    pub certificate: Option<Certificate>,
    pub algorithm: String,
    pub signing_time: Option<Timestamp>,
    /// The signature's arithmetic; `Err` says which rule.
    pub signature: Result<(), String>,
    /// The path at the time judged; `Err` says why.
    pub path: Result<ValidPath, String>,
    /// From equals a SAN of the certificate.
    pub matches_from: Result<Mailbox, String>,
}

/// Proof that a message was signed by the one in From: every signer checked, path valid, SAN = From.
#[derive(Debug, Clone)]
pub struct VerifiedSigner {
    mailbox: Mailbox,
    certificate: Certificate,
}

impl VerifiedSigner {
    /// Only `smime::open` makes one, after all checks.
    pub(in crate::smime) fn new(mailbox: Mailbox, certificate: Certificate) -> Self {
        Self { mailbox, certificate }
    }
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// What was found, all layers, outermost first.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub layers: Vec<Layer>,
    /// `Some` is the only way to `pass`.
    pub signer: Option<VerifiedSigner>,
    pub result: SmimeResult,
    /// One line that says why, for people.
    pub reason: String,
    /// Something was decrypted here.
    pub decrypted: bool,
    /// Decrypted content whose integrity nothing proves (CBC, no valid signature inside): A2.
    pub unauthenticated: bool,
    /// For information: revocation not checked, recipients mismatch (A9), line ends repaired (A16), …
    pub notes: Vec<String>,
}

/// How marks are written.
#[derive(Debug, Clone)]
pub struct Marks {
    pub authserv_id: Domain,
    /// Subject tags such as `[signed]`, off by default.
    pub subject_tags: bool,
}

impl Marks {
    /// The header without Authentication-Results of our authserv-id, X-Waxwing-* and (where tags are on) our tags at the
    /// start of the Subject, however folded or encoded; other fields octet for octet.
    pub fn strip(&self, _header: &Header) -> Vec<u8> {
        todo!()
    }
    /// Our fields for a verdict, to be put before the header.
    pub fn fields(&self, _verdict: &Verdict) -> Vec<u8> {
        todo!()
    }
}

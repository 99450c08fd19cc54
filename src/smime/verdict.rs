//! The result of opening, and the marks that tell of it (RFC 8601, RFC 7281); forged marks stripped (A8).

use bytes::Bytes;
use jiff::Timestamp;

use crate::address::{Domain, Mailbox};
use crate::cms::algorithm::Capabilities;
use crate::mime::header::Header;
use crate::mime::rope::Rope;
use crate::pki::certificate::Certificate;
use crate::pki::path::ValidPath;
use crate::pki::revocation::Status;

mod skeleton;
mod strip;
#[cfg(test)]
mod tests;
mod write;

pub use strip::fuzz_strip;
pub(crate) use write::{comment, quoted};

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

impl SmimeResult {
    /// The word of RFC 8601 section 2.7.
    pub fn as_str(self) -> &'static str {
        match self {
            SmimeResult::Pass => "pass",
            SmimeResult::Fail => "fail",
            SmimeResult::None => "none",
            SmimeResult::Neutral => "neutral",
            SmimeResult::Policy => "policy",
            SmimeResult::TempError => "temperror",
            SmimeResult::PermError => "permerror",
        }
    }
}

impl std::fmt::Display for SmimeResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
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
    Signed {
        clear: bool,
        signers: Vec<SignerReport>,
    },
    Compressed {
        outcome: Result<(), String>,
    },
}

/// What is known of one signer.
#[derive(Debug, Clone)]
pub struct SignerReport {
    pub certificate: Option<Certificate>,
    pub algorithm: String,
    pub signing_time: Option<Timestamp>,
    /// What the signer says that he can read (SMIMECapabilities); worth no more than the signature is.
    pub capabilities: Option<Capabilities>,
    /// The certificate that he wants to have mail encrypted to (SMIMEEncryptionKeyPreference), in words.
    pub prefers: Option<String>,
    /// The signature's arithmetic; `Err` says which rule.
    pub signature: Result<(), String>,
    /// The path at the time judged; `Err` says why.
    pub path: Result<ValidPath, String>,
    /// Whether a certificate of the path is revoked; `None`: not looked at.
    pub revocation: Option<Status>,
    /// From equals a SAN of the certificate.
    pub matches_from: Result<Mailbox, String>,
    /// What is weak in it, and was read by the legacy switches alone.
    pub weak: Vec<String>,
    /// Countersignatures: whom they name, and how they are made. They are not checked, and make nothing valid.
    pub countersigned: Vec<String>,
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

/// Proof that a message was signed with the key of its author's domain: every signer checked, path valid, the certificate names the
/// domain of From. It says nothing of who in the domain wrote it, and is never a [`VerifiedSigner`].
#[derive(Debug, Clone)]
pub struct VerifiedDomain {
    domain: Domain,
    certificate: Certificate,
}

impl VerifiedDomain {
    /// Only `smime::open` makes one, after all checks.
    pub(in crate::smime) fn new(domain: Domain, certificate: Certificate) -> Self {
        Self { domain, certificate }
    }
    pub fn domain(&self) -> &Domain {
        &self.domain
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
    /// The author's domain signed, and no person: `result` is `policy` then, never `pass`.
    pub domain: Option<VerifiedDomain>,
    pub result: SmimeResult,
    /// One line that says why, for people.
    pub reason: String,
    /// Something was decrypted here.
    pub decrypted: bool,
    /// Decrypted content whose integrity nothing proves (CBC, no valid signature inside): A2.
    pub unauthenticated: bool,
    /// Weak algorithms that the legacy switches let in, of all layers; empty: none.
    pub weak: Vec<String>,
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
    /// The header without Authentication-Results of our authserv-id, X-Waxwing-* and (where tags are on) our tags in the
    /// Subject, however folded or encoded; other fields octet for octet. What comes before the first field, and broken lines
    /// that look like marks, go too.
    pub fn strip(&self, header: &Header) -> Vec<u8> {
        strip::strip(self, &header.raw, None).0
    }
    /// Our fields for a verdict, to be put before the header.
    pub fn fields(&self, verdict: &Verdict) -> Vec<u8> {
        write::fields(self, verdict)
    }
    /// A message with its forged marks taken away and ours put in front; its body is shared, not copied.
    pub fn apply(&self, verdict: &Verdict, message: &Bytes) -> Rope {
        let mut rope = Rope::new();
        rope.push_raw(self.fields(verdict));
        rope.append(self.tagged(verdict, message));
        rope
    }
    /// A message with its forged marks taken away, and our tag in its Subject where tags are on; the fields stand elsewhere.
    pub fn tagged(&self, verdict: &Verdict, message: &Bytes) -> Rope {
        self.without_forged(message, if self.subject_tags { write::tag(verdict) } else { None })
    }
    /// A message with its forged marks taken away and none put in (on the way out, and where nothing was opened).
    pub fn clean(&self, message: &Bytes) -> Rope {
        self.without_forged(message, None)
    }
    fn without_forged(&self, message: &Bytes, tag: Option<&str>) -> Rope {
        let mut rope = Rope::new();
        let (mut kept, rest) = strip::strip(self, message, tag);
        if rest.is_empty() {
            // The header ends with the message: what is put in front needs its empty line.
            if !kept.is_empty() && !kept.ends_with(b"\n") {
                kept.extend_from_slice(b"\r\n");
            }
            kept.extend_from_slice(b"\r\n");
        }
        rope.push_raw(kept);
        rope.push_raw(rest);
        rope
    }
}

//! Inbound mail that is kept until a person has looked at it.

use crate::smime::verdict::{SmimeResult, Verdict};

/// What a rule keeps back; nothing by default: it is delivered, and marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quarantine {
    /// A signature does not fit what it signs, is not the author's, or the S/MIME around it is broken.
    InvalidSignature,
    /// The signature fits, and its certificate or algorithm is not accepted: no path to an anchor, revoked, too weak.
    UntrustedSigner,
    /// Decrypted, and nothing proves that it was not altered on the way (A2).
    Unauthenticated,
}

impl Quarantine {
    /// The words of the configuration.
    pub const WORDS: [(&'static str, Self); 3] = [
        ("invalid-signature", Self::InvalidSignature),
        ("untrusted-signer", Self::UntrustedSigner),
        ("unauthenticated", Self::Unauthenticated),
    ];

    fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }

    fn is_about(self, verdict: &Verdict) -> bool {
        match self {
            Self::InvalidSignature => matches!(verdict.result, SmimeResult::Fail | SmimeResult::PermError),
            Self::UntrustedSigner => verdict.result == SmimeResult::Policy,
            Self::Unauthenticated => verdict.unauthenticated,
        }
    }
}

/// Why a mail with this verdict is kept back; `None`: it is not.
pub fn quarantines(what: &[Quarantine], verdict: &Verdict) -> Option<String> {
    let why = what.iter().find(|one| one.is_about(verdict))?;
    Some(format!("quarantine: {}: {}", why.name(), verdict.reason).chars().take(300).collect())
}

//! What becomes of one recipient's mail, in terms that two configurations can be compared by.

use crate::cms::algorithm::ContentEncryption;
use crate::policy::{Plan, Treatment};
use crate::smime::verdict::SmimeResult;

/// What becomes of one recipient's mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Refused before any rule: relaying, size, loops.
    Denied,
    /// Refused for good.
    Refused,
    /// Refused for now.
    Deferred,
    /// Kept until released.
    Held,
    /// Leaves as it is.
    Clear,
    /// Leaves signed, readable.
    Signed,
    /// Leaves encrypted.
    Encrypted {
        /// Signed here too.
        signed: bool,
        /// With this.
        cipher: ContentEncryption,
    },
    /// Leaves as it came: encrypted for each of its recipients.
    EncryptedBefore,
    /// Comes in, and is opened with the recipient's own keys.
    Opened,
    /// Comes in, and is marked with this result.
    Judged(SmimeResult),
    /// Comes in as it is, without forged marks.
    Passed,
}

/// What became worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weaker {
    /// Readable on its way; it was encrypted.
    ClearNow,
    /// Readable on its way; it did not leave.
    LeavesClear,
    /// Without the signature that it had.
    Unsigned,
    /// Encrypted with a cipher that proves or protects less.
    Cipher,
    /// Called valid, which it was not.
    Valid,
    /// No longer looked at on its way in.
    Unjudged,
    /// Comes in, and was kept back.
    Unheld,
}

impl Weaker {
    /// For people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClearNow => "in clear now, sealed before",
            Self::LeavesClear => "in clear now, did not leave before",
            Self::Unsigned => "no longer signed",
            Self::Cipher => "a weaker cipher",
            Self::Valid => "called valid now, not before",
            Self::Unjudged => "no longer verified",
            Self::Unheld => "handed on now, held before",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied => f.write_str("denied"),
            Self::Refused => f.write_str("refused"),
            Self::Deferred => f.write_str("deferred"),
            Self::Held => f.write_str("held"),
            Self::Clear => f.write_str("clear"),
            Self::Signed => f.write_str("signed"),
            Self::Encrypted { signed: true, cipher } => write!(f, "signed, encrypted with {}", cipher.name()),
            Self::Encrypted { signed: false, cipher } => write!(f, "encrypted with {}", cipher.name()),
            Self::EncryptedBefore => f.write_str("encrypted before"),
            Self::Opened => f.write_str("opened"),
            Self::Judged(result) => write!(f, "marked {result}"),
            Self::Passed => f.write_str("handed on as it is"),
        }
    }
}

impl Outcome {
    /// Of an outbound treatment.
    pub(super) fn of(treatment: &Treatment) -> Self {
        match treatment {
            Treatment::Refuse { transient: true, .. } => Self::Deferred,
            Treatment::Refuse { .. } => Self::Refused,
            Treatment::Hold { .. } => Self::Held,
            Treatment::Clear(_) => Self::Clear,
            Treatment::Protect(Plan { sign, encrypt: Some(to), .. }) => {
                Self::Encrypted { signed: sign.is_some(), cipher: to.content }
            }
            Treatment::Protect(_) => Self::Signed,
        }
    }

    /// What is worse about `self` than about `before`; the worst alone is told.
    pub fn weaker_than(self, before: Self) -> Option<Weaker> {
        use Outcome::{Clear, Encrypted, EncryptedBefore, Held, Judged, Opened, Passed, Signed};
        let readable = matches!(self, Clear | Signed);
        match (before, self) {
            (Encrypted { .. } | EncryptedBefore, _) if readable => Some(Weaker::ClearNow),
            (Clear, Clear) | (Clear | Signed, Signed) => None,
            (Signed, Clear) => Some(Weaker::Unsigned),
            (_, Clear | Signed) => Some(Weaker::LeavesClear),
            (Signed | Encrypted { signed: true, .. }, Encrypted { signed: false, .. }) => Some(Weaker::Unsigned),
            (Encrypted { cipher: old, .. }, Encrypted { cipher: new, .. }) => {
                let unproven = old.is_authenticated() && !new.is_authenticated();
                let less = unproven || new.key_len() < old.key_len();
                less.then_some(Weaker::Cipher)
            }
            (Held, Opened | Judged(_) | Passed) => Some(Weaker::Unheld),
            (Opened | Judged(_), Passed) => Some(Weaker::Unjudged),
            (Judged(old), Judged(SmimeResult::Pass)) if old != SmimeResult::Pass => Some(Weaker::Valid),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_protects_less_is_weaker_and_nothing_else_is() {
        use ContentEncryption::{Aes128Cbc, Aes256Cbc, Aes256Gcm};
        let sealed = |signed, cipher| Outcome::Encrypted { signed, cipher };
        let kept = [Outcome::Denied, Outcome::Refused, Outcome::Deferred, Outcome::Held];
        let judged = [SmimeResult::Pass, SmimeResult::Fail, SmimeResult::None, SmimeResult::Policy];
        for readable in [Outcome::Clear, Outcome::Signed] {
            for before in [sealed(true, Aes256Gcm), sealed(false, Aes128Cbc), Outcome::EncryptedBefore] {
                assert_eq!(readable.weaker_than(before), Some(Weaker::ClearNow), "{before} -> {readable}");
                assert_eq!(before.weaker_than(readable).filter(|why| *why != Weaker::Unsigned), None);
            }
            for before in kept {
                assert_eq!(readable.weaker_than(before), Some(Weaker::LeavesClear), "{before} -> {readable}");
                assert_eq!(before.weaker_than(readable), None);
            }
        }
        for before in kept {
            assert_eq!(sealed(false, Aes128Cbc).weaker_than(before), None);
            assert_eq!(before.weaker_than(sealed(true, Aes256Gcm)), None);
        }
        assert_eq!(Outcome::Clear.weaker_than(Outcome::Signed), Some(Weaker::Unsigned));
        assert_eq!(Outcome::Signed.weaker_than(Outcome::Clear), None);
        assert_eq!(sealed(false, Aes256Gcm).weaker_than(sealed(true, Aes256Gcm)), Some(Weaker::Unsigned));
        assert_eq!(sealed(false, Aes256Gcm).weaker_than(Outcome::Signed), Some(Weaker::Unsigned));
        assert_eq!(sealed(true, Aes256Cbc).weaker_than(sealed(true, Aes256Gcm)), Some(Weaker::Cipher));
        assert_eq!(sealed(true, Aes128Cbc).weaker_than(sealed(true, Aes256Cbc)), Some(Weaker::Cipher));
        assert_eq!(sealed(true, Aes256Gcm).weaker_than(sealed(true, Aes256Cbc)), None);
        for result in judged {
            let now = Outcome::Judged(SmimeResult::Pass).weaker_than(Outcome::Judged(result));
            assert_eq!(now, (result != SmimeResult::Pass).then_some(Weaker::Valid));
            assert_eq!(Outcome::Judged(result).weaker_than(Outcome::Judged(SmimeResult::Pass)), None);
            assert_eq!(Outcome::Passed.weaker_than(Outcome::Judged(result)), Some(Weaker::Unjudged));
        }
        assert_eq!(Outcome::Passed.weaker_than(Outcome::Opened), Some(Weaker::Unjudged));
        assert_eq!(Outcome::Opened.weaker_than(Outcome::Held), Some(Weaker::Unheld));
        assert_eq!(Outcome::Held.weaker_than(Outcome::Opened), None);
    }
}

//! What was found on the way, put together to a verdict.

use super::judge::Standing;
use super::{Findings, NAMED};
use crate::smime::verdict::{Layer, SmimeResult, Verdict, VerifiedSigner};

impl Findings {
    /// What was signed so far lies outside of an encryption.
    pub(super) fn seal_off(&mut self) {
        self.announced.clear();
        self.domain = None;
        self.outer.extend(self.inner.drain(..).map(|(standing, _)| standing));
    }

    pub(super) fn verdict(mut self) -> Verdict {
        let (mut result, mut reason, signer) = self.judge();
        if self.unopened.is_some() && result == SmimeResult::Pass {
            result = SmimeResult::Neutral;
            reason = "what is signed was not opened here: the signature says nothing of what is in it".into();
        }
        let signer = if result == SmimeResult::Pass { signer } else { None };
        let by_domain = matches!(self.inner.first(), Some((Standing::Domain(why), _)) if *why == reason);
        let domain =
            self.domain.take().filter(|_| result == SmimeResult::Policy && by_domain && self.unopened.is_none());
        if !self.weak.is_empty() {
            reason.push_str(&format!("; weak: {}", self.weak.join(", ")));
        }
        let signers = self.layers.iter().filter_map(|layer| match layer {
            Layer::Signed { signers, .. } => Some(signers),
            _ => None,
        });
        for signer in signers.flatten().take(NAMED) {
            self.notes.push(match &signer.revocation {
                Some(status) => format!("revocation: {status}"),
                None => "revocation: not checked".into(),
            });
        }
        self.notes.dedup();
        let unauthenticated = self.cbc && signer.is_none() && domain.is_none();
        if unauthenticated {
            self.notes.push("nothing proves that the decrypted content is what its sender wrote: CBC without a valid signature inside".into());
        }
        Verdict {
            layers: self.layers,
            signer,
            domain,
            result,
            reason,
            decrypted: self.decrypted,
            unauthenticated,
            weak: self.weak,
            notes: self.notes,
        }
    }

    /// RFC 8601 section 2.7.5 and RFC 7281: the result, why, and who signed.
    fn judge(&mut self) -> (SmimeResult, String, Option<VerifiedSigner>) {
        if self.unavailable {
            return (SmimeResult::TempError, "the key holder is not available".into(), None);
        }
        if let Some(why) = &self.broken {
            return (SmimeResult::PermError, format!("broken S/MIME: {why}"), None);
        }
        let standings = || self.outer.iter().chain(self.inner.iter().map(|(standing, _)| standing));
        if let Some(why) = standings().find_map(|one| match one {
            Standing::Bad(why) => Some(why.clone()),
            _ => None,
        }) {
            return (SmimeResult::Fail, why, None);
        }
        if let Some(signer) = self.inner.iter().find_map(|(_, signer)| signer.clone()) {
            self.note_others(&signer);
            return (SmimeResult::Pass, format!("signed by {}", signer.mailbox()), Some(signer));
        }
        if let Some((standing, _)) = self.inner.first() {
            return match standing {
                Standing::OtherAuthor(why) => (SmimeResult::Fail, why.clone(), None),
                Standing::Unaccepted(why) | Standing::Domain(why) => (SmimeResult::Policy, why.clone(), None),
                Standing::Unchecked(why) | Standing::Bad(why) => (SmimeResult::Neutral, why.clone(), None),
                Standing::Verified => (SmimeResult::Neutral, "the signature names nobody".into(), None),
            };
        }
        if !self.outer.is_empty() {
            let why = "the signature lies outside of the encryption: it says nothing of who wrote the content";
            return (SmimeResult::Neutral, why.into(), None);
        }
        if let Some(why) = &self.unopened {
            return (SmimeResult::Neutral, why.clone(), None);
        }
        let why = if self.decrypted { "encrypted, not signed" } else { "no S/MIME" };
        (SmimeResult::None, why.into(), None)
    }

    /// Signed layers beside the author's.
    fn note_others(&mut self, signer: &VerifiedSigner) {
        for (standing, other) in &self.inner {
            match (standing, other) {
                (Standing::Verified, Some(other)) if other.certificate() == signer.certificate() => {}
                (Standing::Verified, _) => {}
                (
                    Standing::OtherAuthor(why)
                    | Standing::Unaccepted(why)
                    | Standing::Domain(why)
                    | Standing::Unchecked(why)
                    | Standing::Bad(why),
                    _,
                ) => {
                    self.notes.push(format!("another signed layer: {why}"));
                }
            }
        }
    }
}

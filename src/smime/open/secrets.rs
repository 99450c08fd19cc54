//! Envelopes for secrets that sender and recipient share: passwords and key-encryption keys.

use super::Opener;
use crate::cms::error::CmsError;
use crate::keys::KeyAnswer;

/// Tries with shared secrets at most for the message: each may cost ten million iterations.
const SECRETS: usize = 8;

impl Opener {
    /// Tries the shared secrets on the envelope at hand; what opens closes it. The gateway has none: whoever has one may try it as often
    /// as he likes anyway, so that why it failed may be told.
    pub(super) fn try_secrets(&mut self) {
        let secrets = std::mem::take(&mut self.context.secrets);
        let mut tries = 0usize;
        for secret in &secrets {
            let mut index = 0usize;
            while let Some(envelope) = self.envelope.as_mut()
                && let Some(info) = envelope.data.as_ref().and_then(|data| data.recipients.get(index))
                && tries < SECRETS
            {
                index = index.saturating_add(1);
                match info.unwrap_shared(secret, envelope.content) {
                    None => continue,
                    Some(Ok(cek)) => {
                        envelope.secret_failed = Some("it could not be decrypted".to_owned());
                        self.take(Ok(KeyAnswer::Cek(cek)));
                    }
                    Some(Err(CmsError::Algorithm(why))) => envelope.secret_failed = Some(why),
                    Some(Err(_)) => envelope.secret_failed = Some("the shared secret is another one".to_owned()),
                }
                tries = tries.saturating_add(1);
            }
        }
        self.context.secrets = secrets;
    }
}

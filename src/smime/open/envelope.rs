//! The encrypted layer: which keys are tried, and what their answers open (A3, A30).

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Envelope, NAMED, ObjectKind, Opener, Shape, fresh, object_kind, shape, words};
use crate::cms::algorithm::{Digest, Legacy};
use crate::cms::enveloped::EnvelopedData;
use crate::cms::error::CmsError;
use crate::cms::signed::{self, CertificateId};
use crate::keys::{KeyAnswer, KeyError, KeyOperation};
use crate::mime::entity::{Entity, MimeLimits};
use crate::smime::verdict::Layer;

impl Opener {
    /// The next try at the envelope at hand; closes it when there is none.
    pub(super) fn next_operation(&mut self) -> Option<KeyOperation> {
        let envelope = self.envelope.as_mut()?;
        while let Some((index, key)) = envelope.candidates.pop_front() {
            if self.operations >= self.context.operations || self.used.contains(&key) {
                continue;
            }
            let Some(info) = envelope.data.as_ref().and_then(|data| data.recipients.get(index)) else { continue };
            let mut substitute = (self.substitute)();
            substitute.truncate(envelope.content.key_len());
            if let Ok(operation) = info.operation(key, envelope.content, substitute) {
                envelope.last = envelope.candidates.is_empty();
                self.used.push(key);
                self.operations = self.operations.saturating_add(1);
                return Some(operation);
            }
        }
        let unavailable = envelope.unavailable;
        let secret_failed = envelope.secret_failed.take();
        let tried = !self.used.is_empty();
        self.envelope = None;
        self.found.unavailable |= unavailable;
        let why = match (unavailable, tried) {
            (true, _) => "the key holder is not available".to_owned(),
            // One text whatever failed (A3, A4).
            (false, true) => "it could not be decrypted".to_owned(),
            (false, false) => secret_failed.unwrap_or_else(|| "it is encrypted to no key of this recipient".to_owned()),
        };
        self.close_layer(Err(why.clone()));
        self.found.unopened = Some(format!("encrypted: {why}"));
        self.current = None;
        None
    }

    /// An answer of the key holder: a CEK is tried at once.
    pub(super) fn take(&mut self, answer: Result<KeyAnswer, KeyError>) {
        let Some(envelope) = self.envelope.as_mut() else { return };
        let cek = match answer {
            Ok(KeyAnswer::Cek(cek)) => cek,
            Ok(KeyAnswer::Signature(_)) | Err(KeyError::Unknown | KeyError::Unsuitable(_) | KeyError::Rejected(_)) => {
                return;
            }
            Err(KeyError::Unavailable(_)) => {
                envelope.unavailable = true;
                return;
            }
        };
        let weak = envelope.data.as_ref().and_then(EnvelopedData::weakness);
        let opened = if envelope.last {
            // Nothing is tried after this: the ciphertext is not needed beside its content.
            self.message = self.message.undecoded();
            envelope.data.take().map(|data| data.open_last(&cek))
        } else {
            envelope.data.as_ref().map(|data| data.open(&cek))
        };
        let Some(Ok(plain)) = opened else { return };
        let Some(entity) = fresh::is_mime_entity(&plain, &self.context.mime) else { return };
        let authenticated = envelope.content.is_authenticated();
        self.found.weak.extend(weak);
        self.envelope = None;
        let digest = signed::digest(Digest::Sha256, &cek);
        self.found.cek_digests.extend(<[u8; 32]>::try_from(digest));
        self.close_layer(Ok(()));
        self.found.decrypted = true;
        self.found.cbc |= !authenticated;
        self.found.same_author_in(&plain, &self.author, &self.context.mime);
        self.found.seal_off();
        // What came out is not held beside what came in: the header is all that is still needed.
        if let Some(header) = self.message.header_alone(&self.context.mime) {
            self.message = header;
        }
        self.content = plain;
        self.lined = fresh::is_well_lined(&entity.raw);
        self.inside = true;
        self.decrypted = Some(entity.clone());
        self.rebuilt = None;
        self.current = Some(entity);
    }

    /// Sets the outcome of the encrypted layer at hand.
    fn close_layer(&mut self, result: Result<(), String>) {
        if let Some(Layer::Encrypted { outcome, .. }) = self.found.layers.last_mut() {
            *outcome = result;
        }
    }

    pub(super) fn enveloped(&mut self, object: &Bytes) -> bool {
        let data = match EnvelopedData::parse(object, self.context.legacy) {
            Ok(data) => data,
            Err(error) => {
                let why = format!("the envelope was refused: {error}");
                self.found.layers.push(Layer::Encrypted {
                    cipher: "unknown".into(),
                    authenticated: false,
                    recipients: Vec::new(),
                    outcome: Err(why.clone()),
                });
                match error {
                    CmsError::Algorithm(_) => self.found.unopened = Some(why),
                    _ => self.found.broken = Some(why),
                }
                return false;
            }
        };
        let mut candidates = VecDeque::new();
        for (index, info) in data.recipients.iter().enumerate() {
            let Some(id) = &info.id else { continue };
            // A30: the context's own keys and no others.
            if let Some(own) = self.context.keys.iter().find(|own| id.names(&own.certificate)) {
                candidates.push_back((index, own.key));
            }
        }
        self.found.notes.extend(data.odd.iter().take(8).map(|odd| format!("odd: {odd}")));
        self.found.layers.push(Layer::Encrypted {
            cipher: words::cipher(&data),
            authenticated: data.is_authenticated(),
            recipients: data
                .recipients
                .iter()
                .take(NAMED)
                .map(|info| words::recipient(info, &self.context.keys))
                .collect(),
            outcome: Err("not opened".into()),
        });
        self.envelope = Some(Envelope {
            content: data.content,
            data: Some(data),
            candidates,
            unavailable: false,
            secret_failed: None,
            last: false,
        });
        self.try_secrets();
        true
    }
}

/// The envelope that a message is, unopened: algorithms and RecipientInfos. `None` where the root is no envelope, or one that
/// is broken or of an algorithm that is refused.
pub fn envelope(message: &Entity, limits: &MimeLimits, legacy: Legacy) -> Option<EnvelopedData> {
    match shape(message, limits) {
        Ok(Shape::Pkcs7 { object }) if object_kind(&object) == Some(ObjectKind::Enveloped) => {
            EnvelopedData::parse(&object, legacy).ok()
        }
        _ => None,
    }
}

/// Which certificates an encrypted message names, without opening it: for A32 and for `message show`. `None` where it is not
/// encrypted in the strict sense: the CMS parses, and its content encryption is in the table, nothing weak.
pub fn recipient_ids(message: &Entity, limits: &MimeLimits) -> Option<Vec<CertificateId>> {
    let envelope = envelope(message, limits, Legacy::default())?;
    Some(envelope.recipients.into_iter().filter_map(|info| info.id).collect())
}

//! The compressed layer (RFC 3274, RFC 8551 section 3.6).

use bytes::Bytes;

use super::judge::{self, Standing};
use super::{Findings, Opener, fresh};
use crate::address::Mailbox;
use crate::cms::compressed::{CompressedData, RATIO};
use crate::cms::error::CmsError;
use crate::mime::entity::MimeLimits;
use crate::smime::verdict::Layer;

impl Opener {
    /// Decompression is no secret and no proof: a signature outside still covers what comes out, an encryption outside too.
    pub(super) fn compressed(&mut self, object: &Bytes) -> bool {
        let limit = self.context.decompressed.min(self.received.saturating_mul(RATIO));
        let data = match CompressedData::parse(object).and_then(|data| Ok((data.open(limit)?, data))) {
            Ok(data) => data,
            Err(error) => {
                let why = format!("the compressed data was refused: {error}");
                self.found.layers.push(Layer::Compressed { outcome: Err(why.clone()) });
                match error {
                    CmsError::Algorithm(_) => self.found.unopened = Some(why),
                    _ => self.found.broken = Some(why),
                }
                return false;
            }
        };
        let (content, data) = data;
        self.found.notes.extend(data.odd.iter().take(8).map(|odd| format!("odd: {odd}")));
        let Some(entity) = fresh::is_mime_entity(&content, &self.context.mime) else {
            let why = "what was compressed is no MIME entity";
            self.found.layers.push(Layer::Compressed { outcome: Err(why.into()) });
            self.found.broken = Some(why.into());
            return false;
        };
        let directly = self.found.layers.iter().rev().find(|layer| !matches!(layer, Layer::Compressed { .. }));
        let encrypted_alone = matches!(directly, Some(Layer::Encrypted { .. }));
        self.found.layers.push(Layer::Compressed { outcome: Ok(()) });
        self.found.same_author_in(&content, &self.author, &self.context.mime);
        self.inside = encrypted_alone;
        if encrypted_alone {
            // What was decrypted is delivered as it was before it was compressed: few mail programs could.
            self.lined = fresh::is_well_lined(&entity.raw);
            self.decrypted = Some(entity.clone());
        }
        self.content = content;
        self.current = Some(entity);
        true
    }
}

impl Findings {
    /// A7 for what a further layer under a signature has inside: it must not show another author either.
    pub(super) fn same_author_in(&mut self, content: &Bytes, author: &Result<Mailbox, String>, limits: &MimeLimits) {
        if self.inner.is_empty() {
            return;
        }
        let Err(why) = judge::names_no_other(content, author, limits) else { return };
        for (standing, signer) in &mut self.inner {
            if signer.take().is_some() || matches!(standing, Standing::Domain(_)) {
                *standing = Standing::OtherAuthor(why.clone());
            }
        }
        self.domain = None;
        self.announced.clear();
    }
}

//! Signed layers in both forms (RFC 8551 section 3.5), and what is delivered of them.

use bytes::Bytes;

use super::judge::{self, Standing};
use super::{Opener, fresh};
use crate::cms::algorithm::Digest;
use crate::cms::signed::{self, SignedData};
use crate::mime::entity::Entity;
use crate::mime::rope::Rope;
use crate::smime::seal;
use crate::smime::verdict::Layer;

impl Opener {
    pub(super) fn clear_signed(&mut self, content: Entity, signature: &Bytes, micalg: Option<&str>) -> bool {
        let data = match SignedData::parse(signature) {
            Ok(data) => data,
            Err(error) => {
                self.found.layers.push(Layer::Signed { clear: true, signers: Vec::new() });
                self.found.broken = Some(format!("the signature cannot be read: {error}"));
                return false;
            }
        };
        self.note_micalg(&data, micalg);
        // A7: a detached signature carries no content, or it may be a signature over something else than what is shown.
        let refused =
            data.econtent.is_some().then(|| "a detached signature that carries content of its own".to_owned());
        let (content, lined) = self.as_signed(content, &data);
        self.signed_layer(true, &data, &content.raw, refused);
        self.rebuild(
            |digest| {
                let boundary = seal::boundary(signed::digest(Digest::Sha256, signature).get(..18).unwrap_or_default());
                let free = memchr::memmem::find(&content.raw, boundary.as_bytes()).is_none();
                let content = Rope::from(content.raw.clone());
                let micalg = digest.micalg();
                free.then(|| (seal::multipart_signed_with(content, signature.clone(), micalg, &boundary), lined))
            },
            &data,
        );
        self.content = content.raw.clone();
        self.current = Some(content);
        true
    }

    fn note_micalg(&mut self, data: &SignedData, micalg: Option<&str>) {
        let Some(said) = micalg else { return };
        let said: String = said.chars().filter(|one| one.is_ascii_alphanumeric()).collect();
        for digest in data.signers.iter().filter_map(|signer| signer.digest) {
            let name: String = digest.micalg().chars().filter(|one| *one != '-').collect();
            if !said.contains(&name) {
                self.found.notes.push(format!("micalg names another digest than the signature's {}", digest.name()));
            }
        }
    }

    pub(super) fn opaque_signed(&mut self, object: &Bytes) -> bool {
        let data = match SignedData::parse(object) {
            Ok(data) => data,
            Err(error) => {
                self.found.layers.push(Layer::Signed { clear: false, signers: Vec::new() });
                self.found.broken = Some(format!("the signed data cannot be read: {error}"));
                return false;
            }
        };
        let Some(content) = data.econtent.clone() else {
            if data.signers.is_empty() {
                self.found.layers.push(Layer::Signed { clear: false, signers: Vec::new() });
                self.found.unopened = Some("certificates only: nothing is signed".into());
            } else {
                self.signed_layer(false, &data, &Bytes::new(), Some("the signed data carries no content".into()));
            }
            return false;
        };
        self.signed_layer(false, &data, &content, None);
        self.rebuild(|_| Some((seal::pkcs7_mime("signed-data", object.clone()), true)), &data);
        self.inside = false;
        self.content = content.clone();
        if data.econtent_type == judge::ID_DATA {
            self.current = Entity::parse(content, &self.context.mime).ok();
        }
        true
    }

    /// The signed part as its signature was made: inside a layer that was undone here lines may end in bare LF, while the
    /// signature is over the canonical form (RFC 8551 section 3.1.1). Gives also whether it is known to be well lined.
    fn as_signed(&mut self, content: Entity, data: &SignedData) -> (Entity, bool) {
        if self.found.layers.is_empty() {
            return (content, false);
        }
        if (self.inside && self.lined) || fresh::is_well_lined(&content.raw) {
            return (content, true);
        }
        let canonical = crate::mime::canonical::canonical_line_ends(&content.raw);
        let mut fits = |octets: &Bytes| {
            let judged = judge::judge(data, octets, &self.author, &self.context, &mut self.checks);
            !matches!(judged.standing, Standing::Bad(_))
        };
        if !fits(&content.raw) && fits(&canonical) {
            return (Entity::parse(canonical, &self.context.mime).unwrap_or(content), false);
        }
        (content, false)
    }

    /// CBC can be changed in transit around what is signed: preamble, fields, epilogue. So the outermost signed layer in it
    /// is written anew from the octets that were verified; the same each time.
    fn rebuild(&mut self, write: impl FnOnce(Digest) -> Option<(Rope, bool)>, data: &SignedData) {
        // A layer whose signature nobody could check covers nothing: the next one that fits is written in its place.
        let fits = match self.found.layers.last() {
            Some(Layer::Signed { signers, .. }) => signers.iter().any(|signer| signer.signature.is_ok()),
            _ => false,
        };
        if self.found.cbc && self.rebuilt.is_none() && fits {
            self.rebuilt = data.signers.first().and_then(|signer| signer.digest).and_then(write);
        }
    }

    /// Judges a signed layer and keeps what came out.
    fn signed_layer(&mut self, clear: bool, data: &SignedData, content: &Bytes, refused: Option<String>) {
        let mut judgement = judge::judge(data, content, &self.author, &self.context, &mut self.checks);
        if let Some(why) = refused {
            judgement.standing = Standing::Bad(why.clone());
            judgement.signer = None;
            judgement.domain = None;
            judgement.announced.clear();
            for report in &mut judgement.reports {
                report.signature = Err(why.clone());
            }
        }
        self.found.same_author_in(content, &self.author, &self.context.mime);
        self.found.notes.extend(data.odd.iter().take(8).map(|odd| format!("odd: {odd}")));
        for weak in judgement.reports.iter().flat_map(|report| &report.weak) {
            if !self.found.weak.contains(weak) {
                self.found.weak.push(weak.clone());
            }
        }
        self.found.announced.append(&mut judgement.announced);
        self.found.needs.append(&mut judgement.needs);
        self.found.layers.push(Layer::Signed { clear, signers: judgement.reports });
        if self.found.inner.is_empty() {
            self.found.domain = judgement.domain;
        }
        self.found.inner.push((judgement.standing, judgement.signer));
    }
}

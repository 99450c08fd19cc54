//! The end: the verdict and the message to deliver.

use bytes::Bytes;

use super::{Opened, Opener, addressed, fresh};
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::{Field, Header};
use crate::mime::rope::Rope;
use crate::smime::header_protection;

impl Opener {
    pub(super) fn finish(&mut self) -> Opened {
        let mut found = std::mem::take(&mut self.found);
        let cek_digests = std::mem::take(&mut found.cek_digests);
        let announced = std::mem::take(&mut found.announced);
        let needs = std::mem::take(&mut found.needs);
        let cbc = found.cbc;
        let mut verdict = found.verdict();
        let proven = verdict.signer.is_some() || verdict.domain.is_some();
        let rebuilt = self.rebuilt.take().filter(|_| cbc && proven);
        let message = self.deliverable(rebuilt, verdict.signer.is_some(), &mut verdict.notes);
        let announced = if verdict.signer.is_some() { announced } else { Vec::new() };
        let author = self.author.as_ref().ok();
        let signed = verdict.signer.as_ref();
        let addressed = signed.and_then(|_| addressed::addressed(&self.content, author, &self.context.mime));
        Opened {
            message,
            addressed,
            content: self.content.clone(),
            verdict,
            cek_digests,
            announced,
            needs,
            operations: self.operations,
        }
    }

    /// The message to deliver: see [`Opened::message`].
    fn deliverable(&self, rebuilt: Option<(Rope, bool)>, signed: bool, notes: &mut Vec<String>) -> Bytes {
        let (outer, limits) = (&self.message.header, &self.context.mime);
        let author = self.author.as_ref().ok();
        let content = Entity::parse(self.content.clone(), limits).ok();
        let protected =
            content.as_ref().map(|one| header_protection::replacing(one, author, limits)).unwrap_or_default();
        let unprotected = content.as_ref().map(|one| header_protection::unprotected(outer, one)).unwrap_or_default();
        if !unprotected.is_empty() {
            notes.push(format!("fields outside that are not under protection: {}", unprotected.join(", ")));
        }
        let Some(decrypted) = &self.decrypted else { return self.as_received(&protected, signed, notes) };
        if !protected.is_empty() {
            let names: Vec<&str> = protected.iter().map(Field::name).collect();
            notes.push(format!("fields under protection stand for the outer ones: {}", names.join(", ")));
        }
        let reread = match &rebuilt {
            Some((rope, true)) => return fresh::message_around(outer, &protected, rope),
            Some((rope, false)) => Entity::parse(rope.to_bytes(), limits).ok(),
            // Nothing signed lies between: what told of the protection goes with it.
            None if self.content.as_ptr() == decrypted.raw.as_ptr() => {
                header_protection::wrapped(decrypted, author, limits)
                    .or_else(|| header_protection::without_display(decrypted, limits))
            }
            None => None,
        };
        let (message, note) = match &reread {
            Some(entity) => fresh::message(outer, &protected, entity, false, limits),
            None => fresh::message(outer, &protected, decrypted, self.lined, limits),
        };
        notes.extend(note.map(str::to_owned));
        message
    }

    /// Nothing was decrypted: the octets received. Fields under a valid signature take the place of outer ones that differ.
    fn as_received(&self, protected: &[Field], signed: bool, notes: &mut Vec<String>) -> Bytes {
        let outer = &self.message.header;
        let differs = |field: &&Field| outer.all(field.name()).all(|other| other.unfolded() != field.unfolded());
        let differing: Vec<Field> = protected.iter().filter(differs).cloned().collect();
        if differing.is_empty() {
            return self.message.raw.clone();
        }
        let names = differing.iter().map(Field::name).collect::<Vec<_>>().join(", ");
        if !signed || !outer.defects.is_empty() {
            notes.push(format!("fields under the signature differ from those outside: {names}"));
            return self.message.raw.clone();
        }
        notes.push(format!("fields under the signature stand for the outer ones, which differ: {names}"));
        fresh::with_fields(&self.message, &differing)
    }
}

/// What was signed in place of the signed message: outer fields that are not MIME's, then the MIME fields and the body of `content`,
/// and nothing else of its header: there the signer could have put what only we may say (A8). Its lines are well-formed
/// (A16). `None`: the header of `content` can be read two ways (A14).
pub fn unwrapped(outer: &Header, content: &Bytes, limits: &MimeLimits) -> Option<Bytes> {
    let inner = Entity::parse(content.clone(), limits).ok().filter(|inner| inner.header.defects.is_empty())?;
    let author = outer.single_from().ok();
    let protected = header_protection::replacing(&inner, author.as_ref(), limits);
    let bare = header_protection::wrapped(&inner, author.as_ref(), limits)
        .or_else(|| header_protection::without_display(&inner, limits));
    Some(fresh::message(outer, &protected, bare.as_ref().unwrap_or(&inner), false, limits).0)
}

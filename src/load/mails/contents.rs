//! What mails say: made up, or real mails of a folder or an mbox. A pool that all mails of a run draw from; memory is bounded by it.

/// Texts, HTML and attachments of a size.
mod made;
/// Real mails.
pub(in crate::load) mod real;

use bytes::{Bytes, BytesMut};

use super::sizes;
use crate::load::random::Random;
use crate::load::scenario::{Contents, Scenario};

/// Octets of all contents that are kept.
const ROOM: usize = 96 << 20;
/// Contents of a made pool at most, and where all have one size.
const MADE: (usize, usize) = (512, 16);

/// A MIME entity with a place for the mail's own mark, where it has one.
#[derive(Debug, Clone)]
pub(in crate::load) struct Template {
    /// From MIME-Version on; with the empty line, and the body up to the mark.
    head: Bytes,
    /// After the mark.
    tail: Bytes,
    /// Where in `head` the body begins.
    body: usize,
    /// Whether the mark is put in: real mails stay as they are.
    marked: bool,
    subject: bool,
}

impl Template {
    /// Where the mark stands is after `head`. `None`: there is no empty line in `head`.
    fn new(head: Bytes, tail: Bytes, marked: bool) -> Option<Self> {
        let body = memchr::memmem::find(&head, b"\r\n\r\n")? + 4;
        let mut lines = head.get(..body)?.split(|octet| *octet == b'\n');
        let subject = lines.any(|line| line.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"subject:")));
        Some(Self { head, tail, body, marked, subject })
    }

    /// Whether it brings a Subject.
    pub(in crate::load) fn has_subject(&self) -> bool {
        self.subject
    }

    fn mark<'m>(&self, mark: &'m str) -> &'m [u8] {
        if self.marked { mark.as_bytes() } else { b"" }
    }

    /// Octets with a mark of this length.
    pub(in crate::load) fn len(&self, mark: usize) -> usize {
        self.head.len().saturating_add(self.tail.len()).saturating_add(if self.marked { mark } else { 0 })
    }

    pub(in crate::load) fn write(&self, mark: &str, out: &mut BytesMut) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(self.mark(mark));
        out.extend_from_slice(&self.tail);
    }

    /// The whole entity.
    pub(in crate::load) fn entity(&self, mark: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len(mark.len()));
        self.write(mark, &mut out);
        out.freeze()
    }

    /// Whether this is the body, octet for octet.
    pub(in crate::load) fn is_body(&self, mark: &str, body: &[u8]) -> bool {
        let start = self.head.get(self.body..).unwrap_or_default();
        let rest = body.strip_prefix(start).and_then(|rest| rest.strip_prefix(self.mark(mark)));
        rest.is_some_and(|rest| rest == self.tail)
    }
}

/// The pool.
#[derive(Debug)]
pub(in crate::load) struct Pool {
    templates: Vec<Template>,
    /// What people should know of it.
    pub(in crate::load) notes: Vec<String>,
}

impl Pool {
    /// Makes or reads the contents; blocking. `Err`: there is none.
    pub(in crate::load) fn new(scenario: &Scenario) -> Result<Self, String> {
        match &scenario.contents {
            Contents::Made => Ok(Self { templates: made_pool(scenario), notes: Vec::new() }),
            Contents::Folder(folder) => real::folder(folder, ROOM),
            Contents::Mbox(file) => real::mbox(file, ROOM),
        }
    }

    pub(in crate::load) fn len(&self) -> usize {
        self.templates.len()
    }

    /// One of them, whatever the number.
    pub(in crate::load) fn get(&self, number: usize) -> Option<&Template> {
        self.templates.get(number.checked_rem(self.templates.len())?)
    }
}

/// Sizes at even quantiles of the distribution, so that a small pool has its shape; as many as there is room for.
fn made_pool(scenario: &Scenario) -> Vec<Template> {
    let sizes = |count: usize| -> Vec<usize> {
        let quantile = |at: usize| (at as f64 + 0.5) / count as f64;
        (0..count).map(|at| sizes::at(&scenario.sizes, quantile(at))).collect()
    };
    let all_alike = sizes::at(&scenario.sizes, 0.0) == sizes::at(&scenario.sizes, 0.999_999);
    let mut count = if all_alike { MADE.1 } else { MADE.0 };
    while count > 1 && sizes(count).into_iter().fold(0, usize::saturating_add) > ROOM {
        count = count.div_ceil(2);
    }
    let mut random = Random::of(scenario.seed, u64::MAX);
    sizes(count).into_iter().enumerate().filter_map(|(at, octets)| made::template(octets, at, &mut random)).collect()
}

#[cfg(test)]
mod tests;

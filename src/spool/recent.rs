//! Contents committed a moment ago, kept for their first delivery: most mail is handed over at once and need not be read back.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::EntryId;

/// Octets kept at most, all contents together.
const ALL: usize = 32 << 20;
/// Octets of one content beyond which it is read back.
const ONE: usize = 256 << 10;

/// The latest contents, each until it is taken once; when there is no room the oldest go.
#[derive(Default)]
pub(super) struct Recent {
    contents: BTreeMap<EntryId, Bytes>,
    octets: usize,
}

impl Recent {
    /// Whether a content of this size is worth being offered.
    pub(super) fn wants(size: usize) -> bool {
        size <= ONE
    }

    pub(super) fn keep(&mut self, id: EntryId, content: Bytes) {
        if !Self::wants(content.len()) {
            return;
        }
        self.octets = self.octets.saturating_add(content.len());
        self.contents.insert(id, content);
        while self.octets > ALL
            && let Some((_, oldest)) = self.contents.pop_first()
        {
            self.octets = self.octets.saturating_sub(oldest.len());
        }
    }

    pub(super) fn take(&mut self, id: EntryId) -> Option<Bytes> {
        let content = self.contents.remove(&id)?;
        self.octets = self.octets.saturating_sub(content.len());
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_taken_once() {
        let mut recent = Recent::default();
        recent.keep(EntryId(0), Bytes::from(vec![0; ONE + 1]));
        assert_eq!(recent.take(EntryId(0)), None, "too big");
        let count = u64::try_from(ALL / ONE).unwrap() + 10;
        for id in 1..=count {
            recent.keep(EntryId(id), Bytes::from(vec![0; ONE]));
        }
        assert!(recent.octets <= ALL && recent.contents.len() == ALL / ONE);
        assert_eq!(recent.take(EntryId(10)), None, "the oldest went");
        assert!(recent.take(EntryId(count)).is_some() && recent.take(EntryId(count)).is_none());
        while let Some(id) = recent.contents.keys().next().copied() {
            recent.take(id);
        }
        assert_eq!(recent.octets, 0);
    }
}

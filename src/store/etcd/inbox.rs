//! What the watch brought and is not taken in yet: bounded in octets, and never a part of what one change made.

use super::wire::{Event, WatchResponse};

/// Changes and octets taken in with one commit at most: each commit writes most of the tree's buckets.
pub(super) const BATCH: usize = 16_384;
pub(super) const BATCH_OCTETS: usize = 64 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Inbox {
    whole: Vec<Event>,
    /// Of a change of which more may come.
    begun: Vec<Event>,
    octets: usize,
}

/// The octets of what an answer brings.
pub(super) fn octets_of(answer: &WatchResponse) -> usize {
    answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.key.len() + kv.value.len()).sum()
}

fn revision_of(event: &Event) -> Option<i64> {
    event.kv.as_ref().map(|kv| kv.mod_revision)
}

impl Inbox {
    pub fn add(&mut self, answer: WatchResponse) {
        self.octets += octets_of(&answer);
        self.begun.extend(answer.events);
        // An answer in parts is many changes, parted anywhere: the last one here may go on in the next part.
        let open = self.begun.last().filter(|_| answer.fragment).map(revision_of);
        let whole = self.begun.iter().position(|event| Some(revision_of(event)) == open);
        self.whole.extend(self.begun.drain(..whole.unwrap_or(self.begun.len())));
    }

    /// Whether it is time to take in what is here.
    pub fn is_full(&self) -> bool {
        self.whole.len() >= BATCH || self.octets >= BATCH_OCTETS
    }

    /// Whole changes, in order.
    pub fn take(&mut self) -> Vec<Event> {
        let left = WatchResponse { events: std::mem::take(&mut self.begun), ..WatchResponse::default() };
        self.octets = octets_of(&left);
        self.begun = left.events;
        std::mem::take(&mut self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::etcd::wire::KeyValue;

    fn answer(revisions: &[i64], octets: usize, fragment: bool) -> WatchResponse {
        let event = |mod_revision: &i64| Event {
            kv: Some(KeyValue { mod_revision: *mod_revision, value: vec![0; octets].into(), ..KeyValue::default() }),
            ..Event::default()
        };
        WatchResponse { events: revisions.iter().map(event).collect(), fragment, ..WatchResponse::default() }
    }

    fn revisions(events: &[Event]) -> Vec<i64> {
        events.iter().filter_map(revision_of).collect()
    }

    #[test]
    fn a_change_is_taken_in_as_a_whole_however_its_answer_was_parted() {
        let mut inbox = Inbox::default();
        inbox.add(answer(&[4, 5, 5], 1, true));
        assert_eq!(revisions(&inbox.take()), [4], "more of 5 may come");
        inbox.add(answer(&[5], 1, true));
        assert_eq!(revisions(&inbox.take()), Vec::<i64>::new());
        inbox.add(answer(&[5, 6], 1, false));
        inbox.add(answer(&[7], 1, false));
        assert_eq!(revisions(&inbox.take()), [5, 5, 5, 5, 6, 7]);
        assert_eq!(revisions(&inbox.take()), Vec::<i64>::new(), "nothing twice");
    }

    #[test]
    fn few_changes_of_many_octets_are_a_batch() {
        let mut inbox = Inbox::default();
        inbox.add(answer(&[1], BATCH_OCTETS / 2, true));
        assert!(!inbox.is_full());
        inbox.add(answer(&[2], BATCH_OCTETS / 2, false));
        assert!(inbox.is_full());
        assert_eq!((inbox.take().len(), inbox.is_full()), (2, false));
        inbox.add(answer(&vec![3; BATCH], 0, false));
        assert!(inbox.is_full(), "and so are many small ones");
    }
}

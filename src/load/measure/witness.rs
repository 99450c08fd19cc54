//! Measures what a generator tells its witness.

use std::sync::Arc;
use std::time::Instant;

use super::{Class, Recorder, Stage};
use crate::load::generator::{Sending, Witness};
use crate::load::mails::Mail;

/// Hears along: records, and hands on to another witness.
///
/// Every mail that fell due counts in [`Stage::Answer`], whatever became of it: one that got no answer with the time until it was given
/// up, one that was not begun with the time it waited. Otherwise a target that answers half of them at once would look quick.
#[derive(Debug)]
pub struct Measured<W> {
    inner: Arc<W>,
    recorder: Arc<Recorder>,
}

impl<W> Measured<W> {
    /// Records to one, hands on to the other.
    pub fn new(inner: Arc<W>, recorder: Arc<Recorder>) -> Self {
        Self { inner, recorder }
    }
}

impl<W: Witness> Witness for Measured<W> {
    fn begun(&self, mail: &Mail, due: Instant) {
        self.inner.begun(mail, due);
    }

    fn ended(&self, mail: &Mail, sending: &Sending) {
        let Sending { due, began, ended, connect, answers } = sending;
        if let Some(connect) = connect {
            self.recorder.record(Stage::Connect, *ended, *connect);
        }
        self.recorder.record(Stage::Wait, *ended, began.saturating_duration_since(*due));
        self.recorder.record(Stage::Answer, *ended, ended.saturating_duration_since(*due));
        let octets = u64::try_from(mail.content.len()).unwrap_or(u64::MAX);
        self.recorder.answered(Class::of(answers), *ended, octets);
        self.inner.ended(mail, sending);
    }

    fn overdue(&self, due: Instant, end: Instant) {
        let waited = end.saturating_duration_since(due);
        self.recorder.record(Stage::Wait, end, waited);
        self.recorder.record(Stage::Answer, end, waited);
        self.inner.overdue(due, end);
    }

    fn broke(&self, at: Instant) {
        self.inner.broke(at);
    }
}

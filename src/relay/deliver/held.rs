//! Mail that policy holds for too long: promise 2 holds for it too.

use bytes::Bytes;
use jiff::Timestamp;

use super::dsn::Told;
use super::{Handover, OUT_OF_TIME_AT_ONCE, Transport, Verdict, Work, action, before};
use crate::smtp::command::Enhanced;
use crate::spool::{Entry, Outcome, RecipientState, SpooledRecipient, Treatment};

impl<T: Transport, H: Handover> Work<T, H> {
    /// Outbound mail that policy holds: its sender hears once that it waits and for what, and in the end that it was given up. Where nobody
    /// may be told, and where a person holds it, it stays. Says how many were too long here.
    pub(super) async fn held_too_long(&self, now: Timestamp) -> usize {
        let settings = self.settings.get();
        let (given_up, late) = (before(now, settings.retry.hold_expire), before(now, settings.retry.warn));
        let held = self.spool.held(OUT_OF_TIME_AT_ONCE, |entry| {
            let untold = entry.created < late && entry.delay_told.is_none() && self.hears_of_delay(entry);
            let by_policy = entry.treatment == Treatment::AsSubmitted && !entry.is_held_by_hand();
            by_policy && self.may_notify(entry).is_some() && (untold || entry.created < given_up)
        });
        for entry in &held {
            match self.spool.content(entry.id).await {
                Ok(content) => {
                    let outcome = self.held_outcome(entry, entry.created < given_up, &content, now);
                    // Once: what cannot be recorded now is tried again, and no delivery waits for it.
                    if let Err(error) = self.spool.settle(entry.id, outcome).await {
                        tracing::warn!(entry = %entry.id, %error, "outcome not recorded yet");
                    }
                }
                Err(error) => tracing::error!(entry = %entry.id, %error, "held mail cannot be read"),
            }
        }
        held.len()
    }

    fn held_outcome(&self, entry: &Entry, given_up: bool, content: &Bytes, now: Timestamp) -> Outcome {
        let why = entry.held.clone().unwrap_or_default();
        let verdict = |one: &SpooledRecipient| match (one.state.waits(), given_up) {
            (false, _) => None,
            (true, false) => Some(Verdict { status: Enhanced(4, 7, 5), ..Verdict::put_off(&format!("held: {why}")) }),
            (true, true) => Some(Verdict {
                state: RecipientState::Failed,
                status: Enhanced(5, 7, 5),
                ..Verdict::put_off(&format!("given up, never sent: {why}"))
            }),
        };
        let mut told = Vec::new();
        let mut recipients = Vec::with_capacity(entry.recipients.len());
        for one in &entry.recipients {
            let Some(verdict) = verdict(one) else {
                recipients.push((one.state, one.last.clone()));
                continue;
            };
            recipients.push((verdict.state, Some(verdict.text.clone())));
            if given_up {
                self.count(entry, &one.recipient.mailbox, &verdict);
            }
            if let Some(action) = action(&verdict, one.recipient.parameters.notify, !given_up) {
                told.push((action, Told { recipient: &one.recipient, verdict }));
            }
        }
        let sender = self.may_notify(entry);
        let new_entries = sender.map(|sender| self.reports(entry, sender, told, content, now)).unwrap_or_default();
        Outcome { recipients, next_attempt: entry.next_attempt, delay_told: (!given_up).then_some(now), new_entries }
    }
}

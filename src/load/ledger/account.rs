//! Adds up an account: what each recipient's mail came to, and where that is a fault.

use std::sync::atomic::Ordering;

use super::{AGAIN, Account, Answer, Cell, Fault, FaultKind, Faults, Ledger, SHARDS, lock, millis, note};
use crate::load::mails::MailId;

impl Ledger {
    /// The account as it stands. `sink`: what was taken had to arrive; `name`: the mail of a number, and its recipients.
    pub fn account(&self, sink: bool, name: impl Fn(u64) -> (MailId, Vec<String>)) -> Account {
        let mut account = Account { strangers: self.strangers.load(Ordering::Relaxed), ..Account::default() };
        let breaks = lock(&self.breaks).clone();
        let mut faults = Faults::default();
        {
            let found = lock(&self.faults);
            faults.found.clone_from(&found.found);
            faults.kept.clone_from(&found.kept);
        }
        for (shard, entries) in self.shards.iter().enumerate() {
            for (at, entry) in lock(entries).iter().enumerate() {
                for (recipient, cell) in entry.cells().iter().enumerate() {
                    let Some((what, why)) = judged(&mut account, cell, sink, &breaks) else { continue };
                    let number = (at as u64).saturating_mul(SHARDS as u64).saturating_add(shard as u64);
                    let (id, recipients) = name(number);
                    let recipient = recipients.get(recipient).cloned().unwrap_or_default();
                    faults.add(Fault { id: Some(id), recipient, what, why });
                }
            }
        }
        faults.kept.sort_by_key(|fault| (fault.what, fault.id.map(|id| id.number)));
        Account { found: faults.found, faults: faults.kept, ..account }
    }
}

/// Counts one recipient's mail; the fault it is.
fn judged(account: &mut Account, cell: &Cell, sink: bool, breaks: &[u32]) -> Option<(FaultKind, String)> {
    account.sent += 1;
    let came = cell.arrivals > 0;
    match cell.answer {
        Answer::Taken => account.taken += 1,
        Answer::Deferred => account.deferred += 1,
        Answer::Refused => account.refused += 1,
        // Its task fell over, or was cut off: nobody knows.
        Answer::Unknown | Answer::None => account.unknown += 1,
        Answer::NotSent => account.not_sent += 1,
    }
    let refused = cell.answer == Answer::Refused;
    account.refused_rightly += u64::from(refused && (cell.is(note::MAY_BE_REFUSED) || cell.is(note::SINK_REFUSED)));
    account.delivered += u64::from(came);
    account.bounced += u64::from(cell.is(note::BOUNCED));
    if cell.arrivals > 1 {
        let window = cell.first..=cell.first.saturating_add(millis(AGAIN));
        if breaks.iter().any(|at| window.contains(at)) {
            account.repeated += u64::from(cell.arrivals) - 1;
        } else {
            return Some((FaultKind::Doubled, format!("came {} times", cell.arrivals)));
        }
    }
    match cell.answer {
        Answer::Refused | Answer::NotSent if came => {
            let told = if refused { "answered 5xx" } else { "never sent whole" };
            Some((FaultKind::Misdelivered, format!("{told}, and came all the same")))
        }
        _ if came && cell.is(note::BOUNCED) => {
            Some((FaultKind::Doubled, "came, and its sender was told that it did not".into()))
        }
        Answer::Taken if !came && !cell.is(note::BOUNCED) && sink => {
            if cell.is_unheard() {
                account.unheard += 1;
                return None;
            }
            let why = match cell.is(note::SINK_REFUSED) {
                true => "refused by our sink, and its sender was not told",
                false => "taken, and neither delivered nor bounced",
            };
            Some((FaultKind::Lost, why.into()))
        }
        _ => None,
    }
}

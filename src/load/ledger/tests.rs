use bytes::Bytes;

use super::*;
use crate::address::{Mailbox, ReversePath};
use crate::load::scenario::Kind;
use crate::smtp::command::{Envelope, MailParameters, RcptParameters, Recipient};

fn mail(number: u64, recipients: usize) -> Mail {
    let recipient = |at: usize| Recipient {
        mailbox: Mailbox::parse(&format!("r{at}@x.example")).unwrap(),
        parameters: RcptParameters::default(),
    };
    let envelope = Envelope {
        reverse_path: ReversePath::Null,
        parameters: MailParameters::default(),
        recipients: (0..recipients).map(recipient).collect(),
    };
    Mail { id: MailId { run: 7, number }, kind: Kind::Plain, envelope, content: Bytes::new() }
}

fn name(number: u64) -> (MailId, Vec<String>) {
    (MailId { run: 7, number }, (0..3).map(|at| format!("r{at}@x.example")).collect())
}

/// A ledger with the mails 0 to 9, all of one recipient.
fn begun(heard: bool, may_be_refused: bool) -> Ledger {
    let ledger = Ledger::default();
    // In any order.
    for number in [3, 1, 0, 2, 9, 5, 4, 8, 7, 6] {
        ledger.begun(&mail(number, 1), Instant::now(), heard, may_be_refused);
    }
    ledger
}

fn faults(account: &Account) -> Vec<(u64, FaultKind)> {
    account.faults.iter().map(|fault| (fault.id.unwrap().number, fault.what)).collect()
}

#[test]
fn an_entry_is_small() {
    assert_eq!((std::mem::size_of::<Entry>(), std::mem::size_of::<Cell>()), (32, 8));
}

#[test]
fn taken_and_delivered_is_good_and_open_until_then() {
    let ledger = begun(true, false);
    // The arrival may come before the answer.
    for number in 0..5 {
        assert!(ledger.arrived(number, 0, Instant::now()).is_some());
    }
    assert_eq!(ledger.open(), 0);
    for number in 0..10 {
        ledger.ended(number, &[Answered::Taken]);
    }
    assert_eq!(ledger.open(), 5);
    let early = ledger.account(true, name);
    assert_eq!(faults(&early), (5..10).map(|number| (number, FaultKind::Lost)).collect::<Vec<_>>());
    assert_eq!(ledger.account(false, name).faults, [], "without a sink nothing has to arrive");
    for number in 5..10 {
        ledger.arrived(number, 0, Instant::now());
    }
    let account = ledger.account(true, name);
    assert_eq!((account.sent, account.taken, account.delivered, ledger.open()), (10, 10, 10, 0));
    assert!(account.is_good());
    assert_eq!(ledger.arrived(1_000_000, 0, Instant::now()), None, "never begun");
    assert_eq!((ledger.recipients(3), ledger.recipients(10)), (1, 0));
}

#[test]
fn what_comes_again_is_doubled_unless_the_target_was_cut_off_soon_after() {
    let ledger = begun(true, false);
    let at = |millis| ledger.start + Duration::from_millis(millis);
    for number in 0..4 {
        ledger.ended(number, &[Answered::Taken]);
        ledger.arrived(number, 0, at(10_000 * number));
        assert_eq!(ledger.arrived(number, 0, at(100_000)), None);
    }
    // Five seconds after the first arrival of 1, just before that of 2.
    ledger.broke(at(15_000));
    ledger.broke(at(19_999));
    let account = ledger.account(true, name);
    let doubled: Vec<u64> =
        faults(&account).iter().filter(|(_, what)| *what == FaultKind::Doubled).map(|(n, _)| *n).collect();
    assert_eq!((doubled, account.repeated), (vec![0, 2, 3], 1));
    assert_eq!(account.delivered, 4, "recipients, not arrivals");
}

#[test]
fn without_an_answer_both_is_right_and_with_a_refusal_nothing_may_come() {
    let ledger = begun(true, false);
    let why = || "why".to_owned();
    ledger.ended(0, &[Answered::Unknown(why())]);
    ledger.ended(1, &[Answered::Unknown(why())]);
    ledger.ended(2, &[Answered::Deferred(why())]);
    ledger.ended(3, &[Answered::Refused(why())]);
    ledger.ended(4, &[Answered::Refused(why())]);
    ledger.ended(5, &[Answered::NotSent(why())]);
    ledger.ended(6, &[Answered::NotSent(why())]);
    for number in [1, 2, 4, 6] {
        ledger.arrived(number, 0, Instant::now());
    }
    let account = ledger.account(true, name);
    assert_eq!(faults(&account), [(4, FaultKind::Misdelivered), (6, FaultKind::Misdelivered)]);
    // 7 to 9 were never answered.
    assert_eq!((account.unknown, account.deferred, account.refused, account.not_sent), (5, 1, 2, 2));
    assert_eq!((account.refused_rightly, account.delivered), (0, 4));
    assert!(!account.is_good());
}

#[test]
fn a_bounce_settles_and_contradicts_a_delivery() {
    let ledger = begun(true, false);
    for number in 0..10 {
        ledger.ended(number, &[Answered::Taken]);
        ledger.bounced(number, 0);
    }
    assert_eq!(ledger.open(), 0);
    ledger.arrived(4, 0, Instant::now());
    let account = ledger.account(true, name);
    assert_eq!((faults(&account), account.bounced), (vec![(4, FaultKind::Doubled)], 10));
}

#[test]
fn what_our_sink_refused_has_to_be_told_where_the_report_comes_to_us() {
    for (heard, lost, unheard) in [(true, 1, 0), (false, 0, 1)] {
        let ledger = begun(heard, false);
        for number in 0..10 {
            ledger.arrived(number, 0, Instant::now());
        }
        let one = Ledger::default();
        one.begun(&mail(0, 1), Instant::now(), heard, false);
        one.refused_by_sink(0, 0);
        one.ended(0, &[Answered::Taken]);
        assert_eq!(one.open(), lost);
        let account = one.account(true, name);
        assert_eq!((faults(&account).len() as u64, account.unheard), (lost, unheard));
        // Straight through, the refusal is the target's answer.
        one.ended(0, &[Answered::Refused("554".into())]);
        assert_eq!((one.account(true, name).refused_rightly, one.account(true, name).is_good()), (1, true));
    }
}

#[test]
fn each_recipient_has_an_account_of_his_own() {
    let ledger = Ledger::default();
    ledger.begun(&mail(70, 3), Instant::now(), true, true);
    ledger.ended(70, &[Answered::Taken, Answered::Refused("550".into()), Answered::Taken]);
    ledger.arrived(70, 0, Instant::now());
    assert_eq!(ledger.open(), 1);
    let account = ledger.account(true, name);
    assert_eq!((account.sent, account.taken, account.refused, account.refused_rightly), (3, 2, 1, 1));
    assert_eq!(account.faults.len(), 1);
    assert_eq!((account.faults[0].id.unwrap().number, account.faults[0].recipient.as_str()), (70, "r2@x.example"));
}

#[test]
fn faults_are_counted_when_they_are_too_many_to_keep() {
    let ledger = Ledger::default();
    for number in 0..FAULTS_KEPT as u64 + 500 {
        ledger.begun(&mail(number, 1), Instant::now(), true, false);
        ledger.ended(number, &[Answered::Taken]);
    }
    let account = ledger.account(true, name);
    assert_eq!((account.faults.len(), account.found[&FaultKind::Lost]), (FAULTS_KEPT, FAULTS_KEPT as u64 + 500));
}

#[test]
fn latency_counts_from_when_a_mail_was_due() {
    let ledger = Ledger::default();
    let due = ledger.start + Duration::from_millis(1_234);
    ledger.begun(&mail(0, 1), due, true, false);
    assert_eq!(ledger.arrived(0, 0, due + Duration::from_millis(766)), Some(Duration::from_millis(766)));
}

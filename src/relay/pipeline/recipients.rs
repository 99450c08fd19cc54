//! RCPT: who is let in, which way his mail goes, and what the next hop says of him (R2).

use super::{Accepted, Cut, Inner, Transaction};
use crate::address::{Mailbox, ReversePath};
use crate::config::Delivery;
use crate::metrics::{Metered, Reason};
use crate::relay::hop::Begun;
use crate::relay::listen::Peer;
use crate::relay::refusal::Refusal;
use crate::relay::route;
use crate::smtp::command::{Enhanced, MailParameters, Recipient, Reply};

impl Inner {
    /// RCPTs' answers: the next hop's, where the message may go straight through (R2). It is told of recipients together who come together.
    pub(super) async fn rcpts(&self, transaction: &mut Transaction, recipients: Vec<Recipient>) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(recipients.len());
        let mut together = Vec::new();
        for recipient in recipients {
            let accepted = self.accepted(&transaction.peer, recipient);
            let along = accepted.as_ref().is_ok_and(|one| self.goes_along(transaction, one));
            if !along {
                self.ask_next_hop(transaction, std::mem::take(&mut together), &mut replies).await;
            }
            match accepted {
                Err(refusal) => replies.push(self.metrics.refused(&refusal)),
                Ok(one) if along => together.push(one),
                Ok(one) => match self.turn(transaction, &one).await {
                    Ok(()) => together.push(one),
                    Err(refusal) => {
                        self.metrics.refusals.one(Reason::NextHop);
                        replies.push(refusal);
                    }
                },
            }
        }
        self.ask_next_hop(transaction, together, &mut replies).await;
        replies
    }

    /// A recipient whom we let in, and which way his mail goes.
    fn accepted(&self, peer: &Peer, recipient: Recipient) -> Result<Accepted, Refusal> {
        self.within_rate(peer, Metered::Recipients)?;
        let direction = route::direction(&self.config, peer, &recipient.mailbox)?;
        Ok(Accepted { recipient, direction })
    }

    /// Whether his mail goes where that of the recipients before him goes straight through to.
    fn goes_along(&self, transaction: &Transaction, Accepted { recipient, direction }: &Accepted) -> bool {
        let Cut::Open(begun, (open, target)) = &transaction.cut else { return false };
        // The report that it was handed on is ours to write, with what the spool knows (RFC 3461 section 5.2.2).
        let ours = !begun.offers().dsn && self.reports_success(&transaction.reverse_path, recipient);
        !ours && open == direction && *target == self.config.target(*direction, recipient.mailbox.domain())
    }

    /// Begins to go straight through where nothing is begun yet; where this recipient's mail does not go along, the spool takes the message.
    async fn turn(&self, transaction: &mut Transaction, one: &Accepted) -> Result<(), Reply> {
        if self.config.delivery == Delivery::Queue {
            transaction.cut = Cut::Spool;
        }
        if matches!(transaction.cut, Cut::NotBegun) {
            let direction = one.direction;
            let client = self.told_of(&transaction.peer, &transaction.parameters, &transaction.id, direction);
            let parameters = MailParameters { size: None, client, ..transaction.parameters.clone() };
            let target = self.config.target(direction, one.recipient.mailbox.domain());
            let begun = match self.hops.route(&target).await {
                Ok(route) => self.hops.begin(&route, transaction.reverse_path.clone(), parameters).await,
                // Nothing is begun: another recipient may go straight through.
                Err(refusal) if refusal.is_permanent() => return Err(refusal),
                Err(reply) => Begun::None(reply.to_string()),
            };
            match begun {
                Begun::Open(begun) => transaction.cut = Cut::Open(begun, (direction, target)),
                // Why was said once, by the hop's health.
                Begun::None(why) => {
                    tracing::debug!(why, id = transaction.id, "no next hop now; the spool takes the message");
                }
            }
        }
        if !self.goes_along(transaction, one) {
            transaction.cut = Cut::Spool;
        }
        Ok(())
    }

    /// What the next hop says of recipients who go along; nobody is asked where the spool takes the message.
    async fn ask_next_hop(&self, transaction: &mut Transaction, together: Vec<Accepted>, replies: &mut Vec<Reply>) {
        let before = replies.len();
        if let Cut::Open(begun, _) = &mut transaction.cut
            && !together.is_empty()
        {
            let recipients: Vec<_> = together.iter().map(|one| &one.recipient).collect();
            let (said, result) = begun.rcpts(&recipients).await;
            said.iter().filter(|reply| !reply.is_positive()).for_each(|_| self.metrics.refusals.one(Reason::NextHop));
            replies.extend(said);
            if let Err(error) = result {
                tracing::warn!(%error, id = transaction.id, "next hop lost at RCPT; the spool takes the message");
                transaction.cut = Cut::Spool;
            }
        }
        let good = || Reply::new(250, Enhanced(2, 1, 5), "recipient ok");
        replies.resize_with(before + together.len(), good);
        let taken = together.into_iter().zip(replies.iter().skip(before)).filter(|(_, reply)| reply.is_positive());
        transaction.recipients.extend(taken.map(|(one, _)| one));
    }

    /// Whether a sender of ours asks to hear of success.
    fn reports_success(&self, reverse_path: &ReversePath, recipient: &Recipient) -> bool {
        let ours = |sender: &Mailbox| self.config.domains.contains(sender.domain());
        recipient.parameters.notify.is_some_and(|notify| notify.success)
            && matches!(reverse_path, ReversePath::Mailbox(sender) if ours(sender))
    }
}

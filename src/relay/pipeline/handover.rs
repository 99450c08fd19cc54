//! Handing over: one output straight through (R2), everything else into the spool before the answer (R1, R3).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::event::Event;
use super::{Content, Cut, Inner, Message, Output, Treated};
use crate::address::Mailbox;
use crate::config::{Direction, NextHop, Target};
use crate::mime::rope::Rope;
use crate::relay::hop::{HopError, HopTransaction};
use crate::relay::listen::Answer;
use crate::relay::refusal::{Refusal, Unserved, accepted};
use crate::smtp::command::{Body, Enhanced, Envelope, MailParameters, Recipient, Reply};

/// The spool cannot take a message; the reason is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct QueueError {
    /// What the spool says.
    pub why: String,
    /// It did not answer in time.
    pub late: bool,
}

/// What the spool is given.
#[derive(Debug, Clone)]
pub struct QueueEntry {
    /// Id of the message it came from, for the log.
    pub id: String,
    pub envelope: Envelope,
    pub direction: Direction,
    pub hop: NextHop,
    pub content: Rope,
    /// The content is as received and is to be opened when it is handed over: see `Pipeline::open_received`.
    pub closed: bool,
    /// Kept until released; says why.
    pub held: Option<String>,
    /// Name of the listener it came in by.
    pub listener: String,
    /// The authenticated user who submitted it.
    pub user: Option<String>,
    /// His addresses, by a directory.
    pub sends_as: Arc<[Mailbox]>,
    /// It came from a trusted network.
    pub trusted: bool,
    /// The content is CMS-encrypted as it is.
    pub encrypted: bool,
    /// The next hop may have it already (R5).
    pub dup_possible: bool,
}

/// A commit under way.
pub type Committing<'q> = Pin<Box<dyn Future<Output = Result<(), QueueError>> + Send + 'q>>;

/// The spool as the pipeline sees it.
pub trait Queue: Send + Sync {
    /// Whether it takes mail now (R7).
    fn ready(&self) -> Result<(), QueueError>;
    /// Takes all entries or none; they are durable when it returns (R1).
    fn commit(&self, entries: Vec<QueueEntry>) -> Committing<'_>;
}

/// What came of going straight through.
enum Through {
    /// The next hop's word.
    Answered(Answer),
    /// The spool takes these recipients over.
    Spool { recipients: Vec<usize>, dup_possible: bool },
}

impl Inner {
    /// Hands over all outputs and gives the answer to the final dot.
    pub(super) async fn hand_over(&self, message: &Message, treated: Treated, cut: Cut, event: &mut Event) -> Answer {
        let Treated { outputs, refused, .. } = treated;
        match (cut, <[Output; 1]>::try_from(outputs)) {
            (Cut::Open(begun, _), Ok([output])) if refused.is_empty() && straight(&output, message) => {
                match self.go_through(message, *begun, &output, event).await {
                    Through::Answered(answer) => answer,
                    Through::Spool { recipients, dup_possible } => {
                        let rest = Output { recipients, ..output };
                        self.spool(message, vec![rest], &refused, dup_possible, event).await
                    }
                }
            }
            (_, Ok([output])) => self.spool(message, vec![output], &refused, false, event).await,
            (_, Err(outputs)) => self.spool(message, outputs, &refused, false, event).await,
        }
    }

    /// One output, one next hop: its answer is ours, unless it defers or is lost (R5). Silent for too long is 451 (R6).
    async fn go_through(
        &self,
        message: &Message,
        begun: HopTransaction,
        output: &Output,
        event: &mut Event,
    ) -> Through {
        let all = || output.recipients.clone();
        let data = tokio::time::timeout(self.config.limits.hop.all, begun.data(output.content.rope()));
        let replies = match data.await {
            Err(_) => {
                event.hop("silent");
                return Through::Answered(super::answer(
                    message.peer.listener.lmtp,
                    message.recipients.len(),
                    event.refuses(&Refusal::HopTimeout),
                ));
            }
            Ok(Err(error)) => {
                event.hop(&error.to_string());
                let dup_possible = matches!(error, HopError::Unknown { .. });
                return Through::Spool { recipients: all(), dup_possible };
            }
            Ok(Ok(replies)) => replies,
        };
        event.hop(&replies.first().map(words).unwrap_or_default());
        let taken = replies.iter().any(Reply::is_positive);
        let deferred: Vec<usize> = pick(output, &replies, Reply::is_transient);
        let refused: Vec<usize> = pick(output, &replies, Reply::is_permanent);
        if message.peer.listener.lmtp && deferred.is_empty() && replies.len() == output.recipients.len() {
            return Through::Answered(Answer::Each(replies));
        }
        match (taken, deferred.is_empty(), refused.is_empty()) {
            (true, true, true) | (false, true, false) => {
                if !taken {
                    event.refused_by_hop();
                }
                let reply = replies.into_iter().next().unwrap_or_else(|| event.refuses(&Refusal::Internal));
                Through::Answered(super::answer(message.peer.listener.lmtp, message.recipients.len(), reply))
            }
            // Never 4xx or 5xx after a downstream 2xx (R3): the spool tells the sender of those refused.
            (true, ..) => {
                Through::Spool { recipients: deferred.into_iter().chain(refused).collect(), dup_possible: false }
            }
            (false, ..) => Through::Spool { recipients: all(), dup_possible: false },
        }
    }

    /// All outputs durably, then 250; LMTP hears of those refused.
    async fn spool(
        &self,
        message: &Message,
        outputs: Vec<Output>,
        refused: &[(usize, crate::relay::refusal::Unserved)],
        dup_possible: bool,
        event: &mut Event,
    ) -> Answer {
        let lmtp = message.peer.listener.lmtp;
        let entries: Vec<QueueEntry> =
            outputs.into_iter().flat_map(|output| self.entries(message, output, dup_possible)).collect();
        event.spooled(entries.len());
        let reply = if entries.is_empty() {
            accepted()
        } else {
            match self.queue.commit(entries).await {
                Ok(()) => accepted(),
                Err(error) => {
                    tracing::error!(%error, id = message.id, "the spool did not take a message");
                    event.refuses(if error.late { &Refusal::SpoolTimeout } else { &Refusal::Spool })
                }
            }
        };
        if !lmtp {
            return Answer::All(reply);
        }
        let each = (0..message.recipients.len()).map(|at| match refused.iter().find(|(position, _)| *position == at) {
            Some((_, why)) => event.refuses(&Refusal::Unserved(vec![Unserved::clone(why)])),
            None => reply.clone(),
        });
        Answer::Each(each.collect())
    }

    /// An output as the spool takes it: an entry for each way that its recipients go; one for all where it is held.
    pub(super) fn entries(&self, message: &Message, output: Output, dup_possible: bool) -> Vec<QueueEntry> {
        let direction = output.direction;
        let whole = self.entry(message, output, dup_possible);
        if self.config.routes.is_empty() || whole.held.is_some() {
            return vec![whole];
        }
        let mut ways: Vec<(Target, Vec<Recipient>)> = Vec::new();
        for recipient in &whole.envelope.recipients {
            let target = self.config.target(direction, recipient.mailbox.domain());
            match ways.iter_mut().find(|(known, _)| *known == target) {
                Some((_, recipients)) => recipients.push(recipient.clone()),
                None => ways.push((target, vec![recipient.clone()])),
            }
        }
        let entry = |(target, recipients): (Target, Vec<Recipient>)| QueueEntry {
            hop: target.hop(),
            envelope: Envelope { recipients, ..whole.envelope.clone() },
            ..whole.clone()
        };
        ways.into_iter().map(entry).collect()
    }

    pub(super) fn entry(&self, message: &Message, output: Output, dup_possible: bool) -> QueueEntry {
        let recipients: Vec<Recipient> = output
            .recipients
            .iter()
            .filter_map(|at| message.recipients.get(*at))
            .map(|accepted| accepted.recipient.clone())
            .collect();
        let seven_bit = matches!(output.content, Content::Sealed(..));
        // Of mail that is treated anew it is known already.
        let client = match message.again {
            true => message.parameters.client.clone(),
            false => self.told_of(&message.peer, &message.parameters, &message.id, output.direction),
        };
        let parameters = MailParameters {
            size: None,
            client,
            body: if seven_bit { Body::SevenBit } else { message.parameters.body },
            ..message.parameters.clone()
        };
        let rope = output.content.rope().clone();
        let encrypted = match &output.content {
            Content::Sealed(sealed, _) => !sealed.encrypted_to().is_empty(),
            Content::Encrypted(..) => true,
            Content::Clear(..) | Content::Judged(_) | Content::Closed(_) | Content::Held(..) => false,
        };
        let (closed, held) = match output.content {
            Content::Closed(_) => (true, None),
            Content::Held(why, _) => (false, Some(why)),
            Content::Sealed(..) | Content::Clear(..) | Content::Encrypted(..) | Content::Judged(_) => (false, None),
        };
        QueueEntry {
            id: message.id.clone(),
            envelope: Envelope { reverse_path: message.reverse_path.clone(), parameters, recipients },
            direction: output.direction,
            hop: self.config.route(output.direction).best().clone(),
            content: rope,
            closed,
            held,
            listener: message.peer.listener.name.clone(),
            user: message.peer.user.clone(),
            sends_as: message.peer.sends_as.clone(),
            trusted: message.peer.trusted,
            encrypted,
            dup_possible,
        }
    }
}

/// R2: all recipients, one treatment, and no private key of a recipient's is to be tried (A4).
fn straight(output: &Output, message: &Message) -> bool {
    output.recipients.len() == message.recipients.len()
        && !matches!(output.content, Content::Closed(_) | Content::Held(..))
}

/// Recipients whose reply is of that kind; one reply may stand for all.
fn pick(output: &Output, replies: &[Reply], kind: impl Fn(&Reply) -> bool) -> Vec<usize> {
    let reply = |at: usize| replies.get(at).or(replies.last());
    let positions = output.recipients.iter().enumerate();
    positions.filter(|(at, _)| reply(*at).is_some_and(&kind)).map(|(_, recipient)| *recipient).collect()
}

fn words(reply: &Reply) -> String {
    let enhanced = reply
        .enhanced
        .map(|Enhanced(class, subject, detail)| format!("{class}.{subject}.{detail} "))
        .unwrap_or_default();
    format!("{} {enhanced}{}", reply.code, reply.lines.join(" / "))
}

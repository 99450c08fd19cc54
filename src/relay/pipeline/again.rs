//! Outbound mail that was held as submitted, treated by policy anew. What comes of it went through the same look-ups, the same
//! sealing and the same last look as mail that has just come: there is no other way for it to leave.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Accepted, Content, Message, Output, Pipeline, QueueEntry};
use crate::address::Mailbox;
use crate::config::{Direction, Listener};
use crate::metrics::Once;
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::rope::Rope;
use crate::relay::listen::Peer;
use crate::relay::refusal::Refusal;
use crate::smtp::command::Envelope;

/// A mail as it was submitted and held, and what policy asks of how it came.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Reverse-path, parameters, recipients.
    pub envelope: Envelope,
    /// Name of the listener it came in by.
    pub listener: String,
    /// The authenticated user who submitted it.
    pub user: Option<String>,
    /// His addresses, by a directory.
    pub sends_as: Arc<[Mailbox]>,
    /// It came from a trusted network.
    pub trusted: bool,
    /// The id of the mail in the log.
    pub log_id: String,
    /// The octets that were held.
    pub content: Bytes,
}

/// What policy makes of it now.
#[derive(Debug)]
pub struct Again {
    /// What takes its place: what may leave and, where some recipients still cannot be served, the mail for them, held. Empty:
    /// nobody can be served.
    pub entries: Vec<QueueEntry>,
    /// Of each recipient in order: how his mail leaves, or why it stays.
    pub fates: Vec<Result<String, String>>,
}

impl Pipeline {
    /// Treats held outbound mail by policy as it is now. Recipients who cannot be served stay, each with his reason; nobody is refused.
    ///
    /// # Errors
    /// The mail cannot be treated at all now: it stays as it is.
    pub async fn treat_submitted(&self, submitted: Submitted) -> Result<Again, Refusal> {
        let inner = &self.inner;
        let entity = Entity::parse(submitted.content.clone(), &MimeLimits::default())
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let message = Arc::new(self.message_again(&submitted, entity));
        inner.metrics.released.one(Once);
        let treated = inner.clone().treat(message.clone()).await?;
        let lost = || Err("policy says nothing of this recipient".to_owned());
        let mut fates: Vec<Result<String, String>> = message.recipients.iter().map(|_| lost()).collect();
        let mut leaves = Vec::new();
        for output in treated.outputs {
            let fate = match &output.content {
                Content::Held(why, _) => Err(why.clone()),
                content => Ok(content.describe()),
            };
            for at in &output.recipients {
                if let Some(one) = fates.get_mut(*at) {
                    one.clone_from(&fate);
                }
            }
            if fate.is_ok() {
                leaves.extend(inner.entries(&message, output, false));
            }
        }
        for (at, why) in treated.refused {
            if let Some(one) = fates.get_mut(at) {
                *one = Err(why.text);
            }
        }
        let stays: Vec<usize> = (0..fates.len()).filter(|at| fates.get(*at).is_some_and(Result::is_err)).collect();
        if !leaves.is_empty() && !stays.is_empty() {
            let content = Content::Held(reasons(&fates), Rope::from(submitted.content));
            let rest = Output { direction: Direction::Outbound, recipients: stays, content };
            leaves.push(inner.entry(&message, rest, false));
        }
        Ok(Again { entries: leaves, fates })
    }

    fn message_again(&self, submitted: &Submitted, entity: Entity) -> Message {
        let known = self.inner.config.listeners.iter().find(|listener| listener.name == submitted.listener).cloned();
        // The address it came from is not asked by any rule; whether it was trusted then is known.
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let listener = known.unwrap_or_else(|| Listener::new(submitted.listener.clone(), nowhere, Direction::Outbound));
        let peer = Peer {
            address: nowhere,
            helo: String::new(),
            extended: true,
            tls: false,
            // Each recipient on his own: nobody waits for an answer that has to be one for all.
            listener: Arc::new(Listener { lmtp: true, ..listener }),
            trusted: submitted.trusted,
            user: submitted.user.clone(),
            sends_as: submitted.sends_as.clone(),
            certified: true,
        };
        let outbound = |recipient: &crate::smtp::command::Recipient| Accepted {
            recipient: recipient.clone(),
            direction: Direction::Outbound,
        };
        Message {
            id: submitted.log_id.clone(),
            peer: Arc::new(peer),
            reverse_path: submitted.envelope.reverse_path.clone(),
            parameters: submitted.envelope.parameters.clone(),
            recipients: submitted.envelope.recipients.iter().map(outbound).collect(),
            entity,
            at: Timestamp::now(),
            began: Instant::now(),
            again: true,
            authentication: String::new(),
        }
    }
}

impl Again {
    /// Why those who stay stay.
    pub fn reasons(&self) -> String {
        reasons(&self.fates)
    }
}

/// Each reason once, cut to what people read.
fn reasons(fates: &[Result<String, String>]) -> String {
    let mut told: Vec<&str> = Vec::new();
    for why in fates.iter().filter_map(|fate| fate.as_ref().err()) {
        if !told.contains(&why.as_str()) {
            told.push(why);
        }
    }
    told.join("; ").chars().take(400).collect()
}

//! BDAT (RFC 3030): content in chunks that are counted, so that no octet of it can be taken for an end or for a command (A18).
//!
//! A BDAT that is refused is read all the same, since its octets follow whatever is answered; nothing of them is kept. Once content was
//! refused every further chunk is, up to the last one or RSET.

use super::{Event, Session, State, content_refusal, too_big};
use crate::smtp::command::{Enhanced, Reply};
use crate::smtp::data::{Framing, Piece};

/// The octets of one BDAT.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Those that are still to come.
    pub(super) left: u64,
    octets: u64,
    last: bool,
    /// Why it may not come now.
    refusal: Option<Reply>,
}

impl Session {
    pub(super) fn bdat<'a>(&mut self, octets: u64, last: bool) -> Option<Event<'a>> {
        let wrong = |text: &str| Some(Reply::new(503, Enhanced(5, 5, 1), text));
        let refusal = match &self.transaction {
            None => wrong("say MAIL first"),
            Some(_) if self.hello != Some(true) => wrong("BDAT wants EHLO"),
            Some(transaction) if transaction.accepted == 0 => wrong("no recipient was accepted"),
            Some(_) => None,
        };
        let refused = refusal.is_some();
        self.state = State::Chunk(Box::new(Chunk { left: octets, octets, last, refusal }));
        let (limit, line_ends) = (self.settings.message_size, self.line_ends);
        let Some(transaction) = self.transaction.as_mut().filter(|_| !refused) else {
            // The time for content holds for what is dropped too.
            return Some(Event::ContentStart(None));
        };
        let begins = transaction.chunks.is_none();
        let framing = transaction.chunks.get_or_insert_with(|| Box::new(Framing::counted(line_ends, limit)));
        if octets > limit.saturating_sub(framing.octets()) {
            transaction.refusal.get_or_insert(too_big(limit));
        }
        begins.then_some(Event::ContentStart(transaction.size.or(last.then_some(octets))))
    }

    /// Octets of the chunk, out of what is there.
    pub(super) fn chunk<'a>(&mut self, rest: &'a [u8]) -> (usize, Option<Event<'a>>) {
        let State::Chunk(chunk) = &mut self.state else { return (0, None) };
        let most = usize::try_from(chunk.left).unwrap_or(usize::MAX);
        let part = rest.get(..most).unwrap_or(rest);
        let wanted = self.transaction.as_mut().filter(|open| chunk.refusal.is_none() && open.refusal.is_none());
        let (octets, event) = match wanted.and_then(|transaction| transaction.chunks.as_mut()) {
            None => (part.len(), None),
            Some(framing) => match framing.step(part) {
                (octets, Piece::Content(content)) => (octets, Some(Event::Content(content))),
                (octets, Piece::More | Piece::End(_)) => (octets, None),
            },
        };
        chunk.left = chunk.left.saturating_sub(octets as u64);
        (octets, event)
    }

    /// All octets of the chunk are there: its answer; after the last one, the message. `None`: it is answered.
    pub(super) fn chunk_end<'a>(&mut self) -> Option<Event<'a>> {
        let State::Chunk(chunk) = std::mem::replace(&mut self.state, State::Commands) else { return None };
        if let Some(refusal) = chunk.refusal {
            return self.refuse(refusal);
        }
        let transaction = self.transaction.as_mut()?;
        let framing = transaction.chunks.as_mut()?;
        if chunk.last {
            return match framing.finish() {
                Piece::Content(content) if transaction.refusal.is_none() => {
                    self.state = State::Chunk(chunk);
                    Some(Event::Content(content))
                }
                Piece::End(end) => Some(self.content_end(end)),
                Piece::Content(_) | Piece::More => Some(self.content_end(Ok(0))),
            };
        }
        let fault = framing.fault();
        let told = transaction.failed;
        match transaction.refusal.clone().or_else(|| fault.as_ref().map(content_refusal)) {
            None => {
                let reply = Reply::new(250, Enhanced(2, 0, 0), format!("{} octets", chunk.octets));
                if chunk.octets == 0 {
                    return self.idle(reply);
                }
                self.command_reply(&reply);
                None
            }
            Some(reply) => {
                transaction.refusal = Some(reply.clone());
                transaction.failed = true;
                self.refuse(reply).or((!told).then_some(Event::Reset))
            }
        }
    }
}

//! Which way a recipient's mail goes. Default deny (A21).

use super::listen::Peer;
use super::refusal::Refusal;
use crate::address::Mailbox;
use crate::config::{Config, Direction};

/// Which way, and whether at all: inbound to our domains; outbound for trusted peers only. Never decided by a sender address.
pub fn direction(config: &Config, peer: &Peer, recipient: &Mailbox) -> Result<Direction, Refusal> {
    let ours = config.domains.contains(recipient.domain());
    let direction = match (peer.listener.direction, ours, peer.may_relay()) {
        (Direction::Outbound, _, true) | (Direction::ByRecipient, false, true) => Direction::Outbound,
        (Direction::Inbound | Direction::ByRecipient, true, _) => Direction::Inbound,
        _ => return Err(Refusal::RelayDenied(recipient.clone())),
    };
    // RFC 5321 3.3 and appendix F.2: a percent hack, a bang path or a quoted address could make the mail server relay on.
    if !peer.may_relay() && recipient.local().contains(['%', '!', '@']) {
        return Err(Refusal::HiddenRoute(recipient.clone()));
    }
    Ok(direction)
}

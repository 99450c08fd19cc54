//! Whether a mail is of the tenant that its listener is for (A31).

use bytes::Bytes;

use crate::config::Listener;
use crate::mime::entity::{Entity, MimeLimits};
use crate::relay::listen::Peer;
use crate::relay::refusal::Refusal;

/// Fields that are looked at for the secret: a cloud puts it on where it lets mail out, near the top.
const LOOKED_AT: usize = 200;

/// At MAIL: the client's certificate.
pub(super) fn certified(peer: &Peer) -> Result<(), Refusal> {
    let wanted = peer.listener.tenant.as_ref().is_some_and(|tenant| tenant.certificate.is_some());
    if wanted && !peer.certified {
        return Err(Refusal::NoTenant("this listener takes mail from a client with the tenant's certificate alone"));
    }
    Ok(())
}

/// At the final dot: the secret in the header. It goes no further: the mail is given without any field of that name.
pub(super) fn admitted(listener: &Listener, entity: Entity) -> Result<Entity, Refusal> {
    let Some(header) = listener.tenant.as_ref().and_then(|tenant| tenant.header.as_ref()) else { return Ok(entity) };
    let mut looked_at = entity.header.fields.iter().take(LOOKED_AT).filter(|field| field.is(&header.name));
    if !looked_at.any(|field| header.is(&field.unfolded())) {
        return Err(Refusal::NoTenant("this listener takes mail of its tenant alone, which says so in its header"));
    }
    let kept = entity.header.fields.iter().filter(|field| !field.is(&header.name));
    let mut octets = Vec::with_capacity(entity.raw.len());
    kept.for_each(|field| octets.extend_from_slice(&field.raw));
    octets.extend_from_slice(b"\r\n");
    octets.extend_from_slice(&entity.body);
    Entity::parse(Bytes::from(octets), &MimeLimits::default()).map_err(|error| Refusal::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Direction, Tenant, TenantCertificate};

    #[test]
    fn a31_without_the_tenants_certificate_no_mail_begins() {
        let certificate = TenantCertificate { names: Vec::new(), ca: "ca.pem".into() };
        let tenant = |certificate| Some(Tenant { header: None, certificate });
        for (tenant, certified_peer, good) in [
            (None, false, true),
            (tenant(None), false, true),
            (tenant(Some(certificate.clone())), false, false),
            (tenant(Some(certificate)), true, true),
        ] {
            let listener = Listener::new("l", "127.0.0.1:0".parse().unwrap(), Direction::Outbound);
            let peer = Peer {
                address: "192.0.2.1:25".parse().unwrap(),
                helo: "x".into(),
                extended: true,
                tls: true,
                listener: Arc::new(Listener { tenant, ..listener }),
                trusted: true,
                user: None,
                sends_as: Arc::default(),
                certified: certified_peer,
            };
            assert_eq!(certified(&peer).is_ok(), good);
        }
    }
}

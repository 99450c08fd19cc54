//! Validation of one path (RFC 5280 sections 6.1.2 to 6.1.5). Signatures, validity and what a CA alone can fail are checked while
//! the path is built.

use super::names::NameConstraints;
use super::policies::Policies;
use super::{PathError, PolicyDemand};
use crate::pki::certificate::Certificate;

/// Checks `path` (leaf first, without the anchor) under `anchor`. The anchor's own path length and name constraints hold too
/// (RFC 5937).
pub(super) fn check(path: &[&Certificate], anchor: &Certificate, demand: &PolicyDemand) -> Result<(), PathError> {
    let mut constraints = NameConstraints::default();
    let mut policies = Policies::new(path.len(), demand);
    let mut path_length = anchor.extensions().path_length.unwrap_or(u64::MAX);
    check_critical(anchor)?;
    constraints.add(anchor).map_err(|why| rule(anchor, why))?;
    for (left, certificate) in path.iter().enumerate().rev() {
        let is_leaf = left == 0;
        let self_issued = certificate.is_self_issued();
        let fail = |why: String| rule(certificate, why);
        check_critical(certificate)?;
        if is_leaf || !self_issued {
            constraints.check(certificate).map_err(fail)?;
        }
        policies.certificate(certificate, is_leaf, self_issued).map_err(fail)?;
        if is_leaf {
            break;
        }
        if certificate.version() != 3 {
            return Err(fail("a CA certificate of version 1 that is no anchor".to_owned()));
        }
        policies.prepare(certificate, self_issued).map_err(fail)?;
        constraints.add(certificate).map_err(fail)?;
        if !self_issued {
            path_length = path_length
                .checked_sub(1)
                .ok_or_else(|| fail("more CAs below one than its path length allows".to_owned()))?;
        }
        path_length = path_length.min(certificate.extensions().path_length.unwrap_or(u64::MAX));
    }
    let Some(leaf) = path.first() else { return Ok(()) };
    policies.wrap_up(leaf).map_err(|why| rule(leaf, why))
}

/// RFC 5280 4.2: a critical extension that is not processed is reason to refuse.
fn check_critical(certificate: &Certificate) -> Result<(), PathError> {
    match &certificate.extensions().unknown_critical {
        Some(oid) => Err(rule(certificate, format!("a critical extension that is not known here: {oid}"))),
        None => Ok(()),
    }
}

fn rule(certificate: &Certificate, rule: String) -> PathError {
    PathError::Rule { subject: certificate.subject_text(), rule }
}

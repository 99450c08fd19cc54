//! Which DKIM-Signature fields of a mail are worth a check, and the mail as they see it: its octets as received. What costs work is bounded
//! before it is begun; what proves nothing any more is not begun at all.

use mail_auth::AuthenticatedMessage;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::common::headers::Header as Parsed;
use mail_auth::dkim::Signature;

use super::results::{Finding, Method, Outcome};
use crate::address::Domain;
use crate::mime::entity::Entity;
use crate::mime::header::Field;

/// Octets of a header beyond which no signature over it is checked: each one canonicalizes what it signs anew.
const HEADER_MAX: usize = 256 * 1024;
/// Names in `h=`.
const NAMES_MAX: usize = 200;

/// A mail with the signatures that are to be checked.
pub struct Signed<'m> {
    pub(super) message: AuthenticatedMessage<'m>,
    /// Those that are not, and why.
    pub(super) refused: Vec<Finding>,
}

/// Reads the first `most` signatures, and hashes the body for them.
pub(super) fn read(entity: &Entity, most: usize) -> Signed<'_> {
    let mut message = AuthenticatedMessage { raw_message: &entity.raw, ..AuthenticatedMessage::default() };
    let mut refused = Vec::new();
    let mut fields = entity.header.all("DKIM-Signature");
    for field in fields.by_ref().take(most) {
        match worth(field, entity.header.raw.len()) {
            Ok(signature) => message.dkim_headers.push(Parsed::new(name_of(field), field.raw_value(), signature)),
            Err(finding) => refused.push(finding),
        }
    }
    let beyond = fields.count();
    if beyond > 0 {
        refused.push(unchecked(&format!("{beyond} more were not looked at")));
    }
    if message.dkim_headers.is_empty() {
        return Signed { message, refused };
    }
    message.headers = entity.header.fields.iter().map(|field| (name_of(field), field.raw_value())).collect();
    for signed in &message.dkim_headers {
        let (body, hash) = (signed.header.cb, HashAlgorithm::from(signed.header.a));
        let known = |(known, other, ..): &(_, _, u64, Vec<u8>)| *known == body && *other == hash;
        if !message.body_hashes.iter().any(known) {
            let digest = hash.hash(body.canonical_body(&entity.body, 0)).as_ref().to_vec();
            message.body_hashes.push((body, hash, 0, digest));
        }
    }
    Signed { message, refused }
}

impl Signed<'_> {
    /// Whether the body is the one that was signed.
    pub(super) fn is_intact(&self, signature: &Signature) -> bool {
        let hash = HashAlgorithm::from(signature.a);
        let same = |(body, other, _, digest): &(_, _, u64, Vec<u8>)| {
            *body == signature.cb && *other == hash && *digest == signature.bh
        };
        self.message.body_hashes.iter().any(same)
    }
}

/// What stands before the colon.
fn name_of(field: &Field) -> &[u8] {
    let end = field.raw.len().saturating_sub(field.raw_value().len()).saturating_sub(1);
    field.raw.get(..end).unwrap_or_default()
}

fn unchecked(why: &str) -> Finding {
    Finding::new(Method::Dkim, Outcome::Policy).because(why)
}

/// The signature of a field, where it can prove something.
fn worth(field: &Field, header: usize) -> Result<Signature, Finding> {
    if header > HEADER_MAX {
        return Err(unchecked("the header is too large"));
    }
    let unreadable = |_| Finding::new(Method::Dkim, Outcome::PermError).because("the signature cannot be read");
    let mut signature = Signature::parse(field.raw_value()).map_err(unreadable)?;
    if let Some((outcome, why)) = fault(&signature) {
        return Err(about(Finding::new(Method::Dkim, outcome).because(why), &signature));
    }
    // Neither reports to whom the mail names, nor others that it names as vouching.
    signature.r = false;
    signature.atps = None;
    Ok(signature)
}

fn fault(signature: &Signature) -> Option<(Outcome, &'static str)> {
    if signature.a == Algorithm::RsaSha1 {
        Some((Outcome::Policy, "rsa-sha1 proves nothing (RFC 8301)"))
    } else if signature.l > 0 {
        Some((Outcome::Policy, "l= leaves the end of the body unsigned"))
    } else if signature.h.len() > NAMES_MAX {
        Some((Outcome::Policy, "too many names in h="))
    } else if !signature.h.iter().any(|name| name.eq_ignore_ascii_case("from")) {
        Some((Outcome::PermError, "From is not signed"))
    } else if Domain::parse(&signature.d).is_err() {
        Some((Outcome::PermError, "d= is no domain"))
    } else {
        None
    }
}

/// A finding with what it is about: domain and selector, and the beginning of the signature, which tells several apart (RFC 6008).
pub(super) fn about(finding: Finding, signature: &Signature) -> Finding {
    use base64::Engine as _;
    let start = signature.b.get(..6).unwrap_or_default();
    finding
        .about("header.d", signature.d.clone())
        .about("header.s", signature.s.clone())
        .about("header.b", base64::engine::general_purpose::STANDARD.encode(start))
}

/// Fuzz body: whatever the mail, a few signatures at most are to be checked, each signs From, and what they sign can be written out.
#[doc(hidden)]
pub fn fuzz_signatures(data: &[u8]) {
    let limits = crate::mime::entity::MimeLimits::default();
    let Ok(entity) = Entity::parse(bytes::Bytes::copy_from_slice(data), &limits) else { return };
    let signed = read(&entity, 4);
    let message = &signed.message;
    assert!(message.dkim_headers.len() <= 4 && signed.refused.len() <= 5 && message.body_hashes.len() <= 4);
    for one in &message.dkim_headers {
        assert!(one.header.h.iter().any(|name| name.eq_ignore_ascii_case("from")) && one.header.h.len() <= NAMES_MAX);
        let mut octets = Vec::new();
        one.header.ch.canonicalize_headers(message.signed_headers(&one.header.h, one.name, one.value), &mut octets);
        let _ = signed.is_intact(&one.header);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mime::entity::MimeLimits;

    fn entity(text: &str) -> Entity {
        Entity::parse(Bytes::copy_from_slice(text.as_bytes()), &MimeLimits::default()).unwrap()
    }

    fn signature(tags: &str) -> String {
        format!(
            "DKIM-Signature: v=1; d=a.example; s=s; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAAAAAAAAAA; {tags}\r\n"
        )
    }

    fn outcome(tags: &str) -> Option<Outcome> {
        let entity = entity(&format!("{}From: x@a.example\r\n\r\n", signature(tags)));
        let signed = read(&entity, 8);
        assert_eq!(signed.refused.len() + signed.message.dkim_headers.len(), 1, "{tags}");
        signed.refused.first().map(|finding| finding.outcome)
    }

    #[test]
    fn what_proves_nothing_is_not_checked() {
        let names = vec!["from"; NAMES_MAX + 1].join(":");
        let cases = [
            ("a=rsa-sha256; h=From:To", None),
            ("a=ed25519-sha256; h=to:from", None),
            ("a=rsa-sha1; h=From", Some(Outcome::Policy)),
            ("a=rsa-sha256; h=From; l=1", Some(Outcome::Policy)),
            ("a=rsa-sha256; h=Subject", Some(Outcome::PermError)),
            ("a=rsa-sha256", Some(Outcome::PermError)),
            ("a=rsa-sha256; h=From; v=2", Some(Outcome::PermError)),
            (&format!("a=rsa-sha256; h={names}"), Some(Outcome::Policy)),
        ];
        for (tags, expected) in cases {
            assert_eq!(outcome(tags), expected, "{tags}");
        }
    }

    #[test]
    fn a_thousand_signatures_are_no_more_work_than_the_first_ones() {
        let text = format!("{}From: x@a.example\r\n\r\nbody\r\n", signature("a=rsa-sha256; h=From").repeat(1_000));
        let entity = entity(&text);
        let signed = read(&entity, 8);
        assert_eq!((signed.message.dkim_headers.len(), signed.message.body_hashes.len()), (8, 1));
        assert_eq!(signed.refused.len(), 1);
        assert!(signed.refused[0].why.contains("992 more"), "{:?}", signed.refused);
        let long = self::entity(&format!("X: {}\r\n{text}", "x".repeat(HEADER_MAX)));
        assert!(read(&long, 8).message.dkim_headers.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn the_fuzz_body_holds(name in "(DKIM-Signature|From|Subject)", value in "[ -~\r\n\t]{0,200}", octets in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            fuzz_signatures(&octets);
            fuzz_signatures(format!("{name}: {value}\r\nFrom: x@a.example\r\n\r\nbody\r\n").as_bytes());
            fuzz_signatures(format!("{}From: x@a.example\r\n{name}: {value}\r\n\r\n", signature(&format!("a=rsa-sha256; h=From;{value}"))).as_bytes());
        }
    }

    #[test]
    fn the_body_is_hashed_as_it_came() {
        let entity =
            entity(&format!("{}From: x@a.example\r\n\r\n", signature("a=rsa-sha256; h=From; c=relaxed/relaxed")));
        let signed = read(&entity, 8);
        assert!(signed.is_intact(&signed.message.dkim_headers[0].header), "the hash of nothing");
        let changed = self::entity(&String::from_utf8([&entity.raw[..], b"x\r\n"].concat()).unwrap());
        let signed = read(&changed, 8);
        assert!(!signed.is_intact(&signed.message.dkim_headers[0].header));
    }
}

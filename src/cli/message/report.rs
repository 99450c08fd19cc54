//! What was found in a message, for programs.

use serde_json::{Value, json};

use crate::cms::algorithm::{Capabilities, Digest};
use crate::cms::signed::{digest, digest_of};
use crate::pki::revocation::Status;
use crate::smime::open::Opened;
use crate::smime::verdict::{Layer, SignerReport, SmimeResult};

/// The word of RFC 8601.
pub fn word(result: SmimeResult) -> &'static str {
    match result {
        SmimeResult::Pass => "pass",
        SmimeResult::Fail => "fail",
        SmimeResult::None => "none",
        SmimeResult::Neutral => "neutral",
        SmimeResult::Policy => "policy",
        SmimeResult::TempError => "temperror",
        SmimeResult::PermError => "permerror",
    }
}

/// Octets in hexadecimal.
pub fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The report. `content_sha256` is taken after every CRLF is turned into LF, so that it does not depend on how a file was
/// kept; `content_sha256_crlf` over the octets that `--output` writes.
pub fn of_opened(opened: &Opened) -> Value {
    let verdict = &opened.verdict;
    json!({
        "verdict": word(verdict.result),
        "reason": verdict.reason,
        "signer": verdict.signer.as_ref().map(|signer| json!({
            "mailbox": signer.mailbox().to_string(),
            "certificate_sha256": hex(&signer.certificate().fingerprint()),
        })),
        "domain": verdict.domain.as_ref().map(|domain| json!({
            "domain": domain.domain().to_string(),
            "certificate_sha256": hex(&domain.certificate().fingerprint()),
        })),
        "decrypted": verdict.decrypted,
        "unauthenticated": verdict.unauthenticated,
        "layers": verdict.layers.iter().map(layer).collect::<Vec<_>>(),
        "weak": verdict.weak,
        "notes": verdict.notes,
        "content_sha256": hex(&digest_of(Digest::Sha256, without_cr(&opened.content))),
        "content_sha256_crlf": hex(&digest(Digest::Sha256, &opened.content)),
        "content_octets": opened.content.len(),
    })
}

/// CRLF turned into LF, in pieces.
fn without_cr(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(octets);
    std::iter::from_fn(move || {
        let left = rest?;
        let Some(at) = memchr::memmem::find(left, b"\r\n") else { return rest.take() };
        let (piece, after) = left.split_at_checked(at)?;
        rest = after.get(1..);
        Some(piece)
    })
}

fn layer(layer: &Layer) -> Value {
    match layer {
        Layer::Encrypted { cipher, authenticated, recipients, outcome } => json!({
            "kind": "encrypted",
            "cipher": cipher,
            "authenticated": authenticated,
            "recipients": recipients,
            "opened": outcome.is_ok(),
            "reason": outcome.as_ref().err(),
        }),
        Layer::Signed { clear, signers } => json!({
            "kind": "signed",
            "form": if *clear { "clear" } else { "opaque" },
            "signers": signers.iter().map(signer).collect::<Vec<_>>(),
        }),
        Layer::Compressed { outcome } => json!({
            "kind": "compressed",
            "opened": outcome.is_ok(),
            "reason": outcome.as_ref().err(),
        }),
    }
}

fn signer(signer: &SignerReport) -> Value {
    let certificate = signer.certificate.as_ref();
    json!({
        "subject": certificate.map(|one| one.subject_text()),
        "issuer": certificate.map(|one| one.issuer_text()),
        "serial": certificate.map(|one| hex(one.serial())),
        "addresses": certificate.map(|one| one.mailboxes().iter().map(ToString::to_string).collect::<Vec<_>>()),
        "certificate_sha256": certificate.map(|one| hex(&one.fingerprint())),
        "algorithm": signer.algorithm,
        "signing_time": signer.signing_time.map(|time| time.to_string()),
        "capabilities": signer.capabilities.as_ref().map(Capabilities::names),
        "encryption_key_preference": signer.prefers,
        "signature": said(&signer.signature.as_ref().map(|()| "good".to_owned())),
        "path": said(&signer.path.as_ref().map(|path| {
            path.chain().iter().map(|one| one.subject_text()).collect::<Vec<_>>().join(" < ")
        })),
        "revocation": signer.revocation.as_ref().map(|status| json!({
            "status": match status {
                Status::Good { .. } => "good",
                Status::Revoked { .. } => "revoked",
                Status::Unknown { .. } => "unknown",
            },
            "detail": status.to_string(),
        })),
        "weak": signer.weak,
        "countersigned": signer.countersigned,
        "from": said(&signer.matches_from.as_ref().map(ToString::to_string)),
    })
}

fn said(result: &Result<String, &String>) -> Value {
    match result {
        Ok(value) => json!({ "good": true, "value": value }),
        Err(why) => json!({ "good": false, "reason": why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_becomes_lf() {
        let of = |octets| without_cr(octets).collect::<Vec<_>>().concat();
        assert_eq!(of(b"a\r\nb\rc\r\r\n\n\r".as_slice()), b"a\nb\rc\r\n\n\r");
        assert_eq!((of(b""), of(b"\r\n"), of(b"x")), (b"".to_vec(), b"\n".to_vec(), b"x".to_vec()));
    }
}

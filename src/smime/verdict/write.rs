//! Our marks as header fields (RFC 8601, RFC 7281). Nothing of a certificate or a message gets in unescaped (A15).

use super::{Layer, Marks, SmimeResult, Verdict};
use crate::mime::header::{HeaderWriter, MimeError};

/// Characters of one quoted text at most.
const TEXT_MAX: usize = 400;
/// Notes written at most.
const NOTES_MAX: usize = 8;
/// Encrypted layers told of at most.
const LAYERS_MAX: usize = 8;

/// Authentication-Results, X-Waxwing-Signature and, where something was encrypted, X-Waxwing-Decrypted.
pub(super) fn fields(marks: &Marks, verdict: &Verdict) -> Vec<u8> {
    written(marks, verdict).unwrap_or_else(|_| {
        // Not reached with values escaped as below; if it were, the mark that promises nothing.
        format!("Authentication-Results: {}; smime=permerror\r\n", marks.authserv_id).into_bytes()
    })
}

fn written(marks: &Marks, verdict: &Verdict) -> Result<Vec<u8>, MimeError> {
    let mut writer = HeaderWriter::new();
    let result = effective(verdict);
    let mut value = format!("{}; smime={}", marks.authserv_id, result);
    if !verdict.reason.is_empty() {
        value.push_str(&format!(" ({})", comment(&verdict.reason)));
    }
    let domain = verdict.domain.as_ref().filter(|_| result == SmimeResult::Policy);
    let mut signature = if domain.is_some() { "domain" } else { word(result) }.to_owned();
    if let Some(domain) = domain {
        signature.push_str(&format!("; signer={}", quoted(&format!("@{}", domain.domain()))));
    }
    if let Some(signer) = verdict.signer.as_ref().filter(|_| result == SmimeResult::Pass) {
        let certificate = signer.certificate();
        let mailbox = quoted(&signer.mailbox().to_string());
        value.push_str(&format!(" body.smime-identifier={mailbox}"));
        let serial: String = certificate.serial().iter().take(64).map(|octet| format!("{octet:02X}")).collect();
        value
            .push_str(&format!(" body.smime-serial={serial} body.smime-issuer={}", quoted(&certificate.issuer_text())));
        signature.push_str(&format!("; signer={mailbox}"));
    }
    writer.structured("Authentication-Results", &value)?;
    if !verdict.reason.is_empty() {
        signature.push_str(&format!("; reason={}", quoted(&verdict.reason)));
    }
    if !verdict.weak.is_empty() {
        signature.push_str(&format!("; weak={}", quoted(&verdict.weak.join(", "))));
    }
    for note in verdict.notes.iter().take(NOTES_MAX) {
        signature.push_str(&format!("; note={}", quoted(note)));
    }
    writer.structured("X-Waxwing-Signature", &signature)?;
    let encrypted = verdict.layers.iter().filter_map(|layer| match layer {
        Layer::Encrypted { cipher, outcome, .. } => Some((cipher, outcome)),
        _ => None,
    });
    for (cipher, outcome) in encrypted.take(LAYERS_MAX) {
        let decrypted = match outcome {
            Ok(()) => {
                let authenticated = if verdict.unauthenticated { "no" } else { "yes" };
                format!("yes; cipher={}; authenticated={authenticated}", quoted(cipher))
            }
            Err(why) => format!("no; cipher={}; reason={}", quoted(cipher), quoted(why)),
        };
        writer.structured("X-Waxwing-Decrypted", &decrypted)?;
    }
    Ok(writer.finish())
}

/// `pass` is written only with its proof at hand.
fn effective(verdict: &Verdict) -> SmimeResult {
    match verdict.result {
        SmimeResult::Pass if verdict.signer.is_none() => SmimeResult::PermError,
        result => result,
    }
}

/// The word of X-Waxwing-Signature.
fn word(result: SmimeResult) -> &'static str {
    match result {
        SmimeResult::Pass => "valid",
        SmimeResult::Fail => "invalid",
        SmimeResult::None => "none",
        SmimeResult::Neutral | SmimeResult::Policy => "unverified",
        SmimeResult::TempError | SmimeResult::PermError => "unknown",
    }
}

/// The Subject's tag; none where there is nothing to tell.
pub(super) fn tag(verdict: &Verdict) -> Option<&'static str> {
    let (valid, invalid) = match effective(verdict) {
        SmimeResult::Pass => (true, false),
        SmimeResult::Fail => (false, true),
        _ => (false, false),
    };
    match (verdict.decrypted, verdict.unauthenticated) {
        (true, true) => Some("[encrypted, unauthenticated]"),
        (true, false) if valid => Some("[signed, encrypted]"),
        (true, false) if invalid => Some("[encrypted, signature invalid]"),
        (true, false) => Some("[encrypted]"),
        _ if valid => Some("[signed]"),
        _ if invalid => Some("[signature invalid]"),
        _ => None,
    }
}

/// As a quoted string. What is no printable ASCII is written as `\XX` per octet, the way RFC 4514 has it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for octet in text.bytes() {
        // Counted as written: an escape is longer than what it stands for, and a line has its limit.
        if out.len() >= TEXT_MAX {
            break;
        }
        match octet {
            b'"' | b'\\' => out.extend(['\\', char::from(octet)]),
            b' '..=b'~' => out.push(char::from(octet)),
            _ => out.push_str(&format!("\\\\{octet:02X}")),
        }
    }
    out.push('"');
    out
}

/// As the inside of a comment; what would need quoting there is replaced, since not every reader undoes it.
pub(crate) fn comment(text: &str) -> String {
    let plain = |octet: u8| match octet {
        b'(' | b'[' => '[',
        b')' | b']' => ']',
        b'\\' | b'"' | b';' => '\'',
        b' '..=b'~' => char::from(octet),
        _ => '?',
    };
    text.bytes().take(TEXT_MAX).map(plain).collect()
}

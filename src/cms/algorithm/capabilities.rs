//! SMIMECapabilities (RFC 8551 section 2.5.2).

use super::AlgorithmIdentifier;
use super::content::{CIPHERS, ContentEncryption, RC2_CBC, cipher_oid};
use crate::cms::ber::{Reader, tag, write};
use crate::cms::error::CmsError;

/// Writes SMIMECapabilities (RFC 8551 section 2.5.2), best first.
pub fn capabilities_der(capabilities: &[ContentEncryption]) -> Vec<u8> {
    let each: Vec<Vec<u8>> = capabilities
        .iter()
        .filter_map(|cipher| match cipher {
            ContentEncryption::Rc2Cbc128 | ContentEncryption::Rc2Cbc64 | ContentEncryption::Rc2Cbc40 => None,
            other => cipher_oid(*other),
        })
        .map(|oid| write::sequence(&[&write::oid(&oid)]))
        .collect();
    let pieces: Vec<&[u8]> = each.iter().map(Vec::as_slice).collect();
    write::sequence(&pieces)
}

/// Reads SMIMECapabilities: the content encryptions in it that are known here, in their order; at most 64 are looked at.
pub fn capabilities(der: &[u8]) -> Result<Vec<ContentEncryption>, CmsError> {
    let mut outer = Reader::der(der);
    let mut list = outer.expect(tag::SEQUENCE, "SMIMECapabilities")?.reader();
    outer.end("SMIMECapabilities")?;
    let mut known = Vec::new();
    for _ in 0..64 {
        if list.is_empty() {
            break;
        }
        let capability = AlgorithmIdentifier::from_der(list.expect(tag::SEQUENCE, "SMIMECapability")?.raw)?;
        let cipher = if capability.oid == RC2_CBC {
            match capability.parameters {
                Some([tag::INTEGER, 2, 0, 0x80]) => Some(ContentEncryption::Rc2Cbc128),
                Some([tag::INTEGER, 1, 0x40]) => Some(ContentEncryption::Rc2Cbc64),
                Some([tag::INTEGER, 1, 0x28]) => Some(ContentEncryption::Rc2Cbc40),
                _ => None,
            }
        } else {
            CIPHERS.into_iter().find_map(|(oid, cipher)| (oid == capability.oid).then_some(cipher))
        };
        if let Some(cipher) = cipher.filter(|cipher| !known.contains(cipher)) {
            known.push(cipher);
        }
    }
    Ok(known)
}

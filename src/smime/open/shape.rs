//! What a message is in S/MIME's terms, read off its root entity alone (A1): what lies deeper is never opened.

use bytes::Bytes;

use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::{ContentType, MimeError};

/// What the root entity is.
#[derive(Debug, Clone)]
pub(in crate::smime) enum Shape {
    /// Not S/MIME.
    Plain,
    /// multipart/signed with S/MIME's protocol (RFC 8551 section 3.5.3): the signed part, the CMS object, micalg.
    ClearSigned { content: Entity, signature: Bytes, micalg: Option<String> },
    /// application/pkcs7-mime: the CMS object; what it is, only its content type says.
    Pkcs7 { object: Bytes },
}

/// Reads the shape. An error: it says that it is S/MIME, and is broken or can be read two ways (A14).
pub(in crate::smime) fn shape(entity: &Entity, limits: &MimeLimits) -> Result<Shape, MimeError> {
    let content_type = match entity.content_type() {
        Ok(content_type) => content_type,
        Err(error) if names_pkcs7(entity) => return Err(error),
        Err(_) => return Ok(Shape::Plain),
    };
    match content_type.essence.as_str() {
        "multipart/signed" => clear_signed(entity, &content_type, limits),
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => pkcs7(entity),
        "application/octet-stream" if is_p7m_name(entity, &content_type) => pkcs7(entity),
        _ => Ok(Shape::Plain),
    }
}

fn clear_signed(entity: &Entity, content_type: &ContentType, limits: &MimeLimits) -> Result<Shape, MimeError> {
    if !content_type.parameter("protocol").is_some_and(is_signature_type) {
        return Ok(Shape::Plain);
    }
    let parts = entity.parts(limits)?;
    let Ok([content, signature]) = <[Entity; 2]>::try_from(parts) else {
        // RFC 1847 section 2.1: "contains exactly two body parts".
        return Err(MimeError::Malformed("multipart/signed without exactly two parts"));
    };
    if !is_signature_type(&signature.content_type()?.essence) {
        return Err(MimeError::Malformed("the second part of multipart/signed is not of the type that protocol names"));
    }
    let micalg = content_type.parameter("micalg").map(str::to_ascii_lowercase);
    Ok(Shape::ClearSigned { content, signature: signature.decoded_body()?, micalg })
}

fn pkcs7(entity: &Entity) -> Result<Shape, MimeError> {
    if entity.header.all("Content-Transfer-Encoding").count() > 1 {
        return Err(MimeError::Ambiguous("two Content-Transfer-Encoding fields"));
    }
    Ok(Shape::Pkcs7 { object: entity.decoded_body()? })
}

fn is_signature_type(essence: &str) -> bool {
    essence.eq_ignore_ascii_case("application/pkcs7-signature")
        || essence.eq_ignore_ascii_case("application/x-pkcs7-signature")
}

/// RFC 8551 section 3.9: application/octet-stream with a name in .p7m counts as application/pkcs7-mime.
fn is_p7m_name(entity: &Entity, content_type: &ContentType) -> bool {
    let is_p7m = |name: &str| name.len() >= 4 && name.to_ascii_lowercase().ends_with(".p7m");
    if content_type.parameter("name").is_some_and(is_p7m) {
        return true;
    }
    let Ok(Some(field)) = entity.header.one("Content-Disposition") else {
        return false;
    };
    // A disposition is read as a Content-Type is: token, then parameters.
    ContentType::parse(&format!("x/{}", field.value()))
        .is_ok_and(|value| value.parameter("filename").is_some_and(is_p7m))
}

/// A Content-Type field that speaks of PKCS #7, however it can be read.
fn names_pkcs7(entity: &Entity) -> bool {
    entity.header.all("Content-Type").any(|field| field.value().to_ascii_lowercase().contains("pkcs7-"))
}

/// Whether some part below the root speaks of PKCS #7: for a note, never for a decision.
pub(super) fn hints_at_pkcs7(body: &[u8]) -> bool {
    const HINTS: [&[u8]; 2] = [b"pkcs7-mime", b"pkcs7-signature"];
    HINTS.iter().any(|hint| memchr::memmem::find(body, hint).is_some())
}

/// What a ContentInfo holds, by its content type (never by the smime-type parameter).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::smime) enum ObjectKind {
    Signed,
    Enveloped,
    Compressed,
    Other,
}

/// Reads the content type of a ContentInfo (RFC 5652 section 3), BER or DER; `None` where it is none.
pub(in crate::smime) fn object_kind(object: &[u8]) -> Option<ObjectKind> {
    let (0x30, rest) = object.split_first().map(|(tag, rest)| (*tag, rest))? else { return None };
    let (length, rest) = rest.split_first()?;
    let more = if *length > 0x80 { usize::from(length & 0x7f) } else { 0 };
    let (_, rest) = rest.split_at_checked(more)?;
    let (0x06, rest) = rest.split_first().map(|(tag, rest)| (*tag, rest))? else { return None };
    let (length, rest) = rest.split_first()?;
    let (oid, _) = rest.split_at_checked(usize::from(*length))?;
    // 1.2.840.113549.1.7.2 and .3 (RFC 5652), 1.2.840.113549.1.9.16.1.23 (RFC 5083) and .9 (RFC 3274).
    Some(match oid {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02] => ObjectKind::Signed,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03] => ObjectKind::Enveloped,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x17] => ObjectKind::Enveloped,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x09] => ObjectKind::Compressed,
        _ => ObjectKind::Other,
    })
}

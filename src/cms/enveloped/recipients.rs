//! Reading RecipientInfos (RFC 5652 section 6.2, RFC 5753, RFC 8418, RFC 9629).

use bytes::Bytes;

use super::{MAX_RECIPIENTS, RecipientInfo, RecipientKind, kem, shared};
use crate::cms::algorithm::{
    AlgorithmIdentifier, EC_PUBLIC_KEY, KeyWrap, Legacy, X25519, key_agreement, key_transport, name_of,
};
use crate::cms::ber::{Element, slice, tag, to_der, write};
use crate::cms::error::CmsError;
use crate::cms::signed::CertificateId;

const TOO_MANY: CmsError = CmsError::Limit("more than 4096 recipients");

/// Reads all RecipientInfos. A structure that cannot be read is an error; an algorithm that is not known is `Other`.
pub(super) fn read(set: &Element<'_>, input: &Bytes, legacy: Legacy) -> Result<Vec<RecipientInfo>, CmsError> {
    let mut list = set.reader();
    let mut recipients = Vec::new();
    while !list.is_empty() {
        if recipients.len() >= MAX_RECIPIENTS {
            return Err(TOO_MANY);
        }
        let element = list.element()?;
        match element.tag {
            tag::SEQUENCE => recipients.push(key_transport_recipient(&element, input)?),
            octet if octet == tag::context(1) => key_agreement_recipients(&element, input, &mut recipients)?,
            octet if octet == tag::context(2) => recipients.push(shared::kek_recipient(&element, input)?),
            octet if octet == tag::context(3) => recipients.push(shared::password_recipient(&element, input, legacy)?),
            octet if octet == tag::context(4) => recipients.push(other_recipient(&element, input)?),
            _ => {
                return Err(CmsError::Malformed {
                    what: "RecipientInfo",
                    offset: element.offset,
                    why: "a kind that RFC 5652 does not know",
                });
            }
        }
    }
    Ok(recipients)
}

fn other(name: String) -> RecipientInfo {
    RecipientInfo::without_agreement(None, RecipientKind::Other(name), Bytes::new())
}

/// OtherRecipientInfo: a KEMRecipientInfo, or named by its type.
fn other_recipient(element: &Element<'_>, input: &Bytes) -> Result<RecipientInfo, CmsError> {
    let mut fields = element.reader();
    let Ok(kind) = fields.oid("oriType") else { return Ok(other("an OtherRecipientInfo".to_owned())) };
    if kind != kem::ID_ORI_KEM {
        return Ok(other(format!("an OtherRecipientInfo of type {}", name_of(&kind))));
    }
    let info = kem::read(&fields.expect(tag::SEQUENCE, "KEMRecipientInfo")?, input)?;
    fields.end("OtherRecipientInfo")?;
    Ok(info)
}

fn key_transport_recipient(element: &Element<'_>, input: &Bytes) -> Result<RecipientInfo, CmsError> {
    let mut fields = element.reader();
    fields.small_integer("KeyTransRecipientInfo version")?;
    let id = match fields.optional_string(tag::context_primitive(0))? {
        Some(id) => CertificateId::SubjectKeyIdentifier(id.octet_bytes(input, "subjectKeyIdentifier")?),
        None => CertificateId::issuer_and_serial(&fields.expect(tag::SEQUENCE, "IssuerAndSerialNumber")?, input)?,
    };
    let algorithm = to_der(fields.expect(tag::SEQUENCE, "keyEncryptionAlgorithm")?.raw)?;
    let encrypted_key = fields.string(tag::OCTET_STRING, "encryptedKey")?.octet_bytes(input, "encryptedKey")?;
    fields.end("KeyTransRecipientInfo")?;
    let kind = match key_transport(&algorithm) {
        Ok(transport) => RecipientKind::KeyTransport(transport),
        Err(error) => RecipientKind::Other(error.to_string()),
    };
    Ok(RecipientInfo::without_agreement(Some(id), kind, encrypted_key))
}

fn key_agreement_recipients(
    element: &Element<'_>,
    input: &Bytes,
    recipients: &mut Vec<RecipientInfo>,
) -> Result<(), CmsError> {
    let mut fields = element.reader();
    fields.small_integer("KeyAgreeRecipientInfo version")?;
    let mut explicit = fields.expect(tag::context(0), "originator")?.reader();
    let originator = originator_point(&explicit.element()?, input)?;
    explicit.end("originator")?;
    let ukm = match fields.optional(tag::context(1))? {
        Some(explicit) => {
            let mut inner = explicit.reader();
            let ukm = inner.string(tag::OCTET_STRING, "ukm")?.octets("ukm")?;
            inner.end("ukm")?;
            Some(ukm)
        }
        None => None,
    };
    let algorithm = to_der(fields.expect(tag::SEQUENCE, "keyEncryptionAlgorithm")?.raw)?;
    let (kind, shared_info) = match (key_agreement(&algorithm), &originator) {
        (Ok((agreement, wrap)), Ok(_)) => {
            (RecipientKind::KeyAgreement(agreement), Bytes::from(shared_info(wrap, ukm.as_deref(), agreement.wrap)))
        }
        (Err(error), _) => (RecipientKind::Other(error.to_string()), Bytes::new()),
        (_, Err(name)) => (RecipientKind::Other(name.clone()), Bytes::new()),
    };
    let originator = originator.unwrap_or_default();
    let ukm = ukm.map(|ukm| Bytes::from(ukm.into_owned()));
    let mut keys = fields.expect(tag::SEQUENCE, "recipientEncryptedKeys")?.reader();
    fields.end("KeyAgreeRecipientInfo")?;
    while !keys.is_empty() {
        if recipients.len() >= MAX_RECIPIENTS {
            return Err(TOO_MANY);
        }
        let mut key = keys.expect(tag::SEQUENCE, "RecipientEncryptedKey")?.reader();
        let id = match key.optional(tag::context(0))? {
            Some(identifier) => {
                let id = identifier.reader().string(tag::OCTET_STRING, "subjectKeyIdentifier")?;
                CertificateId::SubjectKeyIdentifier(id.octet_bytes(input, "subjectKeyIdentifier")?)
            }
            None => CertificateId::issuer_and_serial(&key.expect(tag::SEQUENCE, "IssuerAndSerialNumber")?, input)?,
        };
        let encrypted_key = key.string(tag::OCTET_STRING, "encryptedKey")?.octet_bytes(input, "encryptedKey")?;
        key.end("RecipientEncryptedKey")?;
        recipients.push(RecipientInfo {
            id: Some(id),
            kind: kind.clone(),
            encrypted_key,
            originator: originator.clone(),
            ukm: ukm.clone(),
            shared_info: shared_info.clone(),
        });
    }
    Ok(())
}

/// OriginatorIdentifierOrKey: the point or X25519 public key of an originatorKey, or why it is none that is known here.
fn originator_point(element: &Element<'_>, input: &Bytes) -> Result<Result<Bytes, String>, CmsError> {
    if element.tag != tag::context(1) {
        return Ok(Err("key agreement with the originator's certificate (static-static)".to_owned()));
    }
    let mut fields = element.reader();
    let algorithm = to_der(fields.expect(tag::SEQUENCE, "originatorKey algorithm")?.raw)?;
    let algorithm = AlgorithmIdentifier::from_der(&algorithm)?;
    let bits = fields.expect(tag::BIT_STRING, "originatorKey")?.bit_string("originatorKey")?;
    fields.end("originatorKey")?;
    // RFC 5753 section 7.1.2 lets the curve be left out: it is the recipient's.
    if algorithm.oid != EC_PUBLIC_KEY && algorithm.oid != X25519 {
        return Ok(Err(format!("key agreement with an originator key of kind {}", name_of(&algorithm.oid))));
    }
    Ok(Ok(slice(input, bits)))
}

/// ECC-CMS-SharedInfo (RFC 5753 section 7.2), DER.
pub(super) fn shared_info(wrap_algorithm: &[u8], ukm: Option<&[u8]>, wrap: KeyWrap) -> Vec<u8> {
    let ukm = ukm.map(|ukm| write::element(tag::context(0), &[&write::octet_string(ukm)])).unwrap_or_default();
    let bits = match wrap {
        KeyWrap::Aes128 => 128u32,
        KeyWrap::Aes192 => 192,
        KeyWrap::Aes256 => 256,
    };
    let length = write::element(tag::context(2), &[&write::octet_string(&bits.to_be_bytes())]);
    write::sequence(&[wrap_algorithm, &ukm, &length])
}

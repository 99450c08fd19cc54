//! Countersignatures (RFC 5652 section 11.4): read to be shown, never counted.

use bytes::Bytes;

use super::CertificateId;
use crate::cms::algorithm::{SignatureScheme, digest_algorithm, signature_scheme};
use crate::cms::ber::{Element, tag, to_der};
use crate::cms::error::CmsError;

/// Countersignatures kept of one SignerInfo at most.
pub(super) const MAX_COUNTERSIGNATURES: usize = 16;

/// A signature over another signature's octets. Anybody may have put it there, and it says nothing of who wrote the content: it is not
/// checked, and makes nothing valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Countersignature {
    /// Whom it names.
    pub id: CertificateId,
    /// `Err` names an algorithm that is unknown.
    pub scheme: Result<SignatureScheme, CmsError>,
}

impl Countersignature {
    /// Reads one value of the attribute, a SignerInfo.
    pub(super) fn read(element: &Element<'_>, input: &Bytes) -> Result<Self, CmsError> {
        let mut fields = element.reader();
        fields.small_integer("SignerInfo version")?;
        let id = CertificateId::signer_identifier(&mut fields, input)?;
        let digest = to_der(fields.expect(tag::SEQUENCE, "digestAlgorithm")?.raw)?;
        fields.optional(tag::context(0))?;
        let algorithm = to_der(fields.expect(tag::SEQUENCE, "signatureAlgorithm")?.raw)?;
        fields.string(tag::OCTET_STRING, "signature")?;
        fields.optional(tag::context(1))?;
        fields.end("SignerInfo")?;
        let scheme = digest_algorithm(&digest).and_then(|digest| signature_scheme(&algorithm, Some(digest)));
        Ok(Self { id, scheme })
    }
}

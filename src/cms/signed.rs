//! SignedData (RFC 5652 section 5): prepare, (sign outside), finish; parse and verify. Reads BER, writes DER.

use bytes::Bytes;
use jiff::Timestamp;

use super::algorithm::{ContentEncryption, Digest, Legacy, SignatureScheme};
use super::error::CmsError;
use crate::pki::certificate::Certificate;
use crate::pki::public_key::PublicKey;

/// How a signer or recipient is named in CMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateId {
    /// Issuer Name (DER) and serial number (content octets of the INTEGER).
    IssuerAndSerial { issuer: Bytes, serial: Bytes },
    /// subjectKeyIdentifier.
    SubjectKeyIdentifier(Bytes),
}

impl CertificateId {
    /// Whether this names that certificate.
    pub fn names(&self, _certificate: &Certificate) -> bool {
        todo!()
    }
}

/// What goes into a SignerInfo.
#[derive(Debug, Clone)]
pub struct SignParameters<'a> {
    /// The signer's certificate.
    pub signer: &'a Certificate,
    /// Intermediates to include, the anchor left out.
    pub chain: &'a [Certificate],
    pub scheme: SignatureScheme,
    pub digest: Digest,
    pub signing_time: Timestamp,
    /// Announced in SMIMECapabilities, best first.
    pub capabilities: &'a [ContentEncryption],
    /// Announced in SMIMEEncryptionKeyPreference, where it differs from the signer's.
    pub encryption_certificate: Option<&'a Certificate>,
}

/// A SignedData that waits for its signature.
#[derive(Debug, Clone)]
pub struct PreparedSignedData {
    // the cms helper's
    _to_sign: Bytes,
}

/// Prepares a SignedData over content whose digest is known. `eContent` is `Some` for opaque signatures, `None` for detached.
pub fn prepare(
    _parameters: &SignParameters<'_>,
    _content_digest: &[u8],
    _econtent: Option<Bytes>,
) -> Result<PreparedSignedData, CmsError> {
    todo!()
}

impl PreparedSignedData {
    /// The DER of the signed attributes (as SET OF), to be given to `KeyOperation::Sign`.
    pub fn to_sign(&self) -> Bytes {
        self._to_sign.clone()
    }
    /// The DER ContentInfo with this signature in place.
    pub fn finish(self, _signature: &[u8]) -> Result<Bytes, CmsError> {
        todo!()
    }
}

/// The digest of some octets.
pub fn digest(how: Digest, octets: &[u8]) -> Vec<u8> {
    how.of(octets).as_ref().to_vec()
}

/// A SignedData as received.
#[derive(Debug, Clone)]
pub struct SignedData {
    /// The content type OID inside, dotted.
    pub econtent_type: String,
    /// The content; `None` for detached.
    pub econtent: Option<Bytes>,
    /// Certificates as received; those that cannot be read are left out and counted in `odd`.
    pub certificates: Vec<Certificate>,
    /// CRLs as received (DER).
    pub crls: Vec<Bytes>,
    pub signers: Vec<SignerInfo>,
    /// What is odd but not wrong, for `message show`.
    pub odd: Vec<String>,
}

/// A SignerInfo as received.
#[derive(Debug, Clone)]
pub struct SignerInfo {
    pub id: CertificateId,
    pub digest: Option<Digest>,
    /// `Err` names an algorithm that is unknown: the signer counts as unchecked (A7).
    pub scheme: Result<SignatureScheme, CmsError>,
    pub signing_time: Option<Timestamp>,
    /// Raw SMIMECapabilities attribute value (DER), when present.
    pub capabilities: Option<Bytes>,
    /// The certificate that SMIMEEncryptionKeyPreference names.
    pub encryption_key_preference: Option<CertificateId>,
    // the cms helper's: signed attributes as sent, signature, ...
    _rest: (),
}

impl SignedData {
    /// Reads a ContentInfo with a SignedData (BER or DER); at most 100 signers (A11).
    pub fn parse(_content_info: &Bytes) -> Result<Self, CmsError> {
        todo!()
    }
}

impl SignerInfo {
    /// Verifies this signer's signature over `content` with `key`: contentType equals eContentType, messageDigest fits,
    /// signature over the signed attributes as sent, then as sorted DER; attribute-less content that parses as a SET OF
    /// Attribute refused (A6); signingCertificateV2, where present, names `certificate`.
    pub fn verify(
        &self,
        _data: &SignedData,
        _content: &[u8],
        _certificate: &Certificate,
        _key: &PublicKey,
        _legacy: Legacy,
    ) -> Result<(), CmsError> {
        todo!()
    }
}

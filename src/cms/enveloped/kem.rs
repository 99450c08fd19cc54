//! KEMRecipientInfo (RFC 9629) with ML-KEM (RFC 9936): read, and made.

use bytes::Bytes;
use const_oid::ObjectIdentifier;

use super::{RecipientInfo, RecipientKind};
use crate::cms::algorithm::{ContentEncryption, KeyEncapsulation, encapsulation_der, key_encapsulation};
use crate::cms::ber::{Element, tag, to_der, write};
use crate::cms::error::CmsError;
use crate::cms::signed::CertificateId;
use crate::keys::{Cek, wrap};
use crate::pki::certificate::Certificate;
use crate::pki::public_key::KeyKind;

/// id-ori-kem.
pub(super) const ID_ORI_KEM: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.13.3");

/// Octets of ukm taken at most.
const MAX_UKM: usize = 1024;

/// Reads the oriValue of an OtherRecipientInfo of type id-ori-kem. A structure that cannot be read is an error; an algorithm that is not
/// known is `Other`.
pub(super) fn read(value: &Element<'_>, input: &Bytes) -> Result<RecipientInfo, CmsError> {
    let mut fields = value.reader();
    if fields.small_integer("KEMRecipientInfo version")? != 0 {
        return Err(CmsError::Rule { rule: "RFC 9629 section 3", why: "the version of a KEMRecipientInfo must be 0" });
    }
    let id = match fields.optional_string(tag::context_primitive(0))? {
        Some(id) => CertificateId::SubjectKeyIdentifier(id.octet_bytes(input, "subjectKeyIdentifier")?),
        None => CertificateId::issuer_and_serial(&fields.expect(tag::SEQUENCE, "IssuerAndSerialNumber")?, input)?,
    };
    let kem = to_der(fields.expect(tag::SEQUENCE, "kem")?.raw)?;
    let ciphertext = fields.string(tag::OCTET_STRING, "kemct")?.octet_bytes(input, "kemct")?;
    let kdf = to_der(fields.expect(tag::SEQUENCE, "kdf")?.raw)?;
    let length = fields.small_integer("kekLength")?;
    let ukm = match fields.optional(tag::context(0))? {
        Some(explicit) => {
            let mut inner = explicit.reader();
            let ukm = inner.string(tag::OCTET_STRING, "ukm")?.octets("ukm")?.into_owned();
            inner.end("ukm")?;
            Some(ukm)
        }
        None => None,
    };
    if ukm.as_ref().is_some_and(|ukm| ukm.len() > MAX_UKM) {
        return Err(CmsError::Limit("more than 1024 octets of ukm in a KEMRecipientInfo"));
    }
    let wrap = to_der(fields.expect(tag::SEQUENCE, "wrap")?.raw)?;
    let encrypted_key = fields.string(tag::OCTET_STRING, "encryptedKey")?.octet_bytes(input, "encryptedKey")?;
    fields.end("KEMRecipientInfo")?;
    let kind = match key_encapsulation(&kem, &kdf, length, &wrap) {
        Ok(how) => RecipientKind::KeyEncapsulation(how),
        Err(error) => RecipientKind::Other(error.to_string()),
    };
    let shared_info = Bytes::from(other_info(&wrap, length, ukm.as_deref()));
    Ok(RecipientInfo { id: Some(id), kind, encrypted_key, originator: ciphertext, ukm: None, shared_info })
}

/// CMSORIforKEMOtherInfo (RFC 9629 section 5), DER: what the KDF binds the KEK to.
fn other_info(wrap: &[u8], length: u32, ukm: Option<&[u8]>) -> Vec<u8> {
    let ukm = ukm.map(|ukm| write::element(tag::context(0), &[&write::octet_string(ukm)])).unwrap_or_default();
    write::sequence(&[wrap, &write::integer(length), &ukm])
}

/// An OtherRecipientInfo for the owner of an ML-KEM certificate, its KEK by HKDF with SHA-256 (RFC 9936 section 2.2.2).
pub(super) fn write(certificate: &Certificate, content: ContentEncryption, cek: &Cek) -> Result<Vec<u8>, CmsError> {
    let key = certificate.public_key();
    let KeyKind::MlKem(kem) = key.kind() else { return Err(CmsError::Crypto) };
    let how = KeyEncapsulation::for_content(kem, content);
    let length = u32::try_from(how.wrap.key_len()).map_err(|_| CmsError::Crypto)?;
    let der = encapsulation_der(how);
    let (ciphertext, secret) = key.encapsulate()?;
    let kek = wrap::hkdf(how.kdf, &secret, None, &other_info(&der.wrap, length, None), how.wrap.key_len())?;
    let wrapped = wrap::wrap(how.wrap, &kek, cek)?;
    let info = write::sequence(&[
        &write::integer(0),
        &CertificateId::issuer_and_serial_der(certificate, tag::SEQUENCE),
        &der.kem,
        &write::octet_string(&ciphertext),
        &der.kdf,
        &write::integer(length),
        &der.wrap,
        &write::octet_string(&wrapped),
    ]);
    Ok(write::element(tag::context(4), &[&write::oid(&ID_ORI_KEM), &info]))
}

/// Fuzz body: one KEMRecipientInfo; what is read has a key, a ciphertext and a wrapped key that lie within, and nothing is larger than
/// what was given.
#[doc(hidden)]
pub fn fuzz_kem_recipient_info(data: &[u8]) {
    let input = Bytes::copy_from_slice(data);
    let mut reader = crate::cms::ber::Reader::ber(&input);
    let Ok(element) = reader.expect(tag::SEQUENCE, "KEMRecipientInfo") else { return };
    if let Ok(info) = read(&element, &input) {
        assert!(info.encrypted_key.len() + info.originator.len() <= data.len());
        if let RecipientKind::KeyEncapsulation(how) = info.kind {
            assert!(crate::cms::ber::Reader::der(&info.shared_info).element().is_ok());
            assert!([16, 24, 32].contains(&how.wrap.key_len()));
        }
    }
}

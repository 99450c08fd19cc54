//! Making an EnvelopedData or AuthEnvelopedData.

use aws_lc_rs::rand;
use bytes::Bytes;

use super::{ID_AUTH_ENVELOPED_DATA, ID_ENVELOPED_DATA, RecipientScheme, cipher, kem, recipients};
use crate::cms::algorithm::{
    ContentAlgorithm, ContentEncryption, EC_PUBLIC_KEY, KeyAgreement, SECP256R1, SECP384R1, SECP521R1, X25519,
    content_encryption_der, key_agreement_der, key_transport_der,
};
use crate::cms::ber::{tag, write};
use crate::cms::error::CmsError;
use crate::cms::signed::{CertificateId, ID_DATA};
use crate::keys::{Cek, wrap};
use crate::pki::certificate::Certificate;
use crate::pki::public_key::KeyKind;

/// How a content is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentScheme {
    pub cipher: ContentEncryption,
    /// Under a key that is derived from the CEK and the algorithm's own octets (RFC 9709), so that the ciphertext opens under no other
    /// algorithm (A5). Few programs read it.
    pub derived: bool,
}

impl From<ContentEncryption> for ContentScheme {
    fn from(cipher: ContentEncryption) -> Self {
        Self { cipher, derived: false }
    }
}

/// Encrypts `content` (MIME entity, canonical) to the recipients: AuthEnvelopedData for GCM, EnvelopedData for CBC. `cek`
/// of the right length and randomness come from the caller (`keys::new_cek`); IV or nonce is drawn here. Returns the DER
/// ContentInfo. `seal_with` does the same without a copy of the content.
pub fn seal(
    content: Vec<u8>,
    how: impl Into<ContentScheme>,
    recipients: &[(&Certificate, RecipientScheme)],
    cek: &Cek,
) -> Result<Bytes, CmsError> {
    seal_with(content.len(), |buffer| buffer.extend_from_slice(&content), how, recipients, cek)
}

/// `seal` for a content that `fill` appends to the buffer given to it: exactly `length` octets, which are then encrypted where they
/// lie, so that the content is copied only once on its way from the caller's pieces to the finished ContentInfo.
///
/// Errors: no recipient, a recipient's key that is not fit (RSA under 2048 bits, a signing key), a cipher that is read only, a
/// CEK of the wrong length, `fill` that gave another length.
pub fn seal_with(
    length: usize,
    fill: impl FnOnce(&mut Vec<u8>),
    how: impl Into<ContentScheme>,
    recipients: &[(&Certificate, RecipientScheme)],
    cek: &Cek,
) -> Result<Bytes, CmsError> {
    let ContentScheme { cipher: how, derived } = how.into();
    if recipients.is_empty() {
        return Err(CmsError::Rule { rule: "RFC 5652 section 6.1", why: "an envelope needs a recipient" });
    }
    if cek.len() != how.key_len() {
        return Err(CmsError::Crypto);
    }
    // RFC 5652 section 6.1: 3 where there is an OtherRecipientInfo, 2 where a RecipientInfo is of a version other than 0.
    let mut version = 0;
    let mut infos = Vec::with_capacity(recipients.len());
    for (certificate, scheme) in recipients {
        version = version.max(match certificate.public_key().kind() {
            KeyKind::MlKem(_) => 3,
            kind if kind.agrees() => 2,
            _ => 0,
        });
        infos.push(recipient_info(certificate, *scheme, how, cek)?);
    }
    let infos = write::set_of(tag::SET, infos);
    let mut algorithm = draw(how)?;
    if derived {
        algorithm = algorithm.with_derivation()?;
    }
    let frame = Frame::new(&algorithm, &infos, version, length)?;

    let mut whole = Vec::with_capacity(frame.total);
    whole.extend_from_slice(&frame.head);
    let start = whole.len();
    fill(&mut whole);
    if whole.len() - start != length {
        return Err(CmsError::Crypto);
    }
    let mac = cipher::seal(&algorithm, cek, &mut whole, start)?;
    if how.is_authenticated() {
        whole.extend(write::octet_string(&mac));
    }
    if whole.len() != frame.total {
        return Err(CmsError::Crypto);
    }
    Ok(Bytes::from(whole))
}

/// An IV or a nonce from the random generator. A CEK encrypts one content only, so a random nonce cannot repeat under it.
fn draw(how: ContentEncryption) -> Result<ContentAlgorithm, CmsError> {
    let mut octets = [0u8; 16];
    let (length, tag_len) = if how.is_authenticated() { (12, 16) } else { (16, 0) };
    let iv = octets.get_mut(..length).ok_or(CmsError::Crypto)?;
    rand::fill(iv).map_err(|_| CmsError::Crypto)?;
    ContentAlgorithm::new(how, iv, tag_len)
}

/// All that stands before the ciphertext, with the length of the whole.
struct Frame {
    head: Vec<u8>,
    total: usize,
}

impl Frame {
    fn new(algorithm: &ContentAlgorithm, infos: &[u8], version: u32, length: usize) -> Result<Self, CmsError> {
        let authenticated = algorithm.cipher.is_authenticated();
        let too_big = CmsError::Limit("the content is too big");
        let encrypted = cipher::encrypted_len(algorithm.cipher, length).ok_or(too_big.clone())?;
        // RFC 5083 section 2.1: 0.
        let version = write::integer(if authenticated { 0 } else { version });
        let string = header(tag::context_primitive(0), encrypted);
        let kind = write::oid(&ID_DATA);
        let cipher = content_encryption_der(algorithm)?;
        let info =
            header(tag::SEQUENCE, sum(&[kind.len(), cipher.len(), string.len(), encrypted]).ok_or(too_big.clone())?);
        let mac = if authenticated { algorithm.tag_len + 2 } else { 0 };
        let body = [version.len(), infos.len(), info.len(), kind.len(), cipher.len(), string.len(), encrypted, mac];
        let body = sum(&body).ok_or(too_big.clone())?;
        let data = header(tag::SEQUENCE, body);
        let explicit = header(tag::context(0), sum(&[data.len(), body]).ok_or(too_big.clone())?);
        let oid = write::oid(if authenticated { &ID_AUTH_ENVELOPED_DATA } else { &ID_ENVELOPED_DATA });
        let inside = sum(&[oid.len(), explicit.len(), data.len(), body]).ok_or(too_big)?;
        let outer = header(tag::SEQUENCE, inside);
        let head = [&outer, &oid, &explicit, &data, &version, infos, &info, &kind, &cipher, &string].concat();
        Ok(Self { head, total: outer.len() + inside })
    }
}

fn sum(lengths: &[usize]) -> Option<usize> {
    lengths.iter().try_fold(0usize, |sum, length| sum.checked_add(*length))
}

fn header(tag: u8, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(10);
    write::header(tag, length, &mut out);
    out
}

/// One recipient: KeyTransRecipientInfo for RSA, KeyAgreeRecipientInfo with an ephemeral key for EC and X25519, KEMRecipientInfo for ML-KEM.
fn recipient_info(
    certificate: &Certificate,
    scheme: RecipientScheme,
    how: ContentEncryption,
    cek: &Cek,
) -> Result<Vec<u8>, CmsError> {
    let key = certificate.public_key();
    if matches!(key.kind(), KeyKind::MlKem(_)) {
        return kem::write(certificate, how, cek);
    }
    let id = CertificateId::issuer_and_serial_der(certificate, tag::SEQUENCE);
    if !key.kind().agrees() {
        let encrypted = key.transport(scheme.rsa, cek)?;
        return Ok(write::sequence(&[
            &write::integer(0),
            &id,
            &key_transport_der(scheme.rsa),
            &write::octet_string(&encrypted),
        ]));
    }
    let agreement = KeyAgreement { kdf: scheme.kdf, cofactor: false, wrap: how.wrap() };
    let (algorithm, wrap_algorithm) = key_agreement_der(agreement)?;
    let (point, secret) = key.agree_ephemeral()?;
    let shared_info = recipients::shared_info(&wrap_algorithm, None, agreement.wrap);
    let kek = wrap::derive(agreement, &secret, None, &shared_info)?;
    let wrapped = wrap::wrap(agreement.wrap, &kek, cek)?;
    let key_algorithm = originator_algorithm(key.kind());
    let originator = write::element(tag::context(1), &[&key_algorithm, &write::bit_string(&point)]);
    let encrypted_key = write::sequence(&[&id, &write::octet_string(&wrapped)]);
    Ok(write::element(
        tag::context(1),
        &[
            &write::integer(3),
            &write::element(tag::context(0), &[&originator]),
            &algorithm,
            &write::sequence(&[&encrypted_key]),
        ],
    ))
}

/// RFC 5753 section 7.1.2, RFC 8418 section 3.2.
fn originator_algorithm(kind: KeyKind) -> Vec<u8> {
    let curve = match kind {
        KeyKind::X25519 => return write::sequence(&[&write::oid(&X25519)]),
        KeyKind::P384 => SECP384R1,
        KeyKind::P521 => SECP521R1,
        _ => SECP256R1,
    };
    write::sequence(&[&write::oid(&EC_PUBLIC_KEY), &write::oid(&curve)])
}

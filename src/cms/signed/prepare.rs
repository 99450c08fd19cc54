//! Making a SignedData: the attributes to sign, then the whole.

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::attributes::{
    CONTENT_TYPE, KEY_PREFERENCE, MESSAGE_DIGEST, SIGNING_CERTIFICATE_V2, SIGNING_TIME, SMIME_CAPABILITIES,
};
use super::{CertificateId, ID_DATA, ID_SIGNED_DATA, MAX_SIGNERS, multiple_signatures};
use crate::cms::algorithm::{
    ContentEncryption, Digest, SignatureScheme, capabilities_der, digest_algorithm_der, signature_scheme_der,
};
use crate::cms::ber::{tag, write};
use crate::cms::error::CmsError;
use crate::pki::certificate::Certificate;

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

/// A SignedData that waits for its signatures.
#[derive(Debug, Clone)]
pub struct PreparedSignedData {
    signers: Vec<PreparedSigner>,
    certificates: Vec<u8>,
    econtent: Option<Bytes>,
}

/// A SignerInfo that waits for its signature.
#[derive(Debug, Clone)]
struct PreparedSigner {
    /// The DER SET OF signed attributes.
    attributes: Bytes,
    /// The same, each on its own.
    list: Vec<Vec<u8>>,
    /// SignerInfo up to signedAttrs, and signatureAlgorithm.
    before: Vec<u8>,
    algorithm: Vec<u8>,
    digest_algorithm: Vec<u8>,
}

/// Prepares a SignedData over content whose digest is known. `eContent` is `Some` for opaque signatures, `None` for detached.
/// Errors: digest and scheme do not go together, a SHA-1 signature, a digest of the wrong length.
pub fn prepare(
    parameters: &SignParameters<'_>,
    content_digest: &[u8],
    econtent: Option<Bytes>,
) -> Result<PreparedSignedData, CmsError> {
    prepare_all(&[(parameters, content_digest)], econtent)
}

/// The same with a SignerInfo for each of `signers` (RFC 5652 section 5.1), given with the content's digest by the algorithm that its
/// parameters name. Errors also where there is no signer, or more than a hundred.
pub fn prepare_all(
    signers: &[(&SignParameters<'_>, &[u8])],
    econtent: Option<Bytes>,
) -> Result<PreparedSignedData, CmsError> {
    if signers.is_empty() {
        return Err(CmsError::Rule { rule: "RFC 5652 section 5.1", why: "a signature needs a signer" });
    }
    if signers.len() > MAX_SIGNERS {
        return Err(CmsError::Limit("more than 100 signers"));
    }
    let mut certificates: Vec<Vec<u8>> = signers
        .iter()
        .flat_map(|(how, _)| std::iter::once(how.signer).chain(how.chain).chain(how.encryption_certificate))
        .map(|certificate| certificate.der().to_vec())
        .collect();
    certificates.sort();
    certificates.dedup();
    let signers = signers.iter().map(|(how, digest)| prepare_signer(how, digest)).collect::<Result<_, _>>()?;
    Ok(PreparedSignedData { signers, certificates: write::set_of(tag::context(0), certificates), econtent })
}

/// `prepare_all` where the first `own` signatures are of one signer's: each of their SignerInfos says which others belong beside it
/// (RFC 5752), so that one that is taken away is missed. At most 16 of them.
pub fn prepare_guarded(
    signers: &[(&SignParameters<'_>, &[u8])],
    own: usize,
    econtent: Option<Bytes>,
) -> Result<PreparedSignedData, CmsError> {
    let mut prepared = prepare_all(signers, econtent)?;
    if own < 2 {
        return Ok(prepared);
    }
    let all: Vec<_> = signers
        .iter()
        .zip(&prepared.signers)
        .take(own)
        .map(|((how, _), made)| multiple_signatures::Prepared {
            digest: how.digest,
            signature_algorithm: &made.algorithm,
            certificate: how.signer,
            attributes: &made.list,
        })
        .collect();
    let guards = multiple_signatures::attributes(&all)?;
    for (signer, guard) in prepared.signers.iter_mut().zip(guards) {
        signer.list.push(guard);
        signer.attributes = Bytes::from(write::set_of(tag::SET, signer.list.clone()));
    }
    Ok(prepared)
}

fn prepare_signer(parameters: &SignParameters<'_>, content_digest: &[u8]) -> Result<PreparedSigner, CmsError> {
    if !parameters.scheme.goes_with(parameters.digest) {
        let (digest, scheme) = (parameters.digest.name(), parameters.scheme.name());
        return Err(CmsError::Algorithm(format!("{digest} does not go with {scheme}")));
    }
    if parameters.digest == Digest::Sha1 {
        return Err(CmsError::Algorithm("SHA-1 signatures are read, never written".to_owned()));
    }
    if content_digest.len() != parameters.digest.output_len() {
        return Err(CmsError::Crypto);
    }
    let list = signed_attributes(parameters, content_digest)?;
    let digest_algorithm = digest_algorithm_der(parameters.digest);
    let mut before = write::integer(1);
    before.extend(CertificateId::issuer_and_serial_der(parameters.signer, tag::SEQUENCE));
    before.extend_from_slice(&digest_algorithm);
    Ok(PreparedSigner {
        attributes: Bytes::from(write::set_of(tag::SET, list.clone())),
        list,
        before,
        algorithm: signature_scheme_der(parameters.scheme),
        digest_algorithm,
    })
}

/// The signed attributes, each DER.
fn signed_attributes(parameters: &SignParameters<'_>, content_digest: &[u8]) -> Result<Vec<Vec<u8>>, CmsError> {
    let attribute = |oid, value: &[u8]| write::sequence(&[&write::oid(&oid), &write::element(tag::SET, &[value])]);
    let mut attributes = vec![
        attribute(CONTENT_TYPE, &write::oid(&ID_DATA)),
        attribute(MESSAGE_DIGEST, &write::octet_string(content_digest)),
        attribute(SIGNING_TIME, &time_der(parameters.signing_time)?),
        // ESSCertIDv2 with the default SHA-256 (RFC 5035 section 4).
        attribute(
            SIGNING_CERTIFICATE_V2,
            &write::sequence(&[&write::sequence(&[&write::sequence(&[&write::octet_string(
                Digest::Sha256.of(parameters.signer.der()).as_ref(),
            )])])]),
        ),
    ];
    if !parameters.capabilities.is_empty() {
        attributes.push(attribute(SMIME_CAPABILITIES, &capabilities_der(parameters.capabilities)));
    }
    if let Some(preferred) = parameters.encryption_certificate {
        attributes.push(attribute(KEY_PREFERENCE, &CertificateId::issuer_and_serial_der(preferred, tag::context(0))));
    }
    Ok(attributes)
}

/// UTCTime through 2049, GeneralizedTime after (RFC 5652 section 11.3).
fn time_der(time: Timestamp) -> Result<Vec<u8>, CmsError> {
    let civil = TimeZone::UTC.to_datetime(time);
    let short = match civil.year() {
        1950..=2049 => true,
        2050..=9999 => false,
        _ => {
            return Err(CmsError::Rule {
                rule: "RFC 5652 section 11.3",
                why: "a signing time outside the years 1950 to 9999",
            });
        }
    };
    let (year, month, day) = (civil.year(), civil.month(), civil.day());
    let (hour, minute, second) = (civil.hour(), civil.minute(), civil.second());
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    Ok(if short {
        write::element(tag::UTC_TIME, &[format!("{:02}", year % 100).as_bytes(), rest.as_bytes()])
    } else {
        write::element(tag::GENERALIZED_TIME, &[format!("{year:04}").as_bytes(), rest.as_bytes()])
    })
}

impl PreparedSigner {
    /// The SignerInfo with this signature in place.
    fn finish(&self, signature: &[u8]) -> Result<Vec<u8>, CmsError> {
        if signature.is_empty() {
            return Err(CmsError::Crypto);
        }
        let mut attributes = self.attributes.to_vec();
        if let Some(first) = attributes.first_mut() {
            *first = tag::context(0);
        }
        Ok(write::sequence(&[&self.before, &attributes, &self.algorithm, &write::octet_string(signature)]))
    }
}

impl PreparedSignedData {
    /// The DER of the signed attributes (as SET OF), to be given to `KeyOperation::Sign`; of the first signer where there are several.
    pub fn to_sign(&self) -> Bytes {
        self.signers.first().map(|signer| signer.attributes.clone()).unwrap_or_default()
    }

    /// The same for each signer, in the order in which they were given.
    pub fn all_to_sign(&self) -> Vec<Bytes> {
        self.signers.iter().map(|signer| signer.attributes.clone()).collect()
    }

    /// The DER ContentInfo with this signature in place. An error where there are several signers.
    pub fn finish(self, signature: &[u8]) -> Result<Bytes, CmsError> {
        self.finish_all(&[signature])
    }

    /// The same with a signature for each signer, in the order in which they were given.
    pub fn finish_all(self, signatures: &[impl AsRef<[u8]>]) -> Result<Bytes, CmsError> {
        if signatures.len() != self.signers.len() {
            return Err(CmsError::Rule {
                rule: "RFC 5652 section 5.3",
                why: "there must be a signature for each signer",
            });
        }
        let infos = self.signers.iter().zip(signatures).map(|(signer, signature)| signer.finish(signature.as_ref()));
        let signers = write::set_of(tag::SET, infos.collect::<Result<_, _>>()?);
        let mut digests: Vec<Vec<u8>> = self.signers.iter().map(|signer| signer.digest_algorithm.clone()).collect();
        digests.sort();
        digests.dedup();
        let tail = [self.certificates, signers].concat();
        let mut head = write::integer(1);
        head.extend(write::set_of(tag::SET, digests));

        // From the inside out, so that the content is copied once.
        let oid = write::oid(&ID_DATA);
        let content = self.econtent.as_deref();
        let string = content.map(|octets| header(tag::OCTET_STRING, octets.len())).unwrap_or_default();
        let octets = content.unwrap_or_default();
        let explicit = content.map(|_| header(tag::context(0), string.len() + octets.len())).unwrap_or_default();
        let encapsulated = header(tag::SEQUENCE, oid.len() + explicit.len() + string.len() + octets.len());
        let inside: [&[u8]; 7] = [&head, &encapsulated, &oid, &explicit, &string, octets, &tail];
        let length = inside.iter().map(|piece| piece.len()).sum();
        let signed_data = header(tag::SEQUENCE, length);
        let outer_explicit = header(tag::context(0), signed_data.len() + length);
        let outer_oid = write::oid(&ID_SIGNED_DATA);
        let total = outer_oid.len() + outer_explicit.len() + signed_data.len() + length;
        let mut whole = Vec::with_capacity(total + 8);
        write::header(tag::SEQUENCE, total, &mut whole);
        for piece in [&outer_oid, &outer_explicit, &signed_data].into_iter().map(Vec::as_slice).chain(inside) {
            whole.extend_from_slice(piece);
        }
        Ok(Bytes::from(whole))
    }
}

fn header(tag: u8, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(10);
    write::header(tag, length, &mut out);
    out
}

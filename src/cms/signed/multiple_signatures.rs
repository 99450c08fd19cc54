//! The multiple-signatures attribute (RFC 5752): each SignerInfo of one signer names the others, so that one taken away is missed.

use const_oid::ObjectIdentifier;

use super::SignerInfo;
use crate::cms::algorithm::{Digest, digest_algorithm, digest_algorithm_der};
use crate::cms::ber::{Reader, tag, write};
use crate::cms::error::CmsError;
use crate::pki::certificate::Certificate;

/// id-aa-multipleSignatures.
pub(super) const MULTIPLE_SIGNATURES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.51");

/// Signatures of one signer at most.
const MAX_SIGNATURES: usize = 16;
/// Octets of signed attributes that are hashed at most.
const MAX_ATTRIBUTES: usize = 1 << 16;

const fn rule(why: &'static str) -> CmsError {
    CmsError::Rule { rule: "RFC 5752 section 4.6", why }
}

/// The attribute of a SignerInfo as received.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    values: Vec<Reference>,
    /// The signed attributes, DER, every hash of this attribute empty: what the others' hashes are taken over (section 4.4.1).
    emptied: Vec<u8>,
}

/// One value: another SignerInfo of the same signer.
#[derive(Debug, Clone)]
struct Reference {
    body_digest: Digest,
    signature_algorithm: Vec<u8>,
    digest: Digest,
    hash: Vec<u8>,
    /// Digest and hash of its certificate.
    certificate: Option<(Digest, Vec<u8>)>,
}

impl Guard {
    /// Reads the attribute of one SignerInfo from all its signed attributes (each DER). `None`: it has none.
    pub(super) fn read(attributes: &[Vec<u8>]) -> Result<Option<Self>, CmsError> {
        let mut values = None;
        let mut emptied = Vec::with_capacity(attributes.len());
        for attribute in attributes {
            let (oid, list) = super::attributes::attribute_parts(attribute)?;
            if oid != MULTIPLE_SIGNATURES {
                emptied.push(attribute.clone());
                continue;
            }
            let (read, without) = read_values(list)?;
            if values.replace(read).is_some() {
                return Err(rule("multiple-signatures stands more than once"));
            }
            emptied.push(attribute_der(without));
        }
        let Some(values) = values else { return Ok(None) };
        let emptied = write::set_of(tag::SET, emptied);
        if emptied.len() > MAX_ATTRIBUTES {
            return Err(CmsError::Limit("more than 65536 octets of signed attributes beside multiple-signatures"));
        }
        Ok(Some(Self { values, emptied }))
    }
}

/// The values, and the same with empty hashes.
fn read_values(mut list: Reader<'_>) -> Result<(Vec<Reference>, Vec<Vec<u8>>), CmsError> {
    let (mut values, mut emptied) = (Vec::new(), Vec::new());
    while !list.is_empty() {
        if values.len() == MAX_SIGNATURES - 1 {
            return Err(CmsError::Limit("more than 16 signatures of one signer"));
        }
        let mut fields = list.expect(tag::SEQUENCE, "MultipleSignatures")?.reader();
        let body = fields.expect(tag::SEQUENCE, "bodyHashAlg")?.raw;
        let signature = fields.expect(tag::SEQUENCE, "signAlg")?.raw;
        let mut hash = fields.expect(tag::SEQUENCE, "signAttrsHash")?.reader();
        let algorithm = hash.expect(tag::SEQUENCE, "algID")?.raw;
        let octets = hash.expect(tag::OCTET_STRING, "hash")?.content;
        hash.end("signAttrsHash")?;
        let (certificate, rest) = match fields.optional(tag::SEQUENCE)? {
            Some(id) => (Some(super::attributes::certificate_hash(id.reader(), Digest::Sha256)?), id.raw),
            None => (None, &[][..]),
        };
        fields.end("MultipleSignatures")?;
        let nothing = write::sequence(&[algorithm, &write::octet_string(&[])]);
        emptied.push(write::sequence(&[body, signature, &nothing, rest]));
        values.push(Reference {
            body_digest: digest_algorithm(body)?,
            signature_algorithm: signature.to_vec(),
            digest: digest_algorithm(algorithm)?,
            hash: octets.to_vec(),
            certificate,
        });
    }
    Ok((values, emptied))
}

fn attribute_der(values: Vec<Vec<u8>>) -> Vec<u8> {
    write::sequence(&[&write::oid(&MULTIPLE_SIGNATURES), &write::set_of(tag::SET, values)])
}

/// For every SignerInfo with the attribute: each signature that it names is there, and there are as many as all of them say. Gives the
/// places of those for which that does not hold; their signatures are not to be believed.
pub(super) fn broken(signers: &[SignerInfo], certificates: &[Certificate]) -> Vec<(usize, CmsError)> {
    let mut broken = Vec::new();
    for (place, signer) in signers.iter().enumerate() {
        let Some(guard) = signer.guard() else { continue };
        if signers.len() > MAX_SIGNATURES {
            broken.push((place, CmsError::Limit("more than 16 signers beside multiple-signatures")));
            continue;
        }
        let mut found: Vec<usize> = Vec::new();
        for value in &guard.values {
            let other = signers.iter().enumerate().find(|(at, other)| {
                *at != place
                    && !found.contains(at)
                    && other.guard().is_some_and(|theirs| theirs.values.len() == guard.values.len())
                    && is_meant(value, signer, other, certificates)
            });
            match other {
                Some((at, _)) => found.push(at),
                None => {
                    let why = "a signature that belongs beside this one is missing, or is not the one that was there";
                    broken.push((place, rule(why)));
                    break;
                }
            }
        }
    }
    broken
}

/// Whether the value in `own` means `other`.
fn is_meant(value: &Reference, own: &SignerInfo, other: &SignerInfo, certificates: &[Certificate]) -> bool {
    let Some(theirs) = other.guard() else { return false };
    // The one that the signature is judged by, and last: a name may be that of hundreds, each as large as it may be.
    let same_certificate = || {
        value.certificate.as_ref().is_none_or(|(digest, hash)| {
            let its = certificates.iter().find(|one| other.id.names(one));
            its.is_some_and(|one| digest.of(one.der()).as_ref() == hash.as_slice())
        })
    };
    own.digest == Some(value.digest)
        && other.digest == Some(value.body_digest)
        && other.signature_algorithm() == value.signature_algorithm
        && value.digest.of(&theirs.emptied).as_ref() == value.hash.as_slice()
        && same_certificate()
}

/// What another SignerInfo has to say of one that is being made.
pub(super) struct Prepared<'a> {
    pub(super) digest: Digest,
    /// signatureAlgorithm, DER.
    pub(super) signature_algorithm: &'a [u8],
    pub(super) certificate: &'a Certificate,
    /// Its signed attributes, each DER, but for this one.
    pub(super) attributes: &'a [Vec<u8>],
}

/// The attribute for each of several SignerInfos of one signer (section 4.4.1), in their order.
pub(super) fn attributes(all: &[Prepared<'_>]) -> Result<Vec<Vec<u8>>, CmsError> {
    if all.len() > MAX_SIGNATURES {
        return Err(CmsError::Limit("more than 16 signatures of one signer"));
    }
    let others = |place: usize| all.iter().enumerate().filter(move |(at, _)| *at != place);
    let emptied: Vec<Vec<u8>> = (all.iter().enumerate())
        .map(|(place, own)| {
            let values = others(place).map(|(_, other)| value(other, own.digest, &[])).collect();
            let list = own.attributes.iter().cloned().chain([attribute_der(values)]).collect();
            write::set_of(tag::SET, list)
        })
        .collect();
    let attribute = |(place, own): (usize, &Prepared<'_>)| {
        let values = others(place).map(|(at, other)| {
            let theirs = emptied.get(at).map(Vec::as_slice).unwrap_or_default();
            value(other, own.digest, own.digest.of(theirs).as_ref())
        });
        attribute_der(values.collect())
    };
    Ok(all.iter().enumerate().map(attribute).collect())
}

/// MultipleSignatures, with the certificate, so that no two values are alike.
fn value(of: &Prepared<'_>, own: Digest, hash: &[u8]) -> Vec<u8> {
    let certificate = write::octet_string(Digest::Sha256.of(of.certificate.der()).as_ref());
    write::sequence(&[
        &digest_algorithm_der(of.digest),
        of.signature_algorithm,
        &write::sequence(&[&digest_algorithm_der(own), &write::octet_string(hash)]),
        &write::sequence(&[&certificate]),
    ])
}

//! The parameters that RSASSA-PSS and RSAES-OAEP share: a digest and MGF1 (RFC 4055 sections 2.2, 3.1, 4.1).

use const_oid::ObjectIdentifier;

use super::digest::{Digest, digest_algorithm};
use super::{AlgorithmIdentifier, NULL, id};
use crate::cms::ber::{Reader, tag, write};
use crate::cms::error::CmsError;

const MGF1: ObjectIdentifier = id("1.2.840.113549.1.1.8");

/// hashAlgorithm [0] and maskGenAlgorithm [1], which PSS and OAEP share; what follows is left in the reader.
pub(super) fn hash_and_mask<'a>(
    found: &AlgorithmIdentifier<'_>,
    parameters: &'a [u8],
) -> Result<(Reader<'a>, Digest, Digest), CmsError> {
    let mut outer = Reader::der(parameters);
    if outer.peek() != Some(tag::SEQUENCE) {
        return Err(found.refused("parameters must be a SEQUENCE"));
    }
    let mut fields = outer.element()?.reader();
    let hash = match fields.optional(tag::context(0))? {
        Some(field) => digest_algorithm(field.content)?,
        None => Digest::Sha1,
    };
    let mask = match fields.optional(tag::context(1))? {
        Some(field) => {
            let mgf = AlgorithmIdentifier::from_der(field.content)?;
            if mgf.oid != MGF1 {
                return Err(found.refused("the mask generation function must be MGF1"));
            }
            digest_algorithm(mgf.parameters.ok_or_else(|| found.refused("MGF1 without a digest"))?)?
        }
        None => Digest::Sha1,
    };
    Ok((fields, hash, mask))
}

pub(super) fn hash_and_mask_der(hash: Digest, mask: Digest) -> (Vec<u8>, Vec<u8>) {
    let with_null = |digest: Digest| write::sequence(&[&write::oid(&digest.oid()), NULL]);
    let mgf = write::sequence(&[&write::oid(&MGF1), &with_null(mask)]);
    // DER leaves a DEFAULT out.
    let first = if hash == Digest::Sha1 { Vec::new() } else { write::element(tag::context(0), &[&with_null(hash)]) };
    let second = if mask == Digest::Sha1 { Vec::new() } else { write::element(tag::context(1), &[&mgf]) };
    (first, second)
}

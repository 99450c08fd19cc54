//! CompressedData (RFC 3274): read, never written. What comes out is bounded while it comes out (A12).

use bytes::Bytes;
use const_oid::ObjectIdentifier;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::algorithm::compression;
use super::ber::{tag, to_der};
use super::error::CmsError;
use super::signed::{ID_DATA, content_of};

#[cfg(test)]
pub(crate) mod tests;

/// Octets that come out for one that went in, at most.
pub const RATIO: usize = 20;

const ID_COMPRESSED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.9");

/// Octets that are decompressed in one go.
const CHUNK: usize = 32 * 1024;

/// A CompressedData as received.
#[derive(Debug, Clone)]
pub struct CompressedData {
    compressed: Bytes,
    /// What is odd but not wrong.
    pub odd: Vec<String>,
}

impl CompressedData {
    /// Reads a ContentInfo (BER or DER); its content must be a MIME entity, id-data (RFC 8551 section 3.6).
    pub fn parse(content_info: &Bytes) -> Result<Self, CmsError> {
        let mut odd = Vec::new();
        let (_, content, trailing) = content_of(content_info, &[ID_COMPRESSED_DATA])?;
        if trailing {
            odd.push("octets follow the ContentInfo".to_owned());
        }
        let mut fields = content.reader();
        if fields.small_integer("CompressedData version")? != 0 {
            return Err(CmsError::Rule { rule: "RFC 3274 section 1.1", why: "the version must be 0" });
        }
        compression(&to_der(fields.expect(tag::SEQUENCE, "compressionAlgorithm")?.raw)?)?;
        let mut encapsulated = fields.expect(tag::SEQUENCE, "encapContentInfo")?.reader();
        fields.end("CompressedData")?;
        if encapsulated.oid("eContentType")? != ID_DATA {
            return Err(CmsError::Rule { rule: "RFC 8551 section 3.6", why: "what is compressed must be id-data" });
        }
        let mut explicit = encapsulated.expect(tag::context(0), "eContent")?.reader();
        encapsulated.end("encapContentInfo")?;
        let compressed = explicit.string(tag::OCTET_STRING, "eContent")?.octet_bytes(content_info, "eContent")?;
        explicit.end("eContent")?;
        Ok(Self { compressed, odd })
    }

    /// Decompresses the whole, checksum included. Errors: more than 20 octets for one, or than `limit` in sum (neither is ever held in
    /// memory), a stream that is broken, cut off, or followed by other octets.
    pub fn open(&self, limit: usize) -> Result<Bytes, CmsError> {
        let most = self.compressed.len().saturating_mul(RATIO);
        let mut state = InflateState::new_boxed(DataFormat::Zlib);
        let mut buffer = vec![0u8; CHUNK];
        let mut content = Vec::new();
        let mut rest: &[u8] = &self.compressed;
        loop {
            let step = inflate(&mut state, rest, &mut buffer, MZFlush::None);
            rest = rest.get(step.bytes_consumed..).unwrap_or_default();
            if content.len() + step.bytes_written > most {
                return Err(CmsError::Limit("more than 20 octets come out of the compressed data for one in it"));
            }
            if content.len() + step.bytes_written > limit {
                return Err(CmsError::Limit("what comes out of the compressed data is bigger than a message may be"));
            }
            content.extend_from_slice(buffer.get(..step.bytes_written).unwrap_or_default());
            match step.status {
                Ok(MZStatus::StreamEnd) if rest.is_empty() => return Ok(Bytes::from(content)),
                Ok(MZStatus::StreamEnd) => return Err(broken("octets follow the zlib stream")),
                Ok(MZStatus::Ok) if step.bytes_written > 0 || step.bytes_consumed > 0 => {}
                Ok(MZStatus::Ok) | Err(MZError::Buf) => return Err(broken("the zlib stream is cut off")),
                Ok(MZStatus::NeedDict) | Err(_) => return Err(broken("no zlib stream (RFC 1950)")),
            }
        }
    }
}

fn broken(why: &'static str) -> CmsError {
    CmsError::Malformed { what: "compressed data", offset: 0, why }
}

/// Reads compressed data as a fuzzer gives it: no crash, and what comes out keeps to its bounds.
#[doc(hidden)]
pub fn fuzz_compressed_data(data: &[u8]) {
    const LIMIT: usize = 1 << 20;
    if let Ok(read) = CompressedData::parse(&Bytes::copy_from_slice(data))
        && let Ok(content) = read.open(LIMIT)
    {
        assert!(content.len() <= LIMIT && content.len() <= read.compressed.len() * RATIO);
    }
}

//! Files of keys and certificates of any usual form.

use zeroize::Zeroizing;

use super::kdf::{Password, Work};
use super::pbe::Derived;
use super::{Bundle, Import, MAX_FILE, Pkcs12Error, der, malformed};
use crate::pki::asn1::{Reader, number, sequence, tag, write};
use crate::pki::pem;

/// Content of OBJECT IDENTIFIERs.
mod id {
    pub(super) const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
}

/// Reads any of: PKCS#12, PEM with keys (PKCS#8, encrypted PKCS#8, PKCS#1, SEC 1) and certificates, DER of one of these.
/// Without a password the empty one is tried.
pub fn read_any(octets: &[u8], password: Option<&str>) -> Result<Bundle, Pkcs12Error> {
    let without = password.is_none();
    read(octets, password.unwrap_or_default()).map_err(|error| match error {
        Pkcs12Error::Password if without => Pkcs12Error::PasswordNeeded,
        other => other,
    })
}

fn read(octets: &[u8], password: &str) -> Result<Bundle, Pkcs12Error> {
    if octets.len() > MAX_FILE {
        return Err(Pkcs12Error::Malformed(format!("{} octets, at most {MAX_FILE} are read", octets.len())));
    }
    if octets.first() == Some(&tag::SEQUENCE) {
        return read_der(octets, password);
    }
    let mut bundle = Bundle::default();
    for block in pem::blocks(octets).map_err(Pkcs12Error::Malformed)? {
        match block.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => bundle.add_certificate(&block.octets)?,
            label if block.has_headers && label.ends_with("PRIVATE KEY") => {
                return Err(Pkcs12Error::Unsupported(
                    "a key encrypted the old way of PEM (Proc-Type): turn it into PKCS#8 with `openssl pkcs8 -topk8`"
                        .to_owned(),
                ));
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" | "PKCS12" => {
                let read = read_der(&block.octets, password)?;
                read.keys.into_iter().for_each(|key| bundle.add_key(key));
                bundle.skipped.extend(read.skipped);
                for certificate in read.certificates {
                    if !bundle.certificates.contains(&certificate) {
                        bundle.certificates.push(certificate);
                    }
                }
            }
            "EC PARAMETERS" => {}
            other => bundle.skip(format!("a PEM block {other}"))?,
        }
    }
    if bundle.keys.is_empty() && bundle.certificates.is_empty() && bundle.skipped.is_empty() {
        return Err(Pkcs12Error::Malformed(
            "neither DER nor PEM: PKCS#12, a private key (PKCS#8, PKCS#1, SEC 1) or a certificate is expected"
                .to_owned(),
        ));
    }
    Ok(bundle)
}

/// One DER (PKCS#12: BER) value, told by its first fields.
fn read_der(octets: &[u8], password: &str) -> Result<Bundle, Pkcs12Error> {
    let converted = der(octets)?;
    let mut outer = Reader::new(&converted);
    let whole = outer.expect(tag::SEQUENCE, "a SEQUENCE").map_err(malformed)?;
    outer.done().map_err(malformed)?;
    let mut fields = whole.reader();
    let first = fields.any().map_err(malformed)?;
    let second = fields.any().map_err(malformed)?;
    let mut bundle = Bundle::default();
    match (first.tag, second.tag) {
        (tag::INTEGER, tag::SEQUENCE) if first.value == [3] => return Import::run(octets, password),
        (tag::INTEGER, tag::SEQUENCE) => bundle.add_key(Zeroizing::new(whole.full.to_vec())),
        (tag::INTEGER, tag::INTEGER) => bundle.add_key(pkcs1_to_pkcs8(whole.full)),
        (tag::INTEGER, tag::OCTET_STRING) => bundle.add_key(sec1_to_pkcs8(whole.full, fields)?),
        (tag::SEQUENCE, tag::OCTET_STRING) => {
            let mut import = Import {
                password: Password::new(password),
                work: Work::new(),
                derived: Derived::default(),
                bags: 0,
                bundle: Bundle::default(),
            };
            bundle.add_key(import.shrouded(whole)?);
        }
        (tag::SEQUENCE, tag::SEQUENCE) => bundle.add_certificate(octets)?,
        _ => {
            return Err(Pkcs12Error::Malformed(
                "DER of another kind: PKCS#12, a private key (PKCS#8, PKCS#1, SEC 1) or a certificate is expected"
                    .to_owned(),
            ));
        }
    }
    Ok(bundle)
}

/// RSAPrivateKey (RFC 8017 A.1.2) in a PrivateKeyInfo.
fn pkcs1_to_pkcs8(key: &[u8]) -> Zeroizing<Vec<u8>> {
    let algorithm = sequence(&[&write(tag::OID, &[id::RSA_ENCRYPTION]), &write(tag::NULL, &[])]);
    Zeroizing::new(sequence(&[&number(0), &algorithm, &Zeroizing::new(write(tag::OCTET_STRING, &[key]))]))
}

/// ECPrivateKey (RFC 5915) in a PrivateKeyInfo; the curve is named in its `parameters`.
fn sec1_to_pkcs8(key: &[u8], mut rest: Reader<'_>) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    let curve = rest.optional(tag::constructed(0)).map_err(malformed)?;
    let Some(curve) = curve else {
        return Err(Pkcs12Error::Unsupported("an EC private key that does not name its curve".to_owned()));
    };
    let algorithm = sequence(&[&write(tag::OID, &[id::EC_PUBLIC_KEY]), curve.value]);
    Ok(Zeroizing::new(sequence(&[&number(0), &algorithm, &Zeroizing::new(write(tag::OCTET_STRING, &[key]))])))
}

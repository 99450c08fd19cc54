mod post_quantum;

use std::path::Path;
use std::process::{Command, Output};

mod several;

use super::attributes::attribute_parts;
use super::*;
use crate::cms::algorithm::{Capabilities, Legacy};
use crate::keys::{KeyAnswer, KeyOperation, SoftwareKey};
use crate::pki::authority::{Issued, NewKey, Recipe, issue};

pub(in crate::cms) const CONTENT: &[u8] =
    b"Content-Type: text/plain\r\n\r\nGr\xc3\xbc\xc3\x9fe, lange Zeilen und kurze\r\n";
pub(in crate::cms) const OLD: Legacy = Legacy::ALL;

pub(in crate::cms) fn now() -> Timestamp {
    Timestamp::from_second(1_780_000_000).unwrap()
}

/// A self-signed certificate for `alice@example.org`: issued once a kind and run, for RSA keys take time.
pub(crate) fn identity(kind: NewKey) -> Issued {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex};
    static MADE: LazyLock<Mutex<HashMap<NewKey, Issued>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // An X25519 key signs nothing: a CA of its own signs its certificate.
    let issuer = || issue(&Recipe::authority("Test CA", now(), NewKey::P256), None);
    let recipe = Recipe::mailbox("alice@example.org", now(), kind);
    made.entry(kind).or_insert_with(|| issue(&recipe, (kind == NewKey::X25519).then(issuer).as_ref())).clone()
}

pub(crate) use crate::outside::corpora;

/// Runs `openssl` in `dir`; `None` with a line that says so where there is none.
pub(in crate::cms) fn openssl(dir: &Path, arguments: &[&str]) -> Option<Output> {
    let present = crate::outside::peers(&["openssl"]);
    present.then(|| Command::new("openssl").args(arguments).current_dir(dir).output().expect("openssl runs"))
}

/// DER of a file that may be PEM.
pub(in crate::cms) fn read_object(path: &Path) -> Bytes {
    let octets = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if octets.first() == Some(&0x30) {
        return Bytes::from(octets);
    }
    let text = String::from_utf8(octets).unwrap();
    let mut lines = text
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN CMS") && !line.starts_with("-----BEGIN PKCS7"))
        .skip(1);
    let body: String = lines.by_ref().take_while(|line| !line.starts_with("-----END")).collect();
    Bytes::from(base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap())
}

#[test]
fn many_names_name_what_one_of_them_names() {
    let ca = issue(&Recipe::authority("Test CA", now(), NewKey::P256), None);
    let [one, two, three] = ["a@b.example", "c@b.example", "e@b.example"]
        .map(|mailbox| issue(&Recipe::mailbox(mailbox, now(), NewKey::P256), Some(&ca)).certificate);
    let key = two.subject_key_identifier().map(Bytes::copy_from_slice).unwrap();
    let swapped = CertificateId::IssuerAndSerial {
        issuer: Bytes::copy_from_slice(three.serial()),
        serial: Bytes::copy_from_slice(three.issuer()),
    };
    let ids = [CertificateId::of(&one), CertificateId::SubjectKeyIdentifier(key), swapped];
    let names: CertificateIds<'_> = ids.iter().collect();
    for (certificate, named) in [(&one, true), (&two, true), (&three, false)] {
        assert_eq!(names.name(certificate), named, "{certificate:?}");
        assert_eq!(ids.iter().any(|id| id.names(certificate)), named, "{certificate:?}");
    }
}

fn parameters(signer: &Certificate, scheme: SignatureScheme) -> SignParameters<'_> {
    SignParameters {
        signer,
        chain: &[],
        scheme,
        digest: scheme.digest(),
        signing_time: now(),
        capabilities: &[
            super::super::algorithm::ContentEncryption::Aes256Gcm,
            super::super::algorithm::ContentEncryption::Aes128Cbc,
        ],
        encryption_certificate: None,
    }
}

fn sign_with(key: &SoftwareKey, scheme: SignatureScheme, message: Bytes) -> Vec<u8> {
    let KeyAnswer::Signature(signature) = key.perform(&KeyOperation::Sign { key: key.id(), scheme, message }).unwrap()
    else {
        panic!("a signature is expected")
    };
    signature
}

fn sign(issued: &Issued, scheme: SignatureScheme, content: &[u8], opaque: bool) -> Bytes {
    let key = SoftwareKey::from_pkcs8(&issued.pkcs8).unwrap();
    let econtent = opaque.then(|| Bytes::copy_from_slice(content));
    let prepared =
        prepare(&parameters(&issued.certificate, scheme), &digest(scheme.digest(), content), econtent).unwrap();
    let signature = sign_with(&key, scheme, prepared.to_sign());
    prepared.finish(&signature).unwrap()
}

/// Verifies all signers with the certificates inside; no signer is an error.
fn verify_all(data: &SignedData, content: &[u8], legacy: Legacy) -> Result<(), CmsError> {
    let digests = ContentDigests::new(content);
    let nobody = CmsError::Rule { rule: "test", why: "nobody's signature" };
    let mut result = Err(nobody.clone());
    for signer in &data.signers {
        let certificate =
            data.certificates.iter().find(|certificate| signer.id.names(certificate)).ok_or(nobody.clone())?;
        signer.verify_with(data, &digests, certificate, certificate.public_key(), legacy)?;
        result = Ok(());
    }
    result
}

fn cases() -> Vec<(Issued, SignatureScheme)> {
    let rsa = identity(NewKey::Rsa2048);
    vec![
        (rsa.clone(), SignatureScheme::RsaPkcs1(Digest::Sha256)),
        (rsa.clone(), SignatureScheme::RsaPkcs1(Digest::Sha512)),
        (rsa.clone(), SignatureScheme::RsaPss(Digest::Sha256, 32)),
        (identity(NewKey::P256), SignatureScheme::Ecdsa(Digest::Sha256)),
        (rsa.clone(), SignatureScheme::RsaPkcs1(Digest::Sha384)),
        (rsa, SignatureScheme::RsaPss(Digest::Sha512, 64)),
        (identity(NewKey::P384), SignatureScheme::Ecdsa(Digest::Sha384)),
        (identity(NewKey::P521), SignatureScheme::Ecdsa(Digest::Sha512)),
        (identity(NewKey::Ed25519), SignatureScheme::Ed25519),
    ]
}

#[test]
fn what_is_signed_verifies_and_says_what_was_announced() {
    for (issued, scheme) in cases() {
        for opaque in [false, true] {
            let data = SignedData::parse(&sign(&issued, scheme, CONTENT, opaque)).unwrap();
            assert_eq!(data.econtent.as_deref(), opaque.then_some(CONTENT));
            assert_eq!(data.econtent_type, "1.2.840.113549.1.7.1");
            assert_eq!(data.odd, Vec::<String>::new());
            assert_eq!(data.certificates, std::slice::from_ref(&issued.certificate));
            let [signer] = &data.signers[..] else { panic!("one signer") };
            assert_eq!(signer.signing_time, Some(now()));
            assert_eq!(signer.scheme, Ok(scheme));
            let said = Capabilities::read(signer.capabilities.as_ref().unwrap()).unwrap().unwrap();
            assert_eq!(said.content, parameters(&issued.certificate, scheme).capabilities);
            verify_all(&data, CONTENT, Legacy::default()).unwrap();
            assert_eq!(
                verify_all(&data, b"other", Legacy::default()),
                Err(CmsError::Unauthentic("the content's digest"))
            );
        }
    }
}

#[test]
fn the_encryption_certificate_is_announced_and_included() {
    let (signer, other) = (identity(NewKey::P256), identity(NewKey::Rsa2048));
    let mut how = parameters(&signer.certificate, SignatureScheme::Ecdsa(Digest::Sha256));
    how.encryption_certificate = Some(&other.certificate);
    let prepared = prepare(&how, &digest(Digest::Sha256, CONTENT), None).unwrap();
    let signature = sign_with(&SoftwareKey::from_pkcs8(&signer.pkcs8).unwrap(), how.scheme, prepared.to_sign());
    let data = SignedData::parse(&prepared.finish(&signature).unwrap()).unwrap();
    verify_all(&data, CONTENT, Legacy::default()).unwrap();
    assert_eq!(data.certificates.len(), 2);
    let preferred = data.signers[0].encryption_key_preference.clone().unwrap();
    assert!(preferred.names(&other.certificate) && !preferred.names(&signer.certificate));
}

#[test]
fn a_digest_that_does_not_go_with_the_scheme_is_refused() {
    let issued = identity(NewKey::P256);
    let mut how = parameters(&issued.certificate, SignatureScheme::Ecdsa(Digest::Sha256));
    how.digest = Digest::Sha512;
    assert!(matches!(prepare(&how, &[0; 64], None), Err(CmsError::Algorithm(_))));
    how.scheme = SignatureScheme::Ecdsa(Digest::Sha1);
    how.digest = Digest::Sha1;
    assert!(matches!(prepare(&how, &[0; 20], None), Err(CmsError::Algorithm(_))));
}

/// Every octet of the SignedData changed, one at a time: it may stop being read, it may still verify where the octet is not
/// protected (a certificate's own signature, a version), but never over another content.
#[test]
fn no_changed_octet_lets_another_content_verify() {
    let issued = identity(NewKey::P256);
    let good = sign(&issued, SignatureScheme::Ecdsa(Digest::Sha256), CONTENT, true);
    for position in 0..good.len() {
        let mut bad = good.to_vec();
        bad[position] ^= 0x01;
        if let Ok(data) = SignedData::parse(&Bytes::from(bad)) {
            let content = data.econtent.clone().unwrap_or_default();
            if verify_all(&data, &content, Legacy::default()).is_ok() {
                assert_eq!(content, CONTENT, "octet {position}");
            }
        }
    }
}

/// A SignedData over `content` with these parts of the SignerInfo; signed with the key over `signed`.
fn forge(
    issued: &Issued,
    content: Option<&[u8]>,
    kind: ObjectIdentifier,
    attributes: Option<&[u8]>,
    signed: &[u8],
) -> Bytes {
    forge_with(issued, SignatureScheme::Ecdsa(Digest::Sha256), content, kind, attributes, signed)
}

fn forge_with(
    issued: &Issued,
    scheme: SignatureScheme,
    content: Option<&[u8]>,
    kind: ObjectIdentifier,
    attributes: Option<&[u8]>,
    signed: &[u8],
) -> Bytes {
    let key = SoftwareKey::from_pkcs8(&issued.pkcs8).unwrap();
    let signature = sign_with(&key, scheme, Bytes::copy_from_slice(signed));
    let digest_algorithm = crate::cms::algorithm::digest_algorithm_der(scheme.digest());
    let mut attributes = attributes.unwrap_or_default().to_vec();
    if let Some(first) = attributes.first_mut() {
        *first = 0xa0;
    }
    let signer = write::sequence(&[
        &write::integer(1),
        &CertificateId::issuer_and_serial_der(&issued.certificate, tag::SEQUENCE),
        &digest_algorithm,
        &attributes,
        &crate::cms::algorithm::signature_scheme_der(scheme),
        &write::octet_string(&signature),
    ]);
    let econtent = content.map(|content| write::element(0xa0, &[&write::octet_string(content)])).unwrap_or_default();
    let data = write::sequence(&[
        &write::integer(1),
        &write::element(tag::SET, &[&digest_algorithm]),
        &write::sequence(&[&write::oid(&kind), &econtent]),
        &write::element(0xa0, &[issued.certificate.der()]),
        &write::element(tag::SET, &[&signer]),
    ]);
    Bytes::from(write::sequence(&[&write::oid(&ID_SIGNED_DATA), &write::element(0xa0, &[&data])]))
}

fn attribute(oid: &str, values: &[&[u8]]) -> Vec<u8> {
    write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap(oid)), &write::element(tag::SET, values)])
}

/// draft-ietf-lamps-cms-euf-cma-signeddata: the signed attributes of a good message, given out as the content of one without
/// attributes: the signature's octets fit.
#[test]
fn a06_attributes_given_out_as_content_are_refused() {
    let issued = identity(NewKey::P256);
    let good = SignedData::parse(&sign(&issued, SignatureScheme::Ecdsa(Digest::Sha256), CONTENT, false)).unwrap();
    let attributes = good.signers[0].attributes.as_ref().unwrap().candidates().next().unwrap().to_vec();
    let forged = SignedData::parse(&forge(&issued, Some(&attributes), ID_DATA, None, &attributes)).unwrap();
    let content = forged.econtent.clone().unwrap();
    let error = verify_all(&forged, &content, Legacy::default()).unwrap_err();
    assert!(error.to_string().contains("euf-cma"), "{error}");
    // The same the other way, without signed attributes at all, is RFC 5652's plain form and good.
    let plain = SignedData::parse(&forge(&issued, Some(CONTENT), ID_DATA, None, CONTENT)).unwrap();
    verify_all(&plain, CONTENT, Legacy::default()).unwrap();
    // A content other than id-data needs attributes.
    let other = SignedData::parse(&forge(&issued, Some(CONTENT), ID_SIGNED_DATA, None, CONTENT)).unwrap();
    assert!(verify_all(&other, CONTENT, Legacy::default()).is_err());
}

#[test]
fn a06_content_type_and_message_digest_rules_hold() {
    let issued = identity(NewKey::P256);
    let id_data = write::oid(&ID_DATA);
    let other = write::oid(&ID_SIGNED_DATA);
    let md = write::octet_string(&digest(Digest::Sha256, CONTENT));
    let (ct, mdo, time) = ("1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4", "1.2.840.113549.1.9.5");
    let sct = "1.2.840.113549.1.9.16.2.47";
    let wrong_certificate =
        write::sequence(&[&write::sequence(&[&write::sequence(&[&write::octet_string(&[0; 32])])])]);
    let hash = digest(Digest::Sha256, issued.certificate.der());
    let right_certificate = write::sequence(&[&write::sequence(&[&write::sequence(&[&write::octet_string(&hash)])])]);
    let sets: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("good", vec![attribute(ct, &[&id_data]), attribute(mdo, &[&md])]),
        ("no contentType", vec![attribute(mdo, &[&md])]),
        ("no messageDigest", vec![attribute(ct, &[&id_data])]),
        ("another contentType", vec![attribute(ct, &[&other]), attribute(mdo, &[&md])]),
        ("two contentType values", vec![attribute(ct, &[&id_data, &id_data]), attribute(mdo, &[&md])]),
        (
            "two contentType attributes",
            vec![attribute(ct, &[&id_data]), attribute(ct, &[&id_data]), attribute(mdo, &[&md])],
        ),
        (
            "two messageDigest values",
            vec![attribute(ct, &[&id_data]), attribute(mdo, &[&md, &write::octet_string(&[0; 32])])],
        ),
        (
            "two messageDigest attributes",
            vec![attribute(ct, &[&id_data]), attribute(mdo, &[&md]), attribute(mdo, &[&md])],
        ),
        (
            "two signing certificates",
            vec![
                attribute(ct, &[&id_data]),
                attribute(mdo, &[&md]),
                attribute(sct, &[&right_certificate]),
                attribute(sct, &[&right_certificate]),
            ],
        ),
        (
            "two values of signing certificate",
            vec![
                attribute(ct, &[&id_data]),
                attribute(mdo, &[&md]),
                attribute(sct, &[&right_certificate, &right_certificate]),
            ],
        ),
        (
            "good, and its certificate named",
            vec![attribute(ct, &[&id_data]), attribute(mdo, &[&md]), attribute(sct, &[&right_certificate])],
        ),
        ("empty contentType", vec![attribute(ct, &[]), attribute(mdo, &[&md])]),
        (
            "signing time that is none",
            vec![
                attribute(ct, &[&id_data]),
                attribute(mdo, &[&md]),
                attribute(time, &[&write::element(0x17, &[b"9902301199"])]),
            ],
        ),
        (
            "another signing certificate",
            vec![attribute(ct, &[&id_data]), attribute(mdo, &[&md]), attribute(sct, &[&wrong_certificate])],
        ),
    ];
    for (name, set) in sets {
        let set = write::set_of(tag::SET, set);
        let data = SignedData::parse(&forge(&issued, Some(CONTENT), ID_DATA, Some(&set), &set)).unwrap();
        assert_eq!(verify_all(&data, CONTENT, Legacy::default()).is_ok(), name.starts_with("good"), "{name}");
    }
}

/// Attributes sent unsorted and signed sorted (as DER wants), or signed as sent: both are seen in the world.
#[test]
fn attributes_are_verified_as_sent_then_sorted() {
    let issued = identity(NewKey::P256);
    let md = attribute("1.2.840.113549.1.9.4", &[&write::octet_string(&digest(Digest::Sha256, CONTENT))]);
    let ct = attribute("1.2.840.113549.1.9.3", &[&write::oid(&ID_DATA)]);
    let sorted = write::set_of(tag::SET, vec![ct.clone(), md.clone()]);
    let unsorted = write::element(tag::SET, &[&md, &ct]);
    assert_ne!(sorted, unsorted);
    for signed in [&sorted, &unsorted] {
        let data = SignedData::parse(&forge(&issued, None, ID_DATA, Some(&unsorted), signed)).unwrap();
        verify_all(&data, CONTENT, Legacy::default()).unwrap();
    }
}

#[test]
fn signing_times_go_from_utc_time_to_generalized_time() {
    let issued = identity(NewKey::P256);
    for time in ["1950-01-01T00:00:00Z", "2049-12-31T23:59:59Z", "2050-01-01T00:00:00Z", "2026-02-28T12:34:56Z"] {
        let mut how = parameters(&issued.certificate, SignatureScheme::Ecdsa(Digest::Sha256));
        how.signing_time = time.parse().unwrap();
        let prepared = prepare(&how, &digest(Digest::Sha256, CONTENT), None).unwrap();
        let data = SignedData::parse(&prepared.finish(&[1]).unwrap()).unwrap();
        assert_eq!(data.signers[0].signing_time, Some(how.signing_time));
    }
}

#[test]
fn weak_things_verify_by_switch_only() {
    let Some(dir) = corpora() else { return };
    // RSA-1024 with SHA-1 (RFC 4134 section 4.2).
    let data = SignedData::parse(&read_object(&dir.join("rfc4134/files/4.2.bin"))).unwrap();
    let content = data.econtent.clone().unwrap();
    let result = |legacy| verify_all(&data, &content, legacy);
    result(OLD).unwrap();
    for legacy in [Legacy::default(), Legacy { weak_keys: false, ..OLD }, Legacy { sha1_signatures: false, ..OLD }] {
        assert!(matches!(result(legacy), Err(CmsError::Algorithm(_))), "{legacy:?}");
    }
}

/// Foreign SignedData: what has to fail fails, what has to verify verifies.
#[test]
fn corpora_of_signed_data_give_the_expected_results() {
    let Some(dir) = corpora() else { return };
    let verdict = |path: &str, content: Option<&[u8]>| -> Result<(), CmsError> {
        let data = SignedData::parse(&read_object(&dir.join(path)))?;
        let inside = data.econtent.clone();
        verify_all(&data, content.or(inside.as_deref()).unwrap_or_default(), OLD)
    };
    for good in [
        "bc-cms-literals/NewSignedDataStreamTest.encapSigData.der",
        "bc-cms-literals/NewSignedDataTest.noAttrEncData.der",
        "bc-cms-literals/NewSignedDataTest.xtraCounterSig.der",
        "rfc4134/files/4.2.bin",
        "rfc4134/files/4.5.bin",
    ] {
        assert_eq!(verdict(good, None), Ok(()), "{good}");
    }
    let openssl_content = std::fs::read(dir.join("openssl-cms/smcont.txt")).unwrap();
    for bad in ["bad_signtime_attr", "no_ct_attr", "no_md_attr", "ct_multiple_attr"] {
        assert!(verdict(&format!("openssl-cms/cms_data/{bad}.cms"), Some(&openssl_content)).is_err(), "{bad}");
    }
    for bad in ["wrongRSASHA1Message", "wrongRSASHA1MessageWithAttributes", "rawGost"] {
        assert!(verdict(&format!("bc-cms-literals/NewSignedDataTest.{bad}.der"), None).is_err(), "{bad}");
    }
    assert!(verdict("openssl-cms/cms_data/pkcs7-md4.pem", None).is_err());
    // DSA is not known here: named as such, and no signature.
    let dsa = SignedData::parse(&read_object(&dir.join("rfc4134/files/4.1.bin"))).unwrap();
    assert!(matches!(dsa.signers[0].scheme, Err(CmsError::Algorithm(_))));
    assert!(verify_all(&dsa, &dsa.econtent.clone().unwrap(), OLD).is_err());
    // Certificates only: no signer, so no signature.
    let bag = SignedData::parse(&read_object(&dir.join("rfc4134/files/4.11.bin"))).unwrap();
    assert!(bag.signers.is_empty() && verify_all(&bag, b"", OLD).is_err());
}

#[test]
fn openssl_verifies_what_is_signed_here() {
    // OpenSSL 3.0 knows no Ed25519 in CMS.
    for (issued, scheme) in cases().into_iter().filter(|(_, scheme)| *scheme != SignatureScheme::Ed25519) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("content"), CONTENT).unwrap();
        for opaque in [false, true] {
            std::fs::write(dir.path().join("signed"), sign(&issued, scheme, CONTENT, opaque)).unwrap();
            let mut arguments =
                vec!["cms", "-verify", "-binary", "-inform", "DER", "-in", "signed", "-noverify", "-out", "out"];
            if !opaque {
                arguments.extend(["-content", "content"]);
            }
            let Some(output) = openssl(dir.path(), &arguments) else { return };
            assert!(output.status.success(), "{scheme:?}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), CONTENT);
        }
    }
}

#[test]
fn what_openssl_signs_verifies_here() {
    for (issued, scheme) in cases().into_iter().filter(|(_, scheme)| *scheme != SignatureScheme::Ed25519) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, octets: &[u8]| std::fs::write(dir.path().join(name), octets).unwrap();
        file("content", CONTENT);
        file("key", &issued.pkcs8);
        let pem = |label: &str, der: &[u8]| {
            format!(
                "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
                base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der)
            )
        };
        file("certificate", pem("CERTIFICATE", issued.certificate.der()).as_bytes());
        let digest = scheme.digest().name().replace('-', "").to_lowercase();
        for extra in [&[] as &[&str], &["-nodetach"], &["-nodetach", "-keyid"], &["-nodetach", "-stream"]] {
            let mut arguments =
                vec!["cms", "-sign", "-binary", "-outform", "DER", "-in", "content", "-signer", "certificate"];
            arguments.extend(["-inkey", "key", "-keyform", "DER", "-md", &digest, "-out", "signed"]);
            // Any salt is read: here the longest that there is room for.
            if matches!(scheme, SignatureScheme::RsaPss(..)) {
                arguments.extend(["-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:-2"]);
            }
            arguments.extend(extra);
            let Some(output) = openssl(dir.path(), &arguments) else { return };
            let said = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() && extra.len() == 2 {
                eprintln!("skipped: openssl cannot sign with {extra:?} here: {said}");
                continue;
            }
            assert!(output.status.success(), "{said}");
            let data = SignedData::parse(&Bytes::from(std::fs::read(dir.path().join("signed")).unwrap())).unwrap();
            assert_eq!(data.econtent.as_deref(), (!extra.is_empty()).then_some(CONTENT));
            verify_all(&data, CONTENT, Legacy::default()).unwrap();
        }
    }
}

#[test]
fn a_thousand_attributes_or_signers_are_too_many() {
    let issued = identity(NewKey::P256);
    let good = forge(&issued, None, ID_DATA, None, CONTENT);
    let one = SignedData::parse(&good).unwrap().signers.len();
    assert_eq!(one, 1);
    let (_, content, _) = content_of(&good, &[ID_SIGNED_DATA]).unwrap();
    let mut fields = content.reader();
    let parts: Vec<&[u8]> = std::iter::from_fn(|| fields.element().ok().map(|element| element.raw)).collect();
    let signer = Reader::der(parts[4]).element().unwrap().content;
    let many = write::element(tag::SET, &vec![signer; MAX_SIGNERS + 1]);
    let data = write::sequence(&[parts[0], parts[1], parts[2], parts[3], &many]);
    let all = write::sequence(&[&write::oid(&ID_SIGNED_DATA), &write::element(0xa0, &[&data])]);
    assert_eq!(SignedData::parse(&Bytes::from(all)).unwrap_err(), CmsError::Limit("more than 100 signers"));
    assert!(attribute_parts(&attribute("1.2.3", &[])).is_err());
}

#[test]
fn fuzz_body_holds_on_seeds() {
    let issued = identity(NewKey::P256);
    let good = sign(&issued, SignatureScheme::Ecdsa(Digest::Sha256), CONTENT, true);
    fuzz_signed_data(&good);
    for position in (0..good.len()).step_by(7) {
        let mut bad = good.to_vec();
        bad[position] = bad[position].wrapping_add(0x81);
        fuzz_signed_data(&bad);
        fuzz_signed_data(&good[..position]);
    }
}

proptest::proptest! {
    #[test]
    fn fuzz_body_holds_on_any_octets(data: Vec<u8>) {
        fuzz_signed_data(&data);
    }
}

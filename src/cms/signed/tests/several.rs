//! Several signers, countersignatures, and signatures without signed attributes.

use super::*;

/// The last element inside a ContentInfo's SignedData: signerInfos, with all before it.
fn with_signers(object: &[u8], change: impl Fn(Vec<u8>) -> Vec<u8>) -> Bytes {
    let (_, content, _) = content_of(object, &[ID_SIGNED_DATA]).unwrap();
    let mut fields = content.reader();
    let mut parts: Vec<Vec<u8>> =
        std::iter::from_fn(|| fields.element().ok().map(|element| element.raw.to_vec())).collect();
    let set = parts.pop().unwrap();
    parts.push(change(set));
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    write::sequence(&[&write::oid(&ID_SIGNED_DATA), &write::element(0xa0, &[&write::sequence(&parts)])]).into()
}

fn signed_by(signers: &[(Issued, SignatureScheme)], opaque: bool) -> Bytes {
    let all: Vec<_> = signers.iter().map(|(issued, scheme)| parameters(&issued.certificate, *scheme)).collect();
    let digests: Vec<_> = signers.iter().map(|(_, scheme)| digest(scheme.digest(), CONTENT)).collect();
    let both: Vec<_> = all.iter().zip(digests.iter().map(Vec::as_slice)).collect();
    let prepared = prepare_all(&both, opaque.then(|| Bytes::from_static(CONTENT))).unwrap();
    let signatures: Vec<Vec<u8>> = signers
        .iter()
        .zip(prepared.all_to_sign())
        .map(|((issued, scheme), message)| {
            sign_with(&SoftwareKey::from_pkcs8(&issued.pkcs8).unwrap(), *scheme, message)
        })
        .collect();
    prepared.finish_all(&signatures).unwrap()
}

fn two() -> Vec<(Issued, SignatureScheme)> {
    vec![
        (identity(NewKey::Rsa2048), SignatureScheme::RsaPss(Digest::Sha256, 32)),
        (identity(NewKey::P384), SignatureScheme::Ecdsa(Digest::Sha384)),
    ]
}

#[test]
fn several_signers_sign_and_each_is_verified() {
    for (signers, opaque) in [(two(), true), (two(), false), (cases(), true)] {
        let data = SignedData::parse(&signed_by(&signers, opaque)).unwrap();
        assert_eq!((data.signers.len(), data.econtent.is_some()), (signers.len(), opaque));
        verify_all(&data, CONTENT, Legacy::default()).unwrap();
        for (issued, scheme) in &signers {
            let found = |signer: &&SignerInfo| signer.id.names(&issued.certificate) && signer.scheme == Ok(*scheme);
            let signer = data.signers.iter().find(found).expect("a SignerInfo each");
            let key = issued.certificate.public_key();
            signer.verify(&data, CONTENT, &issued.certificate, key, Legacy::default()).unwrap();
            assert!(signer.verify(&data, b"other", &issued.certificate, key, Legacy::default()).is_err());
        }
    }
}

#[test]
fn a_signature_for_each_signer_is_asked_for() {
    let (signers, content) = (two(), digest(Digest::Sha256, CONTENT));
    let how = parameters(&signers[0].0.certificate, signers[0].1);
    assert!(matches!(prepare_all(&[], None), Err(CmsError::Rule { .. })));
    let prepared = prepare_all(&[(&how, &content), (&how, &content)], None).unwrap();
    assert!(prepared.clone().finish(b"one").is_err());
    assert!(prepared.clone().finish_all(&[b"one", b"two", b"six"]).is_err());
    assert!(prepared.finish_all(&[b"one", b"two"]).is_ok());
}

#[test]
fn openssl_verifies_several_signers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("signed"), signed_by(&two(), true)).unwrap();
    let arguments = ["cms", "-verify", "-binary", "-inform", "DER", "-in", "signed", "-noverify", "-out", "out"];
    let Some(output) = openssl(dir.path(), &arguments) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), CONTENT);
}

/// RFC 8419 section 3: over the attributes where there are some, else over the content itself, never its digest.
#[test]
fn ed25519_signs_with_and_without_attributes() {
    let issued = identity(NewKey::Ed25519);
    let forge = |signed: &[u8]| forge_with(&issued, SignatureScheme::Ed25519, Some(CONTENT), ID_DATA, None, signed);
    let verdict = |object: &Bytes| verify_all(&SignedData::parse(object).unwrap(), CONTENT, Legacy::default());
    assert_eq!(verdict(&forge(CONTENT)), Ok(()));
    assert!(verdict(&forge(&digest(Digest::Sha512, CONTENT))).is_err());
    assert_eq!(verdict(&sign(&issued, SignatureScheme::Ed25519, CONTENT, true)), Ok(()));
    // Its certificate is RFC 8410's, and verifies itself.
    let certificate = &issued.certificate;
    assert_eq!(certificate.public_key().kind(), crate::pki::public_key::KeyKind::Ed25519);
    let key = certificate.public_key();
    assert_eq!(key.verify(SignatureScheme::Ed25519, certificate.tbs(), certificate.signature()), Ok(()));
}

/// A6 does not depend on how it is signed: Ed25519, which signs the octets themselves, is as open to it as the others.
#[test]
fn a06_attributes_as_content_are_refused_whatever_the_scheme() {
    for (issued, scheme) in cases() {
        let good = SignedData::parse(&sign(&issued, scheme, CONTENT, false)).unwrap();
        let attributes = good.signers[0].attributes.as_ref().unwrap().candidates().next().unwrap().to_vec();
        let forged = forge_with(&issued, scheme, Some(&attributes), ID_DATA, None, &attributes);
        let error = verify_all(&SignedData::parse(&forged).unwrap(), &attributes, Legacy::default()).unwrap_err();
        assert!(error.to_string().contains("euf-cma"), "{scheme:?}: {error}");
    }
}

/// A countersignature is told; it is not checked, and neither helps nor harms the signature that it stands beside.
#[test]
fn countersignatures_are_told_and_not_counted() {
    let issued = identity(NewKey::P256);
    let good = sign(&issued, SignatureScheme::Ecdsa(Digest::Sha256), CONTENT, true);
    let counter = |value: &[u8]| {
        let attribute = attribute("1.2.840.113549.1.9.6", &[value]);
        with_signers(&good, |set| {
            let signer = Reader::der(&set).expect(tag::SET, "signerInfos").unwrap().reader().element().unwrap().content;
            let unsigned = write::element(0xa1, &[&attribute]);
            write::element(tag::SET, &[&write::sequence(&[signer, &unsigned])])
        })
    };
    // Any SignerInfo will do: this one signs something else.
    let (_, content, _) = content_of(&good, &[ID_SIGNED_DATA]).unwrap();
    let mut fields = content.reader();
    let parts: Vec<&[u8]> = std::iter::from_fn(|| fields.element().ok().map(|element| element.raw)).collect();
    let signer = Reader::der(parts[4]).expect(tag::SET, "signerInfos").unwrap().reader().element().unwrap().raw;
    let data = SignedData::parse(&counter(signer)).unwrap();
    let [told] = &data.signers[0].countersignatures[..] else { panic!("one countersignature") };
    assert!(told.id.names(&issued.certificate));
    assert_eq!(told.scheme, Ok(SignatureScheme::Ecdsa(Digest::Sha256)));
    verify_all(&data, CONTENT, Legacy::default()).unwrap();
    assert!(verify_all(&data, b"other", Legacy::default()).is_err());
    // One that cannot be read costs nothing.
    let data = SignedData::parse(&counter(&write::sequence(&[&write::integer(7)]))).unwrap();
    assert!(data.signers[0].countersignatures.is_empty());
    verify_all(&data, CONTENT, Legacy::default()).unwrap();
}

#[test]
fn foreign_countersignatures_are_told() {
    let Some(dir) = corpora() else { return };
    let data = read_object(&dir.join("bc-cms-literals/NewSignedDataTest.xtraCounterSig.der"));
    let data = SignedData::parse(&data).unwrap();
    let told: usize = data.signers.iter().map(|signer| signer.countersignatures.len()).sum();
    assert!(told >= 1, "{told}");
}

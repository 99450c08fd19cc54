mod shared;

use super::*;
use crate::cms::algorithm::Digest;
use crate::cms::signed::tests::{CONTENT, OLD, corpora, identity, openssl, read_object};
use crate::keys::{KeyAnswer, SoftwareKey, new_cek};
use crate::pki::authority::{Issued, NewKey};
use crate::pki::certificate::Certificate;

#[path = "tests/kem.rs"]
mod with_kem;

const CIPHERS: [ContentEncryption; 6] = [
    ContentEncryption::Aes128Cbc,
    ContentEncryption::Aes192Cbc,
    ContentEncryption::Aes256Cbc,
    ContentEncryption::Aes128Gcm,
    ContentEncryption::Aes192Gcm,
    ContentEncryption::Aes256Gcm,
];

fn scheme(rsa: KeyTransport) -> RecipientScheme {
    RecipientScheme { rsa, kdf: KeyDerivation::X963(Digest::Sha256) }
}

const OAEP: KeyTransport = KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256);

fn sealed(content: &[u8], how: ContentEncryption, recipients: &[(&Certificate, RecipientScheme)]) -> Bytes {
    seal(content.to_vec(), how, recipients, &new_cek(how).unwrap()).unwrap()
}

/// Opens with this key the RecipientInfo that names the certificate.
fn open_for(envelope: &EnvelopedData, key: &SoftwareKey, certificate: &Certificate) -> Result<Bytes, CmsError> {
    let named = |recipient: &&RecipientInfo| recipient.id.as_ref().is_some_and(|id| id.names(certificate));
    let recipient = envelope.recipients.iter().find(named).expect("a RecipientInfo that names the certificate");
    open_by(envelope, recipient, key)
}

fn open_by(envelope: &EnvelopedData, recipient: &RecipientInfo, key: &SoftwareKey) -> Result<Bytes, CmsError> {
    let operation = recipient.operation(key.id(), envelope.content, new_cek(envelope.content).unwrap())?;
    let Ok(KeyAnswer::Cek(cek)) = key.perform(&operation) else { panic!("a CEK is expected") };
    envelope.open(&cek)
}

fn key(issued: &Issued) -> SoftwareKey {
    SoftwareKey::from_pkcs8(&issued.pkcs8).unwrap()
}

#[test]
fn what_is_sealed_opens_for_each_recipient() {
    let kinds =
        [NewKey::Rsa2048, NewKey::Rsa3072, NewKey::P256, NewKey::P384, NewKey::P521, NewKey::X25519].map(identity);
    let all = &kinds;
    for how in CIPHERS {
        for rsa in [KeyTransport::RsaPkcs1, OAEP, KeyTransport::RsaOaep(Digest::Sha1, Digest::Sha1)] {
            let recipients: Vec<_> = all.iter().map(|issued| (&issued.certificate, scheme(rsa))).collect();
            let envelope = EnvelopedData::parse(&sealed(CONTENT, how, &recipients), Legacy::default()).unwrap();
            assert_eq!(envelope.content, how);
            assert_eq!(envelope.is_authenticated(), how.is_authenticated());
            assert_eq!(envelope.recipients.len(), all.len());
            for issued in all {
                assert_eq!(open_for(&envelope, &key(issued), &issued.certificate).unwrap(), CONTENT);
            }
        }
    }
}

/// RFC 5753 and RFC 8418: every key derivation that is written, over every curve, for every length of key.
#[test]
fn every_key_derivation_agrees_on_every_curve() {
    let digests = [Digest::Sha256, Digest::Sha384, Digest::Sha512];
    let derivations = digests.map(KeyDerivation::X963).into_iter().chain(digests.map(KeyDerivation::Hkdf));
    for kdf in derivations {
        for issued in [NewKey::P256, NewKey::P384, NewKey::P521, NewKey::X25519].map(identity) {
            for how in [ContentEncryption::Aes128Gcm, ContentEncryption::Aes192Gcm, ContentEncryption::Aes256Cbc] {
                let to = [(&issued.certificate, RecipientScheme { rsa: OAEP, kdf })];
                let envelope = EnvelopedData::parse(&sealed(CONTENT, how, &to), Legacy::default()).unwrap();
                let expected = KeyAgreement { kdf, cofactor: false, wrap: how.wrap() };
                assert_eq!(envelope.recipients[0].kind, RecipientKind::KeyAgreement(expected));
                assert_eq!(open_for(&envelope, &key(&issued), &issued.certificate).unwrap(), CONTENT);
            }
        }
        let read_only = RecipientScheme { rsa: OAEP, kdf: KeyDerivation::X963(Digest::Sha1) };
        let (issued, how) = (identity(NewKey::P256), ContentEncryption::Aes128Gcm);
        let to = [(&issued.certificate, read_only)];
        assert!(matches!(seal(CONTENT.to_vec(), how, &to, &new_cek(how).unwrap()), Err(CmsError::Algorithm(_))));
    }
    let signing = identity(NewKey::Ed25519);
    let how = ContentEncryption::Aes128Gcm;
    let to = [(&signing.certificate, scheme(OAEP))];
    assert!(matches!(seal(CONTENT.to_vec(), how, &to, &new_cek(how).unwrap()), Err(CmsError::Algorithm(_))));
}

/// RFC 9709: written by choice, read always; the CEK itself opens nothing (A5).
#[test]
fn a05_a_derived_key_is_written_by_choice() {
    let issued = identity(NewKey::P256);
    for cipher in CIPHERS {
        let cek = new_cek(cipher).unwrap();
        let how = ContentScheme { cipher, derived: true };
        let to = [(&issued.certificate, scheme(OAEP))];
        let object = seal(CONTENT.to_vec(), how, &to, &cek).unwrap();
        let envelope = EnvelopedData::parse(&object, Legacy::default()).unwrap();
        assert!(envelope.is_derived() && envelope.content == cipher);
        assert_eq!(open_for(&envelope, &key(&issued), &issued.certificate).unwrap(), CONTENT);
        // The same ciphertext, named without the derivation: the CEK is another key then.
        let mut plain = envelope.clone();
        plain.algorithm = ContentAlgorithm::new(cipher, envelope.algorithm.iv(), envelope.algorithm.tag_len).unwrap();
        assert_ne!(plain.open(&cek).ok().as_deref(), Some(CONTENT));
        assert!(!EnvelopedData::parse(&sealed(CONTENT, cipher, &to), Legacy::default()).unwrap().is_derived());
    }
}

/// GCM with tags of 12 to 15 octets: by the switch, checked, and told.
#[test]
fn a05_short_tags_are_told() {
    let issued = identity(NewKey::P256);
    let (how, cek) = (ContentEncryption::Aes256Gcm, new_cek(ContentEncryption::Aes256Gcm).unwrap());
    let object = seal(CONTENT.to_vec(), how, &[(&issued.certificate, scheme(OAEP))], &cek).unwrap();
    let whole = EnvelopedData::parse(&object, Legacy::default()).unwrap();
    assert_eq!(whole.weakness(), None);
    for length in 12..16 {
        let mut short = whole.clone();
        short.algorithm = ContentAlgorithm::new(how, whole.algorithm.iv(), length).unwrap();
        short.mac = whole.mac.slice(..length);
        assert_eq!(short.open(&cek).unwrap(), CONTENT);
        assert!(short.weakness().unwrap().contains(&length.to_string()));
        let mut wrong = short.mac.to_vec();
        wrong[length - 1] ^= 1;
        short.mac = wrong.into();
        assert_eq!(short.open(&cek), Err(CmsError::Crypto));
    }
}

#[test]
fn every_length_of_content_comes_out_as_it_went_in() {
    let issued = identity(NewKey::P256);
    for how in [ContentEncryption::Aes128Cbc, ContentEncryption::Aes256Gcm] {
        for length in (0..=64).chain([127, 128, 255, 256, 65_535, 65_536, 1 << 20]) {
            let content: Vec<u8> = (0..length).map(|position| (position % 251) as u8).collect();
            let envelope =
                EnvelopedData::parse(&sealed(&content, how, &[(&issued.certificate, scheme(OAEP))]), Legacy::default())
                    .unwrap();
            assert_eq!(open_for(&envelope, &key(&issued), &issued.certificate).unwrap(), content, "{length}");
        }
    }
}

#[test]
fn the_last_cek_opens_where_the_octets_lie_and_the_same_comes_out() {
    let issued = identity(NewKey::P256);
    for how in CIPHERS {
        for length in [0, 1, 15, 16, 17, 70_000] {
            let (content, cek) = (vec![7; length], new_cek(how).unwrap());
            let object = seal(content.clone(), how, &[(&issued.certificate, scheme(OAEP))], &cek).unwrap();
            let read = |octets: Vec<u8>| EnvelopedData::parse(&Bytes::from(octets), Legacy::default()).unwrap();
            let shared = EnvelopedData::parse(&object, Legacy::default()).unwrap();
            assert_eq!(shared.open_last(&cek).unwrap(), content, "held by others");
            let alone = read(object.to_vec());
            let place = alone.encrypted.as_ptr();
            let opened = alone.open_last(&cek).unwrap();
            assert_eq!(opened, content);
            assert!(length == 0 || opened.as_ptr() == place, "{how:?} {length}: copied");
            let other = read(object.to_vec()).open_last(&new_cek(how).unwrap());
            assert!(other.is_err() || (!how.is_authenticated() && other.unwrap() != content), "{how:?} {length}");
            let mut tampered = object.to_vec();
            *tampered.last_mut().unwrap() ^= 1;
            let tampered = read(tampered).open_last(&cek);
            assert!(tampered.is_err() || (!how.is_authenticated() && tampered.unwrap() != content), "{how:?} {length}");
        }
    }
}

#[test]
fn a_thousand_recipients_fit_in_one_envelope() {
    let issued = identity(NewKey::P256);
    let recipients = vec![(&issued.certificate, scheme(OAEP)); 1000];
    let envelope =
        EnvelopedData::parse(&sealed(CONTENT, ContentEncryption::Aes128Gcm, &recipients), Legacy::default()).unwrap();
    assert_eq!(envelope.recipients.len(), 1000);
    assert_eq!(open_by(&envelope, envelope.recipients.last().unwrap(), &key(&issued)).unwrap(), CONTENT);
}

#[test]
fn nobody_can_be_encrypted_to_by_mistake() {
    let issued = identity(NewKey::P256);
    let how = ContentEncryption::Aes128Cbc;
    let to = [(&issued.certificate, scheme(OAEP))];
    assert!(seal(CONTENT.to_vec(), how, &[], &new_cek(how).unwrap()).is_err());
    assert!(seal(CONTENT.to_vec(), how, &to, &new_cek(ContentEncryption::Aes256Cbc).unwrap()).is_err());
    let triple = ContentEncryption::TripleDesCbc;
    assert!(seal(CONTENT.to_vec(), triple, &to, &new_cek(triple).unwrap()).is_err());
    assert!(
        seal_with(CONTENT.len() + 1, |buffer| buffer.extend_from_slice(CONTENT), how, &to, &new_cek(how).unwrap())
            .is_err()
    );
}

/// Every octet of a GCM envelope changed, one at a time: what opens is the content, nothing else.
#[test]
fn a_changed_authenticated_envelope_opens_as_nothing_else() {
    let issued = identity(NewKey::P256);
    let key = key(&issued);
    let good = sealed(CONTENT, ContentEncryption::Aes256Gcm, &[(&issued.certificate, scheme(OAEP))]);
    for position in 0..good.len() {
        let mut bad = good.to_vec();
        bad[position] ^= 0x01;
        let Ok(envelope) = EnvelopedData::parse(&Bytes::from(bad), OLD) else { continue };
        for recipient in &envelope.recipients {
            if let RecipientKind::Other(_) = recipient.kind {
                continue;
            }
            if let Ok(content) = open_by(&envelope, recipient, &key) {
                assert_eq!(content, CONTENT, "octet {position}");
            }
        }
    }
}

/// A3, A4: whatever is wrong with the ciphertext, the key or the padding, it is one error.
#[test]
fn a03_a_failed_decryption_is_one_error() {
    let issued = identity(NewKey::P256);
    let key = key(&issued);
    for how in CIPHERS {
        let good =
            EnvelopedData::parse(&sealed(CONTENT, how, &[(&issued.certificate, scheme(OAEP))]), Legacy::default())
                .unwrap();
        let mut wrong = Vec::new();
        for length in [0, 1, 15, 17, good.encrypted.len() - 1] {
            wrong.push(good.encrypted.slice(..length.min(good.encrypted.len())));
        }
        for position in [0, good.encrypted.len() / 2, good.encrypted.len() - 1] {
            let mut bad = good.encrypted.to_vec();
            bad[position] ^= 0x80;
            wrong.push(Bytes::from(bad));
        }
        for encrypted in wrong {
            let bad = EnvelopedData { encrypted, ..good.clone() };
            match open_for(&bad, &key, &issued.certificate) {
                Err(error) => assert_eq!(error, CmsError::Crypto),
                Ok(content) => assert!(!how.is_authenticated() && content != CONTENT),
            }
        }
        assert!(matches!(good.open(&new_cek(how).unwrap()), Err(CmsError::Crypto)) || !how.is_authenticated());
        for length in [0usize, 1, 15, 16, 24, 32, 33] {
            if length != how.key_len() {
                assert_eq!(good.open(&zeroize::Zeroizing::new(vec![1; length])), Err(CmsError::Crypto));
            }
        }
    }
}

/// An envelope of these parts: what senders and attackers can write and `seal` never does.
fn envelope(authenticated: bool, infos: &[Vec<u8>], algorithm: &[u8], encrypted: &[u8], mac: Option<&[u8]>) -> Bytes {
    let info = write::sequence(&[&write::oid(&ID_DATA), algorithm, &write::element(0x80, &[encrypted])]);
    let mac = mac.map(write::octet_string).unwrap_or_default();
    let data = write::sequence(&[
        &write::integer(0),
        &write::element(tag::SET, &infos.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        &info,
        &mac,
    ]);
    let oid = if authenticated { ID_AUTH_ENVELOPED_DATA } else { ID_ENVELOPED_DATA };
    Bytes::from(write::sequence(&[&write::oid(&oid), &write::element(0xa0, &[&data])]))
}

fn algorithm(oid: &str, parameters: &[u8]) -> Vec<u8> {
    write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap(oid)), parameters])
}

/// A5: forty envelopes with a content encryption or key transport that is not exactly as its RFC says. None opens; a wrong
/// OAEP is never taken for v1.5.
#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn a05_forty_mutated_algorithms_are_refused() {
    const CBC: &str = "2.16.840.1.101.3.4.1.2";
    const GCM: &str = "2.16.840.1.101.3.4.1.6";
    const OAEP_OID: &str = "1.2.840.113549.1.1.7";
    const RSA: &str = "1.2.840.113549.1.1.1";
    let string = |length: usize| write::octet_string(&vec![7; length]);
    let gcm = |parts: &[&[u8]]| write::sequence(parts);
    let null: &[u8] = &[5, 0];
    let mut contents: Vec<(bool, Vec<u8>, usize)> = vec![
        (false, algorithm(CBC, &string(15)), 0),
        (false, algorithm(CBC, &string(17)), 0),
        (false, algorithm(CBC, &string(8)), 0),
        (false, algorithm(CBC, &string(0)), 0),
        (false, algorithm(CBC, null), 0),
        (false, algorithm(CBC, &[]), 0),
        (false, algorithm(CBC, &[string(16), string(16)].concat()), 0),
        (false, algorithm(CBC, &write::sequence(&[&string(16)])), 0),
        (false, algorithm(GCM, &gcm(&[&string(12), &write::integer(16)])), 0),
        (false, algorithm(GCM, &string(16)), 0),
        (true, algorithm(CBC, &string(16)), 0),
        (true, algorithm(CBC, &string(16)), 16),
        (true, algorithm(GCM, &gcm(&[&string(12), &write::integer(16)])), 15),
        (true, algorithm(GCM, &gcm(&[&string(12), &write::integer(16)])), 12),
        (true, algorithm(GCM, &gcm(&[&string(12), &write::integer(16)])), 0),
        (true, algorithm(GCM, &gcm(&[&string(12), &write::integer(16)])), 17),
        (true, algorithm(GCM, &gcm(&[&string(12), &write::integer(12)])), 12),
        (true, algorithm(GCM, &gcm(&[&string(12)])), 12),
        (true, algorithm(GCM, &gcm(&[&string(12), &write::integer(4)])), 4),
        (true, algorithm(GCM, &gcm(&[&string(12), &write::integer(0)])), 0),
        (true, algorithm(GCM, &gcm(&[&string(12), &write::integer(13)])), 13),
        (true, algorithm(GCM, &gcm(&[&string(11), &write::integer(16)])), 16),
        (true, algorithm(GCM, &gcm(&[&string(16), &write::integer(16)])), 16),
        (true, algorithm(GCM, &gcm(&[&string(12), &write::integer(16), null])), 16),
        (true, algorithm(GCM, &gcm(&[&write::integer(16), &string(12)])), 16),
        (true, algorithm(GCM, null), 16),
        (true, algorithm(GCM, &[]), 16),
        (true, algorithm(GCM, &string(12)), 16),
        (false, algorithm("1.2.840.113549.3.7", &string(8)), 0),
        (false, algorithm("1.2.840.113549.3.2", &write::sequence(&[&write::integer(58), &string(8)])), 0),
    ];
    contents.push((false, algorithm("2.16.840.1.101.3.4.1.1", &[]), 0)); // ECB
    contents.push((true, algorithm("2.16.840.1.101.3.4.1.7", &gcm(&[&string(12), &write::integer(16)])), 16)); // CCM
    let mut refused = 0;
    for (authenticated, algorithm, mac) in &contents {
        let mac = vec![1; *mac];
        let bytes = envelope(*authenticated, &[], algorithm, &[0; 32], authenticated.then_some(&mac));
        assert!(EnvelopedData::parse(&bytes, Legacy::default()).is_err(), "{algorithm:02x?}");
        refused += 1;
    }
    let issued = identity(NewKey::Rsa2048);
    let encrypted_cek = issued.certificate.public_key().transport(KeyTransport::RsaPkcs1, &[3; 16]).unwrap();
    let sha256 = algorithm("2.16.840.1.101.3.4.2.1", null);
    let mgf1 = |digest: &[u8]| write::element(0xa1, &[&algorithm("1.2.840.113549.1.1.8", digest)]);
    let hash = write::element(0xa0, &[&sha256]);
    let label = write::element(0xa2, &[&algorithm("1.2.840.113549.1.1.9", &write::octet_string(b"label"))]);
    let transports = [
        algorithm(OAEP_OID, &[]),
        algorithm(OAEP_OID, null),
        algorithm(OAEP_OID, &write::sequence(&[&hash])),
        algorithm(OAEP_OID, &write::sequence(&[&mgf1(&sha256), &hash])),
        algorithm(OAEP_OID, &write::sequence(&[&hash, &mgf1(&sha256), &label])),
        algorithm(OAEP_OID, &write::sequence(&[&hash, &mgf1(&sha256), null])),
        algorithm(OAEP_OID, &write::sequence(&[&hash, &mgf1(&[])])),
        algorithm(OAEP_OID, &write::sequence(&[&hash, &write::element(0xa1, &[&sha256])])),
        algorithm(RSA, &[]),
        algorithm(RSA, &write::sequence(&[])),
        algorithm("1.2.840.113549.1.1.11", null),
    ];
    let cipher = algorithm(CBC, &string(16));
    for transport in &transports {
        let id = CertificateId::issuer_and_serial_der(&issued.certificate, tag::SEQUENCE);
        let info = write::sequence(&[&write::integer(0), &id, transport, &write::octet_string(&encrypted_cek)]);
        let parsed = EnvelopedData::parse(&envelope(false, &[info], &cipher, &[0; 32], None), OLD).unwrap();
        assert!(matches!(parsed.recipients[0].kind, RecipientKind::Other(_)), "{transport:02x?}");
        assert!(
            parsed.recipients[0]
                .operation(key(&issued).id(), parsed.content, new_cek(parsed.content).unwrap())
                .is_err()
        );
        refused += 1;
    }
    assert!(refused >= 40, "{refused}");
    // The same frame with all as it should be is taken.
    EnvelopedData::parse(&envelope(false, &[], &cipher, &[0; 32], None), Legacy::default()).unwrap();
    let good = algorithm(GCM, &gcm(&[&string(12), &write::integer(16)]));
    EnvelopedData::parse(&envelope(true, &[], &good, &[0; 32], Some(&[1; 16])), Legacy::default()).unwrap();
}

/// A tag of 12 octets, by switch: the beginning of the tag of 16.
#[test]
fn a05_short_tags_are_checked_when_allowed() {
    let cek = new_cek(ContentEncryption::Aes256Gcm).unwrap();
    let how = ContentAlgorithm::new(ContentEncryption::Aes256Gcm, &[9; 12], 16).unwrap();
    for length in [0usize, 1, 16, 1000] {
        let mut buffer = vec![0x41; length];
        let tag_octets = cipher::seal(&how, &cek, &mut buffer, 0).unwrap();
        let parameters = write::sequence(&[&write::octet_string(&[9; 12])]);
        let bytes =
            envelope(true, &[], &algorithm("2.16.840.1.101.3.4.1.46", &parameters), &buffer, Some(&tag_octets[..12]));
        assert!(EnvelopedData::parse(&bytes, Legacy::default()).is_err());
        let parsed = EnvelopedData::parse(&bytes, Legacy { short_tags: true, ..Legacy::default() }).unwrap();
        assert_eq!(parsed.open(&cek).unwrap(), vec![0x41; length]);
        let mut mac = parsed.mac.to_vec();
        mac[11] ^= 1;
        assert_eq!(EnvelopedData { mac: Bytes::from(mac), ..parsed }.open(&cek), Err(CmsError::Crypto));
    }
}

/// RFC 9709: the key in use depends on the content encryption named, so that a re-wrap under another one does not open.
#[test]
fn a05_a_derived_cek_opens_only_under_the_algorithm_it_was_made_for() {
    let hex = |text: &str| {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(text.get(at..at + 2).unwrap(), 16).unwrap())
            .collect::<Vec<u8>>()
    };
    let cek = hex("c702e7d0a9e064b09ba55245fb733cf3");
    let info = hex("301b0609608648016503040106300e040c5c79058ba2f43447639d29e2");
    let key = cipher::derive(&cek, &info);
    assert_eq!(*key, hex("2124ffb29fac4e0fbbc7d5d87492bff3"));

    let inner =
        algorithm("2.16.840.1.101.3.4.1.6", &write::sequence(&[&write::octet_string(&[9; 12]), &write::integer(16)]));
    let derived = algorithm("1.2.840.113549.1.9.16.3.31", &inner);
    let mut buffer = CONTENT.to_vec();
    let how = ContentAlgorithm::new(ContentEncryption::Aes128Gcm, &[9; 12], 16).unwrap();
    let mac = cipher::seal(&how, &cipher::derive(&cek, &inner), &mut buffer, 0).unwrap();
    let cek = zeroize::Zeroizing::new(cek);
    let read = |algorithm: &[u8]| {
        EnvelopedData::parse(&envelope(true, &[], algorithm, &buffer, Some(&mac)), Legacy::default())
    };
    assert_eq!(read(&derived).unwrap().open(&cek).unwrap(), CONTENT);
    assert_eq!(read(&inner).unwrap().open(&cek), Err(CmsError::Crypto));
    for bad in [algorithm("1.2.840.113549.1.9.16.3.31", &[]), algorithm("1.2.840.113549.1.9.16.3.31", &derived)] {
        assert!(read(&bad).is_err());
    }
    assert!(EnvelopedData::parse(&envelope(false, &[], &derived, &buffer, None), Legacy::default()).is_err());
}

#[test]
fn padding_is_checked_whole() {
    let how = ContentAlgorithm::new(ContentEncryption::Aes128Cbc, &[0; 16], 0).unwrap();
    let key = aws_lc_rs::cipher::UnboundCipherKey::new(&aws_lc_rs::cipher::AES_128, &[1; 16]).unwrap();
    let raw = aws_lc_rs::cipher::EncryptingKey::cbc(key).unwrap();
    let decrypt = |last: [u8; 16]| {
        let mut block = last.to_vec();
        let iv = aws_lc_rs::cipher::EncryptionContext::Iv128(aws_lc_rs::iv::FixedLength::from([0; 16]));
        raw.less_safe_encrypt(&mut block, iv).unwrap();
        cipher::open(&how, &[1; 16], &block, &[], &[])
    };
    for padding in 1..=16u8 {
        let mut block = [0xee; 16];
        block[16 - usize::from(padding)..].fill(padding);
        assert_eq!(decrypt(block).unwrap(), vec![0xee; 16 - usize::from(padding)]);
        for position in 16 - usize::from(padding)..15 {
            let mut bad = block;
            bad[position] ^= 0x20;
            assert_eq!(decrypt(bad), Err(CmsError::Crypto));
        }
    }
    for last in [0u8, 17, 32, 255] {
        assert_eq!(decrypt([last; 16]), Err(CmsError::Crypto));
    }
}

#[test]
fn openssl_decrypts_what_is_sealed_here() {
    for (kind, label) in
        [(NewKey::Rsa2048, "RSA"), (NewKey::P256, "P-256"), (NewKey::P384, "P-384"), (NewKey::P521, "P-521")]
    {
        let issued = identity(kind);
        for how in CIPHERS {
            for rsa in [KeyTransport::RsaPkcs1, OAEP] {
                let dir = tempfile::tempdir().unwrap();
                std::fs::write(dir.path().join("sealed"), sealed(CONTENT, how, &[(&issued.certificate, scheme(rsa))]))
                    .unwrap();
                std::fs::write(dir.path().join("key"), &issued.pkcs8).unwrap();
                std::fs::write(dir.path().join("certificate"), pem(&issued.certificate)).unwrap();
                let arguments = [
                    "cms",
                    "-decrypt",
                    "-binary",
                    "-inform",
                    "DER",
                    "-in",
                    "sealed",
                    "-inkey",
                    "key",
                    "-keyform",
                    "DER",
                    "-recip",
                    "certificate",
                    "-out",
                    "out",
                ];
                let Some(output) = openssl(dir.path(), &arguments) else { return };
                assert!(output.status.success(), "{label} {how:?}: {}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), CONTENT);
            }
        }
    }
}

fn pem(certificate: &Certificate) -> String {
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate.der());
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

#[test]
fn what_openssl_encrypts_opens_here() {
    let options: [&[&str]; 8] = [
        &[],
        &["-keyopt", "rsa_padding_mode:oaep"],
        &["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"],
        &["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha512"],
        &["-keyopt", "ecdh_kdf_md:sha224"],
        &["-keyopt", "ecdh_kdf_md:sha256"],
        &["-keyopt", "ecdh_kdf_md:sha384"],
        &["-keyopt", "ecdh_kdf_md:sha512", "-keyopt", "ecdh_cofactor_mode:1"],
    ];
    for kind in [NewKey::Rsa2048, NewKey::P256, NewKey::P384, NewKey::P521] {
        let (issued, is_rsa) = (identity(kind), kind == NewKey::Rsa2048);
        for option in options {
            if !option.is_empty() && is_rsa != option[1].starts_with("rsa") {
                continue;
            }
            for how in ["-aes-128-cbc", "-aes-192-cbc", "-aes-256-cbc", "-des3", "-aes-128-gcm", "-aes-256-gcm"] {
                for extra in [&[] as &[&str], &["-keyid"], &["-stream"]] {
                    let dir = tempfile::tempdir().unwrap();
                    std::fs::write(dir.path().join("content"), CONTENT).unwrap();
                    std::fs::write(dir.path().join("certificate"), pem(&issued.certificate)).unwrap();
                    let mut arguments =
                        vec!["cms", "-encrypt", "-binary", "-outform", "DER", "-in", "content", "-out", "sealed", how];
                    arguments.extend(extra);
                    arguments.extend(["-recip", "certificate"]);
                    arguments.extend(option);
                    let Some(output) = openssl(dir.path(), &arguments) else { return };
                    let said = String::from_utf8_lossy(&output.stderr);
                    if !output.status.success() && (extra.contains(&"-keyid") || how == "-des3") {
                        continue; // a certificate without a key identifier; OpenSSL has no 3DES for this key wrap
                    }
                    assert!(output.status.success(), "{how} {option:?}: {said}");
                    let bytes = Bytes::from(std::fs::read(dir.path().join("sealed")).unwrap());
                    let envelope = EnvelopedData::parse(&bytes, OLD).unwrap();
                    if how == "-des3" {
                        assert!(EnvelopedData::parse(&bytes, Legacy::default()).is_err());
                        if !is_rsa {
                            assert!(matches!(envelope.recipients[0].kind, RecipientKind::Other(_))); // 3DES key wrap
                            continue;
                        }
                    }
                    assert_eq!(
                        open_for(&envelope, &key(&issued), &issued.certificate).unwrap(),
                        CONTENT,
                        "{how} {option:?}"
                    );
                }
            }
        }
    }
}

/// Foreign envelopes: what has to open opens, what has to fail fails cleanly.
#[test]
fn corpora_of_enveloped_data_give_the_expected_results() {
    let Some(dir) = corpora() else { return };
    let bc = dir.join("bc-cms-literals");
    let read_key = |name: &str| SoftwareKey::from_pkcs8(&std::fs::read(bc.join(name)).unwrap());
    let open = |file: &str, key: &SoftwareKey| {
        let envelope = EnvelopedData::parse(&read_object(&bc.join(file)), OLD)?;
        envelope
            .recipients
            .iter()
            .map(|recipient| open_by(&envelope, recipient, key))
            .next()
            .unwrap_or(Err(CmsError::Crypto))
    };
    let sha256 = |octets: &[u8]| {
        let unix: Vec<u8> = String::from_utf8_lossy(octets).replace("\r\n", "\n").into_bytes();
        Digest::Sha256.of(&unix).as_ref().iter().map(|octet| format!("{octet:02x}")).collect::<String>()
    };
    // Its public key is a BIT STRING with two unused bits, which aws-lc-rs refuses: the scalar alone is enough.
    let odd = std::fs::read(bc.join("NewEnvelopedDataTest.ecKeyAgreeKey.der")).unwrap();
    let curve = algorithm("1.2.840.10045.2.1", &write::oid(&ObjectIdentifier::new_unwrap("1.3.132.0.34")));
    let scalar = write::sequence(&[&write::integer(1), &write::octet_string(&odd[35..83])]);
    let ec = SoftwareKey::from_pkcs8(&write::sequence(&[&write::integer(0), &curve, &write::octet_string(&scalar)]))
        .unwrap();
    for file in ["NewEnvelopedDataTest.ecKeyAgreeMsgAES128.der", "NewEnvelopedDataTest.ecKeyAgreeMsgAES256.der"] {
        assert_eq!(
            sha256(&open(file, &ec).unwrap()),
            "78d8c0db31d01cb707e5169394b1afcacecec64938933494b085d83f001cb99a",
            "{file}"
        );
    }
    assert!(open("NewEnvelopedDataTest.ecMQVKeyAgreeMsgAES128.der", &ec).is_err());
    for (file, key) in [
        ("NewEnvelopedDataTest.tooShort3DES.der", "NewEnvelopedDataTest.tooShort3DESKey.der"),
        ("NewEnvelopedDataStreamTest.envData.der", "NewEnvelopedDataStreamTest.keyData.der"),
        ("AuthEnvelopedDataTest.Sample1.der", "AuthEnvelopedDataTest.Sample1Key.der"),
    ] {
        match read_key(key) {
            Ok(key) => eprintln!("{file}: {:?}", open(file, &key).map(|content| sha256(&content))),
            Err(error) => eprintln!("{file}: {error}"),
        }
    }
    for file in [
        "cms_data/dh-malformed.der",
        "cms_data/ecdh-malformed.der",
        "cms_data/rsa-malformed.der",
        "cms-msg/missing-kdf.der",
        "cmsapi_data/cms_pwri_kek_oob.der",
    ] {
        if let Ok(envelope) = EnvelopedData::parse(&read_object(&dir.join("openssl-cms").join(file)), OLD) {
            for recipient in &envelope.recipients {
                let rsa = key(&identity(NewKey::Rsa2048));
                let answer = recipient
                    .operation(rsa.id(), envelope.content, new_cek(envelope.content).unwrap())
                    .ok()
                    .and_then(|operation| rsa.perform(&operation).ok());
                if let Some(KeyAnswer::Cek(cek)) = answer {
                    assert!(envelope.open(&cek).is_err(), "{file}");
                }
            }
        }
    }
    assert!(
        EnvelopedData::parse(
            &read_object(&dir.join("openssl-cms/cms-msg/enveloped-content-type-for-aes-gcm.pem")),
            OLD
        )
        .is_err()
    );
    // RFC 4134's Bob has 1024 bits, so his mail is read but not opened.
    let rc2 = EnvelopedData::parse(&read_object(&dir.join("rfc4134/files/5.2.bin")), OLD).unwrap();
    assert_eq!(rc2.content, ContentEncryption::Rc2Cbc40);
    let kinds: Vec<_> =
        rc2.recipients.iter().map(|recipient| matches!(recipient.kind, RecipientKind::Other(_))).collect();
    assert!(kinds.contains(&true) && kinds.contains(&false));
    assert!(EnvelopedData::parse(&read_object(&dir.join("rfc4134/files/5.2.bin")), Legacy::default()).is_err());
}

/// Decrypts content as an envelope's is, for vectors of others.
pub(crate) fn open_content(
    content: ContentEncryption,
    iv: &[u8],
    tag_len: usize,
    key: &[u8],
    encrypted: &[u8],
    associated: &[u8],
    tag: &[u8],
) -> Result<Vec<u8>, CmsError> {
    cipher::open(&ContentAlgorithm::new(content, iv, tag_len).unwrap(), key, encrypted, associated, tag)
}

/// OpenSSL's legacy ciphers: RC2 with 40, 64 and 128 bits, 3DES.
#[test]
fn legacy_ciphers_of_openssl_open_by_switch_only() {
    let issued = identity(NewKey::Rsa2048);
    for how in ["-rc2-40-cbc", "-rc2-64-cbc", "-rc2-cbc", "-des3"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("content"), CONTENT).unwrap();
        std::fs::write(dir.path().join("certificate"), pem(&issued.certificate)).unwrap();
        let arguments = [
            "cms",
            "-encrypt",
            "-binary",
            "-provider",
            "legacy",
            "-provider",
            "default",
            "-outform",
            "DER",
            "-in",
            "content",
            "-out",
            "sealed",
            how,
            "-recip",
            "certificate",
        ];
        let Some(output) = openssl(dir.path(), &arguments) else { return };
        if !output.status.success() {
            eprintln!("skipped: openssl has no {how}: {}", String::from_utf8_lossy(&output.stderr));
            continue;
        }
        let bytes = Bytes::from(std::fs::read(dir.path().join("sealed")).unwrap());
        assert!(EnvelopedData::parse(&bytes, Legacy::default()).is_err());
        let envelope = EnvelopedData::parse(&bytes, OLD).unwrap();
        assert_eq!(open_for(&envelope, &key(&issued), &issued.certificate).unwrap(), CONTENT, "{how}");
    }
}

#[test]
fn fuzz_body_holds_on_seeds() {
    let issued = identity(NewKey::P256);
    for how in [ContentEncryption::Aes128Cbc, ContentEncryption::Aes128Gcm] {
        let good = sealed(CONTENT, how, &[(&issued.certificate, scheme(OAEP))]);
        fuzz_enveloped_data(&good);
        for position in 0..good.len() {
            let mut bad = good.to_vec();
            bad[position] = bad[position].wrapping_add(0x81);
            fuzz_enveloped_data(&bad);
            fuzz_enveloped_data(&good[..position]);
        }
    }
}

proptest::proptest! {
    #[test]
    fn fuzz_body_holds_on_any_octets(data: Vec<u8>) {
        fuzz_enveloped_data(&data);
    }
}

use super::*;
use crate::pki::asn1::write;
use crate::pki::authority::{NewKey, Recipe, issue_cached};

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn alice() -> Certificate {
    issue_cached(&Recipe::mailbox("alice@example.org", now(), NewKey::P256), None).certificate
}

#[test]
fn trailing_octets_are_an_error() {
    let mut der = alice().der().to_vec();
    der.push(0);
    assert!(Certificate::from_der(der.into()).is_err());
}

#[test]
fn pem_with_several_blocks_and_text() {
    let der = alice().der().to_vec();
    let pem = super::super::pem::armor("CERTIFICATE", &der);
    let file = format!("Bag Attributes\r\n  name: x\r\n{pem}junk\n{}", pem.replace('\n', "\r\n"));
    assert_eq!(Certificate::from_pem_or_der(file.as_bytes()).unwrap(), [alice_again(&der), alice_again(&der)]);
    assert!(Certificate::from_pem_or_der(b"nothing").is_err());
    assert!(Certificate::from_pem_or_der(pem.trim_end().trim_end_matches('-').as_bytes()).is_err());
}

#[test]
fn capabilities_in_a_certificate_are_read_and_broken_ones_cost_nobody_his_certificate() {
    use crate::cms::algorithm::{ContentEncryption, capabilities_der};
    use crate::pki::authority::{cached_key, issue_extended};
    // RFC 4262 section 2.
    let id = const_oid::ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.15");
    let recipe = Recipe::mailbox("alice@example.org", now(), NewKey::P256);
    let with = |value: &[u8]| {
        let key = cached_key(NewKey::P256, "alice@example.org");
        issue_extended(&recipe, key, None, &[(&id, value)]).certificate.capabilities().map(|known| known.content)
    };
    let list = [ContentEncryption::Aes256Gcm, ContentEncryption::Aes128Cbc];
    assert_eq!(with(&capabilities_der(&list)), Some(list.to_vec()));
    assert_eq!((with(b"\x30\x05\x00"), with(b""), with(&capabilities_der(&[]))), (None, None, None));
    assert_eq!(alice().capabilities(), None);
}

fn alice_again(der: &[u8]) -> Certificate {
    Certificate::from_der(Bytes::copy_from_slice(der)).unwrap()
}

#[test]
fn usage_is_judged_by_purpose_and_key() {
    let mut recipe = Recipe::mailbox("sign@example.org", now(), NewKey::P256);
    recipe.key_usage = vec!["nonRepudiation"];
    let certificate = issue_cached(&recipe, None).certificate;
    assert!(certificate.fits(Purpose::Signature).is_ok());
    assert!(certificate.fits(Purpose::Encryption).is_err());
    recipe.key_usage = vec![];
    recipe.email_protection = Some(false);
    assert!(issue_cached(&recipe, None).certificate.fits(Purpose::Signature).is_err());
    recipe.email_protection = None;
    assert!(issue_cached(&recipe, None).certificate.fits(Purpose::Encryption).is_ok());
    recipe.key_usage = vec!["keyEncipherment"];
    assert!(
        issue_cached(&recipe, None).certificate.fits(Purpose::Encryption).is_err(),
        "an EC key agrees, it does not transport"
    );
}

#[test]
fn domain_certificates() {
    let domain = Domain::parse("example.org").unwrap();
    for (name, encrypts, signs) in [
        ("domain-confidentiality-authority@example.org", true, false),
        ("Domain-Signing-Authority@example.org", false, true),
        ("@example.org", true, true),
        ("domain-confidentiality-authority@sub.example.org", false, false),
        ("domain-signing-authority@sub.example.org", false, false),
        ("@sub.example.org", false, false),
        ("alice@example.org", false, false),
    ] {
        let mut recipe = Recipe::mailbox("x@example.org", now(), NewKey::P256);
        recipe.mailboxes = vec![name.to_owned()];
        let certificate = issue_cached(&recipe, None).certificate;
        let is_for = |purpose| certificate.is_for_domain(&domain, purpose);
        assert_eq!((is_for(Purpose::Encryption), is_for(Purpose::Signature)), (encrypts, signs), "{name}");
    }
}

/// The three places of an address: rfc822Name, SmtpUTF8Mailbox, and emailAddress in the subject, which counts by setting and only where
/// the SAN names nobody.
#[test]
fn addresses_in_the_san_and_in_the_subject() {
    let issued = |san: &[&str], subject: Option<&str>| {
        let mut recipe = Recipe::mailbox("x@example.org", now(), NewKey::P256);
        recipe.mailboxes = san.iter().map(|name| (*name).to_owned()).collect();
        recipe.subject_email = subject.map(str::to_owned);
        issue_cached(&recipe, None).certificate
    };
    let key = |text: &str| Mailbox::parse(text).unwrap().key();
    let old = issued(&[], Some("Old@Example.ORG"));
    assert!(!old.names(&key("old@example.org"), false) && old.names(&key("old@example.org"), true));
    assert!(!old.is_for(&key("old@example.org")) && !old.names(&key("else@example.org"), true));
    let both = issued(&["new@example.org"], Some("old@example.org"));
    assert!(both.names(&key("new@example.org"), true) && !both.names(&key("old@example.org"), true));
    let utf8 = issued(&["j\u{fc}rgen@b\u{fc}cher.example"], Some("old@example.org"));
    assert!(utf8.names(&key("j\u{fc}rgen@xn--bcher-kva.example"), false) && !utf8.names(&key("old@example.org"), true));
    let hosts =
        Recipe { hosts: vec!["www.example.org".into()], ..Recipe::mailbox("x@example.org", now(), NewKey::P256) };
    let hosts = Recipe { mailboxes: Vec::new(), subject_email: Some("old@example.org".into()), ..hosts };
    assert!(issue_cached(&hosts, None).certificate.names(&key("old@example.org"), true), "a SAN without a mailbox");
    // What is no mailbox in the SAN is one for others: the subject does not stand in for it.
    assert!(!issued(&["not a mailbox"], Some("old@example.org")).names(&key("old@example.org"), true));
}

#[test]
fn a11_names_and_octets_of_a_certificate_are_bounded() {
    let mut recipe = Recipe::mailbox("many@example.org", now(), NewKey::P256);
    recipe.mailboxes = (0..MAX_NAMES).map(|index| format!("m{index}@example.org")).collect();
    let der = issue_cached(&recipe, None).certificate.der().clone();
    let names =
        |count: usize| -> Vec<u8> { (0..count).flat_map(|_| write(tag::context(1), &[b"m@example.org"])).collect() };
    assert_eq!(read_mailboxes(&names(MAX_NAMES)).unwrap().len(), MAX_NAMES);
    assert!(read_mailboxes(&names(MAX_NAMES + 1)).is_err());
    let mut long = der.to_vec();
    long.resize(MAX_CERTIFICATE + 1, 0);
    assert!(
        matches!(Certificate::from_der(long.into()), Err(CertificateError::Malformed(why)) if why.contains("at most"))
    );
}

#[test]
fn a11_rsa_keys_are_of_bounded_size_and_exponent() {
    use crate::pki::asn1::{integer, oid, sequence};
    let read = |bits: usize, exponent: &[u8]| {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] = 0xff >> (8 * bits.div_ceil(8) - bits);
        let key = sequence(&[&integer(&modulus), &integer(exponent)]);
        let algorithm = sequence(&[&oid(&const_oid::db::rfc5912::RSA_ENCRYPTION), &write(tag::NULL, &[])]);
        PublicKey::from_spki(sequence(&[&algorithm, &write(tag::BIT_STRING, &[&[0], &key])]).into())
    };
    assert!(read(2048, &[1, 0, 1]).is_ok() && read(8192, &[1, 0, 1]).is_ok());
    assert!(read(8200, &[1, 0, 1]).is_err(), "too long");
    assert!(read(2048, &[1, 0, 0]).is_err(), "even");
    assert!(read(2048, &[1]).is_err(), "one");
    assert!(read(2048, &[2, 0, 0, 0, 1]).is_err(), "over 2^32");
}

#[test]
fn times_as_rfc5280_wants_them() {
    let read = |kind, text: &[u8]| {
        let der = write(kind, &[text]);
        read_time(Reader::new(&der).any().unwrap())
    };
    assert_eq!(read(tag::UTC_TIME, b"491231235959Z").unwrap(), "2049-12-31T23:59:59Z".parse().unwrap());
    assert_eq!(read(tag::UTC_TIME, b"500101000000Z").unwrap(), "1950-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(read(tag::GENERALIZED_TIME, b"99991231235959Z").unwrap(), Timestamp::MAX);
    for bad in [
        &b"4912312359Z"[..],
        b"491231235959",
        b"491231235959+0100",
        b"491331235959Z",
        b"",
        b"Z",
        b"4912312359\xff\xffZ",
    ] {
        assert!(read(tag::UTC_TIME, bad).is_err(), "{bad:?}");
    }
    assert!(read(tag::GENERALIZED_TIME, b"20491231235959.5Z").is_err());
}

#[test]
fn fuzz_body_holds_on_seeds_and_noise() {
    use proptest::prelude::*;
    let seed = alice().der().to_vec();
    fuzz_certificate(&seed);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(config, rng);
    runner
        .run(&(any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>()), |(at, octet, cut)| {
            let mut data = seed.clone();
            let at = at.index(data.len());
            data[at] = octet;
            fuzz_certificate(&data);
            fuzz_certificate(&data[..cut.index(data.len())]);
            Ok(())
        })
        .unwrap();
}

/// RFC 9881 section 5, RFC 9935 section 5: signing keys sign, encapsulation keys encipher a key, and neither says anything else.
#[test]
fn a05_key_usages_that_do_not_fit_a_post_quantum_key_are_refused() {
    use crate::cms::algorithm::{MlDsa, MlKem};
    let ca = issue_cached(&Recipe::authority("PQ CA", now(), NewKey::MlDsa(MlDsa::MlDsa44)), None);
    let fits = |key: NewKey, usage: &[&'static str], purpose: Purpose| {
        let mut recipe = Recipe::mailbox("q@example.org", now(), key);
        recipe.key_usage = usage.to_vec();
        issue_cached(&recipe, Some(&ca)).certificate.fits(purpose).is_ok()
    };
    let (signing, sealing) = (NewKey::MlDsa(MlDsa::MlDsa65), NewKey::MlKem(MlKem::MlKem512));
    for usage in [&["digitalSignature"][..], &["nonRepudiation"], &["digitalSignature", "keyCertSign", "cRLSign"], &[]]
    {
        assert!(fits(signing, usage, Purpose::Signature), "{usage:?}");
        assert!(!fits(signing, usage, Purpose::Encryption), "{usage:?}");
    }
    for usage in
        [&["digitalSignature", "keyEncipherment"][..], &["digitalSignature", "keyAgreement"], &["keyEncipherment"]]
    {
        assert!(!fits(signing, usage, Purpose::Signature), "{usage:?}");
    }
    assert!(fits(sealing, &["keyEncipherment"], Purpose::Encryption));
    for usage in [&["keyEncipherment", "digitalSignature"][..], &["keyAgreement"], &["keyEncipherment", "keyAgreement"]]
    {
        assert!(!fits(sealing, usage, Purpose::Encryption), "{usage:?}");
    }
    assert!(!fits(sealing, &["keyEncipherment"], Purpose::Signature));
}

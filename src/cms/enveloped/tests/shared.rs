//! KEKRecipientInfo and PasswordRecipientInfo, as OpenSSL writes them.

use super::*;

const KEK: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn kek(length: usize, identifier: Option<&'static [u8]>) -> SharedSecret {
    let octets: Vec<u8> = (0..32).collect();
    SharedSecret::Kek { identifier: identifier.map(Bytes::from_static), key: octets[..length].to_vec().into() }
}

fn password(text: &str) -> SharedSecret {
    SharedSecret::Password(text.to_owned().into())
}

/// What OpenSSL encrypts with these arguments; `None` where there is no OpenSSL.
fn made(arguments: &[&str]) -> Option<Bytes> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("content"), CONTENT).unwrap();
    let mut all = vec!["cms", "-encrypt", "-binary", "-outform", "DER", "-in", "content", "-out", "sealed"];
    all.extend(arguments);
    let output = openssl(dir.path(), &all)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(std::fs::read(dir.path().join("sealed")).unwrap().into())
}

fn opened(object: &Bytes, secret: &SharedSecret, legacy: Legacy) -> Option<Result<Bytes, CmsError>> {
    let envelope = EnvelopedData::parse(object, legacy).unwrap();
    let [recipient] = &envelope.recipients[..] else { panic!("one recipient") };
    assert!(recipient.id.is_none());
    assert!(recipient.operation(KeyId([0; 32]), envelope.content, new_cek(envelope.content).unwrap()).is_err());
    Some(recipient.unwrap_shared(secret, envelope.content)?.and_then(|cek| envelope.open(&cek)))
}

#[test]
fn a_shared_key_opens_what_openssl_wrapped() {
    for (length, cipher) in [(16, "-aes-128-cbc"), (24, "-aes-192-cbc"), (32, "-aes-256-cbc"), (32, "-aes-256-gcm")] {
        let Some(object) = made(&["-secretkey", KEK.get(..2 * length).unwrap(), "-secretkeyid", "c0ffee", cipher])
        else {
            return;
        };
        let opened = |secret| opened(&object, &secret, Legacy::default());
        assert_eq!(opened(kek(length, None)).unwrap().unwrap(), CONTENT);
        assert_eq!(opened(kek(length, Some(b"\xc0\xff\xee"))).unwrap().unwrap(), CONTENT);
        assert_eq!(opened(kek(length, Some(b"\xc0\xff"))), None, "another key is named");
        assert_eq!(opened(kek(if length == 16 { 32 } else { 16 }, None)), None, "a key of another length");
        let other = SharedSecret::Kek { identifier: None, key: vec![9; length].into() };
        assert_eq!(opened(other), Some(Err(CmsError::Crypto)));
        assert_eq!(opened(password("secret")), None);
    }
}

#[test]
fn a_password_opens_what_openssl_wrapped() {
    for cipher in ["-aes-128-cbc", "-aes-192-cbc", "-aes-256-cbc", "-des3"] {
        let Some(object) = made(&["-pwri_password", "Gr\u{fc}\u{df}e", cipher]) else { return };
        let legacy = if cipher == "-des3" { OLD } else { Legacy::default() };
        assert_eq!(opened(&object, &password("Gr\u{fc}\u{df}e"), legacy).unwrap().unwrap(), CONTENT, "{cipher}");
        assert_eq!(opened(&object, &password("Gruesse"), legacy), Some(Err(CmsError::Crypto)));
        assert_eq!(opened(&object, &kek(16, None), legacy), None);
        assert!(format!("{:?}", password("secret")) == "SharedSecret::Password");
    }
}

/// A PasswordRecipientInfo made here: `change` gets the key derivation's iterations, the wrap's OID and the wrapped octets.
fn password_recipient_of(iterations: u32, wrap: &str, function: &str, wrapped: &[u8]) -> RecipientInfo {
    let oid = |dotted| write::oid(&ObjectIdentifier::new_unwrap(dotted));
    let parameters = write::sequence(&[&write::octet_string(b"saltsalt"), &write::integer(iterations)]);
    let derivation = write::element(tag::context(0), &[&oid(function), &parameters]);
    let cipher = write::sequence(&[&oid("2.16.840.1.101.3.4.1.2"), &write::octet_string(&[7; 16])]);
    let info = write::element(
        tag::context(3),
        &[&write::integer(0), &derivation, &write::sequence(&[&oid(wrap), &cipher]), &write::octet_string(wrapped)],
    );
    let set = write::element(tag::SET, &[&info]);
    let whole = Bytes::from(set);
    let element = crate::cms::ber::Reader::ber(&whole).element().unwrap();
    recipients::read(&element, &whole, Legacy::default()).unwrap().remove(0)
}

const PBKDF2: &str = "1.2.840.113549.1.5.12";
const PWRI_KEK: &str = "1.2.840.113549.1.9.16.3.9";

#[test]
fn the_work_for_a_password_is_bounded() {
    let how = ContentEncryption::Aes128Gcm;
    let ask = |info: &RecipientInfo| info.unwrap_shared(&password("secret"), how);
    let dear = password_recipient_of(u32::MAX >> 1, PWRI_KEK, PBKDF2, &[0; 32]);
    assert!(matches!(ask(&dear), Some(Err(CmsError::Algorithm(why))) if why.contains("iterations")));
    // Lengths that no wrapped key has.
    for length in [0, 15, 16, 31, 33, 1024] {
        assert_eq!(ask(&password_recipient_of(1, PWRI_KEK, PBKDF2, &vec![0; length])), Some(Err(CmsError::Crypto)));
    }
    // Named, not opened: scrypt, and an unknown wrap.
    for other in [
        password_recipient_of(1, PWRI_KEK, "1.3.6.1.4.1.11591.4.11", &[0; 32]),
        password_recipient_of(1, "2.16.840.1.101.3.4.1.5", PBKDF2, &[0; 32]),
    ] {
        assert!(matches!(&other.kind, RecipientKind::Other(name) if name.starts_with("a password: ")));
        assert_eq!(ask(&other), None);
    }
}

//! Issues certificates from a recipe: the PKI of the tests and the demo. Never for production use.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::agreement;
use aws_lc_rs::encoding::{AsBigEndian, AsDer, Curve25519SeedBin, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair};
use bytes::Bytes;
use const_oid::{ObjectIdentifier, db};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::asn1::{integer, number, oid, sequence, tag, write};
use super::certificate::Certificate;
use crate::address::Mailbox;
use crate::cms::algorithm::{MlDsa, MlKem, SignatureScheme};
use crate::keys::{KeyAnswer, KeyOperation, SoftwareKey};
use crate::pki::public_key::KeyKind;

/// Which key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NewKey {
    Rsa2048,
    Rsa3072,
    Rsa4096,
    P256,
    P384,
    P521,
    Ed25519,
    /// For encryption alone: somebody else has to sign its certificate.
    X25519,
    MlDsa(MlDsa),
    /// For leaves alone: such a key signs nothing.
    MlKem(MlKem),
}

/// What a certificate is to say.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub common_name: String,
    /// rfc822Name entries of the SAN; SmtpUTF8Mailbox where the local part is not ASCII.
    pub mailboxes: Vec<String>,
    /// emailAddress in the subject, as old CAs wrote it.
    pub subject_email: Option<String>,
    /// dNSName entries of the SAN: the certificate of a server.
    pub hosts: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// `Some(path length)` makes a CA.
    pub ca: Option<Option<u8>>,
    /// keyUsage bits by name (`digitalSignature`, `keyEncipherment`, …); empty leaves the extension out.
    pub key_usage: Vec<&'static str>,
    /// emailProtection in the EKU (`false`: serverAuth in its place); `None` leaves the extension out.
    pub email_protection: Option<bool>,
    /// Permitted rfc822Name subtrees (name constraints), for a CA.
    pub permitted_mail: Vec<String>,
    /// Where the issuer's CRL is to be had: a URI in cRLDistributionPoints.
    pub crl: Option<String>,
    pub key: NewKey,
}

impl Recipe {
    /// A CA valid from an hour before `now`, for ten years.
    pub fn authority(common_name: &str, now: Timestamp, key: NewKey) -> Self {
        Self {
            common_name: common_name.to_owned(),
            mailboxes: Vec::new(),
            subject_email: None,
            hosts: Vec::new(),
            not_before: whole_seconds(now, -HOUR),
            not_after: whole_seconds(now, 87_600 * HOUR),
            ca: Some(None),
            key_usage: vec!["keyCertSign", "cRLSign"],
            email_protection: None,
            permitted_mail: Vec::new(),
            crl: None,
            key,
        }
    }
    /// A certificate to sign and to encrypt for one mailbox, as far as its key can, valid from an hour before `now`, for a year.
    pub fn mailbox(mailbox: &str, now: Timestamp, key: NewKey) -> Self {
        let key_usage = match key {
            NewKey::Rsa2048 | NewKey::Rsa3072 | NewKey::Rsa4096 => vec!["digitalSignature", "keyEncipherment"],
            NewKey::P256 | NewKey::P384 | NewKey::P521 => vec!["digitalSignature", "keyAgreement"],
            NewKey::Ed25519 | NewKey::MlDsa(_) => vec!["digitalSignature"],
            NewKey::X25519 => vec!["keyAgreement"],
            NewKey::MlKem(_) => vec!["keyEncipherment"],
        };
        Self {
            common_name: mailbox.to_owned(),
            mailboxes: vec![mailbox.to_owned()],
            subject_email: None,
            hosts: Vec::new(),
            not_before: whole_seconds(now, -HOUR),
            not_after: whole_seconds(now, 8_760 * HOUR),
            ca: None,
            key_usage,
            email_protection: Some(true),
            permitted_mail: Vec::new(),
            crl: None,
            key,
        }
    }
}

const HOUR: i64 = 3600;

/// X.509 knows no fractions of a second.
fn whole_seconds(now: Timestamp, offset: i64) -> Timestamp {
    let moved = now.saturating_add(SignedDuration::from_secs(offset)).unwrap_or(now);
    Timestamp::from_second(moved.as_second()).unwrap_or(moved)
}

/// A certificate with its private key (PKCS#8).
#[derive(Clone)]
pub struct Issued {
    pub certificate: Certificate,
    pub pkcs8: Zeroizing<Vec<u8>>,
}

/// A root, an intermediate without EKU, and leaves.
#[derive(Clone)]
pub struct DemoPki {
    pub root: Issued,
    pub intermediate: Issued,
    /// In the order of the mailboxes asked for.
    pub leaves: Vec<Issued>,
}

impl DemoPki {
    /// The leaf of a mailbox.
    pub fn leaf(&self, mailbox: &str) -> Option<&Issued> {
        let key = Mailbox::parse(mailbox).ok()?.key();
        self.leaves.iter().find(|leaf| leaf.certificate.is_for(&key))
    }
}

/// Makes a key and a certificate signed by `issuer`, or by itself.
///
/// # Panics
/// Where the recipe cannot be written as a certificate: this is for tests and the demo.
pub fn issue(recipe: &Recipe, issuer: Option<&Issued>) -> Issued {
    issue_with_key(recipe, generate(recipe.key), issuer)
}

/// As [`issue`], with the key that this process made earlier for the same kind and common name, if it did: making an RSA key takes
/// far longer than anything a test does with it.
pub fn issue_cached(recipe: &Recipe, issuer: Option<&Issued>) -> Issued {
    issue_with_key(recipe, cached_key(recipe.key, &recipe.common_name), issuer)
}

/// A root, an intermediate and one leaf a mailbox, all with keys of `kind` from this process's cache.
pub fn demo_pki(now: Timestamp, mailboxes: &[&str], kind: NewKey) -> DemoPki {
    let root = issue_cached(&Recipe::authority("Demo Root CA", now, kind), None);
    let mut recipe = Recipe::authority("Demo Mail CA", now, kind);
    recipe.ca = Some(Some(0));
    recipe.not_after = whole_seconds(now, 43_800 * HOUR);
    let intermediate = issue_cached(&recipe, Some(&root));
    let leaves = mailboxes
        .iter()
        .map(|mailbox| issue_cached(&Recipe::mailbox(mailbox, now, kind), Some(&intermediate)))
        .collect();
    DemoPki { root, intermediate, leaves }
}

/// A private key (PKCS#8) for `name`, made once a process and kind.
pub fn cached_key(kind: NewKey, name: &str) -> Zeroizing<Vec<u8>> {
    type Keys = HashMap<(NewKey, String), Zeroizing<Vec<u8>>>;
    static KEYS: LazyLock<Mutex<Keys>> = LazyLock::new(Mutex::default);
    let place = (kind, name.to_owned());
    if let Some(key) = KEYS.lock().unwrap_or_else(PoisonError::into_inner).get(&place) {
        return key.clone();
    }
    let made = generate(kind);
    KEYS.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_insert(made).clone()
}

/// Makes a certificate for the key given (PKCS#8), signed by `issuer` or by itself.
///
/// # Panics
/// As [`issue`].
pub fn issue_with_key(recipe: &Recipe, pkcs8: Zeroizing<Vec<u8>>, issuer: Option<&Issued>) -> Issued {
    issue_extended(recipe, pkcs8, issuer, &[])
}

/// The same with further extensions, not critical: OID and value (DER) of each.
///
/// # Panics
/// As [`issue`].
#[allow(clippy::expect_used, reason = "for tests and the demo: a recipe that cannot be written is a bug of its author")]
pub fn issue_extended(
    recipe: &Recipe,
    pkcs8: Zeroizing<Vec<u8>>,
    issuer: Option<&Issued>,
    further: &[(&ObjectIdentifier, &[u8])],
) -> Issued {
    let spki = SoftwareKey::from_pkcs8(&pkcs8).expect("a PKCS#8 key of a kind made here").spki().to_vec();
    let subject = subject(recipe);
    let (issuer_name, signer, issuer_spki) = match issuer {
        Some(issuer) => (
            issuer.certificate.subject().to_vec(),
            Signer::read(&issuer.pkcs8).expect("the issuer's key"),
            issuer.certificate.public_key().spki().to_vec(),
        ),
        None => (subject.clone(), Signer::read(&pkcs8).expect("the key just read"), spki.clone()),
    };
    let algorithm = signer.algorithm();
    let mut serial = [0u8; 16];
    aws_lc_rs::rand::fill(&mut serial).expect("randomness");
    let [first, ..] = &mut serial;
    *first = (*first & 0x7f) | 0x40;
    let mut extensions = extensions(recipe, &key_identifier(&spki), &key_identifier(&issuer_spki));
    further.iter().for_each(|(id, value)| extensions.extend(extension(id, false, value)));
    let tbs = sequence(&[
        &write(tag::constructed(0), &[&number(2)]),
        &integer(&serial),
        &algorithm,
        &issuer_name,
        &sequence(&[&time(recipe.not_before), &time(recipe.not_after)]),
        &subject,
        &spki,
        &write(tag::constructed(3), &[&sequence(&[&extensions])]),
    ]);
    let signature = signer.sign(&tbs).expect("a signature");
    let der = sequence(&[&tbs, &algorithm, &write(tag::BIT_STRING, &[&[0], &signature])]);
    let certificate = Certificate::from_der(Bytes::from(der)).expect("a certificate that can be read");
    Issued { certificate, pkcs8 }
}

/// A CRL of `issuer`'s, DER, that lists `revoked` since `this_update`.
///
/// # Panics
/// Where the issuer's key cannot sign: this is for tests and the demo.
#[allow(clippy::expect_used, reason = "for tests and the demo: a key that cannot sign is a bug of its author")]
pub fn revocation_list(
    issuer: &Issued,
    revoked: &[&Certificate],
    this_update: Timestamp,
    next_update: Timestamp,
) -> Vec<u8> {
    let signer = Signer::read(&issuer.pkcs8).expect("the issuer's key");
    let algorithm = signer.algorithm();
    let since = time(this_update);
    let entry = |one: &&Certificate| sequence(&[&write(tag::INTEGER, &[one.serial()]), &since]);
    let entries: Vec<u8> = revoked.iter().flat_map(entry).collect();
    let entries = if entries.is_empty() { Vec::new() } else { sequence(&[&entries]) };
    let subject = issuer.certificate.subject();
    let own_number = extension(&db::rfc5912::ID_CE_CRL_NUMBER, false, &number(this_update.as_second().unsigned_abs()));
    let extensions = write(tag::constructed(0), &[&sequence(&[&own_number])]);
    let tbs = sequence(&[&number(1), &algorithm, subject, &since, &time(next_update), &entries, &extensions]);
    let signature = signer.sign(&tbs).expect("a signature");
    sequence(&[&tbs, &algorithm, &write(tag::BIT_STRING, &[&[0], &signature])])
}

#[allow(clippy::expect_used, reason = "for tests and the demo: only a broken source of randomness fails here")]
fn generate(kind: NewKey) -> Zeroizing<Vec<u8>> {
    let rsa = |size| {
        RsaKeyPair::generate(size)
            .and_then(|key| AsDer::<Pkcs8V1Der<'_>>::as_der(&key).map(|der| der.as_ref().to_vec()))
    };
    let ec = |curve| EcdsaKeyPair::generate(curve).and_then(|key| key.to_pkcs8v1().map(|der| der.as_ref().to_vec()));
    let made = match kind {
        NewKey::Rsa2048 => rsa(KeySize::Rsa2048),
        NewKey::Rsa3072 => rsa(KeySize::Rsa3072),
        NewKey::Rsa4096 => rsa(KeySize::Rsa4096),
        NewKey::P256 => ec(P256),
        NewKey::P384 => ec(P384),
        NewKey::P521 => ec(P521),
        NewKey::Ed25519 => Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1().map(|der| der.as_ref().to_vec())),
        NewKey::X25519 => agreement::PrivateKey::generate(&agreement::X25519).and_then(|key| {
            let seed: Curve25519SeedBin<'_> = key.as_be_bytes()?;
            let algorithm = sequence(&[&oid(&ObjectIdentifier::new_unwrap("1.3.101.110"))]);
            let octets = write(tag::OCTET_STRING, &[&write(tag::OCTET_STRING, &[seed.as_ref()])]);
            Ok(sequence(&[&number(0), &algorithm, &octets]))
        }),
        NewKey::MlDsa(set) => seed(&set.oid(), 32),
        NewKey::MlKem(set) => seed(&set.oid(), 64),
    };
    Zeroizing::new(made.expect("a new key"))
}

/// A private key of random octets, in the form that RFC 9881 and RFC 9935 prefer.
fn seed(algorithm: &ObjectIdentifier, length: usize) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
    let mut octets = Zeroizing::new(vec![0u8; length]);
    aws_lc_rs::rand::fill(&mut octets)?;
    let key = Zeroizing::new(write(tag::context(0), &[&octets]));
    Ok(sequence(&[&number(0), &sequence(&[&oid(algorithm)]), &write(tag::OCTET_STRING, &[&key])]))
}

static P256: &EcdsaSigningAlgorithm = &signature::ECDSA_P256_SHA256_ASN1_SIGNING;
static P384: &EcdsaSigningAlgorithm = &signature::ECDSA_P384_SHA384_ASN1_SIGNING;
static P521: &EcdsaSigningAlgorithm = &signature::ECDSA_P521_SHA512_ASN1_SIGNING;

/// A private key that signs certificates.
enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, ObjectIdentifier),
    Ed25519(Ed25519KeyPair),
    MlDsa(SoftwareKey, MlDsa),
}

impl Signer {
    fn read(pkcs8: &[u8]) -> Option<Self> {
        let ec = |curve, algorithm| EcdsaKeyPair::from_pkcs8(curve, pkcs8).ok().map(|key| Self::Ec(key, algorithm));
        let key = SoftwareKey::from_pkcs8(pkcs8).ok()?;
        match key.public_key().kind() {
            KeyKind::Rsa { .. } => RsaKeyPair::from_pkcs8(pkcs8).ok().map(Self::Rsa),
            KeyKind::P256 => ec(P256, db::rfc5912::ECDSA_WITH_SHA_256),
            KeyKind::P384 => ec(P384, db::rfc5912::ECDSA_WITH_SHA_384),
            KeyKind::P521 => ec(P521, db::rfc5912::ECDSA_WITH_SHA_512),
            KeyKind::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok().map(Self::Ed25519),
            KeyKind::MlDsa(set) => Some(Self::MlDsa(key, set)),
            _ => None,
        }
    }
    fn algorithm(&self) -> Vec<u8> {
        match self {
            Self::Rsa(_) => sequence(&[&oid(&db::rfc5912::SHA_256_WITH_RSA_ENCRYPTION), &write(tag::NULL, &[])]),
            Self::Ec(_, algorithm) => sequence(&[&oid(algorithm)]),
            Self::Ed25519(_) => sequence(&[&oid(&ObjectIdentifier::new_unwrap("1.3.101.112"))]),
            Self::MlDsa(_, set) => sequence(&[&oid(&set.oid())]),
        }
    }
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).ok()?;
                Some(signature)
            }
            Self::Ec(key, _) => {
                key.sign(&SystemRandom::new(), message).ok().map(|signature| signature.as_ref().to_vec())
            }
            Self::Ed25519(key) => key.try_sign(message).ok().map(|signature| signature.as_ref().to_vec()),
            Self::MlDsa(key, set) => {
                let (scheme, message) = (SignatureScheme::MlDsa(*set), Bytes::copy_from_slice(message));
                match key.perform(&KeyOperation::Sign { key: key.id(), scheme, message }) {
                    Ok(KeyAnswer::Signature(signature)) => Some(signature),
                    _ => None,
                }
            }
        }
    }
}

fn subject(recipe: &Recipe) -> Vec<u8> {
    const EMAIL_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");
    let rdn = |id: &ObjectIdentifier, kind: u8, text: &str| {
        write(tag::SET, &[&sequence(&[&oid(id), &write(kind, &[text.as_bytes()])])])
    };
    let mut rdns = rdn(&db::rfc4519::COMMON_NAME, tag::UTF8_STRING, &recipe.common_name);
    if let Some(email) = &recipe.subject_email {
        rdns.extend(rdn(&EMAIL_ADDRESS, tag::IA5_STRING, email));
    }
    sequence(&[&rdns])
}

/// RFC 5280 4.1.2.5: UTCTime through 2049, GeneralizedTime after.
fn time(at: Timestamp) -> Vec<u8> {
    let civil = jiff::tz::Offset::UTC.to_datetime(at);
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", civil.month(), civil.day(), civil.hour(), civil.minute(), civil.second());
    let year = civil.year();
    if (1950..2050).contains(&year) {
        write(tag::UTC_TIME, &[format!("{:02}{rest}", year % 100).as_bytes()])
    } else {
        write(tag::GENERALIZED_TIME, &[format!("{year:04}{rest}").as_bytes()])
    }
}

/// RFC 5280 4.2.1.2 leaves the method open: 160 bits of SHA-256 over the SubjectPublicKeyInfo (RFC 7093 section 2, method 4).
fn key_identifier(spki: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki).as_ref().iter().take(20).copied().collect()
}

fn extension(id: &ObjectIdentifier, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[tag::BOOLEAN, 1, 0xff] } else { &[] };
    sequence(&[&oid(id), critical, &write(tag::OCTET_STRING, &[value])])
}

fn extensions(recipe: &Recipe, subject_key: &[u8], authority_key: &[u8]) -> Vec<u8> {
    use db::rfc5912::{
        ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE,
        ID_CE_NAME_CONSTRAINTS, ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_KEY_IDENTIFIER, ID_KP_EMAIL_PROTECTION,
        ID_KP_SERVER_AUTH,
    };
    let mut out = extension(&ID_CE_SUBJECT_KEY_IDENTIFIER, false, &write(tag::OCTET_STRING, &[subject_key]));
    let authority = sequence(&[&write(tag::context(0), &[authority_key])]);
    out.extend(extension(&ID_CE_AUTHORITY_KEY_IDENTIFIER, false, &authority));
    if let Some(path_length) = recipe.ca {
        let length = path_length.map(|length| number(u64::from(length))).unwrap_or_default();
        out.extend(extension(&ID_CE_BASIC_CONSTRAINTS, true, &sequence(&[&[tag::BOOLEAN, 1, 0xff], &length])));
    }
    if !recipe.key_usage.is_empty() {
        out.extend(extension(&ID_CE_KEY_USAGE, true, &key_usage(&recipe.key_usage)));
    }
    if let Some(email) = recipe.email_protection {
        let purpose = if email { ID_KP_EMAIL_PROTECTION } else { ID_KP_SERVER_AUTH };
        out.extend(extension(&ID_CE_EXT_KEY_USAGE, false, &sequence(&[&oid(&purpose)])));
    }
    if !recipe.mailboxes.is_empty() || !recipe.hosts.is_empty() {
        let hosts = recipe.hosts.iter().flat_map(|host| write(tag::context(2), &[host.as_bytes()]));
        let names: Vec<u8> = recipe.mailboxes.iter().flat_map(|mailbox| general_name(mailbox)).chain(hosts).collect();
        out.extend(extension(&ID_CE_SUBJECT_ALT_NAME, false, &sequence(&[&names])));
    }
    if let Some(uri) = &recipe.crl {
        let name = write(tag::constructed(0), &[&write(tag::context(6), &[uri.as_bytes()])]);
        let point = sequence(&[&write(tag::constructed(0), &[&name])]);
        out.extend(extension(&db::rfc5912::ID_CE_CRL_DISTRIBUTION_POINTS, false, &sequence(&[&point])));
    }
    if !recipe.permitted_mail.is_empty() {
        let subtrees: Vec<u8> = recipe
            .permitted_mail
            .iter()
            .flat_map(|base| sequence(&[&write(tag::context(1), &[base.as_bytes()])]))
            .collect();
        out.extend(extension(&ID_CE_NAME_CONSTRAINTS, true, &sequence(&[&write(tag::constructed(0), &[&subtrees])])));
    }
    out
}

/// rfc822Name; SmtpUTF8Mailbox (RFC 9598) where the local part is not ASCII. What is no mailbox is written as it stands.
fn general_name(text: &str) -> Vec<u8> {
    const SMTP_UTF8_MAILBOX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.9");
    match Mailbox::parse(text) {
        Ok(mailbox) if mailbox.needs_smtputf8() => {
            let value = write(tag::UTF8_STRING, &[mailbox.to_string().as_bytes()]);
            write(tag::constructed(0), &[&oid(&SMTP_UTF8_MAILBOX), &write(tag::constructed(0), &[&value])])
        }
        Ok(mailbox) => write(tag::context(1), &[mailbox.to_string().as_bytes()]),
        Err(_) => write(tag::context(1), &[text.as_bytes()]),
    }
}

/// A BIT STRING of the bits named, without trailing zeros.
#[allow(clippy::panic, reason = "for tests and the demo: a wrong name is a bug of the recipe's author")]
fn key_usage(names: &[&str]) -> Vec<u8> {
    const NAMES: [&str; 9] = [
        "digitalSignature",
        "nonRepudiation",
        "keyEncipherment",
        "dataEncipherment",
        "keyAgreement",
        "keyCertSign",
        "cRLSign",
        "encipherOnly",
        "decipherOnly",
    ];
    let mut bits = 0u16;
    for name in names {
        match NAMES.iter().position(|known| known == name) {
            Some(position) => bits |= 0x8000 >> position,
            None => panic!("no keyUsage bit is called {name}"),
        }
    }
    let octets = bits.to_be_bytes();
    let [high, low] = octets;
    if low == 0 {
        write(tag::BIT_STRING, &[&[high.trailing_zeros().min(7) as u8, high]])
    } else {
        write(tag::BIT_STRING, &[&[low.trailing_zeros() as u8, high, low]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::certificate::Purpose;

    #[test]
    fn issues_what_the_recipe_says() {
        let now: Timestamp = "2026-11-22T12:00:00.5Z".parse().unwrap();
        let pki = demo_pki(now, &["alice@example.org", "jürgen@example.org"], NewKey::P256);
        let alice = &pki.leaf("Alice@EXAMPLE.org").unwrap().certificate;
        assert_eq!(alice.not_before(), "2026-11-22T11:00:00Z".parse().unwrap());
        assert_eq!(alice.subject_text(), "CN=alice@example.org");
        assert_eq!(alice.issuer_text(), "CN=Demo Mail CA");
        assert_eq!(alice.authority_key_identifier(), pki.intermediate.certificate.subject_key_identifier());
        assert!(alice.fits(Purpose::Signature).is_ok() && alice.fits(Purpose::Encryption).is_ok());
        assert!(pki.root.certificate.is_ca() && pki.root.certificate.is_self_issued() && !alice.is_ca());
        assert_eq!(pki.leaf("jürgen@example.org").unwrap().certificate.mailboxes().len(), 1);
        assert_eq!(pki.root.pkcs8, demo_pki(now, &[], NewKey::P256).root.pkcs8);
    }

    #[test]
    fn openssl_accepts_what_is_issued() {
        use crate::pki::pem::armor;
        use std::process::Command;
        if !crate::outside::peers(&["openssl"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for kind in [NewKey::Rsa2048, NewKey::P384] {
            let pki = demo_pki(Timestamp::now(), &["alice@example.org", "jürgen@example.org"], kind);
            for (name, issued) in ["root", "ca", "alice", "juergen"]
                .iter()
                .zip([&pki.root, &pki.intermediate].into_iter().chain(&pki.leaves))
            {
                std::fs::write(folder.path().join(name), armor("CERTIFICATE", issued.certificate.der())).unwrap();
            }
            for leaf in ["alice", "juergen"] {
                let arguments =
                    ["verify", "-x509_strict", "-purpose", "smimesign", "-CAfile", "root", "-untrusted", "ca", leaf];
                let output = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }

    #[test]
    fn writes_years_after_2049() {
        let mut recipe = Recipe::authority("Far", "2020-01-01T00:00:00Z".parse().unwrap(), NewKey::P384);
        recipe.not_after = "2061-02-03T04:05:06Z".parse().unwrap();
        assert_eq!(issue_cached(&recipe, None).certificate.not_after(), recipe.not_after);
    }
}

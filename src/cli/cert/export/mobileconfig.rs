//! A configuration profile for Apple's devices: an identity (com.apple.security.pkcs12) for each generation of keys, since one payload is one
//! identity, and a mail account (com.apple.mail.managed) that signs and encrypts with the newest ones.

use std::path::Path;
use std::process::ExitCode;

use aws_lc_rs::digest;
use jiff::Timestamp;
use plist::{Dictionary, Value};
use zeroize::Zeroizing;

use super::super::super::{CommandResult, Failure, shown};
use super::super::{known, short};
use super::{single, write_new};
use crate::pki::certificate::Purpose;
use crate::policy::TrustState;
use crate::store::embedded::EmbeddedStore;
use crate::store::{CertificateRecord, Identity, Owner};

/// The account, and what the profile says beside the keys.
#[derive(Debug, clap::Args)]
pub(super) struct Mail {
    /// IMAP server of the account; without one the profile brings identities alone.
    #[arg(long, value_name = "HOST", requires = "mobileconfig")]
    mail_server: Option<String>,
    /// SMTP server of the account; default: the IMAP server.
    #[arg(long, value_name = "HOST", requires = "mail_server")]
    smtp_server: Option<String>,
    /// User name at both servers; default: the address.
    #[arg(long, value_name = "NAME", requires = "mail_server")]
    mail_user: Option<String>,
    /// Encrypt by default what is sent from the device.
    #[arg(long, requires = "mail_server")]
    encrypt_by_default: bool,
    /// Only the identities in use now, without those that read older mail.
    #[arg(long, requires = "mobileconfig")]
    current_only: bool,
    /// Write the password into the profile, so that the device does not ask: whoever has the file has the keys.
    #[arg(long, requires = "mobileconfig")]
    with_password: bool,
}

const IMAPS: i64 = 993;
const SUBMISSION: i64 = 587;

/// Writes the profile.
pub(super) fn run(store: &EmbeddedStore, owner: &Owner, file: &Path, password: &str, mail: &Mail) -> CommandResult {
    let identity = known(store, owner)?;
    let name = identity.owner.to_string();
    let now = Timestamp::now();
    let (signing, encryption) =
        (newest(&identity, Purpose::Signature, now), newest(&identity, Purpose::Encryption, now));
    let mut content = Vec::new();
    for record in identity.certificates.iter().rev().filter(|record| record.key.is_some()) {
        let current = [signing, encryption].iter().flatten().any(|one| one.certificate == record.certificate);
        if current || !mail.current_only {
            let octets = single(store, record, password, &name)?;
            content.push(Value::Dictionary(certificate(
                &name,
                record,
                &octets,
                mail.with_password.then_some(password),
            )));
        }
    }
    let identities = content.len();
    if identities == 0 {
        return Err(Failure::new(
            format!("no private key of {} is here", shown(&name)),
            "a profile brings keys; `waxwing cert list` shows who has some",
        ));
    }
    if let Some(server) = &mail.mail_server {
        content.push(Value::Dictionary(account(&name, server, mail, signing, encryption)));
    }
    let mut profile = payload("Configuration", &name, &name, &[]);
    profile.insert("PayloadDisplayName".into(), format!("S/MIME of {name}").into());
    profile.insert("PayloadRemovalDisallowed".into(), false.into());
    profile.insert("PayloadContent".into(), Value::Array(content));
    let mut out = Zeroizing::new(Vec::new());
    Value::Dictionary(profile)
        .to_writer_xml(&mut *out)
        .map_err(|error| Failure::new(format!("the profile cannot be written: {error}"), ""))?;
    write_new(file, &out)?;
    println!("{}: {identities} identities of {}", file.display(), shown(&name));
    Ok(ExitCode::SUCCESS)
}

/// The newest one with a key that may be used for this now.
fn newest(identity: &Identity, purpose: Purpose, now: Timestamp) -> Option<&CertificateRecord> {
    identity.certificates.iter().rev().find(|record| {
        let certificate = &record.certificate;
        record.key.is_some()
            && !matches!(record.trust, TrustState::Blocked | TrustState::Pending)
            && certificate.not_before() <= now
            && now < certificate.not_after()
            && certificate.fits(purpose).is_ok()
    })
}

/// The same for the same thing, so that a profile that is installed again replaces the older one.
fn uuid(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut octets: [u8; 16] = context.finish().as_ref().first_chunk().copied().unwrap_or_default();
    // Version 8, made of what is hashed (RFC 9562 section 5.8).
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut octets;
    *version = (*version & 0x0f) | 0x80;
    *variant = (*variant & 0x3f) | 0x80;
    let digits = format!("{:032X}", u128::from_be_bytes(octets));
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn identity_uuid(owner: &str, record: &CertificateRecord) -> String {
    uuid(&[b"identity", owner.as_bytes(), &record.certificate.fingerprint()])
}

/// What every payload has.
fn payload(kind: &str, owner: &str, what: &str, fingerprint: &[u8]) -> Dictionary {
    let mut payload = Dictionary::new();
    let unique = uuid(&[kind.as_bytes(), owner.as_bytes(), fingerprint]);
    payload.insert("PayloadType".into(), kind.into());
    payload.insert("PayloadVersion".into(), 1.into());
    payload.insert("PayloadIdentifier".into(), format!("waxwing.smime.{unique}").into());
    payload.insert("PayloadUUID".into(), unique.into());
    payload.insert("PayloadDisplayName".into(), what.into());
    payload
}

fn certificate(owner: &str, record: &CertificateRecord, octets: &[u8], password: Option<&str>) -> Dictionary {
    let until = record.certificate.not_after().strftime("%Y-%m-%d").to_string();
    let fingerprint = record.certificate.fingerprint();
    let mut payload = payload("com.apple.security.pkcs12", owner, &format!("{owner} until {until}"), &fingerprint);
    payload.insert("PayloadUUID".into(), identity_uuid(owner, record).into());
    payload.insert("PayloadCertificateFileName".into(), format!("{}.p12", short(&record.certificate)).into());
    payload.insert("PayloadContent".into(), Value::Data(octets.to_vec()));
    if let Some(password) = password {
        payload.insert("Password".into(), password.into());
    }
    payload
}

fn account(
    owner: &str,
    server: &str,
    mail: &Mail,
    signing: Option<&CertificateRecord>,
    encryption: Option<&CertificateRecord>,
) -> Dictionary {
    let mut payload = payload("com.apple.mail.managed", owner, owner, &[]);
    let user = mail.mail_user.as_deref().unwrap_or(owner);
    let mut set = |key: &str, value: Value| drop(payload.insert(key.to_owned(), value));
    set("EmailAccountType", "EmailTypeIMAP".into());
    set("EmailAccountDescription", owner.into());
    set("EmailAddress", owner.into());
    for (way, host, port) in
        [("Incoming", server, IMAPS), ("Outgoing", mail.smtp_server.as_deref().unwrap_or(server), SUBMISSION)]
    {
        set(&format!("{way}MailServerAuthentication"), "EmailAuthPassword".into());
        set(&format!("{way}MailServerHostName"), host.into());
        set(&format!("{way}MailServerPortNumber"), port.into());
        set(&format!("{way}MailServerUseSSL"), true.into());
        set(&format!("{way}MailServerUsername"), user.into());
    }
    set("OutgoingPasswordSameAsIncomingPassword", true.into());
    // The first two are for devices before iOS 12 as well.
    set("SMIMEEnabled", (signing.is_some() || encryption.is_some()).into());
    set("SMIMESigningEnabled", signing.is_some().into());
    if let Some(record) = signing {
        set("SMIMESigningCertificateUUID", identity_uuid(owner, record).into());
    }
    set("SMIMESigningUserOverrideable", true.into());
    set("SMIMEEncryptionEnabled", (mail.encrypt_by_default && encryption.is_some()).into());
    set("SMIMEEncryptByDefault", (mail.encrypt_by_default && encryption.is_some()).into());
    set("SMIMEEncryptByDefaultUserOverrideable", true.into());
    if let Some(record) = encryption {
        set("SMIMEEncryptionCertificateUUID", identity_uuid(owner, record).into());
    }
    set("SMIMEEnableEncryptionPerMessageSwitch", encryption.is_some().into());
    payload
}

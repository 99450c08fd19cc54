//! `waxwing message seal`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::material::{Material, MaterialArgs};
use super::{key_failure, mailboxes, print, read_message, report, write};
use crate::address::Mailbox;
use crate::cli::{CommandResult, Context, Failure};
use crate::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport, SignatureScheme};
use crate::cms::enveloped::RecipientScheme;
use crate::config::{DERIVATIONS, DIGESTS, TRANSPORTS, WRITTEN};
use crate::mime::entity::Entity;
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::path::{self, PathLimits};
use crate::policy::{Family, Profile, Signatures};
use crate::smime::header_protection::{Confidentiality, HeaderProtection};
use crate::smime::open::OwnKey;
use crate::smime::seal::{CoSigner, Draft, EncryptPlan, Form, SealError, Sealed, SignPlan};

/// Arguments of `message seal`.
#[derive(Debug, clap::Args)]
pub struct SealArgs {
    /// The message; `-` reads standard input. Bare LF line ends are read as CRLF.
    file: PathBuf,
    /// Sign with the key of the mailbox in From (--key FILE, or the store).
    #[arg(long)]
    sign: bool,
    /// Sign opaque (application/pkcs7-mime) in place of clear (multipart/signed).
    #[arg(long, requires = "sign")]
    opaque: bool,
    /// Encrypt to --to (--cert FILE, or the store).
    #[arg(long)]
    encrypt: bool,
    /// Whom to encrypt to; default: To and Cc. Repeatable, or separated by commas.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    to: Vec<String>,
    /// Algorithms: modern, compatible, edi-energy or post-quantum.
    #[arg(long, value_name = "NAME", default_value = "compatible")]
    profile: String,
    #[command(flatten)]
    algorithms: AlgorithmArgs,
    /// A further signer beside the author, with a SignerInfo of his own: PKCS#12 or PEM, as --key. Repeatable.
    #[arg(long, value_name = "FILE", requires = "sign")]
    sign_too: Vec<PathBuf>,
    /// Protect header fields too (RFC 9788): no-confidentiality, baseline (hides the Subject), shy (names and time zone too).
    #[arg(long, value_name = "HOW")]
    header_protection: Option<Confidentiality>,
    /// Without the hidden fields at the top of the text, which mail programs that do not know RFC 9788 would show.
    #[arg(long, requires = "header_protection")]
    no_legacy_display: bool,
    /// Write the sealed message there; default: standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Do not read the result again before it is written.
    #[arg(long)]
    no_self_check: bool,
    /// Print what was done as JSON (to standard error where the message goes to standard output).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    material: MaterialArgs,
}

/// Algorithms in place of the profile's.
#[derive(Debug, clap::Args)]
struct AlgorithmArgs {
    /// Content encryption: AES-256-GCM, AES-192-GCM, AES-128-GCM, AES-256-CBC, AES-192-CBC or AES-128-CBC.
    #[arg(long, value_name = "NAME", value_parser = named(WRITTEN))]
    content: Option<ContentEncryption>,
    /// Key transport to RSA keys: pkcs1, oaep-sha1, oaep-sha256, oaep-sha384 or oaep-sha512.
    #[arg(long, value_name = "NAME", value_parser = named(TRANSPORTS))]
    transport: Option<KeyTransport>,
    /// Key derivation for EC and X25519 keys: sha256, sha384, sha512 (X9.63), hkdf-sha256, hkdf-sha384 or hkdf-sha512.
    #[arg(long, value_name = "NAME", value_parser = named(DERIVATIONS))]
    kdf: Option<KeyDerivation>,
    /// Encrypt under a key that is derived from the CEK (RFC 9709); few programs read it.
    #[arg(long)]
    derive_cek: bool,
    /// Digest of RSA signatures: sha256, sha384 or sha512.
    #[arg(long, value_name = "NAME", value_parser = named(DIGESTS))]
    digest: Option<Digest>,
    /// RSA signatures: true: PSS, false: PKCS#1 v1.5.
    #[arg(long, value_name = "BOOL")]
    pss: Option<bool>,
}

/// A reader of the names that a configuration knows too.
fn named<T: Copy + Send + Sync + 'static>(
    table: &'static [(&'static str, T)],
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        let found = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let names = || table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(|(_, value)| *value).ok_or_else(|| format!("expected one of {}", names()))
    }
}

impl AlgorithmArgs {
    fn applied_to(&self, mut profile: Profile) -> Profile {
        if let Some(content) = self.content {
            profile.content = vec![content];
        }
        profile.transport = self.transport.unwrap_or(profile.transport);
        profile.kdf = self.kdf.unwrap_or(profile.kdf);
        profile.derive_cek |= self.derive_cek;
        profile.digest = self.digest.unwrap_or(profile.digest);
        profile.pss = self.pss.unwrap_or(profile.pss);
        profile
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        Failure::new(format!("not sealed: {error}"), "")
    }
}

/// Runs the command: writes the sealed message, or nothing.
pub fn run(args: SealArgs, context: &Context) -> CommandResult {
    if !args.sign && !args.encrypt {
        return Err(Failure::new("nothing to do", "add --sign, --encrypt or both"));
    }
    let profile = Profile::builtin(&args.profile).ok_or_else(|| {
        Failure::new(
            format!("there is no profile {:?}", args.profile),
            "the profiles are modern, compatible, edi-energy and post-quantum",
        )
    })?;
    let profile = args.algorithms.applied_to(profile);
    let message = read_message(&args.file)?;
    let mut material = args.material.load(context)?;
    let mut draft = match args.header_protection {
        Some(outside) => {
            let how = HeaderProtection { outside, legacy_display: !args.no_legacy_display };
            Draft::with_protected_header(&message, how, args.encrypt)?
        }
        None => Draft::new(&message)?,
    };
    if args.sign {
        draft = sign(draft, &message, &args, &profile, &mut material)?;
    }
    let sealed = if args.encrypt {
        let recipients = if args.to.is_empty() { message.header.to_and_cc() } else { mailboxes(&args.to)? };
        let plan = encrypt_plan(&recipients, &profile, &material)?;
        draft.encrypt(&plan, !args.no_self_check)?
    } else {
        draft.signed()?
    };
    let output = args.output.clone().unwrap_or_else(|| "-".into());
    write(&output, &sealed.rope().to_bytes())?;
    if args.json {
        let text = format!("{}\n", summary(&sealed, &profile));
        if args.output.is_some() { print(&text) } else { eprint!("{text}") }
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(sealed: &Sealed, profile: &Profile) -> serde_json::Value {
    json!({
        "signed": sealed.is_signed(),
        "encrypted_to": sealed.encrypted_to().iter().map(|one| report::hex(one)).collect::<Vec<_>>(),
        "profile": profile.name,
        "octets": sealed.rope().encoded_len(),
    })
}

fn sign(
    draft: Draft,
    message: &Entity,
    args: &SealArgs,
    profile: &Profile,
    material: &mut Material,
) -> Result<Draft, Failure> {
    let from = message.header.single_from().map_err(|error| {
        Failure::new(format!("From names no single author: {error}"), "a message is signed in the name of one mailbox")
    })?;
    let (own, second) = signers(&from, profile, material)?;
    let scheme = scheme(&own, &from, profile)?;
    let second = match second {
        None => None,
        Some(second) => Some(CoSigner {
            key: second.key,
            chain: chain(&second.certificate, material),
            scheme: self::scheme(&second, &from, profile)?,
            certificate: second.certificate,
        }),
    };
    let plan = SignPlan {
        key: own.key,
        chain: chain(&own.certificate, material),
        encryption_certificate: encryption_certificate(&own, &from, material),
        certificate: own.certificate,
        scheme,
        digest: scheme.digest(),
        form: if args.opaque { Form::Opaque } else { Form::Clear },
        signing_time: material.at,
        capabilities: profile.content.clone(),
        second,
    };
    let signing = draft.sign_with(plan, co_signers(args, profile, material)?)?;
    let answers = signing.operations().into_iter().map(|operation| material.perform(operation));
    let answers = answers.collect::<Result<Vec<_>, _>>().map_err(|error| key_failure(&error))?;
    Ok(signing.finish_all(answers, !args.no_self_check)?)
}

/// Those who sign beside the author.
fn co_signers(args: &SealArgs, profile: &Profile, material: &mut Material) -> Result<Vec<CoSigner>, Failure> {
    let mut signers = Vec::new();
    for file in &args.sign_too {
        for own in material.further(file, args.material.password.as_deref())? {
            let refused =
                |why: &str| Failure::new(format!("{} cannot sign: {why}", file.display()), "give another --sign-too");
            own.certificate.fits(Purpose::Signature).map_err(|error| refused(&error.to_string()))?;
            let scheme = profile.signature_scheme(own.certificate.public_key());
            let scheme = scheme.ok_or_else(|| refused("its key makes no signatures with this profile"))?;
            let chain = chain(&own.certificate, material);
            signers.push(CoSigner { key: own.key, certificate: own.certificate, chain, scheme });
        }
    }
    Ok(signers)
}

fn scheme(own: &OwnKey, from: &Mailbox, profile: &Profile) -> Result<SignatureScheme, Failure> {
    profile.signature_scheme(own.certificate.public_key()).ok_or_else(|| {
        Failure::new(
            format!("the key of {from} cannot sign with the profile {:?}", profile.name),
            "use another key or --profile",
        )
    })
}

/// The key of the author, fit to sign at the time: the newest of the kind that the profile puts first, and the second one where it
/// wants both kinds.
fn signers(from: &Mailbox, profile: &Profile, material: &mut Material) -> Result<(OwnKey, Option<OwnKey>), Failure> {
    let mut why_not = Vec::new();
    let mut able: Vec<OwnKey> = Vec::new();
    for own in material.own_keys(std::slice::from_ref(from))? {
        match fits(&own.certificate, from, Purpose::Signature, material) {
            Ok(()) => able.push(own),
            Err(why) => why_not.push(format!("{}: {why}", own.certificate.subject_text())),
        }
    }
    able.sort_by_key(|own| std::cmp::Reverse(own.certificate.not_before()));
    let mut take = |family: Family| {
        let of = |own: &OwnKey| Family::of(own.certificate.public_key().kind()) == family;
        able.iter().position(of).map(|place| able.remove(place))
    };
    let first = match profile.signatures {
        Signatures::One(Family::PostQuantum) => Family::PostQuantum,
        Signatures::One(Family::Classical) | Signatures::Both => Family::Classical,
    };
    let other = if first == Family::Classical { Family::PostQuantum } else { Family::Classical };
    let pair = match (take(first), profile.signatures) {
        (Some(own), Signatures::Both) => Some((own, take(other))),
        (Some(own), Signatures::One(_)) => Some((own, None)),
        (None, _) => take(other).map(|own| (own, None)),
    };
    pair.ok_or_else(|| {
        let reasons = if why_not.is_empty() { String::new() } else { format!(" ({})", why_not.join("; ")) };
        Failure::new(
            format!("no key to sign for {from}{reasons}"),
            "give it with --key FILE, or store it with `waxwing cert import FILE`",
        )
    })
}

/// Why a certificate may not be used for a mailbox now. A path is asked for where an anchor is known.
fn fits(certificate: &Certificate, mailbox: &Mailbox, purpose: Purpose, material: &Material) -> Result<(), String> {
    if !certificate.is_for(&mailbox.key()) {
        return Err(format!("it is not for {mailbox}"));
    }
    certificate.fits(purpose).map_err(|error| error.to_string())?;
    if material.trust.anchors.is_empty() {
        if material.at < certificate.not_before() || material.at > certificate.not_after() {
            return Err(format!("it is valid from {} to {}", certificate.not_before(), certificate.not_after()));
        }
        return Ok(());
    }
    path::validate(
        certificate,
        &[],
        &material.trust,
        purpose,
        Some(mailbox.domain()),
        material.at,
        &PathLimits::default(),
    )
    .map(|_| ())
    .map_err(|error| error.to_string())
}

/// Intermediates from the leaf upwards, the anchor left out.
fn chain(leaf: &Certificate, material: &Material) -> Vec<Certificate> {
    let mut chain: Vec<Certificate> = Vec::new();
    let mut last = leaf;
    while chain.len() < 8 {
        let issuer =
            material.trust.intermediates.iter().find(|one| {
                one.is_ca() && !one.is_self_issued() && one.subject() == last.issuer() && !chain.contains(one)
            });
        let Some(issuer) = issuer else { break };
        chain.push(issuer.clone());
        last = issuer;
    }
    chain
}

/// The author's encryption certificate, where it is another than the signer's.
fn encryption_certificate(signer: &OwnKey, from: &Mailbox, material: &Material) -> Option<Certificate> {
    if fits(&signer.certificate, from, Purpose::Encryption, material).is_ok() {
        return None;
    }
    let own = material.own.iter().filter(|own| own.key != signer.key);
    own.map(|own| &own.certificate).find(|one| fits(one, from, Purpose::Encryption, material).is_ok()).cloned()
}

fn encrypt_plan(recipients: &[Mailbox], profile: &Profile, material: &Material) -> Result<EncryptPlan, Failure> {
    let content = *profile.content.first().ok_or_else(|| {
        Failure::new(format!("the profile {:?} names no cipher", profile.name), "use another --profile")
    })?;
    let mut plan = EncryptPlan { recipients: Vec::new(), content, derive_cek: profile.derive_cek };
    for mailbox in recipients {
        let certificate = recipient(mailbox, profile, material)?;
        if !plan.recipients.iter().any(|(known, _)| *known == certificate) {
            plan.recipients.push((certificate, RecipientScheme { rsa: profile.transport, kdf: profile.kdf }));
        }
    }
    if plan.recipients.is_empty() {
        return Err(Failure::new(
            "nobody to encrypt to: neither --to nor To nor Cc names a mailbox",
            "add --to ADDRESS",
        ));
    }
    Ok(plan)
}

/// The newest certificate of a mailbox that is fit for encryption, of the kind that the profile puts first where there is one.
fn recipient(mailbox: &Mailbox, profile: &Profile, material: &Material) -> Result<Certificate, Failure> {
    let mut why_not = Vec::new();
    let mut best: Option<Certificate> = None;
    for certificate in material.candidates(mailbox)? {
        match fits(&certificate, mailbox, Purpose::Encryption, material) {
            Ok(()) if best.as_ref().is_none_or(|best| rank(best, profile) < rank(&certificate, profile)) => {
                best = Some(certificate)
            }
            Ok(()) => {}
            Err(why) => why_not.push(format!("{}: {why}", certificate.subject_text())),
        }
    }
    best.ok_or_else(|| {
        let reasons = if why_not.is_empty() { String::new() } else { format!(" ({})", why_not.join("; ")) };
        Failure::new(
            format!("no certificate to encrypt to {mailbox}{reasons}"),
            "give it with --cert FILE, or store it with `waxwing cert import FILE`",
        )
    })
}

/// What makes one certificate better than another: its kind, then its age.
fn rank(certificate: &Certificate, profile: &Profile) -> (bool, jiff::Timestamp) {
    let first = Family::of(certificate.public_key().kind()) == profile.encrypt_first;
    (first, certificate.not_before())
}

//! `waxwing message`: show, seal or open a mail in a file, without a gateway.

mod material;
mod report;
mod seal;
/// The tree of layers and parts.
pub mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use aws_lc_rs::rand;
use bytes::Bytes;
use clap::Subcommand;
use jiff::Timestamp;

use super::{CommandResult, Context, Failure, NOT_GOOD, lookup_settings, output, runtime};
use crate::address::Mailbox;
use crate::cms::algorithm::Legacy;
use crate::cms::enveloped::SharedSecret;
use crate::config::Fetch;
use crate::keys::{Cek, KeyError};
use crate::mime::canonical::canonical_line_ends;
use crate::mime::entity::{Entity, MimeLimits};
use crate::pki::revocation::{Crl, Demand, Evidence, Need, OcspResponse, Source};
use crate::relay::fetch::Fetcher;
use crate::smime::open::{OpenContext, Opened, Opener, Step};
use crate::smime::verdict::SmimeResult;
use material::{Material, MaterialArgs};

/// Arguments of `waxwing message`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Draw the tree of layers and parts, with algorithms, recipients, signers and what is odd.
    #[command(
        after_help = "Examples:\n  waxwing message show mail.eml\n  waxwing message show --json - < mail.eml\n\n\
        Exit status: 0 good, 1 broken or with a wrong signature, 2 could not be read."
    )]
    Show(ShowArgs),
    /// Sign and/or encrypt a message.
    #[command(
        after_help = "Examples:\n  waxwing message seal --sign --key anna.p12 --password secret mail.eml --output signed.eml\n  \
        waxwing message seal --sign --encrypt --key anna.p12 --cert bert.crt --to bert@example.org mail.eml\n  \
        waxwing message seal --encrypt --content AES-256-GCM --kdf hkdf-sha256 --cert bert.crt mail.eml --output sealed.eml\n\n\
        Exit status: 0 sealed, 2 could not be read or sealed (nothing is written then)."
    )]
    Seal(seal::SealArgs),
    /// Undo every layer as the gateway would, and print the verdict.
    #[command(
        after_help = "Examples:\n  waxwing message open --key bert.p12 --password secret --trust ca.pem mail.eml --output content.eml\n  \
        waxwing message open --json --store /var/lib/waxwing/store --kek /etc/waxwing/kek mail.eml\n  \
        waxwing message open --no-fetch --crl ca.crl --trust ca.pem mail.eml\n  \
        WAXWING_SHARED_PASSWORD=secret waxwing message open mail.eml --output content.eml\n\n\
        CRLs and OCSP responses are fetched over HTTP from where the signers' certificates say.\n\
        Exit status: 0 good (pass, or nothing signed and every layer opened), 1 not good, 2 could not be read."
    )]
    Open(OpenArgs),
}

/// Arguments of `message show`.
#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The message; `-` reads standard input. Bare LF line ends are read as CRLF.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    judge: JudgeArgs,
}

/// Arguments of `message open`.
#[derive(Debug, clap::Args)]
struct OpenArgs {
    /// The message; `-` reads standard input. Bare LF line ends are read as CRLF.
    file: PathBuf,
    /// Print JSON: content_sha256 is taken after CRLF is turned into LF, content_sha256_crlf over what --output writes.
    #[arg(long)]
    json: bool,
    /// Write the innermost content there; `-` is standard output (the verdict goes to standard error then).
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the message as the gateway would deliver it there.
    #[arg(long, value_name = "FILE")]
    deliver: Option<PathBuf>,
    #[command(flatten)]
    fetch: FetchArgs,
    #[command(flatten)]
    judge: JudgeArgs,
}

/// What may be fetched.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(in crate::cli) struct FetchArgs {
    /// Fetch no CRLs and OCSP responses from where certificates say. With --at nothing is fetched: what is published now is no
    /// evidence of then.
    #[arg(long)]
    no_fetch: bool,
    /// Ask hosts with private, loopback or link-local addresses too.
    #[arg(long)]
    private_addresses: bool,
}

impl FetchArgs {
    /// What may be fetched to judge at `at`, with the limits of the configuration where there is one.
    pub(in crate::cli) fn limits(self, at: Option<Timestamp>, configured: Fetch) -> Fetch {
        let enabled = configured.enabled && !self.no_fetch && at.is_none();
        Fetch { enabled, private_addresses: configured.private_addresses || self.private_addresses, ..configured }
    }
}

/// What both judge with.
#[derive(Debug, clap::Args)]
struct JudgeArgs {
    #[command(flatten)]
    material: MaterialArgs,
    /// With a store: whose keys to use; default: those of To and Cc. Repeatable.
    #[arg(long = "for", value_name = "ADDRESS")]
    recipient: Vec<String>,
    /// CRLs, PEM or DER; those in the message are looked at too. Repeatable.
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,
    /// OCSP responses, DER. Repeatable.
    #[arg(long, value_name = "FILE")]
    ocsp: Vec<PathBuf>,
    /// Whether signers' certificates may be revoked: `require` wants proof that they are not, `prefer` refuses those known to be, `off`
    /// does not look; default: prefer where something is given or may be fetched, else off.
    #[arg(long, value_name = "HOW")]
    revocation: Option<Demand>,
    /// Read what is weak too: 3DES, RC2, SHA-1 signatures, RSA keys of 1024 bits, short tags of GCM. What was read so is marked.
    #[arg(long)]
    legacy: bool,
    /// A password that sender and recipient share (PasswordRecipientInfo); better in the environment. Repeatable.
    #[arg(long, value_name = "TEXT", env = "WAXWING_SHARED_PASSWORD", hide_env_values = true)]
    shared_password: Vec<String>,
    /// A key-encryption key that sender and recipient share (KEKRecipientInfo): 16, 24 or 32 octets in hexadecimal, and after a colon, where
    /// it is to be used for no other, its identifier in hexadecimal; better in the environment. Repeatable.
    #[arg(long, value_name = "HEX[:HEX]", env = "WAXWING_SHARED_KEY", hide_env_values = true)]
    shared_key: Vec<String>,
    /// An emailAddress in a certificate's subject counts where its subjectAltName names no mailbox.
    #[arg(long)]
    email_in_subject: bool,
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    match args.command {
        Command::Show(args) => {
            let nothing = Fetch { enabled: false, ..Fetch::default() };
            let opened = judge(&args.file, &args.judge, nothing, context)?;
            print(&render(&opened, args.json, false)?);
            let bad = matches!(opened.verdict.result, SmimeResult::Fail | SmimeResult::PermError);
            Ok(if bad { ExitCode::from(NOT_GOOD) } else { ExitCode::SUCCESS })
        }
        Command::Seal(args) => seal::run(args, context),
        Command::Open(args) => {
            let fetch = args.fetch.limits(args.judge.material.at, lookup_settings(context)?.0);
            let opened = judge(&args.file, &args.judge, fetch, context)?;
            for (file, octets) in [(&args.output, &opened.content), (&args.deliver, &opened.message)] {
                if let Some(file) = file {
                    write(file, octets)?;
                }
            }
            let text = render(&opened, args.json, true)?;
            let taken = [&args.output, &args.deliver].into_iter().flatten().any(|file| file == Path::new("-"));
            if taken {
                eprint!("{text}")
            } else {
                print(&text)
            }
            Ok(if is_good(&opened) { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
        }
    }
}

/// Proven, or nothing signed and every layer opened.
fn is_good(opened: &Opened) -> bool {
    matches!(opened.verdict.result, SmimeResult::Pass | SmimeResult::None)
}

fn render(opened: &Opened, json: bool, verdict: bool) -> Result<String, Failure> {
    if json {
        let text = serde_json::to_string_pretty(&report::of_opened(opened))
            .map_err(|error| Failure::new(format!("the report cannot be written: {error}"), ""))?;
        return Ok(format!("{text}\n"));
    }
    let mut text = tree::of_opened(opened, &MimeLimits::default()).draw();
    if verdict {
        text.push_str(&format!(
            "verdict: {} ({})\n",
            report::word(opened.verdict.result),
            opened.verdict.reason.escape_debug()
        ));
        if opened.verdict.unauthenticated {
            text.push_str("unauthenticated: the decrypted content may have been changed on its way\n");
        }
    }
    Ok(text)
}

/// Reads a message: bare LF becomes CRLF, as it would on its way over SMTP.
pub(super) fn read_message(file: &Path) -> Result<Entity, Failure> {
    let octets = canonical_line_ends(&Bytes::from(material::read(file)?));
    Entity::parse(octets, &MimeLimits::default()).map_err(|error| {
        Failure::new(format!("{} is no message: {error}", file.display()), "give a message as it is in a .eml file")
    })
}

fn judge(file: &Path, args: &JudgeArgs, fetch: Fetch, context: &Context) -> Result<Opened, Failure> {
    let message = read_message(file)?;
    let mut material = args.material.load(context)?;
    let certificates = lookup_settings(context)?.1;
    let recipients = if args.recipient.is_empty() { message.header.to_and_cc() } else { mailboxes(&args.recipient)? };
    let keys = material.own_keys(&recipients)?;
    let legacy = if args.legacy { Legacy::ALL } else { Legacy::default() };
    let mut context = OpenContext::new(keys, material.trust.clone(), material.at).with_legacy(legacy);
    context.secrets = secrets(args)?;
    context.path.policies = certificates.policies;
    context.email_in_subject = args.email_in_subject || certificates.email_in_subject;
    context.revocation = match args.revocation {
        Some(demand) => demand,
        None if args.crl.is_empty() && args.ocsp.is_empty() && !fetch.enabled => Demand::Off,
        None => Demand::Prefer,
    };
    let given = evidence(&args.crl, &args.ocsp)?;
    // Offline nobody is waiting for an oracle's answer.
    context.operations = 64;
    let fetched = Arc::new(GivenAndFetched { given, fetcher: Arc::new(Fetcher::new(fetch)) });
    context.evidence = fetched.clone();
    // Standard input is not read twice.
    let again = (file == Path::new("-")).then(|| message.clone());
    let mut opened = open(message, context.clone(), &material)?;
    if fetch.enabled && fetched.fetch(std::mem::take(&mut opened.needs))? {
        context.at = args.material.at.unwrap_or_else(Timestamp::now);
        opened = open(again.map_or_else(|| read_message(file), Ok)?, context, &material)?;
    }
    Ok(opened)
}

/// The secrets that were given.
fn secrets(args: &JudgeArgs) -> Result<Vec<SharedSecret>, Failure> {
    let passwords = args.shared_password.iter().map(|text| Ok(SharedSecret::Password(text.clone().into())));
    let keys = args.shared_key.iter().map(|text| {
        let (key, identifier) = text.split_once(':').map_or((text.as_str(), None), |(key, id)| (key, Some(id)));
        let bad = || {
            Failure::new(
                "--shared-key is no key",
                "give 16, 24 or 32 octets in hexadecimal, such as `openssl rand -hex 32` prints",
            )
        };
        let key = octets(key).filter(|key| matches!(key.len(), 16 | 24 | 32)).ok_or_else(bad)?;
        let identifier = identifier.map(|id| octets(id).map(Bytes::from).ok_or_else(bad)).transpose()?;
        Ok(SharedSecret::Kek { identifier, key: key.into() })
    });
    passwords.chain(keys).collect()
}

/// Octets in hexadecimal.
fn octets(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let octets = pairs.iter().map(|[high, low]| Some((digit(*high)? << 4) | digit(*low)?)).collect();
    if rest.is_empty() { octets } else { None }
}

/// Evidence of files, and what was fetched beside it.
#[derive(Debug)]
pub(in crate::cli) struct GivenAndFetched {
    pub(in crate::cli) given: Evidence,
    pub(in crate::cli) fetcher: Arc<Fetcher>,
}

impl Source for GivenAndFetched {
    fn at_hand(&self, wanted: &[Need]) -> Evidence {
        let mut evidence = self.fetcher.at_hand(wanted);
        evidence.crls.extend(self.given.crls.iter().cloned());
        evidence.ocsp.extend(self.given.ocsp.iter().cloned());
        evidence
    }
}

impl GivenAndFetched {
    /// Fetches what is needed; true if something came.
    pub(in crate::cli) fn fetch(&self, needs: Vec<Need>) -> Result<bool, Failure> {
        if needs.is_empty() {
            return Ok(false);
        }
        Ok(runtime()?.block_on(self.fetcher.fetch(needs, Timestamp::now())))
    }
}

/// CRLs and OCSP responses of files.
pub(in crate::cli) fn evidence(crls: &[PathBuf], ocsp: &[PathBuf]) -> Result<Evidence, Failure> {
    let failed = |file: &Path, error| Failure::new(format!("{}: {error}", file.display()), "");
    let mut evidence = Evidence::default();
    for file in crls {
        let read = Crl::from_pem_or_der(&material::read(file)?).map_err(|error| failed(file, error))?;
        evidence.crls.extend(read.into_iter().map(Arc::new));
    }
    for file in ocsp {
        let read = OcspResponse::from_der(material::read(file)?.into()).map_err(|error| failed(file, error))?;
        evidence.ocsp.push(Arc::new(read));
    }
    Ok(evidence)
}

/// Runs the opener to its end with the keys at hand.
fn open(message: Entity, context: OpenContext, material: &Material) -> Result<Opened, Failure> {
    let mut opener = Opener::new(message, context, substitute);
    let mut answer = None;
    loop {
        match opener.step(answer.take()) {
            Step::Key(operation) => answer = Some(material.perform(operation)),
            Step::Done(opened) => return Ok(*opened),
        }
    }
}

/// 32 random octets: what a CEK that does not unwrap is replaced by (A3).
fn substitute() -> Cek {
    let mut cek = Cek::new(vec![0; 32]);
    // Without randomness nothing opens: zeroes are as wrong a key as any.
    let _ = rand::fill(&mut cek);
    cek
}

fn mailboxes(texts: &[String]) -> Result<Vec<Mailbox>, Failure> {
    texts.iter().map(|text| Mailbox::parse(text).map_err(|error| Failure::new(error.to_string(), ""))).collect()
}

fn key_failure(error: &KeyError) -> Failure {
    Failure::new(format!("key: {error}"), "")
}

/// Writes a file, or standard output for `-`.
fn write(file: &Path, octets: &[u8]) -> Result<(), Failure> {
    if file == Path::new("-") {
        output::octets(octets);
        return Ok(());
    }
    std::fs::write(file, octets)
        .map_err(|error| Failure::new(format!("{} cannot be written: {error}", file.display()), ""))
}

fn print(text: &str) {
    output::octets(text.as_bytes());
}

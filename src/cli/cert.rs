//! `waxwing cert`: certificates and private keys of mailboxes and domains.

mod capabilities;
mod check;
mod expiring;
mod export;
mod import;
mod pending;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{CommandResult, Context, Failure, NOT_GOOD, PasswordArgs, StoreArgs, print_table, shown};
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::path::{PathLimits, validate};
use crate::policy::TrustState;
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::hex;
use crate::store::{CertStore, CertificateRecord, Identity, Owner};

/// Arguments of `waxwing cert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: Command,
}

/// How far what is imported is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Trust {
    /// Preferred over all others.
    Pinned,
    /// Used where its path is valid.
    Trusted,
    /// Not used until approved.
    Pending,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Store certificates and private keys from files and folders: PKCS#12, PEM, DER, LDIF. Nothing of a file, or of a directory's value, is
    /// stored, or all of it. What is stored already is left as it is, so an import may be repeated.
    ///
    /// Exit status: 0 all stored (or there already), 1 some refused, 2 nothing could be tried.
    #[command(
        after_help = "Examples:\n  waxwing cert import --password-file pw.txt anna.p12\n  waxwing cert import --trust pinned partners/\n  \
        waxwing cert import directory.ldif --report import.csv\n  waxwing cert import keys/ --password-file pw.txt --report import.csv --resume"
    )]
    Import {
        /// Files, and folders, of which .p12 .pfx .pem .crt .cer .der .ldif are read; of LDIF userCertificate, userSMIMECertificate, userPKCS12.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        password: PasswordArgs,
        /// Whose they are; default: the addresses in each certificate. `@example.org` makes it a domain certificate.
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        #[arg(long, value_enum, default_value_t = Trust::Trusted)]
        trust: Trust,
        /// Write what became of each file and value, and why: CSV, or JSON a line where it ends in .json or .jsonl.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Go on with a report: what it says is stored is not read again.
        #[arg(long, requires = "report")]
        resume: bool,
        /// The sums, for programs.
        #[arg(long)]
        json: bool,
    },
    /// List certificates, of one owner or of all.
    #[command(after_help = "Example:\n  waxwing cert list\n  waxwing cert list anna@example.org --json")]
    List {
        /// A mailbox, or @domain.
        address: Option<String>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of an owner or of one certificate.
    #[command(after_help = "Example:\n  waxwing cert show anna@example.org\n  waxwing cert show 3b1f02c4")]
    Show {
        /// A mailbox, @domain, or 8 or more digits of a SHA-256 fingerprint.
        what: String,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Check every certificate of an owner, or of a file: what it may be used for and why not, its path as a tree, whether it is revoked,
    /// where that was fetched and until when it holds.
    ///
    /// Exit status: 0 one at least may be used, 1 none may, 2 could not be read.
    #[command(
        after_help = "Examples:\n  waxwing cert check anna@example.org\n  waxwing cert check --trust ca.pem anna.pem --no-fetch --crl ca.crl\n  \
        waxwing cert check @partner.example --revocation require --json"
    )]
    Check(Box<check::CheckArgs>),
    /// Write all certificates and private keys that an owner ever had to a PKCS#12 file, and read it back; or what Apple's devices install; or
    /// everybody's keys for device management.
    #[command(
        after_help = "Examples:\n  waxwing cert export anna@example.org --output anna.p12 --password-file pw.txt\n  \
        waxwing cert export anna@example.org --mobileconfig anna.mobileconfig --mail-server imap.example.org --password-file pw.txt\n  \
        waxwing cert export --all-users devices/"
    )]
    Export(Box<export::ExportArgs>),
    /// List whose certificates run out soon, with none after them that lasts longer.
    ///
    /// Exit status: 0 none, 1 some, 2 could not be read.
    #[command(
        after_help = "Examples:\n  waxwing cert expiring --within 30d\n  waxwing cert expiring --within 2w --partners --json"
    )]
    Expiring(expiring::ExpiringArgs),
    /// Disable an owner: no signing and no new encryption; old mail stays readable. Nothing is revoked at the CA.
    #[command(after_help = "Example:\n  waxwing cert disable anna@example.org")]
    Disable {
        /// A mailbox, or @domain.
        address: String,
    },
    /// Enable a disabled owner again.
    #[command(after_help = "Example:\n  waxwing cert enable anna@example.org")]
    Enable {
        /// A mailbox, or @domain.
        address: String,
    },
    /// Remove an owner's certificates and private keys: mail encrypted to them can never be read here again.
    #[command(
        after_help = "Examples:\n  waxwing cert purge anna@example.org --export anna.p12 --password-file pw.txt\n  \
        waxwing cert purge anna@example.org --exported anna.p12 --password-file pw.txt"
    )]
    Purge {
        /// A mailbox, or @domain.
        address: String,
        /// Make this export first, read it back, and check that it holds every key and certificate that goes.
        #[arg(long, value_name = "FILE", required_unless_present_any = ["exported", "force"])]
        export: Option<PathBuf>,
        /// An export that was made before, which is checked in the same way.
        #[arg(long, value_name = "FILE", conflicts_with = "export")]
        exported: Option<PathBuf>,
        /// Without an export: the keys are lost.
        #[arg(long, conflicts_with_all = ["exported", "export"])]
        force: bool,
        #[command(flatten)]
        password: PasswordArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Never use certificates of an owner: all of them, or one.
    #[command(after_help = "Example:\n  waxwing cert block bert@example.com --fingerprint 3b1f02c4")]
    Block {
        /// A mailbox, or @domain.
        address: String,
        /// Only this one: 8 or more digits of its SHA-256 fingerprint.
        #[arg(long)]
        fingerprint: Option<String>,
    },
    /// Certificates that signed mail brought and nobody approved yet.
    #[command(after_help = "Example:\n  waxwing cert pending list\n  waxwing cert pending approve bert@example.com")]
    Pending {
        #[command(subcommand)]
        command: pending::Command,
    },
    /// Show what an owner can read, or say it by hand: mails do not change that.
    #[command(
        after_help = "Example:\n  waxwing cert capabilities bert@example.com\n  waxwing cert capabilities bert@example.com --set AES-256-CBC,AES-128-CBC"
    )]
    Capabilities(capabilities::Args),
    /// Approve certificates of an owner: all that are pending, or one, blocked or not.
    #[command(after_help = "Example:\n  waxwing cert approve bert@example.com")]
    Approve {
        /// A mailbox, or @domain.
        address: String,
        /// Only this one: 8 or more digits of its SHA-256 fingerprint.
        #[arg(long)]
        fingerprint: Option<String>,
    },
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    match args.command {
        Command::Import { paths, password, address, trust, report, resume, json } => {
            let owner = address.as_deref().map(parse_owner).transpose()?;
            let trust = match trust {
                Trust::Pinned => TrustState::Pinned,
                Trust::Trusted => TrustState::Trusted,
                Trust::Pending => TrustState::Pending,
            };
            let password = password.read()?;
            let files = import::collect(&paths)?;
            let store = args.store.open_or_create(context)?;
            let password = password.as_ref().map(|text| text.as_str());
            let report = report.as_deref();
            import::run(&import::Settings { store: &store, password, owner, trust, report, resume, json }, &files)
        }
        Command::List { address, json } => list(&args.store.open(context)?, address.as_deref(), json),
        Command::Show { what, json } => show(&args.store.open(context)?, &what, json),
        Command::Check(check) => check::run(*check, &args.store, context),
        Command::Export(export) => export::run(&export, &args.store.open(context)?),
        Command::Expiring(expiring) => expiring::run(&expiring, &args.store.open(context)?),
        Command::Disable { address } => set_disabled(&args.store.open(context)?, &parse_owner(&address)?, true),
        Command::Enable { address } => set_disabled(&args.store.open(context)?, &parse_owner(&address)?, false),
        Command::Purge { address, export: output, exported, force: _, password, json } => {
            let owner = parse_owner(&address)?;
            let store = args.store.open(context)?;
            let Some(file) = output.as_ref().or(exported.as_ref()) else {
                return export::purge(&store, &owner, None, json);
            };
            let password = export::needed(&password)?;
            if output.is_some() {
                export::to_file(&store, &owner, file, &password, json)?;
            }
            export::purge(&store, &owner, Some((file, &password)), json)
        }
        Command::Block { address, fingerprint } => {
            let block = |record: &CertificateRecord| record.trust != TrustState::Blocked;
            set_trust(&args.store.open(context)?, &address, fingerprint.as_deref(), TrustState::Blocked, block)
        }
        Command::Pending { command } => pending::run(command, &args.store.open(context)?),
        Command::Capabilities(arguments) => capabilities::run(&arguments, &args.store.open(context)?),
        Command::Approve { address, fingerprint } => {
            let approve = |record: &CertificateRecord| record.trust == TrustState::Pending;
            set_trust(&args.store.open(context)?, &address, fingerprint.as_deref(), TrustState::Trusted, approve)
        }
    }
}

fn parse_owner(text: &str) -> Result<Owner, Failure> {
    Owner::parse(text).map_err(|error| Failure::new(error.to_string(), ""))
}

/// What is known of an owner; nothing known is a failure.
fn known(store: &EmbeddedStore, owner: &Owner) -> Result<Arc<Identity>, Failure> {
    let identity = store.identity_of(owner)?;
    if identity.certificates.is_empty() {
        return Err(Failure::new(
            format!("nothing is stored for {}", shown(&owner.to_string())),
            "`waxwing cert list` shows who is known, `waxwing cert import` adds",
        ));
    }
    Ok(identity)
}

fn set_disabled(store: &EmbeddedStore, owner: &Owner, disabled: bool) -> CommandResult {
    let owner = store.owner_of(owner)?;
    store.set_disabled(&owner, disabled)?;
    let name = shown(&owner.to_string());
    if disabled {
        println!(
            "{name} is disabled: no signing, no new encryption; its keys still decrypt. Nothing was revoked at the CA"
        );
    } else {
        println!("{name} is enabled");
    }
    super::store::tell_acknowledged(store)?;
    Ok(ExitCode::SUCCESS)
}

fn set_trust(
    store: &EmbeddedStore,
    address: &str,
    fingerprint: Option<&str>,
    trust: TrustState,
    applies: impl Fn(&CertificateRecord) -> bool,
) -> CommandResult {
    let identity = known(store, &parse_owner(address)?)?;
    let chosen: Vec<&Certificate> = match fingerprint {
        Some(digits) => {
            vec![super::trust::find(identity.certificates.iter().map(|record| &record.certificate), digits)?]
        }
        None => {
            identity.certificates.iter().filter(|record| applies(record)).map(|record| &record.certificate).collect()
        }
    };
    for certificate in &chosen {
        store.set_trust(&identity.owner, certificate.fingerprint(), trust)?;
        println!("{} {} {}", shown(&identity.owner.to_string()), short(certificate), trust.word());
    }
    if chosen.is_empty() {
        println!("nothing to change for {}", shown(&identity.owner.to_string()));
    }
    super::store::tell_acknowledged(store)?;
    Ok(ExitCode::SUCCESS)
}

/// The first 16 digits of the fingerprint.
fn short(certificate: &Certificate) -> String {
    hex(&certificate.fingerprint()).chars().take(16).collect()
}

fn list(store: &EmbeddedStore, address: Option<&str>, as_json: bool) -> CommandResult {
    let (mut identities, mut damaged) = (Vec::new(), false);
    match address {
        Some(address) => identities.push(known(store, &parse_owner(address)?)?),
        None => {
            for owner in store.owners()? {
                match store.identity_of(&owner) {
                    Ok(identity) => identities.push(identity),
                    Err(error) => {
                        eprintln!("waxwing: {}: {error}", shown(&owner.to_string()));
                        damaged = true;
                    }
                }
            }
        }
    }
    if as_json {
        println!("{:#}", json!(identities.iter().map(|identity| identity_json(identity)).collect::<Vec<_>>()));
    } else {
        let rows: Vec<_> = identities
            .iter()
            .flat_map(|identity| identity.certificates.iter().rev().map(|record| row(identity, record)))
            .collect();
        print_table(&["OWNER", "FINGERPRINT", "NOT BEFORE", "NOT AFTER", "TRUST", "KEY", "SUBJECT"], &rows);
    }
    Ok(if damaged || store.alerts() > 0 { ExitCode::from(NOT_GOOD) } else { ExitCode::SUCCESS })
}

fn row(identity: &Identity, record: &CertificateRecord) -> Vec<String> {
    let certificate = &record.certificate;
    let disabled = if identity.disabled { " (disabled)" } else { "" };
    vec![
        format!("{}{disabled}", shown(&identity.owner.to_string())),
        short(certificate),
        certificate.not_before().to_string(),
        certificate.not_after().to_string(),
        record.trust.word().to_owned(),
        if record.key.is_some() { "yes" } else { "no" }.to_owned(),
        shown(&certificate.subject_text()),
    ]
}

fn identity_json(identity: &Identity) -> Value {
    json!({
        "owner": identity.owner.to_string(), "disabled": identity.disabled, "generation": identity.generation,
        "certificates": identity.certificates.iter().map(record_json).collect::<Vec<_>>(),
    })
}

fn record_json(record: &CertificateRecord) -> Value {
    let certificate = &record.certificate;
    json!({
        "fingerprint": *hex(&certificate.fingerprint()), "subject": certificate.subject_text(), "issuer": certificate.issuer_text(),
        "serial": *hex(certificate.serial()), "not_before": certificate.not_before().to_string(), "not_after": certificate.not_after().to_string(),
        "addresses": certificate.mailboxes().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "key_type": certificate.public_key().kind().name(), "trust": record.trust.word(), "private_key": record.key.is_some(),
        "preferred": record.preferred,
        "capabilities": record.reads().map(|known| known.names()),
        "capabilities_said_by": capabilities::told(record).1.map(|by| json!({ "source": by.source, "detail": by.detail, "at": by.at.to_string() })),
        "last_seen": record.last_seen.map(pending::day), "why": record.note.as_ref().map(|note| &note.why),
        "instead_of": record.note.as_ref().and_then(|note| note.instead_of).map(|old| hex(&old).to_string()),
        "source": record.provenance.source, "detail": record.provenance.detail, "stored": record.provenance.at.to_string(),
    })
}

fn show(store: &EmbeddedStore, what: &str, as_json: bool) -> CommandResult {
    let (identity, only) = if what.contains('@') {
        (known(store, &parse_owner(what)?)?, None)
    } else {
        let identities = store.owners()?.iter().map(|owner| store.identity_of(owner)).collect::<Result<Vec<_>, _>>()?;
        let all = identities.iter().flat_map(|identity| identity.certificates.iter().map(|record| &record.certificate));
        let wanted = super::trust::find(all, what)?.fingerprint();
        let has = |identity: &&Arc<Identity>| {
            identity.certificates.iter().any(|record| record.certificate.fingerprint() == wanted)
        };
        let identity = identities.iter().find(has).ok_or_else(|| Failure::new(format!("no certificate {what}"), ""))?;
        (Arc::clone(identity), Some(wanted))
    };
    let shown_ones = identity
        .certificates
        .iter()
        .filter(|record| only.is_none_or(|wanted| record.certificate.fingerprint() == wanted));
    if as_json {
        let mut value = identity_json(&identity);
        if let Some(entry) = value.get_mut("certificates") {
            *entry = json!(shown_ones.map(record_json).collect::<Vec<_>>());
        }
        println!("{value:#}");
    } else {
        println!("{}{}", shown(&identity.owner.to_string()), if identity.disabled { " (disabled)" } else { "" });
        shown_ones.for_each(|record| show_record(store, &identity, record));
    }
    Ok(if store.alerts() > 0 { ExitCode::from(NOT_GOOD) } else { ExitCode::SUCCESS })
}

fn show_record(store: &EmbeddedStore, identity: &Identity, record: &CertificateRecord) {
    let certificate = &record.certificate;
    let addresses: Vec<String> = certificate.mailboxes().iter().map(ToString::to_string).collect();
    println!("\n  fingerprint  {}", &*hex(&certificate.fingerprint()));
    println!("  subject      {}", shown(&certificate.subject_text()));
    println!("  issuer       {}", shown(&certificate.issuer_text()));
    println!("  serial       {}", &*hex(certificate.serial()));
    println!("  addresses    {}", shown(&addresses.join(", ")));
    println!("  valid        {} to {}", certificate.not_before(), certificate.not_after());
    println!(
        "  key          {}, private key {}",
        certificate.public_key().kind().name(),
        if record.key.is_some() { "in the store" } else { "not here" }
    );
    println!("  trust        {}", record.trust.word());
    if let Some(note) = &record.note {
        println!("  why          {}", shown(&note.why));
    }
    if let Some(old) = record.note.as_ref().and_then(|note| note.instead_of) {
        println!("  instead of   {}", &*hex(&old));
    }
    if let (Some(reads), by) = capabilities::told(record) {
        let by = by.map(|by| format!(" (by {} {}, {})", by.source, by.detail, by.at)).unwrap_or_default();
        println!("  reads        {}{}", reads.join(", "), shown(&by));
    }
    if record.preferred {
        println!("  preferred    its owner, or an administrator, wants mail encrypted to it");
    }
    if let Some(seen) = record.last_seen {
        println!("  last seen    {}", pending::day(seen));
    }
    println!(
        "  from         {} {}, {}",
        shown(&record.provenance.source),
        shown(&record.provenance.detail),
        record.provenance.at
    );
    let domain = match &identity.owner {
        Owner::Mailbox(mailbox) => mailbox.domain(),
        Owner::Domain(domain) => domain.clone(),
    };
    let Ok(trust) = store.trust() else { return };
    for (name, purpose) in [("signing", Purpose::Signature), ("encryption", Purpose::Encryption)] {
        match validate(certificate, &[], &trust, purpose, Some(&domain), Timestamp::now(), &PathLimits::default()) {
            Ok(_) => println!("  {name:<12} path valid now"),
            Err(error) => println!("  {name:<12} {}", shown(&error.to_string())),
        }
    }
}

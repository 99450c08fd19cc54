//! `waxwing cert check`: every certificate of an owner or a file, what it may be used for, its path, and whether it is revoked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Failure, known, parse_owner, short};
use crate::address::Domain;
use crate::cli::message::tree::Node;
use crate::cli::message::{FetchArgs, GivenAndFetched, evidence};
use crate::cli::{CommandResult, Context, NOT_GOOD, StoreArgs, lookup_settings, read_file, shown};
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::path::{self, AnchorScope, PathLimits, TrustAnchor, TrustSet, ValidPath};
use crate::pki::revocation::{self, CertificateState, Demand, Evidence, Need, Source, Status};
use crate::policy::TrustState;
use crate::store::keyring::hex;
use crate::store::{CertStore, CertificateRecord, Owner};

/// Days before it expires that a certificate's end is pointed out.
const SOON: i64 = 30;

/// Arguments of `cert check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// A mailbox, @domain, or a file with certificates, PEM or DER: those of CAs help to find paths.
    what: String,
    /// Trust anchors, PEM or DER, beside those of the store; with a file no store is needed then. Repeatable.
    #[arg(long, value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// At this time (RFC 3339); default: now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// CRLs, PEM or DER. Repeatable.
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,
    /// OCSP responses, DER. Repeatable.
    #[arg(long, value_name = "FILE")]
    ocsp: Vec<PathBuf>,
    /// How much the state of revocation counts: off, prefer, require.
    #[arg(long, value_name = "HOW", default_value = "prefer")]
    revocation: Demand,
    #[command(flatten)]
    fetch: FetchArgs,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// A certificate to check, and what the store says of it.
struct Subject {
    certificate: Certificate,
    record: Option<CertificateRecord>,
}

/// What was found out of one.
struct Checked {
    subject: Subject,
    /// Why not, for encryption and for signing.
    encryption: Result<(), String>,
    signing: Result<(), String>,
    path: Result<ValidPath, String>,
    states: Vec<(CertificateState, Vec<Told>)>,
    notes: Vec<String>,
}

/// Where the state of a certificate is told, and what came of asking there.
struct Told {
    uri: String,
    ocsp: bool,
    outcome: String,
}

/// What all are judged with.
struct Checker {
    owner: Option<Owner>,
    trust: Arc<TrustSet>,
    extra: Vec<Certificate>,
    limits: PathLimits,
    in_subject: bool,
    demand: Demand,
    at: Timestamp,
    fetching: bool,
    source: GivenAndFetched,
}

/// Runs the command.
pub(super) fn run(args: CheckArgs, store: &StoreArgs, context: &Context) -> CommandResult {
    let (fetch, settings) = lookup_settings(context)?;
    let file = Path::new(&args.what);
    let (mut subjects, mut extra, mut owner, mut trust) = (Vec::new(), Vec::new(), None, TrustSet::default());
    let is_file = !args.what.contains('@') || file.is_file();
    if is_file {
        let read = certificates(file)?;
        let (authorities, leaves): (Vec<_>, Vec<_>) = read.iter().cloned().partition(Certificate::is_ca);
        let wanted = if leaves.is_empty() { authorities.clone() } else { leaves };
        subjects = wanted.into_iter().map(|certificate| Subject { certificate, record: None }).collect();
        extra = authorities;
    }
    if !is_file || args.trust.is_empty() {
        let store = store.open(context)?;
        trust = TrustSet::clone(&*store.trust()?);
        if !is_file {
            let identity = known(&store, &parse_owner(&args.what)?)?;
            owner = Some(identity.owner.clone());
            let records = identity.certificates.iter().rev();
            subjects = records
                .map(|record| Subject { certificate: record.certificate.clone(), record: Some(record.clone()) })
                .collect();
            if identity.disabled && !args.json {
                println!("{} is disabled: nothing is signed for it, nothing new encrypted to it\n", shown(&args.what));
            }
        }
    }
    for file in &args.trust {
        let anchors = certificates(file)?.into_iter();
        trust.anchors.extend(anchors.map(|certificate| TrustAnchor { certificate, scope: AnchorScope::Global }));
    }
    let fetch = args.fetch.limits(args.at, fetch);
    let checker = Checker {
        owner,
        trust: Arc::new(trust),
        extra,
        limits: PathLimits { policies: settings.policies, ..PathLimits::default() },
        in_subject: settings.email_in_subject,
        demand: args.revocation,
        at: args.at.unwrap_or_else(Timestamp::now),
        fetching: fetch.enabled,
        source: GivenAndFetched {
            given: evidence(&args.crl, &args.ocsp)?,
            fetcher: Arc::new(crate::relay::fetch::Fetcher::new(fetch)),
        },
    };
    let checked = subjects.into_iter().map(|subject| checker.check(subject)).collect::<Result<Vec<_>, _>>()?;
    if args.json {
        println!(
            "{:#}",
            json!({"what": args.what, "at": checker.at.to_string(), "certificates": checked.iter().map(|one| checker.as_json(one)).collect::<Vec<_>>()})
        );
    } else {
        println!("{}", shown(&args.what));
        checked.iter().for_each(|one| checker.print(one));
    }
    let usable = checked.iter().any(|one| one.encryption.is_ok() || one.signing.is_ok());
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, Failure> {
    let failed = |error| {
        Failure::new(format!("{}: {error}", file.display()), "give a mailbox, @domain, or a file of certificates")
    };
    Certificate::from_pem_or_der(&read_file(file)?).map_err(failed)
}

impl Checker {
    fn domain(&self) -> Option<Domain> {
        self.owner.as_ref().map(|owner| match owner {
            Owner::Mailbox(mailbox) => mailbox.domain(),
            Owner::Domain(domain) => domain.clone(),
        })
    }

    fn check(&self, subject: Subject) -> Result<Checked, Failure> {
        let certificate = &subject.certificate;
        let found = path::find(certificate, &self.extra, &self.trust, self.domain().as_ref(), self.at, &self.limits);
        let path = found.map_err(|error| error.to_string());
        let mut states = Vec::new();
        let mut revoked = Ok(());
        if let (Ok(path), true) = (&path, self.demand != Demand::Off) {
            let status = self.judge(path)?;
            revoked = self.demand.refuses(&status).map_or(Ok(()), Err);
            let each = revocation::each(path, &self.source, &self.extra, &self.trust, self.at, &self.limits);
            states = each.into_iter().map(|state| self.told(path, state)).collect();
        }
        let may = |purpose: Purpose| -> Result<(), String> {
            self.allowed(&subject, purpose)?;
            certificate.fits(purpose).map_err(|error| error.to_string())?;
            path.as_ref().map_err(Clone::clone)?;
            revoked.clone()
        };
        let (encryption, mut signing) = (may(Purpose::Encryption), may(Purpose::Signature));
        if subject.record.as_ref().is_some_and(|record| record.key.is_none()) && signing.is_ok() {
            signing = Err("its private key is not in the store".into());
        }
        Ok(Checked { notes: self.notes(certificate), encryption, signing, path, states, subject })
    }

    /// What the store says of it.
    fn allowed(&self, subject: &Subject, purpose: Purpose) -> Result<(), String> {
        match subject.record.as_ref().map(|record| record.trust) {
            Some(TrustState::Blocked) => return Err("blocked".into()),
            Some(TrustState::Pending) => return Err("pending until an administrator approves it".into()),
            _ => {}
        }
        let names = match &self.owner {
            Some(Owner::Mailbox(mailbox)) => subject.certificate.names(mailbox, self.in_subject),
            Some(Owner::Domain(domain)) => subject.certificate.is_for_domain(domain, purpose),
            None => true,
        };
        if names { Ok(()) } else { Err("its subjectAltName does not hold the address".into()) }
    }

    /// The state of the path's certificates, after what is missing was fetched.
    fn judge(&self, path: &ValidPath) -> Result<Status, Failure> {
        let nothing = Evidence::default();
        let judge = || revocation::check(path, &self.source, &nothing, &self.extra, &self.trust, self.at, &self.limits);
        let mut judged = judge();
        // A responder's own certificate may ask for more.
        for _ in 0..3 {
            if !self.fetching || !self.source.fetch(std::mem::take(&mut judged.needs))? {
                break;
            }
            judged = judge();
        }
        Ok(judged.status)
    }

    /// What came of asking where the certificate says.
    fn told(&self, path: &ValidPath, state: CertificateState) -> (CertificateState, Vec<Told>) {
        let told = state.told_at.iter().map(|need| {
            let (Need::Crl { uri } | Need::Ocsp { uri, .. }) = need;
            let alone = Alone { all: &self.source, need };
            let judged = revocation::each(path, &alone, &self.extra, &self.trust, self.at, &self.limits);
            let of_this = judged.into_iter().find(|one| one.certificate == state.certificate).map(|one| one.status);
            let outcome = match (self.source.fetcher.tried(need), of_this) {
                (None, _) => "not fetched".to_owned(),
                (Some(tried), Some(status @ (Status::Good { .. } | Status::Revoked { .. }))) => {
                    format!("fetched {}: {status}", tried.came.unwrap_or(self.at))
                }
                (Some(tried), status) => {
                    let why = tried.failed.map(|why| why.to_string());
                    let unknown = status.map(|status| status.to_string()).unwrap_or_default();
                    format!("no use: {}", why.unwrap_or(unknown))
                }
            };
            Told { uri: uri.clone(), ocsp: matches!(need, Need::Ocsp { .. }), outcome }
        });
        let told = told.collect();
        (state, told)
    }

    fn notes(&self, certificate: &Certificate) -> Vec<String> {
        let days = days_left(certificate, self.at);
        let mut notes = Vec::new();
        if (0..=SOON).contains(&days) {
            notes.push(format!("expires in {days} days"));
        }
        if certificate.mailboxes().is_empty() && !certificate.subject_mailboxes().is_empty() {
            let how = if self.in_subject {
                "which counts here"
            } else {
                "which does not count here: email_in_subject = false"
            };
            notes.push(format!("names its mailbox in the subject alone, {how}"));
        }
        notes
    }

    fn print(&self, checked: &Checked) {
        let certificate = &checked.subject.certificate;
        println!("\n{} {}", short(certificate), shown(&certificate.subject_text()));
        let line = |label: &str, text: &str| println!("  {label:<10} {}", shown(text));
        if let Some(record) = &checked.subject.record {
            let key = if record.key.is_some() { "private key in the store" } else { "no private key here" };
            line("trust", &format!("{}, {key}", record.trust.word()));
        }
        let addresses: Vec<String> = addresses(certificate);
        line("addresses", &addresses.join(", "));
        let (from, until) = (certificate.not_before(), certificate.not_after());
        line("valid", &format!("{from} to {until} ({} days left)", days_left(certificate, self.at)));
        for (label, outcome) in [("encryption", &checked.encryption), ("signing", &checked.signing)] {
            match outcome {
                Ok(()) => line(label, "may be used"),
                Err(why) => line(label, &format!("not used: {why}")),
            }
        }
        checked.notes.iter().for_each(|note| line("note", note));
        match &checked.path {
            Ok(path) => {
                println!("  path");
                self.tree(path, &checked.states).draw().lines().for_each(|text| println!("    {text}"));
            }
            Err(why) => line("path", &format!("none: {why}")),
        }
    }

    /// The anchor above, the certificate below.
    fn tree(&self, path: &ValidPath, states: &[(CertificateState, Vec<Told>)]) -> Node {
        let mut below: Option<Node> = None;
        for certificate in path.chain() {
            let state = states.iter().find(|(state, _)| state.certificate == *certificate);
            let is_anchor = path.chain().last() == Some(certificate);
            let mut label = format!("{}, until {}", certificate.subject_text(), certificate.not_after());
            if is_anchor {
                label = format!("{label}, anchor for {}", scope(path.scope()));
            } else if let Some((state, _)) = state {
                label = format!("{label}, {}", state.status);
            }
            let mut node = Node::new(label);
            for told in state.map(|(_, told)| told.as_slice()).unwrap_or_default() {
                let kind = if told.ocsp { "OCSP" } else { "CRL" };
                node.children.push(Node::new(format!("{kind} {}: {}", told.uri, told.outcome)));
            }
            node.children.extend(below.take());
            below = Some(node);
        }
        below.unwrap_or_default()
    }

    fn as_json(&self, checked: &Checked) -> Value {
        let certificate = &checked.subject.certificate;
        let record = checked.subject.record.as_ref();
        let outcome =
            |outcome: &Result<(), String>| json!({"usable": outcome.is_ok(), "why_not": outcome.as_ref().err()});
        let path = checked.path.as_ref().map(|path| {
            let one = |certificate: &Certificate| {
                let state = checked.states.iter().find(|(state, _)| state.certificate == *certificate);
                json!({
                    "subject": certificate.subject_text(), "fingerprint": *hex(&certificate.fingerprint()),
                    "not_after": certificate.not_after().to_string(), "revocation": state.map(state_json),
                })
            };
            json!({
                "anchor_for": scope(path.scope()), "not_after": path.not_after().to_string(),
                "certificates": path.chain().iter().map(one).collect::<Vec<_>>(),
            })
        });
        json!({
            "fingerprint": *hex(&certificate.fingerprint()), "subject": certificate.subject_text(),
            "issuer": certificate.issuer_text(), "serial": *hex(certificate.serial()), "addresses": addresses(certificate),
            "not_before": certificate.not_before().to_string(), "not_after": certificate.not_after().to_string(),
            "days_left": days_left(certificate, self.at), "trust": record.map(|record| record.trust.word()),
            "private_key": record.map(|record| record.key.is_some()), "encryption": outcome(&checked.encryption),
            "signing": outcome(&checked.signing), "notes": checked.notes, "path": path.as_ref().ok(),
            "no_path": checked.path.as_ref().err(),
        })
    }
}

fn state_json((state, told): &(CertificateState, Vec<Told>)) -> Value {
    let (word, until) = match &state.status {
        Status::Good { until } => ("good", Some(until.to_string())),
        Status::Revoked { .. } => ("revoked", None),
        Status::Unknown { .. } => ("unknown", None),
    };
    let told = told
        .iter()
        .map(|told| json!({"uri": told.uri, "kind": if told.ocsp { "ocsp" } else { "crl" }, "outcome": told.outcome}));
    json!({"status": word, "until": until, "detail": state.status.to_string(), "told_at": told.collect::<Vec<_>>()})
}

/// One thing that was fetched, and nothing else.
#[derive(Debug)]
struct Alone<'a> {
    all: &'a GivenAndFetched,
    need: &'a Need,
}

impl Source for Alone<'_> {
    fn at_hand(&self, _wanted: &[Need]) -> Evidence {
        self.all.fetcher.at_hand(std::slice::from_ref(self.need))
    }
}

fn addresses(certificate: &Certificate) -> Vec<String> {
    certificate.mailboxes().iter().map(ToString::to_string).collect()
}

fn days_left(certificate: &Certificate, at: Timestamp) -> i64 {
    certificate.not_after().as_second().saturating_sub(at.as_second()).div_euclid(86_400)
}

fn scope(scope: &AnchorScope) -> String {
    match scope {
        AnchorScope::Global => "every domain".to_owned(),
        AnchorScope::Domains(domains) => domains.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

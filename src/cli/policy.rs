//! `waxwing policy`: what policy does with a mail, and why.

mod recorded;
mod replay;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{CommandResult, Context, Failure, NOT_GOOD, message, read_config, runtime, shown};
use crate::address::{Mailbox, ReversePath};
use crate::cms::algorithm::Capabilities;
use crate::config::Direction;
use crate::policy::Considered;
use crate::relay::pipeline::{ExplainError, Explained, Explainer, Explanation, Question};
use crate::smtp::command::Reply;
use crate::store::embedded::EmbeddedStore;
use crate::store::keyring::hex;

/// Arguments of `waxwing policy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say for each recipient which rule matches, what would be done, and of every certificate why it would be used or not. Nothing
    /// is sent.
    ///
    /// Exit status: 0 every recipient would be served, 1 one would be refused or held, 2 could not be read.
    #[command(
        after_help = "Examples:\n  waxwing policy explain mail.eml --from anna@example.org --to bert@partner.example\n  \
        waxwing policy explain mail.eml --from anna@example.org --to a@b.example c@d.example --listener submission --json"
    )]
    Explain(ExplainArgs),
    /// Run recorded mail through the configuration in force and through NEW (--config), and say what would change: for each mail and
    /// recipient, and in a table by what it was and is. What would be protected less comes first. Nothing is sent.
    ///
    /// The envelope of each mail is what stands first among: the file NAME.envelope beside the mail NAME; fields in the mail:
    /// X-Envelope-From, X-Envelope-To, X-Envelope-Listener, X-Envelope-Peer; Return-Path, and Delivered-To or X-Original-To; the "From "
    /// line of an mbox; From, and To with Cc and Bcc.
    ///
    /// Exit status: 0 nothing would be less protected, 1 something would, 2 something could not be read.
    #[command(after_help = "Examples:\n  waxwing policy replay /var/mail/archive --config new.toml\n  \
        waxwing policy replay sent.mbox --current now.toml --config new.toml --no-fetch --json\n\n\
        Less protected is: readable on its way where it was encrypted or did not leave; without the signature it had; a weaker cipher;\n\
        inbound: called valid where it was not, or no longer verified.")]
    Replay(replay::ReplayArgs),
}

/// Arguments of `policy explain`.
#[derive(Debug, clap::Args)]
struct ExplainArgs {
    /// The message; `-` reads standard input. Bare LF line ends are read as CRLF.
    file: PathBuf,
    /// The sender in the envelope (MAIL FROM); `<>` is that of a notification.
    #[arg(long, value_name = "ADDRESS")]
    from: String,
    /// Recipients in the envelope (RCPT TO).
    #[arg(long, value_name = "ADDRESS", required = true, num_args = 1..)]
    to: Vec<String>,
    /// Where it comes in; default: the first listener that takes it.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The IP address it comes from; default: one that the listener trusts, where the sender's domain is ours.
    #[arg(long, value_name = "IP")]
    peer: Option<IpAddr>,
    /// At this time (RFC 3339); default: now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Fetch no CRLs and OCSP responses.
    #[arg(long)]
    no_fetch: bool,
    /// Ask the sources of `[[discovery]]` as the gateway would; what they bring is not stored.
    #[arg(long)]
    discover: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    match args.command {
        Command::Explain(args) => run_explain(args, context),
        Command::Replay(args) => replay::run(args, context),
    }
}

fn run_explain(args: ExplainArgs, context: &Context) -> CommandResult {
    let mut config = read_config(&context.config)?;
    config.fetch.enabled &= !args.no_fetch;
    let from = match args.from.as_str() {
        "<>" | "" => ReversePath::Null,
        address => ReversePath::Mailbox(mailbox(address)?),
    };
    let recipients = args.to.iter().map(|address| mailbox(address)).collect::<Result<_, _>>()?;
    let entity = message::read_message(Path::new(&args.file))?;
    let store = Arc::new(EmbeddedStore::open(&config.store, &config.kek)?);
    let at = args.at.unwrap_or_else(Timestamp::now);
    let question = Question { listener: args.listener, peer: args.peer, reverse_path: from, recipients, entity, at };
    let runtime = runtime()?;
    let explainer = Explainer::new(&config, store.clone());
    let explainer = if args.discover { explainer.asking_sources() } else { explainer };
    let explanation = runtime.block_on(explainer.explain(question)).map_err(failure)?;
    if args.json {
        println!("{:#}", as_json(&explanation, at));
    } else {
        print(&explanation, at);
    }
    let served = explanation.recipients.iter().all(|one| one.served) && store.alerts() == 0;
    Ok(if served { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

fn mailbox(address: &str) -> Result<Mailbox, Failure> {
    Mailbox::parse(address).map_err(|error| Failure::new(error.to_string(), ""))
}

fn failure(error: ExplainError) -> Failure {
    let hint = match error {
        ExplainError::NoListener(..) => "name one of them with --listener",
        ExplainError::Store(_) => "look at store and kek in the configuration",
    };
    Failure::new(error.to_string(), hint)
}

fn direction(explained: &Explained) -> Option<&'static str> {
    explained.direction.map(|direction| if direction == Direction::Outbound { "outbound" } else { "inbound" })
}

/// As a client would see it, its lines joined.
fn wire(reply: &Reply) -> String {
    let enhanced = reply.enhanced.map(|code| format!(" {code}")).unwrap_or_default();
    format!("{}{enhanced} {}", reply.code, reply.lines.join("; "))
}

fn print(explanation: &Explanation, at: Timestamp) {
    let trust = if explanation.trusted { "trusted" } else { "not trusted" };
    println!("at listener {:?}, from {} ({trust}), at {at}", explanation.listener, explanation.peer);
    for one in &explanation.recipients {
        println!("\n{}", shown(&one.recipient.to_string()));
        let line = |label: &str, text: &str| println!("  {label:<10} {}", shown(text));
        if let Some(direction) = direction(one) {
            line("direction", direction);
        }
        if let Some(rule) = &one.rule {
            line("rule", rule);
        }
        line("treatment", &one.treatment);
        if let Some(reply) = &one.reply {
            line("reply", &wire(reply));
        }
        one.notes.iter().for_each(|note| line("note", note));
        one.considered.iter().for_each(|certificate| line(certificate.role, &considered(certificate)));
    }
    let unserved = explanation.recipients.iter().filter(|one| one.reply.is_some() && one.direction.is_some()).count();
    if explanation.one_reply && unserved > 0 && explanation.recipients.len() > 1 {
        println!("\nSMTP has one reply for all: while one is refused, nobody gets the mail");
    }
}

/// What its owner is known to read, by name.
fn reads(certificate: &Considered) -> Vec<String> {
    certificate.reads.as_ref().map(Capabilities::names).unwrap_or_default()
}

/// Fingerprint, subject, and whether it is used.
fn considered(certificate: &Considered) -> String {
    let fingerprint: String = hex(&certificate.certificate.fingerprint()).chars().take(16).collect();
    let why = match &certificate.outcome {
        Ok(()) => "used".to_owned(),
        Err(why) => format!("not used: {why}"),
    };
    let mut text = format!("{fingerprint} {}: {why}", certificate.certificate.subject_text());
    if let Some(trust) = certificate.trust {
        text.push_str(&format!(" [{}; from {}", trust.word(), certificate.origin));
        match reads(certificate).as_slice() {
            [] => text.push(']'),
            names => text.push_str(&format!("; reads {}]", names.join(", "))),
        }
    }
    text
}

fn as_json(explanation: &Explanation, at: Timestamp) -> Value {
    let recipients = explanation.recipients.iter().map(|one| {
        let considered = one.considered.iter().map(|certificate| {
            json!({
                "role": certificate.role, "fingerprint": *hex(&certificate.certificate.fingerprint()), "subject": certificate.certificate.subject_text(),
                "used": certificate.outcome.is_ok(), "why_not": certificate.outcome.as_ref().err(),
                "trust": certificate.trust.map(|trust| trust.word()), "from": certificate.trust.map(|_| &certificate.origin),
                "reads": reads(certificate),
            })
        });
        json!({
            "recipient": one.recipient.to_string(), "direction": direction(one), "rule": one.rule, "served": one.served,
            "outcome": one.outcome.to_string(), "treatment": one.treatment, "reply": one.reply.as_ref().map(wire), "notes": one.notes,
            "considered": considered.collect::<Vec<_>>(),
        })
    });
    json!({
        "listener": explanation.listener, "peer": explanation.peer.to_string(), "trusted": explanation.trusted, "at": at.to_string(),
        "one_reply_for_all": explanation.one_reply, "recipients": recipients.collect::<Vec<_>>(),
    })
}

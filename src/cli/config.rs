//! `waxwing config`: whether the configuration is valid, and what is wrong where.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::{CommandResult, Context, Failure, NOT_GOOD, read_config, shown};
use crate::address::Domain;
use crate::admin::client::Client;
use crate::admin::protocol::Request;
use crate::authentication::key::Key;
use crate::authentication::sign::vouching;
use crate::config::{Config, ConfigError, Direction, KekSources, ListenTls, Listener, SourceAddresses, shared_cloud};
use crate::discovery::dnssec;
use crate::policy::{EncryptMode, Rule, SignMode};
use crate::relay::hop::Roots;

/// Arguments of `waxwing config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the configuration and say of every error its file, line and key, what was found, and what is allowed.
    ///
    /// Exit status: 0 valid, 1 not valid, 2 could not be read.
    #[command(after_help = "Example:\n  waxwing config check waxwing.toml")]
    Check {
        /// The file; default: that of --config.
        file: Option<PathBuf>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Make the gateway at work read its configuration again, without cutting anybody off; SIGHUP does the same. A file with errors is
    /// refused, and the configuration in use is kept.
    ///
    /// Exit status: 0 in use, 1 in use but for what needs a restart, 2 refused.
    #[command(after_help = "Example:\n  waxwing config reload")]
    Reload {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> CommandResult {
    match args.command {
        Command::Check { file, json } => check(file, json, context),
        Command::Reload { json } => reload(json, context),
    }
}

/// The gateway is found by the file as it is now, where that can be read: the same file as the gateway's.
fn reload(json: bool, context: &Context) -> CommandResult {
    let socket = read_config(&context.config)?.control;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("the runtime cannot start: {error}"), ""))?;
    let said = runtime.block_on(async {
        let mut client = Client::connect(&socket).await.map_err(|error| {
            let hint = "start it with: waxwing serve; ask as the user it runs as, or as root";
            Failure::new(format!("no gateway answers at {}: {error}", socket.display()), hint)
        })?;
        Ok::<_, Failure>(client.ask(&Request::Reload).await?)
    })?;
    let kept: Vec<&str> = said
        .get("kept")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str())
        .collect();
    if json {
        println!("{said:#}");
    } else {
        println!("the configuration is in use");
        kept.iter().for_each(|what| println!("{}", shown(what)));
    }
    Ok(if kept.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

fn check(file: Option<PathBuf>, json: bool, context: &Context) -> CommandResult {
    let file = file.unwrap_or_else(|| context.config.clone());
    let text = std::fs::read_to_string(&file).map_err(|error| {
        Failure::new(format!("the configuration {} cannot be read: {error}", file.display()), "name another")
    })?;
    let (errors, warnings) = match parse(&text, &file) {
        Ok(config) => (Vec::new(), warnings(&config)),
        Err(errors) => (errors, Vec::new()),
    };
    if json {
        print_json(&file, &errors, &warnings);
    } else {
        for error in &errors {
            println!("{error}");
        }
        for warning in &warnings {
            println!("warning: {warning}");
        }
        match errors.len() {
            0 => println!("{}: valid", file.display()),
            1 => println!("{}: 1 error", file.display()),
            many => println!("{}: {many} errors", file.display()),
        }
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

/// Parses a configuration whose list files stand relative to its own folder.
pub(super) fn parse(text: &str, file: &Path) -> Result<Config, Vec<ConfigError>> {
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let read = move |path: &Path| std::fs::read_to_string(folder.join(path)).map_err(|error| error.to_string());
    Config::parse(text, &file.display().to_string(), &read)
}

/// What is valid and will not work, or not as people expect.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for listener in &config.listeners {
        if let ListenTls::StartTls { certificate, key, .. } | ListenTls::Implicit { certificate, key } = &listener.tls {
            for path in [certificate, key] {
                if let Err(error) = std::fs::File::open(path) {
                    warnings.push(format!("listener {:?}: {} cannot be read: {error}", listener.name, path.display()));
                }
            }
        }
        for file in listener.ldap_users.iter().flat_map(|users| users.files()) {
            if let Err(error) = std::fs::File::open(file) {
                let (name, file) = (&listener.name, file.display());
                warnings.push(format!("listener {name:?}: ldap_users: {file} cannot be read: {error}"));
            }
        }
        warnings.extend(doubts_of_tenants(listener));
        let outbound = listener.direction == Direction::Outbound;
        if outbound && listener.trusted_networks.is_empty() && !listener.has_users() {
            let name = &listener.name;
            warnings.push(format!(
                "listener {name:?} is outbound and trusts nobody: it will refuse all mail; set trusted_networks"
            ));
        }
    }
    warnings.extend(ways_that_fail(config));
    warnings.extend(rules_that_disappoint(config));
    warnings.extend(domains_that_do_not_vouch(config));
    for place in config.kek.iter().filter(|place| KekSources::credential(place).is_none()) {
        if let Err(error) = std::fs::File::open(place) {
            let kek = place.display();
            warnings.push(format!("kek: {kek} cannot be read: {error}; `waxwing kek init {kek}` makes one"));
        }
    }
    warnings
}

/// A cloud that many share is trusted, and nothing tells its customers apart (A31); or what tells them apart falls short.
fn doubts_of_tenants(listener: &Listener) -> Vec<String> {
    let name = &listener.name;
    let mut warnings = Vec::new();
    let cloud = listener.trusted_networks.iter().find_map(|network| Some((network, shared_cloud(network)?)));
    match (&listener.tenant, cloud) {
        (None, Some((network, cloud))) => warnings.push(format!(
            "listener {name:?} trusts {network}, from where {cloud} sends the mail of all its customers: any of them may send and sign as you; \
             set tenant_header or tenant_certificate, and senders (docs/listeners.md)"
        )),
        (Some(_), _) if listener.senders.is_empty() => warnings.push(format!(
            "listener {name:?} is for a tenant, and its mail is signed whoever its author is: set senders"
        )),
        _ => {}
    }
    let Some(tenant) = &listener.tenant else { return warnings };
    if tenant.header.is_some() && listener.tls == ListenTls::Off && !listener.address.ip().is_loopback() {
        warnings.push(format!("listener {name:?}: the secret of tenant_header comes in clear without tls"));
    }
    if let Some(Err(error)) = tenant.certificate.as_ref().map(|certificate| Roots::file(&certificate.ca)) {
        warnings.push(format!("listener {name:?}: tenant_ca: {error}; the gateway will not start"));
    }
    warnings
}

/// Next hops and routes that cannot be spoken to as they say.
fn ways_that_fail(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut look = |name: &str, ca: Option<&Path>, source: &SourceAddresses| {
        if let Some((ca, Err(error))) = ca.map(|ca| (ca, Roots::file(ca))) {
            warnings.push(format!("{name}: ca {}: {error}; the gateway will not start", ca.display()));
        }
        for address in source.all() {
            if let Err(error) = std::net::UdpSocket::bind((address, 0)) {
                warnings.push(format!("{name}: source {address}: {error}; no mail goes from there"));
            }
        }
    };
    for (name, route) in config.named_hosts() {
        route.hops().for_each(|one| look(&name, one.hop.ca.as_deref(), &one.hop.source));
    }
    config.by_mx().for_each(|(name, way)| look(&name, way.ca.as_deref(), &way.source));
    if config.by_mx().next().is_some() {
        look("direct", config.direct.mta_sts_ca.as_deref(), &SourceAddresses::default());
        let anchors = config.direct.trust_anchor.as_deref().map(dnssec::anchors);
        if let Some(Err(why)) = anchors {
            warnings.push(format!("direct: {why}; the gateway will not start"));
        }
    }
    warnings
}

/// Rules that ask for what no listener has.
fn rules_that_disappoint(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let nobody = config.listeners.iter().all(|listener| !listener.has_users() && listener.xclient.is_empty());
    for rule in config.policy.rules.iter().chain([&config.policy.default]) {
        let name = &rule.name;
        if nobody && !rule.matches.user.is_empty() {
            warnings.push(format!(
                "rule {name:?} matches nothing: it asks for a user, and no listener has `users` or `xclient`"
            ));
        }
    }
    warnings
}

/// Domains of ours whose mail is sealed, and then signed by nobody as it leaves: whoever signs before us signs in vain.
fn domains_that_do_not_vouch(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for one in &config.dkim {
        if let Err(why) = Key::read(&one.key) {
            warnings.push(format!(
                "dkim: key {} of {}: {why}; the gateway will not start",
                one.key.display(),
                one.domain
            ));
        }
    }
    let seals = |rule: &Rule| {
        let outbound = rule.matches.direction.is_none_or(|direction| direction != Direction::Inbound);
        let action = &rule.action;
        outbound && !action.pass && (action.sign != SignMode::Never || action.encrypt != EncryptMode::Never)
    };
    let rules = config.policy.rules.iter().chain([&config.policy.default]);
    if !rules.into_iter().any(seals) {
        return warnings;
    }
    let unsigned =
        config.domains.iter().filter(|domain| vouching(config.dkim.iter().map(|one| &one.domain), domain).is_none());
    let unsigned: Vec<&str> = unsigned.map(Domain::as_str).collect();
    if !unsigned.is_empty() {
        warnings.push(format!(
            "dkim: mail of {} is sealed and leaves without a DKIM signature; what signs before this gateway is broken by sealing, so sign \
             behind it, or here: `waxwing dkim generate` makes a key",
            unsigned.join(", ")
        ));
    }
    warnings
}

fn print_json(file: &Path, errors: &[ConfigError], warnings: &[String]) {
    let errors: Vec<serde_json::Value> = errors
        .iter()
        .map(|error| {
            serde_json::json!({
                "file": error.file, "line": error.line, "key": error.key, "found": error.found, "expected": error.expected,
            })
        })
        .collect();
    let all = serde_json::json!({
        "file": file.display().to_string(), "valid": errors.is_empty(), "errors": errors, "warnings": warnings,
    });
    println!("{all:#}");
}

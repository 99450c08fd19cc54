//! The DNS, with DNSSEC validated in this process: what a name has of one type, and whether that is proven. An answer that is bogus, or whose
//! proof cannot be told, is no answer.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{TokioResolver, system_conf};

/// Aliases (CNAME) that are followed one after another.
const ALIASES: usize = 8;

/// What a name has of one type.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The data; none: there is no such record.
    pub records: Vec<RData>,
    /// DNSSEC proves it, each alias on the way too; `false`: it comes from a zone that is proven not to be signed.
    pub secure: bool,
    /// The name itself exists.
    pub exists: bool,
    /// That there is none is said by a zone that the name stands in; `false`: a server says so, and names no zone.
    pub by_zone: bool,
    /// Where the records stand at last, past aliases; in lower case, without the final dot.
    pub owner: String,
}

/// Asks these servers, or the system's where none is named; validates by the DNSKEY records in the file, or by the root's keys.
///
/// # Errors
/// A file cannot be read, or has no key in it.
pub(crate) fn resolver(
    servers: &[SocketAddr],
    trust_anchor: Option<&Path>,
    timeout: Duration,
) -> Result<TokioResolver, String> {
    let (config, mut options) = match servers {
        [] => system_conf::read_system_conf().map_err(|error| format!("the system's resolvers: {error}"))?,
        servers => {
            let servers = servers.iter().copied().map(server).collect();
            (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
        }
    };
    options.validate = true;
    options.edns0 = true;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    // Half of the time for the first try.
    options.timeout = (timeout / 2).max(Duration::from_millis(50));
    options.attempts = 2;
    let anchors = trust_anchor.map_or_else(|| Ok(TrustAnchors::default()), anchors)?;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.with_trust_anchor(Arc::new(anchors)).build().map_err(|error| error.to_string())
}

/// The keys in a file of DNSKEY records.
///
/// # Errors
/// It cannot be read, or has none of the root zone.
pub(crate) fn anchors(file: &Path) -> Result<TrustAnchors, String> {
    let anchors = TrustAnchors::from_file(file).map_err(|error| format!("trust_anchor {}: {error}", file.display()))?;
    if anchors.is_empty() {
        return Err(format!("trust_anchor {}: no DNSKEY record of the root zone in it", file.display()));
    }
    Ok(anchors)
}

/// What a name (without the final dot) has of a type.
///
/// # Errors
/// No server answers, or what it says is not proven as its zone wants it.
pub(crate) async fn ask(resolver: &TokioResolver, name: &str, kind: RecordType) -> Result<Answer, String> {
    let mut owner = Name::from_ascii(format!("{name}.")).map_err(|error| error.to_string())?;
    let mut secure = true;
    for _ in 0..ALIASES {
        let answers = match look(resolver, &owner, kind).await {
            Ok(Looked::Answers(answers)) => answers,
            // That an alias's end has nothing is proven for the end, and hickory takes that for no proof of the alias: step by step it is one.
            Err(why) => match look(resolver, &owner, RecordType::CNAME).await {
                Ok(Looked::Answers(answers)) if alias(&answers, &owner).is_some() => answers,
                _ => return Err(why),
            },
            Ok(Looked::Absent { secure: proven, exists, by_zone }) => {
                let secure = secure && proven;
                return Ok(Answer { records: Vec::new(), secure, exists, by_zone, owner: text(&owner) });
            }
        };
        // Only what stands at that name: a reply may bring along records of other names, and proven ones too.
        let own: Vec<&Record> = answers.iter().filter(|one| one.name == owner && one.record_type() == kind).collect();
        if !own.is_empty() {
            let mut records = Vec::with_capacity(own.len());
            for one in own {
                secure &= proven(one)?;
                records.push(one.data.clone());
            }
            return Ok(Answer { records, secure, exists: true, by_zone: true, owner: text(&owner) });
        }
        let alias = match alias(&answers, &owner) {
            Some(alias) => Some(alias),
            // The end of a chain may have been known already, and the chain itself left out.
            None => match look(resolver, &owner, RecordType::CNAME).await? {
                Looked::Answers(answers) => alias(&answers, &owner),
                Looked::Absent { .. } => None,
            },
        };
        let (target, is_proven) = alias.ok_or("an answer without what was asked for")?;
        secure &= is_proven?;
        owner = target;
    }
    Err("too many aliases one after another".to_owned())
}

enum Looked {
    Answers(Vec<Record>),
    Absent { secure: bool, exists: bool, by_zone: bool },
}

async fn look(resolver: &TokioResolver, name: &Name, kind: RecordType) -> Result<Looked, String> {
    match resolver.lookup(name.clone(), kind).await {
        Ok(lookup) => Ok(Looked::Answers(lookup.answers().to_vec())),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let exists = none.response_code != ResponseCode::NXDomain;
            Ok(Looked::Absent { secure: absence(&none)?, exists, by_zone: none.soa.is_some() })
        }
        Err(NetError::Dns(DnsError::Nsec { response, proof: Proof::Insecure, .. })) => {
            let exists = response.response_code != ResponseCode::NXDomain;
            Ok(Looked::Absent { secure: false, exists, by_zone: true })
        }
        Err(NetError::Dns(DnsError::Nsec { proof, .. })) => {
            Err(format!("that there is no record is not proven (DNSSEC: {proof})"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether it is proven that there is no record.
fn absence(none: &NoRecords) -> Result<bool, String> {
    match &none.soa {
        Some(soa) if soa.proof == Proof::Secure => Ok(true),
        // A zone that is not signed has no word in what stands below another one.
        Some(soa) if soa.proof == Proof::Insecure && soa.name.zone_of(none.query.name()) => Ok(false),
        Some(soa) => Err(format!("that there is no record is said by another zone, {}", soa.name)),
        None => Ok(false),
    }
}

/// Where a name's alias leads, and whether that is proven.
fn alias(answers: &[Record], owner: &Name) -> Option<(Name, Result<bool, String>)> {
    answers.iter().filter(|one| one.name == *owner).find_map(|one| match &one.data {
        RData::CNAME(alias) => Some((alias.0.clone(), proven(one))),
        _ => None,
    })
}

fn proven(record: &Record) -> Result<bool, String> {
    match record.proof {
        Proof::Secure => Ok(true),
        Proof::Insecure => Ok(false),
        Proof::Bogus | Proof::Indeterminate => Err(format!("its record is not proven (DNSSEC: {})", record.proof)),
    }
}

/// A name as text: A-labels, lower case, without the final dot.
pub(crate) fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// A resolver that is asked over UDP, and over TCP where the answer does not fit.
pub(crate) fn server(address: SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

//! SMIMEA records (RFC 8162) over DNSSEC, which is validated here: only secure answers count. What is insecure is no record; what is bogus,
//! or cannot be told, is no answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};

use super::{Found, Stalled};
use crate::address::{Domain, Mailbox};
use crate::config::{Smimea, Source};
use crate::discovery::smimea::{Association, names};

/// Asks resolvers.
pub(super) struct Resolver {
    resolver: TokioResolver,
    stalled: Stalled,
}

impl Resolver {
    pub(super) fn new(settings: &Smimea, timeout: Duration) -> Result<Self, String> {
        let (config, mut options) = match settings.servers.as_slice() {
            [] => system_conf::read_system_conf().map_err(|error| format!("the system's resolvers: {error}"))?,
            servers => {
                let servers = servers.iter().copied().map(server).collect();
                (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
            }
        };
        options.validate = true;
        options.edns0 = true;
        options.use_hosts_file = ResolveHosts::Never;
        // Half of the time for the first try.
        options.timeout = (timeout / 2).max(Duration::from_millis(50));
        options.attempts = 2;
        let anchors = match &settings.trust_anchor {
            Some(file) => {
                let anchors = TrustAnchors::from_file(file)
                    .map_err(|error| format!("trust_anchor {}: {error}", file.display()))?;
                if anchors.is_empty() {
                    return Err(format!("trust_anchor {}: no DNSKEY record of the root zone in it", file.display()));
                }
                anchors
            }
            None => TrustAnchors::default(),
        };
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.with_trust_anchor(Arc::new(anchors)).build().map_err(|error| error.to_string())?;
        Ok(Self { resolver, stalled: Stalled::default() })
    }

    /// The look-up took too long: the servers of the domain are to blame.
    pub(super) fn stalls(&self, domain: &Domain) {
        self.stalled.note(domain.as_str());
    }

    pub(super) async fn ask(&self, mailbox: &Mailbox, source: &Source) -> Result<Found, String> {
        if self.stalled.holds(mailbox.domain().as_str()) {
            return Err(format!("the name servers of {} did not answer just now", mailbox.domain()));
        }
        let mut found = Found::default();
        for name in names(mailbox) {
            let records = self.records(&name).await.map_err(|why| format!("{name}: {why}"))?;
            let octets: usize = records.iter().map(|(.., data)| data.len()).sum();
            if octets as u64 > source.size {
                return Err(format!("{name}: the answer is larger than `size` allows"));
            }
            let mut unusable = Vec::new();
            for (usage, selector, matching, data) in records.iter().take(source.certificates).cloned() {
                let taken = Association::new(usage, selector, matching, data).and_then(|association| {
                    let certificate = association.certificate()?;
                    Ok((association, certificate))
                });
                match taken {
                    Ok((association, certificate)) => {
                        let (usage, selector, matching) = association.codes();
                        let place = format!("{name} {usage} {selector} {matching}");
                        if let Some(certificate) = certificate.filter(|one| !one.is_ca()) {
                            found.certificates.push((certificate, place.clone()));
                        }
                        found.associations.push((association, place));
                    }
                    Err(why) => unusable.push(why),
                }
            }
            // There is something, and nothing of it can be used: that is not the same as nothing.
            if found.associations.is_empty() && !unusable.is_empty() {
                found.unreadable = Some(format!("{name}: {}", unusable.join("; ")));
            }
            if !records.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// The records of a name, where DNSSEC proves them.
    async fn records(&self, name: &str) -> Result<Vec<(u8, u8, u8, Bytes)>, String> {
        let absolute = Name::from_ascii(format!("{name}.")).map_err(|error| error.to_string())?;
        let lookup = match self.resolver.lookup(absolute, RecordType::SMIMEA).await {
            Ok(lookup) => lookup,
            // Its absence is proven, or the zone is proven not to be signed: what an unsigned zone says counts for nothing.
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => return Ok(Vec::new()),
            Err(NetError::Dns(DnsError::Nsec { proof: Proof::Insecure, .. })) => return Ok(Vec::new()),
            Err(NetError::Dns(DnsError::Nsec { proof, .. })) => {
                return Err(format!("that there is no record is not proven (DNSSEC: {proof})"));
            }
            Err(error) => return Err(error.to_string()),
        };
        let mut records = Vec::new();
        for record in lookup.answers() {
            match record.proof {
                Proof::Secure => {}
                Proof::Insecure => return Ok(Vec::new()),
                Proof::Bogus | Proof::Indeterminate => {
                    return Err(format!("its record is not proven (DNSSEC: {})", record.proof));
                }
            }
            if let RData::SMIMEA(smimea) = &record.data {
                let tlsa = &smimea.0;
                let data = Bytes::copy_from_slice(&tlsa.cert_data);
                records.push((tlsa.cert_usage.into(), tlsa.selector.into(), tlsa.matching.into(), data));
            }
        }
        Ok(records)
    }
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

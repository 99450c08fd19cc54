//! SPF, DKIM, DMARC and iprev of a mail that comes from the world, over its octets as received, before anything of it is changed.
//!
//! **Bounded**: the look-ups by [`MailAuthentication::timeout`], the signatures by number and size, the cache of answers by its entries. What
//! is not known in time is `temperror`, and nothing is refused for it.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{TokioResolver, system_conf};
use mail_auth::common::cache::NoCache;
use mail_auth::common::verify::{DomainKey, VerifySignature};
use mail_auth::dkim::DkimError;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, DmarcResult, DnsError, Error, IprevResult, MessageAuthenticator,
    Parameters, ResolverCache, SpfOutput, SpfResult, Txt,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::results::{Finding, Method, Outcome, author_domains};
use super::signatures::{self, about};
use super::spf::{Client, check_host};
use crate::address::{Domain, ReversePath};
use crate::config::MailAuthentication;
use crate::discovery::dnssec;
use crate::mime::entity::Entity;
use crate::mime::header::{Header, MimeError};

pub use super::signatures::{Signed, fuzz_signatures};
pub use super::spf::fuzz_sender_records;

/// Answers that are kept for as long as they say.
const CACHE: u64 = 1_024;
/// That there is nothing is not believed for longer.
const NOTHING_HOLDS: Duration = Duration::from_secs(300);

/// Asks the DNS about mails.
pub struct Checker {
    settings: MailAuthentication,
    /// Made when it is first needed; `None`: it cannot be, and it was said why.
    dns: OnceLock<Option<MessageAuthenticator>>,
}

/// How a mail came.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'o> {
    pub address: IpAddr,
    /// As it was given.
    pub helo: &'o str,
    pub reverse_path: &'o ReversePath,
    /// Our name.
    pub us: &'o Domain,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    pub findings: Vec<Finding>,
    /// The domain of its author wants it refused, or it has more authors than anybody could vouch for.
    pub refuse: Option<String>,
}

/// SPF's result that counts for DMARC, and the domain it is about.
struct Sender {
    domain: String,
    result: SpfResult,
}

impl Checker {
    /// For these settings.
    pub fn new(settings: &MailAuthentication) -> Self {
        Self { settings: settings.clone(), dns: OnceLock::new() }
    }

    /// What it was made for.
    pub fn settings(&self) -> &MailAuthentication {
        &self.settings
    }

    /// The signatures to be checked; all that costs processor time for a large mail.
    pub fn read<'m>(&self, entity: &'m Entity) -> Signed<'m> {
        signatures::read(entity, self.settings.signatures)
    }

    /// Asks the DNS, within the time.
    pub async fn judge(&self, origin: Origin<'_>, header: &Header, signed: &Signed<'_>) -> Checked {
        let now = Instant::now();
        // So that the author's domain is asked too where others do not answer.
        let (first, last) = (now + self.settings.timeout * 2 / 3, now + self.settings.timeout);
        let Some(dns) = self.dns.get_or_init(|| resolver(&self.settings)) else { return self.unknown(header) };
        let (iprev, (mut findings, sender), keys) =
            tokio::join!(self.iprev(dns, origin, first), spf(dns, origin, first), keys(dns, signed, first));
        // All that it asks for is in `keys`.
        let outputs = dns.verify_dkim(Parameters::new(&signed.message).with_txt_cache(&keys)).await;
        findings.extend(iprev);
        findings.extend(outputs.iter().map(told));
        findings.extend(signed.refused.iter().cloned());
        if outputs.is_empty() && signed.refused.is_empty() {
            findings.push(Finding::new(Method::Dkim, Outcome::None));
        }
        let (dmarc, refuse) = dmarc(dns, header, &outputs, &sender, last).await;
        findings.push(dmarc);
        Checked { findings, refuse }
    }

    /// Nobody can be asked.
    fn unknown(&self, header: &Header) -> Checked {
        let why = "no resolver";
        let mut methods = vec![Method::Spf, Method::Dmarc];
        if header.all("DKIM-Signature").next().is_some() {
            methods.insert(1, Method::Dkim);
        }
        let finding = |method| Finding::new(method, Outcome::TempError).because(why);
        Checked { findings: methods.into_iter().map(finding).collect(), refuse: None }
    }

    async fn iprev(&self, dns: &MessageAuthenticator, origin: Origin<'_>, until: Instant) -> Option<Finding> {
        if !self.settings.iprev {
            return None;
        }
        let found = timeout_at(until, dns.verify_iprev(Parameters::new(origin.address))).await;
        let (outcome, name) = match &found {
            Err(_) => (Outcome::TempError, None),
            Ok(output) => {
                let outcome = match output.result {
                    IprevResult::Pass => Outcome::Pass,
                    IprevResult::Fail(_) => Outcome::Fail,
                    IprevResult::TempError(_) => Outcome::TempError,
                    IprevResult::PermError(_) => Outcome::PermError,
                    IprevResult::None => Outcome::None,
                };
                (outcome, output.ptr.as_ref().and_then(|names| names.first()))
            }
        };
        let name = name.map(|name| name.trim_end_matches('.').to_owned()).unwrap_or_default();
        Some(Finding::new(Method::Iprev, outcome).because(name).about("policy.iprev", origin.address.to_string()))
    }
}

fn resolver(settings: &MailAuthentication) -> Option<MessageAuthenticator> {
    let made = || {
        let (config, mut options) = match settings.servers.as_slice() {
            [] => system_conf::read_system_conf().map_err(|error| format!("the system's resolvers: {error}"))?,
            servers => {
                let servers = servers.iter().copied().map(dnssec::server).collect();
                (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
            }
        };
        options.edns0 = true;
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = CACHE;
        options.negative_max_ttl = Some(NOTHING_HOLDS);
        options.timeout = (settings.timeout / 3).max(Duration::from_millis(50));
        options.attempts = 2;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.build().map(MessageAuthenticator).map_err(|error| error.to_string())
    };
    made()
        .inspect_err(|why: &String| {
            tracing::error!(why, "[mail_authentication]: nobody can be asked about inbound mail: all is temperror");
        })
        .ok()
}

/// HELO and MAIL FROM.
async fn spf(dns: &MessageAuthenticator, origin: Origin<'_>, until: Instant) -> (Vec<Finding>, Sender) {
    let client = Client { address: origin.address, helo: origin.helo, us: origin.us.as_str() };
    let name = Domain::parse(origin.helo).ok().filter(|name| !name.is_literal() && name.as_str().contains('.'));
    let greeted = async {
        let domain = name.as_ref()?.as_str();
        let sender = format!("postmaster@{domain}");
        let found = timeout_at(until, check_host(dns, client, domain, &sender)).await;
        Some((domain.to_owned(), found.unwrap_or(SpfResult::TempError)))
    };
    let sent = async {
        let ReversePath::Mailbox(mailbox) = origin.reverse_path else { return None };
        let (domain, sender) = (mailbox.domain().as_str(), mailbox.to_string());
        if mailbox.domain().is_literal() {
            return Some((mailbox, SpfResult::None));
        }
        let found = timeout_at(until, check_host(dns, client, domain, &sender)).await;
        Some((mailbox, found.unwrap_or(SpfResult::TempError)))
    };
    let (greeted, sent) = tokio::join!(greeted, sent);
    let mut findings = Vec::new();
    if let Some((mailbox, result)) = sent {
        let finding = Finding::new(Method::Spf, of_spf(result)).about("smtp.mailfrom", mailbox.to_string());
        findings.push(finding);
        if let Some((domain, result)) = greeted.filter(|(_, result)| *result != SpfResult::None) {
            findings.push(Finding::new(Method::Spf, of_spf(result)).about("smtp.helo", domain));
        }
        return (findings, Sender { domain: mailbox.domain().to_string(), result });
    }
    let (domain, result) = greeted.unwrap_or((origin.helo.to_owned(), SpfResult::None));
    findings.push(Finding::new(Method::Spf, of_spf(result)).about("smtp.helo", domain.clone()));
    (findings, Sender { domain, result })
}

fn of_spf(result: SpfResult) -> Outcome {
    match result {
        SpfResult::Pass => Outcome::Pass,
        SpfResult::Fail => Outcome::Fail,
        SpfResult::SoftFail => Outcome::SoftFail,
        SpfResult::Neutral => Outcome::Neutral,
        SpfResult::TempError => Outcome::TempError,
        SpfResult::PermError => Outcome::PermError,
        SpfResult::None => Outcome::None,
    }
}

/// Keys of signatures by their names in the DNS: what came in time, and that the others did not.
struct Keys(HashMap<Box<str>, Txt>);

impl ResolverCache<Box<str>, Txt> for Keys {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Some(self.0.get(name).cloned().unwrap_or_else(|| Txt::Error(unanswered())))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: std::time::Instant) {}
}

fn unanswered() -> Error {
    Error::Dns(DnsError::Resolver("no answer in time".to_owned()))
}

/// All keys are asked for at once, so that one who is silent keeps no other from being heard.
async fn keys(dns: &MessageAuthenticator, signed: &Signed<'_>, until: Instant) -> Keys {
    let intact = signed.message.dkim_headers.iter().filter(|one| signed.is_intact(&one.header));
    let names: BTreeSet<String> = intact.map(|one| one.header.domain_key()).collect();
    let mut asked = JoinSet::new();
    for name in names {
        let dns = dns.clone();
        asked.spawn(async move {
            let found = dns.txt_lookup::<DomainKey>(&name, None::<&NoCache<Box<str>, Txt>>);
            let found = timeout_at(until, found).await.unwrap_or_else(|_| Err(unanswered()));
            (name.into_boxed_str(), found.map_or_else(Txt::Error, Txt::DomainKey))
        });
    }
    let mut keys = Keys(HashMap::new());
    while let Some(found) = asked.join_next().await {
        keys.0.extend(found.ok());
    }
    keys
}

/// As RFC 8601 section 2.7.1 says: a signature that does not fit the mail failed.
fn told(output: &DkimOutput<'_>) -> Finding {
    let (outcome, why) = match output.result() {
        DkimResult::Pass => (Outcome::Pass, String::new()),
        DkimResult::Neutral(Error::Dkim(DkimError::FailedBodyHashMatch)) => {
            (Outcome::Fail, "the body was changed".to_owned())
        }
        DkimResult::Fail(error) => (Outcome::Fail, error.to_string()),
        DkimResult::Neutral(error) => (Outcome::Neutral, error.to_string()),
        DkimResult::PermError(error) => (Outcome::PermError, error.to_string()),
        DkimResult::TempError(error) => (Outcome::TempError, error.to_string()),
        DkimResult::None => (Outcome::None, String::new()),
    };
    let finding = Finding::new(Method::Dkim, outcome).because(why);
    match output.signature() {
        Some(signature) => about(finding, signature),
        None => finding,
    }
}

/// The strictest word of the domains in From, and why the mail is to be refused.
async fn dmarc(
    dns: &MessageAuthenticator,
    header: &Header,
    signatures: &[DkimOutput<'_>],
    sender: &Sender,
    until: Instant,
) -> (Finding, Option<String>) {
    let authors = match author_domains(header) {
        Ok(authors) => authors,
        Err(error) => {
            let refuse = matches!(error, MimeError::Limit(_))
                .then(|| "what its From says: it names too many domains".to_owned());
            return (Finding::new(Method::Dmarc, Outcome::PermError).because(error.to_string()), refuse);
        }
    };
    let spf = SpfOutput::new(sender.domain.clone()).with_result(sender.result);
    let mut worst: Option<(u8, Finding, Option<String>)> = None;
    for domain in authors {
        let message = AuthenticatedMessage { from: vec![format!("x@{domain}")], ..AuthenticatedMessage::default() };
        let asked = DmarcParameters {
            message: &message,
            dkim_output: signatures,
            dkim2_output: None,
            rfc5321_mail_from_domain: &sender.domain,
            spf_output: &spf,
        };
        let found = timeout_at(until, dns.verify_dmarc(Parameters::new(asked))).await;
        let (result, policy) = match &found {
            Ok(output) => (output.result(), output.policy()),
            Err(_) => (DmarcResult::TempError(unanswered()), Policy::None),
        };
        let (weight, outcome) = weighed(&result, policy);
        if worst.as_ref().is_some_and(|(known, ..)| *known >= weight) {
            continue;
        }
        let refuse = (outcome == Outcome::Fail && policy == Policy::Reject)
            .then(|| format!("the DMARC policy of {domain}: neither SPF nor DKIM vouches for its From"));
        let mut finding = Finding::new(Method::Dmarc, outcome);
        if let DmarcResult::TempError(error) | DmarcResult::PermError(error) = &result {
            finding = finding.because(error.to_string());
        }
        finding = finding.about("header.from", domain.to_string());
        if matches!(outcome, Outcome::Pass | Outcome::Fail) {
            finding = finding.about("policy.dmarc", policy.to_string());
        }
        worst = Some((weight, finding, refuse));
    }
    worst.map_or_else(|| (Finding::new(Method::Dmarc, Outcome::None), None), |(_, finding, refuse)| (finding, refuse))
}

/// The heavier, the stricter.
fn weighed(result: &DmarcResult, policy: Policy) -> (u8, Outcome) {
    match (result, policy) {
        (DmarcResult::Pass, _) => (0, Outcome::Pass),
        (DmarcResult::None, _) => (1, Outcome::None),
        (DmarcResult::PermError(_), _) => (2, Outcome::PermError),
        (DmarcResult::TempError(_), _) => (3, Outcome::TempError),
        (DmarcResult::Fail(_), Policy::Reject) => (6, Outcome::Fail),
        (DmarcResult::Fail(_), Policy::Quarantine) => (5, Outcome::Fail),
        (DmarcResult::Fail(_), _) => (4, Outcome::Fail),
    }
}

#[cfg(test)]
mod tests;

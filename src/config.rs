//! TOML text to a valid `Config`; an unknown key is an error with its line. P.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::address::{Domain, Mailbox};
use crate::cms::algorithm::Legacy;
use crate::pki::path::InitialPolicies;
use crate::policy::Policy;

mod authentication;
mod discovery;
mod etcd;
mod harvest;
mod hops;
mod kek;
mod operation;
mod policy;
mod rates;
mod read;
pub(crate) mod reader;
mod routes;
mod tenant;
#[cfg(test)]
mod tests;
mod users;

#[cfg(feature = "server")]
pub(crate) use authentication::selector;
pub use authentication::{Dkim, Inbound, MailAuthentication};
pub use discovery::{DiscoveryMode, Ldap, LdapServer, LdapTls, LdapUsers, Smimea, Source, SourceKind};
pub use etcd::Etcd;
pub use harvest::{Harvest, HarvestMode};
pub use hops::{HopWaits, Route, RouteHop};
pub use kek::KekSources;
pub use operation::{Audit, Landlock, Metrics, Run};
#[cfg(feature = "server")]
pub(crate) use policy::{DERIVATIONS, DIGESTS, TRANSPORTS, WRITTEN};
pub use rates::{Rate, Rates};
pub use read::fuzz_config;
pub use routes::{ByMx, Direct, DomainPattern, DomainRoute, Exchanger, SourceAddresses, Target, Via};
pub use tenant::{Tenant, TenantCertificate, TenantHeader, shared_cloud};
pub use users::{User, Users, fuzz_users};

/// What is wrong in a configuration: file, line, key, what was found, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {key}: found {found}, {expected}")]
pub struct ConfigError {
    pub file: String,
    /// 1-based; 0 when it concerns the whole file.
    pub line: usize,
    pub key: String,
    pub found: String,
    pub expected: String,
}

/// Which way a listener's mail goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From our users to the world: sign and encrypt.
    Outbound,
    /// From the world to our users: decrypt and verify.
    Inbound,
    /// By recipient domain and authenticated peer (trusted network): for one listener that serves both.
    ByRecipient,
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenTls {
    Off,
    /// STARTTLS offered.
    StartTls {
        certificate: PathBuf,
        key: PathBuf,
        required: bool,
    },
    /// TLS from the first octet (RFC 8314).
    Implicit {
        certificate: PathBuf,
        key: PathBuf,
    },
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    pub address: SocketAddr,
    pub direction: Direction,
    pub tls: ListenTls,
    /// Peers that may send from our domains to anywhere; default deny.
    pub trusted_networks: Vec<IpNet>,
    /// Peers that say with the PROXY protocol who their client is, before anything else.
    pub proxies: Vec<IpNet>,
    /// Peers that may say with XCLIENT who their client is.
    pub xclient: Vec<IpNet>,
    /// Peers that may say with XFORWARD from which client a mail came: for the log and for Received.
    pub xforward: Vec<IpNet>,
    /// What every mail has to bring so that it is of the tenant the listener is for; `None`: nothing.
    pub tenant: Option<Tenant>,
    /// Domains that authors may be of whose mail is signed; empty: any.
    pub senders: Vec<Domain>,
    /// Who may authenticate (AUTH), and then send as from a trusted network; `None`: nobody.
    pub users: Option<Arc<Users>>,
    /// The same by a directory, in the place of `users`; with passwords alone.
    pub ldap_users: Option<Arc<LdapUsers>>,
    /// AUTH without TLS too.
    pub auth_without_tls: bool,
    /// LMTP (RFC 2033) in place of SMTP.
    pub lmtp: bool,
    /// Before the greeting, for clients that are not trusted: who talks meanwhile is refused (A19). Default: none.
    pub greeting_delay: Duration,
    /// Bare CR or LF from trusted peers is made CRLF before signing, in place of 550 (A16).
    pub repair_line_ends: bool,
}

impl Listener {
    /// One that offers SMTP without TLS and trusts nobody.
    pub fn new(name: impl Into<String>, address: SocketAddr, direction: Direction) -> Self {
        Listener {
            name: name.into(),
            address,
            direction,
            tls: ListenTls::Off,
            trusted_networks: Vec::new(),
            proxies: Vec::new(),
            xclient: Vec::new(),
            xforward: Vec::new(),
            tenant: None,
            senders: Vec::new(),
            users: None,
            ldap_users: None,
            auth_without_tls: false,
            lmtp: false,
            greeting_delay: Duration::ZERO,
            repair_line_ends: false,
        }
    }

    /// Whether somebody may authenticate.
    pub fn has_users(&self) -> bool {
        self.users.is_some() || self.ldap_users.is_some()
    }

    /// Whether what connects from here has to say first who its client is.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&address))
    }

    /// Whether it may say with XCLIENT who its client is.
    pub fn believes(&self, address: IpAddr) -> bool {
        self.xclient.iter().any(|network| network.contains(&address))
    }

    /// Whether it may say with XFORWARD from which client a mail came.
    pub fn hears_of_clients_from(&self, address: IpAddr) -> bool {
        self.xforward.iter().any(|network| network.contains(&address))
    }

    /// Whether a peer with this address may send from our domains to anywhere.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_networks.iter().any(|network| network.contains(&address))
    }
}

/// TLS towards a next hop; what asks for more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum HopTls {
    Off,
    /// STARTTLS where offered, any certificate.
    #[default]
    Opportunistic,
    /// STARTTLS or nothing, any certificate.
    Required,
    /// STARTTLS with a certificate that is valid for the host name.
    Verified,
}

/// A next hop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// Host name or address literal without brackets.
    pub host: String,
    pub port: u16,
    pub tls: HopTls,
    /// PEM file of the CAs that `tls = "verified"` believes; `None`: the system's.
    pub ca: Option<PathBuf>,
    pub lmtp: bool,
    /// It is told with XFORWARD from which client a mail came, where it offers that.
    pub xforward: bool,
    /// Addresses of ours that connections to it come from.
    pub source: SourceAddresses,
    /// It stands in the MX of a domain: it is found and judged by what the DNS says. `None`: the configuration names it.
    pub exchanger: Option<Arc<Exchanger>>,
}

impl NextHop {
    /// One that the configuration could name, without further keys.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            tls: HopTls::default(),
            ca: None,
            lmtp: false,
            xforward: false,
            source: SourceAddresses::default(),
            exchanger: None,
        }
    }
}

/// Bounds; every one has a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Octets of one message; default 50 MiB.
    pub message_size: u64,
    /// Recipients of one message; default 1,000.
    pub recipients: usize,
    /// Connections at once per listener; default 1,000.
    pub connections: usize,
    /// Connections at once per client address; default 100.
    pub connections_per_client: usize,
    /// Octets in flight in the whole process; default 1 GiB.
    pub bytes_in_flight: u64,
    /// For one command; default 5 min (RFC 5321 4.5.3.2.7).
    pub command_timeout: Duration,
    /// For all of DATA, beside a minimum rate; default 10 min.
    pub data_timeout: Duration,
    /// Octets a second at least in DATA after the first 30 s; default 1,000.
    pub data_rate: u64,
    /// Own work on one message (R6); default 60 s.
    pub work_timeout: Duration,
    /// Waiting for the next hop (R6).
    pub hop: HopWaits,
    /// Received fields before it counts as a loop (A23); default 100.
    pub received_fields: usize,
    /// Private-key operations per message; default 8.
    pub key_operations: usize,
    /// Mails and recipients of a client and of a user in a time.
    pub rates: Rates,
}

/// How mail is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    #[default]
    CutThrough,
    Queue,
}

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our name in EHLO, 220 and Received.
    pub hostname: Domain,
    /// Name in Authentication-Results; default `hostname`.
    pub authserv_id: Domain,
    /// Domains whose mail comes in through us.
    pub domains: Vec<Domain>,
    /// Receives mail for `postmaster` without a domain, and is the author of DSNs; default postmaster@hostname.
    pub postmaster: Mailbox,
    pub listeners: Vec<Listener>,
    /// Next hops of outbound mail (smarthosts).
    pub outbound: Arc<Route>,
    /// Next hops of inbound mail (the mail server).
    pub inbound: Arc<Route>,
    /// Other ways for some domains: the first that takes a domain holds.
    pub routes: Vec<DomainRoute>,
    /// How the DNS is asked for routes by MX.
    pub direct: Direct,
    pub limits: Limits,
    pub delivery: Delivery,
    /// Folder of the embedded store.
    pub store: PathBuf,
    /// Where the store is shared; `store` then is this node's copy.
    pub etcd: Option<Etcd>,
    /// Where the key-encryption key is; during a rotation the next one too.
    pub kek: KekSources,
    /// Folder of the spool.
    pub spool: PathBuf,
    pub spool_limits: SpoolLimits,
    /// The control socket; default `control` in the spool's folder.
    pub control: PathBuf,
    pub retry: Retry,
    pub fetch: Fetch,
    /// Weak algorithms that may be read; none by default.
    pub legacy: Legacy,
    pub certificates: Certificates,
    pub harvest: Harvest,
    /// Sources of certificates that the store does not have, in order.
    pub discovery: Vec<Source>,
    /// What is found out about who sent a mail that comes in.
    pub mail_authentication: MailAuthentication,
    /// Keys that our domains vouch with for mail that goes out; empty: it is not signed so.
    pub dkim: Vec<Dkim>,
    pub policy: Policy,
    /// Subject tags on inbound mail.
    pub subject_tags: bool,
    pub self_check: bool,
    pub log: Log,
    /// Where the numbers are to be had; `None`: nowhere.
    pub metrics: Option<Metrics>,
    /// Where the use of keys and changes are written down; `None`: nowhere.
    pub audit: Option<Audit>,
    pub run: Run,
}

/// What is asked of certificates, ours and others'.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificates {
    /// emailAddress in the subject counts where the SAN names no mailbox (RFC 8550 section 3); default no.
    pub email_in_subject: bool,
    /// One of these policies must be valid for the path; default: any, and none is needed.
    pub policies: InitialPolicies,
}

/// Whether OCSP requests carry a nonce (RFC 9654).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nonce {
    /// None: answers that were signed ahead are as good, for as long as they say (RFC 5019).
    #[default]
    Off,
    /// One; an answer with another one is refused, one without is taken.
    Prefer,
    /// One; only an answer with it is taken.
    Require,
}

/// What may be fetched to tell whether certificates are revoked, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// CRLs and OCSP responses are fetched; default true.
    pub enabled: bool,
    /// For all that one mail needs; default 10 s.
    pub timeout: Duration,
    /// Octets of one answer; default 32 MiB.
    pub size: u64,
    /// Octets kept in memory; default 256 MiB.
    pub memory: u64,
    /// Private, loopback and link-local addresses may be asked; default no: a certificate in a stranger's mail names them.
    pub private_addresses: bool,
    /// Nonces in OCSP requests; default off.
    pub nonce: Nonce,
}

/// Bounds of the spool: over them mail is refused, and what becomes of the mail that is there is recorded nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Octets of mail, and a KiB for each entry; default: no bound but the disk.
    pub quota: u64,
    /// Entries; default: no bound.
    pub entries: u64,
    /// Octets kept on the disk for outcomes and DSNs when it is full; default 4 MiB.
    pub reserve: u64,
    /// How long the disk may take to take a mail, before it is refused with 451; default 30 s.
    pub commit_timeout: Duration,
}

/// Retries of spooled mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// First wait; default 1 min; doubled each time.
    pub first: Duration,
    /// Longest wait; default 1 h.
    pub longest: Duration,
    /// Given up after; default 5 days.
    pub expire: Duration,
    /// The sender hears of the delay after; default 4 h.
    pub warn: Duration,
    /// Outbound mail that policy holds is given up after; default 14 days.
    pub hold_expire: Duration,
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Log {
    #[default]
    Text,
    Json,
}

/// Reads what a configuration names: list files of addresses. The core opens no file itself.
pub type ReadFile<'a> = &'a dyn Fn(&std::path::Path) -> Result<String, String>;

impl Config {
    /// Reads a configuration; `file` is its name in errors, `read_file` gives the text of list files. Every error found is
    /// returned, not only the first. Relative paths are kept as written.
    pub fn parse(text: &str, file: &str, read_file: ReadFile<'_>) -> Result<Self, Vec<ConfigError>> {
        read::config(text, file, read_file)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: 50 << 20,
            recipients: 1_000,
            connections: 1_000,
            connections_per_client: 100,
            bytes_in_flight: 1 << 30,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(600),
            data_rate: 1_000,
            work_timeout: Duration::from_secs(60),
            hop: HopWaits::default(),
            received_fields: 100,
            key_operations: 8,
            rates: Rates::default(),
        }
    }
}

impl Default for Fetch {
    fn default() -> Self {
        Self {
            enabled: true,
            timeout: Duration::from_secs(10),
            size: 32 << 20,
            memory: 256 << 20,
            private_addresses: false,
            nonce: Nonce::Off,
        }
    }
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { quota: u64::MAX, entries: u64::MAX, reserve: 4 << 20, commit_timeout: Duration::from_secs(30) }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(60),
            longest: Duration::from_secs(3_600),
            expire: Duration::from_secs(5 * 86_400),
            warn: Duration::from_secs(4 * 3_600),
            hold_expire: Duration::from_secs(14 * 86_400),
        }
    }
}

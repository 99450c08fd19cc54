//! The top of the file: who we are, listeners, next hops, limits, places.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeTable;

use super::reader::{Report, Section, boolean, choice, duration, integer, list, parsed, size, text};
use super::{
    Certificates, Config, ConfigError, Delivery, Direction, Fetch, KekSources, Limits, ListenTls, Listener, Log, Nonce,
    ReadFile, Retry, SpoolLimits, Users,
};
use crate::address::{Domain, Mailbox};
use crate::cms::algorithm::Legacy;
use crate::pki::path::InitialPolicies;

pub(super) const DIRECTIONS: &[(&str, Direction)] =
    &[("outbound", Direction::Outbound), ("inbound", Direction::Inbound), ("by-recipient", Direction::ByRecipient)];

pub(super) fn config(content: &str, file: &str, read_file: ReadFile<'_>) -> Result<Config, Vec<ConfigError>> {
    let report = Report::new(file, content);
    let config = match DeTable::parse(content) {
        Ok(table) => {
            let offset = table.span().start;
            let table = table.into_inner();
            whole(&Section::new(&report, &table, offset, String::new()), read_file)
        }
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            report.note(offset, "TOML", error.message().replace('\n', " "), "expected valid TOML");
            None
        }
    };
    let errors = report.into_errors();
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => Err(errors),
    }
}

/// Reads all; the caller throws the result away when anything was noted.
fn whole(top: &Section<'_, '_>, read_file: ReadFile<'_>) -> Option<Config> {
    let hostname = top.require("hostname", "our name, such as \"gw.example.org\"", parsed(Domain::parse));
    let authserv_id = top.get("authserv_id", parsed(Domain::parse));
    let domains =
        top.require("domains", "our mail domains, such as [\"example.org\"]", list(domain)).unwrap_or_default();
    let postmaster = top.get("postmaster", parsed(Mailbox::parse));
    let store = top.require("store", "the store's folder", text).map(PathBuf::from);
    let kek = kek_sources(top);
    let (spool, spool_limits) = spool(top);
    let control = top.get("control", text).map(PathBuf::from);
    let delivery = top
        .get("delivery", choice(&[("cut-through", Delivery::CutThrough), ("queue", Delivery::Queue)]))
        .unwrap_or_default();
    let log = top.get("log", choice(&[("text", Log::Text), ("json", Log::Json)])).unwrap_or_default();
    let self_check = top.get("self_check", boolean).unwrap_or(true);
    let listeners = listeners(top, read_file);
    let (outbound, inbound) = super::hops::routes(top);
    let routes = super::routes::routes(top);
    let direct = top.section("direct").map(super::routes::direct).unwrap_or_default();
    let limits = top.section("limits").map_or_else(Limits::default, limits);
    let retry = top.section("retry").map_or_else(Retry::default, retry);
    let fetch = top.section("revocation").map_or_else(Fetch::default, fetch);
    let legacy = top.section("legacy").map_or_else(Legacy::default, legacy);
    let certificates = top.section("certificates").map_or_else(Certificates::default, certificates);
    let harvest = top.section("harvest").map(|section| super::harvest::harvest(section, read_file)).unwrap_or_default();
    let etcd = top.section("etcd").and_then(|one| super::etcd::etcd(one, hostname.as_ref().map(Domain::as_str)));
    let discovery = super::discovery::discovery(top, read_file);
    let (mail_authentication, dkim) = super::authentication::authentication(top);
    let subject_tags = top.section("marks").is_some_and(marks);
    let metrics = top.section("metrics").and_then(super::operation::metrics);
    let audit = top.section("audit").and_then(super::operation::audit);
    let run = top.section("run").map(super::operation::run).unwrap_or_default();
    let policy = super::policy::policy(top, read_file);
    top.complain_of_unknown();
    let (hostname, spool) = (hostname?, spool?);
    let postmaster = match postmaster {
        Some(postmaster) => postmaster,
        None => Mailbox::parse(&format!("postmaster@{hostname}")).ok()?,
    };
    Some(Config {
        authserv_id: authserv_id.unwrap_or_else(|| hostname.clone()),
        hostname,
        domains,
        postmaster,
        listeners,
        outbound: outbound?.into(),
        inbound: inbound?.into(),
        routes,
        direct,
        limits,
        delivery,
        store: store?,
        etcd,
        kek: kek?,
        control: control.unwrap_or_else(|| spool.join("control")),
        spool,
        spool_limits,
        retry,
        fetch,
        legacy,
        certificates,
        harvest,
        discovery,
        mail_authentication,
        dkim,
        policy: policy?,
        subject_tags,
        self_check,
        log,
        metrics,
        audit,
        run,
    })
}

/// Where the key-encryption key is: at least one place.
fn kek_sources(top: &Section<'_, '_>) -> Option<KekSources> {
    top.require("kek", "the file of the key-encryption key (waxwing kek init FILE makes one)", list(kek))
        .filter(|kek| {
            let some = !kek.is_empty();
            if !some {
                top.complain("kek", "an empty list", "expected a file, or \"credential:NAME\"");
            }
            some
        })
        .map(KekSources::new)
}

/// Whether subjects are tagged.
fn marks(section: Section<'_, '_>) -> bool {
    let tags = section.get("subject_tags", boolean).unwrap_or(false);
    section.finish();
    tags
}

fn kek(text: &str) -> Result<PathBuf, String> {
    let place = PathBuf::from(text);
    let good = match KekSources::credential(&place) {
        Some(name) => !name.is_empty() && !name.contains('/') && !name.starts_with('.'),
        None => !text.is_empty(),
    };
    if good { Ok(place) } else { Err("expected a file, or \"credential:NAME\" without a slash".to_owned()) }
}

fn domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| error.to_string())
}

fn listeners(top: &Section<'_, '_>, read_file: ReadFile<'_>) -> Vec<Listener> {
    let sections = top.sections("listener");
    if sections.is_empty() {
        top.complain("listener", "nothing", "expected at least one [[listener]] with an address");
    }
    let mut names = BTreeSet::new();
    let listeners = sections.into_iter().filter_map(|section| {
        let listener = listener(&section, read_file);
        if let Some(listener) = &listener
            && !names.insert(listener.name.clone())
        {
            section.complain("name", format!("{:?} twice", listener.name), "expected a name for each listener");
        }
        section.finish();
        listener
    });
    listeners.collect()
}

fn listener(section: &Section<'_, '_>, read_file: ReadFile<'_>) -> Option<Listener> {
    let address = section.require(
        "address",
        "an address to listen on, such as \"127.0.0.1:2525\"",
        parsed(|text| {
            text.parse::<SocketAddr>()
                .map_err(|_| "expected an IP address and a port, such as \"127.0.0.1:2525\" or \"[::1]:25\"")
        }),
    );
    let direction = section.require("direction", "\"outbound\", \"inbound\" or \"by-recipient\"", choice(DIRECTIONS));
    let name = section.get("name", text).or_else(|| address.map(|address| address.to_string()));
    let trusted_networks = section.get("trusted_networks", list(network)).unwrap_or_default();
    let proxies = section.get("proxies", list(network)).unwrap_or_default();
    let xclient = section.get("xclient", list(network)).unwrap_or_default();
    let xforward = section.get("xforward", list(network)).unwrap_or_default();
    let users = section.get("users", parsed(|file| users(file, read_file)));
    let ldap_users = section.section("ldap_users").and_then(super::discovery::ldap_users).map(Arc::new);
    if users.is_some() && ldap_users.is_some() {
        section.complain("users", "a file beside a directory", "expected one of users and [listener.ldap_users]");
    }
    let auth_without_tls = section.get("auth_without_tls", boolean).unwrap_or(false);
    let lmtp = section.get("lmtp", boolean).unwrap_or(false);
    let repair_line_ends = section.get("repair_line_ends", boolean).unwrap_or(false);
    let tls = listen_tls(section);
    let greeting_delay = greeting_delay(section, tls.as_ref());
    let tenant = super::tenant::tenant(section, read_file);
    let senders = section.get("senders", list(domain)).unwrap_or_default();
    if tls == Some(ListenTls::Off) && tenant.as_ref().is_some_and(|tenant| tenant.certificate.is_some()) {
        section.complain(
            "tenant_certificate",
            "a client's certificate without TLS",
            "expected tls = \"starttls\", \"starttls-required\" or \"implicit\" beside it",
        );
    }
    if (users.is_some() || ldap_users.is_some()) && tls == Some(ListenTls::Off) && !auth_without_tls {
        section.complain(
            "users",
            "users without TLS",
            "expected tls = \"starttls\" or \"implicit\" beside it, or auth_without_tls = true where nobody can listen",
        );
    }
    Some(Listener {
        name: name?,
        address: address?,
        direction: direction?,
        tls: tls?,
        trusted_networks,
        proxies,
        xclient,
        xforward,
        tenant,
        senders,
        users,
        ldap_users,
        auth_without_tls,
        lmtp,
        greeting_delay,
        repair_line_ends,
    })
}

/// RFC 5321 section 4.5.3.2.1 has clients wait for five minutes; few do.
fn greeting_delay(section: &Section<'_, '_>, tls: Option<&ListenTls>) -> Duration {
    let delay = section.get("greeting_delay", duration(Duration::ZERO, Duration::from_secs(60))).unwrap_or_default();
    if !delay.is_zero() && matches!(tls, Some(ListenTls::Implicit { .. })) {
        section.complain(
            "greeting_delay",
            "a delay beside tls = \"implicit\"",
            "expected none: there the client speaks first, for TLS",
        );
    }
    delay
}

fn users(file: &str, read_file: ReadFile<'_>) -> Result<Arc<Users>, String> {
    let text =
        read_file(Path::new(file)).map_err(|error| format!("expected a readable file of users: {file}: {error}"))?;
    Users::parse(&text).map(Arc::new).map_err(|(line, expected)| format!("expected {expected}: {file}, line {line}"))
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "expected networks such as \"127.0.0.0/8\" or \"::1/128\"".into())
}

fn listen_tls(section: &Section<'_, '_>) -> Option<ListenTls> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mode {
        Off,
        Offered,
        Required,
        Implicit,
    }
    let words = [
        ("off", Mode::Off),
        ("starttls", Mode::Offered),
        ("starttls-required", Mode::Required),
        ("implicit", Mode::Implicit),
    ];
    let mode = if section.has("tls") { section.get("tls", choice(&words))? } else { Mode::Off };
    let certificate = section.get("certificate", text).map(PathBuf::from);
    let key = section.get("key", text).map(PathBuf::from);
    if mode == Mode::Off {
        if certificate.is_some() || key.is_some() {
            section.complain(
                "tls",
                "\"off\" beside a certificate",
                "expected tls = \"starttls\" or \"implicit\", or no certificate and key",
            );
        }
        return Some(ListenTls::Off);
    }
    let (Some(certificate), Some(key)) = (certificate, key) else {
        section.complain(
            "tls",
            "TLS without a certificate",
            "expected certificate = \"FILE\" and key = \"FILE\" (PEM) beside it",
        );
        return None;
    };
    Some(match mode {
        Mode::Implicit => ListenTls::Implicit { certificate, key },
        _ => ListenTls::StartTls { certificate, key, required: mode == Mode::Required },
    })
}

fn count(section: &Section<'_, '_>, key: &'static str, low: u64, default: usize) -> usize {
    let read = section.get(key, integer(low, 1_000_000)).and_then(|number| usize::try_from(number).ok());
    read.unwrap_or(default)
}

fn limits(section: Section<'_, '_>) -> Limits {
    let default = Limits::default();
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
    let time = |key, default| section.get(key, duration(second, hour)).unwrap_or(default);
    let limits = Limits {
        message_size: section.get("message_size", size(65_536)).unwrap_or(default.message_size),
        recipients: count(&section, "recipients", 100, default.recipients),
        connections: count(&section, "connections", 1, default.connections),
        connections_per_client: count(&section, "connections_per_client", 1, default.connections_per_client),
        bytes_in_flight: section.get("bytes_in_flight", size(1 << 20)).unwrap_or(default.bytes_in_flight),
        command_timeout: time("command_timeout", default.command_timeout),
        data_timeout: time("data_timeout", default.data_timeout),
        data_rate: section.get("data_rate", integer(0, 1 << 40)).unwrap_or(default.data_rate),
        work_timeout: time("work_timeout", default.work_timeout),
        hop: super::hops::waits(&section),
        received_fields: count(&section, "received_fields", 10, default.received_fields),
        key_operations: count(&section, "key_operations", 1, default.key_operations),
        rates: super::rates::rates(&section),
    };
    if limits.bytes_in_flight / 3 < limits.message_size {
        section.complain(
            "bytes_in_flight",
            format!("{} octets for messages of {}", limits.bytes_in_flight, limits.message_size),
            "expected at least 3 x message_size, or no mail of that size could ever pass",
        );
    }
    section.finish();
    limits
}

/// The spool: its folder, or a table with that and its bounds.
fn spool(top: &Section<'_, '_>) -> (Option<PathBuf>, SpoolLimits) {
    let default = SpoolLimits::default();
    if top.value("spool").is_none_or(|value| value.get_ref().as_table().is_none()) {
        return (top.require("spool", "the spool's folder", text).map(PathBuf::from), default);
    }
    let Some(section) = top.section("spool") else { return (None, default) };
    let folder = section.require("folder", "the spool's folder", text).map(PathBuf::from);
    let (second, ten_minutes) = (Duration::from_secs(1), Duration::from_secs(600));
    let limits = SpoolLimits {
        quota: section.get("quota", size(1 << 20)).unwrap_or(default.quota),
        entries: section.get("entries", integer(1, 1 << 40)).unwrap_or(default.entries),
        reserve: section.get("reserve", size(64 << 10)).unwrap_or(default.reserve),
        commit_timeout: section.get("commit_timeout", duration(second, ten_minutes)).unwrap_or(default.commit_timeout),
    };
    section.finish();
    (folder, limits)
}

fn retry(section: Section<'_, '_>) -> Retry {
    let default = Retry::default();
    let bounds = |low, high| duration(Duration::from_millis(low), Duration::from_secs(high));
    let retry = Retry {
        first: section.get("first", bounds(10, 86_400)).unwrap_or(default.first),
        longest: section.get("longest", bounds(10, 86_400)).unwrap_or(default.longest),
        expire: section.get("expire", bounds(1_000, 30 * 86_400)).unwrap_or(default.expire),
        warn: section.get("warn", bounds(10, 30 * 86_400)).unwrap_or(default.warn),
        hold_expire: section.get("hold_expire", bounds(1_000, 365 * 86_400)).unwrap_or(default.hold_expire),
    };
    if retry.longest < retry.first {
        section.complain("longest", "a time shorter than `first`", "expected first <= longest");
    }
    section.finish();
    retry
}

fn fetch(section: Section<'_, '_>) -> Fetch {
    let default = Fetch::default();
    let timeout = duration(Duration::from_millis(100), Duration::from_secs(60));
    let fetch = Fetch {
        enabled: section.get("fetch", boolean).unwrap_or(default.enabled),
        timeout: section.get("timeout", timeout).unwrap_or(default.timeout),
        size: section.get("size", size(65_536)).unwrap_or(default.size),
        memory: section.get("memory", size(1 << 20)).unwrap_or(default.memory),
        private_addresses: section.get("private_addresses", boolean).unwrap_or(default.private_addresses),
        nonce: section.get("nonce", choice(NONCES)).unwrap_or_default(),
    };
    if fetch.memory < fetch.size {
        section.complain("memory", "less than `size`", "expected room for one answer at least");
    }
    section.finish();
    fetch
}

fn legacy(section: Section<'_, '_>) -> Legacy {
    let switch = |key| section.get(key, boolean).unwrap_or(false);
    let legacy = Legacy {
        weak_ciphers: switch("weak_ciphers"),
        sha1_signatures: switch("sha1_signatures"),
        weak_keys: switch("weak_keys"),
        short_tags: switch("short_tags"),
    };
    section.finish();
    legacy
}

const NONCES: &[(&str, Nonce)] = &[("off", Nonce::Off), ("prefer", Nonce::Prefer), ("require", Nonce::Require)];

fn certificates(section: Section<'_, '_>) -> Certificates {
    let policies = section.get("policies", |value| {
        let texts = list(|text| Ok(text.to_owned()))(value)?;
        if texts.is_empty() {
            return Err("expected at least one OID; without the key no policy is needed".into());
        }
        InitialPolicies::one_of(texts.iter().map(String::as_str))
    });
    let certificates = Certificates {
        email_in_subject: section.get("email_in_subject", boolean).unwrap_or(false),
        policies: policies.unwrap_or_default(),
    };
    section.finish();
    certificates
}

/// Fuzz body: any text gives a configuration or errors with a place; nothing else.
#[doc(hidden)]
pub fn fuzz_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let asked = Cell::new(0_usize);
    let read = |_: &std::path::Path| {
        asked.set(asked.get() + 1);
        Ok(String::new())
    };
    if let Err(errors) = Config::parse(text, "fuzz.toml", &read) {
        assert!(!errors.is_empty());
        let lines = text.bytes().filter(|&octet| octet == b'\n').count() + 1;
        assert!(errors.iter().all(|error| error.line <= lines));
    }
}

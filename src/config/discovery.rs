//! `[[discovery]]`: directories and the DNS, which are asked for certificates that the store does not have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Section, boolean, choice, duration, integer, list, parsed, size, text};
use crate::address::{Domain, Mailbox};
use crate::discovery::ldap::{Filter, escaped};
use crate::policy::Pattern;

/// What becomes of certificates that a source brings (A10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiscoveryMode {
    /// They wait for an administrator.
    #[default]
    Candidate,
    /// They are used where nothing of the mailbox is trusted yet, and in the place of what the same source brought.
    Trust,
}

/// A source. Sources are asked in the order of the file, until one brings a certificate that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// For logs and provenance; default: the type, and its place in the file where there are several.
    pub name: String,
    /// How it is asked.
    pub kind: SourceKind,
    /// Whom it knows; empty: everybody outside of our domains.
    pub matches: Vec<Pattern>,
    pub mode: DiscoveryMode,
    /// For one look-up; default 5 s.
    pub timeout: Duration,
    /// Octets of one answer; default 256 KiB.
    pub size: u64,
    /// Certificates of one answer that are looked at; default 16.
    pub certificates: usize,
    /// How long this node remembers that a source has nothing new of a mailbox; default 1 h.
    pub remember: Duration,
}

/// How a source is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    Ldap(Ldap),
    Smimea(Smimea),
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ldap {
    /// Servers with the same content: the next one is asked where one does not answer.
    pub servers: Vec<LdapServer>,
    /// PEM file of the CAs that the servers' certificates are judged by; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Who asks; `None`: anonymously.
    pub bind: Option<(String, PathBuf)>,
    /// Where to search: `{domain}` stands for the domain looked for, `{dc}` for it as `dc=…,dc=…`.
    pub base: String,
    /// Other places for some domains.
    pub bases: Vec<(Domain, String)>,
    pub filter: Filter,
    /// Addresses that an entry lists beside its own become aliases in the store.
    pub aliases: bool,
}

/// A directory server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapServer {
    /// Host name, or an address without brackets.
    pub host: String,
    pub port: u16,
    pub tls: LdapTls,
}

/// How a directory server is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LdapTls {
    /// In clear.
    Off,
    /// `ldap://`, and TLS before anything else (RFC 4511 section 4.14).
    StartTls,
    /// `ldaps://`.
    Implicit,
}

/// A directory that says who may authenticate: by a bind with his password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapUsers {
    /// Servers, and where and how a user's entry is searched.
    pub ldap: Ldap,
    /// The name of a user's entry, in the place of a search: `{address}`, `{local}`, `{domain}` and `{dc}` stand for what he says.
    pub dn: Option<String>,
    /// For one login; default 5 s.
    pub timeout: Duration,
    /// Octets of one answer; default 64 KiB.
    pub size: u64,
}

impl LdapUsers {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        self.ldap.ca.as_deref().into_iter().chain(self.ldap.bind.as_ref().map(|(_, file)| file.as_path()))
    }

    /// The name of a user's entry, where it is made and not searched; nothing of what he says ends a value in it.
    pub fn dn_for(&self, user: &Mailbox) -> Option<String> {
        let domain = user.domain().as_str();
        let components: Vec<String> = domain.split('.').map(|label| format!("dc={}", escaped(label))).collect();
        let mut rest = self.dn.as_deref()?;
        let mut name = String::new();
        while let Some((before, after)) = rest.split_once('{') {
            let (word, after) = after.split_once('}')?;
            name.push_str(before);
            name.push_str(&match word {
                "address" => escaped(&user.to_string()),
                "local" => escaped(user.local()),
                "domain" => escaped(domain),
                _ => components.join(","),
            });
            rest = after;
        }
        name.push_str(rest);
        Some(name)
    }
}

/// The DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smimea {
    /// Resolvers; empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// File of DNSKEY records that validation begins with; `None`: the root zone's keys.
    pub trust_anchor: Option<PathBuf>,
    /// A DANE-EE record (usage 3) stands for itself: no path to a trust anchor is needed. Default no.
    pub dane_alone: bool,
}

impl Source {
    /// The files that it names.
    pub fn files(&self) -> Vec<&std::path::Path> {
        let files = match &self.kind {
            SourceKind::Ldap(ldap) => [ldap.ca.as_deref(), ldap.bind.as_ref().map(|(_, file)| file.as_path())],
            SourceKind::Smimea(smimea) => [smimea.trust_anchor.as_deref(), None],
        };
        files.into_iter().flatten().collect()
    }

    /// Whether it knows this mailbox.
    pub fn knows(&self, mailbox: &Mailbox, ours: &[Domain]) -> bool {
        match self.matches.as_slice() {
            [] => !ours.contains(mailbox.domain()) && !mailbox.domain().is_literal(),
            some => some.iter().any(|pattern| pattern.matches(mailbox)),
        }
    }

    /// The word for its type.
    pub fn word(&self) -> &'static str {
        match self.kind {
            SourceKind::Ldap(_) => "ldap",
            SourceKind::Smimea(_) => "smimea",
        }
    }
}

impl Ldap {
    /// Where entries of this domain are searched.
    pub fn base_for(&self, domain: &Domain) -> String {
        let own = self.bases.iter().find(|(known, _)| known == domain).map_or(&self.base, |(_, base)| base);
        let components: Vec<String> = domain.as_str().split('.').map(|label| format!("dc={label}")).collect();
        own.replace("{domain}", domain.as_str()).replace("{dc}", &components.join(","))
    }
}

impl LdapServer {
    /// It is this machine: nobody is between.
    fn is_here(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// As a URL; also what provenance names.
impl std::fmt::Display for LdapServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls == LdapTls::Implicit { "ldaps" } else { "ldap" };
        let six = self.host.contains(':');
        let (open, close) = if six { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

const MODES: &[(&str, DiscoveryMode)] = &[("candidate", DiscoveryMode::Candidate), ("trust", DiscoveryMode::Trust)];

#[derive(Clone, Copy)]
enum Type {
    Ldap,
    Smimea,
}

const TYPES: &[(&str, Type)] = &[("ldap", Type::Ldap), ("smimea", Type::Smimea)];

/// All sources, in order.
pub(super) fn discovery(top: &Section<'_, '_>, read_file: super::ReadFile<'_>) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for section in top.sections("discovery") {
        let source = source(&section, sources.len(), read_file);
        if let Some(source) = source {
            if sources.iter().any(|known| known.name == source.name) {
                section.complain("name", format!("{:?} twice", source.name), "expected a name for each source");
            }
            sources.push(source);
        }
        section.finish();
    }
    sources
}

fn source(section: &Section<'_, '_>, place: usize, read_file: super::ReadFile<'_>) -> Option<Source> {
    let kind = section.require("type", "\"ldap\" or \"smimea\"", choice(TYPES));
    let matches = super::policy::patterns(section, "match", read_file);
    let seconds = Duration::from_secs;
    let mode = section.get("mode", choice(MODES)).unwrap_or_default();
    let timeout = section.get("timeout", duration(Duration::from_millis(100), seconds(30))).unwrap_or(seconds(5));
    let octets = section.get("size", size(4_096)).unwrap_or(256 << 10);
    let certificates = section.get("certificates", integer(1, 64)).and_then(|number| usize::try_from(number).ok());
    let remember = section.get("remember", duration(seconds(1), seconds(86_400))).unwrap_or(seconds(3_600));
    let name = section.get(
        "name",
        parsed(|text| {
            let fits =
                !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if fits { Ok(text.to_owned()) } else { Err("expected a name of letters, digits, -, _ and .") }
        }),
    );
    let (word, kind) = match kind? {
        Type::Ldap => ("ldap", SourceKind::Ldap(ldap(section, mode)?)),
        Type::Smimea => ("smimea", SourceKind::Smimea(smimea(section))),
    };
    if matches!(kind, SourceKind::Ldap(_)) && !section.has("match") {
        section.complain(
            "match",
            "nothing",
            "expected whom this directory knows, such as [\"@partner.example\"]; add it",
        );
    }
    let usual = if place == 0 { word.to_owned() } else { format!("{word}-{}", place + 1) };
    Some(Source {
        name: name.unwrap_or(usual),
        kind,
        matches,
        mode,
        timeout,
        size: octets,
        certificates: certificates.unwrap_or(16),
        remember,
    })
}

fn ldap(section: &Section<'_, '_>, mode: DiscoveryMode) -> Option<Ldap> {
    let start = section.get("tls", choice(&[("starttls", LdapTls::StartTls), ("off", LdapTls::Off)]));
    let start = start.unwrap_or(LdapTls::StartTls);
    let servers = section.require(
        "servers",
        "the directory's servers, such as [\"ldaps://directory.example\"]",
        list(|text| server(text, start)),
    );
    let ca = section.get("ca", text).map(PathBuf::from);
    let name = section.get("bind_dn", text);
    let password = section.get("password_file", text).map(PathBuf::from);
    let base = section.require("base", "where to search, such as \"ou=people,{dc}\"", place);
    let bases = section.sections("bases").into_iter().filter_map(|one| {
        let domain = one.require("domain", "a mail domain", parsed(Domain::parse));
        let base = one.require("base", "where to search for it", place);
        one.finish();
        domain.zip(base)
    });
    let bases = bases.collect();
    let filter = section.get("filter", parsed(Filter::parse)).unwrap_or_default();
    let aliases = section.get("aliases", boolean).unwrap_or(false);
    let bind = match (name, password) {
        (Some(name), Some(file)) => Some((name, file)),
        (None, None) => None,
        _ => {
            section.complain("bind_dn", "one of bind_dn and password_file", "expected both, or neither");
            None
        }
    };
    let servers = servers?;
    if servers.is_empty() {
        section.complain("servers", "an empty list", "expected at least one server");
    }
    let open = servers.iter().any(|server| server.tls == LdapTls::Off && !server.is_here());
    if open && (bind.is_some() || aliases || mode == DiscoveryMode::Trust) {
        section.complain(
            "tls",
            "\"off\" to another machine",
            "expected \"starttls\" or ldaps:// where a password is sent, aliases are taken or what comes is trusted",
        );
    }
    Some(Ldap { servers, ca, bind, base: base?, bases, filter, aliases })
}

/// `[listener.ldap_users]`.
pub(super) fn ldap_users(section: Section<'_, '_>) -> Option<LdapUsers> {
    let start = section.get("tls", choice(&[("starttls", LdapTls::StartTls), ("off", LdapTls::Off)]));
    let start = start.unwrap_or(LdapTls::StartTls);
    let expected = "the directory's servers, such as [\"ldaps://directory.example\"]";
    let servers = section.require("servers", expected, list(|text| server(text, start)));
    let ca = section.get("ca", text).map(PathBuf::from);
    let bind = section.get("bind_dn", text).zip(section.get("password_file", text).map(PathBuf::from));
    if bind.is_none() && (section.has("bind_dn") || section.has("password_file")) {
        section.complain("bind_dn", "one of bind_dn and password_file", "expected both, or neither");
    }
    let dn = section.get("dn", user_dn);
    let base = section.get("base", place);
    if dn.is_some() == base.is_some() {
        section.complain(
            "base",
            "both or none of dn and base",
            "expected where to search, base = \"ou=people,{dc}\", or the entry's name, dn = \"uid={local},ou=people,{dc}\"",
        );
    }
    let filter = section.get("filter", parsed(Filter::parse)).unwrap_or_default();
    let seconds = Duration::from_secs;
    let timeout = section.get("timeout", duration(Duration::from_millis(100), seconds(30))).unwrap_or(seconds(5));
    let octets = section.get("size", size(4_096)).unwrap_or(64 << 10);
    let servers = servers.unwrap_or_default();
    if servers.is_empty() {
        section.complain("servers", "no server", "expected at least one");
    }
    if servers.iter().any(|server| server.tls == LdapTls::Off && !server.is_here()) {
        section.complain("tls", "\"off\" to another machine", "expected \"starttls\" or ldaps://: passwords are sent");
    }
    section.finish();
    let ldap = Ldap { servers, ca, bind, base: base.unwrap_or_default(), bases: Vec::new(), filter, aliases: false };
    Some(LdapUsers { ldap, dn, timeout, size: octets })
}

/// The name of a user's entry with its placeholders.
fn user_dn(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    let named = ["{address}", "{local}"].iter().any(|word| name.contains(word));
    let rest =
        ["{address}", "{local}", "{domain}", "{dc}"].iter().fold(name.clone(), |rest, word| rest.replace(word, ""));
    if !named || rest.contains(['{', '}']) {
        return Err(
            "expected {address} or {local} in it, and no other placeholders than those, {domain} and {dc}".into()
        );
    }
    Ok(name)
}

/// A base with its placeholders.
fn place(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let base = text(value)?;
    let rest = base.replace("{domain}", "").replace("{dc}", "");
    if rest.contains(['{', '}']) {
        return Err("expected no other placeholders than {domain} and {dc}".into());
    }
    Ok(base)
}

fn server(text: &str, start: LdapTls) -> Result<LdapServer, String> {
    let expected = || "expected a server such as \"ldaps://directory.example\" or \"ldap://127.0.0.1:389\"".to_owned();
    let (tls, rest) = match text.split_once("://").ok_or_else(expected)? {
        ("ldaps", rest) => (LdapTls::Implicit, rest),
        ("ldap", rest) => (start, rest),
        _ => return Err(expected()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(six) => {
            let (host, port) = six.split_once(']').ok_or_else(expected)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| expected())?;
            (host, port.strip_prefix(':'))
        }
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
    if host.is_empty() || !host.chars().all(of_names) {
        return Err(expected());
    }
    let usual = if tls == LdapTls::Implicit { 636 } else { 389 };
    let port = port.map_or(Ok(usual), |port| port.parse::<u16>().map_err(|_| expected()))?;
    Ok(LdapServer { host: host.to_owned(), port, tls })
}

fn smimea(section: &Section<'_, '_>) -> Smimea {
    Smimea {
        servers: section.get("servers", list(resolver)).unwrap_or_default(),
        trust_anchor: section.get("trust_anchor", text).map(PathBuf::from),
        dane_alone: section.get("dane_alone", boolean).unwrap_or(false),
    }
}

/// The address of a resolver; its port is 53 where none is given.
pub(super) fn resolver(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    let bare = || text.parse().ok().map(|address| SocketAddr::new(address, 53));
    with_port.or_else(bare).ok_or_else(|| "expected addresses of resolvers, such as \"127.0.0.1:53\"".into())
}

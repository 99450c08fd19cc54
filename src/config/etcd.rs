//! `[etcd]`: a store that several gateways share.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Section, duration, list, text};

/// Where the shared store is, and how long a node may answer from its own copy alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// Client URLs of the members, `http://host:port` or `https://host:port`; one is asked, another when it does not answer.
    pub endpoints: Vec<String>,
    /// Before every key of this installation; default `waxwing`.
    pub prefix: String,
    /// The name of this gateway among its peers; default the hostname.
    pub node: String,
    /// Name, and the file whose first line is the password.
    pub user: Option<(String, PathBuf)>,
    /// PEM file of the CAs of the members' certificates; default the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate with its chain, and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How long mail is treated by this node's copy while etcd cannot be reached; after that 451. Default 24 h.
    pub max_staleness: Duration,
    /// For one request, all members together; default 5 s.
    pub timeout: Duration,
}

pub(super) fn etcd(section: Section<'_, '_>, hostname: Option<&str>) -> Option<Etcd> {
    let endpoints = section
        .require("endpoints", "etcd's client URLs, such as [\"https://etcd1.example.org:2379\"]", list(endpoint))
        .unwrap_or_default();
    if section.has("endpoints") && endpoints.is_empty() {
        section.complain("endpoints", "no valid one", "expected one or more URLs");
    }
    let file = |key| section.get(key, text).map(PathBuf::from);
    let pair = |first: &'static str, second: &'static str| match (section.get(first, text), file(second)) {
        (Some(one), Some(other)) => Some((one, other)),
        (None, None) => None,
        (Some(_), None) => {
            section.complain(second, "nothing", format!("expected a file beside {first}"));
            None
        }
        (None, Some(_)) => {
            section.complain(first, "nothing", format!("expected it beside {second}"));
            None
        }
    };
    let etcd = Etcd {
        prefix: section.get("prefix", name).unwrap_or_else(|| "waxwing".to_owned()),
        node: section.get("node", name).or_else(|| hostname.map(str::to_owned)).unwrap_or_default(),
        user: pair("user", "password_file"),
        ca: file("ca"),
        identity: pair("certificate", "key").map(|(certificate, key)| (PathBuf::from(certificate), key)),
        max_staleness: section
            .get("max_staleness", duration(Duration::from_secs(2), Duration::from_secs(30 * 86_400)))
            .unwrap_or(Duration::from_secs(86_400)),
        timeout: section
            .get("timeout", duration(Duration::from_millis(500), Duration::from_secs(60)))
            .unwrap_or(Duration::from_secs(5)),
        endpoints,
    };
    section.finish();
    (!etcd.endpoints.is_empty()).then_some(etcd)
}

fn endpoint(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"/@?#".contains(&b)) => {
            Ok(text.to_owned())
        }
        _ => Err("expected a URL such as \"https://etcd1.example.org:2379\", without a path".to_owned()),
    }
}

/// What may stand in a key: letters, digits, `.`, `-` and `_`, at most 64.
fn name(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text)
    } else {
        Err("expected 1 to 64 letters, digits, '.', '-' and '_'".to_owned())
    }
}

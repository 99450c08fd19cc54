//! `[mail_authentication]` and `[[dkim]]`: what is found out about who sent a mail, and with which keys our domains vouch for theirs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Section, boolean, choice, duration, integer, list, parsed, text};
use crate::address::Domain;

/// What SPF, DKIM and DMARC are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Inbound {
    /// Nothing is looked up.
    #[default]
    Off,
    /// The results are written into the mail.
    Mark,
    /// The same, and mail is refused whose author's domain says so (DMARC, `p=reject`).
    Enforce,
}

/// How mail of the world is looked at before it is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailAuthentication {
    pub inbound: Inbound,
    /// For all look-ups of one mail; default 10 s. What is not known then is `temperror`.
    pub timeout: Duration,
    /// Resolvers; empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// DKIM signatures of one mail that are checked, from the top; default 8.
    pub signatures: usize,
    /// Whether the client's address and name belong together (RFC 8601 section 3); default true.
    pub iprev: bool,
}

impl Default for MailAuthentication {
    fn default() -> Self {
        Self {
            inbound: Inbound::Off,
            timeout: Duration::from_secs(10),
            servers: Vec::new(),
            signatures: 8,
            iprev: true,
        }
    }
}

/// A key that signs outbound mail of a domain (RFC 6376).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dkim {
    /// The domain that vouches: for authors of it, and of domains below it that have no key of their own.
    pub domain: Domain,
    /// Where the public half stands: SELECTOR._domainkey.DOMAIN.
    pub selector: String,
    /// PEM file of an RSA key of 2048 bits or more, or an Ed25519 key.
    pub key: PathBuf,
}

const INBOUND: &[(&str, Inbound)] = &[("off", Inbound::Off), ("mark", Inbound::Mark), ("enforce", Inbound::Enforce)];

/// Both directions.
pub(super) fn authentication(top: &Section<'_, '_>) -> (MailAuthentication, Vec<Dkim>) {
    (top.section("mail_authentication").map(mail_authentication).unwrap_or_default(), dkim(top))
}

fn mail_authentication(section: Section<'_, '_>) -> MailAuthentication {
    let default = MailAuthentication::default();
    let times = duration(Duration::from_millis(100), Duration::from_secs(30));
    let signatures = section.get("signatures", integer(1, 100)).and_then(|number| usize::try_from(number).ok());
    let read = MailAuthentication {
        inbound: section.get("inbound", choice(INBOUND)).unwrap_or_default(),
        timeout: section.get("timeout", times).unwrap_or(default.timeout),
        servers: section.get("servers", list(super::discovery::resolver)).unwrap_or_default(),
        signatures: signatures.unwrap_or(default.signatures),
        iprev: section.get("iprev", boolean).unwrap_or(default.iprev),
    };
    section.finish();
    read
}

/// All keys, in order.
fn dkim(top: &Section<'_, '_>) -> Vec<Dkim> {
    let mut keys: Vec<Dkim> = Vec::new();
    for section in top.sections("dkim") {
        let domain = section.require("domain", "a domain of ours, such as \"example.org\"", parsed(Domain::parse));
        let selector = section.require("selector", "a name for the key, such as \"s2026\"", parsed(selector));
        let key = section.require("key", "the PEM file of the key (waxwing dkim generate FILE makes one)", text);
        if let (Some(domain), Some(selector), Some(key)) = (domain, selector, key) {
            let key = Dkim { domain, selector, key: PathBuf::from(key) };
            if keys.iter().any(|known| known.domain == key.domain && known.selector == key.selector) {
                section.complain(
                    "selector",
                    format!("{:?} twice for {}", key.selector, key.domain),
                    "expected another selector for each key of a domain",
                );
            }
            keys.push(key);
        }
        section.finish();
    }
    keys
}

/// Labels that a name in the DNS may have (RFC 6376 section 3.1).
pub(crate) fn selector(text: &str) -> Result<String, &'static str> {
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
    };
    if text.len() <= 200 && text.split('.').all(fits) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("expected letters, digits and hyphens, such as \"s2026\"")
    }
}

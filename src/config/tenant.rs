//! Listeners that take mail from a cloud that many share: who of them it is (A31).

use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::ReadFile;
use super::reader::{Section, list, parsed, text};
use crate::address::Domain;

/// Octets of a secret, at least: it may be guessed by whoever can connect.
const SECRET: usize = 16;

/// What every mail of a listener has to bring; what is `None` is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tenant {
    /// A header field that only the tenant's mail has.
    pub header: Option<TenantHeader>,
    /// A TLS certificate of the client.
    pub certificate: Option<TenantCertificate>,
}

/// A header field and its value, which is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TenantHeader {
    /// The field's name.
    pub name: String,
    secret: Zeroizing<String>,
}

impl fmt::Debug for TenantHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: …", self.name)
    }
}

impl TenantHeader {
    /// Whether the value is the secret, in a time that does not tell where they differ.
    pub fn is(&self, value: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.secret.as_bytes(), value).is_ok()
    }

    /// Reads `NAME: SECRET`, or `NAME: file:PATH` with the secret on the file's first line.
    fn parse(text: &str, read_file: ReadFile<'_>) -> Result<Self, String> {
        let form = "expected \"X-Field: SECRET\", or \"X-Field: file:PATH\"";
        let (name, value) = text.split_once(':').ok_or(form)?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
            return Err(form.into());
        }
        let secret = match value.strip_prefix("file:") {
            None => Zeroizing::new(value.to_owned()),
            Some(path) => {
                let text =
                    Zeroizing::new(read_file(Path::new(path)).map_err(|error| format!("{form}: {path}: {error}"))?);
                Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned())
            }
        };
        if secret.len() < SECRET || !secret.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(format!("expected a secret of at least {SECRET} printable characters without spaces"));
        }
        Ok(TenantHeader { name: name.to_owned(), secret })
    }
}

/// Which certificates of clients count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantCertificate {
    /// One of these stands in it as a DNS name (RFC 6125).
    pub names: Vec<Domain>,
    /// PEM file of the CAs that issue it.
    pub ca: PathBuf,
}

pub(super) fn tenant(section: &Section<'_, '_>, read_file: ReadFile<'_>) -> Option<Tenant> {
    let header = section.get("tenant_header", |value| Ok(TenantHeader::parse(&text(value)?, read_file)));
    // What is wrong may be most of the secret: it is in no log.
    let header = header.and_then(|read| {
        read.map_err(|expected| section.complain("tenant_header", "a value that is not shown", expected)).ok()
    });
    let names = section.get("tenant_certificate", list(|text| Domain::parse(text).map_err(|error| error.to_string())));
    let ca = section.get("tenant_ca", parsed(|text| Ok::<_, String>(PathBuf::from(text))));
    let certificate = match (names, ca) {
        (None, None) => None,
        (Some(names), Some(ca)) if !names.is_empty() => Some(TenantCertificate { names, ca }),
        _ => {
            section.complain(
                "tenant_certificate",
                "one of tenant_certificate and tenant_ca",
                "expected both: [\"name.in.the.certificate\"], and the PEM file of the CAs that issue it",
            );
            None
        }
    };
    (header.is_some() || certificate.is_some()).then_some(Tenant { header, certificate })
}

/// From where clouds send the mail of all their customers, as they publish it. It is for a warning: that it is not complete does no harm.
const SHARED: &[(&str, &[&str])] = &[
    (
        "Microsoft 365",
        &[
            "40.92.0.0/15",
            "40.107.0.0/16",
            "52.100.0.0/14",
            "52.238.78.88/32",
            "104.47.0.0/17",
            "2a01:111:f400::/48",
            "2a01:111:f403::/48",
        ],
    ),
    (
        "Google Workspace",
        &[
            "35.190.247.0/24",
            "64.233.160.0/19",
            "66.102.0.0/20",
            "66.249.80.0/20",
            "72.14.192.0/18",
            "74.125.0.0/16",
            "108.177.8.0/21",
            "172.217.0.0/19",
            "173.194.0.0/16",
            "209.85.128.0/17",
            "216.58.192.0/19",
            "216.239.32.0/19",
            "2001:4860:4000::/36",
            "2404:6800:4000::/36",
            "2607:f8b0:4000::/36",
            "2800:3f0:4000::/36",
            "2a00:1450:4000::/36",
            "2c0f:fb50:4000::/36",
        ],
    ),
];

/// Which shared cloud sends from a network, or from a part of it.
pub fn shared_cloud(network: &IpNet) -> Option<&'static str> {
    let within =
        |text: &&str| text.parse::<IpNet>().is_ok_and(|known| known.contains(network) || network.contains(&known));
    SHARED.iter().find(|(_, networks)| networks.iter().any(within)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_and_never_shown() {
        let read = |path: &Path| Ok(format!("{}-0123456789\nmore\n", path.display()));
        let header = TenantHeader::parse("X-Tenant:  correct-horse-battery ", &read).unwrap();
        assert!(header.is(b"correct-horse-battery") && !header.is(b"correct-horse-batterx") && !header.is(b""));
        assert_eq!(format!("{header:?}"), "X-Tenant: …");
        assert!(TenantHeader::parse("X-Tenant: file:the-secret", &read).unwrap().is(b"the-secret-0123456789"));
        for wrong in [
            "X-Tenant",
            "X-Tenant: short",
            "X Tenant: correct-horse-battery",
            ": correct-horse-battery",
            "X-T: with a space in it and long",
        ] {
            assert!(TenantHeader::parse(wrong, &read).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_of_shared_clouds_are_known_and_others_are_not() {
        let cloud = |text: &str| shared_cloud(&text.parse().unwrap());
        for network in ["40.107.22.0/24", "52.101.0.0/16", "0.0.0.0/0", "2a01:111:f403:8000::/64"] {
            assert_eq!(cloud(network), Some("Microsoft 365"), "{network}");
        }
        assert_eq!(cloud("209.85.128.5/32"), Some("Google Workspace"));
        for network in ["127.0.0.0/8", "10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"] {
            assert_eq!(cloud(network), None, "{network}");
        }
        assert!(SHARED.iter().flat_map(|(_, all)| *all).all(|text| text.parse::<IpNet>().is_ok()));
    }
}

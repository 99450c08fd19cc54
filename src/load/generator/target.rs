//! TLS to the target, and who may be a target.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::link::Way;
use crate::load::scenario::{Scenario, TlsMode, Verify};
use crate::relay::hop::Roots;

/// Who gets the mail. It is looked up once: what is judged is what is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    addresses: Vec<SocketAddr>,
}

/// Why somebody cannot be a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No `HOST:PORT`.
    #[error("target {found:?} is not HOST:PORT, such as 127.0.0.1:2525 or [::1]:25")]
    Malformed {
        /// What was given.
        found: String,
    },
    /// The name has no address.
    #[error("target {host}: {why}")]
    Unknown {
        /// The host.
        host: String,
        /// What the look-up said.
        why: String,
    },
    /// Not on this machine and in no private network.
    #[error("target {host} has the public address {address}: a load test there hits whoever owns it")]
    Public {
        /// The host.
        host: String,
        /// Its address.
        address: IpAddr,
    },
}

impl Target {
    /// Looks up `HOST:PORT`. Addresses that are neither loopback nor private are refused, unless the caller says that they are its own.
    pub async fn find(text: &str, owned: bool) -> Result<Self, TargetError> {
        let malformed = || TargetError::Malformed { found: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(malformed)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        if host.is_empty() || (bracketed.is_none() && host.contains(':')) {
            return Err(malformed());
        }
        let unknown = |why: String| TargetError::Unknown { host: host.to_owned(), why };
        let found = tokio::net::lookup_host((host, port)).await.map_err(|error| unknown(error.to_string()))?;
        let addresses: Vec<SocketAddr> = found.collect();
        if addresses.is_empty() {
            return Err(unknown("the name has no address".into()));
        }
        match addresses.iter().find(|address| !is_near(address.ip())) {
            Some(address) if !owned => Err(TargetError::Public { host: host.to_owned(), address: address.ip() }),
            _ => Ok(Self { host: host.to_owned(), addresses }),
        }
    }

    /// How connections are made; fails where the CAs cannot be read.
    pub(super) fn way(&self, scenario: &Scenario) -> Result<Way, String> {
        let tls = match scenario.tls.mode {
            TlsMode::Off => None,
            TlsMode::StartTls | TlsMode::Implicit => {
                let name = ServerName::try_from(self.host.clone())
                    .map_err(|_| format!("{:?} is no host name that a certificate can hold", self.host))?;
                Some((config(&scenario.tls.verify)?, name))
            }
        };
        Ok(Way {
            addresses: self.addresses.clone(),
            hello: scenario.hello.clone(),
            mode: scenario.tls.mode,
            tls,
            patience: scenario.patience,
        })
    }
}

fn config(verify: &Verify) -> Result<Arc<ClientConfig>, String> {
    let roots = |file: &Path| Roots::file(file).map_err(|error| format!("CAs of {}: {error}", file.display()));
    match verify {
        Verify::No => Roots::any_certificate(),
        Verify::System => Roots::system().verifying(),
        Verify::File(file) => roots(file)?.verifying(),
    }
}

/// On this machine, or in a network that nobody routes to the world (RFC 1918, 4193, 3927, 4291).
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn public_targets_are_refused_unless_owned() {
        for public in ["192.0.2.1:25", "[2001:db8::1]:25", "100.64.0.1:25", "[::ffff:8.8.8.8]:25", "0.0.0.0:25"] {
            assert!(matches!(Target::find(public, false).await, Err(TargetError::Public { .. })), "{public}");
            assert!(Target::find(public, true).await.is_ok(), "{public}");
        }
        for near in [
            "127.0.0.1:25",
            "[::1]:25",
            "10.1.2.3:25",
            "172.16.0.1:25",
            "192.168.0.1:25",
            "[fd00::1]:25",
            "localhost:25",
        ] {
            assert!(Target::find(near, false).await.is_ok(), "{near}");
        }
    }

    #[tokio::test]
    async fn what_is_no_target_is_said() {
        for bad in ["", "localhost", "localhost:", ":25", "localhost:0", "localhost:65536", "::1:25", "[]:25"] {
            assert!(matches!(Target::find(bad, true).await, Err(TargetError::Malformed { .. })), "{bad}");
        }
    }
}

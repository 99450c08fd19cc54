//! check_host() of RFC 7208 section 4, over records as mail-auth reads them. Its own walk takes the first of several nested includes for
//! the last word, so that `?include:` of a record that includes others would pass.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;

use mail_auth::common::cache::NoCache;
use mail_auth::spf::{Macro, Mechanism, Spf, Variables};
use mail_auth::{DnsError, Error, MX, MessageAuthenticator, RecordSet, SpfResult, Txt};

/// Mechanisms and modifiers that ask the DNS, at most (section 4.6.4).
const LOOK_UPS: usize = 10;
/// Questions with nothing for an answer, at most (section 4.6.4).
const VOID: usize = 2;
/// Hosts of one MX or PTR answer that are looked at (section 4.6.4).
const HOSTS: usize = 10;

type NoText = NoCache<Box<str>, Txt>;
type NoMx = NoCache<Box<str>, RecordSet<MX>>;
type NoV4 = NoCache<Box<str>, RecordSet<Ipv4Addr>>;
type NoV6 = NoCache<Box<str>, RecordSet<Ipv6Addr>>;
type NoPtr = NoCache<IpAddr, RecordSet<Box<str>>>;

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'c> {
    pub(super) address: IpAddr,
    pub(super) helo: &'c str,
    /// Who asks.
    pub(super) us: &'c str,
}

/// Why there is no result.
enum Stop {
    Temporary,
    Permanent,
}

type Walking<'w, T> = Pin<Box<dyn Future<Output = Result<T, Stop>> + Send + 'w>>;

struct Walk<'d> {
    dns: &'d MessageAuthenticator,
    address: IpAddr,
    variables: Variables<'static>,
    look_ups: usize,
    void: usize,
}

/// Whether this client may send for `domain`, as `sender` (`local@domain`).
pub(super) async fn check_host(
    dns: &MessageAuthenticator,
    client: Client<'_>,
    domain: &str,
    sender: &str,
) -> SpfResult {
    let mut variables = Variables::new();
    variables.set_ip(&client.address);
    variables.set_sender(sender.as_bytes().to_vec());
    variables.set_helo_domain(client.helo.as_bytes().to_vec());
    variables.set_host_domain(client.us.as_bytes().to_vec());
    // Section 7.3: nobody should use it, and it costs questions.
    variables.set_validated_domain(b"unknown".to_vec());
    let mut walk = Walk { dns, address: client.address, variables, look_ups: 0, void: 0 };
    match walk.record(domain.to_owned()).await {
        Ok(found) => found.unwrap_or(SpfResult::None),
        Err(Stop::Temporary) => SpfResult::TempError,
        Err(Stop::Permanent) => SpfResult::PermError,
    }
}

impl Walk<'_> {
    /// What the record of a domain says; `None`: there is none.
    fn record(&mut self, domain: String) -> Walking<'_, Option<SpfResult>> {
        Box::pin(async move {
            let record = match self.dns.txt_lookup::<Spf>(&domain, None::<&NoText>).await {
                Ok(record) => record,
                Err(Error::Dns(DnsError::RecordNotFound(_) | DnsError::InvalidRecordType)) => return Ok(None),
                Err(Error::Dns(DnsError::Resolver(_))) => return Err(Stop::Temporary),
                Err(_) => return Err(Stop::Permanent),
            };
            for directive in &record.directives {
                if self.matches(&directive.mechanism, &domain).await? {
                    return Ok(Some((&directive.qualifier).into()));
                }
            }
            let Some(redirect) = &record.redirect else { return Ok(Some(SpfResult::Neutral)) };
            self.asks()?;
            let target = self.target(redirect, &domain);
            match self.record(target).await? {
                None => Err(Stop::Permanent),
                found => Ok(found),
            }
        })
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        let address = self.address;
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4 { addr, mask } => Ok(within_v4(address, *addr, *mask)),
            Mechanism::Ip6 { addr, mask } => Ok(within_v6(address, *addr, *mask)),
            Mechanism::Include { macro_string } => {
                self.asks()?;
                let target = self.target(macro_string, domain);
                match self.record(target).await? {
                    Some(SpfResult::Pass) => Ok(true),
                    Some(SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral) => Ok(false),
                    Some(SpfResult::TempError) => Err(Stop::Temporary),
                    None | Some(SpfResult::None | SpfResult::PermError) => Err(Stop::Permanent),
                }
            }
            Mechanism::A { macro_string, ip4_mask, ip6_mask } => {
                self.asks()?;
                let target = self.target(macro_string, domain);
                self.is_host(&target, *ip4_mask, *ip6_mask).await
            }
            Mechanism::Mx { macro_string, ip4_mask, ip6_mask } => {
                self.asks()?;
                let target = self.target(macro_string, domain);
                let found = self.dns.mx_lookup(&target, None::<&NoMx>).await;
                let Some(found) = self.there(found)? else { return Ok(false) };
                let hosts = || found.rrset.iter().flat_map(|mx| mx.exchanges.iter());
                if hosts().count() > HOSTS {
                    return Err(Stop::Permanent);
                }
                for host in hosts() {
                    if self.is_host(host, *ip4_mask, *ip6_mask).await? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Mechanism::Exists { macro_string } => {
                self.asks()?;
                let target = self.target(macro_string, domain);
                let found = self.dns.ipv4_lookup(&target, None::<&NoV4>).await;
                Ok(self.there(found)?.is_some())
            }
            Mechanism::Ptr { macro_string } => {
                self.asks()?;
                let target = self.target(macro_string, domain).to_ascii_lowercase();
                self.is_named(&target).await
            }
        }
    }

    /// Section 5.5: names of the client that lie within the target, and lead back to it. Errors match nothing.
    async fn is_named(&mut self, target: &str) -> Result<bool, Stop> {
        let Ok(names) = self.dns.ptr_lookup(self.address, None::<&NoPtr>).await else { return Ok(false) };
        for name in names.rrset.iter().take(HOSTS) {
            let own = name.trim_end_matches('.').to_ascii_lowercase();
            let below = own.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            if below && self.is_host(name, u32::MAX, u128::MAX).await.unwrap_or(false) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the client has one of a host's addresses, as far as the masks go.
    async fn is_host(&mut self, host: &str, four: u32, six: u128) -> Result<bool, Stop> {
        if self.address.is_ipv4() {
            let found = self.dns.ipv4_lookup(host, None::<&NoV4>).await;
            let found = self.there(found)?;
            Ok(found.is_some_and(|all| all.rrset.iter().any(|one| within_v4(self.address, *one, four))))
        } else {
            let found = self.dns.ipv6_lookup(host, None::<&NoV6>).await;
            let found = self.there(found)?;
            Ok(found.is_some_and(|all| all.rrset.iter().any(|one| within_v6(self.address, *one, six))))
        }
    }

    /// An answer; `None`: there is nothing of that name and type.
    fn there<T>(&mut self, found: mail_auth::Result<T>) -> Result<Option<T>, Stop> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(Error::Dns(DnsError::RecordNotFound(_) | DnsError::InvalidRecordType)) => {
                self.void = self.void.saturating_add(1);
                if self.void > VOID { Err(Stop::Permanent) } else { Ok(None) }
            }
            Err(Error::Dns(DnsError::Resolver(_))) => Err(Stop::Temporary),
            // A name that is none.
            Err(_) => Ok(None),
        }
    }

    /// One more question.
    fn asks(&mut self) -> Result<(), Stop> {
        self.look_ups = self.look_ups.saturating_add(1);
        if self.look_ups > LOOK_UPS { Err(Stop::Permanent) } else { Ok(()) }
    }

    /// The name that a mechanism of `domain`'s record is about.
    fn target(&mut self, pattern: &Macro, domain: &str) -> String {
        self.variables.set_domain(domain.as_bytes().to_vec());
        pattern.eval(&self.variables, domain, true).trim_end_matches('.').to_owned()
    }
}

/// Masks are bits, as mail-auth keeps them.
fn within_v4(address: IpAddr, network: Ipv4Addr, mask: u32) -> bool {
    matches!(address, IpAddr::V4(own) if own.to_bits() & mask == network.to_bits() & mask)
}

fn within_v6(address: IpAddr, network: Ipv6Addr, mask: u128) -> bool {
    matches!(address, IpAddr::V6(own) if own.to_bits() & mask == network.to_bits() & mask)
}

/// Fuzz body: records of SPF, DMARC and DKIM keys as the DNS of strangers has them are read or refused, and the names that an SPF record makes
/// up can be written.
#[doc(hidden)]
pub fn fuzz_sender_records(data: &[u8]) {
    use mail_auth::common::{parse::TxtRecordParser as _, verify::DomainKey};
    let _ = (mail_auth::dmarc::Dmarc::parse(data), DomainKey::parse(data));
    let Ok(record) = Spf::parse(data) else { return };
    let mut variables = Variables::new();
    variables.set_ip(&IpAddr::V6(Ipv6Addr::LOCALHOST));
    variables.set_sender(&b"a.b-c@sub.example"[..]);
    variables.set_helo_domain(&b"helo.example"[..]);
    variables.set_host_domain(&b"us.example"[..]);
    variables.set_validated_domain(&b"unknown"[..]);
    variables.set_domain(&b"sub.example"[..]);
    let patterns = record.directives.iter().filter_map(|directive| match &directive.mechanism {
        Mechanism::All | Mechanism::Ip4 { .. } | Mechanism::Ip6 { .. } => None,
        Mechanism::Include { macro_string }
        | Mechanism::A { macro_string, .. }
        | Mechanism::Mx { macro_string, .. }
        | Mechanism::Exists { macro_string }
        | Mechanism::Ptr { macro_string } => Some(macro_string),
    });
    for pattern in patterns.chain(&record.redirect) {
        let _ = pattern.eval(&variables, "sub.example", true);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fuzz_body_holds(text in "[ -~]{0,80}", octets in prop::collection::vec(any::<u8>(), 0..80)) {
            fuzz_sender_records(&octets);
            for start in ["v=spf1 ", "v=spf1 include:", "v=spf1 exists:%{", "v=DMARC1; ", "v=DKIM1; p="] {
                fuzz_sender_records(format!("{start}{text}").as_bytes());
                fuzz_sender_records(&[start.as_bytes(), &octets].concat());
            }
        }
    }

    #[test]
    fn masks_hold_for_their_own_family() {
        let four = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert!(within_v4(four("192.0.2.7").into(), four("192.0.2.0"), 0xffff_ff00));
        assert!(!within_v4(four("192.0.3.7").into(), four("192.0.2.0"), 0xffff_ff00));
        assert!(!within_v4(Ipv6Addr::LOCALHOST.into(), four("0.0.0.0"), 0));
        assert!(within_v6("2001:db8::1".parse().unwrap(), "2001:db8::".parse().unwrap(), u128::MAX << 96));
        assert!(!within_v6(four("192.0.2.7").into(), Ipv6Addr::UNSPECIFIED, 0));
    }
}

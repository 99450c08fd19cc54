//! SMIMEA records (RFC 8162) over DNSSEC, which is validated here: only secure answers count. What is insecure is no record; what is bogus,
//! or cannot be told, is no answer.

use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::{Found, Stalled};
use crate::address::{Domain, Mailbox};
use crate::config::{Smimea, Source};
use crate::discovery::dnssec;
use crate::discovery::smimea::{Association, names};

/// Asks resolvers.
pub(super) struct Resolver {
    resolver: TokioResolver,
    stalled: Stalled,
}

impl Resolver {
    pub(super) fn new(settings: &Smimea, timeout: Duration) -> Result<Self, String> {
        let resolver = dnssec::resolver(&settings.servers, settings.trust_anchor.as_deref(), timeout)?;
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

    /// The records of a name, where DNSSEC proves them: what an unsigned zone says counts for nothing.
    async fn records(&self, name: &str) -> Result<Vec<(u8, u8, u8, Bytes)>, String> {
        let answer = dnssec::ask(&self.resolver, name, RecordType::SMIMEA).await?;
        let records = answer.records.iter().filter(|_| answer.secure).filter_map(|data| match data {
            RData::SMIMEA(smimea) => {
                let tlsa = &smimea.0;
                let data = Bytes::copy_from_slice(&tlsa.cert_data);
                Some((tlsa.cert_usage.into(), tlsa.selector.into(), tlsa.matching.into(), data))
            }
            _ => None,
        });
        Ok(records.collect())
    }
}

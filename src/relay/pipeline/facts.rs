//! Look-ups: what the store and the paths say of a signer or a recipient. Local memory only.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quick_cache::sync::Cache;

use super::paths::SignerPaths;
use crate::address::{Domain, Mailbox, ReversePath};
use crate::cms::algorithm::ContentEncryption;
use crate::cms::signed::CertificateIds;
use crate::config::{Certificates, Fetch};
use crate::discovery::sources::{Told, is_dane, stands_alone};
use crate::mime::entity::{Entity, MimeLimits};
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::path::{PathLimits, TrustSet, ValidPath, validate};
use crate::pki::revocation::{self, Demand, Evidence, Need, Status};
use crate::policy::{Candidate, Known, MaySign, SignWith, TrustState};
use crate::relay::fetch::Fetcher;
use crate::relay::listen::Peer;
use crate::relay::refusal::Refusal;
use crate::smime::open::{OpenContext, OwnKey, envelope};
use crate::store::{CertStore, CertificateRecord, Identity, Owner, StoreError};

/// Paths kept at most.
const PATHS: usize = 50_000;
/// A failure is looked at again after this: time alone may mend it.
const FAILURE_HOLDS: Duration = Duration::from_secs(60);

/// What a path result depends on, beside the time.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PathKey {
    leaf: [u8; 32],
    trust: u64,
    purpose: Purpose,
    domain: Box<str>,
}

#[derive(Clone)]
struct PathEntry {
    result: Result<ValidPath, String>,
    from: Timestamp,
    until: Timestamp,
}

/// Validated paths, by leaf, purpose, domain and generation of the trust set; bounded, each with its expiry.
struct PathCache {
    cache: Cache<PathKey, PathEntry>,
    limits: PathLimits,
}

impl PathCache {
    fn new(limits: PathLimits) -> Self {
        Self { cache: Cache::new(PATHS), limits }
    }

    fn path(
        &self,
        leaf: &Certificate,
        trust: &TrustSet,
        purpose: Purpose,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<ValidPath, String> {
        let key =
            PathKey { leaf: leaf.fingerprint(), trust: trust.generation, purpose, domain: domain.as_str().into() };
        if let Some(entry) = self.cache.get(&key)
            && (entry.from..=entry.until).contains(&now)
        {
            return entry.result;
        }
        let result =
            validate(leaf, &[], trust, purpose, Some(domain), now, &self.limits).map_err(|error| error.to_string());
        let until = match &result {
            Ok(path) => path.not_after(),
            Err(_) => now.checked_add(FAILURE_HOLDS).unwrap_or(now),
        };
        self.cache.insert(key, PathEntry { result: result.clone(), from: now, until });
        result
    }
}

/// What certificates are looked at for.
struct Look<'l> {
    paths: &'l PathCache,
    trust: &'l TrustSet,
    purpose: Purpose,
    /// Whose domain the anchor must be allowed to vouch for.
    domain: &'l Domain,
    now: Timestamp,
    /// DANE-EE records stand for certificates without a path.
    dane: bool,
}

impl Look<'_> {
    fn candidate(&self, record: &CertificateRecord, names_owner: bool, of_domain: bool) -> Candidate {
        let path = self.paths.path(&record.certificate, self.trust, self.purpose, self.domain, self.now);
        // A DANE-EE record stands for it, and such are believed here: what else is asked of it is asked.
        let path = match path {
            Err(_) if self.dane && self.purpose == Purpose::Encryption && is_dane(record) => {
                stands_alone(&record.certificate, self.domain, self.now, &self.paths.limits)
                    .map_err(|error| error.to_string())
            }
            path => path,
        };
        Candidate {
            certificate: record.certificate.clone(),
            trust: record.trust,
            key: record.key,
            path,
            names_owner,
            domain: of_domain,
            preferred: record.preferred,
            capabilities: record.reads(),
            origin: record.origin(),
        }
    }
}

/// What the store knows, and the paths found in it. It answers the gateway, and those who explain what the gateway does.
pub struct Lookup {
    store: Arc<dyn CertStore>,
    paths: PathCache,
    signers: Arc<SignerPaths>,
    fetcher: Arc<Fetcher>,
    limits: PathLimits,
    /// emailAddress in the subject counts.
    in_subject: bool,
    /// DANE-EE records stand for certificates without a path.
    dane: bool,
}

impl Lookup {
    pub fn new(store: Arc<dyn CertStore>, fetch: Fetch, certificates: &Certificates, dane: bool) -> Self {
        let limits = PathLimits { policies: certificates.policies.clone(), ..PathLimits::default() };
        Self {
            store,
            paths: PathCache::new(limits.clone()),
            signers: Arc::new(SignerPaths::new(limits.clone())),
            fetcher: Arc::new(Fetcher::new(fetch)),
            limits,
            in_subject: certificates.email_in_subject,
            dane,
        }
    }

    /// What opening a mail depends on, as configured: with what was fetched, and the paths found before.
    pub fn context(&self, keys: Vec<OwnKey>, trust: Arc<TrustSet>, revocation: Demand, at: Timestamp) -> OpenContext {
        OpenContext {
            path: self.limits.clone(),
            email_in_subject: self.in_subject,
            revocation,
            evidence: self.fetcher.clone(),
            paths: Some(self.signers.clone()),
            ..OpenContext::new(keys, trust, at)
        }
    }

    /// The same store, with other bounds on what is fetched, and something else asked of certificates.
    pub fn renewed(&self, fetch: Fetch, certificates: &Certificates, dane: bool) -> Self {
        Self::new(self.store.clone(), fetch, certificates, dane)
    }

    /// CRLs and OCSP responses.
    pub fn fetcher(&self) -> &Arc<Fetcher> {
        &self.fetcher
    }

    /// What is known, with the paths that revocation breaks as `demand` says; what would tell more goes to `needs`. Where nothing is
    /// known to be good and something may be, it is not known what to use.
    pub fn unrevoked(&self, known: Known, demand: Demand, now: Timestamp, needs: &mut Vec<Need>) -> Known {
        let Known::Candidates(mut candidates) = known else { return known };
        if demand == Demand::Off {
            return Known::Candidates(candidates);
        }
        let Ok(trust) = self.store.trust() else {
            return Known::Unknown("the certificate store cannot be read".into());
        };
        let mut unknown = None;
        for candidate in &mut candidates {
            let Ok(path) = &candidate.path else { continue };
            if !matches!(candidate.trust, TrustState::Pinned | TrustState::Trusted) {
                continue;
            }
            let nothing = Evidence::default();
            let judged = revocation::check(path, self.fetcher.as_ref(), &nothing, &[], &trust, now, &self.limits);
            needs.extend(judged.needs);
            let Some(why) = demand.refuses(&judged.status) else { continue };
            if matches!(judged.status, Status::Unknown { .. }) {
                unknown.get_or_insert_with(|| why.clone());
            }
            candidate.path = Err(why);
        }
        match unknown {
            Some(why) if candidates.iter().all(|candidate| candidate.path.is_err()) => Known::Unknown(why),
            _ => Known::Candidates(candidates),
        }
    }

    /// Anchors and intermediates.
    pub fn trust(&self) -> Result<Arc<TrustSet>, StoreError> {
        self.store.trust()
    }

    /// Nothing was ever stored under this address, and it is nobody's alias.
    pub fn is_unknown(&self, mailbox: &Mailbox) -> bool {
        let own = |identity: &Identity| identity.owner == Owner::Mailbox(mailbox.key());
        self.store.identity(mailbox).is_ok_and(|identity| identity.generation == 0 && own(&identity))
    }

    /// What is known of a recipient: his own certificates, and those of his domain.
    pub fn recipient(&self, mailbox: &Mailbox, with_domain: bool, now: Timestamp) -> Known {
        let looked_up = || -> Result<Known, StoreError> {
            let identity = self.store.identity(mailbox)?;
            if identity.disabled {
                return Ok(Known::Disabled);
            }
            let trust = self.store.trust()?;
            let domain = mailbox.domain();
            let look =
                Look { paths: &self.paths, trust: &trust, purpose: Purpose::Encryption, domain, now, dane: self.dane };
            let own = identity.certificates.iter();
            let mut candidates: Vec<_> =
                own.map(|record| look.candidate(record, self.names(&identity, record, mailbox), false)).collect();
            if with_domain {
                let identity = self.store.domain_identity(domain)?;
                candidates.extend(identity.certificates.iter().map(|record| {
                    let candidate =
                        look.candidate(record, record.certificate.is_for_domain(domain, look.purpose), true);
                    // There, and not to be used: absent, it would let `prefer` fall to clear.
                    if identity.disabled { Candidate { trust: TrustState::Blocked, ..candidate } } else { candidate }
                }));
            }
            Ok(Known::Candidates(candidates))
        };
        looked_up().unwrap_or_else(|error| {
            tracing::error!(%error, %mailbox, "the store cannot be read");
            Known::Unknown("the certificate store cannot be read".into())
        })
    }

    /// What sources told of a recipient, beside what is stored: certificates that may not be used, each with why, and those that would be
    /// stored.
    pub fn told(&self, told: &Told, mailbox: &Mailbox, now: Timestamp) -> Vec<Candidate> {
        let (Ok(trust), domain) = (self.store.trust(), mailbox.domain()) else { return Vec::new() };
        let look =
            Look { paths: &self.paths, trust: &trust, purpose: Purpose::Encryption, domain, now, dane: self.dane };
        let unusable = told
            .unusable
            .iter()
            .map(|(record, why)| Candidate { path: Err(why.clone()), ..look.candidate(record, true, false) });
        let would = told.would_store.iter().map(|record| look.candidate(record, true, false));
        unusable.chain(would).collect()
    }

    /// What is known of the keys that may sign for the author. His own certificate must hold the very address in From: receivers
    /// compare; a domain's must name the domain.
    pub fn signer(&self, from: &Mailbox, with: SignWith, now: Timestamp) -> Known {
        let looked_up = || -> Result<Known, StoreError> {
            let identity = self.store.identity(from)?;
            // Whose own key may not sign, nobody signs for.
            if identity.disabled {
                return Ok(Known::Disabled);
            }
            let (trust, key, domain) = (self.store.trust()?, from.key(), from.domain());
            let look =
                Look { paths: &self.paths, trust: &trust, purpose: Purpose::Signature, domain, now, dane: self.dane };
            let with_key = |identity: &Identity| -> Vec<CertificateRecord> {
                identity.certificates.iter().filter(|record| record.key.is_some()).cloned().collect()
            };
            let mut candidates = Vec::new();
            if with != SignWith::Domain {
                let own = with_key(&identity);
                candidates.extend(
                    own.iter().map(|one| look.candidate(one, one.certificate.names(&key, self.in_subject), false)),
                );
            }
            if with != SignWith::Author {
                let identity = self.store.domain_identity(domain)?;
                if identity.disabled {
                    return Ok(if candidates.is_empty() { Known::Disabled } else { Known::Candidates(candidates) });
                }
                let names = |one: &CertificateRecord| one.certificate.is_for_domain(domain, Purpose::Signature);
                candidates.extend(with_key(&identity).iter().map(|one| look.candidate(one, names(one), true)));
            }
            Ok(Known::Candidates(candidates))
        };
        looked_up().unwrap_or_else(|error| {
            tracing::error!(%error, mailbox = %from, "the store cannot be read");
            Known::Unknown("the certificate store cannot be read".into())
        })
    }

    /// The certificate names the address, or the mailbox that the address is an alias of.
    fn names(&self, identity: &Identity, record: &CertificateRecord, mailbox: &Mailbox) -> bool {
        let by_alias = match &identity.owner {
            Owner::Mailbox(owner) => record.certificate.names(owner, self.in_subject),
            Owner::Domain(_) => false,
        };
        by_alias || record.certificate.names(&mailbox.key(), self.in_subject)
    }

    /// Where the author's mail is to be encrypted to, when the signing certificate cannot serve for that.
    pub fn encryption_certificate(&self, from: &Mailbox, signer: &Certificate, now: Timestamp) -> Option<Certificate> {
        if signer.fits(Purpose::Encryption).is_ok() {
            return None;
        }
        let identity = self.store.identity(from).ok()?;
        let usable = identity.certificates.iter().filter(|record| {
            let certificate = &record.certificate;
            record.key.is_some()
                && matches!(record.trust, TrustState::Pinned | TrustState::Trusted)
                && (certificate.not_before()..=certificate.not_after()).contains(&now)
                && certificate.fits(Purpose::Encryption).is_ok()
        });
        usable
            .max_by_key(|record| (record.trust == TrustState::Pinned, record.certificate.not_before()))
            .map(|record| record.certificate.clone())
    }

    /// What an administrator said that the owner of this certificate of ours can read: where it is not this gateway that opens his mail.
    pub fn said_to_read(&self, from: &Mailbox, certificate: &Certificate) -> Option<Vec<ContentEncryption>> {
        let identity = self.store.identity(from).ok()?;
        let record = identity.certificates.iter().find(|record| record.certificate == *certificate)?;
        record.capabilities.as_ref().map(|known| known.content.clone())
    }

    /// Whether the message may be signed with its author's key (A31).
    pub fn may_sign(
        &self,
        peer: &Peer,
        reverse_path: &ReversePath,
        from: Result<&Mailbox, &str>,
        signed: bool,
    ) -> MaySign {
        if signed {
            return MaySign::NotNeeded("already signed".into());
        }
        if *reverse_path == ReversePath::Null {
            return MaySign::NotNeeded("a notification is not signed with a user's key".into());
        }
        let from = match from {
            Ok(from) => from,
            Err(why) => return MaySign::No(format!("there is no single author: {why}")),
        };
        let senders = &peer.listener.senders;
        if !senders.is_empty() && !senders.contains(from.domain()) {
            return MaySign::No(format!("<{from}> is of no domain in `senders` of listener {}", peer.listener.name));
        }
        match &peer.user {
            None if peer.trusted => MaySign::Yes,
            None => MaySign::No("the peer is not trusted".into()),
            Some(user) if peer.sends_as.iter().any(|own| own.key() == from.key()) || self.owns(user, from) => {
                MaySign::Yes
            }
            Some(_) => MaySign::No(format!("<{from}> is no address of the authenticated user")),
        }
    }

    /// Whether the address belongs to the authenticated user's mailbox.
    fn owns(&self, user: &str, address: &Mailbox) -> bool {
        let Ok(user) = Mailbox::parse(user) else { return false };
        if user.key() == address.key() {
            return true;
        }
        match (self.store.identity(&user), self.store.identity(address)) {
            (Ok(user), Ok(address)) => user.owner == address.owner,
            _ => false,
        }
    }

    /// The keys that may open this recipient's copy, and nobody else's (A30). A disabled owner's old mail stays readable.
    pub fn own_keys(&self, recipient: &Mailbox, with_domain: bool) -> Result<Vec<OwnKey>, StoreError> {
        let mut keys = own(&self.store.identity(recipient)?);
        if with_domain {
            keys.extend(own(&self.store.domain_identity(recipient.domain())?));
        }
        Ok(keys)
    }

    /// Whether the message is encrypted in the strict sense of A32: it parses, nothing weak, and every envelope recipient has a
    /// RecipientInfo that names a certificate of his own.
    pub fn strictly_encrypted(
        &self,
        entity: &Entity,
        recipients: &[&Mailbox],
    ) -> Result<Option<StrictlyEncrypted>, Refusal> {
        let Some(envelope) = envelope(entity, &MimeLimits::default(), Default::default()) else { return Ok(None) };
        // What follows the envelope would leave as it is.
        if recipients.is_empty() || !envelope.odd.is_empty() {
            return Ok(None);
        }
        let ids: CertificateIds<'_> = envelope.recipients.iter().filter_map(|info| info.id.as_ref()).collect();
        for recipient in recipients {
            let unreadable = |error: StoreError| {
                tracing::error!(%error, mailbox = %recipient, "the store cannot be read");
                Refusal::Store
            };
            let own = self.store.identity(recipient).map_err(unreadable)?;
            let domain = self.store.domain_identity(recipient.domain()).map_err(unreadable)?;
            let named = own
                .certificates
                .iter()
                .chain(&domain.certificates)
                .filter(|record| matches!(record.trust, TrustState::Pinned | TrustState::Trusted))
                .any(|record| ids.name(&record.certificate));
            if !named {
                return Ok(None);
            }
        }
        Ok(Some(StrictlyEncrypted { content: envelope.content }))
    }
}

/// Proof that a message was encrypted for each of its envelope recipients before it came (A32): made here alone.
#[derive(Debug, Clone, Copy)]
pub struct StrictlyEncrypted {
    content: crate::cms::algorithm::ContentEncryption,
}

impl StrictlyEncrypted {
    /// Its cipher: the rule's profile must allow it.
    pub fn content(&self) -> crate::cms::algorithm::ContentEncryption {
        self.content
    }
}

fn own(identity: &Arc<Identity>) -> Vec<OwnKey> {
    let with_key = identity.certificates.iter().filter_map(|record| record.key.map(|key| (record, key)));
    with_key.map(|(record, key)| OwnKey { certificate: record.certificate.clone(), key }).collect()
}

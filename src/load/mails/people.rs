//! Who writes and reads: addresses given, a population made for the run or kept in a folder, or the people of a Waxwing store.

/// A population in a folder: what other gateways import.
mod folder;
/// The people of a Waxwing store.
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::Progress;
use crate::address::{Domain, Mailbox};
use crate::keys::SoftwareKey;
use crate::load::scenario::{self, Kind, Scenario};
use crate::pki::authority::{Issued, NewKey, Recipe, issue};
use crate::pki::certificate::Certificate;
use crate::pki::path::{AnchorScope, TrustAnchor, TrustSet};

/// Domains of a population where none are named, under the reserved domain `example` (RFC 2606).
pub const DOMAINS: (&str, &str) = ("ours.load.example", "partner.load.example");
/// People without a certificate.
const STRANGERS: usize = 20;

/// Somebody with an address, and what is known of his keys.
#[derive(Clone)]
pub struct Person {
    /// The address.
    pub mailbox: Mailbox,
    /// To encrypt to him, and to sign in his name.
    pub certificate: Option<Certificate>,
    /// His private key, where the lab has it.
    pub(in crate::load) key: Option<SoftwareKey>,
    /// The same as PKCS#8.
    pkcs8: Option<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.mailbox, if self.key.is_some() { "with key" } else { "without key" })
    }
}

impl Person {
    fn without_keys(mailbox: Mailbox) -> Self {
        Self { mailbox, certificate: None, key: None, pkcs8: None }
    }

    fn new(mailbox: Mailbox, certificate: Certificate, pkcs8: Option<Zeroizing<Vec<u8>>>) -> Result<Self, String> {
        let key = pkcs8.as_ref().map(|pkcs8| SoftwareKey::from_pkcs8(pkcs8)).transpose();
        let key = key.map_err(|error| format!("the key of {mailbox}: {error}"))?;
        Ok(Self { mailbox, certificate: Some(certificate), key, pkcs8 })
    }

    /// The private key (PKCS#8), for a store.
    pub fn pkcs8(&self) -> Option<&Zeroizing<Vec<u8>>> {
        self.pkcs8.as_ref()
    }
}

/// Everybody.
#[derive(Debug)]
pub struct People {
    /// Behind the gateway: it has their private keys.
    pub ours: Vec<Person>,
    /// The world: the gateway has their certificates alone.
    pub theirs: Vec<Person>,
    /// In the world, without a certificate.
    strangers: Vec<Person>,
    /// The same where they may be written to in clear.
    clear: Vec<Person>,
    /// Somebody whose key nobody has.
    nobody: Option<Person>,
    /// Whom the lab believes.
    pub trust: Arc<TrustSet>,
    /// Addresses were given: `ours` write, `theirs` read.
    named: bool,
}

impl People {
    /// Those of a scenario; blocking, since keys are made. `progress` hears of it.
    pub fn new(scenario: &Scenario, progress: &Progress<'_>) -> Result<Self, String> {
        match &scenario.people {
            scenario::People::Named { from, to } => Self::named(from, to),
            scenario::People::Made { count, keys } => {
                let domain = |text| Domain::parse(text).map_err(|error| error.to_string());
                Self::made(*count, keys, &domain(DOMAINS.0)?, &domain(DOMAINS.1)?, progress)
            }
            scenario::People::Store(file) => store::people(file),
            scenario::People::Folder(folder) => folder::read(folder, progress),
        }
        .and_then(|people| people.with_nobody(scenario))
    }

    fn named(from: &[String], to: &[String]) -> Result<Self, String> {
        let person = |text: &String| Mailbox::parse(text).map(Person::without_keys).map_err(|error| error.to_string());
        let all = |list: &[String]| list.iter().map(person).collect::<Result<Vec<_>, _>>();
        let named = Self { named: true, ..Self::of(all(from)?, all(to)?, Vec::new(), None)? };
        Ok(named)
    }

    /// A population with keys of these kinds in turn, half of each side's with each; keys are made on all processors.
    pub fn made(
        count: u32,
        keys: &[String],
        ours: &Domain,
        theirs: &Domain,
        progress: &Progress<'_>,
    ) -> Result<Self, String> {
        let kinds = keys.iter().map(|key| new_key(key)).collect::<Result<Vec<_>, _>>()?;
        let authority = issue(&Recipe::authority("Load Lab Authority", Timestamp::now(), NewKey::P256), None);
        let mut wanted = Vec::new();
        for domain in [ours, theirs] {
            for (number, (kind, name)) in (1..=count).zip(kinds.iter().zip(keys).cycle()) {
                let mailbox = Mailbox::new(&format!("{name}.{number:02}"), domain.clone());
                wanted.push((mailbox.map_err(|error| error.to_string())?, *kind));
            }
        }
        let mut made =
            in_parallel(&wanted, "making keys", progress, |(mailbox, kind)| person(mailbox, *kind, &authority))?;
        let others = made.split_off(made.len() / 2);
        let clear = Domain::parse(&format!("clear.{theirs}")).map_err(|error| error.to_string())?;
        Self::of(made, others, vec![authority.certificate], Some(clear))
    }

    fn of(
        ours: Vec<Person>,
        theirs: Vec<Person>,
        anchors: Vec<Certificate>,
        clear: Option<Domain>,
    ) -> Result<Self, String> {
        let domain =
            theirs.first().map(|person| person.mailbox.domain().clone()).ok_or("there is nobody to write to")?;
        let strangers = |domain: &Domain| -> Result<Vec<Person>, String> {
            let one = |number| Mailbox::new(&format!("nobody.{number:02}"), domain.clone());
            (1..=STRANGERS)
                .map(|number| one(number).map(Person::without_keys).map_err(|error| error.to_string()))
                .collect()
        };
        let anchors =
            anchors.into_iter().map(|certificate| TrustAnchor { certificate, scope: AnchorScope::Global }).collect();
        Ok(Self {
            strangers: strangers(&domain)?,
            clear: strangers(clear.as_ref().unwrap_or(&domain))?,
            ours,
            theirs,
            nobody: None,
            trust: Arc::new(TrustSet { anchors, intermediates: Vec::new(), generation: 1 }),
            named: false,
        })
    }

    /// Where mails are sealed with the wrong key, somebody is needed who has it.
    fn with_nobody(mut self, scenario: &Scenario) -> Result<Self, String> {
        if scenario.mix.iter().any(|(_, kind)| *kind == Kind::WrongKey) {
            let mailbox = Mailbox::parse("nobody@load.example").map_err(|error| error.to_string())?;
            let authority = issue(&Recipe::authority("Load Lab Nobody", Timestamp::now(), NewKey::P256), None);
            self.nobody = Some(person(&mailbox, NewKey::P256, &authority)?);
        }
        Ok(self)
    }

    /// Who writes mails of a kind, and who reads them. `Err`: the kind cannot be sent with these people.
    pub(in crate::load) fn sides(&self, kind: Kind) -> Result<(&[Person], &[Person]), String> {
        let cannot = |why: &str| Err(format!("{} mails cannot be sent: {why}", kind.name()));
        let sides = match kind {
            Kind::ToSeal => (&self.ours, &self.theirs),
            Kind::UnknownRecipient { refused: true } => (&self.ours, &self.strangers),
            Kind::UnknownRecipient { refused: false } => (&self.ours, &self.clear),
            Kind::Plain if self.named => (&self.ours, &self.theirs),
            Kind::Plain => (&self.theirs, &self.ours),
            _ if self.named => {
                return cannot("addresses alone have no keys: say people made = …, a folder or a store");
            }
            Kind::Signed if self.theirs.iter().all(|person| person.key.is_none()) => {
                return cannot("the private key of nobody outside our domains is there to sign with");
            }
            Kind::Sealed | Kind::Signed | Kind::Tampered | Kind::WrongKey => (&self.theirs, &self.ours),
        };
        Ok((sides.0.as_slice(), sides.1.as_slice()))
    }

    /// Somebody whose key nobody has.
    pub(in crate::load) fn nobody(&self) -> Option<&Person> {
        self.nobody.as_ref()
    }

    /// Whether reports to the senders of a kind come back to the side where our sink is.
    pub(in crate::load) fn hears_bounces(&self, kind: Kind) -> bool {
        !self.named && matches!(kind, Kind::ToSeal | Kind::UnknownRecipient { .. })
    }

    /// The lab's own CAs, for a gateway that is to believe them.
    pub fn anchors(&self) -> impl Iterator<Item = &Certificate> {
        self.trust.anchors.iter().map(|anchor| &anchor.certificate)
    }

    /// Domains of ours, each once.
    pub fn our_domains(&self) -> Vec<&Domain> {
        let mut domains: Vec<&Domain> = self.ours.iter().map(|person| person.mailbox.domain()).collect();
        domains.sort_by_key(|domain| domain.as_str());
        domains.dedup();
        domains
    }

    /// Domains of those who may be written to in clear.
    pub fn clear_domains(&self) -> Vec<&Domain> {
        let mut domains: Vec<&Domain> = self.clear.iter().map(|person| person.mailbox.domain()).collect();
        domains.dedup();
        domains
    }

    /// Writes them out for import, with a page that says what is what.
    pub fn write(&self, folder: &Path, progress: &Progress<'_>) -> Result<(), String> {
        folder::write(self, folder, progress)
    }
}

/// A key type of a scenario.
fn new_key(name: &str) -> Result<NewKey, String> {
    match name {
        "rsa2048" => Ok(NewKey::Rsa2048),
        "rsa3072" => Ok(NewKey::Rsa3072),
        "rsa4096" => Ok(NewKey::Rsa4096),
        "p256" => Ok(NewKey::P256),
        _ => Err(format!("{name:?} is no key type: rsa2048, rsa3072, rsa4096 or p256")),
    }
}

fn person(mailbox: &Mailbox, kind: NewKey, authority: &Issued) -> Result<Person, String> {
    let issued = issue(&Recipe::mailbox(&mailbox.to_string(), Timestamp::now(), kind), Some(authority));
    Person::new(mailbox.clone(), issued.certificate, Some(issued.pkcs8))
}

/// Does work for each of a list on all processors; results in the list's order.
pub(super) fn in_parallel<T: Sync, R: Send>(
    list: &[T],
    what: &str,
    progress: &Progress<'_>,
    work: impl Fn(&T) -> Result<R, String> + Sync,
) -> Result<Vec<R>, String> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let one_thread = || {
        let mut results = Vec::new();
        while let Some((at, item)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, list.get(at)?)))
        {
            results.push((at, work(item)));
            progress(what, done.fetch_add(1, Ordering::Relaxed) + 1, list.len());
        }
        results
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(list.len());
    let mut results = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one_thread)).collect();
        let joined = running.into_iter().map(|thread| thread.join().map_err(|_| format!("{what}: a thread fell over")));
        joined.collect::<Result<Vec<_>, _>>()
    })?
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

//! What a mail of a kind has to look like when it arrives, and what it is called where it does not. P.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::arrival::Arrival;
use crate::cms::algorithm::Legacy;
use crate::keys::{Cek, KeyError};
use crate::load::ledger::FaultKind;
use crate::load::mails::parts::{difference, parts};
use crate::load::mails::people::Person;
use crate::load::mails::{Mails, Plan};
use crate::load::scenario::Kind;
use crate::mime::entity::{Entity, MimeLimits};
use crate::pki::path::TrustSet;
use crate::smime::open::{OpenContext, Opened, Opener, OwnKey, Step, envelope};
use crate::smime::verdict::{Layer, SmimeResult};

/// What is wrong with an arrival.
pub(super) type Wrong = (FaultKind, Cow<'static, str>);

/// What an arrival is looked at with.
pub(super) struct Judge<'m> {
    pub(super) mails: &'m Mails,
    pub(super) plan: &'m Plan<'m>,
    pub(super) number: u64,
    /// Whether a good signature must be called one.
    pub(super) verdict: bool,
}

impl Judge<'_> {
    /// What can be told without a private key, the worst of it; cheap for what arrives as it was sent.
    pub(super) fn judge(&self, arrival: &Arrival) -> Option<Wrong> {
        let kind = self.plan.kind;
        let proven = matches!(kind, Kind::Sealed | Kind::Signed) && self.plan.is_signed();
        if arrival.passes && !proven {
            return Some((FaultKind::FalselyValid, "marked smime=pass, and nothing proves it".into()));
        }
        match kind {
            Kind::Plain | Kind::UnknownRecipient { refused: false } => self.same(arrival),
            Kind::ToSeal | Kind::UnknownRecipient { refused: true } => self.hidden(arrival),
            Kind::Sealed | Kind::Signed => self.opened(arrival).or_else(|| {
                let missing = proven && self.verdict && !arrival.passes;
                missing.then_some((FaultKind::NotOpened, "well signed, and not marked smime=pass".into()))
            }),
            // However it came, it is not called valid.
            Kind::Tampered => None,
            Kind::WrongKey => self.untouched(arrival),
        }
    }

    /// The content that was sent, whatever its encoding is now.
    fn same(&self, arrival: &Arrival) -> Option<Wrong> {
        if self.mails.is_body(self.plan, self.number, arrival.body()) {
            return None;
        }
        altered(&arrival.content, &self.mails.entity(self.plan, self.number))
    }

    /// Encrypted, and nowhere readable.
    fn hidden(&self, arrival: &Arrival) -> Option<Wrong> {
        let limits = MimeLimits::default();
        let entity = Entity::parse(arrival.content.clone(), &limits).ok();
        let sealed = entity.as_ref().is_some_and(|entity| envelope(entity, &limits, Legacy::default()).is_some());
        if !sealed {
            return Some((FaultKind::InClear, "it is not encrypted".into()));
        }
        let canary = self.mails.canary().as_bytes();
        let inside = entity.and_then(|entity| entity.decoded_body().ok()).unwrap_or_default();
        let readable = [&arrival.content, &inside].iter().any(|octets| memchr::memmem::find(octets, canary).is_some());
        readable.then_some((FaultKind::InClear, "a line of its body can be read beside the encryption".into()))
    }

    /// No longer encrypted, and what was sealed or signed.
    fn opened(&self, arrival: &Arrival) -> Option<Wrong> {
        let limits = MimeLimits::default();
        let Ok(entity) = Entity::parse(arrival.content.clone(), &limits) else {
            return Some((FaultKind::Altered, "its header cannot be read".into()));
        };
        if self.plan.kind == Kind::Sealed && envelope(&entity, &limits, Legacy::default()).is_some() {
            return Some((FaultKind::NotOpened, "it is still encrypted".into()));
        }
        altered(&arrival.content, &self.mails.entity(self.plan, self.number))
    }

    /// Sealed for somebody else: the very same object.
    fn untouched(&self, arrival: &Arrival) -> Option<Wrong> {
        if memchr::memmem::find(&arrival.content, self.mails.canary().as_bytes()).is_some() {
            return Some((FaultKind::InClear, "sealed for somebody else, and it can be read".into()));
        }
        let limits = MimeLimits::default();
        let body = |octets: &Bytes| Entity::parse(octets.clone(), &limits).and_then(|entity| entity.decoded_body());
        let sent = self.plan.sealed().map(body);
        match (sent, body(&arrival.content)) {
            (Some(Ok(sent)), Ok(came)) if sent == came => None,
            _ => Some((FaultKind::Altered, "sealed for somebody else, and not as it was sent".into())),
        }
    }

    /// Opens what arrived sealed with a recipient's own key. `None`: it is what was sent, well signed if it is signed.
    pub(super) fn open(&self, content: &Bytes, reader: &Person, trust: &Arc<TrustSet>) -> Option<Wrong> {
        let opened = match open(content, reader, trust)? {
            Ok(opened) => opened,
            Err(why) => return Some((FaultKind::Altered, why.into())),
        };
        if !opened.verdict.decrypted {
            return Some((
                FaultKind::Altered,
                format!("its recipient cannot open it: {}", opened.verdict.reason).into(),
            ));
        }
        let signers = opened.verdict.layers.iter().filter_map(|layer| match layer {
            Layer::Signed { signers, .. } => Some(signers),
            _ => None,
        });
        if let Some(why) = signers.flatten().find_map(|signer| signer.signature.as_ref().err()) {
            return Some((FaultKind::Altered, format!("opened, its signature is not good: {why}").into()));
        }
        if opened.verdict.result == SmimeResult::PermError {
            return Some((FaultKind::Altered, format!("opened, and broken: {}", opened.verdict.reason).into()));
        }
        altered(&opened.message, &self.mails.entity(self.plan, self.number))
    }
}

/// In what the parts of a mail differ from those of an entity.
fn altered(content: &Bytes, expected: &Bytes) -> Option<Wrong> {
    let limits = MimeLimits::default();
    let read = |octets: &Bytes| Entity::parse(octets.clone(), &limits).and_then(|entity| parts(&entity, &limits));
    match (read(expected), read(content)) {
        (Ok(expected), Ok(found)) => difference(&expected, &found).map(|why| (FaultKind::Altered, why.into())),
        (_, Err(error)) => Some((FaultKind::Altered, format!("its parts cannot be read: {error}").into())),
        // Not reached: what cannot be read is not sent.
        (Err(error), _) => Some((FaultKind::Altered, format!("what was sent cannot be read: {error}").into())),
    }
}

/// `None`: the lab has no key of this reader.
fn open(content: &Bytes, reader: &Person, trust: &Arc<TrustSet>) -> Option<Result<Box<Opened>, String>> {
    let (key, certificate) = (reader.key.as_ref()?, reader.certificate.as_ref()?);
    let entity = match Entity::parse(content.clone(), &MimeLimits::default()) {
        Ok(entity) => entity,
        Err(error) => return Some(Err(error.to_string())),
    };
    let own = OwnKey { certificate: certificate.clone(), key: key.id() };
    let mut opener = Opener::new(entity, OpenContext::new(vec![own], Arc::clone(trust), Timestamp::now()), substitute);
    let mut answer = None;
    loop {
        match opener.step(answer.take()) {
            Step::Done(opened) => return Some(Ok(opened)),
            Step::Key(operation) if operation.key() == key.id() => answer = Some(key.perform(&operation)),
            Step::Key(_) => answer = Some(Err(KeyError::Unknown)),
        }
    }
}

/// What a CEK that does not unwrap is replaced by. Nobody learns anything of a load test's keys: any will do.
fn substitute() -> Cek {
    Cek::new(vec![0; 32])
}

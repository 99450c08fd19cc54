//! Mails sealed ahead of time by the project's own `smime::seal`: a pool for each kind, from which a run draws again and again, so that no
//! private or public key operation bounds the generator.

use bytes::Bytes;
use jiff::Timestamp;

use super::contents::{Pool, Template};
use super::people::{People, Person, in_parallel};
use super::{Progress, drawn_readers, mark};
use crate::cms::enveloped::RecipientScheme;
use crate::load::random::Random;
use crate::load::scenario::{Kind, Scenario};
use crate::mime::entity::{Entity, MimeLimits};
use crate::policy::Profile;
use crate::smime::seal::{Draft, EncryptPlan, Form, SealError, SignPlan};

/// Mails of one kind, at most.
const POOL: usize = 128;
/// Octets of what is sealed of one kind, at most; one mail there is in any case.
const ROOM: usize = 64 << 20;
/// Octets that multipart/signed puts before what is signed.
const FRAME: usize = 300;

/// A mail sealed ahead of time; only its outer header is still to come.
#[derive(Debug)]
pub(super) struct Ready {
    /// Position among those who write mails of this kind, and of those who read them.
    pub(super) from: usize,
    pub(super) to: Vec<usize>,
    /// From MIME-Version on, as it is sent.
    pub(super) sealed: Bytes,
    /// The entity that was sealed.
    pub(super) inner: Bytes,
    pub(super) signed: bool,
    /// Whether it brings a Subject.
    pub(super) subject: bool,
}

/// What sealing needs.
pub(super) struct Sealing<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) people: &'s People,
    pub(super) pool: &'s Pool,
    pub(super) canary: &'s str,
    pub(super) recipients: (usize, usize),
}

/// One that is to be made.
struct Wanted<'s> {
    number: usize,
    kind: Kind,
    from: usize,
    to: Vec<usize>,
    template: &'s Template,
}

impl Sealing<'_> {
    /// The pools of all kinds of the mix that are sealed when they are sent.
    pub(super) fn all(&self, progress: &Progress<'_>) -> Result<Vec<(Kind, Vec<Ready>)>, String> {
        let profile = Profile::builtin(&self.scenario.profile)
            .ok_or_else(|| format!("there is no profile {:?}", self.scenario.profile))?;
        let mut kinds: Vec<Kind> = Vec::new();
        for (_, kind) in &self.scenario.mix {
            let sealed = matches!(kind, Kind::Sealed | Kind::Signed | Kind::Tampered | Kind::WrongKey);
            if sealed && !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        let mut pools = Vec::new();
        for kind in kinds {
            let wanted = self.wanted(kind)?;
            let what = format!("sealing {} mails", kind.name());
            pools.push((kind, in_parallel(&wanted, &what, progress, |one| self.one(one, &profile))?));
        }
        Ok(pools)
    }

    fn wanted(&self, kind: Kind) -> Result<Vec<Wanted<'_>>, String> {
        let (writers, readers) = self.people.sides(kind)?;
        // Who signs has a key; nobody of a store may have one for what is sealed alone.
        let can: Vec<usize> =
            writers.iter().enumerate().filter(|(_, person)| person.key.is_some()).map(|(at, _)| at).collect();
        let most =
            self.scenario.bound.mails.and_then(|mails| usize::try_from(mails).ok()).unwrap_or(POOL).clamp(1, POOL);
        let mut random = Random::of(self.scenario.seed, u64::MAX - 1);
        let (mut wanted, mut octets) = (Vec::new(), 0_usize);
        for number in 0..most {
            // In turn, so that every content and every key type is there, also of a small pool.
            let template = self
                .pool
                .get(number.wrapping_mul(self.pool.len().div_ceil(most).max(1)))
                .ok_or("there is no content")?;
            octets = octets.saturating_add(template.len(100));
            if number > 0 && octets > ROOM {
                break;
            }
            let from = match can.get(number % can.len().max(1)) {
                Some(from) => *from,
                None => number % writers.len().max(1),
            };
            let to = drawn_readers(&mut random, readers.len(), self.recipients);
            wanted.push(Wanted { number, kind, from, to, template });
        }
        Ok(wanted)
    }

    fn one(&self, wanted: &Wanted<'_>, profile: &Profile) -> Result<Ready, String> {
        let Wanted { number, kind, from, to, template } = wanted;
        let failed = |error: SealError| format!("a {} mail cannot be made: {error}", kind.name());
        let (writers, readers) = self.people.sides(*kind)?;
        let inner = template.entity(&mark(&format!("{}-{number}", kind.name()), self.canary));
        let entity = Entity::parse(inner.clone(), &MimeLimits::default()).map_err(|error| error.to_string())?;
        let draft = Draft::new(&entity).map_err(failed)?;
        let writer = writers.get(*from).ok_or("there is nobody to write")?;
        let draft = signed(draft, writer, profile).map_err(failed)?;
        let (signed, length) = (draft.is_signed(), draft.signed().map_or(inner.len(), |all| all.rope().encoded_len()));
        let sealed = if *kind == Kind::Signed {
            draft.signed()
        } else {
            let nobody = self.people.nobody().into_iter().collect();
            let readers: Vec<&Person> = match kind {
                Kind::WrongKey => nobody,
                _ => to.iter().filter_map(|at| readers.get(*at)).collect(),
            };
            draft.encrypt(&encryption(&readers, profile)?, false)
        };
        let mut sealed = sealed.map_err(failed)?.rope().to_bytes();
        if *kind == Kind::Tampered {
            // From the end, where what is encrypted ends: a signature lies behind the content.
            let behind = length.saturating_sub(inner.len() / 2).saturating_sub(FRAME);
            sealed = tampered(&sealed, behind).ok_or("a sealed mail without a place to tamper with")?;
        }
        Ok(Ready { from: *from, to: to.clone(), sealed, inner, signed, subject: template.has_subject() })
    }
}

fn signed(draft: Draft, writer: &Person, profile: &Profile) -> Result<Draft, SealError> {
    let (Some(key), Some(certificate)) = (&writer.key, &writer.certificate) else { return Ok(draft) };
    let Some(scheme) = profile.signature_scheme(key.public_key()) else { return Ok(draft) };
    let signing = draft.sign(SignPlan {
        key: key.id(),
        certificate: certificate.clone(),
        chain: Vec::new(),
        encryption_certificate: None,
        scheme,
        digest: scheme.digest(),
        form: Form::Clear,
        signing_time: Timestamp::now(),
        capabilities: profile.content.clone(),
        second: None,
    })?;
    let answer = key.perform(&signing.operation())?;
    signing.finish(answer, false)
}

fn encryption(readers: &[&Person], profile: &Profile) -> Result<EncryptPlan, String> {
    let scheme = RecipientScheme { rsa: profile.transport, kdf: profile.kdf };
    let certificate = |person: &&Person| {
        let certificate = person.certificate.clone().ok_or_else(|| format!("{} has no certificate", person.mailbox))?;
        Ok((certificate, scheme))
    };
    let content = profile.content.first().ok_or_else(|| format!("the profile {} names no cipher", profile.name))?;
    let recipients = readers.iter().map(certificate).collect::<Result<_, String>>()?;
    Ok(EncryptPlan { recipients, content: *content, derive_cek: profile.derive_cek })
}

/// One octet changed, so many octets before the end of what base64 carries.
fn tampered(sealed: &Bytes, behind: usize) -> Option<Bytes> {
    let mut octets = Vec::from(sealed.clone());
    let from = octets.len().saturating_sub(behind / 57 * 78);
    let place = octets.get_mut(from..)?.iter_mut().find(|octet| octet.is_ascii_alphanumeric())?;
    *place = if *place == b'A' { b'B' } else { b'A' };
    Some(octets.into())
}

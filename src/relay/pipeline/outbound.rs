//! Out: rules per recipient, groups of equal treatment, one signature per signing plan, one envelope per group.

use std::collections::HashSet;

use bytes::Bytes;
use jiff::Timestamp;

use super::decide::{Decision, Seen, refusal};
use super::facts::StrictlyEncrypted;
use super::quoted;
use super::trace::outbound_edits;
use super::{Content, Inner, KeyPurpose, Message, Output, Treated};
use crate::address::Mailbox;
use crate::cms::algorithm::{ContentEncryption, SignatureScheme};
use crate::cms::enveloped::RecipientScheme;
use crate::config::Direction;
use crate::metrics::{Ruled, Way};
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::MimeError;
use crate::mime::rope::Rope;
use crate::pki::certificate::Certificate;
use crate::policy::{ClearByPolicy, EncryptMode, EncryptTo, Plan, Signer, Treatment};
use crate::relay::refusal::Refusal;
use crate::smime::header_protection::HeaderProtection;
use crate::smime::seal::{CoSigner, Draft, EncryptPlan, Form, SealError, SignPlan};

/// What this gateway can read, best first: announced in SMIMECapabilities where nobody said something else of the mailbox.
const CAPABILITIES: [ContentEncryption; 4] = [
    ContentEncryption::Aes256Gcm,
    ContentEncryption::Aes128Gcm,
    ContentEncryption::Aes256Cbc,
    ContentEncryption::Aes128Cbc,
];

/// What recipients must have in common to share an output.
#[derive(PartialEq, Eq, Clone)]
enum Kind {
    Clear,
    Encrypted,
    Held,
    Protect { sign: Option<SignKey>, encrypt: Option<EncryptHow>, header: Option<HeaderProtection> },
}

/// How a content is encrypted.
#[derive(PartialEq, Eq, Clone, Copy)]
struct EncryptHow {
    content: ContentEncryption,
    derive_cek: bool,
}

/// What an encrypted group's recipients read in common.
#[derive(Default)]
struct Common {
    /// The profile of the first.
    profile: String,
    /// Ciphers that all of them may be sent, best first.
    readable: Vec<ContentEncryption>,
}

/// What outputs must have in common to share a signature.
#[derive(PartialEq, Eq, Clone, Copy)]
struct SignKey {
    certificate: [u8; 32],
    scheme: SignatureScheme,
    /// The same of the second signature.
    second: Option<([u8; 32], SignatureScheme)>,
    form: Form,
    /// Header fields under the signature, and whether it goes into an envelope.
    header: Option<(HeaderProtection, bool)>,
}

/// Recipients of equal treatment.
struct Group {
    kind: Kind,
    recipients: Vec<usize>,
    /// With the way each one's key is managed.
    certificates: Vec<(Certificate, RecipientScheme)>,
    /// Fingerprints of those.
    known: HashSet<[u8; 32]>,
    common: Common,
    signer: Option<Signer>,
    second: Option<Box<Signer>>,
    /// The rule's `encrypt = require` holds for one of them.
    required: bool,
    clear: Option<ClearByPolicy>,
    encrypted: Option<StrictlyEncrypted>,
    held: Option<String>,
    /// A blind copy: nobody joins it.
    alone: bool,
}

impl Group {
    fn new(kind: Kind, recipient: usize, required: bool) -> Self {
        Self {
            kind,
            recipients: vec![recipient],
            certificates: Vec::new(),
            known: HashSet::new(),
            common: Common::default(),
            signer: None,
            second: None,
            required,
            clear: None,
            encrypted: None,
            held: None,
            alone: false,
        }
    }

    /// Whether another's recipients may share its output: all is alike, or all but the cipher, and one profile has one that all of
    /// them read.
    fn takes(&self, other: &Group) -> bool {
        if self.kind == other.kind {
            // Key transport is chosen for each certificate within the profile: another profile may exclude what this one takes.
            return self.common.profile == other.common.profile;
        }
        match (&self.kind, &other.kind) {
            (
                Kind::Protect { sign, encrypt: Some(how), header },
                Kind::Protect { sign: others, encrypt: Some(other_how), header: other_header },
            ) => {
                sign == others
                    && header == other_header
                    && how.derive_cek == other_how.derive_cek
                    && self.common.profile == other.common.profile
                    && self.common.readable.iter().any(|content| other.common.readable.contains(content))
            }
            _ => false,
        }
    }

    /// Whether others than the recipients can read what leaves (A33).
    fn leaves_readable(&self) -> bool {
        matches!(self.kind, Kind::Clear | Kind::Protect { encrypt: None, .. })
    }
}

/// What rules found out, for all recipients.
#[derive(Default)]
struct Sorted<'p> {
    groups: Vec<Group>,
    keywords: Vec<&'p str>,
}

impl Inner {
    /// Treats the recipients whose mail goes out.
    pub(super) async fn outbound(&self, message: &Message, treated: &mut Treated) -> Result<(), Refusal> {
        let going = message.going(Direction::Outbound);
        if going.is_empty() {
            return Ok(());
        }
        let mut seen = Seen::new(message, &self.config.policy, &self.lookup, &self.sources)?;
        let mut asked = Timestamp::now();
        let (mut sorted, mut found) = sort_all(&mut seen, &going);
        if !seen.misses.is_empty() {
            // Before what is fetched: what sources bring may be revoked too.
            seen.told = self.discover(std::mem::take(&mut seen.misses)).await;
            asked = Timestamp::now();
            seen.now = asked;
            seen.look_again();
            (sorted, found) = sort_all(&mut seen, &going);
        }
        if self.fetch(std::mem::take(&mut seen.needs), asked).await {
            seen.look_again();
            (sorted, found) = sort_all(&mut seen, &going);
        }
        treated.done.append(&mut found.done);
        treated.ruled.append(&mut found.ruled);
        treated.refused.append(&mut found.refused);
        if !message.peer.listener.lmtp && !treated.refused.is_empty() {
            return Ok(());
        }
        let mut entity = self.cleaned(&message.entity, &sorted.keywords)?;
        if sorted.groups.iter().any(Group::leaves_readable) {
            let limits = MimeLimits::default();
            let unreadable = |error: MimeError| Refusal::Malformed(error.to_string());
            if let Some(octets) = quoted::cut(&entity, &message.reverse_path, &limits).map_err(unreadable)? {
                entity = Entity::parse(octets, &limits).map_err(unreadable)?;
            }
        }
        self.seal(message, &seen, &entity, sorted.groups, treated).await
    }

    /// The message without Bcc, subject keywords and marks of ours that it may not carry. The body is copied only then.
    fn cleaned(&self, entity: &Entity, keywords: &[&str]) -> Result<Entity, Refusal> {
        let limits = MimeLimits::default();
        let unreadable = |error: crate::mime::header::MimeError| Refusal::Malformed(error.to_string());
        let stripped = self.marks.strip(&entity.header);
        let same = stripped.as_slice() == entity.header.raw.as_ref();
        let edited = if same {
            outbound_edits(&entity.header, keywords)
        } else {
            let header = Entity::parse(Bytes::from([stripped.as_slice(), b"\r\n"].concat()), &limits)
                .map_err(unreadable)?
                .header;
            Some(outbound_edits(&header, keywords).unwrap_or(stripped))
        };
        match edited {
            None => Ok(entity.clone()),
            Some(header) => Entity::parse(Bytes::from([header.as_slice(), b"\r\n", &entity.body].concat()), &limits)
                .map_err(unreadable),
        }
    }

    /// One output per group; a signature is made once per signing plan.
    async fn seal(
        &self,
        message: &Message,
        seen: &Seen<'_>,
        entity: &Entity,
        groups: Vec<Group>,
        treated: &mut Treated,
    ) -> Result<(), Refusal> {
        let mut signed: Vec<(SignKey, Draft)> = Vec::new();
        let author = seen.from.as_ref().ok();
        if groups.iter().any(|group| matches!(group.kind, Kind::Protect { .. })) {
            self.notice_signer_before_us(message, author);
        }
        for group in groups {
            let trace = message.trace(self, Direction::Outbound, &group.recipients);
            let content = match &group.kind {
                Kind::Protect { sign, encrypt, .. } => {
                    let draft = self.draft((message, seen), entity, &group, *sign, &mut signed).await?;
                    let how = encrypt.map(|how| EncryptPlan {
                        recipients: group.certificates.clone(),
                        content: how.content,
                        derive_cek: how.derive_cek,
                    });
                    let sealed = match &how {
                        Some(plan) => draft.encrypt(plan, self.config.self_check),
                        None => draft.signed(),
                    };
                    Content::sealed(trace, sealed.map_err(failed)?)
                }
                Kind::Clear => match group.clear.clone() {
                    Some(proof) => Content::Clear(proof, as_it_is(trace, entity)),
                    None => return Err(Refusal::Internal),
                },
                Kind::Encrypted => match group.encrypted {
                    Some(proof) => Content::Encrypted(proof, as_it_is(trace, entity)),
                    None => return Err(Refusal::Internal),
                },
                // As received, forged marks and all: policy looks at it anew when it is released, and a rule that looks at them has to match
                // then too. What leaves is stripped then, and the trace of this way out put on.
                Kind::Held => {
                    let mut rope = Rope::new();
                    if !message.again {
                        rope.push_raw(message.received(self, None));
                    }
                    rope.push_raw(message.entity.raw.clone());
                    Content::Held(group.held.clone().unwrap_or_default(), rope)
                }
            };
            if group.required && !protected(&content, &group) {
                tracing::error!(id = message.id, "a mail that must be encrypted came out unprotected: refused");
                return Err(Refusal::Internal);
            }
            let content = self.vouched(message, author, content)?;
            treated.outputs.push(Output { direction: Direction::Outbound, recipients: group.recipients, content });
        }
        Ok(())
    }

    /// The draft of a signing plan: signed once, then shared.
    async fn draft(
        &self,
        (message, seen): (&Message, &Seen<'_>),
        entity: &Entity,
        group: &Group,
        sign: Option<SignKey>,
        signed: &mut Vec<(SignKey, Draft)>,
    ) -> Result<Draft, Refusal> {
        let (Some(key), Some(signer)) = (sign, &group.signer) else {
            return draft_of(entity, &group.kind).map_err(failed);
        };
        if let Some((_, draft)) = signed.iter().find(|(known, _)| *known == key) {
            return Ok(draft.clone());
        }
        let encryption_certificate = seen
            .from
            .as_ref()
            .ok()
            .filter(|_| !signer.domain)
            .and_then(|from| self.lookup.encryption_certificate(from, &signer.certificate, seen.now));
        let readers = encryption_certificate.as_ref().unwrap_or(&signer.certificate);
        let said = seen.from.as_ref().ok().and_then(|from| self.lookup.said_to_read(from, readers));
        let plan = SignPlan {
            capabilities: said.unwrap_or_else(|| CAPABILITIES.to_vec()),
            key: signer.key,
            certificate: signer.certificate.clone(),
            chain: signer.chain.clone(),
            encryption_certificate,
            scheme: key.scheme,
            digest: key.scheme.digest(),
            form: key.form,
            signing_time: seen.now,
            second: key.second.zip(group.second.as_ref()).map(|((_, scheme), second)| CoSigner {
                key: second.key,
                certificate: second.certificate.clone(),
                chain: second.chain.clone(),
                scheme,
            }),
        };
        let signing = draft_of(entity, &group.kind).and_then(|draft| draft.sign(plan)).map_err(failed)?;
        let mut answers = Vec::new();
        for operation in signing.operations() {
            let both = [Some(signer), group.second.as_deref()].into_iter().flatten();
            let certificate = both.filter(|one| one.key == operation.key()).map(|one| one.certificate.fingerprint());
            let mailbox = seen.from.as_ref().map(ToString::to_string).unwrap_or_default();
            let purpose = KeyPurpose { mail: &message.id, mailbox: &mailbox, certificate: certificate.last() };
            answers.push(self.key(operation, purpose).await?.map_err(|error| failed(SealError::Key(error)))?);
        }
        let draft = signing.finish_all(answers, self.config.self_check).map_err(failed)?;
        if draft.form() != Some(key.form) {
            tracing::info!("a part that may not be touched would not survive a 7-bit hop: signed in the opaque form");
        }
        signed.push((key, draft.clone()));
        Ok(draft)
    }
}

/// What becomes of all of them.
fn sort_all<'p>(seen: &mut Seen<'p>, going: &[(usize, &Mailbox)]) -> (Sorted<'p>, Treated) {
    let (mut sorted, mut treated) = (Sorted::default(), Treated::default());
    for (at, mailbox) in going {
        sort(seen, *at, mailbox, &mut sorted, &mut treated);
    }
    (sorted, treated)
}

/// The cipher of each recipient who shares an output with others.
pub(super) fn shared_ciphers(seen: &mut Seen<'_>, going: &[(usize, &Mailbox)]) -> Vec<(usize, ContentEncryption)> {
    let mut shared = Vec::new();
    for group in sort_all(seen, going).0.groups {
        if let (Kind::Protect { encrypt: Some(how), .. }, [_, _, ..]) = (&group.kind, group.recipients.as_slice()) {
            shared.extend(group.recipients.iter().map(|at| (*at, how.content)));
        }
    }
    shared
}

/// What becomes of one recipient, and the group he belongs to.
fn sort<'p>(seen: &mut Seen<'p>, at: usize, mailbox: &Mailbox, sorted: &mut Sorted<'p>, treated: &mut Treated) {
    let (rule, decision) = seen.decide(mailbox);
    sorted.keywords.extend(rule.matches.subject_keyword.as_deref());
    let required = rule.action.encrypt == EncryptMode::Require;
    let (resolution, facts) = match decision {
        Decision::Resolved(resolution, facts) => (resolution, facts),
        Decision::Encrypted(proof) => {
            let mut group = Group::new(Kind::Encrypted, at, required);
            group.encrypted = Some(proof);
            treated.note(|| format!("{mailbox}: {}: encrypted before", rule.name));
            treated.ruled.push((Way::Outbound, rule.name.clone(), Ruled::EncryptedBefore));
            return join(&mut sorted.groups, group, false);
        }
    };
    treated.note(|| format!("{mailbox}: {}: {}", resolution.rule, describe(&resolution.treatment)));
    treated.ruled.push((Way::Outbound, resolution.rule.clone(), ruled(&resolution.treatment)));
    if let Some(why) = refusal(&resolution, &facts, mailbox) {
        return treated.refused.push((at, why));
    }
    match resolution.treatment {
        Treatment::Refuse { .. } => {}
        Treatment::Hold { text } => {
            let mut group = Group::new(Kind::Held, at, required);
            group.held = Some(text);
            join(&mut sorted.groups, group, false);
        }
        Treatment::Clear(proof) => {
            let mut group = Group::new(Kind::Clear, at, required);
            group.clear = Some(proof);
            join(&mut sorted.groups, group, false);
        }
        Treatment::Protect(plan) => {
            let alone = seen.is_alone(mailbox, &plan);
            join(&mut sorted.groups, planned(plan, at, required), alone);
        }
    }
}

/// The last look before anything leaves under `encrypt = require`: encrypted to the certificates meant, or encrypted for all
/// its recipients before it came, or kept here.
fn protected(content: &Content, group: &Group) -> bool {
    match content {
        Content::Sealed(sealed, _) => {
            let to: HashSet<_> = sealed.encrypted_to().iter().collect();
            !to.is_empty() && group.certificates.iter().all(|(one, _)| to.contains(&one.fingerprint()))
        }
        Content::Encrypted(..) | Content::Held(..) => true,
        Content::Clear(..) | Content::Judged(_) | Content::Closed(_) => false,
    }
}

fn planned(plan: Plan, at: usize, required: bool) -> Group {
    let sign = plan.sign.as_ref().and_then(|signer| {
        let scheme = plan.profile.signature_scheme(signer.certificate.public_key())?;
        let header = plan.profile.header.map(|header| (header, plan.encrypt.is_some()));
        let second = plan.second.as_ref().and_then(|second| {
            let scheme = plan.profile.signature_scheme(second.certificate.public_key())?;
            Some((second.certificate.fingerprint(), scheme))
        });
        Some(SignKey { certificate: signer.certificate.fingerprint(), scheme, second, form: plan.form, header })
    });
    let derive_cek = plan.profile.derive_cek;
    let encrypt = plan.encrypt.as_ref().map(|to| EncryptHow { content: to.content, derive_cek });
    let mut group = Group::new(Kind::Protect { sign, encrypt, header: plan.profile.header }, at, required);
    group.signer = plan.sign;
    group.second = plan.second;
    if let Some(EncryptTo { certificates, readable, transport, .. }) = plan.encrypt {
        let scheme = RecipientScheme { rsa: transport, kdf: plan.profile.kdf };
        group.known = certificates.iter().map(Certificate::fingerprint).collect();
        group.certificates = certificates.into_iter().map(|one| (one, scheme)).collect();
        group.common = Common { profile: plan.profile.name, readable };
    }
    group
}

/// Adds a recipient's group to one that is treated alike, unless he gets a copy of his own.
fn join(groups: &mut Vec<Group>, new: Group, alone: bool) {
    if !alone && let Some(group) = groups.iter_mut().find(|group| !group.alone && group.takes(&new)) {
        group.common.readable.retain(|content| new.common.readable.contains(content));
        if let (Kind::Protect { encrypt: Some(how), .. }, Some(best)) = (&mut group.kind, group.common.readable.first())
        {
            how.content = *best;
        }
        group.recipients.extend(new.recipients);
        group.required |= new.required;
        let unknown = |one: &(Certificate, _)| group.known.insert(one.0.fingerprint());
        group.certificates.extend(new.certificates.into_iter().filter(unknown));
        return;
    }
    groups.push(Group { alone, ..new });
}

/// The message to be protected, its header fields as the profile says.
fn draft_of(entity: &Entity, kind: &Kind) -> Result<Draft, SealError> {
    match kind {
        Kind::Protect { encrypt, header: Some(header), .. } => {
            Draft::with_protected_header(entity, *header, encrypt.is_some())
        }
        _ => Draft::new(entity),
    }
}

fn as_it_is(trace: String, entity: &Entity) -> Rope {
    let mut rope = Rope::from(Bytes::from(trace));
    rope.push_raw(entity.raw.clone());
    rope
}

fn failed(error: SealError) -> Refusal {
    tracing::warn!(%error, "a message could not be sealed");
    Refusal::Seal(error)
}

/// What is done, for those who count.
fn ruled(treatment: &Treatment) -> Ruled {
    match treatment {
        Treatment::Refuse { transient: true, .. } => Ruled::Deferred,
        Treatment::Refuse { .. } => Ruled::Refused,
        Treatment::Hold { .. } => Ruled::Held,
        Treatment::Clear(_) => Ruled::Clear,
        Treatment::Protect(plan) => match (&plan.sign, &plan.encrypt) {
            (Some(_), Some(_)) => Ruled::SignedEncrypted,
            (None, Some(_)) => Ruled::Encrypted,
            (_, None) => Ruled::Signed,
        },
    }
}

/// What is done, in words.
pub(super) fn describe(treatment: &Treatment) -> String {
    match treatment {
        Treatment::Refuse { transient: true, .. } => "deferred".into(),
        Treatment::Refuse { .. } => "refused".into(),
        Treatment::Hold { .. } => "held".into(),
        Treatment::Clear(_) => "clear".into(),
        Treatment::Protect(plan) => {
            let by_domain = plan.sign.as_ref().is_some_and(|signer| signer.domain);
            let two = if plan.second.is_some() { " by two keys" } else { "" };
            let signed = format!("signed{two}{}", if by_domain { " for the domain" } else { "" });
            match (&plan.sign, &plan.encrypt) {
                (Some(_), Some(to)) => format!("{signed}, encrypted with {}", to.content.name()),
                (None, Some(to)) => format!("encrypted with {}", to.content.name()),
                _ => signed,
            }
        }
    }
}

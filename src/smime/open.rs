//! Entity to what it is, what it needs, what came out (RFC 8551). Waiting for a key is a value, not a callback.

mod addressed;
mod compressed;
mod fresh;
mod fuzz;
mod judge;
mod secrets;
mod shape;
#[cfg(test)]
mod tests;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::header_protection;
use super::verdict::{Layer, SmimeResult, Verdict, VerifiedDomain, VerifiedSigner};
use crate::address::{Mailbox, MailboxKey};
use crate::cms::algorithm::{Capabilities, ContentEncryption, Digest, Legacy};
use crate::cms::enveloped::{EnvelopedData, SharedSecret};
use crate::cms::error::CmsError;
use crate::cms::signed::{self, CertificateId, SignedData};
use crate::keys::{Cek, KeyAnswer, KeyError, KeyId, KeyOperation};
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::{Field, Header};
use crate::mime::rope::Rope;
use crate::pki::certificate::Certificate;
use crate::pki::path::{Budget, PathLimits, PathMemory, TrustSet, ValidPath};
use crate::pki::revocation::{Demand, Evidence, Need, Source};

pub(in crate::smime) use fresh::is_well_lined;
pub use fuzz::{fuzz_open, fuzz_open_sealed};
use judge::Standing;
pub(in crate::smime) use shape::{ObjectKind, Shape, object_kind, shape};

/// RecipientInfos that are told in words at most.
const NAMED: usize = 200;

/// A recipient's own keys: certificate and key id (A30: nobody else's).
#[derive(Debug, Clone)]
pub struct OwnKey {
    pub certificate: Certificate,
    pub key: KeyId,
}

/// What opening depends on.
#[derive(Debug, Clone)]
pub struct OpenContext {
    pub keys: Vec<OwnKey>,
    pub trust: Arc<TrustSet>,
    pub at: Timestamp,
    pub legacy: Legacy,
    pub mime: MimeLimits,
    pub path: PathLimits,
    /// emailAddress in the subject counts where the SAN names no mailbox (RFC 8550 section 3).
    pub email_in_subject: bool,
    /// Whether signers' certificates may be revoked, or of unknown state.
    pub revocation: Demand,
    /// CRLs and OCSP responses that are kept; those in the message are looked at too.
    pub evidence: Arc<dyn Source>,
    /// Paths found before, where they are kept; used where its limits are those of `path`.
    pub paths: Option<Arc<dyn PathMemory>>,
    /// Layers undone at most; default 4 (A13).
    pub layers: usize,
    /// Private-key operations at most for the message; default 8.
    pub operations: usize,
    /// Octets that a compressed layer may have when decompressed; default 50 MiB. It may have 20 times the message's too (A12).
    pub decompressed: usize,
    /// Passwords and key-encryption keys that sender and recipient share, to be tried on RecipientInfos of their kinds; none by default.
    pub secrets: Vec<SharedSecret>,
}

impl OpenContext {
    /// A context with the default limits and nothing weak allowed.
    pub fn new(keys: Vec<OwnKey>, trust: Arc<TrustSet>, at: Timestamp) -> Self {
        Self {
            keys,
            trust,
            at,
            legacy: Legacy::default(),
            mime: MimeLimits::default(),
            path: PathLimits::default(),
            email_in_subject: false,
            revocation: Demand::Off,
            evidence: Arc::new(Evidence::default()),
            paths: None,
            layers: 4,
            operations: 8,
            decompressed: 50 << 20,
            secrets: Vec::new(),
        }
    }

    /// The same with what is weak read as `legacy` says, in messages and in paths.
    pub fn with_legacy(mut self, legacy: Legacy) -> Self {
        self.legacy = legacy;
        self.path.sha1 = legacy.sha1_signatures;
        self.path.weak_keys = legacy.weak_keys;
        self
    }
}

/// What the opener wants or gives.
#[derive(Debug)]
pub enum Step {
    /// Do this with the key and come back with the answer.
    Key(KeyOperation),
    /// Ready.
    Done(Box<Opened>),
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The message to deliver: the received octets where nothing was decrypted, else a fresh message: outer fields (those
    /// that are not MIME's) and the inner entity. Marks are not yet in it. Well-formed lines (A16).
    pub message: Bytes,
    /// The innermost content (MIME entity), as signed or decrypted; what `content_sha256` is taken over.
    pub content: Bytes,
    pub verdict: Verdict,
    /// Per envelope opened: a digest of the CEK used, for the comparison across recipients (A30).
    pub cek_digests: Vec<[u8; 32]>,
    /// What the author's valid signatures say of his certificates; nothing where the verdict is another than pass (A10).
    pub announced: Vec<Announced>,
    /// What would tell more of the state of signers' certificates.
    pub needs: Vec<Need>,
    /// To and Cc under a valid signature; `None` where they are not protected (A9).
    pub addressed: Option<Vec<MailboxKey>>,
    /// Private-key operations asked for: more than none means that a private key was tried (A4).
    pub operations: usize,
}

/// What a valid signature says of its author's certificates.
#[derive(Debug, Clone)]
pub struct Announced {
    /// The author, and the certificate that he signed with.
    pub signer: VerifiedSigner,
    /// That certificate's path.
    pub path: ValidPath,
    /// When he says that he signed.
    pub signing_time: Option<Timestamp>,
    /// What he can read (SMIMECapabilities), where he says so and it is understood.
    pub capabilities: Option<Capabilities>,
    /// The certificate to encrypt to, by its name (SMIMEEncryptionKeyPreference).
    pub preference: Option<CertificateId>,
    /// All certificates that the signed data carries. No signature covers them: what is taken of them has to be proven by itself.
    pub company: Vec<Certificate>,
}

impl Opened {
    /// Whether the mail was written to this recipient, as far as its signature tells (A9): a mail that somebody sent on, or a
    /// blind copy, was not. For information; true where To and Cc are not under a valid signature.
    pub fn is_addressed_to(&self, recipient: &Mailbox) -> bool {
        self.addressed.as_ref().is_none_or(|named| named.contains(&recipient.key()))
    }
}

/// The machine that opens one message for one recipient.
pub struct Opener {
    context: OpenContext,
    substitute: fn() -> Cek,
    /// The message as received.
    message: Entity,
    /// Its octets: what was decrypted is let go of the rest of it.
    received: usize,
    author: Result<Mailbox, String>,
    /// The entity of the layer at hand; `None` once the innermost content is no entity.
    current: Option<Entity>,
    /// The entity that was decrypted last: what is delivered.
    decrypted: Option<Entity>,
    /// Whether that is well lined.
    lined: bool,
    /// Whether the entity at hand is a part of it, octet for octet.
    inside: bool,
    /// The signed layer that is all of it, written anew from its verified octets, and whether it is well lined.
    rebuilt: Option<(Rope, bool)>,
    /// The innermost content so far.
    content: Bytes,
    envelope: Option<Envelope>,
    /// Keys that have done an operation: each does one at most per message (A3).
    used: Vec<KeyId>,
    operations: usize,
    /// Signature checks left for the whole message (A11).
    checks: Budget,
    found: Findings,
}

/// An envelope that is being opened.
struct Envelope {
    /// `None`: its last CEK was tried.
    data: Option<EnvelopedData>,
    content: ContentEncryption,
    /// RecipientInfos with the own key that each names, still to be tried.
    candidates: VecDeque<(usize, KeyId)>,
    /// The key holder did not answer: nothing is proven of the message.
    unavailable: bool,
    /// Why a shared secret opened nothing.
    secret_failed: Option<String>,
    /// The key that is asked now is the last one.
    last: bool,
}

/// What is known so far.
#[derive(Default)]
struct Findings {
    layers: Vec<Layer>,
    notes: Vec<String>,
    /// Signed layers that lie inside every encrypted one so far.
    inner: Vec<(Standing, Option<VerifiedSigner>)>,
    /// The domain that signed the outermost of them, where it is no person.
    domain: Option<VerifiedDomain>,
    /// Signed layers outside of an encryption: they prove nothing of the plaintext's author.
    outer: Vec<Standing>,
    cek_digests: Vec<[u8; 32]>,
    announced: Vec<Announced>,
    needs: Vec<Need>,
    /// What the legacy switches let in.
    weak: Vec<String>,
    /// Decryption without AEAD since the last valid signature outside.
    cbc: bool,
    decrypted: bool,
    /// Something is S/MIME and broken.
    broken: Option<String>,
    /// Something was there and was not opened.
    unopened: Option<String>,
    unavailable: bool,
}

impl Opener {
    /// Begins. `substitute` gives 32 random octets per private operation, drawn before the call (A3).
    pub fn new(message: Entity, context: OpenContext, substitute: fn() -> Cek) -> Self {
        let author = message.header.single_from().map_err(|error| error.to_string());
        Self {
            checks: context.path.budget(),
            context,
            substitute,
            author,
            current: Some(message.clone()),
            decrypted: None,
            lined: false,
            inside: false,
            rebuilt: None,
            content: message.raw.clone(),
            received: message.raw.len(),
            message,
            envelope: None,
            used: Vec::new(),
            operations: 0,
            found: Findings::default(),
        }
    }

    /// Goes on: `answer` is the answer to the last `Step::Key`, `None` the first time.
    pub fn step(&mut self, answer: Option<Result<KeyAnswer, KeyError>>) -> Step {
        if let Some(answer) = answer {
            self.take(answer);
        }
        loop {
            if let Some(operation) = self.next_operation() {
                return Step::Key(operation);
            }
            if !self.next_layer() {
                return Step::Done(Box::new(self.finish()));
            }
        }
    }

    /// The next try at the envelope at hand; closes it when there is none.
    fn next_operation(&mut self) -> Option<KeyOperation> {
        let envelope = self.envelope.as_mut()?;
        while let Some((index, key)) = envelope.candidates.pop_front() {
            if self.operations >= self.context.operations || self.used.contains(&key) {
                continue;
            }
            let Some(info) = envelope.data.as_ref().and_then(|data| data.recipients.get(index)) else { continue };
            let mut substitute = (self.substitute)();
            substitute.truncate(envelope.content.key_len());
            if let Ok(operation) = info.operation(key, envelope.content, substitute) {
                envelope.last = envelope.candidates.is_empty();
                self.used.push(key);
                self.operations = self.operations.saturating_add(1);
                return Some(operation);
            }
        }
        let unavailable = envelope.unavailable;
        let secret_failed = envelope.secret_failed.take();
        let tried = !self.used.is_empty();
        self.envelope = None;
        self.found.unavailable |= unavailable;
        let why = match (unavailable, tried) {
            (true, _) => "the key holder is not available".to_owned(),
            // One text whatever failed (A3, A4).
            (false, true) => "it could not be decrypted".to_owned(),
            (false, false) => secret_failed.unwrap_or_else(|| "it is encrypted to no key of this recipient".to_owned()),
        };
        self.close_layer(Err(why.clone()));
        self.found.unopened = Some(format!("encrypted: {why}"));
        self.current = None;
        None
    }

    /// An answer of the key holder: a CEK is tried at once.
    fn take(&mut self, answer: Result<KeyAnswer, KeyError>) {
        let Some(envelope) = self.envelope.as_mut() else { return };
        let cek = match answer {
            Ok(KeyAnswer::Cek(cek)) => cek,
            Ok(KeyAnswer::Signature(_)) | Err(KeyError::Unknown | KeyError::Unsuitable(_) | KeyError::Rejected(_)) => {
                return;
            }
            Err(KeyError::Unavailable(_)) => {
                envelope.unavailable = true;
                return;
            }
        };
        let weak = envelope.data.as_ref().and_then(EnvelopedData::weakness);
        let opened = if envelope.last {
            // Nothing is tried after this: the ciphertext is not needed beside its content.
            self.message = self.message.undecoded();
            envelope.data.take().map(|data| data.open_last(&cek))
        } else {
            envelope.data.as_ref().map(|data| data.open(&cek))
        };
        let Some(Ok(plain)) = opened else { return };
        let Some(entity) = fresh::is_mime_entity(&plain, &self.context.mime) else { return };
        let authenticated = envelope.content.is_authenticated();
        self.found.weak.extend(weak);
        self.envelope = None;
        let digest = signed::digest(Digest::Sha256, &cek);
        self.found.cek_digests.extend(<[u8; 32]>::try_from(digest));
        self.close_layer(Ok(()));
        self.found.decrypted = true;
        self.found.cbc |= !authenticated;
        self.found.same_author_in(&plain, &self.author, &self.context.mime);
        self.found.seal_off();
        // What came out is not held beside what came in: the header is all that is still needed.
        if let Some(header) = self.message.header_alone(&self.context.mime) {
            self.message = header;
        }
        self.content = plain;
        self.lined = fresh::is_well_lined(&entity.raw);
        self.inside = true;
        self.decrypted = Some(entity.clone());
        self.rebuilt = None;
        self.current = Some(entity);
    }

    /// Sets the outcome of the encrypted layer at hand.
    fn close_layer(&mut self, result: Result<(), String>) {
        if let Some(Layer::Encrypted { outcome, .. }) = self.found.layers.last_mut() {
            *outcome = result;
        }
    }

    /// Looks at the layer at hand; `false` when there is nothing more to undo.
    fn next_layer(&mut self) -> bool {
        let Some(entity) = self.current.take() else { return false };
        let shape = match shape(&entity, &self.context.mime) {
            Ok(shape) => shape,
            Err(error) => {
                self.found.broken = Some(error.to_string());
                return false;
            }
        };
        if matches!(shape, Shape::Plain) {
            self.look_below(&entity);
            return false;
        }
        if self.found.layers.len() >= self.context.layers {
            self.found.broken = Some(format!("more than {} layers", self.context.layers));
            return false;
        }
        match shape {
            Shape::Plain => false,
            Shape::ClearSigned { content, signature, micalg } => {
                self.clear_signed(content, &signature, micalg.as_deref())
            }
            Shape::Pkcs7 { object } => match object_kind(&object) {
                Some(ObjectKind::Signed) => self.opaque_signed(&object),
                Some(ObjectKind::Enveloped) => self.enveloped(&object),
                Some(ObjectKind::Compressed) => self.compressed(&object),
                Some(ObjectKind::Other) => {
                    self.found.unopened = Some("a CMS object of a kind that S/MIME does not use".into());
                    false
                }
                None => {
                    self.found.broken = Some("the body is no CMS object".into());
                    false
                }
            },
        }
    }

    /// A note where S/MIME lies deeper than the root: it is neither opened nor judged (A1, A7).
    fn look_below(&mut self, entity: &Entity) {
        let multipart = entity
            .content_type()
            .is_ok_and(|one| one.essence.starts_with("multipart/") || one.essence == "message/rfc822");
        if multipart && shape::hints_at_pkcs7(&entity.body) {
            self.found.notes.push("an S/MIME part lies below other parts: neither opened nor judged".into());
        }
    }

    fn clear_signed(&mut self, content: Entity, signature: &Bytes, micalg: Option<&str>) -> bool {
        let data = match SignedData::parse(signature) {
            Ok(data) => data,
            Err(error) => {
                self.found.layers.push(Layer::Signed { clear: true, signers: Vec::new() });
                self.found.broken = Some(format!("the signature cannot be read: {error}"));
                return false;
            }
        };
        self.note_micalg(&data, micalg);
        // A7: a detached signature carries no content, or it may be a signature over something else than what is shown.
        let refused =
            data.econtent.is_some().then(|| "a detached signature that carries content of its own".to_owned());
        let (content, lined) = self.as_signed(content, &data);
        self.signed_layer(true, &data, &content.raw, refused);
        self.rebuild(
            |digest| {
                let boundary =
                    super::seal::boundary(signed::digest(Digest::Sha256, signature).get(..18).unwrap_or_default());
                let free = memchr::memmem::find(&content.raw, boundary.as_bytes()).is_none();
                let content = Rope::from(content.raw.clone());
                let micalg = digest.micalg();
                free.then(|| (super::seal::multipart_signed_with(content, signature.clone(), micalg, &boundary), lined))
            },
            &data,
        );
        self.content = content.raw.clone();
        self.current = Some(content);
        true
    }

    fn note_micalg(&mut self, data: &SignedData, micalg: Option<&str>) {
        let Some(said) = micalg else { return };
        let said: String = said.chars().filter(|one| one.is_ascii_alphanumeric()).collect();
        for digest in data.signers.iter().filter_map(|signer| signer.digest) {
            let name: String = digest.micalg().chars().filter(|one| *one != '-').collect();
            if !said.contains(&name) {
                self.found.notes.push(format!("micalg names another digest than the signature's {}", digest.name()));
            }
        }
    }

    fn opaque_signed(&mut self, object: &Bytes) -> bool {
        let data = match SignedData::parse(object) {
            Ok(data) => data,
            Err(error) => {
                self.found.layers.push(Layer::Signed { clear: false, signers: Vec::new() });
                self.found.broken = Some(format!("the signed data cannot be read: {error}"));
                return false;
            }
        };
        let Some(content) = data.econtent.clone() else {
            if data.signers.is_empty() {
                self.found.layers.push(Layer::Signed { clear: false, signers: Vec::new() });
                self.found.unopened = Some("certificates only: nothing is signed".into());
            } else {
                self.signed_layer(false, &data, &Bytes::new(), Some("the signed data carries no content".into()));
            }
            return false;
        };
        self.signed_layer(false, &data, &content, None);
        self.rebuild(|_| Some((super::seal::pkcs7_mime("signed-data", object.clone()), true)), &data);
        self.inside = false;
        self.content = content.clone();
        if data.econtent_type == judge::ID_DATA {
            self.current = Entity::parse(content, &self.context.mime).ok();
        }
        true
    }

    /// The signed part as its signature was made: inside a layer that was undone here lines may end in bare LF, while the
    /// signature is over the canonical form (RFC 8551 section 3.1.1). Gives also whether it is known to be well lined.
    fn as_signed(&mut self, content: Entity, data: &SignedData) -> (Entity, bool) {
        if self.found.layers.is_empty() {
            return (content, false);
        }
        if (self.inside && self.lined) || fresh::is_well_lined(&content.raw) {
            return (content, true);
        }
        let canonical = crate::mime::canonical::canonical_line_ends(&content.raw);
        let mut fits = |octets: &Bytes| {
            let judged = judge::judge(data, octets, &self.author, &self.context, &mut self.checks);
            !matches!(judged.standing, Standing::Bad(_))
        };
        if !fits(&content.raw) && fits(&canonical) {
            return (Entity::parse(canonical, &self.context.mime).unwrap_or(content), false);
        }
        (content, false)
    }

    /// CBC can be changed in transit around what is signed: preamble, fields, epilogue. So the outermost signed layer in it
    /// is written anew from the octets that were verified; the same each time.
    fn rebuild(&mut self, write: impl FnOnce(Digest) -> Option<(Rope, bool)>, data: &SignedData) {
        // A layer whose signature nobody could check covers nothing: the next one that fits is written in its place.
        let fits = match self.found.layers.last() {
            Some(Layer::Signed { signers, .. }) => signers.iter().any(|signer| signer.signature.is_ok()),
            _ => false,
        };
        if self.found.cbc && self.rebuilt.is_none() && fits {
            self.rebuilt = data.signers.first().and_then(|signer| signer.digest).and_then(write);
        }
    }

    /// Judges a signed layer and keeps what came out.
    fn signed_layer(&mut self, clear: bool, data: &SignedData, content: &Bytes, refused: Option<String>) {
        let mut judgement = judge::judge(data, content, &self.author, &self.context, &mut self.checks);
        if let Some(why) = refused {
            judgement.standing = Standing::Bad(why.clone());
            judgement.signer = None;
            judgement.domain = None;
            judgement.announced.clear();
            for report in &mut judgement.reports {
                report.signature = Err(why.clone());
            }
        }
        self.found.same_author_in(content, &self.author, &self.context.mime);
        self.found.notes.extend(data.odd.iter().take(8).map(|odd| format!("odd: {odd}")));
        for weak in judgement.reports.iter().flat_map(|report| &report.weak) {
            if !self.found.weak.contains(weak) {
                self.found.weak.push(weak.clone());
            }
        }
        self.found.announced.append(&mut judgement.announced);
        self.found.needs.append(&mut judgement.needs);
        self.found.layers.push(Layer::Signed { clear, signers: judgement.reports });
        if self.found.inner.is_empty() {
            self.found.domain = judgement.domain;
        }
        self.found.inner.push((judgement.standing, judgement.signer));
    }

    fn enveloped(&mut self, object: &Bytes) -> bool {
        let data = match EnvelopedData::parse(object, self.context.legacy) {
            Ok(data) => data,
            Err(error) => {
                let why = format!("the envelope was refused: {error}");
                self.found.layers.push(Layer::Encrypted {
                    cipher: "unknown".into(),
                    authenticated: false,
                    recipients: Vec::new(),
                    outcome: Err(why.clone()),
                });
                match error {
                    CmsError::Algorithm(_) => self.found.unopened = Some(why),
                    _ => self.found.broken = Some(why),
                }
                return false;
            }
        };
        let mut candidates = VecDeque::new();
        for (index, info) in data.recipients.iter().enumerate() {
            let Some(id) = &info.id else { continue };
            // A30: the context's own keys and no others.
            if let Some(own) = self.context.keys.iter().find(|own| id.names(&own.certificate)) {
                candidates.push_back((index, own.key));
            }
        }
        self.found.notes.extend(data.odd.iter().take(8).map(|odd| format!("odd: {odd}")));
        self.found.layers.push(Layer::Encrypted {
            cipher: words::cipher(&data),
            authenticated: data.is_authenticated(),
            recipients: data
                .recipients
                .iter()
                .take(NAMED)
                .map(|info| words::recipient(info, &self.context.keys))
                .collect(),
            outcome: Err("not opened".into()),
        });
        self.envelope = Some(Envelope {
            content: data.content,
            data: Some(data),
            candidates,
            unavailable: false,
            secret_failed: None,
            last: false,
        });
        self.try_secrets();
        true
    }

    fn finish(&mut self) -> Opened {
        let mut found = std::mem::take(&mut self.found);
        let cek_digests = std::mem::take(&mut found.cek_digests);
        let announced = std::mem::take(&mut found.announced);
        let needs = std::mem::take(&mut found.needs);
        let cbc = found.cbc;
        let mut verdict = found.verdict();
        let proven = verdict.signer.is_some() || verdict.domain.is_some();
        let rebuilt = self.rebuilt.take().filter(|_| cbc && proven);
        let message = self.deliverable(rebuilt, verdict.signer.is_some(), &mut verdict.notes);
        let announced = if verdict.signer.is_some() { announced } else { Vec::new() };
        let author = self.author.as_ref().ok();
        let signed = verdict.signer.as_ref();
        let addressed = signed.and_then(|_| addressed::addressed(&self.content, author, &self.context.mime));
        Opened {
            message,
            addressed,
            content: self.content.clone(),
            verdict,
            cek_digests,
            announced,
            needs,
            operations: self.operations,
        }
    }

    /// The message to deliver: see [`Opened::message`].
    fn deliverable(&self, rebuilt: Option<(Rope, bool)>, signed: bool, notes: &mut Vec<String>) -> Bytes {
        let (outer, limits) = (&self.message.header, &self.context.mime);
        let author = self.author.as_ref().ok();
        let content = Entity::parse(self.content.clone(), limits).ok();
        let protected =
            content.as_ref().map(|one| header_protection::replacing(one, author, limits)).unwrap_or_default();
        let unprotected = content.as_ref().map(|one| header_protection::unprotected(outer, one)).unwrap_or_default();
        if !unprotected.is_empty() {
            notes.push(format!("fields outside that are not under protection: {}", unprotected.join(", ")));
        }
        let Some(decrypted) = &self.decrypted else { return self.as_received(&protected, signed, notes) };
        if !protected.is_empty() {
            let names: Vec<&str> = protected.iter().map(Field::name).collect();
            notes.push(format!("fields under protection stand for the outer ones: {}", names.join(", ")));
        }
        let reread = match &rebuilt {
            Some((rope, true)) => return fresh::message_around(outer, &protected, rope),
            Some((rope, false)) => Entity::parse(rope.to_bytes(), limits).ok(),
            // Nothing signed lies between: what told of the protection goes with it.
            None if self.content.as_ptr() == decrypted.raw.as_ptr() => {
                header_protection::wrapped(decrypted, author, limits)
                    .or_else(|| header_protection::without_display(decrypted, limits))
            }
            None => None,
        };
        let (message, note) = match &reread {
            Some(entity) => fresh::message(outer, &protected, entity, false, limits),
            None => fresh::message(outer, &protected, decrypted, self.lined, limits),
        };
        notes.extend(note.map(str::to_owned));
        message
    }

    /// Nothing was decrypted: the octets received. Fields under a valid signature take the place of outer ones that differ.
    fn as_received(&self, protected: &[Field], signed: bool, notes: &mut Vec<String>) -> Bytes {
        let outer = &self.message.header;
        let differs = |field: &&Field| outer.all(field.name()).all(|other| other.unfolded() != field.unfolded());
        let differing: Vec<Field> = protected.iter().filter(differs).cloned().collect();
        if differing.is_empty() {
            return self.message.raw.clone();
        }
        let names = differing.iter().map(Field::name).collect::<Vec<_>>().join(", ");
        if !signed || !outer.defects.is_empty() {
            notes.push(format!("fields under the signature differ from those outside: {names}"));
            return self.message.raw.clone();
        }
        notes.push(format!("fields under the signature stand for the outer ones, which differ: {names}"));
        fresh::with_fields(&self.message, &differing)
    }
}

impl Findings {
    /// What was signed so far lies outside of an encryption.
    fn seal_off(&mut self) {
        self.announced.clear();
        self.domain = None;
        self.outer.extend(self.inner.drain(..).map(|(standing, _)| standing));
    }

    fn verdict(mut self) -> Verdict {
        let (mut result, mut reason, signer) = self.judge();
        if self.unopened.is_some() && result == SmimeResult::Pass {
            result = SmimeResult::Neutral;
            reason = "what is signed was not opened here: the signature says nothing of what is in it".into();
        }
        let signer = if result == SmimeResult::Pass { signer } else { None };
        let by_domain = matches!(self.inner.first(), Some((Standing::Domain(why), _)) if *why == reason);
        let domain =
            self.domain.take().filter(|_| result == SmimeResult::Policy && by_domain && self.unopened.is_none());
        if !self.weak.is_empty() {
            reason.push_str(&format!("; weak: {}", self.weak.join(", ")));
        }
        let signers = self.layers.iter().filter_map(|layer| match layer {
            Layer::Signed { signers, .. } => Some(signers),
            _ => None,
        });
        for signer in signers.flatten().take(NAMED) {
            self.notes.push(match &signer.revocation {
                Some(status) => format!("revocation: {status}"),
                None => "revocation: not checked".into(),
            });
        }
        self.notes.dedup();
        let unauthenticated = self.cbc && signer.is_none() && domain.is_none();
        if unauthenticated {
            self.notes.push("nothing proves that the decrypted content is what its sender wrote: CBC without a valid signature inside".into());
        }
        Verdict {
            layers: self.layers,
            signer,
            domain,
            result,
            reason,
            decrypted: self.decrypted,
            unauthenticated,
            weak: self.weak,
            notes: self.notes,
        }
    }

    /// RFC 8601 section 2.7.5 and RFC 7281: the result, why, and who signed.
    fn judge(&mut self) -> (SmimeResult, String, Option<VerifiedSigner>) {
        if self.unavailable {
            return (SmimeResult::TempError, "the key holder is not available".into(), None);
        }
        if let Some(why) = &self.broken {
            return (SmimeResult::PermError, format!("broken S/MIME: {why}"), None);
        }
        let standings = || self.outer.iter().chain(self.inner.iter().map(|(standing, _)| standing));
        if let Some(why) = standings().find_map(|one| match one {
            Standing::Bad(why) => Some(why.clone()),
            _ => None,
        }) {
            return (SmimeResult::Fail, why, None);
        }
        if let Some(signer) = self.inner.iter().find_map(|(_, signer)| signer.clone()) {
            self.note_others(&signer);
            return (SmimeResult::Pass, format!("signed by {}", signer.mailbox()), Some(signer));
        }
        if let Some((standing, _)) = self.inner.first() {
            return match standing {
                Standing::OtherAuthor(why) => (SmimeResult::Fail, why.clone(), None),
                Standing::Unaccepted(why) | Standing::Domain(why) => (SmimeResult::Policy, why.clone(), None),
                Standing::Unchecked(why) | Standing::Bad(why) => (SmimeResult::Neutral, why.clone(), None),
                Standing::Verified => (SmimeResult::Neutral, "the signature names nobody".into(), None),
            };
        }
        if !self.outer.is_empty() {
            let why = "the signature lies outside of the encryption: it says nothing of who wrote the content";
            return (SmimeResult::Neutral, why.into(), None);
        }
        if let Some(why) = &self.unopened {
            return (SmimeResult::Neutral, why.clone(), None);
        }
        let why = if self.decrypted { "encrypted, not signed" } else { "no S/MIME" };
        (SmimeResult::None, why.into(), None)
    }

    /// Signed layers beside the author's.
    fn note_others(&mut self, signer: &VerifiedSigner) {
        for (standing, other) in &self.inner {
            match (standing, other) {
                (Standing::Verified, Some(other)) if other.certificate() == signer.certificate() => {}
                (Standing::Verified, _) => {}
                (
                    Standing::OtherAuthor(why)
                    | Standing::Unaccepted(why)
                    | Standing::Domain(why)
                    | Standing::Unchecked(why)
                    | Standing::Bad(why),
                    _,
                ) => {
                    self.notes.push(format!("another signed layer: {why}"));
                }
            }
        }
    }
}

/// The envelope that a message is, unopened: algorithms and RecipientInfos. `None` where the root is no envelope, or one that
/// is broken or of an algorithm that is refused.
pub fn envelope(message: &Entity, limits: &MimeLimits, legacy: Legacy) -> Option<EnvelopedData> {
    match shape(message, limits) {
        Ok(Shape::Pkcs7 { object }) if object_kind(&object) == Some(ObjectKind::Enveloped) => {
            EnvelopedData::parse(&object, legacy).ok()
        }
        _ => None,
    }
}

/// What was signed in place of the signed message: outer fields that are not MIME's, then the MIME fields and the body of `content`,
/// and nothing else of its header: there the signer could have put what only we may say (A8). Its lines are well-formed
/// (A16). `None`: the header of `content` can be read two ways (A14).
pub fn unwrapped(outer: &Header, content: &Bytes, limits: &MimeLimits) -> Option<Bytes> {
    let inner = Entity::parse(content.clone(), limits).ok().filter(|inner| inner.header.defects.is_empty())?;
    let author = outer.single_from().ok();
    let protected = header_protection::replacing(&inner, author.as_ref(), limits);
    let bare = header_protection::wrapped(&inner, author.as_ref(), limits)
        .or_else(|| header_protection::without_display(&inner, limits));
    Some(fresh::message(outer, &protected, bare.as_ref().unwrap_or(&inner), false, limits).0)
}

/// Which certificates an encrypted message names, without opening it: for A32 and for `message show`. `None` where it is not
/// encrypted in the strict sense: the CMS parses, and its content encryption is in the table, nothing weak.
pub fn recipient_ids(message: &Entity, limits: &MimeLimits) -> Option<Vec<CertificateId>> {
    let envelope = envelope(message, limits, Legacy::default())?;
    Some(envelope.recipients.into_iter().filter_map(|info| info.id).collect())
}

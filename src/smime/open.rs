//! Entity to what it is, what it needs, what came out (RFC 8551). Waiting for a key is a value, not a callback.

mod addressed;
mod compressed;
mod envelope;
mod findings;
mod fresh;
mod fuzz;
mod judge;
mod outcome;
mod secrets;
mod shape;
mod signed;
#[cfg(test)]
mod tests;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::verdict::{Layer, Verdict, VerifiedDomain, VerifiedSigner};
use crate::address::{Mailbox, MailboxKey};
use crate::cms::algorithm::{Capabilities, ContentEncryption, Legacy};
use crate::cms::enveloped::{EnvelopedData, SharedSecret};
use crate::cms::signed::CertificateId;
use crate::keys::{Cek, KeyAnswer, KeyError, KeyId, KeyOperation};
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::rope::Rope;
use crate::pki::certificate::Certificate;
use crate::pki::path::{Budget, PathLimits, PathMemory, TrustSet, ValidPath};
use crate::pki::revocation::{Demand, Evidence, Need, Source};

pub use envelope::{envelope, recipient_ids};
pub(in crate::smime) use fresh::is_well_lined;
pub use fuzz::{fuzz_open, fuzz_open_sealed};
use judge::Standing;
pub use outcome::unwrapped;
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
}

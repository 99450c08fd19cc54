//! Which rule holds for a recipient, and what it means with the facts at hand. P: time is an argument.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::address::{AddressError, Domain, Mailbox, ReversePath};
use crate::cms::algorithm::{Capabilities, ContentEncryption, Digest, KeyDerivation, KeyTransport, SignatureScheme};
use crate::config::Direction;
use crate::keys::KeyId;
use crate::mime::header::Header;
use crate::pki::certificate::Certificate;
use crate::pki::path::ValidPath;
use crate::pki::public_key::{KeyKind, PublicKey};
use crate::pki::revocation::Demand;
use crate::smime::header_protection::HeaderProtection;
use crate::smime::seal::Form;

mod quarantine;
mod resolve;
mod select;

pub use quarantine::{Quarantine, quarantines};
pub use resolve::{may_encrypt, resolve};
pub use select::select;

/// sign = never | if-key | require
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignMode {
    #[default]
    Never,
    IfKey,
    Require,
}

/// sign-with = author | domain | author-or-domain
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignWith {
    /// The author's own key.
    #[default]
    Author,
    /// The key of the author's domain: receivers are shown the domain's signature, not a person's.
    Domain,
    /// The author's own; the domain's where he has none that may be used.
    Either,
}

/// encrypt = never | prefer | require
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncryptMode {
    #[default]
    Never,
    Prefer,
    Require,
}

/// missing = reject | hold
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    #[default]
    Reject,
    Hold,
}

/// bcc = separate | group
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bcc {
    #[default]
    Separate,
    Group,
}

/// What a rule says to do. Field names are the configuration's keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Action {
    pub sign: SignMode,
    pub sign_with: SignWith,
    pub encrypt: EncryptMode,
    pub form: Form,
    pub missing: Missing,
    /// Name of a profile; checked to exist when the configuration is read.
    pub profile: String,
    pub domain_key: bool,
    pub bcc: Bcc,
    /// downgrade = allow: `prefer` may fall to clear although a certificate exists that may not be used.
    pub allow_downgrade: bool,
    /// Refuse with this text.
    pub reject: Option<String>,
    /// Hand on as it is.
    pub pass: bool,
    /// Inbound: decrypt; default true.
    pub decrypt: bool,
    /// Inbound: strip a verified clear signature; default false.
    pub strip_signature: bool,
    /// Whether certificates may be revoked, or of unknown state; default prefer.
    pub revocation: Demand,
    /// certificates = all-valid: encrypt to every certificate of the recipient that may be used, not to the best alone.
    pub all_valid: bool,
    /// Inbound: what is kept until a person releases it; default nothing.
    pub quarantine: Vec<Quarantine>,
}

/// What a rule matches on; all that are given must hold; an empty one matches all.
#[derive(Debug, Clone, Default)]
pub struct Match {
    pub direction: Option<Direction>,
    pub sender: Vec<Pattern>,
    pub recipient: Vec<Pattern>,
    /// A keyword in the Subject such as `[encrypt]`, stripped on the way; honoured from trusted senders only.
    pub subject_keyword: Option<String>,
    /// Header field name and value (`*` wildcards).
    pub header: Option<(String, String)>,
    pub larger_than: Option<u64>,
    pub signed: Option<bool>,
    pub encrypted: Option<bool>,
    /// It answers mail that was decrypted here, by its References (A33): [`DECRYPTED_THREAD`].
    pub replies_to_decrypted: Option<bool>,
    pub user: Vec<String>,
    pub listener: Vec<String>,
}

/// How the identifiers end that decrypted mail carries in its References, where a rule asks for answers to it.
pub const DECRYPTED_THREAD: &str = "@decrypted.waxwing.invalid>";

/// An address, a domain (`@example.org`), a wildcard (`*@*.example.org`, `*`); list files are read into these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub String);

impl Pattern {
    /// Reads a pattern: its domain, where it has no wildcard, is turned into A-labels. `<>` stands for the null reverse-path.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text == "<>" || text.is_empty() {
            return Ok(Self(text.to_owned()));
        }
        let (local, domain) = text.rsplit_once('@').unwrap_or(("", text));
        if domain.contains('*') {
            return Ok(Self(text.to_owned()));
        }
        Ok(Self(format!("{local}@{}", Domain::parse(domain)?)))
    }
}

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: String,
    pub matches: Match,
    pub action: Action,
}

/// Algorithms by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    /// Allowed content encryption, best first. Capabilities choose within it.
    pub content: Vec<ContentEncryption>,
    pub transport: KeyTransport,
    /// Further ways that are allowed, for recipients who are known not to read the first; the last one is what most can read.
    pub further_transports: Vec<KeyTransport>,
    /// Key derivation of a key agreement.
    pub kdf: KeyDerivation,
    /// The content's key is derived from the CEK and the algorithm's own octets (RFC 9709). No built-in profile asks for it: few
    /// programs read it.
    pub derive_cek: bool,
    /// PSS in place of PKCS#1 v1.5 for RSA keys.
    pub pss: bool,
    pub digest: Digest,
    /// Header fields are protected too; `None`: they stay outside alone. No built-in profile asks for it: many mail programs would show
    /// what stands outside.
    pub header: Option<HeaderProtection>,
    /// Which of a recipient's certificates comes first where he has both kinds: a classical one, or ML-KEM. The other kind is used where
    /// it is all he has.
    pub encrypt_first: Family,
    /// Which of the signer's keys sign where he has both kinds; where he has one, it signs.
    pub signatures: Signatures,
}

/// Kinds of algorithms by what could break them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// RSA and elliptic curves: every mail program reads them.
    #[default]
    Classical,
    /// ML-KEM and ML-DSA: believed to hold against a quantum computer.
    PostQuantum,
}

impl Family {
    /// That of a key.
    pub fn of(kind: KeyKind) -> Self {
        if kind.is_post_quantum() { Self::PostQuantum } else { Self::Classical }
    }
}

/// Which keys of a signer sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signatures {
    /// One, of this kind where there is one.
    One(Family),
    /// A classical key and an ML-DSA key, each in a SignerInfo that names the other (RFC 5752).
    Both,
}

impl Default for Signatures {
    fn default() -> Self {
        Self::One(Family::Classical)
    }
}

impl Profile {
    /// The profiles every configuration has: `modern`, `compatible`, `edi-energy`, `post-quantum`.
    pub fn builtin(name: &str) -> Option<Self> {
        use ContentEncryption::{Aes128Cbc, Aes128Gcm, Aes192Cbc, Aes256Cbc, Aes256Gcm};
        let oaep = KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256);
        let (content, transport, pss) = match name {
            "modern" => (vec![Aes256Gcm, Aes128Gcm, Aes256Cbc, Aes128Cbc], oaep, true),
            "compatible" => (vec![Aes256Cbc, Aes128Cbc], KeyTransport::RsaPkcs1, false),
            "edi-energy" => (vec![Aes128Cbc, Aes192Cbc, Aes256Cbc], oaep, true),
            // A cipher of 256 bits keeps 128 against a quantum computer.
            "post-quantum" => (vec![Aes256Gcm, Aes256Cbc], oaep, true),
            _ => return None,
        };
        let (kdf, digest) = (KeyDerivation::X963(Digest::Sha256), Digest::Sha256);
        let (encrypt_first, signatures) = match name {
            "post-quantum" => (Family::PostQuantum, Signatures::Both),
            _ => (Family::Classical, Signatures::default()),
        };
        let (name, further_transports, derive_cek, header) = (name.to_owned(), Vec::new(), false, None);
        Some(Self {
            name,
            content,
            transport,
            further_transports,
            kdf,
            derive_cek,
            pss,
            digest,
            header,
            encrypt_first,
            signatures,
        })
    }

    /// How this key signs; `None` for keys that cannot. An EC key signs with the digest of its curve's size, whatever `digest` says (RFC
    /// 5480 section 4), and an RSA key that is for PSS alone with PSS, whatever `pss` says, and the digest that it is bound to.
    pub fn signature_scheme(&self, key: &PublicKey) -> Option<SignatureScheme> {
        if let Some(bound) = key.pss_only() {
            return bound.signs_with(self.digest);
        }
        Some(match key.kind() {
            KeyKind::Rsa { .. } if self.pss => SignatureScheme::RsaPss(self.digest, self.digest.output_len()),
            KeyKind::Rsa { .. } => SignatureScheme::RsaPkcs1(self.digest),
            KeyKind::P256 => SignatureScheme::Ecdsa(Digest::Sha256),
            KeyKind::P384 => SignatureScheme::Ecdsa(Digest::Sha384),
            KeyKind::P521 => SignatureScheme::Ecdsa(Digest::Sha512),
            KeyKind::Ed25519 => SignatureScheme::Ed25519,
            KeyKind::MlDsa(set) => SignatureScheme::MlDsa(set),
            KeyKind::X25519 | KeyKind::SlhDsa(_) | KeyKind::MlKem(_) => return None,
        })
    }
}

/// Rules in order, the default at the end, and the profiles they name.
#[derive(Debug, Clone)]
pub struct Policy {
    pub rules: Vec<Rule>,
    pub default: Rule,
    pub profiles: BTreeMap<String, Profile>,
}

impl Policy {
    /// Whether a rule asks for answers to decrypted mail: then decrypted mail carries what they are known by.
    pub fn follows_threads(&self) -> bool {
        self.rules.iter().any(|rule| rule.matches.replies_to_decrypted.is_some())
    }
}

/// What rules can see of a message.
#[derive(Debug, Clone)]
pub struct MessageFacts<'a> {
    /// Never `ByRecipient`: decided before.
    pub direction: Direction,
    pub reverse_path: &'a ReversePath,
    /// The single From, where there is one.
    pub from: Option<&'a Mailbox>,
    pub header: &'a Header,
    pub size: u64,
    pub signed: bool,
    /// In the strict sense of A32.
    pub encrypted: bool,
    pub user: Option<&'a str>,
    pub listener: &'a str,
    /// The peer is trusted to submit for our users.
    pub trusted: bool,
}

/// How far a certificate is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrustState {
    /// Put there by an administrator, and preferred.
    Pinned,
    /// May be used where its path is valid.
    Trusted,
    /// Seen, not yet approved (A10).
    Pending,
    /// Never to be used.
    Blocked,
}

impl TrustState {
    /// The word for it, in commands and in what they print.
    pub fn word(self) -> &'static str {
        match self {
            TrustState::Pinned => "pinned",
            TrustState::Trusted => "trusted",
            TrustState::Pending => "pending",
            TrustState::Blocked => "blocked",
        }
    }
}

/// A certificate considered for a recipient or a signer, with all that is known of it.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub certificate: Certificate,
    pub trust: TrustState,
    /// The private key, where it is one of ours.
    pub key: Option<KeyId>,
    /// The path for the purpose in question at the time in question.
    pub path: Result<ValidPath, String>,
    /// The SAN holds the address (or the domain, for domain certificates).
    pub names_owner: bool,
    /// A domain certificate: stands in where the recipient has none of his own, or where the rule signs with it.
    pub domain: bool,
    /// The mailbox's SMIMEEncryptionKeyPreference names it.
    pub preferred: bool,
    /// What its owner can read, where known.
    pub capabilities: Option<Capabilities>,
    /// Where it came from, in words, for `policy explain`.
    pub origin: String,
}

/// What is known of a signer or a recipient when a rule is resolved.
#[derive(Debug, Clone)]
pub enum Known {
    /// All certificates there are; empty: it is known that there is none.
    Candidates(Vec<Candidate>),
    /// The owner is disabled: no signing, no new encryption.
    Disabled,
    /// It cannot be told now (store stale or unreadable, a directory that does not answer): 451.
    Unknown(String),
}

/// Whether the message may be signed at all (A31).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaySign {
    /// One From with one mailbox, and the submitter may use its key.
    Yes,
    /// A condition of A31 does not hold: never signed; refused where a signature is required.
    No(String),
    /// Nothing to sign, and nothing missing: already signed, or a notification with a null reverse-path.
    NotNeeded(String),
}

/// Facts for one recipient.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The From mailbox's keys, the same for all recipients.
    pub signer: Arc<Known>,
    pub may_sign: MaySign,
    pub recipient: Known,
}

/// Why a certificate was or was not used, for `policy explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// "signer" or "recipient".
    pub role: &'static str,
    pub certificate: Certificate,
    /// How far it is trusted, where that is asked.
    pub trust: Option<TrustState>,
    /// Where it came from, in words.
    pub origin: String,
    /// What its owner can read, where known.
    pub reads: Option<Capabilities>,
    /// `Ok`: used; `Err`: why not.
    pub outcome: Result<(), Cow<'static, str>>,
}

/// Proof that policy says this mail may leave in clear: made by `resolve` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearByPolicy {
    rule: String,
}

impl ClearByPolicy {
    /// The rule that says so.
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

/// What is to be done for one recipient. Recipients with equal treatments are grouped.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "made and taken apart at once; a box would be an allocation per recipient"
)]
pub enum Treatment {
    /// 5xx or 4xx with this text.
    Refuse { transient: bool, enhanced: (u8, u16, u16), text: String },
    /// Kept until released.
    Hold { text: String },
    /// As it is.
    Clear(ClearByPolicy),
    /// Signed, encrypted, or both.
    Protect(Plan),
}

/// What to sign and encrypt with.
#[derive(Debug, Clone)]
pub struct Plan {
    pub rule: String,
    /// The signer's certificate, key and intermediates (from its path).
    pub sign: Option<Signer>,
    /// A second key of the signer's that signs beside it: `sign` is classical then, and this one ML-DSA.
    pub second: Option<Box<Signer>>,
    /// Certificates to encrypt to, with the cipher chosen.
    pub encrypt: Option<EncryptTo>,
    pub profile: Profile,
    pub form: Form,
    pub bcc: Bcc,
}

/// The signer chosen.
#[derive(Debug, Clone)]
pub struct Signer {
    pub key: KeyId,
    /// The key is the domain's, not the author's.
    pub domain: bool,
    pub certificate: Certificate,
    pub chain: Vec<Certificate>,
}

/// The recipient's certificates chosen.
#[derive(Debug, Clone)]
pub struct EncryptTo {
    pub certificates: Vec<Certificate>,
    /// The best cipher that he is known to read: the first of `readable`.
    pub content: ContentEncryption,
    /// The profile's ciphers that may be used for him, best first: recipients of one mail can share the best common one.
    pub readable: Vec<ContentEncryption>,
    /// How the key is transported to RSA keys.
    pub transport: KeyTransport,
}

/// The treatment with the reasons.
#[derive(Debug, Clone)]
pub struct Resolution {
    pub rule: String,
    pub treatment: Treatment,
    pub considered: Vec<Considered>,
}

#[cfg(test)]
mod tests;

//! Entity and plan to a protected entity (RFC 8551 section 3).

use aws_lc_rs::rand;
use bytes::Bytes;
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::cms::algorithm::{ContentEncryption, Digest, Legacy, SignatureScheme};
use crate::cms::enveloped::{self, ContentScheme, EnvelopedData, RecipientScheme};
use crate::cms::error::CmsError;
use crate::cms::signed::{self, CertificateIds, ContentDigests, PreparedSignedData, SignParameters, SignedData};
use crate::keys::{Cek, KeyAnswer, KeyId, KeyOperation};
use crate::mime::canonical;
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::MimeError;
use crate::mime::rope::Rope;
use crate::pki::certificate::Certificate;
use crate::smime::header_protection::{self, HeaderProtection};

/// Clear (multipart/signed) or opaque (application/pkcs7-mime; smime-type=signed-data).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    #[default]
    Clear,
    Opaque,
}

/// Who signs, and how.
#[derive(Debug, Clone)]
pub struct SignPlan {
    pub key: KeyId,
    pub certificate: Certificate,
    /// Intermediates to include.
    pub chain: Vec<Certificate>,
    /// The certificate people are to encrypt to, where it is another one.
    pub encryption_certificate: Option<Certificate>,
    pub scheme: SignatureScheme,
    pub digest: Digest,
    pub form: Form,
    pub signing_time: Timestamp,
    pub capabilities: Vec<ContentEncryption>,
    /// A second signature of the same signer's, by another key: classical and ML-DSA. Each says that the other belongs beside it
    /// (RFC 5752).
    pub second: Option<CoSigner>,
}

/// A further signer beside the plan's, or another key of the same one's: a SignerInfo of its own over the same content.
#[derive(Debug, Clone)]
pub struct CoSigner {
    pub key: KeyId,
    pub certificate: Certificate,
    /// Intermediates to include.
    pub chain: Vec<Certificate>,
    pub scheme: SignatureScheme,
}

/// To whom it is encrypted, and how.
#[derive(Debug, Clone)]
pub struct EncryptPlan {
    pub recipients: Vec<(Certificate, RecipientScheme)>,
    pub content: ContentEncryption,
    /// The content's key is derived from the CEK (RFC 9709).
    pub derive_cek: bool,
}

/// Why a message cannot be sealed: it is never sent in clear instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    Mime(#[from] MimeError),
    #[error(transparent)]
    Cms(#[from] CmsError),
    #[error("key: {0}")]
    Key(#[from] crate::keys::KeyError),
    /// The self-check did not find what was meant to be there.
    #[error("self-check failed: {0}")]
    SelfCheck(&'static str),
    /// A signed message is not signed again: ask `Draft::is_signed` first.
    #[error("the message is signed already, and is not signed again")]
    AlreadySigned,
    /// `Draft::signed` was called on a message that nobody signed.
    #[error("the message is not signed: sign it first")]
    NotSigned,
    /// An encryption for nobody.
    #[error("there is no recipient to encrypt to: name at least one certificate")]
    NoRecipient,
}

/// A message prepared for protection: outer fields and the inner entity, canonical, and 7-bit safe wherever it can be made so
/// without a change of what it says. Where it cannot, its octets are kept, and it travels inside base64 alone: opaque-signed,
/// encrypted, or both.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Fields that stay outside, each with its line end.
    outer: Bytes,
    /// The entity as it stands: Content-* fields, empty line, body.
    entity: Rope,
    signed: bool,
    /// The entity is to travel inside base64 alone.
    kept: bool,
    /// How it was signed here.
    form: Option<Form>,
}

/// A signature under way: give `operations` to a `KeyHolder`, its answers to `finish_all`; or, where there is one signer, `operation` and
/// `finish`.
#[derive(Debug)]
pub struct Signing {
    outer: Bytes,
    content: Rope,
    prepared: PreparedSignedData,
    plan: SignPlan,
    others: Vec<CoSigner>,
}

/// Proof that a message is protected as planned; the only thing that may leave under `encrypt = require`. Made in this
/// module alone; its octets are a rope that is encoded while written.
#[derive(Debug, Clone)]
pub struct Sealed {
    rope: Rope,
    signed: bool,
    form: Option<Form>,
    encrypted_to: Vec<[u8; 32]>,
}

impl Sealed {
    /// The message as it goes out.
    pub fn rope(&self) -> &Rope {
        &self.rope
    }
    pub fn is_signed(&self) -> bool {
        self.signed
    }
    /// The form of the signature that was made here: opaque, whatever the plan says, where a clear one would not survive a 7-bit
    /// hop. `None`: not signed, or signed before it came.
    pub fn form(&self) -> Option<Form> {
        self.form
    }
    /// Fingerprints of the certificates it is encrypted to; empty: not encrypted.
    pub fn encrypted_to(&self) -> &[[u8; 32]] {
        &self.encrypted_to
    }
}

impl Draft {
    /// Takes a message apart (see `mime::canonical::prepare`). A message that is already signed keeps its octets; so does one
    /// that cannot be made safe for 7-bit hops without touching a signed or encrypted part, or without a guess. One that is another
    /// message forwarded says so (`forwarded=yes`), lest it be taken for one that is wrapped (RFC 8551 section 3.1).
    pub fn new(message: &Entity) -> Result<Self, SealError> {
        let limits = MimeLimits::default();
        if is_signed_message(message, &limits) {
            let (outer, mime) = split_fields(message);
            let mut entity = Rope::from(mime);
            entity.push_raw(message.body.clone());
            return Ok(Self { outer, entity, signed: true, kept: false, form: None });
        }
        let forwarding = header_protection::forwarding(message, &limits)?;
        let message = forwarding.as_ref().unwrap_or(message);
        let (prepared, kept) = match canonical::prepare(message, &limits) {
            Ok(prepared) => (prepared, false),
            // RFC 8551 section 3.1.3 asks for 7-bit data in multipart/signed alone.
            Err(_) => (canonical::take_apart(message, &limits)?, true),
        };
        Ok(Self { outer: ended(prepared.outer), entity: prepared.inner, signed: false, kept, form: None })
    }
    /// The same with header fields under protection (RFC 9788), for groups to whom it goes `encrypted`, or is only signed. A message that
    /// is already signed, or says that its fields are protected, keeps them as they are.
    pub fn with_protected_header(message: &Entity, how: HeaderProtection, encrypted: bool) -> Result<Self, SealError> {
        let limits = MimeLimits::default();
        if is_signed_message(message, &limits) {
            return Self::new(message);
        }
        let Some(composed) = header_protection::compose(message, how, encrypted, &limits)? else {
            return Self::new(message);
        };
        let draft = Self::new(&composed.message)?;
        // Fields are not encoded anew: what a 7-bit hop would change travels inside base64.
        let kept = draft.kept || !canonical::is_seven_bit_safe(&composed.inside);
        let mut entity = Rope::from(composed.inside);
        entity.append(draft.entity);
        Ok(Self { entity, kept, ..draft })
    }
    /// Whether the message carries a signature: as it came, or made here.
    pub fn is_signed(&self) -> bool {
        self.signed
    }
    /// The form of the signature that was made here, as [`Sealed::form`] has it.
    pub fn form(&self) -> Option<Form> {
        self.form
    }
    /// Begins a signature, opaque where the entity is to travel inside base64 alone. A message that is signed already is an error: [`Draft::is_signed`] tells before.
    pub fn sign(self, plan: SignPlan) -> Result<Signing, SealError> {
        self.sign_with(plan, Vec::new())
    }
    /// The same with further signers, each with a SignerInfo of his own. Form, time and what is announced are the plan's.
    pub fn sign_with(self, mut plan: SignPlan, others: Vec<CoSigner>) -> Result<Signing, SealError> {
        if self.signed {
            return Err(SealError::AlreadySigned);
        }
        if self.kept {
            plan.form = Form::Opaque;
        }
        let econtent = (plan.form == Form::Opaque).then(|| self.entity.to_bytes());
        let prepared = prepare(&plan, &others, &self.entity, econtent)?;
        Ok(Signing { outer: self.outer, content: self.entity, prepared, plan, others })
    }
    /// Encrypts what is there (signed or not) for one group of recipients; the draft stays for the next group. With
    /// `self_check` the result is read again with its CEK before it is given out.
    pub fn encrypt(&self, plan: &EncryptPlan, self_check: bool) -> Result<Sealed, SealError> {
        if plan.recipients.is_empty() {
            return Err(SealError::NoRecipient);
        }
        let cek = random_cek(plan.content)?;
        let recipients: Vec<_> = plan.recipients.iter().map(|(certificate, scheme)| (certificate, *scheme)).collect();
        let fill = |buffer: &mut Vec<u8>| self.entity.append_to(buffer);
        let how = ContentScheme { cipher: plan.content, derived: plan.derive_cek };
        let envelope = enveloped::seal_with(self.entity.encoded_len(), fill, how, &recipients, &cek)?;
        if self_check {
            check_envelope(&envelope, plan, &cek, &self.entity)?;
        }
        let smime_type = if plan.content.is_authenticated() { "authEnveloped-data" } else { "enveloped-data" };
        let mut rope = self.outer_rope();
        rope.append(pkcs7_mime(smime_type, envelope));
        let encrypted_to = plan.recipients.iter().map(|(certificate, _)| certificate.fingerprint()).collect();
        Ok(Sealed { rope, signed: self.signed, form: self.form, encrypted_to })
    }
    /// The signed message as it is, for recipients whose plan does not encrypt. An error when it was not signed. A message
    /// that came signed is given back with its signed octets.
    pub fn signed(&self) -> Result<Sealed, SealError> {
        if !self.signed {
            return Err(SealError::NotSigned);
        }
        let mut rope = self.outer_rope();
        rope.append(self.entity.clone());
        Ok(Sealed { rope, signed: true, form: self.form, encrypted_to: Vec::new() })
    }
    fn outer_rope(&self) -> Rope {
        let mut rope = Rope::from(self.outer.clone());
        rope.push_raw(Bytes::from_static(b"MIME-Version: 1.0\r\n"));
        rope
    }
}

impl Signing {
    /// What the plan's key has to do.
    pub fn operation(&self) -> KeyOperation {
        KeyOperation::Sign { key: self.plan.key, scheme: self.plan.scheme, message: self.prepared.to_sign() }
    }
    /// What the keys have to do: the plan's first, its second one where it has one, then the others'.
    pub fn operations(&self) -> Vec<KeyOperation> {
        let further = self.plan.second.iter().chain(&self.others).map(|other| (other.key, other.scheme));
        let keys = std::iter::once((self.plan.key, self.plan.scheme)).chain(further);
        keys.zip(self.prepared.all_to_sign())
            .map(|((key, scheme), message)| KeyOperation::Sign { key, scheme, message })
            .collect()
    }
    /// Puts the signature in place; with `self_check` it is verified over the octets as a 7-bit hop leaves them. An error where there are
    /// several signers.
    pub fn finish(self, answer: KeyAnswer, self_check: bool) -> Result<Draft, SealError> {
        self.finish_all(vec![answer], self_check)
    }
    /// The same with an answer to each of `operations`, in their order.
    pub fn finish_all(self, answers: Vec<KeyAnswer>, self_check: bool) -> Result<Draft, SealError> {
        let signatures = answers.into_iter().map(|answer| match answer {
            KeyAnswer::Signature(signature) => Ok(signature),
            KeyAnswer::Cek(_) => {
                Err(SealError::Key(crate::keys::KeyError::Unsuitable("a signature was asked for, a CEK came back")))
            }
        });
        let signatures = signatures.collect::<Result<Vec<_>, _>>()?;
        let object = self.prepared.finish_all(&signatures)?;
        if self_check {
            check_signatures(&object, &self.content.to_bytes(), &self.plan, &self.others)?;
        }
        let entity = match self.plan.form {
            Form::Opaque => pkcs7_mime("signed-data", object),
            Form::Clear => {
                let mut digests = vec![self.plan.digest];
                digests.extend(self.plan.second.iter().chain(&self.others).map(|other| other.scheme.digest()));
                multipart_signed(self.content, object, &micalg(&digests), self_check)?
            }
        };
        Ok(Draft { outer: self.outer, entity, signed: true, kept: false, form: Some(self.plan.form) })
    }
}

/// Whether a message is S/MIME signed in form: multipart/signed whose second part is a detached SignedData with a signer,
/// or an opaque SignedData. Says nothing about who signed.
pub fn is_signed_message(message: &Entity, limits: &MimeLimits) -> bool {
    use super::open::{Shape, shape};
    match shape(message, limits) {
        Ok(Shape::ClearSigned { signature, .. }) => {
            SignedData::parse(&signature).is_ok_and(|data| !data.signers.is_empty())
        }
        Ok(Shape::Pkcs7 { object }) => SignedData::parse(&object).is_ok_and(|data| !data.signers.is_empty()),
        _ => false,
    }
}

/// Outer fields, and MIME's (Content-*) with the empty line; both octet for octet.
fn split_fields(message: &Entity) -> (Bytes, Bytes) {
    let (mut outer, mut mime) = (Vec::new(), Vec::new());
    for field in &message.header.fields {
        if is_content_field(field.name()) {
            push_field(&mut mime, &field.raw);
        } else if !field.is("MIME-Version") {
            push_field(&mut outer, &field.raw);
        }
    }
    mime.extend_from_slice(b"\r\n");
    (outer.into(), mime.into())
}

/// Content-Type and its kin (RFC 2045 section 9).
pub(in crate::smime) fn is_content_field(name: &str) -> bool {
    name.as_bytes().get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"))
}

/// Adds a field, its line end made good where it was the last and had none.
pub(in crate::smime) fn push_field(header: &mut Vec<u8>, field: &[u8]) {
    header.extend_from_slice(field);
    if !field.ends_with(b"\n") {
        header.extend_from_slice(b"\r\n");
    }
}

/// The fields with their last line ended.
fn ended(fields: Bytes) -> Bytes {
    if fields.is_empty() || fields.ends_with(b"\n") {
        return fields;
    }
    let mut octets = Vec::from(fields);
    octets.extend_from_slice(b"\r\n");
    octets.into()
}

/// An application/pkcs7-mime entity (RFC 8551 section 3.2).
pub(in crate::smime) fn pkcs7_mime(smime_type: &str, object: Bytes) -> Rope {
    let mut rope = Rope::new();
    rope.push_raw(format!(
        "Content-Type: application/pkcs7-mime; smime-type={smime_type};\r\n name=smime.p7m\r\n\
         Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=smime.p7m\r\n\r\n"
    ));
    rope.push_base64(object);
    rope
}

/// A multipart/signed entity (RFC 8551 section 3.5.3).
fn multipart_signed(content: Rope, signature: Bytes, micalg: &str, self_check: bool) -> Result<Rope, SealError> {
    let mut random = [0; 18];
    rand::fill(&mut random).map_err(|_| CmsError::Crypto)?;
    let boundary = boundary(&random);
    // Pieces meet at line ends, where no boundary lies across.
    if self_check && content.chunks(usize::MAX).any(|piece| memchr::memmem::find(&piece, boundary.as_bytes()).is_some())
    {
        return Err(SealError::SelfCheck("the boundary stands in the content"));
    }
    Ok(multipart_signed_with(content, signature, micalg, &boundary))
}

/// The same with a boundary that is known not to stand in the content.
pub(in crate::smime) fn multipart_signed_with(content: Rope, signature: Bytes, micalg: &str, boundary: &str) -> Rope {
    let mut rope = Rope::new();
    rope.push_raw(format!(
        "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n micalg={micalg};\r\n boundary=\"{boundary}\"\r\n\r\n\
         This is a cryptographically signed message in MIME format.\r\n\r\n--{boundary}\r\n"
    ));
    rope.append(content);
    rope.push_raw(format!(
        "\r\n--{boundary}\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=smime.p7s\r\n\r\n"
    ));
    rope.push_base64(signature);
    rope.push_raw(format!("\r\n--{boundary}--\r\n"));
    rope
}

/// The value of micalg (RFC 8551 section 3.5.3.2): each digest once, quoted where a comma stands between several.
fn micalg(digests: &[Digest]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in digests.iter().map(|digest| digest.micalg()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.as_slice() {
        [one] => (*one).to_owned(),
        several => format!("\"{}\"", several.join(",")),
    }
}

/// A boundary from random octets or a digest. "=_" stands in no quoted-printable or base64 line (RFC 2045 section 6.7).
pub(in crate::smime) fn boundary(octets: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * octets.len());
    text.push_str("=_");
    text.extend(hex(octets));
    text
}

/// Octets as digits, two for each.
pub(in crate::smime) fn hex(octets: &[u8]) -> impl Iterator<Item = char> {
    let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 0x0f]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16))
}

fn random_cek(content: ContentEncryption) -> Result<Cek, SealError> {
    let mut cek = Zeroizing::new(vec![0; content.key_len()]);
    rand::fill(&mut cek).map_err(|_| CmsError::Crypto)?;
    Ok(cek)
}

/// Octets of a rope looked at in one go.
const CHUNK: usize = 64 * 1024;

/// A SignerInfo for each signature: those of the plan name each other, the others stand for themselves.
fn prepare(
    plan: &SignPlan,
    others: &[CoSigner],
    entity: &Rope,
    econtent: Option<Bytes>,
) -> Result<PreparedSignedData, SealError> {
    let first = SignParameters {
        signer: &plan.certificate,
        chain: &plan.chain,
        scheme: plan.scheme,
        digest: plan.digest,
        signing_time: plan.signing_time,
        capabilities: &plan.capabilities,
        encryption_certificate: plan.encryption_certificate.as_ref(),
    };
    let further = |other| {
        let CoSigner { certificate: signer, chain, scheme, .. }: &CoSigner = other;
        SignParameters { signer, chain, scheme: *scheme, digest: scheme.digest(), ..first.clone() }
    };
    let of_others = others.iter().map(|other| SignParameters { encryption_certificate: None, ..further(other) });
    let all: Vec<SignParameters<'_>> =
        std::iter::once(first.clone()).chain(plan.second.iter().map(further)).chain(of_others).collect();
    let digests: Vec<Vec<u8>> = all.iter().map(|how| signed::digest_of(how.digest, entity.chunks(CHUNK))).collect();
    let signers: Vec<_> = all.iter().zip(digests.iter().map(Vec::as_slice)).collect();
    let own = if plan.second.is_some() { 2 } else { 1 };
    Ok(signed::prepare_guarded(&signers, own, econtent)?)
}

/// The signatures read back and verified over the content as it will be seen.
fn check_signatures(object: &Bytes, content: &Bytes, plan: &SignPlan, others: &[CoSigner]) -> Result<(), SealError> {
    if plan.form == Form::Clear && !canonical::is_seven_bit_safe(content) {
        return Err(SealError::SelfCheck("the signed content would not survive a 7-bit hop"));
    }
    let data = SignedData::parse(object)?;
    match (&data.econtent, plan.form) {
        (None, Form::Clear) => {}
        (Some(econtent), Form::Opaque) if econtent == content => {}
        _ => return Err(SealError::SelfCheck("the SignedData does not carry the content that was signed")),
    }
    let further = || plan.second.iter().chain(others).map(|other| &other.certificate);
    if data.signers.len() != further().count() + 1 {
        return Err(SealError::SelfCheck("the SignedData has other signers than those that signed"));
    }
    let digests = ContentDigests::new(content);
    for certificate in std::iter::once(&plan.certificate).chain(further()) {
        let signer = data.signers.iter().find(|signer| signer.id.names(certificate));
        let signer = signer.ok_or(SealError::SelfCheck("the SignerInfo names another certificate"))?;
        signer
            .verify_with(&data, &digests, certificate, certificate.public_key(), Legacy::default())
            .map_err(|_| SealError::SelfCheck("the signature does not verify: is the key the certificate's?"))?;
    }
    Ok(())
}

/// The envelope read back: every recipient named, and what the CEK opens is what went in.
fn check_envelope(envelope: &Bytes, plan: &EncryptPlan, cek: &Cek, entity: &Rope) -> Result<(), SealError> {
    let read = EnvelopedData::parse(envelope, Legacy::default())?;
    if read.content != plan.content || read.is_derived() != plan.derive_cek {
        return Err(SealError::SelfCheck("the envelope names another cipher"));
    }
    let named: CertificateIds<'_> = read.recipients.iter().filter_map(|info| info.id.as_ref()).collect();
    if !plan.recipients.iter().all(|(certificate, _)| named.name(certificate)) {
        return Err(SealError::SelfCheck("a recipient has no RecipientInfo"));
    }
    if read.recipients.len() != plan.recipients.len() {
        return Err(SealError::SelfCheck("the envelope is open to somebody who was not named"));
    }
    let opened = read.open(cek)?;
    let mut rest: &[u8] = &opened;
    for chunk in entity.chunks(CHUNK) {
        match rest.split_at_checked(chunk.len()) {
            Some((head, tail)) if head == &chunk[..] => rest = tail,
            _ => return Err(SealError::SelfCheck("the envelope holds other octets than those that went in")),
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(SealError::SelfCheck("the envelope holds more octets than went in")) }
}

#[cfg(test)]
mod tests;

//! What the signers of one SignedData are worth (A6, A7).

use bytes::Bytes;

use super::{Announced, OpenContext};
use crate::address::Mailbox;
use crate::cms::algorithm::{Capabilities, Digest, Legacy, SignatureScheme, signature_scheme};
use crate::cms::error::CmsError;
use crate::cms::signed::{CertificateId, ContentDigests, Countersignature, SignedData, SignerInfo};
use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::Header;
use crate::pki::certificate::name::to_text;
use crate::pki::certificate::{Certificate, Purpose};
use crate::pki::path::{self, Budget, NO_MORE_CHECKS, PathMemory, PathQuestion, ValidPath};
use crate::pki::revocation::{self, Demand, Evidence, Need};
use crate::smime::seal::hex;
use crate::smime::verdict::{SignerReport, VerifiedDomain, VerifiedSigner};

/// The content type of MIME entities, id-data (RFC 8551 section 2.4.1).
pub(super) const ID_DATA: &str = "1.2.840.113549.1.7.1";

/// Signers looked at in one SignedData (A11).
const SIGNERS: usize = 16;

/// How a signed layer came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Proven: every known signature fits, and one signer is the author.
    Verified,
    /// A signature is wrong, or the form is: never valid.
    Bad(String),
    /// The arithmetic is good; path, author or algorithm are not as they must be.
    Unaccepted(String),
    /// The author is somebody else than the signer.
    OtherAuthor(String),
    /// The author's domain signed, and no person.
    Domain(String),
    /// Nothing could be checked.
    Unchecked(String),
}

/// A signed layer judged.
pub(super) struct Judgement {
    pub reports: Vec<SignerReport>,
    pub standing: Standing,
    pub signer: Option<VerifiedSigner>,
    /// The author's domain, where its key signed.
    pub domain: Option<VerifiedDomain>,
    /// What signers that are good in every way say of their certificates.
    pub announced: Vec<Announced>,
    /// What would tell more of their state.
    pub needs: Vec<Need>,
}

/// Judges every signer of `data` over `content`, with the signature checks that are `left` for the message (A11).
pub(super) fn judge(
    data: &SignedData,
    content: &Bytes,
    author: &Result<Mailbox, String>,
    context: &OpenContext,
    left: &mut Budget,
) -> Judgement {
    let mut judgement = Judgement {
        reports: Vec::new(),
        standing: Standing::Verified,
        signer: None,
        domain: None,
        announced: Vec::new(),
        needs: Vec::new(),
    };
    if data.signers.len() > SIGNERS {
        judgement.standing = Standing::Bad(format!("{} signers, at most {SIGNERS} are looked at", data.signers.len()));
        return judgement;
    }
    let mut weak = None;
    let mut bad = None;
    let mut checked = 0_usize;
    let digests = ContentDigests::new(content);
    for info in &data.signers {
        let (report, arithmetic) = report(info, data, &digests, author, context, &mut judgement.needs, left);
        match arithmetic {
            Arithmetic::Good => checked = checked.saturating_add(1),
            Arithmetic::Bad(why) => bad = bad.or(Some(why)),
            Arithmetic::Weak(why) => weak = weak.or(Some(why)),
            Arithmetic::Unknown => {}
        }
        judgement.reports.push(report);
    }
    judgement.standing = if let Some(why) = bad {
        Standing::Bad(why)
    } else if let Some(why) = weak {
        Standing::Unaccepted(why)
    } else if data.signers.is_empty() {
        Standing::Unchecked("there is no signer".into())
    } else if checked == 0 {
        Standing::Unchecked("no signature of a known algorithm".into())
    } else {
        conclude(&mut judgement, data, author)
    };
    if (judgement.signer.is_some() || judgement.domain.is_some())
        && let Err(why) = names_no_other(content, author, &context.mime)
    {
        judgement.standing = Standing::OtherAuthor(why);
        judgement.signer = None;
        judgement.domain = None;
        judgement.announced.clear();
    }
    judgement
}

/// Whether the signed part shows no other author than the message: mail programs that honour protected header fields
/// (RFC 9788), or unwrap a message/rfc822 (RFC 8551 section 3.1), show the From in it.
pub(super) fn names_no_other(
    content: &Bytes,
    author: &Result<Mailbox, String>,
    limits: &MimeLimits,
) -> Result<(), String> {
    // What cannot be read as an entity shows no header.
    let Ok(entity) = Entity::parse(content.clone(), limits) else { return Ok(()) };
    only_author(&entity.header, author)?;
    let wrapped = entity
        .content_type_lenient()
        .is_ok_and(|one| matches!(one.essence.as_str(), "message/rfc822" | "message/global"));
    if !wrapped {
        return Ok(());
    }
    let body = entity.decoded_body().map_err(|error| format!("the signed message cannot be read: {error}"))?;
    let message = Entity::parse(body, limits).map_err(|error| format!("the signed message cannot be read: {error}"))?;
    only_author(&message.header, author)
}

fn only_author(header: &Header, author: &Result<Mailbox, String>) -> Result<(), String> {
    if header.all("From").next().is_none() {
        return Ok(());
    }
    let shown =
        header.single_from().map_err(|error| format!("From in the signed part names no single author: {error}"))?;
    match author {
        Ok(author) if author.key() == shown.key() => Ok(()),
        _ => Err(format!("From in the signed part is {shown}, and not the message's")),
    }
}

/// All known signatures are good: is one signer the author, with a valid path?
fn conclude(judgement: &mut Judgement, data: &SignedData, author: &Result<Mailbox, String>) -> Standing {
    if data.econtent_type != ID_DATA {
        return Standing::Unaccepted(format!("what is signed is no MIME entity but {}", data.econtent_type));
    }
    let good = judgement.reports.iter().zip(&data.signers).filter(|(report, _)| report.signature.is_ok());
    let domain = author.as_ref().ok().map(Mailbox::domain);
    let (mut why, mut of_domain) = (None, None);
    for (report, info) in good {
        let Some(certificate) = &report.certificate else { continue };
        match (&report.path, &report.matches_from) {
            (Ok(path), Ok(mailbox)) => {
                let signer = VerifiedSigner::new(mailbox.clone(), certificate.clone());
                // What only the legacy switches let in may be read, and is no ground to trust a key.
                judgement.announced.extend(report.weak.is_empty().then(|| Announced {
                    signer: signer.clone(),
                    path: path.clone(),
                    signing_time: info.signing_time,
                    capabilities: report.capabilities.clone(),
                    preference: info.encryption_key_preference.clone(),
                    company: data.certificates.clone(),
                }));
                judgement.signer.get_or_insert(signer);
            }
            (Err(reason), _) => why = why.or(Some(Standing::Unaccepted(reason.clone()))),
            (Ok(_), Err(reason)) => match domain {
                Some(domain) if certificate.is_for_domain(domain, Purpose::Signature) => {
                    of_domain.get_or_insert_with(|| VerifiedDomain::new(domain.clone(), certificate.clone()));
                }
                _ => why = why.or(Some(Standing::OtherAuthor(reason.clone()))),
            },
        }
    }
    match (&judgement.signer, why, of_domain) {
        (Some(_), ..) => Standing::Verified,
        (None, Some(standing), _) => standing,
        (None, None, Some(of_domain)) => {
            let why = format!("signed by the domain {}, which does not tell who in it wrote", of_domain.domain());
            judgement.domain = Some(of_domain);
            Standing::Domain(why)
        }
        (None, None, None) => Standing::Unchecked("no signer could be judged".into()),
    }
}

enum Arithmetic {
    Good,
    Bad(String),
    /// Refused as too weak, or the checks are spent: not looked at further.
    Weak(String),
    Unknown,
}

fn report(
    info: &SignerInfo,
    data: &SignedData,
    content: &ContentDigests<'_>,
    author: &Result<Mailbox, String>,
    context: &OpenContext,
    needs: &mut Vec<Need>,
    left: &mut Budget,
) -> (SignerReport, Arithmetic) {
    let certificate = find(&info.id, data, context);
    let mut report = SignerReport {
        certificate: certificate.clone(),
        algorithm: info.scheme.as_ref().map_or_else(|error| error.to_string(), |scheme| scheme_name(*scheme)),
        signing_time: info.signing_time,
        capabilities: info.capabilities.as_ref().and_then(|list| Capabilities::read(list).ok().flatten()),
        prefers: info.encryption_key_preference.as_ref().map(id_text),
        signature: Err("not checked".into()),
        path: Err("not looked for: the signature is not good".into()),
        revocation: None,
        matches_from: Err("not compared: the signature is not good".into()),
        weak: Vec::new(),
        countersigned: info.countersignatures.iter().map(countersigned).collect(),
    };
    if let Err(error) = &info.scheme {
        report.signature = Err(format!("unchecked: {error}"));
        return (report, Arithmetic::Unknown);
    }
    let Some(certificate) = certificate else {
        let why = format!("no certificate of the signer: looked for {}", id_text(&info.id));
        report.signature = Err(why.clone());
        return (report, Arithmetic::Bad(why));
    };
    let (memory, known) = recall(&certificate, data, author, context);
    // The same octets, the key prepared.
    let certificate = known.as_ref().map_or(certificate, |path| path.leaf().clone());
    if !left.take(certificate.public_key().kind()) {
        let why = format!("gave up after {NO_MORE_CHECKS}");
        report.signature = Err(why.clone());
        return (report, Arithmetic::Weak(why));
    }
    match info.verify_with(data, content, &certificate, certificate.public_key(), context.legacy) {
        Ok(()) => {}
        Err(CmsError::Algorithm(why)) => {
            let why = format!("algorithm refused: {why}");
            report.signature = Err(why.clone());
            return (report, Arithmetic::Weak(why));
        }
        Err(error) => {
            report.signature = Err(error.to_string());
            return (report, Arithmetic::Bad(error.to_string()));
        }
    }
    report.signature = Ok(());
    report.path = match known {
        Some(path) => Ok(path),
        None => find_path(&certificate, data, author, context, memory, left),
    };
    if let (Ok(path), true) = (&report.path, context.revocation != Demand::Off) {
        let brought = Evidence::of(&data.crls, &data.ocsp);
        let (source, extra) = (context.evidence.as_ref(), &data.certificates);
        let judged =
            revocation::check_within(path, source, &brought, extra, &context.trust, context.at, &context.path, left);
        needs.extend(judged.needs);
        if let Some(why) = context.revocation.refuses(&judged.status) {
            report.path = Err(why);
        }
        report.revocation = Some(judged.status);
    }
    if context.legacy != Legacy::default() {
        report.weak = weaknesses(info, &certificate, report.path.as_ref().ok());
    }
    report.matches_from = match author {
        Ok(mailbox) if certificate.names(&mailbox.key(), context.email_in_subject) => Ok(mailbox.clone()),
        Ok(mailbox) => Err(format!("the certificate is for {}, From is {mailbox}", names(&certificate))),
        Err(error) => Err(format!("From names no single author: {error}")),
    };
    (report, Arithmetic::Good)
}

/// What the legacy switches let in: in the signature, in the signer's key, in the path below its anchor.
fn weaknesses(info: &SignerInfo, signer: &Certificate, path: Option<&ValidPath>) -> Vec<String> {
    let mut weak = Vec::new();
    if info.digest == Some(Digest::Sha1) {
        weak.push("signed with SHA-1".to_owned());
    }
    let chain = path.map(ValidPath::chain).unwrap_or_default();
    let below = chain.split_last().map(|(_, below)| below).unwrap_or_default();
    let with_sha1 = |one: &Certificate| {
        signature_scheme(one.signature_algorithm(), None).is_ok_and(|scheme| scheme.digest() == Digest::Sha1)
    };
    if below.iter().any(with_sha1) {
        weak.push("a certificate signed with SHA-1".to_owned());
    }
    for certificate in std::iter::once(signer).chain(chain) {
        let key = certificate.public_key();
        let text = format!("a key of {}", key.kind().name());
        if key.is_weak() && !weak.contains(&text) {
            weak.push(text);
        }
    }
    weak
}

/// A countersignature in words.
fn countersigned(by: &Countersignature) -> String {
    let how = by.scheme.as_ref().map_or_else(ToString::to_string, |scheme| scheme_name(*scheme));
    format!("{}, {how}; not checked, not counted", id_text(&by.id))
}

/// What is asked about the signer's path.
fn question<'q>(
    leaf: &'q Certificate,
    data: &'q SignedData,
    author: &'q Result<Mailbox, String>,
    context: &'q OpenContext,
) -> Option<PathQuestion<'q>> {
    let domain = author.as_ref().ok()?.domain();
    let (extra, trust) = (data.certificates.as_slice(), &*context.trust);
    Some(PathQuestion { leaf, extra, trust, purpose: Purpose::Signature, domain, at: context.at })
}

/// The memory that may be asked, and the path in it.
fn recall<'m>(
    leaf: &Certificate,
    data: &SignedData,
    author: &Result<Mailbox, String>,
    context: &'m OpenContext,
) -> (Option<&'m dyn PathMemory>, Option<ValidPath>) {
    let memory = context.paths.as_deref().filter(|memory| *memory.limits() == context.path);
    let question = question(leaf, data, author, context);
    (memory, memory.zip(question).and_then(|(memory, question)| memory.recall(&question)))
}

fn find_path(
    leaf: &Certificate,
    data: &SignedData,
    author: &Result<Mailbox, String>,
    context: &OpenContext,
    memory: Option<&dyn PathMemory>,
    left: &mut Budget,
) -> Result<ValidPath, String> {
    let domain = author.as_ref().ok().map(Mailbox::domain);
    let extra = &data.certificates;
    let (trust, at, limits) = (&context.trust, context.at, &context.path);
    let found = path::validate_within(leaf, extra, trust, Purpose::Signature, domain, at, limits, left);
    if let (Ok(path), Some(memory), Some(question)) = (&found, memory, question(leaf, data, author, context)) {
        memory.keep(&question, path);
    }
    found.map_err(|error| error.to_string())
}

/// The signer's certificate: from the message, else from the store.
fn find(id: &CertificateId, data: &SignedData, context: &OpenContext) -> Option<Certificate> {
    let anchors = context.trust.anchors.iter().map(|anchor| &anchor.certificate);
    let own = context.keys.iter().map(|own| &own.certificate);
    data.certificates
        .iter()
        .chain(&context.trust.intermediates)
        .chain(own)
        .chain(anchors)
        .find(|one| id.names(one))
        .cloned()
}

fn names(certificate: &Certificate) -> String {
    let names: Vec<String> = certificate.mailboxes().iter().take(4).map(ToString::to_string).collect();
    if names.is_empty() { "no mail address".into() } else { names.join(", ") }
}

/// How people call a signature scheme.
pub(in crate::smime) fn scheme_name(scheme: SignatureScheme) -> String {
    match scheme {
        SignatureScheme::RsaPkcs1(digest) => format!("RSA PKCS#1 v1.5, {}", digest.name()),
        SignatureScheme::RsaPss(digest, salt) => format!("RSA-PSS, {}, salt of {salt}", digest.name()),
        SignatureScheme::Ecdsa(digest) => format!("ECDSA, {}", digest.name()),
        SignatureScheme::Ed25519 | SignatureScheme::MlDsa(_) | SignatureScheme::SlhDsa(_) => scheme.name(),
    }
}

/// A signer or recipient in words: serial number and issuer, or key identifier.
pub(in crate::smime) fn id_text(id: &CertificateId) -> String {
    let (what, octets, issuer) = match id {
        CertificateId::IssuerAndSerial { serial, issuer } => ("serial number", serial, Some(issuer)),
        CertificateId::SubjectKeyIdentifier(key) => ("key identifier", key, None),
    };
    let mut text = String::from(what);
    text.push(' ');
    text.extend(hex(octets.get(..32).unwrap_or(octets)));
    if let Some(issuer) = issuer {
        text.push_str(" of ");
        text.extend(to_text(issuer).chars().take(200));
    }
    text
}

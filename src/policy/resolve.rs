//! What a rule means with the facts at hand. Fails closed: clear only where the rule says so, or where it is known that there
//! is no certificate and the rule only prefers encryption.

use std::borrow::Cow;

use jiff::Timestamp;

use super::{
    Candidate, ClearByPolicy, Considered, EncryptMode, EncryptTo, Facts, Family, Known, MaySign, Missing, Plan, Policy,
    Profile, Resolution, Rule, SignMode, SignWith, Signatures, Signer, Treatment, TrustState,
};
use crate::cms::algorithm::{ContentEncryption, KeyTransport};
use crate::pki::certificate::Purpose;
use crate::pki::path::ValidPath;

/// RFC 3463 X.7.1: delivery not authorised, by policy.
const POLICY: (u16, u16) = (7, 1);
/// RFC 3463 X.7.5: the key needed is not available or not valid.
const CRYPTO: (u16, u16) = (7, 5);
/// RFC 3463 X.4.3: a directory does not answer.
const DIRECTORY: (u16, u16) = (4, 3);
/// RFC 3463 X.3.5: the system is not set up right.
const CONFIGURATION: (u16, u16) = (3, 5);

/// A refusal on the way to a plan.
struct Stop {
    transient: bool,
    why: (u16, u16),
    text: String,
    /// `missing = hold` may keep the mail in place of refusing it.
    may_hold: bool,
}

impl Stop {
    fn permanent(why: (u16, u16), text: String) -> Self {
        Self { transient: false, why, text, may_hold: false }
    }
    fn transient(why: (u16, u16), text: String) -> Self {
        Self { transient: true, why, text, may_hold: false }
    }
    fn missing(text: String) -> Self {
        Self { transient: false, why: CRYPTO, text, may_hold: true }
    }
}

/// What `rule` means with these facts at this time.
pub fn resolve(policy: &Policy, rule: &Rule, facts: &Facts, now: Timestamp) -> Resolution {
    let mut considered = Vec::new();
    let treatment = treat(policy, rule, facts, now, &mut considered).unwrap_or_else(|stop| match rule.action.missing {
        Missing::Hold if stop.may_hold => Treatment::Hold { text: stop.text },
        _ => {
            let class = if stop.transient { 4 } else { 5 };
            Treatment::Refuse { transient: stop.transient, enhanced: (class, stop.why.0, stop.why.1), text: stop.text }
        }
    });
    Resolution { rule: rule.name.clone(), treatment, considered }
}

fn treat(
    policy: &Policy,
    rule: &Rule,
    facts: &Facts,
    now: Timestamp,
    considered: &mut Vec<Considered>,
) -> Result<Treatment, Stop> {
    let action = &rule.action;
    if let Some(text) = &action.reject {
        return Err(Stop::permanent(POLICY, text.clone()));
    }
    if action.pass {
        if action.encrypt == EncryptMode::Require || action.sign == SignMode::Require {
            let text = format!("rule {:?} says both pass and require; correct the configuration", rule.name);
            return Err(Stop::transient(CONFIGURATION, text));
        }
        return Ok(Treatment::Clear(ClearByPolicy { rule: rule.name.clone() }));
    }
    // Encryption first: what is refused for lack of a certificate should say so, whatever the signer lacks.
    let profile = profile(policy, rule)?;
    let encrypt = encrypt(rule, &profile, &facts.recipient, now, considered)?;
    let (sign, second) = sign(rule, &profile, facts, now, considered)?;
    if sign.is_none() && encrypt.is_none() {
        return Ok(Treatment::Clear(ClearByPolicy { rule: rule.name.clone() }));
    }
    let (rule, form, bcc) = (rule.name.clone(), action.form, action.bcc);
    Ok(Treatment::Protect(Plan { rule, sign, second, encrypt, profile, form, bcc }))
}

fn profile(policy: &Policy, rule: &Rule) -> Result<Profile, Stop> {
    let name = if rule.action.profile.is_empty() { "compatible" } else { rule.action.profile.as_str() };
    policy
        .profiles
        .get(name)
        .cloned()
        .or_else(|| Profile::builtin(name))
        .filter(|profile| !profile.content.is_empty())
        .ok_or_else(|| {
            Stop::transient(
                CONFIGURATION,
                format!(
                    "rule {:?} names the profile {name:?}, which does not exist; run waxwing config check",
                    rule.name
                ),
            )
        })
}

/// Whom to encrypt to; `None`: nobody, and policy allows it.
fn encrypt(
    rule: &Rule,
    profile: &Profile,
    known: &Known,
    now: Timestamp,
    considered: &mut Vec<Considered>,
) -> Result<Option<EncryptTo>, Stop> {
    let action = &rule.action;
    let required = match action.encrypt {
        EncryptMode::Never => return Ok(None),
        EncryptMode::Prefer => false,
        EncryptMode::Require => true,
    };
    let downgrade = !required && action.allow_downgrade;
    let candidates = match known {
        Known::Unknown(_) if downgrade => return Ok(None),
        Known::Unknown(why) => {
            return Err(Stop::transient(DIRECTORY, format!("cannot tell now which certificate to encrypt to: {why}")));
        }
        Known::Disabled if downgrade => return Ok(None),
        Known::Disabled => {
            return Err(Stop::permanent(
                CRYPTO,
                "the recipient is disabled in the store: no new mail is encrypted to him".into(),
            ));
        }
        Known::Candidates(candidates) => candidates,
    };
    let first = profile.encrypt_first;
    let mut usable = usable("recipient", Purpose::Encryption, candidates, action.domain_key, first, now, considered);
    if usable.is_empty() {
        let all_unusable = considered.iter().filter(|one| one.role == "recipient").filter_map(|one| {
            one.outcome.as_ref().err().map(|why| format!("{}: {why}", one.certificate.subject_text()))
        });
        let reasons = all_unusable.collect::<Vec<_>>().join("; ");
        return match (required, candidates.is_empty() || only_foreign_domain(candidates, action.domain_key)) {
            (true, true) => Err(Stop::missing("no certificate is known, and encryption is required".into())),
            (false, true) => Ok(None),
            (_, false) if downgrade => Ok(None),
            (_, false) => Err(Stop::missing(format!("no certificate that may be used ({reasons})"))),
        };
    }
    if !action.all_valid {
        usable.truncate(1);
    }
    mark_used("recipient", &usable, considered);
    let readable = ciphers(profile, &usable);
    let content = readable.first().copied().unwrap_or(ContentEncryption::Aes256Cbc);
    let transport = transport(profile, &usable);
    let certificates = usable.into_iter().map(|candidate| candidate.certificate.clone()).collect();
    Ok(Some(EncryptTo { certificates, content, readable, transport }))
}

/// Whether one of them may be encrypted to now, by a rule that does or does not use domain certificates: where none may, sources are asked.
pub fn may_encrypt(candidates: &[Candidate], domain_key: bool, now: Timestamp) -> bool {
    candidates.iter().any(|candidate| judge(candidate, Purpose::Encryption, domain_key, now).is_ok())
}

/// Domain certificates that this rule does not use count as none.
fn only_foreign_domain(candidates: &[Candidate], domain_key: bool) -> bool {
    !domain_key && candidates.iter().all(|candidate| candidate.domain)
}

/// Who signs, and with which second key; `None`: nobody, and policy allows it.
fn sign(
    rule: &Rule,
    profile: &Profile,
    facts: &Facts,
    now: Timestamp,
    considered: &mut Vec<Considered>,
) -> Result<(Option<Signer>, Option<Box<Signer>>), Stop> {
    let required = match rule.action.sign {
        SignMode::Never => return Ok((None, None)),
        SignMode::IfKey => false,
        SignMode::Require => true,
    };
    match &facts.may_sign {
        MaySign::NotNeeded(_) => return Ok((None, None)),
        MaySign::No(_) if !required => return Ok((None, None)),
        MaySign::No(why) => {
            return Err(Stop::permanent(POLICY, format!("may not be signed, and a signature is required: {why}")));
        }
        MaySign::Yes => {}
    }
    let candidates = match &*facts.signer {
        Known::Unknown(why) => {
            return Err(Stop::transient(DIRECTORY, format!("cannot tell now which key signs: {why}")));
        }
        Known::Disabled if !required => return Ok((None, None)),
        Known::Disabled => {
            return Err(Stop::permanent(
                POLICY,
                "the sender is disabled in the store: nothing is signed for him".into(),
            ));
        }
        Known::Candidates(candidates) => candidates,
    };
    let domain_key = rule.action.sign_with != SignWith::Author;
    let first = match profile.signatures {
        Signatures::One(family) => family,
        Signatures::Both => Family::Classical,
    };
    let usable = usable("signer", Purpose::Signature, candidates, domain_key, first, now, considered);
    let able: Vec<_> = usable
        .iter()
        .filter_map(|candidate| {
            profile.signature_scheme(candidate.certificate.public_key())?;
            Some((*candidate, signer(candidate)?))
        })
        .collect();
    let second = match profile.signatures {
        Signatures::Both => second(&able),
        Signatures::One(_) => None,
    };
    let Some((candidate, chosen)) = able.first().cloned() else {
        if !required {
            return Ok((None, None));
        }
        let why: Vec<_> = considered
            .iter()
            .filter(|one| one.role == "signer")
            .filter_map(|one| one.outcome.as_ref().err().map(AsRef::as_ref))
            .collect();
        let why = if why.is_empty() { "none is in the store".to_owned() } else { why.join("; ") };
        return Err(Stop::transient(
            CRYPTO,
            format!("no signing key that may be used, and a signature is required ({why})"),
        ));
    };
    let used: Vec<_> = std::iter::once(candidate).chain(second.as_ref().map(|(candidate, _)| *candidate)).collect();
    mark_used("signer", &used, considered);
    Ok((Some(chosen), second.map(|(_, signer)| Box::new(signer))))
}

/// The key that signs beside the first of `able`, which is the best classical one where there is one: the best ML-DSA key.
fn second<'c>(able: &[(&'c Candidate, Signer)]) -> Option<(&'c Candidate, Signer)> {
    let family = |one: &Candidate| Family::of(one.certificate.public_key().kind());
    let (first, _) = able.first().filter(|(first, _)| family(first) == Family::Classical)?;
    let beside = |one: &Candidate| family(one) == Family::PostQuantum && one.domain == first.domain;
    able.iter().find(|(candidate, _)| beside(candidate)).cloned()
}

fn signer(candidate: &Candidate) -> Option<Signer> {
    let (key, path) = (candidate.key?, candidate.path.as_ref().ok()?);
    let (certificate, chain) = (candidate.certificate.clone(), intermediates(path));
    Some(Signer { key, domain: candidate.domain, certificate, chain })
}

/// The path without its leaf and its anchor.
fn intermediates(path: &ValidPath) -> Vec<crate::pki::certificate::Certificate> {
    match path.chain() {
        [_, middle @ .., _] => middle.to_vec(),
        _ => Vec::new(),
    }
}

/// Candidates that may be used, best first; every one is noted in `considered`.
fn usable<'c>(
    role: &'static str,
    purpose: Purpose,
    candidates: &'c [Candidate],
    domain_key: bool,
    first: Family,
    now: Timestamp,
    considered: &mut Vec<Considered>,
) -> Vec<&'c Candidate> {
    let mut usable = Vec::new();
    for candidate in candidates {
        let outcome = judge(candidate, purpose, domain_key, now);
        if outcome.is_ok() {
            usable.push(candidate);
        }
        let outcome = outcome.map_err(Cow::from).and(Err("may be used, another one comes first".into()));
        considered.push(Considered {
            role,
            certificate: candidate.certificate.clone(),
            trust: Some(candidate.trust),
            origin: candidate.origin.clone(),
            reads: candidate.capabilities.clone(),
            outcome,
        });
    }
    usable.sort_by_key(|candidate| {
        let certificate = &candidate.certificate;
        let preferred = purpose == Purpose::Encryption && candidate.preferred;
        let other = Family::of(certificate.public_key().kind()) != first;
        let age = std::cmp::Reverse(certificate.not_before());
        let pinned = candidate.trust == TrustState::Pinned;
        // Two signatures are of two kinds: what is pinned does not put the wrong one first.
        let kind_first = purpose == Purpose::Signature && other;
        (candidate.domain, kind_first, !pinned, !preferred, other, age, certificate.fingerprint())
    });
    usable
}

fn mark_used(role: &'static str, used: &[&Candidate], considered: &mut [Considered]) {
    for one in considered.iter_mut().filter(|one| one.role == role) {
        if used.iter().any(|candidate| candidate.certificate == one.certificate) {
            one.outcome = Ok(());
        }
    }
}

/// Whether a certificate may be used for this purpose now; says why not.
fn judge(candidate: &Candidate, purpose: Purpose, domain_key: bool, now: Timestamp) -> Result<(), String> {
    let certificate = &candidate.certificate;
    match candidate.trust {
        TrustState::Blocked => return Err("blocked".into()),
        TrustState::Pending => return Err("pending until an administrator approves it".into()),
        TrustState::Pinned | TrustState::Trusted => {}
    }
    if candidate.domain && !domain_key {
        return Err("a domain certificate, which this rule does not use".into());
    }
    if !candidate.names_owner {
        let what = if candidate.domain { "domain" } else { "address" };
        return Err(format!("its subjectAltName does not hold the {what}"));
    }
    if now < certificate.not_before() {
        return Err(format!("not valid before {}", certificate.not_before()));
    }
    if now > certificate.not_after() {
        return Err(format!("expired on {}", certificate.not_after()));
    }
    certificate.fits(purpose).map_err(|why| why.to_string())?;
    if purpose == Purpose::Signature && candidate.key.is_none() {
        return Err("its private key is not in the store".into());
    }
    let path = candidate.path.as_ref().map_err(|why| format!("no valid path to a trust anchor: {why}"))?;
    if path.leaf() != certificate || path.not_after() < now {
        return Err("its path does not hold now".into());
    }
    Ok(())
}

/// The profile's ciphers that all owners are known to read, best first: all where nothing is known, the last alone (the one most
/// can read) where what is known excludes them all.
fn ciphers(profile: &Profile, used: &[&Candidate]) -> Vec<ContentEncryption> {
    let known = || used.iter().filter_map(|one| one.capabilities.as_ref());
    let readable = profile.content.iter().filter(|content| known().all(|known| known.content.contains(content)));
    let readable: Vec<ContentEncryption> = readable.copied().collect();
    if readable.is_empty() { profile.content.last().copied().into_iter().collect() } else { readable }
}

/// The same for key transport; who names none says nothing of it.
pub(super) fn transport(profile: &Profile, used: &[&Candidate]) -> KeyTransport {
    let known = || used.iter().filter_map(|one| one.capabilities.as_ref()).filter(|known| !known.transport.is_empty());
    let allowed = || std::iter::once(&profile.transport).chain(&profile.further_transports);
    let best = allowed().find(|how| known().all(|known| known.transport.contains(how))).or(allowed().last());
    best.copied().unwrap_or(profile.transport)
}

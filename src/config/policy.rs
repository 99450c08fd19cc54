//! Rules, the default, and profiles.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::DeValue;

use super::reader::{Expected, Section, boolean, choice, list, size, text};
use super::{Direction, ReadFile};
use crate::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport};
use crate::pki::revocation::Demand;
use crate::policy::{
    Action, Bcc, EncryptMode, Family, Match, Missing, Pattern, Policy, Profile, Quarantine, Rule, SignMode, SignWith,
    Signatures,
};
use crate::smime::header_protection::{Confidentiality, HeaderProtection};
use crate::smime::seal::Form;

const DEFAULT_PROFILE: &str = "compatible";
const BUILT_IN: [&str; 4] = ["modern", "compatible", "edi-energy", "post-quantum"];

pub(super) fn policy(top: &Section<'_, '_>, read_file: ReadFile<'_>) -> Option<Policy> {
    let profiles = profiles(top);
    let mut rules = Vec::new();
    for (number, section) in (1..).zip(top.sections("rule")) {
        let name = section.get("name", text).unwrap_or_else(|| format!("rule {number}"));
        let matches = section.section("match").map(|section| matching(section, read_file)).unwrap_or_default();
        let action = action(&section, &profiles);
        section.finish();
        rules.push(Rule { name, matches, action });
    }
    let Some(section) = top.section("default") else {
        if !top.has("default") {
            top.complain(
                "default",
                "nothing",
                "expected [default]: what holds where no rule matches, such as sign = \"if-key\", encrypt = \"prefer\"",
            );
        }
        return None;
    };
    let action = action(&section, &profiles);
    section.finish();
    Some(Policy { rules, default: Rule { name: "default".into(), matches: Match::default(), action }, profiles })
}

fn action(section: &Section<'_, '_>, profiles: &BTreeMap<String, Profile>) -> Action {
    let profile = section.get("profile", |value| {
        let name = text(value)?;
        let names: Vec<&str> = profiles.keys().map(String::as_str).collect();
        if profiles.contains_key(&name) {
            Ok(name)
        } else {
            Err(format!("expected one of the profiles {}", names.join(", ")))
        }
    });
    let sign = choice(&[("never", SignMode::Never), ("if-key", SignMode::IfKey), ("require", SignMode::Require)]);
    let encrypt =
        choice(&[("never", EncryptMode::Never), ("prefer", EncryptMode::Prefer), ("require", EncryptMode::Require)]);
    let action = Action {
        sign: section.get("sign", sign).unwrap_or_default(),
        sign_with: section.get("sign-with", choice(SIGN_WITH)).unwrap_or_default(),
        encrypt: section.get("encrypt", encrypt).unwrap_or_default(),
        form: section.get("form", choice(&[("clear", Form::Clear), ("opaque", Form::Opaque)])).unwrap_or_default(),
        missing: section
            .get("missing", choice(&[("reject", Missing::Reject), ("hold", Missing::Hold)]))
            .unwrap_or_default(),
        profile: profile.unwrap_or_else(|| DEFAULT_PROFILE.into()),
        domain_key: section.get("domain-key", boolean).unwrap_or(false),
        bcc: section.get("bcc", choice(&[("separate", Bcc::Separate), ("group", Bcc::Group)])).unwrap_or_default(),
        allow_downgrade: section.get("downgrade", choice(&[("refuse", false), ("allow", true)])).unwrap_or(false),
        reject: section.get("reject", text),
        pass: section.get("pass", boolean).unwrap_or(false),
        decrypt: section.get("decrypt", boolean).unwrap_or(true),
        revocation: section.get("revocation", choice(REVOCATION)).unwrap_or(Demand::Prefer),
        all_valid: section.get("certificates", choice(&[("best", false), ("all-valid", true)])).unwrap_or(false),
        strip_signature: section.get("strip-signature", boolean).unwrap_or(false),
        quarantine: section.get("quarantine", list(quarantine)).unwrap_or_default(),
    };
    contradictions(section, &action);
    action
}

const SIGN_WITH: &[(&str, SignWith)] =
    &[("author", SignWith::Author), ("domain", SignWith::Domain), ("author-or-domain", SignWith::Either)];

/// A rule that says two things could be read as the weaker one: refused.
fn contradictions(section: &Section<'_, '_>, action: &Action) {
    let protects = action.sign != SignMode::Never || action.encrypt != EncryptMode::Never;
    if action.pass && protects {
        section.complain("pass", "pass = true beside sign or encrypt", "expected one of the two");
    }
    if action.pass && !action.quarantine.is_empty() {
        section.complain(
            "quarantine",
            "quarantine beside pass = true",
            "expected one of the two: what passes is not judged",
        );
    }
    if action.reject.is_some() && (action.pass || protects) {
        section.complain("reject", "reject beside pass, sign or encrypt", "expected reject alone");
    }
    if action.allow_downgrade && action.encrypt == EncryptMode::Require {
        section.complain(
            "downgrade",
            "\"allow\" beside encrypt = \"require\"",
            "expected encrypt = \"prefer\", or no downgrade",
        );
    }
}

fn quarantine(text: &str) -> Result<Quarantine, String> {
    let words = Quarantine::WORDS.iter();
    words
        .clone()
        .find(|(word, _)| *word == text)
        .map(|(_, what)| *what)
        .ok_or_else(|| format!("expected a list of {}", words.map(|(word, _)| *word).collect::<Vec<_>>().join(", ")))
}

fn matching(section: Section<'_, '_>, read_file: ReadFile<'_>) -> Match {
    let directions = [("outbound", Direction::Outbound), ("inbound", Direction::Inbound)];
    let matches = Match {
        direction: section.get("direction", choice(&directions)),
        sender: patterns(&section, "sender", read_file),
        recipient: patterns(&section, "recipient", read_file),
        subject_keyword: section.get("subject_keyword", text),
        header: header(&section),
        larger_than: section.get("larger_than", size(0)),
        signed: section.get("signed", boolean),
        encrypted: section.get("encrypted", boolean),
        replies_to_decrypted: section.get("replies_to_decrypted", boolean),
        user: section.get("user", list(|text| Ok(text.to_owned()))).unwrap_or_default(),
        listener: section.get("listener", list(|text| Ok(text.to_owned()))).unwrap_or_default(),
    };
    section.finish();
    matches
}

fn header(section: &Section<'_, '_>) -> Option<(String, String)> {
    let inner = section.section("header")?;
    let name = inner.require("name", "a header field's name", text);
    let value = inner.get("value", text).unwrap_or_else(|| "*".into());
    inner.finish();
    Some((name?, value))
}

/// Patterns; `file:PATH` stands for the patterns of a file, one a line, `#` begins a comment. An empty list is refused: it
/// would match everything.
pub(super) fn patterns(section: &Section<'_, '_>, key: &'static str, read_file: ReadFile<'_>) -> Vec<Pattern> {
    let read = |value: &DeValue<'_>| -> Result<Vec<Pattern>, Expected> {
        let mut patterns = Vec::new();
        for entry in list(|text| Ok(text.to_owned()))(value)? {
            match entry.strip_prefix("file:") {
                Some(path) => patterns.extend(list_file(path, read_file)?),
                None => patterns.push(pattern(&entry)?),
            }
        }
        if patterns.is_empty() { Err("expected at least one address or pattern".into()) } else { Ok(patterns) }
    };
    section.get(key, read).unwrap_or_default()
}

fn list_file(path: &str, read_file: ReadFile<'_>) -> Result<Vec<Pattern>, Expected> {
    let content =
        read_file(Path::new(path)).map_err(|error| format!("expected a readable list file: {path}: {error}"))?;
    let lines = content.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let entries = (1..).zip(lines).filter(|(_, line)| !line.is_empty());
    entries.map(|(number, line)| pattern(line).map_err(|expected| format!("{expected} ({path}:{number})"))).collect()
}

fn pattern(text: &str) -> Result<Pattern, Expected> {
    let expected = || {
        format!(
            "expected an address, a domain such as \"@example.org\", or a pattern such as \"*@*.example.org\", not {text:?}"
        )
    };
    let plain = !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    let domain = text.rsplit_once('@').map(|(_, domain)| domain);
    match domain {
        _ if !plain => Err(expected()),
        None if text == "*" => Ok(Pattern(text.to_owned())),
        None => Err(expected()),
        Some("") => Err(expected()),
        Some(domain) if domain.contains('*') => Ok(Pattern(text.to_owned())),
        Some(domain) => {
            let a_labels = crate::address::Domain::parse(domain).map_err(|error| error.to_string())?;
            let local = text.get(..text.len() - domain.len()).unwrap_or_default();
            Ok(Pattern(format!("{local}{a_labels}")))
        }
    }
}

fn profiles(top: &Section<'_, '_>) -> BTreeMap<String, Profile> {
    let mut profiles: BTreeMap<String, Profile> = BUILT_IN
        .into_iter()
        .filter_map(|name| Profile::builtin(name).map(|profile| (name.to_owned(), profile)))
        .collect();
    for (name, section) in top.named("profile") {
        let base = section.get("base", |value| {
            let base = text(value)?;
            Profile::builtin(&base).ok_or_else(|| format!("expected one of {}", BUILT_IN.join(", ")))
        });
        let Some(base) = base.or_else(|| Profile::builtin(DEFAULT_PROFILE)) else { continue };
        if BUILT_IN.contains(&name.as_str()) {
            section.complain(
                "base",
                format!("a profile named {name:?}"),
                "expected another name: this one is built in",
            );
        }
        let mut transports = section.get("transport", transports).unwrap_or_default().into_iter();
        let (transport, further_transports) = match transports.next() {
            Some(first) => (first, transports.collect()),
            None => (base.transport, base.further_transports),
        };
        let profile = Profile {
            content: section.get("content", ciphers).unwrap_or(base.content),
            transport,
            further_transports,
            kdf: section.get("kdf", choice(DERIVATIONS)).unwrap_or(base.kdf),
            derive_cek: section.get("derive-cek", boolean).unwrap_or(base.derive_cek),
            pss: section.get("pss", boolean).unwrap_or(base.pss),
            digest: section.get("digest", choice(DIGESTS)).unwrap_or(base.digest),
            header: header_protection(&section),
            encrypt_first: section.get("encrypt-first", choice(FAMILIES)).unwrap_or(base.encrypt_first),
            signatures: section.get("signatures", choice(SIGNATURES)).unwrap_or(base.signatures),
            name: name.clone(),
        };
        section.finish();
        profiles.insert(name, profile);
    }
    profiles
}

const REVOCATION: &[(&str, Demand)] = &[("off", Demand::Off), ("prefer", Demand::Prefer), ("require", Demand::Require)];

fn header_protection(section: &Section<'_, '_>) -> Option<HeaderProtection> {
    let words = [
        ("off", None),
        ("no-confidentiality", Some(Confidentiality::None)),
        ("baseline", Some(Confidentiality::Baseline)),
        ("shy", Some(Confidentiality::Shy)),
    ];
    let outside = section.get("header-protection", choice(&words)).flatten();
    let legacy_display = section.get("legacy-display", boolean).unwrap_or(true);
    outside.map(|outside| HeaderProtection { outside, legacy_display })
}

pub(crate) const DIGESTS: &[(&str, Digest)] =
    &[("sha256", Digest::Sha256), ("sha384", Digest::Sha384), ("sha512", Digest::Sha512)];

pub(crate) const DERIVATIONS: &[(&str, KeyDerivation)] = &[
    ("sha256", KeyDerivation::X963(Digest::Sha256)),
    ("sha384", KeyDerivation::X963(Digest::Sha384)),
    ("sha512", KeyDerivation::X963(Digest::Sha512)),
    ("hkdf-sha256", KeyDerivation::Hkdf(Digest::Sha256)),
    ("hkdf-sha384", KeyDerivation::Hkdf(Digest::Sha384)),
    ("hkdf-sha512", KeyDerivation::Hkdf(Digest::Sha512)),
];

pub(crate) const TRANSPORTS: &[(&str, KeyTransport)] = &[
    ("pkcs1", KeyTransport::RsaPkcs1),
    ("oaep-sha1", KeyTransport::RsaOaep(Digest::Sha1, Digest::Sha1)),
    ("oaep-sha256", KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256)),
    ("oaep-sha384", KeyTransport::RsaOaep(Digest::Sha384, Digest::Sha384)),
    ("oaep-sha512", KeyTransport::RsaOaep(Digest::Sha512, Digest::Sha512)),
];

const FAMILIES: &[(&str, Family)] = &[("classical", Family::Classical), ("post-quantum", Family::PostQuantum)];

const SIGNATURES: &[(&str, Signatures)] = &[
    ("classical", Signatures::One(Family::Classical)),
    ("post-quantum", Signatures::One(Family::PostQuantum)),
    ("both", Signatures::Both),
];

/// Ways to transport a key, the best first.
fn transports(value: &DeValue<'_>) -> Result<Vec<KeyTransport>, Expected> {
    let names: Vec<&str> = TRANSPORTS.iter().map(|(name, _)| *name).collect();
    let expected = || format!("expected one or several of {}, best first", names.join(", "));
    let how = list(|text| TRANSPORTS.iter().find(|(name, _)| *name == text).map(|(_, how)| *how).ok_or_else(expected))(
        value,
    )?;
    if how.is_empty() { Err(expected()) } else { Ok(how) }
}

/// What is written: weak ciphers are for reading alone and cannot be named.
pub(crate) const WRITTEN: &[(&str, ContentEncryption)] = &[
    ("AES-256-GCM", ContentEncryption::Aes256Gcm),
    ("AES-192-GCM", ContentEncryption::Aes192Gcm),
    ("AES-128-GCM", ContentEncryption::Aes128Gcm),
    ("AES-256-CBC", ContentEncryption::Aes256Cbc),
    ("AES-192-CBC", ContentEncryption::Aes192Cbc),
    ("AES-128-CBC", ContentEncryption::Aes128Cbc),
];

fn ciphers(value: &DeValue<'_>) -> Result<Vec<ContentEncryption>, Expected> {
    let names: Vec<&str> = WRITTEN.iter().map(|(name, _)| *name).collect();
    let expected = || format!("expected ciphers, best first, of {}", names.join(", "));
    let known = |text: &str| WRITTEN.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let ciphers = list(|text| known(text).map(|(_, cipher)| *cipher).ok_or_else(expected))(value)?;
    if ciphers.is_empty() { Err(expected()) } else { Ok(ciphers) }
}

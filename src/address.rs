//! Mailboxes and domains (RFC 5321 section 4.1.2, RFC 6531, RFC 5890).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}: {hint}")]
pub struct AddressError {
    /// What was found, control characters escaped.
    pub found: String,
    /// What was expected: "a mailbox", "a domain".
    pub expected: &'static str,
    /// What to do.
    pub hint: &'static str,
}

impl AddressError {
    fn new(found: &str, expected: &'static str, hint: &'static str) -> Self {
        AddressError { found: found.chars().take(FOUND_SHOWN).flat_map(char::escape_default).collect(), expected, hint }
    }
}

/// Characters of a bad address that an error shows.
const FOUND_SHOWN: usize = 120;
/// Octets of a domain (RFC 5321 section 4.5.3.1.2).
const DOMAIN_OCTETS: usize = 255;
/// Octets of a local part. RFC 5321 section 4.5.3.1.1 promises 64 and allows more; SRS, VERP and probe addresses are longer in practice,
/// and refusing them loses bounces.
const LOCAL_OCTETS: usize = 255;

/// A domain in A-labels and lower case, or an address literal in brackets, in the one form that `std::net` prints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

impl Domain {
    /// Parses a domain (U-labels are turned into A-labels, UTS 46 non-transitional) or an address literal.
    ///
    /// Labels are letters, digits and hyphens (no underscore), 1 to 63 octets, 255 octets in all, no dot at the end.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix('[') {
            return Self::parse_literal(text, rest);
        }
        let error = |hint| Err(AddressError::new(text, "a domain", hint));
        if text.is_empty() {
            return error("write the name after the @, as in user@example.org");
        }
        if text.ends_with('.') {
            return error("leave out the dot at the end");
        }
        // Before the mapping, which costs more the longer the text; U-labels take at most 4 octets where A-labels take one or more.
        if text.len() > DOMAIN_OCTETS * 4 {
            return error("a domain has at most 255 octets");
        }
        let lower = if plain_labels(text) {
            text.to_ascii_lowercase()
        } else {
            use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
            match Uts46::new().to_ascii(
                text.as_bytes(),
                AsciiDenyList::STD3,
                Hyphens::CheckFirstLast,
                DnsLength::Verify,
            ) {
                Ok(ascii) => ascii.into_owned(),
                Err(_) => {
                    return error(
                        "labels are letters, digits and inner hyphens, or U-labels that IDNA (UTS 46) allows",
                    );
                }
            }
        };
        if lower.len() > DOMAIN_OCTETS {
            return error("a domain has at most 255 octets");
        }
        Ok(Domain(lower.into()))
    }
    fn parse_literal(text: &str, rest: &str) -> Result<Self, AddressError> {
        let error = || AddressError::new(text, "an address literal", "write [192.0.2.1] or [IPv6:2001:db8::1]");
        let inner = rest.strip_suffix(']').ok_or_else(error)?;
        let literal = match inner.split_at_checked(5) {
            Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
                let address: Ipv6Addr = address.parse().map_err(|_| error())?;
                format!("[IPv6:{address}]")
            }
            _ => {
                let address: Ipv4Addr = inner.parse().map_err(|_| error())?;
                format!("[{address}]")
            }
        };
        Ok(Domain(literal.into()))
    }
    /// Whether this is an address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
    /// The A-label form, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

/// Whether every label is LDH, has a legal length and is no A-label: then UTS 46 would only lower its case.
fn plain_labels(text: &str) -> bool {
    text.as_bytes().split(|octet| *octet == b'.').all(|label| {
        (1..=63).contains(&label.len())
            && label.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-')
            && label.first() != Some(&b'-')
            && label.last() != Some(&b'-')
            && !label.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"xn--"))
    })
}

/// What may stand in an atom of a local part (RFC 5321 atext, RFC 6531 UTF8-non-ascii).
fn is_atext(character: char) -> bool {
    match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' => true,
        '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^' | '_' | '`' | '{' | '|' | '}'
        | '~' => true,
        _ => is_plain_non_ascii(character),
    }
}

/// Non-ASCII without what breaks lines or turns the direction of the text around it: such a mailbox could be shown as another.
fn is_plain_non_ascii(character: char) -> bool {
    !character.is_ascii()
        && !character.is_control()
        && !matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// What may stand in a local part once its quotes are resolved.
fn is_local(character: char) -> bool {
    matches!(character, ' '..='~') || is_plain_non_ascii(character)
}

fn is_dot_string(local: &str) -> bool {
    local.as_bytes().split(|octet| *octet == b'.').all(|atom| !atom.is_empty())
        && local.chars().all(|character| character == '.' || is_atext(character))
}

/// A mailbox: local part as written (quotes resolved) and domain.
///
/// By construction there is no CR, LF, NUL or other control character in it (A15).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local: Box<str>,
    domain: Domain,
}

impl Mailbox {
    /// Parses an addr-spec or SMTP Mailbox without angle brackets; quoted local parts keep their meaning. No comments, no folding.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = if text.starts_with('"') { split_quoted(text)? } else { split_plain(text)? };
        Self::new(&local, Domain::parse(domain)?)
    }
    /// A mailbox from a local part without quoting and a domain; fails on control characters and on more than 255 octets.
    pub fn new(local: &str, domain: Domain) -> Result<Self, AddressError> {
        if local.len() > LOCAL_OCTETS {
            return Err(AddressError::new(local, "a local part", "it has at most 255 octets"));
        }
        if !local.chars().all(is_local) {
            return Err(AddressError::new(local, "a local part", "take out the control characters"));
        }
        Ok(Mailbox { local: local.into(), domain })
    }
    /// The local part with quoting resolved.
    pub fn local(&self) -> &str {
        &self.local
    }
    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
    /// The form under which mailboxes are compared and stored: local part in ASCII lower case, no Unicode folding (A22).
    pub fn key(&self) -> MailboxKey {
        let mut key = String::with_capacity(self.local.len() + 1 + self.domain.0.len());
        key.push_str(&self.local);
        key.make_ascii_lowercase();
        key.push('@');
        key.push_str(&self.domain.0);
        MailboxKey(key.into())
    }
    /// Whether the local part needs SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }
}

/// As an SMTP Mailbox: the local part quoted where RFC 5321 wants it.
impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        if is_dot_string(&self.local) {
            f.write_str(&self.local)?;
        } else {
            f.write_char('"')?;
            for character in self.local.chars() {
                if matches!(character, '"' | '\\') {
                    f.write_char('\\')?;
                }
                f.write_char(character)?;
            }
            f.write_char('"')?;
        }
        f.write_char('@')?;
        f.write_str(self.domain.as_str())
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

const MAILBOX_HINT: &str = "write user@example.org; other characters in the local part want quotes";

fn split_plain(text: &str) -> Result<(String, &str), AddressError> {
    match text.split_once('@') {
        Some((local, domain)) if is_dot_string(local) => Ok((local.to_owned(), domain)),
        _ => Err(AddressError::new(text, "a mailbox", MAILBOX_HINT)),
    }
}

fn split_quoted(text: &str) -> Result<(String, &str), AddressError> {
    let error = || AddressError::new(text, "a mailbox", "the quoted local part ends with a quote and an @");
    let mut local = String::new();
    let mut characters = text.chars();
    characters.next();
    loop {
        match characters.next().ok_or_else(error)? {
            '"' => break,
            '\\' => match characters.next().ok_or_else(error)? {
                escaped @ ' '..='~' => local.push(escaped),
                _ => return Err(error()),
            },
            plain => local.push(plain),
        }
    }
    let domain = characters.as_str().strip_prefix('@').ok_or_else(error)?;
    Ok((local, domain))
}

/// A mailbox as it is compared and stored: see [`Mailbox::key`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxKey(Box<str>);

impl MailboxKey {
    /// Parses a mailbox (as [`Mailbox::parse`]) and takes its key.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Mailbox::parse(text).map(|mailbox| mailbox.key())
    }
    /// Reads back what [`MailboxKey::as_str`] gave; anything else is an error.
    pub fn from_stored(text: &str) -> Result<Self, AddressError> {
        let error = || {
            AddressError::new(text, "a stored mailbox", "it is written as local@domain in lower case, without quotes")
        };
        let (local, domain) = text.rsplit_once('@').ok_or_else(error)?;
        let key = Mailbox::new(local, Domain::parse(domain)?)?.key();
        if key.as_str() == text { Ok(key) } else { Err(error()) }
    }
    /// Whether it is the key of this mailbox.
    pub fn is_of(&self, mailbox: &Mailbox) -> bool {
        self.0
            .rsplit_once('@')
            .is_some_and(|(local, domain)| *domain == *mailbox.domain.0 && local.eq_ignore_ascii_case(&mailbox.local))
    }
    /// The domain after the last `@`.
    pub fn domain(&self) -> Domain {
        Domain(self.0.rsplit_once('@').map_or("", |(_, domain)| domain).into())
    }
    /// `local@domain`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MailboxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The reverse-path of an envelope: `<>` or a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: a notification; never answered.
    Null,
    /// The mailbox that hears of failures.
    Mailbox(Mailbox),
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReversePath::Null => Ok(()),
            ReversePath::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// The fuzz body of this module: what parses prints and parses to the same, and carries no control character.
#[doc(hidden)]
pub fn fuzz_address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(domain) = Domain::parse(text) {
        assert!(domain.as_str().is_ascii() && !domain.as_str().chars().any(char::is_control));
        assert_eq!(Domain::parse(domain.as_str()).as_ref(), Ok(&domain));
    }
    if let Ok(mailbox) = Mailbox::parse(text) {
        let printed = mailbox.to_string();
        assert!(!printed.chars().any(char::is_control));
        assert_eq!(Mailbox::parse(&printed).as_ref(), Ok(&mailbox));
        let key = mailbox.key();
        assert_eq!(MailboxKey::from_stored(key.as_str()).as_ref(), Ok(&key));
        assert_eq!(&key.domain(), mailbox.domain());
    }
}

#[cfg(test)]
mod tests;

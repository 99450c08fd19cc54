//! Mailboxes and domains (RFC 5321 section 4.1.2, RFC 6531, RFC 5890).

use std::fmt;

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

/// A domain in A-labels and lower case, or an address literal in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

impl Domain {
    /// Parses a domain (U-labels are turned into A-labels, UTS 46 non-transitional) or an address literal.
    pub fn parse(_text: &str) -> Result<Self, AddressError> {
        todo!()
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

/// A mailbox: local part as written (quotes resolved) and domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local: Box<str>,
    domain: Domain,
}

impl Mailbox {
    /// Parses an addr-spec or SMTP Mailbox without angle brackets; quoted local parts keep their meaning.
    pub fn parse(_text: &str) -> Result<Self, AddressError> {
        todo!()
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
        todo!()
    }
    /// Whether the local part needs SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }
}

/// As an SMTP Mailbox: the local part quoted where RFC 5321 wants it.
impl fmt::Display for Mailbox {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// A mailbox as it is compared and stored: see [`Mailbox::key`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxKey(Box<str>);

impl MailboxKey {
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

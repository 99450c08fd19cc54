//! Name constraints (RFC 5280 section 4.2.1.10, RFC 9598 section 6).

use crate::address::{Domain, Mailbox};
use crate::pki::asn1::{Asn1Error, Reader, tag};
use crate::pki::certificate::Certificate;
use crate::pki::certificate::extensions::GeneralName;
use crate::pki::certificate::name::{CanonicalName, email_addresses};

/// The most comparisons of a name with a constraint in one path.
const MAX_COMPARISONS: usize = 100_000;

/// What the CAs so far allow: every set holds.
#[derive(Default)]
pub(super) struct NameConstraints {
    sets: Vec<Subtrees>,
    comparisons: usize,
}

#[derive(Default)]
struct Subtrees {
    permitted: Vec<Base>,
    excluded: Vec<Base>,
}

/// The base of a subtree.
enum Base {
    /// `user@host`, `host` or `.domain`.
    Mail(String),
    Dns(String),
    Directory(CanonicalName),
    /// `host` or `.domain`.
    Uri(String),
    /// Address and mask.
    Ip(Vec<u8>),
    /// A form that is not processed here.
    Other(u8),
}

/// A name to be judged.
enum Name {
    /// Local part and host (A-labels).
    Mail(String, String),
    Dns(String),
    Directory(CanonicalName),
    Uri(String),
    Ip(Vec<u8>),
    Other(u8),
    /// A name that cannot be read, of the form of this tag.
    Unreadable(u8),
}

fn unreadable(error: Asn1Error) -> String {
    format!("its name constraints cannot be read: {error}")
}

impl NameConstraints {
    /// Adds the constraints of a CA.
    pub(super) fn add(&mut self, authority: &Certificate) -> Result<(), String> {
        let Some(place) = authority.extensions().name_constraints else { return Ok(()) };
        let mut fields = Reader::new(authority.at(place));
        let mut set = Subtrees::default();
        if let Some(list) = fields.optional(tag::constructed(0)).map_err(unreadable)? {
            set.permitted = read_subtrees(list.reader()).map_err(unreadable)?;
        }
        if let Some(list) = fields.optional(tag::constructed(1)).map_err(unreadable)? {
            set.excluded = read_subtrees(list.reader()).map_err(unreadable)?;
        }
        fields.done().map_err(unreadable)?;
        if set.permitted.is_empty() && set.excluded.is_empty() {
            // RFC 5280 4.2.1.10: one of the two is there, and not empty.
            return Err("name constraints that constrain nothing".to_owned());
        }
        self.sets.push(set);
        Ok(())
    }

    /// Judges every name of a certificate (RFC 5280 6.1.3 (b) and (c)).
    pub(super) fn check(&mut self, certificate: &Certificate) -> Result<(), String> {
        if self.sets.is_empty() {
            return Ok(());
        }
        let names = names_of(certificate).map_err(|error| format!("its names cannot be read: {error}"))?;
        for set in &self.sets {
            let work = names.len().saturating_mul(set.permitted.len() + set.excluded.len());
            self.comparisons = self.comparisons.saturating_add(work);
            if self.comparisons > MAX_COMPARISONS {
                return Err("too many names under too many name constraints".to_owned());
            }
            for name in &names {
                set.check(name)?;
            }
        }
        Ok(())
    }
}

impl Subtrees {
    fn check(&self, name: &Name) -> Result<(), String> {
        let of_form = |base: &&Base| base.form() == name.form();
        if matches!(name, Name::Other(_) | Name::Unreadable(_))
            && self.permitted.iter().chain(&self.excluded).any(|base| of_form(&base))
        {
            return Err("a name whose form is constrained, and which cannot be judged here".to_owned());
        }
        if self.excluded.iter().filter(of_form).any(|base| base.contains(name) || base.meets_wildcard(name)) {
            return Err("a name that a CA above excludes".to_owned());
        }
        let mut permitted = self.permitted.iter().filter(of_form).peekable();
        if permitted.peek().is_some() && !permitted.any(|base| base.contains(name)) {
            return Err("a name outside of what a CA above permits".to_owned());
        }
        Ok(())
    }
}

impl Base {
    fn form(&self) -> u8 {
        match self {
            Base::Mail(_) => 0x81,
            Base::Dns(_) => 0x82,
            Base::Directory(_) => 0xa4,
            Base::Uri(_) => 0x86,
            Base::Ip(_) => 0x87,
            Base::Other(tag) => *tag,
        }
    }

    /// Whether a wildcard name covers some host of the subtree.
    fn meets_wildcard(&self, name: &Name) -> bool {
        match (self, name) {
            (Base::Dns(base), Name::Dns(host)) => host.strip_prefix('*').is_some_and(|parent| ends_with(base, parent)),
            _ => false,
        }
    }

    fn contains(&self, name: &Name) -> bool {
        match (self, name) {
            (Base::Mail(base), Name::Mail(local, host)) => match base.rsplit_once('@') {
                Some((base_local, base_host)) => {
                    base_local.eq_ignore_ascii_case(local) && base_host.eq_ignore_ascii_case(host)
                }
                None => host_within(base, host),
            },
            (Base::Dns(base), Name::Dns(host)) => {
                base.is_empty()
                    || host.eq_ignore_ascii_case(base)
                    || ends_with(host, &format!(".{}", base.trim_start_matches('.')))
            }
            (Base::Directory(base), Name::Directory(name)) => name.is_within(base),
            (Base::Uri(base), Name::Uri(host)) => host_within(base, host),
            (Base::Ip(base), Name::Ip(address)) => {
                let (network, mask) = base.split_at(base.len() / 2);
                network.len() == address.len()
                    && address
                        .iter()
                        .zip(network)
                        .zip(mask)
                        .all(|((octet, network), mask)| octet & mask == network & mask)
            }
            _ => false,
        }
    }
}

/// `.domain` holds all hosts below; `host` that one; nothing holds all.
fn host_within(base: &str, host: &str) -> bool {
    base.is_empty() || if base.starts_with('.') { ends_with(host, base) } else { host.eq_ignore_ascii_case(base) }
}

/// `host` is longer than `tail` and ends in it, whatever the case.
fn ends_with(host: &str, tail: &str) -> bool {
    host.len() > tail.len()
        && host.as_bytes().iter().rev().zip(tail.as_bytes().iter().rev()).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

impl Name {
    fn form(&self) -> u8 {
        match self {
            Name::Mail(..) => 0x81,
            Name::Dns(_) => 0x82,
            Name::Directory(_) => 0xa4,
            Name::Uri(_) => 0x86,
            Name::Ip(_) => 0x87,
            Name::Other(tag) | Name::Unreadable(tag) => *tag,
        }
    }

    fn mail(text: &str) -> Self {
        if let Ok(mailbox) = Mailbox::parse(text) {
            return Self::Mail(mailbox.local().to_owned(), mailbox.domain().as_str().to_owned());
        }
        // `@example.org`, as domain certificates have it.
        match text.strip_prefix('@').map(Domain::parse) {
            Some(Ok(domain)) => Self::Mail(String::new(), domain.as_str().to_owned()),
            _ => Self::Unreadable(0x81),
        }
    }

    fn uri(text: &str) -> Self {
        let authority = text.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let host = authority.map(|authority| authority.rsplit_once('@').map_or(authority, |(_, host)| host));
        // RFC 5280 4.2.1.10: a URI without a host that is a domain name is refused under such constraints.
        match host.map(|host| host.split_once(':').map_or(host, |(host, _)| host)) {
            Some(host) if !host.is_empty() && !host.starts_with('[') && host.parse::<std::net::IpAddr>().is_err() => {
                Self::Uri(host.to_owned())
            }
            _ => Self::Unreadable(0x86),
        }
    }
}

fn names_of(certificate: &Certificate) -> Result<Vec<Name>, Asn1Error> {
    let mut names = Vec::new();
    let mut has_mail = false;
    if !certificate.has_empty_subject() {
        names.push(Name::Directory(CanonicalName::from_der(certificate.subject())?));
    }
    for name in certificate.alternative_names() {
        let name = match name {
            GeneralName::Rfc822(octets) => {
                has_mail = true;
                ascii(octets).map_or(Name::Unreadable(0x81), Name::mail)
            }
            GeneralName::SmtpUtf8(text) => {
                has_mail = true;
                // RFC 9598 section 6: rfc822Name constraints hold for it; constraints of its own form are not processed here.
                names.push(Name::Unreadable(0xa0));
                Name::mail(text)
            }
            GeneralName::Dns(octets) => ascii(octets).map_or(Name::Unreadable(0x82), |text| Name::Dns(text.to_owned())),
            GeneralName::Directory(der) => Name::Directory(CanonicalName::from_der(der)?),
            GeneralName::Uri(octets) => ascii(octets).map_or(Name::Unreadable(0x86), Name::uri),
            GeneralName::Ip(octets) => Name::Ip(octets.to_vec()),
            GeneralName::Other(tag) => Name::Other(tag),
        };
        names.push(name);
    }
    if !has_mail {
        // RFC 5280 4.2.1.10: without a SAN for mail the constraint holds for emailAddress in the subject.
        names.extend(email_addresses(certificate.subject())?.iter().map(|text| Name::mail(text)));
    }
    Ok(names)
}

fn ascii(octets: &[u8]) -> Option<&str> {
    std::str::from_utf8(octets).ok().filter(|text| text.is_ascii())
}

fn read_subtrees(mut list: Reader<'_>) -> Result<Vec<Base>, Asn1Error> {
    let mut bases = Vec::new();
    while !list.is_empty() {
        let subtree = list.expect(tag::SEQUENCE, "a GeneralSubtree is a SEQUENCE")?;
        let mut fields = subtree.reader();
        let broken = || subtree.error("the base of a name constraint is malformed");
        let text = |octets| ascii(octets).map(str::to_owned).ok_or_else(broken);
        bases.push(match GeneralName::read(&mut fields)? {
            GeneralName::Rfc822(octets) => Base::Mail(text(octets)?),
            GeneralName::Dns(octets) => Base::Dns(text(octets)?),
            GeneralName::Directory(der) => Base::Directory(CanonicalName::from_der(der)?),
            GeneralName::Uri(octets) => Base::Uri(text(octets)?),
            GeneralName::Ip(octets) if is_block(octets) => Base::Ip(octets.to_vec()),
            GeneralName::Ip(_) => return Err(broken()),
            GeneralName::SmtpUtf8(_) => Base::Other(0xa0),
            GeneralName::Other(tag) => Base::Other(tag),
        });
        // RFC 5280 4.2.1.10: minimum is 0, maximum is absent.
        if let Some(minimum) = fields.optional(tag::context(0))?
            && minimum.unsigned()? != 0
        {
            return Err(minimum.error("a name constraint with a minimum"));
        }
        fields.done()?;
    }
    Ok(bases)
}

/// An address and a mask of as many octets, ones first (RFC 5280 4.2.1.10: in the style of RFC 4632).
fn is_block(octets: &[u8]) -> bool {
    let (_, mask) = octets.split_at(octets.len() / 2);
    let rest = mask.iter().skip_while(|octet| **octet == 0xff);
    let contiguous = rest.enumerate().all(|(at, octet)| match at {
        0 => octet.count_ones() == octet.leading_ones(),
        _ => *octet == 0,
    });
    matches!(octets.len(), 8 | 32) && contiguous
}

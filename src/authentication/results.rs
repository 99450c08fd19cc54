//! What was found out about where a mail comes from, and the Authentication-Results field that tells it (RFC 8601). Nothing of a mail or of
//! the DNS gets in unescaped (A15).

use crate::address::Domain;
use crate::mime::header::{Header, HeaderWriter, MimeError};
use crate::smime::verdict::{comment, quoted};

/// Domains of authors that are judged; a mail with more in From is nobody's.
pub const AUTHORS: usize = 4;

/// Octets of a value that is written.
const VALUE_MAX: usize = 300;

/// A way of finding out (RFC 8601 section 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// May the client send for the domain of HELO or MAIL FROM (RFC 7208)?
    Spf,
    /// A domain's signature over the mail (RFC 6376).
    Dkim,
    /// Does one of them speak for the domain in From (RFC 9989)?
    Dmarc,
    /// Do the client's address and its name belong together?
    Iprev,
}

impl Method {
    /// In the order in which they are counted.
    pub const ALL: [Method; 4] = [Method::Spf, Method::Dkim, Method::Dmarc, Method::Iprev];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Spf => "spf",
            Method::Dkim => "dkim",
            Method::Dmarc => "dmarc",
            Method::Iprev => "iprev",
        }
    }
}

/// What came out (RFC 8601 section 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail,
    SoftFail,
    Neutral,
    /// Nobody says anything: no record, no signature.
    None,
    /// It was not judged: not good enough for us.
    Policy,
    /// It may be known later.
    TempError,
    /// What is said cannot be read.
    PermError,
}

impl Outcome {
    /// In the order in which they are counted.
    pub const ALL: [Outcome; 8] = [
        Outcome::Pass,
        Outcome::Fail,
        Outcome::SoftFail,
        Outcome::Neutral,
        Outcome::None,
        Outcome::Policy,
        Outcome::TempError,
        Outcome::PermError,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::SoftFail => "softfail",
            Outcome::Neutral => "neutral",
            Outcome::None => "none",
            Outcome::Policy => "policy",
            Outcome::TempError => "temperror",
            Outcome::PermError => "permerror",
        }
    }
}

/// One thing that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub method: Method,
    pub outcome: Outcome,
    /// For people; may be empty.
    pub why: String,
    /// What it is about: `smtp.mailfrom` and the like, with values as they were found.
    pub properties: Vec<(&'static str, String)>,
}

impl Finding {
    /// One without a reason.
    pub fn new(method: Method, outcome: Outcome) -> Self {
        Self { method, outcome, why: String::new(), properties: Vec::new() }
    }
    /// With a reason.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }
    /// With what it is about.
    #[must_use]
    pub fn about(mut self, property: &'static str, value: impl Into<String>) -> Self {
        self.properties.push((property, value.into()));
        self
    }
}

/// The field that tells all of it, with our authserv-id.
pub fn field(authserv_id: &Domain, findings: &[Finding]) -> Vec<u8> {
    let mut value = authserv_id.to_string();
    for finding in findings {
        value.push_str(&format!("; {}={}", finding.method.as_str(), finding.outcome.as_str()));
        if !finding.why.is_empty() {
            value.push_str(&format!(" ({})", comment(&finding.why)));
        }
        for (property, found) in &finding.properties {
            value.push_str(&format!(" {property}={}", pvalue(found)));
        }
    }
    if findings.is_empty() {
        value.push_str("; none");
    }
    let mut writer = HeaderWriter::new();
    match writer.structured("Authentication-Results", &value) {
        Ok(_) => writer.finish(),
        // Not reached with values written as below; if it were, the word that promises nothing.
        Err(_) => format!("Authentication-Results: {authserv_id}; none\r\n").into_bytes(),
    }
}

/// All results in short, for the log.
pub fn summary(findings: &[Finding]) -> String {
    let words = findings.iter().map(|one| format!("{}={}", one.method.as_str(), one.outcome.as_str()));
    words.collect::<Vec<_>>().join(" ")
}

/// As it is where that is a token or a plain address (RFC 8601 section 2.2), else in quotes.
fn pvalue(found: &str) -> String {
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-+/".contains(&octet))
    };
    let plain = match found.split_once('@') {
        Some((local, domain)) => (local.is_empty() || token(local)) && token(domain),
        None => token(found),
    };
    if plain && found.len() <= VALUE_MAX { found.to_owned() } else { quoted(found) }
}

/// The domains of all addresses in all From fields, each once (RFC 9989 leaves mail with several out; whoever wants to be shown as another
/// must not get away with a second field).
///
/// # Errors
/// Why nobody can be called the author.
pub fn author_domains(header: &Header) -> Result<Vec<Domain>, MimeError> {
    let mut domains: Vec<Domain> = Vec::new();
    for mailbox in header.all("From").flat_map(|field| field.mailboxes()) {
        if !domains.contains(mailbox.domain()) {
            domains.push(mailbox.domain().clone());
        }
        if domains.len() > AUTHORS {
            return Err(MimeError::Limit("domains in From"));
        }
    }
    if domains.is_empty() { Err(MimeError::Malformed("no address in From can be read")) } else { Ok(domains) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::mime::entity::MimeLimits;
    use crate::smime::verdict::Marks;

    fn id() -> Domain {
        Domain::parse("gw.example.org").unwrap()
    }

    fn header(octets: &[u8]) -> Header {
        Header::parse(&Bytes::copy_from_slice(octets), &MimeLimits::default()).unwrap().0
    }

    #[test]
    fn a_field_tells_all_methods_as_rfc_8601_writes_them() {
        let findings = [
            Finding::new(Method::Spf, Outcome::Pass).about("smtp.mailfrom", "anna@example.com"),
            Finding::new(Method::Dkim, Outcome::Fail).because("body (hash)").about("header.d", "example.com"),
            Finding::new(Method::Iprev, Outcome::None).about("policy.iprev", "2001:db8::1"),
        ];
        let written = String::from_utf8(field(&id(), &findings)).unwrap();
        assert_eq!(
            written.replace("\r\n ", " "),
            "Authentication-Results: gw.example.org; spf=pass smtp.mailfrom=anna@example.com; \
             dkim=fail (body [hash]) header.d=example.com; iprev=none policy.iprev=\"2001:db8::1\"\r\n"
        );
        assert_eq!(summary(&findings), "spf=pass dkim=fail iprev=none");
        assert_eq!(field(&id(), &[]), b"Authentication-Results: gw.example.org; none\r\n");
    }

    #[test]
    fn every_address_of_every_from_field_is_an_author() {
        let domains = |text: &str| {
            author_domains(&header(text.as_bytes())).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(domains("From: A <a@One.example>\r\n").unwrap(), ["one.example"]);
        assert_eq!(
            domains("From: a@one.example, b@two.example\r\nSubject: x\r\nFROM: \"c@no.example\" <c@one.example>\r\n")
                .unwrap(),
            ["one.example", "two.example"]
        );
        assert!(domains("Subject: x\r\n").is_err());
        assert!(domains("From: nobody\r\n").is_err());
        let many: String = (0..=AUTHORS).map(|number| format!("From: a@d{number}.example\r\n")).collect();
        assert!(domains(&many).is_err());
    }

    proptest! {
        #[test]
        fn a15_whatever_was_found_is_one_field_of_ours(why in any::<String>(), value in any::<String>(), long in 0usize..3000) {
            let value = format!("{value}{}", "x".repeat(long));
            let finding = Finding::new(Method::Spf, Outcome::Pass).because(why).about("smtp.helo", value);
            let written = field(&id(), &[finding.clone(), finding]);
            let read = header(&written);
            prop_assert!(read.fields.len() == 1 && read.defects.is_empty());
            prop_assert!(read.fields[0].value().starts_with("gw.example.org; spf=pass"));
            prop_assert!(written.split(|octet| *octet == b'\n').all(|line| line.len() < 999));
            let marks = Marks { authserv_id: id(), subject_tags: false };
            prop_assert!(marks.strip(&read).is_empty(), "it would be known as ours");
        }
    }
}

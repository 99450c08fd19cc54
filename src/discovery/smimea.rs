//! SMIMEA records (RFC 8162, in the form of RFC 6698): where they stand, and what they say of a certificate. TLSA records, which say the same
//! of a server's, have the same data. P.

use bytes::Bytes;

use crate::address::{Mailbox, MailboxKey};
use crate::cms::algorithm::Digest;
use crate::cms::signed::digest;
use crate::pki::certificate::Certificate;

/// What a record says the certificate is (RFC 6698 section 2.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// 0, PKIX-TA: a CA that has to be in the path, beside a path to an anchor.
    PkixTa,
    /// 1, PKIX-EE: the mailbox's own, beside a path to an anchor.
    PkixEe,
    /// 2, DANE-TA: a CA that has to be in the path.
    DaneTa,
    /// 3, DANE-EE: the mailbox's own.
    DaneEe,
}

/// What of the certificate is compared (RFC 6698 section 2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Selector {
    /// 0: all of it.
    Certificate,
    /// 1: its SubjectPublicKeyInfo.
    PublicKey,
}

/// How it is compared (RFC 6698 section 2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Matching {
    /// 0: octet for octet.
    Exact,
    /// 1: by SHA-256.
    Sha256,
    /// 2: by SHA-512.
    Sha512,
}

/// One record's data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Association {
    pub usage: Usage,
    pub selector: Selector,
    pub matching: Matching,
    /// What is compared.
    pub data: Bytes,
}

const USAGES: [Usage; 4] = [Usage::PkixTa, Usage::PkixEe, Usage::DaneTa, Usage::DaneEe];
const SELECTORS: [Selector; 2] = [Selector::Certificate, Selector::PublicKey];
const MATCHINGS: [Matching; 3] = [Matching::Exact, Matching::Sha256, Matching::Sha512];

fn code<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table.iter().position(|known| known == value).and_then(|at| u8::try_from(at).ok()).unwrap_or_default()
}

impl Usage {
    /// By its number.
    pub fn from_code(code: u8) -> Option<Self> {
        USAGES.get(usize::from(code)).copied()
    }
    /// It is about the mailbox's own certificate, not about a CA's.
    pub fn is_end_entity(self) -> bool {
        matches!(self, Self::PkixEe | Self::DaneEe)
    }
}

impl Selector {
    /// By its number.
    pub fn from_code(code: u8) -> Option<Self> {
        SELECTORS.get(usize::from(code)).copied()
    }
}

impl Matching {
    /// By its number.
    pub fn from_code(code: u8) -> Option<Self> {
        MATCHINGS.get(usize::from(code)).copied()
    }
}

impl Association {
    /// Reads the data of a record.
    ///
    /// # Errors
    /// Numbers that RFC 6698 does not give, or data of a wrong length: such a record counts as unusable (RFC 6698 section 4.1).
    pub fn from_rdata(octets: &[u8]) -> Result<Self, String> {
        let (head, data) = octets.split_first_chunk::<3>().ok_or("a record of less than three octets")?;
        let [usage, selector, matching] = *head;
        Self::new(usage, selector, matching, Bytes::copy_from_slice(data))
    }

    /// The same of its fields.
    ///
    /// # Errors
    /// See [`Self::from_rdata`].
    pub fn new(usage: u8, selector: u8, matching: u8, data: Bytes) -> Result<Self, String> {
        let usage = Usage::from_code(usage).ok_or_else(|| format!("usage {usage}, which is not known"))?;
        let selector =
            Selector::from_code(selector).ok_or_else(|| format!("selector {selector}, which is not known"))?;
        let matching =
            Matching::from_code(matching).ok_or_else(|| format!("matching type {matching}, which is not known"))?;
        let wanted = match matching {
            Matching::Exact => data.len().max(1),
            Matching::Sha256 => 32,
            Matching::Sha512 => 64,
        };
        if data.len() != wanted {
            return Err(format!("{} octets of data where there should be {wanted}", data.len()));
        }
        Ok(Self { usage, selector, matching, data })
    }

    /// What says this of a certificate.
    pub fn of(certificate: &Certificate, usage: Usage, selector: Selector, matching: Matching) -> Self {
        Self::of_der(certificate.der(), certificate.public_key().spki(), usage, selector, matching)
    }

    fn of_der(certificate: &[u8], spki: &[u8], usage: Usage, selector: Selector, matching: Matching) -> Self {
        let part = match selector {
            Selector::Certificate => certificate,
            Selector::PublicKey => spki,
        };
        let data = match matching {
            Matching::Exact => Bytes::copy_from_slice(part),
            Matching::Sha256 => digest(Digest::Sha256, part).into(),
            Matching::Sha512 => digest(Digest::Sha512, part).into(),
        };
        Self { usage, selector, matching, data }
    }

    /// Whether it is about the certificate of a server, given in DER with its SubjectPublicKeyInfo.
    pub fn matches_der(&self, certificate: &[u8], spki: &[u8]) -> bool {
        Self::of_der(certificate, spki, self.usage, self.selector, self.matching).data == self.data
    }

    /// Whether it is about this certificate.
    pub fn matches(&self, certificate: &Certificate) -> bool {
        Self::of(certificate, self.usage, self.selector, self.matching).data == self.data
    }

    /// The certificate in it, where it has a whole one.
    ///
    /// # Errors
    /// It should be one, and cannot be read.
    pub fn certificate(&self) -> Result<Option<Certificate>, String> {
        match (self.selector, self.matching) {
            (Selector::Certificate, Matching::Exact) => {
                Certificate::from_der(self.data.clone()).map(Some).map_err(|error| error.to_string())
            }
            _ => Ok(None),
        }
    }

    /// Usage, selector and matching type by their numbers.
    pub fn codes(&self) -> (u8, u8, u8) {
        (code(&USAGES, &self.usage), code(&SELECTORS, &self.selector), code(&MATCHINGS, &self.matching))
    }

    /// As the data of a record goes over the wire.
    pub fn to_rdata(&self) -> Vec<u8> {
        let (usage, selector, matching) = self.codes();
        [&[usage, selector, matching][..], &self.data].concat()
    }
}

/// As a zone file has it: `3 0 0 3082…`.
impl std::fmt::Display for Association {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (usage, selector, matching) = self.codes();
        write!(f, "{usage} {selector} {matching} ")?;
        self.data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Where the records of a local part in a domain stand (RFC 8162 section 3): the first 28 octets of SHA-256 over the local part, in
/// hexadecimal; without the final dot.
fn name(local: &str, domain: &str) -> String {
    let label: String =
        digest(Digest::Sha256, local.as_bytes()).iter().take(28).map(|octet| format!("{octet:02x}")).collect();
    format!("{label}._smimecert.{domain}")
}

/// The names to look at: of the local part as it is written (RFC 8162 folds nothing), and in lower case where that differs, as
/// mailboxes are compared here.
pub fn names(mailbox: &Mailbox) -> Vec<String> {
    let domain = mailbox.domain().as_str();
    let (written, lower) = (mailbox.local(), mailbox.local().to_ascii_lowercase());
    let mut names = vec![name(written, domain)];
    if lower != written {
        names.push(name(&lower, domain));
    }
    names
}

/// The name to publish a mailbox of ours under.
pub fn name_of(mailbox: &MailboxKey) -> String {
    let (local, domain) = mailbox.as_str().rsplit_once('@').unwrap_or_default();
    name(local, domain)
}

/// Fuzz body: data that is taken goes back into the same octets.
#[doc(hidden)]
pub fn fuzz_smimea(data: &[u8]) {
    let Ok(association) = Association::from_rdata(data) else { return };
    assert_eq!(association.to_rdata(), data);
    if let Ok(Some(certificate)) = association.certificate() {
        assert!(association.matches(&certificate));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::pki::authority::{NewKey, Recipe, issue};

    #[test]
    fn the_name_is_that_of_rfc_8162() {
        // RFC 8162 section 3, example: "hugh@example.com".
        let hugh = Mailbox::parse("hugh@example.com").unwrap();
        let name = "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6._smimecert.example.com";
        assert_eq!(names(&hugh), [name]);
        assert_eq!(name_of(&hugh.key()), name);
        let capital = Mailbox::parse("Hugh@example.com").unwrap();
        assert_eq!(names(&capital).len(), 2);
        assert_eq!(names(&capital)[1], name);
        assert_ne!(names(&capital)[0], name);
    }

    #[test]
    fn what_is_said_of_one_certificate_fits_no_other() {
        let recipe = |who| Recipe::mailbox(who, Timestamp::now(), NewKey::P256);
        let (one, other) = (issue(&recipe("a@b.example"), None), issue(&recipe("a@b.example"), None));
        for usage in USAGES {
            for selector in SELECTORS {
                for matching in MATCHINGS {
                    let said = Association::of(&one.certificate, usage, selector, matching);
                    assert!(said.matches(&one.certificate) && !said.matches(&other.certificate), "{said}");
                    assert_eq!(Association::from_rdata(&said.to_rdata()).unwrap(), said);
                    let whole = (selector, matching) == (Selector::Certificate, Matching::Exact);
                    assert_eq!(said.certificate().unwrap().is_some(), whole);
                    fuzz_smimea(&said.to_rdata());
                }
            }
        }
        let said = Association::of(&one.certificate, Usage::DaneEe, Selector::PublicKey, Matching::Sha256);
        assert!(said.to_string().starts_with("3 1 1 ") && said.to_string().len() == 6 + 64);
    }

    #[test]
    fn numbers_and_lengths_that_are_not_given_are_refused() {
        for wrong in [&[][..], &[3, 0], &[3, 0, 0], &[4, 0, 0, 1], &[3, 2, 0, 1], &[3, 0, 3, 1], &[3, 0, 1, 1]] {
            assert!(Association::from_rdata(wrong).is_err(), "{wrong:?}");
        }
        assert!(Association::from_rdata(&[3, 0, 0, 1]).unwrap().certificate().is_err());
    }

    proptest! {
        #[test]
        fn any_octets_are_taken_whole_or_refused(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            fuzz_smimea(&octets);
            fuzz_smimea(&[&[3, 1, 1], octets.as_slice()].concat());
        }
    }
}

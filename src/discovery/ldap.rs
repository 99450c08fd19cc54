//! LDAP (RFC 4511) as far as a look-up needs it: the few requests, and what comes back. P: octets in, values out.
//!
//! Addresses enter a filter as octets of an assertion value, never as text of a filter: there is nothing to escape (RFC 4515), and nothing
//! that an address could change in it.

mod filter;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::address::{Mailbox, MailboxKey};
use crate::cms::ber::{Element, Reader, tag, write};
use crate::cms::error::CmsError;
use crate::cms::signed::SignedData;
use crate::pki::certificate::Certificate;

pub use filter::{Filter, fuzz_ldap_filter};

/// Attributes asked for: certificates, and the addresses that they are of.
const ATTRIBUTES: [&str; 6] = [
    "userCertificate;binary",
    "userSMIMECertificate",
    "userSMIMECertificate;binary",
    "mail",
    "proxyAddresses",
    "mailAlternateAddress",
];
/// Addresses alone.
const ADDRESSES: [&str; 3] = ["mail", "proxyAddresses", "mailAlternateAddress"];
/// Addresses of one entry, at most.
const MAX_ADDRESSES: usize = 64;
/// A search of the whole subtree, and one of the entry that is named.
const SUBTREE: u8 = 2;
const BASE: u8 = 0;
/// A filter that asks whether an attribute is there.
const PRESENT: u8 = 0x87;
/// Attributes of one entry that are looked at.
const MAX_ATTRIBUTES: usize = 64;
/// Values of one attribute that are looked at.
const MAX_VALUES: usize = 256;
/// Entries that one address may have; more is no answer.
pub const MAX_ENTRIES: u32 = 8;

const BIND: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const UNBIND: u8 = 0x42;
const SEARCH: u8 = 0x63;
const ENTRY: u8 = 0x64;
const DONE: u8 = 0x65;
const REFERENCE: u8 = 0x73;
const EXTENDED: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;
const ENUMERATED: u8 = 0x0a;
const BOOLEAN: u8 = 0x01;
/// RFC 4511 section 4.14.1.
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// The message around a request.
fn message(id: u32, operation: &[u8]) -> Vec<u8> {
    write::sequence(&[&write::integer(id), operation])
}

/// A simple bind (RFC 4511 section 4.2); an empty name and password is anonymous.
pub fn bind(id: u32, name: &str, password: &[u8]) -> Vec<u8> {
    let simple = write::element(0x80, &[password]);
    message(id, &write::element(BIND, &[&write::integer(3), &write::octet_string(name.as_bytes()), &simple]))
}

/// Asks for TLS on this connection (RFC 4511 section 4.14).
pub fn start_tls(id: u32) -> Vec<u8> {
    message(id, &write::element(EXTENDED, &[&write::element(0x80, &[START_TLS])]))
}

/// Ends the connection.
pub fn unbind(id: u32) -> Vec<u8> {
    message(id, &write::element(UNBIND, &[]))
}

/// A search for the entries of one address below `base`: certificates and addresses; `seconds` is how long the server may take.
pub fn search(id: u32, base: &str, filter: &Filter, mailbox: &Mailbox, seconds: u32) -> Vec<u8> {
    // The whole subtree; aliases of the directory are followed by the server.
    request(id, (base, SUBTREE), &filter.encode(mailbox), &ATTRIBUTES, seconds)
}

/// As [`search`], for addresses alone.
pub fn search_addresses(id: u32, base: &str, filter: &Filter, mailbox: &Mailbox, seconds: u32) -> Vec<u8> {
    request(id, (base, SUBTREE), &filter.encode(mailbox), &ADDRESSES, seconds)
}

/// Asks for the addresses of the entry of this name.
pub fn addresses_of(id: u32, name: &str, seconds: u32) -> Vec<u8> {
    request(id, (name, BASE), &write::element(PRESENT, &[b"objectClass"]), &ADDRESSES, seconds)
}

fn request(id: u32, (base, scope): (&str, u8), filter: &[u8], attributes: &[&str], seconds: u32) -> Vec<u8> {
    let enumerated = |value: u8| write::element(ENUMERATED, &[&[value]]);
    let attributes: Vec<Vec<u8>> = attributes.iter().map(|name| write::octet_string(name.as_bytes())).collect();
    let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
    let request = write::element(
        SEARCH,
        &[
            &write::octet_string(base.as_bytes()),
            &enumerated(scope),
            &enumerated(3),
            &write::integer(MAX_ENTRIES),
            &write::integer(seconds),
            &write::element(BOOLEAN, &[&[0]]),
            filter,
            &write::sequence(&attributes),
        ],
    );
    message(id, &request)
}

/// A value within a distinguished name (RFC 4514 section 2.4): nothing in it ends the value.
pub fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, character) in value.char_indices() {
        let at_an_end = at == 0 || at + character.len_utf8() == value.len();
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => out.extend(['\\', character]),
            ' ' | '#' if at_an_end => out.extend(['\\', character]),
            control if control.is_ascii_control() => out.push_str(&format!("\\{:02X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// One entry of a search.
    Entry(Entry),
    /// A search goes on elsewhere: not followed.
    Reference,
    /// The end of a search.
    Done(Outcome),
    /// The answer to a bind.
    Bound(Outcome),
    /// The answer to [`start_tls`], or a notice of disconnection.
    Extended(Outcome),
}

/// An LDAPResult (RFC 4511 section 4.1.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// 0 is success.
    pub code: u32,
    /// What the server says to it, cut to 200 characters.
    pub text: String,
}

/// An entry of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Its name, for people: escaped, cut to 200 characters.
    pub name: String,
    /// Its name as sent; what is not UTF-8 is replaced.
    pub dn: String,
    /// Attribute descriptions as sent, with their values.
    pub attributes: Vec<(String, Vec<Bytes>)>,
}

/// How long the message is that begins with these octets, header included; `None`: more octets are needed to tell.
///
/// # Errors
/// No LDAP message begins so.
pub fn length(begins: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut octets = begins.iter().copied();
    match octets.next() {
        None => return Ok(None),
        Some(tag::SEQUENCE) => {}
        Some(_) => return Err("no LDAP message"),
    }
    match octets.next() {
        None => Ok(None),
        Some(short @ 0..=0x7f) => Ok(Some(usize::from(short).saturating_add(2))),
        Some(long @ 0x81..=0x84) => {
            let digits = usize::from(long & 0x7f);
            let mut length = 0_usize;
            for _ in 0..digits {
                let Some(octet) = octets.next() else { return Ok(None) };
                length = length.saturating_mul(256).saturating_add(usize::from(octet));
            }
            Ok(Some(length.saturating_add(digits).saturating_add(2)))
        }
        Some(_) => Err("no length of an LDAP message"),
    }
}

/// Reads one message: its id, and what it says.
///
/// # Errors
/// Where it is not formed as RFC 4511 says.
pub fn read(octets: &Bytes) -> Result<(u32, Response), CmsError> {
    let mut outer = Reader::ber(octets);
    let mut fields = outer.expect(tag::SEQUENCE, "LDAPMessage")?.reader();
    outer.end("LDAPMessage")?;
    let id = fields.small_integer("messageID")?;
    let operation = fields.element()?;
    let response = match operation.tag {
        ENTRY => Response::Entry(entry(&operation, octets)?),
        REFERENCE => Response::Reference,
        DONE => Response::Done(outcome(&operation)?),
        BIND_RESPONSE => Response::Bound(outcome(&operation)?),
        EXTENDED_RESPONSE => Response::Extended(outcome(&operation)?),
        _ => return Err(CmsError::Rule { rule: "RFC 4511 section 4", why: "a response of another kind" }),
    };
    Ok((id, response))
}

fn outcome(operation: &Element<'_>) -> Result<Outcome, CmsError> {
    let mut fields = operation.reader();
    let code = fields.expect(ENUMERATED, "resultCode")?.small_integer("resultCode")?;
    fields.string(tag::OCTET_STRING, "matchedDN")?;
    let text = fields.string(tag::OCTET_STRING, "diagnosticMessage")?.octets("diagnosticMessage")?;
    let text = String::from_utf8_lossy(&text).chars().take(200).flat_map(char::escape_default).collect();
    Ok(Outcome { code, text })
}

fn entry(operation: &Element<'_>, octets: &Bytes) -> Result<Entry, CmsError> {
    let mut fields = operation.reader();
    let name = fields.string(tag::OCTET_STRING, "objectName")?.octets("objectName")?;
    let dn = String::from_utf8_lossy(&name).into_owned();
    let name = dn.chars().take(200).flat_map(char::escape_default).collect();
    let mut list = fields.expect(tag::SEQUENCE, "attributes")?.reader();
    let mut attributes = Vec::new();
    while !list.is_empty() {
        if attributes.len() == MAX_ATTRIBUTES {
            return Err(CmsError::Limit("more than 64 attributes in an entry"));
        }
        let mut attribute = list.expect(tag::SEQUENCE, "PartialAttribute")?.reader();
        let description = attribute.string(tag::OCTET_STRING, "type")?.octets("type")?;
        let description = String::from_utf8_lossy(&description).into_owned();
        let mut set = attribute.expect(tag::SET, "vals")?.reader();
        let mut values = Vec::new();
        while !set.is_empty() {
            if values.len() == MAX_VALUES {
                return Err(CmsError::Limit("more than 256 values of an attribute"));
            }
            values.push(set.string(tag::OCTET_STRING, "value")?.octet_bytes(octets, "value")?);
        }
        attributes.push((description, values));
    }
    Ok(Entry { name, dn, attributes })
}

/// The certificates of an entry.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Those that could be read: of users and, out of PKCS#7, of CAs.
    pub certificates: Vec<Certificate>,
    /// Values that could not be read.
    pub unreadable: usize,
}

impl Entry {
    /// The values of an attribute, whatever its options (`;binary`).
    fn values<'e>(&'e self, attribute: &'e str) -> impl Iterator<Item = &'e Bytes> {
        let named = move |description: &str| {
            let name = description.split(';').next().unwrap_or_default();
            name.eq_ignore_ascii_case(attribute)
        };
        self.attributes.iter().filter(move |(description, _)| named(description)).flat_map(|(_, values)| values)
    }

    /// Its certificates, each once: userCertificate (RFC 4523), and those in userSMIMECertificate (RFC 2798 section 2.8), which is a
    /// PKCS#7 SignedData and by some a bare certificate.
    pub fn certificates(&self) -> Held {
        let mut held = Held::default();
        // Octets of their own: each is kept longer than the answer.
        let own = |value: &Bytes| Bytes::copy_from_slice(value);
        for value in self.values("userCertificate") {
            held.take(Certificate::from_der(own(value)).map(|one| vec![one]).ok());
        }
        for value in self.values("userSMIMECertificate") {
            let value = own(value);
            let signed = SignedData::parse(&value).map(|data| data.certificates).ok().filter(|list| !list.is_empty());
            held.take(signed.or_else(|| Certificate::from_der(value).map(|one| vec![one]).ok()));
        }
        held
    }

    /// The mailboxes that it says it is of: `mail`, and the primary one of proxyAddresses (`SMTP:` in capitals).
    pub fn mailboxes(&self) -> Vec<Mailbox> {
        let mail = self.texts("mail").filter_map(|text| Mailbox::parse(&text).ok());
        let primary = self.texts("proxyAddresses").filter_map(|text| Mailbox::parse(text.strip_prefix("SMTP:")?).ok());
        mail.chain(primary).collect()
    }

    /// All addresses that it says are its own, each once: those of [`Entry::mailboxes`] first, then proxyAddresses (`smtp:`) and
    /// mailAlternateAddress. 64 at most.
    pub fn addresses(&self) -> Vec<Mailbox> {
        let proxies = self.texts("proxyAddresses").filter_map(|text| {
            let (kind, address) = text.split_once(':')?;
            kind.eq_ignore_ascii_case("smtp").then(|| Mailbox::parse(address).ok())?
        });
        let alternate = self.texts("mailAlternateAddress").filter_map(|text| Mailbox::parse(&text).ok());
        let mut addresses: Vec<Mailbox> = Vec::new();
        for one in self.mailboxes().into_iter().chain(proxies).chain(alternate) {
            if addresses.len() < MAX_ADDRESSES && !addresses.iter().any(|known| known.key() == one.key()) {
                addresses.push(one);
            }
        }
        addresses
    }

    /// Whether it says that the address belongs to it.
    pub fn has_alias(&self, address: &MailboxKey) -> bool {
        let alternate = self.texts("mailAlternateAddress").filter_map(|text| MailboxKey::parse(&text).ok());
        let proxy = self.texts("proxyAddresses").filter_map(|text| {
            let (kind, address) = text.split_once(':')?;
            kind.eq_ignore_ascii_case("smtp").then(|| MailboxKey::parse(address).ok())?
        });
        alternate.chain(proxy).any(|one| one == *address)
    }

    fn texts<'e>(&'e self, attribute: &'e str) -> impl Iterator<Item = String> {
        self.values(attribute).filter_map(|value| String::from_utf8(value.to_vec()).ok())
    }
}

impl Held {
    fn take(&mut self, read: Option<Vec<Certificate>>) {
        let Some(read) = read else {
            self.unreadable = self.unreadable.saturating_add(1);
            return;
        };
        for one in read {
            if !self.certificates.contains(&one) {
                self.certificates.push(one);
            }
        }
    }
}

/// Fuzz body: whatever a server sends is a response within the bounds, or an error.
#[doc(hidden)]
pub fn fuzz_ldap_answer(data: &[u8]) {
    let octets = Bytes::copy_from_slice(data);
    let told = length(data);
    let Ok((_, response)) = read(&octets) else { return };
    if let Ok(Some(length)) = told {
        assert_eq!(length, data.len());
    }
    if let Response::Entry(entry) = response {
        assert!(entry.attributes.len() <= MAX_ATTRIBUTES);
        let held = entry.certificates();
        assert!(held.unreadable <= MAX_ATTRIBUTES * MAX_VALUES);
        for mailbox in entry.mailboxes() {
            let _ = entry.has_alias(&mailbox.key());
        }
        assert!(entry.addresses().len() <= MAX_ADDRESSES);
    }
}

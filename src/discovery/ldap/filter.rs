//! Search filters (RFC 4515) with places for the address that is looked for.

use crate::address::Mailbox;
use crate::cms::ber::write;

/// Filters in filters, at most.
const MAX_DEPTH: usize = 8;
/// Octets of a filter's text.
const MAX_TEXT: usize = 4_096;

/// A filter: `{address}`, `{local}` and `{domain}` in its values stand for what is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// `and` or `or`, by its tag.
    Set(u8, Vec<Node>),
    Not(Box<Node>),
    /// equalityMatch, greaterOrEqual, lessOrEqual, approxMatch, by its tag.
    Compare(u8, String, Value),
    Present(String),
    /// Between the asterisks; an end that is open is `None`.
    Substrings(String, Option<Value>, Vec<Value>, Option<Value>),
}

const AND: u8 = 0xa0;
const OR: u8 = 0xa1;
const NOT: u8 = 0xa2;
const EQUAL: u8 = 0xa3;
const SUBSTRINGS: u8 = 0xa4;
const GREATER: u8 = 0xa5;
const LESS: u8 = 0xa6;
const PRESENT: u8 = 0x87;
const APPROXIMATE: u8 = 0xa8;

/// An assertion value in pieces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Value(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Octets(Vec<u8>),
    Address,
    Local,
    Domain,
}

impl Filter {
    /// Reads a filter: everything of RFC 4515 but extensible matches.
    ///
    /// # Errors
    /// What is wrong with it, and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("expected a filter of at most {MAX_TEXT} octets"));
        }
        let (node, rest) = node(text.trim(), 0)?;
        if !rest.is_empty() {
            return Err(format!("expected one filter in parentheses (RFC 4515); {rest:?} follows it"));
        }
        let filter = Self(node);
        if !filter.0.names_what_is_looked_for() {
            return Err("expected {address} or {local} in a value: it stands for what is looked for".into());
        }
        Ok(filter)
    }

    /// As it goes to the server (RFC 4511 section 4.5.1.7), for this address.
    pub fn encode(&self, mailbox: &Mailbox) -> Vec<u8> {
        self.0.encode(mailbox)
    }
}

impl Default for Filter {
    /// What most directories know a mailbox by.
    fn default() -> Self {
        let one = |attribute: &str, before: &str| {
            let mut pieces = vec![Piece::Address];
            if !before.is_empty() {
                pieces.insert(0, Piece::Octets(before.as_bytes().to_vec()));
            }
            Node::Compare(EQUAL, attribute.to_owned(), Value(pieces))
        };
        Self(Node::Set(OR, vec![one("mail", ""), one("mailAlternateAddress", ""), one("proxyAddresses", "smtp:")]))
    }
}

const FORM: &str = "expected a filter such as \"(mail={address})\" (RFC 4515)";

fn node(text: &str, depth: usize) -> Result<(Node, &str), String> {
    if depth > MAX_DEPTH {
        return Err(format!("expected filters nested at most {MAX_DEPTH} deep"));
    }
    let inside = text.strip_prefix('(').ok_or_else(|| FORM.to_owned())?;
    let set = |tag, rest: &str| -> Result<(Node, usize), String> {
        let (mut nodes, mut left) = (Vec::new(), rest);
        while left.starts_with('(') {
            let found;
            (found, left) = node(left, depth + 1)?;
            nodes.push(found);
        }
        if nodes.is_empty() { Err(FORM.to_owned()) } else { Ok((Node::Set(tag, nodes), left.len())) }
    };
    let (found, left) = if let Some(rest) = inside.strip_prefix('&') {
        set(AND, rest)?
    } else if let Some(rest) = inside.strip_prefix('|') {
        set(OR, rest)?
    } else if let Some(rest) = inside.strip_prefix('!') {
        let (found, left) = node(rest, depth + 1)?;
        (Node::Not(Box::new(found)), left.len())
    } else {
        let end = inside.find(')').ok_or_else(|| format!("{FORM}; a parenthesis is not closed"))?;
        let (item, _) = inside.split_at_checked(end).ok_or_else(|| FORM.to_owned())?;
        (comparison(item)?, inside.len() - end)
    };
    let left = inside.get(inside.len() - left..).unwrap_or_default();
    let rest = left.strip_prefix(')').ok_or_else(|| format!("{FORM}; a parenthesis is not closed"))?;
    Ok((found, rest))
}

fn comparison(item: &str) -> Result<Node, String> {
    let (attribute, value) = item.split_once('=').ok_or_else(|| FORM.to_owned())?;
    let (attribute, tag) = match attribute.as_bytes().last() {
        Some(b'>') => (attribute.trim_end_matches('>'), GREATER),
        Some(b'<') => (attribute.trim_end_matches('<'), LESS),
        Some(b'~') => (attribute.trim_end_matches('~'), APPROXIMATE),
        _ => (attribute, EQUAL),
    };
    let of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ';' | '.');
    if attribute.is_empty() || !attribute.chars().all(of_names) {
        return Err(format!("expected the name of an attribute before =, not {attribute:?}"));
    }
    let attribute = attribute.to_owned();
    if tag != EQUAL || !value.contains('*') {
        return Ok(Node::Compare(tag, attribute, self::value(value)?));
    }
    if value == "*" {
        return Ok(Node::Present(attribute));
    }
    let mut pieces = value.split('*').map(|piece| (!piece.is_empty()).then(|| self::value(piece)).transpose());
    let first = pieces.next().transpose()?.flatten();
    let mut others = pieces.collect::<Result<Vec<_>, _>>()?;
    let last = others.pop().flatten();
    Ok(Node::Substrings(attribute, first, others.into_iter().flatten().collect(), last))
}

fn value(text: &str) -> Result<Value, String> {
    const PLACES: [(&str, Piece); 3] =
        [("{address}", Piece::Address), ("{local}", Piece::Local), ("{domain}", Piece::Domain)];
    let (mut pieces, mut octets, mut rest) = (Vec::new(), Vec::new(), text);
    'text: while let Some(first) = rest.chars().next() {
        for (name, piece) in PLACES {
            if let Some(after) = rest.strip_prefix(name) {
                if !octets.is_empty() {
                    pieces.push(Piece::Octets(std::mem::take(&mut octets)));
                }
                pieces.push(piece);
                rest = after;
                continue 'text;
            }
        }
        let after = rest.get(first.len_utf8()..).unwrap_or_default();
        match first {
            '\\' => {
                let escaped = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                octets.push(escaped.ok_or("expected two hexadecimal digits after a backslash (RFC 4515)")?);
                rest = after.get(2..).unwrap_or_default();
            }
            '(' | ')' | '\0' => return Err("expected parentheses in values to be written \\28 and \\29".into()),
            '{' | '}' => return Err("expected {address}, {local} or {domain}".into()),
            other => {
                octets.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
        }
    }
    if !octets.is_empty() {
        pieces.push(Piece::Octets(octets));
    }
    Ok(Value(pieces))
}

impl Value {
    fn octets(&self, mailbox: &Mailbox) -> Vec<u8> {
        let (local, domain) = (mailbox.local().as_bytes(), mailbox.domain().as_str().as_bytes());
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Octets(octets) => octets.clone(),
            Piece::Address => [local, b"@", domain].concat(),
            Piece::Local => local.to_vec(),
            Piece::Domain => domain.to_vec(),
        });
        pieces.flatten().collect()
    }

    fn names_what_is_looked_for(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Address | Piece::Local))
    }
}

impl Node {
    fn encode(&self, mailbox: &Mailbox) -> Vec<u8> {
        match self {
            Self::Set(tag, nodes) => {
                let nodes: Vec<Vec<u8>> = nodes.iter().map(|node| node.encode(mailbox)).collect();
                write::element(*tag, &nodes.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            Self::Not(node) => write::element(NOT, &[&node.encode(mailbox)]),
            Self::Compare(tag, attribute, value) => write::element(
                *tag,
                &[&write::octet_string(attribute.as_bytes()), &write::octet_string(&value.octets(mailbox))],
            ),
            Self::Present(attribute) => write::element(PRESENT, &[attribute.as_bytes()]),
            Self::Substrings(attribute, first, middle, last) => {
                let part = |tag, value: &Value| write::element(tag, &[&value.octets(mailbox)]);
                let parts: Vec<Vec<u8>> = (first.iter().map(|value| part(0x80, value)))
                    .chain(middle.iter().map(|value| part(0x81, value)))
                    .chain(last.iter().map(|value| part(0x82, value)))
                    .collect();
                let parts = write::sequence(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
                write::element(SUBSTRINGS, &[&write::octet_string(attribute.as_bytes()), &parts])
            }
        }
    }

    fn names_what_is_looked_for(&self) -> bool {
        match self {
            Self::Set(_, nodes) => nodes.iter().any(Node::names_what_is_looked_for),
            // What is looked for is not found by what it is not.
            Self::Not(_) | Self::Present(_) => false,
            Self::Compare(_, _, value) => value.names_what_is_looked_for(),
            Self::Substrings(_, first, middle, last) => {
                first.iter().chain(middle).chain(last).any(Value::names_what_is_looked_for)
            }
        }
    }
}

/// Fuzz body: a text is a filter that goes out as BER elements, or an error.
#[doc(hidden)]
pub fn fuzz_ldap_filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (Ok(filter), Ok(mailbox)) = (Filter::parse(text), Mailbox::parse("\"*)(uid=*\"@a.example")) else { return };
    let octets = filter.encode(&mailbox);
    let mut reader = crate::cms::ber::Reader::der(&octets);
    assert!(reader.element().is_ok() && reader.is_empty());
}

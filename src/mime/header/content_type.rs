//! Content-Type and its like (RFC 2045 section 5.1, RFC 2231), read strictly.

use super::MimeError;
use super::encoded_word::{hex_pair, to_text};

/// Parameters read at most; a header is bounded, this bounds the work of comparing names.
const PARAMETERS: usize = 200;

/// A Content-Type, read strictly: a duplicate parameter is ambiguous (A14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType {
    /// `type/subtype`, lower case.
    pub essence: String,
    /// Parameters: name in lower case, value unquoted, RFC 2231 continuations joined.
    pub parameters: Vec<(String, String)>,
}

impl ContentType {
    /// Reads a field's value. A parameter given twice, or one that decides how the entity is read and is written in the form
    /// of RFC 2231, is [`MimeError::Ambiguous`]; what the grammar does not allow is [`MimeError::Malformed`].
    pub fn parse(value: &str) -> Result<Self, MimeError> {
        let (kind, rest) = take_token(skip_cfws(value)?)?;
        let rest = skip_cfws(rest)?.strip_prefix('/').ok_or(MimeError::Malformed("a media type without subtype"))?;
        let (subtype, rest) = take_token(skip_cfws(rest)?)?;
        let essence = format!("{kind}/{subtype}").to_ascii_lowercase();
        Ok(Self { essence, parameters: parameters(rest)? })
    }
    /// `text/plain`, as RFC 2045 section 5.2 has it where the field is absent.
    pub fn text_plain() -> Self {
        Self { essence: "text/plain".to_owned(), parameters: Vec::new() }
    }
    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut all = self.parameters.iter();
        all.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
    /// Whether it is `multipart/…`.
    pub fn is_multipart(&self) -> bool {
        self.essence.starts_with("multipart/")
    }
}

/// A value with parameters, of Content-Type or Content-Disposition (RFC 2183), to be written anew.
pub(crate) struct Parameters {
    value: String,
    parameters: Vec<(String, String)>,
}

impl Parameters {
    pub(crate) fn parse(text: &str) -> Result<Self, MimeError> {
        let (value, rest) = take_token(skip_cfws(text)?)?;
        if let Some(rest) = rest.strip_prefix('/') {
            let (subtype, rest) = take_token(rest)?;
            return Ok(Self { value: format!("{value}/{subtype}"), parameters: parameters(rest)? });
        }
        Ok(Self { value: value.to_owned(), parameters: parameters(rest)? })
    }
    /// Sets a parameter, at the end.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.parameters.push((name.to_owned(), value.to_owned()));
    }
    /// Takes a parameter away.
    pub(crate) fn remove(&mut self, name: &str) {
        self.parameters.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
    }
    /// In ASCII: quoted where it can be, in the form of RFC 2231 elsewhere.
    pub(crate) fn to_wire(&self) -> String {
        let mut out = self.value.clone();
        for (name, value) in &self.parameters {
            if value.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
                let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
                out.push_str(&format!("; {name}=\"{escaped}\""));
                continue;
            }
            out.push_str(&format!("; {name}*=utf-8''"));
            for octet in value.bytes() {
                match octet {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => out.push(char::from(octet)),
                    _ => out.push_str(&format!("%{octet:02X}")),
                }
            }
        }
        out
    }
}

/// A parameter as written, before RFC 2231.
struct Written {
    name: String,
    value: String,
}

/// `*( ";" parameter )`; an empty parameter (`text/plain;`) is harmless and common.
fn parameters(mut rest: &str) -> Result<Vec<(String, String)>, MimeError> {
    let mut written: Vec<Written> = Vec::new();
    loop {
        rest = skip_cfws(rest)?;
        if rest.is_empty() {
            return join(written);
        }
        rest = skip_cfws(rest.strip_prefix(';').ok_or(MimeError::Malformed("text after a parameter's value"))?)?;
        if rest.is_empty() || rest.starts_with(';') {
            continue;
        }
        let (name, after) = take_token(rest)?;
        let after = skip_cfws(after)?.strip_prefix('=').ok_or(MimeError::Malformed("a parameter without value"))?;
        let (value, after) = take_value(skip_cfws(after)?)?;
        rest = after;
        let name = name.to_ascii_lowercase();
        if written.iter().any(|other| other.name == name) {
            return Err(MimeError::Ambiguous("a Content-Type parameter that stands twice"));
        }
        if written.len() >= PARAMETERS {
            return Err(MimeError::Limit("parameters of one field"));
        }
        written.push(Written { name, value });
    }
}

/// Joins continuations and decodes extended values (RFC 2231 sections 3 and 4).
fn join(written: Vec<Written>) -> Result<Vec<(String, String)>, MimeError> {
    let mut out: Vec<(String, String)> = Vec::new();
    for parameter in written.iter().filter(|parameter| !parameter.name.contains('*')) {
        out.push((parameter.name.clone(), parameter.value.clone()));
    }
    let extended = |name: &str, section: usize| {
        let plain = format!("{name}*{section}");
        written.iter().find(|p| p.name.strip_suffix('*').unwrap_or(&p.name) == plain)
    };
    for first in &written {
        let Some((name, suffix)) = first.name.split_once('*') else { continue };
        if !matches!(suffix, "" | "0" | "0*") {
            continue;
        }
        // Not every reader knows RFC 2231: what decides over the reading may not be said in it.
        if matches!(name, "boundary" | "protocol" | "smime-type" | "micalg" | "charset") {
            return Err(MimeError::Ambiguous("a deciding parameter in the form of RFC 2231"));
        }
        let mut octets = Vec::new();
        let mut charset = String::from("utf-8");
        let mut section = 0;
        let mut next = Some(first);
        while let Some(part) = next {
            let mut value = part.value.as_str();
            if part.name.ends_with('*') {
                if section == 0 {
                    let mut pieces = value.splitn(3, '\'');
                    if let (Some(set), Some(_), Some(text)) = (pieces.next(), pieces.next(), pieces.next()) {
                        charset = set.to_ascii_lowercase();
                        value = text;
                    }
                }
                percent_decode(value, &mut octets);
            } else {
                octets.extend_from_slice(value.as_bytes());
            }
            section += 1;
            next = if suffix.is_empty() { None } else { extended(name, section) };
        }
        // Beside a plain value for readers that do not know RFC 2231, the extended one holds.
        out.retain(|(other, _)| other != name);
        out.push((name.to_owned(), to_text(&charset, octets)));
    }
    Ok(out)
}

fn percent_decode(value: &str, out: &mut Vec<u8>) {
    let mut rest = value.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if let (b'%', [high, low, after @ ..]) = (first, tail)
            && let Some(octet) = hex_pair(*high, *low)
        {
            out.push(octet);
            rest = after;
            continue;
        }
        out.push(*first);
    }
}

/// A token of RFC 2045, at least one character.
fn take_token(text: &str) -> Result<(&str, &str), MimeError> {
    let end = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
    match text.split_at_checked(end) {
        Some((token, rest)) if !token.is_empty() => Ok((token, rest)),
        _ => Err(MimeError::Malformed("a token was expected")),
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c)
}

/// A quoted string, or a token in which some characters that all readers take (`=`, `/`, `:`, `?`, `@`) are let through.
fn take_value(text: &str) -> Result<(String, &str), MimeError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_ascii_whitespace() || c == ';').unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        if value.is_empty() {
            return Err(MimeError::Malformed("a parameter without value"));
        }
        return match value.chars().all(|c| is_token(c) || "=/:?@".contains(c)) {
            true => Ok((value.to_owned(), rest)),
            false if value.is_ascii() => Err(MimeError::Ambiguous("a special character in an unquoted parameter")),
            false => Err(MimeError::Malformed("a parameter that is neither ASCII nor quoted")),
        };
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((value, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            c if c.is_control() && c != '\t' => return Err(MimeError::Forbidden("a quoted parameter")),
            c => value.push(c),
        }
    }
    Err(MimeError::Ambiguous("a quoted string that does not end"))
}

/// Skips white space and comments (RFC 5322 section 3.2.2), nested to any depth, without recursion.
pub(crate) fn skip_cfws(text: &str) -> Result<&str, MimeError> {
    let mut depth = 0usize;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            '\\' if depth > 0 => {
                characters.next();
            }
            _ if depth > 0 || matches!(c, ' ' | '\t') => {}
            _ => return Ok(text.get(at..).unwrap_or_default()),
        }
    }
    if depth > 0 { Err(MimeError::Ambiguous("a comment that does not end")) } else { Ok("") }
}

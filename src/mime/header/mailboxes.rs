//! Mailboxes in From, To and Cc (RFC 5322 section 3.4): one reading that trusts nothing, one for information.

use super::MimeError;
use super::encoded_word;
use crate::address::Mailbox;

const TWO_WAYS: MimeError = MimeError::Ambiguous("From can be read two ways");

/// The one mailbox of a From field's value (RFC 5322: `addr-spec` or `[display-name] <addr-spec>`, comments only where
/// they cannot be taken for something else). Everything else is an error: groups, lists, routes, obsolete forms.
pub(super) fn single(value: &[u8]) -> Result<Mailbox, MimeError> {
    let text = std::str::from_utf8(value).map_err(|_| MimeError::Ambiguous("From is not UTF-8"))?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(MimeError::Forbidden("From"));
    }
    let mut phrase = String::new();
    let mut rest = text;
    let mut quoted_before = false;
    while let Some(c) = rest.chars().next() {
        match c {
            '"' => {
                let (inner, after) = quoted(rest)?;
                // A quoted local part would go on with '@'.
                if after.starts_with('@') {
                    return address(rest);
                }
                if inner.contains(['<', '>']) {
                    return Err(TWO_WAYS);
                }
                phrase.push_str(&inner);
                quoted_before = true;
                rest = after;
            }
            '(' => rest = comment(rest)?,
            '<' => {
                let inside = rest.get(1..).unwrap_or_default();
                let (spec, after) = inside.split_once('>').ok_or(TWO_WAYS)?;
                if !skip(after)?.is_empty() {
                    return Err(TWO_WAYS);
                }
                let mailbox = addr_spec(spec)?;
                return plausible(&phrase, &mailbox).map(|()| mailbox);
            }
            '@' if !quoted_before && !phrase.trim().is_empty() => return address(text),
            ')' | '>' | ',' | ';' | ':' | '[' | ']' | '\\' | '@' => return Err(TWO_WAYS),
            c => {
                phrase.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
    }
    Err(MimeError::Malformed("From holds no address"))
}

/// A bare `addr-spec`, comments around it.
fn address(text: &str) -> Result<Mailbox, MimeError> {
    let text = skip(text)?;
    let end = text.find([' ', '\t', '(']).unwrap_or(text.len());
    let (spec, after) = text.split_at_checked(end).ok_or(TWO_WAYS)?;
    if !skip(after)?.is_empty() {
        return Err(TWO_WAYS);
    }
    addr_spec(spec)
}

/// `local@domain` without white space, comments, routes or encoded words; a quoted local part only where its quotes hide
/// nothing that separates addresses.
fn addr_spec(spec: &str) -> Result<Mailbox, MimeError> {
    let (local, domain) = spec.rsplit_once('@').ok_or(MimeError::Malformed("From holds no address"))?;
    let bare = local.strip_prefix('"').and_then(|l| l.strip_suffix('"')).unwrap_or(local);
    let odd = |c: char| c.is_whitespace() || "@<>,;:\\\"()[]".contains(c);
    if bare.contains(odd) || spec.contains("=?") {
        return Err(TWO_WAYS);
    }
    let literal = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']'));
    if literal.unwrap_or(domain).contains(|c: char| odd(c) && !(literal.is_some() && c == ':')) {
        return Err(TWO_WAYS);
    }
    Mailbox::parse(spec).map_err(|_| MimeError::Malformed("From holds no valid address"))
}

/// A display name that shows another address, at once or after RFC 2047 decoding, could be taken for the author.
fn plausible(phrase: &str, mailbox: &Mailbox) -> Result<(), MimeError> {
    let shown = encoded_word::decode(phrase);
    if shown.chars().any(|c| c.is_control() && c != '\t') {
        return Err(MimeError::Forbidden("From"));
    }
    if shown.contains(['<', '>']) {
        return Err(TWO_WAYS);
    }
    let name = shown.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\'' | '"'));
    let same = Mailbox::parse(name).is_ok_and(|shown| shown.key() == mailbox.key());
    if shown.contains(['@', '\u{FF20}', '\u{FE6B}']) && !same {
        return Err(MimeError::Ambiguous("the display name in From holds another address"));
    }
    Ok(())
}

/// A quoted string at the start: its content, and what follows.
fn quoted(text: &str) -> Result<(String, &str), MimeError> {
    let mut inner = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((inner, text.get(at + 1..).unwrap_or_default())),
            '\\' => inner.push(characters.next().ok_or(TWO_WAYS)?.1),
            c => inner.push(c),
        }
    }
    Err(TWO_WAYS)
}

/// Skips a comment at the start that nobody can take for an address: no nesting, no quoting, no specials.
fn comment(text: &str) -> Result<&str, MimeError> {
    let (inner, after) = text.strip_prefix('(').and_then(|t| t.split_once(')')).ok_or(TWO_WAYS)?;
    if inner.contains(['(', '\\', '"', '<', '>', '@']) || encoded_word::decode(inner).contains(['<', '>', '@']) {
        return Err(TWO_WAYS);
    }
    Ok(after)
}

/// Skips white space and plain comments.
fn skip(mut text: &str) -> Result<&str, MimeError> {
    loop {
        text = text.trim_start_matches([' ', '\t']);
        if !text.starts_with('(') {
            return Ok(text);
        }
        text = comment(text)?;
    }
}

/// The addresses of a list that can be read; groups are opened, the rest is passed over.
pub(super) fn list(value: &str) -> Vec<Mailbox> {
    let mut found = Vec::new();
    let mut current = String::new();
    let (mut quoted, mut escaped, mut comment, mut angle, mut at_seen) = (false, false, 0usize, false, false);
    for c in value.chars().chain([',']) {
        if escaped {
            escaped = false;
            if comment == 0 {
                current.push(c);
            }
            continue;
        }
        match c {
            '\\' if quoted || comment > 0 => escaped = true,
            '"' if comment == 0 => quoted = !quoted,
            '(' if !quoted => comment += 1,
            ')' if !quoted && comment > 0 => {
                comment -= 1;
                continue;
            }
            '<' if !quoted && comment == 0 => angle = true,
            '>' if !quoted && comment == 0 => angle = false,
            ':' if !quoted && comment == 0 && !angle && !at_seen => {
                current.clear();
                continue;
            }
            ',' | ';' if !quoted && comment == 0 && !angle => {
                found.extend(readable(&current));
                current.clear();
                at_seen = false;
                continue;
            }
            '@' if comment == 0 => at_seen = true,
            _ => {}
        }
        if comment == 0 {
            current.push(c);
        }
    }
    found.extend(readable(&current));
    found
}

fn readable(text: &str) -> Option<Mailbox> {
    let spec = match text.rsplit_once('<') {
        Some((_, inside)) => inside.split_once('>').map_or(inside, |(spec, _)| spec),
        None => text,
    };
    Mailbox::parse(spec.trim()).ok()
}

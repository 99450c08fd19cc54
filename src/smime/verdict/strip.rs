//! Forged marks taken out of a header (A8).

use bytes::Bytes;

use super::{Marks, skeleton};
use crate::address::Domain;
use crate::mime::entity::MimeLimits;
use crate::mime::header::{Block, Field, Header, HeaderWriter, decode_encoded_words};

/// What stands in our tags, as a skeleton.
const TAGS: [&str; 24] = [
    "signed",
    "unsigned",
    "notsigned",
    "encrypted",
    "unencrypted",
    "notencrypted",
    "decrypted",
    "notdecrypted",
    "verified",
    "unverified",
    "notverified",
    "valid",
    "invalid",
    "validsignature",
    "invalidsignature",
    "signaturevalid",
    "signatureinvalid",
    "signatureverified",
    "authenticated",
    "unauthenticated",
    "trusted",
    "untrusted",
    "smime",
    "s/mime",
];

/// Words removed pass by pass at most; what is nested deeper loses its brackets.
const PASSES: usize = 16;

/// The octets of the header that `octets` begins with, without forged marks, and what follows it (the empty line first).
/// `tag` is put in front of the first Subject.
pub(super) fn strip(marks: &Marks, octets: &Bytes, mut tag: Option<&str>) -> (Vec<u8>, Bytes) {
    let mut out = Vec::with_capacity(4096.min(octets.len()) + 64);
    let mut rest = octets.clone();
    let mut first = true;
    while let Some(block) = Block::take(&mut rest) {
        // White space at the very start would go on with the field that we put in front.
        let orphan = first && matches!(block.raw.first(), Some(b' ' | b'\t'));
        first = false;
        if orphan || is_forged(marks, &block) {
            continue;
        }
        match block.field().filter(|field| marks.subject_tags && field.is("Subject")) {
            Some(subject) => out.extend(retagged(&subject, tag.take())),
            None => out.extend_from_slice(&block.raw),
        }
    }
    if let Some(tag) = tag.filter(|_| marks.subject_tags) {
        out.extend(format!("Subject: {tag}\r\n").into_bytes());
    }
    (out, rest)
}

/// Whether a field or a broken line is, or may be taken for, one of our marks. A bare CR counts as a line end too.
fn is_forged(marks: &Marks, block: &Block) -> bool {
    let text = String::from_utf8_lossy(&block.raw);
    let mut lines = text.split('\r').filter(|line| !line.trim().is_empty() && !line.starts_with(['\n', '\0']));
    // The first piece is the line itself; a fold belongs to it, what follows a bare CR may be taken for a line of its own.
    let whole: String = text.replace("\r\n", "");
    is_mark(marks, &whole, block.name_len.is_none())
        || (whole.contains('\r') && lines.any(|line| is_mark(marks, line, true)))
        || (block.raw.contains(&0) && text.split('\0').any(|piece| is_mark(marks, piece, true)))
}

fn is_mark(marks: &Marks, text: &str, broken: bool) -> bool {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let name = skeleton::of(name);
    if name == "x-waxwing" || name.starts_with("x-waxwing-") || (broken && skeleton::of(text).starts_with("x-waxwing"))
    {
        return true;
    }
    if name == "authentication-results" {
        return is_our_result(marks, value);
    }
    broken
        && (name.starts_with("authentication-results") && is_ours_anywhere(marks, text)
            || marks.subject_tags
                && name.starts_with("subject")
                && !find_tags(&skeleton::with_origins(text)).is_empty())
}

fn is_ours_anywhere(marks: &Marks, text: &str) -> bool {
    let looks = skeleton::of(&decode_encoded_words(text));
    looks.contains(marks.authserv_id.as_str()) || looks.contains("smime=")
}

/// Whether the authserv-id (RFC 8601 section 2.2) is ours: comments, quotes, white space, case, a version and the form of its
/// labels do not matter. A result without one is ours where it tells of S/MIME; one that cannot be read, where it names us.
fn is_our_result(marks: &Marks, value: &str) -> bool {
    let Some(head) = head_of(value) else { return is_ours_anywhere(marks, value) };
    let head: String = decode_encoded_words(&head).split_whitespace().collect();
    let looks = skeleton::of(&head);
    if looks.contains('=') {
        return skeleton::of(value).contains("smime=");
    }
    // As UTS 46 reads it, and as the eye does.
    is_our_id(marks, &head) || is_our_id(marks, &looks)
}

fn is_our_id(marks: &Marks, id: &str) -> bool {
    let id = id.trim_end_matches('.');
    let unversioned = id.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['/', '.']);
    let is_ours = |id: &str| {
        id == marks.authserv_id.as_str() || Domain::parse(id).is_ok_and(|domain| domain == marks.authserv_id)
    };
    is_ours(id) || is_ours(unversioned) || is_ours(id.split('/').next().unwrap_or_default())
}

/// What stands before the first `;`, without comments, quotes and backslashes; `None` where a comment or quote has no end.
fn head_of(value: &str) -> Option<String> {
    let mut head = String::new();
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for c in value.chars() {
        match c {
            _ if escaped => {
                escaped = false;
                if depth == 0 {
                    head.push(c);
                }
            }
            '\\' => escaped = true,
            '"' if depth == 0 => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth > 0 => depth -= 1,
            ';' if !quoted && depth == 0 => return Some(head),
            c if depth == 0 => head.push(c),
            _ => {}
        }
    }
    (depth == 0 && !quoted).then_some(head)
}

/// A Subject without our tags, and with `tag` in front. Octet for octet where there is nothing to do.
fn retagged(subject: &Field, tag: Option<&str>) -> Vec<u8> {
    let mut text = subject.decoded();
    let found = remove_tags(&mut text);
    let value = subject.raw_value();
    if !found {
        let Some(tag) = tag else { return subject.raw.to_vec() };
        let gap: &[u8] = if matches!(value.first(), Some(b' ' | b'\t' | b'\r' | b'\n')) { b"" } else { b" " };
        let first_line = value.split(|octet| *octet == b'\n').next().unwrap_or_default().len();
        if first_line + tag.len() < 900 {
            return [b"Subject: ", tag.as_bytes(), gap, value].concat();
        }
    }
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = format!("{} {}", tag.unwrap_or_default(), text.trim());
    let mut writer = HeaderWriter::new();
    // The writer refuses only what was just taken out.
    let written = writer.unstructured("Subject", &text).map(|_| ());
    written.map(|()| writer.finish()).unwrap_or_default()
}

/// Removes our tags wherever they stand; says whether there were any.
fn remove_tags(text: &mut String) -> bool {
    for pass in 0..=PASSES {
        let looks = skeleton::with_origins(text);
        let mut tags = find_tags(&looks);
        if tags.is_empty() {
            return pass > 0;
        }
        if pass == PASSES {
            tags = looks.iter().filter(|(c, _)| matches!(c, '[' | ']')).map(|(_, at)| (*at, *at)).collect();
        }
        let mut tags = tags.into_iter().peekable();
        let mut kept = String::with_capacity(text.len());
        for (at, c) in text.chars().enumerate() {
            while tags.next_if(|(_, to)| *to < at).is_some() {}
            if tags.peek().is_none_or(|(from, _)| at < *from) {
                kept.push(c);
            }
        }
        *text = kept;
    }
    true
}

/// Our tags, in order: indices of the first and last character of each.
fn find_tags(looks: &[(char, usize)]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (c, at) in looks {
        match (c, &mut open) {
            ('[', _) => open = Some((*at, String::new())),
            (']', Some((from, inside))) => {
                if is_tag(inside) {
                    found.push((*from, *at));
                }
                open = None;
            }
            (c, Some((_, inside))) => inside.push(*c),
            _ => {}
        }
    }
    found
}

fn is_tag(inside: &str) -> bool {
    let mut words = inside.split(|c: char| !c.is_alphanumeric() && c != '/').filter(|word| !word.is_empty()).peekable();
    let joined: String = inside.chars().filter(|c| c.is_alphanumeric()).collect();
    TAGS.contains(&joined.as_str()) || words.peek().is_some() && words.all(is_tag_word)
}

/// One of the words, or several in a row (white space is gone from a skeleton).
fn is_tag_word(word: &str) -> bool {
    let glued = |rest: &str| TAGS.contains(&rest) || TAGS.contains(&rest.trim_start_matches("and"));
    glued(word) || TAGS.iter().filter_map(|tag| word.strip_prefix(tag)).any(|rest| !rest.is_empty() && glued(rest))
}

/// Fuzz body: nothing that looks like a mark survives, and stripping again changes nothing.
#[doc(hidden)]
pub fn fuzz_strip(data: &[u8]) {
    let Ok(authserv_id) = Domain::parse("gw.example.org") else { return };
    let marks = Marks { authserv_id, subject_tags: true };
    let limits = MimeLimits::default();
    let Ok((header, _)) = Header::parse(&Bytes::copy_from_slice(data), &limits) else { return };
    let once = Bytes::from(marks.strip(&header));
    let Ok((header, _)) = Header::parse(&once, &limits) else { return };
    for field in &header.fields {
        assert!(!field.name().to_ascii_lowercase().starts_with("x-waxwing-"));
        assert!(!field.is("Subject") || !field.decoded().to_ascii_lowercase().contains("[signed]"));
    }
    assert_eq!(marks.strip(&header), once);
}

//! Lines that hold the hash of the line before, so that none of them can be altered, taken away or moved without being seen. P.
//!
//! `{"seq":7,"prev":"<SHA-256 of line 6, hex>","time":…}`. What a chain of hashes cannot show: that its end was cut off, or that all of it
//! was written anew. For that the hash of the last line is kept elsewhere, and given to [`Verifier::finish`].

use std::fmt::Write;

use aws_lc_rs::digest;
use serde_json::Value;

/// The hash before the first line.
pub const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Octets of a line at most; more is none of ours.
pub const LINE: usize = 64 << 10;

/// Lower-case hexadecimal.
pub fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        // Writing into a String does not fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// The hash of a line, without its line end.
pub fn hash(line: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, line).as_ref())
}

/// A line of the chain, without its line end: `body` at this place. Control and direction characters are escaped (A28).
pub fn line(seq: u64, prev: &str, body: &Value) -> String {
    let text = body.to_string();
    let rest = text.strip_prefix('{').unwrap_or_default();
    let comma = if rest.starts_with('}') { "" } else { "," };
    let mut line = format!("{{\"seq\":{seq},\"prev\":\"{prev}\"{comma}");
    for c in rest.chars() {
        // serde_json escaped what is under a space; what is left stands within strings alone.
        let hidden = matches!(c, '\u{7f}'..='\u{9f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if hidden {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line
}

/// The number of a line and the hash before it; `None`: it is no line of a chain.
pub fn place(line: &[u8]) -> Option<(u64, String)> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let prev = value.get("prev")?.as_str()?;
    let good = prev.len() == 64 && prev.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    good.then(|| Some((value.get("seq")?.as_u64()?, prev.to_owned())))?
}

/// Something is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named.
    pub file: String,
    /// The line in it that is meant, from 1.
    pub line: u64,
    /// What was found.
    pub what: String,
}

/// What is known after the last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Lines looked at.
    pub lines: u64,
    /// The number of the first line.
    pub first: Option<u64>,
    /// The number and the hash of the last one.
    pub last: Option<(u64, String)>,
    /// Half lines that a crash left, and that the line after them tells of.
    pub torn: u64,
    /// What is wrong, in the order of the lines.
    pub faults: Vec<Fault>,
}

/// Where a line stands.
#[derive(Debug, Clone)]
struct At {
    file: String,
    line: u64,
}

/// Looks at the lines of a chain one after another.
#[derive(Debug, Default)]
pub struct Verifier {
    lines: u64,
    first: Option<u64>,
    /// The last line: its number, its hash, where it stands.
    last: Option<(u64, String, At)>,
    /// A line that could not be read stands before the next: its hash.
    unreadable: Option<(String, At)>,
    torn: u64,
    faults: Vec<Fault>,
}

impl Verifier {
    /// The next line, without its line end, and where it stands.
    pub fn line(&mut self, file: &str, number: u64, octets: &[u8]) {
        self.lines = self.lines.saturating_add(1);
        let at = At { file: file.to_owned(), line: number };
        let own = hash(octets);
        let Some((seq, prev)) = place(octets) else {
            if let Some((_, before)) = self.unreadable.replace((own, at)) {
                self.fault(&before, "cannot be read: it was cut short or written over".to_owned());
            }
            return;
        };
        if let Some((hash, before)) = self.unreadable.take() {
            // A crash left half a line, and who wrote on after it says so: its number was taken up by the half line.
            if is_torn(octets)
                && prev == hash
                && self.last.as_ref().is_none_or(|(last, ..)| seq == last.saturating_add(1))
            {
                self.torn = self.torn.saturating_add(1);
            } else {
                self.fault(&before, "cannot be read: it was cut short or written over".to_owned());
            }
        } else {
            self.follow(seq, &prev, &at);
        }
        self.first.get_or_insert(seq);
        self.last = Some((seq, own, at));
    }

    /// Whether this line goes on where the last one ended.
    fn follow(&mut self, seq: u64, prev: &str, at: &At) {
        let Some((last, hash, before)) = self.last.clone() else {
            if (seq == 1) != (prev == NOTHING) {
                self.fault(
                    at,
                    format!("line {seq} of the chain was altered: the first has nothing before it, and no other has"),
                );
            }
            return;
        };
        let next = last.saturating_add(1);
        if seq == next {
            if prev != hash {
                self.fault(
                    &before,
                    format!("line {last} of the chain was altered: line {seq} holds another hash of it"),
                );
            }
        } else if seq > next {
            let missing = if seq - next == 1 { format!("line {next}") } else { format!("lines {next} to {}", seq - 1) };
            self.fault(
                at,
                format!("{missing} of the chain is missing or stands elsewhere: line {seq} follows line {last}"),
            );
        } else {
            self.fault(
                at,
                format!("line {seq} of the chain stands behind line {last}: it was moved, or is there twice"),
            );
        }
    }

    fn fault(&mut self, at: &At, what: String) {
        self.faults.push(Fault { file: at.file.clone(), line: at.line, what });
    }

    /// The end. `head` is the hash that the last line is known to have had; what came after it is good too, and what was cut off is seen.
    pub fn finish(mut self, head: Option<&str>, head_seen: bool) -> Summary {
        if let Some((_, at)) = self.unreadable.take() {
            self.fault(
                &at,
                "cannot be read, and nothing follows: the writer crashed and did not go on, or it was cut short"
                    .to_owned(),
            );
        }
        if let (Some(head), false) = (head, head_seen) {
            let at = self.last.as_ref().map_or(At { file: String::new(), line: 0 }, |(.., at)| at.clone());
            self.fault(&at, format!("no line has the hash {head}: the end was cut off, or it was written anew"));
        }
        let last = self.last.map(|(seq, hash, _)| (seq, hash));
        Summary { lines: self.lines, first: self.first, last, torn: self.torn, faults: self.faults }
    }
}

/// The line that tells of half a line before it.
fn is_torn(line: &[u8]) -> bool {
    serde_json::from_slice::<Value>(line).is_ok_and(|value| value.get("op").and_then(Value::as_str) == Some("torn"))
}

/// Fuzz body: whatever stands in a file, looking at it ends, and a chain that is written from it is whole until an octet of it changes.
#[doc(hidden)]
pub fn fuzz_audit_log(data: &[u8]) {
    let mut foreign = Verifier::default();
    let mut number = 0u64;
    for line in data.split(|octet| *octet == b'\n') {
        number += 1;
        foreign.line("f", number, line);
    }
    let summary = foreign.finish(None, false);
    assert_eq!(summary.lines, number);
    let (mut prev, mut lines) = (NOTHING.to_owned(), Vec::new());
    for (at, text) in data.split(|octet| *octet == b'\n').take(8).enumerate() {
        let body = serde_json::json!({"op": "test", "subject": String::from_utf8_lossy(text)});
        let line = line(at as u64 + 1, &prev, &body);
        assert!(!line.contains(['\n', '\r', '\u{85}', '\u{2028}']));
        prev = hash(line.as_bytes());
        lines.push(line.into_bytes());
    }
    let look = |lines: &[Vec<u8>], head: &str| {
        let mut verifier = Verifier::default();
        let mut seen = false;
        for (at, line) in lines.iter().enumerate() {
            seen |= hash(line) == head;
            verifier.line("f", at as u64 + 1, line);
        }
        verifier.finish(Some(head), seen)
    };
    assert_eq!(look(&lines, &prev).faults, []);
    let place = data.first().map_or(0, |octet| usize::from(*octet));
    let count = lines.len();
    if let Some(line) = lines.get_mut(place % count.max(1)) {
        let length = line.len();
        if let Some(octet) = line.get_mut(place % length.max(1)) {
            *octet ^= 1;
        }
    }
    assert_ne!(look(&lines, &prev).faults, []);
}

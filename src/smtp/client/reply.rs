//! Replies of a server, read strictly (RFC 5321 section 4.2).

use bytes::{Buf, BytesMut};

use super::ClientError;
use crate::smtp::command::{Enhanced, Reply};

/// Octets of one reply line with its CRLF; RFC 5321 section 4.5.3.1.5 allows 512, some servers send more.
pub const LINE_MAX: usize = 1_000;
/// Lines of one reply; an EHLO reply has a dozen or two.
pub const LINES_MAX: usize = 128;

/// Reads one reply at a time out of what has arrived. What it keeps is bounded by `LINES_MAX` lines of `LINE_MAX` octets.
#[derive(Debug, Default)]
pub struct ReplyReader {
    code: u16,
    lines: Vec<String>,
    enhanced: Option<Enhanced>,
}

impl ReplyReader {
    /// Takes the next whole reply out of `input`; `None`: more octets are needed.
    ///
    /// Only CRLF ends a line. A bare CR or LF is an error, not a line end: a server that echoes what others wrote (an address, a
    /// greeting) would otherwise let them write replies of their own.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ClientError> {
        loop {
            let window = input.get(..LINE_MAX).unwrap_or(input);
            let Some(end) = memchr::memchr2(b'\n', b'\r', window) else {
                if input.len() >= LINE_MAX {
                    return Err(ClientError::TooLong { limit: LINE_MAX });
                }
                return Ok(None);
            };
            if end + 2 > LINE_MAX {
                return Err(ClientError::TooLong { limit: LINE_MAX });
            }
            match (input.get(end), input.get(end + 1)) {
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), None) => return Ok(None),
                _ => return Err(ClientError::LineEnd),
            }
            let line = input.split_to(end);
            input.advance(2);
            if let Some(reply) = self.line(&line)? {
                return Ok(Some(reply));
            }
        }
    }

    /// Whether a reply has begun and is not whole yet.
    pub fn is_within(&self) -> bool {
        !self.lines.is_empty()
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, ClientError> {
        let malformed = || ClientError::Malformed { found: shown(line) };
        let (digits, rest) = line.split_at_checked(3).ok_or_else(malformed)?;
        let code = digits
            .iter()
            .try_fold(0u16, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0')));
        let code = code.filter(|code| (200..600).contains(code)).ok_or_else(malformed)?;
        let (last, text) = match rest.split_first() {
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(malformed()),
        };
        if self.is_within() && code != self.code {
            return Err(ClientError::CodesDiffer { first: self.code, then: code });
        }
        if self.lines.len() >= LINES_MAX {
            return Err(ClientError::TooLong { limit: LINES_MAX });
        }
        let (enhanced, text) = split_enhanced(code, text);
        self.code = code;
        self.enhanced = self.enhanced.or(enhanced);
        self.lines.push(printable(text));
        if !last {
            return Ok(None);
        }
        Ok(Some(Reply { code, enhanced: self.enhanced.take(), lines: std::mem::take(&mut self.lines) }))
    }
}

/// Takes an enhanced status code (RFC 2034) off the text, if its class agrees with the code.
fn split_enhanced(code: u16, text: &[u8]) -> (Option<Enhanced>, &[u8]) {
    let (word, rest) = match memchr::memchr(b' ', text) {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
        None => (text, &[][..]),
    };
    let mut parts = word.split(|octet| *octet == b'.').map(|digits| {
        let sane = (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        sane.then(|| digits.iter().fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0')))
    });
    match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten(), parts.next()) {
        (Some(class @ (2 | 4 | 5)), Some(subject), Some(detail), None) if class == code / 100 => {
            (Some(Enhanced(u8::try_from(class).unwrap_or(5), subject, detail)), rest)
        }
        _ => (None, text),
    }
}

fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The first octets of what a server sent, fit for a log.
pub(super) fn shown(line: &[u8]) -> String {
    printable(line.get(..80).unwrap_or(line))
}

/// Fuzz body: any split of the input gives the same replies or the same refusal, and a reply written out again reads the same.
#[doc(hidden)]
pub fn fuzz_reply(data: &[u8]) {
    let read_all = |step: usize| {
        let (mut reader, mut input, mut found) = (ReplyReader::default(), BytesMut::new(), Vec::new());
        for chunk in data.chunks(step.max(1)) {
            input.extend_from_slice(chunk);
            loop {
                match reader.read(&mut input) {
                    Ok(Some(reply)) => found.push(reply),
                    Ok(None) => break,
                    Err(_) => return (found, true),
                }
            }
        }
        (found, false)
    };
    let whole = read_all(data.len());
    assert_eq!(whole, read_all(1));
    assert_eq!(whole, read_all(7));
    for reply in whole.0 {
        assert!((200..600).contains(&reply.code) && !reply.lines.is_empty() && reply.lines.len() <= LINES_MAX);
        assert!(reply.lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Option<Reply>, ClientError> {
        ReplyReader::default().read(&mut BytesMut::from(text))
    }

    #[test]
    fn reads_one_line_many_lines_and_enhanced_codes() {
        let reply = read(b"250 2.1.5 Ok\r\n").unwrap().unwrap();
        assert_eq!(reply, Reply { code: 250, enhanced: Some(Enhanced(2, 1, 5)), lines: vec!["Ok".into()] });
        let reply = read(b"550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n").unwrap().unwrap();
        assert_eq!(
            (reply.enhanced, reply.lines),
            (Some(Enhanced(5, 1, 1)), vec!["no".into(), "such".into(), "user".into()])
        );
        assert_eq!(read(b"250\r\n").unwrap().unwrap().lines, vec![String::new()]);
        assert_eq!(read(b"250 5.1.1 odd class\r\n").unwrap().unwrap().enhanced, None);
        assert_eq!(read(b"220 2.0 host\r\n").unwrap().unwrap().lines, vec!["2.0 host".to_string()]);
        assert_eq!(read(b"250-a\r\n250"), Ok(None));
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for bad in [
            &b"25 ok\r\n"[..],
            b"abc ok\r\n",
            b"199 ok\r\n",
            b"600 ok\r\n",
            b"250_ok\r\n",
            b"2500 ok\r\n",
            b"\r\n",
            b"HTTP/1.1 400\r\n",
        ] {
            assert!(matches!(read(bad), Err(ClientError::Malformed { .. })), "{bad:?}");
        }
        assert_eq!(read(b"250-a\r\n251 b\r\n"), Err(ClientError::CodesDiffer { first: 250, then: 251 }));
    }

    #[test]
    fn a_bare_line_end_is_no_line_end() {
        for bad in [&b"250 ok\n"[..], b"250 a\rb\r\n", b"250-x\n250 ok\r\n", b"250 ok\r\r\n"] {
            assert_eq!(read(bad), Err(ClientError::LineEnd), "{bad:?}");
        }
    }

    #[test]
    fn huge_replies_are_cut_off() {
        assert!(matches!(read(&[b'2'; 5000]), Err(ClientError::TooLong { .. })));
        let endless = b"250-x\r\n".repeat(100_000);
        assert!(matches!(read(&endless), Err(ClientError::TooLong { .. })));
    }

    #[test]
    fn fuzz_body_holds_over_seeds() {
        for seed in [
            &b"220 a ESMTP\r\n250-x\r\n250 PIPELINING\r\n"[..],
            b"250 ok\r",
            b"",
            b"250-\r\n250 \xff\xfe\x00\r\n",
            b"421 4.3.2 \r\n",
        ] {
            fuzz_reply(seed);
        }
    }

    proptest! {
        #[test]
        fn fuzz_body_holds(data in proptest::collection::vec(prop_oneof![Just(b'2'), Just(b'5'), Just(b'0'), Just(b'-'), Just(b' '), Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..200)) {
            fuzz_reply(&data);
        }
        #[test]
        fn fuzz_body_holds_on_sane_lines(lines in proptest::collection::vec("[2-5][0-9][0-9][ -][ -~]{0,20}\r\n", 0..8)) {
            fuzz_reply(lines.concat().as_bytes());
        }
    }
}

//! Dot-stuffing while content is written (RFC 5321 section 4.5.2).

use bytes::{BufMut, Bytes, BytesMut};

/// Stuffs content chunk by chunk. A chunk that needs no dot is handed on without a copy.
#[derive(Debug)]
pub struct DotStuffer {
    /// The last two octets written; at the start as after CRLF.
    last: [u8; 2],
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self { last: *b"\r\n" }
    }
}

impl DotStuffer {
    /// At the start of the content.
    pub fn new() -> Self {
        Self::default()
    }

    /// The chunk as it goes on the wire: a dot that starts a line is doubled.
    ///
    /// Content has CRLF line ends by the time it comes here. Should a bare CR or LF be left, a dot after it is doubled too: a
    /// server that takes it for a line end must not find an end of data in the middle of a mail (A16).
    pub fn stuff(&mut self, chunk: Bytes) -> Bytes {
        let [_, before] = self.last;
        let count = memchr::memchr_iter(b'.', &chunk).filter(|at| starts_line(&chunk, *at, before)).count();
        match *chunk.as_ref() {
            [] => return chunk,
            [only] => self.last = [before, only],
            [.., a, b] => self.last = [a, b],
        }
        if count == 0 {
            return chunk;
        }
        let mut stuffed = BytesMut::with_capacity(chunk.len().saturating_add(count));
        let mut done = 0;
        for at in memchr::memchr_iter(b'.', &chunk).filter(|at| starts_line(&chunk, *at, before)) {
            stuffed.extend_from_slice(chunk.get(done..at).unwrap_or_default());
            stuffed.put_u8(b'.');
            done = at;
        }
        stuffed.extend_from_slice(chunk.get(done..).unwrap_or_default());
        stuffed.freeze()
    }

    /// What ends the data: the final dot, after a CRLF where the content has none at its end.
    pub fn end(self) -> Bytes {
        Bytes::from_static(if self.last == *b"\r\n" { b".\r\n" } else { b"\r\n.\r\n" })
    }
}

fn starts_line(chunk: &[u8], at: usize, before_chunk: u8) -> bool {
    let before = match at.checked_sub(1) {
        None => before_chunk,
        Some(index) => chunk.get(index).copied().unwrap_or(before_chunk),
    };
    matches!(before, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(content: &[u8], step: usize) -> Vec<u8> {
        let mut stuffer = DotStuffer::new();
        let mut out = Vec::new();
        for chunk in content.chunks(step.max(1)) {
            out.extend_from_slice(&stuffer.stuff(Bytes::copy_from_slice(chunk)));
        }
        out.extend_from_slice(&stuffer.end());
        out
    }

    /// RFC 5321 section 4.5.2 word for word: lines by CRLF, a lone dot ends, a first dot goes.
    fn unstuffed(wire: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut rest = wire;
        loop {
            let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
            let (line, after) = (&rest[..end], &rest[end + 2..]);
            if line == b"." {
                return after.is_empty().then_some(out);
            }
            out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            out.extend_from_slice(b"\r\n");
            rest = after;
        }
    }

    #[test]
    fn examples_at_every_chunk_size() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"", b".\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"..a\r\n", b"...a\r\n.\r\n"),
            (b"a.b\r\n", b"a.b\r\n.\r\n"),
            (b"no end", b"no end\r\n.\r\n"),
            (b"lone cr\r", b"lone cr\r\r\n.\r\n"),
            (b"\r\n", b"\r\n.\r\n"),
        ];
        for (content, wire) in cases {
            for step in 1..=12 {
                assert_eq!(stuffed(content, step), wire, "{content:?} by {step}");
            }
        }
    }

    #[test]
    fn a16_no_dot_after_a_bare_line_end_stays_alone() {
        for content in
            [&b"a\n.\r\nMAIL FROM:<x>\r\n"[..], b"a\r.\r\nMAIL\r\n", b"a\n.\nMAIL\r\n", b"a\r\r\n.\r\nMAIL\r\n"]
        {
            let wire = stuffed(content, 3);
            let body = &wire[..wire.len() - 5];
            for end in [&b"\n.\r\n"[..], b"\r.\r\n", b"\n.\n", b"\r.\r", b"\r\n.\r\n"] {
                assert!(!body.windows(end.len()).any(|window| window == end), "{content:?} has {end:?}");
            }
        }
    }

    #[test]
    fn a_chunk_without_such_a_dot_is_not_copied() {
        let chunk = Bytes::from(b"base64.\r\nline\r\n".repeat(10));
        assert_eq!(DotStuffer::new().stuff(chunk.clone()).as_ptr(), chunk.as_ptr());
    }

    proptest! {
        #[test]
        fn round_trip(lines in proptest::collection::vec("[.a\r]{0,4}", 0..30), ended: bool, step in 1usize..9) {
            let mut content = lines.iter().map(|line| line.replace('\r', "b")).collect::<Vec<_>>().join("\r\n").into_bytes();
            if ended { content.extend_from_slice(b"\r\n"); }
            let mut expected = content.clone();
            if !content.is_empty() && !content.ends_with(b"\r\n") { expected.extend_from_slice(b"\r\n"); }
            prop_assert_eq!(unstuffed(&stuffed(&content, step)), Some(expected));
        }

        #[test]
        fn the_end_is_found_at_the_end_alone(content in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), Just(b'a')], 0..60), step in 1usize..9) {
            prop_assert!(unstuffed(&stuffed(&content, step)).is_some());
            prop_assert_eq!(stuffed(&content, step), stuffed(&content, 1000));
        }
    }
}

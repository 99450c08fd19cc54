//! Framing of DATA (RFC 5321 section 4.1.1.4) and BDAT (RFC 3030): the dots undone, line ends and size checked, nothing copied.

use memchr::memchr3;

/// What becomes of a bare CR or LF in content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEnds {
    /// The message is refused once its end was seen (A16).
    #[default]
    Refuse,
    /// It is made CRLF. It still never counts as the line end before or after the final dot.
    Repair,
}

/// Why content is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentFault {
    /// CR without LF after it.
    #[error("a bare CR in the content: RFC 5321 section 2.3.8 wants lines ended by CRLF")]
    BareCr,
    /// LF without CR before it.
    #[error("a bare LF in the content: RFC 5321 section 2.3.8 wants lines ended by CRLF")]
    BareLf,
    /// NUL, which only BINARYMIME could carry.
    #[error("a NUL in the content: RFC 5322 section 2.2 forbids it, encode the part")]
    Nul,
    /// More octets than the limit, line ends counted as CRLF and stuffed dots not counted.
    #[error("the message is over the limit of {0} octets")]
    TooBig(u64),
}

/// What [`Framing::step`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Octets of the content, in order.
    Content(&'a [u8]),
    /// CRLF.CRLF, or the end of counted content: the octets handed on, or why the message is refused.
    End(Result<u64, ContentFault>),
    /// All input was eaten.
    More,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// After CRLF, or before the first octet.
    LineStart,
    /// A dot at the line's start, held back.
    Dot,
    /// Dot and CR at the line's start, held back.
    DotCr,
    /// Inside a line.
    Middle,
    /// A CR, held back.
    Cr,
    /// A bare LF, held back.
    Lf,
    Ended,
}

/// The machine that reads content up to and with the final dot. It holds no content.
#[derive(Debug, Clone)]
pub struct Framing {
    place: Place,
    line_ends: LineEnds,
    limit: u64,
    octets: u64,
    fault: Option<ContentFault>,
    discarding: bool,
    /// Dots at the start of lines have a meaning.
    dotted: bool,
}

impl Framing {
    /// A machine at the octet after the CRLF of DATA; `limit` is in octets of content.
    pub fn new(line_ends: LineEnds, limit: u64) -> Self {
        Framing { place: Place::LineStart, line_ends, limit, octets: 0, fault: None, discarding: false, dotted: true }
    }

    /// A machine at the first octet of content that comes in chunks (BDAT). Where it ends its owner knows: see [`Framing::finish`]. Lines and
    /// their ends are judged as in DATA, by which it goes on.
    pub fn counted(line_ends: LineEnds, limit: u64) -> Self {
        Framing { dotted: false, ..Framing::new(line_ends, limit) }
    }

    /// The end of counted content: [`Piece::Content`] is to be put on it, so that its last line ends as in DATA, and then it is called again;
    /// [`Piece::End`] is the end.
    pub fn finish(&mut self) -> Piece<'static> {
        let end = match self.place {
            Place::Middle => self.hand_on(b"\r\n"),
            Place::Cr => self.bare(ContentFault::BareCr),
            Place::Lf => self.bare(ContentFault::BareLf),
            _ => None,
        };
        self.place = Place::Ended;
        end.map_or_else(|| Piece::End(self.fault.map_or(Ok(self.octets), Err)), Piece::Content)
    }

    /// Octets handed on so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Why the content will be refused, as far as is known.
    pub fn fault(&self) -> Option<ContentFault> {
        self.fault
    }

    /// Hands no more content on, and still finds the end.
    pub fn discard(&mut self) {
        self.discarding = true;
    }

    /// Eats from `input`: how many octets, and what they were. Call again with the rest until it says [`Piece::More`] or
    /// [`Piece::End`]. After a fault all content is eaten and none handed on.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> (usize, Piece<'a>) {
        let mut at = 0;
        while let Some(&octet) = input.get(at) {
            let mut eat = || at += 1;
            let found = match (self.place, octet) {
                (Place::LineStart, b'.') if self.dotted => {
                    eat();
                    self.place = Place::Dot;
                    None
                }
                (Place::Dot, b'\r') => {
                    eat();
                    self.place = Place::DotCr;
                    None
                }
                (Place::DotCr, b'\n') => {
                    self.place = Place::Ended;
                    return (at + 1, Piece::End(self.fault.map_or(Ok(self.octets), Err)));
                }
                (Place::Cr, b'\n') => {
                    eat();
                    self.place = Place::LineStart;
                    self.hand_on(b"\r\n")
                }
                // RFC 5321 section 4.5.2: with other characters on the line, the first dot is deleted.
                (Place::LineStart | Place::Dot, _) => {
                    self.place = Place::Middle;
                    None
                }
                (Place::DotCr | Place::Cr, _) => self.bare(ContentFault::BareCr),
                (Place::Lf, _) => self.bare(ContentFault::BareLf),
                (Place::Middle, _) => {
                    let (rest, from) = (input.get(at..).unwrap_or_default(), at);
                    let (content, eaten) = self.lines(rest);
                    at = from + eaten;
                    self.hand_on(rest.get(..content).unwrap_or_default())
                }
                (Place::Ended, _) => break,
            };
            if let Some(content) = found {
                return (at, Piece::Content(content));
            }
        }
        (at, Piece::More)
    }

    /// A bare CR or LF that was held back; what follows is inside a line, so that no dot after it has a meaning.
    fn bare(&mut self, fault: ContentFault) -> Option<&'static [u8]> {
        self.place = Place::Middle;
        match self.line_ends {
            LineEnds::Repair => self.hand_on(b"\r\n"),
            LineEnds::Refuse => {
                self.fault.get_or_insert(fault);
                None
            }
        }
    }

    /// From inside a line to the next octet that wants a decision: how much is content, and how much is eaten.
    fn lines(&mut self, rest: &[u8]) -> (usize, usize) {
        let mut from = 0;
        while let Some(offset) = rest.get(from..).and_then(|rest| memchr3(b'\r', b'\n', 0, rest)) {
            let hit = from + offset;
            match (rest.get(hit), rest.get(hit + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    from = hit + 2;
                    if rest.get(from).is_none_or(|next| *next == b'.') {
                        self.place = Place::LineStart;
                        return (from, from);
                    }
                }
                (Some(b'\r'), _) => {
                    self.place = Place::Cr;
                    return (hit, hit + 1);
                }
                (Some(b'\n'), _) => {
                    self.place = Place::Lf;
                    return (hit, hit + 1);
                }
                _ => {
                    self.fault.get_or_insert(ContentFault::Nul);
                    from = hit + 1;
                }
            }
        }
        (rest.len(), rest.len())
    }

    fn hand_on<'a>(&mut self, content: &'a [u8]) -> Option<&'a [u8]> {
        if content.is_empty() || self.fault.is_some() || self.discarding {
            return None;
        }
        self.octets = self.octets.saturating_add(content.len() as u64);
        if self.octets > self.limit {
            self.fault = Some(ContentFault::TooBig(self.limit));
            return None;
        }
        Some(content)
    }
}

/// The fuzz body of this module: whatever the chunks, the content is the same, and its line ends and NULs are clean.
#[doc(hidden)]
pub fn fuzz_data(data: &[u8]) {
    let Some((&first, wire)) = data.split_first() else { return };
    let line_ends = if first & 1 == 0 { LineEnds::Refuse } else { LineEnds::Repair };
    let whole = read_in_chunks(line_ends, wire, usize::MAX);
    assert_eq!(whole, read_in_chunks(line_ends, wire, usize::from(first >> 1).max(1)));
    if let Some(Ok(octets)) = whole.1 {
        let content = &whole.0;
        assert_eq!(octets, content.len() as u64);
        assert!(!content.contains(&0));
        let pairs = memchr::memmem::find_iter(content, b"\r\n").count();
        assert_eq!(pairs, content.iter().filter(|octet| **octet == b'\n').count());
        assert_eq!(pairs, content.iter().filter(|octet| **octet == b'\r').count());
    }
}

/// Content, how it ended (if it did), and the octets eaten up to there.
fn read_in_chunks(
    line_ends: LineEnds,
    wire: &[u8],
    chunk: usize,
) -> (Vec<u8>, Option<Result<u64, ContentFault>>, usize) {
    let mut framing = Framing::new(line_ends, 1 << 20);
    let (mut content, mut eaten) = (Vec::new(), 0);
    for mut part in wire.chunks(chunk) {
        loop {
            let (octets, piece) = framing.step(part);
            eaten += octets;
            part = part.get(octets..).unwrap_or_default();
            match piece {
                Piece::Content(piece) => content.extend_from_slice(piece),
                Piece::End(end) => {
                    if end.is_err() {
                        content.clear();
                    }
                    return (content, Some(end), eaten);
                }
                Piece::More => break,
            }
        }
    }
    // What was handed on before a fault depends on the chunks, and is dropped by all who read it.
    if framing.fault.is_some() {
        content.clear();
    }
    (content, None, eaten)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(wire: &[u8]) -> (Vec<u8>, Option<Result<u64, ContentFault>>, usize) {
        read_in_chunks(LineEnds::Refuse, wire, usize::MAX)
    }

    fn content(wire: &[u8]) -> Vec<u8> {
        let (content, end, eaten) = read(wire);
        assert!(matches!(end, Some(Ok(_))), "{end:?}");
        assert_eq!(eaten, wire.len());
        content
    }

    #[test]
    fn dots_are_undone() {
        for (wire, expected) in [
            (&b".\r\n"[..], &b""[..]),
            (b"\r\n.\r\n", b"\r\n"),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n.\r\n", b".\r\n"),
            (b"..a\r\n..b\r\nc..\r\n.\r\n", b".a\r\n.b\r\nc..\r\n"),
            (b".a\r\n.\r\n", b"a\r\n"),
            (b"...\r\n.\r\n", b"..\r\n"),
            (b"a\r\n\r\n\r\n.\r\n", b"a\r\n\r\n\r\n"),
        ] {
            assert_eq!(content(wire), expected, "{:?}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn what_follows_the_end_is_not_eaten() {
        assert_eq!(read(b"a\r\n.\r\nMAIL").2, 6);
    }

    /// Content that looks like an end, then a real end: (wire before the real end, fault).
    const SMUGGLING: [(&[u8], ContentFault); 14] = [
        (b"\n.\n", ContentFault::BareLf),
        (b"\r.\r", ContentFault::BareCr),
        (b"\r.\n", ContentFault::BareCr),
        (b"\n.\r", ContentFault::BareLf),
        (b"\n.\r\n", ContentFault::BareLf),
        (b"\r\n.\n", ContentFault::BareLf),
        (b"\r.\r\n", ContentFault::BareCr),
        (b"\r\n.\r", ContentFault::BareCr),
        (b"\r\n\0.\r\n", ContentFault::Nul),
        (b"\r\n.\0\r\n", ContentFault::Nul),
        (b"\r\n.\r\r\n", ContentFault::BareCr),
        (b"\r\r\n.\r\r\n", ContentFault::BareCr),
        (b"\r\n\r.\r\n", ContentFault::BareCr),
        (b"\n\r\n\n.\r\n", ContentFault::BareLf),
    ];

    #[test]
    fn a16_only_crlf_dot_crlf_ends_data() {
        for (sequence, fault) in SMUGGLING {
            let wire = [b"first", sequence, b"MAIL FROM:<x@y>\r\n.\r\n"].concat();
            for chunk in [1, 2, 3, usize::MAX] {
                let (_, end, eaten) = read_in_chunks(LineEnds::Refuse, &wire, chunk);
                assert_eq!((end, eaten), (Some(Err(fault)), wire.len()), "{sequence:?}");
                // Repaired, all of it is one message; what is handed on has clean line ends.
                let (content, end, eaten) = read_in_chunks(LineEnds::Repair, &wire, chunk);
                assert_eq!(eaten, wire.len(), "{sequence:?}");
                assert_eq!(end.is_some_and(|end| end.is_ok()), fault != ContentFault::Nul);
                assert!(
                    memchr::memmem::find(&String::from_utf8(content).unwrap().replace("\r\n", "").into_bytes(), b"\r")
                        .is_none()
                );
            }
        }
    }

    #[test]
    fn a16_cr_crlf_dot_crlf_ends_and_is_refused() {
        let wire = b"a\r\r\n.\r\nMAIL";
        assert_eq!(read(wire), (vec![], Some(Err(ContentFault::BareCr)), wire.len() - 4));
        assert_eq!(read_in_chunks(LineEnds::Repair, wire, 1).0, b"a\r\n\r\n");
    }

    #[test]
    fn repair_makes_crlf_and_gives_dots_after_bare_ends_no_meaning() {
        let (content, end, _) = read_in_chunks(LineEnds::Repair, b"a\nb\rc\n.\n..d\r\n..e\r\n.\r\n", usize::MAX);
        assert_eq!(content, b"a\r\nb\r\nc\r\n.\r\n..d\r\n.e\r\n");
        assert_eq!(end, Some(Ok(content.len() as u64)));
    }

    #[test]
    fn the_limit_counts_content_and_the_end_is_still_found() {
        let mut framing = Framing::new(LineEnds::Refuse, 4);
        assert_eq!(framing.step(b"..a\r\n"), (5, Piece::Content(b".a\r\n")));
        assert_eq!(framing.step(b".\r\n"), (3, Piece::End(Ok(4))));
        let mut framing = Framing::new(LineEnds::Refuse, 3);
        let wire = b"..a\r\nb\r\n.\r\n";
        assert_eq!(framing.step(wire), (wire.len(), Piece::End(Err(ContentFault::TooBig(3)))));
    }

    #[test]
    fn long_bodies_are_handed_on_in_one_piece_without_a_copy() {
        let mut wire = b"x".repeat(3_000_000);
        wire.extend(b"line\r\n".repeat(500_000));
        let mut framing = Framing::new(LineEnds::Refuse, 1 << 30);
        let (eaten, Piece::Content(piece)) = framing.step(&wire) else { panic!("no content") };
        assert_eq!((eaten, piece.as_ptr(), piece.len()), (wire.len(), wire.as_ptr(), wire.len()));
    }

    /// By BDAT: content, and how it ended.
    fn read_counted(line_ends: LineEnds, content: &[u8], chunk: usize) -> (Vec<u8>, Result<u64, ContentFault>) {
        let mut framing = Framing::counted(line_ends, 1 << 20);
        let mut got = Vec::new();
        for mut part in content.chunks(chunk) {
            while let (octets, Piece::Content(piece)) = framing.step(part) {
                got.extend_from_slice(piece);
                part = &part[octets..];
            }
        }
        loop {
            match framing.finish() {
                Piece::Content(piece) => got.extend_from_slice(piece),
                Piece::End(end) => return (got, end),
                Piece::More => panic!("more"),
            }
        }
    }

    /// Dots have no meaning; line ends are judged as in DATA, at the end too; a last line that does not end is ended.
    #[test]
    fn a18_counted_content_keeps_its_dots_and_obeys_the_line_rules() {
        for chunk in [1, 2, 3, usize::MAX] {
            for (content, expected) in [
                (&b""[..], &b""[..]),
                (b".\r\n", b".\r\n"),
                (b"..\r\n.\r\nx\r\n", b"..\r\n.\r\nx\r\n"),
                (b"a\r\n.", b"a\r\n.\r\n"),
                (b"a", b"a\r\n"),
            ] {
                let length = expected.len() as u64;
                assert_eq!(
                    read_counted(LineEnds::Refuse, content, chunk),
                    (expected.to_vec(), Ok(length)),
                    "{content:?}"
                );
            }
            for (content, repaired) in
                [(&b"a\r"[..], &b"a\r\n"[..]), (b"a\n", b"a\r\n"), (b"\n.\nb\r\n", b"\r\n.\r\nb\r\n")]
            {
                assert!(read_counted(LineEnds::Refuse, content, chunk).1.is_err(), "{content:?}");
                assert_eq!(read_counted(LineEnds::Repair, content, chunk).0, repaired, "{content:?}");
            }
            assert_eq!(read_counted(LineEnds::Repair, b"a\0\r\n", chunk).1, Err(ContentFault::Nul));
        }
    }

    #[test]
    fn a16_foreign_end_of_data_sequences() {
        let Some(folder) = crate::outside::corpora() else { return };
        let table = std::fs::read_to_string(folder.join("smtp-attack/eod-sequences.tsv")).unwrap();
        let mut seen = 0;
        for line in table.lines().skip(1) {
            let columns: Vec<_> = line.split('\t').collect();
            let sequence: Vec<u8> = columns[1]
                .as_bytes()
                .chunks(2)
                .map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap())
                .collect();
            let wire = [b"Subject: x\r\n\r\nfirst", &sequence[..], b"MAIL FROM:<evil@x>\r\n.\r\n"].concat();
            let (_, end, eaten) = read(&wire);
            // By BDAT none of them ends anything (A18), and the same are refused.
            assert_eq!(read_counted(LineEnds::Refuse, &wire, 7).1.is_ok(), columns[0] == "valid", "{}", columns[0]);
            if columns[0] == "valid" {
                assert_eq!((end, eaten), (Some(Ok(21)), 24));
            } else {
                assert!(matches!(end, Some(Err(_))), "{}", columns[0]);
                assert_eq!(eaten, wire.len(), "{}: a second message", columns[0]);
            }
            seen += 1;
        }
        assert_eq!(seen, 13);
    }

    #[test]
    fn fuzz_seeds() {
        for seed in [&b"\x00a\r\n.\r\n"[..], b"\x03\n.\n\r\n.\r\n", b"\x02..\r\n.\r\n", b""] {
            fuzz_data(seed);
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(first: u8, wire in prop::collection::vec(prop::sample::select(b"\r\n.\r\n.a\0".to_vec()), 0..60)) {
            fuzz_data(&[&[first], &wire[..]].concat());
        }

        #[test]
        fn stuffed_content_comes_back(lines in prop::collection::vec("[.a]{0,4}", 0..12)) {
            let (mut plain, mut wire) = (Vec::new(), Vec::new());
            for line in lines {
                if line.starts_with('.') {
                    wire.push(b'.');
                }
                wire.extend(line.bytes().chain(*b"\r\n"));
                plain.extend(line.bytes().chain(*b"\r\n"));
            }
            wire.extend(b".\r\n");
            prop_assert_eq!(content(&wire), plain);
        }
    }
}

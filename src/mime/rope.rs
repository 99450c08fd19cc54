//! Content as pieces that share the buffers they came from; base64 and folding happen while they are written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::io;

/// Octets that make one line of base64 (RFC 2045 section 6.8: at most 76 characters).
const LINE_IN: usize = 57;
/// A full line of base64.
const LINE_OUT: usize = 76;
/// A full line with its CRLF.
const LINE_WIRE: usize = LINE_OUT + 2;
/// Lines encoded in one go.
const BLOCK_LINES: usize = 64;
/// Octets handed to a writer at a time.
const WRITE_SIZE: usize = 64 * 1024;

/// A piece of a message.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Octets as they go on the wire (before dot-stuffing).
    Raw(Bytes),
    /// Octets that are written as base64 in lines of 76 and CRLF, the last line ended too. `Rope` joins the pieces of
    /// one run: only the last piece of a run may have a length that is no multiple of 57.
    Base64(Bytes),
}

impl Piece {
    /// Octets when written.
    fn encoded_len(&self) -> usize {
        match self {
            Piece::Raw(octets) => octets.len(),
            Piece::Base64(octets) => base64_len(octets.len()),
        }
    }
}

/// A message or a part of one, in canonical form (CRLF), as a list of pieces.
#[derive(Debug, Clone, Default)]
pub struct Rope {
    pieces: Vec<Piece>,
}

impl Rope {
    /// An empty rope.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds octets as they are.
    pub fn push_raw(&mut self, octets: impl Into<Bytes>) {
        let octets = octets.into();
        if !octets.is_empty() {
            self.pieces.push(Piece::Raw(octets));
        }
    }
    /// Adds octets that are to be base64 encoded; one call is one base64 body.
    pub fn push_base64(&mut self, octets: impl Into<Bytes>) {
        let octets = octets.into();
        if !octets.is_empty() {
            self.pieces.push(Piece::Base64(octets));
        }
    }
    /// Adds one base64 body that lies in several buffers. At most 57 octets are copied at each seam.
    pub fn push_base64_run(&mut self, run: impl IntoIterator<Item = Bytes>) {
        let mut seam: Vec<u8> = Vec::new();
        for mut octets in run {
            if !seam.is_empty() {
                let missing = LINE_IN.saturating_sub(seam.len()).min(octets.len());
                seam.extend_from_slice(&octets.split_to(missing));
                if seam.len() == LINE_IN {
                    self.push_base64(std::mem::take(&mut seam));
                }
            }
            let rest = octets.split_off(octets.len() - octets.len() % LINE_IN);
            self.push_base64(octets);
            seam.extend_from_slice(&rest);
        }
        self.push_base64(seam);
    }
    /// Adds another rope's pieces.
    pub fn append(&mut self, other: Rope) {
        self.pieces.extend(other.pieces);
    }
    /// The pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(|piece| piece.encoded_len() == 0)
    }
    /// Whether all octets are ASCII when written: 7-bit content (RFC 6152). Base64 is not looked at.
    pub fn is_ascii(&self) -> bool {
        self.pieces.iter().all(|piece| match piece {
            Piece::Raw(octets) => octets.is_ascii(),
            Piece::Base64(_) => true,
        })
    }
    /// Octets when written, without dot-stuffing.
    pub fn encoded_len(&self) -> usize {
        self.pieces.iter().map(Piece::encoded_len).fold(0, usize::saturating_add)
    }
    /// The octets as written, in chunks of at most `size` octets (memory for one chunk at a time). Raw pieces are sliced,
    /// never copied. A `size` of 0 counts as 1.
    pub fn chunks(&self, size: usize) -> Chunks {
        Chunks { pieces: self.pieces.clone().into_iter(), base64: Bytes::new(), ready: Bytes::new(), size: size.max(1) }
    }
    /// All octets in one buffer (no copy where the rope is one raw piece).
    pub fn to_bytes(&self) -> Bytes {
        if let [Piece::Raw(octets)] = self.pieces.as_slice() {
            return octets.clone();
        }
        let mut out = Vec::with_capacity(self.encoded_len());
        self.append_to(&mut out);
        out.into()
    }
    /// Appends all octets to a buffer.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Raw(octets) => out.extend_from_slice(octets),
                Piece::Base64(octets) => encode_lines(octets, out),
            }
        }
    }
    /// Writes all octets, encoding 64 KiB at a time.
    pub fn write_to(&self, to: &mut impl io::Write) -> io::Result<()> {
        let mut scratch = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Raw(octets) => to.write_all(octets)?,
                Piece::Base64(octets) => {
                    for block in octets.chunks(WRITE_SIZE / LINE_WIRE * LINE_IN) {
                        scratch.clear();
                        encode_lines(block, &mut scratch);
                        to.write_all(&scratch)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl From<Bytes> for Rope {
    fn from(octets: Bytes) -> Self {
        let mut rope = Rope::new();
        rope.push_raw(octets);
        rope
    }
}

/// The octets of a rope in chunks: see [`Rope::chunks`]. It holds references to the buffers, not to the rope.
#[derive(Debug, Clone)]
pub struct Chunks {
    pieces: std::vec::IntoIter<Piece>,
    /// What is left to encode of the current piece.
    base64: Bytes,
    /// Octets ready to be given out.
    ready: Bytes,
    size: usize,
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.ready.is_empty() {
            if !self.base64.is_empty() {
                let lines = (self.size / LINE_WIRE).max(1);
                let block = self.base64.split_to(lines.saturating_mul(LINE_IN).min(self.base64.len()));
                let mut out = Vec::with_capacity(base64_len(block.len()));
                encode_lines(&block, &mut out);
                self.ready = out.into();
            } else {
                match self.pieces.next()? {
                    Piece::Raw(octets) => self.ready = octets,
                    Piece::Base64(octets) => self.base64 = octets,
                }
            }
        }
        Some(self.ready.split_to(self.size.min(self.ready.len())))
    }
}

/// Length of `len` octets as base64 in lines of 76, each with CRLF.
fn base64_len(len: usize) -> usize {
    let characters = len.div_ceil(3).saturating_mul(4);
    characters.saturating_add(characters.div_ceil(LINE_OUT).saturating_mul(2))
}

/// Appends `octets` as base64 in lines of 76 and CRLF, the last line ended too.
pub(crate) fn encode_lines(octets: &[u8], out: &mut Vec<u8>) {
    out.reserve(base64_len(octets.len()));
    let mut scratch = [0u8; BLOCK_LINES * LINE_OUT];
    for block in octets.chunks(BLOCK_LINES * LINE_IN) {
        // One call for many lines: the encoder's inner loop is what is fast.
        let written = STANDARD.encode_slice(block, &mut scratch).unwrap_or(0);
        for line in scratch.get(..written).unwrap_or_default().chunks(LINE_OUT) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain way: encode all, then cut.
    fn reference(octets: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in STANDARD.encode(octets).as_bytes().chunks(76) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    fn rope_of(parts: &[(bool, Vec<u8>)]) -> (Rope, Vec<u8>) {
        let (mut rope, mut plain) = (Rope::new(), Vec::new());
        for (encode, octets) in parts {
            if *encode {
                rope.push_base64(octets.clone());
                plain.extend(reference(octets));
            } else {
                rope.push_raw(octets.clone());
                plain.extend(octets);
            }
        }
        (rope, plain)
    }

    proptest! {
        #[test]
        fn every_way_of_writing_gives_the_same_octets(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..9000)), 0..4),
            size in 1usize..20_000,
        ) {
            let (rope, plain) = rope_of(&parts);
            prop_assert_eq!(rope.encoded_len(), plain.len());
            prop_assert_eq!(&rope.to_bytes()[..], &plain[..]);
            let chunks: Vec<Bytes> = rope.chunks(size).collect();
            prop_assert!(chunks.iter().all(|c| !c.is_empty() && c.len() <= size));
            prop_assert_eq!(&chunks.concat()[..], &plain[..]);
            let mut written = Vec::new();
            rope.write_to(&mut written).unwrap();
            prop_assert_eq!(written, plain);
        }

        #[test]
        fn a_run_in_several_buffers_is_one_base64_body(
            run in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
        ) {
            let mut rope = Rope::new();
            rope.push_base64_run(run.iter().cloned().map(Bytes::from));
            prop_assert_eq!(&rope.to_bytes()[..], &reference(&run.concat())[..]);
        }
    }

    #[test]
    fn raw_octets_are_shared_and_not_copied() {
        let octets = Bytes::from(vec![7u8; 1 << 20]);
        let rope = Rope::from(octets.clone());
        assert_eq!(rope.to_bytes().as_ptr(), octets.as_ptr());
        assert_eq!(rope.chunks(4096).nth(3).unwrap().as_ptr(), octets.slice(3 * 4096..).as_ptr());
    }
}

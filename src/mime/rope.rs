//! Content as pieces that share the buffers they came from; base64 and folding happen while they are written.

use bytes::Bytes;

/// A piece of a message.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Octets as they go on the wire (before dot-stuffing).
    Raw(Bytes),
    /// Octets that are written as base64 in lines of 76 and CRLF, the last line ended too. `Rope` joins the pieces of
    /// one run: only the last piece of a run may have a length that is no multiple of 57.
    Base64(Bytes),
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
        self.pieces.push(Piece::Raw(octets.into()));
    }
    /// Adds octets that are to be base64 encoded; one call is one base64 body.
    pub fn push_base64(&mut self, octets: impl Into<Bytes>) {
        self.pieces.push(Piece::Base64(octets.into()));
    }
    /// Adds another rope's pieces.
    pub fn append(&mut self, other: Rope) {
        self.pieces.extend(other.pieces);
    }
    /// The pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
    /// Octets when written, without dot-stuffing.
    pub fn encoded_len(&self) -> usize {
        todo!()
    }
    /// The octets as written, in chunks of at most `size` octets (memory for one chunk at a time).
    pub fn chunks(&self, _size: usize) -> Box<dyn Iterator<Item = Bytes> + Send + '_> {
        todo!()
    }
    /// All octets in one buffer (no copy where the rope is one raw piece).
    pub fn to_bytes(&self) -> Bytes {
        todo!()
    }
}

impl From<Bytes> for Rope {
    fn from(octets: Bytes) -> Self {
        let mut rope = Rope::new();
        rope.push_raw(octets);
        rope
    }
}

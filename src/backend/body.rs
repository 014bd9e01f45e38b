//! Bytes of an object as they came.

use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Bytes of an object, in the pieces in which they came from the network: who needs parts of them
/// copies these parts, once, and not all of it before.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pieces: Vec<Bytes>,
    length: usize,
}

impl Body {
    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A copy of that range, which keeps nothing else in memory; it must lie within the body.
    pub fn copy(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} of {} bytes", self.length);
        let mut copied = BytesMut::with_capacity(range.len());
        let mut at = 0;
        for piece in &self.pieces {
            if at >= range.end {
                break;
            }
            let end = at + piece.len();
            if end > range.start {
                copied.extend_from_slice(&piece[range.start.max(at) - at..range.end.min(end) - at]);
            }
            at = end;
        }
        copied.freeze()
    }

    /// All of it in one piece; not copied if it came in one.
    pub fn join(mut self) -> Bytes {
        match self.pieces.len() {
            0 | 1 => self.pieces.pop().unwrap_or_default(),
            _ => self.copy(0..self.length),
        }
    }
}

impl From<Bytes> for Body {
    fn from(piece: Bytes) -> Body {
        let mut body = Body::default();
        body.push(piece);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_in_any_pieces() {
        let mut body = Body::default();
        for piece in ["", "ab", "", "c", "defg"] {
            body.push(Bytes::copy_from_slice(piece.as_bytes()));
        }
        let whole = "abcdefg";
        assert_eq!(body.len(), whole.len());
        for start in 0..=whole.len() {
            for end in start..=whole.len() {
                assert_eq!(body.copy(start..end), &whole.as_bytes()[start..end]);
            }
        }
        assert_eq!(body.join(), whole);
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from_static(b"abc");
        assert_eq!(Body::from(piece.clone()).join().as_ptr(), piece.as_ptr());
        assert!(Body::default().join().is_empty());
    }
}

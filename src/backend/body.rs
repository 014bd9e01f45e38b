//! Bytes of an object as they came.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of an object, in the pieces in which they came from the network: who needs parts of them
/// copies these parts, once, and not all of it before.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pieces: VecDeque<Bytes>,
    /// Where the first piece begins, and where the last one ends.
    bounds: Range<usize>,
}

impl Body {
    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        self.bounds.end += piece.len();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// Where it ends: bytes in all, forgotten ones included.
    pub fn end(&self) -> usize {
        self.bounds.end
    }

    /// Nobody needs what comes before there.
    pub fn forget_before(&mut self, at: usize) {
        while let Some(piece) = self.pieces.front()
            && self.bounds.start + piece.len() <= at
        {
            self.bounds.start += piece.len();
            self.pieces.pop_front();
        }
    }

    /// A copy of that range, which keeps nothing else in memory. It must lie within the body, and not
    /// be forgotten.
    pub fn copy(&self, range: Range<usize>) -> Bytes {
        let Range { start, end } = self.bounds;
        assert!(start <= range.start && range.start <= range.end && range.end <= end, "{range:?} of {start}..{end}");
        let mut copied = BytesMut::with_capacity(range.len());
        let mut at = start;
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
            0 | 1 => self.pieces.pop_front().unwrap_or_default(),
            _ => self.copy(self.bounds.clone()),
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
        assert_eq!(body.end(), whole.len());
        for start in 0..=whole.len() {
            for end in start..=whole.len() {
                assert_eq!(body.copy(start..end), &whole.as_bytes()[start..end]);
            }
        }
        let mut rest = body.clone();
        rest.forget_before(4);
        assert_eq!((rest.copy(4..7), rest.end()), (Bytes::from_static(b"efg"), 7));
        assert_eq!(rest.pieces, ["defg"], "only whole pieces are forgotten");
        assert_eq!(body.join(), whole);
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from_static(b"abc");
        assert_eq!(Body::from(piece.clone()).join().as_ptr(), piece.as_ptr());
        assert!(Body::default().join().is_empty());
    }
}

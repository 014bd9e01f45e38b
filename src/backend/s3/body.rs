//! The body of a GET's answer: which of its bytes were asked for, and whether all of them came.

use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Room that is made for a body before it comes, at most: longer ones than we ever store are only
/// announced by who does not mean well.
const ROOM_MAX: u64 = 16 << 20;

/// What the headers say of the body to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// Its length in bytes, if they say.
    length: Option<u64>,
    /// Which of its bytes were asked for.
    wanted: Range<u64>,
}

impl Expected {
    /// From the range that was asked for, and Content-Length and Content-Range of the answer. An
    /// error says how they contradict each other.
    pub fn parse(
        asked: Option<&Range<u64>>,
        content_length: Option<i64>,
        content_range: Option<&str>,
    ) -> Result<Expected, String> {
        let length = content_length.and_then(|length| u64::try_from(length).ok());
        let Some(asked) = asked else {
            return Ok(Expected { length, wanted: 0..u64::MAX });
        };
        let Some(text) = content_range else {
            // The whole object, from a server that does not do ranges.
            return Ok(Expected { length, wanted: asked.clone() });
        };
        let fault = || format!("asked for bytes {}-{}, it answers '{text}'", asked.start, asked.end - 1);
        let (first, end, total) = parse_content_range(text).ok_or_else(fault)?;
        // Less than was asked for is right only where the object ends.
        let is_cut_right = end == asked.end || (end < asked.end && total.is_none_or(|total| total == end));
        if first != asked.start || first >= end || !is_cut_right {
            return Err(fault());
        }
        if length.is_some_and(|length| length != end - first) {
            return Err(format!("{}, with a length of {}", fault(), length.unwrap_or(0)));
        }
        Ok(Expected { length: Some(end - first), wanted: 0..end - first })
    }

    /// At most how many bytes will come, for a time limit; 0 if nothing is known.
    pub fn bytes(&self) -> u64 {
        let end = if self.wanted.end == u64::MAX { 0 } else { self.wanted.end };
        self.length.map_or(end, |length| if end == 0 { length } else { length.min(end) })
    }

    /// Takes in the body as far as it was asked for; no more of it is held than that. `received` is
    /// told the length of each piece as it comes. An error says how the body ended too early.
    ///
    /// Each piece is copied at once, while it is still in the processor's cache: so the connection has
    /// its buffer back for the next one, and everybody after us can share the one copy.
    pub async fn collect(&self, mut body: ByteStream, received: impl Fn(usize)) -> Result<Bytes, String> {
        let mut kept = BytesMut::with_capacity(self.bytes().min(ROOM_MAX) as usize);
        let mut at = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| format!("the answer broke off after {at} bytes: {error}"))?;
            received(piece.len());
            let end = at + piece.len() as u64;
            let part = self.wanted.start.clamp(at, end) - at..self.wanted.end.clamp(at, end) - at;
            kept.extend_from_slice(&piece[part.start as usize..part.end as usize]);
            at = end;
            if at >= self.wanted.end && self.length.is_none_or(|length| at < length) {
                // The rest of an object that is longer than the range.
                return Ok(kept.freeze());
            }
        }
        match self.length {
            Some(length) if length != at => Err(format!("the answer has {at} of {length} bytes")),
            _ => Ok(kept.freeze()),
        }
    }
}

/// "bytes FIRST-LAST/TOTAL" as first, end (one past the last) and total; the total may be "*".
fn parse_content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(asked: Range<u64>, length: i64, range: &str) -> Option<Expected> {
        Expected::parse(Some(&asked), Some(length), Some(range)).ok()
    }

    #[test]
    fn an_answer_has_the_range_that_was_asked_for_or_its_part_in_the_object() {
        let whole = Expected { length: Some(10), wanted: 0..10 };
        assert_eq!(expected(5..15, 10, "bytes 5-14/100"), Some(whole.clone()));
        assert_eq!(expected(5..15, 10, "bytes 5-14/15"), Some(whole.clone()));
        assert_eq!(expected(5..15, 10, "bytes 5-14/*"), Some(whole.clone()));
        assert_eq!(expected(5..99, 10, "bytes 5-14/15"), Some(whole), "cut where the object ends");
        for (length, range) in [
            (10, "bytes 4-13/100"),
            (11, "bytes 5-15/100"),
            (9, "bytes 5-13/100"),
            (9, "bytes 5-14/100"),
            (10, "bytes 5-4/100"),
            (10, "lines 5-14/100"),
            (10, "bytes 5-14"),
            (10, "bytes 5-18446744073709551615/*"),
        ] {
            assert_eq!(expected(5..15, length, range), None, "{length} {range}");
        }
    }
}

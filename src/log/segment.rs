//! A data segment as stored: header, payloads, and (once it is full) an index. Pure; the same
//! bytes on every backend.
//!
//! Header:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `kivafsD1` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 1 | stream: 1 pages, 2 data, 3 pages that are written again and again |
//! | 11 | 5 | zero |
//! | 16 | 16 | store id |
//! | 32 | 8 | own number |
//! | 40 | 8 | epoch that wrote it |
//! | 48 | 16 | XXH3-128 of bytes 0-47 |
//!
//! Payloads follow, each named by a pointer; what lies between them is zero. Index entry, one for
//! each payload, in order of offset:
//!
//! | bytes | field |
//! |---|---|
//! | 3 | offset, big-endian |
//! | 3 | stored length, big-endian |
//! | 1 | codec |
//! | 16 | checksum |
//! | 1 + n | owner hint: the first bytes of the first key that the payload is for |
//!
//! Footer, the last 32 bytes of a full segment:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `kivafsDX` |
//! | 8 | 4 | number of index entries |
//! | 12 | 4 | length of the index, which ends where the footer begins |
//! | 16 | 16 | XXH3-128 of the index and the 16 bytes before this field |
//!
//! The index only helps to find what may live in a segment; nothing is freed or trusted by it.

use super::pointer::{Pointer, SegmentNo, checksum};

/// Length of the header.
pub const HEADER_BYTES: usize = 64;
/// Length of the footer.
pub const FOOTER_BYTES: usize = 32;
/// Longest owner hint kept.
pub const HINT_BYTES_MAX: usize = 32;
const MAGIC: &[u8; 8] = b"kivafsD1";
const FOOTER_MAGIC: &[u8; 8] = b"kivafsDX";
const VERSION: u16 = 1;
const ENTRY_BYTES: usize = 3 + 3 + 1 + 16 + 1;

/// What a segment holds. What dies at different ages does not share segments: one live page must not keep 16 MiB of
/// dead data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Tree pages and the segment table.
    Pages = 1,
    /// Units of data.
    Data = 2,
    /// What would be in `Pages`, but is written anew by nearly each checkpoint: where much of that is.
    Upper = 3,
}

/// How many there are.
pub const STREAMS: usize = 3;

impl Stream {
    /// Its number, counted from 0.
    pub fn index(self) -> usize {
        self as usize - 1
    }
}

/// The header's bytes.
pub fn header(store: &[u8; 16], number: SegmentNo, epoch: u64, stream: Stream) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.push(stream as u8);
    out.extend_from_slice(&[0; 5]);
    out.extend_from_slice(store);
    out.extend_from_slice(&number.0.to_le_bytes());
    out.extend_from_slice(&epoch.to_le_bytes());
    out.extend_from_slice(&checksum(&out).to_le_bytes());
    assert_eq!(out.len(), HEADER_BYTES);
    out
}

/// The index of a segment being filled.
#[derive(Default)]
pub struct Index {
    entries: Vec<u8>,
    count: u32,
}

impl Index {
    /// Bytes that index and footer will take with one more payload of that hint.
    pub fn bytes_with(&self, hint: &[u8]) -> usize {
        self.entries.len() + ENTRY_BYTES + hint.len().min(HINT_BYTES_MAX) + FOOTER_BYTES
    }

    /// Adds a payload.
    pub fn push(&mut self, pointer: &Pointer, hint: &[u8]) {
        let hint = &hint[..hint.len().min(HINT_BYTES_MAX)];
        self.entries.extend_from_slice(&pointer.offset.to_be_bytes()[1..]);
        self.entries.extend_from_slice(&pointer.length.to_be_bytes()[1..]);
        self.entries.push(pointer.codec as u8);
        self.entries.extend_from_slice(&pointer.checksum.to_be_bytes());
        self.entries.push(hint.len() as u8);
        self.entries.extend_from_slice(hint);
        self.count += 1;
    }

    /// Index and footer: the end of the segment.
    pub fn finish(self) -> Vec<u8> {
        let mut out = self.entries;
        let length = out.len() as u32;
        out.extend_from_slice(FOOTER_MAGIC);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&checksum(&out).to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::pointer::Codec;

    #[test]
    fn golden_header() {
        let bytes = header(b"0123456789abcdef", SegmentNo(3), 2, Stream::Data);
        let mut golden =
            b"kivafsD1\x01\0\x02\0\0\0\0\0\x30123456789abcdef\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
        golden.extend_from_slice(&checksum(&golden).to_le_bytes());
        assert_eq!(bytes, golden);
    }

    #[test]
    fn golden_index() {
        let mut index = Index::default();
        assert_eq!(index.bytes_with(b"key"), 24 + 3 + 32);
        let pointer =
            Pointer { segment: SegmentNo(3), offset: 64, length: 5, codec: Codec::Lz4, shrunk: 0, checksum: 1 };
        index.push(&pointer, b"key");
        let mut golden = b"\0\0\x40\0\0\x05\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x03key".to_vec();
        golden.extend_from_slice(b"kivafsDX\x01\0\0\0\x1b\0\0\0");
        golden.extend_from_slice(&checksum(&golden).to_le_bytes());
        assert_eq!(index.finish(), golden);
    }
}

//! Addresses and pointers: how anything stored is named and checked. Pure.
//!
//! Address, 9 bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 6 | bit 47: kind (0 data segment, 1 commit); bits 0-46: number; big-endian |
//! | 6 | 3 | offset within the segment, big-endian |
//!
//! Pointer, 29 bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 9 | address |
//! | 9 | 3 | stored length in bytes, big-endian |
//! | 12 | 1 | bits 0-3: codec; bit 4: kept for encryption; bits 5-7: by how many eighths what is stored is shorter |
//! | 13 | 16 | XXH3-128 of the stored bytes, big-endian |
//!
//! Nothing lives in commits on any backend (see `store::redo`), so only data segments are
//! addressed today; the kind bit is checked on decoding.

use std::fmt;
use std::hash::{Hash, Hasher};

/// Number of a data segment. One sequence over the life of a store, never used twice (R3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentNo(pub u64);

/// Number of a commit. One sequence over the life of a store, without gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

/// Numbers are 47 bits: 440 years at 10,000 commits a second.
pub const NUMBER_MAX: u64 = (1 << 47) - 1;
/// A segment is at most 16 MiB, so that an offset fits into 24 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 24;
/// Length of an encoded pointer.
pub const POINTER_BYTES: usize = ADDRESS_BYTES + LENGTH_BYTES + 1 + CHECKSUM_BYTES;
const ADDRESS_BYTES: usize = 9;
const LENGTH_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 16;
const KIND_COMMIT: u64 = 1 << 47;
const EIGHTHS: u8 = 8;
const SHRUNK_SHIFT: u8 = 5;
/// With the bit that is to be none.
const CODEC_MASK: u8 = (1 << SHRUNK_SHIFT) - 1;
const _: () = assert!(POINTER_BYTES == 29);

/// How stored bytes were made from the payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Codec {
    /// Stored as they are.
    Raw = 0,
    /// LZ4 block format, preceded by the payload's length as u32 little-endian.
    Lz4 = 1,
}

impl Codec {
    /// The codec of that number, if there is one.
    pub fn from_number(number: u8) -> Option<Codec> {
        match number {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Lz4),
            _ => None,
        }
    }
}

/// Names stored bytes and holds their checksum: whoever has a pointer can tell the right bytes
/// from wrong ones (C3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// The data segment that holds the bytes.
    pub segment: SegmentNo,
    /// Where they begin in it.
    pub offset: u32,
    /// How many they are, as stored.
    pub length: u32,
    /// How they were made.
    pub codec: Codec,
    /// By how many eighths of the payload's length the stored bytes are fewer, at least: 0 to 7.
    pub shrunk: u8,
    /// XXH3-128 of the stored bytes.
    pub checksum: u128,
}

impl Pointer {
    /// Appends the 29 bytes of this pointer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.segment.0 <= NUMBER_MAX, "segment number out of range");
        assert!(u64::from(self.offset) < SEGMENT_BYTES_MAX && u64::from(self.length) < SEGMENT_BYTES_MAX);
        out.extend_from_slice(&self.segment.0.to_be_bytes()[2..]);
        out.extend_from_slice(&self.offset.to_be_bytes()[1..]);
        out.extend_from_slice(&self.length.to_be_bytes()[1..]);
        assert!(self.shrunk < EIGHTHS, "stored bytes that are none");
        out.push(self.codec as u8 | (self.shrunk << SHRUNK_SHIFT));
        out.extend_from_slice(&self.checksum.to_be_bytes());
    }

    /// Reads a pointer. `None`: these bytes are not one (unknown kind, codec or flags).
    pub fn decode(bytes: &[u8; POINTER_BYTES]) -> Option<Pointer> {
        let number = be(&bytes[0..6]);
        if number & KIND_COMMIT != 0 {
            return None;
        }
        let mut checksum = [0; CHECKSUM_BYTES];
        checksum.copy_from_slice(&bytes[13..29]);
        Some(Pointer {
            segment: SegmentNo(number),
            offset: be(&bytes[6..9]) as u32,
            length: be(&bytes[9..12]) as u32,
            codec: Codec::from_number(bytes[12] & CODEC_MASK)?,
            shrunk: bytes[12] >> SHRUNK_SHIFT,
            checksum: u128::from_be_bytes(checksum),
        })
    }

    /// By how many eighths of `payload` bytes so many stored ones are fewer, at least.
    pub fn shrunk(payload: usize, stored: usize) -> u8 {
        let saved = payload.saturating_sub(stored) * usize::from(EIGHTHS) / payload.max(1);
        saved.min(usize::from(EIGHTHS) - 1) as u8
    }

    /// How many of the stored bytes a part of the payload takes: about, so that what a segment holds can be told from
    /// what refers to it, and the parts of a payload are no less together than it is.
    pub fn part(&self, payload_bytes: u32) -> u64 {
        (u64::from(payload_bytes) * u64::from(EIGHTHS - self.shrunk)).div_ceil(EIGHTHS.into())
    }

    /// Whether these stored bytes are the ones that the pointer was made for.
    pub fn fits(&self, stored: &[u8]) -> bool {
        stored.len() == self.length as usize && checksum(stored) == self.checksum
    }
}

/// Bytes of those that are stored as they are: what was read for them is kept.
pub fn raw_bytes<'a>(pointers: impl Iterator<Item = &'a Pointer>) -> usize {
    pointers.filter(|pointer| pointer.codec == Codec::Raw).map(|pointer| pointer.length as usize).sum()
}

/// The checksum of everything stored: XXH3-128 (seed 0).
pub fn checksum(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// One number: the checksum is as good as a random one, and the address tells equal bytes apart.
impl Hash for Pointer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // An odd number: different addresses stay different, and differ in the upper bits, too.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let address = self.segment.0 << 24 | u64::from(self.offset);
        state.write_u64(self.checksum as u64 ^ address.wrapping_mul(SPREAD));
    }
}

impl fmt::Debug for SegmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d/{}", self.0)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {}", self.0)
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}+{:#x}..{:#x}", self.segment, self.offset, self.offset + self.length)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let pointer = Pointer {
            segment: SegmentNo(0x0102_0304_0506),
            offset: 0x0a0b0c,
            length: 0x0d0e0f,
            codec: Codec::Lz4,
            shrunk: 5,
            checksum: 0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f,
        };
        let mut bytes = Vec::new();
        pointer.encode(&mut bytes);
        let golden: [u8; POINTER_BYTES] = [
            1, 2, 3, 4, 5, 6, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0xa1, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
            0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
        ];
        assert_eq!(bytes, golden);
        assert_eq!(Pointer::decode(&golden), Some(pointer));
    }

    #[test]
    fn what_is_not_a_pointer_is_refused() {
        let mut bytes = [0; POINTER_BYTES];
        assert!(Pointer::decode(&bytes).is_some());
        bytes[0] = 0x80;
        assert_eq!(Pointer::decode(&bytes), None, "kind bit: commit");
        bytes[0] = 0;
        bytes[12] = 2;
        assert_eq!(Pointer::decode(&bytes), None, "unknown codec");
        bytes[12] = 0xb1;
        assert_eq!(Pointer::decode(&bytes), None, "unknown flag");
    }

    #[test]
    fn parts_are_together_at_least_what_is_stored() {
        for payload in [1_usize, 2, 7, 8, 100, 65_536] {
            for stored in (1..=payload + 4).step_by(payload / 50 + 1) {
                let mut bytes = [0; POINTER_BYTES];
                bytes[12] = (Pointer::shrunk(payload, stored) << SHRUNK_SHIFT) | Codec::Lz4 as u8;
                let pointer = Pointer::decode(&bytes).unwrap();
                let (first, rest) = (payload as u32 / 3, payload as u32 - payload as u32 / 3);
                let all = pointer.part(payload as u32);
                assert!(all >= stored.min(payload) as u64, "{stored} of {payload}: {all}");
                assert!(all <= stored as u64 + payload as u64 / 8 + 1, "{stored} of {payload}: {all}");
                assert!((all..=all + 1).contains(&(pointer.part(first) + pointer.part(rest))));
            }
        }
    }

    #[test]
    fn checksum_is_xxh3_128() {
        assert_eq!(checksum(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }
}

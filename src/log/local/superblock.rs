//! The superblock of a local store: what the store is, and where recovery starts. Pure.
//!
//! Two superblocks, written in turn, each in a block of its own at the start of the file:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `kivafsSB` |
//! | 8 | 2 | format version, 2 (1: leaves with values of up to 1024 bytes) |
//! | 10 | 2 | bit 0: closed cleanly after `durable` |
//! | 12 | 4 | segment size in bytes |
//! | 16 | 8 | incompatible features: unknown bits refuse the store |
//! | 24 | 8 | read-only-compatible features: unknown bits refuse writing |
//! | 32 | 16 | store id |
//! | 48 | 8 | ring size in bytes |
//! | 56 | 4 | page size in bytes |
//! | 60 | 4 | 1 + the slot that was the reserve; 0: none (a hint) |
//! | 64 | 8 | size limit in bytes; 0: none |
//! | 72 | 8 | serial: the superblock with the higher one is the newer |
//! | 80 | 8 | start: sequence of the first commit that recovery reads |
//! | 88 | 8 | start: its position in the ring |
//! | 96 | 16 | start: checksum of its predecessor |
//! | 112 | 8 | durable: sequence of a commit known to be durable |
//! | 120 | 16 | XXH3-128 of bytes 0-119 |
//!
//! With the incompatible feature bit 0, only a part of the ring is in use at first (`ring`), and there follow
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 136 | 8 | bytes of that part at first |
//! | 144 | 8 | bytes of that part now |
//! | 152 | 16 | XXH3-128 of bytes 0-151 |
//!
//! All numbers little-endian.

use crate::log::bytes::{Fields, Malformed};
use crate::log::geometry::{BLOCK, Geometry};
use crate::log::pointer::{Sequence, checksum};

/// Where the holder record lies.
pub const HOLDER_OFFSET: u64 = 2 * BLOCK;
/// The version that this code writes.
pub const VERSION: u16 = 2;

const MAGIC: &[u8; 8] = b"kivafsSB";
const FLAG_CLEAN: u16 = 1;
const CHECKED_BYTES: usize = 120;
const BYTES: usize = CHECKED_BYTES + 16;
const FEATURE_RING_IN_PART: u64 = 1;
const PART_CHECKED_BYTES: usize = BYTES + 16;

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The store's identity.
    pub store: [u8; 16],
    /// Its sizes.
    pub geometry: Geometry,
    /// Bytes of the ring that are in use, from its beginning: a multiple of 4096, what it was at first, or more.
    pub ring_part: u64,
    /// Most bytes that the file may have; 0: no limit of its own.
    pub size_limit: u64,
    /// Rises with each superblock written.
    pub serial: u64,
    /// Where recovery starts.
    pub start: Start,
    /// A commit that is known to be durable: a log that ends before it is damaged (R5).
    pub durable: Sequence,
    /// The slot that is allocated as the reserve, as far as was known.
    pub reserve: Option<u32>,
    /// Whether the store was closed after it, so that it is the last.
    pub clean: bool,
}

/// Where in the log recovery starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Sequence of the first commit to read.
    pub sequence: Sequence,
    /// Its position.
    pub position: u64,
    /// Checksum of its predecessor.
    pub predecessor: u128,
}

/// Why bytes are not a usable superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// No magic: perhaps not a store at all.
    Foreign,
    /// Ours, in the format of another version.
    OtherVersion(String),
    /// Ours, but damaged or cut.
    Damaged(&'static str),
}

impl Superblock {
    /// The block's bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.geometry.is_valid(), "geometry: {:?}", self.geometry);
        assert!(self.geometry.can_use(self.ring_part), "{} bytes of the ring of {:?}", self.ring_part, self.geometry);
        let is_in_part = self.geometry.ring_at_first < self.geometry.ring_bytes;
        let mut out = Vec::with_capacity(BLOCK as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(if self.clean { FLAG_CLEAN } else { 0 }).to_le_bytes());
        out.extend_from_slice(&self.geometry.segment_bytes.to_le_bytes());
        out.extend_from_slice(&(if is_in_part { FEATURE_RING_IN_PART } else { 0 }).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.store);
        out.extend_from_slice(&self.geometry.ring_bytes.to_le_bytes());
        out.extend_from_slice(&self.geometry.page_bytes.to_le_bytes());
        out.extend_from_slice(&self.reserve.map_or(0, |slot| slot + 1).to_le_bytes());
        out.extend_from_slice(&self.size_limit.to_le_bytes());
        out.extend_from_slice(&self.serial.to_le_bytes());
        out.extend_from_slice(&self.start.sequence.0.to_le_bytes());
        out.extend_from_slice(&self.start.position.to_le_bytes());
        out.extend_from_slice(&self.start.predecessor.to_le_bytes());
        out.extend_from_slice(&self.durable.0.to_le_bytes());
        assert_eq!(out.len(), CHECKED_BYTES);
        out.extend_from_slice(&checksum(&out).to_le_bytes());
        assert_eq!(out.len(), BYTES);
        if is_in_part {
            out.extend_from_slice(&self.geometry.ring_at_first.to_le_bytes());
            out.extend_from_slice(&self.ring_part.to_le_bytes());
            out.extend_from_slice(&checksum(&out).to_le_bytes());
        }
        out.resize(BLOCK as usize, 0);
        out
    }

    /// Reads a block.
    pub fn decode(block: &[u8]) -> Result<Superblock, Unusable> {
        if !block.starts_with(MAGIC) {
            return Err(Unusable::Foreign);
        }
        // The checksum comes first: a flipped version bit is damage, not another version.
        let checked = block.get(..CHECKED_BYTES).ok_or(Unusable::Damaged("superblock: cut"))?;
        let mut sum = Fields(&block[CHECKED_BYTES..]);
        if sum.u128("superblock: cut")? != checksum(checked) {
            return Err(Unusable::Damaged("superblock: checksum"));
        }
        let mut fields = Fields(&checked[MAGIC.len()..]);
        let version = fields.u16("superblock: cut")?;
        let flags = fields.u16("superblock: cut")?;
        let segment_bytes = fields.u32("superblock: cut")?;
        let incompatible = fields.u64("superblock: cut")?;
        let read_only = fields.u64("superblock: cut")?;
        if version != VERSION {
            return Err(Unusable::OtherVersion(format!("format version {version}, this one reads {VERSION}")));
        }
        if incompatible & !FEATURE_RING_IN_PART != 0 || read_only != 0 {
            return Err(Unusable::OtherVersion(format!("feature bits {incompatible:#x}, {read_only:#x}")));
        }
        let store = fields.array("superblock: cut")?;
        let ring_bytes = fields.u64("superblock: cut")?;
        let page_bytes = fields.u32("superblock: cut")?;
        let reserve = fields.u32("superblock: cut")?.checked_sub(1);
        let is_in_part = incompatible & FEATURE_RING_IN_PART != 0;
        let [ring_at_first, ring_part] = if is_in_part { parts_in_use(block)? } else { [ring_bytes; 2] };
        let superblock = Superblock {
            store,
            geometry: Geometry { ring_bytes, ring_at_first, segment_bytes, page_bytes },
            ring_part,
            size_limit: fields.u64("superblock: cut")?,
            serial: fields.u64("superblock: cut")?,
            start: Start {
                sequence: Sequence(fields.u64("superblock: cut")?),
                position: fields.u64("superblock: cut")?,
                predecessor: fields.u128("superblock: cut")?,
            },
            durable: Sequence(fields.u64("superblock: cut")?),
            reserve,
            clean: flags & FLAG_CLEAN != 0,
        };
        if !superblock.geometry.is_valid() || !superblock.geometry.can_use(ring_part) {
            return Err(Unusable::Damaged("superblock: sizes"));
        }
        Ok(superblock)
    }
}

/// How much of the ring is in use at first, and now, where that is said.
fn parts_in_use(block: &[u8]) -> Result<[u64; 2], Unusable> {
    let checked = block.get(..PART_CHECKED_BYTES).ok_or(Unusable::Damaged("superblock: cut"))?;
    if Fields(&block[PART_CHECKED_BYTES..]).u128("superblock: cut")? != checksum(checked) {
        return Err(Unusable::Damaged("superblock: checksum"));
    }
    let mut fields = Fields(&checked[BYTES..]);
    Ok([fields.u64("superblock: cut")?, fields.u64("superblock: cut")?])
}

impl From<Malformed> for Unusable {
    fn from(malformed: Malformed) -> Unusable {
        Unusable::Damaged(malformed.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            store: *b"0123456789abcdef",
            geometry: Geometry {
                ring_bytes: 16 << 20,
                ring_at_first: 16 << 20,
                segment_bytes: 4 << 20,
                page_bytes: 4096,
            },
            ring_part: 16 << 20,
            size_limit: 0x1122,
            serial: 7,
            start: Start { sequence: Sequence(5), position: 8192, predecessor: 0x0102 },
            durable: Sequence(6),
            reserve: Some(2),
            clean: true,
        }
    }

    fn in_part() -> Superblock {
        let geometry = Geometry { ring_bytes: 64 << 20, ..sample().geometry };
        Superblock { geometry, ring_part: 48 << 20, ..sample() }
    }

    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(&bytes[..16], b"kivafsSB\x02\x00\x01\x00\x00\x00\x40\x00");
        assert_eq!(&bytes[32..48], b"0123456789abcdef");
        assert_eq!(&bytes[48..72], b"\0\0\0\x01\0\0\0\0\0\x10\0\0\x03\0\0\0\x22\x11\0\0\0\0\0\0");
        assert_eq!(&bytes[72..96], b"\x07\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\x20\0\0\0\0\0\0");
        assert_eq!(&bytes[96..98], b"\x02\x01");
        assert_eq!(bytes[112], 6);
        assert!(bytes[136..].iter().all(|byte| *byte == 0));
        assert_eq!(Superblock::decode(&bytes), Ok(sample()));
        let bytes = in_part().encode();
        assert_eq!(&bytes[16..32], b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&bytes[48..56], b"\0\0\0\x04\0\0\0\0");
        assert_eq!(&bytes[136..152], b"\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0");
        assert!(bytes[168..].iter().all(|byte| *byte == 0));
        assert_eq!(Superblock::decode(&bytes), Ok(in_part()));
    }

    #[test]
    fn a_part_that_a_ring_cannot_have_is_damage() {
        for part in [0, 4096, (16 << 20) - 4096, (48 << 20) + 1, (64 << 20) + 4096] {
            let mut bytes = in_part().encode();
            bytes[BYTES + 8..PART_CHECKED_BYTES].copy_from_slice(&u64::to_le_bytes(part));
            let sum = checksum(&bytes[..PART_CHECKED_BYTES]);
            bytes[PART_CHECKED_BYTES..][..16].copy_from_slice(&sum.to_le_bytes());
            assert_eq!(Superblock::decode(&bytes), Err(Unusable::Damaged("superblock: sizes")), "{part}");
        }
    }

    #[test]
    fn each_flipped_byte_is_noticed() {
        for (superblock, length) in [(sample(), BYTES), (in_part(), PART_CHECKED_BYTES + 16)] {
            let bytes = superblock.encode();
            for at in 0..length {
                let mut wrong = bytes.clone();
                wrong[at] ^= 0x10;
                assert!(Superblock::decode(&wrong).is_err(), "byte {at}");
            }
            for cut in 0..length {
                assert!(Superblock::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        for version in [1, 3] {
            let mut bytes = sample().encode();
            bytes[8] = version;
            let sum = checksum(&bytes[..CHECKED_BYTES]);
            bytes[CHECKED_BYTES..BYTES].copy_from_slice(&sum.to_le_bytes());
            assert!(matches!(Superblock::decode(&bytes), Err(Unusable::OtherVersion(_))), "{version}");
        }
    }
}

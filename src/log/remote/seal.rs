//! The seal: the object that ends an epoch, in the place of its next commit. Pure.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `kivafsE1` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 1 | why: 0 taken over, 1 closed by its writer, 2 its writer goes on in the next epoch |
//! | 11 | 5 | zero |
//! | 16 | 16 | store id |
//! | 32 | 8 | epoch |
//! | 40 | 16 | the epoch's random id |
//! | 56 | 8 | own number within the epoch |
//! | 64 | 8 | sequence of the last commit |
//! | 72 | 16 | checksum of the last commit |
//! | 88 | 8 | wall time, nanoseconds since 1970 |
//! | 96 | 8 | closed: first data number that its writer did not use; else 0 |
//! | 104 | 16 | random: no two seals have the same bytes |
//! | 120 | 16 | XXH3-128 of bytes 0-119 |
//!
//! All numbers little-endian.

use crate::log::bytes::Fields;
use crate::log::commit::NotACommit;
use crate::log::pointer::{Sequence, checksum};

const MAGIC: &[u8; 8] = b"kivafsE1";
const VERSION: u16 = 1;
const BYTES: usize = 136;

/// Why an epoch was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// By a taker.
    Taken,
    /// By its writer, who closed the store: nobody holds it.
    Closed {
        /// First data number that it did not use.
        next_segment: u64,
    },
    /// By its writer, who is about to open the next epoch, and holds the store.
    Rolled,
}

/// What a seal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The store's identity.
    pub store: [u8; 16],
    /// The epoch that it ends.
    pub epoch: u64,
    /// The epoch's random identity.
    pub epoch_id: [u8; 16],
    /// Number within the epoch.
    pub number: u64,
    /// The commit before it.
    pub last: Sequence,
    /// That commit's checksum.
    pub last_checksum: u128,
    /// Why it was set.
    pub why: Why,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// So that two who seal the same epoch can tell whose seal it is.
    pub nonce: [u8; 16],
}

impl Seal {
    /// Whether bytes claim to be a seal.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let (why, next_segment) = match self.why {
            Why::Taken => (0, 0),
            Why::Closed { next_segment } => (1, next_segment),
            Why::Rolled => (2, 0),
        };
        out.push(why);
        out.extend_from_slice(&[0; 5]);
        out.extend_from_slice(&self.store);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.epoch_id);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.last.0.to_le_bytes());
        out.extend_from_slice(&self.last_checksum.to_le_bytes());
        out.extend_from_slice(&self.time_ns.to_le_bytes());
        out.extend_from_slice(&next_segment.to_le_bytes());
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&checksum(&out).to_le_bytes());
        assert_eq!(out.len(), BYTES);
        out
    }

    /// Reads a seal of this store.
    pub fn decode(bytes: &[u8], store: &[u8; 16]) -> Result<Seal, NotACommit> {
        if !Seal::is_one(bytes) {
            return Err(NotACommit::Absent);
        }
        if bytes.len() != BYTES {
            return Err(NotACommit::Torn("seal: length"));
        }
        let (checked, sum) = bytes.split_at(BYTES - 16);
        if Fields(sum).u128("seal: checksum")? != checksum(checked) {
            return Err(NotACommit::Torn("seal: checksum"));
        }
        let mut fields = Fields(&checked[MAGIC.len()..]);
        let version = fields.u16("seal: version")?;
        if version != VERSION {
            return Err(NotACommit::OtherVersion(format!("seal version {version}")));
        }
        let why = fields.u8("seal: why")?;
        fields.bytes(5, "seal: zero")?;
        if fields.array("seal: store id")? != *store {
            return Err(NotACommit::Absent);
        }
        Ok(Seal {
            store: *store,
            epoch: fields.u64("seal: epoch")?,
            epoch_id: fields.array("seal: epoch id")?,
            number: fields.u64("seal: number")?,
            last: Sequence(fields.u64("seal: last commit")?),
            last_checksum: fields.u128("seal: last commit")?,
            time_ns: fields.u64("seal: time")?,
            why: match (why, fields.u64("seal: data number")?) {
                (0, 0) => Why::Taken,
                (1, next_segment) => Why::Closed { next_segment },
                (2, 0) => Why::Rolled,
                _ => return Err(NotACommit::Torn("seal: why")),
            },
            nonce: fields.array("seal: nonce")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let seal = Seal {
            store: *b"0123456789abcdef",
            epoch: 2,
            epoch_id: [9; 16],
            number: 3,
            last: Sequence(4),
            last_checksum: 5,
            why: Why::Closed { next_segment: 7 },
            time_ns: 6,
            nonce: [8; 16],
        };
        let bytes = seal.encode();
        let mut golden = b"kivafsE1\x01\0\x01\0\0\0\0\x000123456789abcdef\x02\0\0\0\0\0\0\0".to_vec();
        golden.extend_from_slice(&[9; 16]);
        golden.extend_from_slice(b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0");
        golden.extend_from_slice(&5u128.to_le_bytes());
        golden.extend_from_slice(b"\x06\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0");
        golden.extend_from_slice(&[8; 16]);
        golden.extend_from_slice(&checksum(&golden).to_le_bytes());
        assert_eq!(bytes, golden);
        assert_eq!(Seal::decode(&bytes, &seal.store), Ok(seal.clone()));
        assert_eq!(Seal::decode(&bytes, &[0; 16]), Err(NotACommit::Absent));
        for at in 0..BYTES {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(Seal::decode(&wrong, &seal.store).is_err(), "byte {at}");
            assert!(Seal::decode(&bytes[..at], &seal.store).is_err(), "cut at {at}");
        }
    }
}

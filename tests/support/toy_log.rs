//! An append-only log of checksummed records, and ways to get it wrong.
//!
//! Record: payload length (u32 little-endian), XXH3-64 of number and payload (u64), payload.

use kivafs::backend::Disk;
use std::io;
use std::sync::Arc;

const HEADER_BYTES: usize = 12;

/// What is left out. `Nothing` is a right log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    Nothing,
    /// Appends are acknowledged without a sync.
    NoSync,
    /// The sync comes before the write.
    SyncFirst,
    /// Records are believed without looking at their checksum.
    NoChecksum,
    /// A second record rewrites the first one's sector from a copy: torn, it damages the first.
    RewritesFirst,
}

pub struct ToyLog {
    disk: Arc<dyn Disk>,
    mistake: Mistake,
    end: usize,
    count: u64,
}

impl ToyLog {
    pub fn new(disk: Arc<dyn Disk>, mistake: Mistake) -> ToyLog {
        ToyLog { disk, mistake, end: 0, count: 0 }
    }

    /// Appends and acknowledges.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut record = (payload.len() as u32).to_le_bytes().to_vec();
        record.extend_from_slice(&check_value(self.count, payload).to_le_bytes());
        record.extend_from_slice(payload);
        if self.mistake == Mistake::SyncFirst {
            self.disk.sync()?;
        }
        if self.mistake == Mistake::RewritesFirst && self.end > 0 {
            let zeros = vec![0; self.end];
            let mut before = zeros.clone();
            self.disk.read_at(0, &mut before)?;
            self.disk.write_at(0, &zeros)?;
            self.disk.write_at(0, &before)?;
        }
        self.disk.write_at(self.end as u64, &record)?;
        if !matches!(self.mistake, Mistake::NoSync | Mistake::SyncFirst) {
            self.disk.sync()?;
        }
        self.end += record.len();
        self.count += 1;
        Ok(())
    }
}

/// The payloads that a log on these bytes holds.
pub fn recover(bytes: &[u8], mistake: Mistake) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut rest = bytes;
    while rest.len() >= HEADER_BYTES {
        let length = u32::from_le_bytes(rest[..4].try_into().expect("4 bytes")) as usize;
        let expected = u64::from_le_bytes(rest[4..12].try_into().expect("8 bytes"));
        let Some(payload) = rest[HEADER_BYTES..].get(..length) else { break };
        let believed = mistake == Mistake::NoChecksum && length > 0;
        if !believed && check_value(payloads.len() as u64, payload) != expected {
            break;
        }
        payloads.push(payload.to_vec());
        rest = &rest[HEADER_BYTES + length..];
    }
    payloads
}

fn check_value(number: u64, payload: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(payload, number)
}

//! The holder record: who has a local store open for writing. Pure.
//!
//! Written without a flush at offset 8192 of the file by whoever holds its lock, and cleared when
//! the store is closed; read by others to say who is in the way. A record whose process is gone
//! means nothing: the lock alone decides.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `kivafsHR` |
//! | 8 | 4 | process id |
//! | 12 | 1 | 1: serving, 2: draining |
//! | 13 | 1 | 1: a place follows |
//! | 14 | 2 | length of the place in bytes |
//! | 16 | n | where it serves: an absolute path |
//! | | 16 | XXH3-128 of all before |

use super::superblock::HOLDER_OFFSET;
use crate::backend::Disk;
use crate::log::bytes::{Fields, Malformed};
use crate::log::geometry::BLOCK;
use crate::log::pointer::checksum;
use std::io;

const MAGIC: &[u8; 8] = b"kivafsHR";
const FIXED_BYTES: usize = 16;

/// Who holds a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderRecord {
    /// Its process id.
    pub pid: u32,
    /// It only makes the last changes durable.
    pub draining: bool,
    /// Where it serves.
    pub place: Option<Vec<u8>>,
}

impl HolderRecord {
    /// The block's bytes. A place too long for the block is left out.
    fn encode(&self) -> Vec<u8> {
        let place = self.place.as_deref().filter(|place| place.len() <= BLOCK as usize - FIXED_BYTES - 16);
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.pid.to_le_bytes());
        out.push(if self.draining { 2 } else { 1 });
        out.push(u8::from(place.is_some()));
        out.extend_from_slice(&(place.map_or(0, <[u8]>::len) as u16).to_le_bytes());
        out.extend_from_slice(place.unwrap_or_default());
        out.extend_from_slice(&checksum(&out).to_le_bytes());
        out.resize(BLOCK as usize, 0);
        out
    }

    fn decode(block: &[u8]) -> Result<HolderRecord, Malformed> {
        let mut fields = Fields(block);
        if fields.bytes(8, "holder: magic")? != MAGIC {
            return Err(Malformed { what: "holder: magic" });
        }
        let pid = fields.u32("holder: pid")?;
        let state = fields.u8("holder: state")?;
        let there = fields.u8("holder: place")? != 0;
        let length = usize::from(fields.u16("holder: place")?);
        let place = fields.bytes(length, "holder: place")?.to_vec();
        if fields.u128("holder: checksum")? != checksum(&block[..FIXED_BYTES + length]) {
            return Err(Malformed { what: "holder: checksum" });
        }
        Ok(HolderRecord { pid, draining: state == 2, place: there.then_some(place) })
    }

    /// Writes the record.
    pub fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.write_at(HOLDER_OFFSET, &self.encode())
    }

    /// Removes it.
    pub fn clear(disk: &dyn Disk) -> io::Result<()> {
        disk.write_at(HOLDER_OFFSET, &[0; BLOCK as usize])
    }

    /// Reads it; none: nobody, or not readable.
    pub fn read(disk: &dyn Disk) -> Option<HolderRecord> {
        let mut block = vec![0; BLOCK as usize];
        disk.read_at(HOLDER_OFFSET, &mut block).ok()?;
        HolderRecord::decode(&block).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let record = HolderRecord { pid: 258, draining: true, place: Some(b"/mnt".to_vec()) };
        let bytes = record.encode();
        assert_eq!(&bytes[..20], b"kivafsHR\x02\x01\0\0\x02\x01\x04\0/mnt");
        assert_eq!(bytes[20..36], checksum(&bytes[..20]).to_le_bytes());
        assert_eq!(HolderRecord::decode(&bytes), Ok(record));
        assert!(HolderRecord::decode(&[0; 4096]).is_err());
        let alone = HolderRecord { pid: 1, draining: false, place: None };
        assert_eq!(HolderRecord::decode(&alone.encode()), Ok(alone));
    }
}

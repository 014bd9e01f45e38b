//! The record of the file system as a whole. Pure.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version: 1, or 2 if there is a key directory |
//! | 1 | 6 | the next inode number to give out |
//! | 7 | 8 | number of nodes, the root and what is removed but open included |
//! | 15 | 2 | permission bits of files made by clients of the key interface |
//! | 17 | 4 | their owner |
//! | 21 | 4 | their group |
//! | 25 | 6 | version 2: the key directory; else it is the root |
//!
//! It is put with every creation and removal: some 30 bytes that a batch has once, whatever it creates.

use crate::fs::attr::{INO_MAX, Ino, ROOT};
use crate::fs::fields::{Fields, push};

const KEYS_IN_ROOT: u8 = 1;
const KEYS_ELSEWHERE: u8 = 2;
const RECORD_BYTES: usize = 1 + 6 + 8 + 2 + 4 + 4 + 6;

/// Counts and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FsRecord {
    pub(crate) next_ino: Ino,
    pub(crate) nodes: u64,
    pub(crate) key_perm: u16,
    pub(crate) key_uid: u32,
    pub(crate) key_gid: u32,
    /// The directory whose entries are the keys.
    pub(crate) key_dir: Ino,
}

impl FsRecord {
    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_BYTES);
        out.push(if self.key_dir == ROOT { KEYS_IN_ROOT } else { KEYS_ELSEWHERE });
        push::<6>(&mut out, self.next_ino.0);
        push::<8>(&mut out, self.nodes);
        push::<2>(&mut out, self.key_perm.into());
        push::<4>(&mut out, self.key_uid.into());
        push::<4>(&mut out, self.key_gid.into());
        if self.key_dir != ROOT {
            push::<6>(&mut out, self.key_dir.0);
        }
        out
    }

    /// Reads a record. `None`: these bytes are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<FsRecord> {
        let mut fields = Fields(bytes);
        let version = fields.u8().filter(|version| [KEYS_IN_ROOT, KEYS_ELSEWHERE].contains(version))?;
        let next_ino = fields.number::<6>().filter(|number| (2..=INO_MAX).contains(number))?;
        let record = FsRecord {
            next_ino: Ino(next_ino),
            nodes: fields.number::<8>()?,
            key_perm: fields.u16().filter(|perm| *perm <= 0o7777)?,
            key_uid: fields.u32()?,
            key_gid: fields.u32()?,
            key_dir: match version {
                KEYS_IN_ROOT => ROOT,
                _ => Ino(fields.number::<6>().filter(|number| (2..next_ino).contains(number))?),
            },
        };
        fields.end().map(|()| record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let record =
            FsRecord { next_ino: Ino(0x0102), nodes: 3, key_perm: 0o644, key_uid: 4, key_gid: 5, key_dir: ROOT };
        let golden = [1, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0x01, 0xa4, 0, 0, 0, 4, 0, 0, 0, 5];
        assert_eq!(record.encode(), golden);
        assert_eq!(FsRecord::decode(&golden), Some(record));
        assert_eq!(FsRecord::decode(&golden[..24]), None);
        assert_eq!(FsRecord::decode(&[&golden[..], &[0]].concat()), None);
        assert_eq!(FsRecord::decode(&[3; 25]), None);
        let record = FsRecord { key_dir: Ino(0x0101), ..record };
        let golden = [&[2], &golden[1..], &[0, 0, 0, 0, 1, 1]].concat();
        assert_eq!(record.encode(), golden);
        assert_eq!(FsRecord::decode(&golden), Some(record));
        assert_eq!(FsRecord::decode(&golden[..25]), None);
        // The root, which version 1 says, and numbers that were not given out.
        for number in [0_u16, 1, 0x0102] {
            assert_eq!(FsRecord::decode(&[&golden[..29], &number.to_be_bytes()].concat()), None, "{number}");
        }
    }
}

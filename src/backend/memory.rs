//! A disk in memory, for tests and for measuring what the layers above cost without one.

use super::Disk;
use parking_lot::RwLock;
use std::io;

/// Bytes in memory; nothing survives the process.
#[derive(Default)]
pub struct MemoryDisk {
    bytes: RwLock<Vec<u8>>,
}

impl MemoryDisk {
    /// A disk that holds these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> MemoryDisk {
        MemoryDisk { bytes: RwLock::new(bytes) }
    }

    /// A copy of everything on the disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.read().clone()
    }
}

impl Disk for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.read().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.read();
        let source = usize::try_from(offset).ok().and_then(|start| bytes.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, source: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.write();
        let (start, end) = (offset as usize, offset as usize + source.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(source);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write();
        let end = (offset + length) as usize;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write();
        let end = bytes.len().min((offset + length) as usize);
        let start = end.min(offset as usize);
        bytes[start..end].fill(0);
        Ok(())
    }
}

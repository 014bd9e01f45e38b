//! A disk in memory, for tests and for measuring what the layers above cost without one.

use super::Disk;
use parking_lot::RwLock;
use std::io;

/// Bytes in memory; nothing survives the process.
pub struct MemoryDisk {
    state: RwLock<State>,
}

struct State {
    bytes: Vec<u8>,
    /// Which blocks have space of their own, as in a file with holes; one per block of `bytes`.
    occupied: Vec<bool>,
    occupied_count: u64,
    capacity_bytes: u64,
}

/// Space is found and given back in blocks of this size, as in a file.
const BLOCK_BYTES: u64 = 4096;
/// Never full, and far from overflowing where it is added to.
const CAPACITY_BYTES_UNBOUNDED: u64 = u64::MAX / 4;

impl Default for MemoryDisk {
    fn default() -> MemoryDisk {
        MemoryDisk::from_bytes(Vec::new())
    }
}

impl MemoryDisk {
    /// A disk that holds these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> MemoryDisk {
        let blocks = (bytes.len() as u64).div_ceil(BLOCK_BYTES);
        let state = State {
            bytes,
            occupied: vec![true; blocks as usize],
            occupied_count: blocks,
            capacity_bytes: CAPACITY_BYTES_UNBOUNDED,
        };
        MemoryDisk { state: RwLock::new(state) }
    }

    /// A copy of everything on the disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.state.read().bytes.clone()
    }

    /// From now on the disk is full when it occupies this many bytes. What is there stays, even if
    /// it is more.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.write().capacity_bytes = bytes;
    }

    /// Bytes of blocks that were written or allocated and not punched since.
    pub fn occupied_bytes(&self) -> u64 {
        self.state.read().occupied_count * BLOCK_BYTES
    }
}

impl State {
    fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.occupied_count * BLOCK_BYTES)
    }

    /// Finds space for the range and grows to its end, or changes nothing.
    fn occupy(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).ok_or(io::ErrorKind::StorageFull)?;
        if length == 0 {
            return Ok(());
        }
        let (first, past) = (offset / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
        let there = (first..past).filter(|block| self.occupied.get(*block as usize) == Some(&true)).count() as u64;
        let wanted = past - first - there;
        if wanted * BLOCK_BYTES > self.free_bytes() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.occupied.len() < past as usize {
            self.occupied.resize(past as usize, false);
        }
        self.occupied[first as usize..past as usize].fill(true);
        self.occupied_count += wanted;
        if self.bytes.len() < end as usize {
            self.bytes.resize(end as usize, 0);
        }
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.read().bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.state.read();
        let source =
            usize::try_from(offset).ok().and_then(|start| state.bytes.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn reread(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, offset: u64, source: &[u8]) -> io::Result<()> {
        let mut state = self.state.write();
        state.occupy(offset, source.len() as u64)?;
        if !source.is_empty() {
            state.bytes[offset as usize..offset as usize + source.len()].copy_from_slice(source);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.state.write().occupy(offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut state = self.state.write();
        let end = (state.bytes.len() as u64).min(offset.saturating_add(length));
        let start = end.min(offset);
        state.bytes[start as usize..end as usize].fill(0);
        // Only whole blocks give their space back; the disk's last one is whole at its end.
        let past = if end == state.bytes.len() as u64 { end.div_ceil(BLOCK_BYTES) } else { end / BLOCK_BYTES };
        for block in start.div_ceil(BLOCK_BYTES)..past {
            let was = std::mem::replace(&mut state.occupied[block as usize], false);
            state.occupied_count -= u64::from(was);
        }
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(self.state.read().free_bytes())
    }
}

//! A disk below a cache that outlives processes, as a kernel's page cache does: what could not be flushed can be read
//! on, and is flushed no more.

use kivafs::backend::{Disk, MemoryDisk};
use parking_lot::Mutex;
use std::io;
use std::ops::Range;

/// What processes see, and what a power cut leaves.
pub struct ForgetfulDisk {
    seen: MemoryDisk,
    state: Mutex<State>,
}

struct State {
    durable: Vec<u8>,
    unflushed: Vec<Range<usize>>,
    next_sync_fails: bool,
}

impl ForgetfulDisk {
    pub fn new(bytes: Vec<u8>) -> ForgetfulDisk {
        let seen = MemoryDisk::from_bytes(bytes.clone());
        ForgetfulDisk {
            seen,
            state: Mutex::new(State { durable: bytes, unflushed: Vec::new(), next_sync_fails: false }),
        }
    }

    /// The next sync fails once.
    pub fn fail_next_sync(&self) {
        self.state.lock().next_sync_fails = true;
    }

    /// What a power cut now leaves.
    pub fn durable(&self) -> Vec<u8> {
        self.state.lock().durable.clone()
    }

    fn changed(&self, offset: u64, length: u64) {
        self.state.lock().unflushed.push(offset as usize..(offset + length) as usize);
    }
}

impl Disk for ForgetfulDisk {
    fn len(&self) -> io::Result<u64> {
        self.seen.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.seen.read_at(offset, buffer)
    }

    fn reread(&self, offset: u64, length: u64) -> io::Result<()> {
        let state = self.state.lock();
        assert!(state.unflushed.is_empty(), "dirty pages cannot be dropped");
        let end = state.durable.len().min((offset + length) as usize);
        self.seen.write_at(offset, state.durable.get(offset as usize..end).unwrap_or(&[]))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.changed(offset, bytes.len() as u64);
        self.seen.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let unflushed = std::mem::take(&mut state.unflushed);
        if std::mem::take(&mut state.next_sync_fails) {
            return Err(io::Error::other("no luck"));
        }
        let seen = self.seen.to_bytes();
        state.durable.resize(seen.len(), 0);
        for range in unflushed {
            let range = range.start.min(seen.len())..range.end.min(seen.len());
            state.durable[range.clone()].copy_from_slice(&seen[range]);
        }
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.seen.allocate(offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.changed(offset, length);
        self.seen.punch(offset, length)
    }

    fn free_space(&self) -> io::Result<u64> {
        self.seen.free_space()
    }
}

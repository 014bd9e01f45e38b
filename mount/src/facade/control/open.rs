//! What is open, and what it tells.

use bytes::Bytes;
use fuser::{Errno, FileHandle};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Most that are open at once.
pub const OPEN_MAX: usize = 64;

/// What each open file tells, by its handle.
#[derive(Default)]
pub struct Open {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    told: HashMap<u64, Bytes>,
    next: u64,
}

impl Open {
    /// A file that tells this.
    pub fn add(&self, told: Bytes) -> Result<FileHandle, Errno> {
        let mut state = self.state.lock();
        if state.told.len() >= OPEN_MAX {
            return Err(Errno::ENFILE);
        }
        state.next += 1;
        let number = state.next;
        state.told.insert(number, told);
        Ok(FileHandle(number))
    }

    /// So much of it from there on; nothing beyond its end.
    pub fn read(&self, handle: FileHandle, offset: u64, size: u32) -> Bytes {
        let state = self.state.lock();
        let Some(told) = state.told.get(&handle.0) else { return Bytes::new() };
        let from = told.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let to = told.len().min(from.saturating_add(size as usize));
        told.slice(from..to)
    }

    /// It is closed.
    pub fn remove(&self, handle: FileHandle) {
        self.state.lock().told.remove(&handle.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_tells_the_same_until_it_is_closed_however_it_is_read() {
        let open = Open::default();
        let first = open.add(Bytes::from_static(b"first")).ok().unwrap();
        let second = open.add(Bytes::from_static(b"second")).ok().unwrap();
        assert_eq!([open.read(first, 0, 2), open.read(first, 2, 100), open.read(second, 5, 1)], ["fi", "rst", "d"]);
        for offset in [5, 6, u64::MAX] {
            assert!(open.read(first, offset, u32::MAX).is_empty());
        }
        open.remove(first);
        assert!(open.read(first, 0, 2).is_empty());
        (1..OPEN_MAX).for_each(|_| _ = open.add(Bytes::new()).ok().unwrap());
        assert!(open.add(Bytes::new()).is_err());
        open.remove(second);
        assert!(open.add(Bytes::new()).is_ok());
    }
}

//! A disk that falls silent: whoever calls it waits.

use kivafs::backend::Disk;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;

/// Which calls are not answered. Space is found all the same: that is no matter of storage far away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    pub reads: bool,
    /// Writes and flushes.
    pub changes: bool,
}

impl Silence {
    pub const NONE: Silence = Silence { reads: false, changes: false };
    pub const READS: Silence = Silence { reads: true, changes: false };
    pub const CHANGES: Silence = Silence { reads: false, changes: true };
    pub const ALL: Silence = Silence { reads: true, changes: true };
}

/// Passes calls on to the disk below, as long as it is not silent.
pub struct SilentDisk {
    below: Arc<dyn Disk>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    silence: Silence,
    /// Calls that wait.
    waiting: usize,
    /// Reads so far.
    reads: usize,
}

impl SilentDisk {
    pub fn new(below: Arc<dyn Disk>) -> SilentDisk {
        SilentDisk { below, state: Mutex::default(), changed: Condvar::new() }
    }

    pub fn fall(&self, silence: Silence) {
        self.state.lock().silence = silence;
        self.changed.notify_all();
    }

    /// Returns when so many calls wait for an answer.
    pub fn until_waiting(&self, calls: usize) {
        self.changed.wait_while(&mut self.state.lock(), |state| state.waiting < calls);
    }

    /// How many calls wait for an answer.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// How many reads there were so far.
    pub fn reads(&self) -> usize {
        self.state.lock().reads
    }

    fn wait(&self, is_silent: impl Fn(Silence) -> bool) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| is_silent(state.silence));
        state.waiting -= 1;
    }
}

impl Disk for SilentDisk {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.wait(|silence| silence.reads);
        self.state.lock().reads += 1;
        self.below.read_at(offset, buffer)
    }

    fn reread(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.reread(offset, length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.wait(|silence| silence.changes);
        self.below.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.wait(|silence| silence.changes);
        self.below.sync()
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.allocate(offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.wait(|silence| silence.changes);
        self.below.punch(offset, length)
    }

    fn free_space(&self) -> io::Result<u64> {
        self.below.free_space()
    }
}

//! A disk that falls silent: whoever calls it waits.

use kivafs::backend::Disk;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;

/// Which calls are not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// None.
    #[default]
    None,
    /// Writes and flushes are not.
    Changes,
    /// Nor are reads. (Space is found all the same: that is no matter of storage far away.)
    Everything,
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
    /// Reads that were answered.
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

    /// How many reads were answered so far.
    pub fn reads(&self) -> usize {
        self.state.lock().reads
    }

    fn wait(&self, heard_in: Silence) {
        let mut state = self.state.lock();
        let is_silent = |state: &State| match state.silence {
            Silence::None => false,
            Silence::Changes => heard_in == Silence::None,
            Silence::Everything => true,
        };
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| is_silent(state));
        state.waiting -= 1;
        state.reads += usize::from(heard_in == Silence::Changes);
    }
}

impl Disk for SilentDisk {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.wait(Silence::Changes);
        self.below.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.wait(Silence::None);
        self.below.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.wait(Silence::None);
        self.below.sync()
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.allocate(offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.wait(Silence::None);
        self.below.punch(offset, length)
    }

    fn free_space(&self) -> io::Result<u64> {
        self.below.free_space()
    }
}

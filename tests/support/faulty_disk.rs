//! Calls that fail.

use kivafs::backend::Disk;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// The kinds of calls that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    Read,
    Write,
    Sync,
    Allocate,
    Punch,
}

/// What happens after the call that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Everything works again.
    Recovers,
    /// Nothing but reading works.
    ReadsOnly,
}

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: CallKind,
    /// The how many-th call of that kind, from now on; the first is 1.
    pub nth: usize,
    pub errno: i32,
    pub then: Then,
}

/// Passes calls on to the disk below, but for one [`Fault`].
pub struct FaultyDisk {
    below: Arc<dyn Disk>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    calls: usize,
    happened: bool,
    syncs_after_failure: usize,
    sync_failed: bool,
}

impl FaultyDisk {
    pub fn new(below: Arc<dyn Disk>) -> FaultyDisk {
        FaultyDisk { below, state: Mutex::default() }
    }

    /// Arms a fault; counting begins now.
    pub fn arm(&self, fault: Fault) {
        *self.state.lock() = State { fault: Some(fault), ..State::default() };
    }

    /// Whether the armed fault has happened.
    pub fn happened(&self) -> bool {
        self.state.lock().happened
    }

    /// How often somebody tried to sync again after a sync had failed (R4: never).
    pub fn syncs_after_failure(&self) -> usize {
        self.state.lock().syncs_after_failure
    }

    fn meet(&self, kind: CallKind) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(fault) = state.fault else { return Ok(()) };
        if kind == CallKind::Sync && state.sync_failed {
            state.syncs_after_failure += 1;
        }
        let fails = if state.happened {
            fault.then == Then::ReadsOnly && kind != CallKind::Read
        } else if kind == fault.kind {
            state.calls += 1;
            state.calls == fault.nth
        } else {
            false
        };
        if !fails {
            return Ok(());
        }
        state.happened = true;
        state.sync_failed |= kind == CallKind::Sync;
        Err(io::Error::from_raw_os_error(fault.errno))
    }
}

impl Disk for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.meet(CallKind::Read)?;
        self.below.read_at(offset, buffer)
    }

    fn reread(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.reread(offset, length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let met = self.meet(CallKind::Write);
        if met.is_err() {
            // A write that fails leaves its range unknown: here, half written.
            self.below.write_at(offset, &bytes[..bytes.len() / 2])?;
        }
        met?;
        self.below.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.meet(CallKind::Sync)?;
        self.below.sync()
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.meet(CallKind::Allocate)?;
        self.below.allocate(offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.meet(CallKind::Punch)?;
        self.below.punch(offset, length)
    }

    fn free_space(&self) -> io::Result<u64> {
        self.below.free_space()
    }
}

//! SIGTERM, SIGINT and SIGHUP, as something to wait for.

use crate::life::LifeError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The signals, which are blocked in this thread and in all that it starts.
pub struct Signals {
    descriptor: SignalFd,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody wants this process to end.
    Stop,
    /// One of the other descriptors is readable.
    Other,
    /// Nothing happened.
    TimeOut,
}

impl Signals {
    /// Blocks them. To be called before the first thread is started: a thread that does not block
    /// them would die of them, and the process with it.
    pub fn block() -> Result<Signals, LifeError> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().map_err(|errno| LifeError::system("cannot block signals", errno))?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|errno| LifeError::system("signalfd", errno))?;
        Ok(Signals { descriptor })
    }

    /// Waits for a signal, for one of `others` to become readable, or for `time` to pass.
    pub fn wait(&self, others: &[BorrowedFd<'_>], time: Option<Duration>) -> Result<Wake, LifeError> {
        let timeout = match time {
            None => PollTimeout::NONE,
            Some(time) => PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX),
        };
        let mut descriptors = vec![PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(others.iter().map(|other| PollFd::new(*other, PollFlags::POLLIN)));
        match poll(&mut descriptors, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(Wake::TimeOut),
            Ok(_) => {}
            Err(errno) => return Err(LifeError::system("poll", errno)),
        }
        match self.descriptor.read_signal() {
            Ok(Some(_)) => Ok(Wake::Stop),
            Ok(None) => Ok(Wake::Other),
            Err(errno) => Err(LifeError::system("signalfd", errno)),
        }
    }
}

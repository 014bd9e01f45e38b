//! Closing a store, watched: what is left to do may take as long as storage stays away.

use crate::life::place::Place;
use crate::life::progress::Progress;
use crate::life::shown;
use kivafs::store::{Store, StoreError};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often to look how far it is.
pub const BEAT: Duration = Duration::from_millis(200);

/// Tells when somebody has let go of the other end: a thread that ends, say.
pub struct End(UnixStream);

impl End {
    /// This end, and the other one.
    pub fn pair() -> std::io::Result<(End, UnixStream)> {
        let (ours, its) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((End(ours), its))
    }

    /// Has it happened?
    pub fn is_over(&self) -> bool {
        matches!((&self.0).read(&mut [0]), Ok(0))
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What is still to be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Bytes to go.
    pub bytes: u64,
    /// For how long there was no progress.
    pub silent: Duration,
}

impl Backlog {
    /// `12.0 MiB to go, no answer for 30 s`
    pub fn shown(&self) -> String {
        let bytes = shown::bytes(self.bytes);
        match self.silent.as_secs() {
            0..2 => format!("{bytes} to go"),
            _ => format!("{bytes} to go, no answer for {}", shown::time_span(self.silent)),
        }
    }
}

/// A store that is being closed by a thread of its own.
pub struct Drain {
    store: Arc<Store>,
    end: End,
    thread: JoinHandle<Result<(), StoreError>>,
    bytes: u64,
    moved: Instant,
}

impl Drain {
    /// Does `first`, then closes the store.
    pub fn start(store: Arc<Store>, first: impl FnOnce() + Send + 'static) -> std::io::Result<Drain> {
        let (end, its) = End::pair()?;
        let closing = store.clone();
        let thread = std::thread::Builder::new().name("close".into()).spawn(move || {
            first();
            let closed = closing.close();
            drop(its);
            closed
        })?;
        Ok(Drain { bytes: store.unstored_bytes(), store, end, thread, moved: Instant::now() })
    }

    /// How far it is.
    pub fn backlog(&mut self) -> Backlog {
        let bytes = self.store.unstored_bytes();
        if bytes != self.bytes {
            (self.bytes, self.moved) = (bytes, Instant::now());
        }
        Backlog { bytes, silent: self.moved.elapsed() }
    }

    /// Is it closed?
    pub fn is_over(&self) -> bool {
        self.end.is_over()
    }

    /// Has it end at once: what is not durable now is lost.
    pub fn give_up(&self) {
        self.store.abandon();
    }

    /// Waits until it is closed. Ok: everything is durable.
    pub fn join(self) -> Result<(), StoreError> {
        self.thread.join().expect("a panic ends the process, not a thread")
    }
}

impl AsFd for Drain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// Closes a store that no mount shows, with progress on a terminal. Ok: everything is durable. Gives
/// up when storage that may be away has not answered for `timeout`.
pub fn close(place: &Place, store: Arc<Store>, timeout: Duration) -> Result<(), StoreError> {
    let Ok(mut drain) = Drain::start(store.clone(), || {}) else {
        // The system gives no more threads.
        return store.close();
    };
    let mut progress = Progress::start();
    let mut given_up = false;
    let mut pause = Duration::from_millis(1);
    while !drain.is_over() {
        std::thread::sleep(pause);
        pause = (pause * 2).min(BEAT);
        let backlog = drain.backlog();
        progress.tick(&format!("{place}: making everything durable: {}", backlog.shown()));
        if !given_up && place.may_be_away() && backlog.silent >= timeout {
            drain.give_up();
            given_up = true;
        }
    }
    drain.join()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_it_lasts() {
        let backlog = |seconds| Backlog { bytes: 12 << 20, silent: Duration::from_secs(seconds) }.shown();
        assert_eq!(backlog(1), "12.0 MiB to go");
        assert_eq!(backlog(30), "12.0 MiB to go, no answer for 30 s");
        assert_eq!(backlog(300), "12.0 MiB to go, no answer for 5 min");
    }

    #[test]
    fn an_end_is_over_when_the_other_one_is_gone() {
        let (end, its) = End::pair().unwrap();
        assert!(!end.is_over());
        drop(its);
        assert!(end.is_over() && end.is_over());
    }
}

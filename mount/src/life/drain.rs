//! Closing a store, watched: what is left to do may take as long as storage stays away.

use crate::life::place::Place;
use crate::life::progress::Progress;
use crate::life::supervisor::Supervisor;
use crate::shown;
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
        let to_go = match self.bytes {
            0 => "the last answer is yet to come".to_string(),
            count => format!("{} to go", shown::bytes(count)),
        };
        match self.silent.as_secs() {
            0..2 => to_go,
            _ => format!("{to_go}, no answer for {}", shown::time_span(self.silent)),
        }
    }
}

/// What whoever still waits for storage is told then.
pub const GIVEN_UP: &str = "it was given up: storage does not answer";

/// How long a store that was given up may take to end.
const GIVEN_UP_MAX: Duration = Duration::from_secs(1);

/// A store that is being closed by a thread of its own.
pub struct Drain {
    store: Arc<Store>,
    end: End,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
    bytes: u64,
    moved: Instant,
    given_up: Option<Instant>,
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
        let bytes = store.unstored_bytes();
        Ok(Drain { store, end, thread: Some(thread), bytes, moved: Instant::now(), given_up: None })
    }

    /// How far it is.
    pub fn backlog(&mut self) -> Backlog {
        let bytes = self.store.unstored_bytes();
        if bytes != self.bytes {
            (self.bytes, self.moved) = (bytes, Instant::now());
        }
        Backlog { bytes, silent: self.moved.elapsed() }
    }

    /// The outcome, once there is one; Ok: everything is durable. Storage that has been silent for
    /// `silence_max` is given up: what is not durable by then may be lost. After that, whoever still waits
    /// for storage is left behind, to end with the process.
    pub fn outcome(&mut self, silence_max: Option<Duration>) -> Option<Result<(), StoreError>> {
        if self.end.is_over() {
            let thread = self.thread.take().expect("there is one outcome");
            return Some(thread.join().expect("a panic ends the process, not a thread"));
        }
        let backlog = self.backlog();
        match (self.given_up, silence_max) {
            (Some(since), _) if since.elapsed() >= GIVEN_UP_MAX => {
                return Some(Err(StoreError::Poisoned(GIVEN_UP.into())));
            }
            (None, Some(silence_max)) if backlog.silent >= silence_max => {
                tracing::warn!("storage does not answer and is given up: {}", backlog.shown());
                self.store.abandon(GIVEN_UP);
                self.given_up = Some(Instant::now());
            }
            _ => {}
        }
        None
    }
}

impl AsFd for Drain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// Closes a store that no mount shows, with progress on a terminal. Ok: everything is durable. Gives
/// up when storage that may be away has not answered for `timeout`.
pub fn close(
    place: &Place,
    store: Arc<Store>,
    timeout: Duration,
    supervisor: &mut Supervisor,
) -> Result<(), StoreError> {
    let Ok(mut drain) = Drain::start(store.clone(), || {}) else {
        // The system gives no more threads.
        return store.close();
    };
    let silence_max = place.may_be_away().then_some(timeout);
    let mut progress = Progress::start();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(outcome) = drain.outcome(silence_max) {
            return outcome;
        }
        let backlog = drain.backlog();
        supervisor.draining(backlog);
        progress.tick(&format!("{place}: making everything durable: {}", backlog.shown()));
        std::thread::sleep(pause);
        pause = (pause * 2).min(BEAT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_it_lasts() {
        let backlog = |bytes, seconds| Backlog { bytes, silent: Duration::from_secs(seconds) }.shown();
        assert_eq!(backlog(12 << 20, 1), "12.0 MiB to go");
        assert_eq!(backlog(12 << 20, 30), "12.0 MiB to go, no answer for 30 s");
        assert_eq!(backlog(0, 1), "the last answer is yet to come");
        assert_eq!(backlog(0, 300), "the last answer is yet to come, no answer for 5 min");
    }

    #[test]
    fn an_end_is_over_when_the_other_one_is_gone() {
        let (end, its) = End::pair().unwrap();
        assert!(!end.is_over());
        drop(its);
        assert!(end.is_over() && end.is_over());
    }
}

//! What ends a test that would wait for ever.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Ends the test process, and with it a wait that nothing else can end, if a step takes too long.
pub struct Watchdog {
    /// Its end is what the thread waits for.
    _step: Sender<()>,
}

impl Watchdog {
    pub fn new(what: String, limit: Duration) -> Watchdog {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}: not done after {limit:?}; giving up");
                std::process::abort();
            }
        });
        Watchdog { _step: sender }
    }
}

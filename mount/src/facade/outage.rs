//! Tells people when storage has not answered for too long, and when it answers again: once each,
//! not once a request.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One thing that storage is asked for, and whether it answers.
pub struct Outage {
    /// Reading or writing: one may be possible without the other.
    what: &'static str,
    /// What nobody can know meanwhile.
    doubt: &'static str,
    timeout: Duration,
    is_on: AtomicBool,
    state: Mutex<Option<Silence>>,
}

struct Silence {
    since: Instant,
    /// Requests that ended without an answer.
    refused: u64,
}

impl Outage {
    /// Storage that is read from. `timeout`: how long a request waits.
    pub fn of_reads(timeout: Duration) -> Outage {
        Outage::new("reading from storage", "", timeout)
    }

    /// Storage that is written to.
    pub fn of_writes(timeout: Duration) -> Outage {
        Outage::new("writing to storage", ", and whether what was to be synced becomes durable is not known", timeout)
    }

    fn new(what: &'static str, doubt: &'static str, timeout: Duration) -> Outage {
        Outage { what, doubt, timeout, is_on: AtomicBool::new(false), state: Mutex::new(None) }
    }

    /// A request has waited for too long.
    pub fn too_late(&self) {
        let mut state = self.state.lock();
        if state.is_none() {
            let seconds = self.timeout.as_secs_f64();
            let Outage { what, doubt, .. } = self;
            tracing::error!(
                "{what}: no answer for {seconds} s: what needs one ends with an error until there is one{doubt}"
            );
            self.is_on.store(true, Ordering::Relaxed);
        }
        let now = Instant::now();
        let since = now.checked_sub(self.timeout).unwrap_or(now);
        state.get_or_insert(Silence { since, refused: 0 }).refused += 1;
    }

    /// There was an answer, of whatever kind.
    pub fn answered(&self) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        if let Some(Silence { since, refused }) = self.state.lock().take() {
            self.is_on.store(false, Ordering::Relaxed);
            let seconds = since.elapsed().as_secs();
            tracing::info!(
                "{}: answered again after {seconds} s; {refused} requests had ended with an error",
                self.what
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_its_end_once() {
        let outage = Outage::of_writes(Duration::from_secs(300));
        let refused = || outage.state.lock().as_ref().map(|silence| silence.refused);
        outage.answered();
        assert_eq!(refused(), None);
        outage.too_late();
        outage.too_late();
        assert_eq!(refused(), Some(2));
        assert!(outage.state.lock().as_ref().unwrap().since.elapsed() >= Duration::from_secs(300));
        outage.answered();
        outage.answered();
        assert_eq!(refused(), None);
        outage.too_late();
        assert_eq!(refused(), Some(1));
    }
}

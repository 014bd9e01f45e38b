//! Changes of which those who keep copies have not been told yet.
//!
//! A change can be read as soon as it is made. But who has read it may then look at a copy, and must not
//! find there what was before: so nothing that shows a change is answered before everybody was told of
//! it. Each change has a number from before it is made until all are told; what shows a state waits for
//! all numbers that were given out before it looked.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Notify;

/// The changes of one server.
#[derive(Default)]
pub struct Untold {
    numbers: Mutex<Numbers>,
    /// A number was given back.
    told: Notify,
}

#[derive(Default)]
struct Numbers {
    next: u64,
    out: BTreeSet<u64>,
}

/// A change of which not all are told. Dropped when they are, or when there is nothing to tell.
pub struct Ticket {
    of: Arc<Untold>,
    number: u64,
}

impl Untold {
    /// To be called before a change can be seen.
    pub fn begin(self: &Arc<Untold>) -> Ticket {
        let mut numbers = self.numbers.lock();
        let number = numbers.next;
        numbers.next += 1;
        numbers.out.insert(number);
        Ticket { of: self.clone(), number }
    }

    /// What to wait for with what was just seen.
    pub fn now(&self) -> u64 {
        self.numbers.lock().next
    }

    /// Whether all are told of what could be seen then.
    pub fn is_told(&self, then: u64) -> bool {
        self.numbers.lock().out.first().is_none_or(|oldest| *oldest >= then)
    }

    /// Waits for that.
    pub async fn wait(&self, then: u64) {
        loop {
            let told = self.told.notified();
            if self.is_told(then) {
                return;
            }
            told.await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.of.numbers.lock().out.remove(&self.number);
        self.of.told.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_waits_for_those_before_it_and_for_no_others() {
        let untold = Arc::new(Untold::default());
        let before = untold.now();
        let (first, second) = (untold.begin(), untold.begin());
        assert!(untold.is_told(before));
        let seen = untold.now();
        let third = untold.begin();
        drop(first);
        assert!(!untold.is_told(seen));
        drop(second);
        assert!(untold.is_told(seen) && !untold.is_told(untold.now()));
        drop(third);
        assert!(untold.is_told(untold.now()));
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let untold = Arc::new(Untold::default());
        let ticket = untold.begin();
        let seen = untold.now();
        let waiting = tokio::spawn({
            let untold = untold.clone();
            async move { untold.wait(seen).await }
        });
        tokio::task::yield_now().await;
        drop(ticket);
        waiting.await.unwrap();
    }
}

//! Requests carried out by other threads, in any order.

use super::super::random::Random;
use super::way::{Request, Shared};
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Threads that carry out requests. They end when this is dropped, having done what was queued.
pub(super) struct Pool {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

struct QueueState {
    requests: Vec<Request>,
    random: Random,
    has_ended: bool,
}

impl Pool {
    /// `latency`: how long the server takes for each.
    pub fn start(shared: &Arc<Shared>, threads: usize, latency: Duration, seed: u64) -> Pool {
        let state = QueueState { requests: Vec::new(), random: Random::new(seed), has_ended: false };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new() });
        for _ in 0..threads {
            let (queue, shared) = (queue.clone(), Arc::downgrade(shared));
            let work = move || queue.work(&shared, latency);
            // The name ends the process with an assertion that fails in it.
            std::thread::Builder::new().name("kivafs-bucket".into()).spawn(work).expect("a thread");
        }
        Pool { queue }
    }

    pub fn push(&self, request: Request) {
        self.queue.state.lock().requests.push(request);
        self.queue.changed.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.state.lock().has_ended = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn work(&self, shared: &Weak<Shared>, latency: Duration) {
        while let Some(request) = self.next() {
            if !latency.is_zero() {
                std::thread::sleep(latency);
            }
            // Nobody is left who could ask.
            let Some(shared) = shared.upgrade() else { return };
            shared.finish(request);
        }
    }

    fn next(&self) -> Option<Request> {
        let mut state = self.state.lock();
        loop {
            if !state.requests.is_empty() {
                let count = state.requests.len();
                let chosen = state.random.within(0..count);
                return Some(state.requests.swap_remove(chosen));
            }
            if state.has_ended {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }
}

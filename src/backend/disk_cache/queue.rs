//! What waits to be stored: bounded, and never waited for by those who put.

use super::Key;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of values that wait, at most, so long as there is more than one.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Values that wait, at most: each costs more than its bytes.
const QUEUE_VALUES_MAX: usize = 16 << 10;
/// Bytes that the writer takes in one go.
const TAKE_BYTES: usize = 1 << 20;

/// The queue between those who put and the one thread that writes.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    /// The writer waits here for work,
    wake: Condvar,
    /// and others for the writer.
    settled: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    values: VecDeque<(Key, Bytes)>,
    /// Of the values that wait or are being written.
    bytes: usize,
    /// Values that were put so far, and those of them that the writer is done with.
    accepted: u64,
    done: u64,
    /// What earlier runs left has been found.
    is_loaded: bool,
    /// How often the writer was asked to look after its files, and up to which of these it has.
    looks_wanted: u64,
    looks_done: u64,
    /// The writer has returned.
    has_ended: bool,
}

/// What the writer is to do next.
pub struct Work {
    pub values: Vec<(Key, Bytes)>,
    /// To look whether the files are still there, for so many who asked.
    pub looks: u64,
}

impl Queue {
    /// Adds a value, if there is room for it.
    pub fn put(&self, key: Key, value: Bytes) -> bool {
        let mut state = self.state.lock();
        let is_full = state.bytes + value.len() > QUEUE_BYTES_MAX || state.values.len() >= QUEUE_VALUES_MAX;
        if is_full || state.has_ended {
            return false;
        }
        state.bytes += value.len();
        state.accepted += 1;
        state.values.push_back((key, value));
        if state.values.len() == 1 {
            self.wake.notify_one();
        }
        true
    }

    /// Waits until the writer is done with everything put so far, has found everything that
    /// earlier runs left, and has looked after its files.
    pub fn flush(&self) {
        let mut state = self.state.lock();
        state.looks_wanted += 1;
        let (values, looks) = (state.accepted, state.looks_wanted);
        self.wake.notify_one();
        while !state.has_ended && (state.done < values || !state.is_loaded || state.looks_done < looks) {
            self.settled.wait(&mut state);
        }
    }

    /// Has the writer return soon, and waits until it has; not longer than `patience`. Returns
    /// whether it has.
    pub fn stop(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
        while !state.has_ended && !self.settled.wait_until(&mut state, until).timed_out() {}
        state.has_ended
    }

    /// For the writer: whether it is to return soon.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// For the writer: waits for work, not longer than `patience`. [`Queue::done`] follows.
    pub fn take(&self, patience: Duration) -> Work {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        while state.values.is_empty() && state.looks_done == state.looks_wanted && !self.is_stopped() {
            if self.wake.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let (mut values, mut bytes) = (Vec::new(), 0);
        while bytes < TAKE_BYTES
            && let Some((key, value)) = state.values.pop_front()
        {
            bytes += value.len();
            values.push((key, value));
        }
        Work { values, looks: state.looks_wanted - state.looks_done }
    }

    /// For the writer: it is done with this much of its work.
    pub fn done(&self, values: usize, bytes: usize, looks: u64, is_loaded: bool) {
        let mut state = self.state.lock();
        state.bytes -= bytes;
        state.done += values as u64;
        state.looks_done += looks;
        state.is_loaded = is_loaded;
        self.settled.notify_all();
    }

    /// For the writer: it returns.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        state.values.clear();
        self.settled.notify_all();
    }
}

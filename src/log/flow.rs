//! How much was accepted and is not stored yet, and when to stop accepting.
//!
//! An fsync beside a big copy waits until all of it is stored, and memory stays bounded (C6). A disk is kept
//! busy by [`DISK_LIMIT`]. Of a bucket's, in-flight bytes may grow to what it took during the last half second,
//! within bounds; if it takes as much as the limit in less time than that, to twice as much at once: a bucket a
//! round trip away is as quick as what is under way to it.

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// In-flight bytes of a disk. (With 64 MiB nothing was written faster, and an fsync took 90 ms instead of 20
/// beside a copy at 1 GiB/s. With 2 MiB, also of what is written and not flushed, it took 12, and the copy
/// twice as long.)
const DISK_LIMIT: u64 = 8 << 20;
/// Of a bucket's, so many are always allowed,
const BUCKET_LIMIT_MIN: u64 = 8 << 20;
/// and never more.
const BUCKET_LIMIT_MAX: u64 = 64 << 20;
const WINDOW: Duration = Duration::from_millis(500);

/// The gauge.
pub struct Flow {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    in_flight: u64,
    limit: u64,
    /// What the limit may become.
    limit_max: u64,
    stored: u64,
    since: Instant,
    ended: bool,
}

impl State {
    fn has_room(&self) -> bool {
        self.in_flight < self.limit || self.ended
    }

    /// So many more bytes were stored, so long after the limit was set. Whether it is set anew.
    fn adapt(&mut self, bytes: u64, elapsed: Duration) -> bool {
        self.stored += bytes;
        let limit = if elapsed >= WINDOW {
            self.stored as f64 / elapsed.as_secs_f64() * WINDOW.as_secs_f64()
        } else if self.stored >= self.limit {
            2.0 * self.limit as f64
        } else {
            return false;
        };
        self.limit = (limit as u64).clamp(BUCKET_LIMIT_MIN, self.limit_max);
        self.stored = 0;
        true
    }
}

impl State {
    fn new(limit: u64, limit_max: u64) -> State {
        State { in_flight: 0, limit, limit_max, stored: 0, since: Instant::now(), ended: false }
    }
}

impl Flow {
    /// To a disk.
    pub fn to_disk() -> Flow {
        Flow { state: Mutex::new(State::new(DISK_LIMIT, DISK_LIMIT)), changed: Condvar::new() }
    }

    /// To a bucket.
    pub fn to_bucket() -> Flow {
        Flow { state: Mutex::new(State::new(BUCKET_LIMIT_MIN, BUCKET_LIMIT_MAX)), changed: Condvar::new() }
    }

    /// Bytes were accepted.
    pub fn accept(&self, bytes: u64) {
        self.state.lock().in_flight += bytes;
    }

    /// Accepted bytes need not be stored any more, or are on their way under another count.
    pub fn drop(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.checked_sub(bytes).expect("no more is dropped than was accepted");
        self.changed.notify_all();
    }

    /// Accepted bytes were written.
    pub fn store(&self, bytes: u64) {
        let mut state = self.state.lock();
        let elapsed = state.since.elapsed();
        if state.adapt(bytes, elapsed) {
            state.since = Instant::now();
        }
        drop(state);
        self.drop(bytes);
    }

    /// Whether there is room.
    pub fn has_room(&self) -> bool {
        self.state.lock().has_room()
    }

    /// Waits until there is room, or until the deadline (`None`: for ever). Answers whether there
    /// is room.
    pub fn wait_for_room(&self, until: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while !state.has_room() {
            match until {
                None => self.changed.wait(&mut state),
                Some(until) if self.changed.wait_until(&mut state, until).timed_out() => return state.has_room(),
                Some(_) => {}
            }
        }
        true
    }

    /// Nothing will be stored any more: nobody waits for it.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Bytes in flight now.
    pub fn in_flight(&self) -> u64 {
        self.state.lock().in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_what_storage_takes() {
        const MIB: u64 = 1 << 20;
        let mut state = State::new(BUCKET_LIMIT_MIN, BUCKET_LIMIT_MAX);
        let mut limit_after = |bytes, millis| {
            state.adapt(bytes, Duration::from_millis(millis));
            state.limit / MIB
        };
        assert_eq!(limit_after(4 * MIB, 30), 8);
        assert_eq!([limit_after(4 * MIB, 40), limit_after(16 * MIB, 40), limit_after(32 * MIB, 90)], [16, 32, 64]);
        assert_eq!(limit_after(64 * MIB, 100), 64, "no more than that");
        assert_eq!(limit_after(20 * MIB, 500), 20, "no more than half a second takes");
        assert_eq!(limit_after(MIB, 5000), 8, "no less than that");
    }

    #[test]
    fn room_is_waited_for_until_the_deadline_or_the_end() {
        let flow = Flow::to_disk();
        let soon = || Some(Instant::now() + Duration::from_millis(20));
        assert!(flow.has_room() && flow.wait_for_room(None));
        flow.accept(DISK_LIMIT);
        assert!(!flow.has_room() && !flow.wait_for_room(soon()));
        flow.drop(1);
        assert!(flow.wait_for_room(soon()));
        flow.accept(1);
        flow.end();
        assert!(flow.wait_for_room(None), "nobody waits for what never comes");
    }
}

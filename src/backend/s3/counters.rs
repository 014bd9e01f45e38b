//! What was sent and received, for people and for prices.

use crate::backend::Usage;
use std::sync::atomic::{AtomicU64, Ordering};

/// [`Usage`] that many requests add to at once.
#[derive(Debug, Default)]
pub(super) struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

impl Counters {
    /// A PUT begins. Its body is counted whole: what of it went out before a failure, nobody says.
    pub fn put(&self, body_bytes: usize) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.bytes_up.fetch_add(body_bytes as u64, Ordering::Relaxed);
    }

    pub fn get(&self) {
        self.gets.fetch_add(1, Ordering::Relaxed);
    }

    pub fn list(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }

    pub fn delete(&self) {
        self.deletes.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece of an object's body has come.
    pub fn received(&self, bytes: usize) {
        self.bytes_down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn usage(&self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            puts: read(&self.puts),
            gets: read(&self.gets),
            lists: read(&self.lists),
            deletes: read(&self.deletes),
            bytes_up: read(&self.bytes_up),
            bytes_down: read(&self.bytes_down),
        }
    }
}

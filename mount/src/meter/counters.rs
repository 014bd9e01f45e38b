//! The counting.

use crate::meter::histogram::{Histogram, SLOTS, slot};
use crate::meter::kind::{KINDS, Kind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// As many threads rarely count at once: there are a few that read requests, and those that answer what
/// has waited for storage.
const SHARDS: usize = 8;

/// What the requests of one kind have come to, as some threads counted them.
struct Cell {
    slots: [AtomicU64; SLOTS],
    nanos: AtomicU64,
    errors: AtomicU64,
}

/// What some threads have counted. On cache lines of its own: two threads that write to one make each other
/// wait.
#[repr(align(128))]
struct Shard {
    kinds: [Cell; KINDS],
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
}

/// The counters of one mount.
pub struct Meter {
    shards: [Shard; SHARDS],
}

/// What the requests of a kind have come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OfKind {
    pub times: Histogram,
    /// How many of them were answered with an error.
    pub errors: u64,
}

/// All that was counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Of each kind, in the order of [`Kind::all`].
    pub kinds: Vec<(Kind, OfKind)>,
    /// Bytes of files that were read and written.
    pub read_bytes: u64,
    pub written_bytes: u64,
}

/// The calling thread's shard: threads take turns.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    OWN.with(|own| *own)
}

fn zero() -> AtomicU64 {
    AtomicU64::new(0)
}

impl Default for Meter {
    fn default() -> Meter {
        let cell = |_| Cell { slots: std::array::from_fn(|_| zero()), nanos: zero(), errors: zero() };
        let shard = |_| Shard { kinds: std::array::from_fn(cell), read_bytes: zero(), written_bytes: zero() };
        Meter { shards: std::array::from_fn(shard) }
    }
}

impl Meter {
    /// A request is about to be answered.
    pub fn count(&self, kind: Kind, took: Duration, is_error: bool) {
        let cell = &self.shards[own_shard()].kinds[kind as usize];
        cell.slots[slot(took)].fetch_add(1, Ordering::Relaxed);
        cell.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        if is_error {
            cell.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Somebody gets so many bytes of a file.
    pub fn read(&self, bytes: usize) {
        self.shards[own_shard()].read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes of a file were written.
    pub fn written(&self, bytes: usize) {
        self.shards[own_shard()].written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What was counted up to now. What threads count meanwhile may be in it or not.
    pub fn counted(&self) -> Counted {
        let of_all = |counter: fn(&Shard) -> &AtomicU64| -> u64 {
            self.shards.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum()
        };
        Counted {
            kinds: Kind::all().map(|kind| (kind, self.of_kind(kind))).collect(),
            read_bytes: of_all(|shard| &shard.read_bytes),
            written_bytes: of_all(|shard| &shard.written_bytes),
        }
    }

    fn of_kind(&self, kind: Kind) -> OfKind {
        let mut sum = OfKind::default();
        let mut nanos = 0;
        for cell in self.shards.iter().map(|shard| &shard.kinds[kind as usize]) {
            for (sum, slot) in sum.times.slots.iter_mut().zip(&cell.slots) {
                *sum += slot.load(Ordering::Relaxed);
            }
            nanos += cell.nanos.load(Ordering::Relaxed);
            sum.errors += cell.errors.load(Ordering::Relaxed);
        }
        sum.times.seconds = nanos as f64 / 1e9;
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_count_adds_up() {
        let meter = Meter::default();
        std::thread::scope(|scope| {
            for thread in 0..20 {
                let meter = &meter;
                scope.spawn(move || {
                    for time in 0..1000 {
                        meter.count(Kind::Lookup, Duration::from_micros(time), time % 10 == 0);
                        meter.read(thread);
                    }
                    meter.written(7);
                });
            }
        });
        let counted = meter.counted();
        assert_eq!((counted.read_bytes, counted.written_bytes), (190_000, 140));
        for (kind, of_kind) in counted.kinds {
            let expected = if kind == Kind::Lookup { (20_000, 2000) } else { (0, 0) };
            assert_eq!((of_kind.times.count(), of_kind.errors), expected);
            if kind == Kind::Lookup {
                assert!((of_kind.times.mean() - 499.5e-6).abs() < 1e-9);
            }
        }
    }
}

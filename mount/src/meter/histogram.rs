//! How many took how long. Pure.

use std::time::Duration;

/// Those that took at most 1 us, 2 us, 4 us... and, last, 34 s. So a percentile is right to within a
/// factor of two, and where in between is guessed.
pub const BOUNDS: usize = 26;

/// And those that took longer.
pub const SLOTS: usize = BOUNDS + 1;

/// In which slot that time is counted.
pub fn slot(took: Duration) -> usize {
    let micros = took.as_nanos().div_ceil(1000).max(1);
    let doubled = micros.next_power_of_two().trailing_zeros() as usize;
    doubled.min(BOUNDS)
}

/// Times, by how long they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How many are in each slot.
    pub slots: [u64; SLOTS],
    /// All times together, in seconds.
    pub seconds: f64,
}

impl Histogram {
    /// The longest time of a slot, in seconds; of the last there is none.
    pub fn bound(slot: usize) -> f64 {
        (1_u64 << slot) as f64 / 1e6
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// Seconds; 0 if there are none.
    pub fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.seconds / count as f64,
        }
    }

    /// The time, in seconds, below which that part of them is (0.99: all but one in a hundred); 0 if there
    /// are none. Of times beyond the last bound only that is known.
    pub fn quantile(&self, part: f64) -> f64 {
        let wanted = part * self.count() as f64;
        let mut below = 0.0;
        for (slot, count) in self.slots.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= wanted {
                let from = if slot == 0 { 0.0 } else { Histogram::bound(slot - 1) };
                let to = if slot == BOUNDS { from } else { Histogram::bound(slot) };
                return from + (to - from) * (wanted - below) / count;
            }
            below += count;
        }
        0.0
    }

    /// What came since an earlier state.
    pub fn since(&self, before: &Histogram) -> Histogram {
        let slots = std::array::from_fn(|slot| self.slots[slot].saturating_sub(before.slots[slot]));
        Histogram { slots, seconds: (self.seconds - before.seconds).max(0.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_end_where_their_bounds_say() {
        let slots = [0, 1, 999, 1000, 1001, 2000, 2001, 4000, 1_000_000, 33_554_432_000, 33_554_432_001, u64::MAX]
            .map(|nanos| slot(Duration::from_nanos(nanos)));
        assert_eq!(slots, [0, 0, 0, 0, 1, 1, 2, 2, 10, 25, 26, 26]);
        assert_eq!([Histogram::bound(0), Histogram::bound(10)], [1e-6, 1.024e-3]);
    }

    #[test]
    fn percentiles_are_in_their_slots() {
        let mut times = Histogram::default();
        assert_eq!((times.count(), times.mean(), times.quantile(0.99)), (0, 0.0, 0.0));
        times.slots[2] = 98;
        times.slots[10] = 2;
        times.seconds = 100.0 * 5e-6;
        assert_eq!((times.count(), times.mean()), (100, 5e-6));
        assert!((2e-6..=4e-6).contains(&times.quantile(0.5)));
        assert!((512e-6..=1024e-6).contains(&times.quantile(0.99)));
        let mut later = times.clone();
        later.slots[BOUNDS] = 1;
        assert_eq!(later.since(&times).quantile(0.5), Histogram::bound(BOUNDS - 1));
        assert_eq!(later.since(&times).count(), 1);
    }
}

//! Seeded choices: the same seed gives the same run.

use std::ops::Range;

/// A generator of choices (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn within(&mut self, range: Range<usize>) -> usize {
        assert!(!range.is_empty());
        range.start + (self.next() % (range.end - range.start) as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    /// Bytes; half of the time they compress well.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        if self.one_in(2) {
            let pattern = self.next().to_le_bytes();
            return (0..length).map(|index| pattern[index / 16 % 8]).collect();
        }
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// A permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for index in (1..n).rev() {
            order.swap(index, self.within(0..index + 1));
        }
        order
    }
}

/// The seeds to run with: that of KIVAFS_SEED alone, or `count` fixed ones times KIVAFS_TEST_SCALE.
pub fn seeds(count: usize) -> Vec<u64> {
    match number_from_env("KIVAFS_SEED") {
        Some(seed) => vec![seed],
        None => (1..=scaled(count) as u64).collect(),
    }
}

/// `count` times KIVAFS_TEST_SCALE (default 1), at least 1.
pub fn scaled(count: usize) -> usize {
    (count * number_from_env("KIVAFS_TEST_SCALE").unwrap_or(1) as usize).max(1)
}

pub fn number_from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")))
}

/// Runs `test` with each seed, and names the seed before it: a failing run is repeated with
/// `KIVAFS_SEED=<seed> cargo test <name>`.
pub fn for_each_seed(count: usize, mut test: impl FnMut(u64)) {
    for seed in seeds(count) {
        println!("KIVAFS_SEED={seed}");
        test(seed);
    }
}

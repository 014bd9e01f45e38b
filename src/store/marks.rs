//! Marks: a set of keys that tells quickly of most others that they are not in it.
//!
//! Bloom's filter (1970) with one hash. The changes of a commit are some thousand keys in order, each in memory of its
//! own, and to look for one waits for memory a dozen times; most of those that are looked for have no change.

use xxhash_rust::xxh3::xxh3_64;

/// With as many keys as a commit of small changes has, one of twenty others looks as if it were there.
const BITS: usize = 1 << 16;

/// The marks of some keys.
#[derive(Default)]
pub struct Marks {
    /// None before the first.
    words: Vec<u64>,
}

impl Marks {
    /// Marks a key; answers whether it may have been marked before.
    pub fn add(&mut self, key: &[u8]) -> bool {
        if self.words.is_empty() {
            self.words.resize(BITS / 64, 0);
        }
        let (word, bit) = bit_of(key);
        let was = self.words[word] & bit != 0;
        self.words[word] |= bit;
        was
    }

    /// Whether it may have been marked: if not, it was not.
    pub fn may_have(&self, key: &[u8]) -> bool {
        let (word, bit) = bit_of(key);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }
}

fn bit_of(key: &[u8]) -> (usize, u64) {
    let bit = xxh3_64(key) as usize % BITS;
    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_found_and_few_others_are() {
        let mut marks = Marks::default();
        let key = |n: u32| n.to_be_bytes();
        assert!(!marks.may_have(&key(0)));
        let doubted = (0..3000).filter(|n| marks.add(&key(*n))).count();
        assert!(doubted < 3000 / 20, "{doubted} seemed to be there twice");
        assert!((0..3000).all(|n| marks.may_have(&key(n))));
        let found = (3000..13_000).filter(|n| marks.may_have(&key(*n))).count();
        assert!(found < 10_000 / 15, "{found} of 10,000 others");
    }
}

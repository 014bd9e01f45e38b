//! The pairs that a store is loaded with, made before anything is timed.
//!
//! For `bench kv` they are those of kivaloo's benchmarks (its `bench/BENCHMARKS`): 40 bytes each, numbers
//! big-endian, sorted; for X from 0 on, and Y from 0 to 65535 for each:
//!
//! | | 8 bytes | 32 bytes |
//! |---|---|---|
//! | key | X | SHA-256 of a byte 0, X as 8 bytes, Y as 8 bytes |
//! | value | 65536 X + Y | SHA-256 of a byte 1, X as 8 bytes, Y as 8 bytes |
//!
//! So it is written there. What kivaloo's `mkpairs` writes has the byte 0 in both: half of each pair is
//! there twice, which a store that compresses would profit from.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Bytes of a key, and of a value.
pub const STRING_BYTES: usize = 40;
const PAIR_BYTES: usize = 2 * STRING_BYTES;
/// Pairs whose keys begin alike: neighbours in the order of keys.
pub const GROUP: usize = 1 << 16;

/// One.
pub type Pair = [u8; PAIR_BYTES];

/// Sorted pairs.
pub struct Pairs(Bytes);

impl Pairs {
    /// These.
    pub fn new(mut pairs: Vec<Pair>) -> Pairs {
        pairs.sort_unstable();
        Pairs(pairs.into_flattened().into())
    }

    /// The first `count` of kivaloo's.
    pub fn of_kivaloo(count: usize) -> Pairs {
        Pairs::new((0..count).map(|number| pair(number / GROUP, number % GROUP)).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len() / PAIR_BYTES
    }

    pub fn key(&self, number: usize) -> Bytes {
        self.0.slice(number * PAIR_BYTES..number * PAIR_BYTES + STRING_BYTES)
    }

    pub fn value(&self, number: usize) -> Bytes {
        self.0.slice(number * PAIR_BYTES + STRING_BYTES..(number + 1) * PAIR_BYTES)
    }
}

fn pair(x: usize, y: usize) -> Pair {
    let mut pair = [0; PAIR_BYTES];
    let (key, value) = pair.split_at_mut(STRING_BYTES);
    string(key, x, 0, x, y);
    string(value, x * GROUP + y, 1, x, y);
    pair
}

fn string(out: &mut [u8], number: usize, kind: u8, x: usize, y: usize) {
    let hash = Sha256::new().chain_update([kind]).chain_update(big_endian(x)).chain_update(big_endian(y)).finalize();
    out[..8].copy_from_slice(&big_endian(number));
    out[8..].copy_from_slice(&hash);
}

fn big_endian(number: usize) -> [u8; 8] {
    (number as u64).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn pairs_are_those_of_the_text() {
        let pair = pair(1, 1);
        assert_eq!(
            [hex(&pair[..40]), hex(&pair[40..])],
            [
                "0000000000000001dae3158dd070817d75371e043a50bbe9931f021affa56aa4fb32b8f46e63b36f",
                "00000000000100010d1ffc46c9756df50c95483b15bdcf4305fa9a50860962ed6c48ef97812cf2b3"
            ]
        );
    }

    #[test]
    fn they_are_sorted_by_key() {
        let pairs = Pairs::of_kivaloo(3);
        assert_eq!(pairs.len(), 3);
        let numbers: Vec<u8> = (0..3).map(|number| pairs.value(number)[7]).collect();
        assert_eq!(numbers, [0, 2, 1]);
        assert!((1..3).all(|number| pairs.key(number - 1) < pairs.key(number)));
        let first = "00000000000000000a88111852095cae045340ea1f0b279944b2a756a213d9b50107d7489771e159";
        assert_eq!(hex(&pairs.key(0)), first);
    }
}

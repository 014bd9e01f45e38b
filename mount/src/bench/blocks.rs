//! Contents of large files, a MiB at a time, none of them twice.

use crate::bench::noise::Noise;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 1 << 20;
const BLOCKS: u64 = 16;
/// Of these bytes of what compresses, the first four are noise.
const PHRASE: &[u8; 16] = b"noisand the rest";

/// What blocks are made of.
pub struct Blocks(Vec<Vec<u8>>);

impl Blocks {
    /// What does not compress; another for each seed.
    pub fn noise(seed: u64) -> Blocks {
        Blocks((0..BLOCKS).map(|block| Noise::new(seed * BLOCKS + block + 100).bytes(BLOCK_BYTES)).collect())
    }

    /// What compresses as text does: to less than a half.
    pub fn text(seed: u64) -> Blocks {
        let mut blocks = Blocks::noise(seed);
        for phrase in blocks.0.iter_mut().flat_map(|block| block.chunks_exact_mut(PHRASE.len())) {
            phrase[4..].copy_from_slice(&PHRASE[4..]);
        }
        blocks
    }

    /// The block of that number.
    pub fn block(&self, number: u64) -> Vec<u8> {
        let mut block = self.0[(number % BLOCKS) as usize].clone();
        for (at, byte) in block.iter_mut().step_by(512).enumerate() {
            *byte ^= (number >> (8 * (at % 3))) as u8;
        }
        block
    }
}

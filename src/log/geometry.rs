//! The sizes of a store. Pure.

use super::pointer::SEGMENT_BYTES_MAX;

/// The unit in which commits lie in a file.
pub const BLOCK: u64 = 4096;
/// Where the ring begins in a file: behind two superblocks and the holder record.
pub const RING_OFFSET: u64 = 4 * BLOCK;

/// Sizes that are fixed when a store is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the ring that holds the commits (in a bucket: what stands for it in the bounds that
    /// follow from it): a multiple of 4096, at least 48 KiB.
    pub ring_bytes: u64,
    /// How much of the ring of a new file is in use, at least 48 KiB; where a longer log is of use, all of it comes to be.
    pub ring_at_first: u64,
    /// Bytes of a data segment: a multiple of 4096, 8 KiB to 16 MiB.
    pub segment_bytes: u32,
    /// Target size of a tree page before compression: 1 KiB to 32 KiB, at most half a segment.
    pub page_bytes: u32,
}

impl Default for Geometry {
    /// For a local file: a ring of 56 MiB, of which most stores use the first 16 only; segments of 4 MiB, so that little
    /// space waits in segments being filled and in the reserve, and comes back in small steps; pages of 4 KiB.
    ///
    /// A page that changes all the time is stored once a checkpoint, and the ring bounds how long it takes to
    /// the next. Of 2^20 pairs that change at random, in a cache that holds them, 1.3 kB were written for each change
    /// with a ring of 16 MiB, 0.75 with 32, 0.5 with 48, 0.35 with 64. What recovery has to read, and to have in memory,
    /// grows with it: with 64 it took up to a second, and 215 MiB.
    fn default() -> Geometry {
        Geometry { ring_bytes: 56 << 20, ring_at_first: 16 << 20, segment_bytes: 4 << 20, page_bytes: 4096 }
    }
}

impl Geometry {
    /// For a local file that may come to have so many bytes: less of a ring where it would be much of them.
    pub fn of_size(size: u64) -> Geometry {
        let usual = Geometry::default();
        let ring_bytes = match size >> 20 {
            0..128 => usual.ring_at_first,
            128..1024 => 2 * usual.ring_at_first,
            _ => usual.ring_bytes,
        };
        Geometry { ring_bytes, ..usual }
    }

    /// For a bucket, where a request costs as much as megabytes: commits of up to 16 MiB, segments of 8
    /// MiB.
    pub fn for_bucket() -> Geometry {
        Geometry { ring_bytes: 96 << 20, ring_at_first: 96 << 20, segment_bytes: 8 << 20, page_bytes: 4096 }
    }

    /// Whether a store can have these sizes.
    pub fn is_valid(&self) -> bool {
        let segment = u64::from(self.segment_bytes);
        self.ring_bytes.is_multiple_of(BLOCK)
            && self.ring_bytes <= 1 << 40
            && self.ring_at_first.is_multiple_of(BLOCK)
            && (12 * BLOCK..=self.ring_bytes).contains(&self.ring_at_first)
            && segment.is_multiple_of(BLOCK)
            && (2 * BLOCK..=SEGMENT_BYTES_MAX).contains(&segment)
            && (1 << 10..=32 << 10).contains(&self.page_bytes)
            && u64::from(self.page_bytes) * 2 <= segment
    }

    /// Whether so many bytes of the ring may be in use: enough for a ring of their own.
    pub fn can_use(&self, part: u64) -> bool {
        part.is_multiple_of(BLOCK) && (self.ring_at_first..=self.ring_bytes).contains(&part)
    }

    /// Most bytes that one commit in a file may have: what lets the ring always take the two commits that a
    /// checkpoint needs beside the tail that it replaces. In a large ring no more than in one of 16 MiB: the
    /// rest is for a longer tail, and who waits for a commit does not wait longer.
    pub fn commit_bytes_max(&self) -> u64 {
        self.far_commit_bytes_max().min((16 << 20) / 6 / BLOCK * BLOCK)
    }

    /// The same in a bucket, where a large commit costs no more than a small one.
    pub fn far_commit_bytes_max(&self) -> u64 {
        self.ring_at_first / 6 / BLOCK * BLOCK
    }

    /// Where the data slots begin.
    pub fn slots_offset(&self) -> u64 {
        RING_OFFSET + self.ring_bytes
    }
}

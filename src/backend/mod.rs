//! The bytes: one local file or memory; or objects in a bucket.
//!
//! Files, in reading order: for local stores `file` (one local file, locked) and `memory` (for
//! tests); for stores in a bucket `objects` (what is asked of one), `s3` (one on
//! an S3 server) and `disk_cache` (what came, kept on the local disk; it has its own contract).
//!
//! # Contract of objects
//!
//! An [`Objects`] is a map from names to byte strings that are written once.
//!
//! * **Concurrency.** Any number of threads may call anything; no call waits, and outcomes come in
//!   any order. At most so many requests as the backend was told are under way at once; others
//!   queue, reads and writes each in order. A `create` does not queue behind them, and racing
//!   creates really race.
//! * **End.** When the backend is dropped, everything under way or queued ends with
//!   [`ObjectError::Unknown`]: each `done` is called exactly once, whatever happens.
//! * **Durability.** When `create` or `put` answers Ok, the object survives the loss of this
//!   machine, and a later `get` sees it (C7), unless a 404 for that name was seen before.
//! * **Failure.** Each call is one attempt (a `get` that is slow may be sent twice). An attempt
//!   that ended in [`ObjectError::Unknown`] may be carried out any time later. Nothing else than
//!   the success of a `create` proves that an object did not exist.
//!
//! # Contract of a disk
//!
//! A [`Disk`] is a growing array of bytes.
//!
//! * **Concurrency.** Any number of threads may call anything. Who changes a range orders that
//!   with other changes of it; a read that overlaps a change in progress may see either or a mix.
//! * **Durability.** What had been written, allocated or punched (the call had returned) before a
//!   successful [`Disk::sync`] began survives a power cut. Everything else may be kept, lost or torn at any 512-byte
//!   boundary, in any order, until then.
//! * **Failure.** After a failed `sync` the state of everything unsynced is unknown; the caller
//!   must not try again (R4). A failed write leaves its range unknown. `allocate` fails with
//!   `StorageFull` without changing any byte, though the disk may be longer then. A write into a range that was allocated or
//!   written and not punched since finds its space; any other may fail with `StorageFull`.
//!
//! A backend knows nothing of commits, pages or keys.

mod disk_cache;
mod file;
mod memory;
mod objects;
#[cfg(feature = "s3")]
mod s3;

pub use disk_cache::{DiskCache, DiskCacheStats};
pub use file::{FileDisk, Hold};
pub use memory::MemoryDisk;
pub use objects::{Done, ObjectError, Objects, Usage};
#[cfg(feature = "s3")]
pub use s3::{S3, S3Options};

use std::io;

/// One local file's worth of bytes. The contract is in the module's docs.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a disk is empty")]
pub trait Disk: Send + Sync {
    /// Length in bytes: one past the last byte that can be read.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`; `UnexpectedEof` where the disk is shorter.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// What is read of the range from here on is what the disk holds, not what another process has left in
    /// memory (R4). For who alone may write.
    fn reread(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Begins to bring a range into memory that is about to be read, and does not wait for it: so many
    /// ranges are read together, and not one after the other. Advice: nothing else depends on it.
    fn will_read(&self, _offset: u64, _length: u64) {}

    /// Writes all of `bytes` at `offset`; the disk grows where it must.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Begins to bring what was written in a range to the disk, and does not wait for it: a `sync` later
    /// has less left to do. Advice: what survives is up to `sync` alone, which also tells what failed.
    fn will_sync(&self, _offset: u64, _length: u64) {}

    /// Makes everything so far survive a power cut (fdatasync(2)).
    fn sync(&self) -> io::Result<()>;

    /// Makes sure that writes into this range will find space (fallocate(2)); the disk grows to
    /// its end. What was never written reads as zeros. Bytes already there stay.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Gives the range's space back (FALLOC_FL_PUNCH_HOLE); it reads as zeros then, and the
    /// disk keeps its length.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Bytes that could still be written or allocated, beyond what is occupied: what the disk below
    /// has left. Others share that, so it is for telling people, not for relying on.
    fn free_space(&self) -> io::Result<u64>;
}

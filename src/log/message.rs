//! What the storage thread, or who does its work, is asked to do. One enum for both kinds of storage.

use super::LogError;
use super::commit::{Birth, Checkpoint};
use super::pointer::{SegmentNo, Sequence};
use super::streams::Part;
use std::sync::mpsc::Sender;

/// What the layer above puts into a commit.
pub struct Prepared {
    /// Its redo.
    pub body: Vec<u8>,
    /// The segments opened up to the moment at which the redo was frozen.
    pub births: Vec<Birth>,
    /// The number that the next segment would have got at that moment.
    pub next_segment: u64,
    /// A checkpoint that is complete but for this commit.
    pub checkpoint: Option<Checkpoint>,
    /// How many keys it changes.
    pub changes: u64,
    /// Bytes of their keys and values.
    pub changed_bytes: u64,
}

/// Freezes what is to be committed, given the sequence that the commit will have and the bytes that
/// it may take; `None`: there is nothing. Runs on the thread that stores it.
pub type Prepare = Box<dyn FnOnce(Sequence, u64) -> Option<Prepared> + Send>;
/// Told how a commit went: the newest durable sequence, or the store's first failure. Runs on the
/// thread that stored it.
pub type Done = Box<dyn FnOnce(Result<Sequence, LogError>) + Send>;

/// Told that segments are gone. Runs on the storage thread, or is dropped if it ends before.
pub type Freed = Box<dyn FnOnce(&[SegmentNo]) + Send>;

/// Told how closing went.
pub type Closed = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// How a commit uses the room in the ring.
///
/// The last commit that fits must be one that completes a checkpoint: nothing else makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Waits while the ring is tight.
    Ordinary,
    /// Part of a checkpoint or of opening: leaves room for a `Last`, or is refused with
    /// [`LogError::NoSpace`], unprepared.
    Early,
    /// Completes a checkpoint.
    Last,
}

/// What the storage thread is asked to do.
pub enum Message {
    /// Write a run of blocks of a data segment.
    Write(Part),
    /// Make a commit.
    Commit {
        /// Freezes its content.
        prepare: Prepare,
        /// Gets the result.
        done: Done,
        /// Which room it may use.
        claim: Claim,
    },
    /// A checkpoint was made, or failed: commits that wait for room go on, or are told.
    Retry(Option<LogError>),
    /// Give back the space of segments that nothing refers to any more.
    Free {
        /// The segments.
        numbers: Vec<SegmentNo>,
        /// Since when, nanoseconds since 1970.
        since_ns: u64,
        /// Told when that is done.
        freed: Freed,
    },
    /// Take so many bytes of a file's ring into use, which are written, if that can be done now.
    LengthenRing(u64),
    /// Answer, when what was asked before is done.
    Reached(Sender<()>),
    /// Write the clean mark and end.
    Close {
        /// Unused slots are given back to the disk.
        give_back: bool,
        /// Gets the result.
        done: Closed,
    },
}

//! The commits of a local store: a ring of blocks, read once at recovery.
//!
//! A *position* is a byte offset in an endless log, a multiple of 4096; position `p` lies at
//! `p mod ring_bytes` in the ring. A commit never wraps: where it would, it begins at the next
//! multiple of the ring's size. Each commit starts on a block of its own, so that a block with
//! acknowledged bytes is never written again while it counts (R5).
//!
//! Instead of slots of 4 MiB with one header each (the starting design), commits simply follow one
//! another, and the superblock names the first that counts: recovery reads exactly the tail, and
//! what may be overwritten is one comparison ([`Ring::room`], R6).
//!
//! # The part in use
//!
//! Most stores never have much of a tail, so a new one has the first 16 MiB of its ring: that is written in full, and
//! commits go round in it, as if positions from there to the ring's end did not exist. Where a longer tail is of use
//! the part becomes longer ([`Ring::lengthen`]), up to the whole ring; never shorter. The log's live commits lie in one
//! turn then, so that no turn ends in the midst of what has become usable; and both superblocks say so first (L4).

use super::superblock::Start;
use crate::backend::Disk;
use crate::log::commit::{self, Commit, NotACommit};
use crate::log::geometry::{BLOCK, Geometry, RING_OFFSET};
use crate::log::pointer::Sequence;
use crate::log::{Damage, LogError};
use bytes::Bytes;
use std::io;

/// How much of the ring is looked through at once.
const SCAN_BYTES: u64 = 256 << 10;
/// As much of it is on its way from the disk while the log is read, if there may be so much: commits are short, and to
/// wait for each of a thousand takes longer than all else that opening does.
const AHEAD_BYTES_MAX: u64 = 4 << 20;

/// Where the next commit goes, and how far the ring may be overwritten.
pub struct Ring {
    bytes: u64,
    /// How much of it is in use, from its beginning.
    part: u64,
    head: u64,
    /// Everything from here on may be needed by recovery.
    tail: u64,
}

impl Ring {
    /// A ring of that many bytes, of which the first `part` are in use, and whose log goes from `tail` to `head`; none
    /// if there can be no such log.
    pub fn new(bytes: u64, part: u64, tail: u64, head: u64) -> Option<Ring> {
        assert!(part <= bytes, "a part of {part} bytes of a ring of {bytes}");
        let is_within = |position: u64| position % bytes <= part;
        let is_log = tail <= head && head - tail <= bytes && is_within(tail) && is_within(head);
        is_log.then_some(Ring { bytes, part, head, tail })
    }

    /// Where a commit of `length` bytes would begin.
    pub fn position_for(&self, length: u64) -> u64 {
        if self.head % self.bytes + length.next_multiple_of(BLOCK) > self.part {
            self.head.next_multiple_of(self.bytes)
        } else {
            self.head
        }
    }

    /// Bytes of the ring from one position of the log to its head.
    pub fn bytes_from(&self, position: u64) -> u64 {
        let turns = self.head / self.bytes - position / self.bytes;
        self.head - position - turns * (self.bytes - self.part)
    }

    /// How many bytes of the ring are in use.
    pub fn part(&self) -> u64 {
        self.part
    }

    /// Whether the part could become longer just now.
    pub fn can_lengthen(&self) -> bool {
        self.part < self.bytes && self.head / self.bytes == self.tail / self.bytes
    }

    /// Takes so many bytes of the ring into use: L4, both superblocks on disk say so.
    pub fn lengthen(&mut self, part: u64) {
        assert!(self.can_lengthen() && (self.part..=self.bytes).contains(&part), "from {} to {part}", self.part);
        self.part = part;
    }

    /// Bytes of log that the ring can take before it would overwrite what recovery needs, however
    /// the next four commits fall: one that does not fit before the ring's end skips at least a
    /// block less than its own length, but only one of them can come to that end.
    pub fn room(&self, commit_max: u64) -> u64 {
        let skip = if self.head % self.bytes + 4 * commit_max <= self.part { 0 } else { commit_max - BLOCK };
        (self.part - self.used()).saturating_sub(skip)
    }

    /// Whether a commit of `length` bytes fits now.
    pub fn fits(&self, length: u64) -> bool {
        let position = self.position_for(length);
        let is_in_part = position % self.bytes + length.next_multiple_of(BLOCK) <= self.part;
        is_in_part && position + length.next_multiple_of(BLOCK) - self.tail <= self.bytes
    }

    /// Where a position lies in the file.
    pub fn offset_of(&self, position: u64) -> u64 {
        RING_OFFSET + position % self.bytes
    }

    /// A commit was written.
    pub fn advance(&mut self, position: u64, length: u64) {
        assert!(self.fits(length) && position == self.position_for(length), "R6: the ring would overwrite its tail");
        self.head = position + length.next_multiple_of(BLOCK);
    }

    /// Bytes of the ring from the tail to the head.
    pub fn used(&self) -> u64 {
        self.bytes_from(self.tail)
    }

    /// Nothing before `tail` is needed any more.
    pub fn forget_before(&mut self, tail: u64) {
        assert!(tail >= self.tail && tail <= self.head, "tail {} -> {tail}, head {}", self.tail, self.head);
        self.tail = tail;
    }

    /// Where the next commit begins unless it has to skip to the ring's start.
    pub fn head(&self) -> u64 {
        self.head
    }
}

/// Writes zeros: a commit into blocks that are allocated and written already needs no journal commit of the file system
/// below.
pub fn write_zeros(disk: &dyn Disk, offset: u64, length: u64) -> io::Result<()> {
    let zeros = vec![0; length.min(1 << 20) as usize];
    let mut at = offset;
    while at < offset + length {
        let wanted = (offset + length - at).min(zeros.len() as u64);
        disk.write_at(at, &zeros[..wanted as usize])?;
        at += wanted;
    }
    Ok(())
}

/// A commit as it was read.
pub struct Found {
    /// Its content, without the body.
    pub commit: Commit,
    /// Its checksum.
    pub checksum: u128,
    /// Its length in bytes.
    pub length: u64,
}

/// Where a commit lies that was read, and what it was.
pub struct InRing {
    offset: u64,
    length: u64,
    checksum: u128,
}

impl Found {
    /// Where its body can be read again.
    pub fn body(&self, geometry: Geometry) -> InRing {
        let offset = RING_OFFSET + self.commit.position % geometry.ring_bytes;
        InRing { offset, length: self.length, checksum: self.checksum }
    }
}

impl InRing {
    /// Its body. Nobody else writes to the file.
    pub fn read(&self, disk: &dyn Disk, store: &[u8; 16]) -> Result<Bytes, LogError> {
        let mut bytes = vec![0; self.length as usize];
        let is_there = read_block(disk, self.offset, &mut bytes)?;
        let again = Commit::decode_packed(bytes, store).ok().filter(|(_, _, sum)| is_there && *sum == self.checksum);
        let changed = || damaged(format!("what lies in the ring at {:#x} changed while it was read", self.offset));
        let (_, body, _) = again.ok_or_else(changed)?;
        body.unpack().ok_or_else(|| damaged("the redo of a commit cannot be decompressed".into()))
    }
}

/// Reads the log from `start` to its end.
///
/// Ends where no commit follows: nothing was written there, or a crash tore what was. A commit
/// that is damaged although it was acknowledged must not be taken for the end (R5): that is told
/// by a later commit behind it. Whether the log reaches a sequence that is known to be durable is
/// for the caller to check.
///
/// A clean mark is no reason not to look behind the end: it may be from before the last mount, whose
/// first commit is what cannot be read.
///
/// `part`: how much of the ring is in use.
pub fn read_log(
    disk: &dyn Disk,
    geometry: Geometry,
    part: u64,
    store: &[u8; 16],
    start: Start,
) -> Result<Vec<Found>, LogError> {
    let ring_bytes = geometry.ring_bytes;
    let mut found: Vec<Found> = Vec::new();
    let mut ring = Ring::new(ring_bytes, part, start.position, start.position)
        .ok_or_else(|| damaged(format!("no log can begin at {:#x} in its ring", start.position)))?;
    let mut expected = (start.sequence, start.predecessor);
    let mut asked = start.position;
    loop {
        // Twice as far as it has gone: a log is not read far behind its end, and a long one with the disk at work.
        let ahead = (2 * (ring.head() - start.position)).clamp(SCAN_BYTES, AHEAD_BYTES_MAX);
        while asked < (ring.head() + ahead).min(start.position + ring_bytes) {
            let length = SCAN_BYTES.min(part.saturating_sub(asked % ring_bytes));
            if length == 0 {
                // The turn ends here.
                asked = (asked + 1).next_multiple_of(ring_bytes);
                continue;
            }
            disk.will_read(ring.offset_of(asked), length);
            asked += length;
        }
        let wrapped = ring.head().next_multiple_of(ring_bytes);
        let mut next = None;
        for position in [ring.head(), wrapped] {
            match read_commit_of(disk, &ring, store, position)? {
                Ok(read) if (read.commit.sequence, read.commit.predecessor) == expected => {
                    next = Some(read);
                    break;
                }
                Err(NotACommit::OtherVersion(what)) => return Err(LogError::OtherVersion(what)),
                // Torn, absent, or left over from an earlier turn of the ring or an abandoned end.
                Ok(_) | Err(_) => {}
            }
        }
        let Some(next) = next else { break };
        ring.head = next.commit.position + next.length.next_multiple_of(BLOCK);
        if ring.head - start.position > ring_bytes {
            return Err(damaged("the log is longer than its ring".into()));
        }
        expected = (Sequence(next.commit.sequence.0 + 1), next.checksum);
        found.push(next);
    }
    refuse_later_commits(disk, &ring, 2 * geometry.commit_bytes_max(), store, expected.0)?;
    Ok(found)
}

/// R5: an unreadable commit followed by a readable later one is damage, not the end; so is a
/// commit that belongs here and lies elsewhere.
///
/// A later one begins at most so far on: the one that is missing may be as long as any, and have skipped as
/// much.
fn refuse_later_commits(
    disk: &dyn Disk,
    ring: &Ring,
    window: u64,
    store: &[u8; 16],
    end: Sequence,
) -> Result<(), LogError> {
    let mut left = window.min(ring.part - ring.used());
    let mut position = ring.head();
    let mut run = vec![0; SCAN_BYTES as usize];
    while left > 0 {
        if position % ring.bytes == ring.part {
            position = position.next_multiple_of(ring.bytes);
        }
        let length = SCAN_BYTES.min(left).min(ring.part - position % ring.bytes);
        let run = &mut run[..length as usize];
        if !read_block(disk, ring.offset_of(position), run)? {
            return Err(damaged(format!("the ring ends before offset {:#x}", ring.offset_of(position) + length)));
        }
        for (block, at) in run.chunks(BLOCK as usize).zip((position..).step_by(BLOCK as usize)) {
            let Some(outline) = commit::outline(block, store) else { continue };
            if outline.sequence < end {
                continue;
            }
            if let Ok(later) = read_commit(disk, ring, store, at, outline)? {
                let what = format!(
                    "commit {} is not where it belongs, at ring offset {:#x}, but commit {} is whole behind that: \
                     restore the file from a copy; nothing was changed",
                    end.0,
                    ring.offset_of(ring.head()),
                    later.commit.sequence.0
                );
                return Err(damaged(what));
            }
        }
        position += length;
        left -= length;
    }
    Ok(())
}

type Decoded = Result<Found, NotACommit>;

/// Reads what claims to be a commit of that very position.
fn read_commit_of(disk: &dyn Disk, ring: &Ring, store: &[u8; 16], position: u64) -> Result<Decoded, LogError> {
    let mut block = vec![0; BLOCK as usize];
    if !read_block(disk, ring.offset_of(position), &mut block)? {
        return Ok(Err(NotACommit::Absent));
    }
    match commit::outline(&block, store) {
        Some(outline) if outline.position == position => read_commit(disk, ring, store, position, outline),
        _ => Ok(Err(NotACommit::Absent)),
    }
}

/// Reads the commit of that outline.
fn read_commit(
    disk: &dyn Disk,
    ring: &Ring,
    store: &[u8; 16],
    position: u64,
    outline: commit::Outline,
) -> Result<Decoded, LogError> {
    let length = u64::from(outline.length);
    if position % ring.bytes + length > ring.part {
        return Ok(Err(NotACommit::Absent));
    }
    let mut bytes = vec![0; length as usize];
    if !read_block(disk, ring.offset_of(position), &mut bytes)? {
        return Ok(Err(NotACommit::Torn("cut")));
    }
    let decoded = Commit::decode_packed(bytes, store);
    Ok(decoded.map(|(commit, _, checksum)| Found { commit, checksum, length }))
}

/// Fills the block; false where the file ends before its end.
fn read_block(disk: &dyn Disk, offset: u64, block: &mut [u8]) -> Result<bool, LogError> {
    match disk.read_at(offset, block) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(LogError::Io(format!("reading the ring at {offset:#x}: {error}").into())),
    }
}

fn damaged(what: String) -> LogError {
    LogError::Damaged(Damage { what: what.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_never_wraps() {
        let mut ring = Ring::new(6 * BLOCK, 6 * BLOCK, 0, 0).unwrap();
        ring.advance(ring.position_for(4 * BLOCK), 4 * BLOCK);
        assert_eq!(ring.position_for(2 * BLOCK), 4 * BLOCK);
        assert_eq!(ring.position_for(2 * BLOCK + 1), 6 * BLOCK, "does not fit before the end");
        assert!(!ring.fits(2 * BLOCK + 1), "and would overwrite the tail");
        ring.forget_before(4 * BLOCK);
        assert!(ring.fits(2 * BLOCK + 1));
        assert_eq!(ring.offset_of(6 * BLOCK), RING_OFFSET);
    }

    #[test]
    fn a_ring_in_part_is_as_one_of_that_length_until_it_becomes_longer() {
        let mut ring = Ring::new(20 * BLOCK, 6 * BLOCK, 0, 4 * BLOCK).unwrap();
        assert_eq!((ring.used(), ring.room(BLOCK)), (4 * BLOCK, 2 * BLOCK));
        assert_eq!(ring.position_for(2 * BLOCK + 1), 20 * BLOCK, "the next turn");
        assert!(!ring.fits(3 * BLOCK), "and would overwrite the tail");
        ring.forget_before(3 * BLOCK);
        ring.advance(ring.position_for(3 * BLOCK), 3 * BLOCK);
        assert_eq!((ring.head(), ring.used(), ring.bytes_from(3 * BLOCK)), (23 * BLOCK, 6 * BLOCK, 6 * BLOCK));
        assert_eq!((ring.offset_of(20 * BLOCK), ring.room(BLOCK)), (RING_OFFSET, 0));
        assert!(!ring.fits(1) && !ring.can_lengthen(), "its ends lie in different turns");
        ring.forget_before(20 * BLOCK);
        assert_eq!((ring.used(), ring.bytes_from(22 * BLOCK)), (3 * BLOCK, BLOCK));
        ring.lengthen(20 * BLOCK);
        assert_eq!(ring.position_for(17 * BLOCK), 23 * BLOCK);
        assert!(ring.fits(17 * BLOCK) && !ring.fits(18 * BLOCK));
    }

    /// What recovery reads may say anything.
    #[test]
    fn a_log_that_a_ring_cannot_have_is_none() {
        let is_log = |part, tail, head| Ring::new(20 * BLOCK, part, tail, head).is_some();
        assert!(is_log(6 * BLOCK, 22 * BLOCK, 26 * BLOCK) && is_log(20 * BLOCK, BLOCK, 21 * BLOCK));
        assert!(!is_log(6 * BLOCK, 0, 7 * BLOCK), "behind the part");
        assert!(!is_log(6 * BLOCK, 7 * BLOCK, 20 * BLOCK), "from behind the part");
        assert!(!is_log(6 * BLOCK, 2 * BLOCK, BLOCK) && !is_log(6 * BLOCK, 0, 22 * BLOCK));
    }

    #[test]
    fn room_counts_the_skip() {
        let ring = Ring::new(60 * BLOCK, 60 * BLOCK, 0, 30 * BLOCK).unwrap();
        assert_eq!(ring.room(10 * BLOCK), 21 * BLOCK);
        assert_eq!(ring.room(7 * BLOCK), 30 * BLOCK, "no commit soon comes to the end");
    }
}

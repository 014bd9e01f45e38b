//! The files of the cache: which there are, how much they may take, which go.
//!
//! # The size
//!
//! What counts is what `du` would say of the directory: its files' blocks, with those in which the
//! file system keeps their extents, and the directory's own. A file is counted with its whole length
//! and a share for such extras from before it is made until its last reader has closed it, and a file
//! that must go is deleted before the next is made: so the size holds at every moment.

use super::folder::Folder;
use super::format::{FileHeader, FileKind, UNIT, VALUE_BYTES_MAX, judge_file};
use super::index::{FILE_UNITS_MAX, FILES};
use super::shelf::{Share, Shelf};
use super::{BYTES_MAX, BYTES_MIN, Shared};
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tracing::warn;

/// Files that a cache consists of, at most: one of them is what is forgotten at a time, and each
/// takes a descriptor. Far fewer than the index can tell apart, since numbers may have gaps.
const FILES_MAX: usize = 64;
/// The shortest file: a few of the longest values.
const FILE_BYTES_MIN: u64 = 4 << 20;
/// File lengths are multiples of this, the largest block that file systems use.
const BLOCK_BYTES: u64 = 64 << 10;
/// Set aside for the directory, the lock and the tag: a block each, and one to spare.
const BYTES_ASIDE: u64 = 4 * BLOCK_BYTES;
const _: () = assert!(FILES_MAX as u64 * 2 <= FILES);
const _: () = assert!(FILE_BYTES_MIN > 2 * VALUE_BYTES_MAX as u64);
const _: () = assert!(BYTES_MAX / FILES_MAX as u64 <= FILE_UNITS_MAX as u64 * UNIT as u64);
const _: () = assert!(BYTES_MIN >= BYTES_ASIDE + 8 * share_of(FILE_BYTES_MIN));

/// Why nothing can be stored just now.
#[derive(Debug)]
pub enum Trouble {
    Io(io::Error),
    /// Readers still hold files that were deleted.
    Later,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

/// The files, oldest first.
pub struct Stock {
    folder: Folder,
    store: [u8; 16],
    bytes_max: u64,
    file_bytes: u64,
    order: VecDeque<Arc<Shelf>>,
    next_number: u64,
    /// Bytes of files that have our names but are not ours.
    left_alone_bytes: u64,
}

impl Stock {
    pub fn new(folder: Folder, store: [u8; 16], bytes_max: u64) -> Stock {
        let file_bytes = file_bytes(bytes_max);
        Stock { folder, store, bytes_max, file_bytes, order: VecDeque::new(), next_number: 1, left_alone_bytes: 0 }
    }

    /// Takes the files of these numbers, which earlier runs left. What is of no use, of another
    /// store, or too much, is deleted. Returns the files to be loaded, oldest first.
    pub fn admit(&mut self, mut numbers: Vec<u64>, shared: &Shared) -> Vec<Arc<Shelf>> {
        assert!(self.order.is_empty(), "files are admitted once");
        self.left_alone_bytes = 0;
        numbers.sort_unstable();
        self.next_number = numbers.last().map_or(1, |last| last + 1);
        for number in numbers.into_iter().rev() {
            self.admit_file(number, shared);
        }
        self.order.iter().cloned().collect()
    }

    /// The newest of those still to be admitted.
    fn admit_file(&mut self, number: u64, shared: &Shared) {
        let (file, header, blocks) = match self.examine(number) {
            Ok((file, FileKind::Ours(header), blocks)) => (file, header, blocks),
            Ok((_, FileKind::Useless, blocks)) => return self.reject(number, blocks),
            Ok((_, FileKind::Foreign, blocks)) => {
                self.left_alone_bytes += blocks;
                let path = self.folder.path_of(number);
                return warn!("{}: has the name of a cache file, but is none: left alone", path.display());
            }
            Err(error) => {
                // It counts with what it can have.
                self.left_alone_bytes += share_of(self.file_bytes);
                let path = self.folder.path_of(number);
                return warn!("{}: {error}: left alone, delete it if it stays so", path.display());
            }
        };
        let share = share_of(header.bytes).max(blocks);
        let is_ours = header.number == number && header.store == self.store && is_possible_length(header.bytes);
        if !is_ours || self.counted_bytes() + share > self.bytes_max || self.is_crowded(number) {
            return self.reject(number, blocks);
        }
        let shelf = Arc::new(Shelf::open(file, header, Share::new(&shared.occupied, share)));
        *shared.shelf(shelf.id()).write() = Some(shelf.clone());
        self.order.push_front(shelf);
    }

    fn examine(&self, number: u64) -> io::Result<(std::fs::File, FileKind, u64)> {
        let file = self.folder.open_file(number)?;
        let metadata = file.metadata()?;
        let mut start = [0; UNIT];
        let length = metadata.len().min(UNIT as u64) as usize;
        file.read_exact_at(&mut start[..length], 0)?;
        let kind = match judge_file(&start[..length]) {
            FileKind::Ours(header) if metadata.len() > header.bytes => FileKind::Useless,
            kind => kind,
        };
        Ok((file, kind, metadata.blocks() * 512))
    }

    fn reject(&mut self, number: u64, blocks: u64) {
        if let Err(error) = self.folder.remove_file(number) {
            self.left_alone_bytes += blocks;
            warn!("{}: cannot be deleted: {error}", self.folder.path_of(number).display());
        }
    }

    /// Makes a new file, and deletes the oldest ones where they are in its way.
    pub fn create(&mut self, shared: &Shared) -> Result<Arc<Shelf>, Trouble> {
        while !self.has_room_for_one() {
            self.evict_oldest(shared)?;
        }
        // Never the one who takes a disk's last space. When that is gone, the oldest values make
        // room for new ones, and if others take what that gives back, the cache shrinks.
        let is_tight = |stock: &Stock| io::Result::Ok(stock.folder.free_space()? < 2 * stock.file_bytes);
        if is_tight(self)? {
            if !self.order.is_empty() {
                self.evict_oldest(shared)?;
            }
            if is_tight(self)? {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is full").into());
            }
        }
        let share = share_of(self.file_bytes);
        let taken = shared.occupied.load(Ordering::Acquire) + self.left_alone_bytes + BYTES_ASIDE;
        if taken + share > self.bytes_max {
            return Err(Trouble::Later);
        }
        let number = self.next_number;
        self.next_number += 1;
        let header =
            FileHeader { number, bytes: self.file_bytes, store: self.store, salt: getrandom::u64().unwrap_or(number) };
        let share = Share::new(&shared.occupied, share);
        let file = self.folder.create_file(number)?;
        let shelf = match Shelf::create(file, header, share) {
            Ok(shelf) => Arc::new(shelf),
            Err(error) => {
                self.reject(number, share_of(self.file_bytes));
                return Err(error.into());
            }
        };
        *shared.shelf(shelf.id()).write() = Some(shelf.clone());
        self.order.push_back(shelf.clone());
        Ok(shelf)
    }

    /// The file that will be deleted to make the next one, if one will be.
    pub fn next_to_go(&self) -> Option<Arc<Shelf>> {
        if self.has_room_for_one() { None } else { self.order.front().cloned() }
    }

    /// Whether a file is still among those in use.
    pub fn has(&self, shelf: &Arc<Shelf>) -> bool {
        self.order.iter().any(|other| Arc::ptr_eq(other, shelf))
    }

    /// Whether the directory was deleted, or its lock.
    pub fn is_lost(&self) -> bool {
        self.folder.is_lost()
    }

    /// Forgets the files that somebody deleted. Returns how many.
    pub fn forget_deleted(&mut self, shared: &Shared) -> usize {
        let before = self.order.len();
        self.order.retain(|shelf| {
            let is_deleted = shelf.is_deleted();
            if is_deleted {
                forget(shelf, shared);
            }
            !is_deleted
        });
        before - self.order.len()
    }

    /// Forgets all files, and makes and locks the directory anew.
    pub fn start_again(&mut self, shared: &Shared) -> io::Result<Vec<Arc<Shelf>>> {
        for shelf in std::mem::take(&mut self.order) {
            forget(&shelf, shared);
        }
        self.folder.open_again()?;
        let found = self.folder.numbers()?;
        Ok(self.admit(found, shared))
    }

    /// The directory, for people.
    pub fn path(&self) -> std::path::Display<'_> {
        self.folder.path().display()
    }

    fn evict_oldest(&mut self, shared: &Shared) -> io::Result<()> {
        let Some(oldest) = self.order.front() else {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "files that are not the cache's take its room"));
        };
        self.folder.remove_file(oldest.number)?;
        let oldest = self.order.pop_front().expect("the oldest, just seen");
        let forgotten = forget(&oldest, shared);
        shared.counters.evicted.fetch_add(forgotten, Ordering::Relaxed);
        Ok(())
    }

    fn has_room_for_one(&self) -> bool {
        self.counted_bytes() + share_of(self.file_bytes) <= self.bytes_max && !self.is_crowded(self.next_number)
    }

    /// Whether there are too many files for another one of that number.
    fn is_crowded(&self, number: u64) -> bool {
        let is_far = |other: Option<&Arc<Shelf>>| other.is_some_and(|other| other.number.abs_diff(number) >= FILES);
        self.order.len() >= FILES_MAX || is_far(self.order.front()) || is_far(self.order.back())
    }

    fn counted_bytes(&self) -> u64 {
        let files: u64 = self.order.iter().map(|shelf| shelf.share_bytes()).sum();
        files + self.left_alone_bytes + BYTES_ASIDE
    }
}

/// What a file of that length is counted with: file systems keep extents in blocks of their own.
const fn share_of(file_bytes: u64) -> u64 {
    let extras = file_bytes / 512;
    file_bytes + if extras > BLOCK_BYTES { extras } else { BLOCK_BYTES }
}

/// How long to make the files of a cache of that size.
fn file_bytes(bytes_max: u64) -> u64 {
    let share = (bytes_max - BYTES_ASIDE) / FILES_MAX as u64;
    let bytes = share.saturating_sub(BLOCK_BYTES.max(share / 512));
    (bytes / BLOCK_BYTES * BLOCK_BYTES).max(FILE_BYTES_MIN)
}

fn is_possible_length(bytes: u64) -> bool {
    let units_max = u64::from(FILE_UNITS_MAX);
    bytes.is_multiple_of(UNIT as u64) && (FILE_BYTES_MIN..=units_max * UNIT as u64).contains(&bytes)
}

/// Makes readers miss what is in a file. Returns how many values that were.
fn forget(shelf: &Arc<Shelf>, shared: &Shared) -> u64 {
    *shared.shelf(shelf.id()).write() = None;
    shared.index.clear(shelf.id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_fill_the_size_and_never_more() {
        for bytes_max in [BYTES_MIN, BYTES_MIN + 1, 100 << 20, 256 << 20, 300 << 20, 1 << 30, 100 << 30, BYTES_MAX] {
            let file = file_bytes(bytes_max);
            assert!(is_possible_length(file), "{bytes_max}: {file}");
            let count = ((bytes_max - BYTES_ASIDE) / share_of(file)).min(FILES_MAX as u64);
            assert!(count >= 8, "{bytes_max}: {count} files");
            let used = count * file;
            assert!(used * 100 >= bytes_max * 92, "{bytes_max}: only {used} bytes used");
            assert!(count * share_of(file) + BYTES_ASIDE <= bytes_max);
        }
    }
}

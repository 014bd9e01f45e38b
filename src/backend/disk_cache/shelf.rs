//! One file of the cache: read by many threads, appended to by one.
//!
//! A file gets all its space when it is made, so that later writes neither fail for want of space
//! nor let the file system keep more for it than was counted.

use super::Key;
use super::folder::is_deleted;
use super::format::{
    BOOKMARK_UNIT, CATALOG_RECORDS, ENTRIES_UNIT, EntryHeader, EntryKind, FileHeader, RECORD_BYTES, Record, UNIT,
    VALUE_BYTES_MAX, catalogs_units, decode_bookmark, decode_records, encode_bookmark, encode_records, put_entry,
    value_units,
};
use super::index::{FILES, Place};
use crate::backend::file::{fallocate, full_as_one, is_unsupported};
use bytes::Bytes;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes written before the kernel is asked to begin writing them to the disk.
const BEHIND_BYTES: u64 = 4 << 20;
/// How far back it is asked to forget its copies of what was written.
const FORGET_BYTES: u64 = 4 * BEHIND_BYTES;

/// A file.
pub struct Shelf {
    pub number: u64,
    salt: u64,
    units: u32,
    file: File,
    // After the file: its bytes are given back when it is closed, not before.
    share: Share,
}

/// What a file takes of the directory's size, from before it is made until it is closed.
pub struct Share {
    total: Arc<AtomicU64>,
    bytes: u64,
}

/// Why a value could not be read.
pub enum Wrong {
    Io(io::Error),
    /// These bytes are not what was written.
    Damaged,
}

/// Where entries end in a file, and how far its catalogs go.
pub struct Tail {
    end: u32,
    catalog: u32,
    uncatalogued: Vec<Record>,
}

/// The file that is appended to.
pub struct Active {
    shelf: Arc<Shelf>,
    tail: Tail,
    /// Entries not yet written. They end at the tail's end.
    buffer: Vec<u8>,
    buffered: HashMap<Key, Place>,
    /// The catalog that the bookmark on disk names.
    bookmark: u32,
    /// Bytes from here on were not yet begun to be written to the disk.
    behind: u64,
}

impl Share {
    pub fn new(total: &Arc<AtomicU64>, bytes: u64) -> Share {
        total.fetch_add(bytes, Ordering::AcqRel);
        Share { total: total.clone(), bytes }
    }

    /// Counts more, where a file turns out to take more.
    fn grow_to(&mut self, bytes: u64) {
        let more = bytes.saturating_sub(self.bytes);
        self.total.fetch_add(more, Ordering::AcqRel);
        self.bytes += more;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Shelf {
    /// A new file, with all its space.
    pub fn create(file: File, header: FileHeader, mut share: Share) -> io::Result<Shelf> {
        match fallocate(&file, 0, 0, header.bytes) {
            // Then its space comes as it is written.
            Err(error) if is_unsupported(&error) => file.set_len(header.bytes).map_err(full_as_one)?,
            done => done.map_err(full_as_one)?,
        }
        file.write_all_at(&header.encode(), 0).map_err(full_as_one)?;
        share.grow_to(file.metadata()?.blocks() * 512);
        Ok(Shelf::open(file, header, share))
    }

    /// A file that is there, and has that header.
    pub fn open(file: File, header: FileHeader, share: Share) -> Shelf {
        let units = (header.bytes / UNIT as u64) as u32;
        Shelf { number: header.number, salt: header.salt, units, file, share }
    }

    /// How the index calls it.
    pub fn id(&self) -> u8 {
        (self.number % FILES) as u8
    }

    /// Bytes that were counted for it.
    pub fn share_bytes(&self) -> u64 {
        self.share.bytes
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT as u64
    }

    /// Whether somebody deleted it.
    pub fn is_deleted(&self) -> bool {
        is_deleted(&self.file)
    }

    /// The value at that place with its key; `None` if it has another key than `wanted`.
    pub fn read(&self, place: Place, wanted: Option<&Key>) -> Result<Option<(Key, Bytes)>, Wrong> {
        let mut buffer = vec![0; UNIT + place.units as usize * UNIT];
        self.file.read_exact_at(&mut buffer, at_unit(place.unit)).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Wrong::Damaged,
            _ => Wrong::Io(error),
        })?;
        let header = buffer.first_chunk().and_then(|unit| EntryHeader::decode(unit, self.salt));
        let header = header.ok_or(Wrong::Damaged)?;
        let EntryKind::Value(key) = header.kind else { return Err(Wrong::Damaged) };
        if wanted.is_some_and(|wanted| *wanted != key) {
            return Ok(None);
        }
        let end = UNIT + header.length as usize;
        if !buffer.get(UNIT..end).is_some_and(|value| header.fits(value)) {
            return Err(Wrong::Damaged);
        }
        Ok(Some((key, Bytes::from(buffer).slice(UNIT..end))))
    }

    /// Whether the entry at that unit has that key.
    pub fn has_key(&self, unit: u32, key: &Key) -> bool {
        matches!(self.header(unit), Ok(Some(header)) if header.kind == EntryKind::Value(*key))
    }

    /// Calls `found` with each value of the file: from its catalogs, and what follows the newest of
    /// them from the entries themselves. Values may be named twice. Their checksums are not looked
    /// at. Ends early, with `Interrupted`, when `is_over` says so.
    pub fn load(&self, is_over: &dyn Fn() -> bool, found: &mut dyn FnMut(Record)) -> io::Result<Tail> {
        let found = &mut |record: Record| {
            if self.is_possible(&record) {
                found(record);
            }
        };
        let tail = self.load_catalogs(is_over, found)?;
        let start = Tail { end: ENTRIES_UNIT, catalog: 0, uncatalogued: Vec::new() };
        self.walk(tail.unwrap_or(start), is_over, found)
    }

    /// `None`: there are no catalogs, or one of them is damaged.
    fn load_catalogs(&self, is_over: &dyn Fn() -> bool, found: &mut dyn FnMut(Record)) -> io::Result<Option<Tail>> {
        let Some(unit) = self.unit(BOOKMARK_UNIT)? else { return Ok(None) };
        let Some(newest) = decode_bookmark(&unit, self.salt) else { return Ok(None) };
        let (mut end, mut next) = (None, newest);
        while next != 0 {
            stop_if(is_over())?;
            let Some(header) = self.header(next)? else { return Ok(None) };
            let EntryKind::Catalog(previous) = header.kind else { return Ok(None) };
            let mut value = vec![0; header.length as usize];
            match self.file.read_exact_at(&mut value, at_unit(next + 1)) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                done => done?,
            }
            // A chain that does not go back would have no end.
            if !header.fits(&value) || previous >= next {
                return Ok(None);
            }
            decode_records(&value).for_each(&mut *found);
            end.get_or_insert(next + 1 + value_units(value.len()));
            next = previous;
        }
        Ok(end.map(|end| Tail { end, catalog: newest, uncatalogued: Vec::new() }))
    }

    /// Goes from entry to entry until there is none.
    fn walk(&self, mut tail: Tail, is_over: &dyn Fn() -> bool, found: &mut dyn FnMut(Record)) -> io::Result<Tail> {
        while let Some(header) = self.header(tail.end)? {
            stop_if(is_over())?;
            let next = tail.end + 1 + value_units(header.length as usize);
            if next > self.units {
                break;
            }
            match header.kind {
                EntryKind::Value(key) => {
                    let record = Record { key, unit: tail.end, length: header.length };
                    found(record);
                    tail.uncatalogued.push(record);
                }
                EntryKind::Catalog(_) => {
                    tail.catalog = tail.end;
                    tail.uncatalogued.clear();
                }
            }
            tail.end = next;
        }
        Ok(tail)
    }

    fn is_possible(&self, record: &Record) -> bool {
        let length = record.length as usize;
        let fits = |units: u32| record.unit.checked_add(1 + units).is_some_and(|end| end <= self.units);
        record.unit >= ENTRIES_UNIT && length <= VALUE_BYTES_MAX && fits(value_units(length))
    }

    fn header(&self, unit: u32) -> io::Result<Option<EntryHeader>> {
        Ok(self.unit(unit)?.and_then(|unit| EntryHeader::decode(&unit, self.salt)))
    }

    /// `None`: past the end.
    fn unit(&self, unit: u32) -> io::Result<Option<[u8; UNIT]>> {
        let mut bytes = [0; UNIT];
        match self.file.read_exact_at(&mut bytes, at_unit(unit)) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, unit: u32, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at_unit(unit)).map_err(full_as_one)
    }
}

impl Active {
    /// Appends to a new file.
    pub fn new(shelf: Arc<Shelf>) -> Active {
        Active::resume(shelf, Tail { end: ENTRIES_UNIT, catalog: 0, uncatalogued: Vec::new() })
    }

    /// Goes on where a file's entries end.
    pub fn resume(shelf: Arc<Shelf>, tail: Tail) -> Active {
        let (bookmark, behind) = (tail.catalog, at_unit(tail.end));
        Active { shelf, tail, buffer: Vec::new(), buffered: HashMap::new(), bookmark, behind }
    }

    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// Whether a value of so many bytes fits in, with the catalog that will name it.
    pub fn has_room(&self, length: usize) -> bool {
        let entry = 1 + value_units(length);
        let catalogs = catalogs_units(self.tail.uncatalogued.len() + 1);
        self.tail.end + entry + catalogs <= self.shelf.units
    }

    /// How much of the file is filled: so many units of so many.
    pub fn filled(&self) -> (u32, u32) {
        (self.tail.end, self.shelf.units)
    }

    /// Whether that key is among what waits to be written.
    pub fn is_buffered(&self, key: &Key) -> bool {
        self.buffered.contains_key(key)
    }

    /// How many values wait to be written, and bytes with headers.
    pub fn buffered(&self) -> (usize, usize) {
        (self.buffered.len(), self.buffer.len())
    }

    /// Appends a value, in memory. There must be room for it.
    pub fn push(&mut self, key: &Key, value: &[u8]) {
        assert!(self.has_room(value.len()), "no room for {} bytes in file {}", value.len(), self.shelf.number);
        let (unit, units) = (self.tail.end, value_units(value.len()));
        self.buffered.insert(*key, Place { file: self.shelf.id(), unit, units });
        put_entry(&mut self.buffer, EntryKind::Value(*key), value, self.shelf.salt);
        self.tail.uncatalogued.push(Record { key: *key, unit, length: value.len() as u32 });
        self.tail.end += 1 + units;
        if self.tail.uncatalogued.len() >= CATALOG_RECORDS {
            self.push_catalog();
        }
    }

    /// Appends a catalog of all values that are in none yet, in memory.
    pub fn push_catalog(&mut self) {
        for records in std::mem::take(&mut self.tail.uncatalogued).chunks(CATALOG_RECORDS) {
            let kind = EntryKind::Catalog(self.tail.catalog);
            put_entry(&mut self.buffer, kind, &encode_records(records), self.shelf.salt);
            self.tail.catalog = self.tail.end;
            self.tail.end += 1 + value_units(records.len() * RECORD_BYTES);
        }
        assert!(self.tail.end <= self.shelf.units, "the catalog had no room");
    }

    /// Writes what waits, and says where it lies now. After an error the file is to be loaded anew.
    pub fn write_out(&mut self) -> io::Result<HashMap<Key, Place>> {
        let start = self.tail.end - (self.buffer.len() / UNIT) as u32;
        if self.tail.end < self.shelf.units {
            // What a power cut left further back must not seem to follow.
            self.buffer.extend_from_slice(&[0; UNIT]);
        }
        self.shelf.write(start, &self.buffer)?;
        if self.bookmark != self.tail.catalog {
            self.shelf.write(BOOKMARK_UNIT, &encode_bookmark(self.tail.catalog, self.shelf.salt))?;
            self.bookmark = self.tail.catalog;
        }
        self.buffer.clear();
        let end = at_unit(self.tail.end);
        if end - self.behind >= BEHIND_BYTES {
            write_behind(&self.shelf.file, end);
            self.behind = end;
        }
        Ok(std::mem::take(&mut self.buffered))
    }
}

/// Has the kernel begin to write what was written lately, and forget what is on the disk by now.
fn write_behind(file: &File, end: u64) {
    let start = end.saturating_sub(FORGET_BYTES);
    let (Ok(from), Ok(length)) = (libc::off_t::try_from(start), libc::off_t::try_from(end - start)) else { return };
    // SAFETY: the descriptor is open; no memory is handed over. It is advice: failure is harmless.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), from, length, libc::POSIX_FADV_DONTNEED) };
}

fn at_unit(unit: u32) -> u64 {
    u64::from(unit) * UNIT as u64
}

fn stop_if(is_over: bool) -> io::Result<()> {
    if is_over { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

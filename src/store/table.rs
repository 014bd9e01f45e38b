//! The segment table: how many live bytes each data segment holds, and where it lies.
//!
//! One exact counter a segment (R13): the sum over everything that refers into it, a page counting
//! its stored length, an extent about as much of its unit as its piece is
//! ([`Extent::counted`](crate::tree::Extent::counted)). Nothing but a counter at zero frees a segment. The table belongs to a checkpoint as the tree does: it is cloned when the tree is
//! frozen, gets the pages that the checkpoint writes, and is stored with it.
//!
//! It is stored as chunks of 256 consecutive numbers, of which only the changed ones are written,
//! and a list of chunks. (The starting design had a second B+Tree; this needs no page of its own
//! to be counted by itself, and is read whole at every mount anyway.)
//!
//! Chunk, little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `kvTC` |
//! | 8 | chunk number: the segments' numbers divided by 256 |
//! | 2 | number of entries |
//! | 13 each | number modulo 256 (1), live bytes (8), place (4): in a file the slot, in a bucket the object's length in bytes, or 0 if that is not known; rising |
//!
//! List:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `kvTL` |
//! | 4 | number of chunks |
//! | 41 each | chunk number (8), pointer (29), place of the segment that the chunk lies in (4) |
//! | 8 or 0 | how many of the live bytes are pages of the tree; not there: nobody knows |

use crate::log::{Birth, Fields, Malformed, POINTER_BYTES, Pointer, SegmentNo};
use crate::tree::Ledger;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

const CHUNK_MAGIC: &[u8; 4] = b"kvTC";
const LIST_MAGIC: &[u8; 4] = b"kvTL";
const CHUNK_SEGMENTS: u64 = 256;
const ENTRY_BYTES: usize = 13;
const ITEM_BYTES: usize = 8 + POINTER_BYTES + 4;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bytes of it that are referred to.
    pub live: u64,
    /// Its slot; in a bucket its length, or 0 if that is not known.
    pub place: u32,
}

type Chunk = BTreeMap<u8, Entry>;

/// The table. Cloning it costs one step a chunk.
#[derive(Clone, Debug)]
pub struct Table {
    /// What a segment can hold.
    segment_bytes: u64,
    /// Segments are objects of their own lengths, not slots of one.
    is_of_objects: bool,
    chunks: BTreeMap<u64, Arc<Chunk>>,
    /// Chunks that differ from what is stored.
    changed: BTreeSet<u64>,
    /// How many segments there are.
    count: u64,
    /// How many of them have no live bytes.
    dead: u64,
    /// Live bytes of all.
    live: u64,
    /// What all take.
    occupied: u64,
    /// What those of them take that have live bytes.
    taken: u64,
    /// Live bytes of all, but of no segment more than it holds.
    held: u64,
    /// Live bytes that are pages; none: that is not known, since a kivafs made the store that did not count them.
    pages: Option<u64>,
}

/// Changes to the counters, gathered during one call of the tree: a subtraction may come before
/// the addition that it undoes, and none of them count if the call fails.
#[derive(Default)]
pub struct Deltas {
    of_segments: HashMap<SegmentNo, i64>,
    of_pages: i64,
}

impl Ledger for Deltas {
    fn add(&mut self, segment: SegmentNo, bytes: u64) {
        *self.of_segments.entry(segment).or_default() += bytes as i64;
    }

    fn sub(&mut self, segment: SegmentNo, bytes: u64) {
        *self.of_segments.entry(segment).or_default() -= bytes as i64;
    }

    fn add_page(&mut self, at: &Pointer) {
        self.of_pages += i64::from(at.length);
        self.add(at.segment, at.length.into());
    }

    fn sub_page(&mut self, at: &Pointer) {
        self.of_pages -= i64::from(at.length);
        self.sub(at.segment, at.length.into());
    }
}

impl Deltas {
    /// The segments that they concern.
    pub fn segments(&self) -> impl Iterator<Item = SegmentNo> + '_ {
        self.of_segments.iter().filter(|(_, delta)| **delta != 0).map(|(number, _)| *number)
    }
}

impl Table {
    /// Of a file, without segments. Those to come have that many bytes each.
    pub fn of_slots(segment_bytes: u64) -> Table {
        Table {
            segment_bytes,
            is_of_objects: false,
            chunks: BTreeMap::new(),
            changed: BTreeSet::new(),
            count: 0,
            dead: 0,
            live: 0,
            occupied: 0,
            taken: 0,
            held: 0,
            pages: Some(0),
        }
    }

    /// Of a bucket, without segments. Those to come have at most that many bytes each.
    pub fn of_objects(segment_bytes: u64) -> Table {
        Table { is_of_objects: true, ..Table::of_slots(segment_bytes) }
    }

    /// A segment was opened.
    pub fn born(&mut self, birth: Birth) {
        let entry = Entry { live: 0, place: birth.place };
        let before = self.chunk_mut(birth.number).insert(low(birth.number), entry);
        assert!(before.is_none(), "R3: {:?} is born twice", birth.number);
        self.count += 1;
        self.dead += 1;
        self.occupied += self.bytes_of(entry);
    }

    /// A bucket's segment has so many bytes, and will not have more. (Nothing happens if it has been freed.)
    pub fn ended(&mut self, number: SegmentNo, bytes: u32) {
        assert!(self.is_of_objects, "slots are all of one size");
        let Some(before) = self.get(number) else { return };
        let after = Entry { place: bytes, ..before };
        self.count_as(before, after);
        self.occupied = self.occupied - self.bytes_of(before) + self.bytes_of(after);
        self.chunk_mut(number).insert(low(number), after);
    }

    /// A freed segment is forgotten.
    pub fn remove(&mut self, number: SegmentNo) {
        let entry = self.chunk_mut(number).remove(&low(number));
        assert!(entry.is_some_and(|entry| entry.live == 0), "{number:?} is freed as {entry:?}");
        self.occupied -= entry.map_or(0, |entry| self.bytes_of(entry));
        self.count -= 1;
        self.dead -= 1;
        let chunk = number.0 / CHUNK_SEGMENTS;
        if self.chunks.get(&chunk).is_some_and(|chunk| chunk.is_empty()) {
            self.chunks.remove(&chunk);
        }
    }

    /// Counts; false: a counter would fall below zero, or a segment does not exist. That is our
    /// bug, unless the changes come from stored bytes.
    #[must_use]
    pub fn apply(&mut self, deltas: Deltas) -> bool {
        let pages = self.pages.map(|pages| pages.checked_add_signed(deltas.of_pages));
        if pages == Some(None) {
            return false;
        }
        self.pages = pages.flatten();
        for (number, delta) in deltas.of_segments {
            if delta == 0 {
                continue;
            }
            if self.get(number).is_none() {
                return false;
            }
            let entry = self.chunk_mut(number).get_mut(&low(number)).expect("just seen");
            let Some(live) = entry.live.checked_add_signed(delta) else { return false };
            let (before, after) = (*entry, Entry { live, ..*entry });
            *entry = after;
            self.live = self.live.wrapping_add_signed(delta);
            self.dead = self.dead - u64::from(before.live == 0) + u64::from(live == 0);
            self.count_as(before, after);
        }
        true
    }

    /// What a segment takes.
    pub fn bytes_of(&self, entry: Entry) -> u64 {
        if self.is_of_objects && entry.place > 0 { entry.place.into() } else { self.segment_bytes }
    }

    /// What it takes as long as anything in it lives, and how much of that holds what lives.
    fn figures(&self, entry: Entry) -> (u64, u64) {
        let bytes = self.bytes_of(entry);
        if entry.live > 0 { (bytes, bytes.min(entry.live)) } else { (0, 0) }
    }

    /// A segment is no longer this but that.
    fn count_as(&mut self, before: Entry, after: Entry) {
        let ((taken_before, held_before), (taken, held)) = (self.figures(before), self.figures(after));
        self.taken = self.taken - taken_before + taken;
        self.held = self.held - held_before + held;
    }

    /// How many segments have no live bytes: those that are being filled for the first time, and
    /// those that the next checkpoint frees.
    pub fn dead(&self) -> u64 {
        self.dead
    }

    /// Live bytes of all segments.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// What all segments take.
    pub fn occupied(&self) -> u64 {
        self.occupied
    }

    /// What those of them take that have live bytes.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes of these that hold what is live: copies that share an extent count for it once more each, and what is
    /// compressed by up to an eighth of its length too much, so that the counters of one segment may add up to more
    /// than it has.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// How many of the live bytes are pages that the tree has stored; none: that is not known.
    pub fn pages(&self) -> Option<u64> {
        self.pages
    }

    /// That is so, as the list says; before anything is counted.
    pub fn set_pages(&mut self, pages: Option<u64>) {
        self.pages = pages;
    }

    /// What is known of a segment.
    pub fn get(&self, number: SegmentNo) -> Option<Entry> {
        self.chunks.get(&(number.0 / CHUNK_SEGMENTS))?.get(&low(number)).copied()
    }

    /// Most bytes that storing what changed takes.
    pub fn stored_bytes_max(&self) -> u64 {
        let chunk = 14 + CHUNK_SEGMENTS * ENTRY_BYTES as u64;
        16 + self.changed.len() as u64 * chunk + (self.chunks.len() * ITEM_BYTES) as u64
    }

    /// How many segments there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All segments, by number.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentNo, Entry)> + '_ {
        self.chunks.iter().flat_map(|(chunk, entries)| {
            entries.iter().map(move |(low, entry)| (SegmentNo(chunk * CHUNK_SEGMENTS + u64::from(*low)), *entry))
        })
    }

    /// The changed chunks, which count as stored from now on: their numbers, and their bytes unless
    /// they are empty by now.
    pub fn take_changed(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.changed)
    }

    /// Takes back [`Table::take_changed`]: they were not stored after all.
    pub fn put_back_changed(&mut self, changed: BTreeSet<u64>) {
        self.changed.extend(changed);
    }

    /// The bytes of a chunk; none: it is empty.
    pub fn encode_chunk(&self, number: u64) -> Option<Vec<u8>> {
        let chunk = self.chunks.get(&number)?;
        let mut out = CHUNK_MAGIC.to_vec();
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&(chunk.len() as u16).to_le_bytes());
        for (low, entry) in chunk.iter() {
            out.push(*low);
            out.extend_from_slice(&entry.live.to_le_bytes());
            out.extend_from_slice(&entry.place.to_le_bytes());
        }
        Some(out)
    }

    /// Adds a stored chunk.
    pub fn decode_chunk(&mut self, number: u64, bytes: &[u8]) -> Result<(), Malformed> {
        let what = "segment table chunk";
        let mut fields = Fields(bytes);
        if fields.array::<4>(what)? != *CHUNK_MAGIC || fields.u64(what)? != number {
            return Err(Malformed { what });
        }
        let count = usize::from(fields.u16(what)?);
        if fields.0.len() != count * ENTRY_BYTES {
            return Err(Malformed { what });
        }
        let mut chunk = Chunk::new();
        for _ in 0..count {
            let low = fields.u8(what)?;
            let entry = Entry { live: fields.u64(what)?, place: fields.u32(what)? };
            if chunk.last_key_value().is_some_and(|(before, _)| *before >= low) {
                return Err(Malformed { what });
            }
            chunk.insert(low, entry);
        }
        self.count += chunk.len() as u64;
        self.live = chunk.values().fold(self.live, |sum, entry| sum.saturating_add(entry.live));
        for entry in chunk.values() {
            self.count_as(Entry { live: 0, place: 0 }, *entry);
            self.occupied += self.bytes_of(*entry);
        }
        self.dead += chunk.values().filter(|entry| entry.live == 0).count() as u64;
        let before = self.chunks.insert(number, Arc::new(chunk));
        assert!(before.is_none(), "a chunk is read once");
        Ok(())
    }

    fn chunk_mut(&mut self, number: SegmentNo) -> &mut Chunk {
        let chunk = number.0 / CHUNK_SEGMENTS;
        self.changed.insert(chunk);
        Arc::make_mut(self.chunks.entry(chunk).or_default())
    }
}

/// A chunk as the list names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredChunk {
    /// Where its bytes are.
    pub pointer: Pointer,
    /// The slot of that segment.
    pub place: u32,
}

/// What the list says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The chunks that there are.
    pub chunks: BTreeMap<u64, StoredChunk>,
    /// As [`Table::pages`].
    pub pages: Option<u64>,
}

/// The list's bytes.
pub fn encode_list(chunks: &BTreeMap<u64, StoredChunk>, pages: Option<u64>) -> Vec<u8> {
    let mut out = LIST_MAGIC.to_vec();
    out.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
    for (number, chunk) in chunks {
        out.extend_from_slice(&number.to_le_bytes());
        chunk.pointer.encode(&mut out);
        out.extend_from_slice(&chunk.place.to_le_bytes());
    }
    out.extend(pages.iter().flat_map(|pages| pages.to_le_bytes()));
    out
}

/// Reads the list.
pub fn decode_list(bytes: &[u8]) -> Result<List, Malformed> {
    let what = "segment table list";
    let mut fields = Fields(bytes);
    if fields.array::<4>(what)? != *LIST_MAGIC {
        return Err(Malformed { what });
    }
    let count = fields.u32(what)? as usize;
    let rest = count.checked_mul(ITEM_BYTES).and_then(|items| fields.0.len().checked_sub(items));
    if rest.is_none_or(|rest| rest != 0 && rest != 8) {
        return Err(Malformed { what });
    }
    let mut chunks = BTreeMap::new();
    for _ in 0..count {
        let number = fields.u64(what)?;
        let pointer = Pointer::decode(&fields.array(what)?).ok_or(Malformed { what })?;
        chunks.insert(number, StoredChunk { pointer, place: fields.u32(what)? });
    }
    let pages = if fields.0.is_empty() { None } else { Some(fields.u64(what)?) };
    Ok(List { chunks, pages })
}

fn low(number: SegmentNo) -> u8 {
    (number.0 % CHUNK_SEGMENTS) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Codec;

    #[test]
    fn golden_bytes() {
        let mut table = Table::of_slots(8 << 20);
        table.born(Birth { number: SegmentNo(257), place: 3 });
        let mut deltas = Deltas::default();
        deltas.sub(SegmentNo(257), 5);
        deltas.add(SegmentNo(257), 12);
        assert!(table.apply(deltas));
        let golden = b"kvTC\x01\0\0\0\0\0\0\0\x01\0\x01\x07\0\0\0\0\0\0\0\x03\0\0\0";
        assert_eq!(table.encode_chunk(1).as_deref(), Some(&golden[..]));
        assert_eq!(table.take_changed(), BTreeSet::from([1]));
        let mut read = Table::of_slots(8 << 20);
        for cut in 0..golden.len() {
            assert!(read.decode_chunk(1, &golden[..cut]).is_err(), "cut at {cut}");
        }
        read.decode_chunk(1, golden).expect("golden");
        assert_eq!(read.get(SegmentNo(257)), Some(Entry { live: 7, place: 3 }));
    }

    #[test]
    fn golden_list() {
        let pointer =
            Pointer { segment: SegmentNo(1), offset: 2, length: 3, codec: Codec::Raw, shrunk: 0, checksum: 4 };
        let chunks = BTreeMap::from([(9, StoredChunk { pointer, place: 5 })]);
        let bytes = encode_list(&chunks, None);
        let mut golden = b"kvTL\x01\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\x02\0\0\x03\0".to_vec();
        golden.extend_from_slice(&4u128.to_be_bytes());
        golden.extend_from_slice(b"\x05\0\0\0");
        assert_eq!(bytes, golden);
        for cut in 0..bytes.len() {
            assert!(decode_list(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decode_list(&bytes), Ok(List { chunks: chunks.clone(), pages: None }));
        golden.extend_from_slice(b"\x07\x01\0\0\0\0\0\0");
        assert_eq!(encode_list(&chunks, Some(263)), golden);
        for cut in bytes.len() + 1..golden.len() {
            assert!(decode_list(&golden[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decode_list(&golden), Ok(List { chunks, pages: Some(263) }));
    }

    #[test]
    fn the_dead_are_counted() {
        let mut table = Table::of_slots(8 << 20);
        table.born(Birth { number: SegmentNo(1), place: 0 });
        table.born(Birth { number: SegmentNo(300), place: 1 });
        assert_eq!(table.dead(), 2);
        let mut deltas = Deltas::default();
        deltas.add(SegmentNo(1), 5);
        assert!(table.apply(deltas));
        assert_eq!(table.dead(), 1);
        let mut read = Table::of_slots(8 << 20);
        for chunk in [0, 1] {
            read.decode_chunk(chunk, &table.encode_chunk(chunk).expect("not empty")).expect("just encoded");
        }
        assert_eq!(read.dead(), 1);
        let mut deltas = Deltas::default();
        deltas.sub(SegmentNo(1), 5);
        assert!(table.apply(deltas));
        table.remove(SegmentNo(300));
        assert_eq!(table.dead(), 1);
    }

    /// Copies that share, and what compresses.
    #[test]
    fn a_segment_holds_no_more_than_it_can() {
        let mut table = Table::of_slots(100);
        let mut add = |bytes: i64| {
            let mut deltas = Deltas::default();
            match bytes {
                0.. => deltas.add(SegmentNo(1), bytes as u64),
                _ => deltas.sub(SegmentNo(1), bytes.unsigned_abs()),
            }
            if table.get(SegmentNo(1)).is_none() {
                table.born(Birth { number: SegmentNo(1), place: 0 });
            }
            assert!(table.apply(deltas));
            let mut read = Table::of_slots(100);
            read.decode_chunk(0, &table.encode_chunk(0).expect("not empty")).expect("just encoded");
            assert_eq!(read.held(), table.held());
            (table.live(), table.held())
        };
        assert_eq!([add(60), add(60), add(60)], [(60, 60), (120, 100), (180, 100)]);
        assert_eq!([add(-60), add(-60), add(-60)], [(120, 100), (60, 60), (0, 0)]);
    }

    /// In a bucket.
    #[test]
    fn an_object_takes_as_much_as_it_has() {
        let mut table = Table::of_objects(100);
        let number = SegmentNo(1);
        let add = |table: &mut Table, bytes: u64| {
            let mut deltas = Deltas::default();
            deltas.add(number, bytes);
            assert!(table.apply(deltas));
            (table.taken(), table.held())
        };
        table.born(Birth { number, place: 0 });
        assert_eq!((table.taken(), table.held()), (0, 0));
        assert_eq!(add(&mut table, 30), (100, 30), "as long as it is not known, as much as any may have");
        table.ended(number, 40);
        assert_eq!((table.taken(), table.held(), add(&mut table, 30)), (40, 30, (40, 40)));
        table.ended(SegmentNo(2), 40);
        let mut read = Table::of_objects(100);
        read.decode_chunk(0, &table.encode_chunk(0).expect("not empty")).expect("just encoded");
        assert_eq!((read.occupied(), read.taken(), read.held(), read.count()), (40, 40, 40, 1));
        let mut deltas = Deltas::default();
        deltas.sub(number, 60);
        assert!(table.apply(deltas));
        assert_eq!((table.occupied(), table.taken(), table.held(), table.dead()), (40, 0, 0, 1));
        table.remove(number);
        assert_eq!((table.occupied(), table.count()), (0, 0));
    }

    #[test]
    fn counters_do_not_fall_below_zero() {
        let mut table = Table::of_slots(8 << 20);
        table.born(Birth { number: SegmentNo(1), place: 0 });
        let mut deltas = Deltas::default();
        deltas.sub(SegmentNo(1), 1);
        assert!(!table.apply(deltas));
        let mut deltas = Deltas::default();
        deltas.add(SegmentNo(2), 1);
        assert!(!table.apply(deltas), "no such segment");
    }
}

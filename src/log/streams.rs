//! The data segments being filled, and everything appended that is not on disk yet.
//!
//! A payload goes from the open segment's buffer to a *part* (cut off for the storage thread), and
//! is on disk when that part has been written. Readers look in this order, so that they never miss
//! it on the way.
//!
//! In a bucket a part is a whole segment, uploaded as one object: what is cut off ends its segment,
//! however short that is.
//!
//! S1 A part begins and ends on block boundaries: a block with acknowledged bytes is never written
//! again.
//! S2 A segment's number is used once in what recovery can see (R3), and only below the
//! reservation.

use super::codec;
use super::commit::Birth;
use super::geometry::BLOCK;
use super::local::Slots;
use super::payload::Payload;
use super::pointer::{Codec, Pointer, SegmentNo, checksum};
use super::segment::{self, Index, STREAMS, Stream};
use super::{LogError, Message, Need};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A buffer this long is cut off and written while the segment is still being filled.
const PART_BYTES: usize = 1 << 20;
/// And has room for what it is cut off behind, so that it is not moved: a payload, and the rest of a block.
const BUFFER_BYTES: usize = PART_BYTES + (72 << 10);

/// A run of whole blocks of a segment, to be written.
pub struct Part {
    /// The segment.
    pub segment: SegmentNo,
    /// Its slot (local).
    pub place: u32,
    /// Where the run begins in it.
    pub offset: u32,
    /// The run.
    pub bytes: Bytes,
    /// There is nothing in it but pages, to which only a checkpoint refers.
    pub is_of_pages: bool,
}

struct Open {
    number: SegmentNo,
    place: u32,
    /// Offset in the segment of the buffer's first byte.
    base: usize,
    buffer: Vec<u8>,
    index: Index,
}

/// Everything that the appenders share, under one lock.
pub struct Streams {
    store: [u8; 16],
    epoch: u64,
    segment_bytes: usize,
    /// By stream.
    open: [Option<Open>; STREAMS],
    /// A stream without space of its own has used another's segment.
    is_mixed: bool,
    /// The slots of the file; none in a bucket.
    slots: Option<Slots>,
    next_number: u64,
    /// Numbers below this are covered by a durable commit.
    pub reservation: u64,
    births: Vec<Birth>,
    /// Of a bucket's segments that have ended since that was last asked.
    lengths: Vec<(SegmentNo, u32)>,
    parts: BTreeMap<(SegmentNo, u32), (Bytes, usize)>,
    parts_handed_over: u64,
    places: HashMap<SegmentNo, u32>,
}

impl Streams {
    /// No segment open yet.
    pub fn new(
        store: [u8; 16],
        epoch: u64,
        segment_bytes: u32,
        slots: Option<Slots>,
        next_number: u64,
        places: HashMap<SegmentNo, u32>,
    ) -> Streams {
        Streams {
            store,
            epoch,
            segment_bytes: segment_bytes as usize,
            open: Default::default(),
            is_mixed: false,
            slots,
            next_number,
            reservation: next_number,
            births: Vec::new(),
            lengths: Vec::new(),
            parts: BTreeMap::new(),
            parts_handed_over: 0,
            places,
        }
    }

    /// From here on segments of that epoch are written, into these slots, with numbers below the
    /// reservation.
    pub fn begin_epoch(&mut self, epoch: u64, slots: Option<Slots>, reservation: u64) {
        assert!(self.open.iter().all(Option::is_none), "R3: a mount starts in new segments");
        self.epoch = epoch;
        self.slots = slots;
        self.reservation = reservation;
    }

    /// Segments opened from here on are of that epoch.
    pub fn roll(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// The slots of a local store.
    pub fn slots(&mut self) -> &mut Slots {
        self.slots.as_mut().expect("only a local store's thread asks for slots")
    }

    /// Longest payload, as stored, that a segment can hold.
    pub fn payload_bytes_max(segment_bytes: u32) -> usize {
        segment_bytes as usize - segment::HEADER_BYTES - Index::default().bytes_with(&[0; segment::HINT_BYTES_MAX])
    }

    /// Appends stored bytes; answers their pointer. `send` takes parts to be written.
    pub fn append(
        &mut self,
        stream: Stream,
        codec: Codec,
        shrunk: u8,
        stored: &[u8],
        hint: &[u8],
        send: &mut dyn FnMut(Message),
    ) -> Result<Pointer, LogError> {
        assert!(stored.len() <= Streams::payload_bytes_max(self.segment_bytes as u32), "a payload of {}", stored.len());
        let which = self.ready_for(stream, stored.len(), hint, send)?;
        let open = self.open[which].as_mut().expect("just made ready");
        let pointer = Pointer {
            segment: open.number,
            offset: (open.base + open.buffer.len()) as u32,
            length: stored.len() as u32,
            codec,
            shrunk,
            checksum: checksum(stored),
        };
        open.buffer.extend_from_slice(stored);
        open.index.push(&pointer, hint);
        if self.slots.is_some() && open.buffer.len() >= PART_BYTES {
            self.cut_open(which, send);
        }
        Ok(pointer)
    }

    /// Makes an open segment ready to take that payload; answers which.
    fn ready_for(
        &mut self,
        stream: Stream,
        length: usize,
        hint: &[u8],
        send: &mut dyn FnMut(Message),
    ) -> Result<usize, LogError> {
        let which = stream.index();
        let segment_bytes = self.segment_bytes;
        let fits = |open: &Open| open.base + open.buffer.len() + length + open.index.bytes_with(hint) <= segment_bytes;
        if self.open[which].as_ref().is_some_and(fits) {
            return Ok(which);
        }
        self.seal(which, send);
        // Before the reserve another stream's segment: capacity counts what is left of all for any, and the next
        // mount, which continues none, would have no reserve on a disk that is full.
        for need in [Need::Growth, Need::Reserve] {
            match self.open_segment(stream, need) {
                Ok(open) => {
                    self.open[which] = Some(open);
                    return Ok(which);
                }
                Err(LogError::NoSpace) => {
                    if let Some(other) = self.open.iter().position(|open| open.as_ref().is_some_and(fits)) {
                        self.is_mixed = true;
                        return Ok(other);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(LogError::NoSpace)
    }

    /// Cuts off what was appended to the stream, so that it gets written.
    pub fn cut(&mut self, stream: Stream, send: &mut dyn FnMut(Message)) {
        match self.is_mixed {
            true => (0..STREAMS).for_each(|which| self.cut_open(which, send)),
            false => self.cut_open(stream.index(), send),
        }
    }

    fn cut_open(&mut self, which: usize, send: &mut dyn FnMut(Message)) {
        if self.slots.is_none() {
            self.seal(which, send);
            return;
        }
        let Some(open) = self.open[which].as_mut() else { return };
        // S1. Near the segment's end the padding may meet the place of index and footer: then only
        // the seal can write that block, and does.
        let padded = open.buffer.len().next_multiple_of(BLOCK as usize);
        let room = self.segment_bytes - open.base;
        if open.buffer.is_empty() {
            return;
        }
        if padded + open.index.bytes_with(&[0; segment::HINT_BYTES_MAX]) > room {
            self.seal(which, send);
            return;
        }
        open.buffer.resize(padded, 0);
        let next = Vec::with_capacity(BUFFER_BYTES.min(room - padded));
        let bytes = Bytes::from(std::mem::replace(&mut open.buffer, next));
        let (number, place, base) = (open.number, open.place, open.base);
        open.base += padded;
        self.hand_over(which, (number, place, base), bytes, send);
    }

    fn seal(&mut self, which: usize, send: &mut dyn FnMut(Message)) {
        let Some(mut open) = self.open[which].take() else { return };
        let end = std::mem::take(&mut open.index).finish();
        let room = self.segment_bytes - open.base;
        assert!(open.buffer.len() + end.len() <= room, "index and footer fit");
        if self.slots.is_some() {
            open.buffer.resize(room - end.len(), 0);
        }
        open.buffer.extend_from_slice(&end);
        if self.slots.is_none() {
            self.lengths.push((open.number, open.buffer.len() as u32));
        }
        let bytes = Bytes::from(open.buffer);
        self.hand_over(which, (open.number, open.place, open.base), bytes, send);
    }

    /// `at`: the segment, its slot, and the offset in it.
    fn hand_over(&mut self, which: usize, at: (SegmentNo, u32, usize), bytes: Bytes, send: &mut dyn FnMut(Message)) {
        let (segment, place, offset) = (at.0, at.1, at.2 as u32);
        let is_of_pages = which != Stream::Data.index() && !self.is_mixed;
        let part = Part { segment, place, offset, bytes, is_of_pages };
        self.parts.insert((part.segment, part.offset), (part.bytes.clone(), which));
        self.parts_handed_over += 1;
        send(Message::Write(part));
    }

    fn open_segment(&mut self, stream: Stream, need: Need) -> Result<Open, LogError> {
        let place = match &mut self.slots {
            None => 0,
            Some(slots) => {
                // Usually one stands ready (R7); how much payloads waste at the ends of segments is
                // only estimated, though.
                while slots.ready(Need::Growth) == 0 {
                    match slots.allocate(Need::Growth) {
                        Ok(()) => {}
                        Err(_) if slots.ready(need) > 0 => break,
                        Err(error) => return Err(LogError::allocating(&error)),
                    }
                }
                slots.take(need).expect("one is ready")
            }
        };
        let number = SegmentNo(self.next_number);
        assert!(number.0 < self.reservation, "S2: {number:?} is beyond the reservation {}", self.reservation);
        self.next_number += 1;
        self.births.push(Birth { number, place });
        self.places.insert(number, place);
        // In a bucket it is written whole.
        let room = if self.slots.is_some() { BUFFER_BYTES.min(self.segment_bytes) } else { self.segment_bytes };
        let mut buffer = Vec::with_capacity(room);
        buffer.extend_from_slice(&segment::header(&self.store, number, self.epoch, stream));
        Ok(Open { number, place, base: 0, buffer, index: Index::default() })
    }

    /// Segments of which parts were handed over and are not stored yet: those of data, which any
    /// commit may refer to, and (if asked) those of pages, which only a checkpoint does.
    pub fn not_stored(&self, with_pages: bool) -> BTreeSet<SegmentNo> {
        let data = Stream::Data.index();
        self.parts.iter().filter(|(_, (_, of))| with_pages || *of == data).map(|((segment, _), _)| *segment).collect()
    }

    /// How many parts were sent so far.
    pub fn parts_handed_over(&self) -> u64 {
        self.parts_handed_over
    }

    /// The segments opened since this was last asked.
    pub fn take_births(&mut self) -> Vec<Birth> {
        std::mem::take(&mut self.births)
    }

    /// How long those segments are that have ended since this was last asked: in a bucket, where each is an object of
    /// its own length.
    pub fn take_lengths(&mut self) -> Vec<(SegmentNo, u32)> {
        std::mem::take(&mut self.lengths)
    }

    /// How many segments were opened since that was last asked.
    pub fn unannounced_births(&self) -> usize {
        self.births.len()
    }

    /// The number that the next segment gets.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The segments to which more may be appended.
    pub fn open_segments(&self) -> Vec<SegmentNo> {
        self.open.iter().flatten().map(|open| open.number).collect()
    }

    /// Bytes that can be appended without another slot being allocated; slots that only
    /// `Need::Reserve` may take count for it alone. In a bucket there is no end of them.
    pub fn capacity(&self, need: Need) -> u64 {
        let Some(slots) = &self.slots else { return u64::MAX };
        let open: usize = self
            .open
            .iter()
            .flatten()
            .map(|open| (self.segment_bytes - open.base).saturating_sub(open.buffer.len() + open.index.bytes_with(&[])))
            .sum();
        open as u64 / 2 + slots.ready(need) * self.slot_capacity()
    }

    /// What that can come to be for new data, within the size limit and the quota, on a disk with that many free bytes.
    pub fn capacity_max(&self, free: u64) -> u64 {
        let Some(slots) = &self.slots else { return u64::MAX };
        let allowed = slots.remaining().saturating_sub(slots.ready(Need::Growth));
        let unallocated = allowed.min(free / self.segment_bytes as u64);
        self.capacity(Need::Growth).saturating_add(unallocated.saturating_mul(self.slot_capacity()))
    }

    /// Every segment may end with a tail that the next payload does not fit into: an eighth covers that, indexes and
    /// padding; half where segments are small.
    pub fn slot_capacity(&self) -> u64 {
        let slot = self.segment_bytes as u64;
        if slot >= 1 << 20 { slot / 8 * 7 } else { slot / 2 }
    }

    /// Whether more slots of a file are in use than its quota allows.
    pub fn is_beyond_quota(&self) -> bool {
        self.slots.as_ref().is_some_and(Slots::is_beyond_quota)
    }

    /// The bytes at that pointer, if they are not stored yet; else the segment's place.
    pub fn find(&self, pointer: &Pointer) -> Result<Found, LogError> {
        let (start, length) = (pointer.offset as usize, pointer.length as usize);
        for open in self.open.iter().flatten() {
            if open.number == pointer.segment && start >= open.base {
                let bytes = open.buffer.get(start - open.base..start - open.base + length);
                return bytes
                    .map(|bytes| Found::InMemory(Bytes::copy_from_slice(bytes).into()))
                    .ok_or_else(|| LogError::damaged(format!("{pointer}: beyond the end of its segment")));
            }
        }
        if let Some(((segment, offset), (part, _))) = self.parts.range(..=(pointer.segment, pointer.offset)).next_back()
            && *segment == pointer.segment
            && start + length <= *offset as usize + part.len()
        {
            let at = start - *offset as usize;
            // A copy: what is kept must not keep the part in memory when that is stored.
            return Ok(Found::InMemory(Bytes::copy_from_slice(&part[at..at + length]).into()));
        }
        match self.places.get(&pointer.segment) {
            Some(place) => Ok(Found::Stored(*place)),
            None => Err(LogError::damaged(format!("{pointer}: there is no such segment"))),
        }
    }

    /// A part is stored (on a disk, at least in the hands of the system below).
    pub fn written(&mut self, segment: SegmentNo, offset: u32) {
        let part = self.parts.remove(&(segment, offset));
        assert!(part.is_some(), "{segment:?}+{offset:#x} was handed over");
    }

    /// What is allocated and will not be written any more now that the store is being closed: slots
    /// that stand ready (apart from the reserve), and the ends of segments that are not full (R3:
    /// the next mount starts new ones). Offsets in the file, and lengths.
    pub fn drain_unused(&mut self) -> Vec<(u64, u64)> {
        let slot_bytes = self.segment_bytes as u64;
        let mut unused: Vec<(u64, u64)> = Vec::new();
        let slots = self.slots.as_mut().expect("only a local store has slots");
        for slot in slots.drain_ready() {
            unused.push((slots.offset_of(slot), slot_bytes));
        }
        for open in self.open.iter_mut().filter_map(Option::take) {
            unused.push((slots.offset_of(open.place) + open.base as u64, slot_bytes - open.base as u64));
        }
        unused
    }

    /// Learns where segments are.
    pub fn adopt(&mut self, places: impl IntoIterator<Item = Birth>) {
        self.places.extend(places.into_iter().map(|birth| (birth.number, birth.place)));
    }

    /// Forgets a freed segment; answers its slot.
    pub fn forget(&mut self, number: SegmentNo) -> u32 {
        assert!(!self.open_segments().contains(&number), "{number:?} is being filled");
        self.places.remove(&number).expect("a segment is freed once")
    }

    /// The slot of a segment.
    pub fn place_of(&self, number: SegmentNo) -> Option<u32> {
        self.places.get(&number).copied()
    }
}

/// Where bytes were found.
pub enum Found {
    /// Not on disk yet.
    InMemory(Payload),
    /// In its segment, which lies at this place.
    Stored(u32),
}

/// The stored form of a payload, ready to append. Compresses: call it with no lock held.
pub fn pack(payload: &[u8], codec: Codec) -> (Codec, std::borrow::Cow<'_, [u8]>) {
    codec::encode(payload, codec)
}

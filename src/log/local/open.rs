//! Creating a local store, recovering it, and starting to write.
//!
//! Recovery (R4-R6): take the newer readable superblock, read the log from where it starts to its
//! end, and take the checkpoint that the last commit names and the redo of all commits after what
//! that checkpoint holds. Nothing is scanned but the tail and the few blocks behind it.
//!
//! # What is read from the disk again (R4)
//!
//! The superblocks and the ring, which tell what is durable: what an earlier process has left of them in memory is
//! dropped first. What lies in data slots is not, but for some of it next to the ring: it would be most of the
//! file, to drop it took half of the time that opening took, and the next readers would wait for all of it to come
//! again. It cannot be what the disk does not hold. Say a page in a slot is in memory only, since an earlier process P could not flush it, or was killed
//! before it did:
//!
//! * P flushes data before it writes the first commit that refers to it (R1). If that flush failed, P has written no
//!   such commit, nor any other: after one failed flush it never tries again. If P was killed before, neither.
//! * Nobody after P refers to it: no commit that is in the log on the disk does, and no later mount writes one that
//!   does, since it goes on in segments of its own (R3), whose pages it writes, flushes, and only then refers to.
//!   What is free of P's slots is punched, or written again before anything refers to it.
//!
//! So whatever the log *on the disk* refers to was flushed by who wrote that commit, before that. The one that may
//! be in memory only is the commit itself, which is why the ring is read again. (What is in memory is never older than
//! the disk: the file's lock keeps off all who would write around the cache.)
//!
//! What recovery refuses rather than repairs: a log that ends before a commit which a superblock
//! names as durable; an unreadable commit with a whole one behind it; no readable superblock in a
//! file that bears our magic. After an *unclean* end, damage to exactly the last commit cannot be
//! told from a commit that a crash tore: the log then ends before it.

use super::desk::Desk;
use super::ring::{self, Found, Ring};
use super::slots::Slots;
use super::superblock::{Start, Superblock, Unusable};
use super::writer::Writer;
use crate::backend::Disk;
use crate::log::commit::Commit;
use crate::log::flow::Flow;
use crate::log::geometry::{BLOCK, Geometry, RING_OFFSET};
use crate::log::message::Message;
use crate::log::pointer::{Codec, Sequence};
use crate::log::streams::Streams;
use crate::log::{Log, LogError, Medium, RESERVATION_STEP, Recovery, Redo, Sender, Shared, random};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// What the storage thread has to know to go on.
pub struct End {
    superblock: Superblock,
    superblock_starts: [u64; 2],
    ring: Ring,
    starts: VecDeque<Start>,
    last_checksum: u128,
    redo_from: Sequence,
    checkpoint_in: Sequence,
    reservation: u64,
}

/// Writes a new, empty store: superblocks, zeros in that part of the ring which is used at first, the birth record.
/// Durable when it returns. A crash before that leaves something that is not a store, or is refused as damaged:
/// the superblocks come last.
pub fn create(disk: &dyn Disk, geometry: Geometry, size_limit: u64) -> Result<(), LogError> {
    assert!(geometry.is_valid(), "geometry: {geometry:?}");
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::NoSpace,
        _ => LogError::Io(format!("writing a new store: {error}").into()),
    };
    // Written once in full: a commit into blocks that are allocated and written already needs no
    // journal commit of the file system below.
    let ring_part = geometry.ring_at_first;
    ring::write_zeros(disk, 0, RING_OFFSET + ring_part).map_err(failed)?;
    if ring_part < geometry.ring_bytes {
        // The rest is a hole. A file that is shorter than its ring was cut.
        ring::write_zeros(disk, geometry.slots_offset() - BLOCK, BLOCK).map_err(failed)?;
    }
    let store: [u8; 16] = random();
    let mut first = Commit::first(store, random(), None);
    let (mut bytes, _) = first.encode(|_| 0);
    bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    disk.write_at(RING_OFFSET, &bytes).map_err(failed)?;
    disk.sync().map_err(failed)?;
    for serial in [2, 1] {
        let superblock = Superblock {
            store,
            geometry,
            ring_part,
            size_limit,
            serial,
            start: Start { sequence: Sequence(1), position: 0, predecessor: 0 },
            durable: Sequence(1),
            reserve: None,
            clean: true,
        };
        disk.write_at(serial % 2 * BLOCK, &superblock.encode()).map_err(failed)?;
    }
    disk.sync().map_err(failed)
}

fn recover(disk: &dyn Disk) -> Result<Recovery, LogError> {
    let reread = |offset, length| {
        disk.reread(offset, length).map_err(|error| LogError::Io(format!("dropping cached pages: {error}").into()))
    };
    reread(0, RING_OFFSET)?;
    let (superblock, superblock_starts, durable) = read_superblocks(disk)?;
    let geometry = superblock.geometry;
    let length = disk.len().map_err(|error| LogError::Io(format!("asking for the store's length: {error}").into()))?;
    if length < geometry.slots_offset() {
        let what = format!("it has {length} bytes, its ring alone ends at {}: it was cut", geometry.slots_offset());
        return Err(LogError::damaged(what));
    }
    let ring_part = superblock.ring_part;
    reread(RING_OFFSET, ring_part)?;
    let found = ring::read_log(disk, geometry, ring_part, &superblock.store, superblock.start)?;
    let last = found.last().map_or(Sequence(superblock.start.sequence.0 - 1), |found| found.commit.sequence);
    if last < durable {
        return Err(LogError::damaged(format!(
            "the log ends after commit {}, but commit {} was durable: restore the file from a copy; nothing was changed",
            last.0, durable.0
        )));
    }
    let newest = found.last().ok_or_else(|| LogError::damaged("the log is empty".into()))?;
    let (checkpoint_in, redo_from) = (newest.commit.checkpoint_in, newest.commit.redo_from);
    let checkpoint = found
        .iter()
        .find(|found| found.commit.sequence == checkpoint_in)
        .and_then(|found| found.commit.checkpoint.clone())
        .ok_or_else(|| LogError::damaged(format!("the checkpoint in commit {} is missing", checkpoint_in.0)))?;
    if redo_from < superblock.start.sequence || redo_from.0 != checkpoint.as_of.0 + 1 {
        return Err(LogError::damaged(format!("the redo from commit {} on is missing", redo_from.0)));
    }
    let starts = start_records(superblock.start, &found, redo_from);
    let head = newest.commit.position + newest.length.next_multiple_of(BLOCK);
    let tail = superblock_starts[0].min(superblock_starts[1]);
    let ring = Ring::new(geometry.ring_bytes, ring_part, tail, head)
        .ok_or_else(|| LogError::damaged("the log is longer than its ring".into()))?;
    let recovery = Recovery {
        store: superblock.store,
        size_limit: superblock.size_limit,
        last,
        time_ns: newest.commit.time_ns,
        epoch: newest.commit.epoch,
        checkpoint,
        redo: Vec::new(),
        births: Vec::new(),
        end: crate::log::End::File(Box::new(End {
            ring,
            starts,
            last_checksum: newest.checksum,
            redo_from,
            checkpoint_in,
            reservation: newest.commit.reservation,
            superblock,
            superblock_starts,
        })),
    };
    Ok(with_redo(recovery, redo_from, found, geometry))
}

fn with_redo(mut recovery: Recovery, redo_from: Sequence, found: Vec<Found>, geometry: Geometry) -> Recovery {
    for found in found.into_iter().filter(|found| found.commit.sequence >= redo_from) {
        recovery.redo.push(Redo::InRing(found.body(geometry)));
        recovery.births.extend(found.commit.births);
    }
    recovery
}

fn start_records(start: Start, found: &[Found], redo_from: Sequence) -> VecDeque<Start> {
    let predecessors = std::iter::once(start.predecessor).chain(found.iter().map(|found| found.checksum));
    found
        .iter()
        .zip(predecessors)
        .map(|(found, predecessor)| Start {
            sequence: found.commit.sequence,
            position: found.commit.position,
            predecessor,
        })
        .filter(|start| start.sequence >= redo_from)
        .collect()
}

/// The newer readable superblock, what each of the two on disk needs, and the newest sequence that
/// either knows to be durable.
fn read_superblocks(disk: &dyn Disk) -> Result<(Superblock, [u64; 2], Sequence), LogError> {
    let mut block = vec![0; BLOCK as usize];
    let mut read = |which: u64| match disk.read_at(which * BLOCK, &mut block) {
        Ok(()) => Ok(Superblock::decode(&block).and_then(|superblock| match superblock.serial % 2 == which {
            true => Ok(superblock),
            false => Err(Unusable::Damaged("superblock: in the other's place")),
        })),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(Unusable::Foreign)),
        Err(error) => Err(LogError::Io(format!("reading a superblock: {error}").into())),
    };
    let (mut mine, other) = match (read(0)?, read(1)?) {
        (Ok(a), Ok(b)) if a.store != b.store || a.geometry != b.geometry => {
            return Err(LogError::damaged("the two superblocks are of different stores".into()));
        }
        (Ok(a), Ok(b)) if a.serial > b.serial => (a, Some(b)),
        (Ok(a), Ok(b)) => (b, Some(a)),
        (Ok(one), Err(Unusable::OtherVersion(what))) | (Err(Unusable::OtherVersion(what)), Ok(one)) => {
            tracing::debug!("one superblock is newer than the other of serial {}", one.serial);
            return Err(LogError::OtherVersion(what));
        }
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => (one, None),
        (Err(Unusable::OtherVersion(what)), _) | (_, Err(Unusable::OtherVersion(what))) => {
            return Err(LogError::OtherVersion(what));
        }
        (Err(Unusable::Foreign), Err(Unusable::Foreign)) => return Err(LogError::Foreign),
        (Err(Unusable::Damaged(what)), _) | (_, Err(Unusable::Damaged(what))) => {
            return Err(LogError::damaged(format!("no superblock is readable ({what})")));
        }
    };
    let mut starts = [mine.start.position; 2];
    let mut durable = mine.durable;
    if let Some(other) = other {
        starts[(other.serial % 2) as usize] = other.start.position;
        durable = durable.max(other.durable);
        // L4: who died before it told the other has not begun with what it had gained.
        mine.ring_part = mine.ring_part.min(other.ring_part);
    }
    Ok((mine, starts, durable))
}

impl Log {
    /// Recovers the store on that disk. The log can be read from; before it is written to, the
    /// caller adopts where all segments are and calls [`Log::start`].
    pub fn open(disk: Arc<dyn Disk>, codec: Codec) -> Result<(Log, Recovery), LogError> {
        let recovery = recover(&*disk)?;
        let crate::log::End::File(end) = &recovery.end else { unreachable!("just recovered from a file") };
        let geometry = end.superblock.geometry;
        let slots = Slots::new(disk.clone(), geometry.slots_offset(), geometry.segment_bytes, recovery.size_limit, []);
        let streams = Streams::new(
            recovery.store,
            recovery.epoch,
            geometry.segment_bytes,
            Some(slots),
            end.reservation,
            recovery.places(),
        );
        let shared = Arc::new(Shared::new(streams, Flow::to_disk(), end.ring.used(), end.ring.part()));
        let medium = Medium::Disk(disk);
        Ok((Log { shared, medium, geometry, codec, sender: None, thread: Mutex::new(None) }, recovery))
    }
}

/// Begins a new epoch and starts the storage thread.
pub fn start(
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    end: End,
    (store, size_limit, last, epoch): ([u8; 16], u64, Sequence, u64),
    used: impl IntoIterator<Item = u32>,
) -> Result<(Box<dyn Sender>, JoinHandle<()>), LogError> {
    let geometry = end.superblock.geometry;
    {
        let mut streams = shared.streams.lock();
        let slots = Slots::new(disk.clone(), geometry.slots_offset(), geometry.segment_bytes, size_limit, used);
        // The file's lock keeps others away, so numbers can be used before the epoch's first
        // commit names them: what a crash leaves there is garbage behind the old reservation, in
        // slots that are free.
        let reservation = streams.next_number() + RESERVATION_STEP;
        streams.begin_epoch(epoch + 1, Some(slots), reservation);
        if let Some(slot) = end.superblock.reserve {
            adopt_reserve(streams.slots(), slot);
        }
    }
    let writer = Writer {
        disk,
        shared: shared.clone(),
        geometry,
        size_limit,
        store,
        epoch: epoch + 1,
        epoch_id: random(),
        number: 1,
        ring_part: end.ring.part(),
        ring: end.ring,
        last,
        last_checksum: end.last_checksum,
        starts: end.starts,
        redo_from: end.redo_from,
        checkpoint_in: end.checkpoint_in,
        serial: end.superblock.serial,
        superblock_starts: end.superblock_starts,
        superblock_unsynced: None,
        parts_written: 0,
        unsynced: 0,
        is_data_unsynced: false,
        deferred: Vec::new(),
    };
    let desk = Arc::new(Desk::new(writer));
    let at_work = desk.clone();
    let thread = std::thread::Builder::new()
        .name("kivafs-storage".into())
        .spawn(move || at_work.work())
        .map_err(|error| LogError::Io(format!("starting the storage thread: {error}").into()))?;
    Ok((Box::new(Door { desk, shared }), thread))
}

/// Where the callers' side of the log puts what it asks for. When it is dropped without a close, what a crash leaves
/// is left.
struct Door {
    desk: Arc<Desk>,
    shared: Arc<Shared>,
}

impl Door {
    /// The work ends only after `close`, and nothing is sent after that, but by who waits for space
    /// and has not heard of it; and if the store was given up, by who came back from waiting for the disk.
    fn check<T>(&self, put: Result<T, Message>) -> Option<T> {
        put.inspect_err(|message| {
            let is_expected = matches!(message, Message::Reached(_)) || self.shared.failure().is_some();
            assert!(is_expected, "the storage thread has ended");
        })
        .ok()
    }
}

impl Sender for Door {
    fn send(&self, message: Message) {
        self.check(self.desk.put(message));
    }

    fn send_or_begin(&self, message: Message) -> Option<Box<dyn FnOnce() + '_>> {
        let work = self.check(self.desk.put_or_begin(message))?;
        work.map(|work| Box::new(work) as Box<dyn FnOnce()>)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.desk.expect_no_more();
    }
}

fn adopt_reserve(slots: &mut Slots, slot: u32) {
    if let Err(error) = slots.adopt_reserve(slot) {
        tracing::warn!("cannot set slot {slot} aside for deleting: {error}");
    }
}

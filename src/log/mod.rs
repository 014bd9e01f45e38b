//! The log: segments, commits, epochs, recovery, and the storage thread.
//!
//! Files, in reading order: `pointer` (how stored things are named and checked), `bytes` (fields),
//! `codec` (compression), `payload` (in memory), `geometry` (sizes); the formats `commit` and `segment`; `streams` (segments
//! being filled), `flow` (back-pressure), `message` (what the storage thread is asked), and here
//! [`Log`], the layer's face. Below it, two kinds of storage, each with its own storage thread:
//! `local` (one file) and `remote` (a bucket).
//!
//! # Contract
//!
//! * [`Log::append`] stores a payload in a data segment and answers its pointer; any number of
//!   threads at once; never waits for the disk. It is durable once a commit that was *prepared*
//!   after the append has been answered. A crash before that leaves garbage that nothing refers
//!   to.
//! * [`Log::read`] answers the payload at a pointer, checked against the pointer's checksum, also
//!   before it is on disk. Waits for the disk. Wrong bytes are [`LogError::Damaged`].
//! * [`Log::commit`] queues a commit: one write and one flush (and one flush before, if it refers
//!   to new data). `done` gets Ok when it and everything before it is durable (C1). A crash leaves
//!   all of it or nothing of it.
//! * [`Log::free`] gives back segments that no durable checkpoint, no redo behind it and no reader
//!   refers to (R2: the caller's duty).
//! * The first failed write or flush poisons the log: every later commit gets that first cause
//!   (C5, R4). Reads go on.
//!
//! # Invariants
//!
//! * L1 Commits are written one at a time, in sequence, each naming its predecessor's checksum.
//! * L2 Nothing lives in commits: they hold redo, and pointers lead to data segments only. (The
//!   starting design let small pages and extents live in commits; they would have to be moved
//!   before the ring turns, which writes them twice as well. Holding such values in memory until
//!   the next checkpoint places them costs the same writes, and needs no second kind of address,
//!   no moving and no table of live commits.)
//! * L3 The ring is overwritten only before the start that both superblocks on disk name (R6).
//! * L4 A commit lies in the part of the ring of which both say that it is in use: recovery looks nowhere else,
//!   whichever of them it reads.
//! * S1, S2: in `streams`.

mod bytes;
mod codec;
mod commit;
mod flow;
mod geometry;
mod local;
mod message;
mod payload;
mod pointer;
mod remote;
mod segment;
mod streams;

pub use bytes::{Fields, Malformed, put_varint};
pub use commit::{Birth, Checkpoint, RootKind};
pub use geometry::Geometry;
pub use local::{HolderRecord, InRing, VERSION, create};
pub use message::{Claim, Done, Freed, Message, Prepare, Prepared};
pub use payload::Payload;
pub use pointer::{Codec, NUMBER_MAX, POINTER_BYTES, Pointer, SEGMENT_BYTES_MAX, SegmentNo, Sequence, checksum};
pub use remote::{Access, Bucket, EpochHolder, Sight, create_in};
pub use segment::Stream;

use crate::backend::Disk;
use ::bytes::Bytes;
use flow::Flow;
use geometry::{BLOCK, RING_OFFSET};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use streams::{Found, Streams};
use thiserror::Error;

/// Segment numbers that each commit reserves ahead of the next free one: far more than can be
/// opened before the next commit.
const RESERVATION_STEP: u64 = 1 << 10;
/// Longest payload: what a unit or page may have before compression, with room for both.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// How often who waits for the storage thread looks whether the store was given up.
const FREED_WAIT: Duration = Duration::from_millis(100);
/// The ring takes at most so great a part of what the disk has left: the fiftieth.
const LENGTHENED_OF_FREE: u64 = 50;

/// So many segments of a file are to stand ready beside the reserve, when some come free, or more
/// ([`Log::want_ready`]). Whoever moves what lives elsewhere needs them: a segment's content wherever that breaks off,
/// and pages.
pub const READY_SEGMENTS: u64 = 2;

/// And so many a file needs beside these: the reserve of a mount and of the next, two that are being filled (three only
/// where there are several of pages), and two of content.
pub const NEEDED_SEGMENTS: u64 = 6;

/// Whether the reserve may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// New data: the reserve is not for it.
    Growth,
    /// Checkpoints, data accepted earlier, batches that shrink the store.
    Reserve,
}

/// Stored bytes are wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What, where, found and expected.
    pub what: Arc<str>,
}

/// What can go wrong below the tree.
#[derive(Clone, Debug, Error)]
pub enum LogError {
    /// The disk, or the size limit, is full.
    #[error("no space left")]
    NoSpace,
    /// Not a store at all.
    #[error("not a kivafs store")]
    Foreign,
    /// In the format of another version.
    #[error("in the format of another version of kivafs ({0})")]
    OtherVersion(String),
    /// Stored bytes are wrong.
    #[error("{}", .0.what)]
    Damaged(Damage),
    /// There is no store.
    #[error("there is no store")]
    Missing,
    /// `create`: there is one already.
    #[error("there is a store already")]
    Exists,
    /// Somebody holds it.
    #[error("held by {0}")]
    Held(Box<EpochHolder>),
    /// What is to be read was deleted: by the writer, if this is a reader of an old state.
    #[error("{0} is missing")]
    Gone(Arc<str>),
    /// Reading failed.
    #[error("{0}")]
    Io(Arc<str>),
    /// A write or flush failed before; nothing more is accepted.
    #[error("{0}")]
    Poisoned(Arc<str>),
}

impl LogError {
    /// Damage of that description.
    pub fn damaged(what: String) -> LogError {
        LogError::Damaged(Damage { what: what.into() })
    }

    /// An allocation's error.
    fn allocating(error: &std::io::Error) -> LogError {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
                LogError::NoSpace
            }
            _ => LogError::Io(format!("allocating space failed: {error}").into()),
        }
    }
}

/// A count that many threads raise.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the log did since it was opened.
#[derive(Default)]
pub struct Counters {
    /// Commits made.
    pub commits: Counter,
    /// Flushes (fdatasync).
    pub syncs: Counter,
    /// Bytes of commits written, whole blocks.
    pub commit_bytes: Counter,
    /// Bytes of data segments written.
    pub data_bytes: Counter,
    /// Payloads read from the medium, and the bytes that they have there.
    pub reads: Counter,
    pub read_bytes: Counter,
}

/// Where a log lies.
enum Medium {
    /// In one file.
    Disk(Arc<dyn Disk>),
    /// In a bucket.
    Bucket(Arc<Bucket>),
}

/// What callers and the storage thread share.
pub struct Shared {
    streams: Mutex<Streams>,
    flow: Flow,
    failure: OnceLock<Arc<str>>,
    counters: Counters,
    ring_used: AtomicU64,
    /// How much of the ring is in use, how much is ready to be, and how much may come to be.
    ring_part: AtomicU64,
    ring_ready: AtomicU64,
    ring_part_max: AtomicU64,
    tail_bytes: AtomicU64,
}

impl Shared {
    fn new(streams: Streams, flow: Flow, ring_used: u64, ring_part: u64) -> Shared {
        Shared {
            streams: Mutex::new(streams),
            flow,
            failure: OnceLock::new(),
            counters: Counters::default(),
            ring_used: AtomicU64::new(ring_used),
            ring_part: AtomicU64::new(ring_part),
            ring_ready: AtomicU64::new(ring_part),
            ring_part_max: AtomicU64::new(u64::MAX),
            tail_bytes: AtomicU64::new(0),
        }
    }

    fn poison(&self, cause: String) {
        self.failure.get_or_init(|| cause.into());
        self.flow.end();
    }

    fn failure(&self) -> Option<&Arc<str>> {
        self.failure.get()
    }

    fn check_failure(&self) -> Result<(), LogError> {
        match self.failure() {
            Some(cause) => Err(LogError::Poisoned(cause.clone())),
            None => Ok(()),
        }
    }
}

/// What recovery found.
pub struct Recovery {
    /// The store's identity.
    pub store: [u8; 16],
    /// Most bytes that the store may have; 0: no limit.
    pub size_limit: u64,
    /// The newest commit.
    pub last: Sequence,
    /// When it was written, nanoseconds since 1970.
    pub time_ns: u64,
    /// The epoch it belongs to.
    pub epoch: u64,
    /// The checkpoint to build on.
    pub checkpoint: Checkpoint,
    /// The redo of the commits after the checkpoint, oldest first ([`Log::read_redo`]).
    pub redo: Vec<Redo>,
    /// Segments opened by those commits.
    pub births: Vec<Birth>,
    /// What the storage thread has to know to go on.
    end: End,
}

/// The redo of one commit, as recovery keeps it.
pub enum Redo {
    /// Itself.
    Body(Bytes),
    /// Where its commit lies in a file: it is read again when it is wanted. There may be much of it, and the system has
    /// it in its memory, which it can give to others (C6).
    InRing(InRing),
}

enum End {
    File(Box<local::End>),
    Bucket(Box<remote::End>),
}

impl Recovery {
    /// The pointer of a root of the checkpoint.
    pub fn root(&self, kind: RootKind) -> Option<Pointer> {
        self.checkpoint.root(kind)
    }

    /// Where its segments are, as far as the log itself knows.
    fn places(&self) -> HashMap<SegmentNo, u32> {
        self.checkpoint.places.iter().chain(&self.births).map(|birth| (birth.number, birth.place)).collect()
    }

    /// Of a store in a bucket: what its newest commit says.
    pub fn remote(&self) -> Option<&remote::End> {
        match &self.end {
            End::File(_) => None,
            End::Bucket(end) => Some(end),
        }
    }
}

/// Checks and unpacks stored bytes.
type Unpack<'a> = dyn Fn(&Pointer, Payload) -> Result<Payload, LogError> + Sync + 'a;

/// Hands messages to the storage thread. When it is dropped, there will be no more.
trait Sender: Send + Sync {
    /// Hands it over, and does not wait.
    fn send(&self, message: Message);
    /// The same; or answers what does at once what is asked for, and waits for storage.
    fn send_or_begin(&self, message: Message) -> Option<Box<dyn FnOnce() + '_>>;
}

/// An open log.
pub struct Log {
    shared: Arc<Shared>,
    medium: Medium,
    geometry: Geometry,
    codec: Codec,
    /// To the storage thread; none in a log opened for reading.
    sender: Option<Box<dyn Sender>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Stores a payload (at most the geometry's segment size, less its own overhead).
    pub fn append(&self, stream: Stream, payload: &[u8], hint: &[u8]) -> Result<Pointer, LogError> {
        self.append_with(self.codec, stream, payload, hint)
    }

    /// The same, compressed with that codec.
    pub fn append_with(&self, codec: Codec, stream: Stream, payload: &[u8], hint: &[u8]) -> Result<Pointer, LogError> {
        let (codec, stored) = streams::pack(payload, codec);
        let shrunk = Pointer::shrunk(payload.len(), stored.len());
        let mut streams = self.shared.streams.lock();
        let appended = streams.append(stream, codec, shrunk, &stored, hint, &mut |message| self.send(message));
        drop(streams);
        if let (Ok(pointer), Medium::Bucket(bucket)) = (&appended, &self.medium)
            && let Some(cache) = bucket.cache()
        {
            cache.put(&remote::key(pointer), Bytes::copy_from_slice(&stored));
        }
        appended.inspect_err(|error| self.fail_if_io(error))
    }

    /// How what is appended is compressed.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Hands everything appended to that stream to the storage thread.
    pub fn cut(&self, stream: Stream) {
        self.shared.streams.lock().cut(stream, &mut |message| self.send(message));
    }

    /// The payload at a pointer.
    pub fn read(&self, pointer: &Pointer) -> Result<Payload, LogError> {
        let mut answers = self.read_all(std::slice::from_ref(pointer))?;
        Ok(answers.pop().expect("one answer a pointer"))
    }

    /// The payloads at these pointers, in the same order. Neighbours are read in one go.
    pub fn read_all(&self, pointers: &[Pointer]) -> Result<Vec<Payload>, LogError> {
        let mut answers = vec![Payload::default(); pointers.len()];
        let mut stored: Vec<(usize, u32)> = Vec::new();
        {
            let streams = self.shared.streams.lock();
            for (which, pointer) in pointers.iter().enumerate() {
                match streams.find(pointer)? {
                    Found::InMemory(payload) => answers[which] = self.unpack(pointer, payload)?,
                    Found::Stored(place) => stored.push((which, place)),
                }
            }
        }
        let unpack = |pointer: &Pointer, stored: Payload| self.unpack(pointer, stored);
        let read = match &self.medium {
            _ if stored.is_empty() => return Ok(answers),
            Medium::Disk(disk) => local::read(&**disk, self.geometry, pointers, &stored, &unpack)?,
            Medium::Bucket(bucket) => {
                remote::read(bucket, pointers, &stored, &unpack).map_err(|error| match error {
                    // Nobody else deletes while we hold the store.
                    LogError::Gone(what) if self.sender.is_some() => LogError::damaged(format!("{what} is missing")),
                    error => error,
                })?
            }
        };
        let counters = &self.shared.counters;
        counters.reads.add(stored.len() as u64);
        counters.read_bytes.add(stored.iter().map(|(which, _)| u64::from(pointers[*which].length)).sum());
        for (which, payload) in read {
            answers[which] = payload;
        }
        Ok(answers)
    }

    fn unpack(&self, pointer: &Pointer, stored: Payload) -> Result<Payload, LogError> {
        if !pointer.fits(&stored) {
            let found = checksum(&stored);
            return Err(LogError::damaged(format!(
                "{pointer}: checksum {found:032x} found, {:032x} expected",
                pointer.checksum
            )));
        }
        match pointer.codec {
            Codec::Raw => Ok(stored),
            Codec::Lz4 => codec::decode(&stored, pointer.codec, PAYLOAD_BYTES_MAX)
                .map(|payload| Bytes::from(payload.into_owned()).into())
                .ok_or_else(|| LogError::damaged(format!("{pointer}: cannot be decompressed"))),
        }
    }

    /// In a bucket: reads with one request what lies before the end of a checkpoint's payload, for what
    /// comes next.
    pub fn have_near(&self, pointer: &Pointer) -> Result<(), LogError> {
        match &self.medium {
            Medium::Disk(_) => Ok(()),
            Medium::Bucket(bucket) => bucket.have_near(pointer),
        }
    }

    /// What recovery found of a commit's redo, in that store.
    pub fn read_redo(&self, store: &[u8; 16], redo: Redo) -> Result<Bytes, LogError> {
        match (redo, &self.medium) {
            (Redo::Body(body), _) => Ok(body),
            (Redo::InRing(at), Medium::Disk(disk)) => at.read(&**disk, store),
            (Redo::InRing(_), Medium::Bucket(_)) => unreachable!("a recovery belongs to its log"),
        }
    }

    /// Queues a commit.
    pub fn commit(&self, prepare: Prepare, done: Done, claim: Claim) {
        self.send(Message::Commit { prepare, done, claim });
    }

    /// The same for who can wait for the disk: in a file, if nothing else is being stored, answers what makes the
    /// commit. The caller does that at once, when it holds no lock: what others ask for meanwhile comes after it.
    #[must_use]
    pub fn commit_here(&self, prepare: Prepare, done: Done, claim: Claim) -> Option<Box<dyn FnOnce() + '_>> {
        self.sender().send_or_begin(Message::Commit { prepare, done, claim })
    }

    /// Commits that wait for room in the ring go on, or with an error are told.
    pub fn retry(&self, outcome: Option<LogError>) {
        self.send(Message::Retry(outcome));
    }

    /// Gives back segments that nothing refers to since then (none: now); `freed` is told when that is
    /// done.
    pub fn free(&self, numbers: Vec<SegmentNo>, since_ns: Option<u64>, freed: Freed) {
        let since_ns = since_ns.unwrap_or_else(now_ns);
        self.send(Message::Free { numbers, since_ns, freed });
    }

    /// Waits until what was given to [`Log::free`] so far can be used again, or until the deadline. In a
    /// bucket nobody needs its space.
    pub fn wait_until_freed(&self, until: Instant) {
        if self.disk().is_none() || self.shared.failure().is_some() {
            return;
        }
        let (answer, answered) = std::sync::mpsc::channel();
        self.send(Message::Reached(answer));
        // In parts: the storage thread may hang, and the store be given up meanwhile.
        while answered.recv_timeout(FREED_WAIT.min(until.saturating_duration_since(Instant::now())))
            == Err(RecvTimeoutError::Timeout)
            && Instant::now() < until
            && self.shared.failure().is_none()
        {}
    }

    /// Whether freed segments stay for a while, for readers elsewhere: then they are part of the
    /// segment table until `freed` was told.
    pub fn frees_later(&self) -> bool {
        matches!(self.medium, Medium::Bucket(_))
    }

    fn sender(&self) -> &dyn Sender {
        self.sender.as_deref().expect("a log opened for reading is not written to")
    }

    fn send(&self, message: Message) {
        if let Message::Write(part) = &message {
            self.shared.flow.accept(part.bytes.len() as u64);
        }
        self.sender().send(message);
    }

    /// The segments opened since this was last asked, and the number that the next one gets. To be called where the redo that refers to
    /// them is frozen, under the lock that keeps both together.
    pub fn take_births(&self) -> (Vec<Birth>, u64) {
        let mut streams = self.shared.streams.lock();
        (streams.take_births(), streams.next_number())
    }

    /// In a bucket: the segments that have ended since this was last asked, and how many bytes each has. Asked before
    /// [`Log::take_births`], it knows of none that this does not, now or earlier.
    pub fn take_lengths(&self) -> Vec<(SegmentNo, u32)> {
        self.shared.streams.lock().take_lengths()
    }

    /// Segments opened since [`Log::take_births`].
    pub fn unannounced_births(&self) -> usize {
        self.shared.streams.lock().unannounced_births()
    }

    /// Makes sure that `bytes` can be appended without the disk running full (R7).
    pub fn ensure_capacity(&self, bytes: u64, need: Need) -> Result<(), LogError> {
        let mut streams = self.shared.streams.lock();
        while streams.capacity(need) < bytes {
            if let Err(error) = streams.slots().allocate(need) {
                let error = LogError::allocating(&error);
                self.fail_if_io(&error);
                self.shared.check_failure()?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// How many bytes of new data [`Log::ensure_capacity`] can make sure of, if nobody else takes the disk's space.
    pub fn capacity_max(&self) -> u64 {
        let free = self.disk().map_or(u64::MAX, |disk| disk.free_space().unwrap_or(0));
        self.shared.streams.lock().capacity_max(free)
    }

    /// So many segments of a file are to stand ready from now on. As long as nobody says that: [`READY_SEGMENTS`].
    pub fn want_ready(&self, segments: u64) {
        if self.disk().is_some() {
            self.shared.streams.lock().slots().want_ready(segments);
        }
    }

    /// How many segments of a file are to stand ready: as many as are wanted, or fewer if it can have hardly more at
    /// all.
    pub fn ready_max(&self) -> u64 {
        self.disk().map_or(0, |_| self.shared.streams.lock().slots().ready_max())
    }

    /// How much of these counts in [`Log::ensure_capacity`]: of all, or of so many at most.
    pub fn ready_capacity(&self, segments_max: u64) -> u64 {
        self.disk().map_or(0, |_| {
            let mut streams = self.shared.streams.lock();
            streams.slots().ready_max().min(segments_max) * streams.slot_capacity()
        })
    }

    /// Whether nothing is set aside for deleting (R7): the next mount may then find nothing, either. A
    /// bucket has no end.
    pub fn is_without_reserve(&self) -> bool {
        self.disk().is_some() && !self.shared.streams.lock().slots().has_reserve()
    }

    /// A file is to occupy no more bytes from now on, except for what shrinks it. To be called once the
    /// log is started.
    pub fn set_quota(&self, bytes: u64) {
        let Geometry { ring_bytes, .. } = self.geometry;
        // As if the ring were no longer than it may come to be.
        let part_max = Geometry::of_size(bytes).ring_bytes.max(self.ring_bytes()).min(ring_bytes);
        self.shared.ring_part_max.store(part_max, Ordering::Relaxed);
        self.shared.streams.lock().slots().set_quota(bytes.saturating_add(ring_bytes - part_max));
    }

    /// Bytes of a file that are no data's: what of its ring is in use, or may come to be if its size is limited, and what
    /// tells what it is.
    pub fn overhead_bytes(&self) -> u64 {
        let is_limited = self.shared.streams.lock().slots().is_limited();
        let of = if is_limited { &self.shared.ring_part_max } else { &self.shared.ring_part };
        RING_OFFSET + of.load(Ordering::Relaxed).min(self.geometry.ring_bytes)
    }

    /// Whether a file occupies more than it may: then nothing may grow, not even in what is left of an open
    /// segment, which was the reserve.
    pub fn is_beyond_quota(&self) -> bool {
        self.shared.streams.lock().is_beyond_quota()
    }

    /// Bytes that a file on a disk with so many free ones has left for more data, within the size limit and the
    /// quota. What is allocated and empty is not free to others.
    pub fn free_bytes(&self, of_disk: u64) -> u64 {
        let spare = self.shared.streams.lock().slots().ready(Need::Growth);
        of_disk.saturating_add(spare * u64::from(self.geometry.segment_bytes)).min(self.unallocated_bytes())
    }

    /// Bytes that slots with nothing in them, allocated or not, could hold within the size limit and the quota.
    pub fn unallocated_bytes(&self) -> u64 {
        match self.medium {
            Medium::Disk(_) => {
                let slots = self.shared.streams.lock().slots().remaining();
                slots.saturating_mul(u64::from(self.geometry.segment_bytes))
            }
            Medium::Bucket(_) => u64::MAX,
        }
    }

    /// Bytes of a file that are set aside as the reserve.
    pub fn reserve_bytes(&self) -> u64 {
        let is_there = self.shared.streams.lock().slots().has_reserve();
        u64::from(is_there) * u64::from(self.geometry.segment_bytes)
    }

    /// The segments to which more may be appended.
    pub fn open_segments(&self) -> Vec<SegmentNo> {
        self.shared.streams.lock().open_segments()
    }

    /// Where a segment lies.
    pub fn place_of(&self, number: SegmentNo) -> Option<u32> {
        self.shared.streams.lock().place_of(number)
    }

    /// Learns where segments lie (from the segment table), before [`Log::start`].
    pub fn adopt(&self, places: impl IntoIterator<Item = Birth>) {
        self.shared.streams.lock().adopt(places);
    }

    /// Counts bytes that the layer above holds for storage.
    pub fn accept(&self, bytes: u64) {
        self.shared.flow.accept(bytes);
    }

    /// Takes them off the count again.
    pub fn release(&self, bytes: u64) {
        self.shared.flow.drop(bytes);
    }

    /// Whether less than the limit is in flight.
    pub fn has_room(&self) -> bool {
        self.shared.flow.has_room()
    }

    /// Waits until that is so, or until the deadline; answers whether it is so.
    pub fn wait_for_room(&self, until: Option<Instant>) -> bool {
        self.shared.flow.wait_for_room(until)
    }

    /// Bytes accepted and not yet stored.
    pub fn in_flight(&self) -> u64 {
        self.shared.flow.in_flight()
    }

    /// Bytes of log behind the newest checkpoint.
    pub fn tail_bytes(&self) -> u64 {
        self.shared.tail_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the ring that are in use: what recovery might read, from the older superblock on.
    pub fn ring_used(&self) -> u64 {
        self.shared.ring_used.load(Ordering::Relaxed)
    }

    /// Bytes of the ring that commits go round in. It becomes longer where that is of use ([`Log::lengthen_ring`]).
    pub fn ring_bytes(&self) -> u64 {
        self.shared.ring_part.load(Ordering::Relaxed)
    }

    /// Has all of it used that may be, if the disk has plenty: a longer tail saves writing, but what it takes is never given
    /// back. Where the log's ends lie in different turns just now, it is to be asked for again. One caller at a time.
    pub fn lengthen_ring(&self) {
        let Medium::Disk(disk) = &self.medium else { return };
        let (part, ready) = (self.ring_bytes(), self.shared.ring_ready.load(Ordering::Relaxed));
        let wanted = self.shared.ring_part_max.load(Ordering::Relaxed).min(self.geometry.ring_bytes);
        if wanted <= part || self.failure().is_some() {
            return;
        }
        if ready < wanted {
            let gained = wanted - ready;
            let is_plenty = disk.free_space().is_ok_and(|free| free / LENGTHENED_OF_FREE >= gained);
            if !is_plenty {
                return;
            }
            // Here, not on the storage thread: commits go on meanwhile.
            let at = RING_OFFSET + ready;
            if let Err(error) = disk.allocate(at, gained).and_then(|()| local::write_zeros(&**disk, at, gained)) {
                // A part of it may have found space. Who has no more of it is not asked again.
                self.shared.ring_part_max.store(part, Ordering::Relaxed);
                let outcome = disk.punch(at, gained).and(Err(error));
                return outcome.unwrap_or_else(|error| self.fail_if_io(&LogError::allocating(&error)));
            }
            disk.will_sync(at, gained);
            self.shared.ring_ready.store(wanted, Ordering::Relaxed);
        }
        self.send(Message::LengthenRing(wanted));
    }

    /// Most bytes that one commit may have.
    pub fn commit_bytes_max(&self) -> u64 {
        match self.medium {
            Medium::Disk(_) => self.geometry.commit_bytes_max(),
            Medium::Bucket(_) => self.geometry.far_commit_bytes_max(),
        }
    }

    /// Whether the ring has room for the first commit of an epoch, and after that for the two of a checkpoint,
    /// wherever it has to wrap.
    pub fn has_room_to_begin(&self) -> bool {
        self.ring_used() + 3 * self.geometry.commit_bytes_max() + 4 * BLOCK <= self.ring_bytes()
    }

    /// Ends writing for good, as a failed write does: the layer above cannot go on.
    pub fn fail(&self, cause: String) {
        tracing::error!("{cause}; nothing more is written");
        self.shared.poison(cause.clone());
        // Before the storage thread is started nobody waits.
        if self.sender.is_some() {
            self.retry(Some(LogError::Poisoned(cause.into())));
        }
    }

    /// Ends writing for good and waits for storage no longer: whatever waits for it ends with an error.
    pub fn abandon(&self, cause: String) {
        self.give_up();
        if self.failure().is_none() {
            self.fail(cause);
        }
    }

    /// Waits for a bucket no longer: the first answer that does not come ends writing.
    pub fn give_up(&self) {
        if let Medium::Bucket(bucket) = &self.medium {
            bucket.give_up();
        }
    }

    /// A disk that cannot even allocate has failed (C5).
    fn fail_if_io(&self, error: &LogError) {
        if let LogError::Io(cause) = error {
            self.fail(cause.to_string());
        }
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.shared.failure().cloned()
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The sizes of the store.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The disk below, if it is one.
    pub fn disk(&self) -> Option<&dyn Disk> {
        match &self.medium {
            Medium::Disk(disk) => Some(&**disk),
            Medium::Bucket(_) => None,
        }
    }

    /// The bucket below, if it is one.
    pub fn bucket(&self) -> Option<&Bucket> {
        match &self.medium {
            Medium::Disk(_) => None,
            Medium::Bucket(bucket) => Some(bucket),
        }
    }

    /// Begins a new epoch and starts the storage thread: `used` are the slots that hold segments.
    ///
    /// In a file the caller's first commit claims the store; in a bucket it is claimed when this
    /// returns.
    pub fn start(&mut self, recovery: Recovery, used: impl IntoIterator<Item = u32>) -> Result<(), LogError> {
        let Recovery { store, size_limit, last, epoch, end, .. } = recovery;
        let (sender, thread) = match (end, &self.medium) {
            (End::File(end), Medium::Disk(disk)) => {
                local::start(self.shared.clone(), disk.clone(), *end, (store, size_limit, last, epoch), used)?
            }
            (End::Bucket(end), Medium::Bucket(bucket)) => remote::start(self.shared.clone(), bucket.clone(), *end)?,
            _ => unreachable!("a recovery belongs to its log"),
        };
        self.sender = Some(sender);
        *self.thread.lock() = Some(thread);
        // Without a reserve a full store could not even delete; it can still be opened and read.
        if let Err(error) = self.ensure_capacity(1, Need::Reserve) {
            tracing::warn!("cannot set space aside for deleting: {error}");
        }
        Ok(())
    }

    /// Longest payload that a segment of this store can hold.
    pub fn payload_bytes_max(&self) -> usize {
        Streams::payload_bytes_max(self.geometry.segment_bytes)
    }

    /// Writes the clean mark and ends the storage thread. With `give_back` the disk gets back what
    /// was allocated and is not needed; without, it is there for the next mount. The caller has made everything durable
    /// and sends nothing more.
    pub fn close(&self, give_back: bool) -> Result<(), LogError> {
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = Box::new(move |result| {
            // Who closes is waiting just below.
            sender.send(result).unwrap_or_else(|_| panic!("nobody waits for the close"));
        });
        self.send(Message::Close { give_back, done });
        let result = receiver.recv().expect("the storage thread answers a close");
        thread.join().expect("the storage thread does not panic");
        result
    }
}

/// Nanoseconds since 1970.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// A fresh identity.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

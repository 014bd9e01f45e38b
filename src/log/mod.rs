//! The log: segments, commits, epochs, recovery, and the storage thread.
//!
//! Files, in reading order: `pointer` (how stored things are named and checked), `bytes` (fields),
//! `codec` (compression); the formats `superblock`, `commit`, `segment`, `holder`; `ring` (where
//! commits lie), `slots` (where data segments lie), `streams` (segments being filled), `flow`
//! (back-pressure), `thread` (the storage thread), `open` (creation and recovery), and here
//! [`Log`], the layer's face.
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
//! * S1, S2: in `streams`.

mod bytes;
mod codec;
mod commit;
mod flow;
mod holder;
mod open;
mod pointer;
mod ring;
mod segment;
mod slots;
mod streams;
mod superblock;
mod thread;

pub use bytes::{Fields, Malformed, put_varint};
pub use commit::{Birth, Checkpoint, RootKind};
pub use flow::LIMIT_MAX as IN_FLIGHT_BYTES_MAX;
pub use holder::HolderRecord;
pub use open::{Recovery, create, peek};
pub use pointer::{Codec, NUMBER_MAX, POINTER_BYTES, Pointer, SEGMENT_BYTES_MAX, SegmentNo, Sequence, checksum};
pub use segment::Stream;
pub use slots::Need;
pub use superblock::{Geometry, VERSION};
pub use thread::{Claim, Done, Message, Prepare, Prepared};

use crate::backend::Disk;
use ::bytes::Bytes;
use flow::Flow;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;
use streams::{Found, Streams};
use thiserror::Error;

/// Segment numbers that each commit reserves ahead of the next free one: far more than can be
/// opened before the next commit.
const RESERVATION_STEP: u64 = 1 << 10;
/// Longest payload: what a unit or page may have before compression, with room for both.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Neighbouring payloads are read in one go up to this many bytes.
const JOINED_READ_BYTES_MAX: u64 = 1 << 20;
/// Many reads at once (at recovery, say) are shared among threads, so that they wait for the disk
/// together.
const RUNS_PER_THREAD: usize = 8;
const READ_THREADS_MAX: usize = 8;

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
    /// From a later version.
    #[error("written by a newer kivafs ({0})")]
    Newer(String),
    /// Stored bytes are wrong.
    #[error("{}", .0.what)]
    Damaged(Damage),
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
}

/// What callers and the storage thread share.
pub struct Shared {
    disk: Arc<dyn Disk>,
    streams: Mutex<Streams>,
    flow: Flow,
    failure: OnceLock<Arc<str>>,
    counters: Counters,
    ring_used: AtomicU64,
    tail_bytes: AtomicU64,
}

impl Shared {
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

/// An open log.
pub struct Log {
    shared: Arc<Shared>,
    geometry: Geometry,
    codec: Codec,
    /// To the storage thread; none in a log opened for reading.
    sender: Option<Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Stores a payload (at most the geometry's segment size, less its own overhead).
    pub fn append(&self, stream: Stream, payload: &[u8], hint: &[u8]) -> Result<Pointer, LogError> {
        let (codec, stored) = streams::pack(payload, self.codec);
        let disk = &*self.shared.disk;
        let appended =
            self.shared.streams.lock().append(stream, codec, &stored, hint, disk, &mut |message| self.send(message));
        appended.inspect_err(|error| self.fail_if_io(error))
    }

    /// Hands everything appended to that stream to the storage thread.
    pub fn cut(&self, stream: Stream) {
        self.shared.streams.lock().cut(stream, &mut |message| self.send(message));
    }

    /// The payload at a pointer.
    pub fn read(&self, pointer: &Pointer) -> Result<Bytes, LogError> {
        let mut answers = self.read_all(std::slice::from_ref(pointer))?;
        Ok(answers.pop().expect("one answer a pointer"))
    }

    /// The payloads at these pointers, in the same order. Neighbours are read in one go.
    pub fn read_all(&self, pointers: &[Pointer]) -> Result<Vec<Bytes>, LogError> {
        let mut answers: Vec<Bytes> = vec![Bytes::new(); pointers.len()];
        let mut on_disk: Vec<(u64, usize)> = Vec::new();
        {
            let streams = self.shared.streams.lock();
            for (which, pointer) in pointers.iter().enumerate() {
                match streams.find(pointer)? {
                    Found::InMemory(bytes) => answers[which] = self.unpack(pointer, bytes)?,
                    Found::OnDisk(offset) => on_disk.push((offset, which)),
                }
            }
        }
        on_disk.sort_unstable();
        let runs = join(&on_disk, pointers);
        let threads = (runs.len() / RUNS_PER_THREAD).clamp(1, READ_THREADS_MAX);
        let read_runs = |runs: &[&[(u64, usize)]]| -> Result<Vec<(usize, Bytes)>, LogError> {
            let mut read = Vec::new();
            for run in runs {
                self.read_run(run, pointers, &mut read)?;
            }
            Ok(read)
        };
        let read: Vec<Result<Vec<(usize, Bytes)>, LogError>> = if threads == 1 {
            vec![read_runs(&runs)]
        } else {
            std::thread::scope(|scope| {
                let share = runs.len().div_ceil(threads);
                let read_runs = &read_runs;
                let threads: Vec<_> = runs
                    .chunks(share)
                    .map(|share| (share, std::thread::Builder::new().spawn_scoped(scope, move || read_runs(share))))
                    .collect();
                let join = |(share, thread): (_, std::io::Result<std::thread::ScopedJoinHandle<'_, _>>)| match thread {
                    Ok(thread) => thread.join().expect("reading does not panic"),
                    // The system gives no more threads.
                    Err(_) => read_runs(share),
                };
                threads.into_iter().map(join).collect()
            })
        };
        for some in read {
            for (which, payload) in some? {
                answers[which] = payload;
            }
        }
        Ok(answers)
    }

    /// Reads neighbours in one go.
    fn read_run(
        &self,
        run: &[(u64, usize)],
        pointers: &[Pointer],
        read: &mut Vec<(usize, Bytes)>,
    ) -> Result<(), LogError> {
        let (start, first) = run[0];
        let end = run.iter().map(|(offset, which)| offset + u64::from(pointers[*which].length)).max();
        let end = end.expect("a run is not empty");
        let mut buffer = vec![0; (end - start) as usize];
        self.shared.disk.read_at(start, &mut buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                LogError::damaged(format!("{}: the store ends before file offset {end:#x}", pointers[first]))
            }
            _ => LogError::Io(format!("reading {} at file offset {start:#x}: {error}", pointers[first]).into()),
        })?;
        let buffer = Bytes::from(buffer);
        for &(offset, which) in run {
            let at = (offset - start) as usize;
            let stored = at..at + pointers[which].length as usize;
            // A payload that is kept must not keep its neighbours' bytes in memory.
            let stored = match pointers[which].codec {
                Codec::Raw if run.len() > 1 => Bytes::copy_from_slice(&buffer[stored]),
                Codec::Raw | Codec::Lz4 => buffer.slice(stored),
            };
            read.push((which, self.unpack(&pointers[which], stored)?));
        }
        Ok(())
    }

    fn unpack(&self, pointer: &Pointer, stored: Bytes) -> Result<Bytes, LogError> {
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
                .map(|payload| Bytes::from(payload.into_owned()))
                .ok_or_else(|| LogError::damaged(format!("{pointer}: cannot be decompressed"))),
        }
    }

    /// Queues a commit.
    pub fn commit(&self, prepare: Prepare, done: Done, claim: Claim) {
        self.send(Message::Commit { prepare, done, claim });
    }

    /// Commits that wait for room in the ring go on, or with an error are told.
    pub fn retry(&self, outcome: Option<LogError>) {
        self.send(Message::Retry(outcome));
    }

    /// Gives back segments.
    pub fn free(&self, numbers: Vec<SegmentNo>) {
        self.send(Message::Free(numbers));
    }

    fn send(&self, message: Message) {
        let sender = self.sender.as_ref().expect("a log opened for reading is not written to");
        if let Message::Write(part) = &message {
            self.shared.flow.accept(part.bytes.len() as u64);
        }
        // The storage thread ends only after `close`, and nothing is sent after that.
        sender.send(message).unwrap_or_else(|_| panic!("the storage thread has ended"));
    }

    /// The segments opened since this was last asked. To be called where the redo that refers to
    /// them is frozen, under the lock that keeps both together.
    pub fn take_births(&self) -> Vec<Birth> {
        self.shared.streams.lock().take_births()
    }

    /// Makes sure that `bytes` can be appended without the disk running full (R7).
    pub fn ensure_capacity(&self, bytes: u64, need: Need) -> Result<(), LogError> {
        let mut streams = self.shared.streams.lock();
        while streams.capacity(need) < bytes {
            if let Err(error) = streams.slots.allocate(&*self.shared.disk) {
                let error = LogError::allocating(&error);
                self.fail_if_io(&error);
                self.shared.check_failure()?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Bytes that slots not yet allocated could hold within the size limit.
    pub fn unallocated_bytes(&self) -> u64 {
        self.shared.streams.lock().slots.remaining().saturating_mul(u64::from(self.geometry.segment_bytes))
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

    /// Ends writing for good, as a failed write does: the layer above cannot go on.
    pub fn fail(&self, cause: String) {
        tracing::error!("{cause}; nothing more is written");
        self.shared.poison(cause.clone());
        // Before the storage thread is started nobody waits.
        if self.sender.is_some() {
            self.retry(Some(LogError::Poisoned(cause.into())));
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

    /// The disk below.
    pub fn disk(&self) -> &dyn Disk {
        &*self.shared.disk
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

/// Cuts file offsets in order (each with the number of its pointer) into runs that are read in one
/// go.
fn join<'a>(on_disk: &'a [(u64, usize)], pointers: &[Pointer]) -> Vec<&'a [(u64, usize)]> {
    let end_of = |(offset, which): (u64, usize)| offset + u64::from(pointers[which].length);
    let mut runs = Vec::new();
    let mut rest = on_disk;
    while let Some(&first) = rest.first() {
        let mut end = end_of(first);
        let mut count = 1;
        for &next in &rest[1..] {
            // A gap of less than a block is cheaper read than skipped.
            if next.0 > end + 4096 || end_of(next) - first.0 > JOINED_READ_BYTES_MAX {
                break;
            }
            end = end.max(end_of(next));
            count += 1;
        }
        let (run, behind) = rest.split_at(count);
        runs.push(run);
        rest = behind;
    }
    runs
}

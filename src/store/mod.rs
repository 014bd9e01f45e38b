//! The library's public API: views, transactions, sync.
//!
//! Files, in reading order: `error`, `open` (create, open, close), `replay` (the redo when a store is
//! opened; `gathered`: the last change of each key), `look` (info, check), `view` (reading),
//! `txn` (changing; `batch` holds its changes), `writer` (the state under the writer lock; `pending` in
//! it is what a commit takes, and `marks` tells of most keys that they are not in there), `commit` (what goes into a
//! commit), `durable` (what a crash would leave), `place` (moving long values into data segments), `checkpoint`, `clean`
//! (emptying segments that are mostly dead) and `moving` (how), `keeper` (the background threads), `abandon` (waiting no
//! longer), `cache`, `ahead` (fetching, also before it is asked for), `figures` (what is counted), `check`; the formats
//! `redo` and `table`.
//!
//! # Contract
//!
//! * **Misses.** Reading methods never wait for storage. What is not in memory is
//!   [`StoreError::Miss`]: nothing has changed; [`Store::fetch`] it (that may wait) and ask again
//!   from the start. [`Store::patiently`] does so in a loop. Thus no lock is ever held across a
//!   read. The same answer says that there is no room for a change ([`Store::begin_now`]) or for
//!   bulk data ([`Store::bulk_room`]): then `fetch` waits for the room.
//! * **Views.** [`Store::view`] is the state after the last committed transaction, whole and
//!   immutable; taking one costs about as much as cloning an `Arc`. Hold it briefly: space that
//!   was freed since is not reused while it lives.
//! * **Transactions.** [`Store::begin`] takes the one writer lock; dropping the [`Txn`] abandons
//!   it; [`Txn::commit`] applies all its changes at once (atomically, also with respect to
//!   crashes) and makes them visible to later views. They are *acknowledged*, not yet durable.
//!   `begin` may wait for storage; [`Store::begin_now`] does not.
//! * **Patience.** Storage may not answer for long. Everything that waits for it has a form with a
//!   deadline, and [`Store::abandon`] ends all waiting for good.
//! * **Durability.** [`Store::sync`] returns Ok when everything committed before the call is
//!   durable (C1). What a crash leaves is the state after some transaction, no older than the last
//!   successful sync (C2), nor than the commit interval, nor than 64 MiB of changes.
//! * **Failure.** After a definite failure of storage the store is poisoned: transactions and
//!   syncs get [`StoreError::Poisoned`] with the first cause, views go on (C5). A full disk is
//!   not a failure: the transaction is refused, nothing has changed (R7).
//!
//! # How a change becomes durable
//!
//! A transaction changes the tree in memory and the map of *pending* changes, which keeps one
//! entry a key. Values too long for a leaf are *raw*: at first they are bytes in memory like any
//! other. When more than about 1 MiB of them is pending, the oldest are *placed*: packed into
//! units, appended to a data segment, and replaced by extents, in the tree and in the pending map.
//! A commit takes the pending map as its redo, with the raw values that are left inside it: one
//! write. Raw values whose commit is durable stay in memory as *settled* until the next checkpoint
//! places them, which needs no redo of its own: until that checkpoint is durable, recovery finds
//! their bytes in the redo, and then their extents in the checkpoint.
//!
//! A bulk load needs no redo. When as much is pending as one commit takes, and nobody asked for
//! durability while it came, it is forgotten: the changes are in the tree, and the next checkpoint,
//! which they make due, brings them all. Until its commit, no other takes redo (W4): a sync waits
//! for it instead. From then on commits carry redo again. Thus a load writes each pair once, in
//! pages that go to storage side by side; and the first sync after it costs a checkpoint.
//!
//! # Locks
//!
//! In this order: `cleaner`, `unfreed`, `placing`, `writer`, `published`, then one of (`in_flight`,
//! `graveyard`, `seen`, `signals`, the cache's shards, the log's own). No lock is held while storage is
//! waited for, except `cleaner` and `unfreed` (by who cleans), `placing` (by the threads that place) and, for one slot's
//! allocation a segment, `writer`.

mod abandon;
mod ahead;
mod batch;
mod cache;
mod check;
mod checkpoint;
mod clean;
mod commit;
mod durable;
mod error;
mod figures;
mod gathered;
mod keeper;
mod look;
mod marks;
mod moving;
mod open;
mod pending;
mod place;
mod reclaim;
mod redo;
mod replay;
mod table;
mod txn;
mod view;
mod writer;

pub use crate::log::{Geometry, Payload};
pub use crate::tree::{Direction, Extent, Value};
pub use cache::{CacheFigures, Kept};
pub use error::{AsMiss, Miss, OpenError, Room, StoreError};
pub use figures::{Activity, Figures, Segments, Space};
pub use look::{BucketInfo, Elsewhere, Holder, Info};
pub use open::{Compression, CreateOptions, OPENING_PATIENCE, OpenOptions};
pub use reclaim::SpaceTries;
pub use txn::{TXN_BYTES_MAX, Txn};
pub use view::{Cursor, View};

use crate::backend::Usage;
use crate::log::{Counter, Log, SegmentNo};
use crate::tree::{InMemory, Node, Pages, Root};
use ahead::Ahead;
use cache::Cache;
use clean::{Aim, Cleaner};
use commit::{COMMIT_OVERHEAD, InFlight, Who};
use figures::Seen;
use keeper::Signals;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use writer::Writer;

/// An open store. Usable from any number of threads.
///
/// Dropping it without [`Store::close`] leaves what a crash would: what was synced is there.
pub struct Store {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    elsewhere: Option<Elsewhere>,
}

/// What the store's threads share.
struct Core {
    log: Log,
    cache: Cache,
    ahead: Ahead,
    writer: Mutex<Writer>,
    published: RwLock<Published>,
    /// Held from the append of a raw value to the change that refers to it, so that a checkpoint
    /// never takes such a segment for empty.
    placing: Mutex<()>,
    /// Signalled when the pending map has been frozen; goes with `writer`.
    room: Condvar,
    in_flight: Mutex<InFlight>,
    /// Transactions that readers can see, or will at once; and how many of them are durable.
    begun: AtomicU64,
    durable: AtomicU64,
    /// Segments to free once nobody reads a state that is older than the checkpoint they died in.
    graveyard: Mutex<VecDeque<(Era, Vec<SegmentNo>)>>,
    cleaner: Mutex<Cleaner>,
    /// While it is held for writing no segment is freed: by the cleaner, which reads the current state for long.
    /// (With an era it would count as a reader of the cache, and pages that are left meanwhile would be kept
    /// there, in vain.)
    unfreed: RwLock<()>,
    /// Transactions of the cleaner's, and bytes that it has moved.
    moves: Counter,
    /// Its passes that gained something.
    gains: Counter,
    moved_bytes: Counter,
    seen: Mutex<Seen>,
    signals: Signals,
    /// Nobody waits for storage any more, nor for threads that do.
    abandoned: AtomicBool,
    read_only: bool,
    /// In a bucket: most live bytes; 0: no limit.
    size_limit: u64,
    limits: Limits,
}

/// What readers hold, so that space they may read is not reused (R2): an era ends with each
/// durable checkpoint.
type Era = Arc<()>;

/// The current state, as readers get it.
struct Published {
    root: Root,
    era: Era,
}

/// Bounds that follow from the geometry.
struct Limits {
    /// Raw bytes that a commit takes inside.
    raw_inside: usize,
    /// Pending bytes, raw ones apart, at which transactions wait for a freeze.
    pending: usize,
    /// Bytes of one transaction, raw ones apart.
    txn: usize,
    /// Changed bytes after which a commit is made in any case (C2).
    changed: u64,
    /// The fewest bytes of log behind the newest checkpoint that are worth the next.
    tail_min: u64,
    /// Bytes of settled values, and in a bulk load of changed pages, at which a checkpoint begins in any
    /// case; at three times that, transactions wait for it (C6).
    settled_max: u64,
    /// Bytes of changed pages at which a checkpoint begins where they take the place of cached ones, at which it
    /// begins in any case, and at which transactions wait for it. A page that is changed again and again is
    /// stored once a checkpoint: the fewer of these, the less is written.
    dirty_max: u64,
    dirty_roomy: u64,
    dirty_wait: u64,
}

impl Limits {
    /// `size_limit`: bytes that the store may come to have; 0: any.
    fn new(geometry: Geometry, commit_bytes_max: u64, cache_bytes: u64, size_limit: u64) -> Limits {
        // Beside the redo a commit holds its header, a checkpoint record and births; and the three
        // parts of the redo leave a twentieth for what counting them leaves out.
        let body = (commit_bytes_max - COMMIT_OVERHEAD) as usize;
        let (raw_inside, txn) = ((body / 5 * 2).min(1 << 20), body / 5 * 2);
        let segment_bytes = u64::from(geometry.segment_bytes);
        let settled_max = (4 * segment_bytes).min(16 << 20);
        // Small segments are for small stores. And what one process may hold the next has to take up again
        // when that was killed, whatever its cache: no more than that of 256 MiB would have.
        let dirty_max = (cache_bytes / 4).min(16 * segment_bytes).min(40 << 20).max(settled_max);
        // What is changed needs its space once more, and in a small store that is not there.
        let dirty_roomy = (cache_bytes / 5 * 2)
            .min(104 << 20)
            .min(if size_limit == 0 { u64::MAX } else { size_limit / 8 })
            .max(dirty_max);
        Limits {
            raw_inside,
            pending: body - raw_inside - txn - body / 20,
            txn,
            changed: (16 * segment_bytes).min(64 << 20),
            // So that as much may come again while the checkpoint is made, before the ring is tight.
            tail_min: (geometry.ring_bytes / 6).min(4 << 20),
            settled_max,
            dirty_max,
            dirty_roomy,
            dirty_wait: (dirty_max + 2 * settled_max).max(dirty_roomy + settled_max),
        }
    }
}

impl Store {
    /// The state after the last committed transaction.
    pub fn view(&self) -> View {
        View::new(&self.core)
    }

    /// The state as of the newest durable commit: what a crash could not take back. Costs as much as what
    /// is not durable is long. Not to be called by who has a transaction under way.
    pub fn committed_view(&self) -> View {
        self.core.durable_view()
    }

    /// Takes the writer lock and begins. Waits only while more changes are pending than a commit
    /// takes.
    pub fn begin(&self) -> Result<Txn<'_>, StoreError> {
        Txn::begin(&self.core)
    }

    /// Like [`Store::begin`], but where that would wait it is a [`Miss`].
    pub fn begin_now(&self) -> Result<Txn<'_>, StoreError> {
        Txn::begin_now(&self.core)
    }

    /// Brings what was missing into memory, or waits for the room that was. Waits for storage.
    pub fn fetch(&self, miss: &Miss) -> Result<(), StoreError> {
        self.core.fetch(miss, None).map(|_| ())
    }

    /// Like [`Store::fetch`], but answers false when that takes longer than until the deadline. A read that
    /// has begun ends only when storage answers it or gives it up: until then this may be late.
    pub fn fetch_until(&self, miss: &Miss, until: Instant) -> Result<bool, StoreError> {
        self.core.fetch(miss, Some(until))
    }

    /// Begins to fetch what was missing and returns: who fetches any of it later waits for that
    /// instead. Only a bounded amount is under way or waits for its turn; what does not fit, and what
    /// fails, is left to who fetches it.
    pub fn fetch_soon(&self, miss: Miss) {
        self.core.fetch_soon(miss);
    }

    /// Begins to fetch the units of these values of the current state, as [`Store::fetch_soon`].
    pub fn prefetch(&self, values: &[Value]) {
        self.view().prefetch(values, values.len(), false);
    }

    /// Bytes of values that are worth fetching before they are asked for, in all: more of them would
    /// push each other out of the cache.
    pub fn ahead_bytes(&self) -> u64 {
        self.core.cache.ahead_bytes()
    }

    /// Whether storage is far away, in a bucket: what has to be fetched takes a round trip.
    pub fn is_far(&self) -> bool {
        self.core.log.bucket().is_some()
    }

    /// Runs `operation` until it no longer misses. Waits for storage.
    pub fn patiently<T, E>(&self, mut operation: impl FnMut() -> Result<T, E>) -> Result<T, E>
    where
        E: AsMiss + From<StoreError>,
    {
        loop {
            match operation() {
                Err(error) => match error.as_miss() {
                    Some(miss) => self.fetch(miss)?,
                    None => return Err(error),
                },
                done => return done,
            }
        }
    }

    /// Like [`Store::patiently`], but no longer than until the deadline.
    pub fn patiently_until<T, E>(&self, until: Instant, mut operation: impl FnMut() -> Result<T, E>) -> Result<T, E>
    where
        E: AsMiss + From<StoreError>,
    {
        loop {
            match operation() {
                Err(error) => match error.as_miss() {
                    Some(miss) if Instant::now() < until && self.fetch_until(miss, until)? => {}
                    Some(_) => return Err(StoreError::Io("storage did not answer in time".into()).into()),
                    None => return Err(error),
                },
                done => return done,
            }
        }
    }

    /// Waits until everything committed so far is durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        let (answer, answered) = std::sync::mpsc::channel();
        self.sync_then(Box::new(move |result| {
            // The receiver is just below and waits.
            answer.send(result).unwrap_or_else(|_| panic!("nobody waits for the sync"));
        }));
        answered.recv().expect("every sync is answered")
    }

    /// Of which of these keys a view taken before shows what is durable: those that have no change since
    /// that is not. False of all while that cannot be told key by key, or not at once. Not to be called by
    /// who has a transaction under way.
    pub fn are_durable<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<bool> {
        self.core.are_durable(keys)
    }

    /// Calls `done` once everything committed so far is durable, or cannot become so. Does not
    /// wait; `done` runs on another thread (or on this one, before the call returns) and must not
    /// wait either, nor call the store.
    pub fn sync_then(&self, done: Box<dyn FnOnce(Result<(), StoreError>) + Send>) {
        self.core.sync_then(Who::StorageThread, done);
    }

    /// The same for who can wait for the disk, and holds no lock: in a file, if nothing else is being stored, the
    /// calling thread makes the commit itself before it returns, and is not woken by another. (Where the log has no room
    /// for one before a checkpoint, the storage thread makes it then.) So there it waits for the
    /// disk while one commit is written and flushed, also when the store is given up meanwhile; never for another
    /// caller, and never in a bucket.
    pub fn sync_here(&self, done: Box<dyn FnOnce(Result<(), StoreError>) + Send>) {
        self.core.sync_then(Who::Caller, done);
    }

    /// Whether everything that a view taken before shows is durable. Cheap; false also while that is
    /// being found out: then [`Store::sync_then`] tells when it is.
    pub fn is_durable(&self) -> bool {
        self.core.durable.load(Ordering::SeqCst) == self.core.begun.load(Ordering::SeqCst)
    }

    /// Whether what was accepted and not yet stored is below the in-flight limit: the only
    /// back-pressure. To be asked before taking in bulk data. If not, it is a [`Miss`].
    pub fn bulk_room(&self) -> Result<(), StoreError> {
        if self.core.log.has_room() { Ok(()) } else { Err(StoreError::no_room(Room::Bulk)) }
    }

    /// Waits until that is so. Call it with no lock held.
    pub fn wait_for_room(&self) {
        self.core.log.wait_for_room(None);
    }

    /// How full it is, in whole segments; in a bucket, in bytes that hold what is live. Waits for nobody: where a transaction is under
    /// way for long, its own above all, it may be as it was when it was last asked for.
    pub fn space(&self) -> Space {
        self.core.space()
    }

    /// Opened for reading: who wrote to it when it was opened, if anybody did.
    pub fn elsewhere(&self) -> Option<&Elsewhere> {
        self.elsewhere.as_ref()
    }

    /// What was done so far.
    pub fn activity(&self) -> Activity {
        self.core.activity()
    }

    /// All that can be counted or measured, as of now. Reads no storage, and waits for nobody, as
    /// [`Store::space`].
    pub fn figures(&self) -> Figures {
        self.core.figures()
    }

    /// Longest value that this store takes: [`VALUE_MAX`](crate::tree::VALUE_MAX), or less where
    /// its segments are tiny.
    pub fn value_bytes_max(&self) -> usize {
        crate::tree::VALUE_MAX.min(self.core.log.payload_bytes_max())
    }

    /// Moves what lives in the segments that hold least, now, so that the next checkpoint frees them; answers whether
    /// there are any. It comes by itself where a store takes much more than it holds; this is for tests and for
    /// measuring.
    pub fn clean(&self) -> Result<bool, StoreError> {
        if self.core.read_only { Ok(false) } else { self.core.clean(Aim::Space, None) }
    }

    /// Bytes that were accepted and are not stored yet.
    pub fn unstored_bytes(&self) -> u64 {
        self.core.log.in_flight()
    }

    /// Requests to the bucket since the store was opened; none for a local store.
    pub fn usage(&self) -> Option<Usage> {
        self.core.log.bucket().map(|bucket| bucket.usage())
    }

    /// Writes a checkpoint now and waits until it is durable. It comes by itself; this is for
    /// tests and for measuring.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.core.checkpoint(None)
    }
}

impl Core {
    /// Answers whether it was done before the deadline.
    fn fetch(self: &Arc<Self>, miss: &Miss, until: Option<Instant>) -> Result<bool, StoreError> {
        match miss.room {
            Some(room) => self.wait_for_room(room, until),
            None => self.fetch_data(miss, until),
        }
    }

    /// The first failure, as callers get it.
    fn check_failure(&self) -> Result<(), StoreError> {
        match self.log.failure() {
            Some(cause) => Err(StoreError::Poisoned(cause)),
            None => Ok(()),
        }
    }
}

/// Reads pages from storage where the cache does not have them, without keeping them: for walks
/// over the whole tree.
struct Reading<'a>(&'a Core);

impl Pages for Reading<'_> {
    fn page(&self, at: &crate::log::Pointer) -> Result<Arc<Node>, crate::tree::TreeError> {
        use crate::log::LogError;
        use crate::tree::TreeError;
        if let Ok(page) = self.0.cache.page(at) {
            return Ok(page);
        }
        let payload = self.0.log.read(at).map_err(|error| match error {
            LogError::Damaged(damage) => TreeError::Damaged { at: *at, what: damage.what },
            other => TreeError::Io { at: *at, cause: other.to_string().into() },
        })?;
        let page = Node::decode(&payload, *at)
            .map_err(|error| TreeError::Damaged { at: *at, what: error.to_string().into() })?;
        Ok(Arc::new(page))
    }

    fn hold(&self, look: &mut dyn FnMut(&dyn InMemory)) {
        self.0.cache.hold(look);
    }
}

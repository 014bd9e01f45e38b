//! Creating, opening and closing a store.

use super::ahead::Ahead;
use super::cache::Cache;
use super::checkpoint::StoredTable;
use super::commit::InFlight;
use super::keeper::Signals;
use super::look::{Elsewhere, Holder, holder_of};
use super::replay::replay;
use super::table::{self, Table};
use super::writer::Writer;
use super::{Core, Limits, OpenError, Published, Store, StoreError};
use crate::backend::{Disk, FileDisk, Hold, Objects};
use crate::log::{
    self, Access, Birth, Bucket, Codec, Counter, Geometry, HolderRecord, Log, NEEDED_SEGMENTS, Pointer, READY_SEGMENTS,
    Recovery, RootKind, SegmentNo,
};
use crate::tree::Tree;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Who makes, opens or looks at a store in a bucket waits for no answer longer than this, whatever their
/// `timeout`: who typed a wrong address should not wait for long.
pub const OPENING_PATIENCE: Duration = Duration::from_secs(15);

/// How long dropping a store waits for what is being read ahead from its file, should the disk hang.
const ENDING_PATIENCE: Duration = Duration::from_secs(5);

/// What is fixed for the life of a store, and how it is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Most bytes that the store's file may have, or in a bucket: most bytes that hold live data;
    /// `None`: what there is.
    pub size: Option<u64>,
    /// Its sizes; `None`: the usual ones.
    pub geometry: Option<Geometry>,
    /// In a bucket: make it even if the server's conditional PUT is not atomic.
    pub unsafe_no_fencing: bool,
    /// In a bucket: how long an answer is waited for, within [`OPENING_PATIENCE`].
    pub timeout: Duration,
}

impl Default for CreateOptions {
    fn default() -> CreateOptions {
        CreateOptions { size: None, geometry: None, unsafe_no_fencing: false, timeout: OPENING_PATIENCE }
    }
}

/// How stored bytes are compressed from now on; what is stored already stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: fast; what does not shrink is stored as it is.
    #[default]
    Lz4,
}

/// How an open store behaves.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Nothing is written, not even a commit; any number of readers may share the store.
    pub read_only: bool,
    /// Bytes of memory for cached pages and units; at least 8 MiB are used.
    pub cache_bytes: u64,
    /// Changes are committed at least this often; zero: every transaction at once.
    pub commit_interval: Duration,
    /// For new data.
    pub compression: Compression,
    /// Most bytes that the store may come to occupy, counted in the same way, if that is less than what it
    /// was made with. What would take more is `NoSpace`, except for work that makes it smaller, which may
    /// take a segment more; a store that has more already can be read and made smaller.
    pub size_max: Option<u64>,
    /// What others are told about who holds the store: the mount point or socket.
    pub serving_at: Option<PathBuf>,
    /// In a bucket: how long what is read waits for an answer.
    pub timeout: Duration,
    /// In a bucket: take the store even from a holder that may be alive; it is fenced.
    pub takeover: bool,
    /// In a bucket: write even if the server's conditional PUT is not atomic.
    pub unsafe_no_fencing: bool,
    /// In a bucket: a directory of the local disk in which stored bytes are kept, and how many of them
    /// (at least 64 MiB). It may be lost at any time.
    pub disk_cache: Option<(PathBuf, u64)>,
    /// In a bucket: how long deleted segments stay, for readers elsewhere.
    pub grace: Duration,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            read_only: false,
            cache_bytes: 64 << 20,
            commit_interval: Duration::from_secs(5),
            compression: Compression::default(),
            size_max: None,
            serving_at: None,
            timeout: Duration::from_secs(300),
            takeover: false,
            unsafe_no_fencing: false,
            disk_cache: None,
            grace: Duration::from_secs(600),
        }
    }
}

impl Store {
    /// Makes a new, empty store in a new file. Durable (the file and its name) when it returns;
    /// after an error there is no file.
    pub fn create_at(path: &Path, options: &CreateOptions) -> Result<(), OpenError> {
        let disk = FileDisk::create(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let what = "its directory does not exist: make that first, with 'mkdir -p'";
                OpenError::Io { path: path.into(), error: io::Error::new(io::ErrorKind::NotFound, what) }
            }
            _ => open_error(path, error),
        })?;
        let result = create(path, &disk, options)
            .and_then(|()| FileDisk::sync_name(path).map_err(|error| open_error(path, error)));
        result.inspect_err(|_| {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!("{}: cannot remove the unfinished store: {error}", path.display());
            }
        })
    }

    /// Makes a new, empty store on that disk.
    pub fn create_on(disk: Arc<dyn Disk>, options: &CreateOptions) -> Result<(), OpenError> {
        create(&nowhere(), &*disk, options)
    }

    /// Opens the store in that file: locks it (readers share, a writer excludes), recovers. Opened
    /// for writing, it has begun a new epoch durably when this returns. Pages that its last changes are of may be
    /// read later; one that is damaged then poisons the store.
    pub fn open_at(path: &Path, options: &OpenOptions) -> Result<Store, OpenError> {
        let hold = if options.read_only { Hold::Shared } else { Hold::Exclusive };
        let disk = lock(path, hold)?;
        open(path, Arc::new(disk), options)
    }

    /// Makes a new, empty store in that bucket, below its prefix. Tries out whether the server keeps
    /// two writers apart. Durable when it returns.
    pub fn create_in(bucket: Arc<dyn Objects>, options: &CreateOptions) -> Result<(), OpenError> {
        let path = PathBuf::from(bucket.name());
        let geometry = options.geometry.unwrap_or_else(Geometry::for_bucket);
        // No ring becomes longer there.
        let geometry = Geometry { ring_at_first: geometry.ring_bytes, ..geometry };
        let size = check_sizes(&path, geometry, 4 * u64::from(geometry.segment_bytes), options.size)?;
        let bucket =
            Bucket::new(bucket, options.timeout.min(OPENING_PATIENCE), Duration::ZERO, options.unsafe_no_fencing);
        log::create_in(&bucket, geometry, size).map_err(|error| OpenError::from_log(path, error))
    }

    /// Opens the store in that bucket. Opened for writing, it is ours when this returns: who had it
    /// before can acknowledge nothing more.
    pub fn open_in(bucket: Arc<dyn Objects>, options: &OpenOptions) -> Result<Store, OpenError> {
        let path = PathBuf::from(bucket.name());
        let patience = options.timeout.min(OPENING_PATIENCE);
        let bucket = Bucket::new(bucket, patience, options.grace, options.unsafe_no_fencing);
        let access = match options.read_only {
            true => Access::ReadOnly,
            false => Access::Write {
                place: options.serving_at.as_ref().map(|place| place.as_os_str().as_bytes().to_vec()),
                takeover: options.takeover,
            },
        };
        let disk_cache = options.disk_cache.as_ref().map(|(directory, bytes)| (directory.as_path(), *bytes));
        let opened = Log::open_in(bucket, codec_of(options), access, disk_cache);
        let (log, recovery) = opened.map_err(|error| OpenError::from_log(path.clone(), error))?;
        let store = open_log(&path, log, recovery, options)?;
        if let Some(bucket) = store.core.log.bucket() {
            bucket.set_patience(options.timeout);
        }
        Ok(store)
    }

    /// Opens the store on that disk.
    pub fn open_on(disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<Store, OpenError> {
        open(&nowhere(), disk, options)
    }

    /// Verifies this open store, as of now. Slow; reads everything.
    pub fn check(&self, data: bool) -> Vec<String> {
        self.core.check(data)
    }

    /// Tells others (the holder record) that this process is draining: no new work comes.
    pub fn announce_draining(&self) {
        if self.core.read_only {
            return;
        }
        if let Some(disk) = self.core.log.disk()
            && let Some(record) = HolderRecord::read(disk)
            && let Err(error) = (HolderRecord { draining: true, ..record }).write(disk)
        {
            tracing::warn!("cannot tell others that this store is being closed: {error}");
        }
    }

    /// Makes everything durable and ends: no more transactions. The result tells whether
    /// everything is durable. The file's lock is dropped with the store itself.
    pub fn close(&self) -> Result<(), StoreError> {
        self.refuse_transactions();
        // While the checkpoint thread still runs: a commit may have to wait for it to make room.
        let synced = self.sync();
        // Much that is owed needs the space that stands ready for it, which others might take as
        // soon as it is given back.
        let owes = !self.core.read_only && self.core.owes_much();
        let paid = synced.is_ok() && (!owes || self.checkpoint().is_ok());
        self.stop_threads();
        synced?;
        if self.core.read_only {
            return Ok(());
        }
        self.core.log.close(paid)?;
        if let Some(disk) = self.core.log.disk()
            && let Err(error) = HolderRecord::clear(disk)
        {
            tracing::debug!("cannot clear the holder record: {error}");
        }
        Ok(())
    }

    fn refuse_transactions(&self) {
        self.core.writer.lock().closing = true;
        self.core.room.notify_all();
    }

    fn stop_threads(&self) {
        self.refuse_transactions();
        self.core.ahead.stop();
        self.core.signals.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        if self.core.abandoned.load(Ordering::Relaxed) {
            // They may wait for storage, for as long as it likes, and end then.
            return;
        }
        for thread in threads {
            thread.join().expect("the background threads do not panic");
        }
        let mut waiters = Vec::new();
        {
            let mut writer = self.core.writer.lock();
            if !self.core.read_only && !writer.closed {
                // What waits for a checkpoint would wait for ever now.
                writer.closed = true;
                if writer.has_skipped() {
                    waiters.append(&mut writer.waiters);
                }
                self.core.log.retry(Some(log::LogError::Poisoned("it was closed".into())));
            }
        }
        for waiter in waiters {
            waiter(Err(StoreError::Poisoned("it was closed".into())));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What the background threads may be waiting for.
        self.core.log.give_up();
        self.stop_threads();
        if self.core.log.disk().is_some() {
            // The file is locked until then.
            self.core.ahead.wait_for_end(ENDING_PATIENCE);
        }
    }
}

fn nowhere() -> PathBuf {
    PathBuf::from("(store)")
}

fn create(path: &Path, disk: &dyn Disk, options: &CreateOptions) -> Result<(), OpenError> {
    let geometry = options.geometry.unwrap_or_else(|| options.size.map_or_else(Geometry::default, Geometry::of_size));
    // With fewer segments hardly anything could be moved, and a few mounts that each begin two would fill it.
    let least = geometry.slots_offset() + (NEEDED_SEGMENTS + READY_SEGMENTS) * u64::from(geometry.segment_bytes);
    let size = check_sizes(path, geometry, least, options.size)?;
    log::create(disk, geometry, size).map_err(|error| OpenError::from_log(path.into(), error))
}

/// Answers the size limit; 0: none.
fn check_sizes(path: &Path, geometry: Geometry, least: u64, size: Option<u64>) -> Result<u64, OpenError> {
    let size = size.unwrap_or(0);
    let invalid = |what| OpenError::Io { path: path.into(), error: io::Error::new(io::ErrorKind::InvalidInput, what) };
    if !geometry.is_valid() {
        return Err(invalid(format!("a store cannot have these sizes: {geometry:?}")));
    }
    if size > 0 && size < least {
        // Rounded up, so that it can be asked for as it stands here.
        let least_kib = least.div_ceil(1 << 10);
        let (least, unit) = if least_kib > 9999 { (least_kib.div_ceil(1 << 10), 'M') } else { (least_kib, 'K') };
        return Err(invalid(format!("a size of {size} bytes is too small: it must be at least {least}{unit}")));
    }
    Ok(size)
}

pub fn lock(path: &Path, hold: Hold) -> Result<FileDisk, OpenError> {
    FileDisk::open(path, hold).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let holder = FileDisk::open(path, Hold::None).map(|disk| holder_of(&disk));
            OpenError::InUse { path: path.into(), holder: holder.unwrap_or_else(|_| Holder::local(0, None, false)) }
        }
        _ => open_error(path, error),
    })
}

pub fn open_error(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::NotFound(path.into()),
        io::ErrorKind::AlreadyExists => OpenError::Exists(path.into()),
        io::ErrorKind::StorageFull => OpenError::NoSpace { path: path.into(), what: error.to_string() },
        _ => OpenError::Io { path: path.into(), error },
    }
}

fn codec_of(options: &OpenOptions) -> Codec {
    match options.compression {
        Compression::None => Codec::Raw,
        Compression::Lz4 => Codec::Lz4,
    }
}

pub fn open(path: &Path, disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<Store, OpenError> {
    let (log, recovery) =
        Log::open(disk, codec_of(options)).map_err(|error| OpenError::from_log(path.into(), error))?;
    open_log(path, log, recovery, options)
}

fn open_log(path: &Path, mut log: Log, mut recovery: Recovery, options: &OpenOptions) -> Result<Store, OpenError> {
    let from_log = |error| OpenError::from_log(path.into(), error);
    let from_store = |error| OpenError::from_store(path.into(), error);
    let cache = match log.bucket() {
        Some(_) => Cache::of_far(options.cache_bytes),
        None => Cache::new(options.cache_bytes),
    };
    let (writer, mut stored, leftovers) =
        recover(&log, &cache, &mut recovery, !options.read_only).map_err(from_store)?;
    let (last, size_limit, time_ns) = (recovery.last, recovery.size_limit, recovery.time_ns);
    let elsewhere = if options.read_only { Elsewhere::of(&recovery) } else { None };
    if !options.read_only {
        let record = HolderRecord {
            pid: std::process::id(),
            draining: false,
            place: options.serving_at.as_ref().map(|place| place.as_os_str().as_bytes().to_vec()),
        };
        if let Some(disk) = log.disk() {
            record.write(disk).map_err(|error| open_error(path, error))?;
        }
        log.start(recovery, writer.table.iter().map(|(_, entry)| entry.place)).map_err(from_log)?;
        if let Some(quota) = options.size_max.filter(|_| log.disk().is_some()) {
            log.set_quota(quota);
        }
    }
    let published = Published { root: writer.tree.root(), era: Arc::default() };
    let size_max = least_limit(size_limit, options.size_max);
    let core = Arc::new(Core {
        published: RwLock::new(published),
        limits: Limits::new(log.geometry(), log.commit_bytes_max(), options.cache_bytes, size_max),
        size_limit: if log.bucket().is_some() { size_max } else { 0 },
        log,
        cache,
        ahead: Ahead::default(),
        cleaner: Mutex::default(),
        unfreed: RwLock::new(()),
        moves: Counter::default(),
        gains: Counter::default(),
        moved_bytes: Counter::default(),
        seen: Mutex::default(),
        writer: Mutex::new(writer),
        placing: Mutex::new(()),
        room: Condvar::new(),
        in_flight: Mutex::new(InFlight::default()),
        begun: AtomicU64::new(0),
        durable: AtomicU64::new(0),
        graveyard: Mutex::new(VecDeque::new()),
        signals: Signals::new(options.commit_interval),
        abandoned: AtomicBool::new(false),
        read_only: options.read_only,
    });
    core.keep_room(&core.writer.lock());
    // What is told to who asks while the writer is busy.
    core.look();
    let threads = match options.read_only {
        true => Vec::new(),
        false => {
            core.claim(last, &mut stored).map_err(from_store)?;
            core.free_leftovers(leftovers, &stored, time_ns);
            core.start_threads(stored).map_err(|error| OpenError::Io { path: path.into(), error })?
        }
    };
    Ok(Store { core, threads: Mutex::new(threads), elsewhere })
}

/// The smaller of a store's own limit (0: it has none) and the one that it is opened with.
fn least_limit(made_with: u64, size_max: Option<u64>) -> u64 {
    match (made_with, size_max) {
        (0, None) => 0,
        (0, Some(size_max)) => size_max.max(1),
        (limit, size_max) => size_max.map_or(limit, |size_max| size_max.clamp(1, limit)),
    }
}

/// The state that recovery found: the checkpoint, and the redo after it applied, or some of it postponed if it
/// may be `later`.
///
/// Takes the redo. Also answers the segments that were dead in the checkpoint, and are known to be there still.
fn recover(
    log: &Log,
    cache: &Cache,
    recovery: &mut Recovery,
    later: bool,
) -> Result<(Writer, StoredTable, Vec<SegmentNo>), StoreError> {
    let (mut table, stored) = load_table(log, recovery)?;
    if log.disk().is_some() {
        drop_reused_places(&mut table, recovery)?;
    }
    log.adopt(table.iter().map(|(number, entry)| Birth { number, place: entry.place }));
    let is_left = |number| !stored.lies_in(number) && recovery.births.iter().all(|birth| birth.number != number);
    let leftovers = table.iter().filter(|(number, entry)| entry.live == 0 && is_left(*number));
    let leftovers = leftovers.map(|(number, _)| number).collect();
    let root = recovery.root(RootKind::Tree);
    if let Some(root) = &root {
        log.have_near(root)?;
    }
    let tree = Tree::stored(root, log.geometry().page_bytes as usize);
    let mut writer = Writer::new(tree, table, recovery.last);
    let commits = std::mem::take(&mut recovery.redo).into_iter().map(|redo| log.read_redo(&recovery.store, redo));
    replay(log, cache, &mut writer, commits, later)?;
    Ok((writer, stored, leftovers))
}

/// The segment table as of the checkpoint, and the segments opened since.
pub fn load_table(log: &Log, recovery: &Recovery) -> Result<(Table, StoredTable), StoreError> {
    let segment_bytes = u64::from(log.geometry().segment_bytes);
    let mut table =
        if log.disk().is_some() { Table::of_slots(segment_bytes) } else { Table::of_objects(segment_bytes) };
    let list = recovery.root(RootKind::Table);
    let mut chunks = BTreeMap::new();
    if let Some(pointer) = &list {
        log.have_near(pointer)?;
        let list = table::decode_list(&log.read(pointer)?).map_err(|error| StoreError::damaged(error.what))?;
        table.set_pages(list.pages);
        chunks = list.chunks;
        log.adopt(chunks.values().map(|chunk| Birth { number: chunk.pointer.segment, place: chunk.place }));
        let pointers: Vec<Pointer> = chunks.values().map(|chunk| chunk.pointer).collect();
        for (number, bytes) in chunks.keys().zip(log.read_all(&pointers)?) {
            table.decode_chunk(*number, &bytes).map_err(|error| StoreError::damaged(error.what))?;
        }
        if table.pages().is_some_and(|pages| pages > table.live()) {
            return Err(StoreError::damaged("the segment table has more pages than bytes"));
        }
    }
    for birth in &recovery.births {
        if table.get(birth.number).is_none() {
            table.born(*birth);
        }
    }
    Ok((table, StoredTable { chunks, list }))
}

/// A segment that was dead in the checkpoint may have been freed since, and its slot reused by a
/// later one: then it is gone.
fn drop_reused_places(table: &mut Table, recovery: &Recovery) -> Result<(), StoreError> {
    let mut by_place = BTreeMap::new();
    for (number, entry) in table.iter() {
        by_place.entry(entry.place).or_insert_with(Vec::new).push((number, entry));
    }
    for (place, segments) in by_place {
        for (number, entry) in &segments[..segments.len() - 1] {
            if entry.live > 0 || recovery.births.iter().all(|birth| birth.place != place) {
                return Err(StoreError::Damaged(format!("{number:?} shares slot {place} with another segment").into()));
            }
            table.remove(*number);
        }
    }
    Ok(())
}

//! Creating, opening, closing and looking at a store.

use super::cache::Cache;
use super::checkpoint::StoredTable;
use super::commit::InFlight;
use super::keeper::Signals;
use super::table::{self, Deltas, Table};
use super::writer::Writer;
use super::{Core, Limits, OpenError, Published, Store, StoreError, redo};
use crate::backend::{Disk, FileDisk, Hold};
use crate::log::{self, Birth, Codec, Geometry, HolderRecord, Log, Pointer, Recovery, RootKind};
use crate::tree::{Key, Node, Pages, Tree, TreeError, Value};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// What is fixed for the life of a store.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// Most bytes that the store's file may have; `None`: what its disk has.
    pub size: Option<u64>,
    /// Its sizes; the usual ones by default.
    pub geometry: Geometry,
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
    /// What others are told about who holds the store: the mount point or socket.
    pub serving_at: Option<PathBuf>,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            read_only: false,
            cache_bytes: 64 << 20,
            commit_interval: Duration::from_secs(5),
            compression: Compression::default(),
            serving_at: None,
        }
    }
}

/// Who has a store open for writing, as that process wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id; 0: it has not said yet.
    pub pid: u32,
    /// Where it serves the store: a mount point, say. Absolute.
    pub serving_at: Option<PathBuf>,
    /// It is making the last changes durable and will be gone soon.
    pub draining: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("another process")?,
            pid => write!(f, "pid {pid}")?,
        }
        match &self.serving_at {
            Some(place) => write!(f, " at {}", place.display()),
            None => Ok(()),
        }
    }
}

/// What `info` tells of a store; read without a lock, as of its newest commit.
#[derive(Clone, Debug)]
pub struct Info {
    /// The store's identity, 32 hexadecimal digits.
    pub id: String,
    /// Format version.
    pub version: u16,
    /// Epoch: how many times it was opened for writing, creation included.
    pub epoch: u64,
    /// Sequence number of the newest commit.
    pub sequence: u64,
    /// When that was written.
    pub committed_at: SystemTime,
    /// Bytes of disk that the file occupies.
    pub occupied_bytes: u64,
    /// Bytes that live data occupies in data segments.
    pub live_bytes: u64,
    /// Data segments.
    pub segments: u64,
    /// The limit given at creation.
    pub size: Option<u64>,
    /// Who has it open for writing now.
    pub holder: Option<Holder>,
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
    /// for writing, it has begun a new epoch durably when this returns.
    pub fn open_at(path: &Path, options: &OpenOptions) -> Result<Store, OpenError> {
        let hold = if options.read_only { Hold::Shared } else { Hold::Exclusive };
        let disk = lock(path, hold)?;
        open(path, Arc::new(disk), options)
    }

    /// Opens the store on that disk.
    pub fn open_on(disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<Store, OpenError> {
        open(&nowhere(), disk, options)
    }

    /// Looks at the store in that file, without a lock, also while another process holds it.
    pub fn info_at(path: &Path) -> Result<Info, OpenError> {
        let file = Arc::new(FileDisk::open(path, Hold::None).map_err(|error| open_error(path, error))?);
        let held = file.is_held_by_other().map_err(|error| open_error(path, error))?;
        let holder = held.then(|| holder_of(&*file));
        // What a writer does meanwhile can look like damage for a moment.
        let mut tries = 5;
        let (recovery, table) = loop {
            match Log::open(file.clone(), Codec::Raw).map_err(StoreOrLog::Log).and_then(|(log, recovery)| {
                let (table, _) = load_table(&log, &recovery).map_err(StoreOrLog::Store)?;
                Ok((recovery, table))
            }) {
                Ok(read) => break read,
                Err(StoreOrLog::Log(log::LogError::Damaged(_)) | StoreOrLog::Store(StoreError::Damaged(_)))
                    if held && tries > 0 =>
                {
                    tries -= 1;
                }
                Err(StoreOrLog::Log(error)) => return Err(OpenError::from_log(path.into(), error)),
                Err(StoreOrLog::Store(error)) => return Err(OpenError::from_store(path.into(), error)),
            }
        };
        Ok(Info {
            id: recovery.store.iter().map(|byte| format!("{byte:02x}")).collect(),
            version: log::VERSION,
            epoch: recovery.epoch,
            sequence: recovery.last.0,
            committed_at: SystemTime::UNIX_EPOCH + Duration::from_nanos(recovery.time_ns),
            occupied_bytes: file.occupied_bytes().map_err(|error| open_error(path, error))?,
            live_bytes: table.iter().map(|(_, entry)| entry.live).sum(),
            segments: table.iter().count() as u64,
            size: (recovery.size_limit > 0).then_some(recovery.size_limit),
            holder,
        })
    }

    /// Verifies the structure (and with `data` every stored byte). The answer lists what is wrong,
    /// one line each; empty: whole. A reader's lock is held meanwhile.
    pub fn check_at(path: &Path, data: bool) -> Result<Vec<String>, OpenError> {
        let disk = lock(path, Hold::Shared)?;
        check(path, Arc::new(disk), data)
    }

    /// Verifies the store on that disk, as [`Store::check_at`].
    pub fn check_on(disk: Arc<dyn Disk>, data: bool) -> Result<Vec<String>, OpenError> {
        check(&nowhere(), disk, data)
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
        if let Some(record) = HolderRecord::read(self.core.log.disk())
            && let Err(error) = (HolderRecord { draining: true, ..record }).write(self.core.log.disk())
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
        if let Err(error) = HolderRecord::clear(self.core.log.disk()) {
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
        self.core.signals.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        if self.core.abandoned.load(Ordering::Relaxed) {
            // They may wait for storage, for as long as it likes, and end then.
            return;
        }
        for thread in threads {
            thread.join().expect("the background threads do not panic");
        }
        let mut writer = self.core.writer.lock();
        if !self.core.read_only && !writer.closed {
            // A commit that waits for a checkpoint would wait for ever now.
            writer.closed = true;
            self.core.log.retry(Some(log::LogError::Poisoned("it was closed".into())));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

enum StoreOrLog {
    Store(StoreError),
    Log(log::LogError),
}

fn nowhere() -> PathBuf {
    PathBuf::from("(store)")
}

fn create(path: &Path, disk: &dyn Disk, options: &CreateOptions) -> Result<(), OpenError> {
    let size = options.size.unwrap_or(0);
    let invalid = |what| OpenError::Io { path: path.into(), error: io::Error::new(io::ErrorKind::InvalidInput, what) };
    if !options.geometry.is_valid() {
        return Err(invalid(format!("a store cannot have these sizes: {:?}", options.geometry)));
    }
    let least = options.geometry.slots_offset() + 4 * u64::from(options.geometry.segment_bytes);
    if size > 0 && size < least {
        // Rounded up, so that it can be asked for as it stands here.
        let least_kib = least.div_ceil(1 << 10);
        let (least, unit) = if least_kib > 9999 { (least_kib.div_ceil(1 << 10), 'M') } else { (least_kib, 'K') };
        return Err(invalid(format!("a size of {size} bytes is too small: it must be at least {least}{unit}")));
    }
    log::create(disk, options.geometry, size).map_err(|error| OpenError::from_log(path.into(), error))
}

fn lock(path: &Path, hold: Hold) -> Result<FileDisk, OpenError> {
    FileDisk::open(path, hold).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let holder = FileDisk::open(path, Hold::None).map(|disk| holder_of(&disk));
            let nobody = Holder { pid: 0, serving_at: None, draining: false };
            OpenError::InUse { path: path.into(), holder: holder.unwrap_or(nobody) }
        }
        _ => open_error(path, error),
    })
}

fn holder_of(disk: &dyn Disk) -> Holder {
    match HolderRecord::read(disk) {
        Some(record) => Holder {
            pid: record.pid,
            serving_at: record.place.map(|place| PathBuf::from(OsString::from_vec(place))),
            draining: record.draining,
        },
        None => Holder { pid: 0, serving_at: None, draining: false },
    }
}

fn open_error(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::NotFound(path.into()),
        io::ErrorKind::AlreadyExists => OpenError::Exists(path.into()),
        io::ErrorKind::StorageFull => OpenError::NoSpace { path: path.into(), what: error.to_string() },
        _ => OpenError::Io { path: path.into(), error },
    }
}

fn open(path: &Path, disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<Store, OpenError> {
    let from_log = |error| OpenError::from_log(path.into(), error);
    let from_store = |error| OpenError::from_store(path.into(), error);
    let codec = match options.compression {
        Compression::None => Codec::Raw,
        Compression::Lz4 => Codec::Lz4,
    };
    let (mut log, recovery) = Log::open(disk, codec).map_err(from_log)?;
    let cache = Cache::new(options.cache_bytes);
    let (writer, mut stored) = recover(&log, &cache, &recovery).map_err(from_store)?;
    let last = recovery.last;
    if !options.read_only {
        let record = HolderRecord {
            pid: std::process::id(),
            draining: false,
            place: options.serving_at.as_ref().map(|place| place.as_os_str().as_bytes().to_vec()),
        };
        record.write(log.disk()).map_err(|error| open_error(path, error))?;
        log.start(recovery, writer.table.iter().map(|(_, entry)| entry.place)).map_err(from_log)?;
    }
    let published = Published { root: writer.tree.root(), era: Arc::default() };
    let core = Arc::new(Core {
        committed: RwLock::new(writer.tree.root()),
        published: RwLock::new(published),
        limits: Limits::new(log.geometry()),
        log,
        cache,
        writer: Mutex::new(writer),
        placing: Mutex::new(()),
        room: Condvar::new(),
        in_flight: Mutex::new(InFlight::default()),
        graveyard: Mutex::new(VecDeque::new()),
        signals: Signals::new(options.commit_interval),
        abandoned: AtomicBool::new(false),
        read_only: options.read_only,
    });
    let threads = match options.read_only {
        true => Vec::new(),
        false => {
            core.claim(last, &mut stored).map_err(from_store)?;
            core.start_threads(stored).map_err(|error| OpenError::Io { path: path.into(), error })?
        }
    };
    Ok(Store { core, threads: Mutex::new(threads) })
}

/// The state that recovery found: the checkpoint, and the redo after it applied.
fn recover(log: &Log, cache: &Cache, recovery: &Recovery) -> Result<(Writer, StoredTable), StoreError> {
    let (mut table, stored) = load_table(log, recovery)?;
    drop_reused_places(&mut table, recovery)?;
    log.adopt(table.iter().map(|(number, entry)| Birth { number, place: entry.place }));
    let tree = Tree::stored(recovery.root(RootKind::Tree), log.geometry().page_bytes as usize);
    let mut writer = Writer::new(tree, table);
    // All at once, the last change of each key: what is read is read once, and together.
    let mut redo: BTreeMap<Key, Option<Value>> = BTreeMap::new();
    for body in &recovery.redo {
        redo.extend(redo::decode(body.clone()).map_err(|error| damaged(error.what))?);
    }
    let redo: Vec<redo::Change> = redo.into_iter().collect();
    let mut deltas = Deltas::default();
    let mut pages = Replayed { cache, pages: HashMap::new() };
    while let Err(error) = writer.tree.apply(&pages, &redo, &mut deltas) {
        let TreeError::Miss(missing) = error else { return Err(error.into()) };
        for (at, payload) in missing.iter().zip(log.read_all(&missing)?) {
            let page = Node::decode(&payload, *at)
                .map_err(|error| StoreError::Damaged(format!("page at {at}: {error}").into()))?;
            pages.pages.insert(*at, Arc::new(page));
        }
        deltas = Deltas::default();
    }
    if !writer.table.apply(deltas) {
        return Err(damaged("the redo does not fit the segment table"));
    }
    for (key, value) in &redo {
        writer.note_recovered(key, value.as_ref());
    }
    Ok((writer, stored))
}

/// The pages that the redo touches: all of them at once, however small the cache is.
struct Replayed<'a> {
    cache: &'a Cache,
    pages: HashMap<Pointer, Arc<Node>>,
}

impl Pages for Replayed<'_> {
    fn page(&self, at: &Pointer) -> Result<Arc<Node>, TreeError> {
        match self.pages.get(at) {
            Some(page) => Ok(page.clone()),
            None => self.cache.page(at),
        }
    }
}

/// The segment table as of the checkpoint, and the segments opened since.
fn load_table(log: &Log, recovery: &Recovery) -> Result<(Table, StoredTable), StoreError> {
    let mut table = Table::default();
    let list = recovery.root(RootKind::Table);
    let mut chunks = BTreeMap::new();
    if let Some(pointer) = &list {
        chunks = table::decode_list(&log.read(pointer)?).map_err(|error| damaged(error.what))?;
        log.adopt(chunks.values().map(|chunk| Birth { number: chunk.pointer.segment, place: chunk.place }));
        for (number, chunk) in &chunks {
            let bytes = log.read(&chunk.pointer)?;
            table.decode_chunk(*number, &bytes).map_err(|error| damaged(error.what))?;
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

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.into())
}

fn check(path: &Path, disk: Arc<dyn Disk>, data: bool) -> Result<Vec<String>, OpenError> {
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    match open(path, disk, &options) {
        Ok(store) => Ok(store.check(data)),
        Err(OpenError::Damaged { what, .. }) => Ok(vec![what]),
        Err(error) => Err(error),
    }
}

//! Looking at a store: who holds it, what is in it, whether it is whole.

use super::open::{OPENING_PATIENCE, load_table, lock, open, open_error};
use super::table::Table;
use super::{OpenError, OpenOptions, Store, StoreError};
use crate::backend::{Disk, FileDisk, Hold, Objects, Usage};
use crate::log::{self, Access, Bucket, Codec, EpochHolder, HolderRecord, Log, Recovery, Sight};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Who has a store open for writing, as that process wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id; 0: it has not said yet.
    pub pid: u32,
    /// Where it serves the store: a mount point, say. Absolute.
    pub serving_at: Option<PathBuf>,
    /// It is making the last changes durable and will be gone soon. (A holder of a store in a bucket
    /// cannot say so.)
    pub draining: bool,
    /// Of a store in a bucket: the name of its machine.
    pub host: Option<String>,
    /// Of a store in a bucket: when it opened the store.
    pub since: Option<SystemTime>,
    /// The store is held by what its bucket says, until it is closed or taken over; else by a lock,
    /// as long as the process lives.
    pub remote: bool,
    /// Its process was seen to live, on this machine.
    pub here: bool,
}

impl Holder {
    /// By a lock on a file.
    pub(super) fn local(pid: u32, serving_at: Option<PathBuf>, draining: bool) -> Holder {
        Holder { pid, serving_at, draining, host: None, since: None, remote: false, here: true }
    }
}

impl From<EpochHolder> for Holder {
    fn from(holder: EpochHolder) -> Holder {
        Holder {
            pid: holder.pid,
            serving_at: holder.place.map(|place| PathBuf::from(OsString::from_vec(place))),
            draining: false,
            host: Some(holder.host),
            since: Some(holder.since),
            remote: true,
            here: holder.sight == Sight::Alive,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("another process")?,
            pid => write!(f, "pid {pid}")?,
        }
        if let Some(host) = self.host.as_ref().filter(|_| !self.here) {
            write!(f, " on {host}")?;
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
    /// Bytes of disk that the file occupies; in a bucket, what its data segments have, as far as that is known.
    pub occupied_bytes: Option<u64>,
    /// Bytes that live data occupies in data segments.
    pub live_bytes: u64,
    /// Data segments.
    pub segments: u64,
    /// The limit given at creation.
    pub size: Option<u64>,
    /// Who has it open for writing now. In a bucket: who opened the epoch that is open, unless its
    /// process was on this machine and is gone.
    pub holder: Option<Holder>,
    /// Of a store in a bucket.
    pub bucket: Option<BucketInfo>,
}

/// Who writes to a store that is open here for reading, and so does not follow (R12).
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Who had it open for writing when it was opened here.
    pub holder: Holder,
    /// It is shown as of then.
    pub as_of: SystemTime,
}

impl Elsewhere {
    /// None: nobody writes to it, as far as can be seen.
    pub(super) fn of(recovery: &Recovery) -> Option<Elsewhere> {
        let holder = writer_of(recovery)?;
        Some(Elsewhere { holder, as_of: instant(recovery.time_ns) })
    }
}

/// Who has a store in a bucket open for writing, unless its process was on this machine and is gone.
fn writer_of(recovery: &Recovery) -> Option<Holder> {
    let holder = recovery.remote()?.holder.clone()?;
    (holder.sight != Sight::Gone).then(|| holder.into())
}

fn instant(time_ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(time_ns)
}

/// What is known of a store in a bucket besides; all counts are over the life of the store, up to its
/// newest commit.
#[derive(Clone, Copy, Debug)]
pub struct BucketInfo {
    /// Requests and bytes.
    pub usage: Usage,
    /// Changes of keys that were committed.
    pub changes: u64,
    /// Bytes of those keys and values.
    pub changed_bytes: u64,
    /// Whether the server's conditional PUT was seen to be atomic when the store was made.
    pub fencing_proven: bool,
}

impl Store {
    /// Looks at the store in that file, without a lock, also while another process holds it.
    pub fn info_at(path: &Path) -> Result<Info, OpenError> {
        let file = Arc::new(FileDisk::open(path, Hold::None).map_err(|error| open_error(path, error))?);
        let held = file.is_held_by_other().map_err(|error| open_error(path, error))?;
        let holder = held.then(|| holder_of(&*file));
        let occupied = file.occupied_bytes().map_err(|error| open_error(path, error))?;
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
        Ok(Info { occupied_bytes: Some(occupied), holder, ..info(&recovery, &table) })
    }

    /// Looks at the store in that bucket. What is shown may lag (R12). An answer is waited for so long,
    /// within [`OPENING_PATIENCE`].
    pub fn info_in(bucket: Arc<dyn Objects>, timeout: Duration) -> Result<Info, OpenError> {
        let path = PathBuf::from(bucket.name());
        let bucket = Bucket::new(bucket, timeout.min(OPENING_PATIENCE), Duration::ZERO, false);
        let opened = Log::open_in(bucket, Codec::Raw, Access::ReadOnly, None);
        let (log, recovery) = opened.map_err(|error| OpenError::from_log(path.clone(), error))?;
        let (table, _) = load_table(&log, &recovery).map_err(|error| OpenError::from_store(path, error))?;
        let record = &recovery.remote().expect("recovered from a bucket").found.record;
        let bucket = BucketInfo {
            usage: record.usage,
            changes: record.changes,
            changed_bytes: record.changed_bytes,
            fencing_proven: record.fencing_proven,
        };
        Ok(Info { holder: writer_of(&recovery), bucket: Some(bucket), ..info(&recovery, &table) })
    }

    /// Verifies the structure (and with `data` every stored byte). The answer lists what is wrong,
    /// one line each; empty: whole. A reader's lock is held meanwhile.
    pub fn check_at(path: &Path, data: bool) -> Result<Vec<String>, OpenError> {
        let disk = lock(path, Hold::Shared)?;
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        checked(open(path, Arc::new(disk), &options), data)
    }

    /// Verifies the store on that disk, as [`Store::check_at`].
    pub fn check_on(disk: Arc<dyn Disk>, data: bool) -> Result<Vec<String>, OpenError> {
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        checked(Store::open_on(disk, &options), data)
    }

    /// Verifies the store in that bucket, as [`Store::check_at`]; it may be written to meanwhile.
    pub fn check_in(bucket: Arc<dyn Objects>, data: bool) -> Result<Vec<String>, OpenError> {
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        checked(Store::open_in(bucket, &options), data)
    }
}

enum StoreOrLog {
    Store(StoreError),
    Log(log::LogError),
}

/// Who wrote into a file that it holds it.
pub fn holder_of(disk: &dyn Disk) -> Holder {
    match HolderRecord::read(disk) {
        Some(record) => {
            let place = record.place.map(|place| PathBuf::from(OsString::from_vec(place)));
            Holder::local(record.pid, place, record.draining)
        }
        None => Holder::local(0, None, false),
    }
}

fn checked(opened: Result<Store, OpenError>, data: bool) -> Result<Vec<String>, OpenError> {
    match opened {
        Ok(store) => Ok(store.check(data)),
        Err(OpenError::Damaged { what, .. }) => Ok(vec![what]),
        Err(error) => Err(error),
    }
}

fn info(recovery: &Recovery, table: &Table) -> Info {
    Info {
        id: recovery.store.iter().map(|byte| format!("{byte:02x}")).collect(),
        version: log::VERSION,
        epoch: recovery.epoch,
        sequence: recovery.last.0,
        committed_at: instant(recovery.time_ns),
        occupied_bytes: recovery.remote().map(|_| table.occupied()),
        live_bytes: table.live(),
        segments: table.iter().count() as u64,
        size: (recovery.size_limit > 0).then_some(recovery.size_limit),
        holder: None,
        bucket: None,
    }
}

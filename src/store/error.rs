//! What can go wrong, by what the caller does next.

use super::{Era, Holder};
use crate::log::{LogError, Pointer};
use crate::tree::TreeError;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// Room that a store may lack for the moment, until storage has taken what was accepted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For a transaction: more changes are pending than a commit takes.
    Change,
    /// For bulk data: as much is in flight as may be.
    Bulk,
    /// For a transaction that deletes, in a file that is full: the cleaner has to make some.
    Cleaning,
}

/// What was not at hand: something that is not in memory, or room. Opaque: hand it to
/// [`Store::fetch`](crate::store::Store::fetch). Space that was freed since is not reused while it
/// lives.
#[derive(Clone, Debug, Default)]
pub struct Miss {
    pub(super) pages: Vec<Pointer>,
    pub(super) units: Vec<Pointer>,
    pub(super) room: Option<Room>,
    /// Of the state that was read (R2): else what is fetched might be freed and its place reused
    /// in between, and good data would be told damaged.
    pub(super) _era: Option<Era>,
}

impl Miss {
    /// The room that was missing, if it was room: then waiting for it reads nothing.
    pub fn room(&self) -> Option<Room> {
        self.room
    }
}

impl From<Room> for Miss {
    /// That room, and nothing else.
    fn from(room: Room) -> Miss {
        Miss { room: Some(room), ..Miss::default() }
    }
}

impl StoreError {
    /// There is no room for the moment.
    pub(super) fn no_room(room: Room) -> StoreError {
        StoreError::Miss(room.into())
    }

    /// Keeps a miss's pages where they are until they have been fetched.
    pub(super) fn in_era(self, era: &Era) -> StoreError {
        match self {
            StoreError::Miss(miss) => StoreError::Miss(Miss { _era: Some(era.clone()), ..miss }),
            other => other,
        }
    }
}

/// What an operation on an open store may answer instead.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Not in memory, or no room for the moment; nothing has changed: fetch it and ask again.
    #[error("not at hand")]
    Miss(Miss),
    /// The disk, or the size given at creation, is full. Nothing has changed.
    #[error("no space left for the store")]
    NoSpace,
    /// The store was opened for reading only.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// Storage failed earlier; nothing more is accepted.
    #[error("the store takes no more changes since {0}")]
    Poisoned(Arc<str>),
    /// Stored bytes are wrong.
    #[error("damaged: {0}")]
    Damaged(Arc<str>),
    /// What was to be read is gone from its bucket: the writer elsewhere deleted it, and this is a
    /// reader of an older state. Open it again to see the newer one.
    #[error("{0} is gone: the store has changed since it was opened for reading; open it again")]
    Gone(Arc<str>),
    /// Reading failed.
    #[error("cannot read: {0}")]
    Io(Arc<str>),
}

impl StoreError {
    /// Damage of that description.
    pub(super) fn damaged(what: &str) -> StoreError {
        StoreError::Damaged(what.into())
    }
}

/// Errors that may be a [`Miss`].
pub trait AsMiss {
    /// The miss, if it is one.
    fn as_miss(&self) -> Option<&Miss>;
}

impl AsMiss for StoreError {
    fn as_miss(&self) -> Option<&Miss> {
        match self {
            StoreError::Miss(miss) => Some(miss),
            _ => None,
        }
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> StoreError {
        match error {
            LogError::NoSpace => StoreError::NoSpace,
            LogError::Damaged(damage) => StoreError::Damaged(damage.what),
            LogError::Io(cause) => StoreError::Io(cause),
            LogError::Poisoned(cause) => StoreError::Poisoned(cause),
            LogError::Gone(what) => StoreError::Gone(what),
            LogError::Foreign | LogError::OtherVersion(_) => StoreError::Damaged(error.to_string().into()),
            LogError::Missing | LogError::Exists | LogError::Held(_) => StoreError::Io(error.to_string().into()),
        }
    }
}

impl From<TreeError> for StoreError {
    fn from(error: TreeError) -> StoreError {
        match error {
            TreeError::Miss(pages) => StoreError::Miss(Miss { pages, ..Miss::default() }),
            TreeError::Damaged { .. } => StoreError::Damaged(error.to_string().into()),
            TreeError::Io { .. } => StoreError::Io(error.to_string().into()),
        }
    }
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
    /// In the format of another version.
    #[error("{path}: in the format of another version of kivafs ({what}): open it with the one that wrote it")]
    OtherVersion {
        /// The store.
        path: PathBuf,
        /// What is different in it.
        what: String,
    },
    /// Another process has it.
    #[error("{path}: in use by {holder}")]
    InUse {
        /// The store.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// Its bytes are wrong.
    #[error("{path}: damaged: {what}")]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// No room for a new store or for the first commit.
    #[error("{path}: no space left on its disk: {what}")]
    NoSpace {
        /// The store.
        path: PathBuf,
        /// What there was no room for.
        what: String,
    },
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// The store.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
}

/// Of a store that another machine writes to, a listing that lags can show a state that is not there any more.
fn missing(what: &str) -> String {
    format!("{what} is missing; if another machine writes to the store, a newer state may be there: try again")
}

impl OpenError {
    /// The log's error, about that path.
    pub(super) fn from_log(path: PathBuf, error: LogError) -> OpenError {
        match error {
            LogError::NoSpace => OpenError::NoSpace { path, what: error.to_string() },
            LogError::Foreign => OpenError::NotAStore(path),
            LogError::Missing => OpenError::NotFound(path),
            LogError::Exists => OpenError::Exists(path),
            LogError::Held(holder) => OpenError::InUse { path, holder: (*holder).into() },
            LogError::Gone(what) => OpenError::Damaged { path, what: missing(&what) },
            LogError::OtherVersion(what) => OpenError::OtherVersion { path, what },
            LogError::Damaged(damage) => OpenError::Damaged { path, what: damage.what.to_string() },
            LogError::Io(cause) | LogError::Poisoned(cause) => {
                OpenError::Io { path, error: std::io::Error::other(cause.to_string()) }
            }
        }
    }

    /// The store's error, about that path.
    pub(super) fn from_store(path: PathBuf, error: StoreError) -> OpenError {
        match error {
            StoreError::Damaged(what) => OpenError::Damaged { path, what: what.to_string() },
            StoreError::Gone(what) => OpenError::Damaged { path, what: missing(&what) },
            StoreError::NoSpace => OpenError::NoSpace { path, what: error.to_string() },
            other => OpenError::Io { path, error: std::io::Error::other(other.to_string()) },
        }
    }
}

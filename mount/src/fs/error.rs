//! What a file system operation can fail with, by what the caller does next.

use kivafs::store::{AsMiss, Miss, StoreError};
use std::sync::Arc;
use thiserror::Error;

/// Why an operation was not done. Unless said otherwise, nothing has changed.
///
/// The façade maps each variant to one errno (given in brackets) in one exhaustive match.
#[derive(Clone, Debug, Error)]
pub enum FsError {
    /// Something is not in memory, or there is no room: [`Store::fetch`](kivafs::store::Store::fetch) it and call the
    /// same method again with the same arguments. [no errno: never answered]
    #[error("not at hand")]
    Miss(Miss),
    /// No such name, or the directory is gone. (ENOENT)
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken. (EEXIST)
    #[error("already exists")]
    Exists,
    /// The directory has entries. (ENOTEMPTY)
    #[error("directory not empty")]
    NotEmpty,
    /// The key directory cannot be removed. (EBUSY)
    #[error("keys are served from it")]
    Busy,
    /// A directory is needed. (ENOTDIR)
    #[error("not a directory")]
    NotADirectory,
    /// A directory does not do. (EISDIR)
    #[error("is a directory")]
    IsADirectory,
    /// A name of more than 255 bytes, or a symlink target of more than 4095. (ENAMETOOLONG)
    #[error("name too long")]
    NameTooLong,
    /// The file has as many names as it can have. (EMLINK)
    #[error("too many links")]
    TooManyLinks,
    /// The store is full. (ENOSPC)
    #[error("no space left")]
    NoSpace,
    /// A file's list of attributes has no room for one more name. (ENOSPC)
    #[error("its list of extended attributes is full")]
    ListFull,
    /// The store is open for reading only. (EROFS)
    #[error("read-only file system")]
    ReadOnly,
    /// A file offset beyond 2^63 - 1. (EFBIG)
    #[error("file too large")]
    TooBig,
    /// Arguments that make no sense together. (EINVAL)
    #[error("invalid argument")]
    Invalid,
    /// A default ACL for what is no directory. (EACCES)
    #[error("permission denied")]
    Denied,
    /// A reserved name, or a kind of node that takes no such operation. (EPERM)
    #[error("operation not permitted")]
    NotPermitted,
    /// No such extended attribute. (ENODATA)
    #[error("no such attribute")]
    NoAttribute,
    /// No data (or hole) at or after that offset. (ENXIO)
    #[error("no data there")]
    NoData,
    /// Not offered. (EOPNOTSUPP)
    #[error("not supported")]
    NotSupported,
    /// The node was removed, or was never looked up. (ESTALE)
    #[error("stale file handle")]
    Stale,
    /// A name of an extended attribute that is empty or of more than 255 bytes. (ERANGE)
    #[error("out of range")]
    RangeTooSmall,
    /// The value of an extended attribute of more than 64 KiB. (E2BIG)
    #[error("value too large")]
    ValueTooBig,
    /// Stored bytes are wrong; says which. (EIO)
    #[error("damaged: {0}")]
    Damaged(Arc<str>),
    /// Deleted by the writer elsewhere since this store was opened for reading. (ESTALE)
    #[error("{0} is gone: the store has changed since it was mounted: mount it again")]
    Gone(Arc<str>),
    /// Reading from storage failed. (EIO)
    #[error("cannot read: {0}")]
    Io(Arc<str>),
    /// Storage failed earlier, with this first cause; no more changes are accepted. (EIO)
    #[error("the store takes no more changes since: {0}")]
    Poisoned(Arc<str>),
}

/// What every method of the file system answers.
pub type Result<T> = std::result::Result<T, FsError>;

impl FsError {
    /// Stored bytes that do not decode: `what` names record and defect.
    pub(crate) fn damaged(what: impl Into<String>) -> FsError {
        FsError::Damaged(what.into().into())
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> FsError {
        match error {
            StoreError::Miss(miss) => FsError::Miss(miss),
            StoreError::NoSpace => FsError::NoSpace,
            StoreError::ReadOnly => FsError::ReadOnly,
            StoreError::Poisoned(cause) => FsError::Poisoned(cause),
            StoreError::Damaged(what) => FsError::Damaged(what),
            StoreError::Gone(what) => FsError::Gone(what),
            StoreError::Io(what) => FsError::Io(what),
        }
    }
}

impl AsMiss for FsError {
    fn as_miss(&self) -> Option<&Miss> {
        match self {
            FsError::Miss(miss) => Some(miss),
            _ => None,
        }
    }
}

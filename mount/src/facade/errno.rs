//! One match from errors to errno.

use crate::fs::FsError;
use fuser::Errno;

/// What the kernel hears. `Miss` is no answer: it never gets here.
pub fn errno(error: &FsError) -> Errno {
    match error {
        FsError::Miss(_) => unreachable!("a miss is fetched, not answered"),
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::Busy => Errno::EBUSY,
        FsError::NotADirectory => Errno::ENOTDIR,
        FsError::IsADirectory => Errno::EISDIR,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::TooManyLinks => Errno::EMLINK,
        FsError::NoSpace | FsError::ListFull => Errno::ENOSPC,
        FsError::ReadOnly => Errno::EROFS,
        FsError::TooBig => Errno::EFBIG,
        FsError::Invalid => Errno::EINVAL,
        FsError::Denied => Errno::EACCES,
        FsError::NotPermitted => Errno::EPERM,
        FsError::NoAttribute => Errno::NO_XATTR,
        FsError::NoData => Errno::ENXIO,
        FsError::NotSupported => Errno::EOPNOTSUPP,
        FsError::Stale | FsError::Gone(_) => Errno::ESTALE,
        FsError::RangeTooSmall => Errno::ERANGE,
        FsError::ValueTooBig => Errno::E2BIG,
        FsError::Damaged(_) | FsError::Io(_) | FsError::Poisoned(_) => Errno::EIO,
    }
}

/// Is it storage's fault, so that the log must say what errno can't?
pub fn is_storage(error: &FsError) -> bool {
    matches!(error, FsError::Damaged(_) | FsError::Gone(_) | FsError::Io(_) | FsError::Poisoned(_))
}

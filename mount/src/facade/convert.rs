//! The kernel's types to ours and back. Pure.

use crate::fs::{Allocate, Attr, Caller, FileType, IfExists, Ino, RenameMode, Seek, SetTime, SetXattr, Time};
use fuser::{Errno, FileAttr, INodeNo, OpenFlags, RenameFlags, Request, TimeOrNow};
use std::time::{SystemTime, UNIX_EPOCH};

pub fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

/// Who asks for something that makes nothing.
pub fn caller(request: &Request) -> Caller {
    maker(request, 0)
}

/// Who makes something.
pub fn maker(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), umask }
}

pub fn kind(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Regular => fuser::FileType::RegularFile,
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
    }
}

pub fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.to_system_time(),
        mtime: attr.mtime.to_system_time(),
        ctime: attr.ctime.to_system_time(),
        crtime: UNIX_EPOCH,
        kind: kind(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// "There is no such name". Number 0 says it; the rest is not looked at.
pub fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(received_time(time)),
    }
}

/// A time that the kernel sent as (seconds, nanoseconds), as fuser 0.18 hands it over. Of times
/// before 1970 fuser takes the nanoseconds *from* the seconds instead of adding them (its
/// `system_time_from_time` says so): (-2, 800 ms) comes as 2.8 s before 1970, not 1.2 s. Taken
/// apart in the same manner it is what was sent.
fn received_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => Time::from_system_time(time),
        Err(before) => {
            let before = before.duration();
            let seconds = 0i64.checked_sub_unsigned(before.as_secs()).unwrap_or(i64::MIN);
            Time::new(seconds, before.subsec_nanos()).unwrap_or_default()
        }
    }
}

/// Whether reads through a descriptor with these flags are to change times of access.
pub fn changes_atime(flags: OpenFlags) -> bool {
    flags.0 & libc::O_NOATIME == 0
}

pub fn if_exists(flags: i32) -> IfExists {
    match (flags & libc::O_EXCL != 0, flags & libc::O_TRUNC != 0) {
        (true, _) => IfExists::Fail,
        (false, true) => IfExists::Truncate,
        (false, false) => IfExists::Open,
    }
}

pub fn rename_mode(caller: Caller, flags: RenameFlags) -> Result<RenameMode, Errno> {
    const NO_REPLACE: RenameFlags = RenameFlags::RENAME_NOREPLACE;
    const WHITEOUT: RenameFlags = RenameFlags::RENAME_WHITEOUT;
    match flags {
        flags if flags.is_empty() => Ok(RenameMode::Replace),
        NO_REPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        WHITEOUT => Ok(RenameMode::Whiteout(caller)),
        flags if flags == WHITEOUT | NO_REPLACE => Ok(RenameMode::WhiteoutNoReplace(caller)),
        _ => Err(Errno::EINVAL),
    }
}

pub fn allocate(mode: i32) -> Result<Allocate, Errno> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Ok(Allocate::Reserve),
        KEEP => Ok(Allocate::ReserveKeepSize),
        PUNCH => Ok(Allocate::PunchHole),
        ZERO => Ok(Allocate::ZeroRange),
        ZERO_KEEP => Ok(Allocate::ZeroRangeKeepSize),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

pub fn seek(whence: i32) -> Result<Seek, Errno> {
    match whence {
        libc::SEEK_DATA => Ok(Seek::Data),
        libc::SEEK_HOLE => Ok(Seek::Hole),
        _ => Err(Errno::EINVAL),
    }
}

pub fn set_xattr(flags: i32) -> Result<SetXattr, Errno> {
    match flags {
        0 => Ok(SetXattr::Any),
        libc::XATTR_CREATE => Ok(SetXattr::Create),
        libc::XATTR_REPLACE => Ok(SetXattr::Replace),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_before_1970_arrive_as_they_were_sent() {
        // What fuser makes of (-2, 800_000_000).
        let handed_over = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(received_time(handed_over), Time::new(-2, 800_000_000).unwrap());
        assert_eq!(received_time(UNIX_EPOCH - Duration::new(5, 0)), Time::new(-5, 0).unwrap());
        assert_eq!(received_time(UNIX_EPOCH + Duration::new(5, 7)), Time::new(5, 7).unwrap());
    }

    #[test]
    fn flags_that_are_not_known_are_refused() {
        let root = Caller { uid: 0, gid: 0, umask: 0 };
        for flag in [RenameFlags::RENAME_NOREPLACE, RenameFlags::RENAME_WHITEOUT] {
            assert!(rename_mode(root, flag | RenameFlags::RENAME_EXCHANGE).is_err());
        }
        assert!(allocate(libc::FALLOC_FL_COLLAPSE_RANGE).is_err());
        assert!(seek(libc::SEEK_SET).is_err());
        assert_eq!(if_exists(libc::O_EXCL | libc::O_TRUNC), IfExists::Fail);
    }
}

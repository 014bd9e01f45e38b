//! The POSIX file system over a store. No FUSE types here.

mod attr;
mod error;
mod filesystem;
mod name;
mod time;

pub use attr::{
    Allocate, Attr, Caller, DirEntry, FileType, Handle, INO_MAX, IfExists, Ino, ROOT, RenameMode, Seek, SetAttr,
    SetTime, SetXattr, Statfs, WriteAt,
};
pub use error::{FsError, Result};
pub use filesystem::FileSystem;
pub use name::{NAME_MAX, Name, SHOWN_MAX};
pub use time::{Clock, Time, coarse_now};

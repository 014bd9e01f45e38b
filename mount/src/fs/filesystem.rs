//! The signatures that the façade calls; bodies follow.

use crate::fs::*;
use bytes::Bytes;
use kivafs::store::Store;
use std::sync::Arc;

/// A file system on an open store.
pub struct FileSystem {
    store: Arc<Store>,
    _clock: Clock,
}

#[allow(unused_variables)]
impl FileSystem {
    /// The file system of that store; a new store gets an empty root directory owned by this
    /// process. Waits for storage.
    pub fn open(store: Arc<Store>, clock: Clock) -> Result<FileSystem> {
        Ok(FileSystem { store, _clock: clock })
    }

    /// The store, for `fetch`, `sync_then`, `wait_for_room`.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Finds a name; on success the kernel holds the node once more (see `forget`).
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        Err(FsError::NotSupported)
    }

    /// The kernel lets go of a node `count` times.
    pub fn forget(&self, ino: Ino, count: u64) {}

    /// Attributes, also of a node removed while the kernel holds it.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        Err(FsError::NotSupported)
    }

    /// Changes attributes, all or none.
    pub fn setattr(&self, caller: Caller, ino: Ino, change: &SetAttr) -> Result<Attr> {
        Err(FsError::NotSupported)
    }

    /// A symlink's target.
    pub fn readlink(&self, ino: Ino) -> Result<Bytes> {
        Err(FsError::NotSupported)
    }

    /// Makes a regular file, fifo, socket or device, by the type bits of `mode`. Looked up once.
    pub fn mknod(&self, caller: Caller, parent: Ino, name: &[u8], mode: u32, rdev: u32) -> Result<Attr> {
        Err(FsError::NotSupported)
    }

    /// Makes a directory. Looked up once.
    pub fn mkdir(&self, caller: Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        Err(FsError::NotSupported)
    }

    /// Makes a symlink. Looked up once.
    pub fn symlink(&self, caller: Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr> {
        Err(FsError::NotSupported)
    }

    /// Gives a file one more name. Looked up once more.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        Err(FsError::NotSupported)
    }

    /// Removes a name of a file that is no directory.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        Err(FsError::NotSupported)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        Err(FsError::NotSupported)
    }

    /// Moves a name.
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Result<()> {
        Err(FsError::NotSupported)
    }

    /// Makes (or finds) a regular file and opens it. Looked up once, opened once.
    pub fn create(&self, caller: Caller, parent: Ino, name: &[u8], mode: u32, if_exists: IfExists) -> Result<Attr> {
        Err(FsError::NotSupported)
    }

    /// Counts one more open of a file: its content outlives its last name until `release`. Files
    /// have no handles: every method takes the node's number.
    pub fn open_file(&self, ino: Ino) -> Result<()> {
        Err(FsError::NotSupported)
    }

    /// The end of one `open_file` or `create`.
    pub fn release(&self, ino: Ino) {}

    /// The bytes in a range, in pieces; fewer than `length` only at the end of the file.
    pub fn read(&self, ino: Ino, offset: u64, length: usize) -> Result<Vec<Bytes>> {
        Err(FsError::NotSupported)
    }

    /// Writes; answers how many bytes were taken: all, or the first MiB of them. `kill_suid_sgid`:
    /// the writer may not keep setuid and setgid bits. No bytes are copied where whole 64 KiB are
    /// written: `data` should be no part of a bigger buffer.
    pub fn write(&self, ino: Ino, at: WriteAt, data: &Bytes, kill_suid_sgid: bool) -> Result<usize> {
        Err(FsError::NotSupported)
    }

    /// Holes, zeros, growth.
    pub fn fallocate(&self, caller: Caller, ino: Ino, offset: u64, length: u64, what: Allocate) -> Result<()> {
        Err(FsError::NotSupported)
    }

    /// Where the next data or hole begins.
    pub fn lseek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64> {
        Err(FsError::NotSupported)
    }

    /// Copies a range between files, sharing what is stored; answers how many bytes were copied,
    /// maybe fewer than asked.
    pub fn copy_file_range(&self, caller: Caller, from: (Ino, u64), to: (Ino, u64), length: u64) -> Result<u64> {
        Err(FsError::NotSupported)
    }

    /// Opens a directory for `readdir`.
    pub fn opendir(&self, ino: Ino) -> Result<Handle> {
        Err(FsError::NotSupported)
    }

    /// Hands out entries from `offset` on until `room` answers false (that entry was not taken) or
    /// there are no more. Fewer than there is room for is no sign of the end: only none is.
    pub fn readdir(
        &self,
        handle: Handle,
        offset: u64,
        plus: bool,
        room: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        Err(FsError::NotSupported)
    }

    /// The end of `opendir`.
    pub fn releasedir(&self, handle: Handle) {}

    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        Err(FsError::NotSupported)
    }

    /// Sets an extended attribute.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        Err(FsError::NotSupported)
    }

    /// Names of the extended attributes, each followed by a NUL.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        Err(FsError::NotSupported)
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        Err(FsError::NotSupported)
    }

    /// How full it is.
    pub fn statfs(&self) -> Result<Statfs> {
        Err(FsError::NotSupported)
    }

    /// One bounded step of what removals left to do; true: there is more. A background thread
    /// calls it until false whenever `deferred_due`, and once after open; every few seconds is
    /// right, too (it also lets go of old directory views). May miss.
    pub fn deferred_step(&self) -> Result<bool> {
        Ok(false)
    }

    /// Whether there may be something for `deferred_step`. Cheap.
    pub fn deferred_due(&self) -> bool {
        false
    }

    /// How many nodes the kernel holds.
    pub fn held(&self) -> usize {
        0
    }
}

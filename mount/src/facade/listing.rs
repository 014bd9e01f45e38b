//! readdir and readdirplus: entries into the kernel's buffer until that is full.

use crate::facade::lifetime::VALID;
use crate::facade::{Appearance, convert};
use crate::fs::{self, DirEntry, FileSystem, Handle};
use fuser::{Errno, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// One of the two buffers.
pub trait Buffer {
    /// With attributes?
    const PLUS: bool;
    /// Adds an entry, of which the kernel may believe what it is told for so long; false: there is no room.
    fn add(&mut self, entry: &DirEntry<'_>, appearance: Appearance, lifetime: Duration) -> bool;
    fn send(self, done: Result<(), Errno>);
}

impl Buffer for ReplyDirectory {
    const PLUS: bool = false;

    fn add(&mut self, entry: &DirEntry<'_>, _appearance: Appearance, _lifetime: Duration) -> bool {
        !ReplyDirectory::add(
            self,
            INodeNo(entry.ino.0),
            entry.next,
            convert::kind(entry.kind),
            OsStr::from_bytes(entry.name),
        )
    }

    fn send(self, done: Result<(), Errno>) {
        match done {
            Ok(()) => self.ok(),
            Err(errno) => self.error(errno),
        }
    }
}

impl Buffer for ReplyDirectoryPlus {
    const PLUS: bool = true;

    fn add(&mut self, entry: &DirEntry<'_>, appearance: Appearance, lifetime: Duration) -> bool {
        let attr = entry.attr.expect("attributes were asked for");
        !ReplyDirectoryPlus::add(
            self,
            INodeNo(entry.ino.0),
            entry.next,
            OsStr::from_bytes(entry.name),
            &lifetime,
            &convert::attr(&appearance.of(attr)),
            Generation(0),
        )
    }

    fn send(self, done: Result<(), Errno>) {
        match done {
            Ok(()) => self.ok(),
            Err(errno) => self.error(errno),
        }
    }
}

/// A request for entries under way.
pub struct Listing<B> {
    pub buffer: B,
    pub handle: Handle,
    pub offset: u64,
    pub taken: bool,
    pub appearance: Appearance,
}

impl<B: Buffer> Listing<B> {
    /// Adds what there is room for. A miss or an error after the first entry ends the buffer instead: each
    /// entry of readdirplus that was handed out counts as a lookup, so it must reach the kernel.
    /// It comes back with the next request.
    pub fn fill(&mut self, fs: &FileSystem) -> fs::Result<()> {
        let Listing { buffer, handle, offset, taken, appearance } = self;
        let filled = fs.readdir(*handle, *offset, B::PLUS, &mut |entry| {
            let took = buffer.add(entry, *appearance, VALID);
            if took {
                *offset = entry.next;
                *taken = true;
            }
            took
        });
        match filled {
            Err(_) if self.taken => Ok(()),
            filled => filled,
        }
    }
}

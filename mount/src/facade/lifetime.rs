//! For how long the kernel may believe what it is told.
//!
//! The kernel makes all changes itself, except those of keys, and is told of these. So usually it
//! may believe things for as long as it likes. Two kinds of answer it would go on to believe though
//! it was told otherwise: those are for once only where keys are served. And there it does not know
//! where a file ends.

use crate::fs::{Attr, FileType, Ino};
use std::time::Duration;

/// A day stands for "always", and stays far from what overflows in the kernel's arithmetic.
pub const VALID: Duration = Duration::from_secs(86_400);

/// Lifetimes where keys are served beside the mount, and where they are not.
#[derive(Clone, Copy)]
pub struct Lifetimes {
    /// The key directory, if keys are served.
    keys_in: Option<Ino>,
}

impl Lifetimes {
    /// `keys_in`: the key directory, if keys are served.
    pub fn new(keys_in: Option<Ino>) -> Lifetimes {
        Lifetimes { keys_in }
    }

    /// Of the absence of a name. A new key makes a name appear of which the kernel holds no node that
    /// it could be told of; so where keys are it asks each time.
    pub fn of_absence(self, dir: Ino) -> Duration {
        if self.keys_in == Some(dir) { Duration::ZERO } else { VALID }
    }

    /// Of the attributes in an answer to setattr, link, or a create that may have found the file. The
    /// kernel takes these for the newest even if it was told to forget the node's attributes since it
    /// asked: (setattr answers the length 3; a key is set to 5 bytes; the kernel forgets; the answer
    /// arrives, and the length is 3 for a day.) All others carry the time at which they were asked for.
    pub fn after_change(self, attr: &Attr) -> Duration {
        let may_change = |key_dir| attr.kind == FileType::Regular || attr.ino == key_dir;
        if self.keys_in.is_some_and(may_change) { Duration::ZERO } else { VALID }
    }

    /// The same for a create: a new file is not known to the kernel, which then has to wait for it
    /// (`stale.rs`). One that it found may be.
    pub fn after_create(self, attr: &Attr) -> Duration {
        if attr.nlink > 1 { self.after_change(attr) } else { VALID }
    }

    /// Whether a write through a descriptor with these flags goes to where the file ends, which the
    /// kernel may have wrong after a key was set: it asks only before it reads. Not what was opened
    /// directly, of which the parts of one write come all at once and in any order.
    pub fn appends(self, open_flags: i32) -> bool {
        self.keys_in.is_some() && open_flags & (libc::O_APPEND | libc::O_DIRECT) == libc::O_APPEND
    }
}

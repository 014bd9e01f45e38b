//! What the kernel is told without having asked.
//!
//! Written here, not by fuser 0.18: that does not know `prune`, and does not tell whether the kernel
//! holds what it was told of.
//!
//! What each of them waits for in the kernel (Linux 6.18), by which its caller has to go:
//!
//! * attributes: nothing. Answers about them that are under way are not believed when they arrive,
//!   except those that [`Lifetimes`](crate::facade::lifetime::Lifetimes) knows.
//! * contents: the same, and for the reads and writes under way on the file's pages. Pages that a
//!   mapping has changed are written first.
//! * a name: until nobody looks for, lists, makes or removes a name in that directory.
//!
//! So no answer that these wait for may wait for them.

use crate::fs::Ino;
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The session's descriptor, as a way to the kernel.
#[derive(Clone)]
pub struct Outlet {
    session: Arc<File>,
}

/// Whether the kernel had what it was told to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Had {
    Yes,
    No,
}

/// Codes of the messages.
const INODE: u32 = 2;
const ENTRY: u32 = 3;
const PRUNE: u32 = 9;

/// A name that no entry ever has.
const NO_NAME: &[u8] = b".";

impl Outlet {
    /// `session`: the descriptor of /dev/fuse that the session has, too.
    pub fn new(session: OwnedFd) -> Outlet {
        Outlet { session: Arc::new(session.into()) }
    }

    /// A node's attributes are to be asked for again.
    pub fn forget_attributes(&self, node: Ino) -> Result<Had> {
        // A negative offset: no contents.
        self.forget(&inode(node, -1))
    }

    /// And its contents.
    pub fn forget_contents(&self, node: Ino) -> Result<Had> {
        self.forget(&inode(node, 0))
    }

    /// A name is to be looked for again.
    pub fn forget_name(&self, dir: Ino, name: &[u8]) -> Result<Had> {
        self.forget(&entry(dir, name))
    }

    /// Waits until the kernel has taken in all answers about names in that directory that are under
    /// way.
    pub fn wait_for_names(&self, dir: Ino) -> Result<()> {
        self.forget(&entry(dir, NO_NAME)).map(|_| ())
    }

    /// Nodes that nothing uses are to be let go. `InvalidInput`: this kernel (before Linux 6.18) does not
    /// know how.
    pub fn let_go(&self, nodes: &[Ino]) -> Result<()> {
        self.tell(&prune(nodes))
    }

    fn forget(&self, message: &[u8]) -> Result<Had> {
        match self.tell(message) {
            Ok(()) => Ok(Had::Yes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Had::No),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, message: &[u8]) -> Result<()> {
        match (&*self.session).write(message)? {
            taken if taken == message.len() => Ok(()),
            taken => Err(Error::other(format!("the kernel took {taken} bytes of {}", message.len()))),
        }
    }
}

/// The head of a message, and room for the rest.
///
/// | bytes | what |
/// |---|---|
/// | 4 | length of all |
/// | 4 | code |
/// | 8 | 0: no answer to a request |
fn message(code: u32, rest: usize) -> Vec<u8> {
    let length = 16 + rest;
    let mut message = Vec::with_capacity(length);
    message.extend_from_slice(&(length as u32).to_ne_bytes());
    message.extend_from_slice(&code.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message
}

fn whole(message: Vec<u8>) -> Vec<u8> {
    let length = u32::from_ne_bytes(*message.first_chunk().expect("a message begins with its length"));
    assert_eq!(message.len(), length as usize, "a message has the length that it says");
    message
}

/// | bytes | what |
/// |---|---|
/// | 8 | node |
/// | 8 | where contents are to be forgotten from; negative: not at all |
/// | 8 | how many bytes; 0: to the end |
fn inode(node: Ino, offset: i64) -> Vec<u8> {
    let mut message = message(INODE, 24);
    message.extend_from_slice(&node.0.to_ne_bytes());
    message.extend_from_slice(&offset.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    whole(message)
}

/// | bytes | what |
/// |---|---|
/// | 8 | directory |
/// | 4 | length of the name |
/// | 4 | 0 |
/// | | the name, and NUL |
fn entry(dir: Ino, name: &[u8]) -> Vec<u8> {
    let mut message = message(ENTRY, 16 + name.len() + 1);
    message.extend_from_slice(&dir.0.to_ne_bytes());
    message.extend_from_slice(&(name.len() as u32).to_ne_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(name);
    message.push(0);
    whole(message)
}

/// | bytes | what |
/// |---|---|
/// | 4 | number of nodes |
/// | 12 | 0 |
/// | 8 each | nodes |
fn prune(nodes: &[Ino]) -> Vec<u8> {
    let mut message = message(PRUNE, 16 + 8 * nodes.len());
    message.extend_from_slice(&(nodes.len() as u32).to_ne_bytes());
    message.extend_from_slice(&[0; 12]);
    nodes.iter().for_each(|node| message.extend_from_slice(&node.0.to_ne_bytes()));
    whole(message)
}

//! The thread that has the kernel forget what keys have changed.
//!
//! # Order
//!
//! What is stale is known when the change is in the file system's table, and told after that. An answer
//! to the kernel that was made up from the state before is then one of these:
//!
//! * The kernel has taken it in: it forgets it.
//! * It is under way, and the kernel has the node: it knows that the answer is older than what it was
//!   told to forget, and does not believe it (but: `lifetime.rs`).
//! * It is under way, and will make the node known to the kernel. Only an answer about a name does
//!   that (lookup, readdir with attributes, create), and while it is under way nobody can have a
//!   directory for himself; who is told to forget a name in it waits for that. So when a node that the
//!   table says is held is not known to the kernel, such a message comes first, then the node again. A
//!   name that is to be forgotten waits by itself.
//! * It is not made up yet: the table has it made up again (F8).
//!
//! # Why a thread of its own
//!
//! The kernel may wait for answers to its requests before it has forgotten (`outlet.rs`). Those wait for
//! storage, and some for attributes to be forgotten (`notices.rs`): they would wait for each other if one
//! thread did both. (A write to a set-user-id file holds its page until it is answered, and is answered
//! when the mode is forgotten.) No answer to the kernel waits for this thread; only who changed the keys
//! does, and holds nothing meanwhile.
//!
//! One that waits, for a read of a cold file, say, keeps back the others that were told of meanwhile. They
//! are then told all at once, the same thing only once: many changes are one message about the root.

use crate::facade::outlet::{Had, Outlet};
use crate::fs::{FileSystem, Ino, Stale};
use std::collections::BTreeSet;
use std::io::Result;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

/// Runs when the kernel has forgotten.
type Then = Box<dyn FnOnce() + Send>;

/// The thread's face.
#[derive(Clone)]
pub struct Forgetting {
    sender: Sender<(Vec<Stale>, Then)>,
}

impl Forgetting {
    /// Starts the thread. It ends with the last of its faces.
    pub fn start(fs: Arc<FileSystem>, outlet: Arc<OnceLock<Outlet>>) -> Result<Forgetting> {
        let (sender, receiver) = channel();
        std::thread::Builder::new().name("stale".into()).spawn(move || run(&receiver, &fs, &outlet))?;
        Ok(Forgetting { sender })
    }

    /// Has the kernel forget this, then calls `then`. Does not wait.
    pub fn forget(&self, stale: Vec<Stale>, then: Then) {
        self.sender.send((stale, then)).unwrap_or_else(|_| panic!("the thread ends after its last sender"));
    }
}

fn run(receiver: &Receiver<(Vec<Stale>, Then)>, fs: &FileSystem, outlet: &OnceLock<Outlet>) {
    while let Ok(first) = receiver.recv() {
        let (stale, then): (Vec<_>, Vec<Then>) = std::iter::once(first).chain(receiver.try_iter()).unzip();
        // Names come first: then nobody is about to be told of their nodes.
        let stale: BTreeSet<Stale> = stale.into_iter().flatten().collect();
        // Before there is a way to the kernel it has not asked for anything.
        if let Some(outlet) = outlet.get() {
            for what in &stale {
                match tell(fs, outlet, what) {
                    Ok(()) => {}
                    // It is about to forget everything: the session is over.
                    Err(error) if is_over(&error) => tracing::debug!("{what:?}: not told to the kernel: {error}"),
                    Err(error) => {
                        tracing::error!("{what:?}: the kernel may go on to show what was there before: {error}")
                    }
                }
            }
        }
        then.into_iter().for_each(|then| then());
    }
}

fn is_over(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN))
}

fn tell(fs: &FileSystem, outlet: &Outlet, stale: &Stale) -> Result<()> {
    match stale {
        Stale::Name(dir, name) => outlet.forget_name(*dir, name).map(|_| ()),
        Stale::Contents(node) => tell_of_node(fs, outlet, *node, Outlet::forget_contents),
        Stale::Attributes(node) => tell_of_node(fs, outlet, *node, Outlet::forget_attributes),
    }
}

fn tell_of_node(
    fs: &FileSystem,
    outlet: &Outlet,
    node: Ino,
    forget: impl Fn(&Outlet, Ino) -> Result<Had>,
) -> Result<()> {
    if forget(outlet, node)? == Had::No {
        // It has let go of it, and we have not heard of that yet; or it is about to be told.
        if let Some(dir) = fs.told_in(node) {
            outlet.wait_for_names(dir)?;
            forget(outlet, node)?;
        }
    }
    Ok(())
}

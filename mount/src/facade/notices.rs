//! The thread that has the kernel forget attributes, on which the answers to some requests wait.
//!
//! A thread of its own: who is told something may only hear it once the kernel has forgotten what it
//! knew, and that must wait neither for storage nor for a reader thread, whose answers the kernel may
//! wait for before it takes a notification.

use crate::facade::outlet::Outlet;
use crate::fs::Ino;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

/// Runs when the kernel has forgotten.
type Then = Box<dyn FnOnce() + Send>;

/// The thread's face.
pub struct Notices {
    sender: Sender<(Ino, Then)>,
}

impl Notices {
    /// Starts the thread. It ends with the façade.
    pub fn start(outlet: Arc<OnceLock<Outlet>>) -> std::io::Result<Notices> {
        let (sender, receiver) = channel();
        std::thread::Builder::new().name("notices".into()).spawn(move || run(&receiver, &outlet))?;
        Ok(Notices { sender })
    }

    /// Has the kernel forget a node's attributes, then calls `then`. Does not wait.
    pub fn forget_attributes(&self, node: Ino, then: impl FnOnce() + Send + 'static) {
        self.sender.send((node, Box::new(then))).unwrap_or_else(|_| panic!("the thread ends after its last sender"));
    }
}

fn run(receiver: &Receiver<(Ino, Then)>, outlet: &OnceLock<Outlet>) {
    for (node, then) in receiver {
        let told = outlet.get().map(|outlet| outlet.forget_attributes(node));
        if let Some(Err(error)) = told {
            tracing::warn!("{node}: the kernel keeps old attributes: {error}");
        }
        then();
    }
}

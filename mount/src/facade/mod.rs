//! FUSE requests: convert, call one method, reply once.
//!
//! # Contract
//!
//! * **No opinions.** What a request means is decided in [`crate::fs`]; here are only the kernel's
//!   types and when an answer is sent. Nothing below knows FUSE.
//! * **A reader thread never waits** for storage, a commit, a notification or another request (R14).
//!   It calls the method once; if something is not in memory, or the store has no room for a change,
//!   the whole request is parked, and other threads wait and ask again. An fsync is parked with the
//!   store. The one exception is the back-pressure: when parked writes hold as much memory as they
//!   may, reader threads stop reading until some were answered. So requests that need no storage are
//!   answered however long storage is silent and however many wait for it.
//! * **Everything ends in time**: with EIO when storage did not answer within `timeout`. A request
//!   that ended so is not carried out later; only of a sync that ended so the outcome is not known.
//! * **The kernel is the only changer.** So names, absent names and attributes are valid for a day
//!   and contents until the memory is needed. Whoever adds a second way to change a mounted store
//!   (a key server, say) must invalidate what the kernel holds.
//! * **Order.** Program order is request order is commit order: there is no writeback cache.
//!
//! In reading order:
//!
//! | file | job |
//! |---|---|
//! | `requests.rs` | each request: its method and its reply |
//! | `listing.rs` | readdir and readdirplus |
//! | `convert.rs` | the kernel's types to ours and back |
//! | `errno.rs` | one match from errors to errno |
//! | `kernel.rs` | what is agreed with the kernel at the start |
//! | `core.rs` | call once, or park; durable before the answer, if that is asked for |
//! | `parked.rs` | requests that wait for storage, and the threads that wait for them |
//! | `patience.rs` | the thread that answers who has waited for too long |
//! | `outage.rs` | says once that storage does not answer, and once that it does again |
//! | `notices.rs` | the thread that has the kernel forget attributes |
//! | `deferred.rs` | the thread that does what removals left to do |
//! | `crowd.rs` | the thread that has the kernel let go of nodes when it holds too many |
//! | `tests.rs` | what waits, and for how long, with storage that is told when to answer |

mod convert;
mod core;
mod crowd;
mod deferred;
mod errno;
mod kernel;
mod listing;
mod notices;
mod outage;
mod parked;
mod patience;
mod requests;
#[cfg(test)]
mod tests;

pub use kernel::REQUEST_BYTES_MAX;
pub use requests::Facade;

use crate::facade::core::Core;
use crate::facade::crowd::{Crowd, Outlet};
use crate::facade::deferred::Deferred;
use crate::fs::FileSystem;
use fuser::Notifier;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Which changes are durable before they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Only what asks for it (fsync, O_SYNC).
    #[default]
    OnRequest,
    /// Those of names, too (`dirsync`).
    Names,
    /// All (`sync`).
    Everything,
}

/// How the façade behaves.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Which changes are durable before they are answered.
    pub sync: SyncMode,
    /// How long a request may wait for storage.
    pub timeout: Duration,
    /// Most nodes that the kernel may hold before it is asked to let go of some.
    pub held_max: usize,
}

/// The threads behind a façade.
pub struct Service {
    core: Arc<Core>,
    deferred: Deferred,
    crowd: Crowd,
}

/// A façade for a session, and the threads behind it.
pub fn start(fs: FileSystem, manners: Manners) -> std::io::Result<(Facade, Service)> {
    let fs = Arc::new(fs);
    let deferred = Deferred::start(fs.clone(), manners.timeout)?;
    let crowd = Crowd::start(fs.clone(), manners.held_max)?;
    let core = Arc::new(Core::start(fs, manners, deferred.bell(), crowd.watch())?);
    Ok((Facade::new(core.clone()), Service { core, deferred, crowd }))
}

impl Service {
    /// Where notifications to the kernel go: by way of the library, or, those that it does not
    /// know, into the session's descriptor. To be called before the session runs.
    pub fn notify_by(&self, notifier: Notifier, session: OwnedFd) {
        self.core.notify_by(notifier.clone());
        self.crowd.notify_by(Outlet::new(notifier, session));
    }

    /// Drops what is parked and ends the threads. To be called when the session has ended. Returns
    /// within seconds, also while storage does not answer: threads that wait for it end when it does,
    /// and have the store until then.
    pub fn stop(self) {
        self.deferred.stop();
        self.crowd.stop();
        self.core.stop();
    }
}

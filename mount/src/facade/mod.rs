//! FUSE requests: convert, call one method, reply once.
//!
//! # Contract
//!
//! * **No opinions.** What a request means is decided in [`crate::fs`]; here are only the kernel's
//!   types and when an answer is sent. Nothing below knows FUSE.
//! * **A reader thread never waits** for storage, a commit, a notification or another request (R14), but for
//!   one. It calls the method once; if something is not in memory, or the store has no room for a change,
//!   the whole request is parked, and other threads wait and ask again. An fsync is parked with the
//!   store. But of those who want something to be durable in a file, one at a time writes and flushes it itself, if
//!   nobody else does (`Store::sync_here`): to wake the storage thread and be woken by it takes 40 us each on
//!   another processor, and a lone fsync a quarter longer. Neither danger of R14 comes of that: whoever comes
//!   meanwhile is parked with the store and shares the next commit, so that never two are there; and a
//!   session has one reader more than it needs, so that with one in a disk that hangs, the others answer.
//!   (The session of a disk that hangs ends when the disk answers, as its store does.) In a bucket nobody does so.
//!   And there is the back-pressure: when parked writes hold as much memory as they
//!   may, reader threads stop reading until some were answered. So requests that need no storage are
//!   answered however long storage is silent and however many wait for it.
//! * **Everything ends in time**: with EIO when storage did not answer within `timeout`. A request
//!   that ended so is not carried out later; only of a sync that ended so the outcome is not known.
//! * **Two changers.** The kernel believes names and attributes for a day and contents until it needs
//!   the memory, since it makes the changes itself. Only keys are changed by others: a key server
//!   beside the mount, which is started with `serves_keys` and hands what is stale to
//!   [`Service::forget`]. When that calls back, each open, read and stat that begins sees the change, also through what was
//!   open before; inode numbers, names, modes and owners are kept. Nobody else may change a file
//!   system that is mounted. These are the kernel's own: what a mapping has changed and nobody
//!   has synced is written *after* the key was set; a read that runs beside the change may be cut to
//!   either length; where chmod(2) or another change of attributes runs beside it, the length may be
//!   the one before for as long as that takes to return; sendfile(2) through a descriptor that was open before takes the old length until
//!   somebody asks for the new one, and so does a write with O_APPEND and O_DIRECT.
//! * **Order.** Program order is request order is commit order: there is no writeback cache.
//!
//! In reading order:
//!
//! | file | job |
//! |---|---|
//! | `requests.rs` | each request: its method and its reply |
//! | `listing.rs` | readdir and readdirplus |
//! | `convert.rs` | the kernel's types to ours and back |
//! | `appearance.rs` | `uid=`, `gid=`, `umask=`: what is shown instead of what is stored |
//! | `groups.rs` | whether who asks is in a group |
//! | `errno.rs` | one match from errors to errno |
//! | `kernel.rs` | what is agreed with the kernel at the start |
//! | `lifetime.rs` | for how long the kernel may believe what it is told |
//! | `operation.rs` | one request, as it is counted and told of |
//! | `control/` | `.kivafs`: the mount itself as files |
//! | `core.rs` | call once, or park; durable before the answer, if that is asked for |
//! | `parked.rs` | requests that wait for storage, and the threads that wait for them |
//! | `patience.rs` | the thread that answers who has waited for too long |
//! | `outage.rs` | says once that storage does not answer, and once that it does again |
//! | `outlet.rs` | what the kernel is told without having asked |
//! | `notices.rs` | the thread that has the kernel forget attributes, on which some answers wait |
//! | `stale.rs` | the thread that has it forget what keys have changed |
//! | `deferred.rs` | the thread that does what removals left to do |
//! | `crowd.rs` | the thread that has the kernel let go of nodes when it holds too many |
//! | `tests.rs` | what waits, and for how long, with storage that is told when to answer |

mod appearance;
mod control;
pub(crate) mod convert;
mod core;
mod crowd;
mod deferred;
mod errno;
mod groups;
pub(crate) mod kernel;
pub(crate) mod lifetime;
mod listing;
mod notices;
mod operation;
mod outage;
mod outlet;
mod parked;
mod patience;
mod requests;
mod stale;
#[cfg(test)]
mod tests;

pub use appearance::Appearance;
pub use kernel::REQUEST_BYTES_MAX;
pub use requests::Facade;

use crate::facade::core::Core;
use crate::facade::crowd::Crowd;
use crate::facade::deferred::Deferred;
use crate::facade::outlet::Outlet;
use crate::fs::{FileSystem, Forget};
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
    /// Others change keys while this is mounted.
    pub serves_keys: bool,
    /// What files look like.
    pub appearance: Appearance,
}

/// The threads behind a façade.
pub struct Service {
    core: Arc<Core>,
    deferred: Deferred,
    crowd: Crowd,
}

/// A façade for a session, and the threads behind it.
pub fn start(fs: Arc<FileSystem>, manners: Manners) -> std::io::Result<(Facade, Service)> {
    let deferred = Deferred::start(fs.clone(), manners.timeout)?;
    let crowd = Crowd::start(fs.clone(), manners.held_max)?;
    let core = Arc::new(Core::start(fs, manners, deferred.bell(), crowd.watch())?);
    Ok((Facade::new(core.clone()), Service { core, deferred, crowd }))
}

impl Service {
    /// Where what the kernel is told unasked goes: a descriptor of the session. To be called before the
    /// session runs.
    pub fn notify_by(&self, session: OwnedFd) {
        let outlet = Outlet::new(session);
        self.core.notify_by(outlet.clone());
        self.crowd.notify_by(outlet);
    }

    /// For who changes keys: also when the session has ended, when there is nobody who could know them.
    pub fn forget(&self) -> Forget {
        let (forgetting, fs, bell) = (self.core.forgetting().clone(), self.core.fs.clone(), self.deferred.bell());
        Arc::new(move |stale, then| {
            if fs.deferred_due() {
                bell.ring();
            }
            forgetting.forget(stale, then);
        })
    }

    /// Drops what is parked and ends the threads. To be called when the session has ended. Returns
    /// within seconds, also while storage does not answer: threads that wait for it end when it does,
    /// and have the store until then.
    pub fn stop(self) {
        self.deferred.stop();
        self.crowd.stop();
        self.core.stop();
        self.core.fs.store_access_times();
    }
}

//! Call once, or park; durable before the answer, if that is asked for.

use crate::facade::deferred::Bell;
use crate::facade::errno::{errno, is_storage};
use crate::facade::workers::Workers;
use crate::facade::{Manners, SyncMode};
use crate::fs::{self, FileSystem, FsError, Ino};
use fuser::{Errno, INodeNo, Notifier};
use kivafs::store::Miss;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// What a request changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Contents or attributes.
    Node,
    /// Names.
    Names,
}

/// What all requests share.
pub struct Core {
    pub fs: Arc<FileSystem>,
    manners: Manners,
    workers: Workers,
    bell: Bell,
    poison_told: AtomicBool,
    notifier: OnceLock<Notifier>,
}

impl Core {
    /// Starts the workers.
    pub fn start(fs: Arc<FileSystem>, manners: Manners, bell: Bell) -> std::io::Result<Core> {
        Ok(Core {
            fs,
            manners,
            workers: Workers::start()?,
            bell,
            poison_told: AtomicBool::new(false),
            notifier: OnceLock::new(),
        })
    }

    /// Where notifications go. To be called before the session runs.
    pub fn notify_by(&self, notifier: Notifier) {
        assert!(self.notifier.set(notifier).is_ok(), "a façade serves one session");
    }

    /// Has the kernel forget a node's attributes, then calls `done`. Returns at once: a worker
    /// does it, with no lock held, for the kernel may wait for us before it takes a notification.
    pub fn forget_attributes(self: &Arc<Core>, node: Ino, done: impl FnOnce() + Send + 'static) {
        let core = self.clone();
        self.workers.park(
            0,
            Box::new(move || {
                // A negative offset: attributes only.
                let told = core.notifier.get().map(|notifier| notifier.inval_inode(INodeNo(node.0), -1, 0));
                if let Some(Err(error)) = told {
                    tracing::warn!("{node}: the kernel keeps old attributes: {error}");
                }
                done();
            }),
        );
    }

    /// Answers what is parked, then ends the workers.
    pub fn stop(&self) {
        self.workers.stop();
    }

    /// Waits until there is room for a write: the only back-pressure.
    pub fn wait_for_room(&self) {
        self.fs.store().wait_for_room();
        self.workers.wait_for_room();
    }

    /// Calls `call` with `state` until it does not miss, then `reply`. The first call is made
    /// here; if that misses, a worker does the rest, and this returns at once. `bytes`: what a
    /// parked request holds.
    pub fn answer<S, T>(
        self: &Arc<Core>,
        effect: Effect,
        bytes: usize,
        mut state: S,
        call: impl Fn(&FileSystem, &mut S) -> fs::Result<T> + Send + 'static,
        reply: impl FnOnce(S, Result<T, Errno>) + Send + 'static,
    ) where
        S: Send + 'static,
        T: Send + 'static,
    {
        match call(&self.fs, &mut state) {
            Err(FsError::Miss(miss)) => {
                let core = self.clone();
                self.workers.park(
                    bytes,
                    Box::new(move || {
                        let done = core.ask_again(miss, || call(&core.fs, &mut state));
                        core.finish(effect, done, move |done| reply(state, done));
                    }),
                );
            }
            done => self.finish(effect, done, move |done| reply(state, done)),
        }
    }

    /// Fetches and asks until it does not miss. The time limit also ends what would miss for
    /// ever, in a cache too small for what one request needs.
    fn ask_again<T>(&self, mut miss: Miss, mut call: impl FnMut() -> fs::Result<T>) -> fs::Result<T> {
        let since = Instant::now();
        loop {
            self.fs.store().fetch(&miss)?;
            match call() {
                Err(FsError::Miss(next)) if since.elapsed() < self.manners.timeout => miss = next,
                Err(FsError::Miss(_)) => {
                    let seconds = self.manners.timeout.as_secs();
                    return Err(FsError::Io(format!("storage did not answer within {seconds} s").into()));
                }
                done => return done,
            }
        }
    }

    fn finish<T: Send + 'static>(
        &self,
        effect: Effect,
        done: fs::Result<T>,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let durable_first = match self.manners.sync {
            SyncMode::OnRequest => false,
            SyncMode::Names => effect == Effect::Names,
            SyncMode::Everything => effect != Effect::None,
        };
        match done {
            Ok(done) if durable_first => self.sync_then(move |synced| reply(synced.map(|()| done))),
            Ok(done) => reply(Ok(done)),
            Err(error) => reply(Err(self.told_errno(&error))),
        }
        if effect != Effect::None {
            self.ring();
        }
    }

    /// Calls `done` once everything up to here is durable, or can't become so. Does not wait.
    pub fn sync_then(&self, done: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        self.fs.store().sync_then(Box::new(move |synced| {
            done(synced.map_err(|error| {
                tracing::error!("a sync failed: {error}");
                errno(&error.into())
            }))
        }));
    }

    /// Wakes the thread for deferred work, if there is any.
    pub fn ring(&self) {
        if self.fs.deferred_due() {
            self.bell.ring();
        }
    }

    /// The errno; what it can't say goes to the log. Poison, which every change then meets, once.
    fn told_errno(&self, error: &FsError) -> Errno {
        let poison = matches!(error, FsError::Poisoned(_));
        if is_storage(error) && !(poison && self.poison_told.swap(true, Ordering::Relaxed)) {
            tracing::error!("{error}");
        }
        errno(error)
    }
}

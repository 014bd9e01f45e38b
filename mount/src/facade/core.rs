//! Call once, or park; durable before the answer, if that is asked for.

use crate::facade::crowd::Watch;
use crate::facade::deferred::Bell;
use crate::facade::errno::{errno, is_storage};
use crate::facade::patience::Patience;
use crate::facade::workers::Workers;
use crate::facade::{Manners, SyncMode};
use crate::fs::{self, FileSystem, FsError, Ino};
use fuser::{Errno, INodeNo, Notifier};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// How often one request has space given back: others may be quicker to take it.
const RECLAIMS_MAX: u32 = 3;

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
    patience: Patience<Result<(), Errno>>,
    bell: Bell,
    watch: Watch,
    poison_told: AtomicBool,
    notifier: OnceLock<Notifier>,
}

impl Core {
    /// Starts the workers.
    pub fn start(fs: Arc<FileSystem>, manners: Manners, bell: Bell, watch: Watch) -> std::io::Result<Core> {
        Ok(Core {
            fs,
            manners,
            workers: Workers::start()?,
            patience: Patience::start(manners.timeout, move || {
                let seconds = manners.timeout.as_secs();
                tracing::error!("a sync was not answered within {seconds} s: whether it will be is not known");
                Err(Errno::EIO)
            })?,
            bell,
            watch,
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
        self.patience.stop();
    }

    /// The kernel lets go of a node `count` times.
    pub fn forget(&self, node: Ino, count: u64) {
        if self.fs.forget(node, count) {
            self.watch.after_forget();
        }
        self.ring();
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
            Err(obstacle @ (FsError::Miss(_) | FsError::NoSpace)) => {
                let core = self.clone();
                self.workers.park(
                    bytes,
                    Box::new(move || {
                        let done = core.ask_again(obstacle, || call(&core.fs, &mut state));
                        core.finish(effect, done, move |done| reply(state, done));
                    }),
                );
            }
            done => self.finish(effect, done, move |done| reply(state, done)),
        }
    }

    /// Takes the obstacle away and asks again, until there is none: fetches what is missing, and
    /// where there is no space has what was deleted given back first. The time limit also ends what
    /// would miss for ever, in a cache too small for what one request needs.
    fn ask_again<T>(&self, mut obstacle: FsError, mut call: impl FnMut() -> fs::Result<T>) -> fs::Result<T> {
        let since = Instant::now();
        let mut reclaims = 0;
        loop {
            match &obstacle {
                FsError::Miss(miss) => self.fs.store().fetch(miss)?,
                _ if reclaims < RECLAIMS_MAX && self.fs.store().reclaim(since + self.manners.timeout) => reclaims += 1,
                _ => return Err(obstacle),
            }
            match call() {
                Err(next @ (FsError::Miss(_) | FsError::NoSpace)) if since.elapsed() < self.manners.timeout => {
                    obstacle = next;
                }
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
        match effect {
            Effect::Node => self.ring(),
            Effect::Names => {
                self.ring();
                self.watch.after_lookup(&self.fs);
            }
            Effect::None => self.watch.after_lookup(&self.fs),
        }
    }

    /// Calls `done` once everything up to here is durable, or can't become so; or with EIO when
    /// that took too long: then the outcome is not known, and the changes stay first in line. A
    /// later sync gets its own answer. Does not wait.
    pub fn sync_then(&self, done: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        let answer = self.patience.wait(Box::new(done));
        self.fs.store().sync_then(Box::new(move |synced| {
            answer.give(synced.map_err(|error| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facade::crowd::Crowd;
    use crate::facade::deferred::Deferred;
    use crate::fs::{Caller, Gated, IfExists, ROOT, coarse_now, open_on, store_on};
    use std::sync::mpsc;
    use std::time::Duration;

    const USER: Caller = Caller { uid: 0, gid: 0 };

    /// A request that changes names, as all of them come.
    fn create(core: &Arc<Core>, name: &'static [u8], told: mpsc::Sender<Result<(), Errno>>) {
        let call = move |fs: &FileSystem, (): &mut ()| fs.create(USER, ROOT, name, 0o644, IfExists::Fail);
        core.answer(Effect::Names, 0, (), call, move |(), done| told.send(done.map(drop)).unwrap());
    }

    #[test]
    fn who_waits_for_storage_that_does_not_answer_is_told_and_loses_nothing() {
        let disk = Arc::new(Gated::default());
        let fs = Arc::new(FileSystem::open(store_on(disk.clone()), coarse_now).unwrap());
        let manners = Manners { sync: SyncMode::Names, timeout: Duration::from_millis(300), held_max: 100 };
        let deferred = Deferred::start(fs.clone()).unwrap();
        let crowd = Crowd::start(fs.clone(), manners.held_max).unwrap();
        let core = Arc::new(Core::start(fs.clone(), manners, deferred.bell(), crowd.watch()).unwrap());
        let (told, answers) = mpsc::channel();
        let sync = || {
            let told = told.clone();
            core.sync_then(move |done| told.send(done).unwrap());
        };
        sync();
        assert_eq!(answers.recv().unwrap(), Ok(()));
        disk.close(true);
        create(&core, b"name", told.clone());
        sync();
        assert_eq!([answers.recv().unwrap(), answers.recv().unwrap()], [Err(Errno::EIO); 2]);
        assert!(fs.lookup(ROOT, b"name").is_ok(), "it is not undone");
        disk.close(false);
        // Nothing was lost, and who asks again gets an answer of its own.
        fs.store().sync().unwrap();
        assert!(answers.try_recv().is_err(), "nobody is answered twice");
        deferred.stop();
        crowd.stop();
        core.stop();
        fs.store().close().unwrap();
        let again = FileSystem::open(open_on(disk), coarse_now).unwrap();
        assert!(again.lookup(ROOT, b"name").is_ok(), "it is durable");
    }
}

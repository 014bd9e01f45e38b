//! Call once, or park; durable before the answer, if that is asked for.

use crate::facade::crowd::Watch;
use crate::facade::deferred::Bell;
use crate::facade::errno::{errno, is_storage};
use crate::facade::lifetime::Lifetimes;
use crate::facade::notices::Notices;
use crate::facade::operation::Operation;
use crate::facade::outage::Outage;
use crate::facade::outlet::Outlet;
use crate::facade::parked::{Obstacle, Parked, ParkedFigures, Refusal, Request};
use crate::facade::patience::Patience;
use crate::facade::stale::Forgetting;
use crate::facade::{Appearance, Manners, SyncMode};
use crate::fs::{self, FileSystem, FsError, Ino};
use crate::meter::Meter;
use fuser::Errno;
use kivafs::store::{Room, StoreError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Who hears that what a name stood for was removed meanwhile has the kernel look for the name once more,
/// and no more than once: what it finds for so long must not be gone, too, before it is opened, or the
/// program is told ESTALE.
const ASKS_AGAIN: Duration = Duration::from_secs(10);

/// What a request changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Contents or attributes.
    Node,
    /// Contents, by bulk data: taken in only while storage keeps up (the only back-pressure).
    Bulk,
    /// Names.
    Names,
}

/// What all requests share.
pub struct Core {
    pub fs: Arc<FileSystem>,
    pub meter: Meter,
    manners: Manners,
    parked: Parked,
    syncs: Patience<Result<(), Errno>>,
    writes: Arc<Outage>,
    notices: Notices,
    forgetting: Forgetting,
    bell: Bell,
    watch: Watch,
    poison_told: AtomicBool,
    outlet: Arc<OnceLock<Outlet>>,
}

impl Core {
    /// Starts the threads.
    pub fn start(fs: Arc<FileSystem>, manners: Manners, bell: Bell, watch: Watch) -> std::io::Result<Core> {
        let reads = Arc::new(Outage::of_reads(manners.timeout));
        let writes = Arc::new(Outage::of_writes(manners.timeout));
        let outlet = Arc::default();
        let its = writes.clone();
        Ok(Core {
            parked: Parked::start(fs.clone(), reads, writes.clone())?,
            syncs: Patience::start(move || {
                its.too_late();
                Err(Errno::EIO)
            })?,
            notices: Notices::start(Arc::clone(&outlet))?,
            forgetting: Forgetting::start(fs.clone(), Arc::clone(&outlet))?,
            fs,
            meter: Meter::default(),
            manners,
            writes,
            bell,
            watch,
            poison_told: AtomicBool::new(false),
            outlet,
        })
    }

    /// Where notifications go. To be called before the session runs.
    pub fn notify_by(&self, outlet: Outlet) {
        assert!(self.outlet.set(outlet).is_ok(), "a façade serves one session");
    }

    /// Whether keys are served beside the mount.
    pub fn serves_keys(&self) -> bool {
        self.manners.serves_keys
    }

    /// For how long the kernel may believe what it is told.
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes::new(self.manners.serves_keys.then(|| self.fs.key_dir()))
    }

    /// What files look like.
    pub fn appearance(&self) -> Appearance {
        self.manners.appearance
    }

    /// Has the kernel forget a node's attributes, then calls `done`. Returns at once.
    pub fn forget_attributes(&self, node: Ino, done: impl FnOnce() + Send + 'static) {
        self.notices.forget_attributes(node, done);
    }

    /// What has the kernel forget what is stale.
    pub fn forgetting(&self) -> &Forgetting {
        &self.forgetting
    }

    /// Drops what is parked (the session is over), then ends the threads, except those that storage
    /// keeps waiting.
    pub fn stop(&self) {
        self.parked.stop();
        self.syncs.stop();
    }

    /// What is parked.
    pub fn parked_now(&self) -> ParkedFigures {
        self.parked.now()
    }

    /// Most nodes that the kernel is to hold.
    pub fn held_max(&self) -> usize {
        self.manners.held_max
    }

    /// The kernel lets go of a node `count` times.
    pub fn forget(&self, node: Ino, count: u64) {
        if self.fs.forget(node, count) {
            self.watch.after_forget();
        }
        self.ring();
    }

    /// When it has to be answered.
    fn deadline(&self, operation: &Operation) -> Instant {
        operation.begun + self.manners.timeout
    }

    /// Answers what can be done at once, and cannot fail.
    pub fn at_once(&self, operation: Operation, work: impl FnOnce(&FileSystem), reply: impl FnOnce()) {
        work(&self.fs);
        operation.answered(&self.meter, &Ok(()));
        reply();
    }

    /// Calls `call` with `state` until nothing is missing, then `reply`. The first call is made
    /// here; if something is missing, the request is parked and others do the rest: this returns at
    /// once, unless so much is parked already that no more may be taken in, or it is to be durable
    /// first and waits for the disk as `sync_then` may. `bytes`: what a parked request holds.
    pub fn answer<S, T>(
        self: &Arc<Core>,
        operation: Operation,
        bytes: usize,
        state: S,
        call: impl Fn(&FileSystem, &mut S) -> fs::Result<T> + Send + 'static,
        reply: impl FnOnce(S, Result<T, Errno>) + Send + 'static,
    ) where
        S: Send + 'static,
        T: Send + 'static,
    {
        let until = self.deadline(&operation);
        let asked = Box::new(Asked { core: self.clone(), operation, until, state, call, reply });
        let parked = match self.room_for(operation.effect()) {
            Ok(()) => asked.ask(),
            Err(room) => Some((asked as Box<dyn Request>, Obstacle::Miss(room.into()))),
        };
        if let Some((request, obstacle)) = parked {
            self.parked.park(request, obstacle, bytes, until);
        }
    }

    /// The room that a request would have to wait for in any case.
    fn room_for(&self, effect: Effect) -> Result<(), Room> {
        let is_waited_for = |room| self.parked.someone_waits(room);
        match effect {
            Effect::None => Ok(()),
            Effect::Bulk if is_waited_for(Room::Bulk) || self.fs.store().bulk_room().is_err() => Err(Room::Bulk),
            _ if is_waited_for(Room::Change) => Err(Room::Change),
            _ => Ok(()),
        }
    }

    fn finish<T: Send + 'static>(
        self: &Arc<Core>,
        operation: Operation,
        until: Instant,
        done: fs::Result<T>,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let effect = operation.effect();
        let core = self.clone();
        let reply = move |done: Result<T, Errno>| {
            operation.answered(&core.meter, &done);
            reply(done);
        };
        let durable_first = match self.manners.sync {
            SyncMode::OnRequest => false,
            SyncMode::Names => effect == Effect::Names,
            SyncMode::Everything => effect != Effect::None,
        };
        match done {
            Ok(done) if durable_first => self.sync_until(until, move |synced| reply(synced.map(|()| done))),
            Ok(done) => reply(Ok(done)),
            Err(error) => reply(Err(self.told_errno(&error))),
        }
        match effect {
            Effect::Node | Effect::Bulk => self.ring(),
            Effect::Names => {
                self.ring();
                self.watch.after_lookup(&self.fs);
            }
            Effect::None => self.watch.after_lookup(&self.fs),
        }
    }

    /// Calls `done` once everything up to here is durable, or can't become so; or with EIO when
    /// that took too long: then the outcome is not known, and the changes stay first in line. A
    /// later sync gets its own answer. Waits for no other request; for the disk at most as `Store::sync_here`
    /// does.
    pub fn sync_then(self: &Arc<Core>, operation: Operation, done: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        let core = self.clone();
        self.sync_until(self.deadline(&operation), move |synced| {
            operation.answered(&core.meter, &synced);
            done(synced);
        });
    }

    fn sync_until(self: &Arc<Core>, until: Instant, done: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        let answer = self.syncs.wait(until, Box::new(done));
        let core = self.clone();
        self.fs.store().sync_here(Box::new(move |synced: Result<(), StoreError>| {
            if synced.is_ok() {
                core.writes.answered();
            }
            answer.give(synced.map_err(|error| core.told_errno(&error.into())));
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
        if matches!(error, FsError::Stale) {
            self.fs.let_removed_stay(ASKS_AGAIN);
        }
        if is_storage(error) && !(poison && self.poison_told.swap(true, Ordering::Relaxed)) {
            tracing::error!("{error}");
        }
        errno(error)
    }
}

/// A request, with all that it needs to be asked again.
struct Asked<S, C, R> {
    core: Arc<Core>,
    operation: Operation,
    until: Instant,
    state: S,
    call: C,
    reply: R,
}

impl<S, T, C, R> Request for Asked<S, C, R>
where
    S: Send + 'static,
    T: Send + 'static,
    C: Fn(&FileSystem, &mut S) -> fs::Result<T> + Send + 'static,
    R: FnOnce(S, Result<T, Errno>) + Send + 'static,
{
    fn ask(mut self: Box<Self>) -> Option<(Box<dyn Request>, Obstacle)> {
        let done = match (self.call)(&self.core.fs, &mut self.state) {
            Ok(done) => Ok(done),
            Err(error) => match Obstacle::of(error) {
                Ok(obstacle) => return Some((self, obstacle)),
                Err(error) => Err(error),
            },
        };
        let Asked { core, operation, until, state, reply, .. } = *self;
        core.finish(operation, until, done, move |done| reply(state, done));
        None
    }

    fn refuse(self: Box<Self>, why: Refusal) {
        let Asked { core, operation, until, state, reply, .. } = *self;
        match why {
            Refusal::Failed(error) => core.finish(operation, until, Err(error), move |done| reply(state, done)),
            // That it was too late was told.
            Refusal::TooLate => {
                let refused = Err(Errno::EIO);
                operation.answered(&core.meter, &refused);
                reply(state, refused);
            }
        }
    }
}

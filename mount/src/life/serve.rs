//! The life of the process that serves.

use crate::facade::{self, Facade, Manners, Service};
use crate::fs::{FileSystem, coarse_now};
use crate::kvlds::server::{Server, Socket};
use crate::life::attach::{Attached, attach};
use crate::life::background::Ready;
use crate::life::drain::{BEAT, Drain, End, GIVEN_UP};
use crate::life::holder::announce_draining;
use crate::life::mountinfo::Device;
use crate::life::opened::Opening;
use crate::life::plan::Plan;
use crate::life::signals::{Signals, Wake};
use crate::life::supervisor::Supervisor;
use crate::life::verdict::{Verdict, Waiting};
use crate::life::{LifeError, detach, journal, mount_point, mountinfo, session, written};
use crate::shown;
use kivafs::store::{Elsewhere, Store, StoreError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// How long to make durable what there is, before what is mounted is taken down after a signal:
/// the less is left for the time when nobody can see it.
const SYNC_FIRST_MAX: Duration = Duration::from_secs(10);

/// How long files that are open are served after a signal.
const OPEN_FILES_MAX: Duration = Duration::from_secs(10);

/// How long a session may take to end after its connection was aborted.
const ABORTED_MAX: Duration = Duration::from_secs(2);

/// How long storage may be silent before it is given up on, for who does not want to wait. Less
/// would give up on what is on its way over a slow line.
const FORCED_SILENCE_MAX: Duration = Duration::from_secs(2);

/// Serves the plan's store until it is unmounted or a signal comes. Ok: everything is durable.
pub fn serve(plan: &Plan, ready: Ready) -> Result<(), LifeError> {
    let signals = Signals::block()?;
    journal::open(&plan.options, matches!(ready, Ready::Background))?;
    let mut tell = |line: String| eprintln!("kivafs: {line}");
    mount_point::prepare(plan, &mut tell)?;
    let opening = Opening {
        place: &plan.store,
        options: &plan.options,
        create: plan.create,
        takeover: plan.takeover,
        serving_at: &plan.dir,
    };
    let opened = opening.open(&signals)?;
    // Not before: a store that is in use would be told of in two lines.
    mount_point::warn_if_not_empty(&plan.dir, &mut tell);
    warn_if_behind(plan, &opened.store, &mut tell);
    let begun = begin(plan, ready, opened.store.clone());
    let mount = match begun {
        Ok(mount) => mount,
        Err(error) => {
            opened.undo(&plan.store);
            return Err(error);
        }
    };
    let verdict = mount.run(plan, &opened.store, &signals);
    match &verdict {
        Ok(()) => info!("{}: ended, everything is durable", plan.store),
        Err(error) => error!("{error}"),
    }
    verdict
}

/// What is mounted for reading while somebody else writes does not follow (R12).
fn warn_if_behind(plan: &Plan, store: &Store, tell: &mut dyn FnMut(String)) {
    if let Some(Elsewhere { holder, as_of }) = store.elsewhere() {
        tell(format!(
            "{}: {holder} writes to it: this shows it as of {}, until it is mounted again",
            plan.store,
            shown::instant(*as_of)
        ));
    }
}

/// A mount that stands and is served.
struct Mount {
    device: Device,
    service: Service,
    /// What serves its keys, too.
    keys: Option<Server>,
    /// Of the session: its thread holds the other end.
    end: End,
    /// The connection, for looking at.
    fuse: OwnedFd,
    verdict: Option<Verdict>,
    urgency: Urgency,
    supervisor: Supervisor,
}

/// How much its end is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// Not at all.
    None,
    /// In order: by a signal.
    Orderly,
    /// Without waiting for open files, or for storage that does not answer: by a second signal, or
    /// `umount --force`.
    Forced,
}

impl Urgency {
    /// After one more signal.
    fn more(self) -> Urgency {
        match self {
            Urgency::None => Urgency::Orderly,
            Urgency::Orderly | Urgency::Forced => Urgency::Forced,
        }
    }
}

/// What ended a wait of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    /// The session is over.
    Over,
    /// Its end is wanted more than before.
    Wanted,
    /// What else was waited for has happened.
    Done,
    /// Nothing happened.
    TimeOut,
}

/// From an open store to a mount that is usable; an error leaves nothing mounted.
fn begin(plan: &Plan, ready: Ready, store: Arc<Store>) -> Result<Mount, LifeError> {
    let content = |error: crate::fs::FsError| LifeError::Content { store: plan.store.name(), why: error.to_string() };
    let fs = FileSystem::open(store, coarse_now).map_err(content)?;
    let fs = Arc::new(fs.with_access_times(plan.options.access_times()));
    let listen = |address| Socket::listen(address, plan.options.kvlds_mode);
    let socket = plan.options.kvlds.as_ref().map(listen).transpose()?;
    let manners = Manners {
        sync: plan.options.sync,
        timeout: plan.options.store.timeout,
        held_max: plan.options.inodes_max,
        serves_keys: socket.is_some(),
        appearance: plan.options.appearance,
    };
    let started = facade::start(fs.clone(), manners);
    let (facade, service) = started.map_err(|error| LifeError::system("cannot start threads", error))?;
    let supervisor = ready.supervisor();
    let mounted = attach(plan).and_then(|attached| {
        let device = attached.mount.device;
        let fuse = attached.fuse.try_clone().map_err(|error| LifeError::system("dup", error));
        let usable = usable(plan, ready, attached, facade, &service).and_then(|(end, verdict)| {
            // Not earlier: what is acknowledged over the socket is not undone.
            let serve = |socket| Server::start(fs, socket, Some(service.forget()));
            let (fuse, keys) = (fuse?, socket.map(serve).transpose()?);
            supervisor.ready();
            Ok((end, verdict, keys, fuse))
        });
        usable.inspect_err(|_| undo_mount(plan, device)).map(|done| (device, done))
    });
    match mounted {
        Ok((device, (end, verdict, keys, fuse))) => {
            Ok(Mount { device, service, keys, end, fuse, verdict, urgency: Urgency::None, supervisor })
        }
        Err(error) => {
            service.stop();
            Err(error)
        }
    }
}

fn usable(
    plan: &Plan,
    ready: Ready,
    attached: Attached,
    facade: Facade,
    service: &Service,
) -> Result<(End, Option<Verdict>), LifeError> {
    let notices = attached.fuse.try_clone().map_err(|error| LifeError::system("dup", error))?;
    let session = session::greet(facade, attached.fuse, plan.options.threads, &plan.dir)?;
    service.notify_by(notices);
    session::read_ahead(attached.mount.device);
    let verdict = match Verdict::listen(&attached.mount) {
        Ok(verdict) => Some(verdict),
        Err(error) => {
            warn!("{}: 'kivafs umount' will not learn how it went: {error}", plan.dir.display());
            None
        }
    };
    let (end, its) = End::pair().map_err(|error| LifeError::system("socketpair", error))?;
    let dir = plan.dir.clone();
    std::thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            if let Err(error) = session.run() {
                error!("{}: the session ended: {error}", dir.display());
            }
            drop(its);
        })
        .map_err(|error| LifeError::system("cannot start a thread", error))?;
    ready.announce()?;
    info!("{}: mounted at {}", plan.store, plan.dir.display());
    Ok((end, verdict))
}

/// Takes down the mount that was just made; the error that made it necessary is what counts.
fn undo_mount(plan: &Plan, device: Device) {
    let ours = matches!(mountinfo::top_at(&plan.dir), Ok(Some(mount)) if mount.device == device);
    if ours && let Err(error) = detach::lazily(&plan.dir) {
        warn!("{error}");
    }
}

impl Mount {
    /// Until the end of the session, and then of everything.
    fn run(mut self, plan: &Plan, store: &Arc<Store>, signals: &Signals) -> Result<(), LifeError> {
        if let Err(error) = self.serve(plan, store, signals) {
            error!("{error}");
        }
        self.supervisor.stopping();
        // While it is open, the kernel takes the connection for one that is served.
        drop(self.fuse);
        // Who is connected could go on for ever.
        drop(self.keys);
        let mut waiting = self.verdict.map(Verdict::leave).unwrap_or_default();
        announce_draining(store);
        info!("{}: unmounted, making the last changes durable", plan.dir.display());
        let service = self.service;
        let closed = match Drain::start(store.clone(), move || service.stop()) {
            Ok(drain) => watch(drain, plan, signals, self.urgency, &mut waiting, &mut self.supervisor),
            Err(error) => {
                error!("cannot start a thread to end with: {error}");
                store.close()
            }
        };
        let requests = store.usage().map(|usage| shown::requests(&usage));
        if let Some(requests) = &requests {
            info!("{}: {requests}", plan.store);
        }
        info!("{}: {}", plan.store, written::line(&store.activity()));
        match &closed {
            Ok(()) => waiting.tell(Ok(requests.as_deref())),
            Err(error) => waiting.tell(Err(&error.to_string())),
        }
        closed.map_err(|error| LifeError::Close { store: plan.store.name(), error })
    }

    /// Until the session is over, or has to be given up.
    fn serve(&mut self, plan: &Plan, store: &Arc<Store>, signals: &Signals) -> Result<(), LifeError> {
        if self.wait(signals, None, None)? == Woken::Over {
            return Ok(());
        }
        info!("{}: asked to end", plan.dir.display());
        self.supervisor.stopping();
        if self.urgency == Urgency::Forced {
            // Who forces a mount's end has its connection aborted, too.
            let is_over = self.ends_within(ABORTED_MAX, signals)? || self.ends_given_up(plan, store, signals)?;
            return if is_over { Ok(()) } else { self.abort(plan, store, signals) };
        }
        announce_draining(store);
        if self.sync(plan, store, signals)? == Woken::Over {
            return Ok(());
        }
        self.unmount(plan, store, signals)
    }

    /// Waits for the session's end, for its end to be wanted more, for `done`, or for `time` to pass.
    fn wait(&mut self, signals: &Signals, done: Option<&End>, time: Option<Duration>) -> Result<Woken, LifeError> {
        let until = time.map(|time| Instant::now() + time);
        loop {
            if self.end.is_over() {
                return Ok(Woken::Over);
            }
            if done.is_some_and(End::is_over) {
                return Ok(Woken::Done);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Woken::TimeOut);
            }
            let mut others: Vec<BorrowedFd<'_>> = vec![self.end.as_fd()];
            others.extend(done.map(AsFd::as_fd));
            others.extend(self.verdict.iter().flat_map(Verdict::descriptors));
            let woken = signals.wait(&others, left)?;
            drop(others);
            if woken == Wake::Stop {
                self.urgency = self.urgency.more();
                return Ok(Woken::Wanted);
            }
            if let Some(verdict) = &mut self.verdict {
                verdict.collect();
                if is_connected(&self.fuse) {
                    verdict.answer_serving();
                }
                if verdict.is_forced() && self.urgency != Urgency::Forced {
                    self.urgency = Urgency::Forced;
                    return Ok(Woken::Wanted);
                }
            }
        }
    }

    /// Makes durable what there is, for a while, while everything is still there for everybody.
    fn sync(&mut self, plan: &Plan, store: &Store, signals: &Signals) -> Result<Woken, LifeError> {
        let (synced, its) = End::pair().map_err(|error| LifeError::system("socketpair", error))?;
        let dir = plan.dir.clone();
        store.sync_then(Box::new(move |done| {
            if let Err(error) = done {
                error!("{}: {error}", dir.display());
            }
            drop(its);
        }));
        self.wait(signals, Some(&synced), Some(SYNC_FIRST_MAX))
    }

    /// After a signal. What is open is served for a while, or until the next signal.
    fn unmount(&mut self, plan: &Plan, store: &Store, signals: &Signals) -> Result<(), LifeError> {
        let dir = plan.dir.as_path();
        match mountinfo::top_at(dir) {
            Ok(Some(mount)) if mount.device == self.device => detach_or_serve(dir),
            // Detached by hand, or hidden under another mount: only the connection can be ended.
            _ => warn!("{}: our mount is not on top there any more", dir.display()),
        }
        let patience = if self.urgency == Urgency::Forced { BEAT } else { OPEN_FILES_MAX };
        if self.wait(signals, None, Some(patience))? == Woken::Over {
            return Ok(());
        }
        self.abort(plan, store, signals)
    }

    /// Ends the session whatever goes on there.
    fn abort(&mut self, plan: &Plan, store: &Store, signals: &Signals) -> Result<(), LifeError> {
        let dir = plan.dir.as_path();
        warn!("{}: files are still open there: they get errors from now on", dir.display());
        if let Err(error) = detach::abort(self.device) {
            error!("{}: {error}", dir.display());
        }
        // Even if the connection can't be aborted, the process ends, which aborts it.
        if !self.ends_within(ABORTED_MAX, signals)? {
            self.ends_given_up(plan, store, signals)?;
        }
        Ok(())
    }

    /// Who reads requests may be waiting for room, which only storage can make: does the session end
    /// if that is not waited for?
    fn ends_given_up(&mut self, plan: &Plan, store: &Store, signals: &Signals) -> Result<bool, LifeError> {
        if !plan.store.may_be_away() {
            return Ok(false);
        }
        warn!("{}: given up: what is not durable by now may be lost", plan.store);
        store.abandon(GIVEN_UP);
        self.ends_within(ABORTED_MAX, signals)
    }

    fn ends_within(&mut self, time: Duration, signals: &Signals) -> Result<bool, LifeError> {
        let until = Instant::now() + time;
        loop {
            match self.wait(signals, None, Some(until.saturating_duration_since(Instant::now())))? {
                Woken::Over => return Ok(true),
                Woken::TimeOut => return Ok(false),
                // It is wanted as much as can be.
                Woken::Wanted | Woken::Done => {}
            }
        }
    }
}

/// Does the kernel still know of a mount of ours, wherever? It lets go of the connection with the last.
fn is_connected(fuse: &OwnedFd) -> bool {
    let mut looked_at = [PollFd::new(fuse.as_fd(), PollFlags::empty())];
    let looked = poll(&mut looked_at, PollTimeout::ZERO);
    looked.is_ok() && !looked_at[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// Until the store is closed. One signal more than it took to get here, or somebody's `--force`, and
/// silent storage is not waited for; nor for longer than any request would have waited.
fn watch(
    mut drain: Drain,
    plan: &Plan,
    signals: &Signals,
    mut urgency: Urgency,
    waiting: &mut Waiting,
    supervisor: &mut Supervisor,
) -> Result<(), StoreError> {
    loop {
        let silence_max = match urgency {
            Urgency::None | Urgency::Orderly => plan.options.store.timeout,
            Urgency::Forced => FORCED_SILENCE_MAX,
        };
        if let Some(outcome) = drain.outcome(plan.store.may_be_away().then_some(silence_max)) {
            return outcome;
        }
        let backlog = drain.backlog();
        waiting.answer(backlog);
        supervisor.draining(backlog);
        let others: Vec<BorrowedFd<'_>> = [drain.as_fd()].into_iter().chain(waiting.descriptors()).collect();
        match signals.wait(&others, Some(BEAT)) {
            Ok(Wake::Stop) => urgency = urgency.more(),
            Ok(Wake::Other | Wake::TimeOut) => {}
            Err(error) => {
                error!("{error}");
                std::thread::sleep(BEAT);
            }
        }
        waiting.hear();
        if waiting.is_forced() {
            urgency = Urgency::Forced;
        }
    }
}

fn detach_or_serve(dir: &Path) {
    let done = match detach::now(dir) {
        Err(LifeError::Busy(_)) => {
            info!("{}: files are open there: served for {} s", dir.display(), OPEN_FILES_MAX.as_secs());
            detach::lazily(dir)
        }
        done => done,
    };
    if let Err(error) = done {
        error!("{error}");
    }
}

//! The life of the process that serves.

use crate::facade::{self, Facade, Manners, Service};
use crate::fs::{FileSystem, coarse_now};
use crate::life::attach::{Attached, attach};
use crate::life::background::Ready;
use crate::life::mountinfo::Device;
use crate::life::plan::Plan;
use crate::life::signals::{Signals, Wake};
use crate::life::verdict::Verdict;
use crate::life::{LifeError, detach, holder, journal, mountinfo, place};
use fuser::{Config, Session, SessionACL};
use kivafs::store::{CreateOptions, OpenError, OpenOptions, Store};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// How long files that are open are served after a signal.
const OPEN_FILES_MAX: Duration = Duration::from_secs(10);

/// How long a session may take to end after its connection was aborted.
const ABORTED_MAX: Duration = Duration::from_secs(2);

/// Kilobytes that the kernel reads ahead: its own limit for FUSE is one small request.
const READ_AHEAD_KIB: u32 = 4096;

/// Serves the plan's store until it is unmounted or a signal comes. Ok: everything is durable.
pub fn serve(plan: &Plan, ready: Ready) -> Result<(), LifeError> {
    let signals = Signals::block()?;
    journal::open(&plan.options, matches!(ready, Ready::Background))?;
    let mut tell = |line: String| eprintln!("kivafs: {line}");
    place::prepare(plan, &mut tell)?;
    let opened = open_store(plan, &signals)?;
    // Not before: a store that is in use would be told of in two lines.
    place::warn_if_not_empty(&plan.dir, &mut tell);
    let begun = begin(plan, ready, opened.store.clone());
    let mount = match begun {
        Ok(mount) => mount,
        Err(error) => {
            opened.undo(plan);
            return Err(error);
        }
    };
    let verdict = mount.run(plan, &opened.store, &signals);
    match &verdict {
        Ok(()) => info!("{}: ended, everything is durable", plan.store.display()),
        Err(error) => error!("{error}"),
    }
    verdict
}

struct Opened {
    store: Arc<Store>,
    /// By us, just now.
    made: bool,
}

impl Opened {
    /// As if nothing had been done.
    fn undo(self, plan: &Plan) {
        // Nothing was acknowledged that could fail to be durable.
        let _ = self.store.close();
        if self.made {
            let _ = std::fs::remove_file(&plan.store);
        }
    }
}

fn open_store(plan: &Plan, signals: &Signals) -> Result<Opened, LifeError> {
    let options = OpenOptions {
        read_only: plan.options.read_only,
        cache_bytes: plan.options.cache_bytes,
        commit_interval: plan.options.commit_interval,
        compression: plan.options.compression,
        serving_at: Some(plan.dir.clone()),
        ..OpenOptions::default()
    };
    let mut made = false;
    let mut open = || match Store::open_at(&plan.store, &options) {
        Err(OpenError::NotFound(_)) if plan.create && !made => {
            Store::create_at(&plan.store, &CreateOptions::default())?;
            made = true;
            Store::open_at(&plan.store, &options)
        }
        opened => opened,
    };
    // The signals are blocked: a wait must listen for them itself.
    let store = holder::patiently(&plan.store, &mut open, &mut |time| match signals.wait(&[], Some(time))? {
        Wake::Stop => Err(LifeError::Interrupted),
        Wake::Other | Wake::TimeOut => Ok(()),
    })?;
    Ok(Opened { store: Arc::new(store), made })
}

/// Tells when the session is over: its thread holds the other end, and lets go of it.
struct SessionEnd(UnixStream);

impl SessionEnd {
    fn is_over(&self) -> bool {
        matches!((&self.0).read(&mut [0]), Ok(0))
    }
}

/// A mount that stands and is served.
struct Mount {
    device: Device,
    service: Service,
    end: SessionEnd,
    verdict: Option<Verdict>,
}

/// From an open store to a mount that is usable; an error leaves nothing mounted.
fn begin(plan: &Plan, ready: Ready, store: Arc<Store>) -> Result<Mount, LifeError> {
    let content = |error: crate::fs::FsError| LifeError::Content { store: plan.store.clone(), why: error.to_string() };
    let fs = FileSystem::open(store, coarse_now).map_err(content)?;
    let manners = Manners { sync: plan.options.sync, timeout: plan.options.timeout, held_max: plan.options.inodes_max };
    let started = facade::start(fs, manners);
    let (facade, service) = started.map_err(|error| LifeError::system("cannot start threads", error))?;
    let mounted = attach(plan).and_then(|attached| {
        let device = attached.mount.device;
        usable(plan, ready, attached, facade, &service)
            .inspect_err(|_| undo_mount(plan, device))
            .map(|done| (device, done))
    });
    match mounted {
        Ok((device, (end, verdict))) => Ok(Mount { device, service, end, verdict }),
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
) -> Result<(SessionEnd, Option<Verdict>), LifeError> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(plan.options.threads);
    let notices = attached.fuse.try_clone().map_err(|error| LifeError::system("dup", error))?;
    // From a descriptor, the session knows no mount, so that it can't unmount a newer one.
    let session = Session::from_fd(facade, attached.fuse, SessionACL::All, config)
        .map_err(|error| LifeError::system(format!("{}: the kernel's greeting", plan.dir.display()), error))?;
    service.notify_by(session.notifier(), notices);
    read_ahead(attached.mount.device);
    let verdict = match Verdict::listen(&attached.mount) {
        Ok(verdict) => Some(verdict),
        Err(error) => {
            warn!("{}: 'kivafs umount' will not learn how it went: {error}", plan.dir.display());
            None
        }
    };
    let pair = UnixStream::pair().and_then(|pair| pair.0.set_nonblocking(true).map(|()| pair));
    let (ours, its) = pair.map_err(|error| LifeError::system("socketpair", error))?;
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
    info!("{}: mounted at {}", plan.store.display(), plan.dir.display());
    Ok((SessionEnd(ours), verdict))
}

/// Takes down the mount that was just made; the error that made it necessary is what counts.
fn undo_mount(plan: &Plan, device: Device) {
    let ours = matches!(mountinfo::top_at(&plan.dir), Ok(Some(mount)) if mount.device == device);
    if ours && let Err(error) = detach::lazily(&plan.dir) {
        warn!("{error}");
    }
}

/// Only root may; without, reading is right, and slower.
fn read_ahead(device: Device) {
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", device.major, device.minor);
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!("{path}: {error}");
    }
}

impl Mount {
    /// Until the end of the session, and then of everything.
    fn run(mut self, plan: &Plan, store: &Store, signals: &Signals) -> Result<(), LifeError> {
        if let Err(error) = self.serve(plan, store, signals) {
            error!("{error}");
        }
        // From here on a signal changes nothing: what is left to do is what it would ask for.
        let waiting = self.verdict.map(Verdict::leave);
        store.announce_draining();
        info!("{}: unmounted, making the last changes durable", plan.dir.display());
        self.service.stop();
        let closed = store.close();
        if let Some(waiting) = waiting {
            waiting.tell(&closed.as_ref().map(|_| ()).map_err(|error| error.to_string()));
        }
        closed.map_err(|error| LifeError::Close { store: plan.store.clone(), error })
    }

    /// Until the session is over, or has to be given up.
    fn serve(&mut self, plan: &Plan, store: &Store, signals: &Signals) -> Result<(), LifeError> {
        if self.wait(signals, None)? == Wake::Other {
            return Ok(());
        }
        info!("{}: asked to end", plan.dir.display());
        store.announce_draining();
        if let Err(error) = store.sync() {
            error!("{}: {error}", plan.dir.display());
        }
        self.unmount(plan, signals)
    }

    /// Waits for the session's end (`Wake::Other`), for a signal, or for `time` to pass.
    fn wait(&mut self, signals: &Signals, time: Option<Duration>) -> Result<Wake, LifeError> {
        let until = time.map(|time| Instant::now() + time);
        loop {
            if self.end.is_over() {
                return Ok(Wake::Other);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Wake::TimeOut);
            }
            let others: Vec<_> =
                [self.end.0.as_fd()].into_iter().chain(self.verdict.as_ref().map(AsFd::as_fd)).collect();
            if signals.wait(&others, left)? == Wake::Stop {
                return Ok(Wake::Stop);
            }
            if let Some(verdict) = &mut self.verdict {
                verdict.collect();
            }
        }
    }

    /// After a signal. What is open is served for a while, or until the next signal.
    fn unmount(&mut self, plan: &Plan, signals: &Signals) -> Result<(), LifeError> {
        let dir = plan.dir.as_path();
        match mountinfo::top_at(dir) {
            Ok(Some(mount)) if mount.device == self.device => detach_or_serve(dir),
            // Detached by hand, or hidden under another mount: only the connection can be ended.
            _ => warn!("{}: our mount is not on top there any more", dir.display()),
        }
        if self.wait(signals, Some(OPEN_FILES_MAX))? == Wake::Other {
            return Ok(());
        }
        warn!("{}: files are still open there: they get errors from now on", dir.display());
        if let Err(error) = detach::abort(self.device) {
            error!("{}: {error}", dir.display());
        }
        // Even if the connection can't be aborted, the process ends, which aborts it.
        let since = Instant::now();
        while since.elapsed() < ABORTED_MAX && self.wait(signals, Some(Duration::from_millis(50)))? != Wake::Other {}
        Ok(())
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

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
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
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
    let verdict = mount.run(plan, &opened.store, signals);
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
    let store = holder::patiently(&plan.store, &mut open, &mut |time| match signals.wait(None, Some(time))? {
        Wake::Stop => Err(LifeError::Interrupted),
        Wake::Other | Wake::TimeOut => Ok(()),
    })?;
    Ok(Opened { store: Arc::new(store), made })
}

/// Set once the session is over.
#[derive(Default)]
struct Over {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Over {
    fn set(&self) {
        *self.over.lock() = true;
        self.changed.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.over.lock()
    }

    fn wait(&self) {
        let mut over = self.over.lock();
        while !*over {
            self.changed.wait(&mut over);
        }
    }
}

/// A mount that stands and is served.
struct Mount {
    device: Device,
    service: Service,
    over: Arc<Over>,
    verdict: Option<Arc<Verdict>>,
}

/// From an open store to a mount that is usable; an error leaves nothing mounted.
fn begin(plan: &Plan, ready: Ready, store: Arc<Store>) -> Result<Mount, LifeError> {
    let content = |error: crate::fs::FsError| LifeError::Content { store: plan.store.clone(), why: error.to_string() };
    let fs = FileSystem::open(store, coarse_now).map_err(content)?;
    let manners = Manners { sync: plan.options.sync, timeout: plan.options.timeout };
    let started = facade::start(fs, manners);
    let (facade, service) = started.map_err(|error| LifeError::system("cannot start threads", error))?;
    let mounted = attach(plan).and_then(|attached| {
        let device = attached.device;
        usable(plan, ready, attached, facade).inspect_err(|_| undo_mount(plan, device)).map(|done| (device, done))
    });
    match mounted {
        Ok((device, (over, verdict))) => Ok(Mount { device, service, over, verdict }),
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
) -> Result<(Arc<Over>, Option<Arc<Verdict>>), LifeError> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(plan.options.threads);
    // From a descriptor, the session knows no mount, so that it can't unmount a newer one.
    let session = Session::from_fd(facade, attached.fuse, SessionACL::All, config)
        .map_err(|error| LifeError::system(format!("{}: the kernel's greeting", plan.dir.display()), error))?;
    read_ahead(attached.device);
    let verdict = match Verdict::listen(attached.device) {
        Ok(verdict) => Some(Arc::new(verdict)),
        Err(error) => {
            warn!("{}: 'kivafs umount' will not learn how it went: {error}", plan.dir.display());
            None
        }
    };
    let over = Arc::new(Over::default());
    let its = over.clone();
    let dir = plan.dir.clone();
    std::thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            if let Err(error) = session.run() {
                error!("{}: the session ended: {error}", dir.display());
            }
            its.set();
        })
        .map_err(|error| LifeError::system("cannot start a thread", error))?;
    ready.announce()?;
    info!("{}: mounted at {}", plan.store.display(), plan.dir.display());
    Ok((over, verdict))
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
    fn run(self, plan: &Plan, store: &Arc<Store>, signals: Signals) -> Result<(), LifeError> {
        let Mount { device, service, over, verdict } = self;
        let watch =
            Watch { dir: plan.dir.clone(), device, store: store.clone(), over: over.clone(), verdict: verdict.clone() };
        let watching = std::thread::Builder::new().name("signals".into()).spawn(move || watch.run(&signals));
        if let Err(error) = watching {
            undo_mount(plan, device);
            over.wait();
            service.stop();
            store.close().map_err(|error| LifeError::Close { store: plan.store.clone(), error })?;
            return Err(LifeError::system("cannot start a thread", error));
        }
        over.wait();
        store.announce_draining();
        info!("{}: unmounted, making the last changes durable", plan.dir.display());
        service.stop();
        let closed = store.close().map_err(|error| LifeError::Close { store: plan.store.clone(), error });
        if let Some(verdict) = verdict {
            verdict.tell(&closed.as_ref().map(|_| ()).map_err(LifeError::to_string));
        }
        closed
    }
}

/// What the thread for signals needs.
struct Watch {
    dir: PathBuf,
    device: Device,
    store: Arc<Store>,
    over: Arc<Over>,
    verdict: Option<Arc<Verdict>>,
}

impl Watch {
    /// For as long as the process lives.
    fn run(&self, signals: &Signals) {
        if self.wait(signals, None) == Wake::Stop && !self.over.is_set() {
            info!("{}: asked to end", self.dir.display());
            self.end(signals);
        }
        // A further signal while everything is made durable changes nothing.
        loop {
            self.wait(signals, None);
        }
    }

    fn wait(&self, signals: &Signals, time: Option<Duration>) -> Wake {
        use std::os::fd::AsFd;
        let until = time.map(|time| Instant::now() + time);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let listener = self.verdict.as_ref().map(|verdict| verdict.as_fd());
            match signals.wait(listener, left) {
                Ok(Wake::Other) => self.verdict.iter().for_each(|verdict| verdict.collect()),
                Ok(Wake::TimeOut) if until.is_none_or(|until| Instant::now() < until) => {}
                Ok(wake) => return wake,
                Err(error) => {
                    error!("signals can't be waited for: {error}");
                    return Wake::Stop;
                }
            }
        }
    }

    /// Commit, unmount; what is open is served for a while, or until the next signal.
    fn end(&self, signals: &Signals) {
        self.store.announce_draining();
        if let Err(error) = self.store.sync() {
            error!("{}: {error}", self.dir.display());
        }
        match mountinfo::top_at(&self.dir) {
            Ok(Some(mount)) if mount.device == self.device => self.unmount(),
            // Detached by hand, or hidden under another mount: only the connection can be ended.
            _ => warn!("{}: our mount is not on top there any more", self.dir.display()),
        }
        let since = Instant::now();
        while !self.over.is_set() && since.elapsed() < OPEN_FILES_MAX {
            if self.wait(signals, Some(Duration::from_millis(50))) == Wake::Stop {
                break;
            }
        }
        if !self.over.is_set() {
            warn!("{}: files are still open there: they get errors from now on", self.dir.display());
            if let Err(error) = detach::abort(self.device) {
                error!("{}: {error}", self.dir.display());
            }
            let since = Instant::now();
            while !self.over.is_set() && since.elapsed() < ABORTED_MAX {
                self.wait(signals, Some(Duration::from_millis(10)));
            }
            // Even if the connection can't be aborted, the process ends.
            self.over.set();
        }
    }

    fn unmount(&self) {
        let done = match detach::now(&self.dir) {
            Err(LifeError::Busy(_)) => {
                info!("{}: files are open there: served for {} s", self.dir.display(), OPEN_FILES_MAX.as_secs());
                detach::lazily(&self.dir)
            }
            done => done,
        };
        if let Err(error) = done {
            error!("{error}");
        }
    }
}

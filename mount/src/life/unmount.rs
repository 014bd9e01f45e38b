//! `kivafs umount`: detach, then wait until the server has said that everything is durable.

use crate::life::drain::{BEAT, Backlog};
use crate::life::mountinfo::Mount;
use crate::life::progress::Progress;
use crate::life::verdict::{Heard, Waiter};
use crate::life::{LifeError, detach, mountinfo};
use std::path::PathBuf;
use std::time::Duration;

/// What to unmount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// What is mounted at this directory, or from this store's file.
    Path(PathBuf),
    /// What is mounted from a store in a bucket, by its name in the list of mounts.
    Bucket(PathBuf),
}

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Unless something is open there.
    Orderly,
    /// For names now; for good when nothing is open there any more. Not waited for.
    Lazy,
    /// Ending whatever goes on there, and not waiting for storage that does not answer.
    Forced,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmounted {
    /// The store, as the list of mounts had it.
    pub store: String,
    /// What was asked of its bucket while it was mounted.
    pub requests: Option<String>,
}

/// How long a forced end waits for the verdict: the server may be what is stuck.
const FORCED_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long to wait for another mount namespace to let go: a container that is just being started has a
/// copy of all mounts for a moment, another one keeps it for as long as it lives.
const NAMESPACE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Unmounts the target. Ok: everything is durable (but after [`Manner::Lazy`], where that comes
/// later).
pub fn unmount(target: &Target, manner: Manner) -> Result<Unmounted, LifeError> {
    let mount = find(target)?;
    let requests = take_down(&mount, manner)?;
    Ok(Unmounted { store: mount.source.to_string_lossy().into_owned(), requests })
}

fn find(target: &Target) -> Result<Mount, LifeError> {
    let (given, listed) = match target {
        Target::Path(path) => (path, mountinfo::as_listed(path).ok()),
        Target::Bucket(name) => (name, Some(name.clone())),
    };
    let is_it = |mount: &Mount, listed: &PathBuf| {
        mount.dir == *listed || (mount.is_ours() && mountinfo::names_store(&mount.source, listed))
    };
    let mounts = mountinfo::read()?;
    listed
        .and_then(|listed| mounts.into_iter().rfind(|mount| is_it(mount, &listed)))
        .filter(Mount::is_ours)
        .ok_or_else(|| LifeError::NotMounted(given.clone()))
}

/// The answer are the requests that were made of the store's bucket.
fn take_down(mount: &Mount, manner: Manner) -> Result<Option<String>, LifeError> {
    let dir = mount.dir.as_path();
    // What lies on top is what would be unmounted.
    if mountinfo::top_at(dir)?.is_none_or(|top| top.device != mount.device) {
        return Err(LifeError::Hidden(dir.into()));
    }
    let mut waiter = Waiter::connect(mount);
    // Only a mount without a server is looked into: one that is stuck would hold us up.
    if waiter.is_none() && mountinfo::is_dead(dir) {
        detach::lazily(dir)?;
        return if manner == Manner::Forced { Ok(None) } else { Err(LifeError::WasDead(dir.into())) };
    }
    match manner {
        Manner::Orderly => {
            detach::now(dir)?;
            verdict(mount, waiter, manner)
        }
        Manner::Lazy => detach::lazily(dir).map(|()| None),
        Manner::Forced => {
            if let Some(waiter) = &mut waiter {
                waiter.force();
            }
            let aborted = detach::abort(mount.device);
            detach::lazily(dir)?;
            match (verdict(mount, waiter, manner), aborted) {
                // What can't be aborted (an ordinary user may lack fusectl) may still end by itself.
                (Err(LifeError::Unknown { .. }), Err(error)) => Err(error),
                (heard, _) => heard,
            }
        }
    }
}

fn verdict(mount: &Mount, waiter: Option<Waiter>, manner: Manner) -> Result<Option<String>, LifeError> {
    match waiter {
        Some(waiter) => wait(mount, waiter, manner),
        None => {
            let why = "its server can't be asked from here (see its log)".into();
            Err(LifeError::Unknown { dir: mount.dir.clone(), why })
        }
    }
}

/// Where else it is mounted, as far as is seen from here: by a bind mount.
fn still_at(mount: &Mount) -> Option<String> {
    let mounts = mountinfo::read().unwrap_or_default();
    let other = mounts.iter().rfind(|other| other.device == mount.device)?;
    Some(format!("at {}", other.dir.display()))
}

/// Who is interrupted here does no harm: the server goes on by itself.
fn wait(mount: &Mount, mut waiter: Waiter, manner: Manner) -> Result<Option<String>, LifeError> {
    let unknown = |why: String| LifeError::Unknown { dir: mount.dir.clone(), why };
    let mut progress = Progress::start();
    let mut backlog: Option<Backlog> = None;
    loop {
        match waiter.hear(BEAT) {
            Heard::Durable(requests) => return Ok(requests),
            Heard::NotDurable(why) => return Err(LifeError::NotDurable { dir: mount.dir.clone(), why }),
            Heard::Died => return Err(unknown(format!("its server (pid {}) died", waiter.pid))),
            // It may serve what could not be aborted.
            Heard::Nothing | Heard::Serves if manner == Manner::Forced && progress.elapsed() >= FORCED_WAIT_MAX => {
                return Err(unknown(format!("its server (pid {}) is still at it", waiter.pid)));
            }
            Heard::Serves => {
                if manner == Manner::Orderly {
                    let elsewhere = still_at(mount);
                    if elsewhere.is_some() || progress.elapsed() >= NAMESPACE_WAIT_MAX {
                        let place = elsewhere.unwrap_or_else(|| "in another mount namespace".into());
                        return Err(LifeError::StillMounted { dir: mount.dir.clone(), place });
                    }
                }
                // The answer comes at once: without a pause this would spin.
                std::thread::sleep(BEAT);
                waiter.ask();
            }
            Heard::Nothing => waiter.ask(),
            Heard::Waits(told) => backlog = Some(told),
        }
        let store = mount.source.to_string_lossy();
        let to_go = backlog.map_or_else(|| "to make everything durable".to_string(), |backlog| backlog.shown());
        progress.tick(&format!(
            "{}: unmounted; waiting for {store} (pid {}): {to_go}",
            mount.dir.display(),
            waiter.pid
        ));
    }
}
